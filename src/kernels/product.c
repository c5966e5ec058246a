/*  product: matrix products for linear and attention. C = alpha * A B + beta * C, sides stored either way round and, for
    weights, in any storage type: they are widened where they are packed, so a widened copy never exists.

    The right side is packed in slivers of S_WIDE columns, the left side is read where it lies, S_TALL rows at a
    time; a tile of both lives in registers. Each sum runs over k in one fixed order, in steps that depend on k
    alone: a result depends on its row and its column, not on what else is computed with it, nor on the threads.

    Work is cut into pieces for the pool; a piece packs what it needs on its own stack.                   */

#include "kernels/product.h"
#include "kernels/cut.h"
#include "kernels/loops.h"
#include "kernels/tile.h"

enum {
//  values of the sum, and columns, that are packed at a time, at most
#if defined __AVX512F__
    S_DEEP = 640,
    S_ACROSS = 288,
#elif defined __AVX2__
    S_DEEP = 640,
    S_ACROSS = 192,
#else
    S_DEEP = 320,
    S_ACROSS = 288,
#endif
    S_TALL = TL_WIDE_TALL,
    S_WIDE = TL_WIDE,
    S_PADDED = (S_TALL + 3) / 4 * 4, //  rows of a tile that is turned
    S_GRAIN = 96,                    //  columns: whole slivers and, in blocks of 32, whole blocks
    S_BLOCK = 256                    //  the most values a block of weights has
};
_Static_assert(S_GRAIN % S_WIDE == 0 && S_ACROSS % S_GRAIN == 0 && S_WIDE % 4 == 0,
               "slivers fill a piece");

TL_DEFINE_TILE (s_tile, S_TALL, TL_WIDE_VECTORS)

//  The product as it is computed, which may be the transposed one.
typedef struct {
    size_t m, n, k;        //  c is [m, n], or [n, m] when turned
    tl_side_t left, right; //  [m, k], [k, n]
    real_t alpha, beta;
    const real_t *bias; //  of the columns of what is asked for, or NULL
    real_t *c;
    size_t ldc;
    bool turned; //  tiles are stored transposed
    tl_cut_t cut;
} s_product_t;

static const real_t s_zeros[S_DEEP + S_BLOCK];

//  Values of the sum that are packed at a time.
static size_t
s_depth (size_t k)
{
    size_t grain = k % S_BLOCK ? 32 : S_BLOCK, most = S_DEEP / grain * grain;
    size_t steps = (k + most - 1) / most;
    return ((k + steps - 1) / steps + grain - 1) / grain * grain;
}

static bool
s_plain (const tl_side_t *side)
{
    return sizeof (real_t) == sizeof (double) || side->dtype == TL_F32;
}

static const real_t *
s_at (const tl_side_t *side, size_t row, size_t column)
{
    return (const real_t *)side->data + row * side->stride + column;
}

//  count values of a stored row from column on, as reals: in place, or widened into room, which holds count and a
//  block's values more on either side.
static const real_t *
s_values (const tl_side_t *side, size_t row, size_t column, size_t count, real_t *room)
{
    if (s_plain (side))
        return s_at (side, row, column);
    size_t block = tl_dtype_block (side->dtype), first = column / block * block;
    size_t end = (column + count + block - 1) / block * block;
    end = end < side->stride ? end : side->stride;
    TL_KERNEL (widen)
    (room, tl_weight_at (side->data, side->dtype, row * side->stride + first), side->dtype,
     end - first);
    return room + (column - first);
}

//  Stored rows become columns of a sliver: to [depth, S_WIDE], zero beyond the last of count rows.
static void
s_pack_rows (real_t *to, const tl_side_t *side, size_t row, size_t count, size_t k, size_t depth)
{
    real_t room[4][S_DEEP + 2 * S_BLOCK];
    for (size_t column = 0; column < S_WIDE; column += 4) {
        const real_t *from[4];
        for (size_t i = 0; i < 4; i++)
            from[i] =
                column + i < count ? s_values (side, row + column + i, k, depth, room[i]) : s_zeros;
        tl_turn_rows (to + column, S_WIDE, from, depth);
    }
}

