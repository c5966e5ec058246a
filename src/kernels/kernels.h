/*  kernels: the arithmetic of a transformer, forward and backward side by side.

    Conventions. Matrices are row-major, weights [out, in] as in checkpoints. n is rows (all sequences
    of a micro, ragged, one after another), h the hidden size. Forward overwrites its output. Backward
    adds (+=) into parameter gradients and, unless it says otherwise, overwrites dx. No malloc, no
    globals that change, no printing, no I/O.

    One source is compiled several times: TL_REAL float for the program (per ISA: baseline, x86-64-v3,
    x86-64-v4; tl_kernels () picks once) and TL_REAL double for tests (tl_kernels_f64). A kernel is
    reached through the table only: tl_kernels ()->rmsnorm_forward (...). The list is kernels_table.h. */

#ifndef TL_KERNELS_H
#define TL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

//  Storage of a weight. Compute is always in real_t. The quantised ones are GGUF's, bit for bit: blocks of 32 values
//  (q8_0, q4_0, q4_1) or 256 (K-quants) that share scales; a row of a matrix is a whole number of blocks.
typedef enum {
    TL_F32,
    TL_F16,
    TL_BF16,
    TL_Q8_0,
    TL_Q4_0,
    TL_Q4_1,
    TL_Q4_K,
    TL_Q5_K,
    TL_Q6_K,
    TL_DTYPES
} tl_dtype_t;

size_t tl_dtype_block (tl_dtype_t dtype);               //  values a block: 1, 32 or 256
size_t tl_dtype_bytes (tl_dtype_t dtype, size_t count); //  of count values, whole blocks
const char *tl_dtype_name (tl_dtype_t dtype);           //  "fp32", "fp16", "bf16", "q8_0" ...

//  How rotary turns a head of d values; cos and sin are [n, d_rot / 2] tables made by the model.
//  HALF: pairs (i, i + d_rot/2). INTERLEAVED: pairs (2i, 2i+1).
typedef enum { TL_ROPE_HALF, TL_ROPE_INTERLEAVED } tl_rope_t;

//  One causal attention call: rows of one sequence against cached + own columns.
//  q [rows, heads * d] with row stride q_stride (elements), k and v [columns, kv_heads * d] likewise.
//  Row r may see column c when c < context or c <= r + (columns - rows).
typedef struct {
    size_t rows, columns;      //  queries, keys
    size_t heads, kv_heads, d; //  query head h uses kv head h / (heads / kv_heads)
    size_t q_stride, k_stride, v_stride, o_stride; //  elements between rows
    size_t q_head, k_head, v_head; //  elements between heads (ChatGLM-6B interleaves q|k|v)
    size_t context;                //  columns that every row sees; 0 or 1 is plain causal
    double scale;                  //  1 / sqrt (d)
} tl_attention_t;

//  From now on kernels use so many threads, the caller among them; 1 to 64, and 1 before the first call.
void tl_kernels_use (int threads);
int tl_kernels_threads (void);

#define TL_REAL float
#define TL_TABLE tl_kernels_t
#include "kernels_table.h"
#undef TL_REAL
#undef TL_TABLE
#define TL_REAL double
#define TL_TABLE tl_kernels_f64_t
#include "kernels_table.h"
#undef TL_REAL
#undef TL_TABLE

//  Reals of scratch that attention needs with as many threads as now; the same for all ISAs.
size_t tl_attention_scratch (const tl_attention_t *shape, bool backward);

const tl_kernels_t *tl_kernels (void); //  best table for this CPU; TL_ISA=base|v3|v4 pins it
const char *tl_kernels_name (void);    //  which table that is: "base", "v3" or "v4"
const tl_kernels_t *tl_kernels_of (const char *name); //  that table, NULL if this CPU can't run it
const tl_kernels_f64_t *tl_kernels_f64 (void);        //  the same source in double; tests only

//  Scalar and row conversions, any ISA, the same bits on every one: round to nearest even (NaN stays NaN), whole blocks
//  as gguf-py and ggml's reference read and write them. Narrowing knows q8_0, q4_0 and q4_1 of the quantised types;
//  there values must be finite, and where a block's scale is beyond fp16 what comes out is infinite.
void tl_widen (float *out, const void *in, tl_dtype_t dtype, size_t count);
void tl_narrow (void *out, const float *in, tl_dtype_t dtype, size_t count);

#endif
