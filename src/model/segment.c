/*  segment: a run of the model, [embed] + blocks + [head]: binding its weights, and tapes through it.

    A tape's numbers lie in one slab; slabs go back to the segment's pool, so that nothing is allocated
    once every size of micro has been seen. Forward and backward of the head are in head.c.          */

#include "model/internal.h"
#include "model/segment.h"

#include "assert.h"
#include "memory.h"
#include "random.h"

#include <stdlib.h>
#include <string.h>

//  ---------------------------------------------------------------------------------------------
//  Binding weights

//  Where a slot's tensor is: the mapping, or the part's master with its gradient.
typedef struct {
    const void *data;
    tl_dtype_t dtype;
    float *gradient; //  NULL when frozen
} s_source_t;

static int
s_locate (tl_segment_t *self, const tl_slot_t *slot, s_source_t *source, tl_error_t *err)
{
    const tl_tensor_t *tensor = tl_part_find (self->part, slot->name);
    if (tensor) {
        *source = (s_source_t){tensor->value, TL_F32, tensor->gradient};
        return 0;
    }
    tl_weight_t weight;
    if (tl_model_frozen (self->part->model, slot->name, slot->rows, slot->columns, &weight, err))
        return -1;
    *source = (s_source_t){weight.data, weight.dtype, NULL};
    return 0;
}

static void
s_bind_linear (tl_segment_t *self, tl_linear_t *linear, const tl_slot_t *slot,
               const s_source_t *source)
{
    const tl_tune_t *tune = &self->part->tune;
    const tl_tensor_t *a = tl_part_find_lora (self->part, slot->name, 'A');
    const tl_tensor_t *b = tl_part_find_lora (self->part, slot->name, 'B');
    linear->in = slot->columns;
    linear->out = slot->rows;
    linear->weight = source->data;
    linear->dtype = source->dtype;
    linear->weight_gradient = source->gradient;
    linear->reduced = !source->gradient && source->dtype == TL_BF16 &&
                      tl_model_holds (self->part->model) == TL_BF16;
    if (!a || !b)
        return;
    linear->rank = tune->rank;
    linear->scaling = tl_tune_scaling (tune);
    linear->dropout = tune->dropout;
    linear->a = a->value;
    linear->b = b->value;
    linear->a_gradient = a->gradient;
    linear->b_gradient = b->gradient;
    linear->seed = tune->seed;
    linear->name = tl_random_name (a->name);
}

//  A norm's or bias's values in fp32: the master, or a widened copy at *vectors, which moves on.
static const float *
s_bind_vector (const tl_slot_t *slot, const s_source_t *source, float **vectors)
{
    if (source->gradient)
        return source->data;
    float *values = *vectors;
    tl_widen (values, source->data, source->dtype, slot->rows);
    *vectors += tl_padded (slot->rows);
    return values;
}

static tl_linear_t *
s_linear_of (tl_segment_t *self, tl_block_t *block, tl_role_t role)
{
    switch (role) {
    case TL_SLOT_QKV:
    case TL_SLOT_QKV_BIAS:
    case TL_SLOT_Q:
    case TL_SLOT_Q_BIAS:
        return &block->linear[TL_Q];
    case TL_SLOT_K:
    case TL_SLOT_K_BIAS:
        return &block->linear[TL_K];
    case TL_SLOT_V:
    case TL_SLOT_V_BIAS:
        return &block->linear[TL_V];
    case TL_SLOT_OUT:
    case TL_SLOT_OUT_BIAS:
        return &block->linear[TL_OUT];
    case TL_SLOT_GATE:
        return &block->linear[TL_GATE];
    case TL_SLOT_GATE_UP:
    case TL_SLOT_UP:
    case TL_SLOT_UP_BIAS:
        return &block->linear[TL_UP];
    case TL_SLOT_DOWN:
    case TL_SLOT_DOWN_BIAS:
        return &block->linear[TL_DOWN];
    case TL_SLOT_HEAD:
        return &self->head;
    default:
        return NULL;
    }
}

static tl_norm_t *
s_norm_of (tl_segment_t *self, tl_block_t *block, tl_role_t role)
{
    switch (role) {
    case TL_SLOT_NORM1:
    case TL_SLOT_NORM1_BIAS:
        return &block->norm1;
    case TL_SLOT_NORM2:
    case TL_SLOT_NORM2_BIAS:
        return &block->norm2;
    default:
        return &self->final;
    }
}

