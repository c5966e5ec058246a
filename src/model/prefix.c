/*  prefix: trained prefixes (P-tuning v2) as a directory that PEFT's prefix tuning reads, and back. The file
    holds one tensor, prompt_embeddings [rows, blocks * 2 * kv]: for every block its keys, then its values,
    block by block. A part's file has the columns of its own blocks alone; its metadata say which they are.
    No projection: what peft calls prefix_projection is refused.                                      */

#include "adapter.h"

#include "file.h"
#include "memory.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char s_tensor[] = "prompt_embeddings";
static const char s_blocks_key[] = "trunkline.blocks";

enum { MOST_BLOCKS = 4096, MOST_ROWS = 65536 };

size_t
tl_prefix_width (const tl_config_t *config)
{
    return 2 * config->kv_heads * config->head_dim;
}

//  The block of a part's trained tensor.
static size_t
s_block (const tl_tensor_t *tensor)
{
    return strtoull (strrchr (tensor->name, '.') + 1, NULL, 10);
}

//  ---------------------------------------------------------------------------------------------
//  Saving

static int
s_write_config (const tl_model_t *model, size_t rows, size_t blocks, const char *directory,
                tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (model);
    json_int_t width = (json_int_t)(config->kv_heads * config->head_dim);
    json_t *json = json_pack (
        "{s:n, s:s, s:I, s:b, s:I, s:I, s:i, s:I, s:s, s:b, s:n, s:s, s:I}", "auto_mapping",
        "base_model_name_or_path", tl_model_path (model), "encoder_hidden_size", width,
        "inference_mode", 1, "num_attention_heads", (json_int_t)config->kv_heads, "num_layers",
        (json_int_t)blocks, "num_transformer_submodules", 1, "num_virtual_tokens", (json_int_t)rows,
        "peft_type", "PREFIX_TUNING", "prefix_projection", 0, "revision", "task_type", "CAUSAL_LM",
        "token_dim", width);
    if (!json)
        return tl_fail (err, TL_BAD_INPUT,
                        "the model's path is not valid UTF-8 and can't be put into "
                        "adapter_config.json; rename the directory");
    char path[PATH_MAX];
    char *text = json_dumps (json, JSON_INDENT (2) | JSON_SORT_KEYS);
    json_decref (json);
    snprintf (path, sizeof path, "%s/adapter_config.json", directory);
    int rc = tl_file_write (path, text, strlen (text), 0600, err);
    free (text);
    return rc;
}

int
tl_prefix_save (const tl_model_t *model, const float *values, size_t rows, size_t count,
                const char *blocks, const char *directory, tl_error_t *err)
{
    const tl_tensor_t all = {.shape = {rows, count * tl_prefix_width (tl_model_config (model))}};
    tl_st_tensor_t entry = tl_adapter_entry (&all, false, s_tensor, values);
    char path[PATH_MAX], *base = tl_adapter_base (model);
    const char *const metadata[] = {"format", "pt", TL_BASE_KEY, base, blocks ? s_blocks_key : NULL,
                                    blocks,   NULL};
    snprintf (path, sizeof path, "%s/adapter_model.safetensors", directory);
    int rc = tl_safetensors_write (path, 0600, &entry, count ? 1 : 0, metadata, err);
    free (base);
    return rc == 0 ? s_write_config (model, rows, count, directory, err) : rc;
}

//  "0,1,4": blocks in the order of the columns. The caller frees.
static char *
s_block_list (const tl_part_t *part)
{
    char *list = tl_strdup ("");
    for (size_t i = 0; i < part->tensor_count; i++) {
        char *longer = tl_format ("%s%s%zu", list, i ? "," : "", s_block (&part->tensors[i]));
        free (list);
        list = longer;
    }
    return list;
}

