/*  linear: y = x W^T and its gradients, over gemm, which widens stored weights as it packs them.       */

#include "kernels/product.h"

static tl_side_t
s_rows (const real_t *x, size_t stride)
{
    return (tl_side_t){.data = x, .dtype = TL_F32, .stride = stride};
}

void
TL_KERNEL (linear_forward) (real_t *y, const real_t *x, const void *w, tl_dtype_t dtype,
                            const real_t *bias, size_t n, size_t in, size_t out, double alpha,
                            double beta_y)
{
    if (n == 0 || out == 0)
        return;
    tl_assert (in > 0);
    if (n <= TL_FEW_ROWS) {
        TL_KERNEL (linear_few_rows)
        (y, x, w, dtype, bias, n, in, out, (real_t)alpha, (real_t)beta_y);
        return;
    }
    tl_side_t left = s_rows (x, in), right = {w, dtype, in, true};
    TL_KERNEL (product) (n, out, in, alpha, &left, &right, beta_y, y, out, bias);
}

void
TL_KERNEL (linear_backward_input) (real_t *dx, const real_t *dy, const void *w, tl_dtype_t dtype,
                                   size_t n, size_t in, size_t out, double alpha, double beta_x)
{
    if (n == 0 || in == 0)
        return;
    tl_assert (out > 0);
    tl_side_t left = s_rows (dy, out), right = {w, dtype, in, false};
    TL_KERNEL (product) (n, in, out, alpha, &left, &right, beta_x, dx, in, NULL);
}

void
TL_KERNEL (linear_backward_weight) (real_t *dw, real_t *db, const real_t *dy, const real_t *x,
                                    size_t n, size_t in, size_t out, double alpha)
{
    if (n == 0 || out == 0)
        return;
    tl_side_t left = s_rows (dy, out), right = s_rows (x, in);
    left.transposed = true;
    if (dw)
        TL_KERNEL (product) (out, in, n, alpha, &left, &right, 1, dw, in, NULL);
    for (size_t row = 0; db && row < n; row++)
        TL_KERNEL (add) (db, dy + row * out, 1, out);
}
