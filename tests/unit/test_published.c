//  What others published: rows of single blocks of ChatGLM-6B, 2, 3 and 4 with a growing cache, some of them
//  behind a trained prefix; logits and 200 greedy tokens of a small trained model.

#include "unit/cmocka_all.h"

#include "file.h"
#include "memory.h"
#include "model/safetensors.h"
#include "model/segment.h"
#include "rig.h"
#include "tiny_model.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TINY "../shared/golden/chatglm-tiny"
#define STORIES "../shared/models/stories260K"

enum { H = 32, PREFIX = 5 };

static double
s_distance (const float *one, const float *two, size_t count)
{
    double most = 0;
    for (size_t i = 0; i < count; i++) {
        double d = fabs ((double)one[i] - two[i]);
        most = d <= most ? most : d;
    }
    return most;
}

static bool
s_absent (const char *path)
{
    if (tl_exists (path))
        return false;
    print_message ("skipped: no %s\n", path);
    return true;
}

//  ---------------------------------------------------------------------------------------------
//  Raw files: weights in their order, then three calls of 3, 1 and 1 ids with the rows expected of each

typedef struct {
    const char *name;
    size_t rows, columns;
} raw_t;

static const raw_t s_chatglm[] = {
    {"transformer.word_embeddings.weight", 5, 32},
    {"transformer.layers.0.input_layernorm.weight", 32, 1},
    {"transformer.layers.0.input_layernorm.bias", 32, 1},
    {"transformer.layers.0.attention.query_key_value.weight", 96, 32},
    {"transformer.layers.0.attention.query_key_value.bias", 96, 1},
    {"transformer.layers.0.attention.dense.weight", 32, 32},
    {"transformer.layers.0.attention.dense.bias", 32, 1},
    {"transformer.layers.0.post_attention_layernorm.weight", 32, 1},
    {"transformer.layers.0.post_attention_layernorm.bias", 32, 1},
    {"transformer.layers.0.mlp.dense_h_to_4h.weight", 128, 32},
    {"transformer.layers.0.mlp.dense_h_to_4h.bias", 128, 1},
    {"transformer.layers.0.mlp.dense_4h_to_h.weight", 32, 128},
    {"transformer.layers.0.mlp.dense_4h_to_h.bias", 32, 1},
    {"transformer.final_layernorm.weight", 32, 1},
    {"transformer.final_layernorm.bias", 32, 1},
    {NULL, 0, 0},
};

static const raw_t s_glm[] = {
    {"transformer.embedding.word_embeddings.weight", 5, 32},
    {"transformer.encoder.layers.0.input_layernorm.weight", 32, 1},
    {"transformer.encoder.layers.0.self_attention.query_key_value.weight", 48, 32},
    {"transformer.encoder.layers.0.self_attention.query_key_value.bias", 48, 1},
    {"transformer.encoder.layers.0.self_attention.dense.weight", 32, 32},
    {"transformer.encoder.layers.0.post_attention_layernorm.weight", 32, 1},
    {"transformer.encoder.layers.0.mlp.dense_h_to_4h.weight", 96, 32},
    {"transformer.encoder.layers.0.mlp.dense_4h_to_h.weight", 32, 48},
    {"transformer.encoder.final_layernorm.weight", 32, 1},
    {NULL, 0, 0},
};

#define GLM_CONFIG(eps)                                                                            \
    "{\"model_type\": \"chatglm\", \"multi_query_attention\": true, \"multi_query_group_num\": "   \
    "2, "                                                                                          \
    "\"add_qkv_bias\": true, \"padded_vocab_size\": 5, \"hidden_size\": 32, \"num_layers\": 1, "   \
    "\"num_attention_heads\": 8, \"kv_channels\": 4, \"ffn_hidden_size\": 48, "                    \
    "\"layernorm_epsilon\": " eps ", \"seq_length\": 64, \"eos_token_id\": 2}"

static const char s_chatglm_config[] =
    "{\"architectures\": [\"ChatGLMModel\"], \"model_type\": \"chatglm\", "
    "\"position_encoding_2d\": true, \"vocab_size\": 5, \"hidden_size\": 32, \"num_layers\": 1, "
    "\"num_attention_heads\": 8, \"inner_hidden_size\": 128, \"layernorm_epsilon\": 1e-05, "
    "\"max_sequence_length\": 64, \"mask_token_id\": 0, \"gmask_token_id\": 1, "
    "\"bos_token_id\": 2, \"eos_token_id\": 4, \"pad_token_id\": 3}";