//  The embedding matrix serves the lookup, a tied head, or both; with both in one part the lookup's
//  gradient has an accumulator of its own.
static void
s_bind_embed (tl_segment_t *self, const tl_slot_t *slot, const s_source_t *source)
{
    if (self->range.embed) {
        self->embed = source->data;
        self->embed_dtype = source->dtype;
        self->embed_gradient =
            self->part->embed_gradient ? self->part->embed_gradient : source->gradient;
    }
    if (self->range.head && self->context.config->tied)
        s_bind_linear (self, &self->head, slot, source);
}

static bool
s_in_segment (const tl_segment_t *self, const tl_slot_t *slot)
{
    switch (slot->role) {
    case TL_SLOT_EMBED:
        return self->range.embed || (self->range.head && self->context.config->tied);
    case TL_SLOT_FINAL:
    case TL_SLOT_FINAL_BIAS:
    case TL_SLOT_HEAD:
        return self->range.head;
    default:
        return slot->block >= self->range.first && slot->block < self->range.last;
    }
}

static int
s_bind (tl_segment_t *self, const tl_slot_t *slot, float **vectors, tl_error_t *err)
{
    s_source_t source;
    if (s_locate (self, slot, &source, err))
        return -1;
    if (slot->role == TL_SLOT_EMBED) {
        s_bind_embed (self, slot, &source);
        return 0;
    }
    bool in_block = slot->role != TL_SLOT_FINAL && slot->role != TL_SLOT_FINAL_BIAS &&
                    slot->role != TL_SLOT_HEAD;
    tl_block_t *block = in_block ? &self->blocks[slot->block - self->range.first] : NULL;
    tl_linear_t *linear = s_linear_of (self, block, slot->role);
    if (!slot->vector) {
        s_bind_linear (self, linear, slot, &source);
        if (block)
            block->trains = block->trains || tl_linear_trains (linear);
        return 0;
    }
    const float *values = s_bind_vector (slot, &source, vectors);
    if (block)
        block->trains = block->trains || source.gradient;
    if (linear) {
        linear->bias = values;
        linear->bias_gradient = source.gradient;
        return 0;
    }
    tl_norm_t *norm = s_norm_of (self, block, slot->role);
    bool bias = slot->role == TL_SLOT_NORM1_BIAS || slot->role == TL_SLOT_NORM2_BIAS ||
                slot->role == TL_SLOT_FINAL_BIAS;
    *(bias ? &norm->bias : &norm->weight) = values;
    *(bias ? &norm->bias_gradient : &norm->weight_gradient) = source.gradient;
    return 0;
}

static void
s_bind_prefixes (tl_segment_t *self, size_t blocks)
{
    for (size_t i = 0; i < blocks; i++) {
        const tl_tensor_t *tensor = tl_part_find_prefix (self->part, self->range.first + i);
        if (!tensor)
            continue;
        self->blocks[i].prefix = (tl_prefix_t){tensor->shape[0], tensor->value, tensor->gradient};
        self->blocks[i].trains = true;
    }
}

static void
s_find_lowest (tl_segment_t *self, size_t blocks)
{
    self->lowest = blocks + 1;
    if (self->range.head &&
        (self->final.weight_gradient || self->final.bias_gradient || self->head.weight_gradient))
        self->lowest = blocks;
    for (size_t i = blocks; i-- > 0;)
        if (self->blocks[i].trains)
            self->lowest = i;
    self->trains = self->embed_gradient || self->lowest <= blocks;
}

tl_segment_t *
tl_segment_new (const tl_part_t *part, const tl_range_t *range, tl_error_t *err)
{
    const tl_config_t *config = tl_model_config (part->model);
    tl_segment_t *self = tl_alloc (sizeof *self);
    self->part = part;
    self->range = *range;
    self->context = (tl_context_t){
        .config = config, .shape = tl_shape_of (config), .workspace = part->workspace};
    size_t blocks = range->last - range->first, slots = tl_layout_count (config), floats = 16;
    self->blocks = tl_alloc ((blocks + 1) * sizeof *self->blocks);
    tl_rope_init (&self->rope, config, tl_model_rope_factors (part->model));
    tl_slot_t slot;
    for (size_t i = 0; i < slots; i++) {
        tl_layout_at (config, i, &slot);
        if (slot.vector && s_in_segment (self, &slot))
            floats += tl_padded (slot.rows);
    }
    self->vectors = tl_alloc_aligned (floats * sizeof (float));
    float *vectors = self->vectors;
    for (size_t i = 0; i < slots; i++) {
        tl_layout_at (config, i, &slot);
        if (s_in_segment (self, &slot) && s_bind (self, &slot, &vectors, err)) {
            tl_segment_destroy (&self);
            return NULL;
        }
    }
    s_bind_prefixes (self, blocks);
    s_find_lowest (self, blocks);
    return self;
}

