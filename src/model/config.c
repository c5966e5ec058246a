/*  config: reads config.json of the families that this version computes: ChatGLM-6B's architecture and
    Llama's. A key that would change the arithmetic in a way that the engine doesn't follow is refused by
    name and value: a model that runs wrong in silence is worse than one that doesn't run. Keys that
    change nothing here (torch_dtype, use_cache, initializer_range ...) are passed over.            */

#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FAMILIES                                                                                   \
    "this version reads ChatGLM-6B's architecture (model_type chatglm, position_encoding_2d) and " \
    "Llama's (model_type llama); choose such a model"

//  Far above every published model of these families, far below what overflows.
enum {
    MAX_VOCAB = 1 << 22,
    MAX_WIDTH = 1 << 18,
    MAX_INNER = 1 << 20,
    MAX_BLOCKS = 1024,
    MAX_HEADS = 4096,
    MAX_HEAD_DIM = 4096,
    MAX_POSITIONS = 1 << 24
};

typedef struct {
    const char *file; //  for messages
    json_t *object;   //  the whole file, or one object in it
    tl_error_t *err;
} reader_t;

const char *
tl_family_name (tl_family_t family)
{
    static const char *const names[] = {[TL_FAMILY_CHATGLM] = "chatglm",
                                        [TL_FAMILY_GLM] = "glm",
                                        [TL_FAMILY_LLAMA] = "llama",
                                        [TL_FAMILY_QWEN2] = "qwen2"};
    return names[family];
}

//  The value as a person would find it in the file.
static void
s_show (const json_t *value, char *text, size_t size)
{
    char *dump = value ? json_dumps (value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    snprintf (text, size, "%s", dump ? dump : "missing");
    free (dump);
}

//  JSON null counts as absent, as it does for transformers.
static json_t *
s_value (const reader_t *self, const char *key)
{
    json_t *value = json_object_get (self->object, key);
    return json_is_null (value) ? NULL : value;
}

static int
s_refuse (const reader_t *self, const char *key, const char *wanted)
{
    char shown[200];
    s_show (json_object_get (self->object, key), shown, sizeof shown);
    return tl_fail (self->err, TL_BAD_INPUT,
                    "%s: %s is %s, expected %s; correct the file or choose "
                    "another model",
                    self->file, key, shown, wanted);
}

//  A key that asks for something that this version doesn't compute.
static int
s_unsupported (const reader_t *self, const char *key)
{
    char shown[200];
    s_show (json_object_get (self->object, key), shown, sizeof shown);
    return tl_fail (self->err, TL_BAD_INPUT, "%s: %s %s is not supported; " FAMILIES, self->file,
                    key, shown);
}

//  A whole number in [1, limit]. otherwise: taken when the key is absent; 0 means it must be there.
static int
s_size (const reader_t *self, const char *key, size_t limit, size_t otherwise, size_t *out)
{
    const json_t *value = s_value (self, key);
    if (!value && otherwise) {
        *out = otherwise;
        return 0;
    }
    json_int_t number = json_is_integer (value) ? json_integer_value (value) : 0;
    if (number < 1 || (uint64_t)number > limit) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "a whole number from 1 to %zu", limit);
        return s_refuse (self, key, wanted);
    }
    *out = (size_t)number;
    return 0;
}

//  A number in [low, high]; otherwise is taken when the key is absent, NAN means it must be there.
static int
s_real (const reader_t *self, const char *key, double low, double high, double otherwise,
        double *out)
{
    const json_t *value = s_value (self, key);
    if (!value && !isnan (otherwise)) {
        *out = otherwise;
        return 0;
    }
    double number = json_is_number (value) ? json_number_value (value) : NAN;
    if (!(number >= low && number <= high)) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "a number from %g to %g", low, high);
        return s_refuse (self, key, wanted);
    }
    *out = number;
    return 0;
}

static int
s_flag (const reader_t *self, const char *key, bool otherwise, bool *out)
{
    const json_t *value = s_value (self, key);
    if (value && !json_is_boolean (value))
        return s_refuse (self, key, "true or false");
    *out = value ? json_is_true (value) : otherwise;
    return 0;
}

