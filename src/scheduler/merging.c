/*  merging: at the line what several hold is made one: the replicas of the groups' workers, gathered as each
    group gets there, and the adapters of the clients. The aggregator does it; here stands only who is asked
    when, and what is lost when somebody goes.                                                           */

#include "scheduler/scheduler_internal.h"

#include <stdio.h>

static const char *const s_what[] = {"the workers' replicas", "the clients' adapters"};

//  --- replicas ---------------------------------------------------------------------------------

//  Names those that hold the groups now.
static void
s_say_trunk (tl_scheduler_t *self, bool urgent)
{
    self->merges[TL_MERGE_TRUNK].open = true;
    for (size_t i = 0; i < self->group_count; i++)
        self->crew[i] = self->groups[i].named = self->groups[i].last;
    self->actions.merge (self->arg, TL_MERGE_TRUNK, &self->gathering, self->crew, self->group_count,
                         urgent);
}

void
tl_merging_gather (tl_scheduler_t *self)
{
    if (self->group_count < 2 || !self->at_line || !self->aggregator || self->trunk_merged)
        return;
    for (size_t i = 0; i < self->group_count; i++) {
        tl_group_t *group = &self->groups[i];
        if (group->state != TL_GROUP_LINE)
            continue;
        if (!self->merges[TL_MERGE_TRUNK].open || group->named != group->last)
            s_say_trunk (self, self->phase == TL_PHASE_MERGING);
        group->state = TL_GROUP_GATHERING;
        self->actions.gather (self->arg, TL_MERGE_TRUNK, &self->gathering, group->worker, i);
    }
}

void
tl_scheduler_gathered (tl_scheduler_t *self, tl_merge_t kind, size_t who, uint64_t step)
{
    if (kind != TL_MERGE_TRUNK || step != self->gathering.step)
        return;
    size_t index = self->posts[who].group;
    if (index == TL_NOBODY || self->groups[index].state != TL_GROUP_GATHERING)
        return;
    self->groups[index].state = TL_GROUP_GATHERED;
    tl_run_go (self);
}

//  Parts that were gathered are gone. A group whose worker still has its replica hands it in again; one whose
//  worker went on has to repeat the period.
static void
s_void_trunk (tl_scheduler_t *self)
{
    self->merges[TL_MERGE_TRUNK].open = false;
    for (size_t i = 0; i < self->group_count; i++) {
        tl_group_t *group = &self->groups[i];
        if (group->state == TL_GROUP_GATHERED && group->worker == TL_NOBODY)
            tl_group_lose (self, group, "the aggregator was lost");
        else if (group->state == TL_GROUP_GATHERED || group->state == TL_GROUP_GATHERING)
            group->state = TL_GROUP_LINE;
    }
}

//  --- adapters ---------------------------------------------------------------------------------

//  Averaged: of all that took part. Summed gradients: they are equal already, one is enough for who came back.
static void
s_open_clients (tl_scheduler_t *self)
{
    bool any = self->live == self->stale; //  nobody who didn't miss something: theirs must do
    bool one = self->config.share == TL_SHARE_GRADIENT;
    size_t count = 0;
    self->merges[TL_MERGE_CLIENTS].open = true;
    for (size_t i = 0; i < self->config.clients; i++) {
        tl_seat_t *seat = &self->seats[i];
        if (!seat->live)
            continue;
        seat->taking = true;
        self->taking++;
        seat->giving = (any || !seat->stale) && !(one && count);
        if (seat->giving)
            self->scratch[count++] = i;
    }
    self->givers = count;
    self->actions.merge (self->arg, TL_MERGE_CLIENTS, &self->gathering, self->scratch, count, true);
    for (size_t i = 0; i < count; i++)
        self->actions.gather (self->arg, TL_MERGE_CLIENTS, &self->gathering, self->scratch[i], i);
}

static void
s_void_clients (tl_scheduler_t *self)
{
    self->merges[TL_MERGE_CLIENTS].open = false;
    for (size_t i = 0; i < self->config.clients && self->taking; i++) {
        self->taking -= self->seats[i].taking;
        self->seats[i].taking = false;
    }
}

//  --- both -------------------------------------------------------------------------------------

void
tl_merging_begin (tl_scheduler_t *self)
{
    tl_share_mode_t share = self->config.share;
    self->merges[TL_MERGE_TRUNK].awaited = self->group_count > 1 && !self->trunk_merged;
    self->merges[TL_MERGE_CLIENTS].awaited =
        self->live && self->used &&
        (share == TL_SHARE_AVERAGE || (share == TL_SHARE_GRADIENT && self->stale));
    tl_run_phase (self, TL_PHASE_MERGING, "all stand at the line");
    if (self->merges[TL_MERGE_CLIENTS].awaited)
        tl_joining_recall (self, false, "adapters are averaged first");
    if (self->aggregator && self->merges[TL_MERGE_TRUNK].awaited)
        s_say_trunk (self, true);
}

