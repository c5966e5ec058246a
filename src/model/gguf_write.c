//  gguf_write: the header grows in memory; tensors go through.

#include "gguf_write.h"

#include "assert.h"
#include "file.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 };

typedef struct {
    char *data;
    size_t size, room;
} s_buffer_t;

typedef struct {
    char *name;
    tl_dtype_t dtype;
    size_t shape[TL_GGUF_DIMENSIONS], dimensions;
    size_t begin, bytes; //  in the data
} s_tensor_t;

struct tl_gguf_writer {
    s_buffer_t values; //  metadata as they will stand in the file
    char **keys;       //  [key_count]
    size_t key_count;
    s_tensor_t *tensors; //  [tensor_count]
    size_t tensor_count;
    size_t data_size; //  of all tensors with padding
    tl_writer_t file;
    size_t tensor, done; //  the tensor being written and how much of it
};

//  ---------------------------------------------------------------------------------------------
//  The header's bytes

static void
s_put (s_buffer_t *self, const void *data, size_t size)
{
    if (self->size + size > self->room) {
        self->room = 2 * (self->size + size) + 4096;
        char *larger = tl_alloc (self->room);
        if (self->size)
            memcpy (larger, self->data, self->size);
        free (self->data);
        self->data = larger;
    }
    if (size)
        memcpy (self->data + self->size, data, size);
    self->size += size;
}

static void
s_put_little (s_buffer_t *self, uint64_t number, size_t bytes)
{
    unsigned char little[8];
    for (size_t i = 0; i < bytes; i++)
        little[i] = (unsigned char)(number >> 8 * i);
    s_put (self, little, bytes);
}

static void
s_put_text (s_buffer_t *self, const char *text, size_t size)
{
    s_put_little (self, size, 8);
    s_put (self, text, size);
}

static void
s_put_key (tl_gguf_writer_t *self, const char *key, tl_gguf_type_t type)
{
    tl_assert (self->file.fd < 0 && !tl_gguf_has_key (self, key));
    char **keys = tl_alloc ((self->key_count + 1) * sizeof *keys);
    if (self->key_count)
        memcpy (keys, self->keys, self->key_count * sizeof *keys);
    free (self->keys);
    self->keys = keys;
    self->keys[self->key_count++] = tl_strdup (key);
    s_put_text (&self->values, key, strlen (key));
    s_put_little (&self->values, type, 4);
}

static void
s_put_array (tl_gguf_writer_t *self, const char *key, tl_gguf_type_t type, size_t count)
{
    s_put_key (self, key, TL_GGUF_ARRAY);
    s_put_little (&self->values, type, 4);
    s_put_little (&self->values, count, 8);
}

//  ---------------------------------------------------------------------------------------------

tl_gguf_writer_t *
tl_gguf_writer_new (void)
{
    tl_gguf_writer_t *self = tl_alloc (sizeof *self);
    self->file.fd = -1;
    return self;
}

void
tl_gguf_writer_destroy (tl_gguf_writer_t **self_p)
{
    tl_gguf_writer_t *self = *self_p;
    if (!self)
        return;
    tl_writer_drop (&self->file);
    for (size_t i = 0; i < self->key_count; i++)
        free (self->keys[i]);
    for (size_t i = 0; i < self->tensor_count; i++)
        free (self->tensors[i].name);
    free (self->keys);
    free (self->tensors);
    free (self->values.data);
    free (self);
    *self_p = NULL;
}

bool
tl_gguf_has_key (const tl_gguf_writer_t *self, const char *key)
{
    for (size_t i = 0; i < self->key_count; i++)
        if (strcmp (self->keys[i], key) == 0)
            return true;
    return false;
}

void
tl_gguf_put_bytes (tl_gguf_writer_t *self, const char *key, const char *text, size_t size)
{
    s_put_key (self, key, TL_GGUF_TEXT);
    s_put_text (&self->values, text, size);
}

void
tl_gguf_put_text (tl_gguf_writer_t *self, const char *key, const char *text)
{
    tl_gguf_put_bytes (self, key, text, strlen (text));
}

void
tl_gguf_put_flag (tl_gguf_writer_t *self, const char *key, bool value)
{
    s_put_key (self, key, TL_GGUF_BOOL);
    s_put_little (&self->values, value, 1);
}

void
tl_gguf_put_number (tl_gguf_writer_t *self, const char *key, tl_gguf_type_t type, double value)
{
    static const size_t sizes[TL_GGUF_TYPES] = {
        [TL_GGUF_U8] = 1,  [TL_GGUF_I8] = 1,  [TL_GGUF_U16] = 2, [TL_GGUF_I16] = 2,
        [TL_GGUF_U32] = 4, [TL_GGUF_I32] = 4, [TL_GGUF_U64] = 8, [TL_GGUF_I64] = 8};
    s_put_key (self, key, type);
    if (type == TL_GGUF_F32) {
        float single = (float)value;
        s_put (&self->values, &single, sizeof single);
    } else if (type == TL_GGUF_F64)
        s_put (&self->values, &value, sizeof value);
    else {
        tl_assert (sizes[type] > 0 && value == (double)(int64_t)value);
        s_put_little (&self->values, (uint64_t)(int64_t)value, sizes[type]);
    }
}

