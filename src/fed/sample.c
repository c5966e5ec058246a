#include "fed/sample.h"

#include "memory.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>

typedef struct {
    int32_t id;
    float logit;
    double weight; //  exp of the logit's distance from the best, over the temperature
} s_candidate_t;

static int
s_by_logit (const void *left, const void *right)
{
    const s_candidate_t *a = left, *b = right;
    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static int32_t
s_best (const float *logits, size_t vocab)
{
    size_t best = 0;
    for (size_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}

int32_t
tl_sample (const float *logits, size_t vocab, const tl_sampling_t *settings, uint64_t position)
{
    if (settings->temperature <= 0)
        return s_best (logits, vocab);
    s_candidate_t *candidates = tl_alloc (vocab * sizeof *candidates);
    for (size_t i = 0; i < vocab; i++)
        candidates[i] = (s_candidate_t){(int32_t)i, logits[i], 0};
    qsort (candidates, vocab, sizeof *candidates, s_by_logit);

    size_t kept = settings->top_k && settings->top_k < vocab ? settings->top_k : vocab;
    double total = 0, mass = 0;
    for (size_t i = 0; i < kept; i++) {
        candidates[i].weight =
            exp ((double)(candidates[i].logit - candidates[0].logit) / settings->temperature);
        total += candidates[i].weight;
    }
    size_t nucleus = 0;
    while (nucleus < kept && (nucleus == 0 || mass < settings->top_p * total))
        mass += candidates[nucleus++].weight;

    tl_stream_t stream = {settings->seed, TL_DRAW_SAMPLE, 0, 0, 0};
    double draw = tl_random_uniform (&stream, position) * mass;
    size_t at = 0;
    while (at + 1 < nucleus && draw >= candidates[at].weight)
        draw -= candidates[at++].weight;
    int32_t chosen = candidates[at].id;
    free (candidates);
    return chosen;
}
