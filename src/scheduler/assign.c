#include "assign.h"

#include "memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FULL_DEAL = 1 << 14 }; //  clients * groups up to which each client is tried in each group
#define FINE 0.002            //  relative
#define TURNAROUNDS 3.0       //  front, tail, end

//  What a group adds up to while it is dealt.
typedef struct {
    size_t count;
    double rows;                   //  of a micro, all members
    double front, tail, end, pace; //  of the slowest
    double spread, late, delay;    //  sums
    double serial;                 //  us, if they go one by one on the worker it is dealt for
} tl_sum_t;

static double
s_at (tl_line_t line, double rows)
{
    return line.base + line.per_row * rows;
}

//  Mean of the largest of n normal draws, in standard deviations (Blom).
static double
s_largest (size_t n)
{
    if (n < 2)
        return 0;
    double p = ((double)n - 0.375) / ((double)n + 0.25);
    //  Inverse of the normal distribution's upper half (Abramowitz and Stegun 26.2.23).
    double t = sqrt (-2 * log (1 - p));
    return t - (2.515517 + t * (0.802853 + t * 0.010328)) /
                   (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
}

//  One step of a group, all micros: a micro's way through everything, then one more each time the narrowest place of
//  the pipeline lets one through; and no sooner than the worker has computed them all.
static double
s_step (const tl_assign_worker_t *w, double rows, double front, double tail, double end,
        double pace, size_t micros)
{
    double forward = s_at (w->forward, rows), compute = forward + s_at (w->backward, rows);
    double trip = s_at (w->trip, rows), line = w->trip.per_row * rows, more = (double)(micros - 1);
    double narrow = fmax (fmax (forward, pace), line);
    return front + end + 2 * trip + compute + s_at (w->update, rows * (double)micros) +
           fmax (tail + more * narrow, more * compute);
}

//  What stragglers add: whoever is late in a turnaround, the others are with it.
static double
s_stragglers (const tl_sum_t *sum)
{
    if (sum->late <= 0)
        return 0;
    return sum->delay / sum->late * TURNAROUNDS * -expm1 (-sum->late / TURNAROUNDS);
}

static double
s_together (const tl_assign_t *self, const tl_assign_worker_t *w, const tl_sum_t *sum)
{
    double wait = sum->spread / (double)sum->count * s_largest (sum->count) + s_stragglers (sum);
    return wait + s_step (w, sum->rows, sum->front, sum->tail, sum->end, sum->pace, self->micros);
}

static double
s_alone (const tl_assign_t *self, const tl_assign_worker_t *w, const tl_assign_client_t *c)
{
    return c->delay + s_step (w, c->rows, c->front, c->tail, c->end, c->pace, self->micros);
}

static void
s_add (const tl_assign_t *self, const tl_assign_worker_t *w, const tl_assign_client_t *c,
       tl_inside_t inside, tl_sum_t *sum)
{
    sum->count++;
    if (inside != TL_INSIDE_BATCHED)
        sum->serial += s_alone (self, w, c);
    sum->rows += c->rows;
    sum->front = fmax (sum->front, c->front);
    sum->tail = fmax (sum->tail, c->tail);
    sum->end = fmax (sum->end, c->end);
    sum->pace = fmax (sum->pace, c->pace);
    sum->spread += c->spread;
    sum->late += c->late;
    sum->delay += c->delay;
}

static double
s_round (const tl_assign_t *self, const tl_assign_worker_t *w, tl_inside_t inside,
         const tl_sum_t *sum)
{
    if (!sum->count)
        return 0;
    if (inside == TL_INSIDE_SERIAL)
        return sum->serial;
    double together = s_together (self, w, sum);
    return inside == TL_INSIDE_BATCHED ? together : (together + sum->serial) / 2;
}

//  --- the snapshot -----------------------------------------------------------------------------

static tl_line_t
s_line (const tl_costs_t *costs, tl_cost_t what, size_t worker)
{
    tl_line_t line;
    tl_costs_line (costs, what, worker, &line.base, &line.per_row);
    return line;
}

//  Sorting needs more than two elements: keys beside the positions.
typedef struct {
    double key;    //  larger first
    size_t second; //  then smaller first
    size_t at;
} tl_rank_t;

static int
s_by_rank (const void *a, const void *b)
{
    const tl_rank_t *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? 1 : -1;
    return (x->second > y->second) - (x->second < y->second);
}

static void
s_sort_workers (tl_assign_t *self, const tl_present_t *present, const bool *used,
                bool unknown_first)
{
    size_t count = self->worker_count;
    double each = self->rows / (double)self->micros / (double)self->client_count;
    tl_rank_t *ranks = tl_alloc (count * sizeof *ranks);
    tl_assign_worker_t *sorted = tl_alloc (count * sizeof *sorted);
    for (size_t i = 0; i < count; i++) {
        const tl_assign_worker_t *w = &self->workers[i];
        double time = s_step (w, each, 0, 0, 0, 0, self->micros);
        size_t rank = w->index == present->holder ? 0 : used[w->index] ? 1 : 2;
        //  To be measured: before all others.
        bool first = unknown_first && !w->known;
        ranks[i] = (tl_rank_t){first ? 0 : -1 - time, rank * count + i, i};
    }
    qsort (ranks, count, sizeof *ranks, s_by_rank);
    for (size_t i = 0; i < count; i++)
        sorted[i] = self->workers[ranks[i].at];
    free (self->workers);
    self->workers = sorted;
    free (ranks);
}

static size_t *
s_sort_clients (const tl_assign_t *self, bool by_turnaround)
{
    tl_rank_t *ranks = tl_alloc (self->client_count * sizeof *ranks);
    size_t *order = tl_alloc (self->client_count * sizeof *order);
    for (size_t i = 0; i < self->client_count; i++) {
        const tl_assign_client_t *c = &self->clients[i];
        double key =
            by_turnaround ? c->front + c->tail + c->end : s_alone (self, &self->workers[0], c);
        ranks[i] = (tl_rank_t){key, i, i};
    }
    qsort (ranks, self->client_count, sizeof *ranks, s_by_rank);
    for (size_t i = 0; i < self->client_count; i++)
        order[i] = ranks[i].at;
    free (ranks);
    return order;
}

//  With nothing measured all clients and all workers count alike.
static void
s_level (tl_assign_t *self)
{
    for (size_t i = 0; i < self->worker_count; i++)
        self->measured |= self->workers[i].known;
    if (self->measured)
        return;
    for (size_t i = 0; i < self->worker_count; i++)
        self->workers[i].forward = (tl_line_t){0, 1};
    for (size_t i = 0; i < self->client_count; i++)
        self->clients[i] = (tl_assign_client_t){.index = self->clients[i].index, .rows = 1};
    self->rows = (double)(self->client_count * self->micros);
}

void
tl_assign_init (tl_assign_t *self, const tl_costs_t *costs, const tl_present_t *present,
                size_t micros, const bool *used, bool unknown_first)
{
    memset (self, 0, sizeof *self);
    self->micros = micros;
    self->worker_count = present->worker_count;
    self->client_count = present->client_count;
    self->workers = tl_alloc (self->worker_count * sizeof *self->workers);
    self->clients = tl_alloc (self->client_count * sizeof *self->clients);
    for (size_t i = 0; i < self->client_count; i++) {
        size_t who = present->clients[i];
        double rows = tl_costs_rows (costs, who);
        tl_expect_t front = tl_costs_expect (costs, TL_COST_FRONT, who, rows);
        tl_expect_t tail = tl_costs_expect (costs, TL_COST_TAIL, who, rows);
        tl_expect_t end = tl_costs_expect (costs, TL_COST_END, who, rows);
        //  Until a first micro comes there is more to wait for than the client: what is late is told by the others.
        double late = 2 * tail.late + end.late, delay = 2 * tail.delay + end.delay;
        double pace = tl_costs_expect (costs, TL_COST_PACE, who, rows).us;
        self->clients[i] = (tl_assign_client_t){who,
                                                rows,
                                                front.us,
                                                tail.us,
                                                end.us,
                                                pace,
                                                front.spread + tail.spread + end.spread,
                                                (double)micros * late,
                                                (double)micros * delay};
        self->rows += rows * (double)micros;
    }
    for (size_t i = 0; i < self->worker_count; i++) {
        size_t who = present->workers[i];
        self->workers[i] = (tl_assign_worker_t){who,
                                                s_line (costs, TL_COST_FORWARD, who),
                                                s_line (costs, TL_COST_BACKWARD, who),
                                                s_line (costs, TL_COST_TRIP, who),
                                                s_line (costs, TL_COST_UPDATE, who),
                                                tl_costs_known (costs, who)};
    }
    s_level (self);
    s_sort_workers (self, present, used, unknown_first);
    self->order = s_sort_clients (self, false);
    self->slow = s_sort_clients (self, true);
}

void
tl_assign_release (tl_assign_t *self)
{
    free (self->workers);
    free (self->clients);
    free (self->order);
    free (self->slow);
    memset (self, 0, sizeof *self);
}

//  --- dealing ----------------------------------------------------------------------------------

double
tl_assign_round (const tl_assign_t *self, tl_inside_t inside, const size_t *group)
{
    tl_sum_t *sums = tl_alloc (self->worker_count * sizeof *sums);
    for (size_t i = 0; i < self->client_count; i++)
        s_add (self, &self->workers[group[i]], &self->clients[i], inside, &sums[group[i]]);
    double slowest = 0;
    for (size_t g = 0; g < self->worker_count; g++)
        slowest = fmax (slowest, s_round (self, &self->workers[g], inside, &sums[g]));
    free (sums);
    return slowest;
}

//  Longest first, each to the group that is done soonest with it (LPT); nobody's group stays empty.
static void
s_deal_longest (const tl_assign_t *self, size_t groups, tl_inside_t inside, size_t *group)
{
    tl_sum_t *sums = tl_alloc (groups * sizeof *sums);
    size_t empty = groups;
    for (size_t i = 0; i < self->client_count; i++) {
        size_t at = self->order[i], best = groups;
        const tl_assign_client_t *c = &self->clients[at];
        bool fill = self->client_count - i <= empty;
        double soonest = 0;
        for (size_t g = 0; g < groups; g++) {
            if (fill && sums[g].count)
                continue;
            tl_sum_t sum = sums[g];
            s_add (self, &self->workers[g], c, inside, &sum);
            double time = s_round (self, &self->workers[g], inside, &sum);
            if (best == groups || time < soonest) {
                best = g;
                soonest = time;
            }
        }
        empty -= sums[best].count == 0;
        s_add (self, &self->workers[best], c, inside, &sums[best]);
        group[at] = best;
    }
    free (sums);
}

//  Fills group after group up to `limit` us, slow clients beside slow clients: they hold up nobody else. False: they
//  don't all fit. As many clients as groups that wait: each gets one, so nobody's group stays empty.
static bool
s_fill (const tl_assign_t *self, size_t groups, tl_inside_t inside, double limit, size_t *group)
{
    tl_sum_t sum = {0};
    size_t g = 0;
    for (size_t i = 0; i < self->client_count; i++) {
        const tl_assign_client_t *c = &self->clients[self->slow[i]];
        tl_sum_t more = sum;
        s_add (self, &self->workers[g], c, inside, &more);
        bool full = sum.count && (self->client_count - i <= groups - 1 - g ||
                                  s_round (self, &self->workers[g], inside, &more) > limit);
        if (full) {
            if (++g == groups)
                return false;
            memset (&more, 0, sizeof more);
            s_add (self, &self->workers[g], c, inside, &more);
        }
        if (more.count == 1 && s_round (self, &self->workers[g], inside, &more) > limit)
            return false;
        sum = more;
        group[self->slow[i]] = g;
    }
    return true;
}

//  The smallest limit, to FINE of it, within which all can be filled in. False: none below high was found.
static bool
s_fill_best (const tl_assign_t *self, size_t groups, tl_inside_t inside, double high, size_t *group)
{
    size_t *other = tl_alloc (self->client_count * sizeof *other);
    bool found = false;
    double low = 0;
    while (high - low > FINE * high) {
        double middle = (low + high) / 2;
        if (s_fill (self, groups, inside, middle, other)) {
            memcpy (group, other, self->client_count * sizeof *other);
            high = middle;
            found = true;
        } else
            low = middle;
    }
    free (other);
    return found;
}

double
tl_assign_deal (const tl_assign_t *self, size_t groups, tl_inside_t inside, size_t *group)
{
    memset (group, 0, self->client_count * sizeof *group);
    if (groups > 1) {
        bool whole = self->client_count * groups <= FULL_DEAL;
        if (whole)
            s_deal_longest (self, groups, inside, group);
        double high = tl_assign_round (self, inside, group);
        if (!s_fill_best (self, groups, inside, high, group) && !whole)
            s_deal_longest (self, groups, inside, group);
    }
    return tl_assign_round (self, inside, group);
}
