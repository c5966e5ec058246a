/*  product_amx: product.h's matrix product on AMX's tiles, which multiply bf16 and sum in fp32, as exact as in fp32.

    A real of 24 bits is the sum of three of 8: x = h + m + l, each bf16: h is x rounded, m the rest rounded, l what is
    left; nothing is lost of a value above 1e-32. Six of the nine products of two such sums are computed; the other
    three are below 2^-25 of the result, half of what rounding a product to fp32 takes away. Values in storage types of
    8 or 11 bits have one or two parts, and take three or five products. A tile adds 32 values of k at a time, so that
    it rounds less often than a loop does: the result is nearer to the exact one than product.c's.

    Both sides are packed in parts: the left one as tiles of 16 rows x 32 values along k, the right one as tiles of
    16 columns, pairs along k beside each other. A piece packs its columns for one step of k, then strip after strip of
    32 rows, each used against all its columns. Sums run in one order that depends on k alone.

    Compiled for AVX-512 and AMX: reached only where tl_bf16_uses_amx.                                        */

#include "kernels/product.h"

#include "kernels/amx.h"
#include "kernels/checked.h"
#include "kernels/cut.h"
#include "kernels/pool.h"

#include <immintrin.h>

enum {
    S_TILE = 16,    //  rows, or columns, of a tile
    S_STEP = 32,    //  values along k in a tile
    S_SIDE = 32,    //  rows and columns of a block: two tiles of each side
    S_PARTS = 3,    //  that a real has
    S_DEEP = 576,   //  values along k packed at a time
    S_SLIVERS = 10, //  of S_SIDE columns, packed at a time: with a strip they fit the second cache
    S_AHEAD = 2     //  pairs of rows that packing fetches ahead
};
enum {
    S_TILE_SIZE = S_TILE * S_STEP,
    S_PAIR_SIZE = 2 * S_TILE_SIZE,       //  both tiles of a part
    S_STEP_SIZE = S_PARTS * S_PAIR_SIZE, //  all parts of a step
    S_STRIP_SIZE = S_DEEP / S_STEP * S_STEP_SIZE,
    S_LINE = 64 / sizeof (uint16_t) //  values of a line of the cache
};

//  ---------------------------------------------------------------------------------------------
//  Blocks

//  Stored rows that are packed next: where they begin, bytes between them, how many, and in how many pairs of lines each.
typedef struct {
    const char *at;
    size_t stride, rows, pairs;
} s_stored_t;

//  c [32, 32] = a strip times a sliver. Whichever side has the rows of activations and which the weights, whose parts are
//  counted, a result's terms are added in the same order.
#define S_LOAD_LEFT(part)                                                                          \
    _tile_loadd (4, left + (part)*S_PAIR_SIZE, 64);                                                \
    _tile_loadd (5, left + (part)*S_PAIR_SIZE + S_TILE_SIZE, 64)
#define S_LOAD_RIGHT(part)                                                                         \
    _tile_loadd (6, right + (part)*S_PAIR_SIZE, 64);                                               \
    _tile_loadd (7, right + (part)*S_PAIR_SIZE + S_TILE_SIZE, 64)
#define S_MULTIPLY(soon)                                                                           \
    _tile_dpbf16ps (0, 4, 6);                                                                      \
    s_expect_lines (soon);                                                                         \
    _tile_dpbf16ps (1, 4, 7);                                                                      \
    s_expect_lines (soon + S_PAIR_SIZE / 4);                                                       \
    _tile_dpbf16ps (2, 5, 6);                                                                      \
    s_expect_lines (soon + S_PAIR_SIZE / 2);                                                       \
    _tile_dpbf16ps (3, 5, 7);                                                                      \
    s_expect_lines (soon + 3 * S_PAIR_SIZE / 4)
#define S_SUM(rows, next_rows, weights, next_weights)                                              \
    for (; steps > 0; steps--, left += S_STEP_SIZE, right += S_STEP_SIZE) {                        \
        s_expect_stored (&soon);                                                                   \
        const uint16_t *next_left = steps > 1 ? left + S_STEP_SIZE : strip;                        \
        const uint16_t *next_right = right + S_STEP_SIZE;                                          \
        weights (0);                                                                               \
        rows (2);                                                                                  \
        S_MULTIPLY (next_rows + 2 * S_PAIR_SIZE);                                                  \
        rows (1);                                                                                  \
        S_MULTIPLY (next_rows + S_PAIR_SIZE);                                                      \
        rows (0);                                                                                  \
        S_MULTIPLY (next_rows);                                                                    \
        if (parts > 2) {                                                                           \
            weights (2);                                                                           \
            S_MULTIPLY (next_weights + 2 * S_PAIR_SIZE);                                           \
        }                                                                                          \
        if (parts > 1) {                                                                           \
            weights (1);                                                                           \
            S_MULTIPLY (next_weights + S_PAIR_SIZE);                                               \
            rows (1);                                                                              \
            S_MULTIPLY (next_weights);                                                             \
        }                                                                                          \
    }

