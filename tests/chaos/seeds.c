/*  Runs with faults that a seed chooses: which actor, at the how-manieth message of which type, and what: kill -9 (and the
    restart that follows), SIGSTOP, a delay, a message twice. Each run ends well within a minute, and all it told is bit for bit
    the undisturbed run's up to the first step at which a member was away; its loss is in the log. A seed repeats.

        chaos_seeds [FIRST-LAST]      TRUNKLINE names trunkline_faults                              */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"
#include "random.h"
#include "stats/rundb.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 40, SITES = 2, PARTS = SITES + 1, MOST_STEPS = ROUNDS * SITES, FAULTS = 3 };

//  What a mode's undisturbed run came to.
typedef struct {
    const char *mode;
    int64_t total; //  steps
    case_step_t steps[SITES * MOST_STEPS];
    char *adapters[PARTS];
    size_t sizes[PARTS];
} baseline_t;

static baseline_t s_baselines[2] = {{.mode = "batch", .total = ROUNDS},
                                    {.mode = "serial", .total = SITES * ROUNDS}};
static const char *const s_parts[PARTS] = {"trunk", "site-0", "site-1"};

static case_spec_t
s_case (const baseline_t *base)
{
    static char settings[512];
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 4, micros: 2, max_length: 64, lr: 2e-3, warmup: 3, "
              "clip: 1.0}\nwire: {dtype: fp32}\nschedule: {mode: %s}\n"
              "liveness: {ping_ms: 300, expire_ms: 2500}\n",
              ROUNDS, base->mode);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = SITES,
                         .examples = 16,
                         .letters = {30, 20},
                         .steps = (uint64_t)base->total,
                         .save_every = 5,
                         .settings = settings};
}

static char *
s_adapter (const stage_t *stage, const char *part, size_t *size)
{
    char *directory = case_adapter (stage_case (stage), part);
    char *path = tl_format ("%s/adapter_model.safetensors", directory);
    tl_error_t err;
    char *data = tl_file_read (path, 1 << 26, size, &err);
    if (!data)
        stage_fail (stage, "%s", err.text);
    free (path);
    free (directory);
    return data;
}

static void
s_undisturbed (baseline_t *base)
{
    case_spec_t spec = s_case (base);
    stage_t *stage = stage_new (&spec);
    case_up (stage_case (stage), NULL, base->steps);
    for (int i = 0; i < PARTS; i++)
        base->adapters[i] = s_adapter (stage, s_parts[i], &base->sizes[i]);
    stage_end (&stage);
}

//  --- what the seed chooses --------------------------------------------------------------------

typedef struct {
    uint64_t seed, drawn;
} draw_t;

static uint64_t
s_draw (draw_t *self, uint64_t limit)
{
    return tl_random_below (&(tl_stream_t){.seed = self->seed, .purpose = TL_DRAW_SAMPLE},
                            self->drawn++, limit);
}

//  Types that an actor receives in such a run, and how many of each it may count on (a fault beyond never comes).
typedef struct {
    const char *type;
    uint64_t most;
} kind_t;

static const kind_t s_broker[] = {
    {"HELLO", 3},    {"ATTACH", 3},    {"ACTIVATION", 150}, {"GRADIENT", 150}, {"COMMIT", 78},
    {"HIDDEN", 150}, {"GRAD_IN", 150}, {"COMMITTED", 110},  {"SAVED", 20},     {"STATE", 8},
    {"FINISHED", 2}, {"CREDIT", 40},   {"PING", 3}};
static const kind_t s_client[] = {{"WELCOME", 1}, {"ATTACHED", 2}, {"PLAN", 40},
                                  {"HIDDEN", 78}, {"GRAD_IN", 78}, {"COMMITTED", 39},
                                  {"SAVE", 8},    {"FINISH", 1},   {"CREDIT", 10}};
static const kind_t s_worker[] = {{"WELCOME", 1},      {"ATTACHED", 2},   {"PLAN", 40},
                                  {"ACTIVATION", 150}, {"GRADIENT", 150}, {"COMMIT", 78},
                                  {"SAVE", 8},         {"CREDIT", 20}};

