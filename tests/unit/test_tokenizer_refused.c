//  Tokenizer files that are broken, hostile, or have in them what isn't known here: a sentence each, that names file and entry
//  and says what to do.

#include "unit/cmocka_all.h"

#include "tiny_bpe.h"
#include "tiny_tokenizer.h"

#include "data/data.h"
#include "data/spm_file.h"
#include "file.h"
#include "memory.h"
#include "model/gguf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char root[64];
} fixture_t;

static int
s_setup (void **state)
{
    fixture_t *self = tl_alloc (sizeof *self);
    strcpy (self->root, "/tmp/tl-tokno-XXXXXX");
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

static void
s_refused (fixture_t *self, const tl_config_t *config, const char *name, const char *one,
           const char *two)
{
    tl_error_t err = {.text = ""};
    char *path = tl_format ("%s/%s", self->root, name);
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (path, config, &err);
    if (tokenizer)
        fail_msg ("opened, expected a sentence with '%s' and '%s'", one, two);
    assert_int_equal (err.code, TL_BAD_INPUT);
    if (!strstr (err.text, one) || !strstr (err.text, two) || !strstr (err.text, name))
        fail_msg ("expected '%s', '%s' and the file's name in: %s", one, two, err.text);
    free (path);
}

static void
s_put (fixture_t *self, const char *name, const char *text)
{
    tl_error_t err = {.text = ""};
    assert_int_equal (tiny_bpe_put (self->root, name, text, &err), 0);
}

//  ---------------------------------------------------------------------------------------------
//  tokenizer.json

#define SPLIT(regex, behavior)                                                                     \
    "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"pattern\": {\"Regex\": " \
    "\"" regex "\"}, \"behavior\": \"" behavior "\"}, {\"type\": \"ByteLevel\"}]}"
#define ADDED(id, content, more)                                                                   \
    "[{\"id\": " id ", \"content\": \"" content "\", \"special\": true" more "}]"

static void
test_parts_that_are_not_known (void **state)
{
    static const char *const cycle[] = {"a b", "ab ab", "ab x", NULL};
    static const char *const unknown[] = {"a b", NULL};
    static const struct {
        tiny_bpe_t spec;
        const char *one, *two;
    } cases[] = {
        {{.normalizer = "{\"type\": \"NFKC\"}"}, "normalizer", "NFKC"},
        {{.normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Lowercase\"}]}"},
         "normalizer",
         "Lowercase"},
        {{.pre_tokenizer = "{\"type\": \"Metaspace\"}"}, "pre_tokenizer", "Metaspace"},
        {{.pre_tokenizer = "null"}, "pre_tokenizer", "null"},
        {{.pre_tokenizer = "{\"type\": \"ByteLevel\", \"add_prefix_space\": true}"},
         "pre_tokenizer",
         "add_prefix_space"},
        {{.pre_tokenizer = SPLIT ("a", "MergedWithNext")}, "pre_tokenizer", "MergedWithNext"},
        {{.pre_tokenizer = SPLIT ("\\\\p{Han}", "Isolated")}, "\\p{Han}", "isn't supported"},
        {{.pre_tokenizer = SPLIT ("(a", "Isolated")}, "(a", "is broken"},
        {{.pre_tokenizer = SPLIT ("(?:a+)+[b-d]", "Isolated")}, "(?:a+)+[b-d]", "for ever"},
        {{.pre_tokenizer =
              "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, "
              "{\"type\": \"Digits\"}]}"},
         "behind ByteLevel",
         "Digits"},
        {{.decoder = "{\"type\": \"Fuse\"}"}, "decoder", "Fuse"},
        {{.post_processor = "{\"type\": \"BertProcessing\"}"}, "post_processor", "Bert"},
        {{.post_processor = "{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {}}, "
                            "{\"SpecialToken\": {\"id\": \"x\"}}]}"},
         "behind the text",
         "SpecialToken"},
        {{.model = "\"dropout\": 0.1, "}, "dropout", "0.1"},
        {{.model = "\"end_of_word_suffix\": \"</w>\", "}, "end_of_word_suffix", "</w>"},
        {{.model = "\"unk_token\": \"a\", ", .missing = 'x'}, "1 of the 256 bytes", "0x78"},
        {{.added = ADDED ("300", "<e>", "")}, "no piece with the id 256", "301 ids"},
        {{.added = ADDED ("97", "<e>", "")}, "'<e>'", "another piece ('a')"},
        {{.added = ADDED ("-1", "<e>", "")}, "added_tokens", "no id"},
        {{.added = ADDED ("99999999", "<e>", "")}, "added_tokens", "no id"},
        {{.added = ADDED ("256", "", "")}, "added token 256", "0 bytes"},
        {{.added = ADDED ("256", "<e>", ", \"lstrip\": true")}, "lstrip", "<e>"},
        {{.added = "[{\"id\": 256, \"content\": \"<e>\"}, {\"id\": 257, \"content\": \"<e>\"}]"},
         "'<e>'",
         "256 and 257"},
        //  Pieces that grow from one another without end can't be written; what can is a merge of what isn't there.
        {{.merges = cycle, .model = "\"vocab\": {}, "}, "tokenizer.json", "fetch the file again"},
        {{.merges = unknown, .missing = 'a'}, "merge 0", "the left part is no piece"},
        {{.merges = unknown, .missing = 'b'}, "merge 0", "the right part is no piece"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *json = tiny_bpe_json (&cases[i].spec);
        s_put (*state, "tokenizer.json", json);
        s_refused (*state, &s_plain, "tokenizer.json", cases[i].one, cases[i].two);
        free (json);
    }
}

static void
test_json_that_is_broken (void **state)
{
    static const struct {
        const char *text, *one, *two;
    } cases[] = {
        {"", "not valid JSON", "fetch"},
        {"[1, 2]", "model.type", "missing"},
        {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "model.type", "Unigram"},
        {"{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": {}}}", "model.type", "BPE"},
        {"{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}", "piece 0 ('b')",
         "of piece 0"},
        {"{\"model\": {\"vocab\": {\"a\": 1.5}, \"merges\": []}}", "piece 'a'", "-1"},
        {"{\"model\": {\"vocab\": {\"a\": 4294967296}, \"merges\": []}}", "piece 'a'", "-1"},
        {"{\"model\": {\"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []}}", "not valid JSON", "dup"},
        {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}", "entry 0", "\"a b\""},
        {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a a a\"]}}", "entry 0", "\"a b\""},
        {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", "entry 0", "\"a b\""},
        {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]}}", "merge 0",
         "the two together"},
        {"{\"model\": {\"vocab\": {}, \"merges\": []}, \"pre_tokenizer\": {\"type\": "
         "\"ByteLevel\"}, \"decoder\": {\"type\": \"ByteLevel\"}}",
         "vocabulary is empty", "fetch"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s_put (*state, "tokenizer.json", cases[i].text);
        s_refused (*state, &s_plain, "tokenizer.json", cases[i].one, cases[i].two);
    }
}

