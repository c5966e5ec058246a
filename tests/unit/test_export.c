//  Export: parts joined are the whole; a merged model says what base and adapter say; what doesn't go together is
//  refused.

#include "unit/cmocka_all.h"

#include "rig.h"
#include "tiny_model.h"

#include "file.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model/export.h"
#include "model/gguf.h"
#include "model/quantise.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 1 << 24 };

static const tl_tune_t s_lora = {.method = TL_TUNE_LORA,
                                 .rank = 4,
                                 .alpha = 8,
                                 .dropout = 0.05,
                                 .seed = 5,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8,
                                 .decay = 0.01};

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

//  A path below the test's directory; eight of them live at a time.
static const char *
s_at (const char *name)
{
    static char paths[8][512];
    static size_t next;
    char *path = paths[next++ % 8];
    snprintf (path, sizeof paths[0], "%s/%s", s_root, name);
    return path;
}

static void
s_must (int rc, const tl_error_t *err)
{
    if (rc != 0)
        fail_msg ("%s", err->text);
}

static tl_model_t *
s_model (const tiny_model_t *spec)
{
    tl_error_t err = {.text = ""};
    s_must (tl_mkdirs (s_at ("base"), &err), &err);
    s_must (tiny_model_write (spec, s_at ("base"), &err), &err);
    s_must (tl_file_write (s_at ("base/tokenizer.model"), "words", 5, 0644, &err), &err);
    tl_model_t *model = tl_model_open (s_at ("base"), &err);
    s_must (model ? 0 : -1, &err);
    return model;
}

//  Trains the whole model a little; saves it as "whole", and the same values part by part as "client", "worker".
static rig_t *
s_save_all (tl_model_t *model, const tl_tune_t *tune)
{
    tl_error_t err = {.text = ""};
    rig_t *whole = rig_new (model, 0, 0, tune), *cut = rig_new (model, 1, 2, tune);
    for (uint64_t step = 0; step < 4; step++) {
        tl_batch_t *batch = tiny_batch (whole->config, step, 2, 6, 12, 2 * step);
        rig_step (whole, &batch, 1, step, 5e-2, 0, false);
        rig_step (cut, &batch, 1, step, 5e-2, 0, false);
        tiny_batch_destroy (&batch);
    }
    assert_true (rig_same (whole, cut));
    s_must (tl_part_save_adapter (whole->parts[0], s_at ("whole"), &err), &err);
    s_must (tl_part_save_adapter (cut->parts[0], s_at ("client"), &err), &err);
    s_must (tl_part_save_adapter (cut->parts[1], s_at ("worker"), &err), &err);
    rig_destroy (&cut);
    return whole;
}

static tl_export_t *
s_open (tl_model_t *model, const char *one, const char *two)
{
    tl_error_t err = {.text = ""};
    const char *const adapters[] = {one, two};
    tl_export_t *export = tl_export_new (model, adapters, (one != NULL) + (two != NULL), &err);
    s_must (export ? 0 : -1, &err);
    return export;
}

static void
s_same_file (const char *one, const char *two)
{
    tl_error_t err = {.text = ""};
    size_t sizes[2];
    char *a = tl_file_read (one, MAX_FILE, &sizes[0], &err);
    char *b = tl_file_read (two, MAX_FILE, &sizes[1], &err);
    s_must (a && b ? 0 : -1, &err);
    if (sizes[0] != sizes[1] || memcmp (a, b, sizes[0]) != 0)
        fail_msg ("%s and %s differ", one, two);
    free (b);
    free (a);
}

