/*  golden_train: gradients at step 0 and some steps of AdamW over everything, over an adapter and over a
    prefix, held against the case's.                                                                 */

#include "golden_run.h"

#include "fed/update.h"
#include "file.h"
#include "memory.h"
#include "model/segment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *
s_name (char name[128], size_t sequence)
{
    snprintf (name, 128, "logits.%zu", sequence);
    return name;
}

//  One forward and backward of everything; returns the token mean and leaves the gradients.
static double
s_pass (golden_run_t *self, tl_part_t *part, uint64_t step, bool train)
{
    tl_segment_t *segment = tl_part_segment (part, 0);
    tl_tape_t *tape = tl_segment_forward (segment, &self->input.batch, step, NULL, train);
    double nll;
    uint64_t labels;
    tl_segment_loss (segment, tape, &nll, &labels);
    if (train)
        tl_segment_backward (segment, tape, NULL, NULL);
    tl_tape_destroy (&tape);
    return nll / (double)labels;
}

//  All blocks' prefixes side by side, as the file has them: [rows, blocks * 2 * kv]. The caller frees.
static double *
s_side_by_side (const tl_part_t *part, bool gradient, double scale, size_t *count)
{
    size_t blocks = tl_part_tensors (part);
    size_t rows = tl_part_tensor (part, 0)->shape[0], width = tl_part_tensor (part, 0)->shape[1];
    double *values = tl_alloc (rows * blocks * width * sizeof *values);
    for (size_t block = 0; block < blocks; block++) {
        const tl_tensor_t *tensor = tl_part_tensor (part, block);
        const float *from = gradient ? tensor->gradient : tensor->value;
        for (size_t row = 0; row < rows; row++)
            for (size_t i = 0; i < width; i++)
                values[(row * blocks + block) * width + i] = scale * from[row * width + i];
    }
    *count = rows * blocks * width;
    return values;
}

static void
s_compare_gradients (golden_run_t *self, tl_part_t *part, golden_file_t *file, kind_t kind)
{
    if (kind == KIND_PREFIX_GRAD) {
        size_t count;
        double *values = s_side_by_side (part, true, 1 / (double)self->input.labels, &count);
        case_compare_doubles (self->owner, file, "grad", kind, values, count);
        free (values);
        return;
    }
    char name[160];
    for (size_t i = 0; i < tl_part_tensors (part); i++) {
        const tl_tensor_t *tensor = tl_part_tensor (part, i);
        size_t count = tensor->shape[0] * tensor->shape[1];
        double *values = tl_alloc (count * sizeof *values);
        for (size_t j = 0; j < count; j++)
            values[j] = tensor->gradient[j] / (double)self->input.labels;
        snprintf (name, sizeof name, "grad.%s", tensor->name);
        case_compare_doubles (self->owner, file, name, kind, values, count);
        free (values);
    }
}

//  Kinds of one trajectory, and where case.json speaks of it.
typedef struct {
    const char *group;
    bool clip;
    kind_t gradient, loss, norm, lr;
} s_trajectory_t;

