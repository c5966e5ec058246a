/*  tiny_model: for tests, random models of a few kilobytes as Hugging Face
   directories, and random micros to run through them. Everything is a function
   of the seed.                                       */

#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include "error.h"
#include "model/model.h"

//  Sizes of a model to be made. tiny_chatglm () and tiny_llama () are good
//  starts to change from.
typedef struct {
    tl_family_t family;
    bool hf; //  glm: Hugging Face's layout, else ChatGLM2's
    size_t vocab, hidden, inner, blocks, heads, kv_heads, head_dim;
    bool tied;        //  llama and qwen2; chatglm always is
    bool llama3;      //  llama: rope_scaling of type llama3
    tl_dtype_t dtype; //  how weights are stored
    uint64_t seed;
} tiny_model_t;

tiny_model_t tiny_chatglm (void);    //  5 blocks, hidden 32, fp16
tiny_model_t tiny_llama (bool tied); //  5 blocks, hidden 32, grouped KV, bf16
tiny_model_t tiny_glm (bool hf);     //  the same size; ChatGLM2's layout, or Hugging Face's
tiny_model_t tiny_qwen2 (bool tied); //  the same size; fp16

//  A fresh directory under $TMPDIR or /tmp; remove with tl_remove_tree, then
//  free.
char *tiny_directory (void);
//  Writes config.json and model.safetensors into an existing directory.
int tiny_model_write (const tiny_model_t *spec, const char *directory, tl_error_t *err);
//  Writes into a fresh directory, opens it, removes the directory (the mapping
//  stays). Aborts on failure.
tl_model_t *tiny_model_open (const tiny_model_t *spec);

//  A micro of `sequences` random sequences of `least` to `most` rows whose
//  global numbers start at first; labels on about half of the rows; chatglm
//  contexts with a [gMASK] or now and then a [MASK] inside.
tl_batch_t *tiny_batch (const tl_config_t *config, uint64_t seed, size_t sequences, size_t least,
                        size_t most, uint64_t first);
void tiny_batch_destroy (tl_batch_t **self_p);

#endif
