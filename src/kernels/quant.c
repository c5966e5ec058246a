/*  quant: GGUF's blocks to reals. Every value is d q or d q + m with d and m made from fp16 scales and
    small whole numbers, and every product of them fits fp32's 24 bits: there is nothing to round before the
    last addition, so that fused and plain arithmetic, any vector width and gguf-py give the same bits.

    Sixteen bytes at a time: each type makes its small numbers as signed bytes with SSE2, which every x86-64
    has; how they become floats depends on the instruction set. Writes no blocks; quantise.c does.     */

#include "kernels/loops.h"
#include "kernels/blocks.h"

#ifndef TL_IN_DOUBLE

#include <immintrin.h>

static inline __m128i
s_load (const void *at)
{
    return _mm_loadu_si128 (at);
}

//  Bits shift .. of each byte, as many as mask has.
static inline __m128i
s_bits (__m128i bytes, unsigned shift, int mask)
{
    return _mm_and_si128 (_mm_srl_epi16 (bytes, _mm_cvtsi32_si128 ((int)shift)),
                          _mm_set1_epi8 ((char)mask));
}

//  out = d q and out = d q + m for sixteen signed bytes q.
#ifdef __AVX512F__

static inline void
s_times (float *out, __m128i q, float d)
{
    __m512 value = _mm512_cvtepi32_ps (_mm512_cvtepi8_epi32 (q));
    _mm512_storeu_ps (out, _mm512_mul_ps (_mm512_set1_ps (d), value));
}

static inline void
s_times_plus (float *out, __m128i q, float d, float m)
{
    __m512 value = _mm512_cvtepi32_ps (_mm512_cvtepi8_epi32 (q));
    _mm512_storeu_ps (out, _mm512_fmadd_ps (_mm512_set1_ps (d), value, _mm512_set1_ps (m)));
}

#elif defined __AVX2__

static inline void
s_times (float *out, __m128i q, float d)
{
    __m256 low = _mm256_cvtepi32_ps (_mm256_cvtepi8_epi32 (q));
    __m256 high = _mm256_cvtepi32_ps (_mm256_cvtepi8_epi32 (_mm_srli_si128 (q, 8)));
    _mm256_storeu_ps (out, _mm256_mul_ps (_mm256_set1_ps (d), low));
    _mm256_storeu_ps (out + 8, _mm256_mul_ps (_mm256_set1_ps (d), high));
}

static inline void
s_times_plus (float *out, __m128i q, float d, float m)
{
    __m256 low = _mm256_cvtepi32_ps (_mm256_cvtepi8_epi32 (q));
    __m256 high = _mm256_cvtepi32_ps (_mm256_cvtepi8_epi32 (_mm_srli_si128 (q, 8)));
    _mm256_storeu_ps (out, _mm256_fmadd_ps (_mm256_set1_ps (d), low, _mm256_set1_ps (m)));
    _mm256_storeu_ps (out + 8, _mm256_fmadd_ps (_mm256_set1_ps (d), high, _mm256_set1_ps (m)));
}

#else

//  Four floats from the signed bytes at 4 which.
static inline __m128
s_four (__m128i q, int which)
{
    //  A byte in the upper half of a 16-bit, then of a 32-bit lane, moved down with its sign.
    __m128i pairs = which < 2 ? _mm_unpacklo_epi8 (q, q) : _mm_unpackhi_epi8 (q, q);
    __m128i fours =
        which % 2 == 0 ? _mm_unpacklo_epi16 (pairs, pairs) : _mm_unpackhi_epi16 (pairs, pairs);
    return _mm_cvtepi32_ps (_mm_srai_epi32 (fours, 24));
}

static inline void
s_times (float *out, __m128i q, float d)
{
    for (int i = 0; i < 4; i++)
        _mm_storeu_ps (out + 4 * i, _mm_mul_ps (_mm_set1_ps (d), s_four (q, i)));
}

static inline void
s_times_plus (float *out, __m128i q, float d, float m)
{
    for (int i = 0; i < 4; i++)
        _mm_storeu_ps (out + 4 * i,
                       _mm_add_ps (_mm_mul_ps (_mm_set1_ps (d), s_four (q, i)), _mm_set1_ps (m)));
}

#endif

static void
s_widen_q8_0 (float *restrict out, const tl_q8_0_t *restrict in, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, out += 32) {
        const float d = tl_block_half (in[b].d);
        s_times (out, s_load (in[b].q), d);
        s_times (out + 16, s_load (in[b].q + 16), d);
    }
}

