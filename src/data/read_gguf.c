/*  read_gguf: the tokenizer in a GGUF file's metadata: tokenizer.ggml.model "gpt2" (byte-level BPE, its expression named
    by tokenizer.ggml.pre) or "llama" (SentencePiece BPE, of which a model for libsentencepiece is made).  */

#include "tokenizer_internal.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  tokenizer.ggml.token_type: SentencePiece's own numbers.
typedef struct {
    const tl_gguf_value_t *tokens, *types, *scores;
    size_t count;
} arrays_t;

//  What goes with a name in tokenizer.ggml.pre.
typedef struct {
    const char *pre;
    const char *patterns[4]; //  one after another; NULL ends them
    unsigned unicode;        //  version that the first expression's engine knows; the others' is 14
    bool nfc;                //  the original composes text, which llama.cpp does not
    bool whole_first;
    bool bos; //  a bos is put unless the file says otherwise
} pre_t;

static const pre_t s_pres[] = {
    {"gpt-2", {TL_SPLIT_GPT2}, 14, false, false, false},
    {"smollm", {"\\p{N}", TL_SPLIT_GPT2}, 15, false, false, false},
    {"llama-bpe", {TL_SPLIT_LLAMA3}, 14, false, true, true},
    {"llama3", {TL_SPLIT_LLAMA3}, 14, false, true, true},
    {"qwen2", {TL_SPLIT_QWEN2}, 14, true, false, false},
    {"chatglm-bpe", {TL_SPLIT_LLAMA3}, 16, false, true, false},
    {"glm4", {TL_SPLIT_LLAMA3}, 16, false, true, false},
    //  What llama.cpp does when nobody said how.
    {"default",
     {"[\\p{P}\\$\\+<=>\\^~\\|]+",
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", "\\p{N}+",
      "[0-9][0-9][0-9]"},
     14,
     false,
     false,
     false}};

static int
s_missing (const tl_gguf_t *gguf, const char *key, const char *wanted, tl_error_t *err)
{
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: %s is missing or no %s; take a GGUF file that holds its tokenizer",
                    tl_gguf_path (gguf), key, wanted);
}

static int
s_arrays (const tl_gguf_t *gguf, arrays_t *arrays, tl_error_t *err)
{
    arrays->tokens = tl_gguf_find (gguf, "tokenizer.ggml.tokens");
    arrays->types = tl_gguf_find (gguf, "tokenizer.ggml.token_type");
    arrays->scores = tl_gguf_find (gguf, "tokenizer.ggml.scores");
    if (!arrays->tokens || !arrays->tokens->array || arrays->tokens->type != TL_GGUF_TEXT)
        return s_missing (gguf, "tokenizer.ggml.tokens", "list of texts", err);
    arrays->count = arrays->tokens->count;
    if (arrays->count == 0 || arrays->count > TL_VOCAB_MOST)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tokenizer.ggml.tokens has %zu texts, expected 1 to %d; fetch the file "
                        "again",
                        tl_gguf_path (gguf), arrays->count, TL_VOCAB_MOST);
    if ((arrays->types && arrays->types->count != arrays->count) ||
        (arrays->scores && arrays->scores->count != arrays->count))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tokenizer.ggml.tokens has %zu entries, token_type %zu and scores %zu; "
                        "they must be as many: fetch the file again",
                        tl_gguf_path (gguf), arrays->count,
                        arrays->types ? arrays->types->count : 0,
                        arrays->scores ? arrays->scores->count : 0);
    return 0;
}

//  Token id's text and type. -1 when its type is none.
static int
s_token (const tl_gguf_t *gguf, const arrays_t *arrays, size_t id, tl_gguf_text_t *text,
         tl_spm_kind_t *kind, tl_error_t *err)
{
    int64_t type = TL_SPM_NORMAL;
    tl_gguf_text (arrays->tokens, id, text);
    if (arrays->types && !tl_gguf_integer (arrays->types, id, &type))
        type = 0;
    if (type < TL_SPM_NORMAL || type > TL_SPM_BYTE)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tokenizer.ggml.token_type: entry %zu is no type from 1 to 6; fetch "
                        "the file again",
                        tl_gguf_path (gguf), id);
    *kind = (tl_spm_kind_t)type;
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  SentencePiece

