//  gguf_value: the types of metadata and what a value says; gguf.c has held every length against the file.

#include "gguf.h"

#include "assert.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size; //  bytes of an item; 0: it has its own length
} s_types[TL_GGUF_TYPES] = {
    [TL_GGUF_U8] = {"uint8", 1},    [TL_GGUF_I8] = {"int8", 1},    [TL_GGUF_U16] = {"uint16", 2},
    [TL_GGUF_I16] = {"int16", 2},   [TL_GGUF_U32] = {"uint32", 4}, [TL_GGUF_I32] = {"int32", 4},
    [TL_GGUF_F32] = {"float32", 4}, [TL_GGUF_BOOL] = {"bool", 1},  [TL_GGUF_TEXT] = {"string", 0},
    [TL_GGUF_ARRAY] = {"array", 0}, [TL_GGUF_U64] = {"uint64", 8}, [TL_GGUF_I64] = {"int64", 8},
    [TL_GGUF_F64] = {"float64", 8},
};

const char *
tl_gguf_type_name (tl_gguf_type_t type)
{
    tl_assert (type < TL_GGUF_TYPES);
    return s_types[type].name;
}

size_t
tl_gguf_type_size (tl_gguf_type_t type)
{
    tl_assert (type < TL_GGUF_TYPES);
    return s_types[type].size;
}

uint64_t
tl_gguf_little (const unsigned char *at, size_t bytes)
{
    uint64_t number = 0;
    for (size_t i = bytes; i-- > 0;)
        number = number << 8 | at[i];
    return number;
}

bool
tl_gguf_text (const tl_gguf_value_t *value, size_t index, tl_gguf_text_t *out)
{
    if (!value || value->type != TL_GGUF_TEXT || index >= value->count)
        return false;
    const unsigned char *at = value->data + value->places[index];
    *out = (tl_gguf_text_t){(const char *)at + 8, (size_t)tl_gguf_little (at, 8)};
    return true;
}

bool
tl_gguf_text_is (tl_gguf_text_t text, const char *literal)
{
    return text.size == strlen (literal) && memcmp (text.data, literal, text.size) == 0;
}

bool
tl_gguf_integer (const tl_gguf_value_t *value, size_t index, int64_t *out)
{
    if (!value || index >= value->count)
        return false;
    size_t size = s_types[value->type].size;
    uint64_t bits = tl_gguf_little (value->data + index * size, size);
    switch (value->type) {
    case TL_GGUF_U8:
    case TL_GGUF_U16:
    case TL_GGUF_U32:
    case TL_GGUF_U64:
        if (bits > INT64_MAX)
            return false;
        *out = (int64_t)bits;
        return true;
    case TL_GGUF_I8:
        *out = (int8_t)bits;
        return true;
    case TL_GGUF_I16:
        *out = (int16_t)bits;
        return true;
    case TL_GGUF_I32:
        *out = (int32_t)bits;
        return true;
    case TL_GGUF_I64:
        *out = (int64_t)bits;
        return true;
    default:
        return false;
    }
}

bool
tl_gguf_real (const tl_gguf_value_t *value, size_t index, double *out)
{
    int64_t whole = 0;
    if (tl_gguf_integer (value, index, &whole)) {
        *out = (double)whole;
        return true;
    }
    if (!value || index >= value->count)
        return false;
    if (value->type == TL_GGUF_F32) {
        float single;
        memcpy (&single, value->data + 4 * index, sizeof single);
        *out = single;
        return true;
    }
    if (value->type == TL_GGUF_F64) {
        memcpy (out, value->data + 8 * index, sizeof *out);
        return true;
    }
    return false;
}

bool
tl_gguf_flag (const tl_gguf_value_t *value, size_t index, bool *out)
{
    if (!value || value->type != TL_GGUF_BOOL || index >= value->count)
        return false;
    *out = value->data[index] == 1;
    return true;
}
