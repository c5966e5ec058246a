/*  Any bytes as a config.json: refused with a sentence, or numbers within bounds that fit each other. */

#include "model/config.h"

#include "assert.h"

#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_error_t err = {TL_OK, ""};
    tl_config_t config;
    if (tl_config_parse ("input", (const char *)data, size, &config, &err) != 0) {
        tl_assert (err.code == TL_BAD_INPUT && strlen (err.text) > 20);
        return 0;
    }
    tl_assert (config.vocab && config.hidden && config.inner && config.blocks && config.heads);
    tl_assert (config.kv_heads && config.heads % config.kv_heads == 0 && config.head_dim % 2 == 0);
    tl_assert (config.eos < (int64_t)config.vocab && config.norm_eps > 0 && config.rope_base >= 1);
    json_t *canonical = tl_config_canonical (&config);
    tl_assert (canonical);
    json_decref (canonical);
    return 0;
}
