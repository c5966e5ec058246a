//  Tasks: files told apart by their keys, choices scored against direct logits, and counted as SuperGLUE does.

#include "unit/cmocka_all.h"

#include "fed/choice.h"
#include "fed/evaluate.h"
#include "fed/reading.h"
#include "unit/text_fixture.h"

#include <math.h>
#include <stdio.h>

static const char s_file[] =
    "{\"prompt\": \"The sky is\", \"choices\": [\" blue\", \" a very long answer\"], \"answer\": "
    "0}\n"
    "\n"
    "{\"prompt\": \"Fire\", \"choices\": [\" hot\", \" cold\", \" wet\"], \"answer\": \" cold\"}\n"
    "{\"prompt\": \"a somewhat longer prompt than the others\", \"choices\": [\"x\", \"y\"], "
    "\"answer\": 1}";

static tl_task_t *
s_task (const text_fixture_t *with, const char *text)
{
    tl_error_t err = {.text = ""};
    char *path = text_fixture_file (with, "task.jsonl", text);
    tl_task_t *task = tl_task_open (path, TL_TASK_BY_KEYS, 0, &err);
    if (!task)
        fail_msg ("%s", err.text);
    free (path);
    return task;
}

//  -log softmax (logits) [id].
static double
s_nll (const float *logits, size_t vocab, int32_t id)
{
    double most = logits[0], sum = 0;
    for (size_t i = 1; i < vocab; i++)
        most = logits[i] > most ? logits[i] : most;
    for (size_t i = 0; i < vocab; i++)
        sum += exp (logits[i] - most);
    return log (sum) + most - logits[id];
}

//  A choice token by token, each after logits of all before it.
static double
s_directly (const text_fixture_t *with, const tl_item_t *item, size_t choice, size_t *tokens)
{
    tl_prompt_t prompt;
    tl_error_t err = {.text = ""};
    size_t count;
    double nll = 0;
    if (tl_item_prompt (item, with->tokenizer, false, &prompt, &err))
        fail_msg ("%s", err.text);
    int32_t *ids = tl_tokenizer_encode (with->tokenizer, item->texts[choice].text,
                                        item->texts[choice].size, &count);
    float *logits = tl_alloc (with->config.vocab * sizeof *logits);
    tl_prompt_t text = prompt;
    text.ids = tl_alloc ((prompt.count + count) * sizeof *ids);
    memcpy (text.ids, prompt.ids, prompt.count * sizeof *ids);
    const tl_prompt_t *so_far = &text;
    for (size_t i = 0; i < count; i++) {
        tl_reading_t *reading = tl_reading_new (with->chain, text.count);
        if (tl_read (&reading, &so_far, 1, logits, &err))
            fail_msg ("%s", err.text);
        tl_reading_destroy (&reading);
        nll += s_nll (logits, with->config.vocab, ids[i]);
        text.ids[text.count++] = ids[i];
    }
    *tokens = count;
    free (logits);
    free (text.ids);
    free (ids);
    tl_prompt_clear (&prompt);
    return nll;
}

static void
test_choices_score_as_direct_logits_say (void **state)
{
    const tl_family_t families[] = {TL_FAMILY_LLAMA, TL_FAMILY_CHATGLM};
    for (size_t f = 0; f < 2; f++) {
        text_fixture_t with = text_fixture (families[f]);
        tl_task_t *task = s_task (&with, s_file);
        tl_error_t err = {.text = ""};
        size_t shortened, at = 0;
        assert_int_equal (task->kind, TL_TASK_CHOICE);
        assert_int_equal (task->count, 3);
        assert_int_equal (task->items[1].line, 3);
        assert_int_equal (task->items[1].answer, 1);
        assert_false (task->classes);
        tl_dataset_t *data =
            tl_choice_dataset (task, with.tokenizer, &with.config, 0, false, &shortened, &err);
        assert_non_null (data);
        assert_int_equal (shortened, 0);
        assert_int_equal (tl_dataset_count (data), 7);
        double nll[7];
        tl_chain_evaluate (with.chain, data, nll, NULL, NULL);
        for (size_t i = 0; i < task->count; i++)
            for (size_t c = 0; c < task->items[i].count; c++, at++) {
                size_t tokens;
                double expected = s_directly (&with, &task->items[i], c, &tokens);
                assert_int_equal (tl_dataset_labels_of (data, at), tokens);
                if (!(fabs (nll[at] - expected) < 1e-4))
                    fail_msg ("line %zu, choice %zu: %g, expected %g", task->items[i].line, c,
                              nll[at], expected);
            }
        tl_dataset_destroy (&data);
        tl_task_destroy (&task);
        text_fixture_end (&with);
    }
}

