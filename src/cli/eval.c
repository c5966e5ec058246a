//  eval: how good a model is on held-out files: of a model in this process, or of sites through the running worker.

#include "cli/verbs.h"

#include "cli/eval_task.h"
#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    tl_site_options_t of;
    const char *model, *data;     //  a directory, a file
    uint64_t threads, max_length; //  threads; tokens, 0: the topology's or the model's
    uint64_t limit, positive, max_new, at_once;
    const char *per, *metrics, *examples;
    tl_texts_t stops;
    bool cloze;
} s_options_t;

typedef struct {
    const s_options_t *options;
    const tl_topology_t *topology; //  NULL with --model
    tl_engine_t engine;
    tl_evaluation_t *evaluation;
    size_t files; //  evaluated so far
} s_eval_t;

static int
s_evaluate (s_eval_t *self, size_t client, const char *name, const char *path, tl_error_t *err)
{
    if (tl_engine_site (&self->engine, client, err) ||
        tl_evaluation_file (self->evaluation, &self->engine, name, path, err))
        return -1;
    self->files++;
    return 0;
}

//  Only its owner has what a site trained: all sites are then those of this machine.
static bool
s_is_meant (const s_eval_t *self, size_t client)
{
    const tl_site_options_t *of = &self->options->of;
    const tl_client_spec_t *spec = &self->topology->clients[client];
    if (of->site)
        return tl_topology_client (self->topology, of->site) == (int)client;
    return spec->eval && (!(of->live || of->saved) || strcmp (spec->host, "localhost") == 0);
}

static int
s_evaluate_sites (s_eval_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    const char *site = self->options->of.site;
    for (size_t i = 0; i < topology->client_count; i++) {
        const tl_client_spec_t *client = &topology->clients[i];
        if (!s_is_meant (self, i))
            continue;
        if (!client->eval)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: client '%s' has no eval file; add 'eval: FILE' to it",
                            topology->source, client->name);
        if (s_evaluate (self, i, client->name, client->eval, err) != 0)
            return -1;
    }
    if (self->files == 0 && site)
        return tl_fail (err, TL_BAD_INPUT, "%s has no client '%s'; name one of its clients",
                        topology->source, site);
    if (self->files == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: no client here has an eval file; add 'eval: FILE' to one",
                        topology->source);
    return 0;
}

static int
s_evaluate_all (s_eval_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    bool here = !options->of.live && !options->of.saved;
    if (tl_engine_open (&self->engine, &options->of, self->topology, options->model,
                        (size_t)options->threads, err))
        return -1;
    if (!options->data && !(options->of.live && options->of.adapter))
        return s_evaluate_sites (self, err);
    //  A file, or an adapter of front and tail, is one site's.
    int client = here ? 0 : tl_site_index (&options->of, self->topology, "eval", err);
    if (client < 0 || !options->data)
        return client < 0 ? -1 : s_evaluate_sites (self, err);
    return s_evaluate (self, (size_t)client, options->data, options->data, err);
}

//  ---------------------------------------------------------------------------------------------
//  The command line

//  Index of word, size bytes, among names (ends with NULL); -1 if it isn't one.
static int
s_word (const char *word, size_t size, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strlen (names[i]) == size && memcmp (names[i], word, size) == 0)
            return i;
    return -1;
}

static int
s_read_metrics (const char *text, unsigned *metrics, tl_error_t *err)
{
    static const char *const names[] = {"rouge", "bleu", "exact", "f1", NULL};
    *metrics = 0;
    while (*text) {
        size_t size = strcspn (text, ",");
        int which = s_word (text, size, names);
        if (which < 0)
            return tl_fail (err, TL_BAD_INPUT,
                            "eval: --metrics: '%.*s' is not known; write some of "
                            "rouge,bleu,exact,f1",
                            (int)(size < 40 ? size : 40), text);
        *metrics |= 1u << which;
        text += size + (text[size] == ',');
    }
    if (*metrics == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "eval: --metrics is empty; write some of rouge,bleu,exact,f1");
    return 0;
}

//  Rather now than after an hour.
static int
s_check_examples (const char *path, tl_error_t *err)
{
    const char *slash = strrchr (path, '/');
    char *directory = slash ? tl_format ("%.*s", (int)(slash - path) + 1, path) : tl_strdup (".");
    int rc = 0;
    if (access (directory, W_OK) != 0)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "eval: --examples: %s can't be written (%s); name a directory that can",
                      directory, strerror (errno));
    free (directory);
    return rc;
}

static int
s_read_how (const s_options_t *options, const tl_topology_t *topology, tl_eval_how_t *how,
            tl_error_t *err)
{
    static const char *const pers[] = {"sum", "token", "byte", NULL};
    int per = s_word (options->per, strlen (options->per), pers);
    if (per < 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "eval: --per: expected sum, token or byte, found '%s'; use one of these",
                        options->per);
    *how = (tl_eval_how_t){.metrics = TL_SAY_ALL,
                           .write = options->metrics != NULL,
                           .per = (tl_per_t)per,
                           .positive = (size_t)options->positive,
                           .max_length = (size_t)options->max_length,
                           .limit = (size_t)options->limit,
                           .max_new = (size_t)options->max_new,
                           .at_once = (size_t)options->at_once,
                           .cloze = options->cloze,
                           .stops = &options->stops,
                           .examples = options->examples};
    if (how->max_length == 0 && topology)
        how->max_length = topology->train.max_length;
    for (size_t i = 0; i < options->stops.count; i++)
        if (!*options->stops.items[i])
            return tl_fail (err, TL_BAD_INPUT,
                            "eval: --stop is empty, which ends every text at once; give it a text "
                            "or leave it out");
    if (options->examples && s_check_examples (options->examples, err))
        return -1;
    return options->metrics ? s_read_metrics (options->metrics, &how->metrics, err) : 0;
}

