/*  Parts that are killed: the run says so, goes on without them or goes back with all parts, and comes to the
    same end. Every fault is placed on an event.                                                    */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 120 }; //  of the runs that are compared with an undisturbed one

static case_spec_t
s_spec (size_t sites, uint64_t steps)
{
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 5,
                         .settings = ""};
}

//  Settings of every case here, with its number of steps.
static char s_settings[512];

static case_spec_t
s_case (size_t sites, uint64_t steps, const char *mode)
{
    case_spec_t spec = s_spec (sites, steps);
    snprintf (s_settings, sizeof s_settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3, "
              "clip: 1.0}\nwire: {dtype: fp32}\nschedule: {mode: %s}\n"
              "liveness: {ping_ms: 300, expire_ms: 3000}\n",
              (int)steps, mode);
    spec.settings = s_settings;
    return spec;
}

static bool
s_same_bits (const json_t *event, const case_step_t *step)
{
    return json_number_value (json_object_get (event, "loss")) == step->loss &&
           json_number_value (json_object_get (event, "norm")) == step->norm;
}

//  --- client

//  Kill -9 of one of three in a step: the others go on, its labels leave the batch, it is started again and comes back
//  with its own newest save, and the run completes.
static void
s_client (const char *mode, bool serial)
{
    uint64_t rounds = serial ? 120 : 400; //  time to see it come back, on a slow machine, too
    case_spec_t spec = s_case (3, rounds, mode);
    spec.save_every = 20;
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event_of (up, "ready", "part", "client/site-1");
    part_event (up, "saved", "step", 20);
    part_event (up, "closed", "step", 22);
    pid_t victim = part_child (up, "client", "site-1");
    kill (victim, SIGKILL);
    part_log (up, "client/site-1 was killed by signal 9");
    part_event_of (up, "ready", "part", "client/site-1");
    part_event_of (up, "step", "part", "client/site-1");
    stage_check (stage, part_child (up, "client", "site-1") != victim, "another process");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "code") == 0, "the run ends well");
    stage_check (stage, part_int (done, "steps") >= (serial ? 240 : 400), "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, part_count (up, "restore") == 0, "nobody goes back");
    //  In batch every step without it has fewer labels
    size_t fewer = 0, most = 0;
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "closed") && !serial) {
            size_t labels = (size_t)part_int (part_at (up, i), "labels");
            most = labels > most ? labels : most;
        }
    for (size_t i = 0; part_at (up, i); i++)
        fewer += part_is (part_at (up, i), "closed") &&
                 3 * (size_t)part_int (part_at (up, i), "labels") < 2 * most + most / 2;
    stage_check (stage, serial || fewer >= 1, "a step without the lost client's labels");
    stage_end (&stage);
}

static void
s_client_batch (void)
{
    s_client ("batch", false);
}

static void
s_client_serial (void)
{
    s_client ("serial", true);
}

//  The only client is lost: the run waits for it, and goes on.
static void
s_client_alone (void)
{
    case_spec_t spec = s_case (1, 30, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 7);
    kill (part_child (up, "client", "site-0"), SIGKILL);
    part_event_of (up, "ready", "part", "client/site-0");
    stage_check (stage, part_int (part_event (up, "done", NULL, 0), "steps") == 30, "30 steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

//  --- worker

//  One client, fp32: whatever was lost is repeated bit for bit.
//  The summary counts steps and label tokens of the run, not those that it went back behind.
static void
s_check_summary (const stage_t *stage, const part_t *up, int64_t steps)
{
    char *path = tl_format ("%s/runs/case/summary.json", stage_case (stage)->directory);
    json_error_t error;
    json_t *summary = json_load_file (path, 0, &error);
    free (path);
    if (!summary)
        stage_fail (stage, "summary.json: %s", error.text);
    int64_t *labels = tl_alloc ((size_t)(steps + 1) * sizeof *labels), sum = 0;
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "step") && part_int (part_at (up, i), "step") < steps)
            labels[part_int (part_at (up, i), "step")] = part_int (part_at (up, i), "labels");
    for (int64_t i = 0; i < steps; i++)
        sum += labels[i];
    if (part_int (summary, "steps") != steps || part_int (summary, "trunk_steps") != steps)
        stage_fail (stage, "the summary has %lld steps, %lld of the trunk; expected %lld",
                    (long long)part_int (summary, "steps"),
                    (long long)part_int (summary, "trunk_steps"), (long long)steps);
    if (part_int (summary, "labels") != sum)
        stage_fail (stage, "the summary has %lld label tokens, expected %lld",
                    (long long)part_int (summary, "labels"), (long long)sum);
    free (labels);
    json_decref (summary);
}

