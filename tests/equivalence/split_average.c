/*  split_average CUT OPTIMIZER MU: three clients whose adapters are averaged every 3 rounds (federate.clients: average),
    wire fp32, as real processes, against the same run by plain calls in one process: the same losses, and bit for bit the
    same adapters. CUT is 11 (front 1, tail 1), 00 (no block at the client) or none (FedAvg); OPTIMIZER none, avgm or adam;
    MU FedProx's. */

#include "equivalence/case.h"

#include "fed/aggregate.h"
#include "fed/parts.h"
#include "fed/server.h"
#include "fed/site.h"
#include "fed/trunk.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 8, EVERY = 3, SITES = 3, MOST_TERMS = 256 };

typedef struct {
    const case_t *on;
    tl_site_t *sites[SITES];
    tl_trunk_t *trunk;
    tl_aggregate_t *aggregate;
    double losses[SITES][STEPS];
} run_t;

static void
s_must (const run_t *self, bool good, const tl_error_t *err)
{
    if (!good)
        case_fail (self->on, "in one process: %s", err->text);
}

//  All sites' rows through the trunk and back, as the worker has them: one after another.
static void
s_through_trunk (run_t *self)
{
    const tl_batch_t *batches[SITES];
    const float *fronts[SITES];
    uint32_t length[64], context[64], mask[64];
    uint64_t number[64];
    tl_batch_t all = {.length = length, .context = context, .mask = mask, .number = number};
    for (int s = 0; s < SITES; s++) {
        fronts[s] = tl_site_front (self->sites[s], 0, &batches[s]);
        for (size_t i = 0; i < batches[s]->sequences; i++, all.sequences++) {
            length[all.sequences] = batches[s]->length[i];
            context[all.sequences] = batches[s]->context[i];
            mask[all.sequences] = batches[s]->mask[i];
            number[all.sequences] = batches[s]->number[i];
        }
        all.rows += batches[s]->rows;
    }
    size_t hidden = tl_trunk_hidden (self->trunk), at = 0;
    float *rows = tl_alloc_aligned (all.rows * hidden * sizeof (float));
    float *gradient = tl_alloc_aligned (all.rows * hidden * sizeof (float));
    for (int s = 0; s < SITES; at += batches[s]->rows * hidden, s++)
        memcpy (rows + at, fronts[s], batches[s]->rows * hidden * sizeof (float));
    const float *out = tl_trunk_forward (self->trunk, 0, &all, rows);
    at = 0;
    for (int s = 0; s < SITES; at += batches[s]->rows * hidden, s++)
        tl_site_tail (self->sites[s], 0, out + at, gradient + at);
    tl_trunk_backward (self->trunk, 0, gradient, rows);
    at = 0;
    for (int s = 0; s < SITES; at += batches[s]->rows * hidden, s++)
        if (tl_site_wants_gradient (self->sites[s]))
            tl_site_back (self->sites[s], 0, rows + at);
    free (rows);
    free (gradient);
}

static void
s_step (run_t *self, uint64_t step)
{
    tl_error_t err;
    bool none = self->on->topology->split.none;
    tl_norm_term_t terms[MOST_TERMS];
    uint64_t labels = 0, own;
    double nll;
    for (int s = 0; s < SITES; s++)
        tl_site_begin (self->sites[s], step, 1);
    tl_trunk_begin (self->trunk, step, 1);
    if (!none)
        s_through_trunk (self);
    for (int s = 0; s < SITES; s++) {
        if (none)
            tl_site_learn (self->sites[s], 0);
        s_must (self, tl_site_commit (self->sites[s], terms, &own, &nll, &err) == 0, &err);
        self->losses[s][step] = nll / (double)own;
        labels += own;
    }
    double norm = tl_trunk_norm (self->trunk, NULL, 0, labels);
    s_must (self, tl_trunk_update (self->trunk, labels, norm, &err) == 0, &err);
    for (int s = 0; s < SITES; s++)
        s_must (self, tl_site_update (self->sites[s], labels, norm, &err) == 0, &err);
}

static void
s_average (run_t *self)
{
    tl_error_t err;
    tl_contribution_t parts[SITES];
    static const char *const names[SITES] = {"site-0", "site-1", "site-2"};
    for (int s = 0; s < SITES; s++) {
        parts[s] = (tl_contribution_t){.name = names[s], .labels = tl_site_learnt (self->sites[s])};
        parts[s].blob = tl_site_share (self->sites[s], &parts[s].size);
    }
    size_t size;
    void *mean = tl_aggregate_mean (self->aggregate, parts, SITES, SITES, &size, &err);
    s_must (self, mean != NULL, &err);
    tl_server_keep (tl_aggregate_server (self->aggregate));
    for (int s = 0; s < SITES; s++) {
        s_must (self, tl_site_take (self->sites[s], mean, size, &err) == 0, &err);
        free ((void *)parts[s].blob);
    }
    free (mean);
}

