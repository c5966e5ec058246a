#include "peer.h"

#include "actors/credentials.h"
#include "base/assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"
#include "net/link.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    RETRY_MS = 500,          //  HELLO and ATTACH are repeated after that
    MOST_PATIENCE_MS = 4000, //  HELLO after more, the oftener it was said
    FIRST_PING_MS = 1000,    //  until WELCOME tells the broker's own intervals
    SAY_WAITING_MS = 10000,  //  how often we say that nobody answers
    OTHER_KEYS = 3,          //  times in a row that the broker hung up on our first word
    GIVE_UP_PERIODS = 6, //  a broker that was there and is silent for so many expiry times is gone
    BURST = 256          //  messages taken in one turn of the loop
};

typedef enum { GREETING, ATTACHING, LIVE, OVER } tl_phase_t;
static const char *const s_phases[] = {"greeting", "attaching", "live", "over"};

struct tl_peer {
    tl_actor_t *actor;
    const tl_topology_t *topology;
    tl_peer_config_t config;
    tl_agreement_t *agreements;  //  own copy
    void *context;               //  ZeroMQ
    tl_socket_t *control, *data; //  data is NULL for admins
    tl_link_t *link;             //  of the session; NULL before the first WELCOME
    tl_phase_t phase;
    uint64_t process; //  random: tells this process from an earlier one of the same name
    uint8_t session[16];
    uint64_t run;
    uint64_t step; //  committed steps of the run when it was joined
    int64_t ping_ms, expire_ms;
    int64_t heard, spoke; //  last traffic from and to the broker, monotonic ms
    int64_t began, said;  //  since when we wait, and when we last said so
    bool met;             //  had a session once
    int64_t again;        //  when HELLO is repeated, monotonic ms
    int64_t patience;     //  ms from the last one to then
    int other_keys;       //  times in a row that the broker hung up on our first word
    bool broke;           //  the data connection was lost and is not attached again yet
    int timer;
};

static void s_hello (tl_peer_t *self);
static void s_attach (tl_peer_t *self, tl_socket_t *socket);

static void
s_phase (tl_peer_t *self, tl_phase_t phase, const char *event)
{
    if (phase != self->phase)
        tl_debug ("%s: %s -> %s", event, s_phases[self->phase], s_phases[phase]);
    self->phase = phase;
}

static void
s_over (tl_peer_t *self, int code, const char *text)
{
    if (self->phase == OVER)
        return;
    s_phase (self, OVER, "end");
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

static int
s_put (tl_peer_t *self, tl_socket_t *socket, tl_message_t *message)
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
    s_put (self, self->control, message);
}

//  --- session ----------------------------------------------------------------------------------

//  A broker that a thousand peers greet at once answers late; to say it again soon would make it later still.
static void
s_hello (tl_peer_t *self)
{
    self->again = tl_clock_ms () + self->patience;
    self->patience = self->patience < MOST_PATIENCE_MS ? 2 * self->patience : self->patience;
    tl_message_t hello;
    tl_message_init (&hello, TL_HELLO);
    hello.body.hello.role = self->config.role;
    hello.body.hello.process = self->process;
    hello.body.hello.agreements = self->agreements;
    hello.body.hello.agreements_count = self->config.agreement_count;
    hello.body.hello.window_bytes = self->config.window_bytes;
    hello.body.hello.window_messages = self->config.window_messages;
    hello.body.hello.rows = self->config.rows;
    hello.body.hello.longest = self->config.longest;
    tl_peer_control (self, &hello);
}

static void
s_attach (tl_peer_t *self, tl_socket_t *socket)
{
    tl_message_t attach;
    tl_message_init (&attach, TL_ATTACH);
    attach.body.attach.session = self->session;
    attach.body.attach.session_size = sizeof self->session;
    attach.body.attach.received = self->link ? tl_link_received (self->link) : 0;
    s_put (self, socket, &attach);
}

