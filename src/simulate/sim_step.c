//  sim_step: a step on its way: PLAN, rows to the worker and back, twice, or none where split is none; with sync the sum of
//  gradients; COMMIT, COMMITTED. Measures what the broker would.

#include "sim_internal.h"

#include "assert.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 300 }; //  bytes of a message without a tensor

static double
s_bytes (const tl_sim_t *self, const tl_sim_client_t *client)
{
    return (double)client->kind->rows * (double)self->spec->hidden * self->spec->value_bytes;
}

static void
s_note (tl_sim_t *self, tl_cost_t what, size_t who, uint64_t rows, int64_t ns)
{
    tl_costs_note (self->costs, what, who, rows, (ns + 500) / 1000);
}

static tl_sim_job_t *
s_job (tl_sim_worker_t *w, int stage, size_t micro)
{
    return stage == COMMIT ? &w->commit : &w->jobs[stage][micro];
}

//  --- the client -------------------------------------------------------------------------------

static bool
s_is_blocked (const tl_sim_client_t *c)
{
    return c->made[FORWARD] > c->sent[FORWARD] || c->made[BACKWARD] > c->sent[BACKWARD];
}

static void
s_send (tl_sim_t *self, size_t client, int stage, double bytes)
{
    tl_sim_client_t *c = &self->clients[client];
    int64_t sent = tl_sim_take (&c->up_at, self->now, tl_sim_wire (bytes, c->kind->link.mbit_s));
    tl_sim_put (self, sent + tl_sim_ms (c->kind->link.latency_ms), EV_BROKER_IN, client, stage,
                c->sent[stage]++, c->epoch);
}

//  Sends what is made as far as credit reaches; what finishes a micro goes first.
static void
s_send_made (tl_sim_t *self, size_t client)
{
    tl_sim_client_t *c = &self->clients[client];
    double bytes = s_bytes (self, c), credit = self->spec->credit_mb * 1e6;
    while (s_is_blocked (c) &&
           (credit <= 0 || c->under_way <= 0 || c->under_way + bytes <= credit)) {
        c->under_way += bytes;
        s_send (self, client, c->made[BACKWARD] > c->sent[BACKWARD] ? BACKWARD : FORWARD, bytes);
    }
}

static void
s_blocked_changed (tl_sim_t *self, size_t client, bool before)
{
    const tl_sim_client_t *c = &self->clients[client];
    if (c->worker == TL_NOBODY || before == s_is_blocked (c))
        return;
    self->workers[c->worker].blocked += before ? (uint32_t)-1 : 1;
    tl_sim_worker_state (self, c->worker);
}

static void
s_client_job (tl_sim_t *self, size_t client, int stage, size_t micro)
{
    tl_sim_client_t *c = &self->clients[client];
    const double times[] = {c->kind->compute.front, c->kind->compute.tail, c->kind->compute.back};
    double its = self->spec->whole ? c->kind->compute.whole : times[stage];
    int64_t time = tl_sim_job_time (self, c->kind, its, (double)c->kind->rows, c->round,
                                    self->spec->worker_count + client, &c->drawn);
    self->result->client_busy += (double)time * 1e-9;
    tl_sim_put (self, tl_sim_take (&c->free_at, self->now, time), EV_CLIENT_DONE, client, stage,
                micro, c->epoch);
}

static void
s_client_done (tl_sim_t *self, size_t client, int stage)
{
    tl_sim_client_t *c = &self->clients[client];
    bool before = s_is_blocked (c);
    if (stage == COMMIT) {
        if (++c->backs < self->spec->micros)
            return;
        if (self->spec->share == TL_SHARE_GRADIENT)
            s_send (self, client, GRADIENT_PART, tl_sim_merge_bytes (self, MERGE_SUM));
        else
            s_send (self, client, COMMIT, SMALL);
        return;
    }
    c->made[stage]++;
    s_send_made (self, client);
    s_blocked_changed (self, client, before);
}

static void
s_credit (tl_sim_t *self, size_t client)
{
    tl_sim_client_t *c = &self->clients[client];
    bool before = s_is_blocked (c);
    c->under_way = fmax (c->under_way - s_bytes (self, c), 0);
    s_send_made (self, client);
    s_blocked_changed (self, client, before);
}

