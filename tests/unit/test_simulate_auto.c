//  auto against the pinned modes, over a grid of simulated settings: workers, clients, cost shapes, slow links, a worker at a
//  quarter of the speed, loads that change. From the third period on (and the third after a change) it does at least 95 % of
//  what the best pinned mode does in the same periods, in every one.

#include "cmocka_all.h"

#include "memory.h"
#include "simulate/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  How a part of a setting is written; %zu is the number of members.
typedef struct {
    const char *name;
    const char *workers, *clients, *rest;
    bool changes; //  at round 100, in the sixth period
} s_shape_t;

static const s_shape_t s_shapes[] = {
    {"20 ms + 10 us a row",
     "{name: w, count: %zu, compute: {base_ms: 20, us_per_row: 10, jitter: 0.03}}",
     "{name: c, count: %zu}", "", false},
    {"rows cost, beginning doesn't",
     "{name: w, count: %zu, compute: {base_ms: 0.5, us_per_row: 60, jitter: 0.03}}",
     "{name: c, count: %zu, compute: {base_ms: 2, us_per_row: 10, jitter: 0.1}}", "", false},
    {"clients think longer than workers",
     "{name: w, count: %zu, compute: {base_ms: 5, us_per_row: 5, jitter: 0.03}}",
     "{name: c, count: %zu, compute: {base_ms: 10, us_per_row: 100, jitter: 0.2}}", "", false},
    {"slow links and portions",
     "{name: w, count: %zu, compute: {base_ms: 2, us_per_row: 20, jitter: 0.03}, link: "
     "{latency_ms: "
     "0.1, mbit_s: 10000}}",
     "{name: c, count: %zu, compute: {base_ms: 2, us_per_row: 10, jitter: 0.1}, link: {latency_ms: "
     "10, mbit_s: 100}}",
     "train: {steps: 200, micros: 4}\n", false},
    {"dear aggregation",
     "{name: w, count: %zu, compute: {base_ms: 3, us_per_row: 10, jitter: 0.03}, link: "
     "{latency_ms: "
     "1, mbit_s: 1000}}",
     "{name: c, count: %zu, compute: {base_ms: 2, us_per_row: 10, jitter: 0.1}}",
     "model: {trunk_mb: 50}\nbroker: {mb_s: 300, us_per_message: 20}\n", false},
    {"one worker at a quarter of the speed",
     "{name: slow, compute: {base_ms: 20, us_per_row: 80, jitter: 0.03}}, {name: w, count: %zu, "
     "compute: {base_ms: 5, us_per_row: 20, jitter: 0.03}}",
     "{name: c, count: %zu, compute: {base_ms: 2, us_per_row: 5, jitter: 0.1}}", "", false},
    {"clients of any size",
     "{name: w, count: %zu, compute: {base_ms: 5, us_per_row: 20, jitter: 0.03}}",
     "{name: c, count: %zu, rows: 96, compute: {base_ms: 2, us_per_row: 5, jitter: 0.1}}, {name: "
     "large, rows: 1024, compute: {base_ms: 2, us_per_row: 20, jitter: 0.1}}",
     "", false},
    {"a worker becomes four times as slow",
     "{name: w, compute: {base_ms: 5, us_per_row: 20, jitter: 0.03, changes_at: 100, changes_by: "
     "4}}, {name: v, count: %zu, compute: {base_ms: 5, us_per_row: 20, jitter: 0.03}}",
     "{name: c, count: %zu, compute: {base_ms: 2, us_per_row: 5, jitter: 0.1}}", "", true},
    {"all workers become twenty times as quick",
     "{name: w, count: %zu, compute: {base_ms: 20, us_per_row: 40, jitter: 0.03, changes_at: 100, "
     "changes_by: 0.05}}",
     "{name: c, count: %zu, compute: {base_ms: 20, us_per_row: 20, jitter: 0.1}}",
     "model: {trunk_mb: 20}\nbroker: {mb_s: 300, us_per_message: 20}\n", true},
    {"clients become slow",
     "{name: w, count: %zu, compute: {base_ms: 10, us_per_row: 20, jitter: 0.03}}",
     "{name: c, count: %zu, compute: {base_ms: 1, us_per_row: 1, jitter: 0.1, changes_at: 100, "
     "changes_by: 50}}",
     "", true},
};

static const size_t s_sizes[][2] = {{1, 1}, {1, 8}, {2, 3}, {4, 8}, {8, 8}, {8, 32}};

//  Rows per second in periods first .. last - 1 of that mode.
static double
s_rate (const char *text, const char *mode, size_t first, size_t last)
{
    char set[64];
    snprintf (set, sizeof set, "schedule.mode=%s", mode);
    const char *const overrides[] = {set};
    tl_error_t err;
    tl_sim_result_t *result = NULL;
    tl_sim_spec_t *spec = tl_sim_spec_parse ("grid", text, strlen (text), overrides, 1, &err);
    if (!spec || tl_sim_run (spec, &result, &err) != 0)
        fail_msg ("%s", err.text);
    assert_int_equal (result->code, 0);
    double rate = tl_sim_rows_s (result, first, last);
    if (getenv ("TL_SHOW") && strcmp (mode, "auto") == 0)
        for (size_t p = 0; p < result->period_count; p++)
            print_message ("        %5.0f: %s\n", tl_sim_rows_s (result, p, p + 1),
                           result->periods[p].text);
    tl_sim_result_destroy (&result);
    tl_sim_spec_destroy (&spec);
    return rate;
}

static void
auto_is_as_fast_as_the_best_mode (void **state)
{
    double least = INFINITY;
    size_t settings = 0, failed = 0;
    for (size_t s = 0; s < sizeof s_shapes / sizeof s_shapes[0]; s++)
        for (size_t n = 0; n < sizeof s_sizes / sizeof s_sizes[0]; n++, settings++) {
            const s_shape_t *shape = &s_shapes[s];
            char text[2048], workers[512], clients[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf (workers, sizeof workers, shape->workers, s_sizes[n][0]);
            snprintf (clients, sizeof clients, shape->clients, s_sizes[n][1]);
#pragma GCC diagnostic pop
            snprintf (text, sizeof text,
                      "version: 1\nname: grid\n%s%sfederate: {every: 20}\nworkers: [%s]\nclients: "
                      "[%s]\n",
                      strstr (shape->rest, "train:") ? "" : "train: {steps: 240}\n", shape->rest,
                      workers, clients);
            const size_t spans[][2] = {{2, shape->changes ? 5 : 12}, {7, 12}};
            for (size_t i = 0; i < (shape->changes ? 2 : 1); i++) {
                double best = 0, rate = s_rate (text, "auto", spans[i][0], spans[i][1]);
                static const char *const modes[] = {"serial", "batch", "fanout"};
                for (size_t m = 0; m < 3; m++)
                    best = fmax (best, s_rate (text, modes[m], spans[i][0], spans[i][1]));
                least = fmin (least, rate / best);
                if (rate >= 0.95 * best)
                    continue;
                failed++;
                print_error ("%s, %zu workers, %zu clients, periods %zu to %zu: expected 95 %% of "
                             "%.0f rows/s, got %.0f\n",
                             shape->name, s_sizes[n][0], s_sizes[n][1], spans[i][0] + 1,
                             spans[i][1], best, rate);
            }
        }
    print_message ("auto over the best pinned mode, worst of %zu settings: %.3f\n", settings,
                   least);
    assert_true (settings >= 24);
    assert_int_equal (failed, 0);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test (auto_is_as_fast_as_the_best_mode)};
    return cmocka_run_group_tests_name ("simulate_auto", tests, NULL, NULL);
}
