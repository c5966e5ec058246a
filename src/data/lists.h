/*  lists: growing lists of ids and bytes, for src/data.                                            */

#ifndef TL_DATA_LISTS_H
#define TL_DATA_LISTS_H

#include <stddef.h>
#include <stdint.h>

//  All zeros is an empty list; the caller frees data.
typedef struct {
    int32_t *data; //  [size], of them count in use
    size_t count, size;
} tl_ids_t;

typedef struct {
    char *data; //  [room], of them size in use
    size_t size, room;
} tl_text_t;

void tl_ids_add (tl_ids_t *self, int32_t id);
void tl_ids_join (tl_ids_t *self, const int32_t *ids, size_t count);
void tl_text_add (tl_text_t *self, const char *data, size_t size);
void tl_text_words (tl_text_t *self, const char *words); //  up to its NUL

#endif
