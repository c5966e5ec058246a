/*  safetensors: the .safetensors container. A file is an 8-byte little-endian length, that many bytes
    of JSON ({"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}), and the
    tensors' bytes side by side.

    Takes a path or bytes in memory, gives checked tensors. Everything in the header is hostile until it
    has been compared with the size of the file. Does not convert dtypes and knows no models.      */

#include "safetensors.h"

#include "file.h"
#include "memory.h"

#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

//  The reference implementation's limit; a header of a 6 B model has about 50 KB.
#define MAX_HEADER ((size_t)100 * 1000 * 1000)

static const struct {
    const char *name; //  in the file
    size_t size;      //  bytes of one value
} s_dtypes[] = {
    [TL_ST_F32] = {"F32", 4}, [TL_ST_F16] = {"F16", 2}, [TL_ST_BF16] = {"BF16", 2},
    [TL_ST_F64] = {"F64", 8}, [TL_ST_I32] = {"I32", 4}, [TL_ST_I64] = {"I64", 8},
    [TL_ST_U8] = {"U8", 1},
};
enum { DTYPES = sizeof s_dtypes / sizeof s_dtypes[0] };

typedef struct {
    tl_st_tensor_t public;      //  what callers see; data NULL until copied if misaligned
    const unsigned char *place; //  first byte in the file
    size_t begin;               //  offset of place after the header
    void *copy;                 //  aligned copy, or NULL
} entry_t;

struct tl_safetensors {
    char *name;       //  file or blob, for messages
    tl_map_t map;     //  empty when parsed from memory
    json_t *header;   //  owns names and metadata
    entry_t *entries; //  [count], by name
    size_t count;
};

size_t
tl_st_dtype_size (tl_st_dtype_t dtype)
{
    return s_dtypes[dtype].size;
}

const char *
tl_st_dtype_name (tl_st_dtype_t dtype)
{
    return s_dtypes[dtype].name;
}

static int
s_by_name (const void *a, const void *b)
{
    return strcmp (((const entry_t *)a)->public.name, ((const entry_t *)b)->public.name);
}

static int
s_by_place (const void *a, const void *b)
{
    const entry_t *one = a, *two = b;
    if (one->begin != two->begin)
        return one->begin < two->begin ? -1 : 1;
    //  Empty tensors share their place with the next one and come before it.
    if (one->public.bytes != two->public.bytes)
        return one->public.bytes < two->public.bytes ? -1 : 1;
    return s_by_name (a, b);
}

//  A JSON integer >= 0 that fits a size_t.
static bool
s_size (const json_t *value, size_t *size)
{
    if (!json_is_integer (value) || json_integer_value (value) < 0)
        return false;
    *size = (size_t)json_integer_value (value);
    return true;
}

static int
s_read_dtype (entry_t *entry, const json_t *value, const char *file, tl_error_t *err)
{
    const char *dtype = json_string_value (value);
    for (int i = 0; dtype && i < DTYPES; i++)
        if (strcmp (dtype, s_dtypes[i].name) == 0) {
            entry->public.dtype = (tl_st_dtype_t)i;
            return 0;
        }
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: tensor %.200s has dtype %.40s, this version reads F32, F16, BF16, F64, "
                    "I32, I64 and U8; convert the file to one of those",
                    file, entry->public.name, dtype ? dtype : "(missing)");
}

//  Shape, and from it and the dtype the number of bytes.
static int
s_read_shape (entry_t *entry, const json_t *value, const char *file, tl_error_t *err)
{
    tl_st_tensor_t *tensor = &entry->public;
    if (!json_is_array (value) || json_array_size (value) > TL_MAX_DIMENSIONS)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tensor %.200s: shape must be a list of at most %d sizes; the file is "
                        "damaged or not meant for this program, make it again",
                        file, tensor->name, TL_MAX_DIMENSIONS);
    tensor->dimensions = json_array_size (value);
    tensor->bytes = s_dtypes[tensor->dtype].size;
    for (size_t i = 0; i < tensor->dimensions; i++) {
        size_t size = 0;
        if (!s_size (json_array_get (value, i), &size) ||
            __builtin_mul_overflow (tensor->bytes, size, &tensor->bytes))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensor %.200s: size %zu of its shape is negative, not a whole "
                            "number or too large; the file is damaged, fetch it again",
                            file, tensor->name, i);
        tensor->shape[i] = size;
    }
    return 0;
}

//  Where the tensor lies, held against its shape and the bytes that there are.
static int
s_read_place (entry_t *entry, const json_t *value, const unsigned char *data, size_t size,
              const char *file, tl_error_t *err)
{
    const tl_st_tensor_t *tensor = &entry->public;
    size_t end = 0;
    if (json_array_size (value) != 2 || !s_size (json_array_get (value, 0), &entry->begin) ||
        !s_size (json_array_get (value, 1), &end) || end < entry->begin)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tensor %.200s: data_offsets must be [begin, end] with begin <= end; "
                        "the file is damaged, fetch it again",
                        file, tensor->name);
    if (end - entry->begin != tensor->bytes)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tensor %.200s: its shape and dtype make %zu bytes but data_offsets "
                        "give %zu; the file is damaged, fetch it again",
                        file, tensor->name, tensor->bytes, end - entry->begin);
    if (end > size)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tensor %.200s ends %zu bytes after the header but only %zu are there: "
                        "the file is truncated; fetch it again",
                        file, tensor->name, end, size);
    entry->place = data + entry->begin;
    if ((uintptr_t)entry->place % s_dtypes[tensor->dtype].size == 0)
        entry->public.data = entry->place;
    return 0;
}

