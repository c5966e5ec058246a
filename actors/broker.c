//  broker: sockets, dispatch, liveness, status, stopping. Whether one of its sockets has something is the loop's business.

#include "broker.h"

#include "actors/broker_internal.h"
#include "actors/events.h"
#include "actors/save.h"
#include "base/assert.h"
#include "clock.h"
#include "file.h"
#include "log.h"
#include "memory.h"
#include "net/quota.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    BURST = 256, //  packets taken from one socket in one turn of the loop
    TICK_MS = 250,
    FLUSH_MS = 1000,       //  what was told is in run.db within that
    METRICS_MS = 10000,    //  between its figures
    CONTROL_WINDOW = 1024, //  messages: HWM of the control socket
    REATTACH_MS = 3000,    //  a broken connection must be back within that
    BYE_MS = 3000,         //  a peer that doesn't hang up delays the end by no more than this
    STOP_MS = 10000, //  a stop waits so long for the open step, then so long for the last save
    SPARE = 1024,    //  messages that may wait for a peer above twice its window
};

static const char *const s_states[] = {"up", "serving", "ending"};

//  --- stopping ---------------------------------------------------------------------------------

static void
s_on_patience (void *arg)
{
    tl_broker_t *self = arg;
    self->stop_timer = 0;
    if (self->over)
        return;
    if (!self->hurried) {
        self->hurried = true;
        tl_warn ("the open step doesn't end: giving it up");
        self->stop_timer = tl_actor_timer (self->actor, STOP_MS, 1, s_on_patience, self);
        tl_scheduler_stop (self->scheduler, true, 0, "stopped while a step was open");
    } else {
        snprintf (self->text, sizeof self->text,
                  "not every part answered in time; the last common save is of step %llu",
                  (unsigned long long)tl_scheduler_saved_step (self->scheduler));
        self->code = TL_FAILED;
        tl_broker_end (self);
    }
}

static void
s_stop (tl_broker_t *self, const char *why)
{
    if (self->over) {
        tl_broker_end (self);
        return;
    }
    if (!self->stop_timer)
        self->stop_timer = tl_actor_timer (self->actor, STOP_MS, 1, s_on_patience, self);
    tl_scheduler_stop (self->scheduler, false, 0, why);
}

static void
s_on_signal (void *arg)
{
    s_stop (arg, "stopped by signal");
}

void
tl_broker_unwritable (tl_broker_t *self, const char *why)
{
    tl_error ("%s", why);
    if (!self->stop_timer)
        self->stop_timer = tl_actor_timer (self->actor, STOP_MS, 1, s_on_patience, self);
    tl_scheduler_stop (self->scheduler, false, TL_FAILED, why);
}

void
tl_broker_serve (tl_broker_t *self)
{
    if (tl_actor_state (self->actor) == TL_BROKER_ENDING)
        return; //  somebody stopped it meanwhile
    tl_actor_go (self->actor, TL_BROKER_SERVING, "stay");
    tl_info ("serving eval and generate until `trunkline down`");
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->role == TL_ROLE_CLIENT)
            tl_broker_dismiss (self, it);
    tl_event ("serving", "{}");
}

//  Out, when everybody has heard the BYE and hung up, also whose connection was broken and comes back in time, and all is on
//  the disk. A connection that we close may take along what its peer has not read
//  yet (so libzmq does it with ZMQ_IMMEDIATE), hence it is for them to close.
static void
s_end_when_left (tl_broker_t *self)
{
    if (tl_actor_state (self->actor) != TL_BROKER_ENDING)
        return;
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->control.attached || !it->told)
            return;
    if (tl_compute_pending (self->disk) == 0)
        tl_actor_end (self->actor, self->code);
}

static void
s_on_bye_time (void *arg)
{
    tl_broker_t *self = arg;
    tl_debug ("somebody does not hang up: leaving all the same");
    tl_actor_end (self->actor, self->code);
}

static void
s_tell_end (tl_broker_t *self, tl_session_t *session)
{
    session->told = session->control.attached;
    if (session->told)
        tl_broker_bye (self, &session->control.routing);
}

//  Who comes now learns that there is nothing to come to.
static void
s_on_late_comer (tl_broker_t *self, const tl_message_t *message, const tl_packet_t *packet)
{
    if (message->type == TL_HELLO)
        tl_broker_bye (self, &packet->routing);
    if (message->type != TL_ATTACH)
        return;
    tl_broker_on_attach (self, message, packet, self->control);
    tl_session_t *session =
        tl_sessions_by_route (&self->sessions, true, packet->user, &packet->routing);
    if (session)
        s_tell_end (self, session);
}