static void
s_widen_q4_0 (float *restrict out, const tl_q4_0_t *restrict in, size_t blocks)
{
    const __m128i eight = _mm_set1_epi8 (8);
    for (size_t b = 0; b < blocks; b++, out += 32) {
        const float d = tl_block_half (in[b].d);
        const __m128i q = s_load (in[b].q);
        s_times (out, _mm_sub_epi8 (s_bits (q, 0, 15), eight), d);
        s_times (out + 16, _mm_sub_epi8 (s_bits (q, 4, 15), eight), d);
    }
}

static void
s_widen_q4_1 (float *restrict out, const tl_q4_1_t *restrict in, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++, out += 32) {
        const float d = tl_block_half (in[b].d), m = tl_block_half (in[b].m);
        const __m128i q = s_load (in[b].q);
        s_times_plus (out, s_bits (q, 0, 15), d, m);
        s_times_plus (out + 16, s_bits (q, 4, 15), d, m);
    }
}

static void
s_widen_q4_k (float *restrict out, const tl_q4_k_t *restrict in, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++) {
        const float d = tl_block_half (in[b].d), dmin = tl_block_half (in[b].dmin);
        for (size_t g = 0; g < 8; g++, out += 32) {
            unsigned scale, minimum, shift = (unsigned)(g % 2 * 4);
            tl_block_scale (in[b].scales, g, &scale, &minimum);
            const float dg = d * (float)scale, m = -(dmin * (float)minimum);
            const uint8_t *q = in[b].q + g / 2 * 32;
            s_times_plus (out, s_bits (s_load (q), shift, 15), dg, m);
            s_times_plus (out + 16, s_bits (s_load (q + 16), shift, 15), dg, m);
        }
    }
}

static void
s_widen_q5_k (float *restrict out, const tl_q5_k_t *restrict in, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++) {
        const float d = tl_block_half (in[b].d), dmin = tl_block_half (in[b].dmin);
        for (size_t g = 0; g < 8; g++) {
            unsigned scale, minimum, shift = (unsigned)(g % 2 * 4);
            tl_block_scale (in[b].scales, g, &scale, &minimum);
            const float dg = d * (float)scale, m = -(dmin * (float)minimum);
            for (size_t half = 0; half < 32; half += 16, out += 16) {
                __m128i low = s_bits (s_load (in[b].q + g / 2 * 32 + half), shift, 15);
                __m128i high = s_bits (s_load (in[b].high + half), (unsigned)g, 1);
                s_times_plus (out, _mm_or_si128 (low, _mm_slli_epi16 (high, 4)), dg, m);
            }
        }
    }
}

static void
s_widen_q6_k (float *restrict out, const tl_q6_k_t *restrict in, size_t blocks)
{
    const __m128i offset = _mm_set1_epi8 (32);
    for (size_t b = 0; b < blocks; b++) {
        const float d = tl_block_half (in[b].d);
        //  Sixteen values i: half h of the block, quarter k of the half, first or second part of 32.
        for (size_t i = 0; i < 16; i++, out += 16) {
            const size_t h = i / 8, k = i / 2 % 4, part = i % 2 * 16;
            __m128i low = s_load (in[b].low + 64 * h + 32 * (k % 2) + part);
            __m128i high = s_load (in[b].high + 32 * h + part);
            low = s_bits (low, (unsigned)(k / 2 * 4), 15);
            high = _mm_slli_epi16 (s_bits (high, (unsigned)(2 * k), 3), 4);
            s_times (out, _mm_sub_epi8 (_mm_or_si128 (low, high), offset),
                     d * (float)in[b].scales[i]);
        }
    }
}

void
TL_KERNEL (widen_blocks) (real_t *out, const void *in, tl_dtype_t dtype, size_t count)
{
    size_t blocks = count / tl_dtype_block (dtype);
    switch (dtype) {
    case TL_Q8_0:
        s_widen_q8_0 (out, in, blocks);
        break;
    case TL_Q4_0:
        s_widen_q4_0 (out, in, blocks);
        break;
    case TL_Q4_1:
        s_widen_q4_1 (out, in, blocks);
        break;
    case TL_Q4_K:
        s_widen_q4_k (out, in, blocks);
        break;
    case TL_Q5_K:
        s_widen_q5_k (out, in, blocks);
        break;
    default:
        tl_assert (dtype == TL_Q6_K);
        s_widen_q6_k (out, in, blocks);
    }
}

#endif