static int
s_check_arguments (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    if ((arguments->word_count == 0) != (options->model != NULL))
        return tl_fail (err, TL_BAD_INPUT,
                        "eval: expected either TOPOLOGY or --model DIR; give one of "
                        "the two");
    if (options->model && !options->data)
        return tl_fail (err, TL_BAD_INPUT, "eval: --model wants the text as well; add --data FILE");
    if (options->data && options->of.site && !options->of.live && !options->of.saved)
        return tl_fail (
            err, TL_BAD_INPUT,
            "eval: --data with --site wants --live or --saved as well, for the model is "
            "the same for all sites otherwise; add one or leave --site out");
    if (options->of.live && (options->threads || options->max_length))
        return tl_fail (err, TL_BAD_INPUT,
                        "eval: with --live the site's own 'threads' and 'train.max_length' in the "
                        "topology count; leave --%s out, or use --set",
                        options->threads ? "threads" : "max-length");
    return tl_site_check (&options->of, "eval", arguments->word_count == 1, err);
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    s_eval_t self = {.options = arguments->options};
    tl_topology_t *topology = NULL;
    tl_eval_how_t how;
    if (s_check_arguments (arguments, err) != 0)
        return -1;
    if (arguments->word_count == 1 &&
        !(topology = tl_verb_topology (arguments, arguments->words[0], err)))
        return -1;
    self.topology = topology;
    int rc = s_read_how (self.options, topology, &how, err);
    if (rc == 0) {
        self.evaluation = tl_evaluation_new (&how);
        rc = s_evaluate_all (&self, err);
    }
    if (rc == 0)
        rc = tl_evaluation_end (self.evaluation, arguments->format, err);
    tl_evaluation_destroy (&self.evaluation);
    tl_engine_close (&self.engine);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {.of = {.timeout_s = TL_SITE_TIMEOUT_S},
                                       .per = "sum",
                                       .positive = 1,
                                       .max_new = 64,
                                       .at_once = 8};

static const tl_option_t s_table[] = {
    {"model", TL_OPTION_TEXT, offsetof (s_options_t, model), "PATH", 0, 0,
     "a model directory or GGUF file, in place of a topology"},
    {"data", TL_OPTION_TEXT, offsetof (s_options_t, data), "FILE", 0, 0,
     "JSONL to evaluate, in place of the sites' eval files"},
    {"limit", TL_OPTION_COUNT, offsetof (s_options_t, limit), "N", 1, 1e12,
     "only the first N examples of a file"},
    {"examples", TL_OPTION_TEXT, offsetof (s_options_t, examples), "FILE", 0, 0,
     "write what came of each example, as JSONL"},
    TL_SITE_OPTIONS (offsetof (s_options_t, of)),
    {"max-length", TL_OPTION_COUNT, offsetof (s_options_t, max_length), "N", 8, 1048576,
     "longest example in tokens (train.max_length)"},
    {"per", TL_OPTION_TEXT, offsetof (s_options_t, per), "UNIT", 0, 0,
     "choices: likelihood by sum, or mean per token or byte (sum)"},
    {"positive", TL_OPTION_COUNT, offsetof (s_options_t, positive), "INDEX", 0, TL_CLASSES - 1,
     "choices: the one that F1 is about (1)"},
    {"metrics", TL_OPTION_TEXT, offsetof (s_options_t, metrics), "LIST", 0, 0,
     "write texts, also where a completion is given, and tell these: rouge,bleu,exact,f1"},
    {"max-tokens", TL_OPTION_COUNT, offsetof (s_options_t, max_new), "N", 1, 1048576,
     "texts: tokens to write at most (64)"},
    {"stop", TL_OPTION_TEXTS, offsetof (s_options_t, stops), "TEXT", 0, 0,
     "texts: end before this; repeatable"},
    {"batch", TL_OPTION_COUNT, offsetof (s_options_t, at_once), "N", 1, 1024,
     "texts: so many at the same time (8)"},
    {"cloze", TL_OPTION_FLAG, offsetof (s_options_t, cloze), NULL, 0, 0,
     "ChatGLM-6B: [MASK] in a prompt is the blank to fill"},
    {"threads", TL_OPTION_COUNT, offsetof (s_options_t, threads), "N", 1, 1024,
     "threads that compute (the first worker's, or 1)"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_eval = {
    .name = "eval",
    .words = "[TOPOLOGY]",
    .min_words = 0,
    .max_words = 1,
    .help = "perplexity, multiple choice or written texts, per site and over all",
    .more =
        "What a file is evaluated for is told by its keys (docs/tasks.md):\n"
        "  {prompt, completion} and the other shapes to train on   perplexity of the answers\n"
        "  {prompt, choices, answer}     the likeliest choice: accuracy, macro F1, F1\n"
        "  {prompt, references}          greedy text against references: ROUGE, BLEU, exact, F1\n"
        "The row 'all' is over all examples of all sites.\n" TL_SITE_MORE,
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
