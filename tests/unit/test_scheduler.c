/*  The schedule by example, and by 20,000 random runs: parts come, go, answer late, twice or not at all, and
    the run still has one open step at most, goes back to common saves only, and ends exactly once.  */

#include "unit/cmocka_all.h"

#include "scheduler/scheduler.h"
#include "log.h"
#include "random.h"

#include <stdio.h>
#include <string.h>

enum { CLIENTS = 4, RUNS = 20000, EVENTS = 60, WORDS = 4096 };

//  What the schedule asked for, as the parts see it.
typedef struct {
    tl_scheduler_t *scheduler;
    tl_scheduler_config_t config;
    char words[WORDS]; //  every action, in words
    bool open;         //  a step is
    bool member[CLIENTS];
    uint64_t step, round; //  of the open step
    bool live[CLIENTS], worker;
    bool saving, asked[CLIENTS], asked_worker; //  whose SAVED is due
    bool refused;                              //  somebody said no
    tl_place_t pending, common;
    bool restoring, back[CLIENTS], back_worker; //  whose RESTORED is due
    bool finishing[CLIENTS];
    uint64_t newest[CLIENTS]; //  steps of the run that it may have seen
    int done, code;
    char why[512];
    uint64_t last_committed; //  steps committed, as the run stands
} rig_t;

#define SAY(...)                                                                                   \
    snprintf (self->words + strlen (self->words), WORDS - strlen (self->words), __VA_ARGS__)

static void
s_plan (void *arg, uint64_t step, uint64_t round, const size_t *members, size_t count)
{
    rig_t *self = arg;
    SAY ("plan %d/%d:", (int)step, (int)round);
    assert_false (self->open || self->saving || self->restoring);
    assert_int_equal (self->done, 0);
    assert_true (self->worker);
    assert_int_equal (step, self->last_committed);
    assert_true (round < self->config.rounds);
    assert_true (count >= 1);
    if (self->config.serial)
        assert_int_equal (count, 1);
    size_t live = 0;
    for (size_t i = 0; i < self->config.clients; i++)
        live += self->live[i];
    if (!self->config.serial)
        assert_int_equal (count, live);
    for (size_t i = 0; i < count; i++) {
        assert_true (i == 0 || members[i] > members[i - 1]);
        assert_true (self->live[members[i]]);
        //  Whoever was away while the run went back was told before it takes part.
        assert_true (self->newest[members[i]] <= step);
        self->newest[members[i]] = step + 1;
        self->member[members[i]] = true;
        SAY (" %zu", members[i]);
    }
    SAY ("; ");
    self->open = true;
    self->step = step;
    self->round = round;
}

static void
s_leave (void *arg, uint64_t step, size_t client)
{
    rig_t *self = arg;
    assert_true (self->open && step == self->step && self->member[client]);
    self->member[client] = false;
    self->newest[client] = step;
    SAY ("leave %zu; ", client);
}

static void
s_give_up (void *arg, uint64_t step, const char *why)
{
    rig_t *self = arg;
    assert_true (self->open && step == self->step);
    assert_true (strlen (why) > 0);
    SAY ("give up %d; ", (int)step);
}

static void
s_abandoned (void *arg, uint64_t step, const char *why)
{
    rig_t *self = arg;
    assert_true (self->open && step == self->step);
    assert_true (strlen (why) > 0);
    self->open = false;
    for (size_t i = 0; i < CLIENTS; i++) {
        if (self->member[i])
            self->newest[i] = step;
        self->member[i] = false;
    }
    SAY ("abandoned %d; ", (int)step);
}

static void
s_save (void *arg, const tl_place_t *place, bool last)
{
    rig_t *self = arg;
    assert_false (self->open);
    assert_false (self->saving);
    assert_true (self->worker);
    assert_int_equal (place->step, self->last_committed);
    self->saving = self->asked_worker = true;
    self->refused = false;
    memcpy (self->asked, self->live, sizeof self->asked);
    self->pending = *place;
    SAY ("save %d%s; ", (int)place->step, last ? " last" : "");
}

