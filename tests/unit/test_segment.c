//  Parts and segments by example: what is trained, what a frozen part does, abandoned steps, saved state,
//  dropout that doesn't depend on the micro, refusals with a sentence.

#include "unit/cmocka_all.h"

#include "assert.h"
#include "memory.h"
#include "model/segment.h"
#include "rig.h"
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tl_tune_t s_lora = {.method = TL_TUNE_LORA,
                                 .rank = 4,
                                 .alpha = 8,
                                 .dropout = 0.05,
                                 .seed = 5,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8,
                                 .decay = 0.01};
static const tl_tune_t s_full = {
    .method = TL_TUNE_FULL, .seed = 5, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .decay = 0.01};

static const tl_tune_t s_prefix = {.method = TL_TUNE_PTUNING,
                                   .prefix = 4,
                                   .seed = 5,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .eps = 1e-8,
                                   .decay = 0.01};

static tl_model_t *s_chatglm, *s_llama, *s_tied, *s_glm, *s_qwen2;

static int
s_setup (void **state)
{
    tiny_model_t chatglm = tiny_chatglm (), llama = tiny_llama (false), tied = tiny_llama (true);
    s_chatglm = tiny_model_open (&chatglm);
    s_llama = tiny_model_open (&llama);
    s_tied = tiny_model_open (&tied);
    tiny_model_t glm = tiny_glm (false), qwen2 = tiny_qwen2 (true);
    s_glm = tiny_model_open (&glm);
    s_qwen2 = tiny_model_open (&qwen2);
    return 0;
}

static int
s_teardown (void **state)
{
    tl_model_destroy (&s_chatglm);
    tl_model_destroy (&s_llama);
    tl_model_destroy (&s_tied);
    tl_model_destroy (&s_glm);
    tl_model_destroy (&s_qwen2);
    return 0;
}

//  Steps first .. last - 1 of a run whose data depends on the step alone.
static void
s_train (rig_t *rig, uint64_t first, uint64_t last)
{
    for (uint64_t step = first; step < last; step++) {
        tl_batch_t *batch = tiny_batch (rig->config, step, 2, 4, 12, 2 * step);
        rig_step (rig, &batch, 1, step, 1e-2, 0.1, false);
        tiny_batch_destroy (&batch);
    }
}

static void
test_tensors_come_in_the_models_order (void **state)
{
    rig_t *rig = rig_new (s_tied, 0, 0, &s_full);
    const tl_part_t *part = rig->parts[0];
    assert_string_equal (tl_part_tensor (part, 0)->name, "model.embed_tokens.weight");
    assert_string_equal (tl_part_tensor (part, tl_part_tensors (part) - 1)->name,
                         "model.norm.weight");
    for (size_t i = 1; i < tl_part_tensors (part); i++)
        assert_true (tl_part_tensor (part, i)->order > tl_part_tensor (part, i - 1)->order);
    rig_destroy (&rig);
    rig = rig_new (s_llama, 0, 0, &s_lora);
    part = rig->parts[0];
    assert_int_equal (tl_part_tensors (part), 5 * 2 * 2);
    assert_string_equal (tl_part_tensor (part, 0)->name,
                         "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    assert_string_equal (tl_part_tensor (part, 3)->name,
                         "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight");
    rig_destroy (&rig);
}

static void
test_a_prefix_is_one_tensor_a_block (void **state)
{
    //  [rows, key and value of the groups], drawn from the normal distribution however the model is cut.
    rig_t *whole = rig_new (s_glm, 0, 0, &s_prefix), *cut = rig_new (s_glm, 1, 1, &s_prefix);
    assert_int_equal (tl_part_tensors (whole->parts[0]), 5);
    assert_int_equal (tl_part_tensors (cut->parts[0]), 2);
    const tl_tensor_t *last = tl_part_tensor (whole->parts[0], 4);
    assert_string_equal (last->name, "prompt_embeddings.4");
    assert_int_equal (last->shape[0], 4);
    assert_int_equal (last->shape[1], 2 * 2 * 8);
    assert_true (last->order > tl_part_tensor (whole->parts[0], 3)->order);
    assert_true (rig_same (whole, cut));
    double sum = 0, squares = 0;
    for (size_t i = 0; i < 128; i++) {
        sum += last->value[i];
        squares += last->value[i] * last->value[i];
    }
    assert_true (fabs (sum) < 3 * sqrt (128) && squares > 64 && squares < 256);
    //  Rows look at it: without one the loss is another. A frozen part has none.
    tl_tune_t frozen = s_prefix;
    frozen.frozen = true;
    rig_t *plain = rig_new (s_glm, 0, 0, &frozen);
    tl_batch_t *batch = tiny_batch (whole->config, 1, 3, 4, 12, 0);
    double with = rig_loss (whole, batch), without = rig_loss (plain, batch);
    assert_true (fabs (with - without) > 1e-2);
    tiny_batch_destroy (&batch);
    rig_destroy (&whole);
    rig_destroy (&cut);
    rig_destroy (&plain);
}

