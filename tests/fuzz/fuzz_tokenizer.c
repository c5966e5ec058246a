//  fuzz_tokenizer: see fuzz_tokenizer.h.

#include "fuzz_tokenizer.h"

#include "data/utf8.h"

#include "assert.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

tl_tokenizer_t *
fuzz_empty (tl_family_t family)
{
    tl_config_t config = {.family = family,
                          .vocab = 1 << 20,
                          .max_positions = 100,
                          .bos = -1,
                          .eos = -1,
                          .pad = -1,
                          .gmask = -1,
                          .mask = -1,
                          .sop = -1};
    return tl_tokenizer_empty ("input", &config);
}

static void
s_decode (const tl_tokenizer_t *tokenizer, const int32_t *ids, size_t count)
{
    size_t size, streamed = 0, more;
    char *text = tl_tokenizer_decode (tokenizer, ids, count, &size);
    tl_decoder_t *decoder = tl_decoder_new (tokenizer);
    for (size_t i = 0; i <= count; i++) {
        const char *part = i < count ? tl_decoder_put (decoder, ids[i], &more)
                                     : tl_decoder_finish (decoder, &more);
        tl_assert (more <= size - streamed && memcmp (part, text + streamed, more) == 0);
        tl_assert (tl_utf8_valid (part, more) == more);
        streamed += more;
    }
    tl_assert (streamed == size && text[size] == 0);
    tl_decoder_destroy (&decoder);
    free (text);
}

void
fuzz_text (const tl_tokenizer_t *tokenizer, const uint8_t *data, size_t size)
{
    for (int parsed = 0; parsed < 2; parsed++) {
        size_t count;
        int32_t *ids =
            parsed ? tl_tokenizer_encode_parsed (tokenizer, (const char *)data, size, &count)
                   : tl_tokenizer_encode (tokenizer, (const char *)data, size, &count);
        for (size_t i = 0; i < count; i++)
            tl_assert (ids[i] >= 0 && (size_t)ids[i] < tl_tokenizer_pieces (tokenizer));
        s_decode (tokenizer, ids, count);
        free (ids);
    }
    int32_t ids[64];
    size_t count = 0;
    for (; count < 64 && count < size; count++)
        ids[count] = (int32_t)(data[count] * 7919u % (tl_tokenizer_pieces (tokenizer) + 2)) - 1;
    s_decode (tokenizer, ids, count);
}

void
fuzz_use (tl_tokenizer_t **tokenizer, int rc, const tl_error_t *err, const uint8_t *data,
          size_t size)
{
    if (rc != 0)
        tl_assert (err->code == TL_BAD_INPUT && strlen (err->text) > 20);
    else {
        tl_chat_find (*tokenizer, &(tl_hints_t){0});
        fuzz_text (*tokenizer, data, size < 64 ? size : 64);
    }
    tl_tokenizer_destroy (tokenizer);
}
