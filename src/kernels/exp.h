/*  exp: e^x as a straight line of arithmetic, so that loops over it vectorise. Float: at most 2 ulp
    from the exact value wherever the result is normal (tests/unit/test_kernels_exp.c sweeps it), 0
    below -104, infinity above 88.73, NaN for NaN. Double, used by tests only, is libm's.           */

#ifndef TL_KERNELS_EXP_H
#define TL_KERNELS_EXP_H

#include "kernels/loops.h"

#ifdef TL_IN_DOUBLE

static inline double
tl_exp (double x)
{
    return exp (x);
}

#else

static inline float
tl_float_of (uint32_t bits)
{
    float value;
    memcpy (&value, &bits, sizeof value);
    return value;
}

static inline uint32_t
tl_bits_of (float value)
{
    uint32_t bits;
    memcpy (&bits, &value, sizeof bits);
    return bits;
}

static inline float
tl_exp (float x)
{
    //  x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer and leaves it in
    //  the low bits. Both comparisons are false for NaN, which then runs through.
    const float magic = 0x1.8p23f;
    x = x > 89 ? 89 : x;
    x = x < -104 ? -104 : x;
    float shifted = x * 0x1.715476p0f + magic;
    float n = shifted - magic;
    //  ln 2 in two parts; n times the first one is exact.
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1;
    //  2^n as two factors, so that results below 2^-126 and the step to infinity come out right.
    int32_t power = (int32_t)(tl_bits_of (shifted) - 0x4b400000u);
    int32_t half = power >> 1;
    float first = tl_float_of (((uint32_t)half + 127u) << 23);
    float second = tl_float_of (((uint32_t)(power - half) + 127u) << 23);
    return p * first * second;
}

#endif

//  1 / (1 + e^-x)
static inline real_t
tl_sigmoid (real_t x)
{
    return 1 / (1 + tl_exp (-x));
}

#endif
