/*  rig: for tests, a model whole or cut into {front, tail} and {trunk}, trained
   in one process by plain calls in the order the actors make them. */

#ifndef RIG_H
#define RIG_H

#include "model/model.h"
#include "model/safetensors.h"

typedef struct {
    const tl_config_t *config;
    tl_part_t *parts[2]; //  whole: one; cut: the client's, the worker's
    size_t part_count;
    tl_segment_t *chain[3]; //  in the order rows pass through them
    size_t chain_length;
} rig_t;

//  front 0 and tail 0 make it whole. Aborts on failure.
rig_t *rig_new (tl_model_t *model, size_t front, size_t tail, const tl_tune_t *tune);
void rig_destroy (rig_t **self_p);

//  A micro: forward through the chain; the tapes are kept in tapes
//  [chain_length].
void rig_forward (rig_t *self, const tl_batch_t *batch, uint64_t step, bool train,
                  tl_tape_t *tapes[3]);
//  Its summed loss and, when trained, the way back; frees the tapes. d_input
//  [rows, hidden] or NULL.
double rig_finish (rig_t *self, const tl_batch_t *batch, bool train, tl_tape_t *tapes[3],
                   float *d_input, uint64_t *labels);

//  A whole step over some micros, all forwards first if overlapped; returns the
//  token mean before the update.
double rig_step (rig_t *self, tl_batch_t *const *micros, size_t count, uint64_t step, double lr,
                 double clip, bool overlapped);
//  Summed loss without training.
double rig_loss (rig_t *self, const tl_batch_t *batch);
//  A trained tensor wherever it is; NULL if nobody trains it.
const tl_tensor_t *rig_tensor (const rig_t *self, const char *name);
//  Both train the same tensors with the same bits; otherwise prints the first
//  that differs.
bool rig_same (const rig_t *left, const rig_t *right);

//  A trained tensor's values as an adapter's file of the whole model has them: under its name, or as its
//  block's columns of the prefix. The caller frees; NULL if they aren't there in that size.
float *rig_saved (const tl_tensor_t *tensor, const tl_safetensors_t *file);
//  How many trained tensors that file has; width: columns of a block's prefix.
size_t rig_saved_count (const tl_safetensors_t *file, size_t width);

#endif
