/*  peer: a client's or worker's side of its conversation with the broker: two CURVE sockets, HELLO and
    WELCOME, ATTACH after every connection, PING, and the link that carries the run's messages.

    Knows nothing of models or steps. The actor gets messages that are new and in order, each once,
    whatever the TCP connections do. Start order doesn't matter: it says HELLO until somebody answers. */

#ifndef TL_PEER_H
#define TL_PEER_H

#include "actors/actor.h"
#include "messages/messages.h"
#include "messages/tensor_wire.h"
#include "net/socket.h"
#include "topology/topology.h"

typedef struct tl_peer tl_peer_t;

typedef struct {
    const char
        *role; //  "client", "worker", "reader" (a client that only asks for forwards), "admin"
    const char *name;                 //  its key is keys/ROLE.NAME (a reader's: client.NAME)
    void *context;                    //  ZeroMQ's, lent, of several peers; NULL: one of its own
    const tl_agreement_t *agreements; //  what must be equal on both sides; copied
    size_t agreement_count;
    uint64_t window_bytes, window_messages; //  what we grant the broker, and ask of it
    uint64_t rows, longest; //  a client's: of its largest micro, of its longest sequence; else 0
    void (*on_ready) (void *arg); //  a new session is attached; tl_peer_run tells the run's id
    void (*on_lost) (void *arg);  //  the session is gone: whatever was under way is void
    void (*on_nobody) (
        void *arg); //  the control address takes no connection; tried again. May be NULL
    //  A new message of the run in order, or a REPORT. Payload is valid during the call.
    void (*on_message) (void *arg, const tl_message_t *message, const void *payload, size_t size);
    void (*on_flowing) (void *arg); //  nothing waits for the broker's credit any more. May be NULL
    //  The conversation is over: refused for good, BYE from the broker (code 0), or the broker is gone for good.
    void (*on_end) (void *arg, int code, const char *text);
    void *arg;
} tl_peer_config_t;

//  Opens the sockets and begins. The topology must outlive it.
tl_peer_t *tl_peer_new (tl_actor_t *actor, const tl_topology_t *topology,
                        const tl_peer_config_t *config, tl_error_t *err);
//  Tells the broker, if a session lives, that we end: code 0, or why not.
void tl_peer_bye (tl_peer_t *self, int code, const char *text);
//  Says BYE (0) when a session lives.
void tl_peer_destroy (tl_peer_t **self_p);
uint64_t tl_peer_run (const tl_peer_t *self);   //  run id, 0 before the first WELCOME
uint64_t tl_peer_step (const tl_peer_t *self);  //  steps that were committed when the session began
uint64_t tl_peer_bytes (const tl_peer_t *self); //  on the data socket's wire, both ways
//  Sends a message of the run (sequenced); without payload.
void tl_peer_send (tl_peer_t *self, tl_message_t *message);
//  The same for a message with a tensor: one message a chunk. Lists of the message travel with the first chunk only.
//  Takes the packed tensor over.
void tl_peer_send_tensor (tl_peer_t *self, tl_message_t *message, tl_packed_t *packed);
//  Sends on the control socket (STATUS, STOP, BYE).
void tl_peer_control (tl_peer_t *self, tl_message_t *message);
bool tl_peer_stalled (const tl_peer_t *self); //  what was sent waits for the broker's credit
bool tl_peer_idle (const tl_peer_t *self);    //  everything sent has been released by the broker

#endif
