/*  slow_link: see slow_link.h. What is read leaves when the link has carried everything before it, and arrives half a
    round trip later. Nothing is read while more than a queue's worth waits to leave, so a sender feels the rate.  */

#include "slow_link.h"

#include "assert.h"
#include "clock.h"
#include "loopback.h"
#include "memory.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MOST_PAIRS = 32,
    PIECE = 8192,    //  bytes read at once
    PIECES = 512,    //  on their way in one direction of a connection
    QUEUE_US = 5000, //  what may wait to leave, in time
    LONGEST_MS = 1000
};

//  Bytes that left together.
typedef struct {
    int64_t due; //  when they arrive, us
    size_t from, to;
    char data[PIECE];
} piece_t;

//  One direction of a connection: a ring.
typedef struct {
    piece_t *pieces; //  [PIECES]
    size_t first, count;
    bool ended; //  nothing more comes
    bool full;  //  the receiver takes no more now
} way_t;

typedef struct {
    int fd[2]; //  who came, and where it is led; -1: free
    way_t way[2];
} pair_t;

struct slow_link {
    pthread_t thread;
    int listener[SLOW_LINK_PORTS], port[SLOW_LINK_PORTS], target[SLOW_LINK_PORTS];
    size_t count;
    int event; //  eventfd: ending
    atomic_bool ending;
    double us_per_byte;
    int64_t delay;  //  us, one way
    double free[2]; //  when each direction has carried everything, us
    pair_t pairs[MOST_PAIRS];
};

static void
s_close (pair_t *pair)
{
    for (int i = 0; i < 2; i++) {
        close (pair->fd[i]);
        free (pair->way[i].pieces);
    }
    *pair = (pair_t){.fd = {-1, -1}};
}

static void
s_accept (slow_link_t *self, size_t which)
{
    int fd = accept4 (self->listener[which], NULL, NULL, SOCK_CLOEXEC), one = 1;
    int other = fd < 0 ? -1 : tests_loopback (self->target[which], NULL);
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
    setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *pair = (pair_t){.fd = {fd, other}};
    for (int i = 0; i < 2; i++)
        pair->way[i].pieces = tl_alloc (PIECES * sizeof (piece_t));
}

//  May that direction read? Else, when the link has room again is a reason to wake.
static bool
s_reads (const slow_link_t *self, const way_t *way, int direction, int64_t now, int64_t *wake)
{
    if (way->ended || way->count == PIECES)
        return false;
    int64_t room = (int64_t)self->free[direction] - QUEUE_US;
    if (room <= now)
        return true;
    *wake = room < *wake ? room : *wake;
    return false;
}

static void
s_read (slow_link_t *self, pair_t *pair, int i, int64_t now)
{
    way_t *way = &pair->way[i];
    piece_t *piece = &way->pieces[(way->first + way->count) % PIECES];
    ssize_t got = recv (pair->fd[i], piece->data, PIECE, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        way->ended = true;
        return;
    }
    double begins = self->free[i] > (double)now ? self->free[i] : (double)now;
    self->free[i] = begins + (double)got * self->us_per_byte;
    piece->from = 0;
    piece->to = (size_t)got;
    piece->due = (int64_t)self->free[i] + self->delay;
    way->count++;
}

