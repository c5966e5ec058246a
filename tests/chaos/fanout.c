/*  Several workers: each group trains as it would alone until the replicas are made one; a worker or the aggregator
    that is killed costs its group the way back, and the run comes to the same end bit for bit.          */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 60, EVERY = 10 };

static char s_settings[640];

static case_spec_t
s_case (size_t sites, uint64_t steps, const char *mode)
{
    snprintf (s_settings, sizeof s_settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.0}\n"
              "train: {steps: %d, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3, "
              "clip: 0}\nwire: {dtype: fp32}\nschedule: {mode: %s}\nfederate: {every: %d}\n"
              "liveness: {ping_ms: 300, expire_ms: 3000}\n",
              (int)steps, mode, EVERY);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .workers = 2,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 1000,
                         .settings = s_settings};
}

//  Until the first line site-0's steps are those that it makes without the other; then the trunk has learnt from both.
static void
s_groups (void)
{
    case_step_t *alone = tl_alloc (STEPS * sizeof *alone);
    case_spec_t one = s_case (1, STEPS, "batch");
    stage_t *stage = stage_new (&one);
    case_up (stage_case (stage), NULL, alone);
    stage_end (&stage);
    case_spec_t spec = s_case (2, STEPS, "fanout");
    stage = stage_new (&spec);
    case_step_t *steps = tl_alloc (2 * STEPS * sizeof *steps);
    case_up (stage_case (stage), NULL, steps);
    for (size_t i = 0; i < STEPS; i++)
        if ((i < EVERY) != (steps[i].loss == alone[i].loss))
            stage_fail (stage, "step %zu has loss %.17g, and %.17g alone; expected them %s", i,
                        steps[i].loss, alone[i].loss, i < EVERY ? "equal" : "different");
    free (steps);
    free (alone);
    stage_end (&stage);
}

//  Every step and every adapter, however often it was made, has the bits of the undisturbed run.
static void
s_check_same (const stage_t *stage, const part_t *up, const case_step_t *steps)
{
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        if (!part_is (it, "step"))
            continue;
        size_t site = strcmp (part_text (it, "part"), "client/site-1") == 0;
        if (json_number_value (json_object_get (it, "loss")) !=
            steps[site * STEPS + (size_t)part_int (it, "step")].loss)
            stage_fail (stage, "step %d of site-%zu has another loss than without the fault",
                        (int)part_int (it, "step"), site);
    }
    static const char *const parts[] = {"site-0", "site-1", "trunk", "trunk-2", "trunk-3"};
    for (size_t i = 0; i < 2 + stage_case (stage)->spec->workers; i++)
        if (!stage_same (stage, parts[i]))
            stage_fail (stage, "%s ends with another adapter than without the fault", parts[i]);
}

//  Kill -9 at a step that nothing was saved since; whatever was lost is repeated.
static void
s_lost (const char *role, const char *name, int64_t step)
{
    case_spec_t spec = s_case (2, STEPS, "fanout");
    stage_t *stage = stage_new (&spec);
    case_step_t *steps = tl_alloc (2 * STEPS * sizeof *steps);
    stage_undisturbed (stage, steps);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", step);
    kill (part_child (up, role, name), SIGKILL);
    part_log (up, "was killed by signal 9");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == STEPS && part_int (done, "code") == 0,
                 "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_same (stage, up, steps);
    free (steps);
    stage_end (&stage);
}

static void
s_worker_early (void)
{
    s_lost ("worker", "trunk-2", 3);
}

static void
s_worker_late (void)
{
    s_lost ("worker", "trunk", 2 * EVERY + 5);
}

//  In the period that began at step line the group went back once, and from then on its steps are those of a worker that had
//  no group before. The other group's are another's all the while.
static void
s_check_spare (const stage_t *stage, const part_t *up, int64_t line, int64_t group)
{
    const char *its = NULL; //  whoever repeats the steps
    bool back = false, other = false;
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "restore"))
            back = true;
        else if (part_is (part_at (up, i), "closed") && back && !its &&
                 part_int (part_at (up, i), "group") == group) {
            its = part_text (part_at (up, i), "worker");
            if (part_int (part_at (up, i), "step") != line)
                stage_fail (stage, "the group's next step is %lld, expected %lld",
                            (long long)part_int (part_at (up, i), "step"), (long long)line);
        }
    back = false;
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        back |= part_is (it, "restore");
        if (!part_is (it, "closed") || part_int (it, "step") < line ||
            part_int (it, "step") >= line + EVERY)
            continue;
        bool expected = back && part_int (it, "group") == group;
        other |= part_int (it, "group") != group;
        if ((strcmp (part_text (it, "worker"), its) == 0) != expected)
            stage_fail (stage, "step %lld of group %lld is %s's %s it went back, expected %s",
                        (long long)part_int (it, "step"), (long long)part_int (it, "group"),
                        part_text (it, "worker"), back ? "after" : "before",
                        expected ? its : "another's");
    }
    stage_check (stage, other, "another group in that period");
}

