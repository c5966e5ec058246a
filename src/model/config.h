/*  config: config.json of a Hugging Face directory as a tl_config_t. Private to src/model and its tests. */

#ifndef TL_MODEL_CONFIG_H
#define TL_MODEL_CONFIG_H

#include "model.h"

#include <jansson.h>

//  Reads the text of a config.json; file is for messages. -1 and a sentence naming the field, its value
//  and what is read instead, when the file is broken, out of bounds, or asks for something that this
//  version doesn't compute.
int tl_config_parse (const char *file, const char *text, size_t size, tl_config_t *config,
                     tl_error_t *err);

//  What decides the arithmetic, as JSON. The caller drops the reference.
json_t *tl_config_canonical (const tl_config_t *config);

#endif
