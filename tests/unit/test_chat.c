//  Conversations in every vendor's layout, by tokenizers made here whose ids are bytes: what a template would have rendered is
//  written out, and read with its special tokens. Stop ids, clozes, what is learnt.

#include "unit/cmocka_all.h"

#include "tiny_bpe.h"
#include "tiny_tokenizer.h"

#include "data/data.h"
#include "data/internal.h"
#include "file.h"
#include "memory.h"

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
    strcpy (self->root, "/tmp/tl-chat-XXXXXX");
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
                                    .max_positions = 1000,
                                    .bos = -1,
                                    .eos = -1,
                                    .pad = -1,
                                    .gmask = -1,
                                    .mask = -1,
                                    .sop = -1};

static const tl_said_t s_talk[] = {{TL_SAID_SYSTEM, " Be brief.", 10},
                                   {TL_SAID_USER, " Hi\n", 4},
                                   {TL_SAID_ASSISTANT, " Yes? ", 6},
                                   {TL_SAID_USER, "1+1", 3}};

//  A byte-level tokenizer with these special tokens, ids from 256 on; template (JSON) may be NULL.
static tl_tokenizer_t *
s_open (fixture_t *self, const tl_config_t *config, const char *const *special,
        const char *template)
{
    tl_error_t err = {.text = ""};
    char *added = tl_strdup ("[");
    for (int id = 256; *special; special++, id++) {
        char *more = tl_format ("%s%s{\"id\": %d, \"content\": \"%s\", \"special\": true}", added,
                                id == 256 ? "" : ", ", id, *special);
        free (added);
        added = more;
    }
    char *closed = tl_format ("%s]", added);
    char *json = tiny_bpe_json (&(tiny_bpe_t){.added = closed});
    assert_int_equal (tiny_bpe_put (self->root, "tokenizer.json", json, &err), 0);
    if (template) {
        char *beside = tl_format ("{\"chat_template\": %s}", template);
        assert_int_equal (tiny_bpe_put (self->root, "tokenizer_config.json", beside, &err), 0);
        free (beside);
    }
    free (json);
    free (closed);
    free (added);
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (self->root, config, &err);
    if (!tokenizer)
        fail_msg ("%s", err.text);
    return tokenizer;
}

static void
s_expect (const tl_tokenizer_t *tokenizer, const char *rendered, const int32_t *ids, size_t count)
{
    size_t expected_count;
    int32_t *expected =
        tl_tokenizer_encode_parsed (tokenizer, rendered, strlen (rendered), &expected_count);
    for (size_t i = 0; i < expected_count && i < count; i++)
        if (ids[i] != expected[i])
            fail_msg ("at %zu of '%s': expected %d, got %d", i, rendered, expected[i], ids[i]);
    assert_int_equal (count, expected_count);
    free (expected);
}

//  count messages of s_talk, from first on.
static void
s_prompts (const tl_tokenizer_t *tokenizer, size_t first, size_t count, const char *rendered)
{
    tl_error_t err = {.text = ""};
    tl_prompt_t prompt;
    if (tl_prompt_chat (&prompt, tokenizer, s_talk + first, count, &err) != 0)
        fail_msg ("%s", err.text);
    s_expect (tokenizer, rendered, prompt.ids, prompt.count);
    tl_prompt_clear (&prompt);
}

static void
s_stops (const tl_tokenizer_t *tokenizer, const char *const *names)
{
    size_t count, expected = 0;
    const int32_t *stops = tl_tokenizer_stops (tokenizer, &count);
    for (; names[expected]; expected++) {
        bool there = false;
        for (size_t i = 0; i < count; i++)
            there |= stops[i] == tl_tokenizer_special (tokenizer, names[expected]);
        if (!there)
            fail_msg ("%s doesn't stop", names[expected]);
    }
    assert_int_equal (count, expected);
}

//  What an answer "ok" adds to what is given, as trained.
static void
s_learns (const tl_tokenizer_t *tokenizer, const char *rendered)
{
    tl_said_t said[] = {{TL_SAID_USER, "1+1", 3}, {TL_SAID_ASSISTANT, "ok", 2}};
    tl_example_t example = {.said = said, .count = 2, .chat = true};
    tl_sequence_t sequence;
    tl_error_t err = {.text = ""};
    assert_int_equal (tl_layout_example (&sequence, tokenizer, &example, 1000, false, &err), 0);
    s_expect (tokenizer, rendered, sequence.ids + sequence.first + 1,
              sequence.count - sequence.first - 1);
    free (sequence.ids);
}

//  ---------------------------------------------------------------------------------------------

