//  Byte-level tokenizers of every file kind: merging, pre-tokenizers, added tokens, composed text, decoding id by id. Small ones
//  made here; the vendors' own are tokenizer_check's.

#include "unit/cmocka_all.h"

#include "tiny_bpe.h"
#include "tiny_tokenizer.h"

#include "data/data.h"
#include "data/spm.h"
#include "file.h"
#include "memory.h"
#include "model/gguf_write.h"
#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    char root[64];
} fixture_t;

static int
s_setup (void **state)
{
    fixture_t *self = tl_alloc (sizeof *self);
    strcpy (self->root, "/tmp/tl-tok-XXXXXX");
    *state = self;
    return mkdtemp (self->root) ? 0 : -1;
}

static int
s_teardown (void **state)
{
    fixture_t *self = *state;
    int rc = tl_remove_tree (self->root);
    free (self);
    return rc;
}

static const tl_config_t s_plain = {.family = TL_FAMILY_LLAMA,
                                    .vocab = 1000,
                                    .max_positions = 100,
                                    .bos = -1,
                                    .eos = -1,
                                    .pad = -1,
                                    .gmask = -1,
                                    .mask = -1,
                                    .sop = -1};

static tl_tokenizer_t *
s_open (fixture_t *self, const char *name, const tl_config_t *config)
{
    tl_error_t err = {.text = ""};
    char *path = tl_format ("%s/%s", self->root, name);
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (path, config, &err);
    free (path);
    if (!tokenizer)
        fail_msg ("%s", err.text);
    return tokenizer;
}

static tl_tokenizer_t *
s_of_json (fixture_t *self, const tiny_bpe_t *spec)
{
    tl_error_t err = {.text = ""};
    char *json = tiny_bpe_json (spec);
    assert_int_equal (tiny_bpe_put (self->root, "tokenizer.json", json, &err), 0);
    free (json);
    return s_open (self, "", &s_plain);
}

//  Ids as "1 2 3".
static char *
s_words (const int32_t *ids, size_t count)
{
    char *words = tl_strdup ("");
    for (size_t i = 0; i < count; i++) {
        char *more = tl_format ("%s%s%d", words, i ? " " : "", ids[i]);
        free (words);
        words = more;
    }
    return words;
}

static void
s_encodes (const tl_tokenizer_t *tokenizer, const char *text, size_t size, bool parsed,
           const char *expected)
{
    size_t count;
    int32_t *ids = parsed ? tl_tokenizer_encode_parsed (tokenizer, text, size, &count)
                          : tl_tokenizer_encode (tokenizer, text, size, &count);
    char *got = s_words (ids, count);
    if (strcmp (got, expected) != 0)
        fail_msg ("'%s': expected %s, got %s", text, expected, got);
    free (got);
    free (ids);
}

#define ENCODES(tokenizer, text, expected)                                                         \
    s_encodes (tokenizer, text, sizeof text - 1, false, expected)
#define PARSES(tokenizer, text, expected)                                                          \
    s_encodes (tokenizer, text, sizeof text - 1, true, expected)

//  ---------------------------------------------------------------------------------------------
//  Merging

static void
test_merges_in_their_order (void **state)
{
    static const char *const merges[] = {"l o", "lo w", "e r", "a a", "aa a", "w e", NULL};
    for (int pairs = 0; pairs < 2; pairs++) {
        tl_tokenizer_t *tokenizer =
            s_of_json (*state, &(tiny_bpe_t){.merges = merges, .pairs = pairs});
        assert_int_equal (tl_tokenizer_pieces (tokenizer), 262);
        ENCODES (tokenizer, "lower", "257 258"); //  "lo w" comes before "w e"
        ENCODES (tokenizer, "weer", "261 258");  //  and "e r" before "w e" where they share
        ENCODES (tokenizer, "wer", "119 258");
        ENCODES (tokenizer, "aaaa", "259 259");  //  the same pair: leftmost first
        ENCODES (tokenizer, "aaaaa", "259 260"); //  then the next merge joins aa and a
        ENCODES (tokenizer, "", "");
        tl_tokenizer_destroy (&tokenizer);
    }
}

