/*  generate: goes on from prompts, or talks, token by token: of a model in this process with cached keys and values,
    or of a site through the running worker.

    A single text goes to stdout as it comes; of several each one when all are done.               */

#include "cli/verbs.h"

#include "cli/chat.h"
#include "clock.h"
#include "fed/task.h"
#include "memory.h"
#include "ui/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    tl_site_options_t of;
    const char *model, *file, *system;
    tl_texts_t prompts, stops;
    uint64_t max_new, top_k, seed, threads, at_once; //  max_new 0: as said in the help
    double temperature, top_p, penalty;
    bool chat, cloze;
} s_options_t;

//  A text that is asked for.
typedef struct {
    tl_said_t said[2];     //  of --prompt and --system
    const tl_said_t *from; //  [count] said, or the file's
    size_t count;
    bool chat;
    const char *name; //  of the file, NULL: the command line
    size_t line;      //  in it
} s_asked_t;

typedef struct {
    const s_options_t *options;
    tl_format_t format;
    tl_engine_t engine;
    tl_task_t *task;  //  --prompts, or NULL
    s_asked_t *asked; //  [count]
    size_t count;
    tl_writing_t **texts; //  [count]
    double *seconds;      //  [count] until each was over
    int64_t began;        //  us
} s_run_t;

//  ---------------------------------------------------------------------------------------------
//  Prompts

//  said [count] in this order; a prompt alone isn't a conversation unless --chat says so.
static void
s_ask (s_run_t *self, const tl_said_t *said, size_t count, bool chat, size_t line)
{
    s_asked_t *asked = &self->asked[self->count++];
    const char *system = self->options->system;
    *asked = (s_asked_t){.from = said,
                         .count = count,
                         .chat = chat,
                         .name = self->task ? self->task->path : NULL,
                         .line = line};
    if (count > 1 || (chat && !self->options->chat))
        return;
    asked->chat = chat || self->options->chat;
    asked->from = asked->said;
    if (system)
        asked->said[0] = (tl_said_t){TL_SAID_SYSTEM, (char *)(uintptr_t)system, strlen (system)};
    asked->count = system ? 2 : 1;
    asked->said[asked->count - 1] = *said;
}

static int
s_read_prompts (s_run_t *self, tl_error_t *err)
{
    const s_options_t *options = self->options;
    if (options->file && !(self->task = tl_task_open (options->file, TL_TASK_OF_PROMPTS, 0, err)))
        return -1;
    size_t lines = self->task ? self->task->count : 0;
    self->asked = tl_alloc ((options->prompts.count + lines + 1) * sizeof *self->asked);
    for (size_t i = 0; i < lines; i++) {
        const tl_item_t *item = &self->task->items[i];
        s_ask (self, item->said, item->said_count, item->chat, item->line);
    }
    for (size_t i = 0; i < options->prompts.count; i++) {
        const char *text = options->prompts.items[i];
        tl_said_t said = {TL_SAID_USER, (char *)(uintptr_t)text, strlen (text)};
        s_ask (self, &said, 1, false, 0);
    }
    return 0;
}

static tl_writing_options_t
s_writing (const s_options_t *options)
{
    size_t most = options->max_new ? (size_t)options->max_new : options->chat ? 512 : 64;
    return (tl_writing_options_t){.cloze = options->cloze,
                                  .max_new = most,
                                  .stops = options->stops.items,
                                  .stop_count = options->stops.count,
                                  .sampling = {.temperature = options->temperature,
                                               .top_p = options->top_p,
                                               .top_k = (size_t)options->top_k,
                                               .penalty = options->penalty,
                                               .seed = options->seed}};
}

static void
s_on_piece (void *arg, const char *text, size_t size)
{
    fwrite (text, 1, size, stdout);
    fflush (stdout);
}

