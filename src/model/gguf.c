//  gguf: a cursor over the header, then every count, length and place held against what is there. What a value says is
//  gguf_value.c.

#include "gguf.h"

#include "assert.h"
#include "file.h"
#include "memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

//  Published files have some 40 keys and a few thousand tensors.
enum {
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 17,
    MAX_NAME = 256,
    MAX_ALIGNMENT = 1 << 20,
    ALIGNMENT = 32, //  where general.alignment doesn't say otherwise
    LEAST_KEY = 8 + 1 + 4 + 1,
    LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8
};

typedef struct {
    tl_gguf_tensor_t public;
    uint64_t begin; //  offset in the data
} entry_t;

struct tl_gguf {
    char *path;
    tl_map_t map;            //  empty when parsed from memory
    tl_gguf_value_t *values; //  [value_count]
    size_t value_count;
    entry_t *tensors; //  [tensor_count]
    size_t tensor_count;
    const tl_gguf_value_t **by_key; //  [value_count], sorted
    const entry_t **by_name;        //  [tensor_count], sorted
};

//  The header's bytes that are still to be read.
typedef struct {
    const char *path; //  for messages
    const unsigned char *at;
    size_t left;
    tl_error_t *err;
} cursor_t;

//  The format's numbers of tensor types; those that can't be read are here for the message.
static const char *const s_tensor_types[] = {
    "F32",     "F16",   "Q4_0",   "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
    "Q8_1",    "Q2_K",  "Q3_K",   "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
    "I64",     "F64",   "IQ1_M",  "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
};

static const uint32_t s_numbers[TL_DTYPES] = {
    [TL_F32] = 0,  [TL_F16] = 1,   [TL_BF16] = 30, [TL_Q8_0] = 8,  [TL_Q4_0] = 2,
    [TL_Q4_1] = 3, [TL_Q4_K] = 12, [TL_Q5_K] = 13, [TL_Q6_K] = 14,
};

uint32_t
tl_gguf_type_of (tl_dtype_t dtype)
{
    tl_assert (dtype < TL_DTYPES);
    return s_numbers[dtype];
}

//  ---------------------------------------------------------------------------------------------
//  Cursor

//  The next size bytes, NULL and a sentence when the file ends before.
static const unsigned char *
s_take (cursor_t *self, uint64_t size, const char *what)
{
    if (size > self->left) {
        tl_fail (self->err, TL_BAD_INPUT,
                 "%s: %s should have %" PRIu64
                 " bytes but the file ends after %zu: it is truncated "
                 "or damaged; fetch it again",
                 self->path, what, size, self->left);
        return NULL;
    }
    const unsigned char *at = self->at;
    self->at += size;
    self->left -= (size_t)size;
    return at;
}

static int
s_number (cursor_t *self, size_t bytes, const char *what, uint64_t *number)
{
    const unsigned char *at = s_take (self, bytes, what);
    if (!at)
        return -1;
    *number = tl_gguf_little (at, bytes);
    return 0;
}

//  A key or a tensor's name, copied; NULL and a sentence when it isn't one.
static char *
s_name (cursor_t *self, const char *what)
{
    uint64_t size = 0;
    if (s_number (self, 8, what, &size) != 0)
        return NULL;
    if (size == 0 || size > MAX_NAME) {
        tl_fail (self->err, TL_BAD_INPUT,
                 "%s: %s has %" PRIu64
                 " bytes, expected 1 to %d; the file is damaged, fetch it again",
                 self->path, what, size, MAX_NAME);
        return NULL;
    }
    const unsigned char *at = s_take (self, size, what);
    if (!at)
        return NULL;
    for (size_t i = 0; i < size; i++)
        if (at[i] < 0x20 || at[i] > 0x7e) {
            tl_fail (self->err, TL_BAD_INPUT,
                     "%s: byte %zu of %s is 0x%02x, no part of a name; the file is damaged, fetch "
                     "it again",
                     self->path, i, what, at[i]);
            return NULL;
        }
    char *name = tl_alloc ((size_t)size + 1);
    memcpy (name, at, (size_t)size);
    return name;
}

