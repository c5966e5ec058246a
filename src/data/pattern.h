/*  pattern: regular expressions of tokenizer files, checked and written as PCRE2 understands them. Private to
    src/data.                                                                                       */

#ifndef TL_DATA_PATTERN_H
#define TL_DATA_PATTERN_H

#include "error.h"
#include "lists.h"

#include <stdbool.h>

enum { TL_PATTERN_MOST = 1 << 14 }; //  bytes of an expression; the longest known have 600

//  unicode: the version whose letters and digits \p{L} and \p{N} are, 14 to 16.
//  Appends the expression of length bytes, for PCRE2 with UTF and UCP, to out. -1 with a sentence that begins with name and
//  shows what isn't supported. Whether its brackets match, PCRE2 says.
int tl_pattern_translate (const char *name, const char *pattern, size_t length, unsigned unicode,
                          tl_text_t *out, tl_error_t *err);

#endif
