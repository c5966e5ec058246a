/*  A peer with a valid client's key that breaks every rule of PROTOCOL.md in turn, beside an honest client in
    the same steps. Each breach gets the answer of section 7; broker and worker live through all of it, and the
    honest client's steps go on.                                                                    */

#include "chaos/stage.h"

#include "actors/agreement.h"
#include "clock.h"
#include "file.h"
#include "memory.h"
#include "messages/tensor_wire.h"
#include "net/socket.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_MS = 40000, HIDDEN = 32, ROWS = 4, MICROS = 2, BATCH = 4 };

static pid_t s_worker; //  of the run, to be stopped for a moment

//  --- the peer

typedef struct {
    stage_t *stage;
    void *context;
    tl_socket_t *control, *data;
    char name[32];
    uint8_t session[16];
    uint64_t run, window;
    uint64_t sequence; //  last one sent
    uint64_t received; //  last one that came, which is what we ack
    bool deaf;         //  acks nothing
    uint64_t step;     //  of the last PLAN
    //  Of the last message that was waited for
    tl_type_t type;
    uint64_t of_step, micro, code, current, labels, rows;
    bool expired;
    char text[1100];
} peer_t;

static void
s_put (peer_t *self, tl_socket_t *socket, const void *frame, size_t size, const void *payload,
       size_t payload_size)
{
    int64_t deadline = tl_clock_ms () + DEADLINE_MS;
    zmq_msg_t message;
    if (payload) {
        zmq_msg_init_size (&message, payload_size);
        memcpy (zmq_msg_data (&message), payload, payload_size);
    }
    while (tl_socket_send (socket, NULL, frame, size, payload ? &message : NULL)) {
        zmq_pollitem_t item = {.socket = tl_socket_zmq (socket), .events = ZMQ_POLLOUT};
        int64_t left = deadline - tl_clock_ms ();
        if (left <= 0 || zmq_poll (&item, 1, left) < 0)
            stage_fail (self->stage, "%s could not send", self->name);
    }
}

//  As it is: whatever is in it.
static void
s_send_as (peer_t *self, tl_socket_t *socket, tl_message_t *message, const void *payload,
           size_t size)
{
    message->run = self->run;
    if (!*message->sender)
        snprintf (message->sender, sizeof message->sender, "%s", self->name);
    size_t bytes;
    void *frame = tl_message_encode (message, &bytes);
    s_put (self, socket, frame, bytes, payload, size);
    free (frame);
}

//  On the link, in order.
static void
s_send (peer_t *self, tl_message_t *message, const void *payload, size_t size)
{
    message->sequence = ++self->sequence;
    message->ack = self->deaf ? 0 : self->received;
    s_send_as (self, self->data, message, payload, size);
}

static void
s_note (peer_t *self, const tl_message_t *message)
{
    self->type = message->type;
    self->of_step = message->step;
    self->micro = message->micro;
    self->text[0] = 0;
    const tl_body_t *body = &message->body;
    const char *text = "";
    switch (message->type) {
    case TL_WELCOME:
        memcpy (self->session, body->welcome.session, 16);
        self->run = message->run;
        self->window = body->welcome.window_bytes;
        break;
    case TL_PLAN:
        self->step = message->step;
        break;
    case TL_BYE:
        self->code = body->bye.code;
        text = body->bye.text;
        break;
    case TL_INVALID:
        self->expired = body->invalid.expired;
        text = body->invalid.text;
        break;
    case TL_REFUSED:
        text = body->refused.text;
        break;
    case TL_LATE:
        self->current = body->late.current;
        break;
    case TL_COMMITTED:
        self->labels = body->committed.labels;
        break;
    case TL_HIDDEN:
        self->rows = body->hidden.tensor.rows;
        break;
    default:
        break;
    }
    snprintf (self->text, sizeof self->text, "%s", text ? text : "");
}

//  Takes one message in if there is one; true if it is of that type.
static bool
s_take (peer_t *self, tl_socket_t *socket, tl_type_t type)
{
    tl_packet_t packet;
    if (tl_socket_receive (socket, &packet) != 1)
        return false;
    tl_message_t message;
    tl_error_t err;
    if (tl_message_decode (&message, zmq_msg_data (&packet.envelope),
                           zmq_msg_size (&packet.envelope), &err))
        stage_fail (self->stage, "the broker sent nonsense: %s", err.text);
    if (message.sequence)
        self->received = message.sequence;
    if (message.type == TL_PING) {
        tl_message_t pong;
        tl_message_init (&pong, TL_PONG);
        pong.body.pong.nonce = message.body.ping.nonce;
        s_send_as (self, self->control, &pong, NULL, 0);
    }
    bool wanted = message.type == type;
    if (wanted || message.type == TL_PLAN)
        s_note (self, &message);
    tl_message_clear (&message);
    tl_packet_close (&packet);
    return wanted;
}