//  A quarter of a pair of tiles is on its way from the second cache into the first. A product takes as long as that does;
//  tiles that had to wait for the second cache cost a fifth of the time where a core's other hyperthread is busy.
static inline void
s_expect_lines (const uint16_t *from)
{
#pragma GCC unroll 8
    for (size_t line = 0; line < S_PAIR_SIZE / 4 / S_LINE; line++)
        _mm_prefetch (from + line * S_LINE, _MM_HINT_T0);
}

//  A pair of lines of each row is on its way into the second cache. Packing would wait for memory, where blocks don't use it.
static inline void
s_expect_stored (s_stored_t *self)
{
    if (self->pairs == 0)
        return;
    for (size_t i = 0; i < self->rows; i++) {
        _mm_prefetch (self->at + i * self->stride, _MM_HINT_T1);
        _mm_prefetch (self->at + i * self->stride + 64, _MM_HINT_T1);
    }
    self->at += 128;
    self->pairs--;
}

static inline void
s_block (float *c, const uint16_t *left, const uint16_t *right, size_t steps, s_stored_t soon,
         size_t parts, bool turned)
{
    const uint16_t *strip = left; //  whose start the next sliver needs
    _tile_zero (0);
    _tile_zero (1);
    _tile_zero (2);
    _tile_zero (3);
    if (turned)
        S_SUM (S_LOAD_RIGHT, next_right, S_LOAD_LEFT, next_left)
    else
        S_SUM (S_LOAD_LEFT, next_left, S_LOAD_RIGHT, next_right)
    _tile_stored (0, c, S_SIDE * 4);
    _tile_stored (1, c + S_TILE, S_SIDE * 4);
    _tile_stored (2, c + S_TILE * S_SIDE, S_SIDE * 4);
    _tile_stored (3, c + S_TILE * S_SIDE + S_TILE, S_SIDE * 4);
}

#define S_DEFINE_BLOCK(name, parts, turned)                                                        \
    static void name (float *c, const uint16_t *left, const uint16_t *right, size_t steps,         \
                      s_stored_t soon)                                                             \
    {                                                                                              \
        s_block (c, left, right, steps, soon, parts, turned);                                      \
    }
S_DEFINE_BLOCK (s_block_1, 1, false)
S_DEFINE_BLOCK (s_block_2, 2, false)
S_DEFINE_BLOCK (s_block_3, 3, false)
S_DEFINE_BLOCK (s_turned_1, 1, true)
S_DEFINE_BLOCK (s_turned_2, 2, true)
S_DEFINE_BLOCK (s_turned_3, 3, true)
typedef void (s_block_fn) (float *c, const uint16_t *left, const uint16_t *right, size_t steps,
                           s_stored_t soon);

//  The product as it is computed, which may be the transposed one.
typedef struct {
    size_t m, n, k;        //  c is [m, n], or [n, m] when turned
    tl_side_t left, right; //  [m, k], [k, n]
    size_t parts;          //  of the side that holds weights: left if turned
    s_block_fn *block;
    float alpha, beta;
    const float *bias; //  of the columns of what is asked for, or NULL
    float *c;
    size_t ldc;
    bool turned;
    tl_cut_t cut;
} s_product_t;

//  ---------------------------------------------------------------------------------------------
//  Packing

static __mmask16
s_mask (size_t count)
{
    return (__mmask16)(count >= 16 ? 0xffff : (1u << count) - 1);
}

//  The next part of 16 reals in the upper halves of dwords; takes it off them. The rest of a part is exact, NaN stays.
static inline __m512i
s_part (__m512 *rest)
{
    __m512i part = _mm512_and_si512 (_mm512_add_epi32 ((__m512i)*rest, _mm512_set1_epi32 (0x8000)),
                                     _mm512_set1_epi32 (-0x10000));
    *rest = _mm512_sub_ps (*rest, (__m512)part);
    return part;
}