//  ---------------------------------------------------------------------------------------------
//  vocab.json, merges.txt, tokenizer_config.json

static void
test_vocab_and_merges (void **state)
{
    static const struct {
        const char *vocab, *merges, *one, *two;
    } cases[] = {
        {"{", "", "vocab.json:1", "not a JSON object"},
        {"[]", "", "vocab.json:1", "another value"},
        {"{\"a\": 0, \"b\": 5000000}", "", "piece 'b'", "expected 0 to"},
        {"{\"a\": 0, \"b\": 2}", "", "no piece with the id 1", "3 ids"},
        {"{\"(\\u4e2d)\": 0}", "", "256 of the 256 bytes", "vocab.json"},
        {"{\"a\": 0}", "#version: 1\na", "merges.txt:2", "one space"},
        {"{\"a\": 0}", "a  a", "merges.txt:1", "one space"},
        {"{\"a\": 0}", "\na b\n", "merges.txt: merge 2", "the right part"},
    };
    fixture_t *self = *state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s_put (self, "vocab.json", cases[i].vocab);
        s_put (self, "merges.txt", cases[i].merges);
        s_refused (self, &s_plain, "", cases[i].one, cases[i].two);
    }
    char *merges = tl_format ("%s/merges.txt", self->root);
    assert_int_equal (tl_remove_tree (merges), 0);
    s_refused (self, &s_plain, "", "merges.txt can't be opened", "check the path");
    free (merges);
}