static void
s_common (void *arg, const tl_place_t *place)
{
    rig_t *self = arg;
    assert_true (self->saving && !self->asked_worker && !self->refused);
    for (size_t i = 0; i < CLIENTS; i++)
        assert_false (self->asked[i]);
    assert_memory_equal (place, &self->pending, sizeof *place);
    self->saving = false;
    self->common = *place;
    SAY ("common %d; ", (int)place->step);
}

static void
s_restore (void *arg, const tl_place_t *place, const char *why)
{
    rig_t *self = arg;
    assert_false (self->open);
    assert_true (self->worker && strlen (why) > 0);
    assert_memory_equal (place, &self->common, sizeof *place);
    SAY ("restore %d; ", (int)place->step);
    if (self->done)
        return;
    self->restoring = self->back_worker = true;
    self->saving = false;
    self->last_committed = place->step;
    for (size_t i = 0; i < CLIENTS; i++) {
        self->back[i] = self->live[i];
        if (self->live[i])
            self->newest[i] = place->step;
    }
}

static void
s_back (void *arg, size_t client, uint64_t step)
{
    rig_t *self = arg;
    assert_true (self->live[client] && step <= self->last_committed);
    self->newest[client] = step;
    SAY ("back %zu %d; ", client, (int)step);
}

static void
s_finish (void *arg)
{
    rig_t *self = arg;
    assert_false (self->open);
    assert_int_equal (self->common.step, self->last_committed);
    memcpy (self->finishing, self->live, sizeof self->finishing);
    SAY ("finish; ");
}

static void
s_done (void *arg, int code, const char *text)
{
    rig_t *self = arg;
    assert_int_equal (++self->done, 1);
    assert_false (self->open);
    assert_true (code == 0 || strlen (text) > 0);
    self->code = code;
    snprintf (self->why, sizeof self->why, "%s", text);
    SAY ("done %d; ", code);
}

static void
s_unserved (void *arg, const char *why)
{
    rig_t *self = arg;
    assert_int_equal (self->done, 1);
    assert_true (strlen (why) > 0);
    SAY ("unserved; ");
}

static const tl_scheduler_actions_t s_actions = {.plan = s_plan,
                                                .leave = s_leave,
                                                .give_up = s_give_up,
                                                .abandoned = s_abandoned,
                                                .save = s_save,
                                                .common = s_common,
                                                .restore = s_restore,
                                                .back = s_back,
                                                .finish = s_finish,
                                                .done = s_done,
                                                .unserved = s_unserved};

static rig_t
s_rig (bool serial, size_t clients, uint64_t rounds, uint64_t save_every)
{
    return (rig_t){.config = {serial, clients, rounds, save_every}};
}

//  --- what parts do

static void
s_join (rig_t *self, size_t client)
{
    self->live[client] = true;
    tl_scheduler_join (self->scheduler, client);
}

static void
s_count_back (rig_t *self)
{
    self->restoring = self->back_worker;
    for (size_t i = 0; i < CLIENTS; i++)
        self->restoring |= self->back[i];
}

static void
s_go (rig_t *self, size_t client)
{
    self->live[client] = self->asked[client] = self->back[client] = self->finishing[client] = false;
    s_count_back (self);
    tl_scheduler_left (self->scheduler, client);
}

static void
s_worker (rig_t *self)
{
    self->worker = true;
    tl_scheduler_worker_join (self->scheduler);
}

static void
s_lose_worker (rig_t *self)
{
    self->worker = self->back_worker = self->restoring = false;
    self->saving = self->asked_worker = false;
    memset (self->finishing, 0, sizeof self->finishing);
    tl_scheduler_worker_left (self->scheduler);
}

static void
s_close (rig_t *self, uint64_t labels)
{
    uint64_t step = self->step;
    if (labels) {
        self->open = false;
        memset (self->member, 0, sizeof self->member);
        self->last_committed = step + 1;
    }
    tl_scheduler_closed (self->scheduler, step, labels);
}

