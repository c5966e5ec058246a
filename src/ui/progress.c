#include "ui/progress.h"

#include "clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void
tl_progress_init (tl_progress_t *self)
{
    *self = (tl_progress_t){.terminal = isatty (STDERR_FILENO)};
}

void
tl_progress_line (tl_progress_t *self, bool last, const char *format, ...)
{
    int64_t now = tl_clock_ms (), pause = self->terminal ? 100 : 10000;
    if (!last && self->last_ms && now - self->last_ms < pause)
        return;
    char line[256];
    va_list args;
    va_start (args, format);
    vsnprintf (line, sizeof line, format, args);
    va_end (args);
    if (self->terminal)
        fprintf (stderr, "\r%s\033[K", line);
    else
        fprintf (stderr, "%s\n", line);
    self->open = self->terminal;
    self->last_ms = now;
    if (last)
        tl_progress_end (self);
}

void
tl_progress_end (tl_progress_t *self)
{
    if (self->open)
        fputc ('\n', stderr);
    self->open = false;
}

void
tl_duration (char text[16], double seconds)
{
    if (!(seconds >= 0 && seconds < 3.6e8))
        snprintf (text, 16, "?");
    else if (seconds < 60)
        snprintf (text, 16, "%.0fs", seconds);
    else if (seconds < 3600)
        snprintf (text, 16, "%dm%02ds", (int)seconds / 60, (int)seconds % 60);
    else
        snprintf (text, 16, "%dh%02dm", (int)seconds / 3600, (int)seconds % 3600 / 60);
}
