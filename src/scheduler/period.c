//  period: from line to line. Who works with whom is asked once a period, when all that came before it is settled.

#include "scheduler/scheduler_internal.h"

#include <string.h>

//  A common save at that place would be made while a period goes on.
static bool
s_within (const tl_place_t *place)
{
    return place->round > place->begin || place->turn > 0;
}

bool
tl_period_few (const tl_scheduler_t *self)
{
    size_t start = self->config.start;
    return start && !self->resumed ? self->live < start : self->due > 0;
}

static bool
s_missing (const tl_scheduler_t *self, size_t able)
{
    const tl_scheduler_config_t *config = &self->config;
    if (!self->live_workers || (!able && !tl_run_complete (self)))
        return true;
    return !self->started && (tl_period_few (self) || (config->aggregator && !self->aggregator) ||
                              (config->all_workers && self->live_workers < config->workers));
}

//  Clients that can take part in the next round, listed in scratch.
static size_t
s_able (tl_scheduler_t *self)
{
    size_t count = 0;
    for (size_t i = 0; i < self->config.clients && self->live; i++)
        if (tl_group_able (self, i, self->place.round))
            self->scratch[count++] = i;
    return count;
}

static uint64_t
s_line (const tl_scheduler_t *self)
{
    uint64_t line = self->place.begin + self->config.every;
    return line < self->last_round ? line : self->last_round;
}

static const tl_decision_t *
s_arrange (tl_scheduler_t *self, size_t able)
{
    size_t workers = 0;
    for (size_t i = 0; i < self->config.workers; i++)
        if (self->posts[i].live)
            self->crew[workers++] = i;
    tl_present_t present = {.clients = self->scratch,
                            .client_count = able,
                            .workers = self->crew,
                            .worker_count = workers,
                            .holder = tl_run_holder (self, self->place.step),
                            .rounds = s_line (self) - self->place.round,
                            .merges = self->config.share == TL_SHARE_AVERAGE,
                            .disturbed = !self->undisturbed};
    return self->actions.arrange (self->arg, &present);
}

//  Workers that don't hold the trunk get it from the common save: so there must be one of this step. Of several groups
//  all get it: a replica's weight counts from when it was given the trunk.
static bool
s_must_save (const tl_scheduler_t *self)
{
    if (self->common.step == self->place.step)
        return false;
    if (self->decided->groups > 1)
        return true;
    for (size_t i = 0; i < self->decided->groups; i++) {
        const tl_post_t *post = &self->posts[self->decided->worker[i]];
        if (!post->known || post->at != self->place.step)
            return true;
    }
    return false;
}

//  Groups by whom group says, all clients in the one group if it is NULL; without workers yet.
static void
s_make_groups (tl_scheduler_t *self, size_t groups, const size_t *group)
{
    memset (self->groups, 0, groups * sizeof *self->groups);
    self->group_count = groups;
    self->at_line = self->orphans = 0;
    for (size_t i = 0; i < self->config.workers; i++)
        self->posts[i].group = TL_NOBODY;
    for (size_t i = 0; i < self->config.clients; i++) {
        tl_seat_t *seat = &self->seats[i];
        //  Whoever came since joins the one group; with several it would have to be decided again.
        bool in = group && groups > 1 ? group[i] != TL_NOBODY : seat->live;
        seat->group = in && !seat->stale ? (group && groups > 1 ? group[i] : 0) : TL_NOBODY;
        if (seat->group != TL_NOBODY)
            self->groups[seat->group].count++;
    }
    size_t *next = self->order;
    for (size_t i = 0; i < groups; i++) {
        self->groups[i].members = next;
        next += self->groups[i].count;
        self->groups[i].count = 0;
    }
    for (size_t i = 0; i < self->config.clients; i++)
        if (self->seats[i].group != TL_NOBODY) {
            tl_group_t *its = &self->groups[self->seats[i].group];
            its->members[its->count++] = i;
            its->live += self->seats[i].live;
        }
}

//  A run that goes on: everybody who is here goes back to where it does, and who comes meanwhile. No step opens before all
//  have: what somebody can't read is for a person to see, not for the others to go on without. True: all have.
static bool
s_called_back (tl_scheduler_t *self)
{
    size_t count = 0;
    if (self->earlier && !self->restoring)
        tl_run_resume (self, &self->pending);
    for (size_t i = 0; i < self->config.clients; i++) {
        tl_seat_t *seat = &self->seats[i];
        if (!seat->live || !seat->behind)
            continue;
        seat->behind = false;
        seat->restoring = true;
        self->restoring++;
        tl_run_told (self, seat);
        self->scratch[count++] = i;
    }
    if (count && count == self->live) {
        self->aggregator_back = self->aggregator;
        self->actions.restore (self->arg, &self->common, self->scratch, count, TL_NOBODY,
                               "the run goes on");
    }
    for (size_t i = 0; i < count && count < self->live; i++)
        self->actions.back (self->arg, self->scratch[i], self->common.step);
    return self->restoring == 0 && !self->aggregator_back;
}

