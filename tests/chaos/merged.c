/*  What several hold a copy of, under faults: the aggregator is killed between merges and in the middle of a step whose
    gradients it sums, and the run comes to the same bits; a client that is gone at a merge is not waited for. */

#include "chaos/stage.h"

#include "file.h"
#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 3, STEPS = 60 };

static char s_settings[640];

static case_spec_t
s_case (uint64_t steps, const char *federate)
{
    snprintf (s_settings, sizeof s_settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 8, max_length: 64, lr: 2e-3, warmup: 3, clip: 1.0}\n"
              "wire: {dtype: fp32}\nschedule: {mode: batch}\nfederate: %s\n"
              "liveness: {ping_ms: 300, expire_ms: 3000}\n",
              (int)steps, federate);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = SITES,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 10,
                         .settings = s_settings};
}

static void
s_check_same (stage_t *stage)
{
    static const char *const parts[] = {"site-0", "site-1", "site-2", "trunk"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!stage_same (stage, parts[i]))
            stage_fail (stage, "%s's adapter is not that of the undisturbed run", parts[i]);
}

//  Kill -9 of the aggregator after that event: it is started again, goes on with what it saved, and nothing is different.
static void
s_killed (const char *federate, const char *event, int64_t step)
{
    case_spec_t spec = s_case (STEPS, federate);
    stage_t *stage = stage_new (&spec);
    case_step_t steps[SITES * STEPS];
    stage_undisturbed (stage, steps);
    part_t *up = stage_up (stage, NULL);
    part_event (up, event, "step", step);
    kill (part_child (up, "aggregator", ""), SIGKILL);
    part_log (up, "aggregator was killed by signal 9");
    const json_t *done = part_event (up, "done", NULL, 0);
    if (part_int (done, "code") != 0 || part_int (done, "steps") != STEPS)
        stage_fail (stage, "expected code 0 after %d steps, got code %lld after %lld", STEPS,
                    (long long)part_int (done, "code"), (long long)part_int (done, "steps"));
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_same (stage);
    stage_end (&stage);
}

static void
s_aggregator_average (void)
{
    s_killed ("{clients: average, every: 7, server: {optimizer: adam}}", "saved", 21);
}

//  It learnt from a merge, and is killed before that is saved: the period is repeated, adapters and all.
static void
s_aggregator_unsaved (void)
{
    case_spec_t spec =
        s_case (STEPS, "{clients: average, every: 7, server: {optimizer: avgm, momentum: 0.5}}");
    stage_t *stage = stage_new (&spec);
    case_step_t steps[SITES * STEPS];
    stage_undisturbed (stage, steps);
    stage_faults (stage, "aggregator SAVE 3 kill 0");
    part_t *up = stage_up (stage, NULL);
    part_log (up, "the aggregator was lost before what it knows of the last merge was saved");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_same (stage);
    stage_end (&stage);
}

static void
s_aggregator_sync (void)
{
    s_killed ("{clients: sync}", "closed", 17);
}

static void
s_check_equal (const stage_t *stage)
{
    char *text[SITES];
    size_t size[SITES];
    tl_error_t err;
    for (size_t i = 0; i < SITES; i++) {
        char *path = tl_format ("%s/runs/case/site-%zu/adapter/adapter_model.safetensors",
                                stage_case (stage)->directory, i);
        text[i] = tl_file_read (path, 1 << 26, &size[i], &err);
        stage_check (stage, text[i] != NULL, err.text);
        stage_check (stage, size[i] == size[0] && memcmp (text[i], text[0], size[0]) == 0,
                     "all clients end with one adapter");
        free (path);
    }
    for (size_t i = 0; i < SITES; i++)
        free (text[i]);
}

//  Adapters of more than the credit: what is merged goes through it in pieces, each released when all clients have it.
static void
s_narrow (void)
{
    static const char *const federate[] = {"{clients: average, every: 3}", "{clients: sync}"};
    for (size_t i = 0; i < 2; i++) {
        case_spec_t spec = s_case (9, federate[i]);
        memcpy (strstr (s_settings, "rank: 4, "), "rank: 99,", 9);
        memcpy (strstr (s_settings, "batch_size: 8"), "batch_size: 1", 13);
        spec.model.hidden = 128;
        spec.model.inner = 512;
        spec.model.head_dim = 128 / spec.model.heads;
        stage_t *stage = stage_new (&spec);
        case_step_t steps[SITES * STEPS];
        stage_undisturbed (stage, steps);
        part_t *up = stage_up (stage, "--set", "wire.credit_mb=1", NULL);
        const json_t *idle = part_event_of (up, "idle", "name", "trunk");
        double credit = json_number_value (json_object_get (idle, "credit"));
        stage_check (stage, part_wait (up) == 0, "code 0");
        s_check_same (stage);
        if (credit > 1) //  four saves that went a window at a time would take 2 s
            stage_fail (stage, "the worker waited %.1f s for credit: expected less than 1", credit);
        stage_end (&stage);
    }
}