static void
s_saved (rig_t *self, size_t part, bool good)
{
    bool *asked = part < CLIENTS ? &self->asked[part] : &self->asked_worker;
    if (*asked && self->saving && !good)
        self->refused = true;
    *asked = false;
    bool over = self->saving && !self->asked_worker;
    for (size_t i = 0; i < CLIENTS; i++)
        over &= !self->asked[i];
    if (over && self->refused)
        self->saving = false;
    if (part < CLIENTS)
        tl_scheduler_client_saved (self->scheduler, part, self->pending.step, good, "disk full");
    else
        tl_scheduler_saved (self->scheduler, self->pending.step, good, "disk full");
}

static void
s_restored (rig_t *self, size_t part)
{
    *(part < CLIENTS ? &self->back[part] : &self->back_worker) = false;
    s_count_back (self);
    if (part < CLIENTS)
        tl_scheduler_client_restored (self->scheduler, part, true, "");
    else
        tl_scheduler_restored (self->scheduler, true, "");
}

static void
s_save_all (rig_t *self)
{
    for (size_t i = 0; i < self->config.clients; i++)
        s_saved (self, i, true);
    s_saved (self, CLIENTS, true);
}

static rig_t *
s_begin (rig_t *self)
{
    self->scheduler = tl_scheduler_new (&self->config, &s_actions, self);
    return self;
}

static void
s_end (rig_t *self, const char *words)
{
    assert_string_equal (self->words, words);
    tl_scheduler_destroy (&self->scheduler);
    assert_null (self->scheduler);
}

//  --- by example

static void
test_batch (void **state)
{
    rig_t rig = s_rig (false, 2, 3, 2), *self = s_begin (&rig);
    s_join (self, 1);
    s_worker (self);
    assert_string_equal (tl_scheduler_state_name (self->scheduler), "waiting");
    s_join (self, 0); //  the first step waits for everybody
    s_close (self, 7);
    s_close (self, 7); //  the next step waits until all have saved
    s_save_all (self);
    s_close (self, 7);
    s_save_all (self);
    tl_scheduler_finished (self->scheduler, 1);
    tl_scheduler_finished (self->scheduler, 0);
    s_end (self, "plan 0/0: 0 1; plan 1/1: 0 1; save 2; common 2; plan 2/2: 0 1; save 3 last; "
                 "common 3; finish; done 0; ");
}

static void
test_serial_takes_turns (void **state)
{
    rig_t rig = s_rig (true, 3, 2, 0), *self = s_begin (&rig);
    s_worker (self);
    for (size_t i = 0; i < 3; i++)
        s_join (self, i);
    for (int i = 0; i < 4; i++)
        s_close (self, 1);
    s_go (self, 1); //  its turn: the step is the worker's to close
    s_close (self, 0);
    s_close (self, 1);
    s_save_all (self);
    s_end (self, "plan 0/0: 0; plan 1/0: 1; plan 2/0: 2; plan 3/1: 0; plan 4/1: 1; leave 1; "
                 "abandoned 4; plan 4/1: 2; save 5 last; common 5; finish; ");
}

static void
test_a_client_that_leaves_comes_back (void **state)
{
    rig_t rig = s_rig (false, 2, 4, 0), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_join (self, 1);
    s_go (self, 0);
    s_close (self, 3); //  without it
    s_join (self, 0);  //  from the next plan on
    s_close (self, 3);
    s_end (self, "plan 0/0: 0 1; leave 0; plan 1/1: 1; plan 2/2: 0 1; ");
}

static void
test_nobody_left_waits (void **state)
{
    rig_t rig = s_rig (false, 2, 4, 0), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_join (self, 1);
    s_go (self, 0);
    s_go (self, 1);
    s_close (self, 0);
    assert_int_equal (tl_scheduler_state (self->scheduler), TL_RUN_WAITING);
    s_join (self, 1);
    s_end (self, "plan 0/0: 0 1; leave 0; leave 1; abandoned 0; plan 0/0: 1; ");
}

