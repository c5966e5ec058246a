#include "actor.h"

#include "base/assert.h"
#include "log.h"
#include "memory.h"

#include <czmq.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

//  One watched socket, descriptor or timer: what the reactor needs to find its way back to fn.
typedef struct tl_watch {
    struct tl_watch *next; //  list of the actor
    zmq_pollitem_t item;   //  socket or fd; unused for timers
    int timer;             //  id, 0 for sockets and descriptors
    size_t left;           //  timers: calls to come, 0 for ever
    tl_actor_fn *fn;
    void *arg;
} tl_watch_t;

struct tl_actor {
    char name[80];
    const char *const *states; //  names by number
    int state;
    zloop_t *loop;
    tl_watch_t *watches;
    int signals; //  signalfd of SIGTERM, SIGINT and SIGHUP
    int stops;   //  how many have come
    bool cut;    //  the second one was the end
    tl_actor_fn *on_stop;
    void *arg; //  of on_stop
    bool ended;
    int code;
};

static int
s_on_item (zloop_t *loop, zmq_pollitem_t *item, void *arg)
{
    tl_watch_t *watch = arg;
    watch->fn (watch->arg);
    return 0;
}

static void
s_forget (tl_actor_t *self, tl_watch_t *gone)
{
    for (tl_watch_t **link = &self->watches; *link; link = &(*link)->next)
        if (*link == gone) {
            *link = gone->next;
            free (gone);
            return;
        }
}

static int
s_on_timer (zloop_t *loop, int timer, void *arg)
{
    tl_actor_t *self = arg;
    for (tl_watch_t *watch = self->watches; watch; watch = watch->next)
        if (watch->timer == timer) {
            tl_actor_fn *fn = watch->fn;
            void *fn_arg = watch->arg;
            //  The reactor forgets a timer after its last call; so do we, before fn may set a new one.
            if (watch->left && --watch->left == 0)
                s_forget (self, watch);
            fn (fn_arg);
            break;
        }
    return self->ended ? -1 : 0;
}

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
    //  Before anything of CZMQ's: it has handlers of its own for a moment, and a signal would be lost in them.
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
    zsys_handler_set (NULL);
    self->loop = zloop_new ();
    tl_assert (self->loop);
    zloop_set_nonstop (self->loop, true);
    self->signals = signalfd (-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    tl_assert (self->signals >= 0);
    tl_actor_watch_fd (self, self->signals, s_on_signal, self);
    return self;
}

void
tl_actor_destroy (tl_actor_t **self_p)
{
    tl_actor_t *self = *self_p;
    if (!self)
        return;
    zloop_destroy (&self->loop);
    while (self->watches)
        s_forget (self, self->watches);
    close (self->signals);
    free (self);
    *self_p = NULL;
}

static tl_watch_t *
s_watch (tl_actor_t *self, tl_actor_fn *fn, void *arg)
{
    tl_watch_t *watch = tl_alloc (sizeof *watch);
    watch->fn = fn;
    watch->arg = arg;
    watch->next = self->watches;
    self->watches = watch;
    return watch;
}

static void
s_poll (tl_actor_t *self, zmq_pollitem_t item, tl_actor_fn *fn, void *arg)
{
    tl_watch_t *watch = s_watch (self, fn, arg);
    watch->item = item;
    int rc = zloop_poller (self->loop, &watch->item, s_on_item, watch);
    tl_assert (rc == 0);
    //  An error on one source must not take its watch away in silence.
    zloop_poller_set_tolerant (self->loop, &watch->item);
}

void
tl_actor_watch_socket (tl_actor_t *self, void *socket, tl_actor_fn *fn, void *arg)
{
    s_poll (self, (zmq_pollitem_t){.socket = socket, .events = ZMQ_POLLIN}, fn, arg);
}

void
tl_actor_watch_fd (tl_actor_t *self, int fd, tl_actor_fn *fn, void *arg)
{
    s_poll (self, (zmq_pollitem_t){.fd = fd, .events = ZMQ_POLLIN}, fn, arg);
}

static void
s_unpoll (tl_actor_t *self, void *socket, int fd)
{
    for (tl_watch_t *watch = self->watches; watch; watch = watch->next)
        if (!watch->timer && watch->item.socket == socket && (socket || watch->item.fd == fd)) {
            zloop_poller_end (self->loop, &watch->item);
            s_forget (self, watch);
            return;
        }
}

void
tl_actor_forget_socket (tl_actor_t *self, void *socket)
{
    s_unpoll (self, socket, -1);
}

void
tl_actor_forget_fd (tl_actor_t *self, int fd)
{
    s_unpoll (self, NULL, fd);
}

int
tl_actor_timer (tl_actor_t *self, size_t ms, size_t times, tl_actor_fn *fn, void *arg)
{
    tl_watch_t *watch = s_watch (self, fn, arg);
    watch->left = times;
    watch->timer = zloop_timer (self->loop, ms ? ms : 1, times, s_on_timer, self);
    tl_assert (watch->timer > 0);
    return watch->timer;
}

void
tl_actor_cancel (tl_actor_t *self, int timer)
{
    for (tl_watch_t *watch = self->watches; timer && watch; watch = watch->next)
        if (watch->timer == timer) {
            zloop_timer_end (self->loop, timer);
            s_forget (self, watch);
            return;
        }
}

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

static int
s_on_ended (zloop_t *loop, int timer, void *arg)
{
    return -1;
}

int
tl_actor_run (tl_actor_t *self, tl_error_t *err)
{
    if (!self->ended)
        zloop_start (self->loop);
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
        //  Ends the reactor from inside whatever handler we are in.
        zloop_timer (self->loop, 1, 1, s_on_ended, self);
    }
}
