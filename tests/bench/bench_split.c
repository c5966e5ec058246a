/*  bench_split TRUNKLINE DIR [--pairs N] [--steps N] [--threads N] [--only large|tiny] [--foreign
    CORES]: what splitting costs.

    Trains the same LoRA (r = 8) on the same 256 rows a step in one process (`trunkline train`) and split over
    broker, worker and one client on this machine's sockets (`trunkline up`), and compares seconds a step, for

      large   llama of hidden 576 x 30 blocks, vocabulary 49152 tied, random weights, made in DIR
      tiny    models/tiny-glm, or random weights of its config while it has none

    with fp32 and bf16 on the wire. Client, worker and the one process have the same number of threads, and all of
    it stays on so many cores. One central and two split runs make a round, in turns forwards and backwards;
    a ratio is of one round's medians, the result the median of the rounds. A run in which others took more than
    a tenth of a core counts as disturbed and is repeated. Prints one JSON object.             */

#include "bench/bench_material.h"
#include "bench/bench_run.h"

#include "error.h"
#include "file.h"
#include "memory.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ROWS = 128,    //  of a sequence
    SEQUENCES = 2, //  a step
    WARM = 3,      //  steps at the start of a run that don't count
    MOST_STEPS = 1000,
    MOST_ROUNDS = 64,
    TRIES = 4, //  runs at most, for each that is wanted
    STARTS = 5 //  measurements of the first step
};

typedef enum { CENTRAL, FP32, BF16, KINDS } kind_t;
static const char *const s_wires[KINDS] = {"fp32", "fp32", "bf16"};

typedef struct {
    const char *name;     //  "large", "tiny"
    const char *suffix;   //  of its keys in the result
    char *model;          //  directory
    size_t hidden, steps; //  columns of rows that cross a cut; steps of a run
} subject_t;

//  What one run printed.
typedef struct {
    double at[MOST_STEPS];    //  when each step was done, s
    double bytes[MOST_STEPS]; //  on the client's sockets
    size_t steps;
    double planned[2], peak[2]; //  bytes: client (or the one process), worker
} output_t;

//  What the rounds of one subject came to.
typedef struct {
    double seconds[KINDS][MOST_ROUNDS]; //  a step
    double ratio[KINDS][MOST_ROUNDS];
    double bytes[KINDS];            //  over ideal; the last round's median
    double memory[KINDS][2];        //  peak over plan; the last round's
    double planned[KINDS][2];       //  bytes
    size_t rounds, runs, disturbed; //  complete; tried; of those that don't count
} rounds_t;

typedef struct {
    const char *trunkline, *dir, *only;
    char *log;
    size_t pairs, steps;
    int threads;
    double foreign; //  cores that others may take in a round that counts
} bench_t;

static void
s_fail (const char *format, const char *what)
{
    fprintf (stderr, "bench split: ");
    fprintf (stderr, format, what);
    fprintf (stderr, "\n");
    exit (TL_FAILED);
}

//  --- material ---------------------------------------------------------------------------------

static void
s_write (const char *path, const char *text)
{
    tl_error_t err;
    if (tl_file_write (path, text, strlen (text), 0644, &err))
        s_fail ("%s", err.text);
}

//  rows.jsonl, and site.jsonl: as many short ones as a site of the demo has.
static void
s_make_data (const bench_t *self)
{
    uint32_t state = 1;
    free (bench_rows (self->dir, ROWS));
    char *path = tl_format ("%s/site.jsonl", self->dir);
    FILE *file = fopen (path, "we");
    if (!file)
        s_fail ("%s can't be written", path);
    for (size_t i = 0; i < 7000; i++) {
        fprintf (file, "{\"prompt\": \"");
        bench_say (file, &state, 4);
        fprintf (file, "\", \"completion\": \"");
        bench_say (file, &state, 4 + i % 17);
        fprintf (file, "\"}\n");
    }
    fclose (file);
    free (path);
}

