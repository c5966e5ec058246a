//  broker_run: the run's messages find their way, and what they say becomes the scheduler's events.

#include "actors/broker_internal.h"
#include "actors/events.h"
#include "base/assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { TOKEN_BITS = 40 }; //  a token is serial of the source session << 40 | its sequence

//  --- relaying ---------------------------------------------------------------------------------

static void
s_pass (tl_broker_t *self, tl_session_t *from, tl_session_t *to, tl_message_t *message,
        zmq_msg_t *payload, uint64_t token)
{
    snprintf (message->sender, sizeof message->sender, "%s", from->label);
    tl_broker_stamp (self, message);
    tl_link_send (to->link, message, payload, token);
}

uint64_t
tl_broker_token (const tl_session_t *from, uint64_t sequence)
{
    return from->serial << TOKEN_BITS | sequence;
}

//  What came from a session is released only when whoever it was for has released it, so that nobody can make
//  the broker hold more than the credit it granted.
void
tl_broker_relay (tl_broker_t *self, tl_session_t *from, tl_session_t *to, tl_message_t *message,
                 zmq_msg_t *payload)
{
    s_pass (self, from, to, message, payload, tl_broker_token (from, message->sequence));
}

//  A FORWARD is on its author's credit all the way: until it is answered, for nothing else bounds how many wait at the
//  worker, and until its author has taken the answer, which else might pile up here. The worker's credit has no part in it:
//  who asks and takes nothing holds up nobody.
static void
s_relay_forward (tl_broker_t *self, tl_session_t *from, tl_session_t *worker, tl_message_t *message,
                 zmq_msg_t *payload)
{
    tl_session_asked (from, message->sequence);
    s_pass (self, from, worker, message, payload, 0);
}

static void
s_relay_forwarded (tl_broker_t *self, tl_session_t *worker, tl_session_t *to, tl_message_t *message,
                   zmq_msg_t *payload)
{
    uint64_t asked = tl_session_answered (to);
    s_pass (self, worker, to, message, payload, asked ? tl_broker_token (to, asked) : 0);
}

//  A state or an adapter is larger than its author's window and goes one way: nothing but CREDIT would tell of its releases.
void
tl_broker_release (tl_session_t *session, uint64_t sequence)
{
    tl_link_release (session->link, sequence);
    tl_link_halfway (session->link);
}

void
tl_broker_released (void *arg, uint64_t token)
{
    tl_session_t *to = arg;
    tl_broker_t *self = to->owner;
    tl_session_t *from = tl_sessions_by_serial (&self->sessions, token >> TOKEN_BITS);
    uint64_t sequence = token & (((uint64_t)1 << TOKEN_BITS) - 1);
    if (from && from->link && !tl_broker_shared (self, from, sequence))
        tl_broker_release (from, sequence);
}

//  --- who comes and goes -----------------------------------------------------------------------

//  A trunk is here (again): what readers asked before went nowhere, or to a worker that is gone.
static void
s_tell_readers (tl_broker_t *self)
{
    if (tl_scheduler_server (self->scheduler, TL_NOBODY) == TL_NOBODY)
        return;
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = tl_scheduler_place (self->scheduler).step;
    restore.body.restore.text = "a worker holds the trunk: ask again";
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->ready && it->role == TL_ROLE_READER)
            tl_broker_send (self, it, &restore);
}

//  A run that waits says for whom; of many clients not at each that comes, but when half of them have.
static void
s_say_missing (tl_broker_t *self)
{
    size_t start = self->topology->schedule.start;
    bool begun = tl_scheduler_groups (self->scheduler) > 0;
    char names[TL_BROKER_NAMES];
    self->quiet = tl_broker_awaited (self, names) / 2;
    if (!*names)
        return;
    if (!start || begun)
        tl_info ("waiting for %s", names);
    else if (self->options.resume)
        tl_info (
            "waiting for %s; who of the clients is not back %g s after the broker began is gone "
            "on without",
            names, (double)self->topology->liveness.expire_ms / 1000);
    else
        tl_info ("waiting for %s; %zu client%s begin", names, start, start == 1 ? "" : "s");
}