static void
test_a_lost_worker_costs_the_way_back (void **state)
{
    rig_t rig = s_rig (false, 1, 9, 2), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_lose_worker (self); //  before any save: back to the start
    s_worker (self);
    s_restored (self, CLIENTS);
    s_restored (self, 0);
    s_close (self, 1);
    s_close (self, 1);
    s_save_all (self);
    s_close (self, 1);
    s_close (self, 1);
    s_saved (self, 0, true); //  of the second save the worker's answer never comes
    s_lose_worker (self);
    s_worker (self);
    s_restored (self, 0);
    s_restored (self, CLIENTS);
    s_end (self, "plan 0/0: 0; abandoned 0; restore 0; plan 0/0: 0; plan 1/1: 0; save 2; "
                 "common 2; plan 2/2: 0; plan 3/3: 0; save 4; restore 2; plan 2/2: 0; ");
}

//  A run whose broker was gone: nothing is served or opened before those are there who are expected, and have gone back.
static void
test_a_run_goes_on (void **state)
{
    rig_t rig = s_rig (true, 3, 9, 0), *self = s_begin (&rig);
    self->common = (tl_place_t){.step = 4, .round = 1, .turn = 1};
    self->last_committed = 4;
    tl_scheduler_resume (self->scheduler, &self->common, (bool[]){false, true, true}, false);
    assert_int_equal (tl_scheduler_place (self->scheduler).step, 4);
    assert_int_equal (tl_scheduler_saved_step (self->scheduler), 4);
    s_worker (self);
    assert_false (tl_scheduler_serves (self->scheduler));
    s_join (self, 2);
    s_lose_worker (self); //  that is nothing new
    s_worker (self);
    s_join (self, 1);
    s_restored (self, 1);
    s_restored (self, CLIENTS);
    s_restored (self, 2);
    assert_true (tl_scheduler_serves (self->scheduler));
    s_join (self, 0); //  has newer things, perhaps
    s_close (self, 1);
    s_end (self, "restore 4; plan 4/1: 1; back 0 4; plan 5/1: 2; ");
    //  It was over: a worker gets its trunk, and that is all
    rig = s_rig (false, 1, 4, 0);
    s_begin (self);
    self->common = (tl_place_t){.step = 4, .round = 4};
    self->done = 1;
    tl_scheduler_resume (self->scheduler, &self->common, NULL, true);
    s_join (self, 0);
    s_worker (self);
    assert_false (tl_scheduler_serves (self->scheduler));
    s_restored (self, CLIENTS);
    assert_true (tl_scheduler_serves (self->scheduler));
    s_end (self, "restore 4; ");
}

static void
test_a_worker_lost_while_scoring_is_waited_for (void **state)
{
    rig_t rig = s_rig (false, 2, 1, 0), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_join (self, 1);
    s_close (self, 1);
    s_save_all (self);
    tl_scheduler_finished (self->scheduler, 0);
    s_lose_worker (self);
    tl_scheduler_finished (self->scheduler, 1); //  said of the first time: too late
    assert_int_equal (tl_scheduler_state (self->scheduler), TL_RUN_WAITING);
    s_worker (self);
    s_restored (self, CLIENTS);
    s_restored (self, 0);
    s_restored (self, 1);
    tl_scheduler_finished (self->scheduler, 1);
    assert_int_equal (self->done, 0); //  everybody scores again
    tl_scheduler_finished (self->scheduler, 0);
    s_end (self, "plan 0/0: 0 1; save 1 last; common 1; finish; restore 1; finish; done 0; ");
    //  A stop meanwhile has nothing to wait for
    rig = s_rig (false, 1, 1, 0);
    s_begin (self);
    s_worker (self);
    s_join (self, 0);
    s_close (self, 1);
    s_save_all (self);
    s_lose_worker (self);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    s_end (self, "plan 0/0: 0; save 1 last; common 1; finish; done 0; ");
}

