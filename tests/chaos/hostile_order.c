/*  A client with a valid key whose messages come in the wrong order, of another run, or though nobody asked, beside an
    honest client, with real broker, worker and aggregator. None of it counts, and the steps go on. */

#include "chaos/peer.h"

#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 32, ROWS = PEER_ROWS, MICROS = 2, LONG = 1000000, MOST_PART = 1 << 22 };

typedef struct {
    stage_t *stage;
    part_t *broker, *worker, *aggregator, *honest; //  aggregator may be NULL
    peer_t *peer;
} run_t;

//  The adapter that all clients' came to.
static uint8_t s_blob[MOST_PART];
static uint64_t s_size;

//  resume: a run of a few steps, which goes on.
static run_t
s_begin (const char *more, bool resume)
{
    static char settings[640];
    static case_spec_t spec;
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0}\n"
              "train: {steps: %d, batch_size: 4, micros: %d, max_length: 64, lr: 1e-4}\n"
              "wire: {dtype: fp32}\n%sliveness: {ping_ms: 3000, expire_ms: 20000}\n",
              LONG, MICROS, more);
    spec = (case_spec_t){.model = tiny_llama (false),
                         .sites = 2,
                         .examples = 16,
                         .letters = {40, 24},
                         .steps = LONG,
                         .save_every = 100000,
                         .settings = settings};
    run_t run = {.stage = stage_new (&spec)};
    if (strstr (more, "average"))
        //  The other part of the second merge comes after all that we have to say
        stage_faults (run.stage, "client/site-0 GATHER 2 delay 500");
    if (resume) {
        part_t *up = stage_up (run.stage, "--set", "train.steps=4", NULL);
        stage_check (run.stage, part_wait (up) == 0, "code 0");
    } else
        peer_keys (run.stage);
    run.broker = stage_run (run.stage, "broker", NULL, resume ? "--resume" : NULL, NULL);
    run.worker = stage_run (run.stage, "worker", "trunk", NULL);
    if (strstr (more, "average"))
        run.aggregator = stage_run (run.stage, "aggregator", NULL, NULL);
    run.honest = stage_run (run.stage, "client", "site-0", NULL);
    part_event (run.honest, "ready", NULL, 0);
    run.peer = peer_join (run.stage, "site-1", "client");
    return run;
}

//  The honest client goes on without it, to an end that is told.
static void
s_end (run_t *run)
{
    peer_leave (&run->peer);
    int64_t step = part_int (part_event (run->honest, "step", NULL, 0), "step");
    part_event (run->honest, "step", "step", step + 3);
    part_kill (run->broker, SIGTERM);
    stage_check (run->stage,
                 part_wait (run->broker) == 0 && part_wait (run->worker) == 0 &&
                     part_wait (run->honest) == 0 &&
                     (!run->aggregator || part_wait (run->aggregator) == 0),
                 "code 0 of all");
    stage_end (&run->stage);
}

//  --- what it says

static const peer_piece_t s_rows = {TL_W_F32, ROWS, HIDDEN, 0, NULL, false};
static const peer_piece_t s_junk = {TL_W_U8, 100, 1, 0, NULL, false};

static void
s_send_activation (peer_t *peer, uint64_t micro)
{
    tl_sequence_t sequence = {ROWS, 0, 0, 0};
    tl_message_t message;
    tl_message_init (&message, TL_ACTIVATION);
    message.step = peer->step;
    message.micro = micro;
    message.body.activation.sequences = &sequence;
    message.body.activation.sequences_count = 1;
    peer_send_piece (peer, &message, &s_rows);
}

static void
s_send_gradient (peer_t *peer, uint64_t micro, uint64_t labels)
{
    tl_message_t message;
    tl_message_init (&message, TL_GRADIENT);
    message.step = peer->step;
    message.micro = micro;
    message.body.gradient.labels = labels;
    peer_send_piece (peer, &message, &s_rows);
}

static void
s_send_commit (peer_t *peer)
{
    tl_message_t message;
    tl_message_init (&message, TL_COMMIT);
    message.step = peer->step;
    message.body.commit.labels = 2 * MICROS;
    peer_send (peer, &message, NULL, 0);
}

