//  A model written as GGUF is the same model: losses, trained adapters under Hugging Face's names and order, values to
//  the bit; what is quantised stays so, or is expanded on demand; what can't be written is refused.

#include "unit/cmocka_all.h"

#include "rig.h"
#include "tiny_model.h"

#include "file.h"
#include "memory.h"
#include "model/internal.h"
#include "model/order.h"
#include "model/quantise.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *s_root; //  a fresh directory for each test

static int
s_setup (void **state)
{
    s_root = tiny_directory ();
    return 0;
}

static int
s_teardown (void **state)
{
    int rc = tl_remove_tree (s_root);
    free (s_root);
    return rc;
}

//  A path below the test's directory; four of them live at a time.
static const char *
s_at (const char *name)
{
    static char paths[4][512];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf (path, sizeof paths[0], "%s/%s", s_root, name);
    return path;
}

static tl_model_t *
s_quantised (const tl_model_t *model, tl_dtype_t type, const char *name,
             tl_quantise_report_t *report)
{
    tl_error_t err = {TL_OK, ""};
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    if (tl_model_quantise (model, writer, s_at (name), type, report, &err) != 0)
        fail_msg ("%s", err.text);
    tl_gguf_writer_destroy (&writer);
    tl_model_t *written = tl_model_open (s_at (name), &err);
    if (!written)
        fail_msg ("%s", err.text);
    return written;
}

//  Weights as Hugging Face orders them, in fp32; the caller frees.
static float *
s_values (const tl_model_t *model, const tl_slot_t *slot)
{
    tl_weight_t weight;
    tl_error_t err;
    size_t count = slot->rows * slot->columns;
    if (tl_model_weight (model, slot->name, slot->rows, slot->columns, &weight, &err) != 0)
        fail_msg ("%s", err.text);
    float *values = tl_alloc_aligned (count * sizeof *values);
    float *ordered = tl_alloc_aligned (count * sizeof *ordered);
    tl_widen (values, weight.data, weight.dtype, count);
    tl_reorder (tl_model_config (model), slot->name, TL_ORDER_TO_HF, ordered, values, slot->rows,
                slot->columns * sizeof *values);
    free (values);
    return ordered;
}

static double
s_loss (tl_model_t *model, const tl_tune_t *tune, const tl_batch_t *batch)
{
    rig_t *rig = rig_new (model, 0, 0, tune);
    double loss = rig_loss (rig, batch);
    rig_destroy (&rig);
    return loss;
}

static void
s_near (double got, double expected, double limit, const char *what)
{
    if (!(fabs (got - expected) <= limit))
        fail_msg ("%s: got %.9g, expected %.9g within %g", what, got, expected, limit);
}

static tl_tune_t
s_lora (void)
{
    return (tl_tune_t){.method = TL_TUNE_LORA,
                       .rank = 3,
                       .alpha = 6,
                       .seed = 5,
                       .beta1 = 0.9,
                       .beta2 = 0.99,
                       .eps = 1e-8};
}

static tl_model_t *
s_family (size_t which, const char **name)
{
    static const char *const names[] = {"llama, tied, llama3", "llama", "qwen2", "glm", "chatglm2"};
    tiny_model_t specs[] = {tiny_llama (true), tiny_llama (false), tiny_qwen2 (true),
                            tiny_glm (true), tiny_glm (false)};
    *name = names[which];
    return tiny_model_open (&specs[which]);
}
enum { FAMILIES = 5 };

//  Saved by two parts: the same names, and values that differ by rounding only.
static void
s_same_files (const char *left, const char *right, double limit)
{
    tl_error_t err;
    tl_safetensors_t *one = tl_safetensors_open (left, &err);
    tl_safetensors_t *two = tl_safetensors_open (right, &err);
    assert_non_null (one);
    assert_non_null (two);
    assert_int_equal (tl_safetensors_count (one), tl_safetensors_count (two));
    for (size_t i = 0; i < tl_safetensors_count (one); i++) {
        const tl_st_tensor_t *a = tl_safetensors_at (one, i), *b = tl_safetensors_at (two, i);
        assert_string_equal (a->name, b->name);
        assert_int_equal (a->bytes, b->bytes);
        for (size_t k = 0; k < a->bytes / sizeof (float); k++)
            s_near (((const float *)a->data)[k], ((const float *)b->data)[k], limit, a->name);
    }
    tl_safetensors_destroy (&one);
    tl_safetensors_destroy (&two);
}

