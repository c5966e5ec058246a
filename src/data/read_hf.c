/*  read_hf: tokenizer.json of Hugging Face's tokenizers, byte-level BPE only (GPT-2, Llama 3, Qwen2, SmolLM2, GLM-4). The
    file describes a pipeline; each of its parts is either followed exactly or refused by name.     */

#include "tokenizer_internal.h"

#include "memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

//  One file being read.
typedef struct {
    tl_tokenizer_t *to;
    const char *name; //  of the file
    const json_t *root;
    bool byte_level; //  the pre-tokenizer turned text into bytes: nothing may come behind
    tl_error_t *err;
} reader_t;

//  key (a path for people) isn't followed here.
static int
s_refuse (const reader_t *self, const char *key, const json_t *value)
{
    char *shown = value ? json_dumps (value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    tl_fail (self->err, TL_BAD_INPUT,
             "%s: %s is %.120s, which isn't supported; use a model of a supported family, or its "
             "SentencePiece file",
             self->name, key, shown ? shown : "missing");
    free (shown);
    return -1;
}

static const char *
s_type (const json_t *object)
{
    const char *type = json_string_value (json_object_get (object, "type"));
    return type ? type : "";
}

static bool
s_is (const json_t *object, const char *type)
{
    return strcmp (s_type (object), type) == 0;
}

//  Absent, null, false, 0 and "" all mean: not used.
static bool
s_unused (const json_t *object, const char *key)
{
    const json_t *value = json_object_get (object, key);
    return !value || json_is_null (value) || json_is_false (value) ||
           (json_is_string (value) && json_string_length (value) == 0) ||
           (json_is_number (value) && json_number_value (value) == 0);
}

static int32_t
s_id (const json_t *value)
{
    json_int_t id = json_is_integer (value) ? json_integer_value (value) : -1;
    return id >= 0 && id < TL_VOCAB_MOST ? (int32_t)id : -1;
}

//  ---------------------------------------------------------------------------------------------
//  Model

static int
s_merge (const reader_t *self, size_t index, const json_t *merge)
{
    const json_t *one = json_array_get (merge, 0), *two = json_array_get (merge, 1);
    if (json_is_string (one) && json_is_string (two) && json_array_size (merge) == 2)
        return tl_put_merge (self->to, self->name, index, json_string_value (one),
                             json_string_length (one), json_string_value (two),
                             json_string_length (two), self->err);
    const char *line = json_string_value (merge);
    size_t size = json_string_length (merge);
    const char *space = line ? memchr (line, ' ', size) : NULL;
    if (!space || memchr (space + 1, ' ', size - (size_t)(space + 1 - line)))
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: model.merges: entry %zu is neither \"a b\" nor [\"a\", \"b\"]; fetch "
                        "the file again",
                        self->name, index);
    size_t left = (size_t)(space - line);
    return tl_put_merge (self->to, self->name, index, line, left, space + 1, size - left - 1,
                         self->err);
}

static int
s_vocab (const reader_t *self, json_t *vocab)
{
    const char *piece;
    json_t *id;
    if (!json_is_object (vocab))
        return s_refuse (self, "model.vocab", NULL);
    json_object_foreach (vocab, piece, id)
    {
        if (tl_put_lettered (self->to, self->name, piece, strlen (piece), s_id (id), self->err))
            return -1;
    }
    return 0;
}

static int
s_model (const reader_t *self)
{
    static const char *const unused[] = {"dropout", "continuing_subword_prefix",
                                         "end_of_word_suffix"};
    json_t *model = json_object_get (self->root, "model"), *merges;
    size_t i;
    const json_t *merge;
    //  Old files have no type; BPE is told by its merges.
    merges = json_object_get (model, "merges");
    if ((*s_type (model) && !s_is (model, "BPE")) || !json_is_array (merges))
        return s_refuse (self, "model.type",
                         json_object_get (model, "type") ? json_object_get (model, "type") : model);
    for (i = 0; i < sizeof unused / sizeof *unused; i++)
        if (!s_unused (model, unused[i]))
            return s_refuse (self, unused[i], json_object_get (model, unused[i]));
    if (s_vocab (self, json_object_get (model, "vocab")) != 0)
        return -1;
    self->to->bpe = tl_bpe_new (self->to->vocab, false);
    if (json_is_true (json_object_get (model, "ignore_merges")))
        tl_bpe_whole_first (self->to->bpe);
    json_array_foreach (merges, i, merge)
    {
        if (s_merge (self, i, merge) != 0)
            return -1;
    }
    return 0;
}

