//  What a tuning trains: patterns of what stays frozen, rsLoRA's scaling, gradient accumulation.

#include "unit/cmocka_all.h"

#include "rig.h"
#include "tiny_model.h"

#include "file.h"
#include "kernels/kernels.h"
#include "memory.h"

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

static tl_tune_t
s_frozen (const tl_tune_t *tune, const char *one, const char *two)
{
    tl_tune_t frozen = *tune;
    frozen.freeze[frozen.freeze_count++] = one;
    if (two)
        frozen.freeze[frozen.freeze_count++] = two;
    return frozen;
}

//  Forward and backward of one micro; gradients stay.
static void
s_backward (rig_t *rig)
{
    tl_batch_t *batch = tiny_batch (rig->config, 3, 3, 4, 12, 0);
    tl_tape_t *tapes[3];
    uint64_t labels = 0;
    rig_forward (rig, batch, 0, true, tapes);
    rig_finish (rig, batch, true, tapes, NULL, &labels);
    tiny_batch_destroy (&batch);
    for (size_t i = 0; i < rig->part_count; i++) {
        double *squares = tl_alloc ((tl_part_tensors (rig->parts[i]) + 1) * sizeof *squares);
        tl_part_finish_gradient (rig->parts[i], squares);
        free (squares);
    }
}

//  What is still trained has the gradient that it has when all of it is; what a pattern hits is gone.
static void
s_check_frozen (tl_model_t *model, const tl_tune_t *all, const tl_tune_t *frozen, size_t cut)
{
    rig_t *one = rig_new (model, 0, 0, all), *two = rig_new (model, cut, cut, frozen);
    size_t trained = 0;
    s_backward (one);
    s_backward (two);
    for (size_t p = 0; p < two->part_count; p++)
        for (size_t i = 0; i < tl_part_tensors (two->parts[p]); i++, trained++) {
            const tl_tensor_t *b = tl_part_tensor (two->parts[p], i);
            const tl_tensor_t *a = rig_tensor (one, b->name);
            assert_non_null (a);
            if (memcmp (a->gradient, b->gradient, a->shape[0] * a->shape[1] * sizeof (float)) != 0)
                fail_msg ("%s has another gradient when others are frozen", b->name);
        }
    assert_true (trained > 0 && trained < tl_part_tensors (one->parts[0]));
    rig_destroy (&two);
    rig_destroy (&one);
}

static void
test_what_is_left_learns_the_same (void **state)
{
    static const char *const patterns[][2] = {
        {"embedding", NULL},     {"norms", "biases"},
        {"blocks.0-3", NULL},    {"blocks.2-", "embedding"},
        {"*.weight", NULL},      {"*.bias", "embedding"},
        {"*mlp*", NULL},         {"blocks.4", "*attention*"},
        {"*norm*.weight", NULL},
    };
    tiny_model_t specs[] = {tiny_chatglm (), tiny_qwen2 (true), tiny_glm (false)};
    for (size_t s = 0; s < 3; s++) {
        tl_model_t *model = tiny_model_open (&specs[s]);
        for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
            tl_tune_t frozen = s_frozen (&s_full, patterns[i][0], patterns[i][1]);
            s_check_frozen (model, &s_full, &frozen, i & 1);
        }
        tl_tune_t blocks = s_frozen (&s_lora, "blocks.1-2", "blocks.4-");
        s_check_frozen (model, &s_lora, &blocks, 0);
        s_check_frozen (model, &s_lora, &blocks, 1);
        tl_model_destroy (&model);
    }
}

