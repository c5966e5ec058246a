#include "spec.h"

#include "file.h"
#include "memory.h"
#include "topology/schema.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

enum { LARGEST_FILE = 16 << 20 };

#define OF(field) offsetof (tl_sim_spec_t, field)
#define OF_ONE(field) offsetof (tl_sim_population_t, field)
#define COUNTED 9007199254740992.0 //  2^53
#define NAME_EXPECTED "a name of at most 32 letters, digits, - and _"
#define MS_EXPECTED "milliseconds, at least 0"
#define S_EXPECTED "seconds, at least 0"

static const tl_choice_t s_version[] = {{"1", 0, NULL}, {NULL, 0, NULL}};
static const tl_choice_t s_modes[] = {{"auto", TL_CHOOSE_AUTO, NULL},
                                      {"serial", TL_CHOOSE_SERIAL, NULL},
                                      {"batch", TL_CHOOSE_BATCH, NULL},
                                      {"fanout", TL_CHOOSE_FANOUT, NULL},
                                      {NULL, 0, NULL}};
static const tl_choice_t s_joins[] = {
    {"all", false, NULL}, {"window", true, NULL}, {NULL, 0, NULL}};
static const tl_choice_t s_wires[] = {
    {"bf16", 2, NULL}, {"fp16", 2, NULL}, {"fp32", 4, NULL}, {NULL, 0, NULL}};
static const tl_choice_t s_clients[] = {{"personal", TL_SHARE_NOTHING, NULL},
                                        {"average", TL_SHARE_AVERAGE, NULL},
                                        {"sync", TL_SHARE_GRADIENT, NULL},
                                        {NULL, 0, NULL}};
static const tl_choice_t s_splits[] = {{"cut", false, NULL}, {"none", true, NULL}, {NULL, 0, NULL}};

