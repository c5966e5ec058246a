#include "scheduler.h"

#include "base/assert.h"
#include "error.h"
#include "log.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const s_states[] = {"waiting",   "step",      "saving",
                                       "restoring", "finishing", "done"};

typedef struct {
    bool live;        //  joined and not left
    bool expected;    //  the first step waits for it
    bool member;      //  of the open step
    bool saving;      //  its SAVED of the pending save is awaited
    bool restoring;   //  its RESTORED is awaited
    bool finishing;   //  its FINISHED is awaited
    bool behind;      //  the run went back while it was away: so must it, to back_to or before
    uint64_t back_to; //  step
} tl_seat_t;

enum {
    MOST_FUTILE = 3
}; //  times in a row that a step may come to nothing though everybody is there

struct tl_scheduler {
    tl_scheduler_config_t config;
    tl_scheduler_actions_t actions;
    void *arg;
    tl_run_state_t state;
    tl_place_t place;   //  of the next step to open; place.step is the open one in TL_RUN_STEP
    tl_place_t common;  //  newest common save; the start is one
    tl_place_t pending; //  save under way
    bool pending_good;  //  nobody said no to it
    bool worker;        //  joined
    bool worker_used;   //  a worker has held the trunk of this run: its loss costs a restore
    bool worker_saving, worker_restoring;
    bool started;  //  all clients that are expected were there once
    bool resuming; //  and then all parts go back to where the run goes on
    bool stopping; //  after the open step: last save and done
    int futile;    //  times in a row that the open step came to nothing though everybody was there
    int code;      //  of done
    char why[512]; //  of done or of the restore
    tl_seat_t *seats; //  [config.clients]
};

static void s_next (tl_scheduler_t *self);
static void s_go_back (tl_scheduler_t *self, const char *why);

tl_scheduler_t *
tl_scheduler_new (const tl_scheduler_config_t *config, const tl_scheduler_actions_t *actions,
                  void *arg)
{
    tl_assert (config->clients > 0 && config->clients <= TL_SCHEDULER_CLIENTS);
    tl_scheduler_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    self->actions = *actions;
    self->arg = arg;
    self->seats = tl_alloc (config->clients * sizeof *self->seats);
    for (size_t i = 0; i < config->clients; i++)
        self->seats[i].expected = true;
    self->pending_good = true;
    return self;
}

void
tl_scheduler_resume (tl_scheduler_t *self, const tl_place_t *place, const bool *expected,
                     bool ended)
{
    for (size_t i = 0; i < self->config.clients; i++)
        self->seats[i].expected = !expected || expected[i];
    self->place = self->common = *place;
    self->resuming = self->worker_used = true;
    self->state = ended ? TL_RUN_DONE : TL_RUN_WAITING;
}

void
tl_scheduler_destroy (tl_scheduler_t **self_p)
{
    if (*self_p) {
        free ((*self_p)->seats);
        free (*self_p);
        *self_p = NULL;
    }
}

static void
s_go (tl_scheduler_t *self, tl_run_state_t state, const char *event)
{
    if (state != self->state)
        tl_debug ("run: %s: %s -> %s", event, s_states[self->state], s_states[state]);
    self->state = state;
}

static size_t
s_live (const tl_scheduler_t *self)
{
    size_t live = 0;
    for (size_t i = 0; i < self->config.clients; i++)
        live += self->seats[i].live;
    return live;
}

static bool
s_all_here (const tl_scheduler_t *self)
{
    for (size_t i = 0; i < self->config.clients; i++)
        if (self->seats[i].expected && !self->seats[i].live)
            return false;
    return true;
}

static void
s_done (tl_scheduler_t *self)
{
    if (self->state == TL_RUN_DONE)
        return;
    //  Steps since the last common save went with the worker that held the trunk.
    if (!self->worker && self->worker_used)
        self->place = self->common;
    s_go (self, TL_RUN_DONE, "end");
    self->actions.done (self->arg, self->code, self->why);
}

//  --- saves ------------------------------------------------------------------------------------

static bool
s_awaits_save (const tl_scheduler_t *self)
{
    bool awaits = self->worker_saving;
    for (size_t i = 0; i < self->config.clients; i++)
        awaits |= self->seats[i].saving;
    return awaits;
}

