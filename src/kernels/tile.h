/*  tile: what matrix products are made of: a rectangle of results that lives in registers while a sum runs, and the
    turning of rows into columns. Included by product.c and attention.c, compiled for every instruction set.

    A tile's sum runs over k one by one, in runs of TL_RUN, so a result's bits don't depend on where in a tile it is.          */

#ifndef TL_KERNELS_TILE_H
#define TL_KERNELS_TILE_H

#include "kernels/checked.h"
#include "kernels/loops.h"

#include <xmmintrin.h>

//  Two shapes as large as the registers are: WIDE for long rows, where it needs fewer loads; NARROW for heads, which
//  are multiples of 32 or 16 wide.
#if defined TL_IN_DOUBLE
enum {
    TL_VECTOR = 32,
    TL_WIDE_TALL = 4,
    TL_WIDE_VECTORS = 3,
    TL_NARROW_TALL = 4,
    TL_NARROW_VECTORS = 2
};
#elif !defined __AVX2__
enum {
    TL_VECTOR = 16,
    TL_WIDE_TALL = 4,
    TL_WIDE_VECTORS = 3,
    TL_NARROW_TALL = 6,
    TL_NARROW_VECTORS = 2
};
#elif !defined __AVX512F__
enum {
    TL_VECTOR = 32,
    TL_WIDE_TALL = 6,
    TL_WIDE_VECTORS = 2,
    TL_NARROW_TALL = 6,
    TL_NARROW_VECTORS = 2
};
#else
enum {
    TL_VECTOR = 64,
    TL_WIDE_TALL = 8,
    TL_WIDE_VECTORS = 3,
    TL_NARROW_TALL = 12,
    TL_NARROW_VECTORS = 2
};
#endif
enum {
    TL_LANES = TL_VECTOR / sizeof (real_t),
    TL_WIDE = TL_LANES * TL_WIDE_VECTORS,
    TL_NARROW = TL_LANES * TL_NARROW_VECTORS
};
typedef real_t tl_vector_t
    __attribute__ ((vector_size (TL_VECTOR), aligned (sizeof (real_t)), may_alias));

//  A sum's terms are added up in runs of so many: in fp32 the error of one long run was as large as PyTorch's own.
enum { TL_RUN = 192 };

//  Rows of the right side that are on their way from the second cache: where a core's other hyperthread is busy that
//  is 5 % of the time.
enum { TL_AHEAD = 8 };

//  Nothing is read through pointer before the sum is made. gcc would read all rows' values first where there are 16 registers,
//  and keep sums in memory.
#if defined __AVX2__ && !defined __AVX512F__ && !defined TL_IN_DOUBLE
#define TL_AFTER(pointer, sum) __asm__("" : "+r"(pointer) : "x"(sum))
#else
#define TL_AFTER(pointer, sum) (void)0
#endif

//  out [tall, vectors * TL_LANES] = rows of a (a_stride apart) times b [depth rows, b_stride apart]. The sums are never
//  inlined: they need every register. They are TL_UNCHECKED: what they read and write is looked at before, as a whole.
#define TL_DEFINE_TILE(name, tall, vectors)                                                        \
    static TL_UNCHECKED __attribute__ ((noinline)) void name##_sums (                              \
        real_t *restrict out, const real_t *a, size_t a_stride, const real_t *b, size_t b_stride,  \
        size_t depth)                                                                              \
    {                                                                                              \
        for (size_t first = 0; first < depth; first += TL_RUN) {                                   \
            const size_t end = depth - first < TL_RUN ? depth : first + TL_RUN;                    \
            tl_vector_t sums[tall][vectors] = {{{0}}};                                             \
            for (size_t k = first; k < end; k++) {                                                 \
                tl_vector_t right[vectors];                                                        \
                _Pragma ("GCC unroll 4") for (size_t v = 0; v < vectors; v++)                      \
                {                                                                                  \
                    right[v] = *(const tl_vector_t *)(b + k * b_stride + v * TL_LANES);            \
                    __builtin_prefetch (b + (k + TL_AHEAD) * b_stride + v * TL_LANES);             \
                }                                                                                  \
                const real_t *at = a + k;                                                          \
                _Pragma ("GCC unroll 16") for (size_t i = 0; i < tall; i++)                        \
                {                                                                                  \
                    if (i > 0)                                                                     \
                        TL_AFTER (at, sums[i - 1][(vectors)-1]);                                   \
                    tl_vector_t left = at[i * a_stride] - (tl_vector_t){0};                        \
                    _Pragma ("GCC unroll 4") for (size_t v = 0; v < vectors; v++)                  \
                    {                                                                              \
                        sums[i][v] += left * right[v];                                             \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
            _Pragma ("GCC unroll 16") for (size_t i = 0; i < tall; i++)                            \
            {                                                                                      \
                _Pragma ("GCC unroll 4") for (size_t v = 0; v < vectors; v++)                      \
                {                                                                                  \
                    tl_vector_t *to = (tl_vector_t *)(out + (i * vectors + v) * TL_LANES);         \
                    if (first)                                                                     \
                        sums[i][v] += *to;                                                         \
                    *to = sums[i][v];                                                              \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static inline void name (real_t *restrict out, const real_t *a, size_t a_stride,               \
                             const real_t *b, size_t b_stride, size_t depth)                       \
    {                                                                                              \
        tl_check_span (out, (tall) * (vectors)*TL_LANES * sizeof *out);                            \
        tl_check_span (a, (((tall)-1) * a_stride + depth) * sizeof *a);                            \
        tl_check_span (b, ((depth - 1) * b_stride + (vectors)*TL_LANES) * sizeof *b);              \
        name##_sums (out, a, a_stride, b, b_stride, depth);                                        \
    }

//  Four values that lie beside each other.
typedef real_t tl_four_t
    __attribute__ ((vector_size (4 * sizeof (real_t)), aligned (sizeof (real_t)), may_alias));

//  to [4, to_stride apart] = the first four values of four rows, turned.
static inline void
tl_turn_4x4 (real_t *to, size_t to_stride, const real_t *const rows[4])
{
#ifdef TL_IN_DOUBLE
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++)
            to[j * to_stride + i] = rows[i][j];
#else
    __m128 a = _mm_loadu_ps (rows[0]), b = _mm_loadu_ps (rows[1]);
    __m128 c = _mm_loadu_ps (rows[2]), d = _mm_loadu_ps (rows[3]);
    _MM_TRANSPOSE4_PS (a, b, c, d);
    _mm_storeu_ps (to, a);
    _mm_storeu_ps (to + to_stride, b);
    _mm_storeu_ps (to + 2 * to_stride, c);
    _mm_storeu_ps (to + 3 * to_stride, d);
#endif
}

//  to [depth, 4 of to_stride] = four rows of depth values, turned.
static inline void
tl_turn_rows (real_t *to, size_t to_stride, const real_t *const rows[4], size_t depth)
{
    size_t step = 0;
    for (; step + 4 <= depth; step += 4) {
        const real_t *const at[4] = {rows[0] + step, rows[1] + step, rows[2] + step,
                                     rows[3] + step};
        tl_turn_4x4 (to + step * to_stride, to_stride, at);
    }
    for (; step < depth; step++)
        for (size_t i = 0; i < 4; i++)
            to[step * to_stride + i] = rows[i][step];
}

#endif
