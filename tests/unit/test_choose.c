//  The choice of an arrangement, tried in worlds whose true speeds are known: seeded, repeatable.

#include "cmocka_all.h"
#include "choose_world.h"

#include "scheduler/choose.h"

#include <stdio.h>
#include <stdlib.h>

static double
s_draw (uint64_t seed, uint64_t at, double low, double high)
{
    const tl_stream_t stream = {.seed = seed, .purpose = TL_DRAW_INIT};
    return low + (high - low) * tl_random_uniform (&stream, at);
}

//  Any world: 1-8 workers, 1-32 clients, fixed and running costs of any proportion, slow and quick clients.
static world_t
s_world (uint64_t seed, double noise)
{
    world_t world = {.noise = noise, .rounds = 20, .seed = seed};
    world.worker_count = 1 + (size_t)s_draw (seed, 1, 0, 8);
    world.client_count = 1 + (size_t)s_draw (seed, 2, 0, 32);
    double base = pow (10, s_draw (seed, 3, 2, 4.7)), per_row = pow (10, s_draw (seed, 4, -1, 2));
    bool uneven = s_draw (seed, 5, 0, 1) < 0.5;
    double think = pow (10, s_draw (seed, 6, 1, 5));
    world.trip = pow (10, s_draw (seed, 7, 1, 4));
    world.merge = pow (10, s_draw (seed, 8, 2, 6));
    for (size_t w = 0; w < world.worker_count; w++) {
        double slow = uneven ? pow (4, s_draw (seed, 100 + w, 0, 1)) : 1;
        world.workers[w] = (world_worker_t){base * slow, per_row * slow, 500 * slow, false};
    }
    for (size_t c = 0; c < world.client_count; c++) {
        double slow = uneven ? s_draw (seed, 200 + c, 0.5, 2) : 1;
        uint64_t rows = uneven ? 64 + (uint64_t)s_draw (seed, 300 + c, 0, 448) : 256;
        world.clients[c] = (world_client_t){rows, think * slow, think * slow, think * slow, false};
    }
    return world;
}

//  Under noise that moves a period's rate by less than the margin a choice stays. A change after probing mends a choice that
//  was made on few measurements: it is to something truly faster, and there are hardly any.
static void
never_flaps (void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        world_t world = s_world (seed, 0.05);
        tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
        int changes = 0;
        double before = 0;
        for (int period = 0; period < 60; period++) {
            const tl_decision_t *d;
            world_turn (&world, choose, &d);
            double now = world_true (&world, d);
            if (period > 2 && d->changed) {
                changes++;
                if (now < before)
                    fail_msg ("seed %llu, period %d: from %.0f rows/s to %.0f: %s",
                              (unsigned long long)seed, period, before, now, d->text);
            }
            before = now;
        }
        if (changes > 1)
            fail_msg ("seed %llu: expected the choice to stay, it changed %d times in 57 periods",
                      (unsigned long long)seed, changes);
        tl_choose_destroy (&choose);
    }
}

//  Whatever is picked, no candidate's prediction is better by more than the margin, twice in a row; and what is
//  switched to is the best.
static void
never_worse_by_its_own_prediction (void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        world_t world = s_world (seed, 0.3);
        tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
        int behind = 0;
        for (int period = 0; period < 40; period++) {
            const tl_decision_t *d;
            world_turn (&world, choose, &d);
            if (d->probing || !d->candidate_count)
                continue;
            assert_true (d->best_s >= d->candidates[d->candidate_count - 1].rows_s);
            if (d->changed && d->rows_s < d->best_s * 0.999999)
                fail_msg ("seed %llu, period %d: %g rows/s are chosen though %g are promised: %s",
                          (unsigned long long)seed, period, d->rows_s, d->best_s, d->text);
            behind = d->rows_s * 1.03 < d->best_s ? behind + 1 : 0;
            if (behind > 1)
                fail_msg ("seed %llu, period %d: %g rows/s are kept though %g are promised: %s",
                          (unsigned long long)seed, period, d->rows_s, d->best_s, d->text);
        }
        tl_choose_destroy (&choose);
    }
}

//  From the third period on, at least 95 % of what the best pinned mode does, in every world.
static void
as_fast_as_the_best_mode (void **state)
{
    double least = INFINITY;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        world_t world = s_world (seed, 0.03);
        double best = world_best (&world), sum = 0;
        tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
        const tl_decision_t *d = NULL;
        for (int period = 0; period < 12; period++) {
            world_turn (&world, choose, &d);
            if (period >= 2)
                sum += world_true (&world, d) / 10;
        }
        least = fmin (least, sum / best);
        if (sum < 0.95 * best)
            fail_msg (
                "seed %llu: %zu workers, %zu clients: expected 95 %% of %.0f rows/s, got %.0f; "
                "last: %s",
                (unsigned long long)seed, world.worker_count, world.client_count, best, sum,
                d->text);
        tl_choose_destroy (&choose);
    }
    print_message ("auto over the best pinned mode, worst of 120 worlds: %.3f\n", least);
}