static void
s_wait (peer_t *self, tl_type_t type)
{
    int64_t deadline = tl_clock_ms () + DEADLINE_MS;
    for (;;) {
        zmq_pollitem_t items[2] = {{.socket = tl_socket_zmq (self->control), .events = ZMQ_POLLIN},
                                   {.socket = tl_socket_zmq (self->data), .events = ZMQ_POLLIN}};
        stage_listen (self->stage);
        if (tl_clock_ms () > deadline || zmq_poll (items, 2, 20) < 0)
            stage_fail (self->stage, "%s never got %s", self->name, tl_type_name (type));
        for (int i = 0; i < 2; i++)
            if (items[i].revents && s_take (self, i ? self->data : self->control, type))
                return;
    }
}

static void
s_hello (peer_t *self, const char *role, uint64_t process)
{
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, stage_case (self->stage)->topology, NULL, NULL);
    tl_message_t hello;
    tl_message_init (&hello, TL_HELLO);
    hello.body.hello.role = (char *)role;
    hello.body.hello.process = process;
    hello.body.hello.agreements = agreements.items;
    hello.body.hello.agreements_count = agreements.count;
    hello.body.hello.window_bytes = 2 << 20;
    hello.body.hello.window_messages = 256;
    hello.body.hello.rows = ROWS;
    hello.body.hello.longest = ROWS;
    s_send_as (self, self->control, &hello, NULL, 0);
    tl_agreements_clear (&agreements);
}

static void
s_attach (peer_t *self, const uint8_t *session)
{
    tl_message_t attach;
    tl_message_init (&attach, TL_ATTACH);
    attach.body.attach.session = (uint8_t *)session;
    attach.body.attach.session_size = 16;
    s_send_as (self, self->data, &attach, NULL, 0);
}

//  Connected, and nothing said.
static peer_t *
s_connect (stage_t *stage, const char *name)
{
    const tl_topology_t *t = stage_case (stage)->topology;
    peer_t *self = tl_alloc (sizeof *self);
    tl_error_t err;
    tl_pair_t pair;
    char broker[41];
    self->stage = stage;
    snprintf (self->name, sizeof self->name, "%s", name);
    stage_check (stage,
                 tl_keys_pair (t->keys, "client", name, &pair, &err) == 0 &&
                     tl_keys_broker (t->keys, broker, &err) == 0,
                 "keys");
    self->context = zmq_ctx_new ();
    self->control = tl_socket_connect (self->context, t->broker.control, &pair, broker, 64, &err);
    self->data = tl_socket_connect (self->context, t->broker.clients, &pair, broker, 4096, &err);
    stage_check (stage, self->control && self->data, "sockets");
    return self;
}

static peer_t *
s_join (stage_t *stage, const char *name, const char *role)
{
    static uint64_t processes = 1000;
    peer_t *self = s_connect (stage, name);
    s_hello (self, role, ++processes);
    s_wait (self, TL_WELCOME);
    s_attach (self, self->session);
    s_wait (self, TL_ATTACHED);
    return self;
}

static void
s_drop (peer_t **self_p)
{
    peer_t *self = *self_p;
    tl_socket_destroy (&self->control);
    tl_socket_destroy (&self->data);
    zmq_ctx_term (self->context);
    free (self);
    *self_p = NULL;
}

static void
s_leave (peer_t **self_p)
{
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.text = (char *)"enough";
    s_send_as (*self_p, (*self_p)->control, &bye, NULL, 0);
    s_drop (self_p);
}

static void
s_expect_bye (peer_t *self, const char *words)
{
    s_wait (self, TL_BYE);
    if (self->code != TL_CONNECTION || !strstr (self->text, words))
        stage_fail (self->stage, "expected BYE 2 with \"%s\", got %d: %s", words, (int)self->code,
                    self->text);
}

static void
s_ping (peer_t *self)
{
    tl_message_t ping;
    tl_message_init (&ping, TL_PING);
    ping.body.ping.nonce = 42;
    s_send_as (self, self->control, &ping, NULL, 0);
}