static void
s_worker_at (uint64_t step, uint64_t back_to)
{
    case_spec_t spec = s_case (1, STEPS, "batch");
    static case_step_t steps[STEPS];
    if (!back_to)
        spec.save_every = 1000; //  none before the end
    stage_t *stage = stage_new (&spec);
    stage_undisturbed (stage, steps);
    part_t *up = stage_up (stage, NULL);
    if (step)
        part_event (up, "closed", "step", (int64_t)step - 1);
    else
        part_event_of (up, "ready", "part", "client/site-0");
    if (back_to)
        part_event (up, "saved", "step", (int64_t)back_to);
    kill (part_child (up, "worker", "trunk"), SIGKILL);
    part_log (up, "worker/trunk was killed by signal 9");
    if (step) {
        part_log (up, back_to ? "all parts go back to the common save of step" : "(the start)");
        const json_t *restore = part_event (up, "restore", NULL, 0);
        stage_check (stage, part_int (restore, "step") >= (int64_t)back_to,
                     "back to the last save");
        stage_check (stage, part_int (restore, "step") % 5 == 0, "back to a common save");
    }
    part_event (up, "done", NULL, 0);
    stage_check (stage, part_wait (up) == 0, "code 0");
    size_t repeated = 0;
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        if (!part_is (it, "step"))
            continue;
        repeated++;
        stage_check (stage, s_same_bits (it, &steps[part_int (it, "step")]),
                     "every step has the loss and norm of the undisturbed run");
    }
    stage_check (stage, repeated >= STEPS && (!back_to || repeated <= STEPS + 5),
                 "at most checkpoint.every steps again");
    s_check_summary (stage, up, STEPS);
    stage_check (stage, stage_same (stage, "trunk"), "the same trunk at the end");
    stage_check (stage, stage_same (stage, "site-0"), "the same front and tail at the end");
    stage_end (&stage);
}

static void
s_worker_before_a_step (void)
{
    s_worker_at (0, 0);
}

static void
s_worker_before_a_save (void)
{
    s_worker_at (3, 0);
}

static void
s_worker_after_a_save (void)
{
    s_worker_at (8, 5);
}

//  Twice, and a client beside it: two sites, which both go back.
static void
s_worker_again (void)
{
    case_spec_t spec = s_case (2, 200, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 10);
    kill (part_child (up, "worker", "trunk"), SIGKILL);
    part_event (up, "restore", "step", 10);
    part_event (up, "saved", "step", 20);
    kill (part_child (up, "client", "site-0"), SIGKILL);
    kill (part_child (up, "worker", "trunk"), SIGKILL);
    part_event (up, "restore", "step", 20);
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == 200 && part_int (done, "code") == 0,
                 "200 steps in the end");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

//  So much held-out text that scoring it takes a while.
static char *
s_long_text (const stage_t *stage)
{
    char *path = tl_format ("%s/long.jsonl", stage_case (stage)->directory);
    FILE *file = fopen (path, "w");
    for (int i = 0; file && i < 3000; i++)
        fprintf (file, "{\"prompt\": \"%d\", \"completion\": \"a long text\"}\n", i);
    stage_check (stage, file && fclose (file) == 0, "a long text");
    return path;
}

