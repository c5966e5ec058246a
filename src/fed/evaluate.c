#include "fed/evaluate.h"

#include "memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { S_MOST_TWINS = 64 }; //  kinds at a time: each has logits of its own

//  Examples that differ in one last label only, like the one-token choices of a question, are read once.
typedef struct {
    tl_micro_t *micros[S_MOST_TWINS]; //  [count] the first of each kind
    size_t examples[S_MOST_TWINS];    //  [count] of each kind, one after another in the dataset
    size_t count;
    size_t rows; //  of all micros
} s_twins_t;

//  The example if its only label is on its last row, else NULL.
static tl_micro_t *
s_candidate (const tl_dataset_t *data, size_t example)
{
    if (example >= tl_dataset_count (data) || tl_dataset_labels_of (data, example) != 1)
        return NULL;
    return tl_dataset_slice (data, example, 1);
}

static bool
s_are_twins (const tl_micro_t *one, const tl_micro_t *two)
{
    const tl_batch_t *a = &one->batch, *b = &two->batch;
    return a->rows == b->rows && a->context[0] == b->context[0] && a->mask[0] == b->mask[0] &&
           memcmp (a->ids, b->ids, a->rows * sizeof *a->ids) == 0;
}

//  How many examples from this one on are twins; with one alone 1, and 0 when it has other labels.
static size_t
s_kind (const tl_dataset_t *data, size_t first, tl_micro_t **micro)
{
    size_t count = 0;
    *micro = s_candidate (data, first);
    for (bool same = *micro != NULL; same;) {
        tl_micro_t *next = s_candidate (data, first + ++count);
        same = next && s_are_twins (*micro, next);
        tl_micro_destroy (&next);
    }
    return count;
}

//  Collects kinds of two or more from this example on, as far as their rows fit. Returns how many examples.
static size_t
s_collect (s_twins_t *self, const tl_dataset_t *data, size_t first)
{
    size_t taken = 0;
    self->count = self->rows = 0;
    while (self->count < S_MOST_TWINS) {
        tl_micro_t *micro;
        size_t examples = s_kind (data, first + taken, &micro);
        if (examples < 2 || (self->count && self->rows + micro->batch.rows > TL_EVALUATE_ROWS)) {
            tl_micro_destroy (&micro);
            break;
        }
        self->rows += micro->batch.rows;
        self->examples[self->count] = examples;
        self->micros[self->count++] = micro;
        taken += examples;
    }
    return taken;
}

//  log of the sum of exp.
static double
s_log_sum (const float *logits, size_t vocab)
{
    double most = logits[0], sum = 0;
    for (size_t i = 1; i < vocab; i++)
        most = logits[i] > most ? logits[i] : most;
    for (size_t i = 0; i < vocab; i++)
        sum += exp ((double)logits[i] - most);
    return most + log (sum);
}

static void
s_score_twins (s_twins_t *self, tl_chain_t *chain, const tl_dataset_t *data, size_t first,
               double *nll)
{
    tl_micro_t *joined = tl_micro_join (self->micros, self->count);
    float *logits = tl_alloc_aligned (self->count * chain->vocab * sizeof *logits);
    tl_chain_logits (chain, &joined->batch, logits);
    for (size_t i = 0; i < self->count; i++) {
        const float *row = logits + i * chain->vocab;
        double sum = s_log_sum (row, chain->vocab);
        for (size_t k = 0; k < self->examples[i]; k++, first++) {
            tl_micro_t *micro = tl_dataset_slice (data, first, 1);
            nll[first] = sum - row[micro->batch.labels[micro->batch.rows - 1]];
            tl_micro_destroy (&micro);
        }
        tl_micro_destroy (&self->micros[i]);
    }
    tl_micro_destroy (&joined);
    free (logits);
}

//  How many examples of at most count from this one on have no twin.
static size_t
s_singles (const tl_dataset_t *data, size_t first, size_t count)
{
    size_t singles = 0;
    for (size_t kind = 1; singles < count && kind < 2; singles += kind < 2) {
        tl_micro_t *micro;
        kind = s_kind (data, first + singles, &micro);
        tl_micro_destroy (&micro);
    }
    return singles;
}

void
tl_chain_evaluate (tl_chain_t *chain, const tl_dataset_t *data, double *nll, tl_done_fn *done,
                   void *arg)
{
    size_t first = 0, count;
    while ((count = tl_dataset_fit (data, first, TL_EVALUATE_ROWS)) > 0) {
        s_twins_t twins;
        size_t taken = s_collect (&twins, data, first);
        if (taken) {
            s_score_twins (&twins, chain, data, first, nll);
            first += taken;
        } else {
            count = s_singles (data, first, count);
            tl_micro_t *micro = tl_dataset_slice (data, first, count);
            tl_chain_score (chain, &micro->batch, nll + first);
            tl_micro_destroy (&micro);
            first += count;
        }
        if (done)
            done (arg, first, tl_dataset_count (data));
    }
}
