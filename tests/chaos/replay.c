//  replay: see replay.h. What the broker told is one line of time. What a client told is put beside it by its sessions: all
//  that it told in one comes before what it did in the next. What the worker told of a step is taken when the broker closed
//  that step, or when a step that never was closed came to nothing.

#include "chaos/replay.h"

#include "fed/site.h"
#include "fed/trunk.h"
#include "file.h"
#include "kernels/kernels.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_STEPS = 256,
    MOST_MICROS = 4,
    SESSIONS = 32,
    MOST_SEQUENCES = 64,
    MOST_TERMS = 256,
    MOST_FILE = 1 << 26
};

typedef struct {
    void *data; //  NULL: none
    size_t size;
} blob_t;

//  A part's state by how many of the run's steps were committed when it became so, and what was there before it went back.
typedef struct {
    blob_t now[MOST_STEPS + 1], older[MOST_STEPS + 1];
} past_t;

//  What an actor told, in its order.
typedef struct {
    const json_t **events;
    size_t *sessions; //  a client's: in which of its sessions, from 1
    size_t count, next;
} told_t;

typedef struct {
    const char *name;
    tl_site_t *site;
    told_t told;
    past_t past;
    size_t session;            //  it is in, as the broker told so far
    size_t left_in;            //  it left the open step in that one; 0: it did not
    bool away, was_away, ever; //  now; since the last step; at all
    uint64_t saved;            //  the newest common save that it was there for
    uint64_t due[SESSIONS]; //  the same as it last was told to go back, or began, in each session
    bool at_work;           //  it has had a share of a step in the session that it told of last
    blob_t untold;          //  what it is if it made an update and was killed before it told so
    uint64_t untold_step;
    //  Of the step at hand
    size_t rows, gradients; //  micros of which the trunk had them
    const json_t *update;   //  what it told of its own, or NULL
} site_t;

typedef struct {
    const stage_t *stage;
    const tl_topology_t *topology;
    site_t sites[CASE_SITES];
    size_t count, micros;
    tl_trunk_t *trunk;
    told_t told;                 //  the worker
    past_t past;                 //  the trunk's
    uint64_t committed, back_to; //  steps; the common save that all went back to last
    bool is_back;                //  and no step was made since
    size_t turn;                 //  one by one: whose is the next; CASE_SITES: not known
    replay_t result;
} run_t;

static void
s_must (const run_t *self, bool good, const tl_error_t *err)
{
    if (!good)
        stage_fail (self->stage, "replay: %s", err->text);
}

static double
s_real (const json_t *event, const char *key)
{
    return json_number_value (json_object_get (event, key));
}

static bool
s_text_is (const json_t *event, const char *key, const char *text)
{
    return strcmp (part_text (event, key), text) == 0;
}

//  --- states -----------------------------------------------------------------------------------

static void
s_put (blob_t *to, blob_t blob)
{
    free (to->data);
    *to = blob;
}

static void
s_back_to (past_t *self, uint64_t step)
{
    for (size_t i = step + 1; i <= MOST_STEPS; i++)
        if (self->now[i].data) {
            s_put (&self->older[i], self->now[i]);
            self->now[i] = (blob_t){NULL, 0};
        }
}

//  older: as it was before it last went back.
static blob_t
s_as_of (const past_t *self, uint64_t step, bool older)
{
    for (size_t i = step; i > 0; i--) {
        if (older && self->older[i].data)
            return self->older[i];
        if (self->now[i].data)
            return self->now[i];
    }
    return (blob_t){NULL, 0};
}

static void
s_clear_past (past_t *self)
{
    for (size_t i = 0; i <= MOST_STEPS; i++) {
        free (self->now[i].data);
        free (self->older[i].data);
    }
}

static void
s_set_site (const run_t *self, tl_site_t *site, blob_t blob)
{
    tl_error_t err;
    int rc = blob.data ? tl_site_state_set (site, blob.data, blob.size, &err)
                       : tl_site_fresh (site, &err);
    s_must (self, rc == 0, &err);
}

static void
s_set_trunk (const run_t *self, blob_t blob)
{
    tl_error_t err;
    int rc = blob.data ? tl_trunk_take (self->trunk, blob.data, blob.size, &err)
                       : tl_trunk_fresh (self->trunk, &err);
    s_must (self, rc == 0, &err);
}

static blob_t
s_site_blob (const tl_site_t *site)
{
    blob_t blob;
    blob.data = tl_site_state_get (site, &blob.size);
    return blob;
}

