/*  The scheduler with one group, by example: serial and batch, saves, losses, stops. Several groups are
    test_scheduler_groups, runs by chance test_scheduler_chance.                                          */

#include "unit/cmocka_all.h"
#include "unit/scheduler_rig.h"

#include "log.h"

#include <string.h>

static rig_t *
s_rig (bool serial, size_t clients, uint64_t rounds, uint64_t save_every)
{
    rig_t *self = rig_new (clients, 1, 1, rounds, 1000, save_every);
    self->inside = serial ? TL_INSIDE_SERIAL : TL_INSIDE_BATCHED;
    rig_begin (self);
    return self;
}

static void
s_end (rig_t *self, const char *words)
{
    rig_expect (self, words);
    rig_destroy (&self);
}

static void
test_batch (void **state)
{
    rig_t *self = s_rig (false, 2, 3, 2);
    rig_join (self, 1);
    rig_worker (self, 0);
    assert_string_equal (tl_scheduler_state_name (self->scheduler), "waiting");
    rig_join (self, 0); //  the first step waits for everybody
    assert_string_equal (tl_scheduler_state_name (self->scheduler), "training");
    rig_close (self, 0, 7);
    rig_close (self, 0, 7); //  the next step waits until all have saved
    rig_do_all (self);
    rig_close (self, 0, 7);
    rig_do_all (self);
    s_end (self, "plan 0/0: 0 1; plan 1/1: 0 1; save 2; common 2; plan 2/2: 0 1; save 3 last; "
                 "common 3; finish; done 0; ");
}

static void
test_serial_takes_turns (void **state)
{
    rig_t *self = s_rig (true, 3, 2, 0);
    rig_worker (self, 0);
    for (size_t i = 0; i < 3; i++)
        rig_join (self, i);
    for (int i = 0; i < 4; i++)
        rig_close (self, 0, 1);
    rig_leave (self, 1); //  its turn: the step is the worker's to close
    rig_close (self, 0, 0);
    rig_close (self, 0, 1);
    rig_client_does (self, 0, true);
    rig_client_does (self, 2, true);
    rig_worker_does (self, 0, true);
    s_end (self, "plan 0/0: 0; plan 1/0: 1; plan 2/0: 2; plan 3/1: 0; plan 4/1: 1; leave 1; "
                 "abandoned 4; plan 4/1: 2; save 5 last; common 5; finish; ");
}

//  Periods leave no trace where nothing is to be merged; neither do steps that alternate.
static void
test_periods (void **state)
{
    rig_t *self = rig_new (2, 1, 1, 5, 2, 0);
    rig_begin (self);
    rig_all (self);
    assert_true (rig_run (self));
    assert_int_equal (self->periods, 3);
    assert_int_equal (self->undisturbed, 3);
    s_end (self, "plan 0/0: 0 1; plan 1/1: 0 1; plan 2/2: 0 1; plan 3/3: 0 1; plan 4/4: 0 1; "
                 "save 5 last; common 5; finish; done 0; ");
    self = rig_new (2, 1, 1, 3, 2, 0);
    self->inside = TL_INSIDE_ALTERNATE;
    rig_begin (self);
    rig_all (self);
    assert_true (rig_run (self));
    s_end (self, "plan 0/0: 0 1; plan 1/1: 0; plan 2/1: 1; plan 3/2: 0 1; save 4 last; common 4; "
                 "finish; done 0; ");
}

//  A client that has fewer steps than the run stays away from the rest of it.
static void
test_limits (void **state)
{
    rig_t *self = rig_new (2, 1, 1, 4, 2, 0);
    self->limits[0] = 3;
    self->limits[1] = 1;
    self->config.limits = self->limits;
    rig_begin (self);
    rig_all (self);
    assert_true (rig_run (self));
    s_end (self,
           "plan 0/0: 0 1; plan 1/1: 0; plan 2/2: 0; save 3 last; common 3; finish; done 0; ");
}

static void
test_a_client_that_leaves_comes_back (void **state)
{
    rig_t *self = s_rig (false, 2, 4, 0);
    rig_all (self);
    rig_leave (self, 0);
    rig_close (self, 0, 3); //  without it
    rig_join (self, 0);     //  from the next plan on
    rig_close (self, 0, 3);
    s_end (self, "plan 0/0: 0 1; leave 0; plan 1/1: 1; plan 2/2: 0 1; ");
}

