//  vocab: see vocab.h. A pool of bytes, a table by id, and a hash table (open addressing) of ordinary pieces.

#include "vocab.h"

#include "assert.h"
#include "hash.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    size_t offset; //  in the pool
    uint32_t size;
    uint8_t kind;
    bool spaced;
} entry_t;

struct tl_vocab {
    char *pool;
    size_t pool_used, pool_size;
    entry_t *entries; //  [entries_size], of them count in use
    size_t count, entries_size;
    int32_t *slots; //  [slots_size] ids of ordinary pieces, -1 for an empty slot; a power of two
    size_t slots_used, slots_size;
};

tl_vocab_t *
tl_vocab_new (void)
{
    return tl_alloc (sizeof (tl_vocab_t));
}

void
tl_vocab_destroy (tl_vocab_t **self_p)
{
    tl_vocab_t *self = *self_p;
    if (!self)
        return;
    free (self->pool);
    free (self->entries);
    free (self->slots);
    free (self);
    *self_p = NULL;
}

//  The slot that holds such a piece, or the empty one where it would go.
static size_t
s_slot (const tl_vocab_t *self, const char *bytes, size_t size)
{
    size_t mask = self->slots_size - 1, slot = tl_hash64 (bytes, size) & mask;
    for (; self->slots[slot] >= 0; slot = (slot + 1) & mask) {
        const entry_t *entry = &self->entries[self->slots[slot]];
        if (entry->size == size && memcmp (self->pool + entry->offset, bytes, size) == 0)
            break;
    }
    return slot;
}

static void
s_widen_slots (tl_vocab_t *self)
{
    int32_t *old = self->slots;
    size_t old_size = self->slots_size;
    self->slots_size = old_size ? old_size * 2 : 1024;
    self->slots = tl_alloc (self->slots_size * sizeof *self->slots);
    memset (self->slots, 0xff, self->slots_size * sizeof *self->slots);
    for (size_t i = 0; i < old_size; i++)
        if (old[i] >= 0) {
            const entry_t *entry = &self->entries[old[i]];
            self->slots[s_slot (self, self->pool + entry->offset, entry->size)] = old[i];
        }
    free (old);
}

//  Room for count more; returns data, perhaps moved. What is new is zero.
static void *
s_grow (void *data, size_t *size, size_t used, size_t more, size_t item)
{
    if (used + more <= *size)
        return data;
    size_t wanted = (used + more) * 2;
    char *grown = tl_alloc (wanted * item);
    if (used)
        memcpy (grown, data, used * item);
    free (data);
    *size = wanted;
    return grown;
}

int
tl_vocab_put (tl_vocab_t *self, int32_t id, const char *bytes, size_t size, tl_piece_kind_t kind,
              int32_t *other)
{
    *other = -1;
    if (id < 0 || id >= TL_VOCAB_MOST || size > UINT32_MAX)
        return -1;
    if ((size_t)id < self->count && self->entries[id].kind != TL_PIECE_ABSENT) {
        *other = id;
        return -1;
    }
    if (kind == TL_PIECE_ORDINARY && (*other = tl_vocab_find (self, bytes, size)) >= 0)
        return -1;
    if ((size_t)id >= self->count) {
        self->entries = s_grow (self->entries, &self->entries_size, self->count,
                                (size_t)id + 1 - self->count, sizeof *self->entries);
        self->count = (size_t)id + 1;
    }
    self->pool = s_grow (self->pool, &self->pool_size, self->pool_used, size, 1);
    if (size)
        memcpy (self->pool + self->pool_used, bytes, size);
    self->entries[id] = (entry_t){self->pool_used, (uint32_t)size, (uint8_t)kind, false};
    self->pool_used += size;
    if (kind == TL_PIECE_ORDINARY && size) {
        if (2 * self->slots_used >= self->slots_size)
            s_widen_slots (self);
        self->slots[s_slot (self, bytes, size)] = id;
        self->slots_used++;
    }
    return 0;
}

void
tl_vocab_mark (tl_vocab_t *self, int32_t id, tl_piece_kind_t kind)
{
    tl_assert (id >= 0 && (size_t)id < self->count && kind != TL_PIECE_ORDINARY);
    self->entries[id].kind = (uint8_t)kind;
}

void
tl_vocab_mark_spaced (tl_vocab_t *self, int32_t id)
{
    self->entries[id].spaced = true;
}

size_t
tl_vocab_count (const tl_vocab_t *self)
{
    return self->count;
}

int32_t
tl_vocab_hole (const tl_vocab_t *self)
{
    for (size_t id = 0; id < self->count; id++)
        if (self->entries[id].kind == TL_PIECE_ABSENT)
            return (int32_t)id;
    return -1;
}

tl_piece_t
tl_vocab_piece (const tl_vocab_t *self, int32_t id)
{
    tl_assert (id >= 0 && (size_t)id < self->count);
    const entry_t *entry = &self->entries[id];
    return (tl_piece_t){entry->size ? self->pool + entry->offset : "", entry->size,
                        (tl_piece_kind_t)entry->kind, entry->spaced};
}

int32_t
tl_vocab_find (const tl_vocab_t *self, const char *bytes, size_t size)
{
    if (self->slots_size == 0 || size == 0)
        return -1;
    int32_t id = self->slots[s_slot (self, bytes, size)];
    return id >= 0 && self->entries[id].kind == TL_PIECE_ORDINARY ? id : -1;
}
