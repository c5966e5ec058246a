/*  The real engine: llama of hidden 576 x 30, LoRA r = 8, 256 rows a client, fp32 on the wire, equal threads.

    One client in serial against one process; a client-step of four clients in serial against that of one; four clients
    in batch against one process on the same rows, and against serial: medians of rounds in which all five run in turns.
    And two machines of one thread each, 4 micros, split {front: 3, tail: 6}, against the best they could do by the
    stages' own times. And four clients in batch against PyTorch's plainest split of the same shape, in turns. */

#include "bench/bench_schedule.h"

#include "bench/bench_material.h"
#include "bench/bench_run.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    LENGTH = 128,
    ROWS = 256,
    SOME = 4, //  clients
    WARM = 2, //  rounds at the start of a run that don't count
    MOST_ROUNDS = 32,
    MOST_STEPS = 256,
    MICROS = 4
};

#define SETTINGS "tune: {method: lora, rank: 8, alpha: 16, dropout: 0}\n"

typedef enum { ONE, SERIAL_1, SERIAL_4, FOUR, BATCH_4, KINDS } kind_t;
static const char *const s_kinds[KINDS] = {"one process", "serial, 1 client", "serial, 4 clients",
                                           "one process, 4 times the rows", "batch, 4 clients"};

typedef struct {
    bench_t *bench;
    char *model, *data;
    int threads;
} s_engine_t;

static void
s_open (s_engine_t *self, bench_t *bench)
{
    const stage_dir_t *stage = &bench->stage;
    long processors = sysconf (_SC_NPROCESSORS_ONLN);
    *self = (s_engine_t){.bench = bench,
                         .model = bench_large (stage->trunkline, stage->dir, stage->log),
                         .data = bench_rows (stage->dir, LENGTH),
                         .threads = processors < 4 ? (int)processors : 4};
}

static void
s_close (s_engine_t *self)
{
    free (self->model);
    free (self->data);
}

//  When lines with a loss came.
typedef struct {
    double at[MOST_STEPS];
    size_t count;
} s_lines_t;

static void
s_on_line (void *arg, const char *line, double at)
{
    s_lines_t *self = arg;
    if (strstr (line, "\"loss\"") && self->count < MOST_STEPS)
        self->at[self->count++] = at;
}

//  Seconds a step of `train` on spec's only client; 0 if it failed.
static double
s_train (const s_engine_t *self, const play_t *spec)
{
    const stage_dir_t *stage = &self->bench->stage;
    int ports[3];
    char threads[16];
    bench_ports (ports);
    char *path = play_topology (stage, spec, ports);
    char *out = tl_format ("%s/runs/%s-central", stage->dir, spec->name);
    snprintf (threads, sizeof threads, "%d", spec->threads);
    const char *argv[] = {stage->trunkline, "train", path,       "--out", out,
                          "--threads",      threads, "--format", "jsonl", NULL};
    s_lines_t lines = {.count = 0};
    bench_usage_t usage;
    int rc = bench_run (argv, stage->log, s_on_line, &lines, &usage);
    free (path);
    free (out);
    if (rc || lines.count <= WARM + 1)
        return 0;
    return (lines.at[lines.count - 1] - lines.at[WARM]) / (double)(lines.count - 1 - WARM);
}

static double
s_split (const s_engine_t *self, const play_t *spec)
{
    played_t result;
    play (&self->bench->stage, spec, &result);
    double seconds = result.good ? played_round (&result, WARM) : 0;
    played_clear (&result);
    return seconds;
}

static double
s_measure (const s_engine_t *self, kind_t kind)
{
    bool split = kind != ONE && kind != FOUR;
    size_t clients = kind == SERIAL_4 || kind == BATCH_4 ? SOME : 1;
    play_t spec = {.name = "engine",
                   .mode = kind == BATCH_4 ? "batch" : "serial",
                   .workers = 1,
                   .clients = clients,
                   .rounds = WARM + (self->bench->quick            ? 2
                                     : clients > 1 || kind == FOUR ? 4
                                                                   : 8),
                   .micros = 1,
                   .rows = kind == FOUR ? SOME * ROWS : ROWS,
                   .sequences = (kind == FOUR ? SOME : 1) * ROWS / LENGTH,
                   .model = self->model,
                   .data = self->data,
                   .settings = SETTINGS,
                   .threads = self->threads,
                   .wire = "fp32"};
    double seconds = split ? s_split (self, &spec) : s_train (self, &spec);
    fprintf (stderr, "engine: %s: %.3f s a round\n", s_kinds[kind], seconds);
    return seconds;
}

