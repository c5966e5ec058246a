//  sim_internal: the simulated world, for sim.c (parts, scheduler), sim_step.c (a step's way), sim_merge.c (what comes
//  together) and sim_line.c (saves, restores).

#ifndef TL_SIM_INTERNAL_H
#define TL_SIM_INTERNAL_H

#include "queue.h"
#include "sim.h"

#include "scheduler/scheduler.h"

//  What happens; who, stage and micro as noted.
typedef enum {
    EV_WORKER_JOINS, //  worker
    EV_WORKER_FAILS, //
    EV_WORKER_GONE,  //  the broker knows it
    EV_CLIENT_JOINS, //  client
    EV_CLIENT_FAILS, //
    EV_CLIENT_GONE,  //
    EV_PLAN,         //  client has its PLAN
    EV_CLIENT_DONE,  //  client; stage: front, tail, back; micro
    EV_BROKER_IN,    //  from the client; stage: ACTIVATION, GRADIENT, COMMIT; micro
    EV_WORKER_READY, //  worker; all it needs for stage, micro is there
    EV_WORKER_DONE,  //  worker; stage, micro
    EV_BROKER_OUT,   //  for the client, at the broker; stage: HIDDEN, GRAD_IN; micro
    EV_CLIENT_GETS,  //  client; stage, micro
    EV_CREDIT,       //  client has credit back for a tensor
    EV_SUMMED,       //  client has the sum of the step's gradients
    EV_CLOSED,       //  worker; its COMMITTED is at the broker
    EV_READY,        //  client: join: window, its first rows are at the broker
    EV_TIME_UP,      //  a group's timer, who
    EV_GATHERED,     //  who; stage: kind of merge; micro: its step. The part is at the broker
    EV_PART,         //  the same, at the aggregator
    EV_LATE,         //  stage: kind of merge, whose deadline is over
    EV_MERGED,       //  stage: kind of merge
    EV_TRUNK_MERGED, //  micro: its step. The result is at the broker
    EV_STORE_SAVED,  //  a merged trunk, on the broker's disk
    EV_WORKER_SAVED, //  worker; its trunk's state, at the broker
    EV_CLIENT_SAVED, //
    EV_AGGREGATOR_SAVED,
    EV_WORKER_RESTORED,
    EV_CLIENT_RESTORED,
    EV_AGGREGATOR_RESTORED,
    EV_FINISHED, //  client
} tl_sim_kind_t;

//  The first two are tl_merge_t's; the third is of a step's gradients (sync).
enum { MERGE_SUM = TL_MERGE_CLIENTS + 1, MERGES };

typedef enum { PART_MISSING, PART_HERE, PART_GONE } tl_sim_part_t;

//  A member's place in a merge.
typedef struct {
    size_t who;
    tl_sim_part_t part;
} tl_sim_place_t;

//  What the aggregator gathers of one kind.
typedef struct {
    bool open, computing, late;
    uint64_t step;
    tl_sim_place_t *places; //  [count]
    size_t count, room;     //
    size_t here, missing;   //  of them
    size_t quorum;          //
    uint32_t epoch;         //  events of an older one are void
} tl_sim_gathering_t;

//  GATHER that is not answered yet.
typedef struct {
    uint64_t step; //  of it, and 1; 0: none
    size_t place;  //  among its members
} tl_sim_asked_t;

//  The last one is of a client's gradient, on its way to the aggregator.
enum { FORWARD, BACKWARD, COMMIT, GRADIENT_PART, STAGES };

typedef struct {
    const tl_sim_population_t *kind;
    bool alive;
    uint32_t epoch;
    int64_t free_at;        //  compute
    int64_t up_at, down_at; //  link, from it and to it
    uint64_t drawn;         //  random numbers so far, for its jobs
    uint64_t fates;         //  and for when it goes and is back: the same whatever it computes
    //  The step under way.
    size_t worker;            //  TL_NOBODY: none
    bool called;              //  join: window: it has a PLAN
    uint64_t round;           //  of its PLAN
    int64_t plan_at;          //  when PLAN went out
    uint32_t arrived[STAGES]; //  of its messages, at the broker
    uint32_t sent[STAGES];    //  by it, credit permitting
    uint32_t made[STAGES];    //  computed: what is made and not sent waits for credit
    uint32_t backs;           //  of its front's backwards done
    int64_t *handed;          //  [micros] when HIDDEN was handed on
    int64_t first_gradient, handed_last;
    double under_way; //  bytes
    size_t summand;   //  sync: its place in the step's sum
    tl_sim_asked_t asked;
} tl_sim_client_t;

typedef struct {
    uint32_t expected, arrived, answered; //  members; answers at the broker
    bool fired;                           //  the job is in its queue or beyond
    bool alone;                           //  it began the moment its input was there
    uint64_t rows;
    int64_t ready_at; //  last byte at the worker
    int64_t last_in;  //  last byte at the broker
    int64_t us;       //  compute time of the job
} tl_sim_job_t;

