/*  verb: what the program's main needs to know of a verb, and what a verb gets from it.

    A verb is one file with one tl_verb_t. main finds it by name, reads the options of its table into a
    struct of its own, and turns its tl_error_t into one line on stderr and the exit code. A new verb:
    write the file, add its line to verbs.c and to CMakeLists.txt.                                  */

#ifndef TL_VERB_H
#define TL_VERB_H

#include "error.h"
#include "topology/topology.h"
#include "ui/format.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    TL_OPTION_FLAG,  //  bool, true when given
    TL_OPTION_TEXT,  //  const char *
    TL_OPTION_TEXTS, //  tl_texts_t, one more each time it is given
    TL_OPTION_COUNT, //  uint64_t in [min, max]
    TL_OPTION_REAL   //  double in [min, max]
} tl_option_kind_t;

enum { TL_TEXTS = 64 };

typedef struct {
    const char *items[TL_TEXTS]; //  as given
    size_t count;
} tl_texts_t;

typedef struct {
    const char *name; //  long name without --
    tl_option_kind_t kind;
    size_t offset;        //  of the field in the verb's options struct
    const char *argument; //  name of the value in the help, NULL for a flag
    double min, max;      //  of numbers
    const char *help;     //  a line
} tl_option_t;

//  The command line of one verb, read.
typedef struct {
    tl_format_t format;           //  --format
    bool color;                   //  escape sequences are welcome on stdout
    const char *const *overrides; //  [override_count] of --set
    size_t override_count;
    const char *const *words; //  [word_count] what is no option
    size_t word_count;
    const void *options; //  the verb's options struct, filled
} tl_arguments_t;

typedef struct {
    const char *name;  //  as typed
    const char *words; //  usage of what is no option: "TOPOLOGY [NAME...]"
    size_t min_words, max_words;
    const char *help;           //  a line for the list of verbs
    const char *more;           //  further lines for `trunkline VERB --help`, or NULL
    const tl_option_t *options; //  ends with {NULL}; NULL: none of its own
    const void *defaults;       //  the options struct before reading, options_size bytes
    size_t options_size;
    int (*run) (const tl_arguments_t *arguments, tl_error_t *err); //  0, or -1 with err filled
} tl_verb_t;

//  All verbs in the order of the help.
const tl_verb_t *const *tl_verbs (size_t *count);

//  Reads argv (argv [0] is the verb) and runs. Returns the process's exit code.
int tl_verb_main (const tl_verb_t *verb, int argc, char **argv);

//  The host of a topology's actor is this machine: localhost, or its name.
bool tl_verb_is_here (const char *host);

//  The host of a topology's actor is the one asked for; wanted NULL: is this machine.
bool tl_verb_is_at (const char *host, const char *wanted);

//  The --set of the command line whose key begins with prefix, as they are to be given again: " --set a.b=c", or "". For
//  advice; the caller frees.
char *tl_verb_again (const tl_arguments_t *arguments, const char *prefix);

//  The topology named by a word of the command line, with its --set.
tl_topology_t *tl_verb_topology (const tl_arguments_t *arguments, const char *path,
                                 tl_error_t *err);

#endif
