//  Expressions that cut text into words before a tokenizer merges: the vendors' own, and those that are refused.

#include "unit/cmocka_all.h"

#include "data/split.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

static void
s_collect (void *arg, const char *piece, size_t size)
{
    char **all = arg;
    char *more = tl_format ("%s%s%.*s", *all, **all ? "|" : "", (int)size, piece);
    free (*all);
    *all = more;
}

static void
s_splits (const tl_split_t *split, const char *text, const char *expected)
{
    char *got = tl_strdup ("");
    tl_split_run (split, text, strlen (text), s_collect, &got);
    if (strcmp (got, expected) != 0)
        fail_msg ("'%s': expected %s, got %s", text, expected, got);
    free (got);
}

static tl_split_t *
s_split (const char *one, const char *two)
{
    tl_error_t err = {.text = ""};
    tl_split_t *split = tl_split_new ();
    if (tl_split_add (split, "test", one, strlen (one), 14, TL_SPLIT_BOTH, &err) != 0 ||
        (two && tl_split_add (split, "test", two, strlen (two), 14, TL_SPLIT_BOTH, &err) != 0))
        fail_msg ("%s", err.text);
    return split;
}

static void
test_known_expressions (void **state)
{
    tl_split_t *split = s_split (TL_SPLIT_GPT2, NULL);
    s_splits (split, "I'm 42  years\n\n old!?", "I|'m| 42| | years|\n\n| old|!?");
    s_splits (split, "don'T", "don|'|T");
    s_splits (split, "x\u180ey", "x|\u180e|y"); //  no space since Unicode 6.3
    s_splits (split, "a \u3000b", "a| |\u3000|b");
    tl_split_destroy (&split);
    split = s_split (TL_SPLIT_LLAMA3, NULL);
    s_splits (split, "DON'T 12345\n  x", "DON|'T| |123|45|\n| | x");
    s_splits (split, "it'\u017f", "it|'\u017f"); //  a long s is an s when case doesn't matter
    tl_split_destroy (&split);
    split = s_split (TL_SPLIT_QWEN2, NULL);
    s_splits (split, "123\u2167", "1|2|3|\u2167");
    tl_split_destroy (&split);
    //  Each expression sees one piece of the one before: the blank at its end is the last.
    split = s_split ("\\p{N}", TL_SPLIT_GPT2);
    s_splits (split, "a  12", "a|  |1|2");
    tl_split_destroy (&split);
    split = s_split ("[abc]{2}|\\u0041", NULL);
    s_splits (split, "abAx", "ab|A|x");
    tl_split_destroy (&split);
}

static void
s_measure (void *arg, const char *piece, size_t size)
{
    *(size_t *)arg = size;
}

//  Runs of blanks are tried as line ends, then taken back one by one: that must not look like an expression gone wild.
static void
test_megabytes_of_blanks_are_one_piece (void **state)
{
    enum { SIZE = 1 << 22 };
    static const char *const patterns[] = {TL_SPLIT_GPT2, TL_SPLIT_LLAMA3, TL_SPLIT_QWEN2};
    char *blanks = tl_alloc (SIZE);
    memset (blanks, ' ', SIZE);
    for (int i = 0; i < 3; i++) {
        size_t last = 0;
        tl_split_t *split = s_split (patterns[i], NULL);
        tl_split_run (split, blanks, SIZE, s_measure, &last);
        assert_int_equal (last, SIZE);
        blanks[SIZE - 1] = 'x'; //  the last blank goes with it
        tl_split_run (split, blanks, SIZE, s_measure, &last);
        assert_int_equal (last, 2);
        blanks[SIZE - 1] = ' ';
        tl_split_destroy (&split);
    }
    free (blanks);
}

//  What is a letter depends on the engine's version of Unicode: U+1C89 is one since 16, U+11F50 a digit since 15.
static void
test_versions_of_unicode (void **state)
{
    static const char pattern[] = "\\p{L}+|[\\p{N}x]";
    static const char *const expected[] = {"a|\u1c89\U00011f50|b", "a|\u1c89|\U00011f50|b",
                                           "a\u1c89|\U00011f50|b"};
    for (unsigned version = 14; version <= 16; version++) {
        tl_error_t err = {.text = ""};
        tl_split_t *split = tl_split_new ();
        assert_int_equal (
            tl_split_add (split, "test", pattern, strlen (pattern), version, TL_SPLIT_BOTH, &err),
            0);
        s_splits (split, "a\u1c89\U00011f50b", expected[version - 14]);
        tl_split_destroy (&split);
    }
}

static void
test_expressions_that_are_refused (void **state)
{
    static const struct {
        const char *pattern, *word;
    } cases[] = {
        {"(a+)+$", "isn't supported"},
        {"\\w+", "'\\w'"},
        {"(?R)", "'(?R)'"},
        {"(*COMMIT)a", "isn't supported"},
        {"(?<name>a)", "isn't supported"},
        {"\\p{Han}", "isn't supported"},
        {"[[:alpha:]]", "isn't supported"},
        {"[a&&b]", "isn't supported"},
        {"[\\S]", "isn't supported"},
        {"a{2}+", "isn't supported"},
        {"a{,3}", "isn't supported"},
        {"\\1", "isn't supported"},
        {"(ab", "is broken"},
        {"[z-a]", "is broken"},
        {"(?:a+)+(?:a+)+[b-d]", "for ever"},
        {"\\x{110000}", "isn't supported"},
        {"(?:(?:(?:\\s|\\s+)+)+)+[x-z]", "for ever"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_error_t err = {.text = ""};
        tl_split_t *split = tl_split_new ();
        if (tl_split_add (split, "test", cases[i].pattern, strlen (cases[i].pattern), 14,
                          TL_SPLIT_BOTH, &err) == 0)
            fail_msg ("%s was taken", cases[i].pattern);
        assert_int_equal (err.code, TL_BAD_INPUT);
        if (!strstr (err.text, cases[i].word))
            fail_msg ("expected %s in: %s", cases[i].word, err.text);
        tl_split_destroy (&split);
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_known_expressions),
        cmocka_unit_test (test_megabytes_of_blanks_are_one_piece),
        cmocka_unit_test (test_versions_of_unicode),
        cmocka_unit_test (test_expressions_that_are_refused),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
