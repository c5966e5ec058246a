/*  blas: matrix products for linear and attention. The library is loaded by tl_blas_open; calling
    before that is a bug. Row-major. Never called with a size of 0.                                 */

#ifndef TL_KERNELS_BLAS_H
#define TL_KERNELS_BLAS_H

#include <stdbool.h>
#include <stddef.h>

//  c [m, n] = alpha * op (a) op (b) + beta * c; op (a) is [m, k], op (b) is [k, n], op transposes when
//  asked to. lda, ldb, ldc are elements between the stored rows. With beta 0 c is not read.
void tl_gemm_f32 (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha,
                  const float *a, size_t lda, const float *b, size_t ldb, double beta, float *c,
                  size_t ldc);
void tl_gemm_f64 (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha,
                  const double *a, size_t lda, const double *b, size_t ldb, double beta, double *c,
                  size_t ldc);

//  The referee: three loops that sum in double. The same arguments.
void tl_gemm_naive_base (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k,
                         double alpha, const float *a, size_t lda, const float *b, size_t ldb,
                         double beta, float *c, size_t ldc);
void tl_gemm_naive_f64 (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k,
                        double alpha, const double *a, size_t lda, const double *b, size_t ldb,
                        double beta, double *c, size_t ldc);

#endif