//  Central differences of the whole model's loss; fp32 sets the step and the tolerance.
static void
s_compare_slope (rig_t *rig, const tl_batch_t *batch, const tl_tensor_t *tensor, size_t i)
{
    const float step = 0.02f, before = tensor->value[i];
    tensor->value[i] = before + step;
    double above = rig_loss (rig, batch);
    tensor->value[i] = before - step;
    double below = rig_loss (rig, batch);
    tensor->value[i] = before;
    double slope = (above - below) / (2 * (double)step), gradient = tensor->gradient[i];
    if (!(fabs (slope - gradient) <= 2e-3 + 1e-2 * fabs (gradient)))
        fail_msg ("%s [%zu]: gradient %g, the loss moves by %g", tensor->name, i, gradient, slope);
}

static void
test_a_prefix_has_the_losss_slope (void **state)
{
    tl_model_t *models[] = {s_chatglm, s_glm};
    for (size_t m = 0; m < 2; m++) {
        rig_t *rig = rig_new (models[m], 2, 1, &s_prefix);
        tl_batch_t *batch = tiny_batch (rig->config, 5, 2, 6, 9, 0);
        tl_tape_t *tapes[3];
        uint64_t labels;
        double largest = 0;
        rig_forward (rig, batch, 0, true, tapes);
        rig_finish (rig, batch, true, tapes, NULL, &labels);
        for (size_t p = 0; p < 2; p++)
            for (size_t t = 0; t < tl_part_tensors (rig->parts[p]); t++) {
                const tl_tensor_t *tensor = tl_part_tensor (rig->parts[p], t);
                size_t count = tensor->shape[0] * tensor->shape[1];
                for (size_t i = t; i < count; i += 7) {
                    largest = fmax (largest, fabs ((double)tensor->gradient[i]));
                    s_compare_slope (rig, batch, tensor, i);
                }
            }
        assert_true (largest > 0.05);
        tiny_batch_destroy (&batch);
        rig_destroy (&rig);
    }
}

static void
test_lora_starts_as_the_base_model (void **state)
{
    //  B is zero, A is uniform within 1 / sqrt (in) and the same however the model is cut.
    tl_tune_t frozen = s_lora;
    frozen.frozen = true;
    rig_t *base = rig_new (s_chatglm, 0, 0, &frozen), *rig = rig_new (s_chatglm, 1, 1, &s_lora);
    tl_batch_t *batch = tiny_batch (base->config, 1, 3, 4, 12, 0);
    double one = rig_loss (base, batch), two = rig_loss (rig, batch);
    assert_memory_equal (&one, &two, sizeof one);
    const tl_tensor_t *a = tl_part_tensor (rig->parts[1], 0);
    double most = 0;
    for (size_t i = 0; i < a->shape[0] * a->shape[1]; i++)
        most = fmax (most, fabs (a->value[i]));
    double bound = 1 / sqrt ((double)a->shape[1]);
    assert_true (most <= bound && most > 0.9 * bound);
    tiny_batch_destroy (&batch);
    rig_destroy (&base);
    rig_destroy (&rig);
}