//  One fault, as tests/chaos/fault.c reads it.
static void
s_fault (draw_t *draw, char *text, size_t size)
{
    static const char *const actors[] = {"broker", "worker/trunk", "client/site-0",
                                         "client/site-1"};
    uint64_t actor = s_draw (draw, 4), action = s_draw (draw, 100);
    const kind_t *kinds = actor == 0 ? s_broker : actor == 1 ? s_worker : s_client;
    uint64_t count = actor == 0   ? sizeof s_broker / sizeof *s_broker
                     : actor == 1 ? sizeof s_worker / sizeof *s_worker
                                  : sizeof s_client / sizeof *s_client;
    const kind_t *kind = &kinds[s_draw (draw, count)];
    uint64_t number = 1 + s_draw (draw, kind->most);
    //  Long enough to be expelled for it, or short
    uint64_t stop = action < 60 ? 100 + s_draw (draw, 1500) : 3000 + s_draw (draw, 1500);
    snprintf (text, size, "%s %s %llu %s %llu", actors[actor], kind->type,
              (unsigned long long)number,
              action < 45   ? "kill"
              : action < 68 ? "stop"
              : action < 84 ? "delay"
                            : "twice",
              (unsigned long long)(action >= 68 ? s_draw (draw, 700) : stop));
}

//  --- what came of it --------------------------------------------------------------------------

//  The first step that somebody was not in who should have been, by what the broker told; total if there is none.
static int64_t
s_first_loss (const part_t *up, int64_t total)
{
    bool away[SITES] = {false};
    int64_t first = total, open = 0;
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        if (strcmp (part_text (it, "part"), "broker") != 0)
            continue;
        bool peer = part_is (it, "peer") && strcmp (part_text (it, "role"), "client") == 0;
        if (peer)
            away[strcmp (part_text (it, "name"), "site-1") == 0] =
                strcmp (part_text (it, "state"), "left") == 0;
        if (part_is (it, "closed"))
            open = part_int (it, "step") + 1;
        else if (part_is (it, "restore"))
            open = part_int (it, "step");
        //  Until it is back, whatever opens is without it; what just closed was not
        for (int k = 0; k < SITES; k++)
            if (away[k] && open < first)
                first = open;
    }
    return first;
}

static void
s_check_steps (const stage_t *stage, const part_t *up, const baseline_t *base, int64_t first)
{
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        int64_t number = part_int (it, "step");
        if (!part_is (it, "step") || number >= first)
            continue;
        int64_t site = strcmp (part_text (it, "name"), "site-0") != 0;
        const case_step_t *step = &base->steps[site * base->total + number];
        double loss = json_number_value (json_object_get (it, "loss"));
        if (loss != step->loss)
            stage_fail (stage, "step %lld of site-%lld has loss %.17g, undisturbed %.17g",
                        (long long)number, (long long)site, loss, step->loss);
    }
}

static void
s_check_adapters (const stage_t *stage, const baseline_t *base)
{
    for (int i = 0; i < PARTS; i++) {
        size_t size;
        char *data = s_adapter (stage, s_parts[i], &size);
        stage_check (stage, size == base->sizes[i] && memcmp (data, base->adapters[i], size) == 0,
                     "the adapters of the undisturbed run");
        free (data);
    }
}

//  run.db accounts for every step once.
static void
s_check_db (const stage_t *stage, int64_t steps)
{
    char *path = tl_format ("%s/runs/case/run.db", stage_case (stage)->directory);
    tl_error_t err = {0};
    tl_rundb_t *db = tl_rundb_open (path, &err);
    json_t *rows = db ? tl_rundb_ask (db,
                                      "SELECT count (*) AS n, max (step) + 1 AS top, (SELECT "
                                      "complete FROM run) AS complete FROM steps",
                                      &err)
                      : NULL;
    const json_t *row = json_array_get (rows, 0);
    if (!row || part_int (row, "n") != steps || part_int (row, "top") != steps ||
        part_int (row, "complete") != 1)
        stage_fail (stage, "run.db has %lld steps up to %lld, complete %lld; expected %lld; %s",
                    (long long)part_int (row, "n"), (long long)part_int (row, "top"),
                    (long long)part_int (row, "complete"), (long long)steps, err.text);
    json_decref (rows);
    tl_rundb_destroy (&db);
    free (path);
}