//  An unknown token and bytes as pieces would matter where a byte has no piece.
static bool
s_lossy (const reader_t *self)
{
    const json_t *model = json_object_get (self->root, "model");
    return s_unused (model, "unk_token") && s_unused (model, "byte_fallback");
}

//  ---------------------------------------------------------------------------------------------
//  Added tokens

static int
s_added (const reader_t *self, size_t index, const json_t *token)
{
    static const char *const unused[] = {"single_word", "lstrip", "rstrip"};
    const json_t *content = json_object_get (token, "content");
    const char *text = json_string_value (content);
    size_t size = json_string_length (content), bytes_size;
    int32_t id = s_id (json_object_get (token, "id")), other;
    bool special = json_is_true (json_object_get (token, "special"));
    bool late = self->to->nfc && json_is_true (json_object_get (token, "normalized"));
    char *bytes;
    if (!text || id < 0)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: added_tokens: entry %zu has no content or no id; fetch the file again",
                        self->name, index);
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++)
        if (!s_unused (token, unused[i]))
            return s_refuse (self, unused[i], token);
    //  What isn't in the vocabulary is decoded like what is: by letters, where it has no others.
    if (!special && (size_t)id >= tl_vocab_count (self->to->vocab) &&
        tl_unletter (text, size, &bytes, &bytes_size)) {
        tl_vocab_put (self->to->vocab, id, bytes, bytes_size, TL_PIECE_RAW, &other);
        free (bytes);
    }
    return tl_put_added (self->to, self->name, text, size, id, special,
                         special ? TL_FOUND_PARSED : TL_FOUND_ALWAYS, late, self->err);
}

