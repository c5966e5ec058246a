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

//  What ChatGLM2 and 3 were released with, made small.
static const char s_chatglm3[] =
    "{\"model_type\":\"chatglm\",\"add_bias_linear\":false,\"add_qkv_bias\":true,"
    "\"apply_query_key_layer_scaling\":true,\"apply_residual_connection_post_layernorm\":false,"
    "\"attention_dropout\":0.0,\"attention_softmax_in_fp32\":true,\"bias_dropout_fusion\":true,"
    "\"ffn_hidden_size\":24,\"fp32_residual_connection\":false,\"hidden_dropout\":0.0,"
    "\"hidden_size\":16,\"kv_channels\":8,\"layernorm_epsilon\":1e-05,"
    "\"multi_query_attention\":true,\"multi_query_group_num\":2,\"num_attention_heads\":2,"
    "\"num_layers\":2,\"original_rope\":true,\"padded_vocab_size\":40,\"post_layer_norm\":true,"
    "\"quantization_bit\":0,\"pre_seq_len\":null,\"prefix_projection\":false,\"rmsnorm\":true,"
    "\"seq_length\":64,\"use_cache\":true,\"torch_dtype\":\"float16\","
    "\"tie_word_embeddings\":false,\"eos_token_id\":2,\"pad_token_id\":0}";
//  GLM-4 as converted by Hugging Face; qwen2 and mistral as released.
static const char s_glm[] =
    "{\"model_type\":\"glm\",\"attention_bias\":true,\"attention_dropout\":0.0,"
    "\"eos_token_id\":[36,37,38],\"head_dim\":8,\"hidden_act\":\"silu\",\"hidden_size\":16,"
    "\"intermediate_size\":24,\"max_position_embeddings\":64,\"num_attention_heads\":2,"
    "\"num_hidden_layers\":2,\"num_key_value_heads\":1,\"pad_token_id\":36,"
    "\"partial_rotary_factor\":0.5,\"rms_norm_eps\":1.5625e-07,\"rope_theta\":5000000.0,"
    "\"tie_word_embeddings\":false,\"vocab_size\":40}";
static const char s_qwen2[] =
    "{\"model_type\":\"qwen2\",\"attention_dropout\":0.0,\"bos_token_id\":33,\"eos_token_id\":35,"
    "\"hidden_act\":\"silu\",\"hidden_size\":16,\"intermediate_size\":24,"
    "\"max_position_embeddings\":64,\"max_window_layers\":1,\"num_attention_heads\":4,"
    "\"num_hidden_layers\":2,\"num_key_value_heads\":2,\"rms_norm_eps\":1e-06,"
    "\"rope_theta\":1000000.0,\"sliding_window\":32,\"tie_word_embeddings\":true,"
    "\"use_sliding_window\":false,\"vocab_size\":40}";
