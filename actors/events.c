#include "events.h"

#include "base/assert.h"
#include "clock.h"

#include <stdarg.h>

static void (*s_sink) (void *arg, const json_t *event);
static void *s_arg;

void
tl_events_to (void (*sink) (void *arg, const json_t *event), void *arg)
{
    s_sink = sink;
    s_arg = arg;
}

void
tl_event (const char *name, const char *format, ...)
{
    if (!s_sink)
        return;
    va_list args;
    va_start (args, format);
    json_error_t error;
    json_t *event = json_vpack_ex (&error, 0, format, args);
    va_end (args);
    tl_assert (event);
    json_object_set_new (event, "event", json_string (name));
    json_object_set_new (event, "time", json_real ((double)tl_clock_wall_ms () / 1000));
    s_sink (s_arg, event);
    json_decref (event);
}
