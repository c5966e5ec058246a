//  kernels_support: repeatable numbers and comparisons shared by the tests of kernels.

#ifndef TL_TESTS_KERNELS_SUPPORT_H
#define TL_TESTS_KERNELS_SUPPORT_H

#include "unit/cmocka_all.h"

#include "kernels/kernels.h"
#include "memory.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const tests_isas[] = {"base", "v3", "v4"};

//  Fills with normal values that a float holds exactly, so float and double start from the same.
static inline void
tests_fill_f64 (double *x, size_t count, uint64_t seed, double scale)
{
    tl_stream_t stream = {.seed = seed, .purpose = TL_DRAW_INIT};
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(scale * tl_random_normal (&stream, i));
}

static inline void
tests_fill_f32 (float *x, size_t count, uint64_t seed, double scale)
{
    tl_stream_t stream = {.seed = seed, .purpose = TL_DRAW_INIT};
    for (size_t i = 0; i < count; i++)
        x[i] = (float)(scale * tl_random_normal (&stream, i));
}

static inline double *
tests_new_f64 (size_t count, uint64_t seed, double scale)
{
    double *x = tl_alloc_aligned ((count ? count : 1) * sizeof *x);
    tests_fill_f64 (x, count, seed, scale);
    return x;
}

static inline float *
tests_new_f32 (size_t count, uint64_t seed, double scale)
{
    float *x = tl_alloc_aligned ((count ? count : 1) * sizeof *x);
    tests_fill_f32 (x, count, seed, scale);
    return x;
}

//  Fails unless |got - expected| <= limit * max |expected| everywhere; NaN fails.
static inline void
tests_close_f64 (const char *what, const double *got, const double *expected, size_t count,
                 double limit)
{
    double largest = 0, worst = 0;
    size_t where = 0;
    for (size_t i = 0; i < count; i++) {
        double error = fabs (got[i] - expected[i]);
        largest = fmax (largest, fabs (expected[i]));
        if (!(error <= worst)) {
            worst = error;
            where = i;
            if (isnan (error))
                break;
        }
    }
    if (!(worst <= limit * largest))
        fail_msg ("%s [%zu]: got %.9g, expected %.9g; off by %.3g of the largest value, limit %.3g",
                  what, where, got[where], expected[where], worst / largest, limit);
}

static inline void
tests_close_f32 (const char *what, const float *got, const double *expected, size_t count,
                 double limit)
{
    double *wide = tl_alloc_aligned (count * sizeof *wide);
    for (size_t i = 0; i < count; i++)
        wide[i] = got[i];
    tests_close_f64 (what, wide, expected, count, limit);
    free (wide);
}

static inline int
tests_open_blas (void **state)
{
    tl_error_t err = {0};
    int rc = tl_blas_open (1, &err);
    if (rc != 0)
        fprintf (stderr, "%s\n", err.text);
    return rc;
}

#endif
