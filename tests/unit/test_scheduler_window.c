/*  join: window, by example and by chance: who is in which step, how long a worker stands still for whom, and that nobody
    who is ready is left out.                                                                            */

#include "unit/cmocka_all.h"
#include "unit/scheduler_rig.h"

#include "log.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

//  A step costs 10 ms beside its rows; client 0 is ready 1 ms after its PLAN, client 1 after so many.
static rig_t *
s_rig (uint64_t rounds, uint64_t every, uint64_t save_every, int64_t second_us)
{
    rig_t *self = rig_new (2, 1, 1, rounds, every, save_every);
    rig_window (self, 10000);
    for (int i = 0; i < 20; i++) {
        tl_costs_note (self->costs, TL_COST_FRONT, 0, 64, 1000);
        tl_costs_note (self->costs, TL_COST_FRONT, 1, 64, second_us);
    }
    rig_begin (self);
    rig_all (self);
    return self;
}

static void
s_end (rig_t *self, const char *words)
{
    rig_expect (self, words);
    rig_destroy (&self);
}

//  Half a second away, and 10 ms to save: the step begins without it, and so does the next; then it is ready, and in.
static void
test_who_is_late_is_in_the_next (void **state)
{
    rig_t *self = s_rig (9, 1000, 0, 500000);
    rig_expect (self, "");
    assert_true (self->clients[0].called && self->clients[1].called);
    rig_pass (self, 1000);
    rig_ready (self, 0);
    rig_expect (self, "1 of 2; plan 0/0: 0; ");
    assert_true (tl_scheduler_called (self->scheduler, 1, 0));
    assert_false (tl_scheduler_member (self->scheduler, 1, 0));
    rig_close (self, 0, 5);
    rig_ready (self, 0);
    rig_expect (self, "1 of 2; plan 1/1: 0; ");
    rig_ready (self, 1); //  while that step is open
    rig_close (self, 0, 5);
    rig_ready (self, 0);
    rig_expect (self, "wait 1000; plan 2/2: 0 1; ");
    assert_int_equal (tl_scheduler_named (self->scheduler, 1), 0); //  as its PLAN said
    rig_close (self, 0, 5);
    assert_int_equal (self->clients[1].named, 3);
    rig_destroy (&self);
}

//  4 ms away: what it saves is worth the wait. It comes, or it doesn't.
static void
test_waits_for_who_is_near (void **state)
{
    rig_t *self = s_rig (9, 1000, 0, 5000);
    rig_pass (self, 1000);
    rig_ready (self, 0);
    assert_non_null (strstr (self->words, "wait 4000; ")); //  us
    self->words[0] = 0;
    rig_pass (self, 3000);
    rig_ready (self, 1);
    rig_expect (self, "2 of 2; plan 0/0: 0 1; ");
    rig_close (self, 0, 5);
    rig_pass (self, 1000);
    rig_ready (self, 0);
    self->words[0] = 0;
    rig_pass (self, 3000); //  not yet
    rig_expect (self, "");
    rig_pass (self, 60000); //  far too late
    rig_expect (self, "1 of 2; plan 1/1: 0; ");
    rig_destroy (&self);
}

//  All parts save at a line, and a client's answer comes behind its rows: the step before waits for all who have a PLAN.
static void
test_the_step_before_a_save_waits_for_all (void **state)
{
    rig_t *self = s_rig (4, 1000, 2, 500000);
    rig_ready (self, 0);
    rig_close (self, 0, 5);
    rig_ready (self, 0);
    rig_pass (self, 400000);
    rig_expect (self, "1 of 2; plan 0/0: 0; ");
    rig_ready (self, 1);
    rig_expect (self, "plan 1/1: 0 1; ");
    rig_close (self, 0, 5);
    assert_false (self->clients[0].called || self->clients[1].called);
    rig_do_all (self);
    rig_ready (self, 0);
    rig_expect (self, "save 2; common 2; 1 of 2; plan 2/2: 0; ");
    //  A stop doesn't wait: what it has begun is void.
    tl_scheduler_stop (self->scheduler, false, 0, "enough");
    rig_close (self, 0, 5);
    rig_do_all (self);
    s_end (self, "recall 1; save 3 last; common 3; done 0; ");
}

