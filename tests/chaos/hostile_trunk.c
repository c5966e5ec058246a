/*  A worker with a valid key that breaks the rules of PROTOCOL.md in turn, with real clients and a real broker. What can't be
    right ends the client with a sentence, what is merely out of time is ignored, and the run goes on with the next step. */

#include "chaos/peer.h"

#include "file.h"
#include "memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 32, LONG = 1000000 };
#define TUNE "tune: {rank: 4, dropout: 0}\n"

typedef struct {
    stage_t *stage;
    part_t *broker, *site; //  the first client
    peer_t *worker;
} run_t;

//  --- a run whose worker we are

static run_t
s_begin (size_t sites, uint64_t steps, const char *more)
{
    static char settings[640];
    static case_spec_t spec;
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\n"
              "train: {steps: %d, batch_size: 4, micros: 1, max_length: 64, lr: 1e-4}\n"
              "wire: {dtype: fp32, max_message_mb: 1}\n%s"
              "liveness: {ping_ms: 3000, expire_ms: 20000}\n",
              (int)steps, more);
    spec = (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .workers = strstr (more, "fanout") ? 2 : 1,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 100000,
                         .settings = settings};
    return (run_t){.stage = stage_new (&spec)};
}

//  The first client is the first peer: it says which model it is.
static void
s_start (run_t *run, const char *set)
{
    peer_keys (run->stage);
    run->broker = stage_run (run->stage, "broker", NULL, set ? "--set" : NULL, set, NULL);
    run->site = stage_run (run->stage, "client", "site-0", set ? "--set" : NULL, set, NULL);
    part_event (run->site, "ready", NULL, 0);
    run->worker = peer_join (run->stage, "trunk", "worker");
}

//  --- what the worker says

static void
s_to (tl_message_t *message, tl_type_t type, uint64_t step, const char *to)
{
    tl_message_init (message, type);
    message->step = step;
    snprintf (message->sender, sizeof message->sender, "%s", to);
}

static void
s_send_rows (peer_t *worker, tl_type_t type, uint64_t step, uint64_t micro,
             const peer_piece_t *piece, const char *to)
{
    tl_message_t message;
    s_to (&message, type, step, to);
    message.micro = micro;
    peer_send_piece (worker, &message, piece);
}

static void
s_send_good (peer_t *worker, tl_type_t type, uint64_t step, uint64_t rows, const char *to)
{
    s_send_rows (worker, type, step, 0, &(peer_piece_t){TL_W_F32, rows, HIDDEN, 0, NULL, false},
                 to);
}

static void
s_send_committed (peer_t *worker, uint64_t step, uint64_t labels, const char *to)
{
    tl_message_t message;
    s_to (&message, TL_COMMITTED, step, to);
    message.body.committed.labels = labels;
    message.body.committed.norm = 1;
    peer_send (worker, &message, NULL, 0);
}

static void
s_send_answer (peer_t *worker, tl_type_t type, uint64_t step, bool good)
{
    tl_message_t message;
    s_to (&message, type, step, "broker");
    if (type == TL_SAVED) {
        message.body.saved.good = good;
        message.body.saved.text = (char *)"I can't";
    } else {
        message.body.restored.good = good;
        message.body.restored.text = (char *)"me neither";
    }
    peer_send (worker, &message, NULL, 0);
}

static void
s_send_leave (peer_t *worker, uint64_t step, const char *name)
{
    tl_message_t message;
    s_to (&message, TL_LEAVE, step, "broker");
    message.body.leave.name = (char *)name;
    message.body.leave.text = (char *)"I don't like it";
    peer_send (worker, &message, NULL, 0);
}

//  Rows of the open step's only micro, from that client.
static uint64_t
s_wait_rows (peer_t *worker, tl_type_t type)
{
    peer_wait (worker, type);
    return worker->tensor.rows;
}

