#include "scheduler.h"

#include "base/assert.h"
#include "error.h"
#include "log.h"
#include "memory.h"
#include "scheduler/scheduler_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const s_phases[] = {"between", "period",    "merging",
                                       "saving",  "finishing", "done"};
static const char *const s_states[] = {"waiting",   "training",  "merging", "saving",
                                       "restoring", "finishing", "done"};

//  --- life -------------------------------------------------------------------------------------

tl_scheduler_t *
tl_scheduler_new (const tl_scheduler_config_t *config, const tl_scheduler_actions_t *actions,
                  void *arg)
{
    tl_assert (config->clients > 0 && config->clients <= TL_SCHEDULER_CLIENTS);
    tl_assert (config->workers > 0 && config->workers <= TL_SCHEDULER_WORKERS);
    tl_assert (config->every > 0);
    tl_assert (!config->costs || (config->share != TL_SHARE_GRADIENT && config->micros > 0));
    tl_scheduler_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    self->actions = *actions;
    self->arg = arg;
    self->seats = tl_alloc (config->clients * sizeof *self->seats);
    self->posts = tl_alloc (config->workers * sizeof *self->posts);
    self->groups = tl_alloc (config->workers * sizeof *self->groups);
    self->order = tl_alloc (config->clients * sizeof *self->order);
    self->scratch = tl_alloc (config->clients * sizeof *self->scratch);
    self->crew = tl_alloc (config->workers * sizeof *self->crew);
    self->last_round = config->rounds;
    if (config->limits) {
        uint64_t *limits = tl_alloc (config->clients * sizeof *limits), most = 0;
        for (size_t i = 0; i < config->clients; i++) {
            limits[i] = config->limits[i];
            most = limits[i] > most ? limits[i] : most;
        }
        self->config.limits = limits;
        self->last_round = most < config->rounds ? most : config->rounds;
    }
    self->due = config->clients;
    for (size_t i = 0; i < config->clients; i++) {
        self->seats[i].group = TL_NOBODY;
        self->seats[i].expected = self->seats[i].in_common = true;
    }
    for (size_t i = 0; i < config->workers; i++)
        self->posts[i].group = TL_NOBODY;
    return self;
}

void
tl_scheduler_destroy (tl_scheduler_t **self_p)
{
    tl_scheduler_t *self = *self_p;
    if (!self)
        return;
    free ((uint64_t *)self->config.limits);
    free (self->seats);
    free (self->posts);
    free (self->groups);
    free (self->order);
    free (self->scratch);
    free (self->crew);
    free (self);
    *self_p = NULL;
}

void
tl_run_resume (tl_scheduler_t *self, const tl_place_t *place)
{
    self->place = self->common = self->pending = *place;
    self->earlier = false;
    for (size_t i = 0; i < self->config.clients; i++) {
        self->seats[i].behind = true;
        self->seats[i].back_to = place->step;
        self->seats[i].unknown = true;
    }
}

void
tl_scheduler_resume (tl_scheduler_t *self, const tl_place_t *place, const bool *expected,
                     bool ended)
{
    tl_assert (!self->live && !self->live_workers && !self->used);
    self->phase = ended ? TL_PHASE_DONE : TL_PHASE_BETWEEN;
    self->due = 0;
    self->used = self->resumed = true;
    tl_run_resume (self, place);
    for (size_t i = 0; i < self->config.clients; i++) {
        self->seats[i].expected = !expected || expected[i];
        self->due += self->seats[i].expected;
    }
}

bool
tl_scheduler_resuming (const tl_scheduler_t *self)
{
    return self->resumed;
}

void
tl_scheduler_resume_earlier (tl_scheduler_t *self, const tl_place_t *place)
{
    tl_assert (self->resumed && place->step < self->pending.step);
    self->pending = *place;
    self->earlier = true;
}

bool
tl_scheduler_overdue (tl_scheduler_t *self)
{
    //  Before the first common save it may not have begun.
    size_t enough = self->common.step ? 1 : self->config.start;
    if (!self->resumed || !self->config.start || !self->due || self->live < enough)
        return false;
    for (size_t i = 0; i < self->config.clients; i++)
        self->seats[i].expected = false;
    self->due = 0;
    tl_run_go (self);
    return true;
}

const char tl_worker_lost[] = "the worker that held the trunk was lost";

void
tl_run_phase (tl_scheduler_t *self, tl_phase_t phase, const char *event)
{
    if (phase != self->phase)
        tl_debug ("run: %s: %s -> %s", event, s_phases[self->phase], s_phases[phase]);
    self->phase = phase;
}

