//  sim: the parts, their coming and going, the scheduler's actions, and what is told of it.

#include "sim_internal.h"

#include "assert.h"
#include "memory.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STUCK = 1000000,
    STUCK_A_MICRO = 1000
};                   //  events without any progress: in all, and for each client's micro
#define LONGEST 1e18 //  ns, 30 years: what a simulated run may take, and any single time in it

const char *const tl_sim_state_names[TL_SIM_STATES] = {"busy", "input", "credit", "commit",
                                                       "line", "spare", "away"};

//  --- time -------------------------------------------------------------------------------------

void
tl_sim_put (tl_sim_t *self, int64_t at, tl_sim_kind_t kind, size_t who, int stage, size_t micro,
            uint32_t epoch)
{
    tl_sim_queue_put (&self->queue, (tl_sim_event_t){.at = at,
                                                     .kind = (uint8_t)kind,
                                                     .who = (uint32_t)who,
                                                     .stage = (uint8_t)stage,
                                                     .micro = (uint32_t)micro,
                                                     .epoch = epoch});
}

int64_t
tl_sim_ms (double ms)
{
    return (int64_t)llround (fmin (ms * 1e6, LONGEST));
}

int64_t
tl_sim_wire (double bytes, double mbit_s)
{
    return mbit_s > 0 ? (int64_t)llround (fmin (bytes * 8e3 / mbit_s, LONGEST)) : 0;
}

int64_t
tl_sim_take (int64_t *free_at, int64_t at, int64_t time)
{
    int64_t from = *free_at > at ? *free_at : at, most = (int64_t)(4 * LONGEST);
    return *free_at = from < most - time ? from + time : most;
}

int64_t
tl_sim_broker (tl_sim_t *self, double bytes)
{
    const tl_sim_spec_t *spec = self->spec;
    int64_t time = (int64_t)llround (spec->broker_us * 1e3);
    if (spec->broker_mb_s > 0)
        time += (int64_t)llround (fmin (bytes / spec->broker_mb_s * 1e3, LONGEST));
    self->result->broker_busy += (double)time * 1e-9;
    self->result->bytes += bytes;
    return tl_sim_take (&self->broker_at, self->now, time);
}

static tl_stream_t
s_stream (const tl_sim_t *self, uint64_t who, uint64_t purpose)
{
    return (tl_stream_t){
        .seed = self->spec->seed, .purpose = TL_DRAW_SAMPLE, .sequence = who, .name = purpose};
}

int64_t
tl_sim_job_time (tl_sim_t *self, const tl_sim_population_t *kind, double times, double rows,
                 uint64_t round, uint64_t who, uint64_t *drawn)
{
    double ns = (kind->compute.base_ms * 1e6 + kind->compute.us_per_row * 1e3 * rows) * times;
    if (kind->compute.changes_at && round >= kind->compute.changes_at)
        ns *= kind->compute.changes_by;
    if (kind->compute.jitter > 0) {
        const tl_stream_t stream = s_stream (self, who, 1);
        //  Log-normal with mean 1.
        double s2 = log (1 + kind->compute.jitter * kind->compute.jitter);
        ns *= exp (sqrt (s2) * tl_random_normal (&stream, (*drawn)++) - s2 / 2);
    }
    if (kind->compute.straggle > 0) {
        const tl_stream_t stream = s_stream (self, who, 2);
        if (tl_random_uniform (&stream, (*drawn)++) < kind->compute.straggle)
            ns *= kind->compute.slower;
    }
    return (int64_t)llround (fmin (ns, LONGEST));
}

int64_t
tl_sim_update_time (const tl_sim_population_t *kind, uint64_t round)
{
    bool changed = kind->compute.changes_at && round >= kind->compute.changes_at;
    return tl_sim_ms (kind->compute.update_ms * (changed ? kind->compute.changes_by : 1));
}

//  --- states -----------------------------------------------------------------------------------

//  A timeline that has become too long for its slices gets slices of twice the width.
static void
s_widen (tl_sim_t *self)
{
    for (size_t w = 0; w < self->spec->worker_count; w++) {
        float (*bins)[TL_SIM_STATES] = self->result->workers[w].bins;
        for (size_t i = 0; i < TL_SIM_BINS; i++)
            for (size_t s = 0; s < TL_SIM_STATES; s++)
                bins[i][s] = i < TL_SIM_BINS / 2 ? bins[2 * i][s] + bins[2 * i + 1][s] : 0;
    }
    self->bin *= 2;
}

