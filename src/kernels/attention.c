/*  attention: softmax (q k^T) v of one sequence, forward and backward, a head and S_ROWS query rows at a time. Scores
    exist for those rows only; backward makes them again from lse. Columns that no row of them may see are never
    computed.

    Keys and values are packed once for all query heads that share them. Backward sums their gradients turned, as
    [d, columns], so that every product reads and writes rows. Threads share the work by key head and half: the
    even and the odd ones of the row blocks, which see about as much. A row's bits depend on what it sees alone;
    a key's gradient sums query heads and rows in one order, half by half.                                */

#include "kernels/exp.h"
#include "kernels/pool.h"
#include "kernels/sizes.h"
#include "kernels/tile.h"

enum { S_TALL = TL_NARROW_TALL, S_WIDE = TL_NARROW, S_ROWS = TL_ATTENTION_ROWS, S_HALVES = 2 };
_Static_assert(S_ROWS % S_TALL == 0, "rows are whole tiles");
_Static_assert((int)TL_ATTENTION_PAD % S_WIDE == 0 && (int)TL_ATTENTION_PAD >= (int)S_TALL,
               "scratch has room for whole slivers and tiles");

TL_DEFINE_TILE (s_tile, S_TALL, TL_NARROW_VECTORS)

//  A key head at work: keys and values in slivers of S_WIDE columns.
typedef struct {
    real_t *turned_keys;   //  keys [d, columns], sliver by sliver
    real_t *turned_values; //  values likewise; backward only
    real_t *rows;          //  [columns, d], sliver by sliver: forward values, backward keys
} s_packed_t;

//  A half of a key head's row blocks at work.
typedef struct {
    real_t *scores;            //  [S_ROWS, columns]
    real_t *slopes;            //  [S_ROWS, columns] their gradients, as all below for backward
    real_t *room;              //  [S_ROWS, d] where rows lie when they aren't whole tiles
    real_t *turned;            //  [d, S_ROWS] rows of q or do, turned; whole tiles of it are read
    real_t *d_keys, *d_values; //  [d, columns] summed by this half
} s_half_t;

//  A call, and what its pieces share.
typedef struct {
    const tl_attention_t *shape;
    size_t columns, d; //  padded to whole slivers
    size_t group;      //  query heads a key head
    bool backward;
    const real_t *q, *k, *v, *d_o;
    real_t *o, *lse; //  forward writes these, backward reads them
    real_t *dq, *dk, *dv;
    size_t kv; //  first of the key heads at work
    s_packed_t packed[TL_ATTENTION_HEADS];
    s_half_t halves[TL_ATTENTION_HEADS][S_HALVES];
} s_call_t;

static size_t
s_padded (size_t count)
{
    return (count + S_WIDE - 1) / S_WIDE * S_WIDE;
}

static real_t *
s_take (real_t **scratch, size_t count)
{
    real_t *taken = *scratch;
    *scratch += count;
    return taken;
}

//  Shares the scratch out; what forward doesn't need comes last and isn't touched.
static void
s_set_aside (s_call_t *self, real_t *scratch)
{
    const tl_attention_t *shape = self->shape;
    tl_assert (shape->columns >= shape->rows && shape->kv_heads > 0 && shape->d > 0);
    tl_assert (shape->heads % shape->kv_heads == 0);
    self->columns = s_padded (shape->columns);
    self->d = s_padded (shape->d);
    self->group = shape->heads / shape->kv_heads;
    size_t heads = tl_attention_heads_at_once (shape), matrix = self->d * self->columns;
    for (size_t i = 0; i < heads; i++) {
        self->packed[i].turned_keys = s_take (&scratch, matrix);
        self->packed[i].rows = s_take (&scratch, matrix);
        for (size_t half = 0; half < S_HALVES; half++) {
            self->halves[i][half].scores = s_take (&scratch, S_ROWS * self->columns);
            self->halves[i][half].room = s_take (&scratch, S_ROWS * self->d);
        }
    }
    for (size_t i = 0; i < heads; i++) {
        self->packed[i].turned_values = s_take (&scratch, matrix);
        for (size_t half = 0; half < S_HALVES; half++) {
            s_half_t *at = &self->halves[i][half];
            at->slopes = s_take (&scratch, S_ROWS * self->columns);
            at->turned = s_take (&scratch, S_ROWS * (self->d + TL_ATTENTION_PAD));
            at->d_keys = s_take (&scratch, matrix);
            at->d_values = s_take (&scratch, matrix);
        }
    }
}

