/*  decoder: ids to text, one at a time. Three steps, each of which may hold something back: an id's bytes by its kind
    of tokenizer, whole characters out of bytes, and ChatGLM-6B's names of blanks turned into blanks.

    Broken characters become U+FFFD as in the originals: byte-level tokenizers decode all bytes at once, so that each
    longest beginning of a character is one; SentencePiece makes one of every byte of a run of byte pieces that doesn't
    belong to a whole character, and its text pieces end such a run.                                */

#include "tokenizer_internal.h"

#include "utf8.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct tl_decoder {
    const tl_tokenizer_t *by;
    char open[4]; //  [open_size] bytes of a character that isn't whole yet
    size_t open_size;
    bool begun;     //  some text has come
    bool first;     //  SentencePiece: its next sign for a space may be the one it puts before texts
    bool swallowed; //  the last text piece's was
    tl_text_t held; //  ChatGLM-6B: text that may be the beginning of a blank's name
    tl_text_t out;  //  what the current call gives
};

static void
s_begin (tl_decoder_t *self)
{
    self->open_size = 0;
    self->begun = self->swallowed = false;
    self->first = true;
    self->held.size = 0;
}

tl_decoder_t *
tl_decoder_new (const tl_tokenizer_t *tokenizer)
{
    tl_decoder_t *self = tl_alloc (sizeof *self);
    self->by = tokenizer;
    s_begin (self);
    return self;
}

void
tl_decoder_destroy (tl_decoder_t **self_p)
{
    tl_decoder_t *self = *self_p;
    if (!self)
        return;
    free (self->held.data);
    free (self->out.data);
    free (self);
    *self_p = NULL;
}

//  ---------------------------------------------------------------------------------------------
//  ChatGLM-6B's blanks

//  What text [size] begins with: a blank's name (its length in *used, the blank and how often), or the beginning of one
//  (*used 0, true), or neither (false).
static bool
s_blank_name (const tl_tokenizer_t *by, const char *text, size_t size, size_t *used, char *blank,
              size_t *times)
{
    static const char *const fixed[] = {"<n>", "<|tab|>"};
    static const char prefix[] = "<|blank_";
    const size_t lead = sizeof prefix - 1;
    *used = 0;
    for (int i = 0; i < 2; i++) {
        size_t length = strlen (fixed[i]);
        if (!(i == 0 ? by->line_end : by->tab) ||
            memcmp (text, fixed[i], size < length ? size : length) != 0)
            continue;
        if (size >= length) {
            *used = length;
            *blank = i == 0 ? '\n' : '\t';
            *times = 1;
        }
        return true;
    }
    if (memcmp (text, prefix, size < lead ? size : lead) != 0)
        return false;
    size_t at = lead, run = 0;
    for (; at < size && at < lead + 2 && text[at] >= (at == lead ? '1' : '0') && text[at] <= '9';
         at++)
        run = run * 10 + (size_t)(text[at] - '0');
    size_t rest = at < size ? size - at : 0;
    if (at > lead && memcmp (text + at, "|>", rest < 2 ? rest : 2) != 0)
        return false;
    if (at == lead && at < size)
        return false;
    if (rest < 2)
        return true;
    if (run > TL_MAX_BLANK || !by->blank[run])
        return false;
    *used = at + 2;
    *blank = ' ';
    *times = run;
    return true;
}

//  Gives out of what is held all that is certain; everything when the text is over.
static void
s_release (tl_decoder_t *self, bool over)
{
    const char *text = self->held.data;
    size_t at = 0, size = self->held.size;
    while (at < size) {
        size_t used = 0, times = 0;
        char blank = 0;
        bool maybe =
            text[at] == '<' && s_blank_name (self->by, text + at, size - at, &used, &blank, &times);
        if (maybe && used == 0 && !over)
            break;
        if (used == 0)
            tl_text_add (&self->out, text + at, 1);
        for (size_t i = 0; i < times; i++)
            tl_text_add (&self->out, &blank, 1);
        at += used ? used : 1;
    }
    if (at)
        memmove (self->held.data, self->held.data + at, size - at);
    self->held.size = size - at;
}

