/*  peft: adapter_config.json as the Python package peft writes and reads it. Takes a part's tuning and
    gives the file; takes a file and gives what an engine without peft needs to know. A setting that
    changes how the adapter is applied, and that this version doesn't follow, is refused by name.    */

#include "adapter.h"

#include "file.h"
#include "memory.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG ((size_t)4 << 20)
#define MAX_RANK 65536
enum { MAX_LAYERS = 4096 };

static int
s_by_text (const void *a, const void *b)
{
    return strcmp (*(const char *const *)a, *(const char *const *)b);
}

//  ---------------------------------------------------------------------------------------------
//  Writing

static json_t *
s_targets (const tl_tune_t *tune)
{
    const char *sorted[TL_MAX_TARGETS];
    for (size_t i = 0; i < tune->target_count; i++)
        sorted[i] = tune->targets[i];
    qsort (sorted, tune->target_count, sizeof *sorted, s_by_text);
    json_t *targets = json_array ();
    for (size_t i = 0; i < tune->target_count; i++)
        json_array_append_new (targets, json_string (sorted[i]));
    return targets;
}

//  peft writes whole numbers for alpha, and so do we where it is one.
static json_t *
s_number (double value)
{
    return value == rint (value) && fabs (value) < 1e15 ? json_integer ((json_int_t)value)
                                                        : json_real (value);
}

//  null when every block has an adapter.
static json_t *
s_layers (const bool *has, size_t count)
{
    json_t *layers = json_array ();
    for (size_t i = 0; i < count; i++)
        if (has[i])
            json_array_append_new (layers, json_integer ((json_int_t)i));
    if (json_array_size (layers) < count)
        return layers;
    json_decref (layers);
    return json_null ();
}

