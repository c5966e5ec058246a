/*  writing: a text that is gone on with, token by token: prompt, chosen ids, what of them can be shown, when it
    ends. Whoever has logits (a chain here, or a site with the trunk elsewhere) feeds it.

    Computes no logits, prints nothing. Text comes out in whole UTF-8 characters.                   */

#ifndef TL_WRITING_H
#define TL_WRITING_H

#include "data/data.h"
#include "fed/sample.h"

typedef struct {
    const char *prompt;
    size_t max_new; //  tokens to write at most
    tl_sampling_t sampling;
    void (*on_piece) (void *arg, const char *text, size_t size); //  as it comes; may be NULL
    void *arg;
} tl_writing_options_t;

//  What came of it; tl_written_clear frees.
typedef struct {
    char *text; //  [size], a NUL behind it; may hold NULs itself
    size_t size;
    int32_t *ids; //  [count] without prompt and end
    size_t count;
    const char *reason; //  "end of text" or "length"; static
} tl_written_t;

typedef struct tl_writing tl_writing_t;

//  Refuses a prompt that leaves no room in the model. The
//  tokenizer must outlive it, the config is copied. NULL and a sentence on failure.
tl_writing_t *tl_writing_new (const tl_tokenizer_t *tokenizer, const tl_config_t *config,
                              const tl_writing_options_t *options, tl_error_t *err);
void tl_writing_destroy (tl_writing_t **self_p);

const int32_t *tl_writing_ids (const tl_writing_t *self, size_t *count); //  prompt and text so far
size_t tl_writing_most (const tl_writing_t *self);                       //  ids that it can come to
uint32_t tl_writing_context (const tl_writing_t *self);                  //  as in tl_batch_t
uint32_t tl_writing_mask (const tl_writing_t *self);
//  Chooses the next id by logits [vocab] after the last one. False: the text is over.
bool tl_writing_take (tl_writing_t *self, const float *logits);
//  Once it is over (or given up): hands the last piece out.
void tl_writing_end (tl_writing_t *self, tl_written_t *written);
void tl_written_clear (tl_written_t *self);

#endif
