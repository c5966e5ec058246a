/*  Many synthetic clients on one broker, CURVE on, batch: how many MB/s of payload pass through it beside a bare
    forwarder of CURVE sockets, how many messages of 64 bytes, what it holds in memory, how soon it answers a PING.  */

#include "bench/bench_schedule.h"

#include "bench/bench_run.h"
#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLIENTS = 1000,
    LOADS = 4,
    TENSORS = 4, //  of a client's step, each 1 MiB: there and back, twice
    RELAYED = 6, //  messages of it that pass through: those and COMMIT, COMMITTED
    ROWS = 512,
    HIDDEN = 1024 //  of 2 bytes: 1 MiB
};

//  True if each client made every step, and every step counted every client.
static bool
s_accounted (const play_t *spec, const played_t *result)
{
    uint64_t all = spec->clients * spec->rounds;
    bool good = result->good && result->count == spec->rounds && result->client_steps == all &&
                result->least_steps == spec->rounds && result->most_steps == spec->rounds;
    for (size_t i = 0; i < result->count; i++)
        good = good && result->closed[i].labels == spec->clients * spec->rows;
    return good;
}

static play_t
s_spec (const bench_t *self, const char *name, size_t rows, size_t hidden, uint64_t rounds)
{
    return (play_t){.name = name,
                    .mode = "batch",
                    .workers = 1,
                    .clients = self->clients ? self->clients : CLIENTS,
                    .rounds = rounds,
                    .rows = rows,
                    .hidden = hidden,
                    .loads = LOADS,
                    //  Who shares two cores with a thousand others may be late without being lost
                    .settings = "liveness: {ping_ms: 5000, expire_ms: 60000}\n"};
}

static void
s_on_bare (void *arg, const char *line, double at)
{
    json_t *object = json_loads (line, 0, NULL);
    json_t *rate = json_object_get (object, "MB_per_s");
    if (rate)
        *(double *)arg = json_number_value (rate);
    json_decref (object);
}

//  MB/s of the forwarder without anything of ours; 0 if it isn't there.
static double
s_bare (bench_t *self)
{
    double rate = 0;
    char *program = tl_format ("%s/build/zmq_curve", self->peers ? self->peers : "../shared/peers");
    const char *argv[] = {program,   "--mode",  "broker", "--curve",   "--size",
                          "1048576", "--peers", "8",      "--seconds", self->quick ? "0.5" : "2",
                          NULL};
    bench_usage_t usage;
    if (tl_exists (program))
        bench_run (argv, self->stage.log, s_on_bare, &rate, &usage);
    free (program);
    return rate;
}

static void
s_large (bench_t *self, json_t *detail)
{
    play_t spec = s_spec (self, "load", ROWS, HIDDEN, self->quick ? 2 : 4);
    played_t result;
    double before = s_bare (self);
    play (&self->stage, &spec, &result);
    double after = s_bare (self), bare = (before + after) / 2;
    double tokens = played_rate (&result, 1);
    double mb_s = tokens / ROWS * TENSORS * ROWS * HIDDEN * 2 / 1e6;
    //  What the broker granted all clients: both tensors of a step each way, and a chunk.
    double credit = (double)spec.clients * (3.0 * ROWS * HIDDEN * 2 + 65536) / 1e6;
    bool good = s_accounted (&spec, &result);
    json_object_set_new (detail, "large",
                         json_pack ("{sIsIsbsfsfsfsf}", "clients", (json_int_t)spec.clients,
                                    "client_steps", (json_int_t)result.client_steps, "accounted",
                                    good, "bare_before_mb_s", before, "bare_after_mb_s", after,
                                    "broker_credit_mb", credit, "broker_cpu_s",
                                    result.broker_cpu_s));
    json_object_set_new (self->result, "steps_accounted", json_boolean (good));
    if (good) {
        bench_put (self, "steps", (double)result.client_steps);
        bench_put (self, "mb_s", mb_s);
        bench_put (self, "broker_memory_mb", result.broker_mb);
        bench_put (self, "broker_memory_over_credit", result.broker_mb / credit);
    } else
        bench_skip (self, "mb_s", "the run failed or lost steps; look into the log");
    if (good && bare > 0)
        bench_put (self, "mb_s_over_bare", mb_s / bare);
    else if (bare > 0)
        bench_skip (self, "mb_s_over_bare", "the run failed or lost steps; look into the log");
    else
        bench_skip (self, "mb_s_over_bare",
                    "TL_PEERS names no folder with build/zmq_curve; say make there");
    played_clear (&result);
}

static void
s_small (bench_t *self, json_t *detail)
{
    play_t spec = s_spec (self, "small", 1, 32, self->quick ? 10 : 40);
    played_t result;
    play (&self->stage, &spec, &result);
    double steps = played_rate (&result, 1); //  a step has one label
    bool good = s_accounted (&spec, &result);
    json_object_set_new (detail, "small",
                         json_pack ("{sIsbsf}", "client_steps", (json_int_t)result.client_steps,
                                    "accounted", good, "broker_cpu_s", result.broker_cpu_s));
    if (good)
        bench_put (self, "messages_s_64b", RELAYED * steps);
    else
        bench_skip (self, "messages_s_64b", "the run failed or lost steps; look into the log");
    played_clear (&result);
}

//  Those who load it have one core, so that a late answer is the broker's own.
static void
s_ping (bench_t *self, json_t *detail)
{
    play_t spec = s_spec (self, "ping", ROWS, HIDDEN, self->quick ? 2 : 3);
    spec.ping = true;
    spec.client_cpus = spec.worker_cpus = 2;
    played_t result;
    play (&self->stage, &spec, &result);
    json_object_set_new (
        detail, "ping",
        json_pack ("{sIsf}", "pings", (json_int_t)result.pings, "p50_ms", result.ping_p50_ms));
    if (result.good && result.pings)
        bench_put (self, "ping_p99_ms", result.ping_p99_ms);
    else
        bench_skip (self, "ping_p99_ms", "the run failed; look into the log");
    played_clear (&result);
}

void
bench_schedule_load (bench_t *self)
{
    json_t *detail = json_object ();
    s_large (self, detail);
    s_small (self, detail);
    s_ping (self, detail);
    json_object_set_new (self->detail, "load", detail);
}
