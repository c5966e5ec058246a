/*  generate: goes on from a prompt, token by token: of a model in this process with cached keys and values,
    or of a site through the running worker.

    Text goes to stdout as it comes.                                                                */

#include "cli/verbs.h"

#include "cli/site.h"
#include "clock.h"
#include "memory.h"
#include "ui/json.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    tl_site_options_t of;
    const char *model, *prompt;
    uint64_t max_new, top_k, seed, threads;
    double temperature, top_p;
} s_options_t;

typedef struct {
    const s_options_t *options;
    const tl_topology_t *topology; //  NULL with --model
    tl_model_t *model;
    tl_tokenizer_t *tokenizer;
    tl_chain_t *chain;
    tl_cache_t *caches[TL_CHAIN_SEGMENTS];
    tl_writing_t *writing;
    float *rows;   //  [rows of the prompt, hidden] scratch
    float *logits; //  [vocab]
} s_run_t;

static tl_chain_t *
s_chain (s_run_t *self, tl_error_t *err)
{
    const tl_site_options_t *of = &self->options->of;
    const tl_topology_t *topology = self->topology;
    if (of->saved) {
        int client = tl_site_index (of, topology, "generate", err);
        tl_chain_t *chain = client < 0 ? NULL : tl_chain_split (topology, self->model, err);
        if (chain && tl_site_load_saved (topology, (size_t)client, chain, err))
            tl_chain_destroy (&chain);
        return chain;
    }
    //  An adapter of some parts only needs the topology to say which.
    if (topology && of->adapter && topology->tune.parts != TL_PART_ALL) {
        tl_chain_t *chain = tl_chain_of (topology, self->model, err);
        if (chain && tl_chain_load_adapter (chain, of->adapter, err))
            tl_chain_destroy (&chain);
        return chain;
    }
    return tl_chain_plain (self->model, of->adapter, err);
}

static int
s_open (s_run_t *self, const tl_writing_options_t *writing, tl_error_t *err)
{
    const s_options_t *options = self->options;
    const char *path = self->topology ? self->topology->model.path : options->model;
    int threads = options->threads ? (int)options->threads
                  : self->topology ? self->topology->workers[0].threads
                                   : 1;
    if (tl_blas_open (threads, err) || !(self->model = tl_model_open (path, err)))
        return -1;
    const tl_config_t *config = tl_model_config (self->model);
    if (!(self->tokenizer = tl_tokenizer_open (path, config, err)) ||
        !(self->chain = s_chain (self, err)) ||
        !(self->writing = tl_writing_new (self->tokenizer, config, writing, err)))
        return -1;
    size_t prompt;
    tl_writing_ids (self->writing, &prompt);
    for (size_t i = 0; i < self->chain->segment_count; i++)
        self->caches[i] = tl_cache_new (self->chain->segments[i], tl_writing_most (self->writing));
    self->rows = tl_alloc_aligned (prompt * config->hidden * sizeof (float));
    self->logits = tl_alloc_aligned (config->vocab * sizeof (float));
    return 0;
}

static void
s_close (s_run_t *self)
{
    free (self->rows);
    free (self->logits);
    for (size_t i = 0; i < TL_CHAIN_SEGMENTS; i++)
        tl_cache_destroy (&self->caches[i]);
    tl_writing_destroy (&self->writing);
    tl_chain_destroy (&self->chain);
    tl_tokenizer_destroy (&self->tokenizer);
    tl_model_destroy (&self->model);
}

//  Reads the ids from cached on; logits are then those after the last one.
static int
s_read (s_run_t *self, size_t cached, tl_error_t *err)
{
    size_t count;
    const int32_t *ids = tl_writing_ids (self->writing, &count);
    uint32_t length = (uint32_t)count, context = tl_writing_context (self->writing),
             mask = tl_writing_mask (self->writing);
    uint64_t number = 0;
    tl_batch_t batch = {.sequences = 1,
                        .rows = count,
                        .length = &length,
                        .context = &context,
                        .mask = &mask,
                        .number = &number,
                        .ids = ids + cached};
    return tl_chain_extend (self->chain, self->caches, &batch, count - cached, self->rows,
                            self->logits, err);
}

//  All in this process.
static int
s_write_here (s_run_t *self, const tl_writing_options_t *writing, tl_written_t *written,
              tl_error_t *err)
{
    int rc = s_open (self, writing, err);
    size_t cached = 0;
    bool more = true;
    while (rc == 0 && more) {
        rc = s_read (self, cached, err);
        tl_writing_ids (self->writing, &cached);
        more = rc == 0 && tl_writing_take (self->writing, self->logits);
    }
    if (rc == 0)
        tl_writing_end (self->writing, written);
    s_close (self);
    return rc;
}

