/*  The scheduler with several groups: replicas gathered, merged and saved at the line, workers lost anywhere,
    adapters averaged or summed. What parts hold at the end says whether anything was lost or done twice.  */

#include "unit/cmocka_all.h"
#include "unit/scheduler_rig.h"

#include "log.h"

#include <string.h>

//  Two groups of two clients: 0 and 2 with worker 0, 1 and 3 with worker 1; three rounds, two a period.
static rig_t *
s_two (size_t workers)
{
    rig_t *self = rig_new (4, workers, 2, 3, 2, 0);
    self->config.aggregator = true;
    self->fixed = true;
    rig_begin (self);
    return self;
}

static const char s_first[] = "plan 0:0/0: 0 2; plan 1:0/0: 1 3; ";

static void
test_two_groups (void **state)
{
    rig_t *self = s_two (2);
    rig_worker (self, 0);
    rig_worker (self, 1);
    for (size_t i = 0; i < 4; i++)
        rig_join (self, i);
    assert_int_equal (tl_scheduler_state (self->scheduler), TL_RUN_WAITING); //  for the aggregator
    rig_aggregator (self);
    rig_expect (self, s_first);
    rig_close (self, 0, 1); //  each goes its own way
    rig_close (self, 0, 1);
    rig_do_all (self);
    rig_expect (self, "plan 0:1/1: 0 2; merge trunk: 0 1; ");
    assert_int_equal (tl_scheduler_place (self->scheduler).step, 2);
    assert_int_equal (tl_scheduler_step_of (self->scheduler, 1), 0);
    assert_true (tl_scheduler_member (self->scheduler, 1, 0));
    assert_false (tl_scheduler_member (self->scheduler, 1, 1));
    assert_false (tl_scheduler_member (self->scheduler, 0, 2));
    assert_int_equal (tl_scheduler_worker_of (self->scheduler, 3), 1);
    rig_close (self, 1, 1);
    rig_close (self, 1, 1);
    assert_string_equal (tl_scheduler_state_name (self->scheduler), "merging");
    assert_true (rig_run (self));
    rig_expect (self, "plan 1:1/1: 1 3; merge trunk now: 0 1; merged; save 2 merged; common 2; "
                      "equip 0 2; equip 1 2; plan 0:2/2: 0 2; plan 1:2/2: 1 3; merge trunk: 0 1; "
                      "merge trunk now: 0 1; merged; save 3 merged last; common 3; equip 0 3; "
                      "equip 1 3; finish; done 0; ");
    assert_int_equal (self->undisturbed, 2);
    rig_destroy (&self);
}

static uint64_t
s_undisturbed (size_t workers)
{
    rig_t *self = s_two (workers);
    rig_all (self);
    assert_true (rig_run (self));
    uint64_t result = rig_result (self);
    rig_destroy (&self);
    return result;
}

static void
s_same_as_undisturbed (rig_t *self)
{
    assert_true (rig_run (self));
    assert_int_equal (self->code, 0);
    assert_int_equal (rig_result (self), s_undisturbed (self->config.workers));
    rig_destroy (&self);
}

static void
test_a_lost_workers_group_repeats_on_a_spare (void **state)
{
    rig_t *self = s_two (3);
    rig_all (self);
    rig_close (self, 1, 1);
    rig_lose (self, 1);
    rig_expect (self, "plan 0:0/0: 0 2; plan 1:0/0: 1 3; plan 1:1/1: 1 3; abandoned 1; "
                      "restore 0 1 3; equip 2 0; ");
    rig_close (self, 0, 1); //  the other group goes on
    rig_expect (self, "plan 0:1/1: 0 2; ");
    s_same_as_undisturbed (self);
}

static void
test_it_repeats_on_the_worker_that_came_back (void **state)
{
    rig_t *self = s_two (2);
    rig_all (self);
    rig_close (self, 1, 1);
    rig_lose (self, 1);
    assert_int_equal (tl_scheduler_worker_of (self->scheduler, 1), TL_NOBODY);
    rig_worker (self, 1);
    assert_int_equal (tl_scheduler_worker_of (self->scheduler, 1), 1);
    s_same_as_undisturbed (self);
}

static void
test_it_repeats_on_the_worker_that_is_done (void **state)
{
    rig_t *self = s_two (2);
    rig_all (self);
    rig_close (self, 1, 1);
    rig_lose (self, 1);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    self->words[0] = 0;
    rig_do_all (self);
    rig_expect (self, "restore 0 1 3; equip 0 0; plan 0:0/0: 1 3; ");
    s_same_as_undisturbed (self);
}

