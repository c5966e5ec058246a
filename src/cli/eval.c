//  eval: held-out perplexity of a model, with or without an adapter, in one process.

#include "cli/verbs.h"

#include "assert.h"
#include "data/data.h"
#include "fed/evaluate.h"
#include "memory.h"
#include "ui/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const char *model, *adapter, *data, *site; //  directories, a file, a client's name
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

static int
s_evaluate (s_eval_t *self, const char *name, const char *path, tl_error_t *err)
{
    tl_data_options_t options = {.max_length = self->options->max_length};
    if (options.max_length == 0 && self->topology)
        options.max_length = self->topology->train.max_length;
    tl_dataset_t *data = tl_dataset_open (path, self->tokenizer, &options, err);
    if (!data)
        return -1;
    double nll;
    uint64_t labels;
    tl_chain_evaluate (self->chain, data, &nll, &labels);
    tl_dataset_destroy (&data);
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

static int
s_open (s_eval_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    const char *path = self->topology ? self->topology->model.path : options->model;
    if (tl_blas_open (options->threads ? (int)options->threads
                      : self->topology ? self->topology->workers[0].threads
                                       : 1,
                      err) != 0 ||
        !(self->model = tl_model_open (path, err)) ||
        !(self->tokenizer = tl_tokenizer_open (path, tl_model_config (self->model), err)))
        return -1;
    //  An adapter of some parts only needs the topology to say which.
    if (self->topology && options->adapter && self->topology->tune.parts != TL_PART_ALL) {
        self->chain = tl_chain_of (self->topology, self->model, err);
        return self->chain ? tl_chain_load_adapter (self->chain, options->adapter, err) : -1;
    }
    self->chain = tl_chain_plain (self->model, options->adapter, err);
    return self->chain ? 0 : -1;
}

static int
s_evaluate_sites (s_eval_t *self, tl_error_t *err)
{
    const tl_topology_t *topology = self->topology;
    const char *site = self->options->site;
    for (size_t i = 0; i < topology->client_count; i++) {
        const tl_client_spec_t *client = &topology->clients[i];
        if (site && tl_topology_client (topology, site) != (int)i)
            continue;
        if (!client->eval && site)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: client '%s' has no eval file; add 'eval: FILE' to it",
                            topology->source, client->name);
        if (client->eval && s_evaluate (self, client->name, client->eval, err) != 0)
            return -1;
    }
    if (self->files == 0 && site)
        return tl_fail (err, TL_BAD_INPUT, "%s has no client '%s'; name one of its clients",
                        topology->source, site);
    if (self->files == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: no client has an eval file; add 'eval: FILE' to one",
                        topology->source);
    if (self->files > 1)
        s_add_row (self, "all", self->nll, self->labels);
    return 0;
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
    if (options->data && options->site)
        return tl_fail (err, TL_BAD_INPUT,
                        "eval: --data and --site exclude each other; leave one out");
    return 0;
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
    int rc = s_open (&self, err);
    if (rc == 0)
        rc = self.options->data ? s_evaluate (&self, self.options->data, self.options->data, err)
                                : s_evaluate_sites (&self, err);
    if (rc == 0)
        tl_table_print (self.table, arguments->format);
    tl_table_destroy (&self.table);
    tl_chain_destroy (&self.chain);
    tl_tokenizer_destroy (&self.tokenizer);
    tl_model_destroy (&self.model);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {NULL, NULL, NULL, NULL, 0, 0};

static const tl_option_t s_table[] = {{"model", TL_OPTION_TEXT, offsetof (s_options_t, model),
                                       "DIR", 0, 0, "a model directory, in place of a topology"},
                                      {"adapter", TL_OPTION_TEXT, offsetof (s_options_t, adapter),
                                       "DIR", 0, 0, "an adapter directory to put on the model"},
                                      {"data", TL_OPTION_TEXT, offsetof (s_options_t, data), "FILE",
                                       0, 0, "JSONL to score, in place of the sites' eval files"},
                                      {"site", TL_OPTION_TEXT, offsetof (s_options_t, site), "NAME",
                                       0, 0, "this client's eval file only"},
                                      {"max-length", TL_OPTION_COUNT,
                                       offsetof (s_options_t, max_length), "N", 8, 1048576,
                                       "longest example in tokens (train.max_length)"},
                                      {"threads", TL_OPTION_COUNT, offsetof (s_options_t, threads),
                                       "N", 1, 1024, "threads that compute (the first worker's)"},
                                      {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_eval = {
    .name = "eval",
    .words = "[TOPOLOGY]",
    .min_words = 0,
    .max_words = 1,
    .help = "held-out perplexity of a model and an adapter, per site and over all",
    .more = "The row 'all' is the token-weighted mean over the sites.",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
