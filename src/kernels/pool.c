/*  pool: a generation counter rings the bell; a ticket, generation and next piece in one word, hands pieces out.
    A thread that comes late finds another generation in the ticket and takes nothing. Sleeping is by futex,
    so that ringing costs a system call only when somebody sleeps.                                   */

#include "kernels/pool.h"

#include "assert.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { S_MOST = 64, S_SPIN_NS = 30000, S_SPIN_TURNS = 16 };

static struct {
    pthread_mutex_t lock; //  held by who runs, or opens
    _Atomic int threads;  //  that a run may use
    int started;          //  helpers there are
    //  Of the run: written while the ticket gives out nothing, read before a piece is taken.
    _Atomic (tl_pool_fn *) fn;
    _Atomic (void *) arg;
    _Atomic size_t count;
    _Alignas(64) _Atomic uint64_t ticket; //  generation << 32 | next piece
    _Alignas(64) _Atomic uint32_t bell;   //  generation; futex of idle helpers
    _Atomic uint32_t asleep;              //  helpers that may need waking
    _Alignas(64) _Atomic uint32_t done;   //  pieces; futex of the caller
    _Atomic uint32_t waiting;             //  the caller sleeps on done
} s_pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .threads = 1};
static _Thread_local bool s_inside; //  this thread is a helper, or runs

static void
s_sleep (_Atomic uint32_t *word, uint32_t value)
{
    syscall (SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void
s_wake (_Atomic uint32_t *word)
{
    syscall (SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static int64_t
s_now (void)
{
    struct timespec time;
    clock_gettime (CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

//  Looks at word for a while; true as soon as it isn't value any more.
static bool
s_spin (_Atomic uint32_t *word, uint32_t value)
{
    int64_t end = s_now () + S_SPIN_NS;
    do
        for (int turn = 0; turn < S_SPIN_TURNS; turn++) {
            if (atomic_load_explicit (word, memory_order_acquire) != value)
                return true;
            __builtin_ia32_pause ();
        }
    while (s_now () < end);
    return false;
}

//  Takes pieces of that generation until there are none.
static void
s_work (uint32_t generation)
{
    for (;;) {
        uint64_t ticket = atomic_load (&s_pool.ticket);
        if ((uint32_t)(ticket >> 32) != generation)
            return;
        tl_pool_fn *fn = atomic_load_explicit (&s_pool.fn, memory_order_acquire);
        void *arg = atomic_load_explicit (&s_pool.arg, memory_order_acquire);
        size_t count = atomic_load_explicit (&s_pool.count, memory_order_acquire);
        size_t index = (uint32_t)ticket;
        if (index >= count)
            return;
        //  Also fails when what was just read belongs to a later run: that one took the ticket away before it wrote any.
        if (!atomic_compare_exchange_strong (&s_pool.ticket, &ticket, ticket + 1))
            continue;
        fn (arg, index);
        if (atomic_fetch_add (&s_pool.done, 1) + 1 == count && atomic_load (&s_pool.waiting))
            s_wake (&s_pool.done);
    }
}

static void *
s_helper (void *arg)
{
    uint32_t seen = (uint32_t)(uintptr_t)arg;
    s_inside = true;
    for (;;) {
        while (!s_spin (&s_pool.bell, seen)) {
            atomic_fetch_add (&s_pool.asleep, 1);
            s_sleep (&s_pool.bell, seen);
            atomic_fetch_sub (&s_pool.asleep, 1);
        }
        seen = atomic_load (&s_pool.bell);
        s_work (seen);
    }
    return NULL;
}

void
tl_pool_open (int threads)
{
    tl_assert (!s_inside);
    threads = threads < 1 ? 1 : threads > S_MOST ? S_MOST : threads;
    pthread_mutex_lock (&s_pool.lock);
    //  Signals are for the threads that have loops.
    sigset_t all, old;
    sigfillset (&all);
    pthread_sigmask (SIG_SETMASK, &all, &old);
    for (; s_pool.started < threads - 1; s_pool.started++) {
        pthread_t thread;
        void *seen = (void *)(uintptr_t)atomic_load (&s_pool.bell);
        if (pthread_create (&thread, NULL, s_helper, seen) != 0)
            break; //  fewer do as well
        pthread_detach (thread);
    }
    pthread_sigmask (SIG_SETMASK, &old, NULL);
    atomic_store (&s_pool.threads, threads);
    pthread_mutex_unlock (&s_pool.lock);
}

int
tl_pool_threads (void)
{
    return atomic_load (&s_pool.threads);
}

static void
s_run (size_t count, tl_pool_fn *fn, void *arg)
{
    uint32_t generation = atomic_load (&s_pool.bell) + 1;
    uint64_t ticket = (uint64_t)generation << 32;
    //  A helper may still be looking at the last run's ticket: with our count it would see a piece more there.
    atomic_exchange (&s_pool.ticket, ticket | UINT32_MAX);
    atomic_store_explicit (&s_pool.fn, fn, memory_order_release);
    atomic_store_explicit (&s_pool.arg, arg, memory_order_release);
    atomic_store_explicit (&s_pool.count, count, memory_order_release);
    atomic_store_explicit (&s_pool.done, 0, memory_order_relaxed);
    atomic_store (&s_pool.ticket, ticket);
    atomic_store (&s_pool.bell, generation);
    if (atomic_load (&s_pool.asleep))
        s_wake (&s_pool.bell);
    s_work (generation);
    for (uint32_t done; (done = atomic_load (&s_pool.done)) != count;) {
        if (s_spin (&s_pool.done, done))
            continue;
        atomic_store (&s_pool.waiting, 1);
        done = atomic_load (&s_pool.done);
        if (done != count)
            s_sleep (&s_pool.done, done);
        atomic_store (&s_pool.waiting, 0);
    }
}

void
tl_pool_run (size_t count, tl_pool_fn *fn, void *arg)
{
    tl_assert (count <= UINT32_MAX / 2);
    if (count <= 1 || s_inside || tl_pool_threads () == 1 ||
        pthread_mutex_trylock (&s_pool.lock) != 0) {
        for (size_t i = 0; i < count; i++)
            fn (arg, i);
        return;
    }
    s_inside = true;
    s_run (count, fn, arg);
    s_inside = false;
    pthread_mutex_unlock (&s_pool.lock);
}
