/*  Runs that were killed and go on: all of their processes, or the broker alone; with the losses, norms and adapters of
    an undisturbed run, bit for bit. And who may not go on, or begin anew, by accident.             */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"
#include "stats/rundb.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STEPS = 30, SITES = 2 };

static char s_settings[512];

static case_spec_t
s_case (uint64_t steps, const char *mode, const char *more)
{
    snprintf (s_settings, sizeof s_settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3, "
              "clip: 1.0}\nwire: {dtype: fp32}\nschedule: {mode: %s}\n"
              "liveness: {ping_ms: 500, expire_ms: 10000}\n%s",
              (int)steps, mode, more);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = SITES,
                         .examples = 16,
                         .letters = {40, 24},
                         .steps = steps,
                         .save_every = 5,
                         .settings = s_settings};
}

//  --- what run.db says -------------------------------------------------------------------------

//  The first row's only column.
static int64_t
s_ask (const stage_t *stage, const char *sql)
{
    char *path = tl_format ("%s/runs/case/run.db", stage_case (stage)->directory);
    tl_error_t err = {0};
    tl_rundb_t *db = tl_rundb_open (path, &err);
    json_t *rows = db ? tl_rundb_ask (db, sql, &err) : NULL;
    if (!rows)
        stage_fail (stage, "%s: %s", sql, err.text);
    json_t *row = json_array_get (rows, 0);
    int64_t value = json_integer_value (json_object_iter_value (json_object_iter (row)));
    json_decref (rows);
    tl_rundb_destroy (&db);
    free (path);
    return value;
}

static void
s_expect (const stage_t *stage, const char *sql, int64_t expected)
{
    int64_t got = s_ask (stage, sql);
    if (got != expected)
        stage_fail (stage, "%s: %lld, expected %lld", sql, (long long)got, (long long)expected);
}

//  --- what came of it --------------------------------------------------------------------------

//  Every step that part told of has the bits of the undisturbed run; returns how many it told.
static size_t
s_check_steps (const stage_t *stage, const part_t *up, const case_step_t *steps)
{
    size_t seen = 0;
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        if (!part_is (it, "step"))
            continue;
        int64_t site = strcmp (part_text (it, "name"), "site-0") != 0;
        const case_step_t *step =
            &steps[site * (int64_t)stage_case (stage)->spec->steps + part_int (it, "step")];
        double loss = json_number_value (json_object_get (it, "loss"));
        double norm = json_number_value (json_object_get (it, "norm"));
        seen++;
        if (loss != step->loss || norm != step->norm)
            stage_fail (stage,
                        "step %lld of site-%lld: loss %.17g and norm %.17g, expected %.17g and "
                        "%.17g",
                        (long long)part_int (it, "step"), (long long)site, loss, norm, step->loss,
                        step->norm);
    }
    return seen;
}

//  Label tokens of all rounds, as the clients say: of each the last that anybody told. With a window a round has whoever
//  was ready, and what was told of a round that didn't last is void.
static int64_t
s_labels (part_t *const *ups, size_t count, bool window)
{
    int64_t labels[SITES][STEPS] = {{0}}, sum = 0;
    for (size_t k = 0; k < count; k++)
        for (size_t i = 0; part_at (ups[k], i); i++) {
            const json_t *it = part_at (ups[k], i);
            if (part_is (it, "step"))
                labels[strcmp (part_text (it, "name"), "site-0") != 0][part_int (it, "round")] =
                    part_int (it, "labels");
            if (part_is (it, "resumed") && window)
                for (size_t site = 0; site < SITES; site++)
                    for (int64_t round = part_int (it, "step"); round < STEPS; round++)
                        labels[site][round] = 0;
        }
    for (size_t i = 0; i < SITES; i++)
        for (size_t k = 0; k < STEPS; k++)
            sum += labels[i][k] || window ? labels[i][k] : -1000000; //  it can't be missing
    return sum;
}

