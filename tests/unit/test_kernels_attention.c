//  attention against a referee that holds the whole [rows, columns] matrix in double: plain causal,
//  prefix context, grouped heads, KV cache, the interleaved q|k|v of ChatGLM-6B, several tiles.

#include "unit/kernels_support.h"

typedef enum { APART, FUSED, INTERLEAVED } s_layout_t;

typedef struct {
    const char *name;
    size_t rows, columns, heads, kv_heads, d, context;
    s_layout_t layout;
} s_case_t;

static const s_case_t s_cases[] = {
    {"causal", 7, 7, 2, 2, 8, 0, APART},
    {"causal, odd d", 9, 9, 3, 3, 5, 1, APART},
    {"prefix", 12, 12, 2, 2, 8, 5, FUSED},
    {"prefix of all", 12, 12, 2, 2, 8, 12, APART},
    {"grouped", 11, 11, 4, 2, 8, 0, FUSED},
    {"one group", 11, 11, 4, 1, 16, 3, FUSED},
    {"cache", 5, 13, 2, 2, 8, 0, APART},
    {"cache, prefix", 6, 13, 4, 2, 8, 9, APART},
    {"one row", 1, 17, 2, 1, 8, 0, APART},
    {"one row, one column", 1, 1, 2, 2, 8, 1, INTERLEAVED},
    {"few rows", 4, 21, 4, 2, 32, 2, FUSED},
    {"interleaved", 10, 10, 3, 3, 8, 4, INTERLEAVED},
    {"tiles", 300, 300, 2, 1, 16, 0, FUSED},
    {"tiles, prefix past the first", 290, 290, 2, 2, 8, 140, INTERLEAVED},
    {"tiles, cache", 150, 333, 2, 1, 8, 40, APART},
};
enum { CASES = sizeof s_cases / sizeof s_cases[0] };

//  Where q, k, v of a case are: one buffer, three starts.
typedef struct {
    tl_attention_t shape;
    size_t count;   //  of the buffer
    size_t q, k, v; //  first elements
} s_place_t;

static s_place_t
s_place (const s_case_t *c)
{
    size_t wide = c->heads * c->d, narrow = c->kv_heads * c->d;
    s_place_t place = {.shape = {.rows = c->rows,
                                 .columns = c->columns,
                                 .heads = c->heads,
                                 .kv_heads = c->kv_heads,
                                 .d = c->d,
                                 .o_stride = wide + 3,
                                 .q_head = c->d,
                                 .k_head = c->d,
                                 .v_head = c->d,
                                 .context = c->context,
                                 .scale = 1 / sqrt ((double)c->d)}};
    tl_attention_t *shape = &place.shape;
    if (c->layout == APART) {
        shape->q_stride = wide;
        shape->k_stride = shape->v_stride = narrow;
        place.k = c->rows * wide;
        place.v = place.k + c->columns * narrow;
        place.count = place.v + c->columns * narrow;
        return place;
    }
    size_t stride = wide + 2 * narrow;
    shape->q_stride = shape->k_stride = shape->v_stride = stride;
    place.q = (c->columns - c->rows) * stride;
    place.k = c->layout == FUSED ? wide : c->d;
    place.v = c->layout == FUSED ? wide + narrow : 2 * c->d;
    place.count = c->columns * stride;
    if (c->layout == INTERLEAVED)
        shape->q_head = shape->k_head = shape->v_head = 3 * c->d;
    return place;
}

//  p [columns] of one row of one head, by the rule as the header writes it. Returns the log of the sum.
static double
s_referee_row (double *p, const double *x, const s_place_t *place, size_t head, size_t row)
{
    const tl_attention_t *s = &place->shape;
    const double *q = x + place->q + row * s->q_stride + head * s->q_head;
    double most = -INFINITY, sum = 0;
    for (size_t c = 0; c < s->columns; c++) {
        const double *k =
            x + place->k + c * s->k_stride + head / (s->heads / s->kv_heads) * s->k_head;
        double dot = 0;
        for (size_t i = 0; i < s->d; i++)
            dot += q[i] * k[i];
        bool seen = c < s->context || c <= row + (s->columns - s->rows);
        p[c] = seen ? dot * s->scale : -INFINITY;
        most = fmax (most, p[c]);
    }
    for (size_t c = 0; c < s->columns; c++)
        sum += p[c] = exp (p[c] - most);
    for (size_t c = 0; c < s->columns; c++)
        p[c] /= sum;
    return most + log (sum);
}

//  o, lse and, from d_o, the gradient dx (+=) of the whole buffer.
static void
s_referee (double *o, double *lse, double *dx, const double *d_o, const double *x,
           const s_place_t *place)
{
    const tl_attention_t *s = &place->shape;
    double *p = tl_alloc (2 * s->columns * sizeof *p), *dp = p + s->columns;
    for (size_t head = 0; head < s->heads; head++)
        for (size_t row = 0; row < s->rows; row++) {
            size_t kv = head / (s->heads / s->kv_heads);
            size_t q = place->q + row * s->q_stride + head * s->q_head;
            size_t at = row * s->o_stride + head * s->d;
            lse[head * s->rows + row] = s_referee_row (p, x, place, head, row);
            for (size_t i = 0; i < s->d; i++)
                o[at + i] = 0;
            double inner = 0;
            for (size_t c = 0; c < s->columns; c++) {
                size_t v = place->v + c * s->v_stride + kv * s->v_head;
                dp[c] = 0;
                for (size_t i = 0; i < s->d; i++) {
                    o[at + i] += p[c] * x[v + i];
                    dp[c] += d_o[at + i] * x[v + i];
                    dx[v + i] += p[c] * d_o[at + i];
                }
                inner += p[c] * dp[c];
            }
            for (size_t c = 0; c < s->columns; c++) {
                size_t k = place->k + c * s->k_stride + kv * s->k_head;
                double ds = p[c] * (dp[c] - inner) * s->scale;
                for (size_t i = 0; i < s->d; i++) {
                    dx[q + i] += ds * x[k + i];
                    dx[k + i] += ds * x[q + i];
                }
            }
        }
    free (p);
}

