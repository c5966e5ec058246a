/*  tiny_tokenizer: for tests, a SentencePiece model of about 300 pieces, made here byte by byte (no training,
    no file of anybody's): special pieces, the 256 bytes, and single letters. Any text has ids.     */

#ifndef TINY_TOKENIZER_H
#define TINY_TOKENIZER_H

#include "error.h"
#include "model/model.h"

//  Ids of the special pieces. llama: <unk> 0, <s> 1, </s> 2. chatglm: also <pad> 3, and behind all others
//  [MASK], [gMASK], <sop>, <eop>, which are the last four of tiny_tokenizer_vocab.
size_t tiny_tokenizer_vocab (tl_family_t family);

//  A config that such a tokenizer fits: family, vocab, special ids, 4096 positions. Nothing else is set.
tl_config_t tiny_tokenizer_config (tl_family_t family);

//  Writes tokenizer.model into an existing directory.
int tiny_tokenizer_write (tl_family_t family, const char *directory, tl_error_t *err);

#endif
