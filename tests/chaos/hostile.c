/*  A peer with a valid client's key that breaks every rule of PROTOCOL.md in turn, beside an honest client in
    the same steps. Each breach gets the answer of section 7; broker and worker live through all of it, and the
    honest client's steps go on.                                                                    */

#include "chaos/peer.h"

#include "file.h"
#include "memory.h"
#include "messages/tensor_wire.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 32, ROWS = PEER_ROWS, MICROS = 2, BATCH = 4 };

static pid_t s_worker;   //  of the run, to be stopped for a moment
static part_t *s_honest; //  of the run, whose own label tokens are known

//  --- what it sends

static float s_rows[BATCH * 64 * HIDDEN];

static tl_tensor_wire_t
s_tensor (size_t rows, size_t columns)
{
    tl_packed_t *packed = tl_pack (s_rows, rows, columns, TL_W_F32);
    tl_tensor_wire_t tensor;
    tl_packed_release ((void *)tl_packed_chunk (packed, 0, &tensor), packed);
    tl_packed_destroy (&packed);
    return tensor;
}

typedef struct {
    uint64_t step, micro;
    size_t rows, columns, count;
    tl_sequence_t sequence; //  each of count
} activation_t;

//  One that nothing is wrong with.
static activation_t
s_good (const peer_t *self, uint64_t micro)
{
    return (activation_t){self->step, micro, ROWS, HIDDEN, 1, {ROWS, 0, 0, 0}};
}

static void
s_send_activation (peer_t *self, const activation_t *it)
{
    tl_sequence_t sequences[64];
    for (size_t i = 0; i < it->count && i < 64; i++)
        sequences[i] = it->sequence;
    tl_message_t message;
    tl_message_init (&message, TL_ACTIVATION);
    message.step = it->step;
    message.micro = it->micro;
    message.body.activation.tensor = s_tensor (it->rows, it->columns);
    message.body.activation.sequences = sequences;
    message.body.activation.sequences_count = it->count;
    peer_send (self, &message, s_rows, it->rows * it->columns * sizeof (float));
}

static void
s_send_gradient (peer_t *self, uint64_t micro, size_t rows, uint64_t labels)
{
    tl_message_t message;
    tl_message_init (&message, TL_GRADIENT);
    message.step = self->step;
    message.micro = micro;
    message.body.gradient.tensor = s_tensor (rows, HIDDEN);
    message.body.gradient.labels = labels;
    peer_send (self, &message, s_rows, rows * HIDDEN * sizeof (float));
}

static void
s_send_commit (peer_t *self, uint64_t step, bool squares)
{
    tl_square_t square = {1, 1e300};
    tl_message_t message;
    tl_message_init (&message, TL_COMMIT);
    message.step = step;
    message.body.commit.labels = 1000; //  contradicts its GRADIENTs, which are what counts
    message.body.commit.squares = &square;
    message.body.commit.squares_count = squares ? 1 : 0;
    peer_send (self, &message, NULL, 0);
}

//  --- breaches of the step's rules: each ends the session with a sentence

