/*  Any bytes as training text: refused with file and line, or examples that end with something to learn. */

#include "data/internal.h"

#include "assert.h"

#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static volatile unsigned s_sink;

static int
s_take (void *arg, const tl_example_t *example, tl_error_t *err)
{
    unsigned sum = 0;
    tl_assert (example->count >= 1 && example->count < 1 << 20);
    tl_assert (example->said[example->count - 1].speaker == TL_SAID_ASSISTANT);
    for (size_t i = 0; i < example->count; i++)
        for (size_t byte = 0; byte < example->said[i].size; byte++)
            sum += (unsigned char)example->said[i].text[byte];
    s_sink += sum;
    return 0;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_error_t err = {TL_OK, ""};
    if (tl_examples_read ("input", (const char *)data, size, NULL, 0, s_take, NULL, &err) != 0) {
        tl_assert (err.code == TL_BAD_INPUT && strncmp (err.text, "input:", 6) == 0);
        tl_assert (strlen (err.text) > 30);
    }
    return 0;
}
