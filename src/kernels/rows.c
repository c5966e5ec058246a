/*  rows: kernels whose rows don't depend on each other, dealt to the pool's threads in pieces of some 16 Ki values.
    The loops themselves are elsewhere (norm.c, activation.c, rope.c, vector.c, loss.c) and don't know of it;
    a row's bits are the same whoever computes it. A norm that is trained sums over all rows: one piece.  */

#include "kernels/loops.h"
#include "kernels/pool.h"

enum { S_PIECE = 1 << 14 };

//  Rows first .. first + count - 1 of a call.
typedef struct {
    size_t first, count;
} s_range_t;

//  What every call begins with.
typedef struct {
    size_t n, step; //  rows in all, in a piece
} s_rows_t;

static s_range_t
s_range (const s_rows_t *rows, size_t index)
{
    size_t first = index * rows->step, left = rows->n - first;
    return (s_range_t){first, left < rows->step ? left : rows->step};
}

//  n rows of width values; whole: they can't be cut.
static s_rows_t
s_cut (size_t n, size_t width, bool whole)
{
    size_t step = width < S_PIECE ? S_PIECE / (width ? width : 1) : 1;
    return (s_rows_t){n, whole || step > n ? n : step};
}

static void
s_run (const s_rows_t *rows, tl_pool_fn *fn, void *call)
{
    if (rows->n > 0)
        tl_pool_run ((rows->n + rows->step - 1) / rows->step, fn, call);
}

//  ---------------------------------------------------------------------------------------------
//  Norms

typedef struct {
    s_rows_t rows;
    real_t *y, *mean, *rstd; //  mean: layer norm only
    const real_t *x, *w, *b; //  b: layer norm only
    size_t h;
    double eps;
} s_norm_t;

static void
s_norm (void *arg, size_t index)
{
    const s_norm_t *c = arg;
    s_range_t r = s_range (&c->rows, index);
    size_t at = r.first * c->h;
    if (c->mean)
        TL_KERNEL (layernorm_forward_rows)
    (c->y + at, c->mean + r.first, c->rstd + r.first, c->x + at, c->w, c->b, r.count, c->h, c->eps);
    else TL_KERNEL (rmsnorm_forward_rows) (c->y + at, c->rstd + r.first, c->x + at, c->w, r.count,
                                           c->h, c->eps);
}

void
TL_KERNEL (layernorm_forward) (real_t *y, real_t *mean, real_t *rstd, const real_t *x,
                               const real_t *w, const real_t *b, size_t n, size_t h, double eps)
{
    s_norm_t call = {s_cut (n, h, false), y, mean, rstd, x, w, b, h, eps};
    s_run (&call.rows, s_norm, &call);
}

void
TL_KERNEL (rmsnorm_forward) (real_t *y, real_t *rstd, const real_t *x, const real_t *w, size_t n,
                             size_t h, double eps)
{
    s_norm_t call = {s_cut (n, h, false), y, NULL, rstd, x, w, NULL, h, eps};
    s_run (&call.rows, s_norm, &call);
}

typedef struct {
    s_rows_t rows;
    real_t *dx, *dw, *db;
    const real_t *dy, *x, *w, *mean, *rstd; //  mean: layer norm only
    size_t h;
} s_norm_back_t;

static void
s_norm_back (void *arg, size_t index)
{
    const s_norm_back_t *c = arg;
    s_range_t r = s_range (&c->rows, index);
    size_t at = r.first * c->h;
    if (c->mean)
        TL_KERNEL (layernorm_backward_rows)
    (c->dx + at, c->dw, c->db, c->dy + at, c->x + at, c->w, c->mean + r.first, c->rstd + r.first,
     r.count, c->h);
    else TL_KERNEL (rmsnorm_backward_rows) (c->dx + at, c->dw, c->dy + at, c->x + at, c->w,
                                            c->rstd + r.first, r.count, c->h);
}

void
TL_KERNEL (layernorm_backward) (real_t *dx, real_t *dw, real_t *db, const real_t *dy,
                                const real_t *x, const real_t *w, const real_t *mean,
                                const real_t *rstd, size_t n, size_t h)
{
    s_norm_back_t call = {s_cut (n, h, dw || db), dx, dw, db, dy, x, w, mean, rstd, h};
    s_run (&call.rows, s_norm_back, &call);
}

void
TL_KERNEL (rmsnorm_backward) (real_t *dx, real_t *dw, const real_t *dy, const real_t *x,
                              const real_t *w, const real_t *rstd, size_t n, size_t h)
{
    s_norm_back_t call = {s_cut (n, h, dw), dx, dw, NULL, dy, x, w, NULL, rstd, h};
    s_run (&call.rows, s_norm_back, &call);
}

//  ---------------------------------------------------------------------------------------------
//  Rotary

typedef struct {
    s_rows_t rows;
    real_t *x;
    const real_t *cosine, *sine;
    size_t stride, heads, head_stride, offset, d_rot;
    tl_rope_t style;
    int direction;
} s_rope_t;

static void
s_rope (void *arg, size_t index)
{
    const s_rope_t *c = arg;
    s_range_t r = s_range (&c->rows, index);
    size_t angles = r.first * (c->d_rot / 2);
    TL_KERNEL (rope_rows)
    (c->x + r.first * c->stride, c->cosine + angles, c->sine + angles, r.count, c->stride, c->heads,
     c->head_stride, c->offset, c->d_rot, c->style, c->direction);
}

