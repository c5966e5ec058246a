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

static void
waits_while_it_pays (void **state)
{
    tl_costs_t *costs = s_costs (8);
    //  3 ms for one that saves 5: worth it; the one that takes 6 saves 5 as well, and together 10 - 6 = 4 is more than 5 - 3.
    const tl_window_late_t late[] = {{2, 0}, {5, 0}};
    assert_in_range (tl_window_wait (costs, 0, late, 1, 0, 100000), 2900, 3100);
    assert_in_range (tl_window_wait (costs, 0, late, 2, 0, 100000), 5900, 6100);
    //  8 ms for one that saves 5: not.
    const tl_window_late_t slow[] = {{7, 0}};
    assert_int_equal (tl_window_wait (costs, 0, slow, 1, 0, 100000), 0);
    //  It has been on its way for 6 of its 8 ms: now it is.
    const tl_window_late_t near[] = {{7, 6000}};
    assert_in_range (tl_window_wait (costs, 0, near, 1, 0, 100000), 1900, 2100);
    tl_costs_destroy (&costs);
}

static void
never_beyond_the_limit (void **state)
{
    tl_costs_t *costs = s_costs (8);
    const tl_window_late_t late[] = {{2, 0}};
    assert_int_equal (tl_window_wait (costs, 0, late, 1, 0, 2000), 0);
    assert_int_equal (tl_window_wait (costs, 0, late, 1, 98000, 100000), 0);
    assert_int_equal (tl_window_wait (costs, 0, late, 0, 0, 100000), 0);
    tl_costs_destroy (&costs);
}

//  A client that should have come long ago isn't waited for.
static void
lost_ones_are_not_waited_for (void **state)
{
    tl_costs_t *costs = s_costs (2);
    const tl_window_late_t late[] = {{0, 60000}};
    assert_int_equal (tl_window_wait (costs, 0, late, 1, 0, 100000), 0);
    tl_costs_destroy (&costs);
}

//  Nothing was measured: nothing is known to be worth a wait.
static void
knows_nothing_waits_not (void **state)
{
    tl_costs_t *costs = tl_costs_new (1, 1);
    const tl_window_late_t late[] = {{0, 0}};
    assert_int_equal (tl_window_wait (costs, 0, late, 1, 0, 100000), 0);
    tl_costs_destroy (&costs);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test (waits_while_it_pays),
                                       cmocka_unit_test (never_beyond_the_limit),
                                       cmocka_unit_test (lost_ones_are_not_waited_for),
                                       cmocka_unit_test (knows_nothing_waits_not)};
    return cmocka_run_group_tests_name ("window", tests, NULL, NULL);
}
