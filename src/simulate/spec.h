/*  spec: what is simulated, from a YAML file: populations of workers and clients with their speed, links, arrivals,
    failures and stragglers; how the run is scheduled; what broker, aggregator and saves cost.

    Read with the topology's own reader: unknown keys, types and ranges are refused with file:line:column.  */

#ifndef TL_SIM_SPEC_H
#define TL_SIM_SPEC_H

#include "error.h"
#include "scheduler/scheduler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TL_SIM_MOST_WORKERS = 4096, TL_SIM_MOST_CLIENTS = 65536 };

//  Entries of workers: and clients: alike; a key that has no meaning for one of them is none of its keys.
typedef struct {
    char *name;     //  of the population; its members are NAME-1 and on if it has several
    size_t count;   //  members
    size_t rows;    //  client: of each of its micros
    uint64_t steps; //  client: rounds it takes part in; 0: all
    struct {
        double base_ms, us_per_row; //  of every job
        double backward;            //  worker: a backward takes so many times a forward
        double front, tail, back;   //  client: its three jobs of a micro, times the above
        double whole;               //  client, split: none: its one job of a micro; 0: not said
        double update_ms;           //  optimizer step
        double jitter;              //  standard deviation of each job's time, relative
        double straggle, slower;    //  share of jobs that take `slower` times as long
        double changes_by;          //  all of it takes so many times as long ...
        uint64_t changes_at;        //  ... from this round on; 0: never
    } compute;
    struct {
        double latency_ms; //  one way, to the broker
        double mbit_s;     //  each way; 0: unlimited
    } link;
    struct {
        double at_s, over_s; //  joins at at_s, members evenly over over_s
    } arrives;
    struct {
        double every_s,
            back_s; //  mean time until it fails (0: never), and until it is back (0: never)
    } fails;
} tl_sim_population_t;

typedef struct {
    char *source; //  the file's path, for messages
    char *name;
    uint64_t seed, rounds, micros;
    uint64_t hidden;   //  columns of a row
    int value_bytes;   //  of a number on the wire
    int mode;          //  tl_choose_mode_t
    bool window;       //  join: window
    int64_t window_ms; //
    double hysteresis;
    uint64_t every;             //  rounds of a period
    int share;                  //  tl_share_mode_t
    uint64_t quorum;            //  parts that an average needs
    double deadline_s;          //  it goes on after so long without who is late; 0: never
    bool whole;                 //  split: none
    uint64_t save_every;        //  steps between saves, with one group
    double save_ms;             //  a part writes its save
    double trunk_mb, client_mb; //  state of a trunk's, a client's adapter and optimizer
    double merge_base_ms, merge_ms_per_mb; //  the aggregator's work
    double broker_mb_s,
        broker_us;    //  what the broker forwards (0: unlimited), and its work for a message
    double credit_mb; //  a client may have so much under way; 0: a whole step
    double notice_ms; //  until the broker knows that a part is gone
    tl_sim_population_t *workers, *clients;
    size_t worker_kinds, client_kinds;
    size_t worker_count, client_count; //  members of all
} tl_sim_spec_t;

//  Reads and checks path with overrides "a.b=c". NULL on failure; err then has code TL_BAD_INPUT.
tl_sim_spec_t *tl_sim_spec_read (const char *path, const char *const *overrides, size_t count,
                                 tl_error_t *err);
//  The same from text; name is the file's, for messages.
tl_sim_spec_t *tl_sim_spec_parse (const char *name, const char *text, size_t size,
                                  const char *const *overrides, size_t count, tl_error_t *err);
void tl_sim_spec_destroy (tl_sim_spec_t **self_p);
//  Something is made of what several hold.
bool tl_sim_spec_aggregates (const tl_sim_spec_t *self);

#endif
