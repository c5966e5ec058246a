//  run: one actor in this process: what `up` starts for each part, and what an engineer starts on another machine.

#include "cli/verbs.h"

#include "actors/aggregator.h"
#include "actors/broker.h"
#include "actors/client.h"
#include "actors/events.h"
#include "actors/load.h"
#include "actors/worker.h"
#include "memory.h"
#include "nearest.h"
#include "ui/json.h"
#include "ui/progress.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

typedef struct {
    bool stay;             //  --stay
    bool replace, resume;  //  --replace, --resume
    bool fresh;            //  --fresh
    uint64_t parent;       //  --parent
    uint64_t first, count; //  --first, --count; count 0: all the others
} s_options_t;

static void
s_print_event (void *arg, const json_t *event)
{
    tl_json_print (event, false);
}

//  What a person wants to know of it. Whole lines now and then also on a terminal: log lines come between.
typedef struct {
    uint64_t steps; //  of the run
    tl_progress_t progress;
} s_person_t;

static double
s_number (const json_t *event, const char *key)
{
    return json_number_value (json_object_get (event, key));
}

static void
s_tell (void *arg, const json_t *event)
{
    s_person_t *self = arg;
    const char *name = json_string_value (json_object_get (event, "event"));
    double done = s_number (event, "step") + 1, labels = s_number (event, "labels");
    bool last = done >= (double)self->steps;
    if (strcmp (name, "load") == 0)
        fprintf (stderr, "%.0f clients made %.0f steps of %.0f label tokens in %.1f s\n",
                 s_number (event, "clients"), s_number (event, "steps"), labels,
                 s_number (event, "seconds"));
    else if (strcmp (name, "step") == 0)
        tl_progress_line (&self->progress, last, "step %.0f/%llu  loss %.4f  %.0f tokens/s", done,
                          (unsigned long long)self->steps, s_number (event, "loss"),
                          labels / fmax (s_number (event, "seconds"), 1e-6));
    else if (strcmp (name, "closed") == 0)
        tl_progress_line (&self->progress, last, "step %.0f/%llu  %.0f label tokens", done,
                          (unsigned long long)self->steps, labels);
    else if (strcmp (name, "scored") == 0 && labels > 0)
        tl_progress_line (&self->progress, true, "held-out perplexity %.4f of %.0f label tokens",
                          exp (s_number (event, "nll") / labels), labels);
}

static const s_options_t s_defaults = {.first = 1};

//  Ends with the supervisor, even if that is killed.
static int
s_follow (uint64_t parent, tl_error_t *err)
{
    prctl (PR_SET_PDEATHSIG, SIGTERM);
    if (getppid () == (pid_t)parent)
        return 0;
    return tl_fail (err, TL_FAILED, "run: the process that started this one is gone; start again");
}

static int
s_no_role (const char *role, tl_error_t *err)
{
    static const char *const roles[] = {"broker", "aggregator", "worker", "client", "load"};
    const char *near = tl_nearest (role, roles, 5);
    if (near)
        return tl_fail (err, TL_BAD_INPUT, "run: '%s' is not a role; write %s if that was meant",
                        role, near);
    return tl_fail (
        err, TL_BAD_INPUT,
        "run: '%s' is not a role; there are broker, aggregator, worker, client and load: "
        "write for example "
        "trunkline run worker FILE NAME",
        role);
}

//  Index of the part, or -1 and a sentence with a name to write.
static int
s_find (const tl_topology_t *topology, const char *role, const char *name, tl_error_t *err)
{
    bool worker = strcmp (role, "worker") == 0;
    size_t count = worker ? topology->worker_count : topology->client_count;
    const char **names = tl_alloc ((count + 1) * sizeof *names);
    int index = -1;
    for (size_t i = 0; i < count; i++) {
        names[i] = worker ? topology->workers[i].name : topology->clients[i].name;
        if (name && strcmp (names[i], name) == 0)
            index = (int)i;
    }
    const char *near = name ? tl_nearest (name, names, count) : NULL;
    if (index < 0 && !name)
        tl_fail (err, TL_BAD_INPUT, "run: expected the %s's name after %s; write for example %s",
                 role, topology->source, names[0]);
    else if (index < 0)
        tl_fail (err, TL_BAD_INPUT, "run: %s names no %s '%s'; write %s%s", topology->source, role,
                 name, near ? near : names[0],
                 near         ? " if that was meant"
                 : count == 1 ? ", its only one"
                              : ", or another of its names");
    free (names);
    return index;
}

//  --first and --count as they are in the topology.
static int
s_run_load (const tl_topology_t *topology, const s_options_t *options, tl_error_t *err)
{
    size_t all = topology->client_count, first = options->first - 1;
    size_t count = options->count ? options->count : first < all ? all - first : 1;
    if (first < all && count <= all - first)
        return tl_load_run (topology, first, count, err);
    tl_fail (err, TL_BAD_INPUT,
             "run: %s has %zu clients, --first %zu and --count %zu reach beyond; use --first 1 and "
             "at most --count %zu",
             topology->source, all, first + 1, count, all);
    return TL_BAD_INPUT;
}

