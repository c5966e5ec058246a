//  Writing on: what of a text is handed out when, what ends it, several at a time, and what needn't be read again.

#include "unit/cmocka_all.h"

#include "fed/writing.h"
#include "unit/text_fixture.h"

#include <math.h>
#include <stdio.h>

//  What was handed out, piece by piece with a bar between.
typedef struct {
    char text[512];
    size_t size;
} s_shown_t;

static void
s_on_piece (void *arg, const char *text, size_t size)
{
    s_shown_t *self = arg;
    assert_true (size > 0 && self->size + size + 1 < sizeof self->text);
    memcpy (self->text + self->size, text, size);
    self->size += size;
    self->text[self->size++] = '|';
    self->text[self->size] = 0;
}

static tl_writing_t *
s_new (const text_fixture_t *with, tl_writing_options_t options)
{
    tl_error_t err = {.text = ""};
    if (!options.prompt && !options.said) {
        options.prompt = "prompt";
        options.prompt_size = 6;
    }
    options.max_new = options.max_new ? options.max_new : 100;
    tl_writing_t *self = tl_writing_new (with->tokenizer, &with->config, &options, &err);
    if (!self)
        fail_msg ("%s", err.text);
    return self;
}

//  Makes it choose id.
static bool
s_choose (const text_fixture_t *with, tl_writing_t *writing, int32_t id)
{
    float *logits = tl_alloc (with->config.vocab * sizeof *logits);
    logits[id] = 1;
    tl_error_t err = {.text = ""};
    int more = tl_writing_take (writing, logits, &err);
    free (logits);
    if (more < 0)
        fail_msg ("%s", err.text);
    return more;
}

//  Makes it choose the letters of text until it has enough.
static bool
s_feed (const text_fixture_t *with, tl_writing_t *writing, const char *text)
{
    bool more = true;
    for (size_t i = 0; more && text[i]; i++) {
        size_t count;
        int32_t *ids = tl_tokenizer_encode (with->tokenizer, text + i, 1, &count);
        more = s_choose (with, writing, ids[count - 1]);
        free (ids);
    }
    return more;
}

static void
s_expect (const text_fixture_t *with, const char *const *stops, size_t stop_count, const char *fed,
          const char *text, const char *reason, const char *pieces)
{
    s_shown_t shown = {.size = 0};
    tl_written_t written;
    tl_writing_t *writing = s_new (with, (tl_writing_options_t){.stops = stops,
                                                                .stop_count = stop_count,
                                                                .max_new = 20,
                                                                .on_piece = s_on_piece,
                                                                .arg = &shown});
    if (s_feed (with, writing, fed) && strcmp (reason, "end of text") == 0)
        assert_false (s_choose (with, writing, with->config.eos));
    tl_writing_end (writing, &written);
    assert_string_equal (written.text, text);
    assert_string_equal (written.reason, reason);
    if (pieces)
        assert_string_equal (shown.text, pieces);
    tl_written_clear (&written);
    tl_writing_destroy (&writing);
}

static void
test_stop_strings_span_tokens_and_are_never_shown (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    static const char *const end[] = {"END", "\n\n"};
    //  What may become a stop string waits until it has not.
    s_expect (&with, end, 2, "abENcdENDef", "abENcd", "stop string", "a|b|ENc|d|");
    s_expect (&with, end, 2, "a\nb\n\nc", "a\nb", "stop string", "a|\nb|");
    //  At the end it comes after all.
    s_expect (&with, end, 2, "abEN", "abEN", "end of text", "a|b|EN|");
    s_expect (&with, end, 2, "abcdefghijklmnopqrEN", "abcdefghijklmnopqrEN", "length", NULL);
    s_expect (&with, end, 2, "abcdefghijklmnopqEND", "abcdefghijklmnopq", "stop string", NULL);
    s_expect (&with, end, 2, "ab", "ab", "interrupted", "a|b|");
    //  A false start inside a true one, and one that is part of another: the earliest counts.
    static const char *const tricky[] = {"aab", "xaaby"};
    s_expect (&with, tricky, 2, "zaaab", "za", "stop string", "z|a|");
    s_expect (&with, tricky, 2, "zxaabq", "zx", "stop string", NULL);
    s_expect (&with, NULL, 0, "END", "END", "end of text", "E|N|D|");
    //  Twenty letters are wanted; beside the prompt (its beginning, a space and six letters) there is room for twelve.
    with.config.max_positions = 20;
    s_expect (&with, NULL, 0, "abcdefghijklmnopqrst", "abcdefghijkl", "end of context", NULL);
    text_fixture_end (&with);
}