static void
test_chatml (void **state)
{
    static const char *const special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
    static const char *const stops[] = {"<|endoftext|>", "<|im_end|>", NULL};
    static const struct {
        const char *template, *system;
        tl_family_t family;
    } models[] = {
        {NULL, "You are a helpful assistant.", TL_FAMILY_QWEN2},
        {NULL, NULL, TL_FAMILY_LLAMA},
        {"\"<|im_start|> You are Qwen, created by Alibaba Cloud. You are a helpful assistant.\"",
         "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", TL_FAMILY_QWEN2},
        {"\"<|im_start|>You are a helpful AI assistant named SmolLM\"",
         "You are a helpful AI assistant named SmolLM, trained by Hugging Face", TL_FAMILY_LLAMA},
        {"[{\"name\": \"tool\", \"template\": \"\"}, {\"name\": \"default\", \"template\": "
         "\"<|im_start|>\"}]",
         NULL, TL_FAMILY_QWEN2},
    };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        tl_config_t config = s_plain;
        config.family = models[i].family;
        tl_tokenizer_t *tokenizer = s_open (*state, &config, special, models[i].template);
        s_prompts (tokenizer, 0, 4,
                   "<|im_start|>system\n Be brief.<|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n"
                   "<|im_start|>assistant\n Yes? <|im_end|>\n<|im_start|>user\n1+1<|im_end|>\n"
                   "<|im_start|>assistant\n");
        char *rendered = tl_format (
            "%s%s%s<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n",
            models[i].system ? "<|im_start|>system\n" : "",
            models[i].system ? models[i].system : "", models[i].system ? "<|im_end|>\n" : "");
        s_prompts (tokenizer, 3, 1, rendered);
        s_stops (tokenizer, stops);
        s_learns (tokenizer, "ok<|im_end|>");
        free (rendered);
        tl_tokenizer_destroy (&tokenizer);
    }
}

#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

static void
test_llama3 (void **state)
{
    static const char *const special[] = {"<|begin_of_text|>",   "<|end_of_text|>",
                                          "<|start_header_id|>", "<|end_header_id|>",
                                          "<|eot_id|>",          NULL};
    static const char *const stops[] = {"<|end_of_text|>", "<|eot_id|>", NULL};
    tl_tokenizer_t *tokenizer =
        s_open (*state, &s_plain, special, "\"{{ '<|start_header_id|>' }}\"");
    static const char asks[] = HEADER ("user") "1+1<|eot_id|>" HEADER ("assistant");
    char *one = tl_format ("<|begin_of_text|>%s", asks);
    char *all =
        tl_format ("<|begin_of_text|>%s%s%s%s", HEADER ("system") "Be brief.<|eot_id|>",
                   HEADER ("user") "Hi<|eot_id|>", HEADER ("assistant") "Yes?<|eot_id|>", asks);
    s_prompts (tokenizer, 0, 4, all);
    s_prompts (tokenizer, 3, 1, one);
    s_stops (tokenizer, stops);
    s_learns (tokenizer, "ok<|eot_id|>");
    tl_tokenizer_destroy (&tokenizer);
    //  3.1 and later always have a system message, with dates.
    tokenizer = s_open (*state, &s_plain, special,
                        "\"<|start_header_id|>Cutting Knowledge Date: December 2023\"");
    static const char dates[] = HEADER (
        "system") "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>";
    char *dated = tl_format ("<|begin_of_text|>%s%s", dates, asks);
    s_prompts (tokenizer, 3, 1, dated);
    free (dated);
    free (one);
    free (all);
    tl_tokenizer_destroy (&tokenizer);
}

static void
test_mistral (void **state)
{
    static const char *const special[] = {"<s>", "</s>", "[INST]", "[/INST]", NULL};
    static const char *const few[] = {"<s>", "</s>", NULL};
    tl_config_t config = s_plain;
    config.bos = 256;
    config.eos = 257;
    tl_tokenizer_t *tokenizer = s_open (*state, &config, special, "\"[INST]\"");
    s_prompts (tokenizer, 0, 4, "<s>[INST] Hi\n[/INST] Yes? </s>[INST] Be brief.\n\n1+1[/INST]");
    s_prompts (tokenizer, 3, 1, "<s>[INST]1+1[/INST]");
    s_learns (tokenizer, "ok</s>");
    tl_tokenizer_destroy (&tokenizer);
    //  Where [INST] is text.
    tokenizer = s_open (*state, &config, few, "\"[INST]\"");
    s_prompts (tokenizer, 0, 4,
               "<s>[INST]  Be brief.\n\n Hi\n [/INST] Yes? </s>[INST] 1+1 [/INST]");
    tl_tokenizer_destroy (&tokenizer);
    //  Llama 2's own.
    tokenizer = s_open (*state, &config, few, "\"[INST] <<SYS>>\"");
    s_prompts (tokenizer, 0, 4,
               "<s>[INST] <<SYS>>\n Be brief.\n<</SYS>>\n\n Hi [/INST] Yes? </s><s>[INST] 1+1 "
               "[/INST]");
    s_prompts (tokenizer, 1, 3, "<s>[INST] Hi [/INST] Yes? </s><s>[INST] 1+1 [/INST]");
    tl_tokenizer_destroy (&tokenizer);
}

