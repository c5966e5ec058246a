/*  Schedules of synthetic parts: serial, batch and fanout with 8 workers and 8 clients; auto against the best pinned mode
    over a grid of settings. A rate is label tokens a second over whole periods, aggregation included, after the first ones.  */

#include "bench/bench_schedule.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = 20, ROWS = 256, HIDDEN = 256 };

//  Label tokens a second from that round on; 0 if the run failed.
static double
s_rate (bench_t *self, const play_t *spec, uint64_t first, json_t *detail)
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
        rates[i] = s_rate (self, &spec, EVERY, detail);
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

//  --- auto -------------------------------------------------------------------------------------

//  One place of the grid.
typedef struct {
    size_t workers, clients;
    double base_ms, us_per_row, last_is, think_ms, rtt_ms;
    bool changes; //  in the middle workers become four times as fast a row and slower a call
} s_setting_t;

static const s_setting_t s_grid[] = {
    {1, 1, 20, 10, 0, 0, 0, false},  {1, 4, 20, 10, 0, 0, 0, false},
    {1, 4, 1, 80, 0, 0, 0, false},   {1, 8, 5, 20, 0, 0, 0, false},
    {1, 16, 10, 5, 0, 0, 0, false},  {1, 32, 20, 2, 0, 0, 0, false},
    {2, 1, 20, 10, 0, 0, 0, false},  {2, 2, 20, 10, 0, 0, 0, false},
    {2, 4, 20, 10, 0, 0, 0, false},  {2, 4, 1, 80, 0, 0, 0, false},
    {2, 8, 5, 40, 0, 20, 0, false},  {2, 8, 20, 10, 4, 0, 0, false},
    {2, 16, 20, 5, 0, 0, 0, false},  {4, 4, 20, 10, 0, 0, 0, false},
    {4, 4, 5, 40, 4, 0, 0, false},   {4, 8, 20, 10, 0, 0, 0, false},
    {4, 8, 20, 10, 4, 0, 0, false},  {4, 16, 10, 10, 0, 10, 0, false},
    {4, 4, 20, 10, 0, 0, 20, false}, {2, 8, 20, 10, 0, 0, 20, false},
    {8, 8, 20, 10, 0, 0, 0, false},  {8, 8, 20, 10, 4, 0, 0, false},
    {8, 32, 20, 2, 0, 0, 0, false},  {8, 4, 5, 40, 0, 0, 0, false},
    {4, 8, 20, 10, 0, 0, 0, true},   {2, 4, 5, 40, 0, 0, 0, true},
};

enum { SETTINGS = sizeof s_grid / sizeof *s_grid, PERIOD = 10, WARM = 2, MEASURED = 6, CHANGE = 4 };

static double
s_play_setting (bench_t *self, size_t index, const char *mode, json_t *detail)
{
    const s_setting_t *it = &s_grid[index];
    char name[32];
    snprintf (name, sizeof name, "auto-%zu", index + 1);
    uint64_t measured = self->quick ? 2 : MEASURED;
    uint64_t first = it->changes ? CHANGE + 3 : WARM; //  period
    play_t spec = {.name = name,
                   .mode = mode,
                   .workers = it->workers,
                   .clients = it->clients,
                   .rounds = (first + measured) * PERIOD,
                   .every = PERIOD,
                   .rows = ROWS,
                   .hidden = 64,
                   .base_ms = it->base_ms,
                   .us_per_row = it->us_per_row,
                   .last_is = it->last_is,
                   .think_ms = it->think_ms,
                   .changes_at = it->changes ? CHANGE * PERIOD : 0,
                   .changes_by = 4,
                   .rtt_ms = it->rtt_ms,
                   .mbit_s = 100,
                   .loads = it->clients < 4 ? 1 : 2};
    return s_rate (self, &spec, first * PERIOD, detail);
}

void
bench_schedule_auto (bench_t *self)
{
    static const char *const pinned[] = {"serial", "batch", "fanout"};
    json_t *settings = json_object (), *details = json_object ();
    double worst = 1e9;
    for (size_t i = 0; i < SETTINGS; i++) {
        json_t *detail = json_object ();
        double best = 0;
        for (size_t k = 0; k < 3; k++) {
            double rate = s_play_setting (self, i, pinned[k], detail);
            best = rate > best ? rate : best;
        }
        double own = s_play_setting (self, i, "auto", detail);
        char name[200];
        snprintf (name, sizeof name, "%zu workers, %zu clients, %g ms + %g us%s%s%s%s",
                  s_grid[i].workers, s_grid[i].clients, s_grid[i].base_ms, s_grid[i].us_per_row,
                  s_grid[i].last_is > 0 ? ", one at a quarter" : "",
                  s_grid[i].think_ms > 0 ? ", thinking" : "", s_grid[i].rtt_ms > 0 ? ", far" : "",
                  s_grid[i].changes ? ", changing" : "");
        json_object_set_new (details, name, detail);
        if (best <= 0 || own <= 0)
            continue;
        json_object_set_new (settings, name, json_real (own / best));
        worst = own / best < worst ? own / best : worst;
    }
    size_t measured = json_object_size (settings);
    json_object_set_new (self->result, "auto_over_best", settings);
    json_object_set_new (self->result, "auto_settings", json_integer ((json_int_t)measured));
    json_object_set_new (self->detail, "auto", details);
    if (measured == SETTINGS)
        bench_put (self, "auto_over_best_min", worst);
    else
        bench_skip (self, "auto_over_best_min", "not every setting could be played; see the log");
}
