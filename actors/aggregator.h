/*  aggregator: the actor that makes one of what several hold a copy of: the trunk's replicas and the clients'
    adapters (means), the gradients of a step (sums). A process of its own beside the broker, so that the
    broker's loop never computes and never opens a payload.

    The broker says whose parts are to come, in which order, how many are enough and by when; the parts come
    through the broker. What a member sends is not trusted: who sends what can't be used is left out, and named.
    It has no model. What the server's optimizer has to remember it saves and restores with the run. */

#ifndef TL_AGGREGATOR_H
#define TL_AGGREGATOR_H

#include "error.h"
#include "topology/topology.h"

//  Serves the run until the broker says it is over. Returns the exit code.
int tl_aggregator_run (const tl_topology_t *topology, tl_error_t *err);

#endif