//  Hugging Face: with ignore_merges a whole piece of text that is a piece is that one, by whatever merges.
static void
test_whole_pieces_first (void **state)
{
    static const char *const merges[] = {"a b", "b c", "a bc", NULL};
    tl_tokenizer_t *tokenizer = s_of_json (*state, &(tiny_bpe_t){.merges = merges});
    ENCODES (tokenizer, "abc", "256 99");
    tl_tokenizer_destroy (&tokenizer);
    tokenizer =
        s_of_json (*state, &(tiny_bpe_t){.merges = merges, .model = "\"ignore_merges\": true, "});
    ENCODES (tokenizer, "abc", "258");
    ENCODES (tokenizer, "abc abcd", "258 32 256 99 100");
    tl_tokenizer_destroy (&tokenizer);
}

//  SmolLM2: a byte without a piece vanishes, and its neighbours meet.
static void
test_bytes_without_a_piece (void **state)
{
    static const char *const merges[] = {"a b", NULL};
    tl_tokenizer_t *tokenizer = s_of_json (*state, &(tiny_bpe_t){.merges = merges, .missing = 'x'});
    ENCODES (tokenizer, "axb", "256");
    ENCODES (tokenizer, "x", "");
    tl_tokenizer_destroy (&tokenizer);
}

static void
test_broken_utf8_is_replaced (void **state)
{
    tl_tokenizer_t *tokenizer = s_of_json (*state, &(tiny_bpe_t){0});
    ENCODES (tokenizer,
             "a\xff"
             "b",
             "97 239 191 189 98");
    ENCODES (tokenizer, "\xe4\xbd", "239 191 189"); //  one for a beginning
    ENCODES (tokenizer, "\xed\xa0\x80", "239 191 189 239 191 189 239 191 189"); //  a surrogate
    ENCODES (tokenizer, "a\0b", "97 0 98");
    tl_tokenizer_destroy (&tokenizer);
}

//  CPU seconds for a line of size letters without a space; the shortest of three.
static double
s_time (const tl_tokenizer_t *tokenizer, size_t size)
{
    double best = 1e9;
    char *line = tl_alloc (size);
    for (size_t i = 0; i < size; i++)
        line[i] = "abcdab"[i * 7 % 6];
    for (int i = 0; i < 3; i++) {
        size_t count;
        clock_t start = clock ();
        int32_t *ids = tl_tokenizer_encode (tokenizer, line, size, &count);
        double seconds = (double)(clock () - start) / CLOCKS_PER_SEC;
        best = seconds < best ? seconds : best;
        assert_true (count > 0 && count < size);
        free (ids);
    }
    free (line);
    return best;
}

//  Quadratic time would take sixteen times as long for four times as much, and minutes for a megabyte.
static void
test_a_long_line_takes_no_quadratic_time (void **state)
{
    static const char *const merges[] = {
        "a b", "c d", "ab cd", "a d", "abcd abcd", "abcdabcd abcdabcd", NULL};
    tl_tokenizer_t *tokenizer = s_of_json (*state, &(tiny_bpe_t){.merges = merges});
    double small = s_time (tokenizer, 1 << 18), large = s_time (tokenizer, 1 << 20);
    if (large > 10 * small + 0.1)
        fail_msg ("256 KB take %.3f s, 1 MB %.3f s", small, large);
    tl_tokenizer_destroy (&tokenizer);
}

//  ---------------------------------------------------------------------------------------------
//  Pre-tokenizers

static void
test_pre_tokenizers (void **state)
{
    static const char *const merges[] = {"1 2", "a 1", NULL};
    tl_tokenizer_t *tokenizer = s_of_json (
        *state,
        &(tiny_bpe_t){.merges = merges,
                      .pre_tokenizer =
                          "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", "
                          "\"individual_digits\": true}, {\"type\": \"ByteLevel\", "
                          "\"add_prefix_space\": false, \"use_regex\": true}]}"});
    ENCODES (tokenizer, "a12", "97 49 50");
    tl_tokenizer_destroy (&tokenizer);
    tokenizer = s_of_json (
        *state,
        &(tiny_bpe_t){.merges = merges,
                      .pre_tokenizer = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
                                       "\"Split\", \"pattern\": {\"Regex\": \"\\\\p{N}+\"}, "
                                       "\"behavior\": \"Removed\", \"invert\": true}, {\"type\": "
                                       "\"ByteLevel\", \"use_regex\": false}]}"});
    ENCODES (tokenizer, "a12 b2", "256 50"); //  only what matches stays
    tl_tokenizer_destroy (&tokenizer);
    tokenizer = s_of_json (
        *state, &(tiny_bpe_t){.merges = merges,
                              .pre_tokenizer = "{\"type\": \"ByteLevel\", \"use_regex\": false}"});
    ENCODES (tokenizer, "a12", "97 256");
    tl_tokenizer_destroy (&tokenizer);
}

