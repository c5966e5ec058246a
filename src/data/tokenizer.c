/*  tokenizer: finds a model's tokenizer, has it read, and holds it against the model's config. How text becomes ids is in
    encode.c, how ids become text in decoder.c.                                                     */

#include "tokenizer_internal.h"

#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  ChatGLM-6B's has 2.7 MB, larger vocabularies have some 20.
#define MAX_FILE ((size_t)256 << 20)

typedef enum { KIND_SPM, KIND_TIKTOKEN, KIND_HF, KIND_GPT2, KIND_GGUF } kind_t;

//  A tokenizer file that was found.
typedef struct {
    char *path, *directory;
    kind_t kind;
} place_t;

//  ---------------------------------------------------------------------------------------------
//  Finding

static bool
s_ends_with (const char *path, const char *end)
{
    size_t size = strlen (path), tail = strlen (end);
    return size >= tail && strcmp (path + size - tail, end) == 0;
}

//  A .model file is SentencePiece's, or tiktoken's: then its first line is base64, a space and a number.
static kind_t
s_model_kind (const char *path)
{
    char line[256] = "";
    FILE *file = fopen (path, "rb");
    bool read = file && fgets (line, sizeof line, file);
    if (file)
        fclose (file);
    size_t letters =
        strspn (line, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=");
    bool tiktoken = read && letters && line[letters] == ' ' && line[letters + 1] >= '0' &&
                    line[letters + 1] <= '9';
    return tiktoken ? KIND_TIKTOKEN : KIND_SPM;
}

//  What a file is, by its name or, where names don't tell, its first bytes.
static kind_t
s_file_kind (const char *path)
{
    const char *slash = strrchr (path, '/'), *base = slash ? slash + 1 : path;
    if (tl_gguf_is (path))
        return KIND_GGUF;
    if (strcmp (base, "vocab.json") == 0 || strcmp (base, "merges.txt") == 0)
        return KIND_GPT2;
    return s_ends_with (path, ".json") ? KIND_HF : s_model_kind (path);
}

//  The first of these in a directory is it. SentencePiece's own file comes before tokenizer.json, which may describe the
//  same thing less well; another family's tiktoken file comes after.
static int
s_find_in (place_t *place, const char *directory, tl_family_t family, tl_error_t *err)
{
    static const char *const names[] = {"ice_text.model", "tokenizer.model", "tokenizer.json",
                                        "vocab.json", "tokenizer.model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = tl_format ("%s/%s", directory, names[i]);
        bool there = tl_exists (path);
        kind_t kind = there ? s_file_kind (path) : KIND_SPM;
        if (there && (i != 1 || kind != KIND_TIKTOKEN || family == TL_FAMILY_GLM)) {
            *place = (place_t){path, tl_strdup (directory), kind};
            return 0;
        }
        free (path);
    }
    return tl_fail (err, TL_BAD_INPUT,
                    "%s has neither tokenizer.model nor ice_text.model, tokenizer.json or "
                    "vocab.json; put the model's tokenizer there",
                    directory);
}

static int
s_find (place_t *place, const char *path, tl_family_t family, tl_error_t *err)
{
    char *inside = tl_format ("%s/.", path);
    bool directory = tl_exists (inside);
    free (inside);
    if (directory)
        return s_find_in (place, path, family, err);
    const char *slash = strrchr (path, '/');
    place->kind = s_file_kind (path);
    place->directory = slash ? tl_format ("%.*s", (int)(slash - path), path) : tl_strdup (".");
    place->path =
        place->kind == KIND_GPT2 ? tl_format ("%s/vocab.json", place->directory) : tl_strdup (path);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Reading

//  Reads a file and adds it to the hash.
static char *
s_slurp (const char *path, size_t *size, crypto_generichash_state *hash, tl_error_t *err)
{
    char *data = tl_file_read (path, MAX_FILE, size, err);
    if (data)
        crypto_generichash_update (hash, (const unsigned char *)data, *size);
    return data;
}

static int
s_load_gguf (tl_tokenizer_t *self, const char *path, crypto_generichash_state *hash,
             tl_hints_t *hints, tl_error_t *err)
{
    tl_gguf_t *gguf = tl_gguf_open (path, err);
    int rc = gguf ? tl_read_gguf (self, gguf, hash, hints, err) : -1;
    tl_gguf_destroy (&gguf);
    return rc;
}

static int
s_load_gpt2 (tl_tokenizer_t *self, const place_t *place, const char *data, size_t size,
             crypto_generichash_state *hash, const tl_hints_t *hints, tl_error_t *err)
{
    static const char *const classes[] = {"GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer",
                                          "Qwen2TokenizerFast"};
    bool qwen2 = self->config.family == TL_FAMILY_QWEN2, known = !hints->class;
    for (size_t i = 0; i < 4 && hints->class; i++)
        if (strcmp (hints->class, classes[i]) == 0) {
            known = true;
            qwen2 = i >= 2;
        }
    if (!known)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s/tokenizer_config.json: tokenizer_class is '%.60s', whose rules for "
                        "vocab.json aren't known; put the model's tokenizer.json there",
                        place->directory, hints->class);
    char *merges_path = tl_format ("%s/merges.txt", place->directory);
    size_t merges_size = 0;
    char *merges = s_slurp (merges_path, &merges_size, hash, err);
    int rc = merges ? tl_read_gpt2 (self, place->path, data, size, merges_path, merges, merges_size,
                                    qwen2, err)
                    : -1;
    free (merges);
    free (merges_path);
    return rc;
}

//  ChatGLM2 and ChatGLM3 have one and the same model file; only names tell which it is.
static bool
s_has_roles (const tl_tokenizer_t *self, const tl_hints_t *hints)
{
    return !strstr (self->path, "chatglm2") && !(hints->name && strstr (hints->name, "chatglm2"));
}

static int
s_load_file (tl_tokenizer_t *self, const place_t *place, crypto_generichash_state *hash,
             tl_hints_t *hints, tl_error_t *err)
{
    size_t size = 0;
    char *data = s_slurp (place->path, &size, hash, err);
    if (!data)
        return -1;
    int rc = -1;
    if (place->kind == KIND_HF)
        rc = tl_read_hf (self, place->path, data, size, err);
    else if (place->kind == KIND_TIKTOKEN)
        rc = tl_read_tiktoken (self, place->path, data, size, err);
    else if (place->kind == KIND_GPT2)
        rc = s_load_gpt2 (self, place, data, size, hash, hints, err);
    else {
        rc = tl_read_spm (self, place->path, data, size, err);
        if (rc == 0 && self->config.family == TL_FAMILY_GLM)
            rc = tl_read_spm_glm (self, s_has_roles (self, hints), err);
    }
    free (data);
    return rc;
}

//  Which id goes before a prompt. tokenizer.json has said it already.
static void
s_choose_bos (tl_tokenizer_t *self, const place_t *place, const tl_hints_t *hints)
{
    const tl_config_t *config = &self->config;
    if (config->family == TL_FAMILY_CHATGLM || config->family == TL_FAMILY_GLM)
        self->bos = -1;
    else if (place->kind != KIND_HF) {
        bool puts = hints->bos_said ? hints->bos : self->spm != NULL;
        self->bos = puts ? config->bos : -1;
    }
}

static int
s_load (tl_tokenizer_t *self, const place_t *place, tl_error_t *err)
{
    unsigned char digest[crypto_generichash_BYTES];
    crypto_generichash_state hash;
    tl_hints_t hints = {0};
    size_t size = 0;
    char *beside = tl_format ("%s/tokenizer_config.json", place->directory), *data = NULL;
    int rc = 0;
    crypto_generichash_init (&hash, NULL, 0, sizeof digest);
    if (place->kind == KIND_GGUF)
        rc = s_load_gguf (self, place->path, &hash, &hints, err);
    else {
        if (tl_exists (beside)) {
            data = tl_file_read (beside, MAX_FILE, &size, err);
            rc = data ? tl_read_tokenizer_config (NULL, beside, data, size, &hints, err) : -1;
        }
        if (rc == 0)
            rc = s_load_file (self, place, &hash, &hints, err);
        if (rc == 0 && data)
            rc = tl_read_tokenizer_config (self, beside, data, size, &hints, err);
    }
    if (rc == 0) {
        crypto_generichash_final (&hash, digest, sizeof digest);
        sodium_bin2hex (self->hash, sizeof self->hash, digest, sizeof digest);
        s_choose_bos (self, place, &hints);
        tl_chat_find (self, &hints);
    }
    tl_hints_clear (&hints);
    free (data);
    free (beside);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Fitting

//  Pieces that bear a special token's name must have the id that config.json gives it.
static int
s_check_special (const tl_tokenizer_t *self, const char *piece, const char *key, int32_t wanted,
                 tl_error_t *err)
{
    int32_t id = tl_tokenizer_special (self, piece);
    if (id < 0 || wanted < 0 || id == wanted)
        return 0;
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s doesn't fit the model: %s is its piece %d, config.json has %s %d; take both "
        "from the same place",
        self->path, piece, id, key, wanted);
}

//  An id that begins or ends texts can't be a word.
static int
s_check_not_word (const tl_tokenizer_t *self, const char *key, int32_t id, tl_error_t *err)
{
    if (id < 0 || (size_t)id >= tl_vocab_count (self->vocab))
        return 0;
    tl_piece_t piece = tl_vocab_piece (self->vocab, id);
    if (piece.kind != TL_PIECE_ORDINARY && piece.kind != TL_PIECE_BYTE &&
        (piece.kind != TL_PIECE_RAW || !self->spm))
        return 0;
    if (tl_added_id (self->added, piece.bytes, piece.size) == id)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s doesn't fit the model: config.json has %s %d, which is its ordinary piece "
                    "'%.*s'; take both from the same place",
                    self->path, key, id, (int)(piece.size < 60 ? piece.size : 60), piece.bytes);
}

