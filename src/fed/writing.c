#include "fed/writing.h"

#include "assert.h"
#include "kernels/kernels.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct tl_writing {
    const tl_tokenizer_t *tokenizer;
    tl_config_t config;
    tl_writing_options_t options;
    tl_prompt_t text; //  ids [most] of the prompt and of what was written
    size_t first;     //  of what was written: the prompt's length
    size_t most;      //  ids at most
    tl_decoder_t *decoder;
    char *shown; //  [size] what was written, as text
    size_t size, room;
    size_t given;   //  bytes handed out
    bool over;      //  nothing more is taken
    bool shortened; //  the prompt was
    const char *reason;
};

//  The prompt by itself.
static int
s_lay_out (tl_writing_t *self, tl_prompt_t *prompt, tl_error_t *err)
{
    const tl_writing_options_t *options = &self->options;
    if (options->said)
        return tl_prompt_chat (prompt, self->tokenizer, options->said, options->said_count, err);
    if (options->cloze)
        tl_prompt_cloze (prompt, self->tokenizer, options->prompt, options->prompt_size);
    else
        tl_prompt_make (prompt, self->tokenizer, options->prompt, options->prompt_size);
    return 0;
}

static int
s_open (tl_writing_t *self, const tl_config_t *config, tl_error_t *err)
{
    const tl_writing_options_t *options = &self->options;
    tl_prompt_t prompt = {0};
    if (s_lay_out (self, &prompt, err))
        return -1;
    size_t longest = config->max_positions;
    if (options->shorten && options->max_length && options->max_length < longest)
        longest = options->max_length;
    size_t room = longest > options->max_new ? longest - options->max_new : 1;
    if (options->shorten)
        self->shortened = tl_prompt_shorten (&prompt, self->tokenizer, room);
    int rc = -1;
    if (prompt.count == 0)
        tl_fail (err, TL_BAD_INPUT,
                 "the prompt is empty and the model has no token that begins a text; write one");
    else if (prompt.count + 1 > longest)
        tl_fail (err, TL_BAD_INPUT,
                 "the prompt has %zu tokens, the model reads %zu in all; shorten it", prompt.count,
                 longest);
    else
        rc = 0;
    if (rc == 0) {
        self->first = prompt.count;
        room = longest - prompt.count;
        self->most = prompt.count + (options->max_new < room ? options->max_new : room);
        self->reason = options->max_new <= room ? "length" : "end of context";
        self->text = prompt;
        self->text.ids = tl_alloc (self->most * sizeof *self->text.ids);
        memcpy (self->text.ids, prompt.ids, prompt.count * sizeof *self->text.ids);
    }
    tl_prompt_clear (&prompt);
    return rc;
}

tl_writing_t *
tl_writing_new (const tl_tokenizer_t *tokenizer, const tl_config_t *config,
                const tl_writing_options_t *options, tl_error_t *err)
{
    tl_writing_t *self = tl_alloc (sizeof *self);
    self->tokenizer = tokenizer;
    self->config = *config;
    self->options = *options;
    if (s_open (self, config, err)) {
        tl_writing_destroy (&self);
        return NULL;
    }
    self->decoder = tl_decoder_new (tokenizer);
    //  These were for the prompt.
    self->options.prompt = NULL;
    self->options.said = NULL;
    return self;
}

void
tl_writing_destroy (tl_writing_t **self_p)
{
    tl_writing_t *self = *self_p;
    if (!self)
        return;
    tl_decoder_destroy (&self->decoder);
    free (self->text.ids);
    free (self->shown);
    free (self);
    *self_p = NULL;
}

const tl_prompt_t *
tl_writing_text (const tl_writing_t *self)
{
    return &self->text;
}

size_t
tl_writing_most (const tl_writing_t *self)
{
    return self->most;
}

//  ---------------------------------------------------------------------------------------------
//  Text

//  Where the earliest stop string begins, size if there is none. Before from none can begin.
static size_t
s_find_stop (const tl_writing_t *self, size_t from)
{
    for (size_t at = from; at < self->size; at++)
        for (size_t i = 0; i < self->options.stop_count; i++) {
            const char *stop = self->options.stops[i];
            size_t length = strlen (stop);
            if (length <= self->size - at && memcmp (self->shown + at, stop, length) == 0)
                return at;
        }
    return self->size;
}

//  Bytes at the end that may be the beginning of a stop string.
static size_t
s_held_back (const tl_writing_t *self)
{
    size_t most = 0;
    for (size_t i = 0; i < self->options.stop_count; i++) {
        const char *stop = self->options.stops[i];
        size_t length = strlen (stop), back = length - 1;
        if (back > self->size)
            back = self->size;
        while (back > most && memcmp (self->shown + self->size - back, stop, back) != 0)
            back--;
        most = back > most ? back : most;
    }
    return most;
}

static void
s_show (tl_writing_t *self, size_t until)
{
    if (until > self->given && self->options.on_piece)
        self->options.on_piece (self->options.arg, self->shown + self->given, until - self->given);
    self->given = until > self->given ? until : self->given;
}

//  Text that is certain. False: it ended a stop string, which is cut off.
static bool
s_add (tl_writing_t *self, const char *piece, size_t size)
{
    if (self->size + size + 1 > self->room) {
        self->room = 2 * (self->size + size + 64);
        self->shown = realloc (self->shown, self->room);
        if (!self->shown)
            abort ();
    }
    if (size)
        memcpy (self->shown + self->size, piece, size);
    self->size += size;
    //  What was handed out is no part of one.
    size_t end = s_find_stop (self, self->given), whole = self->size;
    self->size = end;
    self->shown[end] = 0;
    if (end < whole) {
        self->reason = "stop string";
        s_show (self, end);
        return false;
    }
    s_show (self, end - s_held_back (self));
    return true;
}

