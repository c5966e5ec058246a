#include "unit/cmocka_all.h"
#include "unit/scheduler_rig.h"

#include "hash.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { START = 1 }; //  content of what wasn't trained

static uint64_t
s_mix (uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t all[4] = {a, b, c, d}, x = 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < 4; i++) {
        x ^= all[i] + 0x9e3779b97f4a7c15 + (x << 6) + (x >> 2);
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    }
    return x | 1;
}

static bool
s_take (rig_part_t *part, rig_order_t *order)
{
    if (!part->live || !part->count)
        return false;
    *order = part->orders[part->first];
    part->first = (part->first + 1) % RIG_ORDERS;
    part->count--;
    return true;
}

//  --- life -------------------------------------------------------------------------------------

rig_t *
rig_new (size_t clients, size_t workers, size_t groups, uint64_t rounds, uint64_t every,
         uint64_t save_every)
{
    rig_t *self = tl_alloc (sizeof *self);
    self->config = (tl_scheduler_config_t){.clients = clients,
                                           .workers = workers,
                                           .rounds = rounds,
                                           .every = every,
                                           .save_every = save_every};
    self->groups = groups;
    self->inside = TL_INSIDE_BATCHED;
    self->store[0] = START;
    for (size_t i = 0; i < RIG_CLIENTS; i++)
        self->clients[i].saves[0] = START + 1 + i;
    self->aggregator.saves[0] = START + 100;
    return self;
}

void
rig_window (rig_t *self, int64_t base_us)
{
    self->costs = tl_costs_new (self->config.workers, self->config.clients);
    for (size_t w = 0; w < self->config.workers; w++)
        for (int i = 0; i < 20; i++) {
            tl_costs_note (self->costs, TL_COST_FORWARD, w, i % 2 ? 64 : 256,
                           base_us / 2 + (i % 2 ? 640 : 2560));
            tl_costs_note (self->costs, TL_COST_BACKWARD, w, i % 2 ? 64 : 256,
                           base_us / 2 + (i % 2 ? 640 : 2560));
        }
    self->config.costs = self->costs;
    self->config.micros = 1;
    self->config.window_us = 1000000;
}

void
rig_begin (rig_t *self)
{
    self->scheduler = tl_scheduler_new (&self->config, &rig_actions, self);
}

void
rig_destroy (rig_t **self_p)
{
    tl_scheduler_destroy (&(*self_p)->scheduler);
    assert_null ((*self_p)->scheduler);
    tl_costs_destroy (&(*self_p)->costs);
    free (*self_p);
    *self_p = NULL;
}

void
rig_expect (rig_t *self, const char *words)
{
    assert_string_equal (self->words, words);
    self->words[0] = 0;
}

//  --- who comes and goes -----------------------------------------------------------------------

//  A process begins with the newest that it saved.
static void
s_wake (rig_part_t *part)
{
    bool awake = part->awake;
    part->live = true;
    part->awake = false;
    part->first = part->count = 0;
    for (size_t i = 0; i < RIG_STEPS && !awake; i++)
        if (part->saves[i])
            part->content = part->saves[i];
}

static void
s_sleep (rig_part_t *part)
{
    part->live = part->open = part->called = false;
    part->count = 0;
    memset (part->members, 0, sizeof part->members);
}

void
rig_join (rig_t *self, size_t client)
{
    if (self->clients[client].live)
        return;
    s_wake (&self->clients[client]);
    tl_scheduler_join (self->scheduler, client);
}

void
rig_leave (rig_t *self, size_t client)
{
    self->asked[client] = false;
    s_sleep (&self->clients[client]);
    tl_scheduler_left (self->scheduler, client);
}

void
rig_worker (rig_t *self, size_t worker)
{
    if (self->workers[worker].live)
        return;
    s_wake (&self->workers[worker]);
    self->workers[worker].content = START;
    tl_scheduler_worker_join (self->scheduler, worker);
}