static int
s_link_send (void *arg, const void *envelope, size_t size, zmq_msg_t *payload)
{
    tl_peer_t *self = arg;
    self->spoke = tl_clock_ms ();
    return tl_socket_send (self->data, NULL, envelope, size, payload);
}

//  The session is gone, and with it whatever was under way.
static void
s_forget (tl_peer_t *self, const char *why)
{
    tl_warn ("session lost: %s", why);
    s_phase (self, GREETING, "lost");
    self->patience = RETRY_MS;
    self->again = 0;
    tl_link_destroy (&self->link);
    self->broke = false;
    self->began = tl_clock_ms ();
    self->config.on_lost (self->config.arg);
}

//  The broker doesn't know our session (any more): begin again.
static void
s_lost (tl_peer_t *self, const char *why)
{
    if (self->phase == GREETING || self->phase == OVER)
        return;
    s_forget (self, why);
    s_hello (self);
}

static void
s_on_welcome (tl_peer_t *self, const tl_message_t *message)
{
    if (self->phase == OVER || message->body.welcome.session_size != sizeof self->session)
        return;
    bool same = memcmp (self->session, message->body.welcome.session, sizeof self->session) == 0;
    if (self->phase != GREETING && same)
        return;
    //  It came to a HELLO that we repeated too early: the broker has made a new session of it, and ended the one before.
    if (self->phase != GREETING)
        s_forget (self, "a repeated HELLO made a new one");
    memcpy (self->session, message->body.welcome.session, sizeof self->session);
    if (self->run && self->run != message->run)
        tl_warn ("the broker at %s began a new run, %s: what was trained in the run before is not "
                 "part of it",
                 tl_socket_endpoint (self->control), self->topology->name);
    self->run = message->run;
    self->step = message->step;
    self->ping_ms = (int64_t)message->body.welcome.ping_ms;
    self->expire_ms = (int64_t)message->body.welcome.expire_ms;
    self->met = true;
    tl_link_destroy (&self->link);
    if (!self->data) {
        s_phase (self, LIVE, "WELCOME");
        self->config.on_ready (self->config.arg);
        return;
    }
    self->link = tl_link_new (self->config.window_bytes, self->config.window_messages, s_link_send,
                              NULL, self);
    tl_link_window (self->link, message->body.welcome.window_bytes,
                    message->body.welcome.window_messages);
    s_phase (self, ATTACHING, "WELCOME");
    s_attach (self, self->data);
}

static void
s_on_invalid (tl_peer_t *self, const tl_message_t *message, tl_socket_t *socket)
{
    //  Said of an earlier session: both of its connections asked, and one answer was enough.
    size_t size = message->body.invalid.session_size;
    if (size && (size != sizeof self->session ||
                 memcmp (message->body.invalid.session, self->session, size) != 0))
        return;
    if (message->body.invalid.expired)
        s_lost (self, message->body.invalid.text);
    else if (self->phase == ATTACHING || self->phase == LIVE) {
        tl_debug ("%s: attaching again", message->body.invalid.text);
        if (socket == self->data)
            tl_link_detach (self->link);
        s_attach (self, socket);
    }
}

static void
s_on_attached (tl_peer_t *self, const tl_message_t *message, tl_socket_t *socket)
{
    if (socket != self->data || (self->phase != ATTACHING && self->phase != LIVE))
        return;
    if (tl_link_attach (self->link, message->body.attached.received)) {
        s_lost (self, "the broker has seen messages that were never sent");
        return;
    }
    if (self->phase == ATTACHING) {
        s_phase (self, LIVE, "ATTACHED");
        tl_log (strcmp (self->config.role, "reader") == 0 ? TL_LOG_DEBUG : TL_LOG_INFO,
                "admitted by the broker at %s as %s %s: %s, after %llu steps",
                tl_socket_endpoint (self->control), self->config.role, self->config.name,
                self->topology->name, (unsigned long long)self->step);
        self->config.on_ready (self->config.arg);
    } else if (self->broke) {
        self->broke = false;
        tl_info ("connected again: the session goes on where it was");
    }
}