static world_t
s_even_world (size_t workers, size_t clients, double base, double per_row)
{
    world_t world = {.worker_count = workers,
                     .client_count = clients,
                     .trip = 100,
                     .merge = 1000,
                     .noise = 0.02,
                     .rounds = 20,
                     .seed = 7};
    for (size_t w = 0; w < workers; w++)
        world.workers[w] = (world_worker_t){base, per_row, 100, false};
    for (size_t c = 0; c < clients; c++)
        world.clients[c] = (world_client_t){256, 100, 100, 100, false};
    return world;
}

//  The models end at the true numbers, for workers that saw other numbers of rows and for those that did not.
static void
fits_converge (void **state)
{
    world_t world = s_even_world (4, 8, 20000, 10);
    tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
    for (int period = 0; period < 6; period++)
        world_turn (&world, choose, NULL);
    for (size_t w = 0; w < 4; w++) {
        double base, per_row;
        tl_costs_line (tl_choose_costs (choose), TL_COST_FORWARD, w, &base, &per_row);
        if (fabs (base / 20000 - 1) > 0.05 || fabs (per_row / 10 - 1) > 0.25)
            fail_msg ("worker %zu: expected 20000 us + 10 us a row, got %.0f + %.2f", w, base,
                      per_row);
    }
    tl_expect_t merge = tl_costs_expect (tl_choose_costs (choose), TL_COST_MERGE, 4, 0);
    assert_true (fabs (merge.us / 1000 - 1) < 0.1);
    tl_choose_destroy (&choose);
}

//  A worker four times as slow takes a quarter of what another one takes.
static void
slow_worker_gets_its_share (void **state)
{
    world_t world = s_even_world (4, 26, 0, 50);
    world.workers[2].per_row = 200;
    tl_choose_t *choose = world_choose (&world, TL_CHOOSE_FANOUT);
    const tl_decision_t *d = NULL;
    for (int period = 0; period < 3; period++)
        world_turn (&world, choose, &d);
    size_t of[4] = {0};
    for (size_t c = 0; c < 26; c++)
        of[d->worker[d->group[c]]]++;
    if (of[0] != 8 || of[1] != 8 || of[2] != 2 || of[3] != 8)
        fail_msg ("expected 8, 8, 2 and 8 of 26 clients, got %zu, %zu, %zu and %zu", of[0], of[1],
                  of[2], of[3]);
    tl_choose_destroy (&choose);
}

//  No other dealing of so few clients is faster: against all of them, counted out.
static void
assignment_is_balanced (void **state)
{
    for (uint64_t seed = 1; seed <= 12; seed++) {
        world_t world = s_world (seed, 0);
        world.worker_count = 3;
        world.client_count = 7;
        for (size_t w = 0; w < 3; w++)
            world.workers[w] = (world_worker_t){1000 * s_draw (seed, 400 + w, 1, 4),
                                                20 * s_draw (seed, 500 + w, 1, 4), 0, false};
        for (size_t c = 0; c < 7; c++)
            world.clients[c].rows = 64 + (uint64_t)s_draw (seed, 600 + c, 0, 448),
            world.clients[c].front = world.clients[c].tail = world.clients[c].end = 1000;
        tl_choose_t *choose = world_choose (&world, TL_CHOOSE_FANOUT);
        const tl_decision_t *d = NULL;
        for (int period = 0; period < 4; period++)
            world_turn (&world, choose, &d);
        double got = world_true (&world, d), best = 0;
        size_t worker[] = {0, 1, 2}, group[7];
        for (int code = 0; code < 2187; code++) {
            int rest = code, used = 0;
            for (size_t c = 0; c < 7; c++, rest /= 3)
                used |= 1 << (group[c] = (size_t)(rest % 3));
            const tl_decision_t other = {
                .groups = 3, .inside = TL_INSIDE_BATCHED, .worker = worker, .group = group};
            if (used == 7)
                best = fmax (best, world_true (&world, &other));
        }
        if (got < 0.93 * best)
            fail_msg ("seed %llu: the best of all dealings does %.0f rows/s, this one %.0f",
                      (unsigned long long)seed, best, got);
        tl_choose_destroy (&choose);
    }
}