//  Pieces of stored rows become rows of slivers, all slivers of a piece at once: rows are read in one go.
static void
s_pack_columns (real_t *to, const tl_side_t *side, size_t column, size_t count, size_t k,
                size_t depth)
{
    enum { S_AHEAD = 8 };
    real_t room[S_ACROSS + 2 * S_BLOCK];
    for (size_t step = 0; step < depth; step++) {
        const real_t *from = s_values (side, k + step, column, count, room);
        if (s_plain (side) && step + S_AHEAD < depth)
            for (size_t i = 0; i < count; i += 64 / sizeof (real_t))
                __builtin_prefetch (from + S_AHEAD * side->stride + i);
        for (size_t first = 0; first < count; first += S_WIDE) {
            real_t *sliver = to + first * depth + step * S_WIDE;
            size_t width = count - first < S_WIDE ? count - first : S_WIDE;
            if (width == S_WIDE)
                memcpy (sliver, from + first, S_WIDE * sizeof *to);
            else {
                memcpy (sliver, from + first, width * sizeof *to);
                memset (sliver + width, 0, (S_WIDE - width) * sizeof *to);
            }
        }
    }
}

//  S_TALL rows of the left side from k on, [S_TALL, depth] with that stride: where they lie if that's possible.
static const real_t *
s_strip (const s_product_t *self, size_t row, size_t rows, size_t k, size_t depth, real_t *room,
         size_t *stride)
{
    const tl_side_t *side = &self->left;
    //  Rows that lie a multiple of 4 KiB apart would compete for the same lines of the cache.
    if (!side->transposed && s_plain (side) && rows == S_TALL && side->stride % 1024 != 0) {
        *stride = side->stride;
        return s_at (side, row, k);
    }
    *stride = S_DEEP + 2 * S_BLOCK;
    for (size_t i = 0; i < S_TALL; i++) {
        real_t *to = room + i * *stride;
        if (i >= rows)
            memset (to, 0, depth * sizeof *to);
        else if (side->transposed)
            for (size_t step = 0; step < depth; step++)
                to[step] = *s_at (side, k + step, row + i);
        else {
            const real_t *from = s_values (side, row + i, k, depth, to);
            if (from != to)
                memmove (to, from, depth * sizeof *to);
        }
    }
    return room;
}

//  to = alpha * from + beta * to + bias; with beta 0 to is not read.
static inline void
s_store_row (real_t *restrict to, const real_t *restrict from, size_t count, real_t alpha,
             real_t beta, const real_t *restrict bias)
{
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        tl_four_t sum = alpha * *(const tl_four_t *)(from + i);
        if (beta != 0)
            sum += beta * *(const tl_four_t *)(to + i);
        if (bias)
            sum += *(const tl_four_t *)(bias + i);
        *(tl_four_t *)(to + i) = sum;
    }
    for (; i < count; i++)
        to[i] = alpha * from[i] + (beta != 0 ? beta * to[i] : 0) + (bias ? bias[i] : 0);
}

static inline void
s_store_vector (real_t *restrict to, const real_t *restrict from, real_t alpha, real_t beta,
                const real_t *restrict bias)
{
    tl_vector_t sum = alpha * *(const tl_vector_t *)from;
    if (beta != 0)
        sum += beta * *(const tl_vector_t *)to;
    if (bias)
        sum += *(const tl_vector_t *)bias;
    *(tl_vector_t *)to = sum;
}

static inline void
s_store (const s_product_t *self, size_t row, size_t rows, size_t column, size_t columns,
         const real_t *tile, real_t beta, bool last)
{
    real_t *c = self->c + row * self->ldc + column;
    const real_t *bias = last && self->bias ? self->bias + column : NULL;
    if (columns < S_WIDE) {
        for (size_t i = 0; i < rows; i++)
            s_store_row (c + i * self->ldc, tile + i * S_WIDE, columns, self->alpha, beta, bias);
        return;
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t v = 0; v < S_WIDE; v += TL_LANES)
            s_store_vector (c + i * self->ldc + v, tile + i * S_WIDE + v, self->alpha, beta,
                            bias ? bias + v : NULL);
}

static inline void
s_store_turned (const s_product_t *self, size_t row, size_t rows, size_t column, size_t columns,
                const real_t *tile, real_t beta, bool last)
{
    real_t turned[S_WIDE * S_PADDED];
    for (size_t i = 0; i < S_PADDED; i += 4)
        for (size_t j = 0; j < S_WIDE; j += 4) {
            const real_t *from = tile + i * S_WIDE + j;
            const real_t *const at[4] = {from, from + S_WIDE, from + 2 * S_WIDE, from + 3 * S_WIDE};
            tl_turn_4x4 (turned + j * S_PADDED + i, S_PADDED, at);
        }
    real_t *c = self->c + column * self->ldc + row;
    const real_t *bias = last && self->bias ? self->bias + row : NULL;
    for (size_t j = 0; j < columns; j++)
        if (rows < S_TALL || beta != 0 || bias)
            s_store_row (c + j * self->ldc, turned + j * S_PADDED, rows, self->alpha, beta, bias);
        else
            s_store_row (c + j * self->ldc, turned + j * S_PADDED, S_TALL, self->alpha, 0, NULL);
}

