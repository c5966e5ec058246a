/*  The scheduler by chance: thousands of runs of every kind in which parts come, go, answer late, twice or not at
    all. Each ends exactly once when everybody is there again; and if only workers and the aggregator went, every
    part ends with what it has in the run in which nobody did.                                             */

#include "unit/cmocka_all.h"
#include "unit/scheduler_rig.h"

#include "log.h"
#include "random.h"

#include <string.h>

enum { RUNS = 6000, EVENTS = 150 };

//  Behind the first RUNS those of 700,000 that found something: clients that were given the shared adapter and in no group; a
//  merge at a step that was saved already; a client that left as its group came to the line for its sake.
static const uint64_t s_found[] = {34968, 16483, 107212};
enum { FOUND = sizeof s_found / sizeof *s_found };

static uint64_t
s_run (uint64_t number)
{
    return number < RUNS ? number : s_found[number - RUNS];
}

//  64 bits that are a function of run and number.
static uint64_t
s_draw (uint64_t run, uint64_t number)
{
    tl_stream_t stream = {.seed = run, .purpose = TL_DRAW_SAMPLE};
    return (uint64_t)tl_random_u32 (&stream, 2 * number) << 32 |
           tl_random_u32 (&stream, 2 * number + 1);
}

static rig_t *
s_rig (uint64_t run, bool fixed, bool window)
{
    uint64_t draw = s_draw (run, 0);
    size_t clients = 1 + draw % RIG_CLIENTS, workers = 1 + (draw >> 4) % RIG_WORKERS;
    size_t groups = 1 + (draw >> 8) % workers;
    rig_t *self = rig_new (clients, workers, groups, (draw >> 12) % 8, 1 + (draw >> 16) % 4,
                           (draw >> 20) % 4);
    self->inside = (tl_inside_t)((draw >> 24) % 3);
    self->fixed = fixed;
    self->quiet = true;
    self->config.share = (tl_share_mode_t)((draw >> 28) % 3);
    if (self->config.share == TL_SHARE_GRADIENT) {
        self->groups = 1;
        self->inside = TL_INSIDE_BATCHED;
    }
    self->config.aggregator = self->groups > 1 || self->config.share != TL_SHARE_NOTHING;
    self->config.all_workers = self->groups > 1;
    self->config.remembers = (draw >> 60) & 1;
    self->config.start = fixed ? 0 : (draw >> 56) % (clients + 1);
    if ((draw >> 32) % 4 == 0) {
        for (size_t i = 0; i < clients; i++)
            self->limits[i] = (draw >> (34 + 3 * i)) % 8;
        self->config.limits = self->limits;
    }
    if (window && self->config.share != TL_SHARE_GRADIENT)
        rig_window (self, 1000 + (int64_t)(s_draw (run, 1) >> 40) % 20000);
    rig_begin (self);
    return self;
}

static bool
s_members (const rig_part_t *worker)
{
    for (size_t i = 0; i < RIG_CLIENTS; i++)
        if (worker->members[i])
            return true;
    return false;
}

//  One part does one thing, if it has one to do.
static void
s_act (rig_t *self, uint64_t draw)
{
    size_t part = draw % (self->config.clients + self->config.workers + 2);
    size_t worker = part - self->config.clients;
    if (self->config.costs)
        rig_pass (self, (int64_t)(draw >> 8) % 8000);
    if (part < self->config.clients) {
        if (!rig_client_does (self, part, true))
            rig_ready (self, part);
    } else if (worker < self->config.workers) {
        if (!rig_worker_does (self, worker, true) && self->workers[worker].open)
            rig_close (self, worker, s_members (&self->workers[worker]) ? 5 : 0);
    } else if (worker == self->config.workers)
        rig_aggregator_does (self, true);
    else
        rig_disk_does (self, true);
}

static void
s_worker_event (rig_t *self, uint64_t draw)
{
    size_t worker = draw % (self->config.workers + 1);
    if (worker < self->config.workers)
        (self->workers[worker].live ? rig_lose : rig_worker) (self, worker);
    else
        (self->aggregator.live ? rig_lose_aggregator : rig_aggregator) (self);
}