static void
s_expect_alive (peer_t *self)
{
    s_ping (self);
    s_wait (self, TL_PONG);
}

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
    s_send (self, &message, s_rows, it->rows * it->columns * sizeof (float));
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
    s_send (self, &message, s_rows, rows * HIDDEN * sizeof (float));
}

static void
s_send_commit (peer_t *self, uint64_t step, bool squares)
{
    tl_square_t square = {1, 1e300};
    tl_message_t message;
    tl_message_init (&message, TL_COMMIT);
    message.step = step;
    message.body.commit.labels = 2 * MICROS;
    message.body.commit.squares = &square;
    message.body.commit.squares_count = squares ? 1 : 0;
    s_send (self, &message, NULL, 0);
}

//  --- breaches of the step's rules: each ends the session with a sentence

static void
s_wrong_activation (stage_t *stage, activation_t wrong, const char *words)
{
    peer_t *peer = s_join (stage, "site-1", "client");
    s_wait (peer, TL_PLAN);
    wrong.step = peer->step;
    s_send_activation (peer, &wrong);
    s_expect_bye (peer, words);
    s_drop (&peer);
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
        peer_t *peer = s_join (stage, "site-1", "client");
        s_wait (peer, TL_PLAN);
        s_send_gradient (peer, 0, ROWS, 1); //  early: ignored
        activation_t good = s_good (peer, 0);
        s_send_activation (peer, &good);
        s_wait (peer, TL_HIDDEN);
        stage_check (stage, peer->rows == ROWS && peer->micro == 0, "its rows back");
        s_rows[7] = i == 2 ? 1.0f / 0.0f : 0;
        s_send_gradient (peer, 0, i == 0 ? ROWS - 1 : ROWS, i == 1 ? ROWS + 1 : 2);
        s_rows[7] = 0;
        s_expect_bye (peer, words[i]);
        s_drop (&peer);
    }
}

//  --- what is merely out of time or said twice: no harm, and the step commits

static void
s_whole_step (stage_t *stage)
{
    peer_t *peer = s_join (stage, "site-1", "client");
    s_wait (peer, TL_PLAN);
    uint64_t step = peer->step;
    activation_t late = s_good (peer, 0);
    late.step = step - 1;
    s_send_activation (peer, &late);
    s_wait (peer, TL_LATE);
    stage_check (stage, peer->of_step == step - 1 && peer->current == step, "LATE of the past");
    late.step = step + 1000000;
    s_send_activation (peer, &late);
    s_wait (peer, TL_LATE);
    stage_check (stage, peer->of_step == step + 1000000, "LATE of the future");
    late.step = step;
    late.micro = MICROS;
    s_send_activation (peer, &late);
    s_wait (peer, TL_LATE);

    for (uint64_t micro = 0; micro < MICROS; micro++) {
        activation_t good = s_good (peer, micro);
        s_send_activation (peer, &good);
        s_send_activation (peer, &good); //  twice: ignored
        s_wait (peer, TL_HIDDEN);
        s_send_activation (peer, &good);
        s_send_gradient (peer, micro, ROWS, 2);
        s_send_gradient (peer, micro, ROWS, 2);
    }
    //  Squares where the norm is everybody's own: they must not count
    s_send_commit (peer, step, true);
    s_send_commit (peer, step, false);
    s_wait (peer, TL_COMMITTED);
    stage_check (stage, peer->of_step == step && peer->labels > 2 * MICROS,
                 "N of the honest client's tokens and its own, once");
    s_send_commit (peer, step, false);
    s_wait (peer, TL_COMMITTED);
    stage_check (stage, peer->of_step == step, "the same COMMITTED again");
    s_leave (&peer);
}

//  --- the link

