//  broker_admit: who may come in, and on which connection: HELLO, ATTACH, refusals; and the answers that go to connections.

#include "actors/broker_internal.h"
#include "actors/events.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { LARGEST_WINDOW = 2000000000 }; //  bytes: no peer may ask for more credit than that

//  --- sending ----------------------------------------------------------------------------------

static void
s_stamp (tl_broker_t *self, tl_message_t *message)
{
    message->run = self->run;
    message->sent = tl_clock_wall_ms () * 1000;
    if (!*message->sender)
        snprintf (message->sender, sizeof message->sender, "broker");
}

static int
s_answer (tl_broker_t *self, tl_socket_t *socket, const zmq_msg_t *routing, tl_message_t *message)
{
    s_stamp (self, message);
    size_t size;
    void *frame = tl_message_encode (message, &size);
    int rc = tl_socket_send (socket, routing, frame, size, NULL);
    free (frame);
    return rc;
}

void
tl_broker_control (tl_broker_t *self, tl_session_t *session, tl_message_t *message)
{
    if (session->control.attached &&
        s_answer (self, self->control, &session->control.routing, message))
        tl_debug ("%s to %s could not be sent: it is not connected", tl_type_name (message->type),
                  session->label);
}

void
tl_broker_bye (tl_broker_t *self, const zmq_msg_t *routing)
{
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.code = (uint64_t)self->code;
    bye.body.bye.text = self->text;
    s_answer (self, self->control, routing, &bye);
}

void
tl_broker_invalid (tl_broker_t *self, tl_socket_t *socket, const zmq_msg_t *routing, bool expired,
                   const char *text)
{
    tl_message_t invalid;
    tl_message_init (&invalid, TL_INVALID);
    invalid.body.invalid.expired = expired;
    invalid.body.invalid.text = text;
    s_answer (self, socket, routing, &invalid);
}

static int
s_link_send (void *arg, const void *envelope, size_t size, zmq_msg_t *payload)
{
    tl_session_t *session = arg;
    tl_broker_t *self = session->owner;
    tl_socket_t *socket = tl_role_behind (session->role) ? self->workers : self->clients;
    if (!session->data.attached)
        return -1;
    return tl_socket_send (socket, &session->data.routing, envelope, size, payload);
}

//  --- sessions ---------------------------------------------------------------------------------

void
tl_broker_drop (tl_broker_t *self, tl_session_t *session, const char *why)
{
    const char *state = session->dismissed ? "done" : "left";
    tl_info ("%s %s %s: %s", tl_role_name (session->role), session->label,
             session->dismissed ? "is done" : "left", why);
    tl_event ("peer", "{sssssssssI}", "role", tl_role_name (session->role), "name", session->label,
              "state", state, "why", why, "bytes", (json_int_t)session->bytes);
    bool worker = session->role == TL_ROLE_WORKER;
    if (worker || session->role == TL_ROLE_CLIENT)
        self->past[(worker ? self->topology->client_count : 0) + (size_t)session->index] =
            (tl_past_t){.state = state, .bytes = session->bytes, .since = tl_clock_ms ()};
    self->flushed = 0; //  a broker that is started again is not to wait for who left
    tl_broker_gone (self, session);
    tl_sessions_remove (&self->sessions, session);
}

void
tl_broker_dismiss (tl_broker_t *self, tl_session_t *session)
{
    tl_message_t bye;
    tl_message_init (&bye, TL_BYE);
    bye.body.bye.text = "the run is over";
    session->dismissed = true;
    tl_broker_control (self, session, &bye);
}

typedef struct {
    const char *field, *ours, *theirs;
    char text[1024];
    bool retry;
} tl_refusal_t;

static void
s_refuse (tl_broker_t *self, const tl_packet_t *packet, const char *who,
          const tl_refusal_t *refusal)
{
    if (!refusal->retry)
        tl_warn ("refused %s (key of %s): %s", who, packet->user, refusal->text);
    tl_message_t refused;
    tl_message_init (&refused, TL_REFUSED);
    refused.body.refused.field = refusal->field;
    refused.body.refused.ours = refusal->ours;
    refused.body.refused.theirs = refusal->theirs;
    refused.body.refused.text = refusal->text;
    refused.body.refused.retry = refusal->retry;
    s_answer (self, self->control, &packet->routing, &refused);
}

