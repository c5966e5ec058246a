//  The memory plan against what a step really takes.

#include "unit/cmocka_all.h"

#include "model/segment.h"
#include "rig.h"
#include "tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  One step through a fresh rig; the workspace's deepest point is the plan's, the slabs are the plan's
//  activations.
static void
s_compare (const tiny_model_t *spec, size_t front, size_t tail, const tl_tune_t *tune)
{
    tl_model_t *model = tiny_model_open (spec);
    rig_t *rig = rig_new (model, front, tail, tune);
    tl_batch_t *batch = tiny_batch (rig->config, 9, 3, 11, 11, 0);
    size_t labels = 0;
    for (size_t row = 0; row < batch->rows; row++)
        labels += batch->labels[row] >= 0;
    rig_step (rig, &batch, 1, 0, 1e-3, 1, false);
    for (size_t p = 0; p < rig->part_count; p++) {
        const tl_part_t *part = rig->parts[p];
        tl_plan_t plan;
        size_t slabs = 0, workspace = 0;
        tl_part_plan (part, batch->rows, 11, 3, labels, 1, &plan);
        for (size_t i = 0; i < part->range_count; i++) {
            size_t need = tl_segment_workspace (part->segments[i], batch->rows, 11, labels, true);
            workspace = need > workspace ? need : workspace;
            assert_int_equal (part->segments[i]->pooled, 1);
            slabs += part->segments[i]->pool[0].size * sizeof (float);
        }
        assert_int_equal (plan.activations, slabs);
        assert_int_equal (plan.trained, part->storage_size * sizeof (float));
        //  An upper bound, and no more than a few rows' gradient above what happened.
        size_t peak = tl_workspace_peak (part->workspace);
        if (peak > workspace || peak * 5 < workspace * 4)
            fail_msg ("workspace: planned %zu floats, took %zu", workspace, peak);
    }
    tiny_batch_destroy (&batch);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

static void
test_plan_is_what_a_step_takes (void **state)
{
    tl_tune_t lora = {.method = TL_TUNE_LORA,
                      .rank = 4,
                      .alpha = 8,
                      .dropout = 0.1,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8};
    tl_tune_t full = {.method = TL_TUNE_FULL, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    tl_tune_t prefix = {
        .method = TL_TUNE_PTUNING, .prefix = 7, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    tiny_model_t specs[] = {tiny_chatglm (),   tiny_glm (false),   tiny_glm (true),
                            tiny_llama (true), tiny_llama (false), tiny_qwen2 (true)};
    for (size_t i = 0; i < 6; i++)
        for (size_t front = 0; front <= 2; front++) {
            s_compare (&specs[i], front, front ? 1 : 0, &lora);
            s_compare (&specs[i], front, front ? 1 : 0, &full);
            if (i < 3)
                s_compare (&specs[i], front, front ? 1 : 0, &prefix);
        }
}

static void
test_weights_are_the_parts_own (void **state)
{
    //  A client maps embedding, front and tail; a worker its blocks; together the whole checkpoint.
    tiny_model_t spec = tiny_llama (true);
    tl_model_t *model = tiny_model_open (&spec);
    tl_tune_t tune = {.method = TL_TUNE_LORA, .rank = 2, .alpha = 2};
    rig_t *whole = rig_new (model, 0, 0, &tune), *cut = rig_new (model, 1, 1, &tune);
    tl_plan_t all, client, worker;
    tl_part_plan (whole->parts[0], 8, 8, 1, 4, 1, &all);
    tl_part_plan (cut->parts[0], 8, 8, 1, 4, 1, &client);
    tl_part_plan (cut->parts[1], 8, 8, 1, 4, 1, &worker);
    assert_int_equal (all.weights, client.weights + worker.weights);
    assert_true (client.weights > spec.vocab * spec.hidden * 2);
    tl_part_plan (cut->parts[1], 8, 8, 1, 4, 3, &client);
    assert_int_equal (client.activations, 3 * worker.activations);
    //  Memory that is set aside is what the plan says.
    tl_part_reserve (cut->parts[1], 8, 8, 4, 3);
    const tl_segment_t *segment = tl_part_segment (cut->parts[1], 0);
    assert_int_equal (segment->pooled, 3);
    assert_int_equal (3 * segment->pool[0].size * sizeof (float), client.activations);
    rig_destroy (&whole);
    rig_destroy (&cut);
    tl_model_destroy (&model);
}

//  Ever smaller budgets, down to what nothing can go below: each plan keeps to its budget, and each run has the bits of
//  the one that computes nothing twice.
static void
test_budgets_change_no_bit (void **state)
{
    tl_tune_t lora = {.method = TL_TUNE_LORA,
                      .rank = 4,
                      .alpha = 8,
                      .dropout = 0.1,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8};
    tl_tune_t full = {.method = TL_TUNE_FULL, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    tl_tune_t prefix = {
        .method = TL_TUNE_PTUNING, .prefix = 7, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    const struct {
        tiny_model_t spec;
        const tl_tune_t *tune;
    } cases[] = {{tiny_chatglm (), &lora},   {tiny_chatglm (), &full},  {tiny_llama (true), &lora},
                 {tiny_llama (true), &full}, {tiny_glm (false), &lora}, {tiny_glm (true), &full},
                 {tiny_glm (false), &prefix}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_model_t *model = tiny_model_open (&cases[i].spec);
        rig_t *free_rig = rig_new (model, 1, 1, cases[i].tune);
        tl_batch_t *batch = tiny_batch (free_rig->config, 9, 3, 11, 11, 0);
        rig_step (free_rig, &batch, 1, 0, 1e-3, 1, false);
        size_t labels = batch->rows, runs = 0, before = SIZE_MAX;
        for (size_t share = 0; share <= 8; share++) {
            rig_t *rig = rig_new (model, 1, 1, cases[i].tune);
            tl_plan_t plan;
            tl_error_t err = {0};
            for (size_t p = 0; p < 2; p++) {
                tl_part_plan (rig->parts[p], batch->rows, 11, 3, labels, 1, &plan);
                size_t budget = tl_plan_total (&plan) - plan.activations * share / 8;
                int rc = tl_parts_fit (&rig->parts[p], 1, batch->rows, 11, labels, 1, budget, &err);
                tl_part_plan (rig->parts[p], batch->rows, 11, 3, labels, 1, &plan);
                if (rc == 0 && tl_plan_total (&plan) > budget)
                    fail_msg ("planned %zu bytes of %zu", tl_plan_total (&plan), budget);
                if (rc != 0)
                    assert_non_null (strstr (err.text, "train.memory_mb"));
                if (p == 1 && plan.activations < before) {
                    runs++; //  another choice than the last one
                    before = plan.activations;
                }
            }
            rig_step (rig, &batch, 1, 0, 1e-3, 1, false);
            assert_true (rig_same (free_rig, rig));
            rig_destroy (&rig);
        }
        if (runs < 4)
            fail_msg ("%zu different choices, expected at least 4", runs);
        tiny_batch_destroy (&batch);
        rig_destroy (&free_rig);
        tl_model_destroy (&model);
    }
}

int
main (void)
{
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_plan_is_what_a_step_takes),
        cmocka_unit_test (test_weights_are_the_parts_own),
        cmocka_unit_test (test_budgets_change_no_bit),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
