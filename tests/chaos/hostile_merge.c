/*  What several hold a copy of, where somebody breaks the rules: an aggregator that answers what nobody asked, of another
    step or kind, or in pieces; and a client that hands in its part when none is due, or twice. The honest go on. */

#include "chaos/peer.h"

#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 32, LONG = 1000000, MOST_PART = 1 << 22 };

typedef struct {
    stage_t *stage;
    part_t *broker, *worker, *site; //  the first client
    peer_t *peer;                   //  who breaks the rules
} run_t;

//  The last PART or MERGED that was waited for, whole.
static uint8_t s_blob[MOST_PART];
static uint64_t s_size;

static run_t
s_begin (size_t sites, const char *federate)
{
    static char settings[640];
    static case_spec_t spec;
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0}\n"
              "train: {steps: %d, batch_size: 4, micros: 1, max_length: 64, lr: 1e-4}\n"
              "wire: {dtype: fp32}\nschedule: {mode: %s}\nfederate: %s\nliveness: {ping_ms: 3000, "
              "expire_ms: 20000}\n",
              LONG, sites > 1 ? "fanout" : "batch", federate);
    spec = (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .workers = sites, //  more than one: a replica each
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = LONG,
                         .save_every = 100000,
                         .settings = settings};
    run_t run = {.stage = stage_new (&spec)};
    peer_keys (run.stage);
    run.broker = stage_run (run.stage, "broker", NULL, NULL);
    run.worker = stage_run (run.stage, "worker", "trunk", NULL);
    run.site = stage_run (run.stage, "client", "site-0", NULL);
    part_event (run.site, "ready", NULL, 0);
    return run;
}

//  --- what the aggregator says

static void
s_to_broker (tl_message_t *message, tl_type_t type, uint64_t step)
{
    tl_message_init (message, type);
    message->step = step;
    snprintf (message->sender, sizeof message->sender, "broker");
}

static void
s_send_outcome (peer_t *peer, const char *kind, uint64_t step, bool good)
{
    tl_message_t message;
    s_to_broker (&message, TL_OUTCOME, step);
    message.body.outcome.kind = (char *)kind;
    message.body.outcome.good = good;
    message.body.outcome.text = good ? "" : "I don't like it";
    peer_send (peer, &message, NULL, 0);
}

static void
s_send_merged (peer_t *peer, const char *kind, uint64_t step, const peer_piece_t *piece)
{
    tl_message_t message;
    s_to_broker (&message, TL_MERGED, step);
    message.body.merged.kind = (char *)kind;
    peer_send_piece (peer, &message, piece);
}

static void
s_send_answer (peer_t *peer, tl_type_t type, uint64_t step, bool good)
{
    tl_message_t message;
    s_to_broker (&message, type, step);
    if (type == TL_SAVED) {
        message.body.saved.good = good;
        message.body.saved.text = good ? "" : "I can't";
    } else {
        message.body.restored.code = good ? 0 : TL_FAILED;
        message.body.restored.text = good ? "" : "me neither";
    }
    peer_send (peer, &message, NULL, 0);
}

//  Every chunk of the next PART or MERGED.
static uint64_t
s_collect (peer_t *peer, tl_type_t type)
{
    do {
        peer_wait (peer, type);
        stage_check (peer->stage, peer->tensor.bytes <= sizeof s_blob, "a small blob");
        memcpy (s_blob + peer->tensor.offset, peer->chunk, peer->tensor.size);
    } while (peer->tensor.offset + peer->tensor.size < peer->tensor.bytes);
    s_size = peer->tensor.bytes;
    return peer->of_step;
}

//  The result of one member is what it sent.
static void
s_send_result (peer_t *peer, const char *kind, uint64_t step)
{
    s_send_outcome (peer, kind, step, true);
    for (uint64_t at = 0; at < s_size; at += tl_chunk_bytes (s_size))
        s_send_merged (peer, kind, step, &(peer_piece_t){TL_W_U8, s_size, 1, at, s_blob, false});
}

static void
s_answer_save (peer_t *peer)
{
    peer_wait (peer, TL_SAVE);
    s_send_answer (peer, TL_SAVED, peer->of_step, true);
}

#define JUNK                                                                                       \
    {                                                                                              \
        TL_W_U8, 100, 1, 0, NULL, false                                                            \
    }
#define GAP                                                                                        \
    {                                                                                              \
        TL_W_U8, 200000, 1, TL_CHUNK_LEAST, NULL, false                                            \
    }
#define DAMAGED                                                                                    \
    {                                                                                              \
        TL_W_U8, 100, 1, 0, NULL, true                                                             \
    }

