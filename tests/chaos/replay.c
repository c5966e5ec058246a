//  replay: see replay.h. What the broker told is one line of time. What a client told is put beside it by its sessions: all
//  that it told in one comes before what it did in the next. What a worker told of a step is taken when the broker closed
//  that step, or when the worker was lost before the broker heard of it.

#include "chaos/replay_step.h"

#include "kernels/kernels.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

static bool
s_text_is (const json_t *event, const char *key, const char *text)
{
    return strcmp (part_text (event, key), text) == 0;
}

site_t *
replay_site (run_t *self, const char *name)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp (self->sites[i].name, name) == 0)
            return &self->sites[i];
    stage_fail (self->stage, "replay: there is no site %s", name);
}

static worker_t *
s_worker (run_t *self, const char *name)
{
    for (size_t i = 0; i < self->worker_count; i++)
        if (strcmp (self->workers[i].name, name) == 0)
            return &self->workers[i];
    stage_fail (self->stage, "replay: there is no worker %s", name);
}

//  What the aggregator made last of that kind before that was told; a sum of that step.
static const json_t *
s_made (const run_t *self, const char *kind, const json_t *before)
{
    const json_t *it, *made = NULL;
    for (size_t i = 0; (it = part_at (self->up, i)); i++)
        if (part_is (it, "made") && s_text_is (it, "kind", kind) &&
            replay_real (it, "time") <= replay_real (before, "time") &&
            (strcmp (kind, "sum") != 0 || part_int (it, "step") == part_int (before, "step")))
            made = it;
    return made;
}

//  --- going back -------------------------------------------------------------------------------

//  A client went back to a save of its own, or began with it as a new process.
static void
s_site_restored (const run_t *self, site_t *site, const json_t *it)
{
    uint64_t step = (uint64_t)part_int (it, "step"), own = (uint64_t)part_int (it, "own");
    replay_back_to (&site->past, step);
    replay_set_site (self, site->site, replay_as_of (&site->past, step, false));
    if (tl_site_cursor (site->site) != own && site->untold.data && site->untold_step <= step) {
        replay_put (&site->past.now[site->untold_step], site->untold);
        site->untold = (blob_t){NULL, 0};
        replay_set_site (self, site->site, site->past.now[site->untold_step]);
    }
    if (tl_site_cursor (site->site) != own)
        stage_fail (self->stage,
                    "replay: %s went back to its save of step %llu, which has %llu steps of its "
                    "own, not %llu",
                    site->name, (unsigned long long)step, (unsigned long long)own,
                    (unsigned long long)tl_site_cursor (site->site));
}

//  The last mean that was made before it took one over, from 1; 0: none.
static size_t
s_mean (const run_t *self, const json_t *it)
{
    size_t i = self->mean_count;
    while (i > 0 && self->means[i - 1].time > replay_real (it, "time"))
        i--;
    return i;
}

static void
s_taken (const run_t *self, site_t *site, const json_t *it)
{
    tl_error_t err;
    site->taken = s_mean (self, it);
    if (!site->taken)
        stage_fail (self->stage, "%s took over a mean that nobody made", site->name);
    const mean_t *mean = &self->means[site->taken - 1];
    replay_must (self, tl_site_take (site->site, mean->blob.data, mean->blob.size, &err) == 0,
                 &err);
    replay_put (&site->past.now[mean->at], replay_site_blob (site->site));
}

static void
s_trunk_restored (run_t *self, worker_t *worker, const json_t *it)
{
    uint64_t step = (uint64_t)part_int (it, "step");
    if (self->worker_count == 1 && step != self->back_to && step != self->committed)
        stage_fail (self->stage, "the trunk went back to step %llu, all others to step %llu",
                    (unsigned long long)step, (unsigned long long)self->back_to);
    replay_set_trunk (self, worker->trunk, replay_as_of (&self->past, step, false));
}

//  --- who was in a step, and as what -----------------------------------------------------------