//  Now all of them have said what they came to.
static void
s_go_on (tl_scheduler_t *self)
{
    self->resumed = false;
    for (size_t i = 0; i < self->config.clients; i++)
        if (self->seats[i].live)
            tl_run_check_common (self, &self->seats[i]);
}

static void
s_begin (tl_scheduler_t *self, size_t groups, const size_t *worker, const size_t *group)
{
    s_make_groups (self, groups, group);
    tl_joining_recall (self, true, "it is in no group now");
    self->place.inside = self->inside;
    self->gathering = self->place;
    self->line = s_line (self);
    self->stop_line = 0;
    self->merged = self->trunk_merged = false;
    self->undisturbed = true;
    self->decided = NULL;
    tl_run_phase (self, TL_PHASE_PERIOD, "period");
    for (size_t i = 0; i < groups; i++) {
        tl_group_t *its = &self->groups[i];
        its->step = self->place.step;
        its->round = self->place.round;
        its->turn = self->place.turn;
        its->fresh = true;
        its->worker = TL_NOBODY;
        its->last = worker[i];
        its->state = TL_GROUP_ORPHAN;
        its->why = tl_worker_lost;
        self->orphans += !self->posts[worker[i]].live;
    }
    if (self->resumed)
        s_go_on (self);
    for (size_t i = 0; i < groups; i++)
        if (self->posts[worker[i]].live)
            tl_group_serve (self, &self->groups[i], worker[i]);
}

void
tl_period_begin (tl_scheduler_t *self)
{
    if (self->stopping) {
        tl_saving_last (self);
        return;
    }
    if (self->stale) {
        tl_merging_begin (self); //  whoever came back meanwhile
        return;
    }
    if (s_missing (self, s_able (self)) || (self->resumed && !s_called_back (self)))
        return;
    self->started = true;
    if (tl_run_complete (self)) {
        tl_saving_last (self);
        self->resumed = false;
        return;
    }
    if (self->resumed && s_within (&self->place)) {
        //  The one group goes on as it was saved, whoever its worker is.
        size_t worker = tl_run_holder (self, self->place.step);
        for (size_t i = 0; i < self->config.workers && worker == TL_NOBODY; i++)
            worker = self->posts[i].live ? i : TL_NOBODY;
        self->inside = self->place.inside;
        s_begin (self, 1, &worker, NULL);
        return;
    }
    if (!self->decided)
        self->decided = s_arrange (self, s_able (self));
    if (s_must_save (self)) {
        tl_saving_begin (self, false);
        return;
    }
    for (size_t i = 0; i < self->config.workers && self->decided->groups > 1; i++)
        self->posts[i].known &= self->posts[i].at == 0;
    self->inside = self->decided->inside;
    s_begin (self, self->decided->groups, self->decided->worker, self->decided->group);
}

//  The one group may open another step in this period.
static bool
s_goes_on (const tl_scheduler_t *self, const tl_group_t *group)
{
    for (size_t i = 0; i < group->count; i++) {
        size_t client = group->members[i];
        if ((client >= group->turn && tl_group_able (self, client, group->round)) ||
            (group->turn && group->round + 1 < self->line &&
             tl_group_able (self, client, group->round + 1)))
            return true;
    }
    return false;
}

void
tl_period_meet (tl_scheduler_t *self)
{
    const tl_group_t *first = &self->groups[0];
    bool one = self->group_count == 1;
    bool early = self->stale > 0 && !self->stopping && !first->save_due;
    uint64_t step = 0, round = 0;
    for (size_t i = 0; i < self->group_count; i++) {
        step = self->groups[i].step > step ? self->groups[i].step : step;
        round = self->groups[i].round > round ? self->groups[i].round : round;
    }
    //  Where only a save is due but nobody is left to go on, this is the line: what is merged there is in the same save.
    bool ends = self->config.share == TL_SHARE_AVERAGE && first->save_due && !self->stopping &&
                !s_goes_on (self, first);
    if (ends && first->turn)
        round++; //  whose turn would be is not here
    bool over = !one || first->round >= self->line || early || ends;
    self->place.step = step;
    self->place.round = round;
    self->place.turn = over ? 0 : first->turn;
    if (over)
        self->place.begin = round;
    if (over && !self->stopping) {
        self->actions.line (self->arg, self->undisturbed);
        self->undisturbed = true; //  so far: now the line's
    }
    if (over)
        tl_merging_begin (self);
    else
        tl_period_go_on (self);
}

void
tl_period_go_on (tl_scheduler_t *self)
{
    bool last = self->stopping || tl_run_complete (self);
    bool due = self->merged || (self->groups[0].save_due && !last);
    self->groups[0].save_due = false;
    if (due)
        tl_saving_begin (self, last);
    else
        tl_run_phase (self, TL_PHASE_BETWEEN, "line");
}
