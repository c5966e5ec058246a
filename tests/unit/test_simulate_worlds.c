//  auto against the pinned modes in worlds drawn at random: 1-8 workers, 2-48 clients, any cost, clients that average or not,
//  stragglers, far sites, a slow worker, changing loads, parts that fail and come back, sites that are done early. Chance
//  decides when somebody fails, and a run that takes longer meets other failures: so what holds is said of all of them.

#include "cmocka_all.h"

#include "random.h"
#include "simulate/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORLDS = 160, PERIODS = 16, CHANGE = 8, TEXT = 4096 };

typedef enum {
    STEADY,
    SLOW,
    FAR,
    STRAGGLERS,
    CHANGES,
    CLIENTS,
    WORKERS,
    DONE,
    ALL,
    KINDS
} s_kind_t;
static const char *const s_kinds[] = {"steady",       "a slow worker",   "far sites",
                                      "stragglers",   "a changing load", "clients fail",
                                      "workers fail", "sites are done",  "all of it"};

typedef struct {
    uint64_t seed, drawn;
    s_kind_t kind;
    size_t workers, clients, every, micros;
    bool changes;
    double
        seconds; //  of the quicker of batch and fanout if nobody fails: what failures are measured by; 0: nobody does
    char text[TEXT];
} s_world_t;

static double
s_even (s_world_t *self, double low, double high)
{
    const tl_stream_t stream = {.seed = self->seed, .purpose = TL_DRAW_INIT};
    return low + (high - low) * tl_random_uniform (&stream, self->drawn++);
}

//  Of any order of magnitude between them.
static double
s_any (s_world_t *self, double low, double high)
{
    return exp (s_even (self, log (low), log (high)));
}

//  It has this, or everything and this by chance. Draws alike whatever the kind, so that they differ in nothing else.
static bool
s_has (s_world_t *self, s_kind_t kind)
{
    bool chance = s_even (self, 0, 1) < 0.5;
    return self->kind == kind || (self->kind == ALL && chance);
}

static void
s_say (s_world_t *self, const char *format, ...)
{
    size_t at = strlen (self->text);
    va_list args;
    va_start (args, format);
    vsnprintf (self->text + at, sizeof self->text - at, format, args);
    va_end (args);
}

static void
s_say_fails (s_world_t *self, s_kind_t kind, size_t count)
{
    double every = s_any (self, 0.3, 3) * sqrt ((double)count), back = s_any (self, 0.02, 0.3);
    if (s_has (self, kind) && self->seconds > 0 && count > 1)
        s_say (self, ", fails: {every_s: %g, back_s: %g}", every * self->seconds,
               back * self->seconds);
}

static void
s_say_workers (s_world_t *self)
{
    double base = s_any (self, 0.2, 30), row = s_any (self, 2, 100),
           jitter = s_any (self, 0.02, 0.2);
    double by = s_any (self, 2, 20), latency = s_any (self, 0.05, 5);
    bool slow = s_has (self, SLOW), quicker = s_even (self, 0, 1) < 0.5;
    //  That one which is not in use became quicker nobody can know.
    size_t changing = s_even (self, 0, 1) < 0.5 && !quicker ? 1 : self->workers;
    self->changes = s_has (self, CHANGES);
    s_say (self, "workers:\n");
    for (size_t w = 0; w < self->workers; w++) {
        double times = slow && w == 0 ? 4 : 1;
        s_say (self,
               "  - {name: w%zu, link: {latency_ms: %g, mbit_s: 1000}, compute: {base_ms: %g, ", w,
               latency, base * times);
        s_say (self, "us_per_row: %g, update_ms: 1, jitter: %g", row * times, jitter);
        if (self->changes && w < changing)
            s_say (self, ", changes_at: %zu, changes_by: %g", CHANGE * self->every,
                   quicker ? 1 / by : by);
        s_say (self, "}");
        uint64_t drawn = self->drawn;
        s_say_fails (self, WORKERS, self->workers);
        self->drawn = w + 1 < self->workers ? drawn : self->drawn; //  all alike
        s_say (self, "}\n");
    }
}

static void
s_say_clients (s_world_t *self)
{
    double base = s_any (self, 1, 50), row = s_any (self, 1, 100), latency = s_any (self, 0.1, 30);
    double mbit = s_any (self, 100, 10000), far = s_any (self, 20, 100),
           thin = s_any (self, 10, 100);
    double straggle = s_any (self, 0.002, 0.05), slower = s_any (self, 4, 30);
    double done = s_even (self, 0.3, 0.8) * PERIODS * (double)self->every;
    s_say (self, "clients:\n");
    for (size_t half = 0; half < 2; half++) {
        double times = half ? s_any (self, 0.3, 3) : 1;
        s_say (self, "  - {name: c%zu, count: %zu, rows: %zu", half,
               half ? self->clients / 2 : (self->clients + 1) / 2, (size_t)s_any (self, 32, 1024));
        s_say (self, ", compute: {base_ms: %g, us_per_row: %g, jitter: 0.1", base * times,
               row * times);
        if (half && s_has (self, STRAGGLERS))
            s_say (self, ", straggle: %g, slower: %g", straggle, slower);
        bool away = half && s_has (self, FAR);
        s_say (self, "}, link: {latency_ms: %g, mbit_s: %g}", away ? far : latency,
               away ? thin : mbit);
        if (half && s_has (self, DONE))
            s_say (self, ", steps: %zu", (size_t)done);
        s_say_fails (self, CLIENTS, self->clients);
        s_say (self, "}\n");
    }
}