static void
test_it_repeats_on_the_spare_rather_than_on_the_one_that_is_done (void **state)
{
    rig_t *self = s_two (3);
    rig_all (self);
    rig_close (self, 1, 1);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_do_all (self); //  the first group is gathered
    self->words[0] = 0;
    rig_lose (self, 1);
    rig_do_all (self);
    rig_expect (self, "abandoned 1; restore 0 1 3; equip 2 0; plan 2:0/0: 1 3; ");
    s_same_as_undisturbed (self);
}

static void
test_all_workers_lost (void **state)
{
    rig_t *self = s_two (2);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_do_all (self); //  the first group is gathered
    rig_lose (self, 0);
    rig_lose (self, 1);
    assert_int_equal (tl_scheduler_state (self->scheduler), TL_RUN_MERGING);
    rig_worker (self, 0);
    s_same_as_undisturbed (self);
}

static void
test_a_worker_lost_while_its_replica_is_asked_for (void **state)
{
    rig_t *self = s_two (3);
    rig_all (self);
    for (size_t i = 0; i < 4; i++)
        rig_close (self, i / 2, 1);
    rig_lose (self, 1);
    rig_expect (self, "plan 0:0/0: 0 2; plan 1:0/0: 1 3; plan 0:1/1: 0 2; merge trunk: 0 1; "
                      "plan 1:1/1: 1 3; merge trunk now: 0 1; merge trunk: 0 1; restore 0 1 3; "
                      "equip 2 0; ");
    s_same_as_undisturbed (self);
}

static void
test_the_aggregator_lost (void **state)
{
    //  Before the result: everybody hands in again.
    rig_t *self = s_two (2);
    rig_all (self);
    for (size_t i = 0; i < 4; i++)
        rig_close (self, i / 2, 1);
    rig_worker_does (self, 0, true);
    rig_lose_aggregator (self);
    assert_int_equal (tl_scheduler_state (self->scheduler), TL_RUN_WAITING);
    rig_aggregator (self);
    s_same_as_undisturbed (self);
    //  A replica whose worker went on is lost with it: that group repeats.
    self = s_two (2);
    rig_all (self);
    rig_lose (self, 1);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_do_all (self);
    rig_lose_aggregator (self);
    rig_aggregator (self);
    rig_worker (self, 1);
    s_same_as_undisturbed (self);
}

static void
test_too_few_parts_end_the_run (void **state)
{
    rig_t *self = s_two (2);
    rig_all (self);
    for (size_t i = 0; i < 4; i++)
        rig_close (self, i / 2, 1);
    rig_worker_does (self, 0, true);
    rig_worker_does (self, 1, true);
    rig_aggregator_does (self, false);
    assert_int_equal (self->done, 1);
    assert_non_null (strstr (self->why, "too few parts"));
    assert_int_equal (tl_scheduler_place (self->scheduler).step, 0);
    rig_destroy (&self);
}

static void
test_stop_with_several (void **state)
{
    //  They meet at the same round, are merged and saved.
    rig_t *self = s_two (2);
    rig_all (self);
    rig_close (self, 0, 1);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    self->words[0] = 0;
    assert_true (rig_run (self));
    rig_expect (self, "merge trunk: 0 1; plan 1:1/1: 1 3; merge trunk now: 0 1; merged; "
                      "save 2 merged last; common 2; done 0; ");
    rig_destroy (&self);
    //  No time: each from where it stands.
    self = s_two (2);
    rig_all (self);
    rig_close (self, 0, 1);
    self->words[0] = 0;
    tl_scheduler_stop (self->scheduler, true, 0, "stop");
    rig_close (self, 0, 0);
    rig_close (self, 1, 0);
    rig_do_all (self);
    rig_expect (self, "give up 1; give up 0; abandoned 1; merge trunk: 0 1; abandoned 0; "
                      "merge trunk now: 0 1; merged; save 1 merged last; common 1; done 0; ");
    rig_destroy (&self);
    //  A group without its worker can't be merged: what is common stays.
    self = s_two (2);
    rig_all (self);
    rig_lose (self, 1);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    assert_int_equal (self->done, 1);
    rig_destroy (&self);
}

static void
test_clients_that_leave_a_group (void **state)
{
    rig_t *self = s_two (2);
    rig_all (self);
    rig_leave (self, 1);
    rig_leave (self, 3);
    rig_close (self, 1, 0); //  an empty group stands at the line
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_join (self, 3); //  too late for this period
    self->words[0] = 0;
    assert_true (rig_run (self));
    rig_expect (self, "merged; save 2 merged; common 2; equip 0 2; equip 1 2; plan 0:2/2: 0 3; "
                      "plan 1:2/2: 2; merge trunk: 0 1; merge trunk now: 0 1; merged; "
                      "save 3 merged last; common 3; equip 0 3; equip 1 3; finish; done 0; ");
    rig_destroy (&self);
}

