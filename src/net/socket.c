/*  socket: CURVE ROUTERs and DEALERs, their options, what they send and receive; see socket.h. Connections
    and their events are in socket_monitor.c.                                                     */

#include "socket_internal.h"

#include "accepted.h"
#include "assert.h"
#include "memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FRAME_BYTES =
        2 << 20,          //  largest frame taken: a chunk is at most 128 KiB, a full COMMIT 1.2 MiB
    SPARE_MESSAGES = 256, //  HWM above a peer's window: CREDIT, PING and the like
    BACKLOG = 1024,       //  connections that wait for accept: many peers start at once
    LINGER_MS = 200,      //  a BYE may still leave; destroying the context waits no longer
    HEARTBEAT_MS = 3000,  //  a ZMTP PING when nothing came for so long
    HEARTBEAT_TIMEOUT_MS = 9000,
    HANDSHAKE_MS = 10000,    //  a connection without a finished handshake is closed
    RECONNECT_MS = 100,      //  first pause before dialling again
    RECONNECT_MAX_MS = 2000, //  longest
    CONNECT_MS = 5000        //  a SYN that nobody answers
};

//  The number is in libzmq 4.3's zmq.h for draft builds only, but every build of it takes the option. One
//  that doesn't makes bind fail.
#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93
#endif

//  --- making and ending

static bool
s_set (void *zmq, int option, int value)
{
    return zmq_setsockopt (zmq, option, &value, sizeof value) == 0;
}

static bool
s_set_text (void *zmq, int option, const char *value)
{
    return zmq_setsockopt (zmq, option, value, strlen (value)) == 0;
}

//  Options of both kinds.
static bool
s_set_common (void *zmq, size_t window_messages)
{
    size_t limit = window_messages + SPARE_MESSAGES;
    int hwm = limit < 1 << 30 ? (int)limit : 1 << 30;
    int64_t bytes = FRAME_BYTES;
    return s_set (zmq, ZMQ_LINGER, LINGER_MS) && s_set (zmq, ZMQ_SNDHWM, hwm) &&
           s_set (zmq, ZMQ_RCVHWM, hwm) &&
           zmq_setsockopt (zmq, ZMQ_MAXMSGSIZE, &bytes, sizeof bytes) == 0 &&
           s_set (zmq, ZMQ_HEARTBEAT_IVL, HEARTBEAT_MS) &&
           s_set (zmq, ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS) &&
           s_set (zmq, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS) && s_set (zmq, ZMQ_TCP_KEEPALIVE, 1) &&
           s_set (zmq, ZMQ_IPV6, 0);
}

static bool
s_set_router (void *zmq, const char *domain, const tl_pair_t *own)
{
    //  Without an enforced domain libzmq lets every key in when no ZAP handler is bound
    return s_set (zmq, ZMQ_CURVE_SERVER, 1) &&
           s_set_text (zmq, ZMQ_CURVE_SECRETKEY, own->secret_text) &&
           s_set_text (zmq, ZMQ_ZAP_DOMAIN, domain) && s_set (zmq, ZMQ_ZAP_ENFORCE_DOMAIN, 1) &&
           s_set (zmq, ZMQ_ROUTER_MANDATORY, 1) && s_set (zmq, ZMQ_ROUTER_HANDOVER, 0) &&
           s_set (zmq, ZMQ_BACKLOG, BACKLOG);
}

static bool
s_set_dealer (void *zmq, const tl_pair_t *own, const char *broker_public)
{
    //  IMMEDIATE: nothing is queued for a connection that isn't there, so what was sent before a break
    //  can't slip out ahead of the new connection's ATTACH; links send it again instead
    return s_set_text (zmq, ZMQ_CURVE_SERVERKEY, broker_public) &&
           s_set_text (zmq, ZMQ_CURVE_PUBLICKEY, own->public_text) &&
           s_set_text (zmq, ZMQ_CURVE_SECRETKEY, own->secret_text) &&
           s_set (zmq, ZMQ_IMMEDIATE, 1) && s_set (zmq, ZMQ_RECONNECT_IVL, RECONNECT_MS) &&
           s_set (zmq, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS) &&
           s_set (zmq, ZMQ_CONNECT_TIMEOUT, CONNECT_MS);
}

//  Lets these of the context's I/O threads serve the socket; 0: all.
static bool
s_set_threads (void *zmq, uint64_t threads)
{
    return zmq_setsockopt (zmq, ZMQ_AFFINITY, &threads, sizeof threads) == 0;
}