static void
s_draw (s_world_t *self, uint64_t seed, double seconds)
{
    *self = (s_world_t){.seed = seed, .kind = (s_kind_t)(seed % KINDS), .seconds = seconds};
    self->workers = 1 + (size_t)s_even (self, 0, 8);
    self->clients = (size_t)s_any (self, 2, 48.99);
    self->every = (size_t)s_any (self, 4, 20.99);
    self->micros = (size_t)1 << (size_t)s_even (self, 0, 3);
    bool average = s_even (self, 0, 1) < 0.4;
    double trunk = s_any (self, 0.5, 50), notice = s_any (self, 0.001, 0.02);
    s_say (self, "version: 1\nname: world\nseed: %llu\n", (unsigned long long)seed);
    s_say (self, "model: {trunk_mb: %g, client_mb: %g}\n", trunk, trunk / 4);
    s_say (self, "train: {steps: %zu, micros: %zu}\n", PERIODS * self->every, self->micros);
    s_say (self, "federate: {every: %zu, clients: %s}\n", self->every,
           average ? "average" : "personal");
    s_say (self, "liveness: {notice_ms: %g}\n", (seconds > 0 ? seconds : 1) * notice * 1e3);
    s_say (self, "broker: {mb_s: 300, us_per_message: 20}\n");
    s_say_workers (self);
    s_say_clients (self);
}

static tl_sim_result_t *
s_run (const s_world_t *self, const char *mode)
{
    char set[64];
    snprintf (set, sizeof set, "schedule.mode=%s", mode);
    const char *const overrides[] = {set};
    tl_error_t err;
    tl_sim_result_t *result = NULL;
    tl_sim_spec_t *spec =
        tl_sim_spec_parse ("world", self->text, strlen (self->text), overrides, 1, &err);
    if (!spec || tl_sim_run (spec, &result, &err) != 0)
        fail_msg ("seed %llu: %s\n%s", (unsigned long long)self->seed, err.text, self->text);
    assert_int_equal (result->code, 0);
    tl_sim_spec_destroy (&spec);
    return result;
}

//  Rows per second of the periods that count: from the third on, and from the third after a change.
static double
s_rate (const s_world_t *self, const char *mode, double *seconds)
{
    tl_sim_result_t *result = s_run (self, mode);
    double rows = 0, taken = 0;
    for (size_t p = 0; p < result->period_count; p++) {
        const tl_sim_period_t *period = &result->periods[p];
        uint64_t at = period->round / self->every;
        if (at < 2 || (self->changes && at >= CHANGE && at < CHANGE + 2))
            continue;
        rows += (double)period->rows;
        taken += period->end - period->at;
    }
    *seconds = result->seconds;
    tl_sim_result_destroy (&result);
    return rows / taken;
}

static int
s_by_size (const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double
s_compare (uint64_t seed)
{
    s_world_t world;
    double seconds[2], best = 0, unused;
    s_draw (&world, seed, 0);
    s_rate (&world, "batch", &seconds[0]);
    s_rate (&world, "fanout", &seconds[1]);
    s_draw (&world, seed, fmin (seconds[0], seconds[1]));
    static const char *const modes[] = {"serial", "batch", "fanout"};
    for (size_t m = 0; m < 3; m++)
        best = fmax (best, s_rate (&world, modes[m], &unused));
    double rate = s_rate (&world, "auto", &unused);
    if (rate < 0.95 * best)
        print_message ("seed %llu (%s), %zu workers, %zu clients, %zu micros, every %zu: %.3f\n",
                       (unsigned long long)seed, s_kinds[world.kind], world.workers, world.clients,
                       world.micros, world.every, rate / best);
    return rate / best;
}

//  TL_WORLDS=N looks at more of them.
static void
auto_keeps_up_in_any_world (void **state)
{
    const char *more = getenv ("TL_WORLDS");
    size_t count = more ? (size_t)strtoul (more, NULL, 10) : WORLDS;
    double *ratios = calloc (count, sizeof *ratios);
    for (size_t i = 0; i < count; i++)
        ratios[i] = s_compare (i);
    qsort (ratios, count, sizeof *ratios, s_by_size);
    double least = ratios[0], low = ratios[count / 20], middle = ratios[count / 2];
    print_message ("auto over the best pinned mode in %zu worlds: least %.3f, 5th percentile %.3f, "
                   "median %.3f\n",
                   count, least, low, middle);
    free (ratios);
    if (!more && (least < 0.8 || low < 0.945 || middle < 0.99))
        fail_msg ("expected at least 0.8, 0.945 and 0.99, got %.3f, %.3f and %.3f", least, low,
                  middle);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test (auto_keeps_up_in_any_world)};
    return cmocka_run_group_tests_name ("simulate_worlds", tests, NULL, NULL);
}