static void
s_something (rig_t *self, uint64_t draw)
{
    size_t client = (draw >> 8) % self->config.clients,
           worker = (draw >> 16) % self->config.workers;
    switch (draw % 24) {
    case 0:
        (self->clients[client].live ? rig_leave : rig_join) (self, client);
        break;
    case 1:
        s_worker_event (self, draw >> 24);
        break;
    case 2: //  words of another time
        tl_scheduler_closed (self->scheduler, worker, 900 + (draw >> 24) % 3, 5);
        tl_scheduler_finished (self->scheduler, client);
        tl_scheduler_saved (self->scheduler, 900, true, "");
        tl_scheduler_merged (self->scheduler, TL_MERGE_TRUNK, 900, true, "");
        tl_scheduler_gathered (self->scheduler, TL_MERGE_TRUNK, worker, 900);
        break;
    case 3:
        if ((draw >> 24) % 40 == 0)
            tl_scheduler_stop (self->scheduler, (draw >> 40) & 1, 0, "chance");
        else if ((draw >> 24) % 40 < 5 && !self->done)
            rig_crash (self, (draw >> 40) & 1);
        break;
    default:
        s_act (self, draw >> 8);
    }
}

static void
s_every_run_ends (bool window)
{
    size_t merged = 0, stopped = 0;
    uint64_t runs = window ? RUNS / 3 : RUNS + FOUND;
    for (uint64_t number = 0; number < runs; number++) {
        uint64_t run = s_run (number);
        rig_t *self = s_rig (run, false, window);
        if ((s_draw (run, 1) & 1) == 0)
            rig_all (self);
        for (uint64_t event = 0; event < EVENTS; event++)
            s_something (self, s_draw (run, 2 + event));
        for (uint64_t event = 0; event < 8 && !self->done; event++) {
            rig_all (self);
            rig_run (self);
        }
        if (!self->done)
            fail_msg ("run %d does not end: it is %s", (int)run,
                      tl_scheduler_state_name (self->scheduler));
        merged += self->merged != 0;
        stopped += strcmp (self->why, "chance") == 0;
        rig_destroy (&self);
    }
    print_message ("%zu of %d runs merged replicas, %zu were stopped\n", merged, (int)runs,
                   stopped);
    assert_true (merged > 100 && stopped > 100);
}

static void
test_every_run_ends (void **state)
{
    s_every_run_ends (false);
}

//  Whoever is ready is in the next step of its group: the rig sees to that in every one.
static void
test_every_run_with_windows_ends (void **state)
{
    s_every_run_ends (true);
}

//  Workers and the aggregator go and come; with crashes now and then the broker too, or everything, and of what it goes on from
//  somebody may have lost its save: earlier counts that.
static size_t
s_disturb (rig_t *self, uint64_t run, bool crashes, size_t *earlier)
{
    size_t losses = 0;
    for (uint64_t event = 0; event < EVENTS && !self->done; event++) {
        uint64_t draw = s_draw (run, 2 + event);
        if (crashes && draw % 60 == 1) {
            rig_crash (self, (draw >> 8) & 1);
            for (size_t i = 0; i < self->config.clients; i++)
                rig_join (self, (i + draw) % self->config.clients);
            losses++;
        } else if (crashes && draw % 6 == 2 && rig_earlier (self))
            (*earlier)++;
        else if (draw % 12 == 0) {
            s_worker_event (self, draw >> 8);
            losses++;
        } else
            s_act (self, draw >> 8);
    }
    for (uint64_t event = 0; event < 8 && !self->done; event++) {
        rig_all (self);
        rig_run (self);
    }
    return losses;
}

//  Whom the run waits for is back sooner or later.
static void
s_losses_change_nothing (bool crashes)
{
    size_t losses = 0, earlier = 0;
    for (uint64_t number = 0; number < RUNS + FOUND; number++) {
        uint64_t run = s_run (number);
        rig_t *self = s_rig (run, true, false);
        rig_all (self);
        assert_true (rig_run (self));
        uint64_t undisturbed = rig_result (self);
        rig_destroy (&self);

        self = s_rig (run, true, false);
        rig_all (self);
        losses += s_disturb (self, run, crashes, &earlier);
        if (!self->done || self->code)
            fail_msg ("run %d: code %d, %s", (int)run, self->code,
                      tl_scheduler_state_name (self->scheduler));
        if (rig_result (self) != undisturbed)
            fail_msg ("run %d ends with other parts than without losses", (int)run);
        rig_destroy (&self);
    }
    print_message ("%zu times somebody went or came, %zu lost a save\n", losses, earlier);
    assert_true (losses > RUNS && (!crashes || earlier > 100));
}

static void
test_lost_workers_change_nothing (void **state)
{
    s_losses_change_nothing (false);
}

static void
test_a_resumed_run_ends_as_the_undisturbed_one (void **state)
{
    s_losses_change_nothing (true);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_every_run_ends),
        cmocka_unit_test (test_every_run_with_windows_ends),
        cmocka_unit_test (test_lost_workers_change_nothing),
        cmocka_unit_test (test_a_resumed_run_ends_as_the_undisturbed_one),
    };
    tl_log_level (TL_LOG_ERROR);
    return cmocka_run_group_tests (tests, NULL, NULL);
}
