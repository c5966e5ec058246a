//  Every backward against central differences of its forward, in the double build. A check perturbs
//  each element of each input in turn; limit: 1e-6 of the gradient's largest value.

#include "unit/kernels_support.h"

typedef const tl_kernels_f64_t s_kernels_t;

//  A scalar function of buffers held by context, and where it may be perturbed.
typedef double (s_value_t) (void *context);

static void
s_check (const char *what, s_value_t *value, void *context, double *x, const double *gradient,
         size_t count)
{
    double *drawn = tests_new_f64 (count, 1, 1);
    const double step = 1e-5;
    for (size_t i = 0; i < count; i++) {
        double kept = x[i];
        x[i] = kept + step;
        double above = value (context);
        x[i] = kept - step;
        double below = value (context);
        x[i] = kept;
        drawn[i] = (above - below) / (2 * step);
    }
    tests_close_f64 (what, gradient, drawn, count, 1e-6);
    free (drawn);
}

static double
s_dot (const double *a, const double *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

//  --- norms

enum { N = 5, H = 7 };

typedef struct {
    double x[N * H], w[H], b[H], up[N * H]; //  up: weights of the outputs in the value
    double y[N * H], mean[N], rstd[N];
} s_norm_t;

static double
s_layernorm_value (void *context)
{
    s_norm_t *c = context;
    tl_kernels_f64 ()->layernorm_forward (c->y, c->mean, c->rstd, c->x, c->w, c->b, N, H, 1e-5);
    return s_dot (c->y, c->up, N * H);
}

static double
s_rmsnorm_value (void *context)
{
    s_norm_t *c = context;
    tl_kernels_f64 ()->rmsnorm_forward (c->y, c->rstd, c->x, c->w, N, H, 1e-5);
    return s_dot (c->y, c->up, N * H);
}

static s_norm_t
s_norm_new (void)
{
    s_norm_t c;
    tests_fill_f64 (c.x, N * H, 1, 2);
    tests_fill_f64 (c.w, H, 2, 1);
    tests_fill_f64 (c.b, H, 3, 1);
    tests_fill_f64 (c.up, N * H, 4, 1);
    return c;
}

static void
test_layernorm (void **state)
{
    s_norm_t c = s_norm_new ();
    double dx[N * H], dw[H] = {0}, db[H] = {0};
    s_layernorm_value (&c);
    tl_kernels_f64 ()->layernorm_backward (dx, dw, db, c.up, c.x, c.w, c.mean, c.rstd, N, H);
    s_check ("layernorm dx", s_layernorm_value, &c, c.x, dx, N * H);
    s_check ("layernorm dw", s_layernorm_value, &c, c.w, dw, H);
    s_check ("layernorm db", s_layernorm_value, &c, c.b, db, H);
}

static void
test_rmsnorm (void **state)
{
    s_norm_t c = s_norm_new ();
    double dx[N * H], dw[H] = {0};
    s_rmsnorm_value (&c);
    tl_kernels_f64 ()->rmsnorm_backward (dx, dw, c.up, c.x, c.w, c.rstd, N, H);
    s_check ("rmsnorm dx", s_rmsnorm_value, &c, c.x, dx, N * H);
    s_check ("rmsnorm dw", s_rmsnorm_value, &c, c.w, dw, H);
}

static void
test_norms_add_to_parameters_and_skip_frozen_ones (void **state)
{
    s_norm_t c = s_norm_new ();
    s_kernels_t *k = tl_kernels_f64 ();
    double dx[N * H], again[N * H], once[H] = {0}, twice[H] = {0}, db[H] = {0};
    s_layernorm_value (&c);
    k->layernorm_backward (dx, once, db, c.up, c.x, c.w, c.mean, c.rstd, N, H);
    k->layernorm_backward (dx, twice, NULL, c.up, c.x, c.w, c.mean, c.rstd, N, H);
    k->layernorm_backward (again, twice, NULL, c.up, c.x, c.w, c.mean, c.rstd, N, H);
    for (size_t i = 0; i < H; i++)
        assert_true (fabs (twice[i] - 2 * once[i]) < 1e-12);
    k->layernorm_backward (again, NULL, NULL, c.up, c.x, c.w, c.mean, c.rstd, N, H);
    assert_memory_equal (dx, again, sizeof dx);
    //  In place, as a model may call it.
    memcpy (again, c.up, sizeof again);
    k->layernorm_backward (again, NULL, NULL, again, c.x, c.w, c.mean, c.rstd, N, H);
    assert_memory_equal (dx, again, sizeof dx);
}

//  --- linear and embedding

enum { ROWS = 6, IN = 5, OUT = 4, VOCAB = 9 };

typedef struct {
    double x[ROWS * IN], w[OUT * IN], bias[OUT], up[ROWS * OUT], y[ROWS * OUT];
    size_t rows;
} s_linear_t;

static double
s_linear_value (void *context)
{
    s_linear_t *c = context;
    tl_kernels_f64 ()->linear_forward (c->y, c->x, c->w, TL_BF16, c->bias, c->rows, IN, OUT, 0.75,
                                       0);
    return s_dot (c->y, c->up, c->rows * OUT);
}

static void
test_linear (void **state)
{
    //  The dtype says bf16; in double it's ignored. One row takes another path than six.
    for (size_t rows = 1; rows <= ROWS; rows += ROWS - 1) {
        s_linear_t c = {.rows = rows};
        double dx[ROWS * IN], dw[OUT * IN] = {0}, db[OUT] = {0};
        tests_fill_f64 (c.x, ROWS * IN, 1, 1);
        tests_fill_f64 (c.w, OUT * IN, 2, 1);
        tests_fill_f64 (c.bias, OUT, 3, 1);
        tests_fill_f64 (c.up, ROWS * OUT, 4, 1);
        s_kernels_t *k = tl_kernels_f64 ();
        k->linear_backward_input (dx, c.up, c.w, TL_BF16, rows, IN, OUT, 0.75, 0);
        k->linear_backward_weight (dw, db, c.up, c.x, rows, IN, OUT, 0.75);
        s_check ("linear dx", s_linear_value, &c, c.x, dx, rows * IN);
        s_check ("linear dw", s_linear_value, &c, c.w, dw, OUT * IN);
        s_check ("linear db", s_linear_value, &c, c.bias, db, OUT);
    }
}

typedef struct {
    double table[VOCAB * H], up[N * H], y[N * H];
} s_embedding_t;

static const int32_t s_ids[N] = {3, 0, 8, 3, 3};

static double
s_embedding_value (void *context)
{
    s_embedding_t *c = context;
    tl_kernels_f64 ()->embedding_forward (c->y, c->table, TL_F16, s_ids, N, H);
    return s_dot (c->y, c->up, N * H);
}

static void
test_embedding (void **state)
{
    s_embedding_t c;
    double dtable[VOCAB * H] = {0};
    tests_fill_f64 (c.table, VOCAB * H, 1, 1);
    tests_fill_f64 (c.up, N * H, 2, 1);
    tl_kernels_f64 ()->embedding_backward (dtable, c.up, s_ids, N, H);
    s_check ("embedding", s_embedding_value, &c, c.table, dtable, VOCAB * H);
}

//  --- rotary: two heads of 10 in rows of 23, values 1..8 of each head turned

enum { STRIDE = 23, HEADS = 2, HEAD = 10, OFFSET = 1, TURNED = 8 };

typedef struct {
    double x[N * STRIDE], cosine[N * TURNED / 2], sine[N * TURNED / 2], up[N * STRIDE];
    tl_rope_t style;
} s_rope_t;

static double
s_rope_value (void *context)
{
    s_rope_t *c = context;
    double y[N * STRIDE];
    memcpy (y, c->x, sizeof y);
    tl_kernels_f64 ()->rope (y, c->cosine, c->sine, N, STRIDE, HEADS, HEAD, OFFSET, TURNED,
                             c->style, 1);
    return s_dot (y, c->up, N * STRIDE);
}

static void
test_rope (void **state)
{
    for (tl_rope_t style = TL_ROPE_HALF; style <= TL_ROPE_INTERLEAVED; style++) {
        s_rope_t c = {.style = style};
        double dx[N * STRIDE], back[N * STRIDE];
        tests_fill_f64 (c.x, N * STRIDE, 1, 1);
        tests_fill_f64 (c.up, N * STRIDE, 2, 1);
        for (size_t i = 0; i < N * TURNED / 2; i++) {
            c.cosine[i] = cos ((double)i);
            c.sine[i] = sin ((double)i);
        }
        memcpy (dx, c.up, sizeof dx);
        s_kernels_t *k = tl_kernels_f64 ();
        k->rope (dx, c.cosine, c.sine, N, STRIDE, HEADS, HEAD, OFFSET, TURNED, style, -1);
        s_check ("rope", s_rope_value, &c, c.x, dx, N * STRIDE);
        //  Forward and back is where it began, and what isn't turned stays.
        memcpy (back, c.x, sizeof back);
        k->rope (back, c.cosine, c.sine, N, STRIDE, HEADS, HEAD, OFFSET, TURNED, style, 1);
        assert_true (back[0] == c.x[0] && back[OFFSET + TURNED] == c.x[OFFSET + TURNED]);
        k->rope (back, c.cosine, c.sine, N, STRIDE, HEADS, HEAD, OFFSET, TURNED, style, -1);
        tests_close_f64 ("rope there and back", back, c.x, N * STRIDE, 1e-14);
    }
}

static void
test_rope_pairs (void **state)
{
    //  A quarter turn: (a, b) becomes (-b, a) in the pairs that the style names.
    double half[4] = {1, 2, 3, 4}, near[4] = {1, 2, 3, 4}, zero[2] = {0, 0}, one[2] = {1, 1};
    tl_kernels_f64 ()->rope (half, zero, one, 1, 4, 1, 4, 0, 4, TL_ROPE_HALF, 1);
    tl_kernels_f64 ()->rope (near, zero, one, 1, 4, 1, 4, 0, 4, TL_ROPE_INTERLEAVED, 1);
    assert_true (half[0] == -3 && half[1] == -4 && half[2] == 1 && half[3] == 2);
    assert_true (near[0] == -2 && near[1] == 1 && near[2] == -4 && near[3] == 3);
}

//  --- attention

enum { MOST = 200 * 3 * 4 * 4 };

typedef struct {
    tl_attention_t shape;
    double q[MOST], k[MOST], v[MOST], up[MOST], o[MOST], lse[MOST], *scratch;
} s_attention_t;

static double
s_attention_value (void *context)
{
    s_attention_t *c = context;
    tl_kernels_f64 ()->attention_forward (c->o, c->lse, c->q, c->k, c->v, &c->shape, c->scratch);
    return s_dot (c->o, c->up, c->shape.rows * c->shape.o_stride);
}

static void
test_attention (void **state)
{
    //  rows, columns, heads, kv heads, d, context
    static const size_t cases[][6] = {{6, 6, 2, 2, 4, 0}, {7, 7, 4, 2, 3, 4},
                                      {5, 9, 2, 1, 4, 6}, {2, 5, 2, 2, 4, 0},
                                      {1, 6, 4, 2, 4, 0}, {140, 140, 1, 1, 2, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static s_attention_t c;
        const size_t *n = cases[i], d = n[4];
        c.shape =
            (tl_attention_t){n[0],     n[1],     n[2], n[3], d, n[2] * d, n[3] * d,
                             n[3] * d, n[2] * d, d,    d,    d, n[5],     1 / sqrt ((double)d)};
        c.scratch = tests_new_f64 (tl_attention_scratch (&c.shape, true), 1, 1);
        tests_fill_f64 (c.q, MOST, 1, 1);
        tests_fill_f64 (c.k, MOST, 2, 1);
        tests_fill_f64 (c.v, MOST, 3, 1);
        tests_fill_f64 (c.up, MOST, 4, 1);
        size_t queries = n[0] * n[2] * d, keys = n[1] * n[3] * d;
        double *dq = tl_alloc (queries * sizeof *dq), *dk = tl_alloc (keys * sizeof *dk);
        double *dv = tl_alloc (keys * sizeof *dv);
        s_attention_value (&c);
        tl_kernels_f64 ()->attention_backward (dq, dk, dv, c.up, c.q, c.k, c.v, c.o, c.lse,
                                               &c.shape, c.scratch);
        s_check ("attention dq", s_attention_value, &c, c.q, dq, queries);
        s_check ("attention dk", s_attention_value, &c, c.k, dk, keys);
        s_check ("attention dv", s_attention_value, &c, c.v, dv, keys);
        free (dq), free (dk), free (dv), free (c.scratch);
    }
}

//  --- activations

enum { COUNT = 41, F = 6, WIDE = 15 };

typedef struct {
    double x[COUNT], up[COUNT], y[COUNT];
} s_gelu_t;

static double
s_gelu_value (void *context)
{
    s_gelu_t *c = context;
    tl_kernels_f64 ()->gelu_forward (c->y, c->x, COUNT);
    return s_dot (c->y, c->up, COUNT);
}

static void
test_gelu (void **state)
{
    s_gelu_t c;
    double dx[COUNT];
    tests_fill_f64 (c.x, COUNT, 1, 2);
    tests_fill_f64 (c.up, COUNT, 2, 1);
    tl_kernels_f64 ()->gelu_backward (dx, c.up, c.x, COUNT);
    s_check ("gelu", s_gelu_value, &c, c.x, dx, COUNT);
    //  The form in which it is usually written.
    s_gelu_value (&c);
    for (size_t i = 0; i < COUNT; i++) {
        double x = c.x[i], inner = sqrt (2 / M_PI) * (x + 0.044715 * x * x * x);
        assert_true (fabs (c.y[i] - 0.5 * x * (1 + tanh (inner))) < 1e-14);
    }
}

typedef struct {
    double both[N * WIDE], up[N * F], y[N * F]; //  gate at column 0, up at column F + 1
} s_swiglu_t;

static double
s_swiglu_value (void *context)
{
    s_swiglu_t *c = context;
    tl_kernels_f64 ()->swiglu_forward (c->y, c->both, c->both + F + 1, N, F, WIDE);
    return s_dot (c->y, c->up, N * F);
}

static void
test_swiglu (void **state)
{
    s_swiglu_t c;
    double dboth[N * WIDE] = {0};
    tests_fill_f64 (c.both, N * WIDE, 1, 2);
    tests_fill_f64 (c.up, N * F, 2, 1);
    tl_kernels_f64 ()->swiglu_backward (dboth, dboth + F + 1, c.up, c.both, c.both + F + 1, N, F,
                                        WIDE);
    s_check ("swiglu", s_swiglu_value, &c, c.both, dboth, N * WIDE);
}

//  --- loss

typedef struct {
    double logits[N * VOCAB], work[N * VOCAB], nll[N];
} s_loss_t;

static double
s_loss_value (void *context)
{
    s_loss_t *c = context;
    double sum = 0;
    tl_kernels_f64 ()->cross_entropy (c->logits, c->nll, s_ids, N, VOCAB, false);
    for (size_t i = 0; i < N; i++)
        sum += c->nll[i];
    return sum;
}

static void
test_cross_entropy (void **state)
{
    s_loss_t c;
    tests_fill_f64 (c.logits, N * VOCAB, 1, 3);
    memcpy (c.work, c.logits, sizeof c.work);
    tl_kernels_f64 ()->cross_entropy (c.work, c.nll, s_ids, N, VOCAB, true);
    double with[N];
    memcpy (with, c.nll, sizeof with);
    s_check ("cross_entropy", s_loss_value, &c, c.logits, c.work, N * VOCAB);
    s_loss_value (&c);
    tests_close_f64 ("nll with and without gradient", with, c.nll, N, 1e-15);
    double unchanged[N * VOCAB];
    tests_fill_f64 (unchanged, N * VOCAB, 1, 3);
    assert_memory_equal (unchanged, c.logits, sizeof unchanged);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_layernorm),
        cmocka_unit_test (test_rmsnorm),
        cmocka_unit_test (test_norms_add_to_parameters_and_skip_frozen_ones),
        cmocka_unit_test (test_linear),
        cmocka_unit_test (test_embedding),
        cmocka_unit_test (test_rope),
        cmocka_unit_test (test_rope_pairs),
        cmocka_unit_test (test_attention),
        cmocka_unit_test (test_gelu),
        cmocka_unit_test (test_swiglu),
        cmocka_unit_test (test_cross_entropy),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