//  The format allows neither holes nor overlaps. Leaves the entries in the order of their names.
static int
s_check_places (tl_safetensors_t *self, size_t size, tl_error_t *err)
{
    if (self->count)
        qsort (self->entries, self->count, sizeof *self->entries, s_by_place);
    size_t end = 0;
    for (size_t i = 0; i < self->count; i++) {
        const entry_t *entry = &self->entries[i];
        if (entry->begin < end)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensors %.200s and %.200s overlap; the file is damaged, fetch it "
                            "again",
                            self->name, self->entries[i - 1].public.name, entry->public.name);
        if (entry->begin > end)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: %zu bytes before tensor %.200s belong to no tensor; the file is "
                            "damaged, fetch it again",
                            self->name, entry->begin - end, entry->public.name);
        end += entry->public.bytes;
    }
    if (end != size)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: %zu bytes after the last tensor belong to no tensor; the file is "
                        "damaged, fetch it again",
                        self->name, size - end);
    if (self->count)
        qsort (self->entries, self->count, sizeof *self->entries, s_by_name);
    return 0;
}

static int
s_check_metadata (const tl_safetensors_t *self, json_t *metadata, tl_error_t *err)
{
    const char *key;
    json_t *value;
    bool strings = json_is_object (metadata);
    json_object_foreach (metadata, key, value) strings = strings && json_is_string (value);
    if (!strings)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: __metadata__ must map names to strings; the file is damaged, fetch it "
                        "again",
                        self->name);
    return 0;
}

static int
s_read_tensors (tl_safetensors_t *self, const unsigned char *data, size_t size, tl_error_t *err)
{
    const char *name;
    json_t *value;
    self->entries = tl_alloc ((json_object_size (self->header) + 1) * sizeof *self->entries);
    json_object_foreach (self->header, name, value)
    {
        if (strcmp (name, "__metadata__") == 0) {
            if (s_check_metadata (self, value, err) != 0)
                return -1;
            continue;
        }
        entry_t *entry = &self->entries[self->count];
        entry->public.name = name;
        if (s_read_dtype (entry, json_object_get (value, "dtype"), self->name, err) != 0 ||
            s_read_shape (entry, json_object_get (value, "shape"), self->name, err) != 0 ||
            s_read_place (entry, json_object_get (value, "data_offsets"), data, size, self->name,
                          err) != 0)
            return -1;
        self->count++;
    }
    return s_check_places (self, size, err);
}

static int
s_parse (tl_safetensors_t *self, const unsigned char *data, size_t size, tl_error_t *err)
{
    if (size < 8)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s has %zu bytes, too few for a safetensors file; fetch it again",
                        self->name, size);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--)
        length = length << 8 | data[i];
    if (length > MAX_HEADER || length > size - 8)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: the header should have %" PRIu64 " bytes but %zu are there (at most "
                        "%zu are allowed): truncated or not a safetensors file; fetch it again",
                        self->name, length, size - 8, MAX_HEADER);
    json_error_t reason;
    self->header =
        json_loadb ((const char *)data + 8, (size_t)length, JSON_REJECT_DUPLICATES, &reason);
    if (!self->header)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: the header is not valid JSON (%s at byte %d); fetch the file again",
                        self->name, reason.text, reason.position);
    if (!json_is_object (self->header))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: the header is not a JSON object; fetch the file again", self->name);
    return s_read_tensors (self, data + 8 + length, size - 8 - (size_t)length, err);
}

tl_safetensors_t *
tl_safetensors_open (const char *path, tl_error_t *err)
{
    tl_safetensors_t *self = tl_alloc (sizeof *self);
    self->name = tl_strdup (path);
    if (tl_map_open (&self->map, path, err) != 0 ||
        s_parse (self, self->map.data, self->map.size, err) != 0)
        tl_safetensors_destroy (&self);
    return self;
}

tl_safetensors_t *
tl_safetensors_parse (const char *name, const void *data, size_t size, tl_error_t *err)
{
    tl_safetensors_t *self = tl_alloc (sizeof *self);
    self->name = tl_strdup (name);
    if (s_parse (self, data, size, err) != 0)
        tl_safetensors_destroy (&self);
    return self;
}

void
tl_safetensors_destroy (tl_safetensors_t **self_p)
{
    tl_safetensors_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        free (self->entries[i].copy);
    free (self->entries);
    json_decref (self->header);
    tl_map_close (&self->map);
    free (self->name);
    free (self);
    *self_p = NULL;
}

size_t
tl_safetensors_count (const tl_safetensors_t *self)
{
    return self->count;
}