void
TL_KERNEL (rope) (real_t *x, const real_t *cosine, const real_t *sine, size_t n, size_t stride,
                  size_t heads, size_t head_stride, size_t offset, size_t d_rot, tl_rope_t style,
                  int direction)
{
    s_rope_t call = {s_cut (n, heads * d_rot, false),
                     x,
                     cosine,
                     sine,
                     stride,
                     heads,
                     head_stride,
                     offset,
                     d_rot,
                     style,
                     direction};
    s_run (&call.rows, s_rope, &call);
}

//  ---------------------------------------------------------------------------------------------
//  Activations

typedef struct {
    s_rows_t rows;
    real_t *dgate, *dup;          //  backward
    real_t *y;                    //  forward
    const real_t *dy, *gate, *up; //  dy: backward
    size_t f, stride;
} s_swiglu_t;

static void
s_swiglu (void *arg, size_t index)
{
    const s_swiglu_t *c = arg;
    s_range_t r = s_range (&c->rows, index);
    size_t wide = r.first * c->stride, at = r.first * c->f;
    if (c->y)
        TL_KERNEL (swiglu_forward_rows)
    (c->y + at, c->gate + wide, c->up + wide, r.count, c->f, c->stride);
    else TL_KERNEL (swiglu_backward_rows) (c->dgate + wide, c->dup + wide, c->dy + at,
                                           c->gate + wide, c->up + wide, r.count, c->f, c->stride);
}

void
TL_KERNEL (swiglu_forward) (real_t *y, const real_t *gate, const real_t *up, size_t n, size_t f,
                            size_t stride)
{
    s_swiglu_t call = {s_cut (n, f, false), NULL, NULL, y, NULL, gate, up, f, stride};
    s_run (&call.rows, s_swiglu, &call);
}

void
TL_KERNEL (swiglu_backward) (real_t *dgate, real_t *dup, const real_t *dy, const real_t *gate,
                             const real_t *up, size_t n, size_t f, size_t stride)
{
    s_swiglu_t call = {s_cut (n, f, false), dgate, dup, NULL, dy, gate, up, f, stride};
    s_run (&call.rows, s_swiglu, &call);
}

//  ---------------------------------------------------------------------------------------------
//  Vectors: every value is a row

typedef enum { S_GELU, S_GELU_BACK, S_ADD, S_MULTIPLY } s_which_t;

typedef struct {
    s_rows_t rows;
    s_which_t which;
    real_t *y;
    const real_t *a, *b;
    double scale;
} s_vector_t;

static void
s_vector (void *arg, size_t index)
{
    const s_vector_t *c = arg;
    s_range_t r = s_range (&c->rows, index);
    size_t at = r.first;
    switch (c->which) {
    case S_GELU:
        TL_KERNEL (gelu_forward_rows) (c->y + at, c->a + at, r.count);
        break;
    case S_GELU_BACK:
        TL_KERNEL (gelu_backward_rows) (c->y + at, c->a + at, c->b + at, r.count);
        break;
    case S_ADD:
        TL_KERNEL (add_rows) (c->y + at, c->a + at, c->scale, r.count);
        break;
    case S_MULTIPLY:
        TL_KERNEL (multiply_rows) (c->y + at, c->a + at, c->b + at, r.count);
        break;
    }
}

void
TL_KERNEL (gelu_forward) (real_t *y, const real_t *x, size_t count)
{
    s_vector_t call = {s_cut (count, 1, false), S_GELU, y, x, NULL, 0};
    s_run (&call.rows, s_vector, &call);
}

void
TL_KERNEL (gelu_backward) (real_t *dx, const real_t *dy, const real_t *x, size_t count)
{
    s_vector_t call = {s_cut (count, 1, false), S_GELU_BACK, dx, dy, x, 0};
    s_run (&call.rows, s_vector, &call);
}

void
TL_KERNEL (add) (real_t *y, const real_t *x, double scale, size_t count)
{
    s_vector_t call = {s_cut (count, 1, false), S_ADD, y, x, NULL, scale};
    s_run (&call.rows, s_vector, &call);
}

void
TL_KERNEL (multiply) (real_t *y, const real_t *x, const real_t *keep, size_t count)
{
    s_vector_t call = {s_cut (count, 1, false), S_MULTIPLY, y, x, keep, 0};
    s_run (&call.rows, s_vector, &call);
}

//  ---------------------------------------------------------------------------------------------
//  Loss

typedef struct {
    s_rows_t rows;
    real_t *logits, *nll;
    const int32_t *targets;
    size_t vocab;
    bool gradient;
} s_loss_t;

static void
s_loss (void *arg, size_t index)
{
    const s_loss_t *c = arg;
    s_range_t r = s_range (&c->rows, index);
    TL_KERNEL (cross_entropy_rows)
    (c->logits + r.first * c->vocab, c->nll + r.first, c->targets + r.first, r.count, c->vocab,
     c->gradient);
}

void
TL_KERNEL (cross_entropy) (real_t *logits, real_t *nll, const int32_t *targets, size_t n,
                           size_t vocab, bool gradient)
{
    s_loss_t call = {s_cut (n, vocab, false), logits, nll, targets, vocab, gradient};
    s_run (&call.rows, s_loss, &call);
}