//  join: window. What comes before its step is kept at the broker.
static void
s_keep (tl_sim_t *self, size_t client, int stage, size_t micro)
{
    tl_sim_client_t *c = &self->clients[client];
    int64_t at = tl_sim_broker (self, s_bytes (self, c));
    c->arrived[stage]++;
    if (micro > 0)
        return;
    s_note (self, TL_COST_FRONT, client, c->kind->rows, at - c->plan_at);
    tl_sim_put (self, at, EV_READY, client, 0, 0, c->epoch);
}

//  --- broker and worker ------------------------------------------------------------------------

//  What a job needs is complete, also because somebody left.
static void
s_check (tl_sim_t *self, size_t worker, int stage, size_t micro)
{
    tl_sim_worker_t *w = &self->workers[worker];
    tl_sim_job_t *job = s_job (w, stage, micro);
    if (job->fired || job->arrived < job->expected)
        return;
    job->fired = true;
    if (job->expected > 0)
        tl_sim_put (self, job->ready_at > self->now ? job->ready_at : self->now, EV_WORKER_READY,
                    worker, stage, micro, w->epoch);
    else if (stage == BACKWARD)
        w->jobs_done++;
    else if (stage == COMMIT) {
        //  All have left: what it computes for them is for nobody, and least of all for the next step.
        w->epoch++;
        w->queued = 0;
        tl_sim_put (self, self->now, EV_CLOSED, worker, 0, 0, w->epoch);
    }
}

//  It is at the broker at that time, and goes on to the worker.
static void
s_to_worker (tl_sim_t *self, const tl_sim_client_t *c, int stage, size_t micro, int64_t at)
{
    tl_sim_worker_t *w = &self->workers[c->worker];
    tl_sim_job_t *job = s_job (w, stage, micro);
    double bytes = stage == COMMIT ? SMALL : s_bytes (self, c);
    job->arrived++;
    job->rows += c->kind->rows;
    job->last_in = at;
    int64_t there = tl_sim_take (&w->down_at, at, tl_sim_wire (bytes, w->kind->link.mbit_s)) +
                    tl_sim_ms (w->kind->link.latency_ms);
    job->ready_at = there > job->ready_at ? there : job->ready_at;
    s_check (self, c->worker, stage, micro);
}

static void
s_broker_in (tl_sim_t *self, size_t client, int stage, size_t micro)
{
    tl_sim_client_t *c = &self->clients[client];
    if (c->worker == TL_NOBODY) {
        s_keep (self, client, stage, micro);
        return;
    }
    double bytes = stage == COMMIT          ? SMALL
                   : stage == GRADIENT_PART ? tl_sim_merge_bytes (self, MERGE_SUM)
                                            : s_bytes (self, c);
    int64_t at = tl_sim_broker (self, bytes);
    if (stage == GRADIENT_PART) {
        tl_sim_merge_summand (self, client, self->workers[c->worker].step, at);
        return;
    }
    tl_assert (micro < self->spec->micros);
    uint64_t rows = c->kind->rows, last = self->spec->micros - 1;
    if (stage == FORWARD && micro == 0)
        s_note (self, TL_COST_FRONT, client, rows, at - c->plan_at);
    else if (stage == BACKWARD && micro == last)
        s_note (self, TL_COST_TAIL, client, rows, at - c->handed[micro]);
    if (stage == BACKWARD && micro == 0)
        c->first_gradient = at;
    if (stage == BACKWARD && micro == last && last > 0)
        tl_costs_note_pace (self->costs, client, rows,
                            ((at - c->first_gradient) / (int64_t)last + 500) / 1000,
                            self->workers[c->worker].member_count == 1);
    if (stage == COMMIT && !self->spec->whole)
        s_note (self, TL_COST_END, client, rows, at - c->handed_last);
    c->arrived[stage]++;
    s_to_worker (self, c, stage, micro, at);
}

