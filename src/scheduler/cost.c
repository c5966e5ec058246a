#include "cost.h"

#include "assert.h"
#include "fit.h"
#include "memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_US 86400e6 //  a day
#define QUICKER 0.9     //  by so much than believed is no chance
#define HETERO 0.05     //  workers of one kind differ in their share of base by about that much

enum { WORKER_KINDS = 4, CLIENT_KINDS = 4 };
enum { PATIENCE_STEP = 3, PATIENCE_PERIOD = 2 }; //  of what is measured each step, each period

//  Kinds as the enum has them: four of workers, four of clients, one of aggregations.
#define s_of_worker(what) ((what) <= TL_COST_TRIP)
#define s_of_client(what) ((what) >= TL_COST_FRONT && (what) <= TL_COST_PACE)

typedef struct {
    tl_fit_t fits[WORKER_KINDS]; //  by kind
} tl_cost_worker_t;

typedef struct {
    tl_fit_t fits[CLIENT_KINDS]; //  by kind - TL_COST_FRONT
} tl_cost_client_t;

struct tl_costs {
    size_t worker_count, client_count;
    tl_cost_worker_t *workers;   //  [worker_count]
    tl_cost_client_t *clients;   //  [client_count]
    tl_cost_client_t any_client; //  all clients' measurements together, for those that have none
    tl_fit_t merge;              //  over the number of parts
    bool doubt_merge;            //  what is noted of aggregations is too much
    double units[TL_COST_KINDS]; //  rows of a kind's first measurement: what its fits are scaled by
};

tl_costs_t *
tl_costs_new (size_t workers, size_t clients)
{
    tl_costs_t *self = tl_alloc (sizeof *self);
    self->worker_count = workers;
    self->client_count = clients;
    self->workers = tl_alloc ((workers ? workers : 1) * sizeof *self->workers);
    self->clients = tl_alloc ((clients ? clients : 1) * sizeof *self->clients);
    return self;
}

void
tl_costs_destroy (tl_costs_t **self_p)
{
    if (*self_p) {
        free ((*self_p)->workers);
        free ((*self_p)->clients);
        free (*self_p);
        *self_p = NULL;
    }
}

void
tl_costs_note (tl_costs_t *self, tl_cost_t what, size_t who, uint64_t rows, int64_t us)
{
    if (us < 0 || (double)us > MOST_US || rows > UINT32_MAX)
        return;
    //  An optimizer's step doesn't depend on rows: its fits know one.
    double x = what == TL_COST_MERGE ? (double)who : what == TL_COST_UPDATE ? 1 : (double)rows;
    if (self->units[what] <= 0)
        self->units[what] = x > 0 ? x : 1;
    double unit = self->units[what], time = (double)us;
    uint64_t patience = what == TL_COST_MERGE ? PATIENCE_PERIOD : PATIENCE_STEP;
    if (s_of_worker (what)) {
        tl_assert (who < self->worker_count);
        tl_fit_note (&self->workers[who].fits[what], unit, patience, x, time);
    } else if (s_of_client (what)) {
        tl_assert (who < self->client_count);
        tl_fit_note (&self->clients[who].fits[what - TL_COST_FRONT], unit, patience, x, time);
        tl_fit_note (&self->any_client.fits[what - TL_COST_FRONT], unit, patience, x, time);
    } else if (!self->doubt_merge || !self->merge.seen || time < tl_fit_us (&self->merge, x))
        tl_fit_note (&self->merge, unit, patience, x, time);
}

void
tl_costs_note_pace (tl_costs_t *self, size_t client, uint64_t rows, int64_t us, bool alone)
{
    tl_assert (client < self->client_count);
    const tl_fit_t *own = &self->clients[client].fits[TL_COST_PACE - TL_COST_FRONT];
    if (alone || !own->seen || (double)us < QUICKER * tl_fit_us (own, (double)rows))
        tl_costs_note (self, TL_COST_PACE, client, rows, us);
}

void
tl_costs_doubt_merge (tl_costs_t *self, bool doubt)
{
    self->doubt_merge = doubt;
}

void
tl_costs_unsettle (tl_costs_t *self)
{
    for (size_t i = 0; i < self->client_count; i++)
        for (size_t k = 0; k < CLIENT_KINDS; k++)
            self->clients[i].fits[k].unsettled = true;
}

