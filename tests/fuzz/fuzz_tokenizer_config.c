//  Any bytes as the tokenizer_config.json beside a small tokenizer: refused with a sentence, or followed.

#include "fuzz_tokenizer.h"

#include "assert.h"

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    static const char vocab[] = "{\"a\": 0, \"b\": 1}";
    tl_error_t err = {TL_OK, ""};
    tl_hints_t hints = {0};
    tl_tokenizer_t *tokenizer = fuzz_empty (TL_FAMILY_QWEN2);
    int rc =
        tl_read_gpt2 (tokenizer, "input", vocab, sizeof vocab - 1, "merges", "", 0, false, &err);
    tl_assert (rc == 0);
    rc = tl_read_tokenizer_config (tokenizer, "config", (const char *)data, size, &hints, &err);
    if (rc == 0)
        tl_chat_find (tokenizer, &hints);
    tl_said_t said = {TL_SAID_USER, (char *)data, size < 300 ? size : 300};
    tl_prompt_t prompt;
    if (rc == 0 && tl_prompt_chat (&prompt, tokenizer, &said, 1, &err) == 0)
        tl_prompt_clear (&prompt);
    tl_hints_clear (&hints);
    fuzz_use (&tokenizer, rc, &err, data, size);
    return 0;
}