static void
s_seat (run_t *self, const json_t *it)
{
    size_t i;
    const json_t *member, *rounds = json_object_get (it, "rounds");
    for (i = 0; i < self->count; i++)
        self->sites[i].rows = self->sites[i].gradients = self->sites[i].left = 0;
    json_array_foreach (json_object_get (it, "members"), i, member)
    {
        site_t *site = replay_site (self, json_string_value (member));
        site->rows = site->gradients = self->micros;
        site->round = (uint64_t)json_integer_value (json_array_get (rounds, i));
    }
    json_array_foreach (json_object_get (it, "left"), i, member)
    {
        site_t *site = replay_site (self, part_text (member, "name"));
        site->left = true;
        site->rows = (size_t)part_int (member, "rows");
        site->gradients = (size_t)part_int (member, "gradients");
    }
}

//  Goes on with what a client told until the update that it made at this step or, if it made none, the end of the session in
//  which it was there. What it told of going back comes before this step; only with a step that never was closed, and after
//  which all went back, it comes after it unless it began the session.
static void
s_come_to (const run_t *self, site_t *site, uint64_t step, bool closed)
{
    told_t *told = &site->told;
    size_t session = site->left_in ? site->left_in : site->session;
    const json_t *last = NULL;
    site->update = NULL;
    for (; told->next < told->count && told->sessions[told->next] <= session; told->next++) {
        const json_t *it = told->events[told->next];
        if (part_is (it, "ready"))
            site->at_work = false;
        else if (part_is (it, "step")) {
            //  With a window it is the step of its PLAN, or a later one
            if ((uint64_t)part_int (it, "step") <= step) {
                site->update = it;
                told->next++;
            }
            break;
        } else if (!closed && site->at_work)
            break;
        else if (part_is (it, "taken"))
            s_taken (self, site, it);
        else
            s_site_restored (self, site, last = it);
    }
    uint64_t due = site->due[session];
    if (self->worker_count == 1 && last && (uint64_t)part_int (last, "step") < due)
        stage_fail (self->stage, "%s went back to its save of step %lld, and has one of step %llu",
                    site->name, (long long)part_int (last, "step"), (unsigned long long)due);
    site->at_work = true;
}

//  The same of a client that is asked for its adapter; what it takes over for it is still to be made.
static void
s_come_to_mean (const run_t *self, site_t *site, double time)
{
    told_t *told = &site->told;
    for (; told->next < told->count && told->sessions[told->next] <= site->session; told->next++) {
        const json_t *it = told->events[told->next];
        if (part_is (it, "step") || replay_real (it, "time") > time)
            return;
        if (part_is (it, "taken") && site->taken == s_mean (self, it))
            return;
        if (part_is (it, "taken"))
            s_taken (self, site, it);
        else if (part_is (it, "restored"))
            s_site_restored (self, site, it);
        else
            site->at_work = false;
    }
}

static void
s_learn (run_t *self, worker_t *worker, size_t group, const json_t *it, bool closed)
{
    uint64_t step = (uint64_t)part_int (it, "step");
    if (step >= REPLAY_STEPS)
        stage_fail (self->stage, "replay: step %llu is too many", (unsigned long long)step);
    s_seat (self, it);
    for (size_t i = 0; i < self->count; i++)
        if (self->sites[i].rows)
            s_come_to (self, &self->sites[i], step, closed);
    replay_compute (self, worker, group, it, s_made (self, "sum", it));
}

//  A step is not made without a site that is there.
static bool
s_awaits_all (const run_t *self)
{
    const tl_topology_t *t = self->topology;
    return t->schedule.mode != TL_MODE_FANOUT && !t->schedule.window && self->groups == 1;
}

//  A site that is no member, or not with all of its micros, had been away.
static void
s_check_members (run_t *self, const json_t *it)
{
    bool serial = self->serial;
    size_t last = CASE_SITES, due = serial ? self->turn : 0;
    for (size_t i = 0; i < self->count; i++)
        if (self->sites[i].rows)
            last = i;
    size_t checked = self->count;
    if (serial)
        checked = due == CASE_SITES || last == CASE_SITES
                      ? 0
                      : (last + self->count - due) % self->count + 1;
    for (size_t k = 0; k < checked; k++) {
        site_t *site = &self->sites[(due + k) % self->count];
        if (site->gradients == self->micros) {
            site->stale &= site->left;
            continue;
        }
        self->result.missed++;
        if (!site->was_away && !site->stale)
            stage_fail (self->stage, "step %lld has %zu of %zu micros of %s, which was not away",
                        (long long)part_int (it, "step"), site->gradients, self->micros,
                        site->name);
    }
    self->turn = last == CASE_SITES ? last : (last + 1) % self->count;
}

