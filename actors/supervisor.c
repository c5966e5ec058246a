#include "supervisor.h"

#include "actors/actor.h"
#include "actors/credentials.h"
#include "base/assert.h"
#include "clock.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LINE = 65536,       //  longest line of a child that is kept whole
    BACK_OFF_MS = 250,  //  before the first restart; doubled each time
    MOST_RESTARTS = 5,  //  of one part
    HEALTHY_MS = 60000, //  who lived so long has all its restarts again
    GRACE_MS = 25000,   //  the broker may take so long to end a run in order
    BYE_MS = 2000,      //  parts hear its BYE within that, or are told to stop
    KILL_MS = 10000     //  whoever was told must be gone by then
};

static const char *const s_states[] = {"running", "stopping"};
enum { RUNNING, STOPPING };

//  Lines from one pipe of a child.
typedef struct {
    int fd;     //  -1: closed
    char *text; //  [LINE]
    size_t used;
} tl_pipe_t;

typedef struct tl_supervisor tl_supervisor_t;

typedef struct {
    tl_supervisor_t *supervisor;
    const char *role;   //  "broker", "aggregator", "worker", "client"
    const char *name;   //  "" for broker and aggregator
    char title[96];     //  "client/north"
    pid_t pid;          //  0: not running
    int pidfd;          //  -1: none
    tl_pipe_t out, err; //  events; log
    int restarts;
    int64_t born;    //  of its process, monotonic ms
    int timer;       //  of the next start, 0: none
    bool told;       //  to stop; a second signal would cut it short
    bool failed;     //  for good
    char last[1024]; //  last error sentence it printed
} tl_child_t;

struct tl_supervisor {
    const tl_topology_t *topology;
    tl_supervisor_options_t options;
    tl_actor_t *actor;
    tl_child_t *children;
    size_t count;
    FILE *log;
    int grace;     //  timer: after it everybody is told to stop; 0: none
    bool waiting;  //  parts are started when the broker of this machine is up
    bool began;    //  a step was committed
    int64_t saved; //  step of the last common save, 0: none
    bool over;     //  the broker said that the run is done, or ended
    bool serving;  //  it said that it goes on serving: a worker is still needed
    int code;
    char text[1100]; //  why code is not 0
};

static int s_start (tl_child_t *child, tl_error_t *err);
static void s_start_others (tl_supervisor_t *self);
static void s_check_all (tl_supervisor_t *self);

static void
s_say (tl_supervisor_t *self, const char *format, ...)
{
    char line[1400];
    va_list args;
    va_start (args, format);
    vsnprintf (line, sizeof line, format, args);
    va_end (args);
    self->options.on_line (self->options.arg, line);
}

static void
s_fail (tl_supervisor_t *self, int code, const char *text)
{
    if (self->code)
        return;
    self->code = code;
    snprintf (self->text, sizeof self->text, "%.1023s", text);
}

//  The same, with where to find what was saved.
static void
s_fail_saved (tl_supervisor_t *self, int code, const char *text)
{
    char whole[1400];
    snprintf (whole, sizeof whole, "%.700s; what was saved is in %.280s/%.100s", text,
              self->topology->checkpoint.dir, self->topology->name);
    s_fail (self, code, self->began ? whole : text);
}

//  --- what children say ------------------------------------------------------------------------

static void
s_on_event_line (tl_child_t *child, const char *line)
{
    tl_supervisor_t *self = child->supervisor;
    json_error_t error;
    json_t *event = json_loads (line, 0, &error);
    const char *name = event ? json_string_value (json_object_get (event, "event")) : NULL;
    if (name) {
        if (strcmp (child->role, "broker") == 0) {
            if (strcmp (name, "up") == 0)
                s_start_others (self);
            self->over |= strcmp (name, "done") == 0;
            self->began |= strcmp (name, "closed") == 0;
            if (strcmp (name, "saved") == 0)
                self->saved = json_integer_value (json_object_get (event, "step"));
            self->serving =
                (self->serving || strcmp (name, "serving") == 0) && strcmp (name, "ending") != 0;
        }
        self->options.on_event (self->options.arg, child->title, event);
    }
    json_decref (event);
}

