/*  bf16_loops: two loops over blocks of 32 x 32 results. Everything a block multiplies lies as AMX wants it: the left
    side as rows of 32 values along the sum, the right side as pairs of neighbours along the sum ("VNNI").

    forward   left is W as it is stored; right is x, converted and packed once a call; a block is y's transpose.
    backward  left is dy, converted once a call; right is 32 columns of W, two rows interleaved, packed once a call
              and column block, S_DEEP of the sum at a time.

    Column blocks are dealt to the pool's threads; each block's sums have one order, so that bits don't depend on
    who computes it. Compiled for AVX-512 and AMX: reached only where tl_bf16_name is not NULL.          */

#include "kernels/amx.h"
#include "kernels/bf16.h"
#include "kernels/pool.h"

#include <immintrin.h>
#include <string.h>

enum { S_TILE = 16, S_BLOCK = 32, S_STEP = 32, S_DEEP = 2048 };

//  c [32, 32] = left (two tiles of 16 rows, stride elements apart) times right (two packed groups of 16 columns),
//  over depth values, a multiple of 32.
typedef void (s_block_fn) (float *c, const uint16_t *const left[2], size_t stride,
                           const uint16_t *const right[2], size_t depth);

static size_t
s_up (size_t count, size_t to)
{
    return (count + to - 1) / to * to;
}

//  ---------------------------------------------------------------------------------------------
//  Blocks

static void
s_amx_block (float *c, const uint16_t *const left[2], size_t stride, const uint16_t *const right[2],
             size_t depth)
{
    _tile_zero (0);
    _tile_zero (1);
    _tile_zero (2);
    _tile_zero (3);
    for (size_t k = 0; k < depth; k += S_STEP) {
        _tile_loadd (4, left[0] + k, stride * 2);
        _tile_loadd (6, right[0] + k * S_TILE, 64);
        _tile_dpbf16ps (0, 4, 6);
        _tile_loadd (7, right[1] + k * S_TILE, 64);
        _tile_dpbf16ps (1, 4, 7);
        _tile_loadd (5, left[1] + k, stride * 2);
        _tile_dpbf16ps (2, 5, 6);
        _tile_dpbf16ps (3, 5, 7);
    }
    _tile_stored (0, c, S_BLOCK * 4);
    _tile_stored (1, c + S_TILE, S_BLOCK * 4);
    _tile_stored (2, c + S_TILE * S_BLOCK, S_BLOCK * 4);
    _tile_stored (3, c + S_TILE * S_BLOCK + S_TILE, S_BLOCK * 4);
}

//  Eight rows against both groups at a time.
static void
s_avx512_block (float *c, const uint16_t *const left[2], size_t stride,
                const uint16_t *const right[2], size_t depth)
{
    enum { ROWS = 8 };
    for (size_t row = 0; row < S_BLOCK; row += ROWS) {
        const uint16_t *from = left[row / S_TILE] + row % S_TILE * stride;
        __m512 sum[ROWS][2];
        for (size_t i = 0; i < ROWS; i++)
            sum[i][0] = sum[i][1] = _mm512_setzero_ps ();
        for (size_t k = 0; k < depth; k += 2) {
            __m512bh b0 = (__m512bh)_mm512_loadu_si512 (right[0] + k * S_TILE);
            __m512bh b1 = (__m512bh)_mm512_loadu_si512 (right[1] + k * S_TILE);
            for (size_t i = 0; i < ROWS; i++) {
                int pair;
                memcpy (&pair, from + i * stride + k, sizeof pair);
                __m512bh a = (__m512bh)_mm512_set1_epi32 (pair);
                sum[i][0] = _mm512_dpbf16_ps (sum[i][0], a, b0);
                sum[i][1] = _mm512_dpbf16_ps (sum[i][1], a, b1);
            }
        }
        for (size_t i = 0; i < ROWS; i++) {
            _mm512_storeu_ps (c + (row + i) * S_BLOCK, sum[i][0]);
            _mm512_storeu_ps (c + (row + i) * S_BLOCK + S_TILE, sum[i][1]);
        }
    }
}

