/*  Disks that take nothing more while a run is under way: the run stops with a sentence, what was common stays, and when
    there is room again it goes on to the bits of an undisturbed run. A limit on the size of files plays the full disk: it
    holds for root, too.                                                                            */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"
#include "stats/rundb.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STEPS = 30, MOST_SITES = 2 };

static char s_settings[640];

static case_spec_t
s_case_of (size_t sites, size_t workers, const char *mode, const char *federate)
{
    snprintf (s_settings, sizeof s_settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: 30, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3}\n"
              "wire: {dtype: fp32}\nschedule: {mode: %s}\nfederate: %s\n"
              "liveness: {ping_ms: 500, expire_ms: 10000}\n",
              mode, federate);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .workers = workers,
                         .examples = 16,
                         .letters = {40, 24},
                         .steps = STEPS,
                         .save_every = 5,
                         .settings = s_settings};
}

static case_spec_t
s_case (void)
{
    return s_case_of (1, 1, "batch", "{clients: personal}");
}

static int64_t
s_saved (const stage_t *stage)
{
    char *path = tl_format ("%s/runs/case/run.db", stage_case (stage)->directory);
    tl_error_t err = {0};
    tl_rundb_t *db = tl_rundb_open (path, &err);
    json_t *rows = db ? tl_rundb_ask (db, "SELECT max (step) AS step FROM saves", &err) : NULL;
    if (!rows)
        stage_fail (stage, "%s", err.text);
    int64_t step = part_int (json_array_get (rows, 0), "step");
    json_decref (rows);
    tl_rundb_destroy (&db);
    free (path);
    return step;
}

//  From then on no file of that process grows beyond so many bytes.
static void
s_fill (const stage_t *stage, pid_t pid, rlim_t bytes)
{
    struct rlimit full = {bytes, RLIM_INFINITY};
    stage_check (stage, prlimit (pid, RLIMIT_FSIZE, &full, NULL) == 0, "a limit");
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

//  The run has stopped, with words.
static void
s_check_stopped (stage_t *stage, part_t *up, int expected, const char *words)
{
    int code = part_wait (up);
    if (code != expected)
        stage_fail (stage, "ended with code %d, expected %d", code, expected);
    if (!strstr (part_err (up), words))
        stage_fail (stage, "nothing like \"%s\"", words);
}

//  What it can go on from is there, and it does.
static void
s_check_goes_on (stage_t *stage)
{
    const case_spec_t *spec = stage_case (stage)->spec;
    static const char *const sites[MOST_SITES] = {"site-0", "site-1"};
    static const char *const workers[] = {"trunk", "trunk-2"};
    int64_t saved = s_saved (stage);
    stage_check (stage, saved >= 5 && saved % 5 == 0, "a common save");
    stage_check (stage, s_has_save (stage, "broker", saved), "the trunk's state of it");
    for (size_t i = 0; i < spec->sites; i++)
        stage_check (stage, s_has_save (stage, sites[i], saved), "each site's state of it");
    part_t *up = stage_up (stage, "--resume", NULL);
    stage_check (stage, part_int (part_event (up, "resumed", NULL, 0), "step") == saved,
                 "that it goes on from");
    stage_check (stage, part_wait (up) == 0, "code 0");
    for (size_t i = 0; i < spec->workers; i++)
        if (!stage_same (stage, workers[i]))
            stage_fail (stage, "%s's adapter is not that of the undisturbed run", workers[i]);
    for (size_t i = 0; i < spec->sites; i++)
        if (!stage_same (stage, sites[i]))
            stage_fail (stage, "%s's adapter is not that of the undisturbed run", sites[i]);
}

static void
s_check (stage_t *stage, part_t *up, const char *words)
{
    s_check_stopped (stage, up, 1, words);
    s_check_goes_on (stage);
}

static part_t *
s_begin (stage_t **stage, case_step_t *steps)
{
    static case_spec_t spec;
    spec = s_case ();
    *stage = stage_new (&spec);
    stage_undisturbed (*stage, steps);
    part_t *up = stage_up (*stage, NULL);
    part_event (up, "saved", "step", 10);
    return up;
}

//  Neither run.db nor a state can be written.
static void
s_broker (void)
{
    stage_t *stage;
    static case_step_t steps[STEPS];
    part_t *up = s_begin (&stage, steps);
    s_fill (stage, part_child (up, "broker", ""), 0);
    s_check (stage, up, "File too large");
    stage_end (&stage);
}

//  run.db alone: it is there, the trunk's small states are not hindered.
static void
s_run_db (void)
{
    stage_t *stage;
    static case_step_t steps[STEPS];
    part_t *up = s_begin (&stage, steps);
    //  The states have some 20 kB; the file that SQLite appends to is longer already
    s_fill (stage, part_child (up, "broker", ""), 48 << 10);
    s_check (stage, up, "run.db can't be written");
    stage_end (&stage);
}

static void
s_client (void)
{
    stage_t *stage;
    static case_step_t steps[STEPS];
    part_t *up = s_begin (&stage, steps);
    s_fill (stage, part_child (up, "client", "site-0"), 0);
    s_check (stage, up, "could not be saved");
    stage_end (&stage);
}

//  The directory of that part is gone: a file has its name.
static void
s_without (case_spec_t spec, const char *part)
{
    stage_t *stage = stage_new (&spec);
    case_step_t *steps = tl_alloc (MOST_SITES * STEPS * sizeof *steps);
    stage_undisturbed (stage, steps);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 10);
    char *path = tl_format ("%s/runs/case/%s", stage_case (stage)->directory, part);
    char *aside = tl_format ("%s.aside", path);
    tl_error_t err;
    stage_check (stage, rename (path, aside) == 0, "moved");
    stage_check (stage, tl_file_write (path, "", 0, 0600, &err) == 0, err.text);
    stage_check (stage, part_wait (up) == 1, "code 1");
    unlink (path);
    stage_check (stage, rename (aside, path) == 0, "moved back");
    if (!strstr (part_err (up), path))
        stage_fail (stage, "no sentence names %s", path);
    s_check (stage, up, "could not be saved");
    free (aside);
    free (path);
    free (steps);
    stage_end (&stage);
}

