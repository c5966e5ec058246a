/*  footprint: memory planned before the first step, and what it came to: the peak less what the process
    had before the model opened.                                                                    */

#ifndef TL_FOOTPRINT_H
#define TL_FOOTPRINT_H

#include "model/model.h"
#include "topology/topology.h"

typedef struct {
    size_t before;  //  bytes resident when it began
    size_t planned; //  bytes
} tl_footprint_t;

//  Bytes in buffers of messages of a client and of a worker, whose micros have at most rows rows of hidden. scores: the
//  client has held-out text.
size_t tl_footprint_client (const tl_topology_t *topology, bool scores, size_t rows, size_t hidden);
size_t tl_footprint_worker (const tl_topology_t *topology, size_t rows, size_t hidden);

void tl_footprint_begin (tl_footprint_t *self);
//  Logs the plan with messages (see above), and tells it as event "plan".
void tl_footprint_plan (tl_footprint_t *self, const tl_plan_t *plan, size_t messages);
//  Logs and tells (event "memory") what it came to.
void tl_footprint_end (const tl_footprint_t *self);

#endif