static int
s_open_texts (s_run_t *self, tl_error_t *err)
{
    tl_writing_options_t options = s_writing (self->options);
    self->texts = tl_alloc ((self->count + 1) * sizeof *self->texts);
    self->seconds = tl_alloc ((self->count + 1) * sizeof *self->seconds);
    if (self->format == TL_FORMAT_TEXT && self->count == 1)
        options.on_piece = s_on_piece;
    for (size_t i = 0; i < self->count; i++) {
        const s_asked_t *asked = &self->asked[i];
        options.prompt = asked->from->text;
        options.prompt_size = asked->from->size;
        options.said = asked->chat ? asked->from : NULL;
        options.said_count = asked->count;
        self->texts[i] =
            tl_writing_new (self->engine.tokenizer, self->engine.config, &options, err);
        if (!self->texts[i])
            return asked->name ? tl_fail_in (err, "%s:%zu", asked->name, asked->line) : -1;
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Results

static void
s_on_over (void *arg, size_t index)
{
    s_run_t *self = arg;
    self->seconds[index] = (double)(tl_clock_us () - self->began) / 1e6;
}

static void
s_print_text (const s_run_t *self, size_t index, const tl_written_t *written)
{
    const s_asked_t *asked = &self->asked[index];
    const tl_said_t *last = &asked->from[asked->count - 1];
    if (self->count > 1) {
        printf ("%s[%zu] ", index ? "\n" : "", index + 1);
        fwrite (last->text, 1, last->size, stdout);
        putchar ('\n');
        fwrite (written->text, 1, written->size, stdout);
    }
    putchar ('\n');
}

//  One text is an object; of several json makes a list, jsonl a line each.
static int
s_print (s_run_t *self, tl_error_t *err)
{
    json_t *list = json_array ();
    size_t interrupted = 0;
    for (size_t i = 0; i < self->count; i++) {
        tl_written_t written;
        const s_asked_t *asked = &self->asked[i];
        tl_writing_end (self->texts[i], &written);
        interrupted += strcmp (written.reason, "interrupted") == 0;
        if (self->format == TL_FORMAT_TEXT)
            s_print_text (self, i, &written);
        else
            json_array_append_new (
                list, tl_written_json (&asked->from[asked->count - 1], &written, self->seconds[i]));
        tl_written_clear (&written);
    }
    bool many = self->format == TL_FORMAT_JSON && self->count > 1;
    json_t *all = many ? json_pack ("{sO}", "texts", list) : NULL;
    if (many)
        tl_json_print (all, true);
    for (size_t i = 0; !many && i < json_array_size (list); i++)
        tl_json_print (json_array_get (list, i), self->format == TL_FORMAT_JSON);
    json_decref (all);
    json_decref (list);
    if (interrupted)
        return tl_fail (err, TL_FAILED,
                        "generate: interrupted, what is there of %zu of %zu texts was written; "
                        "generate again for the rest",
                        interrupted, self->count);
    return 0;
}

static int
s_write (s_run_t *self, tl_error_t *err)
{
    if (s_read_prompts (self, err))
        return -1;
    if (self->count == 0)
        return tl_fail (err, TL_BAD_INPUT, "%s holds no prompt; write one {\"prompt\": ...} a line",
                        self->options->file);
    if (s_open_texts (self, err))
        return -1;
    if (!self->options->of.live)
        tl_interruptible ();
    self->began = tl_clock_us ();
    if (tl_engine_write (&self->engine, self->texts, self->count, (size_t)self->options->at_once,
                         &tl_interrupted, s_on_over, self, err))
        return -1;
    for (size_t i = 0; i < self->count; i++)
        if (self->seconds[i] == 0)
            s_on_over (self, i);
    return s_print (self, err);
}

//  ---------------------------------------------------------------------------------------------
//  The command line

static int
s_check_text (const char *name, const char *text, tl_error_t *err)
{
    return text ? tl_chat_check (name, text, strlen (text), err) : 0;
}

static int
s_check_texts (const s_options_t *options, tl_error_t *err)
{
    for (size_t i = 0; i < options->prompts.count; i++)
        if (s_check_text ("--prompt", options->prompts.items[i], err))
            return -1;
    for (size_t i = 0; i < options->stops.count; i++) {
        if (s_check_text ("--stop", options->stops.items[i], err))
            return -1;
        if (!*options->stops.items[i])
            return tl_fail (err, TL_BAD_INPUT,
                            "generate: --stop is empty, which ends every text at once; give it a "
                            "text or leave it out");
    }
    return s_check_text ("--system", options->system, err);
}

static int
s_check_arguments (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    bool topology = arguments->word_count == 1;
    bool prompts = options->prompts.count || options->file;
    if (topology == (options->model != NULL) || (!prompts && !options->chat))
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: expected TOPOLOGY or --model PATH, and --prompt TEXT, --prompts "
                        "FILE or --chat; give one of each");
    if (options->of.live && options->threads)
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: with --live the site's own 'threads' in the topology counts; "
                        "leave --threads out, or use --set");
    if (options->system && !options->chat)
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: --system is part of a conversation; add --chat or leave it out");
    if (options->cloze && options->chat)
        return tl_fail (err, TL_BAD_INPUT,
                        "generate: a conversation has no blank to fill; leave --cloze or --chat "
                        "out");
    if (s_check_texts (options, err))
        return -1;
    return tl_site_check (&options->of, "generate", topology, err);
}

