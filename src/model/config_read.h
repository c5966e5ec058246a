/*  config_read: values of a config.json, checked one by one. Every function returns -1 and a sentence with
    file, key and value when the value isn't what it may be; *out is set otherwise. Private to config.c. */

#ifndef TL_MODEL_CONFIG_READ_H
#define TL_MODEL_CONFIG_READ_H

#include "model.h"

#include <jansson.h>

typedef struct {
    const char *file; //  for messages
    json_t *object;   //  the whole file, or one object in it
    tl_error_t *err;
} tl_reader_t;

//  NULL when the key is absent. JSON null counts as absent, as it does for transformers.
json_t *tl_read_value (const tl_reader_t *self, const char *key);
const char *tl_read_text (const tl_reader_t *self, const char *key); //  NULL: absent, or no text

//  A whole number in [1, limit]. otherwise: taken when the key is absent; 0 means it must be there.
int tl_read_size (const tl_reader_t *self, const char *key, size_t limit, size_t otherwise,
                  size_t *out);
//  A number in [low, high]; otherwise is taken when the key is absent, NAN means it must be there.
int tl_read_real (const tl_reader_t *self, const char *key, double low, double high,
                  double otherwise, double *out);
int tl_read_flag (const tl_reader_t *self, const char *key, bool otherwise, bool *out);
//  A token id below vocab, -1 for none; of a list the first.
int tl_read_id (const tl_reader_t *self, const char *key, size_t vocab, int32_t otherwise,
                int32_t *out);
//  eos_token_id: a token id, or a list whose first becomes config->eos and whose rest config->ends.
int tl_read_ends (const tl_reader_t *self, int32_t otherwise, tl_config_t *config);

//  -1 with "KEY is VALUE, expected WANTED".
int tl_read_refuse (const tl_reader_t *self, const char *key, const char *wanted);
//  -1 with "KEY VALUE is not supported": it asks for something that this version doesn't compute.
int tl_read_unsupported (const tl_reader_t *self, const char *key);
//  Refuses each listed key that is there and neither null, false, 0 nor an empty text; keys ends with NULL.
int tl_read_none_of (const tl_reader_t *self, const char *const *keys);
//  Refuses each listed key that is there and not true.
int tl_read_all_of (const tl_reader_t *self, const char *const *keys);

#endif
