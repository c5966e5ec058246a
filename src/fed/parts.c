//  parts: ranges and tuning settings from a topology; a chain hands rows from segment to segment.

#include "fed/parts.h"

#include "assert.h"
#include "kernels/bf16.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  ---------------------------------------------------------------------------------------------
//  Settings and ranges

//  What the client keeps, in order, and what is the worker's. Without a split that is everything, and nothing.
static size_t
s_client_ranges (const tl_topology_t *topology, size_t blocks, tl_range_t ranges[2])
{
    ranges[0] = (tl_range_t){true, 0, topology->split.front, false};
    ranges[1] = (tl_range_t){false, blocks - topology->split.tail, blocks, true};
    if (topology->split.none)
        ranges[0] = (tl_range_t){true, 0, blocks, true};
    return topology->split.none ? 1 : 2;
}

static tl_range_t
s_worker_range (const tl_topology_t *topology, size_t blocks)
{
    if (topology->split.none)
        return (tl_range_t){false, 0, 0, false};
    return (tl_range_t){false, topology->split.front, blocks - topology->split.tail, false};
}

static void
s_tune (const tl_topology_t *topology, bool trains, tl_tune_t *tune)
{
    static const tl_method_t methods[] = {[TL_METHOD_LORA] = TL_TUNE_LORA,
                                          [TL_METHOD_FULL] = TL_TUNE_FULL,
                                          [TL_METHOD_PTUNING] = TL_TUNE_PTUNING};
    *tune = (tl_tune_t){
        .method = methods[topology->tune.method],
        .prefix = topology->tune.prefix,
        .rank = topology->tune.rank,
        .alpha = topology->tune.alpha,
        .dropout = topology->tune.dropout,
        .rslora = topology->tune.rslora,
        .target_count = topology->tune.target_count,
        .freeze_count = topology->tune.freeze_count,
        .frozen = !trains,
        .seed = topology->train.seed,
        .beta1 = topology->train.beta1,
        .beta2 = topology->train.beta2,
        .eps = topology->train.eps,
        .decay = topology->train.weight_decay,
    };
    for (size_t i = 0; i < tune->target_count; i++)
        tune->targets[i] = topology->tune.targets[i];
    for (size_t i = 0; i < tune->freeze_count; i++)
        tune->freeze[i] = topology->tune.freeze[i];
}

tl_model_t *
tl_model_of (const tl_topology_t *topology, tl_error_t *err)
{
    if (topology->model.synthetic) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s has no model, it is synthetic: `up` and `run` play it; name a topology with "
                 "model.path",
                 topology->source);
        return NULL;
    }
    tl_model_t *model = tl_model_open (topology->model.path, err);
    if (topology->model.dtype == TL_MODEL_BF16 && topology->tune.method == TL_METHOD_FULL &&
        topology->tune.freeze_count == 0)
        tl_warn ("model.dtype bf16 is the type of frozen weights; tune.method full leaves none, so all "
                 "is computed in fp32");
    if (model && topology->model.dtype == TL_MODEL_F32)
        tl_model_hold (model, TL_F32);
    if (model && topology->model.dtype == TL_MODEL_BF16) {
        if (tl_bf16_name ())
            tl_model_hold (model, TL_BF16);
        else
            tl_warn ("model.dtype bf16: this processor has neither AMX nor AVX-512 BF16; computing "
                     "in fp32");
    }
    return model;
}

int
tl_split_check (const tl_topology_t *topology, const tl_model_t *model, tl_error_t *err)
{
    size_t blocks = tl_model_config (model)->blocks;
    size_t front = topology->split.front, tail = topology->split.tail;
    if (topology->split.none)
        return 0;
    if (front < blocks && tail < blocks - front)
        return 0;
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s: split.front %zu and split.tail %zu leave no block for the trunk: the model has "
        "%zu blocks; make them add up to at most %zu",
        topology->source, front, tail, blocks, blocks ? blocks - 1 : 0);
}

bool
tl_norm_is_joint (const tl_topology_t *topology)
{
    if (topology->split.none)
        return false;
    return topology->client_count == 1 || topology->federate.clients == TL_CLIENTS_SYNC ||
           !(topology->tune.parts & (TL_PART_FRONT | TL_PART_TAIL));
}

static bool
s_trains (const tl_topology_t *topology, const tl_model_t *model, unsigned parts, tl_range_t range)
{
    tl_tune_t tune;
    s_tune (topology, (topology->tune.parts & parts) != 0, &tune);
    return tl_tune_any (&tune, model, &range);
}

bool
tl_front_trains (const tl_topology_t *topology, const tl_model_t *model)
{
    return !topology->split.none && s_trains (topology, model, TL_PART_FRONT | TL_PART_TAIL,
                                              (tl_range_t){true, 0, topology->split.front, false});
}

bool
tl_client_trains (const tl_topology_t *topology, const tl_model_t *model)
{
    tl_range_t ranges[2];
    bool trains = false;
    for (size_t i = s_client_ranges (topology, tl_model_config (model)->blocks, ranges); i-- > 0;)
        trains |= s_trains (topology, model, TL_PART_FRONT | TL_PART_TAIL, ranges[i]);
    return trains;
}

