//  Reading GGUF: what a file holds is handed out as it is; a file that lies about anything is refused by a sentence that
//  names the key or the tensor.

#include "unit/cmocka_all.h"

#include "model/gguf.h"
#include "model/gguf_config.h"
#include "model/gguf_write.h"
#include "tiny_model.h"

#include "file.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  A file being put together, byte by byte.
typedef struct {
    char data[4096];
    size_t size;
} s_file_t;

static void
s_bytes (s_file_t *self, const void *data, size_t size)
{
    assert_true (self->size + size <= sizeof self->data);
    memcpy (self->data + self->size, data, size);
    self->size += size;
}

static void
s_number (s_file_t *self, uint64_t number, size_t bytes)
{
    s_bytes (self, &number, bytes); //  x86-64 is little-endian, too
}

static void
s_text (s_file_t *self, const char *text)
{
    s_number (self, strlen (text), 8);
    s_bytes (self, text, strlen (text));
}

static void
s_head (s_file_t *self, uint64_t version, uint64_t tensors, uint64_t keys)
{
    self->size = 0;
    s_bytes (self, "GGUF", 4);
    s_number (self, version, 4);
    s_number (self, tensors, 8);
    s_number (self, keys, 8);
}

//  A tensor [rows, columns] (rows 0: one dimension) of the format's type at offset.
static void
s_tensor (s_file_t *self, const char *name, uint64_t rows, uint64_t columns, uint64_t type,
          uint64_t offset)
{
    s_text (self, name);
    s_number (self, rows ? 2 : 1, 4);
    s_number (self, columns, 8);
    if (rows)
        s_number (self, rows, 8);
    s_number (self, type, 4);
    s_number (self, offset, 8);
}

static void
s_data (s_file_t *self, size_t size)
{
    static const char zeros[1024];
    s_bytes (self, zeros, (32 - self->size % 32) % 32);
    s_bytes (self, zeros, size);
}

//  The bytes end where the file does, so that the sanitizers see one too many.
static tl_gguf_t *
s_parse (const s_file_t *self, void **memory, tl_error_t *err)
{
    *memory = malloc (self->size ? self->size : 1);
    memcpy (*memory, self->data, self->size);
    *err = (tl_error_t){TL_OK, ""};
    return tl_gguf_parse ("x.gguf", *memory, self->size, err);
}

static void
s_refused (const s_file_t *self, const char *what)
{
    tl_error_t err;
    void *memory;
    tl_gguf_t *gguf = s_parse (self, &memory, &err);
    if (gguf)
        fail_msg ("expected to be refused with '%s', was taken", what);
    if (err.code != TL_BAD_INPUT || !strstr (err.text, what) || !strstr (err.text, "x.gguf"))
        fail_msg ("expected a sentence with '%s', got: %s", what, err.text);
    free (memory);
}

static void
test_headers_that_lie (void **state)
{
    s_file_t file;
    s_head (&file, 3, 0, 0);
    for (size_t size = 0; size < file.size; size++) {
        s_file_t cut = file;
        cut.size = size;
        s_refused (&cut, size < 4 ? "letters GGUF" : "");
    }
    file.data[0] = 'g';
    s_refused (&file, "letters GGUF");
    s_head (&file, 1, 0, 0);
    s_refused (&file, "version 1,");
    s_head (&file, 0x03000000, 0, 0);
    s_refused (&file, "version 3, big-endian");
    s_head (&file, 3, UINT64_MAX, 0);
    s_refused (&file, "18446744073709551615 tensors");
    s_head (&file, 3, 0, UINT64_MAX);
    s_refused (&file, "18446744073709551615 keys");
    s_head (&file, 3, 0, 1 << 20);
    s_refused (&file, "1048576 keys");
}

static void
s_key (s_file_t *self, const char *key, uint64_t type)
{
    s_head (self, 3, 0, 1);
    s_text (self, key);
    s_number (self, type, 4);
}

