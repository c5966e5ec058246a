/*  events: what an actor tells the person who started it: one JSON object an event, for progress, tables
    and machines. Never text of users, never secrets. Logs are for people, events for programs.      */

#ifndef TL_EVENTS_H
#define TL_EVENTS_H

#include <jansson.h>
#include <stdbool.h>

//  Where events go; NULL (default): nowhere. The callee must not keep the object.
void tl_events_to (void (*sink) (void *arg, const json_t *event), void *arg);
//  A second place for them: the run's run.db. It may keep the object, and change nothing in it.
void tl_events_also (void (*sink) (void *arg, const json_t *event), void *arg);
//  True if there is anybody to hear: else nothing need be made that is only to be told.
bool tl_events_heard (void);
//  tl_event ("step", "{sIsf}", "step", (json_int_t) 3, "loss", 2.5): "event" and "time" are added.
void tl_event (const char *name, const char *format, ...);

#endif