//  From one group to two: what the one holds is saved first, for the other worker to begin with.
static void
test_rearranged (void **state)
{
    rig_t *self = rig_new (2, 2, 1, 4, 2, 0);
    self->config.aggregator = true;
    rig_begin (self);
    rig_all (self);
    self->groups = 2;
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    assert_true (rig_run (self));
    rig_expect (
        self,
        "plan 0:0/0: 0 1; plan 0:1/1: 0 1; save 2; common 2; equip 0 2; "
        "equip 1 2; plan 0:2/2: 0; plan 1:2/2: 1; plan 0:3/3: 0; plan 1:3/3: 1; merge trunk: 0 1; "
        "merge trunk now: 0 1; merged; save 4 merged last; common 4; equip 0 4; "
        "equip 1 4; finish; done 0; ");
    rig_destroy (&self);
}

static void
test_average (void **state)
{
    rig_t *self = rig_new (3, 1, 1, 4, 2, 0);
    self->config.aggregator = true;
    self->config.share = TL_SHARE_AVERAGE;
    rig_begin (self);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_leave (self, 2);
    rig_join (self, 2); //  it takes part again when it has the adapter that all have
    rig_close (self, 0, 1);
    rig_do_all (self);
    rig_expect (self, "plan 0/0: 0 1 2; plan 1/1: 0 1 2; leave 2; merge clients now: 0 1; merged; "
                      "save 2; common 2; plan 2/2: 0 1 2; ");
    assert_int_equal (self->clients[2].content, self->clients[0].content);
    assert_true (rig_run (self));
    assert_int_equal (self->clients[1].content, self->clients[0].content);
    rig_destroy (&self);
}

//  It learnt from a merge, and went before that was common: the period is repeated, for its successor knows nothing of it.
static void
test_what_the_aggregator_learnt_is_lost (void **state)
{
    for (int stop = 0; stop < 2; stop++) {
        rig_t *self = rig_new (2, 1, 1, 4, 2, 0);
        self->config.aggregator = self->config.remembers = true;
        self->config.share = TL_SHARE_AVERAGE;
        rig_begin (self);
        rig_all (self);
        rig_close (self, 0, 1);
        rig_close (self, 0, 1);
        rig_client_does (self, 0, true);
        rig_client_does (self, 1, true);
        rig_aggregator_does (self, true); //  merges
        rig_client_does (self, 0, true);
        rig_client_does (self, 1, true); //  both took it
        rig_expect (self, "plan 0/0: 0 1; plan 1/1: 0 1; merge clients now: 0 1; merged; save 2; ");
        if (stop)
            tl_scheduler_stop (self->scheduler, false, 0, "stop");
        rig_lose_aggregator (self);
        if (stop) { //  what is common counts: here, the start
            rig_expect (self, "done 0; ");
            assert_int_equal (tl_scheduler_place (self->scheduler).step, 0);
        } else {
            rig_aggregator (self);
            assert_true (rig_run (self));
            rig_expect (self, "restore 0; equip 0 0; plan 0/0: 0 1; plan 1/1: 0 1; "
                              "merge clients now: 0 1; merged; save 2; common 2; plan 2/2: 0 1; "
                              "plan 3/3: 0 1; merge clients now: 0 1; merged; save 4 last; "
                              "common 4; finish; done 0; ");
        }
        rig_destroy (&self);
    }
}

//  Who comes for the first time in the middle of a run, and who was away at the common save that all go back to, takes part
//  when it has what the others share.
static void
test_who_lacks_the_common_save (void **state)
{
    rig_t *self = rig_new (3, 2, 1, 4, 2, 1);
    self->config.aggregator = true;
    self->config.start = 2;
    self->config.share = TL_SHARE_AVERAGE;
    rig_begin (self);
    rig_worker (self, 0);
    rig_worker (self, 1);
    rig_aggregator (self);
    rig_join (self, 0);
    rig_expect (self, "");
    rig_join (self, 2);
    rig_close (self, 0, 1);
    rig_do_all (self);
    rig_expect (self, "plan 0:0/0: 0 2; save 1; common 1; plan 0:1/1: 0 2; ");
    rig_join (self, 1);
    rig_lose (self, 0); //  before it has been given anything
    rig_do_all (self);
    rig_expect (self, "abandoned 1; restore 1; equip 1 1; plan 1:1/1: 0 2; ");
    rig_close (self, 1, 1);
    rig_do_all (self);
    rig_expect (self, "merge clients now: 0 2; merged; save 2; common 2; plan 1:2/2: 0 1 2; ");
    assert_int_equal (self->clients[1].content, self->clients[0].content);
    assert_true (rig_run (self));
    rig_destroy (&self);
}

