//  update: see update.h. Pure functions.

#include "fed/update.h"

#include <math.h>
#include <stdlib.h>

double
tl_learning_rate (double lr, uint64_t step, uint64_t warmup, uint64_t steps, tl_decay_t schedule)
{
    if (step < warmup)
        return lr * ((double)step / (double)warmup);
    if (schedule == TL_DECAY_CONSTANT)
        return lr;
    if (step >= steps)
        return 0;
    return lr * ((double)(steps - step) / (double)(steps - warmup));
}

static int
s_by_order (const void *left, const void *right)
{
    const tl_norm_term_t *a = left, *b = right;
    if (a->order != b->order)
        return a->order < b->order ? -1 : 1;
    return a->square < b->square ? -1 : a->square > b->square; //  equal orders: still one order
}

double
tl_gradient_norm (tl_norm_term_t *squares, size_t count, uint64_t labels)
{
    if (count == 0 || labels == 0)
        return 0;
    qsort (squares, count, sizeof *squares, s_by_order);
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += squares[i].square;
    return sqrt (sum) / (double)labels;
}

double
tl_coefficient (double norm, double clip, uint64_t labels)
{
    if (labels == 0)
        return 0;
    double factor = clip > 0 ? clip / (norm + 1e-6) : 1;
    return (factor < 1 ? factor : 1) / (double)labels;
}
