/*  export_prefix: trained prefixes (P-tuning v2) of all parts as one, block by block. What a file of them looks like is
    prefix.c's business.                                                                            */

#include "export_internal.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

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
    size_t width = tl_prefix_width (config), rows = info->prefix, whole = config->blocks * width;
    size_t count = info->layers ? info->layer_count : config->blocks;
    float *values = tl_prefix_columns (self->model, source, rows, count, path, err);
    if (!values)
        return -1;
    if (!self->prefix) {
        self->prefix = tl_alloc (rows * whole * sizeof *self->prefix);
        self->owners = tl_alloc (config->blocks * sizeof *self->owners);
    }
    int rc = s_claim (self, info->layers, count, path, err);
    for (size_t i = 0; rc == 0 && i < count; i++)
        for (size_t row = 0; row < rows; row++)
            memcpy (self->prefix + row * whole + (info->layers ? info->layers[i] : i) * width,
                    values + (row * count + i) * width, width * sizeof *values);
    free (values);
    self->tensors += count;
    return rc;
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
    return tl_prefix_save (self->model, self->prefix, self->info.prefix, config->blocks, NULL,
                           where, err);
}
