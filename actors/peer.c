//  peer: see peer.h. What is sent and what arrives, and its life; its session is peer_session.c's.

#include "peer.h"

#include "actors/credentials.h"
#include "actors/peer_internal.h"
#include "base/assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_PING_MS = 1000, //  until WELCOME tells the broker's own intervals
    BURST = 256           //  messages taken in one turn of the loop
};

static const char *const s_phases[] = {"greeting", "attaching", "live", "over"};

void
tl_peer_phase (tl_peer_t *self, tl_peer_phase_t phase, const char *event)
{
    if (phase != self->phase)
        tl_debug ("%s: %s -> %s", event, s_phases[self->phase], s_phases[phase]);
    self->phase = phase;
}

void
tl_peer_over (tl_peer_t *self, int code, const char *text)
{
    if (self->phase == TL_PEER_OVER)
        return;
    tl_peer_phase (self, TL_PEER_OVER, "end");
    //  What still comes is left unread, and would keep the loop busy.
    tl_actor_forget_socket (self->actor, self->control);
    if (self->data)
        tl_actor_forget_socket (self->actor, self->data);
    self->config.on_end (self->config.arg, code, text);
}

static void
s_stamp (tl_peer_t *self, tl_message_t *message)
{
    if (!*message->sender)
        snprintf (message->sender, sizeof message->sender, "%s", self->config.name);
    message->run = self->run;
    message->sent = tl_clock_wall_ms () * 1000;
}

int
tl_peer_put (tl_peer_t *self, tl_socket_t *socket, tl_message_t *message)
{
    s_stamp (self, message);
    size_t size;
    void *frame = tl_message_encode (message, &size);
    int rc = tl_socket_send (socket, NULL, frame, size, NULL);
    free (frame);
    self->spoke = tl_clock_ms ();
    return rc;
}

void
tl_peer_control (tl_peer_t *self, tl_message_t *message)
{
    tl_peer_put (self, self->control, message);
}

//  --- what arrives -----------------------------------------------------------------------------

static void
s_on_sequenced (tl_peer_t *self, const tl_message_t *message, tl_packet_t *packet)
{
    //  A CREDIT is the link's own word and bears no run.
    if (self->phase != TL_PEER_LIVE || (message->type != TL_CREDIT && message->run != self->run))
        return;
    size_t size = packet->has_payload ? zmq_msg_size (&packet->payload) : 0;
    bool stalled = tl_link_stalled (self->link);
    switch (tl_link_receive (self->link, message, size)) {
    case TL_LINK_NEW:
        if (message->type != TL_CREDIT) {
            uint64_t sequence = message->sequence;
            tl_debug ("got %s step %llu micro %llu", tl_type_name (message->type),
                      (unsigned long long)message->step, (unsigned long long)message->micro);
            self->config.on_message (self->config.arg, message,
                                     size ? zmq_msg_data (&packet->payload) : NULL, size);
            if (self->link)
                tl_link_release (self->link, sequence);
        }
        break;
    case TL_LINK_DUPLICATE:
        tl_debug ("%s %llu came twice: dropped", tl_type_name (message->type),
                  (unsigned long long)message->sequence);
        break;
    case TL_LINK_GAP:
        tl_link_detach (self->link);
        tl_peer_attach (self, self->data);
        break;
    case TL_LINK_VIOLATION:
        tl_peer_lost (self, "the broker sent more than we granted");
        break;
    }
    if (stalled && self->link && !tl_link_stalled (self->link) && self->config.on_flowing)
        self->config.on_flowing (self->config.arg);
}

