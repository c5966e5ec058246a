//  local: the loop's body and its saves.

#include "fed/local.h"

#include "assert.h"
#include "fed/origin.h"
#include "fed/site.h"
#include "fed/update.h"
#include "file.h"
#include "memory.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STATE = INT_MAX };

struct tl_local {
    const tl_topology_t *topology; //  not owned
    tl_model_t *model;
    tl_tokenizer_t *tokenizer;
    tl_dataset_t **datasets; //  [site_count]
    size_t *sites;           //  [site_count] index of each among the topology's clients
    size_t site_count;
    tl_chain_t *chain;
    tl_origin_t *origin; //  what saves are made under
    uint64_t steps;      //  of the whole run
    uint64_t next;       //  step to come
    uint64_t labels;     //  spent so far
    uint64_t allowance;  //  label tokens of the whole run, UINT64_MAX: no limit
};

//  ---------------------------------------------------------------------------------------------
//  Opening

static int
s_choose_sites (tl_local_t *self, const char *site, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    self->sites = tl_alloc ((topology->client_count + 1) * sizeof *self->sites);
    if (!site) {
        for (size_t i = 0; i < topology->client_count; i++)
            self->sites[self->site_count++] = i;
        return 0;
    }
    int index = tl_topology_client (topology, site);
    if (index < 0)
        return tl_fail (err, TL_BAD_INPUT, "%s has no client '%s'; name one of its clients",
                        topology->source, site);
    self->sites[self->site_count++] = (size_t)index;
    return 0;
}

static int
s_open_data (tl_local_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    self->datasets = tl_alloc ((self->site_count + 1) * sizeof (tl_dataset_t *));
    self->origin = tl_origin_new (topology, self->model, self->tokenizer);
    for (size_t i = 0; i < self->site_count; i++) {
        const tl_client_spec_t *client = &topology->clients[self->sites[i]];
        self->datasets[i] = tl_site_text (topology, self->sites[i], false, self->tokenizer, err);
        if (!self->datasets[i] ||
            tl_origin_text (self->origin, client->name, client->data, err) != 0)
            return -1;
    }
    return 0;
}

//  Micro of all sites at a step, one site after another. The caller destroys.
static tl_micro_t *
s_micro (const tl_local_t *self, uint64_t step, size_t micro)
{
    const tl_topology_t *topology = self->topology;
    tl_micro_t **parts = tl_alloc ((self->site_count + 1) * sizeof *parts);
    for (size_t i = 0; i < self->site_count; i++)
        parts[i] = tl_dataset_micro (self->datasets[i], topology->train.seed, self->sites[i], step,
                                     topology->train.batch_size, micro, topology->train.micros);
    tl_micro_t *joined = parts[0];
    if (self->site_count > 1) {
        joined = tl_micro_join (parts, self->site_count);
        for (size_t i = 0; i < self->site_count; i++)
            tl_micro_destroy (&parts[i]);
    }
    free (parts);
    return joined;
}

//  Steps that spend the allowance: what each holds follows from the seed alone.
static uint64_t
s_count_steps (const tl_local_t *self)
{
    uint64_t steps = 0, spent = 0;
    while (spent < self->allowance) {
        uint64_t before = spent;
        for (size_t i = 0; i < self->topology->train.micros; i++) {
            tl_micro_t *micro = s_micro (self, steps, i);
            spent += micro->labels;
            tl_micro_destroy (&micro);
        }
        steps++;
        tl_assert (spent > before); //  an example without a label is refused when it is read
    }
    return steps;
}

tl_local_t *
tl_local_new (const tl_topology_t *topology, const char *site, uint64_t label_tokens,
              tl_error_t *err)
{
    tl_local_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->steps = topology->train.steps;
    self->allowance = UINT64_MAX;
    if (s_choose_sites (self, site, err) != 0 || !(self->model = tl_model_of (topology, err)) ||
        !(self->tokenizer =
              tl_tokenizer_open (topology->model.path, tl_model_config (self->model), err)) ||
        s_open_data (self, err) != 0 || !(self->chain = tl_chain_of (topology, self->model, err))) {
        tl_local_destroy (&self);
        return NULL;
    }
    if (label_tokens > 0) {
        self->allowance = label_tokens;
        self->steps = s_count_steps (self);
    }
    return self;
}

void
tl_local_destroy (tl_local_t **self_p)
{
    tl_assert (self_p);
    tl_local_t *self = *self_p;
    if (!self)
        return;
    tl_origin_destroy (&self->origin);
    tl_chain_destroy (&self->chain);
    for (size_t i = 0; self->datasets && i < self->site_count; i++)
        tl_dataset_destroy (&self->datasets[i]);
    free (self->datasets);
    free (self->sites);
    tl_tokenizer_destroy (&self->tokenizer);
    tl_model_destroy (&self->model);
    free (self);
    *self_p = NULL;
}

