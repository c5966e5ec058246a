/*  bpe: see bpe.h. Symbols are a doubly linked list in an array; a binary heap gives the pair of the lowest rank, the
    leftmost first. A pair that is no more when it comes out of the heap is passed over: each merge adds at most
    two pairs, so that n bytes take at most 3 n of them.                                            */

#include "bpe.h"

#include "assert.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  A merge: key is left id << 32 | right id.
typedef struct {
    uint64_t key;
    uint32_t rank;
    int32_t id; //  what the two give
} merge_t;

#define EMPTY UINT64_MAX

struct tl_bpe {
    const tl_vocab_t *vocab; //  not owned
    bool ranked, whole_first;
    merge_t *merges; //  [merges_size] open addressing, a power of two
    size_t merges_used, merges_size;
    uint32_t next_rank;
    int32_t of_byte[256]; //  -1: none
};

typedef struct {
    uint32_t start, size; //  bytes of the piece
    int32_t id;
    int32_t previous, next; //  -1: none
} symbol_t;

typedef struct {
    uint64_t key;        //  rank << 32 | index of the left symbol
    int32_t left, right; //  ids when it was found
    int32_t id;          //  what they give
} pair_t;

tl_bpe_t *
tl_bpe_new (const tl_vocab_t *vocab, bool ranked)
{
    tl_bpe_t *self = tl_alloc (sizeof *self);
    self->vocab = vocab;
    self->ranked = self->whole_first = ranked;
    return self;
}

void
tl_bpe_destroy (tl_bpe_t **self_p)
{
    tl_bpe_t *self = *self_p;
    if (!self)
        return;
    free (self->merges);
    free (self);
    *self_p = NULL;
}

//  ---------------------------------------------------------------------------------------------
//  Merges

static uint64_t
s_key (int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static merge_t *
s_slot (merge_t *merges, size_t size, uint64_t key)
{
    //  Fibonacci hashing: the high bits are well mixed.
    uint64_t mixed = (key ^ key >> 29) * 0x9e3779b97f4a7c15u;
    size_t slot = (size_t)(mixed >> 32) & (size - 1);
    while (merges[slot].key != key && merges[slot].key != EMPTY)
        slot = (slot + 1) & (size - 1);
    return &merges[slot];
}

static void
s_widen (tl_bpe_t *self)
{
    size_t size = self->merges_size ? self->merges_size * 2 : 1024;
    merge_t *merges = tl_alloc (size * sizeof *merges);
    for (size_t i = 0; i < size; i++)
        merges[i].key = EMPTY;
    for (size_t i = 0; i < self->merges_size; i++)
        if (self->merges[i].key != EMPTY)
            *s_slot (merges, size, self->merges[i].key) = self->merges[i];
    free (self->merges);
    self->merges = merges;
    self->merges_size = size;
}

int
tl_bpe_merge (tl_bpe_t *self, const char *left, size_t left_size, const char *right,
              size_t right_size, int *which)
{
    int32_t ids[3];
    char *both = tl_alloc (left_size + right_size + 1);
    memcpy (both, left, left_size);
    memcpy (both + left_size, right, right_size);
    ids[0] = tl_vocab_find (self->vocab, left, left_size);
    ids[1] = tl_vocab_find (self->vocab, right, right_size);
    ids[2] = tl_vocab_find (self->vocab, both, left_size + right_size);
    free (both);
    for (*which = 0; *which < 3; ++*which)
        if (ids[*which] < 0)
            return -1;
    if (2 * self->merges_used >= self->merges_size)
        s_widen (self);
    merge_t *merge = s_slot (self->merges, self->merges_size, s_key (ids[0], ids[1]));
    if (merge->key == EMPTY)
        self->merges_used++;
    *merge = (merge_t){s_key (ids[0], ids[1]), self->next_rank++, ids[2]};
    return 0;
}

void
tl_bpe_whole_first (tl_bpe_t *self)
{
    self->whole_first = true;
}

size_t
tl_bpe_seal (tl_bpe_t *self, int *first)
{
    size_t missing = 0;
    *first = -1;
    for (int byte = 255; byte >= 0; byte--) {
        char letter = (char)byte;
        self->of_byte[byte] = tl_vocab_find (self->vocab, &letter, 1);
        if (self->of_byte[byte] < 0) {
            missing++;
            *first = byte;
        }
    }
    return missing;
}

//  ---------------------------------------------------------------------------------------------
//  Encoding

typedef struct {
    const tl_bpe_t *of;
    const char *bytes;
    symbol_t *symbols;
    pair_t *heap; //  [heaped]
    size_t heaped;
} work_t;

static void
s_push (work_t *self, pair_t pair)
{
    size_t at = self->heaped++;
    for (; at > 0 && pair.key < self->heap[(at - 1) / 2].key; at = (at - 1) / 2)
        self->heap[at] = self->heap[(at - 1) / 2];
    self->heap[at] = pair;
}

static pair_t
s_pop (work_t *self)
{
    pair_t top = self->heap[0], last = self->heap[--self->heaped];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < self->heaped && self->heap[child + 1].key < self->heap[child].key)
            child++;
        if (child >= self->heaped || self->heap[child].key >= last.key)
            break;
        self->heap[at] = self->heap[child];
        at = child;
    }
    self->heap[at] = last;
    return top;
}

