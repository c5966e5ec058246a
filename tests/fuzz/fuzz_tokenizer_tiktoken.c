/*  Any bytes as lines of GLM-4's tokenizer.model, behind those of the 256 single bytes, without which there is no such
    tokenizer: refused with a sentence, or a tokenizer.                                             */

#include "fuzz_tokenizer.h"

#include "tests/tiny_bpe.h"

#include <stdlib.h>

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    static char *bytes;
    static const char *const none[] = {NULL};
    tl_error_t err = {TL_OK, ""};
    tl_text_t text = {0};
    if (!bytes)
        bytes = tiny_bpe_tiktoken (none);
    tl_text_words (&text, bytes);
    tl_text_add (&text, (const char *)data, size);
    tl_tokenizer_t *tokenizer = fuzz_empty (TL_FAMILY_GLM);
    int rc = tl_read_tiktoken (tokenizer, "input", text.data, text.size, &err);
    fuzz_use (&tokenizer, rc, &err, data, size);
    free (text.data);
    return 0;
}
