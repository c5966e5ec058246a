/*  golden_run: what is computed for a case and which of its tensors it is held against. All sequences run
    as one ragged micro; the whole model and a chain of segments cut after every block both compute
    every row and every gradient, and must agree bit for bit.                                        */

#include "golden_run.h"

#include "memory.h"
#include "model/segment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *
s_name (char *name, const char *format, size_t i, size_t k)
{
    snprintf (name, 128, format, i, k);
    return name;
}

//  ---------------------------------------------------------------------------------------------
//  Input

//  Integers of a tensor of forward.safetensors; NULL if absent.
static int32_t *
s_integers (golden_run_t *self, const char *name, size_t want, size_t *count)
{
    double *values = file_values (&self->forward, self->owner, name, want, &want);
    if (!values)
        return NULL;
    int32_t *result = tl_alloc ((want + 1) * sizeof *result);
    for (size_t i = 0; i < want; i++)
        result[i] = (int32_t)values[i];
    free (values);
    if (count)
        *count = want;
    return result;
}

//  ids and shifted labels of sequence i become rows at the end of the batch.
static int
s_append (golden_run_t *self, size_t i, int32_t **ids, int32_t **labels)
{
    char name[128];
    size_t length = 0, rows = self->input.batch.rows;
    int32_t *new_ids = s_integers (self, s_name (name, "input_ids.%zu", i, 0), 0, &length);
    int32_t *new_labels =
        new_ids ? s_integers (self, s_name (name, "labels.%zu", i, 0), length, NULL) : NULL;
    bool good = new_ids && new_labels && length > 0;
    for (size_t row = 0; good && row < length; row++)
        good = new_ids[row] >= 0 && (size_t)new_ids[row] < self->config->vocab &&
               new_labels[row] < (int32_t)self->config->vocab;
    if (good) {
        *ids = realloc (*ids, (rows + length) * sizeof (int32_t));
        *labels = realloc (*labels, (rows + length) * sizeof (int32_t));
        memcpy (*ids + rows, new_ids, length * sizeof (int32_t));
        for (size_t row = 0; row < length; row++) {
            int32_t label = row + 1 < length && new_labels[row + 1] >= 0 ? new_labels[row + 1] : -1;
            (*labels)[rows + row] = label;
            self->input.labels += label >= 0;
        }
        ((uint32_t *)self->input.batch.length)[i] = (uint32_t)length;
        self->input.batch.rows += length;
        self->input.offset[i + 1] = rows + length;
    } else
        case_fail (self->owner, "forward.safetensors: sequence %zu has no usable ids and labels",
                   i);
    free (new_ids);
    free (new_labels);
    return good ? 0 : -1;
}

static int
s_read_input (golden_run_t *self)
{
    char name[128];
    size_t count = 0;
    while (file_has (&self->forward, s_name (name, "input_ids.%zu", count, 0)))
        count++;
    if (count == 0) {
        case_fail (self->owner, "forward.safetensors: input_ids.0 is missing");
        return -1;
    }
    tl_batch_t *batch = &self->input.batch;
    batch->sequences = count;
    batch->length = tl_alloc (count * sizeof (uint32_t));
    uint64_t *numbers = tl_alloc (count * sizeof *numbers);
    self->input.offset = tl_alloc ((count + 1) * sizeof (size_t));
    int32_t *ids = NULL, *labels = NULL;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        numbers[i] = i;
        rc = s_append (self, i, &ids, &labels);
    }
    batch->number = numbers;
    batch->ids = ids;
    batch->labels = labels;
    batch->context = (uint32_t *)s_integers (self, "context_length", count, NULL);
    bool chatglm = tl_shape_of (self->config).prefix_mask;
    if (chatglm)
        batch->mask = (uint32_t *)s_integers (self, "mask_position", count, NULL);
    if (!batch->context || (chatglm && !batch->mask))
        rc = -1;
    return rc;
}

static void
s_free_input (golden_input_t *self)
{
    free ((void *)self->batch.length);
    free ((void *)self->batch.number);
    free ((void *)self->batch.ids);
    free ((void *)self->batch.labels);
    free ((void *)self->batch.context);
    free ((void *)self->batch.mask);
    free (self->offset);
}