static void
s_spent (tl_sim_t *self, size_t worker, tl_sim_state_t state, int64_t from, int64_t to)
{
    tl_sim_worker_result_t *result = &self->result->workers[worker];
    result->seconds[state] += (double)(to - from) * 1e-9;
    while (to > from) {
        int64_t at = from / self->bin, end = (at + 1) * self->bin;
        end = end < to ? end : to;
        result->bins[at][state] += (float)((double)(end - from) * 1e-9);
        from = end;
    }
}

void
tl_sim_worker_state (tl_sim_t *self, size_t worker)
{
    tl_sim_worker_t *w = &self->workers[worker];
    tl_sim_state_t state = w->grouped ? TL_SIM_LINE : TL_SIM_SPARE;
    if (!w->alive)
        state = TL_SIM_AWAY;
    else if (w->queued > 0)
        state = TL_SIM_BUSY;
    else if (w->open)
        state = w->jobs_done == self->spec->micros ? TL_SIM_COMMIT
                : w->blocked > 0                   ? TL_SIM_CREDIT
                                                   : TL_SIM_INPUT;
    if (state == w->state)
        return;
    while (self->now >= self->bin * TL_SIM_BINS)
        s_widen (self);
    s_spent (self, worker, w->state, w->since, self->now);
    w->state = state;
    w->since = self->now;
}

//  --- the scheduler's actions ------------------------------------------------------------------

static double
s_seconds (int64_t ns)
{
    return (double)ns * 1e-9;
}

static void
s_plan (void *arg, const tl_step_t *step, const size_t *members, size_t count)
{
    tl_sim_t *self = arg;
    if (self->period_at < 0) {
        self->period_at = self->now;
        if (self->merged_parts)
            tl_costs_note (self->costs, TL_COST_MERGE, self->merged_parts, 0,
                           (self->now - self->line_at) / 1000);
        self->merged_parts = 0;
        tl_sim_result_t *result = self->result;
        if (result->period_count > 1)
            result->periods[result->period_count - 2].end = s_seconds (self->now);
        if (result->period_count > 0)
            result->periods[result->period_count - 1].at = s_seconds (self->now);
    }
    tl_sim_step_plan (self, step, members, count);
}

static void
s_leave (void *arg, const tl_step_t *step, size_t client)
{
    tl_sim_step_leave (arg, step->worker, client);
}

static void
s_give_up (void *arg, const tl_step_t *step, const char *why)
{
    tl_sim_t *self = arg;
    self->workers[step->worker].rows = 0;
    tl_sim_put (self, self->now, EV_CLOSED, step->worker, 0, 0, self->workers[step->worker].epoch);
}

static void
s_abandoned (void *arg, const tl_step_t *step, const size_t *members, size_t count, const char *why)
{
    tl_sim_step_drop (arg, step->worker);
}

static void
s_line (void *arg, bool undisturbed)
{
    tl_sim_t *self = arg;
    self->line_at = self->now;
    if (undisturbed && self->period_at >= 0 && !self->spec->whole)
        tl_choose_measured (self->choose, self->period_rows, (self->now - self->period_at) / 1000);
    if (self->result->period_count) {
        tl_sim_period_t *period = &self->result->periods[self->result->period_count - 1];
        period->line = period->end = s_seconds (self->now);
        period->rows = self->period_rows;
    }
}

static const tl_decision_t *
s_arrange (void *arg, const tl_present_t *present)
{
    tl_sim_t *self = arg;
    tl_sim_result_t *result = self->result;
    const tl_decision_t *d = tl_choose_next (self->choose, present);
    if (result->period_count == self->period_room) {
        self->period_room = 2 * self->period_room + 64;
        tl_sim_period_t *grown = tl_alloc (self->period_room * sizeof *grown);
        if (result->period_count)
            memcpy (grown, result->periods, result->period_count * sizeof *grown);
        free (result->periods);
        result->periods = grown;
    }
    tl_place_t place = tl_scheduler_place (self->scheduler);
    result->periods[result->period_count++] = (tl_sim_period_t){.round = place.round,
                                                                .at = s_seconds (self->now),
                                                                .line = s_seconds (self->now),
                                                                .end = s_seconds (self->now),
                                                                .groups = d->groups,
                                                                .inside = d->inside,
                                                                .changed = d->changed,
                                                                .probing = d->probing,
                                                                .predicted = d->rows_s,
                                                                .text = tl_strdup (d->text)};
    self->period_at = -1;
    self->period_rows = 0;
    for (size_t w = 0; w < self->spec->worker_count; w++)
        self->workers[w].grouped = false;
    for (size_t g = 0; g < d->groups; g++)
        self->workers[d->worker[g]].grouped = true;
    for (size_t w = 0; w < self->spec->worker_count; w++)
        tl_sim_worker_state (self, w);
    return d;
}

