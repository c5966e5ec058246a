/*  engine: whatever turns text into likelihoods and text for a verb: a model in this process, what a run saved, or a site
    through the running worker. The verb doesn't notice which.                                     */

#ifndef TL_CLI_ENGINE_H
#define TL_CLI_ENGINE_H

#include "cli/site.h"
#include "fed/evaluate.h"
#include "fed/writing.h"

typedef struct {
    const tl_site_options_t *of;
    const tl_topology_t *topology; //  NULL with a model alone
    tl_model_t *model;
    const tl_config_t *config; //  the model's
    tl_tokenizer_t *tokenizer;
    tl_chain_t *chain;     //  NULL with --live
    tl_reading_t *reading; //  of tl_engine_answer; NULL before the first
    size_t client;         //  index of the site it stands for
} tl_engine_t;

//  path: the model's, where there is no topology. threads 0: what the topology says, or 1. of and topology must outlive it.
int tl_engine_open (tl_engine_t *self, const tl_site_options_t *of, const tl_topology_t *topology,
                    const char *path, size_t threads, tl_error_t *err);
void tl_engine_close (tl_engine_t *self); //  also after a failure

//  Stands for this site from now on: its saved front and tail, its key.
int tl_engine_site (tl_engine_t *self, size_t client, tl_error_t *err);

//  Summed negative log likelihood of each example, nll [tl_dataset_count]. done may be NULL.
int tl_engine_score (tl_engine_t *self, const tl_dataset_t *data, double *nll, tl_done_fn *done,
                     void *arg, tl_error_t *err);
//  As tl_write; through the worker one after another.
int tl_engine_write (tl_engine_t *self, tl_writing_t *const *texts, size_t count, size_t at_once,
                     const volatile sig_atomic_t *stop, tl_over_fn *on_over, void *arg,
                     tl_error_t *err);
//  A turn of one conversation: what the turns before it have in common with it is not read again.
int tl_engine_answer (tl_engine_t *self, tl_writing_t *text, const volatile sig_atomic_t *stop,
                      tl_error_t *err);

#endif
