/*  cache: keys and values of one sequence, so that generation reads every row once. Keys are kept after
    rotary; ChatGLM's context columns stay visible to every later row.                                */

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
    size_t size = tl_padded (capacity * config->kv_heads * config->head_dim);
    self->storage = tl_alloc_aligned ((2 * self->blocks * size + 16) * sizeof (float));
    for (size_t i = 0; i < self->blocks; i++) {
        self->kv[i].k = self->storage + 2 * i * size;
        self->kv[i].v = self->storage + (2 * i + 1) * size;
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
    kept->up = tl_workspace_take (workspace, n * config->inner);
    kept->gate = tl_workspace_take (workspace, n * config->inner);
    for (size_t i = 0; i < TL_LINEARS; i++)
        if (block->linear[i].rank)
            kept->low[i] = tl_workspace_take (workspace, n * block->linear[i].rank);
}

static int
s_check (const tl_segment_t *self, const tl_cache_t *cache, const tl_batch_t *batch, size_t count,
         tl_error_t *err)
{
    size_t length = cache->cached + count;
    if (length > cache->capacity)
        return tl_fail (
            err, TL_BAD_INPUT,
            "the sequence grows to %zu rows but its cache holds %zu; shorten the prompt "
            "or ask for fewer new tokens",
            length, cache->capacity);
    if (batch->sequences != 1 || batch->length[0] != length)
        return tl_fail (
            err, TL_BAD_INPUT,
            "expected one sequence of %zu rows so far, got %zu of %u; send rows in order", length,
            batch->sequences, (unsigned)batch->length[0]);
    if (self->context.shape.prefix_mask &&
        (batch->context[0] > length || batch->mask[0] >= batch->context[0] + 1))
        return tl_fail (err, TL_BAD_INPUT,
                        "context of %u rows with mask position %u does not fit the first %zu rows; "
                        "read the whole prompt at once",
                        (unsigned)batch->context[0], (unsigned)batch->mask[0], length);
    for (size_t row = 0; self->range.embed && row < count; row++)
        if (batch->ids[row] < 0 || (size_t)batch->ids[row] >= self->context.config->vocab)
            return tl_fail (
                err, TL_BAD_INPUT,
                "token %d is outside the model's vocabulary of %zu; use the model's own "
                "tokenizer",
                (int)batch->ids[row], self->context.config->vocab);
    return 0;
}

int
tl_segment_extend (tl_segment_t *self, tl_cache_t *cache, const tl_batch_t *batch, size_t count,
                   const float *input, float *output, tl_error_t *err)
{
    tl_assert (count >= 1 && cache->blocks == self->range.last - self->range.first);
    if (s_check (self, cache, batch, count, err))
        return -1;
    tl_workspace_t *workspace = self->context.workspace;
    size_t h = self->context.config->hidden, half = self->rope.half;
    size_t mark = tl_workspace_mark (workspace);
    bool prefix = self->context.shape.prefix_mask;
    uint32_t length = (uint32_t)count, context = prefix ? batch->context[0] : 0;
    uint64_t number = 0;
    tl_rows_t rows = {
        .rows = count, .sequences = 1, .length = &length, .context = &context, .number = &number};
    float *cosine[2] = {NULL, NULL}, *sine[2] = {NULL, NULL};
    for (size_t i = 0; i < (self->context.shape.rope_2d ? 2 : 1); i++) {
        rows.cosine[i] = cosine[i] = tl_workspace_take (workspace, count * half);
        rows.sine[i] = sine[i] = tl_workspace_take (workspace, count * half);
    }
    tl_rope_rows (&self->rope, self->context.config, context, prefix ? batch->mask[0] : 0,
                  cache->cached, count, cosine, sine);
    float *x = tl_workspace_take (workspace, count * h);
    float *y = tl_workspace_take (workspace, count * h);
    if (self->range.embed)
        tl_kernels ()->embedding_forward (x, self->embed, self->embed_dtype, batch->ids, count, h);
    else
        memcpy (x, input, count * h * sizeof (float));
    for (size_t i = 0; i < cache->blocks; i++) {
        size_t inner = tl_workspace_mark (workspace);
        tl_kept_t kept;
        s_take_kept (self, &self->blocks[i], count, &kept);
        cache->kv[i].cached = cache->cached;
        tl_block_forward (&self->blocks[i], &self->context, &rows, &kept, y, x, &cache->kv[i]);
        tl_workspace_release (workspace, inner);
        float *swap = x;
        x = y;
        y = swap;
    }
    memcpy (output, x, count * h * sizeof (float));
    tl_workspace_release (workspace, mark);
    cache->cached += count;
    return 0;
}
