/*  scheduler: who takes part in which step, which worker serves whom, when
   replicas and adapters are made one again, when parts are saved, and how a run
   ends. Events in, actions out: no sockets, no clock, no tensors, so that it
   can be tested and simulated as it is.

    A run is periods of so many rounds (a round is one step of every live
   client). As a period begins, arrange says which client belongs to which group
   and which worker serves which group (choose.h). Groups open their steps
   independently, one at a time each; a step is a transaction: its worker's own
   word (tl_scheduler_closed) ends it. Groups meet at the line: the period's
   end, or with one group also a step that is to be saved. There, in this order:
   what several hold is merged, the parts are saved, and the next period is
   arranged. A merge is always followed by a save, so with several groups a
   period begins with what is common, and a lost worker costs its own group that
   period: it goes back and repeats on another worker (a spare one, one that
   came back, or one whose own group stands at the line).

    Clients and workers are indices into the topology. An event costs time in
   proportion to whom it is about (a group, its members), never to all clients;
   what concerns everybody (a line) costs that.             */

#ifndef TL_SCHEDULER_H
#define TL_SCHEDULER_H

#include "scheduler/choose.h"
#include "scheduler/window.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TL_SCHEDULER_CLIENTS = 65536, TL_SCHEDULER_WORKERS = 4096 };
#define TL_NOBODY TL_CHOOSE_NOBODY //  no such client, worker or group

typedef enum {
    TL_SHARE_NOTHING, //  every client keeps its own adapter
    TL_SHARE_AVERAGE, //  they are averaged at each period's end
    TL_SHARE_GRADIENT //  their gradients are summed in each step: adapters are
                      //  always one (sync)
} tl_share_mode_t;

typedef struct {
    size_t clients, workers; //  in the topology, at least 1 and at most the above
    uint64_t rounds;         //  train.steps
    uint64_t every;          //  rounds of a period, federate.every; at least 1
    uint64_t save_every;     //  one group: committed steps between common saves; 0:
                             //  only at the end
    const uint64_t *limits;  //  [clients] rounds that each takes part in at most;
                             //  NULL: all of them
    tl_share_mode_t share;   //  federate.clients
    size_t start;            //  the first step waits for so many clients; 0: for all
    bool all_workers;        //  the first period waits for every worker, not for one
    bool aggregator;         //  and for the aggregator; no merge without
    bool remembers;          //  a merge depends on those before it (federate.server)
    //  join: window. costs NULL: every step holds every live client of its group. Not with TL_SHARE_GRADIENT.
    const tl_costs_t *costs; //  lent: what waiting is judged by
    size_t micros;           //  train.micros
    int64_t window_us;       //  a step waits for others no longer than that
} tl_scheduler_config_t;

//  A place in the run: what a common save must remember beside the parts' own
//  states.
typedef struct {
    uint64_t step;      //  committed steps so far
    uint64_t round;     //  rounds begun so far in which turn is counted
    uint64_t turn;      //  one by one: index of the client whose turn is next
    uint64_t begin;     //  round in which the period began; equals round where the
                        //  next one is to be arranged
    tl_inside_t inside; //  of the one group, within a period
} tl_place_t;

typedef struct {
    size_t group, worker;
    uint64_t step, round;
} tl_step_t;

typedef enum { TL_MERGE_TRUNK, TL_MERGE_CLIENTS } tl_merge_t;