static int
s_read_llama (tl_tokenizer_t *self, const tl_gguf_t *gguf, const arrays_t *arrays, tl_error_t *err)
{
    tl_spm_rules_t rules = {.dummy_prefix = true};
    tl_gguf_flag (tl_gguf_find (gguf, "tokenizer.ggml.add_space_prefix"), 0, &rules.dummy_prefix);
    tl_gguf_flag (tl_gguf_find (gguf, "tokenizer.ggml.remove_extra_whitespaces"), 0, &rules.strips);
    if (!arrays->scores)
        return s_missing (gguf, "tokenizer.ggml.scores", "list of numbers", err);
    tl_spm_piece_t *pieces = tl_alloc (arrays->count * sizeof *pieces);
    int rc = 0;
    for (size_t id = 0; rc == 0 && id < arrays->count; id++) {
        tl_gguf_text_t text = {"", 0};
        double score = 0;
        rc = s_token (gguf, arrays, id, &text, &pieces[id].kind, err);
        if (rc == 0 && !tl_gguf_real (arrays->scores, id, &score))
            rc = s_missing (gguf, "tokenizer.ggml.scores", "list of numbers", err);
        pieces[id].text = text.data;
        pieces[id].size = text.size;
        pieces[id].score = (float)score;
    }
    tl_text_t model = {0};
    if (rc == 0) {
        tl_spm_make (&model, pieces, arrays->count, &rules);
        rc = tl_read_spm (self, tl_gguf_path (gguf), model.data, model.size, err);
    }
    free (model.data);
    free (pieces);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Byte-level BPE

static int
s_put_token (tl_tokenizer_t *self, const tl_gguf_t *gguf, int32_t id, tl_gguf_text_t text,
             tl_spm_kind_t kind, tl_error_t *err)
{
    const char *name = tl_gguf_path (gguf);
    int32_t other;
    switch (kind) {
    case TL_SPM_CONTROL:
    case TL_SPM_UNKNOWN:
        return tl_put_added (self, name, text.data, text.size, id, true, TL_FOUND_PARSED, false,
                             err);
    case TL_SPM_USER:
        return tl_put_added (self, name, text.data, text.size, id, false, TL_FOUND_ALWAYS, false,
                             err);
    case TL_SPM_UNUSED:
        return tl_vocab_put (self->vocab, id, text.data, text.size, TL_PIECE_UNUSED, &other);
    default:
        return tl_put_lettered (self, name, text.data, text.size, id, err);
    }
}

static int
s_read_merges (tl_tokenizer_t *self, const tl_gguf_t *gguf, const tl_gguf_value_t *merges,
               tl_error_t *err)
{
    for (size_t i = 0; i < merges->count; i++) {
        tl_gguf_text_t line = {"", 0};
        tl_gguf_text (merges, i, &line);
        const char *space = line.size ? memchr (line.data, ' ', line.size) : NULL;
        if (!space)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tokenizer.ggml.merges: entry %zu is not two pieces with a space "
                            "between them; fetch the file again",
                            tl_gguf_path (gguf), i);
        size_t left = (size_t)(space - line.data);
        if (tl_put_merge (self, tl_gguf_path (gguf), i, line.data, left, space + 1,
                          line.size - left - 1, err) != 0)
            return -1;
    }
    return 0;
}

//  The rules named by tokenizer.ggml.pre.
static const pre_t *
s_pre (const tl_gguf_t *gguf, tl_error_t *err)
{
    tl_gguf_text_t pre = {"default", 7};
    tl_gguf_text (tl_gguf_find (gguf, "tokenizer.ggml.pre"), 0, &pre);
    for (size_t i = 0; i < sizeof s_pres / sizeof *s_pres; i++)
        if (tl_gguf_text_is (pre, s_pres[i].pre))
            return &s_pres[i];
    tl_fail (err, TL_BAD_INPUT,
             "%s: tokenizer.ggml.pre is '%.*s', expected gpt-2, smollm, llama-bpe, qwen2, "
             "chatglm-bpe, glm4 or default; use a model of a supported family",
             tl_gguf_path (gguf), (int)(pre.size < 60 ? pre.size : 60), pre.data);
    return NULL;
}

