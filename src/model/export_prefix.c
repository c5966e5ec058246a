/*  export_prefix: trained prefixes (P-tuning v2) of all parts as one directory of PEFT's prefix tuning: the tensor
    prompt_embeddings [rows, blocks * 2 * kv], for every block its keys, then its values.            */

#include "export_internal.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char s_tensor[] = "prompt_embeddings";

static size_t
s_width (const tl_config_t *config)
{
    return 2 * config->kv_heads * config->head_dim;
}

//  Marks the file's blocks as its own.
static int
s_claim (tl_export_t *self, const size_t *blocks, size_t count, const char *path, tl_error_t *err)
{
    size_t all = tl_model_config (self->model)->blocks;
    for (size_t i = 0; i < count; i++) {
        size_t block = blocks ? blocks[i] : i;
        if (block >= all)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s has columns of block %zu, %.300s has blocks 0 to %zu; name the "
                            "model it was trained on",
                            path, block, tl_model_path (self->model), all - 1);
        if (self->owners[block])
            return tl_fail (err, TL_BAD_INPUT,
                            "%s and %s both hold the prefix of block %zu; name adapters of "
                            "different parts",
                            self->owners[block], path, block);
        self->owners[block] = path;
    }
    return 0;
}

int
tl_export_take_prefix (tl_export_t *self, const tl_safetensors_t *source,
                       const tl_adapter_info_t *info, const char *path, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    size_t width = s_width (config), rows = info->prefix, whole = config->blocks * width;
    size_t count = info->layers ? info->layer_count : config->blocks;
    const tl_tensor_t shape = {.name = s_tensor, .shape = {rows, count * width}};
    const tl_st_tensor_t *found = tl_adapter_find (source, s_tensor, &shape, path, err);
    if (!found)
        return -1;
    if (!self->prefix) {
        self->prefix = tl_alloc (rows * whole * sizeof *self->prefix);
        self->owners = tl_alloc (config->blocks * sizeof *self->owners);
    }
    if (s_claim (self, info->layers, count, path, err) != 0)
        return -1;
    float *values = tl_alloc (rows * count * width * sizeof *values);
    tl_adapter_copy (values, found);
    for (size_t i = 0; i < count; i++)
        for (size_t row = 0; row < rows; row++)
            memcpy (self->prefix + row * whole + (info->layers ? info->layers[i] : i) * width,
                    values + (row * count + i) * width, width * sizeof *values);
    free (values);
    self->tensors += count;
    return 0;
}

int
tl_export_write_prefix (const tl_export_t *self, const char *where, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    for (size_t i = 0; i < config->blocks; i++)
        if (!self->owners[i])
            return tl_fail (err, TL_BAD_INPUT,
                            "no prefix for block %zu was trained, and PEFT's prefix tuning has one "
                            "in every block; name the adapters of all parts, or train without "
                            "tune.parts and tune.freeze",
                            i);
    const tl_tensor_t shape = {.shape = {self->info.prefix, config->blocks * s_width (config)}};
    const tl_st_tensor_t tensor = tl_adapter_entry (&shape, false, s_tensor, self->prefix);
    char *base = tl_adapter_base (self->model);
    const char *const metadata[] = {"format", "pt", TL_BASE_KEY, base, NULL};
    char *path = tl_format ("%s/adapter_model.safetensors", where);
    int rc = tl_safetensors_write (path, 0600, &tensor, 1, metadata, err);
    free (path);
    free (base);
    return rc == 0
               ? tl_prefix_write_config (self->model, self->info.prefix, config->blocks, where, err)
               : rc;
}
