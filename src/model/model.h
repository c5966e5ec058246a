/*  model: a checkpoint, the parts of it that one actor owns, and their training.

    model    a checkpoint directory: its config and where every tensor lies (mmapped, nothing copied).
    part     what one owner holds: one or two segments, their frozen weights, their trained tensors
             (LoRA factors, or fp32 masters in full tuning), gradients and AdamW state.
    segment  a run of the model: [embed] + blocks [first, last) + [head]. Front, trunk, tail and the
             whole model are all segments of the same code.
    tape     one micro in flight through one segment: inputs and everything backward needs.

    A client's part is {front, tail}, a worker's {trunk}, trunkline train's {whole}. Gradients are of
    the SUMMED loss; nothing here divides by a number of tokens but tl_part_update's coefficient.
    Not thread-safe: one thread uses a part and its tapes. No sockets, no printing.                */

#ifndef TL_MODEL_H
#define TL_MODEL_H

#include "error.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//  ---------------------------------------------------------------------------------------------
//  Model

//  chatglm: ChatGLM-6B's architecture; glm: ChatGLM2, ChatGLM3 and GLM-4; llama: Llama, Mistral, SmolLM2;
//  qwen2: Qwen2 and Qwen2.5.
typedef enum { TL_FAMILY_CHATGLM, TL_FAMILY_GLM, TL_FAMILY_LLAMA, TL_FAMILY_QWEN2 } tl_family_t;

//  What a checkpoint calls its tensors and how it cuts them up: ChatGLM-6B's original files; ChatGLM2's (3, GLM-4)
//  original files: fused query_key_value [all q | all k | all v] and dense_h_to_4h [gate | up]; Hugging Face's names (glm:
//  gate_up_proj [gate | up]). A GGUF file's model goes by the names that its directory would have.
typedef enum { TL_NAMES_CHATGLM, TL_NAMES_CHATGLM2, TL_NAMES_HF } tl_names_t;

enum { TL_MAX_ENDS = 7 };

typedef struct {
    tl_family_t family;
    tl_names_t names;
    size_t vocab;         //  rows of the embedding
    size_t hidden, inner; //  residual width, MLP width
    size_t blocks;        //  N
    size_t heads, kv_heads, head_dim;
    double norm_eps;
    double rope_base;     //  rotary theta
    size_t turned;        //  values of a head that rotary turns; chatglm: both halves together
    tl_rope_t rope_style; //  which values of a head make a pair
    bool qkv_bias;        //  q, k and v have biases
    double alpha; //  chatglm: sqrt (2 * depth), depth 28 unless alpha_num_layers says so; llama: 1
    bool tied;    //  the head is the embedding
    bool rope_llama3; //  rope_scaling of type llama3, with the four numbers below
    double rope_factor, rope_low, rope_high, rope_original;
    size_t max_positions;                    //  longest sequence the checkpoint was made for
    int32_t bos, eos, pad, gmask, mask, sop; //  special ids, -1 where the family has none
    int32_t
        ends[TL_MAX_ENDS]; //  ids besides eos that end an answer, where a checkpoint lists several
    size_t end_count;
} tl_config_t;

const char *tl_family_name (tl_family_t family);               //  "chatglm", "glm" ...
bool tl_config_is_end (const tl_config_t *config, int32_t id); //  eos or one of ends

typedef struct tl_model tl_model_t;

//  Opens a Hugging Face directory: config.json, *.safetensors (with index when sharded); or a GGUF file. Tensors are
//  checked against the config: names, shapes, dtypes, places in the file. NULL and a sentence naming
//  file and tensor otherwise.
tl_model_t *tl_model_open (const char *path, tl_error_t *err);
//  From now on parts hold the frozen matrices they need in this type: fp32, instead of widening them by panels at every
//  use; or bf16, and multiply with them in bf16 (kernels/bf16.h, whose tl_bf16_name must not be NULL). Call before making
//  parts.
void tl_model_hold (tl_model_t *self, tl_dtype_t dtype);
void tl_model_destroy (tl_model_t **self_p);
const tl_config_t *tl_model_config (const tl_model_t *self);
const char *tl_model_path (const tl_model_t *self);
//  The GGUF file the model lies in, for its tokenizer and chat template (model/gguf.h); NULL for a directory.
const struct tl_gguf *tl_model_gguf (const tl_model_t *self);

//  What two owners of one model must agree on, as canonical JSON: config and, per tensor, name, shape, dtype;
//  and its hash in hex (static strings inside the model).
const char *tl_model_manifest (const tl_model_t *self);
const char *tl_model_manifest_hash (const tl_model_t *self);