int
tl_prefix_write (const tl_part_t *part, const char *directory, tl_error_t *err)
{
    size_t count = part->tensor_count, rows = part->tune.prefix;
    size_t width = tl_prefix_width (tl_model_config (part->model));
    float *values = tl_alloc ((rows * count * width + 1) * sizeof *values);
    for (size_t i = 0; i < count; i++)
        for (size_t row = 0; row < rows; row++)
            memcpy (values + (row * count + i) * width, part->tensors[i].value + row * width,
                    width * sizeof *values);
    char *blocks = s_block_list (part);
    int rc = tl_prefix_save (part->model, values, rows, count, blocks, directory, err);
    free (blocks);
    free (values);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Loading

static int
s_refuse (const char *path, const char *key, const json_t *value, const char *wanted,
          tl_error_t *err)
{
    char *shown = value ? json_dumps (value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    tl_fail (err, TL_BAD_INPUT,
             "%s: %s is %.200s, expected %s; use a prefix made with those settings", path, key,
             shown ? shown : "missing", wanted);
    free (shown);
    return -1;
}

//  Which blocks the columns belong to: as the metadata say, or (blocks NULL) the first count. -1 and a
//  sentence if it is no ascending list.
static int
s_read_blocks (const tl_safetensors_t *source, const char *file, size_t **blocks, size_t *count,
               tl_error_t *err)
{
    const char *text = tl_safetensors_metadata (source, s_blocks_key);
    *blocks = NULL;
    *count = 0;
    if (!text)
        return 0;
    *blocks = tl_alloc (MOST_BLOCKS * sizeof **blocks);
    bool good = true;
    for (const char *at = text; good && *at;) {
        char *end = NULL;
        unsigned long long block = *at >= '0' && *at <= '9' ? strtoull (at, &end, 10) : MOST_BLOCKS;
        good = block < MOST_BLOCKS && (*count == 0 || block > (*blocks)[*count - 1]) &&
               (*end == 0 || (*end == ',' && end[1]));
        if (good) {
            (*blocks)[(*count)++] = (size_t)block;
            at = *end ? end + 1 : end;
        }
    }
    if (good)
        return 0;
    free (*blocks);
    *blocks = NULL;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: %s is '%.80s', expected ascending numbers of blocks such as 0,1,5; use an "
                    "earlier save",
                    file, s_blocks_key, text);
}

int
tl_prefix_read_config (tl_adapter_info_t *info, const json_t *config, const char *directory,
                       tl_error_t *err)
{
    char path[PATH_MAX];
    snprintf (path, sizeof path, "%s/adapter_config.json", directory);
    const json_t *projection = json_object_get (config, "prefix_projection");
    if (projection && !json_is_null (projection) && !json_is_false (projection))
        return s_refuse (path, "prefix_projection", projection, "false", err);
    const json_t *rows = json_object_get (config, "num_virtual_tokens");
    if (!json_is_integer (rows) || json_integer_value (rows) < 1 ||
        json_integer_value (rows) > MOST_ROWS)
        return s_refuse (path, "num_virtual_tokens", rows, "a whole number from 1 to 65536", err);
    const char *base = json_string_value (json_object_get (config, "base_model_name_or_path"));
    info->method = TL_TUNE_PTUNING;
    info->prefix = (size_t)json_integer_value (rows);
    info->base = tl_strdup (base ? base : "");
    snprintf (path, sizeof path, "%s/adapter_model.safetensors", directory);
    tl_safetensors_t *source = tl_exists (path) ? tl_safetensors_open (path, err) : NULL;
    if (!source)
        return tl_exists (path)
                   ? -1
                   : tl_fail (err, TL_BAD_INPUT,
                              "%s is not there; save the prefix with safe_serialization=True",
                              path);
    int rc = s_read_blocks (source, path, &info->layers, &info->layer_count, err);
    if (info->layer_count == 0) { //  nothing was trained there, or nothing is said: all blocks
        free (info->layers);
        info->layers = NULL;
    }
    tl_safetensors_destroy (&source);
    return rc;
}

int
tl_prefix_check (const tl_part_t *part, const tl_adapter_info_t *info, const char *file,
                 tl_error_t *err)
{
    if (info->prefix == part->tune.prefix)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: num_virtual_tokens is %zu, this run has tune.prefix %zu; set tune.prefix: "
                    "%zu or use another prefix",
                    file, info->prefix, part->tune.prefix, info->prefix);
}

//  The place of a block's columns in the file.
static int
s_find_block (const size_t *blocks, size_t count, size_t block, const char *file, size_t *place,
              tl_error_t *err)
{
    for (*place = 0; *place < count; (*place)++)
        if ((blocks ? blocks[*place] : *place) == block)
            return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s has no columns of block %zu, which this part trains; use a prefix made "
                    "with the same split, tune.parts and tune.freeze",
                    file, block);
}

float *
tl_prefix_columns (const tl_model_t *model, const tl_safetensors_t *source, size_t rows,
                   size_t count, const char *file, tl_error_t *err)
{
    size_t width = tl_prefix_width (tl_model_config (model));
    const tl_tensor_t all = {.name = s_tensor, .shape = {rows, count * width}};
    const tl_st_tensor_t *found = tl_adapter_find (source, s_tensor, &all, file, err);
    if (!found)
        return NULL;
    float *values = tl_alloc (rows * count * width * sizeof *values);
    tl_adapter_copy (values, found);
    return values;
}

static int
s_take (tl_part_t *part, const tl_safetensors_t *source, const size_t *blocks, size_t count,
        const char *file, tl_error_t *err)
{
    size_t rows = part->tensors[0].shape[0], width = part->tensors[0].shape[1], place = 0;
    for (size_t i = 0; i < part->tensor_count; i++)
        if (s_find_block (blocks, count, s_block (&part->tensors[i]), file, &place, err) != 0)
            return -1;
    float *values = tl_prefix_columns (part->model, source, rows, count, file, err);
    if (!values)
        return -1;
    for (size_t i = 0; i < part->tensor_count; i++) {
        s_find_block (blocks, count, s_block (&part->tensors[i]), file, &place, NULL);
        for (size_t row = 0; row < rows; row++)
            memcpy (part->tensors[i].value + row * width, values + (row * count + place) * width,
                    width * sizeof *values);
    }
    free (values);
    return 0;
}

int
tl_prefix_take (tl_part_t *part, const tl_safetensors_t *source, const char *file, tl_error_t *err)
{
    size_t *blocks = NULL, count = 0;
    if (part->tensor_count == 0)
        return 0;
    if (s_read_blocks (source, file, &blocks, &count, err) != 0)
        return -1;
    if (!blocks)
        count = tl_model_config (part->model)->blocks;
    int rc = s_take (part, source, blocks, count, file, err);
    free (blocks);
    return rc;
}