//  Each in turns, forwards and backwards; ratios are of one round, the result is their median.
static void
s_rounds (const s_engine_t *self, json_t *detail)
{
    double times[KINDS][MOST_ROUNDS], ratio[4][MOST_ROUNDS];
    size_t rounds = self->bench->quick ? 1 : 9, good = 0;
    for (size_t i = 0; i < rounds; i++) {
        bool whole = true;
        for (int k = 0; k < KINDS; k++) {
            kind_t kind = (kind_t)(i % 2 ? KINDS - 1 - k : k);
            times[kind][good] = s_measure (self, kind);
            whole = whole && times[kind][good] > 0;
        }
        if (!whole)
            continue;
        ratio[0][good] = times[SERIAL_1][good] / times[ONE][good];
        ratio[1][good] = times[SERIAL_4][good] / SOME / times[SERIAL_1][good];
        ratio[2][good] = times[FOUR][good] / times[BATCH_4][good];
        ratio[3][good] = times[SERIAL_4][good] / times[BATCH_4][good];
        good++;
    }
    static const char *const keys[] = {"split_over_centralised", "serial4_over_serial1",
                                       "batch4_over_centralised", "batch4_over_serial4"};
    for (int i = 0; i < 4; i++)
        if (good)
            bench_put (self->bench, keys[i], bench_quantile (ratio[i], good, 0.5));
        else
            bench_skip (self->bench, keys[i], "no round was whole; look into the log");
    for (int k = 0; k < KINDS && good; k++)
        json_object_set_new (detail, s_kinds[k], json_real (bench_quantile (times[k], good, 0.5)));
    json_object_set_new (detail, "rounds", json_integer ((json_int_t)good));
}

//  --- the plainest split -----------------------------------------------------------------------

static void
s_on_naive (void *arg, const char *line, double at)
{
    double *seconds = arg;
    json_t *object = json_loads (line, 0, NULL);
    *seconds = object ? json_number_value (json_object_get (object, "median_s")) : *seconds;
    json_decref (object);
}

//  Seconds a round of four clients in the peers' split over TCP, plain text, one after another, which on few cores is faster than
//  all at once; 0 if it failed.
static double
s_naive (const s_engine_t *self, const char *python, const char *hf)
{
    char *script = tl_format ("%s/naive_split.py", self->bench->peers);
    char threads[16], clients[16], batch[16], length[16];
    snprintf (threads, sizeof threads, "%d", self->threads);
    snprintf (clients, sizeof clients, "%d", SOME);
    snprintf (batch, sizeof batch, "%d", ROWS / LENGTH);
    snprintf (length, sizeof length, "%d", LENGTH);
    const char *argv[] = {python,  script,
                          "batch", "--model",
                          hf,      "--clients",
                          clients, "--batch",
                          batch,   "--seq",
                          length,  "--server-threads",
                          threads, "--client-threads",
                          threads, "--repeats",
                          "4",     NULL};
    double seconds = 0;
    bench_usage_t usage;
    if (bench_run (argv, self->bench->stage.log, s_on_naive, &seconds, &usage))
        seconds = 0;
    fprintf (stderr, "engine: the plainest split: %.3f s a round\n", seconds);
    free (script);
    return seconds;
}

void
bench_schedule_naive (bench_t *self)
{
    const char *python = getenv ("TL_PYTHON"), *hf = getenv ("TL_SMOLLM2_HF");
    s_engine_t engine;
    double ours[MOST_ROUNDS], theirs[MOST_ROUNDS], ratio[MOST_ROUNDS];
    size_t rounds = self->quick ? 1 : 7, good = 0;
    if (!python || !hf || !self->peers) {
        bench_skip (self, "batch4_over_naive", "set TL_PYTHON, TL_SMOLLM2_HF and TL_PEERS");
        return;
    }
    s_open (&engine, self);
    for (size_t i = 0; i < rounds; i++) {
        for (size_t turn = 0; turn < 2; turn++)
            if ((turn + i) % 2)
                theirs[good] = s_naive (&engine, python, hf);
            else
                ours[good] = s_measure (&engine, BATCH_4);
        if (ours[good] <= 0 || theirs[good] <= 0)
            continue;
        ratio[good] = theirs[good] / ours[good];
        good++;
    }
    s_close (&engine);
    if (!good) {
        bench_skip (self, "batch4_over_naive", "no pair was whole; look into the log");
        return;
    }
    bench_put (self, "batch4_over_naive", bench_quantile (ratio, good, 0.5));
    json_object_set_new (self->detail, "naive",
                         json_pack ("{sIsfsfsfsf}", "pairs", (json_int_t)good, "least",
                                    bench_quantile (ratio, good, 0), "most",
                                    bench_quantile (ratio, good, 1), "ours_s",
                                    bench_quantile (ours, good, 0.5), "theirs_s",
                                    bench_quantile (theirs, good, 0.5)));
}

//  --- two machines -----------------------------------------------------------------------------

typedef enum { FRONT, TRUNK, TAIL, TRUNK_BACK, FRONT_BACK, STAGES } stage_t;