static void
test_answers_of_one_token_share_their_prompt (void **state)
{
    //  Which prompt, and how many of the ids from where on.
    static const struct {
        size_t prompt, first, count;
    } s_answers[] = {{0, 0, 1}, {0, 1, 1}, {0, 2, 1}, {1, 0, 1}, {1, 0, 3}, {1, 2, 1},
                     {1, 1, 1}, {0, 0, 2}, {0, 1, 2}, {2, 0, 1}, {2, 1, 1}, {0, 3, 1}};
    enum { ANSWERS = sizeof s_answers / sizeof *s_answers };
    const int32_t ids[] = {40, 50, 60, 70};
    const tl_family_t families[] = {TL_FAMILY_LLAMA, TL_FAMILY_CHATGLM};
    for (size_t f = 0; f < 2; f++) {
        text_fixture_t with = text_fixture (families[f]);
        tl_prompt_t prompts[3];
        tl_answer_t answers[ANSWERS];
        double nll[ANSWERS];
        tl_prompt_make (&prompts[0], with.tokenizer, "one", 3);
        tl_prompt_make (&prompts[1], with.tokenizer, "another one", 11);
        tl_prompt_make (&prompts[2], with.tokenizer, "two", 3);
        for (size_t i = 0; i < ANSWERS; i++)
            answers[i] = (tl_answer_t){&prompts[s_answers[i].prompt], ids + s_answers[i].first,
                                       s_answers[i].count};
        tl_dataset_t *data = tl_dataset_of_answers (with.tokenizer, answers, ANSWERS);
        tl_chain_evaluate (with.chain, data, nll, NULL, NULL);
        tl_dataset_destroy (&data);
        for (size_t i = 0; i < ANSWERS; i++) {
            double alone;
            data = tl_dataset_of_answers (with.tokenizer, &answers[i], 1);
            tl_micro_t *micro = tl_dataset_slice (data, 0, 1);
            tl_chain_score (with.chain, &micro->batch, &alone);
            if (!(fabs (nll[i] - alone) < 2e-5))
                fail_msg ("answer %zu: %.9g, alone %.9g", i, nll[i], alone);
            tl_micro_destroy (&micro);
            tl_dataset_destroy (&data);
        }
        for (size_t i = 0; i < 3; i++)
            tl_prompt_clear (&prompts[i]);
        text_fixture_end (&with);
    }
}

static void
test_lengths_count_as_asked (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    tl_task_t *task = s_task (&with, s_file);
    tl_error_t err = {.text = ""};
    size_t shortened, picked[3];
    tl_dataset_t *data =
        tl_choice_dataset (task, with.tokenizer, &with.config, 0, false, &shortened, &err);
    //  " blue" against " a very long answer", 5 and 19 bytes; the tokenizer takes letters one by one.
    double tokens[2] = {(double)tl_dataset_labels_of (data, 0),
                        (double)tl_dataset_labels_of (data, 1)};
    const double nll[7] = {tokens[0] * 3, tokens[1] * 2, 1, 1, 1, 5, 4};
    tl_choice_pick (task, data, nll, TL_PER_CHOICE, picked);
    assert_int_equal (picked[0], tokens[0] * 3 < tokens[1] * 2 ? 0 : 1);
    assert_int_equal (picked[1], 0); //  of equals the first
    assert_int_equal (picked[2], 1);
    tl_choice_pick (task, data, nll, TL_PER_TOKEN, picked);
    assert_int_equal (picked[0], 1);
    const double bytes[7] = {5 * 2, 19 * 2.5, 1, 1, 1, 5, 4};
    tl_choice_pick (task, data, bytes, TL_PER_BYTE, picked);
    assert_int_equal (picked[0], 0);
    tl_dataset_destroy (&data);
    tl_task_destroy (&task);
    text_fixture_end (&with);
}

static void
test_long_prompts_lose_their_beginning (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    tl_task_t *task = s_task (&with, s_file);
    tl_error_t err = {.text = ""};
    size_t shortened;
    tl_dataset_t *data =
        tl_choice_dataset (task, with.tokenizer, &with.config, 26, false, &shortened, &err);
    assert_non_null (data);
    assert_int_equal (shortened, 2);
    //  Both choices of the first line lost what its longer one needs; every prompt begins as the model's do.
    tl_micro_t *micro = tl_dataset_slice (data, 0, 7);
    size_t first = tl_dataset_labels_of (data, 0), second = tl_dataset_labels_of (data, 1);
    assert_int_equal (micro->batch.length[1], 25);
    assert_int_equal (micro->batch.length[0], 25 - (second - first));
    for (size_t i = 0, row = 0; i < 7; row += micro->batch.length[i++])
        assert_int_equal (micro->batch.ids[row], with.config.bos);
    tl_micro_destroy (&micro);
    tl_dataset_destroy (&data);
    assert_null (
        tl_choice_dataset (task, with.tokenizer, &with.config, 12, false, &shortened, &err));
    assert_non_null (strstr (err.text, "task.jsonl:1: the longest choice has"));
    tl_task_destroy (&task);
    text_fixture_end (&with);
}