static s_block_fn *
s_begin (void)
{
    if (!tl_bf16_uses_amx ())
        return s_avx512_block;
    tl_amx_begin ();
    return s_amx_block;
}

static void
s_end (void)
{
    if (tl_bf16_uses_amx ())
        tl_amx_end ();
}

//  ---------------------------------------------------------------------------------------------
//  Rearranging

static __mmask16
s_mask (size_t count)
{
    return (__mmask16)(count >= 16 ? 0xffff : (1u << count) - 1);
}

//  32 values of a row in bf16, zeros past count.
static __m512i
s_narrow (const float *from, size_t count)
{
    __m512 low = _mm512_maskz_loadu_ps (s_mask (count), from);
    __m512 high =
        count > 16 ? _mm512_maskz_loadu_ps (s_mask (count - 16), from + 16) : _mm512_setzero_ps ();
    return (__m512i)_mm512_cvtne2ps_pbh (high, low);
}

//  What the tasks of one call share.
typedef struct {
    float *y;       //  result [n, width]
    const float *x; //  [n, depth]
    const uint16_t *w;
    const float *bias;
    size_t n, in, out;
    size_t depth; //  of the sum, in multiples of 32: forward in, backward out
    float alpha, beta;
    uint16_t *packed; //  x for the blocks: forward in groups of 16 rows, backward row by row
    uint16_t *panels; //  [tasks, panel] a panel of W for each task: packed, or padded
    size_t panel, tasks;
} s_call_t;

//  forward: a group of 16 rows as pairs.
static void
s_pack_group (void *arg, size_t group)
{
    const s_call_t *self = arg;
    uint16_t *to = self->packed + group * S_TILE * self->depth;
    for (size_t k = 0; k < self->depth; k += S_STEP) {
        __m512i rows[16];
        for (size_t i = 0; i < S_TILE; i++) {
            size_t row = group * S_TILE + i;
            rows[i] = row < self->n && k < self->in
                          ? s_narrow (self->x + row * self->in + k, self->in - k)
                          : _mm512_setzero_si512 ();
        }
        tl_turn_16x16 (rows);
        for (size_t i = 0; i < S_TILE; i++)
            _mm512_storeu_si512 (to + k * S_TILE + i * S_STEP, rows[i]);
    }
}

//  backward: 16 rows as they are.
static void
s_narrow_group (void *arg, size_t group)
{
    const s_call_t *self = arg;
    for (size_t i = 0; i < S_TILE; i++) {
        size_t row = group * S_TILE + i;
        uint16_t *to = self->packed + row * self->depth;
        for (size_t k = 0; k < self->depth; k += S_STEP)
            _mm512_storeu_si512 (to + k,
                                 row < self->n && k < self->out
                                     ? s_narrow (self->x + row * self->out + k, self->out - k)
                                     : _mm512_setzero_si512 ());
    }
}

//  ---------------------------------------------------------------------------------------------
//  Forward

//  A tile of y's transpose [16 columns, 16 rows] into y.
static void
s_store_transposed (const s_call_t *self, const float *c, size_t column, size_t row)
{
    __m512i r[16];
    for (size_t i = 0; i < S_TILE; i++)
        r[i] = _mm512_loadu_si512 (c + i * S_BLOCK);
    tl_turn_16x16 (r);
    __mmask16 mask = s_mask (self->out - column);
    __m512 alpha = _mm512_set1_ps (self->alpha), beta = _mm512_set1_ps (self->beta);
    __m512 bias =
        self->bias ? _mm512_maskz_loadu_ps (mask, self->bias + column) : _mm512_setzero_ps ();
    for (size_t i = 0; i < S_TILE && row + i < self->n; i++) {
        float *to = self->y + (row + i) * self->out + column;
        __m512 sum = _mm512_fmadd_ps (alpha, (__m512)r[i], bias);
        if (self->beta != 0)
            sum = _mm512_fmadd_ps (beta, _mm512_maskz_loadu_ps (mask, to), sum);
        _mm512_mask_storeu_ps (to, mask, sum);
    }
}

