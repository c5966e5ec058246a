//  keys: makes the key files of a topology's peers, and lists them.

#include "cli/verbs.h"

#include "file.h"
#include "memory.h"
#include "nearest.h"
#include "net/keys.h"
#include "ui/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct {
    const char *dir; //  --dir
} s_options_t;

static int
s_usage (tl_error_t *err)
{
    return tl_fail (err, TL_BAD_INPUT,
                    "keys: expected 'make' or 'list', then TOPOLOGY or --dir DIR; "
                    "write for example trunkline keys make topology/one-site.yaml");
}

typedef struct {
    const char *directory;
    size_t made, kept; //  how many pairs
} s_maker_t;

static int
s_make_one (s_maker_t *self, const char *role, const char *name, tl_error_t *err)
{
    int rc = tl_keys_make (self->directory, role, name, err);
    if (rc < 0)
        return -1;
    *(rc == 1 ? &self->kept : &self->made) += 1;
    return 0;
}

//  "worker.trunk-1" or just "broker": a name on the command line.
static int
s_make_word (s_maker_t *self, const char *word, tl_error_t *err)
{
    char role[16];
    const char *dot = strchr (word, '.'), *name = dot ? dot + 1 : word;
    snprintf (role, sizeof role, "%.*s", dot ? (int)(dot - word) : 15, word);
    static const char *const roles[] = {"broker", "admin", "aggregator", "worker", "client"};
    for (size_t i = 0; i < 5; i++)
        if (strcmp (role, roles[i]) == 0 && (dot || i < 3) && *name)
            return s_make_one (self, role, name, err);
    return tl_fail (err, TL_BAD_INPUT,
                    "keys: expected ROLE.NAME with the role broker, aggregator, worker, client "
                    "or admin, found '%s'; write for example client.north",
                    word);
}

//  The ROLE.NAME of every part of a topology.
static char **
s_parts (const tl_topology_t *topology, size_t *count)
{
    char **parts = tl_alloc ((3 + topology->worker_count + topology->client_count) * sizeof *parts);
    *count = 0;
    parts[(*count)++] = tl_strdup ("broker.broker");
    parts[(*count)++] = tl_strdup ("admin.admin");
    if (tl_topology_aggregates (topology))
        parts[(*count)++] = tl_strdup ("aggregator.aggregator");
    for (size_t i = 0; i < topology->worker_count; i++)
        parts[(*count)++] = tl_format ("worker.%s", topology->workers[i].name);
    for (size_t i = 0; i < topology->client_count; i++)
        parts[(*count)++] = tl_format ("client.%s", topology->clients[i].name);
    return parts;
}

//  A word that names no part of the topology: what was meant? A part by its name alone, or nearly its name.
static int
s_no_such_part (const tl_topology_t *topology, const char *word, char *const *parts, size_t count,
                tl_error_t *err)
{
    const char *near = tl_nearest (word, (const char *const *)parts, count);
    for (size_t i = 0; i < count; i++)
        if (strcmp (strchr (parts[i], '.') + 1, word) == 0)
            near = parts[i];
    if (near)
        return tl_fail (err, TL_BAD_INPUT, "keys: %s has no '%s'; write %s if that was meant",
                        topology->source, word, near);
    return tl_fail (err, TL_BAD_INPUT,
                    "keys: %s has no '%s'; write one of its parts, like %s, or leave names out to "
                    "make all",
                    topology->source, word, parts[count - 1]);
}

//  All words are looked at before the first pair is made.
static int
s_make_parts (s_maker_t *self, const tl_topology_t *topology, const char *const *words,
              size_t word_count, tl_error_t *err)
{
    size_t count;
    char **parts = s_parts (topology, &count);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < word_count; i++) {
        bool known = strcmp (words[i], "broker") == 0 || strcmp (words[i], "admin") == 0 ||
                     (strcmp (words[i], "aggregator") == 0 && tl_topology_aggregates (topology));
        for (size_t k = 0; k < count; k++)
            known |= strcmp (parts[k], words[i]) == 0;
        rc = known ? 0 : s_no_such_part (topology, words[i], parts, count, err);
    }
    for (size_t i = 0; rc == 0 && i < (word_count ? word_count : count); i++)
        rc = s_make_word (self, word_count ? words[i] : parts[i], err);
    for (size_t i = 0; i < count; i++)
        free (parts[i]);
    free (parts);
    return rc;
}