//  Puts the pair of a symbol and the one after it into the heap, if there is a rule for it.
static void
s_offer (work_t *self, int32_t at)
{
    if (at < 0 || self->symbols[at].next < 0)
        return;
    const symbol_t *left = &self->symbols[at], *right = &self->symbols[left->next];
    pair_t pair = {.left = left->id, .right = right->id};
    uint32_t rank;
    if (self->of->ranked) {
        //  Every byte has an id then, so that neighbours are neighbours in the text as well.
        pair.id =
            tl_vocab_find (self->of->vocab, self->bytes + left->start, left->size + right->size);
        if (pair.id < 0)
            return;
        rank = (uint32_t)pair.id;
    } else {
        if (self->of->merges_size == 0)
            return;
        uint64_t key = s_key (left->id, right->id);
        const merge_t *merge = s_slot (self->of->merges, self->of->merges_size, key);
        if (merge->key == EMPTY)
            return;
        pair.id = merge->id;
        rank = merge->rank;
    }
    pair.key = (uint64_t)rank << 32 | (uint32_t)at;
    s_push (self, pair);
}

static void
s_merge_all (work_t *self)
{
    while (self->heaped > 0) {
        pair_t pair = s_pop (self);
        int32_t at = (int32_t)(uint32_t)pair.key;
        symbol_t *left = &self->symbols[at];
        if (left->size == 0 || left->id != pair.left || left->next < 0)
            continue;
        symbol_t *right = &self->symbols[left->next];
        if (right->id != pair.right)
            continue;
        left->id = pair.id;
        left->size += right->size;
        left->next = right->next;
        right->size = 0;
        if (left->next >= 0)
            self->symbols[left->next].previous = at;
        s_offer (self, left->previous);
        s_offer (self, at);
    }
}

static void *
s_room (void *data, size_t *size, size_t wanted, size_t item)
{
    if (wanted <= *size)
        return data;
    free (data);
    *size = wanted * 2;
    return tl_alloc (*size * item);
}

//  A piece of at most 2^30 bytes.
static void
s_encode (const tl_bpe_t *self, const char *bytes, size_t size, tl_bpe_scratch_t *scratch,
          tl_ids_t *out)
{
    scratch->symbols = s_room (scratch->symbols, &scratch->symbols_size, size, sizeof (symbol_t));
    scratch->heap = s_room (scratch->heap, &scratch->heap_size, 3 * size, sizeof (pair_t));
    work_t work = {self, bytes, scratch->symbols, scratch->heap, 0};
    int32_t count = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t id = self->of_byte[(unsigned char)bytes[i]];
        if (id >= 0) {
            work.symbols[count] = (symbol_t){(uint32_t)i, 1, id, count - 1, count + 1};
            count++;
        }
    }
    if (count == 0)
        return;
    work.symbols[count - 1].next = -1;
    for (int32_t i = 0; i < count; i++)
        s_offer (&work, i);
    s_merge_all (&work);
    for (int32_t i = 0; i >= 0; i = work.symbols[i].next)
        tl_ids_add (out, work.symbols[i].id);
}

void
tl_bpe_encode (const tl_bpe_t *self, const char *bytes, size_t size, tl_bpe_scratch_t *scratch,
               tl_ids_t *out)
{
    int32_t whole = self->whole_first ? tl_vocab_find (self->vocab, bytes, size) : -1;
    if (whole >= 0) {
        tl_ids_add (out, whole);
        return;
    }
    //  Indices have 31 bits. No text that anybody has reaches this; one that does is cut.
    const size_t most = (size_t)1 << 30;
    for (; size > most; bytes += most, size -= most)
        s_encode (self, bytes, most, scratch, out);
    s_encode (self, bytes, size, scratch, out);
}

void
tl_bpe_scratch_clear (tl_bpe_scratch_t *self)
{
    free (self->symbols);
    free (self->heap);
    memset (self, 0, sizeof *self);
}