//  A client went back to a save of its own, or began with it as a new process.
static void
s_site_restored (const run_t *self, site_t *site, const json_t *it)
{
    uint64_t step = (uint64_t)part_int (it, "step"), own = (uint64_t)part_int (it, "own");
    s_back_to (&site->past, step);
    s_set_site (self, site->site, s_as_of (&site->past, step, false));
    if (tl_site_cursor (site->site) != own && site->untold.data && site->untold_step <= step) {
        s_put (&site->past.now[site->untold_step], site->untold);
        site->untold = (blob_t){NULL, 0};
        s_set_site (self, site->site, site->past.now[site->untold_step]);
    }
    if (tl_site_cursor (site->site) != own)
        stage_fail (self->stage,
                    "replay: %s went back to its save of step %llu, which has %llu steps of its "
                    "own, not %llu",
                    site->name, (unsigned long long)step, (unsigned long long)own,
                    (unsigned long long)tl_site_cursor (site->site));
}

static void
s_trunk_restored (run_t *self, const json_t *it)
{
    uint64_t step = (uint64_t)part_int (it, "step");
    if (step != self->back_to && step != self->committed)
        stage_fail (self->stage, "the trunk went back to step %llu, all others to step %llu",
                    (unsigned long long)step, (unsigned long long)self->back_to);
    s_back_to (&self->past, step);
    s_set_trunk (self, s_as_of (&self->past, step, false));
}

//  --- one step, as the worker told of it -------------------------------------------------------

//  Several batches as the worker sees them: one after another, without ids and labels.
typedef struct {
    tl_batch_t batch;
    uint32_t length[MOST_SEQUENCES], context[MOST_SEQUENCES], mask[MOST_SEQUENCES];
    uint64_t number[MOST_SEQUENCES];
    float *rows, *gradient;   //  [rows, hidden] of all that have a share
    size_t share[CASE_SITES]; //  values of each in these
} joined_t;

static void
s_add (joined_t *self, const tl_batch_t *batch)
{
    tl_batch_t *all = &self->batch;
    for (size_t i = 0; i < batch->sequences; i++, all->sequences++) {
        self->length[all->sequences] = batch->length[i];
        self->context[all->sequences] = batch->context[i];
        self->mask[all->sequences] = batch->mask[i];
        self->number[all->sequences] = batch->number[i];
    }
    all->rows += batch->rows;
}

//  The way there of one micro; returns the label tokens that count.
static uint64_t
s_there (run_t *self, size_t micro, joined_t *joined)
{
    size_t hidden = tl_trunk_hidden (self->trunk), at = 0;
    const float *fronts[CASE_SITES];
    uint64_t labels = 0;
    *joined = (joined_t){.batch.length = joined->length,
                         .batch.context = joined->context,
                         .batch.mask = joined->mask,
                         .batch.number = joined->number};
    for (size_t i = 0; i < self->count; i++) {
        const tl_batch_t *batch;
        if (micro >= self->sites[i].rows)
            continue;
        fronts[i] = tl_site_front (self->sites[i].site, micro, &batch);
        joined->share[i] = batch->rows * hidden;
        s_add (joined, batch);
    }
    if (!joined->batch.rows)
        return 0;
    joined->rows = tl_alloc_aligned (joined->batch.rows * hidden * sizeof (float));
    joined->gradient = tl_alloc_aligned (joined->batch.rows * hidden * sizeof (float));
    for (size_t i = 0; i < self->count; at += joined->share[i++])
        if (joined->share[i])
            memcpy (joined->rows + at, fronts[i], joined->share[i] * sizeof (float));
    const float *out = tl_trunk_forward (self->trunk, micro, &joined->batch, joined->rows);
    at = 0;
    for (size_t i = 0; i < self->count; at += joined->share[i++]) {
        if (!joined->share[i])
            continue;
        uint64_t its = tl_site_tail (self->sites[i].site, micro, out + at, joined->gradient + at);
        if (micro < self->sites[i].gradients)
            labels += its;
        else
            memset (joined->gradient + at, 0, joined->share[i] * sizeof (float));
    }
    return labels;
}

//  The way back, to those that had all of the step.
static void
s_back (run_t *self, size_t micro, joined_t *joined)
{
    if (!joined->batch.rows)
        return;
    size_t at = 0;
    tl_trunk_backward (self->trunk, micro, joined->gradient, joined->rows);
    for (size_t i = 0; i < self->count; at += joined->share[i++])
        if (joined->share[i] && self->sites[i].gradients == self->micros)
            tl_site_back (self->sites[i].site, micro, joined->rows + at);
    free (joined->rows);
    free (joined->gradient);
}

