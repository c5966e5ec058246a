/*  pool: threads that share one call's work. They are the kernels' own: nobody else sees them.

    Work is count pieces; each runs once, on whichever thread is free. Pieces must be cut by the sizes alone, so
    that what is computed doesn't depend on the threads. An idle thread spins for some 30 us, which is what lies
    between two kernels, and then sleeps: actors that share cores don't pay for each other's pauses.
    Pieces must not fail. A run from inside a piece, or while another thread runs, is done by the caller alone. */

#ifndef TL_KERNELS_POOL_H
#define TL_KERNELS_POOL_H

#include <stddef.h>

typedef void (tl_pool_fn) (void *arg, size_t index);

//  From now on runs use so many threads, the caller among them; at most 64. Called by tl_kernels_use.
void tl_pool_open (int threads);
int tl_pool_threads (void); //  1 before tl_pool_open
//  fn (arg, 0) ... fn (arg, count - 1); returns when all are done. What they wrote is visible then.
void tl_pool_run (size_t count, tl_pool_fn *fn, void *arg);

#endif
