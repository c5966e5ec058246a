/*  fit: us = base + per_row * rows, learnt from one measurement after the other.

    Recursive least squares that forgets, as a Kalman filter of two states: between measurements the whole
    line may have become some percent longer or shorter (a machine that gets other work), while the relation
    of base and per_row moves hardly; both at once would not be told apart where rows never change. A
    single measurement far off counts little, several in a row on one side mean that the load has changed. */

#ifndef TL_FIT_H
#define TL_FIT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    double base; //  us
    double
        per_unit;  //  us for `unit` rows: of the same order as base, so that sums stay well-behaved
    double unit;   //  rows; 0: nothing was noted
    double var[3]; //  covariance of (base, per_unit): base², both, per_unit²; us²
    double noise;  //  relative variance of a measurement around the line
    double mean_rows; //  of recent measurements
    double
        missed; //  smallest miss, relative, of those in a row that were far off on one side; signed, 0: none
    uint64_t misses; //  how many these are
    double late;     //  share of measurements that were far too long,
    double delay;    //  and by how much, relative, spread over all measurements
    uint64_t seen;   //  measurements
    bool unsettled;  //  the next one is no measure of what is late
} tl_fit_t;

//  unit is used with the first measurement only, and should be the same for all fits that are compared.
//  patience: so many measurements in a row that are far off on one side mean that the load has changed.
void tl_fit_note (tl_fit_t *self, double unit, uint64_t patience, double rows, double us);
//  Also believes that base is `share` of the time at `unit` rows, give or take `doubt` (standard deviation):
//  what is known of other workers of the kind. On a copy: the belief isn't a measurement.
void tl_fit_believe (tl_fit_t *self, double share, double doubt);

//  Never negative. 0 if nothing was noted.
double tl_fit_us (const tl_fit_t *self, double rows);
void tl_fit_line (const tl_fit_t *self, double *base, double *per_row);
//  Standard deviation of a measurement around the line.
double tl_fit_spread (const tl_fit_t *self, double rows);
//  Share of measurements that are far longer than their spread explains.
double tl_fit_late (const tl_fit_t *self);
//  And what a measurement is longer for them, on average over all, us.
double tl_fit_delay (const tl_fit_t *self, double rows);
//  Share of base at `unit` rows and how sure it is (standard deviation); false if nothing was noted.
bool tl_fit_share (const tl_fit_t *self, double *share, double *doubt);

json_t *tl_fit_state (const tl_fit_t *self);
int tl_fit_restore (tl_fit_t *self, const json_t *state); //  -1: no fit's state

#endif
