/*  simulate: a run that is not run: populations of workers and clients from a YAML file, the program's own scheduler, and
    times in place of work. Prints what would be: rows per second, what workers wait for, every decision.  */

#include "cli/verbs.h"

#include "file.h"
#include "simulate/plot.h"
#include "simulate/sim.h"
#include "ui/json.h"
#include "ui/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *svg; //  --svg
    bool compare;    //  --compare
} s_options_t;

static const char *const s_modes[] = {"serial", "batch", "fanout", "auto"};
static const char *const s_insides[] = {"serial", "batched", "alternate"};

static double
s_rate (const tl_sim_result_t *r)
{
    return r->seconds > 0 ? (double)r->rows / r->seconds : 0;
}

//  --- JSON -------------------------------------------------------------------------------------

//  Shares of all these workers' time.
static json_t *
s_json_times (const tl_sim_result_t *r, size_t first, size_t count)
{
    double sums[TL_SIM_STATES] = {0}, all = 0;
    for (size_t w = first; w < first + count; w++)
        for (int s = 0; s < TL_SIM_STATES; s++) {
            sums[s] += r->workers[w].seconds[s];
            all += r->workers[w].seconds[s];
        }
    json_t *times = json_object ();
    for (int s = 0; s < TL_SIM_STATES; s++)
        json_object_set_new (times, tl_sim_state_names[s], json_real (all > 0 ? sums[s] / all : 0));
    return times;
}

static json_t *
s_json_period (const tl_sim_period_t *p)
{
    double seconds = p->end - p->at;
    return json_pack ("{s:I, s:f, s:f, s:f, s:I, s:f, s:f, s:I, s:s, s:b, s:b, s:s}", "round",
                      (json_int_t)p->round, "at_s", p->at, "seconds", seconds, "line_s",
                      p->end - p->line, "rows", (json_int_t)p->rows, "rows_s",
                      seconds > 0 ? (double)p->rows / seconds : 0, "predicted_rows_s", p->predicted,
                      "groups", (json_int_t)p->groups, "inside", s_insides[p->inside], "changed",
                      p->changed, "probing", p->probing, "why", p->text);
}

//  Share of the steps that a member of that population of clients was in, on average.
static double
s_taken (const tl_sim_spec_t *spec, const tl_sim_result_t *r, size_t kind)
{
    size_t first = 0;
    double sum = 0;
    for (size_t k = 0; k < kind; k++)
        first += spec->clients[k].count;
    for (size_t i = first; i < first + spec->clients[kind].count; i++)
        sum += (double)r->taken[i];
    return r->rounds ? sum / (double)spec->clients[kind].count / (double)r->rounds : 0;
}

static json_t *
s_json_window (const tl_sim_spec_t *spec, const tl_sim_result_t *r)
{
    json_t *clients = json_array ();
    for (size_t k = 0; k < spec->client_kinds; k++)
        json_array_append_new (clients, json_pack ("{s:s, s:f}", "name", spec->clients[k].name,
                                                   "rounds", s_taken (spec, r, k)));
    return json_pack ("{s:I, s:f, s:s, s:o}", "steps_without_somebody",
                      (json_int_t)r->window.without, "waited_s", r->window.waited, "last",
                      r->window.last, "clients", clients);
}

static json_t *
s_json_merged (const tl_sim_result_t *r)
{
    const tl_sim_merged_t *m = &r->merged;
    return json_pack ("{s:I, s:I, s:I, s:I}", "averages", (json_int_t)m->averages,
                      "averages_without_somebody", (json_int_t)m->without, "parts_missing",
                      (json_int_t)m->missing, "sums", (json_int_t)m->sums);
}

static json_t *
s_json (const tl_sim_spec_t *spec, const tl_sim_result_t *r)
{
    json_t *workers = json_array (), *periods = json_array ();
    for (size_t w = 0; w < r->worker_count; w++)
        json_array_append_new (workers, json_pack ("{s:s, s:I, s:o}", "name", r->workers[w].name,
                                                   "rows", (json_int_t)r->workers[w].rows, "time",
                                                   s_json_times (r, w, 1)));
    for (size_t p = 0; p < r->period_count; p++)
        json_array_append_new (periods, s_json_period (&r->periods[p]));
    double all = r->seconds > 0 ? r->seconds : 1;
    json_t *json = json_pack (
        "{s:s, s:s, s:f, s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:f, s:f, s:f, s:o, s:o}",
        "name", spec->name, "mode", s_modes[spec->mode], "seconds", r->seconds, "rows",
        (json_int_t)r->rows, "rows_s", s_rate (r), "rounds", (json_int_t)r->rounds, "steps",
        (json_int_t)r->steps, "events", (json_int_t)r->events, "lost_workers",
        (json_int_t)r->lost_workers, "lost_clients", (json_int_t)r->lost_clients, "end", r->text,
        "workers_time", s_json_times (r, 0, r->worker_count), "clients_busy",
        r->client_busy / all / (double)r->client_count, "broker_busy", r->broker_busy / all,
        "broker_mb_s", r->bytes / all / 1e6, "periods", periods, "workers", workers);
    if (spec->window)
        json_object_set_new (json, "window", s_json_window (spec, r));
    if (tl_sim_spec_aggregates (spec))
        json_object_set_new (json, "merged", s_json_merged (r));
    return json;
}

