/*  scheduler_rig: a run without computing: clients, workers, an aggregator and a disk that do what the scheduler
    asks of them, each in the order in which it was asked. What a part holds is a number that says what it went
    through (which steps of which rounds with whom), so that two runs whose parts end with the same numbers trained
    the same. Whatever the scheduler may never ask for fails there.                                          */

#ifndef TL_SCHEDULER_RIG_H
#define TL_SCHEDULER_RIG_H

#include "scheduler/scheduler.h"

enum { RIG_CLIENTS = 6, RIG_WORKERS = 4, RIG_WORDS = 8192, RIG_ORDERS = 64, RIG_STEPS = 512 };

typedef enum {
    ORDER_SAVE,
    ORDER_RESTORE,
    ORDER_EQUIP,
    ORDER_GATHER,
    ORDER_TAKE,
    ORDER_FINISH
} rig_order_type_t;

typedef struct {
    rig_order_type_t type;
    tl_merge_t kind; //  gather
    uint64_t step;
    size_t member;    //  gather: place among the members
    uint64_t content; //  take
    bool awaited;     //  restore: not just told
} rig_order_t;

typedef struct {
    bool live;
    bool awake; //  not live because the broker isn't: it has what it had
    uint64_t content;
    uint64_t saves[RIG_STEPS]; //  content by step, 0: none
    rig_order_t orders[RIG_ORDERS];
    size_t first, count; //  of orders
    //  Client, join: window: it has a PLAN, so named; its rows are here.
    bool called, ready;
    uint64_t named;
    size_t taken; //  client: steps that it was in and that stand
    //  Worker: its open step.
    bool open;
    tl_step_t step;
    bool members[RIG_CLIENTS];
} rig_part_t;

typedef struct {
    tl_scheduler_t *scheduler;
    tl_scheduler_config_t config;
    uint64_t limits[RIG_CLIENTS];
    size_t groups;         //  that arrange makes, if workers allow
    bool fixed;            //  it names workers 0 .. groups - 1 whether they are here or not
    tl_inside_t inside;    //
    char words[RIG_WORDS]; //  every action, in words
    bool quiet;            //  no words
    rig_part_t clients[RIG_CLIENTS], workers[RIG_WORKERS];
    rig_part_t aggregator; //  orders: SAVE and RESTORE
    uint64_t store[RIG_STEPS];
    uint64_t merged;    //  the trunk as it was merged last
    uint64_t learnt[2]; //  by the aggregator from merges that it has not saved, by kind; 0: nothing
    bool disk;          //  it is to be written,
    uint64_t disk_step; //  as that step's state
    struct {
        bool open, urgent;
        size_t count;
        uint64_t step;
        bool there[RIG_CLIENTS];
        uint64_t parts[RIG_CLIENTS];
    } merges[2];
    size_t group_of[RIG_CLIENTS], worker_of[RIG_WORKERS];
    tl_decision_t decision;
    tl_place_t pending, common, older;    //  older: the common save before
    tl_costs_t *costs;                    //  join: window: config.costs
    int64_t now, alarm[RIG_WORKERS];      //  us; of a group, 0: none
    bool asked[RIG_CLIENTS], trunk_asked; //  whose SAVED the pending save needs
    bool refused;                         //  somebody said no
    bool ever;                            //  a step was opened
    size_t periods, undisturbed;
    int done, code;
    char why[512];
} rig_t;

//  The rig's own settings are set between the two.
rig_t *rig_new (size_t clients, size_t workers, size_t groups, uint64_t rounds, uint64_t every,
                uint64_t save_every);
void rig_window (rig_t *self,
                 int64_t base_us); //  join: window; a step costs so much beside its rows
void rig_begin (rig_t *self);
void rig_destroy (rig_t **self_p);
//  Fails unless the words are these.
void rig_expect (rig_t *self, const char *words);

//  What parts do. A part that goes forgets its orders.
void rig_join (rig_t *self, size_t client);
void rig_leave (rig_t *self, size_t client);
void rig_worker (rig_t *self, size_t worker);
void rig_lose (rig_t *self, size_t worker);
void rig_aggregator (rig_t *self);
void rig_lose_aggregator (rig_t *self);
//  Kill -9 of the broker, or of everything; a new one goes on from the common save, and parts come back as they are told to.
void rig_crash (rig_t *self, bool everything);
//  And as long as it hasn't: somebody lacks that save, and all go back to the one before. False: it has, or there is none.
bool rig_earlier (rig_t *self);
void rig_all (rig_t *self);                                   //  everybody who isn't here comes
void rig_close (rig_t *self, size_t worker, uint64_t labels); //  its open step
//  The oldest order of that part is done; false: there is none. good false: it could not.
bool rig_client_does (rig_t *self, size_t client, bool good);
bool rig_worker_does (rig_t *self, size_t worker, bool good);
bool rig_aggregator_does (rig_t *self, bool good); //  orders, then a merge that is complete
bool rig_disk_does (rig_t *self, bool good);
void rig_ready (rig_t *self, size_t client); //  its rows are here, if it has a PLAN
void rig_pass (rig_t *self, int64_t us);     //  so much later; timers that are due
void rig_do_all (rig_t *self);               //  until nothing is left to do, steps excepted
//  Steps and all, in turn, until the run is over or nothing moves. False: it isn't over.
bool rig_run (rig_t *self);
//  What the run came to: the trunk that was saved last, and every client's content.
uint64_t rig_result (const rig_t *self);

//  For the rig's own two files: what it answers the scheduler, an order for a part, words.
extern const tl_scheduler_actions_t rig_actions;
void rig_order (rig_part_t *part, rig_order_t order);
void rig_say (rig_t *self, const char *format, ...) __attribute__ ((format (printf, 2, 3)));

#endif
