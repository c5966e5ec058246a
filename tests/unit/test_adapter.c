//  Adapters: what a part saves is what it (or a part cut otherwise) loads; what doesn't belong is refused with
//  both values; a state goes on bit for bit.

#include "unit/cmocka_all.h"

#include "rig.h"
#include "tiny_model.h"

#include "file.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model/safetensors.h"

#include <jansson.h>
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

static void
s_train (rig_t *rig, uint64_t step)
{
    tl_batch_t *batch = tiny_batch (rig->config, step, 2, 4, 12, 2 * step);
    rig_step (rig, &batch, 1, step, 1e-2, 1, false);
    tiny_batch_destroy (&batch);
}

static rig_t *
s_trained (tl_model_t *model, const tl_tune_t *tune)
{
    rig_t *rig = rig_new (model, 0, 0, tune);
    for (uint64_t step = 0; step < 3; step++)
        s_train (rig, step);
    return rig;
}

static void
s_save (const rig_t *rig, const char *directory)
{
    tl_error_t err = {.text = ""};
    if (tl_part_save_adapter (rig->parts[0], directory, &err) != 0)
        fail_msg ("%s", err.text);
}

static void
s_load (rig_t *rig, const char *directory)
{
    tl_error_t err = {.text = ""};
    for (size_t i = 0; i < rig->part_count; i++)
        if (tl_part_load_adapter (rig->parts[i], directory, &err) != 0)
            fail_msg ("%s", err.text);
}

//  Loading must fail with both texts, and change nothing.
static void
s_refused (rig_t *rig, const char *directory, const char *one, const char *two)
{
    tl_error_t err = {.text = ""};
    const tl_tensor_t *tensor = tl_part_tensor (rig->parts[0], 0);
    float before = tensor->value[0];
    assert_int_equal (tl_part_load_adapter (rig->parts[0], directory, &err), -1);
    assert_int_equal (err.code, TL_BAD_INPUT);
    if (!strstr (err.text, one) || !strstr (err.text, two))
        fail_msg ("expected '%s' and '%s' in: %s", one, two, err.text);
    assert_true (tensor->value[0] == before);
}

static void
s_check_round_trip (tl_model_t *model, const tl_tune_t *tune)
{
    tl_tune_t other_seed = *tune;
    other_seed.seed = 6;
    rig_t *trained = s_trained (model, tune);
    s_save (trained, s_at ("adapter"));
    s_save (trained, s_at ("adapter")); //  an older one is replaced
    assert_false (tl_exists (s_at ("adapter.tmp")));
    rig_t *whole = rig_new (model, 0, 0, &other_seed);
    s_load (whole, s_at ("adapter"));
    assert_true (rig_same (trained, whole));
    //  Each part of a cut model takes its own tensors and ignores the others'.
    rig_t *cut = rig_new (model, 1, 2, &other_seed);
    s_load (cut, s_at ("adapter"));
    assert_true (rig_same (trained, cut));
    rig_destroy (&cut);
    rig_destroy (&whole);
    rig_destroy (&trained);
}

static void
test_lora_round_trip (void **state)
{
    tiny_model_t specs[] = {tiny_chatglm (), tiny_llama (true), tiny_glm (true), tiny_qwen2 (true)};
    for (size_t i = 0; i < 4; i++) {
        tl_model_t *model = tiny_model_open (&specs[i]);
        s_check_round_trip (model, &s_lora);
        tl_adapter_info_t info;
        tl_error_t err = {.text = ""};
        assert_int_equal (tl_adapter_info_read (&info, s_at ("adapter"), &err), 0);
        assert_int_equal (info.method, TL_TUNE_LORA);
        assert_int_equal (info.rank, 4);
        assert_true (info.alpha == 8 && info.dropout == 0.05);
        assert_string_equal (info.targets[0], i ? "q_proj" : "query_key_value");
        assert_string_equal (info.base, tl_model_path (model));
        tl_adapter_info_clear (&info);
        tl_model_destroy (&model);
    }
}

//  Rewrites one setting of a saved adapter's adapter_config.json.
static void
s_edit (const char *key, const char *json)
{
    json_error_t reason;
    json_t *config = json_load_file (s_at ("adapter/adapter_config.json"), 0, &reason);
    json_object_set_new (config, key, json_loads (json, JSON_DECODE_ANY, NULL));
    assert_int_equal (json_dump_file (config, s_at ("adapter/adapter_config.json"), 0), 0);
    json_decref (config);
}