typedef struct {
    //  All groups stand at the line. undisturbed: nobody came or went, nothing
    //  was repeated in this period.
    void (*line) (void *arg, bool undisturbed);
    //  Who works with whom in the next period: groups of at least one client,
    //  workers all different.
    const tl_decision_t *(*arrange) (void *arg, const tl_present_t *present);

    //  The step opens: members are client indices, ascending. With join: window they were called before, and only the
    //  worker is to be told.
    void (*plan) (void *arg, const tl_step_t *step, const size_t *members, size_t count);
    //  join: window, else NULL. This client's PLAN: it begins, and will be in a step when it is ready. Its messages name the
    //  step as this does, whichever it will be (tl_scheduler_named).
    void (*call) (void *arg, size_t client, uint64_t step, uint64_t round);
    //  That PLAN is void, and it is in no step: it keeps its data for the next.
    void (*recall) (void *arg, size_t client, uint64_t step, const char *why);
    //  tl_scheduler_time_up for that group after so long, in place of what was asked before; 0: not at all.
    void (*timer) (void *arg, size_t group, int64_t us);
    //  That step is about to open without somebody, or stood still for somebody.
    void (*windowed) (void *arg, const tl_step_t *step, const tl_window_step_t *how);
    void (*leave) (void *arg, const tl_step_t *step,
                   size_t client); //  tell the worker
    void (*give_up) (void *arg, const tl_step_t *step,
                     const char *why); //  ask the worker to drop the open step
    void (*abandoned) (void *arg, const tl_step_t *step, const size_t *members, size_t count,
                       const char *why); //  tell members: nothing was changed

    //  Parts are going to be gathered for the step place->step: of members
    //  (workers in order of their groups, or clients). Said again when a member
    //  changed. urgent: all that will come are asked now, so that the deadline
    //  counts from here.
    void (*merge) (void *arg, tl_merge_t kind, const tl_place_t *place, const size_t *members,
                   size_t count, bool urgent);
    //  Ask who (a worker or client) for its part, the one at that place among the
    //  members.
    void (*gather) (void *arg, tl_merge_t kind, const tl_place_t *place, size_t who, size_t member);
    //  TL_MERGE_CLIENTS: the result is for all live clients, and each says
    //  tl_scheduler_client_restored; then its state is of that step.

    //  Order it of every live client, the aggregator, and the worker that holds the trunk. TL_NOBODY: none does, for
    //  it was merged, and its state is where tl_scheduler_merged was said; or the common save of that very step has it.
    void (*save) (void *arg, const tl_place_t *place, size_t worker, bool last);
    void (*common) (void *arg,
                    const tl_place_t *place); //  all parts have it: it counts
    //  These clients, of that group, go back to it. TL_NOBODY: the whole run does, the aggregator too.
    void (*restore) (void *arg, const tl_place_t *place, const size_t *clients, size_t count,
                     size_t group, const char *why);
    //  This client was away when its group went back, or is in no group: its
    //  state of step or before, nothing newer.
    void (*back) (void *arg, size_t client, uint64_t step);
    //  Give this worker the trunk of the common save; step 0: the untrained one.
    void (*equip) (void *arg, const tl_place_t *place, size_t worker);

    void (*finish) (void *arg);                           //  clients: score your held-out text
    void (*done) (void *arg, int code, const char *text); //  the run is over
    //  After done: a new worker could not be given the finished run's trunk, and
    //  nothing is left to serve.
    void (*unserved) (void *arg, const char *why);
} tl_scheduler_actions_t;

typedef enum {
    TL_RUN_WAITING,   //  for a worker, for clients, for the aggregator
    TL_RUN_STEP,      //  groups are at their steps
    TL_RUN_MERGING,   //  parts are being made one
    TL_RUN_SAVING,    //  a save is under way
    TL_RUN_RESTORING, //  everybody goes back to a common save, or workers get it
    TL_RUN_FINISHING, //  clients score their held-out text; again, from the last
                      //  save, if a worker is lost
    TL_RUN_DONE
} tl_run_state_t;

typedef struct tl_scheduler tl_scheduler_t;

//  limits are copied. Actions may not call back into the scheduler's events.
tl_scheduler_t *tl_scheduler_new (const tl_scheduler_config_t *config,
                                  const tl_scheduler_actions_t *actions, void *arg);
void tl_scheduler_destroy (tl_scheduler_t **self_p);
//  Before any event: goes on at the common save of a run whose broker is gone. Whoever joins goes back to it; the first
//  step waits for all clients that are expected ([clients]; NULL: all). ended: the run was over at that place, and nothing
//  is left but to serve it.
void tl_scheduler_resume (tl_scheduler_t *self, const tl_place_t *place, const bool *expected,
                          bool ended);
//  No step was opened since: somebody that is expected is not here, or has not gone back yet. Somebody that saved at that
//  place has an older save only: then all go back to this earlier one, once all have answered.
bool tl_scheduler_resuming (const tl_scheduler_t *self);
void tl_scheduler_resume_earlier (tl_scheduler_t *self, const tl_place_t *place);

//  A run that goes on has waited long enough: where config.start says that not all are needed, whoever is expected and not
//  here is not waited for any more, once somebody is here. True: there were such.
bool tl_scheduler_overdue (tl_scheduler_t *self);

//  Events. good false: the part could not do it; why says what.
//  join: window: the time of the events that follow, monotonic microseconds. The scheduler has no clock.
void tl_scheduler_now (tl_scheduler_t *self, int64_t us);
//  The rows of its first micro are here, whole.
void tl_scheduler_ready (tl_scheduler_t *self, size_t client);
void tl_scheduler_time_up (tl_scheduler_t *self, size_t group); //  the timer's
void tl_scheduler_join (tl_scheduler_t *self, size_t client);
void tl_scheduler_left (tl_scheduler_t *self, size_t client);
void tl_scheduler_worker_join (tl_scheduler_t *self, size_t worker);
void tl_scheduler_worker_left (tl_scheduler_t *self, size_t worker);
void tl_scheduler_aggregator_join (tl_scheduler_t *self);
void tl_scheduler_aggregator_left (tl_scheduler_t *self);
void tl_scheduler_closed (tl_scheduler_t *self, size_t worker, uint64_t step,
                          uint64_t labels); //  labels 0: nothing changed
