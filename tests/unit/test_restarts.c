/*  Who is started again, when, and who isn't any more.  */

#include "unit/cmocka_all.h"

#include "actors/restarts.h"
#include "error.h"

#include <signal.h>
#include <string.h>

enum { MINUTE = 60000 };

//  What waitpid says of these.
static int
s_killed (int by)
{
    return by;
}

static int
s_ended (int code)
{
    return code << 8;
}

static void
test_five_tries_each_later (void **state)
{
    tl_restarts_t part = {0};
    for (int i = 0; i < TL_RESTARTS; i++) {
        tl_restarts_born (&part, 0);
        int wait = tl_restarts_died (&part, s_killed (SIGKILL), i, 1000);
        assert_true (wait >= (125 << i) && wait <= (250 << i));
    }
    tl_restarts_born (&part, 0);
    assert_int_equal (tl_restarts_died (&part, s_killed (SIGKILL), 9, 1000), -1);
}

//  Not all of them alike: the share that is drawn is one.
static void
test_the_wait_is_drawn (void **state)
{
    int first = -1, others = 0;
    for (int i = 0; i < 50; i++) {
        tl_restarts_t part = {0};
        int wait = tl_restarts_died (&part, s_killed (SIGKILL), 0, 1000);
        first = first < 0 ? wait : first;
        others += wait != first;
    }
    assert_true (others > 0);
}

static void
test_a_healthy_part_has_all_its_tries_again (void **state)
{
    tl_restarts_t part = {0};
    for (int i = 0; i < 20; i++) {
        tl_restarts_born (&part, 0);
        assert_true (tl_restarts_died (&part, s_killed (SIGKILL), i, 2 * MINUTE) <= 250);
    }
}

//  Each time at step 7, by the same signal, however long it takes to get there.
static void
test_the_same_crash_each_time_ends (void **state)
{
    tl_restarts_t part = {0};
    int died = 0;
    do
        tl_restarts_born (&part, 0);
    while (tl_restarts_died (&part, s_killed (SIGSEGV), 7, 5 * MINUTE) >= 0 && ++died < 100);
    assert_int_equal (died, TL_RESTARTS);
    //  Another signal, or another step, is another story
    for (int other = 0; other < 2; other++) {
        memset (&part, 0, sizeof part);
        for (int i = 0; i < 20; i++) {
            tl_restarts_born (&part, 0);
            int by = other && i % 2 ? SIGABRT : SIGSEGV, step = other ? 7 : i;
            assert_true (tl_restarts_died (&part, s_killed (by), step, 5 * MINUTE) >= 0);
        }
    }
}

static void
test_what_it_said_for_itself_is_no_crash (void **state)
{
    static const struct {
        int code;
        bool again;
    } cases[] = {{TL_OK, false},        {TL_FAILED, false}, {TL_CONNECTION, false},
                 {TL_BAD_INPUT, false}, {TL_TIMEOUT, true}, {TL_INTERNAL, true}};
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_restarts_t part = {0};
        assert_int_equal (tl_restarts_died (&part, s_ended (cases[i].code), 0, 0) >= 0,
                          cases[i].again);
    }
    tl_restarts_how (s_ended (4), text, sizeof text);
    assert_string_equal (text, "ended with code 4");
    tl_restarts_how (s_killed (SIGKILL), text, sizeof text);
    assert_string_equal (text, "was killed by signal 9 (Killed)");
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_five_tries_each_later),
        cmocka_unit_test (test_the_wait_is_drawn),
        cmocka_unit_test (test_a_healthy_part_has_all_its_tries_again),
        cmocka_unit_test (test_the_same_crash_each_time_ends),
        cmocka_unit_test (test_what_it_said_for_itself_is_no_crash),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