//  What is left of a step of one client whose ACTIVATION came, as it should be.
static void
s_go_on (peer_t *worker, uint64_t step, uint64_t rows, const char *name)
{
    s_send_good (worker, TL_HIDDEN, step, rows, name);
    peer_wait (worker, TL_GRADIENT);
    s_send_good (worker, TL_GRAD_IN, step, rows, name);
    peer_wait (worker, TL_COMMIT);
    s_send_committed (worker, step, 10, name);
    s_send_committed (worker, step, 10, "broker");
}

static void
s_whole_step (peer_t *worker, const char *name)
{
    uint64_t rows = s_wait_rows (worker, TL_ACTIVATION);
    s_go_on (worker, worker->of_step, rows, name);
}

//  Told to stop, the broker lets the open step commit and has it saved.
static void
s_end (run_t *run)
{
    uint64_t rows = s_wait_rows (run->worker, TL_ACTIVATION), step = run->worker->of_step;
    char name[64];
    snprintf (name, sizeof name, "%s", run->worker->sender);
    part_kill (run->broker, SIGTERM);
    //  What is answered twice was asked after the signal was seen
    peer_expect_alive (run->worker);
    peer_expect_alive (run->worker);
    s_go_on (run->worker, step, rows, name);
    peer_wait (run->worker, TL_SAVE);
    s_send_rows (run->worker, TL_STATE, step + 1, 0,
                 &(peer_piece_t){TL_W_U8, 100, 1, 0, NULL, false}, "broker");
    s_send_answer (run->worker, TL_SAVED, step + 1, true);
    peer_wait (run->worker, TL_BYE);
    peer_drop (&run->worker);
    stage_check (run->stage, part_wait (run->broker) == 0 && part_wait (run->site) == 0,
                 "code 0 of broker and client");
    stage_end (&run->stage);
}

//  The client's next step is that one.
static void
s_expect_step (run_t *run, uint64_t step)
{
    int64_t is = part_int (part_event (run->site, "step", NULL, 0), "step");
    if (is != (int64_t)step)
        stage_fail (run->stage, "expected step %llu of the client, got %lld",
                    (unsigned long long)step, (long long)is);
}

//  --- rows that can't be right

//  Sent instead of what is due. Columns 0: the model's; rows 0: as many as are due, and more.
typedef struct {
    tl_type_t type;
    int code; //  that the client ends with
    const char *words;
    uint64_t more, count; //  of pieces
    peer_piece_t piece[2];
} wrong_t;

static float s_nan[256 * HIDDEN]; //  each is one

static const wrong_t s_wrong[] = {
    {TL_HIDDEN,
     2,
     "came for offset 65536 where 65536 bytes at 0 were due",
     0,
     1,
     {{.rows = 1024, .offset = TL_CHUNK_BYTES}}},
    {TL_HIDDEN, 2, "16 columns where 32 were expected", 0, 1, {{.columns = HIDDEN / 2}}},
    {TL_HIDDEN, 2, "1 columns where 32 were expected", 0, 1, {{.dtype = TL_W_U8, .columns = 1}}},
    {TL_HIDDEN, 2, "doesn't have the checksum", 0, 1, {{.damaged = true}}},
    {TL_HIDDEN, 2, "raise wire.max_message_mb", 0, 1, {{.rows = 10000}}},
    {TL_HIDDEN, 2, "rows came for micro 1 of step", 1, 1, {{.rows = 0}}},
    {TL_HIDDEN,
     2,
     "belongs to another tensor",
     0,
     2,
     {{.rows = 1024}, {.rows = 1025, .offset = TL_CHUNK_BYTES}}},
    {TL_HIDDEN, 2, "where 0 were due", 0, 2, {{.rows = 0}, {.rows = 0}}},
    //  A trunk that blew up sends that, too: lower the learning rate
    {TL_HIDDEN, 4, "the loss's gradient is not finite at step", 0, 1, {{.bytes = s_nan}}},
    {TL_GRAD_IN, 2, "rows came for micro 1 of step", 1, 1, {{.rows = 0}}},
    {TL_GRAD_IN,
     2,
     "came for offset 65536 where 65536 bytes at 0 were due",
     0,
     1,
     {{.rows = 1024, .offset = TL_CHUNK_BYTES}}},
    {TL_GRAD_IN, 2, "where 0 were due", 0, 2, {{.rows = 0}, {.rows = 0}}},
    {TL_GRAD_IN, 4, "the gradient is not finite at step", 0, 1, {{.bytes = s_nan}}},
};