//  What the weights are (contents.c), as hashes in hex of TL_MODEL_DIGEST characters with the NUL. Pages that are read
//  leave the process again. May run on another thread while nobody uses model or part.
enum { TL_MODEL_DIGEST = 33 };
//  Of the first and last bytes of every tensor of the whole checkpoint: enough to tell any two that were trained apart,
//  for whoever holds the files, whatever part of them it works with. Costs nearly nothing.
void tl_model_sample (const tl_model_t *self, char text[TL_MODEL_DIGEST]);

//  ---------------------------------------------------------------------------------------------
//  Part

typedef struct {
    bool embed;         //  begins with the embedding
    size_t first, last; //  blocks [first, last)
    bool head;          //  ends with final norm, LM head and loss
} tl_range_t;

typedef enum { TL_TUNE_LORA, TL_TUNE_FULL, TL_TUNE_PTUNING } tl_method_t;

enum { TL_MAX_TARGETS = 8, TL_MAX_FREEZE = 16, TL_MAX_SEGMENTS = 2 };

typedef struct {
    tl_method_t method;
    size_t rank;                         //  LoRA
    double alpha, dropout;               //  LoRA; scaling is alpha / rank,
    bool rslora;                         //  or alpha / sqrt (rank)
    const char *targets[TL_MAX_TARGETS]; //  LoRA: last part of a linear's module name
    size_t target_count; //  0: the family's default (query_key_value; q_proj, v_proj)
    //  What stays frozen: embedding, head, norms, biases, blocks.FIRST-LAST, or a pattern (fnmatch) of tensor names.
    //  LoRA: of whole blocks only, which then have no adapter.
    const char *freeze[TL_MAX_FREEZE];
    size_t freeze_count;
    size_t prefix; //  P-tuning v2: rows of trained keys and values in front of every block's own
    bool frozen;   //  this part trains nothing (tune.parts leaves it out)
    uint64_t seed; //  init and dropout draws
    double beta1, beta2, eps, decay; //  AdamW
} tl_tune_t;

typedef struct tl_part tl_part_t;
typedef struct tl_segment tl_segment_t;

//  count ranges (1 or 2), ascending, not overlapping. LoRA A is drawn from the seed and the tensor's
//  name (kaiming uniform as PEFT), B is zero; full masters are the widened weights; a prefix is drawn from the
//  normal distribution (as the original and PEFT). A frozen part has no prefix.
tl_part_t *tl_part_new (tl_model_t *model, const tl_range_t *ranges, size_t count,
                        const tl_tune_t *tune, tl_error_t *err);
void tl_part_destroy (tl_part_t **self_p);
//  Whether a part of this range would train anything. Targets are those of the model.
bool tl_tune_any (const tl_tune_t *tune, const tl_model_t *model, const tl_range_t *range);
const tl_model_t *tl_part_model (const tl_part_t *self);
//  Hash of every byte of the checkpoint's tensors that the part computes with, see tl_model_sample.
void tl_part_contents (const tl_part_t *self, char text[TL_MODEL_DIGEST]);
//  Of the part's ranges and its files' paths, sizes and times: while it is the same, so are the contents. -1 if a file
//  can't be looked at.
int tl_part_stamp (const tl_part_t *self, char text[TL_MODEL_DIGEST], tl_error_t *err);
tl_segment_t *tl_part_segment (tl_part_t *self, size_t index); //  owned by the part
bool tl_segment_trains (const tl_segment_t *self);             //  has any trained tensor

//  Trained tensors, in the model's fixed order (by block, then by place in the block; embedding first,
//  final norm and head last), so that everybody adds norms in one order. A tied embedding counts once.
//  Names are the checkpoint's for full tuning, PEFT's for LoRA.
typedef struct {
    const char *name;        //  unique over the whole model
    uint64_t order;          //  place in the model's fixed order; comparable between parts
    size_t shape[2];         //  rows, columns; columns 1 for vectors
    float *value, *gradient; //  [rows, columns]
} tl_tensor_t;

size_t tl_part_tensors (const tl_part_t *self);
const tl_tensor_t *tl_part_tensor (const tl_part_t *self, size_t index);

//  Ends a step's accumulation (a tied head's and embedding's gradients become one: head part first)
//  and writes each trained tensor's sum of squares, in tensor order, to squares [tl_part_tensors].
void tl_part_finish_gradient (tl_part_t *self, double *squares);
//  AdamW with gradient * coefficient and this lr; then gradients are zero and the count of updates is one
//  more. Returns -1 with the tensor's name if a gradient is not finite (nothing is changed then).
int tl_part_update (tl_part_t *self, double coefficient, double lr, tl_error_t *err);
void tl_part_zero_gradient (tl_part_t *self); //  drops what was accumulated: an abandoned step
uint64_t tl_part_updates (const tl_part_t *self);