//  The rebuilt position ids are the case's.
static void
s_check_positions (golden_run_t *self)
{
    char name[128];
    bool two = tl_shape_of (self->config).rope_2d;
    const tl_batch_t *batch = &self->input.batch;
    for (size_t i = 0; i < batch->sequences; i++) {
        size_t length = batch->length[i];
        double *positions = tl_alloc (2 * length * sizeof *positions);
        for (size_t row = 0; row < length; row++) {
            size_t position, block;
            tl_rope_position (self->config, two ? batch->context[i] : 0, two ? batch->mask[i] : 0,
                              row, &position, &block);
            positions[row] = (double)position;
            positions[length + row] = (double)block;
        }
        case_compare_doubles (self->owner, &self->forward, s_name (name, "position_ids.%zu", i, 0),
                              KIND_EXACT, positions, length);
        if (two)
            case_compare_doubles (self->owner, &self->forward,
                                  s_name (name, "block_position_ids.%zu", i, 0), KIND_EXACT,
                                  positions + length, length);
        free (positions);
    }
}

//  ---------------------------------------------------------------------------------------------
//  Rows of all sequences against tensors per sequence

static void
s_compare_rows (golden_run_t *self, golden_file_t *file, const char *format, size_t block,
                kind_t kind, const float *rows, size_t width, double scale)
{
    char name[128];
    for (size_t i = 0; i < self->input.batch.sequences; i++) {
        size_t first = self->input.offset[i], count = self->input.batch.length[i] * width;
        double *values = tl_alloc (count * sizeof *values);
        for (size_t j = 0; j < count; j++)
            values[j] = scale * rows[first * width + j];
        case_compare_doubles (self->owner, file, s_name (name, format, i, block), kind, values,
                              count);
        free (values);
    }
}

uint32_t *
golden_all_rows (size_t count)
{
    uint32_t *rows = tl_alloc (count * sizeof *rows);
    for (size_t i = 0; i < count; i++)
        rows[i] = (uint32_t)i;
    return rows;
}

tl_part_t *
golden_part (golden_run_t *self, tl_range_t range, const tl_tune_t *tune)
{
    tl_error_t err;
    tl_part_t *part = tl_part_new (self->model, &range, 1, tune, &err);
    if (!part)
        case_fail (self->owner, "%s", err.text);
    return part;
}

tl_range_t
golden_whole (const tl_config_t *config)
{
    return (tl_range_t){.embed = true, .first = 0, .last = config->blocks, .head = true};
}

//  nll_sum and token_count are per sequence: each sequence alone through the whole model.
static void
s_compare_losses (golden_run_t *self, tl_part_t *part, double nll)
{
    const tl_batch_t *batch = &self->input.batch;
    double *sums = tl_alloc (batch->sequences * sizeof *sums);
    double *counts = tl_alloc (batch->sequences * sizeof *counts);
    for (size_t i = 0; i < batch->sequences; i++) {
        tl_batch_t one = *batch;
        one.sequences = 1;
        one.rows = batch->length[i];
        one.length += i;
        one.context += i;
        one.number += i;
        if (one.mask)
            one.mask += i;
        one.ids += self->input.offset[i];
        one.labels += self->input.offset[i];
        tl_segment_t *segment = tl_part_segment (part, 0);
        tl_tape_t *tape = tl_segment_forward (segment, &one, 0, NULL, false);
        uint64_t labels;
        tl_segment_loss (segment, tape, &sums[i], &labels);
        counts[i] = (double)labels;
        tl_tape_destroy (&tape);
    }
    case_compare_doubles (self->owner, &self->forward, "nll_sum", KIND_NLL, sums, batch->sequences);
    case_compare_doubles (self->owner, &self->forward, "token_count", KIND_EXACT, counts,
                          batch->sequences);
    double loss = nll / (double)self->input.labels;
    case_compare_doubles (self->owner, &self->forward, "loss", KIND_LOSS, &loss, 1);
    free (sums);
    free (counts);
}

//  ---------------------------------------------------------------------------------------------
//  Forward and backward, whole and chained

//  One segment of the chain with its tape.
typedef struct {
    tl_part_t *part;
    tl_tape_t *tape;
} s_link_t;