static void
test_frozen_part_only_passes_gradients_through (void **state)
{
    //  With a frozen client part the gradient that reaches the trunk is what it is with a trained one.
    tl_tune_t frozen = s_full;
    frozen.frozen = true;
    rig_t *rig = rig_new (s_llama, 1, 2, &frozen), *trained = rig_new (s_llama, 1, 2, &s_full);
    assert_int_equal (tl_part_tensors (rig->parts[0]), 0);
    assert_false (tl_segment_trains (rig->chain[0]));
    assert_true (tl_segment_trains (trained->chain[0]));
    tl_batch_t *batch = tiny_batch (rig->config, 3, 2, 4, 12, 0);
    size_t values = batch->rows * rig->config->hidden;
    float *one = tl_alloc (values * sizeof *one), *two = tl_alloc (values * sizeof *two);
    tl_tape_t *tapes[3];
    uint64_t labels;
    rig_forward (rig, batch, 0, true, tapes);
    rig_finish (rig, batch, true, tapes, one, &labels);
    rig_forward (trained, batch, 0, true, tapes);
    rig_finish (trained, batch, true, tapes, two, &labels);
    assert_memory_equal (one, two, values * sizeof *one);
    free (one);
    free (two);
    tiny_batch_destroy (&batch);
    rig_destroy (&rig);
    rig_destroy (&trained);
}

static void
test_abandoned_step_leaves_no_trace (void **state)
{
    rig_t *plain = rig_new (s_chatglm, 1, 1, &s_full), *rig = rig_new (s_chatglm, 1, 1, &s_full);
    s_train (plain, 0, 3);
    s_train (rig, 0, 2);
    //  Another step gets as far as its loss and backward, then is dropped; its repetition is step 2.
    tl_batch_t *batch = tiny_batch (rig->config, 77, 3, 4, 12, 900);
    tl_tape_t *tapes[3];
    uint64_t labels;
    rig_forward (rig, batch, 2, true, tapes);
    rig_finish (rig, batch, true, tapes, NULL, &labels);
    for (size_t p = 0; p < rig->part_count; p++)
        tl_part_zero_gradient (rig->parts[p]);
    tiny_batch_destroy (&batch);
    s_train (rig, 2, 3);
    assert_true (rig_same (plain, rig));
    rig_destroy (&plain);
    rig_destroy (&rig);
}

static void
s_state_round_trip (tl_model_t *model, const tl_tune_t *tune)
{
    rig_t *plain = rig_new (model, 2, 1, tune), *first = rig_new (model, 2, 1, tune);
    rig_t *second = rig_new (model, 2, 1, tune);
    s_train (plain, 0, 5);
    s_train (first, 0, 3);
    for (size_t p = 0; p < 2; p++) {
        size_t size;
        tl_error_t err = {.text = ""};
        void *blob = tl_part_state_get (first->parts[p], &size);
        if (tl_part_state_set (second->parts[p], blob, size, &err))
            fail_msg ("%s", err.text);
        assert_int_equal (tl_part_updates (second->parts[p]), 3);
        free (blob);
    }
    s_train (second, 3, 5);
    assert_true (rig_same (plain, second));
    rig_destroy (&plain);
    rig_destroy (&first);
    rig_destroy (&second);
}

static void
test_state_continues_bit_for_bit (void **state)
{
    s_state_round_trip (s_chatglm, &s_lora);
    s_state_round_trip (s_tied, &s_full);
    s_state_round_trip (s_glm, &s_prefix);
    s_state_round_trip (s_qwen2, &s_full);
}

static void
test_dropout_is_addressed_by_sequence (void **state)
{
    //  A sequence's gradient with dropout is the same alone and beside others, up to rounding of the
    //  products, and another step draws another mask.
    tl_tune_t tune = s_lora;
    tune.dropout = 0.5;
    rig_t *rig = rig_new (s_llama, 0, 0, &tune);
    s_train (rig, 0, 1);
    tl_batch_t *both = tiny_batch (rig->config, 8, 2, 6, 9, 40);
    tl_batch_t parts[2] = {*both, *both};
    for (size_t i = 0; i < 2; i++) {
        parts[i].sequences = 1;
        parts[i].rows = both->length[i];
    }
    parts[1].length++;
    parts[1].number++;
    parts[1].context++;
    parts[1].mask++;
    parts[1].ids += both->length[0];
    parts[1].labels += both->length[0];
    tl_tape_t *tapes[3];
    uint64_t labels;
    double sums[3] = {0};
    for (uint64_t step = 0; step < 2; step++) {
        rig_forward (rig, both, step, true, tapes);
        sums[step] = rig_finish (rig, both, true, tapes, NULL, &labels);
    }
    for (size_t i = 0; i < 2; i++) {
        rig_forward (rig, &parts[i], 0, true, tapes);
        sums[2] += rig_finish (rig, &parts[i], true, tapes, NULL, &labels);
    }
    assert_true (fabs (sums[0] - sums[2]) < 1e-4);
    assert_true (fabs (sums[0] - sums[1]) > 1e-3);
    tiny_batch_destroy (&both);
    rig_destroy (&rig);
}

