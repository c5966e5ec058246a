//  Any bytes as a GGUF file with a tokenizer in its metadata: refused with a sentence, or a tokenizer.

#include "fuzz_tokenizer.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_error_t err = {TL_OK, ""};
    tl_hints_t hints = {0};
    crypto_generichash_state hash;
    crypto_generichash_init (&hash, NULL, 0, 32);
    //  Aligned, as a mapping is.
    uint64_t *copy = tl_alloc (size + 8);
    memcpy (copy, data, size);
    tl_gguf_t *gguf = tl_gguf_parse ("input", copy, size, &err);
    if (gguf) {
        tl_tokenizer_t *tokenizer = fuzz_empty (TL_FAMILY_LLAMA);
        int rc = tl_read_gguf (tokenizer, gguf, &hash, &hints, &err);
        fuzz_use (&tokenizer, rc, &err, data, size);
    }
    tl_hints_clear (&hints);
    tl_gguf_destroy (&gguf);
    free (copy);
    return 0;
}
