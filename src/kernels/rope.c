//  rope: turns pairs of values of each head by the angle of their row. In place.

#include "kernels/loops.h"

static inline void
s_turn_halves (real_t *x, const real_t *restrict cosine, const real_t *restrict sine, size_t pairs,
               real_t direction)
{
    real_t *restrict low = x, *restrict high = x + pairs;
#pragma omp simd
    for (size_t i = 0; i < pairs; i++) {
        real_t a = low[i], b = high[i], s = direction * sine[i];
        low[i] = a * cosine[i] - b * s;
        high[i] = b * cosine[i] + a * s;
    }
}

static inline void
s_turn_neighbours (real_t *restrict x, const real_t *restrict cosine, const real_t *restrict sine,
                   size_t pairs, real_t direction)
{
#pragma omp simd
    for (size_t i = 0; i < pairs; i++) {
        real_t a = x[2 * i], b = x[2 * i + 1], s = direction * sine[i];
        x[2 * i] = a * cosine[i] - b * s;
        x[2 * i + 1] = b * cosine[i] + a * s;
    }
}

void
TL_KERNEL (rope_rows) (real_t *x, const real_t *cosine, const real_t *sine, size_t n, size_t stride,
                       size_t heads, size_t head_stride, size_t offset, size_t d_rot,
                       tl_rope_t style, int direction)
{
    size_t pairs = d_rot / 2;
    for (size_t row = 0; row < n; row++)
        for (size_t head = 0; head < heads; head++) {
            real_t *at = x + row * stride + head * head_stride + offset;
            const real_t *c = cosine + row * pairs, *s = sine + row * pairs;
            if (style == TL_ROPE_HALF)
                s_turn_halves (at, c, s, pairs, (real_t)direction);
            else
                s_turn_neighbours (at, c, s, pairs, (real_t)direction);
        }
}
