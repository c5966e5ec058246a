/*  bf16: the products of a frozen linear in bf16, sums in fp32, on CPUs that have instructions for it: AMX, or
    AVX-512 BF16. Opt-in: rows and weights lose 16 bits each on the way in. Weights are [out, in] in bf16,
    as stored or as converted; rows come and go in fp32.                                             */

#ifndef TL_KERNELS_BF16_H
#define TL_KERNELS_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//  "amx", "avx512" or, on a CPU that has neither, NULL. TL_BF16=avx512|none pins less than the CPU has.
const char *tl_bf16_name (void);
bool tl_bf16_uses_amx (void);

//  Reals of scratch for either call, at most n rows.
size_t tl_bf16_scratch (size_t n, size_t in, size_t out);

//  y [n, out] = alpha * x W^T + beta * y (+ bias when not NULL); x [n, in]. With beta 0 y is not read.
void tl_bf16_forward (float *y, const float *x, const uint16_t *w, const float *bias, size_t n,
                      size_t in, size_t out, double alpha, double beta, float *scratch);
//  dx [n, in] = alpha * dy W + beta * dx; dy [n, out].
void tl_bf16_backward_input (float *dx, const float *dy, const uint16_t *w, size_t n, size_t in,
                             size_t out, double alpha, double beta, float *scratch);

#endif