//  "client/north" -> role of the session it asks for and name; -1 if its key doesn't allow that role.
static int
s_role (const tl_packet_t *packet, const char *asked, tl_role_t *role, const char **name)
{
    static const struct {
        const char *asked, *key;
        tl_role_t role;
    } s_roles[] = {{"client", "client/", TL_ROLE_CLIENT},
                   {"reader", "client/", TL_ROLE_READER},
                   {"worker", "worker/", TL_ROLE_WORKER},
                   {"aggregator", "aggregator/", TL_ROLE_AGGREGATOR},
                   {"admin", "admin/", TL_ROLE_ADMIN}};
    for (size_t i = 0; i < sizeof s_roles / sizeof *s_roles; i++)
        if (strcmp (asked, s_roles[i].asked) == 0 &&
            strncmp (packet->user, s_roles[i].key, strlen (s_roles[i].key)) == 0) {
            *role = s_roles[i].role;
            *name = packet->user + strlen (s_roles[i].key);
            return 0;
        }
    return -1;
}

//  Which run it means: of another one nothing else is to be compared.
static int
s_check_run (tl_broker_t *self, const tl_message_t *message, tl_refusal_t *refusal)
{
    const struct tl_body_hello *hello = &message->body.hello;
    refusal->field = "name";
    refusal->ours = self->topology->name;
    refusal->theirs = "nothing";
    for (size_t i = 0; i < hello->agreements_count; i++)
        if (strcmp (hello->agreements[i].field, "name") == 0)
            refusal->theirs = hello->agreements[i].value;
    if (strcmp (refusal->ours, refusal->theirs) == 0)
        return 0;
    snprintf (refusal->text, sizeof refusal->text,
              "its run is '%.300s' and you mean '%.300s': name that run's topology file, or give "
              "yours addresses of its own",
              refusal->ours, refusal->theirs);
    return -1;
}

//  0 and its index in the topology.
static int
s_check_listed (tl_broker_t *self, tl_role_t role, const char *name, int *index,
                tl_refusal_t *refusal)
{
    if (role == TL_ROLE_AGGREGATOR && tl_topology_aggregates (self->topology))
        return 0;
    refusal->ours = refusal->theirs = "";
    if (role == TL_ROLE_AGGREGATOR) {
        refusal->field = "role";
        snprintf (refusal->text, sizeof refusal->text,
                  "its run has no aggregator, because nothing is averaged with its settings: leave "
                  "it out, or give all parts one topology");
        return -1;
    }
    *index = role == TL_ROLE_WORKER ? tl_topology_worker (self->topology, name)
                                    : tl_topology_client (self->topology, name);
    if (*index >= 0)
        return 0;
    refusal->field = role == TL_ROLE_WORKER ? "workers" : "clients";
    refusal->ours = "nothing";
    refusal->theirs = name;
    snprintf (refusal->text, sizeof refusal->text,
              "%s is not listed under %s in the broker's topology: add it there", name,
              refusal->field);
    return -1;
}

static int
s_check_agreements (tl_broker_t *self, const tl_message_t *message, tl_role_t role,
                    const char *name, tl_refusal_t *refusal)
{
    tl_agree_t scope = role == TL_ROLE_READER ? TL_AGREE_READING : TL_AGREE_ALL;
    if (!tl_agreements_differ (&self->agreements, scope, message->body.hello.agreements,
                               message->body.hello.agreements_count, &refusal->field,
                               &refusal->ours, &refusal->theirs))
        return 0;
    bool files = tl_agreement_of_files (refusal->field);
    snprintf (refusal->text, sizeof refusal->text, "%s is %.300s %s and %.300s at %s: %s",
              refusal->field, refusal->ours, files ? "in this run" : "at the broker",
              refusal->theirs, name,
              files ? "the files under model.path differ, take them from the same place"
                    : "make the two equal");
    return -1;
}

static int
s_check_window (tl_broker_t *self, const tl_message_t *message, tl_role_t role, const char *name,
                tl_refusal_t *refusal)
{
    uint64_t bytes = message->body.hello.window_bytes, granted = self->topology->wire.credit;
    uint64_t messages = message->body.hello.window_messages;
    if (bytes < TL_CHUNK_MOST || messages < 1 || messages > TL_BROKER_MESSAGES) {
        refusal->field = "window";
        snprintf (refusal->text, sizeof refusal->text,
                  "%s asks for a window of %llu bytes and %llu messages, which no link can have: "
                  "run the same version of trunkline on all machines",
                  name, (unsigned long long)bytes, (unsigned long long)messages);
        return -1;
    }
    //  A worker's link carries the steps of all clients.
    uint64_t most = LARGEST_WINDOW * (role == TL_ROLE_WORKER ? self->topology->client_count : 1);
    if (granted == 0 || granted > most)
        granted = most;
    if (bytes <= granted)
        return 0;
    refusal->field = "wire.credit_mb";
    snprintf (refusal->text, sizeof refusal->text,
              "%s needs %.1f MB of credit for one step and the broker grants %.1f MB: raise "
              "wire.credit_mb or lower train.batch_size or train.max_length",
              name, (double)bytes / 1e6, (double)granted / 1e6);
    return -1;
}

