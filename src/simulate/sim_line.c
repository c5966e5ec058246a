//  sim_line: what happens between periods and after losses, beside merges: parts are saved and given back.

#include "sim_internal.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

static int64_t
s_latency (const tl_sim_population_t *kind)
{
    return tl_sim_ms (kind->link.latency_ms);
}

//  When its answer to what it is told now is at the broker: behind what it computes and has sent.
static int64_t
s_answered (const tl_sim_client_t *c, int64_t told, int64_t time)
{
    int64_t at = told + s_latency (c->kind);
    at = (at > c->free_at ? at : c->free_at) + time;
    return (at > c->up_at ? at : c->up_at) + s_latency (c->kind);
}

static void
s_save (void *arg, const tl_place_t *place, size_t worker, bool last)
{
    tl_sim_t *self = arg;
    int64_t write = tl_sim_ms (self->spec->save_ms);
    self->save_step = place->step;
    for (size_t i = 0; i < self->spec->client_count; i++) {
        const tl_sim_client_t *c = &self->clients[i];
        if (c->alive)
            tl_sim_put (self, s_answered (c, self->now, write), EV_CLIENT_SAVED, i, 0, 0, c->epoch);
    }
    tl_sim_put (self, self->now + write, EV_AGGREGATOR_SAVED, 0, 0, 0, 0);
    if (worker == TL_NOBODY) {
        tl_sim_put (self, self->now + write, EV_STORE_SAVED, 0, 0, 0, 0);
        return;
    }
    tl_sim_worker_t *w = &self->workers[worker];
    if (!w->alive)
        return;
    int64_t sent =
        tl_sim_take (&w->up_at, self->now + s_latency (w->kind),
                     tl_sim_wire (tl_sim_merge_bytes (self, TL_MERGE_TRUNK), w->kind->link.mbit_s));
    tl_sim_put (self, sent + s_latency (w->kind) + write, EV_WORKER_SAVED, worker, 0, 0, w->epoch);
}

static void
s_common (void *arg, const tl_place_t *place)
{
}

static void
s_restore (void *arg, const tl_place_t *place, const size_t *clients, size_t count, size_t group,
           const char *why)
{
    tl_sim_t *self = arg;
    if (group == TL_NOBODY)
        tl_sim_merge_void (self);
    for (size_t i = 0; i < count; i++) {
        const tl_sim_client_t *c = &self->clients[clients[i]];
        tl_sim_step_recall (self, clients[i]);
        if (c->alive)
            tl_sim_put (self, self->now + tl_sim_ms (self->spec->save_ms) + 2 * s_latency (c->kind),
                        EV_CLIENT_RESTORED, clients[i], 0, 0, c->epoch);
    }
    if (group == TL_NOBODY)
        tl_sim_put (self, self->now + tl_sim_ms (self->spec->save_ms), EV_AGGREGATOR_RESTORED, 0, 0,
                    0, 0);
}

static void
s_back (void *arg, size_t client, uint64_t step)
{
}

static void
s_equip (void *arg, const tl_place_t *place, size_t worker)
{
    tl_sim_t *self = arg;
    tl_sim_worker_t *w = &self->workers[worker];
    double bytes = tl_sim_merge_bytes (self, TL_MERGE_TRUNK);
    if (!w->alive)
        return;
    int64_t at = tl_sim_broker (self, bytes);
    int64_t there = tl_sim_take (&w->down_at, at, tl_sim_wire (bytes, w->kind->link.mbit_s)) +
                    s_latency (w->kind);
    tl_sim_put (self, there + s_latency (w->kind), EV_WORKER_RESTORED, worker, 0, 0, w->epoch);
}

static void
s_finish (void *arg)
{
    tl_sim_t *self = arg;
    for (size_t i = 0; i < self->spec->client_count; i++) {
        const tl_sim_client_t *c = &self->clients[i];
        if (c->alive)
            tl_sim_put (self, s_answered (c, self->now, 0), EV_FINISHED, i, 0, 0, c->epoch);
    }
}

void
tl_sim_line_actions (tl_scheduler_actions_t *actions)
{
    actions->save = s_save;
    actions->common = s_common;
    actions->restore = s_restore;
    actions->back = s_back;
    actions->equip = s_equip;
    actions->finish = s_finish;
}

void
tl_sim_line_event (tl_sim_t *self, const tl_sim_event_t *event)
{
    tl_scheduler_t *to = self->scheduler;
    switch ((tl_sim_kind_t)event->kind) {
    case EV_STORE_SAVED:
    case EV_WORKER_SAVED:
        tl_scheduler_saved (to, self->save_step, true, "");
        break;
    case EV_CLIENT_SAVED:
        tl_scheduler_client_saved (to, event->who, self->save_step, true, "");
        break;
    case EV_AGGREGATOR_SAVED:
        tl_scheduler_aggregator_saved (to, self->save_step, true, "");
        break;
    case EV_WORKER_RESTORED:
        tl_scheduler_restored (to, event->who, 0, "");
        break;
    case EV_CLIENT_RESTORED:
        tl_scheduler_client_restored (to, event->who, UINT64_MAX, 0, "");
        break;
    case EV_AGGREGATOR_RESTORED:
        tl_scheduler_aggregator_restored (to, 0, "");
        break;
    case EV_FINISHED:
        tl_scheduler_finished (to, event->who);
        break;
    default:
        break;
    }
}
