/*  socket_monitor: connections of a socket, their events and their bytes; see socket.h.

    libzmq's monitor (its stable version 1) names the file descriptor in ACCEPTED, CONNECTED and
    DISCONNECTED only; the handshake's events name our own endpoint. So they are matched: the connection
    that has shown a key is one that has sent as much as a key takes, and whoever is gone without that is
    a stranger. What a stranger tried is told apart in one case only, CURVE for another broker's key: a
    plain-text ZeroMQ peer may have left before the part of its greeting came that says so, and then looks
    like a port scanner. With several I/O threads two strangers' cases may be swapped; counts are right.

    libzmq tells a DEALER only that its connection broke in the handshake. A server that can't open our
    first word hangs up on it: it has sent its greeting then, and no WELCOME. By the time of the event
    libzmq may have closed the descriptor, so we keep one of our own for the time of the handshake.  */

#include "socket_internal.h"

#include "accepted.h"
#include "assert.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

//  Bytes on the wire: ZMTP's greeting, CURVE's commands with their ZMTP headers; INITIATE without metadata.
enum { GREETING = 64, HELLO = 2 + 200, WELCOME = 2 + 168, INITIATE = 2 + 257 };

//  States of a TCP connection, by the kernel's numbers: broken off, and closed by the other end.
enum { BROKEN = 7, CLOSED_THERE = 8 };

//  --- connections

