//  gemm_naive: the referee of the BLAS, for tests and for TL_BLAS=naive. Slow and obvious.

#include "kernels/loops.h"

void TL_KERNEL (gemm_naive) (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k,
                             double alpha, const real_t *a, size_t lda, const real_t *b, size_t ldb,
                             double beta, real_t *c, size_t ldc);

void
TL_KERNEL (gemm_naive) (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k,
                        double alpha, const real_t *a, size_t lda, const real_t *b, size_t ldb,
                        double beta, real_t *c, size_t ldc)
{
    for (size_t row = 0; row < m; row++)
        for (size_t column = 0; column < n; column++) {
            double sum = 0;
            for (size_t i = 0; i < k; i++) {
                double left = transpose_a ? a[i * lda + row] : a[row * lda + i];
                double right = transpose_b ? b[column * ldb + i] : b[i * ldb + column];
                sum += left * right;
            }
            real_t *out = &c[row * ldc + column];
            *out = (real_t)(alpha * sum + (beta != 0 ? beta * (double)*out : 0));
        }
}
