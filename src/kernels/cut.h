/*  cut: how a product [m, n] is cut into pieces for the pool: ranges of rows by ranges of columns.        */

#ifndef TL_KERNELS_CUT_H
#define TL_KERNELS_CUT_H

#include "kernels/pool.h"

#include <stdint.h>

//  What pieces are made of.
typedef struct {
    size_t tall, wide; //  rows and columns that are computed together; pieces have whole ones
    size_t most;       //  columns of a piece, at most: what it packs fits
    size_t pack_left,
        pack_right; //  what packing tall rows, or wide columns, takes, in blocks of tall x wide
} tl_grain_t;

typedef struct {
    size_t m, n;
    size_t m_step, n_step; //  rows and columns of a piece
    size_t n_pieces;       //  beside each other
    size_t pieces;         //  in all
} tl_cut_t;

typedef struct {
    size_t row, row_end, column, column_end;
} tl_range_t;

static inline size_t
tl_divide_up (size_t count, size_t by)
{
    return (count + by - 1) / by;
}

//  Cuts columns and rows so that the last thread is done soonest.
static inline tl_cut_t
tl_cut (const tl_grain_t *grain, size_t m, size_t n)
{
    tl_cut_t self = {.m = m, .n = n};
    size_t threads = (size_t)tl_pool_threads (), strips = tl_divide_up (m, grain->tall);
    size_t grains = tl_divide_up (n, grain->wide), least = tl_divide_up (n, grain->most);
    size_t best = SIZE_MAX;
    for (size_t across = least; across < least + threads && across <= grains; across++)
        for (size_t down = 1; down <= threads && down <= strips; down++) {
            size_t wide = tl_divide_up (grains, across), tall = tl_divide_up (strips, down);
            size_t rounds =
                tl_divide_up (tl_divide_up (grains, wide) * tl_divide_up (strips, tall), threads);
            size_t time =
                rounds * (wide * tall + wide * grain->pack_right + tall * grain->pack_left);
            if (time >= best)
                continue;
            best = time;
            self.n_step = wide * grain->wide;
            self.m_step = tall * grain->tall;
        }
    self.n_pieces = tl_divide_up (n, self.n_step);
    self.pieces = self.n_pieces * tl_divide_up (m, self.m_step);
    return self;
}

static inline tl_range_t
tl_cut_range (const tl_cut_t *self, size_t index)
{
    size_t column = index % self->n_pieces * self->n_step;
    size_t row = index / self->n_pieces * self->m_step;
    return (tl_range_t){.row = row,
                        .row_end = self->m - row < self->m_step ? self->m : row + self->m_step,
                        .column = column,
                        .column_end =
                            self->n - column < self->n_step ? self->n : column + self->n_step};
}

#endif