static void
s_worker_ready (tl_sim_t *self, size_t worker, int stage, size_t micro)
{
    tl_sim_worker_t *w = &self->workers[worker];
    tl_sim_job_t *job = s_job (w, stage, micro);
    int64_t time;
    if (stage == COMMIT)
        time = self->spec->whole ? 0 : tl_sim_update_time (w->kind, w->round);
    else
        time = tl_sim_job_time (self, w->kind, stage == BACKWARD ? w->kind->compute.backward : 1,
                                (double)job->rows, w->round, worker, &w->drawn);
    job->alone = w->free_at <= self->now;
    job->us = time;
    w->queued++;
    tl_sim_put (self, tl_sim_take (&w->free_at, self->now, time), EV_WORKER_DONE, worker, stage,
                micro, w->epoch);
    for (size_t i = 0; self->spec->credit_mb > 0 && stage != COMMIT && i < w->member_count; i++) {
        const tl_sim_client_t *c = &self->clients[w->members[i]];
        if (c->worker == worker)
            tl_sim_put (self,
                        self->now + tl_sim_ms (w->kind->link.latency_ms + c->kind->link.latency_ms),
                        EV_CREDIT, w->members[i], 0, 0, c->epoch);
    }
    tl_sim_worker_state (self, worker);
}

static void
s_worker_done (tl_sim_t *self, size_t worker, int stage, size_t micro)
{
    tl_sim_worker_t *w = &self->workers[worker];
    int64_t latency = tl_sim_ms (w->kind->link.latency_ms);
    w->queued--;
    if (stage == COMMIT)
        tl_sim_put (self, self->now + latency, EV_CLOSED, worker, 0, 0, w->epoch);
    if (stage == COMMIT && self->spec->whole)
        w->rows = w->commit.rows * self->spec->micros;
    tl_sim_job_t *job = s_job (w, stage, micro);
    job->expected = 0;
    for (size_t i = 0; stage != COMMIT && i < w->member_count; i++) {
        size_t client = w->members[i];
        const tl_sim_client_t *c = &self->clients[client];
        if (c->worker != worker || c->arrived[stage] <= micro)
            continue;
        job->expected++;
        int64_t sent = tl_sim_take (&w->up_at, self->now,
                                    tl_sim_wire (s_bytes (self, c), w->kind->link.mbit_s));
        tl_sim_put (self, sent + latency, EV_BROKER_OUT, client, stage, micro, c->epoch);
    }
    w->jobs_done += stage == BACKWARD;
    if (stage == BACKWARD)
        w->rows += job->rows;
    tl_sim_worker_state (self, worker);
}

static void
s_broker_out (tl_sim_t *self, size_t client, int stage, size_t micro)
{
    tl_sim_client_t *c = &self->clients[client];
    tl_assert (c->worker != TL_NOBODY);
    tl_sim_worker_t *w = &self->workers[c->worker];
    tl_sim_job_t *job = s_job (w, stage, micro);
    double bytes = s_bytes (self, c);
    int64_t at = tl_sim_broker (self, bytes);
    if (job->answered++ == 0)
        s_note (self, stage == FORWARD ? TL_COST_FORWARD : TL_COST_BACKWARD, c->worker, job->rows,
                job->us);
    if (job->answered == job->expected && job->alone)
        s_note (self, TL_COST_TRIP, c->worker, job->rows, at - job->last_in - job->us);
    if (stage == FORWARD)
        c->handed[micro] = at;
    else
        c->handed_last = at;
    int64_t there = tl_sim_take (&c->down_at, at, tl_sim_wire (bytes, c->kind->link.mbit_s)) +
                    tl_sim_ms (c->kind->link.latency_ms);
    tl_sim_put (self, there, EV_CLIENT_GETS, client, stage, micro, c->epoch);
}

static void
s_closed (tl_sim_t *self, size_t worker)
{
    tl_sim_worker_t *w = &self->workers[worker];
    w->open = false;
    if (w->rows)
        s_note (self, TL_COST_UPDATE, worker, w->rows, w->commit.us);
    for (size_t i = 0; i < w->member_count; i++) {
        tl_sim_client_t *c = &self->clients[w->members[i]];
        if (c->worker != worker)
            continue;
        c->worker = TL_NOBODY;
        c->called = false;
        self->result->taken[w->members[i]] += w->rows > 0;
        tl_sim_take (&c->free_at, self->now + tl_sim_ms (c->kind->link.latency_ms),
                     tl_sim_update_time (c->kind, c->round));
    }
    self->period_rows += w->rows;
    self->result->rows += w->rows;
    self->result->workers[worker].rows += w->rows;
    self->result->steps += w->rows > 0;
    if (w->rows && w->step >= self->furthest) {
        self->furthest = w->step + 1;
        self->progress = 0;
    }
    tl_sim_worker_state (self, worker);
    tl_scheduler_closed (self->scheduler, worker, w->step, w->rows);
}