//  Everything that was to be said is said: BYE to all.
void
tl_broker_end (tl_broker_t *self)
{
    if (tl_actor_state (self->actor) == TL_BROKER_ENDING)
        return;
    tl_actor_go (self->actor, TL_BROKER_ENDING, "end");
    tl_event ("ending", "{}");
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        s_tell_end (self, it);
    tl_actor_timer (self->actor, BYE_MS, 1, s_on_bye_time, self);
    s_end_when_left (self);
}

//  --- what arrives -----------------------------------------------------------------------------

static void
s_on_control_message (tl_broker_t *self, tl_session_t *session, const tl_message_t *message)
{
    tl_message_t answer;
    switch (message->type) {
    case TL_PING:
        tl_message_init (&answer, TL_PONG);
        answer.body.pong.nonce = message->body.ping.nonce;
        tl_broker_control (self, session, &answer);
        break;
    case TL_PONG:
        break;
    case TL_BYE:
        tl_broker_drop (self, session, message->body.bye.text);
        break;
    case TL_STATUS:
        tl_broker_on_status (self, session);
        break;
    case TL_STOP:
        tl_info ("%s asked to stop", session->user);
        s_stop (self, "stopped by an administrator");
        break;
    default:
        tl_warn ("%s from %s has no place on the control socket: ignored",
                 tl_type_name (message->type), session->label);
    }
}

static void
s_on_sequenced (tl_broker_t *self, tl_session_t *session, tl_message_t *message,
                tl_packet_t *packet, tl_socket_t *socket)
{
    size_t size = packet->has_payload ? zmq_msg_size (&packet->payload) : 0;
    session->bytes += size;
    self->payload += size;
    switch (tl_link_receive (session->link, message, size)) {
    case TL_LINK_NEW:
        if (message->type != TL_CREDIT)
            tl_broker_on_run (self, session, message,
                              packet->has_payload ? &packet->payload : NULL);
        break;
    case TL_LINK_DUPLICATE:
        break;
    case TL_LINK_GAP:
        tl_link_detach (session->link);
        tl_broker_invalid (self, socket, &packet->routing, false,
                           "messages are missing: attach again");
        break;
    case TL_LINK_VIOLATION:
        tl_broker_invalid (self, socket, &packet->routing, true, "more was sent than was granted");
        tl_broker_drop (self, session, "it sent more than it was granted");
        break;
    }
}

static void
s_dispatch (tl_broker_t *self, tl_socket_t *socket, tl_message_t *message, tl_packet_t *packet)
{
    bool control = socket == self->control;
    if (tl_actor_state (self->actor) == TL_BROKER_ENDING) {
        if (control)
            s_on_late_comer (self, message, packet);
        return;
    }
    if (message->type == TL_HELLO && control) {
        tl_broker_on_hello (self, message, packet);
        return;
    }
    if (message->type == TL_ATTACH) {
        tl_broker_on_attach (self, message, packet, socket);
        return;
    }
    tl_session_t *session =
        tl_sessions_by_route (&self->sessions, control, packet->user, &packet->routing);
    if (!session && control && message->type == TL_BYE)
        session = tl_sessions_by_last_route (&self->sessions, packet->user, &packet->routing);
    if (!session) {
        tl_broker_invalid (self, socket, &packet->routing, false,
                           "this connection is not attached");
        return;
    }
    session->heard = tl_clock_ms ();
    const char *role = session->role == TL_ROLE_READER ? "client" : tl_role_name (session->role);
    if (!tl_type_from (message->type, role)) {
        tl_warn ("%s may not send %s: ignored", session->user, tl_type_name (message->type));
        return;
    }
    if (control)
        s_on_control_message (self, session, message);
    else if (session->link && session->ready &&
             (tl_type_sequenced (message->type) || message->type == TL_CREDIT))
        s_on_sequenced (self, session, message, packet, socket);
}

