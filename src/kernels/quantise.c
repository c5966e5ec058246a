/*  quantise: reals to GGUF's blocks q8_0, q4_0 and q4_1, to the bit as ggml's reference code and the Python
    package gguf do it, whatever the instruction set: compiled once, without fused arithmetic. Values must be
    finite; a block whose scale is beyond fp16 gets an infinite one, which the caller must notice.
    K-quants aren't written.                                                                        */

#include "kernels/kernels.h"
#include "kernels/blocks.h"
#include "assert.h"

#include <math.h>

static void
s_store_half (uint8_t to[2], float value)
{
    uint16_t half;
    tl_narrow (&half, &value, TL_F16, 1);
    to[0] = (uint8_t)(half & 255);
    to[1] = (uint8_t)(half >> 8);
}

static void
s_q8_0 (tl_q8_0_t *out, const float *in)
{
    float most = 0;
    for (size_t i = 0; i < 32; i++)
        most = fabsf (in[i]) > most ? fabsf (in[i]) : most;
    const float d = most / 127, inverse = d != 0 ? 1 / d : 0;
    s_store_half (out->d, d);
    for (size_t i = 0; i < 32; i++)
        out->q[i] = (int8_t)roundf (in[i] * inverse);
}

static inline uint8_t
s_nibble (float value)
{
    return value < 15 ? (uint8_t)value : 15;
}

static void
s_q4_0 (tl_q4_0_t *out, const float *in)
{
    float most = 0, extreme = 0; //  the value of largest size, with its sign
    for (size_t i = 0; i < 32; i++)
        if (fabsf (in[i]) > most) {
            most = fabsf (in[i]);
            extreme = in[i];
        }
    const float d = extreme / -8, inverse = d != 0 ? 1 / d : 0;
    s_store_half (out->d, d);
    for (size_t i = 0; i < 16; i++) {
        uint8_t low = s_nibble (in[i] * inverse + 8.5f);
        uint8_t high = s_nibble (in[16 + i] * inverse + 8.5f);
        out->q[i] = (uint8_t)(low | high << 4);
    }
}

static void
s_q4_1 (tl_q4_1_t *out, const float *in)
{
    float least = in[0], most = in[0];
    for (size_t i = 1; i < 32; i++) {
        least = in[i] < least ? in[i] : least;
        most = in[i] > most ? in[i] : most;
    }
    const float d = (most - least) / 15, inverse = d != 0 ? 1 / d : 0;
    s_store_half (out->d, d);
    s_store_half (out->m, least);
    for (size_t i = 0; i < 16; i++) {
        uint8_t low = s_nibble ((in[i] - least) * inverse + 0.5f);
        uint8_t high = s_nibble ((in[16 + i] - least) * inverse + 0.5f);
        out->q[i] = (uint8_t)(low | high << 4);
    }
}

void
tl_quantise (void *out, const float *in, tl_dtype_t dtype, size_t count)
{
    tl_assert (dtype == TL_Q8_0 || dtype == TL_Q4_0 || dtype == TL_Q4_1);
    tl_assert (count % 32 == 0);
    for (size_t b = 0; b < count / 32; b++)
        if (dtype == TL_Q8_0)
            s_q8_0 ((tl_q8_0_t *)out + b, in + 32 * b);
        else if (dtype == TL_Q4_0)
            s_q4_0 ((tl_q4_0_t *)out + b, in + 32 * b);
        else
            s_q4_1 ((tl_q4_1_t *)out + b, in + 32 * b);
}