//  --- actions ----------------------------------------------------------------------------------

static void
s_expect (const tl_sim_t *self, tl_sim_worker_t *w, size_t count)
{
    for (int stage = FORWARD; stage <= BACKWARD && !self->spec->whole; stage++) {
        if (!w->jobs[stage])
            w->jobs[stage] = tl_alloc (self->spec->micros * sizeof **w->jobs);
        memset (w->jobs[stage], 0, self->spec->micros * sizeof **w->jobs);
        for (size_t m = 0; m < self->spec->micros; m++)
            w->jobs[stage][m].expected = (uint32_t)count;
    }
    w->commit = (tl_sim_job_t){.expected = (uint32_t)count};
}

//  It gets its PLAN.
static void
s_begin (tl_sim_t *self, size_t client, uint64_t round)
{
    tl_sim_client_t *c = &self->clients[client];
    c->called = true;
    c->round = round;
    c->plan_at = tl_sim_broker (self, SMALL);
    memset (c->arrived, 0, sizeof c->arrived);
    memset (c->sent, 0, sizeof c->sent);
    memset (c->made, 0, sizeof c->made);
    c->backs = 0;
    c->under_way = 0;
    if (!c->handed)
        c->handed = tl_alloc (self->spec->micros * sizeof *c->handed);
    tl_sim_put (self, c->plan_at + tl_sim_ms (c->kind->link.latency_ms), EV_PLAN, client, 0, 0,
                c->epoch);
}

void
tl_sim_step_recall (tl_sim_t *self, size_t client)
{
    tl_sim_client_t *c = &self->clients[client];
    c->epoch += c->called;
    c->called = false;
}

//  What its members have sent before goes to the worker.
static void
s_pass_kept (tl_sim_t *self, tl_sim_worker_t *w)
{
    for (size_t i = 0; i < w->member_count; i++) {
        const tl_sim_client_t *c = &self->clients[w->members[i]];
        w->blocked += s_is_blocked (c);
        for (size_t m = 0; m < c->arrived[FORWARD]; m++)
            s_to_worker (self, c, FORWARD, m, self->now);
    }
}

void
tl_sim_step_plan (tl_sim_t *self, const tl_step_t *step, const size_t *members, size_t count)
{
    tl_sim_worker_t *w = &self->workers[step->worker];
    if (count > w->member_room) {
        free (w->members);
        w->member_room = count;
        w->members = tl_alloc (count * sizeof *w->members);
    }
    memcpy (w->members, members, count * sizeof *members);
    w->member_count = count;
    w->step = step->step;
    w->round = step->round;
    w->rows = 0;
    w->queued = w->blocked = 0;
    w->jobs_done = self->spec->whole ? (uint32_t)self->spec->micros : 0;
    w->open = true;
    s_expect (self, w, count);
    for (size_t i = 0; i < count; i++) {
        self->clients[members[i]].worker = step->worker;
        if (!self->spec->window)
            s_begin (self, members[i], step->round);
    }
    if (self->spec->window)
        s_pass_kept (self, w);
    if (self->spec->share == TL_SHARE_GRADIENT)
        tl_sim_merge_sum (self, step->step, members, count);
    tl_sim_worker_state (self, step->worker);
}

void
tl_sim_step_leave (tl_sim_t *self, size_t worker, size_t client)
{
    tl_sim_worker_t *w = &self->workers[worker];
    tl_sim_client_t *c = &self->clients[client];
    if (!w->open || c->worker != worker)
        return;
    w->blocked -= s_is_blocked (c);
    c->worker = TL_NOBODY;
    c->called = false;
    for (int stage = FORWARD; stage <= BACKWARD && !self->spec->whole; stage++)
        for (size_t m = c->arrived[stage]; m < self->spec->micros; m++) {
            w->jobs[stage][m].expected--;
            s_check (self, worker, stage, m);
        }
    w->commit.expected -= c->arrived[COMMIT] == 0;
    s_check (self, worker, COMMIT, 0);
    tl_sim_worker_state (self, worker);
}