//  Its own update, as it told of it; or none, and what it would have come to is kept in case it had no time to tell.
static void
s_update_site (run_t *self, site_t *site, uint64_t step, uint64_t labels, double norm)
{
    tl_error_t err;
    tl_norm_term_t terms[MOST_TERMS];
    uint64_t own;
    double nll;
    if (site->gradients < self->micros) {
        tl_site_drop (site->site);
        return;
    }
    s_must (self, tl_site_commit (site->site, terms, &own, &nll, &err) == 0, &err);
    blob_t before = s_site_blob (site->site);
    s_must (self, tl_site_update (site->site, labels, norm, &err) == 0, &err);
    if (!site->update) {
        s_put (&site->untold, s_site_blob (site->site));
        site->untold_step = step + 1;
        s_set_site (self, site->site, before);
    } else {
        double loss = nll / (double)own, told = s_real (site->update, "loss");
        if (loss != told || own != (uint64_t)part_int (site->update, "labels"))
            stage_fail (self->stage,
                        "step %llu of %s has loss %.17g of %lld label tokens; computed again with "
                        "the same members %.17g of %llu",
                        (unsigned long long)step, site->name, told,
                        (long long)part_int (site->update, "labels"), loss,
                        (unsigned long long)own);
        s_put (&site->past.now[step + 1], s_site_blob (site->site));
        self->result.losses++;
    }
    free (before.data);
}

static void
s_compute (run_t *self, const json_t *it)
{
    static joined_t joined[MOST_MICROS];
    tl_error_t err;
    tl_norm_term_t none;
    uint64_t step = (uint64_t)part_int (it, "step"), round = (uint64_t)part_int (it, "round");
    uint64_t labels = 0;
    for (size_t i = 0; i < self->count; i++)
        if (self->sites[i].rows)
            tl_site_begin (self->sites[i].site, round, self->micros);
    tl_trunk_begin (self->trunk, round, self->micros);
    for (size_t m = 0; m < self->micros; m++)
        labels += s_there (self, m, &joined[m]);
    for (size_t m = 0; m < self->micros; m++)
        s_back (self, m, &joined[m]);
    double norm = tl_trunk_norm (self->trunk, &none, 0, labels), told = s_real (it, "norm");
    if (norm != told || labels != (uint64_t)part_int (it, "labels"))
        stage_fail (self->stage,
                    "step %llu has norm %.17g of %lld label tokens; computed again with the same "
                    "members %.17g of %llu",
                    (unsigned long long)step, told, (long long)part_int (it, "labels"), norm,
                    (unsigned long long)labels);
    s_must (self, tl_trunk_update (self->trunk, labels, norm, &err) == 0, &err);
    blob_t blob;
    blob.data = tl_part_state_get (tl_trunk_part (self->trunk), &blob.size);
    s_put (&self->past.now[step + 1], blob);
    for (size_t i = 0; i < self->count; i++)
        if (self->sites[i].rows)
            s_update_site (self, &self->sites[i], step, labels, norm);
    self->result.steps++;
}

//  --- who was in it, and as what ---------------------------------------------------------------

static site_t *
s_site (run_t *self, const char *name)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp (self->sites[i].name, name) == 0)
            return &self->sites[i];
    stage_fail (self->stage, "replay: there is no site %s", name);
}

static void
s_seat (run_t *self, const json_t *it)
{
    size_t i;
    const json_t *member;
    for (i = 0; i < self->count; i++)
        self->sites[i].rows = self->sites[i].gradients = 0;
    json_array_foreach (json_object_get (it, "members"), i, member)
    {
        site_t *site = s_site (self, json_string_value (member));
        site->rows = site->gradients = self->micros;
    }
    json_array_foreach (json_object_get (it, "left"), i, member)
    {
        site_t *site = s_site (self, part_text (member, "name"));
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
            if ((uint64_t)part_int (it, "step") == step) {
                site->update = it;
                told->next++;
            }
            break;
        } else if (!closed && site->at_work)
            break;
        else
            s_site_restored (self, site, last = it);
    }
    uint64_t due = site->due[session];
    if (last && (uint64_t)part_int (last, "step") < due)
        stage_fail (self->stage, "%s went back to its save of step %lld, and has one of step %llu",
                    site->name, (long long)part_int (last, "step"), (unsigned long long)due);
    site->at_work = true;
}

