/*  client: the actor of one site. Its text, ids, labels and logits stay inside this process; what leaves
    is rows of hidden, their gradients, lengths and the norms of its own gradients.                 */

#ifndef TL_CLIENT_H
#define TL_CLIENT_H

#include "error.h"
#include "topology/topology.h"

//  Takes part in the run as client number index until the broker says it is over. Returns the exit code.
int tl_client_run (const tl_topology_t *topology, size_t index, tl_error_t *err);

#endif
