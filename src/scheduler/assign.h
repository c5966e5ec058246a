/*  assign: how long a round takes for a group of clients on a worker, and who goes where so that the slowest
    of g groups is as fast as can be. A snapshot of the costs, taken once a decision, so that thousands of
    clients are dealt out for every candidate in milliseconds. Internal to choose.c.               */

#ifndef TL_ASSIGN_H
#define TL_ASSIGN_H

#include "choose.h"

//  A straight line over rows, us.
typedef struct {
    double base, per_row;
} tl_line_t;

typedef struct {
    size_t index;                      //  in the topology
    tl_line_t forward, backward, trip; //  of one micro
    tl_line_t update;                  //  of a step
    bool known;                        //  measured
} tl_assign_worker_t;

typedef struct {
    size_t index;            //  in the topology
    double rows;             //  of one micro
    double front, tail, end; //  turnarounds, us
    double pace;             //  shortest time between two of its micros, us
    double spread;           //  of the turnarounds, summed, us
    double late;             //  how many of a step's turnarounds are far too long,
    double delay;            //  and what they add to a step on average, us
} tl_assign_client_t;

typedef struct {
    tl_assign_worker_t *workers; //  [worker_count], fastest first
    tl_assign_client_t *clients; //  [client_count], as in present
    size_t worker_count, client_count;
    size_t micros;
    bool measured; //  a worker is known; else all count alike, and times mean nothing
    double rows;   //  of a round, all clients and micros
    size_t *order; //  [client_count] the most time-consuming first
    size_t *slow;  //  [client_count] the longest turnarounds first
} tl_assign_t;

//  Equal workers are put in this order: the holder, then those in use (used [index] true), then by index;
//  unknown_first: workers that were never measured before all others.
void tl_assign_init (tl_assign_t *self, const tl_costs_t *costs, const tl_present_t *present,
                     size_t micros, const bool *used, bool unknown_first);
void tl_assign_release (tl_assign_t *self);

//  Deals all clients to exactly `groups` groups, served by the fastest workers; group [at in clients] is an index of
//  self->workers, below groups. Returns the slowest group's round in us. groups <= both counts.
double tl_assign_deal (const tl_assign_t *self, size_t groups, tl_inside_t inside, size_t *group);

//  The slowest group's round in us if they are dealt so; group [at] indexes self->workers.
double tl_assign_round (const tl_assign_t *self, tl_inside_t inside, const size_t *group);

#endif