bool
tl_worker_trains (const tl_topology_t *topology, const tl_model_t *model)
{
    return s_trains (topology, model, TL_PART_TRUNK,
                     s_worker_range (topology, tl_model_config (model)->blocks));
}

tl_schedule_t
tl_schedule_of (const tl_topology_t *topology, uint64_t steps)
{
    static const tl_decay_t decays[] = {[TL_RATE_LINEAR] = TL_DECAY_LINEAR,
                                        [TL_RATE_CONSTANT] = TL_DECAY_CONSTANT,
                                        [TL_RATE_COSINE] = TL_DECAY_COSINE};
    return (tl_schedule_t){.most = topology->train.lr,
                           .least = topology->train.lr_min,
                           .warmup = topology->train.warmup,
                           .steps = steps,
                           .decay = decays[topology->train.schedule]};
}

tl_part_t *
tl_part_of_client (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err)
{
    if (tl_split_check (topology, model, err) != 0)
        return NULL;
    tl_range_t ranges[2];
    size_t count = s_client_ranges (topology, tl_model_config (model)->blocks, ranges);
    tl_tune_t tune;
    s_tune (topology, (topology->tune.parts & (TL_PART_FRONT | TL_PART_TAIL)) != 0, &tune);
    return tl_part_new (model, ranges, count, &tune, err);
}

tl_part_t *
tl_part_of_worker (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err)
{
    if (tl_split_check (topology, model, err) != 0)
        return NULL;
    tl_range_t range = s_worker_range (topology, tl_model_config (model)->blocks);
    tl_tune_t tune;
    s_tune (topology, !topology->split.none && (topology->tune.parts & TL_PART_TRUNK), &tune);
    return tl_part_new (model, &range, 1, &tune, err);
}

//  ---------------------------------------------------------------------------------------------
//  Chain

//  Takes the parts, also on failure (when one of them is NULL).
static tl_chain_t *
s_chain_new (const tl_model_t *model, tl_part_t *outer, tl_part_t *inner, bool cut)
{
    if (!outer || (cut && !inner)) {
        tl_part_destroy (&outer);
        tl_part_destroy (&inner);
        return NULL;
    }
    tl_chain_t *self = tl_alloc (sizeof *self);
    self->hidden = tl_model_config (model)->hidden;
    self->vocab = tl_model_config (model)->vocab;
    self->parts[self->part_count++] = outer;
    self->segments[self->segment_count++] = tl_part_segment (outer, 0);
    if (cut) {
        self->parts[self->part_count++] = inner;
        self->segments[self->segment_count++] = tl_part_segment (inner, 0);
        self->segments[self->segment_count++] = tl_part_segment (outer, 1);
    }
    return self;
}

static tl_part_t *
s_whole (tl_model_t *model, const tl_tune_t *tune, tl_error_t *err)
{
    tl_range_t range = {true, 0, tl_model_config (model)->blocks, true};
    return tl_part_new (model, &range, 1, tune, err);
}

tl_chain_t *
tl_chain_split (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err)
{
    tl_part_t *client = tl_part_of_client (topology, model, err);
    if (topology->split.none)
        return s_chain_new (model, client, NULL, false);
    tl_part_t *trunk = client ? tl_part_of_worker (topology, model, err) : NULL;
    return s_chain_new (model, client, trunk, true);
}

tl_chain_t *
tl_chain_of (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err)
{
    if (topology->tune.parts != TL_PART_ALL)
        return tl_chain_split (topology, model, err);
    tl_tune_t tune;
    s_tune (topology, true, &tune);
    return s_chain_new (model, s_whole (model, &tune, err), NULL, false);
}

tl_chain_t *
tl_chain_plain (tl_model_t *model, const char *adapter, tl_error_t *err)
{
    tl_tune_t tune = {.frozen = adapter == NULL,
                      .rank = 1,
                      .alpha = 1,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8};
    tl_adapter_info_t info = {0};
    if (adapter) {
        if (tl_adapter_info_read (&info, adapter, err) != 0 ||
            tl_adapter_tune (&info, model, &tune, err) != 0) {
            tl_adapter_info_clear (&info);
            return NULL;
        }
        //  What it replaces may be quantised, which only matters to who trains it.
        if (info.method == TL_TUNE_FULL)
            tl_model_hold (model, TL_F32);
    }
    tl_chain_t *self = s_chain_new (model, s_whole (model, &tune, err), NULL, false);
    tl_adapter_info_clear (&info);
    if (self && adapter && tl_chain_load_adapter (self, adapter, err) != 0)
        tl_chain_destroy (&self);
    return self;
}

void
tl_chain_destroy (tl_chain_t **self_p)
{
    tl_assert (self_p);
    tl_chain_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->part_count; i++)
        tl_part_destroy (&self->parts[i]);
    free (self);
    *self_p = NULL;
}

//  ---------------------------------------------------------------------------------------------
//  Running

