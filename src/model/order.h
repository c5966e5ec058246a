/*  order: the order of rows in a model's file against Hugging Face's. Private to src/model.

    A llama GGUF stores the rows of q and k, head by head, for rotary on neighbours: its row 2j + s of a head is
    Hugging Face's row s d/2 + j (d the head's width, s 0 or 1). The program computes in the file's order
    (rope_style says so), and so trained tensors, gradients and states hold B of LoRA on q_proj and k_proj, and
    fully tuned q and k, in that order. WHATEVER IS WRITTEN OR READ UNDER HUGGING FACE'S NAMES (adapters, merged or
    tuned weights) GOES THROUGH tl_reorder. Checkpoint directories and qwen2 or chatglm GGUFs have
    Hugging Face's order: for them, and for all other tensors, it is a plain copy.                   */

#ifndef TL_ORDER_H
#define TL_ORDER_H

#include "model.h"

typedef enum { TL_ORDER_TO_FILE, TL_ORDER_TO_HF } tl_order_t;

//  The rows of this tensor lie in another order in the model's file. name: a checkpoint's or PEFT's.
bool tl_is_reordered (const tl_config_t *config, const char *name);

//  Copies rows of row_size bytes (quantised rows too: they are whole); to and from may not overlap.
void tl_reorder (const tl_config_t *config, const char *name, tl_order_t direction, void *to,
                 const void *from, size_t rows, size_t row_size);
//  The same for rows as llama.cpp's files have them, whatever the model's own file: for writing a GGUF.
void tl_reorder_heads (size_t head_dim, tl_order_t direction, void *to, const void *from,
                       size_t rows, size_t row_size);

#endif
