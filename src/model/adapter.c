/*  adapter: a part's trained tensors as a directory. LoRA becomes a PEFT directory that peft and transformers load
    unchanged; full tuning becomes a Hugging Face directory with the trained tensors in fp32 under the
    checkpoint's names. A directory appears whole or not at all. Loading is adapter_load.c.            */

#include "adapter.h"
#include "config.h"
#include "gguf_config.h"
#include "order.h"
#include "segment.h"

#include "file.h"
#include "log.h"
#include "memory.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIDE_FILE ((size_t)256 << 20)

tl_st_tensor_t
tl_adapter_entry (const tl_tensor_t *tensor, bool vector, const char *name, const float *values)
{
    return (tl_st_tensor_t){
        .name = name,
        .dtype = TL_ST_F32,
        .dimensions = vector ? 1 : 2,
        .shape = {tensor->shape[0], tensor->shape[1]},
        .bytes = tensor->shape[0] * tensor->shape[1] * sizeof (float),
        .data = values,
    };
}

int
tl_adapter_check_path (const char *directory, tl_error_t *err)
{
    if (strlen (directory) < TL_DIRECTORY_MAX)
        return 0;
    return tl_fail (err, TL_BAD_INPUT, "the path %.200s... is too long; use a shorter one",
                    directory);
}

char *
tl_adapter_base (const tl_model_t *model)
{
    json_t *base = tl_config_canonical (tl_model_config (model));
    if (tl_model_rope_factors (model))
        json_object_set_new (base, "rope_factors", json_true ());
    char *text = json_dumps (base, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION (17));
    json_decref (base);
    return text;
}

float *
tl_adapter_ordered (const tl_part_t *part, const tl_tensor_t *tensor, tl_order_t direction)
{
    const tl_config_t *config = tl_model_config (part->model);
    const size_t row = tensor->shape[1] * sizeof (float);
    if (!tl_is_reordered (config, tensor->name))
        return tensor->value;
    float *copy = tl_alloc_aligned (tensor->shape[0] * row);
    tl_reorder (config, tensor->name, direction, copy, tensor->value, tensor->shape[0], row);
    return copy;
}

static int
s_write_tensors (const tl_part_t *part, const char *path, tl_error_t *err)
{
    const bool full = part->tune.method == TL_TUNE_FULL;
    tl_st_tensor_t *entries = tl_alloc ((part->tensor_count + 1) * sizeof *entries);
    for (size_t i = 0; i < part->tensor_count; i++) {
        const tl_tensor_t *tensor = &part->tensors[i];
        entries[i] = tl_adapter_entry (tensor, full && tensor->shape[1] == 1, tensor->name,
                                       tl_adapter_ordered (part, tensor, TL_ORDER_TO_HF));
    }
    char *base = tl_adapter_base (part->model);
    char *freeze = tl_strdup ("");
    for (size_t i = 0; full && i < part->tune.freeze_count; i++) {
        char *longer = tl_format ("%s%s%s", freeze, i ? "," : "", part->tune.freeze[i]);
        free (freeze);
        freeze = longer;
    }
    const char *const metadata[] = {
        "format", "pt", TL_BASE_KEY, base, *freeze ? TL_FREEZE_KEY : NULL, freeze, NULL};
    int rc = tl_safetensors_write (path, 0600, entries, part->tensor_count, metadata, err);
    free (freeze);
    free (base);
    for (size_t i = 0; i < part->tensor_count; i++)
        if (entries[i].data != part->tensors[i].value)
            free ((void *)entries[i].data);
    free (entries);
    return rc;
}

//  Copies a file of the model's directory; one that isn't there is no error.
static int
s_copy (const char *from, const char *to, const char *name, tl_error_t *err)
{
    char source[PATH_MAX], target[PATH_MAX];
    snprintf (source, sizeof source, "%s/%s", from, name);
    snprintf (target, sizeof target, "%s/%s", to, name);
    if (!tl_exists (source))
        return 0;
    size_t size = 0;
    char *data = tl_file_read (source, MAX_SIDE_FILE, &size, err);
    if (!data)
        return -1;
    int rc = tl_file_write (target, data, size, 0644, err);
    free (data);
    return rc;
}

