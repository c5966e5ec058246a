/*  tokenizer: text <-> ids with the rules that a family puts around SentencePiece. ChatGLM-6B writes line
    ends, tabs and runs of spaces as pieces of their own before SentencePiece sees the text, which would
    drop them, and turns them back afterwards; Llama uses SentencePiece as it is. Special tokens are
    never read out of text: a user who writes one gets its letters. Byte-level BPE isn't read here.   */

#include "internal.h"
#include "spm.h"

#include "file.h"
#include "memory.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  ChatGLM-6B's has 2.7 MB, larger vocabularies have some 10.
#define MAX_FILE ((size_t)256 << 20)
enum { MAX_BLANK = 80 }; //  ChatGLM-6B: pieces for runs of 2 .. 80 spaces

struct tl_tokenizer {
    char *path;
    tl_config_t config;
    tl_spm_t *spm;
    //  ChatGLM-6B: which blanks have a piece; a small tokenizer may lack some, then they stay as they are.
    bool line_end, tab;
    bool blank[MAX_BLANK + 1]; //  [k] for a run of k spaces
    char hash[2 * crypto_generichash_BYTES + 1];
};

//  ---------------------------------------------------------------------------------------------
//  Opening

static int
s_find_file (tl_tokenizer_t *self, const char *path, tl_error_t *err)
{
    static const char *const names[] = {"tokenizer.model", "ice_text.model"};
    char *inside = tl_format ("%s/.", path);
    bool directory = tl_exists (inside);
    free (inside);
    if (!directory) {
        self->path = tl_strdup (path);
        return 0;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *file = tl_format ("%s/%s", path, names[i]);
        if (tl_exists (file)) {
            self->path = file;
            return 0;
        }
        free (file);
    }
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s has neither tokenizer.model nor ice_text.model; put the model's SentencePiece "
        "file there",
        path);
}

static int
s_load (tl_tokenizer_t *self, tl_error_t *err)
{
    char reason[300] = "";
    size_t size = 0;
    char *data = tl_file_read (self->path, MAX_FILE, &size, err);
    if (!data)
        return -1;
    unsigned char hash[crypto_generichash_BYTES];
    crypto_generichash (hash, sizeof hash, (const unsigned char *)data, size, NULL, 0);
    sodium_bin2hex (self->hash, sizeof self->hash, hash, sizeof hash);
    self->spm = tl_spm_open (data, size, reason, sizeof reason);
    free (data);
    if (!self->spm || tl_spm_pieces (self->spm) == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s is not a SentencePiece model (%s); fetch the file again", self->path,
                        *reason ? reason : "it has no pieces");
    return 0;
}

//  Pieces that bear a special token's name must have the id that config.json gives it.
static int
s_check_special (const tl_tokenizer_t *self, const char *piece, const char *key, int32_t wanted,
                 tl_error_t *err)
{
    int32_t id = tl_spm_id (self->spm, piece);
    if (id < 0 || wanted < 0 || id == wanted)
        return 0;
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s doesn't fit the model: %s is its piece %d, config.json has %s %d; take both "
        "from the same place",
        self->path, piece, id, key, wanted);
}

static int
s_check_fit (const tl_tokenizer_t *self, tl_error_t *err)
{
    const tl_config_t *config = &self->config;
    size_t pieces = tl_spm_pieces (self->spm);
    if (config->vocab == 0)
        return 0;
    if (pieces > config->vocab)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s doesn't fit the model: it has %zu pieces, config.json has vocab_size %zu; "
            "take both from the same place",
            self->path, pieces, config->vocab);
    if (config->family == TL_FAMILY_CHATGLM)
        return s_check_special (self, "[gMASK]", "gmask_token_id", config->gmask, err) ||
                       s_check_special (self, "<sop>", "bos_token_id", config->sop, err) ||
                       s_check_special (self, "<eop>", "eos_token_id", config->eos, err)
                   ? -1
                   : 0;
    return s_check_special (self, "<s>", "bos_token_id", config->bos, err) ||
                   s_check_special (self, "</s>", "eos_token_id", config->eos, err)
               ? -1
               : 0;
}

static void
s_find_blanks (tl_tokenizer_t *self)
{
    char piece[32];
    self->line_end = tl_spm_id (self->spm, "<n>") >= 0;
    self->tab = tl_spm_id (self->spm, "<|tab|>") >= 0;
    for (int run = 2; run <= MAX_BLANK; run++) {
        snprintf (piece, sizeof piece, "<|blank_%d|>", run);
        self->blank[run] = tl_spm_id (self->spm, piece) >= 0;
    }
}