//  Of three workers two have a group. One of those is killed in the middle of a period: the third one, which had nothing to
//  do, repeats its group's steps from the line. The other group's client is slow meanwhile: a worker that is done with its
//  own group would be as free as that one.
static void
s_spare (void)
{
    case_spec_t spec = s_case (2, STEPS, "fanout");
    spec.workers = 3;
    stage_t *stage = stage_new (&spec);
    case_step_t *steps = tl_alloc (2 * STEPS * sizeof *steps);
    stage_undisturbed (stage, steps);
    stage_faults (stage, "worker/ PLAN 15 kill 0;client/ PLAN 17 delay 2400");
    part_t *up = stage_up (stage, "--set", "liveness.expire_ms=6000", NULL);
    const json_t *restore = part_event (up, "restore", NULL, 0);
    int64_t line = part_int (restore, "step"), group = part_int (restore, "group");
    if (line < EVERY || line % EVERY != 0 || group < 0)
        stage_fail (stage, "group %lld goes back to step %lld, expected one group and a line",
                    (long long)group, (long long)line);
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == STEPS && part_int (done, "code") == 0,
                 "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, part_count (up, "restore") == 1, "that nobody else goes back");
    s_check_spare (stage, up, line, group);
    s_check_same (stage, up, steps);
    free (steps);
    stage_end (&stage);
}

//  Seconds of that worker's life, as it tells at its end.
static double
s_told_time (const part_t *up, const char *worker)
{
    static const char *const kinds[] = {"computing", "input", "commit", "credit"};
    double sum = 0;
    for (size_t i = 0; part_at (up, i); i++)
        for (size_t k = 0; k < 4 && part_is (part_at (up, i), "idle") &&
                           strcmp (part_text (part_at (up, i), "name"), worker) == 0;
             k++)
            sum += json_number_value (json_object_get (part_at (up, i), kinds[k]));
    return sum;
}

//  A worker sleeps when its replica is asked for, longer than the deadline: the merge goes on with the other's, names it, and
//  it gets the result like everybody. It doesn't say that it waited for something while it slept.
static void
s_worker_asleep (void)
{
    case_spec_t spec = s_case (2, STEPS, "fanout");
    stage_t *stage = stage_new (&spec);
    stage_faults (stage, "worker/trunk-2 GATHER 2 stop 1200");
    part_t *up = stage_up (stage, "--set", "federate.deadline_s=0.2", NULL);
    part_log (up, "trunk-2 is left out: its part did not come in time");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == STEPS && part_int (done, "code") == 0,
                 "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, part_count (up, "restore") == 0, "nobody goes back");
    double awake = s_told_time (up, "trunk"), asleep = s_told_time (up, "trunk-2");
    if (asleep > awake - 0.6)
        stage_fail (stage, "trunk-2 tells of %.1f s, expected %.1f without the 1.2 of its sleep",
                    asleep, awake);
    stage_end (&stage);
}

static void
s_aggregator (void)
{
    s_lost ("aggregator", "", EVERY + 4);
}

//  A client that is lost comes back with what the others have: in the end all fronts and tails are one.
static void
s_shared (const char *clients, const char *mode, const char *join)
{
    case_spec_t spec = s_case (3, 200, mode);
    stage_t *stage = stage_new (&spec);
    char *set = tl_format ("federate.clients=%s", clients);
    char *window = tl_format ("schedule.join=%s", join);
    part_t *up = stage_up (stage, "--set", set, "--set", window, NULL);
    free (set);
    free (window);
    part_event (up, "closed", "step", EVERY + 2);
    kill (part_child (up, "client", "site-1"), SIGKILL);
    part_event_of (up, "ready", "part", "client/site-1");
    part_event_of (up, "step", "part", "client/site-1");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "code") == 0, "the run ends well");
    stage_check (stage, part_wait (up) == 0, "code 0");
    tl_error_t err;
    char *adapters[3] = {NULL};
    size_t sizes[3] = {0};
    for (size_t i = 0; i < 3; i++) {
        char *path = tl_format ("%s/runs/case/site-%zu/adapter/adapter_model.safetensors",
                                stage_case (stage)->directory, i);
        adapters[i] = tl_file_read (path, 1 << 26, &sizes[i], &err);
        free (path);
        if (!adapters[i])
            stage_fail (stage, "%s", err.text);
        if (sizes[i] != sizes[0] || memcmp (adapters[i], adapters[0], sizes[0]) != 0)
            stage_fail (stage, "site-%zu ends with another adapter than site-0", i);
    }
    for (size_t i = 0; i < 3; i++)
        free (adapters[i]);
    stage_end (&stage);
}

static void
s_client_average (void)
{
    s_shared ("average", "fanout", "all");
}

static void
s_client_sync (void)
{
    s_shared ("sync", "batch", "all");
}

//  A step holds who is ready, and still all are one in the end: whoever has begun is in the last step before a line.
static void
s_client_window (void)
{
    s_shared ("average", "fanout", "window");
}

//  What clients have begun is void when their group goes back, and so is what the broker keeps of it.
static void
s_worker_window (void)
{
    case_spec_t spec = s_case (3, STEPS, "fanout");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, "--set", "schedule.join=window", NULL);
    part_event (up, "closed", "step", EVERY + 3);
    kill (part_child (up, "worker", "trunk-2"), SIGKILL);
    part_log (up, "was killed by signal 9");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == STEPS && part_int (done, "code") == 0,
                 "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"groups", s_groups},
                                         {"worker_early", s_worker_early},
                                         {"worker_late", s_worker_late},
                                         {"spare", s_spare},
                                         {"worker_asleep", s_worker_asleep},
                                         {"aggregator", s_aggregator},
                                         {"client_average", s_client_average},
                                         {"client_sync", s_client_sync},
                                         {"client_window", s_client_window},
                                         {"worker_window", s_worker_window},
                                         {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
