//  status and down: one question to the running broker.

#include "cli/verbs.h"

#include "actors/admin.h"
#include "actors/save.h"
#include "memory.h"
#include "ui/json.h"
#include "ui/table.h"

#include <stdio.h>
#include <stdlib.h>

enum { STATUS_MS = 5000, STOP_MS = 40000 };

static double
s_seconds (const json_t *of, const char *key)
{
    return json_number_value (json_object_get (of, key));
}

//  What the time of each worker went to, and with join: window how steps began.
static void
s_print_times (const json_t *report)
{
    size_t i;
    json_t *peer;
    json_array_foreach (json_object_get (report, "peers"), i, peer)
    {
        const json_t *waited = json_object_get (peer, "waited");
        if (waited)
            printf ("%s computed %.1f s, and waited %.1f s for input, %.1f s for commits, %.1f s "
                    "for credit until its last step\n",
                    json_string_value (json_object_get (peer, "name")),
                    s_seconds (peer, "computed_s"), s_seconds (waited, "input_s"),
                    s_seconds (waited, "commit_s"), s_seconds (waited, "credit_s"));
    }
    json_t *window = json_object_get (report, "window"), *text;
    if (!window)
        return;
    printf ("join: window, at most %lld ms: %lld steps began without somebody; workers stood still "
            "%.1f s for others\n",
            (long long)json_integer_value (json_object_get (window, "limit_ms")),
            (long long)json_integer_value (json_object_get (window, "steps_without_somebody")),
            s_seconds (window, "waited_s"));
    const char *worker;
    json_object_foreach (json_object_get (window, "last"), worker, text)
        printf ("%s: %s\n", worker, json_string_value (text));
}

static int
s_print_text (const json_t *report, tl_error_t *err)
{
    static const tl_column_t columns[] = {{"name", "name", 0},
                                          {"role", "role", 0},
                                          {"state", "state", 0},
                                          {"mb_in", "MB in", 1},
                                          {"silent_ms", "silent for ms", 0}};
    const char *run, *state;
    json_int_t step, round, rounds, saved, unknown, role, plain, other;
    json_t *peers;
    if (json_unpack ((json_t *)report, "{ss ss sI sI sI sI so s{sI sI sI sI}}", "run", &run,
                     "state", &state, "step", &step, "round", &round, "rounds", &rounds,
                     "saved_step", &saved, "peers", &peers, "refused", "unknown_key", &unknown,
                     "wrong_role", &role, "plain_text", &plain, "other_broker", &other))
        return tl_fail (
            err, TL_CONNECTION,
            "the broker's report lacks something: run the same trunkline on both sides, "
            "or take --format json");
    const char *awaited = json_string_value (json_object_get (report, "waiting_for"));
    bool waits = awaited && *awaited;
    printf ("%s: %s%s%s, step %lld, round %lld of %lld, last common save at step %lld\n", run,
            state, waits ? " for " : "", waits ? awaited : "", (long long)step, (long long)round,
            (long long)rounds, (long long)saved);
    printf (
        "refused: %lld with an unknown key, %lld in the wrong role, %lld without a key, %lld with "
        "another broker's key\n",
        (long long)unknown, (long long)role, (long long)plain, (long long)other);
    tl_table_t *table = tl_table_new ("peers", columns, 5);
    size_t i;
    json_t *peer;
    json_array_foreach (peers, i, peer)
    {
        tl_table_text (table, json_string_value (json_object_get (peer, "name")));
        tl_table_text (table, json_string_value (json_object_get (peer, "role")));
        tl_table_text (table, json_string_value (json_object_get (peer, "state")));
        tl_table_real (table, json_number_value (json_object_get (peer, "bytes_in")) / 1e6);
        tl_table_count (table, (uint64_t)json_integer_value (json_object_get (peer, "silent_ms")));
    }
    tl_table_print (table, TL_FORMAT_TEXT);
    tl_table_destroy (&table);
    s_print_times (report);
    return 0;
}

static int
s_run_status (const tl_arguments_t *arguments, tl_error_t *err)
{
    tl_topology_t *topology = tl_verb_topology (arguments, arguments->words[0], err);
    if (!topology)
        return -1;
    json_t *report = tl_admin_status (topology, STATUS_MS, err);
    tl_topology_destroy (&topology);
    if (!report)
        return -1;
    int rc = 0;
    if (arguments->format == TL_FORMAT_TEXT)
        rc = s_print_text (report, err);
    else
        tl_json_print (report, arguments->format == TL_FORMAT_JSON);
    json_decref (report);
    return rc;
}

static void
s_tell_down (const tl_topology_t *topology, tl_format_t format)
{
    char *saved = tl_format ("%s/%s", topology->checkpoint.dir, topology->name);
    bool has = tl_save_has_adapter (topology);
    json_t *json = json_pack ("{ss so}", "down", topology->name, "saved",
                              has ? tl_json_string (saved) : json_null ());
    if (format == TL_FORMAT_TEXT)
        printf ("%s is down; %s in %s\n", topology->name,
                has ? "its adapters are" : "there are no adapters of it", saved);
    else
        tl_json_print (json, format == TL_FORMAT_JSON);
    json_decref (json);
    free (saved);
}

static int
s_run_down (const tl_arguments_t *arguments, tl_error_t *err)
{
    tl_topology_t *topology = tl_verb_topology (arguments, arguments->words[0], err);
    if (!topology)
        return -1;
    int rc = tl_admin_stop (topology, STOP_MS, err);
    if (rc == 0)
        s_tell_down (topology, arguments->format);
    tl_topology_destroy (&topology);
    return rc;
}

const tl_verb_t tl_verb_status = {
    .name = "status",
    .words = "TOPOLOGY",
    .min_words = 1,
    .max_words = 1,
    .help = "ask a running broker how far it is and who is there",
    .run = s_run_status,
};

const tl_verb_t tl_verb_down = {
    .name = "down",
    .words = "TOPOLOGY",
    .min_words = 1,
    .max_words = 1,
    .help = "end a running topology: the open step ends, all parts save",
    .run = s_run_down,
};
