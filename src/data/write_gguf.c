//  write_gguf: pieces, types and scores or merges; which expression splits text goes by a name.

#include "write_gguf.h"

#include "file.h"
#include "memory.h"
#include "spm_file.h"
#include "split.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE ((size_t)256 << 20)

//  tokenizer.ggml.token_type: SentencePiece's numbers.
typedef struct {
    tl_gguf_text_t *texts; //  [count]
    int32_t *types;        //  [count]
    float *scores;         //  [count]
    size_t count;          //  the model's vocabulary
    char (*padding)[24];   //  [count] names of tokens that the tokenizer doesn't have
} s_tokens_t;

static s_tokens_t
s_tokens_new (size_t count)
{
    s_tokens_t self = {.count = count};
    self.texts = tl_alloc ((count + 1) * sizeof *self.texts);
    self.types = tl_alloc ((count + 1) * sizeof *self.types);
    self.scores = tl_alloc ((count + 1) * sizeof *self.scores);
    self.padding = tl_alloc ((count + 1) * sizeof *self.padding);
    return self;
}

static void
s_tokens_clear (s_tokens_t *self)
{
    free (self->texts);
    free (self->types);
    free (self->scores);
    free (self->padding);
}

static void
s_pad (s_tokens_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        if (self->types[i])
            continue;
        int size = snprintf (self->padding[i], sizeof self->padding[i], "[PAD%zu]", i);
        self->texts[i] = (tl_gguf_text_t){self->padding[i], (size_t)size};
        self->types[i] = TL_SPM_UNUSED;
        self->scores[i] = -10000;
    }
}

static int
s_put (s_tokens_t *self, const char *file, size_t id, const char *text, size_t size, float score,
       tl_spm_kind_t kind, tl_error_t *err)
{
    if (id >= self->count)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: token %zu is outside the model's vocabulary of %zu; take both from "
                        "the same place",
                        file, id, self->count);
    self->texts[id] = (tl_gguf_text_t){text, size};
    self->types[id] = (int32_t)kind;
    self->scores[id] = score;
    return 0;
}

//  What both kinds have; model: GGUF's word for the algorithm.
static void
s_write (tl_gguf_writer_t *writer, const char *model, const char *pre, const s_tokens_t *tokens)
{
    tl_gguf_put_text (writer, "tokenizer.ggml.model", model);
    tl_gguf_put_text (writer, "tokenizer.ggml.pre", pre);
    tl_gguf_put_texts (writer, "tokenizer.ggml.tokens", tokens->texts, tokens->count);
    if (strcmp (model, "llama") == 0)
        tl_gguf_put_floats (writer, "tokenizer.ggml.scores", tokens->scores, tokens->count);
    tl_gguf_put_int32s (writer, "tokenizer.ggml.token_type", tokens->types, tokens->count);
}

//  ---------------------------------------------------------------------------------------------
//  tokenizer_config.json

static void
s_put_flag (tl_gguf_writer_t *writer, const json_t *config, const char *from, const char *to)
{
    const json_t *value = json_object_get (config, from);
    if (json_is_boolean (value))
        tl_gguf_put_flag (writer, to, json_is_true (value));
}

//  Chat template, and whether bos and eos are put around a text. Nothing where there is no such file.
static void
s_write_config (tl_gguf_writer_t *writer, const char *directory)
{
    char *path = tl_format ("%s/tokenizer_config.json", directory);
    size_t size = 0;
    char *text = tl_exists (path) ? tl_file_read (path, MAX_FILE, &size, NULL) : NULL;
    //  model_max_length is often 10^30.
    json_t *config = text ? json_loadb (text, size, JSON_DECODE_INT_AS_REAL, NULL) : NULL;
    const json_t *template = json_object_get (config, "chat_template");
    if (json_is_string (template))
        tl_gguf_put_bytes (writer, "tokenizer.chat_template", json_string_value (template),
                           json_string_length (template));
    s_put_flag (writer, config, "add_bos_token", "tokenizer.ggml.add_bos_token");
    s_put_flag (writer, config, "add_eos_token", "tokenizer.ggml.add_eos_token");
    json_decref (config);
    free (text);
    free (path);
}

//  ---------------------------------------------------------------------------------------------
//  SentencePiece

