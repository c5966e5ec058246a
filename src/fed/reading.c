#include "fed/reading.h"

#include "assert.h"
#include "fed/evaluate.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct tl_reading {
    tl_chain_t *chain;
    tl_cache_t *caches[TL_CHAIN_SEGMENTS]; //  of its segments
    size_t capacity;                       //  ids that fit
    int32_t *ids;                          //  [capacity] read
    size_t count;                          //  of them
    uint32_t context, mask;                //  as in tl_batch_t, of what was read
};

static void
s_close (tl_reading_t *self)
{
    for (size_t i = 0; i < TL_CHAIN_SEGMENTS; i++)
        tl_cache_destroy (&self->caches[i]);
    free (self->ids);
}

static void
s_open (tl_reading_t *self, size_t capacity)
{
    self->capacity = capacity;
    self->count = 0;
    self->ids = tl_alloc (capacity * sizeof *self->ids);
    for (size_t i = 0; i < self->chain->segment_count; i++)
        self->caches[i] = tl_cache_new (self->chain->segments[i], capacity);
}

tl_reading_t *
tl_reading_new (tl_chain_t *chain, size_t capacity)
{
    tl_reading_t *self = tl_alloc (sizeof *self);
    self->chain = chain;
    s_open (self, capacity);
    return self;
}

void
tl_reading_destroy (tl_reading_t **self_p)
{
    tl_reading_t *self = *self_p;
    if (!self)
        return;
    s_close (self);
    free (self);
    *self_p = NULL;
}

size_t
tl_reading_count (const tl_reading_t *self)
{
    return self->count;
}

//  Forgets what is not the text's beginning. At least its last id is to be read: its logits are wanted.
static void
s_go_back (tl_reading_t *self, const tl_prompt_t *text)
{
    size_t same = 0;
    while (same < self->count && same + 1 < text->count && self->ids[same] == text->ids[same])
        same++;
    //  Rows of a context see all of it.
    if (self->context != text->context || self->mask != text->mask || same < text->context)
        same = 0;
    if (text->count > self->capacity) {
        s_close (self);
        s_open (self, 2 * text->count);
        same = 0;
    }
    for (size_t i = 0; i < self->chain->segment_count; i++)
        tl_cache_cut (self->caches[i], same);
    self->count = same;
    self->context = text->context;
    self->mask = text->mask;
}

//  What tl_segment_extend wants to know about some readings.
typedef struct {
    uint32_t *length, *context, *mask; //  [count]
    uint64_t *number;                  //  [count]
    int32_t *ids;                      //  [rows] new ones
    size_t rows;
} s_new_t;

static void
s_new (s_new_t *self, tl_reading_t *const *readings, const tl_prompt_t *const *texts, size_t count)
{
    self->rows = 0;
    for (size_t i = 0; i < count; i++)
        self->rows += texts[i]->count - readings[i]->count;
    self->length = tl_alloc (3 * count * sizeof *self->length);
    self->context = self->length + count;
    self->mask = self->context + count;
    self->number = tl_alloc (count * sizeof *self->number);
    self->ids = tl_alloc (self->rows * sizeof *self->ids);
    for (size_t i = 0, at = 0; i < count; i++) {
        size_t from = readings[i]->count, more = texts[i]->count - from;
        memcpy (self->ids + at, texts[i]->ids + from, more * sizeof *self->ids);
        self->length[i] = (uint32_t)texts[i]->count;
        self->context[i] = texts[i]->context;
        self->mask[i] = texts[i]->mask;
        at += more;
    }
}

static void
s_new_free (s_new_t *self)
{
    free (self->length);
    free (self->number);
    free (self->ids);
}

//  Through all segments: rows [rows, hidden] after the last.
static int
s_extend (tl_reading_t *const *readings, size_t count, const tl_batch_t *batch, size_t total,
          float *rows, tl_error_t *err)
{
    tl_chain_t *chain = readings[0]->chain;
    tl_cache_t **caches = tl_alloc (count * sizeof *caches);
    int rc = 0;
    for (size_t s = 0; rc == 0 && s < chain->segment_count; s++) {
        for (size_t i = 0; i < count; i++)
            caches[i] = readings[i]->caches[s];
        rc = tl_segment_extend (chain->segments[s], caches, batch, total, s ? rows : NULL, rows,
                                err);
    }
    free (caches);
    return rc;
}

static int
s_read (tl_reading_t *const *readings, const tl_prompt_t *const *texts, size_t count, float *logits,
        tl_error_t *err)
{
    tl_chain_t *chain = readings[0]->chain;
    s_new_t new;
    s_new (&new, readings, texts, count);
    tl_batch_t batch = {.sequences = count,
                        .rows = new.rows,
                        .length = new.length,
                        .context = new.context,
                        .mask = new.mask,
                        .number = new.number,
                        .ids = new.ids};
    float *rows = tl_alloc_aligned (new.rows * chain->hidden * sizeof *rows);
    int rc = s_extend (readings, count, &batch, new.rows, rows, err);
    for (size_t i = 0, end = 0; rc == 0 && i < count; i++) {
        tl_reading_t *reading = readings[i];
        size_t more = texts[i]->count - reading->count;
        memcpy (reading->ids + reading->count, texts[i]->ids + reading->count,
                more * sizeof *reading->ids);
        reading->count = texts[i]->count;
        end += more;
        memmove (rows + i * chain->hidden, rows + (end - 1) * chain->hidden,
                 chain->hidden * sizeof *rows);
    }
    if (rc == 0)
        tl_segment_head (chain->segments[chain->segment_count - 1], rows, count, logits);
    free (rows);
    s_new_free (&new);
    return rc;
}

int
tl_read (tl_reading_t *const *readings, const tl_prompt_t *const *texts, size_t count,
         float *logits, tl_error_t *err)
{
    size_t first = 0;
    for (size_t i = 0; i < count; i++) {
        tl_assert (texts[i]->count >= 1 && readings[i]->chain == readings[0]->chain);
        s_go_back (readings[i], texts[i]);
    }
    //  Long prompts come one after another: what they need at once stays bounded.
    while (first < count) {
        tl_chain_t *chain = readings[0]->chain;
        size_t vocab = chain->vocab, next = first, rows = 0;
        do
            rows += texts[next]->count - readings[next]->count;
        while (++next < count &&
               rows + texts[next]->count - readings[next]->count <= TL_EVALUATE_ROWS);
        if (s_read (readings + first, texts + first, next - first, logits + first * vocab, err))
            return -1;
        first = next;
    }
    return 0;
}
