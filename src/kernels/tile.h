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
#define TL_SIXTEEN //  registers, which a tile fills
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
//  is 5 % of the time. AVX2 multiplies for longer on each row, and there the instructions cost more than they save.
enum { TL_AHEAD = 8 };
#ifdef TL_SIXTEEN
#define TL_EXPECT(at) (void)0
#else
#define TL_EXPECT(at) __builtin_prefetch (at)
#endif

//  sum += left * right. With 16 registers, and more of k in one turn of the loop, gcc would move sums about and keep some
//  in memory: the instruction that adds in place leaves it no choice.
#ifdef TL_SIXTEEN
enum { TL_TURN = 4 };
#define TL_ADD_PRODUCT(sum, left, right)                                                           \
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(left), "x"(right))
#else
enum { TL_TURN = 1 };
#define TL_ADD_PRODUCT(sum, left, right) (sum) += (left) * (right)
#endif

//  The compiler forgets how these two came about, and doesn't make every row a pointer of its own again.
#define TL_OPAQUE(pointer, count) __asm__("" : "+r"(pointer), "+r"(count))

//  The k that is u further: sums [tall, vectors] += a's column times b's row. Rows are reached from two of them, so that
//  few registers say where they are.
#define TL_STEP_OF_TILE(tall, vectors, u)                                                          \
    do {                                                                                           \
        tl_vector_t right[vectors];                                                                \
        _Pragma ("GCC unroll 4") for (size_t v = 0; v < (vectors); v++)                            \
        {                                                                                          \
            const real_t *from = b_at + (u)*b_stride + v * TL_LANES;                               \
            right[v] = *(const tl_vector_t *)from;                                                 \
            TL_EXPECT (from + TL_AHEAD * b_stride);                                                \
        }                                                                                          \
        _Pragma ("GCC unroll 16") for (size_t i = 0; i < (tall); i++)                              \
        {                                                                                          \
            const real_t *row = i < (tall) / 2 ? a_at : a_far;                                     \
            tl_vector_t left = row[i % ((tall) / 2) * step + (u)] - (tl_vector_t){0};              \
            _Pragma ("GCC unroll 4") for (size_t v = 0; v < (vectors); v++)                        \
            {                                                                                      \
                TL_ADD_PRODUCT (sums[i][v], left, right[v]);                                       \
            }                                                                                      \
        }                                                                                          \
    } while (0)

//  out [tall, vectors * TL_LANES] = rows of a (a_stride apart) times b [depth rows, b_stride apart]. The sums are never
//  inlined: they need every register. They are TL_UNCHECKED: what they read and write is looked at before, as a whole.
#define TL_DEFINE_TILE(name, tall, vectors)                                                        \
    static TL_UNCHECKED __attribute__ ((noinline)) void name##_sums (                              \
        real_t *restrict out, const real_t *a, size_t a_stride, const real_t *b, size_t b_stride,  \
        size_t depth)                                                                              \
    {                                                                                              \
        const real_t *a_at = a, *a_far = a + (tall) / 2 * a_stride, *b_at = b;                     \
        size_t step = a_stride;                                                                    \
        TL_OPAQUE (a_far, step);                                                                   \
        for (size_t first = 0; first < depth; first += TL_RUN) {                                   \
            const size_t end = depth - first < TL_RUN ? depth : first + TL_RUN;                    \
            tl_vector_t sums[tall][vectors] = {{{0}}};                                             \
            size_t k = first;                                                                      \
            for (; k + TL_TURN <= end; k += TL_TURN) {                                             \
                _Pragma ("GCC unroll 4") for (size_t u = 0; u < TL_TURN; u++)                      \
                {                                                                                  \
                    TL_STEP_OF_TILE (tall, vectors, u);                                            \
                }                                                                                  \
                a_at += TL_TURN;                                                                   \
                a_far += TL_TURN;                                                                  \
                b_at += TL_TURN * b_stride;                                                        \
            }                                                                                      \
            for (; k < end; k++, a_at++, a_far++, b_at += b_stride) {                              \
                TL_STEP_OF_TILE (tall, vectors, 0);                                                \
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
