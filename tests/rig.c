//  rig: see rig.h.

#include "rig.h"

#include "assert.h"
#include "fed/update.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MICROS = 8 };

rig_t *
rig_new (tl_model_t *model, size_t front, size_t tail, const tl_tune_t *tune)
{
    rig_t *self = tl_alloc (sizeof *self);
    tl_error_t err = {.text = ""};
    self->config = tl_model_config (model);
    size_t n = self->config->blocks;
    bool whole = front == 0 && tail == 0;
    tl_range_t all = {.embed = true, .first = 0, .last = n, .head = true};
    tl_range_t ends[2] = {{.embed = true, .first = 0, .last = front},
                          {.first = n - tail, .last = n, .head = true}};
    tl_range_t trunk = {.first = front, .last = n - tail};
    self->part_count = whole ? 1 : 2;
    self->chain_length = whole ? 1 : 3;
    self->parts[0] =
        whole ? tl_part_new (model, &all, 1, tune, &err) : tl_part_new (model, ends, 2, tune, &err);
    if (!whole && self->parts[0])
        self->parts[1] = tl_part_new (model, &trunk, 1, tune, &err);
    if (!self->parts[self->part_count - 1])
        fprintf (stderr, "%s\n", err.text);
    tl_assert (self->parts[self->part_count - 1] != NULL);
    self->chain[0] = tl_part_segment (self->parts[0], 0);
    if (!whole) {
        self->chain[1] = tl_part_segment (self->parts[1], 0);
        self->chain[2] = tl_part_segment (self->parts[0], 1);
    }
    return self;
}

void
rig_destroy (rig_t **self_p)
{
    if (!*self_p)
        return;
    for (size_t i = 0; i < 2; i++)
        tl_part_destroy (&(*self_p)->parts[i]);
    free (*self_p);
    *self_p = NULL;
}

void
rig_forward (rig_t *self, const tl_batch_t *batch, uint64_t step, bool train, tl_tape_t *tapes[3])
{
    for (size_t i = 0; i < self->chain_length; i++)
        tapes[i] = tl_segment_forward (self->chain[i], batch, step,
                                       i ? tl_tape_output (tapes[i - 1]) : NULL, train);
}

double
rig_finish (rig_t *self, const tl_batch_t *batch, bool train, tl_tape_t *tapes[3], float *d_input,
            uint64_t *labels)
{
    size_t last = self->chain_length - 1, values = batch->rows * self->config->hidden;
    double nll;
    tl_segment_loss (self->chain[last], tapes[last], &nll, labels);
    float *d = tl_alloc (values * sizeof *d), *below = tl_alloc (values * sizeof *below);
    for (size_t i = self->chain_length; train && i-- > 0;) {
        tl_segment_backward (self->chain[i], tapes[i], i == last ? NULL : d, i ? below : d_input);
        memcpy (d, below, values * sizeof *d);
    }
    for (size_t i = 0; i < self->chain_length; i++)
        tl_tape_destroy (&tapes[i]);
    free (d);
    free (below);
    return nll;
}

//  One norm over all parts, one coefficient for all.
static void
s_update (rig_t *self, uint64_t labels, double lr, double clip)
{
    size_t total = 0, at = 0;
    for (size_t p = 0; p < self->part_count; p++)
        total += tl_part_tensors (self->parts[p]);
    tl_norm_term_t *squares = tl_alloc ((total + 1) * sizeof *squares);
    double *values = tl_alloc ((total + 1) * sizeof *values);
    for (size_t p = 0; p < self->part_count; p++) {
        tl_part_finish_gradient (self->parts[p], values);
        for (size_t i = 0; i < tl_part_tensors (self->parts[p]); i++)
            squares[at++] = (tl_norm_term_t){tl_part_tensor (self->parts[p], i)->order, values[i]};
    }
    double coefficient = tl_coefficient (tl_gradient_norm (squares, total, labels), clip, labels);
    for (size_t p = 0; p < self->part_count; p++) {
        tl_error_t err;
        tl_assert (tl_part_update (self->parts[p], coefficient, lr, &err) == 0);
    }
    free (squares);
    free (values);
}

