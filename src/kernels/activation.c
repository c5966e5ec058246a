//  activation: tanh-GELU and SwiGLU, forward and backward.

#include "kernels/exp.h"
#include "kernels/loops.h"

//  gelu (x) = x / 2 * (1 + tanh (u)) = x * sigmoid (2 u), u = sqrt (2 / pi) * (x + 0.044715 x^3). The
//  second form has no cancellation. Beyond +-10 the sigmoid is 0 or 1; the bound keeps x^3 finite.
static inline real_t
s_gelu_bound (real_t x)
{
    x = x > 10 ? 10 : x;
    return x < -10 ? -10 : x;
}

static inline real_t
s_gelu_gate (real_t x)
{
    const real_t twice = (real_t)1.5957691216057308; //  2 * sqrt (2 / pi)
    return tl_sigmoid (twice * (x + (real_t)0.044715 * x * x * x));
}

void
TL_KERNEL (gelu_forward_rows) (real_t *y, const real_t *x, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        y[i] = x[i] * s_gelu_gate (s_gelu_bound (x[i]));
}

void
TL_KERNEL (gelu_backward_rows) (real_t *dx, const real_t *dy, const real_t *x, size_t count)
{
    const real_t twice = (real_t)1.5957691216057308;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        real_t z = s_gelu_bound (x[i]), gate = s_gelu_gate (z);
        real_t slope = twice * (1 + 3 * (real_t)0.044715 * z * z);
        dx[i] = dy[i] * (gate + z * gate * (1 - gate) * slope);
    }
}

void
TL_KERNEL (swiglu_forward_rows) (real_t *y, const real_t *gate, const real_t *up, size_t n,
                                 size_t f, size_t stride)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *g = gate + row * stride, *u = up + row * stride;
        real_t *out = y + row * f;
#pragma omp simd
        for (size_t i = 0; i < f; i++)
            out[i] = g[i] * tl_sigmoid (g[i]) * u[i];
    }
}

void
TL_KERNEL (swiglu_backward_rows) (real_t *dgate, real_t *dup, const real_t *dy, const real_t *gate,
                                  const real_t *up, size_t n, size_t f, size_t stride)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *g = gate + row * stride, *u = up + row * stride, *d = dy + row * f;
        real_t *to_gate = dgate + row * stride, *to_up = dup + row * stride;
#pragma omp simd
        for (size_t i = 0; i < f; i++) {
            real_t x = g[i], s = tl_sigmoid (x), linear = u[i], above = d[i];
            to_gate[i] = above * linear * s * (1 + x * (1 - s));
            to_up[i] = above * x * s;
        }
    }
}
