//  up: a whole topology, as far as it belongs on this machine, from keys to a summary.

#include "cli/verbs.h"

#include "actors/save.h"
#include "actors/supervisor.h"
#include "file.h"
#include "log.h"
#include "memory.h"
#include "net/keys.h"
#include "stats/rundb.h"
#include "ui/board.h"
#include "ui/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    bool stay;    //  --stay
    bool resume;  //  --resume
    bool replace; //  --replace
    bool fresh;   //  --fresh
} s_options_t;

static bool
s_broker_is_here (const tl_topology_t *topology)
{
    return strcmp (topology->broker.host, "localhost") == 0;
}

//  A run that is over is replaced by the next; one that isn't, only where that was asked for (else the broker says so).
static bool
s_replaces (const tl_topology_t *topology, const s_options_t *options)
{
    if (!s_broker_is_here (topology) || options->resume || options->replace)
        return s_broker_is_here (topology) && options->replace;
    char *path = tl_save_run_db (topology);
    tl_error_t none;
    tl_rundb_t *db = tl_exists (path) ? tl_rundb_open (path, &none) : NULL;
    json_t *rows = db ? tl_rundb_ask (db, "SELECT complete FROM run", &none) : NULL;
    bool over = json_integer_value (json_object_get (json_array_get (rows, 0), "complete")) != 0;
    json_decref (rows);
    tl_rundb_destroy (&db);
    free (path);
    return over;
}

//  A broker that begins anew makes the parts drop what they saved. Elsewhere a part may be coming back to its run. What is
//  to be said of it then, or NULL; the caller frees.
static char *
s_replacement (const tl_topology_t *topology)
{
    const tl_topology_t *t = topology;
    int64_t newest = -1;
    for (size_t i = 0; i < 1 + t->worker_count + t->client_count; i++) {
        const char *part = i == 0                 ? "broker"
                           : i <= t->worker_count ? t->workers[i - 1].name
                                                  : t->clients[i - 1 - t->worker_count].name;
        char *directory = tl_save_directory (t, part);
        int64_t step = tl_save_newest (directory, UINT64_MAX);
        newest = step > newest ? step : newest;
        free (directory);
    }
    return newest < 0
               ? NULL
               : tl_format ("replaces the run saved in %s/%s, step %lld; to keep a run, give "
                            "the next one another name: --set name=%s-2",
                            t->checkpoint.dir, t->name, (long long)newest, t->name);
}

//  Missing pairs of what runs on this machine are made: an engineer's first run needs no other command. Where a part lives
//  elsewhere, its keys are its owner's business.
static int
s_make_keys (const tl_topology_t *topology, tl_error_t *err)
{
    const tl_topology_t *t = topology;
    size_t made = 0;
    bool here = s_broker_is_here (t);
    int rc = 0;
    if (here) {
        rc = tl_keys_make (t->keys, "broker", "broker", err);
        made += rc == 0;
        if (rc >= 0)
            rc = tl_keys_make (t->keys, "admin", "admin", err);
        made += rc == 0;
    }
    if (rc >= 0 && tl_topology_aggregates (t) && strcmp (t->aggregator.host, "localhost") == 0) {
        rc = tl_keys_make (t->keys, "aggregator", "aggregator", err);
        made += rc == 0;
    }
    for (size_t i = 0; rc >= 0 && i < t->worker_count; i++)
        if (strcmp (t->workers[i].host, "localhost") == 0) {
            rc = tl_keys_make (t->keys, "worker", t->workers[i].name, err);
            made += rc == 0;
        }
    for (size_t i = 0; rc >= 0 && i < t->client_count; i++)
        if (strcmp (t->clients[i].host, "localhost") == 0) {
            rc = tl_keys_make (t->keys, "client", t->clients[i].name, err);
            made += rc == 0;
        }
    if (made)
        fprintf (stderr, "made %zu key pair%s in %s\n", made, made == 1 ? "" : "s", t->keys);
    return rc < 0 ? -1 : 0;
}

//  What is told of a run while it goes on.
typedef struct {
    tl_board_t *board;
    char *replacement; //  to be said when the run begins; NULL: nothing, or said
} s_teller_t;

static void
s_on_event (void *arg, const char *part, const json_t *event)
{
    s_teller_t *teller = arg;
    const char *name = json_string_value (json_object_get (event, "event"));
    if (teller->replacement && strcmp (part, "broker") == 0 && strcmp (name, "begun") == 0) {
        tl_board_line (teller->board, teller->replacement);
        free (teller->replacement);
        teller->replacement = NULL;
    }
    tl_board_event (teller->board, part, event);
}

