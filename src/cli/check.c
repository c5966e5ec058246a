/*  check: reads a topology and opens everything it names, so that a run does not fail later.

    Files of peers on other hosts are not looked for: they are checked where they are. A host is here when
    it is called localhost or has this machine's name. Nothing is changed and nothing is computed. */

#include "cli/verbs.h"

#include "data/data.h"
#include "fed/parts.h"
#include "memory.h"
#include "net/keys.h"
#include "topology/schema.h"
#include "ui/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bool settings; //  --settings
} s_options_t;

typedef struct {
    const tl_topology_t *topology;
    tl_model_t *model;         //  NULL when no computing peer is here
    tl_tokenizer_t *tokenizer; //  NULL when no client is here
    tl_table_t *table;         //  a row a thing that is in order
    size_t micro_rows;         //  rows of the largest micro of one client
    size_t all_rows;           //  of all clients together
    size_t longest, labels;    //  of any sequence; of all clients' micros together
} s_check_t;

static const char s_elsewhere[] = "on another host: not checked here";

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

static bool
s_any_client_here (const tl_topology_t *topology)
{
    for (size_t i = 0; i < topology->client_count; i++)
        if (tl_verb_is_here (topology->clients[i].host))
            return true;
    return false;
}

static bool
s_any_worker_here (const tl_topology_t *topology)
{
    for (size_t i = 0; i < topology->worker_count; i++)
        if (tl_verb_is_here (topology->workers[i].host))
            return true;
    return false;
}

//  ---------------------------------------------------------------------------------------------
//  Model

