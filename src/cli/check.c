/*  check: reads a topology and opens everything it names, so that a run does not fail later.

    It opens what one host needs: of the parts whose host is localhost or has this machine's name, or with --host
    of another host's. Parts that were not checked are named, with the command that checks them. Nothing is
    changed and nothing is computed.                                                                */

#include "cli/plan.h"
#include "cli/verbs.h"

#include "data/data.h"
#include "fed/parts.h"
#include "fed/site.h"
#include "file.h"
#include "memory.h"
#include "nearest.h"
#include "net/keys.h"
#include "net/socket.h"
#include "topology/schema.h"
#include "ui/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    bool settings;    //  --settings
    const char *host; //  --host; NULL: this machine
} s_options_t;

typedef struct {
    const tl_topology_t *topology;
    const char *host;          //  whose parts; NULL: this machine's
    tl_model_t *model;         //  NULL when no computing peer is here
    tl_tokenizer_t *tokenizer; //  NULL when no client is here
    tl_table_t *table;         //  a row a thing that is in order
    size_t micro_rows;         //  rows of the largest micro of one client
    char *sets, *keys;         //  all --set, and that of keys, to be repeated in advice
} s_check_t;

//  True if parts of that host are to be checked.
static bool
s_is_here (const s_check_t *self, const char *host)
{
    return tl_verb_is_at (host, self->host);
}

static void __attribute__ ((format (printf, 4, 5)))
s_say (s_check_t *self, const char *what, const char *name, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start (args, format);
    vsnprintf (text, sizeof text, format, args);
    va_end (args);
    tl_table_text (self->table, what);
    tl_table_text (self->table, name);
    tl_table_text (self->table, text);
}

//  One part of the topology.
typedef struct {
    const char *role, *name, *host;
} s_part_t;

static size_t
s_part_count (const tl_topology_t *topology)
{
    return 1 + tl_topology_aggregates (topology) + topology->worker_count + topology->client_count;
}

//  The broker is the first.
static s_part_t
s_part (const tl_topology_t *topology, size_t index)
{
    if (index == 0)
        return (s_part_t){"broker", "broker", topology->broker.host};
    if (tl_topology_aggregates (topology) && --index == 0)
        return (s_part_t){"aggregator", "aggregator", topology->aggregator.host};
    if (--index < topology->worker_count)
        return (s_part_t){"worker", topology->workers[index].name, topology->workers[index].host};
    index -= topology->worker_count;
    return (s_part_t){"client", topology->clients[index].name, topology->clients[index].host};
}

//  True if any part of that role is to be checked; role NULL: any part at all.
static bool
s_any_here (const s_check_t *self, const char *role)
{
    for (size_t i = 0; i < s_part_count (self->topology); i++) {
        s_part_t part = s_part (self->topology, i);
        if ((!role || strcmp (part.role, role) == 0) && s_is_here (self, part.host))
            return true;
    }
    return false;
}

//  A --host that nothing belongs to would check nothing and look good.
static int
s_check_host (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    if (!self->host || s_any_here (self, NULL))
        return 0;
    size_t count = s_part_count (topology);
    const char **hosts = tl_alloc (count * sizeof *hosts);
    for (size_t i = 0; i < count; i++)
        hosts[i] = s_part (topology, i).host;
    const char *near = tl_nearest (self->host, hosts, count);
    tl_fail (err, TL_BAD_INPUT, "check: no part of %s has the host '%s'; write --host %s%s",
             topology->source, self->host, near ? near : hosts[0],
             near ? " if that was meant" : ", or another host that stands in it");
    free (hosts);
    return -1;
}

//  Broker and worker of one host are checked by one command: it is said with each.
static void
s_say_elsewhere (s_check_t *self)
{
    for (size_t i = 0; i < s_part_count (self->topology); i++) {
        s_part_t part = s_part (self->topology, i);
        char who[80];
        if (s_is_here (self, part.host))
            continue;
        snprintf (who, sizeof who, "%s.%s", part.role, part.name);
        s_say (self, "NOT CHECKED", who, "belongs on %s; run there: trunkline check %s --host %s%s",
               part.host, self->topology->source, part.host, self->sets);
    }
}

//  ---------------------------------------------------------------------------------------------
//  Model

