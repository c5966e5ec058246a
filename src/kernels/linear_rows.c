/*  linear_rows: y = x W^T for the few rows of decoding. There every weight is used once or a few
    times, so reading it is the whole cost: it's read once, in its stored precision, by all threads.   */

#include "kernels/loops.h"
#include "kernels/pool.h"

enum { S_BLOCK = 1024 }; //  widened weights at a time, in the first-level cache

//  A call; its pieces are runs of output columns.
typedef struct {
    real_t *y;
    const real_t *x;
    const void *w;
    tl_dtype_t dtype;
    const real_t *bias;
    size_t n, in, out, step; //  step: columns of a piece
    real_t alpha, beta_y;
} s_call_t;

//  Partial sums of n rows of x against one block of weights, added to sums.
static inline void
s_dots (real_t *restrict sums, const real_t *restrict x, const real_t *restrict w, size_t n,
        size_t stride, size_t count)
{
    for (size_t row = 0; row < n; row++) {
        const real_t *restrict from = x + row * stride;
        real_t sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < count; i++)
            sum += from[i] * w[i];
        sums[row] += sum;
    }
}

//  Weights that are used in S_AHEAD bytes are on their way: where a row begins, scales are looked at all over it, and nothing else is
//  left to do until they are there.
static inline void
s_fetch (const s_call_t *self, size_t column)
{
    enum { S_AHEAD = 2048, S_LINE = 64 };
    size_t bytes = tl_dtype_bytes (self->dtype, self->in);
    const char *row = (const char *)self->w + column * bytes + S_AHEAD;
    for (size_t at = 0; at < bytes; at += S_LINE)
        __builtin_prefetch (row + at);
}

//  sums [n] of any type.
static void
s_sums (const s_call_t *self, size_t column, real_t *sums)
{
    bool plain = sizeof (real_t) == sizeof (double) || self->dtype == TL_F32;
    real_t widened[S_BLOCK];
    for (size_t first = 0; first < self->in; first += S_BLOCK) {
        size_t count = self->in - first < S_BLOCK ? self->in - first : S_BLOCK;
        const void *stored = tl_weight_at (self->w, self->dtype, column * self->in + first);
        if (!plain)
            TL_KERNEL (widen) (widened, stored, self->dtype, count);
        s_dots (sums, self->x + first, plain ? stored : widened, self->n, self->in, count);
    }
}

#ifdef TL_IN_DOUBLE

static bool
s_quantised_sums (const s_call_t *self, size_t column, real_t *sums)
{
    return false;
}

#else

//  Sums that grow as values come. One row has two sums, so that additions don't wait for each other.
typedef struct {
    const float *x;       //  where the values are to be multiplied
    size_t n, stride;     //  rows of x
    struct s_part *parts; //  [n or 2] sums
} s_sink_t;

#include "kernels/unpack.h"

struct s_part {
    tl_sixteen_t sum;
};

static TL_INLINE void
s_take (s_sink_t *sink, size_t place, tl_sixteen_t values)
{
    for (size_t row = 0; row < sink->n; row++) {
        tl_sixteen_t *sum = &sink->parts[sink->n == 1 ? place : row].sum;
        for (size_t i = 0; i < TL_PARTS; i++) {
            const float *x = sink->x + row * sink->stride + i * TL_PART;
            sum->part[i] += values.part[i] * *(const tl_loose_t *)x;
        }
    }
    sink->x += 16;
}

//  dtype and n are constants after inlining.
static TL_INLINE void
s_sums_of (const s_call_t *self, size_t column, tl_dtype_t dtype, size_t n, real_t *sums)
{
    struct s_part parts[TL_FEW_ROWS] = {0};
    s_sink_t sink = {self->x, n, self->in, parts};
    tl_unpack (&sink, tl_weight_at (self->w, dtype, column * self->in), dtype,
               self->in / tl_dtype_block (dtype));
    if (n == 1)
        for (size_t i = 0; i < TL_PARTS; i++)
            parts[0].sum.part[i] = parts[0].sum.part[i] + parts[1].sum.part[i];
    for (size_t row = 0; row < n; row++)
        sums[row] = tl_sum (parts[row].sum);
}

//  sums [n] of a quantised type, without a detour through memory.
static TL_INLINE void
s_block_sums (const s_call_t *self, size_t column, tl_dtype_t dtype, real_t *sums)
{
    _Static_assert(TL_FEW_ROWS == 4, "a case for each number of rows");
    switch (self->n) {
    case 1:
        s_sums_of (self, column, dtype, 1, sums);
        break;
    case 2:
        s_sums_of (self, column, dtype, 2, sums);
        break;
    case 3:
        s_sums_of (self, column, dtype, 3, sums);
        break;
    default:
        s_sums_of (self, column, dtype, 4, sums);
    }
}

//  False: not a quantised type.
static bool
s_quantised_sums (const s_call_t *self, size_t column, real_t *sums)
{
    switch (self->dtype) {
    case TL_Q8_0:
        s_block_sums (self, column, TL_Q8_0, sums);
        return true;
    case TL_Q4_0:
        s_block_sums (self, column, TL_Q4_0, sums);
        return true;
    case TL_Q4_1:
        s_block_sums (self, column, TL_Q4_1, sums);
        return true;
    case TL_Q4_K:
        s_block_sums (self, column, TL_Q4_K, sums);
        return true;
    case TL_Q5_K:
        s_block_sums (self, column, TL_Q5_K, sums);
        return true;
    case TL_Q6_K:
        s_block_sums (self, column, TL_Q6_K, sums);
        return true;
    default:
        return false;
    }
}

#endif

static void
s_column (const s_call_t *self, size_t column)
{
    real_t sums[TL_FEW_ROWS] = {0};
    s_fetch (self, column);
    if (!s_quantised_sums (self, column, sums))
        s_sums (self, column, sums);
    for (size_t row = 0; row < self->n; row++) {
        real_t *to = &self->y[row * self->out + column];
        *to = self->alpha * sums[row] + (self->beta_y != 0 ? self->beta_y * *to : 0) +
              (self->bias ? self->bias[column] : 0);
    }
}

static void
s_piece (void *arg, size_t index)
{
    const s_call_t *self = arg;
    size_t first = index * self->step, left = self->out - first;
    size_t end = first + (left < self->step ? left : self->step);
    for (size_t column = first; column < end; column++)
        s_column (self, column);
}

void
TL_KERNEL (linear_few_rows) (real_t *y, const real_t *x, const void *w, tl_dtype_t dtype,
                             const real_t *bias, size_t n, size_t in, size_t out, real_t alpha,
                             real_t beta_y)
{
    enum { S_PIECE = 1 << 16 }; //  weights: some 10 us of work
    s_call_t call = {.y = y,
                     .x = x,
                     .w = w,
                     .dtype = dtype,
                     .bias = bias,
                     .n = n,
                     .in = in,
                     .out = out,
                     .step = S_PIECE / in + 1,
                     .alpha = alpha,
                     .beta_y = beta_y};
    tl_pool_run ((out + call.step - 1) / call.step, s_piece, &call);
}
