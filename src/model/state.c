/*  state: everything a part needs to go on bit for bit (trained tensors, AdamW's m and v, the number of
    updates) as one blob: safetensors, three tensors for each trained one (four where there is an anchor), and in
    the metadata which model and tuning it belongs to. It may come back over a wire or from a disk: nothing in
    it is trusted. Gradients of an open step are not part of it: a step is committed or abandoned before a
    save. Where they are wanted, for a sum over several owners, they are a blob of their own, made likewise. */

#include "adapter.h"

#include "memory.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { VALUE, M, V, ANCHOR, GRADIENT } tl_kind_t;
enum { NAME_SIZE = 256 };
static const char *const s_kinds[] = {"value", "m", "v", "anchor", "gradient"};

//  What a blob is made of: kinds [first, last) of every trained tensor.
typedef struct {
    tl_kind_t first, last;
    const char *mark; //  key of the metadata that says so
    const char *what; //  for sentences
} tl_form_t;

static const tl_form_t s_state = {VALUE, ANCHOR, "trunkline.state", "the saved state"};
static const tl_form_t s_anchored = {VALUE, GRADIENT, "trunkline.state", "the saved state"};
static const tl_form_t s_gradient = {GRADIENT, GRADIENT + 1, "trunkline.gradient",
                                     "the summed gradient"};

static size_t
s_kind_count (const tl_form_t *form)
{
    return (size_t)(form->last - form->first);
}

//  The memory of one kind of a trained tensor.
static float *
s_place (const tl_part_t *part, size_t index, tl_kind_t kind)
{
    switch (kind) {
    case VALUE:
        return part->tensors[index].value;
    case M:
        return part->m[index];
    case V:
        return part->v[index];
    case ANCHOR:
        return part->anchor[index];
    default:
        return part->tensors[index].gradient;
    }
}

static void
s_name (char name[NAME_SIZE], const tl_part_t *part, size_t index, tl_kind_t kind)
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

static void *
s_blob (const tl_part_t *self, const tl_form_t *form, size_t *size)
{
    const size_t kinds = s_kind_count (form), count = self->tensor_count * kinds;
    tl_st_tensor_t *entries = tl_alloc ((count + 1) * sizeof *entries);
    char (*names)[NAME_SIZE] = tl_alloc ((count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++) {
        tl_kind_t kind = (tl_kind_t)(form->first + i % kinds);
        s_name (names[i], self, i / kinds, kind);
        entries[i] = tl_adapter_entry (&self->tensors[i / kinds], false, names[i],
                                       s_place (self, i / kinds, kind));
    }
    char updates[24], period[24];
    snprintf (updates, sizeof updates, "%" PRIu64, self->updates);
    snprintf (period, sizeof period, "%" PRIu64, self->period);
    char *tune = s_tune_text (&self->tune);
    const char *const metadata[] = {"format",
                                    "pt",
                                    form->mark,
                                    "1",
                                    "trunkline.manifest",
                                    tl_model_manifest_hash (self->model),
                                    "trunkline.tune",
                                    tune,
                                    "trunkline.updates",
                                    updates,
                                    form == &s_anchored ? "trunkline.period" : NULL,
                                    period,
                                    NULL};
    void *blob = tl_safetensors_serialise (entries, count, metadata, size);
    free (tune);
    free (names);
    free (entries);
    return blob;
}

void *
tl_part_state_get (const tl_part_t *self, size_t *size)
{
    return s_blob (self, self->anchor ? &s_anchored : &s_state, size);
}

void *
tl_part_gradient_get (const tl_part_t *self, size_t *size)
{
    return s_blob (self, &s_gradient, size);
}

static int
s_check_text (const tl_safetensors_t *blob, const tl_form_t *form, const char *key,
              const char *ours, const char *what, tl_error_t *err)
{
    const char *theirs = tl_safetensors_metadata (blob, key);
    if (theirs && strcmp (theirs, ours) == 0)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s is of %s %.300s, this run has %.300s; continue with the same model and "
                    "settings, or begin a new run",
                    form->what, what, theirs ? theirs : "(unknown)", ours);
}

static int
s_read_number (const tl_safetensors_t *blob, const tl_form_t *form, const char *key,
               const char *what, uint64_t *value, tl_error_t *err)
{
    const char *text = tl_safetensors_metadata (blob, key);
    char *end = NULL;
    errno = 0;
    unsigned long long number =
        text && *text >= '0' && *text <= '9' ? strtoull (text, &end, 10) : 0;
    if (!end || *end || errno)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: its %s is '%.40s', expected a whole number; use an earlier save",
                        form->what, what, text ? text : "(missing)");
    *value = number;
    return 0;
}

