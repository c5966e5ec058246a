//  broker_run: the schedule's actions become messages, the run's messages find their way.

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
s_stamp (tl_broker_t *self, tl_message_t *message)
{
    message->run = self->run;
    message->sent = tl_clock_wall_ms () * 1000;
}

static void
s_send (tl_broker_t *self, tl_session_t *to, tl_message_t *message)
{
    s_stamp (self, message);
    snprintf (message->sender, sizeof message->sender, "broker");
    if (to->link)
        tl_link_send (to->link, message, NULL, 0);
}

static void
s_pass (tl_broker_t *self, tl_session_t *from, tl_session_t *to, tl_message_t *message,
        zmq_msg_t *payload, uint64_t token)
{
    snprintf (message->sender, sizeof message->sender, "%s", from->label);
    s_stamp (self, message);
    tl_link_send (to->link, message, payload, token);
}

static uint64_t
s_token (const tl_session_t *session, uint64_t sequence)
{
    return session->serial << TOKEN_BITS | sequence;
}

//  What came from a session is released only when whoever it was for has released it, so that nobody can make
//  the broker hold more than the credit it granted.
static void
s_relay (tl_broker_t *self, tl_session_t *from, tl_session_t *to, tl_message_t *message,
         zmq_msg_t *payload)
{
    s_pass (self, from, to, message, payload, s_token (from, message->sequence));
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
    s_pass (self, worker, to, message, payload, asked ? s_token (to, asked) : 0);
}

void
tl_broker_released (void *arg, uint64_t token)
{
    tl_session_t *to = arg;
    tl_broker_t *self = to->owner;
    tl_session_t *from = tl_sessions_by_serial (&self->sessions, token >> TOKEN_BITS);
    if (from && from->link)
        tl_link_release (from->link, token & (((uint64_t)1 << TOKEN_BITS) - 1));
}

//  --- actions of the schedule ------------------------------------------------------------------

//  What one micro may come to: of all clients together, or of the largest where each has steps of its own.
static void
s_extent (tl_broker_t *self, tl_message_t *plan)
{
    bool serial = self->topology->schedule.mode == TL_MODE_SERIAL;
    uint64_t rows = 0, longest = 0;
    for (const tl_session_t *it = self->sessions.first; it; it = it->next) {
        if (it->role != TL_ROLE_CLIENT)
            continue;
        //  A client's claim: the sum may not wrap.
        uint64_t sum = rows + it->rows < rows ? UINT64_MAX : rows + it->rows;
        rows = !serial ? sum : it->rows > rows ? it->rows : rows;
        longest = it->longest > longest ? it->longest : longest;
    }
    plan->body.plan.rows = rows;
    plan->body.plan.longest = longest;
}

static void
s_plan (void *arg, uint64_t step, uint64_t round, const size_t *members, size_t count)
{
    tl_broker_t *self = arg;
    tl_member_t *list = tl_alloc (count * sizeof *list);
    self->step_began = tl_clock_ms ();
    self->step_members = count;
    self->step_rows = 0;
    for (size_t i = 0; i < count; i++)
        list[i] = (tl_member_t){self->topology->clients[members[i]].name, members[i]};
    tl_message_t plan;
    tl_message_init (&plan, TL_PLAN);
    plan.step = step;
    plan.round = round;
    plan.body.plan.members = list;
    plan.body.plan.members_count = count;
    plan.body.plan.micros = self->topology->train.micros;
    s_extent (self, &plan);
    s_send (self, tl_sessions_worker (&self->sessions), &plan);
    //  Who else is in it, and how much text they have, is no client's business
    plan.body.plan.rows = plan.body.plan.longest = 0;
    plan.body.plan.members_count = 1;
    for (size_t i = 0; i < count; i++) {
        plan.body.plan.members = &list[i];
        s_send (self, tl_sessions_by_client (&self->sessions, (int)members[i]), &plan);
    }
    free (list);
}

static void
s_leave (void *arg, uint64_t step, size_t client)
{
    tl_broker_t *self = arg;
    tl_warn ("%s left step %llu: its weight leaves the batch", self->topology->clients[client].name,
             (unsigned long long)step);
    tl_message_t leave;
    tl_message_init (&leave, TL_LEAVE);
    leave.step = step;
    leave.body.leave.name = self->topology->clients[client].name;
    leave.body.leave.text = "it is gone";
    s_send (self, tl_sessions_worker (&self->sessions), &leave);
}

static void
s_give_up (void *arg, uint64_t step, const char *why)
{
    tl_broker_t *self = arg;
    tl_message_t abandon;
    tl_message_init (&abandon, TL_ABANDON);
    abandon.step = step;
    abandon.body.abandon.text = why;
    s_send (self, tl_sessions_worker (&self->sessions), &abandon);
}