static void
test_tied_head_and_embedding_alone_hold_their_own_use (void **state)
{
    //  {front} and {tail} as parts of two owners: the two gradients add up to that of a part with both.
    rig_t *rig = rig_new (s_tied, 1, 1, &s_full);
    tl_error_t err;
    tl_range_t ranges[3] = {
        {.embed = true, .last = 1}, {.first = 1, .last = 4}, {.first = 4, .last = 5, .head = true}};
    tl_part_t *parts[3];
    tl_tape_t *tapes[3];
    tl_batch_t *batch = tiny_batch (rig->config, 4, 2, 5, 9, 0);
    size_t values = batch->rows * rig->config->hidden;
    float *d = tl_alloc (values * sizeof *d), *below = tl_alloc (values * sizeof *below);
    for (size_t i = 0; i < 3; i++) {
        parts[i] = tl_part_new (s_tied, &ranges[i], 1, &s_full, &err);
        tapes[i] = tl_segment_forward (tl_part_segment (parts[i], 0), batch, 0,
                                       i ? tl_tape_output (tapes[i - 1]) : NULL, true);
    }
    double nll, squares[64];
    uint64_t labels;
    tl_segment_loss (tl_part_segment (parts[2], 0), tapes[2], &nll, &labels);
    for (size_t i = 3; i-- > 0;) {
        tl_segment_backward (tl_part_segment (parts[i], 0), tapes[i], i == 2 ? NULL : d,
                             i ? below : NULL);
        tl_tape_destroy (&tapes[i]);
        memcpy (d, below, values * sizeof *d);
        tl_part_finish_gradient (parts[i], squares);
    }
    rig_forward (rig, batch, 0, true, tapes);
    rig_finish (rig, batch, true, tapes, NULL, &labels);
    tl_part_finish_gradient (rig->parts[0], squares);
    const tl_tensor_t *both = tl_part_tensor (rig->parts[0], 0);
    const tl_tensor_t *front = tl_part_tensor (parts[0], 0), *tail = tl_part_tensor (parts[2], 0);
    assert_string_equal (both->name, tail->name);
    for (size_t i = 0; i < both->shape[0] * both->shape[1]; i++)
        assert_true (both->gradient[i] == tail->gradient[i] + front->gradient[i]);
    free (d);
    free (below);
    tiny_batch_destroy (&batch);
    for (size_t i = 0; i < 3; i++)
        tl_part_destroy (&parts[i]);
    rig_destroy (&rig);
}

static void
test_micro_without_labels_is_harmless (void **state)
{
    rig_t *rig = rig_new (s_chatglm, 0, 0, &s_full);
    tl_batch_t *batch = tiny_batch (rig->config, 4, 2, 5, 9, 0);
    for (size_t row = 0; row < batch->rows; row++)
        ((int32_t *)batch->labels)[row] = -1;
    tl_tape_t *tapes[3];
    uint64_t labels;
    rig_forward (rig, batch, 0, true, tapes);
    assert_true (rig_finish (rig, batch, true, tapes, NULL, &labels) == 0);
    assert_int_equal (labels, 0);
    double squares[128];
    tl_part_finish_gradient (rig->parts[0], squares);
    for (size_t i = 0; i < tl_part_tensors (rig->parts[0]); i++)
        assert_true (squares[i] == 0);
    tiny_batch_destroy (&batch);
    rig_destroy (&rig);
}