static tl_range_t
s_link_range (const tl_config_t *config, size_t index)
{
    size_t n = config->blocks;
    if (index == 0)
        return (tl_range_t){.embed = true};
    if (index == n + 1)
        return (tl_range_t){.first = n, .last = n, .head = true};
    return (tl_range_t){.first = index - 1, .last = index};
}

static int
s_chain_forward (golden_run_t *self, s_link_t *links, const tl_tune_t *tune, const tl_tape_t *whole)
{
    char name[128];
    size_t count = self->config->blocks + 2;
    size_t values = self->input.batch.rows * self->config->hidden;
    for (size_t i = 0; i < count; i++) {
        links[i].part = golden_part (self, s_link_range (self->config, i), tune);
        if (!links[i].part)
            return -1;
        tl_segment_t *segment = tl_part_segment (links[i].part, 0);
        const float *input = i ? tl_tape_output (links[i - 1].tape) : NULL;
        links[i].tape = tl_segment_forward (segment, &self->input.batch, 0, input, true);
        if (i + 1 < count)
            case_compare_bits (self->owner, s_name (name, "rows after cut %zu", i, 0),
                               tl_tape_output (links[i].tape), tl_tape_block (whole, i - 1),
                               values);
    }
    return 0;
}

//  The gradient at every cut of the chain; the one at the bottom equals the whole model's.
static void
s_chain_backward (golden_run_t *self, s_link_t *links, golden_file_t *file, const float *bottom,
                  double nll)
{
    size_t count = self->config->blocks + 2, h = self->config->hidden;
    size_t values = self->input.batch.rows * h;
    double scale = 1 / (double)self->input.labels, chained;
    uint64_t labels;
    float *d = tl_alloc (values * sizeof *d);
    float *d_input = tl_alloc (values * sizeof *d_input);
    s_link_t *head = &links[count - 1];
    tl_segment_loss (tl_part_segment (head->part, 0), head->tape, &chained, &labels);
    if (memcmp (&chained, &nll, sizeof nll) != 0)
        case_fail (self->owner, "the chain's loss %.17g is not the whole model's %.17g", chained,
                   nll);
    for (size_t i = count; i-- > 0;) {
        tl_segment_backward (tl_part_segment (links[i].part, 0), links[i].tape,
                             i == count - 1 ? NULL : d, d_input);
        memcpy (d, d_input, values * sizeof *d);
        if (i > 1)
            s_compare_rows (self, file, "grad_hidden.%zu.block.%zu", i - 2, KIND_GRAD_HIDDEN, d, h,
                            scale);
        else if (i == 1)
            s_compare_rows (self, file, "grad_hidden.%zu.embed", 0, KIND_GRAD_HIDDEN, d, h, scale);
    }
    case_compare_bits (self->owner, "gradient of the embedded rows", d, bottom, values);
    free (d);
    free (d_input);
}

static void
s_compare_forward (golden_run_t *self, tl_segment_t *segment, tl_tape_t *tape)
{
    size_t n = self->input.batch.rows, h = self->config->hidden;
    s_compare_rows (self, &self->forward, "hidden.%zu.embed", 0, KIND_HIDDEN,
                    tl_tape_block (tape, (size_t)-1), h, 1);
    for (size_t k = 0; k < self->config->blocks; k++)
        s_compare_rows (self, &self->forward, "hidden.%zu.block.%zu", k, KIND_HIDDEN,
                        tl_tape_block (tape, k), h, 1);
    uint32_t *rows = golden_all_rows (n);
    float *normed = tl_alloc (n * h * sizeof *normed);
    tl_segment_final (segment, tape, rows, n, normed);
    s_compare_rows (self, &self->forward, "hidden.%zu.final_norm", 0, KIND_HIDDEN, normed, h, 1);
    float *logits = tl_alloc (n * self->config->vocab * sizeof *logits);
    tl_segment_logits (segment, tape, rows, n, logits);
    s_compare_rows (self, &self->forward, "logits.%zu", 0, KIND_LOGITS, logits, self->config->vocab,
                    1);
    free (rows);
    free (normed);
    free (logits);
}

