/*  What `trunkline simulate` takes and how right it is: topology/simulate/ten-thousand.yaml on one core, and six settings that
    are also played by synthetic parts over real processes and sockets. The error is of label tokens a second.  */

#include "bench/bench_schedule.h"

#include "bench/bench_crew.h"
#include "file.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY = 20, ROUNDS = 60, HIDDEN = 256 };

typedef struct {
    const char *mode;
    size_t workers, clients, rows;
    double base_ms, us_per_row, think_ms, rtt_ms;
} s_setting_t;

static const s_setting_t s_settings[] = {
    {"serial", 1, 4, 256, 20, 10, 0, 0}, {"batch", 1, 4, 256, 20, 10, 0, 0},
    {"batch", 1, 8, 64, 10, 40, 5, 0},   {"fanout", 2, 8, 256, 20, 10, 0, 0},
    {"fanout", 4, 8, 128, 10, 40, 5, 0}, {"batch", 1, 4, 256, 20, 10, 0, 20},
};

enum { SETTINGS = sizeof s_settings / sizeof *s_settings };

static void
s_large (bench_t *self)
{
    const char *argv[] = {self->stage.trunkline, "simulate", "topology/simulate/ten-thousand.yaml",
                          NULL};
    crew_t *crew = crew_new (self->stage.log, NULL, NULL);
    crew_start (crew, "simulate", 1, argv);
    if (crew_wait (crew, self->stage.patience))
        bench_put (self, "simulate_s", crew_cpu (crew, "simulate"));
    else
        bench_skip (self, "simulate_s", "trunkline simulate failed; look into the log");
    crew_destroy (&crew);
}

//  Label tokens a second as simulated; 0 if that failed.
static double
s_simulated (const bench_t *self, const s_setting_t *it)
{
    tl_error_t err;
    char *path = tl_format ("%s/simulate.yaml", self->stage.dir);
    char *text = tl_format (
        "version: 1\nname: s\nmodel: {hidden: %d, trunk_mb: 0.2}\ntrain: {steps: %d}\n"
        "schedule: {mode: %s}\nfederate: {every: %d}\n"
        "workers:\n  - {name: w, count: %zu, compute: {base_ms: %g, us_per_row: %g}}\n"
        "clients:\n  - {name: c, count: %zu, rows: %zu, compute: {base_ms: %g}, link: {latency_ms: "
        "%g, mbit_s: %d}}\n",
        HIDDEN, ROUNDS, it->mode, EVERY, it->workers, it->base_ms, it->us_per_row, it->clients,
        it->rows, it->think_ms, it->rtt_ms / 2, it->rtt_ms > 0 ? 100 : 0);
    char *command = tl_format ("'%s' simulate '%s' --format json 2>> '%s'", self->stage.trunkline,
                               path, self->stage.log);
    FILE *output =
        tl_file_write (path, text, strlen (text), 0644, &err) ? NULL : popen (command, "r");
    json_t *result = output ? json_loadf (output, 0, NULL) : NULL;
    double rate = json_number_value (json_object_get (result, "rows_s"));
    if (output)
        pclose (output);
    json_decref (result);
    free (command);
    free (text);
    free (path);
    return rate;
}

static double
s_measured (const bench_t *self, const s_setting_t *it)
{
    play_t spec = {.name = "calibrate",
                   .mode = it->mode,
                   .workers = it->workers,
                   .clients = it->clients,
                   .rounds = ROUNDS,
                   .every = EVERY,
                   .rows = it->rows,
                   .hidden = HIDDEN,
                   .base_ms = it->base_ms,
                   .us_per_row = it->us_per_row,
                   .think_ms = it->think_ms,
                   .rtt_ms = it->rtt_ms,
                   .mbit_s = 100,
                   .loads = 2};
    played_t result;
    play (&self->stage, &spec, &result);
    double rate = result.good ? played_rate (&result, EVERY) : 0;
    played_clear (&result);
    return rate;
}

void
bench_schedule_simulate (bench_t *self)
{
    json_t *detail = json_array ();
    double worst = 0;
    size_t good = 0;
    s_large (self);
    for (size_t i = 0; i < SETTINGS; i++) {
        const s_setting_t *it = &s_settings[i];
        double simulated = s_simulated (self, it);
        double measured = simulated > 0 ? s_measured (self, it) : 0;
        json_array_append_new (
            detail, json_pack ("{sssIsIsIsfsfsfsfsfsf}", "mode", it->mode, "workers",
                               (json_int_t)it->workers, "clients", (json_int_t)it->clients, "rows",
                               (json_int_t)it->rows, "base_ms", it->base_ms, "us_per_row",
                               it->us_per_row, "think_ms", it->think_ms, "rtt_ms", it->rtt_ms,
                               "simulated_rows_s", simulated, "measured_rows_s", measured));
        fprintf (stderr, "%s, %zu workers, %zu clients: %.0f rows/s simulated, %.0f measured\n",
                 it->mode, it->workers, it->clients, simulated, measured);
        if (simulated <= 0 || measured <= 0)
            continue;
        double error = fabs (measured / simulated - 1); //  of time
        worst = error > worst ? error : worst;
        good++;
    }
    json_object_set_new (self->detail, "simulate", detail);
    if (good == SETTINGS)
        bench_put (self, "simulate_error", worst);
    else
        bench_skip (self, "simulate_error", "not every setting could be simulated and played");
}