//  Whoever leaves is waited for no more; whoever comes is called at once.
static void
test_coming_and_going (void **state)
{
    rig_t *self = s_rig (9, 1000, 0, 5000);
    rig_pass (self, 1000);
    rig_ready (self, 0);
    self->words[0] = 0;
    rig_leave (self, 1);
    rig_expect (self, "plan 0/0: 0; ");
    rig_join (self, 1);
    assert_true (self->clients[1].called);
    rig_ready (self, 1);
    rig_ready (self, 1);                       //  twice
    tl_scheduler_time_up (self->scheduler, 0); //  a timer of before
    tl_scheduler_time_up (self->scheduler, 3); //  nobody's
    rig_expect (self, "");
    rig_lose (self, 0);
    rig_worker (self, 0);
    rig_expect (self, "abandoned 0; restore 0; equip 0 0; ");
    rig_do_all (self);
    rig_ready (self, 1);
    rig_ready (self, 0);
    self->words[0] = 0;
    rig_close (self, 0, 5);
    assert_true (rig_run (self));
    assert_int_equal (self->code, 0);
    rig_destroy (&self);
}

//  --- by chance --------------------------------------------------------------------------------

enum { WORLDS = 400, ROUNDS = 40 };

//  A world: one worker, clients whose fronts take times of their own, and what was seen of it.
typedef struct {
    rig_t *rig;
    uint64_t seed, drawn;
    int64_t base_us, step_us, mean_us[RIG_CLIENTS];
    int64_t due[RIG_CLIENTS], called[RIG_CLIENTS], ready[RIG_CLIENTS];
    int64_t close_at;   //  0: no step is open
    int64_t still_from; //  the worker is free and somebody is ready; -1: not so
    size_t still_for;   //  so many were late then
    int64_t longest_us; //  that anybody who was ready was in no step
    size_t without;     //  steps
} world_t;

static double
s_uniform (world_t *self)
{
    tl_stream_t stream = {.seed = self->seed, .purpose = TL_DRAW_SAMPLE};
    return tl_random_uniform (&stream, self->drawn++);
}

static void
s_open_world (world_t *self, uint64_t seed)
{
    *self = (world_t){.seed = seed, .still_from = -1};
    size_t clients = 2 + (size_t)(s_uniform (self) * (RIG_CLIENTS - 1));
    self->rig = rig_new (clients, 1, 1, ROUNDS, 1000, 0);
    self->base_us = 1000 + (int64_t)(s_uniform (self) * 30000);
    self->step_us = 2 * self->base_us + 5000;
    rig_window (self->rig, self->base_us);
    self->rig->config.window_us = 1000 + (int64_t)(s_uniform (self) * 50000);
    for (size_t i = 0; i < clients; i++)
        self->mean_us[i] = 500 + (int64_t)(s_uniform (self) * (i ? 20000 : 300000));
    rig_begin (self->rig);
    rig_all (self->rig);
}