//  --- text -------------------------------------------------------------------------------------

static void
s_print_decisions (const tl_sim_result_t *r)
{
    size_t stayed = 0;
    for (size_t i = 0; i < r->period_count; i++) {
        const tl_sim_period_t *p = &r->periods[i];
        bool tell = i == 0 || p->changed || p->probing || i + 1 == r->period_count;
        if (!tell) {
            stayed++;
            continue;
        }
        if (stayed)
            printf ("           ... %zu more periods so\n", stayed);
        stayed = 0;
        printf ("%9.1f s  %s; measured %.0f rows/s\n", p->at, p->text,
                p->end > p->at ? (double)p->rows / (p->end - p->at) : 0);
    }
}

//  A row for each population: where its members' time went, in percent.
static void
s_print_workers (const tl_sim_spec_t *spec, const tl_sim_result_t *r)
{
    static const tl_column_t columns[] = {
        {"workers", "workers", 0},   {"count", "count", 0},          {"rows", "rows", 0},
        {"busy", "% busy", 1},       {"input", "waits for rows", 1}, {"credit", "for credit", 1},
        {"commit", "for commit", 1}, {"line", "at the line", 1},     {"spare", "spare", 1},
        {"away", "away", 1}};
    tl_table_t *table = tl_table_new ("workers", columns, sizeof columns / sizeof columns[0]);
    size_t first = 0;
    for (size_t k = 0; k < spec->worker_kinds; k++) {
        size_t count = spec->workers[k].count;
        uint64_t rows = 0;
        for (size_t w = first; w < first + count; w++)
            rows += r->workers[w].rows;
        tl_table_text (table, spec->workers[k].name);
        tl_table_count (table, count);
        tl_table_count (table, rows);
        json_t *times = s_json_times (r, first, count);
        for (int s = 0; s < TL_SIM_STATES; s++)
            tl_table_real (table,
                           100 * json_real_value (json_object_get (times, tl_sim_state_names[s])));
        json_decref (times);
        first += count;
    }
    tl_table_print (table, TL_FORMAT_TEXT);
    tl_table_destroy (&table);
}

static void
s_print_window (const tl_sim_spec_t *spec, const tl_sim_result_t *r)
{
    printf (
        "join: window: %llu of %llu steps began without somebody; workers stood still %.1f s for "
        "others",
        (unsigned long long)r->window.without, (unsigned long long)r->steps, r->window.waited);
    for (size_t k = 0; k < spec->client_kinds; k++)
        printf ("%s%s took part in %.0f %% of the rounds", k ? ", " : "\n", spec->clients[k].name,
                100 * s_taken (spec, r, k));
    printf ("\n%s%s%s", *r->window.last ? "the last such step " : "", r->window.last,
            *r->window.last ? "\n" : "");
}

static void
s_print_merged (const tl_sim_result_t *r)
{
    const tl_sim_merged_t *m = &r->merged;
    if (m->sums)
        printf (
            "the aggregator made %llu sums of a step's gradients, %llu copies for who came back",
            (unsigned long long)m->sums, (unsigned long long)m->averages);
    else
        printf ("the aggregator made %llu averages", (unsigned long long)m->averages);
    if (m->without)
        printf (" (%llu of them without somebody: %llu parts were missing in all)",
                (unsigned long long)m->without, (unsigned long long)m->missing);
    printf ("\n");
}

static void
s_print (const tl_sim_spec_t *spec, const tl_sim_result_t *r)
{
    double all = r->seconds > 0 ? r->seconds : 1;
    printf ("%s, mode %s: %zu workers, %zu clients, %llu rounds in %.1f s: %.0f rows/s\n\n",
            spec->name, s_modes[spec->mode], r->worker_count, r->client_count,
            (unsigned long long)r->rounds, r->seconds, s_rate (r));
    s_print_decisions (r);
    printf ("\n");
    s_print_workers (spec, r);
    printf ("\nclients compute %.1f %% of the time; the broker passes on %.4g MB/s",
            100 * r->client_busy / all / (double)r->client_count, r->bytes / all / 1e6);
    if (r->broker_busy > 0)
        printf (" and is busy %.1f %% of the time", 100 * r->broker_busy / all);
    printf ("\n");
    if (spec->window)
        s_print_window (spec, r);
    if (tl_sim_spec_aggregates (spec))
        s_print_merged (r);
    if (r->lost_workers || r->lost_clients)
        printf ("lost: workers %llu times, clients %llu times\n",
                (unsigned long long)r->lost_workers, (unsigned long long)r->lost_clients);
}