static void
test_nobody_left_waits (void **state)
{
    rig_t *self = s_rig (false, 2, 4, 0);
    rig_all (self);
    rig_leave (self, 0);
    rig_leave (self, 1);
    rig_close (self, 0, 0);
    assert_int_equal (tl_scheduler_state (self->scheduler), TL_RUN_WAITING);
    rig_join (self, 1);
    s_end (self, "plan 0/0: 0 1; leave 0; leave 1; abandoned 0; plan 0/0: 1; ");
}

static void
test_a_lost_worker_costs_the_way_back (void **state)
{
    rig_t *self = s_rig (false, 1, 9, 2);
    rig_all (self);
    rig_lose (self, 0); //  before any save: back to the start
    assert_string_equal (tl_scheduler_state_name (self->scheduler), "waiting");
    rig_worker (self, 0);
    assert_string_equal (tl_scheduler_state_name (self->scheduler), "restoring");
    rig_do_all (self);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_do_all (self);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_client_does (self, 0, true); //  of the second save the worker's answer never comes
    rig_lose (self, 0);
    rig_worker (self, 0);
    rig_do_all (self);
    s_end (self, "plan 0/0: 0; abandoned 0; restore 0; equip 0 0; plan 0/0: 0; plan 1/1: 0; "
                 "save 2; common 2; plan 2/2: 0; plan 3/3: 0; save 4; restore 2; equip 0 2; "
                 "plan 2/2: 0; ");
}

//  A spare worker takes over at once, also in the middle of a period.
static void
test_a_spare_worker_takes_over (void **state)
{
    rig_t *self = rig_new (1, 2, 1, 4, 20, 2);
    rig_begin (self);
    rig_all (self);
    for (int i = 0; i < 3; i++) {
        rig_close (self, 0, 1);
        rig_do_all (self);
    }
    rig_lose (self, 0);
    assert_int_equal (tl_scheduler_worker_of (self->scheduler, 0), 1);
    assert_int_equal (tl_scheduler_server (self->scheduler, 0), TL_NOBODY);
    assert_true (rig_run (self));
    assert_int_equal (tl_scheduler_server (self->scheduler, 0), 1);
    s_end (self, "plan 0:0/0: 0; plan 0:1/1: 0; save 2; common 2; plan 0:2/2: 0; plan 0:3/3: 0; "
                 "abandoned 3; restore 2; equip 1 2; plan 1:2/2: 0; plan 1:3/3: 0; save 4 last; "
                 "common 4; finish; done 0; ");
}

static void
test_a_worker_lost_while_scoring_is_waited_for (void **state)
{
    rig_t *self = s_rig (false, 2, 1, 0);
    rig_all (self);
    rig_close (self, 0, 1);
    for (size_t i = 0; i < 2; i++)
        rig_client_does (self, i, true);
    rig_worker_does (self, 0, true);
    rig_client_does (self, 0, true);
    rig_lose (self, 0);
    rig_client_does (self, 1, true); //  said of the first time: too late
    assert_int_equal (tl_scheduler_state (self->scheduler), TL_RUN_WAITING);
    rig_worker (self, 0);
    rig_worker_does (self, 0, true);
    for (size_t i = 0; i < 2; i++)
        rig_client_does (self, i, true);
    rig_client_does (self, 1, true);
    assert_int_equal (self->done, 0); //  everybody scores again
    rig_client_does (self, 0, true);
    s_end (self, "plan 0/0: 0 1; save 1 last; common 1; finish; equip 0 1; restore 1; finish; "
                 "done 0; ");
    //  A stop meanwhile has nothing to wait for
    self = s_rig (false, 1, 1, 0);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_client_does (self, 0, true);
    rig_worker_does (self, 0, true);
    rig_lose (self, 0);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    s_end (self, "plan 0/0: 0; save 1 last; common 1; finish; done 0; ");
}

static void
test_a_finished_run_whose_trunk_is_gone_says_so (void **state)
{
    rig_t *self = s_rig (false, 1, 1, 0);
    rig_all (self);
    assert_true (rig_run (self));
    assert_int_equal (tl_scheduler_server (self->scheduler, TL_NOBODY), 0);
    rig_lose (self, 0);
    assert_int_equal (tl_scheduler_server (self->scheduler, TL_NOBODY), TL_NOBODY);
    rig_worker (self, 0);
    rig_worker_does (self, 0, false);
    s_end (self, "plan 0/0: 0; save 1 last; common 1; finish; done 0; equip 0 1; unserved; ");
}