static bool
s_ends (const tl_writing_t *self, int32_t id)
{
    size_t count;
    const int32_t *stops = tl_tokenizer_stops (self->tokenizer, &count);
    for (size_t i = 0; i < count; i++)
        if (stops[i] == id)
            return true;
    return tl_config_is_end (&self->config, id);
}

bool
tl_writing_shortened (const tl_writing_t *self)
{
    return self->shortened;
}

int
tl_writing_take (tl_writing_t *self, const float *logits, tl_error_t *err)
{
    if (self->over || self->text.count == self->most)
        return 0;
    if (!tl_kernels ()->all_finite (logits, self->config.vocab))
        return tl_fail (err, TL_BAD_INPUT,
                        "the logits of token %zu of the text are not finite; the adapter or the "
                        "model is broken, train it again with a lower train.lr",
                        self->text.count - self->first + 1);
    int32_t id = tl_sample (logits, self->config.vocab, &self->options.sampling, self->text.ids,
                            self->text.count, self->text.count - self->first);
    self->over = true;
    if (s_ends (self, id)) {
        self->reason = "end of text";
        return 0;
    }
    self->text.ids[self->text.count++] = id;
    size_t size;
    const char *piece = tl_decoder_put (self->decoder, id, &size);
    self->over = !s_add (self, piece, size) || self->text.count == self->most;
    return !self->over;
}

void
tl_writing_end (tl_writing_t *self, tl_written_t *written)
{
    memset (written, 0, sizeof *written);
    if (!self->over && self->text.count < self->most)
        self->reason = "interrupted";
    if (strcmp (self->reason, "stop string") != 0) {
        size_t size;
        const char *rest = tl_decoder_finish (self->decoder, &size);
        s_add (self, rest, size);
    }
    s_show (self, self->size);
    written->text = tl_alloc (self->size + 1);
    memcpy (written->text, self->shown, self->size);
    written->size = self->size;
    written->prompt = self->first;
    written->count = self->text.count - self->first;
    written->ids = tl_alloc ((written->count + 1) * sizeof *written->ids);
    memcpy (written->ids, self->text.ids + self->first, written->count * sizeof *written->ids);
    written->reason = self->reason;
}

void
tl_written_clear (tl_written_t *self)
{
    free (self->text);
    free (self->ids);
    memset (self, 0, sizeof *self);
}

//  ---------------------------------------------------------------------------------------------
//  By a chain

//  Texts that are being written.
typedef struct {
    tl_reading_t **readings;   //  [count]
    const tl_prompt_t **texts; //  [count]
    size_t *index;             //  [count] which they are
    size_t count;
    float *logits; //  [count, vocab]
} s_desk_t;

static void
s_put_on (s_desk_t *desk, tl_chain_t *chain, const tl_writing_t *text, size_t index)
{
    desk->readings[desk->count] = tl_reading_new (chain, text->most);
    desk->texts[desk->count] = &text->text;
    desk->index[desk->count++] = index;
}

static void
s_take_off (s_desk_t *desk, size_t at)
{
    tl_reading_destroy (&desk->readings[at]);
    for (desk->count--; at < desk->count; at++) {
        desk->readings[at] = desk->readings[at + 1];
        desk->texts[at] = desk->texts[at + 1];
        desk->index[at] = desk->index[at + 1];
    }
}

//  Every text on the desk gets a token; those that are over leave it.
static int
s_round (s_desk_t *desk, tl_writing_t *const *texts, size_t vocab, tl_over_fn *on_over, void *arg,
         tl_error_t *err)
{
    if (tl_read (desk->readings, desk->texts, desk->count, desk->logits, err))
        return -1;
    for (size_t i = 0, row = 0; i < desk->count; row++) {
        size_t index = desk->index[i];
        int more = tl_writing_take (texts[index], desk->logits + row * vocab, err);
        if (more < 0)
            return -1;
        if (more) {
            i++;
            continue;
        }
        s_take_off (desk, i);
        if (on_over)
            on_over (arg, index);
    }
    return 0;
}

int
tl_write (tl_chain_t *chain, tl_writing_t *const *texts, size_t count, size_t at_once,
          const volatile sig_atomic_t *stop, tl_over_fn *on_over, void *arg, tl_error_t *err)
{
    tl_assert (at_once >= 1);
    at_once = at_once < count ? at_once : count;
    s_desk_t desk = {.readings = tl_alloc (at_once * sizeof *desk.readings),
                     .texts = tl_alloc (at_once * sizeof *desk.texts),
                     .index = tl_alloc (at_once * sizeof *desk.index),
                     .logits = tl_alloc_aligned (at_once * chain->vocab * sizeof (float))};
    size_t next = 0;
    int rc = 0;
    while (rc == 0 && !(stop && *stop) && (desk.count || next < count)) {
        while (desk.count < at_once && next < count) {
            s_put_on (&desk, chain, texts[next], next);
            next++;
        }
        rc = s_round (&desk, texts, chain->vocab, on_over, arg, err);
    }
    while (desk.count)
        s_take_off (&desk, 0);
    free (desk.readings);
    free (desk.texts);
    free (desk.index);
    free (desk.logits);
    return rc;
}

int
tl_write_on (tl_reading_t *reading, tl_writing_t *text, size_t vocab,
             const volatile sig_atomic_t *stop, tl_error_t *err)
{
    const tl_prompt_t *so_far = &text->text;
    float *logits = tl_alloc_aligned (vocab * sizeof *logits);
    int more = 1;
    while (more > 0) {
        more = tl_read (&reading, &so_far, 1, logits, err);
        if (more == 0 && !(stop && *stop))
            more = tl_writing_take (text, logits, err);
    }
    free (logits);
    return more;
}
