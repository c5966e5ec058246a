/*  added: names that are found in text as they are, before the tokenizer's own algorithm sees it: special tokens and
    tokens added to a vocabulary. Private to src/data.                                              */

#ifndef TL_DATA_ADDED_H
#define TL_DATA_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tl_added tl_added_t;

enum { TL_ADDED_LONGEST = 512 }; //  bytes of a name

//  When a name is found: in every text, only where names are asked for, or never (it is known by name only).
typedef enum { TL_FOUND_ALWAYS, TL_FOUND_PARSED, TL_FOUND_NEVER } tl_found_t;

tl_added_t *tl_added_new (void);
void tl_added_destroy (tl_added_t **self_p);
//  late: is looked for after the text was normalised. -1 when the name is empty, too long or there already with another id
//  (then *other is that id, else -1).
int tl_added_put (tl_added_t *self, const char *name, size_t size, int32_t id, tl_found_t found,
                  bool late, int32_t *other);
size_t tl_added_count (const tl_added_t *self);
int32_t tl_added_id (const tl_added_t *self, const char *name, size_t size); //  -1: no such name

//  The next name in text [size] at or after from: leftmost, then longest. Its id, and where it begins and ends; -1 when
//  there is none.
int32_t tl_added_find (const tl_added_t *self, const char *text, size_t size, size_t from,
                       bool parsed, bool late, size_t *first, size_t *last);

#endif
