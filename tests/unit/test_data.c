//  From JSONL to the rows that a segment takes: layouts of both families, shortening, order, micros, and a
//  sentence with file and line for everything that is wrong.

#include "unit/cmocka_all.h"

#include "tiny_tokenizer.h"

#include "data/data.h"
#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char root[64];
    tl_config_t config;
    tl_tokenizer_t *tokenizer;
} fixture_t;

static int
s_setup (void **state, tl_family_t family)
{
    tl_error_t err = {.text = ""};
    fixture_t *self = tl_alloc (sizeof *self);
    strcpy (self->root, "/tmp/tl-data-XXXXXX");
    if (!mkdtemp (self->root) || tiny_tokenizer_write (family, self->root, &err) != 0)
        return -1;
    self->config = tiny_tokenizer_config (family);
    self->tokenizer = tl_tokenizer_open (self->root, &self->config, &err);
    if (!self->tokenizer)
        fprintf (stderr, "%s\n", err.text);
    *state = self;
    return self->tokenizer ? 0 : -1;
}

static int
s_chatglm (void **state)
{
    return s_setup (state, TL_FAMILY_CHATGLM);
}

static int
s_llama (void **state)
{
    return s_setup (state, TL_FAMILY_LLAMA);
}

static int
s_teardown (void **state)
{
    fixture_t *self = *state;
    tl_tokenizer_destroy (&self->tokenizer);
    int rc = tl_remove_tree (self->root);
    free (self);
    return rc;
}

static tl_dataset_t *
s_open_bytes (fixture_t *self, const char *data, size_t size, const tl_data_options_t *options,
              tl_error_t *err)
{
    char *path = tl_format ("%s/text.jsonl", self->root);
    assert_int_equal (tl_file_write (path, data, size, 0644, err), 0);
    tl_dataset_t *dataset = tl_dataset_open (path, self->tokenizer, options, err);
    free (path);
    return dataset;
}

static tl_dataset_t *
s_open (fixture_t *self, const char *jsonl, const tl_data_options_t *options)
{
    tl_error_t err = {.text = ""};
    tl_dataset_t *dataset = s_open_bytes (self, jsonl, strlen (jsonl), options, &err);
    if (!dataset)
        fail_msg ("%s", err.text);
    return dataset;
}

static void
s_refused (fixture_t *self, const char *data, size_t size, const char *one, const char *two)
{
    tl_error_t err = {.text = ""};
    tl_dataset_t *dataset = s_open_bytes (self, data, size, NULL, &err);
    if (dataset)
        fail_msg ("opened '%s', expected a sentence with '%s' and '%s'", data, one, two);
    assert_int_equal (err.code, TL_BAD_INPUT);
    if (!strstr (err.text, one) || !strstr (err.text, two) || !strstr (err.text, "text.jsonl"))
        fail_msg ("expected '%s' and '%s' in: %s", one, two, err.text);
}

static int32_t
s_id (const fixture_t *self, const char *piece)
{
    size_t count = 0;
    int32_t *ids = tl_tokenizer_encode (self->tokenizer, piece, strlen (piece), &count);
    int32_t last = ids[count - 1];
    free (ids);
    return last;
}

static void
s_expect (const char *what, const int32_t *got, const int32_t *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (got[i] != expected[i])
            fail_msg ("%s %zu: expected %d, got %d", what, i, expected[i], got[i]);
}

//  ---------------------------------------------------------------------------------------------
//  Layouts

static void
test_chatglm_layout (void **state)
{
    fixture_t *self = *state;
    const tl_config_t *c = &self->config;
    tl_dataset_t *dataset = s_open (self, "{\"prompt\":\"a\",\"completion\":\"bc\"}\n", NULL);
    tl_micro_t *micro = tl_dataset_slice (dataset, 0, 1);
    const int32_t space = s_id (self, "x") - ('x' - '!') - 1;
    const int32_t a = s_id (self, "a"), b = s_id (self, "b"), d = s_id (self, "c");
    //  prompt [gMASK] sop answer (eop is only predicted); the row of [gMASK] emits sop.
    const int32_t ids[] = {space, a, c->gmask, c->sop, space, b, d};
    const int32_t labels[] = {-1, -1, c->sop, space, b, d, c->eos};
    assert_int_equal (micro->batch.rows, 7);
    assert_int_equal (micro->batch.context[0], 3);
    assert_int_equal (micro->batch.mask[0], 2);
    assert_int_equal (micro->labels, 5);
    assert_int_equal (tl_dataset_labels (dataset), 5);
    s_expect ("id", micro->batch.ids, ids, 7);
    s_expect ("label", micro->batch.labels, labels, 7);
    tl_micro_destroy (&micro);
    tl_dataset_destroy (&dataset);

    //  Plain text: nothing is given but [gMASK] and sop.
    dataset = s_open (self, "{\"text\":\"b\"}", NULL);
    micro = tl_dataset_slice (dataset, 0, 1);
    const int32_t text_ids[] = {c->gmask, c->sop, space, b};
    const int32_t text_labels[] = {c->sop, space, b, c->eos};
    assert_int_equal (micro->batch.rows, 4);
    assert_int_equal (micro->batch.context[0], 1);
    assert_int_equal (micro->batch.mask[0], 0);
    s_expect ("id", micro->batch.ids, text_ids, 4);
    s_expect ("label", micro->batch.labels, text_labels, 4);
    tl_micro_destroy (&micro);
    tl_dataset_destroy (&dataset);
}

