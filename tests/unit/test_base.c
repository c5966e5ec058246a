//  Errors, memory, clock, hash: the contracts of src/base in use.

#include "unit/cmocka_all.h"

#include "clock.h"
#include "error.h"
#include "hash.h"
#include "memory.h"
#include "number.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void
test_fail_returns_minus_one_and_keeps_the_sentence (void **state)
{
    tl_error_t err = {0};
    assert_int_equal (tl_fail (&err, TL_BAD_INPUT, "%s has %d rows; give more", "x", 3), -1);
    assert_int_equal (err.code, TL_BAD_INPUT);
    assert_string_equal (err.text, "x has 3 rows; give more");
    assert_int_equal (tl_fail_in (&err, "file %s", "a.yaml"), -1);
    assert_string_equal (err.text, "file a.yaml: x has 3 rows; give more");
    assert_int_equal (tl_fail (NULL, TL_FAILED, "nobody listens"), -1);
    assert_int_equal (tl_fail_in (NULL, "nobody listens"), -1);
}

static void
test_long_sentences_are_cut (void **state)
{
    tl_error_t err = {0};
    char text[2000];
    memset (text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    tl_fail (&err, TL_FAILED, "%s", text);
    assert_int_equal (strlen (err.text), sizeof err.text - 1);
    tl_fail_in (&err, "%s", text);
    assert_int_equal (strlen (err.text), sizeof err.text - 1);
    assert_non_null (strstr (err.text, "x: x"));
}

static void
test_memory_is_zeroed_or_aligned (void **state)
{
    unsigned char *zeroed = tl_alloc (1000);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal (zeroed[i], 0);
    free (zeroed);
    for (size_t size = 0; size < 300; size += 37) {
        void *aligned = tl_alloc_aligned (size);
        assert_int_equal ((uintptr_t)aligned % 64, 0);
        free (aligned);
    }
    free (tl_alloc (0));
    char *copy = tl_strdup ("words"), *text = tl_format ("%s-%d", copy, 7);
    assert_string_equal (text, "words-7");
    free (copy);
    free (text);
}

static void
test_clock_runs_forward (void **state)
{
    int64_t before = tl_clock_us (), after = tl_clock_us ();
    assert_true (after >= before);
    assert_true (tl_clock_ms () >= before / 1000);
    //  2020 to 2100
    assert_true (tl_clock_wall_ms () > INT64_C (1577836800000));
    assert_true (tl_clock_wall_ms () < INT64_C (4102444800000));
    assert_true (tl_memory_peak () >= tl_memory_now () / 2);
    assert_true (tl_memory_now () > 100000);
}

static void
test_hash_is_xxh3 (void **state)
{
    //  XXH3_64bits of nothing, from its specification.
    assert_true (tl_hash64 (NULL, 0) == UINT64_C (0x2D06800538D394C2));
    assert_true (tl_hash64 ("abc", 3) != tl_hash64 ("abd", 3));
    uint64_t chained = tl_hash64_from (tl_hash64_from (0, "ab", 2), "c", 1);
    assert_true (chained != tl_hash64_from (tl_hash64_from (0, "a", 1), "bc", 2));
}

static void
test_numbers_are_as_short_as_they_can_be (void **state)
{
    static const struct {
        double number;
        const char *text;
    } cases[] = {{0.1, "0.1"},
                 {1e-8, "1e-08"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1048576, "1048576"},
                 {1e6, "1000000"},
                 {-0.0, "-0"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {INFINITY, "inf"},
                 {5e-324, "5e-324"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_number_text (text, cases[i].number);
        assert_true (strtod (text, NULL) == cases[i].number);
        assert_string_equal (text, cases[i].text);
    }
    tl_number_text (text, NAN);
    assert_true (isnan (strtod (text, NULL)));
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_fail_returns_minus_one_and_keeps_the_sentence),
        cmocka_unit_test (test_long_sentences_are_cut),
        cmocka_unit_test (test_memory_is_zeroed_or_aligned),
        cmocka_unit_test (test_clock_runs_forward),
        cmocka_unit_test (test_hash_is_xxh3),
        cmocka_unit_test (test_numbers_are_as_short_as_they_can_be),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
