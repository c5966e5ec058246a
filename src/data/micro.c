/*  micro: examples as ragged rows. Which examples a step holds is computed from (seed, site, step)
    alone: the site's draws are numbered 0, 1, 2 ..., every count of them are one pass over the file, and each
    pass has a permutation of its own, drawn from addressed randomness. Nothing is padded.         */

#include "internal.h"

#include "assert.h"
#include "memory.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

//  A site's numbers begin here apart from every other's; 2^40 sequences are enough for any run.
enum { SITE_SHIFT = 40 };

//  The public struct and, behind it, room for the batch's arrays.
typedef struct {
    tl_micro_t public;
    uint64_t *number;                  //  [sequences]
    uint32_t *length, *context, *mask; //  [sequences]
    int32_t *ids, *labels;             //  [rows]
} block_t;

static block_t *
s_new (size_t sequences, size_t rows)
{
    size_t numbers = sequences * (sizeof (uint64_t) + 3 * sizeof (uint32_t));
    block_t *self = tl_alloc (sizeof *self + numbers + rows * 2 * sizeof (int32_t));
    self->number = (uint64_t *)(self + 1);
    self->length = (uint32_t *)(self->number + sequences);
    self->context = self->length + sequences;
    self->mask = self->context + sequences;
    self->ids = (int32_t *)(self->mask + sequences);
    self->labels = self->ids + rows;
    self->public.batch = (tl_batch_t){.sequences = sequences,
                                      .rows = rows,
                                      .length = self->length,
                                      .context = self->context,
                                      .mask = self->mask,
                                      .number = self->number,
                                      .ids = self->ids,
                                      .labels = self->labels};
    return self;
}

//  Fills sequence number slot of a block, whose rows begin at row. Returns the row after it.
static size_t
s_put (block_t *self, const tl_dataset_t *data, size_t slot, size_t row, size_t example,
       uint64_t number)
{
    const tl_place_t *place = &data->places[example];
    const int32_t *ids = data->pool + place->offset;
    self->length[slot] = place->count - 1;
    self->context[slot] = place->context;
    self->mask[slot] = place->mask;
    self->number[slot] = number;
    for (uint32_t i = 0; i + 1 < place->count; i++, row++) {
        self->ids[row] = ids[i];
        self->labels[row] = i >= place->first ? ids[i + 1] : -1;
    }
    self->public.labels += place->count - 1 - place->first;
    return row;
}

//  ---------------------------------------------------------------------------------------------
//  Order

//  The permutation of one pass: Fisher and Yates from the pass's own stream.
static void
s_shuffle (tl_dataset_t *self, uint64_t seed, uint64_t site, uint64_t pass)
{
    const tl_stream_t stream = {
        .seed = seed, .purpose = TL_DRAW_SHUFFLE, .step = pass, .sequence = site};
    for (size_t i = 0; i < self->count; i++)
        self->order[i] = (uint32_t)i;
    for (size_t i = self->count; i > 1; i--) {
        size_t other = (size_t)tl_random_below (&stream, i - 1, i);
        uint32_t moved = self->order[i - 1];
        self->order[i - 1] = self->order[other];
        self->order[other] = moved;
    }
}

//  The example of a site's draw number draw.
static size_t
s_drawn (tl_dataset_t *self, uint64_t seed, uint64_t site, uint64_t draw)
{
    uint64_t pass = draw / self->count;
    bool kept = self->order && self->order_seed == seed && self->order_site == site &&
                self->order_pass == pass;
    if (!kept) {
        if (!self->order)
            self->order = tl_alloc (self->count * sizeof *self->order);
        s_shuffle (self, seed, site, pass);
        self->order_seed = seed;
        self->order_site = site;
        self->order_pass = pass;
    }
    return self->order[draw % self->count];
}

tl_extent_t
tl_dataset_run_extent (tl_dataset_t *self, uint64_t seed, uint64_t site, uint64_t steps,
                       size_t batch_size, size_t micros)
{
    enum { MOST_DRAWS = 1 << 20 };
    tl_extent_t most = {0};
    if (steps > MOST_DRAWS / batch_size)
        return tl_dataset_extent (self, (batch_size + micros - 1) / micros);
    for (uint64_t step = 0; step < steps; step++)
        for (size_t micro = 0; micro < micros; micro++) {
            tl_extent_t one = {0};
            size_t last = (micro + 1) * batch_size / micros;
            for (size_t i = micro * batch_size / micros; i < last; i++) {
                const tl_place_t *place =
                    &self->places[s_drawn (self, seed, site, step * batch_size + i)];
                one.rows += place->count - 1;
                one.labels += place->count - 1 - place->first;
                most.longest = place->count - 1 > most.longest ? place->count - 1 : most.longest;
            }
            most.rows = one.rows > most.rows ? one.rows : most.rows;
            most.labels = one.labels > most.labels ? one.labels : most.labels;
        }
    return most;
}

