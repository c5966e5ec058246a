//  sim_merge: the aggregator. Parts are gathered, at a line those of trunks and clients, in a step (sync) the members'
//  gradients; what comes of them goes back. One gathering of a kind at a time, as in actors/aggregator.c.

#include "sim_internal.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t
s_later (int64_t a, int64_t b)
{
    return a > b ? a : b;
}

//  A gradient is a third of its state, whose other two are the optimizer's.
double
tl_sim_merge_bytes (const tl_sim_t *self, int kind)
{
    const tl_sim_spec_t *spec = self->spec;
    if (kind == TL_MERGE_TRUNK)
        return spec->whole ? 0 : spec->trunk_mb * 1e6;
    return kind == MERGE_SUM ? spec->client_mb * 1e6 / 3 : spec->client_mb * 1e6;
}

//  --- gathering --------------------------------------------------------------------------------

//  All are there who will come; or the deadline is over and enough are.
static void
s_check (tl_sim_t *self, int kind)
{
    tl_sim_gathering_t *its = &self->gatherings[kind];
    if (!its->open || its->computing || (its->missing && !(its->late && its->here >= its->quorum)))
        return;
    double mb = tl_sim_merge_bytes (self, kind) * (double)its->here * 1e-6;
    int64_t time = tl_sim_ms (self->spec->merge_base_ms + self->spec->merge_ms_per_mb * mb);
    its->computing = true;
    its->epoch++;
    tl_sim_put (self, tl_sim_take (&self->aggregator_at, self->now, time), EV_MERGED, 0, kind, 0,
                its->epoch);
}

//  Said again, parts that came stay in their places, whoever is named there now.
static void
s_expect (tl_sim_t *self, int kind, uint64_t step, const size_t *members, size_t count, bool urgent)
{
    tl_sim_gathering_t *its = &self->gatherings[kind];
    bool again = its->open && its->step == step;
    if (again && its->computing)
        return;
    size_t kept = !again ? 0 : its->count < count ? its->count : count;
    if (count > its->room) {
        tl_sim_place_t *places = tl_alloc (count * sizeof *places);
        if (kept)
            memcpy (places, its->places, kept * sizeof *places);
        free (its->places);
        its->places = places;
        its->room = count;
    }
    its->here = 0;
    for (size_t i = 0; i < count; i++) {
        bool here = i < kept && its->places[i].part == PART_HERE;
        its->places[i] = (tl_sim_place_t){members[i], here ? PART_HERE : PART_MISSING};
        its->here += here;
    }
    its->open = true;
    its->computing = its->late = false;
    its->step = step;
    its->count = count;
    its->missing = count - its->here;
    its->quorum = kind == MERGE_SUM            ? 1
                  : self->spec->quorum < count ? (size_t)self->spec->quorum
                                               : count;
    its->epoch++;
    if (urgent && self->spec->deadline_s > 0)
        tl_sim_put (self, self->now + tl_sim_ms (self->spec->deadline_s * 1e3), EV_LATE, 0, kind, 0,
                    its->epoch);
    s_check (self, kind);
}

static void
s_merge (void *arg, tl_merge_t kind, const tl_place_t *place, const size_t *members, size_t count,
         bool urgent)
{
    tl_sim_t *self = arg;
    tl_costs_unsettle (self->costs);
    if (kind == TL_MERGE_TRUNK)
        self->merged_parts = count;
    else if (!self->merged_parts)
        self->merged_parts = 1;
    s_expect (self, (int)kind, place->step, members, count, urgent);
}

void
tl_sim_merge_sum (tl_sim_t *self, uint64_t step, const size_t *members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        self->clients[members[i]].summand = i;
    s_expect (self, MERGE_SUM, step, members, count, false);
}