static void
test_a_finished_run_whose_trunk_is_gone_says_so (void **state)
{
    rig_t rig = s_rig (false, 1, 1, 0), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_close (self, 1);
    s_save_all (self);
    tl_scheduler_finished (self->scheduler, 0);
    assert_true (tl_scheduler_serves (self->scheduler));
    s_lose_worker (self);
    assert_false (tl_scheduler_serves (self->scheduler));
    s_worker (self);
    tl_scheduler_restored (self->scheduler, false, "no such file");
    s_end (self, "plan 0/0: 0; save 1 last; common 1; finish; done 0; restore 1; unserved; ");
}

static void
test_away_while_the_run_went_back (void **state)
{
    rig_t rig = s_rig (false, 2, 9, 2), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_join (self, 1);
    s_close (self, 1); //  both hold the state of one step, which never becomes common
    s_go (self, 1);
    s_lose_worker (self);
    s_worker (self);
    s_restored (self, 0);
    s_restored (self, CLIENTS);
    s_join (self, 1);
    s_close (self, 1);
    s_end (self, "plan 0/0: 0 1; plan 1/1: 0 1; leave 1; abandoned 1; restore 0; plan 0/0: 0; "
                 "back 1 0; plan 1/1: 0 1; ");
}

static void
test_a_stop_while_saving (void **state)
{
    rig_t rig = s_rig (false, 1, 9, 1), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_close (self, 1);
    s_saved (self, 0, true);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    assert_int_equal (self->done, 0); //  that save comes first
    s_saved (self, CLIENTS, true);
    s_end (self, "plan 0/0: 0; save 1; common 1; done 0; ");

    rig = s_rig (false, 1, 9, 1);
    s_begin (self);
    s_worker (self);
    s_join (self, 0);
    s_close (self, 1);
    tl_scheduler_stop (self->scheduler, true, 0, "stop"); //  no time
    assert_non_null (strstr (self->why, "could not be saved in time"));
    s_end (self, "plan 0/0: 0; save 1; done 1; ");
}

static void
test_a_save_that_fails_ends_the_run (void **state)
{
    rig_t rig = s_rig (false, 2, 9, 1), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_join (self, 1);
    s_close (self, 1);
    s_saved (self, 0, true);
    s_saved (self, 1, false);
    s_saved (self, CLIENTS, true);
    assert_non_null (strstr (self->why, "disk full"));
    s_end (self, "plan 0/0: 0 1; save 1; done 1; ");
}

static void
test_stop (void **state)
{
    //  In a step: it commits first. Hurried: it is given up. Nothing trained: nothing to save.
    rig_t rig = s_rig (false, 1, 9, 0), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    s_close (self, 1);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    tl_scheduler_stop (self->scheduler, true, 0, "stop");
    s_close (self, 0);
    s_save_all (self);
    s_end (self,
           "plan 0/0: 0; plan 1/1: 0; give up 1; abandoned 1; save 1 last; common 1; done 0; ");

    rig = s_rig (false, 1, 9, 0);
    s_begin (self);
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    tl_scheduler_stop (self->scheduler, false, 0, "stop");
    s_join (self, 0);
    s_worker (self);
    s_end (self, "done 0; ");
}

static void
test_a_step_of_nothing_is_not_repeated_for_ever (void **state)
{
    rig_t rig = s_rig (false, 1, 9, 0), *self = s_begin (&rig);
    s_worker (self);
    s_join (self, 0);
    for (int i = 0; i < 3; i++)
        s_close (self, 0);
    assert_non_null (strstr (self->why, "came to nothing"));
    s_end (self, "plan 0/0: 0; abandoned 0; plan 0/0: 0; abandoned 0; plan 0/0: 0; abandoned 0; "
                 "done 1; ");
}

//  --- by chance

//  64 bits that are a function of run and number.
static uint64_t
s_draw (uint64_t run, uint64_t number)
{
    tl_stream_t stream = {.seed = run, .purpose = TL_DRAW_SAMPLE};
    return (uint64_t)tl_random_u32 (&stream, 2 * number) << 32 |
           tl_random_u32 (&stream, 2 * number + 1);
}