//  Who got a PLAN just now is ready after a while; a step that opened is closed after a while.
static void
s_look (world_t *self)
{
    rig_t *rig = self->rig;
    rig_part_t *worker = &rig->workers[0];
    size_t ready = 0, late = 0;
    for (size_t i = 0; i < rig->config.clients; i++) {
        const rig_part_t *client = &rig->clients[i];
        if (client->called && !client->ready && !self->due[i]) {
            self->called[i] = rig->now;
            self->due[i] =
                rig->now + (int64_t)((double)self->mean_us[i] * (0.7 + 0.6 * s_uniform (self)));
        }
        ready += client->ready && client->called;
        late += client->called && !client->ready;
    }
    if (worker->open && !self->close_at) {
        int64_t stood = self->still_from < 0 ? 0 : rig->now - self->still_from;
        int64_t worth = (int64_t)self->still_for * (self->base_us + self->base_us / 50);
        bool last = worker->step.round + 1 == ROUNDS;
        if (!last && (stood > worth || stood > rig->config.window_us))
            fail_msg (
                "world %d: step %d stood still %d us for %zu that save %d us each; limit %d us",
                (int)self->seed, (int)worker->step.step, (int)stood, self->still_for,
                (int)self->base_us, (int)rig->config.window_us);
        for (size_t i = 0; i < rig->config.clients; i++)
            if (worker->members[i] && !last && rig->now - self->ready[i] > self->longest_us)
                self->longest_us = rig->now - self->ready[i];
        self->without += late > 0;
        self->close_at = rig->now + self->step_us;
        self->still_from = -1;
    } else if (!worker->open && ready && self->still_from < 0) {
        self->still_from = rig->now;
        self->still_for = late;
    }
}

//  The next thing that happens.
static void
s_happen (world_t *self)
{
    rig_t *rig = self->rig;
    int64_t next = INT64_MAX;
    size_t who = RIG_CLIENTS;
    if (self->close_at)
        next = self->close_at;
    if (rig->alarm[0] && rig->alarm[0] < next)
        next = rig->alarm[0];
    for (size_t i = 0; i < rig->config.clients; i++)
        if (self->due[i] && self->due[i] <= next) {
            next = self->due[i];
            who = i;
        }
    assert_true (next < INT64_MAX); //  else it stands still for ever
    bool close = self->close_at == next && who == RIG_CLIENTS;
    rig_pass (rig, next - rig->now);
    if (who < RIG_CLIENTS) {
        tl_costs_note (rig->costs, TL_COST_FRONT, who, 64, rig->now - self->called[who]);
        self->due[who] = 0;
        self->ready[who] = rig->now;
        rig_ready (rig, who);
    } else if (close) {
        self->close_at = 0;
        rig_close (rig, 0, 5);
        rig_do_all (rig);
    }
}

//  Clients' and trunk's content, and the time it took.
static uint64_t
s_live (uint64_t seed, size_t *without)
{
    world_t world;
    s_open_world (&world, seed);
    s_look (&world);
    for (int i = 0; i < 100000 && !world.rig->done; i++) {
        s_happen (&world);
        s_look (&world);
    }
    assert_true (world.rig->done);
    assert_int_equal (world.rig->code, 0);
    //  Nobody starves: whoever is ready is in a step as soon as the open one is closed and a window is over.
    int64_t most = world.step_us + world.rig->config.window_us;
    if (world.longest_us > most)
        fail_msg ("world %d: somebody who was ready was in no step for %d us, at most %d are due",
                  (int)seed, (int)world.longest_us, (int)most);
    for (size_t i = 0; i < world.rig->config.clients; i++)
        assert_true (world.rig->clients[i].taken > 0);
    *without += world.without;
    uint64_t result = rig_result (world.rig) ^ (uint64_t)world.rig->now;
    rig_destroy (&world.rig);
    return result;
}

static void
test_worlds (void **state)
{
    size_t without = 0, again = 0;
    for (uint64_t seed = 0; seed < WORLDS; seed++) {
        uint64_t result = s_live (seed, &without);
        assert_true (result == s_live (seed, &again));
    }
    print_message ("%zu of %d steps began without somebody\n", without, WORLDS * ROUNDS);
    assert_true (without > WORLDS && without < (size_t)WORLDS * ROUNDS);
    assert_int_equal (without, again);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_who_is_late_is_in_the_next),
        cmocka_unit_test (test_waits_for_who_is_near),
        cmocka_unit_test (test_the_step_before_a_save_waits_for_all),
        cmocka_unit_test (test_coming_and_going),
        cmocka_unit_test (test_worlds),
    };
    tl_log_level (TL_LOG_ERROR);
    return cmocka_run_group_tests (tests, NULL, NULL);
}
