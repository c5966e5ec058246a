#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const s_names[] = {"error", "warn", "info", "debug"};
static char s_name[64];
static _Thread_local const char *s_who;
static int s_level = -1;
static void (*s_sink) (void *arg, const char *line);
static void *s_arg;

void
tl_log_name (const char *name)
{
    snprintf (s_name, sizeof s_name, "%s", name);
}

void
tl_log_of (const char *who)
{
    s_who = who;
}

const char *
tl_log_who (void)
{
    return s_who;
}

void
tl_log_level (tl_log_level_t level)
{
    s_level = (int)level;
}

void
tl_log_to (void (*sink) (void *arg, const char *line), void *arg)
{
    s_sink = sink;
    s_arg = arg;
}

static int
s_level_of_environment (void)
{
    const char *wanted = getenv ("TL_LOG");
    for (int level = TL_LOG_ERROR; wanted && level <= TL_LOG_DEBUG; level++)
        if (strcmp (wanted, s_names[level]) == 0)
            return level;
    return TL_LOG_INFO;
}

void
tl_log (tl_log_level_t level, const char *format, ...)
{
    if (s_level < 0)
        s_level = s_level_of_environment ();
    if ((int)level > s_level)
        return;
    char line[2048];
    struct timespec now;
    struct tm local;
    clock_gettime (CLOCK_REALTIME, &now);
    localtime_r (&now.tv_sec, &local);
    int used = (int)strftime (line, sizeof line, "%H:%M:%S", &local);
    used += snprintf (line + used, sizeof line - (size_t)used, ".%03ld %-5s %s%s%s%s",
                      now.tv_nsec / 1000000, s_names[level], s_name, *s_name ? ": " : "",
                      s_who ? s_who : "", s_who ? ": " : "");
    va_list args;
    va_start (args, format);
    int text = vsnprintf (line + used, sizeof line - (size_t)used - 1, format, args);
    va_end (args);
    used += text < 0 ? 0 : text;
    if (used > (int)sizeof line - 2)
        used = sizeof line - 2;
    if (s_sink) {
        line[used] = 0;
        s_sink (s_arg, line);
        return;
    }
    line[used++] = '\n';
    //  One write a line, so that lines of several processes never mix.
    if (write (STDERR_FILENO, line, (size_t)used) < 0)
        return;
}
