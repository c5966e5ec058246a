//  gguf_config: a table of keys, and one of names.

#include "gguf_config.h"

#include "config.h"

#include "memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    S_WHOLE,
    S_REAL,
    S_HEAD_DIM, //  whole; must be the same wherever it is said
    S_PASS      //  known, not used: told by the tensors, or of no effect here
} s_kind_t;

typedef struct {
    const char *key; //  after "ARCHITECTURE."
    const char *hf;  //  in config.json
    s_kind_t kind;
    bool needed;
} s_key_t;

//  Of every architecture.
static const s_key_t s_keys[] = {{"block_count", "num_hidden_layers", S_WHOLE, true},
                                 {"embedding_length", "hidden_size", S_WHOLE, true},
                                 {"feed_forward_length", "intermediate_size", S_WHOLE, true},
                                 {"context_length", "max_position_embeddings", S_WHOLE, true},
                                 {"attention.head_count", "num_attention_heads", S_WHOLE, true},
                                 {"attention.head_count_kv", "num_key_value_heads", S_WHOLE, false},
                                 {"attention.layer_norm_rms_epsilon", "rms_norm_eps", S_REAL, true},
                                 {"attention.key_length", "head_dim", S_HEAD_DIM, false},
                                 {"attention.value_length", "head_dim", S_HEAD_DIM, false},
                                 {"rope.freq_base", "rope_theta", S_REAL, false},
                                 {"rope.dimension_count", NULL, S_PASS, false}, //  s_check_turned
                                 {"rope.scaling.original_context_length", NULL, S_PASS, false},
                                 {"rope.scaling.finetuned", NULL, S_PASS, false},
                                 {"vocab_size", NULL, S_PASS, false},
                                 {"tensor_data_layout", NULL, S_PASS, false},
                                 {NULL, NULL, S_PASS, false}};

//  ChatGLM2's own words for the same, where it has them.
static const char *const s_chatglm2[][2] = {
    {"num_hidden_layers", "num_layers"},       {"intermediate_size", "ffn_hidden_size"},
    {"max_position_embeddings", "seq_length"}, {"num_key_value_heads", "multi_query_group_num"},
    {"rms_norm_eps", "layernorm_epsilon"},     {"head_dim", "kv_channels"},
    {"vocab_size", "padded_vocab_size"},
};

typedef struct {
    const char *name; //  general.architecture
    const char *type; //  model_type
    bool half;        //  rotary turns half of a head
} s_architecture_t;

static const s_architecture_t s_architectures[] = {
    {"llama", "llama", false}, {"qwen2", "qwen2", false}, {"chatglm", "glm", true}};
enum { ARCHITECTURES = sizeof s_architectures / sizeof *s_architectures };

typedef struct {
    const tl_gguf_t *gguf;
    const s_architecture_t *architecture;
    json_t *config; //  being made
    tl_error_t *err;
} s_reader_t;

//  ---------------------------------------------------------------------------------------------
//  Metadata

//  The decimal number that was meant by an fp32: 1e-05 and not 9.99999974e-06.
static double
s_meant (double stored)
{
    char text[40];
    if (!isfinite (stored) || (double)(float)stored != stored)
        return stored;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf (text, sizeof text, "%.*g", digits, stored);
        if (strtof (text, NULL) == (float)stored)
            break;
    }
    return strtod (text, NULL);
}

static int
s_refuse (const s_reader_t *self, const char *key, const char *wanted)
{
    const tl_gguf_value_t *value = tl_gguf_find (self->gguf, key);
    char shown[64] = "missing";
    double number = 0;
    if (value && !value->array && tl_gguf_real (value, 0, &number))
        snprintf (shown, sizeof shown, "%g", number);
    else if (value)
        snprintf (shown, sizeof shown, "%s%s", value->array ? "an array of " : "a ",
                  tl_gguf_type_name (value->type));
    return tl_fail (self->err, TL_BAD_INPUT,
                    "%s: %s is %s, expected %s; take the model from another place or convert it "
                    "again",
                    tl_gguf_path (self->gguf), key, shown, wanted);
}