static void
test_away_while_the_run_went_back (void **state)
{
    rig_t *self = s_rig (false, 2, 9, 2);
    rig_all (self);
    rig_close (self, 0, 1); //  both hold the state of one step, which never becomes common
    rig_leave (self, 1);
    rig_lose (self, 0);
    rig_worker (self, 0);
    rig_do_all (self);
    rig_join (self, 1);
    rig_close (self, 0, 1);
    s_end (self, "plan 0/0: 0 1; plan 1/1: 0 1; leave 1; abandoned 1; restore 0; equip 0 0; "
                 "plan 0/0: 0; back 1 0; plan 1/1: 0 1; ");
}

//  It goes before it has gone back: it may never have heard of it, and is told again.
static void
test_gone_before_it_went_back (void **state)
{
    rig_t *self = s_rig (false, 2, 9, 2);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_do_all (self);
    rig_lose (self, 0);
    rig_worker (self, 0);
    rig_leave (self, 1);
    rig_do_all (self);
    rig_join (self, 1);
    rig_leave (self, 1); //  and again
    rig_join (self, 1);
    rig_client_does (self, 1, true);
    rig_leave (self, 1); //  it was there
    rig_join (self, 1);
    s_end (self, "plan 0/0: 0 1; plan 1/1: 0 1; save 2; common 2; plan 2/2: 0 1; abandoned 2; "
                 "restore 2; equip 0 2; plan 2/2: 0; back 1 2; back 1 2; ");
}

static void
test_a_stop_while_saving (void **state)
{
    rig_t *self = s_rig (false, 1, 9, 1);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_client_does (self, 0, true);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    assert_int_equal (self->done, 0); //  that save comes first
    rig_do_all (self);
    s_end (self, "plan 0/0: 0; save 1; common 1; done 0; ");

    self = s_rig (false, 1, 9, 1);
    rig_all (self);
    rig_close (self, 0, 1);
    tl_scheduler_stop (self->scheduler, true, 0, "stop"); //  no time
    assert_non_null (strstr (self->why, "could not be saved in time"));
    s_end (self, "plan 0/0: 0; save 1; done 1; ");
}

static void
test_a_save_that_fails_ends_the_run (void **state)
{
    rig_t *self = s_rig (false, 2, 9, 1);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_client_does (self, 0, true);
    rig_client_does (self, 1, false);
    rig_do_all (self);
    assert_non_null (strstr (self->why, "disk full"));
    s_end (self, "plan 0/0: 0 1; save 1; done 1; ");
}

static void
test_stop (void **state)
{
    //  In a step: it commits first. Hurried: it is given up. Nothing trained: nothing to save.
    rig_t *self = s_rig (false, 1, 9, 0);
    rig_all (self);
    rig_close (self, 0, 1);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    tl_scheduler_stop (self->scheduler, true, 0, "stop");
    rig_close (self, 0, 0);
    rig_do_all (self);
    s_end (self,
           "plan 0/0: 0; plan 1/1: 0; give up 1; abandoned 1; save 1 last; common 1; done 0; ");

    self = s_rig (false, 1, 9, 0);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    rig_join (self, 0);
    rig_worker (self, 0);
    s_end (self, "done 0; ");
}

static void
test_a_step_of_nothing_is_not_repeated_for_ever (void **state)
{
    rig_t *self = s_rig (false, 1, 9, 0);
    rig_all (self);
    for (int i = 0; i < 3; i++)
        rig_close (self, 0, 0);
    assert_non_null (strstr (self->why, "came to nothing"));
    s_end (self, "plan 0/0: 0; abandoned 0; plan 0/0: 0; abandoned 0; plan 0/0: 0; abandoned 0; "
                 "done 1; ");
}

