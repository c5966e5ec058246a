//  tiny_model: see tiny_model.h.

#include "tiny_model.h"

#include "assert.h"
#include "file.h"
#include "memory.h"
#include "model/config.h"
#include "model/internal.h"
#include "model/safetensors.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tiny_model_t
tiny_chatglm (void)
{
    return (tiny_model_t){.family = TL_FAMILY_CHATGLM,
                          .vocab = 96,
                          .hidden = 32,
                          .inner = 56,
                          .blocks = 5,
                          .heads = 4,
                          .kv_heads = 4,
                          .head_dim = 8,
                          .tied = true,
                          .dtype = TL_F16,
                          .seed = 11};
}

tiny_model_t
tiny_llama (bool tied)
{
    return (tiny_model_t){.family = TL_FAMILY_LLAMA,
                          .vocab = 96,
                          .hidden = 32,
                          .inner = 48,
                          .blocks = 5,
                          .heads = 4,
                          .kv_heads = 2,
                          .head_dim = 8,
                          .tied = tied,
                          .llama3 = tied,
                          .dtype = TL_BF16,
                          .seed = 12};
}

tiny_model_t
tiny_glm (bool hf)
{
    return (tiny_model_t){.family = TL_FAMILY_GLM,
                          .hf = hf,
                          .vocab = 96,
                          .hidden = 32,
                          .inner = 40,
                          .blocks = 5,
                          .heads = 4,
                          .kv_heads = 2,
                          .head_dim = 8,
                          .dtype = TL_BF16,
                          .seed = 13};
}

tiny_model_t
tiny_qwen2 (bool tied)
{
    return (tiny_model_t){.family = TL_FAMILY_QWEN2,
                          .vocab = 96,
                          .hidden = 32,
                          .inner = 48,
                          .blocks = 5,
                          .heads = 4,
                          .kv_heads = 2,
                          .head_dim = 8,
                          .tied = tied,
                          .dtype = TL_F16,
                          .seed = 14};
}

char *
tiny_directory (void)
{
    const char *base = getenv ("TMPDIR");
    char *path = tl_format ("%s/trunkline-test-XXXXXX", base && *base ? base : "/tmp");
    tl_assert (mkdtemp (path) != NULL);
    return path;
}

//  ---------------------------------------------------------------------------------------------
//  Models

static const char *
s_dtype_name (tl_dtype_t dtype)
{
    return dtype == TL_F32 ? "float32" : dtype == TL_F16 ? "float16" : "bfloat16";
}

static char *
s_chatglm_json (const tiny_model_t *spec)
{
    int vocab = (int)spec->vocab;
    return tl_format ("{\"architectures\": [\"ChatGLMModel\"], \"model_type\": \"chatglm\", "
                      "\"position_encoding_2d\": true, \"vocab_size\": %d, \"hidden_size\": "
                      "%zu, "
                      "\"num_layers\": %zu, \"num_attention_heads\": %zu, "
                      "\"inner_hidden_size\": %zu, \"layernorm_epsilon\": 1e-05, "
                      "\"max_sequence_length\": 256, \"mask_token_id\": %d, "
                      "\"gmask_token_id\": %d, "
                      "\"bos_token_id\": %d, \"eos_token_id\": %d, \"pad_token_id\": 3, "
                      "\"torch_dtype\": \"%s\"}\n",
                      vocab, spec->hidden, spec->blocks, spec->heads, spec->inner, vocab - 4,
                      vocab - 3, vocab - 2, vocab - 1, s_dtype_name (spec->dtype));
}

static char *
s_chatglm2_json (const tiny_model_t *spec)
{
    return tl_format (
        "{\"architectures\": [\"ChatGLMModel\"], \"model_type\": \"chatglm\", "
        "\"add_bias_linear\": false, \"add_qkv_bias\": true, \"multi_query_attention\": true, "
        "\"original_rope\": true, \"post_layer_norm\": true, \"rmsnorm\": true, "
        "\"padded_vocab_size\": %zu, \"hidden_size\": %zu, \"num_layers\": %zu, "
        "\"num_attention_heads\": %zu, \"multi_query_group_num\": %zu, \"kv_channels\": %zu, "
        "\"ffn_hidden_size\": %zu, \"layernorm_epsilon\": 1e-05, \"seq_length\": 256, "
        "\"eos_token_id\": 2, \"pad_token_id\": 0, \"tie_word_embeddings\": false, "
        "\"torch_dtype\": \"%s\"}\n",
        spec->vocab, spec->hidden, spec->blocks, spec->heads, spec->kv_heads, spec->head_dim,
        spec->inner, s_dtype_name (spec->dtype));
}