static void
s_on_disconnected (tl_broker_t *self, const tl_socket_t *socket, int fd)
{
    bool control = socket == self->control;
    tl_session_t *next;
    for (tl_session_t *it = self->sessions.first; it && fd >= 0; it = next) {
        next = it->next;
        tl_road_t *road = control ? &it->control : &it->data;
        if (road->fd != fd || (!control && tl_role_behind (it->role) != (socket == self->workers)))
            continue;
        tl_debug ("%s connection of %s broke", control ? "control" : "data", it->label);
        tl_road_close (road);
        if (!control && it->link)
            tl_link_detach (it->link);
        if (!it->broken)
            it->broken = tl_clock_ms ();
        if (it->dismissed)
            tl_broker_drop (self, it, "the run is over");
    }
}

static void
s_tell_outsider (tl_broker_t *self, const tl_socket_t *socket, const tl_socket_event_t *event,
                 const char *why)
{
    char text[256];
    snprintf (text, sizeof text, "on the %s socket %s",
              socket == self->control   ? "control"
              : socket == self->clients ? "clients"
                                        : "workers",
              why);
    tl_outsiders_tell (self->outsiders, event->address, text, tl_clock_ms ());
}

static void
s_on_event (tl_broker_t *self, tl_socket_t *socket)
{
    tl_socket_event_t event;
    while (tl_socket_event (socket, &event) == 1) {
        if (event.event == TL_EVENT_DISCONNECTED) {
            s_on_disconnected (self, socket, event.fd);
            s_end_when_left (self);
        } else if (event.event == TL_EVENT_PLAIN) {
            self->refused_plain++;
            s_tell_outsider (self, socket, &event,
                             "it showed no key: plain text, no ZeroMQ, or it hung up before");
        } else if (event.event == TL_EVENT_OTHER_KEY) {
            self->refused_other++;
            s_tell_outsider (self, socket, &event,
                             "it takes another key for this broker's; it needs the "
                             "broker.broker.key that is in the keys directory here");
        }
    }
}

static void
s_receive (tl_broker_t *self, tl_socket_t *socket)
{
    for (int i = 0; i < BURST; i++) {
        tl_packet_t packet;
        //  The end of a connection before what comes over the next one: it may have the same descriptor.
        s_on_event (self, socket);
        int rc = tl_socket_receive (socket, &packet);
        if (rc == 0)
            break;
        if (rc < 0)
            continue;
        tl_broker_now (self);
        tl_message_t message;
        tl_error_t err;
        //  No User-Id: no handler has vouched for it, so it isn't even read.
        if (!*packet.user)
            self->refused_plain++;
        else if (tl_message_decode (&message, zmq_msg_data (&packet.envelope),
                                    zmq_msg_size (&packet.envelope), &err))
            tl_broker_refuse_frame (self, socket, &packet, err.text);
        else {
            if (tl_message_check_payload (&message, packet.has_payload,
                                          zmq_msg_size (&packet.payload), &err))
                tl_broker_refuse_frame (self, socket, &packet, err.text);
            else
                s_dispatch (self, socket, &message, &packet);
            tl_message_clear (&message);
        }
        tl_packet_close (&packet);
    }
}

static void
s_on_control (void *arg)
{
    tl_broker_t *self = arg;
    s_receive (self, self->control);
}

static void
s_on_clients (void *arg)
{
    tl_broker_t *self = arg;
    s_receive (self, self->clients);
}

static void
s_on_workers (void *arg)
{
    tl_broker_t *self = arg;
    s_receive (self, self->workers);
}

//  --- connections and time ---------------------------------------------------------------------

static void
s_on_control_event (void *arg)
{
    tl_broker_t *self = arg;
    s_on_event (self, self->control);
}

static void
s_on_clients_event (void *arg)
{
    tl_broker_t *self = arg;
    s_on_event (self, self->clients);
}

static void
s_on_workers_event (void *arg)
{
    tl_broker_t *self = arg;
    s_on_event (self, self->workers);
}

static void
s_on_zap (void *arg)
{
    tl_broker_t *self = arg;
    tl_zap_serve (self->zap);
}

static void
s_on_disk (void *arg)
{
    tl_broker_t *self = arg;
    tl_broker_now (self);
    tl_compute_collect (self->disk);
    s_end_when_left (self);
}

//  Whoever lives but takes nothing of what it is sent would hold up all others for ever, and what waits for it would pile
//  up here. A part takes a message when it comes, whatever it computes, so its link always moves on.
static bool
s_stuck (const tl_broker_t *self, tl_session_t *session, int64_t now)
{
    uint64_t pending = session->link ? tl_link_pending (session->link) : 0;
    uint64_t released = pending ? tl_link_released (session->link) : 0;
    if (!pending || released != session->released || !session->moved) {
        session->released = released;
        session->moved = now;
    }
    return now - session->moved > 2 * self->topology->liveness.expire_ms ||
           (!tl_role_behind (session->role) && pending > 2 * session->granted_messages + SPARE);
}

