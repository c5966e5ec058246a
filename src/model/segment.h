/*  segment: the running half's own structures: a linear, a norm, a block, a segment, a tape, and the
    scratch they share. Everything is in rows: n = all rows of a micro, sequences one after another.   */

#ifndef TL_SEGMENT_H
#define TL_SEGMENT_H

#include "model/internal.h"

//  How q, k and v come out of a block: by three linears, or by one whose rows are [q|k|v] head by head
//  (ChatGLM-6B), or all of q, all of k, all of v (ChatGLM2).
typedef enum { TL_QKV_APART, TL_QKV_BY_HEAD, TL_QKV_BY_KIND } tl_qkv_t;

//  What makes a family's block differ from another's.
typedef struct {
    bool layernorm;       //  layer norm with bias; else RMS norm
    bool residual_normed; //  the residual is alpha x the normalised input; else the raw input
    tl_qkv_t qkv;
    bool rope_2d;     //  first half of a head by position, second half by block position
    bool rope_fp16;   //  rotary frequencies are rounded to fp16
    bool prefix_mask; //  the context's columns are visible to every row
    bool gated;       //  silu (gate) * up; else tanh GELU of up
    bool gate_up;     //  gated, by one linear at TL_UP whose rows are all gates, then all ups
    tl_rope_t rope_style;
    double alpha; //  of residual_normed, else 1
} tl_shape_t;

tl_shape_t tl_shape_of (const tl_config_t *config);
//  The linears LoRA goes on when nobody says otherwise.
const char *const *tl_default_targets (const tl_config_t *config, size_t *count);

//  ---------------------------------------------------------------------------------------------
//  Workspace: a stack of floats. take gives 64-byte aligned room, not zeroed; release gives back all
//  that was taken since mark. It grows when it must; reserve makes that rare.

tl_workspace_t *tl_workspace_new (void);
void tl_workspace_destroy (tl_workspace_t **self_p);
float *tl_workspace_take (tl_workspace_t *self, size_t count);
size_t tl_workspace_mark (const tl_workspace_t *self);
void tl_workspace_reserve (tl_workspace_t *self,
                           size_t count); //  one piece of so much, if nothing is taken
void tl_workspace_release (tl_workspace_t *self, size_t mark);
size_t tl_workspace_peak (const tl_workspace_t *self); //  most floats ever taken at once

//  Floats that count of them occupy in a workspace or a tape.
static inline size_t
tl_padded (size_t count)
{
    return (count + 15) & ~(size_t)15;
}

//  ---------------------------------------------------------------------------------------------
//  Rows: what the layers must know about a micro besides the numbers

typedef struct {
    size_t rows, sequences;
    const uint32_t *length;  //  [sequences]
    const uint32_t *context; //  [sequences]; all zero without prefix_mask
    const uint64_t *number;  //  [sequences] global sequence numbers
    uint64_t step;
    bool train;             //  dropout is drawn
    const float *cosine[2]; //  [rows, turned / 2]; the second for block positions, rope_2d only
    const float *sine[2];
} tl_rows_t;

//  Rotary tables of one segment, by position; grows to the longest sequence seen.
typedef struct {
    size_t half;          //  pairs turned by one table
    size_t positions;     //  rows of the tables
    float *frequency;     //  [half]
    float *cosine, *sine; //  [positions, half]
} tl_rope_table_t;

//  factors [half]: frequencies are divided by them; NULL: they are not.
void tl_rope_init (tl_rope_table_t *self, const tl_config_t *config, const float *factors);
void tl_rope_free (tl_rope_table_t *self);
//  Position and block position of row of a sequence with that context length and mask position.
void tl_rope_position (const tl_config_t *config, uint32_t context, uint32_t mask, size_t row,
                       size_t *position, size_t *block_position);
//  Writes the tables of count rows of one sequence from row first on: cosine [which], sine [which] are
//  [count, half] each, which = 0 for positions, 1 for block positions (may be NULL without rope_2d).
void tl_rope_rows (tl_rope_table_t *self, const tl_config_t *config, uint32_t context,
                   uint32_t mask, size_t first, size_t count, float *const cosine[2],
                   float *const sine[2]);

//  ---------------------------------------------------------------------------------------------
//  Layers