static void
s_on_message (tl_peer_t *self, tl_message_t *message, tl_packet_t *packet, tl_socket_t *socket)
{
    switch (message->type) {
    case TL_WELCOME:
        tl_peer_on_welcome (self, message);
        break;
    case TL_REFUSED:
        tl_peer_on_refused (self, message);
        break;
    case TL_INVALID:
        tl_peer_on_invalid (self, message, socket);
        break;
    case TL_ATTACHED:
        tl_peer_on_attached (self, message, socket);
        break;
    case TL_PING: {
        tl_message_t pong;
        tl_message_init (&pong, TL_PONG);
        pong.body.pong.nonce = message->body.ping.nonce;
        tl_peer_control (self, &pong);
        break;
    }
    case TL_PONG:
        break;
    case TL_BYE:
        tl_peer_over (self, (int)message->body.bye.code, message->body.bye.text);
        break;
    case TL_REPORT:
        self->config.on_message (self->config.arg, message, NULL, 0);
        break;
    default:
        if (socket == self->data && self->link &&
            (tl_type_sequenced (message->type) || message->type == TL_CREDIT))
            s_on_sequenced (self, message, packet);
        else
            tl_warn ("%s has no place here: ignored", tl_type_name (message->type));
    }
}

//  A state, or a share of one, is larger than its author's window and nothing goes the other way: it moves on as fast as we say
//  what we have released.
static bool
s_one_way (const tl_message_t *message)
{
    return message->type == TL_PART || message->type == TL_STATE || message->type == TL_MERGED;
}

static void
s_receive (tl_peer_t *self, tl_socket_t *socket)
{
    bool one_way = false;
    for (int i = 0; i < BURST && self->phase != TL_PEER_OVER; i++) {
        tl_packet_t packet;
        int rc = tl_socket_receive (socket, &packet);
        if (rc == 0)
            break;
        if (rc < 0)
            continue;
        self->heard = tl_clock_ms ();
        tl_message_t message;
        tl_error_t err;
        int rc_decode = tl_message_decode (&message, zmq_msg_data (&packet.envelope),
                                           zmq_msg_size (&packet.envelope), &err);
        if (rc_decode == 0 && tl_message_check_payload (&message, packet.has_payload,
                                                        zmq_msg_size (&packet.payload), &err)) {
            tl_message_clear (&message);
            rc_decode = -1;
        }
        if (rc_decode) {
            tl_packet_close (&packet);
            char text[1200];
            snprintf (text, sizeof text,
                      "the broker sent something that is not the protocol (%s); run the same "
                      "version of trunkline on all machines",
                      err.text);
            tl_peer_over (self, TL_CONNECTION, text);
            return;
        }
        one_way |= s_one_way (&message);
        s_on_message (self, &message, &packet, socket);
        tl_message_clear (&message);
        tl_packet_close (&packet);
    }
    if (self->link && self->phase == TL_PEER_LIVE)
        tl_link_tick (self->link, one_way);
}

static void
s_on_control (void *arg)
{
    tl_peer_t *self = arg;
    s_receive (self, self->control);
}

static void
s_on_data (void *arg)
{
    tl_peer_t *self = arg;
    s_receive (self, self->data);
}

static void
s_on_control_event (void *arg)
{
    tl_peer_t *self = arg;
    tl_peer_on_event (self, self->control);
}

static void
s_on_data_event (void *arg)
{
    tl_peer_t *self = arg;
    tl_peer_on_event (self, self->data);
}

//  --- life -------------------------------------------------------------------------------------

static int
s_open (tl_peer_t *self, tl_error_t *err)
{
    const char *role = self->config.role;
    bool client = strcmp (role, "client") == 0 || strcmp (role, "reader") == 0;
    tl_pair_t pair;
    char broker[41];
    if (tl_credentials_read (self->topology, role, self->config.name, &pair, broker, err))
        return -1;
    self->control =
        tl_socket_connect (self->context, self->topology->broker.control, &pair, broker, 64, err);
    if (self->control && strcmp (role, "admin") != 0) {
        self->data = tl_socket_connect (
            self->context, client ? self->topology->broker.clients : self->topology->broker.workers,
            &pair, broker, self->config.window_messages, err);
        if (!self->data)
            tl_socket_destroy (&self->control);
    }
    sodium_memzero (&pair, sizeof pair);
    return self->control ? 0 : -1;
}

