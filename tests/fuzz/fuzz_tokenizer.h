//  fuzz_tokenizer: what the tokenizers' fuzz targets share.

#ifndef FUZZ_TOKENIZER_H
#define FUZZ_TOKENIZER_H

#include "data/tokenizer_internal.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

//  An empty tokenizer for a reader to fill, of a family, without special ids.
tl_tokenizer_t *fuzz_empty (tl_family_t family);
//  rc is the reader's. A failure must have left a sentence; a tokenizer must encode any bytes and decode any ids, at once
//  and one by one, the same. Destroys it.
void fuzz_use (tl_tokenizer_t **tokenizer, int rc, const tl_error_t *err, const uint8_t *data,
               size_t size);
//  The second half of that, for one that stays.
void fuzz_text (const tl_tokenizer_t *tokenizer, const uint8_t *data, size_t size);

#endif
