/*  trunk: the worker's share of the arithmetic: the middle blocks, their adapter, one step at a time.
    Rows of several members lie one after another in plan order. One thread uses it. No messages.    */

#ifndef TL_TRUNK_H
#define TL_TRUNK_H

#include "fed/update.h"
#include "model/model.h"
#include "topology/topology.h"

typedef struct tl_trunk tl_trunk_t;

tl_trunk_t *tl_trunk_new (const tl_topology_t *topology, size_t worker, tl_error_t *err);
void tl_trunk_destroy (tl_trunk_t **self_p);
size_t tl_trunk_hidden (const tl_trunk_t *self);
const char *tl_trunk_manifest (const tl_trunk_t *self);
size_t tl_trunk_longest (const tl_trunk_t *self); //  rows of the longest sequence it takes
//  For micros of at most rows rows, the longest sequence having longest, and for serving slices: plans and sets the
//  memory of tapes aside. No step is open. -1 when train.memory_mb is too little.
int tl_trunk_plan (tl_trunk_t *self, size_t rows, size_t longest, tl_plan_t *plan, tl_error_t *err);
tl_part_t *tl_trunk_part (tl_trunk_t *self);
bool tl_trunk_owes_gradient (const tl_trunk_t *self); //  the fronts train: they need d_input

void tl_trunk_begin (tl_trunk_t *self, uint64_t round, size_t micros); //  drops whatever was open
//  Output rows of one micro, valid until its backward. The batch is copied where needed.
const float *tl_trunk_forward (tl_trunk_t *self, size_t micro, const tl_batch_t *batch,
                               const float *input);
//  d_output [rows, hidden] of the summed loss; d_input may be NULL.
void tl_trunk_backward (tl_trunk_t *self, size_t micro, const float *d_output, float *d_input);
//  The joint or own norm: the trunk's terms and count terms of the clients. labels: N.
double tl_trunk_norm (tl_trunk_t *self, const tl_norm_term_t *terms, size_t count, uint64_t labels);
//  After tl_trunk_norm.
int tl_trunk_update (tl_trunk_t *self, uint64_t labels, double norm, tl_error_t *err);
//  Label tokens of its updates since it was last given a state (tl_trunk_take) or began: its weight in an average.
uint64_t tl_trunk_learnt (const tl_trunk_t *self);
//  A state of this trunk or of another replica in place of its own; no step is open.
int tl_trunk_take (tl_trunk_t *self, const void *state, size_t size, tl_error_t *err);
void tl_trunk_drop (tl_trunk_t *self);
int tl_trunk_fresh (tl_trunk_t *self, tl_error_t *err);
//  Forward only: rows of a fresh buffer [rows, hidden], the caller frees.
float *tl_trunk_serve (tl_trunk_t *self, const tl_batch_t *batch, const float *input);

#endif
