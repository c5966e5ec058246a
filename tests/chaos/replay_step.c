//  replay_step: see replay_step.h.

#include "chaos/replay_step.h"

#include "file.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_SEQUENCES = 64, MOST_TERMS = 256, MOST_FILE = 1 << 26 };

void
replay_must (const run_t *self, bool good, const tl_error_t *err)
{
    if (!good)
        stage_fail (self->stage, "replay: %s", err->text);
}

double
replay_real (const json_t *event, const char *key)
{
    return json_number_value (json_object_get (event, key));
}

//  --- states -----------------------------------------------------------------------------------

void
replay_put (blob_t *to, blob_t blob)
{
    free (to->data);
    *to = blob;
}

void
replay_back_to (past_t *self, uint64_t step)
{
    for (size_t i = step + 1; i <= REPLAY_STEPS; i++)
        if (self->now[i].data) {
            replay_put (&self->older[i], self->now[i]);
            self->now[i] = (blob_t){NULL, 0};
        }
}

//  older: as it was before it last went back.
blob_t
replay_as_of (const past_t *self, uint64_t step, bool older)
{
    for (size_t i = step; i > 0; i--) {
        if (older && self->older[i].data)
            return self->older[i];
        if (self->now[i].data)
            return self->now[i];
    }
    return (blob_t){NULL, 0};
}

void
replay_clear (past_t *self)
{
    for (size_t i = 0; i <= REPLAY_STEPS; i++) {
        free (self->now[i].data);
        free (self->older[i].data);
    }
}

void
replay_set_site (const run_t *self, tl_site_t *site, blob_t blob)
{
    tl_error_t err;
    int rc = blob.data ? tl_site_state_set (site, blob.data, blob.size, &err)
                       : tl_site_fresh (site, &err);
    replay_must (self, rc == 0, &err);
}

void
replay_set_trunk (const run_t *self, tl_trunk_t *trunk, blob_t blob)
{
    tl_error_t err;
    int rc = blob.data ? tl_trunk_take (trunk, blob.data, blob.size, &err)
                       : tl_trunk_fresh (trunk, &err);
    replay_must (self, rc == 0, &err);
}

blob_t
replay_site_blob (const tl_site_t *site)
{
    blob_t blob;
    blob.data = tl_site_state_get (site, &blob.size);
    return blob;
}

blob_t
replay_trunk_blob (tl_trunk_t *trunk)
{
    blob_t blob;
    blob.data = tl_part_state_get (tl_trunk_part (trunk), &blob.size);
    return blob;
}

