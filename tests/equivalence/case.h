/*  case: for tests, a tiny model, its sites' text and a topology in a directory of their own, and the
    program run on them: `up` with real processes and sockets, `train` in one process. Gives back what
    every step came to and where the adapters lie.

    Whatever goes wrong ends the test: with a sentence, the program's last words, and the directory left
    for a look at it. TRUNKLINE names the program.                                                 */

#ifndef CASE_H
#define CASE_H

#include "tiny_model.h"
#include "topology/topology.h"

enum { CASE_SITES = 3 };

typedef struct {
    tiny_model_t model;         //  vocab is set to the tiny tokenizer's
    size_t sites;               //  1 .. CASE_SITES, named site-0 ...
    size_t workers;             //  named trunk, trunk-2, ...; 0: 1
    size_t examples;            //  in each site's text
    int threads;                //  of every process, and of train; 0: 1
    size_t letters[CASE_SITES]; //  of an answer, at most; the prompt is a few letters more
    bool even;                  //  every answer has exactly so many letters
    uint64_t steps, save_every; //  save_every: checkpoint.every
    const char *settings;       //  lines of YAML: split, tune, train, schedule, wire
} case_spec_t;

//  What one client, or training in one place, said about one step.
typedef struct {
    double loss, norm, lr;
    uint64_t labels, rows, bytes; //  rows: of train only; bytes: of a client only
    bool seen;
} case_step_t;

typedef struct {
    char *directory, *yaml; //  all files are in directory; yaml is its topology
    const case_spec_t *spec;
    tl_topology_t *topology;
} case_t;

//  Ends the test with status 1 and a sentence.
void case_fail (const case_t *self, const char *format, ...)
    __attribute__ ((noreturn, format (printf, 2, 3)));

case_t *case_new (const case_spec_t *spec);
void case_destroy (case_t **self_p); //  and its files

//  --set override, or NULL, for this run. Steps of site i go to steps + i * spec->steps; all are there when it returns.
void case_up (const case_t *self, const char *override, case_step_t *steps);
//  steps [spec->steps]
void case_train (const case_t *self, const char *override, case_step_t *steps);

//  Adapter directories of the last case_up and case_train; the caller frees.
char *case_adapter (const case_t *self, const char *part);
char *case_train_adapter (const case_t *self);

//  How tensors differ from a file's of the same names.
typedef struct {
    size_t tensors;    //  compared
    size_t different;  //  with any other bit
    double worst_max;  //  max|d| / max|tensor|
    double worst_norm; //  |d| / |tensor|, Frobenius
} case_difference_t;

//  Loads what `up` saved for part ("site-0", "trunk", ...) into a part made from the topology, as the program
//  itself would, and adds how it differs from the tensors of train's adapter.
void case_compare (const case_t *self, const char *part, case_difference_t *difference);
//  Tensors in train's adapter.
size_t case_train_tensors (const case_t *self);

#endif
