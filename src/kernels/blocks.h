/*  blocks: GGUF's quantised blocks as they lie in a file, for the loops that read them (quant.c, linear_rows.c)
    and the one that writes them (quantise.c). All fields are bytes: a block lies wherever the one before it
    ended. A value is d q (q8_0, q4_0 with q - 8, q6_k with q - 32), d q + m (q4_1) or d q - m (q4_k, q5_k). */

#ifndef TL_KERNELS_BLOCKS_H
#define TL_KERNELS_BLOCKS_H

#include "kernels/kernels.h"

#ifdef __F16C__
#include <immintrin.h>
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    uint8_t d[2];
    int8_t q[32];
} tl_q8_0_t;

typedef struct {
    uint8_t d[2];
    uint8_t q[16]; //  low nibbles are values 0 .. 15, high ones 16 .. 31
} tl_q4_0_t;

typedef struct {
    uint8_t d[2], m[2];
    uint8_t q[16];
} tl_q4_1_t;

typedef struct {
    uint8_t d[2], dmin[2];
    uint8_t scales[12]; //  8 scales and 8 minima of 6 bits
    uint8_t q[128];     //  32 at a time: low nibbles are 32 values, high ones the next 32
} tl_q4_k_t;

typedef struct {
    uint8_t d[2], dmin[2];
    uint8_t scales[12];
    uint8_t high[32]; //  bit g of byte i: fifth bit of value i of group g
    uint8_t q[128];
} tl_q5_k_t;

typedef struct {
    uint8_t low[128]; //  64 at a time: low nibbles are 64 values, high ones the next 64
    uint8_t high[64]; //  32 at a time: four values' upper two bits a byte
    int8_t scales[16];
    uint8_t d[2];
} tl_q6_k_t;

_Static_assert(sizeof (tl_q8_0_t) == 34 && sizeof (tl_q4_0_t) == 18 && sizeof (tl_q4_1_t) == 20 &&
                   sizeof (tl_q4_k_t) == 144 && sizeof (tl_q5_k_t) == 176 &&
                   sizeof (tl_q6_k_t) == 210,
               "blocks have the sizes that the format says");

//  An fp16 as a float, exact.
static inline float
tl_half_to_float (uint16_t half)
{
#ifdef __F16C__
    return _mm_cvtss_f32 (_mm_cvtph_ps (_mm_cvtsi32_si128 (half)));
#else
    //  The exponent moves into place by a product, which also makes subnormals normal.
    uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13, bits;
    float value;
    memcpy (&value, &magnitude, sizeof value);
    value *= 0x1p112f;
    memcpy (&bits, &value, sizeof bits);
    bits |= magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    bits |= magnitude > 0x0f800000u ? 0x00400000u : 0;
    bits |= (uint32_t)(half & 0x8000) << 16;
    memcpy (&value, &bits, sizeof value);
    return value;
#endif
}

//  A block's fp16 scale.
static inline float
tl_block_half (const uint8_t bytes[2])
{
    return tl_half_to_float ((uint16_t)(bytes[0] | bytes[1] << 8));
}

//  q4_k, q5_k: scale and minimum, 0 .. 63, of group g of 8; to be multiplied by d and dmin.
static inline void
tl_block_scale (const uint8_t scales[12], size_t g, unsigned *scale, unsigned *minimum)
{
    if (g < 4) {
        *scale = scales[g] & 63;
        *minimum = scales[g + 4] & 63;
    } else {
        *scale = (scales[g + 4] & 15) | (scales[g - 4] >> 6) << 4;
        *minimum = scales[g + 4] >> 4 | (scales[g] >> 6) << 4;
    }
}

//  quantise.c: tl_narrow to q8_0, q4_0 and q4_1.
void tl_quantise (void *out, const float *in, tl_dtype_t dtype, size_t count);

#endif
