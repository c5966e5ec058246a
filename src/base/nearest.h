//  nearest: the known word that a misspelt one probably meant.

#ifndef TL_NEAREST_H
#define TL_NEAREST_H

#include <stddef.h>

//  The word of words [count] with the smallest edit distance to text (insert, delete, replace and swap
//  of neighbours cost 1, case costs nothing), or NULL when none is near: more than a third of the
//  longer word away, and at least 2 allowed. Pointer into words.
const char *tl_nearest (const char *text, const char *const *words, size_t count);

#endif
