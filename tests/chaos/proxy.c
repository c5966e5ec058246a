//  proxy: see proxy.h.

#include "chaos/proxy.h"

#include "assert.h"
#include "loopback.h"
#include "memory.h"
#include "random.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_PAIRS = 16, BUFFER = 16384 };

//  One direction of a connection: what was read from one side and not yet written to the other.
typedef struct {
    char data[BUFFER];
    size_t from, to; //  of data
} way_t;

typedef struct {
    int fd[2];      //  who came, and where it is led; -1: free
    way_t way[2];   //  way[i]: read from fd[i], for the other
    uint64_t bytes; //  passed so far
    uint64_t limit; //  breaks then, UINT64_MAX: never
} pair_t;

struct proxy {
    pthread_t thread;
    int listener, port, target;
    int event; //  eventfd: look at ending, now and stalled
    atomic_bool ending, now, stalled;
    atomic_size_t broken;
    uint64_t seed, least, most, drawn;
    size_t cuts;
    pair_t pairs[MOST_PAIRS];
};

static int
s_socket (int port, int *bound)
{
    int fd = tests_loopback (port, bound);
    if (fd >= 0)
        fcntl (fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void
s_close (pair_t *pair)
{
    //  As a connection breaks: without the rest, and with a reset
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    for (int i = 0; i < 2; i++) {
        setsockopt (pair->fd[i], SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close (pair->fd[i]);
        pair->fd[i] = -1;
    }
}

static void
s_accept (proxy_t *self)
{
    int fd = accept4 (self->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int other = fd < 0 ? -1 : s_socket (self->target, NULL);
    pair_t *pair = self->pairs;
    while (pair < self->pairs + MOST_PAIRS && pair->fd[0] >= 0)
        pair++;
    if (other < 0 || pair == self->pairs + MOST_PAIRS) {
        if (fd >= 0)
            close (fd);
        if (other >= 0)
            close (other);
        return;
    }
    tl_stream_t stream = {.seed = self->seed, .purpose = TL_DRAW_SAMPLE};
    memset (pair, 0, sizeof *pair);
    pair->fd[0] = fd;
    pair->fd[1] = other;
    pair->limit =
        atomic_load (&self->broken) >= self->cuts
            ? UINT64_MAX
            : self->least + tl_random_below (&stream, self->drawn++, self->most - self->least + 1);
}

//  Moves what can be moved; false when the connection is over.
static bool
s_move (pair_t *pair)
{
    for (int i = 0; i < 2; i++) {
        way_t *way = &pair->way[i];
        if (way->from == way->to) {
            ssize_t got = read (pair->fd[i], way->data, BUFFER);
            if (got == 0 || (got < 0 && errno != EAGAIN))
                return false;
            way->from = 0;
            way->to = got > 0 ? (size_t)got : 0;
        }
        size_t left = way->to - way->from;
        if (left > pair->limit - pair->bytes)
            left = pair->limit - pair->bytes;
        ssize_t put = left ? send (pair->fd[1 - i], way->data + way->from, left, MSG_NOSIGNAL) : 0;
        if (put < 0 && errno != EAGAIN)
            return false;
        way->from += put > 0 ? (size_t)put : 0;
        pair->bytes += put > 0 ? (uint64_t)put : 0;
        if (pair->bytes == pair->limit)
            return false;
    }
    return true;
}

static void
s_turn (proxy_t *self, struct pollfd *fds)
{
    nfds_t count = 2;
    fds[0] = (struct pollfd){.fd = self->listener, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = self->event, .events = POLLIN};
    bool stalled = atomic_load (&self->stalled);
    for (pair_t *pair = self->pairs; pair < self->pairs + MOST_PAIRS && !stalled; pair++)
        for (int i = 0; i < 2 && pair->fd[0] >= 0; i++) {
            bool full = pair->way[i].from < pair->way[i].to;
            bool waits = pair->way[1 - i].from < pair->way[1 - i].to;
            fds[count++] = (struct pollfd){
                .fd = pair->fd[i], .events = (short)((full ? 0 : POLLIN) | (waits ? POLLOUT : 0))};
        }
    //  Who comes meanwhile is not even accepted
    fds[0].events = stalled ? 0 : POLLIN;
    poll (fds, count, -1);
    uint64_t ignored;
    if (fds[1].revents && read (self->event, &ignored, sizeof ignored) < 0)
        return;
    bool all = atomic_exchange (&self->now, false);
    if (stalled && !all)
        return;
    for (pair_t *pair = self->pairs; pair < self->pairs + MOST_PAIRS; pair++)
        if (pair->fd[0] >= 0 && (all || !s_move (pair))) {
            if (all || pair->bytes == pair->limit)
                atomic_fetch_add (&self->broken, 1);
            s_close (pair);
        }
    if (fds[0].revents)
        s_accept (self);
}

static void *
s_thread (void *arg)
{
    proxy_t *self = arg;
    struct pollfd fds[2 + 2 * MOST_PAIRS];
    while (!atomic_load (&self->ending))
        s_turn (self, fds);
    return NULL;
}

proxy_t *
proxy_new (int target, uint64_t seed, uint64_t least, uint64_t most, size_t cuts)
{
    proxy_t *self = tl_alloc (sizeof *self);
    self->target = target;
    self->seed = seed;
    self->least = least;
    self->most = most;
    self->cuts = cuts;
    for (size_t i = 0; i < MOST_PAIRS; i++)
        self->pairs[i].fd[0] = -1;
    self->listener = s_socket (0, &self->port);
    self->event = eventfd (0, EFD_NONBLOCK | EFD_CLOEXEC);
    tl_assert (self->event >= 0);
    tl_assert (pthread_create (&self->thread, NULL, s_thread, self) == 0);
    return self;
}

static void
s_wake (proxy_t *self)
{
    uint64_t one = 1;
    tl_assert (write (self->event, &one, sizeof one) == sizeof one);
}

void
proxy_destroy (proxy_t **self_p)
{
    proxy_t *self = *self_p;
    if (!self)
        return;
    atomic_store (&self->ending, true);
    s_wake (self);
    pthread_join (self->thread, NULL);
    for (size_t i = 0; i < MOST_PAIRS; i++)
        if (self->pairs[i].fd[0] >= 0)
            s_close (&self->pairs[i]);
    close (self->listener);
    close (self->event);
    free (self);
    *self_p = NULL;
}

int
proxy_port (const proxy_t *self)
{
    return self->port;
}

size_t
proxy_cuts (const proxy_t *self)
{
    return atomic_load (&self->broken);
}

void
proxy_cut (proxy_t *self)
{
    atomic_store (&self->now, true);
    s_wake (self);
}

void
proxy_stall (proxy_t *self, bool stalled)
{
    atomic_store (&self->stalled, stalled);
    s_wake (self);
}
