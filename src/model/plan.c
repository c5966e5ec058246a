/*  plan: how much memory a part will need, before its first step. Tapes are measured by laying one out
    without a slab, the workspace by walking through the takes of linear.c, block.c, segment.c and head.c;
    a test holds both against what a run really took.                                                */

#include "model/internal.h"
#include "model/segment.h"

#include "memory.h"

#include <stdlib.h>

//  Measured: what every thread touches of its stack, where products are packed; pages of the libraries that a run is the first
//  to touch, sockets, small blocks.
enum { S_THREAD_BYTES = 1 << 20, S_LIBRARIES_BYTES = 4 << 20 };
//  A tensor's value, gradient and two moments are stored; a state holds all but the gradient.
enum { S_STORED = 4, S_SAVED = 3 };

static size_t
s_max (size_t a, size_t b)
{
    return a > b ? a : b;
}

//  ---------------------------------------------------------------------------------------------
//  Workspace: floats on the stack at the deepest point of every function, in its order of takes

static size_t
s_linear (const tl_linear_t *self, size_t n, bool backward, bool dropout)
{
    size_t plain = tl_padded (tl_linear_room (self, n));
    if (self->rank == 0)
        return plain;
    size_t lora = dropout && self->dropout > 0 ? 2 * tl_padded (n * self->in) : 0;
    return s_max (plain, lora + (backward ? tl_padded (n * self->rank) : 0));
}

static size_t
s_linears (const tl_block_t *block, size_t first, size_t last, size_t n, bool backward,
           bool dropout)
{
    size_t most = 0;
    for (size_t i = first; i <= last; i++)
        if (block->linear[i].out)
            most = s_max (most, s_linear (&block->linear[i], n, backward, dropout));
    return most;
}

//  Behind a prefix, keys and values have copies with the prefix in front; so have their gradients.
static size_t
s_attention (const tl_config_t *config, const tl_block_t *block, size_t longest, bool backward)
{
    size_t width = config->heads * config->head_dim, prefix = block->prefix.rows;
    size_t joined = tl_padded ((prefix + longest) * config->kv_heads * config->head_dim);
    tl_attention_t shape = {.rows = longest,
                            .columns = prefix + longest,
                            .heads = config->heads,
                            .kv_heads = config->kv_heads,
                            .d = config->head_dim,
                            .q_stride = width,
                            .o_stride = width};
    return tl_padded (tl_attention_scratch (&shape, backward)) +
           (prefix == 0 ? 0 : (backward ? 4 : 2) * joined);
}

static size_t
s_block_forward (const tl_block_t *self, const tl_context_t *context, size_t n, size_t longest,
                 bool train)
{
    size_t normed = tl_padded (n * context->config->hidden);
    size_t attention = s_max (s_linears (self, TL_Q, TL_OUT, n, false, train),
                              s_attention (context->config, self, longest, false));
    size_t active = tl_padded (n * context->config->inner);
    size_t mlp = s_max (s_linears (self, TL_GATE, TL_UP, n, false, train),
                        active + s_linears (self, TL_DOWN, TL_DOWN, n, false, train));
    return normed + s_max (attention, mlp);
}

//  The norm's output made again for trained linears first .. last.
static size_t
s_again (const tl_block_t *self, const tl_context_t *context, size_t first, size_t last, size_t n)
{
    for (size_t i = first; i <= last; i++)
        if (tl_linear_trains (&self->linear[i]))
            return tl_padded (n * context->config->hidden) + 2 * tl_padded (n);
    return 0;
}

static size_t
s_block_backward (const tl_block_t *self, const tl_context_t *context, size_t n, size_t longest)
{
    size_t h = tl_padded (n * context->config->hidden), f = tl_padded (n * context->config->inner);
    size_t norm = context->shape.residual_normed ? 0 : h;
    size_t mlp =
        h + tl_padded (n * self->linear[TL_UP].out) + tl_padded (n * self->linear[TL_GATE].out);
    size_t down = f + (tl_linear_trains (&self->linear[TL_DOWN]) ? f : 0) +
                  s_linears (self, TL_DOWN, TL_DOWN, n, true, true);
    size_t up = s_again (self, context, TL_GATE, TL_UP, n) +
                s_max (s_linears (self, TL_GATE, TL_UP, n, true, true), norm);
    size_t attention = h;
    for (size_t i = TL_Q; i <= TL_V; i++)
        attention += tl_padded (n * self->linear[i].out);
    size_t out = tl_padded (n * self->linear[TL_OUT].in) +
                 s_max (s_linears (self, TL_OUT, TL_OUT, n, true, true),
                        s_attention (context->config, self, longest, true));
    size_t qkv = s_again (self, context, TL_Q, TL_V, n) +
                 s_max (s_linears (self, TL_Q, TL_V, n, true, true), norm);
    return s_max (mlp + s_max (down, up), attention + s_max (out, qkv));
}

