/*  plan: how much memory each actor of a topology will take, before anything runs. The same plans that the actors
    print when they start, made from the same text; of clients on other hosts the largest micro that the
    settings allow is taken. Maps the model, computes nothing.                                      */

#include "cli/verbs.h"

#include "actors/ask.h"
#include "actors/window.h"
#include "fed/evaluate.h"
#include "fed/site.h"
#include "fed/trunk.h"
#include "ui/table.h"

#include <stdio.h>

typedef struct {
    const tl_topology_t *topology;
    tl_table_t *table;
    size_t rows, longest; //  of micros that a worker gets: batch: of all clients together
} s_sum_t;

//  One actor's row: all in MB.
static void
s_row (s_sum_t *self, const char *role, const char *name, const tl_plan_t *plan, size_t messages)
{
    const size_t parts[] = {tl_plan_total (plan) + messages,
                            plan->weights,
                            plan->trained,
                            plan->activations,
                            plan->workspace,
                            plan->state,
                            messages,
                            plan->process};
    tl_table_text (self->table, role);
    tl_table_text (self->table, name);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        tl_table_real (self->table, (double)parts[i] / 1e6);
}

static void
s_add_rows (s_sum_t *self, size_t rows, size_t longest)
{
    bool together = self->topology->schedule.mode != TL_MODE_SERIAL;
    self->rows = together ? self->rows + rows : rows > self->rows ? rows : self->rows;
    self->longest = longest > self->longest ? longest : self->longest;
}

static int
s_client (s_sum_t *self, size_t index, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    const tl_client_spec_t *client = &t->clients[index];
    size_t rows = (t->train.batch_size + t->train.micros - 1) / t->train.micros;
    size_t longest = t->train.max_length;
    if (!tl_verb_is_here (client->host)) {
        s_add_rows (self, rows * longest, longest);
        return 0;
    }
    tl_plan_t plan;
    tl_site_t *site = tl_site_new (t, index, true, err);
    int rc = site ? tl_site_plan (site, &plan, &rows, &longest, err) : -1;
    if (rc == 0) {
        size_t slices = tl_site_scores (site) ? TL_ASK_AT_ONCE : 0;
        s_row (self, "client", client->name, &plan,
               tl_window_held (t, rows, slices, tl_site_hidden (site)));
        s_add_rows (self, rows, longest);
    }
    tl_site_destroy (&site);
    return rc;
}

static int
s_worker (s_sum_t *self, size_t index, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    size_t slices = 0;
    for (size_t i = 0; i < t->client_count; i++)
        slices += t->clients[i].eval ? TL_ASK_AT_ONCE : 0;
    tl_plan_t plan;
    tl_trunk_t *trunk = tl_trunk_new (t, index, err);
    int rc = trunk ? tl_trunk_plan (trunk, self->rows, self->longest, &plan, err) : -1;
    if (rc == 0)
        s_row (self, "worker", t->workers[index].name, &plan,
               tl_window_held (t, self->rows, slices, tl_trunk_hidden (trunk)));
    tl_trunk_destroy (&trunk);
    return rc;
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    static const tl_column_t columns[] = {
        {"role", "role", 0},
        {"name", "name", 0},
        {"total_mb", "MB in all", 1},
        {"weights_mb", "weights", 1},
        {"trained_mb", "trained", 1},
        {"activations_mb", "activations", 1},
        {"workspace_mb", "workspace", 1},
        {"saves_mb", "saves", 1},
        {"messages_mb", "messages", 1},
        {"process_mb", "process", 1},
    };
    tl_topology_t *topology = tl_verb_topology (arguments, arguments->words[0], err);
    if (!topology)
        return -1;
    s_sum_t self = {.topology = topology,
                    .table = tl_table_new ("actors", columns, sizeof columns / sizeof columns[0])};
    int rc = tl_blas_open (topology->workers[0].threads, err);
    for (size_t i = 0; rc == 0 && i < topology->client_count; i++)
        rc = s_client (&self, i, err);
    for (size_t i = 0; rc == 0 && i < topology->worker_count; i++)
        if (tl_verb_is_here (topology->workers[i].host))
            rc = s_worker (&self, i, err);
    if (rc == 0)
        tl_table_print (self.table, arguments->format);
    tl_table_destroy (&self.table);
    tl_topology_destroy (&topology);
    return rc;
}

const tl_verb_t tl_verb_plan = {
    .name = "plan",
    .words = "TOPOLOGY",
    .min_words = 1,
    .max_words = 1,
    .help = "memory that each actor of a topology on this host will take",
    .more = "Of clients on other hosts the largest micro that the settings allow is taken. --set "
            "train.memory_mb=N shows what computing twice saves.",
    .run = s_run,
};