//  Its part follows what it computes and what it has sent before.
static void
s_gather (void *arg, tl_merge_t kind, const tl_place_t *place, size_t who, size_t member)
{
    tl_sim_t *self = arg;
    bool trunk = kind == TL_MERGE_TRUNK;
    tl_sim_worker_t *w = trunk ? &self->workers[who] : NULL;
    tl_sim_client_t *c = trunk ? NULL : &self->clients[who];
    *(trunk ? &w->asked : &c->asked) = (tl_sim_asked_t){place->step + 1, member};
    if (trunk ? !w->alive : !c->alive)
        return; //  its loss will be noticed
    const tl_sim_population_t *its = trunk ? w->kind : c->kind;
    int64_t latency = tl_sim_ms (its->link.latency_ms),
            from = s_later (self->now + latency, trunk ? w->free_at : c->free_at),
            time = tl_sim_wire (tl_sim_merge_bytes (self, (int)kind), its->link.mbit_s),
            sent = tl_sim_take (trunk ? &w->up_at : &c->up_at, from, time);
    tl_sim_put (self, sent + latency, EV_GATHERED, who, (int)kind, (size_t)place->step,
                trunk ? w->epoch : c->epoch);
}

//  It is whole at the aggregator, if anybody waits for it there.
static void
s_part (tl_sim_t *self, int kind, size_t who, size_t place, uint64_t step)
{
    tl_sim_gathering_t *its = &self->gatherings[kind];
    if (!its->open || its->computing || its->step != step || place >= its->count ||
        its->places[place].who != who || its->places[place].part != PART_MISSING)
        return;
    its->places[place].part = PART_HERE;
    its->here++;
    its->missing--;
    s_check (self, kind);
}

static void
s_on_part (tl_sim_t *self, const tl_sim_event_t *event)
{
    const size_t who = event->who;
    if (event->stage == MERGE_SUM) {
        const tl_sim_client_t *c = &self->clients[who];
        uint64_t step = self->gatherings[MERGE_SUM].step;
        if ((uint32_t)step == event->micro)
            s_part (self, MERGE_SUM, who, c->summand, step);
        return;
    }
    bool trunk = event->stage == TL_MERGE_TRUNK;
    tl_sim_asked_t *its = trunk ? &self->workers[who].asked : &self->clients[who].asked, asked;
    asked = *its;
    if (!asked.step || (uint32_t)(asked.step - 1) != event->micro)
        return;
    its->step = 0;
    tl_scheduler_gathered (self->scheduler, (tl_merge_t)event->stage, who, asked.step - 1);
    s_part (self, event->stage, who, asked.place, asked.step - 1);
}

static void
s_passed_on (tl_sim_t *self, const tl_sim_event_t *event)
{
    int64_t at = tl_sim_broker (self, tl_sim_merge_bytes (self, event->stage));
    tl_sim_put (self, at, EV_PART, event->who, event->stage, event->micro, event->epoch);
}

void
tl_sim_merge_summand (tl_sim_t *self, size_t client, uint64_t step, int64_t at)
{
    tl_sim_put (self, at, EV_PART, client, MERGE_SUM, (size_t)step, self->clients[client].epoch);
}

//  Of one who left, what is whole stays.
static void
s_gone (tl_sim_t *self, int kind, size_t client, size_t place)
{
    tl_sim_gathering_t *its = &self->gatherings[kind];
    if (!its->open || its->computing || place >= its->count || its->places[place].who != client ||
        its->places[place].part != PART_MISSING)
        return;
    its->places[place].part = PART_GONE;
    its->missing--;
    s_check (self, kind);
}

void
tl_sim_merge_left (tl_sim_t *self, size_t client)
{
    tl_sim_client_t *c = &self->clients[client];
    if (c->asked.step)
        s_gone (self, TL_MERGE_CLIENTS, client, c->asked.place);
    c->asked.step = 0;
    if (self->spec->share == TL_SHARE_GRADIENT)
        s_gone (self, MERGE_SUM, client, c->summand);
}

void
tl_sim_merge_void (tl_sim_t *self)
{
    for (int kind = 0; kind < MERGES; kind++) {
        tl_sim_gathering_t *its = &self->gatherings[kind];
        its->open = its->computing = false;
        its->epoch++;
    }
}

//  --- results ----------------------------------------------------------------------------------

static void
s_count (tl_sim_t *self, int kind)
{
    const tl_sim_gathering_t *its = &self->gatherings[kind];
    tl_sim_merged_t *merged = &self->result->merged;
    size_t without = its->count - its->here;
    merged->sums += kind == MERGE_SUM;
    merged->averages += kind != MERGE_SUM;
    merged->without += kind != MERGE_SUM && without > 0;
    merged->missing += kind != MERGE_SUM ? without : 0;
}

