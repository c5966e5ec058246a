//  stage: see stage.h.

#include "chaos/stage.h"

#include "clock.h"
#include "file.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DEADLINE_MS = 100000, MOST_PARTS = 24, MOST_ARGUMENTS = 48, MOST_FILE = 1 << 26 };

//  What came through one pipe.
typedef struct {
    int fd; //  -1: closed
    char *text;
    size_t size, room;
    size_t lines; //  bytes of text that are whole lines already looked at
} flow_t;

struct part {
    stage_t *stage;
    char title[160];
    pid_t pid;
    int pidfd; //  -1: ended
    int status;
    flow_t out, err;
    json_t *events; //  array
    size_t cursor;  //  first event not waited for yet
    size_t read;    //  bytes of err not waited for yet
};

struct stage {
    case_t *files;
    part_t *parts[MOST_PARTS];
    size_t count;
};

const case_t *
stage_case (const stage_t *self)
{
    return self->files;
}

void
stage_fail (const stage_t *self, const char *format, ...)
{
    va_list args;
    va_start (args, format);
    fputs ("FAILED: ", stderr);
    vfprintf (stderr, format, args);
    va_end (args);
    for (size_t i = 0; i < self->count; i++) {
        const part_t *part = self->parts[i];
        size_t events = json_array_size (part->events);
        fprintf (stderr, "\n--- %s (%s), %zu events, cursor at %zu\n", part->title,
                 part->pidfd < 0 ? "ended" : "alive", events, part->cursor);
        for (size_t k = events > 6 ? events - 6 : 0; k < events; k++) {
            char *line = json_dumps (json_array_get (part->events, k), JSON_COMPACT);
            fprintf (stderr, "%.200s\n", line);
            free (line);
        }
        char *all = tl_format ("%s/%zu.events.json", self->files->directory, i);
        json_dump_file (part->events, all, JSON_INDENT (0));
        free (all);
        fprintf (stderr, "%s",
                 part->err.size > 4000 ? part->err.text + part->err.size - 4000 : part->err.text);
    }
    char *log = tl_format ("tail -n 60 %s/runs/case/trunkline.log >&2", self->files->directory);
    fprintf (stderr, "--- %s/runs/case/trunkline.log\n", self->files->directory);
    if (system (log))
        fputs ("(none)\n", stderr);
    for (size_t i = 0; i < self->count; i++)
        if (self->parts[i]->pidfd >= 0)
            kill (self->parts[i]->pid, SIGKILL);
    exit (1);
}

void
stage_check (const stage_t *self, bool good, const char *what)
{
    if (!good)
        stage_fail (self, "expected: %s", what);
}

int64_t
stage_ms (void)
{
    return tl_clock_ms ();
}

//  --- reading

//  A whole line of stdout: an event, or part of some other output.
static void
s_on_line (part_t *self, const char *line, size_t size)
{
    json_error_t error;
    json_t *event = json_loadb (line, size, 0, &error);
    if (event && json_object_get (event, "event"))
        json_array_append (self->events, event);
    json_decref (event);
}

static void
s_read (part_t *self, flow_t *flow)
{
    if (flow->size + 65536 > flow->room) {
        flow->room = 2 * flow->room + 131072;
        flow->text = realloc (flow->text, flow->room);
    }
    ssize_t got = read (flow->fd, flow->text + flow->size, 65535);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        close (flow->fd);
        flow->fd = -1;
        return;
    }
    flow->size += (size_t)got;
    flow->text[flow->size] = 0;
    if (flow != &self->out)
        return;
    char *end;
    while ((end = memchr (flow->text + flow->lines, '\n', flow->size - flow->lines))) {
        s_on_line (self, flow->text + flow->lines, (size_t)(end - flow->text) - flow->lines);
        flow->lines = (size_t)(end - flow->text) + 1;
    }
}

static void
s_reap (part_t *self)
{
    if (waitpid (self->pid, &self->status, WNOHANG) == self->pid) {
        close (self->pidfd);
        self->pidfd = -1;
    }
}

