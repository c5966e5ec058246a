#include "footprint.h"

#include "actors/ask.h"
#include "actors/events.h"
#include "actors/window.h"
#include "clock.h"
#include "log.h"

static double
s_mb (size_t bytes)
{
    return (double)bytes / 1e6;
}

size_t
tl_footprint_client (const tl_topology_t *topology, bool scores, size_t rows, size_t hidden)
{
    return tl_window_held (topology, rows, scores ? TL_ASK_AT_ONCE : 0, hidden);
}

size_t
tl_footprint_worker (const tl_topology_t *topology, size_t rows, size_t hidden)
{
    size_t slices = 0;
    for (size_t i = 0; i < topology->client_count; i++)
        slices += topology->clients[i].eval ? TL_ASK_AT_ONCE : 0;
    return tl_window_held (topology, rows, slices, hidden);
}

void
tl_footprint_begin (tl_footprint_t *self)
{
    self->before = tl_memory_now ();
    self->planned = 0;
}

void
tl_footprint_plan (tl_footprint_t *self, const tl_plan_t *plan, size_t messages)
{
    self->planned = tl_plan_total (plan) + messages;
    tl_info ("memory plan: %.1f MB (weights %.1f, trained %.1f, activations %.1f, workspace %.1f, "
             "saves %.1f, messages %.1f, process %.1f)",
             s_mb (self->planned), s_mb (plan->weights), s_mb (plan->trained),
             s_mb (plan->activations), s_mb (plan->workspace), s_mb (plan->state), s_mb (messages),
             s_mb (plan->process));
    tl_event ("plan", "{sIsIsIsIsIsIsIsI}", "bytes", (json_int_t)self->planned, "weights",
              (json_int_t)plan->weights, "trained", (json_int_t)plan->trained, "activations",
              (json_int_t)plan->activations, "workspace", (json_int_t)plan->workspace, "saves",
              (json_int_t)plan->state, "messages", (json_int_t)messages, "process",
              (json_int_t)plan->process);
}

void
tl_footprint_end (const tl_footprint_t *self)
{
    size_t peak = tl_memory_peak ();
    if (!self->planned || peak < self->before)
        return;
    peak -= self->before;
    tl_info ("memory peak: %.1f MB, %.2f of the plan", s_mb (peak),
             (double)peak / (double)self->planned);
    tl_event ("memory", "{sIsI}", "peak", (json_int_t)peak, "planned", (json_int_t)self->planned);
}