static void
test_llama_layout (void **state)
{
    fixture_t *self = *state;
    const tl_config_t *c = &self->config;
    tl_dataset_t *dataset =
        s_open (self, "{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"text\":\"b\"}\n", NULL);
    tl_micro_t *micro = tl_dataset_slice (dataset, 0, 2);
    const int32_t space = s_id (self, "x") - ('x' - '!') - 1, a = s_id (self, "a"),
                  b = s_id (self, "b");
    const int32_t ids[] = {c->bos, space, a, space, b, c->bos, space, b};
    const int32_t labels[] = {-1, -1, space, b, c->eos, space, b, c->eos};
    assert_int_equal (micro->batch.sequences, 2);
    assert_int_equal (micro->batch.length[0], 5);
    assert_int_equal (micro->batch.length[1], 3);
    assert_int_equal (micro->batch.number[1], 1);
    s_expect ("id", micro->batch.ids, ids, 8);
    s_expect ("label", micro->batch.labels, labels, 8);
    tl_micro_destroy (&micro);
    tl_dataset_destroy (&dataset);
}

//  Both files must give the same rows.
static void
s_same (fixture_t *self, const char *one, const char *two, const tl_data_options_t *options)
{
    tl_dataset_t *a = s_open (self, one, options), *b = s_open (self, two, NULL);
    tl_micro_t *left = tl_dataset_slice (a, 0, 1), *right = tl_dataset_slice (b, 0, 1);
    assert_int_equal (left->batch.rows, right->batch.rows);
    s_expect ("id", left->batch.ids, right->batch.ids, left->batch.rows);
    s_expect ("label", left->batch.labels, right->batch.labels, left->batch.rows);
    tl_micro_destroy (&left);
    tl_micro_destroy (&right);
    tl_dataset_destroy (&a);
    tl_dataset_destroy (&b);
}

static void
test_shapes_that_people_have (void **state)
{
    fixture_t *self = *state;
    const tl_data_options_t renamed = {.columns = {.prompt = "question", .completion = "answer"}};
    s_same (self, "{\"instruction\":\"add\",\"input\":\"1 1\",\"output\":\"2\"}",
            "{\"prompt\":\"add\\n1 1\",\"completion\":\"2\"}", NULL);
    s_same (self, "{\"instruction\":\"add\",\"input\":null,\"output\":\"2\",\"id\":7}",
            "{\"prompt\":\"add\",\"completion\":\"2\"}", NULL);
    s_same (self, "{\"question\":\"q\",\"answer\":\"a\"}",
            "{\"prompt\":\"q\",\"completion\":\"a\"}", &renamed);
    //  A byte order mark, Windows line ends and empty lines do no harm.
    s_same (self, "\xef\xbb\xbf\r\n \t\r\n{\"prompt\":\"q\",\"completion\":\"\\u00e4\"}\r\n\r\n",
            "{\"completion\":\"\xc3\xa4\",\"prompt\":\"q\"}", NULL);
}