//  ---------------------------------------------------------------------------------------------
//  Counting

static void
s_near (double got, double expected)
{
    if (!(fabs (got - expected) < 1e-12))
        fail_msg ("got %.15g, expected %.15g", got, expected);
}

static void
test_f1_is_scikit_learns (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    char text[4096] = "";
    const size_t answers[] = {0, 0, 1, 1, 1, 2}, picked[] = {0, 1, 1, 1, 0, 0};
    for (size_t i = 0; i < 6; i++)
        snprintf (
            text + strlen (text), sizeof text - strlen (text),
            "{\"prompt\": \"p\", \"choices\": [\"a\", \"b\", \"c\", \"d\"], \"answer\": %zu}\n",
            answers[i]);
    tl_task_t *task = s_task (&with, text);
    assert_true (task->classes);
    tl_choice_count_t count = {0};
    tl_choice_count (&count, task, picked, 1);
    assert_int_equal (count.correct, 3);
    s_near (tl_choice_f1 (&count, 0), 2.0 * 1 / (3 + 2));
    s_near (tl_choice_f1 (&count, 1), 2.0 * 2 / (3 + 3));
    s_near (tl_choice_f1 (&count, 2), 0);
    //  The fourth class occurs nowhere: it isn't in the mean.
    s_near (tl_choice_macro_f1 (&count), (0.4 + 2.0 / 3 + 0) / 3);
    tl_choice_count_t twice = count;
    tl_choice_add (&twice, &count);
    s_near (tl_choice_macro_f1 (&twice), tl_choice_macro_f1 (&count));
    assert_int_equal (twice.items, 12);
    tl_task_destroy (&task);
    text_fixture_end (&with);
}

static void
test_questions_are_right_as_a_whole (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    char text[4096] = "";
    const char *const groups[] = {"[1, 2]", "\"x\"", "[1,2]", "\"x\"", "[2,1]"};
    const size_t answers[] = {1, 1, 0, 0, 1}, picked[] = {1, 1, 0, 1, 1};
    for (size_t i = 0; i < 5; i++)
        snprintf (
            text + strlen (text), sizeof text - strlen (text),
            "{\"prompt\": \"p\", \"choices\": [\"no\", \"yes\"], \"answer\": %zu, \"group\": %s}\n",
            answers[i], groups[i]);
    tl_task_t *task = s_task (&with, text);
    assert_true (task->grouped);
    assert_int_equal (task->groups, 3);
    assert_int_equal (task->items[0].group, task->items[2].group);
    tl_choice_count_t count = {0};
    tl_choice_count (&count, task, picked, 1);
    assert_int_equal (count.whole, 2);
    s_near (count.group_f1, 1 + 2.0 / 3 + 1);
    s_near (tl_choice_f1 (&count, 1), 2.0 * 3 / (4 + 3));
    tl_task_destroy (&task);
    text_fixture_end (&with);
}

//  ---------------------------------------------------------------------------------------------
//  Bad input

