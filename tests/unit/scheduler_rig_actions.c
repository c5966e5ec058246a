//  scheduler_rig_actions: what the scheduler asks for, and what it may never ask for.

#include "unit/cmocka_all.h"
#include "unit/scheduler_rig.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void
rig_say (rig_t *self, const char *format, ...)
{
    size_t used = strlen (self->words);
    va_list args;
    va_start (args, format);
    if (!self->quiet)
        vsnprintf (self->words + used, RIG_WORDS - used, format, args);
    va_end (args);
}

void
rig_order (rig_part_t *part, rig_order_t order)
{
    assert_true (part->live);
    assert_false (part->called); //  nobody is asked for what it holds while it is on its way
    assert_true (part->count < RIG_ORDERS);
    part->orders[(part->first + part->count++) % RIG_ORDERS] = order;
}

static bool
s_any_open (const rig_t *self)
{
    bool open = false;
    for (size_t i = 0; i < RIG_WORKERS; i++)
        open |= self->workers[i].open;
    return open;
}

static void
s_line (void *arg, bool undisturbed)
{
    rig_t *self = arg;
    assert_false (s_any_open (self));
    self->periods++;
    self->undisturbed += undisturbed;
}

static const tl_decision_t *
s_arrange (void *arg, const tl_present_t *present)
{
    rig_t *self = arg;
    assert_false (s_any_open (self));
    assert_int_equal (self->done, 0);
    assert_true (present->client_count > 0 && present->worker_count > 0 && present->rounds > 0);
    size_t groups = self->groups;
    if (!self->fixed && present->worker_count < groups)
        groups = present->worker_count;
    if (present->client_count < groups)
        groups = present->client_count;
    for (size_t i = 0; i < RIG_CLIENTS; i++)
        self->group_of[i] = TL_NOBODY;
    for (size_t i = 0; i < present->client_count; i++) {
        assert_true (self->clients[present->clients[i]].live);
        self->group_of[present->clients[i]] = i % groups;
    }
    for (size_t i = 0; i < groups; i++)
        self->worker_of[i] = self->fixed ? i : present->workers[i];
    self->decision = (tl_decision_t){.groups = groups,
                                     .inside = self->inside,
                                     .worker = self->worker_of,
                                     .group = self->group_of};
    return &self->decision;
}

//  join: window. Whoever is in a step has a PLAN, and whoever is ready is in the next step of its group.
static void
s_check_joined (const rig_t *self, const tl_step_t *step, const size_t *members, size_t count)
{
    for (size_t i = 0; i < RIG_CLIENTS && self->config.costs; i++) {
        const rig_part_t *client = &self->clients[i];
        bool in = false;
        for (size_t j = 0; j < count; j++)
            in |= members[j] == i;
        assert_true (!in || client->called);
        if (!in && self->inside == TL_INSIDE_BATCHED && client->called && client->ready &&
            tl_scheduler_worker_of (self->scheduler, i) == step->worker &&
            (!self->config.limits || step->round < self->config.limits[i]))
            fail_msg ("client %zu is ready and not in step %d", i, (int)step->step);
    }
}

static void
s_plan (void *arg, const tl_step_t *step, const size_t *members, size_t count)
{
    rig_t *self = arg;
    rig_part_t *worker = &self->workers[step->worker];
    assert_int_equal (self->done, 0);
    assert_true (worker->live);
    assert_false (worker->open);
    assert_true (step->round < self->config.rounds);
    assert_true (count >= 1);
    s_check_joined (self, step, members, count);
    for (size_t i = 0; i < count; i++) {
        assert_true (i == 0 || members[i] > members[i - 1]);
        assert_true (self->clients[members[i]].live);
        assert_true (!self->config.limits || step->round < self->config.limits[members[i]]);
        for (size_t j = 0; j < RIG_WORKERS; j++)
            assert_false (self->workers[j].open && self->workers[j].members[members[i]]);
        worker->members[members[i]] = true;
    }
    assert_int_equal (worker->count, 0); //  it has done whatever it was told before
    worker->open = true;
    worker->step = *step;
    self->ever = true;
    rig_say (self, "plan ");
    if (self->groups > 1 || self->config.workers > 1)
        rig_say (self, "%zu:", step->worker);
    rig_say (self, "%d/%d:", (int)step->step, (int)step->round);
    for (size_t i = 0; i < count; i++)
        rig_say (self, " %zu", members[i]);
    rig_say (self, "; ");
}

