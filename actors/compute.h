/*  compute: the one thread of an actor that computes. Jobs run in the order they were submitted;
    completions come back to the loop thread, in the same order, through a descriptor to watch.      */

#ifndef TL_COMPUTE_H
#define TL_COMPUTE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct tl_compute tl_compute_t;
typedef void (tl_job_fn) (void *arg);

tl_compute_t *tl_compute_new (void);
//  Waits for the job that runs now, runs no further one, and discards what was submitted (drop is called for each).
void tl_compute_destroy (tl_compute_t **self_p);

//  run on the compute thread, then done on the loop thread (from tl_compute_collect). drop, on the loop thread, instead
//  of done when the job never ran.
void tl_compute_submit (tl_compute_t *self, tl_job_fn *run, tl_job_fn *done, tl_job_fn *drop,
                        void *arg);
//  The same for what can wait: runs when nothing else does. Among themselves in order.
void tl_compute_submit_later (tl_compute_t *self, tl_job_fn *run, tl_job_fn *done, tl_job_fn *drop,
                              void *arg);
int tl_compute_fd (tl_compute_t *self);
void tl_compute_collect (tl_compute_t *self); //  calls done for everything that finished
void tl_compute_finish (tl_compute_t *self);  //  blocks until everything that was submitted has run
size_t tl_compute_pending (tl_compute_t *self); //  submitted and not yet collected

#endif