//  FedProx: the values at the beginning of a period (taken when another period's, or none, are held), and a pull
//  back to them: gradient += strength * (value - anchor), after the step's last backward. Without an anchor it does
//  nothing. An anchor is in the part's state.
void tl_part_anchor (tl_part_t *self, uint64_t period);
void tl_part_pull (tl_part_t *self, double strength);
void tl_part_forget_anchor (tl_part_t *self);

//  Adapter as a PEFT directory (LoRA, P-tuning) or as safetensors of the trained tensors (full). Written by rename.
int tl_part_save_adapter (const tl_part_t *self, const char *directory, tl_error_t *err);
//  Loads those tensors of a PEFT directory that belong to this part; every trained tensor must be there, of the
//  right shape; rank and base are checked. Tensors of other parts are ignored.
int tl_part_load_adapter (tl_part_t *self, const char *directory, tl_error_t *err);
//  What an adapter directory says of itself, for callers that have no topology at hand: fill a tl_tune_t from
//  it. tl_adapter_info_clear frees what read has put in; both are safe on a zeroed struct.
typedef struct {
    tl_method_t method;            //  lora, ptuning: adapter_config.json; full: model.safetensors
    size_t prefix;                 //  P-tuning: rows, else 0
    size_t rank;                   //  LoRA, else 0
    double alpha, dropout;         //  LoRA, else 0
    bool rslora;                   //  LoRA: scaling alpha / sqrt (rank)
    char *targets[TL_MAX_TARGETS]; //  LoRA: last parts of module names, sorted
    size_t target_count;
    size_t *layers; //  LoRA, P-tuning: [layer_count] blocks that have it, ascending; NULL: all
    size_t layer_count;
    char *freeze
        [TL_MAX_FREEZE]; //  full: what stayed frozen; else what tl_adapter_tune made of layers
    size_t freeze_count;
    char *base; //  directory or name of the base model it was made on, "" if unknown
} tl_adapter_info_t;

int tl_adapter_info_read (tl_adapter_info_t *self, const char *directory, tl_error_t *err);
void tl_adapter_info_clear (tl_adapter_info_t *self);
//  The tuning of a part of this model that would hold the adapter; texts stay the info's. Seed and AdamW are left alone.
int tl_adapter_tune (tl_adapter_info_t *self, const tl_model_t *model, tl_tune_t *tune,
                     tl_error_t *err);

//  Everything needed to go on bit for bit (trained tensors, m, v, update count) as one blob. get: caller frees.
void *tl_part_state_get (const tl_part_t *self, size_t *size);
int tl_part_state_set (tl_part_t *self, const void *state, size_t size, tl_error_t *err);
//  The gradients of a step after tl_part_finish_gradient, likewise; set replaces them.
void *tl_part_gradient_get (const tl_part_t *self, size_t *size);
int tl_part_gradient_set (tl_part_t *self, const void *gradient, size_t size, tl_error_t *err);

//  ---------------------------------------------------------------------------------------------
//  Running a segment

//  Ragged rows of some sequences, one after another; rows = sum of length. Nothing is padded.
typedef struct {
    size_t sequences;       //  how many, >= 1
    size_t rows;            //  sum of length
    const uint32_t *length; //  [sequences] rows of each, >= 1
    const uint32_t *
        context; //  [sequences] columns visible to every row (chatglm: index of sop); llama: ignored
    const uint32_t *mask;   //  [sequences] mask position (chatglm); else ignored
    const uint64_t *number; //  [sequences] global sequence number: addresses dropout
    const int32_t *ids;     //  [rows], embed segments only, else NULL
    const int32_t
        *labels; //  [rows] what row r shall predict, -1 for nothing (already shifted); head only
} tl_batch_t;

typedef struct tl_tape tl_tape_t;

//  train: keeps what backward needs and draws dropout at (seed, step, number). The batch is copied where
//  needed. input [rows, hidden] for segments without embed, else NULL. Never fails on checked input.
tl_tape_t *tl_segment_forward (tl_segment_t *self, const tl_batch_t *batch, uint64_t step,
                               const float *input, bool train);
void tl_tape_destroy (tl_tape_t **self_p);
const float *
tl_tape_output (const tl_tape_t *self); //  [rows, hidden] after the last block (before final norm)
const float *tl_tape_block (
    const tl_tape_t *self,
    size_t
        index); //  rows after block first+index; index -1 cast: embedding. For golden_check; NULL unless train

