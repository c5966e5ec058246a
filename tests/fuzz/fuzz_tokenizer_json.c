//  Any bytes as a tokenizer.json: refused with a sentence, or a tokenizer.

#include "fuzz_tokenizer.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_error_t err = {TL_OK, ""};
    tl_tokenizer_t *tokenizer = fuzz_empty (TL_FAMILY_LLAMA);
    int rc = tl_read_hf (tokenizer, "input", (const char *)data, size, &err);
    fuzz_use (&tokenizer, rc, &err, data, size);
    return 0;
}