static void
s_finish (tl_scheduler_t *self)
{
    s_go (self, TL_RUN_FINISHING, "saved");
    size_t asked = 0;
    for (size_t i = 0; i < self->config.clients; i++)
        asked += self->seats[i].finishing = self->seats[i].live;
    self->actions.finish (self->arg);
    if (!asked)
        s_done (self);
}

//  Every part that was asked and is still here has answered.
static void
s_save_complete (tl_scheduler_t *self)
{
    if (self->pending_good) {
        self->common = self->pending;
        self->actions.common (self->arg, &self->common);
    }
    s_next (self);
}

static void
s_save_answered (tl_scheduler_t *self, bool *awaited, uint64_t step, bool good, const char *why)
{
    if (self->state != TL_RUN_SAVING || step != self->pending.step || !*awaited)
        return;
    *awaited = false;
    if (!good) {
        self->pending_good = false;
        self->stopping = true;
        self->code = TL_FAILED;
        snprintf (self->why, sizeof self->why, "step %llu could not be saved: %s",
                  (unsigned long long)step, why);
    }
    if (!s_awaits_save (self))
        s_save_complete (self);
}

//  No step opens until it is common, so that whatever is lost is never more than save_every steps.
static void
s_save (tl_scheduler_t *self, bool last, const char *event)
{
    s_go (self, TL_RUN_SAVING, event);
    self->pending = self->place;
    self->pending_good = true;
    self->worker_saving = true;
    for (size_t i = 0; i < self->config.clients; i++)
        self->seats[i].saving = self->seats[i].live;
    self->actions.save (self->arg, &self->place, last);
}

//  The newest step becomes common, unless it can't be saved; then the run is over.
static void
s_last_save (tl_scheduler_t *self)
{
    bool failed = !self->pending_good && self->pending.step == self->place.step;
    if (self->common.step != self->place.step && !failed)
        s_save (self, true, self->stopping ? "stop" : "last step");
    else if (self->stopping)
        s_done (self);
    else
        s_finish (self);
}

//  --- steps ------------------------------------------------------------------------------------

static void
s_open_step (tl_scheduler_t *self)
{
    size_t members[TL_SCHEDULER_CLIENTS], count = 0;
    size_t first = self->config.serial ? self->place.turn : 0;
    for (size_t i = first; i < self->config.clients; i++)
        if (self->seats[i].live) {
            members[count++] = i;
            if (self->config.serial)
                break;
        }
    if (!count) {
        //  Serial, and nobody live is left in this round.
        self->place.turn = 0;
        self->place.round++;
        s_next (self);
        return;
    }
    for (size_t i = 0; i < count; i++)
        self->seats[members[i]].member = true;
    if (self->config.serial)
        self->place.turn = members[0];
    self->worker_used = true;
    s_go (self, TL_RUN_STEP, "plan");
    self->actions.plan (self->arg, self->place.step, self->place.round, members, count);
}

//  What comes after a step, a join or a restore.
static void
s_next (tl_scheduler_t *self)
{
    bool complete = self->place.round >= self->config.rounds;
    if (self->stopping) {
        s_last_save (self);
        return;
    }
    //  Without a worker nothing that counts can be saved; a run of no steps, too, begins when all were here.
    if (!self->worker || (!s_live (self) && !complete) || (!self->started && !s_all_here (self))) {
        s_go (self, TL_RUN_WAITING, "somebody is missing");
        return;
    }
    self->started = true;
    if (self->resuming)
        s_go_back (self, "the run goes on");
    else if (complete)
        s_last_save (self);
    else
        s_open_step (self);
}

//  The open step changed nothing. Whoever left took its part with it and the next try is another one; but if everybody
//  is there, it would be the same for ever.
static void
s_came_to_nothing (tl_scheduler_t *self)
{
    bool someone = false;
    for (size_t i = 0; i < self->config.clients; i++)
        someone |= self->seats[i].member;
    self->actions.abandoned (self->arg, self->place.step, "nothing of it was committed");
    if (!someone || self->stopping || ++self->futile < MOST_FUTILE)
        return;
    self->stopping = true;
    self->code = TL_FAILED;
    snprintf (
        self->why, sizeof self->why,
        "step %llu came to nothing %d times in a row: no client had a token to learn from, or "
        "gradients were no finite numbers; look at the worker's log, the data and train.lr",
        (unsigned long long)self->place.step, MOST_FUTILE);
}

