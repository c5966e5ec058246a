/*  tiny_bpe: for tests, byte-level tokenizers made here: the 256 bytes with their own value as id, then what merges give, in
    order. As tokenizer.json, vocab.json and merges.txt, GLM-4's tiktoken file, or inside a GGUF.    */

#ifndef TINY_BPE_H
#define TINY_BPE_H

#include "error.h"
#include "model/model.h"

#include <stdbool.h>
#include <stddef.h>

//  What a tokenizer.json is made of; NULL is the usual: no merges, GPT-2's expression, nothing added, no normalizer.
typedef struct {
    const char *const *merges; //  "a b" in GPT-2's letters, ended by NULL
    bool pairs;                //  written as ["a", "b"]
    int missing;       //  a byte without a piece of its own (its id bears another name); 0: none
    const char *model; //  more members of "model", each with a comma behind it
    const char *pre_tokenizer, *normalizer, *post_processor, *decoder, *added; //  JSON
} tiny_bpe_t;

//  Texts from malloc.
char *tiny_bpe_json (const tiny_bpe_t *spec);
char *tiny_bpe_vocab (const tiny_bpe_t *spec);  //  vocab.json
char *tiny_bpe_merges (const tiny_bpe_t *spec); //  merges.txt
//  Bytes 0 .. 255, then these pieces (plain text), ended by NULL.
char *tiny_bpe_tiktoken (const char *const *pieces);

//  Writes text into directory/name.
int tiny_bpe_put (const char *directory, const char *name, const char *text, tl_error_t *err);

#endif