static void
s_train (golden_run_t *self, tl_part_t *part, golden_file_t *file, const s_trajectory_t *kinds)
{
    golden_case_t *owner = self->owner;
    size_t steps = 0, tensors = tl_part_tensors (part);
    double *expected = file_values (file, owner, "loss", 0, &steps);
    free (expected);
    if (!expected)
        return;
    double lr = case_number (owner, kinds->group, "lr", 1e-3);
    uint64_t warmup = (uint64_t)case_number (owner, kinds->group, "warmup", 2);
    double clip = kinds->clip ? case_number (owner, "optimizer", "clip_max_norm", 1) : 0;
    double *loss = tl_alloc ((steps + 1) * sizeof *loss),
           *norm = tl_alloc ((steps + 1) * sizeof *norm);
    double *rate = tl_alloc ((steps + 1) * sizeof *rate),
           *squares = tl_alloc ((tensors + 1) * sizeof *squares);
    tl_norm_term_t *ordered = tl_alloc ((tensors + 1) * sizeof *ordered);
    tl_error_t err = {.code = TL_OK};
    for (size_t step = 0; step < steps && err.code == TL_OK; step++) {
        loss[step] = s_pass (self, part, step, true);
        tl_part_finish_gradient (part, squares);
        if (step == 0)
            s_compare_gradients (self, part, file, kinds->gradient);
        for (size_t i = 0; i < tensors; i++)
            ordered[i] = (tl_norm_term_t){tl_part_tensor (part, i)->order, squares[i]};
        norm[step] = tl_gradient_norm (ordered, tensors, self->input.labels);
        const tl_schedule_t schedule = {
            .most = lr, .warmup = warmup, .steps = steps, .decay = TL_DECAY_LINEAR};
        rate[step] = tl_learning_rate (&schedule, step);
        if (tl_part_update (part, tl_coefficient (norm[step], clip, self->input.labels), rate[step],
                            &err))
            case_fail (owner, "%s", err.text);
    }
    case_compare_doubles (owner, file, "loss", kinds->loss, loss, steps);
    case_compare_doubles (owner, file, "grad_norm", kinds->norm, norm, steps);
    case_compare_doubles (owner, file, "lr", kinds->lr, rate, steps);
    double last = s_pass (self, part, steps, false);
    case_compare_doubles (owner, file, "loss_final", kinds->loss, &last, 1);
    free (loss);
    free (norm);
    free (rate);
    free (squares);
    free (ordered);
}

static tl_tune_t
s_tune (const golden_case_t *owner, tl_method_t method)
{
    json_t *betas = json_object_get (json_object_get (owner->json, "optimizer"), "betas");
    json_t *beta1 = json_array_get (betas, 0), *beta2 = json_array_get (betas, 1);
    return (tl_tune_t){.method = method,
                       .beta1 = json_is_number (beta1) ? json_number_value (beta1) : 0.9,
                       .beta2 = json_is_number (beta2) ? json_number_value (beta2) : 0.999,
                       .eps = case_number (owner, "optimizer", "eps", 1e-8),
                       .decay = case_number (owner, "optimizer", "weight_decay", 0.01)};
}

void
golden_check_full (golden_run_t *self)
{
    tl_tune_t tune = s_tune (self->owner, TL_TUNE_FULL);
    tl_part_t *part = golden_part (self, golden_whole (self->config), &tune);
    golden_file_t file;
    if (part && file_open (&file, self->owner, "full.safetensors") == 0) {
        static const s_trajectory_t kinds = {"full",         true,           KIND_FULL_GRAD,
                                             KIND_FULL_LOSS, KIND_FULL_NORM, KIND_FULL_LR};
        s_train (self, part, &file, &kinds);
        file_close (&file, self->owner);
    }
    tl_part_destroy (&part);
}

//  Rank, alpha and targets are the adapter's own: lora/init/adapter_config.json.
static json_t *
s_adapter_config (golden_run_t *self, tl_tune_t *tune)
{
    char *path = tl_format ("%s/lora/init/adapter_config.json", self->owner->path);
    json_error_t error;
    json_t *json = json_load_file (path, 0, &error);
    json_t *targets = json_object_get (json, "target_modules");
    size_t count = json_array_size (targets);
    if (!json || count == 0 || count > TL_MAX_TARGETS)
        case_fail (self->owner, "%s: no usable target_modules", path);
    free (path);
    for (size_t i = 0; i < count && i < TL_MAX_TARGETS; i++)
        tune->targets[tune->target_count++] = json_string_value (json_array_get (targets, i));
    tune->rank = (size_t)json_integer_value (json_object_get (json, "r"));
    tune->alpha = json_number_value (json_object_get (json, "lora_alpha"));
    tune->dropout = json_number_value (json_object_get (json, "lora_dropout"));
    return json;
}

static void
s_compare_logits (golden_run_t *self, tl_part_t *part, golden_file_t *file, kind_t kind)
{
    char name[128];
    size_t vocab = self->config->vocab, n = self->input.batch.rows, found = 0;
    tl_segment_t *segment = tl_part_segment (part, 0);
    tl_tape_t *tape = tl_segment_forward (segment, &self->input.batch, 0, NULL, false);
    uint32_t *rows = golden_all_rows (n);
    float *logits = tl_alloc (n * vocab * sizeof *logits);
    tl_segment_logits (segment, tape, rows, n, logits);
    for (size_t i = 0; i < self->input.batch.sequences; i++)
        if (file_has (file, s_name (name, i))) {
            case_compare (self->owner, file, name, kind, logits + self->input.offset[i] * vocab,
                          self->input.batch.length[i] * vocab);
            found++;
        }
    if (found == 0)
        case_fail (self->owner, "%s: no logits", file->name);
    free (rows);
    free (logits);
    tl_tape_destroy (&tape);
}

