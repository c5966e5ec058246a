/*  local: a topology's training in one process: the whole model, the text of all sites or of one.

    It computes what the split run computes: batch_size sequences of every site in topology order, micro i
    of all sites together, the sum of the loss divided once by the step's label tokens. It opens files and
    saves; it prints nothing and knows no signals: who drives it step by step does.                */

#ifndef TL_LOCAL_H
#define TL_LOCAL_H

#include "data/data.h"
#include "error.h"
#include "fed/parts.h"
#include "topology/topology.h"

typedef struct tl_local tl_local_t;

//  What a step came to.
typedef struct {
    uint64_t step;   //  0-based
    uint64_t labels; //  label tokens of the step
    uint64_t rows;   //  rows computed
    double loss;     //  mean over the label tokens
    double norm;     //  of the mean-loss gradient, before clipping
    double lr;       //  learning rate used
} tl_local_step_t;

//  Opens model, tokenizer and the data of all sites, or of site (a client's name). The topology must
//  outlive it. label_tokens > 0: train.steps gives way to as many steps as spend exactly so many label
//  tokens, the last one shortened. NULL on failure. tl_kernels_use comes before.
tl_local_t *tl_local_new (const tl_topology_t *topology, const char *site, uint64_t label_tokens,
                          tl_error_t *err);
void tl_local_destroy (tl_local_t **self_p);

uint64_t tl_local_steps (const tl_local_t *self);  //  of the whole run
uint64_t tl_local_next (const tl_local_t *self);   //  0-based; equals tl_local_steps at the end
uint64_t tl_local_labels (const tl_local_t *self); //  label tokens spent so far
//  Memory for the largest micros. Before the first step. -1 when train.memory_mb is too little.
int tl_local_plan (tl_local_t *self, tl_plan_t *plan, tl_error_t *err);

//  One optimizer step. -1 and a sentence naming the step when the loss or a gradient is not finite; the
//  trained tensors are then as after the step before.
int tl_local_step (tl_local_t *self, tl_local_step_t *result, tl_error_t *err);

//  The trained tensors as an adapter directory (PEFT, or safetensors in full tuning).
int tl_local_save_adapter (const tl_local_t *self, const char *directory, tl_error_t *err);
//  Everything to go on bit for bit, as OUT/step-000123; the oldest beyond checkpoint.keep go.
int tl_local_save (const tl_local_t *self, const char *out, tl_error_t *err);
//  Removes the saves under OUT: a run that begins anew must not be continued from another's.
void tl_local_forget (const char *out);
//  The step of the newest save under OUT; false when there is none.
bool tl_local_newest (const char *out, uint64_t *step);
//  Goes on from the newest save under OUT. Returns 1, or 0 when there is none, or -1.
int tl_local_resume (tl_local_t *self, const char *out, tl_error_t *err);

#endif
