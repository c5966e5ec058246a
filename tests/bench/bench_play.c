//  bench_play: see the header.

#include "bench/bench_play.h"

#include "bench/bench_crew.h"
#include "bench/bench_run.h"
#include "file.h"
#include "memory.h"
#include "slow_link.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 1 << 18, MOST_WORDS = 24, MOST_LINKS = 64 };

//  --- the topology -----------------------------------------------------------------------------

//  Text that grows.
static void __attribute__ ((format (printf, 2, 3))) s_add (char **text, const char *format, ...)
{
    char piece[2048];
    va_list args;
    va_start (args, format);
    vsnprintf (piece, sizeof piece, format, args);
    va_end (args);
    char *longer = tl_format ("%s%s", *text ? *text : "", piece);
    free (*text);
    *text = longer;
}

static void
s_add_synthetic (char **text, const play_t *spec)
{
    s_add (text, "model: {synthetic: {hidden: %zu}}\n", spec->hidden);
    s_add (text, "workers:\n");
    for (size_t i = 0; i < spec->workers; i++) {
        bool last = i + 1 == spec->workers;
        double times = spec->last_is > 0 && last ? spec->last_is : 1;
        s_add (text,
               "  - {name: w-%zu, compute: {synthetic: {base_ms: %.6g, us_per_row: %.6g, "
               "changes_at: %llu, changes_by: %.6g}}}\n",
               i + 1, times * spec->base_ms, times * spec->us_per_row,
               (unsigned long long)(last ? spec->changes_at : 0),
               spec->changes_by > 0 ? spec->changes_by : 1);
    }
    s_add (text,
           "clients: [{name: c, count: %zu, compute: {synthetic: {rows: %zu, base_ms: %.6g}}}]\n",
           spec->clients, spec->rows, spec->think_ms);
}

static void
s_add_real (char **text, const play_t *spec)
{
    int threads = spec->threads ? spec->threads : 1;
    s_add (text, "model: {path: %s}\nsplit: %s\n", spec->model,
           spec->split ? spec->split : "{front: 1, tail: 1}");
    s_add (text, "workers:\n");
    for (size_t i = 0; i < spec->workers; i++)
        s_add (text, "  - {name: w-%zu, threads: %d}\n", i + 1, threads);
    s_add (text, "clients:\n");
    for (size_t i = 0; i < spec->clients; i++)
        s_add (text, "  - {name: c-%zu, threads: %d, data: %s}\n", i + 1, threads, spec->data);
}

char *
play_topology (const stage_dir_t *stage, const play_t *spec, const int ports[3])
{
    char *text = NULL, *path = tl_format ("%s/%s.yaml", stage->dir, spec->name);
    size_t micros = spec->micros ? spec->micros : 1;
    s_add (&text, "version: 1\nname: %s\n", spec->name);
    s_add (&text, "train: {steps: %llu, batch_size: %zu, micros: %zu, max_length: %zu, lr: 1e-4}\n",
           (unsigned long long)spec->rounds, spec->sequences ? spec->sequences : micros, micros,
           spec->model      ? spec->rows * micros / spec->sequences + 1
           : spec->rows > 8 ? spec->rows
                            : 8);
    s_add (&text, "schedule: {mode: %s}\nwire: {dtype: %s}\n", spec->mode,
           spec->wire ? spec->wire : "bf16");
    if (spec->settings)
        s_add (&text, "%s", spec->settings);
    if (spec->every)
        s_add (&text, "federate: {every: %llu}\n", (unsigned long long)spec->every);
    s_add (&text, "checkpoint: {dir: %s/runs, every: 1000000, keep: 1}\nkeys: %s/keys\n",
           stage->dir, stage->dir);
    s_add (&text,
           "broker: {threads: 2, control: 'tcp://127.0.0.1:%d', clients: 'tcp://127.0.0.1:%d', "
           "workers: "
           "'tcp://127.0.0.1:%d'}\n",
           ports[0], ports[1], ports[2]);
    if (spec->model)
        s_add_real (&text, spec);
    else
        s_add_synthetic (&text, spec);
    tl_error_t err;
    if (tl_file_write (path, text, strlen (text), 0644, &err)) {
        fprintf (stderr, "bench schedule: %s\n", err.text);
        exit (TL_FAILED);
    }
    free (text);
    return path;
}