void
tl_run_go (tl_scheduler_t *self)
{
    tl_phase_t before;
    do {
        before = self->phase;
        switch (self->phase) {
        case TL_PHASE_BETWEEN:
            tl_period_begin (self);
            break;
        case TL_PHASE_PERIOD:
            tl_groups_adopt (self);
            tl_merging_gather (self);
            if (self->at_line == self->group_count)
                tl_period_meet (self);
            break;
        case TL_PHASE_MERGING:
            tl_merging_go (self);
            break;
        case TL_PHASE_SAVING:
            tl_saving_go (self);
            break;
        case TL_PHASE_FINISHING:
            tl_finish_go (self);
            break;
        case TL_PHASE_DONE:
            break;
        }
    } while (self->phase != before);
}

void
tl_run_fail (tl_scheduler_t *self, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    vsnprintf (self->why, sizeof self->why, format, args);
    va_end (args);
    self->stopping = true;
    self->code = TL_FAILED;
}

//  Two orders that are not answered: what it has may be of before the older one.
void
tl_run_told (tl_scheduler_t *self, tl_seat_t *seat)
{
    if (!seat->told || self->common.step < seat->back_to)
        seat->back_to = self->common.step;
    seat->told = true;
}

void
tl_run_check_common (tl_scheduler_t *self, tl_seat_t *seat)
{
    if (seat->in_common || seat->unknown || seat->stale || self->config.share == TL_SHARE_NOTHING)
        return;
    seat->stale = true;
    self->stale++;
}

bool
tl_run_complete (const tl_scheduler_t *self)
{
    return self->place.round >= self->last_round;
}

size_t
tl_run_holder (const tl_scheduler_t *self, uint64_t step)
{
    for (size_t i = 0; i < self->config.workers; i++) {
        const tl_post_t *post = &self->posts[i];
        if (post->live && post->known && !post->equipping && post->at == step)
            return i;
    }
    return TL_NOBODY;
}

void
tl_run_equip (tl_scheduler_t *self, size_t worker)
{
    tl_post_t *post = &self->posts[worker];
    post->equipping = true;
    post->known = false;
    self->actions.equip (self->arg, &self->common, worker);
}

//  --- stopping ---------------------------------------------------------------------------------

//  Each group ends its open step; several go on until they are at the same round.
static void
s_stop_period (tl_scheduler_t *self, const char *why)
{
    for (size_t i = 0; i < self->group_count; i++) {
        tl_group_t *group = &self->groups[i];
        //  What was lost can't be saved again; what is common already counts.
        if (group->state == TL_GROUP_ORPHAN || group->state == TL_GROUP_BACK) {
            tl_run_done (self);
            return;
        }
        bool begun = group->state == TL_GROUP_STEP || group->turn > 0;
        if (group->round + begun > self->stop_line)
            self->stop_line = group->round + begun;
    }
    for (size_t i = 0; i < self->group_count; i++) {
        tl_group_t *group = &self->groups[i];
        tl_step_t step = {i, group->worker, group->step, group->round};
        if (self->hurried && group->state == TL_GROUP_STEP) {
            group->given_up = true;
            self->actions.give_up (self->arg, &step, why);
        }
        tl_group_go (self, group);
    }
    tl_run_go (self);
}

void
tl_scheduler_stop (tl_scheduler_t *self, bool hurry, int code, const char *why)
{
    if (self->phase == TL_PHASE_DONE)
        return;
    if (!self->stopping) {
        self->stopping = true;
        self->code = code;
        snprintf (self->why, sizeof self->why, "%s", why);
    }
    self->hurried |= hurry;
    switch (self->phase) {
    case TL_PHASE_PERIOD:
        s_stop_period (self, why);
        break;
    case TL_PHASE_BETWEEN:
        tl_run_go (self);
        break;
    case TL_PHASE_MERGING:
    case TL_PHASE_SAVING:
        if (hurry) {
            tl_run_fail (self,
                         "step %llu could not be saved in time; the last common save is of step "
                         "%llu",
                         (unsigned long long)self->place.step,
                         (unsigned long long)self->common.step);
            tl_run_done (self);
        }
        break;
    default:
        tl_run_done (self);
    }
}

//  --- questions --------------------------------------------------------------------------------

static tl_run_state_t
s_period_state (const tl_scheduler_t *self)
{
    size_t steps = 0, back = 0;
    for (size_t i = 0; i < self->group_count; i++) {
        steps += self->groups[i].state == TL_GROUP_STEP;
        back += self->groups[i].state == TL_GROUP_BACK;
    }
    bool merging = self->at_line && self->aggregator;
    return steps     ? TL_RUN_STEP
           : back    ? TL_RUN_RESTORING
           : merging ? TL_RUN_MERGING
                     : TL_RUN_WAITING;
}

tl_run_state_t
tl_scheduler_state (const tl_scheduler_t *self)
{
    switch (self->phase) {
    case TL_PHASE_PERIOD:
        return s_period_state (self);
    case TL_PHASE_MERGING:
        return self->aggregator || self->taking ? TL_RUN_MERGING : TL_RUN_WAITING;
    case TL_PHASE_SAVING:
        return TL_RUN_SAVING;
    case TL_PHASE_FINISHING:
        return self->asked          ? TL_RUN_FINISHING
               : self->live_workers ? TL_RUN_RESTORING
                                    : TL_RUN_WAITING;
    case TL_PHASE_DONE:
        return TL_RUN_DONE;
    default:
        return self->restoring ? TL_RUN_RESTORING : TL_RUN_WAITING;
    }
}

