//  sample: from logits to the next token.

#ifndef TL_SAMPLE_H
#define TL_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    double temperature; //  0: the most likely token, the lowest id of equals
    double top_p;       //  keep the likeliest tokens that together have this probability; 1: all
    size_t top_k;       //  keep so many of the likeliest tokens; 0: all
    uint64_t seed;      //  of the draws
} tl_sampling_t;

//  The token for position of a text; the same logits, settings and position give the same token.
//  logits [vocab] are not changed. vocab >= 1. Tokens of equal logits rank by id.
int32_t tl_sample (const float *logits, size_t vocab, const tl_sampling_t *settings,
                   uint64_t position);

#endif