int
tl_peft_write_config (const tl_tune_t *tune, const char *base, const bool *has, size_t count,
                      const char *directory, tl_error_t *err)
{
    //  Exactly the keys of peft 0.13: older and newer releases take them all, unknown ones they don't.
    json_t *config = json_pack (
        "{s:{}, s:n, s:s, s:s, s:b, s:b, s:b, s:n, s:n, s:o, s:{}, s:o, s:o, s:n, s:s, s:n, s:s, "
        "s:I, "
        "s:{}, s:n, s:o, s:s, s:b, s:b}",
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", base, "bias", "none",
        "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "layer_replication",
        "layers_pattern", "layers_to_transform", s_layers (has, count), "loftq_config",
        "lora_alpha", s_number (tune->alpha), "lora_dropout", json_real (tune->dropout),
        "megatron_config", "megatron_core", "megatron.core", "modules_to_save", "peft_type", "LORA",
        "r", (json_int_t)tune->rank, "rank_pattern", "revision", "target_modules", s_targets (tune),
        "task_type", "CAUSAL_LM", "use_dora", 0, "use_rslora", tune->rslora);
    if (!config)
        return tl_fail (err, TL_BAD_INPUT,
                        "the model's path is not valid UTF-8 and can't be put into "
                        "adapter_config.json; rename the directory");
    char path[PATH_MAX];
    char *text = json_dumps (config, JSON_INDENT (2) | JSON_SORT_KEYS);
    json_decref (config);
    snprintf (path, sizeof path, "%s/adapter_config.json", directory);
    int rc = tl_file_write (path, text, strlen (text), 0600, err);
    free (text);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Reading

//  null, false, 0, "", [] and {} all mean that a setting is off.
static bool
s_off (const json_t *value)
{
    return !value || json_is_null (value) || json_is_false (value) ||
           (json_is_integer (value) && json_integer_value (value) == 0) ||
           (json_is_string (value) && json_string_length (value) == 0) ||
           (json_is_array (value) && json_array_size (value) == 0) ||
           (json_is_object (value) && json_object_size (value) == 0);
}

static int
s_refuse (const char *path, const char *key, const json_t *value, const char *wanted,
          tl_error_t *err)
{
    char *shown = value ? json_dumps (value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    tl_fail (err, TL_BAD_INPUT,
             "%s: %s is %.200s, expected %s; use an adapter made with those settings", path, key,
             shown ? shown : "missing", wanted);
    free (shown);
    return -1;
}

//  Settings that change which weights an adapter replaces or how it is added to them.
static int
s_check_settings (const json_t *config, const char *path, tl_error_t *err)
{
    static const char *const never[] = {"use_dora",
                                        "modules_to_save",
                                        "rank_pattern",
                                        "alpha_pattern",
                                        "fan_in_fan_out",
                                        "lora_bias",
                                        "layer_replication",
                                        "loftq_config",
                                        "megatron_config",
                                        "exclude_modules",
                                        "target_parameters",
                                        "use_qalora",
                                        "arrow_config",
                                        "trainable_token_indices",
                                        "corda_config",
                                        "alora_invocation_tokens",
                                        NULL};
    for (size_t i = 0; never[i]; i++) {
        const json_t *value = json_object_get (config, never[i]);
        if (!s_off (value))
            return s_refuse (path, never[i], value, "it to be off in this version", err);
    }
    const json_t *type = json_object_get (config, "peft_type");
    if (!json_is_string (type) || strcmp (json_string_value (type), "LORA") != 0)
        return s_refuse (path, "peft_type", type, "\"LORA\" or \"PREFIX_TUNING\"", err);
    const json_t *bias = json_object_get (config, "bias");
    if (bias && (!json_is_string (bias) || strcmp (json_string_value (bias), "none") != 0))
        return s_refuse (path, "bias", bias, "\"none\"", err);
    //  pissa, olora, loftq and their kin also change the base's own weights.
    const json_t *init = json_object_get (config, "init_lora_weights");
    if (json_is_string (init) && strcmp (json_string_value (init), "gaussian") != 0)
        return s_refuse (path, "init_lora_weights", init,
                         "true, false or \"gaussian\" (the others change the base's weights)", err);
    return 0;
}

static int
s_read_targets (tl_adapter_info_t *info, const json_t *targets, const char *path, tl_error_t *err)
{
    size_t count = json_array_size (targets);
    bool good = json_is_array (targets) && count > 0 && count <= TL_MAX_TARGETS;
    for (size_t i = 0; good && i < count; i++) {
        const char *name = json_string_value (json_array_get (targets, i));
        good = name && *name && strlen (name) < 64;
        if (good)
            info->targets[info->target_count++] = tl_strdup (name);
    }
    if (!good)
        return s_refuse (path, "target_modules", targets,
                         "a list of 1 to 8 names of linear layers, such as \"q_proj\" (no regular "
                         "expression)",
                         err);
    qsort (info->targets, info->target_count, sizeof *info->targets, s_by_text);
    return 0;
}

static int
s_by_number (const void *a, const void *b)
{
    size_t one = *(const size_t *)a, two = *(const size_t *)b;
    return one < two ? -1 : one > two;
}

//  A number or a list of numbers; PEFT counts blocks from 0, as we do.
static int
s_read_layers (tl_adapter_info_t *info, const json_t *config, const char *path, tl_error_t *err)
{
    static const char key[] = "layers_to_transform";
    const json_t *layers = json_object_get (config, key);
    const json_t *pattern = json_object_get (config, "layers_pattern");
    const json_t *first = json_is_array (pattern) ? json_array_get (pattern, 0) : pattern;
    if (!s_off (pattern) && (json_array_size (pattern) > 1 || !json_is_string (first) ||
                             strcmp (json_string_value (first), "layers") != 0))
        return s_refuse (path, "layers_pattern", pattern, "null or \"layers\"", err);
    if (!layers || json_is_null (layers))
        return 0;
    bool list = json_is_array (layers);
    size_t count = list ? json_array_size (layers) : 1;
    bool good = count > 0 && count <= MAX_LAYERS;
    info->layers = tl_alloc (MAX_LAYERS * sizeof *info->layers);
    for (size_t i = 0; good && i < count; i++) {
        const json_t *layer = list ? json_array_get (layers, i) : layers;
        good = json_is_integer (layer) && json_integer_value (layer) >= 0 &&
               json_integer_value (layer) < MAX_LAYERS;
        info->layers[i] = good ? (size_t)json_integer_value (layer) : 0;
    }
    if (!good)
        return s_refuse (path, key, layers, "null or a list of block numbers from 0 on", err);
    qsort (info->layers, count, sizeof *info->layers, s_by_number);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || info->layers[i] != info->layers[i - 1])
            info->layers[info->layer_count++] = info->layers[i];
    return 0;
}

static int
s_read (tl_adapter_info_t *info, const json_t *config, const char *path, tl_error_t *err)
{
    if (s_check_settings (config, path, err) != 0)
        return -1;
    const json_t *rank = json_object_get (config, "r");
    const json_t *alpha = json_object_get (config, "lora_alpha");
    const json_t *dropout = json_object_get (config, "lora_dropout");
    if (!json_is_integer (rank) || json_integer_value (rank) < 1 ||
        json_integer_value (rank) > MAX_RANK)
        return s_refuse (path, "r", rank, "a whole number from 1 to 65536", err);
    if (!json_is_number (alpha) || !(json_number_value (alpha) > 0))
        return s_refuse (path, "lora_alpha", alpha, "a number above 0", err);
    if (dropout && (!json_is_number (dropout) ||
                    !(json_number_value (dropout) >= 0 && json_number_value (dropout) < 1)))
        return s_refuse (path, "lora_dropout", dropout, "a number from 0 to below 1", err);
    const json_t *rslora = json_object_get (config, "use_rslora");
    if (rslora && !json_is_null (rslora) && !json_is_boolean (rslora))
        return s_refuse (path, "use_rslora", rslora, "true or false", err);
    const char *base = json_string_value (json_object_get (config, "base_model_name_or_path"));
    info->method = TL_TUNE_LORA;
    info->rank = (size_t)json_integer_value (rank);
    info->alpha = json_number_value (alpha);
    info->dropout = dropout ? json_number_value (dropout) : 0;
    info->rslora = json_is_true (rslora);
    info->base = tl_strdup (base ? base : "");
    if (s_read_layers (info, config, path, err) != 0)
        return -1;
    return s_read_targets (info, json_object_get (config, "target_modules"), path, err);
}

int
tl_peft_read_config (tl_adapter_info_t *info, const char *directory, tl_error_t *err)
{
    char path[PATH_MAX];
    size_t size = 0;
    json_error_t reason;
    memset (info, 0, sizeof *info);
    snprintf (path, sizeof path, "%s/adapter_config.json", directory);
    char *text = tl_file_read (path, MAX_CONFIG, &size, err);
    if (!text)
        return -1;
    json_t *config = json_loadb (text, size, JSON_REJECT_DUPLICATES, &reason);
    free (text);
    if (!config)
        return tl_fail (err, TL_BAD_INPUT, "%s:%d:%d: not valid JSON (%s); save the adapter again",
                        path, reason.line, reason.column, reason.text);
    const char *type = json_string_value (json_object_get (config, "peft_type"));
    bool prefix = type && strcmp (type, "PREFIX_TUNING") == 0;
    int rc = prefix ? tl_prefix_read_config (info, config, directory, err)
                    : s_read (info, config, path, err);
    json_decref (config);
    if (rc != 0)
        tl_adapter_info_clear (info);
    return rc;
}

//  The patterns in a full tuning's metadata; what they are is checked where they are used.
static int
s_read_frozen (tl_adapter_info_t *self, const char *path, tl_error_t *err)
{
    tl_safetensors_t *file = tl_safetensors_open (path, err);
    if (!file)
        return -1;
    const char *text = tl_safetensors_metadata (file, TL_FREEZE_KEY);
    char *copy = tl_strdup (text ? text : ""), *rest = copy, *pattern;
    int rc = 0;
    while (rc == 0 && *copy && (pattern = strsep (&rest, ","))) {
        if (self->freeze_count < TL_MAX_FREEZE)
            self->freeze[self->freeze_count++] = tl_strdup (pattern);
        else
            rc =
                tl_fail (err, TL_BAD_INPUT,
                         "%s: its " TL_FREEZE_KEY " has more than %d patterns; use an earlier save",
                         path, TL_MAX_FREEZE);
    }
    free (copy);
    tl_safetensors_destroy (&file);
    if (rc != 0)
        tl_adapter_info_clear (self);
    return rc;
}

int
tl_adapter_info_read (tl_adapter_info_t *self, const char *directory, tl_error_t *err)
{
    char path[PATH_MAX];
    memset (self, 0, sizeof *self);
    snprintf (path, sizeof path, "%s/adapter_config.json", directory);
    if (tl_exists (path))
        return tl_peft_read_config (self, directory, err);
    snprintf (path, sizeof path, "%s/model.safetensors", directory);
    if (!tl_exists (path))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s holds neither adapter_config.json (LoRA, P-tuning) nor "
                        "model.safetensors (full tuning); give the directory of a saved adapter",
                        directory);
    self->method = TL_TUNE_FULL;
    self->base = tl_strdup ("");
    return s_read_frozen (self, path, err);
}