//  What has arrived goes out. False when the connection broke.
static bool
s_write (pair_t *pair, int i, int64_t now)
{
    way_t *way = &pair->way[i];
    way->full = false;
    while (way->count && way->pieces[way->first].due <= now) {
        piece_t *piece = &way->pieces[way->first];
        ssize_t put = send (pair->fd[1 - i], piece->data + piece->from, piece->to - piece->from,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        piece->from += put > 0 ? (size_t)put : 0;
        if (piece->from < piece->to) {
            way->full = true;
            break;
        }
        way->first = (way->first + 1) % PIECES;
        way->count--;
    }
    return true;
}

static bool
s_over (const pair_t *pair)
{
    return (pair->way[0].ended && !pair->way[0].count) ||
           (pair->way[1].ended && !pair->way[1].count);
}

static void
s_turn (slow_link_t *self, struct pollfd *fds)
{
    nfds_t count = 0;
    int64_t now = tl_clock_us (), wake = now + LONGEST_MS * 1000;
    fds[count++] = (struct pollfd){.fd = self->event, .events = POLLIN};
    for (size_t i = 0; i < self->count; i++)
        fds[count++] = (struct pollfd){.fd = self->listener[i], .events = POLLIN};
    nfds_t begin = count;
    for (pair_t *pair = self->pairs; pair < self->pairs + MOST_PAIRS; pair++)
        for (int i = 0; i < 2 && pair->fd[0] >= 0; i++) {
            const way_t *back = &pair->way[1 - i];
            bool reads = s_reads (self, &pair->way[i], i, now, &wake);
            short events = (short)((reads ? POLLIN : 0) | (back->full ? POLLOUT : 0));
            //  Without events poll would still tell of an end, again and again
            fds[count++] = (struct pollfd){.fd = events ? pair->fd[i] : -1, .events = events};
            int64_t due = pair->way[i].count && !pair->way[i].full
                              ? pair->way[i].pieces[pair->way[i].first].due
                              : wake;
            wake = due < wake ? due : wake;
        }
    int64_t left = wake > now ? wake - now : 0;
    struct timespec time = {.tv_sec = left / 1000000, .tv_nsec = left % 1000000 * 1000};
    ppoll (fds, count, &time, NULL);
    now = tl_clock_us ();
    nfds_t at = begin;
    for (pair_t *pair = self->pairs; pair < self->pairs + MOST_PAIRS; pair++) {
        if (pair->fd[0] < 0)
            continue;
        bool good = true;
        for (int i = 0; i < 2; i++, at++)
            if (fds[at].revents & (POLLIN | POLLHUP | POLLERR) && fds[at].events & POLLIN)
                s_read (self, pair, i, now);
        for (int i = 0; i < 2; i++)
            good = good && s_write (pair, i, now);
        if (!good || s_over (pair))
            s_close (pair);
    }
    for (size_t i = 0; i < self->count; i++)
        if (fds[1 + i].revents)
            s_accept (self, i);
}

static void *
s_thread (void *arg)
{
    slow_link_t *self = arg;
    struct pollfd fds[1 + SLOW_LINK_PORTS + 2 * MOST_PAIRS];
    while (!atomic_load (&self->ending))
        s_turn (self, fds);
    return NULL;
}

slow_link_t *
slow_link_new (const int *targets, size_t count, double rtt_ms, double mbit_s)
{
    slow_link_t *self = tl_alloc (sizeof *self);
    tl_assert (count <= SLOW_LINK_PORTS && mbit_s > 0);
    self->count = count;
    self->us_per_byte = 8 / mbit_s;
    self->delay = (int64_t)(500 * rtt_ms);
    for (size_t i = 0; i < count; i++) {
        self->target[i] = targets[i];
        self->listener[i] = tests_loopback (0, &self->port[i]);
    }
    for (size_t i = 0; i < MOST_PAIRS; i++)
        self->pairs[i].fd[0] = self->pairs[i].fd[1] = -1;
    self->event = eventfd (0, EFD_NONBLOCK | EFD_CLOEXEC);
    tl_assert (self->event >= 0);
    tl_assert (pthread_create (&self->thread, NULL, s_thread, self) == 0);
    return self;
}

void
slow_link_destroy (slow_link_t **self_p)
{
    slow_link_t *self = *self_p;
    if (!self)
        return;
    uint64_t one = 1;
    atomic_store (&self->ending, true);
    tl_assert (write (self->event, &one, sizeof one) == sizeof one);
    pthread_join (self->thread, NULL);
    for (size_t i = 0; i < MOST_PAIRS; i++)
        if (self->pairs[i].fd[0] >= 0)
            s_close (&self->pairs[i]);
    for (size_t i = 0; i < self->count; i++)
        close (self->listener[i]);
    close (self->event);
    free (self);
    *self_p = NULL;
}

int
slow_link_port (const slow_link_t *self, size_t target)
{
    return self->port[target];
}
