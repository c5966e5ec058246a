/*  gguf: reading of GGUF files, versions 2 and 3, little-endian: metadata and tensors, mmapped, nothing
    copied but names.

    A file is checked as a whole when it is opened: counts, lengths, types, alignment, every tensor's shape
    and place, no name twice, no two tensors over each other. What is handed out afterwards is inside the
    file. Knows nothing about models: which keys and tensors there must be is gguf_config.c's and model.c's
    business. Reading changes nothing: threads may share a reader.                                  */

#ifndef TL_GGUF_H
#define TL_GGUF_H

#include "error.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tl_gguf tl_gguf_t;

//  NULL and a sentence naming file and key or tensor when anything is wrong.
tl_gguf_t *tl_gguf_open (const char *path, tl_error_t *err);
//  The same over bytes in memory, aligned to 8, that must outlive it; name is for messages.
tl_gguf_t *tl_gguf_parse (const char *name, const void *data, size_t size, tl_error_t *err);
void tl_gguf_destroy (tl_gguf_t **self_p);
const char *tl_gguf_path (const tl_gguf_t *self); //  the file, or parse's name
//  A plain file that begins with GGUF's four letters; false for directories and whatever can't be read.
bool tl_gguf_is (const char *path);

//  ---------------------------------------------------------------------------------------------
//  Metadata

//  The format's own numbers.
typedef enum {
    TL_GGUF_U8,
    TL_GGUF_I8,
    TL_GGUF_U16,
    TL_GGUF_I16,
    TL_GGUF_U32,
    TL_GGUF_I32,
    TL_GGUF_F32,
    TL_GGUF_BOOL,
    TL_GGUF_TEXT,
    TL_GGUF_ARRAY,
    TL_GGUF_U64,
    TL_GGUF_I64,
    TL_GGUF_F64,
    TL_GGUF_TYPES
} tl_gguf_type_t;

//  One key: a value, or an array of values of one type (arrays of arrays are refused at opening).
typedef struct {
    const char *key;
    tl_gguf_type_t type;       //  of the value or of the array's items; never TL_GGUF_ARRAY
    bool array;                //  count items, perhaps none; else one value
    size_t count;              //  1 unless array
    const unsigned char *data; //  private: first item in the file
    size_t bytes;              //  private: of all items there
    const uint64_t *places;    //  private: arrays of texts: each text's offset from data
} tl_gguf_value_t;

//  size bytes, any bytes, no NUL at the end; they lie in the file and live as long as the reader.
typedef struct {
    const char *data;
    size_t size;
} tl_gguf_text_t;

size_t tl_gguf_keys (const tl_gguf_t *self);
const tl_gguf_value_t *tl_gguf_key (const tl_gguf_t *self, size_t index); //  in the file's order
const tl_gguf_value_t *tl_gguf_find (const tl_gguf_t *self, const char *key); //  NULL if absent

//  Item index (0 for a single value). False, with *out untouched, when value is NULL, index is not below count
//  or the type is another: integer takes every whole type that fits, real takes floats and whole numbers.
bool tl_gguf_text (const tl_gguf_value_t *value, size_t index, tl_gguf_text_t *out);
bool tl_gguf_integer (const tl_gguf_value_t *value, size_t index, int64_t *out);
bool tl_gguf_real (const tl_gguf_value_t *value, size_t index, double *out);
bool tl_gguf_flag (const tl_gguf_value_t *value, size_t index, bool *out);
bool tl_gguf_text_is (tl_gguf_text_t text, const char *literal);
const char *tl_gguf_type_name (tl_gguf_type_t type); //  "uint32", "string" ...
size_t tl_gguf_type_size (tl_gguf_type_t type);      //  bytes of an item; 0: it has its own length
uint64_t tl_gguf_little (const unsigned char *at,
                         size_t bytes); //  a number as the format stores it

//  ---------------------------------------------------------------------------------------------
//  Tensors

enum { TL_GGUF_DIMENSIONS = 4 };

typedef struct {
    const char *name;  //  as in the file: "blk.0.attn_q.weight"
    tl_dtype_t dtype;  //  a row is a whole number of blocks
    size_t dimensions; //  1 .. TL_GGUF_DIMENSIONS
    size_t shape
        [TL_GGUF_DIMENSIONS]; //  outermost first (the file has it the other way round), all > 0
    size_t bytes;
    const void *data; //  in the mapping, aligned to 8
} tl_gguf_tensor_t;

size_t tl_gguf_tensors (const tl_gguf_t *self);
const tl_gguf_tensor_t *tl_gguf_tensor (const tl_gguf_t *self,
                                        size_t index); //  in the file's order
const tl_gguf_tensor_t *tl_gguf_find_tensor (const tl_gguf_t *self, const char *name); //  or NULL

//  The format's number of a storage type.
uint32_t tl_gguf_type_of (tl_dtype_t dtype);

#endif
