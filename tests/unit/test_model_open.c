//  Model directories: a good one opens, every bad one gets a sentence that names the file and the field or
//  tensor. The directories are made here, from the layout that the engine itself asks for.

#include "unit/cmocka_all.h"

#include "model/config.h"
#include "model/internal.h"
#include "model/safetensors.h"

#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char s_root[256];

static const char s_chatglm[] =
    "{\"model_type\":\"chatglm\",\"position_encoding_2d\":true,\"vocab_size\":40,\"hidden_size\":"
    "16,"
    "\"num_layers\":2,\"num_attention_heads\":2,\"inner_hidden_size\":24,\"layernorm_epsilon\":1e-"
    "05,"
    "\"max_sequence_length\":64,\"mask_token_id\":30,\"gmask_token_id\":31,\"bos_token_id\":34,"
    "\"eos_token_id\":35,\"pad_token_id\":3}";
static const char s_llama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":40,\"hidden_size\":16,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"intermediate_size\":24,"
    "\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-05,\"max_position_embeddings\":64,"
    "\"rope_theta\":10000.0,\"tie_word_embeddings\":false}";

//  What is wrong with the weights of a directory that s_make writes.
typedef struct {
    const char *missing;   //  this tensor is left out
    const char *misshapen; //  this one gets a row too many
    const char *integer;   //  this one is stored as I32
    const char *extra;     //  this one is added
    size_t cut;            //  so many bytes are missing at the end
} fault_t;

static int
s_setup (void **state)
{
    snprintf (s_root, sizeof s_root, "/tmp/tl-model-XXXXXX");
    return mkdtemp (s_root) ? 0 : -1;
}

static int
s_teardown (void **state)
{
    return tl_remove_tree (s_root);
}

static void
s_put (const char *name, const void *data, size_t size)
{
    tl_error_t err = {0};
    char *path = tl_format ("%s/%s", s_root, name);
    if (tl_file_write (path, data, size, 0644, &err) != 0)
        fail_msg ("%s", err.text);
    free (path);
}

static void
s_remove (const char *name)
{
    char *path = tl_format ("%s/%s", s_root, name);
    unlink (path);
    free (path);
}

static bool
s_is (const char *wanted, const char *name)
{
    return wanted && strcmp (wanted, name) == 0;
}

//  The tensors [first, last) of the layout, all zeros, into one file.
static void
s_weights (const char *file, const tl_config_t *config, size_t first, size_t last,
           const fault_t *fault)
{
    static const float zeros[41 * 48];
    static tl_slot_t slots[64];
    tl_st_tensor_t tensors[65];
    size_t count = 0;
    for (size_t i = first; i < last; i++) {
        tl_slot_t *slot = &slots[i];
        tl_layout_at (config, i, slot);
        if (s_is (fault->missing, slot->name))
            continue;
        size_t rows = slot->rows + (s_is (fault->misshapen, slot->name) ? 1 : 0);
        assert_true (rows * slot->columns <= 41 * 48);
        tensors[count++] =
            (tl_st_tensor_t){.name = slot->name,
                             .dtype = s_is (fault->integer, slot->name) ? TL_ST_I32 : TL_ST_F32,
                             .dimensions = slot->vector ? 1 : 2,
                             .shape = {rows, slot->columns},
                             .bytes = rows * slot->columns * 4,
                             .data = zeros};
    }
    if (fault->extra)
        tensors[count++] = (tl_st_tensor_t){.name = fault->extra,
                                            .dtype = TL_ST_F32,
                                            .dimensions = 1,
                                            .shape = {8},
                                            .bytes = 32,
                                            .data = zeros};
    size_t size = 0;
    void *data = tl_safetensors_serialise (tensors, count, NULL, &size);
    s_put (file, data, size - fault->cut);
    free (data);
}

static void
s_make (const char *json, const fault_t *fault)
{
    static const fault_t none;
    tl_error_t err = {0};
    tl_config_t config;
    assert_int_equal (tl_config_parse ("test", json, strlen (json), &config, &err), 0);
    s_put ("config.json", json, strlen (json));
    s_weights ("model.safetensors", &config, 0, tl_layout_count (&config), fault ? fault : &none);
}