void
tl_costs_forget_worker (tl_costs_t *self, size_t worker)
{
    tl_assert (worker < self->worker_count);
    memset (&self->workers[worker], 0, sizeof self->workers[worker]);
}

void
tl_costs_forget_client (tl_costs_t *self, size_t client)
{
    tl_assert (client < self->client_count);
    memset (&self->clients[client], 0, sizeof self->clients[client]);
}

bool
tl_costs_known (const tl_costs_t *self, size_t worker)
{
    const tl_fit_t *fits = self->workers[worker].fits;
    return fits[TL_COST_FORWARD].seen > 0 && fits[TL_COST_BACKWARD].seen > 0;
}

//  --- workers ----------------------------------------------------------------------------------

//  Share of base, by the workers that know it best.
static bool
s_common_share (const tl_costs_t *self, tl_cost_t what, double *share, double *doubt)
{
    double weight = 0, sum = 0;
    for (size_t w = 0; w < self->worker_count; w++) {
        double one, unsure;
        if (!tl_fit_share (&self->workers[w].fits[what], &one, &unsure))
            continue;
        double sure = 1 / (unsure * unsure + HETERO * HETERO);
        weight += sure;
        sum += sure * one;
    }
    if (weight <= 0)
        return false;
    *share = sum / weight;
    *doubt = sqrt (1 / weight + HETERO * HETERO);
    return true;
}

static int
s_by_time (const void *a, const void *b)
{
    double x = tl_fit_us (*(const tl_fit_t *const *)a, (*(const tl_fit_t *const *)a)->unit);
    double y = tl_fit_us (*(const tl_fit_t *const *)b, (*(const tl_fit_t *const *)b)->unit);
    return (x > y) - (x < y);
}

//  The worker in the middle of those that were measured; a fit of nothing if none was.
static tl_fit_t
s_median (const tl_costs_t *self, tl_cost_t what)
{
    const tl_fit_t **fits = tl_alloc (self->worker_count * sizeof *fits);
    size_t count = 0;
    for (size_t w = 0; w < self->worker_count; w++)
        if (self->workers[w].fits[what].seen)
            fits[count++] = &self->workers[w].fits[what];
    tl_fit_t median = {0};
    if (count) {
        qsort (fits, count, sizeof *fits, s_by_time);
        median = *fits[(count - 1) / 2];
    }
    free (fits);
    return median;
}

static tl_fit_t
s_worker_fit (const tl_costs_t *self, tl_cost_t what, size_t worker)
{
    tl_assert (worker < self->worker_count && s_of_worker (what));
    tl_fit_t fit = self->workers[worker].fits[what];
    if (!fit.seen)
        fit = s_median (self, what);
    double share, doubt;
    if (fit.seen && s_common_share (self, what, &share, &doubt))
        tl_fit_believe (&fit, share, doubt);
    return fit;
}

void
tl_costs_line (const tl_costs_t *self, tl_cost_t what, size_t worker, double *base, double *per_row)
{
    tl_fit_t fit = s_worker_fit (self, what, worker);
    tl_fit_line (&fit, base, per_row);
    if (what == TL_COST_UPDATE) {
        *base += *per_row;
        *per_row = 0;
    }
}

//  --- questions --------------------------------------------------------------------------------

tl_expect_t
tl_costs_expect (const tl_costs_t *self, tl_cost_t what, size_t who, double rows)
{
    tl_fit_t fit = self->merge;
    if (what == TL_COST_UPDATE)
        rows = 1;
    if (s_of_worker (what))
        fit = s_worker_fit (self, what, who);
    else if (s_of_client (what)) {
        tl_assert (who < self->client_count);
        fit = self->clients[who].fits[what - TL_COST_FRONT];
        if (!fit.seen)
            fit = self->any_client.fits[what - TL_COST_FRONT];
    } else
        rows = (double)who;
    return (tl_expect_t){tl_fit_us (&fit, rows), tl_fit_spread (&fit, rows), tl_fit_late (&fit),
                         tl_fit_delay (&fit, rows)};
}