//  The topology of a run, in a file; the caller frees its path.
static char *
s_topology (const bench_t *self, const subject_t *subject, kind_t kind, bool site)
{
    int ports[3];
    bench_ports (ports);
    const char *name = site ? "start" : subject->name, *wire = s_wires[kind];
    char *path = tl_format ("%s/%s-%s.yaml", self->dir, name, wire);
    char *text = tl_format (
        "version: 1\nname: %s-%s\nmodel: {path: %s}\nsplit: {front: 1, tail: 1}\n"
        "tune: {method: lora, rank: 8, alpha: 16, dropout: 0}\n"
        "train: {steps: %zu, batch_size: %d, max_length: %d, lr: 1e-4, warmup: 2, clip: 1.0}\n"
        "schedule: {mode: serial}\nwire: {dtype: %s}\n"
        "checkpoint: {dir: %s/runs, every: 1000000, keep: 1}\nkeys: %s/keys\n"
        "broker: {control: 'tcp://127.0.0.1:%d', clients: 'tcp://127.0.0.1:%d', workers: "
        "'tcp://127.0.0.1:%d'}\n"
        "workers: [{name: trunk-1, threads: %d}]\n"
        "clients: [{name: site, threads: %d, data: %s/%s.jsonl}]\n",
        name, wire, subject->model, site ? 1 : subject->steps, SEQUENCES, ROWS + 1, wire, self->dir,
        self->dir, ports[0], ports[1], ports[2], self->threads, self->threads, self->dir,
        site ? "site" : "rows");
    s_write (path, text);
    free (text);
    return path;
}

//  --- one run ----------------------------------------------------------------------------------

static double
s_number (const json_t *object, const char *key)
{
    return json_number_value (json_object_get (object, key));
}

//  A line of `train` or of `up`, both with --format jsonl.
static void
s_on_line (void *arg, const char *line, double at)
{
    output_t *output = arg;
    json_t *object = json_loads (line, 0, NULL);
    const char *event = json_string_value (json_object_get (object, "event"));
    const char *part = json_string_value (json_object_get (object, "part"));
    bool worker = part && strncmp (part, "worker/", 7) == 0;
    bool step = event ? strcmp (event, "step") == 0 : json_object_get (object, "loss") != NULL;
    if (step && output->steps < MOST_STEPS) {
        output->bytes[output->steps] = s_number (object, "bytes");
        output->at[output->steps++] = at;
    } else if (event && strcmp (event, "memory") == 0) {
        output->planned[worker] = s_number (object, "planned");
        output->peak[worker] = s_number (object, "peak");
    } else if (json_object_get (object, "plan_bytes")) {
        output->planned[0] = s_number (object, "plan_bytes");
        output->peak[0] = s_number (object, "peak_bytes");
    }
    json_decref (object);
}

//  One run; its foreign cores are the result.
static double
s_run (const bench_t *self, const subject_t *subject, kind_t kind, bool site, output_t *output)
{
    char *path = s_topology (self, subject, kind, site);
    char *out = tl_format ("%s/runs/%s-central", self->dir, subject->name);
    char threads[16];
    snprintf (threads, sizeof threads, "%d", self->threads);
    const char *central[] = {self->trunkline, "train", path,       "--out", out,
                             "--threads",     threads, "--format", "jsonl", NULL};
    const char *split[] = {self->trunkline, "up", path, "--format", "jsonl", NULL};
    bench_usage_t usage;
    memset (output, 0, sizeof *output);
    if (bench_run (kind == CENTRAL ? central : split, self->log, s_on_line, output, &usage))
        s_fail ("a run failed; look into %s and into runs beside it", self->log);
    free (out);
    free (path);
    return usage.foreign;
}

//  The median time from one step's end to the next one's.
static double
s_step_seconds (const output_t *output)
{
    double between[MOST_STEPS];
    size_t count = 0;
    for (size_t i = WARM; i < output->steps; i++)
        between[count++] = output->at[i] - output->at[i - 1];
    if (!count)
        s_fail ("a run printed too few steps%s", "");
    return bench_quantile (between, count, 0.5);
}

//  --- rounds -----------------------------------------------------------------------------------

static void
s_keep (rounds_t *rounds, kind_t kind, const subject_t *subject, output_t *output)
{
    double ideal = 4.0 * SEQUENCES * ROWS * (double)subject->hidden * (kind == BF16 ? 2 : 4);
    rounds->seconds[kind][rounds->rounds] = s_step_seconds (output);
    for (int part = 0; part < 2; part++)
        if (output->planned[part] > 0) {
            rounds->memory[kind][part] = output->peak[part] / output->planned[part];
            rounds->planned[kind][part] = output->planned[part];
        }
    if (kind != CENTRAL)
        rounds->bytes[kind] = bench_quantile (output->bytes, output->steps, 0.5) / ideal;
}