static size_t
s_head (const tl_segment_t *self, size_t labels, bool train)
{
    size_t count = tl_head_chunk (self->context.config, labels);
    size_t normed = tl_padded (count * self->context.config->hidden);
    size_t logits = tl_padded (count * self->context.config->vocab) + 2 * tl_padded (count) +
                    s_linear (&self->head, count, false, false);
    return normed + (train ? 0 : 2 * tl_padded (count)) + s_max (normed, logits);
}

size_t
tl_segment_workspace (const tl_segment_t *self, size_t rows, size_t longest, size_t labels,
                      bool train)
{
    size_t blocks = self->range.last - self->range.first, forward = 0, backward = 0;
    for (size_t i = 0; i < blocks; i++) {
        const tl_block_t *block = &self->blocks[i];
        size_t low = 0, dropped = 0;
        if (train)
            dropped = tl_kept_dropped (self, block, rows, NULL, NULL);
        for (size_t l = 0; l < TL_LINEARS; l++)
            low += train ? 0 : tl_padded (rows * block->linear[l].rank);
        size_t once = s_block_forward (block, &self->context, rows, longest, train);
        size_t back = s_block_backward (block, &self->context, rows, longest);
        forward = s_max (forward, low + dropped + once);
        //  Making dropped buffers again takes no more than forward did.
        backward = s_max (backward, dropped + s_max (back, dropped ? once : 0));
    }
    size_t head = self->range.head ? s_head (self, labels, train) : 0;
    size_t chunk = tl_head_chunk (self->context.config, labels) * self->context.config->hidden;
    if (self->range.head)
        backward = s_max (backward, 2 * tl_padded (chunk));
    backward += tl_padded (rows * self->context.config->hidden);
    return s_max (s_max (forward, head), train ? backward : 0);
}

//  ---------------------------------------------------------------------------------------------
//  Tapes and weights

//  Floats of a tape of rows rows with labels labelled ones.
static size_t
s_tape (tl_segment_t *segment, size_t rows, size_t labels, bool train)
{
    size_t blocks = segment->range.last - segment->range.first;
    tl_tape_t tape = {.segment = segment,
                      .train = train,
                      .rows = {.rows = rows},
                      .blocks = blocks,
                      .label_count = labels,
                      .hidden = tl_alloc ((blocks + 1) * sizeof (float *)),
                      .kept = tl_alloc ((blocks + 1) * sizeof (tl_kept_t))};
    size_t size = tl_tape_layout (&tape, NULL);
    free (tape.hidden);
    free (tape.kept);
    return size;
}

//  Bytes of the segment's tensors in the mapping, or converted. A tied head and its embedding are one.
static size_t
s_weights (const tl_part_t *part)
{
    const tl_config_t *config = tl_model_config (part->model);
    size_t bytes = 0;
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        tl_weight_t weight;
        tl_layout_at (config, i, &slot);
        if (!tl_part_owns (part, config, &slot) ||
            tl_model_weight (part->model, slot.name, slot.rows, slot.columns, &weight, NULL) != 0)
            continue;
        tl_dtype_t holds = tl_model_holds (part->model);
        bool held = holds != TL_DTYPES && !slot.vector && weight.dtype != holds &&
                    !tl_part_find (part, slot.name);
        //  What was converted out of a GGUF file leaves the mapping.
        if (!held || !tl_model_gguf (part->model))
            bytes += tl_dtype_bytes (weight.dtype, slot.rows * slot.columns);
        if (held)
            bytes += tl_dtype_bytes (holds, slot.rows * slot.columns);
    }
    return bytes;
}

//  Of what the two kinds of plan have in common.
static void
s_plan (const tl_part_t *self, size_t tapes, size_t workspace, tl_plan_t *plan)
{
    plan->weights = s_weights (self);
    plan->trained = self->storage_size * sizeof (float);
    plan->activations = tapes * sizeof (float);
    plan->workspace = workspace * sizeof (float);
    plan->state = plan->trained / S_STORED * S_SAVED;
    plan->process = S_LIBRARIES_BYTES + (size_t)tl_kernels_threads () * S_THREAD_BYTES;
}

void
tl_part_plan (const tl_part_t *self, size_t rows, size_t longest, size_t sequences, size_t labels,
              size_t in_flight, tl_plan_t *plan)
{
    size_t tapes = 0, workspace = 0, most = tl_head_chunk_most (tl_model_config (self->model));
    size_t chunk = labels < most ? labels : most; //  a smaller micro may have the larger chunk
    for (size_t i = 0; i < self->range_count; i++) {
        tl_segment_t *segment = self->segments[i];
        //  A head's tape goes back as soon as its loss is known.
        size_t at_once = segment->range.head ? 1 : in_flight;
        tapes += at_once * s_tape (segment, rows, labels, true);
        workspace = s_max (workspace, tl_segment_workspace (segment, rows, longest, chunk, true));
    }
    s_plan (self, tapes, workspace, plan);
}

void
tl_part_plan_reading (const tl_part_t *self, size_t rows, size_t longest, size_t labels,
                      tl_plan_t *plan)
{
    size_t tapes = 0, workspace = 0, most = tl_head_chunk_most (tl_model_config (self->model));
    size_t chunk = labels < most ? labels : most;
    for (size_t i = 0; i < self->range_count; i++) {
        tl_segment_t *segment = self->segments[i];
        tapes += s_tape (segment, rows, labels, false);
        workspace = s_max (workspace, tl_segment_workspace (segment, rows, longest, chunk, false));
    }
    s_plan (self, tapes, workspace, plan);
}