static int
s_read_key (const s_reader_t *self, const s_key_t *entry)
{
    char key[128];
    double number = 0;
    snprintf (key, sizeof key, "%s.%s", self->architecture->name, entry->key);
    const tl_gguf_value_t *value = tl_gguf_find (self->gguf, key);
    if (!value && !entry->needed)
        return 0;
    bool whole = entry->kind != S_REAL;
    bool good = value && !value->array && tl_gguf_real (value, 0, &number) && isfinite (number);
    if (!good || (whole && (number < 1 || number > 1e9 || number != rint (number))))
        return s_refuse (self, key, whole ? "one whole number from 1 on" : "a number");
    const json_t *before = json_object_get (self->config, entry->hf);
    if (before && json_number_value (before) != number)
        return s_refuse (self, key, "the width of a head (attention.key_length and value_length)");
    json_object_set_new (self->config, entry->hf,
                         whole ? json_integer ((json_int_t)number) : json_real (s_meant (number)));
    return 0;
}

//  Rotary turns all of a head, ChatGLM's half of it; nothing else is computed here.
static int
s_check_turned (const s_reader_t *self, json_int_t head_dim)
{
    char key[64];
    double number = 0;
    bool half = self->architecture->half;
    snprintf (key, sizeof key, "%s.rope.dimension_count", self->architecture->name);
    const tl_gguf_value_t *value = tl_gguf_find (self->gguf, key);
    if (!value || (tl_gguf_real (value, 0, &number) && (half ? 2 : 1) * number == (double)head_dim))
        return 0;
    return s_refuse (self, key, half ? "half the width of a head" : "the width of a head");
}

static bool
s_off (const tl_gguf_value_t *value)
{
    double number = 0;
    bool flag = false;
    tl_gguf_text_t text;
    if (value->array)
        return value->count == 0;
    if (tl_gguf_flag (value, 0, &flag))
        return !flag;
    if (tl_gguf_text (value, 0, &text))
        return text.size == 0 || tl_gguf_text_is (text, "none");
    return tl_gguf_real (value, 0, &number) && number == 0;
}

//  Keys of the architecture's own that aren't in its table.
static int
s_check_unknown (const s_reader_t *self)
{
    const char *name = self->architecture->name;
    const size_t length = strlen (name);
    for (size_t i = 0; i < tl_gguf_keys (self->gguf); i++) {
        const tl_gguf_value_t *value = tl_gguf_key (self->gguf, i);
        if (strncmp (value->key, name, length) != 0 || value->key[length] != '.')
            continue;
        const s_key_t *entry = s_keys;
        while (entry->key && strcmp (entry->key, value->key + length + 1) != 0)
            entry++;
        bool causal = strcmp (value->key + length, ".attention.causal") == 0;
        if (entry->key || (s_off (value) && !causal))
            continue;
        bool on = false;
        if (causal && tl_gguf_flag (value, 0, &on) && on)
            continue;
        return s_refuse (self, value->key, "it to be off in this version");
    }
    return 0;
}