void
tl_segment_destroy (tl_segment_t **self_p)
{
    tl_segment_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->pooled; i++)
        free (self->pool[i].data);
    tl_rope_free (&self->rope);
    free (self->blocks);
    free (self->vectors);
    free (self);
    *self_p = NULL;
}

bool
tl_segment_trains (const tl_segment_t *self)
{
    return self->trains;
}

//  ---------------------------------------------------------------------------------------------
//  Slabs

//  The smallest pooled slab that is large enough; a too small one is given up before a larger is made.
static tl_slab_t
s_slab_take (tl_segment_t *self, size_t size)
{
    size_t best = self->pooled;
    for (size_t i = 0; i < self->pooled; i++)
        if (self->pool[i].size >= size &&
            (best == self->pooled || self->pool[i].size < self->pool[best].size))
            best = i;
    if (best < self->pooled) {
        tl_slab_t slab = self->pool[best];
        self->pool[best] = self->pool[--self->pooled];
        return slab;
    }
    if (self->pooled > 0)
        free (self->pool[--self->pooled].data);
    return (tl_slab_t){tl_alloc_aligned (size * sizeof (float)), size};
}

static void
s_slab_give (tl_segment_t *self, tl_slab_t *slab)
{
    if (slab->data && self->pooled < TL_POOL)
        self->pool[self->pooled++] = *slab;
    else
        free (slab->data);
    *slab = (tl_slab_t){NULL, 0};
}

//  A cursor over a slab; with no slab it only counts.
typedef struct {
    float *slab;
    size_t used;
} s_cursor_t;

static float *
s_place (s_cursor_t *cursor, size_t count)
{
    float *at = cursor->slab ? cursor->slab + cursor->used : NULL;
    cursor->used += tl_padded (count);
    return at;
}

//  Places those of a block's buffers that it keeps (or, with dropped, those that it drops).
static void
s_place_kept (const tl_segment_t *segment, tl_kept_t *kept, const tl_block_t *block, size_t n,
              unsigned which, s_cursor_t *cursor)
{
    const tl_config_t *config = segment->context.config;
    for (size_t i = 0; i < 3 && which & TL_DROP_QKV; i++)
        kept->qkv[i] = block->linear[i].out ? s_place (cursor, n * block->linear[i].out) : NULL;
    if (which & TL_DROP_ATTENDED) {
        kept->attended = s_place (cursor, n * block->linear[TL_OUT].in);
        kept->lse = s_place (cursor, n * config->heads);
    }
    if (which & TL_DROP_MIDDLE)
        kept->middle = s_place (cursor, n * config->hidden);
    if (which & TL_DROP_MLP) {
        kept->up = s_place (cursor, n * block->linear[TL_UP].out);
        kept->gate =
            block->linear[TL_GATE].out ? s_place (cursor, n * block->linear[TL_GATE].out) : NULL;
    }
}

//  A tape's share of a block: what is always kept, and what isn't dropped.
static void
s_place_block (const tl_segment_t *segment, tl_kept_t *kept, const tl_block_t *block, size_t n,
               unsigned dropped, s_cursor_t *cursor)
{
    bool layernorm = segment->context.shape.layernorm;
    kept->rstd1 = s_place (cursor, n);
    kept->rstd2 = s_place (cursor, n);
    kept->mean1 = layernorm ? s_place (cursor, n) : NULL;
    kept->mean2 = layernorm ? s_place (cursor, n) : NULL;
    s_place_kept (segment, kept, block, n, TL_DROP_ALL & ~dropped, cursor);
    for (size_t i = 0; i < TL_LINEARS; i++)
        kept->low[i] = block->linear[i].rank ? s_place (cursor, n * block->linear[i].rank) : NULL;
}

size_t
tl_kept_dropped (const tl_segment_t *self, const tl_block_t *block, size_t n, tl_kept_t *kept,
                 tl_workspace_t *workspace)
{
    tl_kept_t none = {0};
    s_cursor_t count = {NULL, 0};
    s_place_kept (self, &none, block, n, block->dropped, &count);
    if (workspace && count.used > 0) {
        s_cursor_t cursor = {tl_workspace_take (workspace, count.used), 0};
        s_place_kept (self, kept, block, n, block->dropped, &cursor);
    }
    return count.used;
}

