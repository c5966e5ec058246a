//  broker_actions: what the scheduler decides becomes messages.

#include "actors/broker_internal.h"
#include "actors/events.h"
#include "base/assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

void
tl_broker_stamp (tl_broker_t *self, tl_message_t *message)
{
    message->run = self->run;
    message->sent = tl_clock_wall_ms () * 1000;
}

void
tl_broker_send (tl_broker_t *self, tl_session_t *to, tl_message_t *message)
{
    if (!to || !to->link)
        return;
    tl_broker_stamp (self, message);
    snprintf (message->sender, sizeof message->sender, "broker");
    tl_link_send (to->link, message, NULL, 0);
}

tl_session_t *
tl_broker_client (tl_broker_t *self, size_t client)
{
    tl_session_t *session = tl_sessions_by_client (&self->sessions, (int)client);
    return session && session->ready ? session : NULL;
}

tl_session_t *
tl_broker_worker (tl_broker_t *self, size_t worker)
{
    tl_session_t *session =
        worker == TL_NOBODY ? NULL : tl_sessions_by_worker (&self->sessions, (int)worker);
    return session && session->ready ? session : NULL;
}

//  --- periods ----------------------------------------------------------------------------------

static void
s_line (void *arg, bool undisturbed)
{
    tl_broker_t *self = arg;
    tl_meter_line (self->meter, undisturbed, tl_clock_us ());
    tl_event ("period", "{sIsIsb}", "period", (json_int_t)self->period, "groups",
              (json_int_t)tl_scheduler_groups (self->scheduler), "batched",
              tl_scheduler_place (self->scheduler).inside == TL_INSIDE_BATCHED);
}

static const tl_decision_t *
s_arrange (void *arg, const tl_present_t *present)
{
    tl_broker_t *self = arg;
    const tl_decision_t *decision = tl_choose_next (self->choose, present);
    tl_place_t place = tl_scheduler_place (self->scheduler);
    if (!decision->changed && !decision->rearranged)
        tl_debug ("from round %llu: %s", (unsigned long long)place.round, decision->text);
    else if (self->topology->worker_count > 1 || self->topology->schedule.mode == TL_MODE_AUTO)
        tl_info ("from round %llu: %s", (unsigned long long)place.round, decision->text);
    json_t *candidates = json_array ();
    for (size_t i = 0; i < decision->candidate_count; i++)
        json_array_append_new (candidates, json_pack ("{sIsisf}", "groups",
                                                      (json_int_t)decision->candidates[i].groups,
                                                      "inside", (int)decision->candidates[i].inside,
                                                      "rows_s", decision->candidates[i].rows_s));
    tl_event ("decision", "{sIsIsIsisbsfsbsbsfsfsosssI}", "round", (json_int_t)place.round,
              "period", (json_int_t)place.round, "groups", (json_int_t)decision->groups, "inside",
              (int)decision->inside, "batched", decision->inside == TL_INSIDE_BATCHED, "predicted",
              decision->rows_s, "changed", decision->changed, "probing", decision->probing,
              "rows_s", decision->rows_s, "best_s", decision->best_s, "candidates", candidates,
              "text", decision->text, "step", (json_int_t)place.step);
    return decision;
}

//  --- steps ------------------------------------------------------------------------------------

//  What one micro may come to: of all clients together, or of the largest where each has steps of its own.
static void
s_extent (tl_broker_t *self, tl_message_t *plan)
{
    bool serial = self->topology->schedule.mode == TL_MODE_SERIAL;
    plan->body.plan.rows = serial ? self->most_rows : self->all_rows;
    plan->body.plan.longest = self->longest;
}