static void
s_call (void *arg, size_t client, uint64_t step, uint64_t round)
{
    rig_t *self = arg;
    rig_part_t *part = &self->clients[client];
    assert_true (self->config.costs && part->live && !part->called);
    assert_true (round < self->config.rounds);
    assert_true (!self->config.limits || round < self->config.limits[client]);
    part->called = true;
    part->ready = false;
    part->named = step;
}

static void
s_recall (void *arg, size_t client, uint64_t step, const char *why)
{
    rig_t *self = arg;
    rig_part_t *part = &self->clients[client];
    assert_true (part->live && part->called && part->named == step && strlen (why) > 0);
    for (size_t i = 0; i < RIG_WORKERS; i++)
        assert_false (self->workers[i].open && self->workers[i].members[client]);
    part->called = false;
    rig_say (self, "recall %zu; ", client);
}

static void
s_timer (void *arg, size_t group, int64_t us)
{
    rig_t *self = arg;
    assert_true (group < self->groups && us >= 0);
    self->alarm[group] = us ? self->now + us : 0;
    if (us)
        rig_say (self, "wait %d; ", (int)us);
}

static void
s_windowed (void *arg, const tl_step_t *step, const tl_window_step_t *how)
{
    rig_t *self = arg;
    assert_true (how->members > 0 && (how->late > 0 || how->waited_us > 0));
    assert_true (how->waited_us >= 0 && how->waited_us <= self->config.window_us);
    rig_say (self, "%zu of %zu; ", how->members, how->members + how->late);
}

static void
s_leave (void *arg, const tl_step_t *step, size_t client)
{
    rig_t *self = arg;
    rig_part_t *worker = &self->workers[step->worker];
    assert_true (worker->open && step->step == worker->step.step && worker->members[client]);
    worker->members[client] = false;
    rig_say (self, "leave %zu; ", client);
}

static void
s_give_up (void *arg, const tl_step_t *step, const char *why)
{
    rig_t *self = arg;
    const rig_part_t *worker = &self->workers[step->worker];
    assert_true (worker->open && step->step == worker->step.step);
    assert_true (strlen (why) > 0);
    rig_say (self, "give up %d; ", (int)step->step);
}

static void
s_abandoned (void *arg, const tl_step_t *step, const size_t *members, size_t count, const char *why)
{
    rig_t *self = arg;
    rig_part_t *worker = &self->workers[step->worker];
    assert_true (worker->open && step->step == worker->step.step && strlen (why) > 0);
    worker->open = false;
    for (size_t i = 0; i < count; i++) {
        assert_true (worker->members[members[i]]);
        assert_int_equal (tl_scheduler_named (self->scheduler, members[i]),
                          self->config.costs ? self->clients[members[i]].named : step->step);
        self->clients[members[i]].called = false;
    }
    memset (worker->members, 0, sizeof worker->members);
    rig_say (self, "abandoned %d; ", (int)step->step);
}

static void
s_merge (void *arg, tl_merge_t kind, const tl_place_t *place, const size_t *members, size_t count,
         bool urgent)
{
    rig_t *self = arg;
    assert_true (self->aggregator.live && count > 0 && count <= RIG_CLIENTS);
    assert_true (kind == TL_MERGE_CLIENTS || count > 1);
    if (!self->merges[kind].open || self->merges[kind].step != place->step) {
        memset (&self->merges[kind], 0, sizeof self->merges[kind]);
        self->merges[kind].open = true;
        self->merges[kind].step = place->step;
    }
    self->merges[kind].count = count;
    self->merges[kind].urgent = urgent;
    rig_say (self, "merge %s%s:", kind ? "clients" : "trunk", urgent ? " now" : "");
    for (size_t i = 0; i < count; i++)
        rig_say (self, " %zu", members[i]);
    rig_say (self, "; ");
}

static void
s_gather (void *arg, tl_merge_t kind, const tl_place_t *place, size_t who, size_t member)
{
    rig_t *self = arg;
    assert_true (self->merges[kind].open && member < self->merges[kind].count);
    rig_part_t *part = kind == TL_MERGE_TRUNK ? &self->workers[who] : &self->clients[who];
    assert_false (part->open);
    rig_order (part, (rig_order_t){ORDER_GATHER, kind, place->step, member, 0, false});
}

static void
s_save (void *arg, const tl_place_t *place, size_t worker, bool last)
{
    rig_t *self = arg;
    assert_false (s_any_open (self));
    for (size_t i = 0; i < self->config.clients; i++) {
        self->asked[i] = self->clients[i].live;
        if (self->clients[i].live)
            rig_order (&self->clients[i], (rig_order_t){.type = ORDER_SAVE, .step = place->step});
    }
    if (self->aggregator.live)
        rig_order (&self->aggregator, (rig_order_t){.type = ORDER_SAVE, .step = place->step});
    self->trunk_asked = place->step != self->common.step;
    if (worker == TL_NOBODY) {
        self->disk = self->trunk_asked;
        self->disk_step = place->step;
    } else
        rig_order (&self->workers[worker], (rig_order_t){.type = ORDER_SAVE, .step = place->step});
    self->refused = false;
    self->pending = *place;
    rig_say (self, "save %d%s%s; ", (int)place->step, worker == TL_NOBODY ? " merged" : "",
             last ? " last" : "");
}