//  GLM's prompts need these; their ids come from the tokenizer when config.json doesn't say.
static int
s_check_glm (const tl_tokenizer_t *self, tl_error_t *err)
{
    const tl_config_t *config = &self->config;
    const char *sop = self->spm ? "sop" : "<sop>";
    if (tl_tokenizer_special (self, "[gMASK]") < 0 || tl_tokenizer_special (self, sop) < 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s doesn't fit the model: it has no pieces [gMASK] and %s, which this "
                        "family's texts begin with; take both from the same place",
                        self->path, sop);
    return s_check_special (self, "[gMASK]", "gmask_token_id", config->gmask, err) ||
                   s_check_special (self, sop, "sop_token_id", config->sop, err)
               ? -1
               : 0;
}

static int
s_check_fit (const tl_tokenizer_t *self, tl_error_t *err)
{
    const tl_config_t *config = &self->config;
    size_t pieces = tl_tokenizer_pieces (self);
    if (config->vocab == 0)
        return 0;
    if (pieces > config->vocab)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s doesn't fit the model: it has %zu pieces, config.json has vocab_size %zu; "
            "take both from the same place",
            self->path, pieces, config->vocab);
    if (config->family == TL_FAMILY_CHATGLM)
        return s_check_special (self, "[gMASK]", "gmask_token_id", config->gmask, err) ||
                       s_check_special (self, "<sop>", "bos_token_id", config->sop, err) ||
                       s_check_special (self, "<eop>", "eos_token_id", config->eos, err)
                   ? -1
                   : 0;
    if (config->family == TL_FAMILY_GLM && s_check_glm (self, err) != 0)
        return -1;
    if (self->bos >= 0 && config->bos >= 0 && self->bos != config->bos)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s doesn't fit the model: it begins texts with %d, config.json has "
                        "bos_token_id %d; take both from the same place",
                        self->path, self->bos, config->bos);
    //  Another end than SentencePiece's own may have been trained into a model, but not its beginning.
    if (self->spm && config->eos >= 0 && config->eos == tl_tokenizer_special (self, "<s>") &&
        s_check_special (self, "</s>", "eos_token_id", config->eos, err) != 0)
        return -1;
    return s_check_not_word (self, "bos_token_id", config->bos, err) ||
                   s_check_not_word (self, "eos_token_id", config->eos, err)
               ? -1
               : 0;
}