static int
s_write_live (const s_run_t *self, const tl_writing_options_t *writing, tl_written_t *written,
              tl_error_t *err)
{
    tl_reader_options_t reader;
    tl_site_reader (&self->options->of, NULL, &reader);
    int client = tl_site_index (&self->options->of, self->topology, "generate", err);
    return client < 0 ||
                   tl_reader_write (self->topology, (size_t)client, &reader, writing, written, err)
               ? -1
               : 0;
}

static void
s_on_piece (void *arg, const char *text, size_t size)
{
    fwrite (text, 1, size, stdout);
    fflush (stdout);
}

static void
s_print_json (const s_options_t *options, const tl_written_t *written, tl_format_t format,
              double seconds)
{
    json_t *text = json_stringn (written->text, written->size), *ids = json_array ();
    for (size_t i = 0; i < written->count; i++)
        json_array_append_new (ids, json_integer (written->ids[i]));
    json_t *result = json_pack ("{ss so so ss sf}", "prompt", options->prompt, "text",
                                text ? text : json_null (), "ids", ids, "ended", written->reason,
                                "seconds", seconds);
    tl_json_print (result, format == TL_FORMAT_JSON);
    json_decref (result);
}

static int
s_check_arguments (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    bool topology = arguments->word_count == 1;
    if (topology == (options->model != NULL) || !options->prompt)
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: expected TOPOLOGY or --model DIR, and --prompt TEXT; give both");
    if (options->of.live && options->threads)
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: with --live the site's own 'threads' in the topology counts; "
                        "leave --threads out, or use --set");
    return tl_site_check (&options->of, "generate", topology, err);
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    s_run_t self = {.options = options};
    tl_topology_t *topology = NULL;
    if (s_check_arguments (arguments, err) ||
        (arguments->word_count == 1 &&
         !(topology = tl_verb_topology (arguments, arguments->words[0], err))))
        return -1;
    self.topology = topology;
    bool stream = arguments->format == TL_FORMAT_TEXT;
    tl_writing_options_t writing = {.prompt = options->prompt,
                                    .max_new = (size_t)options->max_new,
                                    .sampling = {.temperature = options->temperature,
                                                 .top_p = options->top_p,
                                                 .top_k = (size_t)options->top_k,
                                                 .seed = options->seed},
                                    .on_piece = stream ? s_on_piece : NULL};
    tl_written_t written = {0};
    int64_t begin = tl_clock_us ();
    int rc = options->of.live ? s_write_live (&self, &writing, &written, err)
                              : s_write_here (&self, &writing, &written, err);
    if (rc == 0 && stream)
        putchar ('\n');
    else if (rc == 0)
        s_print_json (options, &written, arguments->format, (double)(tl_clock_us () - begin) / 1e6);
    tl_written_clear (&written);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {
    .of = {.timeout_s = TL_SITE_TIMEOUT_S}, .max_new = 64, .seed = 1, .top_p = 1};

static const tl_option_t s_table[] = {
    {"prompt", TL_OPTION_TEXT, offsetof (s_options_t, prompt), "TEXT", 0, 0, "what to go on from"},
    {"model", TL_OPTION_TEXT, offsetof (s_options_t, model), "DIR", 0, 0,
     "a model directory, in place of a topology"},
    TL_SITE_OPTIONS (offsetof (s_options_t, of)),
    {"max-new", TL_OPTION_COUNT, offsetof (s_options_t, max_new), "N", 1, 1048576,
     "tokens to write at most (64)"},
    {"temperature", TL_OPTION_REAL, offsetof (s_options_t, temperature), "T", 0, 100,
     "0: always the most likely token (0)"},
    {"top-p", TL_OPTION_REAL, offsetof (s_options_t, top_p), "P", 0, 1,
     "draw from the likeliest that together have this probability (1)"},
    {"top-k", TL_OPTION_COUNT, offsetof (s_options_t, top_k), "K", 0, 1e9,
     "draw from so many of the likeliest; 0: all (0)"},
    {"seed", TL_OPTION_COUNT, offsetof (s_options_t, seed), "S", 0, 9e15, "of the draws (1)"},
    {"threads", TL_OPTION_COUNT, offsetof (s_options_t, threads), "N", 1, 1024,
     "threads that compute (the first worker's, or 1)"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_generate = {
    .name = "generate",
    .words = "[TOPOLOGY]",
    .min_words = 0,
    .max_words = 1,
    .help = "write on from a prompt, the likeliest tokens or drawn ones",
    .more = TL_SITE_MORE,
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
