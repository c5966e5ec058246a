/*  replay: for tests, a run of `up` computed again in this process, without sockets and without faults: from what the run
    told, with exactly those members in exactly those steps, who left with the micros that the trunk had of it, sums and means
    of exactly those parts, and whoever went back to a save set back to what it was then.

    The test ends unless every loss, norm and count of label tokens that a client or a trunk told and every adapter that the
    run left is bit for bit what that comes to; but for fanout, several groups and a window, also unless every site that a
    step was without had been away, and with one worker unless all went back to the newest save that they had. */

#ifndef REPLAY_H
#define REPLAY_H

#include "chaos/stage.h"

typedef struct {
    size_t steps;  //  that trunks learnt from, those that were repeated included
    size_t losses; //  that clients told of them
    size_t missed; //  sites that steps were without, or had in part
} replay_t;

//  up has ended with code 0.
replay_t replay_run (const stage_t *stage, const part_t *up);

#endif