static void
s_done (void *arg, int code, const char *text)
{
    tl_sim_t *self = arg;
    self->done = true;
    if (self->result->period_count)
        self->result->periods[self->result->period_count - 1].end = s_seconds (self->now);
    self->result->code = code;
    snprintf (self->result->text, sizeof self->result->text, "%s", text);
}

static void
s_unserved (void *arg, const char *why)
{
}

//  --- coming and going -------------------------------------------------------------------------

static double
s_mean_time (tl_sim_t *self, uint64_t who, uint64_t *fates, double mean)
{
    const tl_stream_t stream = s_stream (self, who, 3);
    return -mean * log (1 - tl_random_uniform (&stream, (*fates)++));
}

static void
s_joins (tl_sim_t *self, bool worker, size_t index)
{
    const tl_sim_population_t *kind =
        worker ? self->workers[index].kind : self->clients[index].kind;
    uint64_t who = worker ? index : self->spec->worker_count + index;
    uint64_t *fates = worker ? &self->workers[index].fates : &self->clients[index].fates;
    uint32_t epoch;
    if (worker) {
        tl_sim_worker_t *w = &self->workers[index];
        w->alive = true;
        w->asked.step = 0;
        w->free_at = w->up_at = w->down_at = self->now;
        epoch = ++w->epoch; //  also what was for it while it was away is void
        tl_sim_worker_state (self, index);
    } else {
        tl_sim_client_t *c = &self->clients[index];
        c->alive = true;
        c->called = false;
        c->asked.step = 0;
        c->free_at = c->up_at = c->down_at = self->now;
        epoch = ++c->epoch;
    }
    if (kind->fails.every_s > 0)
        tl_sim_put (
            self, self->now + tl_sim_ms (1e3 * s_mean_time (self, who, fates, kind->fails.every_s)),
            worker ? EV_WORKER_FAILS : EV_CLIENT_FAILS, index, 0, 0, epoch);
    if (worker)
        tl_scheduler_worker_join (self->scheduler, index);
    else
        tl_scheduler_join (self->scheduler, index);
}

static void
s_fails (tl_sim_t *self, bool worker, size_t index)
{
    const tl_sim_population_t *kind =
        worker ? self->workers[index].kind : self->clients[index].kind;
    uint64_t who = worker ? index : self->spec->worker_count + index;
    uint64_t *fates = worker ? &self->workers[index].fates : &self->clients[index].fates;
    int64_t noticed = self->now + tl_sim_ms (self->spec->notice_ms), back = noticed + 1;
    if (worker) {
        self->workers[index].alive = false;
        self->workers[index].epoch++;
        self->result->lost_workers++;
        tl_sim_worker_state (self, index);
    } else {
        self->clients[index].alive = false;
        self->clients[index].epoch++;
        self->result->lost_clients++;
    }
    tl_sim_put (self, noticed, worker ? EV_WORKER_GONE : EV_CLIENT_GONE, index, 0, 0, 0);
    if (kind->fails.back_s <= 0)
        return;
    int64_t again =
        self->now + tl_sim_ms (1e3 * s_mean_time (self, who, fates, kind->fails.back_s));
    tl_sim_put (self, again > back ? again : back, worker ? EV_WORKER_JOINS : EV_CLIENT_JOINS,
                index, 0, 0, 0);
}

static void
s_event (tl_sim_t *self, const tl_sim_event_t *event)
{
    switch ((tl_sim_kind_t)event->kind) {
    case EV_WORKER_JOINS:
    case EV_CLIENT_JOINS:
        s_joins (self, event->kind == EV_WORKER_JOINS, event->who);
        break;
    case EV_WORKER_FAILS:
    case EV_CLIENT_FAILS:
        s_fails (self, event->kind == EV_WORKER_FAILS, event->who);
        break;
    case EV_WORKER_GONE:
        tl_scheduler_worker_left (self->scheduler, event->who);
        break;
    case EV_TIME_UP:
        tl_scheduler_time_up (self->scheduler, event->who);
        break;
    case EV_CLIENT_GONE:
        self->clients[event->who].called = false;
        tl_sim_merge_left (self, event->who);
        tl_scheduler_left (self->scheduler, event->who);
        break;
    default:
        if (event->kind >= EV_STORE_SAVED)
            tl_sim_line_event (self, event);
        else if (event->kind >= EV_GATHERED)
            tl_sim_merge_event (self, event);
        else
            tl_sim_step_event (self, event);
    }
}