static int
s_make (const tl_arguments_t *arguments, const char *directory, const tl_topology_t *topology,
        tl_error_t *err)
{
    s_maker_t maker = {.directory = directory};
    const char *const *words = arguments->words + (topology ? 2 : 1);
    size_t count = arguments->word_count - (topology ? 2 : 1);
    int rc = 0;
    if (topology)
        rc = s_make_parts (&maker, topology, words, count, err);
    else if (count == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "keys: expected names after --dir %s, found none; write for "
                        "example broker worker.trunk-1 client.north",
                        directory);
    else
        for (size_t i = 0; rc == 0 && i < count; i++)
            rc = s_make_word (&maker, words[i], err);
    if (rc != 0)
        return -1;
    if (arguments->format == TL_FORMAT_TEXT)
        printf ("%s: %zu key pair%s made, %zu already there\n", directory, maker.made,
                maker.made == 1 ? "" : "s", maker.kept);
    else
        printf ("{\"made\": %zu, \"kept\": %zu}\n", maker.made, maker.kept);
    return 0;
}

static void
s_tell_wrong (void *arg, const tl_error_t *wrong)
{
    *(size_t *)arg += 1;
    fprintf (stderr, "trunkline: %s\n", wrong->text);
}

//  A bad file is said and passed over; the list of the others comes all the same.
static int
s_list (const tl_arguments_t *arguments, const char *directory, const tl_topology_t *topology,
        tl_error_t *err)
{
    static const tl_column_t columns[] = {{"role", "role", 0},
                                          {"name", "name", 0},
                                          {"fingerprint", "fingerprint", 0},
                                          {"made", "made (UTC)", 0},
                                          {"age_days", "age in days", 1}};
    tl_key_t *keys = NULL;
    size_t count = 0, wrong = 0;
    char *keys_set = tl_verb_again (arguments, "keys=");
    char *make = topology ? tl_format ("trunkline keys make %s%s", topology->source, keys_set)
                          : tl_format ("trunkline keys make --dir %s ROLE.NAME...", directory);
    free (keys_set);
    int rc = 0;
    if (!tl_exists (directory))
        rc = tl_fail (err, TL_BAD_INPUT, "there is no directory %s; make it and its keys with: %s",
                      directory, make);
    else
        rc = tl_keys_look (directory, &keys, &count, s_tell_wrong, &wrong, err);
    if (rc == 0 && count + wrong == 0)
        rc = tl_fail (err, TL_BAD_INPUT, "%s holds no keys; make them with: %s", directory, make);
    free (make);
    if (rc != 0)
        return -1;
    tl_table_t *table = tl_table_new ("keys", columns, 5);
    for (size_t i = 0; i < count; i++) {
        char made[32];
        time_t seconds = (time_t)keys[i].made;
        struct tm parts;
        strftime (made, sizeof made, "%Y-%m-%dT%H:%M:%SZ", gmtime_r (&seconds, &parts));
        tl_table_text (table, keys[i].role);
        tl_table_text (table, keys[i].name);
        tl_table_text (table, keys[i].fingerprint);
        tl_table_text (table, made);
        tl_table_real (table, difftime (time (NULL), seconds) / 86400);
    }
    tl_table_print (table, arguments->format);
    tl_table_destroy (&table);
    free (keys);
    if (wrong)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: %zu thing%s wrong with its keys; do what is said of %s above",
                        directory, wrong, wrong == 1 ? " is" : "s are", wrong == 1 ? "it" : "each");
    return 0;
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    const char *action = arguments->words[0];
    bool make = strcmp (action, "make") == 0;
    if ((!make && strcmp (action, "list") != 0) || (!options->dir && arguments->word_count < 2))
        return s_usage (err);
    if (options->dir && !*options->dir)
        return tl_fail (err, TL_BAD_INPUT,
                        "keys: --dir: expected a directory, found nothing; name one");
    tl_topology_t *topology = NULL;
    if (!options->dir && !(topology = tl_verb_topology (arguments, arguments->words[1], err)))
        return -1;
    const char *directory = options->dir ? options->dir : topology->keys;
    int rc = make ? s_make (arguments, directory, topology, err)
                  : s_list (arguments, directory, topology, err);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {NULL};

static const tl_option_t s_table[] = {{"dir", TL_OPTION_TEXT, offsetof (s_options_t, dir), "DIR", 0,
                                       0, "key directory, in place of a topology's"},
                                      {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_keys = {
    .name = "keys",
    .words = "make|list TOPOLOGY [ROLE.NAME...]",
    .min_words = 1,
    .max_words = 100000,
    .help = "make the key pairs of all peers, or list them with age and fingerprint",
    .more = "make: pairs of the broker, an admin and every peer of the topology, or of the named "
            "ones;\n"
            "what is there already stays. With --dir DIR the topology is left out.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