static void
s_send_pieces (peer_t *worker, const wrong_t *wrong, uint64_t step, uint64_t due)
{
    for (size_t i = 0; i < wrong->count; i++) {
        peer_piece_t piece = wrong->piece[i];
        piece.dtype = piece.dtype ? piece.dtype : TL_W_F32;
        piece.rows = piece.rows ? piece.rows : due + wrong->more;
        piece.columns = piece.columns ? piece.columns : HIDDEN;
        s_send_rows (worker, wrong->type, step, 0, &piece, "site-0");
    }
}

//  The client that came last has ended so; the step is over, and another process takes its place.
static void
s_expect_end (run_t *run, uint64_t step, int code, const char *words)
{
    int is = part_wait (run->site);
    if (is != code || !strstr (part_err (run->site), words))
        stage_fail (run->stage, "expected code %d with \"%s\", got code %d", code, words, is);
    peer_wait (run->worker, TL_LEAVE);
    s_send_committed (run->worker, step, 0, "broker");
    run->site = stage_run (run->stage, "client", "site-0", NULL);
}

static void
s_send_wrong (run_t *run, const wrong_t *wrong)
{
    peer_t *worker = run->worker;
    uint64_t rows = s_wait_rows (worker, TL_ACTIVATION), step = worker->of_step;
    if (wrong->type == TL_GRAD_IN) {
        s_send_good (worker, TL_HIDDEN, step, rows, "site-0");
        peer_wait (worker, TL_GRADIENT);
    }
    s_send_pieces (worker, wrong, step, rows);
    s_expect_end (run, step, wrong->code, wrong->words);
}

static void
s_rows (void)
{
    run_t run = s_begin (1, LONG, TUNE);
    s_start (&run, NULL);
    memset (s_nan, 0xff, sizeof s_nan);
    for (size_t i = 0; i < sizeof s_wrong / sizeof *s_wrong; i++)
        s_send_wrong (&run, &s_wrong[i]);
    //  GRAD_IN in the place of HIDDEN
    uint64_t rows = s_wait_rows (run.worker, TL_ACTIVATION), step = run.worker->of_step;
    s_send_good (run.worker, TL_GRAD_IN, step, rows, "site-0");
    s_expect_end (&run, step, 2, "where 0 were due");
    s_whole_step (run.worker, "site-0");
    part_event (run.site, "step", NULL, 0);
    s_end (&run);
}

//  --- what nobody waits for

static void
s_send_strange_rows (peer_t *worker, uint64_t step, uint64_t rows)
{
    static const tl_type_t types[] = {TL_HIDDEN, TL_GRAD_IN};
    const peer_piece_t good = {TL_W_F32, rows, HIDDEN, 0, NULL, false};
    for (size_t i = 0; i < 2; i++) {
        s_send_rows (worker, types[i], step + 1000, 0, &good, "site-0");
        s_send_rows (worker, types[i], step - 1, 0, &good, "site-0");
        s_send_rows (worker, types[i], step, 7, &good, "site-0");
        s_send_rows (worker, types[i], step, 0, &good, "site-9");
        s_send_rows (worker, types[i], step, 0, &good, "trunk");
    }
    s_send_rows (worker, TL_FORWARDED, 3, 0, &good, "site-0");
    s_send_rows (worker, TL_FORWARDED, 3, 0, &good, "site-0/17");
}

