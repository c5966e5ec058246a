//  group: the steps of one group, one at a time; and its way back when its worker is lost.

#include "scheduler/scheduler_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

enum {
    MOST_FUTILE = 3
}; //  times in a row that a step may come to nothing though everybody is there

static tl_step_t
s_step (const tl_scheduler_t *self, const tl_group_t *group)
{
    return (tl_step_t){(size_t)(group - self->groups), group->last, group->step, group->round};
}

bool
tl_group_able (const tl_scheduler_t *self, size_t client, uint64_t round)
{
    const tl_seat_t *seat = &self->seats[client];
    return seat->live && !seat->stale &&
           (!self->config.limits || round < self->config.limits[client]);
}

//  --- steps ------------------------------------------------------------------------------------

static void
s_to_line (tl_scheduler_t *self, tl_group_t *group)
{
    tl_joining_close (self, group);
    group->state = TL_GROUP_LINE;
    self->at_line++;
}

static bool
s_reached (const tl_scheduler_t *self, const tl_group_t *group)
{
    if (group->round >= self->line || group->save_due)
        return true;
    if (self->stopping)
        return self->hurried || self->group_count == 1 || group->round >= self->stop_line;
    //  Whoever came back can't take part before it has the adapter that all others have.
    return self->config.share == TL_SHARE_GRADIENT && self->stale && group->turn == 0;
}

//  Probing alternates from round to round.
static bool
s_one_by_one (const tl_scheduler_t *self, const tl_group_t *group)
{
    return self->inside == TL_INSIDE_SERIAL ||
           (self->inside == TL_INSIDE_ALTERNATE && (group->round - self->place.begin) % 2);
}

//  Who takes part in the next step: how many, listed in scratch.
static size_t
s_pick (tl_scheduler_t *self, const tl_group_t *group, bool one)
{
    size_t count = 0;
    for (size_t i = 0; i < group->count && !(one && count); i++)
        if (group->members[i] >= group->turn &&
            tl_group_able (self, group->members[i], group->round))
            self->scratch[count++] = group->members[i];
    return count;
}

static void
s_open (tl_scheduler_t *self, tl_group_t *group, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        tl_seat_t *seat = &self->seats[self->scratch[i]];
        if (!self->config.costs)
            seat->named = group->step;
        else if (!seat->called)
            tl_joining_call (self, group, self->scratch[i], group->round);
        seat->member = true;
    }
    if (s_one_by_one (self, group))
        group->turn = self->scratch[0];
    group->state = TL_GROUP_STEP;
    group->fresh = false;
    self->used = true;
    tl_step_t step = s_step (self, group);
    self->actions.plan (self->arg, &step, self->scratch, count);
}

//  The same of the step that may open now. on_the_way: if nobody does yet, somebody will.
static size_t
s_pick_now (tl_scheduler_t *self, tl_group_t *group, bool one, bool *on_the_way)
{
    *on_the_way = false;
    if (!self->config.costs || one)
        return s_pick (self, group, one);
    tl_joining_call_free (self, group);
    return tl_joining_pick (self, group, on_the_way);
}

void
tl_group_go (tl_scheduler_t *self, tl_group_t *group)
{
    //  Sums of gradients are made step by step.
    bool can = self->config.share != TL_SHARE_GRADIENT || self->aggregator, on_the_way;
    while (group->state == TL_GROUP_READY && self->phase == TL_PHASE_PERIOD) {
        bool one = s_one_by_one (self, group);
        size_t count = 0;
        if (s_reached (self, group))
            s_to_line (self, group);
        else if (!can)
            return;
        else if ((count = s_pick_now (self, group, one, &on_the_way)) > 0)
            s_open (self, group, count);
        else if (on_the_way)
            return;
        else if (one && group->turn > 0) {
            group->turn = 0; //  nobody is left in this round
            group->round++;
        } else if (self->group_count > 1 || self->stale)
            s_to_line (self, group); //  the others go on, or whoever came back needs what they have
        else
            return; //  until somebody comes
    }
    if (self->config.costs && group->state == TL_GROUP_STEP && !s_one_by_one (self, group))
        tl_joining_call_free (self, group);
}

