/*  joining: join: window. Each client gets its PLAN when it is free, without knowing which step it will be in; it
    is ready when its first rows are here, and takes part in the next step of its group. A step begins when its worker is
    free, somebody is ready, and waiting for the others isn't worth it (window.h). Whoever isn't in it is in the next.

    At some lines parts are asked for what they hold, and a client answers only when what it computes is done. The line would
    wait for it, so the step before the line does: then nobody's rows are thrown away, and everybody has taken part. */

#include "scheduler/scheduler_internal.h"

#include "memory.h"

#include <stdlib.h>

//  The line after the step that is open, or opens next, is one at which parts are merged or saved.
static bool
s_meets (const tl_scheduler_t *self, const tl_group_t *group)
{
    uint64_t round = group->round + 1;
    if (self->group_count == 1 && self->config.save_every &&
        (group->step + 1) % self->config.save_every == 0)
        return true;
    if (self->stopping && round >= self->stop_line)
        return true;
    return round >= self->line && (self->group_count > 1 || round >= self->last_round ||
                                   self->config.share == TL_SHARE_AVERAGE);
}

//  --- PLANs ------------------------------------------------------------------------------------

void
tl_joining_call (tl_scheduler_t *self, const tl_group_t *group, size_t client, uint64_t round)
{
    tl_seat_t *seat = &self->seats[client];
    seat->called = true;
    seat->ready = false;
    seat->named = group->step;
    seat->called_at = self->now;
    self->called++;
    self->actions.call (self->arg, client, seat->named, round);
}

void
tl_joining_forget (tl_scheduler_t *self, tl_seat_t *seat)
{
    self->called -= seat->called;
    seat->called = seat->ready = false;
}

static void
s_recall (tl_scheduler_t *self, size_t client, const char *why)
{
    tl_joining_forget (self, &self->seats[client]);
    self->actions.recall (self->arg, client, self->seats[client].named, why);
}

void
tl_joining_recall (tl_scheduler_t *self, bool strays, const char *why)
{
    for (size_t i = 0; i < self->config.clients && self->called; i++)
        if (self->seats[i].called && (!strays || self->seats[i].group == TL_NOBODY))
            s_recall (self, i, why);
}

//  Those of the group who are free and can be in its next step. One by one, each is called when it is its turn.
void
tl_joining_call_free (tl_scheduler_t *self, const tl_group_t *group)
{
    bool open = group->state == TL_GROUP_STEP;
    uint64_t round = group->round + open;
    bool stops = self->stopping && (self->group_count == 1 || round >= self->stop_line);
    if (stops || round >= self->line || (open && s_meets (self, group)))
        return;
    for (size_t i = 0; i < group->count; i++) {
        size_t client = group->members[i];
        const tl_seat_t *seat = &self->seats[client];
        bool able = tl_group_able (self, client, round);
        if (able && !seat->called)
            tl_joining_call (self, group, client, round);
        else if (!able && seat->called && !seat->member)
            s_recall (self, client, "its rounds are over");
    }
}

//  --- the window -------------------------------------------------------------------------------

static void
s_timer (tl_scheduler_t *self, tl_group_t *group, int64_t us)
{
    if (us || group->timed)
        self->actions.timer (self->arg, (size_t)(group - self->groups), us);
    group->timed = us > 0;
}

void
tl_joining_close (tl_scheduler_t *self, tl_group_t *group)
{
    s_timer (self, group, 0);
    group->standing = false;
}

//  The worker is free and somebody is ready: how it is judged to wait for the late ones.
static tl_window_t
s_judge (tl_scheduler_t *self, tl_group_t *group, const tl_window_late_t *late, size_t count)
{
    if (!group->standing) {
        group->standing = true;
        group->stood_from = self->now;
        group->late_then = count;
    }
    const tl_window_scene_t scene = {.worker = group->worker,
                                     .micros = self->config.micros,
                                     .late = late,
                                     .count = count,
                                     .late_then =
                                         group->late_then > count ? group->late_then : count,
                                     .since_us = self->now - group->stood_from,
                                     .limit_us = self->config.window_us};
    return tl_window_judge (self->config.costs, &scene);
}

size_t
tl_joining_pick (tl_scheduler_t *self, tl_group_t *group, bool *on_the_way)
{
    tl_window_late_t *late = tl_alloc ((group->count + 1) * sizeof *late);
    size_t count = 0, missing = 0;
    for (size_t i = 0; i < group->count; i++) {
        size_t client = group->members[i];
        const tl_seat_t *seat = &self->seats[client];
        if (!seat->called || !tl_group_able (self, client, group->round))
            continue;
        if (seat->ready)
            self->scratch[count++] = client;
        else
            late[missing++] = (tl_window_late_t){client, self->now - seat->called_at};
    }
    tl_window_step_t began = {.members = count, .late = missing};
    *on_the_way = count + missing > 0;
    if (count && missing && s_meets (self, group))
        count = 0;
    else if (count)
        began.judged = s_judge (self, group, late, missing);
    free (late);
    if (!count) {
        tl_joining_close (self, group);
        return 0;
    }
    if (missing && began.judged.wait_us) {
        group->wait_for = began.judged.wait_for;
        s_timer (self, group, began.judged.wait_us);
        return 0;
    }
    began.waited_us = self->now - group->stood_from;
    tl_joining_close (self, group);
    if (missing || began.waited_us) {
        const tl_step_t step = {(size_t)(group - self->groups), group->worker, group->step,
                                group->round};
        self->actions.windowed (self->arg, &step, &began);
    }
    return count;
}

//  --- events -----------------------------------------------------------------------------------

void
tl_scheduler_now (tl_scheduler_t *self, int64_t us)
{
    self->now = us > self->now ? us : self->now;
}

static void
s_go_on (tl_scheduler_t *self, size_t group)
{
    if (self->phase != TL_PHASE_PERIOD || group >= self->group_count)
        return;
    tl_group_go (self, &self->groups[group]);
    tl_run_go (self);
}

void
tl_scheduler_ready (tl_scheduler_t *self, size_t client)
{
    tl_seat_t *seat = &self->seats[client];
    if (!seat->called || seat->ready)
        return;
    seat->ready = true;
    tl_group_t *group = seat->group == TL_NOBODY ? NULL : &self->groups[seat->group];
    if (!group || group->state != TL_GROUP_READY)
        return;
    //  Every client of a step says this: it is judged anew only when those who were waited for are here.
    if (!group->timed || --group->wait_for == 0)
        s_go_on (self, seat->group);
}

void
tl_scheduler_time_up (tl_scheduler_t *self, size_t group)
{
    if (group >= self->group_count || !self->groups[group].timed)
        return;
    self->groups[group].timed = false;
    s_go_on (self, group);
}
