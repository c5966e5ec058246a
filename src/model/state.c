/*  state: everything a part needs to go on bit for bit (trained tensors, AdamW's m and v, the number of
    updates) as one blob: safetensors, three tensors for each trained one, and in the metadata which model and
    tuning it belongs to. It may come back over a wire or from a disk: nothing in it is trusted. Gradients
    of an open step are not part of it: a step is committed or abandoned before a save.            */

#include "adapter.h"

#include "memory.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 3, NAME_SIZE = 256 };
static const char *const s_kinds[KINDS] = {"value", "m", "v"};
static const char s_what[] = "the saved state";

//  The memory of one kind of a trained tensor.
static float *
s_place (const tl_part_t *part, size_t index, int kind)
{
    return kind == 0 ? part->tensors[index].value : kind == 1 ? part->m[index] : part->v[index];
}

static void
s_name (char name[NAME_SIZE], const tl_part_t *part, size_t index, int kind)
{
    snprintf (name, NAME_SIZE, "%s:%s", s_kinds[kind], part->tensors[index].name);
}

//  The settings that a continued run must share, one text so that a mismatch can be shown.
static char *
s_tune_text (const tl_tune_t *tune)
{
    json_t *targets = json_array ();
    bool lora = tune->method == TL_TUNE_LORA;
    for (size_t i = 0; lora && i < tune->target_count; i++)
        json_array_append_new (targets, json_string (tune->targets[i]));
    json_t *freeze = json_array ();
    for (size_t i = 0; i < tune->freeze_count; i++)
        json_array_append_new (freeze, json_string (tune->freeze[i]));
    char seed[24];
    snprintf (seed, sizeof seed, "%" PRIu64, tune->seed);
    json_t *object =
        json_pack ("{s:s, s:I, s:f, s:f, s:b, s:o, s:o, s:s, s:[f, f, f, f]}", "method",
                   tl_method_name (tune->method), "rank", (json_int_t)(lora ? tune->rank : 0),
                   "alpha", lora ? tune->alpha : 0.0, "dropout", lora ? tune->dropout : 0.0,
                   "rslora", lora && tune->rslora, "targets", targets, "freeze", freeze, "seed",
                   seed, "adamw", tune->beta1, tune->beta2, tune->eps, tune->decay);
    if (tune->method == TL_TUNE_PTUNING)
        json_object_set_new (object, "prefix", json_integer ((json_int_t)tune->prefix));
    char *text = json_dumps (object, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION (17));
    json_decref (object);
    return text;
}

void *
tl_part_state_get (const tl_part_t *self, size_t *size)
{
    const size_t count = self->tensor_count * KINDS;
    tl_st_tensor_t *entries = tl_alloc ((count + 1) * sizeof *entries);
    char (*names)[NAME_SIZE] = tl_alloc ((count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++) {
        s_name (names[i], self, i / KINDS, (int)(i % KINDS));
        entries[i] = tl_adapter_entry (&self->tensors[i / KINDS], false, names[i],
                                       s_place (self, i / KINDS, (int)(i % KINDS)));
    }
    char updates[24];
    snprintf (updates, sizeof updates, "%" PRIu64, self->updates);
    char *tune = s_tune_text (&self->tune);
    const char *const metadata[] = {"format",
                                    "pt",
                                    "trunkline.state",
                                    "1",
                                    "trunkline.manifest",
                                    tl_model_manifest_hash (self->model),
                                    "trunkline.tune",
                                    tune,
                                    "trunkline.updates",
                                    updates,
                                    NULL};
    void *blob = tl_safetensors_serialise (entries, count, metadata, size);
    free (tune);
    free (names);
    free (entries);
    return blob;
}

static int
s_check_text (const tl_safetensors_t *blob, const char *key, const char *ours, const char *what,
              tl_error_t *err)
{
    const char *theirs = tl_safetensors_metadata (blob, key);
    if (theirs && strcmp (theirs, ours) == 0)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s is of %s %.300s, this run has %.300s; continue with the same model and "
                    "settings, or begin a new run",
                    s_what, what, theirs ? theirs : "(unknown)", ours);
}

static int
s_read_updates (const tl_safetensors_t *blob, uint64_t *updates, tl_error_t *err)
{
    const char *text = tl_safetensors_metadata (blob, "trunkline.updates");
    char *end = NULL;
    errno = 0;
    unsigned long long number =
        text && *text >= '0' && *text <= '9' ? strtoull (text, &end, 10) : 0;
    if (!end || *end || errno)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: its number of updates is '%.40s', expected a whole number; use an "
                        "earlier save",
                        s_what, text ? text : "(missing)");
    *updates = number;
    return 0;
}

//  Every tensor of every kind is there, fits, and nothing else is.
static int
s_check_tensors (const tl_part_t *part, const tl_safetensors_t *blob, tl_error_t *err)
{
    char name[NAME_SIZE];
    if (tl_safetensors_count (blob) != part->tensor_count * KINDS)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s has %zu tensors, this part keeps %zu: it belongs to another part; "
                        "continue with the same split and tune.parts",
                        s_what, tl_safetensors_count (blob), part->tensor_count * KINDS);
    for (size_t i = 0; i < part->tensor_count; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            s_name (name, part, i, kind);
            const tl_st_tensor_t *found =
                tl_adapter_find (blob, name, &part->tensors[i], s_what, err);
            if (!found)
                return -1;
            if (found->dtype != TL_ST_F32)
                return tl_fail (err, TL_BAD_INPUT,
                                "%s: tensor %.200s has dtype %s, expected F32; use an earlier save",
                                s_what, name, tl_st_dtype_name (found->dtype));
        }
    return 0;
}

static int
s_set (tl_part_t *self, const tl_safetensors_t *blob, tl_error_t *err)
{
    uint64_t updates = 0;
    char *tune = s_tune_text (&self->tune);
    int rc = s_check_text (blob, "trunkline.state", "1", "version", err);
    if (rc == 0)
        rc = s_check_text (blob, "trunkline.manifest", tl_model_manifest_hash (self->model),
                           "a model with manifest", err);
    if (rc == 0)
        rc = s_check_text (blob, "trunkline.tune", tune, "a run with settings", err);
    free (tune);
    if (rc != 0 || s_read_updates (blob, &updates, err) != 0 ||
        s_check_tensors (self, blob, err) != 0)
        return -1;
    char name[NAME_SIZE];
    for (size_t i = 0; i < self->tensor_count; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            s_name (name, self, i, kind);
            tl_adapter_copy (s_place (self, i, kind), tl_safetensors_find (blob, name));
        }
    self->updates = updates;
    tl_part_zero_gradient (self);
    return 0;
}

int
tl_part_state_set (tl_part_t *self, const void *state, size_t size, tl_error_t *err)
{
    tl_safetensors_t *blob = tl_safetensors_parse (s_what, state, size, err);
    if (!blob)
        return -1;
    int rc = s_set (self, blob, err);
    tl_safetensors_destroy (&blob);
    return rc;
}