void
tl_broker_overdue (tl_broker_t *self)
{
    char names[TL_BROKER_NAMES];
    tl_broker_missing (self, true, names);
    if (tl_scheduler_overdue (self->scheduler))
        tl_info ("%s did not come back: the run goes on without, and takes in who comes later",
                 names);
}

static void
s_count_rows (tl_broker_t *self, const tl_session_t *client)
{
    //  A client's claim: the sum may not wrap.
    uint64_t sum = self->all_rows + client->rows;
    self->all_rows = sum < self->all_rows ? UINT64_MAX : sum;
    self->most_rows = client->rows > self->most_rows ? client->rows : self->most_rows;
    self->longest = client->longest > self->longest ? client->longest : self->longest;
}

void
tl_broker_ready (tl_broker_t *self, tl_session_t *session)
{
    switch (session->role) {
    case TL_ROLE_WORKER:
        tl_scheduler_worker_join (self->scheduler, (size_t)session->index);
        s_tell_readers (self);
        break;
    case TL_ROLE_AGGREGATOR:
        if (self->options.resume || tl_scheduler_state (self->scheduler) != TL_RUN_WAITING ||
            tl_scheduler_place (self->scheduler).step)
            tl_broker_remind (self, session);
        tl_scheduler_aggregator_join (self->scheduler);
        break;
    case TL_ROLE_CLIENT:
        if (self->over) {
            tl_broker_dismiss (self, session);
            break;
        }
        s_count_rows (self, session);
        tl_scheduler_join (self->scheduler, (size_t)session->index);
        break;
    default:
        break;
    }
    if (tl_scheduler_state (self->scheduler) != TL_RUN_WAITING)
        self->quiet = 0;
    else if (session->role != TL_ROLE_CLIENT || self->quiet <= 1)
        s_say_missing (self);
    else
        self->quiet--;
}

void
tl_broker_gone (tl_broker_t *self, tl_session_t *session)
{
    size_t index = (size_t)session->index;
    bool ready = session->ready;
    session->ready = false;
    if (!ready)
        return;
    if (session->role == TL_ROLE_WORKER) {
        if (self->saver == index)
            tl_assembly_destroy (&self->state);
        tl_broker_void_asked (self, index); //  this worker never will answer
        tl_scheduler_worker_left (self->scheduler, index);
    } else if (session->role == TL_ROLE_AGGREGATOR) {
        tl_assembly_destroy (&self->merging);
        self->shares.count = 0;
        tl_scheduler_aggregator_left (self->scheduler);
    } else if (session->role == TL_ROLE_CLIENT && !self->over) {
        self->all_rows -= self->all_rows == UINT64_MAX ? 0 : session->rows;
        tl_broker_merge_left (self, session, tl_scheduler_step_of (self->scheduler, index));
        tl_broker_forget_kept (self, index, NULL);
        tl_scheduler_left (self->scheduler, index);
    }
}

//  --- from clients -----------------------------------------------------------------------------

static void
s_late (tl_broker_t *self, tl_session_t *session, const tl_message_t *message)
{
    if (session->late && session->late == message->step + 1)
        return;
    session->late = message->step + 1;
    tl_message_t late;
    tl_message_init (&late, TL_LATE);
    late.step = message->step;
    late.body.late.current = tl_scheduler_step_of (self->scheduler, (size_t)session->index);
    tl_broker_send (self, session, &late);
}

//  What becomes of ACTIVATION, GRADIENT and COMMIT.
typedef enum {
    FATE_PASSED, //  to the worker, and step is the group's now
    FATE_KEPT,   //  until its author is in a step
    FATE_DROPPED
} s_fate_t;

static s_fate_t
s_fate (tl_broker_t *self, tl_session_t *session, tl_message_t *message)
{
    size_t client = (size_t)session->index;
    const tl_counted_t *counted = &self->committed[client];
    if (message->micro < self->topology->train.micros &&
        tl_scheduler_called (self->scheduler, client, message->step)) {
        uint64_t step = tl_scheduler_step_of (self->scheduler, client);
        if (!tl_scheduler_member (self->scheduler, client, step))
            return message->type == TL_ACTIVATION ? FATE_KEPT : FATE_DROPPED;
        message->step = step;
        return FATE_PASSED;
    }
    //  It repeats a COMMIT whose answer it never saw: the worker still knows the answer.
    if (message->type == TL_COMMIT && counted->named && counted->named == message->step + 1) {
        message->step = counted->step - 1;
        return FATE_PASSED;
    }
    s_late (self, session, message);
    return FATE_DROPPED;
}