//  ---------------------------------------------------------------------------------------------
//  Added tokens, composed text

#define ADDED(id, content, special, normalized)                                                    \
    "{\"id\": " #id ", \"content\": \"" content "\", \"special\": " #special                       \
    ", \"normalized\": " #normalized ", \"lstrip\": false, \"rstrip\": false, "                    \
    "\"single_word\": false}"

static void
test_added_tokens (void **state)
{
    tl_tokenizer_t *tokenizer = s_of_json (
        *state,
        &(tiny_bpe_t){.added = "[" ADDED (256, "<|a|>", true, false) ", " ADDED (
                          257, "<|a|>b", true, false) ", " ADDED (258, "tool", false, false) "]"});
    assert_int_equal (tl_tokenizer_special (tokenizer, "<|a|>"), 256);
    assert_int_equal (tl_tokenizer_special (tokenizer, "<|b|>"), -1);
    //  Special names in a user's text are letters; tokens that aren't special are found in any.
    ENCODES (tokenizer, "<|a|>", "60 124 97 124 62");
    PARSES (tokenizer, "<|a|>", "256");
    PARSES (tokenizer, "x<|a|>bc<|a|>c", "120 257 99 256 99"); //  the longest that fits
    ENCODES (tokenizer, "stool", "115 258");
    PARSES (tokenizer, "<<|a|", "60 60 124 97 124");
    size_t size;
    int32_t ids[] = {256, 258, 97, 257};
    char *text = tl_tokenizer_decode (tokenizer, ids, 4, &size);
    assert_string_equal (text, "toola");
    free (text);
    tl_tokenizer_destroy (&tokenizer);
}

//  Qwen2: text is composed before it is split; names are found before that, or after where they say so.
static void
test_composed_text (void **state)
{
    tl_tokenizer_t *tokenizer = s_of_json (
        *state, &(tiny_bpe_t){.normalizer = "{\"type\": \"NFC\"}",
                              .added = "[" ADDED (256, "e\u0301", false, false) ", " ADDED (
                                  257, "\u00e9!", false, true) "]"});
    ENCODES (tokenizer, "e\u0301", "256");
    ENCODES (tokenizer, "o\u0301", "195 179");
    ENCODES (tokenizer, "\u00e9", "195 169");
    ENCODES (tokenizer, "\u212b", "195 133"); //  the sign for one angstrom is a letter
    ENCODES (tokenizer, "\u00e9!", "257");
    tl_tokenizer_destroy (&tokenizer);
    tokenizer = s_of_json (*state, &(tiny_bpe_t){0});
    ENCODES (tokenizer, "e\u0301", "101 204 129");
    tl_tokenizer_destroy (&tokenizer);
}

//  ---------------------------------------------------------------------------------------------
//  Other files

static void
test_vocab_and_merges (void **state)
{
    fixture_t *self = *state;
    tl_error_t err = {.text = ""};
    static const char *const merges[] = {"l o", "# #", "\u0120 lo", NULL};
    tiny_bpe_t spec = {.merges = merges};
    char *vocab = tiny_bpe_vocab (&spec), *list = tiny_bpe_merges (&spec);
    assert_int_equal (tiny_bpe_put (self->root, "vocab.json", vocab, &err), 0);
    assert_int_equal (tiny_bpe_put (self->root, "merges.txt", list, &err), 0);
    tl_tokenizer_t *tokenizer = s_open (self, "", &s_plain);
    ENCODES (tokenizer, "lo lo##", "256 258 257"); //  only the first line may be a comment
    ENCODES (tokenizer, "o\u0301", "111 204 129");
    tl_tokenizer_destroy (&tokenizer);
    //  Qwen2's files look the same; its class, or its model's family, tells. Numbers may be beyond any integer.
    assert_int_equal (
        tiny_bpe_put (self->root, "tokenizer_config.json",
                      "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"model_max_length\":"
                      " 1000000000000000019884624838656, \"added_tokens_decoder\": "
                      "{\"259\": {\"content\": \"<|im_end|>\", \"special\": true}}}",
                      &err),
        0);
    tokenizer = s_open (self, "vocab.json", &s_plain);
    ENCODES (tokenizer, "o\u0301", "195 179");
    PARSES (tokenizer, "lo<|im_end|>", "256 259");
    tl_tokenizer_destroy (&tokenizer);
    free (vocab);
    free (list);
}