static const char s_mistral[] =
    "{\"model_type\":\"mistral\",\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_act\":\"silu\","
    "\"hidden_size\":16,\"intermediate_size\":24,\"max_position_embeddings\":64,"
    "\"num_attention_heads\":4,\"num_hidden_layers\":2,\"num_key_value_heads\":2,"
    "\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,\"sliding_window\":null,"
    "\"tie_word_embeddings\":false,\"vocab_size\":40}";

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
    const char *const configs[] = {s_chatglm, s_chatglm3, s_glm, s_llama, s_mistral, s_qwen2};
    for (size_t i = 0; i < 6; i++) {
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
        assert_string_equal (strrchr (slot.name, '.'), ".weight");
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
test_families_have_their_own_tensors (void **state)
{
    s_make (s_chatglm3,
            &(fault_t){.misshapen = "transformer.encoder.layers.1.mlp.dense_h_to_4h.weight"});
    s_refused ("dense_h_to_4h.weight has shape [49, 16]", "asks for [48, 16]");
    s_make (s_chatglm3, &(fault_t){.missing = "transformer.output_layer.weight"});
    s_refused ("transformer.output_layer.weight", "glm model");
    s_make (s_chatglm3, &(fault_t){.extra = "transformer.prefix_encoder.embedding.weight"});
    s_refused ("prefix_encoder", "has no place");
    s_make (s_glm, &(fault_t){.missing = "model.layers.1.mlp.gate_up_proj.weight"});
    s_refused ("gate_up_proj.weight", "glm model");
    s_make (s_qwen2, &(fault_t){.missing = "model.layers.0.self_attn.v_proj.bias"});
    s_refused ("v_proj.bias", "qwen2 model");
    //  A gate of its own beside the joined one would be another model.
    s_make (s_glm, &(fault_t){.extra = "model.layers.0.mlp.gate_proj.weight"});
    s_refused ("gate_proj.weight", "has no place");
}

static void
test_buffers_and_strangers_are_left_alone (void **state)
{
    tl_error_t err = {0};
    static const struct {
        const char *config, *tensor;
    } extras[] = {{s_chatglm, "transformer.rotary_pos_emb.inv_freq"},
                  {s_chatglm, "lm_head.weight"},
                  {s_chatglm, "score.weight"},
                  {s_chatglm3, "transformer.rotary_pos_emb.inv_freq"},
                  {s_qwen2, "lm_head.weight"}};
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        s_make (extras[i].config, &(fault_t){.extra = extras[i].tensor});
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
        {s_llama, "\"llama\"", "\"glm4\"", "model_type \"glm4\"", "model_type llama"},
        {s_llama, "{", "{\"rope_interleaved\":true,", "rope_interleaved true", "not supported"},
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
        {s_chatglm, "{", "{\"multi_query_attention\":true,", "position_encoding_2d true",
         "not supported"},
        {s_chatglm3, "_bit\":0", "_bit\":4", "quantization_bit 4", "not supported"},
        {s_chatglm3, "len\":null", "len\":128", "pre_seq_len 128", "not supported"},
        {s_chatglm3, "projection\":false", "projection\":true", "prefix_projection true",
         "not supported"},
        {s_chatglm3, "linear\":false", "linear\":true", "add_bias_linear true", "not supported"},
        {s_chatglm3, "rmsnorm\":true", "rmsnorm\":false", "rmsnorm false", "not supported"},
        {s_chatglm3, "norm\":true", "norm\":false", "post_layer_norm false", "not supported"},
        {s_chatglm3, "rope\":true", "rope\":false", "original_rope false", "not supported"},
        {s_chatglm3, "attention\":true", "attention\":false", "multi_query_attention false",
         "not supported"},
        {s_chatglm3, "\"multi_query_attention\":true,", "", "multi_query_attention is missing",
         "expected true"},
        {s_chatglm3, "embeddings\":false", "embeddings\":true", "tie_word_embeddings true",
         "not supported"},
        {s_chatglm3, "{", "{\"vision_config\":{},", "vision_config", "not supported"},
        {s_chatglm3, "group_num\":2", "group_num\":3", "multi_query_group_num is 3", "divisor"},
        {s_chatglm3, "channels\":8", "channels\":6", "kv_channels is 6", "multiple of 4"},
        {s_chatglm3, "{", "{\"_name_or_path\":\"x/chatglm2-6b-32k\",\"rope_ratio\":4,",
         "rope_ratio 4", "not supported"},
        {s_glm, "factor\":0.5", "factor\":1.0", "partial_rotary_factor 1.0", "not supported"},
        {s_glm, "[36,37,38]", "[36,37,40]", "eos_token_id is [36,37,40]", "below vocab_size 40"},
        {s_glm, "[36,37,38]", "[1,2,3,4,5,6,7,8,9]", "eos_token_id", "at most 8"},
        {s_glm, "head_dim\":8", "head_dim\":6", "head_dim is 6", "multiple of 4"},
        {s_mistral, "window\":null", "window\":63", "sliding_window 63", "not supported"},
        //  Mistral's class has a window of 4096 when the key is absent.
        {s_mistral,
         "64,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"num_key_value_heads\":2,"
         "\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,\"sliding_window\":null,",
         "8192,\"num_attention_heads\":4,\"num_hidden_layers\":2,\"num_key_value_heads\":2,",
         "sliding_window", "not supported"},
        {s_qwen2, "use_sliding_window\":false", "use_sliding_window\":true", "sliding_window 32",
         "not supported"},
        {s_qwen2, "{", "{\"layer_types\":[\"full_attention\",\"sliding_attention\"],",
         "layer_types", "sliding_attention"},
        {s_qwen2, "\"num_key_value_heads\":2,", "", "num_key_value_heads is missing", "divisor"},
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

static void
s_parse (const char *text, const char *from, const char *to, tl_config_t *config)
{
    tl_error_t err = {0};
    char *json = s_replaced (text, from, to);
    if (tl_config_parse ("c", json, strlen (json), config, &err) != 0)
        fail_msg ("%s", err.text);
    free (json);
}

static void
test_what_the_later_families_mean (void **state)
{
    tl_config_t config;
    s_parse (s_chatglm3, "{", "{", &config);
    assert_int_equal (config.family, TL_FAMILY_GLM);
    assert_int_equal (config.names, TL_NAMES_CHATGLM2);
    assert_true (config.turned == 4 && config.rope_style == TL_ROPE_INTERLEAVED && !config.tied);
    assert_true (config.rope_base == 10000 && config.qkv_bias && config.kv_heads == 2);
    //  GLM-4: another base and epsilon, several ends.
    s_parse (s_chatglm3, "\"eos_token_id\":2", "\"rope_ratio\":500,\"eos_token_id\":[7,8,9]",
             &config);
    assert_true (config.rope_base == 5000000);
    assert_int_equal (config.eos, 7);
    assert_true (tl_config_is_end (&config, 7) && tl_config_is_end (&config, 9));
    assert_false (tl_config_is_end (&config, 10) || tl_config_is_end (&config, -1));
    s_parse (s_glm, "{", "{", &config);
    assert_int_equal (config.family, TL_FAMILY_GLM);
    assert_int_equal (config.names, TL_NAMES_HF);
    assert_true (config.turned == 4 && config.rope_style == TL_ROPE_INTERLEAVED);
    assert_true (config.norm_eps == 1.5625e-7 && config.end_count == 2 && config.bos == -1);
    s_parse (s_glm, "\"attention_bias\":true,", "", &config);
    assert_false (config.qkv_bias); //  the class's default
    s_parse (s_qwen2, "{", "{", &config);
    assert_true (config.family == TL_FAMILY_QWEN2 && config.qkv_bias && config.tied);
    assert_true (config.bos == 33 && config.eos == 35 && config.rope_style == TL_ROPE_HALF);
    s_parse (s_mistral, "window\":null", "window\":64", &config);
    assert_true (config.family == TL_FAMILY_LLAMA && !config.qkv_bias);
    s_parse (s_mistral, "\"sliding_window\":null,", "", &config); //  4096 of the class: long enough
    char targets[128];
    tl_layout_linears (&config, targets, sizeof targets);
    assert_string_equal (targets, "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj");
}

//  The figures of models as they were released, and what they come to.
static void
test_released_models (void **state)
{
    static const struct {
        const char *json;
        tl_family_t family;
        size_t vocab, kv_heads, turned, ends;
        int32_t eos;
        double base;
    } models[] = {
        {"{\"model_type\":\"chatglm\",\"bos_token_id\":130004,\"eos_token_id\":130005,"
         "\"mask_token_id\":130000,\"gmask_token_id\":130001,\"pad_token_id\":3,"
         "\"hidden_size\":4096,\"inner_hidden_size\":16384,\"layernorm_epsilon\":1e-05,"
         "\"max_sequence_length\":2048,\"num_attention_heads\":32,\"num_layers\":28,"
         "\"position_encoding_2d\":true,\"vocab_size\":130528,\"quantization_bit\":0,"
         "\"prefix_projection\":false,\"pre_seq_len\":null}",
         TL_FAMILY_CHATGLM, 130528, 32, 128, 0, 130005, 10000},
        {"{\"model_type\":\"chatglm\",\"_name_or_path\":\"glm-4-9b-chat\",\"add_qkv_bias\":true,"
         "\"multi_query_attention\":true,\"multi_query_group_num\":2,\"kv_channels\":128,"
         "\"num_attention_heads\":32,\"num_layers\":40,\"hidden_size\":4096,"
         "\"ffn_hidden_size\":13696,\"padded_vocab_size\":151552,\"rope_ratio\":500,"
         "\"seq_length\":131072,\"layernorm_epsilon\":1.5625e-07,"
         "\"eos_token_id\":[151329,151336,151338],\"pad_token_id\":151329}",
         TL_FAMILY_GLM, 151552, 2, 64, 2, 151329, 5000000},
        {"{\"model_type\":\"qwen2\",\"bos_token_id\":151643,\"eos_token_id\":151645,"
         "\"hidden_size\":3584,\"intermediate_size\":18944,\"max_position_embeddings\":32768,"
         "\"max_window_layers\":28,\"num_attention_heads\":28,\"num_hidden_layers\":28,"
         "\"num_key_value_heads\":4,\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,"
         "\"sliding_window\":131072,\"tie_word_embeddings\":false,\"use_sliding_window\":false,"
         "\"vocab_size\":152064}",
         TL_FAMILY_QWEN2, 152064, 4, 128, 0, 151645, 1000000},
        {"{\"model_type\":\"mistral\",\"bos_token_id\":1,\"eos_token_id\":2,\"hidden_size\":4096,"
         "\"intermediate_size\":14336,\"max_position_embeddings\":32768,"
         "\"num_attention_heads\":32,\"num_hidden_layers\":32,\"num_key_value_heads\":8,"
         "\"rms_norm_eps\":1e-05,\"rope_theta\":1000000.0,\"sliding_window\":null,"
         "\"vocab_size\":32768}",
         TL_FAMILY_LLAMA, 32768, 8, 128, 0, 2, 1000000},
        {"{\"model_type\":\"llama\",\"attention_bias\":false,\"bos_token_id\":1,"
         "\"eos_token_id\":2,\"hidden_size\":576,\"intermediate_size\":1536,"
         "\"is_llama_config\":true,\"max_position_embeddings\":8192,\"num_attention_heads\":9,"
         "\"num_hidden_layers\":30,\"num_key_value_heads\":3,\"pretraining_tp\":1,"
         "\"rms_norm_eps\":1e-05,\"rope_interleaved\":false,\"rope_scaling\":null,"
         "\"rope_theta\":100000,\"tie_word_embeddings\":true,\"vocab_size\":49152}",
         TL_FAMILY_LLAMA, 49152, 3, 64, 0, 2, 100000},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        tl_config_t config;
        tl_error_t err = {0};
        if (tl_config_parse ("c", models[i].json, strlen (models[i].json), &config, &err) != 0)
            fail_msg ("%s", err.text);
        assert_int_equal (config.family, models[i].family);
        assert_int_equal (config.vocab, models[i].vocab);
        assert_int_equal (config.kv_heads, models[i].kv_heads);
        assert_int_equal (config.turned, models[i].turned);
        assert_int_equal (config.eos, models[i].eos);
        assert_int_equal (config.end_count, models[i].ends);
        assert_true (config.rope_base == models[i].base);
    }
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
        cmocka_unit_test (test_what_the_later_families_mean),
        cmocka_unit_test (test_released_models),
        cmocka_unit_test_setup_teardown (test_families_have_their_own_tensors, s_setup, s_teardown),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
