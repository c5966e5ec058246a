/*  loops: what every kernel source includes. Defines the scalar (real_t), the suffix of this variant
    and declares each kernel of the table with the table's own type, so that a kernel whose signature
    drifts doesn't compile. TL_VARIANT (base, v3, v4, f64) comes from the build.                    */

#ifndef TL_KERNELS_LOOPS_H
#define TL_KERNELS_LOOPS_H

#include "kernels/kernels.h"
#include "kernels/sizes.h"
#include "assert.h"

#include <math.h>
#include <string.h>

#define TL_JOIN_(name, variant) tl_##name##_##variant
#define TL_JOIN(name, variant) TL_JOIN_ (name, variant)
#define TL_KERNEL(name) TL_JOIN (name, TL_VARIANT)

#ifdef TL_IN_DOUBLE
typedef double real_t;
typedef tl_kernels_f64_t tl_loops_t;
#else
typedef float real_t;
typedef tl_kernels_t tl_loops_t;
#endif

//  The kernels of the table, in its order.
#define TL_EACH_KERNEL(_)                                                                          \
    _ (embedding_forward)                                                                          \
    _ (embedding_backward)                                                                         \
    _ (layernorm_forward)                                                                          \
    _ (layernorm_backward)                                                                         \
    _ (rmsnorm_forward)                                                                            \
    _ (rmsnorm_backward)                                                                           \
    _ (linear_forward)                                                                             \
    _ (linear_backward_input)                                                                      \
    _ (linear_backward_weight)                                                                     \
    _ (rope)                                                                                       \
    _ (attention_forward)                                                                          \
    _ (attention_backward)                                                                         \
    _ (gelu_forward)                                                                               \
    _ (gelu_backward)                                                                              \
    _ (swiglu_forward)                                                                             \
    _ (swiglu_backward)                                                                            \
    _ (add)                                                                                        \
    _ (multiply)                                                                                   \
    _ (sum_of_squares)                                                                             \
    _ (all_finite)                                                                                 \
    _ (cross_entropy)                                                                              \
    _ (adamw)

#define TL_DECLARE(name) extern __typeof__ (*((tl_loops_t *)NULL)->name) TL_KERNEL (name);
TL_EACH_KERNEL (TL_DECLARE)
#undef TL_DECLARE

//  Those that rows.c deals to threads: their loops over the rows, or values, of one piece.
#define TL_EACH_ROW_KERNEL(_)                                                                      \
    _ (layernorm_forward)                                                                          \
    _ (layernorm_backward)                                                                         \
    _ (rmsnorm_forward)                                                                            \
    _ (rmsnorm_backward)                                                                           \
    _ (rope)                                                                                       \
    _ (gelu_forward)                                                                               \
    _ (gelu_backward)                                                                              \
    _ (swiglu_forward)                                                                             \
    _ (swiglu_backward)                                                                            \
    _ (add)                                                                                        \
    _ (multiply)                                                                                   \
    _ (cross_entropy)
#define TL_DECLARE(name) extern __typeof__ (*((tl_loops_t *)NULL)->name) TL_KERNEL (name##_rows);
TL_EACH_ROW_KERNEL (TL_DECLARE)
#undef TL_DECLARE

extern const tl_loops_t TL_KERNEL (table);

//  Widens count stored weights to reals. In double the weights are doubles already: a copy.
void TL_KERNEL (widen) (real_t *out, const void *in, tl_dtype_t dtype, size_t count);
//  widen's part for quantised types (float only): count is a whole number of blocks.
void TL_KERNEL (widen_blocks) (real_t *out, const void *in, tl_dtype_t dtype, size_t count);

//  y [n, out] = alpha * x W^T + beta_y * y for the few rows of decoding (n <= TL_FEW_ROWS), without
//  a panel: each stored weight is read once and widened in registers.
void TL_KERNEL (linear_few_rows) (real_t *y, const real_t *x, const void *w, tl_dtype_t dtype,
                                  const real_t *bias, size_t n, size_t in, size_t out, real_t alpha,
                                  real_t beta_y);

//  attention_forward for the few rows of decoding: one pass over k and v, nothing packed.
void TL_KERNEL (attention_few_rows) (real_t *o, real_t *lse, const real_t *q, const real_t *k,
                                     const real_t *v, const tl_attention_t *shape, real_t *scratch);

//  Turns x [count] into exp (x - maximum), in place. Returns the sum.
double TL_KERNEL (softmax_row) (real_t *x, size_t count, real_t *maximum);

//  Where weight number index starts; index is a whole number of blocks.
static inline const void *
tl_weight_at (const void *w, tl_dtype_t dtype, size_t index)
{
    bool doubles = sizeof (real_t) == sizeof (double);
    return (const char *)w + (doubles ? index * sizeof (double) : tl_dtype_bytes (dtype, index));
}

//  The largest of count > 0 values; NaN is skipped (its exponential isn't, so it doesn't get lost).
static inline real_t
tl_maximum (const real_t *x, size_t count)
{
    real_t most = x[0];
#pragma omp simd reduction(max : most)
    for (size_t i = 0; i < count; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

//  Columns that row may see (the rule of tl_attention_t).
static inline size_t
tl_visible (const tl_attention_t *shape, size_t row)
{
    size_t causal = row + 1 + shape->columns - shape->rows;
    size_t seen = causal > shape->context ? causal : shape->context;
    return seen < shape->columns ? seen : shape->columns;
}

#endif