static void
s_send_answer (peer_t *peer, tl_type_t type, uint64_t step, bool good)
{
    tl_message_t message;
    tl_message_init (&message, type);
    message.step = step;
    if (type == TL_SAVED) {
        message.body.saved.good = good;
        message.body.saved.text = good ? "" : "I can't";
    } else if (type == TL_RESTORED) {
        message.body.restored.code = good ? 0 : TL_FAILED;
        message.body.restored.text = good ? "" : "me neither";
    }
    peer_send (peer, &message, NULL, 0);
}

static void
s_send_part (peer_t *peer, const char *kind, uint64_t step, const peer_piece_t *piece)
{
    tl_message_t message;
    tl_message_init (&message, TL_PART);
    message.step = step;
    message.body.part.kind = (char *)kind;
    message.body.part.labels = 5;
    peer_send_piece (peer, &message, piece);
}

//  Up to where its gradients are due.
static void
s_forward (peer_t *peer)
{
    for (uint64_t micro = 0; micro < MICROS; micro++)
        s_send_activation (peer, micro);
    for (uint64_t micro = 0; micro < MICROS; micro++)
        peer_wait (peer, TL_HIDDEN);
}

static void
s_whole_step (peer_t *peer)
{
    peer_wait (peer, TL_PLAN);
    s_forward (peer);
    for (uint64_t micro = 0; micro < MICROS; micro++)
        s_send_gradient (peer, micro, 2);
    s_send_commit (peer);
    peer_wait (peer, TL_COMMITTED);
}

//  All that a client can say of the open step and its end, and more label tokens than it has.
static void
s_send_all (peer_t *peer)
{
    static const tl_type_t answers[] = {TL_SAVED, TL_RESTORED, TL_FINISHED};
    for (uint64_t micro = 0; micro < MICROS; micro++) {
        s_send_activation (peer, micro);
        s_send_gradient (peer, micro, ROWS);
    }
    s_send_commit (peer);
    s_send_part (peer, "clients", peer->step, &s_junk);
    for (size_t i = 0; i < 3; i++)
        s_send_answer (peer, answers[i], peer->step, false);
}

//  Its COMMITTED has the label tokens of both.
static void
s_expect_committed (run_t *run, uint64_t own)
{
    uint64_t step = run->peer->step;
    peer_wait (run->peer, TL_COMMITTED);
    const json_t *honest = part_event (run->honest, "step", "step", (int64_t)step);
    uint64_t labels = own + (uint64_t)part_int (honest, "labels");
    if (run->peer->of_step != step || run->peer->labels != labels)
        stage_fail (run->stage, "expected COMMITTED of step %llu with N %llu, got %llu with %llu",
                    (unsigned long long)step, (unsigned long long)labels,
                    (unsigned long long)run->peer->of_step, (unsigned long long)run->peer->labels);
}

//  --- the tests

//  COMMIT before the last GRADIENT is kept: the step waits for that.
static void
s_early_commit (void)
{
    run_t run = s_begin ("", false);
    peer_wait (run.peer, TL_PLAN);
    s_forward (run.peer);
    s_send_gradient (run.peer, 0, 2);
    s_send_commit (run.peer);
    peer_expect_alive (run.peer);
    s_send_gradient (run.peer, 1, 1);
    s_expect_committed (&run, 3);
    s_end (&run);
}

//  What is of another run is on the link, and otherwise nothing.
static void
s_other_run (void)
{
    run_t run = s_begin ("", false);
    uint64_t its = run.peer->run;
    peer_wait (run.peer, TL_PLAN);
    run.peer->run = its + 1;
    s_send_all (run.peer);
    run.peer->run = its;
    s_forward (run.peer);
    run.peer->run = 0;
    s_send_all (run.peer);
    run.peer->run = its;
    for (uint64_t micro = 0; micro < MICROS; micro++)
        s_send_gradient (run.peer, micro, 1);
    s_send_commit (run.peer);
    s_expect_committed (&run, MICROS);
    s_end (&run);
}