size_t
tl_tape_layout (tl_tape_t *self, float *slab)
{
    tl_segment_t *segment = self->segment;
    size_t n = self->rows.rows, h = segment->context.config->hidden;
    s_cursor_t cursor = {slab, 0};
    for (size_t i = 0; i < (segment->context.shape.rope_2d ? 2 : 1); i++) {
        self->rows.cosine[i] = s_place (&cursor, n * segment->rope.half);
        self->rows.sine[i] = s_place (&cursor, n * segment->rope.half);
    }
    //  Without train two buffers take turns; they are the even and the odd hidden rows.
    for (size_t i = 0; i <= self->blocks; i++)
        self->hidden[i] = self->train || i < 2 ? s_place (&cursor, n * h) : self->hidden[i - 2];
    for (size_t i = 0; i < (self->train || self->blocks == 0 ? self->blocks : 1); i++)
        s_place_block (segment, &self->kept[i], &segment->blocks[i], n,
                       self->train ? segment->blocks[i].dropped : 0, &cursor);
    if (self->train && segment->range.head) {
        self->final_mean = s_place (&cursor, self->label_count);
        self->final_rstd = s_place (&cursor, self->label_count);
        self->final_gradient = s_place (&cursor, self->label_count * h);
    }
    return cursor.used;
}

//  ---------------------------------------------------------------------------------------------
//  Tapes

static void *
s_copy (const void *data, size_t size)
{
    void *copy = tl_alloc (size ? size : 1);
    memcpy (copy, data, size);
    return copy;
}

static tl_tape_t *
s_tape_new (tl_segment_t *segment, const tl_batch_t *batch, uint64_t step, bool train)
{
    tl_tape_t *self = tl_alloc (sizeof *self);
    size_t count = batch->sequences;
    self->segment = segment;
    self->train = train;
    self->blocks = segment->range.last - segment->range.first;
    self->hidden = tl_alloc ((self->blocks + 1) * sizeof (float *));
    self->kept = tl_alloc ((self->blocks + 1) * sizeof (tl_kept_t));
    uint32_t *context = tl_alloc (count * sizeof *context);
    if (segment->context.shape.prefix_mask)
        memcpy (context, batch->context, count * sizeof *context);
    self->rows =
        (tl_rows_t){.rows = batch->rows,
                    .sequences = count,
                    .length = s_copy (batch->length, count * sizeof (uint32_t)),
                    .context = context,
                    .number = batch->number ? s_copy (batch->number, count * sizeof (uint64_t))
                                            : tl_alloc (count * sizeof (uint64_t)),
                    .step = step,
                    .train = train};
    if (segment->range.embed)
        self->ids = s_copy (batch->ids, batch->rows * sizeof (int32_t));
    if (segment->range.head && batch->labels) {
        self->labels = s_copy (batch->labels, batch->rows * sizeof (int32_t));
        self->labelled = tl_alloc (batch->rows * sizeof (uint32_t));
        for (size_t row = 0; row < batch->rows; row++)
            if (batch->labels[row] >= 0)
                self->labelled[self->label_count++] = (uint32_t)row;
    }
    return self;
}

//  Programming errors only: who makes batches checks lengths and ids.
static void
s_check_batch (const tl_segment_t *self, const tl_batch_t *batch, const float *input)
{
    size_t rows = 0;
    tl_assert (batch->sequences >= 1);
    for (size_t i = 0; i < batch->sequences; i++) {
        tl_assert (batch->length[i] >= 1);
        rows += batch->length[i];
    }
    tl_assert (rows == batch->rows);
    tl_assert (self->range.embed ? batch->ids != NULL : input != NULL);
    for (size_t row = 0; self->range.embed && row < rows; row++)
        tl_assert (batch->ids[row] >= 0 && (size_t)batch->ids[row] < self->context.config->vocab);
    for (size_t row = 0; self->range.head && batch->labels && row < rows; row++)
        tl_assert (batch->labels[row] < (int32_t)self->context.config->vocab);
}

static void
s_turns (tl_segment_t *self, tl_tape_t *tape, const tl_batch_t *batch)
{
    size_t offset = 0, half = self->rope.half;
    for (size_t i = 0; i < batch->sequences; i++) {
        float *cosine[2] = {NULL, NULL}, *sine[2] = {NULL, NULL};
        for (size_t part = 0; part < 2 && tape->rows.cosine[part]; part++) {
            cosine[part] = (float *)tape->rows.cosine[part] + offset * half;
            sine[part] = (float *)tape->rows.sine[part] + offset * half;
        }
        tl_rope_rows (&self->rope, self->context.config, tape->rows.context[i],
                      batch->mask ? batch->mask[i] : 0, 0, batch->length[i], cosine, sine);
        offset += batch->length[i];
    }
}