void
rig_lose (rig_t *self, size_t worker)
{
    if (!self->workers[worker].live)
        return;
    //  The broker says so when it is gone, and its open step with it: what s_abandoned looks at stays till then.
    self->workers[worker].live = false;
    self->workers[worker].count = 0;
    tl_scheduler_worker_left (self->scheduler, worker);
    s_sleep (&self->workers[worker]);
}

void
rig_aggregator (rig_t *self)
{
    if (self->aggregator.live)
        return;
    s_wake (&self->aggregator);
    memset (self->learnt, 0, sizeof self->learnt);
    if (self->ever) //  the broker reminds it
        rig_order (&self->aggregator,
                   (rig_order_t){.type = ORDER_RESTORE, .step = self->common.step});
    tl_scheduler_aggregator_join (self->scheduler);
}

void
rig_lose_aggregator (rig_t *self)
{
    if (!self->aggregator.live)
        return;
    s_sleep (&self->aggregator);
    self->merges[0].open = self->merges[1].open = false;
    tl_scheduler_aggregator_left (self->scheduler);
}

void
rig_all (rig_t *self)
{
    for (size_t i = 0; i < self->config.workers; i++)
        rig_worker (self, i);
    if (self->config.aggregator)
        rig_aggregator (self);
    for (size_t i = 0; i < self->config.clients; i++)
        rig_join (self, i);
}

void
rig_crash (rig_t *self, bool everything)
{
    rig_part_t *parts[RIG_CLIENTS + RIG_WORKERS + 1] = {&self->aggregator};
    for (size_t i = 0; i < RIG_CLIENTS; i++)
        parts[1 + i] = &self->clients[i];
    for (size_t i = 0; i < RIG_WORKERS; i++)
        parts[1 + RIG_CLIENTS + i] = &self->workers[i];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        parts[i]->awake = !everything && (parts[i]->live || parts[i]->awake);
        s_sleep (parts[i]);
    }
    memset (self->merges, 0, sizeof self->merges);
    memset (self->asked, 0, sizeof self->asked);
    memset (self->alarm, 0, sizeof self->alarm);
    self->disk = self->trunk_asked = self->refused = false;
    self->ever = true; //  so the aggregator is reminded
    tl_scheduler_destroy (&self->scheduler);
    rig_begin (self);
    tl_scheduler_resume (self->scheduler, &self->common, NULL, false);
}

bool
rig_earlier (rig_t *self)
{
    if (!tl_scheduler_resuming (self->scheduler) || !self->older.step ||
        self->older.step >= self->common.step)
        return false;
    self->common = self->older;
    tl_scheduler_resume_earlier (self->scheduler, &self->common);
    return true;
}

//  --- what they do -----------------------------------------------------------------------------

void
rig_close (rig_t *self, size_t worker, uint64_t labels)
{
    rig_part_t *part = &self->workers[worker];
    assert_true (part->live && part->open);
    uint64_t step = part->step.step;
    //  Without labels the scheduler says abandoned.
    if (labels) {
        part->open = false;
        for (size_t i = 0; i < RIG_CLIENTS; i++) {
            rig_part_t *client = &self->clients[i];
            if (!part->members[i])
                continue;
            while (rig_client_does (self, i, true)) //  it was told before that step
                ;
            part->content = s_mix (part->content, client->content, part->step.round, i);
            client->content = s_mix (client->content, part->step.round, step, 7);
            client->called = false;
            client->taken++;
            part->members[i] = false;
        }
    }
    tl_scheduler_closed (self->scheduler, worker, step, labels);
}

//  The step of what it has then.
static uint64_t
s_restored (rig_part_t *part, uint64_t step)
{
    uint64_t found = 0;
    part->content = 0;
    for (uint64_t i = 0; i < RIG_STEPS; i++)
        if (i > step)
            part->saves[i] = 0;
        else if (part->saves[i]) {
            part->content = part->saves[i];
            found = i;
        }
    assert_true (part->content != 0);
    return found;
}

