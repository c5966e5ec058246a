//  lists: see lists.h.

#include "lists.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  Room for wanted items; what is there moves along.
static void *
s_room (void *data, size_t used, size_t *room, size_t wanted, size_t item)
{
    if (wanted <= *room)
        return data;
    *room = wanted * 2 + 16;
    char *grown = tl_alloc (*room * item);
    if (used)
        memcpy (grown, data, used * item);
    free (data);
    return grown;
}

void
tl_ids_add (tl_ids_t *self, int32_t id)
{
    self->data = s_room (self->data, self->count, &self->size, self->count + 1, sizeof id);
    self->data[self->count++] = id;
}

void
tl_ids_join (tl_ids_t *self, const int32_t *ids, size_t count)
{
    self->data = s_room (self->data, self->count, &self->size, self->count + count, sizeof *ids);
    if (count)
        memcpy (self->data + self->count, ids, count * sizeof *ids);
    self->count += count;
}

void
tl_text_add (tl_text_t *self, const char *data, size_t size)
{
    self->data = s_room (self->data, self->size, &self->room, self->size + size, 1);
    if (size)
        memcpy (self->data + self->size, data, size);
    self->size += size;
}

void
tl_text_words (tl_text_t *self, const char *words)
{
    tl_text_add (self, words, strlen (words));
}