//  A worker that becomes four times as slow in the middle of a run: two periods later the arrangement is near the
//  best again, whatever that is.
static void
change_of_load_is_noticed (void **state)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        world_t world = s_world (seed, 0.03);
        tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
        const tl_decision_t *d = NULL;
        for (int period = 0; period < 10; period++)
            world_turn (&world, choose, &d);
        //  One that is in use: of others nobody can know.
        world_worker_t *slow = &world.workers[d->worker[0]];
        slow->base *= 4;
        slow->per_row *= 4;
        for (int period = 0; period < 3; period++)
            world_turn (&world, choose, &d);
        double best = world_best (&world), got = world_true (&world, d);
        if (got < 0.95 * best)
            fail_msg ("seed %llu: %zu workers, %zu clients: expected 95 %% of %.0f rows/s in the "
                      "third period after the change, got %.0f: %s",
                      (unsigned long long)seed, world.worker_count, world.client_count, best, got,
                      d->text);
        tl_choose_destroy (&choose);
    }
}

//  One turnaround in twenty takes ten times as long: that is told apart from the usual time, unless it was the line's.
static void
stragglers_are_told_apart (void **state)
{
    for (int of_the_line = 0; of_the_line < 2; of_the_line++) {
        tl_costs_t *costs = tl_costs_new (1, 1);
        for (int i = 1; i <= 400; i++) {
            bool late = i % 20 == 0;
            if (late && of_the_line)
                tl_costs_unsettle (costs);
            tl_costs_note (costs, TL_COST_TAIL, 0, 256, (late ? 10000 : 1000) + i % 7 * 10);
        }
        tl_expect_t got = tl_costs_expect (costs, TL_COST_TAIL, 0, 256);
        double share = of_the_line ? 0 : 0.05, delay = of_the_line ? 0 : 450;
        if (fabs (got.us - 1030) > 50 || fabs (got.late - share) > 0.015 ||
            fabs (got.delay - delay) > 150)
            fail_msg ("expected 1030 us, %g of them late, which makes %g, got %g, %g and %g", share,
                      delay, got.us, got.late, got.delay);
        tl_costs_destroy (&costs);
    }
}

//  Sites that are done in the middle of a period, and a loss at the line, change nothing of what is expected of others.
static void
what_was_disturbed_is_no_measure (void **state)
{
    world_t world = s_even_world (2, 4, 20000, 10);
    tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
    const tl_decision_t *d = NULL;
    for (int period = 0; period < 6; period++)
        world_turn (&world, choose, &d);
    double before = d->rows_s;
    world_here_t here;
    world_present (&world, &here);
    here.present.disturbed = true;
    for (int period = 0; period < 4; period++) {
        uint64_t rows;
        d = tl_choose_next (choose, &here.present);
        double us = world_period (&world, tl_choose_costs (choose), d, &rows);
        tl_costs_note (tl_choose_costs (choose), TL_COST_MERGE, d->groups, 0, 5000000);
        tl_choose_measured (choose, rows / 2, (int64_t)us);
    }
    if (fabs (d->rows_s / before - 1) > 0.05)
        fail_msg ("expected %.0f rows/s as before, got %.0f: %s", before, d->rows_s, d->text);
    tl_choose_destroy (&choose);
}

//  Clients and workers that come and go are dealt with at the next line, without waiting for a second opinion.
static void
members_come_and_go (void **state)
{
    world_t world = s_even_world (4, 8, 1000, 50);
    world.workers[3].away = true;
    tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
    const tl_decision_t *d = NULL;
    for (int period = 0; period < 4; period++)
        world_turn (&world, choose, &d);
    assert_int_equal (d->groups, 3);
    world.workers[3].away = false;
    for (int period = 0; period < 3; period++)
        world_turn (&world, choose, &d);
    assert_int_equal (d->groups, 4);
    world.workers[0].away = world.workers[1].away = true;
    for (size_t c = 0; c < 4; c++)
        world.clients[c].away = true;
    world_turn (&world, choose, &d);
    assert_int_equal (d->groups, 2);
    assert_true (d->changed && d->rearranged);
    for (size_t c = 0; c < 8; c++)
        assert_true ((d->group[c] == TL_CHOOSE_NOBODY) == (c < 4));
    tl_choose_destroy (&choose);
}