//  Everything was killed: the run goes on at its last common save, in the middle of a period and of a round.
static void
test_resume (void **state)
{
    rig_t *self = rig_new (3, 1, 1, 4, 3, 4);
    self->inside = TL_INSIDE_SERIAL;
    rig_begin (self);
    rig_all (self);
    for (int i = 0; i < 4; i++)
        rig_close (self, 0, 1);
    rig_do_all (self);
    assert_int_equal (self->common.step, 4);
    tl_place_t place = self->common;
    rig_expect (self, "plan 0/0: 0; plan 1/0: 1; plan 2/0: 2; plan 3/1: 0; save 4; common 4; "
                      "plan 4/1: 1; ");
    rig_close (self, 0, 1);
    assert_true (rig_run (self));
    uint64_t undisturbed = rig_result (self);
    rig_destroy (&self);

    self = rig_new (3, 1, 1, 4, 3, 4);
    self->inside = TL_INSIDE_SERIAL;
    rig_begin (self);
    rig_all (self);
    for (int i = 0; i < 6; i++) {
        rig_close (self, 0, 1);
        rig_do_all (self);
    }
    for (size_t i = 0; i < 3; i++)
        rig_leave (self, i);
    rig_lose (self, 0);
    self->words[0] = 0;
    tl_scheduler_destroy (&self->scheduler);
    rig_begin (self);
    tl_scheduler_resume (self->scheduler, &place, NULL, false);
    rig_all (self);
    rig_do_all (self);
    rig_expect (self, "restore 4; equip 0 4; plan 4/1: 1; ");
    assert_true (rig_run (self));
    assert_int_equal (rig_result (self), undisturbed);
    rig_destroy (&self);
}

//  Whoever had left before isn't waited for; a run that was over is only served.
static void
test_resume_without_some (void **state)
{
    rig_t *self = rig_new (3, 1, 1, 9, 3, 0);
    rig_begin (self);
    self->common = (tl_place_t){.step = 4, .round = 4, .begin = 3, .inside = TL_INSIDE_BATCHED};
    self->store[4] = 44;
    bool expected[] = {false, true, true};
    tl_scheduler_resume (self->scheduler, &self->common, expected, false);
    assert_int_equal (tl_scheduler_place (self->scheduler).step, 4);
    assert_int_equal (tl_scheduler_saved_step (self->scheduler), 4);
    rig_worker (self, 0);
    assert_int_equal (tl_scheduler_server (self->scheduler, TL_NOBODY), TL_NOBODY);
    rig_join (self, 2);
    rig_lose (self, 0); //  that is nothing new
    rig_worker (self, 0);
    rig_join (self, 1);
    rig_do_all (self);
    assert_int_equal (tl_scheduler_server (self->scheduler, TL_NOBODY), 0);
    rig_join (self, 0); //  has newer things, perhaps
    rig_close (self, 0, 1);
    s_end (self, "restore 4; equip 0 4; plan 4/4: 1 2; back 0 4; plan 5/5: 0 1 2; ");

    self = rig_new (1, 1, 1, 4, 3, 0);
    rig_begin (self);
    self->common = (tl_place_t){.step = 4, .round = 4, .begin = 4, .inside = TL_INSIDE_BATCHED};
    self->store[4] = 44;
    self->done = 1;
    tl_scheduler_resume (self->scheduler, &self->common, NULL, true);
    rig_worker (self, 0);
    assert_int_equal (tl_scheduler_server (self->scheduler, TL_NOBODY), TL_NOBODY);
    rig_worker_does (self, 0, true);
    assert_int_equal (tl_scheduler_server (self->scheduler, TL_NOBODY), 0);
    s_end (self, "equip 0 4; ");
}

//  Where not all were needed to begin, a run that was begun doesn't wait for ever for who does not come back.
static void
test_resume_without_who_is_overdue (void **state)
{
    for (uint64_t saved = 0; saved <= 4; saved += 4) {
        rig_t *self = rig_new (3, 1, 1, 6, 3, 0);
        self->config.start = 2;
        rig_begin (self);
        self->common = (tl_place_t){
            .step = saved, .round = saved, .begin = saved / 4 * 3, .inside = TL_INSIDE_BATCHED};
        self->store[4] = 44;
        bool expected[] = {true, true, false};
        tl_scheduler_resume (self->scheduler, &self->common, expected, false);
        rig_worker (self, 0);
        assert_false (tl_scheduler_overdue (self->scheduler)); //  there is nobody to go on with
        rig_join (self, 0);
        assert_string_equal (tl_scheduler_state_name (self->scheduler), "waiting");
        assert_false (tl_scheduler_awaits (self->scheduler, 0));
        assert_true (tl_scheduler_awaits (self->scheduler, 1));
        assert_false (tl_scheduler_awaits (self->scheduler, 2));
        if (!saved) {
            assert_false (tl_scheduler_overdue (self->scheduler)); //  it may not have begun
            rig_join (self, 2);
        }
        assert_true (tl_scheduler_overdue (self->scheduler));
        assert_false (tl_scheduler_overdue (self->scheduler));
        assert_false (tl_scheduler_awaits (self->scheduler, 1));
        rig_do_all (self);
        s_end (self, saved ? "restore 4; equip 0 4; plan 4/4: 0; "
                           : "restore 0; equip 0 0; plan 0/0: 0 2; ");
    }
}

