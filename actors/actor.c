//  actor: see actor.h. A reactor on epoll: a turn takes time in what is ready, not in what is watched.

#include "actor.h"

#include "base/assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <zmq.h>

enum { EVENTS = 256 }; //  descriptors that one look at epoll tells of

//  A descriptor, or a ZeroMQ socket with the one that libzmq gives for it.
typedef struct tl_watch {
    struct tl_watch *next; //  list of the actor
    tl_actor_t *actor;
    void *zmq; //  NULL: a plain descriptor
    int fd;
    bool queued;     //  in the actor's queue
    const char *who; //  of whom its call logs
    tl_actor_fn *fn;
    void *arg;
} tl_watch_t;

typedef struct tl_timer {
    struct tl_timer *next; //  list of the actor, the earliest first
    int id;
    int64_t at;      //  tl_clock_ms
    size_t ms;       //  until the next call
    size_t left;     //  calls to come, 0 for ever
    const char *who; //  of whom its call logs
    tl_actor_fn *fn;
    void *arg;
} tl_timer_t;

struct tl_actor {
    char name[80];
    const char *const *states; //  names by number
    int state;
    int epoll;
    tl_watch_t *watches;
    tl_timer_t *timers;
    int timer_ids;
    //  libzmq's descriptor fires once for a change, and any call on its socket may take that in: a socket that fired, was read
    //  or sent on is asked what it has before the next sleep. [queue_count], NULL where its watch is gone or was just asked
    tl_watch_t **queue;
    size_t queue_count, queue_room;
    struct epoll_event events[EVENTS]; //  of this turn; data.ptr is NULL where its watch is gone
    int event_count;
    int signals; //  signalfd of SIGTERM, SIGINT and SIGHUP
    int stops;   //  how many have come
    bool cut;    //  the second one was the end
    tl_actor_fn *on_stop;
    void *arg; //  of on_stop
    bool ended;
    int code;
};

static void
s_on_signal (void *arg)
{
    tl_actor_t *self = arg;
    struct signalfd_siginfo info;
    if (read (self->signals, &info, sizeof info) != sizeof info)
        return;
    if (self->stops++) {
        tl_warn ("second signal (%s): ending at once", strsignal ((int)info.ssi_signo));
        self->cut = !self->ended;
        tl_actor_end (self, TL_FAILED);
    } else {
        tl_info ("%s: stopping", strsignal ((int)info.ssi_signo));
        self->on_stop (self->arg);
    }
}