//  Three steps on both; the outcome is saved and compared, and each loads the other's.
static void
s_train_both (tl_model_t *model, tl_model_t *gguf, const tl_tune_t *tune, const char *file)
{
    rig_t *rigs[] = {rig_new (model, 0, 0, tune), rig_new (gguf, 0, 0, tune)};
    tl_batch_t *batch = tiny_batch (rigs[0]->config, 3, 3, 3, 9, 0);
    static const char *const names[] = {"left", "right"};
    tl_error_t err;
    double losses[2];
    for (size_t i = 0; i < 2; i++) {
        for (uint64_t step = 0; step < 3; step++)
            losses[i] = rig_step (rigs[i], &batch, 1, step, 1e-2, 1, false);
        if (tl_part_save_adapter (rigs[i]->parts[0], s_at (names[i]), &err) != 0)
            fail_msg ("%s", err.text);
    }
    s_near (losses[1], losses[0], 2e-5, "loss of step 2");
    char left[64], right[64];
    snprintf (left, sizeof left, "left/%s.safetensors", file);
    snprintf (right, sizeof right, "right/%s.safetensors", file);
    //  Adam turns rounding of tiny gradients into steps: some part of the learning rate.
    s_same_files (s_at (left), s_at (right), 2e-3);
    double expected = rig_loss (rigs[0], batch);
    for (size_t i = 0; i < 2; i++) {
        if (tl_part_load_adapter (rigs[i]->parts[0], s_at (names[1 - i]), &err) != 0)
            fail_msg ("%s", err.text);
        s_near (rig_loss (rigs[i], batch), expected, 3e-4 * expected, "loss with the other's");
    }
    tiny_batch_destroy (&batch);
    rig_destroy (&rigs[0]);
    rig_destroy (&rigs[1]);
}

static void
test_the_same_model_in_fp32 (void **state)
{
    for (size_t which = 0; which < FAMILIES; which++) {
        const char *name;
        tl_quantise_report_t report;
        tl_model_t *model = s_family (which, &name);
        tl_model_t *gguf = s_quantised (model, TL_F32, "model.gguf", &report);
        tl_tune_t tune = s_lora ();
        tl_batch_t *batch = tiny_batch (tl_model_config (model), 7, 3, 3, 9, 0);
        double expected = s_loss (model, &tune, batch);
        s_near (s_loss (gguf, &tune, batch), expected, 2e-6 * expected, name);
        tiny_batch_destroy (&batch);
        tl_model_destroy (&gguf);
        tl_model_destroy (&model);
    }
}

static void
test_adapters_are_hugging_faces (void **state)
{
    for (size_t which = 0; which < FAMILIES; which++) {
        const char *name;
        tl_quantise_report_t report;
        tl_model_t *model = s_family (which, &name);
        tl_model_t *gguf = s_quantised (model, TL_F32, "model.gguf", &report);
        tl_tune_t tune = s_lora ();
        if (tl_model_config (model)->names == TL_NAMES_HF) {
            tune.targets[0] = "q_proj";
            tune.targets[1] = "k_proj";
            tune.targets[2] = "o_proj";
            tune.target_count = 3;
        }
        s_train_both (model, gguf, &tune, "adapter_model");
        tl_model_destroy (&gguf);
        tl_model_destroy (&model);
    }
}

