/*  product: the matrix product behind linear and attention, compiled with the loops for every instruction set. Threaded by
    the pool. A result's bits depend on its row, its column and k alone.                     */

#ifndef TL_KERNELS_PRODUCT_H
#define TL_KERNELS_PRODUCT_H

#include "kernels/loops.h"

//  One side of a product, row-major. As a left side [m, k], as a right side [k, n]; transposed, the stored matrix is
//  [k, m] or [n, k]. Types other than TL_F32 are for weights whose stored rows are whole: stride is their length.
typedef struct {
    const void *data;
    tl_dtype_t dtype; //  ignored in double
    size_t stride;    //  elements between stored rows
    bool transposed;
} tl_side_t;

//  c [m, n] = alpha * left right + beta * c (+ bias [n] when not NULL). With beta 0 c is not read. Sizes are not 0.
void TL_KERNEL (product) (size_t m, size_t n, size_t k, double alpha, const tl_side_t *left,
                          const tl_side_t *right, double beta, real_t *c, size_t ldc,
                          const real_t *bias);

//  The same in fp32 on AMX's tiles, where tl_bf16_uses_amx; worth it where no size is small.
#if defined __AVX512F__ && !defined TL_IN_DOUBLE
#define TL_MAY_HAVE_AMX
void TL_KERNEL (product_amx) (size_t m, size_t n, size_t k, double alpha, const tl_side_t *left,
                              const tl_side_t *right, double beta, float *c, size_t ldc,
                              const float *bias);
#endif

#endif
