//  aggregate: see aggregate.h. Blobs are safetensors; a tensor's name is "KIND:NAME", and its kind says what may be in it.

#include "aggregate.h"

#include "assert.h"
#include "kernels/kernels.h"
#include "hash.h"
#include "memory.h"
#include "model/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UPDATES_TEXT = 24 };

struct tl_aggregate {
    tl_server_t *server;
    bool optimizes;
};

//  A contribution that was opened.
typedef struct {
    tl_contribution_t *from;
    tl_safetensors_t *file;
    const tl_st_tensor_t **tensors; //  [count] those that enter, in the order of their names
    size_t count;
    uint64_t updates;
    uint64_t layout; //  hash of all that must be equal
} tl_opened_t;

//  What is expected of all blobs of one aggregation.
typedef struct {
    const char *mark;         //  key of the metadata that says what the blob is
    const char *const *kinds; //  that it is made of, NULL at the end
} tl_form_t;

static const char *const s_state_kinds[] = {"value:", "m:", "v:", NULL};
static const char *const s_gradient_kinds[] = {"gradient:", NULL};
static const tl_form_t s_state = {"trunkline.state", s_state_kinds};
static const tl_form_t s_gradient = {"trunkline.gradient", s_gradient_kinds};

//  What a part keeps for itself is in its state and not in anybody else's.
static const char s_own[] = "anchor:";

static const char *const s_agreed[] = {"trunkline.manifest", "trunkline.tune"};
enum { AGREED = sizeof s_agreed / sizeof *s_agreed };

static bool
s_begins (const char *text, const char *with)
{
    return strncmp (text, with, strlen (with)) == 0;
}

//  --- one contribution -------------------------------------------------------------------------

static int __attribute__ ((format (printf, 2, 3)))
s_refuse (tl_contribution_t *from, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    vsnprintf (from->refusal, sizeof from->refusal, format, args);
    va_end (args);
    return -1;
}

static size_t
s_values (const tl_st_tensor_t *tensor)
{
    return tensor->bytes / sizeof (float);
}

static int
s_check_tensor (tl_contribution_t *from, const tl_form_t *form, const tl_st_tensor_t *tensor)
{
    bool known = false;
    for (size_t i = 0; form->kinds[i]; i++)
        known |= s_begins (tensor->name, form->kinds[i]);
    if (!known)
        return s_refuse (from,
                         "it has a tensor '%.200s', which is no part of it; run the same "
                         "trunkline everywhere",
                         tensor->name);
    if (tensor->dtype != TL_ST_F32 || tensor->dimensions > 2)
        return s_refuse (from,
                         "tensor %.200s is of type %s with %zu dimensions, expected F32 with at "
                         "most 2; run the same trunkline everywhere",
                         tensor->name, tl_st_dtype_name (tensor->dtype), tensor->dimensions);
    const float *values = tensor->data;
    if (!tl_kernels ()->all_finite (values, s_values (tensor)))
        return s_refuse (from,
                         "tensor %.200s holds values that are not finite; lower train.lr, or look "
                         "at its data",
                         tensor->name);
    for (size_t i = 0; s_begins (tensor->name, "v:") && i < s_values (tensor); i++)
        if (values[i] < 0)
            return s_refuse (from,
                             "tensor %.200s holds %g, an average of squares below 0; run the same "
                             "trunkline everywhere",
                             tensor->name, (double)values[i]);
    return 0;
}

static int
s_check_marks (tl_opened_t *self, const tl_form_t *form)
{
    const char *version = tl_safetensors_metadata (self->file, form->mark);
    if (!version || strcmp (version, "1") != 0)
        return s_refuse (
            self->from, "its %s is of version %.40s, expected 1; run the same trunkline everywhere",
            form->mark, version ? version : "(none)");
    for (size_t i = 0; i < AGREED; i++)
        if (!tl_safetensors_metadata (self->file, s_agreed[i]))
            return s_refuse (self->from, "it doesn't say its %s; run the same trunkline everywhere",
                             s_agreed[i]);
    const char *text = tl_safetensors_metadata (self->file, "trunkline.updates");
    char *end = NULL;
    errno = 0;
    self->updates = text && *text >= '0' && *text <= '9' ? strtoull (text, &end, 10) : 0;
    if (!end || *end || errno)
        return s_refuse (self->from,
                         "its number of updates is '%.40s', expected a whole number; run the same "
                         "trunkline everywhere",
                         text ? text : "(missing)");
    return 0;
}

