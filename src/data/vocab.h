/*  vocab: the pieces of a tokenizer: id to bytes, bytes to id, and what kind each is. Ids run from 0 without
    holes once it is sealed. Private to src/data.                                                   */

#ifndef TL_DATA_VOCAB_H
#define TL_DATA_VOCAB_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    TL_PIECE_ABSENT,   //  no such id: only before the vocabulary is sealed
    TL_PIECE_ORDINARY, //  found in text by the algorithm
    TL_PIECE_BYTE,     //  SentencePiece's <0x..>: one byte of a character without a piece
    TL_PIECE_RAW, //  never found by the algorithm (it may be an added token); its text is put out as it is
    TL_PIECE_SPECIAL, //  controls the model: gives no text
    TL_PIECE_UNUSED   //  fills a row of the embedding: gives no text
} tl_piece_kind_t;

typedef struct {
    const char *bytes; //  [size], may hold NULs; the vocabulary's
    size_t size;
    tl_piece_kind_t kind;
    bool spaced; //  SentencePiece: begins with its sign for a space
} tl_piece_t;

typedef struct tl_vocab tl_vocab_t;

enum { TL_VOCAB_MOST = 1 << 22 }; //  ids; the largest vocabularies known have 2^18

tl_vocab_t *tl_vocab_new (void);
void tl_vocab_destroy (tl_vocab_t **self_p);

//  Gives id a piece. -1 when the id is taken or too large, or an ordinary piece has another's bytes; then *other is the
//  id in the way (or -1).
int tl_vocab_put (tl_vocab_t *self, int32_t id, const char *bytes, size_t size,
                  tl_piece_kind_t kind, int32_t *other);
//  Changes the kind of a piece that exists; a piece that stops being ordinary isn't found any more.
void tl_vocab_mark (tl_vocab_t *self, int32_t id, tl_piece_kind_t kind);
void tl_vocab_mark_spaced (tl_vocab_t *self, int32_t id);

size_t tl_vocab_count (const tl_vocab_t *self); //  highest id + 1
//  The first id without a piece; -1 when there is none.
int32_t tl_vocab_hole (const tl_vocab_t *self);
//  id must be below count.
tl_piece_t tl_vocab_piece (const tl_vocab_t *self, int32_t id);
//  The ordinary piece with these bytes; -1 when there is none.
int32_t tl_vocab_find (const tl_vocab_t *self, const char *bytes, size_t size);

#endif