//  Where there are several I/O threads the first is control's: it never waits behind tensors.
static uint64_t
s_router_threads (void *context, const char *domain)
{
    if (zmq_ctx_get (context, ZMQ_IO_THREADS) < 2)
        return 0;
    return strcmp (domain, "control") == 0 ? 1 : ~(uint64_t)1;
}

//  A DEALER has one connection at a time. One thread, another for each socket, serves it, so that its events
//  come in their order: from two threads CONNECTED may come after the same connection's DISCONNECTED.
static uint64_t
s_dealer_threads (void *context)
{
    static atomic_uint serial;
    unsigned threads = (unsigned)zmq_ctx_get (context, ZMQ_IO_THREADS);
    return (uint64_t)1 << atomic_fetch_add (&serial, 1) % threads % 64;
}

//  A ZeroMQ socket with our PAIR on its monitor; options are set by the caller before it connects.
static tl_socket_t *
s_new (void *context, bool router, tl_error_t *err)
{
    static atomic_uint serial;
    tl_socket_t *self = tl_alloc (sizeof *self);
    char name[64];
    snprintf (name, sizeof name, "inproc://monitor-%u", atomic_fetch_add (&serial, 1));
    self->router = router;
    self->fd = self->listener = self->watched = -1;
    self->zmq = zmq_socket (context, router ? ZMQ_ROUTER : ZMQ_DEALER);
    self->monitor = zmq_socket (context, ZMQ_PAIR);
    //  No HWM on the monitor: the I/O thread would wait for us when many peers come at once
    if (self->zmq && self->monitor && zmq_socket_monitor (self->zmq, name, ZMQ_EVENT_ALL) == 0 &&
        s_set (self->monitor, ZMQ_RCVHWM, 0) && s_set (self->monitor, ZMQ_LINGER, 0) &&
        zmq_connect (self->monitor, name) == 0)
        return self;
    tl_fail (err, TL_FAILED,
             "a socket can't be made (%s); raise the limit of open files (ulimit -n)",
             zmq_strerror (errno));
    tl_socket_destroy (&self);
    return NULL;
}

static int
s_fail_options (tl_error_t *err)
{
    return tl_fail (err, TL_BAD_INPUT,
                    "libzmq refuses a socket option or key (%s); use libzmq 4.3 with CURVE, as "
                    "Debian has it, and keys made by trunkline keys",
                    zmq_strerror (errno));
}

//  tcp://HOST:PORT. libzmq would take ports beyond 65535 modulo 65536, and inproc without any CURVE.
static bool
s_endpoint_good (const char *endpoint, bool router)
{
    const char *port = strrchr (endpoint, ':');
    if (strncmp (endpoint, "tcp://", 6) || strlen (endpoint) > 255 || port <= endpoint + 6)
        return false;
    if (router && strcmp (port, ":*") == 0)
        return true;
    size_t digits = strspn (port + 1, "0123456789");
    return digits > 0 && digits <= 5 && port[1 + digits] == 0 && atoi (port + 1) > 0 &&
           atoi (port + 1) <= 65535;
}

static int
s_fail_bind (const char *what, const char *endpoint, tl_error_t *err)
{
    int reason = errno;
    if (reason == EADDRINUSE)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: %s is already in use; stop the program that has it (ss -ltnp shows "
                        "which) or give another port in the topology file",
                        what, endpoint);
    if (reason == EADDRNOTAVAIL || reason == ENODEV)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: no network interface of this machine has the address of %s; give one "
                        "of its own in the topology file",
                        what, endpoint);
    //  Peers may connect to a name; for a bind libzmq looks none up, and leaves an errno of something else.
    const char *host = endpoint + strlen ("tcp://");
    if (*host != '[' && strspn (host, "0123456789.:") != strlen (host))
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: %s can't be bound, it has a name in place of an address; write the address of one "
            "of this machine's network interfaces in the topology file",
            what, endpoint);
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: %s can't be bound (%s); give the address of one of this machine's network "
                    "interfaces and a port from 1024 up in the topology file",
                    what, endpoint, zmq_strerror (reason));
}

static int
s_fail_endpoint (const char *what, const char *endpoint, tl_error_t *err)
{
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: \"%s\" is no endpoint to bind; give one like tcp://127.0.0.1:5570, with a "
                    "port of 1 to 65535, in the topology file",
                    what, endpoint);
}

