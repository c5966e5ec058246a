/*  reading: what a chain has read of a text: its ids, and each segment's keys and values of them. A text that begins as
    what was read before is only read from where it differs: an answer grows by a row a token, a conversation
    by its last turns.

    Several readings are read on at the same time, ragged: all their new rows go through every linear together. */

#ifndef TL_READING_H
#define TL_READING_H

#include "data/data.h"
#include "fed/parts.h"

typedef struct tl_reading tl_reading_t;

//  Of one text; the chain must outlive it. capacity: ids it may come to; it grows when there are more, and reads all again.
tl_reading_t *tl_reading_new (tl_chain_t *chain, size_t capacity);
void tl_reading_destroy (tl_reading_t **self_p);
size_t tl_reading_count (const tl_reading_t *self); //  ids that are read

//  Reads texts [count], each whole so far, by readings [count] of one chain. logits [count, vocab] are those after each
//  text's last id. -1 when an id isn't the model's.
int tl_read (tl_reading_t *const *readings, const tl_prompt_t *const *texts, size_t count,
             float *logits, tl_error_t *err);

#endif
