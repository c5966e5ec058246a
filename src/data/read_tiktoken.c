/*  read_tiktoken: GLM-4's tokenizer.model: a line for each piece, its bytes in base64, a space, its rank, which is its id.
    Pattern and special tokens are not in the file but in the vendor's code, and here.              */

#include "tokenizer_internal.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST_LINE = 8192 };

//  Behind the pieces of the file, in this order.
static const char *const s_special[] = {"<|endoftext|>",
                                        "[MASK]",
                                        "[gMASK]",
                                        "[sMASK]",
                                        "<sop>",
                                        "<eop>",
                                        "<|system|>",
                                        "<|user|>",
                                        "<|assistant|>",
                                        "<|observation|>",
                                        "<|begin_of_image|>",
                                        "<|end_of_image|>",
                                        "<|begin_of_video|>",
                                        "<|end_of_video|>"};

static int
s_broken_line (const char *name, size_t number, const char *what, tl_error_t *err)
{
    return tl_fail (err, TL_BAD_INPUT,
                    "%s:%zu: %s, expected a piece in base64, a space and its rank; fetch the file "
                    "again",
                    name, number, what);
}

static int
s_read_line (tl_tokenizer_t *self, const char *name, size_t number, const char *line, size_t size,
             tl_error_t *err)
{
    unsigned char bytes[LONGEST_LINE];
    size_t used = 0;
    const char *space = memchr (line, ' ', size);
    if (size > LONGEST_LINE)
        return s_broken_line (name, number, "a line of more than 8192 bytes", err);
    if (!space)
        return s_broken_line (name, number, "there is no space", err);
    if (sodium_base642bin (bytes, sizeof bytes, line, (size_t)(space - line), NULL, &used, NULL,
                           sodium_base64_VARIANT_ORIGINAL) != 0 ||
        used == 0)
        return s_broken_line (name, number, "the piece is not base64", err);
    int64_t rank = 0;
    size_t digits = 0;
    for (const char *at = space + 1; at < line + size && digits < 9; at++, digits++) {
        if (*at < '0' || *at > '9')
            return s_broken_line (name, number, "the rank is not a number", err);
        rank = rank * 10 + (*at - '0');
    }
    if (digits == 0 || space + 1 + digits != line + size)
        return s_broken_line (name, number, "the rank is not a number", err);
    int32_t other;
    if (tl_vocab_put (self->vocab, (int32_t)rank, (const char *)bytes, used, TL_PIECE_ORDINARY,
                      &other) == 0)
        return 0;
    if (other < 0)
        return s_broken_line (name, number, "the rank is too large", err);
    return tl_fail (err, TL_BAD_INPUT,
                    "%s:%zu: piece and rank %d belong to piece %d already; fetch the file again",
                    name, number, (int)rank, other);
}

int
tl_read_tiktoken (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
                  tl_error_t *err)
{
    if (self->config.family != TL_FAMILY_GLM)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s is a tiktoken file, of which only GLM-4's are known here; put the "
                        "model's tokenizer.json there",
                        name);
    const char *at = data, *end = data + size;
    for (size_t number = 1; at < end; number++) {
        const char *next = memchr (at, '\n', (size_t)(end - at));
        size_t length = (size_t)((next ? next : end) - at);
        if (length && at[length - 1] == '\r')
            length--;
        if (length && s_read_line (self, name, number, at, length, err) != 0)
            return -1;
        at = next ? next + 1 : end;
    }
    self->bpe = tl_bpe_new (self->vocab, true);
    if (tl_seal_bpe (self, name, false, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof s_special / sizeof *s_special; i++)
        if (tl_put_added (self, name, s_special[i], strlen (s_special[i]),
                          (int32_t)tl_vocab_count (self->vocab), true, TL_FOUND_PARSED, false,
                          err) != 0)
            return -1;
    self->split = tl_split_new ();
    return tl_split_add (self->split, name, TL_SPLIT_LLAMA3, strlen (TL_SPLIT_LLAMA3), 16,
                         TL_SPLIT_MATCHES, err);
}