static void
test_keys_that_lie (void **state)
{
    s_file_t file;
    s_key (&file, "a.key", 99);
    s_number (&file, 0, 8);
    s_refused (&file, "a.key has type number 99");
    s_key (&file, "a.key", TL_GGUF_BOOL);
    s_number (&file, 2, 8);
    s_refused (&file, "a.key is a bool of value 2");
    s_key (&file, "a.key", TL_GGUF_U64);
    s_number (&file, 2, 4);
    s_refused (&file, "a.key is said to hold 1 values of uint64");
    s_key (&file, "a.key", TL_GGUF_TEXT);
    s_number (&file, UINT64_MAX, 8);
    s_refused (&file, "a.key should have 18446744073709551615 bytes");
    s_key (&file, "a.key", TL_GGUF_ARRAY);
    s_number (&file, TL_GGUF_ARRAY, 4);
    s_number (&file, 1, 8);
    s_refused (&file, "a.key is an array of arrays");
    s_key (&file, "a.key", TL_GGUF_ARRAY);
    s_number (&file, TL_GGUF_U32, 4);
    s_number (&file, UINT64_MAX / 4, 8);
    s_number (&file, 1, 8);
    s_refused (&file, "a.key is said to hold 4611686018427387903 values");
    s_key (&file, "a.key", TL_GGUF_ARRAY);
    s_number (&file, TL_GGUF_TEXT, 4);
    s_number (&file, 1 << 30, 8);
    s_number (&file, 0, 8);
    s_refused (&file, "a.key is said to hold 1073741824 strings");
    s_key (&file, "a.key", TL_GGUF_ARRAY);
    s_number (&file, TL_GGUF_TEXT, 4);
    s_number (&file, 2, 8);
    s_text (&file, "fine");
    s_number (&file, 100, 8);
    s_refused (&file, "a.key should have 100 bytes");
    s_key (&file, "bad\nkey", TL_GGUF_U8);
    s_number (&file, 1, 8);
    s_refused (&file, "0x0a, no part of a name");
    s_key (&file, "", TL_GGUF_U8);
    s_number (&file, 1, 8);
    s_refused (&file, "a metadata key has 0 bytes");
    s_head (&file, 3, 0, 2);
    for (size_t i = 0; i < 2; i++) {
        s_text (&file, "twice");
        s_number (&file, TL_GGUF_U32, 4);
        s_number (&file, i, 4);
    }
    s_refused (&file, "the key twice comes twice");
    static const uint64_t alignments[] = {0, 1, 24, 1u << 30};
    for (size_t i = 0; i < 4; i++) {
        s_key (&file, "general.alignment", TL_GGUF_U32);
        s_number (&file, alignments[i], 4);
        s_refused (&file, "general.alignment is");
    }
}

static void
s_one (s_file_t *self, uint64_t rows, uint64_t columns, uint64_t type, uint64_t offset)
{
    s_head (self, 3, 1, 0);
    s_tensor (self, "t", rows, columns, type, offset);
    s_data (self, 512);
}

