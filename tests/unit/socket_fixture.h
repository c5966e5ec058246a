/*  socket_fixture: several sockets of src/net and a ZAP handler on one loop, as an actor has them. Events
    and packets are kept per socket until a test asks for them. Included by tests of src/net, and of what waits for its sockets.  */

#ifndef TL_TESTS_SOCKET_FIXTURE_H
#define TL_TESTS_SOCKET_FIXTURE_H

#include "unit/net_fixture.h"

#include "socket.h"
#include "zap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEERS = 128, KEPT = 64, WINDOW = 64 };

//  One socket and what came from it.
typedef struct {
    tl_socket_t *socket;
    tl_socket_event_t events[KEPT];
    size_t event_count;
    tl_packet_t packets[KEPT]; //  closed when the next one is asked for, or at the end
    size_t packet_count;
    bool deaf; //  leaves its messages unread
} peer_t;

typedef struct {
    net_t *net;
    tl_zap_t *zap; //  NULL: no handler
    peer_t *peers[PEERS];
    size_t count; //  of peers
} loop_t;

static inline void
loop_drop (loop_t *self, peer_t *peer)
{
    for (size_t i = 0; i < peer->packet_count; i++)
        tl_packet_close (&peer->packets[i]);
    tl_socket_destroy (&peer->socket);
    tl_socket_destroy (&peer->socket);
    for (size_t i = 0; i < self->count; i++)
        if (self->peers[i] == peer)
            self->peers[i] = self->peers[--self->count];
    free (peer);
}

static inline void
loop_destroy (void *loop)
{
    loop_t *self = loop;
    self->net->loop = NULL;
    while (self->count)
        loop_drop (self, self->peers[0]);
    tl_zap_destroy (&self->zap);
    tl_zap_destroy (&self->zap);
    free (self);
}

static inline loop_t *
loop_new (net_t *net, bool with_zap)
{
    loop_t *self = tl_alloc (sizeof *self);
    tl_error_t err = {0};
    self->net = net;
    net->loop = self;
    net->loop_destroy = loop_destroy;
    if (with_zap) {
        self->zap = tl_zap_new (net->context, net->directory, NULL, &err);
        net_check (self->zap == NULL, &err);
    }
    return self;
}

static inline peer_t *
loop_add (loop_t *self, tl_socket_t *socket, const tl_error_t *err)
{
    net_check (socket == NULL, err);
    assert_true (self->count < PEERS);
    peer_t *peer = tl_alloc (sizeof *peer);
    peer->socket = socket;
    return self->peers[self->count++] = peer;
}

static inline peer_t *
loop_bind (loop_t *self, const char *domain)
{
    tl_error_t err = {0};
    return loop_add (self,
                     tl_socket_bind (self->net->context, domain, "tcp://127.0.0.1:*", "broker.test",
                                     &self->net->broker, WINDOW, &err),
                     &err);
}

static inline peer_t *
loop_connect (loop_t *self, const peer_t *to, const tl_pair_t *own)
{
    tl_error_t err = {0};
    return loop_add (self,
                     tl_socket_connect (self->net->context, tl_socket_endpoint (to->socket), own,
                                        self->net->broker.public_text, WINDOW, &err),
                     &err);
}

static inline void
loop_read (peer_t *peer)
{
    while (peer->event_count < KEPT &&
           tl_socket_event (peer->socket, &peer->events[peer->event_count]) == 1)
        peer->event_count++;
    while (!peer->deaf && peer->packet_count < KEPT) {
        int rc = tl_socket_receive (peer->socket, &peer->packets[peer->packet_count]);
        if (rc == 0)
            break;
        peer->packet_count += rc == 1;
    }
}

