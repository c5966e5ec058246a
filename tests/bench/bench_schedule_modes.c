//  Schedules of synthetic parts: serial, batch and fanout with 8 workers and 8 clients.

#include "bench/bench_schedule.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = 20, ROWS = 256, HIDDEN = 256 };

double
bench_rate (bench_t *self, const play_t *spec, uint64_t first, json_t *detail)
{
    played_t result;
    play (&self->stage, spec, &result);
    double rate = result.good ? played_rate (&result, first) : 0;
    json_object_set_new (detail, spec->mode,
                         json_pack ("{sfsfsI}", "rows_s", rate, "round_ms",
                                    1e3 * played_round (&result, first), "steps",
                                    (json_int_t)result.count));
    fprintf (stderr, "%s %s: %.0f rows/s\n", spec->name, spec->mode, rate);
    played_clear (&result);
    return rate;
}

void
bench_schedule_modes (bench_t *self)
{
    static const char *const modes[] = {"serial", "batch", "fanout"};
    json_t *detail = json_object ();
    double rates[3];
    for (size_t i = 0; i < 3; i++) {
        play_t spec = {.name = "modes",
                       .mode = modes[i],
                       .workers = i == 2 ? 8 : 1,
                       .clients = 8,
                       .rounds = EVERY * (self->quick ? 2
                                          : i         ? 6
                                                      : 3),
                       .every = EVERY,
                       .rows = ROWS,
                       .hidden = HIDDEN,
                       .base_ms = 20,
                       .us_per_row = 10,
                       .loads = 2};
        rates[i] = bench_rate (self, &spec, EVERY, detail);
    }
    json_object_set_new (self->detail, "modes", detail);
    if (rates[0] > 0 && rates[1] > 0)
        bench_put (self, "batch8_over_serial", rates[1] / rates[0]);
    else
        bench_skip (self, "batch8_over_serial", "a run failed; look into the log");
    if (rates[0] > 0 && rates[2] > 0)
        bench_put (self, "fanout8_over_serial", rates[2] / rates[0]);
    else
        bench_skip (self, "fanout8_over_serial", "a run failed; look into the log");
}
