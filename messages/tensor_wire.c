/*  tensor_wire: see the header. Narrowing and widening are tl_kernels'; a chunk boundary never cuts an
    element, since 64 KiB is a multiple of every dtype's size.

    An assembly holds every chunk to the first one's descriptor and to its order.                   */

#include "messages/tensor_wire.h"

#include "messages/internal.h"

#include "assert.h"
#include "hash.h"
#include "kernels/kernels.h"
#include "memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

size_t
tl_w_dtype_size (tl_w_dtype_t dtype)
{
    switch (dtype) {
    case TL_W_F32:
        return 4;
    case TL_W_BF16:
    case TL_W_F16:
        return 2;
    case TL_W_U8:
        return 1;
    }
    return 0;
}

const char *
tl_w_dtype_name (tl_w_dtype_t dtype)
{
    switch (dtype) {
    case TL_W_F32:
        return "fp32";
    case TL_W_BF16:
        return "bf16";
    case TL_W_F16:
        return "fp16";
    case TL_W_U8:
        return "u8";
    }
    return "?";
}

//  The kernels' name of the same storage.
static tl_dtype_t
s_storage (tl_w_dtype_t dtype)
{
    tl_assert (dtype != TL_W_U8);
    return dtype == TL_W_BF16 ? TL_BF16 : dtype == TL_W_F16 ? TL_F16 : TL_F32;
}

//  --- out

struct tl_packed {
    tl_tensor_wire_t whole; //  offset and size are filled a chunk
    uint8_t *bytes;         //  [rows, columns] in the wire dtype
    atomic_size_t
        references; //  the maker's and one a chunk in flight; libzmq's threads give those back
};

tl_packed_t *
tl_pack (const void *data, size_t rows, size_t columns, tl_w_dtype_t dtype)
{
    size_t width = tl_w_dtype_size (dtype);
    tl_assert (width && rows && columns && columns <= SIZE_MAX / width / rows);
    tl_assert (dtype != TL_W_U8 || columns == 1);
    tl_packed_t *self = tl_alloc (sizeof *self);
    size_t count = rows * columns;
    self->whole = (tl_tensor_wire_t){
        .dtype = dtype, .rows = rows, .columns = columns, .bytes = count * width};
    self->bytes = tl_alloc_aligned (count * width);
    if (dtype == TL_W_U8 || dtype == TL_W_F32)
        memcpy (self->bytes, data, count * width);
    else
        tl_narrow (self->bytes, data, s_storage (dtype), count);
    self->whole.checksum = tl_hash64 (self->bytes, count * width);
    atomic_init (&self->references, 1);
    return self;
}

tl_packed_t *
tl_pack_own (void *data, size_t size)
{
    tl_packed_t *self = tl_alloc (sizeof *self);
    self->whole = (tl_tensor_wire_t){.dtype = TL_W_U8, .rows = size, .columns = 1, .bytes = size};
    self->bytes = data;
    self->whole.checksum = tl_hash64 (data, size);
    atomic_init (&self->references, 1);
    return self;
}

tl_packed_t *
tl_packed_share (tl_packed_t *self)
{
    atomic_fetch_add (&self->references, 1);
    return self;
}

size_t
tl_packed_chunks (const tl_packed_t *self)
{
    uint64_t chunk = tl_chunk_bytes (self->whole.bytes);
    return (self->whole.bytes + chunk - 1) / chunk;
}

const void *
tl_packed_chunk (tl_packed_t *self, size_t index, tl_tensor_wire_t *descriptor)
{
    tl_assert (index < tl_packed_chunks (self));
    *descriptor = self->whole;
    uint64_t chunk = tl_chunk_bytes (self->whole.bytes);
    descriptor->offset = index * chunk;
    uint64_t rest = self->whole.bytes - descriptor->offset;
    descriptor->size = rest < chunk ? rest : chunk;
    atomic_fetch_add (&self->references, 1);
    return self->bytes + descriptor->offset;
}

void
tl_packed_release (void *data, void *packed)
{
    tl_packed_t *self = packed;
    if (atomic_fetch_sub (&self->references, 1) == 1) {
        free (self->bytes);
        free (self);
    }
}

void
tl_packed_destroy (tl_packed_t **self_p)
{
    if (*self_p)
        tl_packed_release (NULL, *self_p);
    *self_p = NULL;
}