//  16 pairs of reals as parts. Pairs are neighbours 16 apart along k: both sides have that order. The last part is what
//  is left, of no more bits than it holds.
static inline void
s_put_parts (uint16_t *to, __m512 low, __m512 high, size_t parts)
{
    for (size_t part = 0; part < parts; part++) {
        bool last = part + 1 == parts;
        __m512i first = last ? (__m512i)low : s_part (&low);
        __m512i second = last ? (__m512i)high : s_part (&high);
        //  The upper halves of both: the second one's stay, the first one's go below
        _mm512_storeu_si512 (
            to + part * S_PAIR_SIZE,
            _mm512_mask_blend_epi16 (0xaaaaaaaa, _mm512_srli_epi32 (first, 16), second));
    }
}

//  A tile's 16 rows of 16 pairs become columns.
static void
s_turn (uint16_t *tile)
{
    __m512i r[16];
    for (size_t i = 0; i < 16; i++)
        r[i] = _mm512_loadu_si512 (tile + i * S_STEP);
    tl_turn_16x16 (r);
    for (size_t i = 0; i < 16; i++)
        _mm512_storeu_si512 (tile + i * S_STEP, r[i]);
}

static void
s_turn_parts (uint16_t *to, size_t parts)
{
    for (size_t part = 0; part < parts; part++)
        s_turn (to + part * S_PAIR_SIZE);
}

enum {
    S_WIDEST = S_SLIVERS * S_SIDE,
    S_VALUES = 256
}; //  columns of a piece; the most values a block of weights has

//  count values of a stored row from column on as reals: in place or, of other types, widened into room, which holds
//  count and a block's values more on either side.
static float *
s_values (const tl_side_t *side, size_t row, size_t column, size_t count, float *room)
{
    if (side->dtype == TL_F32)
        return (float *)side->data + row * side->stride + column;
    size_t block = tl_dtype_block (side->dtype), first = column / block * block;
    size_t end = (column + count + block - 1) / block * block;
    end = end < side->stride ? end : side->stride;
    TL_KERNEL (widen)
    (room, tl_weight_at (side->data, side->dtype, row * side->stride + first), side->dtype,
     end - first);
    return room + (column - first);
}

//  The same, with zeros up to a whole step of k.
static const float *
s_run (const tl_side_t *side, size_t row, size_t k, size_t depth, float *room)
{
    float *values = s_values (side, row, k, depth, room);
    if (depth % S_STEP == 0)
        return values;
    if (side->dtype == TL_F32)
        values = memcpy (room, values, depth * sizeof *room);
    memset (values + depth, 0, (S_STEP - depth % S_STEP) * sizeof *room);
    return values;
}

//  A tile of every step: 16 stored rows along k, of which count are there. Turned, the tile's rows are pairs along k.
static void
s_pack_along (uint16_t *to, const tl_side_t *side, size_t row, size_t count, size_t k, size_t depth,
              size_t parts, bool turn)
{
    static const float zeros[S_DEEP];
    float room[S_TILE][S_DEEP + 2 * S_VALUES];
    const float *from[S_TILE];
    for (size_t i = 0; i < S_TILE; i++)
        from[i] = i < count ? s_run (side, row + i, k, depth, room[i]) : zeros;
    for (size_t step = 0; step < depth; step += S_STEP, to += S_STEP_SIZE) {
        __m512i low[S_TILE], high[S_TILE];
        for (size_t i = 0; i < S_TILE; i++) {
            low[i] = _mm512_loadu_si512 (from[i] + step);
            high[i] = _mm512_loadu_si512 (from[i] + step + 16);
        }
        if (turn) {
            tl_turn_16x16 (low);
            tl_turn_16x16 (high);
        }
        for (size_t i = 0; i < S_TILE; i++)
            s_put_parts (to + i * S_STEP, (__m512)low[i], (__m512)high[i], parts);
    }
}

//  Two stored rows, 16 apart along k, become a row of every tile of their step; either may be NULL: zeros.
static void
s_pack_across (uint16_t *to, const float *low, const float *high, size_t width, size_t parts)
{
    for (size_t at = 0; at < width; at += S_TILE) {
        __mmask16 mask = s_mask (width - at);
        s_put_parts (to + at / S_SIDE * S_STRIP_SIZE + at % S_SIDE / S_TILE * S_TILE_SIZE,
                     low ? _mm512_maskz_loadu_ps (mask, low + at) : _mm512_setzero_ps (),
                     high ? _mm512_maskz_loadu_ps (mask, high + at) : _mm512_setzero_ps (), parts);
    }
}

//  The two values along k that are a pair: of row i of all steps' tiles.
static size_t
s_step_of (size_t i, size_t half)
{
    return i / S_TILE * S_STEP + i % S_TILE + half * S_TILE;
}