static void
s_send_part (peer_t *worker, uint64_t step)
{
    tl_message_t message;
    s_to (&message, TL_PART, step, "broker");
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
        s_to (&message, types[i], step, "site-0");
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
    s_send_committed (worker, step, 10, "site-0"); //  its last GRADIENT isn't even made
    s_send_committed (worker, step + 1000, 10, "site-0");
    s_send_committed (worker, step + 1000, 10, "broker");
    s_send_committed (worker, step - 1, 10, "broker");
    s_send_leave (worker, step + 1000, "site-0");
    s_send_leave (worker, step - 1, "site-0");
    s_send_leave (worker, step, "site-9");
    s_send_leave (worker, step, "trunk");
    s_send_answer (worker, TL_SAVED, step, false);
    s_send_answer (worker, TL_RESTORED, step, false);
    s_send_part (worker, step);
    s_send_part (worker, UINT64_MAX);
    s_send_forbidden (worker, step);
}

static void
s_untimely_as (const char *more)
{
    enum { STEPS = 3 };
    run_t run = s_begin (1, LONG, more);
    s_start (&run, NULL);
    for (uint64_t i = 0; i < STEPS; i++) {
        uint64_t rows = s_wait_rows (run.worker, TL_ACTIVATION);
        s_send_untimely (run.worker, i, rows);
        s_go_on (run.worker, i, rows, "site-0");
        s_send_committed (run.worker, i, 10, "broker"); //  twice
        s_send_committed (run.worker, i, 10, "site-0");
        s_expect_step (&run, i);
    }
    //  The step is said to be over before the client could do anything: it is in the next one
    peer_wait (run.worker, TL_ACTIVATION);
    s_send_committed (run.worker, STEPS, 10, "broker");
    part_log (run.site, "step 4 is dropped: a new plan came");
    s_whole_step (run.worker, "site-0");
    s_expect_step (&run, STEPS + 1);
    part_event (run.broker, "closed", "step", STEPS + 1);
    if (part_count (run.broker, "closed") != STEPS + 2)
        stage_fail (run.stage, "expected %d steps that closed, the broker told of %zu", STEPS + 2,
                    part_count (run.broker, "closed"));
    s_end (&run);
}

static void
s_untimely (void)
{
    s_untimely_as (TUNE);
}

//  A client's PLAN is its own, and its step is named so.
static void
s_untimely_window (void)
{
    s_untimely_as (TUNE "schedule: {join: window}\n");
}

//  Where only the trunk learns, the front waits for no gradient.
static void
s_unwanted (void)
{
    run_t run = s_begin (1, LONG, "tune: {rank: 4, dropout: 0, parts: [trunk]}\n");
    s_start (&run, NULL);
    uint64_t rows = s_wait_rows (run.worker, TL_ACTIVATION);
    s_send_good (run.worker, TL_HIDDEN, 0, rows, "site-0");
    peer_wait (run.worker, TL_COMMIT);
    for (int i = 0; i < 3; i++)
        s_send_good (run.worker, TL_GRAD_IN, 0, rows + 1, "site-0");
    s_send_committed (run.worker, 0, 10, "site-0");
    s_send_committed (run.worker, 0, 10, "broker");
    s_expect_step (&run, 0);
    s_end (&run);
}

//  --- a client that is late

//  One by one: the worker closes the first client's step behind its back, and the second has its turn. What the first still
//  sends comes too late.
static void
s_late (void)
{
    run_t run = s_begin (2, LONG, TUNE "schedule: {mode: serial}\n");
    s_start (&run, NULL);
    part_t *other = stage_run (run.stage, "client", "site-1", NULL);
    uint64_t rows = s_wait_rows (run.worker, TL_ACTIVATION);
    stage_check (run.stage, strcmp (run.worker->sender, "site-0") == 0, "the first one's turn");
    s_send_committed (run.worker, 0, 10, "broker");
    s_send_good (run.worker, TL_HIDDEN, 0, rows, "site-0"); //  it is none the wiser: GRADIENT
    part_log (run.site, "step 1 is dropped: it was closed without us");
    s_whole_step (run.worker, "site-1");
    stage_check (run.stage, part_int (part_event (other, "step", NULL, 0), "step") == 1,
                 "the second one's step");
    s_whole_step (run.worker, "site-0");
    s_expect_step (&run, 2);
    s_end (&run);
}