static int
s_run_role (const char *role, const char *name, const tl_topology_t *topology,
            const s_options_t *options, tl_error_t *err)
{
    if (strcmp (role, "broker") == 0) {
        tl_broker_options_t broker = {.stay = options->stay,
                                      .replace = options->replace,
                                      .resume = options->resume,
                                      .fresh = options->fresh};
        return tl_broker_run (topology, &broker, err);
    }
    if (strcmp (role, "load") == 0)
        return s_run_load (topology, options, err);
    if (strcmp (role, "aggregator") == 0 && !tl_topology_aggregates (topology))
        return tl_fail (err, TL_BAD_INPUT,
                        "run: a run of %s has no aggregator, because nothing is averaged with its "
                        "settings; leave it out, or set federate.clients: average",
                        topology->source);
    if (strcmp (role, "aggregator") == 0)
        return tl_aggregator_run (topology, err);
    bool worker = strcmp (role, "worker") == 0;
    int index = s_find (topology, role, name, err);
    if (index < 0)
        return TL_BAD_INPUT;
    return worker ? tl_worker_run (topology, (size_t)index, err)
                  : tl_client_run (topology, (size_t)index, err);
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    if (options->parent && s_follow (options->parent, err))
        return -1;
    if (options->resume && options->replace)
        return tl_fail (err, TL_BAD_INPUT,
                        "run: --resume continues a run and --replace begins it anew; give one");
    if (options->fresh && !options->resume)
        return tl_fail (err, TL_BAD_INPUT,
                        "run: --fresh says how a run is continued; give --resume with it");
    const char *role = arguments->words[0];
    bool load = strcmp (role, "load") == 0;
    bool only = load || strcmp (role, "broker") == 0 || strcmp (role, "aggregator") == 0;
    if (!only && strcmp (role, "worker") != 0 && strcmp (role, "client") != 0)
        return s_no_role (role, err);
    if (!load && (options->first != s_defaults.first || options->count != s_defaults.count))
        return tl_fail (err, TL_BAD_INPUT,
                        "run: --first and --count belong to the role load; leave them out");
    if (load && arguments->word_count > 2)
        return tl_fail (err, TL_BAD_INPUT,
                        "run: '%s' is one word too many, a load is of many clients; say which with "
                        "--first and --count",
                        arguments->words[2]);
    if (only && arguments->word_count > 2)
        return tl_fail (err, TL_BAD_INPUT,
                        "run: '%s' is one word too many, a topology has one %s; leave it out",
                        arguments->words[2], role);
    tl_topology_t *topology = tl_verb_topology (arguments, arguments->words[1], err);
    if (!topology)
        return -1;
    s_person_t person = {.steps = topology->train.steps};
    if (arguments->format == TL_FORMAT_TEXT)
        tl_events_to (s_tell, &person);
    else
        tl_events_to (s_print_event, NULL);
    int code = s_run_role (role, arguments->word_count > 2 ? arguments->words[2] : NULL, topology,
                           options, err);
    tl_topology_destroy (&topology);
    return code ? -1 : 0;
}

static const tl_option_t s_table[] = {
    {"stay", TL_OPTION_FLAG, offsetof (s_options_t, stay), NULL, 0, 0,
     "broker: after the last step go on serving eval and generate"},
    {"replace", TL_OPTION_FLAG, offsetof (s_options_t, replace), NULL, 0, 0,
     "broker: begin the run anew though the one that is there is not over"},
    {"fresh", TL_OPTION_FLAG, offsetof (s_options_t, fresh), NULL, 0, 0,
     "broker, with --resume: a client whose saves are gone begins with a fresh adapter"},
    {"resume", TL_OPTION_FLAG, offsetof (s_options_t, resume), NULL, 0, 0,
     "broker: continue the run that is there from its last common save"},
    {"parent", TL_OPTION_COUNT, offsetof (s_options_t, parent), "PID", 1, 4194304,
     "end when that process, which started this one, is gone"},
    {"first", TL_OPTION_COUNT, offsetof (s_options_t, first), "N", 1, 65536,
     "load: number of its first client in the topology, from 1"},
    {"count", TL_OPTION_COUNT, offsetof (s_options_t, count), "M", 1, 65536,
     "load: how many; left out: all the others"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_run = {
    .name = "run",
    .words = "ROLE TOPOLOGY [NAME]",
    .min_words = 2,
    .max_words = 3,
    .help = "run one part of a topology: broker, aggregator, worker NAME, client NAME or load",
    .more = "A load is many synthetic clients in one process. With --format jsonl events go to "
            "stdout,\n"
            "one JSON object a line.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof s_defaults,
    .run = s_run,
};