static void
s_common (void *arg, const tl_place_t *place)
{
    rig_t *self = arg;
    assert_true (!self->trunk_asked && !self->refused);
    for (size_t i = 0; i < RIG_CLIENTS; i++)
        assert_false (self->asked[i]);
    assert_memory_equal (place, &self->pending, sizeof *place);
    if (place->step > self->common.step)
        self->older = self->common;
    self->common = *place;
    rig_say (self, "common %d; ", (int)place->step);
}

static void
s_restore (void *arg, const tl_place_t *place, const size_t *clients, size_t count, size_t group,
           const char *why)
{
    rig_t *self = arg;
    bool all = group == TL_NOBODY;
    assert_true (strlen (why) > 0);
    assert_int_equal (place->step, self->common.step);
    size_t live = 0;
    for (size_t i = 0; i < self->config.clients; i++)
        live += self->clients[i].live;
    if (all)
        assert_int_equal (count, live);
    rig_say (self, "restore %d", (int)place->step);
    for (size_t i = 0; i < count; i++) {
        self->clients[clients[i]].called = false; //  whatever it was at is void
        rig_order (&self->clients[clients[i]],
                   (rig_order_t){.type = ORDER_RESTORE, .step = place->step, .awaited = true});
        if (!all)
            rig_say (self, " %zu", clients[i]);
    }
    rig_say (self, "; ");
    if (all && self->aggregator.live) {
        self->merges[0].open = self->merges[1].open = false;
        rig_order (&self->aggregator, (rig_order_t){.type = ORDER_RESTORE, .step = place->step});
    }
}

static void
s_back (void *arg, size_t client, uint64_t step)
{
    rig_t *self = arg;
    rig_order (&self->clients[client], (rig_order_t){.type = ORDER_RESTORE, .step = step});
    rig_say (self, "back %zu %d; ", client, (int)step);
}

static void
s_equip (void *arg, const tl_place_t *place, size_t worker)
{
    rig_t *self = arg;
    rig_part_t *part = &self->workers[worker];
    assert_true (part->live);
    assert_int_equal (place->step, self->common.step);
    part->open = false; //  whatever it was at is void
    memset (part->members, 0, sizeof part->members);
    rig_order (part, (rig_order_t){.type = ORDER_EQUIP, .step = place->step});
    rig_say (self, "equip %zu %d; ", worker, (int)place->step);
}

static void
s_finish (void *arg)
{
    rig_t *self = arg;
    assert_false (s_any_open (self));
    assert_int_equal (self->common.step, tl_scheduler_place (self->scheduler).step);
    assert_true (tl_scheduler_server (self->scheduler, 0) != TL_NOBODY);
    for (size_t i = 0; i < self->config.clients; i++)
        if (self->clients[i].live)
            rig_order (&self->clients[i], (rig_order_t){.type = ORDER_FINISH});
    rig_say (self, "finish; ");
}

static void
s_done (void *arg, int code, const char *text)
{
    rig_t *self = arg;
    assert_int_equal (++self->done, 1);
    assert_true (code == 0 || strlen (text) > 0);
    self->code = code;
    snprintf (self->why, sizeof self->why, "%s", text);
    rig_say (self, "done %d; ", code);
}

static void
s_unserved (void *arg, const char *why)
{
    rig_t *self = arg;
    assert_int_equal (self->done, 1);
    assert_true (strlen (why) > 0);
    rig_say (self, "unserved; ");
}

const tl_scheduler_actions_t rig_actions = {.line = s_line,
                                            .arrange = s_arrange,
                                            .plan = s_plan,
                                            .call = s_call,
                                            .recall = s_recall,
                                            .timer = s_timer,
                                            .windowed = s_windowed,
                                            .leave = s_leave,
                                            .give_up = s_give_up,
                                            .abandoned = s_abandoned,
                                            .merge = s_merge,
                                            .gather = s_gather,
                                            .save = s_save,
                                            .common = s_common,
                                            .restore = s_restore,
                                            .back = s_back,
                                            .equip = s_equip,
                                            .finish = s_finish,
                                            .done = s_done,
                                            .unserved = s_unserved};
