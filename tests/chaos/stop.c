/*  Runs that are stopped: at any moment, by either signal, politely or twice, as a whole or one part.  */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"
#include "model/safetensors.h"
#include "random.h"
#include "stats/rundb.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static case_spec_t
s_case (size_t sites, uint64_t steps, const char *mode)
{
    static char settings[512];
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3}\n"
              "wire: {dtype: fp32}\nschedule: {mode: %s}\n"
              "liveness: {ping_ms: 300, expire_ms: 3000}\n",
              (int)steps, mode);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 5,
                         .settings = settings};
}

//  The number that the newest save of part bears, -1: none.
static long
s_newest (const stage_t *stage, const char *part)
{
    char *command =
        tl_format ("ls %s/runs/case/%s 2>/dev/null", stage_case (stage)->directory, part);
    FILE *list = popen (command, "r");
    char name[256];
    long newest = -1, step;
    while (fgets (name, sizeof name, list))
        if (sscanf (name, "save-%ld.state", &step) == 1 && step > newest)
            newest = step;
    pclose (list);
    free (command);
    return newest;
}

static void
s_check_adapter (const stage_t *stage, const char *part)
{
    tl_error_t err;
    char *directory = case_adapter (stage_case (stage), part);
    char *path = tl_format ("%s/adapter_model.safetensors", directory);
    tl_safetensors_t *file = tl_safetensors_open (path, &err);
    if (!file)
        stage_fail (stage, "%s", err.text);
    stage_check (stage, tl_safetensors_count (file) > 0, "an adapter with tensors");
    tl_safetensors_destroy (&file);
    free (path);
    free (directory);
}

//  Every part's adapter is there, and all parts saved the step that the run says it ended with.
static void
s_check_saved (const stage_t *stage, long step, size_t sites)
{
    char part[32];
    for (size_t i = 0; i <= sites; i++) {
        snprintf (part, sizeof part, "site-%zu", i);
        s_check_adapter (stage, i < sites ? part : "trunk");
        if (s_newest (stage, i < sites ? part : "broker") != step)
            stage_fail (stage, "%s saved step %ld, expected %ld", i < sites ? part : "broker",
                        s_newest (stage, i < sites ? part : "broker"), step);
    }
    char *path = tl_format ("%s/runs/case/run.db", stage_case (stage)->directory);
    tl_error_t err = {0};
    tl_rundb_t *db = tl_rundb_open (path, &err);
    json_t *rows = db ? tl_rundb_ask (db, "SELECT max (step) AS step FROM saves", &err) : NULL;
    if (!rows || part_int (json_array_get (rows, 0), "step") != step)
        stage_fail (stage, "run.db says save %lld, expected %ld; %s",
                    (long long)part_int (json_array_get (rows, 0), "step"), step, err.text);
    json_decref (rows);
    tl_rundb_destroy (&db);
    free (path);
}

static uint64_t
s_draw (uint64_t seed, uint64_t number, uint64_t limit)
{
    return tl_random_below (&(tl_stream_t){.seed = seed, .purpose = TL_DRAW_SAMPLE}, number, limit);
}

//  A moment that is no event: so many milliseconds after the start.
static void
s_moment (uint64_t ms)
{
    poll (NULL, 0, (int)ms);
}

//  --- the whole run

//  At many moments: before anything is up, while parts join, in steps, in saves.
static void
s_moments (void)
{
    case_spec_t spec = s_case (2, 100000, "batch");
    for (uint64_t i = 0; i < 14; i++) {
        stage_t *stage = stage_new (&spec);
        part_t *up = stage_up (stage, NULL);
        //  A third while it starts, the rest at some number of events, which is a moment of the run
        if (i % 3 == 0)
            s_moment (20 + s_draw (7, i, 400));
        else
            for (uint64_t k = s_draw (8, i, 40); k; k--)
                part_event (up, "closed", NULL, 0);
        int64_t began = stage_ms ();
        part_kill (up, i % 2 ? SIGTERM : SIGINT);
        int code = part_wait (up);
        //  Before it looks for signals there is nothing to stop: then it is simply gone
        bool unborn =
            code == 128 + (i % 2 ? SIGTERM : SIGINT) && !strstr (part_err (up), "stopping");
        if (code && !unborn)
            stage_fail (stage, "round %d: ended with code %d", (int)i, code);
        stage_check (stage, stage_ms () - began < 8000, "the end within seconds");
        if (part_count (up, "closed"))
            s_check_saved (stage, part_int (part_event (up, "done", NULL, 0), "steps"), 2);
        stage_end (&stage);
    }
}

