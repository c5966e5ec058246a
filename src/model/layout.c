/*  layout: which tensors a checkpoint of a family holds, what they are called and how large they are.

    A family is a table of slots here and a shape (tl_shape_of) that block.c reads; there is no other place
    that knows families by name. Reads no file.                                                       */

#include "model/internal.h"
#include "model/segment.h"

#include "assert.h"

#include <stdio.h>
#include <string.h>

//  Sizes a slot can have, resolved against a config.
typedef enum { S_ONE, S_VOCAB, S_HIDDEN, S_INNER, S_Q, S_KV, S_QKV } s_size_t;

typedef struct {
    tl_role_t role;
    const char *name;       //  inside blocks: after the block's prefix
    s_size_t rows, columns; //  columns S_ONE: a vector
} s_entry_t;

typedef struct {
    const char *block_prefix; //  with the block's number
    s_entry_t embed;
    s_entry_t block[16]; //  block_count of them
    size_t block_count;
    s_entry_t ends[2]; //  final norm: weight and perhaps bias
    size_t end_count;
    s_entry_t head;
} s_family_t;

static const s_family_t s_chatglm = {
    .block_prefix = "transformer.layers.%zu.",
    .embed = {TL_SLOT_EMBED, "transformer.word_embeddings.weight", S_VOCAB, S_HIDDEN},
    .block =
        {
            {TL_SLOT_NORM1, "input_layernorm.weight", S_HIDDEN, S_ONE},
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
            {TL_SLOT_DOWN_BIAS, "mlp.dense_4h_to_h.bias", S_HIDDEN, S_ONE},
        },
    .block_count = 12,
    .ends = {{TL_SLOT_FINAL, "transformer.final_layernorm.weight", S_HIDDEN, S_ONE},
             {TL_SLOT_FINAL_BIAS, "transformer.final_layernorm.bias", S_HIDDEN, S_ONE}},
    .end_count = 2,
    .head = {TL_SLOT_HEAD, "lm_head.weight", S_VOCAB, S_HIDDEN},
};

static const s_family_t s_llama = {
    .block_prefix = "model.layers.%zu.",
    .embed = {TL_SLOT_EMBED, "model.embed_tokens.weight", S_VOCAB, S_HIDDEN},
    .block =
        {
            {TL_SLOT_NORM1, "input_layernorm.weight", S_HIDDEN, S_ONE},
            {TL_SLOT_Q, "self_attn.q_proj.weight", S_Q, S_HIDDEN},
            {TL_SLOT_K, "self_attn.k_proj.weight", S_KV, S_HIDDEN},
            {TL_SLOT_V, "self_attn.v_proj.weight", S_KV, S_HIDDEN},
            {TL_SLOT_OUT, "self_attn.o_proj.weight", S_HIDDEN, S_Q},
            {TL_SLOT_NORM2, "post_attention_layernorm.weight", S_HIDDEN, S_ONE},
            {TL_SLOT_GATE, "mlp.gate_proj.weight", S_INNER, S_HIDDEN},
            {TL_SLOT_UP, "mlp.up_proj.weight", S_INNER, S_HIDDEN},
            {TL_SLOT_DOWN, "mlp.down_proj.weight", S_HIDDEN, S_INNER},
        },
    .block_count = 9,
    .ends = {{TL_SLOT_FINAL, "model.norm.weight", S_HIDDEN, S_ONE}},
    .end_count = 1,
    .head = {TL_SLOT_HEAD, "lm_head.weight", S_VOCAB, S_HIDDEN},
};

static const s_family_t *
s_family (const tl_config_t *config)
{
    return config->family == TL_FAMILY_CHATGLM ? &s_chatglm : &s_llama;
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
    return (tl_shape_t){
        .layernorm = chatglm,
        .residual_normed = chatglm,
        .fused_qkv = chatglm,
        .rope_2d = chatglm,
        .prefix_mask = chatglm,
        .gated = !chatglm,
        .rope_fp16 = chatglm,
        .rope_style = config->rope_style,
        .alpha = chatglm ? config->alpha : 1,
    };
}

const char *const *
tl_default_targets (const tl_config_t *config, size_t *count)
{
    static const char *const chatglm[] = {"query_key_value"};
    static const char *const llama[] = {"q_proj", "v_proj"};
    *count = config->family == TL_FAMILY_CHATGLM ? 1 : 2;
    return config->family == TL_FAMILY_CHATGLM ? chatglm : llama;
}

size_t
tl_layout_count (const tl_config_t *config)
{
    const s_family_t *family = s_family (config);
    return 1 + config->blocks * family->block_count + family->end_count + (config->tied ? 0 : 1);
}

void
tl_layout_at (const tl_config_t *config, size_t index, tl_slot_t *slot)
{
    const s_family_t *family = s_family (config);
    tl_assert (index < tl_layout_count (config));
    memset (slot, 0, sizeof *slot);
    const s_entry_t *entry = &family->embed;
    size_t used = 0;
    if (index > 0) {
        size_t rest = index - 1, in_blocks = config->blocks * family->block_count;
        if (rest < in_blocks) {
            slot->block = rest / family->block_count;
            entry = &family->block[rest % family->block_count];
            used =
                (size_t)snprintf (slot->name, sizeof slot->name, family->block_prefix, slot->block);
            slot->linear = entry->columns != S_ONE;
        } else
            entry = rest - in_blocks < family->end_count ? &family->ends[rest - in_blocks]
                                                         : &family->head;
    }
    snprintf (slot->name + used, sizeof slot->name - used, "%s", entry->name);
    slot->role = entry->role;
    slot->rows = s_size (config, entry->rows);
    slot->columns = s_size (config, entry->columns);
    slot->vector = entry->columns == S_ONE;
}