static void
test_tensors_that_lie (void **state)
{
    s_file_t file;
    s_one (&file, 4, 4, 0, 0);
    void *memory;
    tl_error_t err;
    tl_gguf_t *gguf = s_parse (&file, &memory, &err);
    assert_non_null (gguf);
    tl_gguf_destroy (&gguf);
    free (memory);

    s_one (&file, 4, 4, 6, 0);
    s_refused (&file, "tensor t has type Q5_0 (6)");
    s_one (&file, 4, 4, 77, 0);
    s_refused (&file, "tensor t has type unknown (77)");
    s_one (&file, 4, 33, 8, 0);
    s_refused (&file, "tensor t has rows of 33 values, which blocks of 32");
    s_one (&file, 4, 0, 0, 0);
    s_refused (&file, "tensor t: size 0 of its shape");
    s_one (&file, UINT64_MAX, 4, 0, 0);
    s_refused (&file, "tensor t: size 18446744073709551615");
    s_one (&file, 1ull << 40, 1ull << 40, 0, 0);
    s_refused (&file, "tensor t: size 1099511627776 of its shape is zero or too large");
    s_one (&file, 1 << 20, 1 << 20, 0, 0);
    s_refused (&file, "tensor t of 4398046511104 bytes begins at 0 of 512");
    s_one (&file, 4, 4, 0, 16);
    s_refused (&file, "tensor t begins at 16 of the data, not a multiple of the alignment 32");
    s_one (&file, 4, 4, 0, 480);
    s_refused (&file, "tensor t of 64 bytes begins at 480 of 512");
    s_one (&file, 4, 4, 0, UINT64_MAX / 32 * 32);
    s_refused (&file, "tensor t of 64 bytes");
    s_head (&file, 3, 1, 0);
    s_text (&file, "t");
    s_number (&file, 5, 4);
    s_data (&file, 512);
    s_refused (&file, "tensor t has 5 dimensions");
    s_head (&file, 3, 2, 0);
    s_tensor (&file, "one", 4, 16, 0, 0);
    s_tensor (&file, "two", 4, 4, 0, 64);
    s_data (&file, 512);
    s_refused (&file, "tensors one and two overlap");
    s_head (&file, 3, 2, 0);
    s_tensor (&file, "one", 4, 4, 0, 0);
    s_tensor (&file, "one", 4, 4, 0, 64);
    s_data (&file, 512);
    s_refused (&file, "tensor one comes twice");
}

//  ---------------------------------------------------------------------------------------------
//  What is written is read

static tl_gguf_t *
s_reopened (tl_gguf_writer_t **writer, const void *data, size_t size)
{
    tl_error_t err;
    char *root = tiny_directory (), *path = tl_format ("%s/x.gguf", root);
    if (tl_gguf_writer_begin (*writer, path, 0644, &err) != 0 ||
        tl_gguf_writer_add (*writer, data, size, &err) != 0 ||
        tl_gguf_writer_finish (*writer, &err) != 0)
        fail_msg ("%s", err.text);
    tl_gguf_writer_destroy (writer);
    assert_true (tl_gguf_is (path));
    assert_false (tl_gguf_is (root));
    tl_gguf_t *gguf = tl_gguf_open (path, &err);
    if (!gguf)
        fail_msg ("%s", err.text);
    tl_remove_tree (root);
    free (path);
    free (root);
    return gguf;
}

