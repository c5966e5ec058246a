/*  schedule: who takes part in which step, when parts are saved, and how a run ends. Events in, actions
    out: no sockets, no clock, no tensors, so that it can be tested and simulated as it is.

    Modes: serial, one client a step, round-robin in topology order; batch, every live client in every
    step, rows in topology order (join: all). A round is one step of every live client: train.steps
    rounds make a run. A step is a transaction: the worker's own word (tl_scheduler_closed) ends it.  */

#ifndef TL_SCHEDULER_H
#define TL_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TL_SCHEDULER_CLIENTS = 4096 };

//  A place in the run: what a common save must remember beside the parts' own states.
typedef struct {
    uint64_t step;  //  committed steps so far
    uint64_t round; //  rounds begun so far in which turn is counted
    uint64_t turn;  //  serial: index of the client whose turn is next
} tl_place_t;

typedef struct {
    bool serial;         //  else batch
    size_t clients;      //  in the topology, <= TL_SCHEDULER_CLIENTS
    uint64_t rounds;     //  train.steps
    uint64_t save_every; //  committed steps between common saves; 0: only at the end
} tl_scheduler_config_t;

typedef struct {
    //  The step opens: members are client indices, ascending.
    void (*plan) (void *arg, uint64_t step, uint64_t round, const size_t *members, size_t count);
    void (*leave) (void *arg, uint64_t step, size_t client); //  tell the worker
    void (*give_up) (void *arg, uint64_t step,
                     const char *why); //  ask the worker to drop the open step
    void (*abandoned) (void *arg, uint64_t step,
                       const char *why); //  tell members: nothing was changed
    void (*save) (void *arg, const tl_place_t *place, bool last); //  order it of every live part
    void (*common) (void *arg, const tl_place_t *place);          //  all parts have it: it counts
    void (*restore) (void *arg, const tl_place_t *place,
                     const char *why); //  back to it, all live parts
    //  This client was away when the run went back: its state of step or before, nothing newer.
    void (*back) (void *arg, size_t client, uint64_t step);
    void (*finish) (void *arg);                           //  clients: score your held-out text
    void (*done) (void *arg, int code, const char *text); //  the run is over
    //  After done: a new worker could not be given the finished run's trunk, and nothing is left to serve.
    void (*unserved) (void *arg, const char *why);
} tl_scheduler_actions_t;

typedef enum {
    TL_RUN_WAITING,   //  for the worker, for clients
    TL_RUN_STEP,      //  a step is open
    TL_RUN_SAVING,    //  a save is under way
    TL_RUN_RESTORING, //  parts go back to a common save
    TL_RUN_FINISHING, //  clients score their held-out text; again, from the last save, if the worker is lost
    TL_RUN_DONE
} tl_run_state_t;

typedef struct tl_scheduler tl_scheduler_t;

tl_scheduler_t *tl_scheduler_new (const tl_scheduler_config_t *config,
                                  const tl_scheduler_actions_t *actions, void *arg);
void tl_scheduler_destroy (tl_scheduler_t **self_p);
//  Before any event: goes on at the common save of a run whose broker is gone. When everybody is there who is expected
//  ([clients]; NULL: all), all parts go back to it, then the next step opens. ended: the run was over at that place, and
//  nothing is left but to serve it.
void tl_scheduler_resume (tl_scheduler_t *self, const tl_place_t *place, const bool *expected,
                          bool ended);

//  Events. good false: the part could not do it; why says what.
void tl_scheduler_join (tl_scheduler_t *self, size_t client);
void tl_scheduler_left (tl_scheduler_t *self, size_t client);
void tl_scheduler_worker_join (tl_scheduler_t *self);
void tl_scheduler_worker_left (tl_scheduler_t *self);
void tl_scheduler_closed (tl_scheduler_t *self, uint64_t step,
                          uint64_t labels); //  labels 0: nothing changed
void tl_scheduler_saved (tl_scheduler_t *self, uint64_t step, bool good,
                         const char *why); //  worker
void tl_scheduler_client_saved (tl_scheduler_t *self, size_t client, uint64_t step, bool good,
                                const char *why);
void tl_scheduler_restored (tl_scheduler_t *self, bool good, const char *why); //  worker
void tl_scheduler_client_restored (tl_scheduler_t *self, size_t client, bool good, const char *why);
void tl_scheduler_finished (tl_scheduler_t *self, size_t client);
//  Ends the run politely: the open step commits or, if hurry, is given up; then a last save. Code for done.
void tl_scheduler_stop (tl_scheduler_t *self, bool hurry, int code, const char *why);

tl_run_state_t tl_scheduler_state (const tl_scheduler_t *self);
const char *tl_scheduler_state_name (const tl_scheduler_t *self);
tl_place_t tl_scheduler_place (const tl_scheduler_t *self);
uint64_t tl_scheduler_saved_step (
    const tl_scheduler_t *self); //  newest common save, 0 if none but the start
bool
tl_scheduler_serves (const tl_scheduler_t *self); //  a worker is here, and its trunk is the run's
bool tl_scheduler_member (const tl_scheduler_t *self,
                          size_t client); //  of the open step, and still in it
bool tl_scheduler_open (const tl_scheduler_t *self, uint64_t step); //  that step is open now

#endif