//  What workers and clients have in common; `kind` is "workers[]" or "clients[]".
#define POPULATION(kind)                                                                           \
    {kind ".name",                                                                                 \
     TL_SETTING_NAME,                                                                              \
     OF_ONE (name),                                                                                \
     0,                                                                                            \
     0,                                                                                            \
     NULL,                                                                                         \
     NAME_EXPECTED,                                                                                \
     "site",                                                                                       \
     "of the population; members are NAME-1 and on",                                               \
     NULL},                                                                                        \
        {kind ".count",                                                                            \
         TL_SETTING_COUNT,                                                                         \
         OF_ONE (count),                                                                           \
         1,                                                                                        \
         65536,                                                                                    \
         "1",                                                                                      \
         "a whole number from 1 to 65536",                                                         \
         NULL,                                                                                     \
         "members",                                                                                \
         NULL},                                                                                    \
        {kind ".compute",                                                                          \
         TL_SETTING_SECTION,                                                                       \
         0,                                                                                        \
         0,                                                                                        \
         0,                                                                                        \
         "{}",                                                                                     \
         "a mapping with keys like base_ms and us_per_row",                                        \
         "{base_ms: 20, us_per_row: 10}",                                                          \
         "how long a job takes",                                                                   \
         NULL},                                                                                    \
        {kind ".compute.base_ms",                                                                  \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (compute.base_ms),                                                                 \
         0,                                                                                        \
         1e7,                                                                                      \
         "0",                                                                                      \
         MS_EXPECTED,                                                                              \
         NULL,                                                                                     \
         "of every job",                                                                           \
         NULL},                                                                                    \
        {kind ".compute.us_per_row",                                                               \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (compute.us_per_row),                                                              \
         0,                                                                                        \
         1e9,                                                                                      \
         "0",                                                                                      \
         "microseconds, at least 0",                                                               \
         NULL,                                                                                     \
         "more for each of its rows",                                                              \
         NULL},                                                                                    \
        {kind ".compute.update_ms",                                                                \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (compute.update_ms),                                                               \
         0,                                                                                        \
         1e7,                                                                                      \
         "0",                                                                                      \
         MS_EXPECTED,                                                                              \
         NULL,                                                                                     \
         "of the optimizer's step",                                                                \
         NULL},                                                                                    \
        {kind ".compute.jitter",                                                                   \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (compute.jitter),                                                                  \
         0,                                                                                        \
         2,                                                                                        \
         "0",                                                                                      \
         "a number from 0 to 2",                                                                   \
         NULL,                                                                                     \
         "standard deviation of each job's time, relative",                                        \
         NULL},                                                                                    \
        {kind ".compute.straggle",                                                                 \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (compute.straggle),                                                                \
         0,                                                                                        \
         1,                                                                                        \
         "0",                                                                                      \
         "a share from 0 to 1",                                                                    \
         NULL,                                                                                     \
         "of jobs that take much longer",                                                          \
         NULL},                                                                                    \
        {kind ".compute.slower",                                                                   \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (compute.slower),                                                                  \
         1,                                                                                        \
         1e6,                                                                                      \
         "10",                                                                                     \
         "a number of at least 1",                                                                 \
         NULL,                                                                                     \
         "so many times as long do these take",                                                    \
         NULL},                                                                                    \
        {kind ".compute.changes_at",                                                               \
         TL_SETTING_COUNT,                                                                         \
         OF_ONE (compute.changes_at),                                                              \
         0,                                                                                        \
         COUNTED,                                                                                  \
         "0",                                                                                      \
         "a whole number of at least 0",                                                           \
         NULL,                                                                                     \
         "round from which all jobs and updates take changes_by times as long; 0: never",          \
         NULL},                                                                                    \
        {kind ".compute.changes_by",                                                               \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (compute.changes_by),                                                              \
         1e-6,                                                                                     \
         1e6,                                                                                      \
         "1",                                                                                      \
         "a number above 0",                                                                       \
         NULL,                                                                                     \
         "see changes_at",                                                                         \
         NULL},                                                                                    \
        {kind ".link",                                                                             \
         TL_SETTING_SECTION,                                                                       \
         0,                                                                                        \
         0,                                                                                        \
         0,                                                                                        \
         "{}",                                                                                     \
         "a mapping with the keys latency_ms and mbit_s",                                          \
         "{latency_ms: 10, mbit_s: 100}",                                                          \
         "its way to the broker",                                                                  \
         NULL},                                                                                    \
        {kind ".link.latency_ms",                                                                  \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (link.latency_ms),                                                                 \
         0,                                                                                        \
         1e6,                                                                                      \
         "0",                                                                                      \
         MS_EXPECTED,                                                                              \
         NULL,                                                                                     \
         "one way",                                                                                \
         NULL},                                                                                    \
        {kind ".link.mbit_s",                                                                      \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (link.mbit_s),                                                                     \
         0,                                                                                        \
         1e9,                                                                                      \
         "0",                                                                                      \
         "Mbit/s, at least 0",                                                                     \
         NULL,                                                                                     \
         "each way; 0: unlimited",                                                                 \
         NULL},                                                                                    \
        {kind ".arrives",                                                                          \
         TL_SETTING_SECTION,                                                                       \
         0,                                                                                        \
         0,                                                                                        \
         0,                                                                                        \
         "{}",                                                                                     \
         "a mapping with the keys at_s and over_s",                                                \
         "{at_s: 60, over_s: 10}",                                                                 \
         "when it joins",                                                                          \
         NULL},                                                                                    \
        {kind ".arrives.at_s",                                                                     \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (arrives.at_s),                                                                    \
         0,                                                                                        \
         1e8,                                                                                      \
         "0",                                                                                      \
         S_EXPECTED,                                                                               \
         NULL,                                                                                     \
         "when the first member joins",                                                            \
         NULL},                                                                                    \
        {kind ".arrives.over_s",                                                                   \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (arrives.over_s),                                                                  \
         0,                                                                                        \
         1e8,                                                                                      \
         "0",                                                                                      \
         S_EXPECTED,                                                                               \
         NULL,                                                                                     \
         "until the last has joined, evenly",                                                      \
         NULL},                                                                                    \
        {kind ".fails",                                                                            \
         TL_SETTING_SECTION,                                                                       \
         0,                                                                                        \
         0,                                                                                        \
         0,                                                                                        \
         "{}",                                                                                     \
         "a mapping with the keys every_s and back_s",                                             \
         "{every_s: 600, back_s: 30}",                                                             \
         "how often it is lost",                                                                   \
         NULL},                                                                                    \
        {kind ".fails.every_s",                                                                    \
         TL_SETTING_REAL,                                                                          \
         OF_ONE (fails.every_s),                                                                   \
         0,                                                                                        \
         1e9,                                                                                      \
         "0",                                                                                      \
         S_EXPECTED,                                                                               \
         NULL,                                                                                     \
         "mean time until a member is lost; 0: never",                                             \
         NULL},                                                                                    \
    {                                                                                              \
        kind ".fails.back_s", TL_SETTING_REAL, OF_ONE (fails.back_s), 0, 1e9, "0", S_EXPECTED,     \
            NULL, "mean time until it is back; 0: it stays away", NULL                             \
    }

