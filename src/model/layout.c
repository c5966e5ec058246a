/*  layout: which tensors a checkpoint of a family holds, what they are called and how large they are.

    A way of naming is a table of slots here, a family a shape (tl_shape_of) that block.c reads; there is no
    other place that knows families by name. Reads no file.                                           */

#include "model/internal.h"
#include "model/segment.h"

#include "assert.h"

#include <stdio.h>
#include <string.h>

//  Sizes a slot can have, resolved against a config.
typedef enum { S_ONE, S_VOCAB, S_HIDDEN, S_INNER, S_TWO_INNER, S_Q, S_KV, S_QKV } s_size_t;

typedef struct {
    tl_role_t role;
    const char *name;       //  inside blocks: after the block's prefix
    s_size_t rows, columns; //  columns S_ONE: a vector
} s_entry_t;

typedef struct {
    const char *root;         //  of every module's name
    const char *block_prefix; //  with the block's number
    s_entry_t embed;
    s_entry_t block[16];  //  ends with a name of NULL
    s_entry_t ends[3];    //  final norm: weight and perhaps bias; ends with a name of NULL
    s_entry_t head;       //  absent when tied
    const char *usual[3]; //  linears LoRA goes on when nobody says otherwise; ends with NULL
} s_naming_t;

static const s_naming_t s_chatglm = {
    .root = "transformer.",
    .block_prefix = "transformer.layers.%zu.",
    .embed = {TL_SLOT_EMBED, "transformer.word_embeddings.weight", S_VOCAB, S_HIDDEN},
    .block = {{TL_SLOT_NORM1, "input_layernorm.weight", S_HIDDEN, S_ONE},
              {TL_SLOT_NORM1_BIAS, "input_layernorm.bias", S_HIDDEN, S_ONE},
              {TL_SLOT_QKV, "attention.query_key_value.weight", S_QKV, S_HIDDEN},
              {TL_SLOT_QKV_BIAS, "attention.query_key_value.bias", S_QKV, S_ONE},
              {TL_SLOT_OUT, "attention.dense.weight", S_HIDDEN, S_Q},
              {TL_SLOT_OUT_BIAS, "attention.dense.bias", S_HIDDEN, S_ONE},
              {TL_SLOT_NORM2, "post_attention_layernorm.weight", S_HIDDEN, S_ONE},
              {TL_SLOT_NORM2_BIAS, "post_attention_layernorm.bias", S_HIDDEN, S_ONE},
              {TL_SLOT_UP, "mlp.dense_h_to_4h.weight", S_INNER, S_HIDDEN},
              {TL_SLOT_UP_BIAS, "mlp.dense_h_to_4h.bias", S_INNER, S_ONE},
              {TL_SLOT_DOWN, "mlp.dense_4h_to_h.weight", S_HIDDEN, S_INNER},
              {TL_SLOT_DOWN_BIAS, "mlp.dense_4h_to_h.bias", S_HIDDEN, S_ONE}},
    .ends = {{TL_SLOT_FINAL, "transformer.final_layernorm.weight", S_HIDDEN, S_ONE},
             {TL_SLOT_FINAL_BIAS, "transformer.final_layernorm.bias", S_HIDDEN, S_ONE}},
    .head = {TL_SLOT_HEAD, "lm_head.weight", S_VOCAB, S_HIDDEN},
    .usual = {"query_key_value"},
};

