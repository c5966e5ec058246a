/*  rope: rotary tables. Frequencies are made the way the families' own code makes them (fp32 powers;
    ChatGLM-6B rounds them to fp16), angles, cosines and sines in fp32. Tables by position are kept
    and grow; a micro's rows are gathered from them.                                                */

#include "model/segment.h"

#include "memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

//  llama3 scaling by wavelength: short ones stay, long ones are divided, a blend between.
static float
s_llama3 (const tl_config_t *config, float frequency)
{
    float factor = (float)config->rope_factor, low = (float)config->rope_low;
    float high = (float)config->rope_high, old = (float)config->rope_original;
    float wavelength = 2 * 3.14159265358979323846f / frequency;
    if (wavelength < old / high)
        return frequency;
    if (wavelength > old / low)
        return frequency / factor;
    float smooth = (old / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
}

void
tl_rope_init (tl_rope_table_t *self, const tl_config_t *config, const float *factors)
{
    tl_shape_t shape = tl_shape_of (config);
    size_t turned = shape.rope_2d ? config->turned / 2 : config->turned;
    memset (self, 0, sizeof *self);
    self->half = turned / 2;
    self->frequency = tl_alloc (self->half * sizeof (float));
    for (size_t i = 0; i < self->half; i++) {
        float exponent = (float)(2 * i) / (float)turned;
        float frequency = 1.0f / powf ((float)config->rope_base, exponent);
        if (shape.rope_fp16) {
            uint16_t rounded;
            tl_narrow (&rounded, &frequency, TL_F16, 1);
            tl_widen (&frequency, &rounded, TL_F16, 1);
        }
        if (config->rope_llama3)
            frequency = s_llama3 (config, frequency);
        self->frequency[i] = factors ? frequency / factors[i] : frequency;
    }
}

void
tl_rope_free (tl_rope_table_t *self)
{
    free (self->frequency);
    free (self->cosine);
    free (self->sine);
    memset (self, 0, sizeof *self);
}

static void
s_grow (tl_rope_table_t *self, size_t positions)
{
    if (positions <= self->positions)
        return;
    size_t count = self->positions ? self->positions : 64;
    while (count < positions)
        count *= 2;
    float *cosine = tl_alloc_aligned (count * self->half * sizeof (float));
    float *sine = tl_alloc_aligned (count * self->half * sizeof (float));
    for (size_t position = 0; position < count; position++)
        for (size_t i = 0; i < self->half; i++) {
            float angle = (float)position * self->frequency[i];
            cosine[position * self->half + i] = cosf (angle);
            sine[position * self->half + i] = sinf (angle);
        }
    free (self->cosine);
    free (self->sine);
    self->cosine = cosine;
    self->sine = sine;
    self->positions = count;
}

void
tl_rope_position (const tl_config_t *config, uint32_t context, uint32_t mask, size_t row,
                  size_t *position, size_t *block_position)
{
    bool answer = tl_shape_of (config).rope_2d && row >= context;
    *position = answer ? mask : row;
    *block_position = answer ? row - context + 1 : 0;
}

void
tl_rope_rows (tl_rope_table_t *self, const tl_config_t *config, uint32_t context, uint32_t mask,
              size_t first, size_t count, float *const cosine[2], float *const sine[2])
{
    s_grow (self, first + count > mask ? first + count + 1 : (size_t)mask + 1);
    size_t half = self->half;
    for (size_t row = 0; row < count; row++) {
        size_t position[2];
        tl_rope_position (config, context, mask, first + row, &position[0], &position[1]);
        for (size_t which = 0; which < 2 && cosine[which]; which++) {
            size_t from = position[which] * half, to = row * half;
            memcpy (cosine[which] + to, self->cosine + from, half * sizeof (float));
            memcpy (sine[which] + to, self->sine + from, half * sizeof (float));
        }
    }
}