tl_peer_t *
tl_peer_new (tl_actor_t *actor, const tl_topology_t *topology, const tl_peer_config_t *config,
             tl_error_t *err)
{
    tl_peer_t *self = tl_alloc (sizeof *self);
    self->actor = actor;
    self->topology = topology;
    self->config = *config;
    self->agreements = tl_alloc ((config->agreement_count + 1) * sizeof *self->agreements);
    for (size_t i = 0; i < config->agreement_count; i++)
        self->agreements[i] = (tl_agreement_t){tl_strdup (config->agreements[i].field),
                                               tl_strdup (config->agreements[i].value)};
    randombytes_buf (&self->process, sizeof self->process);
    self->ping_ms = FIRST_PING_MS;
    self->expire_ms = topology->liveness.expire_ms;
    self->patience = TL_PEER_RETRY_MS;
    self->began = self->heard = self->spoke = self->ticked = tl_clock_ms ();
    self->said = self->began - TL_PEER_SAY_WAITING_MS;
    self->context = config->context ? config->context : zmq_ctx_new ();
    if (!config->context)
        zmq_ctx_set (self->context, ZMQ_BLOCKY, 0);
    if (s_open (self, err)) {
        tl_peer_destroy (&self);
        return NULL;
    }
    tl_actor_watch_socket (actor, self->control, s_on_control, s_on_control_event, self);
    if (self->data)
        tl_actor_watch_socket (actor, self->data, s_on_data, s_on_data_event, self);
    self->timer = tl_actor_timer (actor, TL_PEER_RETRY_MS, 0, tl_peer_on_timer, self);
    return self;
}

static void
s_close (tl_peer_t *self, tl_socket_t **socket)
{
    if (*socket) {
        tl_actor_forget_socket (self->actor, *socket);
        tl_socket_destroy (socket);
    }
}

void
tl_peer_bye (tl_peer_t *self, int code, const char *text)
{
    if (self->phase != TL_PEER_LIVE)
        return;
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.code = (uint64_t)code;
    bye.body.bye.text = text;
    tl_peer_control (self, &bye);
    tl_peer_phase (self, TL_PEER_OVER, "BYE");
}

void
tl_peer_destroy (tl_peer_t **self_p)
{
    tl_peer_t *self = *self_p;
    if (!self)
        return;
    tl_peer_bye (self, 0, "done");
    tl_actor_cancel (self->actor, self->timer);
    tl_link_destroy (&self->link);
    s_close (self, &self->control);
    s_close (self, &self->data);
    if (!self->config.context)
        zmq_ctx_term (self->context);
    for (size_t i = 0; i < self->config.agreement_count; i++) {
        free ((char *)self->agreements[i].field);
        free ((char *)self->agreements[i].value);
    }
    free (self->agreements);
    free (self);
    *self_p = NULL;
}

uint64_t
tl_peer_run (const tl_peer_t *self)
{
    return self->run;
}

uint64_t
tl_peer_step (const tl_peer_t *self)
{
    return self->step;
}

uint64_t
tl_peer_bytes (const tl_peer_t *self)
{
    return self->data ? tl_socket_bytes (self->data) : 0;
}

bool
tl_peer_stalled (const tl_peer_t *self)
{
    return self->link && tl_link_stalled (self->link);
}

bool
tl_peer_idle (const tl_peer_t *self)
{
    return !self->link || tl_link_pending (self->link) == 0;
}

void
tl_peer_send (tl_peer_t *self, tl_message_t *message)
{
    if (!self->link)
        return; //  no session: whatever this was about is void
    s_stamp (self, message);
    tl_link_send (self->link, message, NULL, 0);
}

void
tl_peer_send_tensor (tl_peer_t *self, tl_message_t *message, tl_packed_t *packed)
{
    size_t chunks = self->link ? tl_packed_chunks (packed) : 0;
    for (size_t i = 0; i < chunks; i++) {
        tl_tensor_wire_t *descriptor = (tl_tensor_wire_t *)tl_message_tensor (message);
        const void *data = tl_packed_chunk (packed, i, descriptor);
        zmq_msg_t payload;
        int rc =
            zmq_msg_init_data (&payload, (void *)data, descriptor->size, tl_packed_release, packed);
        tl_assert (rc == 0);
        s_stamp (self, message);
        tl_link_send (self->link, message, &payload, 0);
        if (message->type == TL_ACTIVATION)
            message->body.activation.sequences_count = 0;
        if (message->type == TL_FORWARD)
            message->body.forward.sequences_count = 0;
    }
    tl_packed_destroy (&packed);
}