static void
s_part_arrives (rig_t *self, const rig_order_t *order, const rig_part_t *part)
{
    if (!self->merges[order->kind].open || self->merges[order->kind].step != order->step)
        return;
    self->merges[order->kind].there[order->member] = true;
    self->merges[order->kind].parts[order->member] = part->content;
}

bool
rig_client_does (rig_t *self, size_t client, bool good)
{
    rig_part_t *part = &self->clients[client];
    rig_order_t order;
    uint64_t step;
    if (!s_take (part, &order))
        return false;
    const char *why = good ? "" : "disk full";
    switch (order.type) {
    case ORDER_SAVE:
        part->saves[order.step] = part->content;
        if (self->asked[client] && order.step == self->pending.step) {
            self->asked[client] = false;
            self->refused |= !good;
        }
        tl_scheduler_client_saved (self->scheduler, client, order.step, good, why);
        break;
    case ORDER_RESTORE:
        step = s_restored (part, order.step);
        tl_scheduler_client_restored (self->scheduler, client, step, good ? 0 : TL_FAILED, why);
        break;
    case ORDER_GATHER:
        s_part_arrives (self, &order, part);
        tl_scheduler_gathered (self->scheduler, order.kind, client, order.step);
        break;
    case ORDER_TAKE:
        part->content = order.content;
        tl_scheduler_client_restored (self->scheduler, client, order.step, good ? 0 : TL_FAILED,
                                      why);
        break;
    default:
        tl_scheduler_finished (self->scheduler, client);
    }
    return true;
}

bool
rig_worker_does (rig_t *self, size_t worker, bool good)
{
    rig_part_t *part = &self->workers[worker];
    rig_order_t order;
    if (!s_take (part, &order))
        return false;
    const char *why = good ? "" : "disk full";
    if (order.type == ORDER_SAVE) {
        self->store[order.step] = part->content;
        self->trunk_asked = false;
        self->refused |= !good;
        tl_scheduler_saved (self->scheduler, order.step, good, why);
    } else if (order.type == ORDER_EQUIP) {
        assert_true (self->store[order.step] != 0);
        part->content = self->store[order.step];
        tl_scheduler_restored (self->scheduler, worker, good ? 0 : TL_FAILED, why);
    } else {
        s_part_arrives (self, &order, part);
        tl_scheduler_gathered (self->scheduler, order.kind, worker, order.step);
    }
    return true;
}

//  All parts are there: the result, in the order of the members.
static bool
s_merged (rig_t *self, tl_merge_t kind, bool good)
{
    if (!self->merges[kind].open || !self->merges[kind].urgent)
        return false;
    uint64_t result = 5;
    bool any = false;
    for (size_t i = 0; i < self->merges[kind].count; i++) {
        if (kind == TL_MERGE_CLIENTS && !self->merges[kind].there[i])
            continue; //  the broker says LEAVE of who is gone, and has asked all others
        if (!self->merges[kind].there[i])
            return false;
        result = s_mix (result, self->merges[kind].parts[i], i, 3);
        any = true;
    }
    for (size_t i = 0; i < self->config.clients && kind == TL_MERGE_CLIENTS; i++)
        for (size_t j = 0; j < self->clients[i].count; j++)
            if (self->clients[i].orders[(self->clients[i].first + j) % RIG_ORDERS].type ==
                ORDER_GATHER)
                return false; //  not asked in vain
    self->merges[kind].open = false;
    good &= any; //  of nobody's part nothing is made
    //  What it learns from a merge it keeps when that is saved: until then it may be asked again.
    if (self->config.remembers) {
        result = s_mix (result, self->aggregator.content, kind, 4);
        self->learnt[kind] = result;
    }
    if (kind == TL_MERGE_TRUNK)
        self->merged = result;
    for (size_t i = 0; i < self->config.clients && kind == TL_MERGE_CLIENTS && good; i++)
        if (self->clients[i].live && tl_scheduler_takes (self->scheduler, i))
            rig_order (&self->clients[i], (rig_order_t){.type = ORDER_TAKE,
                                                        .step = self->merges[kind].step,
                                                        .content = result});
    rig_say (self, any ? "merged; " : "not merged; ");
    tl_scheduler_merged (self->scheduler, kind, self->merges[kind].step, good,
                         good ? "" : "too few parts");
    return true;
}