//  ---------------------------------------------------------------------------------------------
//  Packing

//  Rows [columns, d] of a key head become slivers of S_WIDE columns, [d, S_WIDE] each. Columns beyond the last
//  repeat it: nobody reads what comes of them.
static void
s_pack_turned (const s_call_t *self, real_t *to, const real_t *from, size_t stride)
{
    size_t d = self->shape->d, last = self->shape->columns - 1;
    for (size_t row = 0; row < self->columns; row += 4) {
        const real_t *at[4];
        for (size_t i = 0; i < 4; i++)
            at[i] = from + (row + i < last ? row + i : last) * stride;
        tl_turn_rows (to + row / S_WIDE * S_WIDE * d + row % S_WIDE, S_WIDE, at, d);
    }
}

//  The same rows become slivers of S_WIDE of their values, [columns, S_WIDE] each, zero beyond d.
static void
s_pack_rows (const s_call_t *self, real_t *to, const real_t *from, size_t stride)
{
    size_t d = self->shape->d;
    for (size_t first = 0; first < d; first += S_WIDE) {
        size_t width = d - first < S_WIDE ? d - first : S_WIDE;
        for (size_t row = 0; row < self->shape->columns; row++) {
            real_t *at = to + first * self->columns + row * S_WIDE;
            memcpy (at, from + row * stride + first, width * sizeof *at);
            memset (at + width, 0, (S_WIDE - width) * sizeof *at);
        }
    }
}

static void
s_pack (void *arg, size_t index)
{
    const s_call_t *self = arg;
    const tl_attention_t *shape = self->shape;
    const s_packed_t *packed = &self->packed[index];
    const real_t *k = self->k + (self->kv + index) * shape->k_head;
    const real_t *v = self->v + (self->kv + index) * shape->v_head;
    s_pack_turned (self, packed->turned_keys, k, shape->k_stride);
    if (self->backward) {
        s_pack_turned (self, packed->turned_values, v, shape->v_stride);
        s_pack_rows (self, packed->rows, k, shape->k_stride);
    } else
        s_pack_rows (self, packed->rows, v, shape->v_stride);
}

//  ---------------------------------------------------------------------------------------------
//  Products

//  c [rows, columns] = alpha * a b (+ c when adding) over depth. a: rows up to a whole tile can be read. b: slivers of
//  S_WIDE columns, sliver elements apart, its rows b_stride apart.
static void
s_multiply (real_t *c, size_t c_stride, const real_t *a, size_t a_stride, const real_t *b,
            size_t b_stride, size_t sliver, size_t rows, size_t columns, size_t depth, real_t alpha,
            bool adding)
{
    _Alignas(64) real_t tile[S_TALL * S_WIDE];
    for (size_t column = 0; column < columns; column += S_WIDE)
        for (size_t row = 0; row < rows; row += S_TALL) {
            size_t tall = rows - row < S_TALL ? rows - row : S_TALL;
            size_t wide = columns - column < S_WIDE ? columns - column : S_WIDE;
            s_tile (tile, a + row * a_stride, a_stride, b + column / S_WIDE * sliver, b_stride,
                    depth);
            for (size_t i = 0; i < tall; i++) {
                real_t *restrict to = c + (row + i) * c_stride + column;
                const real_t *restrict from = tile + i * S_WIDE;
                if (adding)
                    for (size_t j = 0; j < wide; j++)
                        to[j] += alpha * from[j];
                else
                    for (size_t j = 0; j < wide; j++)
                        to[j] = alpha * from[j];
            }
        }
}

//  to [rows, seen] = alpha * a [rows, d] times turned keys or values; whole slivers are written.
static void
s_against (const s_call_t *self, const s_half_t *half, real_t *to, const real_t *a, size_t stride,
           const real_t *turned, size_t rows, size_t seen, real_t alpha)
{
    size_t d = self->shape->d;
    if (rows % S_TALL) {
        for (size_t row = 0; row < rows; row++)
            memcpy (half->room + row * self->d, a + row * stride, d * sizeof *a);
        a = half->room;
        stride = self->d;
    }
    s_multiply (to, self->columns, a, stride, turned, S_WIDE, S_WIDE * d, rows, s_padded (seen), d,
                alpha, false);
}

//  to [rows, d] = alpha * weights [rows, seen] times packed rows.
static void
s_mix (const s_call_t *self, real_t *to, size_t stride, const real_t *weights,
       const real_t *rows_of, size_t rows, size_t seen, real_t alpha, bool adding)
{
    s_multiply (to, stride, weights, self->columns, rows_of, S_WIDE, S_WIDE * self->columns, rows,
                self->shape->d, seen, alpha, adding);
}