tl_tokenizer_t *
tl_tokenizer_open (const char *path, const tl_config_t *config, tl_error_t *err)
{
    tl_tokenizer_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    if (s_find_file (self, path, err) != 0 || s_load (self, err) != 0 ||
        s_check_fit (self, err) != 0)
        tl_tokenizer_destroy (&self);
    else if (config->family == TL_FAMILY_CHATGLM)
        s_find_blanks (self);
    return self;
}

void
tl_tokenizer_destroy (tl_tokenizer_t **self_p)
{
    tl_tokenizer_t *self = *self_p;
    if (!self)
        return;
    if (self->spm)
        tl_spm_destroy (&self->spm);
    free (self->path);
    free (self);
    *self_p = NULL;
}

size_t
tl_tokenizer_pieces (const tl_tokenizer_t *self)
{
    return tl_spm_pieces (self->spm);
}

const char *
tl_tokenizer_path (const tl_tokenizer_t *self)
{
    return self->path;
}

const char *
tl_tokenizer_hash (const tl_tokenizer_t *self)
{
    return self->hash;
}

const tl_config_t *
tl_tokenizer_config (const tl_tokenizer_t *self)
{
    return &self->config;
}

//  ---------------------------------------------------------------------------------------------
//  Text to ids

//  Length of the longest run of spaces at text that has a piece of its own; 0 when there is none.
static size_t
s_run_of_spaces (const tl_tokenizer_t *self, const char *text, size_t size)
{
    size_t run = 0;
    while (run < size && run < MAX_BLANK && text[run] == ' ')
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

int32_t *
tl_tokenizer_encode (const tl_tokenizer_t *self, const char *text, size_t length, size_t *count)
{
    char *marked = NULL;
    *count = 0;
    if (self->config.family == TL_FAMILY_CHATGLM)
        text = marked = s_mark_blanks (self, text, length, &length);
    int32_t *ids = tl_spm_encode (self->spm, text, length, count);
    free (marked);
    //  Only memory can have run out: any bytes have ids.
    return ids ? ids : tl_alloc (sizeof *ids);
}

//  ---------------------------------------------------------------------------------------------
//  Ids to text

//  A number of spaces at the start of text as ChatGLM-6B writes it; 0 when there is none. used: its letters.
static size_t
s_blank_piece (const tl_tokenizer_t *self, const char *text, size_t *used)
{
    unsigned spaces = 0;
    int end = 0;
    if (strncmp (text, "<|blank_", 8) != 0 || text[8] < '1' || text[8] > '9' ||
        sscanf (text + 8, "%2u|>%n", &spaces, &end) != 1 || end == 0 || spaces > MAX_BLANK ||
        !self->blank[spaces])
        return 0;
    *used = 8 + (size_t)end;
    return spaces;
}

//  What s_mark_blanks did, undone. At worst 12 letters become 80 spaces.
static char *
s_restore_blanks (const tl_tokenizer_t *self, const char *text, size_t size, size_t *restored_size)
{
    char *restored = tl_alloc (size * 7 + MAX_BLANK + 1), *to = restored;
    for (size_t at = 0; at < size;) {
        size_t used = 1, spaces = s_blank_piece (self, text + at, &used);
        if (spaces) {
            memset (to, ' ', spaces);
            to += spaces;
        } else if (self->line_end && strncmp (text + at, "<n>", 3) == 0) {
            *to++ = '\n';
            used = 3;
        } else if (self->tab && strncmp (text + at, "<|tab|>", 7) == 0) {
            *to++ = '\t';
            used = 7;
        } else
            *to++ = text[at];
        at += used;
    }
    *to = 0;
    *restored_size = (size_t)(to - restored);
    return restored;
}

static bool
s_is_special (const tl_config_t *config, int32_t id)
{
    return id == config->bos || id == config->eos || id == config->pad || id == config->gmask ||
           id == config->mask || id == config->sop;
}

char *
tl_tokenizer_decode (const tl_tokenizer_t *self, const int32_t *ids, size_t count, size_t *length)
{
    int32_t *known = tl_alloc ((count + 1) * sizeof *known);
    size_t used = 0, size = 0;
    for (size_t i = 0; i < count; i++)
        if (ids[i] >= 0 && (size_t)ids[i] < tl_spm_pieces (self->spm) &&
            !s_is_special (&self->config, ids[i]))
            known[used++] = ids[i];
    char *text = tl_spm_decode (self->spm, known, used, &size);
    free (known);
    if (!text)
        text = tl_strdup ("");
    if (self->config.family == TL_FAMILY_CHATGLM) {
        char *restored = s_restore_blanks (self, text, size, &size);
        free (text);
        text = restored;
    }
    if (length)
        *length = size;
    return text;
}