//  A token id: a number, or a list whose first is taken (Llama 3 lists several ends). -1 is none.
static int
s_id (const reader_t *self, const char *key, size_t vocab, int32_t otherwise, int32_t *out)
{
    const json_t *value = s_value (self, key);
    if (json_is_array (value))
        value = json_array_get (value, 0);
    if (!value) {
        *out = otherwise >= 0 && (size_t)otherwise >= vocab ? -1 : otherwise;
        return 0;
    }
    json_int_t number = json_is_integer (value) ? json_integer_value (value) : -2;
    if (number < -1 || number >= (json_int_t)vocab) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "a token id below vocab_size %zu", vocab);
        return s_refuse (self, key, wanted);
    }
    *out = (int32_t)number;
    return 0;
}

//  Refuses each listed key that is there and neither null, false, 0 nor an empty text.
static int
s_none_of (const reader_t *self, const char *const *keys)
{
    for (; *keys; keys++) {
        const json_t *value = s_value (self, *keys);
        bool off = !value || json_is_false (value) ||
                   (json_is_number (value) && json_number_value (value) == 0) ||
                   (json_is_string (value) && json_string_length (value) == 0);
        if (!off)
            return s_unsupported (self, *keys);
    }
    return 0;
}

static int
s_check_heads (const reader_t *self, const char *key, const tl_config_t *config, size_t multiple)
{
    if (config->head_dim % multiple != 0 || config->head_dim == 0) {
        char wanted[160];
        snprintf (wanted, sizeof wanted,
                  "a number of heads whose width is a multiple of %zu (hidden_size %zu and this "
                  "give %zu)",
                  multiple, config->hidden, config->head_dim);
        return s_refuse (self, key, wanted);
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  ChatGLM-6B

static int
s_read_chatglm_ids (const reader_t *self, tl_config_t *config)
{
    int32_t eop = -1;
    if (s_id (self, "bos_token_id", config->vocab, -1, &config->sop) != 0 ||
        s_id (self, "eos_token_id", config->vocab, -1, &eop) != 0 ||
        s_id (self, "gmask_token_id", config->vocab, -1, &config->gmask) != 0 ||
        s_id (self, "mask_token_id", config->vocab, -1, &config->mask) != 0 ||
        s_id (self, "pad_token_id", config->vocab, -1, &config->pad) != 0)
        return -1;
    config->bos = config->sop;
    config->eos = eop;
    if (config->sop < 0)
        return s_refuse (self, "bos_token_id", "the id of <sop> (130004 in ChatGLM-6B)");
    if (eop < 0)
        return s_refuse (self, "eos_token_id", "the id of <eop> (130005 in ChatGLM-6B)");
    if (config->gmask < 0)
        return s_refuse (self, "gmask_token_id", "the id of [gMASK] (130001 in ChatGLM-6B)");
    return 0;
}

static int
s_read_chatglm (const reader_t *self, tl_config_t *config)
{
    //  ChatGLM2 and 3 share the model_type and differ in nearly everything else.
    static const char *const later[] = {"multi_query_attention", "ffn_hidden_size",
                                        "padded_vocab_size", "rmsnorm", NULL};
    static const char *const never[] = {
        "quantization_bit",  "quantization_config", "pre_seq_len", "prefix_projection",
        "attention_dropout", "hidden_dropout",      NULL};
    for (size_t i = 0; later[i]; i++)
        if (s_value (self, later[i]))
            return tl_fail (self->err, TL_BAD_INPUT,
                            "%s: %s belongs to ChatGLM2 or ChatGLM3; " FAMILIES, self->file,
                            later[i]);
    bool two_dimensions = false;
    size_t alpha_blocks = 28;
    if (s_none_of (self, never) != 0 ||
        s_flag (self, "position_encoding_2d", true, &two_dimensions) != 0)
        return -1;
    if (!two_dimensions)
        return s_unsupported (self, "position_encoding_2d");
    if (s_size (self, "vocab_size", MAX_VOCAB, 0, &config->vocab) != 0 ||
        s_size (self, "hidden_size", MAX_WIDTH, 0, &config->hidden) != 0 ||
        s_size (self, "inner_hidden_size", MAX_INNER, 0, &config->inner) != 0 ||
        s_size (self, "num_layers", MAX_BLOCKS, 0, &config->blocks) != 0 ||
        s_size (self, "num_attention_heads", MAX_HEADS, 0, &config->heads) != 0 ||
        s_real (self, "layernorm_epsilon", 1e-12, 0.1, 1e-5, &config->norm_eps) != 0 ||
        s_size (self, "max_sequence_length", MAX_POSITIONS, 2048, &config->max_positions) != 0 ||
        s_size (self, "alpha_num_layers", MAX_BLOCKS, 28, &alpha_blocks) != 0 ||
        s_flag (self, "tie_word_embeddings", true, &config->tied) != 0)
        return -1;
    if (config->hidden % config->heads != 0)
        return s_refuse (self, "num_attention_heads", "a divisor of hidden_size");
    config->kv_heads = config->heads;
    config->head_dim = config->hidden / config->heads;
    //  The original never hands num_layers to its blocks: their depth is 28 in every released model.
    config->alpha = sqrt (2.0 * (double)alpha_blocks);
    config->rope_base = 10000;
    config->names = TL_NAMES_CHATGLM;
    config->turned = config->head_dim;
    config->rope_style = TL_ROPE_HALF;
    config->qkv_bias = true;
    if (s_check_heads (self, "num_attention_heads", config, 4) != 0)
        return -1;
    return s_read_chatglm_ids (self, config);
}

//  ---------------------------------------------------------------------------------------------
//  Llama

//  rope_scaling, or transformers 5's rope_parameters, which holds rope_theta as well.
static int
s_read_rope (const reader_t *self, tl_config_t *config)
{
    json_t *nested = s_value (self, "rope_parameters");
    const char *key = nested ? "rope_parameters" : "rope_scaling";
    json_t *scaling = nested ? nested : s_value (self, "rope_scaling");
    const reader_t inside = {self->file, scaling, self->err};
    if (s_real (nested && s_value (&inside, "rope_theta") ? &inside : self, "rope_theta", 1, 1e12,
                10000, &config->rope_base) != 0)
        return -1;
    if (!scaling)
        return 0;
    const char *type = json_string_value (s_value (&inside, "rope_type"));
    if (!type)
        type = json_string_value (s_value (&inside, "type"));
    if (type && strcmp (type, "default") == 0)
        return 0;
    if (!type || strcmp (type, "llama3") != 0)
        return s_refuse (self, key, "null or an object with rope_type llama3 or default");
    config->rope_llama3 = true;
    if (s_real (&inside, "factor", 1, 1e6, NAN, &config->rope_factor) != 0 ||
        s_real (&inside, "low_freq_factor", 1e-6, 1e6, NAN, &config->rope_low) != 0 ||
        s_real (&inside, "high_freq_factor", 1e-6, 1e6, NAN, &config->rope_high) != 0 ||
        s_real (&inside, "original_max_position_embeddings", 1, MAX_POSITIONS, NAN,
                &config->rope_original) != 0)
        return tl_fail_in (self->err, "%s", key);
    if (config->rope_high <= config->rope_low)
        return s_refuse (self, key, "high_freq_factor above low_freq_factor");
    return 0;
}

static int
s_check_llama (const reader_t *self)
{
    static const char *const never[] = {"attention_bias",
                                        "mlp_bias",
                                        "sliding_window",
                                        "use_sliding_window",
                                        "quantization_config",
                                        "attention_dropout",
                                        NULL};
    const char *act = json_string_value (s_value (self, "hidden_act"));
    double rotary = 1;
    if (s_none_of (self, never) != 0)
        return -1;
    if (s_value (self, "hidden_act") && (!act || strcmp (act, "silu") != 0))
        return s_unsupported (self, "hidden_act");
    if (s_real (self, "partial_rotary_factor", 0, 1, 1, &rotary) != 0)
        return -1;
    return rotary == 1 ? 0 : s_unsupported (self, "partial_rotary_factor");
}

static int
s_read_llama (const reader_t *self, tl_config_t *config)
{
    if (s_check_llama (self) != 0 ||
        s_size (self, "vocab_size", MAX_VOCAB, 0, &config->vocab) != 0 ||
        s_size (self, "hidden_size", MAX_WIDTH, 0, &config->hidden) != 0 ||
        s_size (self, "intermediate_size", MAX_INNER, 0, &config->inner) != 0 ||
        s_size (self, "num_hidden_layers", MAX_BLOCKS, 0, &config->blocks) != 0 ||
        s_size (self, "num_attention_heads", MAX_HEADS, 0, &config->heads) != 0 ||
        s_size (self, "num_key_value_heads", MAX_HEADS, config->heads, &config->kv_heads) != 0 ||
        s_real (self, "rms_norm_eps", 1e-12, 0.1, 1e-6, &config->norm_eps) != 0 ||
        s_size (self, "max_position_embeddings", MAX_POSITIONS, 2048, &config->max_positions) !=
            0 ||
        s_flag (self, "tie_word_embeddings", false, &config->tied) != 0 ||
        s_read_rope (self, config) != 0)
        return -1;
    if (config->heads % config->kv_heads != 0)
        return s_refuse (self, "num_key_value_heads", "a divisor of num_attention_heads");
    if (!s_value (self, "head_dim") && config->hidden % config->heads != 0)
        return s_refuse (self, "num_attention_heads", "a divisor of hidden_size");
    size_t usual = config->hidden / config->heads;
    if (s_size (self, "head_dim", MAX_HEAD_DIM, usual ? usual : 1, &config->head_dim) != 0 ||
        s_check_heads (self, s_value (self, "head_dim") ? "head_dim" : "num_attention_heads",
                       config, 2) != 0)
        return -1;
    config->names = TL_NAMES_HF;
    config->turned = config->head_dim;
    config->rope_style = TL_ROPE_HALF;
    config->alpha = 1;
    config->gmask = config->mask = config->sop = -1;
    if (s_id (self, "bos_token_id", config->vocab, 1, &config->bos) != 0 ||
        s_id (self, "eos_token_id", config->vocab, 2, &config->eos) != 0 ||
        s_id (self, "pad_token_id", config->vocab, -1, &config->pad) != 0)
        return -1;
    return 0;
}

//  ---------------------------------------------------------------------------------------------

static int
s_read (const reader_t *self, tl_config_t *config)
{
    const char *type = json_string_value (s_value (self, "model_type"));
    if (!json_is_object (self->object))
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s is not a JSON object; give the directory of a Hugging Face model",
                        self->file);
    if (type && strcmp (type, "chatglm") == 0) {
        config->family = TL_FAMILY_CHATGLM;
        return s_read_chatglm (self, config);
    }
    if (type && strcmp (type, "llama") == 0) {
        config->family = TL_FAMILY_LLAMA;
        return s_read_llama (self, config);
    }
    return s_unsupported (self, "model_type");
}

int
tl_config_parse (const char *file, const char *text, size_t size, tl_config_t *config,
                 tl_error_t *err)
{
    json_error_t reason;
    json_t *object = json_loadb (text, size, JSON_REJECT_DUPLICATES, &reason);
    if (!object)
        return tl_fail (err, TL_BAD_INPUT, "%s:%d:%d: not valid JSON (%s); correct the file", file,
                        reason.line, reason.column, reason.text);
    const reader_t reader = {file, object, err};
    memset (config, 0, sizeof *config);
    int rc = s_read (&reader, config);
    json_decref (object);
    return rc;
}

json_t *
tl_config_canonical (const tl_config_t *config)
{
    json_t *object = json_pack (
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:b, s:I, s:[i, i, i, i, i, i]}",
        "family", tl_family_name (config->family), "vocab", (json_int_t)config->vocab, "hidden",
        (json_int_t)config->hidden, "inner", (json_int_t)config->inner, "blocks",
        (json_int_t)config->blocks, "heads", (json_int_t)config->heads, "kv_heads",
        (json_int_t)config->kv_heads, "head_dim", (json_int_t)config->head_dim, "norm_eps",
        config->norm_eps, "rope_base", config->rope_base, "alpha", config->alpha, "tied",
        config->tied, "max_positions", (json_int_t)config->max_positions, "ids", config->bos,
        config->eos, config->pad, config->gmask, config->mask, config->sop);
    if (config->rope_llama3)
        json_object_set_new (object, "rope_llama3",
                             json_pack ("[f, f, f, f]", config->rope_factor, config->rope_low,
                                        config->rope_high, config->rope_original));
    return object;
}
