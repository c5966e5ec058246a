/*  adapter_load: an adapter's directory back into a part, or into whoever exports it. It comes from anybody: the
    base it was made on, its settings, and names, shapes, types and values of its tensors are held against model
    and part, and nothing changes before all of it fits.                                              */

#include "adapter.h"
#include "config.h"
#include "order.h"
#include "segment.h"

#include "file.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tl_dtype_t
s_dtype (tl_st_dtype_t stored)
{
    return stored == TL_ST_F16 ? TL_F16 : stored == TL_ST_BF16 ? TL_BF16 : TL_F32;
}

static size_t
s_count (const tl_st_tensor_t *tensor)
{
    return tensor->bytes / tl_st_dtype_size (tensor->dtype);
}

void
tl_adapter_copy (float *to, const tl_st_tensor_t *from)
{
    tl_widen (to, from->data, s_dtype (from->dtype), s_count (from));
}

//  Widened in pieces: the whole part is checked before anything of it changes.
static bool
s_finite (const tl_st_tensor_t *tensor)
{
    float piece[1024];
    const size_t width = tl_st_dtype_size (tensor->dtype), count = s_count (tensor);
    for (size_t done = 0; done < count;) {
        size_t now = count - done < 1024 ? count - done : 1024;
        tl_widen (piece, (const char *)tensor->data + done * width, s_dtype (tensor->dtype), now);
        for (size_t i = 0; i < now; i++)
            if (!isfinite (piece[i]))
                return false;
        done += now;
    }
    return true;
}

const tl_st_tensor_t *
tl_adapter_find (const tl_safetensors_t *source, const char *name, const tl_tensor_t *tensor,
                 const char *file, tl_error_t *err)
{
    const tl_st_tensor_t *found = tl_safetensors_find (source, name);
    if (!found) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s has no tensor %.200s, which this part trains; use a file made with the same "
                 "model, tune.method, tune.targets and split",
                 file, name);
        return NULL;
    }
    size_t rows = found->dimensions > 0 ? found->shape[0] : 0;
    size_t columns = found->dimensions > 1 ? found->shape[1] : 1;
    if (found->dimensions > 2 || rows != tensor->shape[0] || columns != tensor->shape[1]) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s: tensor %.200s has shape [%zu, %zu], this part needs [%zu, %zu]; use a file "
                 "made with the same model and rank",
                 file, name, rows, columns, tensor->shape[0], tensor->shape[1]);
        return NULL;
    }
    if (found->dtype != TL_ST_F32 && found->dtype != TL_ST_F16 && found->dtype != TL_ST_BF16) {
        tl_fail (
            err, TL_BAD_INPUT,
            "%s: tensor %.200s has dtype %s, expected F32, F16 or BF16; save it in one of those",
            file, name, tl_st_dtype_name (found->dtype));
        return NULL;
    }
    if (!s_finite (found)) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s: tensor %.200s holds values that are not finite; use an earlier save", file,
                 name);
        return NULL;
    }
    return found;
}

//  ---------------------------------------------------------------------------------------------
//  Checks

//  Holds the base that an adapter was made on, where the file tells, against this model, key by key.
static int
s_check_text (const tl_model_t *model, const char *text, const char *file, tl_error_t *err)
{
    //  Special ids and the longest sequence don't enter the arithmetic.
    static const char *const keys[] = {"family", "vocab",    "hidden",     "inner",    "blocks",
                                       "heads",  "kv_heads", "head_dim",   "norm_eps", "rope_base",
                                       "alpha",  "tied",     "rope_llama3"};
    json_t *theirs = text ? json_loads (text, 0, NULL) : NULL;
    if (!theirs)
        return 0;
    json_t *ours = tl_config_canonical (tl_model_config (model));
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof keys / sizeof *keys; i++) {
        const json_t *one = json_object_get (theirs, keys[i]);
        const json_t *two = json_object_get (ours, keys[i]);
        //  A GGUF file holds what llama3's scaling comes to, not its four numbers.
        bool unknown = strcmp (keys[i], "rope_llama3") == 0 &&
                       (json_object_get (theirs, "rope_factors") || tl_model_rope_factors (model));
        if (json_equal (one, two) || (!one && !two) || unknown)
            continue;
        char *a = one ? json_dumps (one, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        char *b = two ? json_dumps (two, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s was made on a base whose %s is %.80s, %.300s has %.80s; load it onto the "
                      "model it was trained on",
                      file, keys[i], a ? a : "unset", tl_model_path (model), b ? b : "unset");
        free (a);
        free (b);
    }
    json_decref (ours);
    json_decref (theirs);
    return rc;
}

