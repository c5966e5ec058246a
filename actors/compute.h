/*  compute: the one thread of an actor that computes. Jobs run in the order they were submitted;
    completions come back to the loop thread, in the same order, through a descriptor to watch.

    A timed one has no thread: its jobs run on the loop thread and are done when the time is over that they
    say they take. For who uses it the two are alike.                                               */

#ifndef TL_COMPUTE_H
#define TL_COMPUTE_H

#include "actors/alarm.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct tl_compute tl_compute_t;
typedef void (tl_job_fn) (void *arg);

tl_compute_t *tl_compute_new (void);
//  alarms must outlive it. Its jobs still run one at a time, in their order: a job begins when the one before it is over.
tl_compute_t *tl_compute_new_timed (tl_alarms_t *alarms);
//  Inside run of a timed one: this job takes so long (else no time at all).
void tl_compute_takes (tl_compute_t *self, int64_t us);
//  Waits for the job that runs now, runs no further one, and discards what was submitted (drop is called for each).
void tl_compute_destroy (tl_compute_t **self_p);

//  run on the compute thread, then done on the loop thread (from tl_compute_collect). drop, on the loop thread, instead
//  of done when the job never ran.
void tl_compute_submit (tl_compute_t *self, tl_job_fn *run, tl_job_fn *done, tl_job_fn *drop,
                        void *arg);
//  The same for what can wait: runs when nothing else does. Among themselves in order.
void tl_compute_submit_later (tl_compute_t *self, tl_job_fn *run, tl_job_fn *done, tl_job_fn *drop,
                              void *arg);
int tl_compute_fd (tl_compute_t *self);       //  -1: a timed one needs no watching
void tl_compute_collect (tl_compute_t *self); //  calls done for everything that finished
//  Blocks until everything that was submitted has run. Not for timed ones.
void tl_compute_finish (tl_compute_t *self);
size_t tl_compute_pending (tl_compute_t *self); //  submitted and not yet collected

#endif