static const peer_piece_t s_junk = JUNK, s_gap = GAP;

//  Of every kind but that one, nobody waits for anything of that step.
static void
s_send_untimely (peer_t *peer, const char *but, uint64_t step)
{
    static const char *const kinds[] = {"trunk", "clients", "sum", "pie"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp (kinds[i], but) == 0)
            continue;
        s_send_outcome (peer, kinds[i], step, false);
        s_send_outcome (peer, kinds[i], step, true);
        s_send_merged (peer, kinds[i], step, &s_junk);
        s_send_merged (peer, kinds[i], step, &s_gap);
    }
    s_send_answer (peer, TL_SAVED, step, false);
    s_send_answer (peer, TL_RESTORED, step, false);
}

//  Told to stop, the broker has a result that is under way, and saved. The part is here already.
static void
s_end (run_t *run, const char *kind, uint64_t step)
{
    part_kill (run->broker, SIGTERM);
    //  What is answered twice was asked after the signal was seen
    peer_expect_alive (run->peer);
    peer_expect_alive (run->peer);
    s_send_result (run->peer, kind, step);
    s_answer_save (run->peer);
    peer_wait (run->peer, TL_BYE);
    peer_drop (&run->peer);
    stage_check (run->stage,
                 part_wait (run->broker) == 0 && part_wait (run->worker) == 0 &&
                     part_wait (run->site) == 0,
                 "code 0 of all");
    stage_end (&run->stage);
}

//  --- averages

static void
s_average (void)
{
    enum { MERGES = 3 };
    run_t run = s_begin (1, "{clients: average, every: 2}");
    run.peer = peer_join (run.stage, "aggregator", "aggregator");
    for (int i = 0; i < MERGES; i++) {
        peer_wait (run.peer, TL_MERGE);
        uint64_t step = run.peer->of_step;
        s_send_untimely (run.peer, "", step + 1000);
        s_send_untimely (run.peer, "clients", step);
        s_send_merged (run.peer, "clients", step, &s_gap); //  the rest of what is over
        s_collect (run.peer, TL_PART);
        s_send_untimely (run.peer, "",
                         step + 1000); //  what the client waits for is of another step
        s_send_result (run.peer, "clients", step);
        s_send_merged (run.peer, "clients", step, &s_junk); //  again, and something else
        s_answer_save (run.peer);
        s_send_untimely (run.peer, "", step);
    }
    part_event (run.site, "step", "step", 2 * MERGES + 1);
    uint64_t step = s_collect (run.peer, TL_PART);
    if (part_count (run.broker, "merged") != MERGES)
        stage_fail (run.stage, "expected %d merges, the broker told of %zu", MERGES,
                    part_count (run.broker, "merged"));
    s_end (&run, "clients", step);
}

//  --- sums

static void
s_sum (void)
{
    enum { STEPS = 3 };
    run_t run = s_begin (1, "{clients: sync}");
    run.peer = peer_join (run.stage, "aggregator", "aggregator");
    for (uint64_t i = 0; i < STEPS; i++) {
        uint64_t step = s_collect (run.peer, TL_PART);
        s_send_untimely (run.peer, "", step + 1000);
        s_send_untimely (run.peer, "sum", step);
        s_send_result (run.peer, "sum", step);
        s_send_merged (run.peer, "sum", step, &s_junk); //  again, and something else
        int64_t is = part_int (part_event (run.site, "step", NULL, 0), "step");
        if (is != (int64_t)i)
            stage_fail (run.stage, "expected step %d of the client, got %lld", (int)i,
                        (long long)is);
    }
    uint64_t step = s_collect (run.peer, TL_PART);
    s_end (&run, "sum", step);
}

//  A result is half passed on when its step is given up; the rest comes when that step is tried again.
static void
s_stale (void)
{
    run_t run = s_begin (1, "{clients: sync}");
    run.peer = peer_join (run.stage, "aggregator", "aggregator");
    peer_piece_t piece = {TL_W_U8, 200000, 1, 0, NULL, false};
    uint64_t step = s_collect (run.peer, TL_PART);
    s_send_merged (run.peer, "sum", step, &piece);
    s_send_outcome (run.peer, "sum", step, false);
    peer_wait (run.peer, TL_MERGE);
    piece.offset = 2 * TL_CHUNK_LEAST; //  what came before was nobody's
    s_send_merged (run.peer, "sum", step, &piece);
    stage_check (run.stage, s_collect (run.peer, TL_PART) == step, "the same step");
    s_send_result (run.peer, "sum", step);
    stage_check (run.stage, part_int (part_event (run.site, "step", NULL, 0), "step") == 0,
                 "the client's first step");
    step = s_collect (run.peer, TL_PART);
    s_end (&run, "sum", step);
}