static uint64_t
s_cookie (int fd)
{
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    return getsockopt (fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

//  Remote "1.2.3.4:567" of a TCP socket, or "".
static void
s_remote (int fd, char *text, size_t room)
{
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    char host[INET_ADDRSTRLEN];
    *text = 0;
    if (getpeername (fd, (struct sockaddr *)&address, &size) == 0 &&
        address.sin_family == AF_INET && inet_ntop (AF_INET, &address.sin_addr, host, sizeof host))
        snprintf (text, room, "%s:%u", host, ntohs (address.sin_port));
}

//  Where a descriptor's connection stands: a process may have thousands of DEALERs, each with one.
static size_t
s_place (const tl_socket_t *self, int fd)
{
    return self->router ? (size_t)fd : 0;
}

static connection_t *
s_connection (tl_socket_t *self, int fd)
{
    if (fd < 0 || s_place (self, fd) >= self->room)
        return NULL;
    connection_t *connection = &self->connections[s_place (self, fd)];
    return connection->used && connection->fd == fd ? connection : NULL;
}

//  Reads a connection's counters, if the descriptor is still that connection.
static void
s_count (connection_t *connection, int fd)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (connection->cookie == 0 || s_cookie (fd) != connection->cookie)
        return;
    memset (&info, 0, sizeof info);
    if (getsockopt (fd, IPPROTO_TCP, TCP_INFO, &info, &size))
        return;
    connection->received = info.tcpi_bytes_received;
    connection->bytes = info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_bytes_received;
}

static void
s_forget (tl_socket_t *self, int fd)
{
    connection_t *connection = s_connection (self, fd);
    if (connection == NULL)
        return;
    s_count (connection, fd);
    self->bytes_gone += connection->bytes;
    memset (connection, 0, sizeof *connection);
}

static void
s_grow (tl_socket_t *self, int fd)
{
    if (s_place (self, fd) < self->room)
        return;
    size_t room = self->router ? (size_t)fd + 64 : 1;
    self->connections = realloc (self->connections, room * sizeof *self->connections);
    tl_assert (self->connections);
    memset (self->connections + self->room, 0, (room - self->room) * sizeof *self->connections);
    self->room = room;
}

static void
s_remember (tl_socket_t *self, int fd)
{
    s_forget (self, self->router || !self->room ? fd : self->connections[0].fd);
    s_grow (self, fd);
    connection_t *connection = &self->connections[s_place (self, fd)];
    connection->used = true;
    connection->fd = fd;
    connection->cookie = s_cookie (fd);
    if (!tl_accepted_take (self->listener, fd, connection->address))
        s_remote (fd, connection->address, sizeof connection->address);
}

void
tl_socket_heard (tl_socket_t *self, int fd)
{
    connection_t *connection = s_connection (self, fd);
    if (connection == NULL || connection->standing != STRANGER)
        return;
    connection->standing = ADMITTED;
    if (self->unclaimed > 0)
        self->unclaimed--;
}

uint64_t
tl_socket_bytes (tl_socket_t *self)
{
    uint64_t bytes = self->bytes_gone;
    for (size_t i = 0; i < self->room; i++)
        if (self->connections[i].used) {
            s_count (&self->connections[i], self->connections[i].fd);
            bytes += self->connections[i].bytes;
        }
    return bytes;
}

void
tl_socket_shutdown (int fd)
{
    shutdown (fd, SHUT_RDWR);
}

int
tl_socket_redial (tl_socket_t *self)
{
    tl_assert (!self->router);
    if (!self->lost)
        return 0;
    self->lost = false;
    //  connect alone does nothing while libzmq remembers the endpoint, even if its session has ended
    zmq_disconnect (self->zmq, self->endpoint);
    int rc = zmq_connect (self->zmq, self->endpoint);
    tl_socket_used (self);
    return rc ? -1 : 1;
}

//  --- connection events

//  Next of libzmq's own events: 1, or 0 if none waits.
static int
s_monitor_read (tl_socket_t *self, uint16_t *number, int32_t *value)
{
    for (;;) {
        uint8_t frame[6];
        char address[256];
        int size = zmq_recv (self->monitor, frame, sizeof frame, ZMQ_DONTWAIT);
        if (size == -1 && errno == EINTR)
            continue;
        if (size != sizeof frame)
            return 0;
        while (zmq_recv (self->monitor, address, sizeof address, ZMQ_DONTWAIT) == -1 &&
               errno == EINTR)
            continue;
        memcpy (number, frame, sizeof *number);
        memcpy (value, frame + sizeof *number, sizeof *value);
        return 1;
    }
}

void
tl_socket_watch (tl_socket_t *self)
{
    uint16_t number;
    int32_t value;
    if (s_monitor_read (self, &number, &value) && number == ZMQ_EVENT_LISTENING) {
        self->listener = value;
        tl_accepted_watch (value);
    }
}

static bool
s_store (tl_socket_t *self, tl_socket_event_t *event, tl_event_t type, int fd)
{
    const connection_t *connection = s_connection (self, fd);
    event->event = type;
    event->fd = fd;
    snprintf (event->address, sizeof event->address, "%s", connection ? connection->address : "");
    return true;
}

//  Some connection has shown a key. It is one that has sent as much as CURVE's HELLO and INITIATE are; if
//  it is closed again already, the claim waits for its DISCONNECTED.
static void
s_claim (tl_socket_t *self, standing_t standing)
{
    for (size_t fd = 0; fd < self->room; fd++) {
        connection_t *connection = &self->connections[fd];
        if (!connection->used || connection->standing != STRANGER)
            continue;
        s_count (connection, (int)fd);
        if (connection->received >= GREETING + HELLO + INITIATE) {
            connection->standing = standing;
            return;
        }
    }
    self->unclaimed++;
}

//  A ROUTER's connection ended: did it ever show a key? If none is known of, one may have been shown whose
//  connection was gone before it could be found.
static bool
s_router_lost (tl_socket_t *self, int fd, tl_socket_event_t *event)
{
    const connection_t *connection = s_connection (self, fd);
    tl_event_t is = connection->standing == STRANGER ? TL_EVENT_PLAIN : TL_EVENT_DISCONNECTED;
    if (is == TL_EVENT_PLAIN && self->other_keys > 0) {
        self->other_keys--;
        is = TL_EVENT_OTHER_KEY;
    } else if (is == TL_EVENT_PLAIN && self->unclaimed > 0) {
        self->unclaimed--;
        is = TL_EVENT_DISCONNECTED;
    }
    return s_store (self, event, is, fd);
}

//  DISCONNECTED, in its place after ACCEPTED or, as several I/O threads may have it, before.
static bool
s_router_gone (tl_socket_t *self, int fd, tl_socket_event_t *event)
{
    if (s_connection (self, fd) == NULL) {
        s_grow (self, fd);
        self->connections[fd].ended = true;
        return false;
    }
    bool stored = s_router_lost (self, fd, event);
    s_forget (self, fd);
    return stored;
}

static bool
s_router_accepted (tl_socket_t *self, int fd, tl_socket_event_t *event)
{
    s_grow (self, fd);
    bool ended = self->connections[fd].ended;
    self->connections[fd].ended = false;
    s_remember (self, fd);
    return ended && s_router_gone (self, fd, event);
}

//  One of libzmq's events of a ROUTER; true if it makes one of ours.
static bool
s_router_event (tl_socket_t *self, uint16_t number, int value, tl_socket_event_t *event)
{
    switch (number) {
    case ZMQ_EVENT_ACCEPTED:
        return s_router_accepted (self, value, event);
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        s_claim (self, ADMITTED);
        return false;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        s_claim (self, DENIED);
        return s_store (self, event, TL_EVENT_DENIED, -1);
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        self->other_keys += value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC;
        return false;
    case ZMQ_EVENT_DISCONNECTED:
        return s_router_gone (self, value, event);
    }
    return false;
}

void
tl_socket_unwatch (tl_socket_t *self)
{
    if (self->watched >= 0)
        close (self->watched);
    self->watched = -1;
}

//  The handshake broke off. Was it the other end that closed, between its greeting and a WELCOME?
static bool
s_hung_up (const tl_socket_t *self)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    memset (&info, 0, sizeof info);
    if (self->watched < 0 || getsockopt (self->watched, IPPROTO_TCP, TCP_INFO, &info, &size))
        return false;
    return (info.tcpi_state == CLOSED_THERE || info.tcpi_state == BROKEN) &&
           info.tcpi_bytes_received >= GREETING && info.tcpi_bytes_received < GREETING + WELCOME;
}

