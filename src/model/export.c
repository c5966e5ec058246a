//  export: opens adapters and joins them, slot by slot of the model's layout; and PEFT's form of the result.

#include "export_internal.h"

#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  ---------------------------------------------------------------------------------------------
//  Settings

static void
s_show_targets (const tl_adapter_info_t *info, char *text, size_t size)
{
    size_t used = 0;
    *text = 0;
    for (size_t i = 0; i < info->target_count && used < size; i++)
        used +=
            (size_t)snprintf (text + used, size - used, "%s%s", i ? ", " : "", info->targets[i]);
}

//  Adapters that are to be joined must be of one tuning.
static int
s_check_same (const tl_adapter_info_t *one, const char *first, const tl_adapter_info_t *two,
              const char *second, tl_error_t *err)
{
    static const char *const methods[] = {"a LoRA adapter", "full weights", "a prefix"};
    static const char ending[] = "only adapters of one run go together";
    if (one->method != two->method)
        return tl_fail (err, TL_BAD_INPUT, "%s holds %s, %s %s; %s", first, methods[one->method],
                        second, methods[two->method], ending);
    if (one->prefix != two->prefix)
        return tl_fail (err, TL_BAD_INPUT, "num_virtual_tokens is %zu in %s and %zu in %s; %s",
                        one->prefix, first, two->prefix, second, ending);
    if (one->rank != two->rank)
        return tl_fail (err, TL_BAD_INPUT, "r is %zu in %s and %zu in %s; %s", one->rank, first,
                        two->rank, second, ending);
    if (one->alpha != two->alpha)
        return tl_fail (err, TL_BAD_INPUT, "lora_alpha is %g in %s and %g in %s; %s", one->alpha,
                        first, two->alpha, second, ending);
    if (one->rslora != two->rslora)
        return tl_fail (err, TL_BAD_INPUT, "use_rslora is %s in %s and %s in %s; %s",
                        one->rslora ? "true" : "false", first, two->rslora ? "true" : "false",
                        second, ending);
    char ours[TL_MAX_TARGETS * 66], theirs[TL_MAX_TARGETS * 66];
    s_show_targets (one, ours, sizeof ours);
    s_show_targets (two, theirs, sizeof theirs);
    if (strcmp (ours, theirs) != 0)
        return tl_fail (err, TL_BAD_INPUT, "target_modules is [%s] in %s and [%s] in %s; %s", ours,
                        first, theirs, second, ending);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Tensors

//  The place of a tensor among the slots, and the shape it must have. NULL: the model has nothing of that name.
static const tl_st_tensor_t **
s_place (tl_export_t *self, const char *name, tl_tensor_t *shape, size_t *index)
{
    const tl_config_t *config = tl_model_config (self->model);
    tl_slot_t slot, found;
    char factor = 0;
    bool lora = self->info.method == TL_TUNE_LORA;
    if (lora && !tl_adapter_slot (config, name, &found, &factor))
        return NULL;
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_layout_at (config, i, &slot);
        if (strcmp (slot.name, lora ? found.name : name) != 0)
            continue;
        *index = i;
        shape->shape[0] = factor == 'A' ? self->info.rank : slot.rows;
        shape->shape[1] = factor == 'B' ? self->info.rank : slot.columns;
        return factor == 'A'   ? &self->slots[i].a
               : factor == 'B' ? &self->slots[i].b
                               : &self->slots[i].full;
    }
    return NULL;
}

static int
s_take (tl_export_t *self, const tl_safetensors_t *source, const char *path, tl_error_t *err)
{
    for (size_t i = 0; i < tl_safetensors_count (source); i++) {
        const char *name = tl_safetensors_name (source, i);
        tl_tensor_t shape = {.name = name};
        size_t index = 0;
        const tl_st_tensor_t **place = s_place (self, name, &shape, &index);
        if (!place)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s holds %.200s, which is %s of %.200s; name the model it was trained "
                            "on",
                            path, name,
                            self->info.method == TL_TUNE_LORA ? "no LoRA factor of a linear layer"
                                                              : "no weight",
                            tl_model_path (self->model));
        if (*place)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s and %s both hold %.200s; name adapters of different parts",
                            self->slots[index].file, path, name);
        *place = tl_adapter_find (source, name, &shape, path, err);
        if (!*place)
            return -1;
        self->slots[index].file = path;
        self->tensors++;
    }
    return 0;
}

//  Every target of the blocks that this adapter says it has must be in its file, both factors of it.
static int
s_check_complete (const tl_export_t *self, tl_adapter_info_t *info, const char *path,
                  tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    tl_tune_t tune = {.rank = 1};
    if (tl_adapter_tune (info, self->model, &tune, err) != 0)
        return -1;
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        const tl_export_slot_t *taken = &self->slots[i];
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (!tl_tune_trains (&tune, &slot))
            continue;
        int length = (int)(strlen (slot.name) - strlen (".weight"));
        if (!taken->a || !taken->b || strcmp (taken->file, path) != 0)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s has no base_model.model.%.*s.lora_%c.weight, which its "
                            "adapter_config.json speaks of (target_modules, layers_to_transform); "
                            "save the adapter again, or name those of all parts",
                            path, length, slot.name, taken->a ? 'B' : 'A');
    }
    return 0;
}