//  --- one step ---------------------------------------------------------------------------------

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
s_there (run_t *self, tl_trunk_t *trunk, size_t micro, joined_t *joined)
{
    size_t hidden = tl_trunk_hidden (trunk), at = 0;
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
    const float *out = tl_trunk_forward (trunk, micro, &joined->batch, joined->rows);
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
s_back (run_t *self, tl_trunk_t *trunk, size_t micro, joined_t *joined)
{
    if (!joined->batch.rows)
        return;
    size_t at = 0;
    tl_trunk_backward (trunk, micro, joined->gradient, joined->rows);
    for (size_t i = 0; i < self->count; at += joined->share[i++])
        if (joined->share[i] && self->sites[i].gradients == self->micros)
            tl_site_back (self->sites[i].site, micro, joined->rows + at);
    free (joined->rows);
    free (joined->gradient);
}

//  split: none: all micros at those that are in the step, of whole models; returns the label tokens.
static uint64_t
s_learn (run_t *self)
{
    uint64_t labels = 0;
    for (size_t i = 0; i < self->count; i++)
        for (size_t m = 0; m < self->sites[i].rows; m++)
            labels += tl_site_learn (self->sites[i].site, m);
    return labels;
}

//  There and back through the trunk.
static uint64_t
s_pass (run_t *self, tl_trunk_t *trunk)
{
    static joined_t joined[REPLAY_MICROS];
    uint64_t labels = 0;
    for (size_t m = 0; m < self->micros; m++)
        labels += s_there (self, trunk, m, &joined[m]);
    for (size_t m = 0; m < self->micros; m++)
        s_back (self, trunk, m, &joined[m]);
    return labels;
}

//  A member that had all of its micros there.
static bool
s_is_whole (const run_t *self, const site_t *site)
{
    return site->rows && site->gradients == self->micros;
}

//  The gradient of all in place of its own, which those in the list have brought. Returns the terms.
static size_t
s_sum (run_t *self, const json_t *sum, tl_norm_term_t *terms)
{
    tl_error_t err;
    tl_contribution_t parts[CASE_SITES] = {{.name = NULL}};
    size_t count, size, term_count = 0;
    const json_t *member;
    json_array_foreach (json_object_get (sum, "members"), count, member)
    {
        const site_t *site = replay_site (self, json_string_value (member));
        if (!s_is_whole (self, site))
            stage_fail (self->stage, "the gradient of %s was summed, of which the trunk had less",
                        site->name);
        parts[count].name = site->name;
        parts[count].blob = tl_site_gradient (site->site, &parts[count].size);
    }
    void *blob = count ? tl_aggregate_sum (parts, count, &size, &err) : NULL;
    for (size_t i = 0; i < count; i++)
        free ((void *)parts[i].blob);
    for (size_t i = 0; i < self->count && blob; i++)
        if (s_is_whole (self, &self->sites[i])) {
            int rc = tl_site_sum_up (self->sites[i].site, blob, size, terms, &err);
            replay_must (self, rc == 0, &err);
            term_count = tl_part_tensors (tl_site_part (self->sites[i].site));
        }
    free (blob);
    return term_count;
}

//  Ends accumulation at all that had everything. Returns how many terms of them enter the norm.
static size_t
s_commit (run_t *self, const json_t *sum, tl_norm_term_t *terms)
{
    tl_error_t err;
    size_t here = 0, count = 0;
    for (size_t i = 0; i < self->count; i++) {
        site_t *site = &self->sites[i];
        here += site->rows && !site->left;
        if (!s_is_whole (self, site))
            continue;
        int rc = tl_site_commit (site->site, terms, &site->own, &site->nll, &err);
        replay_must (self, rc == 0, &err);
    }
    if (self->topology->federate.clients == TL_CLIENTS_SYNC)
        count = s_sum (self, sum, terms);
    return here ? count : 0;
}

//  Its own update, as it told of it; or none, and what it would have come to is kept in case it had no time to tell.
static void
s_update_site (run_t *self, site_t *site, uint64_t step, uint64_t labels, double norm)
{
    tl_error_t err;
    if (!s_is_whole (self, site)) {
        tl_site_drop (site->site);
        return;
    }
    blob_t before = replay_site_blob (site->site);
    replay_must (self, tl_site_update (site->site, labels, norm, &err) == 0, &err);
    if (!site->update) {
        replay_put (&site->untold, replay_site_blob (site->site));
        site->untold_step = step + 1;
        replay_set_site (self, site->site, before);
    } else {
        double loss = site->nll / (double)site->own, told = replay_real (site->update, "loss");
        if (norm != replay_real (site->update, "norm"))
            stage_fail (self->stage, "step %llu of %s has norm %.17g, at its worker %.17g",
                        (unsigned long long)step, site->name, replay_real (site->update, "norm"),
                        norm);
        if (loss != told || site->own != (uint64_t)part_int (site->update, "labels"))
            stage_fail (self->stage,
                        "step %llu of %s has loss %.17g of %lld label tokens; computed again with "
                        "the same members %.17g of %llu",
                        (unsigned long long)step, site->name, told,
                        (long long)part_int (site->update, "labels"), loss,
                        (unsigned long long)site->own);
        replay_put (&site->past.now[step + 1], replay_site_blob (site->site));
        self->result.losses++;
    }
    free (before.data);
}

//  The trunk's state after it goes to where it is looked for: of the only one, or of one of several.
static void
s_keep_trunk (run_t *self, tl_trunk_t *trunk, uint64_t step, size_t group)
{
    blob_t blob = replay_trunk_blob (trunk);
    if (self->groups > 1 && group >= self->groups)
        free (blob.data); //  nobody will ask for it
    else if (self->groups > 1) {
        replay_put (&self->replicas[group].blob, blob);
        self->replicas[group].labels = tl_trunk_learnt (trunk);
    } else
        replay_put (&self->past.now[step + 1], blob);
}

void
replay_compute (run_t *self, worker_t *worker, size_t group, const json_t *it, const json_t *sum)
{
    tl_error_t err;
    tl_norm_term_t terms[MOST_TERMS];
    uint64_t step = (uint64_t)part_int (it, "step"), round = (uint64_t)part_int (it, "round");
    for (size_t i = 0; i < self->count; i++)
        if (self->sites[i].rows)
            tl_site_begin (self->sites[i].site, self->sites[i].round, self->micros);
    tl_trunk_begin (worker->trunk, round, self->micros);
    uint64_t labels = self->topology->split.none ? s_learn (self) : s_pass (self, worker->trunk);
    size_t count = s_commit (self, sum, terms);
    double norm = tl_trunk_norm (worker->trunk, terms, count, labels);
    if (norm != replay_real (it, "norm") || labels != (uint64_t)part_int (it, "labels"))
        stage_fail (self->stage,
                    "step %llu has norm %.17g of %lld label tokens; computed again with the same "
                    "members %.17g of %llu",
                    (unsigned long long)step, replay_real (it, "norm"),
                    (long long)part_int (it, "labels"), norm, (unsigned long long)labels);
    replay_must (self, tl_trunk_update (worker->trunk, labels, norm, &err) == 0, &err);
    s_keep_trunk (self, worker->trunk, step, group);
    for (size_t i = 0; i < self->count; i++)
        if (self->sites[i].rows)
            s_update_site (self, &self->sites[i], step, labels, norm);
    self->result.steps++;
}

//  --- means ------------------------------------------------------------------------------------

static blob_t
s_mean (run_t *self, tl_aggregate_t *aggregate, tl_contribution_t *parts, size_t count)
{
    tl_error_t err;
    blob_t blob;
    blob.data = tl_aggregate_mean (aggregate, parts, count, 1, &blob.size, &err);
    replay_must (self, blob.data != NULL, &err);
    for (size_t i = 0; i < count; i++)
        if (!parts[i].used)
            stage_fail (self->stage, "replay: %s is not in the mean: %s", parts[i].name,
                        parts[i].refusal);
    return blob;
}

void
replay_forget_replica (run_t *self, size_t group)
{
    replay_put (&self->replicas[group].blob, (blob_t){NULL, 0});
    self->replicas[group].labels = 0;
}

//  A group that made no step has what the period began with.
void
replay_merge_trunk (run_t *self)
{
    tl_contribution_t parts[REPLAY_WORKERS] = {{.name = NULL}};
    blob_t began = replay_as_of (&self->past, self->committed, false), fresh = {NULL, 0};
    bool idle = false;
    for (size_t i = 0; i < self->groups; i++)
        idle |= !self->replicas[i].blob.data;
    if (idle && !began.data) {
        replay_set_trunk (self, self->workers[0].trunk, began);
        began = fresh = replay_trunk_blob (self->workers[0].trunk);
    }
    for (size_t i = 0; i < self->groups; i++) {
        blob_t blob = self->replicas[i].blob.data ? self->replicas[i].blob : began;
        parts[i] = (tl_contribution_t){.name = "a replica",
                                       .blob = blob.data,
                                       .size = blob.size,
                                       .labels = self->replicas[i].labels};
    }
    replay_put (&self->past.now[self->committed],
                s_mean (self, self->aggregates[0], parts, self->groups));
    free (fresh.data);
}

void
replay_merge_clients (run_t *self, const json_t *made)
{
    tl_contribution_t parts[CASE_SITES] = {{.name = NULL}};
    size_t count;
    const json_t *member;
    json_array_foreach (json_object_get (made, "members"), count, member)
    {
        const site_t *site = replay_site (self, json_string_value (member));
        parts[count].name = site->name;
        parts[count].blob = tl_site_share (site->site, &parts[count].size);
        parts[count].labels = tl_site_learnt (site->site);
    }
    stage_check (self->stage, self->mean_count < REPLAY_STEPS, "fewer means");
    self->means[self->mean_count++] = (mean_t){replay_real (made, "time"), self->committed,
                                               s_mean (self, self->aggregates[1], parts, count)};
    for (size_t i = 0; i < count; i++)
        free ((void *)parts[i].blob);
}

void
replay_keep (run_t *self)
{
    for (size_t i = 0; i < 2; i++)
        tl_server_keep (tl_aggregate_server (self->aggregates[i]));
}

void
replay_undo (run_t *self, uint64_t step)
{
    for (size_t i = 0; i < 2; i++)
        tl_server_drop (tl_aggregate_server (self->aggregates[i]));
    replay_back_to (&self->past, step);
}

//  --- what is left -------------------------------------------------------------------------------

static bool
s_is_adapter (const run_t *self, const tl_part_t *part, const char *name)
{
    tl_error_t err;
    char *ours = tl_format ("%s/replay", stage_case (self->stage)->directory);
    char *theirs = case_adapter (stage_case (self->stage), name);
    replay_must (self, tl_part_save_adapter (part, ours, &err) == 0, &err);
    char *paths[2] = {tl_format ("%s/adapter_model.safetensors", ours),
                      tl_format ("%s/adapter_model.safetensors", theirs)};
    char *data[2];
    size_t size[2];
    for (size_t i = 0; i < 2; i++) {
        data[i] = tl_file_read (paths[i], MOST_FILE, &size[i], &err);
        replay_must (self, data[i] != NULL, &err);
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
void
replay_check_site (run_t *self, site_t *site)
{
    int64_t step = s_adapter_step (self, site->name);
    if (step < 0 && site->ever)
        return;
    bool same = false;
    for (int older = 0; older < 2 && step >= 0 && step <= REPLAY_STEPS && !same; older++) {
        replay_set_site (self, site->site, replay_as_of (&site->past, (uint64_t)step, older));
        same = s_is_adapter (self, tl_site_part (site->site), site->name);
    }
    if (!same)
        stage_fail (self->stage, "%s left another adapter of step %lld than computed again",
                    site->name, (long long)step);
}

void
replay_check_trunk (run_t *self, worker_t *worker, uint64_t steps)
{
    int64_t step = s_adapter_step (self, worker->name);
    if (self->topology->split.none ||
        (step != (int64_t)steps && worker->ever && self->worker_count > 1))
        return;
    replay_set_trunk (self, worker->trunk, replay_as_of (&self->past, steps, false));
    if (step != (int64_t)steps || !s_is_adapter (self, tl_trunk_part (worker->trunk), worker->name))
        stage_fail (self->stage, "%s left another adapter than computed again", worker->name);
}
