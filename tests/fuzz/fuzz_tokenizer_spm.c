/*  Any bytes as a SentencePiece model, the table of its normaliser included: refused with a sentence before the library can
    stumble over it, or a tokenizer. Two families by turns, for what they put around it.            */

#include "fuzz_tokenizer.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    bool glm = size % 2;
    tl_error_t err = {TL_OK, ""};
    tl_tokenizer_t *tokenizer = fuzz_empty (glm ? TL_FAMILY_GLM : TL_FAMILY_CHATGLM);
    int rc = tl_read_spm (tokenizer, "input", (const char *)data, size, &err);
    if (rc == 0 && glm)
        rc = tl_read_spm_glm (tokenizer, true, &err);
    fuzz_use (&tokenizer, rc, &err, data, size);
    return 0;
}