static int
s_check_pairs (const tl_export_t *self, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        const tl_export_slot_t *taken = &self->slots[i];
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (!taken->a != !taken->b)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s has lora_%c of %s but not lora_%c; save the adapter again",
                            taken->file, taken->a ? 'A' : 'B', slot.name, taken->a ? 'B' : 'A');
        tl_tune_t tune = {.target_count = self->info.target_count};
        memcpy (tune.targets, self->info.targets, sizeof self->info.targets);
        if (taken->a && !tl_tune_targets (&tune, slot.name))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s holds LoRA factors of %s, which target_modules of its "
                            "adapter_config.json doesn't name; correct the file",
                            taken->file, slot.name);
    }
    return 0;
}

static int
s_open (tl_export_t *self, const char *directory, const char *first, tl_error_t *err)
{
    tl_adapter_info_t info = {0};
    if (tl_adapter_check_path (directory, err) != 0 ||
        tl_adapter_info_read (&info, directory, err) != 0)
        return -1;
    bool lora = info.method == TL_TUNE_LORA;
    char *path = tl_format ("%s/%s.safetensors", directory,
                            info.method == TL_TUNE_FULL ? "model" : "adapter_model");
    self->paths[self->count] = path;
    tl_safetensors_t *source = tl_safetensors_open (path, err);
    self->files[self->count++] = source;
    int rc = source ? tl_adapter_check_base (self->model, lora, source, path, err) : -1;
    if (rc == 0 && self->count > 1)
        rc = s_check_same (&self->info, first, &info, directory, err);
    if (self->count == 1) {
        self->info = info;
        memset (&info, 0, sizeof info);
    }
    tl_adapter_info_t *its = self->count == 1 ? &self->info : &info;
    if (rc == 0)
        rc = its->method == TL_TUNE_PTUNING ? tl_export_take_prefix (self, source, its, path, err)
                                            : s_take (self, source, path, err);
    if (rc == 0 && lora)
        rc = s_check_complete (self, its, path, err);
    tl_adapter_info_clear (&info);
    return rc;
}

tl_export_t *
tl_export_new (tl_model_t *model, const char *const *adapters, size_t count, tl_error_t *err)
{
    tl_export_t *self = tl_alloc (sizeof *self);
    self->model = model;
    self->paths = tl_alloc ((count + 1) * sizeof *self->paths);
    self->files = tl_alloc ((count + 1) * sizeof *self->files);
    self->slots = tl_alloc (tl_layout_count (tl_model_config (model)) * sizeof *self->slots);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = s_open (self, adapters[i], adapters[0], err);
    if (rc == 0 && count)
        rc = s_check_pairs (self, err);
    if (rc != 0)
        tl_export_destroy (&self);
    return self;
}

void
tl_export_destroy (tl_export_t **self_p)
{
    tl_export_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++) {
        tl_safetensors_destroy (&self->files[i]);
        free (self->paths[i]);
    }
    tl_adapter_info_clear (&self->info);
    free (self->prefix);
    free (self->owners);
    free (self->paths);
    free (self->files);
    free (self->slots);
    free (self);
    *self_p = NULL;
}

size_t
tl_export_tensors (const tl_export_t *self)
{
    return self->tensors;
}

//  ---------------------------------------------------------------------------------------------
//  PEFT

static int
s_write_factors (const tl_export_t *self, const char *where, tl_error_t *err)
{
    tl_st_tensor_t *tensors = tl_alloc ((self->tensors + 1) * sizeof *tensors);
    size_t slots = tl_layout_count (tl_model_config (self->model)), count = 0;
    for (size_t i = 0; i < slots; i++)
        if (self->slots[i].a) {
            tensors[count++] = *self->slots[i].a;
            tensors[count++] = *self->slots[i].b;
        }
    char *base = tl_adapter_base (self->model);
    const char *const metadata[] = {"format", "pt", TL_BASE_KEY, base, NULL};
    char *path = tl_format ("%s/adapter_model.safetensors", where);
    int rc = tl_safetensors_write (path, 0600, tensors, count, metadata, err);
    free (path);
    free (base);
    free (tensors);
    return rc;
}

static int
s_write_config (const tl_export_t *self, const char *where, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    const tl_adapter_info_t *info = &self->info;
    bool *has = tl_alloc ((config->blocks + 1) * sizeof *has);
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (self->slots[i].a)
            has[slot.block] = true;
    }
    tl_tune_t tune = {.rank = info->rank,
                      .alpha = info->alpha,
                      .dropout = info->dropout,
                      .rslora = info->rslora,
                      .target_count = info->target_count};
    memcpy (tune.targets, info->targets, sizeof info->targets);
    int rc =
        tl_peft_write_config (&tune, tl_model_path (self->model), has, config->blocks, where, err);
    free (has);
    return rc;
}

int
tl_export_peft (const tl_export_t *self, const char *directory, tl_error_t *err)
{
    char where[TL_DIRECTORY_MAX];
    if (self->count == 0 || self->info.method == TL_TUNE_FULL)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s; a PEFT directory holds LoRA or a prefix: export it as hf",
                        self->count ? "these are full weights" : "no adapter is named");
    if (tl_adapter_check_path (directory, err) != 0 ||
        tl_dir_begin (directory, where, sizeof where, err) != 0)
        return -1;
    int rc = self->prefix ? tl_export_write_prefix (self, where, err)
                          : s_write_factors (self, where, err);
    if (rc == 0 && !self->prefix)
        rc = s_write_config (self, where, err);
    if (rc == 0)
        return tl_dir_commit (directory, err);
    tl_remove_tree (where);
    return -1;
}
