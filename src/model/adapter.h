/*  adapter: what adapter.c, peft.c and state.c share. Private to src/model.                       */

#ifndef TL_MODEL_ADAPTER_H
#define TL_MODEL_ADAPTER_H

#include "internal.h"
#include "safetensors.h"

//  peft.c: adapter_config.json in a directory, for an adapter to base on those of count blocks where has [count] is
//  true. tune: rank, alpha, dropout, rslora, targets.
int tl_peft_write_config (const tl_tune_t *tune, const char *base, const bool *has, size_t count,
                          const char *directory, tl_error_t *err);
int tl_peft_read_config (tl_adapter_info_t *info, const char *directory, tl_error_t *err);

//  adapter.c: finds a trained tensor, under this name, in a file and checks shape, dtype and that every
//  value is finite. NULL and a sentence otherwise; file is for the sentence.
const tl_st_tensor_t *tl_adapter_find (const tl_safetensors_t *source, const char *name,
                                       const tl_tensor_t *tensor, const char *file,
                                       tl_error_t *err);
//  Copies it to where it belongs, widened to fp32.
void tl_adapter_copy (float *to, const tl_st_tensor_t *from);
//  A trained tensor's values as something to write under this name. Vectors of a checkpoint have one
//  dimension, everything else two.
tl_st_tensor_t tl_adapter_entry (const tl_tensor_t *tensor, bool vector, const char *name,
                                 const float *values);

#endif