//  to [d, columns] += alpha * rows [rows, d] turned, times weights [rows, seen].
static void
s_gather (const s_call_t *self, const s_half_t *half, real_t *to, const real_t *from, size_t stride,
          const real_t *weights, size_t rows, size_t seen, real_t alpha)
{
    for (size_t row = 0; row < rows; row += 4) {
        const real_t *at[4];
        for (size_t i = 0; i < 4;
             i++) //  beyond the last row anything will do: no sum goes that far
            at[i] = from + (row + i < rows ? row + i : row) * stride;
        tl_turn_rows (half->turned + row, S_ROWS, at, self->shape->d);
    }
    s_multiply (to, self->columns, half->turned, S_ROWS, weights, self->columns, S_WIDE,
                self->shape->d, s_padded (seen), rows, alpha, true);
}

//  ---------------------------------------------------------------------------------------------
//  Forward

double
TL_KERNEL (softmax_row) (real_t *x, size_t count, real_t *maximum)
{
    real_t most = tl_maximum (x, count);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) {
        real_t e = tl_exp (x[i] - most);
        x[i] = e;
        sum += e;
    }
    *maximum = most;
    return sum;
}

//  Rows first .. first + rows - 1 of a query head.
static void
s_forward (const s_call_t *self, const s_packed_t *packed, const s_half_t *half, size_t head,
           size_t first, size_t rows)
{
    const tl_attention_t *shape = self->shape;
    size_t seen = tl_visible (shape, first + rows - 1);
    real_t *o = self->o + head * shape->d + first * shape->o_stride;
    real_t *lse = self->lse + head * shape->rows + first, inverse[S_ROWS];
    const real_t *q = self->q + head * shape->q_head + first * shape->q_stride;
    s_against (self, half, half->scores, q, shape->q_stride, packed->turned_keys, rows, seen,
               (real_t)shape->scale);
    for (size_t row = 0; row < rows; row++) {
        real_t *line = half->scores + row * self->columns, most;
        size_t mine = tl_visible (shape, first + row);
        double sum = TL_KERNEL (softmax_row) (line, mine, &most);
        memset (line + mine, 0, (seen - mine) * sizeof *line);
        lse[row] = (real_t)((double)most + log (sum));
        inverse[row] = (real_t)(1 / sum);
    }
    s_mix (self, o, shape->o_stride, half->scores, packed->rows, rows, seen, 1, false);
    //  Dividing d outputs is less work than dividing the row's probabilities.
    for (size_t row = 0; row < rows; row++) {
        real_t *restrict out = o + row * shape->o_stride;
#pragma omp simd
        for (size_t i = 0; i < shape->d; i++)
            out[i] *= inverse[row];
    }
}

//  ---------------------------------------------------------------------------------------------
//  Backward

//  Scores become probabilities; slopes, their gradients, become gradients of the scores:
//  p * (slope - sum (do * o)).
static void
s_slopes (const s_call_t *self, const s_half_t *half, const real_t *d_o, const real_t *o,
          const real_t *lse, size_t first, size_t rows)
{
    const tl_attention_t *shape = self->shape;
    size_t end = s_padded (tl_visible (shape, first + rows - 1));
    for (size_t row = 0; row < rows; row++) {
        const real_t *up = d_o + row * shape->o_stride, *out = o + row * shape->o_stride;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < shape->d; i++)
            sum += up[i] * out[i];
        real_t *restrict line = half->scores + row * self->columns;
        real_t *restrict slope = half->slopes + row * self->columns;
        real_t base = lse[row], centre = (real_t)sum;
        size_t mine = tl_visible (shape, first + row);
#pragma omp simd
        for (size_t i = 0; i < mine; i++) {
            real_t e = tl_exp (line[i] - base);
            line[i] = e;
            slope[i] = e * (slope[i] - centre);
        }
        memset (line + mine, 0, (end - mine) * sizeof *line);
        memset (slope + mine, 0, (end - mine) * sizeof *slope);
    }
}