static const tl_tune_t s_prefix = {.method = TL_TUNE_PTUNING,
                                   .prefix = 4,
                                   .seed = 5,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .eps = 1e-8,
                                   .decay = 0.01};

static void
test_prefix_round_trip (void **state)
{
    tiny_model_t specs[] = {tiny_chatglm (), tiny_glm (false), tiny_glm (true)};
    for (size_t i = 0; i < 3; i++) {
        tl_error_t err = {.text = ""};
        tl_model_t *model = tiny_model_open (&specs[i]);
        s_check_round_trip (model, &s_prefix);
        //  One tensor, as PEFT and the released prefixes have it: (block, key | value, head, d).
        tl_safetensors_t *file =
            tl_safetensors_open (s_at ("adapter/adapter_model.safetensors"), &err);
        assert_int_equal (tl_safetensors_count (file), 1);
        const tl_st_tensor_t *tensor = tl_safetensors_find (file, "prompt_embeddings");
        const size_t width = 2 * specs[i].kv_heads * specs[i].head_dim;
        assert_true (tensor && tensor->shape[0] == 4 && tensor->shape[1] == 5 * width);
        rig_t *trained = s_trained (model, &s_prefix);
        const float *row = (const float *)tensor->data + 3 * 5 * width;
        assert_memory_equal (row + 2 * width,
                             tl_part_tensor (trained->parts[0], 2)->value + 3 * width,
                             width * sizeof (float));
        tl_adapter_info_t info;
        assert_int_equal (tl_adapter_info_read (&info, s_at ("adapter"), &err), 0);
        assert_int_equal (info.method, TL_TUNE_PTUNING);
        assert_int_equal (info.prefix, 4);
        tl_adapter_info_clear (&info);
        rig_destroy (&trained);
        tl_safetensors_destroy (&file);
        tl_model_destroy (&model);
    }
}

static void
test_a_parts_prefix_has_its_own_blocks (void **state)
{
    tiny_model_t spec = tiny_glm (false), other = tiny_chatglm ();
    tl_model_t *model = tiny_model_open (&spec), *stranger = tiny_model_open (&other);
    tl_tune_t seed = s_prefix, longer = s_prefix, lora = s_lora;
    seed.seed = 6;
    longer.prefix = 5;
    rig_t *trained = rig_new (model, 1, 2, &s_prefix), *cut = rig_new (model, 1, 2, &seed);
    s_save (trained, s_at ("client")); //  blocks 0, 3 and 4
    tl_error_t err = {.text = ""};
    if (tl_part_load_adapter (cut->parts[0], s_at ("client"), &err) != 0)
        fail_msg ("%s", err.text);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal (tl_part_tensor (cut->parts[0], i)->value,
                             tl_part_tensor (trained->parts[0], i)->value, 4 * 32 * sizeof (float));
    tl_adapter_info_t info;
    assert_int_equal (tl_adapter_info_read (&info, s_at ("client"), &err), 0);
    assert_int_equal (info.layer_count, 3);
    assert_int_equal (info.layers[1], 3);
    tl_adapter_info_clear (&info);
    rig_t *whole = rig_new (model, 0, 0, &seed), *five = rig_new (model, 0, 0, &longer);
    rig_t *adapters = rig_new (model, 0, 0, &lora), *chatglm = rig_new (stranger, 0, 0, &s_prefix);
    s_refused (whole, s_at ("client"), "no columns of block 1", "tune.parts");
    s_refused (five, s_at ("client"), "num_virtual_tokens is 4", "tune.prefix 5");
    s_refused (adapters, s_at ("client"), "holds a prefix", "tune.method lora");
    s_refused (chatglm, s_at ("client"), "made on a base whose family is", "glm");
    rig_t *full = rig_new (model, 0, 0, &s_prefix);
    s_save (full, s_at ("adapter"));
    s_edit ("prefix_projection", "true");
    s_refused (full, s_at ("adapter"), "prefix_projection is true", "expected false");
    s_edit ("prefix_projection", "false");
    s_edit ("num_virtual_tokens", "0");
    s_refused (full, s_at ("adapter"), "num_virtual_tokens is 0", "from 1 to 65536");
    rig_t *rigs[] = {trained, cut, whole, five, adapters, chatglm, full};
    for (size_t i = 0; i < 7; i++)
        rig_destroy (&rigs[i]);
    tl_model_destroy (&model);
    tl_model_destroy (&stranger);
}

