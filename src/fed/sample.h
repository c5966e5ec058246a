//  sample: from logits to the next token.

#ifndef TL_SAMPLE_H
#define TL_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    double temperature; //  0: the most likely token, the lowest id of equals
    double top_p;       //  keep the likeliest tokens that together have this probability; 1: all
    size_t top_k;       //  keep so many of the likeliest tokens; 0: all
    double
        penalty; //  of tokens that were there: positive logits are divided by it, others multiplied; 1 or 0: none
    uint64_t seed; //  of the draws
} tl_sampling_t;

//  The token for position of a text; the same logits, settings, past and position give the same token. As Hugging Face
//  does it: the penalty once on every token of past [count] (prompt and text so far), then temperature, top_k, top_p.
//  logits [vocab] are not changed. vocab >= 1. Tokens of equal logits rank by id.
int32_t tl_sample (const float *logits, size_t vocab, const tl_sampling_t *settings,
                   const int32_t *past, size_t count, uint64_t position);

#endif