//  ---------------------------------------------------------------------------------------------
//  Metadata

//  Walks over an array's texts and notes where each lies.
static int
s_read_texts (cursor_t *self, tl_gguf_value_t *value)
{
    if (value->count > self->left / 8)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: %s is said to hold %zu strings but only %zu bytes follow; the file is "
                        "damaged, fetch it again",
                        self->path, value->key, value->count, self->left);
    uint64_t *places = tl_alloc ((value->count + 1) * sizeof *places);
    value->places = places;
    for (size_t i = 0; i < value->count; i++) {
        uint64_t size = 0;
        places[i] = (uint64_t)(self->at - value->data);
        if (s_number (self, 8, value->key, &size) != 0 || !s_take (self, size, value->key))
            return -1;
    }
    return 0;
}

static int
s_read_items (cursor_t *self, tl_gguf_value_t *value)
{
    value->data = self->at;
    if (value->type == TL_GGUF_TEXT)
        return s_read_texts (self, value);
    size_t size = tl_gguf_type_size (value->type);
    if (value->count > self->left / size)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: %s is said to hold %zu values of %s but only %zu bytes follow; the "
                        "file is damaged, fetch it again",
                        self->path, value->key, value->count, tl_gguf_type_name (value->type),
                        self->left);
    s_take (self, value->count * size, value->key);
    for (size_t i = 0; value->type == TL_GGUF_BOOL && i < value->count; i++)
        if (value->data[i] > 1)
            return tl_fail (self->err, TL_BAD_INPUT,
                            "%s: %s is a bool of value %u, expected 0 or 1; the file is damaged, "
                            "fetch it again",
                            self->path, value->key, value->data[i]);
    return 0;
}

static int
s_read_value (cursor_t *self, tl_gguf_value_t *value)
{
    uint64_t type = 0, count = 1;
    if (s_number (self, 4, value->key, &type) != 0)
        return -1;
    value->array = type == TL_GGUF_ARRAY;
    if (value->array &&
        (s_number (self, 4, value->key, &type) != 0 || s_number (self, 8, value->key, &count) != 0))
        return -1;
    if (value->array && type == TL_GGUF_ARRAY)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: %s is an array of arrays, which this version doesn't read; take the "
                        "key out or convert the model again",
                        self->path, value->key);
    if (type >= TL_GGUF_TYPES)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: %s has type number %" PRIu64
                        ", expected 0 to %d; the file is damaged, "
                        "fetch it again",
                        self->path, value->key, type, TL_GGUF_TYPES - 1);
    value->type = (tl_gguf_type_t)type;
    value->count = (size_t)count;
    int rc = s_read_items (self, value);
    value->bytes = (size_t)(self->at - value->data);
    return rc;
}

static int
s_by_key (const void *a, const void *b)
{
    return strcmp ((*(const tl_gguf_value_t *const *)a)->key,
                   (*(const tl_gguf_value_t *const *)b)->key);
}