//  Whoever can't go back to where the run goes on is not gone on without, however late it says so.
static void
test_resume_waits_for_all_saves (void **state)
{
    bool expected[] = {true, true, false};
    for (int refuses = 0; refuses < 2; refuses++) {
        rig_t *self = rig_new (3, 1, 1, 6, 3, 0);
        rig_begin (self);
        self->common = (tl_place_t){.step = 4, .round = 4, .begin = 3, .inside = TL_INSIDE_BATCHED};
        self->store[4] = 44;
        tl_scheduler_resume (self->scheduler, &self->common, expected, false);
        rig_worker (self, 0);
        rig_join (self, 0);
        rig_join (self, 1);
        assert_string_equal (tl_scheduler_state_name (self->scheduler), "restoring");
        rig_client_does (self, 0, true);
        rig_join (self, 2); //  nobody waited for it; now it has to go back, too
        if (refuses) {
            rig_client_does (self, 1, false);
            s_end (self, "restore 4; back 2 4; done 1; ");
            continue;
        }
        rig_leave (self, 1); //  it said so itself, and went
        rig_client_does (self, 2, true);
        assert_string_equal (tl_scheduler_state_name (self->scheduler), "waiting");
        rig_leave (self, 2); //  it needn't come back
        rig_join (self, 1);
        rig_do_all (self);
        s_end (self, "restore 4; back 2 4; back 1 4; equip 0 4; plan 4/4: 0 1; ");
    }
}

//  Somebody has an older save only: all go back to that, when all have said what they have, and nothing is made before.
static void
test_resume_earlier (void **state)
{
    rig_t *self = rig_new (2, 1, 1, 6, 3, 0);
    rig_begin (self);
    self->common = (tl_place_t){.step = 4, .round = 4, .begin = 3, .inside = TL_INSIDE_BATCHED};
    self->store[2] = 22;
    tl_scheduler_resume (self->scheduler, &self->common, NULL, false);
    rig_all (self);
    self->common = (tl_place_t){.step = 2, .round = 2, .begin = 0, .inside = TL_INSIDE_BATCHED};
    tl_scheduler_resume_earlier (self->scheduler, &self->common);
    rig_client_does (self, 0, true);
    assert_int_equal (tl_scheduler_saved_step (self->scheduler), 4);
    rig_client_does (self, 1, true);
    assert_int_equal (tl_scheduler_saved_step (self->scheduler), 2);
    assert_true (tl_scheduler_resuming (self->scheduler));
    rig_do_all (self);
    assert_false (tl_scheduler_resuming (self->scheduler));
    s_end (self, "restore 4; restore 2; equip 0 2; plan 2/2: 0 1; ");
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_batch),
        cmocka_unit_test (test_serial_takes_turns),
        cmocka_unit_test (test_periods),
        cmocka_unit_test (test_limits),
        cmocka_unit_test (test_a_client_that_leaves_comes_back),
        cmocka_unit_test (test_nobody_left_waits),
        cmocka_unit_test (test_a_lost_worker_costs_the_way_back),
        cmocka_unit_test (test_a_spare_worker_takes_over),
        cmocka_unit_test (test_a_worker_lost_while_scoring_is_waited_for),
        cmocka_unit_test (test_a_finished_run_whose_trunk_is_gone_says_so),
        cmocka_unit_test (test_away_while_the_run_went_back),
        cmocka_unit_test (test_gone_before_it_went_back),
        cmocka_unit_test (test_a_stop_while_saving),
        cmocka_unit_test (test_a_save_that_fails_ends_the_run),
        cmocka_unit_test (test_stop),
        cmocka_unit_test (test_a_step_of_nothing_is_not_repeated_for_ever),
        cmocka_unit_test (test_resume),
        cmocka_unit_test (test_resume_without_some),
        cmocka_unit_test (test_resume_without_who_is_overdue),
        cmocka_unit_test (test_resume_waits_for_all_saves),
        cmocka_unit_test (test_resume_earlier),
    };
    tl_log_level (TL_LOG_ERROR);
    return cmocka_run_group_tests (tests, NULL, NULL);
}
