/*  export_hf: the whole model with what was trained in it, as a Hugging Face directory. One tensor is in memory at
    a time: widened, W + scaling * B A, narrowed, written. Weights are as private as the text they were trained on: nobody
    else may read them.                                                                             */

#include "export_internal.h"

#include "checkpoint.h"
#include "gguf_config.h"
#include "side.h"

#include "file.h"
#include "log.h"
#include "memory.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 1 << 20 };

typedef struct {
    const tl_export_t *export;
    bool stored;
    tl_dtype_t dtype;
    tl_slot_t *slots;        //  [count], names of the tensors
    tl_st_tensor_t *tensors; //  [count], without data
    size_t count;
} s_merge_t;

static tl_dtype_t
s_dtype_of (const s_merge_t *self, const tl_weight_t *weight)
{
    if (!self->stored)
        return self->dtype;
    return tl_dtype_block (weight->dtype) > 1 ? TL_F16 : weight->dtype;
}

static int
s_list (s_merge_t *self, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->export->model);
    self->count = tl_layout_count (config);
    self->slots = tl_alloc (self->count * sizeof *self->slots);
    self->tensors = tl_alloc (self->count * sizeof *self->tensors);
    for (size_t i = 0; i < self->count; i++) {
        tl_slot_t *slot = &self->slots[i];
        tl_weight_t weight;
        tl_layout_at (config, i, slot);
        if (tl_model_weight (self->export->model, slot->name, slot->rows, slot->columns, &weight,
                             err) != 0)
            return -1;
        tl_dtype_t dtype = s_dtype_of (self, &weight);
        self->tensors[i] =
            (tl_st_tensor_t){.name = slot->name,
                             .dtype = dtype == TL_F32   ? TL_ST_F32
                                      : dtype == TL_F16 ? TL_ST_F16
                                                        : TL_ST_BF16,
                             .dimensions = slot->vector ? 1 : 2,
                             .shape = {slot->rows, slot->columns},
                             .bytes = tl_dtype_bytes (dtype, slot->rows * slot->columns)};
    }
    return 0;
}

//  values [rows, columns] += scaling * B A.
static void
s_add_lora (const tl_export_t *self, const tl_slot_t *slot, const tl_export_slot_t *taken,
            float *values)
{
    size_t rank = self->info.rank;
    float *a = tl_alloc_aligned (rank * slot->columns * sizeof *a);
    float *b = tl_alloc_aligned (slot->rows * rank * sizeof *b);
    float *turned = tl_alloc_aligned (slot->rows * rank * sizeof *turned);
    tl_adapter_copy (a, taken->a);
    tl_adapter_copy (b, taken->b);
    for (size_t row = 0; row < slot->rows; row++)
        for (size_t i = 0; i < rank; i++)
            turned[i * slot->rows + row] = b[row * rank + i];
    const tl_tune_t tune = {.rank = rank, .alpha = self->info.alpha, .rslora = self->info.rslora};
    tl_kernels ()->linear_backward_weight (values, NULL, turned, a, rank, slot->columns, slot->rows,
                                           tl_tune_scaling (&tune));
    free (turned);
    free (b);
    free (a);
}

//  The slot's values in fp32 and Hugging Face's order, with what was trained.
static int
s_merge (const tl_export_t *self, size_t index, const tl_slot_t *slot, float *values,
         tl_error_t *err)
{
    const tl_export_slot_t *taken = &self->slots[index];
    const tl_config_t *config = tl_model_config (self->model);
    size_t count = slot->rows * slot->columns;
    tl_weight_t weight;
    if (taken->full) {
        tl_adapter_copy (values, taken->full);
        return 0;
    }
    if (tl_model_weight (self->model, slot->name, slot->rows, slot->columns, &weight, err) != 0)
        return -1;
    tl_widen (values, weight.data, weight.dtype, count);
    if (tl_is_reordered (config, slot->name)) {
        float *ordered = tl_alloc_aligned (count * sizeof *ordered);
        tl_reorder (config, slot->name, TL_ORDER_TO_HF, ordered, values, slot->rows,
                    slot->columns * sizeof (float));
        memcpy (values, ordered, count * sizeof *values);
        free (ordered);
    }
    if (taken->a)
        s_add_lora (self, slot, taken, values);
    return 0;
}

//  Rounded to what is stored; a value that fp16 can't hold is no weight.
static int
s_narrow (const tl_slot_t *slot, void *stored, float *values, tl_dtype_t dtype, tl_error_t *err)
{
    size_t count = slot->rows * slot->columns;
    tl_narrow (stored, values, dtype, count);
    tl_widen (values, stored, dtype, count);
    if (tl_kernels ()->all_finite (values, count))
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: %s holds values that %s can't; use --dtype bf16 or fp32, or look for a "
                    "broken weight",
                    "export", slot->name, tl_dtype_name (dtype));
}

