/*  broker_internal: what the broker's files share. Nobody else includes it.

    broker.c          sockets, dispatch, liveness, stopping
    broker_status.c   what status tells
    broker_admit.c    who may come in
    broker_run.c      the run's messages find their way, and become the scheduler's events
    broker_actions.c  what the scheduler decides becomes messages
    broker_merge.c    to the aggregator and back
    broker_window.c   join: window
    broker_store.c    run.db, and the trunk's states on disk                                                       */

#ifndef TL_BROKER_INTERNAL_H
#define TL_BROKER_INTERNAL_H

#include "actors/actor.h"
#include "actors/agreement.h"
#include "actors/broker.h"
#include "actors/compute.h"
#include "actors/ledger.h"
#include "actors/meter.h"
#include "actors/session.h"
#include "messages/tensor_wire.h"
#include "net/zap.h"
#include "scheduler/scheduler.h"

enum {
    TL_BROKER_MESSAGES = 65536
}; //  HWM of the data sockets, above any peer's credit in messages

//  A client or worker that was here and isn't any more, for `status`.
typedef struct {
    const char *state; //  "done", "left"; NULL: it was never here
    uint64_t bytes;    //  payload that came from it
    int64_t since;     //  monotonic ms
} tl_past_t;

//  The newest step that the worker counted a client in: its number, and how the client names it; both + 1, 0: none.
typedef struct {
    uint64_t step, named;
} tl_counted_t;

//  A message of the aggregator that went to several: released to it when all of them have.
typedef struct {
    uint64_t sequence;
    size_t holders;
} tl_share_t;

typedef struct {
    tl_share_t *items; //  [count], room for room; in order
    size_t count, room;
} tl_shares_t;

typedef struct tl_broker_window tl_broker_window_t;

typedef struct {
    const tl_topology_t *topology;
    tl_broker_options_t options;
    tl_actor_t *actor;
    void *context; //  ZeroMQ
    tl_zap_t *zap;
    tl_socket_t *control, *clients, *workers;
    tl_agreements_t agreements;
    tl_sessions_t sessions;
    tl_scheduler_t *scheduler;
    tl_compute_t *disk;         //  writes run.db and saved states off the loop
    int lock;                   //  on its directory
    tl_rundb_t *db;             //  until the ledger has it
    tl_ledger_t *ledger;        //  into run.db
    tl_place_t begin;           //  of a run that goes on: where
    bool *expected;             //  [clients] whom it waits for there; NULL: all
    bool *had;                  //  [clients] who saved there; NULL: a run that begins
    bool aggregator_had;        //  and whether the aggregator did
    bool *joined;               //  [clients] who ever was in the run
    json_t *saves;              //  step and place of its common saves, newest first
    bool begun;                 //  what lies on the disk is this run's
    bool ended;                 //  and it was over there
    char *chooser;              //  what the chooser had learnt there, or NULL
    tl_choose_t *choose;        //  arranges periods
    tl_meter_t *meter;          //  tells it how long things take
    tl_assembly_t *state;       //  the trunk's state that is coming in, or NULL
    size_t saver;               //  from that worker; TL_NOBODY: none was asked
    void *fetching;             //  the store's newest fetch, while others may share it
    tl_assembly_t *merging;     //  the merged trunk that is coming in, or NULL
    void *merged;               //  the same, whole, until its save; NULL: none
    size_t merged_size;         //
    tl_tensor_wire_t shared;    //  the result for clients that is being passed on,
    uint64_t passed;            //  and its bytes so far
    uint64_t stale;             //  checksum of one that nobody waits for any more
    tl_shares_t shares;         //  MERGED that several are to release
    size_t *summing;            //  [summing_count] members of the step whose gradients are summed
    size_t summing_count;       //
    uint64_t all_rows;          //  of a micro, as clients say: of all of them together,
    uint64_t most_rows;         //  of the largest,
    uint64_t longest;           //  and rows of the longest sequence
    uint64_t run;               //  id of this run, random, not 0
    uint64_t payload;           //  bytes that came from all sessions
    uint64_t closed_payload;    //  of that, when the last step was closed
    uint64_t period;            //  of that step: the round in which it began
    uint64_t refused_plain;     //  peers without a key
    uint64_t refused_other;     //  peers that take another broker's key for ours
    tl_outsiders_t *outsiders;  //  what the log says of them
    tl_counted_t *committed;    //  [clients]
    tl_past_t *past;            //  [clients, then workers]
    tl_broker_window_t *window; //  join: window, else NULL
    int stop_timer;             //  running out of patience with a stop, 0: none
    bool hurried;               //  the stop was hurried already
    bool complete;              //  and all rounds are done
    bool over;                  //  the schedule is done
    int code;                   //  exit code of the run
    char text[1024];            //  its last sentence
    int64_t began, ticked;      //  monotonic ms; of the last tick
    size_t quiet;               //  clients that come before the log says again for whom it waits
    int64_t flushed, measured;  //  when events, and figures, last went to run.db
} tl_broker_t;

