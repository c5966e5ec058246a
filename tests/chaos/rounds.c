/*  Sites with fewer rounds than the run (clients[].steps): each is in exactly its own, in whatever mode, the run ends, and
    what is told of it at the end has each site's number.                                           */

#include "chaos/stage.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 20, SITES = 3, EVERY = 5 };

//  Neither is at a save or a line; site-1 is in all.
static const int64_t s_limits[SITES] = {7, ROUNDS, 13};
#define LIMITS "--set", "clients.0.steps=7", "--set", "clients.2.steps=13"

static char s_settings[512];

static case_spec_t
s_case (size_t workers, const char *mode)
{
    snprintf (s_settings, sizeof s_settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 4, micros: 2, max_length: 64, lr: 2e-3, warmup: 3}\n"
              "wire: {dtype: fp32}\nschedule: {mode: %s}\nfederate: {every: %d}\n"
              "liveness: {ping_ms: 500, expire_ms: 10000}\n",
              ROUNDS, mode, EVERY);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = SITES,
                         .workers = workers,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = ROUNDS,
                         .save_every = EVERY,
                         .settings = s_settings};
}

//  The end of a run of that many steps.
static void
s_check_end (const stage_t *stage, part_t *up, int64_t steps)
{
    const json_t *done = part_event (up, "done", NULL, 0);
    if (part_int (done, "steps") != steps || part_int (done, "code") != 0)
        stage_fail (stage, "%lld steps and code %lld, expected %lld and 0",
                    (long long)part_int (done, "steps"), (long long)part_int (done, "code"),
                    (long long)steps);
    stage_check (stage, part_wait (up) == 0, "code 0");
}

static int64_t
s_site (const json_t *event)
{
    return part_text (event, "name")[strlen ("site-")] - '0';
}

//  Label tokens of each site's rounds, as it told them: each of its own rounds once, in order, and no other.
static void
s_take_rounds (const stage_t *stage, const part_t *up, int64_t labels[SITES][ROUNDS])
{
    int64_t made[SITES] = {0};
    for (size_t i = 0; part_at (up, i); i++) {
        const json_t *it = part_at (up, i);
        if (!part_is (it, "step"))
            continue;
        int64_t site = s_site (it), round = part_int (it, "round");
        if (round != made[site] || round >= s_limits[site])
            stage_fail (stage, "site-%lld is in round %lld after %lld rounds, expected %lld in all",
                        (long long)site, (long long)round, (long long)made[site],
                        (long long)s_limits[site]);
        labels[site][round] = part_int (it, "labels");
        made[site]++;
    }
    for (size_t i = 0; i < SITES; i++)
        if (made[i] != s_limits[i])
            stage_fail (stage, "site-%zu was in %lld rounds, expected %lld", i, (long long)made[i],
                        (long long)s_limits[i]);
}

//  The trunk learnt in each round from the sites that were in it: so many members and label tokens in all.
static void
s_check_trunk (const stage_t *stage, const part_t *up, int64_t labels[SITES][ROUNDS])
{
    int64_t members[ROUNDS] = {0}, learnt[ROUNDS] = {0};
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "closed")) {
            int64_t round = part_int (part_at (up, i), "round");
            members[round] += part_int (part_at (up, i), "members");
            learnt[round] += part_int (part_at (up, i), "labels");
        }
    for (int64_t round = 0; round < ROUNDS; round++) {
        int64_t in = 0, sum = 0;
        for (size_t i = 0; i < SITES; i++) {
            in += round < s_limits[i];
            sum += labels[i][round];
        }
        if (members[round] != in || learnt[round] != sum)
            stage_fail (stage,
                        "round %lld had %lld members and %lld label tokens, expected %lld and %lld",
                        (long long)round, (long long)members[round], (long long)learnt[round],
                        (long long)in, (long long)sum);
    }
}

static void
s_check_number (const stage_t *stage, const json_t *of, const char *key, int64_t expected)
{
    if (!json_is_integer (json_object_get (of, key)) || part_int (of, key) != expected)
        stage_fail (stage, "summary.json: %s has %s %lld, expected %lld", part_text (of, "name"),
                    key, (long long)part_int (of, key), (long long)expected);
}

static void
s_check_summary (const stage_t *stage, int64_t steps, int64_t labels[SITES][ROUNDS])
{
    char *path = tl_format ("%s/runs/case/summary.json", stage_case (stage)->directory);
    json_error_t error;
    json_t *summary = json_load_file (path, 0, &error);
    if (!summary)
        stage_fail (stage, "%s: %s", path, error.text);
    int64_t all = 0;
    for (size_t i = 0; i < SITES; i++) {
        const json_t *site = json_array_get (json_object_get (summary, "clients"), i);
        int64_t its = 0;
        for (size_t k = 0; k < ROUNDS; k++)
            its += labels[i][k];
        s_check_number (stage, site, "steps", s_limits[i]);
        s_check_number (stage, site, "labels", its);
        all += its;
    }
    s_check_number (stage, summary, "steps", ROUNDS);
    s_check_number (stage, summary, "trunk_steps", steps);
    s_check_number (stage, summary, "labels", all);
    json_decref (summary);
    free (path);
}