static int
s_write_weights (const s_merge_t *self, const char *where, size_t shard_bytes, tl_error_t *err)
{
    tl_checkpoint_t *checkpoint =
        tl_checkpoint_new (where, self->tensors, self->count, shard_bytes, 0600, err);
    int rc = checkpoint ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < self->count; i++) {
        const tl_slot_t *slot = &self->slots[i];
        const tl_st_tensor_t *tensor = &self->tensors[i];
        tl_dtype_t dtype = tensor->dtype == TL_ST_F32   ? TL_F32
                           : tensor->dtype == TL_ST_F16 ? TL_F16
                                                        : TL_BF16;
        float *values = tl_alloc_aligned (slot->rows * slot->columns * sizeof *values);
        void *stored = tl_alloc_aligned (tensor->bytes);
        rc = s_merge (self->export, i, slot, values, err);
        if (rc == 0)
            rc = s_narrow (slot, stored, values, dtype, err);
        if (rc == 0)
            rc = tl_checkpoint_add (checkpoint, stored, tensor->bytes, err);
        free (stored);
        free (values);
    }
    if (rc == 0)
        rc = tl_checkpoint_finish (checkpoint, err);
    tl_checkpoint_destroy (&checkpoint);
    return rc;
}

//  config.json of the base; of a GGUF file what its metadata amount to.
static json_t *
s_read_config (tl_model_t *model, tl_error_t *err)
{
    if (tl_model_gguf (model)) {
        if (!tl_model_rope_factors (model))
            return tl_gguf_config_json (tl_model_gguf (model), err);
        tl_fail (err, TL_BAD_INPUT,
                 "%s scales rotary by factors that config.json has no words for; export on the "
                 "Hugging Face directory that the file was made from",
                 tl_model_path (model));
        return NULL;
    }
    char *path = tl_format ("%s/config.json", tl_model_path (model));
    size_t size = 0;
    char *text = tl_file_read (path, MAX_CONFIG, &size, err);
    json_t *config = text ? json_loadb (text, size, 0, NULL) : NULL;
    if (text && !config)
        tl_fail (err, TL_BAD_INPUT, "%s is no longer valid JSON; fetch the file again", path);
    free (text);
    free (path);
    return config;
}

//  With the type that the weights are stored in now.
static int
s_write_config (const s_merge_t *self, const char *where, tl_error_t *err)
{
    static const char *const names[] = {
        [TL_ST_F32] = "float32", [TL_ST_F16] = "float16", [TL_ST_BF16] = "bfloat16"};
    json_t *config = s_read_config (self->export->model, err);
    if (!config)
        return -1;
    const char *key = json_object_get (config, "dtype") ? "dtype" : "torch_dtype";
    json_object_set_new (config, key, json_string (names[self->tensors[0].dtype]));
    char *text = json_dumps (config, JSON_INDENT (2));
    char *path = tl_format ("%s/config.json", where);
    int rc = tl_file_write (path, text, strlen (text), 0644, err);
    free (path);
    free (text);
    json_decref (config);
    return rc;
}

static int
s_write (const s_merge_t *self, const char *where, size_t shard_bytes, tl_error_t *err)
{
    tl_model_t *model = self->export->model;
    if (s_write_config (self, where, err) != 0)
        return -1;
    if (tl_model_gguf (model))
        tl_warn (
            "no tokenizer files are written, the tokenizer is inside %s: copy those of the model "
            "that it was made from beside config.json",
            tl_model_path (model));
    else if (tl_side_copy (tl_model_path (model), where, err) != 0)
        return -1;
    return s_write_weights (self, where, shard_bytes, err);
}

int
tl_export_hf (const tl_export_t *self, const char *directory, bool stored, tl_dtype_t dtype,
              size_t shard_bytes, tl_error_t *err)
{
    char where[TL_DIRECTORY_MAX];
    s_merge_t merge = {.export = self, .stored = stored, .dtype = dtype};
    if (self->prefix)
        return tl_fail (err, TL_BAD_INPUT,
                        "a prefix is no change of weights and can't be merged; export it as peft");
    int rc = s_list (&merge, err);
    if (rc == 0)
        rc = tl_adapter_check_path (directory, err);
    if (rc == 0)
        rc = tl_dir_begin (directory, where, sizeof where, err);
    if (rc == 0) {
        rc = s_write (&merge, where, shard_bytes, err);
        if (rc == 0)
            rc = tl_dir_commit (directory, err);
        else
            tl_remove_tree (where);
    }
    free (merge.slots);
    free (merge.tensors);
    return rc;
}
