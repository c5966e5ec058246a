/*  scheduler_internal: what the scheduler's files share. Nobody else includes it.

    scheduler.c  its life, stopping, questions                presence.c  who comes and goes
    period.c     from line to line                            group.c     a group's steps, and its way back
    merging.c    several copies become one                    saving.c    common saves, scoring, the end
    joining.c    join: window                                                                              */

#ifndef TL_SCHEDULER_INTERNAL_H
#define TL_SCHEDULER_INTERNAL_H

#include "scheduler/scheduler.h"

//  What the run as a whole is at. Groups have states of their own within TL_PHASE_PERIOD.
typedef enum {
    TL_PHASE_BETWEEN, //  the next period can't begin yet
    TL_PHASE_PERIOD,
    TL_PHASE_MERGING,
    TL_PHASE_SAVING,
    TL_PHASE_FINISHING,
    TL_PHASE_DONE
} tl_phase_t;

typedef enum {
    TL_GROUP_READY,     //  its next step may open
    TL_GROUP_STEP,      //  a step is open
    TL_GROUP_ORPHAN,    //  its worker is lost: it waits for another
    TL_GROUP_BACK,      //  its worker gets the trunk, its clients go back
    TL_GROUP_LINE,      //  stands at the line
    TL_GROUP_GATHERING, //  the same, and its replica was asked for
    TL_GROUP_GATHERED   //  the same, and it is on its way: the worker is free
} tl_group_state_t;

typedef struct {
    tl_group_state_t state;
    size_t worker;        //  TL_NOBODY: it has none
    size_t last;          //  the one that it has or had
    size_t named;         //  the one whose replica the aggregator was told to expect
    size_t *members;      //  [count] ascending; part of tl_scheduler_t's order
    size_t count, live;   //  how many; how many of them are here
    uint64_t step, round; //  as in tl_place_t; step is the open one in TL_GROUP_STEP
    uint64_t turn;        //
    size_t awaits;        //  TL_GROUP_BACK: clients whose RESTORED is due
    bool fresh;           //  no step was opened since it went back, or since the period began
    bool save_due;        //  one group: the step is to be saved
    bool given_up;        //  the open step was: that it comes to nothing is nobody's fault
    int futile;           //  times in a row that a step came to nothing though everybody was there
    const char *why;      //  TL_GROUP_ORPHAN: what was lost
    bool standing, timed; //  join: window: the worker stands still for who is late; a timer is set
    int64_t stood_from;   //  since then
    size_t late_then;     //  so many were late then
    size_t wait_for;      //  of these it waits for so many more, or for the timer
} tl_group_t;

//  A client.
typedef struct {
    bool live;        //  joined and not left
    bool expected;    //  the first step waits for it
    bool member;      //  of its group's open step
    bool saving;      //  its SAVED of the pending save is awaited
    bool restoring;   //  its RESTORED is awaited: its group goes back
    bool giving;      //  its adapter was asked for, to be merged
    bool taking;      //  it gets the merged adapter, and its RESTORED is awaited
    bool finishing;   //  its FINISHED is awaited
    bool told;        //  to go back, and it has not answered yet
    bool behind;      //  the run went back while it was away: so must it, to back_to or before
    bool stale;       //  it was away: before it takes part it needs the shared adapter
    bool saved;       //  it has what is pending, or was last
    bool in_common;   //  it has what the newest common save is of,
    bool unknown;     //  or not: it will say
    size_t group;     //  TL_NOBODY: not in this period
    uint64_t back_to; //  step
    uint64_t named;   //  how its PLAN names its step
    bool called;      //  join: window: it has a PLAN that isn't over,
    bool ready;       //  and its first rows are here
    int64_t called_at;
} tl_seat_t;

//  A worker.
typedef struct {
    bool live;      //  joined and not left
    bool equipping; //  its RESTORED is awaited
    bool known;     //  its trunk is one of this run, of step at
    uint64_t at;    //
    size_t group;   //  that it serves, TL_NOBODY: it is spare
} tl_post_t;

struct tl_scheduler {
    tl_scheduler_config_t config;
    tl_scheduler_actions_t actions;
    void *arg;
    tl_phase_t phase;
    tl_place_t place;   //  where the period began; once all stand at the line, where they stand
    tl_place_t common;  //  newest common save; the start is one
    tl_place_t pending; //  save under way
    tl_seat_t *seats;   //  [config.clients]
    tl_post_t *posts;   //  [config.workers]
    tl_group_t *groups; //  [group_count], room for config.workers
    size_t group_count; //  of this period; 0: there was none yet
    size_t *order;      //  [config.clients] members of the groups, one after another
    size_t *scratch;    //  [config.clients] a list for an action
    size_t *crew;       //  [config.workers] the same of workers
    size_t due;         //  clients that the first step waits for
    size_t live, live_workers, stale; //  how many of them
    size_t at_line, orphans;          //  groups
    uint64_t last_round;              //  nobody takes part in it or later ones
    uint64_t line;                    //  round: the period's end
    uint64_t stop_line;               //  several groups: round where they meet to stop
    tl_inside_t inside;               //  of this period's groups
    const tl_decision_t *decided;     //  of the period that is about to begin; NULL: not yet
    bool aggregator;                  //  is here
    bool started;                     //  all were there once
    bool used;              //  steps were opened: whoever joins is not at the start by itself
    bool resumed;           //  the place may lie within a period that is to go on
    bool aggregator_back;   //  its RESTORED is awaited before it does
    bool earlier;           //  and the place is not where all can: they go on from pending
    bool stopping, hurried; //  a last save and done; without waiting for anybody
    bool undisturbed;       //  nobody came, went or repeated in this period, or at its line
    bool failed;            //  saving the pending step
    bool merged;            //  something was, at this line: it is to be saved
    bool trunk_merged;      //  its state is with whoever said so, no worker's
    bool trunk_saving, aggregator_saving;
    bool aggregator_saved;                       //  it has what is pending, or was last
    size_t saving, restoring, taking, finishing; //  clients whose answer is awaited
    struct {
        bool open, awaited; //  parts are being gathered; its result is due
    } merges[2];            //  by tl_merge_t
    tl_place_t gathering;   //  names the merges of this line
    size_t givers;          //  clients whose adapters were asked for and who have not left since
    size_t called;          //  join: window: clients with a PLAN
    int64_t now;            //  time, as far as it was told
    bool asked, rescore;    //  FINISHING: clients were asked; what they scored is void
    int code;               //  of done
    char why[1024];         //  of done
};