//  limit: above the error of a PyTorch recomputation; a prefix is stored in fp16 and was not computed so.
static const struct {
    const char *file, *config;
    const raw_t *raw;
    size_t kv_heads;
    bool prefix;
    double eps, limit;
} s_cases[] = {
    {"glm_model.data", s_chatglm_config, s_chatglm, 8, false, 1e-5, 2e-6},
    {"glm_ptuning_v2_model.data", s_chatglm_config, s_chatglm, 8, true, 1e-5, 1.2e-5},
    {"glm2_model.data", GLM_CONFIG ("1e-05"), s_glm, 2, false, 1e-5, 2e-6},
    {"glm3_model.data", GLM_CONFIG ("1e-05"), s_glm, 2, false, 1e-5, 2e-6},
    {"glm3_ptuning_v2_model.data", GLM_CONFIG ("1e-05"), s_glm, 2, true, 1e-5, 2e-4},
    {"glm4_model.data", GLM_CONFIG ("1.5625e-07"), s_glm, 2, false, 1.5625e-7, 2e-6},
};
enum { CASES = sizeof s_cases / sizeof s_cases[0] };

//  The model of the weights at *rest, which moves behind them.
static tl_model_t *
s_open (const raw_t *raw, const char *config, const char **rest)
{
    tl_error_t err = {.text = ""};
    tl_st_tensor_t tensors[17];
    size_t count = 0;
    const char *embedding = *rest;
    for (; raw->name; raw++) {
        size_t bytes = raw->rows * raw->columns * sizeof (float);
        tensors[count++] = (tl_st_tensor_t){.name = raw->name,
                                            .dtype = TL_ST_F32,
                                            .dimensions = raw->columns == 1 ? 1 : 2,
                                            .shape = {raw->rows, raw->columns},
                                            .bytes = bytes,
                                            .data = *rest};
        *rest += bytes;
    }
    //  ChatGLM2's head is a tensor of its own; no row here goes through it.
    tensors[count] = tensors[0];
    tensors[count].name = "transformer.output_layer.weight";
    tensors[count].data = embedding;
    count += strstr (config, "padded") ? 1 : 0;
    char *directory = tiny_directory ();
    char *path = tl_format ("%s/config.json", directory);
    char *weights = tl_format ("%s/model.safetensors", directory);
    tl_file_write (path, config, strlen (config), 0644, &err);
    tl_safetensors_write (weights, 0644, tensors, count, NULL, &err);
    tl_model_t *model = tl_model_open (directory, &err);
    if (!model)
        fail_msg ("%s", err.text);
    tl_remove_tree (directory);
    free (directory);
    free (path);
    free (weights);
    return model;
}

//  fp16 [key | value][head][row][d] into the part's prefix [row][key | value][head][d].
static void
s_take_prefix (const tl_part_t *part, size_t kv_heads, const char *from)
{
    const size_t d = 4, width = kv_heads * d;
    float values[2 * 8 * PREFIX * 4];
    tl_widen (values, from, TL_F16, 2 * width * PREFIX);
    const tl_tensor_t *tensor = tl_part_tensor (part, 0);
    assert_int_equal (tensor->shape[0] * tensor->shape[1], 2 * width * PREFIX);
    for (size_t i = 0; i < 2 * width * PREFIX; i++) {
        size_t kind = i / (width * PREFIX), head = i / (PREFIX * d) % kv_heads;
        size_t row = i / d % PREFIX;
        tensor->value[row * 2 * width + kind * width + head * d + i % d] = values[i];
    }
}

//  One call: count ids and the rows expected after the final norm, at *rest.
static void
s_call (rig_t *rig, tl_cache_t *cache, uint32_t length, size_t count, double eps, double limit,
        const char **rest)
{
    const uint32_t context = 2, mask = 1;
    const uint64_t number = 0;
    int32_t ids[3];
    float output[3 * H], normed[3 * H], expected[3 * H], mean[3], rstd[3];
    tl_error_t err = {.text = ""};
    memcpy (ids, *rest, count * sizeof *ids);
    *rest += count * sizeof *ids;
    memcpy (expected, *rest, count * H * sizeof (float));
    *rest += count * H * sizeof (float);
    tl_batch_t batch = {.sequences = 1,
                        .rows = count,
                        .length = &length,
                        .context = &context,
                        .mask = &mask,
                        .number = &number,
                        .ids = ids};
    if (tl_segment_extend (rig->chain[0], &cache, &batch, count, NULL, output, &err))
        fail_msg ("%s", err.text);
    tl_norm_forward (&rig->chain[0]->final, normed, mean, rstd, output, count, H, eps);
    double d = s_distance (normed, expected, count * H);
    if (!(d < limit))
        fail_msg ("rows up to %u differ by %g, limit %g", (unsigned)length, d, limit);
}