//  Where the trunk's states lie.
static void
s_directory (void)
{
    s_without (s_case (), "broker");
}

static void
s_directory_worker (void)
{
    s_without (s_case (), "trunk");
}

static void
s_directory_aggregator (void)
{
    s_without (
        s_case_of (2, 1, "batch", "{clients: average, every: 10, server: {optimizer: adam}}"),
        "aggregator");
}

//  --- at a message: the part whose disk is full then, and what it can't save

//  words: how the sentence begins. It names a file of that part. What was common before is the save of step saved.
static void
s_check_full (stage_t *stage, part_t *up, int code, const char *words, const char *part,
              int64_t saved)
{
    s_check_stopped (stage, up, code, words);
    const char *sentence = strstr (part_err (up), words);
    char *line = tl_format ("%.*s", (int)strcspn (sentence, "\n"), sentence);
    if (!strstr (line, part) ||
        !strstr (line,
                 "(File too large); check free space and permissions: then go on with --resume"))
        stage_fail (stage, "\"%s\" doesn't name a file of %s and say what to do", line, part);
    free (line);
    if (s_saved (stage) != saved)
        stage_fail (stage, "the last common save is of step %lld, expected %lld",
                    (long long)s_saved (stage), (long long)saved);
}

static void
s_full (case_spec_t spec, const char *faults, int code, const char *words, const char *part,
        int64_t saved)
{
    stage_t *stage = stage_new (&spec);
    case_step_t *steps = tl_alloc (MOST_SITES * STEPS * sizeof *steps);
    stage_undisturbed (stage, steps);
    stage_faults (stage, faults);
    s_check_full (stage, stage_up (stage, NULL), code, words, part, saved);
    s_check_goes_on (stage);
    free (steps);
    stage_end (&stage);
}

static void
s_worker (void)
{
    s_full (s_case (), "worker/trunk SAVE 3 full 0", 1, "step 15 could not be saved: ", "/trunk/",
            10);
}

//  All steps are made, and what they came to can't be kept.
static void
s_worker_last (void)
{
    s_full (s_case (), "worker/trunk SAVE 6 full 0", 1, "step 30 could not be saved: ", "/trunk/",
            25);
}

//  With the server's optimizer a save is the aggregator's, too.
static void
s_aggregator (void)
{
    s_full (s_case_of (2, 1, "batch", "{clients: average, every: 10, server: {optimizer: adam}}"),
            "aggregator SAVE 4 full 0", 1, "step 20 could not be saved: ", "/aggregator/", 15);
}

static void
s_aggregator_fanout (void)
{
    s_full (s_case_of (2, 2, "fanout", "{every: 10, server: {optimizer: avgm, momentum: 0.5}}"),
            "aggregator SAVE 2 full 0", 1, "step 20 could not be saved: ", "/aggregator/", 10);
}

//  Of several workers none is asked to save, but each keeps the adapter that all were made one: at a line, and at the end. The
//  other group's client is slow, so that nobody is free to take over before the run stops.
static void
s_worker_fanout (void)
{
    s_full (s_case_of (2, 2, "fanout", "{every: 10}"),
            "worker/trunk-2 RESTORE 1 full 0;client/ PLAN 12 delay 1500", 1,
            "trunkline: worker/trunk-2: ", "/trunk-2/", 10);
}