static void
s_abandoned (void *arg, uint64_t step, const char *why)
{
    tl_broker_t *self = arg;
    tl_warn ("step %llu is abandoned: %s", (unsigned long long)step, why);
    tl_event ("abandoned", "{sIss}", "step", (json_int_t)step, "why", why);
    tl_message_t abandon;
    tl_message_init (&abandon, TL_ABANDON);
    abandon.step = step;
    abandon.body.abandon.text = why;
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->role == TL_ROLE_CLIENT && it->ready &&
            tl_scheduler_member (self->scheduler, (size_t)it->index))
            s_send (self, it, &abandon);
}

//  To every part that takes part: trainers and the worker.
static void
s_to_parts (tl_broker_t *self, tl_message_t *message)
{
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->ready && (it->role == TL_ROLE_CLIENT || it->role == TL_ROLE_WORKER))
            s_send (self, it, message);
}

static void
s_save (void *arg, const tl_place_t *place, bool last)
{
    tl_broker_t *self = arg;
    tl_message_t save;
    tl_message_init (&save, TL_SAVE);
    save.step = place->step;
    save.round = place->round;
    save.body.save.last = last;
    s_to_parts (self, &save);
}

//  Names of the clients that are not here, as many as fit; returns their length.
static size_t
s_missing (tl_broker_t *self, char *names, size_t size)
{
    size_t used = 0;
    *names = 0;
    for (size_t i = 0; i < self->topology->client_count && used < size - 70; i++) {
        tl_session_t *it = tl_sessions_by_client (&self->sessions, (int)i);
        if (!it || !it->ready)
            used += (size_t)snprintf (names + used, size - used, "%s%s", used ? ", " : "",
                                      self->topology->clients[i].name);
    }
    return used;
}

static void
s_common (void *arg, const tl_place_t *place)
{
    tl_broker_t *self = arg;
    char gone[512];
    s_missing (self, gone, sizeof gone);
    if (*gone)
        tl_info ("all parts that are here are saved at step %llu; not here, and without it: %s",
                 (unsigned long long)place->step, gone);
    else
        tl_info ("all parts are saved at step %llu", (unsigned long long)place->step);
    tl_store_common (self, place);
}

//  The trunk's state, then the order; both in sequence on the worker's link.
void
tl_broker_send_state (tl_broker_t *self, const tl_place_t *place, void *state, size_t size)
{
    tl_session_t *worker = tl_sessions_worker (&self->sessions);
    if (!worker)
        return;
    if (state) {
        tl_packed_t *packed = tl_pack (state, size, 1, TL_W_U8);
        tl_message_t message;
        tl_message_init (&message, TL_STATE);
        message.step = place->step;
        for (size_t i = 0; i < tl_packed_chunks (packed); i++) {
            const void *data = tl_packed_chunk (packed, i, &message.body.state.tensor);
            zmq_msg_t payload;
            int rc = zmq_msg_init_data (&payload, (void *)data, message.body.state.tensor.size,
                                        tl_packed_release, packed);
            tl_assert (rc == 0);
            s_stamp (self, &message);
            snprintf (message.sender, sizeof message.sender, "broker");
            tl_link_send (worker->link, &message, &payload, 0);
        }
        tl_packed_destroy (&packed);
    }
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = place->step;
    restore.round = place->round;
    restore.body.restore.text = "back to the last common save";
    s_send (self, worker, &restore);
}

static void
s_restore (void *arg, const tl_place_t *place, const char *why)
{
    tl_broker_t *self = arg;
    tl_warn ("%s: all parts go back to the common save of step %llu%s", why,
             (unsigned long long)place->step, place->step ? "" : " (the start)");
    tl_event ("restore", "{sIss}", "step", (json_int_t)place->step, "why", why);
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = place->step;
    restore.round = place->round;
    restore.body.restore.text = why;
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->ready && it->role == TL_ROLE_CLIENT)
            s_send (self, it, &restore);
    if (place->step)
        tl_store_fetch (self, place);
    else
        tl_broker_send_state (self, place, NULL, 0);
}

static void
s_back (void *arg, size_t client, uint64_t step)
{
    tl_broker_t *self = arg;
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = step;
    restore.body.restore.text = "the run went back while it was away";
    s_send (self, tl_sessions_by_client (&self->sessions, (int)client), &restore);
}

static void
s_finish (void *arg)
{
    tl_broker_t *self = arg;
    tl_message_t finish;
    tl_message_init (&finish, TL_FINISH);
    finish.body.finish.text = "the last step is committed and saved";
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->ready && it->role == TL_ROLE_CLIENT)
            s_send (self, it, &finish);
}