static int
s_read_gpt2 (tl_tokenizer_t *self, const tl_gguf_t *gguf, const arrays_t *arrays,
             const pre_t **used, tl_error_t *err)
{
    const tl_gguf_value_t *merges = tl_gguf_find (gguf, "tokenizer.ggml.merges");
    const pre_t *pre = *used = s_pre (gguf, err);
    if (!pre)
        return -1;
    if (!merges || !merges->array || merges->type != TL_GGUF_TEXT)
        return s_missing (gguf, "tokenizer.ggml.merges", "list of texts", err);
    for (size_t id = 0; id < arrays->count; id++) {
        tl_gguf_text_t text = {"", 0};
        tl_spm_kind_t kind = TL_SPM_NORMAL;
        if (s_token (gguf, arrays, id, &text, &kind, err) != 0 ||
            s_put_token (self, gguf, (int32_t)id, text, kind, err) != 0)
            return -1;
    }
    self->bpe = tl_bpe_new (self->vocab, false);
    if (pre->whole_first)
        tl_bpe_whole_first (self->bpe);
    self->nfc = pre->nfc;
    self->split = tl_split_new ();
    for (size_t i = 0; i < 4 && pre->patterns[i]; i++)
        if (tl_split_add (self->split, tl_gguf_path (gguf), pre->patterns[i],
                          strlen (pre->patterns[i]), i == 0 ? pre->unicode : 14, TL_SPLIT_BOTH,
                          err) != 0)
            return -1;
    if (s_read_merges (self, gguf, merges, err) != 0)
        return -1;
    return tl_seal_bpe (self, tl_gguf_path (gguf), true, err);
}

//  ---------------------------------------------------------------------------------------------

static void
s_hash_texts (crypto_generichash_state *hash, const tl_gguf_value_t *value)
{
    for (size_t i = 0; value && value->type == TL_GGUF_TEXT && i < value->count; i++) {
        tl_gguf_text_t text = {"", 0};
        tl_gguf_text (value, i, &text);
        uint64_t size = text.size;
        crypto_generichash_update (hash, (const unsigned char *)&size, sizeof size);
        crypto_generichash_update (hash, (const unsigned char *)text.data, text.size);
    }
}

static void
s_hash_numbers (crypto_generichash_state *hash, const tl_gguf_value_t *value)
{
    for (size_t i = 0; value && i < value->count; i++) {
        double number = 0;
        tl_gguf_real (value, i, &number);
        crypto_generichash_update (hash, (const unsigned char *)&number, sizeof number);
    }
}

static char *
s_copy (const tl_gguf_value_t *value)
{
    tl_gguf_text_t text;
    return tl_gguf_text (value, 0, &text)
               ? tl_format ("%.*s", (int)(text.size < (1 << 20) ? text.size : 1 << 20), text.data)
               : NULL;
}

int
tl_read_gguf (tl_tokenizer_t *self, const tl_gguf_t *gguf, crypto_generichash_state *hash,
              tl_hints_t *hints, tl_error_t *err)
{
    tl_gguf_text_t model = {"", 0};
    arrays_t arrays = {0};
    const pre_t *pre = NULL;
    bool bos = false;
    if (s_arrays (gguf, &arrays, err) != 0)
        return -1;
    tl_gguf_text (tl_gguf_find (gguf, "tokenizer.ggml.model"), 0, &model);
    bool llama = tl_gguf_text_is (model, "llama");
    if (!llama && !tl_gguf_text_is (model, "gpt2"))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tokenizer.ggml.model is '%.*s', expected gpt2 or llama; use a model "
                        "of a supported family",
                        tl_gguf_path (gguf), (int)(model.size < 60 ? model.size : 60), model.data);
    if (llama ? s_read_llama (self, gguf, &arrays, err) != 0
              : s_read_gpt2 (self, gguf, &arrays, &pre, err) != 0)
        return -1;
    s_hash_texts (hash, tl_gguf_find (gguf, "tokenizer.ggml.model"));
    s_hash_texts (hash, tl_gguf_find (gguf, "tokenizer.ggml.pre"));
    s_hash_texts (hash, arrays.tokens);
    s_hash_texts (hash, tl_gguf_find (gguf, "tokenizer.ggml.merges"));
    s_hash_numbers (hash, arrays.types);
    s_hash_numbers (hash, arrays.scores);
    hints->chat_template = s_copy (tl_gguf_find (gguf, "tokenizer.chat_template"));
    hints->name = s_copy (tl_gguf_find (gguf, "general.name"));
    bos = llama || pre->bos;
    tl_gguf_flag (tl_gguf_find (gguf, "tokenizer.ggml.add_bos_token"), 0, &bos);
    hints->bos_said = true;
    hints->bos = bos;
    return 0;
}
