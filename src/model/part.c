/*  part: the trained tensors of one owner (LoRA factors or fp32 masters), their gradients and AdamW
    state, and the segments that compute with them.

    All tensors of a part lie in one allocation: values, gradients, m, v. Draws and updates are
    addressed by tensor name and order, never by how the model is cut.                              */

#include "model/internal.h"
#include "model/segment.h"

#include "assert.h"
#include "memory.h"
#include "random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PREFIX = 4096 }; //  rows

//  ---------------------------------------------------------------------------------------------
//  Which tensors a part trains

const char *
tl_method_name (tl_method_t method)
{
    static const char *const names[] = {
        [TL_TUNE_LORA] = "lora", [TL_TUNE_FULL] = "full", [TL_TUNE_PTUNING] = "ptuning"};
    return names[method];
}

static bool
s_has_embed (const tl_part_t *self)
{
    return self->ranges[0].embed;
}

static bool
s_has_head (const tl_part_t *self)
{
    return self->ranges[self->range_count - 1].head;
}

bool
tl_part_owns (const tl_part_t *self, const tl_config_t *config, const tl_slot_t *slot)
{
    switch (slot->role) {
    case TL_SLOT_EMBED:
        return s_has_embed (self) || (config->tied && s_has_head (self));
    case TL_SLOT_FINAL:
    case TL_SLOT_FINAL_BIAS:
    case TL_SLOT_HEAD:
        return s_has_head (self);
    default:
        for (size_t i = 0; i < self->range_count; i++)
            if (slot->block >= self->ranges[i].first && slot->block < self->ranges[i].last)
                return true;
        return false;
    }
}

static char *
s_peft_name (const char *weight, char factor)
{
    size_t length = strlen (weight) - strlen (".weight");
    return tl_format ("base_model.model.%.*s.lora_%c.weight", (int)length, weight, factor);
}

static char *
s_prefix_name (size_t block)
{
    return tl_format ("prompt_embeddings.%zu", block);
}

static void
s_add_tensor (tl_part_t *self, char *name, uint64_t order, size_t rows, size_t columns)
{
    self->tensors[self->tensor_count++] =
        (tl_tensor_t){.name = name, .order = order, .shape = {rows, columns}};
}

//  Lists the trained tensors in the model's order, without storage yet.
static void
s_list_tensors (tl_part_t *self, const tl_config_t *config)
{
    size_t slots = tl_layout_count (config);
    self->tensors = tl_alloc (2 * slots * sizeof *self->tensors);
    if (self->tune.frozen)
        return;
    for (size_t i = 0; i < slots; i++) {
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (!tl_part_owns (self, config, &slot) || !tl_tune_trains (&self->tune, &slot))
            continue;
        if (self->tune.method == TL_TUNE_FULL)
            s_add_tensor (self, tl_strdup (slot.name), 2 * i, slot.rows, slot.columns);
        else if (self->tune.method == TL_TUNE_PTUNING)
            s_add_tensor (self, s_prefix_name (slot.block), 2 * i, self->tune.prefix,
                          2 * config->kv_heads * config->head_dim);
        else {
            s_add_tensor (self, s_peft_name (slot.name, 'A'), 2 * i, self->tune.rank, slot.columns);
            s_add_tensor (self, s_peft_name (slot.name, 'B'), 2 * i + 1, slot.rows,
                          self->tune.rank);
        }
    }
}

