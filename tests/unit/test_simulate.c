//  The simulation against times worked out by hand, and what its file refuses.

#include "cmocka_all.h"

#include "simulate/plot.h"
#include "simulate/queue.h"
#include "simulate/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tl_sim_result_t *
s_simulate (const char *mode, const char *rest)
{
    char text[2048];
    snprintf (text, sizeof text,
              "version: 1\nname: t\ntrain: {steps: 20, micros: %s}\nschedule: {mode: %s}\n"
              "federate: {every: 20}\ncheckpoint: {every: 1000}\n%s",
              strstr (rest, "#two") ? "2" : "1", mode, rest);
    tl_error_t err;
    tl_sim_spec_t *spec = tl_sim_spec_parse ("t.yaml", text, strlen (text), NULL, 0, &err);
    tl_sim_result_t *result = NULL;
    if (!spec || tl_sim_run (spec, &result, &err) != 0)
        fail_msg ("%s", err.text);
    tl_sim_spec_destroy (&spec);
    return result;
}

//  ms of each of the first period's 20 rounds.
static void
s_expect_round (const char *mode, const char *rest, double expected)
{
    tl_sim_result_t *result = s_simulate (mode, rest);
    double got = (result->periods[0].line - result->periods[0].at) / 20 * 1e3;
    if (fabs (got - expected) > 0.001)
        fail_msg ("%s: expected %.4f ms a round, got %.4f: %s", mode, expected, got, rest);
    tl_sim_result_destroy (&result);
}

#define SYNTHETIC "compute: {base_ms: 20, us_per_row: 10}"

//  A forward and a backward of 20 ms + 10 us for each of the rows that share them.
static void
modes_take_what_arithmetic_says (void **state)
{
    const char *eight =
        "workers: [{name: w, count: 8, " SYNTHETIC "}]\nclients: [{name: c, count: 8}]\n";
    s_expect_round ("serial", eight, 8 * 2 * (20 + 2.56));
    s_expect_round ("batch", eight, 2 * (20 + 8 * 2.56));
    s_expect_round ("fanout", eight, 2 * (20 + 2.56));
    //  A worker at a quarter of the speed gets one of nine clients; the others' groups have two.
    s_expect_round (
        "fanout",
        "workers: [{name: w, count: 4, compute: {us_per_row: 100}}, {name: slow, compute: "
        "{us_per_row: 400}}]\nclients: [{name: c, count: 8}]\n",
        2 * 102.4);
}

//  10 ms each way and 131072 bytes at 100 Mbit/s: four tensors, PLAN there, COMMIT back.
static void
links_take_what_arithmetic_says (void **state)
{
    double tensor = 131072 * 8 / 100e3, commit = 300 * 8 / 100e3;
    s_expect_round ("serial",
                    "workers: [{name: w, " SYNTHETIC
                    "}]\nclients: [{name: c, link: {latency_ms: 10, "
                    "mbit_s: 100}}]\n",
                    10 + 4 * (tensor + 10) + 2 * 22.56 + commit + 10);
    //  Each has a link of its own: together they take no longer, but for the rows.
    s_expect_round ("batch",
                    "workers: [{name: w, " SYNTHETIC "}]\nclients: [{name: c, count: 4, link: "
                    "{latency_ms: 10, mbit_s: 100}}]\n",
                    10 + 4 * (tensor + 10) + 2 * (20 + 4 * 2.56) + commit + 10);
    //  A broker that passes on 100 MB/s: 1.31072 ms for a tensor, one after the other.
    s_expect_round ("batch",
                    "broker: {mb_s: 100}\nworkers: [{name: w, " SYNTHETIC "}]\nclients: [{name: c, "
                    "count: 4}]\n",
                    2 * (20 + 4 * 2.56) + 16 * 1.31072 + 8 * 0.003);
}

//  From the tenth round on all takes three times as long, also updates.
static void
loads_change_with_their_updates (void **state)
{
    s_expect_round ("serial",
                    "workers: [{name: w, compute: {base_ms: 20, update_ms: 10, changes_at: 10, "
                    "changes_by: 3}}]\nclients: [{name: c}]\n",
                    (10 + 3 * 10) * (2 * 20 + 10) / 20.);
}