static const tl_setting_t s_rows[] = {
    {"version", TL_SETTING_ONLY, 0, 0, 0, NULL, "1", "1", "version of this file's format",
     s_version},
    {"name", TL_SETTING_NAME, OF (name), 0, 0, NULL, NAME_EXPECTED, "eight-workers",
     "what it shows", NULL},
    {"seed", TL_SETTING_COUNT, OF (seed), 0, COUNTED, "1", "a whole number of at least 0", NULL,
     "every random draw follows from it", NULL},

    {"model", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with keys like hidden", "{hidden: 256}",
     "what is trained", NULL},
    {"model.hidden", TL_SETTING_COUNT, OF (hidden), 1, 1048576, "256",
     "a whole number from 1 to 1048576", NULL, "numbers in a row", NULL},
    {"model.trunk_mb", TL_SETTING_REAL, OF (trunk_mb), 0, 1e6, "4", "MB, at least 0", NULL,
     "state of a trunk's adapter and optimizer, as it is sent and saved", NULL},
    {"model.client_mb", TL_SETTING_REAL, OF (client_mb), 0, 1e6, "0.5", "MB, at least 0", NULL,
     "the same of a client", NULL},

    {"split", TL_SETTING_FLAG, OF (whole), 0, 0, "cut", "cut or none", "none",
     "none: as a topology's, each client has all of the model; cut: a front, a trunk and a tail",
     s_splits},

    {"train", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the keys steps and micros",
     "{steps: 100}", "how long", NULL},
    {"train.steps", TL_SETTING_COUNT, OF (rounds), 1, 1e9, "100", "a whole number of at least 1",
     NULL, "rounds of the run: in each, every client takes a step", NULL},
    {"train.micros", TL_SETTING_COUNT, OF (micros), 1, 1024, "1", "a whole number from 1 to 1024",
     NULL, "portions of a step, several under way at a time", NULL},

    {"schedule", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key mode", "{mode: auto}",
     "who shares a forward", NULL},
    {"schedule.mode", TL_SETTING_CHOICE, OF (mode), 0, 0, "auto", "auto, serial, batch or fanout",
     NULL, "as a topology's", s_modes},
    {"schedule.join", TL_SETTING_FLAG, OF (window), 0, 0, "all", "all or window", NULL,
     "as a topology's", s_joins},
    {"schedule.window_ms", TL_SETTING_MS, OF (window_ms), 1, 3600000, "1000",
     "milliseconds from 1 to 3600000", NULL, "as a topology's", NULL},
    {"schedule.hysteresis", TL_SETTING_REAL, OF (hysteresis), 0, 1, "0.03", "a number from 0 to 1",
     NULL, "as a topology's", NULL},

    {"federate", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with keys like every and clients",
     "{every: 20}", "as a topology's", NULL},
    {"federate.every", TL_SETTING_COUNT, OF (every), 1, COUNTED, "20",
     "a whole number of at least 1", NULL, "rounds of a period", NULL},
    {"federate.clients", TL_SETTING_CHOICE, OF (share), 0, 0, "personal",
     "personal, average or sync", NULL, "as a topology's", s_clients},
    {"federate.quorum", TL_SETTING_COUNT, OF (quorum), 1, 65536, "1",
     "a whole number from 1 to 65536", NULL, "as a topology's", NULL},
    {"federate.deadline_s", TL_SETTING_REAL, OF (deadline_s), 0, 1e6, "0",
     "a number of seconds from 0 to 1e6", NULL, "as a topology's", NULL},

    {"wire", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key dtype", "{dtype: bf16}",
     "what crosses the network", NULL},
    {"wire.dtype", TL_SETTING_CHOICE, OF (value_bytes), 0, 0, "bf16", "fp32, bf16 or fp16", NULL,
     "precision of rows on the way", s_wires},
    {"wire.credit_mb", TL_SETTING_REAL, OF (credit_mb), 0, 1e6, "0", "MB, at least 0", NULL,
     "what a client may have under way; 0: a whole step", NULL},

    {"checkpoint", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the keys every and save_ms",
     "{every: 50}", "saves", NULL},
    {"checkpoint.every", TL_SETTING_COUNT, OF (save_every), 1, COUNTED, "50",
     "a whole number of at least 1", NULL, "steps between saves, with one group", NULL},
    {"checkpoint.save_ms", TL_SETTING_REAL, OF (save_ms), 0, 1e7, "5", MS_EXPECTED, NULL,
     "a part writes its save", NULL},

    {"liveness", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the key notice_ms",
     "{notice_ms: 1000}", "losses", NULL},
    {"liveness.notice_ms", TL_SETTING_REAL, OF (notice_ms), 0, 1e8, "1000", MS_EXPECTED, NULL,
     "until the broker knows that a part is gone", NULL},

    {"broker", TL_SETTING_SECTION, 0, 0, 0, "{}", "a mapping with the keys mb_s and us_per_message",
     "{mb_s: 300}", "what the broker can do", NULL},
    {"broker.mb_s", TL_SETTING_REAL, OF (broker_mb_s), 0, 1e9, "0", "MB/s, at least 0", NULL,
     "that it passes on; 0: unlimited", NULL},
    {"broker.us_per_message", TL_SETTING_REAL, OF (broker_us), 0, 1e9, "0",
     "microseconds, at least 0", NULL, "its work for each message", NULL},

    {"aggregator", TL_SETTING_SECTION, 0, 0, 0, "{}",
     "a mapping with the keys base_ms and ms_per_mb", "{ms_per_mb: 2}", "what averaging costs",
     NULL},
    {"aggregator.base_ms", TL_SETTING_REAL, OF (merge_base_ms), 0, 1e7, "1", MS_EXPECTED, NULL,
     "of every aggregation", NULL},
    {"aggregator.ms_per_mb", TL_SETTING_REAL, OF (merge_ms_per_mb), 0, 1e7, "1", MS_EXPECTED, NULL,
     "more for each MB that comes together", NULL},

    {"workers", TL_SETTING_PEERS, 0, 0, 0, NULL, "a list of populations",
     "[{name: trunk, count: 8, compute: {base_ms: 20, us_per_row: 10}}]", "who computes the trunk",
     NULL},
    POPULATION ("workers[]"),
    {"workers[].compute.backward", TL_SETTING_REAL, OF_ONE (compute.backward), 0, 1e6, "1",
     "a number of at least 0", NULL, "a backward takes so many times a forward", NULL},

    {"clients", TL_SETTING_PEERS, 0, 0, 0, NULL, "a list of populations",
     "[{name: site, count: 8, rows: 256}]", "the sites", NULL},
    POPULATION ("clients[]"),
    {"clients[].rows", TL_SETTING_COUNT, OF_ONE (rows), 1, 1048576, "256",
     "a whole number from 1 to 1048576", NULL, "of each of its micros", NULL},
    {"clients[].steps", TL_SETTING_COUNT, OF_ONE (steps), 0, COUNTED, "0",
     "a whole number of at least 0", NULL, "rounds it takes part in; 0: all", NULL},
    {"clients[].compute.front", TL_SETTING_REAL, OF_ONE (compute.front), 0, 1e6, "1",
     "a number of at least 0", NULL, "its front takes so many times a job", NULL},
    {"clients[].compute.tail", TL_SETTING_REAL, OF_ONE (compute.tail), 0, 1e6, "1",
     "a number of at least 0", NULL, "its tail, forward and backward", NULL},
    {"clients[].compute.back", TL_SETTING_REAL, OF_ONE (compute.back), 0, 1e6, "1",
     "a number of at least 0", NULL, "its front's backward", NULL},
    {"clients[].compute.whole", TL_SETTING_REAL, OF_ONE (compute.whole), 0, 1e6, "0",
     "a number of at least 0", NULL,
     "split: none, which needs it: a micro of all of the model takes so many times a job", NULL},
};