static void
test_characters_come_whole (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    s_shown_t shown = {.size = 0};
    tl_written_t written;
    tl_writing_t *writing =
        s_new (&with, (tl_writing_options_t){.max_new = 10, .on_piece = s_on_piece, .arg = &shown});
    size_t count;
    int32_t *ids = tl_tokenizer_encode (with.tokenizer, "\xe4\xbd\xa0z", 4, &count);
    assert_true (count >= 4);
    for (size_t i = count - 4; i < count; i++)
        assert_true (s_choose (&with, writing, ids[i]));
    assert_true (s_choose (&with, writing, ids[count - 4])); //  a character that stays unfinished
    free (ids);
    tl_writing_end (writing, &written);
    assert_string_equal (shown.text, "\xe4\xbd\xa0|z|\xef\xbf\xbd|");
    assert_string_equal (written.text, "\xe4\xbd\xa0z\xef\xbf\xbd");
    assert_int_equal (written.count, 5);
    tl_written_clear (&written);
    tl_writing_destroy (&writing);
    text_fixture_end (&with);
}

static void
test_prompts_that_are_too_long_are_refused_or_shortened (void **state)
{
    const tl_family_t families[] = {TL_FAMILY_LLAMA, TL_FAMILY_CHATGLM};
    for (size_t f = 0; f < 2; f++) {
        text_fixture_t with = text_fixture (families[f]);
        with.config.max_positions = 40;
        char prompt[101];
        memset (prompt, 'x', 100);
        memcpy (prompt + 95, "abcde", 6);
        tl_writing_options_t options = {.prompt = prompt, .prompt_size = 100, .max_new = 10};
        tl_error_t err = {.text = ""};
        assert_null (tl_writing_new (with.tokenizer, &with.config, &options, &err));
        assert_non_null (strstr (err.text, "the model reads 40 in all; shorten it"));
        options.shorten = true;
        tl_writing_t *writing = s_new (&with, options);
        const tl_prompt_t *text = tl_writing_text (writing);
        assert_true (tl_writing_shortened (writing));
        assert_int_equal (text->count, 30);
        assert_int_equal (tl_writing_most (writing), 40);
        //  What begins every prompt stays, and what stands next to the answer.
        size_t count;
        int32_t *tail = tl_tokenizer_encode (with.tokenizer, "abcde", 5, &count);
        if (families[f] == TL_FAMILY_LLAMA) {
            assert_int_equal (text->ids[0], with.config.bos);
            assert_memory_equal (text->ids + 25, tail + count - 5, 5 * sizeof *tail);
        } else {
            assert_int_equal (text->ids[29], with.config.sop);
            assert_int_equal (text->ids[28], with.config.gmask);
            assert_int_equal (text->context, 29);
            assert_int_equal (text->mask, 28);
            assert_memory_equal (text->ids + 23, tail + count - 5, 5 * sizeof *tail);
        }
        free (tail);
        tl_writing_destroy (&writing);
        text_fixture_end (&with);
    }
}

//  ---------------------------------------------------------------------------------------------
//  By a model

static const char *const s_prompts[] = {"one", "a second prompt, longer", "x", "the fourth of them",
                                        "and a fifth"};
enum { PROMPTS = 5 };

static void
s_write (const text_fixture_t *with, size_t at_once, tl_written_t *written)
{
    tl_writing_t *texts[PROMPTS];
    tl_error_t err = {.text = ""};
    for (size_t i = 0; i < PROMPTS; i++)
        texts[i] = s_new (with, (tl_writing_options_t){.prompt = s_prompts[i],
                                                       .prompt_size = strlen (s_prompts[i]),
                                                       .max_new = 6 + 3 * i});
    if (tl_write (with->chain, texts, PROMPTS, at_once, NULL, NULL, NULL, &err))
        fail_msg ("%s", err.text);
    for (size_t i = 0; i < PROMPTS; i++) {
        tl_writing_end (texts[i], &written[i]);
        tl_writing_destroy (&texts[i]);
    }
}

static void
test_several_at_once_are_what_each_is_alone (void **state)
{
    const tl_family_t families[] = {TL_FAMILY_LLAMA, TL_FAMILY_CHATGLM};
    for (size_t f = 0; f < 2; f++) {
        text_fixture_t with = text_fixture (families[f]);
        tl_written_t alone[PROMPTS], together[PROMPTS];
        s_write (&with, 1, alone);
        for (size_t at_once = 2; at_once <= 9; at_once += 3) {
            s_write (&with, at_once, together);
            for (size_t i = 0; i < PROMPTS; i++) {
                assert_int_equal (together[i].count, alone[i].count);
                assert_memory_equal (together[i].ids, alone[i].ids,
                                     alone[i].count * sizeof (int32_t));
                assert_string_equal (together[i].reason, alone[i].reason);
                tl_written_clear (&together[i]);
            }
        }
        for (size_t i = 0; i < PROMPTS; i++) {
            assert_in_range (alone[i].count, 1, 6 + 3 * i);
            tl_written_clear (&alone[i]);
        }
        text_fixture_end (&with);
    }
}

