/*  internal: what the files of src/model share and nobody else sees.

    Two halves meet here. The reading half (safetensors, config, model, adapter) finds tensors in files and
    writes them; the running half (layout, part, block, segment, cache, plan) computes with them.      */

#ifndef TL_MODEL_INTERNAL_H
#define TL_MODEL_INTERNAL_H

#include "model.h"

//  ---------------------------------------------------------------------------------------------
//  Layout (layout.c): every tensor a checkpoint of this config must hold, in the model's fixed order:
//  embedding, blocks one after another, final norm, head (absent when tied).

typedef enum {
    TL_SLOT_EMBED,
    TL_SLOT_NORM1,
    TL_SLOT_NORM1_BIAS,
    TL_SLOT_QKV,
    TL_SLOT_QKV_BIAS,
    TL_SLOT_Q,
    TL_SLOT_Q_BIAS,
    TL_SLOT_K,
    TL_SLOT_K_BIAS,
    TL_SLOT_V,
    TL_SLOT_V_BIAS,
    TL_SLOT_OUT,
    TL_SLOT_OUT_BIAS,
    TL_SLOT_NORM2,
    TL_SLOT_NORM2_BIAS,
    TL_SLOT_GATE,
    TL_SLOT_GATE_UP,
    TL_SLOT_UP,
    TL_SLOT_UP_BIAS,
    TL_SLOT_DOWN,
    TL_SLOT_DOWN_BIAS,
    TL_SLOT_FINAL,
    TL_SLOT_FINAL_BIAS,
    TL_SLOT_HEAD,
    TL_SLOTS
} tl_role_t;

typedef struct {
    tl_role_t role;
    size_t block;         //  which block; 0 for embedding, final norm and head
    char name[96];        //  as in the checkpoint
    size_t rows, columns; //  [rows, columns]; a vector is [rows] in the file and has columns 1 here
    bool vector;          //  norms and biases: one dimension in the file
    bool linear; //  a linear layer's matrix (LoRA may be put on it); not embedding, not head
} tl_slot_t;

size_t tl_layout_count (const tl_config_t *config);
void tl_layout_at (const tl_config_t *config, size_t index, tl_slot_t *slot); //  index < count
//  What the names of a checkpoint's own modules begin with ("model."), of a block's ("model.layers.%zu."),
//  and the name of the head, which a tied checkpoint may carry as well.
const char *tl_layout_root (const tl_config_t *config);
const char *tl_layout_block (const tl_config_t *config);
const char *tl_layout_head (const tl_config_t *config);
//  Last parts of the names of a block's linears, as PEFT calls them: "q_proj, k_proj, ...".
void tl_layout_linears (const tl_config_t *config, char *text, size_t size);

//  ---------------------------------------------------------------------------------------------
//  What is trained (choice.c)

double tl_tune_scaling (const tl_tune_t *tune); //  of LoRA's update
//  The linear with this weight is among the targets (last part of its module's name).
bool tl_tune_targets (const tl_tune_t *tune, const char *weight);
//  Full: the tensor itself is trained; LoRA: it is a linear that gets a pair.
bool tl_tune_trains (const tl_tune_t *tune, const tl_slot_t *slot);
//  Every pattern is one, leaves something out, and something is left; LoRA: of each block all targets or none.
int tl_tune_check_freeze (const tl_tune_t *tune, const tl_config_t *config, tl_error_t *err);

const char *tl_method_name (tl_method_t method); //  as in tune.method: "lora"

//  ---------------------------------------------------------------------------------------------
//  Located weights (model.c)

//  A tensor where it lies in the mapping, aligned to its element size. Lives as long as the model.
typedef struct {
    const void *data;
    tl_dtype_t dtype;
    size_t shape[2];  //  rows, columns; columns 1 for vectors
    const char *name; //  owned by the model
} tl_weight_t;

//  Finds a tensor and checks its shape: [rows, columns], or [rows] when columns is 1 (a [rows, 1] matrix is
//  taken as well). -1 and a sentence naming file and tensor when it is absent, misshapen or not a float.
int tl_model_weight (const tl_model_t *self, const char *name, size_t rows, size_t columns,
                     tl_weight_t *out, tl_error_t *err);
//  The same as the model computes with it while it is frozen: matrices in the type of tl_model_hold.
int tl_model_frozen (tl_model_t *self, const char *name, size_t rows, size_t columns,
                     tl_weight_t *out, tl_error_t *err);
tl_dtype_t tl_model_holds (const tl_model_t *self); //  TL_DTYPES: as stored
//  A tensor's bytes in the mapping of its file, aligned or not. Only names of the layout.
const void *tl_model_bytes (const tl_model_t *self, const char *name, size_t *size);
//  The index-th file of weights: its path, false beyond the last one.
bool tl_model_file (const tl_model_t *self, size_t index, char *path, size_t room);
//  What rotary's frequencies are divided by, [turned / 2]; NULL: nothing.
const float *tl_model_rope_factors (const tl_model_t *self);

//  ---------------------------------------------------------------------------------------------
//  Part (part.c makes it, adapter.c saves and loads it)

typedef struct tl_workspace tl_workspace_t; //  scratch shared by the part's segments, see segment.h

struct tl_part {
    tl_model_t *model; //  not owned
    tl_range_t ranges[TL_MAX_SEGMENTS];
    size_t range_count;
    tl_tune_t tune;        //  targets are the part's own copies, defaults filled in
    tl_tensor_t *tensors;  //  [tensor_count] trained tensors in the model's order
    float **m, **v;        //  [tensor_count] AdamW moments, shaped as the tensor
    float **anchor;        //  [tensor_count] values that tl_part_pull holds to; NULL: none
    uint64_t period;       //  that the anchor is of
    size_t tensor_count;   //  0 when frozen
    uint64_t updates;      //  updates done so far
    float *storage;        //  what value, gradient, m, v point into
    size_t storage_size;   //  floats in storage
    float *embed_gradient; //  tied, full, both uses here: the embedding's own share
    size_t embed_tensor;   //  its tensor's index, else tensor_count
    tl_segment_t *segments[TL_MAX_SEGMENTS];
    tl_workspace_t *workspace;
};

#endif