static int
s_read_values (tl_gguf_t *self, cursor_t *cursor, size_t count)
{
    self->values = tl_alloc ((count + 1) * sizeof *self->values);
    self->by_key = tl_alloc ((count + 1) * sizeof *self->by_key);
    for (size_t i = 0; i < count; i++) {
        tl_gguf_value_t *value = &self->values[i];
        value->key = s_name (cursor, "a metadata key");
        if (!value->key)
            return -1;
        self->by_key[self->value_count++] = value;
        if (s_read_value (cursor, value) != 0)
            return -1;
    }
    qsort (self->by_key, count, sizeof *self->by_key, s_by_key);
    for (size_t i = 1; i < count; i++)
        if (strcmp (self->by_key[i - 1]->key, self->by_key[i]->key) == 0)
            return tl_fail (cursor->err, TL_BAD_INPUT,
                            "%s: the key %s comes twice; the file is damaged, fetch it again",
                            self->path, self->by_key[i]->key);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Tensors

static int
s_read_dtype (cursor_t *cursor, tl_gguf_tensor_t *tensor)
{
    uint64_t number = 0;
    if (s_number (cursor, 4, tensor->name, &number) != 0)
        return -1;
    for (size_t i = 0; i < TL_DTYPES; i++)
        if (s_numbers[i] == number) {
            tensor->dtype = (tl_dtype_t)i;
            return 0;
        }
    const size_t known = sizeof s_tensor_types / sizeof *s_tensor_types;
    return tl_fail (cursor->err, TL_BAD_INPUT,
                    "%s: tensor %s has type %s (%" PRIu64 "), this version reads F32, F16, BF16, "
                    "Q8_0, Q4_0, Q4_1, Q4_K, Q5_K and Q6_K; take the model in one of those",
                    cursor->path, tensor->name, number < known ? s_tensor_types[number] : "unknown",
                    number);
}

//  Shape as the file has it (row length first), turned round.
static int
s_read_shape (cursor_t *cursor, tl_gguf_tensor_t *tensor, uint64_t *values)
{
    uint64_t dimensions = 0;
    if (s_number (cursor, 4, tensor->name, &dimensions) != 0)
        return -1;
    if (dimensions < 1 || dimensions > TL_GGUF_DIMENSIONS)
        return tl_fail (cursor->err, TL_BAD_INPUT,
                        "%s: tensor %s has %" PRIu64 " dimensions, expected 1 to %d; the file is "
                        "damaged, fetch it again",
                        cursor->path, tensor->name, dimensions, TL_GGUF_DIMENSIONS);
    tensor->dimensions = (size_t)dimensions;
    *values = 1;
    for (size_t i = tensor->dimensions; i-- > 0;) {
        uint64_t size = 0;
        if (s_number (cursor, 8, tensor->name, &size) != 0)
            return -1;
        if (size == 0 || size > INT64_MAX || __builtin_mul_overflow (*values, size, values) ||
            *values > INT64_MAX / 4)
            return tl_fail (cursor->err, TL_BAD_INPUT,
                            "%s: tensor %s: size %" PRIu64
                            " of its shape is zero or too large; the "
                            "file is damaged, fetch it again",
                            cursor->path, tensor->name, size);
        tensor->shape[i] = (size_t)size;
    }
    return 0;
}

static int
s_read_tensor (cursor_t *cursor, entry_t *entry)
{
    tl_gguf_tensor_t *tensor = &entry->public;
    uint64_t values = 0;
    if (s_read_shape (cursor, tensor, &values) != 0 || s_read_dtype (cursor, tensor) != 0 ||
        s_number (cursor, 8, tensor->name, &entry->begin) != 0)
        return -1;
    size_t row = tensor->shape[tensor->dimensions - 1], block = tl_dtype_block (tensor->dtype);
    if (row % block != 0)
        return tl_fail (
            cursor->err, TL_BAD_INPUT,
            "%s: tensor %s has rows of %zu values, which blocks of %zu (%s) don't fill; "
            "the file is damaged, fetch it again",
            cursor->path, tensor->name, row, block, tl_dtype_name (tensor->dtype));
    tensor->bytes = tl_dtype_bytes (tensor->dtype, (size_t)values);
    return 0;
}

static int
s_by_name (const void *a, const void *b)
{
    return strcmp ((*(const entry_t *const *)a)->public.name,
                   (*(const entry_t *const *)b)->public.name);
}

static int
s_by_place (const void *a, const void *b)
{
    const entry_t *one = *(const entry_t *const *)a, *two = *(const entry_t *const *)b;
    return one->begin < two->begin ? -1 : one->begin > two->begin;
}

static int
s_read_tensors (tl_gguf_t *self, cursor_t *cursor, size_t count)
{
    self->tensors = tl_alloc ((count + 1) * sizeof *self->tensors);
    self->by_name = tl_alloc ((count + 1) * sizeof *self->by_name);
    for (size_t i = 0; i < count; i++) {
        entry_t *entry = &self->tensors[i];
        entry->public.name = s_name (cursor, "a tensor's name");
        if (!entry->public.name)
            return -1;
        self->by_name[self->tensor_count++] = entry;
        if (s_read_tensor (cursor, entry) != 0)
            return -1;
    }
    return 0;
}

//  Every tensor inside the file's data and none over another. Leaves by_name sorted by name.
static int
s_check_places (tl_gguf_t *self, const unsigned char *data, size_t size, size_t alignment,
                tl_error_t *err)
{
    const size_t count = self->tensor_count;
    qsort (self->by_name, count, sizeof *self->by_name, s_by_place);
    for (size_t i = 0; i < count; i++) {
        entry_t *entry = (entry_t *)self->by_name[i];
        tl_gguf_tensor_t *tensor = &entry->public;
        const entry_t *before = i > 0 ? self->by_name[i - 1] : NULL;
        if (entry->begin % alignment != 0)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensor %s begins at %" PRIu64
                            " of the data, not a multiple of the "
                            "alignment %zu; the file is damaged, fetch it again",
                            self->path, tensor->name, entry->begin, alignment);
        if (entry->begin > size || tensor->bytes > size - (size_t)entry->begin)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensor %s of %zu bytes begins at %" PRIu64
                            " of %zu bytes of data: "
                            "the file is truncated or damaged; fetch it again",
                            self->path, tensor->name, tensor->bytes, entry->begin, size);
        if (before && entry->begin - before->begin < before->public.bytes)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensors %s and %s overlap; the file is damaged, fetch it again",
                            self->path, before->public.name, tensor->name);
        tensor->data = data + entry->begin;
    }
    qsort (self->by_name, count, sizeof *self->by_name, s_by_name);
    for (size_t i = 1; i < count; i++)
        if (s_by_name (&self->by_name[i - 1], &self->by_name[i]) == 0)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensor %s comes twice; the file is damaged, fetch it again",
                            self->path, self->by_name[i]->public.name);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  The whole file

