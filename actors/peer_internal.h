//  peer_internal: what the peer's two files share. Nobody else includes it.

#ifndef TL_PEER_INTERNAL_H
#define TL_PEER_INTERNAL_H

#include "actors/peer.h"
#include "net/link.h"

enum {
    TL_PEER_RETRY_MS = 500,        //  HELLO and ATTACH are repeated after that
    TL_PEER_SAY_WAITING_MS = 10000 //  how often we say that nobody answers
};

typedef enum { TL_PEER_GREETING, TL_PEER_ATTACHING, TL_PEER_LIVE, TL_PEER_OVER } tl_peer_phase_t;

struct tl_peer {
    tl_actor_t *actor;
    const tl_topology_t *topology;
    tl_peer_config_t config;
    tl_agreement_t *agreements;  //  own copy
    void *context;               //  ZeroMQ
    tl_socket_t *control, *data; //  data is NULL for admins
    tl_link_t *link;             //  of the session; NULL before the first WELCOME
    tl_peer_phase_t phase;
    uint64_t process; //  random: tells this process from an earlier one of the same name
    uint8_t session[16];
    uint64_t run;
    uint64_t step; //  committed steps of the run when it was joined
    int64_t ping_ms, expire_ms;
    int64_t heard, spoke; //  last traffic from and to the broker, monotonic ms
    int64_t began, said;  //  since when we wait, and when we last said so
    int64_t ticked;       //  when our timer last came
    int64_t taken;        //  since when another process is said to have our name, 0: none is
    bool met;             //  the broker has answered once
    int64_t again;        //  when HELLO is repeated, monotonic ms
    int64_t patience;     //  ms from the last one to then
    int other_keys;       //  times in a row that the broker hung up on our first word
    bool broke;           //  the data connection was lost and is not attached again yet
    int timer;
};

//  peer.c
void tl_peer_phase (tl_peer_t *self, tl_peer_phase_t phase, const char *event);
void tl_peer_over (tl_peer_t *self, int code, const char *text); //  the conversation ends
int tl_peer_put (tl_peer_t *self, tl_socket_t *socket, tl_message_t *message);

//  peer_session.c
void tl_peer_attach (tl_peer_t *self, tl_socket_t *socket); //  says ATTACH
void tl_peer_lost (tl_peer_t *self,
                   const char *why); //  the broker doesn't know our session (any more): begin again
void tl_peer_on_welcome (tl_peer_t *self, const tl_message_t *message);
void tl_peer_on_invalid (tl_peer_t *self, const tl_message_t *message, tl_socket_t *socket);
void tl_peer_on_attached (tl_peer_t *self, const tl_message_t *message, tl_socket_t *socket);
void tl_peer_on_refused (tl_peer_t *self, const tl_message_t *message);
void tl_peer_on_event (tl_peer_t *self,
                       tl_socket_t *socket); //  connections of that socket came or broke
void tl_peer_on_timer (void *self);

#endif