double
rig_step (rig_t *self, tl_batch_t *const *micros, size_t count, uint64_t step, double lr,
          double clip, bool overlapped)
{
    tl_tape_t *tapes[MICROS][3];
    double nll = 0;
    uint64_t labels = 0;
    tl_assert (count <= MICROS);
    for (size_t i = 0; overlapped && i < count; i++)
        rig_forward (self, micros[i], step, true, tapes[i]);
    for (size_t i = 0; i < count; i++) {
        uint64_t own;
        if (!overlapped)
            rig_forward (self, micros[i], step, true, tapes[i]);
        nll += rig_finish (self, micros[i], true, tapes[i], NULL, &own);
        labels += own;
    }
    s_update (self, labels, lr, clip);
    return nll / (double)labels;
}

double
rig_loss (rig_t *self, const tl_batch_t *batch)
{
    tl_tape_t *tapes[3];
    uint64_t labels;
    rig_forward (self, batch, 0, false, tapes);
    return rig_finish (self, batch, false, tapes, NULL, &labels);
}

const tl_tensor_t *
rig_tensor (const rig_t *self, const char *name)
{
    for (size_t p = 0; p < self->part_count; p++)
        for (size_t i = 0; i < tl_part_tensors (self->parts[p]); i++)
            if (strcmp (tl_part_tensor (self->parts[p], i)->name, name) == 0)
                return tl_part_tensor (self->parts[p], i);
    return NULL;
}

static size_t
s_tensors (const rig_t *self)
{
    size_t count = 0;
    for (size_t p = 0; p < self->part_count; p++)
        count += tl_part_tensors (self->parts[p]);
    return count;
}

bool
rig_same (const rig_t *left, const rig_t *right)
{
    if (s_tensors (left) != s_tensors (right)) {
        printf ("%zu trained tensors on one side, %zu on the other\n", s_tensors (left),
                s_tensors (right));
        return false;
    }
    for (size_t p = 0; p < left->part_count; p++)
        for (size_t i = 0; i < tl_part_tensors (left->parts[p]); i++) {
            const tl_tensor_t *one = tl_part_tensor (left->parts[p], i);
            const tl_tensor_t *two = rig_tensor (right, one->name);
            size_t size = one->shape[0] * one->shape[1] * sizeof (float);
            if (!two || two->order != one->order || memcmp (one->value, two->value, size) != 0) {
                printf ("%s differs\n", one->name);
                return false;
            }
        }
    return true;
}

float *
rig_saved (const tl_tensor_t *tensor, const tl_safetensors_t *file)
{
    const tl_st_tensor_t *saved = tl_safetensors_find (file, tensor->name);
    size_t rows = tensor->shape[0], width = tensor->shape[1], columns = width, first = 0;
    if (!saved && (saved = tl_safetensors_find (file, "prompt_embeddings"))) {
        columns = saved->dimensions == 2 ? saved->shape[1] : 0;
        first = width * strtoull (strrchr (tensor->name, '.') + 1, NULL, 10);
    }
    if (!saved || saved->bytes != rows * columns * sizeof (float) || first + width > columns)
        return NULL;
    float *values = tl_alloc (rows * width * sizeof *values);
    for (size_t row = 0; row < rows; row++)
        memcpy (values + row * width, (const float *)saved->data + row * columns + first,
                width * sizeof *values);
    return values;
}

size_t
rig_saved_count (const tl_safetensors_t *file, size_t width)
{
    const tl_st_tensor_t *prefix = tl_safetensors_find (file, "prompt_embeddings");
    return prefix ? prefix->shape[1] / width : tl_safetensors_count (file);
}