//  One run that nobody disturbed, repeated for it. False when the runs there may be are used up.
static bool
s_undisturbed (const bench_t *self, const subject_t *subject, kind_t kind, rounds_t *rounds,
               output_t *output)
{
    while (rounds->runs++ < TRIES * KINDS * self->pairs) {
        double foreign = s_run (self, subject, kind, false, output);
        if (foreign <= self->foreign)
            return true;
        rounds->disturbed++;
        fprintf (stderr, "%s: others took %.2f cores, once more\n", subject->name, foreign);
    }
    return false;
}

static bool
s_round (const bench_t *self, const subject_t *subject, rounds_t *rounds)
{
    output_t output;
    size_t at = rounds->rounds;
    for (int i = 0; i < KINDS; i++) {
        kind_t kind = (kind_t)(at % 2 ? KINDS - 1 - i : i);
        if (!s_undisturbed (self, subject, kind, rounds, &output))
            return false;
        s_keep (rounds, kind, subject, &output);
    }
    for (int kind = FP32; kind < KINDS; kind++)
        rounds->ratio[kind][at] = rounds->seconds[kind][at] / rounds->seconds[CENTRAL][at];
    fprintf (stderr, "%s: %.1f ms in one process, split fp32 x%.3f, bf16 x%.3f\n", subject->name,
             1e3 * rounds->seconds[CENTRAL][at], rounds->ratio[FP32][at], rounds->ratio[BF16][at]);
    rounds->rounds++;
    return true;
}

static void
s_measure (const bench_t *self, const subject_t *subject, rounds_t *rounds)
{
    while (rounds->rounds < self->pairs && s_round (self, subject, rounds))
        continue;
    if (!rounds->rounds)
        s_fail ("other processes took too much of the machine in nearly every run of '%s'; run it "
                "when it is idle, or allow them more with --foreign",
                subject->name);
}

//  `up` to the first finished step, on a site of 7,000 examples.
static double
s_first_step (const bench_t *self, const subject_t *subject, json_t *detail)
{
    double seconds[STARTS];
    for (size_t i = 0; i < STARTS; i++) {
        output_t output;
        s_run (self, subject, FP32, true, &output);
        if (!output.steps)
            s_fail ("a run printed no step%s", "");
        seconds[i] = output.at[0];
        json_array_append_new (detail, json_real (seconds[i]));
    }
    return bench_quantile (seconds, STARTS, 0.5);
}

//  --- the result -------------------------------------------------------------------------------

static json_t *
s_spread (double *values, size_t count)
{
    return json_pack ("{sfsfsfsfsf}", "median", bench_quantile (values, count, 0.5), "least",
                      bench_quantile (values, count, 0), "quarter",
                      bench_quantile (values, count, 0.25), "three_quarters",
                      bench_quantile (values, count, 0.75), "most",
                      bench_quantile (values, count, 1));
}

static double
s_further (double a, double b)
{
    double off_a = a < 1 ? 1 / a : a, off_b = b < 1 ? 1 / b : b;
    return off_a > off_b ? a : b;
}

static void
s_put (json_t *result, const char *format, const char *suffix, double value)
{
    char *key = tl_format (format, suffix);
    json_object_set_new (result, key, json_real (value));
    free (key);
}

static void
s_report (const subject_t *subject, rounds_t *rounds, json_t *result, json_t *details)
{
    json_t *detail =
        json_pack ("{sisi}", "pairs", (int)rounds->rounds, "disturbed", (int)rounds->disturbed);
    static const char *const names[KINDS] = {"centralised", "split_fp32", "split_bf16"};
    for (int kind = 0; kind < KINDS; kind++) {
        json_t *one = json_object ();
        if (kind != CENTRAL) {
            json_object_set_new (one, "over_centralised",
                                 s_spread (rounds->ratio[kind], rounds->rounds));
            json_object_set_new (one, "bytes_over_ideal", json_real (rounds->bytes[kind]));
        }
        json_object_set_new (one, "step_s", s_spread (rounds->seconds[kind], rounds->rounds));
        for (int part = 0; part < (kind == CENTRAL ? 1 : 2); part++) {
            const char *who = kind == CENTRAL ? "process" : part ? "worker" : "client";
            json_object_set_new (one, who,
                                 json_pack ("{sfsf}", "plan_mb", rounds->planned[kind][part] / 1e6,
                                            "memory_over_plan", rounds->memory[kind][part]));
        }
        json_object_set_new (detail, names[kind], one);
    }
    json_object_set_new (details, subject->name, detail);
    s_put (result, "split_over_centralised%s", subject->suffix,
           bench_quantile (rounds->ratio[FP32], rounds->rounds, 0.5));
    s_put (result, "split_over_centralised%s_bf16", subject->suffix,
           bench_quantile (rounds->ratio[BF16], rounds->rounds, 0.5));
    s_put (result, "bytes_over_ideal%s", subject->suffix,
           s_further (rounds->bytes[FP32], rounds->bytes[BF16]));
    double memory = rounds->memory[FP32][0];
    for (int i = 1; i < 4; i++)
        memory = s_further (memory, rounds->memory[FP32 + i / 2][i % 2]);
    s_put (result, "memory_over_plan%s", subject->suffix, memory);
}

