/*  What `trunkline simulate` takes and how right it is: topology/simulate/ten-thousand.yaml on one core, and six settings that
    are also played by synthetic parts over real processes and sockets. Four runs of parts that compute nothing say before
    what a message and a byte cost on this machine, of one client and of many at a time; of the six the simulation knows nothing but the settings. The error is
    of a period's time.                                                                            */

#include "bench/bench_schedule.h"

#include "bench/bench_crew.h"
#include "bench/bench_run.h"
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

//  What messages and bytes cost where all parts share one machine's cores: whatever is done for several peers at a time
//  is the broker's here, the rest the links'.
typedef struct {
    double latency_ms; //  a message's way over one link
    double link_mb_s;  //  0: nothing is left of a byte's time for it
    double broker_us, broker_mb_s;
} s_machine_t;

//  Seconds of a period as simulated, the second one; 0 if that failed.
static double
s_simulated (const bench_t *self, const s_machine_t *machine, const s_setting_t *it)
{
    tl_error_t err;
    double peer = 8 * machine->link_mb_s; //  Mbit/s
    char *path = tl_format ("%s/simulate.yaml", self->stage.dir);
    char *text = tl_format (
        "version: 1\nname: s\nmodel: {hidden: %d, trunk_mb: 0.001}\ntrain: {steps: %d}\n"
        "schedule: {mode: %s}\nfederate: {every: %d}\ncheckpoint: {every: 1000000}\n"
        "broker: {mb_s: %g, us_per_message: %g}\n"
        "workers:\n  - {name: w, count: %zu, compute: {base_ms: %g, us_per_row: %g}, link: "
        "{latency_ms: %g, mbit_s: %g}}\n"
        "clients:\n  - {name: c, count: %zu, rows: %zu, compute: {base_ms: %g}, link: {latency_ms: "
        "%g, mbit_s: %g}}\n",
        HIDDEN, ROUNDS, it->mode, EVERY, machine->broker_mb_s, machine->broker_us, it->workers,
        it->base_ms, it->us_per_row, machine->latency_ms, peer, it->clients, it->rows, it->think_ms,
        machine->latency_ms + it->rtt_ms / 2,
        it->rtt_ms > 0 ? 1 / (0.01 + (peer > 0 ? 1 / peer : 0)) : peer);
    char *command = tl_format ("'%s' simulate '%s' --format json 2>> '%s'", self->stage.trunkline,
                               path, self->stage.log);
    FILE *output =
        tl_file_write (path, text, strlen (text), 0644, &err) ? NULL : popen (command, "r");
    json_t *result = output ? json_loadf (output, 0, NULL) : NULL;
    const json_t *period = json_array_get (json_object_get (result, "periods"), 1);
    double seconds = json_number_value (json_object_get (period, "seconds"));
    if (output)
        pclose (output);
    json_decref (result);
    free (command);
    free (text);
    free (path);
    return seconds;
}

//  Seconds of the middle one of its periods after the first, from the last step of one to the last of the next: others may
//  use the machine as well. 0 if the run failed.
static double
s_played (const bench_t *self, const play_t *spec)
{
    played_t result;
    play (&self->stage, spec, &result);
    double ends[ROUNDS / EVERY] = {0}, each[ROUNDS / EVERY];
    for (size_t i = 0; i < result.count; i++)
        if (result.closed[i].round < ROUNDS)
            ends[result.closed[i].round / EVERY] =
                fmax (ends[result.closed[i].round / EVERY], result.closed[i].at);
    for (size_t p = 1; p < ROUNDS / EVERY; p++)
        each[p - 1] = ends[p] - ends[p - 1];
    double seconds = result.good ? bench_quantile (each, ROUNDS / EVERY - 1, 0.5) : 0;
    played_clear (&result);
    return seconds;
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
    return s_played (self, &spec);
}