//  That part is whole and on its way to the aggregator.
void tl_scheduler_gathered (tl_scheduler_t *self, tl_merge_t kind, size_t who, uint64_t step);
//  The trunk: the result is here, whole. Clients: it is on its way to them. Not
//  good: nothing came of it.
void tl_scheduler_merged (tl_scheduler_t *self, tl_merge_t kind, uint64_t step, bool good,
                          const char *why);
void tl_scheduler_saved (tl_scheduler_t *self, uint64_t step, bool good,
                         const char *why); //  the trunk's state is on disk
void tl_scheduler_client_saved (tl_scheduler_t *self, size_t client, uint64_t step, bool good,
                                const char *why);
void tl_scheduler_aggregator_saved (tl_scheduler_t *self, uint64_t step, bool good,
                                    const char *why);
//  code: the exit code of what kept it from going back, and the run's then; 0: nothing did.
void tl_scheduler_restored (tl_scheduler_t *self, size_t worker, uint64_t code, const char *why);
//  step: of the state that it has now, its newest up to the one it was told.
void tl_scheduler_client_restored (tl_scheduler_t *self, size_t client, uint64_t step,
                                   uint64_t code, const char *why);
void tl_scheduler_aggregator_restored (tl_scheduler_t *self, uint64_t code, const char *why);
void tl_scheduler_finished (tl_scheduler_t *self, size_t client);
//  Ends the run politely: open steps commit or, if hurry, are given up; then a
//  last save. Code for done.
void tl_scheduler_stop (tl_scheduler_t *self, bool hurry, int code, const char *why);

tl_run_state_t tl_scheduler_state (const tl_scheduler_t *self);
const char *tl_scheduler_state_name (const tl_scheduler_t *self);
tl_place_t tl_scheduler_place (const tl_scheduler_t *self); //  of the group that is furthest
uint64_t tl_scheduler_saved_step (
    const tl_scheduler_t *self); //  newest common save, 0 if none but the start
//  The run can't begin, or go on, before that client is here, or as many as it needs of such.
bool tl_scheduler_awaits (const tl_scheduler_t *self, size_t client);
//  It has what that is of.
bool tl_scheduler_in_common (const tl_scheduler_t *self, size_t client);
bool tl_scheduler_aggregator_in_common (const tl_scheduler_t *self);
size_t tl_scheduler_groups (const tl_scheduler_t *self); //  of this period; 0: none yet
//  The worker of a client's group, TL_NOBODY if it has none.
size_t tl_scheduler_worker_of (const tl_scheduler_t *self, size_t client);
//  A worker whose trunk is the run's: of the client's group if that has one,
//  else any (client TL_NOBODY: any). TL_NOBODY: none is here.
size_t tl_scheduler_server (const tl_scheduler_t *self, size_t client);
//  The client has a PLAN that isn't over and names its step so. With join: all it is then a member.
bool tl_scheduler_called (const tl_scheduler_t *self, size_t client, uint64_t step);
//  How its last PLAN names its step. With join: all it is the group's number.
uint64_t tl_scheduler_named (const tl_scheduler_t *self, size_t client);
//  That step is open now in the client's group, and the client is in it.
bool tl_scheduler_member (const tl_scheduler_t *self, size_t client, uint64_t step);
//  The merged adapter is for it.
bool tl_scheduler_takes (const tl_scheduler_t *self, size_t client);
//  What is waited for, so that anything else can be ignored: that worker's word that the step is over,
bool tl_scheduler_steps (const tl_scheduler_t *self, size_t worker, uint64_t step);
//  the trunk's state of that step for a save, the result of that merge,
bool tl_scheduler_saving (const tl_scheduler_t *self, uint64_t step);
bool tl_scheduler_merging (const tl_scheduler_t *self, tl_merge_t kind, uint64_t step);
//  a worker's RESTORED, a client's, its FINISHED.
bool tl_scheduler_equipping (const tl_scheduler_t *self, size_t worker);
bool tl_scheduler_returning (const tl_scheduler_t *self, size_t client);
bool tl_scheduler_finishing (const tl_scheduler_t *self, size_t client);
uint64_t tl_scheduler_step_of (const tl_scheduler_t *self,
                               size_t client); //  of its group

#endif
