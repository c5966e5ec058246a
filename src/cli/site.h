/*  site: what eval and generate share where a site of a topology is meant: whose model, which adapters. */

#ifndef TL_CLI_SITE_H
#define TL_CLI_SITE_H

#include "actors/reader.h"
#include "cli/verb.h"
#include "fed/parts.h"

//  Part of a verb's options.
typedef struct {
    const char *site;    //  --site: a client's name
    const char *adapter; //  --adapter: a directory
    bool live;           //  --live: with the running worker's trunk
    bool saved;          //  --saved: all parts as saved, here
    bool base;           //  --base: with --live, front and tail untrained
    uint64_t timeout_s;  //  --timeout: of --live
} tl_site_options_t;

#define TL_SITE_TIMEOUT_S 60 //  default of --timeout

//  Lines of a verb's option table; at is the offset of its tl_site_options_t.
// clang-format off
#define TL_SITE_OPTION(at, name, kind, field, argument, min, max, help) \
    {name, kind, (at) + offsetof (tl_site_options_t, field), argument, min, max, help}
#define TL_SITE_OPTIONS(at) \
    TL_SITE_OPTION (at, "site", TL_OPTION_TEXT, site, "NAME", 0, 0, \
                    "this client of the topology"), \
    TL_SITE_OPTION (at, "adapter", TL_OPTION_TEXT, adapter, "DIR", 0, 0, \
                    "put this adapter on the model; with --live, on front and tail"), \
    TL_SITE_OPTION (at, "saved", TL_OPTION_FLAG, saved, NULL, 0, 0, \
                    "front, tail and trunk as the run saved them on this disk"), \
    TL_SITE_OPTION (at, "live", TL_OPTION_FLAG, live, NULL, 0, 0, \
                    "front and tail as saved here, trunk of the running worker"), \
    TL_SITE_OPTION (at, "base", TL_OPTION_FLAG, base, NULL, 0, 0, \
                    "with --live: front and tail untrained"), \
    TL_SITE_OPTION (at, "timeout", TL_OPTION_COUNT, timeout_s, "S", 1, 86400, \
                    "with --live: end after so many seconds without an answer (60)")

//  For --help.
#define TL_SITE_MORE \
    "\nWhose model it is: with a topology alone the untrained one, or with --adapter one of the whole\n" \
    "model. --saved joins what the parts of a run saved, where all of it is on this disk. --live asks\n" \
    "the running worker (`trunkline up --stay` keeps it after the run) with the site's own key: text,\n" \
    "ids and logits stay here, and during training front and tail are those of the last save. At\n" \
    "wire.dtype fp32 --saved and --live give the same bits once the run is over."
// clang-format on

//  Refuses what doesn't go together. topology: one was named.
int tl_site_check (const tl_site_options_t *options, const char *verb, bool topology,
                   tl_error_t *err);
//  Index of the client that --site names, or of the only one; -1 and a sentence.
int tl_site_index (const tl_site_options_t *options, const tl_topology_t *topology,
                   const char *verb, tl_error_t *err);
//  Says in the log if the adapters that the client and the worker saved here are of different steps or runs.
void tl_site_warn_of_steps (const tl_topology_t *topology, size_t client);
//  chain is of tl_chain_split: puts the client's and the trunk's saved adapters into it.
int tl_site_load_saved (const tl_topology_t *topology, size_t client, tl_chain_t *chain,
                        tl_error_t *err);
void tl_site_reader (const tl_site_options_t *options, tl_reader_options_t *reader);

#endif