static size_t
s_saves (const stage_t *stage, const char *part)
{
    char *command = tl_format ("ls %s/runs/case/%s/ | grep -c '^save-.*state$'",
                               stage_case (stage)->directory, part);
    FILE *count = popen (command, "r");
    unsigned long saves = 0;
    stage_check (stage, fscanf (count, "%lu", &saves) == 1, "a number");
    pclose (count);
    free (command);
    return saves;
}

//  checkpoint.keep of them stay at the broker, two more at a client, which may have been asked for one that never counted.
static void
s_keep (void)
{
    case_spec_t spec = s_case (2, 40, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, "--set", "checkpoint.keep=3", NULL);
    for (int64_t step = 5; step <= 40; step += 5)
        stage_check (stage, part_int (part_event (up, "saved", NULL, 0), "step") == step,
                     "a common save every five steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_saved (stage, 40, 2);
    stage_check (stage, s_saves (stage, "broker") == 3, "three saves of the trunk");
    stage_check (stage, s_saves (stage, "site-0") <= 5 && s_saves (stage, "site-1") <= 5,
                 "a few saves of each client");
    stage_end (&stage);
}

//  With --stay the run is over and served, and its clients are done; a signal ends that, too.
static void
s_served (void)
{
    case_spec_t spec = s_case (2, 5, "serial");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, "--stay", NULL);
    part_event (up, "serving", NULL, 0);
    for (int i = 0; i < 2; i++)
        part_event_of (up, "peer", "state", "done");
    part_t *status = stage_verb (stage, "status", "--format", "json", NULL);
    stage_check (stage, part_wait (status) == 0, "status answers");
    json_error_t error;
    json_t *report = json_loads (part_out (status), 0, &error), *peer;
    size_t i, done = 0;
    json_array_foreach (json_object_get (report, "peers"), i, peer)
    {
        bool client = strcmp (part_text (peer, "role"), "client") == 0;
        stage_check (stage, strcmp (part_text (peer, "state"), client ? "done" : "here") == 0,
                     "clients that are done and a worker that is here");
        done += client;
    }
    stage_check (stage, done == 2, "both clients in the list");
    json_decref (report);
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    for (size_t k = 0; part_at (up, k); k++)
        stage_check (stage,
                     !part_is (part_at (up, k), "peer") ||
                         strcmp (part_text (part_at (up, k), "state"), "left") != 0 ||
                         strcmp (part_text (part_at (up, k), "role"), "client") != 0,
                     "no client that left");
    s_check_saved (stage, 10, 2);
    stage_end (&stage);
}

static void
s_twice (void)
{
    case_spec_t spec = s_case (2, 100000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 3);
    //  A worker that answers nothing: the polite stop has to wait
    pid_t worker = part_child (up, "worker", "trunk");
    kill (worker, SIGSTOP);
    part_kill (up, SIGTERM);
    part_log (up, "stopping");
    int64_t began = stage_ms ();
    part_kill (up, SIGINT);
    stage_check (stage, part_wait (up) == 1, "code 1");
    stage_check (stage, stage_ms () - began < 2000, "the end at once");
    stage_check (stage, strstr (part_err (up), "cut short by a second signal"), "a sentence");
    stage_end (&stage);
}

//  Single parts that have nobody to talk to.
static void
s_alone (void)
{
    case_spec_t spec = s_case (1, 100000, "batch");
    stage_t *stage = stage_new (&spec);

    part_t *make = stage_up (stage, "--set", "train.steps=1", NULL); //  makes the keys
    stage_check (stage, part_wait (make) == 0, "code 0");
    part_t *client = stage_run (stage, "client", "site-0", NULL);
    part_log (client, "waiting for the broker");
    part_kill (client, SIGTERM);
    stage_check (stage, part_wait (client) == 0, "code 0");
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_event (broker, "up", NULL, 0);
    part_kill (broker, SIGINT);
    stage_check (stage, part_wait (broker) == 0, "code 0");
    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_log (worker, "waiting for the broker");
    part_kill (worker, SIGINT);
    stage_check (stage, part_wait (worker) == 0, "code 0");
    stage_end (&stage);
}

static void
s_tells (stage_t *stage, part_t *verb, const char *text)
{
    stage_check (stage, part_wait (verb) == 0, "code 0");
    stage_check (stage, strstr (part_out (verb), text), text);
}