//  Every tensor of every kind is there, fits, and nothing else is.
static int
s_check_tensors (const tl_part_t *part, const tl_form_t *form, const tl_safetensors_t *blob,
                 tl_error_t *err)
{
    char name[NAME_SIZE];
    const size_t count = part->tensor_count * s_kind_count (form);
    if (tl_safetensors_count (blob) != count)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s has %zu tensors, this part keeps %zu: it belongs to another part; "
                        "continue with the same split and tune.parts",
                        form->what, tl_safetensors_count (blob), count);
    for (size_t i = 0; i < part->tensor_count; i++)
        for (tl_kind_t kind = form->first; kind < form->last; kind++) {
            s_name (name, part, i, kind);
            const tl_st_tensor_t *found =
                tl_adapter_find (blob, name, &part->tensors[i], form->what, err);
            if (!found)
                return -1;
            if (found->dtype != TL_ST_F32)
                return tl_fail (err, TL_BAD_INPUT,
                                "%s: tensor %.200s has dtype %s, expected F32; use an earlier save",
                                form->what, name, tl_st_dtype_name (found->dtype));
        }
    return 0;
}

//  All checks; nothing is changed by them.
static int
s_check (const tl_part_t *self, const tl_form_t *form, const tl_safetensors_t *blob,
         uint64_t *updates, tl_error_t *err)
{
    char *tune = s_tune_text (&self->tune);
    int rc = s_check_text (blob, form, form->mark, "1", "version", err);
    if (rc == 0)
        rc = s_check_text (blob, form, "trunkline.manifest", tl_model_manifest_hash (self->model),
                           "a model with manifest", err);
    if (rc == 0)
        rc = s_check_text (blob, form, "trunkline.tune", tune, "a run with settings", err);
    free (tune);
    if (rc == 0)
        rc = s_read_number (blob, form, "trunkline.updates", "number of updates", updates, err);
    return rc == 0 ? s_check_tensors (self, form, blob, err) : -1;
}

static void
s_copy (tl_part_t *self, const tl_form_t *form, const tl_safetensors_t *blob)
{
    char name[NAME_SIZE];
    for (size_t i = 0; i < self->tensor_count; i++)
        for (tl_kind_t kind = form->first; kind < form->last; kind++) {
            s_name (name, self, i, kind);
            tl_adapter_copy (s_place (self, i, kind), tl_safetensors_find (blob, name));
        }
}

static int
s_set (tl_part_t *self, const tl_safetensors_t *blob, tl_error_t *err)
{
    uint64_t updates = 0, period = 0;
    bool anchored = tl_safetensors_metadata (blob, "trunkline.period") != NULL;
    const tl_form_t *form = anchored ? &s_anchored : &s_state;
    if (s_check (self, form, blob, &updates, err) != 0 ||
        (anchored && s_read_number (blob, form, "trunkline.period", "period", &period, err) != 0))
        return -1;
    tl_part_forget_anchor (self);
    if (anchored)
        tl_part_anchor (self, period);
    s_copy (self, form, blob);
    self->updates = updates;
    tl_part_zero_gradient (self);
    return 0;
}

//  A file that came from somewhere can be fetched again, a state can't.
static void
s_advise (tl_error_t *err)
{
    char *advice = err ? strrchr (err->text, ';') : NULL;
    if (advice)
        snprintf (advice, sizeof err->text - (size_t)(advice - err->text), "; use an earlier save");
}

int
tl_part_state_set (tl_part_t *self, const void *state, size_t size, tl_error_t *err)
{
    tl_safetensors_t *blob = tl_safetensors_parse (s_state.what, state, size, err);
    if (!blob) {
        s_advise (err);
        return -1;
    }
    int rc = s_set (self, blob, err);
    tl_safetensors_destroy (&blob);
    return rc;
}

int
tl_part_gradient_set (tl_part_t *self, const void *gradient, size_t size, tl_error_t *err)
{
    uint64_t updates;
    tl_safetensors_t *blob = tl_safetensors_parse (s_gradient.what, gradient, size, err);
    int rc = blob ? s_check (self, &s_gradient, blob, &updates, err) : -1;
    if (rc == 0)
        s_copy (self, &s_gradient, blob);
    tl_safetensors_destroy (&blob);
    return rc;
}
