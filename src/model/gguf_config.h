/*  gguf_config: what a GGUF file says of its model, in the words of Hugging Face: its hyper-parameters as the
    config.json that transformers would have, and which of its tensors is which of the layout's. Private to
    src/model and its tests.

    Architectures: llama (Llama, Mistral, SmolLM2), qwen2, chatglm (ChatGLM2, ChatGLM3, GLM-4 and Hugging Face's
    Glm). A key of the architecture's own that this version doesn't know is refused unless it is off: it may
    change what the model computes.                                                                  */

#ifndef TL_GGUF_CONFIG_H
#define TL_GGUF_CONFIG_H

#include "gguf.h"
#include "internal.h"

#include <jansson.h>

//  The config.json that belongs to the file's metadata; the caller drops the reference. NULL and a sentence naming
//  file and key.
json_t *tl_gguf_config_json (const tl_gguf_t *gguf, tl_error_t *err);
//  The same, read. rope_style tells whether rows of q and k lie as the file of a llama has them (see tl_reorder).
int tl_gguf_config (const tl_gguf_t *gguf, tl_config_t *config, tl_error_t *err);

//  What GGUF calls a family's architecture, a name that lives for ever; NULL when it has none.
const char *tl_gguf_architecture (const tl_config_t *config);
//  A layout's name (tl_layout_at) as GGUF has it: "model.layers.3.mlp.up_proj.weight" is "blk.3.ffn_up.weight".
//  False when GGUF has no name for it.
bool tl_gguf_name (const char *name, char *out, size_t size);

//  As tl_model_weight, from the file: a layout's name, its shape, and where it lies.
int tl_gguf_weight (const tl_gguf_t *gguf, const char *name, size_t rows, size_t columns,
                    tl_weight_t *out, tl_error_t *err);
//  Refuses tensors among the model's own that a layout with these settings has no place for; warns of others.
int tl_gguf_check_strays (const tl_gguf_t *gguf, const tl_config_t *config, tl_error_t *err);

//  Frequencies are divided by these, [turned / 2] numbers above 0 in the file: llama3's scaling. *out is NULL where
//  the file has none.
int tl_gguf_rope_factors (const tl_gguf_t *gguf, const tl_config_t *config, const float **out,
                          tl_error_t *err);

#endif