static void
s_done (void *arg, int code, const char *text)
{
    tl_broker_t *self = arg;
    tl_place_t place = tl_scheduler_place (self->scheduler);
    self->over = true;
    self->code = code;
    snprintf (self->text, sizeof self->text, "%s", text);
    tl_info ("run over after %llu steps%s%s", (unsigned long long)place.step, *text ? ": " : "",
             text);
    bool complete = code == 0 && !*text;
    tl_event ("done", "{sIsisssfsb}", "steps", (json_int_t)place.step, "code", code, "text", text,
              "seconds", (double)(tl_clock_ms () - self->began) / 1000, "complete", complete);
    tl_ledger_flush (self->ledger);
    if (self->options.stay && complete)
        tl_broker_serve (self);
    else
        tl_broker_end (self);
}

static void
s_unserved (void *arg, const char *why)
{
    tl_broker_t *self = arg;
    self->code = TL_FAILED;
    snprintf (self->text, sizeof self->text,
              "the run is complete and its adapters are in %s/%s, but it can't be served on: the "
              "worker was lost, and its trunk of step %llu can't be brought back: %s",
              self->topology->checkpoint.dir, self->topology->name,
              (unsigned long long)tl_scheduler_saved_step (self->scheduler), why);
    tl_broker_end (self);
}

const tl_scheduler_actions_t tl_broker_actions = {
    .plan = s_plan,
    .leave = s_leave,
    .give_up = s_give_up,
    .abandoned = s_abandoned,
    .save = s_save,
    .common = s_common,
    .restore = s_restore,
    .back = s_back,
    .finish = s_finish,
    .done = s_done,
    .unserved = s_unserved,
};

//  --- who comes and goes -----------------------------------------------------------------------

//  A trunk is here (again): what readers asked before went nowhere, or to a worker that is gone.
static void
s_tell_readers (tl_broker_t *self)
{
    if (!tl_scheduler_serves (self->scheduler))
        return;
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = tl_scheduler_place (self->scheduler).step;
    restore.body.restore.text = "a worker holds the trunk: ask again";
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->ready && it->role == TL_ROLE_READER)
            s_send (self, it, &restore);
}

//  A run that waits says for whom.
static void
s_say_missing (tl_broker_t *self)
{
    char names[512];
    size_t used = s_missing (self, names, sizeof names);
    if (!tl_sessions_worker (&self->sessions))
        snprintf (names + used, sizeof names - used, "%sa worker", used ? " and " : "");
    if (*names)
        tl_info ("waiting for %s", names);
}

void
tl_broker_ready (tl_broker_t *self, tl_session_t *session)
{
    if (session->role == TL_ROLE_WORKER) {
        tl_scheduler_worker_join (self->scheduler);
        s_tell_readers (self);
    } else if (session->role == TL_ROLE_CLIENT && self->over)
        tl_broker_dismiss (self, session);
    else if (session->role == TL_ROLE_CLIENT)
        tl_scheduler_join (self->scheduler, (size_t)session->index);
    if (tl_scheduler_state (self->scheduler) == TL_RUN_WAITING)
        s_say_missing (self);
}

void
tl_broker_gone (tl_broker_t *self, tl_session_t *session)
{
    bool ready = session->ready;
    session->ready = false;
    if (!ready)
        return;
    if (session->role == TL_ROLE_WORKER) {
        tl_assembly_destroy (&self->state);
        for (tl_session_t *it = self->sessions.first; it; it = it->next)
            while (it->asked_count)
                tl_link_release (it->link, tl_session_answered (it)); //  this worker never will
        tl_scheduler_worker_left (self->scheduler);
    } else if (session->role == TL_ROLE_CLIENT)
        tl_scheduler_left (self->scheduler, (size_t)session->index);
}

//  --- from clients -----------------------------------------------------------------------------

static void
s_late (tl_broker_t *self, tl_session_t *session, const tl_message_t *message)
{
    if (session->late == message->step + 1)
        return;
    session->late = message->step + 1;
    tl_message_t late;
    tl_message_init (&late, TL_LATE);
    late.step = message->step;
    late.body.late.current = tl_scheduler_place (self->scheduler).step;
    s_send (self, session, &late);
}

//  True if the message may go on to the worker.
static bool
s_timely (tl_broker_t *self, tl_session_t *session, const tl_message_t *message)
{
    size_t client = (size_t)session->index;
    if (tl_scheduler_open (self->scheduler, message->step) &&
        tl_scheduler_member (self->scheduler, client) &&
        message->micro < self->topology->train.micros)
        return true;
    //  It repeats a COMMIT whose answer it never saw: the worker still knows the answer.
    if (message->type == TL_COMMIT && self->committed[client] == message->step + 1)
        return true;
    s_late (self, session, message);
    return false;
}

