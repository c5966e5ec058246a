#include "waiting.h"

#include "actors/events.h"
#include "log.h"

void
tl_waiting_mark (tl_waiting_t *self, tl_waiting_kind_t kind, int64_t now)
{
    if (self->since && now - self->since < 2000 * TL_WAITING_TICK_MS)
        self->us[self->now] += now - self->since;
    self->now = kind;
    self->since = now;
}

void
tl_waiting_tell (const tl_waiting_t *self, const char *name)
{
    double seconds[TL_WAITING_KINDS], all = 0;
    for (int i = 0; i < TL_WAITING_KINDS; i++)
        all += seconds[i] = (double)self->us[i] * 1e-6;
    if (!self->since || all <= 0)
        return;
    tl_info ("computed %.1f s of %.1f; waited %.1f s for input, %.1f s for commits, %.1f s for "
             "credit",
             seconds[TL_COMPUTING], all, seconds[TL_WAITING_INPUT], seconds[TL_WAITING_COMMIT],
             seconds[TL_WAITING_CREDIT]);
    tl_event ("idle", "{sssfsfsfsf}", "name", name, "computing", seconds[TL_COMPUTING], "input",
              seconds[TL_WAITING_INPUT], "commit", seconds[TL_WAITING_COMMIT], "credit",
              seconds[TL_WAITING_CREDIT]);
}