//  Waits until something comes and takes it in. Fails when until (of tl_clock_ms) is past.
static inline void
loop_turn (loop_t *self, int64_t until, const char *waiting_for)
{
    zmq_pollitem_t items[2 * PEERS + 1];
    int count = 0;
    for (size_t i = 0; i < self->count; i++) {
        items[count++] =
            (zmq_pollitem_t){tl_socket_monitor (self->peers[i]->socket), 0, ZMQ_POLLIN, 0};
        if (!self->peers[i]->deaf)
            items[count++] =
                (zmq_pollitem_t){tl_socket_zmq (self->peers[i]->socket), 0, ZMQ_POLLIN, 0};
    }
    if (self->zap)
        items[count++] = (zmq_pollitem_t){tl_zap_socket (self->zap), 0, ZMQ_POLLIN, 0};
    int64_t left = until - tl_clock_ms ();
    if (left <= 0 || zmq_poll (items, count, left) == 0)
        fail_msg ("waited %d ms for %s", DEADLINE_MS, waiting_for);
    if (self->zap)
        tl_zap_serve (self->zap);
    for (size_t i = 0; i < self->count; i++)
        loop_read (self->peers[i]);
}

static inline size_t
loop_count (const peer_t *peer, tl_event_t type)
{
    size_t count = 0;
    for (size_t i = 0; i < peer->event_count; i++)
        count += peer->events[i].event == type;
    return count;
}

//  Waits for the next event of that type; earlier ones of other types are forgotten.
static inline tl_socket_event_t
loop_event (loop_t *self, peer_t *peer, tl_event_t type)
{
    static const char *const names[] = {"CONNECTED", "DISCONNECTED", "PLAIN",  "REFUSED",
                                        "DENIED",    "RETRIED",      "FAILED", "OTHER_KEY"};
    int64_t until = tl_clock_ms () + DEADLINE_MS;
    while (loop_count (peer, type) == 0)
        loop_turn (self, until, names[type]);
    size_t at = 0;
    while (peer->events[at].event != type)
        at++;
    tl_socket_event_t event = peer->events[at++];
    peer->event_count -= at;
    memmove (peer->events, peer->events + at, peer->event_count * sizeof event);
    return event;
}

//  Waits for the next message; the caller closes it.
static inline tl_packet_t
loop_packet (loop_t *self, peer_t *peer)
{
    int64_t until = tl_clock_ms () + DEADLINE_MS;
    while (peer->packet_count == 0)
        loop_turn (self, until, "a message");
    tl_packet_t packet =
        peer->packets[0]; //  zmq_msg_t may be moved as bytes while nobody else has it
    peer->packet_count--;
    memmove (peer->packets, peer->packets + 1, peer->packet_count * sizeof packet);
    return packet;
}

static inline void
loop_expect_text (const zmq_msg_t *frame, const char *text)
{
    assert_int_equal (zmq_msg_size (frame), strlen (text));
    assert_memory_equal (zmq_msg_data ((zmq_msg_t *)frame), text, strlen (text));
}

static inline void
loop_say (peer_t *peer, const zmq_msg_t *routing, const char *text)
{
    if (tl_socket_send (peer->socket, routing, text, strlen (text), NULL))
        fail_msg ("\"%s\" can't be sent: %s", text, zmq_strerror (errno));
}

//  A connected client that has said "hello", which the router has got; the packet is for the caller.
static inline peer_t *
loop_greet (loop_t *self, peer_t *router, const tl_pair_t *own, tl_packet_t *hello)
{
    peer_t *dealer = loop_connect (self, router, own);
    loop_event (self, dealer, TL_EVENT_CONNECTED);
    loop_say (dealer, NULL, "hello");
    *hello = loop_packet (self, router);
    loop_expect_text (&hello->envelope, "hello");
    return dealer;
}

//  A TCP connection of any program's to that peer's port, and its own address as the peer sees it.
static inline int
loop_tcp (const peer_t *to, char address[64])
{
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK)},
                       here;
    socklen_t size = sizeof here;
    there.sin_port = htons ((uint16_t)atoi (strrchr (tl_socket_endpoint (to->socket), ':') + 1));
    int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true (fd >= 0);
    assert_int_equal (connect (fd, (struct sockaddr *)&there, sizeof there), 0);
    assert_int_equal (getsockname (fd, (struct sockaddr *)&here, &size), 0);
    snprintf (address, 64, "127.0.0.1:%u", ntohs (here.sin_port));
    return fd;
}

#endif