static int
s_check_model (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    const char *path = topology->model.path;
    bool clients = s_any_client_here (topology);
    if (!clients && !s_any_worker_here (topology)) {
        s_say (self, "model", path, "%s", s_elsewhere);
        return 0;
    }
    if (!(self->model = tl_model_open (path, err)) ||
        tl_split_check (topology, self->model, err) != 0)
        return -1;
    const tl_config_t *config = tl_model_config (self->model);
    s_say (self, "model", path, "%s, %zu blocks, hidden %zu, vocabulary %zu, head %s",
           tl_family_name (config->family), config->blocks, config->hidden, config->vocab,
           config->tied ? "tied" : "of its own");
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
s_check_file (s_check_t *self, const tl_client_spec_t *client, const char *path, bool trains,
              tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    tl_data_options_t options = {.max_length = topology->train.max_length};
    tl_dataset_t *data = tl_dataset_open (path, self->tokenizer, &options, err);
    if (!data)
        return -1;
    s_say (self, trains ? "data" : "eval", client->name, "%s: %zu examples, %llu label tokens%s",
           path, tl_dataset_count (data), (unsigned long long)tl_dataset_labels (data),
           tl_dataset_shortened (data) ? ", some shortened to train.max_length" : "");
    if (trains) {
        size_t micros = topology->train.micros;
        tl_extent_t extent =
            tl_dataset_extent (data, (topology->train.batch_size + micros - 1) / micros);
        self->micro_rows = extent.rows > self->micro_rows ? extent.rows : self->micro_rows;
        self->longest = extent.longest > self->longest ? extent.longest : self->longest;
        self->all_rows += extent.rows;
        self->labels += extent.labels;
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
        if (!tl_verb_is_here (client->host)) {
            s_say (self, "data", client->name, "%s", s_elsewhere);
            continue;
        }
        if (s_check_file (self, client, client->data, true, err) != 0 ||
            (client->eval && s_check_file (self, client, client->eval, false, err) != 0))
            return -1;
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Memory and messages

static int
s_say_plan (s_check_t *self, const char *who, tl_part_t *part, size_t rows, size_t sequences,
            tl_error_t *err)
{
    tl_plan_t plan;
    if (tl_parts_fit (&part, 1, rows, self->longest, self->labels, self->topology->train.micros,
                      self->topology->train.memory, err) != 0)
        return tl_fail_in (err, "%s: %s", self->topology->source, who);
    tl_part_plan (part, rows, self->longest, sequences, self->labels, self->topology->train.micros,
                  &plan);
    s_say (
        self, "memory", who,
        "%.1f MB = weights %.1f + trained %.1f + activations %.1f + workspace %.1f + saves %.1f + "
        "process %.1f",
        (double)tl_plan_total (&plan) / 1e6, (double)plan.weights / 1e6, (double)plan.trained / 1e6,
        (double)plan.activations / 1e6, (double)plan.workspace / 1e6, (double)plan.state / 1e6,
        (double)plan.process / 1e6);
    return 0;
}

//  Making the parts is what finds out whether the LoRA targets exist.
static int
s_check_parts (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    if (!self->model || (topology->tune.method == TL_METHOD_FULL && self->all_rows == 0))
        return 0;
    tl_part_t *client = tl_part_of_client (topology, self->model, err);
    if (!client)
        return tl_fail_in (err, "%s", topology->source);
    size_t micros = topology->train.micros;
    size_t sequences = (topology->train.batch_size + micros - 1) / micros;
    int rc = 0;
    if (self->all_rows > 0)
        rc = s_say_plan (self, "each client", client, self->micro_rows, sequences, err);
    tl_part_destroy (&client);
    if (rc != 0)
        return -1;
    tl_part_t *trunk = tl_part_of_worker (topology, self->model, err);
    if (!trunk)
        return tl_fail_in (err, "%s", topology->source);
    bool batch = topology->schedule.mode == TL_MODE_BATCH;
    if (self->all_rows > 0)
        rc = s_say_plan (self, "worker", trunk, batch ? self->all_rows : self->micro_rows,
                         batch ? sequences * topology->client_count : sequences, err);
    tl_part_destroy (&trunk);
    return rc;
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
s_check_pair (s_check_t *self, const char *role, const char *name, const char *host,
              tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    tl_pair_t pair;
    char broker[41], fingerprint[17], who[80];
    snprintf (who, sizeof who, "%s.%s", role, name);
    if (!tl_verb_is_here (host)) {
        s_say (self, "key", who, "%s", s_elsewhere);
        return 0;
    }
    if (tl_keys_pair (topology->keys, role, name, &pair, err) != 0 ||
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
    for (size_t i = 0; rc == 0 && i < topology->worker_count + topology->client_count; i++) {
        bool worker = i < topology->worker_count;
        const char *role = worker ? "worker" : "client";
        const char *name =
            worker ? topology->workers[i].name : topology->clients[i - topology->worker_count].name;
        size_t at = 0;
        while (at < count &&
               (strcmp (keys[at].role, role) != 0 || strcmp (keys[at].name, name) != 0))
            at++;
        if (at == count)
            rc = tl_fail (err, TL_BAD_INPUT,
                          "%s holds no public key of %s %s, the broker would turn it "
                          "away; make it with trunkline keys make %s, or copy its .key file there",
                          topology->keys, role, name, topology->source);
    }
    free (keys);
    return rc;
}

static int
s_check_keys (s_check_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    if (s_check_pair (self, "broker", "broker", topology->broker.host, err) != 0)
        return -1;
    for (size_t i = 0; i < topology->worker_count; i++)
        if (s_check_pair (self, "worker", topology->workers[i].name, topology->workers[i].host,
                          err) != 0)
            return -1;
    for (size_t i = 0; i < topology->client_count; i++)
        if (s_check_pair (self, "client", topology->clients[i].name, topology->clients[i].host,
                          err) != 0)
            return -1;
    return tl_verb_is_here (topology->broker.host) ? s_check_admitted (self, err) : 0;
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
    s_check_t self = {.topology = topology, .table = tl_table_new ("checks", columns, 3)};
    s_say (&self, "topology", topology->name, "%s: %zu clients, %zu worker, mode %s",
           topology->source, topology->client_count, topology->worker_count,
           topology->schedule.mode == TL_MODE_BATCH ? "batch" : "serial");
    int rc = s_check_model (&self, err);
    if (rc == 0)
        rc = s_check_text (&self, err);
    if (rc == 0)
        rc = s_check_parts (&self, err);
    if (rc == 0)
        rc = s_check_budgets (&self, err);
    if (rc == 0)
        rc = s_check_keys (&self, err);
    if (rc == 0)
        tl_table_print (self.table, arguments->format);
    tl_table_destroy (&self.table);
    tl_tokenizer_destroy (&self.tokenizer);
    tl_model_destroy (&self.model);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {false};

static const tl_option_t s_table[] = {{"settings", TL_OPTION_FLAG, offsetof (s_options_t, settings),
                                       NULL, 0, 0, "list every key of a topology with its default"},
                                      {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_check = {
    .name = "check",
    .words = "TOPOLOGY",
    .min_words = 0,
    .max_words = 1,
    .help = "read a topology and everything it names, before a run does",
    .more =
        "Opens the model, the sites' text and the keys of peers on this host, and plans memory.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