static void
s_wrong_activation (stage_t *stage, activation_t wrong, const char *words)
{
    peer_t *peer = peer_join (stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    wrong.step = peer->step;
    s_send_activation (peer, &wrong);
    peer_expect_bye (peer, words);
    peer_drop (&peer);
}

static void
s_wrong_activations (stage_t *stage)
{
    static const struct {
        activation_t wrong;
        const char *words;
    } cases[] = {
        {{0, 0, ROWS, HIDDEN, 1, {ROWS + 1, 0, 0, 0}}, "came with 4 rows"},
        {{0, 0, ROWS, HIDDEN, 1, {ROWS, ROWS + 1, 0, 0}}, "context 5"},
        {{0, 0, ROWS, HIDDEN, 1, {ROWS, 0, 1000000, 0}}, "mask position 1000000"},
        {{0, 0, ROWS, HIDDEN, 1, {0, 0, 0, 0}}, "length 0"},
        {{0, 0, ROWS, HIDDEN, 1, {UINT64_MAX, 0, 0, 0}}, "length"},
        {{0, 0, ROWS, HIDDEN, 0, {ROWS, 0, 0, 0}}, "0 sequences"},
        {{0, 0, ROWS, HIDDEN / 2, 1, {ROWS, 0, 0, 0}}, "columns"},
        {{0, 0, 2 * BATCH, HIDDEN, 2 * BATCH, {1, 0, 0, 0}}, "train.batch_size"},
        {{0, 0, 65, HIDDEN, 1, {65, 0, 0, 0}}, "train.max_length"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        s_wrong_activation (stage, cases[i].wrong, cases[i].words);
    s_rows[5] = 0.0f / 0.0f;
    s_wrong_activation (stage, (activation_t){0, 0, ROWS, HIDDEN, 1, {ROWS, 0, 0, 0}},
                        "finite numbers");
    s_rows[5] = 0;
}

//  GRADIENTs of other rows, of more label tokens than rows, of NaN.
static void
s_wrong_gradients (stage_t *stage)
{
    static const char *const words[] = {"its GRADIENT has 3 rows", "label tokens",
                                        "finite numbers"};
    for (int i = 0; i < 3; i++) {
        peer_t *peer = peer_join (stage, "site-1", "client");
        peer_wait (peer, TL_PLAN);
        s_send_gradient (peer, 0, ROWS, 1); //  early: ignored
        activation_t good = s_good (peer, 0);
        s_send_activation (peer, &good);
        peer_wait (peer, TL_HIDDEN);
        stage_check (stage, peer->rows == ROWS && peer->micro == 0, "its rows back");
        s_rows[7] = i == 2 ? 1.0f / 0.0f : 0;
        s_send_gradient (peer, 0, i == 0 ? ROWS - 1 : ROWS, i == 1 ? ROWS + 1 : 2);
        s_rows[7] = 0;
        peer_expect_bye (peer, words[i]);
        peer_drop (&peer);
    }
}

//  --- what is merely out of time or said twice: no harm, and the step commits

static void
s_whole_step (stage_t *stage)
{
    peer_t *peer = peer_join (stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    uint64_t step = peer->step;
    activation_t late = s_good (peer, 0);
    late.step = step - 1;
    s_send_activation (peer, &late);
    peer_wait (peer, TL_LATE);
    stage_check (stage, peer->of_step == step - 1 && peer->current == step, "LATE of the past");
    late.step = step + 1000000;
    s_send_activation (peer, &late);
    peer_wait (peer, TL_LATE);
    stage_check (stage, peer->of_step == step + 1000000, "LATE of the future");
    late.step = step;
    late.micro = MICROS;
    s_send_activation (peer, &late);
    peer_wait (peer, TL_LATE);

    for (uint64_t micro = 0; micro < MICROS; micro++) {
        activation_t good = s_good (peer, micro);
        s_send_activation (peer, &good);
        s_send_activation (peer, &good); //  twice: ignored
        peer_wait (peer, TL_HIDDEN);
        s_send_activation (peer, &good);
        s_send_gradient (peer, micro, ROWS, 2);
        s_send_gradient (peer, micro, ROWS, 3); //  contradicts the first: ignored
    }
    //  Squares where the norm is everybody's own: they must not count
    s_send_commit (peer, step, true);
    s_send_commit (peer, step, false);
    peer_wait (peer, TL_COMMITTED);
    const json_t *honest = part_event (s_honest, "step", "step", (int64_t)step);
    stage_check (stage, part_int (honest, "step") == (int64_t)step, "the honest client's step");
    if (peer->of_step != step || peer->labels != 2 * MICROS + (uint64_t)part_int (honest, "labels"))
        stage_fail (stage, "COMMITTED of step %llu with N %llu, expected of %llu with %lld + %d",
                    (unsigned long long)peer->of_step, (unsigned long long)peer->labels,
                    (unsigned long long)step, (long long)part_int (honest, "labels"), 2 * MICROS);
    s_send_commit (peer, step, false);
    peer_wait (peer, TL_COMMITTED);
    stage_check (stage, peer->of_step == step, "the same COMMITTED again");
    peer_leave (&peer);
}

//  join: window. What it says before a step has it is kept if it is rows, and dropped if it is anything else; all answers name the
//  step as its PLAN did.
static void
s_window_step (stage_t *stage)
{
    peer_t *peer = peer_join (stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    uint64_t step = peer->step;
    s_send_gradient (peer, 0, ROWS, 2);
    s_send_commit (peer, step, false);
    activation_t other = s_good (peer, 1);
    s_send_activation (peer, &other); //  the second micro first: it isn't ready for that
    s_send_activation (peer, &other);
    other.micro = 0;
    s_send_activation (peer, &other);
    s_send_activation (peer, &other);
    for (uint64_t micro = 0; micro < MICROS; micro++) {
        peer_wait (peer, TL_HIDDEN);
        stage_check (stage, peer->of_step == step && peer->micro == micro, "its rows, of its step");
        s_send_gradient (peer, micro, ROWS, 2);
    }
    s_send_commit (peer, step, false);
    peer_wait (peer, TL_COMMITTED);
    stage_check (stage, peer->of_step == step && peer->labels >= 2 * MICROS,
                 "COMMITTED of the step as its PLAN named it");
    peer_wait (peer, TL_PLAN);
    stage_check (stage, peer->step > step, "the next PLAN has another name");
    other.step = step;
    s_send_activation (peer, &other);
    peer_wait (peer, TL_LATE);
    stage_check (stage, peer->of_step == step && peer->current >= peer->step, "LATE of the past");
    peer_leave (&peer); //  with a PLAN, and nothing sent
    peer = peer_join (stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    other = s_good (peer, 1);
    s_send_activation (peer, &other);
    peer_drop (&peer); //  while rows of it are kept
}

//  --- the link

static void
s_broken_links (stage_t *stage)
{
    tl_message_t message;
    //  A gap: attach again
    peer_t *peer = peer_join (stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    peer->sequence += 5;
    s_send_commit (peer, peer->step, false);
    peer_wait (peer, TL_INVALID);
    stage_check (stage, !peer->expired, "INVALID: attach again");
    //  Whoever missed it is told again: nothing else would ever get that link going
    peer_wait (peer, TL_INVALID);
    stage_check (stage, !peer->expired, "INVALID again");
    peer_expect_alive (peer);
    peer_leave (&peer);

    //  An ack of what was never sent, a sequence of 0, an ATTACH that claims too much: the session ends
    for (int i = 0; i < 3; i++) {
        peer = peer_join (stage, "site-1", "client");
        peer_wait (peer, TL_PLAN);
        tl_message_init (&message, i == 2 ? TL_ATTACH : TL_COMMIT);
        message.step = peer->step;
        message.sequence = i == 0 ? 1 : 0;
        message.ack = i == 0 ? 1000 : 0;
        if (i == 2) {
            message.body.attach.session = peer->session;
            message.body.attach.session_size = 16;
            message.body.attach.received = 1000;
        }
        peer_send_as (peer, peer->data, &message, NULL, 0);
        peer_wait (peer, TL_INVALID);
        stage_check (stage, peer->expired, "INVALID: the session is gone");
        peer_drop (&peer);
    }

    //  More bytes than were granted, before any could be released
    peer = peer_join (stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    static char chunk[TL_CHUNK_LEAST];
    tl_packed_t *packed = tl_pack (chunk, sizeof chunk, 1, TL_W_U8);
    tl_message_init (&message, TL_ACTIVATION);
    message.step = peer->step;
    tl_packed_release ((void *)tl_packed_chunk (packed, 0, &message.body.activation.tensor),
                       packed);
    tl_packed_destroy (&packed);
    kill (s_worker, SIGSTOP);
    for (uint64_t sent = 0; sent <= 2 * peer->window; sent += sizeof chunk)
        peer_send (peer, &message, chunk, sizeof chunk);
    peer_wait (peer, TL_INVALID);
    kill (s_worker, SIGCONT);
    peer_drop (&peer);
}

//  --- what is no message, or not one of a client's

static void
s_nonsense (stage_t *stage)
{
    static const char junk[] = "\x9b\x01this is not the protocol";
    for (int i = 0; i < 3; i++) {
        peer_t *peer = peer_join (stage, "site-1", "client");
        if (i < 2)
            peer_put (peer, i ? peer->data : peer->control, junk, sizeof junk, NULL, 0);
        else {
            //  A payload of another size than was announced
            peer_wait (peer, TL_PLAN);
            tl_message_t message;
            tl_message_init (&message, TL_ACTIVATION);
            message.step = peer->step;
            tl_sequence_t sequence = {ROWS, 0, 0, 0};
            message.body.activation.tensor = s_tensor (ROWS, HIDDEN);
            message.body.activation.sequences = &sequence;
            message.body.activation.sequences_count = 1;
            peer_send (peer, &message, s_rows, 12);
        }
        peer_expect_bye (peer, "");
        stage_check (stage, strlen (peer->text) > 10, "a sentence");
        peer_drop (&peer);
    }
    //  Before any HELLO
    peer_t *peer = peer_connect (stage, "site-1", "client");
    peer_put (peer, peer->control, junk, sizeof junk, NULL, 0);
    peer_wait (peer, TL_REFUSED);
    peer_put (peer, peer->data, junk, sizeof junk, NULL, 0);
    peer_hello (peer, "worker", 1);
    peer_wait (peer, TL_REFUSED);
    stage_check (stage, strstr (peer->text, "can't act as worker"), "a role its key doesn't have");
    peer_hello (peer, "admin", 1);
    peer_wait (peer, TL_REFUSED);
    stage_check (stage, strstr (peer->text, "can't act as admin"), "a role its key doesn't have");
    peer_drop (&peer);
    //  A frame beyond what the sockets take ends the connection; the broker has forgotten it
    peer = peer_join (stage, "site-1", "client");
    char *huge = tl_alloc (3 << 20);
    peer_put (peer, peer->data, huge, 3 << 20, NULL, 0);
    free (huge);
    peer_expect_alive (peer);
    peer_leave (&peer);
}

static void
s_wrong_author (stage_t *stage)
{
    static const tl_type_t types[] = {TL_HIDDEN,  TL_GRAD_IN, TL_COMMITTED, TL_STATE,  TL_PLAN,
                                      TL_RESTORE, TL_SAVE,    TL_ABANDON,   TL_LEAVE,  TL_FINISH,
                                      TL_LATE,    TL_STATUS,  TL_STOP,      TL_REPORT, TL_WELCOME};
    peer_t *peer = peer_join (stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        tl_message_t message;
        tl_message_init (&message, types[i]);
        message.step = peer->step;
        tl_tensor_wire_t *tensor = (tl_tensor_wire_t *)tl_message_tensor (&message);
        uint8_t session[16] = {0};
        if (tensor)
            *tensor = s_tensor (ROWS, HIDDEN);
        if (types[i] == TL_WELCOME) {
            message.body.welcome.session = session;
            message.body.welcome.session_size = 16;
        }
        //  Not counted on the link: what its author may not send is no part of it
        message.sequence = peer->sequence + 1;
        peer_send_as (peer, i % 2 ? peer->control : peer->data, &message, tensor ? s_rows : NULL,
                      ROWS * HIDDEN * sizeof (float));
    }
    peer_expect_alive (peer);
    //  Answers that nobody asked for
    tl_message_t message;
    tl_message_init (&message, TL_SAVED);
    message.step = peer->step;
    message.body.saved.good = false;
    message.body.saved.text = (char *)"I can't";
    peer_send (peer, &message, NULL, 0);
    tl_message_init (&message, TL_RESTORED);
    message.body.restored.code = TL_FAILED;
    message.body.restored.text = (char *)"me neither";
    peer_send (peer, &message, NULL, 0);
    tl_message_init (&message, TL_FINISHED);
    peer_send (peer, &message, NULL, 0);
    peer_expect_alive (peer);
    peer_leave (&peer);
}

//  --- sessions

static void
s_sessions (stage_t *stage)
{
    peer_t *one = peer_join (stage, "site-1", "client"),
           *two = peer_join (stage, "site-2", "client");
    uint8_t nobody[16] = {1, 2, 3};
    peer_attach (one, two->session); //  another client's
    peer_wait (one, TL_INVALID);
    stage_check (stage, one->expired, "another's session is none");
    peer_attach (one, nobody);
    peer_wait (one, TL_INVALID);
    stage_check (stage, one->expired, "no such session");
    peer_expect_alive (two);
    peer_leave (&two);
    //  Hundreds of sessions over one connection: one stays
    for (uint64_t i = 0; i < 300; i++) {
        peer_hello (one, "reader", 5000 + i);
        peer_wait (one, TL_WELCOME);
    }
    part_t *status = stage_verb (stage, "status", "--format", "json", NULL);
    stage_check (stage, part_wait (status) == 0, "status answers");
    json_error_t error;
    json_t *report = json_loads (part_out (status), 0, &error), *it;
    size_t i, sessions = 0;
    json_array_foreach (json_object_get (report, "peers"), i, it) sessions +=
        strcmp (part_text (it, "state"), "left") != 0;
    stage_check (stage, sessions <= 3, "few sessions");
    json_decref (report);
    peer_drop (&one);
}

static void
s_reader (stage_t *stage)
{
    peer_t *reader = peer_join (stage, "site-1", "reader");
    reader->step = 3;
    activation_t good = s_good (reader, 0);
    s_send_activation (reader, &good);
    s_send_commit (reader, 3, false);
    tl_sequence_t sequence = {ROWS, 0, 0, 0};
    for (int i = 0; i < 3; i++) {
        //  Two requests that are wrong, which are dropped, and one that is answered
        sequence.length = i == 0 ? ROWS + 1 : ROWS;
        tl_message_t message;
        tl_message_init (&message, TL_FORWARD);
        message.step = (uint64_t)i + 1;
        message.body.forward.tensor = s_tensor (ROWS, i == 1 ? HIDDEN / 2 : HIDDEN);
        message.body.forward.sequences = &sequence;
        message.body.forward.sequences_count = 1;
        peer_send (reader, &message, s_rows,
                   ROWS * (i == 1 ? HIDDEN / 2 : HIDDEN) * sizeof (float));
    }
    peer_wait (reader, TL_FORWARDED);
    stage_check (stage, reader->of_step == 3, "the good request is answered");
    peer_expect_alive (reader);
    peer_leave (&reader);
}

//  --- the test

static long
s_resident_kb (pid_t pid)
{
    char path[64], line[256];
    long kb = 0;
    snprintf (path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen (path, "r");
    while (file && fgets (line, sizeof line, file))
        sscanf (line, "VmRSS: %ld", &kb);
    if (file)
        fclose (file);
    return kb;
}

typedef struct {
    stage_t *stage;
    part_t *broker, *worker, *honest, *aggregator; //  aggregator: NULL where there is none
} run_t;

static run_t
s_begin (int expire_ms, const char *join)
{
    static char settings[512];
    static case_spec_t spec;
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: 1000000, batch_size: %d, micros: %d, max_length: 64, lr: 1e-4}\n"
              "wire: {dtype: fp32}\nliveness: {ping_ms: %d, expire_ms: %d}\nschedule: {join: %s}\n",
              BATCH, MICROS, expire_ms / 6, expire_ms, join);
    spec = (case_spec_t){.model = tiny_llama (false),
                         .sites = 3,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = 1000000,
                         .save_every = 100000,
                         .settings = settings};
    run_t run = {.stage = stage_new (&spec)};
    part_t *make = stage_up (run.stage, "--set", "train.steps=1", NULL); //  makes the keys
    stage_check (run.stage, part_wait (make) == 0, "code 0");
    run.broker = stage_run (run.stage, "broker", NULL, NULL);
    run.worker = stage_run (run.stage, "worker", "trunk", NULL);
    s_worker = part_pid (run.worker);
    s_honest = run.honest = stage_run (run.stage, "client", "site-0", NULL);
    part_event (run.honest, "ready", NULL, 0);
    //  The first step waits for all: both come, and go
    peer_t *one = peer_join (run.stage, "site-1", "client"),
           *two = peer_join (run.stage, "site-2", "client");
    peer_wait (one, TL_PLAN);
    peer_wait (two, TL_PLAN);
    stage_check (run.stage, one->discreet && two->discreet, "a PLAN that tells a client of itself");
    peer_leave (&one);
    peer_leave (&two);
    part_event (run.honest, "step", "step", 1);
    return run;
}

//  The honest client goes on, with figures as they were.
static void
s_check_honest (run_t *run)
{
    size_t count = part_count (run->honest, "step");
    const json_t *step = part_at (run->honest, count);
    for (int i = 0; i < 5; i++)
        step = part_event (run->honest, "step", NULL, 0);
    double loss = json_number_value (json_object_get (step, "loss"));
    double norm = json_number_value (json_object_get (step, "norm"));
    if (!(loss > 0 && loss < 10 && norm > 0 && norm < 100))
        stage_fail (run->stage, "the honest client's loss is %g and norm %g", loss, norm);
    stage_check (run->stage, part_alive (run->broker) && part_alive (run->worker), "all alive");
}

static void
s_end (run_t *run)
{
    part_kill (run->broker, SIGTERM);
    stage_check (run->stage,
                 part_wait (run->broker) == 0 && part_wait (run->worker) == 0 &&
                     part_wait (run->honest) == 0 &&
                     (!run->aggregator || part_wait (run->aggregator) == 0),
                 "code 0 of all");
    stage_end (&run->stage);
}

static void
s_all (void)
{
    static void (*const attacks[]) (stage_t *) = {
        s_whole_step,   s_wrong_activations, s_wrong_gradients, s_broken_links, s_nonsense,
        s_wrong_author, s_sessions,          s_reader,          s_whole_step};
    run_t run = s_begin (20000, "all");
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        attacks[i](run.stage);
        s_check_honest (&run);
    }
    s_end (&run);
}

//  Takes part and asks for ever more, takes nothing of what it is sent: it is dropped, and what the broker holds stays small.
static void
s_window (void)
{
    static void (*const attacks[]) (stage_t *) = {
        s_window_step, s_wrong_activations, s_wrong_gradients, s_broken_links,
        s_nonsense,    s_sessions,          s_reader,          s_window_step};
    run_t run = s_begin (20000, "window");
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        attacks[i](run.stage);
        s_check_honest (&run);
    }
    s_end (&run);
}

static void
s_deaf (void)
{
    run_t run = s_begin (1500, "all");
    long before = s_resident_kb (part_pid (run.broker));
    peer_t *peer = peer_join (run.stage, "site-1", "reader");
    peer->deaf = true;
    tl_message_t message;
    tl_sequence_t sequences[BATCH];
    size_t rows = BATCH * 64;
    for (size_t i = 0; i < BATCH; i++)
        sequences[i] = (tl_sequence_t){64, 0, 0, i};
    tl_message_init (&message, TL_FORWARD);
    message.body.forward.tensor = s_tensor (rows, HIDDEN);
    message.body.forward.sequences = sequences;
    message.body.forward.sequences_count = BATCH;
    //  As far as its window goes, and not a byte of the answers is released
    for (uint64_t sent = 0; sent + rows * HIDDEN * sizeof (float) <= peer->window;
         sent += rows * HIDDEN * sizeof (float)) {
        message.step++;
        peer_send (peer, &message, s_rows, rows * HIDDEN * sizeof (float));
    }
    peer_expect_alive (peer); //  it lives, as far as PING can tell
    s_check_honest (&run);
    peer_wait (peer, TL_FORWARDED);
    //  It goes on saying PING until its session is over
    while (!strstr (part_err (run.broker), "takes nothing of what it is sent")) {
        peer_ping (peer);
        part_event (run.honest, "step", NULL, 0);
    }
    long after = s_resident_kb (part_pid (run.broker));
    if (after - before > 32 << 10)
        stage_fail (run.stage, "the broker grew from %ld to %ld kB", before, after);
    peer_drop (&peer);
    s_check_honest (&run);
    s_end (&run);
}

//  Where nobody but the clients computes, a COMMIT is all that a worker hears of a step.
static void
s_none (void)
{
    const case_spec_t spec = {
        .model = tiny_llama (false),
        .sites = 2,
        .examples = 16,
        .letters = {40, 24},
        .steps = 1000000,
        .save_every = 100000,
        .settings = "split: none\ntune: {rank: 4, dropout: 0}\n"
                    "train: {steps: 1000000, batch_size: 4, micros: 1, max_length: 64, lr: 1e-4}\n"
                    "federate: {every: 1000000, clients: average}\n"};
    run_t run = {.stage = stage_new (&spec)};
    part_t *make = stage_up (run.stage, "--set", "train.steps=1", NULL); //  makes the keys
    stage_check (run.stage, part_wait (make) == 0, "code 0");
    run.broker = stage_run (run.stage, "broker", NULL, NULL);
    run.worker = stage_run (run.stage, "worker", "trunk", NULL);
    run.aggregator = stage_run (run.stage, "aggregator", NULL, NULL);
    run.honest = stage_run (run.stage, "client", "site-0", NULL);
    peer_t *peer = peer_join (run.stage, "site-1", "client");
    peer_wait (peer, TL_PLAN);
    tl_message_t message;
    tl_message_init (&message, TL_COMMIT);
    message.step = peer->step;
    message.body.commit.labels = 4 * 64 + 1;
    peer_send (peer, &message, NULL, 0);
    peer_expect_bye (peer, "its COMMIT counts 257 label tokens, a step has at most 256");
    peer_drop (&peer);
    for (int i = 0; i < 5; i++)
        part_event (run.honest, "step", NULL, 0);
    s_end (&run);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"all", s_all}, {"window", s_window}, {"deaf", s_deaf}, {"none", s_none}, {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
