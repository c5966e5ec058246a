//  saving: common saves, scoring, the end.

#include "scheduler/scheduler_internal.h"

#include "error.h"

#include <stdio.h>

//  --- saves ------------------------------------------------------------------------------------

//  No step opens until it is common, so that whatever is lost is never more than save_every steps, or a period.
void
tl_saving_begin (tl_scheduler_t *self, bool last)
{
    size_t worker = tl_run_holder (self, self->place.step);
    tl_joining_recall (self, false, "all parts save first");
    tl_run_phase (self, TL_PHASE_SAVING, last ? "last step" : "time to save");
    self->pending = self->place;
    self->failed = false;
    self->trunk_saving = self->common.step != self->place.step;
    self->aggregator_saving = self->aggregator;
    self->aggregator_saved = false;
    for (size_t i = 0; i < self->config.clients; i++) {
        self->seats[i].saving = self->seats[i].live;
        self->seats[i].saved = false;
        self->saving += self->seats[i].live;
    }
    self->actions.save (self->arg, &self->place,
                        self->trunk_merged || !self->trunk_saving ? TL_NOBODY : worker, last);
}

//  Every part that was asked and is still here has answered.
void
tl_saving_go (tl_scheduler_t *self)
{
    if (self->saving || self->trunk_saving || self->aggregator_saving)
        return;
    bool within = self->place.round > self->place.begin || self->place.turn > 0;
    tl_run_phase (self, TL_PHASE_BETWEEN, "saved");
    if (!self->failed) {
        self->common = self->pending;
        self->merged = false;
        for (size_t i = 0; i < self->config.clients; i++)
            self->seats[i].in_common = self->seats[i].saved;
        self->actions.common (self->arg, &self->common);
    }
    if (self->stopping || !within || !self->group_count)
        return;
    tl_run_phase (self, TL_PHASE_PERIOD, "saved");
    self->at_line = 0;
    self->groups[0].state = TL_GROUP_READY;
    tl_group_go (self, &self->groups[0]);
}

static bool
s_pends (const tl_scheduler_t *self, uint64_t step)
{
    return self->phase == TL_PHASE_SAVING && step == self->pending.step;
}

static void
s_answer (tl_scheduler_t *self, bool good, const char *why)
{
    if (!good) {
        self->failed = true;
        tl_run_fail (self, "step %llu could not be saved: %s",
                     (unsigned long long)self->pending.step, why);
    }
    tl_run_go (self);
}

void
tl_scheduler_saved (tl_scheduler_t *self, uint64_t step, bool good, const char *why)
{
    if (!tl_scheduler_saving (self, step))
        return;
    self->trunk_saving = false;
    s_answer (self, good, why);
}

void
tl_scheduler_client_saved (tl_scheduler_t *self, size_t client, uint64_t step, bool good,
                           const char *why)
{
    if (!s_pends (self, step) || !self->seats[client].saving)
        return;
    self->seats[client].saving = false;
    self->seats[client].saved = good;
    self->saving--;
    s_answer (self, good, why);
}

void
tl_scheduler_aggregator_saved (tl_scheduler_t *self, uint64_t step, bool good, const char *why)
{
    if (!s_pends (self, step) || !self->aggregator_saving)
        return;
    self->aggregator_saving = false;
    self->aggregator_saved = good;
    s_answer (self, good, why);
}

//  A save without the trunk doesn't count; whatever the clients still say of it is ignored.
void
tl_saving_lose (tl_scheduler_t *self)
{
    self->trunk_saving = self->aggregator_saving = false;
    self->saving = 0;
    for (size_t i = 0; i < self->config.clients; i++)
        self->seats[i].saving = false;
}

//  The newest step becomes common, unless it can't be saved; then the run is over.
void
tl_saving_last (tl_scheduler_t *self)
{
    bool failed = self->failed && self->pending.step == self->place.step;
    bool can = self->trunk_merged || tl_run_holder (self, self->place.step) != TL_NOBODY;
    if (self->common.step != self->place.step && can && !failed)
        tl_saving_begin (self, true);
    else if (self->stopping)
        tl_run_done (self);
    else {
        self->asked = self->rescore = false;
        tl_run_phase (self, TL_PHASE_FINISHING, "saved");
    }
}

//  --- scoring ----------------------------------------------------------------------------------

//  Everybody back to the last save: what the lost worker was asked is never going to be answered.
static void
s_void_scores (tl_scheduler_t *self)
{
    size_t count = 0;
    for (size_t i = 0; i < self->config.clients; i++) {
        tl_seat_t *seat = &self->seats[i];
        seat->restoring = seat->live;
        if (seat->live)
            tl_run_told (self, seat);
        seat->behind &= !seat->live;
        self->restoring += seat->live;
        if (seat->live)
            self->scratch[count++] = i;
    }
    self->rescore = false;
    self->actions.restore (self->arg, &self->common, self->scratch, count, TL_NOBODY,
                           "a worker was lost while clients scored their text");
}

//  Clients are asked once every worker holds the finished trunk.
void
tl_finish_go (tl_scheduler_t *self)
{
    if (self->asked) {
        if (!self->finishing)
            tl_run_done (self);
        return;
    }
    if (!self->live_workers)
        return;
    size_t equipping = 0;
    for (size_t i = 0; i < self->config.workers; i++) {
        tl_post_t *post = &self->posts[i];
        if (post->live && !post->equipping && (!post->known || post->at != self->common.step))
            tl_run_equip (self, i);
        equipping += post->equipping;
    }
    if (self->rescore)
        s_void_scores (self);
    if (equipping || self->restoring)
        return;
    self->asked = true;
    for (size_t i = 0; i < self->config.clients; i++) {
        self->seats[i].finishing = self->seats[i].live;
        self->finishing += self->seats[i].live;
    }
    self->actions.finish (self->arg);
    if (!self->finishing)
        tl_run_done (self);
}

void
tl_scheduler_finished (tl_scheduler_t *self, size_t client)
{
    if (!tl_scheduler_finishing (self, client))
        return;
    self->seats[client].finishing = false;
    self->finishing--;
    tl_run_go (self);
}

//  All is saved; what was scored so far is scored again when a worker is back.
void
tl_finish_lose (tl_scheduler_t *self)
{
    self->rescore |= self->asked || self->restoring;
    self->asked = false;
    self->finishing = self->restoring = 0;
    for (size_t i = 0; i < self->config.clients; i++)
        self->seats[i].finishing = self->seats[i].restoring = false;
}

//  --- the end ----------------------------------------------------------------------------------

void
tl_run_done (tl_scheduler_t *self)
{
    if (self->phase == TL_PHASE_DONE)
        return;
    //  Steps since the last common save went with the worker that held the trunk, or were never made one.
    if (self->used && (self->phase == TL_PHASE_PERIOD || self->phase == TL_PHASE_MERGING ||
                       tl_run_holder (self, self->place.step) == TL_NOBODY))
        self->place = self->common;
    tl_run_phase (self, TL_PHASE_DONE, "end");
    self->actions.done (self->arg, self->code, self->why);
}