static void
s_run (run_t *self)
{
    tl_error_t err;
    const tl_topology_t *t = self->on->topology;
    tl_kernels_use (1);
    for (size_t s = 0; s < SITES; s++)
        s_must (self, (self->sites[s] = tl_site_new (t, s, true, &err)) != NULL, &err);
    s_must (self, (self->trunk = tl_trunk_new (t, 0, &err)) != NULL, &err);
    self->aggregate = tl_aggregate_new (&t->federate.server);
    for (uint64_t step = 0; step < STEPS; step++) {
        s_step (self, step);
        if ((step + 1) % EVERY == 0 || step + 1 == STEPS)
            s_average (self);
    }
}

static size_t
s_different (const run_t *self, const char *name, tl_part_t *part)
{
    tl_error_t err;
    const tl_topology_t *t = self->on->topology;
    if (tl_part_tensors (part) == 0)
        return 0;
    tl_model_t *model = tl_model_of (t, &err);
    s_must (self, model != NULL, &err);
    bool worker = tl_topology_worker (t, name) >= 0;
    tl_part_t *saved =
        worker ? tl_part_of_worker (t, model, &err) : tl_part_of_client (t, model, &err);
    s_must (self, saved != NULL, &err);
    char *directory = case_adapter (self->on, name);
    s_must (self, tl_part_load_adapter (saved, directory, &err) == 0, &err);
    size_t different = 0;
    for (size_t i = 0; i < tl_part_tensors (part); i++) {
        const tl_tensor_t *one = tl_part_tensor (part, i), *two = tl_part_tensor (saved, i);
        different +=
            memcmp (one->value, two->value, one->shape[0] * one->shape[1] * sizeof (float)) != 0;
    }
    printf ("%s: %zu tensors, %zu different\n", name, tl_part_tensors (part), different);
    free (directory);
    tl_part_destroy (&saved);
    tl_model_destroy (&model);
    return different;
}

int
main (int argc, char **argv)
{
    if (argc != 4) {
        fprintf (stderr, "usage: split_average CUT OPTIMIZER MU\n");
        return 2;
    }
    bool none = strcmp (argv[1], "none") == 0;
    char *split = none ? tl_strdup ("split: none\n")
                       : tl_format ("split: {front: %c, tail: %c}\nprivacy: {allow_unsafe_split: "
                                    "true}\n",
                                    argv[1][0], argv[1][1]);
    char *settings =
        tl_format ("%stune: {method: %s}\n"
                   "train: {steps: %d, batch_size: 4, max_length: 64, lr: 3e-3, clip: 0.5}\n"
                   "schedule: {mode: batch}\nwire: {dtype: fp32}\n"
                   "federate: {clients: average, every: %d, quorum: 3, proximal: %s, server: "
                   "{optimizer: %s}}\n",
                   split, strcmp (argv[1], "00") ? "lora" : "full", STEPS, EVERY, argv[3], argv[2]);
    case_spec_t spec = {.model = tiny_chatglm (),
                        .sites = SITES,
                        .examples = 16,
                        .letters = {3, 14, 50},
                        .steps = STEPS,
                        .save_every = 4,
                        .settings = settings};
    case_t *on = case_new (&spec);
    case_step_t up[SITES * STEPS];
    case_up (on, NULL, up);
    run_t self = {.on = on};
    s_run (&self);
    for (int s = 0; s < SITES; s++)
        for (int i = 0; i < STEPS; i++)
            if (up[s * STEPS + i].loss != self.losses[s][i])
                case_fail (on, "site-%d, step %d: loss %.17g, by plain calls %.17g", s, i + 1,
                           up[s * STEPS + i].loss, self.losses[s][i]);
    size_t different = s_different (&self, "trunk", tl_trunk_part (self.trunk));
    for (size_t s = 0; s < SITES; s++)
        different +=
            s_different (&self, on->topology->clients[s].name, tl_site_part (self.sites[s]));
    if (different)
        case_fail (on, "%zu tensors are not the bits that plain calls make", different);
    for (size_t s = 0; s < SITES; s++)
        tl_site_destroy (&self.sites[s]);
    tl_trunk_destroy (&self.trunk);
    tl_aggregate_destroy (&self.aggregate);
    case_destroy (&on);
    free (settings);
    free (split);
    return 0;
}
