//  peer: see peer.h.

#include "chaos/peer.h"

#include "actors/agreement.h"
#include "clock.h"
#include "hash.h"
#include "memory.h"
#include "net/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEADLINE_MS = 40000 };

void
peer_put (peer_t *self, tl_socket_t *socket, const void *frame, size_t size, const void *payload,
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
void
peer_send_as (peer_t *self, tl_socket_t *socket, tl_message_t *message, const void *payload,
              size_t size)
{
    message->run = self->run;
    if (!*message->sender)
        snprintf (message->sender, sizeof message->sender, "%s", self->name);
    size_t bytes;
    void *frame = tl_message_encode (message, &bytes);
    peer_put (self, socket, frame, bytes, payload, size);
    free (frame);
}

//  On the link, in order.
void
peer_send (peer_t *self, tl_message_t *message, const void *payload, size_t size)
{
    message->sequence = ++self->sequence;
    message->ack = self->deaf ? 0 : self->received;
    peer_send_as (self, self->data, message, payload, size);
}

void
peer_send_piece (peer_t *self, tl_message_t *message, const peer_piece_t *piece)
{
    static const uint64_t sizes[] = {
        [TL_W_F32] = 4, [TL_W_BF16] = 2, [TL_W_F16] = 2, [TL_W_U8] = 1};
    static const uint8_t zeros[4 * TL_CHUNK_LEAST];
    tl_tensor_wire_t *tensor = (tl_tensor_wire_t *)tl_message_tensor (message);
    const uint8_t *bytes = piece->bytes ? piece->bytes : zeros;
    uint64_t size = piece->rows * piece->columns * sizes[piece->dtype];
    uint64_t left = size - piece->offset, chunk = tl_chunk_bytes (size);
    bool known = piece->bytes || size <= sizeof zeros;
    *tensor = (tl_tensor_wire_t){.dtype = piece->dtype,
                                 .rows = piece->rows,
                                 .columns = piece->columns,
                                 .bytes = size,
                                 .checksum = (known ? tl_hash64 (bytes, size) : 1) + piece->damaged,
                                 .offset = piece->offset,
                                 .size = left < chunk ? left : chunk};
    peer_send (self, message, bytes + (known ? piece->offset : 0), tensor->size);
}

static void
s_note (peer_t *self, const tl_message_t *message, const tl_packet_t *packet)
{
    const tl_tensor_wire_t *tensor = tl_message_tensor (message);
    if (tensor) {
        self->tensor = *tensor;
        memcpy (self->chunk, zmq_msg_data ((zmq_msg_t *)&packet->payload), tensor->size);
    }
    snprintf (self->sender, sizeof self->sender, "%s", message->sender);
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
        snprintf (self->member, sizeof self->member, "%s", body->plan.members[0].name);
        self->discreet &= body->plan.members_count == 1 && body->plan.rows == 0 &&
                          body->plan.longest == 0 &&
                          strcmp (body->plan.members[0].name, self->name) == 0;
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
    case TL_PART:
        text = body->part.kind;
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
    if (tl_message_check_payload (&message, packet.has_payload, zmq_msg_size (&packet.payload),
                                  &err))
        stage_fail (self->stage, "the broker sent nonsense: %s", err.text);
    if (message.sequence)
        self->received = message.sequence;
    if (message.type == TL_PING) {
        tl_message_t pong;
        tl_message_init (&pong, TL_PONG);
        pong.body.pong.nonce = message.body.ping.nonce;
        peer_send_as (self, self->control, &pong, NULL, 0);
    }
    bool wanted = message.type == type;
    if (wanted || message.type == TL_PLAN)
        s_note (self, &message, &packet);
    tl_message_clear (&message);
    tl_packet_close (&packet);
    return wanted;
}

void
peer_wait (peer_t *self, tl_type_t type)
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

void
peer_hello (peer_t *self, const char *role, uint64_t process)
{
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, stage_case (self->stage)->topology, TL_AGREE_ALL);
    tl_message_t hello;
    tl_message_init (&hello, TL_HELLO);
    hello.body.hello.role = (char *)role;
    hello.body.hello.process = process;
    hello.body.hello.agreements = agreements.items;
    hello.body.hello.agreements_count = agreements.count;
    hello.body.hello.window_bytes = 2 << 20;
    hello.body.hello.window_messages = 256;
    hello.body.hello.rows = PEER_ROWS;
    hello.body.hello.longest = PEER_ROWS;
    peer_send_as (self, self->control, &hello, NULL, 0);
    tl_agreements_clear (&agreements);
}