//  Two that hash alike can be added value by value.
static uint64_t
s_layout (const tl_opened_t *self)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < AGREED; i++) {
        const char *text = tl_safetensors_metadata (self->file, s_agreed[i]);
        hash = tl_hash64_from (hash, text, strlen (text) + 1);
    }
    for (size_t i = 0; i < self->count; i++) {
        const tl_st_tensor_t *tensor = self->tensors[i];
        hash = tl_hash64_from (hash, tensor->name, strlen (tensor->name) + 1);
        hash = tl_hash64_from (hash, &tensor->dimensions, sizeof tensor->dimensions);
        hash = tl_hash64_from (hash, tensor->shape, tensor->dimensions * sizeof *tensor->shape);
    }
    return hash;
}

//  Opens and checks what can be checked alone. -1 with the refusal.
static int
s_open (tl_opened_t *self, tl_contribution_t *from, const tl_form_t *form)
{
    tl_error_t err;
    self->from = from;
    from->used = false;
    *from->refusal = 0;
    self->file = tl_safetensors_parse ("it", from->blob, from->size, &err);
    if (!self->file)
        return s_refuse (from, "%.500s", err.text);
    size_t count = tl_safetensors_count (self->file);
    self->tensors = tl_alloc ((count + 1) * sizeof *self->tensors);
    if (s_check_marks (self, form) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (s_begins (tl_safetensors_name (self->file, i), s_own))
            continue;
        const tl_st_tensor_t *tensor = tl_safetensors_at (self->file, i);
        if (s_check_tensor (from, form, tensor) != 0)
            return -1;
        self->tensors[self->count++] = tensor;
    }
    self->layout = s_layout (self);
    return 0;
}

static void
s_close (tl_opened_t *opened, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        tl_safetensors_destroy (&opened[i].file);
        free (opened[i].tensors);
    }
    free (opened);
}

//  --- all contributions ------------------------------------------------------------------------

