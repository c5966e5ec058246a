/*  window: join: window. Some clients of a group are ready, others are on their way: begin the step now, or
    wait for more? Waiting for k of them saves k times what a step of its own would cost beside its rows
    (base of each forward and backward, the update), and costs the worker the time it stands still.

    Pure. Call it when the worker is free, and again when so many have become ready, or the time is over. */

#ifndef TL_SCHEDULER_WINDOW_H
#define TL_SCHEDULER_WINDOW_H

#include "cost.h"

//  A client of the group that isn't ready.
typedef struct {
    size_t client;     //  index
    int64_t waited_us; //  since its PLAN went out
} tl_window_late_t;

typedef struct {
    size_t worker, micros;        //  who stands still; train.micros
    const tl_window_late_t *late; //  [count] who isn't ready
    size_t count;
    size_t late_then; //  how many they were when it began to stand still, at least count
    int64_t since_us; //  so long it stands still already
    int64_t limit_us; //  and may do so at most
} tl_window_scene_t;

typedef struct {
    int64_t wait_us;    //  for more of them; 0: begin now
    size_t wait_for;    //  so many
    int64_t saves_us;   //  what each that joins saves
    size_t soonest;     //  client; SIZE_MAX: nobody is late
    int64_t soonest_us; //  until its rows are expected
} tl_window_t;

//  Never more than what those who come in that time are expected to save, and all in all never longer than everybody
//  who was late could have saved, nor than the limit.
tl_window_t tl_window_judge (const tl_costs_t *costs, const tl_window_scene_t *scene);

//  How a step began, where somebody isn't in it or it stood still for somebody.
typedef struct {
    size_t members, late; //  who is in it; who is on the way
    int64_t waited_us;    //  it stood still for members
    tl_window_t judged;   //  when it began
} tl_window_step_t;

enum { TL_WINDOW_TEXT = 256 };

//  "began with 3 of 4 clients after 2.1 ms: s-4 is expected in 96.0 ms, and its joining saves 21.0 ms". soonest: name of
//  that client.
void tl_window_text (const tl_window_step_t *step, const char *soonest, char text[TL_WINDOW_TEXT]);

#endif