static void
s_check_same (const stage_t *stage, int64_t steps)
{
    stage_check (stage, stage_same (stage, "trunk"), "the trunk of the undisturbed run");
    stage_check (stage, stage_same (stage, "site-0") && stage_same (stage, "site-1"),
                 "the fronts and tails of the undisturbed run");
    s_expect (stage, "SELECT count (DISTINCT step) FROM steps", steps);
    s_expect (stage, "SELECT max (step) + 1 FROM steps", steps);
    s_expect (stage, "SELECT complete FROM run", 1);
}

//  --- all of it

//  After so many common saves each time; the third `up` comes to the end.
static void
s_all (const char *mode, int64_t per_round)
{
    case_spec_t spec = s_case (STEPS, mode, "");
    static case_step_t steps[SITES * SITES * STEPS];
    spec.steps = (uint64_t)(per_round * STEPS); //  as they are counted
    stage_t *stage = stage_new (&spec);
    stage_undisturbed (stage, steps);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 10);
    part_event (up, "closed", "step", 12);
    part_kill_all (up);
    s_check_steps (stage, up, steps);

    up = stage_up (stage, "--resume", NULL);
    int64_t from = part_int (part_event (up, "resumed", NULL, 0), "step");
    stage_check (stage, from >= 10 && from % 5 == 0, "from a common save");
    part_event (up, "saved", "step", from + 10);
    part_kill_all (up);
    s_check_steps (stage, up, steps);

    up = stage_up (stage, "--resume", NULL);
    from = part_int (part_event (up, "resumed", NULL, 0), "step");
    stage_check (stage, from >= 20, "from a later one");
    part_event (up, "done", "steps", per_round * STEPS);
    stage_check (stage, part_wait (up) == 0, "code 0");
    size_t seen = s_check_steps (stage, up, steps);
    stage_check (stage, (int64_t)seen * per_round == SITES * (per_round * STEPS - from),
                 "no step but those that were left");
    s_check_same (stage, per_round * STEPS);
    stage_end (&stage);
}

static void
s_all_batch (void)
{
    s_all ("batch", 1);
}

static void
s_all_serial (void)
{
    s_all ("serial", SITES);
}

//  Before there is any common save: the run goes on at its start, as the same run.
static void
s_all_early (void)
{
    case_spec_t spec = s_case (STEPS, "batch", "");
    static case_step_t steps[SITES * STEPS];
    stage_t *stage = stage_new (&spec);
    stage_undisturbed (stage, steps);
    part_t *up = stage_up (stage, "--set", "checkpoint.every=1000", NULL);
    part_event (up, "closed", "step", 3);
    part_kill_all (up);
    up = stage_up (stage, "--resume", "--set", "checkpoint.every=1000", NULL);
    part_event (up, "resumed", "step", 0);
    part_event (up, "done", "steps", STEPS);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, s_check_steps (stage, up, steps) == SITES * STEPS, "all steps");
    s_check_same (stage, STEPS);
    stage_end (&stage);
}

//  --- the broker alone

static void
s_broker (const char *mode, int64_t per_round)
{
    case_spec_t spec = s_case (STEPS, mode, "");
    static case_step_t steps[SITES * SITES * STEPS];
    spec.steps = (uint64_t)(per_round * STEPS); //  as they are counted
    stage_t *stage = stage_new (&spec);
    stage_undisturbed (stage, steps);
    part_t *up = stage_up (stage, NULL);
    pid_t worker = 0;
    for (int64_t step = 0; step <= 20; step += 10) {
        //  Before the first save, and twice after one
        part_event (up, "closed", "step", step + 1);
        if (!worker)
            worker = part_child (up, "worker", "trunk");
        kill (part_child (up, "broker", ""), SIGKILL);
        part_log (up, "broker was killed by signal 9 (Killed); starting it again");
        part_event (up, "resumed", NULL, 0);
    }
    part_event (up, "done", "steps", per_round * STEPS);
    stage_check (stage, part_child (up, "worker", "trunk") == worker, "the worker stays");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_steps (stage, up, steps);
    s_check_same (stage, per_round * STEPS);
    s_expect (stage, "SELECT count (*) FROM events WHERE event = 'resumed'", 3);
    stage_end (&stage);
}