static void
test_tiktoken (void **state)
{
    fixture_t *self = *state;
    tl_error_t err = {.text = ""};
    static const char *const pieces[] = {"ab", "bc", "abc", "12", NULL};
    char *lines = tiny_bpe_tiktoken (pieces);
    assert_int_equal (tiny_bpe_put (self->root, "tokenizer.model", lines, &err), 0);
    tl_config_t config = s_plain;
    config.family = TL_FAMILY_GLM;
    tl_tokenizer_t *tokenizer = s_open (self, "", &config);
    assert_int_equal (tl_tokenizer_pieces (tokenizer), 260 + 14);
    assert_int_equal (tl_tokenizer_special (tokenizer, "<|endoftext|>"), 260);
    ENCODES (tokenizer, "abc", "258");
    ENCODES (tokenizer, "abcd",
             "258 100"); //  neighbours that are a piece together, the lowest first
    ENCODES (tokenizer, "1234", "259 51 52");
    ENCODES (tokenizer, "[gMASK]", "91 103 77 65 83 75 93");
    PARSES (tokenizer, "[gMASK]<sop>", "262 264");
    tl_tokenizer_destroy (&tokenizer);
    free (lines);
}

//  Metadata of a model that has nothing else.
static void
s_write_gguf (fixture_t *self, const char *model, const char *pre, const tl_gguf_text_t *tokens,
              const int32_t *types, const float *scores, size_t count, const tl_gguf_text_t *merges,
              size_t merge_count)
{
    tl_error_t err = {.text = ""};
    char *path = tl_format ("%s/model.gguf", self->root);
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    tl_gguf_put_text (writer, "tokenizer.ggml.model", model);
    if (pre)
        tl_gguf_put_text (writer, "tokenizer.ggml.pre", pre);
    tl_gguf_put_texts (writer, "tokenizer.ggml.tokens", tokens, count);
    tl_gguf_put_int32s (writer, "tokenizer.ggml.token_type", types, count);
    if (scores)
        tl_gguf_put_floats (writer, "tokenizer.ggml.scores", scores, count);
    if (merges)
        tl_gguf_put_texts (writer, "tokenizer.ggml.merges", merges, merge_count);
    if (tl_gguf_writer_begin (writer, path, 0644, &err) != 0 ||
        tl_gguf_writer_finish (writer, &err) != 0)
        fail_msg ("%s", err.text);
    tl_gguf_writer_destroy (&writer);
    free (path);
}

static void
test_gguf_byte_level (void **state)
{
    static const char *const words[] = {"a", "b", "1", "2", "ab", "12", "<|im_end|>", "tool"};
    static const int32_t types[] = {1, 1, 1, 1, 1, 1, 3, 4};
    tl_gguf_text_t tokens[8], merges[2] = {{"a b", 3}, {"1 2", 3}};
    for (int i = 0; i < 8; i++)
        tokens[i] = (tl_gguf_text_t){words[i], strlen (words[i])};
    s_write_gguf (*state, "gpt2", "smollm", tokens, types, NULL, 8, merges, 2);
    tl_tokenizer_t *tokenizer = s_open (*state, "model.gguf", &s_plain);
    ENCODES (tokenizer, "ab12", "4 2 3"); //  digits one by one; bytes without a piece vanish
    ENCODES (tokenizer, "abz<|im_end|>tool", "4 7");
    PARSES (tokenizer, "a<|im_end|>", "0 6");
    tl_tokenizer_destroy (&tokenizer);
    s_write_gguf (*state, "gpt2", "gpt-2", tokens, types, NULL, 8, merges, 2);
    tokenizer = s_open (*state, "model.gguf", &s_plain);
    ENCODES (tokenizer, "ab12", "4 5");
    tl_tokenizer_destroy (&tokenizer);
}