//  Waits until anything happens to any part, at most until the deadline. False then.
static bool
s_pump (stage_t *self, int64_t deadline)
{
    struct pollfd fds[3 * MOST_PARTS];
    part_t *whose[3 * MOST_PARTS];
    nfds_t count = 0;
    for (size_t i = 0; i < self->count; i++) {
        part_t *part = self->parts[i];
        int of[3] = {part->out.fd, part->err.fd, part->pidfd};
        for (int k = 0; k < 3; k++) {
            if (of[k] < 0)
                continue;
            whose[count] = part;
            fds[count++] = (struct pollfd){.fd = of[k], .events = POLLIN};
        }
    }
    int64_t left = deadline - tl_clock_ms ();
    if (left < 0)
        return false;
    if (poll (fds, count, (int)left) < 0 && errno != EINTR)
        return false;
    for (nfds_t i = 0; i < count; i++) {
        if (!fds[i].revents)
            continue;
        if (fds[i].fd == whose[i]->out.fd)
            s_read (whose[i], &whose[i]->out);
        else if (fds[i].fd == whose[i]->err.fd)
            s_read (whose[i], &whose[i]->err);
        else
            s_reap (whose[i]);
    }
    return true;
}

static bool
s_over (const part_t *self)
{
    return self->pidfd < 0 && self->out.fd < 0 && self->err.fd < 0;
}

//  --- waiting

void
stage_listen (stage_t *self)
{
    s_pump (self, tl_clock_ms ());
}

bool
part_is (const json_t *event, const char *name)
{
    const char *is = json_string_value (json_object_get (event, "event"));
    return is && strcmp (is, name) == 0;
}

int64_t
part_int (const json_t *event, const char *key)
{
    return json_integer_value (json_object_get (event, key));
}

const char *
part_text (const json_t *event, const char *key)
{
    const char *text = json_string_value (json_object_get (event, key));
    return text ? text : "";
}

static const json_t *
s_wait_event (part_t *self, const char *event, const char *key, int64_t least, const char *text)
{
    int64_t deadline = tl_clock_ms () + DEADLINE_MS;
    for (;;) {
        while (self->cursor < json_array_size (self->events)) {
            const json_t *it = json_array_get (self->events, self->cursor++);
            if (part_is (it, event) && (!key || (text ? strcmp (part_text (it, key), text) == 0
                                                      : part_int (it, key) >= least)))
                return it;
        }
        if (s_over (self) || !s_pump (self->stage, deadline))
            stage_fail (self->stage, "%s never said \"%s\" with %s of %s%lld", self->title, event,
                        key ? key : "anything", text ? text : "at least ", (long long)least);
    }
}

const json_t *
part_event (part_t *self, const char *event, const char *key, int64_t least)
{
    return s_wait_event (self, event, key, least, NULL);
}

const json_t *
part_event_of (part_t *self, const char *event, const char *key, const char *text)
{
    return s_wait_event (self, event, key, 0, text);
}

const char *
part_log (part_t *self, const char *words)
{
    int64_t deadline = tl_clock_ms () + DEADLINE_MS;
    for (;;) {
        char *found = self->err.text ? strstr (self->err.text + self->read, words) : NULL;
        char *end = found ? strchr (found, '\n') : NULL;
        if (end) {
            while (found > self->err.text + self->read && found[-1] != '\n')
                found--;
            self->read = (size_t)(end - self->err.text) + 1;
            return found;
        }
        if (s_over (self) || !s_pump (self->stage, deadline))
            stage_fail (self->stage, "%s never logged \"%s\"", self->title, words);
    }
}

int
part_wait (part_t *self)
{
    int64_t deadline = tl_clock_ms () + DEADLINE_MS;
    while (!s_over (self))
        if (!s_pump (self->stage, deadline))
            stage_fail (self->stage, "%s never ended", self->title);
    return WIFEXITED (self->status) ? WEXITSTATUS (self->status) : 128 + WTERMSIG (self->status);
}

//  --- looking

const char *
part_err (const part_t *self)
{
    return self->err.text ? self->err.text : "";
}

const char *
part_out (const part_t *self)
{
    return self->out.text ? self->out.text : "";
}

const json_t *
part_at (const part_t *self, size_t n)
{
    return json_array_get (self->events, n);
}

size_t
part_count (const part_t *self, const char *event)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size (self->events); i++)
        count += part_is (json_array_get (self->events, i), event);
    return count;
}

bool
part_alive (const part_t *self)
{
    return self->pidfd >= 0 && kill (self->pid, 0) == 0;
}

pid_t
part_pid (const part_t *self)
{
    return self->pid;
}

void
part_kill (const part_t *self, int signal)
{
    if (self->pidfd >= 0)
        kill (self->pid, signal);
}

//  A process's arguments with blanks between them; "" if it is gone.
static void
s_command (pid_t pid, char *text, size_t size)
{
    char path[64];
    snprintf (path, sizeof path, "/proc/%d/cmdline", (int)pid);
    FILE *file = fopen (path, "r");
    size_t got = file ? fread (text, 1, size - 1, file) : 0;
    if (file)
        fclose (file);
    for (size_t i = 0; i < got; i++)
        if (!text[i])
            text[i] = ' ';
    text[got] = 0;
}

