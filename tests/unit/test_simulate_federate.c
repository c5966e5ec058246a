//  What several hold, in the simulation: sums, averages, quorum and deadline, split: none, against times worked out by hand.

#include "cmocka_all.h"

#include "simulate/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  Forty rounds in two periods. A job of a worker takes 20 ms and 10 us a row; the aggregator takes 5 ms and 2 for each MB.
#define WORLD                                                                                      \
    "version: 1\nname: t\ntrain: {steps: 40, micros: %s}\ncheckpoint: {every: 1000, save_ms: 5}\n" \
    "aggregator: {base_ms: 5, ms_per_mb: 2}\n%s"
#define WORKER "workers: [{name: w, compute: {base_ms: 20, us_per_row: 10}}]\n"

static tl_sim_result_t *
s_simulate (const char *rest)
{
    char text[2048];
    snprintf (text, sizeof text, WORLD, strstr (rest, "#two") ? "2" : "1", rest);
    tl_error_t err;
    tl_sim_spec_t *spec = tl_sim_spec_parse ("t.yaml", text, strlen (text), NULL, 0, &err);
    tl_sim_result_t *result = NULL;
    if (!spec || tl_sim_run (spec, &result, &err) != 0)
        fail_msg ("%s: %s", err.text, rest);
    tl_sim_spec_destroy (&spec);
    return result;
}

static void
s_near (const char *what, double got, double expected)
{
    if (fabs (got - expected) > 0.001)
        fail_msg ("%s: expected %.4f ms, got %.4f", what, expected, got);
}

//  ms of each of the first period's 20 rounds.
static double
s_round (const tl_sim_result_t *result)
{
    return (result->periods[0].line - result->periods[0].at) / 20 * 1e3;
}

//  ms from the first line to the next period's first step.
static double
s_line (const tl_sim_result_t *result)
{
    return (result->periods[0].end - result->periods[0].line) * 1e3;
}

//  --- sync -------------------------------------------------------------------------------------

//  A gradient is a third of 3 MB: 80 ms at 100 Mbit/s to the broker, the same back, and 10 ms each way.
static void
a_step_waits_for_the_sum_of_its_gradients (void **state)
{
    const char *rest =
        "model: {client_mb: 3}\nschedule: {mode: batch}\nfederate: {clients: sync}\n" WORKER
        "clients: [{name: c, count: 2, link: {latency_ms: 10, mbit_s: 100}}]\n";
    double tensor = 131072 * 8 / 100e3, commit = 300 * 8 / 100e3;
    double step = 10 + 4 * (tensor + 10) + 2 * (20 + 2 * 2.56) + commit + 10;
    tl_sim_result_t *result = s_simulate (rest);
    s_near ("a round", s_round (result), step + 80 + 10 + (5 + 2 * 2) + 80 + 10);
    assert_int_equal (result->merged.sums, 40);
    assert_int_equal (result->merged.averages, 0);
    tl_sim_result_destroy (&result);
}

//  10 ms for a gradient of 1 MB at 100 MB/s: two come, two copies of the sum go, one after the other.
static void
sums_pass_through_the_broker (void **state)
{
    tl_sim_result_t *result =
        s_simulate ("model: {client_mb: 3}\nbroker: {mb_s: 100}\nschedule: {mode: batch}\n"
                    "federate: {clients: sync}\n" WORKER "clients: [{name: c, count: 2}]\n");
    s_near ("a round", s_round (result),
            2 * (20 + 2 * 2.56) + 8 * 1.31072 + 4 * 0.003 + 2 * 10 + (5 + 2 * 2) + 2 * 10);
    tl_sim_result_destroy (&result);
}

//  Whoever comes back gets a copy of what all have; the step that it left is summed without it.
static void
a_client_comes_back_to_a_shared_adapter (void **state)
{
    tl_sim_result_t *result = s_simulate (
        "schedule: {mode: batch}\nfederate: {clients: sync, every: 100}\nliveness: {notice_ms: "
        "50}\n" WORKER
        "clients: [{name: c, count: 2}, {name: frail, fails: {every_s: 1, back_s: 0.2}}]\n");
    assert_int_equal (result->code, 0);
    assert_int_equal (result->rounds, 40);
    assert_true (result->lost_clients > 0);
    assert_in_range (result->merged.averages, 1, result->lost_clients);
    assert_int_equal (result->merged.sums, 40);
    assert_in_range (result->taken[2], 1, 39);
    assert_int_equal (result->taken[0], 40);
    tl_sim_result_destroy (&result);
}

//  --- averages ---------------------------------------------------------------------------------

