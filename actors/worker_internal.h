//  worker_internal: what the worker's three files share. Nobody else includes it.

#ifndef TL_WORKER_INTERNAL_H
#define TL_WORKER_INTERNAL_H

#include "actors/actor.h"
#include "actors/compute.h"
#include "actors/footprint.h"
#include "actors/peer.h"
#include "actors/synthetic.h"
#include "actors/trunk_job.h"
#include "actors/waiting.h"
#include "actors/weights.h"

//  States of the actor.
enum {
    TL_WORKER_JOINING,
    TL_WORKER_IDLE,
    TL_WORKER_STEP,
    TL_WORKER_UPDATING,
    TL_WORKER_STOPPING, //  it saves what it holds, and leaves
    TL_WORKER_OVER
};

//  One member's part in one micro.
typedef struct {
    tl_assembly_t *rows_in, *gradient_in; //  coming in
    tl_assembly_t *rows, *gradient;       //  whole, until their job takes them
    tl_sequence_t *sequences;
    size_t sequence_count, row_count; //  of ACTIVATION
    uint64_t labels;                  //  of GRADIENT
    bool computed;                    //  its rows went through forward
    bool used;                        //  its gradient went through backward
} tl_slot_t;

typedef struct {
    char name[TL_NAME_LIMIT];
    uint64_t index;        //  in the topology's clients
    bool left;             //  no longer here
    bool committed;        //  its COMMIT came
    uint64_t round;        //  in which it computes: with a window that of its PLAN
    uint64_t labels;       //  of its gradients that were used
    tl_norm_term_t *terms; //  of its COMMIT
    size_t term_count;
    tl_slot_t *slots; //  [micros]
} tl_seat_t;

//  A forward-only request that is coming in.
typedef struct tl_request {
    struct tl_request *next;
    char name[TL_NAME_LIMIT];
    uint64_t number;
    tl_sequence_t *sequences;
    size_t sequence_count;
    tl_assembly_t *in;
} tl_request_t;

typedef struct {
    const tl_topology_t *topology;
    size_t index;
    const char *name;
    tl_actor_t *actor;
    tl_compute_t *compute;
    tl_peer_t *peer;
    const tl_trunk_work_t *work;    //  what a job does
    tl_trunk_t *trunk;              //  the compute thread's while jobs are pending; NULL: synthetic
    tl_synthetic_part_t *synthetic; //  in its place, or NULL
    tl_alarms_t *alarms;            //  its time
    size_t hidden, longest;         //  columns of rows; rows of the longest sequence
    tl_weights_t weights;           //  what its files hold
    bool wanted;                    //  clients want d(ACTIVATION)
    char *directory;
    bool settled; //  it is this run's, or we save nothing
    uint64_t run;
    uint64_t epoch; //  work of an older epoch is void
    uint64_t voids; //  epochs that ended with the session or the trunk, not just with a step
    uint64_t held;  //  committed steps that the trunk holds once all submitted work is done
    bool told;      //  to stop: when the update under way is done
    uint64_t step, round;
    tl_seat_t *seats; //  members of the open step, in plan order
    size_t seat_count, micros;
    size_t forwards, backwards;       //  micros whose job was submitted
    size_t computed;                  //  micros whose backward is done
    size_t rows_from, gradients_from; //  members before these have delivered the next micro's
    uint64_t untold_us; //  of the step's computing that no answer but COMMITTED can tell
    bool open;
    tl_waiting_t waiting; //  since the first PLAN
    struct {              //  the last COMMITTED, for repeats
        bool is;
        uint64_t step, round, labels, us;
        double norm;
    } last;
    tl_request_t *requests;
    tl_assembly_t *state_in, *state; //  STATE coming in; whole, until RESTORE
    tl_footprint_t footprint;
    size_t planned_rows; //  of a micro, in the memory plan; 0: not made yet
    tl_error_t *err;
} tl_worker_t;

//  worker.c
void tl_worker_end (tl_worker_t *self, int code, const char *text);
tl_trunk_job_t *tl_worker_job (tl_worker_t *self, tl_trunk_job_fn *done); //  of the open step
void tl_worker_submit (tl_worker_t *self, tl_job_fn *run, tl_trunk_job_t *job);
void tl_worker_send_rows (tl_worker_t *self, tl_type_t type, const tl_trunk_job_t *job,
                          const char *name,
                          tl_packed_t **rows); //  takes rows
//  Lengths and positions are a client's claim: they index our tables, so they are checked. -1 and why.
int tl_worker_check_sequences (const tl_worker_t *self, const tl_sequence_t *sequences,
                               size_t count, uint64_t rows, tl_error_t *err);
tl_sequence_t *tl_worker_copy (const tl_sequence_t *sequences, size_t count);
//  Adds a chunk to *in. 1: whole, and moved to *whole; 0: more to come; -1: err says why not.
int tl_worker_add (tl_worker_t *self, tl_assembly_t **in, tl_assembly_t **whole,
                   const tl_message_t *message, const void *payload, size_t size, tl_error_t *err);

//  worker_step.c
void tl_worker_forget_step (tl_worker_t *self);
void tl_worker_void (
    tl_worker_t *self); //  the open step, if any, is dropped; results of older jobs are void
void tl_worker_on_plan (tl_worker_t *self, const tl_message_t *message);
void tl_worker_on_member (tl_worker_t *self, const tl_message_t *message, const void *payload,
                          size_t size);
void tl_worker_on_leave (tl_worker_t *self, const tl_message_t *message);
void tl_worker_on_abandon (tl_worker_t *self, const tl_message_t *message);

//  worker_state.c
void tl_worker_on_save (tl_worker_t *self, const tl_message_t *message);
void tl_worker_on_gather (tl_worker_t *self, const tl_message_t *message);
void tl_worker_on_state (tl_worker_t *self, const tl_message_t *message, const void *payload,
                         size_t size);
void tl_worker_on_restore (tl_worker_t *self, const tl_message_t *message);
void tl_worker_leave (tl_worker_t *self); //  saves what is committed as its own, then ends

#endif
