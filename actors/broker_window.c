/*  broker_window: join: window at the broker. Clients get their PLANs one by one; what they send before their step is open
    is kept, within their credit, and goes to the worker behind its PLAN. The scheduler's timers are alarms.     */

#include "actors/alarm.h"
#include "actors/broker_internal.h"
#include "actors/events.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>

//  A message of a client that is in no step yet.
typedef struct s_kept {
    struct s_kept *next;
    tl_message_t message;
    zmq_msg_t payload;
} s_kept_t;

typedef struct {
    s_kept_t *first, *last;
    bool told; //  that a step began without it, in the log
} s_client_t;

//  A group's timer, and what is known of its last window.
typedef struct {
    tl_alarm_t alarm;
    tl_broker_t *owner;
    size_t group;
} s_timer_t;

struct tl_broker_window {
    tl_alarms_t *alarms;
    s_timer_t *timers;                  //  [workers] by group
    s_client_t *clients;                //  [clients]
    char (*texts)[TL_WINDOW_TEXT + 32]; //  [workers] how a step of that worker began last
    uint64_t without;                   //  steps that began without somebody
    int64_t waited_us;                  //  all that workers stood still
};

static void
s_on_alarm (void *arg)
{
    s_timer_t *timer = arg;
    tl_broker_now (timer->owner);
    tl_scheduler_time_up (timer->owner->scheduler, timer->group);
}

void
tl_broker_window_open (tl_broker_t *self)
{
    const tl_topology_t *t = self->topology;
    if (!t->schedule.window)
        return;
    self->window = tl_alloc (sizeof *self->window);
    self->window->alarms = tl_alarms_new (self->actor);
    self->window->timers = tl_alloc (t->worker_count * sizeof *self->window->timers);
    self->window->texts = tl_alloc (t->worker_count * sizeof *self->window->texts);
    self->window->clients = tl_alloc (t->client_count * sizeof *self->window->clients);
    for (size_t i = 0; i < t->worker_count; i++) {
        s_timer_t *timer = &self->window->timers[i];
        *timer = (s_timer_t){.alarm = {.fn = s_on_alarm, .arg = timer}, .owner = self, .group = i};
    }
}

void
tl_broker_window_close (tl_broker_t *self)
{
    tl_broker_window_t *window = self->window;
    if (!window)
        return;
    for (size_t i = 0; i < self->topology->client_count; i++)
        tl_broker_forget_kept (self, i, NULL);
    for (size_t i = 0; i < self->topology->worker_count; i++)
        tl_alarms_cancel (window->alarms, &window->timers[i].alarm);
    tl_alarms_destroy (&window->alarms);
    free (window->timers);
    free (window->texts);
    free (window->clients);
    free (window);
    self->window = NULL;
}

void
tl_broker_now (tl_broker_t *self)
{
    if (self->window)
        tl_scheduler_now (self->scheduler, tl_clock_us ());
}

//  --- what is kept -----------------------------------------------------------------------------

void
tl_broker_keep (tl_broker_t *self, size_t client, tl_message_t *message, zmq_msg_t *payload)
{
    s_client_t *its = &self->window->clients[client];
    s_kept_t *kept = tl_alloc (sizeof *kept);
    kept->message = *message;
    message->memory = NULL; //  ours now
    zmq_msg_init (&kept->payload);
    zmq_msg_move (&kept->payload, payload);
    if (its->last)
        its->last->next = kept;
    else
        its->first = kept;
    its->last = kept;
    const tl_tensor_wire_t *tensor = tl_message_tensor (message);
    tl_meter_kept (self->meter, client, message, tl_clock_us ());
    if (message->micro == 0 && tensor->offset + tensor->size == tensor->bytes)
        tl_scheduler_ready (self->scheduler, client);
}

static s_kept_t *
s_take (s_client_t *its)
{
    s_kept_t *kept = its->first;
    its->first = kept ? kept->next : NULL;
    if (!its->first)
        its->last = NULL;
    return kept;
}

static void
s_free (s_kept_t *kept)
{
    tl_message_clear (&kept->message);
    zmq_msg_close (&kept->payload);
    free (kept);
}

void
tl_broker_forget_kept (tl_broker_t *self, size_t client, tl_session_t *session)
{
    for (s_kept_t *kept; self->window && (kept = s_take (&self->window->clients[client]));) {
        if (session && session->link)
            tl_broker_release (session, kept->message.sequence);
        s_free (kept);
    }
}