static void
s_read_ids (const s_reader_t *self)
{
    static const char *const names[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                           {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                                           {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int64_t id = -1;
        //  4294967295 is how some files say none.
        if (tl_gguf_integer (tl_gguf_find (self->gguf, names[i][0]), 0, &id) && id >= 0 &&
            id != UINT32_MAX)
            json_object_set_new (self->config, names[i][1], json_integer ((json_int_t)id));
        else if (i == 2)
            json_object_set_new (self->config, names[i][1], json_null ());
    }
}

//  ChatGLM2, 3 and GLM-4 in their original layout are told by the fused linear.
static void
s_rename_chatglm2 (const s_reader_t *self)
{
    json_t *config = self->config;
    for (size_t i = 0; i < sizeof s_chatglm2 / sizeof *s_chatglm2; i++) {
        json_t *value = json_object_get (config, s_chatglm2[i][0]);
        if (value)
            json_object_set (config, s_chatglm2[i][1], value);
        json_object_del (config, s_chatglm2[i][0]);
    }
    const json_t *theta = json_object_get (config, "rope_theta");
    if (theta)
        json_object_set_new (config, "rope_ratio", json_real (json_number_value (theta) / 10000));
    json_object_del (config, "rope_theta");
    json_object_set_new (config, "model_type", json_string ("chatglm"));
    json_object_set_new (config, "multi_query_attention", json_true ());
    json_object_set_new (config, "rmsnorm", json_true ());
    json_object_set_new (config, "add_qkv_bias",
                         json_boolean (tl_gguf_find_tensor (self->gguf, "blk.0.attn_qkv.bias")));
}

static int
s_find_architecture (s_reader_t *self)
{
    tl_gguf_text_t text = {"", 0};
    tl_gguf_text (tl_gguf_find (self->gguf, "general.architecture"), 0, &text);
    for (size_t i = 0; i < ARCHITECTURES; i++)
        if (tl_gguf_text_is (text, s_architectures[i].name))
            self->architecture = &s_architectures[i];
    if (self->architecture)
        return 0;
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] < 0x20 || text.data[i] > 0x7e)
            text.size = i; //  not for a terminal
    return tl_fail (self->err, TL_BAD_INPUT,
                    "%s: general.architecture is '%.*s', this version computes llama (Llama, "
                    "Mistral, SmolLM2), qwen2 and chatglm (ChatGLM2, 3, GLM-4); choose such a "
                    "model",
                    tl_gguf_path (self->gguf), (int)(text.size < 60 ? text.size : 60), text.data);
}

static int
s_read (s_reader_t *self)
{
    if (s_find_architecture (self) != 0)
        return -1;
    for (const s_key_t *entry = s_keys; entry->key; entry++)
        if (entry->kind != S_PASS && s_read_key (self, entry) != 0)
            return -1;
    if (s_check_unknown (self) != 0)
        return -1;
    json_t *config = self->config;
    const tl_gguf_tensor_t *embed = tl_gguf_find_tensor (self->gguf, "token_embd.weight");
    if (!embed || embed->dimensions != 2)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s has no matrix token_embd.weight; give a file with a whole model",
                        tl_gguf_path (self->gguf));
    if (!json_object_get (config, "num_key_value_heads"))
        json_object_set (config, "num_key_value_heads",
                         json_object_get (config, "num_attention_heads"));
    //  Classes differ in what a missing width of heads means; in GGUF it is always this.
    json_int_t hidden = json_integer_value (json_object_get (config, "hidden_size"));
    json_int_t heads = json_integer_value (json_object_get (config, "num_attention_heads"));
    if (!json_object_get (config, "head_dim") && hidden % heads == 0 && hidden >= heads)
        json_object_set_new (config, "head_dim", json_integer (hidden / heads));
    if (s_check_turned (self, json_integer_value (json_object_get (config, "head_dim"))) != 0)
        return -1;
    bool tied = !tl_gguf_find_tensor (self->gguf, "output.weight");
    json_object_set_new (config, "tie_word_embeddings", json_boolean (tied));
    json_object_set_new (config, "vocab_size", json_integer ((json_int_t)embed->shape[0]));
    json_object_set_new (config, "model_type", json_string (self->architecture->type));
    bool biased = tl_gguf_find_tensor (self->gguf, "blk.0.attn_q.bias");
    if (strcmp (self->architecture->type, "glm") == 0)
        json_object_set_new (config, "attention_bias", json_boolean (biased));
    json_object_set_new (config, "sliding_window", json_null ());
    json_object_set_new (config, "torch_dtype", json_string ("float32"));
    s_read_ids (self);
    if (tl_gguf_find_tensor (self->gguf, "blk.0.attn_qkv.weight") && self->architecture->half)
        s_rename_chatglm2 (self);
    return 0;
}

