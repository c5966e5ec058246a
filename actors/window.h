/*  window: what the wire of a run looks like from the topology: dtype of rows, credit that a step needs. */

#ifndef TL_WINDOW_H
#define TL_WINDOW_H

#include "messages/tensor_wire.h"
#include "topology/topology.h"

enum { TL_WINDOW_MESSAGES = 65536 }; //  no link has credit for more

tl_w_dtype_t tl_wire_dtype (const tl_topology_t *topology);
//  Credit in bytes for one client whose steps (and scoring slices) have at most rows rows: both tensors of a step each
//  way, a slice, and a chunk of slack, so that what finishes a step never waits for credit.
uint64_t tl_window_bytes (const tl_topology_t *topology, size_t rows, size_t hidden);
//  Bytes of rows in buffers of messages while micros of so many rows are under way: what came, what goes, and frames on
//  their way. slices: how many scoring slices may wait at once, 0 if there are none.
uint64_t tl_window_held (const tl_topology_t *topology, size_t rows, size_t slices, size_t hidden);
//  Credit in messages that goes with it.
uint64_t tl_window_messages (const tl_topology_t *topology, uint64_t bytes);

#endif