//  Everything that can be wrong with a HELLO of that role. 0 and the index in the topology if nothing is.
static int
s_check_hello (tl_broker_t *self, const tl_message_t *message, tl_role_t role, const char *name,
               int *index, tl_refusal_t *refusal)
{
    *index = -1;
    if (s_check_run (self, message, refusal))
        return -1;
    if (role == TL_ROLE_ADMIN)
        return 0;
    if (s_check_listed (self, role, name, index, refusal) ||
        s_check_agreements (self, message, role, name, refusal))
        return -1;
    refusal->ours = refusal->theirs = "";
    return s_check_window (self, message, role, name, refusal);
}

//  A peer that is here already: the same process says HELLO again (its WELCOME was lost, or it lost its session) or a new
//  process follows a dead one. False if the old one is alive: then the new one has to wait.
static bool
s_make_room (tl_broker_t *self, const tl_message_t *message, tl_role_t role, const char *name,
             int index, tl_refusal_t *refusal)
{
    tl_session_t *old = role == TL_ROLE_CLIENT   ? tl_sessions_by_client (&self->sessions, index)
                        : role == TL_ROLE_WORKER ? tl_sessions_by_worker (&self->sessions, index)
                        : role == TL_ROLE_AGGREGATOR ? tl_sessions_aggregator (&self->sessions)
                                                     : NULL;
    if (!old)
        return true;
    bool same = old->process == message->body.hello.process;
    if (!same && !old->broken &&
        tl_clock_ms () - old->heard < 2 * self->topology->liveness.ping_ms) {
        refusal->field = "name";
        refusal->retry = true;
        snprintf (refusal->text, sizeof refusal->text,
                  "%s is connected already: stop the other process, or wait until it is gone",
                  name);
        return false;
    }
    tl_broker_drop (self, old, same ? "it began again" : "a new process took its place");
    return true;
}

static void
s_welcome (tl_broker_t *self, const tl_session_t *session)
{
    tl_message_t welcome;
    tl_message_init (&welcome, TL_WELCOME);
    welcome.step = tl_scheduler_place (self->scheduler).step;
    welcome.body.welcome.session = session->id;
    welcome.body.welcome.session_size = sizeof session->id;
    welcome.body.welcome.ping_ms = (uint64_t)self->topology->liveness.ping_ms;
    welcome.body.welcome.expire_ms = (uint64_t)self->topology->liveness.expire_ms;
    //  What a peer asks for both ways is what its own step needs; s_check_hello has bounded it.
    welcome.body.welcome.window_bytes = session->granted_bytes;
    welcome.body.welcome.window_messages = session->granted_messages;
    s_answer (self, self->control, &session->control.routing, &welcome);
}

static void
s_bind_files (tl_broker_t *self, const tl_message_t *message)
{
    for (size_t i = 0; i < message->body.hello.agreements_count; i++) {
        const tl_agreement_t *theirs = &message->body.hello.agreements[i];
        if (!tl_agreements_find (&self->agreements, theirs->field)) {
            tl_agreements_bind (&self->agreements, theirs->field, theirs->value);
            tl_store_agreed (self, theirs);
        }
    }
}