//  ---------------------------------------------------------------------------------------------
//  A budget: what is left out of the tapes, the most bytes for the least arithmetic first

typedef struct {
    tl_block_t *block;
    tl_drop_t drop;
    double bytes_per_flop; //  that leaving it out gives back
} s_choice_t;

static s_choice_t
s_choice (const tl_segment_t *segment, tl_block_t *block, tl_drop_t drop, size_t longest)
{
    const tl_config_t *config = segment->context.config;
    const tl_linear_t *linear = block->linear;
    double h = (double)config->hidden, q = (double)linear[TL_OUT].in, floats = 0, flops = 1;
    switch (drop) {
    case TL_DROP_QKV:
        floats = (double)(linear[TL_Q].out + linear[TL_K].out + linear[TL_V].out);
        flops = 2 * h * floats;
        break;
    case TL_DROP_ATTENDED: //  a row sees half of the others; scores and their product with the values
        floats = q + (double)config->heads;
        flops = 2 * q * (double)longest;
        break;
    case TL_DROP_MIDDLE:
        floats = h;
        flops = 2 * q * h;
        break;
    default:
        floats = (double)(linear[TL_GATE].out + linear[TL_UP].out);
        flops = 2 * h * floats;
    }
    return (s_choice_t){block, drop, floats * sizeof (float) / flops};
}

//  The better choice first; equal ones keep their order, block by block.
static int
s_compare_choices (const void *left, const void *right)
{
    const s_choice_t *a = left, *b = right;
    if (a->bytes_per_flop != b->bytes_per_flop)
        return a->bytes_per_flop > b->bytes_per_flop ? -1 : 1;
    return a->block != b->block ? (a->block < b->block ? -1 : 1) : (int)a->drop - (int)b->drop;
}

static size_t
s_choices (tl_part_t *const *parts, size_t count, size_t longest, s_choice_t **choices)
{
    size_t room = 0, found = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < parts[i]->range_count; s++)
            room += 4 * (parts[i]->ranges[s].last - parts[i]->ranges[s].first);
    *choices = tl_alloc ((room + 1) * sizeof **choices);
    for (size_t i = 0; i < count; i++)
        for (size_t s = 0; s < parts[i]->range_count; s++) {
            tl_segment_t *segment = parts[i]->segments[s];
            for (size_t b = 0; b < segment->range.last - segment->range.first; b++) {
                segment->blocks[b].dropped = 0;
                for (unsigned drop = TL_DROP_QKV; drop <= TL_DROP_MLP; drop <<= 1)
                    (*choices)[found++] = s_choice (segment, &segment->blocks[b], drop, longest);
            }
        }
    qsort (*choices, found, sizeof **choices, s_compare_choices);
    return found;
}

int
tl_parts_fit (tl_part_t *const *parts, size_t count, size_t rows, size_t longest, size_t labels,
              size_t in_flight, size_t budget, tl_error_t *err)
{
    s_choice_t *choices = NULL;
    size_t found = s_choices (parts, count, longest, &choices), total = 0;
    for (size_t next = 0; budget > 0; next++) {
        total = 0;
        for (size_t i = 0; i < count; i++) {
            tl_plan_t plan;
            tl_part_plan (parts[i], rows, longest, 0, labels, in_flight, &plan);
            total += tl_plan_total (&plan) - (i > 0 ? plan.process : 0);
        }
        if (total <= budget || next == found)
            break;
        choices[next].block->dropped |= choices[next].drop;
    }
    free (choices);
    if (total <= budget)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "train.memory_mb: %zu is too few: this needs %zu with everything left out of "
                    "the tapes that can be made again; raise it, or train.micros, or lower "
                    "train.batch_size or train.max_length",
                    budget >> 20, (total + (1 << 20) - 1) >> 20);
}

void
tl_part_reserve (tl_part_t *self, size_t rows, size_t longest, size_t labels, size_t in_flight)
{
    for (size_t i = 0; i < self->range_count; i++) {
        tl_segment_t *segment = self->segments[i];
        size_t size = s_tape (segment, rows, labels, true);
        while (segment->pooled > 0)
            free (segment->pool[--segment->pooled].data);
        while (segment->pooled < (segment->range.head ? 1 : in_flight) && segment->pooled < TL_POOL)
            segment->pool[segment->pooled++] =
                (tl_slab_t){tl_alloc_aligned (size * sizeof (float)), size};
        tl_workspace_reserve (self->workspace,
                              tl_segment_workspace (segment, rows, longest, labels, true));
    }
}

void
tl_plan_widen (tl_plan_t *self, const tl_plan_t *other)
{
    self->activations = s_max (self->activations, other->activations);
    self->workspace = s_max (self->workspace, other->workspace);
}

size_t
tl_plan_total (const tl_plan_t *self)
{
    return self->weights + self->trained + self->activations + self->workspace + self->state +
           self->process;
}