//  While held-out text is scored: it is started again, gets the saved trunk and all is scored anew, with the same result.
static void
s_worker_scoring (void)
{
    case_spec_t spec = s_case (2, 10, "batch");
    stage_t *stage = stage_new (&spec);
    char *path = s_long_text (stage), *set = tl_format ("clients.1.eval=%s", path);
    double nll[2];
    for (int lost = 0; lost < 2; lost++) {
        part_t *up = stage_up (stage, "--set", set, NULL);
        if (lost) {
            //  Site 0, which has no such text, is asked and answers at once: the other is at it
            part_event_of (up, "finished", "name", "site-0");
            kill (part_child (up, "worker", "trunk"), SIGKILL);
            part_event (up, "restore", "step", 10);
        }
        const json_t *finished = part_event_of (up, "finished", "name", "site-1");
        nll[lost] = json_number_value (json_object_get (finished, "nll"));
        stage_check (stage, part_int (finished, "labels") > 3000, "the whole text");
        stage_check (stage, part_int (part_event (up, "done", NULL, 0), "code") == 0,
                     "all is well");
        stage_check (stage, part_wait (up) == 0, "code 0");
    }
    stage_check (stage, nll[0] == nll[1], "the same bits");
    free (set);
    free (path);
    stage_end (&stage);
}

//  A finished run is served, and the worker is lost with the save that it would need: the end, with a sentence.
static void
s_served_without_save (void)
{
    case_spec_t spec = s_case (1, 5, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, "--stay", NULL);
    part_event (up, "serving", NULL, 0);
    char *command =
        tl_format ("rm %s/runs/case/broker/save-*.state", stage_case (stage)->directory);
    stage_check (stage, system (command) == 0, command);
    int64_t began = stage_ms ();
    kill (part_child (up, "worker", "trunk"), SIGKILL);
    stage_check (stage, part_wait (up) == 1, "code 1");
    stage_check (stage, stage_ms () - began < 8000, "the end within seconds");
    stage_check (stage, strstr (part_err (up), "it can't be served on") != NULL, "a sentence");
    stage_check (stage, strstr (part_err (up), "save-00000005.state") != NULL, "the file by name");
    free (command);
    stage_end (&stage);
}

//  While the supervisor waits to start the worker again, the run is stopped.
static void
s_stop_without_worker (void)
{
    case_spec_t spec = s_case (1, 5000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 5);
    kill (part_child (up, "worker", "trunk"), SIGKILL);
    part_log (up, "starting it again");
    int64_t began = stage_ms ();
    part_kill (up, SIGTERM);
    part_wait (up);
    stage_check (stage, stage_ms () - began < 5000, "the end within seconds");
    int64_t steps = part_int (part_event (up, "done", NULL, 0), "steps");
    stage_check (stage, steps > 0 && steps % 5 == 0, "what is left is the common save");
    s_check_summary (stage, up, steps);
    stage_end (&stage);
}

//  --- broker and supervisor

//  A broker that dies at the same step again and again isn't started for ever; the sentence says how to go on.
static void
s_broker (void)
{
    case_spec_t spec = s_case (2, 5000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 5);
    for (int i = 0; i < 6; i++) {
        if (i)
            part_event (up, "resumed", NULL, 0);
        kill (part_child (up, "broker", ""), SIGKILL);
    }
    int64_t began = stage_ms ();
    stage_check (stage, part_wait (up) == 1, "code 1");
    stage_check (stage, strstr (part_err (up), "broker was killed by signal 9"), "a sentence");
    stage_check (stage, strstr (part_err (up), "it died 6 times"), "that it isn't tried again");
    stage_check (stage, strstr (part_err (up), "the last common save is of step "), "what is left");
    stage_check (stage, strstr (part_err (up), "--resume goes on from there"), "what to do");
    stage_check (stage, stage_ms () - began < 8000, "the end within seconds");
    stage_end (&stage);
}

