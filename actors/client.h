/*  client: the actor of one site. Its text, ids, labels and logits stay inside this process; what leaves
    is rows of hidden, their gradients, lengths and the norms of its own gradients.

    Usually it is alone in its process (tl_client_run); of synthetic ones many share one actor (load.h). */

#ifndef TL_CLIENT_H
#define TL_CLIENT_H

#include "actors/actor.h"
#include "actors/alarm.h"
#include "topology/topology.h"

typedef struct tl_client tl_client_t;

//  What is lent here must outlive the client.
typedef struct {
    const tl_topology_t *topology;
    size_t index; //  in the topology's clients
    tl_actor_t *actor;
    tl_alarms_t *alarms;          //  of the actor
    void *context;                //  ZeroMQ's, of several clients; NULL: one of its own
    void (*on_ready) (void *arg); //  it has a session, for the first time; may be NULL
    //  It is over, with an exit code and a sentence that is valid during the call; it is to be destroyed, but not yet.
    void (*on_over) (void *arg, int code, const char *text);
    void *arg;
} tl_client_config_t;

//  What it came to: committed steps, label tokens of them, bytes on the wire.
typedef struct {
    uint64_t steps, labels, bytes;
} tl_client_totals_t;

tl_client_t *tl_client_new (const tl_client_config_t *config, tl_error_t *err);
void tl_client_destroy (tl_client_t **self_p);
//  Leaves the open step to the others, saves what is committed, says BYE; then it is over.
void tl_client_stop (tl_client_t *self);
tl_client_totals_t tl_client_totals (const tl_client_t *self);

//  One client in this process, until it is over. Returns the exit code; err has the sentence.
int tl_client_run (const tl_topology_t *topology, size_t index, tl_error_t *err);

#endif
