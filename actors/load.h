/*  load: many synthetic clients in one process and one loop, each with sessions, keys and links of its own, to load a
    broker with more peers than a machine has room for processes.                                   */

#ifndef TL_LOAD_H
#define TL_LOAD_H

#include "error.h"
#include "topology/topology.h"

//  Runs clients first .. first + count - 1 of the topology, which are synthetic, until all are over. Ends with the first
//  exit code that isn't 0; the others then leave. Its event "load" tells what they came to.
int tl_load_run (const tl_topology_t *topology, size_t first, size_t count, tl_error_t *err);

#endif
