/*  quantise: a model as a GGUF file of another precision, with the keys, names and order of rows that llama.cpp's
    own converter would give it, so that its programs read it, too.

    Matrices get the type asked for; embedding and head are q8_0 where it is a 4-bit one, norms and biases fp32,
    and a matrix whose rows its blocks don't fill fp16. What is stored in that very type is copied as it is. */

#ifndef TL_QUANTISE_H
#define TL_QUANTISE_H

#include "gguf_write.h"
#include "model.h"

typedef struct {
    size_t tensors, copied; //  written, and of them taken over bit for bit
    size_t of[TL_DTYPES];   //  written in each type
    size_t requantised;     //  of them from another quantised type: twice rounded
    size_t short_rows;      //  matrices in fp16 because blocks don't fill their rows
    size_t bytes;           //  of tensors
} tl_quantise_report_t;

//  type: F32, F16, BF16, Q8_0, Q4_0 or Q4_1. writer holds what the caller has put (the tokenizer) and must be fresh otherwise;
//  keys of a GGUF source are taken over. Written by rename. -1 and a sentence when the family has no place in GGUF,
//  or a value isn't finite or beyond the type.
int tl_model_quantise (const tl_model_t *model, tl_gguf_writer_t *writer, const char *out,
                       tl_dtype_t type, tl_quantise_report_t *report, tl_error_t *err);

#endif