static int
s_by_value (const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

//  The layout that most have; among equals that of whoever is first.
static const tl_opened_t *
s_model (const tl_opened_t *opened, size_t count)
{
    uint64_t *sorted = tl_alloc ((count + 1) * sizeof *sorted);
    size_t good = 0, best = 0;
    for (size_t i = 0; i < count; i++)
        if (!*opened[i].from->refusal)
            sorted[good++] = opened[i].layout;
    qsort (sorted, good, sizeof *sorted, s_by_value);
    const tl_opened_t *model = NULL;
    for (size_t i = 0; i < count; i++) {
        if (*opened[i].from->refusal || (model && opened[i].layout == model->layout))
            continue;
        size_t below = 0, upto = good; //  first place that is not less
        while (below < upto) {
            size_t middle = (below + upto) / 2;
            if (sorted[middle] < opened[i].layout)
                below = middle + 1;
            else
                upto = middle;
        }
        size_t end = below;
        while (end < good && sorted[end] == opened[i].layout)
            end++;
        if (end - below > best) {
            best = end - below;
            model = &opened[i];
        }
    }
    free (sorted);
    return model;
}

static void
s_shape (char text[48], const tl_st_tensor_t *tensor)
{
    if (tensor->dimensions == 2)
        snprintf (text, 48, "[%zu, %zu]", tensor->shape[0], tensor->shape[1]);
    else
        snprintf (text, 48, "[%zu]", tensor->dimensions ? tensor->shape[0] : (size_t)1);
}

//  Says what is different, with both values.
static void
s_refuse_layout (tl_opened_t *self, const tl_opened_t *model)
{
    for (size_t i = 0; i < self->count && i < model->count; i++) {
        const tl_st_tensor_t *one = self->tensors[i], *two = model->tensors[i];
        char ours[48], theirs[48];
        s_shape (ours, one);
        s_shape (theirs, two);
        if (strcmp (one->name, two->name) != 0) {
            s_refuse (
                self->from,
                "it has tensor %.100s where %.64s has %.100s; train the same parts everywhere",
                one->name, model->from->name, two->name);
            return;
        }
        if (strcmp (ours, theirs) != 0) {
            s_refuse (self->from,
                      "tensor %.100s has shape %s, that of %.64s has %s; use the same model and "
                      "tune.rank everywhere",
                      one->name, ours, model->from->name, theirs);
            return;
        }
    }
    if (self->count != model->count) {
        s_refuse (self->from,
                  "it has %zu tensors and %.64s has %zu; train the same parts everywhere",
                  self->count, model->from->name, model->count);
        return;
    }
    for (size_t i = 0; i < AGREED; i++) {
        const char *ours = tl_safetensors_metadata (self->file, s_agreed[i]);
        const char *theirs = tl_safetensors_metadata (model->file, s_agreed[i]);
        if (strcmp (ours, theirs) != 0)
            s_refuse (self->from, "its %s is %.150s, that of %.64s %.150s; make the two equal",
                      s_agreed[i], ours, model->from->name, theirs);
    }
}

//  Opens all and marks those that enter. NULL and a sentence if they are fewer than quorum; else *model is one of them.
static tl_opened_t *
s_open_all (tl_contribution_t *parts, size_t count, size_t quorum, const tl_form_t *form,
            const tl_opened_t **model, tl_error_t *err)
{
    tl_opened_t *opened = tl_alloc ((count + 1) * sizeof *opened);
    const tl_contribution_t *refused = NULL;
    size_t good = 0;
    for (size_t i = 0; i < count; i++)
        s_open (&opened[i], &parts[i], form);
    *model = s_model (opened, count);
    for (size_t i = 0; i < count; i++) {
        if (!*parts[i].refusal && opened[i].layout != (*model)->layout)
            s_refuse_layout (&opened[i], *model);
        parts[i].used = !*parts[i].refusal;
        good += parts[i].used;
        if (!parts[i].used && !refused)
            refused = &parts[i];
    }
    if (good && good >= quorum)
        return opened;
    tl_fail (err, TL_FAILED, "%zu good part%s came, expected at least %zu%s%.64s%s%.512s%s", good,
             good == 1 ? "" : "s", quorum ? quorum : 1, refused ? "; that of " : "",
             refused ? refused->name : "", refused ? " is refused: " : "",
             refused ? refused->refusal : "",
             refused ? "" : "; see why the others are gone, or lower federate.quorum");
    for (size_t i = 0; i < count; i++)
        parts[i].used = false;
    s_close (opened, count);
    return NULL;
}

//  --- arithmetic -------------------------------------------------------------------------------

//  Adds weight x values of every contribution that enters, in order: sums [size].
static void
s_add (double *sums, const tl_opened_t *opened, const double *weights, size_t count, size_t tensor,
       size_t size)
{
    memset (sums, 0, size * sizeof *sums);
    for (size_t i = 0; i < count; i++) {
        if (!opened[i].from->used)
            continue;
        const float *values = opened[i].tensors[tensor]->data;
        const double weight = weights[i];
        for (size_t k = 0; k < size; k++)
            sums[k] += weight * (double)values[k];
    }
}

//  Shares of the whole, or 1 for each that enters: [count], the caller frees.
static double *
s_weights (const tl_contribution_t *parts, size_t count)
{
    double *weights = tl_alloc ((count + 1) * sizeof *weights), all = 0;
    for (size_t i = 0; i < count; i++)
        all += parts[i].used ? (double)parts[i].labels : 0;
    for (size_t i = 0; i < count; i++)
        weights[i] = !parts[i].used ? 0 : all > 0 ? (double)parts[i].labels : 1;
    if (all == 0)
        for (size_t i = 0; i < count; i++)
            all += weights[i];
    //  Divided at the end: of equal values the mean is that value.
    weights[count] = all;
    return weights;
}

//  --- results ----------------------------------------------------------------------------------

//  The blob of count float tensors shaped as model's.
static void *
s_blob (const tl_opened_t *model, const tl_form_t *form, float *const *values, uint64_t updates,
        size_t *size)
{
    char text[UPDATES_TEXT];
    snprintf (text, sizeof text, "%" PRIu64, updates);
    const char *metadata[] = {"format",
                              "pt",
                              form->mark,
                              "1",
                              s_agreed[0],
                              tl_safetensors_metadata (model->file, s_agreed[0]),
                              s_agreed[1],
                              tl_safetensors_metadata (model->file, s_agreed[1]),
                              "trunkline.updates",
                              text,
                              NULL};
    tl_st_tensor_t *entries = tl_alloc ((model->count + 1) * sizeof *entries);
    for (size_t i = 0; i < model->count; i++) {
        entries[i] = *model->tensors[i];
        entries[i].data = values[i];
    }
    void *blob = tl_safetensors_serialise (entries, model->count, metadata, size);
    free (entries);
    return blob;
}

//  Anything since the last merge: else it only gives out again what all have, and is no step of the optimizer.
static bool
s_learnt (const tl_opened_t *opened, size_t count)
{
    bool any = false;
    for (size_t i = 0; i < count; i++)
        any |= opened[i].from->used && opened[i].from->labels > 0;
    return any;
}

//  The common part: sums of the tensors, divided, and what the optimizer makes of values. self NULL: a plain sum.
static void *
s_combine (tl_aggregate_t *self, const tl_opened_t *opened, size_t count, const tl_opened_t *model,
           const tl_form_t *form, const double *weights, size_t *size, tl_error_t *err)
{
    bool optimizes = self && self->optimizes && s_learnt (opened, count);
    float **values = tl_alloc ((model->count + 1) * sizeof *values);
    uint64_t updates = 0;
    int rc = 0;
    for (size_t i = 0; i < count; i++)
        if (opened[i].from->used && opened[i].updates > updates)
            updates = opened[i].updates;
    for (size_t t = 0; t < model->count && rc == 0; t++) {
        const char *name = model->tensors[t]->name;
        size_t many = s_values (model->tensors[t]);
        double *sums = tl_alloc ((many + 1) * sizeof *sums);
        values[t] = tl_alloc_aligned ((many + 1) * sizeof **values);
        s_add (sums, opened, weights, count, t, many);
        for (size_t k = 0; self && k < many; k++)
            sums[k] /= weights[count];
        if (optimizes && s_begins (name, "value:"))
            tl_server_step (self->server, name, sums, many);
        for (size_t k = 0; k < many; k++)
            values[t][k] = (float)sums[k];
        if (!tl_kernels ()->all_finite (values[t], many))
            rc = tl_fail (err, TL_FAILED,
                          "%.200s of all together is beyond what fp32 holds; lower train.lr%s",
                          name, optimizes ? " or federate.server.lr" : "");
        free (sums);
    }
    void *blob = rc == 0 ? s_blob (model, form, values, updates, size) : NULL;
    for (size_t t = 0; t < model->count; t++)
        free (values[t]);
    free (values);
    return blob;
}

void *
tl_aggregate_mean (tl_aggregate_t *self, tl_contribution_t *parts, size_t count, size_t quorum,
                   size_t *size, tl_error_t *err)
{
    const tl_opened_t *model;
    tl_opened_t *opened = s_open_all (parts, count, quorum, &s_state, &model, err);
    if (!opened)
        return NULL;
    double *weights = s_weights (parts, count);
    if (s_learnt (opened, count))
        tl_server_begin (self->server, model->count);
    void *blob = s_combine (self, opened, count, model, &s_state, weights, size, err);
    if (!blob)
        tl_server_drop (self->server);
    free (weights);
    s_close (opened, count);
    return blob;
}

void *
tl_aggregate_sum (tl_contribution_t *parts, size_t count, size_t *size, tl_error_t *err)
{
    const tl_opened_t *model;
    tl_opened_t *opened = s_open_all (parts, count, 1, &s_gradient, &model, err);
    if (!opened)
        return NULL;
    double *weights = tl_alloc ((count + 1) * sizeof *weights);
    for (size_t i = 0; i < count; i++)
        weights[i] = 1;
    void *blob = s_combine (NULL, opened, count, model, &s_gradient, weights, size, err);
    free (weights);
    s_close (opened, count);
    return blob;
}

//  --- life -------------------------------------------------------------------------------------

tl_aggregate_t *
tl_aggregate_new (const tl_server_spec_t *server)
{
    tl_aggregate_t *self = tl_alloc (sizeof *self);
    self->server = tl_server_new (server);
    self->optimizes = server->optimizer != TL_SERVER_NONE;
    return self;
}

void
tl_aggregate_destroy (tl_aggregate_t **self_p)
{
    tl_assert (self_p);
    if (!*self_p)
        return;
    tl_server_destroy (&(*self_p)->server);
    free (*self_p);
    *self_p = NULL;
}

tl_server_t *
tl_aggregate_server (tl_aggregate_t *self)
{
    return self->server;
}
