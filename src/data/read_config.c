/*  read_config: tokenizer_config.json, which lies beside most tokenizers: the chat template (only looked at, never run),
    whether a bos is put, and tokens added behind the file's own.                                   */

#include "tokenizer_internal.h"

#include "memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

void
tl_hints_clear (tl_hints_t *self)
{
    free (self->chat_template);
    free (self->class);
    free (self->name);
    memset (self, 0, sizeof *self);
}

static char *
s_copy (const json_t *value)
{
    return json_is_string (value) ? tl_strdup (json_string_value (value)) : NULL;
}

//  A text, or a list of {name, template}, of which "default" is taken.
static char *
s_template (const json_t *value)
{
    size_t i;
    const json_t *one;
    json_array_foreach (value, i, one)
    {
        const char *name = json_string_value (json_object_get (one, "name"));
        if (name && strcmp (name, "default") == 0)
            return s_copy (json_object_get (one, "template"));
    }
    return s_copy (value);
}

//  One entry of added_tokens_decoder.
static int
s_added (tl_tokenizer_t *self, const char *file, const char *key, const json_t *token,
         tl_error_t *err)
{
    const json_t *content = json_object_get (token, "content");
    const char *text = json_string_value (content);
    size_t size = json_string_length (content);
    bool special = json_is_true (json_object_get (token, "special"));
    char *end = NULL;
    unsigned long id = strtoul (key, &end, 10);
    if (!text || size == 0 || size > TL_ADDED_LONGEST || end == key || *end || id >= TL_VOCAB_MOST)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: added_tokens_decoder: '%.40s' is not an id with a content of 1 to %d "
                        "bytes; fetch the file again",
                        file, key, TL_ADDED_LONGEST);
    int32_t known = tl_added_id (self->added, text, size);
    if (known == (int32_t)id)
        return 0;
    if (known >= 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: added_tokens_decoder gives '%.60s' the id %lu, %s has it as %d; take "
                        "both files from the same place",
                        file, text, id, self->path, known);
    return tl_put_added (self, file, text, size, (int32_t)id, special,
                         special ? TL_FOUND_PARSED : TL_FOUND_ALWAYS, false, err);
}

static int
s_added_tokens (tl_tokenizer_t *self, const char *file, json_t *tokens, tl_error_t *err)
{
    const char *key;
    json_t *token;
    json_object_foreach (tokens, key, token)
    {
        if (s_added (self, file, key, token, err) != 0)
            return -1;
    }
    int32_t hole = tl_vocab_hole (self->vocab);
    if (hole >= 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: added_tokens_decoder adds ids up to %zu, but there is none for %d; "
                        "take it and %s from the same place",
                        file, tl_vocab_count (self->vocab) - 1, hole, self->path);
    return 0;
}

int
tl_read_tokenizer_config (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
                          tl_hints_t *hints, tl_error_t *err)
{
    json_error_t reason;
    //  model_max_length is often 10^30.
    json_t *root = json_loadb (data, size, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &reason);
    if (!root)
        return tl_fail (err, TL_BAD_INPUT, "%s:%d: not valid JSON (%s); fetch the file again", name,
                        reason.line, reason.text);
    tl_hints_clear (hints);
    const json_t *bos = json_object_get (root, "add_bos_token");
    hints->chat_template = s_template (json_object_get (root, "chat_template"));
    hints->class = s_copy (json_object_get (root, "tokenizer_class"));
    hints->name = s_copy (json_object_get (root, "name_or_path"));
    hints->bos_said = json_is_boolean (bos);
    hints->bos = json_is_true (bos);
    int rc = 0;
    if (self)
        rc = s_added_tokens (self, name, json_object_get (root, "added_tokens_decoder"), err);
    json_decref (root);
    return rc;
}
