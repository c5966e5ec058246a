/*  What several hold a copy of, under faults: the aggregator is killed between merges and in the middle of a step whose
    gradients it sums, and the run comes to the same bits; a client that is gone at a merge is not waited for. */

#include "chaos/stage.h"

#include <signal.h>
#include <stdio.h>
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
                                         {"client", s_client},
                                         {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
