/*  make: a model directory out of a config: random weights to pre-train or to measure with, or the
    outcome of a full tuning, rounded to a storage type.                                           */

#ifndef TL_MAKE_H
#define TL_MAKE_H

#include "error.h"
#include "kernels/kernels.h"

#include <stdint.h>

typedef struct {
    const char *trained; //  directory with the model.safetensors of a full tuning, or NULL: random
    uint64_t seed;       //  of random weights
    tl_dtype_t dtype;    //  stored as
} tl_make_t;

//  Reads config.json in the directory config, writes the directory out with a copy of it, of the
//  tokenizer's files and one model.safetensors. Random weights: norms 1, biases 0, matrices normal with
//  variance 1 / columns, the embedding and head with deviation 0.02; without ChatGLM's weighted residual
//  the two matrices that write to it are smaller by sqrt (2 * blocks). Every weight must be finite. Tensors are made and
//  written one at a time, in files of at most 4 GiB.
int tl_model_make (const char *config, const char *out, const tl_make_t *options, tl_error_t *err);

#endif