//  ---------------------------------------------------------------------------------------------

tl_tokenizer_t *
tl_tokenizer_open (const char *path, const tl_config_t *config, tl_error_t *err)
{
    place_t place = {0};
    if (s_find (&place, path, config->family, err) != 0)
        return NULL;
    tl_tokenizer_t *self = tl_tokenizer_empty (place.path, config);
    if (s_load (self, &place, err) != 0 || s_check_fit (self, err) != 0)
        tl_tokenizer_destroy (&self);
    free (place.path);
    free (place.directory);
    return self;
}

tl_tokenizer_t *
tl_tokenizer_empty (const char *path, const tl_config_t *config)
{
    tl_tokenizer_t *self = tl_alloc (sizeof *self);
    self->path = tl_strdup (path);
    self->config = *config;
    self->vocab = tl_vocab_new ();
    self->added = tl_added_new ();
    self->bos = -1;
    return self;
}

void
tl_tokenizer_destroy (tl_tokenizer_t **self_p)
{
    tl_tokenizer_t *self = *self_p;
    if (!self)
        return;
    if (self->spm)
        tl_spm_destroy (&self->spm);
    tl_bpe_destroy (&self->bpe);
    tl_split_destroy (&self->split);
    tl_added_destroy (&self->added);
    tl_vocab_destroy (&self->vocab);
    free (self->path);
    free (self);
    *self_p = NULL;
}

size_t
tl_tokenizer_pieces (const tl_tokenizer_t *self)
{
    return tl_vocab_count (self->vocab);
}

const char *
tl_tokenizer_path (const tl_tokenizer_t *self)
{
    return self->path;
}

const char *
tl_tokenizer_hash (const tl_tokenizer_t *self)
{
    return self->hash;
}

const tl_config_t *
tl_tokenizer_config (const tl_tokenizer_t *self)
{
    return &self->config;
}

int32_t
tl_tokenizer_special (const tl_tokenizer_t *self, const char *name)
{
    return tl_added_id (self->added, name, strlen (name));
}

const int32_t *
tl_tokenizer_stops (const tl_tokenizer_t *self, size_t *count)
{
    *count = self->stop_count;
    return self->stops;
}