//  How many of the faults came: one may be due at a message that never did.
static unsigned
s_came (const stage_t *stage, uint64_t faults)
{
    unsigned came = 0;
    for (uint64_t i = 0; i < faults; i++) {
        char *path =
            tl_format ("%s/fault-%llu", stage_case (stage)->directory, (unsigned long long)i);
        came += tl_exists (path);
        free (path);
    }
    return came;
}

//  Exit code of a seed's process: EQUAL or LESS, plus how many faults came. Whatever else is a failure.
enum { EQUAL = 64, LESS = 96 };

static int
s_run (uint64_t seed)
{
    draw_t draw = {.seed = seed};
    const baseline_t *base = &s_baselines[s_draw (&draw, 2)];
    uint64_t faults = 1 + s_draw (&draw, FAULTS);
    char text[FAULTS * 128] = "";
    for (uint64_t i = 0; i < faults; i++) {
        size_t used = strlen (text);
        if (i)
            text[used++] = ';';
        s_fault (&draw, text + used, sizeof text - used);
    }
    fprintf (stderr, "seed %llu, %s: %s\n", (unsigned long long)seed, base->mode, text);
    case_spec_t spec = s_case (base);
    stage_t *stage = stage_new (&spec);
    setenv ("TL_FAULTS", text, 1);
    setenv ("TL_FAULTS_DONE", stage_case (stage)->directory, 1);
    part_t *up = stage_up (stage, NULL);
    int code = part_wait (up);
    if (code)
        stage_fail (stage, "seed %llu ended with code %d", (unsigned long long)seed, code);
    int64_t first = s_first_loss (up, base->total), steps = -1;
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "done"))
            steps = part_int (part_at (up, i), "steps");
    if (first == base->total ? steps != base->total : steps > base->total || steps < ROUNDS)
        stage_fail (stage, "seed %llu came to %lld steps of %lld", (unsigned long long)seed,
                    (long long)steps, (long long)base->total);
    s_check_steps (stage, up, base, first);
    s_check_db (stage, steps);
    if (first == base->total)
        s_check_adapters (stage, base);
    unsigned came = s_came (stage, faults);
    stage_end (&stage);
    return (int)((first == base->total ? EQUAL : LESS) + came);
}

int
main (int argc, char **argv)
{
    unsigned long long from = 1, to = 10;
    if (argc > 1 && sscanf (argv[1], "%llu-%llu", &from, &to) < 1) {
        fprintf (stderr, "expected seeds like 1-200\n");
        return 4;
    }
    if (argc > 1 && !strchr (argv[1], '-'))
        to = from;
    int64_t began = stage_ms ();
    for (int i = 0; i < 2; i++)
        s_undisturbed (&s_baselines[i]);
    unsigned equal = 0, less = 0, failed = 0, came = 0;
    for (unsigned long long seed = from; seed <= to; seed++) {
        //  A failure ends its own process, not the others
        fflush (NULL);
        pid_t child = fork ();
        if (child == 0)
            exit (s_run (seed));
        int status = 0;
        waitpid (child, &status, 0);
        int code = WIFEXITED (status) ? WEXITSTATUS (status) : 1;
        if (code < EQUAL) {
            failed++;
            fprintf (stderr, "seed %llu FAILED\n", seed);
            continue;
        }
        equal += code < LESS;
        less += code >= LESS;
        came += (unsigned)(code < LESS ? code - EQUAL : code - LESS);
    }
    printf ("{\"chaos_runs\": %llu, \"chaos_equal\": %u, \"chaos_logged_losses\": %u, "
            "\"chaos_failed\": %u, \"chaos_faults\": %u, \"chaos_s\": %.1f}\n",
            to - from + 1, equal, less, failed, came, (double)(stage_ms () - began) / 1000);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < PARTS; k++)
            free (s_baselines[i].adapters[k]);
    return failed ? 1 : 0;
}