//  --- states

static void
s_send_state (peer_t *worker, uint64_t step, uint64_t size, uint64_t offset, bool damaged)
{
    s_send_rows (worker, TL_STATE, step, 0,
                 &(peer_piece_t){TL_W_U8, size, 1, offset, NULL, damaged}, "broker");
}

static bool
s_saved_on_disk (const run_t *run, uint64_t step)
{
    char *path = tl_format ("%s/runs/case/broker/save-%08llu.state",
                            stage_case (run->stage)->directory, (unsigned long long)step);
    bool is = tl_exists (path);
    free (path);
    return is;
}

static run_t
s_begin_saving (void)
{
    run_t run = s_begin (1, LONG, TUNE);
    s_start (&run, "checkpoint.every=1");
    s_whole_step (run.worker, "site-0");
    peer_wait (run.worker, TL_SAVE);
    return run;
}

//  STATE of another step than is being saved, and when nothing is.
static void
s_state (void)
{
    run_t run = s_begin_saving ();
    for (uint64_t step = 1; step <= 2; step++) {
        s_send_state (run.worker, 700 + step, 100, 0, false);
        s_send_state (run.worker, step, 100, 0, false);
        s_send_answer (run.worker, TL_SAVED, step, true);
        part_event (run.broker, "saved", "step", (int64_t)step);
        s_send_state (run.worker, 800 + step, 100, 0, false);
        s_send_state (run.worker, 900 + step, 200000, TL_CHUNK_BYTES, false);
        s_send_answer (run.worker, TL_SAVED, step, false);
        s_whole_step (run.worker, "site-0");
        peer_wait (run.worker, TL_SAVE);
    }
    stage_check (run.stage, s_saved_on_disk (&run, 1) && s_saved_on_disk (&run, 2),
                 "the saves that were asked for");
    stage_check (run.stage,
                 !s_saved_on_disk (&run, 701) && !s_saved_on_disk (&run, 702) &&
                     !s_saved_on_disk (&run, 801) && !s_saved_on_disk (&run, 802),
                 "no other");
    s_send_state (run.worker, 3, 100, 0, false);
    part_event (run.broker, "saved", "step", 3);
    s_end (&run);
}

