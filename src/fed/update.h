/*  update: the arithmetic of one optimizer step that every path shares, so that split and unsplit agree
    bit for bit: learning rate, clipping by global norm, division by the number of label tokens.

    Pure functions; no state, no I/O.                                                              */

#ifndef TL_UPDATE_H
#define TL_UPDATE_H

#include <stddef.h>
#include <stdint.h>

typedef enum { TL_DECAY_LINEAR, TL_DECAY_CONSTANT, TL_DECAY_COSINE } tl_decay_t;

typedef struct {
    double most, least; //  learning rate after the warm-up, and at the last step's end
    uint64_t warmup;    //  steps until most
    uint64_t steps;     //  of the run
    tl_decay_t decay;   //  from most to least; constant stays at most
} tl_schedule_t;

//  Learning rate of step (0-based): step t < warmup uses most * t / warmup; then least + (most - least) * f with
//  p = (t - warmup) / (steps - warmup) and f = 1 - p (linear), (1 + cos (pi p)) / 2 (cosine), 1 (constant), as
//  transformers' get_linear_, get_cosine_ and get_constant_schedule_with_warmup.
double tl_learning_rate (const tl_schedule_t *schedule, uint64_t step);

//  One trained tensor's squared norm of the summed-loss gradient, and its place in the model's order.
typedef struct {
    uint64_t order; //  tl_tensor_t.order
    double square;  //  sum of squares
} tl_norm_term_t;

//  Norm of the mean-loss gradient: squares are added in ascending order (sorted here, in place), then
//  sqrt (sum) / labels.
double tl_gradient_norm (tl_norm_term_t *squares, size_t count, uint64_t labels);

//  What a summed-loss gradient is multiplied by: (1 / labels) * min (1, clip / (norm + 1e-6));
//  clip 0 means no clipping. labels 0 gives 0.
double tl_coefficient (double norm, double clip, uint64_t labels);

#endif