//  --- what they say ----------------------------------------------------------------------------

typedef struct {
    played_t *result;
    size_t room; //  of result->closed
} s_ear_t;

static uint64_t
s_whole (const json_t *event, const char *key)
{
    return (uint64_t)json_integer_value (json_object_get (event, key));
}

static void
s_on_closed (s_ear_t *self, const json_t *event, double at)
{
    played_t *result = self->result;
    if (result->count == self->room) {
        self->room = 2 * self->room + 1024;
        result->closed = realloc (result->closed, self->room * sizeof *result->closed);
        if (!result->closed)
            abort ();
    }
    result->closed[result->count++] =
        (closed_t){at, s_whole (event, "round"), s_whole (event, "labels")};
}

static void
s_on_event (void *arg, const char *name, const json_t *event, double at)
{
    s_ear_t *self = arg;
    played_t *result = self->result;
    const char *said = json_string_value (json_object_get (event, "event"));
    if (!said)
        return;
    if (strcmp (name, "broker") == 0 && strcmp (said, "closed") == 0)
        s_on_closed (self, event, at);
    else if (strcmp (name, "broker") == 0 && strcmp (said, "decision") == 0) {
        const char *text = json_string_value (json_object_get (event, "text"));
        s_add (&result->decisions, "%s\n", text ? text : "");
    } else if (strcmp (said, "load") == 0) {
        uint64_t least = s_whole (event, "least_steps"), most = s_whole (event, "most_steps");
        result->client_steps += s_whole (event, "steps");
        result->least_steps = least < result->least_steps ? least : result->least_steps;
        result->most_steps = most > result->most_steps ? most : result->most_steps;
    } else if (strcmp (said, "ping") == 0) {
        result->pings = s_whole (event, "count");
        result->ping_p50_ms = json_number_value (json_object_get (event, "p50_ms"));
        result->ping_p99_ms = json_number_value (json_object_get (event, "p99_ms"));
    }
}

//  --- the processes ----------------------------------------------------------------------------

typedef struct {
    const stage_dir_t *stage;
    const play_t *spec;
    const char *path;
    crew_t *crew;
} s_cast_t;

//  `trunkline run ROLE FILE words...`, which end with NULL.
static void
s_start (const s_cast_t *self, const char *title, unsigned cpus, const char *role, ...)
{
    const char *argv[MOST_WORDS] = {
        self->stage->trunkline, "run", role, self->path, "--format", "jsonl"};
    size_t count = 6;
    va_list words;
    va_start (words, role);
    const char *word;
    while (count < MOST_WORDS - 1 && (word = va_arg (words, const char *)))
        argv[count++] = word;
    va_end (words);
    argv[count] = NULL;
    crew_start (self->crew, title, cpus, argv);
}

static void
s_start_loads (const s_cast_t *self)
{
    const play_t *spec = self->spec;
    size_t loads = spec->loads ? spec->loads : 1, first = 0;
    for (size_t i = 0; i < loads; i++) {
        size_t next = spec->clients * (i + 1) / loads;
        char title[32], from[32], count[32];
        snprintf (title, sizeof title, "load-%zu", i + 1);
        snprintf (from, sizeof from, "%zu", first + 1);
        snprintf (count, sizeof count, "%zu", next - first);
        s_start (self, title, spec->client_cpus, "load", "--first", from, "--count", count, NULL);
        first = next;
    }
}

//  Each in a process of its own, as its link is.
static void
s_start_clients (const s_cast_t *self, const int ports[3], slow_link_t **links)
{
    const play_t *spec = self->spec;
    int digits = snprintf (NULL, 0, "%zu", spec->clients);
    for (size_t i = 0; i < spec->clients; i++) {
        char name[32], control[64], data[64];
        int at[2] = {ports[0], ports[1]};
        if (spec->model || spec->clients == 1)
            snprintf (name, sizeof name, spec->model ? "c-%zu" : "c", i + 1);
        else
            snprintf (name, sizeof name, "c-%0*zu", digits, i + 1);
        if (spec->rtt_ms > 0) {
            links[i] = slow_link_new (at, 2, spec->rtt_ms, spec->mbit_s);
            at[0] = slow_link_port (links[i], 0);
            at[1] = slow_link_port (links[i], 1);
        }
        snprintf (control, sizeof control, "broker.control=tcp://127.0.0.1:%d", at[0]);
        snprintf (data, sizeof data, "broker.clients=tcp://127.0.0.1:%d", at[1]);
        s_start (self, name, spec->client_cpus, "client", name, "--set", control, "--set", data,
                 NULL);
    }
}