const char *
tl_scheduler_state_name (const tl_scheduler_t *self)
{
    return s_states[tl_scheduler_state (self)];
}

tl_place_t
tl_scheduler_place (const tl_scheduler_t *self)
{
    tl_place_t place = self->place;
    for (size_t i = 0; i < self->group_count && self->phase == TL_PHASE_PERIOD; i++) {
        const tl_group_t *group = &self->groups[i];
        if (group->step < place.step)
            continue;
        place.step = group->step;
        place.round = group->round;
        place.turn = group->turn;
    }
    return place;
}

uint64_t
tl_scheduler_saved_step (const tl_scheduler_t *self)
{
    return self->common.step;
}

bool
tl_scheduler_awaits (const tl_scheduler_t *self, size_t client)
{
    const tl_seat_t *seat = &self->seats[client];
    if (seat->live)
        return false;
    return !self->started && tl_period_few (self) ? seat->expected : !self->live;
}

bool
tl_scheduler_in_common (const tl_scheduler_t *self, size_t client)
{
    return self->seats[client].in_common;
}

bool
tl_scheduler_aggregator_in_common (const tl_scheduler_t *self)
{
    return self->aggregator_saved;
}

size_t
tl_scheduler_groups (const tl_scheduler_t *self)
{
    return self->group_count;
}

size_t
tl_scheduler_worker_of (const tl_scheduler_t *self, size_t client)
{
    size_t group = self->seats[client].group;
    return group == TL_NOBODY ? TL_NOBODY : self->groups[group].worker;
}

static bool
s_serves (const tl_scheduler_t *self, size_t worker)
{
    const tl_post_t *post = &self->posts[worker];
    return post->live && post->known && !post->equipping &&
           (post->group != TL_NOBODY || post->at == self->place.step);
}

size_t
tl_scheduler_server (const tl_scheduler_t *self, size_t client)
{
    size_t own = client == TL_NOBODY ? TL_NOBODY : tl_scheduler_worker_of (self, client);
    if (own != TL_NOBODY && s_serves (self, own))
        return own;
    for (size_t i = 0; i < self->config.workers; i++)
        if (s_serves (self, i))
            return i;
    return TL_NOBODY;
}

bool
tl_scheduler_member (const tl_scheduler_t *self, size_t client, uint64_t step)
{
    const tl_seat_t *seat = &self->seats[client];
    return self->phase == TL_PHASE_PERIOD && seat->member && self->groups[seat->group].step == step;
}

uint64_t
tl_scheduler_step_of (const tl_scheduler_t *self, size_t client)
{
    size_t group = self->seats[client].group;
    return group == TL_NOBODY || self->phase != TL_PHASE_PERIOD ? tl_scheduler_place (self).step
                                                                : self->groups[group].step;
}

bool
tl_scheduler_called (const tl_scheduler_t *self, size_t client, uint64_t step)
{
    const tl_seat_t *seat = &self->seats[client];
    if (self->config.costs)
        return seat->called && seat->named == step;
    return tl_scheduler_member (self, client, step);
}

uint64_t
tl_scheduler_named (const tl_scheduler_t *self, size_t client)
{
    return self->seats[client].named;
}

bool
tl_scheduler_takes (const tl_scheduler_t *self, size_t client)
{
    return self->seats[client].taking;
}

bool
tl_scheduler_steps (const tl_scheduler_t *self, size_t worker, uint64_t step)
{
    size_t index = self->posts[worker].group;
    const tl_group_t *group = index == TL_NOBODY ? NULL : &self->groups[index];
    return group && group->state == TL_GROUP_STEP && group->step == step;
}

bool
tl_scheduler_saving (const tl_scheduler_t *self, uint64_t step)
{
    return self->phase == TL_PHASE_SAVING && step == self->pending.step && self->trunk_saving;
}

bool
tl_scheduler_merging (const tl_scheduler_t *self, tl_merge_t kind, uint64_t step)
{
    return self->merges[kind].open && step == self->gathering.step && self->phase != TL_PHASE_DONE;
}

bool
tl_scheduler_equipping (const tl_scheduler_t *self, size_t worker)
{
    return self->posts[worker].equipping;
}

bool
tl_scheduler_returning (const tl_scheduler_t *self, size_t client)
{
    const tl_seat_t *seat = &self->seats[client];
    return seat->restoring || seat->taking || seat->told;
}

bool
tl_scheduler_finishing (const tl_scheduler_t *self, size_t client)
{
    return self->phase == TL_PHASE_FINISHING && self->seats[client].finishing;
}