//  The first child of pid whose command has these words; 0 if there is none.
static pid_t
s_child (pid_t pid, const char *words)
{
    char path[64], command[2048];
    snprintf (path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *file = fopen (path, "r");
    int child, found = 0;
    while (file && !found && fscanf (file, "%d", &child) == 1) {
        s_command (child, command, sizeof command);
        if (strstr (command, words))
            found = child;
    }
    if (file)
        fclose (file);
    return found;
}

pid_t
part_child (const part_t *self, const char *role, const char *name)
{
    char *words = tl_format ("run %s %s %s", role, self->stage->files->yaml, name);
    pid_t child = s_child (self->pid, words);
    if (!child)
        stage_fail (self->stage, "%s has no child \"%s\"", self->title, words);
    free (words);
    return child;
}

void
stage_wait_gone (pid_t pid)
{
    struct pollfd gone = {.fd = (int)syscall (SYS_pidfd_open, pid, 0), .events = POLLIN};
    poll (&gone, 1, DEADLINE_MS);
    close (gone.fd);
}

void
part_kill_all (part_t *self)
{
    pid_t child;
    part_kill (self, SIGSTOP);
    while ((child = s_child (self->pid, "run "))) {
        kill (child, SIGKILL);
        stage_wait_gone (child);
    }
    part_kill (self, SIGKILL);
    part_wait (self);
}

//  --- starting

static void
s_child_process (const char *program, char *const *argv, const int out[2], const int err[2])
{
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    signal (SIGINT, SIG_DFL); //  a shell's background job has it ignored
    int null = open ("/dev/null", O_RDONLY);
    if (dup2 (null, 0) < 0 || dup2 (out[1], 1) < 0 || dup2 (err[1], 2) < 0)
        _exit (127);
    execv (program, argv);
    _exit (127);
}

static part_t *
s_start (stage_t *self, const char **argv, size_t count, va_list more)
{
    const char *word;
    while ((word = va_arg (more, const char *)) && count < MOST_ARGUMENTS - 1)
        argv[count++] = word;
    argv[count] = NULL;
    const char *program = getenv ("TRUNKLINE");
    if (!program)
        stage_fail (self, "TRUNKLINE is not set: run with ctest, or set it to the program");
    if (self->count == MOST_PARTS)
        stage_fail (self, "too many processes for one stage");
    part_t *part = tl_alloc (sizeof *part);
    self->parts[self->count++] = part;
    part->stage = self;
    part->events = json_array ();
    snprintf (part->title, sizeof part->title, "%s %s %s", argv[1], argv[2],
              count > 4 ? argv[4] : "");
    int out[2], err[2];
    if (pipe2 (out, O_CLOEXEC) || pipe2 (err, O_CLOEXEC))
        stage_fail (self, "no pipe: %s", strerror (errno));
    part->pid = fork ();
    if (part->pid == 0)
        s_child_process (program, (char *const *)argv, out, err);
    close (out[1]);
    close (err[1]);
    part->out.fd = out[0];
    part->err.fd = err[0];
    part->pidfd = (int)syscall (SYS_pidfd_open, part->pid, 0);
    return part;
}

part_t *
stage_up (stage_t *self, ...)
{
    const char *argv[MOST_ARGUMENTS] = {"trunkline", "up", self->files->yaml, "--format", "jsonl"};
    va_list more;
    va_start (more, self);
    part_t *part = s_start (self, argv, 5, more);
    va_end (more);
    return part;
}

part_t *
stage_run (stage_t *self, const char *role, const char *name, ...)
{
    const char *argv[MOST_ARGUMENTS] = {"trunkline", "run", role, self->files->yaml};
    size_t count = 4;
    if (name)
        argv[count++] = name;
    argv[count++] = "--format";
    argv[count++] = "jsonl";
    va_list more;
    va_start (more, name);
    part_t *part = s_start (self, argv, count, more);
    va_end (more);
    return part;
}

part_t *
stage_verb (stage_t *self, const char *verb, ...)
{
    const char *argv[MOST_ARGUMENTS] = {"trunkline", verb, self->files->yaml};
    va_list more;
    va_start (more, verb);
    part_t *part = s_start (self, argv, 3, more);
    va_end (more);
    return part;
}

void
stage_faults (stage_t *self, const char *faults)
{
    const char *program = getenv ("TRUNKLINE_FAULTS");
    if (!program)
        stage_fail (self, "TRUNKLINE_FAULTS is not set: run with ctest, or set it to the program");
    setenv ("TRUNKLINE", program, 1);
    setenv ("TL_FAULTS", faults, 1);
    setenv ("TL_FAULTS_DONE", self->files->directory, 1);
}

//  --- the undisturbed run

static char *
s_adapter (const stage_t *self, const char *run, const char *part)
{
    bool full = self->files->topology->tune.method == TL_METHOD_FULL;
    return tl_format ("%s/%s/%s/adapter/%s.safetensors", self->files->directory, run, part,
                      full ? "model" : "adapter_model");
}

void
stage_undisturbed (stage_t *self, case_step_t *steps)
{
    case_up (self->files, NULL, steps);
    char *from = tl_format ("%s/runs/case", self->files->directory);
    char *to = tl_format ("%s/undisturbed", self->files->directory);
    if (rename (from, to))
        stage_fail (self, "%s: %s", to, strerror (errno));
    free (from);
    free (to);
}

bool
stage_same (const stage_t *self, const char *part)
{
    char *paths[2] = {s_adapter (self, "undisturbed", part), s_adapter (self, "runs/case", part)};
    char *data[2];
    size_t size[2];
    for (int i = 0; i < 2; i++) {
        tl_error_t err;
        data[i] = tl_file_read (paths[i], MOST_FILE, &size[i], &err);
        if (!data[i])
            stage_fail (self, "%s", err.text);
        free (paths[i]);
    }
    bool same = size[0] == size[1] && memcmp (data[0], data[1], size[0]) == 0;
    free (data[0]);
    free (data[1]);
    return same;
}

//  --- life

stage_t *
stage_new (const case_spec_t *spec)
{
    stage_t *self = tl_alloc (sizeof *self);
    //  What loses its parent becomes ours, so that nothing is left unseen
    prctl (PR_SET_CHILD_SUBREAPER, 1);
    self->files = case_new (spec);
    return self;
}

static void
s_check_clean (const stage_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        if (strstr (part_err (self->parts[i]), "Sanitizer") ||
            strstr (part_err (self->parts[i]), "runtime error:") ||
            strstr (part_err (self->parts[i]), "without saying why"))
            stage_fail (self, "%s complains", self->parts[i]->title);
    tl_error_t err;
    char *path = tl_format ("%s/runs/case/trunkline.log", self->files->directory);
    char *log = tl_exists (path) ? tl_file_read (path, MOST_FILE, NULL, &err) : NULL;
    if (log && (strstr (log, "Sanitizer") || strstr (log, "runtime error:") ||
                strstr (log, "without saying why") || strstr (log, "ssertion")))
        stage_fail (self, "a part complains in %s", path);
    free (log);
    free (path);
}

//  Whatever the parts started ends by itself.
static void
s_wait_orphans (const stage_t *self)
{
    int64_t deadline = tl_clock_ms () + DEADLINE_MS;
    pid_t orphan;
    while (waitpid (-1, NULL, WNOHANG) > 0)
        ;
    while ((orphan = s_child (getpid (), ""))) {
        int pidfd = (int)syscall (SYS_pidfd_open, orphan, 0);
        struct pollfd poller = {.fd = pidfd, .events = POLLIN};
        int64_t left = deadline - tl_clock_ms ();
        char command[256];
        s_command (orphan, command, sizeof command);
        if (left <= 0 || (pidfd >= 0 && poll (&poller, 1, (int)left) == 0))
            stage_fail (self, "left behind: %s", command);
        if (pidfd >= 0)
            close (pidfd);
        waitpid (orphan, NULL, WNOHANG);
    }
}

void
stage_end (stage_t **self_p)
{
    stage_t *self = *self_p;
    for (size_t i = 0; i < self->count; i++)
        part_wait (self->parts[i]);
    s_wait_orphans (self);
    s_check_clean (self);
    for (size_t i = 0; i < self->count; i++) {
        part_t *part = self->parts[i];
        json_decref (part->events);
        free (part->out.text);
        free (part->err.text);
        free (part);
    }
    unsetenv ("TL_FAULTS");
    case_destroy (&self->files);
    free (self);
    *self_p = NULL;
}

int
stage_main (int argc, char **argv, const stage_test_t *tests)
{
    for (const stage_test_t *test = tests; test->name; test++) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++)
            wanted |= strcmp (argv[i], test->name) == 0;
        if (!wanted)
            continue;
        int64_t began = tl_clock_ms ();
        test->run ();
        printf ("%-32s %.1f s\n", test->name, (double)(tl_clock_ms () - began) / 1000);
        fflush (stdout);
    }
    return 0;
}