static void
s_on_refused (tl_peer_t *self, const tl_message_t *message)
{
    if (self->phase != GREETING)
        return;
    if (message->body.refused.retry) {
        int64_t now = tl_clock_ms ();
        if (now - self->said > SAY_WAITING_MS)
            tl_info ("the broker says: %s (trying again)", message->body.refused.text);
        self->said = now;
        return;
    }
    char text[6144];
    snprintf (text, sizeof text, "the broker at %s refused %s %s: %s",
              tl_socket_endpoint (self->control), self->config.role, self->config.name,
              message->body.refused.text);
    s_over (self, TL_CONNECTION, text);
}

//  --- what arrives -----------------------------------------------------------------------------

static void
s_on_sequenced (tl_peer_t *self, const tl_message_t *message, tl_packet_t *packet)
{
    //  A CREDIT is the link's own word and bears no run.
    if (self->phase != LIVE || (message->type != TL_CREDIT && message->run != self->run))
        return;
    size_t size = packet->has_payload ? zmq_msg_size (&packet->payload) : 0;
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
        s_attach (self, self->data);
        break;
    case TL_LINK_VIOLATION:
        s_lost (self, "the broker sent more than we granted");
        break;
    }
}

static void
s_on_message (tl_peer_t *self, tl_message_t *message, tl_packet_t *packet, tl_socket_t *socket)
{
    switch (message->type) {
    case TL_WELCOME:
        s_on_welcome (self, message);
        break;
    case TL_REFUSED:
        s_on_refused (self, message);
        break;
    case TL_INVALID:
        s_on_invalid (self, message, socket);
        break;
    case TL_ATTACHED:
        s_on_attached (self, message, socket);
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
        s_over (self, (int)message->body.bye.code, message->body.bye.text);
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

static void
s_receive (tl_peer_t *self, tl_socket_t *socket)
{
    for (int i = 0; i < BURST && self->phase != OVER; i++) {
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
            s_over (self, TL_CONNECTION, text);
            return;
        }
        s_on_message (self, &message, &packet, socket);
        tl_message_clear (&message);
        tl_packet_close (&packet);
    }
    if (self->link && self->phase == LIVE)
        tl_link_tick (self->link, false);
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

//  --- connections and time ---------------------------------------------------------------------

static void
s_other_key (tl_peer_t *self, const tl_socket_t *socket)
{
    char text[1024];
    snprintf (
        text, sizeof text,
        "the broker at %s holds another key than %s/broker.broker.key says: fetch the file of "
        "that name from the broker's keys directory, put it there and start again",
        tl_socket_endpoint (socket), self->topology->keys);
    s_over (self, TL_CONNECTION, text);
}

static void
s_on_event (tl_peer_t *self, tl_socket_t *socket)
{
    tl_socket_event_t event;
    while (self->phase != OVER && tl_socket_event (socket, &event) == 1)
        switch (event.event) {
        case TL_EVENT_CONNECTED:
            self->other_keys = 0;
            if (socket == self->control && self->phase == GREETING) {
                self->patience = RETRY_MS;
                s_hello (self);
            } else if (self->phase == ATTACHING || self->phase == LIVE) {
                if (socket == self->data)
                    tl_link_detach (self->link);
                s_attach (self, socket);
            }
            break;
        case TL_EVENT_DISCONNECTED:
            tl_debug ("connection to %s broke", tl_socket_endpoint (socket));
            if (socket == self->data && self->link) {
                self->broke = true;
                tl_link_detach (self->link);
            }
            break;
        case TL_EVENT_REFUSED: {
            char text[512];
            snprintf (text, sizeof text,
                      "the broker at %s refused the key of %s %s: put its public file into the "
                      "broker's keys directory and start again",
                      tl_socket_endpoint (socket), self->config.role, self->config.name);
            s_over (self, TL_CONNECTION, text);
            break;
        }
        case TL_EVENT_RETRIED:
            if (socket == self->control && self->config.on_nobody)
                self->config.on_nobody (self->config.arg);
            break;
        case TL_EVENT_OTHER_KEY:
            //  Once may be chance: a broker that was just ending
            if (++self->other_keys == OTHER_KEYS)
                s_other_key (self, socket);
            break;
        default:
            break;
        }
}

static void
s_on_control_event (void *arg)
{
    tl_peer_t *self = arg;
    s_on_event (self, self->control);
}

static void
s_on_data_event (void *arg)
{
    tl_peer_t *self = arg;
    s_on_event (self, self->data);
}

static void
s_say_waiting (tl_peer_t *self, int64_t now)
{
    if (now - self->said > SAY_WAITING_MS && now - self->began > RETRY_MS * 4) {
        tl_info ("waiting for the broker at %s", tl_socket_endpoint (self->control));
        self->said = now;
    }
}

static void
s_on_timer (void *arg)
{
    tl_peer_t *self = arg;
    int64_t now = tl_clock_ms ();
    if (self->phase == OVER)
        return;
    if (self->met && now - self->heard > GIVE_UP_PERIODS * self->expire_ms) {
        char text[256];
        snprintf (text, sizeof text,
                  "the broker at %s has been silent for %lld s: look at its log, then start again",
                  tl_socket_endpoint (self->control), (long long)(now - self->heard) / 1000);
        s_over (self, TL_TIMEOUT, text);
        return;
    }
    if (self->phase == GREETING) {
        s_say_waiting (self, now);
        tl_socket_redial (self->control);
        if (now >= self->again)
            s_hello (self);
        return;
    }
    //  A connection that broke off in its handshake is not tried again by itself.
    tl_socket_redial (self->control);
    if (self->data)
        tl_socket_redial (self->data);
    //  LIVE and detached: the connection broke, and attaches when it is back; or it holds and something was refused or
    //  lost on it once, which nobody else would ever tell.
    if (self->phase == ATTACHING || (self->link && !tl_link_attached (self->link)))
        s_attach (self, self->data);
    else if (self->link)
        tl_link_tick (self->link, true);
    if (now - self->spoke >= self->ping_ms || now - self->heard >= self->ping_ms) {
        tl_message_t ping;
        tl_message_init (&ping, TL_PING);
        ping.body.ping.nonce = (uint64_t)now;
        tl_peer_control (self, &ping);
    }
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
    self->patience = RETRY_MS;
    self->began = self->heard = self->spoke = tl_clock_ms ();
    self->said = self->began - SAY_WAITING_MS;
    self->context = config->context ? config->context : zmq_ctx_new ();
    if (!config->context)
        zmq_ctx_set (self->context, ZMQ_BLOCKY, 0);
    if (s_open (self, err)) {
        tl_peer_destroy (&self);
        return NULL;
    }
    tl_actor_watch_socket (actor, tl_socket_zmq (self->control), s_on_control, self);
    tl_actor_watch_socket (actor, tl_socket_monitor (self->control), s_on_control_event, self);
    if (self->data) {
        tl_actor_watch_socket (actor, tl_socket_zmq (self->data), s_on_data, self);
        tl_actor_watch_socket (actor, tl_socket_monitor (self->data), s_on_data_event, self);
    }
    self->timer = tl_actor_timer (actor, RETRY_MS, 0, s_on_timer, self);
    return self;
}

static void
s_close (tl_peer_t *self, tl_socket_t **socket)
{
    if (*socket) {
        tl_actor_forget_socket (self->actor, tl_socket_zmq (*socket));
        tl_actor_forget_socket (self->actor, tl_socket_monitor (*socket));
        tl_socket_destroy (socket);
    }
}

void
tl_peer_bye (tl_peer_t *self, int code, const char *text)
{
    if (self->phase != LIVE)
        return;
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.code = (uint64_t)code;
    bye.body.bye.text = text;
    tl_peer_control (self, &bye);
    s_phase (self, OVER, "BYE");
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