//  The answer to SAVE, in pieces that are none.
static void
s_bad_state (void)
{
    static const struct {
        uint64_t offset;
        bool damaged;
        const char *words;
    } cases[] = {{TL_CHUNK_BYTES, false, "step 1 could not be saved: the trunk's state came in"},
                 {0, true, "step 1 could not be saved: a tensor of 100 bytes doesn't have the"}};
    for (size_t i = 0; i < 2; i++) {
        run_t run = s_begin_saving ();
        s_send_state (run.worker, 1, cases[i].offset ? 200000 : 100, cases[i].offset,
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
s_period (run_t *run, const char *its, const char *others)
{
    const peer_piece_t junk = {TL_W_U8, 100, 1, 0, NULL, false};
    peer_t *worker = run->worker;
    uint64_t rows = s_wait_rows (worker, TL_ACTIVATION), step = worker->of_step;
    s_send_leave (worker, step, others);
    s_send_good (worker, TL_HIDDEN, step, rows, others);
    s_send_good (worker, TL_GRAD_IN, step, rows, others);
    s_send_committed (worker, step, 10, others);
    s_go_on (worker, step, rows, its);
    s_whole_step (worker, its);
    peer_wait (worker, TL_GATHER);
    tl_message_t message;
    for (int i = 0; i < 2; i++) {
        s_to (&message, TL_PART, worker->of_step, "broker");
        message.body.part.kind = (char *)"trunk";
        message.body.part.labels = 1;
        peer_send_piece (worker, &message, &junk);
    }
}

static void
s_groups (void)
{
    run_t run =
        s_begin (2, LONG, TUNE "schedule: {mode: fanout}\nfederate: {every: 2, quorum: 1}\n");
    s_start (&run, NULL);
    part_t *sites[2] = {run.site, stage_run (run.stage, "client", "site-1", NULL)};
    part_t *honest = stage_run (run.stage, "worker", "trunk-2", NULL);
    part_t *aggregator = stage_run (run.stage, "aggregator", NULL, NULL);
    peer_wait (run.worker, TL_PLAN);
    bool second = strcmp (run.worker->member, "site-1") == 0;
    s_period (&run, second ? "site-1" : "site-0", second ? "site-0" : "site-1");
    const char *text = part_text (part_event_of (run.broker, "merged", "kind", "trunk"), "text");
    stage_check (run.stage, strstr (text, "trunk is left out: ") != NULL, "left out by name");
    peer_wait (run.worker, TL_RESTORE);
    s_send_answer (run.worker, TL_RESTORED, run.worker->of_step, true);
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

//  --- held-out text

//  A run of one step, up to the FORWARD of its only client.
static run_t
s_begin_scoring (void)
{
    run_t run = s_begin (1, 1, TUNE);
    const char *directory = stage_case (run.stage)->directory;
    //  Few enough for one request of one chunk
    char *command = tl_format ("head -n 2 %s/0.jsonl > %s/short.jsonl", directory, directory);
    char *set = tl_format ("clients.0.eval=%s/short.jsonl", directory);
    stage_check (run.stage, system (command) == 0, command);
    s_start (&run, set);
    free (command);
    free (set);
    s_whole_step (run.worker, "site-0");
    peer_wait (run.worker, TL_SAVE);
    s_send_state (run.worker, 1, 100, 0, false);
    s_send_answer (run.worker, TL_SAVED, 1, true);
    peer_wait (run.worker, TL_FORWARD);
    return run;
}

static void
s_forwarded (void)
{
    static const wrong_t cases[] = {
        {TL_FORWARDED, 0, "", 0, 2, {{.rows = 0}, {.rows = 0}}}, //  twice: ignored
        {TL_FORWARDED, 2, "FORWARDED 1", 0, 1, {{.damaged = true}}},
        {TL_FORWARDED, 2, "FORWARDED 1", 0, 1, {{.rows = 1024, .offset = TL_CHUNK_BYTES}}},
        {TL_FORWARDED, 2, "rows came", 1, 1, {{.rows = 0}}},
        {TL_FORWARDED, 4, "not finite", 0, 1, {{.bytes = s_nan}}},
    };
    memset (s_nan, 0xff, sizeof s_nan);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run_t run = s_begin_scoring ();
        uint64_t rows = run.worker->tensor.rows, request = run.worker->of_step;
        s_send_pieces (run.worker, &cases[i], request + 7, rows); //  of no request: ignored
        s_send_pieces (run.worker, &cases[i], request, rows);
        peer_wait (run.worker, TL_BYE);
        peer_drop (&run.worker);
        int code = part_wait (run.site);
        if (code != cases[i].code || !strstr (part_err (run.site), cases[i].words))
            stage_fail (run.stage, "case %zu: expected code %d with \"%s\", got code %d", i,
                        cases[i].code, cases[i].words, code);
        stage_check (run.stage, part_wait (run.broker) == 0, "code 0 of the broker");
        stage_end (&run.stage);
    }
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"rows", s_rows},
                                         {"untimely", s_untimely},
                                         {"untimely_window", s_untimely_window},
                                         {"unwanted", s_unwanted},
                                         {"groups", s_groups},
                                         {"late", s_late},
                                         {"state", s_state},
                                         {"bad_state", s_bad_state},
                                         {"forwarded", s_forwarded},
                                         {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
