//  kernels_support: repeatable numbers and comparisons shared by the tests of kernels.

#ifndef TL_TESTS_KERNELS_SUPPORT_H
#define TL_TESTS_KERNELS_SUPPORT_H

#include "unit/cmocka_all.h"

#include "kernels/kernels.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const tests_isas[] = {"base", "v3", "v4"};

//  About normal, variance 1, held exactly by a float, so float and double start from the same. Cheap:
//  some tests fill millions.
static inline float
tests_value (uint64_t seed, size_t i, double scale)
{
    uint64_t z = (seed << 40) + (i + 1) * UINT64_C (0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C (0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C (0x94D049BB133111EB);
    z ^= z >> 31;
    int64_t sum = (int64_t)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48));
    return (float)(scale * (double)(sum - 2 * 65535) * (1.7320508 / 65536));
}

static inline void
tests_fill_f64 (double *x, size_t count, uint64_t seed, double scale)
{
    for (size_t i = 0; i < count; i++)
        x[i] = tests_value (seed, i, scale);
}

static inline void
tests_fill_f32 (float *x, size_t count, uint64_t seed, double scale)
{
    for (size_t i = 0; i < count; i++)
        x[i] = tests_value (seed, i, scale);
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

#endif
