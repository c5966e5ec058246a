//  bench_crew: see the header.

#include "bench/bench_crew.h"

#include "assert.h"
#include "clock.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 80, LINE = 1 << 18 };

typedef struct {
    char name[80];
    pid_t pid;
    int fd; //  its stdout; -1: closed
    bool ended;
    int status;
    struct rusage usage;
    char *text; //  [LINE] begun line
    size_t used;
    char awaited[32]; //  event that crew_until waits for, "" none
    bool said;
} hand_t;

struct crew {
    char *log;
    crew_event_fn *on_event;
    void *arg;
    int64_t began;
    hand_t hands[MOST];
    size_t count;
};

crew_t *
crew_new (const char *log, crew_event_fn *on_event, void *arg)
{
    crew_t *self = tl_alloc (sizeof *self);
    self->log = tl_strdup (log);
    self->on_event = on_event;
    self->arg = arg;
    self->began = tl_clock_us ();
    return self;
}

static void
s_become (const crew_t *self, int out, unsigned cpus, const char *const *argv)
{
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    cpu_set_t set;
    CPU_ZERO (&set);
    for (int i = 0; i < 32; i++)
        if (cpus & 1u << i)
            CPU_SET (i, &set);
    if (cpus && sched_setaffinity (0, sizeof set, &set))
        _exit (126);
    int log = open (self->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (dup2 (out, 1) < 0 || dup2 (log, 2) < 0)
        _exit (126);
    execv (argv[0], (char *const *)argv);
    _exit (127);
}

void
crew_start (crew_t *self, const char *name, unsigned cpus, const char *const *argv)
{
    int out[2];
    tl_assert (self->count < MOST && pipe2 (out, O_CLOEXEC) == 0);
    hand_t *hand = &self->hands[self->count++];
    snprintf (hand->name, sizeof hand->name, "%s", name);
    hand->text = tl_alloc (LINE);
    hand->pid = fork ();
    tl_assert (hand->pid >= 0);
    if (hand->pid == 0)
        s_become (self, out[1], cpus, argv);
    close (out[1]);
    hand->fd = out[0];
}

static void
s_on_line (crew_t *self, hand_t *hand, const char *line, double at)
{
    json_t *event = json_loads (line, 0, NULL);
    const char *said = json_string_value (json_object_get (event, "event"));
    if (said && strcmp (said, hand->awaited) == 0)
        hand->said = true;
    if (event && self->on_event)
        self->on_event (self->arg, hand->name, event, at);
    json_decref (event);
}

static void
s_end (hand_t *hand)
{
    close (hand->fd);
    hand->fd = -1;
    hand->ended = wait4 (hand->pid, &hand->status, 0, &hand->usage) == hand->pid;
}

static void
s_read (crew_t *self, hand_t *hand)
{
    ssize_t got = read (hand->fd, hand->text + hand->used, LINE - 1 - hand->used);
    double at = (double)(tl_clock_us () - self->began) * 1e-6;
    if (got <= 0) {
        s_end (hand);
        return;
    }
    hand->used += (size_t)got;
    hand->text[hand->used] = 0;
    char *line = hand->text, *end;
    while ((end = strchr (line, '\n'))) {
        *end = 0;
        s_on_line (self, hand, line, at);
        line = end + 1;
    }
    hand->used = strlen (line);
    memmove (hand->text, line, hand->used + 1);
    tl_assert (hand->used < LINE - 1);
}

//  Takes in what comes next. False: nobody is left, or nothing came.
static bool
s_listen (crew_t *self, double seconds)
{
    struct pollfd items[MOST];
    nfds_t open = 0;
    for (size_t i = 0; i < self->count; i++) {
        items[i] = (struct pollfd){.fd = self->hands[i].fd, .events = POLLIN};
        open += self->hands[i].fd >= 0;
    }
    int ready = open ? poll (items, self->count, (int)(1000 * seconds)) : 0;
    if (ready < 0 && errno == EINTR)
        return true;
    for (size_t i = 0; i < self->count && ready > 0; i++)
        if (items[i].revents)
            s_read (self, &self->hands[i]);
    return ready > 0;
}

static hand_t *
s_hand (const crew_t *self, const char *name)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp (self->hands[i].name, name) == 0)
            return (hand_t *)&self->hands[i];
    tl_assert (!"that one was started");
    return NULL;
}

bool
crew_until (crew_t *self, const char *name, const char *event, double seconds)
{
    hand_t *hand = s_hand (self, name);
    snprintf (hand->awaited, sizeof hand->awaited, "%s", event);
    hand->said = false;
    while (!hand->said && !hand->ended && s_listen (self, seconds))
        continue;
    return hand->said;
}

bool
crew_wait (crew_t *self, double seconds)
{
    while (s_listen (self, seconds))
        continue;
    bool good = true;
    for (size_t i = 0; i < self->count; i++) {
        const hand_t *hand = &self->hands[i];
        if (!hand->ended)
            fprintf (stderr, "%s does not end; its log is %s\n", hand->name, self->log);
        else if (!WIFEXITED (hand->status) || WEXITSTATUS (hand->status))
            fprintf (stderr, "%s ended with %d; its log is %s\n", hand->name,
                     WIFEXITED (hand->status) ? WEXITSTATUS (hand->status)
                                              : 128 + WTERMSIG (hand->status),
                     self->log);
        good = good && hand->ended && WIFEXITED (hand->status) && !WEXITSTATUS (hand->status);
    }
    return good;
}

void
crew_stop (crew_t *self, const char *name)
{
    hand_t *hand = s_hand (self, name);
    if (!hand->ended)
        kill (hand->pid, SIGTERM);
}

double
crew_memory (const crew_t *self, const char *name)
{
    return (double)s_hand (self, name)->usage.ru_maxrss * 1024e-6;
}

double
crew_cpu (const crew_t *self, const char *name)
{
    const struct rusage *usage = &s_hand (self, name)->usage;
    return (double)(usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) * 1e-6;
}

void
crew_destroy (crew_t **self_p)
{
    crew_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++) {
        hand_t *hand = &self->hands[i];
        if (!hand->ended) {
            kill (hand->pid, SIGKILL);
            s_end (hand);
        }
        free (hand->text);
    }
    free (self->log);
    free (self);
    *self_p = NULL;
}