//  An adapter written by peft doesn't say its base's family, but its names do.
static int
s_check_family (const tl_model_t *model, const tl_safetensors_t *source, const char *file,
                tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (model);
    const char *block = tl_layout_block (config);
    char root[96];
    snprintf (root, sizeof root, "base_model.model.%.*s", (int)strcspn (block, "%"), block);
    const char *name = tl_safetensors_count (source) ? tl_safetensors_name (source, 0) : root;
    if (strncmp (name, root, strlen (root)) == 0)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s holds %.200s, an adapter for a %s model has names that begin with %s; load "
                    "it onto the model it was trained on",
                    file, name, tl_family_name (config->family), root);
}

int
tl_adapter_check_base (const tl_model_t *model, bool lora, const tl_safetensors_t *source,
                       const char *file, tl_error_t *err)
{
    int rc = s_check_text (model, tl_safetensors_metadata (source, TL_BASE_KEY), file, err);
    return rc == 0 && lora ? s_check_family (model, source, file, err) : rc;
}

//  A file that says of this part's blocks other than what the part trains is of another tuning.
static int
s_check_layers (const tl_part_t *part, const tl_adapter_info_t *info, const char *file,
                tl_error_t *err)
{
    if (!info->layers)
        return 0;
    const tl_config_t *config = tl_model_config (part->model);
    size_t last = info->layers[info->layer_count - 1];
    if (last >= config->blocks)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: layers_to_transform names block %zu, %.300s has blocks 0 to %zu; load "
                        "it onto the model it was trained on",
                        file, last, tl_model_path (part->model), config->blocks - 1);
    bool *ours = tl_part_adapted (part);
    int rc = 0;
    for (size_t b = 0, at = 0; rc == 0 && b < config->blocks; b++) {
        while (at < info->layer_count && info->layers[at] < b)
            at++;
        bool theirs = at < info->layer_count && info->layers[at] == b;
        if (ours[b] && !theirs)
            rc =
                tl_fail (err, TL_BAD_INPUT,
                         "%s: layers_to_transform leaves out block %zu, which this run trains; set "
                         "tune.freeze to the blocks that it leaves out, or use another adapter",
                         file, b);
    }
    free (ours);
    return rc;
}

static int
s_check_tune (const tl_part_t *part, const tl_adapter_info_t *info, const char *file,
              tl_error_t *err)
{
    const tl_tune_t *tune = &part->tune;
    if (info->rank != tune->rank)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: r is %zu, this run has tune.rank %zu; set tune.rank: %zu or use another "
            "adapter",
            file, info->rank, tune->rank, info->rank);
    if (info->alpha != tune->alpha)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: lora_alpha is %g, this run has tune.alpha %g; set tune.alpha: %g or use "
            "another adapter",
            file, info->alpha, tune->alpha, info->alpha);
    if (info->rslora != tune->rslora)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: use_rslora is %s, this run has tune.rslora %s; set tune.rslora: %s or use "
            "another adapter",
            file, info->rslora ? "true" : "false", tune->rslora ? "true" : "false",
            info->rslora ? "true" : "false");
    char theirs[TL_MAX_TARGETS * 66] = "", ours[TL_MAX_TARGETS * 66] = "";
    bool same = info->target_count == tune->target_count;
    for (size_t i = 0; i < info->target_count; i++) {
        bool found = false;
        for (size_t k = 0; k < tune->target_count; k++)
            found = found || strcmp (info->targets[i], tune->targets[k]) == 0;
        same = same && found;
        size_t used = strlen (theirs);
        snprintf (theirs + used, sizeof theirs - used, "%s%s", i ? ", " : "", info->targets[i]);
    }
    for (size_t i = 0; i < tune->target_count; i++) {
        size_t used = strlen (ours);
        snprintf (ours + used, sizeof ours - used, "%s%s", i ? ", " : "", tune->targets[i]);
    }
    if (same)
        return s_check_layers (part, info, file, err);
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s: target_modules is [%s], this run has tune.targets [%s]; set the same or use "
        "another adapter",
        file, theirs, ours);
}

bool
tl_adapter_slot (const tl_config_t *config, const char *name, tl_slot_t *slot, char *factor)
{
    static const char prefix[] = "base_model.model.";
    const char *end = strstr (name, ".lora_");
    if (strncmp (name, prefix, sizeof prefix - 1) != 0 || !end ||
        (strcmp (end, ".lora_A.weight") != 0 && strcmp (end, ".lora_B.weight") != 0))
        return false;
    *factor = end[6];
    name += sizeof prefix - 1;
    size_t length = (size_t)(end - name);
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_layout_at (config, i, slot);
        if (slot->linear && strncmp (slot->name, name, length) == 0 &&
            strcmp (slot->name + length, ".weight") == 0)
            return true;
    }
    return false;
}

//  The model's own tensor of that name; false if it has none (buffers, a tied head's copy).
static bool
s_weight_slot (const tl_config_t *config, const char *name, tl_slot_t *slot)
{
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_layout_at (config, i, slot);
        if (strcmp (slot->name, name) == 0)
            return true;
    }
    return false;
}

