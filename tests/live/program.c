//  program: see program.h.

#include "live/program.h"

#include "file.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_WORDS = 64, MOST_ERRORS = 1 << 22 };

struct program {
    const case_t *of;
    char *words;  //  as given, for messages
    char *errors; //  file of its standard error
    pid_t pid;
    int out;          //  its standard output
    pthread_t thread; //  reads it, so that the program never waits for the test
    pthread_mutex_t lock;
    pthread_cond_t more; //  text has grown, or is over
    char *text;          //  [size] what came so far, a NUL behind it
    size_t size, taken;  //  bytes; of them handed out as lines
    bool over;
};

static void *
s_read (void *arg)
{
    program_t *self = arg;
    char bytes[4096];
    for (ssize_t got; (got = read (self->out, bytes, sizeof bytes)) > 0;) {
        pthread_mutex_lock (&self->lock);
        char *longer = realloc (self->text, self->size + (size_t)got + 1);
        if (!longer)
            abort ();
        memcpy (longer + self->size, bytes, (size_t)got);
        self->size += (size_t)got;
        longer[self->size] = 0;
        self->text = longer;
        pthread_cond_signal (&self->more);
        pthread_mutex_unlock (&self->lock);
    }
    pthread_mutex_lock (&self->lock);
    self->over = true;
    pthread_cond_signal (&self->more);
    pthread_mutex_unlock (&self->lock);
    return NULL;
}

static char *
s_errors (const program_t *self)
{
    tl_error_t err;
    char *text = tl_file_read (self->errors, MOST_ERRORS, NULL, &err);
    return text ? text : tl_strdup (err.text);
}

static void
s_exec (const program_t *self, const char *program, char *words, int out)
{
    char *arguments[MOST_WORDS] = {"trunkline"};
    size_t count = 1;
    for (char *word; (word = strsep (&words, " ")) && count + 1 < MOST_WORDS;)
        if (*word)
            arguments[count++] = word;
    int errors = open (self->errors, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    prctl (PR_SET_PDEATHSIG, SIGTERM); //  a test that ends leaves nothing running
    if (errors >= 0 && dup2 (out, STDOUT_FILENO) >= 0 && dup2 (errors, STDERR_FILENO) >= 0)
        execv (program, arguments);
    _exit (127);
}

program_t *
program_start (const case_t *of, const char *words)
{
    static int s_number;
    const char *program = getenv ("TRUNKLINE");
    if (!program)
        case_fail (of, "TRUNKLINE is not set: run with ctest, or set it to the program");
    program_t *self = tl_alloc (sizeof *self);
    self->of = of;
    self->words = tl_strdup (words);
    self->errors = tl_format ("%s/%d.err", of->directory, ++s_number);
    int out[2];
    if (pipe2 (out, O_CLOEXEC))
        case_fail (of, "no pipe: %s", strerror (errno));
    self->pid = fork ();
    if (self->pid < 0)
        case_fail (of, "no process: %s", strerror (errno));
    if (self->pid == 0)
        s_exec (self, program, tl_strdup (words), out[1]);
    close (out[1]);
    self->out = out[0];
    self->text = tl_strdup ("");
    pthread_mutex_init (&self->lock, NULL);
    pthread_cond_init (&self->more, NULL);
    if (pthread_create (&self->thread, NULL, s_read, self))
        case_fail (of, "no thread");
    return self;
}

static json_t *
s_line (program_t *self)
{
    pthread_mutex_lock (&self->lock);
    char *end;
    while (!(end = strchr (self->text + self->taken, '\n')) && !self->over)
        pthread_cond_wait (&self->more, &self->lock);
    char *line =
        end ? strndup (self->text + self->taken, (size_t)(end - self->text) - self->taken) : NULL;
    self->taken += line ? strlen (line) + 1 : 0;
    pthread_mutex_unlock (&self->lock);
    if (!line)
        case_fail (self->of, "'%s' ended before it told what was waited for:\n%s", self->words,
                   s_errors (self));
    json_error_t error;
    json_t *json = json_loads (line, 0, &error);
    if (!json)
        case_fail (self->of, "'%s' prints no JSON (%s): %s", self->words, error.text, line);
    free (line);
    return json;
}

static bool
s_is (const json_t *line, const char *key, const char *value)
{
    const char *found = json_string_value (json_object_get (line, key));
    return !value || (found && strcmp (found, value) == 0);
}

json_t *
program_event (program_t *self, const char *event, const char *part)
{
    for (;;) {
        json_t *line = s_line (self);
        if (s_is (line, "event", event) && s_is (line, "part", part))
            return line;
        json_decref (line);
    }
}

void
program_signal (program_t *self, int number)
{
    kill (self->pid, number);
}

static bool
s_child_is (long pid, const char *text)
{
    char path[64], line[4096];
    snprintf (path, sizeof path, "/proc/%ld/cmdline", pid);
    FILE *file = fopen (path, "r");
    size_t size = file ? fread (line, 1, sizeof line - 1, file) : 0;
    if (file)
        fclose (file);
    line[size] = 0;
    for (size_t i = 0; i < size; i++)
        if (!line[i])
            line[i] = ' ';
    return strstr (line, text) != NULL;
}

void
program_kill_child (program_t *self, const char *text, int number)
{
    char path[96];
    snprintf (path, sizeof path, "/proc/%d/task/%d/children", (int)self->pid, (int)self->pid);
    FILE *file = fopen (path, "r");
    long pid, found = 0;
    while (file && fscanf (file, "%ld", &pid) == 1)
        if (s_child_is (pid, text))
            found = pid;
    if (file)
        fclose (file);
    if (!found)
        case_fail (self->of, "'%s' has no child '%s'", self->words, text);
    kill ((pid_t)found, number);
}

char *
program_end (program_t **self_p, int code, const char *pattern)
{
    program_t *self = *self_p;
    pthread_join (self->thread, NULL);
    char *text = tl_strdup (self->text + self->taken);
    int status = -1;
    while (waitpid (self->pid, &status, 0) < 0 && errno == EINTR)
        ;
    int got = WIFEXITED (status) ? WEXITSTATUS (status) : -WTERMSIG (status);
    char *errors = s_errors (self);
    if (got != code)
        case_fail (self->of, "'%s' ended with %d, expected %d:\n%s%s", self->words, got, code, text,
                   errors);
    if (pattern && !strstr (text, pattern) && !strstr (errors, pattern))
        case_fail (self->of, "'%s' says nothing like '%s':\n%s%s", self->words, pattern, text,
                   errors);
    if (strstr (errors, "Sanitizer") || strstr (errors, "runtime error:"))
        case_fail (self->of, "'%s': a sanitizer complains:\n%s", self->words, errors);
    free (errors);
    close (self->out);
    free (self->text);
    pthread_mutex_destroy (&self->lock);
    pthread_cond_destroy (&self->more);
    unlink (self->errors);
    free (self->errors);
    free (self->words);
    free (self);
    *self_p = NULL;
    return text;
}

char *
program_run (const case_t *of, int code, const char *pattern, const char *words)
{
    program_t *program = program_start (of, words);
    return program_end (&program, code, pattern);
}