//  --- results that can't be right

typedef struct {
    const char *federate, *kind;
    peer_piece_t piece;
    bool over; //  the run is, else only the client
    int code;  //  that the client ends with
    const char *words;
} wrong_t;

//  Another process has come in the client's place, and the run goes on: it gets what it missed.
static void
s_go_on (run_t *run, bool average)
{
    if (average)
        s_answer_save (run->peer); //  the merge is over, and was nobody's
    run->site = stage_run (run->stage, "client", "site-0", NULL);
    uint64_t step = s_collect (run->peer, TL_PART);
    const char *kind = strcmp (run->peer->text, "sum") == 0 ? "sum" : "clients";
    s_end (run, kind, step);
}

static void
s_send_wrong (const wrong_t *wrong)
{
    run_t run = s_begin (1, wrong->federate);
    run.peer = peer_join (run.stage, "aggregator", "aggregator");
    uint64_t step = s_collect (run.peer, TL_PART);
    s_send_outcome (run.peer, wrong->kind, step, true);
    s_send_merged (run.peer, wrong->kind, step, &wrong->piece);
    if (wrong->over) {
        peer_wait (run.peer, TL_BYE);
        peer_drop (&run.peer);
        part_wait (run.broker);
    }
    int code = part_wait (run.site);
    const char *said = part_err (wrong->over ? run.broker : run.site);
    if (code != wrong->code || !strstr (said, wrong->words))
        stage_fail (run.stage, "expected code %d of the client and \"%s\", got code %d",
                    wrong->code, wrong->words, code);
    if (wrong->over)
        stage_end (&run.stage);
    else
        s_go_on (&run, strcmp (wrong->kind, "clients") == 0);
}

static void
s_pieces (void)
{
    static const char average[] = "{clients: average, every: 2}", sync[] = "{clients: sync}";
    static const wrong_t cases[] = {
        {average, "clients", GAP, true, 1,
         "clients' adapters of step 2 could not be made one: the a"},
        {average, "clients", JUNK, true, 4, "going back to step 0 failed: "},
        {average, "clients", DAMAGED, false, 2, "MERGED of step 0: a tensor of 100 bytes doesn't"},
        {sync, "sum", GAP, true, 1, "the aggregator's result came in pieces that don't fit"},
        {sync, "sum", JUNK, false, 4, "the summed gradient: "},
        {sync, "sum", DAMAGED, false, 2, "MERGED of step 0: a tensor of 100 bytes doesn't"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        s_send_wrong (&cases[i]);
}

//  The trunk's, of two replicas.
static void
s_trunk (void)
{
    static const wrong_t cases[] = {
        {"", "", GAP, true, 1, "the workers' replicas of step 2 could not be made one: the result"},
        {"", "", DAMAGED, true, 1, "could not be made one: a tensor of 100 bytes doesn't have the"},
        {"", "", JUNK, true, 4, "going back to step 2 failed: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run_t run = s_begin (2, "{every: 2}");
        part_t *site = stage_run (run.stage, "client", "site-1", NULL);
        part_t *worker = stage_run (run.stage, "worker", "trunk-2", NULL);
        run.peer = peer_join (run.stage, "aggregator", "aggregator");
        uint64_t step = s_collect (run.peer, TL_PART);
        s_collect (run.peer, TL_PART);
        s_send_untimely (run.peer, "trunk", step);
        s_send_outcome (run.peer, "trunk", step, true);
        s_send_merged (run.peer, "trunk", step, &cases[i].piece);
        if (cases[i].code == 4)
            s_answer_save (run.peer); //  it looks like a result, until somebody is to go on with it
        peer_wait (run.peer, TL_BYE);
        peer_drop (&run.peer);
        int code = part_wait (run.broker);
        if (code != cases[i].code || !strstr (part_err (run.broker), cases[i].words))
            stage_fail (run.stage, "expected code %d and \"%s\", got code %d", cases[i].code,
                        cases[i].words, code);
        stage_check (run.stage,
                     part_wait (site) == code && part_wait (worker) == code &&
                         part_wait (run.site) == code && part_wait (run.worker) == code,
                     "the same code of all");
        stage_end (&run.stage);
    }
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"average", s_average}, {"sum", s_sum},
                                         {"stale", s_stale},     {"pieces", s_pieces},
                                         {"trunk", s_trunk},     {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