void
tl_sim_step_drop (tl_sim_t *self, size_t worker)
{
    tl_sim_worker_t *w = &self->workers[worker];
    if (!w->open)
        return;
    w->open = false;
    w->epoch++;
    w->queued = w->blocked = 0;
    w->free_at = self->now;
    for (size_t i = 0; i < w->member_count; i++) {
        tl_sim_client_t *c = &self->clients[w->members[i]];
        if (c->worker != worker)
            continue;
        c->worker = TL_NOBODY;
        c->called = false;
        c->epoch++;
        c->free_at = self->now;
    }
    tl_sim_worker_state (self, worker);
}

//  --- join: window -----------------------------------------------------------------------------

static void
s_call (void *arg, size_t client, uint64_t step, uint64_t round)
{
    s_begin (arg, client, round);
}

static void
s_recall (void *arg, size_t client, uint64_t step, const char *why)
{
    tl_sim_step_recall (arg, client);
}

static void
s_timer (void *arg, size_t group, int64_t us)
{
    tl_sim_t *self = arg;
    uint32_t epoch = ++self->timers[group];
    if (us)
        tl_sim_put (self, self->now + us * 1000, EV_TIME_UP, group, 0, 0, epoch);
}

static void
s_windowed (void *arg, const tl_step_t *step, const tl_window_step_t *how)
{
    tl_sim_t *self = arg;
    tl_sim_window_t *window = &self->result->window;
    window->without += how->late > 0;
    window->waited += (double)how->waited_us * 1e-6;
    char soonest[32];
    snprintf (soonest, sizeof soonest, "client %zu", how->judged.soonest + 1);
    if (how->late)
        tl_window_text (how, soonest, window->last);
}

void
tl_sim_step_actions (tl_scheduler_actions_t *actions)
{
    actions->call = s_call;
    actions->recall = s_recall;
    actions->timer = s_timer;
    actions->windowed = s_windowed;
}

//  --- events -----------------------------------------------------------------------------------

void
tl_sim_step_event (tl_sim_t *self, const tl_sim_event_t *event)
{
    bool of_worker =
        event->kind == EV_WORKER_READY || event->kind == EV_WORKER_DONE || event->kind == EV_CLOSED;
    if (of_worker && !(self->workers[event->who].alive && self->workers[event->who].open))
        return;
    switch ((tl_sim_kind_t)event->kind) {
    case EV_WORKER_READY:
        s_worker_ready (self, event->who, event->stage, event->micro);
        return;
    case EV_WORKER_DONE:
        s_worker_done (self, event->who, event->stage, event->micro);
        return;
    case EV_CLOSED:
        s_closed (self, event->who);
        return;
    default:
        break;
    }
    //  A client that is gone or has left its step has no more part in it, and nobody answers for a dead worker.
    const tl_sim_client_t *c = &self->clients[event->who];
    bool has_part =
        c->worker != TL_NOBODY ? self->workers[c->worker].alive : self->spec->window && c->called;
    if (!c->alive || !has_part)
        return;
    switch ((tl_sim_kind_t)event->kind) {
    case EV_PLAN:
        for (size_t m = 0; m < self->spec->micros; m++)
            s_client_job (self, event->who, self->spec->whole ? COMMIT : FORWARD, m);
        break;
    case EV_CLIENT_GETS:
        s_client_job (self, event->who, event->stage + 1, event->micro);
        break;
    case EV_CLIENT_DONE:
        s_client_done (self, event->who, event->stage);
        break;
    case EV_BROKER_IN:
        s_broker_in (self, event->who, event->stage, event->micro);
        break;
    case EV_BROKER_OUT:
        s_broker_out (self, event->who, event->stage, event->micro);
        break;
    case EV_CREDIT:
        s_credit (self, event->who);
        break;
    case EV_SUMMED:
        s_send (self, event->who, COMMIT, SMALL);
        break;
    case EV_READY:
        tl_scheduler_ready (self->scheduler, event->who);
        break;
    default:
        break;
    }
}
