//  Split == unsplit, bit for bit: every loss and every trained tensor of a
//  model cut into front, trunk and tail equals those of the whole model.

#include "unit/cmocka_all.h"

#include "rig.h"
#include "tiny_model.h"

#include <stdio.h>
#include <string.h>

enum { STEPS = 4, MICROS = 3 };

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
                                   .prefix = 3,
                                   .seed = 5,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .eps = 1e-8,
                                   .decay = 0.01};

//  Trains whole and cut on the same micros and compares after every step.
static void
s_compare (tl_model_t *model, size_t front, size_t tail, const tl_tune_t *tune, size_t micros,
           double clip)
{
    rig_t *whole = rig_new (model, 0, 0, tune), *cut = rig_new (model, front, tail, tune);
    for (uint64_t step = 0; step < STEPS; step++) {
        tl_batch_t *batches[MICROS];
        for (size_t i = 0; i < micros; i++)
            batches[i] = tiny_batch (whole->config, 100 * step + i, 2, 4, 19, 10 * step + 2 * i);
        double one = rig_step (whole, batches, micros, step, 1e-2, clip, false);
        double two = rig_step (cut, batches, micros, step, 1e-2, clip, true);
        if (memcmp (&one, &two, sizeof one) != 0)
            fail_msg ("step %d: loss %.17g whole, %.17g cut %zu | %zu", (int)step, one, two, front,
                      tail);
        if (!rig_same (whole, cut))
            fail_msg ("after step %d, cut %zu | %zu, %zu micros", (int)step, front, tail, micros);
        for (size_t i = 0; i < micros; i++)
            tiny_batch_destroy (&batches[i]);
    }
    rig_destroy (&whole);
    rig_destroy (&cut);
}

static void
s_all_cuts (const tiny_model_t *spec, const tl_tune_t *tune)
{
    tl_model_t *model = tiny_model_open (spec);
    for (size_t front = 1; front <= 2; front++)
        for (size_t tail = 1; tail <= 2; tail++)
            for (size_t micros = 1; micros <= MICROS; micros += 2)
                for (int clip = 0; clip <= 1; clip++)
                    s_compare (model, front, tail, tune, micros, clip ? 0.05 : 0);
    tl_model_destroy (&model);
}

static void
test_chatglm_lora (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    s_all_cuts (&spec, &s_lora);
}

static void
test_chatglm_lora_on_every_linear (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    tl_tune_t tune = s_lora;
    const char *targets[] = {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"};
    memcpy (tune.targets, targets, sizeof targets);
    tune.target_count = 4;
    s_all_cuts (&spec, &tune);
}

static void
test_chatglm_full_with_its_tied_head (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    s_all_cuts (&spec, &s_full);
}

static void
test_llama_lora (void **state)
{
    tiny_model_t spec = tiny_llama (true);
    s_all_cuts (&spec, &s_lora);
}

static void
test_llama_lora_on_every_linear (void **state)
{
    tiny_model_t spec = tiny_llama (false);
    tl_tune_t tune = s_lora;
    const char *targets[] = {"q_proj",  "k_proj",    "v_proj",   "o_proj",
                             "up_proj", "gate_proj", "down_proj"};
    memcpy (tune.targets, targets, sizeof targets);
    tune.target_count = 7;
    s_all_cuts (&spec, &tune);
}

static void
test_llama_full_tied (void **state)
{
    tiny_model_t spec = tiny_llama (true);
    s_all_cuts (&spec, &s_full);
}

static void
test_llama_full_untied (void **state)
{
    tiny_model_t spec = tiny_llama (false);
    s_all_cuts (&spec, &s_full);
}

//  Both layouts of glm, and qwen2 tied and untied, with the linears of each.
static void
s_every_linear (const tiny_model_t *spec, const char *const *targets, size_t count)
{
    tl_tune_t tune = s_lora;
    memcpy (tune.targets, targets, count * sizeof *targets);
    tune.target_count = count;
    s_all_cuts (spec, &tune);
}

static void
test_glm_lora (void **state)
{
    static const char *const fused[] = {"query_key_value", "dense", "dense_h_to_4h",
                                        "dense_4h_to_h"};
    static const char *const apart[] = {"q_proj", "k_proj",       "v_proj",
                                        "o_proj", "gate_up_proj", "down_proj"};
    tiny_model_t original = tiny_glm (false), hf = tiny_glm (true);
    s_every_linear (&original, fused, 4);
    s_every_linear (&hf, apart, 6);
    s_all_cuts (&original, &s_lora);
}

static void
test_glm_full (void **state)
{
    tiny_model_t original = tiny_glm (false), hf = tiny_glm (true);
    s_all_cuts (&original, &s_full);
    s_all_cuts (&hf, &s_full);
}

static void
test_qwen2 (void **state)
{
    tiny_model_t tied = tiny_qwen2 (true), untied = tiny_qwen2 (false);
    s_all_cuts (&tied, &s_lora);
    s_all_cuts (&tied, &s_full);
    s_all_cuts (&untied, &s_full);
}

static void
test_prefixes (void **state)
{
    tiny_model_t chatglm = tiny_chatglm (), original = tiny_glm (false), hf = tiny_glm (true);
    s_all_cuts (&chatglm, &s_prefix);
    s_all_cuts (&original, &s_prefix);
    s_all_cuts (&hf, &s_prefix);
}

static void
test_fp32_weights_train_in_place_of_nothing (void **state)
{
    //  fp32 checkpoints are used straight from the mapping, full tuning from its
    //  masters.
    tiny_model_t spec = tiny_llama (false);
    spec.dtype = TL_F32;
    s_all_cuts (&spec, &s_lora);
    s_all_cuts (&spec, &s_full);
}

int
main (void)
{
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_chatglm_lora),
        cmocka_unit_test (test_chatglm_lora_on_every_linear),
        cmocka_unit_test (test_chatglm_full_with_its_tied_head),
        cmocka_unit_test (test_llama_lora),
        cmocka_unit_test (test_llama_lora_on_every_linear),
        cmocka_unit_test (test_llama_full_tied),
        cmocka_unit_test (test_llama_full_untied),
        cmocka_unit_test (test_glm_lora),
        cmocka_unit_test (test_glm_full),
        cmocka_unit_test (test_qwen2),
        cmocka_unit_test (test_prefixes),
        cmocka_unit_test (test_fp32_weights_train_in_place_of_nothing),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