static void
s_learn (run_t *self, const json_t *it, bool closed)
{
    uint64_t step = (uint64_t)part_int (it, "step");
    if (step >= MOST_STEPS)
        stage_fail (self->stage, "replay: step %llu is too many", (unsigned long long)step);
    s_seat (self, it);
    for (size_t i = 0; i < self->count; i++)
        if (self->sites[i].rows)
            s_come_to (self, &self->sites[i], step, closed);
    s_compute (self, it);
}

//  A site that is no member, or not with all of its micros, had been away.
static void
s_check_members (run_t *self, const json_t *it)
{
    bool serial = self->topology->schedule.mode == TL_MODE_SERIAL;
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
        const site_t *site = &self->sites[(due + k) % self->count];
        if (site->gradients == self->micros)
            continue;
        self->result.missed++;
        if (!site->was_away)
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
    const json_t *it;
    while ((it = s_next (&self->told)) && part_is (it, "restored")) {
        s_trunk_restored (self, it);
        self->told.next++;
    }
    if (!it || part_int (it, "step") != part_int (closed, "step") ||
        s_real (it, "norm") != s_real (closed, "norm") ||
        part_int (it, "labels") != part_int (closed, "labels"))
        stage_fail (self->stage, "replay: the worker told nothing of step %lld, or something else",
                    (long long)part_int (closed, "step"));
    self->told.next++;
    if (self->committed % self->topology->checkpoint.every == 0)
        s_saved (self);
    s_learn (self, it, true);
    s_check_members (self, it);
    s_step_over (self);
    self->committed = (uint64_t)part_int (it, "step") + 1;
    self->is_back = false;
}

