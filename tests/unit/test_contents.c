//  What a model's weights are, told by hashes: of a sample of the whole, of every byte of a part.

#include "unit/cmocka_all.h"

#include "file.h"
#include "memory.h"
#include "model/model.h"
#include "tiny_model.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const tl_tune_t s_tune = {.method = TL_TUNE_LORA, .rank = 2, .alpha = 4, .eps = 1e-8};
static const tl_range_t s_ends[] = {{.embed = true, .first = 0, .last = 1},
                                    {.first = 4, .last = 5, .head = true}};
static const tl_range_t s_trunk[] = {{.first = 1, .last = 4}};
static const tl_range_t s_tail[] = {{.first = 4, .last = 5, .head = true}};

//  All that is told of one directory.
typedef struct {
    char sample[TL_MODEL_DIGEST], ends[TL_MODEL_DIGEST], trunk[TL_MODEL_DIGEST],
        tail[TL_MODEL_DIGEST], stamp[TL_MODEL_DIGEST], trunk_stamp[TL_MODEL_DIGEST];
} told_t;

static void
s_tell (tl_model_t *model, const tl_range_t *ranges, size_t count, char contents[TL_MODEL_DIGEST],
        char stamp[TL_MODEL_DIGEST])
{
    tl_error_t err = {0};
    tl_part_t *part = tl_part_new (model, ranges, count, &s_tune, &err);
    if (!part || tl_part_stamp (part, stamp, &err))
        fail_msg ("%s", err.text);
    tl_part_contents (part, contents);
    tl_part_destroy (&part);
}

static told_t
s_told (const char *directory)
{
    told_t told;
    tl_error_t err = {0};
    char ignored[TL_MODEL_DIGEST];
    tl_model_t *model = tl_model_open (directory, &err);
    if (!model)
        fail_msg ("%s", err.text);
    tl_model_sample (model, told.sample);
    s_tell (model, s_ends, 2, told.ends, told.stamp);
    s_tell (model, s_trunk, 1, told.trunk, told.trunk_stamp);
    s_tell (model, s_tail, 1, told.tail, ignored);
    tl_model_destroy (&model);
    return told;
}

//  Another bit at that part of a tensor's bytes.
static void
s_change (const char *directory, const char *tensor, double part)
{
    tl_error_t err;
    char *path = tl_format ("%s/model.safetensors", directory);
    size_t size;
    char *bytes = tl_file_read (path, 1 << 26, &size, &err);
    assert_non_null (bytes);
    uint64_t head;
    memcpy (&head, bytes, sizeof head);
    json_error_t error;
    json_t *header = json_loadb (bytes + 8, head, 0, &error);
    json_t *offsets = json_object_get (json_object_get (header, tensor), "data_offsets");
    assert_int_equal (json_array_size (offsets), 2);
    double first = json_number_value (json_array_get (offsets, 0));
    double last = json_number_value (json_array_get (offsets, 1));
    FILE *file = fopen (path, "r+");
    long at = (long)(8 + head) + (long)(first + part * (last - first));
    assert_int_equal (fseek (file, at, SEEK_SET), 0);
    assert_int_equal (fputc (bytes[at] ^ 4, file), (unsigned char)(bytes[at] ^ 4));
    assert_int_equal (fclose (file), 0);
    //  Two changes may be closer to each other than the file system's clock ticks
    static time_t when = 1000000000;
    when++;
    struct timespec times[2] = {{.tv_sec = when}, {.tv_sec = when}};
    assert_int_equal (utimensat (AT_FDCWD, path, times, 0), 0);
    json_decref (header);
    free (bytes);
    free (path);
}

static void
test_a_changed_byte_is_told_by_who_computes_with_it (void **state)
{
    static const struct {
        const char *tensor;
        double part;
        bool sample, ends, trunk;
    } cases[] = {
        {"model.embed_tokens.weight", 0.5, false, true, false},
        {"model.embed_tokens.weight", 0, true, true, false},
        {"model.layers.0.self_attn.q_proj.weight", 0.5, false, true, false},
        {"model.layers.1.self_attn.q_proj.weight", 0.5, false, false, true},
        {"model.layers.3.mlp.down_proj.weight", 0, true, false, true},
        {"model.layers.4.input_layernorm.weight", 0.5, true, true, false},
        {"model.norm.weight", 0, true, true, false},
        {"lm_head.weight", 0.5, false, true, false},
    };
    tiny_model_t spec = tiny_llama (false);
    char *directory = tiny_directory ();
    tl_error_t err;
    assert_int_equal (tiny_model_write (&spec, directory, &err), 0);
    told_t before = s_told (directory), again = s_told (directory);
    assert_memory_equal (&before, &again, sizeof before);
    assert_string_not_equal (before.stamp, before.trunk_stamp);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s_change (directory, cases[i].tensor, cases[i].part);
        told_t after = s_told (directory);
        if ((strcmp (before.sample, after.sample) != 0) != cases[i].sample ||
            (strcmp (before.ends, after.ends) != 0) != cases[i].ends ||
            (strcmp (before.trunk, after.trunk) != 0) != cases[i].trunk)
            fail_msg ("a change of %s is told wrongly", cases[i].tensor);
        //  Whoever noted the contents looks again
        assert_string_not_equal (before.stamp, after.stamp);
        before = after;
    }
    tl_remove_tree (directory);
    free (directory);
}

static void
test_a_tied_head_is_the_embedding (void **state)
{
    tiny_model_t spec = tiny_llama (true);
    char *directory = tiny_directory ();
    tl_error_t err;
    assert_int_equal (tiny_model_write (&spec, directory, &err), 0);
    told_t before = s_told (directory);
    s_change (directory, "model.embed_tokens.weight", 0.5);
    told_t after = s_told (directory);
    assert_string_not_equal (before.tail, after.tail);
    assert_string_not_equal (before.ends, after.ends);
    assert_string_equal (before.trunk, after.trunk);
    tl_remove_tree (directory);
    free (directory);
}

static void
test_another_model_is_told_by_its_sample (void **state)
{
    char samples[4][TL_MODEL_DIGEST];
    tiny_model_t specs[] = {tiny_llama (false), tiny_llama (false), tiny_chatglm (),
                            tiny_qwen2 (false)};
    specs[1].seed++;
    for (size_t i = 0; i < 4; i++) {
        tl_model_t *model = tiny_model_open (&specs[i]);
        tl_model_sample (model, samples[i]);
        tl_model_destroy (&model);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal (samples[i], samples[k]);
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_a_changed_byte_is_told_by_who_computes_with_it),
        cmocka_unit_test (test_a_tied_head_is_the_embedding),
        cmocka_unit_test (test_another_model_is_told_by_its_sample),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
