/*  writing: a text that is gone on with, token by token: prompt, chosen ids, what of them can be shown, when it
    ends. tl_write feeds it from a chain here, several at a time; a site with the trunk elsewhere hands in the logits
    itself.

    Prints nothing. Text comes out in whole UTF-8 characters, and never a stop string or what may become one. */

#ifndef TL_WRITING_H
#define TL_WRITING_H

#include "data/data.h"
#include "fed/reading.h"
#include "fed/sample.h"

#include <signal.h>

typedef struct {
    const char *prompt; //  [prompt_size] UTF-8, unless it is a conversation
    size_t prompt_size;
    bool cloze;            //  the prompt as tl_prompt_cloze reads it
    const tl_said_t *said; //  [said_count] or NULL: a conversation, the user's turn at its end
    size_t said_count;
    bool shorten;      //  a prompt that leaves less than max_new of room loses its beginning
    size_t max_length; //  with shorten: ids of prompt and text together; 0: the model's longest
    size_t max_new;    //  tokens to write at most
    const char *const *stops; //  [stop_count] texts that end it; none is empty
    size_t stop_count;
    tl_sampling_t sampling;
    void (*on_piece) (void *arg, const char *text, size_t size); //  as it comes; may be NULL
    void *arg;
} tl_writing_options_t;

//  What came of it; tl_written_clear frees.
typedef struct {
    char *text; //  [size], a NUL behind it; may hold NULs itself
    size_t size;
    int32_t *ids; //  [count] chosen, without prompt and end; those of a stop string are among them
    size_t count;
    size_t prompt; //  ids of the prompt
    //  "end of text", "stop string", "length" (max_new), "end of context" (the model has no more positions) or "interrupted"; static
    const char *reason;
} tl_written_t;

typedef struct tl_writing tl_writing_t;

//  Refuses a prompt that leaves no room in the model, or can't be laid out. Tokenizer, stops and what arg points to must
//  outlive it; the rest is copied. NULL and a sentence on failure.
tl_writing_t *tl_writing_new (const tl_tokenizer_t *tokenizer, const tl_config_t *config,
                              const tl_writing_options_t *options, tl_error_t *err);
void tl_writing_destroy (tl_writing_t **self_p);

const tl_prompt_t *tl_writing_text (const tl_writing_t *self); //  prompt and text so far
size_t tl_writing_most (const tl_writing_t *self);             //  ids that it can come to
bool tl_writing_shortened (const tl_writing_t *self);          //  the prompt lost its beginning
//  Chooses the next id by logits [vocab] after the last one. 1: the text goes on; 0: it is over; -1 and a sentence when the
//  logits aren't finite: what would be chosen by them is nothing the model says.
int tl_writing_take (tl_writing_t *self, const float *logits, tl_error_t *err);
//  Once it is over (or given up, which the reason then tells): hands the last piece out.
void tl_writing_end (tl_writing_t *self, tl_written_t *written);
void tl_written_clear (tl_written_t *self);

//  Writes texts [count] by the chain, at_once of them at the same time; each comes out as it would alone, up to rounding.
//  on_over (may be NULL) is told of each that is over. Ends early when *stop (may be NULL) is set.
typedef void (tl_over_fn) (void *arg, size_t index);
int tl_write (tl_chain_t *chain, tl_writing_t *const *texts, size_t count, size_t at_once,
              const volatile sig_atomic_t *stop, tl_over_fn *on_over, void *arg, tl_error_t *err);
//  The same for one whose beginning a reading may know already.
int tl_write_on (tl_reading_t *reading, tl_writing_t *text, size_t vocab,
                 const volatile sig_atomic_t *stop, tl_error_t *err);

#endif