uint64_t
tl_local_steps (const tl_local_t *self)
{
    return self->steps;
}

uint64_t
tl_local_next (const tl_local_t *self)
{
    return self->next;
}

uint64_t
tl_local_labels (const tl_local_t *self)
{
    return self->labels;
}

int
tl_local_plan (tl_local_t *self, tl_plan_t *plan, tl_error_t *err)
{
    //  As if the largest micros of all sites came together.
    size_t micros = self->topology->train.micros, batch = self->topology->train.batch_size;
    size_t each = (batch + micros - 1) / micros;
    tl_extent_t all = {0, 0, 0};
    for (size_t i = 0; i < self->site_count; i++) {
        tl_extent_t one = tl_dataset_run_extent (self->datasets[i], self->topology->train.seed,
                                                 self->sites[i], self->steps, batch, micros);
        all.rows += one.rows;
        all.labels += one.labels;
        all.longest = one.longest > all.longest ? one.longest : all.longest;
    }
    if (tl_parts_fit (self->chain->parts, self->chain->part_count, all.rows, all.longest,
                      all.labels, 1, self->topology->train.memory, err) != 0)
        return -1;
    tl_chain_plan (self->chain, all.rows, all.longest, each * self->site_count, all.labels, plan);
    for (size_t i = 0; i < self->chain->part_count; i++)
        tl_part_reserve (self->chain->parts[i], all.rows, all.longest, all.labels, 1);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Step

static void
s_drop_gradients (tl_local_t *self)
{
    for (size_t i = 0; i < self->chain->part_count; i++)
        tl_part_zero_gradient (self->chain->parts[i]);
}

int
tl_local_step (tl_local_t *self, tl_local_step_t *result, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    tl_assert (self->next < self->steps);
    double total = 0;
    *result = (tl_local_step_t){.step = self->next};
    for (size_t i = 0; i < topology->train.micros; i++) {
        tl_micro_t *micro = s_micro (self, self->next, i);
        uint64_t labels = tl_micro_trim (micro, self->allowance - self->labels - result->labels);
        if (labels > 0) {
            double nll = 0;
            tl_chain_learn (self->chain, &micro->batch, self->next, &nll, &labels);
            total += nll;
            result->labels += labels;
            result->rows += micro->batch.rows;
        }
        tl_micro_destroy (&micro);
    }
    result->loss = total / (double)result->labels;
    const tl_schedule_t schedule = tl_schedule_of (topology, self->steps);
    result->lr = tl_learning_rate (&schedule, self->next);
    if (!isfinite (result->loss)) {
        s_drop_gradients (self);
        return tl_fail (
            err, TL_BAD_INPUT,
            "step %llu: the loss is %f; the adapter stays as it was before this step: lower "
            "train.lr or set train.clip",
            (unsigned long long)self->next + 1, result->loss);
    }
    if (tl_chain_update (self->chain, result->labels, topology->train.clip, result->lr,
                         &result->norm, err) != 0) {
        s_drop_gradients (self);
        return tl_fail_in (err, "step %llu", (unsigned long long)self->next + 1);
    }
    self->labels += result->labels;
    self->next++;
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Saves: OUT/step-000123/part-0.state, origin.json and progress, written whole or not at all

int
tl_local_save_adapter (const tl_local_t *self, const char *directory, tl_error_t *err)
{
    tl_part_t *part = tl_chain_trained (self->chain);
    if (!part)
        return tl_fail (err, TL_BAD_INPUT, "nothing is trained; name a part in tune.parts");
    return tl_part_save_adapter (part, directory, err);
}

//  Numbers of the saves under out, ascending; the caller frees. NULL when there is none.
static uint64_t *
s_list_saves (const char *out, size_t *count)
{
    struct dirent **entries = NULL;
    *count = 0;
    int found = scandir (out, &entries, NULL, alphasort);
    uint64_t *numbers = found > 0 ? tl_alloc ((size_t)found * sizeof *numbers) : NULL;
    for (int i = 0; i < found; i++) {
        unsigned long long number;
        int end = 0;
        if (sscanf (entries[i]->d_name, "step-%12llu%n", &number, &end) == 1 &&
            entries[i]->d_name[end] == 0)
            numbers[(*count)++] = number;
        free (entries[i]);
    }
    free (entries);
    if (*count == 0) {
        free (numbers);
        return NULL;
    }
    return numbers; //  alphasort is by number: they have leading zeros
}

static void
s_save_path (char path[PATH_MAX], const char *out, uint64_t step, const char *file)
{
    snprintf (path, PATH_MAX, "%s/step-%09llu%s%s", out, (unsigned long long)step, *file ? "/" : "",
              file);
}

static void
s_drop_old_saves (const char *out, size_t keep)
{
    size_t count;
    uint64_t *numbers = s_list_saves (out, &count);
    char path[PATH_MAX];
    for (size_t i = 0; i + keep < count; i++) {
        s_save_path (path, out, numbers[i], "");
        tl_remove_tree (path);
    }
    free (numbers);
}

void
tl_local_forget (const char *out)
{
    s_drop_old_saves (out, 0);
}

static int
s_save (const tl_local_t *self, const char *out, tl_error_t *err)
{
    char path[PATH_MAX], where[PATH_MAX], file[PATH_MAX + 32], progress[128];
    if (tl_mkdirs (out, err) != 0)
        return -1;
    s_save_path (path, out, self->next, "");
    if (tl_dir_begin (path, where, sizeof where, err) != 0)
        return -1;
    for (size_t i = 0; i < self->chain->part_count; i++) {
        if (tl_part_tensors (self->chain->parts[i]) == 0)
            continue;
        size_t size = 0;
        void *state = tl_part_state_get (self->chain->parts[i], &size);
        snprintf (file, sizeof file, "%s/part-%zu.state", where, i);
        int rc = tl_sealed_write (file, state, size, 0600, err);
        free (state);
        if (rc != 0)
            return -1;
    }
    snprintf (file, sizeof file, "%s/origin.json", where);
    if (tl_origin_save (self->origin, file, err) != 0)
        return -1;
    snprintf (progress, sizeof progress, "step %llu labels %llu\n", (unsigned long long)self->next,
              (unsigned long long)self->labels);
    snprintf (file, sizeof file, "%s/progress", where);
    if (tl_file_write (file, progress, strlen (progress), 0644, err) != 0 ||
        tl_dir_commit (path, err) != 0)
        return -1;
    s_drop_old_saves (out, self->topology->checkpoint.keep);
    return 0;
}

int
tl_local_save (const tl_local_t *self, const char *out, tl_error_t *err)
{
    return s_save (self, out, err) ? tl_fail_on (err, "then go on with --resume") : 0;
}

static int
s_load (tl_local_t *self, const char *out, uint64_t number, tl_error_t *err)
{
    char path[PATH_MAX], name[32];
    s_save_path (path, out, number, "progress");
    unsigned long long step = 0, labels = 0;
    if (!tl_exists (path))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s isn't there: the save is not whole; remove its directory to go on from "
                        "the one before",
                        path);
    char *text = tl_file_read (path, 1024, NULL, err);
    if (!text)
        return -1;
    int got = sscanf (text, "step %llu labels %llu", &step, &labels);
    free (text);
    if (got != 2 || step != number)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: expected 'step %llu labels N'; remove this save to go "
                        "on from the one before",
                        path, (unsigned long long)number);
    s_save_path (path, out, number, "origin.json");
    if (tl_origin_check (self->origin, path, err) != 0)
        return -1;
    for (size_t i = 0; i < self->chain->part_count; i++) {
        if (tl_part_tensors (self->chain->parts[i]) == 0)
            continue;
        size_t size = 0;
        snprintf (name, sizeof name, "part-%zu.state", i);
        s_save_path (path, out, number, name);
        char *state = tl_sealed_read (path, MAX_STATE, &size, err);
        int rc = state ? tl_part_state_set (self->chain->parts[i], state, size, err) : -1;
        if (state && rc != 0)
            tl_fail_in (err, "%s", path);
        free (state);
        if (rc != 0)
            return tl_fail_on (err, "remove its directory to go on from the one before");
    }
    self->next = step;
    self->labels = labels;
    return 0;
}

bool
tl_local_newest (const char *out, uint64_t *step)
{
    size_t count;
    uint64_t *numbers = s_list_saves (out, &count);
    *step = count ? numbers[count - 1] : 0;
    free (numbers);
    return count > 0;
}

int
tl_local_resume (tl_local_t *self, const char *out, tl_error_t *err)
{
    uint64_t newest;
    if (!tl_local_newest (out, &newest))
        return 0;
    if (newest > self->steps)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s holds a save of step %llu, the run has %llu steps; raise train.steps or give "
            "another --out",
            out, (unsigned long long)newest, (unsigned long long)self->steps);
    return s_load (self, out, newest, err) == 0 ? 1 : -1;
}
