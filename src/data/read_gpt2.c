/*  read_gpt2: vocab.json (piece to id) and merges.txt (a pair of pieces a line, most important first), as GPT-2 and
    Qwen2 have them. Expression and special tokens are not in the files.                            */

#include "tokenizer_internal.h"

#include <jansson.h>
#include <string.h>

static int
s_read_vocab (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
              tl_error_t *err)
{
    json_error_t reason;
    json_t *vocab = json_loadb (data, size, JSON_REJECT_DUPLICATES, &reason);
    if (!json_is_object (vocab)) {
        json_decref (vocab);
        return tl_fail (err, TL_BAD_INPUT,
                        "%s:%d: not a JSON object of pieces and ids (%s); fetch the file again",
                        name, vocab ? 1 : reason.line, vocab ? "another value" : reason.text);
    }
    const char *piece;
    json_t *value;
    int rc = 0;
    json_object_foreach (vocab, piece, value)
    {
        json_int_t id = json_is_integer (value) ? json_integer_value (value) : -1;
        rc = tl_put_lettered (self, name, piece, strlen (piece),
                              id >= 0 && id < TL_VOCAB_MOST ? (int32_t)id : -1, err);
        if (rc != 0)
            break;
    }
    json_decref (vocab);
    return rc;
}

static int
s_read_merges (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
               tl_error_t *err)
{
    const char *at = data, *end = data + size;
    for (size_t number = 1; at < end; number++) {
        const char *next = memchr (at, '\n', (size_t)(end - at));
        const char *line = at;
        size_t length = (size_t)((next ? next : end) - at);
        at = next ? next + 1 : end;
        if (length && line[length - 1] == '\r')
            length--;
        //  A piece may begin with '#': only the first line can be a comment.
        if (length == 0 || (number == 1 && length >= 8 && memcmp (line, "#version", 8) == 0))
            continue;
        const char *space = memchr (line, ' ', length);
        if (!space || memchr (space + 1, ' ', length - (size_t)(space + 1 - line)))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s:%zu: expected two pieces with one space between them; fetch the "
                            "file again",
                            name, number);
        size_t left = (size_t)(space - line);
        if (tl_put_merge (self, name, number, line, left, space + 1, length - left - 1, err) != 0)
            return -1;
    }
    return 0;
}

int
tl_read_gpt2 (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
              const char *merges_name, const char *merges, size_t merges_size, bool qwen2,
              tl_error_t *err)
{
    static const char end[] = "<|endoftext|>";
    const char *pattern = qwen2 ? TL_SPLIT_QWEN2 : TL_SPLIT_GPT2;
    if (s_read_vocab (self, name, data, size, err) != 0)
        return -1;
    self->bpe = tl_bpe_new (self->vocab, false);
    self->split = tl_split_new ();
    self->nfc = qwen2;
    if (s_read_merges (self, merges_name, merges, merges_size, err) != 0 ||
        tl_seal_bpe (self, name, true, err) != 0 ||
        tl_split_add (self->split, name, pattern, strlen (pattern), 14, TL_SPLIT_BOTH, err) != 0)
        return -1;
    int32_t id = tl_vocab_find (self->vocab, end, strlen (end));
    if (id < 0)
        return 0;
    return tl_put_added (self, name, end, strlen (end), id, true, TL_FOUND_PARSED, false, err);
}