bool
rig_aggregator_does (rig_t *self, bool good)
{
    rig_order_t order;
    if (!self->aggregator.live)
        return false;
    if (!s_take (&self->aggregator, &order))
        return s_merged (self, TL_MERGE_TRUNK, good) || s_merged (self, TL_MERGE_CLIENTS, good);
    if (order.type == ORDER_SAVE) {
        self->refused |= !good;
        if (self->learnt[0] || self->learnt[1])
            self->aggregator.content =
                s_mix (self->aggregator.content, self->learnt[0], self->learnt[1], 5);
        memset (self->learnt, 0, sizeof self->learnt);
        self->aggregator.saves[order.step] = self->aggregator.content;
        tl_scheduler_aggregator_saved (self->scheduler, order.step, good, good ? "" : "disk full");
    } else {
        s_restored (&self->aggregator, order.step);
        memset (self->learnt, 0, sizeof self->learnt);
        tl_scheduler_aggregator_restored (self->scheduler, good ? 0 : TL_BAD_INPUT,
                                          good ? "" : "no such file");
    }
    return true;
}

bool
rig_disk_does (rig_t *self, bool good)
{
    if (!self->disk)
        return false;
    self->disk = false;
    self->store[self->disk_step] = self->merged;
    self->trunk_asked = false;
    self->refused |= !good;
    tl_scheduler_saved (self->scheduler, self->disk_step, good, good ? "" : "disk full");
    return true;
}

void
rig_ready (rig_t *self, size_t client)
{
    rig_part_t *part = &self->clients[client];
    while (rig_client_does (self, client, true)) //  it was told before that PLAN
        ;
    if (!part->called || part->ready)
        return;
    part->ready = true;
    tl_scheduler_ready (self->scheduler, client);
}

void
rig_pass (rig_t *self, int64_t us)
{
    self->now += us;
    tl_scheduler_now (self->scheduler, self->now);
    for (size_t i = 0; i < RIG_WORKERS; i++)
        if (self->alarm[i] && self->alarm[i] <= self->now) {
            self->alarm[i] = 0;
            tl_scheduler_time_up (self->scheduler, i);
        }
}

void
rig_do_all (rig_t *self)
{
    bool any = true;
    while (any) {
        any = rig_aggregator_does (self, true) || rig_disk_does (self, true);
        for (size_t i = 0; i < self->config.clients && !any; i++)
            any = rig_client_does (self, i, true);
        for (size_t i = 0; i < self->config.workers && !any; i++)
            any = rig_worker_does (self, i, true);
    }
}

bool
rig_run (rig_t *self)
{
    bool any = true;
    while (any && !self->done) {
        any = false;
        rig_do_all (self);
        for (size_t i = 0; i < self->config.clients && self->config.costs; i++)
            rig_ready (self, i);
        rig_do_all (self);
        for (size_t i = 0; i < self->config.workers; i++)
            if (self->workers[i].open && !self->done) {
                bool members = false;
                for (size_t j = 0; j < RIG_CLIENTS; j++)
                    members |= self->workers[i].members[j];
                rig_close (self, i, members ? 5 : 0);
                any = true;
            }
    }
    return self->done;
}

uint64_t
rig_result (const rig_t *self)
{
    uint64_t result = self->store[self->common.step];
    for (size_t i = 0; i < self->config.clients; i++)
        result = s_mix (result, self->clients[i].saves[self->common.step], i, 11);
    return result;
}