void
tl_scheduler_closed (tl_scheduler_t *self, uint64_t step, uint64_t labels)
{
    if (self->state != TL_RUN_STEP || step != self->place.step)
        return;
    if (labels == 0)
        s_came_to_nothing (self);
    for (size_t i = 0; i < self->config.clients; i++)
        self->seats[i].member = false;
    if (labels > 0) {
        self->futile = 0;
        self->place.step++;
        if (self->config.serial && self->place.turn + 1 < self->config.clients)
            self->place.turn++;
        else {
            self->place.turn = 0;
            self->place.round++;
        }
        bool due = self->config.save_every && self->place.step % self->config.save_every == 0;
        if (due && self->place.round < self->config.rounds && !self->stopping) {
            s_save (self, false, "time to save");
            return;
        }
    }
    s_next (self);
}

//  --- who is here ------------------------------------------------------------------------------

void
tl_scheduler_join (tl_scheduler_t *self, size_t client)
{
    tl_seat_t *seat = &self->seats[client];
    seat->live = true;
    if (seat->behind)
        self->actions.back (self->arg, client, seat->back_to);
    seat->behind = false;
    if (self->state == TL_RUN_WAITING)
        s_next (self);
    //  Else it takes part from the next plan on.
}

static void
s_restored_one (tl_scheduler_t *self, bool *awaited, bool good, const char *why)
{
    if (!*awaited)
        return;
    *awaited = false;
    if (self->state != TL_RUN_RESTORING) {
        //  A worker that came when the run was over: nobody waits for it but those who read.
        if (self->state == TL_RUN_DONE && !good)
            self->actions.unserved (self->arg, why);
        return;
    }
    if (!good) {
        self->code = TL_FAILED;
        snprintf (self->why, sizeof self->why,
                  "going back to step %llu failed: %s; what was saved is in the run's directory",
                  (unsigned long long)self->common.step, why);
        s_done (self);
        return;
    }
    bool awaits = self->worker_restoring;
    for (size_t i = 0; i < self->config.clients; i++)
        awaits |= self->seats[i].restoring;
    if (!awaits)
        s_next (self);
}

void
tl_scheduler_left (tl_scheduler_t *self, size_t client)
{
    tl_seat_t *seat = &self->seats[client];
    if (!seat->live)
        return;
    seat->live = false;
    if (seat->member) {
        seat->member = false;
        if (self->state == TL_RUN_STEP)
            self->actions.leave (self->arg, self->place.step, client);
    }
    s_save_answered (self, &seat->saving, self->pending.step, true, "");
    s_restored_one (self, &seat->restoring, true, "");
    if (self->state == TL_RUN_FINISHING)
        tl_scheduler_finished (self, client);
}

//  All parts take the newest common save. Who isn't here does when it comes.
static void
s_go_back (tl_scheduler_t *self, const char *why)
{
    s_go (self, TL_RUN_RESTORING, why);
    self->resuming = false;
    self->place = self->common;
    self->worker_restoring = true;
    for (size_t i = 0; i < self->config.clients; i++) {
        tl_seat_t *seat = &self->seats[i];
        seat->restoring = seat->live;
        if (!seat->live && !seat->behind)
            seat->back_to = self->common.step;
        seat->behind |= !seat->live;
    }
    self->actions.restore (self->arg, &self->common, why);
}

void
tl_scheduler_worker_join (tl_scheduler_t *self)
{
    self->worker = true;
    if (self->state == TL_RUN_DONE && self->worker_used) {
        self->worker_restoring = true;
        self->resuming = false;
        self->actions.restore (self->arg, &self->common, "a new worker serves the finished run");
    }
    if (self->state != TL_RUN_WAITING)
        return;
    //  Else the trunk was lost with the worker that held it: everybody goes back to what all have.
    if (!self->worker_used || self->resuming)
        s_next (self);
    else
        s_go_back (self, "the worker that held the trunk was lost");
}

//  A save without the trunk doesn't count; whatever the clients still say of it is ignored.
static void
s_lose_save (tl_scheduler_t *self)
{
    self->worker_saving = false;
    for (size_t i = 0; i < self->config.clients; i++)
        self->seats[i].saving = false;
    if (self->state == TL_RUN_SAVING)
        s_go (self, TL_RUN_WAITING, "worker left");
}