static void
s_start_workers (const s_cast_t *self)
{
    for (size_t i = 0; i < self->spec->workers; i++) {
        char name[32];
        snprintf (name, sizeof name, "w-%zu", i + 1);
        s_start (self, name, self->spec->worker_cpus, "worker", name, NULL);
    }
    bool several =
        strcmp (self->spec->mode, "fanout") == 0 || strcmp (self->spec->mode, "auto") == 0;
    if (several && self->spec->workers > 1 && self->spec->clients > 1)
        s_start (self, "aggregator", 0, "aggregator", NULL);
}

static void
s_ignore (void *arg, const char *line, double at)
{
}

//  False, with a sentence in the log, also when this version can't have such a topology.
static bool
s_make_keys (const stage_dir_t *stage, const char *path)
{
    const char *argv[] = {stage->trunkline, "keys", "make", path, NULL};
    bench_usage_t usage;
    return bench_run (argv, stage->log, s_ignore, NULL, &usage) == 0;
}

void
play (const stage_dir_t *stage, const play_t *spec, played_t *result)
{
    int ports[3];
    slow_link_t *links[MOST_LINKS] = {NULL};
    s_ear_t ear = {.result = result};
    *result = (played_t){.least_steps = UINT64_MAX};
    s_add (&result->decisions, "%s", "");
    bench_ports (ports);
    char *path = play_topology (stage, spec, ports);
    if (!s_make_keys (stage, path)) {
        fprintf (stderr, "bench schedule: %s is refused; look into %s\n", path, stage->log);
        free (path);
        return;
    }
    s_cast_t cast = {stage, spec, path, crew_new (stage->log, s_on_event, &ear)};
    s_start (&cast, "broker", spec->broker_cpus, "broker", "--replace", NULL);
    bool up = crew_until (cast.crew, "broker", "up", stage->patience);
    if (up) {
        s_start_workers (&cast);
        if (spec->model || spec->rtt_ms > 0)
            s_start_clients (&cast, ports, links);
        else
            s_start_loads (&cast);
    }
    if (up && spec->ping && crew_until (cast.crew, "broker", "closed", stage->patience)) {
        const char *argv[] = {stage->ping, path, NULL};
        crew_start (cast.crew, "ping", 0, argv);
    }
    result->good = crew_wait (cast.crew, stage->patience) && up;
    if (result->good) {
        result->broker_mb = crew_memory (cast.crew, "broker");
        result->broker_cpu_s = crew_cpu (cast.crew, "broker");
    }
    crew_destroy (&cast.crew);
    for (size_t i = 0; i < MOST_LINKS; i++)
        slow_link_destroy (&links[i]);
    free (path);
}

void
played_clear (played_t *result)
{
    free (result->closed);
    free (result->decisions);
    memset (result, 0, sizeof *result);
}

//  --- figures ----------------------------------------------------------------------------------

//  When the last step of an earlier round was closed, and the last of all; -1: there are none of either.
static int
s_span (const played_t *result, uint64_t first, double *from, double *to, double *labels,
        uint64_t *rounds)
{
    uint64_t last = 0;
    *from = *to = -1;
    *labels = 0;
    for (size_t i = 0; i < result->count; i++) {
        const closed_t *it = &result->closed[i];
        if (it->round < first)
            *from = it->at > *from ? it->at : *from;
        else {
            *to = it->at > *to ? it->at : *to;
            *labels += (double)it->labels;
            last = it->round > last ? it->round : last;
        }
    }
    *rounds = last + 1 - first;
    return *from >= 0 && *to > *from ? 0 : -1;
}

double
played_rate (const played_t *result, uint64_t first)
{
    double from, to, labels;
    uint64_t rounds;
    return s_span (result, first, &from, &to, &labels, &rounds) ? 0 : labels / (to - from);
}

double
played_round (const played_t *result, uint64_t first)
{
    double from, to, labels;
    uint64_t rounds;
    return s_span (result, first, &from, &to, &labels, &rounds) ? 0 : (to - from) / (double)rounds;
}