//  Opening the directory must fail with sentences that contain both texts.
static void
s_refused (const char *one, const char *two)
{
    tl_error_t err = {0};
    tl_model_t *model = tl_model_open (s_root, &err);
    if (model)
        fail_msg ("opened, expected a sentence with '%s' and '%s'", one, two);
    assert_int_equal (err.code, TL_BAD_INPUT);
    if (!strstr (err.text, one) || !strstr (err.text, two))
        fail_msg ("expected '%s' and '%s' in: %s", one, two, err.text);
}

static void
test_good_directories_open (void **state)
{
    const char *const configs[] = {s_chatglm, s_llama};
    for (size_t i = 0; i < 2; i++) {
        tl_error_t err = {0};
        s_make (configs[i], NULL);
        tl_model_t *model = tl_model_open (s_root, &err);
        if (!model)
            fail_msg ("%s", err.text);
        assert_int_equal (tl_model_config (model)->hidden, 16);
        assert_int_equal (strlen (tl_model_manifest_hash (model)), 64);
        assert_non_null (strstr (tl_model_manifest (model), "\"vocab\":40"));
        tl_weight_t weight;
        tl_slot_t slot;
        tl_layout_at (tl_model_config (model), 0, &slot);
        assert_int_equal (tl_model_weight (model, slot.name, 40, 16, &weight, &err), 0);
        assert_int_equal (weight.dtype, TL_F32);
        assert_int_equal (tl_model_weight (model, slot.name, 41, 16, &weight, &err), -1);
        assert_non_null (strstr (err.text, "has shape [40, 16], config.json asks for [41, 16]"));
        tl_model_destroy (&model);
        tl_model_destroy (&model);
    }
}

static void
test_manifest_tells_models_apart (void **state)
{
    tl_error_t err = {0};
    char one[65], two[65];
    s_make (s_llama, NULL);
    tl_model_t *model = tl_model_open (s_root, &err);
    strcpy (one, tl_model_manifest_hash (model));
    tl_model_destroy (&model);
    //  Keys in another order and keys that change nothing give the same manifest.
    char *same = tl_format ("{\"use_cache\":false,%s", s_llama + 1);
    s_make (same, NULL);
    model = tl_model_open (s_root, &err);
    assert_string_equal (tl_model_manifest_hash (model), one);
    tl_model_destroy (&model);
    free (same);
    s_make (s_chatglm, NULL);
    model = tl_model_open (s_root, &err);
    strcpy (two, tl_model_manifest_hash (model));
    tl_model_destroy (&model);
    assert_string_not_equal (one, two);
}

static void
test_weights_that_contradict_the_config (void **state)
{
    s_make (s_llama, &(fault_t){.missing = "model.layers.1.mlp.up_proj.weight"});
    s_refused ("model.safetensors has no tensor", "model.layers.1.mlp.up_proj.weight");
    s_make (s_llama, &(fault_t){.misshapen = "model.layers.0.self_attn.k_proj.weight"});
    s_refused ("k_proj.weight has shape [9, 16]", "config.json asks for [8, 16]");
    s_make (s_chatglm, &(fault_t){.misshapen = "transformer.final_layernorm.bias"});
    s_refused ("transformer.final_layernorm.bias has shape [17]", "asks for [16]");
    s_make (s_llama, &(fault_t){.integer = "model.norm.weight"});
    s_refused ("model.norm.weight has dtype I32", "F32, F16 or BF16");
    s_make (s_llama, &(fault_t){.cut = 10});
    s_refused ("model.safetensors", "truncated");
    //  A Llama with biases (Qwen2 under another name) would compute something else.
    s_make (s_llama, &(fault_t){.extra = "model.layers.0.self_attn.q_proj.bias"});
    s_refused ("model.layers.0.self_attn.q_proj.bias", "has no place");
}