static void
s_broken_links (stage_t *stage)
{
    tl_message_t message;
    //  A gap: attach again
    peer_t *peer = s_join (stage, "site-1", "client");
    s_wait (peer, TL_PLAN);
    peer->sequence += 5;
    s_send_commit (peer, peer->step, false);
    s_wait (peer, TL_INVALID);
    stage_check (stage, !peer->expired, "INVALID: attach again");
    s_expect_alive (peer);
    s_leave (&peer);

    //  An ack of what was never sent, a sequence of 0, an ATTACH that claims too much: the session ends
    for (int i = 0; i < 3; i++) {
        peer = s_join (stage, "site-1", "client");
        s_wait (peer, TL_PLAN);
        tl_message_init (&message, i == 2 ? TL_ATTACH : TL_COMMIT);
        message.step = peer->step;
        message.sequence = i == 0 ? 1 : 0;
        message.ack = i == 0 ? 1000 : 0;
        if (i == 2) {
            message.body.attach.session = peer->session;
            message.body.attach.session_size = 16;
            message.body.attach.received = 1000;
        }
        s_send_as (peer, peer->data, &message, NULL, 0);
        s_wait (peer, TL_INVALID);
        stage_check (stage, peer->expired, "INVALID: the session is gone");
        s_drop (&peer);
    }

    //  More bytes than were granted, before any could be released
    peer = s_join (stage, "site-1", "client");
    s_wait (peer, TL_PLAN);
    static char chunk[TL_CHUNK_BYTES];
    tl_packed_t *packed = tl_pack (chunk, sizeof chunk, 1, TL_W_U8);
    tl_message_init (&message, TL_GRADIENT);
    message.step = peer->step;
    tl_packed_release ((void *)tl_packed_chunk (packed, 0, &message.body.gradient.tensor), packed);
    tl_packed_destroy (&packed);
    kill (s_worker, SIGSTOP);
    for (uint64_t sent = 0; sent <= 2 * peer->window; sent += sizeof chunk)
        s_send (peer, &message, chunk, sizeof chunk);
    s_wait (peer, TL_INVALID);
    kill (s_worker, SIGCONT);
    s_drop (&peer);
}

//  --- what is no message, or not one of a client's

static void
s_nonsense (stage_t *stage)
{
    static const char junk[] = "\x9b\x01this is not the protocol";
    for (int i = 0; i < 3; i++) {
        peer_t *peer = s_join (stage, "site-1", "client");
        if (i < 2)
            s_put (peer, i ? peer->data : peer->control, junk, sizeof junk, NULL, 0);
        else {
            //  A payload of another size than was announced
            s_wait (peer, TL_PLAN);
            tl_message_t message;
            tl_message_init (&message, TL_ACTIVATION);
            message.step = peer->step;
            tl_sequence_t sequence = {ROWS, 0, 0, 0};
            message.body.activation.tensor = s_tensor (ROWS, HIDDEN);
            message.body.activation.sequences = &sequence;
            message.body.activation.sequences_count = 1;
            s_send (peer, &message, s_rows, 12);
        }
        s_expect_bye (peer, "");
        stage_check (stage, strlen (peer->text) > 10, "a sentence");
        s_drop (&peer);
    }
    //  Before any HELLO
    peer_t *peer = s_connect (stage, "site-1");
    s_put (peer, peer->control, junk, sizeof junk, NULL, 0);
    s_wait (peer, TL_REFUSED);
    s_put (peer, peer->data, junk, sizeof junk, NULL, 0);
    s_hello (peer, "worker", 1);
    s_wait (peer, TL_REFUSED);
    stage_check (stage, strstr (peer->text, "can't act as worker"), "a role its key doesn't have");
    s_hello (peer, "admin", 1);
    s_wait (peer, TL_REFUSED);
    stage_check (stage, strstr (peer->text, "can't act as admin"), "a role its key doesn't have");
    s_drop (&peer);
    //  A frame beyond what the sockets take ends the connection; the broker has forgotten it
    peer = s_join (stage, "site-1", "client");
    char *huge = tl_alloc (3 << 20);
    s_put (peer, peer->data, huge, 3 << 20, NULL, 0);
    free (huge);
    s_expect_alive (peer);
    s_leave (&peer);
}

static void
s_wrong_author (stage_t *stage)
{
    static const tl_type_t types[] = {TL_HIDDEN,  TL_GRAD_IN, TL_COMMITTED, TL_STATE,  TL_PLAN,
                                      TL_RESTORE, TL_SAVE,    TL_ABANDON,   TL_LEAVE,  TL_FINISH,
                                      TL_LATE,    TL_STATUS,  TL_STOP,      TL_REPORT, TL_WELCOME};
    peer_t *peer = s_join (stage, "site-1", "client");
    s_wait (peer, TL_PLAN);
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
        s_send_as (peer, i % 2 ? peer->control : peer->data, &message, tensor ? s_rows : NULL,
                   ROWS * HIDDEN * sizeof (float));
    }
    s_expect_alive (peer);
    //  Answers that nobody asked for
    tl_message_t message;
    tl_message_init (&message, TL_SAVED);
    message.step = peer->step;
    message.body.saved.good = false;
    message.body.saved.text = (char *)"I can't";
    s_send (peer, &message, NULL, 0);
    tl_message_init (&message, TL_RESTORED);
    message.body.restored.text = (char *)"me neither";
    s_send (peer, &message, NULL, 0);
    tl_message_init (&message, TL_FINISHED);
    s_send (peer, &message, NULL, 0);
    s_expect_alive (peer);
    s_leave (&peer);
}

