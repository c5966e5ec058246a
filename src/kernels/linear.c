/*  linear: y = x W^T and its gradients, over gemm. Half-precision weights are widened a panel of output
    rows at a time, so a widened copy of the whole matrix never exists.                             */

#include "kernels/loops.h"
#include "kernels/sizes.h"

//  Weights that gemm can read as they are.
static bool
s_is_plain (tl_dtype_t dtype)
{
    return sizeof (real_t) == sizeof (double) || dtype == TL_F32;
}

static void
s_add_bias (real_t *y, const real_t *restrict bias, size_t n, size_t out)
{
    for (size_t row = 0; row < n; row++) {
        real_t *restrict to = y + row * out;
#pragma omp simd
        for (size_t i = 0; i < out; i++)
            to[i] += bias[i];
    }
}

void
TL_KERNEL (linear_forward) (real_t *y, const real_t *x, const void *w, tl_dtype_t dtype,
                            const real_t *bias, size_t n, size_t in, size_t out, double alpha,
                            double beta_y, real_t *scratch)
{
    if (n == 0 || out == 0)
        return;
    tl_assert (in > 0);
    if (n <= TL_FEW_ROWS)
        TL_KERNEL (linear_few_rows)
    (y, x, w, dtype, n, in, out, (real_t)alpha, (real_t)beta_y);
    else if (s_is_plain (dtype))
        tl_gemm (false, true, n, out, in, alpha, x, in, w, in, beta_y, y, out);
    else
    {
        size_t panel = tl_panel_rows (in, out);
        tl_assert (scratch);
        for (size_t first = 0; first < out; first += panel) {
            size_t rows = out - first < panel ? out - first : panel;
            TL_KERNEL (widen) (scratch, tl_weight_at (w, dtype, first * in), dtype, rows * in);
            tl_gemm (false, true, n, rows, in, alpha, x, in, scratch, in, beta_y, y + first, out);
        }
    }
    if (bias)
        s_add_bias (y, bias, n, out);
}

void
TL_KERNEL (linear_backward_input) (real_t *dx, const real_t *dy, const void *w, tl_dtype_t dtype,
                                   size_t n, size_t in, size_t out, double alpha, double beta_x,
                                   real_t *scratch)
{
    if (n == 0 || in == 0)
        return;
    tl_assert (out > 0);
    if (s_is_plain (dtype)) {
        tl_gemm (false, false, n, in, out, alpha, dy, out, w, in, beta_x, dx, in);
        return;
    }
    size_t panel = tl_panel_rows (in, out);
    tl_assert (scratch);
    for (size_t first = 0; first < out; first += panel) {
        size_t rows = out - first < panel ? out - first : panel;
        TL_KERNEL (widen) (scratch, tl_weight_at (w, dtype, first * in), dtype, rows * in);
        tl_gemm (false, false, n, in, rows, alpha, dy + first, out, scratch, in, first ? 1 : beta_x,
                 dx, in);
    }
}

void
TL_KERNEL (linear_backward_weight) (real_t *dw, real_t *db, const real_t *dy, const real_t *x,
                                    size_t n, size_t in, size_t out, double alpha)
{
    if (n == 0 || out == 0)
        return;
    if (dw)
        tl_gemm (true, false, out, in, n, alpha, dy, out, x, in, 1, dw, in);
    for (size_t row = 0; db && row < n; row++)
        TL_KERNEL (add) (db, dy + row * out, 1, out);
}
