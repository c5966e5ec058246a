/*  gguf_write: a GGUF file (version 3) written front to back: metadata, then tensors one after another in the order
    in which they were announced. Never holds more than the header and what it is handed; the file has its name
    when all is there. Knows nothing about models. Keys and names are the caller's: short, printable, unique. */

#ifndef TL_GGUF_WRITE_H
#define TL_GGUF_WRITE_H

#include "gguf.h"

typedef struct tl_gguf_writer tl_gguf_writer_t;

tl_gguf_writer_t *tl_gguf_writer_new (void);
//  What wasn't finished is removed.
void tl_gguf_writer_destroy (tl_gguf_writer_t **self_p);

//  Metadata, in the order of the calls. type: a whole or float type for number, which must hold the value.
void tl_gguf_put_text (tl_gguf_writer_t *self, const char *key, const char *text);
void tl_gguf_put_bytes (tl_gguf_writer_t *self, const char *key, const char *text, size_t size);
void tl_gguf_put_number (tl_gguf_writer_t *self, const char *key, tl_gguf_type_t type,
                         double value);
void tl_gguf_put_flag (tl_gguf_writer_t *self, const char *key, bool value);
void tl_gguf_put_texts (tl_gguf_writer_t *self, const char *key, const tl_gguf_text_t *texts,
                        size_t count);
void tl_gguf_put_int32s (tl_gguf_writer_t *self, const char *key, const int32_t *values,
                         size_t count);
void tl_gguf_put_floats (tl_gguf_writer_t *self, const char *key, const float *values,
                         size_t count);
//  A key of another file as it is.
void tl_gguf_put_value (tl_gguf_writer_t *self, const tl_gguf_value_t *value);
bool tl_gguf_has_key (const tl_gguf_writer_t *self, const char *key); //  was put before

//  Announces a tensor; shape outermost first, as in tl_gguf_tensor_t.
void tl_gguf_announce (tl_gguf_writer_t *self, const char *name, tl_dtype_t dtype,
                       const size_t *shape, size_t dimensions);

//  Writes the header; nothing can be put or announced afterwards. Then the tensors' bytes in order, in pieces as the
//  caller likes; padding is the writer's. finish: all of them have come; the file gets its name. mode: 0644, or 0600 for
//  what was trained on private text.
int tl_gguf_writer_begin (tl_gguf_writer_t *self, const char *path, int mode, tl_error_t *err);
int tl_gguf_writer_add (tl_gguf_writer_t *self, const void *data, size_t size, tl_error_t *err);
int tl_gguf_writer_finish (tl_gguf_writer_t *self, tl_error_t *err);

#endif