void
tl_merging_go (tl_scheduler_t *self)
{
    const bool trunk = self->merges[TL_MERGE_TRUNK].awaited;
    if (!self->live && !self->merges[TL_MERGE_CLIENTS].open)
        self->merges[TL_MERGE_CLIENTS].awaited = false; //  nobody is left to have it
    if (!trunk && !self->merges[TL_MERGE_CLIENTS].awaited && !self->taking) {
        tl_period_go_on (self);
        return;
    }
    if (!self->aggregator)
        return;
    if (trunk && !self->merges[TL_MERGE_TRUNK].open)
        s_say_trunk (self, true);
    tl_merging_gather (self);
    //  One after the other: until the trunk is one again a group may have to repeat, clients and all.
    if (!trunk && self->merges[TL_MERGE_CLIENTS].awaited && !self->merges[TL_MERGE_CLIENTS].open)
        s_open_clients (self);
}

void
tl_merging_lose (tl_scheduler_t *self)
{
    //  Who took the result goes back, too, even if its group made no step that is lost.
    bool given = self->merged || self->merges[TL_MERGE_CLIENTS].open || self->taking;
    for (size_t i = 0; i < self->group_count && given; i++)
        self->groups[i].fresh = false;
    s_void_clients (self);
    self->merges[TL_MERGE_CLIENTS].awaited = self->merged = false;
}

void
tl_merging_withdraw (tl_scheduler_t *self)
{
    self->merges[TL_MERGE_TRUNK].awaited = false;
    if (self->merges[TL_MERGE_CLIENTS].open)
        s_void_clients (self);
    self->merges[TL_MERGE_CLIENTS].awaited = false;
    self->place = self->gathering; //  the period isn't over
    tl_run_phase (self, TL_PHASE_PERIOD, "a group must repeat");
    if (self->merges[TL_MERGE_TRUNK].open)
        s_say_trunk (self, false);
}

void
tl_merging_void (tl_scheduler_t *self)
{
    if (self->merges[TL_MERGE_TRUNK].open)
        s_void_trunk (self);
    if (self->merges[TL_MERGE_CLIENTS].open && self->merges[TL_MERGE_CLIENTS].awaited)
        s_void_clients (self);
    if (self->phase == TL_PHASE_MERGING && self->orphans)
        tl_merging_withdraw (self);
}

void
tl_merging_undo (tl_scheduler_t *self)
{
    if (self->stopping) {
        self->place = self->common; //  what is common counts
        tl_run_done (self);
        return;
    }
    if (self->phase == TL_PHASE_SAVING)
        tl_saving_lose (self);
    tl_merging_lose (self);
    self->merges[TL_MERGE_TRUNK].open = self->merges[TL_MERGE_TRUNK].awaited = false;
    self->merges[TL_MERGE_CLIENTS].open = self->trunk_merged = false;
    self->decided = NULL;
    self->place = self->gathering;
    tl_run_phase (self, TL_PHASE_PERIOD, "the aggregator left");
    for (size_t i = 0; i < self->config.workers; i++)
        self->posts[i].group = TL_NOBODY;
    //  Those of no group got what was merged, too; with one group all go back with it.
    for (size_t i = 0; i < self->config.clients && self->group_count > 1; i++) {
        tl_seat_t *seat = &self->seats[i];
        if (!seat->live || seat->group != TL_NOBODY)
            continue;
        tl_run_told (self, seat);
        tl_run_check_common (self, seat);
        self->actions.back (self->arg, i, self->common.step);
    }
    for (size_t i = 0; i < self->group_count; i++)
        tl_group_lose (self, &self->groups[i],
                       "the aggregator was lost before what it knows of the last merge was saved");
}

void
tl_scheduler_merged (tl_scheduler_t *self, tl_merge_t kind, uint64_t step, bool good,
                     const char *why)
{
    if (!tl_scheduler_merging (self, kind, step))
        return;
    if (!good && kind == TL_MERGE_CLIENTS && !self->givers) {
        //  Whoever was asked has left: it is for who is here, or comes.
        s_void_clients (self);
        tl_run_go (self);
        return;
    }
    if (!good) {
        tl_run_fail (self, "%s of step %llu could not be made one: %s", s_what[kind],
                     (unsigned long long)self->place.step, why);
        tl_run_done (self);
        return;
    }
    if (!self->merges[kind].awaited) {
        //  It was on its way while a group's worker was lost: that group's part isn't in it.
        tl_merging_void (self);
    } else {
        self->merges[kind].awaited = self->merges[kind].open = false;
        self->merged = true;
        self->trunk_merged |= kind == TL_MERGE_TRUNK;
        for (size_t i = 0; i < self->config.workers && kind == TL_MERGE_TRUNK; i++)
            self->posts[i].known = false;
    }
    tl_run_go (self);
}
