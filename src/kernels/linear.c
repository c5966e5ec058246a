/*  linear: y = x W^T and its gradients, over product, which widens stored weights as it packs them.       */

#include "kernels/product.h"

#ifdef TL_MAY_HAVE_AMX
#include "kernels/bf16.h"
#endif

//  A product of a linear with so many columns and rows of weights, which alone say how it is computed.
static void
s_product (size_t in, size_t out, size_t m, size_t n, size_t k, double alpha, const tl_side_t *left,
           const tl_side_t *right, double beta, real_t *c, size_t ldc, const real_t *bias)
{
#ifdef TL_MAY_HAVE_AMX
    enum { S_SMALL = 32 };
    if (in >= S_SMALL && out >= S_SMALL && tl_bf16_uses_amx ()) {
        TL_KERNEL (product_amx) (m, n, k, alpha, left, right, beta, c, ldc, bias);
        return;
    }
#else
    (void)in;
    (void)out;
#endif
    TL_KERNEL (product) (m, n, k, alpha, left, right, beta, c, ldc, bias);
}

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
    s_product (in, out, n, out, in, alpha, &left, &right, beta_y, y, out, bias);
}

void
TL_KERNEL (linear_backward_input) (real_t *dx, const real_t *dy, const void *w, tl_dtype_t dtype,
                                   size_t n, size_t in, size_t out, double alpha, double beta_x)
{
    if (n == 0 || in == 0)
        return;
    tl_assert (out > 0);
    tl_side_t left = s_rows (dy, out), right = {w, dtype, in, false};
    s_product (in, out, n, in, out, alpha, &left, &right, beta_x, dx, in, NULL);
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
        s_product (in, out, out, in, n, alpha, &left, &right, 1, dw, in, NULL);
    for (size_t row = 0; db && row < n; row++)
        TL_KERNEL (add) (db, dy + row * out, 1, out);
}