static void
test_full_tuning_saves_a_model (void **state)
{
    tiny_model_t spec = tiny_llama (true);
    tl_error_t err = {.text = ""};
    assert_int_equal (tl_mkdirs (s_at ("base"), &err), 0);
    assert_int_equal (tiny_model_write (&spec, s_at ("base"), &err), 0);
    tl_model_t *model = tl_model_open (s_at ("base"), &err);
    s_check_round_trip (model, &s_full);
    //  The whole of a tuned model is a model again, in fp32.
    tl_model_t *tuned = tl_model_open (s_at ("adapter"), &err);
    if (!tuned)
        fail_msg ("%s", err.text);
    assert_non_null (strstr (tl_model_manifest (tuned), "fp32"));
    rig_t *trained = s_trained (model, &s_full), *again = rig_new (tuned, 0, 0, &s_full);
    assert_true (rig_same (trained, again));
    rig_t *lora = rig_new (model, 0, 0, &s_lora);
    s_refused (lora, s_at ("adapter"), "holds full weights", "tune.method lora");
    rig_destroy (&lora);
    rig_destroy (&again);
    rig_destroy (&trained);
    tl_model_destroy (&tuned);
    tl_model_destroy (&model);
}

static void
test_settings_that_differ_are_refused (void **state)
{
    static const struct {
        const char *key, *json, *one, *two;
    } cases[] = {
        {"r", "16", "r is 16", "tune.rank 4"},
        {"r", "0", "r is 0", "from 1 to"},
        {"lora_alpha", "32", "lora_alpha is 32", "tune.alpha 8"},
        {"target_modules", "[\"q_proj\"]", "target_modules is [q_proj]", "[q_proj, v_proj]"},
        {"target_modules", "\".*proj\"", "target_modules is \".*proj\"", "a list of"},
        {"peft_type", "\"IA3\"", "peft_type is \"IA3\"", "LORA"},
        {"use_rslora", "true", "use_rslora is true", "tune.rslora false"},
        {"use_rslora", "1", "use_rslora is 1", "true or false"},
        {"layers_to_transform", "[0, 1, 3, 4]", "layers_to_transform leaves out block 2", "freeze"},
        {"layers_to_transform", "5", "layers_to_transform names block 5", "0 to 4"},
        {"layers_to_transform", "[-1]", "layers_to_transform is [-1]", "from 0 on"},
        {"layers_to_transform", "[]", "layers_to_transform is []", "from 0 on"},
        {"layers_pattern", "\"h\"", "layers_pattern is \"h\"", "layers"},
        {"alpha_pattern", "{\"q_proj\":2}", "alpha_pattern is", "off"},
        {"fan_in_fan_out", "true", "fan_in_fan_out is true", "off"},
        {"target_modules", "\"all-linear\"", "target_modules is \"all-linear\"", "a list of"},
        {"use_dora", "true", "use_dora is true", "off"},
        {"bias", "\"all\"", "bias is \"all\"", "none"},
        {"modules_to_save", "[\"lm_head\"]", "modules_to_save is [\"lm_head\"]", "off"},
        {"rank_pattern", "{\"q_proj\":2}", "rank_pattern is", "off"},
        {"init_lora_weights", "\"pissa\"", "init_lora_weights is \"pissa\"", "base's weights"},
    };
    tiny_model_t spec = tiny_llama (false);
    tl_model_t *model = tiny_model_open (&spec);
    rig_t *rig = rig_new (model, 0, 0, &s_lora);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s_save (rig, s_at ("adapter"));
        s_edit (cases[i].key, cases[i].json);
        s_refused (rig, s_at ("adapter"), cases[i].one, cases[i].two);
    }
    s_refused (rig, s_at ("absent"), "absent", "give the directory");
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

static void
test_another_base_is_refused (void **state)
{
    tiny_model_t small = tiny_llama (false), wide = small, glm = tiny_chatglm ();
    tl_tune_t dense = s_lora;
    wide.inner += 8;
    tl_model_t *one = tiny_model_open (&small), *two = tiny_model_open (&wide),
               *three = tiny_model_open (&glm);
    rig_t *rig = rig_new (one, 0, 0, &s_lora), *other = rig_new (two, 0, 0, &s_lora);
    dense.target_count = 1;
    dense.targets[0] = "dense";
    rig_t *stranger = rig_new (three, 0, 0, &dense);
    s_save (rig, s_at ("adapter"));
    //  The adapter's own tensors would fit; the MLP they were trained beside doesn't.
    s_refused (other, s_at ("adapter"), "whose inner is 48", "has 56");
    //  Nor is it told to take that adapter's tune.targets, which it hasn't.
    s_refused (stranger, s_at ("adapter"), "whose family is \"llama\"", "has \"chatglm\"");
    rig_destroy (&stranger);
    rig_destroy (&other);
    rig_destroy (&rig);
    tl_model_destroy (&three);
    tl_model_destroy (&two);
    tl_model_destroy (&one);
}