tl_tape_t *
tl_segment_forward (tl_segment_t *self, const tl_batch_t *batch, uint64_t step, const float *input,
                    bool train)
{
    s_check_batch (self, batch, input);
    size_t n = batch->rows, h = self->context.config->hidden, longest = 0;
    tl_tape_t *tape = s_tape_new (self, batch, step, train);
    for (size_t i = 0; i < batch->sequences; i++)
        longest = batch->length[i] > longest ? batch->length[i] : longest;
    tl_workspace_reserve (self->context.workspace,
                          tl_segment_workspace (self, n, longest, tape->label_count, train));
    tape->slab = s_slab_take (self, tl_tape_layout (tape, NULL));
    tl_tape_layout (tape, tape->slab.data);
    s_turns (self, tape, batch);
    if (self->range.embed)
        tl_kernels ()->embedding_forward (tape->hidden[0], self->embed, self->embed_dtype,
                                          tape->ids, n, h);
    else
        memcpy (tape->hidden[0], input, n * h * sizeof (float));
    for (size_t i = 0; i < tape->blocks; i++) {
        //  Without train every block uses the same storage, but its LoRA may need more of it.
        tl_kept_t kept = tape->kept[train ? i : 0];
        size_t mark = tl_workspace_mark (self->context.workspace);
        for (size_t l = 0; !train && l < TL_LINEARS; l++)
            if (self->blocks[i].linear[l].rank)
                kept.low[l] =
                    tl_workspace_take (self->context.workspace, n * self->blocks[i].linear[l].rank);
        if (train)
            tl_kept_dropped (self, &self->blocks[i], n, &kept, self->context.workspace);
        tl_block_forward (&self->blocks[i], &self->context, &tape->rows, &kept, tape->hidden[i + 1],
                          tape->hidden[i], NULL);
        tl_workspace_release (self->context.workspace, mark);
    }
    return tape;
}

void
tl_tape_destroy (tl_tape_t **self_p)
{
    tl_tape_t *self = *self_p;
    if (!self)
        return;
    s_slab_give (self->segment, &self->slab);
    free ((void *)self->rows.length);
    free ((void *)self->rows.context);
    free ((void *)self->rows.number);
    free (self->hidden);
    free (self->kept);
    free (self->ids);
    free (self->labels);
    free (self->labelled);
    free (self);
    *self_p = NULL;
}

const float *
tl_tape_output (const tl_tape_t *self)
{
    tl_assert (self->slab.data);
    return self->hidden[self->blocks];
}

const float *
tl_tape_block (const tl_tape_t *self, size_t index)
{
    tl_assert (self->slab.data);
    return self->train && index + 1 <= self->blocks ? self->hidden[index + 1] : NULL;
}

static void
s_block_backward (tl_segment_t *self, const tl_tape_t *tape, size_t index, float *d,
                  bool need_input)
{
    const tl_block_t *block = &self->blocks[index];
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace);
    tl_kept_t kept = tape->kept[index];
    if (tl_kept_dropped (self, block, tape->rows.rows, &kept, workspace) > 0)
        tl_block_again (block, &self->context, &tape->rows, &kept, tape->hidden[index]);
    tl_block_backward (block, &self->context, &tape->rows, &kept, d, tape->hidden[index],
                       need_input);
    tl_workspace_release (workspace, mark);
}

void
tl_segment_backward (tl_segment_t *self, tl_tape_t *tape, const float *d_output, float *d_input)
{
    tl_assert (tape->segment == self && tape->train && tape->slab.data);
    tl_assert (self->range.head ? tape->has_loss : d_output != NULL);
    size_t n = tape->rows.rows, h = self->context.config->hidden;
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace);
    if (self->trains || d_input) {
        float *d = d_input ? d_input : tl_workspace_take (workspace, n * h);
        if (self->range.head)
            tl_head_backward (self, tape, d);
        else
            memmove (d, d_output, n * h * sizeof (float));
        bool all = d_input || self->embed_gradient; //  the gradient must come down to the input
        size_t bottom = all ? 0 : self->lowest;
        for (size_t i = tape->blocks; i-- > bottom;)
            s_block_backward (self, tape, i, d, all || i > bottom);
        if (self->embed_gradient)
            tl_kernels ()->embedding_backward (self->embed_gradient, d, tape->ids, n, h);
    }
    tl_workspace_release (workspace, mark);
    s_slab_give (self, &tape->slab);
}
