/*  A worker with a valid key that says things out of time, with real clients and a real broker: of no step, of another
    group's client, again, or though nobody asked. All of it is ignored, and the run goes on with the next step. */

#include "chaos/trunk.h"

#include "file.h"
#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
s_send_leave (peer_t *worker, uint64_t step, const char *name)
{
    tl_message_t message;
    trunk_to (&message, TL_LEAVE, step, "broker");
    message.body.leave.name = (char *)name;
    message.body.leave.text = (char *)"I don't like it";
    peer_send (worker, &message, NULL, 0);
}

//  --- what nobody waits for

static void
s_send_strange_rows (peer_t *worker, uint64_t step, uint64_t rows)
{
    static const tl_type_t types[] = {TL_HIDDEN, TL_GRAD_IN};
    const peer_piece_t good = {TL_W_F32, rows, TRUNK_HIDDEN, 0, NULL, false};
    for (size_t i = 0; i < 2; i++) {
        trunk_send_rows (worker, types[i], step + 1000, 0, &good, "site-0");
        trunk_send_rows (worker, types[i], step - 1, 0, &good, "site-0");
        trunk_send_rows (worker, types[i], step, 7, &good, "site-0");
        trunk_send_rows (worker, types[i], step, 0, &good, "site-9");
        trunk_send_rows (worker, types[i], step, 0, &good, "trunk");
    }
    trunk_send_rows (worker, TL_FORWARDED, 3, 0, &good, "site-0");
    trunk_send_rows (worker, TL_FORWARDED, 3, 0, &good, "site-0/17");
}

static void
s_send_part (peer_t *worker, uint64_t step)
{
    tl_message_t message;
    trunk_to (&message, TL_PART, step, "broker");
    message.body.part.kind = (char *)"trunk";
    message.body.part.labels = 1;
    peer_send_piece (worker, &message, &(peer_piece_t){TL_W_U8, 100, 1, 0, NULL, false});
}

//  Its author is not the one who may say it: no part of the link.
static void
s_send_forbidden (peer_t *worker, uint64_t step)
{
    static const tl_type_t types[] = {TL_PLAN,   TL_ACTIVATION, TL_GRADIENT, TL_COMMIT,
                                      TL_SAVE,   TL_RESTORE,    TL_ABANDON,  TL_LATE,
                                      TL_FINISH, TL_MERGED,     TL_OUTCOME,  TL_MERGE,
                                      TL_GATHER, TL_FINISHED,   TL_FORWARD};
    static const uint8_t byte[1];
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        tl_message_t message;
        trunk_to (&message, types[i], step, "site-0");
        tl_tensor_wire_t *tensor = (tl_tensor_wire_t *)tl_message_tensor (&message);
        if (tensor)
            *tensor = (tl_tensor_wire_t){
                .dtype = TL_W_U8, .rows = 1, .columns = 1, .bytes = 1, .size = 1};
        message.sequence = worker->sequence + 1;
        message.ack = worker->received;
        peer_send_as (worker, worker->data, &message, tensor ? byte : NULL, 1);
    }
}

static void
s_send_untimely (peer_t *worker, uint64_t step, uint64_t rows)
{
    s_send_strange_rows (worker, step, rows);
    trunk_send_committed (worker, step, 10, "site-0"); //  its last GRADIENT isn't even made
    trunk_send_committed (worker, step + 1000, 10, "site-0");
    trunk_send_committed (worker, step + 1000, 10, "broker");
    trunk_send_committed (worker, step - 1, 10, "broker");
    s_send_leave (worker, step + 1000, "site-0");
    s_send_leave (worker, step - 1, "site-0");
    s_send_leave (worker, step, "site-9");
    s_send_leave (worker, step, "trunk");
    trunk_send_answer (worker, TL_SAVED, step, false);
    trunk_send_answer (worker, TL_RESTORED, step, false);
    s_send_part (worker, step);
    s_send_part (worker, UINT64_MAX);
    s_send_forbidden (worker, step);
}