static void
test_tokenizer_config (void **state)
{
    static const struct {
        const char *text, *one, *two;
    } cases[] = {
        {"{", "tokenizer_config.json:1", "not valid JSON"},
        {"{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}", "'x'", "is not an id"},
        {"{\"added_tokens_decoder\": {\"5\": {\"content\": \"\"}}}", "'5'", "1 to"},
        {"{\"added_tokens_decoder\": {\"5\": {\"content\": \"<e>\"}}}", "'<e>'", "another piece"},
        {"{\"added_tokens_decoder\": {\"300\": {\"content\": \"<e>\"}}}", "there is none for 257",
         "300"},
        {"{\"added_tokens_decoder\": {\"257\": {\"content\": \"<s>\"}}}", "the id 257", "as 256"},
    };
    char *json = tiny_bpe_json (
        &(tiny_bpe_t){.added = "[{\"id\": 256, \"content\": \"<s>\", \"special\": true}]"});
    s_put (*state, "tokenizer.json", json);
    free (json);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s_put (*state, "tokenizer_config.json", cases[i].text);
        s_refused (*state, &s_plain, "", cases[i].one, cases[i].two);
    }
    s_put (*state, "vocab.json", "{\"a\": 0}");
    s_put (*state, "merges.txt", "");
    s_put (*state, "tokenizer_config.json", "{\"tokenizer_class\": \"RobertaTokenizer\"}");
    tl_error_t err = {.text = ""};
    char *path = tl_format ("%s/vocab.json", ((fixture_t *)*state)->root);
    assert_null (tl_tokenizer_open (path, &s_plain, &err));
    assert_non_null (
        strstr (err.text, "tokenizer_config.json: tokenizer_class is 'RobertaTokenizer'"));
    free (path);
}

//  A tokenizer that isn't the model's.
static void
test_tokenizers_of_other_models (void **state)
{
    char *json = tiny_bpe_json (&(tiny_bpe_t){
        .added = "[{\"id\": 256, \"content\": \"<s>\", \"special\": true}]",
        .post_processor = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
                          "{\"id\": \"<s>\"}}, "
                          "{\"Sequence\": {}}], \"special_tokens\": {\"<s>\": {\"ids\": [256]}}}"});
    s_put (*state, "tokenizer.json", json);
    free (json);
    tl_config_t config = s_plain;
    config.vocab = 256;
    s_refused (*state, &config, "tokenizer.json", "257 pieces", "vocab_size 256");
    config = s_plain;
    config.bos = 97;
    s_refused (*state, &config, "tokenizer.json", "begins texts with 256", "bos_token_id 97");
    config = s_plain;
    config.eos = 97;
    s_refused (*state, &config, "tokenizer.json", "eos_token_id 97", "ordinary piece 'a'");
    config = s_plain;
    config.family = TL_FAMILY_GLM;
    s_refused (*state, &config, "tokenizer.json", "no pieces [gMASK]", "take both");
}

//  ---------------------------------------------------------------------------------------------
//  tiktoken

static void
test_tiktoken (void **state)
{
    static const struct {
        const char *lines, *one, *two;
    } cases[] = {
        {"YWI=\n", ":257", "there is no space"},
        {"YW! 256\n", ":257", "not base64"},
        {"YWI 256\n", ":257", "not base64"},
        {" 256\n", ":257", "not base64"},
        {"YWI= \n", ":257", "not a number"},
        {"YWI= -1\n", ":257", "not a number"},
        {"YWI= 1x\n", ":257", "not a number"},
        {"YWI= 99999999999999999999\n", ":257", "not a number"},
        {"YWI= 99999999\n", ":257", "too large"},
        {"YWI= 97\n", ":257", "belong to piece 97"},
        {"YQ== 256\n", ":257", "belong to piece 97"},
        {"YWI= 300\n", "no piece with the id 256", "301"},
    };
    static const char *const none[] = {NULL};
    tl_config_t config = s_plain;
    config.family = TL_FAMILY_GLM;
    char *bytes = tiny_bpe_tiktoken (none);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = tl_format ("%s%s", bytes, cases[i].lines);
        s_put (*state, "tokenizer.model", text);
        s_refused (*state, &config, "tokenizer.model", cases[i].one, cases[i].two);
        free (text);
    }
    s_put (*state, "tokenizer.model", "YQ== 0\n");
    s_refused (*state, &config, "tokenizer.model", "255 of the 256 bytes", "0x00");
    s_refused (*state, &s_plain, "tokenizer.model", "only GLM-4's are known", "tokenizer.json");
    free (bytes);
}

//  ---------------------------------------------------------------------------------------------
//  GGUF

enum { GGUF_TOKENS = 3 };

//  What is written of it; NULL texts aren't.
typedef struct {
    const char *model, *pre;
    const char *tokens[GGUF_TOKENS];
    int32_t types[GGUF_TOKENS];
    size_t type_count;
    const char *merge;
} gguf_t;