static double
s_sum (const tl_sim_result_t *result, tl_sim_state_t what)
{
    double sum = 0;
    for (size_t w = 0; w < result->worker_count; w++)
        sum += result->workers[w].seconds[what];
    return sum;
}

//  With credit for one tensor a client sends its second when the first is taken; the worker knows what it waits for.
static void
credit_is_waited_for (void **state)
{
    const char *rest =
        "#two portions\nworkers: [{name: w, compute: {base_ms: 1}, link: {latency_ms: "
        "5}}]\nclients: [{name: c, compute: {base_ms: 1}}]\n";
    char tight[512];
    snprintf (tight, sizeof tight, "wire: {credit_mb: 0.14}\n%s", rest);
    tl_sim_result_t *free_run = s_simulate ("serial", rest), *held = s_simulate ("serial", tight);
    assert_true (s_sum (free_run, TL_SIM_CREDIT) == 0);
    assert_true (s_sum (held, TL_SIM_CREDIT) > 0.1);
    assert_true (held->seconds > free_run->seconds);
    for (size_t i = 0; i < 2; i++) {
        const tl_sim_result_t *r = i ? held : free_run;
        double all = 0;
        for (int s = 0; s < TL_SIM_STATES; s++)
            all += s_sum (r, (tl_sim_state_t)s);
        assert_true (fabs (all - r->seconds) < 1e-6);
    }
    tl_sim_result_destroy (&free_run);
    tl_sim_result_destroy (&held);
}

//  Two portions overlap: while the worker has one, the client has the other.
static void
portions_overlap (void **state)
{
    //  Every job takes 10 ms. The client's six follow one another without a gap; the worker's four fit between them.
    const char *rest =
        "#two\nworkers: [{name: w, compute: {base_ms: 10}}]\nclients: [{name: c, compute: "
        "{base_ms: 10}}]\n";
    s_expect_round ("serial", rest, 60);
}

//  Whatever fails when: every round of every client is trained or the run says why not, and again the same.
static void
failures_end_well_and_repeat (void **state)
{
    static const char rest[] =
        "liveness: {notice_ms: 50}\n"
        "workers: [{name: w, count: 3, " SYNTHETIC ", fails: {every_s: 2, back_s: 0.5}}]\n"
        "clients: [{name: c, count: 5, compute: {base_ms: 3, jitter: 0.5, straggle: 0.1}, fails: "
        "{every_s: 3, back_s: 0.2}}]\n";
    static const char *const modes[] = {"serial",
                                        "batch",
                                        "fanout",
                                        "auto",
                                        "batch, join: window",
                                        "fanout, join: window",
                                        "auto, join: window"};
    for (size_t m = 0; m < sizeof modes / sizeof modes[0]; m++) {
        tl_sim_result_t *a = s_simulate (modes[m], rest), *b = s_simulate (modes[m], rest);
        assert_int_equal (a->code, 0);
        assert_int_equal (a->rounds, 20);
        assert_true (a->lost_workers + a->lost_clients > 0);
        assert_true (a->seconds == b->seconds && a->rows == b->rows && a->events == b->events);
        tl_sim_result_destroy (&a);
        tl_sim_result_destroy (&b);
    }
}

//  When a part is lost and back is the world's, not the schedule's: jobs that draw random numbers, and as good as the same
//  times, change nothing of it.
static void
failures_are_the_same_whatever_is_computed (void **state)
{
    static const char *const jitters[] = {"0", "1e-9"};
    double seconds[2];
    for (size_t i = 0; i < 2; i++) {
        char rest[512];
        snprintf (rest, sizeof rest,
                  "liveness: {notice_ms: 50}\nworkers: [{name: w, count: 3, compute: {base_ms: 20, "
                  "jitter: %s}, fails: {every_s: 2, back_s: 0.5}}]\nclients: [{name: c, count: 5, "
                  "compute: {base_ms: 3, jitter: %s}, fails: {every_s: 3, back_s: 0.2}}]\n",
                  jitters[i], jitters[i]);
        tl_sim_result_t *result = s_simulate ("batch", rest);
        assert_true (result->lost_workers + result->lost_clients > 0);
        seconds[i] = result->seconds;
        tl_sim_result_destroy (&result);
    }
    if (fabs (seconds[0] - seconds[1]) > 1e-3)
        fail_msg ("expected the same failures in both runs, got %.4f and %.4f s", seconds[0],
                  seconds[1]);
}