//  True if it was passed on: then it is released when the receiver has released it.
static bool
s_from_client (tl_broker_t *self, tl_session_t *session, tl_message_t *message, zmq_msg_t *payload)
{
    size_t client = (size_t)session->index;
    tl_session_t *worker = tl_sessions_worker (&self->sessions);
    //  A reader takes no part in the run, whatever it says.
    if (session->role == TL_ROLE_READER && message->type != TL_FORWARD)
        return false;
    switch (message->type) {
    case TL_ACTIVATION:
    case TL_GRADIENT:
    case TL_COMMIT:
        if (worker && s_timely (self, session, message)) {
            if (message->type == TL_ACTIVATION && message->body.activation.tensor.offset == 0)
                self->step_rows += message->body.activation.tensor.rows;
            s_relay (self, session, worker, message, payload);
            return true;
        }
        break;
    case TL_FORWARD:
        if (worker && tl_scheduler_serves (self->scheduler)) {
            s_relay_forward (self, session, worker, message, payload);
            return true;
        }
        break;
    case TL_SAVED:
        tl_scheduler_client_saved (self->scheduler, client, message->step, message->body.saved.good,
                                   message->body.saved.text);
        break;
    case TL_RESTORED:
        tl_info ("%s is back at step %llu: %s", session->label, (unsigned long long)message->step,
                 message->body.restored.text);
        tl_scheduler_client_restored (self->scheduler, client, message->body.restored.good,
                                      message->body.restored.text);
        break;
    case TL_FINISHED:
        tl_event ("finished", "{sssfsI}", "name", session->name, "nll", message->body.finished.nll,
                  "labels", (json_int_t)message->body.finished.labels);
        tl_scheduler_finished (self->scheduler, client);
        break;
    default:
        break;
    }
    return false;
}

//  --- from the worker --------------------------------------------------------------------------

static void
s_on_state (tl_broker_t *self, const tl_message_t *message, zmq_msg_t *payload)
{
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
s_on_closed (tl_broker_t *self, const tl_message_t *message)
{
    uint64_t labels = message->body.committed.labels;
    if (labels)
        tl_event ("closed", "{sIsIsIsfsfsIsIsI}", "step", (json_int_t)message->step, "round",
                  (json_int_t)message->round, "labels", (json_int_t)labels, "norm",
                  message->body.committed.norm, "seconds",
                  (double)(tl_clock_ms () - self->step_began) / 1000, "members",
                  (json_int_t)self->step_members, "rows", (json_int_t)self->step_rows, "bytes",
                  (json_int_t)(self->payload - self->closed_payload));
    self->closed_payload = self->payload;
    tl_scheduler_closed (self->scheduler, message->step, labels);
}

//  The worker found a member breaking the rules of the step: its session ends with the worker's sentence.
static void
s_on_expelled (tl_broker_t *self, const tl_message_t *message)
{
    int client = tl_topology_client (self->topology, message->body.leave.name);
    tl_session_t *session = client < 0 ? NULL : tl_sessions_by_client (&self->sessions, client);
    if (!session)
        return;
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.code = TL_CONNECTION;
    bye.body.bye.text = message->body.leave.text;
    tl_broker_control (self, session, &bye);
    tl_broker_drop (self, session, "the worker found it breaking the rules of the step");
}

//  True if it was passed on: then it is released when the receiver has released it.
static bool
s_from_worker (tl_broker_t *self, tl_session_t *session, tl_message_t *message, zmq_msg_t *payload)
{
    tl_session_t *to = tl_sessions_by_label (&self->sessions, message->sender);
    switch (message->type) {
    case TL_COMMITTED:
        if (strcmp (message->sender, "broker") == 0) {
            s_on_closed (self, message);
            break;
        }
        int client = tl_topology_client (self->topology, message->sender);
        if (client >= 0)
            self->committed[client] = message->step + 1;
        //  fall through
    case TL_HIDDEN:
    case TL_GRAD_IN:
        if (to && to->ready) {
            s_relay (self, session, to, message, payload);
            return true;
        }
        break;
    case TL_FORWARDED:
        if (to && to->ready)
            s_relay_forwarded (self, session, to, message, payload);
        break;
    case TL_LEAVE:
        s_on_expelled (self, message);
        break;
    case TL_STATE:
        s_on_state (self, message, payload);
        break;
    case TL_SAVED:
        //  A good one counts when its STATE is on disk (tl_store_put).
        if (!message->body.saved.good)
            tl_scheduler_saved (self->scheduler, message->step, false, message->body.saved.text);
        break;
    case TL_RESTORED:
        tl_scheduler_restored (self->scheduler, message->body.restored.good,
                               message->body.restored.text);
        if (!message->body.restored.good)
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
    if (message->run == self->run) {
        moved = session->role == TL_ROLE_WORKER ? s_from_worker (self, session, message, payload)
                                                : s_from_client (self, session, message, payload);
    }
    //  Acting on it may have ended the session.
    session = tl_sessions_by_serial (&self->sessions, serial);
    if (!moved && session && session->link)
        tl_link_release (session->link, sequence);
}