static void
s_write_gguf (fixture_t *self, const gguf_t *spec)
{
    tl_error_t err = {.text = ""};
    char *path = tl_format ("%s/x.gguf", self->root);
    tl_gguf_writer_t *writer = tl_gguf_writer_new ();
    tl_gguf_text_t tokens[GGUF_TOKENS];
    size_t count = 0;
    for (; count < GGUF_TOKENS && spec->tokens[count]; count++)
        tokens[count] = (tl_gguf_text_t){spec->tokens[count], strlen (spec->tokens[count])};
    if (spec->model)
        tl_gguf_put_text (writer, "tokenizer.ggml.model", spec->model);
    if (spec->pre)
        tl_gguf_put_text (writer, "tokenizer.ggml.pre", spec->pre);
    if (count)
        tl_gguf_put_texts (writer, "tokenizer.ggml.tokens", tokens, count);
    if (spec->type_count)
        tl_gguf_put_int32s (writer, "tokenizer.ggml.token_type", spec->types, spec->type_count);
    if (spec->merge) {
        tl_gguf_text_t merge = {spec->merge, strlen (spec->merge)};
        tl_gguf_put_texts (writer, "tokenizer.ggml.merges", &merge, 1);
    }
    if (tl_gguf_writer_begin (writer, path, 0644, &err) != 0 ||
        tl_gguf_writer_finish (writer, &err) != 0)
        fail_msg ("%s", err.text);
    tl_gguf_writer_destroy (&writer);
    free (path);
}