static const tl_schema_table_t s_table = {s_rows, sizeof s_rows / sizeof s_rows[0], "a simulation"};

//  One list of the file. What was read of a broken one is the spec's, for its destructor.
static int
s_populations (tl_sim_spec_t *self, const tl_yaml_t *root, const char *key, size_t most,
               tl_sim_population_t **kinds, size_t *kind_count, size_t *members, tl_error_t *err)
{
    const tl_yaml_t *list = tl_yaml_child (root, key);
    char *prefix = tl_format ("%s[]", key);
    *kinds = tl_alloc (list->count * sizeof **kinds);
    *kind_count = list->count;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < list->count; i++) {
        const tl_yaml_t *one = list->children[i];
        char *shown = tl_format ("%s.%zu", key, i);
        if (one->kind != TL_YAML_MAP)
            rc = tl_schema_complain (self->source, one, false, shown, err,
                                     "expected a mapping like {name: a, count: 8}; write one");
        else
            rc = tl_schema_read_map (&s_table, self->source, one, prefix, shown, &(*kinds)[i], err);
        *members += (*kinds)[i].count;
        if (rc == 0 && *members > most)
            rc = tl_schema_complain (self->source, one, false, shown, err,
                                     "with these there are %zu %s; use at most %zu in all",
                                     *members, key, most);
        free (shown);
    }
    free (prefix);
    return rc;
}