//  Four letters and a version that can be read.
static int
s_read_version (cursor_t *cursor)
{
    if (cursor->left < 4 || memcmp (cursor->at, "GGUF", 4) != 0)
        return tl_fail (cursor->err, TL_BAD_INPUT,
                        "%s doesn't begin with the letters GGUF: it is no GGUF file; give a GGUF "
                        "file or the directory of a Hugging Face model",
                        cursor->path);
    uint64_t version = 0;
    s_take (cursor, 4, "the file");
    if (s_number (cursor, 4, "the version", &version) != 0)
        return -1;
    if (version == 2 || version == 3)
        return 0;
    bool swapped = version != 0 && (version & 0xffffff) == 0;
    return tl_fail (cursor->err, TL_BAD_INPUT,
                    "%s: GGUF version %" PRIu64 "%s, this version reads 2 and 3 (little-endian); "
                    "convert the model again",
                    cursor->path, swapped ? version >> 24 : version, swapped ? ", big-endian" : "");
}

static int
s_read_counts (cursor_t *cursor, size_t *tensors, size_t *values)
{
    uint64_t a = 0, b = 0;
    if (s_number (cursor, 8, "the number of tensors", &a) != 0 ||
        s_number (cursor, 8, "the number of keys", &b) != 0)
        return -1;
    if (a > MAX_TENSORS || a > cursor->left / LEAST_TENSOR || b > MAX_KEYS ||
        b > cursor->left / LEAST_KEY)
        return tl_fail (cursor->err, TL_BAD_INPUT,
                        "%s says it has %" PRIu64 " tensors and %" PRIu64
                        " keys, more than its %zu "
                        "bytes can hold or than the %d and %d that are read; fetch it again",
                        cursor->path, a, b, cursor->left, MAX_TENSORS, MAX_KEYS);
    *tensors = (size_t)a;
    *values = (size_t)b;
    return 0;
}

static int
s_alignment (const tl_gguf_t *self, size_t *alignment, tl_error_t *err)
{
    const tl_gguf_value_t *value = tl_gguf_find (self, "general.alignment");
    int64_t number = ALIGNMENT;
    bool good = !value || tl_gguf_integer (value, 0, &number);
    if (!good || number < 8 || number > MAX_ALIGNMENT || (number & (number - 1)) != 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: general.alignment is %" PRId64 ", expected a power of two from 8 to "
                        "%d; the file is damaged, fetch it again",
                        self->path, good ? number : -1, MAX_ALIGNMENT);
    *alignment = (size_t)number;
    return 0;
}

