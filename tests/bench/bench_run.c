//  bench_run: see the header.

#include "bench/bench_run.h"

#include "assert.h"
#include "clock.h"
#include "memory.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { LINE = 1 << 16, PATIENCE_MS = 300000 };

//  Seconds all processors together have been idle; waiting for a disk is idle too.
static double
s_idle (void)
{
    unsigned long long user, nice, system, idle, wait;
    FILE *file = fopen ("/proc/stat", "re");
    int got =
        file ? fscanf (file, "cpu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait)
             : 0;
    if (file)
        fclose (file);
    return got == 5 ? (double)(idle + wait) / (double)sysconf (_SC_CLK_TCK) : 0;
}

static double
s_seconds (const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec * 1e-6;
}

static pid_t
s_spawn (const char *const *argv, const char *log, int out[2])
{
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe2 (out, O_CLOEXEC))
        return -1;
    posix_spawn_file_actions_init (&actions);
    posix_spawn_file_actions_adddup2 (&actions, out[1], 1);
    posix_spawn_file_actions_addopen (&actions, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int rc = posix_spawn (&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy (&actions);
    close (out[1]);
    if (rc) {
        close (out[0]);
        errno = rc;
        return -1;
    }
    return pid;
}

//  Hands lines on until the child closes its stdout. -1: it was silent for too long.
static int
s_listen (int fd, int64_t began, bench_line_fn *on_line, void *arg)
{
    char *text = tl_alloc (LINE);
    size_t used = 0;
    int rc = 0;
    for (;;) {
        struct pollfd item = {.fd = fd, .events = POLLIN};
        int ready = poll (&item, 1, PATIENCE_MS);
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t got = ready == 1 ? read (fd, text + used, LINE - 1 - used) : -1;
        if (got <= 0) {
            rc = got == 0 ? 0 : -1;
            break;
        }
        double at = (double)(tl_clock_us () - began) * 1e-6;
        used += (size_t)got;
        text[used] = 0;
        char *line = text, *end;
        while ((end = strchr (line, '\n'))) {
            *end = 0;
            on_line (arg, line, at);
            line = end + 1;
        }
        used = strlen (line);
        memmove (text, line, used + 1);
        tl_assert (used < LINE - 1);
    }
    free (text);
    return rc;
}

int
bench_run (const char *const *argv, const char *log, bench_line_fn *on_line, void *arg,
           bench_usage_t *usage)
{
    int out[2], status = 0;
    double idle = s_idle ();
    int64_t began = tl_clock_us ();
    pid_t pid = s_spawn (argv, log, out);
    if (pid < 0) {
        fprintf (stderr, "%s can't be started: %s\n", argv[0], strerror (errno));
        return -1;
    }
    int rc = s_listen (out[0], began, on_line, arg);
    close (out[0]);
    if (rc) {
        fprintf (stderr, "%s %s said nothing for %d s; its log is %s\n", argv[0], argv[1],
                 PATIENCE_MS / 1000, log);
        kill (pid, SIGTERM);
    }
    struct rusage used;
    if (wait4 (pid, &status, 0, &used) != pid)
        return -1;
    //  What it started and waited for is in its own usage.
    usage->wall = (double)(tl_clock_us () - began) * 1e-6;
    double busy = (double)sysconf (_SC_NPROCESSORS_ONLN) * usage->wall - (s_idle () - idle);
    double own = s_seconds (&used.ru_utime) + s_seconds (&used.ru_stime);
    usage->foreign = busy > own ? (busy - own) / usage->wall : 0;
    return rc ? -1 : WIFEXITED (status) ? WEXITSTATUS (status) : -1;
}

int
bench_pin (int threads)
{
    cpu_set_t allowed, chosen;
    CPU_ZERO (&chosen);
    tl_assert (sched_getaffinity (0, sizeof allowed, &allowed) == 0);
    int count = 0;
    for (int i = 0; i < CPU_SETSIZE && count < threads; i++)
        if (CPU_ISSET (i, &allowed)) {
            CPU_SET (i, &chosen);
            count++;
        }
    tl_assert (sched_setaffinity (0, sizeof chosen, &chosen) == 0);
    return count;
}

static int
s_ascending (const void *a, const void *b)
{
    double one = *(const double *)a, two = *(const double *)b;
    return one < two ? -1 : one > two ? 1 : 0;
}

double
bench_quantile (double *values, size_t count, double share)
{
    tl_assert (count > 0);
    qsort (values, count, sizeof *values, s_ascending);
    double place = share * (double)(count - 1);
    size_t below = (size_t)place, above = below + 1 < count ? below + 1 : below;
    return values[below] + (place - (double)below) * (values[above] - values[below]);
}

void
bench_ports (int ports[3])
{
    int held[3];
    for (int i = 0; i < 3; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
        socklen_t size = sizeof address;
        held[i] = socket (AF_INET, SOCK_STREAM, 0);
        tl_assert (held[i] >= 0 && bind (held[i], (struct sockaddr *)&address, size) == 0 &&
                   getsockname (held[i], (struct sockaddr *)&address, &size) == 0);
        ports[i] = ntohs (address.sin_port);
    }
    for (int i = 0; i < 3; i++)
        close (held[i]);
}