static void
test_conversations (void **state)
{
    fixture_t *self = *state;
    static const char one[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},"
                              "{\"role\":\"assistant\",\"content\":\"a\"}]}";
    static const char two[] = "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
                              "{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
                              "\"content\":\"a\"},{\"role\":\"user\",\"content\":\"r\"},"
                              "{\"role\":\"assistant\",\"content\":\"b\"}]}";
    if (self->config.family == TL_FAMILY_CHATGLM) {
        s_same (self, one, "{\"prompt\":\"q\",\"completion\":\"a\"}", NULL);
        s_same (self, two,
                "{\"prompt\":\"[Round 0]\\n问：q\\n答：a\\n[Round 1]\\n问：r\\n答：\","
                "\"completion\":\"b\"}",
                NULL);
        return;
    }
    s_same (self, one, "{\"prompt\":\"[INST] q [/INST]\",\"completion\":\"a\"}", NULL);
    tl_dataset_t *dataset = s_open (self, two, NULL);
    tl_micro_t *micro = tl_dataset_slice (dataset, 0, 1);
    int turns = 0;
    for (size_t row = 0; row < micro->batch.rows; row++)
        turns += micro->batch.ids[row] == self->config.bos;
    assert_int_equal (turns, 2);
    assert_int_equal (micro->labels, 3); //  only the last answer: a space, b, </s>
    tl_micro_destroy (&micro);
    tl_dataset_destroy (&dataset);
}

static void
test_long_examples_are_shortened (void **state)
{
    fixture_t *self = *state;
    const bool glm = self->config.family == TL_FAMILY_CHATGLM;
    const tl_data_options_t options = {.max_length = 10};
    static const char *const lines[] = {
        "{\"prompt\":\"abcdefghijklmnop\",\"completion\":\"xy\"}",
        "{\"prompt\":\"ab\",\"completion\":\"abcdefghijklmnop\"}",
        "{\"prompt\":\"abcdefghijklmnop\",\"completion\":\"abcdefghijklmnop\"}",
        "{\"text\":\"abcdefghijklmnop\"}",
    };
    for (size_t i = 0; i < 4; i++) {
        tl_dataset_t *dataset = s_open (self, lines[i], &options);
        tl_micro_t *micro = tl_dataset_slice (dataset, 0, 1);
        assert_int_equal (tl_dataset_shortened (dataset), 1);
        assert_int_equal (micro->batch.rows, 9); //  10 ids
        assert_true (micro->labels >= 4);
        if (glm)
            assert_int_equal (micro->batch.ids[micro->batch.context[0]], self->config.sop);
        else
            assert_int_equal (micro->batch.ids[0], self->config.bos);
        //  A short answer stays whole; the end of a long one is not an end.
        int32_t last = micro->batch.labels[8];
        assert_true (i == 0 ? last == self->config.eos : last != self->config.eos);
        tl_micro_destroy (&micro);
        tl_dataset_destroy (&dataset);
    }
    tl_error_t err = {.text = ""};
    const tl_data_options_t too_long = {.max_length = 5000};
    assert_null (s_open_bytes (self, "{}", 2, &too_long, &err));
    assert_non_null (strstr (err.text, "max_length is 5000, expected 4 to 4096"));
}

//  ---------------------------------------------------------------------------------------------
//  What is wrong with a file