//  Pinned modes keep to their number of groups; a decision is a sentence with its numbers.
static void
sentences (void **state)
{
    world_t world = s_even_world (2, 4, 20000, 10);
    tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
    const tl_decision_t *d = NULL;
    world_turn (&world, choose, &d);
    assert_true (d->probing);
    assert_string_equal (d->text, "fanout with 2 groups, batched and one by one in turn: measures "
                                  "workers, clients and links before anything is chosen");
    world_turn (&world, choose, &d);
    assert_true (d->probing && d->groups == 1 && d->inside == TL_INSIDE_BATCHED);
    world_turn (&world, choose, &d);
    assert_non_null (strstr (d->text, "fanout with 2 groups: predicted "));
    assert_non_null (strstr (d->text, " %), first choice after probing"));
    world_turn (&world, choose, &d);
    assert_non_null (strstr (d->text, "fanout with 2 groups stays: predicted "));
    //  One worker becomes slow: what is better must be so twice before it is done.
    world.workers[1].base *= 8;
    bool once = false, twice = false;
    for (int period = 0; period < 4 && !twice; period++) {
        once = strstr (d->text, "fanout with 2 groups stays for now: ") &&
               strstr (d->text, " %), first round in a row");
        world_turn (&world, choose, &d);
        twice = strstr (d->text, " %), second round in a row") != NULL;
    }
    if (!once || !twice || !d->changed || strncmp (d->text, "batched: predicted ", 19) != 0 ||
        !strstr (d->text, " rows/s against "))
        fail_msg ("expected batched in the second round in a row, got: %s", d->text);
    tl_choose_destroy (&choose);
    choose = world_choose (&world, TL_CHOOSE_SERIAL);
    world_turn (&world, choose, &d);
    assert_string_equal (d->text, "serial, as schedule.mode says");
    tl_choose_destroy (&choose);
}

//  Saved in the middle and restored, a chooser goes on deciding as the one that never stopped.
static void
resumes (void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        world_t world = s_world (seed, 0.1);
        for (int saved = 0; saved < 6; saved++) {
            world_t one = world, two;
            tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
            for (int period = 0; period < saved; period++)
                world_turn (&one, choose, NULL);
            char *text = tl_choose_state (choose);
            tl_choose_t *again = world_choose (&world, TL_CHOOSE_AUTO);
            tl_error_t err;
            if (tl_choose_restore (again, text, &err) != 0)
                fail_msg ("%s", err.text);
            two = one;
            for (int period = 0; period < 6; period++) {
                const tl_decision_t *a, *b;
                world_turn (&one, choose, &a);
                world_turn (&two, again, &b);
                assert_string_equal (a->text, b->text);
                for (size_t c = 0; c < world.client_count; c++)
                    assert_int_equal (a->worker[a->group[c]], b->worker[b->group[c]]);
            }
            free (text);
            tl_choose_destroy (&choose);
            tl_choose_destroy (&again);
        }
    }
}

static void
damaged_state_is_refused (void **state)
{
    world_t world = s_even_world (2, 4, 20000, 10);
    tl_choose_t *choose = world_choose (&world, TL_CHOOSE_AUTO);
    for (int period = 0; period < 4; period++)
        world_turn (&world, choose, NULL);
    char *text = tl_choose_state (choose);
    static const char *const damages[][2] = {{"\"version\":1", "\"version\":2"},
                                             {"\"worker\":[0,1]", "\"worker\":[0,0]"},
                                             {"\"worker\":[0,1]", "\"worker\":[0,7]"},
                                             {"\"group\":[0", "\"group\":[9"},
                                             {"\"stage\":\"chosen\"", "\"stage\":\"odd\""},
                                             {"\"clients\":[0", "\"clients\":[-1"},
                                             {"\"units\":[", "\"units\":[-1,"},
                                             {"{", "["}};
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        const char *at = strstr (text, damages[i][0]);
        assert_non_null (at);
        char *bad = malloc (strlen (text) + 64);
        sprintf (bad, "%.*s%s%s", (int)(at - text), text, damages[i][1],
                 at + strlen (damages[i][0]));
        tl_choose_t *other = world_choose (&world, TL_CHOOSE_AUTO);
        tl_error_t err = {0};
        assert_int_equal (tl_choose_restore (other, bad, &err), -1);
        assert_non_null (strstr (err.text, "take the one before"));
        free (bad);
        tl_choose_destroy (&other);
    }
    free (text);
    tl_choose_destroy (&choose);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (never_flaps),
        cmocka_unit_test (never_worse_by_its_own_prediction),
        cmocka_unit_test (as_fast_as_the_best_mode),
        cmocka_unit_test (fits_converge),
        cmocka_unit_test (slow_worker_gets_its_share),
        cmocka_unit_test (assignment_is_balanced),
        cmocka_unit_test (change_of_load_is_noticed),
        cmocka_unit_test (stragglers_are_told_apart),
        cmocka_unit_test (what_was_disturbed_is_no_measure),
        cmocka_unit_test (members_come_and_go),
        cmocka_unit_test (sentences),
        cmocka_unit_test (resumes),
        cmocka_unit_test (damaged_state_is_refused),
    };
    return cmocka_run_group_tests_name ("choose", tests, NULL, NULL);
}
