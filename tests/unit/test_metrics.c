//  Metrics of texts, against what rouge_score, sacrebleu and SQuAD's definition say (make_metrics.py).

#include "unit/cmocka_all.h"

#include "fed/metrics.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static tl_text_t
s_text (const char *text)
{
    return (tl_text_t){text, strlen (text)};
}

static void
s_expect (const json_t *row, const char *key, double got, size_t line)
{
    double expected = json_number_value (json_object_get (row, key));
    if (!(fabs (got - expected) <= 1e-9 * fmax (1, expected)))
        fail_msg ("line %zu: %s is %.12g, expected %.12g of '%s'", line, key, got, expected,
                  json_string_value (json_object_get (row, "text")));
}

static void
test_texts_score_as_elsewhere (void **state)
{
    FILE *file = fopen ("tests/unit/data/metrics.jsonl", "r");
    assert_non_null (file);
    tl_bleu_t corpus = {0};
    size_t line = 0, corpora = 0;
    json_t *row;
    while ((row = json_loadf (file, JSON_DISABLE_EOF_CHECK, NULL))) {
        line++;
        const json_t *references = json_object_get (row, "references");
        if (!references) {
            s_expect (row, "corpus_bleu_of_single", tl_bleu (&corpus), line);
            corpora++;
            json_decref (row);
            continue;
        }
        tl_text_t texts[3];
        size_t count = json_array_size (references);
        assert_in_range (count, 1, 3);
        for (size_t i = 0; i < count; i++)
            texts[i] = s_text (json_string_value (json_array_get (references, i)));
        tl_closeness_t score;
        tl_closeness (&score, s_text (json_string_value (json_object_get (row, "text"))), texts,
                      count);
        s_expect (row, "rouge1", score.rouge1, line);
        s_expect (row, "rouge2", score.rouge2, line);
        s_expect (row, "rougeL", score.rouge_l, line);
        s_expect (row, "exact", score.exact, line);
        s_expect (row, "f1", score.f1, line);
        s_expect (row, "sentence_bleu", tl_bleu_sentence (&score.bleu), line);
        if (count == 1)
            tl_bleu_add (&corpus, &score.bleu);
        json_decref (row);
    }
    fclose (file);
    assert_int_equal (corpora, 1);
    assert_in_range (line, 100, 1000);
}

static void
test_broken_utf8_is_only_a_bad_character (void **state)
{
    tl_text_t good = s_text ("a cat"), bad = {"\xff\xe4 cat\xe4\xbd", 9};
    tl_closeness_t score;
    tl_closeness (&score, bad, &good, 1);
    assert_true (fabs (score.rouge1 - 2.0 / 3) < 1e-12);
    assert_true (score.exact == 0);
}

static void
test_chinese_is_counted_by_characters (void **state)
{
    tl_text_t one = s_text ("今天天气好。"), two = s_text ("今天天气很好");
    tl_closeness_t score;
    tl_closeness (&score, one, &two, 1);
    assert_true (fabs (score.rouge1 - 10.0 / 11) < 1e-12);
    assert_true (fabs (score.rouge2 - 2 * 3 / 9.0) < 1e-12);
    assert_true (fabs (score.rouge_l - 10.0 / 11) < 1e-12);
    //  The last byte of this character alone would be a no-break space.
    tl_text_t you = s_text ("我爱你");
    tl_closeness (&score, you, &you, 1);
    assert_int_equal (score.bleu.length, 3);
    assert_int_equal (score.bleu.reference, 3);
    assert_true (tl_bleu_sentence (&score.bleu) > 99.999);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_texts_score_as_elsewhere),
        cmocka_unit_test (test_broken_utf8_is_only_a_bad_character),
        cmocka_unit_test (test_chinese_is_counted_by_characters),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