//  A tile's place is on its way into the cache while the tile is computed.
static inline void
s_expect (const s_product_t *self, size_t row, size_t rows, size_t column, size_t columns)
{
    if (self->turned)
        for (size_t j = 0; j < columns; j++)
            __builtin_prefetch (self->c + (column + j) * self->ldc + row, 1);
    else
        for (size_t i = 0; i < rows; i++)
            for (size_t v = 0; v < TL_WIDE_VECTORS; v++)
                __builtin_prefetch (self->c + (row + i) * self->ldc + column + v * TL_LANES, 1);
}

//  Packs the right side's step.
static void
s_pack (const s_product_t *self, const tl_range_t *range, size_t k, size_t depth, real_t *packed)
{
    const tl_side_t *side = &self->right;
    size_t width = range->column_end - range->column;
    if (!side->transposed) {
        s_pack_columns (packed, side, range->column, width, k, depth);
        return;
    }
    for (size_t first = 0; first < width; first += S_WIDE) {
        size_t count = width - first < S_WIDE ? width - first : S_WIDE;
        s_pack_rows (packed + first * depth, side, range->column + first, count, k, depth);
    }
}

//  All tiles of a piece for one step of k.
static void
s_tiles (const s_product_t *self, const tl_range_t *range, size_t k, size_t depth,
         const real_t *packed)
{
    _Alignas(64) real_t room[S_TALL * (S_DEEP + 2 * S_BLOCK)], tile[S_PADDED * S_WIDE] = {0};
    real_t beta = k ? 1 : self->beta;
    bool last = k + depth == self->k;
    for (size_t row = range->row; row < range->row_end; row += S_TALL) {
        size_t rows = range->row_end - row < S_TALL ? range->row_end - row : S_TALL, stride;
        const real_t *strip = s_strip (self, row, rows, k, depth, room, &stride);
        for (size_t at = range->column; at < range->column_end; at += S_WIDE) {
            size_t columns = range->column_end - at < S_WIDE ? range->column_end - at : S_WIDE;
            s_expect (self, row, rows, at, columns);
            s_tile (tile, strip, stride, packed + (at - range->column) * depth, S_WIDE, depth);
            if (self->turned)
                s_store_turned (self, row, rows, at, columns, tile, beta, last);
            else
                s_store (self, row, rows, at, columns, tile, beta, last);
        }
    }
}

static void
s_piece (void *arg, size_t index)
{
    const s_product_t *self = arg;
    _Alignas(64) real_t packed[S_DEEP * S_ACROSS];
    tl_range_t range = tl_cut_range (&self->cut, index);
    size_t step = s_depth (self->k);
    for (size_t k = 0; k < self->k; k += step) {
        size_t depth = self->k - k < step ? self->k - k : step;
        s_pack (self, &range, k, depth, packed);
        s_tiles (self, &range, k, depth, packed);
    }
}

void
TL_KERNEL (product) (size_t m, size_t n, size_t k, double alpha, const tl_side_t *left,
                     const tl_side_t *right, double beta, real_t *c, size_t ldc, const real_t *bias)
{
    tl_assert (m > 0 && n > 0 && k > 0);
    s_product_t self = {.m = m,
                        .n = n,
                        .k = k,
                        .left = *left,
                        .right = *right,
                        .alpha = (real_t)alpha,
                        .beta = (real_t)beta,
                        .bias = bias,
                        .c = c,
                        .ldc = ldc};
    //  Few rows against a stored-as-[n, k] right side: packing the rows instead costs less, and the other
    //  side is read once. The sums are the same.
    if (right->transposed && m < 256) {
        self.turned = true;
        self.m = n;
        self.n = m;
        self.left = *right;
        self.left.transposed = false;
        self.right = *left;
        self.right.transposed = !left->transposed;
    }
    //  Pieces of whole blocks, where weights come in blocks and lie side by side
    bool plain = s_plain (&self.right) || self.right.transposed;
    self.cut = tl_cut (
        &(tl_grain_t){
            .tall = S_TALL, .wide = plain ? S_WIDE : S_GRAIN, .most = S_ACROSS, .pack_right = 2},
        self.m, self.n);
    tl_pool_run (self.cut.pieces, s_piece, &self);
}
