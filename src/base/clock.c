#include "clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t
s_now_us (clockid_t clock)
{
    struct timespec now;
    clock_gettime (clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t
tl_clock_us (void)
{
    return s_now_us (CLOCK_MONOTONIC);
}

int64_t
tl_clock_ms (void)
{
    return s_now_us (CLOCK_MONOTONIC) / 1000;
}

int64_t
tl_clock_wall_ms (void)
{
    return s_now_us (CLOCK_REALTIME) / 1000;
}

//  Value of a "Name:   123 kB" line of /proc/self/status, in bytes; 0 if it isn't there.
static size_t
s_status_bytes (const char *name)
{
    FILE *file = fopen ("/proc/self/status", "re");
    if (!file)
        return 0;
    char line[256];
    size_t length = strlen (name), kib = 0;
    while (fgets (line, sizeof line, file))
        if (strncmp (line, name, length) == 0 && sscanf (line + length, ": %zu kB", &kib) == 1)
            break;
    fclose (file);
    return kib * 1024;
}

size_t
tl_memory_peak (void)
{
    return s_status_bytes ("VmHWM");
}

size_t
tl_memory_now (void)
{
    return s_status_bytes ("VmRSS");
}