static void
test_blocks_in_three_calls (void **state)
{
    if (s_absent (TINY))
        skip ();
    for (size_t i = 0; i < CASES; i++) {
        tl_error_t err = {.text = ""};
        size_t size, prefix = s_cases[i].prefix ? 2 * s_cases[i].kv_heads * PREFIX * 4 * 2 : 0;
        char *path = tl_format (TINY "/%s", s_cases[i].file);
        char *data = tl_file_read (path, 1 << 20, &size, &err);
        if (!data)
            fail_msg ("%s", err.text);
        const char *rest = data + prefix;
        tl_model_t *model = s_open (s_cases[i].raw, s_cases[i].config, &rest);
        tl_tune_t tune = {.method = prefix ? TL_TUNE_PTUNING : TL_TUNE_LORA,
                          .rank = 1,
                          .prefix = PREFIX,
                          .frozen = prefix == 0};
        rig_t *rig = rig_new (model, 0, 0, &tune);
        if (prefix)
            s_take_prefix (rig->parts[0], s_cases[i].kv_heads, data);
        tl_cache_t *cache = tl_cache_new (rig->chain[0], 5);
        print_message ("%s\n", s_cases[i].file);
        s_call (rig, cache, 3, 3, s_cases[i].eps, s_cases[i].limit, &rest);
        s_call (rig, cache, 4, 1, s_cases[i].eps, s_cases[i].limit, &rest);
        s_call (rig, cache, 5, 1, s_cases[i].eps, s_cases[i].limit, &rest);
        assert_ptr_equal (rest, data + size);
        free (data);
        free (path);
        tl_cache_destroy (&cache);
        rig_destroy (&rig);
        tl_model_destroy (&model);
    }
}

//  ---------------------------------------------------------------------------------------------
//  stories260K

static rig_t *
s_stories (tl_model_t **model)
{
    tl_error_t err = {.text = ""};
    *model = tl_model_open (STORIES "/hf", &err);
    if (!*model)
        fail_msg ("%s", err.text);
    tl_tune_t frozen = {.method = TL_TUNE_LORA, .rank = 1, .frozen = true};
    return rig_new (*model, 0, 0, &frozen);
}

//  Reads one id at row and gives the logits of what follows.
static void
s_read_id (rig_t *rig, tl_cache_t *cache, size_t row, int32_t id, float logits[512])
{
    tl_error_t err = {.text = ""};
    float output[64];
    const uint32_t length = (uint32_t)row + 1;
    tl_batch_t batch = {.sequences = 1, .rows = 1, .length = &length, .ids = &id};
    if (tl_segment_extend (rig->chain[0], &cache, &batch, 1, NULL, output, &err))
        fail_msg ("%s", err.text);
    tl_segment_head (rig->chain[0], output, 1, logits);
}

static void
test_stories_logits (void **state)
{
    if (s_absent (STORIES))
        skip ();
    tl_error_t err = {.text = ""};
    tl_safetensors_t *file = tl_safetensors_open (STORIES "/expected.safetensors", &err);
    if (!file)
        fail_msg ("%s", err.text);
    const tl_st_tensor_t *expected = tl_safetensors_find (file, "logits");
    const tl_st_tensor_t *ids = tl_safetensors_find (file, "ids");
    assert_true (expected && ids && expected->dtype == TL_ST_F32 && expected->shape[1] == 512);
    size_t count = expected->shape[0];
    tl_model_t *model;
    rig_t *rig = s_stories (&model);
    tl_cache_t *cache = tl_cache_new (rig->chain[0], count);
    for (size_t i = 0; i < count; i++) {
        float logits[512], wanted[512], largest = 0;
        int64_t wide;
        int32_t id;
        if (ids->dtype == TL_ST_I64) {
            memcpy (&wide, (const char *)ids->data + i * sizeof wide, sizeof wide);
            id = (int32_t)wide;
        } else
            memcpy (&id, (const char *)ids->data + i * sizeof id, sizeof id);
        memcpy (wanted, (const char *)expected->data + i * sizeof wanted, sizeof wanted);
        s_read_id (rig, cache, i, id, logits);
        for (size_t j = 0; j < 512; j++)
            largest = fmaxf (largest, fabsf (wanted[j]));
        double d = s_distance (logits, wanted, 512);
        if (!(d < 5e-6 * largest))
            fail_msg ("position %zu differs by %g, the largest logit is %g", i, d, largest);
    }
    tl_safetensors_destroy (&file);
    tl_cache_destroy (&cache);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

static void
test_stories_200_greedy_tokens (void **state)
{
    if (s_absent (STORIES))
        skip ();
    json_t *json = json_load_file (STORIES "/expected.json", 0, NULL);
    json_t *greedy = json_object_get (json_object_get (json, "greedy"), "ids");
    size_t count = json_array_size (greedy);
    assert_true (count >= 200);
    tl_model_t *model;
    rig_t *rig = s_stories (&model);
    tl_cache_t *cache = tl_cache_new (rig->chain[0], count + 1);
    float logits[512];
    int32_t id = 1;
    for (size_t i = 0; i < count; i++) {
        s_read_id (rig, cache, i, id, logits);
        id = 0;
        for (int32_t j = 1; j < 512; j++)
            id = logits[j] > logits[id] ? j : id;
        if (id != json_integer_value (json_array_get (greedy, i)))
            fail_msg ("token %zu is %d, expected %d", i, id,
                      (int)json_integer_value (json_array_get (greedy, i)));
    }
    json_decref (json);
    tl_cache_destroy (&cache);
    rig_destroy (&rig);
    tl_model_destroy (&model);
}

int
main (void)
{
    if (s_absent (TINY) && s_absent (STORIES))
        return 77;
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_blocks_in_three_calls),
        cmocka_unit_test (test_stories_logits),
        cmocka_unit_test (test_stories_200_greedy_tokens),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
