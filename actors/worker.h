/*  worker: the actor that holds a trunk and computes it for all members of a step.

    worker.c       life, the conversation, forward-only requests, saves
    worker_step.c  the open step
    trunk_job.c    what its compute thread does                                                     */

#ifndef TL_WORKER_H
#define TL_WORKER_H

#include "error.h"
#include "topology/topology.h"

//  Serves the run as worker number index until the broker says it is over. Returns the exit code.
int tl_worker_run (const tl_topology_t *topology, size_t index, tl_error_t *err);

#endif
