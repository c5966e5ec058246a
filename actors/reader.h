/*  reader: scores a site's text, or goes on with some, by the site's own front and tail here and the trunk of the
    running worker. Comes with the site's client key, beside the training client of that name or without it,
    trains nothing and leaves no trace in the run.

    Text, ids and logits stay in this process. Runs a loop of its own until the answer is there: blocks.
    During training the trunk is as it stands at each request, the front and tail as last saved.     */

#ifndef TL_READER_H
#define TL_READER_H

#include "error.h"
#include "fed/writing.h"
#include "topology/topology.h"

typedef struct {
    const char
        *adapter; //  directory of front and tail; NULL: what the site saved in this run, or the
                  //  untrained ones if the run has committed no step yet
    bool base;    //  the untrained front and tail, adapter NULL
    int64_t timeout_ms; //  so long without an answer ends it
    void (*on_progress) (void *arg, size_t done, size_t count); //  examples or texts; may be NULL
    void *arg;
} tl_reader_options_t;

//  client: index in the topology. 0, or the exit code with a sentence: 2 refused or the run ended, 3 nobody
//  answered in time, 4 what can't be read. Text and tokenizer are the caller's, made with the topology's model.
//  Summed negative log likelihood of each example: nll [tl_dataset_count].
int tl_reader_score (const tl_topology_t *topology, size_t client,
                     const tl_reader_options_t *options, const tl_dataset_t *data, double *nll,
                     tl_error_t *err);
//  One text after another.
int tl_reader_write (const tl_topology_t *topology, size_t client,
                     const tl_reader_options_t *options, tl_writing_t *const *texts, size_t count,
                     tl_error_t *err);

#endif
