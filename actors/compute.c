#include "compute.h"

#include "base/assert.h"
#include "memory.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct tl_job {
    struct tl_job *next;
    tl_job_fn *run, *done, *drop;
    void *arg;
} tl_job_t;

typedef struct {
    tl_job_t *first, **last;
} tl_queue_t;

struct tl_compute {
    pthread_t thread;
    pthread_mutex_t lock;                //  guards the queues, ending, busy
    pthread_cond_t work;                 //  something waits, or ending
    tl_queue_t waiting, later, finished; //  later: run when nothing else waits
    bool ending;
    bool busy;           //  a job runs
    pthread_cond_t idle; //  nothing waits or runs
    int event;           //  eventfd: something finished
    size_t pending;      //  loop thread only
};

static void
s_put (tl_queue_t *queue, tl_job_t *job)
{
    job->next = NULL;
    *queue->last = job;
    queue->last = &job->next;
}

static tl_job_t *
s_take (tl_queue_t *queue)
{
    tl_job_t *job = queue->first;
    if (job) {
        queue->first = job->next;
        if (!queue->first)
            queue->last = &queue->first;
    }
    return job;
}

static void *
s_thread (void *arg)
{
    tl_compute_t *self = arg;
    pthread_mutex_lock (&self->lock);
    for (;;) {
        while (!self->waiting.first && !self->later.first && !self->ending) {
            pthread_cond_signal (&self->idle);
            pthread_cond_wait (&self->work, &self->lock);
        }
        if (self->ending)
            break;
        tl_job_t *job = s_take (self->waiting.first ? &self->waiting : &self->later);
        self->busy = true;
        pthread_mutex_unlock (&self->lock);
        job->run (job->arg);
        pthread_mutex_lock (&self->lock);
        self->busy = false;
        s_put (&self->finished, job);
        uint64_t one = 1;
        ssize_t wrote = write (self->event, &one, sizeof one);
        tl_assert (wrote == sizeof one);
    }
    pthread_mutex_unlock (&self->lock);
    return NULL;
}

tl_compute_t *
tl_compute_new (void)
{
    tl_compute_t *self = tl_alloc (sizeof *self);
    self->waiting.last = &self->waiting.first;
    self->later.last = &self->later.first;
    self->finished.last = &self->finished.first;
    self->event = eventfd (0, EFD_NONBLOCK | EFD_CLOEXEC);
    tl_assert (self->event >= 0);
    pthread_mutex_init (&self->lock, NULL);
    pthread_cond_init (&self->work, NULL);
    pthread_cond_init (&self->idle, NULL);
    //  Signals belong to the loop thread.
    sigset_t all, before;
    sigfillset (&all);
    pthread_sigmask (SIG_BLOCK, &all, &before);
    int rc = pthread_create (&self->thread, NULL, s_thread, self);
    pthread_sigmask (SIG_SETMASK, &before, NULL);
    tl_assert (rc == 0);
    return self;
}

void
tl_compute_destroy (tl_compute_t **self_p)
{
    tl_compute_t *self = *self_p;
    if (!self)
        return;
    pthread_mutex_lock (&self->lock);
    self->ending = true;
    pthread_cond_signal (&self->work);
    pthread_mutex_unlock (&self->lock);
    pthread_join (self->thread, NULL);
    tl_job_t *job;
    while ((job = s_take (&self->finished)) || (job = s_take (&self->waiting)) ||
           (job = s_take (&self->later))) {
        job->drop (job->arg);
        free (job);
    }
    close (self->event);
    pthread_mutex_destroy (&self->lock);
    pthread_cond_destroy (&self->work);
    pthread_cond_destroy (&self->idle);
    free (self);
    *self_p = NULL;
}

static void
s_submit (tl_compute_t *self, tl_queue_t *queue, const tl_job_t *what)
{
    tl_job_t *job = tl_alloc (sizeof *job);
    *job = *what;
    pthread_mutex_lock (&self->lock);
    s_put (queue, job);
    pthread_cond_signal (&self->work);
    pthread_mutex_unlock (&self->lock);
    self->pending++;
}

void
tl_compute_submit (tl_compute_t *self, tl_job_fn *run, tl_job_fn *done, tl_job_fn *drop, void *arg)
{
    s_submit (self, &self->waiting, &(tl_job_t){NULL, run, done, drop, arg});
}

void
tl_compute_submit_later (tl_compute_t *self, tl_job_fn *run, tl_job_fn *done, tl_job_fn *drop,
                         void *arg)
{
    s_submit (self, &self->later, &(tl_job_t){NULL, run, done, drop, arg});
}

void
tl_compute_finish (tl_compute_t *self)
{
    pthread_mutex_lock (&self->lock);
    while (self->waiting.first || self->later.first || self->busy)
        pthread_cond_wait (&self->idle, &self->lock);
    pthread_mutex_unlock (&self->lock);
}

int
tl_compute_fd (tl_compute_t *self)
{
    return self->event;
}

void
tl_compute_collect (tl_compute_t *self)
{
    uint64_t count;
    ssize_t got = read (self->event, &count, sizeof count);
    (void)got; //  EAGAIN: an earlier call collected for this event too
    for (;;) {
        pthread_mutex_lock (&self->lock);
        tl_job_t *job = s_take (&self->finished);
        pthread_mutex_unlock (&self->lock);
        if (!job)
            return;
        self->pending--;
        job->done (job->arg);
        free (job);
    }
}

size_t
tl_compute_pending (tl_compute_t *self)
{
    return self->pending;
}