static void
test_gguf_sentencepiece (void **state)
{
    enum { COUNT = 3 + 256 + 5 };
    static const char *const words[] = {"\u2581", "a", "b", "ab", "\u2581ab"};
    char bytes[256][8];
    tl_gguf_text_t tokens[COUNT] = {{"<unk>", 5}, {"<s>", 3}, {"</s>", 4}};
    int32_t types[COUNT] = {2, 3, 3};
    float scores[COUNT] = {0};
    for (int i = 0; i < 256; i++) {
        snprintf (bytes[i], sizeof bytes[i], "<0x%02X>", i);
        tokens[3 + i] = (tl_gguf_text_t){bytes[i], 6};
        types[3 + i] = 6;
    }
    for (int i = 0; i < 5; i++) {
        tokens[259 + i] = (tl_gguf_text_t){words[i], strlen (words[i])};
        types[259 + i] = 1;
        scores[259 + i] = (float)-i;
    }
    s_write_gguf (*state, "llama", NULL, tokens, types, scores, COUNT, NULL, 0);
    tl_config_t config = s_plain;
    config.bos = 1;
    config.eos = 2;
    tl_tokenizer_t *tokenizer = s_open (*state, "model.gguf", &config);
    ENCODES (tokenizer, "ab", "263");
    ENCODES (tokenizer, "aab\n", "259 260 262 13");
    PARSES (tokenizer, "</s>a", "2 259 260");
    tl_prompt_t prompt;
    tl_prompt_make (&prompt, tokenizer, "ab", 2);
    assert_int_equal (prompt.count, 2);
    assert_int_equal (prompt.ids[0], 1);
    tl_prompt_clear (&prompt);
    tl_tokenizer_destroy (&tokenizer);
}

//  ---------------------------------------------------------------------------------------------
//  Decoding

static void
test_characters_come_when_they_are_whole (void **state)
{
    static const struct {
        int32_t id;
        const char *text;
    } steps[] = {{'a', "a"},
                 {0xe4, ""},
                 {0xbd, ""},
                 {0xa0, "\u4f60"},
                 {0xf0, ""},
                 {0x9f, ""},
                 {'b', "\ufffd"
                       "b"},
                 {0x80, "\ufffd"},
                 {0xe4, ""},
                 {0xe4, "\ufffd"}};
    tl_tokenizer_t *tokenizer = s_of_json (*state, &(tiny_bpe_t){0});
    tl_decoder_t *decoder = tl_decoder_new (tokenizer);
    size_t size;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const char *text = tl_decoder_put (decoder, steps[i].id, &size);
        if (size != strlen (steps[i].text) || memcmp (text, steps[i].text, size) != 0)
            fail_msg ("step %zu: expected '%s', got '%.*s'", i, steps[i].text, (int)size, text);
    }
    const char *rest = tl_decoder_finish (decoder, &size);
    assert_int_equal (size, 3);
    assert_memory_equal (rest, "\ufffd", 3);
    tl_decoder_destroy (&decoder);
    tl_tokenizer_destroy (&tokenizer);
}