//  What differs between Hugging Face's classes.
static const struct {
    const char *class, *type, *own; //  own: keys of this class
} s_classes[] = {
    [TL_FAMILY_GLM] = {"GlmForCausalLM", "glm",
                       "\"attention_bias\": true, \"partial_rotary_factor\": 0.5, "},
    [TL_FAMILY_LLAMA] = {"LlamaForCausalLM", "llama",
                         "\"attention_bias\": false, \"mlp_bias\": false, "},
    [TL_FAMILY_QWEN2] = {"Qwen2ForCausalLM", "qwen2", "\"use_sliding_window\": false, "},
};

static char *
s_hf_json (const tiny_model_t *spec)
{
    return tl_format (
        "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", %s\"hidden_act\": \"silu\", "
        "\"vocab_size\": %zu, \"hidden_size\": %zu, \"intermediate_size\": %zu, "
        "\"num_hidden_layers\": %zu, \"num_attention_heads\": %zu, \"num_key_value_heads\": %zu, "
        "\"head_dim\": %zu, \"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-05, "
        "\"rope_theta\": 10000.0, %s\"tie_word_embeddings\": %s, \"bos_token_id\": 1, "
        "\"eos_token_id\": 2, \"pad_token_id\": 0, \"torch_dtype\": \"%s\"}\n",
        s_classes[spec->family].class, s_classes[spec->family].type, s_classes[spec->family].own,
        spec->vocab, spec->hidden, spec->inner, spec->blocks, spec->heads, spec->kv_heads,
        spec->head_dim,
        spec->llama3 ? "\"rope_scaling\": {\"factor\": 8.0, \"high_freq_factor\": 4.0, "
                       "\"low_freq_factor\": 1.0, \"original_max_position_embeddings\": 512, "
                       "\"rope_type\": \"llama3\"}, "
                     : "",
        spec->tied ? "true" : "false", s_dtype_name (spec->dtype));
}

static char *
s_json (const tiny_model_t *spec)
{
    if (spec->family == TL_FAMILY_CHATGLM)
        return s_chatglm_json (spec);
    return spec->family == TL_FAMILY_GLM && !spec->hf ? s_chatglm2_json (spec) : s_hf_json (spec);
}

//  transformers reads no file without it.
static const char *const s_metadata[] = {"format", "pt", NULL};

//  Matrices keep the size of what goes through them, norms are about 1, biases
//  about 0.
static void *
s_values (const tiny_model_t *spec, const tl_slot_t *slot)
{
    size_t count = slot->rows * slot->columns;
    tl_stream_t stream = {spec->seed, TL_DRAW_INIT, 0, 0, tl_random_name (slot->name)};
    bool bias = slot->vector && strstr (slot->name, ".bias");
    bool norm = slot->vector && !bias;
    double scale = slot->role == TL_SLOT_EMBED ? 0.5
                   : slot->vector              ? 0.1
                                               : 1 / sqrt ((double)slot->columns);
    float *values = tl_alloc (count * sizeof *values);
    void *stored = tl_alloc (tl_dtype_bytes (spec->dtype, count));
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(scale * tl_random_normal (&stream, i) + (norm ? 1 : 0));
    tl_narrow (stored, values, spec->dtype, count);
    free (values);
    return stored;
}

