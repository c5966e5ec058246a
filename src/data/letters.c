/*  letters: pieces of byte-level vocabularies as files write them, where every byte is a printable letter of its own
    (GPT-2's bytes_to_unicode), and the steps that all readers of such files share.                 */

#include "tokenizer_internal.h"

#include "utf8.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  Bytes that stand for themselves; the others are 256, 257 ... in their order.
static bool
s_is_printable (unsigned byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

//  The byte that a letter stands for; -1: none.
static int
s_byte (uint32_t letter)
{
    if (letter < 256)
        return s_is_printable (letter) ? (int)letter : -1;
    uint32_t other = 256;
    for (unsigned byte = 0; byte < 256; byte++)
        if (!s_is_printable (byte) && other++ == letter)
            return (int)byte;
    return -1;
}

bool
tl_unletter (const char *text, size_t size, char **bytes, size_t *bytes_size)
{
    *bytes = tl_alloc (size + 1);
    *bytes_size = 0;
    for (size_t at = 0; at < size;) {
        size_t bad;
        bool open;
        size_t length = tl_utf8_length (text + at, size - at, &bad, &open);
        int byte = length ? s_byte (tl_utf8_read (text + at, length)) : -1;
        if (byte < 0) {
            free (*bytes);
            *bytes = NULL;
            return false;
        }
        (*bytes)[(*bytes_size)++] = (char)byte;
        at += length;
    }
    return true;
}

//  ---------------------------------------------------------------------------------------------

static int
s_refused (const char *name, const char *text, size_t size, int32_t id, int32_t other,
           tl_error_t *err)
{
    int shown = (int)(size < 60 ? size : 60);
    if (other >= 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: piece %d ('%.*s') has the id or the bytes of piece %d; fetch the file "
                        "again",
                        name, id, shown, text, other);
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: piece '%.*s' has the id %d, expected 0 to %d; fetch the file again", name,
                    shown, text, id, TL_VOCAB_MOST - 1);
}

int
tl_put_lettered (tl_tokenizer_t *self, const char *name, const char *text, size_t size, int32_t id,
                 tl_error_t *err)
{
    char *bytes;
    size_t bytes_size;
    int32_t other;
    int rc;
    //  What isn't written in letters (a token with a blank in its name) can't come out of merging bytes.
    if (tl_unletter (text, size, &bytes, &bytes_size)) {
        rc = tl_vocab_put (self->vocab, id, bytes, bytes_size, TL_PIECE_ORDINARY, &other);
        free (bytes);
    } else
        rc = tl_vocab_put (self->vocab, id, text, size, TL_PIECE_RAW, &other);
    return rc == 0 ? 0 : s_refused (name, text, size, id, other, err);
}

//  Whether the piece id is this text, as it is or in letters.
static bool
s_is_piece (const tl_tokenizer_t *self, int32_t id, const char *text, size_t size)
{
    tl_piece_t piece = tl_vocab_piece (self->vocab, id);
    if (piece.size == size && memcmp (piece.bytes, text, size) == 0)
        return true;
    char *bytes;
    size_t bytes_size;
    if (!tl_unletter (text, size, &bytes, &bytes_size))
        return false;
    bool same = piece.size == bytes_size && memcmp (piece.bytes, bytes, bytes_size) == 0;
    free (bytes);
    return same;
}

int
tl_put_added (tl_tokenizer_t *self, const char *name, const char *text, size_t size, int32_t id,
              bool special, tl_found_t found, bool late, tl_error_t *err)
{
    int32_t other;
    int shown = (int)(size < 60 ? size : 60);
    bool known = id >= 0 && (size_t)id < tl_vocab_count (self->vocab) &&
                 tl_vocab_piece (self->vocab, id).kind != TL_PIECE_ABSENT;
    if (!known && tl_vocab_put (self->vocab, id, text, size,
                                special ? TL_PIECE_SPECIAL : TL_PIECE_RAW, &other) != 0)
        return s_refused (name, text, size, id, other, err);
    if (known && !s_is_piece (self, id, text, size))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: '%.*s' is added with the id %d, which is another piece ('%.*s'); take "
                        "the tokenizer's files from one place",
                        name, shown, text, id,
                        (int)(tl_vocab_piece (self->vocab, id).size < 60
                                  ? tl_vocab_piece (self->vocab, id).size
                                  : 60),
                        tl_vocab_piece (self->vocab, id).bytes);
    if (tl_added_put (self->added, text, size, id, found, late, &other) != 0) {
        if (other >= 0)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: '%.*s' is added with the ids %d and %d; fetch the file again",
                            name, shown, text, other, id);
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: the added token %d has a name of %zu bytes, expected 1 to %d; fetch "
                        "the file again",
                        name, id, size, TL_ADDED_LONGEST);
    }
    if (known && special)
        tl_vocab_mark (self->vocab, id, TL_PIECE_SPECIAL);
    return 0;
}

int
tl_put_merge (tl_tokenizer_t *self, const char *name, size_t entry, const char *left,
              size_t left_size, const char *right, size_t right_size, tl_error_t *err)
{
    static const char *const what[] = {"the left part", "the right part", "the two together"};
    char *one = NULL, *two = NULL;
    size_t one_size = 0, two_size = 0;
    int which = 0;
    int rc = -1;
    if (tl_unletter (left, left_size, &one, &one_size)) {
        which = 1;
        if (tl_unletter (right, right_size, &two, &two_size))
            rc = tl_bpe_merge (self->bpe, one, one_size, two, two_size, &which);
    }
    free (one);
    free (two);
    if (rc != 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: merge %zu joins '%.*s' and '%.*s', but %s is no piece of the "
                        "vocabulary; fetch the tokenizer's files again",
                        name, entry, (int)(left_size < 60 ? left_size : 60), left,
                        (int)(right_size < 60 ? right_size : 60), right, what[which]);
    return 0;
}

int
tl_seal_bpe (tl_tokenizer_t *self, const char *name, bool lossy, tl_error_t *err)
{
    int first;
    int32_t hole = tl_vocab_hole (self->vocab);
    if (tl_vocab_count (self->vocab) == 0)
        return tl_fail (err, TL_BAD_INPUT, "%s: the vocabulary is empty; fetch the file again",
                        name);
    if (hole >= 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: there is no piece with the id %d, though there are %zu ids; fetch the "
                        "file again",
                        name, hole, tl_vocab_count (self->vocab));
    size_t missing = tl_bpe_seal (self->bpe, &first);
    if (missing == 256 || (missing && !lossy))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: %zu of the 256 bytes have no piece of their own, the first is 0x%02x; "
                        "this isn't a whole byte-level vocabulary: fetch the file again",
                        name, missing, first);
    return 0;
}
