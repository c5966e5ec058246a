#include "fit.h"

#include <math.h>
#include <string.h>

//  Relative deviations from one measurement to the next that are taken for ordinary.
#define DRIFT_LOAD (0.01 * 0.01)      //  of the whole line
#define DRIFT_SHAPE (0.0005 * 0.0005) //  of base and per_unit each, against the time at unit rows
#define SHARE_FIRST 0.25              //  of base, at unit rows
#define NOISE_FIRST (0.05 * 0.05)
#define NOISE_LEAST (0.004 * 0.004)
#define NOISE_MOST 1.0
#define NOISE_GAIN 0.05 //  of a moving average
#define ROWS_GAIN 0.1
#define LATE_GAIN 0.02 //  stragglers are rare
#define FAR 3.0        //  standard deviations
#define OTHER_ROWS 0.3 //  relative difference from which rows are other rows
#define DOUBT_MOST                                                                                 \
    0.35 //  of a share nobody knows: between 0 and 1, standard deviation of an even guess

static double
s_least (const tl_fit_t *self)
{
    return fmax (self->base + self->per_unit, 1e-3); //  us
}

//  One Kalman update: h · (base, per_unit) was seen as `seen`, with variance r.
static void
s_update (tl_fit_t *self, double h0, double h1, double seen, double r)
{
    double p0 = self->var[0] * h0 + self->var[1] * h1, p1 = self->var[1] * h0 + self->var[2] * h1;
    double whole = h0 * p0 + h1 * p1 + r;
    if (!(whole > 0))
        return; //  exactly known, as a time of 0 is
    double miss = seen - h0 * self->base - h1 * self->per_unit;
    self->base += p0 / whole * miss;
    self->per_unit += p1 / whole * miss;
    self->var[0] = fmax (self->var[0] - p0 * p0 / whole, 0);
    self->var[1] -= p0 * p1 / whole;
    self->var[2] = fmax (self->var[2] - p1 * p1 / whole, 0);
}

static void
s_grow (tl_fit_t *self, double load, double shape)
{
    double time = s_least (self);
    self->var[0] += load * self->base * self->base + shape * time * time;
    self->var[1] += load * self->base * self->per_unit;
    self->var[2] += load * self->per_unit * self->per_unit + shape * time * time;
    //  What was never told apart doesn't become less known than that.
    double most = 4 * time * time;
    if (self->var[0] > most || self->var[2] > most) {
        double by = most / fmax (self->var[0], self->var[2]);
        for (int i = 0; i < 3; i++)
            self->var[i] *= by;
    }
}

static void
s_first (tl_fit_t *self, double unit, double rows, double us)
{
    memset (self, 0, sizeof *self);
    self->unit = unit > 0 ? unit : 1;
    self->noise = NOISE_FIRST;
    self->mean_rows = rows;
    double x = rows / self->unit;
    //  Not knowing better, most of it goes with the rows.
    double whole = us / (SHARE_FIRST + (1 - SHARE_FIRST) * x);
    self->base = SHARE_FIRST * whole;
    self->per_unit = (1 - SHARE_FIRST) * whole;
    self->var[0] = self->var[2] = whole * whole / 4;
    s_update (self, 1, x, us, self->noise * us * us);
    self->seen = 1;
}

//  Takes in a measurement's relative miss, 0 if it wasn't far off. True: it completes a row of `patience`.
static bool
s_changed (tl_fit_t *self, double missed, uint64_t patience)
{
    if (missed * self->missed <= 0) {
        self->missed = missed;
        self->misses = missed != 0;
        return false;
    }
    if (fabs (missed) < fabs (self->missed))
        self->missed = missed;
    return ++self->misses >= patience;
}