static int
s_check_model (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    const char *path = topology->model.path;
    bool clients = s_any_here (self, "client");
    if (!clients && !s_any_here (self, "worker"))
        return 0;
    if (topology->model.synthetic) {
        s_say (self, "model", "synthetic", "hidden %zu, nothing is computed",
               topology->model.hidden);
        return 0;
    }
    if (!(self->model = tl_model_of (topology, err)) ||
        tl_split_check (topology, self->model, err) != 0)
        return -1;
    const tl_config_t *config = tl_model_config (self->model);
    s_say (self, "model", path, "%s, %zu blocks, hidden %zu, vocabulary %zu, head %s",
           tl_family_name (config->family), config->blocks, config->hidden, config->vocab,
           config->tied ? "tied" : "of its own");
    if (topology->split.none)
        s_say (self, "split", topology->name, "none: each client has all %zu blocks",
               config->blocks);
    else
        s_say (self, "split", topology->name, "front %zu, trunk %zu, tail %zu blocks",
               topology->split.front, config->blocks - topology->split.front - topology->split.tail,
               topology->split.tail);
    if (config->max_positions && topology->train.max_length > config->max_positions)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: train.max_length is %zu, the model was made for %zu positions; lower it",
            topology->source, topology->train.max_length, config->max_positions);
    if (clients && !(self->tokenizer = tl_tokenizer_open (path, config, err)))
        return -1;
    if (clients)
        s_say (self, "tokenizer", tl_tokenizer_path (self->tokenizer), "%zu pieces",
               tl_tokenizer_pieces (self->tokenizer));
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Text

static int
s_check_file (s_check_t *self, size_t index, bool trains, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    const tl_client_spec_t *client = &topology->clients[index];
    tl_dataset_t *data = tl_site_text (topology, index, !trains, self->tokenizer, err);
    if (!data)
        return -1;
    char shortened[64] = "";
    if (tl_dataset_shortened (data))
        snprintf (shortened, sizeof shortened, ", %zu of them shortened to train.max_length %zu",
                  tl_dataset_shortened (data), topology->train.max_length);
    s_say (self, trains ? "data" : "eval", client->name, "%s: %zu example%s, %llu label tokens%s",
           trains ? client->data : client->eval, tl_dataset_count (data),
           tl_dataset_count (data) == 1 ? "" : "s", (unsigned long long)tl_dataset_labels (data),
           shortened);
    if (trains) {
        size_t micros = topology->train.micros;
        tl_extent_t extent =
            tl_dataset_extent (data, (topology->train.batch_size + micros - 1) / micros);
        self->micro_rows = extent.rows > self->micro_rows ? extent.rows : self->micro_rows;
    }
    tl_dataset_destroy (&data);
    return 0;
}