int
tl_socket_try (const char *endpoint, const char *what, tl_error_t *err)
{
    if (!s_endpoint_good (endpoint, true))
        return s_fail_endpoint (what, endpoint, err);
    void *context = zmq_ctx_new ();
    void *zmq = context ? zmq_socket (context, ZMQ_ROUTER) : NULL;
    int rc = 0;
    if (!zmq)
        rc = s_fail_options (err);
    else if (zmq_bind (zmq, endpoint))
        rc = s_fail_bind (what, endpoint, err);
    if (zmq)
        zmq_close (zmq);
    if (context)
        zmq_ctx_term (context);
    return rc;
}

tl_socket_t *
tl_socket_bind (void *context, const char *domain, const char *endpoint, const char *what,
                const tl_pair_t *own, size_t window_messages, tl_error_t *err)
{
    tl_assert (*domain);
    if (!s_endpoint_good (endpoint, true)) {
        s_fail_endpoint (what, endpoint, err);
        return NULL;
    }
    tl_socket_t *self = s_new (context, true, err);
    if (self == NULL)
        return NULL;
    int rc = -1;
    size_t size = sizeof self->endpoint;
    if (!s_set_common (self->zmq, window_messages) || !s_set_router (self->zmq, domain, own) ||
        !s_set_threads (self->zmq, s_router_threads (context, domain)))
        s_fail_options (err);
    else if (zmq_bind (self->zmq, endpoint) ||
             zmq_getsockopt (self->zmq, ZMQ_LAST_ENDPOINT, self->endpoint, &size))
        s_fail_bind (what, endpoint, err);
    else
        rc = 0;
    if (rc)
        tl_socket_destroy (&self);
    else
        tl_socket_watch (self);
    return self;
}

tl_socket_t *
tl_socket_connect (void *context, const char *endpoint, const tl_pair_t *own,
                   const char *broker_public, size_t window_messages, tl_error_t *err)
{
    if (!s_endpoint_good (endpoint, false)) {
        tl_fail (
            err, TL_BAD_INPUT,
            "\"%s\" is no endpoint to connect to; give one like tcp://broker.example:5570, with "
            "a port of 1 to 65535, in the topology file",
            endpoint);
        return NULL;
    }
    tl_socket_t *self = s_new (context, false, err);
    if (self == NULL)
        return NULL;
    int rc = -1;
    snprintf (self->endpoint, sizeof self->endpoint, "%s", endpoint);
    if (!s_set_common (self->zmq, window_messages) ||
        !s_set_dealer (self->zmq, own, broker_public) ||
        !s_set_threads (self->zmq, s_dealer_threads (context)))
        s_fail_options (err);
    else if (zmq_connect (self->zmq, self->endpoint))
        tl_fail (err, TL_BAD_INPUT,
                 "%s can't be connected to (%s); give the broker's address in the topology file",
                 endpoint, zmq_strerror (errno));
    else
        rc = 0;
    if (rc)
        tl_socket_destroy (&self);
    return self;
}

void
tl_socket_destroy (tl_socket_t **self_p)
{
    tl_assert (self_p);
    tl_socket_t *self = *self_p;
    if (self == NULL)
        return;
    tl_accepted_forget (self->listener);
    tl_socket_unwatch (self);
    if (self->zmq) {
        zmq_socket_monitor (self->zmq, NULL, 0);
        zmq_close (self->zmq);
    }
    if (self->monitor)
        zmq_close (self->monitor);
    free (self->connections);
    free (self);
    *self_p = NULL;
}

void
tl_socket_on_use (tl_socket_t *self, void (*fn) (void *arg), void *arg)
{
    self->on_use = fn;
    self->on_use_arg = arg;
}

void
tl_socket_used (tl_socket_t *self)
{
    if (self->on_use)
        self->on_use (self->on_use_arg);
}

void *
tl_socket_zmq (tl_socket_t *self)
{
    return self->zmq;
}

void *
tl_socket_monitor (tl_socket_t *self)
{
    return self->monitor;
}

const char *
tl_socket_endpoint (const tl_socket_t *self)
{
    return self->endpoint;
}

//  --- messages

//  Receives one frame. 0, or -1 with frame closed.
static int
s_receive_frame (void *zmq, zmq_msg_t *frame)
{
    int rc;
    zmq_msg_init (frame);
    do
        rc = zmq_msg_recv (frame, zmq, ZMQ_DONTWAIT);
    while (rc == -1 && errno == EINTR);
    if (rc == -1)
        zmq_msg_close (frame);
    return rc == -1 ? -1 : 0;
}