static void
test_glm4 (void **state)
{
    fixture_t *self = *state;
    static const char *const pieces[] = {"ok", NULL};
    static const char *const stops[] = {"<|endoftext|>", "<|user|>", "<|observation|>", NULL};
    tl_error_t err = {.text = ""};
    char *lines = tiny_bpe_tiktoken (pieces);
    assert_int_equal (tiny_bpe_put (self->root, "tokenizer.model", lines, &err), 0);
    free (lines);
    tl_config_t config = s_plain;
    config.family = TL_FAMILY_GLM;
    config.eos = 257;
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (self->root, &config, &err);
    if (!tokenizer)
        fail_msg ("%s", err.text);
    s_prompts (tokenizer, 0, 4,
               "[gMASK]<sop><|system|>\n Be brief.<|user|>\n Hi\n<|assistant|>\n Yes? <|user|>\n1+1"
               "<|assistant|>");
    s_stops (tokenizer, stops);
    s_learns (tokenizer, "\nok<|endoftext|>");
    tl_tokenizer_destroy (&tokenizer);
}

//  SentencePiece: ChatGLM2, or ChatGLM3 by its roles; only a name tells the two apart.
static void
test_chatglm2_and_3 (void **state)
{
    fixture_t *self = *state;
    tl_error_t err = {.text = ""};
    for (int roles = 0; roles < 2; roles++) {
        tl_config_t config = tiny_tokenizer_config (TL_FAMILY_LLAMA);
        config.family = TL_FAMILY_GLM;
        config.vocab += 20;
        assert_int_equal (tiny_tokenizer_write (TL_FAMILY_LLAMA, self->root, &err), 0);
        assert_int_equal (tiny_bpe_put (self->root, "tokenizer_config.json",
                                        roles ? "{\"name_or_path\": \"THUDM/chatglm3-6b\"}"
                                              : "{\"name_or_path\": \"THUDM/chatglm2-6b\"}",
                                        &err),
                          0);
        tl_tokenizer_t *tokenizer = tl_tokenizer_open (self->root, &config, &err);
        if (!tokenizer)
            fail_msg ("%s", err.text);
        assert_int_equal (tl_tokenizer_pieces (tokenizer), config.vocab - 20 + (roles ? 9 : 5));
        tl_prompt_t prompt;
        assert_int_equal (tl_prompt_chat (&prompt, tokenizer, s_talk, 4, &err), 0);
        assert_int_equal (prompt.ids[0], tl_tokenizer_special (tokenizer, "[gMASK]"));
        assert_int_equal (prompt.ids[1], tl_tokenizer_special (tokenizer, "sop"));
        char *text = tl_tokenizer_decode (tokenizer, prompt.ids, prompt.count, NULL);
        //  Each part of ChatGLM3's has a space of its own in front, which only the first loses.
        assert_string_equal (text, roles ? "\n  Be brief. \n  Hi\n \n  Yes?  \n 1+1"
                                         : "[Round 1]\n\n问： Hi\n\n\n答： Yes? \n\n[Round "
                                           "2]\n\n问：1+1\n\n答：");
        free (text);
        tl_prompt_clear (&prompt);
        tl_tokenizer_destroy (&tokenizer);
    }
}

//  ---------------------------------------------------------------------------------------------

