//  eval: held-out perplexity: of a model in this process, or of sites through the running worker.

#include "cli/verbs.h"

#include "cli/site.h"
#include "fed/evaluate.h"
#include "ui/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    tl_site_options_t of;
    const char *model, *data;     //  a directory, a file
    uint64_t threads, max_length; //  BLAS threads; tokens, 0: the topology's or the model's
} s_options_t;

typedef struct {
    const s_options_t *options;
    const tl_topology_t *topology; //  NULL with --model
    tl_model_t *model;
    tl_tokenizer_t *tokenizer;
    tl_chain_t *chain;
    tl_table_t *table;
    double nll;      //  over all files
    uint64_t labels; //  over all files
    size_t files;    //  how many
} s_eval_t;

//  How one client's file is scored; -1 on failure.
typedef int (s_score_t) (s_eval_t *self, size_t client, const char *path, double *nll,
                         uint64_t *labels, tl_error_t *err);

static const tl_column_t s_columns[] = {{"site", "site", 0},
                                        {"perplexity", "perplexity", 3},
                                        {"loss", "loss", 6},
                                        {"labels", "label tokens", 0}};

static void
s_add_row (s_eval_t *self, const char *name, double nll, uint64_t labels)
{
    double loss = labels ? nll / (double)labels : NAN;
    tl_table_text (self->table, name);
    tl_table_real (self->table, exp (loss));
    tl_table_real (self->table, loss);
    tl_table_count (self->table, labels);
}

//  Scores a file by the chain.
static int
s_score_here (s_eval_t *self, size_t client, const char *path, double *nll, uint64_t *labels,
              tl_error_t *err)
{
    tl_data_options_t options = {.max_length = self->options->max_length};
    if (options.max_length == 0 && self->topology)
        options.max_length = self->topology->train.max_length;
    tl_dataset_t *data = tl_dataset_open (path, self->tokenizer, &options, err);
    if (!data)
        return -1;
    tl_chain_evaluate (self->chain, data, nll, labels);
    tl_dataset_destroy (&data);
    return 0;
}

static int
s_score_saved (s_eval_t *self, size_t client, const char *path, double *nll, uint64_t *labels,
               tl_error_t *err)
{
    return tl_site_load_saved (self->topology, client, self->chain, err)
               ? -1
               : s_score_here (self, client, path, nll, labels, err);
}

static int
s_score_live (s_eval_t *self, size_t client, const char *path, double *nll, uint64_t *labels,
              tl_error_t *err)
{
    tl_reader_options_t reader;
    tl_site_reader (&self->options->of, path, &reader);
    return tl_reader_score (self->topology, client, &reader, nll, labels, err) ? -1 : 0;
}

static int
s_evaluate (s_eval_t *self, s_score_t *score, size_t client, const char *name, const char *path,
            tl_error_t *err)
{
    double nll;
    uint64_t labels;
    if (score (self, client, path, &nll, &labels, err) != 0)
        return -1;
    if (!isfinite (nll))
        return tl_fail (err, TL_FAILED,
                        "%s: the loss is %f; the adapter or the model is broken, train it "
                        "again with a lower train.lr",
                        path, nll);
    s_add_row (self, name, nll, labels);
    self->nll += nll;
    self->labels += labels;
    self->files++;
    return 0;
}

//  What computes here. Through the worker nothing does but the site, which opens itself.
static int
s_open (s_eval_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    const tl_topology_t *topology = self->topology;
    const char *path = topology ? topology->model.path : options->model;
    if (tl_blas_open (options->threads ? (int)options->threads
                      : topology       ? topology->workers[0].threads
                                       : 1,
                      err) != 0 ||
        !(self->model = tl_model_open (path, err)) ||
        !(self->tokenizer = tl_tokenizer_open (path, tl_model_config (self->model), err)))
        return -1;
    if (options->of.saved) {
        self->chain = tl_chain_split (topology, self->model, err);
        return self->chain ? 0 : -1;
    }
    //  An adapter of some parts only needs the topology to say which.
    if (topology && options->of.adapter && topology->tune.parts != TL_PART_ALL) {
        self->chain = tl_chain_of (topology, self->model, err);
        return self->chain ? tl_chain_load_adapter (self->chain, options->of.adapter, err) : -1;
    }
    self->chain = tl_chain_plain (self->model, options->of.adapter, err);
    return self->chain ? 0 : -1;
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
s_evaluate_sites (s_eval_t *self, s_score_t *score, tl_error_t *err)
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
        if (s_evaluate (self, score, i, client->name, client->eval, err) != 0)
            return -1;
    }
    if (self->files == 0 && site)
        return tl_fail (err, TL_BAD_INPUT, "%s has no client '%s'; name one of its clients",
                        topology->source, site);
    if (self->files == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: no client here has an eval file; add 'eval: FILE' to one",
                        topology->source);
    if (self->files > 1)
        s_add_row (self, "all", self->nll, self->labels);
    return 0;
}

static int
s_evaluate_all (s_eval_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    bool here = !options->of.live && !options->of.saved;
    s_score_t *score = here ? s_score_here : options->of.live ? s_score_live : s_score_saved;
    if (!options->of.live && s_open (self, err) != 0)
        return -1;
    if (!options->data && !(options->of.live && options->of.adapter))
        return s_evaluate_sites (self, score, err);
    //  A file, or an adapter of front and tail, is one site's.
    int client = here ? 0 : tl_site_index (&options->of, self->topology, "eval", err);
    if (client < 0 || !options->data)
        return client < 0 ? -1 : s_evaluate_sites (self, score, err);
    return s_evaluate (self, score, (size_t)client, options->data, options->data, err);
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
    if (s_check_arguments (arguments, err) != 0)
        return -1;
    if (arguments->word_count == 1 &&
        !(topology = tl_verb_topology (arguments, arguments->words[0], err)))
        return -1;
    self.topology = topology;
    self.table = tl_table_new ("sites", s_columns, 4);
    int rc = s_evaluate_all (&self, err);
    if (rc == 0)
        tl_table_print (self.table, arguments->format);
    tl_table_destroy (&self.table);
    tl_chain_destroy (&self.chain);
    tl_tokenizer_destroy (&self.tokenizer);
    tl_model_destroy (&self.model);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {.of = {.timeout_s = TL_SITE_TIMEOUT_S}};

static const tl_option_t s_table[] = {
    {"model", TL_OPTION_TEXT, offsetof (s_options_t, model), "DIR", 0, 0,
     "a model directory, in place of a topology"},
    {"data", TL_OPTION_TEXT, offsetof (s_options_t, data), "FILE", 0, 0,
     "JSONL to score, in place of the sites' eval files"},
    TL_SITE_OPTIONS (offsetof (s_options_t, of)),
    {"max-length", TL_OPTION_COUNT, offsetof (s_options_t, max_length), "N", 8, 1048576,
     "longest example in tokens (train.max_length)"},
    {"threads", TL_OPTION_COUNT, offsetof (s_options_t, threads), "N", 1, 1024,
     "threads that compute (the first worker's, or 1)"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_eval = {
    .name = "eval",
    .words = "[TOPOLOGY]",
    .min_words = 0,
    .max_words = 1,
    .help = "held-out perplexity of a model and an adapter, per site and over all",
    .more = "The row 'all' is the token-weighted mean over the sites.\n" TL_SITE_MORE,
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
