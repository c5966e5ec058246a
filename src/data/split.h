/*  split: cuts text into the pieces that byte-pair encoding works on, by one or several regular expressions in a
    row: each cuts every piece of the one before, and sees nothing outside of it.

    Expressions are those of tokenizer files (Oniguruma's and Rust's common part). They are checked and translated, for
    PCRE2 means something else by some of them; what isn't known is refused. Private to src/data.   */

#ifndef TL_DATA_SPLIT_H
#define TL_DATA_SPLIT_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct tl_split tl_split_t;

tl_split_t *tl_split_new (void);
void tl_split_destroy (tl_split_t **self_p);

typedef enum {
    TL_SPLIT_BOTH,   //  matches are pieces, and so is what lies between them
    TL_SPLIT_MATCHES //  what lies between matches is dropped
} tl_split_keep_t;

//  Adds an expression of length bytes; unicode is the version that its engine knows, 14 to 16. -1 with a sentence that begins with name when it is broken, has something unknown
//  in it, or takes for ever on simple texts.
int tl_split_add (tl_split_t *self, const char *name, const char *pattern, size_t length,
                  unsigned unicode, tl_split_keep_t keep, tl_error_t *err);
//  Adds a text that is to be found as it is; it becomes a piece of its own.
int tl_split_add_literal (tl_split_t *self, const char *name, const char *text, size_t length,
                          tl_error_t *err);

//  Calls take for each piece of well-formed UTF-8 text, in order, none empty. Without expressions the text is one piece. An
//  expression that gives up in the middle leaves the rest of its piece whole, which is logged once.
typedef void tl_split_fn (void *arg, const char *piece, size_t size);
void tl_split_run (const tl_split_t *self, const char *text, size_t size, tl_split_fn *take,
                   void *arg);

//  The expression of GPT-2.
#define TL_SPLIT_GPT2                                                                              \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
//  Llama 3's and GLM-4's (digits by three), and Qwen2's (one by one).
#define TL_SPLIT_AFTER_GPT2(digits)                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                           \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define TL_SPLIT_LLAMA3 TL_SPLIT_AFTER_GPT2 ("\\p{N}{1,3}")
#define TL_SPLIT_QWEN2 TL_SPLIT_AFTER_GPT2 ("\\p{N}")

#endif
