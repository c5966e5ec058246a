/*  Any bytes as text, put through a tokenizer of each kind: ids are the vocabulary's, what is decoded at once and one by one is
    the same, and byte-level ones give back what came in, with U+FFFD for what is no UTF-8.         */

#include "fuzz_tokenizer.h"

#include "tests/tiny_bpe.h"
#include "tests/tiny_tokenizer.h"

#include "assert.h"
#include "file.h"
#include "data/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPM, GPT2, QWEN2, GLM4, KINDS };

static tl_tokenizer_t *s_tokenizers[KINDS];

static tl_tokenizer_t *
s_json (tl_family_t family, const tiny_bpe_t *spec)
{
    tl_error_t err = {TL_OK, ""};
    char *json = tiny_bpe_json (spec);
    tl_tokenizer_t *tokenizer = fuzz_empty (family);
    if (tl_read_hf (tokenizer, "json", json, strlen (json), &err) != 0)
        fprintf (stderr, "%s\n", err.text), abort ();
    free (json);
    return tokenizer;
}

static void
s_open (void)
{
    static const char *const merges[] = {"a b", "ab c", "\u0120 a", "\u010a \u010a", NULL};
    static const char *const pieces[] = {"ab", "abc", " a", "12", "  ", NULL};
    tl_error_t err = {TL_OK, ""};
    char directory[] = "/tmp/tl-fuzz-XXXXXX";
    tl_config_t config = tiny_tokenizer_config (TL_FAMILY_CHATGLM);
    if (!mkdtemp (directory) || tiny_tokenizer_write (TL_FAMILY_CHATGLM, directory, &err) != 0 ||
        !(s_tokenizers[SPM] = tl_tokenizer_open (directory, &config, &err)))
        fprintf (stderr, "%s\n", err.text), abort ();
    tl_remove_tree (directory);
    s_tokenizers[GPT2] = s_json (TL_FAMILY_LLAMA, &(tiny_bpe_t){.merges = merges});
    s_tokenizers[QWEN2] = s_json (
        TL_FAMILY_QWEN2,
        &(tiny_bpe_t){.merges = merges,
                      .normalizer = "{\"type\": \"NFC\"}",
                      .added = "[{\"id\": 260, \"content\": \"<|im_end|>\", \"special\": true}, "
                               "{\"id\": 261, \"content\": \"<t>\", \"special\": false}, "
                               "{\"id\": 262, \"content\": \"\u00e9!\", \"normalized\": true}]"});
    char *lines = tiny_bpe_tiktoken (pieces);
    s_tokenizers[GLM4] = fuzz_empty (TL_FAMILY_GLM);
    tl_assert (tl_read_tiktoken (s_tokenizers[GLM4], "lines", lines, strlen (lines), &err) == 0);
    free (lines);
}

static void
s_comes_back (const tl_tokenizer_t *tokenizer, const uint8_t *data, size_t size)
{
    size_t expected_size, count, got_size;
    char *expected = tl_utf8_repair ((const char *)data, size, &expected_size);
    int32_t *ids = tl_tokenizer_encode (tokenizer, (const char *)data, size, &count);
    char *got = tl_tokenizer_decode (tokenizer, ids, count, &got_size);
    tl_assert (got_size == expected_size && memcmp (got, expected, got_size) == 0);
    free (got);
    free (ids);
    free (expected);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    if (!s_tokenizers[SPM])
        s_open ();
    for (int kind = 0; kind < KINDS; kind++)
        fuzz_text (s_tokenizers[kind], data, size);
    s_comes_back (s_tokenizers[GPT2], data, size);
    s_comes_back (s_tokenizers[GLM4], data, size);
    return 0;
}