//  Rows, logits and losses, whole and cut after every block; no gradients.
static void
s_check_forward (golden_run_t *self)
{
    tl_tune_t tune = {.method = TL_TUNE_FULL, .frozen = true};
    tl_part_t *part = golden_part (self, golden_whole (self->config), &tune);
    if (!part)
        return;
    size_t links_count = self->config->blocks + 2;
    tl_segment_t *segment = tl_part_segment (part, 0);
    tl_tape_t *tape = tl_segment_forward (segment, &self->input.batch, 0, NULL, true);
    double nll;
    uint64_t labels;
    tl_segment_loss (segment, tape, &nll, &labels);
    s_compare_losses (self, part, nll);
    s_compare_forward (self, segment, tape);
    s_link_t *links = tl_alloc (links_count * sizeof *links);
    s_chain_forward (self, links, &tune, tape);
    for (size_t i = 0; i < links_count; i++) {
        tl_tape_destroy (&links[i].tape);
        tl_part_destroy (&links[i].part);
    }
    free (links);
    tl_tape_destroy (&tape);
    tl_part_destroy (&part);
}

static void
s_check_forward_backward (golden_run_t *self)
{
    tl_tune_t tune = {.method = TL_TUNE_FULL, .frozen = true};
    golden_file_t file;
    tl_part_t *part = golden_part (self, golden_whole (self->config), &tune);
    if (!part || file_open (&file, self->owner, "backward.safetensors")) {
        tl_part_destroy (&part);
        return;
    }
    size_t links_count = self->config->blocks + 2, h = self->config->hidden;
    size_t values = self->input.batch.rows * h;
    tl_segment_t *segment = tl_part_segment (part, 0);
    tl_tape_t *tape = tl_segment_forward (segment, &self->input.batch, 0, NULL, true);
    double nll;
    uint64_t labels;
    tl_segment_loss (segment, tape, &nll, &labels);
    s_compare_losses (self, part, nll);
    s_compare_forward (self, segment, tape);
    float *gradient = tl_alloc (values * sizeof *gradient);
    tl_tape_final_gradient (tape, gradient);
    s_compare_rows (self, &file, "grad_hidden.%zu.final_norm", 0, KIND_GRAD_HIDDEN, gradient, h,
                    1 / (double)self->input.labels);
    s_link_t *links = tl_alloc (links_count * sizeof *links);
    bool chained = s_chain_forward (self, links, &tune, tape) == 0;
    tl_segment_backward (segment, tape, NULL, gradient);
    if (chained)
        s_chain_backward (self, links, &file, gradient, nll);
    for (size_t i = 0; i < links_count; i++) {
        tl_tape_destroy (&links[i].tape);
        tl_part_destroy (&links[i].part);
    }
    free (links);
    free (gradient);
    tl_tape_destroy (&tape);
    tl_part_destroy (&part);
    file_close (&file, self->owner);
}

void
case_run (golden_case_t *owner)
{
    tl_error_t err;
    char *path = tl_format ("%s/model", owner->path);
    golden_run_t self = {.owner = owner, .model = tl_model_open (path, &err)};
    free (path);
    if (!self.model) {
        case_fail (owner, "%s", err.text);
        return;
    }
    self.config = tl_model_config (self.model);
    if (file_open (&self.forward, owner, "forward.safetensors") == 0) {
        if (s_read_input (&self) == 0) {
            s_check_positions (&self);
            s_check_forward_backward (&self);
            golden_check_full (&self);
            golden_check_lora (&self);
            golden_check_prefix (&self);
        }
        s_free_input (&self.input);
        file_close (&self.forward, owner);
    }
    tl_model_destroy (&self.model);
}

void
case_run_gguf (golden_case_t *owner, const char *file, const char *type)
{
    tl_error_t err;
    char *path = tl_format ("%s/gguf/%s", owner->path, file);
    char *forward = tl_format ("forward-%s.safetensors", type);
    golden_run_t self = {.owner = owner, .model = tl_model_open (path, &err)};
    if (!self.model)
        case_fail (owner, "%s", err.text);
    else if (file_open (&self.forward, owner, forward) == 0) {
        self.config = tl_model_config (self.model);
        case_compare_weights (owner, self.model, type);
        if (s_read_input (&self) == 0) {
            s_check_positions (&self);
            s_check_forward (&self);
        }
        s_free_input (&self.input);
        file_close (&self.forward, owner);
    }
    free (forward);
    free (path);
    tl_model_destroy (&self.model);
}