//  Rows of the left side or columns of the right one, first to end, as strips. A strip's second tile that has no row is
//  left as it is: what comes of it is not stored.
static void
s_pack (uint16_t *to, const tl_side_t *side, bool right, size_t first, size_t end, size_t k,
        size_t depth, size_t parts)
{
    //  Left and not transposed, or right and transposed: k runs along the stored rows
    bool along = side->transposed == right, plain = side->dtype == TL_F32;
    size_t steps = (depth + S_STEP - 1) / S_STEP;
    for (size_t i = 0; !along && i < steps * S_TILE; i++) {
        float room[2][S_WIDEST + 2 * S_VALUES];
        const float *rows[2];
        for (size_t half = 0; half < 2; half++) {
            size_t step = s_step_of (i, half), later = s_step_of (i + S_AHEAD, half);
            rows[half] =
                step < depth ? s_values (side, k + step, first, end - first, room[half]) : NULL;
            for (size_t at = first; later < depth && plain && at < end; at += S_TILE)
                _mm_prefetch ((const float *)side->data + (k + later) * side->stride + at,
                              _MM_HINT_T0);
        }
        s_pack_across (to + i / S_TILE * S_STEP_SIZE + i % S_TILE * S_STEP, rows[0], rows[1],
                       end - first, parts);
    }
    //  The left side's tiles have rows, the right one's columns: across, a left one's is turned afterwards
    for (size_t at = first; at < end; at += S_TILE) {
        uint16_t *tile = to + (at - first) / S_SIDE * S_STRIP_SIZE +
                         (at - first) % S_SIDE / S_TILE * S_TILE_SIZE;
        if (along)
            s_pack_along (tile, side, at, end - at, k, depth, parts, right);
        else
            for (size_t step = 0; !right && step < steps; step++)
                s_turn_parts (tile + step * S_STEP_SIZE, parts);
    }
}

//  ---------------------------------------------------------------------------------------------
//  Results

//  16 results of a row of c from column on, of which count are wanted.
static inline void
s_store_row (const s_product_t *self, float *to, __m512 sum, size_t count, float beta,
             const float *bias)
{
    __mmask16 mask = s_mask (count);
    sum = _mm512_mul_ps (sum, _mm512_set1_ps (self->alpha));
    if (beta != 0)
        sum = _mm512_fmadd_ps (_mm512_set1_ps (beta), _mm512_maskz_loadu_ps (mask, to), sum);
    if (bias)
        sum = _mm512_add_ps (sum, _mm512_maskz_loadu_ps (mask, bias));
    _mm512_mask_storeu_ps (to, mask, sum);
}

//  A tile of a block into c, whose row and column it starts at.
static void
s_store_tile (const s_product_t *self, const float *tile, size_t row, size_t column, float beta,
              bool last)
{
    size_t rows = self->m - row, columns = self->n - column;
    __m512i r[16];
    for (size_t i = 0; i < S_TILE; i++)
        r[i] = _mm512_load_si512 (tile + i * S_SIDE);
    if (self->turned) {
        size_t keep = rows;
        tl_turn_16x16 (r);
        rows = columns;
        columns = keep;
        keep = row;
        row = column;
        column = keep;
    }
    const float *bias = last && self->bias ? self->bias + column : NULL;
    for (size_t i = 0; i < S_TILE && i < rows; i++)
        s_store_row (self, self->c + (row + i) * self->ldc + column, (__m512)r[i], columns, beta,
                     bias);
}

static void
s_store (const s_product_t *self, const float *c, size_t row, size_t column, float beta, bool last)
{
    for (size_t i = 0; i < S_SIDE && row + i < self->m; i += S_TILE)
        for (size_t j = 0; j < S_SIDE && column + j < self->n; j += S_TILE)
            s_store_tile (self, c + i * S_SIDE + j, row + i, column + j, beta, last);
}

//  A block's place is on its way into the cache while the block is computed.
static void
s_expect (const s_product_t *self, size_t row, size_t column)
{
    size_t rows = self->turned ? self->n - column : self->m - row;
    const float *to =
        self->turned ? self->c + column * self->ldc + row : self->c + row * self->ldc + column;
    for (size_t i = 0; i < S_SIDE && i < rows; i++, to += self->ldc) {
        __builtin_prefetch (to, 1);
        __builtin_prefetch (to + S_TILE, 1);
    }
}

//  ---------------------------------------------------------------------------------------------
//  Pieces

