/*  waiting: what a worker's time goes to. While it doesn't compute it waits for one of three: for commits (all it can
    compute of the step is computed, or no step is open), for input (rows or gradients of its members), or for
    credit (what it computed can't leave).                                                           */

#ifndef TL_WAITING_H
#define TL_WAITING_H

#include <stdint.h>

typedef enum {
    TL_COMPUTING,
    TL_WAITING_COMMIT,
    TL_WAITING_INPUT,
    TL_WAITING_CREDIT,
    TL_WAITING_KINDS
} tl_waiting_kind_t;

typedef struct {
    tl_waiting_kind_t now;        //  since then
    int64_t since;                //  monotonic us; 0: not begun
    int64_t us[TL_WAITING_KINDS]; //  so far
} tl_waiting_t;

enum { TL_WAITING_TICK_MS = 500 }; //  it is marked at least so often

//  From now on it is that. After two ticks without a mark the process was stopped, or its machine asleep: that is no waiting.
void tl_waiting_mark (tl_waiting_t *self, tl_waiting_kind_t kind, int64_t now);
//  Says it in the log and as the event "idle", if it ever began.
void tl_waiting_tell (const tl_waiting_t *self, const char *name);

#endif