//  Logits after a text by a fresh reading.
static void
s_fresh (const text_fixture_t *with, const tl_prompt_t *text, float *logits)
{
    tl_error_t err;
    tl_reading_t *reading = tl_reading_new (with->chain, text->count);
    assert_int_equal (tl_read (&reading, &text, 1, logits, &err), 0);
    tl_reading_destroy (&reading);
}

static void
test_a_known_beginning_is_not_read_again (void **state)
{
    static const char *const texts[] = {"first",           "first and more",  "first and less",
                                        "first and less.", "something other", "s"};
    const tl_family_t families[] = {TL_FAMILY_LLAMA, TL_FAMILY_CHATGLM};
    for (size_t f = 0; f < 2; f++) {
        text_fixture_t with = text_fixture (families[f]);
        size_t vocab = with.config.vocab;
        float *got = tl_alloc (vocab * sizeof *got), *expected = tl_alloc (vocab * sizeof *got);
        tl_reading_t *reading = tl_reading_new (with.chain, 4); //  grows
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            tl_prompt_t prompt;
            const tl_prompt_t *text = &prompt;
            tl_error_t err;
            tl_prompt_make (&prompt, with.tokenizer, texts[i], strlen (texts[i]));
            s_fresh (&with, text, expected);
            //  Twice: nothing new still gives logits.
            for (int twice = 0; twice < 2; twice++) {
                assert_int_equal (tl_read (&reading, &text, 1, got, &err), 0);
                assert_int_equal (tl_reading_count (reading), prompt.count);
                for (size_t v = 0; v < vocab; v++)
                    if (!(fabsf (got[v] - expected[v]) < 2e-5f))
                        fail_msg ("'%s': logit %zu is %g, expected %g", texts[i], v, got[v],
                                  expected[v]);
            }
            tl_prompt_clear (&prompt);
        }
        tl_reading_destroy (&reading);
        free (got);
        free (expected);
        text_fixture_end (&with);
    }
}

static void
test_a_flag_ends_it (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    volatile sig_atomic_t stop = 1;
    tl_error_t err;
    tl_written_t written;
    tl_writing_t *text = s_new (&with, (tl_writing_options_t){.max_new = 50});
    assert_int_equal (tl_write (with.chain, &text, 1, 1, &stop, NULL, NULL, &err), 0);
    tl_writing_end (text, &written);
    assert_string_equal (written.reason, "interrupted");
    assert_int_equal (written.count, 0);
    tl_written_clear (&written);
    tl_writing_destroy (&text);
    text_fixture_end (&with);
}

//  What is no number is nothing to choose by: the text ends with a sentence, and not with what the first id means.
static void
test_logits_that_are_no_numbers_are_refused (void **state)
{
    static const float values[] = {NAN, INFINITY, -INFINITY};
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    float *logits = tl_alloc (with.config.vocab * sizeof *logits);
    tl_writing_t *writing = s_new (&with, (tl_writing_options_t){.max_new = 10});
    assert_true (s_feed (&with, writing, "a"));
    size_t before = tl_writing_text (writing)->count;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        tl_error_t err = {.text = ""};
        logits[with.config.vocab - 1] = values[i];
        assert_int_equal (tl_writing_take (writing, logits, &err), -1);
        assert_int_equal (err.code, TL_BAD_INPUT);
        assert_non_null (strstr (err.text, "the logits of token 2 of the text are not finite"));
        assert_int_equal (tl_writing_text (writing)->count, before);
    }
    tl_writing_destroy (&writing);
    free (logits);
    text_fixture_end (&with);
}

int
main (void)
{
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_stop_strings_span_tokens_and_are_never_shown),
        cmocka_unit_test (test_characters_come_whole),
        cmocka_unit_test (test_prompts_that_are_too_long_are_refused_or_shortened),
        cmocka_unit_test (test_several_at_once_are_what_each_is_alone),
        cmocka_unit_test (test_a_known_beginning_is_not_read_again),
        cmocka_unit_test (test_a_flag_ends_it),
        cmocka_unit_test (test_logits_that_are_no_numbers_are_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
