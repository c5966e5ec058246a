/*  Disks that take nothing more while a run is under way: the run stops with a sentence, what was common stays, and when
    there is room again it goes on to the bits of an undisturbed run. A limit on the size of files plays the full disk: it
    holds for root, too.                                                                            */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"
#include "stats/rundb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STEPS = 30 };

static case_spec_t
s_case (void)
{
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = 1,
                         .examples = 16,
                         .letters = {40},
                         .steps = STEPS,
                         .save_every = 5,
                         .settings =
                             "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
                             "train: {steps: 30, batch_size: 8, micros: 2, max_length: 64, "
                             "lr: 2e-3, warmup: 3}\nwire: {dtype: fp32}\nschedule: {mode: batch}\n"
                             "liveness: {ping_ms: 300, expire_ms: 3000}\n"};
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

//  The run has stopped, with words; what it can go on from is there, and it does.
static void
s_check (stage_t *stage, part_t *up, const char *words)
{
    stage_check (stage, part_wait (up) == 1, "code 1");
    if (!strstr (part_err (up), words))
        stage_fail (stage, "nothing like \"%s\"", words);
    int64_t saved = s_saved (stage);
    stage_check (stage, saved >= 5 && saved % 5 == 0, "a common save");
    stage_check (stage, s_has_save (stage, "broker", saved) && s_has_save (stage, "site-0", saved),
                 "of which all states are there");
    up = stage_up (stage, "--resume", NULL);
    stage_check (stage, part_int (part_event (up, "resumed", NULL, 0), "step") == saved,
                 "that it goes on from");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, stage_same (stage, "trunk") && stage_same (stage, "site-0"),
                 "the adapters of the undisturbed run");
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

//  The directory of the trunk's states is gone: a file has its name.
static void
s_directory (void)
{
    stage_t *stage;
    static case_step_t steps[STEPS];
    part_t *up = s_begin (&stage, steps);
    char *path = tl_format ("%s/runs/case/broker", stage_case (stage)->directory);
    char *aside = tl_format ("%s.aside", path);
    tl_error_t err;
    stage_check (stage, rename (path, aside) == 0, "moved");
    stage_check (stage, tl_file_write (path, "", 0, 0600, &err) == 0, err.text);
    stage_check (stage, part_wait (up) == 1, "code 1");
    unlink (path);
    stage_check (stage, rename (aside, path) == 0, "moved back");
    s_check (stage, up, "could not be saved");
    free (aside);
    free (path);
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"broker", s_broker},       {"run_db", s_run_db}, {"client", s_client},
        {"directory", s_directory}, {NULL, NULL},
    };
    return stage_main (argc, argv, tests);
}