//  The row of that name has that number of steps.
static void
s_check_row (const stage_t *stage, const part_t *up, const char *name, int64_t steps)
{
    char *start = tl_format ("\n%s ", name);
    const char *row = strstr (part_out (up), start);
    long long got = -1;
    if (!row || sscanf (row + strlen (start), "%lld", &got) != 1 || got != steps)
        stage_fail (stage, "%s has %lld steps in the table, expected %lld:\n%s", name, got,
                    (long long)steps, part_out (up));
    free (start);
}

static void
s_check_table (stage_t *stage)
{
    part_t *up = stage_verb (stage, "up", LIMITS, NULL);
    stage_check (stage, part_wait (up) == 0, "code 0");
    for (size_t i = 0; i < SITES; i++) {
        char *name = tl_format ("site-%zu", i);
        s_check_row (stage, up, name, s_limits[i]);
        free (name);
    }
    s_check_row (stage, up, "all", ROUNDS);
}

//  Killed when one site has made all of its rounds and another is at its last, the run goes on from its save of step at to
//  the same bits: nobody's rounds are made twice, or left out.
static void
s_check_resumed (stage_t *stage, int64_t steps, int64_t at)
{
    const char *directory = stage_case (stage)->directory;
    char *run = tl_format ("%s/runs/case", directory),
         *aside = tl_format ("%s/undisturbed", directory);
    stage_check (stage, rename (run, aside) == 0, "moved");
    stage_faults (stage, "client/site-1 PLAN 13 stop 60000");
    part_t *up = stage_up (stage, LIMITS, NULL);
    part_log (up, "fault: stop at PLAN 13");
    part_kill_all (up);
    up = stage_up (stage, "--resume", LIMITS, NULL);
    int64_t from = part_int (part_event (up, "resumed", NULL, 0), "step");
    if (from != at)
        stage_fail (stage, "it goes on from step %lld, expected %lld", (long long)from,
                    (long long)at);
    s_check_end (stage, up, steps);
    for (size_t i = 0; part_at (up, i); i++)
        if (part_is (part_at (up, i), "step") &&
            part_int (part_at (up, i), "round") >= s_limits[s_site (part_at (up, i))])
            stage_fail (stage, "%s is in round %lld of a resumed run, expected %lld in all",
                        part_text (part_at (up, i), "name"),
                        (long long)part_int (part_at (up, i), "round"),
                        (long long)s_limits[s_site (part_at (up, i))]);
    static const char *const parts[] = {"site-0", "site-1", "site-2", "trunk"};
    for (size_t i = 0; i < 4; i++)
        if (!stage_same (stage, parts[i]))
            stage_fail (stage, "%s ends with another adapter than without the break", parts[i]);
    free (run);
    free (aside);
}

//  at: the last save before round 12 of the run. 0: which sites share a worker depends on times, and so does what they come to.
static void
s_rounds (size_t workers, const char *mode, int64_t steps, int64_t at)
{
    case_spec_t spec = s_case (workers, mode);
    stage_t *stage = stage_new (&spec);
    int64_t labels[SITES][ROUNDS] = {{0}};
    part_t *up = stage_up (stage, LIMITS, NULL);
    s_check_end (stage, up, steps);
    s_take_rounds (stage, up, labels);
    s_check_trunk (stage, up, labels);
    s_check_summary (stage, steps, labels);
    if (at)
        s_check_resumed (stage, steps, at);
    s_check_table (stage);
    stage_end (&stage);
}

static void
s_batch (void)
{
    s_rounds (1, "batch", ROUNDS, 10);
}

//  A step is one site's.
static void
s_serial (void)
{
    s_rounds (1, "serial", 7 + ROUNDS + 13, 30);
}

//  More sites than workers; towards the end only one is left.
static void
s_fanout (void)
{
    s_rounds (2, "fanout", ROUNDS, 0);
}

//  Where every site has fewer, the run is over when the last one has made its own: nobody stopped it, nothing is left to go on
//  with, and with more rounds for one of them it goes on.
static void
s_early (void)
{
    case_spec_t spec = s_case (1, "batch");
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, LIMITS, "--set", "clients.1.steps=10", NULL);
    s_check_end (stage, up, 13);
    stage_check (stage, !strstr (part_err (up), "stopped after"), "a run that came to its end");
    up = stage_up (stage, "--resume", LIMITS, "--set", "clients.1.steps=10", NULL);
    int code = part_wait (up);
    if (code != 4 || !strstr (part_err (up), "is over, all of its 13 rounds are done: raise "
                                             "clients[].steps to lengthen it"))
        stage_fail (stage, "ended with code %d, expected 4 and that it is over", code);
    up = stage_up (stage, "--resume", LIMITS, "--set", "clients.1.steps=16", NULL);
    for (int64_t round = 13; round < 16; round++) {
        const json_t *step = part_event (up, "closed", NULL, 0);
        if (part_int (step, "round") != round || part_int (step, "members") != 1)
            stage_fail (stage, "round %lld with %lld members, expected %lld with 1",
                        (long long)part_int (step, "round"), (long long)part_int (step, "members"),
                        (long long)round);
    }
    s_check_end (stage, up, 16);
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"batch", s_batch},
                                         {"serial", s_serial},
                                         {"fanout", s_fanout},
                                         {"early", s_early},
                                         {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
