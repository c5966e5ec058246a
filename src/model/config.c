/*  config: reads config.json of the families that this version computes: ChatGLM-6B, ChatGLM2 and 3 and GLM-4
    in their original layout, and Hugging Face's Llama, Mistral, Qwen2 and Glm. A key that would change the
    arithmetic in a way that the engine doesn't follow is refused by name and value: a model that runs wrong in
    silence is worse than one that doesn't run. Keys that change nothing here (torch_dtype, use_cache,
    apply_query_key_layer_scaling, which cancels ...) are passed over.                                */

#include "config.h"

#include "config_read.h"

#include <math.h>
#include <string.h>

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

const char *
tl_family_name (tl_family_t family)
{
    static const char *const names[] = {[TL_FAMILY_CHATGLM] = "chatglm",
                                        [TL_FAMILY_GLM] = "glm",
                                        [TL_FAMILY_LLAMA] = "llama",
                                        [TL_FAMILY_QWEN2] = "qwen2"};
    return names[family];
}

bool
tl_config_is_end (const tl_config_t *config, int32_t id)
{
    bool end = id == config->eos;
    for (size_t i = 0; i < config->end_count; i++)
        end = end || id == config->ends[i];
    return end && id >= 0;
}

static int
s_check_heads (const tl_reader_t *self, const char *key, const tl_config_t *config, size_t multiple)
{
    if (config->head_dim % multiple != 0 || config->head_dim == 0) {
        char wanted[80];
        snprintf (wanted, sizeof wanted, "heads of a width that is a multiple of %zu, not %zu",
                  multiple, config->head_dim);
        return tl_read_refuse (self, key, wanted);
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  ChatGLM-6B

static int
s_read_chatglm_ids (const tl_reader_t *self, tl_config_t *config)
{
    if (tl_read_id (self, "bos_token_id", config->vocab, -1, &config->sop) != 0 ||
        tl_read_ends (self, -1, config) != 0 ||
        tl_read_id (self, "gmask_token_id", config->vocab, -1, &config->gmask) != 0 ||
        tl_read_id (self, "mask_token_id", config->vocab, -1, &config->mask) != 0 ||
        tl_read_id (self, "pad_token_id", config->vocab, -1, &config->pad) != 0)
        return -1;
    config->bos = config->sop;
    if (config->sop < 0)
        return tl_read_refuse (self, "bos_token_id", "the id of <sop> (130004 in ChatGLM-6B)");
    if (config->eos < 0)
        return tl_read_refuse (self, "eos_token_id", "the id of <eop> (130005 in ChatGLM-6B)");
    if (config->gmask < 0)
        return tl_read_refuse (self, "gmask_token_id", "the id of [gMASK] (130001 in ChatGLM-6B)");
    return 0;
}

static int
s_read_chatglm (const tl_reader_t *self, tl_config_t *config)
{
    static const char *const never[] = {
        "quantization_bit",  "quantization_config", "pre_seq_len", "prefix_projection",
        "attention_dropout", "hidden_dropout",      NULL};
    static const char *const always[] = {"position_encoding_2d", NULL};
    size_t alpha_blocks = 28;
    config->family = TL_FAMILY_CHATGLM;
    if (tl_read_none_of (self, never) != 0 || tl_read_all_of (self, always) != 0 ||
        tl_read_size (self, "vocab_size", MAX_VOCAB, 0, &config->vocab) != 0 ||
        tl_read_size (self, "hidden_size", MAX_WIDTH, 0, &config->hidden) != 0 ||
        tl_read_size (self, "inner_hidden_size", MAX_INNER, 0, &config->inner) != 0 ||
        tl_read_size (self, "num_layers", MAX_BLOCKS, 0, &config->blocks) != 0 ||
        tl_read_size (self, "num_attention_heads", MAX_HEADS, 0, &config->heads) != 0 ||
        tl_read_real (self, "layernorm_epsilon", 1e-12, 0.1, 1e-5, &config->norm_eps) != 0 ||
        tl_read_size (self, "max_sequence_length", MAX_POSITIONS, 2048, &config->max_positions) !=
            0 ||
        tl_read_size (self, "alpha_num_layers", MAX_BLOCKS, 28, &alpha_blocks) != 0 ||
        tl_read_flag (self, "tie_word_embeddings", true, &config->tied) != 0)
        return -1;
    if (config->hidden % config->heads != 0)
        return tl_read_refuse (self, "num_attention_heads", "a divisor of hidden_size");
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
//  ChatGLM2, ChatGLM3 and GLM-4 as their authors released them

//  rope_ratio multiplies the base in ChatGLM3 and GLM-4; ChatGLM2's long variant, with the same keys, divides
//  positions by it.
static int
s_read_rope_ratio (const tl_reader_t *self, tl_config_t *config)
{
    double ratio = 1;
    if (tl_read_real (self, "rope_ratio", 1e-3, 1e9, 1, &ratio) != 0)
        return -1;
    const char *name = tl_read_text (self, "_name_or_path");
    if (ratio != 1 && name && strstr (name, "chatglm2"))
        return tl_read_unsupported (self, "rope_ratio");
    config->rope_base = 10000 * ratio;
    return 0;
}

static int
s_check_glm (const tl_reader_t *self)
{
    static const char *const never[] = {"quantization_bit",
                                        "quantization_config",
                                        "pre_seq_len",
                                        "prefix_projection",
                                        "attention_dropout",
                                        "hidden_dropout",
                                        "add_bias_linear",
                                        "apply_residual_connection_post_layernorm",
                                        "interleaved_qkv",
                                        "vision_config",
                                        "tie_word_embeddings", //  the original has no such path
                                        "position_encoding_2d",
                                        "inner_hidden_size",
                                        NULL};
    static const char *const always[] = {"multi_query_attention", "rmsnorm", "post_layer_norm",
                                         "original_rope", NULL};
    if (tl_read_none_of (self, never) != 0 || tl_read_all_of (self, always) != 0)
        return -1;
    if (!tl_read_value (self, "multi_query_attention"))
        return tl_read_refuse (self, "multi_query_attention", "true");
    return 0;
}

static int
s_read_glm (const tl_reader_t *self, tl_config_t *config)
{
    config->family = TL_FAMILY_GLM;
    if (s_check_glm (self) != 0 ||
        tl_read_size (self, "padded_vocab_size", MAX_VOCAB, 0, &config->vocab) != 0 ||
        tl_read_size (self, "hidden_size", MAX_WIDTH, 0, &config->hidden) != 0 ||
        tl_read_size (self, "ffn_hidden_size", MAX_INNER, 0, &config->inner) != 0 ||
        tl_read_size (self, "num_layers", MAX_BLOCKS, 0, &config->blocks) != 0 ||
        tl_read_size (self, "num_attention_heads", MAX_HEADS, 0, &config->heads) != 0 ||
        tl_read_size (self, "multi_query_group_num", MAX_HEADS, 1, &config->kv_heads) != 0 ||
        tl_read_size (self, "kv_channels", MAX_HEAD_DIM, 128, &config->head_dim) != 0 ||
        tl_read_real (self, "layernorm_epsilon", 1e-12, 0.1, 1e-5, &config->norm_eps) != 0 ||
        tl_read_size (self, "seq_length", MAX_POSITIONS, 2048, &config->max_positions) != 0 ||
        tl_read_flag (self, "add_qkv_bias", false, &config->qkv_bias) != 0 ||
        s_read_rope_ratio (self, config) != 0)
        return -1;
    if (config->heads % config->kv_heads != 0)
        return tl_read_refuse (self, "multi_query_group_num", "a divisor of num_attention_heads");
    if (s_check_heads (self, "kv_channels", config, 4) != 0)
        return -1;
    config->names = TL_NAMES_CHATGLM2;
    config->turned = config->head_dim / 2;
    config->rope_style = TL_ROPE_INTERLEAVED;
    config->alpha = 1;
    config->gmask = config->mask = config->sop = -1; //  the tokenizer knows them
    if (tl_read_id (self, "bos_token_id", config->vocab, -1, &config->bos) != 0 ||
        tl_read_ends (self, 2, config) != 0 ||
        tl_read_id (self, "pad_token_id", config->vocab, -1, &config->pad) != 0)
        return -1;
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Hugging Face's own classes: what a missing key means differs from one to the next

typedef struct {
    const char *type; //  model_type
    tl_family_t family;
    double eps;
    size_t positions;
    size_t kv_heads; //  0: as many as heads
    size_t head_dim; //  0: hidden / heads
    double rotary;   //  partial_rotary_factor, which the class doesn't let anyone choose
    int32_t bos, eos;
    size_t window; //  sliding_window
} s_class_t;

static const s_class_t s_classes[] = {
    {"llama", TL_FAMILY_LLAMA, 1e-6, 2048, 0, 0, 1, 1, 2, 0},
    {"mistral", TL_FAMILY_LLAMA, 1e-6, 131072, 8, 0, 1, 1, 2, 4096},
    {"qwen2", TL_FAMILY_QWEN2, 1e-6, 32768, 32, 0, 1, -1, -1, 4096},
    {"glm", TL_FAMILY_GLM, 1.5625e-7, 131072, 2, 128, 0.5, -1, -1, 0},
};
enum { CLASSES = sizeof s_classes / sizeof *s_classes };

//  rope_scaling, or transformers 5's rope_parameters, which holds rope_theta as well.
static int
s_read_rope (const tl_reader_t *self, const s_class_t *class, tl_config_t *config)
{
    json_t *nested = tl_read_value (self, "rope_parameters");
    const char *key = nested ? "rope_parameters" : "rope_scaling";
    json_t *scaling = nested ? nested : tl_read_value (self, "rope_scaling");
    const tl_reader_t inside = {self->file, scaling, self->err};
    double rotary = class->rotary;
    const tl_reader_t *where =
        nested && tl_read_value (&inside, "partial_rotary_factor") ? &inside : self;
    if (tl_read_real (nested && tl_read_value (&inside, "rope_theta") ? &inside : self,
                      "rope_theta", 1, 1e12, 10000, &config->rope_base) != 0 ||
        tl_read_real (where, "partial_rotary_factor", 0, 1, class->rotary, &rotary) != 0)
        return -1;
    if (rotary != class->rotary)
        return tl_read_unsupported (where, "partial_rotary_factor");
    if (!scaling)
        return 0;
    const char *type = tl_read_text (&inside, "rope_type");
    if (!type)
        type = tl_read_text (&inside, "type");
    if (type && strcmp (type, "default") == 0)
        return 0;
    if (!type || strcmp (type, "llama3") != 0)
        return tl_read_refuse (self, key, "null or an object with rope_type llama3 or default");
    config->rope_llama3 = true;
    if (tl_read_real (&inside, "factor", 1, 1e6, NAN, &config->rope_factor) != 0 ||
        tl_read_real (&inside, "low_freq_factor", 1e-6, 1e6, NAN, &config->rope_low) != 0 ||
        tl_read_real (&inside, "high_freq_factor", 1e-6, 1e6, NAN, &config->rope_high) != 0 ||
        tl_read_real (&inside, "original_max_position_embeddings", 1, MAX_POSITIONS, NAN,
                      &config->rope_original) != 0)
        return tl_fail_in (self->err, "%s", key);
    if (config->rope_high <= config->rope_low)
        return tl_read_refuse (self, key, "high_freq_factor above low_freq_factor");
    return 0;
}

//  Every row sees all rows before it: a window must be off, or as long as the longest sequence.
static int
s_check_window (const tl_reader_t *self, const s_class_t *class, const tl_config_t *config)
{
    bool used = class->family != TL_FAMILY_QWEN2;
    if (!used && tl_read_flag (self, "use_sliding_window", false, &used) != 0)
        return -1;
    const json_t *types = tl_read_value (self, "layer_types");
    for (size_t i = 0; i < json_array_size (types); i++) {
        const char *type = json_string_value (json_array_get (types, i));
        if (!type || strcmp (type, "full_attention") != 0)
            return tl_read_unsupported (self, "layer_types");
    }
    const json_t *value = json_object_get (self->object, "sliding_window");
    if (!used || json_is_null (value) || (!value && !class->window))
        return 0;
    size_t window = class->window;
    if (value && tl_read_size (self, "sliding_window", SIZE_MAX >> 1, 0, &window) != 0)
        return -1;
    return window >= config->max_positions && class->window
               ? 0
               : tl_read_unsupported (self, "sliding_window");
}

static int
s_check_hf (const tl_reader_t *self, const s_class_t *class, tl_config_t *config)
{
    static const char *const never[] = {"mlp_bias", "rope_interleaved", "quantization_config",
                                        "attention_dropout", NULL};
    const char *act = tl_read_text (self, "hidden_act");
    if (tl_read_none_of (self, never) != 0 ||
        tl_read_flag (self, "attention_bias", false, &config->qkv_bias) != 0)
        return -1;
    //  Llama's attention_bias would put one on o_proj as well; Qwen2 has q, k and v biases and no such key.
    if (config->qkv_bias && class->family == TL_FAMILY_LLAMA)
        return tl_read_unsupported (self, "attention_bias");
    config->qkv_bias = config->qkv_bias || class->family == TL_FAMILY_QWEN2;
    if (tl_read_value (self, "hidden_act") && (!act || strcmp (act, "silu") != 0))
        return tl_read_unsupported (self, "hidden_act");
    return s_check_window (self, class, config);
}

static int
s_read_hf_heads (const tl_reader_t *self, const s_class_t *class, tl_config_t *config)
{
    if (config->heads % config->kv_heads != 0)
        return tl_read_refuse (self, "num_key_value_heads", "a divisor of num_attention_heads");
    bool given = tl_read_value (self, "head_dim") || class->head_dim;
    if (!given && config->hidden % config->heads != 0)
        return tl_read_refuse (self, "num_attention_heads", "a divisor of hidden_size");
    size_t usual = class->head_dim ? class->head_dim : config->hidden / config->heads;
    if (tl_read_size (self, "head_dim", MAX_HEAD_DIM, usual ? usual : 1, &config->head_dim) != 0)
        return -1;
    size_t parts = class->rotary < 1 ? 2 : 1;
    config->turned = config->head_dim / parts;
    return s_check_heads (self, given ? "head_dim" : "num_attention_heads", config, 2 * parts);
}

static int
s_read_hf (const tl_reader_t *self, const s_class_t *class, tl_config_t *config)
{
    config->family = class->family;
    if (tl_read_size (self, "vocab_size", MAX_VOCAB, 0, &config->vocab) != 0 ||
        tl_read_size (self, "hidden_size", MAX_WIDTH, 0, &config->hidden) != 0 ||
        tl_read_size (self, "intermediate_size", MAX_INNER, 0, &config->inner) != 0 ||
        tl_read_size (self, "num_hidden_layers", MAX_BLOCKS, 0, &config->blocks) != 0 ||
        tl_read_size (self, "num_attention_heads", MAX_HEADS, 0, &config->heads) != 0 ||
        tl_read_size (self, "num_key_value_heads", MAX_HEADS,
                      class->kv_heads ? class->kv_heads : config->heads, &config->kv_heads) != 0 ||
        tl_read_real (self, "rms_norm_eps", 1e-12, 0.1, class->eps, &config->norm_eps) != 0 ||
        tl_read_size (self, "max_position_embeddings", MAX_POSITIONS, class->positions,
                      &config->max_positions) != 0 ||
        tl_read_flag (self, "tie_word_embeddings", false, &config->tied) != 0 ||
        s_check_hf (self, class, config) != 0 || s_read_rope (self, class, config) != 0 ||
        s_read_hf_heads (self, class, config) != 0)
        return -1;
    config->names = TL_NAMES_HF;
    config->rope_style = class->family == TL_FAMILY_GLM ? TL_ROPE_INTERLEAVED : TL_ROPE_HALF;
    config->alpha = 1;
    config->gmask = config->mask = config->sop = -1;
    if (tl_read_id (self, "bos_token_id", config->vocab, class->bos, &config->bos) != 0 ||
        tl_read_ends (self, class->eos, config) != 0 ||
        tl_read_id (self, "pad_token_id", config->vocab, -1, &config->pad) != 0)
        return -1;
    return 0;
}

//  ---------------------------------------------------------------------------------------------

//  ChatGLM-6B and its successors share a model_type and differ in nearly everything else.
static bool
s_is_later_chatglm (const tl_reader_t *self)
{
    static const char *const later[] = {"multi_query_attention", "multi_query_group_num",
                                        "ffn_hidden_size", "padded_vocab_size", "rmsnorm"};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (tl_read_value (self, later[i]))
            return true;
    return false;
}

static int
s_read (const tl_reader_t *self, tl_config_t *config)
{
    const char *type = tl_read_text (self, "model_type");
    if (!json_is_object (self->object))
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s is not a JSON object; give the directory of a Hugging Face model",
                        self->file);
    if (type && strcmp (type, "chatglm") == 0)
        return s_is_later_chatglm (self) ? s_read_glm (self, config)
                                         : s_read_chatglm (self, config);
    for (size_t i = 0; type && i < CLASSES; i++)
        if (strcmp (type, s_classes[i].type) == 0)
            return s_read_hf (self, &s_classes[i], config);
    return tl_read_unsupported (self, "model_type");
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
    const tl_reader_t reader = {file, object, err};
    memset (config, 0, sizeof *config);
    int rc = s_read (&reader, config);
    json_decref (object);
    return rc;
}

json_t *
tl_config_canonical (const tl_config_t *config)
{
    json_t *object = json_pack (
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:b, s:f, s:b, s:I, s:[i, i, i, "
        "i, "
        "i, i]}",
        "family", tl_family_name (config->family), "vocab", (json_int_t)config->vocab, "hidden",
        (json_int_t)config->hidden, "inner", (json_int_t)config->inner, "blocks",
        (json_int_t)config->blocks, "heads", (json_int_t)config->heads, "kv_heads",
        (json_int_t)config->kv_heads, "head_dim", (json_int_t)config->head_dim, "norm_eps",
        config->norm_eps, "rope_base", config->rope_base, "turned", (json_int_t)config->turned,
        "qkv_bias", config->qkv_bias, "alpha", config->alpha, "tied", config->tied, "max_positions",
        (json_int_t)config->max_positions, "ids", config->bos, config->eos, config->pad,
        config->gmask, config->mask, config->sop);
    if (config->rope_llama3)
        json_object_set_new (object, "rope_llama3",
                             json_pack ("[f, f, f, f]", config->rope_factor, config->rope_low,
                                        config->rope_high, config->rope_original));
    return object;
}