//  broker_admit.c
void tl_broker_on_hello (tl_broker_t *self, const tl_message_t *message, const tl_packet_t *packet);
void tl_broker_on_attach (tl_broker_t *self, const tl_message_t *message, const tl_packet_t *packet,
                          tl_socket_t *socket);
void tl_broker_invalid (tl_broker_t *self, tl_socket_t *socket, const zmq_msg_t *routing,
                        bool expired, const char *text);
void tl_broker_refuse_frame (tl_broker_t *self, tl_socket_t *socket, const tl_packet_t *packet,
                             const char *why); //  something that is not the protocol
void tl_broker_control (tl_broker_t *self, tl_session_t *session, tl_message_t *message);
void tl_broker_bye (tl_broker_t *self, const zmq_msg_t *routing); //  with what the run came to
void tl_broker_drop (tl_broker_t *self, tl_session_t *session, const char *why);
void tl_broker_dismiss (tl_broker_t *self, tl_session_t *session); //  BYE: the run is over

//  broker_status.c
void tl_broker_on_status (tl_broker_t *self, tl_session_t *session); //  answers with REPORT
//  Names of the clients that are not here, or of those that the run waits for; of many how many, and the first. "": none.
enum { TL_BROKER_NAMES = 1024 };
void tl_broker_missing (tl_broker_t *self, bool awaited, char names[TL_BROKER_NAMES]);
//  The same with the worker or workers and the aggregator, where the run can't go on without: for whom it waits. Returns how
//  many clients, 0 if they are all named.
size_t tl_broker_awaited (tl_broker_t *self, char names[TL_BROKER_NAMES]);

//  broker.c: states of the actor
enum { TL_BROKER_UP, TL_BROKER_SERVING, TL_BROKER_ENDING };
void tl_broker_serve (tl_broker_t *self); //  the run is over; eval and generate go on
void tl_broker_end (tl_broker_t *self);
//  The first period waits for every worker, not for one.
bool tl_broker_needs_all_workers (const tl_topology_t *topology);
void tl_broker_unwritable (tl_broker_t *self, const char *why); //  run.db can't be: the run stops

//  broker_run.c
//  A new message in order on session's link; payload may be moved away. Released when nobody needs it any more.
void tl_broker_on_run (tl_broker_t *self, tl_session_t *session, tl_message_t *message,
                       zmq_msg_t *payload);
void tl_broker_ready (tl_broker_t *self, tl_session_t *session);   //  attached for the first time
void tl_broker_gone (tl_broker_t *self, tl_session_t *session);    //  about to be removed
void tl_broker_release (tl_session_t *session, uint64_t sequence); //  what came is done with
void tl_broker_released (void *session, uint64_t token); //  link callback: what it got is done with
void tl_broker_relay (tl_broker_t *self, tl_session_t *from, tl_session_t *to,
                      tl_message_t *message, zmq_msg_t *payload);
uint64_t tl_broker_token (const tl_session_t *from, uint64_t sequence); //  for tl_link_send

//  broker_actions.c
void tl_broker_schedule (
    tl_broker_t *self); //  scheduler, chooser and meter, at the start or where the run goes on
void tl_broker_stamp (tl_broker_t *self, tl_message_t *message);
void tl_broker_send (tl_broker_t *self, tl_session_t *to, tl_message_t *message); //  to NULL: not
//  Who takes part, by index in the topology; NULL: not here (TL_NOBODY: never).
tl_session_t *tl_broker_client (tl_broker_t *self, size_t client);
tl_session_t *tl_broker_worker (tl_broker_t *self, size_t worker);
void tl_broker_overdue (tl_broker_t *self); //  who was here before has had its time to come back
//  FORWARDs that this worker will never answer are released.
void tl_broker_void_asked (tl_broker_t *self, size_t worker);
//  STATE (unless packed, lent, is NULL) and RESTORE to that worker.
void tl_broker_send_state (tl_broker_t *self, tl_session_t *worker, const tl_place_t *place,
                           tl_packed_t *packed);