void
tl_scheduler_worker_left (tl_scheduler_t *self)
{
    if (!self->worker)
        return;
    self->worker = self->worker_restoring = false;
    s_lose_save (self);
    switch (self->state) {
    case TL_RUN_STEP:
        self->actions.abandoned (self->arg, self->place.step, "the worker was lost");
        for (size_t i = 0; i < self->config.clients; i++)
            self->seats[i].member = false;
        s_go (self, TL_RUN_WAITING, "worker left");
        break;
    case TL_RUN_RESTORING:
        for (size_t i = 0; i < self->config.clients; i++)
            self->seats[i].restoring = false;
        s_go (self, TL_RUN_WAITING, "worker left");
        break;
    case TL_RUN_FINISHING:
        //  All is saved; what was scored so far is scored again when a worker is back.
        for (size_t i = 0; i < self->config.clients; i++)
            self->seats[i].finishing = false;
        s_go (self, TL_RUN_WAITING, "worker left");
        break;
    default:
        break;
    }
    if (self->stopping && self->state == TL_RUN_WAITING) {
        self->code = self->code ? self->code : TL_FAILED;
        snprintf (self->why, sizeof self->why,
                  "the worker was lost while stopping; the last common save is of step %llu",
                  (unsigned long long)self->common.step);
        s_done (self);
    }
}

//  --- answers of parts -------------------------------------------------------------------------

void
tl_scheduler_saved (tl_scheduler_t *self, uint64_t step, bool good, const char *why)
{
    s_save_answered (self, &self->worker_saving, step, good, why);
}

void
tl_scheduler_client_saved (tl_scheduler_t *self, size_t client, uint64_t step, bool good,
                           const char *why)
{
    s_save_answered (self, &self->seats[client].saving, step, good, why);
}

void
tl_scheduler_restored (tl_scheduler_t *self, bool good, const char *why)
{
    s_restored_one (self, &self->worker_restoring, good, why);
}

void
tl_scheduler_client_restored (tl_scheduler_t *self, size_t client, bool good, const char *why)
{
    s_restored_one (self, &self->seats[client].restoring, good, why);
}

void
tl_scheduler_finished (tl_scheduler_t *self, size_t client)
{
    if (self->state != TL_RUN_FINISHING)
        return;
    self->seats[client].finishing = false;
    for (size_t i = 0; i < self->config.clients; i++)
        if (self->seats[i].finishing)
            return;
    s_done (self);
}

void
tl_scheduler_stop (tl_scheduler_t *self, bool hurry, int code, const char *why)
{
    if (self->state == TL_RUN_DONE)
        return;
    if (!self->stopping) {
        self->stopping = true;
        self->code = code;
        snprintf (self->why, sizeof self->why, "%s", why);
    }
    switch (self->state) {
    case TL_RUN_STEP:
        if (hurry)
            self->actions.give_up (self->arg, self->place.step, why);
        break;
    case TL_RUN_WAITING:
        //  A trunk that was lost can't be saved again; what is common already counts.
        if (self->worker)
            s_next (self);
        else
            s_done (self);
        break;
    case TL_RUN_SAVING:
        if (hurry) {
            self->code = TL_FAILED;
            snprintf (self->why, sizeof self->why,
                      "step %llu could not be saved in time; the last common save is of step %llu",
                      (unsigned long long)self->place.step, (unsigned long long)self->common.step);
            s_done (self);
        }
        break;
    default:
        s_done (self);
    }
}

//  --- questions --------------------------------------------------------------------------------

tl_run_state_t
tl_scheduler_state (const tl_scheduler_t *self)
{
    return self->state;
}

const char *
tl_scheduler_state_name (const tl_scheduler_t *self)
{
    return s_states[self->state];
}

tl_place_t
tl_scheduler_place (const tl_scheduler_t *self)
{
    return self->place;
}

uint64_t
tl_scheduler_saved_step (const tl_scheduler_t *self)
{
    return self->common.step;
}

bool
tl_scheduler_serves (const tl_scheduler_t *self)
{
    return self->worker && !self->worker_restoring && !self->resuming;
}

bool
tl_scheduler_member (const tl_scheduler_t *self, size_t client)
{
    return self->state == TL_RUN_STEP && self->seats[client].member;
}

bool
tl_scheduler_open (const tl_scheduler_t *self, uint64_t step)
{
    return self->state == TL_RUN_STEP && self->place.step == step;
}