//  5 MB each: 400 ms at 100 Mbit/s, there and back; then the save.
static void
an_average_takes_what_arithmetic_says (void **state)
{
    const char *rest =
        "model: {client_mb: 5}\n%sschedule: {mode: batch}\nfederate: {clients: average}\n" WORKER
        "clients: [{name: c, count: 2, link: {latency_ms: 10%s}}]\n";
    char text[512];
    snprintf (text, sizeof text, rest, "", ", mbit_s: 100");
    tl_sim_result_t *result = s_simulate (text);
    s_near ("the line", s_line (result),
            (10 + 400 + 10) + (5 + 2 * 10) + (400 + 10 + 10) + (10 + 5 + 10));
    assert_int_equal (result->merged.averages, 2);
    assert_int_equal (result->merged.without, 0);
    tl_sim_result_destroy (&result);
    //  A broker of 100 MB/s: 50 ms for each, one after the other.
    snprintf (text, sizeof text, rest, "broker: {mb_s: 100}\n", "");
    result = s_simulate (text);
    s_near ("the line", s_line (result),
            (10 + 2 * 50 + 10) + (5 + 2 * 10) + (2 * 50 + 10 + 10) + (10 + 5 + 10));
    tl_sim_result_destroy (&result);
}

//  Two groups; one worker's replica of 5 MB takes 4 s to come. With a deadline of a second the other group goes on.
#define SLOW_WORKER(federate)                                                                      \
    "model: {trunk_mb: 5}\nschedule: {mode: fanout}\nfederate: {" federate "}\n"                   \
    "workers: [{name: w, compute: {base_ms: 20}}, {name: far, compute: {base_ms: 20}, link: "      \
    "{mbit_s: 10}}]\nclients: [{name: c, count: 2}]\n"