//  The step that was open held one site's rows and waited for the other's. It is repeated, and they come the other way round.
static void
s_broker_half_a_step (void)
{
    case_spec_t spec = s_case (STEPS, "batch", "");
    static case_step_t steps[SITES * SITES * STEPS];
    spec.steps = STEPS;
    stage_t *stage = stage_new (&spec);
    stage_undisturbed (stage, steps);
    //  Of two sites with two micros each the 51st ACTIVATION is the third of step 12
    stage_faults (stage, "client/site-1 PLAN 13 delay 300;broker ACTIVATION 51 kill 0;"
                         "client/site-0 PLAN 14 delay 300");
    part_t *up = stage_up (stage, NULL);
    part_event (up, "resumed", NULL, 0);
    part_event (up, "done", "steps", STEPS);
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_steps (stage, up, steps);
    s_check_same (stage, STEPS);
    stage_end (&stage);
}

static void
s_broker_batch (void)
{
    s_broker ("batch", 1);
}

static void
s_broker_serial (void)
{
    s_broker ("serial", SITES);
}

//  `up` is slow: it sees its parts' ends, and what a broker that it started later than them said before, all at once.
static void
s_broker_slow_up (void)
{
    case_spec_t spec = s_case (STEPS, "batch", "");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 5);
    kill (part_child (up, "broker", ""), SIGKILL);
    part_event (up, "resumed", NULL, 0);
    part_event (up, "closed", "step", 10);
    pid_t worker = part_child (up, "worker", "trunk");
    part_kill (up, SIGSTOP);
    stage_wait_gone (worker);
    part_kill (up, SIGCONT);
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_expect (stage, "SELECT complete FROM run", 1);
    stage_end (&stage);
}

//  The broker of a finished run that is served on: it serves the same trunk again.
static void
s_broker_serving (void)
{
    case_spec_t spec = s_case (5, "batch", "");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, "--stay", NULL);
    part_event (up, "serving", NULL, 0);
    const char *question[] = {"generate", "--live", "--site",        "site-0",
                              "--prompt", "ab",     "--temperature", "0"};
    char *answers[2];
    for (int i = 0; i < 2; i++) {
        part_t *ask = stage_verb (stage, question[0], question[1], question[2], question[3],
                                  question[4], question[5], question[6], question[7], NULL);
        stage_check (stage, part_wait (ask) == 0, "an answer");
        answers[i] = tl_strdup (part_out (ask));
        if (i == 0) {
            kill (part_child (up, "broker", ""), SIGKILL);
            part_event (up, "serving", NULL, 0);
            part_event_of (up, "peer", "role", "worker");
        }
    }
    stage_check (stage, strcmp (answers[0], answers[1]) == 0, "the same answer");
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    //  And from its files alone
    up = stage_up (stage, "--resume", "--stay", NULL);
    part_event (up, "serving", NULL, 0);
    part_event_of (up, "peer", "role", "worker");
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    free (answers[0]);
    free (answers[1]);
    stage_end (&stage);
}

//  --- with an aggregator

