//  sizes: how big a piece linear and attention work on; functions of the shape alone, so that the same
//  call always makes the same gemm calls.

#ifndef TL_KERNELS_SIZES_H
#define TL_KERNELS_SIZES_H

#include "kernels/kernels.h"

//  Output rows of a half-precision weight that are widened at a time: 1 Mi values (4 MiB).
static inline size_t
tl_panel_rows (size_t in, size_t out)
{
    size_t rows = ((size_t)1 << 20) / (in ? in : 1);
    if (rows < 16)
        rows = 16;
    return rows < out ? rows : out;
}

//  Query rows whose scores exist at a time. 64 beat 32, 96, 128 and 256 at 256 rows: smaller makes gemm
//  calls too small, larger computes columns that causal rows don't see.
static inline size_t
tl_tile_rows (const tl_attention_t *shape)
{
    return shape->rows < 64 ? shape->rows : 64;
}

#endif