static void
s_step_over (run_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        self->sites[i].left_in = 0;
        self->sites[i].was_away = self->sites[i].away;
    }
}

static const json_t *
s_next (const told_t *told)
{
    return told->next < told->count ? told->events[told->next] : NULL;
}

//  What is committed is a common save: whoever was there all the time has it. Who has just gone back may have an older one.
static void
s_saved (run_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        if (!self->is_back && !self->sites[i].was_away)
            self->sites[i].saved = self->committed;
}

static void
s_closed (run_t *self, const json_t *closed)
{
    worker_t *worker = s_worker (self, part_text (closed, "worker"));
    size_t group = (size_t)part_int (closed, "group");
    const json_t *it;
    for (; (it = s_next (&worker->told)) && !part_is (it, "learnt"); worker->told.next++)
        if (part_is (it, "restored"))
            s_trunk_restored (self, worker, it);
    if (!it || part_int (it, "step") != part_int (closed, "step") ||
        replay_real (it, "norm") != replay_real (closed, "norm") ||
        part_int (it, "labels") != part_int (closed, "labels"))
        stage_fail (self->stage, "replay: the worker told nothing of step %lld, or something else",
                    (long long)part_int (closed, "step"));
    worker->told.next++;
    if (self->committed % self->topology->checkpoint.every == 0)
        s_saved (self);
    replay_keep (self);
    s_learn (self, worker, group < self->groups ? group : 0, it, true);
    if (s_awaits_all (self))
        s_check_members (self, it);
    s_step_over (self);
    uint64_t done = (uint64_t)part_int (it, "step") + 1;
    self->committed = done > self->committed ? done : self->committed;
    self->is_back = false;
}

//  --- what the broker told ---------------------------------------------------------------------

//  Its session is over: a step that the worker had made in it and could not tell the broker of is void.
static void
s_worker_left (run_t *self, worker_t *worker, const json_t *event)
{
    const json_t *it;
    worker->ever = true;
    for (; (it = s_next (&worker->told)); worker->told.next++) {
        if (part_is (it, "ready") && replay_real (it, "time") >= replay_real (event, "time"))
            return; //  its next one
        if (part_is (it, "learnt"))
            s_learn (self, worker, REPLAY_WORKERS, it, false);
        else if (part_is (it, "restored"))
            s_trunk_restored (self, worker, it);
    }
}

static void
s_went_back (run_t *self, const json_t *event)
{
    uint64_t step = (uint64_t)part_int (event, "step");
    bool all = !part_is (event, "restore") || json_is_true (json_object_get (event, "all"));
    for (size_t i = 0; i < REPLAY_WORKERS; i++)
        if (all || (int64_t)i == part_int (event, "group"))
            replay_forget_replica (self, i);
    if (step == self->committed)
        replay_keep (self);
    else
        replay_undo (self, step);
    if (!all)
        return;
    if (step == self->committed)
        s_saved (self);
    for (size_t i = 0; i < self->count; i++) {
        site_t *site = &self->sites[i];
        if (site->saved > step)
            site->saved = 0; //  a broker that was lost had not noted that save
        if (!site->away)
            site->due[site->session] = site->saved;
    }
    self->committed = self->back_to = step;
    self->is_back = true;
    s_step_over (self);
    self->turn = CASE_SITES;
}

static void
s_gone (const run_t *self, site_t *site)
{
    site->away = site->was_away = true;
    site->stale = self->topology->federate.clients == TL_CLIENTS_AVERAGE;
}

//  Another broker: nobody is there yet. One that has no run to go on with begins it anew.
static void
s_another (run_t *self, const json_t *event)
{
    for (size_t i = 0; i < self->worker_count; i++)
        s_worker_left (self, &self->workers[i], event);
    s_went_back (self, event);
    for (size_t i = 0; i < self->count; i++)
        s_gone (self, &self->sites[i]);
    for (size_t i = 0; i < self->worker_count && part_is (event, "up"); i++)
        replay_set_trunk (self, self->workers[i].trunk, (blob_t){NULL, 0});
}