void
tl_broker_pass_kept (tl_broker_t *self, const tl_step_t *step, const size_t *members, size_t count)
{
    tl_session_t *worker = tl_broker_worker (self, step->worker);
    for (size_t i = 0; i < count; i++) {
        tl_session_t *from = tl_broker_client (self, members[i]);
        if (!from || !worker)
            continue;
        for (s_kept_t *kept; (kept = s_take (&self->window->clients[members[i]]));) {
            tl_meter_from_client (self->meter, step->worker, members[i], &kept->message,
                                  tl_clock_us ());
            kept->message.step = step->step;
            tl_broker_relay (self, from, worker, &kept->message, &kept->payload);
            s_free (kept);
        }
    }
}

//  --- the scheduler's actions ------------------------------------------------------------------

void
tl_broker_call (void *arg, size_t client, uint64_t step, uint64_t round)
{
    tl_broker_t *self = arg;
    tl_store_begin (self);
    tl_member_t member = {self->topology->clients[client].name, client};
    tl_message_t plan;
    tl_message_init (&plan, TL_PLAN);
    plan.step = step;
    plan.round = round;
    plan.body.plan.members = &member;
    plan.body.plan.members_count = 1;
    plan.body.plan.micros = self->topology->train.micros;
    tl_broker_send (self, tl_broker_client (self, client), &plan);
    tl_meter_called (self->meter, client, tl_clock_us ());
}

void
tl_broker_recall (void *arg, size_t client, uint64_t step, const char *why)
{
    tl_broker_t *self = arg;
    tl_session_t *session = tl_broker_client (self, client);
    tl_message_t abandon;
    tl_message_init (&abandon, TL_ABANDON);
    abandon.step = step;
    abandon.body.abandon.text = why;
    tl_broker_send (self, session, &abandon);
    tl_broker_forget_kept (self, client, session);
}

void
tl_broker_timer (void *arg, size_t group, int64_t us)
{
    tl_broker_t *self = arg;
    tl_alarm_t *alarm = &self->window->timers[group].alarm;
    if (us)
        tl_alarms_set (self->window->alarms, alarm, tl_clock_us () + us);
    else
        tl_alarms_cancel (self->window->alarms, alarm);
}

void
tl_broker_windowed (void *arg, const tl_step_t *step, const tl_window_step_t *how)
{
    tl_broker_t *self = arg;
    const tl_window_t *judged = &how->judged;
    const char *soonest =
        judged->soonest == SIZE_MAX ? "" : self->topology->clients[judged->soonest].name;
    const char *worker = self->topology->workers[step->worker].name;
    char text[TL_WINDOW_TEXT];
    tl_window_text (how, soonest, text);
    self->window->without += how->late > 0;
    self->window->waited_us += how->waited_us;
    snprintf (self->window->texts[step->worker], sizeof *self->window->texts, "step %llu %s",
              (unsigned long long)step->step + 1, text);
    tl_debug ("step %llu of %s %s", (unsigned long long)step->step + 1, worker, text);
    if (how->late && !self->window->clients[judged->soonest].told) {
        self->window->clients[judged->soonest].told = true;
        tl_info ("step %llu of %s %s; it joins the next one (said once for %s)",
                 (unsigned long long)step->step + 1, worker, text, soonest);
    }
    tl_event ("window", "{sIsIsssIsIsfsssfsfss}", "step", (json_int_t)step->step, "round",
              (json_int_t)step->round, "worker", worker, "members", (json_int_t)how->members,
              "late", (json_int_t)how->late, "waited_ms", (double)how->waited_us / 1e3, "soonest",
              soonest, "soonest_ms", (double)judged->soonest_us / 1e3, "saves_ms",
              (double)judged->saves_us / 1e3, "text", text);
}

//  --- status -----------------------------------------------------------------------------------

json_t *
tl_broker_window_report (const tl_broker_t *self)
{
    const tl_topology_t *t = self->topology;
    json_t *last = json_object ();
    for (size_t i = 0; i < t->worker_count; i++)
        if (*self->window->texts[i])
            json_object_set_new (last, t->workers[i].name, json_string (self->window->texts[i]));
    return json_pack ("{sIsIsfso}", "limit_ms", (json_int_t)t->schedule.window_ms,
                      "steps_without_somebody", (json_int_t)self->window->without, "waited_s",
                      (double)self->window->waited_us / 1e6, "last", last);
}