void
tl_adapter_info_clear (tl_adapter_info_t *self)
{
    for (size_t i = 0; i < self->target_count; i++)
        free (self->targets[i]);
    for (size_t i = 0; i < self->freeze_count; i++)
        free (self->freeze[i]);
    free (self->layers);
    free (self->base);
    memset (self, 0, sizeof *self);
}

//  Blocks [first, last) have no adapter.
static int
s_leave_out (tl_adapter_info_t *self, size_t first, size_t last, tl_error_t *err)
{
    if (first >= last)
        return 0;
    if (self->freeze_count == TL_MAX_FREEZE)
        return tl_fail (
            err, TL_BAD_INPUT,
            "adapter_config.json: layers_to_transform leaves out more than %d stretches "
            "of blocks, which is more than this version follows; use another adapter",
            TL_MAX_FREEZE);
    self->freeze[self->freeze_count++] = tl_format ("blocks.%zu-%zu", first, last - 1);
    return 0;
}

int
tl_adapter_tune (tl_adapter_info_t *self, const tl_model_t *model, tl_tune_t *tune, tl_error_t *err)
{
    size_t blocks = tl_model_config (model)->blocks, next = 0;
    for (size_t i = 0; self->method != TL_TUNE_FULL && i < self->freeze_count; i++)
        free (self->freeze[i]);
    if (self->method != TL_TUNE_FULL)
        self->freeze_count = 0;
    if (self->layers && self->layers[self->layer_count - 1] >= blocks)
        return tl_fail (
            err, TL_BAD_INPUT,
            "adapter_config.json: layers_to_transform names block %zu, %.300s has blocks "
            "0 to %zu; load it onto the model it was trained on",
            self->layers[self->layer_count - 1], tl_model_path (model), blocks - 1);
    for (size_t i = 0; i < self->layer_count; i++) {
        if (s_leave_out (self, next, self->layers[i], err) != 0)
            return -1;
        next = self->layers[i] + 1;
    }
    if (self->layers && s_leave_out (self, next, blocks, err) != 0)
        return -1;
    tune->method = self->method;
    tune->rank = self->rank;
    tune->prefix = self->prefix;
    tune->alpha = self->alpha;
    tune->rslora = self->rslora;
    tune->dropout = self->dropout;
    tune->target_count = self->target_count;
    tune->freeze_count = self->freeze_count;
    for (size_t i = 0; i < self->target_count; i++)
        tune->targets[i] = self->targets[i];
    for (size_t i = 0; i < self->freeze_count; i++)
        tune->freeze[i] = self->freeze[i];
    return 0;
}
