/*  choose: which arrangement the next period gets: how many groups, on which workers, which client in
    which group, and whether a group's clients share their forwards.

    Takes who is live and what was measured (cost.h), gives an arrangement, its predicted rows per second
    beside those of every other candidate, and a sentence that says why. A pinned mode fixes the number of
    groups and whether they are batched; who goes where is decided here as well. Pure: no clock, no
    sockets; the same measurements give the same decisions.                                         */

#ifndef TL_CHOOSE_H
#define TL_CHOOSE_H

#include "cost.h"

enum { TL_CHOOSE_TEXT = 512, TL_CHOOSE_CANDIDATES = 64 };
#define TL_CHOOSE_NOBODY SIZE_MAX

typedef enum {
    TL_CHOOSE_SERIAL, //  one group, one client a step
    TL_CHOOSE_BATCH,  //  one group, all clients in each step
    TL_CHOOSE_FANOUT, //  as many groups as workers and clients allow, batched
    TL_CHOOSE_AUTO    //  whatever is predicted to be fastest
} tl_choose_mode_t;

typedef enum {
    TL_INSIDE_SERIAL,  //  one client a step, in topology order
    TL_INSIDE_BATCHED, //  all of the group's clients in each step
    TL_INSIDE_ALTERNATE //  probing: rounds begun batched, one by one, batched ... (period's round 0 batched)
} tl_inside_t;

typedef struct {
    tl_choose_mode_t mode;
    size_t workers, clients; //  in the topology
    size_t micros;           //  train.micros
    double hysteresis; //  schedule.hysteresis: a change must promise that much more, 0.03 = 3 %
} tl_choose_config_t;

//  Who is here as the period begins. Indices ascend.
typedef struct {
    const size_t *clients, *workers;   //  [client_count], [worker_count]
    size_t client_count, worker_count; //  both at least 1
    size_t holder;                     //  a worker with the newest trunk, or TL_CHOOSE_NOBODY
    uint64_t rounds;                   //  of the coming period, at least 1
    bool merges;    //  even a single group aggregates at the line (clients: average)
    bool disturbed; //  somebody came or went at the line: what it took is no measure
} tl_present_t;

typedef struct {
    size_t groups;
    tl_inside_t inside;
    double rows_s; //  predicted, rows per second over the period, aggregation included
} tl_candidate_t;

typedef struct {
    //  What to do. Owned by the chooser, good until the next tl_choose_next or tl_choose_destroy.
    size_t groups;        //  at least 1, no group is empty
    tl_inside_t inside;   //
    const size_t *worker; //  [groups] who serves it
    const size_t *group;  //  [clients in the topology] its group; TL_CHOOSE_NOBODY: not live
    //  Why.
    bool changed;    //  other groups or inside than in the last period
    bool rearranged; //  some client has another worker than in the last period (true with changed)
    bool probing;    //  to learn, not because it is predicted to be best
    double rows_s;   //  predicted for this arrangement; 0: nothing is known yet
    double best_s;   //  predicted for the best candidate
    size_t candidate_count;
    tl_candidate_t candidates[TL_CHOOSE_CANDIDATES]; //  best first
    char text[TL_CHOOSE_TEXT]; //  a sentence with the numbers, for the log and run.db
} tl_decision_t;

typedef struct tl_choose tl_choose_t;

tl_choose_t *tl_choose_new (const tl_choose_config_t *config);
void tl_choose_destroy (tl_choose_t **self_p);

//  Where measurements go: tl_costs_note (tl_choose_costs (self), ...). Until tl_choose_restore, which makes others.
tl_costs_t *tl_choose_costs (tl_choose_t *self);

//  The period that tl_choose_next arranged last is over: rows committed in it, and the time from its first
//  PLAN until the last group stood at the line (without the aggregation: that is TL_COST_MERGE). Call it
//  before tl_choose_next, and only if the period ran undisturbed: nobody left or joined a group, nothing
//  was repeated. Otherwise leave it out.
void tl_choose_measured (tl_choose_t *self, uint64_t rows, int64_t us);

//  Decides the next period. Call it once a period, at the line.
const tl_decision_t *tl_choose_next (tl_choose_t *self, const tl_present_t *present);

//  Costs, probing, hysteresis and the arrangement as JSON text, and back; a chooser that is restored decides
//  as the saved one would have. The caller frees the text.
char *tl_choose_state (const tl_choose_t *self);
int tl_choose_restore (tl_choose_t *self, const char *text, tl_error_t *err);

#endif
