/*  bpe: byte-level byte-pair encoding of one piece of text, in O(n log n). Two kinds of rules: pairs in the
    order of a merges list (GPT-2, Hugging Face), or any two neighbours whose bytes together are a piece, lowest
    id first (tiktoken). Doesn't split text into pieces. Private to src/data.                       */

#ifndef TL_DATA_BPE_H
#define TL_DATA_BPE_H

#include "lists.h"
#include "vocab.h"

typedef struct tl_bpe tl_bpe_t;

//  The vocabulary must outlive it. ranked: tiktoken's rule, and no merges are added.
tl_bpe_t *tl_bpe_new (const tl_vocab_t *vocab, bool ranked);
void tl_bpe_destroy (tl_bpe_t **self_p);
//  The next merge, of two ordinary pieces. -1 when any of the three isn't one; then which says which: 0 the left,
//  1 the right, 2 what they give. A pair that comes again takes its later place, as in the originals.
int tl_bpe_merge (tl_bpe_t *self, const char *left, size_t left_size, const char *right,
                  size_t right_size, int *which);
//  A piece of text that is a piece of the vocabulary is that one, whatever the merges say.
void tl_bpe_whole_first (tl_bpe_t *self);
//  Call when all is in: finds the ids of single bytes. Returns how many bytes have none; first is the first of them.
size_t tl_bpe_seal (tl_bpe_t *self, int *first);

//  Scratch memory of one encoding, kept from piece to piece. All zeros to begin; tl_bpe_scratch_clear frees.
typedef struct {
    void *symbols, *heap;
    size_t symbols_size, heap_size;
} tl_bpe_scratch_t;

void tl_bpe_scratch_clear (tl_bpe_scratch_t *self);
//  Adds the ids of one piece to out. Bytes without an id of their own vanish.
void tl_bpe_encode (const tl_bpe_t *self, const char *bytes, size_t size, tl_bpe_scratch_t *scratch,
                    tl_ids_t *out);

#endif