tl_micro_t *
tl_dataset_micro (tl_dataset_t *self, uint64_t seed, uint64_t site, uint64_t step,
                  size_t batch_size, size_t micro, size_t micros)
{
    tl_assert (micros >= 1 && micros <= batch_size && micro < micros);
    const size_t first = micro * batch_size / micros, last = (micro + 1) * batch_size / micros;
    const uint64_t begin = step * batch_size;
    size_t rows = 0, row = 0;
    size_t *examples = tl_alloc ((last - first) * sizeof *examples);
    for (size_t i = first; i < last; i++) {
        examples[i - first] = s_drawn (self, seed, site, begin + i);
        rows += self->places[examples[i - first]].count - 1;
    }
    block_t *block = s_new (last - first, rows);
    for (size_t i = first; i < last; i++)
        row = s_put (block, self, i - first, row, examples[i - first],
                     (site << SITE_SHIFT) + begin + i);
    free (examples);
    return &block->public;
}

//  ---------------------------------------------------------------------------------------------
//  Evaluation

tl_micro_t *
tl_dataset_slice (const tl_dataset_t *self, size_t first, size_t count)
{
    tl_assert (count >= 1 && first < self->count && count <= self->count - first);
    size_t rows = 0, row = 0;
    for (size_t i = first; i < first + count; i++)
        rows += self->places[i].count - 1;
    block_t *block = s_new (count, rows);
    for (size_t i = 0; i < count; i++)
        row = s_put (block, self, i, row, first + i, first + i);
    return &block->public;
}

tl_micro_t *
tl_micro_of_ids (const int32_t *ids, size_t count, uint32_t context, uint32_t mask)
{
    tl_assert (count >= 1);
    block_t *block = s_new (1, count);
    block->length[0] = (uint32_t)count;
    block->context[0] = context;
    block->mask[0] = mask;
    memcpy (block->ids, ids, count * sizeof *ids);
    for (size_t i = 0; i < count; i++)
        block->labels[i] = -1;
    return &block->public;
}

size_t
tl_dataset_fit (const tl_dataset_t *self, size_t first, size_t rows)
{
    size_t count = 0, used = 0;
    while (first + count < self->count) {
        used += self->places[first + count].count - 1;
        if (count > 0 && used > rows)
            break;
        count++;
    }
    return count;
}

//  ---------------------------------------------------------------------------------------------
//  Micros as a whole

tl_micro_t *
tl_micro_join (tl_micro_t *const *micros, size_t count)
{
    size_t sequences = 0, rows = 0, slot = 0, row = 0;
    for (size_t i = 0; i < count; i++) {
        sequences += micros[i]->batch.sequences;
        rows += micros[i]->batch.rows;
    }
    block_t *block = s_new (sequences, rows);
    for (size_t i = 0; i < count; i++) {
        const tl_batch_t *batch = &micros[i]->batch;
        memcpy (block->length + slot, batch->length, batch->sequences * sizeof *batch->length);
        memcpy (block->context + slot, batch->context, batch->sequences * sizeof *batch->context);
        memcpy (block->mask + slot, batch->mask, batch->sequences * sizeof *batch->mask);
        memcpy (block->number + slot, batch->number, batch->sequences * sizeof *batch->number);
        memcpy (block->ids + row, batch->ids, batch->rows * sizeof *batch->ids);
        memcpy (block->labels + row, batch->labels, batch->rows * sizeof *batch->labels);
        slot += batch->sequences;
        row += batch->rows;
        block->public.labels += micros[i]->labels;
    }
    return &block->public;
}

uint64_t
tl_micro_trim (tl_micro_t *self, uint64_t allowed)
{
    block_t *block = (block_t *)self;
    for (size_t row = self->batch.rows; row > 0 && self->labels > allowed; row--)
        if (block->labels[row - 1] >= 0) {
            block->labels[row - 1] = -1;
            self->labels--;
        }
    return self->labels;
}

void
tl_micro_destroy (tl_micro_t **self_p)
{
    free (*self_p);
    *self_p = NULL;
}
