/*  read_spm: SentencePiece models (ChatGLM-6B's ice_text.model, tokenizer.model of ChatGLM2, ChatGLM3 and Llama 2), and what
    those families put around them.                                                                 */

#include "tokenizer_internal.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81"     //  U+2581: how pieces write a space
#define UNKNOWN " \xe2\x81\x87 " //  what SentencePiece puts out for a piece it doesn't know

//  When the originals find a control piece in text that may hold such: ChatGLM-6B's code knows five, ChatGLM2 and 3 none of
//  their model's own, Llama all.
static tl_found_t
s_found (const tl_config_t *config, const tl_spm_piece_t *piece)
{
    static const char *const chatglm[] = {"<sop>", "<eop>", "[MASK]", "<pad>", "<unk>"};
    if (config->family == TL_FAMILY_GLM)
        return TL_FOUND_NEVER;
    if (config->family != TL_FAMILY_CHATGLM)
        return TL_FOUND_PARSED;
    for (size_t i = 0; i < sizeof chatglm / sizeof *chatglm; i++)
        if (strlen (chatglm[i]) == piece->size &&
            memcmp (chatglm[i], piece->text, piece->size) == 0)
            return TL_FOUND_PARSED;
    return TL_FOUND_NEVER;
}

//  The text of a piece with spaces for the sign.
static char *
s_spaced (const tl_spm_piece_t *piece, size_t *size)
{
    char *text = tl_alloc (piece->size + 1);
    *size = 0;
    for (size_t at = 0; at < piece->size;)
        if (piece->size - at >= 3 && memcmp (piece->text + at, SPACE, 3) == 0) {
            text[(*size)++] = ' ';
            at += 3;
        } else
            text[(*size)++] = piece->text[at++];
    return text;
}

static int
s_put (tl_tokenizer_t *self, const char *name, const tl_spm_piece_t *piece, int32_t id,
       tl_error_t *err)
{
    int32_t other;
    unsigned byte = 0;
    if (piece->kind == TL_SPM_BYTE) {
        //  The library has seen to it that it reads <0x..>.
        sscanf (piece->text, "<0x%2x>", &byte);
        char letter = (char)byte;
        return tl_vocab_put (self->vocab, id, &letter, 1, TL_PIECE_BYTE, &other);
    }
    if (piece->kind == TL_SPM_UNKNOWN) {
        tl_vocab_put (self->vocab, id, UNKNOWN, strlen (UNKNOWN), TL_PIECE_RAW, &other);
        if (piece->size <= TL_ADDED_LONGEST)
            tl_added_put (self->added, piece->text, piece->size, id, s_found (&self->config, piece),
                          false, &other);
        return 0;
    }
    if (piece->kind == TL_SPM_CONTROL)
        return tl_put_added (self, name, piece->text, piece->size, id, true,
                             s_found (&self->config, piece), false, err);
    size_t size;
    char *text = s_spaced (piece, &size);
    int rc = tl_vocab_put (self->vocab, id, text, size, TL_PIECE_RAW, &other);
    free (text);
    if (piece->size >= 3 && memcmp (piece->text, SPACE, 3) == 0)
        tl_vocab_mark_spaced (self->vocab, id);
    //  The library finds them in text by itself; they are kept for their names (<|im_end|>, <n>).
    if (piece->kind == TL_SPM_USER && piece->size <= TL_ADDED_LONGEST)
        tl_added_put (self->added, piece->text, piece->size, id, TL_FOUND_NEVER, false, &other);
    return rc;
}

static void
s_find_blanks (tl_tokenizer_t *self)
{
    char piece[32];
    self->line_end = tl_added_id (self->added, "<n>", 3) >= 0;
    self->tab = tl_added_id (self->added, "<|tab|>", 7) >= 0;
    for (int run = 2; run <= TL_MAX_BLANK; run++) {
        int size = snprintf (piece, sizeof piece, "<|blank_%d|>", run);
        self->blank[run] = tl_added_id (self->added, piece, (size_t)size) >= 0;
    }
}

int
tl_read_spm (tl_tokenizer_t *self, const char *name, const char *data, size_t size, tl_error_t *err)
{
    char reason[300] = "";
    size_t count;
    tl_spm_piece_t *pieces = tl_spm_check (name, data, size, &self->rules, &count, err);
    if (!pieces)
        return -1;
    int rc = 0;
    self->spm = tl_spm_open (data, size, reason, sizeof reason);
    if (!self->spm)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s is not a SentencePiece model (%s); fetch the file again", name, reason);
    for (size_t id = 0; rc == 0 && id < count; id++)
        rc = s_put (self, name, &pieces[id], (int32_t)id, err);
    free (pieces);
    if (rc == 0 && self->config.family == TL_FAMILY_CHATGLM)
        s_find_blanks (self);
    return rc;
}

int
tl_read_spm_glm (tl_tokenizer_t *self, bool roles, tl_error_t *err)
{
    static const char *const names[] = {"[MASK]",   "[gMASK]",       "[sMASK]",
                                        "sop",      "eop",           "<|system|>",
                                        "<|user|>", "<|assistant|>", "<|observation|>"};
    for (size_t i = 0; i < (roles ? 9 : 5); i++)
        if (tl_put_added (self, self->path, names[i], strlen (names[i]),
                          (int32_t)tl_vocab_count (self->vocab), true,
                          i < 5 ? TL_FOUND_NEVER : TL_FOUND_PARSED, false, err) != 0)
            return -1;
    return 0;
}