static void
s_on_line (void *arg, const char *line)
{
    const s_teller_t *teller = arg;
    tl_board_line (teller->board, line);
}

//  Prints the result and writes summary.json beside the adapters. A run that came to nothing leaves an earlier one's.
static int
s_finish (tl_board_t *board, const tl_topology_t *topology, bool good, tl_error_t *err)
{
    tl_board_end (board);
    json_t *summary = tl_board_summary (board);
    unsigned long long steps =
        (unsigned long long)json_integer_value (json_object_get (summary, "steps"));
    unsigned long long all = (unsigned long long)tl_topology_rounds (topology);
    if (!tl_board_made (board) && !(good && all == 0)) {
        json_decref (summary);
        if (good && steps < all)
            fprintf (stderr, "stopped before step %llu of %llu\n", steps + 1, all);
        return 0;
    }
    char *text = tl_json_text (summary, true);
    char *path = tl_format ("%s/%s/summary.json", topology->checkpoint.dir, topology->name);
    int rc = tl_file_write (path, text, strlen (text), 0644, err);
    if (rc == 0 && steps < all)
        fprintf (stderr, "stopped after step %llu of %llu\n", steps, all);
    if (rc == 0 && good)
        fprintf (stderr, "%s in %s/%s\n",
                 tl_save_has_adapter (topology) ? "adapters and summary.json are"
                                                : "summary.json is",
                 topology->checkpoint.dir, topology->name);
    free (path);
    free (text);
    json_decref (summary);
    return rc;
}

static int
s_supervise (const tl_arguments_t *arguments, const tl_topology_t *topology, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    char program[4096];
    ssize_t length = readlink ("/proc/self/exe", program, sizeof program - 1);
    program[length > 0 ? length : 0] = 0;
    tl_board_t *board = tl_board_new (topology, arguments->format);
    s_teller_t teller = {.board = board};
    if (s_replaces (topology, options))
        teller.replacement = s_replacement (topology);
    tl_supervisor_options_t supervisor = {.program = program,
                                          .topology = arguments->words[0],
                                          .overrides = arguments->overrides,
                                          .override_count = arguments->override_count,
                                          .stay = options->stay,
                                          .resume = options->resume,
                                          .replace = options->replace,
                                          .fresh = options->fresh,
                                          .on_event = s_on_event,
                                          .on_line = s_on_line,
                                          .arg = &teller};
    tl_log_to (s_on_line, &teller);
    int rc = tl_supervisor_run (topology, &supervisor, err) ? -1 : 0;
    tl_log_to (NULL, NULL);
    free (teller.replacement);
    tl_error_t other;
    if (s_finish (board, topology, rc == 0, &other) != 0 && rc == 0) {
        *err = other;
        rc = -1;
    }
    tl_board_destroy (&board);
    return rc;
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    if (options->resume && options->replace)
        return tl_fail (err, TL_BAD_INPUT,
                        "up: --resume continues a run and --replace begins it anew; give one");
    if (options->fresh && !options->resume)
        return tl_fail (err, TL_BAD_INPUT,
                        "up: --fresh says how a run is continued; give --resume with it");
    tl_topology_t *topology = tl_verb_topology (arguments, arguments->words[0], err);
    if (!topology)
        return -1;
    //  First of all: what a live run says and keeps there is not ours to touch.
    int lock, rc = tl_save_lock (topology, "", &lock, err);
    if (rc == 0)
        rc = s_make_keys (topology, err);
    if (rc == 0)
        rc = s_supervise (arguments, topology, err);
    tl_dir_unlock (&lock);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults;

static const tl_option_t s_table[] = {
    {"stay", TL_OPTION_FLAG, offsetof (s_options_t, stay), NULL, 0, 0,
     "after the last step go on serving eval and generate"},
    {"resume", TL_OPTION_FLAG, offsetof (s_options_t, resume), NULL, 0, 0,
     "continue the run that is there from its last common save"},
    {"replace", TL_OPTION_FLAG, offsetof (s_options_t, replace), NULL, 0, 0,
     "begin the run anew though the one that is there is not over"},
    {"fresh", TL_OPTION_FLAG, offsetof (s_options_t, fresh), NULL, 0, 0,
     "with --resume: a client whose saves are gone begins with a fresh adapter"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_up = {
    .name = "up",
    .words = "TOPOLOGY",
    .min_words = 1,
    .max_words = 1,
    .help = "start broker, workers and clients of a topology and train",
    .more =
        "Parts whose host is localhost are started here, each as a process of its own; missing\n"
        "keys are made. Ctrl-C ends the run in order: the open step ends, all parts save, and\n"
        "--resume goes on from there, as it does when everything was killed.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof s_defaults,
    .run = s_run,
};