//  The client has front, tail and front back; the worker the trunk's two. order [STAGES]: which stage goes first where several
//  wait on a machine. Seconds until the last micro is through.
static double
s_makespan (const double *times, const int *order)
{
    static const int machine[STAGES] = {0, 1, 0, 1, 0};
    double ready[MICROS][STAGES], free_at[2] = {0, 0}, end = 0;
    bool done[MICROS][STAGES] = {{false}};
    for (int i = 0; i < MICROS; i++)
        for (int s = 0; s < STAGES; s++)
            ready[i][s] = s == FRONT ? 0 : 1e18;
    for (int left = MICROS * STAGES; left > 0; left--) {
        //  The job that can begin earliest; of those the stage that goes first, and its first micro.
        int best = -1, best_stage = 0;
        double begin = 1e18;
        for (int s = 0; s < STAGES; s++)
            for (int i = 0; i < MICROS; i++) {
                double at = ready[i][s] > free_at[machine[s]] ? ready[i][s] : free_at[machine[s]];
                if (done[i][s] || ready[i][s] > 1e17 || at > begin ||
                    (at == begin && best >= 0 && order[s] >= order[best_stage]))
                    continue;
                begin = at;
                best = i;
                best_stage = s;
            }
        double finished = begin + times[best_stage];
        done[best][best_stage] = true;
        free_at[machine[best_stage]] = finished;
        if (best_stage + 1 < STAGES)
            ready[best][best_stage + 1] = finished;
        end = finished > end ? finished : end;
    }
    return end;
}

//  The least over all orders of the stages.
static double
s_ideal (const double *times)
{
    double least = 1e18;
    int order[STAGES];
    for (int code = 0; code < 3125; code++) {
        for (int s = 0, rest = code; s < STAGES; s++, rest /= STAGES)
            order[s] = rest % STAGES;
        double span = s_makespan (times, order);
        least = span < least ? span : least;
    }
    return least;
}

typedef struct {
    double times[STAGES + 1]; //  seconds: the stages, and both updates together
    bool good;
} s_stages_t;

static void
s_on_stages (void *arg, const char *line, double at)
{
    static const char *const names[] = {"front",      "trunk",      "tail",
                                        "trunk_back", "front_back", "update"};
    s_stages_t *self = arg;
    json_t *object = json_loads (line, 0, NULL);
    for (int i = 0; i <= STAGES && object; i++)
        self->times[i] = json_number_value (json_object_get (object, names[i])) / 1000;
    self->good = object != NULL;
    json_decref (object);
}

//  Where the model is cut; figures are named after name.
typedef struct {
    const char *name, *front, *tail, *split;
} s_cut_t;

static void
s_put (bench_t *bench, const s_cut_t *cut, const char *what, double value)
{
    char key[64];
    snprintf (key, sizeof key, "%s_%s", cut->name, what);
    bench_put (bench, key, value);
}

static void
s_two_machines (const s_engine_t *self, const s_cut_t *cut, json_t *detail)
{
    bench_t *bench = self->bench;
    s_stages_t stages = {.good = false};
    const char *argv[] = {bench->stages, self->model, cut->front, cut->tail, NULL};
    bench_usage_t usage;
    play_t spec = {.name = cut->name,
                   .mode = "serial",
                   .workers = 1,
                   .clients = 1,
                   .rounds = WARM + (bench->quick ? 2 : 6),
                   .micros = MICROS,
                   .rows = ROWS,
                   .sequences = MICROS * ROWS / LENGTH,
                   .model = self->model,
                   .data = self->data,
                   .settings = SETTINGS,
                   .split = cut->split,
                   .threads = 1,
                   .wire = "fp32",
                   .client_cpus = 1,
                   .worker_cpus = 2};
    if (sysconf (_SC_NPROCESSORS_ONLN) < 2 ||
        bench_run (argv, bench->stage.log, s_on_stages, &stages, &usage) || !stages.good) {
        bench_skip (bench, cut->name, "it needs two processors and the stages' times");
        return;
    }
    double one = s_train (self, &spec), two = s_split (self, &spec);
    //  Both update at once when the last micro is through.
    double ideal = s_ideal (stages.times) + stages.times[STAGES] / 2;
    if (one <= 0 || two <= 0) {
        bench_skip (bench, cut->name, "a run failed; look into the log");
        return;
    }
    s_put (bench, cut, "ideal_ms", 1e3 * ideal);
    s_put (bench, cut, "ms", 1e3 * two);
    s_put (bench, cut, "of_ideal", ideal / two);
    s_put (bench, cut, "over_one", one / two);
    json_object_set_new (detail, cut->name,
                         json_pack ("{sfsfsfsfsfsfsfsf}", "front_ms", 1e3 * stages.times[0],
                                    "trunk_ms", 1e3 * stages.times[1], "tail_ms",
                                    1e3 * stages.times[2], "trunk_back_ms", 1e3 * stages.times[3],
                                    "front_back_ms", 1e3 * stages.times[4], "update_ms",
                                    1e3 * stages.times[5], "one_process_ms", 1e3 * one,
                                    "ideal_over_one", one / ideal));
}

void
bench_schedule_engine (bench_t *self)
{
    s_engine_t engine;
    s_open (&engine, self);
    json_t *detail = json_object ();
    s_two_machines (&engine, &(s_cut_t){"two_machines", "3", "6", "{front: 3, tail: 6}"}, detail);
    s_two_machines (&engine, &(s_cut_t){"two_machines_1_1", "1", "1", "{front: 1, tail: 1}"},
                    detail);
    s_rounds (&engine, detail);
    json_object_set_new (self->detail, "engine", detail);
    s_close (&engine);
}