static void
test_damaged_tensors_are_refused (void **state)
{
    tiny_model_t spec = tiny_llama (false);
    tl_model_t *model = tiny_model_open (&spec);
    tl_error_t err = {.text = ""};
    rig_t *rig = rig_new (model, 0, 0, &s_lora);
    const tl_tensor_t *last = tl_part_tensor (rig->parts[0], tl_part_tensors (rig->parts[0]) - 1);
    float kept = last->value[0];
    last->value[0] = NAN;
    s_save (rig, s_at ("adapter"));
    last->value[0] = kept;
    s_refused (rig, s_at ("adapter"), last->name, "not finite");
    //  A file that lacks most tensors.
    const float one[1] = {1};
    const tl_st_tensor_t lonely = {.name = "base_model.model.model.layers.0.x",
                                   .dtype = TL_ST_F32,
                                   .dimensions = 1,
                                   .shape = {1},
                                   .bytes = 4,
                                   .data = one};
    tl_safetensors_write (s_at ("adapter/adapter_model.safetensors"), 0600, &lonely, 1, NULL, &err);
    s_refused (rig, s_at ("adapter"), "has no tensor", "tune.targets and split");
    const tl_st_tensor_t foreign = {.name = "base_model.model.transformer.h.0.x",
                                    .dtype = TL_ST_F32,
                                    .dimensions = 1,
                                    .shape = {1},
                                    .bytes = 4,
                                    .data = one};
    tl_safetensors_write (s_at ("adapter/adapter_model.safetensors"), 0600, &foreign, 1, NULL,
                          &err);
    s_refused (rig, s_at ("adapter"), "transformer.h.0.x", "llama");
    tl_remove_tree (s_at ("adapter/adapter_model.safetensors"));
    s_refused (rig, s_at ("adapter"), "adapter_model.safetensors", "safe_serialization");
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

//  ---------------------------------------------------------------------------------------------
//  State

static void
s_check_state (const tiny_model_t *spec, const tl_tune_t *tune)
{
    tl_error_t err = {.text = ""};
    tl_model_t *model = tiny_model_open (spec);
    rig_t *one = s_trained (model, tune), *two = rig_new (model, 0, 0, tune);
    size_t size = 0;
    void *state = tl_part_state_get (one->parts[0], &size);
    //  What a part has accumulated doesn't survive a state being set.
    tl_batch_t *batch = tiny_batch (two->config, 9, 2, 4, 12, 0);
    tl_tape_t *tapes[3];
    uint64_t labels = 0;
    rig_forward (two, batch, 0, true, tapes);
    rig_finish (two, batch, true, tapes, NULL, &labels);
    tiny_batch_destroy (&batch);
    if (tl_part_state_set (two->parts[0], state, size, &err) != 0)
        fail_msg ("%s", err.text);
    assert_int_equal (tl_part_updates (two->parts[0]), 3);
    for (uint64_t step = 3; step < 6; step++) {
        s_train (one, step);
        s_train (two, step);
        assert_true (rig_same (one, two));
    }
    free (state);
    rig_destroy (&two);
    rig_destroy (&one);
    tl_model_destroy (&model);
}

static void
test_a_state_goes_on_bit_for_bit (void **state)
{
    tiny_model_t glm = tiny_chatglm (), llama = tiny_llama (true);
    s_check_state (&glm, &s_lora);
    s_check_state (&glm, &s_full);
    s_check_state (&llama, &s_full);
}

static void
s_state_refused (rig_t *rig, const void *state, size_t size, const char *told)
{
    tl_error_t err = {.text = ""};
    assert_int_equal (tl_part_state_set (rig->parts[0], state, size, &err), -1);
    assert_int_equal (err.code, TL_BAD_INPUT);
    if (!strstr (err.text, told))
        fail_msg ("expected '%s' in: %s", told, err.text);
}

static void
test_states_that_dont_belong (void **state)
{
    tiny_model_t spec = tiny_llama (false), other_spec = spec;
    other_spec.vocab += 8;
    tl_tune_t slower = s_lora;
    slower.dropout = 0;
    tl_model_t *model = tiny_model_open (&spec), *other_model = tiny_model_open (&other_spec);
    rig_t *rig = s_trained (model, &s_lora), *cut = rig_new (model, 1, 1, &s_lora),
          *tuned = rig_new (model, 0, 0, &slower), *other = rig_new (other_model, 0, 0, &s_lora);
    size_t size = 0;
    unsigned char *blob = tl_part_state_get (rig->parts[0], &size);
    s_state_refused (cut, blob, size, "another part");
    s_state_refused (tuned, blob, size, "\"dropout\":0.05");
    s_state_refused (other, blob, size, "manifest");
    s_state_refused (rig, "", 0, "too few");
    //  Cut anywhere, it is refused and nothing of it is taken over.
    rig_t *fresh = rig_new (model, 0, 0, &s_lora), *same = rig_new (model, 0, 0, &s_lora);
    for (size_t cut_at = 0; cut_at < size; cut_at += 97) {
        tl_error_t err;
        assert_int_equal (tl_part_state_set (fresh->parts[0], blob, cut_at, &err), -1);
    }
    assert_true (rig_same (fresh, same));
    rig_t *const rigs[] = {rig, cut, tuned, other, fresh, same};
    for (size_t i = 0; i < 6; i++) {
        rig_t *one = rigs[i];
        rig_destroy (&one);
    }
    free (blob);
    tl_model_destroy (&other_model);
    tl_model_destroy (&model);
}

//  ---------------------------------------------------------------------------------------------
//  The shared adapters that peft itself wrote

static void
test_same_directory_as_peft_writes (void **state)
{
    static const char shared[] = "../shared/golden/llama-tied";
    tl_error_t err = {.text = ""};
    if (!tl_exists (shared)) {
        printf ("skipped: %s is not there\n", shared);
        skip ();
    }
    tl_model_t *model = tl_model_open ("../shared/golden/llama-tied/model", &err);
    tl_tune_t tune = s_lora;
    const char *const targets[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
    memcpy (tune.targets, targets, sizeof targets);
    tune.target_count = 4;
    tune.dropout = 0;
    rig_t *rig = rig_new (model, 0, 0, &tune);
    s_load (rig, "../shared/golden/llama-tied/lora/init");
    s_save (rig, s_at ("adapter"));

    json_t *theirs =
        json_load_file ("../shared/golden/llama-tied/lora/init/adapter_config.json", 0, NULL);
    json_t *ours = json_load_file (s_at ("adapter/adapter_config.json"), 0, NULL);
    json_object_del (theirs, "base_model_name_or_path");
    json_object_del (ours, "base_model_name_or_path");
    if (!json_equal (theirs, ours))
        fail_msg ("expected %s\ngot %s", json_dumps (theirs, JSON_SORT_KEYS),
                  json_dumps (ours, JSON_SORT_KEYS));
    json_decref (theirs);
    json_decref (ours);

    tl_safetensors_t *a = tl_safetensors_open (
        "../shared/golden/llama-tied/lora/init/adapter_model.safetensors", &err);
    tl_safetensors_t *b = tl_safetensors_open (s_at ("adapter/adapter_model.safetensors"), &err);
    assert_int_equal (tl_safetensors_count (a), tl_safetensors_count (b));
    assert_string_equal (tl_safetensors_metadata (b, "format"), "pt");
    for (size_t i = 0; i < tl_safetensors_count (a); i++) {
        const tl_st_tensor_t *one = tl_safetensors_at (a, i), *two = tl_safetensors_at (b, i);
        assert_string_equal (one->name, two->name);
        assert_int_equal (one->bytes, two->bytes);
        assert_int_equal (one->shape[0], two->shape[0]);
        assert_memory_equal (one->data, two->data, one->bytes);
    }
    tl_safetensors_destroy (&b);
    tl_safetensors_destroy (&a);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

//  An adapter that somebody published: read as what it is, and refused on another base by name.
static void
test_a_published_adapter_is_understood (void **state)
{
    static const char shared[] = "../shared/models/chatglm3-6b-lora";
    tl_error_t err = {.text = ""};
    tl_adapter_info_t info;
    if (!tl_exists (shared)) {
        printf ("skipped: %s is not there\n", shared);
        skip ();
    }
    if (tl_adapter_info_read (&info, shared, &err) != 0)
        fail_msg ("%s", err.text);
    assert_int_equal (info.method, TL_TUNE_LORA);
    assert_int_equal (info.rank, 4);
    assert_true (info.alpha == 32 && info.dropout == 0.05 && !info.rslora && !info.layers);
    assert_int_equal (info.target_count, 1);
    assert_string_equal (info.targets[0], "query_key_value");
    assert_string_equal (info.base, "THUDM/chatglm3-6b");
    //  The family's names are these; the sizes of a tiny model are not.
    tiny_model_t glm = tiny_glm (false), llama = tiny_llama (false);
    tl_model_t *model = tiny_model_open (&glm), *other = tiny_model_open (&llama);
    tl_tune_t tune = s_lora;
    if (tl_adapter_tune (&info, model, &tune, &err) != 0)
        fail_msg ("%s", err.text);
    rig_t *rig = rig_new (model, 0, 0, &tune), *stranger = rig_new (other, 0, 0, &s_lora);
    s_refused (rig, shared, "encoder.layers.0.self_attention.query_key_value.lora_A",
               "shape [4, 4096], this part needs [4, 32]");
    s_refused (stranger, shared, "holds base_model.model.transformer.encoder.layers.0",
               "an adapter for a llama model has names that begin with");
    tl_adapter_info_clear (&info);
    rig_destroy (&stranger);
    rig_destroy (&rig);
    tl_model_destroy (&other);
    tl_model_destroy (&model);
}

//  A file may hold other parts' tensors, but none that this part has a place for and doesn't train.
static void
test_tensors_that_would_be_ignored (void **state)
{
    tiny_model_t spec = tiny_llama (false);
    tl_model_t *model = tiny_model_open (&spec);
    tl_tune_t all = s_lora, some = s_lora, whole = s_full, part = s_full;
    some.freeze[some.freeze_count++] = "blocks.1";
    part.freeze[part.freeze_count++] = "norms";
    rig_t *rig = rig_new (model, 0, 0, &all), *less = rig_new (model, 0, 0, &some);
    s_save (rig, s_at ("adapter"));
    s_refused (less, s_at ("adapter"), "layers.1.self_attn.q_proj.lora_A", "doesn't train");
    s_save (less, s_at ("less"));
    s_refused (rig, s_at ("less"), "layers_to_transform leaves out block 1", "tune.freeze");
    rig_t *full = rig_new (model, 0, 0, &whole), *most = rig_new (model, 0, 0, &part);
    s_save (full, s_at ("full"));
    s_save (most, s_at ("most"));
    s_refused (most, s_at ("full"), "layers.0.input_layernorm.weight", "doesn't train");
    s_refused (full, s_at ("most"), "has no tensor model.layers.0.input_layernorm.weight", "use");
    //  What was left out of a full tuning is known without a topology.
    tl_adapter_info_t info;
    tl_error_t err = {.text = ""};
    assert_int_equal (tl_adapter_info_read (&info, s_at ("most"), &err), 0);
    tl_tune_t read = s_full;
    assert_int_equal (tl_adapter_tune (&info, model, &read, &err), 0);
    assert_int_equal (read.freeze_count, 1);
    assert_string_equal (read.freeze[0], "norms");
    rig_t *again = rig_new (model, 0, 0, &read);
    s_load (again, s_at ("most"));
    assert_true (rig_same (most, again));
    tl_adapter_info_clear (&info);
    rig_t *const rigs[] = {rig, less, full, most, again};
    for (size_t i = 0; i < 5; i++) {
        rig_t *one = rigs[i];
        rig_destroy (&one);
    }
    tl_model_destroy (&model);
}

int
main (void)
{
    tl_kernels_use (1);
#define CASE(name) cmocka_unit_test_setup_teardown (name, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        CASE (test_lora_round_trip),
        CASE (test_prefix_round_trip),
        CASE (test_a_parts_prefix_has_its_own_blocks),
        CASE (test_full_tuning_saves_a_model),
        CASE (test_settings_that_differ_are_refused),
        CASE (test_another_base_is_refused),
        CASE (test_damaged_tensors_are_refused),
        CASE (test_a_state_goes_on_bit_for_bit),
        CASE (test_states_that_dont_belong),
        CASE (test_tensors_that_would_be_ignored),
        CASE (test_same_directory_as_peft_writes),
        CASE (test_a_published_adapter_is_understood),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