//  Members that are still in the open step, listed in scratch; and no longer in it.
static size_t
s_dissolve (tl_scheduler_t *self, const tl_group_t *group)
{
    size_t count = 0;
    for (size_t i = 0; i < group->count; i++) {
        tl_seat_t *seat = &self->seats[group->members[i]];
        if (!seat->member)
            continue;
        seat->member = false;
        tl_joining_forget (self, seat);
        self->scratch[count++] = group->members[i];
    }
    return count;
}

//  The open step changed nothing. Whoever left took its part with it and the next try is another one; but if everybody
//  is there, it would be the same for ever.
static void
s_came_to_nothing (tl_scheduler_t *self, tl_group_t *group, size_t members)
{
    tl_step_t step = s_step (self, group);
    self->undisturbed = false;
    self->actions.abandoned (self->arg, &step, self->scratch, members,
                             "nothing of it was committed");
    if (!members || self->stopping || group->given_up || ++group->futile < MOST_FUTILE)
        return;
    tl_run_fail (self,
                 "step %llu came to nothing %d times in a row: no client had a token to learn "
                 "from, or gradients were no finite numbers; look at the worker's log, the data "
                 "and train.lr",
                 (unsigned long long)step.step + 1, MOST_FUTILE);
}

//  The place after a step that was committed.
static void
s_step_on (tl_scheduler_t *self, tl_group_t *group)
{
    group->step++;
    group->futile = 0;
    if (s_one_by_one (self, group) && group->turn + 1 < self->config.clients)
        group->turn++;
    else {
        group->turn = 0;
        group->round++;
    }
    self->posts[group->worker].at = group->step;
    group->save_due = self->group_count == 1 && self->config.save_every &&
                      group->step % self->config.save_every == 0 &&
                      group->round < self->last_round && !self->stopping;
}

void
tl_scheduler_closed (tl_scheduler_t *self, size_t worker, uint64_t step, uint64_t labels)
{
    if (!tl_scheduler_steps (self, worker, step))
        return;
    tl_group_t *group = &self->groups[self->posts[worker].group];
    size_t members = s_dissolve (self, group);
    group->state = TL_GROUP_READY;
    if (labels)
        s_step_on (self, group);
    else
        s_came_to_nothing (self, group, members);
    group->given_up = false;
    tl_group_go (self, group);
    tl_run_go (self);
}

//  --- the way back -----------------------------------------------------------------------------

void
tl_group_add (tl_scheduler_t *self, tl_group_t *group, size_t client)
{
    size_t at = group->count;
    while (at > 0 && group->members[at - 1] >= client)
        at--;
    if (at == group->count || group->members[at] != client) {
        memmove (group->members + at + 1, group->members + at,
                 (group->count - at) * sizeof *group->members);
        group->members[at] = client;
        group->count++;
    }
    self->seats[client].group = (size_t)(group - self->groups);
}

void
tl_group_lose (tl_scheduler_t *self, tl_group_t *group, const char *why)
{
    if (group->state == TL_GROUP_STEP) {
        tl_step_t step = s_step (self, group);
        size_t count = s_dissolve (self, group);
        self->actions.abandoned (self->arg, &step, self->scratch, count, why);
    }
    tl_joining_close (self, group);
    bool all = self->group_count == 1;
    for (size_t i = 0; i < (all ? self->config.clients : group->count) && group->awaits; i++) {
        tl_seat_t *seat = &self->seats[all ? i : group->members[i]];
        group->awaits -= seat->restoring;
        seat->restoring = false;
    }
    if (group->state >= TL_GROUP_LINE)
        self->at_line--;
    group->worker = TL_NOBODY;
    group->state = TL_GROUP_ORPHAN;
    group->why = why;
    self->orphans++;
    self->undisturbed = false;
}

static void
s_appoint (tl_scheduler_t *self, tl_group_t *group, size_t worker)
{
    tl_post_t *post = &self->posts[worker];
    if (post->group != TL_NOBODY)
        self->groups[post->group].worker = TL_NOBODY; //  it has what it needed of it
    post->group = (size_t)(group - self->groups);
    group->worker = group->last = worker;
}