static const s_naming_t s_chatglm2 = {
    .root = "transformer.",
    .block_prefix = "transformer.encoder.layers.%zu.",
    .embed = {TL_SLOT_EMBED, "transformer.embedding.word_embeddings.weight", S_VOCAB, S_HIDDEN},
    .block = {{TL_SLOT_NORM1, "input_layernorm.weight", S_HIDDEN, S_ONE},
              {TL_SLOT_QKV, "self_attention.query_key_value.weight", S_QKV, S_HIDDEN},
              {TL_SLOT_QKV_BIAS, "self_attention.query_key_value.bias", S_QKV, S_ONE},
              {TL_SLOT_OUT, "self_attention.dense.weight", S_HIDDEN, S_Q},
              {TL_SLOT_NORM2, "post_attention_layernorm.weight", S_HIDDEN, S_ONE},
              {TL_SLOT_GATE_UP, "mlp.dense_h_to_4h.weight", S_TWO_INNER, S_HIDDEN},
              {TL_SLOT_DOWN, "mlp.dense_4h_to_h.weight", S_HIDDEN, S_INNER}},
    .ends = {{TL_SLOT_FINAL, "transformer.encoder.final_layernorm.weight", S_HIDDEN, S_ONE}},
    .head = {TL_SLOT_HEAD, "transformer.output_layer.weight", S_VOCAB, S_HIDDEN},
    .usual = {"query_key_value"},
};

static const s_naming_t s_hf = {
    .root = "model.",
    .block_prefix = "model.layers.%zu.",
    .embed = {TL_SLOT_EMBED, "model.embed_tokens.weight", S_VOCAB, S_HIDDEN},
    .block = {{TL_SLOT_NORM1, "input_layernorm.weight", S_HIDDEN, S_ONE},
              {TL_SLOT_Q, "self_attn.q_proj.weight", S_Q, S_HIDDEN},
              {TL_SLOT_Q_BIAS, "self_attn.q_proj.bias", S_Q, S_ONE},
              {TL_SLOT_K, "self_attn.k_proj.weight", S_KV, S_HIDDEN},
              {TL_SLOT_K_BIAS, "self_attn.k_proj.bias", S_KV, S_ONE},
              {TL_SLOT_V, "self_attn.v_proj.weight", S_KV, S_HIDDEN},
              {TL_SLOT_V_BIAS, "self_attn.v_proj.bias", S_KV, S_ONE},
              {TL_SLOT_OUT, "self_attn.o_proj.weight", S_HIDDEN, S_Q},
              {TL_SLOT_NORM2, "post_attention_layernorm.weight", S_HIDDEN, S_ONE},
              {TL_SLOT_GATE_UP, "mlp.gate_up_proj.weight", S_TWO_INNER, S_HIDDEN},
              {TL_SLOT_GATE, "mlp.gate_proj.weight", S_INNER, S_HIDDEN},
              {TL_SLOT_UP, "mlp.up_proj.weight", S_INNER, S_HIDDEN},
              {TL_SLOT_DOWN, "mlp.down_proj.weight", S_HIDDEN, S_INNER}},
    .ends = {{TL_SLOT_FINAL, "model.norm.weight", S_HIDDEN, S_ONE}},
    .head = {TL_SLOT_HEAD, "lm_head.weight", S_VOCAB, S_HIDDEN},
    .usual = {"q_proj", "v_proj"},
};

//  A model out of a GGUF file goes by Hugging Face's names inside the program, as adapters do.
static const s_naming_t *
s_naming (const tl_config_t *config)
{
    return config->names == TL_NAMES_CHATGLM    ? &s_chatglm
           : config->names == TL_NAMES_CHATGLM2 ? &s_chatglm2
                                                : &s_hf;
}

//  Of a table's entries those that this config's checkpoints have.
static bool
s_has (const tl_config_t *config, const s_entry_t *entry)
{
    bool joined = config->family == TL_FAMILY_GLM;
    switch (entry->role) {
    case TL_SLOT_QKV_BIAS:
    case TL_SLOT_Q_BIAS:
    case TL_SLOT_K_BIAS:
    case TL_SLOT_V_BIAS:
        return config->qkv_bias;
    case TL_SLOT_GATE_UP:
        return joined;
    case TL_SLOT_GATE:
    case TL_SLOT_UP:
        return !joined;
    default:
        return true;
    }
}

//  The entry that comes index-th of those the config has; NULL past the last. With count not NULL only counts.
static const s_entry_t *
s_nth (const tl_config_t *config, const s_entry_t *entries, size_t index, size_t *count)
{
    size_t found = 0;
    for (; entries->name; entries++)
        if (s_has (config, entries) && found++ == index && !count)
            return entries;
    if (count)
        *count = found;
    return NULL;
}

