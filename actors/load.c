#include "load.h"

#include "actors/client.h"
#include "actors/events.h"
#include "base/assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"
#include "net/quota.h"

#include <stdlib.h>
#include <zmq.h>

//  Of each client: two connections, each with a monitor's pair and what libzmq and the handshake need.
enum { SOCKETS_EACH = 6, FILES_EACH = 12, FILES_MORE = 128 };

//  So many join at a time: a broker that all greet at once lets most of them wait until they hang up and dial again.
enum { JOINING = 16 };

static const char *const s_states[] = {"up", "stopping"};
enum { UP, STOPPING };

typedef struct {
    const tl_topology_t *topology;
    tl_actor_t *actor;
    tl_alarms_t *alarms;
    void *context;         //  ZeroMQ's, of all
    tl_client_t **clients; //  [count]
    size_t first;          //  index of the first
    size_t count, begun, joined, over;
    int code; //  the first that isn't 0
    tl_error_t *err;
    int64_t began;
} tl_load_t;

static void
s_stop (void *arg)
{
    tl_load_t *self = arg;
    if (tl_actor_state (self->actor) == STOPPING)
        return;
    tl_actor_go (self->actor, STOPPING, "stop");
    for (size_t i = 0; i < self->begun && self->over < self->begun; i++) {
        tl_log_of (self->topology->clients[self->first + i].name);
        tl_client_stop (self->clients[i]);
    }
    if (self->over == self->begun)
        tl_actor_end (self->actor, self->code);
}

//  The first that fails is what is said; the others leave, but not from inside it.
static void
s_fail (tl_load_t *self, int code, const char *text)
{
    if (self->code)
        return;
    self->code = code;
    tl_fail (self->err, (tl_code_t)code, "%s", text);
    tl_actor_timer (self->actor, 1, 1, s_stop, self);
}

static void s_on_ready (void *arg);
static void s_on_over (void *arg, int code, const char *text);

//  The next ones join.
static int
s_begin (tl_load_t *self, tl_error_t *err)
{
    while (self->begun < self->count && self->begun < self->joined + self->over + JOINING &&
           tl_actor_state (self->actor) == UP) {
        tl_client_config_t config = {.topology = self->topology,
                                     .index = self->first + self->begun,
                                     .actor = self->actor,
                                     .alarms = self->alarms,
                                     .context = self->context,
                                     .on_ready = s_on_ready,
                                     .on_over = s_on_over,
                                     .arg = self};
        const char *who = tl_log_who ();
        tl_log_of (self->topology->clients[config.index].name);
        tl_client_t *client = tl_client_new (&config, err);
        tl_log_of (who);
        if (!client)
            return -1;
        self->clients[self->begun++] = client;
    }
    return 0;
}

static void
s_begin_more (tl_load_t *self)
{
    tl_error_t err;
    if (s_begin (self, &err))
        s_fail (self, (int)err.code, err.text);
}

static void
s_on_ready (void *arg)
{
    tl_load_t *self = arg;
    self->joined++;
    s_begin_more (self);
}

static void
s_on_over (void *arg, int code, const char *text)
{
    tl_load_t *self = arg;
    self->over++;
    if (code)
        s_fail (self, code, text);
    else
        s_begin_more (self);
    bool all = self->begun == self->count || tl_actor_state (self->actor) == STOPPING;
    if (self->over == self->begun && all)
        tl_actor_end (self->actor, self->code);
}

static int
s_open (tl_load_t *self, tl_error_t *err)
{
    char *whose = tl_format ("a load of %zu clients", self->count);
    int rc = tl_quota_files (FILES_EACH * self->count + FILES_MORE, 0, whose, err);
    if (rc == 0)
        rc = tl_quota_sockets (self->context, SOCKETS_EACH * self->count + 16, whose, err);
    free (whose);
    return rc ? rc : s_begin (self, err);
}

static void
s_tell (const tl_load_t *self)
{
    tl_client_totals_t all = {0};
    uint64_t least = UINT64_MAX, most = 0;
    for (size_t i = 0; i < self->begun; i++) {
        tl_client_totals_t one = tl_client_totals (self->clients[i]);
        all.steps += one.steps;
        all.labels += one.labels;
        all.bytes += one.bytes;
        least = one.steps < least ? one.steps : least;
        most = one.steps > most ? one.steps : most;
    }
    tl_event ("load", "{sIsIsIsIsIsIsf}", "clients", (json_int_t)self->begun, "steps",
              (json_int_t)all.steps, "least_steps", (json_int_t)least, "most_steps",
              (json_int_t)most, "labels", (json_int_t)all.labels, "bytes", (json_int_t)all.bytes,
              "seconds", (double)(tl_clock_us () - self->began) * 1e-6);
}

int
tl_load_run (const tl_topology_t *topology, size_t first, size_t count, tl_error_t *err)
{
    tl_assert (count > 0 && first + count <= topology->client_count);
    if (!topology->model.synthetic) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s has a model: only synthetic clients share a process; run each client by "
                 "itself, or write model: {synthetic: {hidden: 256}}",
                 topology->source);
        return TL_BAD_INPUT;
    }
    tl_load_t self = {
        .topology = topology, .first = first, .count = count, .err = err, .began = tl_clock_us ()};
    char *title = tl_format ("load/%s", topology->clients[first].name);
    self.actor = tl_actor_new (title, s_states, s_stop, &self);
    free (title);
    self.alarms = tl_alarms_new (self.actor);
    self.context = zmq_ctx_new ();
    zmq_ctx_set (self.context, ZMQ_BLOCKY, 0);
    self.clients = tl_alloc (count * sizeof *self.clients);
    int code = s_open (&self, err) == 0 ? tl_actor_run (self.actor, err) : (int)err->code;
    if (self.begun)
        s_tell (&self);
    for (size_t i = 0; i < count; i++)
        tl_client_destroy (&self.clients[i]);
    free (self.clients);
    zmq_ctx_term (self.context);
    tl_alarms_destroy (&self.alarms);
    tl_actor_destroy (&self.actor);
    return code;
}
