/*  choose_world: what a chooser is tried in: workers, clients and links with known true times and noise around
    them. Runs periods as the broker would, notes what a broker would measure, and knows the true speed of every
    arrangement. Draws are addressed, so a seed repeats.                                            */

#ifndef CHOOSE_WORLD_H
#define CHOOSE_WORLD_H

#include "scheduler/choose.h"

#include "random.h"

#include <math.h>
#include <string.h>

enum { WORLD_MOST = 64 };

typedef struct {
    double base, per_row; //  of a forward and of a backward, us
    double update;        //  us
    bool away;
} world_worker_t;

typedef struct {
    uint64_t rows;
    double front, tail, end; //  us
    bool away;
} world_client_t;

typedef struct {
    size_t worker_count, client_count;
    world_worker_t workers[WORLD_MOST];
    world_client_t clients[WORLD_MOST];
    double trip;  //  us to a worker and back
    double merge; //  us an aggregation
    double noise; //  standard deviation of every time, relative
    uint64_t rounds, seed, drawn;
} world_t;

static inline double
world_noisy (world_t *self, double us)
{
    const tl_stream_t stream = {.seed = self->seed, .purpose = TL_DRAW_SAMPLE};
    double draw = tl_random_normal (&stream, self->drawn++);
    return us * fmax (0.1, 1 + self->noise * fmin (fmax (draw, -3), 3));
}

static inline void
world_note (tl_costs_t *costs, tl_cost_t what, size_t who, uint64_t rows, double us)
{
    if (costs)
        tl_costs_note (costs, what, who, rows, (int64_t)llround (us));
}

//  One step of these members on that worker; us it takes. costs NULL: nobody looks.
static inline double
world_step (world_t *self, tl_costs_t *costs, size_t worker, const size_t *members, size_t count)
{
    const world_worker_t *w = &self->workers[worker];
    double front = 0, tail = 0, end = 0;
    uint64_t rows = 0;
    for (size_t i = 0; i < count; i++) {
        const world_client_t *c = &self->clients[members[i]];
        double f = world_noisy (self, c->front), t = world_noisy (self, c->tail),
               e = world_noisy (self, c->end);
        world_note (costs, TL_COST_FRONT, members[i], c->rows, f);
        world_note (costs, TL_COST_TAIL, members[i], c->rows, t);
        world_note (costs, TL_COST_END, members[i], c->rows, e);
        front = fmax (front, f);
        tail = fmax (tail, t);
        end = fmax (end, e);
        rows += c->rows;
    }
    double forward = world_noisy (self, w->base + w->per_row * (double)rows);
    double backward = world_noisy (self, w->base + w->per_row * (double)rows);
    double update = world_noisy (self, w->update), trip = world_noisy (self, self->trip);
    world_note (costs, TL_COST_FORWARD, worker, rows, forward);
    world_note (costs, TL_COST_BACKWARD, worker, rows, backward);
    world_note (costs, TL_COST_UPDATE, worker, rows, update);
    world_note (costs, TL_COST_TRIP, worker, rows, trip);
    return front + tail + end + forward + backward + update + 2 * trip;
}

//  A period so arranged: us of the slowest group, and the rows of all.
static inline double
world_period (world_t *self, tl_costs_t *costs, const tl_decision_t *d, uint64_t *rows)
{
    double slowest = 0;
    *rows = 0;
    for (size_t g = 0; g < d->groups; g++) {
        size_t members[WORLD_MOST], count = 0;
        double us = 0;
        for (size_t i = 0; i < self->client_count; i++)
            if (d->group[i] == g)
                members[count++] = i;
        for (uint64_t round = 0; round < self->rounds; round++) {
            bool together = d->inside == TL_INSIDE_BATCHED ||
                            (d->inside == TL_INSIDE_ALTERNATE && round % 2 == 0);
            for (size_t i = 0; i < (together ? 1 : count); i++)
                us += world_step (self, costs, d->worker[g], together ? members : members + i,
                                  together ? count : 1);
        }
        for (size_t i = 0; i < count; i++)
            *rows += self->clients[members[i]].rows * self->rounds;
        slowest = fmax (slowest, us);
    }
    return slowest;
}

//  Who is here.
typedef struct {
    size_t clients[WORLD_MOST], workers[WORLD_MOST];
    tl_present_t present;
} world_here_t;

static inline const tl_present_t *
world_present (const world_t *self, world_here_t *here)
{
    here->present = (tl_present_t){here->clients,    here->workers, 0,     0,
                                   TL_CHOOSE_NOBODY, self->rounds,  false, false};
    for (size_t i = 0; i < self->client_count; i++)
        if (!self->clients[i].away)
            here->clients[here->present.client_count++] = i;
    for (size_t i = 0; i < self->worker_count; i++)
        if (!self->workers[i].away)
            here->workers[here->present.worker_count++] = i;
    return &here->present;
}

//  The chooser decides, the world does it and tells what it measured: true rows/s, aggregation included.
static inline double
world_turn (world_t *self, tl_choose_t *choose, const tl_decision_t **decision)
{
    world_here_t here;
    const tl_decision_t *d = tl_choose_next (choose, world_present (self, &here));
    tl_costs_t *costs = tl_choose_costs (choose);
    uint64_t rows;
    double us = world_period (self, costs, d, &rows), merge = 0;
    if (d->groups > 1) {
        merge = world_noisy (self, self->merge);
        world_note (costs, TL_COST_MERGE, d->groups, 0, merge);
    }
    tl_choose_measured (choose, rows, (int64_t)us);
    if (decision)
        *decision = d;
    return (double)rows / (us + merge) * 1e6;
}

static inline tl_choose_t *
world_choose (const world_t *self, tl_choose_mode_t mode)
{
    return tl_choose_new (
        &(tl_choose_config_t){mode, self->worker_count, self->client_count, 1, 0.03});
}

//  True rows/s of a pinned mode in this world, without noise, once it has had time to measure.
static inline double
world_pinned (const world_t *self, tl_choose_mode_t mode)
{
    world_t quiet = *self;
    quiet.noise = 0;
    tl_choose_t *choose = world_choose (&quiet, mode);
    double rows_s = 0;
    for (int i = 0; i < 4; i++)
        rows_s = world_turn (&quiet, choose, NULL);
    tl_choose_destroy (&choose);
    return rows_s;
}

static inline double
world_best (const world_t *self)
{
    return fmax (fmax (world_pinned (self, TL_CHOOSE_SERIAL), world_pinned (self, TL_CHOOSE_BATCH)),
                 world_pinned (self, TL_CHOOSE_FANOUT));
}

//  True rows/s without noise of any decision.
static inline double
world_true (const world_t *self, const tl_decision_t *d)
{
    world_t quiet = *self;
    quiet.noise = 0;
    uint64_t rows;
    double us = world_period (&quiet, NULL, d, &rows);
    return (double)rows / (us + (d->groups > 1 ? self->merge : 0)) * 1e6;
}

#endif