//  What the file holds beyond this part's tensors must be other parts': left out silently it would be missing.
static int
s_check_strays (const tl_part_t *part, const tl_safetensors_t *source, const char *file,
                tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (part->model);
    for (size_t i = 0; i < tl_safetensors_count (source); i++) {
        const char *name = tl_safetensors_name (source, i);
        tl_slot_t slot;
        char factor;
        bool lora = part->tune.method == TL_TUNE_LORA;
        if (tl_part_find (part, name) || (!lora && !s_weight_slot (config, name, &slot)))
            continue;
        if (lora && !tl_adapter_slot (config, name, &slot, &factor))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s holds %.200s, which is no LoRA factor of a linear layer of %.200s; "
                            "load it onto the model it was trained on",
                            file, name, tl_model_path (part->model));
        if (tl_part_owns (part, config, &slot))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s holds %.200s, which this part doesn't train; use an adapter made "
                            "with the same tune.targets, tune.freeze and tune.parts",
                            file, name);
    }
    return 0;
}

static int
s_check_all (const tl_part_t *part, const tl_safetensors_t *source, const char *file,
             tl_error_t *err)
{
    for (size_t i = 0; i < part->tensor_count; i++)
        if (!tl_adapter_find (source, part->tensors[i].name, &part->tensors[i], file, err))
            return -1;
    return 0;
}

//  All of the part's tensors from source, after every check.
static void
s_take (tl_part_t *part, const tl_safetensors_t *source)
{
    for (size_t i = 0; i < part->tensor_count; i++) {
        const tl_tensor_t *tensor = &part->tensors[i];
        tl_adapter_copy (tensor->value, tl_safetensors_find (source, tensor->name));
        if (!tl_is_reordered (tl_model_config (part->model), tensor->name))
            continue;
        float *ordered = tl_adapter_ordered (part, tensor, TL_ORDER_TO_FILE);
        memcpy (tensor->value, ordered, tensor->shape[0] * tensor->shape[1] * sizeof (float));
        free (ordered);
    }
}

//  What adapter_config.json says, in file, against the part's tuning. A part that trains nothing has nothing to compare.
static int
s_check_settings (const tl_part_t *part, const tl_adapter_info_t *info, const char *file,
                  tl_error_t *err)
{
    if (part->tensor_count == 0 || info->method == TL_TUNE_FULL)
        return 0;
    return info->method == TL_TUNE_LORA ? s_check_tune (part, info, file, err)
                                        : tl_prefix_check (part, info, file, err);
}

//  The base comes first: of an adapter for another model, no setting means anything here.
static int
s_load (tl_part_t *part, const tl_adapter_info_t *info, const char *config, const char *path,
        tl_error_t *err)
{
    tl_safetensors_t *source = tl_safetensors_open (path, err);
    if (!source)
        return -1;
    int rc = tl_adapter_check_base (part->model, info->method == TL_TUNE_LORA, source, path, err);
    if (rc == 0)
        rc = s_check_settings (part, info, config, err);
    if (rc == 0 && info->method == TL_TUNE_PTUNING)
        rc = tl_prefix_take (part, source, path, err);
    else if (rc == 0 && (rc = s_check_all (part, source, path, err)) == 0 &&
             (rc = s_check_strays (part, source, path, err)) == 0)
        s_take (part, source);
    tl_safetensors_destroy (&source);
    return rc;
}

int
tl_part_load_adapter (tl_part_t *self, const char *directory, tl_error_t *err)
{
    static const char *const s_held[] = {[TL_TUNE_LORA] = "a LoRA adapter",
                                         [TL_TUNE_FULL] = "full weights",
                                         [TL_TUNE_PTUNING] = "a prefix"};
    char config[PATH_MAX], path[PATH_MAX];
    tl_adapter_info_t info = {0};
    if (tl_adapter_check_path (directory, err) != 0 ||
        tl_adapter_info_read (&info, directory, err) != 0)
        return -1;
    bool full = info.method == TL_TUNE_FULL;
    snprintf (config, sizeof config, "%s/adapter_config.json", directory);
    snprintf (path, sizeof path, "%s/%s.safetensors", directory, full ? "model" : "adapter_model");
    int rc;
    if (info.method != self->tune.method)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s holds %s, this run has tune.method %s; set tune.method or use another "
                      "adapter",
                      directory, s_held[info.method], tl_method_name (self->tune.method));
    else if (info.method == TL_TUNE_LORA && !tl_exists (path))
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s is not there; save the adapter with safe_serialization=True", path);
    else
        rc = s_load (self, &info, config, path, err);
    tl_adapter_info_clear (&info);
    return rc;
}