static int
s_check_text (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    for (size_t i = 0; i < topology->client_count; i++) {
        const tl_client_spec_t *client = &topology->clients[i];
        if (!s_is_here (self, client->host) || client->synthetic.is)
            continue;
        if (s_check_file (self, i, true, err) != 0 ||
            (client->eval && s_check_file (self, i, false, err) != 0))
            return -1;
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Memory and messages

static void
s_say_plan (void *arg, const char *role, const char *name, const tl_plan_t *plan, size_t messages)
{
    char who[80];
    snprintf (who, sizeof who, "%s.%s", role, name);
    s_say (arg, "memory", who,
           "%.1f MB = weights %.1f + trained %.1f + activations %.1f + workspace %.1f + saves %.1f "
           "+ messages %.1f + process %.1f",
           (double)(tl_plan_total (plan) + messages) / 1e6, (double)plan->weights / 1e6,
           (double)plan->trained / 1e6, (double)plan->activations / 1e6,
           (double)plan->workspace / 1e6, (double)plan->state / 1e6, (double)messages / 1e6,
           (double)plan->process / 1e6);
}

//  Making the parts is what finds out whether the LoRA targets exist: those of the others are made for that.
static int
s_check_parts (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    if (!self->model)
        return 0;
    bool lora = topology->tune.method != TL_METHOD_FULL;
    tl_part_t *client = NULL, *worker = NULL;
    int rc = 0;
    if (lora && !s_any_here (self, "client"))
        rc = (client = tl_part_of_client (topology, self->model, err)) ? 0 : -1;
    if (rc == 0 && lora && !s_any_here (self, "worker"))
        rc = (worker = tl_part_of_worker (topology, self->model, err)) ? 0 : -1;
    tl_part_destroy (&client);
    tl_part_destroy (&worker);
    if (rc != 0)
        return tl_fail_in (err, "%s", topology->source);
    return tl_plan_parts (topology, self->host, s_say_plan, self, err);
}

static int
s_check_budgets (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    if (!self->model || self->micro_rows == 0)
        return 0;
    size_t bytes = self->micro_rows * tl_model_config (self->model)->hidden *
                   (topology->wire.dtype == TL_WIRE_F32 ? 4 : 2);
    if (bytes > topology->wire.max_message)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: wire.max_message_mb is %zu, a micro of %zu rows has %zu bytes; raise it, or "
            "train.micros",
            topology->source, topology->wire.max_message >> 20, self->micro_rows, bytes);
    if (topology->wire.credit && topology->wire.credit < 4 * bytes)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: wire.credit_mb is %zu, one micro needs %zu bytes under way (4 tensors of "
            "%zu); raise it, leave it out, or raise train.micros",
            topology->source, topology->wire.credit >> 20, 4 * bytes, bytes);
    s_say (self, "wire", topology->name, "%.2f MB a micro and client, 4 times a micro",
           (double)bytes / 1e6);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Keys

static int
s_check_pair (s_check_t *self, const s_part_t *part, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    tl_pair_t pair;
    char broker[41], fingerprint[17], who[80];
    snprintf (who, sizeof who, "%s.%s", part->role, part->name);
    if (tl_keys_pair (topology->keys, part->role, part->name, &pair, err) != 0 ||
        tl_keys_broker (topology->keys, broker, err) != 0)
        return -1;
    tl_keys_fingerprint (pair.public_text, fingerprint);
    memset (&pair, 0, sizeof pair);
    s_say (self, "key", who, "%s", fingerprint);
    return 0;
}

//  The broker knows a peer by its public key: each must be in the directory.
static int
s_check_admitted (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    tl_key_t *keys = NULL;
    size_t count = 0;
    if (tl_keys_list (topology->keys, &keys, &count, err) != 0)
        return -1;
    int rc = 0;
    for (size_t i = 1; rc == 0 && i < s_part_count (topology); i++) {
        s_part_t part = s_part (topology, i);
        bool elsewhere = !s_is_here (self, part.host), found = false;
        for (size_t k = 0; k < count; k++)
            found |= strcmp (keys[k].role, part.role) == 0 && strcmp (keys[k].name, part.name) == 0;
        if (!found)
            rc =
                tl_fail (err, TL_BAD_INPUT,
                         "%s holds no public key of %s %s, the broker would turn it away; run%s%s: "
                         "trunkline keys make %s %s.%s%s%s",
                         topology->keys, part.role, part.name, elsewhere ? " on " : "",
                         elsewhere ? part.host : "", topology->source, part.role, part.name,
                         self->keys, elsewhere ? ", and copy its .key file here" : "");
    }
    free (keys);
    return rc;
}

//  Whoever can put a file there is admitted to the run. The run itself takes it as it is.
static void
s_note_mode (s_check_t *self)
{
    const char *directory = self->topology->keys;
    struct stat status;
    if (stat (directory, &status) == 0 && status.st_mode & 022)
        s_say (self, "NOTE", "keys",
               "others can put keys in %s (mode %04o, expected 0700), and whose key is there is "
               "admitted; run: chmod 700 %s",
               directory, (unsigned)(status.st_mode & 07777), directory);
}

//  A port that is taken may be so by this very run: no error.
static void
s_note_ports (s_check_t *self)
{
    const tl_topology_t *t = self->topology;
    const char *const ports[][2] = {{"broker.control", t->broker.control},
                                    {"broker.clients", t->broker.clients},
                                    {"broker.workers", t->broker.workers}};
    if (self->host || !s_any_here (self, "broker"))
        return;
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        tl_error_t err;
        if (tl_socket_try (ports[i][1], ports[i][0], &err) != 0)
            s_say (self, "NOTE", ports[i][0], "%s", err.text + strlen (ports[i][0]) + 2);
    }
}

static int
s_check_keys (s_check_t *self, tl_error_t *err)
{
    s_note_mode (self);
    for (size_t i = 0; i < s_part_count (self->topology); i++) {
        s_part_t part = s_part (self->topology, i);
        if (s_is_here (self, part.host) && s_check_pair (self, &part, err) != 0)
            return -1;
    }
    s_note_ports (self);
    return s_any_here (self, "broker") ? s_check_admitted (self, err) : 0;
}

//  ---------------------------------------------------------------------------------------------
//  Saves

static int
s_check_saves (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    if (!s_any_here (self, NULL))
        return 0;
    char *run = tl_format ("%s/%s", topology->checkpoint.dir, topology->name);
    int rc = tl_dir_check (run, err);
    if (rc != 0)
        tl_fail_in (err, "%s: checkpoint.dir", topology->source);
    else
        s_say (self, "saves", topology->name, "%s can be written", run);
    free (run);
    return rc;
}

//  ---------------------------------------------------------------------------------------------

static int
s_print_settings (tl_format_t format)
{
    static const tl_column_t columns[] = {{"key", "key", 0},
                                          {"default", "default", 0},
                                          {"expected", "expected", 0},
                                          {"help", "what it is", 0}};
    size_t count;
    const tl_setting_t *rows = tl_schema (&count);
    tl_table_t *table = tl_table_new ("settings", columns, 4);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].kind == TL_SETTING_LATER || rows[i].kind == TL_SETTING_SECTION)
            continue;
        tl_table_text (table, rows[i].path);
        tl_table_text (table, rows[i].fallback ? rows[i].fallback : "(required)");
        tl_table_text (table, rows[i].expected);
        tl_table_text (table, rows[i].help);
    }
    tl_table_print (table, format);
    tl_table_destroy (&table);
    return 0;
}