//  Blocks of 32 columns that task number task of tasks computes.
static void
s_share (size_t columns, size_t task, size_t tasks, size_t *first, size_t *last)
{
    size_t blocks = s_up (columns, S_BLOCK) / S_BLOCK;
    *first = blocks * task / tasks;
    *last = blocks * (task + 1) / tasks;
}

//  32 rows of W over the whole depth: as they lie, or with zeros where W ends before a block or a step does.
static const uint16_t *
s_left (const s_call_t *self, size_t first, uint16_t *room)
{
    if (first + S_BLOCK <= self->out && self->in == self->depth)
        return self->w + first * self->in;
    memset (room, 0, S_BLOCK * self->depth * sizeof *room);
    for (size_t i = 0; i < S_BLOCK && first + i < self->out; i++)
        memcpy (room + i * self->depth, self->w + (first + i) * self->in, self->in * sizeof *room);
    return room;
}

static void
s_forward_task (void *arg, size_t task)
{
    const s_call_t *self = arg;
    _Alignas(64) float c[S_BLOCK * S_BLOCK];
    size_t first, last, group = S_TILE * self->depth;
    s_share (self->out, task, self->tasks, &first, &last);
    s_block_fn *block = s_begin ();
    for (size_t column = first * S_BLOCK; column < last * S_BLOCK; column += S_BLOCK) {
        const uint16_t *rows = s_left (self, column, self->panels + task * self->panel);
        const uint16_t *left[2] = {rows, rows + S_TILE * self->depth};
        for (size_t row = 0; row < self->n; row += S_BLOCK) {
            const uint16_t *right[2] = {self->packed + row / S_TILE * group,
                                        self->packed + (row / S_TILE + 1) * group};
            block (c, left, self->depth, right, self->depth);
            for (size_t tile = 0; tile < 4; tile++)
                if (column + tile / 2 * S_TILE < self->out)
                    s_store_transposed (self, c + tile / 2 * S_TILE * S_BLOCK + tile % 2 * S_TILE,
                                        column + tile / 2 * S_TILE, row + tile % 2 * S_TILE);
        }
    }
    s_end ();
}

//  ---------------------------------------------------------------------------------------------
//  Backward

//  Rows first .. of W, 16 columns from column on, as pairs of rows: [depth / 2, 16, 2].
static void
s_pack_panel (const s_call_t *self, size_t first, size_t depth, size_t column, uint16_t *to)
{
    if (column >= self->in) {
        memset (to, 0, depth * S_TILE * sizeof *to);
        return;
    }
    __mmask16 mask = s_mask (self->in - column);
    for (size_t k = 0; k < depth; k += 2, to += 2 * S_TILE) {
        const uint16_t *row = self->w + (first + k) * self->in + column;
        __m256i even = _mm256_setzero_si256 (), odd = even;
        if (first + k < self->out)
            even = _mm256_maskz_loadu_epi16 (mask, row);
        if (first + k + 1 < self->out)
            odd = _mm256_maskz_loadu_epi16 (mask, row + self->in);
        __m512i pairs = _mm512_or_si512 (_mm512_cvtepu16_epi32 (even),
                                         _mm512_slli_epi32 (_mm512_cvtepu16_epi32 (odd), 16));
        _mm512_storeu_si512 (to, pairs);
    }
}

//  A tile [16 rows, 16 columns] into dx; the first piece of the sum brings beta.
static void
s_store (const s_call_t *self, const float *c, size_t row, size_t column, float beta)
{
    __mmask16 mask = s_mask (self->in - column);
    __m512 alpha = _mm512_set1_ps (self->alpha), old = _mm512_set1_ps (beta);
    for (size_t i = 0; i < S_TILE && row + i < self->n; i++) {
        float *to = self->y + (row + i) * self->in + column;
        __m512 sum = _mm512_mul_ps (alpha, _mm512_load_ps (c + i * S_BLOCK));
        if (beta != 0)
            sum = _mm512_fmadd_ps (old, _mm512_maskz_loadu_ps (mask, to), sum);
        _mm512_mask_storeu_ps (to, mask, sum);
    }
}