//  What an event is about has died, or was dropped, since the event was put in.
static bool
s_stale (const tl_sim_t *self, const tl_sim_event_t *event)
{
    switch ((tl_sim_kind_t)event->kind) {
    case EV_WORKER_JOINS:
    case EV_CLIENT_JOINS:
    case EV_WORKER_GONE:
    case EV_CLIENT_GONE:
    case EV_TRUNK_MERGED:
    case EV_STORE_SAVED:
    case EV_AGGREGATOR_SAVED:
    case EV_AGGREGATOR_RESTORED:
        return false;
    case EV_WORKER_FAILS:
        return !self->workers[event->who].alive;
    case EV_CLIENT_FAILS:
        return !self->clients[event->who].alive;
    case EV_WORKER_READY:
    case EV_WORKER_DONE:
    case EV_CLOSED:
    case EV_WORKER_SAVED:
    case EV_WORKER_RESTORED:
        return event->epoch != self->workers[event->who].epoch;
    case EV_LATE:
    case EV_MERGED:
        return event->epoch != self->gatherings[event->stage].epoch;
    case EV_GATHERED:
    case EV_PART:
        return event->epoch != (event->stage == TL_MERGE_TRUNK ? self->workers[event->who].epoch
                                                               : self->clients[event->who].epoch);
    case EV_TIME_UP:
        return event->epoch != self->timers[event->who];
    default:
        return event->epoch != self->clients[event->who].epoch;
    }
}

//  --- the whole --------------------------------------------------------------------------------

//  Members of these populations, in order; they join when they are to.
static void
s_people (tl_sim_t *self, bool workers)
{
    const tl_sim_spec_t *spec = self->spec;
    size_t kinds = workers ? spec->worker_kinds : spec->client_kinds, at = 0;
    for (size_t k = 0; k < kinds; k++) {
        const tl_sim_population_t *kind = workers ? &spec->workers[k] : &spec->clients[k];
        for (size_t i = 0; i < kind->count; i++, at++) {
            double share = kind->count > 1 ? (double)i / (double)(kind->count - 1) : 0;
            int64_t when = tl_sim_ms (1e3 * (kind->arrives.at_s + share * kind->arrives.over_s));
            tl_sim_put (self, when, workers ? EV_WORKER_JOINS : EV_CLIENT_JOINS, at, 0, 0, 0);
            if (workers) {
                self->workers[at].kind = kind;
                self->workers[at].state = TL_SIM_AWAY;
                tl_sim_worker_result_t *result = &self->result->workers[at];
                result->name = kind->count > 1 ? tl_format ("%s-%zu", kind->name, i + 1)
                                               : tl_strdup (kind->name);
                result->bins = tl_alloc (TL_SIM_BINS * sizeof *result->bins);
            } else {
                self->clients[at].kind = kind;
                self->clients[at].worker = TL_NOBODY;
            }
        }
    }
}

static tl_scheduler_t *
s_scheduler (tl_sim_t *self)
{
    const tl_sim_spec_t *spec = self->spec;
    tl_scheduler_actions_t actions = {.line = s_line,
                                      .arrange = s_arrange,
                                      .plan = s_plan,
                                      .leave = s_leave,
                                      .give_up = s_give_up,
                                      .abandoned = s_abandoned,
                                      .done = s_done,
                                      .unserved = s_unserved};
    tl_sim_step_actions (&actions);
    tl_sim_merge_actions (&actions);
    tl_sim_line_actions (&actions);
    uint64_t *limits = tl_alloc (spec->client_count * sizeof *limits);
    for (size_t i = 0; i < spec->client_count; i++) {
        uint64_t most = self->clients[i].kind->steps;
        limits[i] = most && most < spec->rounds ? most : spec->rounds;
    }
    bool many = spec->mode == TL_CHOOSE_FANOUT || spec->mode == TL_CHOOSE_AUTO;
    tl_scheduler_config_t config = {.clients = spec->client_count,
                                    .workers = spec->worker_count,
                                    .rounds = spec->rounds,
                                    .every = spec->every,
                                    .save_every = spec->save_every,
                                    .limits = limits,
                                    .share = (tl_share_mode_t)spec->share,
                                    .all_workers = many,
                                    .aggregator = tl_sim_spec_aggregates (spec)};
    if (spec->window) {
        config.costs = self->costs;
        config.micros = spec->micros;
        config.window_us = spec->window_ms * 1000;
    }
    tl_scheduler_t *scheduler = tl_scheduler_new (&config, &actions, self);
    free (limits);
    return scheduler;
}