static void
s_arranged (run_t *self, const json_t *event)
{
    self->groups = (size_t)part_int (event, "groups");
    stage_check (self->stage, self->groups <= REPLAY_WORKERS, "fewer groups");
    self->serial = !json_is_true (json_object_get (event, "batched"));
    self->turn = CASE_SITES;
    for (size_t i = 0; i < REPLAY_WORKERS; i++)
        replay_forget_replica (self, i);
}

static void
s_merged (run_t *self, const json_t *event)
{
    if (!json_is_true (json_object_get (event, "good")))
        return;
    if (s_text_is (event, "kind", "trunk")) {
        replay_merge_trunk (self);
        return;
    }
    size_t i;
    const json_t *made = s_made (self, "clients", event), *member;
    json_array_foreach (json_object_get (made, "members"), i, member) s_come_to_mean (
        self, replay_site (self, json_string_value (member)), replay_real (event, "time"));
    replay_merge_clients (self, made);
    for (i = 0; i < self->count; i++)
        self->sites[i].stale &= self->sites[i].away;
}

static void
s_peer (run_t *self, const json_t *it)
{
    bool here = s_text_is (it, "state", "here");
    if (s_text_is (it, "role", "worker") && !here)
        s_worker_left (self, s_worker (self, part_text (it, "name")), it);
    if (!s_text_is (it, "role", "client"))
        return;
    site_t *site = replay_site (self, part_text (it, "name"));
    site->away = false;
    site->ever |= !here;
    if (!here)
        s_gone (self, site);
    site->session += here;
    stage_check (self->stage, site->session < REPLAY_SESSIONS, "fewer sessions of a client");
    if (here)
        site->due[site->session] = site->saved;
}

static void
s_broker (run_t *self, const json_t *it)
{
    if (part_is (it, "peer"))
        s_peer (self, it);
    else if (part_is (it, "leave")) {
        site_t *site = replay_site (self, part_text (it, "name"));
        site->left_in = site->session;
    } else if (part_is (it, "closed"))
        s_closed (self, it);
    else if (part_is (it, "abandoned"))
        s_step_over (self);
    else if (part_is (it, "restore"))
        s_went_back (self, it);
    else if (part_is (it, "resumed") || (part_is (it, "up") && self->is_up))
        s_another (self, it);
    else if (part_is (it, "decision"))
        s_arranged (self, it);
    else if (part_is (it, "merged"))
        s_merged (self, it);
    self->is_up |= part_is (it, "up");
    self->is_up &= !part_is (it, "resumed");
}

//  --- reading what was told --------------------------------------------------------------------

static bool
s_is_its (const json_t *it, const char *role, const char *name)
{
    const char *part = part_text (it, "part");
    size_t size = strlen (role);
    return strncmp (part, role, size) == 0 && part[size] == '/' &&
           strcmp (part + size + 1, name) == 0;
}

static told_t
s_told (const part_t *up, const char *role, const char *name, const char *what, const char *also)
{
    told_t told = {0};
    size_t count = 0;
    while (part_at (up, count))
        count++;
    told.events = tl_alloc ((count + 1) * sizeof *told.events);
    told.sessions = tl_alloc ((count + 1) * sizeof *told.sessions);
    for (size_t i = 0; i < count; i++) {
        const json_t *it = part_at (up, i);
        if (s_is_its (it, role, name) && (part_is (it, "restored") || part_is (it, what) ||
                                          part_is (it, also) || part_is (it, "taken")))
            told.events[told.count++] = it;
    }
    return told;
}

//  A session that the client is ready in is the last that the broker began before.
static void
s_number_sessions (const part_t *up, site_t *site)
{
    size_t session = 0;
    for (size_t i = 0; i < site->told.count; i++) {
        const json_t *it = site->told.events[i], *other;
        if (part_is (it, "ready")) {
            session = 0;
            for (size_t k = 0; (other = part_at (up, k)); k++)
                session += part_is (other, "peer") && s_text_is (other, "part", "broker") &&
                           s_text_is (other, "role", "client") &&
                           s_text_is (other, "name", site->name) &&
                           s_text_is (other, "state", "here") &&
                           replay_real (other, "time") <= replay_real (it, "time");
        }
        site->told.sessions[i] = session;
    }
}