static void
a_deadline_goes_on_without_a_late_replica (void **state)
{
    const struct {
        const char *rest;
        double line;
        uint64_t missing;
    } cases[] = {
        {SLOW_WORKER ("every: 20"), 4000 + (5 + 2 * 10) + 5, 0},
        {SLOW_WORKER ("every: 20, deadline_s: 1"), 1000 + (5 + 2 * 5) + 5, 2},
        {SLOW_WORKER ("every: 20, deadline_s: 1, quorum: 2"), 4000 + (5 + 2 * 10) + 5, 0},
        {SLOW_WORKER ("every: 20, deadline_s: 5"), 4000 + (5 + 2 * 10) + 5, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tl_sim_result_t *result = s_simulate (cases[i].rest);
        s_near (cases[i].rest, s_line (result), cases[i].line);
        assert_int_equal (result->merged.missing, cases[i].missing);
        assert_int_equal (result->merged.averages, 2);
        assert_int_equal (result->rounds, 40);
        tl_sim_result_destroy (&result);
    }
}

//  The average is made without the far client's adapter, but the next step waits until it has the average: 4 s there.
static void
a_deadline_spares_only_the_way_of_a_late_adapter (void **state)
{
    const char *rest =
        "model: {client_mb: 5}\nschedule: {mode: batch}\nfederate: {clients: "
        "average%s}\n" WORKER "clients: [{name: c, count: 2}, {name: far, link: {mbit_s: 10}}]\n";
    char text[512];
    snprintf (text, sizeof text, rest, "");
    tl_sim_result_t *all = s_simulate (text);
    s_near ("without a deadline", s_line (all), 4000 + (5 + 2 * 15) + 4000 + 5);
    snprintf (text, sizeof text, rest, ", deadline_s: 1, quorum: 2");
    tl_sim_result_t *late = s_simulate (text);
    s_near ("with a deadline", s_line (late), 1000 + (5 + 2 * 10) + 4000 + 5);
    assert_int_equal (all->merged.without, 0);
    assert_int_equal (late->merged.without, 2);
    assert_int_equal (late->merged.missing, 2);
    tl_sim_result_destroy (&all);
    tl_sim_result_destroy (&late);
}

//  It is lost while its adapter is on its way, for 800 s.
static void
fewer_than_the_quorum_end_the_run (void **state)
{
    const char *rest = "model: {client_mb: 1000}\nschedule: {mode: batch}\nfederate: {clients: "
                       "average, quorum: %d}\n" WORKER
                       "clients: [{name: c}, {name: frail, fails: {every_s: 30}, link: "
                       "{mbit_s: 10}}]\n";
    char text[512];
    snprintf (text, sizeof text, rest, 2);
    tl_sim_result_t *result = s_simulate (text);
    assert_int_equal (result->code, TL_FAILED);
    assert_non_null (strstr (result->text, "the clients' adapters of step 20 could not be made "
                                           "one: 1 good part came, expected at least 2"));
    tl_sim_result_destroy (&result);
    snprintf (text, sizeof text, rest, 1);
    result = s_simulate (text);
    assert_int_equal (result->code, 0);
    assert_int_equal (result->merged.missing, 1);
    assert_int_equal (result->rounds, 40);
    tl_sim_result_destroy (&result);
}

//  The quick group stands at the line and its replica is with the aggregator when the slow one's worker is lost for good:
//  its worker takes the slow group over and gives that replica, too, and its own group repeats nothing.
static void
a_worker_brings_two_replicas (void **state)
{
    tl_sim_result_t *result = s_simulate (
        "schedule: {mode: fanout}\nfederate: {every: 40}\n"
        "workers: [{name: w, compute: {base_ms: 1}}, {name: slow, compute: {base_ms: 100}, fails: "
        "{every_s: 4}}]\nclients: [{name: c, count: 2}]\n");
    assert_int_equal (result->code, 0);
    assert_int_equal (result->lost_workers, 1);
    assert_int_equal (result->merged.averages, 1);
    assert_int_equal (result->merged.missing, 0);
    uint64_t least = result->taken[0] < result->taken[1] ? result->taken[0] : result->taken[1];
    uint64_t most = result->taken[0] < result->taken[1] ? result->taken[1] : result->taken[0];
    assert_int_equal (least, 40);
    assert_in_range (most, 41, 79);
    tl_sim_result_destroy (&result);
}

//  --- split: none ------------------------------------------------------------------------------

//  Two micros of 6 x 10 ms, then COMMIT; the next PLAN waits for the update of 3 ms. No rows travel, and no trunk.
static void
clients_train_alone (void **state)
{
    tl_sim_result_t *result = s_simulate (
        "#two\nmodel: {trunk_mb: 1000, client_mb: 5}\nsplit: none\nschedule: {mode: batch}\n"
        "federate: {clients: average}\nworkers: [{name: w, compute: {base_ms: 20, update_ms: 50}, "
        "link: {mbit_s: 1}}]\nclients: [{name: c, count: 2, compute: {base_ms: 10, whole: 6, "
        "update_ms: 3}, link: {latency_ms: 10, mbit_s: 100}}]\n");
    double commit = 300 * 8 / 100e3, down = 300 * 8 / 1e3;
    s_near ("a round", s_round (result), 10 + 2 * 60 + commit + 10 + 2 * down + 3 * 19 / 20.);
    s_near ("the line", s_line (result),
            (13 + 400 + 10) + (5 + 2 * 10) + (400 + 10 + 10) + (10 + 5 + 10));
    assert_int_equal (result->rows, 40 * 2 * 2 * 256);
    assert_true (result->workers[0].seconds[TL_SIM_BUSY] == 0);
    tl_sim_result_destroy (&result);
}

//  --- chance -----------------------------------------------------------------------------------

//  Whatever fails when: the run ends well, and again the same.
static void
failures_end_well_and_repeat (void **state)
{
    static const char *const settings[] = {
        "schedule: {mode: batch}\nfederate: {clients: sync, every: 7}\n",
        "schedule: {mode: batch}\nfederate: {clients: average, every: 7, deadline_s: 0.02}\n",
        ("schedule: {mode: batch, join: window}\n"
         "federate: {clients: average, every: 7, deadline_s: 0.02, quorum: 2}\n"),
        "schedule: {mode: fanout}\nfederate: {clients: average, every: 7, deadline_s: 0.02}\n",
        "schedule: {mode: fanout, join: window}\nfederate: {every: 7, deadline_s: 0.01}\n",
        "schedule: {mode: auto}\nfederate: {clients: average, every: 7, deadline_s: 0.02}\n",
        "split: none\nschedule: {mode: batch}\nfederate: {clients: average, every: 7}\n",
    };
    for (size_t s = 0; s < sizeof settings / sizeof settings[0]; s++)
        for (int seed = 1; seed <= 40; seed++) {
            bool one = strstr (settings[s], "split") != NULL;
            char rest[1024];
            snprintf (rest, sizeof rest,
                      "seed: %d\n%sliveness: {notice_ms: 50}\nworkers: [{name: w, count: %d, "
                      "compute: {base_ms: 20, us_per_row: 10}, link: {latency_ms: 1, mbit_s: 500}, "
                      "fails: {every_s: 2, back_s: 0.5}}]\nclients: [{name: c, count: 5, compute: "
                      "{base_ms: 3, jitter: 0.5, straggle: 0.1, whole: 8}, link: {latency_ms: 2, "
                      "mbit_s: 100}, fails: {every_s: 3, back_s: 0.2}}]\n",
                      seed, settings[s], one ? 1 : 3);
            tl_sim_result_t *a = s_simulate (rest), *b = s_simulate (rest);
            bool few = strstr (settings[s], "quorum") && a->code == TL_FAILED;
            if (few ? !strstr (a->text, "lower federate.quorum") : a->code || a->rounds != 40)
                fail_msg ("%s: code %d after %llu rounds: %s", rest, a->code,
                          (unsigned long long)a->rounds, a->text);
            assert_true (a->lost_workers + a->lost_clients > 0);
            assert_true (a->seconds == b->seconds && a->rows == b->rows && a->events == b->events);
            tl_sim_result_destroy (&a);
            tl_sim_result_destroy (&b);
        }
}

//  --- refusals ---------------------------------------------------------------------------------

static void
s_refused (const char *rest, const char *expected)
{
    char text[1024];
    snprintf (text, sizeof text, "version: 1\nname: t\n%s%s%s", rest,
              strstr (rest, "workers") ? "" : "workers: [{name: w}]\n",
              strstr (rest, "clients: [") ? "" : "clients: [{name: c, count: 2}]\n");
    tl_error_t err = {0};
    tl_sim_spec_t *spec = tl_sim_spec_parse ("f.yaml", text, strlen (text), NULL, 0, &err);
    if (spec || !strstr (err.text, expected))
        fail_msg ("expected '%s', got '%s'", expected, spec ? "no complaint" : err.text);
    assert_int_equal (err.code, TL_BAD_INPUT);
}

#define NONE "split: none\nschedule: {mode: batch}\nfederate: {clients: average}\n"

static void
what_has_no_meaning_is_refused (void **state)
{
    s_refused ("federate: {clients: sync}\n",
               "f.yaml:3:21: federate.clients: sync makes one gradient of all clients of a step");
    s_refused ("schedule: {mode: batch, join: window}\nfederate: {clients: sync}\n",
               "schedule.join: federate.clients sync sums the gradients");
    s_refused ("federate: {deadline_s: 3}\n", "federate.deadline_s: nothing is averaged");
    s_refused ("federate: {quorum: 2}\n", "federate.quorum: nothing is averaged");
    s_refused ("schedule: {mode: batch}\nfederate: {clients: sync, quorum: 2}\n",
               "federate.quorum: nothing is averaged");
    s_refused ("schedule: {mode: batch}\nfederate: {clients: sync, deadline_s: 3}\n",
               "federate.deadline_s: nothing is averaged");
    s_refused ("federate: {clients: average, quorum: 3}\n", "3 parts can't come from 2 clients");
    s_refused ("split: none\n", "split: with none each client trains a whole model");
    s_refused ("split: none\nfederate: {clients: average}\n", "there is no trunk to share out");
    s_refused (NONE "workers: [{name: w, count: 2}]\n", "one worker keeps the time");
    s_refused ("split: none\nschedule: {mode: batch, join: window}\nfederate: {clients: average}\n",
               "no client waits for another");
    s_refused (NONE "wire: {credit_mb: 1}\n", "wire.credit_mb: with split none no rows travel");
    s_refused (NONE, "clients.0.compute.whole: with split none a client has all of the model");
    s_refused ("split: {front: 1, tail: 1}\n", "split: expected cut or none");
    s_refused ("workers: [{name: w, compute: {changes_by: 4}}]\n",
               "f.yaml:3:43: workers.0.compute.changes_by: without compute.changes_at it has no "
               "effect");
    s_refused ("workers: [{name: w, compute: {changes_at: 4}}]\n", "without compute.changes_by");
    s_refused ("clients: [{name: a}, {name: c, compute: {slower: 4}}]\n",
               "clients.1.compute.slower: without compute.straggle");
    s_refused ("clients: [{name: c, fails: {back_s: 4}}]\n", "without fails.every_s");
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (a_step_waits_for_the_sum_of_its_gradients),
        cmocka_unit_test (sums_pass_through_the_broker),
        cmocka_unit_test (a_client_comes_back_to_a_shared_adapter),
        cmocka_unit_test (an_average_takes_what_arithmetic_says),
        cmocka_unit_test (a_deadline_goes_on_without_a_late_replica),
        cmocka_unit_test (a_deadline_spares_only_the_way_of_a_late_adapter),
        cmocka_unit_test (fewer_than_the_quorum_end_the_run),
        cmocka_unit_test (a_worker_brings_two_replicas),
        cmocka_unit_test (clients_train_alone),
        cmocka_unit_test (failures_end_well_and_repeat),
        cmocka_unit_test (what_has_no_meaning_is_refused),
    };
    return cmocka_run_group_tests_name ("simulate_federate", tests, NULL, NULL);
}