static void
s_plan (void *arg, const tl_step_t *step, const size_t *members, size_t count)
{
    tl_broker_t *self = arg;
    tl_store_begin (self);
    tl_member_t *list = tl_alloc (count * sizeof *list);
    for (size_t i = 0; i < count; i++)
        list[i] = (tl_member_t){self->topology->clients[members[i]].name, members[i]};
    if (self->topology->federate.clients == TL_CLIENTS_SYNC)
        tl_broker_merge_sum (self, step, members, count, list);
    tl_message_t plan;
    tl_message_init (&plan, TL_PLAN);
    plan.step = step->step;
    plan.round = step->round;
    plan.body.plan.members = list;
    plan.body.plan.members_count = count;
    plan.body.plan.micros = self->topology->train.micros;
    s_extent (self, &plan);
    tl_broker_send (self, tl_broker_worker (self, step->worker), &plan);
    tl_meter_plan (self->meter, step, count, tl_clock_us ());
    if (self->window)
        tl_broker_pass_kept (self, step, members, count);
    for (size_t i = 0; i < count && !self->window; i++)
        tl_broker_call (self, members[i], step->step, step->round);
    free (list);
}

static void
s_leave (void *arg, const tl_step_t *step, size_t client)
{
    tl_broker_t *self = arg;
    tl_warn ("%s left step %llu: its weight leaves the batch", self->topology->clients[client].name,
             (unsigned long long)step->step + 1);
    tl_event ("leave", "{sIss}", "step", (json_int_t)step->step, "name",
              self->topology->clients[client].name);
    tl_message_t leave;
    tl_message_init (&leave, TL_LEAVE);
    leave.step = step->step;
    leave.body.leave.name = self->topology->clients[client].name;
    leave.body.leave.text = "it is gone";
    tl_broker_send (self, tl_broker_worker (self, step->worker), &leave);
}

static void
s_give_up (void *arg, const tl_step_t *step, const char *why)
{
    tl_broker_t *self = arg;
    tl_message_t abandon;
    tl_message_init (&abandon, TL_ABANDON);
    abandon.step = step->step;
    abandon.body.abandon.text = why;
    tl_broker_send (self, tl_broker_worker (self, step->worker), &abandon);
}

static void
s_abandoned (void *arg, const tl_step_t *step, const size_t *members, size_t count, const char *why)
{
    tl_broker_t *self = arg;
    tl_warn ("step %llu is abandoned: %s", (unsigned long long)step->step + 1, why);
    tl_event ("abandoned", "{sIssss}", "step", (json_int_t)step->step, "why", why, "worker",
              self->topology->workers[step->worker].name);
    tl_message_t abandon;
    tl_message_init (&abandon, TL_ABANDON);
    abandon.body.abandon.text = why;
    for (size_t i = 0; i < count; i++) {
        abandon.step = tl_scheduler_named (self->scheduler, members[i]);
        tl_broker_send (self, tl_broker_client (self, members[i]), &abandon);
    }
}

//  --- saves ------------------------------------------------------------------------------------

static void
s_save (void *arg, const tl_place_t *place, size_t worker, bool last)
{
    tl_broker_t *self = arg;
    tl_message_t save;
    tl_message_init (&save, TL_SAVE);
    save.step = place->step;
    save.round = place->round;
    save.body.save.last = last;
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->ready && (it->role == TL_ROLE_CLIENT || it->role == TL_ROLE_AGGREGATOR))
            tl_broker_send (self, it, &save);
    self->saver = worker;
    tl_broker_send (self, tl_broker_worker (self, worker), &save);
    //  What was merged at a step that is saved already is the same, but for the rounding.
    if (self->merged && place->step != tl_scheduler_saved_step (self->scheduler))
        tl_store_put (self, place->step, self->merged, self->merged_size);
    else
        free (self->merged);
    self->merged = NULL;
}

static void
s_common (void *arg, const tl_place_t *place)
{
    tl_broker_t *self = arg;
    char gone[TL_BROKER_NAMES];
    tl_broker_missing (self, false, gone);
    if (*gone)
        tl_info ("all parts that are here are saved at step %llu; not here, with only what they "
                 "saved themselves: %s",
                 (unsigned long long)place->step, gone);
    else
        tl_info ("all parts are saved at step %llu", (unsigned long long)place->step);
    tl_store_common (self, place);
}

//  --- the way back -----------------------------------------------------------------------------