typedef struct {
    size_t in, out;
    const void *weight; //  [out, in] in the mapping, or the fp32 master
    tl_dtype_t dtype;
    bool reduced;           //  products with it are in bf16; the weight is
    const float *bias;      //  [out] or NULL
    float *weight_gradient; //  [out, in] when fully tuned, else NULL
    float *bias_gradient;   //  [out] or NULL
    size_t rank;            //  0: no LoRA here
    double scaling, dropout;
    const float *a, *b; //  [rank, in], [out, rank]
    float *a_gradient, *b_gradient;
    uint64_t seed, name; //  of the dropout draws
} tl_linear_t;

static inline bool
tl_linear_trains (const tl_linear_t *self)
{
    return self->rank > 0 || self->weight_gradient;
}

//  Floats of scratch that one product with the weight takes for n rows.
size_t tl_linear_room (const tl_linear_t *self, size_t n);
//  y [n, out] = x W^T + bias + beta * y (+ LoRA). low [n, rank] receives x A^T for backward.
void tl_linear_forward (const tl_linear_t *self, const tl_rows_t *rows, float *y, const float *x,
                        double beta, float *low, tl_workspace_t *workspace);
//  dx [n, in] = dy W + beta * dx (+ LoRA), unless dx is NULL; parameter gradients +=. x is needed only
//  when the linear trains; low as forward left it.
void tl_linear_backward (const tl_linear_t *self, const tl_rows_t *rows, float *dx, const float *dy,
                         const float *x, double beta, const float *low, tl_workspace_t *workspace);

typedef struct {
    const float *weight, *bias;             //  [hidden]; bias NULL for RMS norm
    float *weight_gradient, *bias_gradient; //  NULL when frozen
} tl_norm_t;

//  mean is not touched by RMS norm.
void tl_norm_forward (const tl_norm_t *self, float *y, float *mean, float *rstd, const float *x,
                      size_t n, size_t h, double eps);
void tl_norm_backward (const tl_norm_t *self, float *dx, const float *dy, const float *x,
                       const float *mean, const float *rstd, size_t n, size_t h);

//  ---------------------------------------------------------------------------------------------
//  Block

enum { TL_Q, TL_K, TL_V, TL_OUT, TL_GATE, TL_UP, TL_DOWN, TL_LINEARS }; //  fused qkv sits at TL_Q

//  What a block leaves out of its tape when memory is short; backward makes it again.
typedef enum {
    TL_DROP_QKV = 1,      //  qkv
    TL_DROP_ATTENDED = 2, //  attended and lse
    TL_DROP_MIDDLE = 4,   //  middle
    TL_DROP_MLP = 8,      //  gate and up
    TL_DROP_ALL = 15
} tl_drop_t;

//  P-tuning v2: keys and values that every row sees in front of its own, without rotary.
typedef struct {
    size_t rows;         //  0: none here
    const float *values; //  [rows, 2 * kv_heads * d]: a row's key, then its value
    float *gradient;     //  likewise
} tl_prefix_t;

typedef struct {
    tl_norm_t norm1, norm2;
    tl_linear_t linear[TL_LINEARS]; //  out 0: the family has no such linear
    tl_prefix_t prefix;
    bool trains;      //  has a trained tensor
    unsigned dropped; //  tl_drop_t's, set by tl_parts_fit
} tl_block_t;

//  What a block keeps of a micro for its backward. Nothing that is cheap to compute again (norm outputs,
//  activations).
typedef struct {
    float *mean1, *rstd1, *mean2, *rstd2; //  [n]; means with layer norm only
    float *qkv[3];                        //  after rotary; fused: [0] only, [n, q + 2 kv]
    float *attended;                      //  [n, heads * d]
    float *lse;                           //  [heads, n], sequence by sequence
    float *middle;                        //  [n, h] between attention and MLP
    float *gate, *up;       //  [n, inner] before the activation; gate_up: up alone, [n, 2 * inner]
    float *low[TL_LINEARS]; //  [n, rank] of linears with LoRA
} tl_kept_t;

//  Where a block's keys and values of a sequence's earlier rows lie when a cache is used.
typedef struct {
    float *k, *v;  //  [prefix + capacity, kv_heads * d]
    size_t prefix; //  rows in front that are the block's prefix
    size_t cached; //  rows behind them that were read already; the sequence's new rows are appended
} tl_kv_t;

typedef struct {
    const tl_config_t *config;
    tl_shape_t shape;
    tl_workspace_t *workspace;
} tl_context_t;