//  Of the left side's strip that begins at row, what is going to be read while block at of so many is computed.
static s_stored_t
s_share (const s_product_t *self, const tl_range_t *range, size_t row, size_t k, size_t depth,
         size_t at, size_t blocks)
{
    const tl_side_t *side = &self->left;
    if (row >= range->row_end || side->transposed || tl_dtype_block (side->dtype) > 1)
        return (s_stored_t){0};
    size_t rows = range->row_end - row < S_SIDE ? range->row_end - row : S_SIDE;
    size_t first = rows * at / blocks;
    return (s_stored_t){.at = (const char *)side->data +
                              tl_dtype_bytes (side->dtype, (row + first) * side->stride + k),
                        .stride = tl_dtype_bytes (side->dtype, side->stride),
                        .rows = rows * (at + 1) / blocks - first,
                        .pairs = tl_divide_up (tl_dtype_bytes (side->dtype, depth), 2 * 64)};
}

//  All blocks of a strip for one step of k.
static void
s_strip (const s_product_t *self, const tl_range_t *range, const uint16_t *left,
         const uint16_t *packed, size_t row, size_t k, size_t depth)
{
    _Alignas(64) float c[S_SIDE * S_SIDE];
    size_t steps = tl_divide_up (depth, S_STEP);
    size_t blocks = tl_divide_up (range->column_end - range->column, S_SIDE);
    for (size_t at = 0; at < blocks; at++) {
        size_t column = range->column + at * S_SIDE;
        s_expect (self, row, column);
        self->block (c, left, packed + at * S_STRIP_SIZE, steps,
                     s_share (self, range, row + S_SIDE, k, depth, at, blocks));
        s_store (self, c, row, column, k ? 1 : self->beta, k + depth == self->k);
    }
}

static void
s_piece (void *arg, size_t index)
{
    const s_product_t *self = arg;
    _Alignas(64) uint16_t packed[S_SLIVERS * S_STRIP_SIZE], left[S_STRIP_SIZE];
    tl_range_t range = tl_cut_range (&self->cut, index);
    size_t left_parts = self->turned ? self->parts : S_PARTS;
    size_t right_parts = self->turned ? S_PARTS : self->parts;
    size_t steps = tl_divide_up (self->k, S_DEEP);
    size_t most = tl_divide_up (tl_divide_up (self->k, steps), S_STEP) * S_STEP;
    tl_amx_begin ();
    for (size_t k = 0; k < self->k; k += most) {
        size_t depth = self->k - k < most ? self->k - k : most;
        s_pack (packed, &self->right, true, range.column, range.column_end, k, depth, right_parts);
        for (size_t row = range.row; row < range.row_end; row += S_SIDE) {
            size_t end = range.row_end - row < S_SIDE ? range.row_end : row + S_SIDE;
            s_pack (left, &self->left, false, row, end, k, depth, left_parts);
            s_strip (self, &range, left, packed, row, k, depth);
        }
    }
    tl_amx_end ();
}

//  Bits of a stored value, in eights.
static size_t
s_parts (tl_dtype_t dtype)
{
    return dtype == TL_BF16 ? 1 : dtype == TL_F16 ? 2 : S_PARTS;
}

void
TL_KERNEL (product_amx) (size_t m, size_t n, size_t k, double alpha, const tl_side_t *left,
                         const tl_side_t *right, double beta, float *c, size_t ldc,
                         const float *bias)
{
    tl_assert (m > 0 && n > 0 && k > 0);
    s_product_t self = {.m = m,
                        .n = n,
                        .k = k,
                        .left = *left,
                        .right = *right,
                        .parts = s_parts (right->dtype),
                        .alpha = (float)alpha,
                        .beta = (float)beta,
                        .bias = bias,
                        .c = c,
                        .ldc = ldc,
                        //  Few rows: turning results costs less than turning weights
                        .turned = right->transposed && m < 256};
    if (self.turned) {
        self.m = n;
        self.n = m;
        self.left = *right;
        self.left.transposed = false;
        self.right = *left;
        self.right.transposed = !left->transposed;
    }
    static s_block_fn *const blocks[2][S_PARTS] = {{s_block_1, s_block_2, s_block_3},
                                                   {s_turned_1, s_turned_2, s_turned_3}};
    self.block = blocks[self.turned][self.parts - 1];
    self.cut = tl_cut (
        &(tl_grain_t){
            .tall = S_SIDE, .wide = S_SIDE, .most = S_WIDEST, .pack_left = 1, .pack_right = 2},
        self.m, self.n);
    tl_pool_run (self.cut.pieces, s_piece, &self);
}
