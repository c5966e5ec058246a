//  broker_status: what an administrator is told of the run and of who is here.

#include "actors/broker_internal.h"
#include "base/assert.h"
#include "clock.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_LIMIT = 262144 }; //  bytes of REPORT's json
enum { FEW = 6, FIRST = 3 };    //  so many who aren't here are all named; of more, the first

static json_t *
s_add_peer (json_t *peers, const char *name, const char *role, const char *state, uint64_t bytes,
            int64_t heard)
{
    json_t *peer =
        json_pack ("{sssssssIsI}", "name", name, "role", role, "state", state, "bytes_in",
                   (json_int_t)bytes, "silent_ms", (json_int_t)(tl_clock_ms () - heard));
    json_array_append_new (peers, peer);
    return peer;
}

//  What the worker's time went to until its last step was over.
static void
s_add_times (const tl_broker_t *self, json_t *peer, size_t worker)
{
    tl_waited_t waited = tl_meter_waited (self->meter, worker);
    json_object_set_new (peer, "computed_s",
                         json_real ((double)tl_meter_computed (self->meter, worker) / 1e6));
    json_object_set_new (peer, "waited",
                         json_pack ("{sfsfsf}", "input_s", (double)waited.input_us / 1e6,
                                    "commit_s", (double)waited.commit_us / 1e6, "credit_s",
                                    (double)waited.credit_us / 1e6));
}

static void
s_add_past (json_t *peers, tl_role_t role, const char *name, const tl_past_t *past)
{
    if (past->state)
        s_add_peer (peers, name, tl_role_name (role), past->state, past->bytes, past->since);
}

//  Who is here, and clients and workers who were.
static json_t *
s_peers (tl_broker_t *self)
{
    json_t *peers = json_array ();
    for (const tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->role != TL_ROLE_ADMIN) {
            json_t *peer = s_add_peer (peers, it->label, tl_role_name (it->role),
                                       it->dismissed ? "done"
                                       : it->broken  ? "reconnecting"
                                       : it->ready   ? "here"
                                                     : "joining",
                                       it->bytes, it->heard);
            if (it->role == TL_ROLE_WORKER)
                s_add_times (self, peer, (size_t)it->index);
        }
    const tl_topology_t *t = self->topology;
    for (size_t i = 0; i < t->client_count; i++)
        if (!tl_sessions_by_client (&self->sessions, (int)i))
            s_add_past (peers, TL_ROLE_CLIENT, t->clients[i].name, &self->past[i]);
    for (size_t i = 0; i < t->worker_count; i++)
        if (!tl_sessions_by_worker (&self->sessions, (int)i))
            s_add_past (peers, TL_ROLE_WORKER, t->workers[i].name,
                        &self->past[t->client_count + i]);
    return peers;
}

//  Whom a line of names is of.
typedef enum { S_CLIENTS, S_CLIENTS_AWAITED, S_WORKERS } s_missing_t;

static bool
s_missing (tl_broker_t *self, s_missing_t whom, size_t i)
{
    return whom == S_WORKERS           ? !tl_broker_worker (self, i)
           : whom == S_CLIENTS_AWAITED ? tl_scheduler_awaits (self->scheduler, i)
                                       : !tl_broker_client (self, i);
}

//  Adds who is missing: few by name, of many how many and the first. Returns how many.
static size_t
s_add_missing (tl_broker_t *self, s_missing_t whom, char names[TL_BROKER_NAMES])
{
    const tl_topology_t *t = self->topology;
    bool workers = whom == S_WORKERS;
    size_t all = workers ? t->worker_count : t->client_count, missing = 0, named = 0;
    for (size_t i = 0; i < all; i++)
        missing += s_missing (self, whom, i);
    if (!missing)
        return 0;
    bool many = missing > FEW;
    char *end = names + strlen (names);
    if (*names)
        end = stpcpy (end, ", ");
    if (many)
        end += sprintf (end, "%zu of %zu %s (", missing, all, workers ? "workers" : "clients");
    for (size_t i = 0; named < (many ? FIRST : missing); i++)
        if (s_missing (self, whom, i))
            end += sprintf (end, "%s%s", named++ ? ", " : "",
                            workers ? t->workers[i].name : t->clients[i].name);
    strcpy (end, many ? " ...)" : "");
    return missing;
}

void
tl_broker_missing (tl_broker_t *self, bool awaited, char names[TL_BROKER_NAMES])
{
    *names = 0;
    s_add_missing (self, awaited ? S_CLIENTS_AWAITED : S_CLIENTS, names);
}

size_t
tl_broker_awaited (tl_broker_t *self, char names[TL_BROKER_NAMES])
{
    const tl_topology_t *t = self->topology;
    bool all = tl_broker_needs_all_workers (t), any = false;
    *names = 0;
    size_t clients = s_add_missing (self, S_CLIENTS_AWAITED, names);
    if (all)
        s_add_missing (self, S_WORKERS, names);
    for (size_t i = 0; i < t->worker_count; i++)
        any |= tl_broker_worker (self, i) != NULL;
    if (!any && !all)
        strcat (names, *names ? " and a worker" : "a worker");
    tl_session_t *aggregator = tl_sessions_aggregator (&self->sessions);
    if (tl_topology_aggregates (t) && !(aggregator && aggregator->ready))
        strcat (names, *names ? " and the aggregator" : "the aggregator");
    return clients > FEW ? clients : 0;
}

void
tl_broker_on_status (tl_broker_t *self, tl_session_t *session)
{
    tl_place_t place = tl_scheduler_place (self->scheduler);
    json_t *report = json_pack (
        "{sssssIsIsIsIsIsfsos{sIsIsIsI}}", "run", self->topology->name, "state",
        tl_actor_state (self->actor) == TL_BROKER_SERVING
            ? "serving"
            : tl_scheduler_state_name (self->scheduler),
        "step", (json_int_t)place.step, "round", (json_int_t)place.round, "rounds",
        (json_int_t)tl_topology_rounds (self->topology), "saved_step",
        (json_int_t)tl_scheduler_saved_step (self->scheduler), "groups",
        (json_int_t)tl_scheduler_groups (self->scheduler), "seconds",
        (double)(tl_clock_ms () - self->began) / 1000, "peers", s_peers (self), "refused",
        "unknown_key", (json_int_t)(self->zap ? tl_zap_refused_unknown (self->zap) : 0),
        "wrong_role", (json_int_t)(self->zap ? tl_zap_refused_role (self->zap) : 0), "plain_text",
        (json_int_t)self->refused_plain, "other_broker", (json_int_t)self->refused_other);
    tl_assert (report);
    if (tl_scheduler_state (self->scheduler) == TL_RUN_WAITING) {
        char names[TL_BROKER_NAMES];
        tl_broker_awaited (self, names);
        json_object_set_new (report, "waiting_for", json_string (names));
    }
    if (self->window)
        json_object_set_new (report, "window", tl_broker_window_report (self));
    char *text = json_dumps (report, JSON_COMPACT | JSON_PRESERVE_ORDER);
    if (strlen (text) > REPORT_LIMIT) {
        //  Thousands of peers: their number must do.
        size_t peers = json_array_size (json_object_get (report, "peers"));
        json_object_set_new (report, "peers", json_array ());
        json_object_set_new (report, "peers_left_out", json_integer ((json_int_t)peers));
        free (text);
        text = json_dumps (report, JSON_COMPACT | JSON_PRESERVE_ORDER);
    }
    tl_message_t answer;
    tl_message_init (&answer, TL_REPORT);
    answer.body.report.json = text;
    tl_broker_control (self, session, &answer);
    free (text);
    json_decref (report);
}