//  scheduler.c
extern const char tl_worker_lost[]; //  why a group goes back
void tl_run_phase (tl_scheduler_t *self, tl_phase_t phase, const char *event);
void
tl_run_go (tl_scheduler_t *self); //  whatever can go on now, does: called at the end of each event
void tl_run_fail (tl_scheduler_t *self, const char *format, ...)
    __attribute__ ((format (printf, 2, 3))); //  the run is going to end with that sentence
void tl_run_resume (tl_scheduler_t *self,
                    const tl_place_t *place);             //  there, when all went back to it
void tl_run_told (tl_scheduler_t *self, tl_seat_t *seat); //  to go back to the common save
//  It goes back to the common save: without what all others saved there it is stale.
void tl_run_check_common (tl_scheduler_t *self, tl_seat_t *seat);
bool tl_run_complete (const tl_scheduler_t *self);
size_t tl_run_holder (const tl_scheduler_t *self, uint64_t step); //  a worker whose trunk is of it
void tl_run_equip (tl_scheduler_t *self, size_t worker);          //  with the common save's trunk

//  period.c
bool tl_period_few (const tl_scheduler_t *self); //  clients are here, for the first step
void tl_period_begin (tl_scheduler_t *self);     //  the next one, if all that it needs is here
void tl_period_meet (tl_scheduler_t *self);      //  every group stands at the line
void tl_period_go_on (tl_scheduler_t *self);     //  what was merged is saved, or nothing was

//  group.c
bool tl_group_able (const tl_scheduler_t *self, size_t client, uint64_t round);
void tl_group_go (tl_scheduler_t *self,
                  tl_group_t *group); //  ready: opens its step, or goes to the line
void tl_group_serve (tl_scheduler_t *self, tl_group_t *group,
                     size_t worker); //  from the period's begin
void tl_group_add (tl_scheduler_t *self, tl_group_t *group, size_t client);
void tl_group_lose (tl_scheduler_t *self, tl_group_t *group,
                    const char *why);        //  its trunk is gone, with its worker, say
void tl_groups_adopt (tl_scheduler_t *self); //  orphans get the workers that are free
void tl_group_answered (tl_scheduler_t *self,
                        tl_group_t *group); //  somebody went back: all, perhaps

//  joining.c
void tl_joining_call (tl_scheduler_t *self, const tl_group_t *group, size_t client, uint64_t round);
void tl_joining_call_free (tl_scheduler_t *self, const tl_group_t *group);
//  Who is in the step that is to open now, listed in scratch; 0: not yet. on_the_way: somebody will be.
size_t tl_joining_pick (tl_scheduler_t *self, tl_group_t *group, bool *on_the_way);
void tl_joining_close (tl_scheduler_t *self, tl_group_t *group); //  its worker waits for nobody
void tl_joining_forget (tl_scheduler_t *self, tl_seat_t *seat);  //  its PLAN is over
//  PLANs that are in no step are void; strays: only of clients without a group.
void tl_joining_recall (tl_scheduler_t *self, bool strays, const char *why);

//  merging.c
void tl_merging_gather (tl_scheduler_t *self); //  replicas of groups that came to the line
void tl_merging_begin (tl_scheduler_t *self);  //  all are there
void tl_merging_go (tl_scheduler_t *self);
void tl_merging_lose (tl_scheduler_t *self);     //  the trunk that adapters belong to is gone
void tl_merging_withdraw (tl_scheduler_t *self); //  a group must repeat first
void tl_merging_void (tl_scheduler_t *self);     //  what was gathered is lost
void tl_merging_undo (tl_scheduler_t *self);     //  what was merged is lost: all repeat the period

//  saving.c
void tl_saving_begin (tl_scheduler_t *self, bool last);
void tl_saving_go (tl_scheduler_t *self);
void tl_saving_lose (tl_scheduler_t *self); //  the trunk that was to be saved is gone
void tl_saving_last (tl_scheduler_t *self); //  the newest step becomes common, then the run ends
void tl_finish_go (tl_scheduler_t *self);
void tl_finish_lose (tl_scheduler_t *self); //  a worker is gone
void tl_run_done (tl_scheduler_t *self);

#endif