//  True if it was passed on or kept.
static bool
s_to_trunk (tl_broker_t *self, tl_session_t *session, tl_message_t *message, zmq_msg_t *payload)
{
    size_t client = (size_t)session->index;
    size_t its = tl_scheduler_worker_of (self->scheduler, client);
    tl_session_t *worker = tl_broker_worker (self, its);
    if (!worker && !self->window)
        return false;
    s_fate_t fate = s_fate (self, session, message);
    if (fate == FATE_PASSED && worker) {
        tl_meter_from_client (self->meter, its, client, message, tl_clock_us ());
        tl_broker_relay (self, session, worker, message, payload);
    } else if (fate == FATE_KEPT)
        tl_broker_keep (self, client, message, payload);
    return (fate == FATE_PASSED && worker) || fate == FATE_KEPT;
}

//  Requests of one author are answered in order, so as long as some are under way they all go to the same worker.
static tl_session_t *
s_server (tl_broker_t *self, tl_session_t *session)
{
    size_t client = session->role == TL_ROLE_CLIENT ? (size_t)session->index : TL_NOBODY;
    if (!session->asked_count)
        session->server = tl_scheduler_server (self->scheduler, client);
    return tl_broker_worker (self, session->server);
}

//  What it saved with all others is gone, and no older save is one that all have: nobody but a person may decide that it begins
//  anew. A shared adapter it gets from the others. True: the run ends, with a sentence.
static bool
s_lost_its_save (tl_broker_t *self, const char *who, uint64_t step)
{
    const tl_topology_t *t = self->topology;
    bool alone = step && !tl_scheduler_resuming (self->scheduler);
    if (alone || self->options.fresh || t->federate.clients != TL_CLIENTS_PERSONAL ||
        tl_scheduler_saved_step (self->scheduler) != self->begin.step)
        return false;
    char *has = step ? tl_format ("go on alone with that of step %llu", (unsigned long long)step)
                     : tl_strdup ("begin with a fresh adapter");
    char *text =
        tl_format ("%s saved step %llu of this run, and that save is not in %s/%s/%s any more: put "
                   "its directory back and --resume, or let it %s with --resume --fresh",
                   who, (unsigned long long)self->begin.step, t->checkpoint.dir, t->name, who, has);
    free (has);
    tl_scheduler_stop (self->scheduler, true, TL_BAD_INPUT, text);
    free (text);
    return true;
}

static void
s_on_restored (tl_broker_t *self, tl_session_t *session, const tl_message_t *message)
{
    size_t client = (size_t)session->index;
    uint64_t step = message->step, code = message->body.restored.code;
    if (!tl_scheduler_returning (self->scheduler, client))
        return;
    tl_info (code ? "%s can't go back to step %llu: %s" : "%s is back at step %llu with %s",
             session->label, (unsigned long long)step, message->body.restored.text);
    bool lacks = !code && self->had && self->had[client] && step < self->begin.step;
    if (lacks && !tl_store_earlier (self, session->name, step) &&
        s_lost_its_save (self, session->name, step))
        return;
    tl_scheduler_client_restored (self->scheduler, client, step, code, message->body.restored.text);
}