//  What goes to run.db though nobody told it: figures, and what has been told, now and then.
static void
s_note (tl_broker_t *self, int64_t now)
{
    if (now - self->measured >= METRICS_MS) {
        self->measured = now;
        size_t peers = 0, waiting = 0;
        for (const tl_session_t *it = self->sessions.first; it; it = it->next) {
            peers += it->ready;
            waiting += it->link ? tl_link_pending (it->link) : 0;
        }
        tl_ledger_add (self->ledger, "metrics",
                       json_pack ("{sIsIsIsI}", "peers", (json_int_t)peers, "payload_bytes",
                                  (json_int_t)self->payload, "waiting_messages",
                                  (json_int_t)waiting, "refused",
                                  (json_int_t)(self->refused_plain + self->refused_other)));
    }
    if (now - self->flushed >= FLUSH_MS) {
        self->flushed = now;
        tl_ledger_flush (self->ledger);
    }
}

static void
s_on_tick (void *arg)
{
    tl_broker_t *self = arg;
    int64_t now = tl_clock_ms (), expire = self->topology->liveness.expire_ms;
    if (tl_actor_state (self->actor) == TL_BROKER_ENDING)
        return;
    //  If it was us who slept, what the others said in the meantime is still to be read.
    bool slept = now - self->ticked > TICK_MS + expire / 2;
    tl_broker_now (self);
    self->ticked = now;
    s_note (self, now);
    tl_outsiders_tick (self->outsiders, now);
    if (self->options.resume && now - self->began > expire &&
        tl_scheduler_state (self->scheduler) == TL_RUN_WAITING)
        tl_broker_overdue (self);
    tl_session_t *next;
    for (tl_session_t *it = self->sessions.first; it; it = next) {
        next = it->next;
        if (slept) {
            it->heard = it->moved = now;
            it->broken = it->broken ? now : 0;
        }
        if (now - it->heard > expire)
            tl_broker_drop (self, it, "it has been silent for too long");
        else if (it->broken && now - it->broken > REATTACH_MS)
            tl_broker_drop (self, it, "its connection broke and did not come back");
        else if (s_stuck (self, it, now))
            tl_broker_drop (self, it, "it takes nothing of what it is sent");
        else {
            if (now - it->heard > self->topology->liveness.ping_ms &&
                now - it->pinged > self->topology->liveness.ping_ms) {
                tl_message_t ping;
                tl_message_init (&ping, TL_PING);
                ping.body.ping.nonce = (uint64_t)now;
                it->pinged = now;
                tl_broker_control (self, it, &ping);
            }
            if (it->link && it->data.attached && !tl_link_attached (it->link))
                //  It was told that messages are missing, or could not be sent one: it is to attach again
                tl_broker_invalid (self, tl_role_behind (it->role) ? self->workers : self->clients,
                                   &it->data.routing, false, "messages are missing: attach again");
            else if (it->link)
                tl_link_tick (it->link, true);
        }
    }
}

//  --- life -------------------------------------------------------------------------------------

//  Two connections of each peer, those that come anew before the old ones are closed, and admins and readers.
static int
s_raise_limits (const tl_topology_t *topology, tl_error_t *err)
{
    size_t peers = topology->client_count + topology->worker_count;
    char *whose = tl_format ("a broker of %zu peers", peers);
    int rc = tl_quota_files (2 * peers + 64, 2 * peers + 1024, whose, err);
    free (whose);
    return rc;
}

static int
s_open (tl_broker_t *self, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    tl_pair_t pair;
    //  Before all else: another broker may be serving from what lies there.
    if (tl_save_lock (t, "broker", &self->lock, err) || s_raise_limits (t, err))
        return -1;
    if (tl_keys_pair (t->keys, "broker", "broker", &pair, err))
        return -1;
    //  The handler first: no socket of this context may ever live without it.
    if (!self->options.no_zap &&
        !(self->zap = tl_zap_new (self->context, t->keys, self->outsiders, err)))
        return -1;
    self->control = tl_socket_bind (self->context, "control", t->broker.control, "broker.control",
                                    &pair, CONTROL_WINDOW, err);
    if (self->control)
        self->clients = tl_socket_bind (self->context, "clients", t->broker.clients,
                                        "broker.clients", &pair, TL_BROKER_MESSAGES, err);
    if (self->clients)
        self->workers = tl_socket_bind (self->context, "workers", t->broker.workers,
                                        "broker.workers", &pair, TL_BROKER_MESSAGES, err);
    sodium_memzero (&pair, sizeof pair);
    return self->workers ? tl_store_open (self, err) : -1;
}