//  The trunk's state, then the order; both in sequence on the worker's link.
void
tl_broker_send_state (tl_broker_t *self, tl_session_t *worker, const tl_place_t *place,
                      tl_packed_t *packed)
{
    tl_message_t message;
    tl_message_init (&message, TL_STATE);
    message.step = place->step;
    for (size_t i = 0; packed && i < tl_packed_chunks (packed); i++) {
        const void *data = tl_packed_chunk (packed, i, &message.body.state.tensor);
        zmq_msg_t payload;
        int rc = zmq_msg_init_data (&payload, (void *)data, message.body.state.tensor.size,
                                    tl_packed_release, packed);
        tl_assert (rc == 0);
        tl_broker_stamp (self, &message);
        snprintf (message.sender, sizeof message.sender, "broker");
        tl_link_send (worker->link, &message, &payload, 0);
    }
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = place->step;
    restore.round = place->round;
    restore.body.restore.text = "the trunk of the last common save";
    tl_broker_send (self, worker, &restore);
}

//  Whatever it was asked meanwhile it forgets: nobody waits for those answers.
void
tl_broker_void_asked (tl_broker_t *self, size_t worker)
{
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        while (it->asked_count && it->server == worker)
            tl_broker_release (it, tl_session_answered (it));
}

static void
s_equip (void *arg, const tl_place_t *place, size_t worker)
{
    tl_broker_t *self = arg;
    tl_session_t *session = tl_broker_worker (self, worker);
    tl_broker_void_asked (self, worker);
    if (tl_scheduler_state (self->scheduler) == TL_RUN_DONE)
        tl_event ("restore", "{sIsssb}", "step", (json_int_t)place->step, "why",
                  "a new worker serves the finished run", "all", false);
    if (place->step)
        tl_store_fetch (self, place, session);
    else
        tl_broker_send_state (self, session, place, NULL);
}

static void
s_restore (void *arg, const tl_place_t *place, const size_t *clients, size_t count, size_t group,
           const char *why)
{
    tl_broker_t *self = arg;
    bool all = group == TL_NOBODY;
    if (all)
        tl_warn ("%s: all parts go back to the common save of step %llu%s", why,
                 (unsigned long long)place->step, place->step ? "" : " (the start)");
    else
        tl_warn ("%s: its group goes back to step %llu%s, where the period began", why,
                 (unsigned long long)place->step, place->step ? "" : " (the start)");
    tl_event ("restore", "{sIsssbsI}", "step", (json_int_t)place->step, "why", why, "all", all,
              "group", all ? (json_int_t)-1 : (json_int_t)group);
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = place->step;
    restore.round = place->round;
    restore.body.restore.text = why;
    for (size_t i = 0; i < count; i++) {
        tl_session_t *client = tl_broker_client (self, clients[i]);
        tl_broker_send (self, client, &restore);
        tl_broker_forget_kept (self, clients[i], client);
    }
    tl_session_t *aggregator = tl_sessions_aggregator (&self->sessions);
    if (all && aggregator && aggregator->ready) {
        aggregator->reminded++;
        tl_broker_send (self, aggregator, &restore);
    }
}

static void
s_back (void *arg, size_t client, uint64_t step)
{
    tl_broker_t *self = arg;
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = step;
    restore.body.restore.text = "the run went back";
    tl_broker_send (self, tl_broker_client (self, client), &restore);
}

//  --- the end ----------------------------------------------------------------------------------

static void
s_finish (void *arg)
{
    tl_broker_t *self = arg;
    tl_message_t finish;
    tl_message_init (&finish, TL_FINISH);
    finish.body.finish.text = "the last step is committed and saved";
    for (tl_session_t *it = self->sessions.first; it; it = it->next)
        if (it->ready && it->role == TL_ROLE_CLIENT)
            tl_broker_send (self, it, &finish);
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
    self->complete = complete;
    tl_store_over (self);
}

static void
s_unserved (void *arg, const char *why)
{
    tl_broker_t *self = arg;
    if (!self->complete && tl_actor_state (self->actor) != TL_BROKER_SERVING)
        return; //  it failed, and has said why
    if (tl_scheduler_server (self->scheduler, TL_NOBODY) != TL_NOBODY)
        return; //  another worker serves
    self->code = TL_FAILED;
    snprintf (self->text, sizeof self->text,
              "the run is complete and its adapters are in %s/%s, but it can't be served on: the "
              "worker was lost, and its trunk of step %llu can't be brought back: %s",
              self->topology->checkpoint.dir, self->topology->name,
              (unsigned long long)tl_scheduler_saved_step (self->scheduler), why);
    tl_broker_end (self);
}