static void
s_forward (tl_chain_t *self, const tl_batch_t *batch, uint64_t step, bool train,
           tl_tape_t *tapes[TL_CHAIN_SEGMENTS])
{
    const float *rows = NULL;
    for (size_t i = 0; i < self->segment_count; i++) {
        tapes[i] = tl_segment_forward (self->segments[i], batch, step, rows, train);
        rows = tl_tape_output (tapes[i]);
    }
}

static void
s_destroy_tapes (const tl_chain_t *self, tl_tape_t *tapes[TL_CHAIN_SEGMENTS])
{
    for (size_t i = 0; i < self->segment_count; i++)
        tl_tape_destroy (&tapes[i]);
}

void
tl_chain_learn (tl_chain_t *self, const tl_batch_t *batch, uint64_t step, double *nll,
                uint64_t *labels)
{
    tl_tape_t *tapes[TL_CHAIN_SEGMENTS] = {NULL};
    size_t last = self->segment_count - 1;
    s_forward (self, batch, step, true, tapes);
    tl_segment_loss (self->segments[last], tapes[last], nll, labels);

    //  Backward goes down to the first segment that trains; below it nobody needs a gradient.
    size_t first = 0, size = batch->rows * self->hidden * sizeof (float);
    while (first < self->segment_count && !tl_segment_trains (self->segments[first]))
        first++;
    float *above = NULL;
    for (size_t i = self->segment_count; i-- > first;) {
        float *below = i > first ? tl_alloc_aligned (size) : NULL;
        tl_segment_backward (self->segments[i], tapes[i], above, below);
        free (above);
        above = below;
    }
    s_destroy_tapes (self, tapes);
}

void
tl_chain_score (tl_chain_t *self, const tl_batch_t *batch, double *nll)
{
    tl_tape_t *tapes[TL_CHAIN_SEGMENTS] = {NULL};
    size_t last = self->segment_count - 1;
    s_forward (self, batch, 0, false, tapes);
    tl_segment_losses (self->segments[last], tapes[last], nll);
    s_destroy_tapes (self, tapes);
}

void
tl_chain_logits (tl_chain_t *self, const tl_batch_t *batch, float *logits)
{
    tl_tape_t *tapes[TL_CHAIN_SEGMENTS] = {NULL};
    size_t last = self->segment_count - 1;
    uint32_t *rows = tl_alloc (batch->sequences * sizeof *rows);
    for (size_t i = 0, end = 0; i < batch->sequences; i++) {
        end += batch->length[i];
        rows[i] = (uint32_t)end - 1;
    }
    s_forward (self, batch, 0, false, tapes);
    tl_segment_logits (self->segments[last], tapes[last], rows, batch->sequences, logits);
    s_destroy_tapes (self, tapes);
    free (rows);
}

void
tl_part_squares (tl_part_t *self, tl_norm_term_t *squares, size_t *count)
{
    size_t tensors = tl_part_tensors (self);
    double *sums = tl_alloc ((tensors + 1) * sizeof *sums);
    tl_part_finish_gradient (self, sums);
    for (size_t i = 0; i < tensors; i++)
        squares[(*count)++] = (tl_norm_term_t){tl_part_tensor (self, i)->order, sums[i]};
    free (sums);
}

int
tl_chain_update (tl_chain_t *self, uint64_t labels, double clip, double lr, double *norm,
                 tl_error_t *err)
{
    size_t room = 1, count = 0;
    for (size_t i = 0; i < self->part_count; i++)
        room += tl_part_tensors (self->parts[i]);
    tl_norm_term_t *squares = tl_alloc (room * sizeof *squares);
    for (size_t i = 0; i < self->part_count; i++)
        tl_part_squares (self->parts[i], squares, &count);
    *norm = tl_gradient_norm (squares, count, labels);
    free (squares);

    double coefficient = tl_coefficient (*norm, clip, labels);
    for (size_t i = 0; i < self->part_count; i++)
        if (tl_part_update (self->parts[i], coefficient, lr, err) != 0)
            return -1;
    return 0;
}

tl_part_t *
tl_chain_trained (const tl_chain_t *self)
{
    tl_part_t *found = NULL;
    for (size_t i = 0; i < self->part_count; i++)
        if (tl_part_tensors (self->parts[i]) > 0) {
            if (found)
                return NULL;
            found = self->parts[i];
        }
    return found;
}

int
tl_chain_load_adapter (tl_chain_t *self, const char *directory, tl_error_t *err)
{
    for (size_t i = 0; i < self->part_count; i++)
        if (tl_part_tensors (self->parts[i]) > 0 &&
            tl_part_load_adapter (self->parts[i], directory, err) != 0)
            return -1;
    return 0;
}

void
tl_chain_plan (const tl_chain_t *self, size_t rows, size_t longest, size_t sequences, size_t labels,
               tl_plan_t *plan)
{
    memset (plan, 0, sizeof *plan);
    for (size_t i = 0; i < self->part_count; i++) {
        tl_plan_t one;
        tl_part_plan (self->parts[i], rows, longest, sequences, labels, 1, &one);
        plan->weights += one.weights;
        plan->trained += one.trained;
        plan->activations += one.activations;
        plan->workspace += one.workspace;
        plan->state += one.state;
        plan->process = one.process;
    }
}