void
tl_group_serve (tl_scheduler_t *self, tl_group_t *group, size_t worker)
{
    const tl_post_t *post = &self->posts[worker];
    s_appoint (self, group, worker);
    group->state = TL_GROUP_READY;
    bool has = !post->equipping && post->known && post->at == self->place.step;
    if (!has || group->awaits)
        group->state = TL_GROUP_BACK;
    if (!has)
        tl_run_equip (self, worker);
    tl_group_go (self, group);
}

//  Who was here goes back now, who wasn't will when it comes.
static size_t
s_members_back (tl_scheduler_t *self, tl_group_t *group)
{
    size_t count = 0;
    bool all = self->group_count == 1;
    for (size_t i = 0; i < (all ? self->config.clients : group->count); i++) {
        size_t client = all ? i : group->members[i];
        tl_seat_t *seat = &self->seats[client];
        seat->restoring = seat->live;
        if (seat->restoring) {
            tl_joining_forget (self, seat);
            tl_run_told (self, seat);
            tl_run_check_common (self, seat);
            self->scratch[count++] = client;
            continue;
        }
        if (!seat->behind)
            seat->back_to = self->common.step;
        seat->behind = true;
    }
    return count;
}

//  One group goes back to wherever the common save was made, if need be into an earlier period.
static void
s_rewind (tl_scheduler_t *self, tl_group_t *group)
{
    group->step = self->common.step;
    group->round = self->common.round;
    group->turn = self->common.turn;
    group->futile = 0;
    group->save_due = group->given_up = false;
    group->fresh = true;
    if (self->group_count > 1)
        return;
    self->place = self->gathering = self->common;
    if (self->common.round > self->common.begin || self->common.turn > 0)
        self->inside = self->common.inside;
    self->place.inside = self->inside;
    self->line = self->common.begin + self->config.every;
    if (self->line > self->last_round)
        self->line = self->last_round;
}

//  Whoever was given at the lost line what it had missed takes part now.
static void
s_take_in (tl_scheduler_t *self, tl_group_t *group)
{
    for (size_t i = 0; i < self->config.clients && self->group_count == 1; i++) {
        const tl_seat_t *seat = &self->seats[i];
        if (!seat->live || seat->stale || seat->group != TL_NOBODY)
            continue;
        tl_group_add (self, group, i);
        group->live++;
    }
}

static void
s_adopt (tl_scheduler_t *self, tl_group_t *group, size_t worker)
{
    bool fresh = group->fresh && group->step == self->common.step;
    s_rewind (self, group);
    s_appoint (self, group, worker);
    self->orphans--;
    group->state = TL_GROUP_BACK;
    if (!fresh) {
        group->awaits = s_members_back (self, group);
        self->actions.restore (self->arg, &self->common, self->scratch, group->awaits,
                               self->group_count == 1 ? TL_NOBODY : (size_t)(group - self->groups),
                               group->why);
    }
    s_take_in (self, group);
    tl_run_equip (self, worker);
}

//  A worker that is free: its old one, one that is spare, or one that is done with its own group, whose replica would be gone.
static size_t
s_free (const tl_scheduler_t *self, const tl_group_t *group)
{
    size_t found = TL_NOBODY;
    int rank = 0;
    for (size_t i = 0; i < self->config.workers; i++) {
        const tl_post_t *post = &self->posts[i];
        bool spare = post->group == TL_NOBODY;
        bool done = !spare && self->groups[post->group].state == TL_GROUP_GATHERED;
        int its = !post->live || !(spare || done) ? 0 : i == group->last ? 3 : spare ? 2 : 1;
        if (its > rank) {
            rank = its;
            found = i;
        }
    }
    return found;
}

void
tl_groups_adopt (tl_scheduler_t *self)
{
    for (size_t i = 0; i < self->group_count && self->orphans; i++) {
        tl_group_t *group = &self->groups[i];
        if (group->state != TL_GROUP_ORPHAN)
            continue;
        size_t worker = s_free (self, group);
        if (worker == TL_NOBODY)
            return;
        s_adopt (self, group, worker);
    }
}

void
tl_group_answered (tl_scheduler_t *self, tl_group_t *group)
{
    if (self->phase != TL_PHASE_PERIOD || group->state != TL_GROUP_BACK || group->awaits ||
        self->posts[group->worker].equipping)
        return;
    group->state = TL_GROUP_READY;
    tl_group_go (self, group);
}