//  Our own rules for SentencePiece's pieces against the library's, on ids drawn at random.
static void
s_decodes_as_the_library (fixture_t *self, tl_family_t family)
{
    enum { DRAWS = 3000, LONGEST = 12 };
    tl_error_t err = {.text = ""};
    char reason[100], *path = tl_format ("%s/tokenizer.model", self->root);
    tl_config_t config = tiny_tokenizer_config (family);
    assert_int_equal (tiny_tokenizer_write (family, self->root, &err), 0);
    tl_tokenizer_t *tokenizer = s_open (self, "", &config);
    size_t size = 0, pieces = tl_tokenizer_pieces (tokenizer);
    char *data = tl_file_read (path, 1 << 20, &size, &err);
    tl_spm_t *spm = tl_spm_open (data, size, reason, sizeof reason);
    const tl_stream_t stream = {.seed = 7, .purpose = TL_DRAW_SHUFFLE};
    for (uint64_t draw = 0; draw < DRAWS; draw++) {
        int32_t ids[LONGEST];
        size_t count = 1 + draw % LONGEST, expected_size = 0, got_size = 0;
        for (size_t i = 0; i < count; i++) {
            //  Bytes, blanks and letters are what matters: the control pieces of both ends are left out.
            uint64_t at = draw * LONGEST + i;
            ids[i] = (int32_t)(4 + tl_random_below (&stream, at, pieces - 8));
            if (ids[i] < 85 && family == TL_FAMILY_CHATGLM)
                ids[i] = (int32_t)pieces - 99; //  the sign for a space
        }
        char *expected = tl_spm_decode (spm, ids, count, &expected_size);
        char *got = tl_tokenizer_decode (tokenizer, ids, count, &got_size);
        if (got_size != expected_size || memcmp (got, expected, got_size) != 0)
            fail_msg ("draw %d: expected '%s', got '%s'", (int)draw, expected, got);
        free (expected);
        free (got);
    }
    tl_spm_destroy (&spm);
    free (data);
    free (path);
    tl_tokenizer_destroy (&tokenizer);
}

static void
test_sentencepiece_decoding (void **state)
{
    s_decodes_as_the_library (*state, TL_FAMILY_LLAMA);
    s_decodes_as_the_library (*state, TL_FAMILY_CHATGLM);
}

//  ChatGLM-6B turns names of blanks into blanks, however they came about; what may become one is held back.
static void
test_names_of_blanks (void **state)
{
    static const struct {
        const char *text, *decoded, *before_end;
    } cases[] = {{"a<n>b", "a\nb", "a\nb"},
                 {"<|tab|>", "\t", "\t"},
                 {"<|blank_3|>x", "   x", "   x"},
                 {"<|blank_81|>", "<|blank_81|>", "<|blank_81|>"},
                 {"<|blank_0|>", "<|blank_0|>", "<|blank_0|>"},
                 {"<<n><", "<\n<", "<\n"},
                 {"<|blank_1", "<|blank_1", ""},
                 {"<|ta|b", "<|ta|b", "<|ta|b"}};
    fixture_t *self = *state;
    tl_error_t err = {.text = ""};
    tl_config_t config = tiny_tokenizer_config (TL_FAMILY_CHATGLM);
    assert_int_equal (tiny_tokenizer_write (TL_FAMILY_CHATGLM, self->root, &err), 0);
    tl_tokenizer_t *tokenizer = s_open (self, "", &config);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_decoder_t *decoder = tl_decoder_new (tokenizer);
        char *got = tl_strdup ("");
        const int32_t bang = (int32_t)config.vocab - 4 - 94; //  '!', the first letter
        for (const char *letter = cases[i].text; *letter; letter++) {
            size_t size;
            const char *text = tl_decoder_put (decoder, bang + *letter - '!', &size);
            char *more = tl_format ("%s%.*s", got, (int)size, text);
            free (got);
            got = more;
        }
        assert_string_equal (got, cases[i].before_end);
        size_t size;
        const char *rest = tl_decoder_finish (decoder, &size);
        char *all = tl_format ("%s%.*s", got, (int)size, rest);
        assert_string_equal (all, cases[i].decoded);
        free (all);
        free (got);
        tl_decoder_destroy (&decoder);
    }
    tl_tokenizer_destroy (&tokenizer);
}

int
main (void)
{
#define TEST(test) cmocka_unit_test_setup_teardown (test, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        TEST (test_merges_in_their_order),
        TEST (test_whole_pieces_first),
        TEST (test_bytes_without_a_piece),
        TEST (test_broken_utf8_is_replaced),
        TEST (test_a_long_line_takes_no_quadratic_time),
        TEST (test_pre_tokenizers),
        TEST (test_added_tokens),
        TEST (test_composed_text),
        TEST (test_vocab_and_merges),
        TEST (test_tiktoken),
        TEST (test_gguf_byte_level),
        TEST (test_gguf_sentencepiece),
        TEST (test_characters_come_when_they_are_whole),
        TEST (test_sentencepiece_decoding),
        TEST (test_names_of_blanks),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
