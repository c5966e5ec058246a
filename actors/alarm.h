/*  alarm: many timers of an actor, to the microsecond: a heap behind one descriptor. What an actor needs a few of, with
    milliseconds, are tl_actor_timer's; these are for parts that stand for others by waiting.       */

#ifndef TL_ALARM_H
#define TL_ALARM_H

#include "actors/actor.h"

typedef struct tl_alarms tl_alarms_t;

//  One alarm, in its owner's struct; zeroed but for fn and arg.
typedef struct {
    tl_actor_fn *fn;
    void *arg;
    int64_t at;      //  monotonic us
    size_t place;    //  in the heap, from 1; 0: not set
    const char *who; //  of whom its call logs
} tl_alarm_t;

tl_alarms_t *tl_alarms_new (tl_actor_t *actor);
void tl_alarms_destroy (tl_alarms_t **self_p); //  none is set any more
//  Calls alarm's fn once, from the loop, at that time or as soon as it can; sets it anew if it was set.
void tl_alarms_set (tl_alarms_t *self, tl_alarm_t *alarm, int64_t at);
void tl_alarms_cancel (tl_alarms_t *self, tl_alarm_t *alarm);

#endif