typedef struct {
    const tl_sim_population_t *kind;
    bool alive;
    uint32_t epoch;
    int64_t free_at, up_at, down_at;
    uint64_t drawn, fates;
    bool grouped; //  serves a group in this period
    bool open;    //  a step is
    uint64_t step, round;
    size_t *members; //  [member_count] clients
    size_t member_count, member_room;
    tl_sim_job_t *jobs[2]; //  [micros] forward, backward
    tl_sim_job_t commit;
    uint32_t jobs_done; //  backwards
    uint32_t queued;    //  jobs in its queue or computing
    uint32_t blocked;   //  members that wait for credit
    uint64_t rows;      //  of the step
    tl_sim_asked_t asked;
    tl_sim_state_t state;
    int64_t since; //  of state
} tl_sim_worker_t;

typedef struct {
    const tl_sim_spec_t *spec;
    tl_sim_result_t *result;
    tl_scheduler_t *scheduler;
    tl_choose_t *choose;
    tl_costs_t *costs; //  the chooser's
    tl_sim_queue_t queue;
    int64_t now; //  ns
    tl_sim_worker_t *workers;
    tl_sim_client_t *clients;
    uint32_t *timers;  //  [worker_count] of groups: epochs, what is older is void
    int64_t broker_at; //  free from
    int64_t bin;       //  ns of a slice of time
    bool done;
    //  The period under way.
    int64_t period_at; //  first PLAN; -1: not yet
    int64_t line_at;
    uint64_t period_rows;
    size_t period_room;
    tl_sim_gathering_t gatherings[MERGES];
    int64_t aggregator_at; //  it is free from
    size_t merged_parts;   //  groups whose trunks came together at this line; 0: nothing was merged
    uint64_t save_step;
    uint64_t furthest; //  step that was ever closed, and one
    int64_t progress;  //  events since a further one was
} tl_sim_t;

//  --- sim.c
void tl_sim_put (tl_sim_t *self, int64_t at, tl_sim_kind_t kind, size_t who, int stage,
                 size_t micro, uint32_t epoch);
//  A resource that is free from *free_at on is taken for `time`, from `at` on at the earliest: when it's done.
int64_t tl_sim_take (int64_t *free_at, int64_t at, int64_t time);
//  ns that bytes take at a rate; 0 is unlimited.
int64_t tl_sim_wire (double bytes, double mbit_s);
int64_t tl_sim_broker (tl_sim_t *self, double bytes); //  takes it through the broker, from now on
int64_t tl_sim_ms (double ms);
//  A job's time in ns, of somebody whose nth draw this is.
int64_t tl_sim_job_time (tl_sim_t *self, const tl_sim_population_t *kind, double times, double rows,
                         uint64_t round, uint64_t who, uint64_t *drawn);
int64_t tl_sim_update_time (const tl_sim_population_t *kind, uint64_t round);
void tl_sim_worker_state (tl_sim_t *self,
                          size_t worker); //  notes the time since, and what it is now

//  --- sim_step.c: a step's events and actions
void tl_sim_step_actions (tl_scheduler_actions_t *actions); //  of join: window
void tl_sim_step_recall (tl_sim_t *self, size_t client);    //  and it is void, if it has one
void tl_sim_step_plan (tl_sim_t *self, const tl_step_t *step, const size_t *members, size_t count);
void tl_sim_step_leave (tl_sim_t *self, size_t worker, size_t client);
void tl_sim_step_drop (tl_sim_t *self, size_t worker); //  abandoned: nothing of it comes any more
void tl_sim_step_event (tl_sim_t *self, const tl_sim_event_t *event);

//  --- sim_merge.c: parts that several hold become one
void tl_sim_merge_actions (tl_scheduler_actions_t *actions);
void tl_sim_merge_event (tl_sim_t *self, const tl_sim_event_t *event);
void tl_sim_merge_sum (tl_sim_t *self, uint64_t step, const size_t *members, size_t count);
//  That client's gradient is at the broker: it goes on at that time.
void tl_sim_merge_summand (tl_sim_t *self, size_t client, uint64_t step, int64_t at);
void tl_sim_merge_left (tl_sim_t *self, size_t client); //  it goes on without its parts
void tl_sim_merge_void (tl_sim_t *self);                //  the run goes back: nothing of it counts
double tl_sim_merge_bytes (const tl_sim_t *self, int kind); //  of a part
void tl_sim_merge_release (tl_sim_t *self);

//  --- sim_line.c: saves, restores
void tl_sim_line_actions (tl_scheduler_actions_t *actions);
void tl_sim_line_event (tl_sim_t *self, const tl_sim_event_t *event);

#endif