static void
test_parts_joined_are_the_whole (void **state)
{
    tl_tune_t tunes[] = {s_lora, s_lora, s_lora};
    tunes[1].rslora = true;
    tunes[1].freeze[tunes[1].freeze_count++] = "blocks.2-3";
    tunes[2].method = TL_TUNE_PTUNING;
    tunes[2].prefix = 3;
    tiny_model_t specs[] = {tiny_chatglm (), tiny_qwen2 (true), tiny_glm (false)};
    for (size_t i = 0; i < 3; i++) {
        tl_error_t err = {.text = ""};
        tl_model_t *model = s_model (&specs[i]);
        rig_t *rig = s_save_all (model, &tunes[i]);
        tl_export_t *export = s_open (model, s_at ("worker"), s_at ("client"));
        assert_int_equal (tl_export_tensors (export), tl_part_tensors (rig->parts[0]));
        s_must (tl_export_peft (export, s_at ("out"), &err), &err);
        assert_false (tl_exists (s_at ("out.tmp")));
        s_same_file (s_at ("whole/adapter_config.json"), s_at ("out/adapter_config.json"));
        //  A whole prefix says by itself that it is one; else the files are the same.
        if (tunes[i].method == TL_TUNE_LORA)
            s_same_file (s_at ("whole/adapter_model.safetensors"),
                         s_at ("out/adapter_model.safetensors"));
        tl_tune_t other = tunes[i];
        other.seed = 6;
        rig_t *again = rig_new (model, 0, 0, &other);
        s_must (tl_part_load_adapter (again->parts[0], s_at ("out"), &err), &err);
        assert_true (rig_same (rig, again));
        rig_destroy (&again);
        if (tunes[i].method == TL_TUNE_PTUNING) {
            assert_int_equal (tl_export_hf (export, s_at ("hf"), true, TL_F32, 0, &err), -1);
            assert_non_null (strstr (err.text, "export it as peft"));
            assert_false (tl_exists (s_at ("hf")));
        }
        tl_export_destroy (&export);
        rig_destroy (&rig);
        tl_model_destroy (&model);
        tl_remove_tree (s_root);
    }
}

//  Losses of base + adapter and of the merged model, both read from disk.
static void
s_check_merged (rig_t *rig, const char *directory, double limit)
{
    tl_error_t err = {.text = ""};
    tl_tune_t frozen = {.rank = 1, .frozen = true};
    tl_model_t *model = tl_model_open (directory, &err);
    s_must (model ? 0 : -1, &err);
    rig_t *merged = rig_new (model, 0, 0, &frozen);
    tl_batch_t *batch = tiny_batch (rig->config, 77, 3, 6, 12, 0);
    double one = rig_loss (rig, batch), two = rig_loss (merged, batch);
    if (!(fabs (one - two) <= limit * one))
        fail_msg ("%s: loss %.9g, with the adapter %.9g", directory, two, one);
    tiny_batch_destroy (&batch);
    rig_destroy (&merged);
    tl_model_destroy (&model);
}

static void
test_a_merged_model_says_the_same (void **state)
{
    tl_tune_t tunes[] = {s_lora, s_lora, {0}};
    tunes[1].rslora = true;
    tunes[2] = s_lora;
    tunes[2].method = TL_TUNE_FULL;
    tunes[2].freeze[tunes[2].freeze_count++] = "embedding";
    tiny_model_t specs[] = {tiny_glm (true), tiny_llama (true), tiny_chatglm ()};
    for (size_t i = 0; i < 3; i++) {
        tl_error_t err = {.text = ""};
        tl_model_t *model = s_model (&specs[i]);
        rig_t *rig = s_save_all (model, &tunes[i]);
        tl_export_t *export = s_open (model, s_at ("client"), s_at ("worker"));
        s_must (tl_export_hf (export, s_at ("exact"), false, TL_F32, 0, &err), &err);
        s_check_merged (rig, s_at ("exact"), 1e-6);
        assert_true (tl_exists (s_at ("exact/tokenizer.model")));
        //  In small files; rounded as the base is.
        s_must (tl_export_hf (export, s_at ("parts"), true, TL_F32, 20000, &err), &err);
        assert_true (tl_exists (s_at ("parts/model.safetensors.index.json")));
        s_check_merged (rig, s_at ("parts"), 2e-2);
        s_must (tl_export_hf (export, s_at ("bf16"), false, TL_BF16, 0, &err), &err);
        s_check_merged (rig, s_at ("bf16"), 2e-2);
        tl_export_destroy (&export);
        rig_destroy (&rig);
        tl_model_destroy (&model);
        tl_remove_tree (s_root);
    }
}