//  One copy came from the aggregator; each member that is still in the step gets it, and commits.
static void
s_hand_out_sum (tl_sim_t *self, const tl_sim_gathering_t *its)
{
    double bytes = tl_sim_merge_bytes (self, MERGE_SUM);
    for (size_t i = 0; i < its->count; i++) {
        size_t client = its->places[i].who;
        tl_sim_client_t *c = &self->clients[client];
        if (!c->alive || !tl_scheduler_member (self->scheduler, client, its->step))
            continue;
        int64_t at = tl_sim_broker (self, bytes);
        int64_t there = tl_sim_take (&c->down_at, at, tl_sim_wire (bytes, c->kind->link.mbit_s));
        tl_sim_put (self, there + tl_sim_ms (c->kind->link.latency_ms), EV_SUMMED, client, 0, 0,
                    c->epoch);
    }
}

//  Who is late with its part says that it has the average behind that part.
static void
s_hand_out_average (tl_sim_t *self)
{
    double bytes = tl_sim_merge_bytes (self, TL_MERGE_CLIENTS);
    for (size_t i = 0; i < self->spec->client_count; i++) {
        tl_sim_client_t *c = &self->clients[i];
        if (!c->alive || !tl_scheduler_takes (self->scheduler, i))
            continue;
        int64_t at = tl_sim_broker (self, bytes), latency = tl_sim_ms (c->kind->link.latency_ms);
        int64_t there = tl_sim_take (&c->down_at, at, tl_sim_wire (bytes, c->kind->link.mbit_s));
        tl_sim_put (self, s_later (there + latency, c->up_at) + latency, EV_CLIENT_RESTORED, i, 0,
                    0, c->epoch);
    }
}

static void
s_on_merged (tl_sim_t *self, const tl_sim_event_t *event)
{
    int kind = event->stage;
    tl_sim_gathering_t *its = &self->gatherings[kind];
    uint64_t step = its->step;
    its->open = its->computing = false;
    if (its->here >= its->quorum)
        s_count (self, kind);
    if (kind == MERGE_SUM) {
        //  Nobody's gradient is left: with its last member the step has ended by itself.
        if (its->here)
            s_hand_out_sum (self, its);
        return;
    }
    if (its->here < its->quorum) {
        char why[160];
        snprintf (why, sizeof why,
                  "%zu good part%s came, expected at least %zu; see why the others are gone, or "
                  "lower federate.quorum",
                  its->here, its->here == 1 ? "" : "s", its->quorum);
        tl_scheduler_merged (self->scheduler, (tl_merge_t)kind, step, false, why);
        return;
    }
    if (kind == TL_MERGE_TRUNK) {
        tl_sim_put (self, tl_sim_broker (self, tl_sim_merge_bytes (self, kind)), EV_TRUNK_MERGED, 0,
                    0, (size_t)step, 0);
        return;
    }
    s_hand_out_average (self);
    tl_scheduler_merged (self->scheduler, TL_MERGE_CLIENTS, step, true, "");
}

//  --- actions and events -----------------------------------------------------------------------

void
tl_sim_merge_actions (tl_scheduler_actions_t *actions)
{
    actions->merge = s_merge;
    actions->gather = s_gather;
}

void
tl_sim_merge_event (tl_sim_t *self, const tl_sim_event_t *event)
{
    switch ((tl_sim_kind_t)event->kind) {
    case EV_GATHERED:
        s_passed_on (self, event);
        break;
    case EV_PART:
        s_on_part (self, event);
        break;
    case EV_LATE:
        self->gatherings[event->stage].late = true;
        s_check (self, event->stage);
        break;
    case EV_MERGED:
        s_on_merged (self, event);
        break;
    case EV_TRUNK_MERGED:
        tl_scheduler_merged (self->scheduler, TL_MERGE_TRUNK, event->micro, true, "");
        break;
    default:
        break;
    }
}

void
tl_sim_merge_release (tl_sim_t *self)
{
    for (int kind = 0; kind < MERGES; kind++)
        free (self->gatherings[kind].places);
}