static void
test_full_tuning_is_saved_in_hugging_faces_order (void **state)
{
    tiny_model_t spec = tiny_llama (false);
    tl_quantise_report_t report;
    tl_model_t *model = tiny_model_open (&spec);
    tl_model_t *gguf = s_quantised (model, TL_BF16, "model.gguf", &report);
    tl_tune_t tune = s_lora ();
    tune.method = TL_TUNE_FULL;
    s_train_both (gguf, gguf, &tune, "model");
    tl_error_t err;
    //  A directory of its own: the metadata became its config.json.
    tl_model_t *tuned = tl_model_open (s_at ("left"), &err);
    if (!tuned)
        fail_msg ("%s", err.text);
    tl_batch_t *batch = tiny_batch (tl_model_config (model), 7, 3, 3, 9, 0);
    rig_t *rig = rig_new (gguf, 0, 0, &tune);
    assert_int_equal (tl_part_load_adapter (rig->parts[0], s_at ("left"), &err), 0);
    double expected = rig_loss (rig, batch);
    rig_destroy (&rig);
    tl_tune_t frozen = s_lora ();
    s_near (s_loss (tuned, &frozen, batch), expected, 2e-6 * expected, "loss of the directory");
    tiny_batch_destroy (&batch);
    tl_model_destroy (&tuned);
    tl_model_destroy (&gguf);
    tl_model_destroy (&model);
}

//  Reading back gives what narrowing and widening the original's rows gives.
static void
test_values_are_read_back_to_the_bit (void **state)
{
    static const tl_dtype_t types[] = {TL_F32, TL_F16, TL_BF16, TL_Q8_0, TL_Q4_0, TL_Q4_1};
    tiny_model_t spec = tiny_llama (true);
    spec.dtype = TL_F32;
    tl_model_t *model = tiny_model_open (&spec);
    const tl_config_t *config = tl_model_config (model);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        tl_quantise_report_t report;
        tl_model_t *gguf = s_quantised (model, types[t], "model.gguf", &report);
        bool blocks = tl_dtype_block (types[t]) > 1, four = types[t] > TL_Q8_0;
        assert_int_equal (report.tensors, tl_layout_count (config));
        assert_int_equal (report.short_rows, blocks ? config->blocks : 0); //  down_proj: 48 columns
        assert_int_equal (report.requantised, 0);
        for (size_t i = 0; i < tl_layout_count (config); i++) {
            tl_slot_t slot;
            tl_weight_t weight;
            tl_layout_at (config, i, &slot);
            size_t count = slot.rows * slot.columns;
            float *expected = s_values (model, &slot), *got = s_values (gguf, &slot);
            tl_dtype_t stored = slot.vector                           ? TL_F32
                                : blocks && slot.role == TL_SLOT_DOWN ? TL_F16
                                : four && slot.role == TL_SLOT_EMBED  ? TL_Q8_0
                                                                      : types[t];
            assert_int_equal (
                tl_model_weight (gguf, slot.name, slot.rows, slot.columns, &weight, NULL), 0);
            assert_int_equal (weight.dtype, stored);
            void *narrow = tl_alloc_aligned (tl_dtype_bytes (stored, count));
            tl_narrow (narrow, expected, stored, count);
            tl_widen (expected, narrow, stored, count);
            if (memcmp (expected, got, count * sizeof *got) != 0)
                fail_msg ("%s in %s: other values", slot.name, tl_dtype_name (stored));
            free (narrow);
            free (expected);
            free (got);
        }
        tl_model_destroy (&gguf);
    }
    tl_model_destroy (&model);
}

