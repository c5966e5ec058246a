#include "admin.h"

#include "actors/actor.h"
#include "actors/agreement.h"
#include "actors/peer.h"
#include "memory.h"

#include <string.h>

enum { ANSWER_MS = 5000 }; //  a broker that is there answers HELLO within that

static const char *const s_states[] = {"asking"};

typedef struct {
    const tl_topology_t *topology;
    tl_actor_t *actor;
    tl_peer_t *peer;
    bool stop; //  STOP, else STATUS
    bool asked;
    int64_t timeout_ms; //  for the answer
    int timer;          //  of whatever is waited for
    json_t *report;
    tl_error_t *err;
} tl_admin_t;

static void
s_on_timeout (void *arg)
{
    tl_admin_t *self = arg;
    self->timer = 0;
    if (self->asked)
        tl_fail (self->err, TL_TIMEOUT,
                 "the broker at %s did not answer in time: ask again, or look at its log",
                 self->topology->broker.control);
    else if (self->stop)
        tl_fail (self->err, TL_TIMEOUT,
                 "something listens at %s and does not answer as a broker; look whether "
                 "broker.control names the run's machine and port, or end the run's processes",
                 self->topology->broker.control);
    else
        tl_fail (self->err, TL_TIMEOUT,
                 "nobody answered at %s: start the run with `trunkline up`, or look whether "
                 "broker.control names the right machine and port",
                 self->topology->broker.control);
    tl_actor_end (self->actor, TL_TIMEOUT);
}

static void
s_wait (tl_admin_t *self, int64_t ms)
{
    tl_actor_cancel (self->actor, self->timer);
    self->timer = tl_actor_timer (self->actor, (size_t)ms, 1, s_on_timeout, self);
}

static void
s_on_ready (void *arg)
{
    tl_admin_t *self = arg;
    s_wait (self, self->timeout_ms);
    tl_message_t message;
    tl_message_init (&message, self->stop ? TL_STOP : TL_STATUS);
    if (self->stop)
        message.body.stop.text = "stop";
    self->asked = true;
    tl_peer_control (self->peer, &message);
}

static void
s_on_lost (void *arg)
{
}

//  The first refused connection is answer enough: who asks wants to know what is there now.
static void
s_on_nobody (void *arg)
{
    tl_admin_t *self = arg;
    if (self->asked)
        return;
    if (self->stop)
        tl_fail (self->err, TL_CONNECTION,
                 "nothing listens at %s, so nothing is there to be stopped; if a run is up, look "
                 "whether broker.control names its machine and port",
                 self->topology->broker.control);
    else
        tl_fail (self->err, TL_CONNECTION,
                 "nothing listens at %s: start the run with `trunkline up`, or look whether "
                 "broker.control names the right machine and port",
                 self->topology->broker.control);
    tl_actor_end (self->actor, TL_CONNECTION);
}

static void
s_on_message (void *arg, const tl_message_t *message, const void *payload, size_t size)
{
    tl_admin_t *self = arg;
    if (message->type != TL_REPORT || self->report)
        return;
    json_error_t error;
    self->report = json_loads (message->body.report.json, 0, &error);
    tl_actor_end (self->actor, 0);
}

static void
s_on_end (void *arg, int code, const char *text)
{
    tl_admin_t *self = arg;
    //  BYE is the answer to STOP, whatever the run's own code is.
    bool stopped = self->stop && self->asked && code != TL_CONNECTION;
    if (!stopped)
        tl_fail (self->err, code ? (tl_code_t)code : TL_CONNECTION, "%s", text);
    tl_actor_end (self->actor, stopped ? 0 : TL_CONNECTION);
}

static void
s_on_signal (void *arg)
{
    tl_admin_t *self = arg;
    tl_fail (self->err, TL_FAILED, "interrupted: ask again when you want the answer");
    tl_actor_end (self->actor, TL_FAILED);
}

static int
s_ask (const tl_topology_t *topology, bool stop, int64_t timeout_ms, json_t **report,
       tl_error_t *err)
{
    tl_admin_t self = {.topology = topology, .stop = stop, .timeout_ms = timeout_ms, .err = err};
    self.actor = tl_actor_new ("admin", s_states, s_on_signal, &self);
    //  Another run may have the ports: it isn't to be stopped by mistake
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, topology, TL_AGREE_NAME);
    tl_peer_config_t config = {.role = "admin",
                               .name = "admin",
                               .agreements = agreements.items,
                               .agreement_count = agreements.count,
                               .on_ready = s_on_ready,
                               .on_lost = s_on_lost,
                               .on_nobody = s_on_nobody,
                               .on_message = s_on_message,
                               .on_end = s_on_end,
                               .arg = &self};
    int rc = -1;
    self.peer = tl_peer_new (self.actor, topology, &config, err);
    tl_agreements_clear (&agreements);
    if (self.peer) {
        s_wait (&self, timeout_ms < ANSWER_MS ? timeout_ms : ANSWER_MS);
        rc = tl_actor_run (self.actor, err) ? -1 : 0;
    }
    tl_peer_destroy (&self.peer);
    tl_actor_destroy (&self.actor);
    if (report)
        *report = self.report;
    return rc;
}

json_t *
tl_admin_status (const tl_topology_t *topology, int64_t timeout_ms, tl_error_t *err)
{
    json_t *report = NULL;
    return s_ask (topology, false, timeout_ms, &report, err) ? NULL : report;
}

int
tl_admin_stop (const tl_topology_t *topology, int64_t timeout_ms, tl_error_t *err)
{
    return s_ask (topology, true, timeout_ms, NULL, err);
}
