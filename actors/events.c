#include "events.h"

#include "base/assert.h"
#include "clock.h"

#include <stdarg.h>

typedef struct {
    void (*take) (void *arg, const json_t *event);
    void *arg;
} tl_sink_t;

static tl_sink_t s_first, s_second;

void
tl_events_to (void (*sink) (void *arg, const json_t *event), void *arg)
{
    s_first = (tl_sink_t){sink, arg};
}

void
tl_events_also (void (*sink) (void *arg, const json_t *event), void *arg)
{
    s_second = (tl_sink_t){sink, arg};
}

bool
tl_events_heard (void)
{
    return s_first.take || s_second.take;
}

void
tl_event (const char *name, const char *format, ...)
{
    if (!tl_events_heard ())
        return;
    va_list args;
    va_start (args, format);
    json_error_t error;
    json_t *event = json_vpack_ex (&error, 0, format, args);
    va_end (args);
    tl_assert (event);
    json_object_set_new (event, "event", json_string (name));
    json_object_set_new (event, "time", json_real ((double)tl_clock_wall_ms () / 1000));
    if (s_first.take)
        s_first.take (s_first.arg, event);
    if (s_second.take)
        s_second.take (s_second.arg, event);
    json_decref (event);
}
