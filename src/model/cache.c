/*  cache: keys and values of a sequence, so that generation reads every row once. Keys are kept after
    rotary, behind the block's prefix if it has one; ChatGLM's context columns stay visible to every later
    row.                                                                                            */

#include "model/segment.h"

#include "assert.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct tl_cache {
    size_t capacity; //  rows
    size_t cached;   //  rows read so far
    size_t blocks;
    tl_kv_t *kv;    //  [blocks]
    float *storage; //  all keys and values
};

tl_cache_t *
tl_cache_new (const tl_segment_t *segment, size_t capacity)
{
    const tl_config_t *config = segment->context.config;
    tl_cache_t *self = tl_alloc (sizeof *self);
    self->capacity = capacity;
    self->blocks = segment->range.last - segment->range.first;
    self->kv = tl_alloc ((self->blocks + 1) * sizeof *self->kv);
    size_t width = config->kv_heads * config->head_dim, total = 16;
    for (size_t i = 0; i < self->blocks; i++)
        total += 2 * tl_padded ((segment->blocks[i].prefix.rows + capacity) * width);
    self->storage = tl_alloc_aligned (total * sizeof (float));
    const tl_attention_t shape = {.kv_heads = config->kv_heads, .d = config->head_dim};
    float *at = self->storage;
    for (size_t i = 0; i < self->blocks; i++) {
        const tl_block_t *block = &segment->blocks[i];
        size_t size = tl_padded ((block->prefix.rows + capacity) * width);
        self->kv[i] = (tl_kv_t){.k = at, .v = at + size, .prefix = block->prefix.rows};
        tl_block_join (block, self->kv[i].k, self->kv[i].v, NULL, NULL, &shape, 0);
        at += 2 * size;
    }
    return self;
}

void
tl_cache_destroy (tl_cache_t **self_p)
{
    tl_cache_t *self = *self_p;
    if (!self)
        return;
    free (self->kv);
    free (self->storage);
    free (self);
    *self_p = NULL;
}

size_t
tl_cache_rows (const tl_cache_t *self)
{
    return self->cached;
}

void
tl_cache_cut (tl_cache_t *self, size_t rows)
{
    tl_assert (rows <= self->cached);
    self->cached = rows;
}

//  Room for one block's pass over n rows, used again by every block.
static void
s_take_kept (tl_segment_t *self, const tl_block_t *block, size_t n, tl_kept_t *kept)
{
    tl_workspace_t *workspace = self->context.workspace;
    const tl_config_t *config = self->context.config;
    memset (kept, 0, sizeof *kept);
    kept->mean1 = kept->mean2 = tl_workspace_take (workspace, n);
    kept->rstd1 = kept->rstd2 = tl_workspace_take (workspace, n);
    for (size_t i = 0; i < 3; i++)
        if (block->linear[i].out)
            kept->qkv[i] = tl_workspace_take (workspace, n * block->linear[i].out);
    kept->attended = tl_workspace_take (workspace, n * block->linear[TL_OUT].in);
    kept->lse = tl_workspace_take (workspace, n * config->heads);
    kept->middle = tl_workspace_take (workspace, n * config->hidden);
    kept->up = tl_workspace_take (workspace, n * block->linear[TL_UP].out);
    kept->gate = tl_workspace_take (workspace, n * block->linear[TL_GATE].out);
    for (size_t i = 0; i < TL_LINEARS; i++)
        if (block->linear[i].rank)
            kept->low[i] = tl_workspace_take (workspace, n * block->linear[i].rank);
}

static int
s_check (const tl_segment_t *self, tl_cache_t *const *caches, const tl_batch_t *batch, size_t count,
         tl_error_t *err)
{
    size_t rows = 0;
    for (size_t i = 0; i < batch->sequences; i++) {
        size_t length = batch->length[i];
        if (length > caches[i]->capacity)
            return tl_fail (
                err, TL_BAD_INPUT,
                "the sequence grows to %zu rows but its cache holds %zu; shorten the prompt "
                "or ask for fewer new tokens",
                length, caches[i]->capacity);
        if (length <= caches[i]->cached)
            return tl_fail (
                err, TL_BAD_INPUT,
                "the sequence has %zu rows, of which %zu were read before; send rows in order",
                length, caches[i]->cached);
        if (self->context.shape.prefix_mask &&
            (batch->context[i] > length || batch->mask[i] >= batch->context[i] + 1))
            return tl_fail (
                err, TL_BAD_INPUT,
                "context of %u rows with mask position %u does not fit the first %zu rows; "
                "read the whole prompt at once",
                (unsigned)batch->context[i], (unsigned)batch->mask[i], length);
        rows += length - caches[i]->cached;
    }
    if (rows != count)
        return tl_fail (err, TL_BAD_INPUT,
                        "the sequences grow by %zu rows, got %zu; send rows in order", rows, count);
    for (size_t row = 0; self->range.embed && row < count; row++)
        if (batch->ids[row] < 0 || (size_t)batch->ids[row] >= self->context.config->vocab)
            return tl_fail (
                err, TL_BAD_INPUT,
                "token %d is outside the model's vocabulary of %zu; use the model's own "
                "tokenizer",
                (int)batch->ids[row], self->context.config->vocab);
    return 0;
}