static void
test_broken_files (void **state)
{
    static const struct {
        const char *data, *one, *two;
    } cases[] = {
        {"", "holds no example", "write one"},
        {"\n\n \n", "holds no example", "write one"},
        {"{\"text\":\"a\"}\n{\"text\":\n", "text.jsonl:2: not valid JSON", "correct the line"},
        {"{\"text\":\"a\"}\n\n{\"text\":\"\xff\"}\n", "text.jsonl:3: byte 10 (0xff)", "UTF-8"},
        {"{\"text\":\"\xed\xa0\x80\"}\n", "text.jsonl:1: byte 10 (0xed)", "UTF-8"},
        {"{\"text\":\"\xc0\xaf\"}\n", "byte 10 (0xc0)", "UTF-8"},
        {"{\"text\":\"\\ud800\"}\n", "text.jsonl:1: not valid JSON", "correct"},
        {"{\"text\":\"a\",\"text\":\"b\"}\n", "text.jsonl:1: not valid JSON", "duplicate"},
        {"[{\"text\":\"a\"}]", "one JSON list", "jq"},
        {"3\n", "text.jsonl:1: the line is not a JSON object", "prompt"},
        {"{\"q\":\"a\",\"r\":1}\n", "has the keys [q, r]", "rename them"},
        {"{\"prompt\":\"a\"}\n", "has the keys [prompt]", "completion"},
        {"{\"prompt\":1,\"completion\":\"a\"}\n", "'prompt' is 1, expected a text", "text.jsonl:1"},
        {"{\"prompt\":\"a\",\"completion\":null}\n", "'completion' is null", "a text"},
        {"{\"instruction\":\"a\",\"output\":[]}\n", "'output' is []", "a text"},
        {"{\"messages\":[]}\n", "'messages' is []", "a list of"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":"
         "\"b\"}]}\n",
         "message 2", "role 'user', expected 'assistant'"},
        {"{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":"
         "\"b\"}]}\n",
         "ends with a user's message", "no answer"},
        {"{\"messages\":[1,2]}\n", "role '(missing)'", "expected 'user'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        s_refused (*state, cases[i].data, strlen (cases[i].data), cases[i].one, cases[i].two);
    static const char nul[] = "{\"text\":\"a\0b\"}\n";
    s_refused (*state, nul, sizeof nul - 1, "text.jsonl:1", "not valid JSON");
}

static void
test_a_nul_is_a_letter (void **state)
{
    fixture_t *self = *state;
    tl_dataset_t *dataset = s_open (self, "{\"text\":\"a\\u0000b\"}", NULL);
    tl_micro_t *micro = tl_dataset_slice (dataset, 0, 1);
    size_t size = 0;
    char *text = tl_tokenizer_decode (self->tokenizer, micro->batch.ids, micro->batch.rows, &size);
    assert_int_equal (size, 3);
    assert_memory_equal (text, "a\0b", 3);
    free (text);
    tl_micro_destroy (&micro);
    tl_dataset_destroy (&dataset);
}

static void
test_tokenizers_that_dont_fit (void **state)
{
    fixture_t *self = *state;
    tl_error_t err = {.text = ""};
    tl_config_t config = self->config;
    config.vocab = 100;
    assert_null (tl_tokenizer_open (self->root, &config, &err));
    assert_non_null (strstr (err.text, "config.json has vocab_size 100"));
    config = self->config;
    config.eos -= 1;
    assert_null (tl_tokenizer_open (self->root, &config, &err));
    assert_non_null (strstr (err.text, "config.json has eos_token_id"));
    char *path = tl_format ("%s/tokenizer.model", self->root);
    assert_int_equal (tl_file_write (path, "not a model", 11, 0644, &err), 0);
    assert_null (tl_tokenizer_open (self->root, &self->config, &err));
    assert_non_null (strstr (err.text, "is not a SentencePiece model"));
    assert_int_equal (tl_remove_tree (path), 0);
    assert_null (tl_tokenizer_open (self->root, &self->config, &err));
    assert_non_null (strstr (err.text, "has neither tokenizer.model nor ice_text.model"));
    free (path);
}

static void
test_blanks_of_chatglm (void **state)
{
    fixture_t *self = *state;
    static const char text[] = "a\n\tb  c     d";
    size_t count = 0, size = 0;
    int32_t *ids = tl_tokenizer_encode (self->tokenizer, text, strlen (text), &count);
    assert_int_equal (count, 9); //  dummy prefix, a, <n>, <|tab|>, b, blank_2, c, blank_5, d
    char *back = tl_tokenizer_decode (self->tokenizer, ids, count, &size);
    assert_string_equal (back, text);
    free (back);
    free (ids);
    char spaces[82];
    memset (spaces, ' ', 81);
    spaces[81] = 0;
    ids = tl_tokenizer_encode (self->tokenizer, spaces, 81, &count);
    assert_int_equal (count, 3); //  dummy prefix, blank_80, a space
    free (ids);
}

static void
test_prompts (void **state)
{
    fixture_t *self = *state;
    const tl_config_t *c = &self->config;
    tl_prompt_t prompt;
    tl_prompt_make (&prompt, self->tokenizer, "ab", 2);
    if (c->family == TL_FAMILY_CHATGLM) {
        assert_int_equal (prompt.count, 5);
        assert_int_equal (prompt.ids[prompt.context], c->sop);
        assert_int_equal (prompt.ids[prompt.mask], c->gmask);
    } else {
        assert_int_equal (prompt.count, 4);
        assert_int_equal (prompt.ids[0], c->bos);
    }
    tl_prompt_clear (&prompt);
}

//  ---------------------------------------------------------------------------------------------
//  Order and micros

enum { EXAMPLES = 7 };

//  Seven texts of different lengths: an example is known by its rows.
static tl_dataset_t *
s_seven (fixture_t *self)
{
    char jsonl[1024] = "";
    for (int i = 0; i < EXAMPLES; i++)
        sprintf (jsonl + strlen (jsonl), "{\"text\":\"%.*s\"}\n", i + 1, "abcdefg");
    return s_open (self, jsonl, NULL);
}

static void
test_every_pass_sees_everything_in_its_own_order (void **state)
{
    tl_dataset_t *dataset = s_seven (*state);
    uint32_t order[4][EXAMPLES];
    for (uint64_t draw = 0; draw < 4 * EXAMPLES; draw++) {
        tl_micro_t *micro = tl_dataset_micro (dataset, 1, 0, draw, 1, 0, 1);
        assert_int_equal (micro->batch.number[0], draw);
        order[draw / EXAMPLES][draw % EXAMPLES] = micro->batch.length[0];
        tl_micro_destroy (&micro);
    }
    for (int pass = 0; pass < 4; pass++) {
        uint32_t seen = 0;
        for (int i = 0; i < EXAMPLES; i++)
            seen |= 1u << order[pass][i];
        assert_int_equal (__builtin_popcount (seen), EXAMPLES);
    }
    assert_memory_not_equal (order[0], order[1], sizeof order[0]);
    tl_dataset_destroy (&dataset);
}

static void
s_expect_same_batch (const tl_batch_t *one, const tl_batch_t *two)
{
    assert_int_equal (one->sequences, two->sequences);
    assert_int_equal (one->rows, two->rows);
    assert_memory_equal (one->length, two->length, one->sequences * sizeof *one->length);
    assert_memory_equal (one->context, two->context, one->sequences * sizeof *one->context);
    assert_memory_equal (one->mask, two->mask, one->sequences * sizeof *one->mask);
    assert_memory_equal (one->number, two->number, one->sequences * sizeof *one->number);
    assert_memory_equal (one->ids, two->ids, one->rows * sizeof *one->ids);
    assert_memory_equal (one->labels, two->labels, one->rows * sizeof *one->labels);
}

static void
test_a_step_depends_on_nothing_before_it (void **state)
{
    fixture_t *self = *state;
    tl_dataset_t *one = s_seven (self), *two = s_seven (self);
    for (uint64_t step = 0; step < 9; step++) {
        tl_micro_t *micro = tl_dataset_micro (one, 3, 2, step, 4, 0, 1);
        tl_micro_destroy (&micro);
    }
    tl_micro_t *left = tl_dataset_micro (one, 3, 2, 5, 4, 0, 1);
    tl_micro_t *right = tl_dataset_micro (two, 3, 2, 5, 4, 0, 1);
    s_expect_same_batch (&left->batch, &right->batch);
    assert_true (left->batch.number[0] == ((uint64_t)2 << 40) + 20);
    tl_micro_destroy (&left);
    tl_micro_destroy (&right);
    //  Another site and another seed draw differently.
    size_t differ = 0;
    for (uint64_t step = 0; step < 8; step++) {
        left = tl_dataset_micro (one, 3, 2, step, 4, 0, 1);
        right = tl_dataset_micro (two, step % 2 ? 4 : 3, step % 2 ? 2 : 1, step, 4, 0, 1);
        differ += memcmp (left->batch.length, right->batch.length, 16) != 0;
        tl_micro_destroy (&left);
        tl_micro_destroy (&right);
    }
    assert_true (differ > 4);
    tl_dataset_destroy (&one);
    tl_dataset_destroy (&two);
}

static void
test_micros_joined_are_the_batch (void **state)
{
    tl_dataset_t *dataset = s_seven (*state);
    for (size_t micros = 1; micros <= 5; micros++) {
        tl_micro_t *parts[5], *whole = tl_dataset_micro (dataset, 1, 1, 3, 5, 0, 1);
        for (size_t i = 0; i < micros; i++) {
            parts[i] = tl_dataset_micro (dataset, 1, 1, 3, 5, i, micros);
            assert_in_range (parts[i]->batch.sequences, 5 / micros, (5 + micros - 1) / micros);
        }
        tl_micro_t *joined = tl_micro_join (parts, micros);
        s_expect_same_batch (&joined->batch, &whole->batch);
        assert_int_equal (joined->labels, whole->labels);
        for (size_t i = 0; i < micros; i++)
            tl_micro_destroy (&parts[i]);
        tl_micro_destroy (&joined);
        tl_micro_destroy (&whole);
    }
    tl_dataset_destroy (&dataset);
}

static void
test_extent_bounds_every_batch (void **state)
{
    tl_dataset_t *dataset = s_seven (*state);
    for (size_t size = 1; size <= 2 * EXAMPLES + 1; size++) {
        tl_extent_t extent = tl_dataset_extent (dataset, size);
        for (uint64_t step = 0; step < 30; step++) {
            tl_micro_t *micro = tl_dataset_micro (dataset, step, 0, step, size, 0, 1);
            assert_true (micro->batch.rows <= extent.rows && micro->labels <= extent.labels);
            for (size_t i = 0; i < size; i++)
                assert_true (micro->batch.length[i] <= extent.longest);
            tl_micro_destroy (&micro);
        }
    }
    tl_dataset_destroy (&dataset);
}

static void
test_extent_of_a_run_is_its_largest_micro (void **state)
{
    enum { STEPS = 9, BATCH = 5, MICROS = 2, SEED = 3, SITE = 1 };
    tl_dataset_t *dataset = s_seven (*state);
    size_t rows = 0, labels = 0;
    for (uint64_t step = 0; step < STEPS; step++)
        for (size_t i = 0; i < MICROS; i++) {
            tl_micro_t *micro = tl_dataset_micro (dataset, SEED, SITE, step, BATCH, i, MICROS);
            rows = micro->batch.rows > rows ? micro->batch.rows : rows;
            labels = micro->labels > labels ? micro->labels : labels;
            tl_micro_destroy (&micro);
        }
    tl_extent_t run = tl_dataset_run_extent (dataset, SEED, SITE, STEPS, BATCH, MICROS);
    assert_int_equal (run.rows, rows);
    assert_int_equal (run.labels, labels);
    tl_extent_t bound = tl_dataset_extent (dataset, 3);
    run = tl_dataset_run_extent (dataset, SEED, SITE, UINT64_MAX, BATCH, MICROS);
    assert_memory_equal (&run, &bound, sizeof run);
    tl_dataset_destroy (&dataset);
}

static void
test_labels_past_a_budget_are_masked (void **state)
{
    tl_dataset_t *dataset = s_seven (*state);
    tl_micro_t *micro = tl_dataset_slice (dataset, 0, EXAMPLES);
    uint64_t all = micro->labels;
    assert_int_equal (tl_micro_trim (micro, all + 5), all);
    assert_int_equal (tl_micro_trim (micro, 6), 6);
    size_t left = 0;
    for (size_t row = 0; row < micro->batch.rows; row++)
        left += micro->batch.labels[row] >= 0;
    assert_int_equal (left, 6);
    assert_true (micro->batch.labels[0] >= 0); //  the first ones stay
    assert_int_equal (tl_micro_trim (micro, 0), 0);
    tl_micro_destroy (&micro);
    tl_dataset_destroy (&dataset);
}

static void
test_slices_cover_the_file_once (void **state)
{
    tl_dataset_t *dataset = s_seven (*state);
    size_t first = 0;
    uint64_t labels = 0;
    while (first < tl_dataset_count (dataset)) {
        size_t count = tl_dataset_fit (dataset, first, 12);
        assert_true (count >= 1);
        tl_micro_t *micro = tl_dataset_slice (dataset, first, count);
        assert_true (count == 1 || micro->batch.rows <= 12);
        labels += micro->labels;
        first += count;
        tl_micro_destroy (&micro);
    }
    assert_int_equal (tl_dataset_fit (dataset, first, 12), 0);
    assert_int_equal (labels, tl_dataset_labels (dataset));
    tl_dataset_destroy (&dataset);
}

int
main (void)
{
#define GLM(name) cmocka_unit_test_setup_teardown (name, s_chatglm, s_teardown)
#define LLAMA(name) cmocka_unit_test_setup_teardown (name, s_llama, s_teardown)
    const struct CMUnitTest tests[] = {
        GLM (test_chatglm_layout),
        LLAMA (test_llama_layout),
        GLM (test_shapes_that_people_have),
        LLAMA (test_shapes_that_people_have),
        GLM (test_conversations),
        LLAMA (test_conversations),
        GLM (test_long_examples_are_shortened),
        LLAMA (test_long_examples_are_shortened),
        GLM (test_broken_files),
        GLM (test_a_nul_is_a_letter),
        LLAMA (test_a_nul_is_a_letter),
        GLM (test_tokenizers_that_dont_fit),
        LLAMA (test_tokenizers_that_dont_fit),
        GLM (test_blanks_of_chatglm),
        GLM (test_prompts),
        LLAMA (test_prompts),
        GLM (test_every_pass_sees_everything_in_its_own_order),
        GLM (test_a_step_depends_on_nothing_before_it),
        GLM (test_micros_joined_are_the_batch),
        GLM (test_extent_bounds_every_batch),
        GLM (test_extent_of_a_run_is_its_largest_micro),
        LLAMA (test_labels_past_a_budget_are_masked),
        LLAMA (test_slices_cover_the_file_once),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
