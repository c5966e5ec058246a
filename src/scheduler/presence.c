//  presence: who comes and goes, clients, workers and the aggregator, and what that means for what is under way.

#include "scheduler/scheduler_internal.h"

//  --- clients ----------------------------------------------------------------------------------

//  The group that it takes part in from now on, or NULL.
static tl_group_t *
s_seat_in_group (tl_scheduler_t *self, size_t client)
{
    tl_seat_t *seat = &self->seats[client];
    if (seat->stale || !self->group_count)
        return NULL;
    if (self->group_count == 1)
        tl_group_add (self, &self->groups[0], client);
    if (seat->group == TL_NOBODY)
        return NULL;
    tl_group_t *group = &self->groups[seat->group];
    group->live++;
    return group;
}

void
tl_scheduler_join (tl_scheduler_t *self, size_t client)
{
    tl_seat_t *seat = &self->seats[client];
    if (seat->live)
        return;
    seat->live = true;
    self->live++;
    self->due -= seat->expected;
    //  A run that goes on calls back whoever is there when it does.
    if (seat->behind && !self->resumed) {
        self->actions.back (self->arg, client, seat->back_to);
        seat->behind = false;
        seat->told = true;
    }
    self->undisturbed = false;
    if (self->used && self->started && self->config.share != TL_SHARE_NOTHING) {
        seat->stale = true;
        self->stale++;
    }
    tl_group_t *group = s_seat_in_group (self, client);
    if (group && self->phase == TL_PHASE_PERIOD)
        tl_group_go (self, group);
    else if (seat->stale && self->phase == TL_PHASE_PERIOD && self->group_count == 1)
        tl_group_go (self, &self->groups[0]);
    tl_run_go (self);
}

//  It went back, or took what was merged. An answer to an older order is as good: what it is sent next comes after the
//  newer one.
static void
s_answered (tl_scheduler_t *self, size_t client)
{
    tl_seat_t *seat = &self->seats[client];
    bool sent = !self->merges[TL_MERGE_CLIENTS].awaited;
    if (seat->restoring) {
        seat->restoring = false;
        if (self->phase != TL_PHASE_PERIOD) {
            self->restoring -= self->restoring > 0;
            return;
        }
        tl_group_t *group = &self->groups[self->group_count == 1 ? 0 : seat->group];
        group->awaits--;
        tl_group_answered (self, group);
    } else if (seat->taking && (sent || !seat->live)) {
        seat->taking = false;
        self->taking--;
        self->stale -= seat->stale;
        seat->stale = false;
    }
}

void
tl_scheduler_left (tl_scheduler_t *self, size_t client)
{
    tl_seat_t *seat = &self->seats[client];
    if (!seat->live)
        return;
    seat->live = false;
    self->live--;
    self->givers -= seat->giving;
    seat->giving = false;
    tl_joining_forget (self, seat);
    self->due += seat->expected;
    self->undisturbed = false;
    //  What it was told it may never have heard: it is told again when it comes.
    seat->behind |= seat->told;
    seat->told = false;
    self->stale -= seat->stale;
    seat->stale = false;
    s_answered (self, client);
    self->saving -= seat->saving;
    self->finishing -= seat->finishing;
    seat->saving = seat->finishing = false;
    if (seat->group != TL_NOBODY) {
        tl_group_t *group = &self->groups[seat->group];
        group->live--;
        tl_step_t step = {seat->group, group->worker, group->step, group->round};
        if (seat->member && self->phase == TL_PHASE_PERIOD)
            self->actions.leave (self->arg, &step, client);
        seat->member = false;
        if (self->phase == TL_PHASE_PERIOD)
            tl_group_go (self, group);
    }
    tl_run_go (self);
}

//  False: whoever couldn't go back, or behind the last step couldn't keep what all came to, ended the run.
static bool
s_can_go_back (tl_scheduler_t *self, uint64_t code, const char *why)
{
    if (!code || self->phase == TL_PHASE_DONE)
        return !code;
    tl_run_fail (self,
                 tl_run_complete (self) ? "step %llu could not be kept: %s"
                                        : "going back to step %llu failed: %s",
                 (unsigned long long)self->common.step, why);
    self->code = code <= TL_INTERNAL ? (int)code : TL_FAILED;
    tl_run_done (self);
    return false;
}

void
tl_scheduler_client_restored (tl_scheduler_t *self, size_t client, uint64_t step, uint64_t code,
                              const char *why)
{
    tl_seat_t *seat = &self->seats[client];
    seat->told &= code != 0;
    if (!code && seat->restoring && seat->unknown) {
        seat->in_common = step == self->common.step;
        seat->unknown = false;
        if (!self->resumed)
            tl_run_check_common (self, seat);
    }
    if ((!seat->restoring && !seat->taking) || !s_can_go_back (self, code, why))
        return;
    s_answered (self, client);
    tl_run_go (self);
}

//  --- workers ----------------------------------------------------------------------------------