static void
s_release (tl_sim_t *self)
{
    for (size_t w = 0; w < self->spec->worker_count; w++) {
        free (self->workers[w].members);
        free (self->workers[w].jobs[0]);
        free (self->workers[w].jobs[1]);
    }
    for (size_t c = 0; c < self->spec->client_count; c++)
        free (self->clients[c].handed);
    free (self->workers);
    free (self->clients);
    free (self->timers);
    tl_sim_merge_release (self);
    tl_sim_queue_release (&self->queue);
    tl_scheduler_destroy (&self->scheduler);
    tl_choose_destroy (&self->choose);
}

//  Everything that is to happen, until the run is over.
static int
s_go (tl_sim_t *self, tl_error_t *err)
{
    tl_sim_event_t event;
    int64_t stuck =
        STUCK + STUCK_A_MICRO * (int64_t)(self->spec->client_count * self->spec->micros);
    if (tl_sim_spec_aggregates (self->spec))
        tl_scheduler_aggregator_join (self->scheduler);
    while (!self->done) {
        if (!tl_sim_queue_take (&self->queue, &event) || self->progress > stuck)
            return tl_fail (err, TL_FAILED,
                            "%s: the run stands still at %.1f s in state %s after %llu steps: "
                            "whoever it waits for doesn't come; look at arrives and fails",
                            self->spec->source, s_seconds (self->now),
                            tl_scheduler_state_name (self->scheduler),
                            (unsigned long long)self->result->steps);
        if (event.at > (int64_t)LONGEST)
            return tl_fail (
                err, TL_BAD_INPUT,
                "%s: the run would take more than 30 years; look at the times and rates "
                "of compute and link, and at fails",
                self->spec->source);
        self->now = event.at;
        self->progress++;
        self->result->events++;
        tl_scheduler_now (self->scheduler, self->now / 1000);
        if (!s_stale (self, &event))
            s_event (self, &event);
    }
    return 0;
}

int
tl_sim_run (const tl_sim_spec_t *spec, tl_sim_result_t **result, tl_error_t *err)
{
    tl_sim_t self = {.spec = spec, .bin = 1000000, .period_at = -1};
    self.result = tl_alloc (sizeof *self.result);
    self.result->worker_count = spec->worker_count;
    self.result->client_count = spec->client_count;
    self.result->workers = tl_alloc (spec->worker_count * sizeof *self.result->workers);
    self.workers = tl_alloc (spec->worker_count * sizeof *self.workers);
    self.timers = tl_alloc (spec->worker_count * sizeof *self.timers);
    self.result->taken = tl_alloc (spec->client_count * sizeof *self.result->taken);
    self.clients = tl_alloc (spec->client_count * sizeof *self.clients);
    self.choose = tl_choose_new (&(tl_choose_config_t){.mode = (tl_choose_mode_t)spec->mode,
                                                       .workers = spec->worker_count,
                                                       .clients = spec->client_count,
                                                       .micros = spec->micros,
                                                       .hysteresis = spec->hysteresis});
    self.costs = tl_choose_costs (self.choose);
    s_people (&self, true);
    s_people (&self, false);
    self.scheduler = s_scheduler (&self);
    int rc = s_go (&self, err);
    while (self.now >= self.bin * TL_SIM_BINS)
        s_widen (&self);
    for (size_t w = 0; w < spec->worker_count; w++)
        s_spent (&self, w, self.workers[w].state, self.workers[w].since, self.now);
    self.result->seconds = s_seconds (self.now);
    self.result->bin = s_seconds (self.bin);
    self.result->rounds = tl_scheduler_place (self.scheduler).round;
    s_release (&self);
    if (rc != 0)
        tl_sim_result_destroy (&self.result);
    *result = self.result;
    return rc;
}

void
tl_sim_result_destroy (tl_sim_result_t **self_p)
{
    tl_sim_result_t *self = *self_p;
    if (!self)
        return;
    for (size_t w = 0; w < self->worker_count; w++) {
        free (self->workers[w].name);
        free (self->workers[w].bins);
    }
    for (size_t p = 0; p < self->period_count; p++)
        free (self->periods[p].text);
    free (self->workers);
    free (self->taken);
    free (self->periods);
    free (self);
    *self_p = NULL;
}

double
tl_sim_rows_s (const tl_sim_result_t *self, size_t first, size_t last)
{
    double rows = 0, seconds = 0;
    for (size_t p = first; p < last && p < self->period_count; p++) {
        rows += (double)self->periods[p].rows;
        seconds += self->periods[p].end - self->periods[p].at;
    }
    return seconds > 0 ? rows / seconds : 0;
}