//  True if it was passed on: then it is released when the receiver has released it.
static bool
s_from_client (tl_broker_t *self, tl_session_t *session, tl_message_t *message, zmq_msg_t *payload)
{
    size_t client = (size_t)session->index;
    //  A reader takes no part in the run, whatever it says.
    if (session->role == TL_ROLE_READER && message->type != TL_FORWARD)
        return false;
    tl_session_t *worker = message->type == TL_FORWARD ? s_server (self, session) : NULL;
    switch (message->type) {
    case TL_ACTIVATION:
    case TL_GRADIENT:
    case TL_COMMIT:
        return s_to_trunk (self, session, message, payload);
    case TL_PART:
        return tl_broker_on_part (self, session, message, payload);
    case TL_FORWARD:
        if (worker) {
            s_relay_forward (self, session, worker, message, payload);
            return true;
        }
        break;
    case TL_SAVED:
        tl_scheduler_client_saved (self->scheduler, client, message->step, message->body.saved.good,
                                   message->body.saved.text);
        break;
    case TL_RESTORED:
        s_on_restored (self, session, message);
        break;
    case TL_FINISHED:
        if (!tl_scheduler_finishing (self->scheduler, client))
            break;
        tl_event ("finished", "{sssfsI}", "name", session->name, "nll", message->body.finished.nll,
                  "labels", (json_int_t)message->body.finished.labels);
        tl_scheduler_finished (self->scheduler, client);
        break;
    default:
        break;
    }
    return false;
}

//  --- from workers -----------------------------------------------------------------------------

static void
s_on_state (tl_broker_t *self, tl_session_t *session, const tl_message_t *message,
            zmq_msg_t *payload)
{
    if ((size_t)session->index != self->saver ||
        !tl_scheduler_saving (self->scheduler, message->step))
        return; //  nobody asked
    tl_error_t err = {0};
    const tl_tensor_wire_t *descriptor = &message->body.state.tensor;
    if (descriptor->offset == 0) {
        tl_assembly_destroy (&self->state);
        self->state = tl_assembly_new (descriptor, 1, TL_STORE_LIMIT, &err);
    }
    int rc = self->state ? tl_assembly_add (self->state, descriptor, zmq_msg_data (payload),
                                            zmq_msg_size (payload), &err)
                         : -1;
    if (rc == 1) {
        size_t size;
        void *state = tl_assembly_take (self->state, &size);
        tl_assembly_destroy (&self->state);
        tl_store_put (self, message->step, state, size);
    } else if (rc < 0) {
        tl_assembly_destroy (&self->state);
        tl_scheduler_saved (self->scheduler, message->step, false,
                            *err.text ? err.text
                                      : "the trunk's state came in pieces that don't fit");
    }
}

//  The worker's word to the broker itself: the step is closed.
static void
s_on_closed (tl_broker_t *self, const tl_session_t *session, const tl_message_t *message)
{
    const struct tl_body_committed *committed = &message->body.committed;
    size_t worker = (size_t)session->index;
    if (!tl_scheduler_steps (self->scheduler, worker, message->step))
        return;
    tl_lap_t lap = tl_meter_closed (self->meter, worker, committed, tl_clock_us ());
    self->period = tl_scheduler_place (self->scheduler).begin;
    if (committed->labels)
        tl_event ("closed", "{sIsIsIsIsIsfsfsIsIsIss}", "step", (json_int_t)message->step, "round",
                  (json_int_t)message->round, "group", (json_int_t)lap.group, "period",
                  (json_int_t)self->period, "labels", (json_int_t)committed->labels, "norm",
                  committed->norm, "seconds", (double)lap.us / 1e6, "members",
                  (json_int_t)lap.members, "rows", (json_int_t)lap.rows, "bytes",
                  (json_int_t)(self->payload - self->closed_payload), "worker", session->name);
    self->closed_payload = self->payload;
    tl_scheduler_closed (self->scheduler, worker, message->step, committed->labels);
}

//  The worker found a member breaking the rules of the step: its session ends with the worker's sentence.
static void
s_on_expelled (tl_broker_t *self, const tl_session_t *worker, const tl_message_t *message)
{
    int client = tl_topology_client (self->topology, message->body.leave.name);
    tl_session_t *session = client < 0 ? NULL : tl_broker_client (self, (size_t)client);
    if (!session ||
        tl_scheduler_worker_of (self->scheduler, (size_t)client) != (size_t)worker->index ||
        !tl_scheduler_member (self->scheduler, (size_t)client, message->step))
        return;
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.code = TL_CONNECTION;
    bye.body.bye.text = message->body.leave.text;
    tl_broker_control (self, session, &bye);
    tl_broker_drop (self, session, "the worker found it breaking the rules of the step");
}