static const tl_scheduler_actions_t s_actions = {
    .line = s_line,
    .arrange = s_arrange,
    .plan = s_plan,
    .call = tl_broker_call,
    .recall = tl_broker_recall,
    .timer = tl_broker_timer,
    .windowed = tl_broker_windowed,
    .leave = s_leave,
    .give_up = s_give_up,
    .abandoned = s_abandoned,
    .merge = tl_broker_merge,
    .gather = tl_broker_gather,
    .save = s_save,
    .common = s_common,
    .restore = s_restore,
    .back = s_back,
    .equip = s_equip,
    .finish = s_finish,
    .done = s_done,
    .unserved = s_unserved,
};

//  --- life -------------------------------------------------------------------------------------

bool
tl_broker_needs_all_workers (const tl_topology_t *topology)
{
    return topology->schedule.mode == TL_MODE_FANOUT || topology->schedule.mode == TL_MODE_AUTO;
}

//  Who takes part when is the scheduler's, who with whom the chooser's.
void
tl_broker_schedule (tl_broker_t *self)
{
    static const tl_choose_mode_t s_modes[] = {[TL_MODE_SERIAL] = TL_CHOOSE_SERIAL,
                                               [TL_MODE_BATCH] = TL_CHOOSE_BATCH,
                                               [TL_MODE_FANOUT] = TL_CHOOSE_FANOUT,
                                               [TL_MODE_AUTO] = TL_CHOOSE_AUTO};
    static const tl_share_mode_t s_shares[] = {[TL_CLIENTS_PERSONAL] = TL_SHARE_NOTHING,
                                               [TL_CLIENTS_AVERAGE] = TL_SHARE_AVERAGE,
                                               [TL_CLIENTS_SYNC] = TL_SHARE_GRADIENT};
    const tl_topology_t *t = self->topology;
    tl_choose_config_t choice = {.mode = s_modes[t->schedule.mode],
                                 .workers = t->worker_count,
                                 .clients = t->client_count,
                                 .micros = t->train.micros,
                                 .hysteresis = t->schedule.hysteresis};
    tl_scheduler_config_t config = {.clients = t->client_count,
                                    .workers = t->worker_count,
                                    .rounds = t->train.steps,
                                    .every = t->federate.every,
                                    .save_every = t->checkpoint.every,
                                    .share = s_shares[t->federate.clients],
                                    .start = t->schedule.start,
                                    .all_workers = tl_broker_needs_all_workers (t),
                                    .aggregator = tl_topology_aggregates (t),
                                    .remembers = t->federate.server.optimizer != TL_SERVER_NONE};
    uint64_t *limits = tl_alloc (t->client_count * sizeof *limits);
    for (size_t i = 0; i < t->client_count; i++)
        limits[i] = t->clients[i].steps ? t->clients[i].steps : t->train.steps;
    config.limits = limits;
    self->saver = TL_NOBODY;
    self->choose = tl_choose_new (&choice);
    tl_error_t err;
    if (self->options.resume && self->chooser &&
        tl_choose_restore (self->choose, self->chooser, &err))
        tl_warn ("what was measured before is forgotten: %s", err.text);
    self->meter = tl_meter_new (self->choose, t->worker_count, t->client_count, t->train.micros);
    if (t->schedule.window) {
        config.costs = tl_choose_costs (self->choose);
        config.micros = t->train.micros;
        config.window_us = t->schedule.window_ms * 1000;
    }
    tl_broker_window_open (self);
    self->scheduler = tl_scheduler_new (&config, &s_actions, self);
    free (limits);
    if (!self->options.resume)
        return;
    tl_scheduler_resume (self->scheduler, &self->begin, self->expected, self->ended);
    tl_info ("the run goes on at step %llu, round %llu of %llu",
             (unsigned long long)self->begin.step, (unsigned long long)self->begin.round,
             (unsigned long long)tl_topology_rounds (t));
}