static void
s_down (void)
{
    case_spec_t spec = s_case (2, 100000, "serial");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 8);
    s_tells (stage, stage_verb (stage, "down", NULL), "case is down; its adapters are in ");
    stage_check (stage, part_wait (up) == 0, "up's code 0");
    s_check_saved (stage, part_int (part_event (up, "done", NULL, 0), "steps"), 2);
    part_t *down = stage_verb (stage, "down", NULL);
    stage_check (stage, part_wait (down) != 0, "nobody to answer a second time");
    part_t *broker = stage_run (stage, "broker", NULL, "--set", "name=other", NULL);
    part_event (broker, "up", NULL, 0);
    s_tells (stage, stage_verb (stage, "down", "--set", "name=other", NULL),
             "other is down; there are no adapters of it in ");
    stage_check (stage, part_wait (broker) == 0, "the broker's code 0");
    stage_end (&stage);
}

//  --- one part

//  A client that is told to leave saves what it holds and goes; the others go on to the end.
static void
s_client (void)
{
    case_spec_t spec = s_case (3, 300, "batch");
    spec.save_every = 20;
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 11);
    kill (part_child (up, "client", "site-1"), SIGTERM);
    part_log (up, "client/site-1 has left");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == 300, "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_adapter (stage, "site-1");
    stage_check (stage, s_newest (stage, "site-1") >= 11, "its save bears the step it holds");
    stage_check (stage, s_newest (stage, "site-0") == 300, "the others' is of the end");
    //  Who joins its part with the trunk of the end is told of the steps
    part_t *ask =
        stage_verb (stage, "generate", "--saved", "--site", "site-1", "--prompt", "a", NULL);
    stage_check (stage, part_wait (ask) == 0, "an answer");
    stage_check (stage, strstr (part_err (ask), "site-1 saved its adapter at step "), "its step");
    stage_check (stage, strstr (part_err (ask), "trunk at step 300"), "the trunk's");
    ask = stage_verb (stage, "generate", "--saved", "--site", "site-0", "--prompt", "a", NULL);
    stage_check (stage, part_wait (ask) == 0, "an answer");
    stage_check (stage, !strstr (part_err (ask), "at step"), "nothing to warn of");
    stage_end (&stage);
}

static void
s_worker (void)
{
    case_spec_t spec = s_case (1, 100000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 5);
    kill (part_child (up, "worker", "trunk"), SIGTERM);
    stage_check (stage, part_wait (up) == 1, "code 1");
    stage_check (stage, strstr (part_err (up), "the worker was told to leave"), "a sentence");
    stage_end (&stage);
}

//  A worker that was started by itself, told to leave by either signal, at once or in the midst of a run: whatever is
//  committed is on its own disk, adapter and state.
static void
s_worker_saves (void)
{
    case_spec_t spec = s_case (1, 100000, "batch");
    spec.save_every = 1000; //  no common save comes first
    for (int i = 0; i < 4; i++) {
        stage_t *stage = stage_new (&spec);
        part_t *make = stage_up (stage, "--set", "train.steps=0", NULL); //  makes the keys
        stage_check (stage, part_wait (make) == 0, "code 0");
        part_t *broker = stage_run (stage, "broker", NULL, NULL);
        part_event (broker, "up", NULL, 0);
        part_t *worker = stage_run (stage, "worker", "trunk", NULL);
        part_t *client = stage_run (stage, "client", "site-0", NULL);
        part_event (broker, "closed", "step", 10 + i);
        part_kill (worker, i % 2 ? SIGINT : SIGTERM);
        stage_check (stage, part_wait (worker) == 0, "the worker's code 0");
        const char *word = strstr (part_err (worker), "saved step ");
        stage_check (stage, word && strstr (word, " and left"), "saved ... and left");
        long step = strtol (word + strlen ("saved step "), NULL, 10);
        stage_check (stage, step >= 11 + i, "what it held when the signal came, or more");
        if (s_newest (stage, "trunk") != step)
            stage_fail (stage, "its own save is of step %ld, it said %ld",
                        s_newest (stage, "trunk"), step);
        s_check_adapter (stage, "trunk");
        //  Nobody was told of more steps than it saved
        stage_check (stage, part_count (broker, "closed") <= (size_t)step, "no step above it");
        part_kill (broker, SIGTERM);
        part_wait (broker);
        part_wait (client);
        stage_end (&stage);
    }
}

//  All clients leave: nobody is left to train for.
static void
s_all_clients (void)
{
    case_spec_t spec = s_case (2, 100000, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 6);
    kill (part_child (up, "client", "site-0"), SIGTERM);
    kill (part_child (up, "client", "site-1"), SIGTERM);
    part_log (up, "no client is left");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"moments", s_moments},
        {"keep", s_keep},
        {"served", s_served},
        {"twice", s_twice},
        {"alone", s_alone},
        {"down", s_down},
        {"client", s_client},
        {"worker", s_worker},
        {"all_clients", s_all_clients},
        {"worker_saves", s_worker_saves},
        {NULL, NULL},
    };
    return stage_main (argc, argv, tests);
}