//  Reads the rest of a message away.
static void
s_drain (void *zmq, bool more)
{
    zmq_msg_t frame;
    while (more && s_receive_frame (zmq, &frame) == 0) {
        more = zmq_msg_more (&frame);
        zmq_msg_close (&frame);
    }
}

//  Identity and descriptor as libzmq attached them to a frame.
static void
s_read_origin (tl_socket_t *self, tl_packet_t *packet)
{
    const char *user = zmq_msg_gets (&packet->envelope, "User-Id");
    if (user && strlen (user) < sizeof packet->user)
        strcpy (packet->user, user);
    packet->fd = zmq_msg_get (&packet->envelope, ZMQ_SRCFD);
    tl_socket_heard (self, packet->fd);
}

static int
s_receive (tl_socket_t *self, tl_packet_t *packet)
{
    memset (packet, 0, sizeof *packet);
    packet->fd = -1;
    zmq_msg_init (&packet->routing);
    zmq_msg_init (&packet->payload);
    if (self->router && s_receive_frame (self->zmq, &packet->routing))
        return 0;
    if (s_receive_frame (self->zmq, &packet->envelope)) {
        //  Not in the middle of a message: libzmq hands over whole ones only
        tl_assert (!self->router);
        return 0;
    }
    bool more = zmq_msg_more (&packet->envelope);
    if (more && s_receive_frame (self->zmq, &packet->payload) == 0) {
        packet->has_payload = true;
        more = zmq_msg_more (&packet->payload);
    }
    if (self->router)
        s_read_origin (self, packet);
    if (more || (self->router && *packet->user == 0)) {
        s_drain (self->zmq, more);
        tl_packet_close (packet);
        errno = EPROTO;
        return -1;
    }
    return 1;
}

tl_socket_hook_t *tl_socket_hook;

int
tl_socket_receive (tl_socket_t *self, tl_packet_t *packet)
{
    return tl_socket_hook ? tl_socket_hook (self, packet, s_receive) : s_receive (self, packet);
}

void
tl_packet_close (tl_packet_t *packet)
{
    zmq_msg_close (&packet->routing);
    zmq_msg_close (&packet->envelope);
    zmq_msg_close (&packet->payload);
}

//  Sends one frame, taking it over on success.
static int
s_send_frame (void *zmq, zmq_msg_t *frame, bool more)
{
    int rc;
    do
        rc = zmq_msg_send (frame, zmq, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
    while (rc == -1 && errno == EINTR);
    return rc == -1 ? -1 : 0;
}

//  The same for a message's first frame, where a refusal may be stale: libzmq looks at what its I/O
//  thread has to tell only now and then, and makes sure when asked for ZMQ_EVENTS.
static int
s_send_first (void *zmq, zmq_msg_t *frame, bool more)
{
    int rc = s_send_frame (zmq, frame, more);
    if (rc == -1 && (errno == EAGAIN || errno == EHOSTUNREACH)) {
        int events;
        size_t size = sizeof events;
        zmq_getsockopt (zmq, ZMQ_EVENTS, &events, &size);
        rc = s_send_frame (zmq, frame, more);
    }
    if (rc == -1) {
        int reason = errno;
        zmq_msg_close (frame);
        errno = reason;
    }
    return rc;
}

static int
s_send (tl_socket_t *self, const zmq_msg_t *routing, const void *envelope, size_t size,
        zmq_msg_t *payload)
{
    zmq_msg_t frame;
    if (routing) {
        zmq_msg_init (&frame);
        zmq_msg_copy (&frame, (zmq_msg_t *)routing);
        if (s_send_first (self->zmq, &frame, true))
            return -1;
    }
    tl_assert (zmq_msg_init_size (&frame, size) == 0);
    memcpy (zmq_msg_data (&frame), envelope, size);
    if (s_send_first (self->zmq, &frame, payload != NULL))
        return -1;
    return payload ? s_send_frame (self->zmq, payload, false) : 0;
}

int
tl_socket_send (tl_socket_t *self, const zmq_msg_t *routing, const void *envelope, size_t size,
                zmq_msg_t *payload)
{
    tl_assert (self->router == (routing != NULL));
    int rc = s_send (self, routing, envelope, size, payload), reason = errno;
    tl_socket_used (self);
    errno = reason;
    return rc;
}