//  --- in

struct tl_assembly {
    tl_tensor_wire_t whole; //  of the first chunk
    uint64_t filled;        //  bytes that have come, in order
    bool complete;          //  all have, and the checksum holds
    uint8_t *bytes;         //  [rows, columns] in the wire dtype; NULL once taken
};

tl_assembly_t *
tl_assembly_new (const tl_tensor_wire_t *first, size_t columns, size_t limit, tl_error_t *err)
{
    if (tl_tensor_fault (first)) {
        tl_fail (err, TL_BAD_INPUT,
                 "a tensor's descriptor has %s; run the same trunkline on both sides",
                 tl_tensor_fault (first));
        return NULL;
    }
    if (columns && first->columns != columns) {
        tl_fail (err, TL_BAD_INPUT,
                 "a tensor has %llu columns where %zu were expected; use the same model and split "
                 "on both sides",
                 (unsigned long long)first->columns, columns);
        return NULL;
    }
    if (first->bytes > limit) {
        tl_fail (err, TL_BAD_INPUT,
                 "a tensor has %llu bytes where at most %zu are allowed; raise "
                 "wire.max_message_mb or lower train.batch_size or train.max_length",
                 (unsigned long long)first->bytes, limit);
        return NULL;
    }
    tl_assembly_t *self = tl_alloc (sizeof *self);
    self->whole = *first;
    self->bytes = tl_alloc_aligned (first->bytes);
    return self;
}

void
tl_assembly_destroy (tl_assembly_t **self_p)
{
    if (*self_p)
        free ((*self_p)->bytes);
    free (*self_p);
    *self_p = NULL;
}

int
tl_assembly_add (tl_assembly_t *self, const tl_tensor_wire_t *descriptor, const void *data,
                 size_t size, tl_error_t *err)
{
    tl_assert (self->bytes);
    const tl_tensor_wire_t *whole = &self->whole;
    if (descriptor->dtype != whole->dtype || descriptor->rows != whole->rows ||
        descriptor->columns != whole->columns || descriptor->bytes != whole->bytes ||
        descriptor->checksum != whole->checksum)
        return tl_fail (err, TL_BAD_INPUT,
                        "a chunk belongs to another tensor than the one under way; the peer must "
                        "finish one before it sends the next");
    uint64_t rest = whole->bytes - self->filled;
    uint64_t chunk = tl_chunk_bytes (whole->bytes), wanted = rest < chunk ? rest : chunk;
    if (descriptor->offset != self->filled || wanted == 0 || descriptor->size != wanted ||
        size != wanted)
        return tl_fail (err, TL_BAD_INPUT,
                        "a chunk of %zu bytes (%llu stated) came for offset %llu where %llu bytes "
                        "at %llu were due; run the same trunkline on both sides",
                        size, (unsigned long long)descriptor->size,
                        (unsigned long long)descriptor->offset, (unsigned long long)wanted,
                        (unsigned long long)self->filled);
    memcpy (self->bytes + self->filled, data, size);
    self->filled += size;
    if (self->filled < whole->bytes)
        return 0;
    if (tl_hash64 (self->bytes, whole->bytes) != whole->checksum)
        return tl_fail (err, TL_BAD_INPUT,
                        "a tensor of %llu bytes doesn't have the checksum it was announced with; "
                        "check the sender's memory and disks, then start it again",
                        (unsigned long long)whole->bytes);
    self->complete = true;
    return 1;
}

size_t
tl_assembly_rows (const tl_assembly_t *self)
{
    return self->whole.rows;
}

size_t
tl_assembly_columns (const tl_assembly_t *self)
{
    return self->whole.columns;
}

void *
tl_assembly_take (tl_assembly_t *self, size_t *bytes)
{
    tl_assert (self->bytes && self->complete);
    size_t count = self->whole.rows * self->whole.columns;
    tl_w_dtype_t dtype = (tl_w_dtype_t)self->whole.dtype;
    void *taken = self->bytes;
    size_t size = self->whole.bytes;
    if (dtype == TL_W_BF16 || dtype == TL_W_F16) {
        size = count * sizeof (float);
        taken = tl_alloc_aligned (size);
        tl_widen (taken, self->bytes, s_storage (dtype), count);
        free (self->bytes);
    }
    self->bytes = NULL;
    if (bytes)
        *bytes = size;
    return taken;
}
