//  loss: softmax cross-entropy of rows of logits, and its gradient in their place.

#include "kernels/exp.h"
#include "kernels/loops.h"

//  Sum of exp (x - most) without touching x.
static double
s_sum_of_exp (const real_t *x, size_t count, real_t most)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++)
        sum += tl_exp (x[i] - most);
    return sum;
}

void
TL_KERNEL (cross_entropy_rows) (real_t *logits, real_t *nll, const int32_t *targets, size_t n,
                                size_t vocab, bool gradient)
{
    for (size_t row = 0; row < n; row++) {
        real_t *line = logits + row * vocab, most;
        size_t target = (size_t)targets[row];
        tl_assert (target < vocab);
        real_t right = line[target];
        double sum;
        if (gradient)
            sum = TL_KERNEL (softmax_row) (line, vocab, &most);
        else {
            most = tl_maximum (line, vocab);
            sum = s_sum_of_exp (line, vocab, most);
        }
        nll[row] = (real_t)(log (sum) - ((double)right - (double)most));
        if (!gradient)
            continue;
        real_t inverse = (real_t)(1 / sum);
#pragma omp simd
        for (size_t i = 0; i < vocab; i++)
            line[i] *= inverse;
        line[target] -= 1;
    }
}
