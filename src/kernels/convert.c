/*  convert: fp16 and bf16 to reals and back, bit-exact on every instruction set. Narrowing rounds to
    nearest, ties to even; too large becomes infinity; NaN stays NaN (fp16 NaNs come out quiet).     */

#include "kernels/loops.h"
#include "kernels/blocks.h"
#include "kernels/exp.h"

#ifdef TL_IN_DOUBLE

void
TL_KERNEL (widen) (real_t *out, const void *in, tl_dtype_t dtype, size_t count)
{
    memcpy (out, in, count * sizeof *out);
}

#else

#ifdef __F16C__
#include <immintrin.h>
#endif

void TL_KERNEL (narrow) (void *out, const float *in, tl_dtype_t dtype, size_t count);

static inline uint16_t
s_float_to_half (float value)
{
    uint32_t bits = tl_bits_of (value), magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1) - 0x38000000u) >> 13;
    //  Adding one half makes the last bit of the sum a subnormal's unit, 2^-24.
    uint32_t small = tl_bits_of (tl_float_of (magnitude) + 0.5f) - 0x3f000000u;
    uint32_t half = magnitude < 0x38800000u ? small : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half;
    half = magnitude > 0x7f800000u ? 0x7e00u | (magnitude >> 13 & 0x3ffu) : half;
    return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

static void
s_widen_half (float *out, const uint16_t *in, size_t count)
{
    size_t i = 0;
#ifdef __AVX512F__
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps (out + i, _mm512_cvtph_ps (_mm256_loadu_si256 ((const void *)(in + i))));
#elif defined __F16C__
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps (out + i, _mm256_cvtph_ps (_mm_loadu_si128 ((const void *)(in + i))));
#endif
    for (; i < count; i++)
        out[i] = tl_half_to_float (in[i]);
}

static void
s_narrow_half (uint16_t *out, const float *in, size_t count)
{
    size_t i = 0;
#ifdef __AVX512F__
    for (; i + 16 <= count; i += 16)
        _mm256_storeu_si256 ((void *)(out + i),
                             _mm512_cvtps_ph (_mm512_loadu_ps (in + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined __F16C__
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128 ((void *)(out + i),
                          _mm256_cvtps_ph (_mm256_loadu_ps (in + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < count; i++)
        out[i] = s_float_to_half (in[i]);
}

static void
s_widen_bfloat (float *restrict out, const uint16_t *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = tl_float_of ((uint32_t)in[i] << 16);
}

static void
s_narrow_bfloat (uint16_t *restrict out, const float *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = tl_bits_of (in[i]);
        uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
        uint32_t quiet = bits >> 16 | 0x40u;
        out[i] = (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
    }
}

void
TL_KERNEL (widen) (real_t *out, const void *in, tl_dtype_t dtype, size_t count)
{
    switch (dtype) {
    case TL_F16:
        s_widen_half (out, in, count);
        break;
    case TL_BF16:
        s_widen_bfloat (out, in, count);
        break;
    case TL_F32:
        memcpy (out, in, count * sizeof *out);
        break;
    default:
        TL_KERNEL (widen_blocks) (out, in, dtype, count);
    }
}

void
TL_KERNEL (narrow) (void *out, const float *in, tl_dtype_t dtype, size_t count)
{
    switch (dtype) {
    case TL_F16:
        s_narrow_half (out, in, count);
        break;
    case TL_BF16:
        s_narrow_bfloat (out, in, count);
        break;
    default:
        tl_assert (dtype == TL_F32);
        memcpy (out, in, count * sizeof *in);
    }
}

#endif