static void
test_metadata_are_read_as_written (void **state)
{
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    const tl_gguf_text_t texts[] = {{"one", 3}, {"", 0}, {"a\0b", 3}};
    const int32_t numbers[] = {-1, 2, 3};
    const float floats[] = {0.5f, -2};
    tl_gguf_put_text (writer, "text", "some text");
    tl_gguf_put_number (writer, "i8", TL_GGUF_I8, -5);
    tl_gguf_put_number (writer, "u64", TL_GGUF_U64, 1e15);
    tl_gguf_put_number (writer, "f32", TL_GGUF_F32, 1e-5);
    tl_gguf_put_number (writer, "f64", TL_GGUF_F64, 0.1);
    tl_gguf_put_flag (writer, "flag", true);
    tl_gguf_put_texts (writer, "texts", texts, 3);
    tl_gguf_put_int32s (writer, "numbers", numbers, 3);
    tl_gguf_put_floats (writer, "floats", floats, 2);
    assert_true (tl_gguf_has_key (writer, "flag"));
    assert_false (tl_gguf_has_key (writer, "flags"));
    tl_gguf_t *gguf = s_reopened (&writer, NULL, 0);
    tl_gguf_text_t text;
    int64_t whole;
    double real;
    bool flag = false;
    assert_int_equal (tl_gguf_keys (gguf), 9);
    assert_true (tl_gguf_text (tl_gguf_find (gguf, "text"), 0, &text));
    assert_true (tl_gguf_text_is (text, "some text"));
    assert_true (tl_gguf_integer (tl_gguf_find (gguf, "i8"), 0, &whole) && whole == -5);
    assert_true (tl_gguf_integer (tl_gguf_find (gguf, "u64"), 0, &whole) && whole == (int64_t)1e15);
    assert_true (tl_gguf_real (tl_gguf_find (gguf, "f32"), 0, &real) && real == (double)1e-5f);
    assert_true (tl_gguf_real (tl_gguf_find (gguf, "f64"), 0, &real) && real == 0.1);
    assert_true (tl_gguf_flag (tl_gguf_find (gguf, "flag"), 0, &flag) && flag);
    assert_true (tl_gguf_text (tl_gguf_find (gguf, "texts"), 2, &text) && text.size == 3);
    assert_memory_equal (text.data, "a\0b", 3);
    assert_true (tl_gguf_integer (tl_gguf_find (gguf, "numbers"), 0, &whole) && whole == -1);
    assert_true (tl_gguf_real (tl_gguf_find (gguf, "floats"), 1, &real) && real == -2);
    //  Other types, places that aren't there and absent keys give nothing.
    assert_false (tl_gguf_integer (tl_gguf_find (gguf, "f32"), 0, &whole));
    assert_false (tl_gguf_integer (tl_gguf_find (gguf, "numbers"), 3, &whole));
    assert_false (tl_gguf_text (tl_gguf_find (gguf, "numbers"), 0, &text));
    assert_false (tl_gguf_real (tl_gguf_find (gguf, "absent"), 0, &real));
    tl_gguf_destroy (&gguf);
    tl_gguf_destroy (&gguf);
}

static void
test_tensors_are_read_as_written (void **state)
{
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    float values[3 + 2 * 4];
    for (size_t i = 0; i < 11; i++)
        values[i] = (float)i;
    const size_t vector[] = {3}, matrix[] = {2, 4};
    tl_gguf_announce (writer, "vector", TL_F32, vector, 1);
    tl_gguf_announce (writer, "matrix", TL_F32, matrix, 2);
    tl_gguf_t *gguf = s_reopened (&writer, values, sizeof values);
    const tl_gguf_tensor_t *one = tl_gguf_find_tensor (gguf, "vector");
    const tl_gguf_tensor_t *two = tl_gguf_find_tensor (gguf, "matrix");
    assert_int_equal (tl_gguf_tensors (gguf), 2);
    assert_true (one && one->dimensions == 1 && one->shape[0] == 3);
    assert_true (two && two->dimensions == 2 && two->shape[0] == 2 && two->shape[1] == 4);
    assert_memory_equal (one->data, values, 12);
    assert_memory_equal (two->data, values + 3, 32);
    assert_int_equal ((uintptr_t)two->data % 8, 0);
    assert_null (tl_gguf_find_tensor (gguf, "vectors"));
    tl_gguf_destroy (&gguf);
}

//  ---------------------------------------------------------------------------------------------
//  Metadata as a config

//  Keys of a llama; change is put in place of the value, or left out when NAN.
static tl_gguf_t *
s_llama (const char *changed, tl_gguf_type_t type, double value)
{
    static const struct {
        const char *key;
        tl_gguf_type_t type;
        double value;
    } keys[] = {{"llama.block_count", TL_GGUF_U32, 1},
                {"llama.context_length", TL_GGUF_U32, 64},
                {"llama.embedding_length", TL_GGUF_U32, 8},
                {"llama.feed_forward_length", TL_GGUF_U32, 16},
                {"llama.attention.head_count", TL_GGUF_U32, 2},
                {"llama.attention.layer_norm_rms_epsilon", TL_GGUF_F32, 1e-5},
                {"llama.rope.freq_base", TL_GGUF_F32, 500000}};
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    tl_gguf_put_text (writer, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp (keys[i].key, changed) != 0)
            tl_gguf_put_number (writer, keys[i].key, keys[i].type, keys[i].value);
    if (*changed && !isnan (value))
        tl_gguf_put_number (writer, changed, type, value);
    float zeros[12 * 8] = {0};
    const size_t shape[] = {12, 8};
    tl_gguf_announce (writer, "token_embd.weight", TL_F32, shape, 2);
    return s_reopened (&writer, zeros, sizeof zeros);
}

