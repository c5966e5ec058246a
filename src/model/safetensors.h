/*  safetensors: reading (mmapped, checked, nothing copied) and writing (by rename) of .safetensors.

    Every offset, shape and dtype is checked against the file's size before it is handed out; tensors lie
    side by side without holes or overlaps, as the format says, and a name may not come twice. Data is
    always handed out aligned for its dtype: the rare tensor that lies at an odd place in its file is
    copied when it is first asked for. Knows nothing about models. One thread uses a reader.       */

#ifndef TL_SAFETENSORS_H
#define TL_SAFETENSORS_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TL_MAX_DIMENSIONS = 4 };

typedef enum {
    TL_ST_F32,
    TL_ST_F16,
    TL_ST_BF16,
    TL_ST_F64,
    TL_ST_I32,
    TL_ST_I64,
    TL_ST_U8
} tl_st_dtype_t;

typedef struct {
    const char *name;    //  unique in its file, UTF-8
    tl_st_dtype_t dtype; //  as stored
    size_t dimensions;   //  0 .. TL_MAX_DIMENSIONS
    size_t shape[TL_MAX_DIMENSIONS];
    size_t bytes;     //  product of shape x dtype's size
    const void *data; //  into the mapping (reading) or the caller's (writing)
} tl_st_tensor_t;

typedef struct tl_safetensors tl_safetensors_t;

tl_safetensors_t *tl_safetensors_open (const char *path, tl_error_t *err);
//  The same over bytes in memory, which must outlive it; name is for messages. For blobs and fuzzing.
tl_safetensors_t *tl_safetensors_parse (const char *name, const void *data, size_t size,
                                        tl_error_t *err);
void tl_safetensors_destroy (tl_safetensors_t **self_p);

//  Tensors stand in the order of their names. What at, find and metadata return belongs to the reader.
size_t tl_safetensors_count (const tl_safetensors_t *self);
const tl_st_tensor_t *tl_safetensors_at (const tl_safetensors_t *self, size_t index);
const char *tl_safetensors_name (const tl_safetensors_t *self, size_t index);
const tl_st_tensor_t *tl_safetensors_find (const tl_safetensors_t *self,
                                           const char *name); //  NULL if absent
const char *tl_safetensors_metadata (const tl_safetensors_t *self,
                                     const char *key); //  NULL if absent
//  A tensor's bytes where they lie in the file, aligned or not; NULL if absent.
const void *tl_safetensors_bytes (const tl_safetensors_t *self, const char *name, size_t *size);
//  Like find, for looking at name, dtype and shape only: data is NULL where it would have to be copied.
const tl_st_tensor_t *tl_safetensors_peek (const tl_safetensors_t *self, const char *name);

size_t tl_st_dtype_size (tl_st_dtype_t dtype);      //  bytes
const char *tl_st_dtype_name (tl_st_dtype_t dtype); //  as in the file: "F32", "BF16" ...

//  What a file of these tensors begins with, their data following in this order. Fresh; the caller frees.
void *tl_safetensors_header (const tl_st_tensor_t *const *tensors, size_t count,
                             const char *const *metadata, size_t *size);
//  Serialises count tensors and metadata (pairs key, value; NULL-terminated list or NULL) to a fresh buffer;
//  the caller frees. Wide dtypes come first, otherwise the given order is kept: the same input gives the
//  same bytes, and every tensor is aligned. tl_safetensors_write puts it into a file by rename, mode like 0644.
void *tl_safetensors_serialise (const tl_st_tensor_t *tensors, size_t count,
                                const char *const *metadata, size_t *size);
int tl_safetensors_write (const char *path, int mode, const tl_st_tensor_t *tensors, size_t count,
                          const char *const *metadata, tl_error_t *err);

#endif
