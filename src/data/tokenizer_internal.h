/*  tokenizer_internal: what a tokenizer is made of, for the files that read, use and describe it: read_*.c fill it,
    tokenizer.c encodes, decoder.c decodes, chat.c lays conversations out.                          */

#ifndef TL_DATA_TOKENIZER_INTERNAL_H
#define TL_DATA_TOKENIZER_INTERNAL_H

#include "added.h"
#include "bpe.h"
#include "internal.h"
#include "spm.h"
#include "spm_file.h"
#include "split.h"
#include "vocab.h"

#include "model/gguf.h"

#include <sodium.h>

enum {
    TL_MAX_BLANK = 80, //  ChatGLM-6B: pieces for runs of 2 .. 80 spaces
    TL_MAX_STOPS = 12
};

//  Layouts of conversations. LLAMA2 takes its system message in <<SYS>>, MISTRAL before the question.
typedef enum {
    TL_CHAT_NONE,
    TL_CHAT_CHATGLM,
    TL_CHAT_CHATGLM2,
    TL_CHAT_CHATGLM3,
    TL_CHAT_GLM4,
    TL_CHAT_LLAMA2,
    TL_CHAT_MISTRAL,
    TL_CHAT_LLAMA3,
    TL_CHAT_CHATML
} tl_chat_t;

struct tl_tokenizer {
    char *path;
    tl_config_t config;
    char hash[2 * crypto_generichash_BYTES + 1];
    tl_vocab_t *vocab;
    tl_added_t *added;

    //  SentencePiece, or NULL
    tl_spm_t *spm;
    tl_spm_rules_t rules;
    //  ChatGLM-6B: which blanks have a piece; a small tokenizer may lack some, then they stay as they are.
    bool line_end, tab;
    bool blank[TL_MAX_BLANK + 1]; //  [k] for a run of k spaces

    //  Byte-level BPE, or NULL
    tl_bpe_t *bpe;
    tl_split_t *split;
    bool nfc; //  text is composed (Unicode's NFC) first

    int32_t bos; //  put before a prompt; -1: none
    tl_chat_t chat;
    const char
        *system; //  what the layout says when there is no system message; NULL: nothing. Static
    bool dated;  //  Llama 3.1 and later: the system message begins with two dates
    int32_t stops[TL_MAX_STOPS];
    size_t stop_count;
};

//  What a directory says besides: tokenizer_config.json, or a GGUF's metadata. All zeros: nothing.
typedef struct {
    char *chat_template; //  NULL: none
    char *class;         //  tokenizer_class; NULL: not said
    char *name;          //  name_or_path; NULL: not said
    bool bos_said, bos;  //  add_bos_token: is there, and which
} tl_hints_t;

void tl_hints_clear (tl_hints_t *self);

//  One without anything in it but its config, for a reader to fill.
tl_tokenizer_t *tl_tokenizer_empty (const char *path, const tl_config_t *config);

//  ---------------------------------------------------------------------------------------------
//  Readers. Each takes a file's bytes (name is for messages) and fills vocabulary, added names and algorithm of an empty
//  tokenizer whose config is set. -1 and a sentence naming file and entry.

int tl_read_spm (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
                 tl_error_t *err);
//  What ChatGLM2 (roles false) and ChatGLM3 put behind the pieces of their model file.
int tl_read_spm_glm (tl_tokenizer_t *self, bool roles, tl_error_t *err);
//  GLM-4's: base64 and rank a line, and the special tokens that its code puts behind.
int tl_read_tiktoken (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
                      tl_error_t *err);
int tl_read_hf (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
                tl_error_t *err);
//  vocab.json and merges.txt; qwen2: its expression and NFC instead of GPT-2's.
int tl_read_gpt2 (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
                  const char *merges_name, const char *merges, size_t merges_size, bool qwen2,
                  tl_error_t *err);
//  Of a GGUF's metadata; hashes what it reads into hash, and fills hints.
int tl_read_gguf (tl_tokenizer_t *self, const tl_gguf_t *gguf, crypto_generichash_state *hash,
                  tl_hints_t *hints, tl_error_t *err);
//  tokenizer_config.json: hints, and added_tokens_decoder: names that the tokenizer knows must have the ids given
//  there, names behind its pieces are added. self NULL: hints only.
int tl_read_tokenizer_config (tl_tokenizer_t *self, const char *name, const char *data, size_t size,
                              tl_hints_t *hints, tl_error_t *err);

//  Adds a special or added token under its name; an id without a piece gets one.
int tl_put_added (tl_tokenizer_t *self, const char *name, const char *text, size_t size, int32_t id,
                  bool special, tl_found_t found, bool late, tl_error_t *err);
//  Adds a piece written in GPT-2's letters for bytes.
int tl_put_lettered (tl_tokenizer_t *self, const char *name, const char *text, size_t size,
                     int32_t id, tl_error_t *err);
//  The next merge "left right", both in GPT-2's letters; entry is its number, for messages.
int tl_put_merge (tl_tokenizer_t *self, const char *name, size_t entry, const char *left,
                  size_t left_size, const char *right, size_t right_size, tl_error_t *err);
//  Ends a byte-level vocabulary: no holes; lossy: bytes without a piece are allowed.
int tl_seal_bpe (tl_tokenizer_t *self, const char *name, bool lossy, tl_error_t *err);
//  GPT-2's letters to bytes: false when text has a letter that stands for none. The caller frees *bytes.
bool tl_unletter (const char *text, size_t size, char **bytes, size_t *bytes_size);

//  ---------------------------------------------------------------------------------------------
//  chat.c

//  Finds layout, default system message and stop ids. template may be NULL.
void tl_chat_find (tl_tokenizer_t *self, const tl_hints_t *hints);
//  Everything of a conversation that stands before the answer; its last message is the user's.
int tl_chat_prompt (const tl_tokenizer_t *self, const tl_said_t *said, size_t count, tl_ids_t *out,
                    tl_error_t *err);
//  What the layout puts before the answer's own ids, and the id behind them (-1: none).
void tl_chat_answer (const tl_tokenizer_t *self, tl_ids_t *before, int32_t *end);

#endif
