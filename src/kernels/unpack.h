/*  unpack: stored weights as reals in registers, sixteen at a time, handed to whoever includes this: quant.c stores
    them, linear_rows.c multiplies with them. Before including, define s_sink_t and

        static TL_INLINE void s_take (s_sink_t *sink, size_t place, tl_sixteen_t values);

    which is called for sixteen values after sixteen; place counts 0, 1, 0, 1 ... and is a constant after inlining.

    Every value of a block is d q or d q + m with d and m made from fp16 scales and small whole numbers, and every
    product of them fits fp32's 24 bits: there is nothing to round before the last addition, so that fused and plain
    arithmetic, any vector width and gguf-py give the same bits. Small numbers are made as signed bytes with SSE2,
    which every x86-64 has; how they become floats depends on the instruction set.                       */

#ifndef TL_KERNELS_UNPACK_H
#define TL_KERNELS_UNPACK_H

#include "kernels/blocks.h"

#include <immintrin.h>

//  Sixteen floats.
#ifdef __AVX512F__
enum { TL_PARTS = 1 };
typedef __m512 tl_part_t;
#elif defined __AVX2__
enum { TL_PARTS = 2 };
typedef __m256 tl_part_t;
#else
enum { TL_PARTS = 4 };
typedef __m128 tl_part_t;
#endif
enum { TL_PART = 16 / TL_PARTS };
typedef struct {
    tl_part_t part[TL_PARTS];
} tl_sixteen_t;
typedef float tl_loose_t __attribute__ ((vector_size (sizeof (tl_part_t)), aligned (4), may_alias));

//  Inlined whatever it costs: a sink's sums must stay in registers.
#define TL_INLINE inline __attribute__ ((always_inline))

static TL_INLINE void s_take (s_sink_t *sink, size_t place, tl_sixteen_t values);

static TL_INLINE __m128i
tl_bytes (const void *at)
{
    return _mm_loadu_si128 (at);
}

//  Bits shift .. of each byte, as many as mask has.
static TL_INLINE __m128i
tl_bits (__m128i bytes, unsigned shift, int mask)
{
    return _mm_and_si128 (_mm_srl_epi16 (bytes, _mm_cvtsi32_si128 ((int)shift)),
                          _mm_set1_epi8 ((char)mask));
}

//  Sixteen signed bytes as floats.
static TL_INLINE tl_sixteen_t
tl_floats (__m128i q)
{
#ifdef __AVX512F__
    return (tl_sixteen_t){{_mm512_cvtepi32_ps (_mm512_cvtepi8_epi32 (q))}};
#elif defined __AVX2__
    return (tl_sixteen_t){{_mm256_cvtepi32_ps (_mm256_cvtepi8_epi32 (q)),
                           _mm256_cvtepi32_ps (_mm256_cvtepi8_epi32 (_mm_srli_si128 (q, 8)))}};
#else
    //  A byte in the upper half of a 16-bit, then of a 32-bit lane, moved down with its sign.
    __m128i low = _mm_unpacklo_epi8 (q, q), high = _mm_unpackhi_epi8 (q, q);
    return (tl_sixteen_t){{_mm_cvtepi32_ps (_mm_srai_epi32 (_mm_unpacklo_epi16 (low, low), 24)),
                           _mm_cvtepi32_ps (_mm_srai_epi32 (_mm_unpackhi_epi16 (low, low), 24)),
                           _mm_cvtepi32_ps (_mm_srai_epi32 (_mm_unpacklo_epi16 (high, high), 24)),
                           _mm_cvtepi32_ps (_mm_srai_epi32 (_mm_unpackhi_epi16 (high, high), 24))}};
#endif
}