//  --- all of it --------------------------------------------------------------------------------

//  What was told after the broker was done.
static void
s_end (run_t *self, uint64_t steps)
{
    const json_t *it;
    for (size_t i = 0; i < self->worker_count; i++) {
        worker_t *worker = &self->workers[i];
        for (; (it = s_next (&worker->told)); worker->told.next++)
            if (part_is (it, "learnt"))
                stage_fail (self->stage, "%s made step %lld, which the broker never closed",
                            worker->name, (long long)part_int (it, "step"));
        replay_check_trunk (self, worker, steps);
    }
    for (size_t i = 0; i < self->count; i++) {
        site_t *site = &self->sites[i];
        for (; (it = s_next (&site->told)); site->told.next++)
            if (part_is (it, "step"))
                stage_fail (self->stage, "%s made an update at step %lld, of which no trunk tells",
                            site->name, (long long)part_int (it, "step"));
            else if (part_is (it, "taken"))
                s_taken (self, site, it);
            else if (part_is (it, "restored"))
                s_site_restored (self, site, it);
        replay_check_site (self, site);
    }
}

static void
s_begin (run_t *self)
{
    tl_error_t err;
    const tl_topology_t *t = self->topology = stage_case (self->stage)->topology;
    self->count = t->client_count;
    self->worker_count = t->worker_count;
    self->micros = t->train.micros;
    self->groups = 1;
    self->serial = t->schedule.mode == TL_MODE_SERIAL;
    stage_check (self->stage, self->worker_count <= REPLAY_WORKERS && self->micros <= REPLAY_MICROS,
                 "a run that can be replayed");
    for (size_t i = 0; i < self->worker_count; i++) {
        worker_t *worker = &self->workers[i];
        worker->name = t->workers[i].name;
        worker->trunk = tl_trunk_new (t, i, &err);
        replay_must (self, worker->trunk != NULL, &err);
        worker->told = s_told (self->up, "worker", worker->name, "learnt", "ready");
    }
    for (size_t i = 0; i < self->count; i++) {
        site_t *site = &self->sites[i];
        site->name = t->clients[i].name;
        site->site = tl_site_new (t, i, true, &err);
        replay_must (self, site->site != NULL, &err);
        site->told = s_told (self->up, "client", site->name, "step", "ready");
        s_number_sessions (self->up, site);
    }
    for (size_t i = 0; i < 2; i++)
        self->aggregates[i] = tl_aggregate_new (&t->federate.server);
}

static void
s_clear (run_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        tl_site_destroy (&self->sites[i].site);
        replay_clear (&self->sites[i].past);
        free (self->sites[i].untold.data);
        free (self->sites[i].told.events);
        free (self->sites[i].told.sessions);
    }
    for (size_t i = 0; i < self->worker_count; i++) {
        tl_trunk_destroy (&self->workers[i].trunk);
        free (self->replicas[i].blob.data);
        free (self->workers[i].told.events);
        free (self->workers[i].told.sessions);
    }
    for (size_t i = 0; i < self->mean_count; i++)
        free (self->means[i].blob.data);
    for (size_t i = 0; i < 2; i++)
        tl_aggregate_destroy (&self->aggregates[i]);
    replay_clear (&self->past);
}

replay_t
replay_run (const stage_t *stage, const part_t *up)
{
    tl_kernels_use (1);
    run_t *self = tl_alloc (sizeof *self);
    self->stage = stage;
    self->up = up;
    s_begin (self);
    uint64_t steps = 0;
    const json_t *it;
    for (size_t i = 0; (it = part_at (up, i)); i++)
        if (s_text_is (it, "part", "broker")) {
            s_broker (self, it);
            steps = part_is (it, "done") ? (uint64_t)part_int (it, "steps") : steps;
        }
    s_end (self, steps);
    replay_t result = self->result;
    s_clear (self);
    free (self);
    return result;
}