static void
test_bad_lines_are_refused_by_file_and_line (void **state)
{
    static const struct {
        tl_task_wanted_t wanted;
        const char *text, *expected;
    } s_cases[] = {
        {0, "{\"prompt\": \"p\", \"choices\": [], \"answer\": 0}",
         "t.jsonl:1: 'choices' is [], expected a list of two"},
        {0, "{\"prompt\": \"p\", \"choices\": [\"a\"], \"answer\": 0}",
         "expected a list of two or more texts; correct"},
        {0, "{\"prompt\": \"p\", \"choices\": [\"a\", \"\"], \"answer\": 0}", "none of them empty"},
        {0, "{\"prompt\": \"p\", \"choices\": [\"a\", 3], \"answer\": 0}", "none of them empty"},
        {0, "{\"prompt\": \"p\", \"choices\": [\"a\", \"b\"], \"answer\": 2}",
         "'answer' is 2, expected the index of a choice, from 0 to 1"},
        {0, "{\"prompt\": \"p\", \"choices\": [\"a\", \"b\"], \"answer\": -1}", "'answer' is -1"},
        {0, "{\"prompt\": \"p\", \"choices\": [\"a\", \"b\"], \"answer\": \"c\"}",
         "'answer' is \"c\""},
        {0, "{\"prompt\": \"p\", \"choices\": [\"a\", \"b\"]}", "'answer' is missing"},
        {0, "{\"prompt\": \"p\", \"answer\": 1}", "'choices' is missing"},
        {0, "{\"choices\": [\"a\", \"b\"], \"answer\": 1}", "'prompt' is missing, expected a text"},
        {0, "{\"prompt\": 1, \"references\": \"r\"}", "'prompt' is 1, expected a text"},
        {0, "{\"prompt\": \"p\", \"references\": []}", "'references' is []"},
        {0, "{\"prompt\": \"p\", \"references\": [1]}", "'references' is [1]"},
        {0, "{\"messages\": [{\"role\": \"robot\", \"content\": \"x\"}], \"references\": \"r\"}",
         "'messages' is"},
        {0, "{\"messages\": [], \"references\": \"r\"}", "a list of messages"},
        {0,
         "{\"prompt\": \"p\", \"references\": \"r\"}\n{\"prompt\": \"p\", \"completion\": \"c\"}",
         "t.jsonl:2: the line is text to be measured"},
        {0, "{\"prompt\": \"\xff\", \"references\": \"r\"}",
         "t.jsonl:1: byte 13 (0xff) is not valid UTF-8"},
        {0,
         "{\"prompt\": \"p\", \"references\": \"r\"}\n{\"prompt\": ", "t.jsonl:2: not valid JSON"},
        {TL_TASK_OF_WRITING, "{\"prompt\": \"p\"}", "'references' is missing"},
        {TL_TASK_OF_PROMPTS, "{\"text\": \"p\"}", "'prompt' is missing"},
    };
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    for (size_t i = 0; i < sizeof s_cases / sizeof *s_cases; i++) {
        tl_error_t err = {.text = ""};
        char *path = text_fixture_file (&with, "t.jsonl", s_cases[i].text);
        tl_task_t *task = tl_task_open (path, s_cases[i].wanted, 0, &err);
        if (task)
            fail_msg ("case %zu was taken: %s", i, s_cases[i].text);
        if (!strstr (err.text, s_cases[i].expected) || err.code != TL_BAD_INPUT)
            fail_msg ("case %zu says '%s', expected '%s'", i, err.text, s_cases[i].expected);
        free (path);
    }
    text_fixture_end (&with);
}

static void
test_shapes_are_told_apart (void **state)
{
    text_fixture_t with = text_fixture (TL_FAMILY_LLAMA);
    static const struct {
        tl_task_wanted_t wanted;
        const char *text;
        tl_task_kind_t kind;
        size_t count, texts, said;
    } s_cases[] = {
        {0, "{\"text\": \"x\"}", TL_TASK_TEXT, 0, 0, 0},
        {0, "{\"prompt\": \"p\", \"completion\": \"c\"}", TL_TASK_TEXT, 0, 0, 0},
        {TL_TASK_OF_WRITING, "{\"prompt\": \"p\", \"completion\": \"c\"}", TL_TASK_WRITING, 1, 1,
         1},
        {0, "{\"prompt\": \"p\", \"references\": [\"a\", \"b\"]}", TL_TASK_WRITING, 1, 2, 1},
        {TL_TASK_OF_WRITING,
         "{\"messages\": [{\"role\": \"user\", \"content\": \"u\"}, {\"role\": \"assistant\", "
         "\"content\": \"a\"}]}",
         TL_TASK_WRITING, 1, 1, 1},
        {TL_TASK_OF_PROMPTS, "{\"prompt\": \"p\"}\n{\"prompt\": \"q\", \"completion\": 1}",
         TL_TASK_WRITING, 2, 0, 1},
    };
    for (size_t i = 0; i < sizeof s_cases / sizeof *s_cases; i++) {
        tl_error_t err = {.text = ""};
        char *path = text_fixture_file (&with, "t.jsonl", s_cases[i].text);
        tl_task_t *task = tl_task_open (path, s_cases[i].wanted, 0, &err);
        if (!task)
            fail_msg ("case %zu: %s", i, err.text);
        assert_int_equal (task->kind, s_cases[i].kind);
        assert_int_equal (task->count, s_cases[i].count);
        if (task->count) {
            assert_int_equal (task->items[0].count, s_cases[i].texts);
            assert_int_equal (task->items[0].said_count, s_cases[i].said);
        }
        tl_task_destroy (&task);
        free (path);
    }
    text_fixture_end (&with);
}

int
main (void)
{
    tl_kernels_use (1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_choices_score_as_direct_logits_say),
        cmocka_unit_test (test_answers_of_one_token_share_their_prompt),
        cmocka_unit_test (test_lengths_count_as_asked),
        cmocka_unit_test (test_long_prompts_lose_their_beginning),
        cmocka_unit_test (test_f1_is_scikit_learns),
        cmocka_unit_test (test_questions_are_right_as_a_whole),
        cmocka_unit_test (test_bad_lines_are_refused_by_file_and_line),
        cmocka_unit_test (test_shapes_are_told_apart),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