static TL_INLINE float
tl_sum (tl_sixteen_t values)
{
#ifdef __AVX512F__
    return _mm512_reduce_add_ps (values.part[0]);
#else
    float lanes[16];
    for (size_t i = 0; i < TL_PARTS; i++)
        *(tl_loose_t *)(lanes + i * TL_PART) = (tl_loose_t)values.part[i];
    for (size_t width = 8; width; width /= 2)
        for (size_t i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
#endif
}

//  Hands on d q and d q + m for sixteen signed bytes q.
static TL_INLINE void
tl_times (s_sink_t *sink, size_t place, __m128i q, float d)
{
    tl_sixteen_t values = tl_floats (q);
    for (size_t i = 0; i < TL_PARTS; i++)
        values.part[i] = values.part[i] * d;
    s_take (sink, place, values);
}

static TL_INLINE void
tl_times_plus (s_sink_t *sink, size_t place, __m128i q, float d, float m)
{
    tl_sixteen_t values = tl_floats (q);
    for (size_t i = 0; i < TL_PARTS; i++)
        values.part[i] = values.part[i] * d + m;
    s_take (sink, place, values);
}

//  The same for the four bits from shift on of 16 bytes, d (q - less) + m if plus, else d (q - less). With AVX-512 the sixteen values
//  that they can stand for are made once for a block, and picked by the low four bits of each lane.
static TL_INLINE void
tl_fours (s_sink_t *sink, size_t place, __m128i bytes, unsigned shift, int less, float d, bool plus,
          float m)
{
#ifdef __AVX512F__
    const __m512 q = _mm512_set_ps (15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512 values = (q - (float)less) * d;
    if (plus)
        values = values + m;
    __m512i at = _mm512_srli_epi32 (_mm512_cvtepu8_epi32 (bytes), shift);
    s_take (sink, place, (tl_sixteen_t){{_mm512_permutexvar_ps (at, values)}});
#else
    __m128i q = _mm_sub_epi8 (tl_bits (bytes, shift, 15), _mm_set1_epi8 ((char)less));
    if (plus)
        tl_times_plus (sink, place, q, d, m);
    else
        tl_times (sink, place, q, d);
#endif
}

//  Scales of so many blocks are made floats at a time: one by one they took longer than the values.
enum { TL_SCALES = 64 };

//  d [TL_SCALES] from the fp16 at first and every stride bytes on, count of them; m, unless NULL, from the fp16 behind each. Blocks are
//  longer than 4 bytes.
static TL_INLINE void
tl_scales (float *d, float *m, const uint8_t *first, size_t stride, size_t count)
{
#ifdef __AVX512F__
    const __m512i lane = _mm512_set_epi32 (15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i at = _mm512_mullo_epi32 (lane, _mm512_set1_epi32 ((int)stride));
    for (size_t b = 0; b < count; b += 16) {
        __mmask16 mask = (__mmask16)(count - b < 16 ? (1u << (count - b)) - 1 : 0xffff);
        __m512i words =
            _mm512_mask_i32gather_epi32 (_mm512_setzero_si512 (), mask, at, first + b * stride, 1);
        _mm512_storeu_ps (d + b, _mm512_cvtph_ps (_mm512_cvtepi32_epi16 (words)));
        words = _mm512_srli_epi32 (words, 16);
        if (m)
            _mm512_storeu_ps (m + b, _mm512_cvtph_ps (_mm512_cvtepi32_epi16 (words)));
    }
#else
    uint16_t halves[2][TL_SCALES];
    for (size_t b = 0; b < count; b++) {
        memcpy (&halves[0][b], first + b * stride, sizeof halves[0][b]);
        if (m)
            memcpy (&halves[1][b], first + b * stride + 2, sizeof halves[1][b]);
    }
    TL_KERNEL (widen) (d, halves[0], TL_F16, count);
    if (m)
        TL_KERNEL (widen) (m, halves[1], TL_F16, count);
#endif
}

static TL_INLINE void
tl_unpack_q8_0 (s_sink_t *sink, const tl_q8_0_t *restrict in, size_t blocks)
{
    float d[TL_SCALES];
    for (size_t count; blocks; in += count, blocks -= count) {
        count = blocks < TL_SCALES ? blocks : TL_SCALES;
        tl_scales (d, NULL, in->d, sizeof *in, count);
        for (size_t b = 0; b < count; b++) {
            tl_times (sink, 0, tl_bytes (in[b].q), d[b]);
            tl_times (sink, 1, tl_bytes (in[b].q + 16), d[b]);
        }
    }
}

static TL_INLINE void
tl_unpack_q4_0 (s_sink_t *sink, const tl_q4_0_t *restrict in, size_t blocks)
{
    float d[TL_SCALES];
    for (size_t count; blocks; in += count, blocks -= count) {
        count = blocks < TL_SCALES ? blocks : TL_SCALES;
        tl_scales (d, NULL, in->d, sizeof *in, count);
        for (size_t b = 0; b < count; b++) {
            const __m128i q = tl_bytes (in[b].q);
            tl_fours (sink, 0, q, 0, 8, d[b], false, 0);
            tl_fours (sink, 1, q, 4, 8, d[b], false, 0);
        }
    }
}

static TL_INLINE void
tl_unpack_q4_1 (s_sink_t *sink, const tl_q4_1_t *restrict in, size_t blocks)
{
    float d[TL_SCALES], m[TL_SCALES];
    for (size_t count; blocks; in += count, blocks -= count) {
        count = blocks < TL_SCALES ? blocks : TL_SCALES;
        tl_scales (d, m, in->d, sizeof *in, count);
        for (size_t b = 0; b < count; b++) {
            const __m128i q = tl_bytes (in[b].q);
            tl_fours (sink, 0, q, 0, 0, d[b], true, m[b]);
            tl_fours (sink, 1, q, 4, 0, d[b], true, m[b]);
        }
    }
}

static TL_INLINE void
tl_unpack_q4_k (s_sink_t *sink, const tl_q4_k_t *restrict in, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++) {
        const float d = tl_block_half (in[b].d), dmin = tl_block_half (in[b].dmin);
        for (size_t g = 0; g < 8; g++) {
            unsigned scale, minimum, shift = (unsigned)(g % 2 * 4);
            tl_block_scale (in[b].scales, g, &scale, &minimum);
            const float dg = d * (float)scale, m = -(dmin * (float)minimum);
            const uint8_t *q = in[b].q + g / 2 * 32;
            tl_fours (sink, 0, tl_bytes (q), shift, 0, dg, true, m);
            tl_fours (sink, 1, tl_bytes (q + 16), shift, 0, dg, true, m);
        }
    }
}

static TL_INLINE void
tl_unpack_q5_k (s_sink_t *sink, const tl_q5_k_t *restrict in, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++) {
        const float d = tl_block_half (in[b].d), dmin = tl_block_half (in[b].dmin);
        for (size_t g = 0; g < 8; g++) {
            unsigned scale, minimum, shift = (unsigned)(g % 2 * 4);
            tl_block_scale (in[b].scales, g, &scale, &minimum);
            const float dg = d * (float)scale, m = -(dmin * (float)minimum);
            for (size_t half = 0; half < 32; half += 16) {
                __m128i low = tl_bits (tl_bytes (in[b].q + g / 2 * 32 + half), shift, 15);
                __m128i high = tl_bits (tl_bytes (in[b].high + half), (unsigned)g, 1);
                tl_times_plus (sink, half / 16, _mm_or_si128 (low, _mm_slli_epi16 (high, 4)), dg,
                               m);
            }
        }
    }
}

static TL_INLINE void
tl_unpack_q6_k (s_sink_t *sink, const tl_q6_k_t *restrict in, size_t blocks)
{
    const __m128i offset = _mm_set1_epi8 (32);
    for (size_t b = 0; b < blocks; b++) {
        const float d = tl_block_half (in[b].d);
        //  Sixteen values i: half h of the block, quarter k of the half, first or second part of 32.
        for (size_t i = 0; i < 16; i++) {
            const size_t h = i / 8, k = i / 2 % 4, part = i % 2 * 16;
            __m128i low = tl_bytes (in[b].low + 64 * h + 32 * (k % 2) + part);
            __m128i high = tl_bytes (in[b].high + 32 * h + part);
            low = tl_bits (low, (unsigned)(k / 2 * 4), 15);
            high = _mm_slli_epi16 (tl_bits (high, (unsigned)(2 * k), 3), 4);
            tl_times (sink, i % 2, _mm_sub_epi8 (_mm_or_si128 (low, high), offset),
                      d * (float)in[b].scales[i]);
        }
    }
}

//  Hands on all values of so many blocks of a quantised type.
static TL_INLINE void
tl_unpack (s_sink_t *sink, const void *in, tl_dtype_t dtype, size_t blocks)
{
    switch (dtype) {
    case TL_Q8_0:
        tl_unpack_q8_0 (sink, in, blocks);
        break;
    case TL_Q4_0:
        tl_unpack_q4_0 (sink, in, blocks);
        break;
    case TL_Q4_1:
        tl_unpack_q4_1 (sink, in, blocks);
        break;
    case TL_Q4_K:
        tl_unpack_q4_k (sink, in, blocks);
        break;
    case TL_Q5_K:
        tl_unpack_q5_k (sink, in, blocks);
        break;
    default:
        tl_assert (dtype == TL_Q6_K);
        tl_unpack_q6_k (sink, in, blocks);
    }
}

#endif