bool
tl_sim_spec_aggregates (const tl_sim_spec_t *self)
{
    bool several = self->worker_count > 1 && self->client_count > 1 &&
                   self->mode != TL_CHOOSE_SERIAL && self->mode != TL_CHOOSE_BATCH;
    return several || self->share != TL_SHARE_NOTHING;
}

//  What is said of a population and means nothing without another of its settings.
static int
s_check_pairs (const tl_sim_spec_t *self, const tl_yaml_t *root, const char *key, tl_error_t *err)
{
    static const struct {
        const char *path, *needs, *says;
    } pairs[] = {
        {"compute.changes_by", "compute.changes_at", "from which round on"},
        {"compute.changes_at", "compute.changes_by", "what changes then"},
        {"compute.slower", "compute.straggle", "how many jobs take so long"},
        {"fails.back_s", "fails.every_s", "how often a member is lost"},
    };
    const tl_yaml_t *list = tl_yaml_child (root, key);
    for (size_t i = 0; i < list->count; i++)
        for (size_t p = 0; p < sizeof pairs / sizeof pairs[0]; p++) {
            const tl_yaml_t *node = tl_yaml_find (list->children[i], pairs[p].path);
            if (!node || tl_yaml_find (list->children[i], pairs[p].needs))
                continue;
            char shown[64];
            snprintf (shown, sizeof shown, "%s.%zu.%s", key, i, pairs[p].path);
            return tl_schema_complain (self->source, node, false, shown, err,
                                       "without %s it has no effect, for that says %s; set it, or "
                                       "remove this",
                                       pairs[p].needs, pairs[p].says);
        }
    return 0;
}

static int
s_complain (const tl_sim_spec_t *self, const tl_yaml_t *root, const char *path, tl_error_t *err,
            const char *text)
{
    return tl_schema_complain (self->source, tl_yaml_find (root, path), false, path, err, "%s",
                               text);
}

//  As a topology's: topology/topology.c.
static int
s_check_federation (const tl_sim_spec_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    bool sync = self->share == TL_SHARE_GRADIENT, gathers = tl_sim_spec_aggregates (self);
    if (sync && self->mode != TL_CHOOSE_BATCH)
        return s_complain (self, root, "federate.clients", err,
                           "sync makes one gradient of all clients of a step, which only "
                           "schedule.mode batch has; set that, or federate.clients: average");
    const char *idle = self->quorum > 1       ? "federate.quorum"
                       : self->deadline_s > 0 ? "federate.deadline_s"
                                              : NULL;
    if (idle && (sync || !gathers))
        return s_complain (self, root, idle, err,
                           "nothing is averaged with these settings; remove it, or set "
                           "federate.clients: average");
    if (self->quorum > self->client_count)
        return tl_schema_complain (self->source, tl_yaml_find (root, "federate.quorum"), false,
                                   "federate.quorum", err,
                                   "%llu parts can't come from %zu client%s; use at most that",
                                   (unsigned long long)self->quorum, self->client_count,
                                   self->client_count == 1 ? "" : "s");
    if (self->window && sync)
        return s_complain (self, root, "schedule.join", err,
                           "federate.clients sync sums the gradients of all clients in every step, "
                           "which window would begin without some of them; use all");
    return 0;
}