//  Head segments. Loss over rows that have a label, logits in chunks. Sum of NLL and number of labels;
//  with train the gradient of the summed loss is kept for backward, and a fully tuned head's own gradient is
//  added here: call it once a tape, in the same order as backward.
void tl_segment_loss (tl_segment_t *self, tl_tape_t *tape, double *nll, uint64_t *labels);
//  The same, a sum for each sequence: nll [sequences].
void tl_segment_losses (tl_segment_t *self, tl_tape_t *tape, double *nll);
//  Logits [count, vocab] of the given rows, for generation and tests. Inference or train tapes.
void tl_segment_logits (tl_segment_t *self, tl_tape_t *tape, const uint32_t *rows, size_t count,
                        float *logits);
//  For tests: the given rows after the final norm [count, hidden], and after tl_segment_loss on a train tape
//  the gradient of all rows after the final norm [rows, hidden] (zero where there is no label).
void tl_segment_final (tl_segment_t *self, const tl_tape_t *tape, const uint32_t *rows,
                       size_t count, float *normed);
void tl_tape_final_gradient (const tl_tape_t *self, float *gradient);

//  d_output [rows, hidden] is d(summed loss)/d(output) for segments without head, NULL with head. Adds into
//  gradients. d_input [rows, hidden] is overwritten, or NULL when nobody needs it (then work below the first trained
//  tensor is skipped). Frees the tape's big buffers (they go back to the segment's pool).
void tl_segment_backward (tl_segment_t *self, tl_tape_t *tape, const float *d_output,
                          float *d_input);

//  ---------------------------------------------------------------------------------------------
//  Generation: keys and values of sequences already read

typedef struct tl_cache tl_cache_t;
tl_cache_t *tl_cache_new (const tl_segment_t *segment,
                          size_t capacity); //  one sequence, capacity rows
void tl_cache_destroy (tl_cache_t **self_p);
size_t tl_cache_rows (const tl_cache_t *self); //  read so far
//  Forgets all but the first rows of what was read, so that something else can follow them. Where a context is visible
//  to every row, all of it must stay.
void tl_cache_cut (tl_cache_t *self, size_t rows);
//  Reads count new rows: of each sequence those after its cache's, one sequence after another. batch describes the
//  whole sequences so far (length = cached + new; ids of the new rows only), caches [sequences] are theirs. output
//  [count, hidden] after the last block.
int tl_segment_extend (tl_segment_t *self, tl_cache_t *const *caches, const tl_batch_t *batch,
                       size_t count, const float *input, float *output, tl_error_t *err);
//  logits [count, vocab] from rows [count, hidden] after the last block: final norm and head.
void tl_segment_head (tl_segment_t *self, const float *rows, size_t count, float *logits);

//  ---------------------------------------------------------------------------------------------
//  Memory plan, in bytes, for micros of rows rows (longest sequence longest, labels of them labelled) with
//  in_flight tapes at once. A segment with a head has one: its backward follows its loss at once.

typedef struct {
    size_t weights;     //  mapped weights that this part touches
    size_t trained;     //  trained tensors, gradients, AdamW state
    size_t activations; //  tapes
    size_t workspace;   //  scratch, widened panels, logits chunk
    size_t state;       //  a save's copy of what is trained and of AdamW's state
    size_t process;     //  what threads pack, libraries, sockets, the heap's unused ends
} tl_plan_t;

void tl_part_plan (const tl_part_t *self, size_t rows, size_t longest, size_t sequences,
                   size_t labels, size_t in_flight, tl_plan_t *plan);
//  The same when rows are only read: forward, and logits for labels rows. Nothing is in flight.
void tl_part_plan_reading (const tl_part_t *self, size_t rows, size_t longest, size_t labels,
                           tl_plan_t *plan);
//  Chooses what the blocks of all these parts, in one process, leave out of their tapes and make again in backward, so
//  that the sum of their plans is at most budget bytes: what gives back the most bytes for the least arithmetic goes
//  first. budget 0: nothing is left out. Bits don't change. No tape may be open. -1 when it can't be.
int tl_parts_fit (tl_part_t *const *parts, size_t count, size_t rows, size_t longest, size_t labels,
                  size_t in_flight, size_t budget, tl_error_t *err);
//  Sets memory for such micros aside, so that tapes which grow from micro to micro don't leave holes behind. Pages are
//  touched when they are used. No tape of the part may be open.
void tl_part_reserve (tl_part_t *self, size_t rows, size_t longest, size_t labels,
                      size_t in_flight);
//  For a process that does both at different times: activations and workspace become the larger ones'.
void tl_plan_widen (tl_plan_t *self, const tl_plan_t *other);
size_t tl_plan_total (const tl_plan_t *self);

#endif