void
tl_fit_note (tl_fit_t *self, double unit, uint64_t patience, double rows, double us)
{
    if (self->unit <= 0) {
        s_first (self, unit, rows, us);
        return;
    }
    double x = rows / self->unit;
    s_grow (self, DRIFT_LOAD, DRIFT_SHAPE);
    double expected = fmax (self->base + self->per_unit * x, 1e-3), miss = us - expected;
    double usual = self->noise * expected * expected, r = usual;
    double p = self->var[0] + 2 * x * self->var[1] + x * x * self->var[2];
    double far = miss / sqrt (p + r);
    if (!self->unsettled) {
        double few = fmax (LATE_GAIN, 1.0 / (double)(self->seen + 4));
        self->late += few * ((far > FAR) - self->late);
        self->delay += few * ((far > FAR ? miss / expected : 0) - self->delay);
    }
    self->unsettled = false;
    if (s_changed (self, fabs (far) > FAR ? miss / expected : 0, patience)) {
        //  At the rows of before it is the load that has changed; at others the line was not straight.
        bool other = fabs (rows - self->mean_rows) > OTHER_ROWS * self->mean_rows;
        double jump = self->missed * self->missed;
        s_grow (self, other ? 0 : jump, other ? jump : 0);
        us = expected * (1 + self->missed);
        self->missed = 0;
        self->misses = 0;
    } else if (self->misses)
        r *= far * far / (FAR * FAR) * 4;
    s_update (self, 1, x, us, r);
    //  What the filter's own doubt explains is no noise of the measurement. A change counts as well: where the load
    //  seems to change all the time, that is what noise looks like.
    double seen = fmin (miss * miss, FAR * FAR * (p + usual)) - p;
    double gain = fmax (NOISE_GAIN, 1.0 / (double)(self->seen + 4));
    self->noise += gain * (fmax (seen, 0) / (expected * expected) - self->noise);
    self->noise = fmin (fmax (self->noise, NOISE_LEAST), NOISE_MOST);
    self->mean_rows += ROWS_GAIN * (rows - self->mean_rows);
    self->seen++;
}

bool
tl_fit_share (const tl_fit_t *self, double *share, double *doubt)
{
    if (self->unit <= 0)
        return false;
    double time = s_least (self);
    *share = fmin (fmax (self->base / time, 0), 1);
    //  Variance across the line: along it (the load) shares don't change.
    double across = (1 - *share) * (1 - *share) * self->var[0] -
                    2 * *share * (1 - *share) * self->var[1] + *share * *share * self->var[2];
    *doubt = fmin (sqrt (fmax (across, 0)) / time, DOUBT_MOST);
    return true;
}

void
tl_fit_believe (tl_fit_t *self, double share, double doubt)
{
    if (self->unit <= 0)
        return;
    double time = s_least (self);
    s_update (self, 1 - share, -share, 0, fmax (doubt * doubt, 1e-8) * time * time);
}

void
tl_fit_line (const tl_fit_t *self, double *base, double *per_row)
{
    *base = *per_row = 0;
    if (self->unit <= 0)
        return;
    double x = self->mean_rows / self->unit, time = fmax (self->base + self->per_unit * x, 0);
    *base = self->base;
    *per_row = self->per_unit / self->unit;
    if (*base < 0) {
        *base = 0;
        *per_row = self->mean_rows > 0 ? time / self->mean_rows : 0;
    } else if (*per_row < 0) {
        *base = time;
        *per_row = 0;
    }
}

double
tl_fit_us (const tl_fit_t *self, double rows)
{
    double base, per_row;
    tl_fit_line (self, &base, &per_row);
    return base + per_row * rows;
}

double
tl_fit_spread (const tl_fit_t *self, double rows)
{
    return self->unit > 0 ? sqrt (self->noise) * tl_fit_us (self, rows) : 0;
}

double
tl_fit_late (const tl_fit_t *self)
{
    return self->late;
}

double
tl_fit_delay (const tl_fit_t *self, double rows)
{
    return self->delay * tl_fit_us (self, rows);
}

json_t *
tl_fit_state (const tl_fit_t *self)
{
    if (self->unit <= 0)
        return json_null ();
    return json_pack ("[f f f f f f f f f f f I I I]", self->base, self->per_unit, self->unit,
                      self->var[0], self->var[1], self->var[2], self->noise, self->mean_rows,
                      self->missed, self->late, self->delay, (json_int_t)self->misses,
                      (json_int_t)self->seen, (json_int_t)self->unsettled);
}

int
tl_fit_restore (tl_fit_t *self, const json_t *state)
{
    memset (self, 0, sizeof *self);
    if (json_is_null (state))
        return 0;
    json_int_t seen, misses, unsettled;
    tl_fit_t got = {0};
    if (json_array_size (state) != 14 ||
        json_unpack ((json_t *)state, "[F F F F F F F F F F F I I I]", &got.base, &got.per_unit,
                     &got.unit, &got.var[0], &got.var[1], &got.var[2], &got.noise, &got.mean_rows,
                     &got.missed, &got.late, &got.delay, &misses, &seen, &unsettled) != 0)
        return -1;
    const double all[] = {got.base,  got.per_unit,  got.unit,   got.var[0], got.var[1], got.var[2],
                          got.noise, got.mean_rows, got.missed, got.late,   got.delay};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (!isfinite (all[i]))
            return -1;
    if (got.unit <= 0 || got.noise <= 0 || got.mean_rows < 0 || seen < 1 || misses < 0 ||
        got.late < 0 || got.delay < 0)
        return -1;
    got.seen = (uint64_t)seen;
    got.misses = (uint64_t)misses;
    got.unsettled = unsettled != 0;
    *self = got;
    return 0;
}