static int
s_write_spm (tl_gguf_writer_t *writer, const char *path, size_t vocab, tl_error_t *err)
{
    size_t size = 0, count = 0;
    tl_spm_rules_t rules = {0};
    char *data = tl_file_read (path, MAX_FILE, &size, err);
    tl_spm_piece_t *pieces = data ? tl_spm_check (path, data, size, &rules, &count, err) : NULL;
    int rc = pieces ? 0 : -1;
    if (rc == 0 && rules.strips)
        rc = tl_fail (
            err, TL_BAD_INPUT,
            "%s drops spaces in a row, which GGUF has no words for; the tokenizer was left "
            "out",
            path);
    s_tokens_t tokens = s_tokens_new (vocab);
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = s_put (&tokens, path, i, pieces[i].text, pieces[i].size, pieces[i].score,
                    pieces[i].kind, err);
    if (rc == 0) {
        s_pad (&tokens);
        s_write (writer, "llama", "default", &tokens);
        tl_gguf_put_flag (writer, "tokenizer.ggml.add_space_prefix", rules.dummy_prefix);
        for (size_t i = 0; i < count; i++)
            if (pieces[i].kind == TL_SPM_UNKNOWN) {
                tl_gguf_put_number (writer, "tokenizer.ggml.unknown_token_id", TL_GGUF_U32,
                                    (double)i);
                break;
            }
    }
    s_tokens_clear (&tokens);
    free (pieces);
    free (data);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Byte-level BPE

//  What a pre-tokenizer does, as far as GGUF has names for it.
typedef struct {
    const char *split; //  the one expression before bytes become letters; NULL: none
    bool digits;       //  every digit alone
    bool gpt2;         //  ByteLevel brings GPT-2's expression
    bool other;        //  anything else
} s_splitting_t;

static void
s_read_splitting (s_splitting_t *self, const json_t *step)
{
    const char *type = json_string_value (json_object_get (step, "type"));
    const json_t *list = json_object_get (step, "pretokenizers");
    const json_t *inner;
    size_t index;
    if (type && strcmp (type, "Sequence") == 0 && json_array_size (list) < 8) {
        json_array_foreach (list, index, inner) s_read_splitting (self, inner);
    } else if (type && strcmp (type, "Split") == 0) {
        self->other = self->other || self->split;
        self->split =
            json_string_value (json_object_get (json_object_get (step, "pattern"), "Regex"));
        self->other = self->other || !self->split;
    } else if (type && strcmp (type, "Digits") == 0) {
        self->digits = json_is_true (json_object_get (step, "individual_digits"));
        self->other = self->other || !self->digits;
    } else if (type && strcmp (type, "ByteLevel") == 0) {
        self->gpt2 = !json_is_false (json_object_get (step, "use_regex"));
        self->other = self->other || json_is_true (json_object_get (step, "add_prefix_space"));
    } else
        self->other = true;
}

//  GGUF's name for how text is split, as llama.cpp knows them; NULL: none that does the same.
static const char *
s_pre (const tl_config_t *config, const json_t *root)
{
    s_splitting_t splitting = {0};
    s_read_splitting (&splitting, json_object_get (root, "pre_tokenizer"));
    const json_t *normalizer = json_object_get (root, "normalizer");
    bool plain = !normalizer || json_is_null (normalizer);
    bool whole = json_is_true (json_object_get (json_object_get (root, "model"), "ignore_merges"));
    if (splitting.other)
        return NULL;
    if (splitting.split) {
        bool alone = !splitting.digits && !splitting.gpt2;
        if (alone && plain && whole && strcmp (splitting.split, TL_SPLIT_LLAMA3) == 0)
            return config->family == TL_FAMILY_GLM ? "chatglm-bpe" : "llama-bpe";
        const char *type = json_string_value (json_object_get (normalizer, "type"));
        bool composed = type && strcmp (type, "NFC") == 0;
        bool qwen2 = alone && composed && !whole && strcmp (splitting.split, TL_SPLIT_QWEN2) == 0;
        return qwen2 ? "qwen2" : NULL;
    }
    if (!splitting.gpt2 || !plain || whole)
        return NULL;
    return splitting.digits ? "smollm" : "gpt-2";
}

//  tokenizer.json has merges as "a b" or, since 2024, as ["a", "b"].
static int
s_put_merges (tl_gguf_writer_t *writer, const char *path, const json_t *merges, tl_error_t *err)
{
    size_t index, count = json_array_size (merges);
    const json_t *merge;
    tl_gguf_text_t *texts = tl_alloc ((count + 1) * sizeof *texts);
    char **joined = tl_alloc ((count + 1) * sizeof *joined);
    int rc = 0;
    json_array_foreach (merges, index, merge)
    {
        const char *one = json_string_value (json_array_get (merge, 0));
        const char *two = json_string_value (json_array_get (merge, 1));
        if (json_is_string (merge))
            texts[index] = (tl_gguf_text_t){json_string_value (merge), json_string_length (merge)};
        else if (one && two) {
            joined[index] = tl_format ("%s %s", one, two);
            texts[index] = (tl_gguf_text_t){joined[index], strlen (joined[index])};
        } else
            rc =
                tl_fail (err, TL_BAD_INPUT,
                         "%s: model.merges: entry %zu is neither \"a b\" nor [\"a\", \"b\"]; fetch "
                         "the file again",
                         path, index);
    }
    if (rc == 0)
        tl_gguf_put_texts (writer, "tokenizer.ggml.merges", texts, count);
    for (size_t i = 0; i < count; i++)
        free (joined[i]);
    free (joined);
    free (texts);
    return rc;
}

static int
s_put_vocab (s_tokens_t *tokens, const char *path, const json_t *root, tl_error_t *err)
{
    const char *piece;
    json_t *id, *token;
    size_t index;
    json_object_foreach (json_object_get (json_object_get (root, "model"), "vocab"), piece, id)
    {
        if (s_put (tokens, path, (size_t)json_integer_value (id), piece, strlen (piece), 0,
                   TL_SPM_NORMAL, err) != 0)
            return -1;
    }
    json_array_foreach (json_object_get (root, "added_tokens"), index, token)
    {
        const json_t *content = json_object_get (token, "content");
        bool special = json_is_true (json_object_get (token, "special"));
        if (!json_is_string (content) || !json_is_integer (json_object_get (token, "id")))
            return tl_fail (
                err, TL_BAD_INPUT,
                "%s: added_tokens: entry %zu has no content or id; fetch the file again", path,
                index);
        if (s_put (tokens, path, (size_t)json_integer_value (json_object_get (token, "id")),
                   json_string_value (content), json_string_length (content), 0,
                   special ? TL_SPM_CONTROL : TL_SPM_USER, err) != 0)
            return -1;
    }
    return 0;
}

static int
s_write_bpe (tl_gguf_writer_t *writer, const char *path, const tl_config_t *config, tl_error_t *err)
{
    size_t size = 0;
    json_error_t reason;
    char *data = tl_file_read (path, MAX_FILE, &size, err);
    if (!data)
        return -1;
    json_t *root = json_loadb (data, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason);
    free (data);
    if (!root)
        return tl_fail (err, TL_BAD_INPUT, "%s:%d:%d: not valid JSON (%s); fetch the file again",
                        path, reason.line, reason.column, reason.text);
    const json_t *merges = json_object_get (json_object_get (root, "model"), "merges");
    const char *pre = s_pre (config, root);
    s_tokens_t tokens = s_tokens_new (config->vocab);
    int rc = 0;
    if (!json_is_array (merges) || !pre)
        rc = tl_fail (
            err, TL_BAD_INPUT,
            "%s splits text in a way that GGUF has no name for; the tokenizer was left out", path);
    if (rc == 0)
        rc = s_put_vocab (&tokens, path, root, err);
    //  Merges first: they may fail, and then nothing is put.
    if (rc == 0)
        rc = s_put_merges (writer, path, merges, err);
    if (rc == 0) {
        s_pad (&tokens);
        s_write (writer, "gpt2", pre, &tokens);
    }
    s_tokens_clear (&tokens);
    json_decref (root);
    return rc;
}

int
tl_tokenizer_write_gguf (const char *directory, const tl_config_t *config, tl_gguf_writer_t *writer,
                         tl_error_t *err)
{
    char *spm = tl_format ("%s/tokenizer.model", directory);
    char *bpe = tl_format ("%s/tokenizer.json", directory);
    int rc;
    if (tl_exists (spm) && config->family == TL_FAMILY_GLM)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s: ChatGLM's own special tokens are not in the file but in its code, which "
                      "this version doesn't carry over; the tokenizer was left out",
                      spm);
    else if (tl_exists (spm))
        rc = s_write_spm (writer, spm, config->vocab, err);
    else if (tl_exists (bpe))
        rc = s_write_bpe (writer, bpe, config, err);
    else
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s has neither tokenizer.model nor tokenizer.json; put the model's "
                      "tokenizer there",
                      directory);
    if (rc == 0)
        s_write_config (writer, directory);
    free (spm);
    free (bpe);
    return rc;
}
