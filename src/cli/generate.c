/*  generate: goes on from a prompt, token by token, with cached keys and values.

    Text goes to stdout as it comes; a token that ends inside a UTF-8 character waits for its rest. */

#include "cli/verbs.h"

#include "clock.h"
#include "data/data.h"
#include "fed/parts.h"
#include "fed/sample.h"
#include "memory.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *model, *adapter, *prompt;
    uint64_t max_new, top_k, seed, threads;
    double temperature, top_p;
} s_options_t;

typedef struct {
    const tl_arguments_t *arguments;
    const s_options_t *options;
    tl_model_t *model;
    tl_tokenizer_t *tokenizer;
    tl_chain_t *chain;
    tl_cache_t *cache;
    tl_prompt_t prompt;
    int32_t *ids;       //  [count] prompt and what was generated
    size_t count;       //  so far
    size_t cached;      //  of them in the cache
    size_t printed;     //  bytes of generated text already on stdout
    float *rows;        //  [prompt.count, hidden] scratch
    float *logits;      //  [vocab]
    const char *reason; //  why it ended
} s_run_t;

static int
s_open (s_run_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    if (tl_blas_open ((int)options->threads, err) != 0 ||
        !(self->model = tl_model_open (options->model, err)) ||
        !(self->tokenizer =
              tl_tokenizer_open (options->model, tl_model_config (self->model), err)) ||
        !(self->chain = tl_chain_plain (self->model, options->adapter, err)))
        return -1;
    const tl_config_t *config = tl_model_config (self->model);
    tl_prompt_make (&self->prompt, self->tokenizer, options->prompt, strlen (options->prompt));
    size_t room = config->max_positions;
    if (self->prompt.count + 1 > room)
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: the prompt has %zu tokens, the model reads %zu in "
                        "all; shorten it",
                        self->prompt.count, room);
    size_t capacity = self->prompt.count + (size_t)options->max_new;
    capacity = capacity < room ? capacity : room;
    self->ids = tl_alloc (capacity * sizeof *self->ids);
    memcpy (self->ids, self->prompt.ids, self->prompt.count * sizeof *self->ids);
    self->count = self->prompt.count;
    self->cache = tl_cache_new (self->chain->segments[0], capacity);
    self->rows = tl_alloc_aligned (self->prompt.count * config->hidden * sizeof (float));
    self->logits = tl_alloc_aligned (config->vocab * sizeof (float));
    return 0;
}

//  Reads the ids that are not cached yet; logits are then those after the last one.
static int
s_read (s_run_t *self, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (self->model);
    size_t fresh = self->count - self->cached;
    uint32_t length = (uint32_t)self->count;
    uint64_t number = 0;
    tl_batch_t batch = {.sequences = 1,
                        .rows = self->count,
                        .length = &length,
                        .context = &self->prompt.context,
                        .mask = &self->prompt.mask,
                        .number = &number,
                        .ids = self->ids + self->cached};
    tl_segment_t *segment = self->chain->segments[0];
    if (tl_segment_extend (segment, self->cache, &batch, fresh, NULL, self->rows, err) != 0)
        return -1;
    self->cached = self->count;
    tl_segment_head (segment, self->rows + (fresh - 1) * config->hidden, 1, self->logits);
    return 0;
}

//  Bytes at the end of text that begin a UTF-8 character without ending it.
static size_t
s_unfinished (const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        unsigned char byte = (unsigned char)text[size - back];
        if ((byte & 0xc0) == 0x80)
            continue;
        size_t needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
        return needed > back ? back : 0;
    }
    return 0;
}

//  The whole answer is decoded each time: pieces join differently than they stand alone.
static void
s_stream (s_run_t *self, bool last)
{
    size_t size = 0;
    char *text = tl_tokenizer_decode (self->tokenizer, self->ids + self->prompt.count,
                                      self->count - self->prompt.count, &size);
    size_t ready = last ? size : size - s_unfinished (text, size);
    if (ready > self->printed) {
        fwrite (text + self->printed, 1, ready - self->printed, stdout);
        fflush (stdout);
        self->printed = ready;
    }
    free (text);
}

static int
s_generate (s_run_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    const tl_config_t *config = tl_model_config (self->model);
    tl_sampling_t settings = {options->temperature, options->top_p, (size_t)options->top_k,
                              options->seed};
    self->reason = "length";
    for (uint64_t made = 0; made < options->max_new && self->count < config->max_positions;
         made++) {
        if (s_read (self, err) != 0)
            return -1;
        int32_t id = tl_sample (self->logits, config->vocab, &settings, made);
        if (id == config->eos) {
            self->reason = "end of text";
            break;
        }
        self->ids[self->count++] = id;
        if (self->arguments->format == TL_FORMAT_TEXT)
            s_stream (self, false);
    }
    return 0;
}

static void
s_print_result (s_run_t *self, double seconds)
{
    size_t made = self->count - self->prompt.count;
    if (self->arguments->format == TL_FORMAT_TEXT) {
        s_stream (self, true);
        putchar ('\n');
        return;
    }
    size_t size = 0;
    char *text = tl_tokenizer_decode (self->tokenizer, self->ids + self->prompt.count, made, &size);
    json_t *value = json_stringn (text, size), *ids = json_array ();
    for (size_t i = 0; i < made; i++)
        json_array_append_new (ids, json_integer (self->ids[self->prompt.count + i]));
    json_t *result = json_pack ("{ss so so ss sf}", "prompt", self->options->prompt, "text",
                                value ? value : json_null (), "ids", ids, "ended", self->reason,
                                "seconds", seconds);
    json_dumpf (result, stdout, self->arguments->format == TL_FORMAT_JSON ? JSON_INDENT (2) : 0);
    putchar ('\n');
    json_decref (result);
    free (text);
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    s_run_t self = {.arguments = arguments, .options = arguments->options};
    if (!self.options->model || !self.options->prompt)
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: expected --model DIR and --prompt TEXT; give both");
    int64_t begin = tl_clock_us ();
    int rc = s_open (&self, err);
    if (rc == 0)
        rc = s_generate (&self, err);
    if (rc == 0)
        s_print_result (&self, (double)(tl_clock_us () - begin) / 1e6);
    free (self.ids);
    free (self.rows);
    free (self.logits);
    tl_prompt_clear (&self.prompt);
    tl_cache_destroy (&self.cache);
    tl_chain_destroy (&self.chain);
    tl_tokenizer_destroy (&self.tokenizer);
    tl_model_destroy (&self.model);
    return rc;
}

static const s_options_t s_defaults = {NULL, NULL, NULL, 64, 0, 1, 1, 0, 1};

static const tl_option_t s_table[] = {
    {"model", TL_OPTION_TEXT, offsetof (s_options_t, model), "DIR", 0, 0, "a model directory"},
    {"adapter", TL_OPTION_TEXT, offsetof (s_options_t, adapter), "DIR", 0, 0,
     "an adapter directory to put on the model"},
    {"prompt", TL_OPTION_TEXT, offsetof (s_options_t, prompt), "TEXT", 0, 0, "what to go on from"},
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
     "threads that compute (1)"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_generate = {
    .name = "generate",
    .words = "",
    .min_words = 0,
    .max_words = 0,
    .help = "write on from a prompt, the likeliest tokens or drawn ones",
    .more = "usage: trunkline generate --model DIR --prompt TEXT [--adapter DIR]",
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