//  All go back. A step that the worker had made and could not tell the broker of is behind that.
static void
s_went_back (run_t *self, uint64_t step)
{
    const json_t *it;
    for (; (it = s_next (&self->told)) && part_is (it, "learnt"); self->told.next++)
        s_learn (self, it, false);
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
s_peer (run_t *self, const json_t *it)
{
    if (!s_text_is (it, "role", "client"))
        return;
    site_t *site = s_site (self, part_text (it, "name"));
    site->away = !s_text_is (it, "state", "here");
    site->was_away |= site->away;
    site->ever |= site->away;
    site->session += !site->away;
    stage_check (self->stage, site->session < SESSIONS, "fewer sessions of a client");
    if (!site->away)
        site->due[site->session] = site->saved;
}

static void
s_broker (run_t *self, const json_t *it)
{
    if (part_is (it, "peer"))
        s_peer (self, it);
    else if (part_is (it, "leave"))
        s_site (self, part_text (it, "name"))->left_in =
            s_site (self, part_text (it, "name"))->session;
    else if (part_is (it, "closed"))
        s_closed (self, it);
    else if (part_is (it, "abandoned"))
        s_step_over (self);
    else if (part_is (it, "restore"))
        s_went_back (self, (uint64_t)part_int (it, "step"));
    else if (part_is (it, "resumed")) {
        s_went_back (self, (uint64_t)part_int (it, "step"));
        //  Another broker: nobody is there yet
        for (size_t i = 0; i < self->count; i++)
            self->sites[i].away = self->sites[i].was_away = true;
    }
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
s_told (const part_t *up, const char *role, const char *name, const char *what)
{
    told_t told = {0};
    size_t count = 0;
    while (part_at (up, count))
        count++;
    told.events = tl_alloc ((count + 1) * sizeof *told.events);
    told.sessions = tl_alloc ((count + 1) * sizeof *told.sessions);
    for (size_t i = 0; i < count; i++) {
        const json_t *it = part_at (up, i);
        if (s_is_its (it, role, name) &&
            (part_is (it, "restored") || part_is (it, "ready") || part_is (it, what)))
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
                           s_real (other, "time") <= s_real (it, "time");
        }
        site->told.sessions[i] = session;
    }
}

//  --- the end ----------------------------------------------------------------------------------

static bool
s_is_adapter (const run_t *self, const tl_part_t *part, const char *name)
{
    tl_error_t err;
    char *ours = tl_format ("%s/replay", stage_case (self->stage)->directory);
    char *theirs = case_adapter (stage_case (self->stage), name);
    s_must (self, tl_part_save_adapter (part, ours, &err) == 0, &err);
    char *paths[2] = {tl_format ("%s/adapter_model.safetensors", ours),
                      tl_format ("%s/adapter_model.safetensors", theirs)};
    char *data[2];
    size_t size[2];
    for (size_t i = 0; i < 2; i++) {
        data[i] = tl_file_read (paths[i], MOST_FILE, &size[i], &err);
        s_must (self, data[i] != NULL, &err);
    }
    bool same = size[0] == size[1] && memcmp (data[0], data[1], size[0]) == 0;
    for (size_t i = 0; i < 2; i++) {
        free (paths[i]);
        free (data[i]);
    }
    free (ours);
    free (theirs);
    return same;
}

//  Of which step the adapter is that the part left; -1: it left none.
static int64_t
s_adapter_step (const run_t *self, const char *name)
{
    tl_error_t err;
    char *path =
        tl_format ("%s/runs/case/%s/adapter.step", stage_case (self->stage)->directory, name);
    char *text = tl_file_read (path, 64, NULL, &err);
    int64_t step = text ? atoll (text) : -1;
    free (text);
    free (path);
    return step;
}

//  Whoever was away at the end left what it saved before, perhaps before it went back for the last time.
static void
s_check_site_adapter (run_t *self, site_t *site)
{
    int64_t step = s_adapter_step (self, site->name);
    if (step < 0 && site->ever)
        return;
    bool same = false;
    for (int older = 0; older < 2 && step >= 0 && step <= MOST_STEPS && !same; older++) {
        s_set_site (self, site->site, s_as_of (&site->past, (uint64_t)step, older));
        same = s_is_adapter (self, tl_site_part (site->site), site->name);
    }
    if (!same)
        stage_fail (self->stage, "%s left another adapter of step %lld than computed again",
                    site->name, (long long)step);
}

static void
s_end (run_t *self, uint64_t steps)
{
    const json_t *it;
    for (; (it = s_next (&self->told)); self->told.next++)
        if (part_is (it, "restored"))
            s_trunk_restored (self, it);
        else
            stage_fail (self->stage, "the worker made step %lld, which the broker never closed",
                        (long long)part_int (it, "step"));
    for (size_t i = 0; i < self->count; i++) {
        site_t *site = &self->sites[i];
        for (; (it = s_next (&site->told)); site->told.next++)
            if (part_is (it, "step"))
                stage_fail (self->stage, "%s made an update at step %lld, of which no trunk tells",
                            site->name, (long long)part_int (it, "step"));
            else if (part_is (it, "restored"))
                s_site_restored (self, site, it);
        s_check_site_adapter (self, site);
    }
    const char *name = self->topology->workers[0].name;
    s_set_trunk (self, s_as_of (&self->past, steps, false));
    if (s_adapter_step (self, name) != (int64_t)steps ||
        !s_is_adapter (self, tl_trunk_part (self->trunk), name))
        stage_fail (self->stage, "%s left another adapter than computed again", name);
}

static void
s_begin (run_t *self, const part_t *up)
{
    tl_error_t err;
    self->topology = stage_case (self->stage)->topology;
    self->count = self->topology->client_count;
    self->micros = self->topology->train.micros;
    stage_check (self->stage, self->topology->worker_count == 1 && self->micros <= MOST_MICROS,
                 "a run that can be replayed");
    s_must (self, (self->trunk = tl_trunk_new (self->topology, 0, &err)) != NULL, &err);
    self->told = s_told (up, "worker", self->topology->workers[0].name, "learnt");
    size_t kept = 0;
    for (size_t i = 0; i < self->told.count; i++)
        if (!part_is (self->told.events[i], "ready"))
            self->told.events[kept++] = self->told.events[i];
    self->told.count = kept;
    for (size_t i = 0; i < self->count; i++) {
        site_t *site = &self->sites[i];
        site->name = self->topology->clients[i].name;
        site->site = tl_site_new (self->topology, i, true, &err);
        s_must (self, site->site != NULL, &err);
        site->told = s_told (up, "client", site->name, "step");
        s_number_sessions (up, site);
    }
}

replay_t
replay_run (const stage_t *stage, const part_t *up)
{
    tl_kernels_use (1);
    run_t *self = tl_alloc (sizeof *self);
    self->stage = stage;
    s_begin (self, up);
    uint64_t steps = 0;
    const json_t *it;
    for (size_t i = 0; (it = part_at (up, i)); i++)
        if (s_text_is (it, "part", "broker")) {
            s_broker (self, it);
            steps = part_is (it, "done") ? (uint64_t)part_int (it, "steps") : steps;
        }
    s_end (self, steps);
    replay_t result = self->result;
    for (size_t i = 0; i < self->count; i++) {
        tl_site_destroy (&self->sites[i].site);
        s_clear_past (&self->sites[i].past);
        free (self->sites[i].untold.data);
        free (self->sites[i].told.events);
        free (self->sites[i].told.sessions);
    }
    tl_trunk_destroy (&self->trunk);
    s_clear_past (&self->past);
    free (self->told.events);
    free (self->told.sessions);
    free (self);
    return result;
}
