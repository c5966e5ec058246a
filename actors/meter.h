/*  meter: what the broker sees pass, as times for the cost models (scheduler/cost.h): what a worker says that it
    computed, how long a client takes to answer, what a merge costs, and how fast a period was.

    It is told of messages, with the time at which they passed, and looks at no payload. One loop uses it. */

#ifndef TL_METER_H
#define TL_METER_H

#include "messages/messages.h"
#include "scheduler/scheduler.h"

typedef struct tl_meter tl_meter_t;

//  choose is lent: what is measured goes there. micros: train.micros.
tl_meter_t *tl_meter_new (tl_choose_t *choose, size_t workers, size_t clients, size_t micros);
void tl_meter_destroy (tl_meter_t **self_p);

//  now: monotonic us. Clients and workers are indices into the topology.
void tl_meter_plan (tl_meter_t *self, const tl_step_t *step, size_t members, int64_t now);
void tl_meter_called (tl_meter_t *self, size_t client, int64_t now); //  it gets its own PLAN
//  ACTIVATION of a client that is in no open step yet; each chunk. It is told of again when the step has it.
void tl_meter_kept (tl_meter_t *self, size_t client, const tl_message_t *message, int64_t now);
//  ACTIVATION, GRADIENT, COMMIT of a member of the worker's open step; each chunk.
void tl_meter_from_client (tl_meter_t *self, size_t worker, size_t client,
                           const tl_message_t *message, int64_t now);
//  HIDDEN, GRAD_IN to a member of the worker's open step; each chunk.
void tl_meter_from_worker (tl_meter_t *self, size_t worker, size_t client,
                           const tl_message_t *message, int64_t now);
//  What a step was, seen from here.
typedef struct {
    uint64_t rows;  //  of its activations
    size_t members; //  as it began
    size_t group;   //  its
    int64_t us;     //  since its PLAN
} tl_lap_t;

//  COMMITTED to the broker: the worker's step is over. Its labels 0: nothing of it stands.
tl_lap_t tl_meter_closed (tl_meter_t *self, size_t worker,
                          const struct tl_body_committed *committed, int64_t now);
//  All groups stand at the line; parts are going to be merged.
void tl_meter_line (tl_meter_t *self, bool undisturbed, int64_t now);
void tl_meter_merge (tl_meter_t *self, size_t parts);

//  Microseconds that the worker said it computed, since the beginning.
uint64_t tl_meter_computed (const tl_meter_t *self, size_t worker);
//  Microseconds that its process waited when it last closed a step, as it said itself.
typedef struct {
    uint64_t input_us, commit_us, credit_us;
} tl_waited_t;
tl_waited_t tl_meter_waited (const tl_meter_t *self, size_t worker);

#endif