static void
s_untimely_as (const char *more)
{
    enum { STEPS = 3 };
    trunk_run_t run = trunk_begin (1, TRUNK_LONG, more);
    trunk_start (&run, NULL);
    for (uint64_t i = 0; i < STEPS; i++) {
        uint64_t rows = trunk_wait_rows (run.worker, TL_ACTIVATION);
        s_send_untimely (run.worker, i, rows);
        trunk_go_on (run.worker, i, rows, "site-0");
        trunk_send_committed (run.worker, i, 10, "broker"); //  twice
        trunk_send_committed (run.worker, i, 10, "site-0");
        trunk_expect_step (&run, i);
    }
    //  The step is said to be over before the client could do anything: it is in the next one
    peer_wait (run.worker, TL_ACTIVATION);
    trunk_send_committed (run.worker, STEPS, 10, "broker");
    part_log (run.site, "step 4 is dropped: a new plan came");
    trunk_whole_step (run.worker, "site-0");
    trunk_expect_step (&run, STEPS + 1);
    part_event (run.broker, "closed", "step", STEPS + 1);
    if (part_count (run.broker, "closed") != STEPS + 2)
        stage_fail (run.stage, "expected %d steps that closed, the broker told of %zu", STEPS + 2,
                    part_count (run.broker, "closed"));
    trunk_end (&run);
}

static void
s_untimely (void)
{
    s_untimely_as (TRUNK_TUNE);
}

//  A client's PLAN is its own, and its step is named so.
static void
s_untimely_window (void)
{
    s_untimely_as (TRUNK_TUNE "schedule: {join: window}\n");
}

//  Where only the trunk learns, the front waits for no gradient.
static void
s_unwanted (void)
{
    trunk_run_t run = trunk_begin (1, TRUNK_LONG, "tune: {rank: 4, dropout: 0, parts: [trunk]}\n");
    trunk_start (&run, NULL);
    uint64_t rows = trunk_wait_rows (run.worker, TL_ACTIVATION);
    trunk_send_good (run.worker, TL_HIDDEN, 0, rows, "site-0");
    peer_wait (run.worker, TL_COMMIT);
    for (int i = 0; i < 3; i++)
        trunk_send_good (run.worker, TL_GRAD_IN, 0, rows + 1, "site-0");
    trunk_send_committed (run.worker, 0, 10, "site-0");
    trunk_send_committed (run.worker, 0, 10, "broker");
    trunk_expect_step (&run, 0);
    trunk_end (&run);
}

//  --- a client that is late

//  One by one: the worker closes the first client's step behind its back, and the second has its turn. What the first still
//  sends comes too late.
static void
s_late (void)
{
    trunk_run_t run = trunk_begin (2, TRUNK_LONG, TRUNK_TUNE "schedule: {mode: serial}\n");
    trunk_start (&run, NULL);
    part_t *other = stage_run (run.stage, "client", "site-1", NULL);
    uint64_t rows = trunk_wait_rows (run.worker, TL_ACTIVATION);
    stage_check (run.stage, strcmp (run.worker->sender, "site-0") == 0, "the first one's turn");
    trunk_send_committed (run.worker, 0, 10, "broker");
    trunk_send_good (run.worker, TL_HIDDEN, 0, rows, "site-0"); //  it is none the wiser: GRADIENT
    part_log (run.site, "step 1 is dropped: it was closed without us");
    trunk_whole_step (run.worker, "site-1");
    stage_check (run.stage, part_int (part_event (other, "step", NULL, 0), "step") == 1,
                 "the second one's step");
    trunk_whole_step (run.worker, "site-0");
    trunk_expect_step (&run, 2);
    trunk_end (&run);
}

//  --- states

static bool
s_saved_on_disk (const trunk_run_t *run, uint64_t step)
{
    char *path = tl_format ("%s/runs/case/broker/save-%08llu.state",
                            stage_case (run->stage)->directory, (unsigned long long)step);
    bool is = tl_exists (path);
    free (path);
    return is;
}

static trunk_run_t
s_begin_saving (void)
{
    trunk_run_t run = trunk_begin (1, TRUNK_LONG, TRUNK_TUNE);
    trunk_start (&run, "checkpoint.every=1");
    trunk_whole_step (run.worker, "site-0");
    peer_wait (run.worker, TL_SAVE);
    return run;
}

//  STATE of another step than is being saved, and when nothing is.
static void
s_state (void)
{
    trunk_run_t run = s_begin_saving ();
    for (uint64_t step = 1; step <= 2; step++) {
        trunk_send_state (run.worker, 700 + step, 100, 0, false);
        trunk_send_state (run.worker, step, 100, 0, false);
        trunk_send_answer (run.worker, TL_SAVED, step, true);
        part_event (run.broker, "saved", "step", (int64_t)step);
        trunk_send_state (run.worker, 800 + step, 100, 0, false);
        trunk_send_state (run.worker, 900 + step, 200000, TL_CHUNK_LEAST, false);
        trunk_send_answer (run.worker, TL_SAVED, step, false);
        trunk_whole_step (run.worker, "site-0");
        peer_wait (run.worker, TL_SAVE);
    }
    stage_check (run.stage, s_saved_on_disk (&run, 1) && s_saved_on_disk (&run, 2),
                 "the saves that were asked for");
    stage_check (run.stage,
                 !s_saved_on_disk (&run, 701) && !s_saved_on_disk (&run, 702) &&
                     !s_saved_on_disk (&run, 801) && !s_saved_on_disk (&run, 802),
                 "no other");
    trunk_send_state (run.worker, 3, 100, 0, false);
    part_event (run.broker, "saved", "step", 3);
    trunk_end (&run);
}