//  One piece of workspace for all that a call needs, for as long as these caches are used: it would else
//  grow with the text, piece by piece.
static void
s_reserve (const tl_segment_t *self, tl_cache_t *const *caches, size_t sequences, size_t count)
{
    const tl_config_t *config = self->context.config;
    size_t capacity = 0, kept = 0, row = tl_padded (count);
    for (size_t i = 0; i < sequences; i++)
        capacity = caches[i]->capacity > capacity ? caches[i]->capacity : capacity;
    for (size_t i = 0; i < caches[0]->blocks; i++) {
        const tl_linear_t *linear = self->blocks[i].linear;
        size_t width = linear[TL_Q].out + linear[TL_K].out + linear[TL_V].out + linear[TL_OUT].in +
                       config->heads + config->hidden + 2 * config->inner + 2;
        kept = width > kept ? width : kept;
    }
    kept += 2 * config->hidden + 4 * self->rope.half;
    tl_workspace_reserve (self->context.workspace,
                          row * kept + tl_segment_workspace (self, count, capacity, 1, false));
}

//  Rotary tables of the new rows.
static void
s_turns (tl_segment_t *self, tl_cache_t *const *caches, const tl_batch_t *batch, tl_rows_t *rows)
{
    tl_workspace_t *workspace = self->context.workspace;
    size_t half = self->rope.half, tables = self->context.shape.rope_2d ? 2 : 1, offset = 0;
    bool prefix = self->context.shape.prefix_mask;
    float *cosine[2] = {NULL, NULL}, *sine[2] = {NULL, NULL};
    for (size_t i = 0; i < tables; i++) {
        rows->cosine[i] = cosine[i] = tl_workspace_take (workspace, rows->rows * half);
        rows->sine[i] = sine[i] = tl_workspace_take (workspace, rows->rows * half);
    }
    for (size_t i = 0; i < rows->sequences; i++) {
        float *c[2] = {NULL, NULL}, *s[2] = {NULL, NULL};
        for (size_t table = 0; table < tables; table++) {
            c[table] = cosine[table] + offset * half;
            s[table] = sine[table] + offset * half;
        }
        tl_rope_rows (&self->rope, self->context.config, rows->context[i],
                      prefix ? batch->mask[i] : 0, caches[i]->cached, rows->length[i], c, s);
        offset += rows->length[i];
    }
}

int
tl_segment_extend (tl_segment_t *self, tl_cache_t *const *caches, const tl_batch_t *batch,
                   size_t count, const float *input, float *output, tl_error_t *err)
{
    tl_assert (count >= 1 && caches[0]->blocks == self->range.last - self->range.first);
    if (s_check (self, caches, batch, count, err))
        return -1;
    tl_workspace_t *workspace = self->context.workspace;
    size_t sequences = batch->sequences, h = self->context.config->hidden;
    bool prefix = self->context.shape.prefix_mask;
    s_reserve (self, caches, sequences, count);
    size_t mark = tl_workspace_mark (workspace);
    uint32_t *length = tl_alloc (2 * sequences * sizeof *length), *context = length + sequences;
    uint64_t *number = tl_alloc (sequences * sizeof *number);
    tl_kv_t *kv = tl_alloc (sequences * sizeof *kv);
    for (size_t i = 0; i < sequences; i++) {
        length[i] = batch->length[i] - (uint32_t)caches[i]->cached;
        context[i] = prefix ? batch->context[i] : 0;
    }
    tl_rows_t rows = {.rows = count,
                      .sequences = sequences,
                      .length = length,
                      .context = context,
                      .number = number};
    s_turns (self, caches, batch, &rows);
    float *x = tl_workspace_take (workspace, count * h);
    float *y = tl_workspace_take (workspace, count * h);
    if (self->range.embed)
        tl_kernels ()->embedding_forward (x, self->embed, self->embed_dtype, batch->ids, count, h);
    else
        memcpy (x, input, count * h * sizeof (float));
    for (size_t block = 0; block < caches[0]->blocks; block++) {
        size_t inner = tl_workspace_mark (workspace);
        tl_kept_t kept;
        s_take_kept (self, &self->blocks[block], count, &kept);
        for (size_t i = 0; i < sequences; i++) {
            kv[i] = caches[i]->kv[block];
            kv[i].cached = caches[i]->cached;
        }
        tl_block_forward (&self->blocks[block], &self->context, &rows, &kept, y, x, kv);
        tl_workspace_release (workspace, inner);
        float *swap = x;
        x = y;
        y = swap;
    }
    memcpy (output, x, count * h * sizeof (float));
    tl_workspace_release (workspace, mark);
    for (size_t i = 0; i < sequences; i++)
        caches[i]->cached = batch->length[i];
    free (length);
    free (number);
    free (kv);
    return 0;
}
