#include "fed/sample.h"

#include "memory.h"
#include "random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int32_t id;
    float logit;
    double weight; //  exp of the logit's distance from the best, over the temperature
} s_candidate_t;

static bool
s_is_before (const s_candidate_t *a, const s_candidate_t *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static int
s_by_logit (const void *left, const void *right)
{
    return s_is_before (left, right) ? -1 : s_is_before (right, left) ? 1 : 0;
}

static size_t
s_best (const float *logits, size_t vocab)
{
    size_t best = 0;
    for (size_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

//  A copy of the logits in which what was there is less likely.
static float *
s_penalised (const float *logits, size_t vocab, double penalty, const int32_t *past, size_t count)
{
    float *changed = tl_alloc (vocab * sizeof *changed);
    memcpy (changed, logits, vocab * sizeof *changed);
    for (size_t i = 0; i < count; i++) {
        size_t id = (size_t)past[i];
        if (id < vocab)
            changed[id] =
                (float)(logits[id] < 0 ? logits[id] * penalty : (double)logits[id] / penalty);
    }
    return changed;
}

//  Lets the last of the kept, at the root, sink to its place.
static void
s_sink (s_candidate_t *heap, size_t count)
{
    for (size_t at = 0;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < count && s_is_before (&heap[child], &heap[child + 1]))
            child++;
        if (child >= count || s_is_before (&heap[child], &heap[at]))
            return;
        s_candidate_t moved = heap[at];
        heap[at] = heap[child];
        heap[child] = moved;
        at = child;
    }
}

//  Keeps the first keep of count candidates in order, sorted.
static void
s_keep_first (s_candidate_t *candidates, size_t count, size_t keep)
{
    //  A heap with the last of the kept on top: most of a vocabulary is one comparison each.
    qsort (candidates, keep, sizeof *candidates, s_by_logit);
    for (size_t i = 0; i < keep / 2; i++) {
        s_candidate_t moved = candidates[i];
        candidates[i] = candidates[keep - 1 - i];
        candidates[keep - 1 - i] = moved;
    }
    for (size_t i = keep; i < count; i++)
        if (s_is_before (&candidates[i], &candidates[0])) {
            candidates[0] = candidates[i];
            s_sink (candidates, keep);
        }
    qsort (candidates, keep, sizeof *candidates, s_by_logit);
}

//  The likeliest that together have the share top_p of total; returns how many, and their weight.
static size_t
s_nucleus (s_candidate_t *candidates, size_t count, double top_p, double total, double *mass)
{
    //  What is lighter than this could not reach 1 - top_p if it were the whole vocabulary.
    double least = total * (1 - top_p) / (double)count;
    size_t kept = 0, nucleus = 0;
    for (size_t i = 0; i < count; i++)
        if (candidates[i].weight >= least)
            candidates[kept++] = candidates[i];
    qsort (candidates, kept, sizeof *candidates, s_by_logit);
    *mass = 0;
    while (nucleus < kept && (nucleus == 0 || *mass < top_p * total))
        *mass += candidates[nucleus++].weight;
    return nucleus;
}

static int32_t
s_draw (const float *logits, size_t vocab, const tl_sampling_t *settings, uint64_t position)
{
    s_candidate_t *candidates = tl_alloc (vocab * sizeof *candidates);
    float best = logits[s_best (logits, vocab)];
    size_t count = vocab;
    for (size_t i = 0; i < vocab; i++)
        candidates[i] = (s_candidate_t){(int32_t)i, logits[i], 0};
    if (settings->top_k && settings->top_k < vocab)
        s_keep_first (candidates, vocab, count = settings->top_k);
    double total = 0;
    for (size_t i = 0; i < count; i++) {
        candidates[i].weight = exp ((double)(candidates[i].logit - best) / settings->temperature);
        total += candidates[i].weight;
    }
    if (settings->top_p < 1)
        count = s_nucleus (candidates, count, settings->top_p, total, &total);
    tl_stream_t stream = {settings->seed, TL_DRAW_SAMPLE, 0, 0, 0};
    double draw = tl_random_uniform (&stream, position) * total;
    size_t at = 0;
    while (at + 1 < count && draw >= candidates[at].weight)
        draw -= candidates[at++].weight;
    int32_t chosen = candidates[at].id;
    free (candidates);
    return chosen;
}

int32_t
tl_sample (const float *logits, size_t vocab, const tl_sampling_t *settings, const int32_t *past,
           size_t count, uint64_t position)
{
    float *changed = settings->penalty > 0 && settings->penalty != 1
                         ? s_penalised (logits, vocab, settings->penalty, past, count)
                         : NULL;
    const float *from = changed ? changed : logits;
    int32_t chosen = settings->temperature <= 0 ? (int32_t)s_best (from, vocab)
                                                : s_draw (from, vocab, settings, position);
    free (changed);
    return chosen;
}
