/*  bench_crew: several processes of ours at once, the events they print as they come, and what each used.  */

#ifndef BENCH_CREW_H
#define BENCH_CREW_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct crew crew_t;
//  An event of a process: its name, the object, seconds since crew_new.
typedef void crew_event_fn (void *arg, const char *name, const json_t *event, double at);

//  Their stderr is appended to the file log.
crew_t *crew_new (const char *log, crew_event_fn *on_event, void *arg);
//  Kills what still runs.
void crew_destroy (crew_t **self_p);
//  Starts argv (NULL-terminated, argv [0] a path). cpus: a mask of processors it may use, 0: all. Aborts on failure.
void crew_start (crew_t *self, const char *name, unsigned cpus, const char *const *argv);
//  Until that one says event. False: it ended, or nothing came for so many seconds.
bool crew_until (crew_t *self, const char *name, const char *event, double seconds);
//  Until all have ended. False, with a sentence on stderr, if one ended with another code than 0 or nothing came for so many
//  seconds.
bool crew_wait (crew_t *self, double seconds);
void crew_stop (crew_t *self, const char *name); //  SIGTERM
//  After it has ended: its peak memory in MB, the seconds of processor time it used.
double crew_memory (const crew_t *self, const char *name);
double crew_cpu (const crew_t *self, const char *name);

#endif
