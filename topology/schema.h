/*  schema: every key a topology may hold, one table row each: place, type, range, default, help.

    Reading fills a tl_topology_t from a tree and refuses what the table doesn't know or allow; what
    one key means for another is topology.c's business.                                           */

#ifndef TL_SCHEMA_H
#define TL_SCHEMA_H

#include "topology.h"
#include "yaml.h"

typedef enum {
    TL_SETTING_SECTION, //  a mapping of further keys; with choices also one of their words, a bool
    TL_SETTING_OPTION,  //  a section that may be left out; bool: whether it is there
    TL_SETTING_PEERS,   //  a list of mappings; its rows' paths go on with "[]."
    TL_SETTING_COUNT,   //  size_t or uint64_t, in [min, max]
    TL_SETTING_MEGABYTES, //  size_t in bytes, written in units of 2^20
    TL_SETTING_INTEGER,   //  int in [min, max]
    TL_SETTING_MS,        //  int64_t in [min, max]
    TL_SETTING_REAL,      //  double in [min, max], finite
    TL_SETTING_TEXT,      //  char *, not empty unless the default is
    TL_SETTING_NAME,      //  char *, letters, digits, - and _, at most 32
    TL_SETTING_ADDRESS,   //  char *, tcp://ADDRESS:PORT
    TL_SETTING_CHOICE,    //  int, one of the row's words
    TL_SETTING_FLAG,      //  bool, one of the row's words
    TL_SETTING_TARGETS,   //  the list tune.targets
    TL_SETTING_FREEZE,    //  the list tune.freeze
    TL_SETTING_PARTS,     //  unsigned, a set of the row's words
    TL_SETTING_ONLY, //  a known key that has one possible value in this version; nothing is stored
    TL_SETTING_LATER //  a known key that has no effect in this version: refused with the row's help
} tl_setting_kind_t;

typedef struct {
    const char *word;    //  as written in the file
    int value;           //  what is stored, or the bit that is set
    const char *refusal; //  NULL, or why the known word can't be had: "..., use serial or batch"
} tl_choice_t;

typedef struct {
    const char *path; //  "train.lr", "clients[].data"
    tl_setting_kind_t kind;
    size_t offset;              //  of the field in tl_topology_t, or in the peer's struct
    double min, max;            //  for numbers
    const char *fallback;       //  default as it would be written; NULL: the key is required
    const char *expected;       //  "a number above 0": for complaints and help
    const char *example;        //  a good value, for complaints; NULL: the default
    const char *help;           //  what it is; for TL_SETTING_LATER what to do instead
    const tl_choice_t *choices; //  ends with {NULL}
} tl_setting_t;

//  The whole table, in the order of a well-written file, for help texts.
const tl_setting_t *tl_schema (size_t *count);

//  Fills topology (zeroed but for source) from root. 0, or -1 with the place, the key, what was
//  expected and found, and what to do. What was stored so far stays in topology for its destructor.
int tl_schema_read (tl_topology_t *topology, const tl_yaml_t *root, tl_error_t *err);

//  Another file's table, for files that are no topologies but are read in the same way. Rows of kind TL_SETTING_PEERS
//  are only checked to be lists; TL_SETTING_TARGETS and TL_SETTING_FREEZE are not for such tables.
typedef struct {
    const tl_setting_t *rows;
    size_t count;
    const char *whole; //  what such a file is called: "a simulation"
} tl_schema_table_t;

//  Fills base from map by the rows directly below prefix ("workers[]") and their sections; shown is the place in the
//  file ("workers.0"). Texts are the caller's to free. Complaints as tl_schema_read's.
int tl_schema_read_map (const tl_schema_table_t *table, const char *source, const tl_yaml_t *map,
                        const char *prefix, const char *shown, void *base, tl_error_t *err);

//  What topology holds for a row that is no part of a list, as it would be written in the file; "" where nothing was
//  chosen. NULL for rows that hold no value (sections, what is in an option that was left out, lists, one possible value).
//  The caller frees.
char *tl_schema_value (const tl_topology_t *topology, const tl_setting_t *row);

//  Frees every text that tl_schema_read stored.
void tl_schema_release (tl_topology_t *topology);

//  -1 and "PLACE: PATH: sentence", where PLACE is the node's file:line:column or its --set. node NULL
//  means the file as a whole. by_key points at the key instead of the value.
int tl_schema_complain (const char *source, const tl_yaml_t *node, bool by_key, const char *path,
                        tl_error_t *err, const char *format, ...)
    __attribute__ ((format (printf, 6, 7)));

#endif