void
tl_broker_on_hello (tl_broker_t *self, const tl_message_t *message, const tl_packet_t *packet)
{
    tl_refusal_t refusal = {.field = "role", .ours = "", .theirs = ""};
    tl_role_t role;
    const char *name;
    int index;
    if (s_role (packet, message->body.hello.role, &role, &name)) {
        refusal.theirs = message->body.hello.role;
        snprintf (refusal.text, sizeof refusal.text,
                  "the key of %s can't act as %s: use the key of that role", packet->user,
                  message->body.hello.role);
        s_refuse (self, packet, "a peer", &refusal);
        return;
    }
    //  The same process repeating itself before our WELCOME arrived: the session stands.
    tl_session_t *known =
        tl_sessions_by_route (&self->sessions, true, packet->user, &packet->routing);
    if (known && known->process == message->body.hello.process && !known->ready) {
        s_welcome (self, known);
        return;
    }
    if (s_check_hello (self, message, role, name, &index, &refusal) ||
        !s_make_room (self, message, role, name, index, &refusal)) {
        s_refuse (self, packet, tl_role_name (role), &refusal);
        return;
    }
    //  One connection, one session: else a peer could have as many as it likes.
    known = tl_sessions_by_route (&self->sessions, true, packet->user, &packet->routing);
    if (known)
        tl_broker_drop (self, known, "it began again");
    tl_session_t *session = tl_sessions_add (&self->sessions, role, name, packet->user, index);
    session->owner = self;
    session->process = message->body.hello.process;
    session->granted_bytes = message->body.hello.window_bytes;
    session->granted_messages = message->body.hello.window_messages;
    session->rows = message->body.hello.rows;
    session->longest = message->body.hello.longest;
    tl_sessions_attach (&self->sessions, session, true, &packet->routing, packet->fd);
    if (role == TL_ROLE_ADMIN)
        session->ready = true;
    else {
        s_bind_files (self, message);
        session->link = tl_link_new (session->granted_bytes, session->granted_messages, s_link_send,
                                     tl_broker_released, session);
        tl_link_window (session->link, session->granted_bytes, session->granted_messages);
        tl_info ("%s %s is here", tl_role_name (role), session->label);
    }
    s_welcome (self, session);
}

void
tl_broker_on_attach (tl_broker_t *self, const tl_message_t *message, const tl_packet_t *packet,
                     tl_socket_t *socket)
{
    tl_session_t *session = tl_sessions_by_id (&self->sessions, message->body.attach.session,
                                               message->body.attach.session_size);
    if (!session || strcmp (session->user, packet->user) != 0) {
        tl_message_t invalid;
        tl_message_init (&invalid, TL_INVALID);
        invalid.body.invalid.expired = true;
        invalid.body.invalid.text = "no such session";
        invalid.body.invalid.session = message->body.attach.session;
        invalid.body.invalid.session_size = message->body.attach.session_size;
        s_answer (self, socket, &packet->routing, &invalid);
        return;
    }
    session->heard = tl_clock_ms ();
    tl_sessions_attach (&self->sessions, session, socket == self->control, &packet->routing,
                        packet->fd);
    if (session->control.attached && session->data.attached)
        session->broken = 0;
    bool begins = socket != self->control && session->link && !session->ready;
    if (begins) //  told before it can tell of it itself
        tl_event ("peer", "{ssssss}", "role", tl_role_name (session->role), "name", session->label,
                  "state", "here");
    tl_message_t attached;
    tl_message_init (&attached, TL_ATTACHED);
    attached.body.attached.received = session->link ? tl_link_received (session->link) : 0;
    s_answer (self, socket, &packet->routing, &attached);
    if (socket == self->control || !session->link)
        return;
    if (tl_link_attach (session->link, message->body.attach.received)) {
        tl_broker_drop (self, session, "it claims to have received what was never sent");
        tl_broker_invalid (self, socket, &packet->routing, true, "impossible ATTACH");
        return;
    }
    if (begins) {
        session->ready = true;
        tl_broker_ready (self, session);
    }
}

//  What can't be decoded can't be skipped either: on a link it would be sent again and again. The session ends with the
//  sentence; a peer without one (of another version) gets it as the answer to its HELLO.
void
tl_broker_refuse_frame (tl_broker_t *self, tl_socket_t *socket, const tl_packet_t *packet,
                        const char *why)
{
    tl_session_t *session = tl_sessions_by_route (&self->sessions, socket == self->control,
                                                  packet->user, &packet->routing);
    tl_warn ("%s sent something that is not the protocol: %s", packet->user, why);
    if (session) {
        tl_message_t bye;
        tl_message_init (&bye, TL_BYE);
        bye.body.bye.code = TL_CONNECTION;
        bye.body.bye.text = why;
        tl_broker_control (self, session, &bye);
        tl_broker_drop (self, session, "it does not speak our protocol");
    } else if (socket == self->control) {
        tl_refusal_t refusal = {.field = "protocol", .ours = "", .theirs = ""};
        snprintf (refusal.text, sizeof refusal.text, "%s", why);
        s_refuse (self, packet, "a peer", &refusal);
    }
}