static void
s_attach (peer_t *self, tl_socket_t *socket, const uint8_t *session)
{
    tl_message_t attach;
    tl_message_init (&attach, TL_ATTACH);
    attach.body.attach.session = (uint8_t *)session;
    attach.body.attach.session_size = 16;
    peer_send_as (self, socket, &attach, NULL, 0);
}

void
peer_attach (peer_t *self, const uint8_t *session)
{
    s_attach (self, self->data, session);
}

void
peer_attach_control (peer_t *self, const uint8_t *session)
{
    s_attach (self, self->control, session);
}

void
peer_keys (stage_t *stage)
{
    char *command =
        tl_format ("%s keys make %s >&2", getenv ("TRUNKLINE"), stage_case (stage)->yaml);
    stage_check (stage, system (command) == 0, command);
    free (command);
}

//  Connected, and nothing said.
peer_t *
peer_connect (stage_t *stage, const char *name, const char *role)
{
    const tl_topology_t *t = stage_case (stage)->topology;
    bool behind = strcmp (role, "worker") == 0 || strcmp (role, "aggregator") == 0;
    peer_t *self = tl_alloc (sizeof *self);
    tl_error_t err;
    tl_pair_t pair;
    char broker[41];
    self->stage = stage;
    snprintf (self->name, sizeof self->name, "%s", name);
    self->discreet = true;
    stage_check (stage,
                 tl_keys_pair (t->keys, behind ? role : "client", name, &pair, &err) == 0 &&
                     tl_keys_broker (t->keys, broker, &err) == 0,
                 "keys");
    self->context = zmq_ctx_new ();
    self->control = tl_socket_connect (self->context, t->broker.control, &pair, broker, 64, &err);
    self->data = tl_socket_connect (self->context, behind ? t->broker.workers : t->broker.clients,
                                    &pair, broker, 4096, &err);
    stage_check (stage, self->control && self->data, "sockets");
    return self;
}

peer_t *
peer_join (stage_t *stage, const char *name, const char *role)
{
    static uint64_t processes = 1000;
    peer_t *self = peer_connect (stage, name, role);
    peer_hello (self, role, ++processes);
    peer_wait (self, TL_WELCOME);
    peer_attach (self, self->session);
    peer_wait (self, TL_ATTACHED);
    return self;
}

void
peer_drop (peer_t **self_p)
{
    peer_t *self = *self_p;
    tl_socket_destroy (&self->control);
    tl_socket_destroy (&self->data);
    zmq_ctx_term (self->context);
    free (self);
    *self_p = NULL;
}

void
peer_leave (peer_t **self_p)
{
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.text = (char *)"enough";
    peer_send_as (*self_p, (*self_p)->control, &bye, NULL, 0);
    peer_drop (self_p);
}

void
peer_expect_bye (peer_t *self, const char *words)
{
    peer_wait (self, TL_BYE);
    if (self->code != TL_CONNECTION || !strstr (self->text, words))
        stage_fail (self->stage, "expected BYE 2 with \"%s\", got %d: %s", words, (int)self->code,
                    self->text);
}

void
peer_ping (peer_t *self)
{
    tl_message_t ping;
    tl_message_init (&ping, TL_PING);
    ping.body.ping.nonce = 42;
    peer_send_as (self, self->control, &ping, NULL, 0);
}

void
peer_expect_alive (peer_t *self)
{
    peer_ping (self);
    peer_wait (self, TL_PONG);
}