int
tiny_model_write (const tiny_model_t *spec, const char *directory, tl_error_t *err)
{
    tl_config_t config;
    char *json = s_json (spec);
    char *path = tl_format ("%s/config.json", directory);
    int rc = tl_config_parse (path, json, strlen (json), &config, err);
    if (rc == 0)
        rc = tl_file_write (path, json, strlen (json), 0644, err);
    free (path);
    free (json);
    if (rc != 0)
        return -1;
    size_t count = tl_layout_count (&config);
    tl_slot_t *slots = tl_alloc (count * sizeof *slots);
    tl_st_tensor_t *tensors = tl_alloc (count * sizeof *tensors);
    for (size_t i = 0; i < count; i++) {
        tl_layout_at (&config, i, &slots[i]);
        size_t values = slots[i].rows * slots[i].columns;
        tensors[i] = (tl_st_tensor_t){.name = slots[i].name,
                                      .dtype = spec->dtype == TL_F32   ? TL_ST_F32
                                               : spec->dtype == TL_F16 ? TL_ST_F16
                                                                       : TL_ST_BF16,
                                      .dimensions = slots[i].vector ? 1 : 2,
                                      .shape = {slots[i].rows, slots[i].columns},
                                      .bytes = tl_dtype_bytes (spec->dtype, values),
                                      .data = s_values (spec, &slots[i])};
    }
    path = tl_format ("%s/model.safetensors", directory);
    if (rc == 0)
        rc = tl_safetensors_write (path, 0644, tensors, count, s_metadata, err);
    free (path);
    for (size_t i = 0; i < count; i++)
        free ((void *)tensors[i].data);
    free (tensors);
    free (slots);
    return rc;
}

tl_model_t *
tiny_model_open (const tiny_model_t *spec)
{
    tl_error_t err = {.text = ""};
    char *directory = tiny_directory ();
    tl_model_t *model =
        tiny_model_write (spec, directory, &err) == 0 ? tl_model_open (directory, &err) : NULL;
    if (!model)
        fprintf (stderr, "%s\n", err.text);
    tl_assert (model != NULL);
    tl_remove_tree (directory);
    free (directory);
    return model;
}

//  ---------------------------------------------------------------------------------------------
//  Micros

tl_batch_t *
tiny_batch (const tl_config_t *config, uint64_t seed, size_t sequences, size_t least, size_t most,
            uint64_t first)
{
    tl_assert (least >= 3 && most >= least);
    tl_batch_t *self = tl_alloc (sizeof *self);
    uint32_t *length = tl_alloc (sequences * sizeof *length);
    uint32_t *context = tl_alloc (sequences * sizeof *context);
    uint32_t *mask = tl_alloc (sequences * sizeof *mask);
    uint64_t *number = tl_alloc (sequences * sizeof *number);
    int32_t *ids = tl_alloc (sequences * most * sizeof *ids);
    int32_t *labels = tl_alloc (sequences * most * sizeof *labels);
    for (size_t i = 0; i < sequences; i++) {
        tl_stream_t stream = {seed, TL_DRAW_SAMPLE, 0, first + i, 0};
        number[i] = first + i;
        length[i] = (uint32_t)(least + tl_random_below (&stream, 0, most - least + 1));
        context[i] = (uint32_t)(2 + tl_random_below (&stream, 1, length[i] - 2));
        mask[i] = tl_random_below (&stream, 2, 3) ? context[i] - 1 : context[i] / 2;
        for (uint32_t row = 0; row < length[i]; row++) {
            int32_t *label = &labels[self->rows + row];
            ids[self->rows + row] = (int32_t)tl_random_below (&stream, 8 + 2 * row, config->vocab);
            *label = row + 1 >= context[i]
                         ? (int32_t)tl_random_below (&stream, 9 + 2 * row, config->vocab)
                         : -1;
        }
        self->rows += length[i];
    }
    self->sequences = sequences;
    self->length = length;
    self->context = context;
    self->mask = mask;
    self->number = number;
    self->ids = ids;
    self->labels = labels;
    return self;
}

void
tiny_batch_destroy (tl_batch_t **self_p)
{
    tl_batch_t *self = *self_p;
    if (!self)
        return;
    free ((void *)self->length);
    free ((void *)self->context);
    free ((void *)self->mask);
    free ((void *)self->number);
    free ((void *)self->ids);
    free ((void *)self->labels);
    free (self);
    *self_p = NULL;
}