static bool
s_somebody_left (const rig_t *self)
{
    for (size_t i = 0; i < self->config.clients; i++)
        if (self->member[i])
            return false;
    return true;
}

static void
s_answer (rig_t *self, size_t part)
{
    bool worker = part >= self->config.clients;
    size_t who = worker ? CLIENTS : part;
    if (worker ? self->back_worker : self->back[part])
        s_restored (self, who);
    else if (self->saving && (worker ? self->asked_worker : self->asked[part]))
        s_saved (self, who, true);
    else if (!worker && self->finishing[part]) {
        self->finishing[part] = false;
        tl_scheduler_finished (self->scheduler, part);
    } else if (worker && self->open)
        s_close (self, s_somebody_left (self) ? 0 : 5);
}

static void
s_something (rig_t *self, uint64_t draw)
{
    size_t part = (draw >> 8) % (self->config.clients + 1);
    bool worker = part == self->config.clients;
    switch (draw % 16) {
    case 0: //  somebody comes or goes
        if (worker)
            (self->worker ? s_lose_worker : s_worker) (self);
        else
            (self->live[part] ? s_go : s_join) (self, part);
        break;
    case 1: //  words of another time
        tl_scheduler_closed (self->scheduler, self->step + 1 + draw % 3, 5);
        tl_scheduler_finished (self->scheduler, part % self->config.clients);
        tl_scheduler_saved (self->scheduler, self->last_committed + 7, true, "");
        break;
    case 2:
        if ((draw >> 16) % 40 == 0)
            tl_scheduler_stop (self->scheduler, (draw >> 30) & 1, 0, "chance");
        break;
    default:
        s_answer (self, part);
    }
}

static void
test_by_chance (void **state)
{
    for (uint64_t run = 0; run < RUNS; run++) {
        uint64_t draw = s_draw (run, 0);
        rig_t rig = s_rig (draw & 1, 1 + (draw >> 1) % CLIENTS, (draw >> 8) % 6, (draw >> 16) % 4);
        rig_t *self = s_begin (&rig);
        for (uint64_t event = 0; event < EVENTS; event++) {
            self->words[0] = 0;
            s_something (self, s_draw (run, 1 + event));
        }
        //  Then everybody is there and answers, and it must end: a stop if the run is endless
        for (int event = 0; event < 400 && !self->done; event++) {
            self->words[0] = 0;
            if (!self->worker)
                s_worker (self);
            for (size_t i = 0; i < self->config.clients; i++)
                if (!self->live[i])
                    s_join (self, i);
            s_answer (self, (size_t)event % (self->config.clients + 1));
        }
        if (!self->done)
            fail_msg ("run %d does not end: it is %s", (int)run,
                      tl_scheduler_state_name (self->scheduler));
        tl_scheduler_destroy (&self->scheduler);
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_batch),
        cmocka_unit_test (test_serial_takes_turns),
        cmocka_unit_test (test_a_client_that_leaves_comes_back),
        cmocka_unit_test (test_nobody_left_waits),
        cmocka_unit_test (test_a_lost_worker_costs_the_way_back),
        cmocka_unit_test (test_a_run_goes_on),
        cmocka_unit_test (test_a_worker_lost_while_scoring_is_waited_for),
        cmocka_unit_test (test_a_finished_run_whose_trunk_is_gone_says_so),
        cmocka_unit_test (test_away_while_the_run_went_back),
        cmocka_unit_test (test_a_stop_while_saving),
        cmocka_unit_test (test_a_save_that_fails_ends_the_run),
        cmocka_unit_test (test_stop),
        cmocka_unit_test (test_a_step_of_nothing_is_not_repeated_for_ever),
        cmocka_unit_test (test_by_chance),
    };
    tl_log_level (TL_LOG_ERROR); //  20,000 runs have a lot to warn of
    return cmocka_run_group_tests (tests, NULL, NULL);
}
