/*  sim: a whole run in a discrete-event simulation: the scheduler, the cost models and the chooser are the
    program's own (src/scheduler); workers, clients, links, broker, aggregator and saves are times.

    Takes a spec, gives what happened. One thread, no clock: the same spec gives the same result on any machine.
    Nothing is computed and nothing is sent. Links, the broker and every part's compute are queues: first
    come, first served; a tensor is passed on when it is whole.                                     */

#ifndef TL_SIM_H
#define TL_SIM_H

#include "spec.h"

#include "scheduler/window.h"

typedef enum {
    TL_SIM_BUSY,   //  computes
    TL_SIM_INPUT,  //  waits for rows
    TL_SIM_CREDIT, //  waits for rows that a client may not send yet
    TL_SIM_COMMIT, //  waits for its members' COMMIT
    TL_SIM_LINE,   //  its group stands at the line: other groups, aggregation, saves
    TL_SIM_SPARE,  //  serves no group
    TL_SIM_AWAY,   //  not there
    TL_SIM_STATES
} tl_sim_state_t;

extern const char *const tl_sim_state_names[TL_SIM_STATES];

enum { TL_SIM_BINS = 256 }; //  slices of time of a timeline

typedef struct {
    char *name;
    double seconds[TL_SIM_STATES];
    float (*bins)[TL_SIM_STATES]; //  [TL_SIM_BINS] seconds of each state in each slice
    uint64_t rows;                //  trained
} tl_sim_worker_result_t;

//  join: window.
typedef struct {
    uint64_t without;          //  steps that began without somebody
    double waited;             //  seconds that workers stood still for others
    char last[TL_WINDOW_TEXT]; //  how the last one of these began
} tl_sim_window_t;

//  What the aggregator made.
typedef struct {
    uint64_t averages; //  of trunks, of clients,
    uint64_t without;  //  so many of them without somebody's part,
    uint64_t missing;  //  which are so many parts in all
    uint64_t sums;     //  of a step's gradients
} tl_sim_merged_t;

typedef struct {
    uint64_t round; //  first round
    double at, line,
        end;       //  seconds: first step, all groups at the line, the next period's first step
    uint64_t rows; //  committed
    size_t groups;
    tl_inside_t inside;
    bool changed, probing;
    double predicted; //  rows/s, 0: nothing was known
    char *text;       //  the decision's sentence
} tl_sim_period_t;

typedef struct {
    double seconds; //  of the simulated run
    uint64_t rounds, steps, rows, events;
    uint64_t lost_workers, lost_clients; //  how often one was lost
    int code;                            //  0: the run ended well
    char text[512];                      //  the run's last word
    double broker_busy;                  //  seconds
    double client_busy;                  //  seconds, all clients
    double bytes;                        //  through the broker
    double bin;                          //  seconds of a slice
    tl_sim_window_t window;              //
    tl_sim_merged_t merged;              //
    uint64_t *taken;                     //  [client_count] steps that it was in
    tl_sim_worker_result_t *workers;     //  [worker_count]
    size_t worker_count, client_count;
    tl_sim_period_t *periods; //  [period_count]
    size_t period_count;
} tl_sim_result_t;

//  Runs to the end. -1 with a sentence if the run stands still.
int tl_sim_run (const tl_sim_spec_t *spec, tl_sim_result_t **result, tl_error_t *err);
void tl_sim_result_destroy (tl_sim_result_t **self_p);

//  Rows per second from period `first` on, aggregations and saves included; 0 if there are none.
double tl_sim_rows_s (const tl_sim_result_t *self, size_t first, size_t last);

#endif