static void
s_worker_fanout_last (void)
{
    s_full (s_case_of (2, 2, "fanout", "{every: 10}"), "worker/trunk-2 RESTORE 3 full 0", 1,
            "step 30 could not be kept: ", "/trunk-2/", 30);
}

//  Where nobody but the broker says who is needed, a third worker takes over from the one whose disk is full, and the run goes
//  on to its end.
static void
s_worker_spare (void)
{
    static const char *const names[] = {"trunk", "trunk-2", "trunk-3"};
    case_spec_t spec = s_case_of (2, 3, "fanout", "{every: 10}");
    stage_t *stage = stage_new (&spec);
    case_step_t *steps = tl_alloc (MOST_SITES * STEPS * sizeof *steps);
    stage_undisturbed (stage, steps);
    stage_faults (stage, "worker/ RESTORE 2 full 0");
    part_t *broker = stage_run (stage, "broker", NULL, NULL), *workers[3];
    part_event (broker, "up", NULL, 0);
    stage_run (stage, "aggregator", NULL, NULL);
    for (size_t i = 0; i < 3; i++)
        workers[i] = stage_run (stage, "worker", names[i], NULL);
    stage_run (stage, "client", "site-0", NULL);
    stage_run (stage, "client", "site-1", NULL);
    const json_t *done = part_event (broker, "done", NULL, 0);
    if (part_int (done, "steps") != STEPS || part_int (done, "code") != 0)
        stage_fail (stage, "%lld steps and code %lld, expected %d and 0",
                    (long long)part_int (done, "steps"), (long long)part_int (done, "code"), STEPS);
    stage_check (stage, part_wait (broker) == 0, "code 0");
    size_t full = 0;
    for (size_t i = 0; i < 3; i++) {
        bool ended = part_wait (workers[i]) == 1;
        full += ended;
        if (ended && !strstr (part_err (workers[i]), "check free space and permissions"))
            stage_fail (stage, "%s doesn't say what to do", names[i]);
        if (!ended && !stage_same (stage, names[i]))
            stage_fail (stage, "%s's adapter is not that of the undisturbed run", names[i]);
    }
    if (full != 1)
        stage_fail (stage, "%zu workers ended with code 1, expected 1", full);
    stage_check (stage, stage_same (stage, "site-0") && stage_same (stage, "site-1"),
                 "the sites' adapters of the undisturbed run");
    free (steps);
    stage_end (&stage);
}

//  Told to leave, the worker can't save what it holds: the run ends with that, and what was common stays. A client that sleeps
//  keeps the step open meanwhile.
static void
s_worker_leaves (void)
{
    case_spec_t spec = s_case ();
    stage_t *stage = stage_new (&spec);
    static case_step_t steps[STEPS];
    stage_undisturbed (stage, steps);
    stage_faults (stage, "client/site-0 PLAN 13 stop 3000");
    part_t *up = stage_up (stage, NULL);
    part_log (up, "fault: stop at PLAN 13");
    pid_t worker = part_child (up, "worker", "trunk");
    s_fill (stage, worker, 0);
    kill (worker, SIGTERM);
    s_check_full (stage, up, 1, "trunkline: worker/trunk: ", "/trunk/", 10);
    s_check_goes_on (stage);
    stage_end (&stage);
}

//  Still no room when it is to go on: nothing is lost by trying.
static void
s_worker_resumes (void)
{
    case_spec_t spec = s_case ();
    stage_t *stage = stage_new (&spec);
    static case_step_t steps[STEPS];
    stage_undisturbed (stage, steps);
    stage_faults (stage, "worker/trunk SAVE 3 full 0;worker/trunk RESTORE 1 full 0");
    s_check_full (stage, stage_up (stage, NULL), 1, "step 15 could not be saved: ", "/trunk/", 10);
    part_t *again = stage_up (stage, "--resume", NULL);
    s_check_full (stage, again, 1, "trunkline: worker/trunk: ", "/trunk/", 10);
    s_check_goes_on (stage);
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"broker", s_broker},
        {"run_db", s_run_db},
        {"client", s_client},
        {"directory", s_directory},
        {"directory_worker", s_directory_worker},
        {"directory_aggregator", s_directory_aggregator},
        {"worker", s_worker},
        {"worker_last", s_worker_last},
        {"worker_fanout", s_worker_fanout},
        {"worker_fanout_last", s_worker_fanout_last},
        {"worker_spare", s_worker_spare},
        {"worker_leaves", s_worker_leaves},
        {"worker_resumes", s_worker_resumes},
        {"aggregator", s_aggregator},
        {"aggregator_fanout", s_aggregator_fanout},
        {NULL, NULL},
    };
    return stage_main (argc, argv, tests);
}