static bool
s_is_whole (const tl_part_t *part)
{
    const tl_range_t *first = &part->ranges[0], *last = &part->ranges[part->range_count - 1];
    bool joined = part->range_count == 1 || first->last == last->first;
    const tl_config_t *config = tl_model_config (part->model);
    return first->embed && first->first == 0 && joined && last->head &&
           last->last == config->blocks && part->tensor_count == tl_layout_count (config);
}

//  The config.json that the GGUF's metadata amount to. llama3's scaling can't be told from its factors: without it the
//  directory would be another model, so then it stays an adapter to its base.
static int
s_write_gguf_config (const tl_part_t *part, const char *where, tl_error_t *err)
{
    char path[PATH_MAX];
    if (tl_model_rope_factors (part->model)) {
        tl_info ("%s: no config.json: the base's rotary scaling has none; use it with --model %s",
                 where, tl_model_path (part->model));
        return 0;
    }
    json_t *config = tl_gguf_config_json (tl_model_gguf (part->model), err);
    if (!config)
        return -1;
    char *text = json_dumps (config, JSON_INDENT (2) | JSON_SORT_KEYS);
    json_decref (config);
    snprintf (path, sizeof path, "%s/config.json", where);
    int rc = tl_file_write (path, text, strlen (text), 0644, err);
    free (text);
    return rc;
}

//  A whole tuned model is a model: it gets the tokenizer as well.
static int
s_write_full (const tl_part_t *part, const char *where, tl_error_t *err)
{
    static const char *const side[] = {"config.json",     "generation_config.json",
                                       "tokenizer.model", "ice_text.model",
                                       "tokenizer.json",  "vocab.json",
                                       "merges.txt",      "tokenizer_config.json"};
    char path[PATH_MAX];
    snprintf (path, sizeof path, "%s/model.safetensors", where);
    if (s_write_tensors (part, path, err) != 0)
        return -1;
    if (tl_model_gguf (part->model))
        return s_write_gguf_config (part, where, err);
    size_t count = s_is_whole (part) ? sizeof side / sizeof *side : 1;
    for (size_t i = 0; i < count; i++)
        if (s_copy (tl_model_path (part->model), where, side[i], err) != 0)
            return -1;
    return 0;
}

bool *
tl_part_adapted (const tl_part_t *part)
{
    const tl_config_t *config = tl_model_config (part->model);
    bool *has = tl_alloc ((config->blocks + 1) * sizeof *has);
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (tl_part_owns (part, config, &slot) && tl_tune_trains (&part->tune, &slot))
            has[slot.block] = true;
    }
    return has;
}

static int
s_write_lora (const tl_part_t *part, const char *where, tl_error_t *err)
{
    char path[PATH_MAX];
    snprintf (path, sizeof path, "%s/adapter_model.safetensors", where);
    if (s_write_tensors (part, path, err) != 0)
        return -1;
    bool *has = tl_part_adapted (part);
    int rc = tl_peft_write_config (&part->tune, tl_model_path (part->model), has,
                                   tl_model_config (part->model)->blocks, where, err);
    free (has);
    return rc;
}

int
tl_part_save_adapter (const tl_part_t *self, const char *directory, tl_error_t *err)
{
    char where[TL_DIRECTORY_MAX];
    if (tl_adapter_check_path (directory, err) != 0 ||
        tl_adapter_check_path (tl_model_path (self->model), err) != 0 ||
        tl_dir_begin (directory, where, sizeof where, err) != 0)
        return -1;
    int rc = self->tune.method == TL_TUNE_LORA      ? s_write_lora (self, where, err)
             : self->tune.method == TL_TUNE_PTUNING ? tl_prefix_write (self, where, err)
                                                    : s_write_full (self, where, err);
    if (rc == 0)
        rc = tl_dir_commit (directory, err);
    else
        tl_remove_tree (where);
    return rc;
}
