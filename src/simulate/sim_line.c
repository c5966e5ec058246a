//  sim_line: what happens between periods and after losses: parts are gathered and merged, saved and given back.

#include "sim_internal.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

static int64_t
s_latency (const tl_sim_population_t *kind)
{
    return tl_sim_ms (kind->link.latency_ms);
}

static tl_sim_part_t *
s_part (tl_sim_t *self, size_t who)
{
    return self->merge.kind == TL_MERGE_TRUNK ? &self->workers[who].part : &self->clients[who].part;
}

//  Nobody is named any more, and what came is no longer kept.
static void
s_forget_parts (tl_sim_t *self)
{
    for (size_t i = 0; i < self->merge.count; i++)
        *s_part (self, self->merge.named[i]) = PART_NONE;
    self->merge.count = self->merge.missing = 0;
    self->merge.mb = 0;
    self->merge.open = false;
}

static void
s_merge_when_all (tl_sim_t *self)
{
    if (!self->merge.open || self->merge.missing > 0)
        return;
    double ms = self->spec->merge_base_ms + self->spec->merge_ms_per_mb * self->merge.mb;
    if (self->merge.kind == TL_MERGE_TRUNK)
        self->merged_parts = self->merge.count;
    else if (!self->merged_parts)
        self->merged_parts = 1;
    tl_sim_put (self, self->now + tl_sim_ms (ms), EV_MERGED, 0, (int)self->merge.kind, 0, 0);
    s_forget_parts (self);
}

//  Said again, parts of those who are named still stay.
static void
s_merge (void *arg, tl_merge_t kind, const tl_place_t *place, const size_t *members, size_t count,
         bool urgent)
{
    tl_sim_t *self = arg;
    if (self->merge.open && (self->merge.kind != kind || self->merge.step != place->step))
        s_forget_parts (self);
    size_t *before = self->merge.named, before_count = self->merge.count;
    self->merge.named = tl_alloc ((count ? count : 1) * sizeof *members);
    memcpy (self->merge.named, members, count * sizeof *members);
    self->merge.count = count;
    self->merge.kind = kind;
    self->merge.step = place->step;
    self->merge.open = true;
    self->merge.missing = 0;
    for (size_t i = 0; i < before_count; i++)
        if (*s_part (self, before[i]) == PART_MISSING)
            *s_part (self, before[i]) = PART_NONE;
    for (size_t i = 0; i < count; i++)
        if (*s_part (self, members[i]) != PART_HERE) {
            *s_part (self, members[i]) = PART_MISSING;
            self->merge.missing++;
        }
    free (before);
    s_merge_when_all (self);
}

void
tl_sim_line_gone (tl_sim_t *self, size_t client)
{
    if (self->merge.kind != TL_MERGE_CLIENTS || self->clients[client].part != PART_MISSING)
        return;
    self->clients[client].part = PART_NONE;
    self->merge.missing--;
    s_merge_when_all (self);
}

static void
s_gather (void *arg, tl_merge_t kind, const tl_place_t *place, size_t who, size_t member)
{
    tl_sim_t *self = arg;
    bool trunk = kind == TL_MERGE_TRUNK;
    if (trunk ? !self->workers[who].alive : !self->clients[who].alive)
        return; //  its loss will be noticed
    const tl_sim_population_t *part = trunk ? self->workers[who].kind : self->clients[who].kind;
    double bytes = (trunk ? self->spec->trunk_mb : self->spec->client_mb) * 1e6;
    int64_t *up = trunk ? &self->workers[who].up_at : &self->clients[who].up_at;
    int64_t asked = self->now + s_latency (part);
    int64_t sent = tl_sim_take (up, asked, tl_sim_wire (bytes, part->link.mbit_s));
    tl_sim_put (self, sent + s_latency (part), EV_GATHERED, who, (int)kind, 0,
                trunk ? self->workers[who].epoch : self->clients[who].epoch);
}

static void
s_gathered (tl_sim_t *self, const tl_sim_event_t *event)
{
    tl_merge_t kind = (tl_merge_t)event->stage;
    bool trunk = kind == TL_MERGE_TRUNK;
    double mb = trunk ? self->spec->trunk_mb : self->spec->client_mb;
    tl_sim_broker (self, mb * 1e6);
    tl_scheduler_gathered (self->scheduler, kind, event->who, self->merge.step);
    if (!self->merge.open || self->merge.kind != kind || *s_part (self, event->who) != PART_MISSING)
        return;
    *s_part (self, event->who) = PART_HERE;
    self->merge.missing--;
    self->merge.mb += mb;
    s_merge_when_all (self);
}

static void
s_merged (tl_sim_t *self, tl_merge_t kind)
{
    double bytes = self->spec->client_mb * 1e6;
    for (size_t i = 0; kind == TL_MERGE_CLIENTS && i < self->spec->client_count; i++) {
        tl_sim_client_t *c = &self->clients[i];
        if (!c->alive)
            continue;
        int64_t at = tl_sim_broker (self, bytes);
        int64_t there = tl_sim_take (&c->down_at, at, tl_sim_wire (bytes, c->kind->link.mbit_s));
        tl_sim_put (self, there + 2 * s_latency (c->kind), EV_CLIENT_RESTORED, i, 0, 0, c->epoch);
    }
    tl_scheduler_merged (self->scheduler, kind, self->merge.step, true, "");
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
            tl_sim_put (self, self->now + write + 2 * s_latency (c->kind), EV_CLIENT_SAVED, i, 0, 0,
                        c->epoch);
    }
    tl_sim_put (self, self->now + write, EV_AGGREGATOR_SAVED, 0, 0, 0, 0);
    if (worker == TL_NOBODY) {
        tl_sim_put (self, self->now + write, EV_STORE_SAVED, 0, 0, 0, 0);
        return;
    }
    tl_sim_worker_t *w = &self->workers[worker];
    if (!w->alive)
        return;
    int64_t sent = tl_sim_take (&w->up_at, self->now + s_latency (w->kind),
                                tl_sim_wire (self->spec->trunk_mb * 1e6, w->kind->link.mbit_s));
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
    double bytes = self->spec->trunk_mb * 1e6;
    if (!w->alive)
        return;
    int64_t at = tl_sim_broker (self, bytes);
    int64_t there = tl_sim_take (&w->down_at, at, tl_sim_wire (bytes, w->kind->link.mbit_s));
    tl_sim_put (self, there + 2 * s_latency (w->kind), EV_WORKER_RESTORED, worker, 0, 0, w->epoch);
}

static void
s_finish (void *arg)
{
    tl_sim_t *self = arg;
    for (size_t i = 0; i < self->spec->client_count; i++) {
        const tl_sim_client_t *c = &self->clients[i];
        if (c->alive)
            tl_sim_put (self, self->now + 2 * s_latency (c->kind), EV_FINISHED, i, 0, 0, c->epoch);
    }
}

void
tl_sim_line_actions (tl_scheduler_actions_t *actions)
{
    actions->merge = s_merge;
    actions->gather = s_gather;
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
    case EV_GATHERED:
        s_gathered (self, event);
        break;
    case EV_MERGED:
        s_merged (self, (tl_merge_t)event->stage);
        break;
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
        tl_scheduler_restored (to, event->who, true, "");
        break;
    case EV_CLIENT_RESTORED:
        tl_scheduler_client_restored (to, event->who, UINT64_MAX, true, "");
        break;
    case EV_AGGREGATOR_RESTORED:
        tl_scheduler_aggregator_restored (to, true, "");
        break;
    case EV_FINISHED:
        tl_scheduler_finished (to, event->who);
        break;
    default:
        break;
    }
}
