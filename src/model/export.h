/*  export: what was trained, in the forms that other programs read.

    Takes adapters as they were saved: one of a whole model, or those of a run's parts, which are joined. They
    come from anybody and are held against the model and each other before anything is written. Outputs appear
    by rename, whole or not at all; what was at that path before is replaced. Computes nothing but
    W + scaling * B A.                                                                              */

#ifndef TL_EXPORT_H
#define TL_EXPORT_H

#include "model/model.h"

typedef struct tl_export tl_export_t;

//  adapters [count] are directories; together they hold each tensor at most once and say the same of rank, alpha,
//  scaling and targets. count 0: the model itself. The model must outlive it. NULL and a sentence naming file, field or
//  tensor otherwise.
tl_export_t *tl_export_new (tl_model_t *model, const char *const *adapters, size_t count,
                            tl_error_t *err);
void tl_export_destroy (tl_export_t **self_p);
size_t tl_export_tensors (const tl_export_t *self); //  of the adapters

//  One PEFT directory; of LoRA only.
int tl_export_peft (const tl_export_t *self, const char *directory, tl_error_t *err);

//  A GGUF file as llama.cpp takes for --lora; of LoRA only, on families that it knows.
int tl_export_gguf (const tl_export_t *self, const char *path, tl_error_t *err);

//  A Hugging Face directory of the whole model with what was trained in it: config.json, the files beside the base's
//  weights (tokenizer, licence, code), and weights in files of at most shard_bytes. stored: every tensor as the base
//  stores it (fp16 where it is quantised), else all in dtype: fp32, fp16 or bf16.
int tl_export_hf (const tl_export_t *self, const char *directory, bool stored, tl_dtype_t dtype,
                  size_t shard_bytes, tl_error_t *err);

#endif