static int
s_check_whole (const tl_sim_spec_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    if (!self->whole)
        return 0;
    if (self->share != TL_SHARE_AVERAGE)
        return s_complain (self, root, "split", err,
                           "with none each client trains a whole model, and only "
                           "federate.clients: average makes them one; set that");
    if (self->mode != TL_CHOOSE_BATCH)
        return s_complain (self, root, "split", err,
                           "with none there is no trunk to share out; set schedule.mode: batch, "
                           "where every client does each step by itself");
    if (self->worker_count > 1)
        return s_complain (self, root, "split", err,
                           "with none one worker keeps the time; leave the others out");
    if (self->window)
        return s_complain (self, root, "schedule.join", err,
                           "with split none no client waits for another inside a period; use all");
    if (self->credit_mb > 0)
        return s_complain (self, root, "wire.credit_mb", err,
                           "with split none no rows travel; remove it");
    for (size_t k = 0; k < self->client_kinds; k++)
        if (self->clients[k].compute.whole <= 0) {
            char shown[64];
            snprintf (shown, sizeof shown, "clients.%zu.compute.whole", k);
            return tl_schema_complain (
                self->source, tl_yaml_child (root, "clients")->children[k], false, shown, err,
                "with split none a client has all of the model: say how "
                "many times a job a micro of it takes, forward and backward");
        }
    return 0;
}

static int
s_check (const tl_sim_spec_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    bool always[2] = {false, false};
    for (size_t i = 0; i < self->worker_kinds; i++)
        always[0] |= self->workers[i].fails.every_s <= 0 || self->workers[i].fails.back_s > 0;
    for (size_t i = 0; i < self->client_kinds; i++)
        always[1] |= self->clients[i].fails.every_s <= 0 || self->clients[i].fails.back_s > 0;
    if (self->window && self->mode == TL_CHOOSE_SERIAL)
        return tl_schema_complain (
            self->source, tl_yaml_find (root, "schedule.join"), false, "schedule.join", err,
            "window begins a step with the clients that are ready, and with schedule.mode serial a "
            "step is one client's; use all, or another mode");
    if (s_check_federation (self, root, err) || s_check_whole (self, root, err) ||
        s_check_pairs (self, root, "workers", err) || s_check_pairs (self, root, "clients", err))
        return -1;
    for (int i = 0; i < 2; i++)
        if (!always[i]) {
            const char *key = i ? "clients" : "workers";
            return tl_schema_complain (self->source, tl_yaml_child (root, key), false, key, err,
                                       "all of them fail and stay away, so the run would wait for "
                                       "ever; give some fails.back_s");
        }
    return 0;
}

tl_sim_spec_t *
tl_sim_spec_parse (const char *name, const char *text, size_t size, const char *const *overrides,
                   size_t count, tl_error_t *err)
{
    tl_yaml_t *root = tl_yaml_parse (name, text, size, err);
    int rc = root ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = tl_yaml_set (root, overrides[i], err);
    tl_sim_spec_t *self = tl_alloc (sizeof *self);
    self->source = tl_strdup (name);
    if (rc == 0)
        rc = tl_schema_read_map (&s_table, name, root, "", "", self, err);
    if (rc == 0)
        rc = s_populations (self, root, "workers", TL_SIM_MOST_WORKERS, &self->workers,
                            &self->worker_kinds, &self->worker_count, err);
    if (rc == 0)
        rc = s_populations (self, root, "clients", TL_SIM_MOST_CLIENTS, &self->clients,
                            &self->client_kinds, &self->client_count, err);
    if (rc == 0)
        rc = s_check (self, root, err);
    if (rc != 0)
        tl_sim_spec_destroy (&self);
    tl_yaml_destroy (&root);
    return self;
}

tl_sim_spec_t *
tl_sim_spec_read (const char *path, const char *const *overrides, size_t count, tl_error_t *err)
{
    size_t size = 0;
    char *text = tl_file_read (path, LARGEST_FILE, &size, err);
    if (!text) {
        if (err)
            err->code = TL_BAD_INPUT;
        return NULL;
    }
    tl_sim_spec_t *self = tl_sim_spec_parse (path, text, size, overrides, count, err);
    free (text);
    return self;
}

void
tl_sim_spec_destroy (tl_sim_spec_t **self_p)
{
    tl_sim_spec_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->worker_kinds; i++)
        free (self->workers[i].name);
    for (size_t i = 0; i < self->client_kinds; i++)
        free (self->clients[i].name);
    free (self->workers);
    free (self->clients);
    free (self->name);
    free (self->source);
    free (self);
    *self_p = NULL;
}
