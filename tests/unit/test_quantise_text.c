//  A directory's tokenizer inside the GGUF file that is made of it gives the same ids and texts; what GGUF has no words
//  for is left out with a sentence.

#include "unit/cmocka_all.h"

#include "tiny_bpe.h"
#include "tiny_model.h"
#include "tiny_tokenizer.h"

#include "data/data.h"
#include "data/write_gguf.h"
#include "file.h"
#include "memory.h"
#include "model/quantise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *s_root; //  a fresh directory for each test

static int
s_setup (void **state)
{
    s_root = tiny_directory ();
    return 0;
}

static int
s_teardown (void **state)
{
    int rc = tl_remove_tree (s_root);
    free (s_root);
    return rc;
}

//  A model in s_root becomes s_root/model.gguf with its tokenizer; -1 with the reason when there is none to carry.
static int
s_write (tiny_model_t spec, tl_error_t *err)
{
    tl_quantise_report_t report;
    if (tiny_model_write (&spec, s_root, err) != 0)
        fail_msg ("%s", err->text);
    tl_model_t *model = tl_model_open (s_root, err);
    if (!model)
        fail_msg ("%s", err->text);
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    int rc = tl_tokenizer_write_gguf (s_root, tl_model_config (model), writer, err);
    char *out = tl_format ("%s/model.gguf", s_root);
    tl_error_t other;
    if (tl_model_quantise (model, writer, out, TL_F16, &report, &other) != 0)
        fail_msg ("%s", other.text);
    free (out);
    tl_gguf_writer_destroy (&writer);
    tl_model_destroy (&model);
    return rc;
}

//  The directory's tokenizer and the file's agree on every text.
static void
s_compare (void)
{
    static const char *const texts[] = {
        "", "the other one, then the end", " two  spaces\n\tand 2025 digits",
        "na\xc3\xafve \xe4\xbd\xa0\xe5\xa5\xbd <s> <|end|> 'tis", "\xff broken \xc3"};
    tl_error_t err;
    char *file = tl_format ("%s/model.gguf", s_root);
    tl_model_t *models[] = {tl_model_open (s_root, &err), tl_model_open (file, &err)};
    const char *const paths[] = {s_root, file};
    tl_tokenizer_t *tokenizers[2];
    for (size_t i = 0; i < 2; i++) {
        //  The tiny model's ids are a SentencePiece model's; pieces are what is compared here.
        tl_config_t config = *tl_model_config (models[i]);
        config.bos = config.eos = config.pad = -1;
        tokenizers[i] = tl_tokenizer_open (paths[i], &config, &err);
        if (!tokenizers[i])
            fail_msg ("%s", err.text);
    }
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        int32_t *ids[2];
        size_t counts[2], sizes[2];
        char *decoded[2];
        for (size_t i = 0; i < 2; i++) {
            ids[i] = tl_tokenizer_encode (tokenizers[i], texts[t], strlen (texts[t]), &counts[i]);
            decoded[i] = tl_tokenizer_decode (tokenizers[i], ids[i], counts[i], &sizes[i]);
        }
        assert_int_equal (counts[1], counts[0]);
        assert_memory_equal (ids[1], ids[0], counts[0] * sizeof (int32_t));
        assert_int_equal (sizes[1], sizes[0]);
        assert_memory_equal (decoded[1], decoded[0], sizes[0]);
        for (size_t i = 0; i < 2; i++) {
            free (ids[i]);
            free (decoded[i]);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        tl_tokenizer_destroy (&tokenizers[i]);
        tl_model_destroy (&models[i]);
    }
    free (file);
}

static void
test_a_sentencepiece_model_is_carried (void **state)
{
    tl_error_t err;
    tiny_model_t spec = tiny_llama (true);
    spec.vocab = tiny_tokenizer_vocab (TL_FAMILY_LLAMA) + 5; //  more rows than pieces
    assert_int_equal (tiny_tokenizer_write (TL_FAMILY_LLAMA, s_root, &err), 0);
    if (s_write (spec, &err) != 0)
        fail_msg ("%s", err.text);
    s_compare ();
}

static int
s_write_bpe (tiny_bpe_t bpe, tiny_model_t spec, tl_error_t *err)
{
    static const char *const merges[] = {"t h", "th e", "\xc4\xa0 the", "o n", NULL};
    bpe.merges = merges;
    char *json = tiny_bpe_json (&bpe);
    assert_int_equal (tiny_bpe_put (s_root, "tokenizer.json", json, err), 0);
    free (json);
    spec.vocab = 270;
    return s_write (spec, err);
}

#define LEVEL                                                                                      \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "              \
    "\"use_regex\": false}"

static void
test_byte_level_tokenizers_are_carried (void **state)
{
    static const tiny_bpe_t kinds[] = {
        {.added =
             "[{\"id\": 260, \"content\": \"<|end|>\", \"single_word\": false, \"lstrip\": false, "
             "\"rstrip\": false, \"normalized\": false, \"special\": true}]"},
        {.pairs = true,
         .pre_tokenizer = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", "
                          "\"individual_digits\": true}, {\"type\": \"ByteLevel\", "
                          "\"add_prefix_space\": false, \"use_regex\": true}]}"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        tl_error_t err;
        if (s_write_bpe (kinds[i], tiny_qwen2 (true), &err) != 0)
            fail_msg ("%s", err.text);
        s_compare ();
    }
}

static void
test_what_gguf_has_no_words_for_is_left_out (void **state)
{
    static const tiny_bpe_t kinds[] = {
        {.pre_tokenizer =
             "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": "
             "{\"Regex\": \"x+\"}, \"behavior\": \"Isolated\", \"invert\": false}, " LEVEL "]}"},
        {.normalizer = "{\"type\": \"NFC\"}"},
        {.model = "\"ignore_merges\": true, "},
    };
    tl_error_t err;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        assert_int_equal (s_write_bpe (kinds[i], tiny_qwen2 (true), &err), -1);
        assert_non_null (strstr (err.text, "GGUF has no name for"));
    }
    char *json = tl_format ("%s/tokenizer.json", s_root);
    remove (json);
    free (json);
    assert_int_equal (s_write (tiny_llama (true), &err), -1);
    assert_non_null (strstr (err.text, "neither tokenizer.model nor tokenizer.json"));
}

int
main (void)
{
#define TEST(name) cmocka_unit_test_setup_teardown (name, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        TEST (test_a_sentencepiece_model_is_carried),
        TEST (test_byte_level_tokenizers_are_carried),
        TEST (test_what_gguf_has_no_words_for_is_left_out),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
