#include "fed/writing.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct tl_writing {
    const tl_tokenizer_t *tokenizer;
    tl_config_t config;
    tl_writing_options_t options;
    uint32_t context, mask; //  of the prompt
    int32_t *ids;           //  [most] prompt and text
    size_t first;           //  of the text: the prompt's length
    size_t count, most;     //  so far; at most
    size_t shown;           //  bytes of text handed out
    const char *reason;
};

tl_writing_t *
tl_writing_new (const tl_tokenizer_t *tokenizer, const tl_config_t *config,
                const tl_writing_options_t *options, tl_error_t *err)
{
    tl_prompt_t prompt;
    tl_prompt_make (&prompt, tokenizer, options->prompt, strlen (options->prompt));
    if (prompt.count + 1 > config->max_positions) {
        tl_fail (err, TL_BAD_INPUT,
                 "the prompt has %zu tokens, the model reads %zu in all; shorten it", prompt.count,
                 config->max_positions);
        tl_prompt_clear (&prompt);
        return NULL;
    }
    tl_writing_t *self = tl_alloc (sizeof *self);
    self->tokenizer = tokenizer;
    self->config = *config;
    self->options = *options;
    self->context = prompt.context;
    self->mask = prompt.mask;
    self->first = self->count = prompt.count;
    size_t room = config->max_positions - prompt.count;
    self->most = prompt.count + (options->max_new < room ? options->max_new : room);
    self->ids = tl_alloc (self->most * sizeof *self->ids);
    memcpy (self->ids, prompt.ids, prompt.count * sizeof *self->ids);
    self->reason = "length";
    tl_prompt_clear (&prompt);
    return self;
}

void
tl_writing_destroy (tl_writing_t **self_p)
{
    tl_writing_t *self = *self_p;
    if (!self)
        return;
    free (self->ids);
    free (self);
    *self_p = NULL;
}

const int32_t *
tl_writing_ids (const tl_writing_t *self, size_t *count)
{
    *count = self->count;
    return self->ids;
}

size_t
tl_writing_most (const tl_writing_t *self)
{
    return self->most;
}

uint32_t
tl_writing_context (const tl_writing_t *self)
{
    return self->context;
}

uint32_t
tl_writing_mask (const tl_writing_t *self)
{
    return self->mask;
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

static char *
s_text (const tl_writing_t *self, size_t *size)
{
    return tl_tokenizer_decode (self->tokenizer, self->ids + self->first, self->count - self->first,
                                size);
}

//  The whole text is decoded each time: pieces join differently than they stand alone.
static void
s_show (tl_writing_t *self, const char *text, size_t ready)
{
    if (self->options.on_piece && ready > self->shown) {
        self->options.on_piece (self->options.arg, text + self->shown, ready - self->shown);
        self->shown = ready;
    }
}

bool
tl_writing_take (tl_writing_t *self, const float *logits)
{
    if (self->count == self->most)
        return false;
    int32_t id = tl_sample (logits, self->config.vocab, &self->options.sampling, self->ids,
                            self->count, self->count - self->first);
    if (tl_config_is_end (&self->config, id)) {
        self->reason = "end of text";
        return false;
    }
    self->ids[self->count++] = id;
    if (self->options.on_piece) {
        size_t size = 0;
        char *text = s_text (self, &size);
        s_show (self, text, size - s_unfinished (text, size));
        free (text);
    }
    return self->count < self->most;
}

void
tl_writing_end (tl_writing_t *self, tl_written_t *written)
{
    memset (written, 0, sizeof *written);
    written->text = s_text (self, &written->size);
    s_show (self, written->text, written->size);
    written->count = self->count - self->first;
    written->ids = tl_alloc ((written->count + 1) * sizeof *written->ids);
    memcpy (written->ids, self->ids + self->first, written->count * sizeof *written->ids);
    written->reason = self->reason;
}

void
tl_written_clear (tl_written_t *self)
{
    free (self->text);
    free (self->ids);
    memset (self, 0, sizeof *self);
}