//  A log line is "HH:MM:SS.mmm level who: text"; a last word is "trunkline: sentence".
static void
s_on_log_line (tl_child_t *child, const char *line)
{
    tl_supervisor_t *self = child->supervisor;
    fprintf (self->log, "%s\n", line);
    fflush (self->log);
    if (strncmp (line, "trunkline: ", 11) == 0)
        snprintf (child->last, sizeof child->last, "%s", line + 11);
    else if (strlen (line) > 19 &&
             (strncmp (line + 13, "warn", 4) == 0 || strncmp (line + 13, "error", 5) == 0))
        self->options.on_line (self->options.arg, line);
}

//  Takes in what is there, and closes the pipe at its end. False if there was nothing.
static bool
s_read (tl_child_t *child, tl_pipe_t *pipe, void (*on_line) (tl_child_t *, const char *))
{
    ssize_t got =
        pipe->fd < 0 ? -1 : read (pipe->fd, pipe->text + pipe->used, LINE - 1 - pipe->used);
    if (pipe->fd < 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
        return false;
    if (got <= 0) {
        tl_actor_forget_fd (child->supervisor->actor, pipe->fd);
        close (pipe->fd);
        pipe->fd = -1;
        return false;
    }
    pipe->used += (size_t)got;
    pipe->text[pipe->used] = 0;
    char *line = pipe->text, *end;
    while ((end = strchr (line, '\n'))) {
        *end = 0;
        on_line (child, line);
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
    tl_child_t *child = arg;
    s_read (child, &child->out, s_on_event_line);
    s_check_all (child->supervisor);
}

static void
s_on_err (void *arg)
{
    tl_child_t *child = arg;
    s_read (child, &child->err, s_on_log_line);
    s_check_all (child->supervisor);
}

//  --- stopping ---------------------------------------------------------------------------------

static void
s_signal_all (tl_supervisor_t *self, int signal_number)
{
    for (size_t i = 0; i < self->count; i++)
        if (self->children[i].pid)
            kill (self->children[i].pid, signal_number);
}

static void
s_on_kill (void *arg)
{
    tl_supervisor_t *self = arg;
    s_signal_all (self, SIGKILL);
}

static void
s_tell (tl_child_t *child)
{
    if (child->pid && !child->told)
        kill (child->pid, SIGTERM);
    child->told = true;
}

static void
s_on_grace (void *arg)
{
    tl_supervisor_t *self = arg;
    self->grace = 0;
    for (size_t i = 0; i < self->count; i++)
        s_tell (&self->children[i]);
    tl_actor_timer (self->actor, KILL_MS, 1, s_on_kill, self);
}

static void
s_grace (tl_supervisor_t *self, size_t ms)
{
    tl_actor_cancel (self->actor, self->grace);
    self->grace = tl_actor_timer (self->actor, ms, 1, s_on_grace, self);
}

//  Nothing is started any more, and within grace_ms everything is to be over.
static void
s_wind_up (tl_supervisor_t *self, size_t grace_ms)
{
    tl_actor_go (self->actor, STOPPING, "stop");
    for (size_t i = 0; i < self->count; i++) {
        tl_actor_cancel (self->actor, self->children[i].timer);
        self->children[i].timer = 0;
    }
    s_grace (self, grace_ms);
}

//  The broker ends the run politely and tells everybody; without a broker each part is told itself.
static void
s_stop (tl_supervisor_t *self)
{
    if (tl_actor_state (self->actor) == STOPPING)
        return;
    tl_child_t *broker = &self->children[0];
    bool polite = broker->pid && strcmp (broker->role, "broker") == 0;
    s_wind_up (self, polite ? GRACE_MS : 1);
    if (polite)
        s_tell (broker);
    s_check_all (self);
}

static void
s_on_stop (void *arg)
{
    s_stop (arg);
}

//  Ends when nothing runs, nothing is to be started and everything that was said has been read.
static void
s_check_all (tl_supervisor_t *self)
{
    size_t clients = 0, expected = 0;
    bool busy = false;
    for (size_t i = 0; i < self->count; i++) {
        tl_child_t *child = &self->children[i];
        bool alive = child->pid || child->timer;
        busy |= alive || child->out.fd >= 0 || child->err.fd >= 0;
        if (strcmp (child->role, "client") == 0) {
            expected++;
            clients += alive;
        }
    }
    if (!busy)
        tl_actor_end (self->actor, self->code);
    else if (expected && !clients && !self->waiting && !self->over &&
             tl_actor_state (self->actor) == RUNNING && expected == self->topology->client_count) {
        s_say (self, "no client is left: stopping the run");
        s_stop (self);
    }
}

//  --- deaths -----------------------------------------------------------------------------------

static void
s_on_restart (void *arg)
{
    tl_child_t *child = arg;
    tl_error_t err;
    child->timer = 0;
    if (s_start (child, &err)) {
        s_fail (child->supervisor, TL_FAILED, err.text);
        s_stop (child->supervisor);
    }
}

static void
s_how (int status, char *text, size_t size)
{
    if (WIFSIGNALED (status))
        snprintf (text, size, "was killed by signal %d (%s)", WTERMSIG (status),
                  strsignal (WTERMSIG (status)));
    else
        snprintf (text, size, "ended with code %d", WEXITSTATUS (status));
}

//  Something of ours crashed or was killed: worth another try. Everything else it said for itself.
static bool
s_worth_a_try (int status)
{
    return WIFSIGNALED (status) || WEXITSTATUS (status) == TL_INTERNAL ||
           WEXITSTATUS (status) == TL_TIMEOUT;
}

//  It is the run's end, whatever the other parts are doing: either it told them, or they are told now.
static void
s_broker_died (tl_supervisor_t *self, bool clean, int code, const char *text)
{
    self->over = true;
    char save[64] = "there is no common save", whole[1400];
    if (self->saved)
        snprintf (save, sizeof save, "the last common save is of step %lld",
                  (long long)self->saved);
    snprintf (whole, sizeof whole,
              "%.500s; %s, in %.280s/%.100s, and adapters there may be of different steps", text,
              save, self->topology->checkpoint.dir, self->topology->name);
    if (!clean)
        s_fail (self, code, self->began ? whole : text);
    s_wind_up (self, clean ? BYE_MS : 1);
}

static void
s_died (tl_child_t *child, int status)
{
    tl_supervisor_t *self = child->supervisor;
    bool worker = strcmp (child->role, "worker") == 0, exited = WIFEXITED (status);
    bool needed = worker || strcmp (child->role, "aggregator") == 0;
    int code = exited ? WEXITSTATUS (status) : TL_FAILED;
    char how[128], text[1300];
    s_how (status, how, sizeof how);
    snprintf (text, sizeof text, "%s %s%s%s", child->title, how, *child->last ? ": " : "",
              child->last);
    //  A last word says more than a code
    char why[1300];
    if (*child->last && exited)
        snprintf (why, sizeof why, "%s: %s", child->title, child->last);
    else
        snprintf (why, sizeof why, "%s", text);
    if (strcmp (child->role, "broker") == 0) {
        s_broker_died (self, exited && code == 0, code, why);
        return;
    }
    //  Whatever the parts say after the run's end follows from it.
    if (tl_actor_state (self->actor) == STOPPING || (self->over && !(worker && self->serving)))
        return;
    if (exited && code == 0) {
        //  It was told to leave. Clients may; without the trunk there is no run.
        s_say (self, "%s has left", child->title);
        if (needed) {
            snprintf (text, sizeof text,
                      "the %s was told to leave before the run was over; what was saved is in the "
                      "run's directory",
                      child->role);
            s_fail (self, TL_FAILED, text);
            s_stop (self);
        }
        return;
    }
    if (tl_clock_ms () - child->born > HEALTHY_MS)
        child->restarts = 0;
    if (s_worth_a_try (status) && child->restarts < MOST_RESTARTS) {
        int delay = BACK_OFF_MS << child->restarts++;
        s_say (self, "%s; starting it again in %.2f s (%d of %d)", text, delay / 1000.0,
               child->restarts, MOST_RESTARTS);
        child->timer = tl_actor_timer (self->actor, (size_t)delay, 1, s_on_restart, child);
    } else {
        //  The others go on without a client, but the first step waits for all.
        child->failed = true;
        if (needed || self->topology->client_count == 1 || !self->began) {
            s_fail_saved (self, code, why);
            s_stop (self);
        } else {
            s_say (self, "%s", why);
            s_fail (self, code, why);
        }
    }
}

static void
s_on_exit (void *arg)
{
    tl_child_t *child = arg;
    int status;
    if (waitpid (child->pid, &status, WNOHANG) != child->pid)
        return;
    tl_actor_forget_fd (child->supervisor->actor, child->pidfd);
    close (child->pidfd);
    child->pidfd = -1;
    child->pid = 0;
    //  Its last words may still be in the pipes.
    while (s_read (child, &child->out, s_on_event_line))
        ;
    while (s_read (child, &child->err, s_on_log_line))
        ;
    s_died (child, status);
    s_check_all (child->supervisor);
}

//  --- starting ---------------------------------------------------------------------------------

static int
s_spawn (tl_child_t *child, char *const *argv, const int out[2], const int err_pipe[2])
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
    posix_spawn_file_actions_adddup2 (&actions, out[1], 1);
    posix_spawn_file_actions_adddup2 (&actions, err_pipe[1], 2);
    posix_spawnattr_init (&attributes);
    //  A group of its own: Ctrl-C on the terminal is for us, and we stop the run in order.
    posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                               POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask (&attributes, &stops);
    posix_spawnattr_setsigdefault (&attributes, &ours);
    int rc = posix_spawn (&child->pid, child->supervisor->options.program, &actions, &attributes,
                          argv, environ);
    posix_spawn_file_actions_destroy (&actions);
    posix_spawnattr_destroy (&attributes);
    return rc;
}

static void
s_listen (tl_child_t *child, tl_pipe_t *pipe, int fd, tl_actor_fn *fn)
{
    fcntl (fd, F_SETFL, O_NONBLOCK);
    pipe->fd = fd;
    pipe->used = 0;
    if (!pipe->text)
        pipe->text = tl_alloc (LINE);
    tl_actor_watch_fd (child->supervisor->actor, fd, fn, child);
}

static int
s_start (tl_child_t *child, tl_error_t *err)
{
    tl_supervisor_t *self = child->supervisor;
    const char **argv = tl_alloc ((16 + 2 * self->options.override_count) * sizeof *argv);
    size_t count = 0;
    char parent[32];
    snprintf (parent, sizeof parent, "%d", (int)getpid ());
    argv[count++] = "trunkline";
    argv[count++] = "run";
    argv[count++] = child->role;
    argv[count++] = self->options.topology;
    if (*child->name)
        argv[count++] = child->name;
    argv[count++] = "--format";
    argv[count++] = "jsonl";
    argv[count++] = "--parent";
    argv[count++] = parent;
    if (self->options.stay && strcmp (child->role, "broker") == 0)
        argv[count++] = "--stay";
    if (strcmp (child->role, "broker") == 0)
        argv[count++] = "--replace"; //  whoever started us was told what is replaced
    for (size_t i = 0; i < self->options.override_count; i++) {
        argv[count++] = "--set";
        argv[count++] = self->options.overrides[i];
    }
    int out[2], err_pipe[2];
    int rc = pipe2 (out, O_CLOEXEC);
    if (rc == 0 && (rc = pipe2 (err_pipe, O_CLOEXEC)) != 0) {
        close (out[0]);
        close (out[1]);
    }
    if (rc) {
        free (argv);
        return tl_fail (err, TL_FAILED, "no pipe for %s: %s; raise the limit of open files",
                        child->title, strerror (errno));
    }
    *child->last = 0;
    child->born = tl_clock_ms ();
    rc = s_spawn (child, (char *const *)argv, out, err_pipe);
    close (out[1]);
    close (err_pipe[1]);
    free (argv);
    if (rc) {
        close (out[0]);
        close (err_pipe[0]);
        child->pid = 0;
        return tl_fail (err, TL_FAILED, "%s could not be started: %s; look at the process limits",
                        child->title, strerror (rc));
    }
    s_listen (child, &child->out, out[0], s_on_out);
    s_listen (child, &child->err, err_pipe[0], s_on_err);
    child->pidfd = (int)syscall (SYS_pidfd_open, child->pid, 0);
    tl_assert (child->pidfd >= 0);
    tl_actor_watch_fd (self->actor, child->pidfd, s_on_exit, child);
    return 0;
}

//  Not before the broker: where another program has its ports, parts would knock there, with keys that may be good for it.
static void
s_start_others (tl_supervisor_t *self)
{
    tl_error_t err;
    if (!self->waiting || tl_actor_state (self->actor) != RUNNING)
        return;
    self->waiting = false;
    for (size_t i = 1; i < self->count; i++)
        if (s_start (&self->children[i], &err)) {
            s_fail (self, TL_FAILED, err.text);
            s_stop (self);
            return;
        }
}

//  --- life -------------------------------------------------------------------------------------

static void
s_add (tl_supervisor_t *self, const char *role, const char *name, const char *host)
{
    if (strcmp (host, "localhost") != 0) {
        s_say (self, "%s%s%s belongs on %s: start it there with `trunkline run %s %s%s%s`%s", role,
               *name ? " " : "", name, host, role, self->options.topology, *name ? " " : "", name,
               self->options.override_count ? " and the same --set" : "");
        return;
    }
    tl_child_t *child = &self->children[self->count++];
    *child = (tl_child_t){
        .supervisor = self, .role = role, .name = name, .pidfd = -1, .out.fd = -1, .err.fd = -1};
    snprintf (child->title, sizeof child->title, "%s%s%s", role, *name ? "/" : "", name);
}

//  What every part here would say of its own is said once, before anything runs.
static int
s_check_keys (const tl_supervisor_t *self, tl_error_t *err)
{
    int rc = 0;
    for (size_t i = 0; i < self->count && rc == 0; i++)
        rc = tl_credentials_check (self->topology, self->children[i].role, self->children[i].name,
                                   err);
    return rc;
}

static int
s_open (tl_supervisor_t *self, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    char *directory = tl_format ("%s/%s", t->checkpoint.dir, t->name);
    char *path = tl_format ("%s/trunkline.log", directory);
    int rc = tl_mkdirs (directory, err);
    if (rc == 0 && !(self->log = fopen (path, "ae")))
        rc = tl_fail (err, TL_BAD_INPUT, "%s can't be written: %s; choose another checkpoint.dir",
                      path, strerror (errno));
    free (directory);
    free (path);
    if (rc)
        return -1;
    self->children = tl_alloc ((2 + t->worker_count + t->client_count) * sizeof *self->children);
    s_add (self, "broker", "", t->broker.host);
    if (tl_topology_aggregates (t))
        s_add (self, "aggregator", "", t->aggregator.host);
    for (size_t i = 0; i < t->worker_count; i++)
        s_add (self, "worker", t->workers[i].name, t->workers[i].host);
    for (size_t i = 0; i < t->client_count; i++)
        s_add (self, "client", t->clients[i].name, t->clients[i].host);
    if (!self->count)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: nothing in it belongs on this machine: every host is another; start "
                        "single parts with `trunkline run`",
                        t->source);
    rc = s_check_keys (self, err);
    self->waiting = strcmp (self->children[0].role, "broker") == 0;
    for (size_t i = 0; i < (self->waiting ? 1 : self->count) && rc == 0; i++)
        rc = s_start (&self->children[i], err);
    if (rc)
        s_signal_all (self, SIGKILL);
    return rc;
}

int
tl_supervisor_run (const tl_topology_t *topology, const tl_supervisor_options_t *options,
                   tl_error_t *err)
{
    tl_supervisor_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->options = *options;
    self->actor = tl_actor_new ("up", s_states, s_on_stop, self);
    int code = s_open (self, err) == 0 ? tl_actor_run (self->actor, err) : (int)err->code;
    if (self->code && code == self->code)
        tl_fail (err, (tl_code_t)self->code, "%s", self->text);
    s_signal_all (self, SIGKILL); //  a second signal leaves no time
    for (size_t i = 0; i < self->count; i++) {
        tl_child_t *child = &self->children[i];
        if (child->pid)
            waitpid (child->pid, NULL, 0); //  killed just now
        free (child->out.text);
        free (child->err.text);
        if (child->pidfd >= 0)
            close (child->pidfd);
        if (child->out.fd >= 0)
            close (child->out.fd);
        if (child->err.fd >= 0)
            close (child->err.fd);
    }
    free (self->children);
    if (self->log)
        fclose (self->log);
    tl_actor_destroy (&self->actor);
    free (self);
    return code;
}
