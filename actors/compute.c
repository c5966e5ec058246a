#include "compute.h"

#include "base/assert.h"
#include "clock.h"
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
    int event;           //  eventfd: something finished; -1: timed
    size_t pending;      //  loop thread only
    //  Timed: of the above only the queues are used.
    tl_alarms_t *alarms; //  NULL: with a thread
    tl_alarm_t alarm;    //  the running job is over
    tl_job_t *running;   //  NULL: none
    int64_t began;       //  it, us
    int64_t takes;       //  as it said, us
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

//  --- timed ------------------------------------------------------------------------------------

//  The next job that waits runs, beginning at that time.
static void
s_begin (tl_compute_t *self, int64_t at)
{
    tl_job_t *job = s_take (self->waiting.first ? &self->waiting : &self->later);
    if (!job)
        return;
    self->running = job;
    self->began = at;
    self->takes = 0;
    job->run (job->arg);
    tl_alarms_set (self->alarms, &self->alarm, at + self->takes);
}

//  What waited begins when this one was to be over, however late the alarm came.
static void
s_on_over (void *arg)
{
    tl_compute_t *self = arg;
    tl_job_t *job = self->running;
    int64_t over = self->began + self->takes;
    self->running = NULL;
    s_begin (self, over);
    self->pending--;
    job->done (job->arg);
    free (job);
}

tl_compute_t *
tl_compute_new_timed (tl_alarms_t *alarms)
{
    tl_compute_t *self = tl_alloc (sizeof *self);
    self->waiting.last = &self->waiting.first;
    self->later.last = &self->later.first;
    self->finished.last = &self->finished.first;
    self->event = -1;
    self->alarms = alarms;
    self->alarm = (tl_alarm_t){.fn = s_on_over, .arg = self};
    return self;
}

void
tl_compute_takes (tl_compute_t *self, int64_t us)
{
    tl_assert (self->alarms);
    self->takes = us > 0 ? us : 0;
}

//  --- with a thread ----------------------------------------------------------------------------

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

static void
s_stop_timed (tl_compute_t *self)
{
    tl_alarms_cancel (self->alarms, &self->alarm);
    if (self->running)
        s_put (&self->finished, self->running);
}

static void
s_stop_thread (tl_compute_t *self)
{
    pthread_mutex_lock (&self->lock);
    self->ending = true;
    pthread_cond_signal (&self->work);
    pthread_mutex_unlock (&self->lock);
    pthread_join (self->thread, NULL);
    close (self->event);
    pthread_mutex_destroy (&self->lock);
    pthread_cond_destroy (&self->work);
    pthread_cond_destroy (&self->idle);
}

void
tl_compute_destroy (tl_compute_t **self_p)
{
    tl_compute_t *self = *self_p;
    if (!self)
        return;
    if (self->alarms)
        s_stop_timed (self);
    else
        s_stop_thread (self);
    tl_job_t *job;
    while ((job = s_take (&self->finished)) || (job = s_take (&self->waiting)) ||
           (job = s_take (&self->later))) {
        job->drop (job->arg);
        free (job);
    }
    free (self);
    *self_p = NULL;
}

static void
s_submit (tl_compute_t *self, tl_queue_t *queue, const tl_job_t *what)
{
    tl_job_t *job = tl_alloc (sizeof *job);
    *job = *what;
    self->pending++;
    if (self->alarms) {
        s_put (queue, job);
        if (!self->running)
            s_begin (self, tl_clock_us ());
        return;
    }
    pthread_mutex_lock (&self->lock);
    s_put (queue, job);
    pthread_cond_signal (&self->work);
    pthread_mutex_unlock (&self->lock);
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
    tl_assert (!self->alarms);
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
    if (self->alarms)
        return; //  alarms call done
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