void
tl_scheduler_worker_join (tl_scheduler_t *self, size_t worker)
{
    tl_post_t *post = &self->posts[worker];
    if (post->live)
        return;
    //  Who comes before the first step is at the start; of others nothing is known.
    *post = (tl_post_t){.live = true, .known = !self->used, .group = TL_NOBODY};
    self->live_workers++;
    if (self->phase == TL_PHASE_DONE && self->used)
        tl_run_equip (self, worker);
    tl_run_go (self);
}

//  The one worker that has the trunk is gone, and nobody else has what it came to since the last common save.
static void
s_lose_trunk (tl_scheduler_t *self)
{
    if (self->phase == TL_PHASE_SAVING)
        tl_saving_lose (self);
    tl_merging_lose (self);
    self->decided = NULL;
    tl_run_phase (self, TL_PHASE_PERIOD, "the worker left");
    tl_group_lose (self, &self->groups[0], tl_worker_lost);
}

static void
s_lose_worker (tl_scheduler_t *self, size_t index)
{
    bool one = self->group_count == 1;
    tl_group_t *group = index == TL_NOBODY ? NULL : &self->groups[index];
    switch (self->phase) {
    case TL_PHASE_PERIOD:
        if (group && group->state != TL_GROUP_GATHERED)
            tl_group_lose (self, group, tl_worker_lost);
        break;
    case TL_PHASE_MERGING:
        if (one && group)
            s_lose_trunk (self);
        else if (group && !self->trunk_merged && group->state != TL_GROUP_GATHERED) {
            tl_group_lose (self, group, tl_worker_lost);
            tl_merging_withdraw (self);
        }
        break;
    case TL_PHASE_SAVING:
        if (one && group)
            s_lose_trunk (self);
        break;
    case TL_PHASE_BETWEEN:
        if (one && group && self->common.step != self->place.step)
            s_lose_trunk (self);
        break;
    case TL_PHASE_FINISHING:
        tl_finish_lose (self);
        break;
    case TL_PHASE_DONE:
        break;
    }
}

void
tl_scheduler_worker_left (tl_scheduler_t *self, size_t worker)
{
    tl_post_t *post = &self->posts[worker];
    if (!post->live)
        return;
    size_t index = post->group;
    *post = (tl_post_t){.group = TL_NOBODY};
    self->live_workers--;
    s_lose_worker (self, index);
    if (index != TL_NOBODY && self->groups[index].worker == worker)
        self->groups[index].worker = TL_NOBODY;
    if (self->stopping && self->orphans && self->phase == TL_PHASE_PERIOD) {
        int code = self->code;
        tl_run_fail (self,
                     "the worker was lost while stopping; the last common save is of step %llu",
                     (unsigned long long)self->common.step);
        self->code = code ? code : self->code;
        tl_run_done (self);
    }
    tl_run_go (self);
}

void
tl_scheduler_restored (tl_scheduler_t *self, size_t worker, uint64_t code, const char *why)
{
    tl_post_t *post = &self->posts[worker];
    if (!post->equipping)
        return;
    post->equipping = false;
    if (self->phase == TL_PHASE_DONE && code)
        self->actions.unserved (self->arg, why);
    if (!s_can_go_back (self, code, why))
        return;
    post->known = true;
    post->at = self->common.step;
    if (post->group != TL_NOBODY && self->phase == TL_PHASE_PERIOD)
        tl_group_answered (self, &self->groups[post->group]);
    tl_run_go (self);
}

//  --- the aggregator ---------------------------------------------------------------------------

void
tl_scheduler_aggregator_join (tl_scheduler_t *self)
{
    self->aggregator = true;
    for (size_t i = 0; i < self->group_count && self->phase == TL_PHASE_PERIOD; i++)
        tl_group_go (self, &self->groups[i]);
    tl_run_go (self);
}

void
tl_scheduler_aggregator_left (tl_scheduler_t *self)
{
    if (!self->aggregator)
        return;
    self->aggregator = self->aggregator_saving = self->aggregator_back = false;
    if (self->merged && self->config.remembers && self->phase != TL_PHASE_DONE)
        tl_merging_undo (self);
    else
        tl_merging_void (self);
    //  A step whose gradients are summed can't go on without; it is tried again when one is here.
    for (size_t i = 0; i < self->group_count && self->config.share == TL_SHARE_GRADIENT; i++) {
        tl_group_t *group = &self->groups[i];
        tl_step_t step = {i, group->worker, group->step, group->round};
        if (self->phase != TL_PHASE_PERIOD || group->state != TL_GROUP_STEP)
            continue;
        group->given_up = true;
        self->actions.give_up (self->arg, &step, "the aggregator was lost");
    }
    tl_run_go (self);
}

void
tl_scheduler_aggregator_restored (tl_scheduler_t *self, uint64_t code, const char *why)
{
    self->aggregator_back = false;
    if (s_can_go_back (self, code, why))
        tl_run_go (self);
}