//  Three quick clients and one whose rows come 300 ms late. A round that waits for it takes its 900 ms of front, tail and
//  back; with windows most steps begin without it. Rows are those of who took part, no more and no fewer.
static void
windows_gain_with_a_straggler (void **state)
{
    static const char *const rests[] = {"", "wire: {credit_mb: 1}\n#two\n"};
    for (size_t i = 0; i < 2; i++) {
        char rest[512];
        snprintf (
            rest, sizeof rest,
            "%sworkers: [{name: w, " SYNTHETIC
            "}]\nclients: [{name: quick, count: 3, compute: {base_ms: 2, jitter: 0.2}}, {name: "
            "slow, rows: 64, compute: {base_ms: 300}}]\n",
            rests[i]);
        tl_sim_result_t *all = s_simulate ("batch", rest),
                        *window = s_simulate ("batch, join: window", rest);
        uint64_t rows = 0;
        for (size_t c = 0; c < 4; c++)
            rows += window->taken[c] * (c < 3 ? 256 : 64) * (i + 1);
        assert_true (rows == window->rows);
        assert_int_equal (all->taken[3], 20);
        assert_true (all->window.without == 0 && window->window.without > 10);
        assert_in_range (window->taken[3], 2, 10);
        assert_non_null (strstr (window->window.last, "of 4 clients"));
        double gain = tl_sim_rows_s (window, 0, 1) / tl_sim_rows_s (all, 0, 1);
        print_message ("%zu micros: %.1f times the rows a second\n", i + 1, gain);
        assert_true (gain > 2);
        tl_sim_result_destroy (&all);
        tl_sim_result_destroy (&window);
    }
}

static void
a_picture_is_whole (void **state)
{
    static const char text[] = "version: 1\nname: t\nworkers: [{name: w, count: 30, " SYNTHETIC
                               "}]\nclients: [{name: c, count: 8}]\n";
    tl_error_t err;
    tl_sim_spec_t *spec = tl_sim_spec_parse ("t.yaml", text, sizeof text - 1, NULL, 0, &err);
    tl_sim_result_t *result;
    assert_int_equal (tl_sim_run (spec, &result, &err), 0);
    char *svg = tl_sim_plot (spec, result);
    assert_int_equal (strncmp (svg, "<svg ", 5), 0);
    assert_string_equal (svg + strlen (svg) - 7, "</svg>\n");
    assert_non_null (strstr (svg, "fanout with 8 groups"));
    assert_null (strstr (svg, "nan"));
    assert_true (strlen (svg) < 400000);
    free (svg);
    tl_sim_result_destroy (&result);
    tl_sim_spec_destroy (&spec);
}

static void
s_refused (const char *text, const char *expected)
{
    tl_error_t err = {0};
    tl_sim_spec_t *spec = tl_sim_spec_parse ("f.yaml", text, strlen (text), NULL, 0, &err);
    if (spec || !strstr (err.text, expected))
        fail_msg ("expected '%s', got '%s'", expected, spec ? "no complaint" : err.text);
    assert_int_equal (err.code, TL_BAD_INPUT);
}