//  The answer to SAVE, in pieces that are none.
static void
s_bad_state (void)
{
    static const struct {
        uint64_t offset;
        bool damaged;
        const char *words;
    } cases[] = {{TL_CHUNK_LEAST, false, "step 1 could not be saved: the trunk's state came in"},
                 {0, true, "step 1 could not be saved: a tensor of 100 bytes doesn't have the"}};
    for (size_t i = 0; i < 2; i++) {
        trunk_run_t run = s_begin_saving ();
        trunk_send_state (run.worker, 1, cases[i].offset ? 200000 : 100, cases[i].offset,
                          cases[i].damaged);
        peer_wait (run.worker, TL_BYE);
        stage_check (run.stage, strstr (run.worker->text, cases[i].words) != NULL, cases[i].words);
        peer_drop (&run.worker);
        stage_check (run.stage, part_wait (run.broker) == 1 && part_wait (run.site) == 1,
                     "code 1 of all");
        stage_end (&run.stage);
    }
}

//  --- beside an honest worker

//  The group's two steps, the first of them with all that may be said of the other group's client. Its replica is no trunk.
static void
s_period (trunk_run_t *run, const char *its, const char *others)
{
    const peer_piece_t junk = {TL_W_U8, 100, 1, 0, NULL, false};
    peer_t *worker = run->worker;
    uint64_t rows = trunk_wait_rows (worker, TL_ACTIVATION), step = worker->of_step;
    s_send_leave (worker, step, others);
    trunk_send_good (worker, TL_HIDDEN, step, rows, others);
    trunk_send_good (worker, TL_GRAD_IN, step, rows, others);
    trunk_send_committed (worker, step, 10, others);
    trunk_go_on (worker, step, rows, its);
    trunk_whole_step (worker, its);
    peer_wait (worker, TL_GATHER);
    tl_message_t message;
    for (int i = 0; i < 2; i++) {
        trunk_to (&message, TL_PART, worker->of_step, "broker");
        message.body.part.kind = (char *)"trunk";
        message.body.part.labels = 1;
        peer_send_piece (worker, &message, &junk);
    }
}

static void
s_groups (void)
{
    trunk_run_t run = trunk_begin (
        2, TRUNK_LONG, TRUNK_TUNE "schedule: {mode: fanout}\nfederate: {every: 2, quorum: 1}\n");
    trunk_start (&run, NULL);
    part_t *sites[2] = {run.site, stage_run (run.stage, "client", "site-1", NULL)};
    part_t *honest = stage_run (run.stage, "worker", "trunk-2", NULL);
    part_t *aggregator = stage_run (run.stage, "aggregator", NULL, NULL);
    peer_wait (run.worker, TL_PLAN);
    bool second = strcmp (run.worker->member, "site-1") == 0;
    s_period (&run, second ? "site-1" : "site-0", second ? "site-0" : "site-1");
    const char *text = part_text (part_event_of (run.broker, "merged", "kind", "trunk"), "text");
    stage_check (run.stage, strstr (text, "trunk is left out: ") != NULL, "left out by name");
    peer_wait (run.worker, TL_RESTORE);
    trunk_send_answer (run.worker, TL_RESTORED, run.worker->of_step, true);
    peer_wait (run.worker, TL_PLAN);
    peer_leave (&run.worker);
    //  The honest one has both now
    for (int i = 0; i < 2; i++)
        part_event (sites[i], "step", "step", 7);
    part_kill (run.broker, SIGTERM);
    stage_check (run.stage,
                 part_wait (run.broker) == 0 && part_wait (honest) == 0 &&
                     part_wait (aggregator) == 0 && part_wait (sites[0]) == 0 &&
                     part_wait (sites[1]) == 0,
                 "code 0 of all");
    stage_end (&run.stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"untimely", s_untimely},   {"untimely_window", s_untimely_window},
        {"unwanted", s_unwanted},   {"groups", s_groups},
        {"late", s_late},           {"state", s_state},
        {"bad_state", s_bad_state}, {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