static void
test_buffers_and_strangers_are_left_alone (void **state)
{
    tl_error_t err = {0};
    const char *const extras[] = {"transformer.rotary_pos_emb.inv_freq", "lm_head.weight",
                                  "score.weight"};
    for (size_t i = 0; i < 3; i++) {
        s_make (s_chatglm, &(fault_t){.extra = extras[i]});
        tl_model_t *model = tl_model_open (s_root, &err);
        if (!model)
            fail_msg ("%s", err.text);
        tl_model_destroy (&model);
    }
}

static void
test_missing_files (void **state)
{
    s_remove ("config.json");
    s_remove ("model.safetensors");
    s_refused (s_root, "has no config.json");
    s_put ("config.json", s_llama, strlen (s_llama));
    s_refused (s_root, "neither model.safetensors nor model.safetensors.index.json");
    s_put ("config.json", "{]", 2);
    s_refused ("config.json:1:", "not valid JSON");
    s_put ("config.json", "[]", 2);
    s_refused ("config.json", "not a JSON object");
}

//  Two shards; the index text is made from a template with the name of the first shard.
static void
s_make_shards (const char *name, const fault_t *fault)
{
    tl_error_t err = {0};
    tl_config_t config;
    s_remove ("model.safetensors");
    tl_config_parse ("test", s_llama, strlen (s_llama), &config, &err);
    s_put ("config.json", s_llama, strlen (s_llama));
    size_t count = tl_layout_count (&config), half = count / 2;
    static const fault_t none;
    s_weights ("model-1.safetensors", &config, 0, half, &none);
    s_weights ("model-2.safetensors", &config, half, count, fault ? fault : &none);
    char *index = tl_strdup ("{\"weight_map\":{");
    for (size_t i = 0; i < count; i++) {
        tl_slot_t slot;
        tl_layout_at (&config, i, &slot);
        char *longer = tl_format ("%s%s\"%s\":\"%s\"", index, i ? "," : "", slot.name,
                                  i < half ? name : "model-2.safetensors");
        free (index);
        index = longer;
    }
    char *whole = tl_format ("%s}}", index);
    s_put ("model.safetensors.index.json", whole, strlen (whole));
    free (whole);
    free (index);
}

static void
test_shards (void **state)
{
    tl_error_t err = {0};
    s_make_shards ("model-1.safetensors", NULL);
    tl_model_t *model = tl_model_open (s_root, &err);
    if (!model)
        fail_msg ("%s", err.text);
    tl_model_destroy (&model);

    s_make_shards ("model-1.safetensors", &(fault_t){.cut = 4});
    s_refused ("model-2.safetensors", "truncated");
    s_make_shards ("model-1.safetensors", &(fault_t){.missing = "model.norm.weight"});
    s_refused ("model-2.safetensors has no tensor", "model.norm.weight");
    s_make_shards ("../model-1.safetensors", NULL);
    s_refused ("'../model-1.safetensors'", "plain name");
    s_make_shards ("/etc/passwd", NULL);
    s_refused ("'/etc/passwd'", "plain name");
    s_make_shards ("absent.safetensors", NULL);
    s_refused ("absent.safetensors", "model.embed_tokens.weight");
    s_put ("model.safetensors.index.json", "{}", 2);
    s_refused ("index.json", "weight_map");
}

//  text with its first occurrence of from replaced by to; the caller frees.
static char *
s_replaced (const char *text, const char *from, const char *to)
{
    const char *at = strstr (text, from);
    assert_non_null (at);
    return tl_format ("%.*s%s%s", (int)(at - text), text, to, at + strlen (from));
}

