/*  norm: layer norm and RMS norm of rows. Statistics are summed in double: a row may hold one value
    of 22,000 among others of 1.                                                                    */

#include "kernels/loops.h"

void
TL_KERNEL (layernorm_forward_rows) (real_t *y, real_t *mean, real_t *rstd, const real_t *x,
                                    const real_t *w, const real_t *b, size_t n, size_t h,
                                    double eps)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *restrict in = x + row * h;
        real_t *restrict out = y + row * h;
        double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < h; i++)
            sum += in[i];
        real_t centre = (real_t)(sum / (double)h);
#pragma omp simd reduction(+ : squares)
        for (size_t i = 0; i < h; i++) {
            double d = in[i] - centre;
            squares += d * d;
        }
        real_t scale = (real_t)(1 / sqrt (squares / (double)h + eps));
#pragma omp simd
        for (size_t i = 0; i < h; i++)
            out[i] = (in[i] - centre) * scale * w[i] + b[i];
        mean[row] = centre;
        rstd[row] = scale;
    }
}

//  dw += dy * (x - centre) * scale and db += dy; either may be NULL.
static void
s_parameters (real_t *restrict dw, real_t *restrict db, const real_t *restrict dy,
              const real_t *restrict x, real_t centre, real_t scale, size_t h)
{
    if (dw) {
#pragma omp simd
        for (size_t i = 0; i < h; i++)
            dw[i] += dy[i] * ((x[i] - centre) * scale);
    }
    if (db) {
#pragma omp simd
        for (size_t i = 0; i < h; i++)
            db[i] += dy[i];
    }
}

void
TL_KERNEL (layernorm_backward_rows) (real_t *dx, real_t *dw, real_t *db, const real_t *dy,
                                     const real_t *x, const real_t *w, const real_t *mean,
                                     const real_t *rstd, size_t n, size_t h)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *in = x + row * h, *up = dy + row * h;
        real_t *out = dx + row * h;
        real_t centre = mean[row], scale = rstd[row];
        //  With g = dy * w and z = (x - mean) * rstd: dx = rstd * (g - mean (g) - z * mean (g z)).
        double sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
        for (size_t i = 0; i < h; i++) {
            real_t g = up[i] * w[i];
            sum += g;
            along += g * ((in[i] - centre) * scale);
        }
        s_parameters (dw, db, up, in, centre, scale, h);
        real_t shift = (real_t)(sum / (double)h), slope = (real_t)(along / (double)h);
#pragma omp simd
        for (size_t i = 0; i < h; i++)
            out[i] = scale * (up[i] * w[i] - shift - (in[i] - centre) * scale * slope);
    }
}

void
TL_KERNEL (rmsnorm_forward_rows) (real_t *y, real_t *rstd, const real_t *x, const real_t *w,
                                  size_t n, size_t h, double eps)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *in = x + row * h;
        real_t *out = y + row * h;
        double squares = 0;
#pragma omp simd reduction(+ : squares)
        for (size_t i = 0; i < h; i++)
            squares += (double)in[i] * in[i];
        real_t scale = (real_t)(1 / sqrt (squares / (double)h + eps));
#pragma omp simd
        for (size_t i = 0; i < h; i++)
            out[i] = in[i] * scale * w[i];
        rstd[row] = scale;
    }
}

void
TL_KERNEL (rmsnorm_backward_rows) (real_t *dx, real_t *dw, const real_t *dy, const real_t *x,
                                   const real_t *w, const real_t *rstd, size_t n, size_t h)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *in = x + row * h, *up = dy + row * h;
        real_t *out = dx + row * h;
        real_t scale = rstd[row];
        double along = 0;
#pragma omp simd reduction(+ : along)
        for (size_t i = 0; i < h; i++)
            along += up[i] * w[i] * (in[i] * scale);
        s_parameters (dw, NULL, up, in, 0, scale, h);
        real_t slope = (real_t)(along / (double)h);
#pragma omp simd
        for (size_t i = 0; i < h; i++)
            out[i] = scale * (up[i] * w[i] - in[i] * scale * slope);
    }
}