static void
files_are_refused_with_place_and_advice (void **state)
{
    s_refused ("version: 1\nname: t\nworkers: [{name: w}]\n",
               "f.yaml:1:1: clients: the key is missing: expected a list of populations");
    s_refused (
        "version: 1\nname: t\nworkrs: [{name: w}]\nclients: [{name: c}]\n",
        "f.yaml:3:1: 'workrs' is not a key of a simulation; write 'workers' if that was meant");
    s_refused ("version: 1\nname: t\nworkers:\n  - {name: w, compute: {base_ms: fast}}\nclients: "
               "[{name: c}]\n",
               "f.yaml:4:34: workers.0.compute.base_ms: expected milliseconds, at least 0, found "
               "'fast'");
    s_refused ("version: 1\nname: t\nworkers: [{name: w, rows: 3}]\nclients: [{name: c}]\n",
               "'rows' is not a key of workers.0");
    s_refused ("version: 1\nname: t\nworkers: [{name: w, count: 5000}]\nclients: [{name: c}]\n",
               "use at most 4096 in all");
    s_refused ("version: 1\nname: t\nworkers: [w]\nclients: [{name: c}]\n",
               "f.yaml:3:11: workers.0: expected a mapping");
    s_refused (
        "version: 1\nname: t\nworkers: [{name: w, fails: {every_s: 5}}]\nclients: [{name: c}]\n",
        "give some fails.back_s");
    s_refused ("version: 1\nname: t\nworkers: 7\nclients: [{name: c}]\n", "expected a list");
    s_refused (
        "version: 1\nname: t\nschedule: {mode: fast}\nworkers: [{name: w}]\nclients: [{name: "
        "c}]\n",
        "expected auto, serial, batch or fanout, found 'fast'");
    s_refused ("version: 1\nname: t\nschedule: {mode: serial, join: window}\nworkers: [{name: w}]\n"
               "clients: [{name: c}]\n",
               "f.yaml:3:32: schedule.join: window begins a step with the clients that are ready");
}

//  Times beyond all reason end in a sentence, not in arithmetic that overflows.
static void
endless_runs_are_refused (void **state)
{
    static const char *const texts[] = {
        "version: 1\nname: t\nworkers: [{name: w, compute: {base_ms: 1e7, us_per_row: "
        "1e9}}]\nclients: "
        "[{name: c, count: 3, rows: 1048576}]\n",
        "version: 1\nname: t\nworkers: [{name: w}]\nclients: [{name: c, count: 3, link: {mbit_s: "
        "1e-300}}]\n",
        "version: 1\nname: t\nbroker: {mb_s: 1e-300}\nworkers: [{name: w}]\nclients: [{name: c, "
        "count: "
        "50}]\n"};
    for (size_t i = 0; i < 3; i++) {
        tl_error_t err;
        tl_sim_result_t *result = NULL;
        tl_sim_spec_t *spec =
            tl_sim_spec_parse ("t.yaml", texts[i], strlen (texts[i]), NULL, 0, &err);
        assert_non_null (spec);
        assert_int_equal (tl_sim_run (spec, &result, &err), -1);
        assert_non_null (strstr (err.text, "more than 30 years"));
        tl_sim_spec_destroy (&spec);
    }
}

static void
queue_keeps_order (void **state)
{
    tl_sim_queue_t queue = {0};
    tl_sim_event_t event;
    for (uint32_t i = 0; i < 5000; i++)
        tl_sim_queue_put (&queue, (tl_sim_event_t){.at = (i * 7919) % 97, .who = i});
    int64_t at = -1;
    uint32_t who = 0, count = 0;
    while (tl_sim_queue_take (&queue, &event)) {
        assert_true (event.at > at || (event.at == at && event.who > who));
        at = event.at;
        who = event.who;
        count++;
    }
    assert_int_equal (count, 5000);
    tl_sim_queue_release (&queue);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (modes_take_what_arithmetic_says),
        cmocka_unit_test (links_take_what_arithmetic_says),
        cmocka_unit_test (loads_change_with_their_updates),
        cmocka_unit_test (credit_is_waited_for),
        cmocka_unit_test (portions_overlap),
        cmocka_unit_test (failures_end_well_and_repeat),
        cmocka_unit_test (failures_are_the_same_whatever_is_computed),
        cmocka_unit_test (windows_gain_with_a_straggler),
        cmocka_unit_test (a_picture_is_whole),
        cmocka_unit_test (files_are_refused_with_place_and_advice),
        cmocka_unit_test (endless_runs_are_refused),
        cmocka_unit_test (queue_keeps_order),
    };
    return cmocka_run_group_tests_name ("simulate", tests, NULL, NULL);
}