static void
s_backward_task (void *arg, size_t task)
{
    const s_call_t *self = arg;
    _Alignas(64) float c[S_BLOCK * S_BLOCK];
    size_t first, last;
    uint16_t *panel = self->panels + task * self->panel;
    s_share (self->in, task, self->tasks, &first, &last);
    s_block_fn *block = s_begin ();
    for (size_t column = first * S_BLOCK; column < last * S_BLOCK; column += S_BLOCK)
        for (size_t from = 0; from < self->depth; from += S_DEEP) {
            size_t depth = self->depth - from < S_DEEP ? self->depth - from : S_DEEP;
            const uint16_t *right[2] = {panel, panel + depth * S_TILE};
            s_pack_panel (self, from, depth, column, panel);
            s_pack_panel (self, from, depth, column + S_TILE, panel + depth * S_TILE);
            for (size_t row = 0; row < self->n; row += S_BLOCK) {
                const uint16_t *rows = self->packed + row * self->depth + from;
                const uint16_t *left[2] = {rows, rows + S_TILE * self->depth};
                block (c, left, self->depth, right, depth);
                for (size_t tile = 0; tile < 4; tile++)
                    if (column + tile % 2 * S_TILE < self->in)
                        s_store (self, c + tile / 2 * S_TILE * S_BLOCK + tile % 2 * S_TILE,
                                 row + tile / 2 * S_TILE, column + tile % 2 * S_TILE,
                                 from ? 1 : self->beta);
            }
        }
    s_end ();
}

//  ---------------------------------------------------------------------------------------------
//  Calls

//  Values of bf16 in scratch: the rows, whole blocks of them, and a panel for each task.
static size_t
s_packed (size_t n, size_t depth)
{
    return s_up (n, S_BLOCK) * s_up (depth, S_STEP);
}

static size_t
s_panel (size_t in, size_t out)
{
    size_t forward = in % S_STEP || out % S_BLOCK ? S_BLOCK * s_up (in, S_STEP) : 0;
    size_t deep = s_up (out, S_STEP);
    size_t backward = S_BLOCK * (deep < S_DEEP ? deep : S_DEEP);
    return forward > backward ? forward : backward;
}

size_t
tl_bf16_scratch (size_t n, size_t in, size_t out)
{
    size_t values =
        s_packed (n, in > out ? in : out) + (size_t)tl_pool_threads () * s_panel (in, out);
    return values / 2 + 64;
}

static s_call_t
s_call (float *y, const float *x, const uint16_t *w, size_t n, size_t in, size_t out, size_t depth,
        double alpha, double beta, float *scratch)
{
    uint16_t *room = (uint16_t *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63);
    return (s_call_t){.y = y,
                      .x = x,
                      .w = w,
                      .n = n,
                      .in = in,
                      .out = out,
                      .depth = s_up (depth, S_STEP),
                      .alpha = (float)alpha,
                      .beta = (float)beta,
                      .packed = room,
                      .panels = room + s_packed (n, depth),
                      .panel = s_panel (in, out),
                      .tasks = (size_t)tl_pool_threads ()};
}

void
tl_bf16_forward (float *y, const float *x, const uint16_t *w, const float *bias, size_t n,
                 size_t in, size_t out, double alpha, double beta, float *scratch)
{
    s_call_t call = s_call (y, x, w, n, in, out, in, alpha, beta, scratch);
    call.bias = bias;
    tl_pool_run (s_up (n, S_BLOCK) / S_TILE, s_pack_group, &call);
    tl_pool_run (call.tasks, s_forward_task, &call);
}

void
tl_bf16_backward_input (float *dx, const float *dy, const uint16_t *w, size_t n, size_t in,
                        size_t out, double alpha, double beta, float *scratch)
{
    s_call_t call = s_call (dx, dy, w, n, in, out, out, alpha, beta, scratch);
    tl_pool_run (s_up (n, S_BLOCK) / S_TILE, s_narrow_group, &call);
    tl_pool_run (call.tasks, s_backward_task, &call);
}