static size_t
s_size (const tl_config_t *config, s_size_t size)
{
    size_t q = config->heads * config->head_dim, kv = config->kv_heads * config->head_dim;
    switch (size) {
    case S_ONE:
        return 1;
    case S_VOCAB:
        return config->vocab;
    case S_HIDDEN:
        return config->hidden;
    case S_INNER:
        return config->inner;
    case S_TWO_INNER:
        return 2 * config->inner;
    case S_Q:
        return q;
    case S_KV:
        return kv;
    case S_QKV:
        return q + 2 * kv;
    }
    tl_assert (false);
    return 0;
}

tl_shape_t
tl_shape_of (const tl_config_t *config)
{
    bool chatglm = config->family == TL_FAMILY_CHATGLM;
    bool fused = config->names == TL_NAMES_CHATGLM || config->names == TL_NAMES_CHATGLM2;
    return (tl_shape_t){
        .layernorm = chatglm,
        .residual_normed = chatglm,
        .qkv = !fused    ? TL_QKV_APART
               : chatglm ? TL_QKV_BY_HEAD
                         : TL_QKV_BY_KIND,
        .rope_2d = chatglm,
        .prefix_mask = chatglm,
        .gated = !chatglm,
        .gate_up = config->family == TL_FAMILY_GLM,
        .rope_fp16 = chatglm,
        .rope_style = config->rope_style,
        .alpha = chatglm ? config->alpha : 1,
    };
}

const char *const *
tl_default_targets (const tl_config_t *config, size_t *count)
{
    const s_naming_t *naming = s_naming (config);
    for (*count = 0; naming->usual[*count]; (*count)++)
        ;
    return naming->usual;
}

const char *
tl_layout_root (const tl_config_t *config)
{
    return s_naming (config)->root;
}

const char *
tl_layout_block (const tl_config_t *config)
{
    return s_naming (config)->block_prefix;
}

const char *
tl_layout_head (const tl_config_t *config)
{
    return s_naming (config)->head.name;
}

void
tl_layout_linears (const tl_config_t *config, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (const s_entry_t *entry = s_naming (config)->block; entry->name; entry++)
        if (s_has (config, entry) && entry->columns != S_ONE) {
            const char *last = strchr (entry->name, '.') + 1;
            int length = (int)(strlen (last) - strlen (".weight"));
            used += (size_t)snprintf (text + used, size - used, "%s%.*s", used ? ", " : "", length,
                                      last);
            used = used < size ? used : size - 1;
        }
}

size_t
tl_layout_count (const tl_config_t *config)
{
    const s_naming_t *naming = s_naming (config);
    size_t in_block = 0, in_ends = 0;
    s_nth (config, naming->block, 0, &in_block);
    s_nth (config, naming->ends, 0, &in_ends);
    return 1 + config->blocks * in_block + in_ends + (config->tied ? 0 : 1);
}

void
tl_layout_at (const tl_config_t *config, size_t index, tl_slot_t *slot)
{
    const s_naming_t *naming = s_naming (config);
    tl_assert (index < tl_layout_count (config));
    memset (slot, 0, sizeof *slot);
    const s_entry_t *entry = &naming->embed;
    size_t used = 0, in_block = 0;
    s_nth (config, naming->block, 0, &in_block);
    if (index > 0) {
        size_t rest = index - 1, in_blocks = config->blocks * in_block;
        if (rest < in_blocks) {
            slot->block = rest / in_block;
            entry = s_nth (config, naming->block, rest % in_block, NULL);
            used =
                (size_t)snprintf (slot->name, sizeof slot->name, naming->block_prefix, slot->block);
            slot->linear = entry->columns != S_ONE;
        } else {
            entry = s_nth (config, naming->ends, rest - in_blocks, NULL);
            entry = entry ? entry : &naming->head;
        }
    }
    snprintf (slot->name + used, sizeof slot->name - used, "%s", entry->name);
    slot->role = entry->role;
    slot->rows = s_size (config, entry->rows);
    slot->columns = s_size (config, entry->columns);
    slot->vector = entry->columns == S_ONE;
}