//  Text in whole characters.
static void
s_give (tl_decoder_t *self, const char *text, size_t size)
{
    self->begun |= size > 0;
    if (self->by->config.family != TL_FAMILY_CHATGLM) {
        tl_text_add (&self->out, text, size);
        return;
    }
    tl_text_add (&self->held, text, size);
    s_release (self, false);
}

//  ---------------------------------------------------------------------------------------------
//  Characters

//  The open character won't become whole.
static void
s_give_up (tl_decoder_t *self)
{
    //  Byte-level: what is open is one beginning of a character. SentencePiece: every byte counts.
    size_t marks = self->by->spm ? self->open_size : self->open_size > 0;
    for (size_t i = 0; i < marks; i++)
        s_give (self, TL_UTF8_REPLACEMENT, 3);
    self->open_size = 0;
}

static void
s_take_byte (tl_decoder_t *self, char byte)
{
    bool open = false;
    size_t bad, length;
    self->open[self->open_size++] = byte;
    //  At most twice: what doesn't go on the open character begins one of its own.
    while (self->open_size > 0) {
        length = tl_utf8_length (self->open, self->open_size, &bad, &open);
        if (length == 0 && open)
            return;
        if (length == 0 && self->by->spm)
            bad = 1;
        if (length)
            s_give (self, self->open, length);
        else
            s_give (self, TL_UTF8_REPLACEMENT, 3);
        self->open_size -= length ? length : bad;
        memmove (self->open, self->open + (length ? length : bad), self->open_size);
    }
}

static void
s_take_bytes (tl_decoder_t *self, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        s_take_byte (self, bytes[i]);
}

//  ---------------------------------------------------------------------------------------------
//  Pieces

//  As SentencePieceProcessor::Decode: the space that was put before the text goes; with rules.strips, all that the text
//  begins with.
static void
s_take_spm (tl_decoder_t *self, tl_piece_t piece)
{
    if (piece.kind == TL_PIECE_BYTE) {
        s_take_bytes (self, piece.bytes, piece.size);
        return;
    }
    s_give_up (self);
    if (self->swallowed || self->begun)
        self->first = false;
    const tl_spm_rules_t *rules = &self->by->rules;
    bool goes = self->first && piece.spaced && (rules->dummy_prefix || rules->strips);
    self->swallowed = goes && !rules->strips;
    s_give (self, piece.bytes + goes, piece.size - goes);
}

static bool
s_is_silent (const tl_tokenizer_t *by, int32_t id)
{
    const tl_config_t *config = &by->config;
    if (id < 0 || (size_t)id >= tl_vocab_count (by->vocab) || id == config->bos ||
        id == config->eos || id == config->pad || id == config->gmask || id == config->mask ||
        id == config->sop)
        return true;
    tl_piece_kind_t kind = tl_vocab_piece (by->vocab, id).kind;
    return kind == TL_PIECE_SPECIAL || kind == TL_PIECE_UNUSED;
}

const char *
tl_decoder_put (tl_decoder_t *self, int32_t id, size_t *size)
{
    self->out.size = 0;
    if (!s_is_silent (self->by, id)) {
        tl_piece_t piece = tl_vocab_piece (self->by->vocab, id);
        if (self->by->spm)
            s_take_spm (self, piece);
        else
            s_take_bytes (self, piece.bytes, piece.size);
    }
    *size = self->out.size;
    return self->out.data ? self->out.data : "";
}

const char *
tl_decoder_finish (tl_decoder_t *self, size_t *size)
{
    self->out.size = 0;
    s_give_up (self);
    s_release (self, true);
    s_begin (self);
    *size = self->out.size;
    return self->out.data ? self->out.data : "";
}

char *
tl_tokenizer_decode (const tl_tokenizer_t *self, const int32_t *ids, size_t count, size_t *length)
{
    tl_decoder_t *decoder = tl_decoder_new (self);
    tl_text_t text = {0};
    size_t size;
    for (size_t i = 0; i < count; i++) {
        const char *more = tl_decoder_put (decoder, ids[i], &size);
        tl_text_add (&text, more, size);
    }
    const char *rest = tl_decoder_finish (decoder, &size);
    tl_text_add (&text, rest, size);
    tl_decoder_destroy (&decoder);
    if (length)
        *length = text.size;
    tl_text_add (&text, "", 1);
    return text.data;
}