//  What is not finite, not shaped as the others', not whole, or heavier than its steps: left out by name, and the run goes on.
static void
s_spoiled (void)
{
    static const struct {
        const char *action, *words;
    } cases[] = {{"nan", "not finite"},
                 {"shape", "has shape [32, 4], that of site-"},
                 {"cut", "is left out: "},
                 {"labels", "label tokens, more than a period can hold"}};
    case_spec_t spec = s_case (STEPS, "{clients: average, every: 7, quorum: 2}");
    stage_t *stage = stage_new (&spec);
    char *faults = tl_strdup ("");
    for (size_t i = 0; i < 4; i++) {
        //  One of the three of each merge
        char *more = tl_format ("%s%saggregator PART %zu %s 0", faults, i ? ";" : "",
                                3 * i + 1 + i % 3, cases[i].action);
        free (faults);
        faults = more;
    }
    stage_faults (stage, faults);
    free (faults);
    part_t *up = stage_up (stage, NULL);
    for (size_t i = 0; i < 4; i++) {
        const json_t *merged = part_event (up, "merged", "step", 7 * (int64_t)i);
        const char *text = part_text (merged, "text");
        if (!strstr (text, " is left out: ") || !strstr (text, "site-") ||
            !strstr (text, cases[i].words) || !json_is_true (json_object_get (merged, "good")))
            stage_fail (stage, "%s: the merge came to \"%s\", expected \"%s\"", cases[i].action,
                        text, cases[i].words);
    }
    stage_check (stage, part_int (part_event (up, "done", NULL, 0), "steps") == STEPS, "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_equal (stage);
    stage_end (&stage);
}

//  A client is asleep when the others hand in their parts, for longer than the deadline: they go on without its part, it is
//  named, and it gets what they came to.
static void
s_late (void)
{
    case_spec_t spec = s_case (STEPS, "{clients: average, every: 10, quorum: 2, deadline_s: 0.2}");
    stage_t *stage = stage_new (&spec);
    stage_faults (stage, "client/site-1 GATHER 2 stop 1200");
    part_t *up = stage_up (stage, NULL);
    part_log (up, "site-1 is left out: its part did not come in time");
    stage_check (stage, part_int (part_event (up, "done", NULL, 0), "steps") == STEPS, "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_check (stage, !strstr (part_err (up), "left step"), "it never left");
    s_check_equal (stage);
    stage_end (&stage);
}

//  Fewer than the quorum: the deadline doesn't make it a merge; it waits for enough.
static void
s_late_quorum (void)
{
    case_spec_t spec = s_case (20, "{clients: average, every: 10, quorum: 3, deadline_s: 0.2}");
    stage_t *stage = stage_new (&spec);
    stage_faults (stage, "client/site-1 GATHER 1 stop 1200");
    part_t *up = stage_up (stage, NULL);
    for (int64_t step = 0; step <= 10; step += 10)
        stage_check (stage, !*part_text (part_event (up, "merged", "step", step), "text"),
                     "nobody is left out");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_equal (stage);
    stage_end (&stage);
}

//  The run begins with two of three. The third comes for the first time when it is well under way: it takes part from then on,
//  where adapters are shared with the one that the others have come to.
static void
s_joins_as (const char *federate, bool shared)
{
    enum { LONG = 160 };
    case_spec_t spec = s_case (LONG, federate);
    stage_t *stage = stage_new (&spec);
    stage_faults (stage, "client/site-2 WELCOME 1 stop 60000");
    part_t *up = stage_up (stage, "--set", "schedule.start=2", "--set", "train.batch_size=2", NULL);
    int64_t closed = part_int (part_event (up, "closed", "step", 12), "step");
    kill (part_child (up, "client", "site-2"), SIGCONT);
    const json_t *first = part_event_of (up, "step", "part", "client/site-2");
    if (part_int (first, "round") <= closed)
        stage_fail (stage, "its first round is %lld, and %lld were over",
                    (long long)part_int (first, "round"), (long long)closed);
    stage_check (stage, part_int (part_event (up, "done", NULL, 0), "steps") == LONG, "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    size_t with = 0;
    for (size_t i = 0; part_at (up, i); i++)
        with += part_is (part_at (up, i), "closed") && part_int (part_at (up, i), "members") == 3;
    stage_check (stage, with >= 1, "steps of all three");
    if (shared)
        s_check_equal (stage);
    stage_end (&stage);
}

static void
s_joins (void)
{
    s_joins_as ("{clients: personal}", false);
}

static void
s_joins_average (void)
{
    s_joins_as ("{clients: average, every: 10}", true);
}

static void
s_joins_sync (void)
{
    s_joins_as ("{clients: sync}", true);
}

//  Summed gradients: one comes back, and the one that is to give it the adapter is killed when it is asked. Another gives it.
static void
s_giver_sync (void)
{
    enum { LONG = 240 };
    case_spec_t spec = s_case (LONG, "{clients: sync}");
    stage_t *stage = stage_new (&spec);
    stage_faults (stage, "client/site-2 PLAN 9 kill 0;client/site-0 GATHER 1 kill 0");
    part_t *up = stage_up (stage, NULL);
    part_log (up, "0 good parts came");
    stage_check (stage, part_int (part_event (up, "done", NULL, 0), "steps") == LONG, "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    s_check_equal (stage);
    stage_end (&stage);
}

//  Of which step the adapter is that a site left.
static int
s_adapter_step (const stage_t *stage, const char *site)
{
    tl_error_t err;
    char *path = tl_format ("%s/runs/case/%s/adapter.step", stage_case (stage)->directory, site);
    char *text = tl_file_read (path, 64, NULL, &err);
    int step = text ? atoi (text) : -1;
    free (text);
    free (path);
    return step;
}

//  Told to leave when it has just been given the average of step 20, it leaves with that: nobody waits for it at the next line.
static void
s_leaves (void)
{
    case_spec_t spec = s_case (STEPS, "{clients: average, every: 10, quorum: 2}");
    stage_t *stage = stage_new (&spec);
    stage_faults (stage, "client/site-1 SAVE 2 delay 400");
    part_t *up = stage_up (stage, NULL);
    part_log (up, "fault: delay");
    kill (part_child (up, "client", "site-1"), SIGTERM);
    part_log (up, "client/site-1 has left");
    if (s_adapter_step (stage, "site-1") != 20)
        stage_fail (stage, "expected the adapter of step 20, got that of step %d",
                    s_adapter_step (stage, "site-1"));
    stage_check (stage, part_int (part_event (up, "done", NULL, 0), "steps") == STEPS, "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

//  Two of three are enough: the run goes on without the one that was killed, and it gets the average when it is back.
static void
s_client (void)
{
    enum { LONG = 240 };
    case_spec_t spec = s_case (LONG, "{clients: average, every: 10, quorum: 2}");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "merged", "step", 20);
    kill (part_child (up, "client", "site-1"), SIGKILL);
    part_log (up, "client/site-1 was killed by signal 9");
    part_event_of (up, "ready", "part", "client/site-1");
    part_event_of (up, "step", "part", "client/site-1");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "code") == 0, "the run ends well");
    stage_check (stage, part_int (done, "steps") == LONG, "all steps");
    stage_check (stage, part_wait (up) == 0, "code 0");
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "merged") &&
            !json_is_true (json_object_get (part_at (up, i), "good")))
            stage_fail (stage, "a merge came to nothing: %s", part_text (part_at (up, i), "text"));
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"aggregator_average", s_aggregator_average},
                                         {"aggregator_sync", s_aggregator_sync},
                                         {"aggregator_unsaved", s_aggregator_unsaved},
                                         {"narrow", s_narrow},
                                         {"client", s_client},
                                         {"joins", s_joins},
                                         {"joins_average", s_joins_average},
                                         {"joins_sync", s_joins_sync},
                                         {"giver_sync", s_giver_sync},
                                         {"leaves", s_leaves},
                                         {"spoiled", s_spoiled},
                                         {"late", s_late},
                                         {"late_quorum", s_late_quorum},
                                         {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