//  --- sessions

static void
s_sessions (stage_t *stage)
{
    peer_t *one = s_join (stage, "site-1", "client"), *two = s_join (stage, "site-2", "client");
    uint8_t nobody[16] = {1, 2, 3};
    s_attach (one, two->session); //  another client's
    s_wait (one, TL_INVALID);
    stage_check (stage, one->expired, "another's session is none");
    s_attach (one, nobody);
    s_wait (one, TL_INVALID);
    stage_check (stage, one->expired, "no such session");
    s_expect_alive (two);
    s_leave (&two);
    //  Hundreds of sessions over one connection: one stays
    for (uint64_t i = 0; i < 300; i++) {
        s_hello (one, "reader", 5000 + i);
        s_wait (one, TL_WELCOME);
    }
    part_t *status = stage_verb (stage, "status", "--format", "json", NULL);
    stage_check (stage, part_wait (status) == 0, "status answers");
    json_error_t error;
    json_t *report = json_loads (part_out (status), 0, &error);
    stage_check (stage, json_array_size (json_object_get (report, "peers")) <= 4, "few sessions");
    json_decref (report);
    s_drop (&one);
}

static void
s_reader (stage_t *stage)
{
    peer_t *reader = s_join (stage, "site-1", "reader");
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
        s_send (reader, &message, s_rows, ROWS * (i == 1 ? HIDDEN / 2 : HIDDEN) * sizeof (float));
    }
    s_wait (reader, TL_FORWARDED);
    stage_check (stage, reader->of_step == 3, "the good request is answered");
    s_expect_alive (reader);
    s_leave (&reader);
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
    part_t *broker, *worker, *honest;
} run_t;

static run_t
s_begin (int expire_ms)
{
    static char settings[512];
    static case_spec_t spec;
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: 1000000, batch_size: %d, micros: %d, max_length: 64, lr: 1e-4}\n"
              "wire: {dtype: fp32}\nliveness: {ping_ms: %d, expire_ms: %d}\n",
              BATCH, MICROS, expire_ms / 6, expire_ms);
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
    run.honest = stage_run (run.stage, "client", "site-0", NULL);
    part_event (run.honest, "ready", NULL, 0);
    //  The first step waits for all: both come, and go
    peer_t *one = s_join (run.stage, "site-1", "client"),
           *two = s_join (run.stage, "site-2", "client");
    s_wait (one, TL_PLAN);
    s_wait (two, TL_PLAN);
    s_leave (&one);
    s_leave (&two);
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
                     part_wait (run->honest) == 0,
                 "code 0 of all");
    stage_end (&run->stage);
}

static void
s_all (void)
{
    static void (*const attacks[]) (stage_t *) = {
        s_whole_step,   s_wrong_activations, s_wrong_gradients, s_broken_links, s_nonsense,
        s_wrong_author, s_sessions,          s_reader,          s_whole_step};
    run_t run = s_begin (20000);
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        attacks[i](run.stage);
        s_check_honest (&run);
    }
    s_end (&run);
}

//  Takes part and asks for ever more, takes nothing of what it is sent: it is dropped, and what the broker holds stays small.
static void
s_deaf (void)
{
    run_t run = s_begin (1500);
    long before = s_resident_kb (part_pid (run.broker));
    peer_t *peer = s_join (run.stage, "site-1", "reader");
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
        s_send (peer, &message, s_rows, rows * HIDDEN * sizeof (float));
    }
    s_expect_alive (peer); //  it lives, as far as PING can tell
    s_check_honest (&run);
    s_wait (peer, TL_FORWARDED);
    //  It goes on saying PING until its session is over
    while (!strstr (part_err (run.broker), "takes nothing of what it is sent")) {
        s_ping (peer);
        part_event (run.honest, "step", NULL, 0);
    }
    long after = s_resident_kb (part_pid (run.broker));
    if (after - before > 32 << 10)
        stage_fail (run.stage, "the broker grew from %ld to %ld kB", before, after);
    s_drop (&peer);
    s_check_honest (&run);
    s_end (&run);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"all", s_all}, {"deaf", s_deaf}, {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