static void
test_gguf (void **state)
{
    static const struct {
        gguf_t spec;
        const char *one, *two;
    } cases[] = {
        {{.model = "gpt2"}, "tokenizer.ggml.tokens", "missing"},
        {{.model = "bert", .tokens = {"a"}}, "tokenizer.ggml.model", "'bert'"},
        {{.tokens = {"a"}}, "tokenizer.ggml.model", "expected gpt2 or llama"},
        {{.model = "gpt2", .pre = "tekken", .tokens = {"a"}}, "tokenizer.ggml.pre", "'tekken'"},
        {{.model = "gpt2", .tokens = {"a"}}, "tokenizer.ggml.merges", "missing"},
        {{.model = "gpt2", .tokens = {"a", "b"}, .types = {1}, .type_count = 1},
         "2 entries",
         "token_type 1"},
        {{.model = "gpt2", .tokens = {"a"}, .types = {9}, .type_count = 1, .merge = "a a"},
         "token_type: entry 0",
         "1 to 6"},
        {{.model = "gpt2", .tokens = {"a", "a"}, .merge = "a a"}, "piece 1 ('a')", "of piece 0"},
        {{.model = "gpt2", .tokens = {"a", "b"}, .merge = "ab"}, "merges: entry 0", "a space"},
        {{.model = "gpt2", .tokens = {"a", "b"}, .merge = "a c"}, "merge 0", "the right part"},
        {{.model = "llama", .tokens = {"a"}}, "tokenizer.ggml.scores", "missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s_write_gguf (*state, &cases[i].spec);
        s_refused (*state, &s_plain, "x.gguf", cases[i].one, cases[i].two);
    }
}

//  ---------------------------------------------------------------------------------------------
//  SentencePiece: what its library would trust

static void
s_checked (const tl_text_t *model, const char *words)
{
    tl_error_t err = {.text = ""};
    tl_spm_rules_t rules;
    size_t count;
    if (tl_spm_check ("x.model", model->data, model->size, &rules, &count, &err))
        fail_msg ("taken, expected a sentence with '%s'", words);
    if (!strstr (err.text, words) || !strstr (err.text, "x.model"))
        fail_msg ("expected '%s' and the file's name in: %s", words, err.text);
}

//  The table of a normaliser (Darts' double array of count units), behind two pieces.
static void
s_check_table (const uint32_t *units, size_t count, const char *words)
{
    enum { TEXTS = 4 };
    static const tl_spm_rules_t rules = {0};
    static const tl_spm_piece_t pieces[] = {{"<unk>", 5, 0, TL_SPM_UNKNOWN},
                                            {"a", 1, 0, TL_SPM_NORMAL}};
    tl_text_t model = {0};
    tl_spm_make (&model, pieces, 2, &rules);
    uint32_t bytes = (uint32_t)(count * 4), inside = bytes + 4 + TEXTS;
    //  normalizer_spec (3) with precompiled_charsmap (2); lengths as varints of three bytes.
    char head[] = {3 << 3 | 2,
                   (char)((inside + 4) | 128),
                   (char)((inside + 4) >> 7 | 128),
                   (char)((inside + 4) >> 14),
                   2 << 3 | 2,
                   (char)(inside | 128),
                   (char)(inside >> 7 | 128),
                   (char)(inside >> 14)};
    tl_text_add (&model, head, sizeof head);
    tl_text_add (&model, (const char *)&bytes, 4);
    tl_text_add (&model, (const char *)units, bytes);
    tl_text_add (&model, "b\0c\0", TEXTS);
    if (words)
        s_checked (&model, words);
    else {
        tl_error_t err = {.text = ""};
        tl_spm_rules_t found;
        size_t pieces_count;
        tl_spm_piece_t *checked =
            tl_spm_check ("x.model", model.data, model.size, &found, &pieces_count, &err);
        if (!checked)
            fail_msg ("%s", err.text);
        free (checked);
    }
    free (model.data);
}

//  A unit of the table: where its children begin (relative, bits turned over), whether a rule ends here, its label.
static uint32_t
s_unit (uint32_t offset, bool rule, unsigned char label)
{
    return offset << 10 | (uint32_t)rule << 8 | label;
}

static void
test_tables_that_lead_astray (void **state)
{
    enum { UNITS = 512 };
    static const char astray[] = "leads out of the file";
    uint32_t units[UNITS];
    //  Nothing at all, then one rule: "a" becomes the text at 2.
    for (int i = 0; i < UNITS; i++)
        units[i] = 1u << 31;
    units[0] = s_unit (256, false, 0);
    s_check_table (units, UNITS, NULL);
    units[256 ^ 'a'] = s_unit ('a' ^ 3, true, 'a'); //  its rule lies at 256 ^ 3
    units[256 ^ 3] = 1u << 31 | 2;
    s_check_table (units, UNITS, NULL);
    units[256 ^ 3] = 1u << 31 | 4; //  behind the texts
    s_check_table (units, UNITS, astray);
    units[256 ^ 3] = 1u << 31 | 2;
    units[256 ^ 'a'] = s_unit (4096, true, 'a'); //  out of the table
    s_check_table (units, UNITS, astray);
    units[256 ^ 'a'] = s_unit ('a', false, 'a'); //  round in a circle, which any text leaves
    s_check_table (units, UNITS, NULL);
    units[256 ^ 'a'] = s_unit ('a', true, 'a'); //  with a rule each time round
    s_check_table (units, UNITS, astray);
    s_check_table (units, 300, astray); //  children beyond the end
}

static void
test_pieces_that_are_no_pieces (void **state)
{
    static const tl_spm_rules_t rules = {0};
    static const struct {
        tl_spm_piece_t piece;
        const char *words;
    } cases[] = {{{"", 0, 0, TL_SPM_NORMAL}, "piece 1 ('')"},
                 {{"a\0b", 3, 0, TL_SPM_NORMAL}, "piece 1 ('a"},
                 {{"\xff", 1, 0, TL_SPM_NORMAL}, "piece 1"},
                 {{"a", 1, 0.0f / 0.0f, TL_SPM_NORMAL}, "a finite score"},
                 {{"a", 1, 0, (tl_spm_kind_t)7}, "a known type"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_spm_piece_t pieces[] = {{"<unk>", 5, 0, TL_SPM_UNKNOWN}, cases[i].piece};
        tl_text_t model = {0};
        tl_spm_make (&model, pieces, 2, &rules);
        s_checked (&model, cases[i].words);
        free (model.data);
    }
    //  The library looks for user-defined pieces that begin one another into a list of 64.
    static char letters[101];
    tl_spm_piece_t pieces[101] = {{"<unk>", 5, 0, TL_SPM_UNKNOWN}};
    memset (letters, 'a', sizeof letters);
    for (size_t i = 1; i <= 100; i++)
        pieces[i] = (tl_spm_piece_t){letters, i, 0, TL_SPM_USER};
    tl_text_t model = {0};
    tl_spm_make (&model, pieces, 101, &rules);
    s_checked (&model, "begin one another");
    //  Cut anywhere, it is no message, or has fewer pieces.
    for (size_t size = 1; size < 40; size++) {
        tl_error_t err = {.text = ""};
        tl_spm_rules_t found;
        size_t count = 0;
        tl_spm_piece_t *checked = tl_spm_check ("x.model", model.data, size, &found, &count, &err);
        assert_true (checked ? count < 101 : strstr (err.text, "x.model") != NULL);
        free (checked);
    }
    free (model.data);
}

int
main (void)
{
#define TEST(test) cmocka_unit_test_setup_teardown (test, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        TEST (test_parts_that_are_not_known),
        TEST (test_json_that_is_broken),
        TEST (test_vocab_and_merges),
        TEST (test_tokenizer_config),
        TEST (test_tokenizers_of_other_models),
        TEST (test_tiktoken),
        TEST (test_gguf),
        cmocka_unit_test (test_tables_that_lead_astray),
        cmocka_unit_test (test_pieces_that_are_no_pieces),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