double
tl_costs_rows (const tl_costs_t *self, size_t client)
{
    tl_assert (client < self->client_count);
    const tl_fit_t *own = &self->clients[client].fits[0];
    return own->seen ? own->mean_rows : self->any_client.fits[0].mean_rows;
}

//  --- state ------------------------------------------------------------------------------------

//  [[index, fit ...] ...] of those that were measured.
static json_t *
s_fits_state (const tl_fit_t *fits, size_t stride, size_t count)
{
    json_t *list = json_array ();
    for (size_t i = 0; i < count; i++) {
        const tl_fit_t *own = fits + i * stride;
        bool seen = false;
        for (size_t k = 0; k < stride; k++)
            seen |= own[k].seen > 0;
        if (!seen)
            continue;
        json_t *row = json_array ();
        json_array_append_new (row, json_integer ((json_int_t)i));
        for (size_t k = 0; k < stride; k++)
            json_array_append_new (row, tl_fit_state (&own[k]));
        json_array_append_new (list, row);
    }
    return list;
}

static int
s_fits_restore (tl_fit_t *fits, size_t stride, size_t count, const json_t *list, const char *what,
                tl_error_t *err)
{
    if (!json_is_array (list))
        return tl_fail (
            err, TL_BAD_INPUT,
            "cost models: expected a list of %s; the save is damaged, take the one before", what);
    for (size_t at = 0; at < json_array_size (list); at++) {
        const json_t *row = json_array_get (list, at);
        json_int_t who = json_integer_value (json_array_get (row, 0));
        bool good = json_array_size (row) == stride + 1 && who >= 0 && (size_t)who < count &&
                    json_is_integer (json_array_get (row, 0));
        for (size_t k = 0; good && k < stride; k++)
            good =
                tl_fit_restore (&fits[(size_t)who * stride + k], json_array_get (row, k + 1)) == 0;
        if (!good)
            return tl_fail (
                err, TL_BAD_INPUT,
                "cost models: entry %zu of %s is not one of %zu with finite numbers; the "
                "save is damaged or of another topology, take the one before",
                at, what, count);
    }
    return 0;
}

json_t *
tl_costs_state (const tl_costs_t *self)
{
    json_t *units = json_array ();
    for (size_t i = 0; i < TL_COST_KINDS; i++)
        json_array_append_new (units, json_real (self->units[i]));
    return json_pack ("{s:o, s:o, s:o, s:o, s:o}", "units", units, "workers",
                      s_fits_state (self->workers->fits, WORKER_KINDS, self->worker_count),
                      "clients",
                      s_fits_state (self->clients->fits, CLIENT_KINDS, self->client_count),
                      "any_client", s_fits_state (self->any_client.fits, CLIENT_KINDS, 1), "merge",
                      s_fits_state (&self->merge, 1, 1));
}

int
tl_costs_restore (tl_costs_t *self, const json_t *state, tl_error_t *err)
{
    tl_costs_t *fresh = tl_costs_new (self->worker_count, self->client_count);
    const json_t *units = json_object_get (state, "units");
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < TL_COST_KINDS; i++) {
        fresh->units[i] = json_number_value (json_array_get (units, i));
        if (!json_is_number (json_array_get (units, i)) || fresh->units[i] < 0)
            rc = tl_fail (err, TL_BAD_INPUT,
                          "cost models: expected %d units of at least 0; the save is damaged, take "
                          "the one before",
                          TL_COST_KINDS);
    }
    if (rc == 0)
        rc = s_fits_restore (fresh->workers->fits, WORKER_KINDS, self->worker_count,
                             json_object_get (state, "workers"), "workers", err);
    if (rc == 0)
        rc = s_fits_restore (fresh->clients->fits, CLIENT_KINDS, self->client_count,
                             json_object_get (state, "clients"), "clients", err);
    if (rc == 0)
        rc = s_fits_restore (fresh->any_client.fits, CLIENT_KINDS, 1,
                             json_object_get (state, "any_client"), "any_client", err);
    if (rc == 0)
        rc = s_fits_restore (&fresh->merge, 1, 1, json_object_get (state, "merge"), "merge", err);
    if (rc == 0) {
        tl_costs_t old = *self;
        *self = *fresh;
        *fresh = old;
    }
    tl_costs_destroy (&fresh);
    return rc;
}
