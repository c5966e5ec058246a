//  plan: a table of how much memory each actor of a topology will take.

#include "cli/plan.h"

#include "actors/footprint.h"
#include "cli/verbs.h"
#include "fed/site.h"
#include "fed/trunk.h"
#include "ui/table.h"

#include <stdio.h>

typedef struct {
    const tl_topology_t *topology;
    const char *host;
    tl_plan_fn *fn;
    void *arg;
    size_t rows, longest; //  of micros that a worker gets: batch: of all clients together
} s_sum_t;

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
    if (!tl_verb_is_at (client->host, self->host)) {
        s_add_rows (self, rows * longest, longest);
        return 0;
    }
    tl_plan_t plan;
    tl_site_t *site = tl_site_new (t, index, true, err);
    if (!site)
        return -1;
    int rc = tl_site_plan (site, &plan, &rows, &longest, err);
    if (rc == 0) {
        self->fn (self->arg, "client", client->name, &plan,
                  tl_footprint_client (t, tl_site_scores (site), rows, tl_site_hidden (site)));
        s_add_rows (self, rows, longest);
    } else
        tl_fail_in (err, "%s: client.%s", t->source, client->name);
    tl_site_destroy (&site);
    return rc;
}

static int
s_worker (s_sum_t *self, size_t index, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    tl_plan_t plan;
    tl_trunk_t *trunk = tl_trunk_new (t, index, err);
    int rc = trunk ? tl_trunk_plan (trunk, self->rows, self->longest, &plan, err) : -1;
    if (rc == 0)
        self->fn (self->arg, "worker", t->workers[index].name, &plan,
                  tl_footprint_worker (t, self->rows, tl_trunk_hidden (trunk)));
    else
        tl_fail_in (err, "%s: worker.%s", t->source, t->workers[index].name);
    tl_trunk_destroy (&trunk);
    return rc;
}

int
tl_plan_parts (const tl_topology_t *topology, const char *host, tl_plan_fn *fn, void *arg,
               tl_error_t *err)
{
    s_sum_t self = {.topology = topology, .host = host, .fn = fn, .arg = arg};
    int rc = 0;
    tl_kernels_use (topology->workers[0].threads);
    for (size_t i = 0; rc == 0 && i < topology->client_count; i++)
        rc = s_client (&self, i, err);
    for (size_t i = 0; rc == 0 && i < topology->worker_count; i++)
        if (tl_verb_is_at (topology->workers[i].host, host))
            rc = s_worker (&self, i, err);
    return rc;
}

//  One actor's row: all in MB.
static void
s_row (void *arg, const char *role, const char *name, const tl_plan_t *plan, size_t messages)
{
    tl_table_t *table = arg;
    const size_t parts[] = {tl_plan_total (plan) + messages,
                            plan->weights,
                            plan->trained,
                            plan->activations,
                            plan->workspace,
                            plan->state,
                            messages,
                            plan->process};
    tl_table_text (table, role);
    tl_table_text (table, name);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        tl_table_real (table, (double)parts[i] / 1e6);
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
    tl_table_t *table = tl_table_new ("actors", columns, sizeof columns / sizeof columns[0]);
    int rc = tl_plan_parts (topology, NULL, s_row, table, err);
    if (rc == 0)
        tl_table_print (table, arguments->format);
    tl_table_destroy (&table);
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
