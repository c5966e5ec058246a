/*  auto against the best pinned mode, over a grid of settings: with parts that only wait, and with tiny-glm. A rate is label
    tokens a second over whole periods, aggregation included, after the first ones.                  */

#include "bench/bench_schedule.h"

#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 256, PERIOD = 10, WARM = 2, MEASURED = 6, CHANGE = 4 };

//  One place of the grid.
typedef struct {
    size_t workers, clients;
    double base_ms, us_per_row, last_is, think_ms, rtt_ms;
    bool changes; //  in the middle the last worker becomes four times as slow
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

enum { SETTINGS = sizeof s_grid / sizeof *s_grid };

static const char *const s_pinned[] = {"serial", "batch", "fanout"};
enum { PINNED = 3 };

static double
s_play_setting (bench_t *self, size_t index, const char *mode, json_t *detail)
{
    const s_setting_t *it = &s_grid[index];
    char name[32];
    snprintf (name, sizeof name, "auto-%zu", index + 1);
    uint64_t measured = self->quick ? 2 : MEASURED;
    uint64_t first = it->changes ? CHANGE + 2 : WARM; //  period: the third after the change
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
    return bench_rate (self, &spec, first * PERIOD, detail);
}

void
bench_schedule_auto (bench_t *self)
{
    json_t *settings = json_object (), *details = json_object ();
    double worst = 1e9;
    for (size_t i = 0; i < SETTINGS; i++) {
        json_t *detail = json_object ();
        double best = 0;
        for (size_t k = 0; k < PINNED; k++) {
            double rate = s_play_setting (self, i, s_pinned[k], detail);
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

//  --- tiny-glm ---------------------------------------------------------------------------------

//  Rows a second of that mode with so many real parts; 0 if the run failed.
static double
s_play_tiny (bench_t *self, size_t workers, size_t clients, const char *mode, const char *data,
             json_t *detail)
{
    enum { LENGTH = 32 };
    play_t spec = {.name = "tiny",
                   .mode = mode,
                   .workers = workers,
                   .clients = clients,
                   .rounds = (WARM + (self->quick ? 2 : MEASURED)) * PERIOD,
                   .every = PERIOD,
                   .micros = 1,
                   .rows = ROWS,
                   .sequences = ROWS / LENGTH,
                   .model = "models/tiny-glm",
                   .data = data,
                   .settings = "tune: {method: lora, rank: 8, alpha: 16, dropout: 0}\n"};
    return bench_rate (self, &spec, WARM * PERIOD, detail);
}

//  With one client batch is serial, with one worker or client fanout is batch: a mode by another name would only give chance a
//  second throw at being the best.
static bool
s_differs (size_t mode, size_t workers, size_t clients)
{
    return mode == 0 || mode == PINNED || (clients > 1 && (mode == 1 || workers > 1));
}

//  Each mode once in every turn, since what the machine gives changes meanwhile; the rate of a mode is the mean of its turns.
static double
s_tiny_setting (bench_t *self, size_t workers, size_t clients, const char *data, json_t *details)
{
    size_t turns = self->quick ? 1 : 5;
    double rates[PINNED + 1] = {0}, best = 0;
    json_t *all = json_array ();
    for (size_t i = 0; i < turns; i++) {
        json_t *detail = json_object ();
        for (size_t k = 0; k <= PINNED; k++) {
            size_t mode = i % 2 ? PINNED - k : k;
            if (!s_differs (mode, workers, clients))
                continue;
            double rate = s_play_tiny (self, workers, clients,
                                       mode < PINNED ? s_pinned[mode] : "auto", data, detail);
            rates[mode] = rate > 0 && (i == 0 || rates[mode] > 0) ? rates[mode] + rate : 0;
        }
        json_array_append_new (all, detail);
    }
    for (size_t k = 0; k < PINNED; k++)
        best = rates[k] > best ? rates[k] : best;
    char name[64];
    snprintf (name, sizeof name, "%zu workers, %zu clients", workers, clients);
    json_object_set_new (details, name, all);
    return best > 0 ? rates[PINNED] / best : 0;
}

void
bench_schedule_tiny (bench_t *self)
{
    static const size_t clients[] = {1, 2, 4, 8};
    if (!tl_exists ("models/tiny-glm/model.safetensors")) {
        bench_skip (self, "auto_tiny_over_best_min", "models/tiny-glm has no weights");
        return;
    }
    char *data = bench_words (self);
    json_t *settings = json_object (), *details = json_object ();
    double worst = 1e9;
    for (size_t i = 0; i < 8; i++) {
        size_t workers = 1 + i / 4;
        double ratio = s_tiny_setting (self, workers, clients[i % 4], data, details);
        char name[64];
        snprintf (name, sizeof name, "%zu workers, %zu clients", workers, clients[i % 4]);
        json_object_set_new (settings, name, json_real (ratio));
        worst = ratio < worst ? ratio : worst;
    }
    free (data);
    json_object_set_new (self->result, "auto_tiny_over_best", settings);
    json_object_set_new (self->detail, "tiny", details);
    if (worst > 0)
        bench_put (self, "auto_tiny_over_best_min", worst);
    else
        bench_skip (self, "auto_tiny_over_best_min", "a run failed; look into the log");
}