//  --- runs -------------------------------------------------------------------------------------

static int
s_run_once (const tl_sim_spec_t *spec, tl_sim_result_t **r, tl_error_t *err)
{
    if (tl_sim_run (spec, r, err) != 0)
        return -1;
    if ((*r)->code == 0)
        return 0;
    int rc = tl_fail (err, (tl_code_t)(*r)->code, "%s: %s", spec->source, (*r)->text);
    tl_sim_result_destroy (r);
    return rc;
}

static int
s_write_svg (const tl_sim_spec_t *spec, const tl_sim_result_t *r, const char *path, tl_error_t *err)
{
    char *svg = tl_sim_plot (spec, r);
    int rc = tl_file_write (path, svg, strlen (svg), 0644, err);
    free (svg);
    return rc;
}

//  The same world under every mode.
static int
s_compare (tl_sim_spec_t *spec, tl_format_t format, tl_error_t *err)
{
    static const tl_column_t columns[] = {{"mode", "mode", 0},
                                          {"seconds", "seconds", 1},
                                          {"rows_s", "rows/s", 0},
                                          {"settled_rows_s", "after two periods", 0},
                                          {"busy", "workers busy %", 1}};
    tl_table_t *table = tl_table_new ("modes", columns, sizeof columns / sizeof columns[0]);
    int rc = 0;
    for (int mode = TL_CHOOSE_SERIAL; rc == 0 && mode <= TL_CHOOSE_AUTO; mode++) {
        tl_sim_result_t *r;
        spec->mode = mode;
        rc = s_run_once (spec, &r, err);
        if (rc != 0)
            break;
        double busy = 0;
        for (size_t w = 0; w < r->worker_count; w++)
            busy += r->workers[w].seconds[TL_SIM_BUSY];
        tl_table_text (table, s_modes[mode]);
        tl_table_real (table, r->seconds);
        tl_table_real (table, s_rate (r));
        tl_table_real (table, tl_sim_rows_s (r, 2, r->period_count));
        tl_table_real (table,
                       100 * busy / (double)r->worker_count / (r->seconds > 0 ? r->seconds : 1));
        tl_sim_result_destroy (&r);
    }
    if (rc == 0)
        tl_table_print (table, format);
    tl_table_destroy (&table);
    return rc;
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    if (options->svg && options->compare)
        return tl_fail (err, TL_BAD_INPUT,
                        "--svg draws one run, --compare makes four; leave out one of them");
    tl_sim_spec_t *spec = tl_sim_spec_read (arguments->words[0], arguments->overrides,
                                            arguments->override_count, err);
    if (!spec)
        return -1;
    tl_sim_result_t *r = NULL;
    if (options->compare && (spec->whole || spec->share == TL_SHARE_GRADIENT)) {
        int one = tl_fail (err, TL_BAD_INPUT,
                           "%s: only schedule.mode batch goes with %s, so there are no modes to "
                           "compare; leave out --compare",
                           spec->source, spec->whole ? "split: none" : "federate.clients: sync");
        tl_sim_spec_destroy (&spec);
        return one;
    }
    int rc =
        options->compare ? s_compare (spec, arguments->format, err) : s_run_once (spec, &r, err);
    if (rc == 0 && options->svg)
        rc = s_write_svg (spec, r, options->svg, err);
    if (rc == 0 && r && arguments->format == TL_FORMAT_TEXT)
        s_print (spec, r);
    else if (rc == 0 && r) {
        json_t *json = s_json (spec, r);
        tl_json_print (json, arguments->format == TL_FORMAT_JSON);
        json_decref (json);
    }
    tl_sim_result_destroy (&r);
    tl_sim_spec_destroy (&spec);
    return rc;
}

static const s_options_t s_defaults = {NULL, false};

static const tl_option_t s_table[] = {{"svg", TL_OPTION_TEXT, offsetof (s_options_t, svg), "FILE",
                                       0, 0,
                                       "draw the run: rows/s, arrangements, what each worker did"},
                                      {"compare", TL_OPTION_FLAG, offsetof (s_options_t, compare),
                                       NULL, 0, 0, "all four modes in the same world, a row each"},
                                      {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_simulate = {
    .name = "simulate",
    .words = "FILE",
    .min_words = 1,
    .max_words = 1,
    .help = "how a run would go: populations of workers and clients, the real scheduler",
    .more = "topology/simulate/ has commented examples. Nothing is computed or sent; the same file "
            "gives the\n"
            "same answer everywhere.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