static void
s_watch (tl_broker_t *self)
{
    tl_actor_watch_socket (self->actor, self->control, s_on_control, s_on_control_event, self);
    tl_actor_watch_socket (self->actor, self->clients, s_on_clients, s_on_clients_event, self);
    tl_actor_watch_socket (self->actor, self->workers, s_on_workers, s_on_workers_event, self);
    if (self->zap)
        tl_actor_watch_zmq (self->actor, tl_zap_socket (self->zap), s_on_zap, self);
    tl_actor_watch_fd (self->actor, tl_compute_fd (self->disk), s_on_disk, self);
    tl_actor_timer (self->actor, TICK_MS, 0, s_on_tick, self);
}

int
tl_broker_run (const tl_topology_t *topology, const tl_broker_options_t *options, tl_error_t *err)
{
    tl_broker_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->options = *options;
    self->lock = -1;
    self->began = self->ticked = tl_clock_ms ();
    self->actor = tl_actor_new ("broker", s_states, s_on_signal, self);
    self->disk = tl_compute_new ();
    self->outsiders = tl_outsiders_new ();
    self->context = zmq_ctx_new ();
    zmq_ctx_set (self->context, ZMQ_BLOCKY, 0);
    zmq_ctx_set (self->context, ZMQ_IO_THREADS, topology->broker.threads + 1); //  control's own
    tl_agreements_make (&self->agreements, topology, TL_AGREE_ALL);
    self->committed = tl_alloc (topology->client_count * sizeof *self->committed);
    self->past = tl_alloc ((topology->client_count + topology->worker_count) * sizeof *self->past);
    int code = TL_BAD_INPUT;
    if (s_open (self, err) == 0) {
        tl_broker_schedule (self);
        s_watch (self);
        tl_info ("up: control %s, clients %s, workers %s", tl_socket_endpoint (self->control),
                 tl_socket_endpoint (self->clients), tl_socket_endpoint (self->workers));
        tl_event ("up", "{ss}", "name", topology->name);
        if (self->ended) {
            self->over = true;
            tl_broker_serve (self);
        }
        code = tl_actor_run (self->actor, err);
        if (code && *self->text)
            tl_fail (err, code, "%s", self->text);
    } else if (err->code)
        code = err->code;
    for (const tl_session_t *it = self->sessions.first; it && self->ledger; it = it->next)
        tl_ledger_add (self->ledger, "traffic",
                       json_pack ("{sssssI}", "role", tl_role_name (it->role), "name", it->label,
                                  "bytes", (json_int_t)it->bytes));
    tl_sessions_clear (&self->sessions);
    //  What was told last is to be in run.db, too.
    tl_ledger_flush (self->ledger);
    tl_compute_finish (self->disk);
    if (self->ledger && code == 0 && tl_ledger_why_not (self->ledger)) {
        code = TL_FAILED;
        tl_fail (err, code, "%s", tl_ledger_why_not (self->ledger));
    }
    tl_compute_destroy (&self->disk);
    tl_ledger_destroy (&self->ledger);
    tl_rundb_destroy (&self->db);
    tl_assembly_destroy (&self->state);
    tl_assembly_destroy (&self->merging);
    free (self->merged);
    free (self->shares.items);
    free (self->chooser);
    free (self->summing);
    tl_socket_destroy (&self->control);
    tl_socket_destroy (&self->clients);
    tl_socket_destroy (&self->workers);
    tl_zap_destroy (&self->zap);
    tl_outsiders_destroy (&self->outsiders);
    zmq_ctx_term (self->context);
    tl_broker_window_close (self);
    tl_scheduler_destroy (&self->scheduler);
    tl_meter_destroy (&self->meter);
    tl_choose_destroy (&self->choose);
    tl_agreements_clear (&self->agreements);
    tl_actor_destroy (&self->actor);
    tl_dir_unlock (&self->lock);
    free (self->committed);
    free (self->past);
    free (self->expected);
    free (self->had);
    free (self->joined);
    json_decref (self->saves);
    free (self);
    return code;
}