static void
test_patterns_that_are_none (void **state)
{
    static const struct {
        const tl_tune_t *tune;
        const char *pattern, *one, *two;
    } cases[] = {
        {&s_full, "embeding", "'embeding'", "write embedding"},
        {&s_full, "blocks.5", "blocks.5", "0 to 4"},
        {&s_full, "blocks.3-2", "blocks.3-2", "0 to 4"},
        {&s_full, "blocks.99999999999999999999-", "no range", "0 to 4"},
        {&s_full, "*.no_such.*", "names nothing", "full"},
        {&s_full, "biases", "names nothing", "full"},
        {&s_full, "head", "names nothing", "write embedding"},
        {&s_full, "*", "leaves nothing to train", "remove"},
        {&s_lora, "norms", "names nothing", "lora"},
        {&s_lora, "blocks.0-", "leaves nothing to train", "remove"},
        {&s_lora, "*.layers.1.*.q_proj.weight", "of the same block", "whole blocks"},
    };
    tiny_model_t spec = tiny_llama (true);
    tl_model_t *model = tiny_model_open (&spec);
    const tl_range_t whole = {true, 0, 5, true};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_error_t err = {.text = ""};
        tl_tune_t tune = s_frozen (cases[i].tune, cases[i].pattern, NULL);
        tl_part_t *part = tl_part_new (model, &whole, 1, &tune, &err);
        assert_null (part);
        assert_int_equal (err.code, TL_BAD_INPUT);
        if (!strstr (err.text, cases[i].one) || !strstr (err.text, cases[i].two))
            fail_msg ("expected '%s' and '%s' in: %s", cases[i].one, cases[i].two, err.text);
    }
    tl_model_destroy (&model);
}

//  alpha / sqrt (rank): with rank 4 and alpha 8 what plain LoRA is with alpha 16.
static void
test_rslora_scales_by_the_root (void **state)
{
    tiny_model_t spec = tiny_llama (false);
    tl_model_t *model = tiny_model_open (&spec);
    tl_tune_t root = s_lora, plain = s_lora;
    root.rslora = true;
    plain.alpha = 16;
    rig_t *one = rig_new (model, 0, 0, &root), *two = rig_new (model, 1, 1, &plain),
          *other = rig_new (model, 0, 0, &s_lora);
    double apart = 0;
    for (uint64_t step = 0; step < 4; step++) {
        tl_batch_t *batch = tiny_batch (one->config, step, 2, 4, 12, 2 * step);
        double a = rig_step (one, &batch, 1, step, 1e-2, 1, false);
        double b = rig_step (two, &batch, 1, step, 1e-2, 1, false);
        apart = a - rig_step (other, &batch, 1, step, 1e-2, 1, false);
        assert_memory_equal (&a, &b, sizeof a);
        tiny_batch_destroy (&batch);
    }
    assert_true (apart != 0);
    rig_destroy (&other);
    rig_destroy (&two);
    rig_destroy (&one);
    tl_model_destroy (&model);
}

//  A step's sequences in one micro, in two and in six come to the same but for rounding: gradients are of the
//  summed loss, and dropout is addressed by sequence.
static void
test_accumulation_is_one_batch (void **state)
{
    tiny_model_t specs[] = {tiny_chatglm (), tiny_llama (true)};
    for (size_t s = 0; s < 4; s++) {
        tl_model_t *model = tiny_model_open (&specs[s & 1]);
        const tl_tune_t *tune = s & 2 ? &s_full : &s_lora;
        static const size_t counts[] = {1, 2, 6};
        double loss[3] = {0};
        for (size_t c = 0; c < 3; c++) {
            rig_t *rig = rig_new (model, 0, 0, tune);
            for (uint64_t step = 0; step < 5; step++) {
                tl_batch_t *micros[6];
                size_t each = 6 / counts[c];
                for (size_t m = 0; m < counts[c]; m++)
                    micros[m] = tiny_batch (rig->config, step, each, 4, 12, 6 * step + m * each);
                loss[c] = rig_step (rig, micros, counts[c], step, 5e-3, 1, false);
                for (size_t m = 0; m < counts[c]; m++)
                    tiny_batch_destroy (&micros[m]);
            }
            rig_destroy (&rig);
        }
        for (size_t c = 1; c < 3; c++)
            if (!(fabs (loss[c] - loss[0]) <= 2e-6 * loss[0]))
                fail_msg ("loss after 5 steps: %.9g in one micro, %.9g in %zu", loss[0], loss[c],
                          counts[c]);
        tl_model_destroy (&model);
    }
}

int
main (void)
{
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_what_is_left_learns_the_same),
        cmocka_unit_test (test_patterns_that_are_none),
        cmocka_unit_test (test_rslora_scales_by_the_root),
        cmocka_unit_test (test_accumulation_is_one_batch),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
