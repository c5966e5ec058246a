//  update: see update.h. Pure functions.

#include "fed/update.h"

#include <math.h>
#include <stdlib.h>

double
tl_learning_rate (const tl_schedule_t *schedule, uint64_t step)
{
    const tl_schedule_t *s = schedule;
    static const double pi = 3.14159265358979323846;
    if (step < s->warmup)
        return s->most * ((double)step / (double)s->warmup);
    if (s->decay == TL_DECAY_CONSTANT)
        return s->most;
    if (step >= s->steps)
        return s->least;
    double span = (double)(s->steps - s->warmup);
    double share = s->decay == TL_DECAY_LINEAR
                       ? (double)(s->steps - step) / span
                       : 0.5 * (1 + cos (pi * ((double)(step - s->warmup) / span)));
    return s->least + (s->most - s->least) * share;
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