static int
s_parse (tl_gguf_t *self, const unsigned char *data, size_t size, tl_error_t *err)
{
    cursor_t cursor = {self->path, data, size, err};
    size_t tensors = 0, values = 0, alignment = 0;
    tl_assert ((uintptr_t)data % 8 == 0);
    if (s_read_version (&cursor) != 0 || s_read_counts (&cursor, &tensors, &values) != 0 ||
        s_read_values (self, &cursor, values) != 0 || s_alignment (self, &alignment, err) != 0 ||
        s_read_tensors (self, &cursor, tensors) != 0)
        return -1;
    size_t header = size - cursor.left, padding = (alignment - header % alignment) % alignment;
    if (padding > cursor.left)
        padding = cursor.left;
    return s_check_places (self, cursor.at + padding, cursor.left - padding, alignment, err);
}

tl_gguf_t *
tl_gguf_parse (const char *name, const void *data, size_t size, tl_error_t *err)
{
    tl_gguf_t *self = tl_alloc (sizeof *self);
    self->path = tl_strdup (name);
    if (s_parse (self, data, size, err) != 0)
        tl_gguf_destroy (&self);
    return self;
}

tl_gguf_t *
tl_gguf_open (const char *path, tl_error_t *err)
{
    tl_gguf_t *self = tl_alloc (sizeof *self);
    self->path = tl_strdup (path);
    if (tl_map_open (&self->map, path, err) != 0 ||
        s_parse (self, self->map.data, self->map.size, err) != 0)
        tl_gguf_destroy (&self);
    return self;
}

void
tl_gguf_destroy (tl_gguf_t **self_p)
{
    tl_gguf_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->value_count; i++) {
        free ((char *)self->values[i].key);
        free ((uint64_t *)self->values[i].places);
    }
    for (size_t i = 0; i < self->tensor_count; i++)
        free ((char *)self->tensors[i].public.name);
    free (self->values);
    free (self->tensors);
    free (self->by_key);
    free (self->by_name);
    tl_map_close (&self->map);
    free (self->path);
    free (self);
    *self_p = NULL;
}

const char *
tl_gguf_path (const tl_gguf_t *self)
{
    return self->path;
}

bool
tl_gguf_is (const char *path)
{
    struct stat status;
    char letters[4] = "";
    //  Not waiting: the path may be a pipe.
    int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    bool plain = fstat (fd, &status) == 0 && S_ISREG (status.st_mode) &&
                 read (fd, letters, 4) == 4 && memcmp (letters, "GGUF", 4) == 0;
    close (fd);
    return plain;
}

//  ---------------------------------------------------------------------------------------------
//  Access

size_t
tl_gguf_keys (const tl_gguf_t *self)
{
    return self->value_count;
}

const tl_gguf_value_t *
tl_gguf_key (const tl_gguf_t *self, size_t index)
{
    tl_assert (index < self->value_count);
    return &self->values[index];
}

const tl_gguf_value_t *
tl_gguf_find (const tl_gguf_t *self, const char *key)
{
    const tl_gguf_value_t wanted = {.key = key}, *pointer = &wanted;
    const tl_gguf_value_t *const *found =
        bsearch (&pointer, self->by_key, self->value_count, sizeof *self->by_key, s_by_key);
    return found ? *found : NULL;
}

size_t
tl_gguf_tensors (const tl_gguf_t *self)
{
    return self->tensor_count;
}

const tl_gguf_tensor_t *
tl_gguf_tensor (const tl_gguf_t *self, size_t index)
{
    tl_assert (index < self->tensor_count);
    return &self->tensors[index].public;
}

const tl_gguf_tensor_t *
tl_gguf_find_tensor (const tl_gguf_t *self, const char *name)
{
    const entry_t wanted = {.public = {.name = name}}, *pointer = &wanted;
    const entry_t *const *found =
        bsearch (&pointer, self->by_name, self->tensor_count, sizeof *self->by_name, s_by_name);
    return found ? &(*found)->public : NULL;
}