//  Both, one after the other: all of it is killed, then the broker alone. equal: to the bits of the undisturbed run.
static void
s_both (const char *mode, const char *federate, size_t workers, bool equal)
{
    char *more = tl_format ("federate: %s\n", federate);
    bool window = strstr (mode, "window") != NULL;
    case_spec_t spec = s_case (STEPS, mode, more);
    static case_step_t steps[SITES * SITES * STEPS];
    spec.workers = workers;
    spec.steps = equal ? STEPS : SITES * STEPS; //  auto may take turns
    stage_t *stage = stage_new (&spec);
    stage_undisturbed (stage, steps);
    part_t *ups[2] = {stage_up (stage, NULL), NULL};
    part_event (ups[0], "saved", "step", 6);
    part_event (ups[0], "closed", "step", 8);
    part_kill_all (ups[0]);
    ups[1] = stage_up (stage, "--resume", NULL);
    int64_t from = part_int (part_event (ups[1], "resumed", NULL, 0), "step");
    stage_check (stage, from >= 6, "from a common save");
    part_event (ups[1], "saved", "step", from + 6);
    part_event (ups[1], "closed", "step", from + 7);
    kill (part_child (ups[1], "broker", ""), SIGKILL);
    part_log (ups[1], "broker was killed by signal 9 (Killed); starting it again");
    stage_check (stage, part_int (part_event (ups[1], "resumed", NULL, 0), "step") > from,
                 "from a later one");
    stage_check (stage, part_wait (ups[1]) == 0, "code 0");
    s_expect (stage, "SELECT count (DISTINCT round) FROM steps", STEPS);
    s_expect (stage, "SELECT sum (labels) FROM steps", s_labels (ups, 2, window));
    s_expect (stage, "SELECT complete FROM run", 1);
    for (size_t i = 0; i < 2 && equal; i++)
        s_check_steps (stage, ups[i], steps);
    if (equal)
        s_check_same (stage, STEPS);
    free (more);
    stage_end (&stage);
}

//  Two groups, so it doesn't matter which worker has which.
static void
s_both_fanout (void)
{
    s_both ("fanout", "{every: 6}", 2, true);
}

//  Average of fronts, tails and replicas, each with FedAdam's moments.
static void
s_both_average (void)
{
    s_both ("fanout", "{every: 6, clients: average, server: {optimizer: adam}}", 2, true);
}

//  One group, which is saved within periods, too.
static void
s_both_avgm (void)
{
    s_both ("batch", "{every: 7, clients: average, server: {optimizer: avgm}}", 1, true);
}

static void
s_both_sync (void)
{
    s_both ("batch", "{clients: sync}", 1, true);
}

//  What auto decides hangs on what it measured: each round's text is learnt once all the same.
static void
s_both_auto (void)
{
    s_both ("auto", "{every: 5}", 2, false);
}

//  A step has whoever is ready, so no two runs are alike.
static void
s_both_window (void)
{
    s_both ("batch, join: window", "{every: 5}", 1, false);
}

//  --- stopped, and continued

//  Ctrl-C in the middle, then on; and a run that is over, made longer.
static void
s_stopped (void)
{
    //  A rate that doesn't know how long the run is
    case_spec_t spec = s_case (STEPS, "batch", "");
    static case_step_t steps[SITES * STEPS];
    stage_t *stage = stage_new (&spec);
    const char *constant = "train.schedule=constant";
    case_up (stage_case (stage), constant, steps);
    part_t *up = stage_up (stage, "--replace", "--set", constant, "--set", "train.steps=20", NULL);
    part_event (up, "closed", "step", 12);
    part_kill (up, SIGHUP);
    stage_check (stage, part_wait (up) == 0, "code 0: a hang-up is a polite stop");
    s_check_steps (stage, up, steps);
    int64_t saved = s_ask (stage, "SELECT max (step) FROM saves");

    part_t *plain = stage_up (stage, "--set", constant, "--set", "train.steps=20", NULL);
    stage_check (stage, part_wait (plain) == 4, "code 4");
    stage_check (stage, strstr (part_err (plain), "holds a run that is not over"), "a sentence");
    stage_check (stage, strstr (part_err (plain), "continue it with --resume, begin it anew with "),
                 "what to do");
    s_expect (stage, "SELECT max (step) FROM saves", saved);

    up = stage_up (stage, "--resume", "--set", constant, "--set", "train.steps=20", NULL);
    stage_check (stage, part_int (part_event (up, "resumed", NULL, 0), "step") == saved,
                 "from the last save");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_steps (stage, up, steps);
    s_expect (stage, "SELECT count (*) FROM steps", 20);

    up = stage_up (stage, "--resume", "--set", constant, "--set", "train.steps=20", NULL);
    stage_check (stage, part_wait (up) == 4, "code 4");
    stage_check (stage, strstr (part_err (up), "raise train.steps to lengthen it"), "a sentence");
    up = stage_up (stage, "--resume", "--set", constant, "--set", "train.steps=25", NULL);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, s_check_steps (stage, up, steps) == SITES * 5, "five more");
    s_expect (stage, "SELECT count (*) FROM steps", 25);
    stage_end (&stage);
}