//  --live and --saved are about one site.
static int
s_open (s_run_t *self, const tl_topology_t *topology, tl_error_t *err)
{
    const s_options_t *options = self->options;
    bool site = options->of.live || options->of.saved;
    int client = site ? tl_site_index (&options->of, topology, "generate", err) : 0;
    return client < 0 ||
                   tl_engine_open (&self->engine, &options->of, topology, options->model,
                                   (size_t)options->threads, err) ||
                   tl_engine_site (&self->engine, (size_t)client, err)
               ? -1
               : 0;
}

static int
s_run (const tl_arguments_t *arguments, tl_error_t *err)
{
    const s_options_t *options = arguments->options;
    s_run_t self = {.options = options, .format = arguments->format};
    tl_topology_t *topology = NULL;
    if (s_check_arguments (arguments, err) ||
        (arguments->word_count == 1 &&
         !(topology = tl_verb_topology (arguments, arguments->words[0], err))))
        return -1;
    int rc = s_open (&self, topology, err);
    tl_writing_options_t writing = s_writing (options);
    if (rc == 0 && options->chat && !options->prompts.count && !options->file)
        rc = tl_chat (&self.engine, &writing, options->system, arguments->format, err);
    else if (rc == 0)
        rc = s_write (&self, err);
    for (size_t i = 0; self.texts && i < self.count; i++)
        tl_writing_destroy (&self.texts[i]);
    free (self.texts);
    free (self.seconds);
    free (self.asked);
    tl_task_destroy (&self.task);
    tl_engine_close (&self.engine);
    tl_topology_destroy (&topology);
    return rc;
}

static const s_options_t s_defaults = {
    .of = {.timeout_s = TL_SITE_TIMEOUT_S}, .seed = 1, .top_p = 1, .penalty = 1, .at_once = 8};

static const tl_option_t s_table[] = {
    {"prompt", TL_OPTION_TEXTS, offsetof (s_options_t, prompts), "TEXT", 0, 0,
     "what to go on from; repeatable"},
    {"prompts", TL_OPTION_TEXT, offsetof (s_options_t, file), "FILE", 0, 0,
     "JSONL of {prompt} or {messages}, to go on from each"},
    {"chat", TL_OPTION_FLAG, offsetof (s_options_t, chat), NULL, 0, 0,
     "talk: every line of stdin is a turn, /exit or Ctrl-D ends; prompts are turns"},
    {"system", TL_OPTION_TEXT, offsetof (s_options_t, system), "TEXT", 0, 0,
     "with --chat: the system message"},
    {"model", TL_OPTION_TEXT, offsetof (s_options_t, model), "PATH", 0, 0,
     "a model directory or GGUF file, in place of a topology"},
    TL_SITE_OPTIONS (offsetof (s_options_t, of)),
    {"max-tokens", TL_OPTION_COUNT, offsetof (s_options_t, max_new), "N", 1, 1048576,
     "tokens to write at most (64; with --chat 512)"},
    {"stop", TL_OPTION_TEXTS, offsetof (s_options_t, stops), "TEXT", 0, 0,
     "end before this text; repeatable"},
    {"temperature", TL_OPTION_REAL, offsetof (s_options_t, temperature), "T", 0, 100,
     "0: always the most likely token (0)"},
    {"top-p", TL_OPTION_REAL, offsetof (s_options_t, top_p), "P", 0, 1,
     "draw from the likeliest that together have this probability (1)"},
    {"top-k", TL_OPTION_COUNT, offsetof (s_options_t, top_k), "K", 0, 1e9,
     "draw from so many of the likeliest; 0: all (0)"},
    {"repetition-penalty", TL_OPTION_REAL, offsetof (s_options_t, penalty), "R", 0.01, 100,
     "above 1: what was there is less likely (1)"},
    {"seed", TL_OPTION_COUNT, offsetof (s_options_t, seed), "S", 0, 9e15, "of the draws (1)"},
    {"batch", TL_OPTION_COUNT, offsetof (s_options_t, at_once), "N", 1, 1024,
     "of several prompts, so many at the same time (8)"},
    {"cloze", TL_OPTION_FLAG, offsetof (s_options_t, cloze), NULL, 0, 0,
     "ChatGLM-6B: [MASK] in a prompt is the blank to fill"},
    {"threads", TL_OPTION_COUNT, offsetof (s_options_t, threads), "N", 1, 1024,
     "threads that compute (the first worker's, or 1)"},
    {NULL, 0, 0, NULL, 0, 0, NULL}};

const tl_verb_t tl_verb_generate = {
    .name = "generate",
    .words = "[TOPOLOGY]",
    .min_words = 0,
    .max_words = 1,
    .help = "write on from prompts, or talk: the likeliest tokens or drawn ones",
    .more = "Ctrl-C ends an answer; the conversation goes on.\n" TL_SITE_MORE,
    .options = s_table,
    .defaults = &s_defaults,
    .options_size = sizeof (s_options_t),
    .run = s_run,
};
