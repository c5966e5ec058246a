#include "child.h"

#include "base/assert.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE = 65536 }; //  longest line that is kept whole

//  Lines from one pipe.
typedef struct {
    int fd;     //  -1: closed
    char *text; //  [LINE]
    size_t used;
} tl_pipe_t;

struct tl_child {
    tl_child_config_t config;
    pid_t pid;          //  0: not running
    int pidfd;          //  -1: none
    tl_pipe_t out, err; //  its stdout and stderr
};

tl_child_t *
tl_child_new (const tl_child_config_t *config)
{
    tl_child_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    self->pidfd = self->out.fd = self->err.fd = -1;
    self->out.text = tl_alloc (LINE);
    self->err.text = tl_alloc (LINE);
    return self;
}

bool
tl_child_alive (const tl_child_t *self)
{
    return self->pid != 0;
}

bool
tl_child_busy (const tl_child_t *self)
{
    return self->pid || self->out.fd >= 0 || self->err.fd >= 0;
}

void
tl_child_signal (const tl_child_t *self, int signal_number)
{
    if (self->pid)
        kill (self->pid, signal_number);
}

//  --- what it says -----------------------------------------------------------------------------

static void
s_close (tl_child_t *self, tl_pipe_t *pipe)
{
    if (pipe->fd < 0)
        return;
    tl_actor_forget_fd (self->config.actor, pipe->fd);
    close (pipe->fd);
    pipe->fd = -1;
}

//  Takes in what is there, and closes the pipe at its end. False if there was nothing.
static bool
s_read (tl_child_t *self, tl_pipe_t *pipe, void (*on_line) (void *, const char *))
{
    ssize_t got =
        pipe->fd < 0 ? -1 : read (pipe->fd, pipe->text + pipe->used, LINE - 1 - pipe->used);
    if (pipe->fd < 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return false;
    if (got <= 0) {
        s_close (self, pipe);
        return false;
    }
    pipe->used += (size_t)got;
    pipe->text[pipe->used] = 0;
    char *line = pipe->text, *end;
    while ((end = strchr (line, '\n'))) {
        *end = 0;
        on_line (self->config.arg, line);
        line = end + 1;
    }
    pipe->used = strlen (line);
    memmove (pipe->text, line, pipe->used + 1);
    if (pipe->used == LINE - 1)
        pipe->used = 0; //  a line that never ends is nothing of ours
    return true;
}

static void
s_on_out (void *arg)
{
    tl_child_t *self = arg;
    s_read (self, &self->out, self->config.on_out);
    if (self->out.fd < 0)
        self->config.on_closed (self->config.arg);
}

static void
s_on_err (void *arg)
{
    tl_child_t *self = arg;
    s_read (self, &self->err, self->config.on_err);
    if (self->err.fd < 0)
        self->config.on_closed (self->config.arg);
}

void
tl_child_hear (tl_child_t *self)
{
    //  As much as a pipe holds: one that goes on speaking has a turn of its own
    for (int i = 0; i < 4 && s_read (self, &self->out, self->config.on_out); i++)
        ;
}

static void
s_on_exit (void *arg)
{
    tl_child_t *self = arg;
    int status;
    if (waitpid (self->pid, &status, WNOHANG) != self->pid)
        return;
    tl_actor_forget_fd (self->config.actor, self->pidfd);
    close (self->pidfd);
    self->pidfd = -1;
    self->pid = 0;
    //  Its last words may still be in the pipes.
    while (s_read (self, &self->out, self->config.on_out))
        ;
    while (s_read (self, &self->err, self->config.on_err))
        ;
    self->config.on_end (self->config.arg, status);
}

//  --- starting ---------------------------------------------------------------------------------

static int
s_spawn (tl_child_t *self, const char *program, const char *const *argv, int out, int err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t stops, ours;
    //  A stop that comes before the actor looks for it is kept for it, and doesn't kill it.
    sigemptyset (&stops);
    sigaddset (&stops, SIGTERM);
    sigaddset (&stops, SIGINT);
    sigemptyset (&ours);
    sigaddset (&ours, SIGPIPE);
    posix_spawn_file_actions_init (&actions);
    posix_spawn_file_actions_addopen (&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2 (&actions, out, 1);
    posix_spawn_file_actions_adddup2 (&actions, err, 2);
    posix_spawnattr_init (&attributes);
    posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                               POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask (&attributes, &stops);
    posix_spawnattr_setsigdefault (&attributes, &ours);
    int rc = posix_spawn (&self->pid, program, &actions, &attributes, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy (&actions);
    posix_spawnattr_destroy (&attributes);
    return rc;
}

static void
s_listen (tl_child_t *self, tl_pipe_t *pipe, int fd, tl_actor_fn *fn)
{
    fcntl (fd, F_SETFL, O_NONBLOCK);
    pipe->fd = fd;
    pipe->used = 0;
    tl_actor_watch_fd (self->config.actor, fd, fn, self);
}

int
tl_child_start (tl_child_t *self, const char *program, const char *const *argv, const char *title,
                tl_error_t *err)
{
    int out[2], err_pipe[2];
    tl_assert (!self->pid);
    //  A grandchild may hold the last one's pipes open: what it says is nobody's.
    s_close (self, &self->out);
    s_close (self, &self->err);
    int rc = pipe2 (out, O_CLOEXEC);
    if (rc == 0 && (rc = pipe2 (err_pipe, O_CLOEXEC)) != 0) {
        close (out[0]);
        close (out[1]);
    }
    if (rc)
        return tl_fail (err, TL_FAILED, "no pipe for %s: %s; raise the limit of open files", title,
                        strerror (errno));
    rc = s_spawn (self, program, argv, out[1], err_pipe[1]);
    close (out[1]);
    close (err_pipe[1]);
    if (rc) {
        close (out[0]);
        close (err_pipe[0]);
        self->pid = 0;
        return tl_fail (err, TL_FAILED, "%s could not be started: %s; look at the process limits",
                        title, strerror (rc));
    }
    s_listen (self, &self->out, out[0], s_on_out);
    s_listen (self, &self->err, err_pipe[0], s_on_err);
    self->pidfd = (int)syscall (SYS_pidfd_open, self->pid, 0);
    tl_assert (self->pidfd >= 0);
    tl_actor_watch_fd (self->config.actor, self->pidfd, s_on_exit, self);
    return 0;
}

void
tl_child_destroy (tl_child_t **self_p)
{
    tl_child_t *self = *self_p;
    if (!self)
        return;
    if (self->pid) {
        kill (self->pid, SIGKILL);
        waitpid (self->pid, NULL, 0);
        tl_actor_forget_fd (self->config.actor, self->pidfd);
        close (self->pidfd);
    }
    s_close (self, &self->out);
    s_close (self, &self->err);
    free (self->out.text);
    free (self->err.text);
    free (self);
    *self_p = NULL;
}