//  Whoever is on its way back when the run ends learns that it is over: with its session, or without one.
static void
s_coming_back (void)
{
    run_t run = s_begin ("", false);
    //  Nobody waits for a reader's save
    peer_t *reader = peer_join (run.stage, "site-1", "reader");
    uint8_t session[sizeof reader->session];
    memcpy (session, reader->session, sizeof session);
    peer_wait (run.peer, TL_PLAN);
    peer_leave (&run.peer);
    part_event (run.honest, "step", "step", 3);
    peer_drop (&reader);
    part_kill (run.broker, SIGTERM);
    part_event (run.broker, "ending", NULL, 0);
    peer_t *without = peer_connect (run.stage, "site-1", "client");
    peer_hello (without, "client", 77);
    peer_wait (without, TL_BYE);
    stage_check (run.stage, without->code == 0, "BYE 0 to a HELLO");
    reader = peer_connect (run.stage, "site-1", "reader");
    peer_attach_control (reader, session);
    peer_wait (reader, TL_BYE);
    stage_check (run.stage, reader->code == 0, "BYE 0 to an ATTACH");
    peer_drop (&reader);
    peer_drop (&without);
    stage_check (run.stage,
                 part_wait (run.broker) == 0 && part_wait (run.worker) == 0 &&
                     part_wait (run.honest) == 0,
                 "code 0 of all");
    stage_end (&run.stage);
}

//  In a run that goes on, who has lost its save would end it: not by an answer that nobody waits for.
static void
s_restored (void)
{
    run_t run = s_begin ("", true);
    peer_wait (run.peer, TL_RESTORE);
    stage_check (run.stage, run.peer->of_step == 4, "back to step 4");
    s_send_answer (run.peer, TL_RESTORED, 4, true);
    s_send_answer (run.peer, TL_RESTORED, 0, true);
    s_send_answer (run.peer, TL_RESTORED, 4, false);
    s_send_answer (run.peer, TL_SAVED, 4, false);
    s_send_answer (run.peer, TL_FINISHED, 4, true);
    s_whole_step (run.peer);
    s_send_answer (run.peer, TL_RESTORED, 0, true);
    peer_wait (run.peer, TL_PLAN);
    stage_check (run.stage, part_count (run.broker, "finished") == 0, "nobody has finished");
    s_end (&run);
}

static void
s_send_parts (peer_t *peer, uint64_t step)
{
    static const char *const kinds[] = {"clients", "sum", "trunk", "pie"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        s_send_part (peer, kinds[i], step, &s_junk);
        s_send_part (peer, kinds[i], step + 1000, &s_junk);
        s_send_part (peer, kinds[i], UINT64_MAX, &s_junk);
    }
}

//  The average, which it keeps; then the save.
static void
s_take (run_t *run, const char *words)
{
    peer_t *peer = run->peer;
    do {
        peer_wait (peer, TL_MERGED);
        stage_check (run->stage, peer->tensor.bytes <= sizeof s_blob, "a small blob");
        memcpy (s_blob + peer->tensor.offset, peer->chunk, peer->tensor.size);
    } while (peer->tensor.offset + peer->tensor.size < peer->tensor.bytes);
    s_size = peer->tensor.bytes;
    s_send_answer (peer, TL_RESTORED, peer->of_step, true);
    peer_wait (peer, TL_SAVE);
    s_send_answer (peer, TL_SAVED, peer->of_step, true);
    const char *text = part_text (part_event (run->broker, "merged", NULL, 0), "text");
    if (*words ? !strstr (text, words) : *text)
        stage_fail (run->stage, "expected a merge with \"%s\", it came to \"%s\"", words, text);
}

//  Two periods: parts that are not due, then one that is no adapter; in the second a good one, and the bad one behind it.
static void
s_part (void)
{
    run_t run = s_begin ("federate: {clients: average, every: 2, quorum: 1}\n", false);
    for (uint64_t period = 0; period < 2; period++) {
        for (int i = 0; i < 2; i++) {
            s_send_parts (run.peer, 2 * period); //  what it will be asked for, and not yet
            s_whole_step (run.peer);
        }
        peer_wait (run.peer, TL_GATHER);
        uint64_t step = run.peer->of_step;
        stage_check (run.stage, step == 2 * period, "the step at which the period began");
        for (uint64_t at = 0; at < (period ? s_size : 0); at += tl_chunk_bytes (s_size))
            s_send_part (run.peer, "clients", step,
                         &(peer_piece_t){TL_W_U8, s_size, 1, at, s_blob, false});
        s_send_part (run.peer, "clients", step, &s_junk);
        s_send_parts (run.peer, step);
        s_take (&run, period ? "" : "site-1 is left out: ");
    }
    s_end (&run);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"early_commit", s_early_commit},
                                         {"other_run", s_other_run},
                                         {"coming_back", s_coming_back},
                                         {"restored", s_restored},
                                         {"part", s_part},
                                         {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