tl_actor_t *
tl_actor_new (const char *name, const char *const *state_names, tl_actor_fn *on_stop, void *arg)
{
    tl_actor_t *self = tl_alloc (sizeof *self);
    snprintf (self->name, sizeof self->name, "%s", name);
    self->states = state_names;
    self->on_stop = on_stop;
    self->arg = arg;
    tl_log_name (name);
    sigset_t set;
    sigemptyset (&set);
    sigaddset (&set, SIGTERM);
    sigaddset (&set, SIGINT);
    //  The terminal was closed. Under nohup that is ignored; blocked, it would come all the same.
    struct sigaction hangup;
    if (sigaction (SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaddset (&set, SIGHUP);
    sigprocmask (SIG_BLOCK, &set, NULL);
    signal (SIGPIPE, SIG_IGN);
    signal (SIGCHLD,
            SIG_DFL); //  who starts us may ignore it, and then no child's end could be waited for
    self->epoll = epoll_create1 (EPOLL_CLOEXEC);
    tl_assert (self->epoll >= 0);
    self->signals = signalfd (-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    tl_assert (self->signals >= 0);
    tl_actor_watch_fd (self, self->signals, s_on_signal, self);
    return self;
}

//  --- what is watched --------------------------------------------------------------------------

static tl_watch_t *
s_watch (tl_actor_t *self, void *zmq, int fd, tl_actor_fn *fn, void *arg)
{
    tl_watch_t *watch = tl_alloc (sizeof *watch);
    *watch = (tl_watch_t){.next = self->watches,
                          .actor = self,
                          .zmq = zmq,
                          .fd = fd,
                          .who = tl_log_who (),
                          .fn = fn,
                          .arg = arg};
    self->watches = watch;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};
    int rc = epoll_ctl (self->epoll, EPOLL_CTL_ADD, fd, &event);
    tl_assert (rc == 0);
    return watch;
}

//  The socket is asked before the next sleep whether it can be read.
static void
s_queue (void *arg)
{
    tl_watch_t *watch = arg;
    tl_actor_t *self = watch->actor;
    if (watch->queued)
        return;
    if (self->queue_count == self->queue_room) {
        self->queue_room = 2 * self->queue_room + 16;
        self->queue = realloc (self->queue, self->queue_room * sizeof (tl_watch_t *));
        tl_assert (self->queue);
    }
    watch->queued = true;
    self->queue[self->queue_count++] = watch;
}

static tl_watch_t *
s_watch_zmq (tl_actor_t *self, void *zmq, tl_actor_fn *fn, void *arg)
{
    int fd;
    size_t size = sizeof fd;
    int rc = zmq_getsockopt (zmq, ZMQ_FD, &fd, &size);
    tl_assert (rc == 0);
    tl_watch_t *watch = s_watch (self, zmq, fd, fn, arg);
    s_queue (watch); //  what it has already won't fire any more
    return watch;
}

void
tl_actor_watch_zmq (tl_actor_t *self, void *zmq, tl_actor_fn *fn, void *arg)
{
    s_watch_zmq (self, zmq, fn, arg);
}

void
tl_actor_watch_socket (tl_actor_t *self, tl_socket_t *socket, tl_actor_fn *on_message,
                       tl_actor_fn *on_event, void *arg)
{
    tl_watch_t *watch = s_watch_zmq (self, tl_socket_zmq (socket), on_message, arg);
    tl_socket_on_use (socket, s_queue, watch);
    s_watch_zmq (self, tl_socket_monitor (socket), on_event, arg);
}

void
tl_actor_watch_fd (tl_actor_t *self, int fd, tl_actor_fn *fn, void *arg)
{
    s_watch (self, NULL, fd, fn, arg);
}

//  Its own callback may be what is running.
static void
s_forget (tl_actor_t *self, tl_watch_t *gone)
{
    tl_watch_t **link = &self->watches;
    while (*link != gone)
        link = &(*link)->next;
    *link = gone->next;
    epoll_ctl (self->epoll, EPOLL_CTL_DEL, gone->fd, NULL);
    for (size_t i = 0; gone->queued && i < self->queue_count; i++)
        if (self->queue[i] == gone)
            self->queue[i] = NULL;
    for (int i = 0; i < self->event_count; i++)
        if (self->events[i].data.ptr == gone)
            self->events[i].data.ptr = NULL;
    free (gone);
}

static void
s_forget_one (tl_actor_t *self, const void *zmq, int fd)
{
    for (tl_watch_t *watch = self->watches; watch; watch = watch->next)
        if (watch->zmq == zmq && (zmq || watch->fd == fd)) {
            s_forget (self, watch);
            return;
        }
}

void
tl_actor_forget_socket (tl_actor_t *self, tl_socket_t *socket)
{
    tl_socket_on_use (socket, NULL, NULL);
    s_forget_one (self, tl_socket_zmq (socket), -1);
    s_forget_one (self, tl_socket_monitor (socket), -1);
}

void
tl_actor_forget_fd (tl_actor_t *self, int fd)
{
    s_forget_one (self, NULL, fd);
}

//  --- timers -----------------------------------------------------------------------------------

static void
s_set (tl_actor_t *self, tl_timer_t *timer)
{
    timer->at = tl_clock_ms () + (int64_t)(timer->ms ? timer->ms : 1);
    tl_timer_t **link = &self->timers;
    while (*link && (*link)->at <= timer->at)
        link = &(*link)->next;
    timer->next = *link;
    *link = timer;
}

int
tl_actor_timer (tl_actor_t *self, size_t ms, size_t times, tl_actor_fn *fn, void *arg)
{
    tl_timer_t *timer = tl_alloc (sizeof *timer);
    *timer = (tl_timer_t){.id = ++self->timer_ids,
                          .ms = ms,
                          .left = times,
                          .who = tl_log_who (),
                          .fn = fn,
                          .arg = arg};
    s_set (self, timer);
    return timer->id;
}

void
tl_actor_cancel (tl_actor_t *self, int id)
{
    for (tl_timer_t **link = &self->timers; *link; link = &(*link)->next)
        if ((*link)->id == id) {
            tl_timer_t *timer = *link;
            *link = timer->next;
            free (timer);
            return;
        }
}

//  Calls what is due by now; what that sets is due later.
static void
s_call_timers (tl_actor_t *self)
{
    int64_t now = tl_clock_ms ();
    while (!self->ended && self->timers && self->timers->at <= now) {
        tl_timer_t *timer = self->timers;
        tl_actor_fn *fn = timer->fn;
        void *arg = timer->arg;
        tl_log_of (timer->who);
        self->timers = timer->next;
        if (timer->left && --timer->left == 0)
            free (timer);
        else
            s_set (self, timer);
        fn (arg);
    }
}

void
tl_actor_destroy (tl_actor_t **self_p)
{
    tl_actor_t *self = *self_p;
    if (!self)
        return;
    while (self->watches)
        s_forget (self, self->watches);
    while (self->timers)
        tl_actor_cancel (self, self->timers->id);
    free (self->queue);
    close (self->signals);
    close (self->epoll);
    free (self);
    *self_p = NULL;
}

//  --- state ------------------------------------------------------------------------------------

void
tl_actor_go (tl_actor_t *self, int state, const char *event)
{
    if (state != self->state)
        tl_debug ("%s: %s -> %s", event, self->states[self->state], self->states[state]);
    self->state = state;
}

int
tl_actor_state (const tl_actor_t *self)
{
    return self->state;
}

const char *
tl_actor_state_name (const tl_actor_t *self)
{
    return self->states[self->state];
}

//  --- a turn -----------------------------------------------------------------------------------

static bool
s_readable (const tl_watch_t *watch)
{
    int events = 0, rc;
    size_t size = sizeof events;
    do
        rc = zmq_getsockopt (watch->zmq, ZMQ_EVENTS, &events, &size);
    while (rc == -1 && errno == EINTR); //  it may have taken in before what fired
    return events & ZMQ_POLLIN;
}

//  Asks each socket that is queued now; one that could be read is asked again, in the next turn.
static void
s_call_queued (tl_actor_t *self)
{
    size_t count = self->queue_count;
    if (!count)
        return;
    for (size_t i = 0; i < count && !self->ended; i++) {
        tl_watch_t *watch = self->queue[i];
        if (!watch)
            continue;
        self->queue[i] = NULL;
        watch->queued = false;
        if (s_readable (watch)) {
            s_queue (watch);
            tl_log_of (watch->who);
            watch->fn (watch->arg);
        }
    }
    self->queue_count -= count;
    memmove (self->queue, self->queue + count, self->queue_count * sizeof (tl_watch_t *));
}

//  Waits until something fires, the first timer is due or, with a socket to be asked, not at all.
static void
s_wait (tl_actor_t *self)
{
    int64_t ms = -1;
    if (self->queue_count)
        ms = 0;
    else if (self->timers) {
        ms = self->timers->at - tl_clock_ms ();
        ms = ms < 0 ? 0 : ms < 1 << 30 ? ms : 1 << 30;
    }
    self->event_count = epoll_wait (self->epoll, self->events, EVENTS, (int)ms);
    tl_assert (self->event_count >= 0 || errno == EINTR);
    for (int i = 0; i < self->event_count && !self->ended; i++) {
        tl_watch_t *watch = self->events[i].data.ptr;
        if (watch && watch->zmq)
            s_queue (watch);
        else if (watch) {
            tl_log_of (watch->who);
            watch->fn (watch->arg);
        }
    }
    self->event_count = 0;
}

int
tl_actor_run (tl_actor_t *self, tl_error_t *err)
{
    tl_memory_keep ();
    while (!self->ended) {
        s_call_queued (self);
        if (!self->ended)
            s_wait (self);
        s_call_timers (self);
    }
    tl_log_of (NULL);
    if (self->cut)
        tl_fail (err, (tl_code_t)self->code,
                 "%s was cut short by a second signal; give one and wait, and everything is saved",
                 self->name);
    return self->code;
}

void
tl_actor_end (tl_actor_t *self, int code)
{
    if (!self->ended) {
        self->ended = true;
        self->code = code;
    }
}