//  Each needs what those before it opened.
static int (*const s_checks[]) (s_check_t *, tl_error_t *) = {
    s_check_host,    s_check_model, s_check_text, s_check_parts,
    s_check_budgets, s_check_keys,  s_check_saves};

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    static const tl_column_t columns[] = {
        {"what", "checked", 0}, {"name", "name", 0}, {"found", "found", 0}};
    const s_options_t *options = arguments->options;
    if (options->settings)
        return s_print_settings (arguments->format);
    if (arguments->word_count == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "check: expected TOPOLOGY, found nothing; name a file like "
                        "topology/one-site.yaml");
    tl_topology_t *topology = tl_verb_topology (arguments, arguments->words[0], err);
    if (!topology)
        return -1;
    s_check_t self = {.topology = topology,
                      .host = options->host,
                      .table = tl_table_new ("checks", columns, 3),
                      .sets = tl_verb_again (arguments, ""),
                      .keys = tl_verb_again (arguments, "keys=")};
    s_say (&self, "topology", topology->name, "%s: %zu client%s, %zu worker%s, mode %s",
           topology->source, topology->client_count, topology->client_count == 1 ? "" : "s",
           topology->worker_count, topology->worker_count == 1 ? "" : "s",
           tl_mode_name (topology->schedule.mode));
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof s_checks / sizeof *s_checks; i++)
        rc = s_checks[i](&self, err);
    s_say_elsewhere (&self);
    if (rc == 0)
        tl_table_print (self.table, arguments->format);
    if (rc == 0 && !s_any_here (&self, NULL))
        fprintf (stderr, "nothing was checked: no part of %s belongs on this machine\n",
                 topology->source);
    free (self.sets);
    free (self.keys);
    tl_table_destroy (&self.table);
    tl_tokenizer_destroy (&self.tokenizer);
    tl_model_destroy (&self.model);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {false, NULL};

static const tl_option_t s_table[] = {{"settings", TL_OPTION_FLAG, offsetof (s_options_t, settings),
                                       NULL, 0, 0, "list every key of a topology with its default"},
                                      {"host", TL_OPTION_TEXT, offsetof (s_options_t, host), "NAME",
                                       0, 0,
                                       "check what the parts of that host need (this machine's)"},
                                      {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_check = {
    .name = "check",
    .words = "TOPOLOGY",
    .min_words = 0,
    .max_words = 1,
    .help = "read a topology and everything it names, before a run does",
    .more =
        "Opens the model, the sites' text and the keys that parts on this host need, plans memory\n"
        "and looks whether checkpoint.dir can be written. What does not end a run is a NOTE. Parts "
        "of other hosts are listed as NOT "
        "CHECKED, with the command to run there.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