static void
test_metadata_become_a_config (void **state)
{
    tl_gguf_t *gguf = s_llama ("", TL_GGUF_U32, NAN);
    tl_config_t config;
    tl_error_t err;
    if (tl_gguf_config (gguf, &config, &err) != 0)
        fail_msg ("%s", err.text);
    assert_int_equal (config.family, TL_FAMILY_LLAMA);
    assert_int_equal (config.vocab, 12);
    assert_int_equal (config.head_dim, 4);
    assert_int_equal (config.kv_heads, 2);
    assert_true (config.tied);
    assert_true (config.norm_eps == 1e-5); //  the number that was meant, not fp32's
    assert_true (config.rope_base == 500000);
    assert_int_equal (config.rope_style, TL_ROPE_INTERLEAVED);
    tl_gguf_destroy (&gguf);
}

static void
test_metadata_that_contradict_or_ask_for_more (void **state)
{
    static const struct {
        const char *key;
        tl_gguf_type_t type;
        double value; //  NAN: left out
    } cases[] = {
        {"llama.block_count", TL_GGUF_U32, NAN},
        {"llama.block_count", TL_GGUF_U32, 0},
        {"llama.embedding_length", TL_GGUF_I32, -8},
        {"llama.attention.head_count", TL_GGUF_F32, 1.5},
        {"llama.attention.layer_norm_rms_epsilon", TL_GGUF_F32, NAN},
        {"llama.rope.dimension_count", TL_GGUF_U32, 2},
        {"llama.attention.value_length", TL_GGUF_U32, 0},
        {"llama.expert_count", TL_GGUF_U32, 8},
        {"llama.logit_scale", TL_GGUF_F32, 0.5},
        {"llama.attention.sliding_window", TL_GGUF_U32, 4096},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_gguf_t *gguf = s_llama (cases[i].key, cases[i].type, cases[i].value);
        tl_config_t config;
        tl_error_t err = {TL_OK, ""};
        assert_int_equal (tl_gguf_config (gguf, &config, &err), -1);
        if (err.code != TL_BAD_INPUT || !strstr (err.text, cases[i].key))
            fail_msg ("expected a sentence about %s, got: %s", cases[i].key, err.text);
        tl_gguf_destroy (&gguf);
    }
    //  What is off does no harm.
    tl_gguf_t *gguf = s_llama ("llama.expert_count", TL_GGUF_U32, 0);
    tl_config_t config;
    tl_error_t err;
    assert_int_equal (tl_gguf_config (gguf, &config, &err), 0);
    tl_gguf_destroy (&gguf);
}

static void
test_names_of_the_layout (void **state)
{
    char name[64];
    assert_true (tl_gguf_name ("model.layers.12.self_attn.k_proj.bias", name, sizeof name));
    assert_string_equal (name, "blk.12.attn_k.bias");
    assert_true (tl_gguf_name ("lm_head.weight", name, sizeof name));
    assert_string_equal (name, "output.weight");
    assert_false (tl_gguf_name ("model.layers.12.self_attn.rotary.weight", name, sizeof name));
    assert_false (tl_gguf_name ("model.layers.x", name, sizeof name));
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_headers_that_lie),
        cmocka_unit_test (test_keys_that_lie),
        cmocka_unit_test (test_tensors_that_lie),
        cmocka_unit_test (test_metadata_are_read_as_written),
        cmocka_unit_test (test_tensors_are_read_as_written),
        cmocka_unit_test (test_metadata_become_a_config),
        cmocka_unit_test (test_metadata_that_contradict_or_ask_for_more),
        cmocka_unit_test (test_names_of_the_layout),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