static void
test_a_gguf_is_quantised_again (void **state)
{
    tiny_model_t spec = tiny_llama (true);
    tl_quantise_report_t report;
    tl_model_t *model = tiny_model_open (&spec);
    tl_model_t *eight = s_quantised (model, TL_Q8_0, "eight.gguf", &report);
    //  The same type again: everything is copied, the factors of rotary too.
    tl_model_t *same = s_quantised (eight, TL_Q8_0, "same.gguf", &report);
    assert_int_equal (report.copied, report.tensors);
    assert_string_equal (tl_model_manifest_hash (same), tl_model_manifest_hash (eight));
    //  Expanded to a file: the same values.
    tl_model_t *wide = s_quantised (eight, TL_F32, "wide.gguf", &report);
    assert_int_equal (report.requantised, 0);
    for (size_t i = 0; i < tl_layout_count (tl_model_config (model)); i++) {
        tl_slot_t slot;
        tl_layout_at (tl_model_config (model), i, &slot);
        float *one = s_values (eight, &slot), *two = s_values (wide, &slot);
        assert_memory_equal (one, two, slot.rows * slot.columns * sizeof (float));
        free (one);
        free (two);
    }
    tl_model_t *four = s_quantised (eight, TL_Q4_0, "four.gguf", &report);
    assert_true (report.requantised > 0 && report.copied > 0);
    tl_model_destroy (&four);
    tl_model_destroy (&wide);
    tl_model_destroy (&same);
    tl_model_destroy (&eight);
    tl_model_destroy (&model);
}

static void
test_quantised_weights_may_be_expanded (void **state)
{
    tiny_model_t spec = tiny_llama (true);
    tl_quantise_report_t report;
    tl_error_t err;
    tl_model_t *model = tiny_model_open (&spec);
    tl_model_t *gguf = s_quantised (model, TL_Q4_0, "model.gguf", &report);
    tl_range_t whole = {.embed = true, .last = 5, .head = true};
    tl_tune_t lora = s_lora (), full = s_lora ();
    full.method = TL_TUNE_FULL;
    tl_batch_t *batch = tiny_batch (tl_model_config (model), 7, 3, 3, 9, 0);
    double stored = s_loss (gguf, &lora, batch);

    assert_null (tl_part_new (gguf, &whole, 1, &full, &err));
    assert_int_equal (err.code, TL_BAD_INPUT);
    assert_non_null (strstr (err.text, "q8_0"));
    assert_non_null (strstr (err.text, "model.dtype: fp32"));

    tl_plan_t small, large;
    tl_part_t *part = tl_part_new (gguf, &whole, 1, &lora, &err);
    tl_part_plan (part, 30, 10, 3, 20, 1, &small);
    tl_part_destroy (&part);
    tl_model_hold (gguf, TL_F32);
    part = tl_part_new (gguf, &whole, 1, &lora, &err);
    tl_part_plan (part, 30, 10, 3, 20, 1, &large);
    tl_part_destroy (&part);
    assert_true (large.weights > 3 * small.weights);
    s_near (s_loss (gguf, &lora, batch), stored, 2e-6 * stored, "loss of expanded weights");
    part = tl_part_new (gguf, &whole, 1, &full, &err);
    assert_non_null (part);
    tl_part_destroy (&part);
    tiny_batch_destroy (&batch);
    tl_model_destroy (&gguf);
    tl_model_destroy (&model);
}

static void
test_what_gguf_cannot_hold_is_refused (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    tl_model_t *model = tiny_model_open (&spec);
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    tl_quantise_report_t report;
    tl_error_t err;
    assert_int_equal (tl_model_quantise (model, writer, s_at ("model.gguf"), TL_F16, &report, &err),
                      -1);
    assert_int_equal (err.code, TL_BAD_INPUT);
    assert_non_null (strstr (err.text, "chatglm"));
    assert_false (tl_exists (s_at ("model.gguf")));
    tl_gguf_writer_destroy (&writer);
    tl_model_destroy (&model);
}

int
main (void)
{
    tl_kernels_use (1);
#define TEST(name) cmocka_unit_test_setup_teardown (name, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        TEST (test_the_same_model_in_fp32),
        TEST (test_adapters_are_hugging_faces),
        TEST (test_full_tuning_is_saved_in_hugging_faces_order),
        TEST (test_values_are_read_back_to_the_bit),
        TEST (test_a_gguf_is_quantised_again),
        TEST (test_quantised_weights_may_be_expanded),
        TEST (test_what_gguf_cannot_hold_is_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
