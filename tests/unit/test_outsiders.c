//  What the log says of who was turned away: the first at once, then numbers; nobody fills it.

#include "unit/cmocka_all.h"

#include "log.h"
#include "outsiders.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECOND = 1000 };

static char s_last[2048]; //  the last line
static size_t s_lines;    //  since the test began

static void
s_take (void *arg, const char *line)
{
    snprintf (s_last, sizeof s_last, "%s", line);
    s_lines++;
}

static int
s_setup (void **state)
{
    tl_log_to (s_take, NULL);
    s_lines = 0;
    *state = tl_outsiders_new ();
    return 0;
}

static int
s_teardown (void **state)
{
    tl_outsiders_t *outsiders = *state;
    tl_outsiders_destroy (&outsiders);
    tl_outsiders_destroy (&outsiders);
    tl_log_to (NULL, NULL);
    return 0;
}

static void
s_expect (size_t lines, const char *words)
{
    if (s_lines != lines || (words && !strstr (s_last, words)))
        fail_msg ("expected %zu lines, the last with \"%s\"; got %zu, the last: %s", lines,
                  words ? words : "", s_lines, s_last);
}

static void
test_the_first_is_told_at_once_and_the_others_by_number (void **state)
{
    tl_outsiders_t *self = *state;
    tl_outsiders_tell (self, "10.0.0.1:4000", "no key", 0);
    s_expect (1, "refused 10.0.0.1:4000: no key");
    for (int i = 1; i <= 41; i++) {
        char address[32];
        snprintf (address, sizeof address, "10.0.0.1:%d", 4000 + i);
        tl_outsiders_tell (self, address, "no key", i * 100);
        tl_outsiders_tick (self, i * 100);
    }
    s_expect (1, NULL);
    tl_outsiders_tick (self, 10 * SECOND);
    s_expect (2, "refused 10.0.0.1: 41 more in the last 10 s: no key");
    //  Nothing more comes: nothing more is said, and the next one is a first one again
    tl_outsiders_tick (self, 20 * SECOND);
    tl_outsiders_tick (self, 30 * SECOND);
    s_expect (2, NULL);
    tl_outsiders_tell (self, "10.0.0.1:5000", "no key", 31 * SECOND);
    s_expect (3, "refused 10.0.0.1:5000: no key");
}

static void
test_other_hosts_and_other_reasons_are_first_ones (void **state)
{
    tl_outsiders_t *self = *state;
    tl_outsiders_tell (self, "10.0.0.1:4000", "no key", 0);
    tl_outsiders_tell (self, "10.0.0.2:4000", "no key", 0);
    s_expect (2, "10.0.0.2:4000");
    tl_outsiders_tell (self, "10.0.0.1:4001", "another key", 0);
    s_expect (3, "10.0.0.1:4001: another key");
    tl_outsiders_tell (self, "", "another key", 0);
    s_expect (4, "refused somebody: another key");
}

static void
test_a_crowd_of_hosts_is_counted_and_does_not_fill_the_log (void **state)
{
    enum { HOSTS = 1000 };
    tl_outsiders_t *self = *state;
    for (int i = 0; i < HOSTS; i++) {
        char address[32];
        snprintf (address, sizeof address, "10.1.%d.%d:99", i / 256, i % 256);
        tl_outsiders_tell (self, address, "no key", 0);
    }
    size_t told = s_lines;
    assert_true (told < 100);
    tl_outsiders_tick (self, 10 * SECOND);
    char words[64];
    snprintf (words, sizeof words, "refused others: %zu more in the last 10 s", HOSTS - told);
    s_expect (told + 1, words);
}

static void
test_what_is_not_yet_told_is_told_at_the_end (void **state)
{
    tl_outsiders_t *self = tl_outsiders_new ();
    for (int i = 0; i < 3; i++)
        tl_outsiders_tell (self, "10.0.0.1:4000", "no key", 0);
    tl_outsiders_destroy (&self);
    s_expect (2, "2 more");
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, s_setup, s_teardown)

int
main (void)
{
    const struct CMUnitTest tests[] = {
        TEST (test_the_first_is_told_at_once_and_the_others_by_number),
        TEST (test_other_hosts_and_other_reasons_are_first_ones),
        TEST (test_a_crowd_of_hosts_is_counted_and_does_not_fill_the_log),
        TEST (test_what_is_not_yet_told_is_told_at_the_end),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