//  The same of a DEALER.
static bool
s_dealer_event (tl_socket_t *self, uint16_t number, int value, tl_socket_event_t *event)
{
    bool stored = false;
    switch (number) {
    case ZMQ_EVENT_CONNECTED:
        self->fd = value;
        self->lost = false;
        s_remember (self, value);
        tl_socket_unwatch (self);
        self->watched = fcntl (value, F_DUPFD_CLOEXEC, 0);
        break;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        tl_socket_unwatch (self);
        self->up = true;
        stored = s_store (self, event, TL_EVENT_CONNECTED, self->fd);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        stored = s_store (self, event, TL_EVENT_REFUSED, self->fd);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        stored = s_store (self, event, TL_EVENT_FAILED, self->fd);
        break;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        stored = s_store (self, event, s_hung_up (self) ? TL_EVENT_OTHER_KEY : TL_EVENT_FAILED,
                          self->fd);
        break;
    case ZMQ_EVENT_DISCONNECTED:
        tl_socket_unwatch (self);
        if (self->up)
            stored = s_store (self, event, TL_EVENT_DISCONNECTED, value);
        self->up = false;
        self->lost = true;
        self->fd = -1;
        s_forget (self, value);
        break;
    case ZMQ_EVENT_CONNECT_RETRIED:
        //  The first after a loss only says that libzmq begins again
        if (!self->lost)
            stored = s_store (self, event, TL_EVENT_RETRIED, -1);
        self->lost = false;
        break;
    }
    return stored;
}

int
tl_socket_event (tl_socket_t *self, tl_socket_event_t *event)
{
    uint16_t number;
    int32_t value;
    while (s_monitor_read (self, &number, &value))
        if (self->router ? s_router_event (self, number, value, event)
                         : s_dealer_event (self, number, value, event))
            return 1;
    return 0;
}