static void
s_backward (const s_call_t *self, const s_packed_t *packed, const s_half_t *half, size_t head,
            size_t first, size_t rows)
{
    const tl_attention_t *shape = self->shape;
    size_t seen = tl_visible (shape, first + rows - 1);
    size_t at_q = head * shape->q_head + first * shape->q_stride;
    size_t at_o = head * shape->d + first * shape->o_stride;
    const real_t *q = self->q + at_q, *d_o = self->d_o + at_o;
    real_t scale = (real_t)shape->scale;
    s_against (self, half, half->scores, q, shape->q_stride, packed->turned_keys, rows, seen,
               scale);
    s_against (self, half, half->slopes, d_o, shape->o_stride, packed->turned_values, rows, seen,
               1);
    s_slopes (self, half, d_o, self->o + at_o, self->lse + head * shape->rows + first, first, rows);
    s_mix (self, self->dq + at_q, shape->q_stride, half->slopes, packed->rows, rows, seen, scale,
           true);
    s_gather (self, half, half->d_keys, q, shape->q_stride, half->slopes, rows, seen, scale);
    s_gather (self, half, half->d_values, d_o, shape->o_stride, half->scores, rows, seen, 1);
}

//  to [columns, d] += both halves' sums [d, columns] turned.
static void
s_add_turned (const s_call_t *self, real_t *to, size_t stride, const real_t *even,
              const real_t *odd)
{
    for (size_t column = 0; column < self->shape->columns; column++)
        for (size_t i = 0; i < self->shape->d; i++) {
            size_t at = i * self->columns + column;
            to[column * stride + i] += even[at] + odd[at];
        }
}

static void
s_add_halves (void *arg, size_t index)
{
    const s_call_t *self = arg;
    const tl_attention_t *shape = self->shape;
    const s_half_t *even = &self->halves[index][0], *odd = &self->halves[index][1];
    size_t kv = self->kv + index;
    s_add_turned (self, self->dk + kv * shape->k_head, shape->k_stride, even->d_keys, odd->d_keys);
    s_add_turned (self, self->dv + kv * shape->v_head, shape->v_stride, even->d_values,
                  odd->d_values);
}

//  ---------------------------------------------------------------------------------------------
//  All heads

static void
s_half (void *arg, size_t index)
{
    const s_call_t *self = arg;
    size_t at = index / S_HALVES, which = index % S_HALVES, rows = self->shape->rows;
    const s_half_t *half = &self->halves[at][which];
    if (self->backward) {
        memset (half->d_keys, 0, self->d * self->columns * sizeof (real_t));
        memset (half->d_values, 0, self->d * self->columns * sizeof (real_t));
    }
    size_t begin = (self->kv + at) * self->group;
    for (size_t head = begin; head < begin + self->group; head++)
        for (size_t first = which * S_ROWS; first < rows; first += S_HALVES * S_ROWS)
            (self->backward ? s_backward : s_forward) (self, &self->packed[at], half, head, first,
                                                       rows - first < S_ROWS ? rows - first
                                                                             : S_ROWS);
}

static void
s_run (s_call_t *self, real_t *scratch)
{
    s_set_aside (self, scratch);
    size_t at_once = tl_attention_heads_at_once (self->shape), kv_heads = self->shape->kv_heads;
    for (; self->kv < kv_heads; self->kv += at_once) {
        size_t heads = kv_heads - self->kv < at_once ? kv_heads - self->kv : at_once;
        tl_pool_run (heads, s_pack, self);
        tl_pool_run (heads * S_HALVES, s_half, self);
        if (self->backward)
            tl_pool_run (heads, s_add_halves, self);
    }
}

void
TL_KERNEL (attention_forward) (real_t *o, real_t *lse, const real_t *q, const real_t *k,
                               const real_t *v, const tl_attention_t *shape, real_t *scratch)
{
    if (shape->rows <= TL_FEW_ROWS) {
        TL_KERNEL (attention_few_rows) (o, lse, q, k, v, shape, scratch);
        return;
    }
    s_call_t call = {.shape = shape, .q = q, .k = k, .v = v, .o = o, .lse = lse};
    s_run (&call, scratch);
}

void
TL_KERNEL (attention_backward) (real_t *dq, real_t *dk, real_t *dv, const real_t *d_o,
                                const real_t *q, const real_t *k, const real_t *v, const real_t *o,
                                const real_t *lse, const tl_attention_t *shape, real_t *scratch)
{
    s_call_t call = {.shape = shape,
                     .backward = true,
                     .q = q,
                     .k = k,
                     .v = v,
                     .d_o = d_o,
                     .o = (real_t *)o,
                     .lse = (real_t *)lse,
                     .dq = dq,
                     .dk = dk,
                     .dv = dv};
    s_run (&call, scratch);
}