//  The step as that client names it. False: with join: window nobody could tell which step it is.
static bool
s_name_step (tl_broker_t *self, size_t client, tl_message_t *message)
{
    tl_counted_t *counted = &self->committed[client];
    if (tl_scheduler_member (self->scheduler, client, message->step)) {
        uint64_t named = tl_scheduler_named (self->scheduler, client);
        if (message->type == TL_COMMITTED)
            *counted = (tl_counted_t){message->step + 1, named + 1};
        message->step = named;
        return true;
    }
    if (message->type == TL_COMMITTED && counted->step && counted->step == message->step + 1) {
        message->step = counted->named - 1;
        return true;
    }
    return !self->window;
}

//  HIDDEN, GRAD_IN and COMMITTED, for a client of the worker's own group.
static bool
s_to_member (tl_broker_t *self, tl_session_t *session, tl_message_t *message, zmq_msg_t *payload)
{
    tl_session_t *to = tl_sessions_by_label (&self->sessions, message->sender);
    int client = tl_topology_client (self->topology, message->sender);
    size_t worker = (size_t)session->index;
    if (client < 0 || tl_scheduler_worker_of (self->scheduler, (size_t)client) != worker)
        return false;
    bool member = tl_scheduler_member (self->scheduler, (size_t)client, message->step);
    if (!s_name_step (self, (size_t)client, message) || !to || !to->ready)
        return false;
    if (member)
        tl_meter_from_worker (self->meter, worker, (size_t)client, message, tl_clock_us ());
    tl_broker_relay (self, session, to, message, payload);
    return true;
}

//  True if it was passed on: then it is released when the receiver has released it.
static bool
s_from_worker (tl_broker_t *self, tl_session_t *session, tl_message_t *message, zmq_msg_t *payload)
{
    size_t worker = (size_t)session->index;
    tl_session_t *to;
    switch (message->type) {
    case TL_COMMITTED:
        if (strcmp (message->sender, "broker") == 0) {
            s_on_closed (self, session, message);
            break;
        }
        //  fall through
    case TL_HIDDEN:
    case TL_GRAD_IN:
        return s_to_member (self, session, message, payload);
    case TL_FORWARDED:
        to = tl_sessions_by_label (&self->sessions, message->sender);
        if (to && to->ready)
            s_relay_forwarded (self, session, to, message, payload);
        break;
    case TL_LEAVE:
        s_on_expelled (self, session, message);
        break;
    case TL_PART:
        return tl_broker_on_part (self, session, message, payload);
    case TL_STATE:
        s_on_state (self, session, message, payload);
        break;
    case TL_SAVED:
        //  A good one counts when its STATE is on disk (tl_store_put).
        if (!message->body.saved.good && worker == self->saver)
            tl_scheduler_saved (self->scheduler, message->step, false, message->body.saved.text);
        break;
    case TL_RESTORED:
        if (!tl_scheduler_equipping (self->scheduler, worker))
            break;
        tl_scheduler_restored (self->scheduler, worker, message->body.restored.code,
                               message->body.restored.text);
        if (message->body.restored.code)
            tl_warn ("%s can't take the saved trunk over: %s", session->label,
                     message->body.restored.text);
        s_tell_readers (self);
        break;
    default:
        break;
    }
    return false;
}

void
tl_broker_on_run (tl_broker_t *self, tl_session_t *session, tl_message_t *message,
                  zmq_msg_t *payload)
{
    uint64_t serial = session->serial, sequence = message->sequence;
    tl_debug ("%s from %s step %llu micro %llu", tl_type_name (message->type), session->label,
              (unsigned long long)message->step, (unsigned long long)message->micro);
    bool moved = false;
    if (message->run == self->run && session->role == TL_ROLE_AGGREGATOR)
        moved = tl_broker_from_aggregator (self, session, message, payload);
    else if (message->run == self->run && session->role == TL_ROLE_WORKER)
        moved = s_from_worker (self, session, message, payload);
    else if (message->run == self->run)
        moved = s_from_client (self, session, message, payload);
    //  Acting on it may have ended the session.
    session = tl_sessions_by_serial (&self->sessions, serial);
    if (!moved && session && session->link)
        tl_broker_release (session, sequence);
}