//  Seconds of a round of so many clients without compute.
static double
s_round (const bench_t *self, size_t clients, size_t rows)
{
    play_t spec = {.name = "calibrate",
                   .mode = clients > 1 ? "batch" : "serial",
                   .workers = 1,
                   .clients = clients,
                   .rounds = ROUNDS,
                   .every = EVERY,
                   .rows = rows,
                   .hidden = HIDDEN,
                   .loads = clients > 1 ? 2 : 1};
    return s_played (self, &spec) / EVERY;
}

//  A step of one client is 12 messages over a link each, 6 of them through the broker, and four tensors. Of one client with
//  hardly a row and with 512, and of eight.
static int
s_machine (const bench_t *self, s_machine_t *machine)
{
    enum { CLIENTS = 8, FEW = 8, MANY = 512, LINKS = 12, MESSAGES = 6 };
    double mb = 4.0 * (MANY - FEW) * HIDDEN * 2 / 1e6;
    double one = s_round (self, 1, FEW), one_large = s_round (self, 1, MANY);
    double all = s_round (self, CLIENTS, FEW), all_large = s_round (self, CLIENTS, MANY);
    if (one <= 0 || one_large <= one || all <= one || all_large <= all)
        return -1;
    double byte = (one_large - one) / mb, byte_at_once = (all_large - all) / mb / CLIENTS;
    machine->broker_us = (all - one) * 1e6 / (CLIENTS - 1) / MESSAGES;
    machine->latency_ms = fmax (0, (one * 1e3 - MESSAGES * machine->broker_us / 1e3) / LINKS);
    machine->broker_mb_s = 1 / byte_at_once;
    machine->link_mb_s = byte > byte_at_once ? 2 / (byte - byte_at_once) : 0;
    fprintf (stderr,
             "simulate: %.3f ms a message and link, %.0f us at the broker; %.0f MB/s of one tensor "
             "after another, %.0f of several at a time\n",
             machine->latency_ms, machine->broker_us, 1 / byte, machine->broker_mb_s);
    return 0;
}

void
bench_schedule_simulate (bench_t *self)
{
    json_t *detail = json_array ();
    double worst = 0;
    size_t good = 0;
    s_machine_t machine;
    s_large (self);
    if (s_machine (self, &machine) != 0) {
        bench_skip (self, "simulate_error", "a run without compute failed; look into the log");
        return;
    }
    for (size_t i = 0; i < SETTINGS; i++) {
        const s_setting_t *it = &s_settings[i];
        double simulated = s_simulated (self, &machine, it);
        double measured = simulated > 0 ? s_measured (self, it) : 0;
        json_array_append_new (
            detail, json_pack ("{sssIsIsIsfsfsfsfsfsf}", "mode", it->mode, "workers",
                               (json_int_t)it->workers, "clients", (json_int_t)it->clients, "rows",
                               (json_int_t)it->rows, "base_ms", it->base_ms, "us_per_row",
                               it->us_per_row, "think_ms", it->think_ms, "rtt_ms", it->rtt_ms,
                               "simulated_s", simulated, "measured_s", measured));
        fprintf (stderr, "%s, %zu workers, %zu clients: %.3f s a period simulated, %.3f measured\n",
                 it->mode, it->workers, it->clients, simulated, measured);
        if (simulated <= 0 || measured <= 0)
            continue;
        double error = fabs (simulated / measured - 1);
        worst = error > worst ? error : worst;
        good++;
    }
    json_object_set_new (self->detail, "simulate",
                         json_pack ("{sfsfsfsfso}", "latency_ms", machine.latency_ms, "link_mb_s",
                                    machine.link_mb_s, "broker_us", machine.broker_us,
                                    "broker_mb_s", machine.broker_mb_s, "settings", detail));
    if (good == SETTINGS)
        bench_put (self, "simulate_error", worst);
    else
        bench_skip (self, "simulate_error", "not every setting could be simulated and played");
}