//  Without an adapter the directory is the base again, bit for bit.
static void
test_no_adapter_is_the_base (void **state)
{
    tl_error_t err = {.text = ""};
    tiny_model_t spec = tiny_chatglm ();
    tl_model_t *model = s_model (&spec);
    tl_export_t *export = s_open (model, NULL, NULL);
    s_must (tl_export_hf (export, s_at ("out"), true, TL_F32, 0, &err), &err);
    tl_model_t *again = tl_model_open (s_at ("out"), &err);
    assert_string_equal (tl_model_manifest_hash (model), tl_model_manifest_hash (again));
    tl_model_destroy (&again);
    assert_int_equal (tl_export_peft (export, s_at ("none"), &err), -1);
    assert_non_null (strstr (err.text, "no adapter is named"));
    tl_export_destroy (&export);
    tl_model_destroy (&model);
}

static void
s_refused (tl_model_t *model, const char *one, const char *two, const char *told, const char *also)
{
    tl_error_t err = {.text = ""};
    const char *const adapters[] = {one, two};
    tl_export_t *export = tl_export_new (model, adapters, two ? 2 : 1, &err);
    assert_null (export);
    assert_int_equal (err.code, TL_BAD_INPUT);
    if (!strstr (err.text, told) || !strstr (err.text, also))
        fail_msg ("expected '%s' and '%s' in: %s", told, also, err.text);
}

static void
s_save_one (tl_model_t *model, const tl_tune_t *tune, const char *directory)
{
    tl_error_t err = {.text = ""};
    rig_t *rig = rig_new (model, 0, 0, tune);
    s_must (tl_part_save_adapter (rig->parts[0], directory, &err), &err);
    rig_destroy (&rig);
}

static void
test_what_doesnt_go_together (void **state)
{
    tl_error_t err = {.text = ""};
    tiny_model_t spec = tiny_llama (false), wide_spec = spec;
    wide_spec.inner += 8;
    tl_model_t *model = s_model (&spec), *wide = tiny_model_open (&wide_spec);
    rig_t *rig = s_save_all (model, &s_lora);
    s_refused (model, s_at ("client"), s_at ("client"), "both hold", "different parts");
    s_refused (wide, s_at ("client"), s_at ("worker"), "inner is 48", "has 56");
    s_refused (model, s_at ("absent"), NULL, "absent", "give the directory");
    tl_tune_t rank = s_lora, alpha = s_lora, root = s_lora, full = s_lora;
    rank.rank = 2;
    alpha.alpha = 3;
    root.rslora = true;
    full.method = TL_TUNE_FULL;
    s_save_one (model, &rank, s_at ("rank"));
    s_save_one (model, &alpha, s_at ("alpha"));
    s_save_one (model, &root, s_at ("root"));
    s_save_one (model, &full, s_at ("full"));
    s_refused (model, s_at ("client"), s_at ("rank"), "r is 4 in", "and 2 in");
    s_refused (model, s_at ("client"), s_at ("alpha"), "lora_alpha is 8 in", "and 3 in");
    s_refused (model, s_at ("client"), s_at ("root"), "use_rslora is false in", "true in");
    s_refused (model, s_at ("client"), s_at ("full"), "a LoRA adapter", "full weights");
    tl_export_t *export = s_open (model, s_at ("full"), NULL);
    assert_int_equal (tl_export_peft (export, s_at ("out"), &err), -1);
    assert_non_null (strstr (err.text, "full weights"));
    tl_export_destroy (&export);
    //  A part's tensors under a config that speaks of all blocks.
    size_t size;
    char *text = tl_file_read (s_at ("whole/adapter_config.json"), MAX_FILE, &size, &err);
    s_must (tl_file_write (s_at ("worker/adapter_config.json"), text, size, 0600, &err), &err);
    free (text);
    s_refused (model, s_at ("worker"), NULL, "layers.0.self_attn.q_proj.lora_A", "all parts");
    assert_false (tl_exists (s_at ("out")));
    rig_destroy (&rig);
    tl_model_destroy (&wide);
    tl_model_destroy (&model);
}