json_t *
tl_gguf_config_json (const tl_gguf_t *gguf, tl_error_t *err)
{
    s_reader_t reader = {.gguf = gguf, .config = json_object (), .err = err};
    if (s_read (&reader) == 0)
        return reader.config;
    json_decref (reader.config);
    return NULL;
}

int
tl_gguf_config (const tl_gguf_t *gguf, tl_config_t *config, tl_error_t *err)
{
    json_t *json = tl_gguf_config_json (gguf, err);
    if (!json)
        return -1;
    char *text = json_dumps (json, JSON_COMPACT);
    json_decref (json);
    int rc = tl_config_parse (tl_gguf_path (gguf), text, strlen (text), config, err);
    free (text);
    if (rc == 0 && config->family == TL_FAMILY_LLAMA)
        config->rope_style = TL_ROPE_INTERLEAVED;
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Names

static const char *const s_ends[][2] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"transformer.embedding.word_embeddings.weight", "token_embd.weight"},
    {"transformer.encoder.final_layernorm.weight", "output_norm.weight"},
    {"transformer.output_layer.weight", "output.weight"},
};

//  Modules of a block; ".weight" and ".bias" stay.
static const char *const s_modules[][2] = {
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.gate_up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"self_attention.query_key_value", "attn_qkv"},
    {"self_attention.dense", "attn_output"},
    {"mlp.dense_h_to_4h", "ffn_up"},
    {"mlp.dense_4h_to_h", "ffn_down"},
};

const char *
tl_gguf_architecture (const tl_config_t *config)
{
    switch (config->family) {
    case TL_FAMILY_LLAMA:
        return "llama";
    case TL_FAMILY_QWEN2:
        return "qwen2";
    case TL_FAMILY_GLM:
        return "chatglm";
    default:
        return NULL;
    }
}

bool
tl_gguf_name (const char *name, char *out, size_t size)
{
    for (size_t i = 0; i < sizeof s_ends / sizeof *s_ends; i++)
        if (strcmp (name, s_ends[i][0]) == 0)
            return snprintf (out, size, "%s", s_ends[i][1]) < (int)size;
    static const char *const roots[] = {"model.layers.", "transformer.encoder.layers."};
    for (size_t i = 0; i < 2; i++) {
        size_t root = strlen (roots[i]);
        if (strncmp (name, roots[i], root) != 0)
            continue;
        char *rest = NULL;
        unsigned long block = strtoul (name + root, &rest, 10);
        for (size_t m = 0; *rest == '.' && m < sizeof s_modules / sizeof *s_modules; m++) {
            size_t length = strlen (s_modules[m][0]);
            if (strncmp (rest + 1, s_modules[m][0], length) == 0 && rest[1 + length] == '.')
                return snprintf (out, size, "blk.%lu.%s%s", block, s_modules[m][1],
                                 rest + 1 + length) < (int)size;
        }
    }
    return false;
}

int
tl_gguf_rope_factors (const tl_gguf_t *gguf, const tl_config_t *config, const float **out,
                      tl_error_t *err)
{
    const tl_gguf_tensor_t *tensor = tl_gguf_find_tensor (gguf, "rope_freqs.weight");
    *out = NULL;
    if (!tensor)
        return 0;
    size_t pairs = config->turned / 2;
    if (tensor->dtype != TL_F32 || tensor->dimensions != 1 || tensor->shape[0] != pairs)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tensor rope_freqs.weight has %zu values of %s, expected %zu of fp32, "
                        "one for each pair of a head; convert the model again",
                        tl_gguf_path (gguf), tensor->shape[0], tl_dtype_name (tensor->dtype),
                        pairs);
    const float *factors = tensor->data;
    for (size_t i = 0; i < pairs; i++)
        if (!isfinite (factors[i]) || !(factors[i] > 0))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensor rope_freqs.weight: value %zu is %g, expected a number "
                            "above 0; the file is damaged, fetch it again",
                            tl_gguf_path (gguf), i, (double)factors[i]);
    *out = factors;
    return 0;
}
