#include "trunk.h"

#include "base/assert.h"
#include "fed/evaluate.h"
#include "fed/parts.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct tl_trunk {
    const tl_topology_t *topology;
    tl_model_t *model;
    tl_part_t *part;
    tl_segment_t *segment; //  of the part
    tl_tape_t **tapes;     //  [micros] of the open step, each until its backward
    size_t micros;
    uint64_t round;
    uint64_t learnt; //  label tokens since it was given a state
};

static int
s_part (tl_trunk_t *self, tl_error_t *err)
{
    tl_part_t *part = tl_part_of_worker (self->topology, self->model, err);
    if (!part)
        return -1;
    tl_part_destroy (&self->part);
    self->part = part;
    self->segment = tl_part_segment (part, 0);
    return 0;
}

tl_trunk_t *
tl_trunk_new (const tl_topology_t *topology, size_t worker, tl_error_t *err)
{
    tl_trunk_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    tl_kernels_use (topology->workers[worker].threads);
    if (!(self->model = tl_model_of (topology, err)) || s_part (self, err))
        tl_trunk_destroy (&self);
    return self;
}

static void
s_close_open (tl_trunk_t *self)
{
    for (size_t i = 0; i < self->micros; i++)
        tl_tape_destroy (&self->tapes[i]);
    free (self->tapes);
    self->tapes = NULL;
    self->micros = 0;
}

void
tl_trunk_destroy (tl_trunk_t **self_p)
{
    tl_trunk_t *self = *self_p;
    if (!self)
        return;
    s_close_open (self);
    tl_part_destroy (&self->part);
    tl_model_destroy (&self->model);
    free (self);
    *self_p = NULL;
}

size_t
tl_trunk_hidden (const tl_trunk_t *self)
{
    return tl_model_config (self->model)->hidden;
}

const char *
tl_trunk_manifest (const tl_trunk_t *self)
{
    return tl_model_manifest_hash (self->model);
}

size_t
tl_trunk_longest (const tl_trunk_t *self)
{
    size_t model = tl_model_config (self->model)->max_positions;
    size_t run = self->topology->train.max_length;
    return model > run ? model : run;
}

int
tl_trunk_plan (tl_trunk_t *self, size_t rows, size_t longest, tl_plan_t *plan, tl_error_t *err)
{
    size_t micros = self->topology->train.micros;
    tl_plan_t serve;
    if (tl_parts_fit (&self->part, 1, rows, longest, 0, micros, self->topology->train.memory,
                      err) != 0)
        return -1;
    tl_part_plan (self->part, rows, longest, 0, 0, micros, plan);
    tl_part_plan_reading (self->part, TL_EVALUATE_ROWS, longest, 0, &serve);
    tl_plan_widen (plan, &serve);
    //  Its replica on the way out, and the merged one on the way in.
    plan->state *= tl_topology_fans_out (self->topology) ? 2 : 1;
    tl_part_reserve (self->part, rows, longest, 0, micros);
    return 0;
}

tl_part_t *
tl_trunk_part (tl_trunk_t *self)
{
    return self->part;
}

bool
tl_trunk_owes_gradient (const tl_trunk_t *self)
{
    return tl_front_trains (self->topology, self->model);
}

void
tl_trunk_drop (tl_trunk_t *self)
{
    s_close_open (self);
    tl_part_zero_gradient (self->part);
}

//  FedProx: replicas are held to where their period began.
static bool
s_is_held (const tl_trunk_t *self)
{
    return self->topology->federate.proximal > 0 && self->topology->worker_count > 1;
}

void
tl_trunk_begin (tl_trunk_t *self, uint64_t round, size_t micros)
{
    tl_trunk_drop (self);
    self->round = round;
    self->micros = micros;
    if (s_is_held (self))
        tl_part_anchor (self->part, round / self->topology->federate.every);
    self->tapes = tl_alloc (micros * sizeof *self->tapes);
}

const float *
tl_trunk_forward (tl_trunk_t *self, size_t micro, const tl_batch_t *batch, const float *input)
{
    tl_assert (micro < self->micros && !self->tapes[micro]);
    self->tapes[micro] = tl_segment_forward (self->segment, batch, self->round, input, true);
    return tl_tape_output (self->tapes[micro]);
}

void
tl_trunk_backward (tl_trunk_t *self, size_t micro, const float *d_output, float *d_input)
{
    tl_assert (micro < self->micros && self->tapes[micro]);
    tl_segment_backward (self->segment, self->tapes[micro], d_output, d_input);
    tl_tape_destroy (&self->tapes[micro]);
}

double
tl_trunk_norm (tl_trunk_t *self, const tl_norm_term_t *terms, size_t count, uint64_t labels)
{
    size_t own = 0;
    tl_norm_term_t *all = tl_alloc ((tl_part_tensors (self->part) + count + 1) * sizeof *all);
    if (s_is_held (self))
        tl_part_pull (self->part, self->topology->federate.proximal * (double)labels);
    tl_part_squares (self->part, all, &own);
    if (count)
        memcpy (all + own, terms, count * sizeof *all);
    double norm = tl_gradient_norm (all, own + count, labels);
    free (all);
    return norm;
}

int
tl_trunk_update (tl_trunk_t *self, uint64_t labels, double norm, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    const tl_schedule_t schedule = tl_schedule_of (t, t->train.steps);
    double rate = tl_learning_rate (&schedule, self->round);
    int rc = tl_part_update (self->part, tl_coefficient (norm, t->train.clip, labels), rate, err);
    s_close_open (self);
    self->learnt += rc == 0 ? labels : 0;
    return rc;
}

uint64_t
tl_trunk_learnt (const tl_trunk_t *self)
{
    return self->learnt;
}

int
tl_trunk_take (tl_trunk_t *self, const void *state, size_t size, tl_error_t *err)
{
    tl_trunk_drop (self);
    if (tl_part_state_set (self->part, state, size, err) != 0)
        return -1;
    self->learnt = 0;
    return 0;
}

int
tl_trunk_fresh (tl_trunk_t *self, tl_error_t *err)
{
    s_close_open (self);
    self->learnt = 0;
    return s_part (self, err);
}

float *
tl_trunk_serve (tl_trunk_t *self, const tl_batch_t *batch, const float *input)
{
    size_t bytes = batch->rows * tl_trunk_hidden (self) * sizeof (float);
    float *rows = tl_alloc_aligned (bytes);
    tl_tape_t *tape = tl_segment_forward (self->segment, batch, 0, input, false);
    memcpy (rows, tl_tape_output (tape), bytes);
    tl_tape_destroy (&tape);
    return rows;
}
