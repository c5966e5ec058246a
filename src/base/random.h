/*  random: addressed randomness. Every draw is a pure function of (seed, purpose, step, global
    sequence number, tensor name, element), so it agrees however the model is cut, however often a
    step is repeated and on whichever machine. Philox4x32-10 (Salmon et al., SC'11).               */

#ifndef TL_RANDOM_H
#define TL_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    TL_DRAW_INIT = 1,
    TL_DRAW_DROPOUT = 2,
    TL_DRAW_SHUFFLE = 3,
    TL_DRAW_NOISE = 4,
    TL_DRAW_SAMPLE = 5
} tl_draw_t;

//  What a run of elements is drawn for; two streams with any difference are independent.
typedef struct {
    uint64_t seed; //  train.seed
    tl_draw_t purpose;
    uint64_t step;     //  optimizer step, 0 where it has no meaning
    uint64_t sequence; //  global sequence number, 0 where it has no meaning
    uint64_t name;     //  tl_random_name of the tensor's name, 0 where it has no meaning
} tl_stream_t;

//  The generator itself: 4 words from a 128-bit counter and a 64-bit key.
void tl_philox (const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

//  64-bit name for tl_stream_t, the same on every machine.
uint64_t tl_random_name (const char *name);
uint32_t tl_random_u32 (const tl_stream_t *stream, uint64_t element);
uint64_t tl_random_below (const tl_stream_t *stream, uint64_t element,
                          uint64_t limit);                              //  0 if limit is 0
double tl_random_uniform (const tl_stream_t *stream, uint64_t element); //  [0, 1), 53 bits
double tl_random_normal (const tl_stream_t *stream, uint64_t element);  //  mean 0, variance 1

//  keep [i] = scale or 0 for elements first .. first + count - 1: dropout masks, 4 draws a block.
void tl_random_keep (const tl_stream_t *stream, uint64_t first, size_t count,
                     float probability_drop, float *keep);

#endif