//  Every target must name a linear of the model, in this part or not.
static int
s_check_targets (const tl_part_t *self, const tl_config_t *config, tl_error_t *err)
{
    for (size_t t = 0; t < self->tune.target_count; t++) {
        tl_tune_t one = {.targets = {self->tune.targets[t]}, .target_count = 1};
        bool found = false;
        for (size_t i = 0; i < tl_layout_count (config) && !found; i++) {
            tl_slot_t slot;
            tl_layout_at (config, i, &slot);
            found = slot.linear && tl_tune_targets (&one, slot.name);
        }
        char linears[256];
        tl_layout_linears (config, linears, sizeof linears);
        if (!found)
            return tl_fail (err, TL_BAD_INPUT,
                            "tune.targets, or the adapter's target_modules: %.300s has no linear layer "
                            "called '%s'; name some of its own (%s), or take the model that the "
                            "adapter was made for",
                            tl_model_path (self->model), self->tune.targets[t], linears);
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Storage and first values

static size_t
s_tensor_size (const tl_tensor_t *tensor)
{
    return tensor->shape[0] * tensor->shape[1];
}

//  If so it is the part's first tensor.
static bool
s_trains_embed (const tl_part_t *self, const tl_config_t *config)
{
    tl_slot_t first;
    tl_layout_at (config, 0, &first);
    return first.role == TL_SLOT_EMBED && tl_tune_trains (&self->tune, &first);
}

static void
s_allocate (tl_part_t *self, const tl_config_t *config)
{
    size_t total = 0, count = self->tensor_count;
    for (size_t i = 0; i < count; i++)
        total += tl_padded (s_tensor_size (&self->tensors[i]));
    self->m = tl_alloc ((count + 1) * sizeof (float *));
    self->v = tl_alloc ((count + 1) * sizeof (float *));
    self->embed_tensor = count;
    bool full = count > 0 && self->tune.method == TL_TUNE_FULL;
    bool shared = full && config->tied && s_has_embed (self) && s_has_head (self) &&
                  s_trains_embed (self, config);
    size_t extra = shared ? tl_padded (config->vocab * config->hidden) : 0;
    self->storage_size = 4 * total + extra;
    if (count == 0)
        return;
    self->storage = tl_alloc_aligned (self->storage_size * sizeof (float));
    memset (self->storage, 0, self->storage_size * sizeof (float));
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        tl_tensor_t *tensor = &self->tensors[i];
        tensor->value = self->storage + at;
        tensor->gradient = self->storage + total + at;
        self->m[i] = self->storage + 2 * total + at;
        self->v[i] = self->storage + 3 * total + at;
        at += tl_padded (s_tensor_size (tensor));
    }
    if (shared) {
        self->embed_gradient = self->storage + 4 * total;
        self->embed_tensor = 0;
    }
}

//  A as PEFT draws it, uniform in +-1 / sqrt (in) (kaiming with a = sqrt (5)); B stays zero.
static void
s_draw_lora (const tl_part_t *self, tl_tensor_t *tensor)
{
    size_t length = strlen (tensor->name);
    if (strcmp (tensor->name + length - strlen ("A.weight"), "A.weight") != 0)
        return;
    tl_stream_t stream = {self->tune.seed, TL_DRAW_INIT, 0, 0, tl_random_name (tensor->name)};
    double bound = 1 / sqrt ((double)tensor->shape[1]);
    for (size_t i = 0; i < s_tensor_size (tensor); i++)
        tensor->value[i] = (float)(bound * (2 * tl_random_uniform (&stream, i) - 1));
}

static void
s_draw_prefix (const tl_part_t *self, tl_tensor_t *tensor)
{
    tl_stream_t stream = {self->tune.seed, TL_DRAW_INIT, 0, 0, tl_random_name (tensor->name)};
    for (size_t i = 0; i < s_tensor_size (tensor); i++)
        tensor->value[i] = (float)tl_random_normal (&stream, i);
}

static int
s_first_values (tl_part_t *self, tl_error_t *err)
{
    for (size_t i = 0; i < self->tensor_count; i++) {
        tl_tensor_t *tensor = &self->tensors[i];
        tl_weight_t weight;
        if (self->tune.method == TL_TUNE_LORA)
            s_draw_lora (self, tensor);
        else if (self->tune.method == TL_TUNE_PTUNING)
            s_draw_prefix (self, tensor);
        else if (tl_model_weight (self->model, tensor->name, tensor->shape[0], tensor->shape[1],
                                  &weight, err))
            return -1;
        else if (tl_dtype_block (weight.dtype) > 1 && tl_model_holds (self->model) != TL_F32)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensor %s is quantised (%s) and tune.method full would train it; "
                            "set model.dtype: fp32 to expand the weights, or tune.method: lora",
                            tl_model_path (self->model), tensor->name,
                            tl_dtype_name (weight.dtype));
        else
            tl_widen (tensor->value, weight.data, weight.dtype, s_tensor_size (tensor));
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Making and unmaking

static int
s_check_ranges (const tl_part_t *self, const tl_config_t *config, tl_error_t *err)
{
    for (size_t i = 0; i < self->range_count; i++) {
        const tl_range_t *range = &self->ranges[i];
        bool fits = range->first <= range->last && range->last <= config->blocks &&
                    (!range->embed || range->first == 0) &&
                    (!range->head || range->last == config->blocks) &&
                    (i == 0 || (range->first >= self->ranges[i - 1].last && !range->embed &&
                                !self->ranges[i - 1].head));
        if (!fits)
            return tl_fail (err, TL_BAD_INPUT,
                            "split: a segment of blocks %zu to %zu does not fit a model of %zu "
                            "blocks; choose a smaller front and tail",
                            range->first, range->last, config->blocks);
    }
    return 0;
}

static int
s_check_prefix (const tl_tune_t *tune, const tl_config_t *config, tl_error_t *err)
{
    if (config->family != TL_FAMILY_CHATGLM && config->family != TL_FAMILY_GLM)
        return tl_fail (err, TL_BAD_INPUT,
                        "tune.method: ptuning is for models of the families chatglm and glm, this "
                        "one is %s; use lora",
                        tl_family_name (config->family));
    if (tune->prefix < 1 || tune->prefix > MOST_PREFIX)
        return tl_fail (err, TL_BAD_INPUT,
                        "tune.prefix: expected 1 to %d rows, got %zu; 128 is a good start",
                        MOST_PREFIX, tune->prefix);
    return tl_tune_check_freeze (tune, config, err);
}

static int
s_check_tune (const tl_part_t *self, const tl_config_t *config, tl_error_t *err)
{
    const tl_tune_t *tune = &self->tune;
    if (tune->method == TL_TUNE_FULL)
        return tl_tune_check_freeze (tune, config, err);
    if (tune->method == TL_TUNE_PTUNING)
        return s_check_prefix (tune, config, err);
    if (tune->rank < 1 || tune->rank > config->hidden)
        return tl_fail (err, TL_BAD_INPUT,
                        "tune.rank: expected 1 to the hidden size %zu, got %zu; 8 is a good start",
                        config->hidden, tune->rank);
    if (!(tune->dropout >= 0 && tune->dropout < 1))
        return tl_fail (err, TL_BAD_INPUT,
                        "tune.dropout: expected 0 or more and below 1, got %g; use 0.05 or 0",
                        tune->dropout);
    return s_check_targets (self, config, err) != 0 ? -1 : tl_tune_check_freeze (tune, config, err);
}

static void
s_copy_lists (tl_part_t *self, const tl_tune_t *tune, const tl_config_t *config)
{
    const char *const *targets = tune->targets;
    size_t count = tune->target_count;
    tl_assert (count <= TL_MAX_TARGETS);
    if (count == 0)
        targets = tl_default_targets (config, &count);
    self->tune.target_count = count;
    for (size_t i = 0; i < count; i++)
        self->tune.targets[i] = tl_strdup (targets[i]);
    for (size_t i = 0; i < tune->freeze_count; i++)
        self->tune.freeze[i] = tl_strdup (tune->freeze[i]);
}

tl_part_t *
tl_part_new (tl_model_t *model, const tl_range_t *ranges, size_t count, const tl_tune_t *tune,
             tl_error_t *err)
{
    tl_assert (count >= 1 && count <= TL_MAX_SEGMENTS);
    const tl_config_t *config = tl_model_config (model);
    tl_part_t *self = tl_alloc (sizeof *self);
    self->model = model;
    memcpy (self->ranges, ranges, count * sizeof *ranges);
    self->range_count = count;
    self->tune = *tune;
    s_copy_lists (self, tune, config);
    self->workspace = tl_workspace_new ();
    int rc = s_check_ranges (self, config, err);
    if (rc == 0)
        rc = s_check_tune (self, config, err);
    if (rc == 0) {
        s_list_tensors (self, config);
        s_allocate (self, config);
        rc = s_first_values (self, err);
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        self->segments[i] = tl_segment_new (self, &ranges[i], err);
        rc = self->segments[i] ? 0 : -1;
    }
    if (rc)
        tl_part_destroy (&self);
    return self;
}

void
tl_part_destroy (tl_part_t **self_p)
{
    tl_part_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < TL_MAX_SEGMENTS; i++)
        tl_segment_destroy (&self->segments[i]);
    tl_workspace_destroy (&self->workspace);
    for (size_t i = 0; i < self->tensor_count; i++)
        free ((char *)self->tensors[i].name);
    for (size_t i = 0; i < self->tune.target_count; i++)
        free ((char *)self->tune.targets[i]);
    for (size_t i = 0; i < self->tune.freeze_count; i++)
        free ((char *)self->tune.freeze[i]);
    tl_part_forget_anchor (self);
    free (self->tensors);
    free (self->m);
    free (self->v);
    free (self->storage);
    free (self);
    *self_p = NULL;
}

tl_segment_t *
tl_part_segment (tl_part_t *self, size_t index)
{
    tl_assert (index < self->range_count);
    return self->segments[index];
}

size_t
tl_part_tensors (const tl_part_t *self)
{
    return self->tensor_count;
}

const tl_tensor_t *
tl_part_tensor (const tl_part_t *self, size_t index)
{
    tl_assert (index < self->tensor_count);
    return &self->tensors[index];
}

const tl_tensor_t *
tl_part_find (const tl_part_t *self, const char *name)
{
    for (size_t i = 0; i < self->tensor_count; i++)
        if (strcmp (self->tensors[i].name, name) == 0)
            return &self->tensors[i];
    return NULL;
}

const tl_tensor_t *
tl_part_find_lora (const tl_part_t *self, const char *weight, char factor)
{
    char *name = s_peft_name (weight, factor);
    const tl_tensor_t *tensor = tl_part_find (self, name);
    free (name);
    return tensor;
}

const tl_tensor_t *
tl_part_find_prefix (const tl_part_t *self, size_t block)
{
    char *name = s_prefix_name (block);
    const tl_tensor_t *tensor = tl_part_find (self, name);
    free (name);
    return tensor;
}

//  ---------------------------------------------------------------------------------------------
//  A step's end

void
tl_part_finish_gradient (tl_part_t *self, double *squares)
{
    const tl_kernels_t *k = tl_kernels ();
    if (self->embed_gradient) {
        const tl_tensor_t *embed = &self->tensors[self->embed_tensor];
        k->add (embed->gradient, self->embed_gradient, 1, s_tensor_size (embed));
        memset (self->embed_gradient, 0, s_tensor_size (embed) * sizeof (float));
    }
    for (size_t i = 0; i < self->tensor_count; i++)
        squares[i] =
            k->sum_of_squares (self->tensors[i].gradient, s_tensor_size (&self->tensors[i]));
}

int
tl_part_update (tl_part_t *self, double coefficient, double lr, tl_error_t *err)
{
    const tl_kernels_t *k = tl_kernels ();
    for (size_t i = 0; i < self->tensor_count; i++)
        if (!k->all_finite (self->tensors[i].gradient, s_tensor_size (&self->tensors[i])))
            return tl_fail (
                err, TL_BAD_INPUT,
                "the gradient of %s is not finite after %llu updates; lower train.lr or "
                "look for broken text in the data",
                self->tensors[i].name, (unsigned long long)self->updates);
    if (!isfinite (coefficient) || !isfinite (lr))
        return tl_fail (err, TL_BAD_INPUT,
                        "the gradient's norm is not finite after %llu updates; lower train.lr or "
                        "look for broken text in the data",
                        (unsigned long long)self->updates);
    self->updates++;
    for (size_t i = 0; i < self->tensor_count; i++)
        k->adamw (self->tensors[i].value, self->m[i], self->v[i], self->tensors[i].gradient,
                  s_tensor_size (&self->tensors[i]), coefficient, lr, self->tune.beta1,
                  self->tune.beta2, self->tune.eps, self->tune.decay, self->updates);
    tl_part_zero_gradient (self);
    return 0;
}

void
tl_part_zero_gradient (tl_part_t *self)
{
    for (size_t i = 0; i < self->tensor_count; i++)
        memset (self->tensors[i].gradient, 0, s_tensor_size (&self->tensors[i]) * sizeof (float));
    if (self->embed_gradient)
        memset (self->embed_gradient, 0,
                s_tensor_size (&self->tensors[self->embed_tensor]) * sizeof (float));
}

uint64_t
tl_part_updates (const tl_part_t *self)
{
    return self->updates;
}

//  ---------------------------------------------------------------------------------------------
//  The anchor of a period

void
tl_part_forget_anchor (tl_part_t *self)
{
    for (size_t i = 0; self->anchor && i < self->tensor_count; i++)
        free (self->anchor[i]);
    free (self->anchor);
    self->anchor = NULL;
}

void
tl_part_anchor (tl_part_t *self, uint64_t period)
{
    if ((self->anchor && self->period == period) || self->tensor_count == 0)
        return;
    if (!self->anchor) {
        self->anchor = tl_alloc (self->tensor_count * sizeof *self->anchor);
        for (size_t i = 0; i < self->tensor_count; i++)
            self->anchor[i] = tl_alloc_aligned (s_tensor_size (&self->tensors[i]) * sizeof (float));
    }
    for (size_t i = 0; i < self->tensor_count; i++)
        memcpy (self->anchor[i], self->tensors[i].value,
                s_tensor_size (&self->tensors[i]) * sizeof (float));
    self->period = period;
}

void
tl_part_pull (tl_part_t *self, double strength)
{
    for (size_t i = 0; self->anchor && i < self->tensor_count; i++) {
        const tl_tensor_t *tensor = &self->tensors[i];
        const float *anchor = self->anchor[i];
        for (size_t k = 0; k < s_tensor_size (tensor); k++)
            tensor->gradient[k] += (float)(strength * ((double)tensor->value[k] - anchor[k]));
    }
}
