//  Any bytes as vocab.json (the first line) and merges.txt (the rest): refused with a sentence, or a tokenizer.

#include "fuzz_tokenizer.h"

#include <string.h>

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_error_t err = {TL_OK, ""};
    const uint8_t *line = size ? memchr (data, '\n', size) : NULL;
    size_t vocab = line ? (size_t)(line - data) : size;
    tl_tokenizer_t *tokenizer = fuzz_empty (TL_FAMILY_LLAMA);
    int rc = tl_read_gpt2 (tokenizer, "vocab", (const char *)data, vocab, "merges",
                           (const char *)data + vocab, size - vocab, false, &err);
    fuzz_use (&tokenizer, rc, &err, data, size);
    return 0;
}