//  The same of a worker: it crashes whenever it is given its work.
static void
s_worker_crashes (void)
{
    case_spec_t spec = s_case (1, 5000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 5);
    for (int i = 0; i < 6; i++) {
        if (i)
            part_event_of (up, "ready", "part", "worker/trunk");
        kill (part_child (up, "worker", "trunk"), SIGABRT); //  a sanitizer would catch SIGSEGV
    }
    stage_check (stage, part_wait (up) == 1, "code 1");
    stage_check (stage, strstr (part_err (up), "worker/trunk was killed by signal 6"), "which");
    stage_check (stage, strstr (part_err (up), "it died 6 times"), "that it isn't tried again");
    stage_end (&stage);
}

static bool
s_has_save (const stage_t *stage, const char *part, int64_t step)
{
    char *path = tl_format ("%s/runs/case/%s/save-%08lld.state", stage_case (stage)->directory,
                            part, (long long)step);
    bool has = tl_exists (path);
    free (path);
    return has;
}

//  A broker that comes back to a run touches nothing unless it is told what to do with it; and parts that outlived the old
//  one say that another run began.
static void
s_broker_again (void)
{
    case_spec_t spec = s_case (1, 100000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *make = stage_up (stage, "--set", "train.steps=0", NULL); //  makes the keys
    stage_check (stage, part_wait (make) == 0, "code 0");
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_event (broker, "up", NULL, 0);
    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_t *client = stage_run (stage, "client", "site-0", NULL);
    part_event (broker, "saved", NULL, 0);
    int64_t step = part_int (part_event (broker, "saved", NULL, 0), "step");
    part_event (broker, "closed", "step", step); //  by then the save is noted
    part_kill (broker, SIGKILL);
    part_wait (broker);

    part_t *again = stage_run (stage, "broker", NULL, NULL);
    stage_check (stage, part_wait (again) == 4, "code 4");
    stage_check (stage, strstr (part_err (again), "holds a run that is not over"), "a sentence");
    stage_check (stage, strstr (part_err (again), "continue it with --resume"), "what to do");
    stage_check (stage, s_has_save (stage, "broker", step) && s_has_save (stage, "site-0", step),
                 "nothing removed");

    again = stage_run (stage, "broker", NULL, "--replace", NULL);
    part_log (worker, "began a new run");
    part_log (client, "began a new run");
    part_event (again, "closed", "step", 1);
    stage_check (stage, strstr (part_err (again), "replaces the run saved in"),
                 "what was replaced");
    stage_check (stage, !strstr (part_err (worker), "goes on where it was"), "no such claim");
    part_kill (again, SIGTERM);
    stage_check (stage, part_wait (again) == 0, "code 0");
    part_wait (worker);
    part_wait (client);
    //  Stopped is not over
    again = stage_run (stage, "broker", NULL, NULL);
    stage_check (stage, part_wait (again) == 4, "code 4");
    again = stage_run (stage, "broker", NULL, "--resume", NULL);
    part_event (again, "resumed", NULL, 0);
    part_kill (again, SIGTERM);
    part_wait (again);
    stage_end (&stage);
}

static void
s_supervisor (void)
{
    case_spec_t spec = s_case (2, 5000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 7);
    part_kill (up, SIGKILL);
    stage_check (stage, part_wait (up) == 128 + SIGKILL, "killed");
    stage_end (&stage); //  waits for the parts, which end by themselves
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"client_batch", s_client_batch},
        {"client_serial", s_client_serial},
        {"client_alone", s_client_alone},
        {"worker_before_a_step", s_worker_before_a_step},
        {"worker_before_a_save", s_worker_before_a_save},
        {"worker_after_a_save", s_worker_after_a_save},
        {"worker_again", s_worker_again},
        {"worker_scoring", s_worker_scoring},
        {"served_without_save", s_served_without_save},
        {"stop_without_worker", s_stop_without_worker},
        {"broker", s_broker},
        {"worker_crashes", s_worker_crashes},
        {"broker_again", s_broker_again},
        {"supervisor", s_supervisor},
        {NULL, NULL},
    };
    return stage_main (argc, argv, tests);
}