static void
test_chats_that_are_refused (void **state)
{
    static const char *const special[] = {"<|endoftext|>", NULL};
    static const char *const chatml[] = {"<|im_start|>", "<|im_end|>", NULL};
    tl_error_t err = {.text = ""};
    tl_prompt_t prompt;
    tl_tokenizer_t *tokenizer = s_open (*state, &s_plain, special, NULL);
    assert_int_equal (tl_prompt_chat (&prompt, tokenizer, s_talk, 4, &err), -1);
    assert_non_null (strstr (err.text, "layout of conversations isn't known"));
    assert_null (prompt.ids);
    tl_tokenizer_destroy (&tokenizer);
    tokenizer = s_open (*state, &s_plain, chatml, NULL);
    static const size_t wrong[][2] = {{0, 1}, {0, 0}, {1, 2}, {2, 2}, {2, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal (
            tl_prompt_chat (&prompt, tokenizer, s_talk + wrong[i][0], wrong[i][1], &err), -1);
        assert_non_null (strstr (err.text, "put the messages in that order"));
    }
    tl_tokenizer_destroy (&tokenizer);
}

//  A name of a special token in what somebody says stays letters.
static void
test_names_in_messages_are_text (void **state)
{
    static const char *const special[] = {"<|im_start|>", "<|im_end|>", NULL};
    tl_tokenizer_t *tokenizer = s_open (*state, &s_plain, special, NULL);
    tl_said_t said = {TL_SAID_USER, "<|im_end|>", 10};
    tl_error_t err = {.text = ""};
    tl_prompt_t prompt;
    assert_int_equal (tl_prompt_chat (&prompt, tokenizer, &said, 1, &err), 0);
    size_t ends = 0;
    for (size_t i = 0; i < prompt.count; i++)
        ends += prompt.ids[i] == 257;
    assert_int_equal (ends, 1);
    tl_prompt_clear (&prompt);
    tl_tokenizer_destroy (&tokenizer);
}

//  ChatGLM-6B fills a blank inside the text; its place is the mask position, and no gMASK follows.
static void
test_cloze (void **state)
{
    fixture_t *self = *state;
    tl_error_t err = {.text = ""};
    tl_config_t c = tiny_tokenizer_config (TL_FAMILY_CHATGLM);
    assert_int_equal (tiny_tokenizer_write (TL_FAMILY_CHATGLM, self->root, &err), 0);
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (self->root, &c, &err);
    assert_non_null (tokenizer);
    static const char text[] = "ab[MASK]c";
    tl_prompt_t prompt;
    tl_prompt_cloze (&prompt, tokenizer, text, strlen (text));
    //  space a b [MASK] space c sop
    assert_int_equal (prompt.count, 7);
    assert_int_equal (prompt.ids[3], c.mask);
    assert_int_equal (prompt.ids[6], c.sop);
    assert_int_equal (prompt.mask, 3);
    assert_int_equal (prompt.context, 6);
    tl_prompt_clear (&prompt);
    tl_prompt_cloze (&prompt, tokenizer, "ab", 2);
    assert_int_equal (prompt.ids[3], c.gmask);
    assert_int_equal (prompt.mask, 3);
    tl_prompt_clear (&prompt);
    //  Without being asked for, it is text.
    tl_prompt_make (&prompt, tokenizer, text, strlen (text));
    for (size_t i = 0; i < prompt.count; i++)
        assert_int_not_equal (prompt.ids[i], c.mask);
    tl_prompt_clear (&prompt);
    tl_tokenizer_destroy (&tokenizer);
}

//  The same in a dataset: rows up to sop are given, and what is cut from a long prompt moves the blank along.
static void
test_cloze_in_a_dataset (void **state)
{
    fixture_t *self = *state;
    tl_error_t err = {.text = ""};
    tl_config_t c = tiny_tokenizer_config (TL_FAMILY_CHATGLM);
    assert_int_equal (tiny_tokenizer_write (TL_FAMILY_CHATGLM, self->root, &err), 0);
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (self->root, &c, &err);
    assert_non_null (tokenizer);
    tl_said_t said[] = {{TL_SAID_USER, "ab[MASK]c", 9}, {TL_SAID_ASSISTANT, "d", 1}};
    tl_example_t example = {.said = said, .count = 2};
    tl_sequence_t sequence;
    tl_layout_example (&sequence, tokenizer, &example, 100, true, &err);
    //  space a b [MASK] space c sop | space d eop
    assert_int_equal (sequence.count, 10);
    assert_int_equal (sequence.mask, 3);
    assert_int_equal (sequence.context, 6);
    assert_int_equal (sequence.first, 5);
    assert_int_equal (sequence.ids[9], c.eos);
    free (sequence.ids);
    tl_layout_example (&sequence, tokenizer, &example, 9, true, &err);
    assert_true (sequence.shortened);
    assert_int_equal (sequence.ids[sequence.mask], c.mask);
    assert_int_equal (sequence.ids[sequence.context], c.sop);
    assert_true (sequence.count <= 9);
    free (sequence.ids);
    tl_layout_example (&sequence, tokenizer, &example, 100, false, &err);
    assert_int_equal (sequence.ids[sequence.mask], c.gmask);
    assert_int_equal (sequence.mask, sequence.context - 1);
    free (sequence.ids);
    tl_tokenizer_destroy (&tokenizer);
}

int
main (void)
{
#define TEST(test) cmocka_unit_test_setup_teardown (test, s_setup, s_teardown)
    const struct CMUnitTest tests[] = {
        TEST (test_chatml),
        TEST (test_llama3),
        TEST (test_mistral),
        TEST (test_glm4),
        TEST (test_chatglm2_and_3),
        TEST (test_chats_that_are_refused),
        TEST (test_names_in_messages_are_text),
        TEST (test_cloze),
        TEST (test_cloze_in_a_dataset),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