//  Keys and values of count rows with the block's prefix in front: k, v [prefix.rows + count, kv_heads * d]. from
//  (k, v) has the strides of shape; count 0 copies the prefix alone.
void tl_block_join (const tl_block_t *self, float *k, float *v, const float *from_k,
                    const float *from_v, const tl_attention_t *shape, size_t count);
//  y [n, h] from x [n, h]; they must not overlap. kv [sequences] is NULL unless generating.
void tl_block_forward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                       tl_kept_t *kept, float *y, const float *x, const tl_kv_t *kv);
//  Makes again what the block drops: kept has room for it; x is the block's input.
void tl_block_again (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                     const tl_kept_t *kept, const float *x);
//  d [n, h]: gradient of the output on entry, of the input on return if need_input, else garbage.
//  x is the block's input.
void tl_block_backward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                        const tl_kept_t *kept, float *d, const float *x, bool need_input);

//  ---------------------------------------------------------------------------------------------
//  Segment and tape

//  A buffer that waits for the next tape.
typedef struct {
    float *data;
    size_t size; //  floats
} tl_slab_t;

enum { TL_POOL = 16 };

struct tl_segment {
    const tl_part_t *part;
    tl_context_t context;
    tl_range_t range;
    const void *embed; //  [vocab, h], in the mapping or the fp32 master
    tl_dtype_t embed_dtype;
    float *embed_gradient; //  NULL when frozen
    tl_block_t *blocks;    //  [range.last - range.first]
    tl_norm_t final;       //  head segments
    tl_linear_t head;      //  head segments; rank 0
    float *vectors;        //  frozen norms and biases, widened
    bool trains;
    size_t lowest; //  lowest trained block's index in the segment; blocks + 1 when none
    tl_rope_table_t rope;
    tl_slab_t pool[TL_POOL];
    size_t pooled;
};

struct tl_tape {
    tl_segment_t *segment;
    tl_rows_t rows; //  its arrays are the tape's own copies
    bool train;
    tl_slab_t slab;  //  what the pointers below point into; empty after backward
    float **hidden;  //  [blocks + 1] rows before block i; without train only the last is kept
    tl_kept_t *kept; //  [blocks], or one that is used again and again without train
    size_t blocks;
    int32_t *ids, *labels; //  [rows] or NULL
    uint32_t *labelled;    //  [label_count] rows that have a label
    size_t label_count;
    float *final_mean, *final_rstd; //  [label_count]
    float *final_gradient;          //  [label_count, h] d loss / d (rows after the final norm)
    bool has_loss;                  //  tl_segment_loss has filled final_gradient
};

//  Finds its weights in the part's model and its trained tensors in the part.
tl_segment_t *tl_segment_new (const tl_part_t *part, const tl_range_t *range, tl_error_t *err);
void tl_segment_destroy (tl_segment_t **self_p);
//  A trained tensor by its name, or the factor ('A' or 'B') of the LoRA on a weight; NULL if not trained.
const tl_tensor_t *tl_part_find (const tl_part_t *self, const char *name);
const tl_tensor_t *tl_part_find_lora (const tl_part_t *self, const char *weight, char factor);
const tl_tensor_t *tl_part_find_prefix (const tl_part_t *self, size_t block);

//  Rows of logits computed at a time for count rows in all; the same for every run.
size_t tl_head_chunk (const tl_config_t *config, size_t count);
size_t tl_head_chunk_most (const tl_config_t *config); //  for any count
//  Gradient of the last block's output from the kept loss: d [rows, h] is overwritten.
void tl_head_backward (tl_segment_t *self, tl_tape_t *tape, float *d);

//  Floats that a block's dropped buffers take for n rows; points them in kept into workspace when that is not NULL.
size_t tl_kept_dropped (const tl_segment_t *self, const tl_block_t *block, size_t n,
                        tl_kept_t *kept, tl_workspace_t *workspace);
//  Floats of workspace that a micro of this size needs at most, longest being its longest sequence.
size_t tl_segment_workspace (const tl_segment_t *self, size_t rows, size_t longest, size_t labels,
                             bool train);
//  The slot's tensor belongs to a segment of the part.
bool tl_part_owns (const tl_part_t *self, const tl_config_t *config, const tl_slot_t *slot);

//  Floats of a tape's slab; points the tape into slab when slab is not NULL.
size_t tl_tape_layout (tl_tape_t *self, float *slab);

#endif