static tl_gguf_t *
s_as_gguf (const char *model_path, const char *path)
{
    tl_error_t err = {.text = ""};
    tl_quantise_report_t report;
    tl_model_t *model = tl_model_open (model_path, &err);
    s_must (model ? 0 : -1, &err);
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    s_must (tl_model_quantise (model, writer, path, TL_F32, &report, &err), &err);
    tl_gguf_writer_destroy (&writer);
    tl_model_destroy (&model);
    tl_gguf_t *gguf = tl_gguf_open (path, &err);
    s_must (gguf ? 0 : -1, &err);
    return gguf;
}

//  merged = base + alpha / rank * b a, as llama.cpp adds an adapter, within the rounding of fp32.
static void
s_check_added (const tl_gguf_t *base, const tl_gguf_t *merged, const tl_gguf_t *lora, double alpha,
               const char *name)
{
    char factor[160];
    const tl_gguf_tensor_t *w = tl_gguf_find_tensor (base, name);
    const tl_gguf_tensor_t *sum = tl_gguf_find_tensor (merged, name);
    snprintf (factor, sizeof factor, "%s.lora_a", name);
    const tl_gguf_tensor_t *a = tl_gguf_find_tensor (lora, factor);
    snprintf (factor, sizeof factor, "%s.lora_b", name);
    const tl_gguf_tensor_t *b = tl_gguf_find_tensor (lora, factor);
    assert_true (w && sum && a && b);
    size_t rows = w->shape[0], columns = w->shape[1], rank = a->shape[0];
    assert_true (a->shape[1] == columns && b->shape[0] == rows && b->shape[1] == rank);
    const float *wf = w->data, *sf = sum->data, *af = a->data, *bf = b->data;
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < columns; i++) {
            double expected = 0;
            for (size_t k = 0; k < rank; k++)
                expected += (double)bf[row * rank + k] * af[k * columns + i];
            expected = wf[row * columns + i] + alpha / (double)rank * expected;
            if (!(fabs (sf[row * columns + i] - expected) < 1e-5))
                fail_msg ("%s [%zu, %zu]: expected %.9g, got %.9g", name, row, i, expected,
                          (double)sf[row * columns + i]);
        }
}

