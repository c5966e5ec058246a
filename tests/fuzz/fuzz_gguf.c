/*  Any bytes as a GGUF file: refused with a sentence, or every key and tensor can be read to its last byte, its metadata
    are a model's or refused with a sentence, and of a model every tensor has its shape or is refused.  */

#include "model/gguf.h"

#include "assert.h"
#include "log.h"
#include "memory.h"
#include "model/gguf_config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static volatile unsigned s_sink;

static unsigned
s_bytes (const void *data, size_t size)
{
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += ((const unsigned char *)data)[i];
    return sum;
}

static unsigned
s_value (const tl_gguf_t *gguf, const tl_gguf_value_t *value)
{
    unsigned sum = 0;
    tl_assert (tl_gguf_find (gguf, value->key) == value);
    tl_assert (value->type < TL_GGUF_TYPES && value->type != TL_GGUF_ARRAY);
    for (size_t i = 0; i < value->count; i++) {
        tl_gguf_text_t text;
        int64_t whole = 0;
        double real = 0;
        bool flag = false;
        if (tl_gguf_text (value, i, &text))
            sum += s_bytes (text.data, text.size);
        else if (!tl_gguf_flag (value, i, &flag) && !tl_gguf_real (value, i, &real))
            tl_assert (value->type == TL_GGUF_U64); //  beyond what is read
        sum += tl_gguf_integer (value, i, &whole) ? (unsigned)whole : flag;
    }
    tl_assert (!tl_gguf_text (value, value->count, &(tl_gguf_text_t){0}));
    return sum;
}

static unsigned
s_tensor (const tl_gguf_t *gguf, const tl_gguf_tensor_t *tensor)
{
    size_t count = 1, block = tl_dtype_block (tensor->dtype), row = tensor->bytes;
    tl_assert (tl_gguf_find_tensor (gguf, tensor->name) == tensor);
    for (size_t i = 0; i < tensor->dimensions; i++)
        count *= tensor->shape[i];
    tl_assert (tl_dtype_bytes (tensor->dtype, count) == tensor->bytes);
    float *values = tl_alloc_aligned (block * sizeof *values);
    unsigned sum = s_bytes (tensor->data, tensor->bytes);
    row = tl_dtype_bytes (tensor->dtype, block);
    for (size_t at = 0; at < tensor->bytes; at += row)
        tl_widen (values, (const char *)tensor->data + at, tensor->dtype, block);
    free (values);
    return sum;
}

static unsigned
s_model (const tl_gguf_t *gguf)
{
    tl_error_t err = {TL_OK, ""};
    tl_config_t config;
    const float *factors = NULL;
    unsigned sum = 0;
    int rc = tl_gguf_config (gguf, &config, &err);
    if (rc == 0)
        rc = tl_gguf_rope_factors (gguf, &config, &factors, &err);
    if (rc == 0 && factors)
        sum += s_bytes (factors, config.turned / 2 * sizeof *factors);
    for (size_t i = 0; rc == 0 && i < tl_layout_count (&config); i++) {
        tl_slot_t slot;
        tl_weight_t weight;
        tl_layout_at (&config, i, &slot);
        rc = tl_gguf_weight (gguf, slot.name, slot.rows, slot.columns, &weight, &err);
        if (rc == 0)
            sum += s_bytes (weight.data, tl_dtype_bytes (weight.dtype, slot.rows * slot.columns));
    }
    if (rc == 0)
        rc = tl_gguf_check_strays (gguf, &config, &err);
    tl_assert (rc == 0 || (err.code == TL_BAD_INPUT && strlen (err.text) > 20));
    return sum;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_error_t err = {TL_OK, ""};
    tl_log_level (TL_LOG_ERROR);
    tl_gguf_t *gguf = tl_gguf_parse ("input", data, size, &err);
    if (!gguf) {
        tl_assert (err.code == TL_BAD_INPUT && strlen (err.text) > 20);
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < tl_gguf_keys (gguf); i++)
        sum += s_value (gguf, tl_gguf_key (gguf, i));
    for (size_t i = 0; i < tl_gguf_tensors (gguf); i++)
        sum += s_tensor (gguf, tl_gguf_tensor (gguf, i));
    sum += s_model (gguf);
    tl_gguf_destroy (&gguf);
    s_sink = sum;
    return 0;
}