static void
test_summed_gradients (void **state)
{
    rig_t *self = rig_new (3, 1, 1, 9, 5, 0);
    self->config.aggregator = true;
    self->config.share = TL_SHARE_GRADIENT;
    rig_begin (self);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_leave (self, 2);
    rig_close (self, 0, 1);
    rig_join (self, 2);
    rig_close (self, 0, 1); //  the period is over early: one of the others gives it theirs
    rig_do_all (self);
    rig_expect (self, "plan 0/0: 0 1 2; plan 1/1: 0 1 2; leave 2; plan 2/2: 0 1; "
                      "merge clients now: 0; merged; save 3; common 3; plan 3/3: 0 1 2; ");
    //  Without the aggregator no step can end
    rig_lose_aggregator (self);
    rig_expect (self, "give up 3; ");
    rig_close (self, 0, 0);
    rig_expect (self, "abandoned 3; ");
    rig_aggregator (self);
    rig_expect (self, "plan 3/3: 0 1 2; ");
    assert_true (rig_run (self));
    rig_destroy (&self);
}

//  Whose adapter is asked for leaves before it has given it: another has the same, and gives it.
static void
test_summed_gradients_and_the_giver_leaves (void **state)
{
    rig_t *self = rig_new (3, 1, 1, 9, 5, 0);
    self->config.aggregator = true;
    self->config.share = TL_SHARE_GRADIENT;
    rig_begin (self);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_leave (self, 2);
    rig_close (self, 0, 1);
    rig_join (self, 2);
    rig_close (self, 0, 1);
    self->words[0] = 0;
    rig_leave (self, 0);
    rig_do_all (self);
    rig_expect (self, "not merged; merge clients now: 1; merged; save 3; common 3; "
                      "plan 3/3: 1 2; ");
    assert_int_equal (self->clients[1].content, self->clients[2].content);
    assert_true (rig_run (self));
    assert_int_equal (self->code, 0);
    rig_destroy (&self);
}

//  All leave before they have given theirs: nothing is averaged, and the run waits for them as it would in a step.
static void
test_average_and_all_leave (void **state)
{
    rig_t *self = rig_new (2, 1, 1, 4, 2, 0);
    self->config.aggregator = true;
    self->config.share = TL_SHARE_AVERAGE;
    rig_begin (self);
    rig_all (self);
    rig_close (self, 0, 1);
    rig_close (self, 0, 1);
    rig_expect (self, "plan 0/0: 0 1; plan 1/1: 0 1; merge clients now: 0 1; ");
    rig_leave (self, 0);
    rig_leave (self, 1);
    rig_do_all (self);
    rig_expect (self, "not merged; ");
    rig_join (self, 1);
    rig_join (self, 0);
    rig_do_all (self);
    assert_int_equal (self->clients[1].content, self->clients[0].content);
    assert_true (rig_run (self));
    assert_int_equal (self->code, 0);
    rig_destroy (&self);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_two_groups),
        cmocka_unit_test (test_a_lost_workers_group_repeats_on_a_spare),
        cmocka_unit_test (test_it_repeats_on_the_worker_that_came_back),
        cmocka_unit_test (test_it_repeats_on_the_worker_that_is_done),
        cmocka_unit_test (test_it_repeats_on_the_spare_rather_than_on_the_one_that_is_done),
        cmocka_unit_test (test_all_workers_lost),
        cmocka_unit_test (test_a_worker_lost_while_its_replica_is_asked_for),
        cmocka_unit_test (test_the_aggregator_lost),
        cmocka_unit_test (test_too_few_parts_end_the_run),
        cmocka_unit_test (test_stop_with_several),
        cmocka_unit_test (test_clients_that_leave_a_group),
        cmocka_unit_test (test_rearranged),
        cmocka_unit_test (test_average),
        cmocka_unit_test (test_what_the_aggregator_learnt_is_lost),
        cmocka_unit_test (test_who_lacks_the_common_save),
        cmocka_unit_test (test_average_and_all_leave),
        cmocka_unit_test (test_summed_gradients),
        cmocka_unit_test (test_summed_gradients_and_the_giver_leaves),
    };
    tl_log_level (TL_LOG_ERROR);
    return cmocka_run_group_tests (tests, NULL, NULL);
}
