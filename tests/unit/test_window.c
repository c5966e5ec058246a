//  How long a step waits for clients that aren't ready: never longer than joining is worth.

#include "cmocka_all.h"

#include "scheduler/window.h"

//  A worker whose forward, backward and update cost 2 + 2 + 1 ms beside the rows; clients that take 1, 2, 3 ... ms to be ready.
static tl_costs_t *
s_costs (size_t clients)
{
    tl_costs_t *costs = tl_costs_new (1, clients);
    for (int i = 0; i < 40; i++) {
        uint64_t rows = i % 2 ? 64 : 256;
        tl_costs_note (costs, TL_COST_FORWARD, 0, rows, 2000 + 10 * (int64_t)rows);
        tl_costs_note (costs, TL_COST_BACKWARD, 0, rows, 2000 + 10 * (int64_t)rows);
        tl_costs_note (costs, TL_COST_UPDATE, 0, rows, 1000);
        for (size_t c = 0; c < clients; c++)
            tl_costs_note (costs, TL_COST_FRONT, c, 64, 1000 * (int64_t)(c + 1));
    }
    return costs;
}

static int64_t
s_wait (const tl_costs_t *costs, const tl_window_late_t *late, size_t count, int64_t since,
        int64_t limit)
{
    const tl_window_scene_t scene = {.micros = 1,
                                     .late = late,
                                     .count = count,
                                     .late_then = count,
                                     .since_us = since,
                                     .limit_us = limit};
    return tl_window_judge (costs, &scene).wait_us;
}

static void
waits_while_it_pays (void **state)
{
    tl_costs_t *costs = s_costs (8);
    //  3 ms for one that saves 5: worth it; the one that takes 6 saves 5 as well, and together 10 - 6 = 4 is more than 5 - 3.
    const tl_window_late_t late[] = {{2, 0}, {5, 0}};
    assert_in_range (s_wait (costs, late, 1, 0, 100000), 2900, 3100);
    assert_in_range (s_wait (costs, late, 2, 0, 100000), 5900, 6100);
    //  8 ms for one that saves 5: not.
    const tl_window_late_t slow[] = {{7, 0}};
    assert_int_equal (s_wait (costs, slow, 1, 0, 100000), 0);
    //  It has been on its way for 6 of its 8 ms: now it is.
    const tl_window_late_t near[] = {{7, 6000}};
    assert_in_range (s_wait (costs, near, 1, 0, 100000), 1900, 2100);
    tl_costs_destroy (&costs);
}

static void
never_beyond_the_limit (void **state)
{
    tl_costs_t *costs = s_costs (8);
    const tl_window_late_t late[] = {{2, 0}};
    assert_int_equal (s_wait (costs, late, 1, 0, 2000), 0);
    assert_int_equal (s_wait (costs, late, 1, 98000, 100000), 0);
    assert_int_equal (s_wait (costs, late, 0, 0, 100000), 0);
    tl_costs_destroy (&costs);
}

//  A client that should have come long ago isn't waited for; one that is a little late is, as long again as it is late.
static void
lost_ones_are_not_waited_for (void **state)
{
    tl_costs_t *costs = s_costs (2);
    const tl_window_late_t soon[] = {{0, 2500}};
    assert_in_range (s_wait (costs, soon, 1, 0, 100000), 1400, 1600);
    const tl_window_late_t late[] = {{0, 60000}};
    assert_int_equal (s_wait (costs, late, 1, 0, 100000), 0);
    tl_costs_destroy (&costs);
}

//  Nothing was measured: nothing is known to be worth a wait.
static void
knows_nothing_waits_not (void **state)
{
    tl_costs_t *costs = tl_costs_new (1, 1);
    const tl_window_late_t late[] = {{0, 0}};
    assert_int_equal (s_wait (costs, late, 1, 0, 100000), 0);
    tl_costs_destroy (&costs);
}

//  Whoever comes piecemeal, always a little later than expected: all in all no longer than it is worth.
static void
never_longer_than_all_are_worth (void **state)
{
    tl_costs_t *costs = s_costs (8);
    const tl_window_late_t late[] = {{1, 0}, {2, 0}, {3, 0}};
    tl_window_scene_t scene = {
        .micros = 1, .late = late, .count = 1, .late_then = 3, .limit_us = 100000};
    scene.since_us = 12000; //  of 15
    assert_in_range (tl_window_judge (costs, &scene).wait_us, 1900, 2100);
    scene.since_us = 13500;
    assert_int_equal (tl_window_judge (costs, &scene).wait_us, 0);
    //  A step of two micros pays the base of forward and backward twice: 9 ms each.
    scene.micros = 2;
    assert_in_range (tl_window_judge (costs, &scene).saves_us, 8900, 9100);
    assert_in_range (tl_window_judge (costs, &scene).wait_us, 1900, 2100);
    tl_costs_destroy (&costs);
}

static void
says_why (void **state)
{
    char text[TL_WINDOW_TEXT];
    tl_window_step_t step = {.members = 3,
                             .late = 1,
                             .waited_us = 2100,
                             .judged = {.saves_us = 21000, .soonest = 3, .soonest_us = 96000}};
    tl_window_text (&step, "s-4", text);
    assert_string_equal (text,
                         "began with 3 of 4 clients after 2.1 ms: s-4 is expected in 96.0 ms, "
                         "and its joining saves 21.0 ms");
    step.late = 0;
    step.waited_us = 700;
    tl_window_text (&step, "", text);
    assert_string_equal (text, "began with 3 of 3 clients after 0.7 ms");
}

int
main (void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test (waits_while_it_pays),
                                       cmocka_unit_test (never_beyond_the_limit),
                                       cmocka_unit_test (lost_ones_are_not_waited_for),
                                       cmocka_unit_test (knows_nothing_waits_not),
                                       cmocka_unit_test (never_longer_than_all_are_worth),
                                       cmocka_unit_test (says_why)};
    return cmocka_run_group_tests_name ("window", tests, NULL, NULL);
}