static void
test_gradient_that_is_not_finite_is_refused (void **state)
{
    rig_t *rig = rig_new (s_llama, 0, 0, &s_full), *plain = rig_new (s_llama, 0, 0, &s_full);
    tl_error_t err;
    tl_part_tensor (rig->parts[0], 2)->gradient[5] = NAN;
    assert_int_equal (tl_part_update (rig->parts[0], 1, 1, &err), -1);
    assert_non_null (strstr (err.text, tl_part_tensor (rig->parts[0], 2)->name));
    assert_true (rig_same (rig, plain));
    assert_int_equal (tl_part_updates (rig->parts[0]), 0);
    rig_destroy (&rig);
    rig_destroy (&plain);
}

static void
s_refused (const tl_range_t *ranges, size_t count, const tl_tune_t *tune, const char *word)
{
    tl_error_t err = {.text = ""};
    tl_part_t *part = tl_part_new (s_llama, ranges, count, tune, &err);
    if (part || !strstr (err.text, word) || err.code != TL_BAD_INPUT)
        fail_msg ("expected a refusal naming %s, got '%s'", word, err.text);
}

static void
test_bad_settings_get_a_sentence (void **state)
{
    tl_range_t whole = {.embed = true, .last = 5, .head = true}, beyond = {.first = 3, .last = 6};
    tl_range_t overlap[2] = {{.embed = true, .last = 3}, {.first = 2, .last = 5, .head = true}};
    tl_tune_t tune = s_lora;
    s_refused (&beyond, 1, &s_lora, "split");
    s_refused (overlap, 2, &s_lora, "split");
    tune.targets[0] = "query_key_value";
    tune.target_count = 1;
    s_refused (&whole, 1, &tune, "query_key_value");
    tune = s_lora;
    tune.rank = 0;
    s_refused (&whole, 1, &tune, "tune.rank");
    tune.rank = 33;
    s_refused (&whole, 1, &tune, "tune.rank");
    tune = s_lora;
    tune.dropout = 1;
    s_refused (&whole, 1, &tune, "tune.dropout");
    s_refused (&whole, 1, &s_prefix, "families chatglm and glm");
    tune = s_prefix;
    tune.prefix = 0;
    tl_error_t err = {.text = ""};
    assert_null (tl_part_new (s_glm, &whole, 1, &tune, &err));
    assert_non_null (strstr (err.text, "tune.prefix: expected 1 to 4096 rows, got 0"));
}

static void
test_nothing_is_allocated_once_warm (void **state)
{
    //  Slabs and workspace of the first micro serve the next ones of its size.
    rig_t *rig = rig_new (s_llama, 0, 0, &s_lora);
    tl_batch_t *batch = tiny_batch (rig->config, 4, 2, 9, 9, 0);
    tl_tape_t *tapes[3];
    uint64_t labels;
    const float *output[2];
    for (size_t i = 0; i < 2; i++) {
        rig_forward (rig, batch, 0, true, tapes);
        output[i] = tl_tape_output (tapes[0]);
        rig_finish (rig, batch, true, tapes, NULL, &labels);
    }
    assert_ptr_equal (output[0], output[1]);
    tiny_batch_destroy (&batch);
    rig_destroy (&rig);
}

int
main (void)
{
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_tensors_come_in_the_models_order),
        cmocka_unit_test (test_a_prefix_is_one_tensor_a_block),
        cmocka_unit_test (test_a_prefix_has_the_losss_slope),
        cmocka_unit_test (test_lora_starts_as_the_base_model),
        cmocka_unit_test (test_frozen_part_only_passes_gradients_through),
        cmocka_unit_test (test_abandoned_step_leaves_no_trace),
        cmocka_unit_test (test_state_continues_bit_for_bit),
        cmocka_unit_test (test_dropout_is_addressed_by_sequence),
        cmocka_unit_test (test_tied_head_and_embedding_alone_hold_their_own_use),
        cmocka_unit_test (test_micro_without_labels_is_harmless),
        cmocka_unit_test (test_gradient_that_is_not_finite_is_refused),
        cmocka_unit_test (test_bad_settings_get_a_sentence),
        cmocka_unit_test (test_nothing_is_allocated_once_warm),
    };
    return cmocka_run_group_tests (tests, s_setup, s_teardown);
}