static void
test_configs_that_are_not_computed (void **state)
{
    static const struct {
        const char *config, *from, *to, *one, *two;
    } cases[] = {
        {s_llama, "\"llama\"", "\"qwen2\"", "model_type \"qwen2\"", "model_type llama"},
        {s_llama, "\"silu\"", "\"gelu\"", "hidden_act \"gelu\"", "this version reads"},
        {s_llama, "{", "{\"attention_bias\":true,", "attention_bias true", "this version reads"},
        {s_llama, "{", "{\"sliding_window\":4096,", "sliding_window 4096", "not supported"},
        {s_llama, "{", "{\"quantization_config\":{\"bits\":4},", "quantization_config", "bits"},
        {s_llama, "{", "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2.0},", "rope_scaling",
         "yarn"},
        {s_llama, "{", "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0},",
         "low_freq_factor is missing", "rope_scaling"},
        {s_llama, "{", "{\"rope_scaling\":\"llama3\",", "rope_scaling is \"llama3\"", "expected"},
        {s_llama, "\"hidden_size\":16", "\"hidden_size\":0", "hidden_size is 0", "whole number"},
        {s_llama, "\"hidden_size\":16", "\"hidden_size\":9223372036854775807",
         "hidden_size is 9223372036854775807", "262144"},
        {s_llama, "\"hidden_size\":16", "\"hidden_size\":\"16\"", "hidden_size is \"16\"",
         "whole number"},
        {s_llama, "\"vocab_size\":40,", "", "vocab_size is missing", "correct the file"},
        {s_llama, "_value_heads\":2", "_value_heads\":3", "num_key_value_heads is 3", "divisor"},
        {s_llama, "\"num_attention_heads\":4", "\"num_attention_heads\":16",
         "num_attention_heads is 16", "multiple of 2"},
        {s_llama, "\"rms_norm_eps\":1e-05", "\"rms_norm_eps\":-1", "rms_norm_eps is -1", "number"},
        {s_llama, "{", "{\"eos_token_id\":40,", "eos_token_id is 40", "below vocab_size 40"},
        {s_chatglm, "\"position_encoding_2d\":true", "\"multi_query_attention\":true",
         "multi_query_attention", "ChatGLM2 or ChatGLM3"},
        {s_chatglm, "2d\":true", "2d\":false", "position_encoding_2d false", "not supported"},
        {s_chatglm, "{", "{\"quantization_bit\":4,", "quantization_bit 4", "not supported"},
        {s_chatglm, "{", "{\"pre_seq_len\":128,", "pre_seq_len 128", "not supported"},
        {s_chatglm, "\"gmask_token_id\":31,", "", "gmask_token_id is missing", "[gMASK]"},
        {s_chatglm, "\"num_attention_heads\":2", "\"num_attention_heads\":3",
         "num_attention_heads is 3", "divisor"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *json = s_replaced (cases[i].config, cases[i].from, cases[i].to);
        s_put ("config.json", json, strlen (json));
        s_refused (cases[i].one, cases[i].two);
        free (json);
    }
}

static void
test_what_configs_mean (void **state)
{
    tl_error_t err = {0};
    tl_config_t config;
    assert_int_equal (tl_config_parse ("c", s_chatglm, strlen (s_chatglm), &config, &err), 0);
    assert_true (config.tied); //  ChatGLM's default
    assert_int_equal (config.sop, 34);
    assert_true (config.alpha > 7.4833 && config.alpha < 7.4834); //  sqrt (2 x 28), not 2 x 2
    char *json = s_replaced (s_chatglm, "{", "{\"alpha_num_layers\":3,");
    assert_int_equal (tl_config_parse ("c", json, strlen (json), &config, &err), 0);
    assert_true (config.alpha > 2.4494 && config.alpha < 2.4495);
    free (json);
    json = s_replaced (s_llama, ",\"tie_word_embeddings\":false",
                       ",\"eos_token_id\":[7,8],\"rope_parameters\":{\"rope_type\":\"default\","
                       "\"rope_theta\":500000.0}");
    assert_int_equal (tl_config_parse ("c", json, strlen (json), &config, &err), 0);
    assert_false (config.tied); //  Llama's default
    assert_int_equal (config.eos, 7);
    assert_true (config.rope_base == 500000.0 && !config.rope_llama3 && config.alpha == 1);
    free (json);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown (test_good_directories_open, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_manifest_tells_models_apart, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_weights_that_contradict_the_config, s_setup,
                                         s_teardown),
        cmocka_unit_test_setup_teardown (test_buffers_and_strangers_are_left_alone, s_setup,
                                         s_teardown),
        cmocka_unit_test_setup_teardown (test_missing_files, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_shards, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_configs_that_are_not_computed, s_setup, s_teardown),
        cmocka_unit_test (test_what_configs_mean),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
