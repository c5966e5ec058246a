//  tiny_bpe: see tiny_bpe.h.

#include "tiny_bpe.h"

#include "file.h"
#include "memory.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  GPT-2's letter for a byte, in UTF-8 and escaped for JSON.
static void
s_letter (int byte, char out[8])
{
    int letter = byte, others = 0;
    for (int i = 0; i <= byte; i++) {
        bool plain = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        letter = plain ? i : 256 + others++;
    }
    if (letter < 0x80)
        snprintf (out, 8, letter == '"' || letter == '\\' ? "\\%c" : "%c", letter);
    else
        snprintf (out, 8, "%c%c", 0xc0 | letter >> 6, 0x80 | (letter & 0x3f));
}

static char *
s_join (char *text, char *more)
{
    char *joined = tl_format ("%s%s", text, more);
    free (text);
    free (more);
    return joined;
}

static char *
s_vocab (const tiny_bpe_t *spec)
{
    char *text = tl_strdup ("{");
    char letter[8];
    int id = 0;
    for (; id < 256; id++) {
        s_letter (id, letter);
        bool missing = spec->missing && id == spec->missing;
        text = s_join (text,
                       tl_format ("%s\"%s\": %d", id ? ", " : "", missing ? "(none)" : letter, id));
    }
    for (const char *const *merge = spec->merges; merge && *merge; merge++, id++) {
        const char *space = strchr (*merge, ' ');
        text = s_join (
            text, tl_format (", \"%.*s%s\": %d", (int)(space - *merge), *merge, space + 1, id));
    }
    return s_join (text, tl_strdup ("}"));
}

char *
tiny_bpe_vocab (const tiny_bpe_t *spec)
{
    return s_vocab (spec);
}

char *
tiny_bpe_merges (const tiny_bpe_t *spec)
{
    char *text = tl_strdup ("#version: 0.2\n");
    for (const char *const *merge = spec->merges; merge && *merge; merge++)
        text = s_join (text, tl_format ("%s\n", *merge));
    return text;
}

char *
tiny_bpe_json (const tiny_bpe_t *spec)
{
    char *merges = tl_strdup ("");
    for (const char *const *merge = spec->merges; merge && *merge; merge++) {
        const char *space = strchr (*merge, ' '), *comma = merge == spec->merges ? "" : ", ";
        merges = s_join (merges, spec->pairs ? tl_format ("%s[\"%.*s\", \"%s\"]", comma,
                                                          (int)(space - *merge), *merge, space + 1)
                                             : tl_format ("%s\"%s\"", comma, *merge));
    }
    char *vocab = s_vocab (spec);
    char *json = tl_format (
        "{\"version\": \"1.0\", \"added_tokens\": %s, \"normalizer\": %s, \"pre_tokenizer\": %s, "
        "\"post_processor\": %s, \"decoder\": %s, \"model\": {\"type\": \"BPE\", %s\"vocab\": %s, "
        "\"merges\": [%s]}}",
        spec->added ? spec->added : "[]", spec->normalizer ? spec->normalizer : "null",
        spec->pre_tokenizer ? spec->pre_tokenizer
                            : "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
        spec->post_processor ? spec->post_processor : "null",
        spec->decoder ? spec->decoder : "{\"type\": \"ByteLevel\"}", spec->model ? spec->model : "",
        vocab, merges);
    free (vocab);
    free (merges);
    return json;
}

char *
tiny_bpe_tiktoken (const char *const *pieces)
{
    char *text = tl_strdup ("");
    char line[256];
    int id = 0;
    for (; id < 256 || *pieces; id++) {
        unsigned char byte = (unsigned char)id;
        const unsigned char *from = id < 256 ? &byte : (const unsigned char *)*pieces;
        size_t size = id < 256 ? 1 : strlen (*pieces);
        sodium_bin2base64 (line, sizeof line, from, size, sodium_base64_VARIANT_ORIGINAL);
        text = s_join (text, tl_format ("%s %d\n", line, id));
        pieces += id >= 256;
    }
    return text;
}

int
tiny_bpe_put (const char *directory, const char *name, const char *text, tl_error_t *err)
{
    char *path = tl_format ("%s/%s", directory, name);
    int rc = tl_file_write (path, text, strlen (text), 0644, err);
    free (path);
    return rc;
}