static void
s_compare_adapter (golden_run_t *self, const tl_part_t *part)
{
    golden_file_t file;
    if (file_open (&file, self->owner, "lora/final/adapter_model.safetensors"))
        return;
    for (size_t i = 0; i < tl_part_tensors (part); i++) {
        const tl_tensor_t *tensor = tl_part_tensor (part, i);
        case_compare (self->owner, &file, tensor->name, KIND_LORA_FINAL, tensor->value,
                      tensor->shape[0] * tensor->shape[1]);
    }
    file_close (&file, self->owner);
}

void
golden_check_lora (golden_run_t *self)
{
    tl_tune_t tune = s_tune (self->owner, TL_TUNE_LORA);
    json_t *json = s_adapter_config (self, &tune);
    tl_part_t *part =
        json && tune.target_count ? golden_part (self, golden_whole (self->config), &tune) : NULL;
    char *init = tl_format ("%s/lora/init", self->owner->path);
    tl_error_t err;
    golden_file_t file;
    if (part && tl_part_load_adapter (part, init, &err))
        case_fail (self->owner, "%s", err.text);
    else if (part && file_open (&file, self->owner, "lora.safetensors") == 0) {
        static const s_trajectory_t kinds = {"lora",         true,           KIND_LORA_GRAD,
                                             KIND_LORA_LOSS, KIND_LORA_NORM, KIND_LORA_LR};
        s_compare_logits (self, part, &file, KIND_LORA_LOGITS);
        s_train (self, part, &file, &kinds);
        s_compare_adapter (self, part);
        file_close (&file, self->owner);
    }
    free (init);
    tl_part_destroy (&part);
    json_decref (json);
}

//  The file's first prefix into the part; false with a failure noted.
static bool
s_take_prefix (golden_run_t *self, tl_part_t *part, golden_file_t *file)
{
    size_t blocks = tl_part_tensors (part), count;
    size_t rows = tl_part_tensor (part, 0)->shape[0], width = tl_part_tensor (part, 0)->shape[1];
    double *values = file_values (file, self->owner, "prefix.init", rows * blocks * width, &count);
    for (size_t i = 0; values && i < count; i++) {
        size_t row = i / width / blocks, block = i / width % blocks;
        tl_part_tensor (part, block)->value[row * width + i % width] = (float)values[i];
    }
    free (values);
    return values != NULL;
}

static void
s_check_prefix (golden_run_t *self, tl_part_t *part, golden_file_t *file)
{
    static const s_trajectory_t kinds = {
        "ptuning", false, KIND_PREFIX_GRAD, KIND_PREFIX_LOSS, KIND_PREFIX_NORM, KIND_PREFIX_LR};
    if (!s_take_prefix (self, part, file))
        return;
    s_compare_logits (self, part, file, KIND_PREFIX_LOGITS);
    s_train (self, part, file, &kinds);
    size_t count;
    double *values = s_side_by_side (part, false, 1, &count);
    case_compare_doubles (self->owner, file, "prefix.final", KIND_PREFIX_FINAL, values, count);
    free (values);
}

void
golden_check_prefix (golden_run_t *self)
{
    if (!self->owner->prefix)
        return;
    tl_tune_t tune = s_tune (self->owner, TL_TUNE_PTUNING);
    tune.prefix = (size_t)case_number (self->owner, "ptuning", "pre_seq_len", 0);
    tl_part_t *part = golden_part (self, golden_whole (self->config), &tune);
    golden_file_t file;
    if (part && file_open (&file, self->owner, "ptuning.safetensors") == 0) {
        s_check_prefix (self, part, &file);
        file_close (&file, self->owner);
    }
    tl_part_destroy (&part);
}
