/*  socket: CURVE ROUTERs and DEALERs with the options that every one of ours needs (linger, mandatory,
    HWM, max message size, heartbeat, ZAP domain enforced), and their connection events.

    All sockets of this file are CURVE; there is no plain variant. Nothing blocks.                  */

#ifndef TL_SOCKET_H
#define TL_SOCKET_H

#include "keys.h"

#include <zmq.h>

typedef enum {
    TL_EVENT_CONNECTED,    //  DEALER: handshake done (first time or again); fd is the TCP socket
    TL_EVENT_DISCONNECTED, //  a connection that was up is gone; fd says which
    TL_EVENT_PLAIN, //  ROUTER: a peer came and is gone without having shown a key: no CURVE, no ZMTP, or just a
                    //  port scan; address is its own
    TL_EVENT_REFUSED, //  DEALER: the broker's ZAP handler refused our key
    TL_EVENT_DENIED, //  ROUTER: ZAP refused a peer (fd -1, no address; the ZAP handler has logged both)
    TL_EVENT_RETRIED, //  DEALER: nobody listens yet, trying again
    TL_EVENT_FAILED, //  DEALER: somebody listens, but the handshake broke off: no broker there, or one without
                     //  its ZAP handler
    TL_EVENT_OTHER_KEY //  ROUTER: a peer spoke CURVE, but its first word doesn't open with our key: its copy of our
    //  public key is another; address is its own. DEALER: a CURVE server hung up on our first
    //  word, so its key isn't the one we have; one alone may be chance (it was just ending)
} tl_event_t;

typedef struct {
    tl_event_t event;
    int fd;           //  -1 if unknown
    char address[64]; //  remote "1.2.3.4:567" when known, else ""
} tl_socket_event_t;

typedef struct tl_socket tl_socket_t;

//  Binds; "already in use" gets a sentence naming endpoint and key in the topology file (what, e.g. "broker.control").
//  "tcp://127.0.0.1:*" binds an ephemeral port (tests); tl_socket_endpoint tells which.
tl_socket_t *tl_socket_bind (void *context, const char *domain, const char *endpoint,
                             const char *what, const tl_pair_t *own, size_t window_messages,
                             tl_error_t *err);
tl_socket_t *tl_socket_connect (void *context, const char *endpoint, const tl_pair_t *own,
                                const char *broker_public, size_t window_messages, tl_error_t *err);
//  0 if that endpoint could be bound now, else -1 and the sentence that tl_socket_bind would give, which begins with
//  "what: ". The port is free again when it returns.
int tl_socket_try (const char *endpoint, const char *what, tl_error_t *err);
void tl_socket_destroy (tl_socket_t **self_p);
void *tl_socket_zmq (tl_socket_t *self);     //  the ZeroMQ socket, to poll
void *tl_socket_monitor (tl_socket_t *self); //  PAIR of connection events, to poll
//  Calls fn (NULL: nothing) after each call that sent or dialled: libzmq may have taken in there what its descriptor (ZMQ_FD)
//  told of, so that whoever waits for that has to ask for ZMQ_EVENTS. Not after tl_socket_receive and tl_socket_event: call
//  these until they give 0, or in answer to the descriptor.
void tl_socket_on_use (tl_socket_t *self, void (*fn) (void *arg), void *arg);
const char *tl_socket_endpoint (const tl_socket_t *self);
//  Next connection event; 0 if none waits, 1 if one was stored.
int tl_socket_event (tl_socket_t *self, tl_socket_event_t *event);
//  libzmq never dials again after a refused key or a protocol error. DEALER: dials again if it has given up (1 then),
//  does nothing while connected or trying (0); -1 on failure. Call it at leisure after REFUSED, FAILED or
//  DISCONNECTED, not in the same turn: a second later is good.
int tl_socket_redial (tl_socket_t *self);
//  Shuts the TCP connection of fd down (revocation, tests of reconnects).
void tl_socket_shutdown (int fd);
//  Bytes on the wire of this socket's TCP connections so far, both ways, ZMTP and CURVE included (TCP_INFO; connections
//  that are gone count with their last reading).
uint64_t tl_socket_bytes (tl_socket_t *self);

//  A received message: routing id (ROUTER only), envelope frame, optional payload frame.
typedef struct {
    zmq_msg_t routing, envelope, payload;
    bool has_payload;
    char user[80]; //  User-Id "role/name" as proven by the key; ROUTER only, never "" there
    int fd;        //  ZMQ_SRCFD, ROUTER only, else -1
} tl_packet_t;

//  1 and a packet to be closed with tl_packet_close, 0 if none waits, -1 (errno EPROTO) for a message of
//  the wrong number of frames, or from a peer without a proven User-Id (ROUTER), already dropped. Never blocks.
int tl_socket_receive (tl_socket_t *self, tl_packet_t *packet);
//  For tests of faults: stands between tl_socket_receive and its caller, and calls receive itself. NULL: nothing does.
typedef int (tl_socket_hook_t) (tl_socket_t *self, tl_packet_t *packet,
                                int (*receive) (tl_socket_t *, tl_packet_t *));
extern tl_socket_hook_t *tl_socket_hook;
void tl_packet_close (tl_packet_t *packet);
//  Sends envelope (buffer of size, copied) and payload (or NULL; taken over on success, untouched on failure).
//  routing NULL for DEALER. 0, or -1 with errno EHOSTUNREACH (peer gone) or EAGAIN (its queue is full: a credit violation).
int tl_socket_send (tl_socket_t *self, const zmq_msg_t *routing, const void *envelope, size_t size,
                    zmq_msg_t *payload);

#endif