static void
s_bench (const bench_t *self)
{
    s_make_data (self);
    subject_t subjects[2] = {{
                                 "large",
                                 "",
                                 NULL,
                                 576,
                                 self->steps,
                             },
                             {"tiny", "_tiny", NULL, 256, 5 * self->steps}};
    json_t *result = json_pack ("{ss}", "bench", "split"), *details = json_object ();
    for (size_t i = 0; i < 2; i++) {
        subject_t *subject = &subjects[i];
        if (self->only && strcmp (self->only, subject->name) != 0)
            continue;
        subject->model = i ? bench_tiny (self->trunkline, self->dir, self->log)
                           : bench_large (self->trunkline, self->dir, self->log);
        rounds_t *rounds = tl_alloc (sizeof *rounds);
        s_measure (self, subject, rounds);
        s_report (subject, rounds, result, details);
        free (rounds);
        if (i) {
            json_t *starts = json_array ();
            json_object_set_new (result, "first_step_s",
                                 json_real (s_first_step (self, subject, starts)));
            json_object_set_new (details, "first_step_s", starts);
        }
        free (subject->model);
    }
    json_object_set_new (result, "rows", json_integer (SEQUENCES * ROWS));
    json_object_set_new (result, "threads", json_integer (self->threads));
    json_object_set_new (result, "detail", details);
    json_dumpf (result, stdout, JSON_INDENT (2) | JSON_REAL_PRECISION (5));
    putchar ('\n');
    json_decref (result);
}

static size_t
s_count (const char *option, const char *text, size_t least, size_t most)
{
    char *end;
    unsigned long value = strtoul (text, &end, 10);
    if (!*text || *end || value < least || value > most) {
        fprintf (stderr, "bench split: %s takes a whole number from %zu to %zu, found '%s'\n",
                 option, least, most, text);
        exit (TL_BAD_INPUT);
    }
    return value;
}

int
main (int argc, char **argv)
{
    long processors = sysconf (_SC_NPROCESSORS_ONLN);
    bench_t self = {
        .pairs = 7, .steps = 12, .foreign = 0.1, .threads = processors < 4 ? (int)processors : 4};
    if (argc < 3 || argc % 2 == 0) {
        fprintf (stderr, "usage: bench_split TRUNKLINE DIR [--pairs N] [--steps N] [--threads N] "
                         "[--only large|tiny] [--foreign CORES]\n");
        return TL_BAD_INPUT;
    }
    self.trunkline = argv[1];
    self.dir = argv[2];
    for (int i = 3; i < argc; i += 2) {
        if (strcmp (argv[i], "--pairs") == 0)
            self.pairs = s_count (argv[i], argv[i + 1], 1, MOST_ROUNDS);
        else if (strcmp (argv[i], "--steps") == 0)
            self.steps = s_count (argv[i], argv[i + 1], WARM + 1, MOST_STEPS / 5);
        else if (strcmp (argv[i], "--threads") == 0)
            self.threads = (int)s_count (argv[i], argv[i + 1], 1, 1024);
        else if (strcmp (argv[i], "--foreign") == 0)
            self.foreign = atof (argv[i + 1]);
        else if (strcmp (argv[i], "--only") == 0)
            self.only = argv[i + 1];
        else if (strcmp (argv[i], "--format") != 0 || strcmp (argv[i + 1], "json") != 0) {
            fprintf (stderr, "bench split: knows no '%s %s'\n", argv[i], argv[i + 1]);
            return TL_BAD_INPUT;
        }
    }
    tl_error_t err;
    if (tl_mkdirs (self.dir, &err)) {
        fprintf (stderr, "bench split: %s\n", err.text);
        return (int)err.code;
    }
    self.threads = bench_pin (self.threads);
    self.log = tl_format ("%s/log", self.dir);
    unlink (self.log);
    s_bench (&self);
    free (self.log);
    return 0;
}
