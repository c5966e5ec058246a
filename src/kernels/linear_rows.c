/*  linear_rows: y = x W^T for the few rows of decoding. There every weight is used once or a few
    times, so reading it is the whole cost: it's read once, in its stored precision.                */

#include "kernels/loops.h"

enum { S_BLOCK = 1024 }; //  widened weights at a time, in the first-level cache

//  Partial sums of n rows of x against one block of weights, added to sums.
static inline void
s_dots (real_t *restrict sums, const real_t *restrict x, const real_t *restrict w, size_t n,
        size_t stride, size_t count)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *restrict from = x + row * stride;
        real_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < count; i++)
            sum += from[i] * w[i];
        sums[row] += sum;
    }
}

void
TL_KERNEL (linear_few_rows) (real_t *y, const real_t *x, const void *w, tl_dtype_t dtype, size_t n,
                             size_t in, size_t out, real_t alpha, real_t beta_y)
{
    bool plain = sizeof (real_t) == sizeof (double) || dtype == TL_F32;
    for (size_t column = 0; column < out; column++) {
        real_t sums[TL_FEW_ROWS] = {0}, widened[S_BLOCK];
        for (size_t first = 0; first < in; first += S_BLOCK) {
            size_t count = in - first < S_BLOCK ? in - first : S_BLOCK;
            const void *stored = tl_weight_at (w, dtype, column * in + first);
            if (!plain)
                TL_KERNEL (widen) (widened, stored, dtype, count);
            s_dots (sums, x + first, plain ? stored : widened, n, in, count);
        }
        for (size_t row = 0; row < n; row++) {
            real_t *to = &y[row * out + column];
            *to = alpha * sums[row] + (beta_y != 0 ? beta_y * *to : 0);
        }
    }
}