void
tl_gguf_put_texts (tl_gguf_writer_t *self, const char *key, const tl_gguf_text_t *texts,
                   size_t count)
{
    s_put_array (self, key, TL_GGUF_TEXT, count);
    for (size_t i = 0; i < count; i++)
        s_put_text (&self->values, texts[i].data, texts[i].size);
}

void
tl_gguf_put_int32s (tl_gguf_writer_t *self, const char *key, const int32_t *values, size_t count)
{
    s_put_array (self, key, TL_GGUF_I32, count);
    s_put (&self->values, values, count * sizeof *values);
}

void
tl_gguf_put_floats (tl_gguf_writer_t *self, const char *key, const float *values, size_t count)
{
    s_put_array (self, key, TL_GGUF_F32, count);
    s_put (&self->values, values, count * sizeof *values);
}

void
tl_gguf_put_value (tl_gguf_writer_t *self, const tl_gguf_value_t *value)
{
    if (value->array)
        s_put_array (self, value->key, value->type, value->count);
    else
        s_put_key (self, value->key, value->type);
    s_put (&self->values, value->data, value->bytes);
}

void
tl_gguf_announce (tl_gguf_writer_t *self, const char *name, tl_dtype_t dtype, const size_t *shape,
                  size_t dimensions)
{
    tl_assert (self->file.fd < 0 && dimensions >= 1 && dimensions <= TL_GGUF_DIMENSIONS);
    s_tensor_t *tensors = tl_alloc ((self->tensor_count + 1) * sizeof *tensors);
    if (self->tensor_count)
        memcpy (tensors, self->tensors, self->tensor_count * sizeof *tensors);
    free (self->tensors);
    self->tensors = tensors;
    s_tensor_t *tensor = &self->tensors[self->tensor_count++];
    *tensor = (s_tensor_t){.name = tl_strdup (name), .dtype = dtype, .dimensions = dimensions};
    size_t count = 1;
    for (size_t i = 0; i < dimensions; i++) {
        tensor->shape[i] = shape[i];
        count *= shape[i];
    }
    tl_assert (shape[dimensions - 1] % tl_dtype_block (dtype) == 0);
    tensor->begin = self->data_size;
    tensor->bytes = tl_dtype_bytes (dtype, count);
    self->data_size += (tensor->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static int
s_pad (tl_gguf_writer_t *self, size_t size, tl_error_t *err)
{
    static const char zeros[ALIGNMENT];
    return tl_writer_add (&self->file, zeros, (ALIGNMENT - size % ALIGNMENT) % ALIGNMENT, err);
}

int
tl_gguf_writer_begin (tl_gguf_writer_t *self, const char *path, int mode, tl_error_t *err)
{
    s_buffer_t header = {NULL, 0, 0};
    s_put (&header, "GGUF", 4);
    s_put_little (&header, 3, 4);
    s_put_little (&header, self->tensor_count, 8);
    s_put_little (&header, self->key_count, 8);
    s_put (&header, self->values.data, self->values.size);
    for (size_t i = 0; i < self->tensor_count; i++) {
        const s_tensor_t *tensor = &self->tensors[i];
        s_put_text (&header, tensor->name, strlen (tensor->name));
        s_put_little (&header, tensor->dimensions, 4);
        for (size_t d = tensor->dimensions; d-- > 0;)
            s_put_little (&header, tensor->shape[d], 8);
        s_put_little (&header, tl_gguf_type_of (tensor->dtype), 4);
        s_put_little (&header, tensor->begin, 8);
    }
    int rc = tl_writer_open (&self->file, path, mode, err);
    if (rc == 0)
        rc = tl_writer_add (&self->file, header.data, header.size, err);
    if (rc == 0)
        rc = s_pad (self, header.size, err);
    free (header.data);
    return rc;
}

int
tl_gguf_writer_add (tl_gguf_writer_t *self, const void *data, size_t size, tl_error_t *err)
{
    const char *from = data;
    while (size > 0) {
        tl_assert (self->tensor < self->tensor_count);
        const s_tensor_t *tensor = &self->tensors[self->tensor];
        size_t left = tensor->bytes - self->done, piece = size < left ? size : left;
        if (tl_writer_add (&self->file, from, piece, err) != 0)
            return -1;
        from += piece;
        size -= piece;
        self->done += piece;
        if (self->done < tensor->bytes)
            continue;
        self->tensor++;
        self->done = 0;
        if (s_pad (self, tensor->bytes, err) != 0)
            return -1;
    }
    return 0;
}

int
tl_gguf_writer_finish (tl_gguf_writer_t *self, tl_error_t *err)
{
    tl_assert (self->tensor == self->tensor_count);
    return tl_writer_commit (&self->file, err);
}