//  broker_merge.c: the first two are the scheduler's actions
void tl_broker_merge (void *self, tl_merge_t kind, const tl_place_t *place, const size_t *members,
                      size_t count, bool urgent);
void tl_broker_gather (void *self, tl_merge_t kind, const tl_place_t *place, size_t who,
                       size_t member);
//  The members' gradients of that step are going to be summed; list names them.
void tl_broker_merge_sum (tl_broker_t *self, const tl_step_t *step, const size_t *members,
                          size_t count, tl_member_t *list);
//  A client is gone: the aggregator waits for no part of it. step: that it was in.
void tl_broker_merge_left (tl_broker_t *self, const tl_session_t *client, uint64_t step);
//  True if it was passed on.
bool tl_broker_on_part (tl_broker_t *self, tl_session_t *session, tl_message_t *message,
                        zmq_msg_t *payload);
//  An aggregator that comes in the middle of a run begins with what it saved with all others.
void tl_broker_remind (tl_broker_t *self, tl_session_t *aggregator);
//  True if it was passed on.
bool tl_broker_from_aggregator (tl_broker_t *self, tl_session_t *session, tl_message_t *message,
                                zmq_msg_t *payload);
//  One of those that it went to has released it. True: others still hold it.
bool tl_broker_shared (tl_broker_t *self, const tl_session_t *aggregator, uint64_t sequence);

//  broker_window.c: PLANs and what comes before a step is open. The four are the scheduler's actions.
void tl_broker_window_open (tl_broker_t *self); //  if the topology says so
void tl_broker_window_close (tl_broker_t *self);
void tl_broker_now (tl_broker_t *self); //  before the scheduler hears of events
void tl_broker_call (void *self, size_t client, uint64_t step, uint64_t round);
void tl_broker_recall (void *self, size_t client, uint64_t step, const char *why);
void tl_broker_timer (void *self, size_t group, int64_t us);
void tl_broker_windowed (void *self, const tl_step_t *step, const tl_window_step_t *how);
//  ACTIVATION of a client that has a PLAN and is in no open step; takes over what message owns, and payload.
void tl_broker_keep (tl_broker_t *self, size_t client, tl_message_t *message, zmq_msg_t *payload);
//  It is in no step; released if session isn't NULL.
void tl_broker_forget_kept (tl_broker_t *self, size_t client, tl_session_t *session);
//  To the worker of the step, which has its PLAN.
void tl_broker_pass_kept (tl_broker_t *self, const tl_step_t *step, const size_t *members,
                          size_t count);
json_t *tl_broker_window_report (const tl_broker_t *self); //  for status

//  broker_store.c: run.db, and states of the trunk as files under checkpoint.dir/name/broker, written off the loop
#define TL_STORE_LIMIT ((size_t)8 << 30) //  bytes of one state
//  Prepares a run, or finds where one goes on: run, begin, expected, ended. Whatever is told from then on will be in
//  run.db. Nothing that lies there is removed. -1 and a sentence: a run that isn't over is there and neither option was given, for example.
int tl_store_open (tl_broker_t *self, tl_error_t *err);
//  Who saved where the run goes on has no save of it any more, only one of step. What belongs together is of one step: as long
//  as nothing was made since, begin becomes the newest common save up to that, and all go back to it. False: there is none, or
//  it is too late.
bool tl_store_earlier (tl_broker_t *self, const char *who, uint64_t step);
//  The run begins: it replaces what lies there, event `begun`. Called before its first PLAN, and by the store where a run
//  without steps ends; later calls do nothing.
void tl_store_begin (tl_broker_t *self);
void tl_store_agreed (tl_broker_t *self,
                      const tl_agreement_t *agreed); //  who comes back must agree
void tl_store_over (tl_broker_t *self); //  the run is: noted, and then served, or ended
void tl_store_put (tl_broker_t *self, uint64_t step, void *state,
                   size_t size); //  takes state over; then tl_scheduler_saved
//  For that worker: then tl_broker_send_state, if it is still here.
void tl_store_fetch (tl_broker_t *self, const tl_place_t *place, const tl_session_t *worker);
void tl_store_common (tl_broker_t *self,
                      const tl_place_t *place); //  it counts: noted, then told, older ones pruned

#endif
