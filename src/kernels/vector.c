//  vector: small loops over one or two vectors.

#include "kernels/loops.h"

void
TL_KERNEL (add_rows) (real_t *y, const real_t *x, double scale, size_t count)
{
    real_t factor = (real_t)scale;
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        y[i] += factor * x[i];
}

void
TL_KERNEL (multiply_rows) (real_t *y, const real_t *x, const real_t *keep, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        y[i] = x[i] * keep[i];
}

double
TL_KERNEL (sum_of_squares) (const real_t *x, size_t count)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

bool
TL_KERNEL (all_finite) (const real_t *x, size_t count)
{
    //  x * 0 is 0 for every finite x and NaN otherwise; a sum of zeros stays 0. By blocks, so that a
    //  bad vector is left early.
    enum { S_BLOCK = 8192 };
    for (size_t first = 0; first < count; first += S_BLOCK) {
        size_t end = count - first < S_BLOCK ? count : first + S_BLOCK;
        real_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = first; i < end; i++)
            sum += x[i] * 0;
        if (sum != 0)
            return false;
    }
    return true;
}
