/*  added: see added.h. For each length that names have, a look into a hash table at every place where a name could
    begin: lengths are few, and so are the letters that names begin with.                           */

#include "added.h"

#include "hash.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    char *name; //  NULL: an empty slot
    uint32_t size;
    int32_t id;
    tl_found_t found;
    bool late;
} entry_t;

struct tl_added {
    entry_t *slots; //  [slots_size] open addressing, a power of two
    size_t count, slots_size;
    bool begins[256];                   //  some name begins with this byte
    uint16_t lengths[TL_ADDED_LONGEST]; //  [length_count], that names have, descending
    size_t length_count;
};

tl_added_t *
tl_added_new (void)
{
    tl_added_t *self = tl_alloc (sizeof *self);
    self->slots_size = 64;
    self->slots = tl_alloc (self->slots_size * sizeof *self->slots);
    return self;
}

void
tl_added_destroy (tl_added_t **self_p)
{
    tl_added_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->slots_size; i++)
        free (self->slots[i].name);
    free (self->slots);
    free (self);
    *self_p = NULL;
}

static entry_t *
s_slot (const tl_added_t *self, const char *name, size_t size)
{
    size_t mask = self->slots_size - 1, slot = tl_hash64 (name, size) & mask;
    for (; self->slots[slot].name; slot = (slot + 1) & mask)
        if (self->slots[slot].size == size && memcmp (self->slots[slot].name, name, size) == 0)
            break;
    return &self->slots[slot];
}

static void
s_widen (tl_added_t *self)
{
    entry_t *old = self->slots;
    size_t size = self->slots_size;
    self->slots_size *= 2;
    self->slots = tl_alloc (self->slots_size * sizeof *self->slots);
    for (size_t i = 0; i < size; i++)
        if (old[i].name)
            *s_slot (self, old[i].name, old[i].size) = old[i];
    free (old);
}

static void
s_note_length (tl_added_t *self, size_t size)
{
    size_t at = 0;
    while (at < self->length_count && self->lengths[at] > size)
        at++;
    if (at < self->length_count && self->lengths[at] == size)
        return;
    memmove (self->lengths + at + 1, self->lengths + at,
             (self->length_count - at) * sizeof *self->lengths);
    self->lengths[at] = (uint16_t)size;
    self->length_count++;
}

int
tl_added_put (tl_added_t *self, const char *name, size_t size, int32_t id, tl_found_t found,
              bool late, int32_t *other)
{
    *other = -1;
    if (size == 0 || size > TL_ADDED_LONGEST)
        return -1;
    entry_t *entry = s_slot (self, name, size);
    if (entry->name) {
        *other = entry->id;
        return entry->id == id ? 0 : -1;
    }
    *entry = (entry_t){tl_alloc (size + 1), (uint32_t)size, id, found, late};
    memcpy (entry->name, name, size);
    self->begins[(unsigned char)*name] = true;
    s_note_length (self, size);
    if (2 * ++self->count >= self->slots_size)
        s_widen (self);
    return 0;
}

size_t
tl_added_count (const tl_added_t *self)
{
    return self->count;
}

int32_t
tl_added_id (const tl_added_t *self, const char *name, size_t size)
{
    const entry_t *entry = s_slot (self, name, size);
    return entry->name ? entry->id : -1;
}

int32_t
tl_added_find (const tl_added_t *self, const char *text, size_t size, size_t from, bool parsed,
               bool late, size_t *first, size_t *last)
{
    for (size_t at = from; at < size; at++) {
        if (!self->begins[(unsigned char)text[at]])
            continue;
        for (size_t i = 0; i < self->length_count; i++) {
            size_t length = self->lengths[i];
            if (length > size - at)
                continue;
            const entry_t *entry = s_slot (self, text + at, length);
            if (!entry->name || entry->late != late || entry->found == TL_FOUND_NEVER ||
                (entry->found == TL_FOUND_PARSED && !parsed))
                continue;
            *first = at;
            *last = at + length;
            return entry->id;
        }
    }
    return -1;
}
