/*  bench_engine_run: what its two files share: one measurement of the engine in one process. */

#ifndef BENCH_ENGINE_RUN_H
#define BENCH_ENGINE_RUN_H

#include "model/model.h"

#include <jansson.h>

enum { MOST_REPEATS = 64 };

typedef struct {
    int threads;
    size_t repeats;
    char **words; //  after the case's name
    int word_count;
    size_t before;  //  bytes resident at the start
    json_t *result; //  the object to print
} run_t;

//  Rows of random text with a label on every row but each sequence's last.
typedef struct {
    tl_batch_t batch;
    uint32_t *length, *context, *mask;
    uint64_t *number;
    int32_t *ids, *labels;
} micro_t;

_Noreturn void run_fail (const char *text);
double run_now (void);                           //  seconds
size_t run_count (const run_t *self, int index); //  a word as a number, 0 without it
tl_model_t *run_model (const run_t *self);       //  the first word's
tl_tune_t run_lora (void);                       //  r = 8
void run_set (run_t *self, const char *key, double number);
//  Sets median, least, most and n of seconds [count], which are sorted. Returns the median.
double run_times (run_t *self, const char *key, double *seconds, size_t count);
float *run_floats (size_t count); //  of an ordinary size; the caller frees
void micro_make (micro_t *self, const tl_config_t *config, size_t sequences, size_t length);
void micro_clear (micro_t *self);

//  bench_engine_products.c
void run_block (run_t *self);
void run_linears (run_t *self);
void run_share (run_t *self);

#endif
