/*  window: join: window. Some clients of a group are ready, others are on their way: begin the step now, or
    wait for more? Waiting for k of them saves k times what a step of its own would cost beside its rows
    (base of forward and backward, the update), and costs the worker the time it stands still.

    Pure. Call it when the worker is free and again whenever somebody has become ready.            */

#ifndef TL_WINDOW_H
#define TL_WINDOW_H

#include "cost.h"

//  A client of the group that isn't ready.
typedef struct {
    size_t client;     //  index
    int64_t waited_us; //  since its PLAN went out
} tl_window_late_t;

//  Microseconds to wait for more; 0: begin now. Never more than what those who come in that time are
//  expected to save, nor than limit_us less since_us (how long the first ready one waits already).
int64_t tl_window_wait (const tl_costs_t *costs, size_t worker, const tl_window_late_t *late,
                        size_t count, int64_t since_us, int64_t limit_us);

#endif
