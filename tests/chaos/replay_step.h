/*  replay_step: what the files of replay share: the parts that it computes with, what they were after each step, and one step
    or one average of them. Nobody else includes it.

    replay.c       what was told, and in which order it happened
    replay_step.c  states and arithmetic                                                            */

#ifndef REPLAY_STEP_H
#define REPLAY_STEP_H

#include "chaos/replay.h"
#include "fed/aggregate.h"
#include "fed/site.h"
#include "fed/trunk.h"

enum { REPLAY_STEPS = 256, REPLAY_MICROS = 4, REPLAY_SESSIONS = 32, REPLAY_WORKERS = 3 };

typedef struct {
    void *data; //  NULL: none
    size_t size;
} blob_t;

//  A part's state by how many of the run's steps were committed when it became so, and what was there before it went back.
typedef struct {
    blob_t now[REPLAY_STEPS + 1], older[REPLAY_STEPS + 1];
} past_t;

//  What an actor told, in its order.
typedef struct {
    const json_t **events;
    size_t *sessions; //  a client's: in which of its sessions, from 1
    size_t count, next;
} told_t;

typedef struct {
    const char *name;
    tl_site_t *site;
    told_t told;
    past_t past;
    size_t session;            //  it is in, as the broker told so far
    size_t left_in;            //  it left the open step in that one; 0: it did not
    bool away, was_away, ever; //  now; since the last step; at all
    bool stale;                //  it was, and must be given a mean before it takes part
    uint64_t saved;            //  the newest common save that it was there for
    uint64_t
        due[REPLAY_SESSIONS]; //  the same as it last was told to go back, or began, in each session
    bool at_work;             //  it has had a share of a step in the session that it told of last
    size_t taken;             //  the mean that it took over last, from 1
    blob_t untold;            //  what it is if it made an update and was killed before it told so
    uint64_t untold_step;     //
    //  Of the step at hand
    uint64_t round;         //  in which it was planned
    size_t rows, gradients; //  micros of which the trunk had them
    bool left;              //  the worker heard that it had left
    const json_t *update;   //  what it told of its own, or NULL
    uint64_t own;           //  label tokens of its own
    double nll;
} site_t;

typedef struct {
    const char *name;
    tl_trunk_t *trunk;
    told_t told;
    bool ever; //  it has left
} worker_t;

//  A mean of the clients' adapters.
typedef struct {
    double time;
    uint64_t at; //  committed steps
    blob_t blob;
} mean_t;

typedef struct {
    const stage_t *stage;
    const part_t *up;
    const tl_topology_t *topology;
    site_t sites[CASE_SITES];
    worker_t workers[REPLAY_WORKERS];
    size_t count, worker_count, micros;
    past_t past; //  the trunk's: after each step with one group, as it was made one with several
    struct {
        blob_t blob; //  the group's replica after its last step of the period
        uint64_t labels;
    } replicas[REPLAY_WORKERS];
    tl_aggregate_t *aggregates[2]; //  of trunks, of clients
    mean_t means[REPLAY_STEPS];    //  of clients
    size_t mean_count;
    size_t groups;
    uint64_t committed, back_to; //  steps; the common save that all went back to last
    bool is_back;                //  and no step was made since
    bool is_up;                  //  another broker that is up then has begun the run anew
    bool serial;                 //  a step is one site's
    size_t turn;                 //  serial: whose is the next; CASE_SITES: not known
    replay_t result;
} run_t;

//  Ends the test unless good.
void replay_must (const run_t *self, bool good, const tl_error_t *err);
double replay_real (const json_t *event, const char *key);
site_t *replay_site (run_t *self, const char *name);

void replay_put (blob_t *to, blob_t blob); //  takes blob
void replay_back_to (past_t *self, uint64_t step);
//  older: as it was before it last went back.
blob_t replay_as_of (const past_t *self, uint64_t step, bool older);
void replay_clear (past_t *self);
blob_t replay_site_blob (const tl_site_t *site);
blob_t replay_trunk_blob (tl_trunk_t *trunk);
void replay_set_site (const run_t *self, tl_site_t *site, blob_t blob); //  no data: the start
void replay_set_trunk (const run_t *self, tl_trunk_t *trunk, blob_t blob);

//  The step that the worker told of, by the sites whose rows it had, and what each told compared with it. sum: whose
//  gradients were summed, or NULL.
void replay_compute (run_t *self, worker_t *worker, size_t group, const json_t *it,
                     const json_t *sum);
void replay_forget_replica (run_t *self, size_t group); //  it made no step of the period
//  The groups' replicas are made one; or the adapters of those members.
void replay_merge_trunk (run_t *self);
void replay_merge_clients (run_t *self, const json_t *made);
void replay_keep (run_t *self); //  what was made is a common save
void replay_undo (run_t *self,
                  uint64_t step); //  it is not, and all that came of it goes back to that step

//  The adapter that it left is what was computed again.
void replay_check_site (run_t *self, site_t *site);
void replay_check_trunk (run_t *self, worker_t *worker, uint64_t steps);

#endif