typedef struct {
    s_place_t place;
    size_t rows;                    //  of lse
    size_t outs;                    //  elements of o
    double *x, *d_o, *o, *lse, *dx; //  inputs and the referee's results
} s_truth_t;

static s_truth_t
s_truth (const s_case_t *c)
{
    s_truth_t t = {.place = s_place (c), .rows = c->heads * c->rows};
    t.outs = c->rows * t.place.shape.o_stride;
    t.x = tests_new_f64 (t.place.count, 1, 1);
    t.d_o = tests_new_f64 (t.outs, 2, 1);
    //  Gaps between rows of o and the start values of gradients must survive.
    t.o = tests_new_f64 (t.outs, 3, 1);
    t.dx = tests_new_f64 (t.place.count, 4, 1);
    t.lse = tests_new_f64 (t.rows, 5, 1);
    s_referee (t.o, t.lse, t.dx, t.d_o, t.x, &t.place);
    return t;
}

static void
s_truth_free (s_truth_t *t)
{
    free (t->x), free (t->d_o), free (t->o), free (t->dx), free (t->lse);
}

static void
test_double_equals_the_referee (void **state)
{
    const tl_kernels_f64_t *k = tl_kernels_f64 ();
    for (size_t i = 0; i < CASES; i++) {
        s_truth_t t = s_truth (&s_cases[i]);
        s_place_t *at = &t.place;
        double *o = tests_new_f64 (t.outs, 3, 1), *dx = tests_new_f64 (at->count, 4, 1);
        double *lse = tests_new_f64 (t.rows, 6, 1);
        double *scratch = tests_new_f64 (tl_attention_scratch (&at->shape, true), 7, 1);
        k->attention_forward (o, lse, t.x + at->q, t.x + at->k, t.x + at->v, &at->shape, scratch);
        k->attention_backward (dx + at->q, dx + at->k, dx + at->v, t.d_o, t.x + at->q, t.x + at->k,
                               t.x + at->v, o, lse, &at->shape, scratch);
        tests_close_f64 (s_cases[i].name, o, t.o, t.outs, 1e-13);
        tests_close_f64 (s_cases[i].name, lse, t.lse, t.rows, 1e-13);
        tests_close_f64 (s_cases[i].name, dx, t.dx, at->count, 1e-13);
        free (o), free (dx), free (lse), free (scratch), s_truth_free (&t);
    }
}

static void
s_float_case (const tl_kernels_t *k, const s_case_t *c)
{
    s_truth_t t = s_truth (c);
    s_place_t *at = &t.place;
    float *x = tests_new_f32 (at->count, 1, 1), *d_o = tests_new_f32 (t.outs, 2, 1);
    float *o = tests_new_f32 (t.outs, 3, 1), *dx = tests_new_f32 (at->count, 4, 1);
    float *lse = tests_new_f32 (t.rows, 6, 1);
    float *scratch = tests_new_f32 (tl_attention_scratch (&at->shape, true), 7, 1);
    k->attention_forward (o, lse, x + at->q, x + at->k, x + at->v, &at->shape, scratch);
    k->attention_backward (dx + at->q, dx + at->k, dx + at->v, d_o, x + at->q, x + at->k, x + at->v,
                           o, lse, &at->shape, scratch);
    tests_close_f32 (c->name, o, t.o, t.outs, 2e-6);
    tests_close_f32 (c->name, lse, t.lse, t.rows, 2e-6);
    tests_close_f32 (c->name, dx, t.dx, at->count, 4e-6);
    free (x), free (d_o), free (o), free (dx), free (lse), free (scratch), s_truth_free (&t);
}

static void
test_float_follows_on_every_isa (void **state)
{
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        for (size_t i = 0; k && i < CASES; i++)
            s_float_case (k, &s_cases[i]);
    }
}

static void
test_huge_scores_stay_finite (void **state)
{
    //  Scores of +-5000: a softmax without its maximum taken off would be all infinity.
    const tl_kernels_t *k = tl_kernels ();
    enum { T = 40, D = 8 };
    float q[T * D], v[T * D], o[T * D], lse[T], dq[T * D] = {0}, dk[T * D] = {0};
    float dv[T * D] = {0};
    tests_fill_f32 (q, T * D, 1, 70);
    tests_fill_f32 (v, T * D, 2, 1);
    tl_attention_t shape = {T, T, 1, 1, D, D, D, D, D, D, D, D, 0, 1 / sqrt (8)};
    float *scratch = tests_new_f32 (tl_attention_scratch (&shape, true), 1, 1);
    k->attention_forward (o, lse, q, q, v, &shape, scratch);
    k->attention_backward (dq, dk, dv, v, q, q, v, o, lse, &shape, scratch);
    assert_true (k->all_finite (o, T * D) && k->all_finite (lse, T));
    assert_true (k->all_finite (dq, T * D) && k->all_finite (dk, T * D));
    free (scratch);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_double_equals_the_referee),
        cmocka_unit_test (test_float_follows_on_every_isa),
        cmocka_unit_test (test_huge_scores_stay_finite),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