static void
test_an_adapter_for_llama_cpp (void **state)
{
    tiny_model_t specs[] = {tiny_llama (false), tiny_qwen2 (true), tiny_glm (false)};
    specs[0].llama3 = specs[1].llama3 = false;
    for (size_t i = 0; i < 3; i++) {
        tl_error_t err = {.text = ""};
        tl_model_t *model = s_model (&specs[i]);
        tl_tune_t tune = s_lora;
        tune.rslora = i == 1;
        const char *const apart[] = {"q_proj", "k_proj", "down_proj"};
        const char *const fused[] = {"query_key_value", "dense", "dense_h_to_4h"};
        tune.target_count = 3;
        memcpy (tune.targets, i == 2 ? fused : apart, sizeof apart);
        rig_t *rig = s_save_all (model, &tune);
        tl_export_t *export = s_open (model, s_at ("client"), s_at ("worker"));
        s_must (tl_export_gguf (export, s_at ("lora.gguf"), &err), &err);
        s_must (tl_export_hf (export, s_at ("merged"), false, TL_F32, 0, &err), &err);
        tl_gguf_t *base = s_as_gguf (s_at ("base"), s_at ("base.gguf")),
                  *merged = s_as_gguf (s_at ("merged"), s_at ("merged.gguf")),
                  *lora = tl_gguf_open (s_at ("lora.gguf"), &err);
        s_must (lora ? 0 : -1, &err);
        tl_gguf_text_t text, architecture;
        double alpha = 0;
        assert_true (tl_gguf_text (tl_gguf_find (lora, "general.type"), 0, &text));
        assert_true (tl_gguf_text_is (text, "adapter"));
        assert_true (tl_gguf_text (tl_gguf_find (lora, "adapter.type"), 0, &text));
        assert_true (tl_gguf_text_is (text, "lora"));
        assert_true (tl_gguf_text (tl_gguf_find (lora, "general.architecture"), 0, &text));
        tl_gguf_text (tl_gguf_find (base, "general.architecture"), 0, &architecture);
        assert_true (text.size == architecture.size &&
                     memcmp (text.data, architecture.data, text.size) == 0);
        assert_true (tl_gguf_real (tl_gguf_find (lora, "adapter.lora.alpha"), 0, &alpha));
        assert_true (alpha == (tune.rslora ? 16 : 8));
        assert_int_equal (tl_gguf_tensors (lora), tl_part_tensors (rig->parts[0]));
        for (size_t t = 0; t < tl_gguf_tensors (lora); t += 2) {
            char name[128];
            const char *of = tl_gguf_tensor (lora, t)->name;
            snprintf (name, sizeof name, "%.*s", (int)(strstr (of, ".lora_") - of), of);
            s_check_added (base, merged, lora, alpha, name);
        }
        tl_gguf_destroy (&lora);
        tl_gguf_destroy (&merged);
        tl_gguf_destroy (&base);
        tl_export_destroy (&export);
        rig_destroy (&rig);
        tl_model_destroy (&model);
        tl_remove_tree (s_root);
    }
    //  ChatGLM-6B is none of llama.cpp's.
    tl_error_t err = {.text = ""};
    tiny_model_t spec = tiny_chatglm ();
    tl_model_t *model = s_model (&spec);
    rig_t *rig = s_save_all (model, &s_lora);
    tl_export_t *export = s_open (model, s_at ("whole"), NULL);
    assert_int_equal (tl_export_gguf (export, s_at ("lora.gguf"), &err), -1);
    assert_non_null (strstr (err.text, "llama.cpp knows no chatglm models"));
    assert_false (tl_exists (s_at ("lora.gguf")));
    tl_export_destroy (&export);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

//  fp16 holds 65504 at most.
static void
test_values_that_dont_fit (void **state)
{
    tl_error_t err = {.text = ""};
    tiny_model_t spec = tiny_llama (false);
    tl_model_t *model = s_model (&spec);
    tl_tune_t full = s_lora;
    full.method = TL_TUNE_FULL;
    rig_t *rig = rig_new (model, 0, 0, &full);
    tl_part_tensor (rig->parts[0], 1)->value[0] = 70000;
    s_must (tl_part_save_adapter (rig->parts[0], s_at ("full"), &err), &err);
    tl_export_t *export = s_open (model, s_at ("full"), NULL);
    assert_int_equal (tl_export_hf (export, s_at ("out"), false, TL_F16, 0, &err), -1);
    assert_non_null (strstr (err.text, tl_part_tensor (rig->parts[0], 1)->name));
    assert_non_null (strstr (err.text, "bf16"));
    assert_false (tl_exists (s_at ("out")) || tl_exists (s_at ("out.tmp")));
    tl_export_destroy (&export);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

int
main (void)
{
    tl_kernels_use (1);
#define CASE(name) cmocka_unit_test_setup_teardown (name, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        CASE (test_parts_joined_are_the_whole), CASE (test_a_merged_model_says_the_same),
        CASE (test_no_adapter_is_the_base),     CASE (test_what_doesnt_go_together),
        CASE (test_values_that_dont_fit),       CASE (test_an_adapter_for_llama_cpp),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
