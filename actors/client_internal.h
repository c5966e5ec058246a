//  client_internal: what the client's files share. Nobody else includes it.

#ifndef TL_CLIENT_INTERNAL_H
#define TL_CLIENT_INTERNAL_H

#include "actors/ask.h"
#include "actors/client.h"
#include "actors/footprint.h"
#include "actors/peer.h"
#include "actors/site_job.h"
#include "actors/synthetic.h"
#include "actors/unison.h"
#include "actors/weights.h"

//  States of the actor.
enum {
    TL_CLIENT_JOINING,
    TL_CLIENT_IDLE,
    TL_CLIENT_FORWARD,
    TL_CLIENT_COMMITTING,
    TL_CLIENT_SCORING,
    TL_CLIENT_STOPPING,
    TL_CLIENT_OVER
};

struct tl_client {
    tl_client_config_t config;
    const tl_topology_t *topology;
    const char *name;
    int state;
    bool came; //  had a session once
    tl_actor_t *actor;
    tl_compute_t *compute;
    tl_peer_t *peer;
    const tl_site_work_t *work;     //  what a job does
    tl_site_t *site;                //  the compute thread's while jobs are pending; NULL: synthetic
    tl_synthetic_part_t *synthetic; //  in its place, or NULL
    size_t hidden;
    size_t rows, longest; //  of the largest micro, of the longest sequence
    tl_weights_t weights; //  what its files hold
    uint64_t window;
    bool wants_gradient;
    char *directory; //  of our saves
    bool settled;    //  it is this run's
    uint64_t run;    //  that the saves belong to; 0 before the first session
    uint64_t epoch;  //  work of an older epoch is void
    uint64_t step,
        round; //  of the open step; else step is how many were committed, as far as we know
    size_t micros, tails, backs;              //  of it: all, tails done, backwards done
    bool open;                                //  a step is open
    tl_assembly_t **hidden_in, **gradient_in; //  [micros] coming in
    int64_t step_began;
    uint64_t bytes_before; //  on the wire when the step began
    double nll;            //  of the open step
    uint64_t labels;
    tl_ask_t *ask;       //  scores held-out text; NULL: synthetic
    tl_unison_t *unison; //  averages and sums with the other clients; NULL: synthetic
    uint64_t has,
        lacks; //  our adapter is of step has, and we were to go on at the later step lacks; 0: it is of that
    uint64_t lost;     //  the one of which we last said so
    tl_error_t failed; //  why it can't go on: what it holds is being saved; code TL_OK: it can
    tl_footprint_t footprint;
    tl_client_totals_t totals;
};

//  client.c
void tl_client_go (tl_client_t *self, int state, const char *event);
void tl_client_end (tl_client_t *self, int code, const char *text);
tl_site_job_t *tl_client_job (tl_client_t *self, tl_site_job_fn *done);        //  of the open step
void tl_client_submit (tl_client_t *self, tl_job_fn *run, tl_site_job_t *job); //  takes job over

//  client_leave.c
void tl_client_fail (tl_client_t *self, uint64_t step, int code, const char *text);

//  client_step.c
void tl_client_forget_step (tl_client_t *self);
void tl_client_void (tl_client_t *self, const char *why); //  whatever was under way; jobs too
void tl_client_on_plan (tl_client_t *self, const tl_message_t *message);
//  A chunk of HIDDEN or GRAD_IN.
void tl_client_on_rows (tl_client_t *self, const tl_message_t *message, const void *payload,
                        size_t size);
void tl_client_on_summed (void *self, const tl_summed_t *summed); //  unison's callback
void tl_client_on_committed (tl_client_t *self, const tl_message_t *message);

#endif
