/*  adapter: what adapter.c, adapter_load.c, peft.c, prefix.c, state.c and export.c share. Private to src/model.                       */

#ifndef TL_MODEL_ADAPTER_H
#define TL_MODEL_ADAPTER_H

#include "internal.h"
#include "order.h"
#include "safetensors.h"

#include <jansson.h>

#include <limits.h>

//  peft.c: adapter_config.json in a directory, for an adapter to base on those of count blocks where has [count] is
//  true. tune: rank, alpha, dropout, rslora, targets.
int tl_peft_write_config (const tl_tune_t *tune, const char *base, const bool *has, size_t count,
                          const char *directory, tl_error_t *err);
int tl_peft_read_config (tl_adapter_info_t *info, const char *directory, tl_error_t *err);

//  What decides the arithmetic of the base, as JSON text under this key of the file's metadata; the caller frees.
#define TL_BASE_KEY "trunkline.base"
//  Full tuning: what stayed frozen, patterns of tune.freeze with commas between them; absent: nothing.
#define TL_FREEZE_KEY "trunkline.freeze"
char *tl_adapter_base (const tl_model_t *model);
//  A directory's path that leaves room for a file's name: joined paths are never cut.
enum { TL_DIRECTORY_MAX = PATH_MAX - 64 };
int tl_adapter_check_path (const char *directory, tl_error_t *err);
//  Which of the model's blocks this part has LoRA for, [blocks]; the caller frees.
bool *tl_part_adapted (const tl_part_t *part);
//  A tensor's values in the file's order or Hugging Face's: its own, or a copy that the caller frees.
float *tl_adapter_ordered (const tl_part_t *part, const tl_tensor_t *tensor, tl_order_t direction);

//  adapter_load.c: holds the base that an adapter was made on, where its file tells, against the model.
int tl_adapter_check_base (const tl_model_t *model, bool lora, const tl_safetensors_t *source,
                           const char *file, tl_error_t *err);
//  The slot of the linear that PEFT's name of a factor ('A' or 'B') is about; false if the model has none.
bool tl_adapter_slot (const tl_config_t *config, const char *name, tl_slot_t *slot, char *factor);
//  Finds a trained tensor, under this name, in a file and checks shape, dtype and that every
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

//  prefix.c: a directory's files; adapter_config.json of a prefix, and which blocks it has; whether the run's
//  tune.prefix is the file's; the part's tensors from the file, after every check.
int tl_prefix_write (const tl_part_t *part, const char *directory, tl_error_t *err);
int tl_prefix_read_config (tl_adapter_info_t *info, const json_t *config, const char *directory,
                           tl_error_t *err);
int tl_prefix_check (const tl_part_t *part, const tl_adapter_info_t *info, const char *file,
                     tl_error_t *err);
int tl_prefix_take (tl_part_t *part, const tl_safetensors_t *source, const char *file,
                    tl_error_t *err);
//  The form itself: values [rows, count * width] are the columns of count blocks, width a block. blocks is the list of
//  them as the metadata have it, or NULL: the first count. columns: a file's, after a check of shape and numbers; NULL
//  on failure, the caller frees.
size_t tl_prefix_width (const tl_config_t *config);
int tl_prefix_save (const tl_model_t *model, const float *values, size_t rows, size_t count,
                    const char *blocks, const char *directory, tl_error_t *err);
float *tl_prefix_columns (const tl_model_t *model, const tl_safetensors_t *source, size_t rows,
                          size_t count, const char *file, tl_error_t *err);

#endif
