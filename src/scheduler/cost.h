/*  cost: what the broker has learnt about how long things take: a worker's forward and backward of n
    rows (a + b·n), its update, the way to it and back, each client's turnarounds, an aggregation.

    Takes measured times one by one, gives expectations. Recursive least squares that forgets: a load
    that changes is followed within a few measurements, the shape (a against b) is kept while nothing
    tells more about it. No clock: whoever measures passes microseconds.                             */

#ifndef TL_COST_H
#define TL_COST_H

#include "error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    //  who: a worker's index. Once a job, not once a member.
    TL_COST_FORWARD,  //  rows: of the job; the compute time that came back with HIDDEN
    TL_COST_BACKWARD, //  rows: of the job; the compute time that came back with GRAD_IN
    TL_COST_UPDATE,   //  rows: without meaning; the compute time that came back with COMMITTED
    TL_COST_TRIP,     //  rows: of the job; from its last member's last byte at the broker until the
    //  answer's last byte is back, less the compute time. Note it only if the worker
    //  had nothing else to do meanwhile: what waits for another job is no trip.
    //  who: a client's index. Link and compute together, as the broker sees it.
    TL_COST_FRONT, //  rows: of the micro; from PLAN until the first micro's ACTIVATION is complete
    TL_COST_TAIL, //  rows: of the micro; from HIDDEN (last byte handed on) until its GRADIENT is complete
    TL_COST_END, //  rows: of the micro; from the last GRAD_IN (last byte handed on) until COMMIT
    TL_COST_PACE, //  rows: of a micro; steps of several micros: time from the first GRADIENT to the last,
                  //  divided by micros - 1
    //  who: how many groups there were (1: only the clients' adapters came together).
    TL_COST_MERGE, //  rows: 0; from the moment all groups stood at the line until the next step may
                   //  open, when there was an aggregation (and the save that goes with it)
    TL_COST_KINDS
} tl_cost_t;

//  An expectation.
typedef struct {
    double us;     //  mean, microseconds
    double spread; //  standard deviation around it, microseconds
    double late;   //  share of events that take much longer than that,
    double delay;  //  which makes an event so much longer on average, microseconds
} tl_expect_t;

typedef struct tl_costs tl_costs_t;

tl_costs_t *tl_costs_new (size_t workers, size_t clients);
void tl_costs_destroy (tl_costs_t **self_p);

//  One measurement. who is checked by the caller (an index below workers or clients; any number of
//  parts); us < 0 and absurd values (above a day) are ignored, a peer could cause them.
void tl_costs_note (tl_costs_t *self, tl_cost_t what, size_t who, uint64_t rows, int64_t us);
//  TL_COST_PACE. Among others a client's micros come no quicker than theirs do: that tells of it only that it is no slower.
void tl_costs_note_pace (tl_costs_t *self, size_t client, uint64_t rows, int64_t us, bool alone);
//  A period begins or ends: while states are on their way everybody is late at once, and it is nobody's own doing.
void tl_costs_unsettle (tl_costs_t *self);
//  Somebody came or went at the line: until this says otherwise, an aggregation that is noted took longer than one takes.
void tl_costs_doubt_merge (tl_costs_t *self, bool doubt);
//  Another peer, or another machine, stands behind this index now: what was known of it is forgotten.
void tl_costs_forget_worker (tl_costs_t *self, size_t worker);
void tl_costs_forget_client (tl_costs_t *self, size_t client);

//  Was this worker's forward and backward ever measured?
bool tl_costs_known (const tl_costs_t *self, size_t worker);
//  Expected time of one event. An unmeasured worker is expected to be as fast as the median of the
//  measured ones, an unmeasured client likewise; with nothing measured at all it is 0.
tl_expect_t tl_costs_expect (const tl_costs_t *self, tl_cost_t what, size_t who, double rows);
//  The same as a straight line over rows: us = base + per_row * rows. For workers.
void tl_costs_line (const tl_costs_t *self, tl_cost_t what, size_t worker, double *base,
                    double *per_row);
//  Mean rows of one of this client's micros; of all clients' if it is unmeasured, 0 if nobody is.
double tl_costs_rows (const tl_costs_t *self, size_t client);

//  Everything as JSON and back, exactly; the caller owns the value. Reading refuses what doesn't fit
//  the numbers of workers and clients, and anything that is no finite number, with a sentence.
json_t *tl_costs_state (const tl_costs_t *self);
int tl_costs_restore (tl_costs_t *self, const json_t *state, tl_error_t *err);

#endif