//  What was begun otherwise doesn't go on; what isn't there doesn't either; another's file is nobody's to replace.
static void
s_refused (void)
{
    case_spec_t spec = s_case (STEPS, "batch", "");
    stage_t *stage = stage_new (&spec);
    static const struct {
        const char *option, *set, *words;
    } cases[] = {
        {"--resume", "train.lr=1e-3", "was begun with train.lr 0.002, and now it is 0.001"},
        {"--resume", "schedule.mode=serial", "was begun with schedule.mode batch"},
        {"--resume", "train.steps=2", "raise it to go on"},
        {"--resume", "name=other", "holds no run that could be continued"},
    };
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 5);
    part_kill_all (up);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        up = stage_up (stage, cases[i].option, "--set", cases[i].set, NULL);
        stage_check (stage, part_wait (up) == 4, "code 4");
        if (!strstr (part_err (up), cases[i].words))
            stage_fail (stage, "%s %s: nothing like \"%s\"", cases[i].option, cases[i].set,
                        cases[i].words);
    }
    char *path = tl_format ("%s/runs/case/run.db", stage_case (stage)->directory);
    char *command = tl_format ("sqlite3 %s 'PRAGMA user_version = 99' 2>/dev/null || "
                               "printf '\\000\\000\\000\\143' | dd of=%s bs=1 seek=60 conv=notrunc "
                               "2>/dev/null",
                               path, path);
    tl_error_t err;
    stage_check (stage, system (command) == 0, command);
    up = stage_up (stage, "--resume", NULL);
    stage_check (stage, part_wait (up) == 4, "code 4");
    stage_check (stage, strstr (part_err (up), "is of version 99"), "a sentence");
    stage_check (stage, tl_file_write (path, "a letter to a friend", 20, 0644, &err) == 0, "ok");
    unlink (path);
    stage_check (stage, tl_file_write (path, "a letter to a friend", 20, 0644, &err) == 0, "ok");
    for (int i = 0; i < 2; i++) {
        up = stage_up (stage, i ? "--resume" : "--replace", NULL);
        stage_check (stage, part_wait (up) == 4, "code 4");
        stage_check (stage, strstr (part_err (up), "is no run.db of trunkline"), "a sentence");
    }
    char *text = tl_file_read (path, 100, NULL, &err);
    stage_check (stage, text && strcmp (text, "a letter to a friend") == 0, "not touched");
    free (text);
    unlink (path);
    up = stage_up (stage, NULL);
    stage_check (stage, part_wait (up) == 4, "code 4");
    stage_check (stage, strstr (part_err (up), "without which it can't be continued"),
                 "a sentence");
    up = stage_up (stage, "--replace", NULL);
    stage_check (stage, part_wait (up) == 0, "code 0");
    free (command);
    free (path);
    stage_end (&stage);
}

//  `command` in the case's directory.
static void
s_shell (const stage_t *stage, const char *command)
{
    char *whole = tl_format ("cd %s && %s", stage_case (stage)->directory, command);
    stage_check (stage, system (whole) == 0, whole);
    free (whole);
}