static int
s_added_tokens (const reader_t *self)
{
    size_t i;
    const json_t *token, *tokens = json_object_get (self->root, "added_tokens");
    json_array_foreach (tokens, i, token)
    {
        if (s_added (self, i, token) != 0)
            return -1;
    }
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Normalizer and pre-tokenizer

static int
s_normalizer (reader_t *self, const json_t *normalizer)
{
    size_t i;
    const json_t *one, *list = json_object_get (normalizer, "normalizers");
    if (!normalizer || json_is_null (normalizer))
        return 0;
    if (s_is (normalizer, "NFC")) {
        self->to->nfc = true;
        return 0;
    }
    if (!s_is (normalizer, "Sequence") || !json_is_array (list))
        return s_refuse (self, "normalizer", normalizer);
    json_array_foreach (list, i, one)
    {
        if (!s_is (one, "NFC"))
            return s_refuse (self, "normalizer", one);
        self->to->nfc = true;
    }
    return 0;
}

static int
s_split (reader_t *self, const json_t *split)
{
    const json_t *pattern = json_object_get (split, "pattern");
    const json_t *regex = json_object_get (pattern, "Regex"),
                 *literal = json_object_get (pattern, "String");
    const char *behavior = json_string_value (json_object_get (split, "behavior"));
    bool invert = json_is_true (json_object_get (split, "invert"));
    bool isolated = behavior && strcmp (behavior, "Isolated") == 0;
    bool matches = behavior && strcmp (behavior, "Removed") == 0 && invert;
    if (json_is_string (regex) && (isolated || matches))
        return tl_split_add (self->to->split, self->name, json_string_value (regex),
                             json_string_length (regex), 14,
                             matches ? TL_SPLIT_MATCHES : TL_SPLIT_BOTH, self->err);
    if (json_string_length (literal) > 0 && isolated)
        return tl_split_add_literal (self->to->split, self->name, json_string_value (literal),
                                     json_string_length (literal), self->err);
    return s_refuse (self, "pre_tokenizer", split);
}

//  A part of the pre-tokenizer that isn't a sequence.
static int
s_pre_tokenizer (reader_t *self, const json_t *part)
{
    if (self->byte_level)
        return s_refuse (self, "pre_tokenizer: a part behind ByteLevel", part);
    if (s_is (part, "Split"))
        return s_split (self, part);
    if (s_is (part, "Digits")) {
        bool each = json_is_true (json_object_get (part, "individual_digits"));
        const char *pattern = each ? "\\p{N}" : "\\p{N}+";
        return tl_split_add (self->to->split, self->name, pattern, strlen (pattern), 15,
                             TL_SPLIT_BOTH, self->err);
    }
    if (!s_is (part, "ByteLevel") || !s_unused (part, "add_prefix_space"))
        return s_refuse (self, "pre_tokenizer", part);
    self->byte_level = true;
    if (json_is_false (json_object_get (part, "use_regex")))
        return 0;
    return tl_split_add (self->to->split, self->name, TL_SPLIT_GPT2, strlen (TL_SPLIT_GPT2), 14,
                         TL_SPLIT_BOTH, self->err);
}

static int
s_pre_tokenizers (reader_t *self)
{
    size_t i;
    const json_t *one, *all = json_object_get (self->root, "pre_tokenizer");
    self->to->split = tl_split_new ();
    if (!s_is (all, "Sequence"))
        return s_pre_tokenizer (self, all);
    json_array_foreach (json_object_get (all, "pretokenizers"), i, one)
    {
        if (s_pre_tokenizer (self, one) != 0)
            return -1;
    }
    return self->byte_level ? 0 : s_refuse (self, "pre_tokenizer", all);
}

//  ---------------------------------------------------------------------------------------------
//  Post-processor and decoder

//  TemplateProcessing: which special tokens stand before a text. GLM's two are put by its own rules.
static int
s_template (const reader_t *self, const json_t *processor)
{
    size_t i, before = 0;
    const json_t *one, *single = json_object_get (processor, "single"), *bos = NULL;
    bool text = false;
    json_array_foreach (single, i, one)
    {
        const json_t *special = json_object_get (one, "SpecialToken");
        if (!special)
            text = true;
        else if (text)
            return s_refuse (self, "post_processor: a token behind the text", one);
        else {
            const json_t *id = json_object_get (special, "id");
            bos = json_object_get (json_object_get (processor, "special_tokens"),
                                   json_is_string (id) ? json_string_value (id) : "");
            before++;
        }
    }
    if (self->to->config.family == TL_FAMILY_GLM || before == 0)
        return 0;
    const json_t *ids = json_object_get (bos, "ids");
    self->to->bos = s_id (json_array_get (ids, 0));
    if (before > 1 || json_array_size (ids) != 1 || self->to->bos < 0)
        return s_refuse (self, "post_processor", processor);
    return 0;
}

static int
s_post_processor (const reader_t *self, const json_t *processor)
{
    size_t i;
    const json_t *one;
    if (!processor || json_is_null (processor) || s_is (processor, "ByteLevel"))
        return 0;
    if (s_is (processor, "TemplateProcessing"))
        return s_template (self, processor);
    if (!s_is (processor, "Sequence"))
        return s_refuse (self, "post_processor", processor);
    json_array_foreach (json_object_get (processor, "processors"), i, one)
    {
        if (s_is (one, "TemplateProcessing") ? s_template (self, one) != 0
                                             : !s_is (one, "ByteLevel"))
            return s_is (one, "TemplateProcessing") ? -1 : s_refuse (self, "post_processor", one);
    }
    return 0;
}

static int
s_read (reader_t *self)
{
    const json_t *decoder = json_object_get (self->root, "decoder");
    if (s_normalizer (self, json_object_get (self->root, "normalizer")) != 0 ||
        s_model (self) != 0 || s_added_tokens (self) != 0 || s_pre_tokenizers (self) != 0 ||
        s_post_processor (self, json_object_get (self->root, "post_processor")) != 0)
        return -1;
    if (!s_is (decoder, "ByteLevel"))
        return s_refuse (self, "decoder", decoder);
    return tl_seal_bpe (self->to, self->name, s_lossy (self), self->err);
}

int
tl_read_hf (tl_tokenizer_t *self, const char *name, const char *data, size_t size, tl_error_t *err)
{
    json_error_t reason;
    json_t *root = json_loadb (data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason);
    if (!root)
        return tl_fail (err, TL_BAD_INPUT, "%s:%d: not valid JSON (%s); fetch the file again", name,
                        reason.line, reason.text);
    reader_t reader = {.to = self, .name = name, .root = root, .err = err};
    int rc = s_read (&reader);
    json_decref (root);
    return rc;
}
