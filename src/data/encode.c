/*  encode: text to ids. Special and added names are cut out of the text first (as far as they are asked for), what lies
    between goes to SentencePiece or through normaliser, splitter and byte-pair encoding.

    ChatGLM-6B writes line ends, tabs and runs of spaces as pieces of their own before SentencePiece sees the text, which
    would drop them.                                                                                */

#include "tokenizer_internal.h"

#include "utf8.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uninorm.h>

//  One encoding.
typedef struct {
    const tl_tokenizer_t *by;
    bool parsed; //  special names are special
    tl_ids_t ids;
    tl_bpe_scratch_t scratch;
} encoding_t;

//  ---------------------------------------------------------------------------------------------
//  SentencePiece

//  Length of the longest run of spaces at text that has a piece of its own; 0 when there is none.
static size_t
s_run_of_spaces (const tl_tokenizer_t *self, const char *text, size_t size)
{
    size_t run = 0;
    while (run < size && run < TL_MAX_BLANK && text[run] == ' ')
        run++;
    while (run > 0 && !self->blank[run])
        run--;
    return run;
}

//  ChatGLM-6B: "\n" is <n>, a tab <|tab|>, spaces <|blank_80|> as often as it fits and the rest as one. A lone
//  space stays. Fresh text; the longest replacement is 11 letters for 2 spaces.
static char *
s_mark_blanks (const tl_tokenizer_t *self, const char *text, size_t size, size_t *marked_size)
{
    char *marked = tl_alloc (size * 8 + 16), *to = marked;
    for (size_t at = 0; at < size;) {
        size_t run = s_run_of_spaces (self, text + at, size - at);
        if (run > 0) {
            to += sprintf (to, "<|blank_%zu|>", run);
            at += run;
            continue;
        }
        if (text[at] == '\n' && self->line_end)
            to = stpcpy (to, "<n>");
        else if (text[at] == '\t' && self->tab)
            to = stpcpy (to, "<|tab|>");
        else
            *to++ = text[at];
        at++;
    }
    *marked_size = (size_t)(to - marked);
    return marked;
}

static void
s_spm (encoding_t *self, const char *text, size_t size)
{
    char *marked = NULL;
    size_t count = 0;
    if (self->by->config.family == TL_FAMILY_CHATGLM)
        text = marked = s_mark_blanks (self->by, text, size, &size);
    int32_t *ids = tl_spm_encode (self->by->spm, text, size, &count);
    free (marked);
    //  Only memory can have run out: any bytes have ids.
    if (ids)
        tl_ids_join (&self->ids, ids, count);
    free (ids);
}

//  ---------------------------------------------------------------------------------------------
//  Byte-level BPE

static void
s_piece (void *arg, const char *piece, size_t size)
{
    encoding_t *self = arg;
    tl_bpe_encode (self->by->bpe, piece, size, &self->scratch, &self->ids);
}

//  Nothing below U+0300 is ever composed with what is before it.
static bool
s_may_compose (const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] >= 0xcc)
            return true;
    return false;
}

static void s_cut (encoding_t *self, const char *text, size_t size, bool late);

static void
s_normalised (encoding_t *self, const char *text, size_t size)
{
    if (!self->by->nfc || !s_may_compose (text, size)) {
        s_cut (self, text, size, true);
        return;
    }
    size_t composed_size = 0;
    uint8_t *composed =
        u8_normalize (UNINORM_NFC, (const uint8_t *)text, size, NULL, &composed_size);
    if (!composed)
        abort (); //  out of memory: the text is well-formed
    s_cut (self, (const char *)composed, composed_size, true);
    free (composed);
}

//  ---------------------------------------------------------------------------------------------

//  What lies between names.
static void
s_between (encoding_t *self, const char *text, size_t size, bool late)
{
    if (size == 0)
        return;
    if (self->by->spm)
        s_spm (self, text, size);
    else if (!late)
        s_normalised (self, text, size);
    else
        tl_split_run (self->by->split, text, size, s_piece, self);
}

//  Cuts names out of the text: first those that are found in it as it is, then, late, those found after it was composed.
static void
s_cut (encoding_t *self, const char *text, size_t size, bool late)
{
    size_t done = 0, first, last;
    for (;;) {
        int32_t id =
            tl_added_find (self->by->added, text, size, done, self->parsed, late, &first, &last);
        if (id < 0)
            break;
        s_between (self, text + done, first - done, late);
        tl_ids_add (&self->ids, id);
        done = last;
    }
    s_between (self, text + done, size - done, late);
}

static int32_t *
s_encode (const tl_tokenizer_t *self, const char *text, size_t length, bool parsed, size_t *count)
{
    encoding_t encoding = {.by = self, .parsed = parsed};
    char *repaired = NULL;
    //  SentencePiece has its own way with broken UTF-8.
    if (!self->spm && tl_utf8_valid (text, length) < length)
        text = repaired = tl_utf8_repair (text, length, &length);
    s_cut (&encoding, text, length, false);
    free (repaired);
    tl_bpe_scratch_clear (&encoding.scratch);
    *count = encoding.ids.count;
    return encoding.ids.data ? encoding.ids.data : tl_alloc (sizeof *encoding.ids.data);
}

int32_t *
tl_tokenizer_encode (const tl_tokenizer_t *self, const char *text, size_t length, size_t *count)
{
    return s_encode (self, text, length, false, count);
}

int32_t *
tl_tokenizer_encode_parsed (const tl_tokenizer_t *self, const char *text, size_t length,
                            size_t *count)
{
    return s_encode (self, text, length, true, count);
}