//  A site's text is another one when the run goes on: refused by name, and with the old text it goes on.
static void
s_other_text (void)
{
    case_spec_t spec = s_case (6, "batch", "");
    stage_t *stage = stage_new (&spec);
    stage_check (stage, part_wait (stage_up (stage, NULL)) == 0, "code 0");
    s_shell (stage, "cp 1.jsonl kept && head -n 1 kept >> 1.jsonl");
    part_t *up = stage_up (stage, "--resume", "--set", "train.steps=8", NULL);
    stage_check (stage, part_wait (up) == 4, "code 4");
    stage_check (stage, strstr (part_err (up), "1.jsonl was another text when site-1 saved"),
                 "whose text");
    stage_check (stage, strstr (part_err (up), "put that text back"), "what to do");
    s_shell (stage, "mv kept 1.jsonl");
    up = stage_up (stage, "--resume", "--set", "train.steps=8", NULL);
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_expect (stage, "SELECT max (step) + 1 FROM steps", 8);
    stage_end (&stage);
}

//  A client's directory is gone. The run does not go on without what it learnt, unless it is told to; then it says so.
static void
s_lost_directory (void)
{
    case_spec_t spec = s_case (6, "batch", "");
    stage_t *stage = stage_new (&spec);
    stage_check (stage, part_wait (stage_up (stage, NULL)) == 0, "code 0");
    s_shell (stage, "mv runs/case/site-1 kept");
    part_t *up = NULL;
    for (int i = 0; i < 2; i++) { //  that it was tried changes nothing
        up = stage_up (stage, "--resume", "--set", "train.steps=8", NULL);
        stage_check (stage, part_wait (up) == 4, "code 4");
        stage_check (stage, strstr (part_err (up), "site-1 saved step 6 of this run"), "who");
        stage_check (stage, strstr (part_err (up), "put its directory back"), "what to do");
    }
    s_shell (stage, "rm -r runs/case/site-1 && cp -r kept runs/case/site-1");
    up = stage_up (stage, "--resume", "--set", "train.steps=8", NULL);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, !strstr (part_err (up), "fresh adapter"), "nobody begins anew");
    s_shell (stage, "rm -r runs/case/site-1");
    up = stage_up (stage, "--resume", "--fresh", "--set", "train.steps=10", NULL);
    part_log (up, "site-1 goes on at step 8 with a fresh adapter");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_expect (stage, "SELECT max (step) + 1 FROM steps", 10);
    stage_end (&stage);
}

//  A client that dies before its first save begins anew: that is said where a person sees it.
static void
s_unsaved (void)
{
    case_spec_t spec = s_case (400, "batch", "");
    spec.save_every = 1000;
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 4);
    kill (part_child (up, "client", "site-1"), SIGKILL);
    const char *line = part_log (up, "with a fresh adapter");
    stage_check (stage, strstr (line, "warn  client/site-1: site-1 goes on at step"), "who");
    stage_check (stage, strstr (line, "checkpoint.every"), "what to do");
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"all_batch", s_all_batch},
        {"all_serial", s_all_serial},
        {"all_early", s_all_early},
        {"broker_batch", s_broker_batch},
        {"broker_serial", s_broker_serial},
        {"broker_half_a_step", s_broker_half_a_step},
        {"broker_slow_up", s_broker_slow_up},
        {"broker_serving", s_broker_serving},
        {"both_fanout", s_both_fanout},
        {"both_average", s_both_average},
        {"both_avgm", s_both_avgm},
        {"both_sync", s_both_sync},
        {"both_auto", s_both_auto},
        {"both_window", s_both_window},
        {"stopped", s_stopped},
        {"refused", s_refused},
        {"other_text", s_other_text},
        {"lost_directory", s_lost_directory},
        {"unsaved", s_unsaved},
        {NULL, NULL},
    };
    return stage_main (argc, argv, tests);
}