//  A tensor whose place doesn't suit its dtype gets an aligned copy, once.
static const tl_st_tensor_t *
s_settle (entry_t *entry)
{
    if (!entry->public.data) {
        entry->copy = tl_alloc_aligned (entry->public.bytes ? entry->public.bytes : 1);
        memcpy (entry->copy, entry->place, entry->public.bytes);
        entry->public.data = entry->copy;
    }
    return &entry->public;
}

const tl_st_tensor_t *
tl_safetensors_at (const tl_safetensors_t *self, size_t index)
{
    return s_settle (&self->entries[index]);
}

const char *
tl_safetensors_name (const tl_safetensors_t *self, size_t index)
{
    return self->entries[index].public.name;
}

static entry_t *
s_find (const tl_safetensors_t *self, const char *name)
{
    const entry_t key = {.public = {.name = name}};
    return self->count
               ? bsearch (&key, self->entries, self->count, sizeof *self->entries, s_by_name)
               : NULL;
}

const tl_st_tensor_t *
tl_safetensors_find (const tl_safetensors_t *self, const char *name)
{
    entry_t *entry = s_find (self, name);
    return entry ? s_settle (entry) : NULL;
}

const tl_st_tensor_t *
tl_safetensors_peek (const tl_safetensors_t *self, const char *name)
{
    const entry_t *entry = s_find (self, name);
    return entry ? &entry->public : NULL;
}

const void *
tl_safetensors_bytes (const tl_safetensors_t *self, const char *name, size_t *size)
{
    const entry_t *entry = s_find (self, name);
    *size = entry ? entry->public.bytes : 0;
    return entry ? entry->place : NULL;
}

const char *
tl_safetensors_metadata (const tl_safetensors_t *self, const char *key)
{
    return json_string_value (
        json_object_get (json_object_get (self->header, "__metadata__"), key));
}

//  ---------------------------------------------------------------------------------------------
//  Writing

//  The header's JSON; offsets run through the tensors in the order given.
static char *
s_header (const tl_st_tensor_t *const *tensors, size_t count, const char *const *metadata)
{
    json_t *header = json_object ();
    if (metadata && metadata[0]) {
        json_t *object = json_object ();
        for (size_t i = 0; metadata[i]; i += 2)
            json_object_set_new (object, metadata[i], json_string (metadata[i + 1]));
        json_object_set_new (header, "__metadata__", object);
    }
    size_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        const tl_st_tensor_t *tensor = tensors[i];
        json_t *shape = json_array ();
        for (size_t d = 0; d < tensor->dimensions; d++)
            json_array_append_new (shape, json_integer ((json_int_t)tensor->shape[d]));
        json_object_set_new (header, tensor->name,
                             json_pack ("{s:s, s:o, s:[I, I]}", "dtype",
                                        s_dtypes[tensor->dtype].name, "shape", shape,
                                        "data_offsets", (json_int_t)begin,
                                        (json_int_t)(begin + tensor->bytes)));
        begin += tensor->bytes;
    }
    char *text = json_dumps (header, JSON_COMPACT);
    json_decref (header);
    return text;
}

void *
tl_safetensors_header (const tl_st_tensor_t *const *tensors, size_t count,
                       const char *const *metadata, size_t *size)
{
    char *header = s_header (tensors, count, metadata);
    const size_t used = strlen (header), padded = (used + 7) / 8 * 8;
    unsigned char *data = tl_alloc_aligned (8 + padded);
    for (int i = 0; i < 8; i++)
        data[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    memcpy (data + 8, header, used);
    memset (data + 8 + used, ' ', padded - used);
    free (header);
    *size = 8 + padded;
    return data;
}

void *
tl_safetensors_serialise (const tl_st_tensor_t *tensors, size_t count, const char *const *metadata,
                          size_t *size)
{
    //  Widest first, so that every tensor is aligned wherever the narrow ones end.
    const tl_st_tensor_t **sorted = tl_alloc ((count + 1) * sizeof *sorted);
    size_t placed = 0, bytes = 0;
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t i = 0; i < count; i++)
            if (s_dtypes[tensors[i].dtype].size == width) {
                sorted[placed++] = &tensors[i];
                bytes += tensors[i].bytes;
            }

    size_t head;
    void *header = tl_safetensors_header (sorted, count, metadata, &head);
    unsigned char *data = tl_alloc_aligned (head + bytes), *to = data + head;
    memcpy (data, header, head);
    for (size_t i = 0; i < count; i++) {
        if (sorted[i]->bytes)
            memcpy (to, sorted[i]->data, sorted[i]->bytes);
        to += sorted[i]->bytes;
    }
    free (header);
    free (sorted);
    *size = head + bytes;
    return data;
}

int
tl_safetensors_write (const char *path, int mode, const tl_st_tensor_t *tensors, size_t count,
                      const char *const *metadata, tl_error_t *err)
{
    size_t size = 0;
    void *data = tl_safetensors_serialise (tensors, count, metadata, &size);
    int rc = tl_file_write (path, data, size, mode, err);
    free (data);
    return rc;
}
