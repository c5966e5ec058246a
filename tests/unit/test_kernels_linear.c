//  linear against three plain loops: every dtype, odd shapes, alpha and beta, the panel's edges.

#include "unit/kernels_support.h"

typedef struct {
    size_t n, in, out;
} s_shape_t;

//  One row, few rows, primes, and a weight of more than one panel (in 2048: 512 rows a panel).
static const s_shape_t s_shapes[] = {
    {1, 1, 1},    {1, 64, 32},  {1, 1031, 7}, {3, 17, 13},    {4, 2053, 5},
    {5, 31, 29},  {7, 1, 19},   {6, 19, 1},   {37, 127, 101}, {5, 2048, 515},
    {64, 96, 80}, {1, 2304, 9}, {2, 2304, 9}, {3, 96, 5},     {4, 256, 300},
};
enum { SHAPES = sizeof s_shapes / sizeof s_shapes[0] };

//  Weights as stored, and what they mean.
static void *
s_store (double *w, size_t count, tl_dtype_t dtype)
{
    float *wide = tl_alloc_aligned (count * sizeof *wide);
    void *stored = tl_alloc_aligned (tl_dtype_bytes (dtype, count));
    for (size_t i = 0; i < count; i++)
        wide[i] = (float)w[i];
    tl_narrow (stored, wide, dtype, count);
    tl_widen (wide, stored, dtype, count);
    for (size_t i = 0; i < count; i++)
        w[i] = wide[i];
    free (wide);
    return stored;
}

static void
s_one_forward (const tl_kernels_t *k, s_shape_t s, tl_dtype_t dtype, double alpha, double beta,
               bool with_bias)
{
    double *w = tests_new_f64 (s.in * s.out, 1, 0.3), *expected = tests_new_f64 (s.n * s.out, 2, 1);
    void *stored = s_store (w, s.in * s.out, dtype);
    float *x = tests_new_f32 (s.n * s.in, 3, 1), *bias = tests_new_f32 (s.out, 4, 1);
    float *y = tests_new_f32 (s.n * s.out, 2, 1);
    if (beta == 0)
        for (size_t i = 0; i < s.n * s.out; i++)
            y[i] = NAN; //  must not be read
    for (size_t row = 0; row < s.n; row++)
        for (size_t o = 0; o < s.out; o++) {
            double sum = 0, *to = &expected[row * s.out + o];
            for (size_t i = 0; i < s.in; i++)
                sum += (double)x[row * s.in + i] * w[o * s.in + i];
            *to = alpha * sum + beta * *to + (with_bias ? bias[o] : 0);
        }
    k->linear_forward (y, x, stored, dtype, with_bias ? bias : NULL, s.n, s.in, s.out, alpha, beta);
    tests_close_f32 ("linear_forward", y, expected, s.n * s.out, 3e-6);
    free (w), free (expected), free (stored), free (x), free (bias), free (y);
}

static void
test_forward (void **state)
{
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        for (size_t i = 0; k && i < SHAPES; i++)
            for (tl_dtype_t dtype = TL_F32; dtype <= TL_BF16; dtype++) {
                s_one_forward (k, s_shapes[i], dtype, 1, 0, false);
                s_one_forward (k, s_shapes[i], dtype, 0.5, 1, true);
                s_one_forward (k, s_shapes[i], dtype, 2, 0.25, false);
            }
    }
}

static void
s_one_backward_input (const tl_kernels_t *k, s_shape_t s, tl_dtype_t dtype, double alpha,
                      double beta)
{
    double *w = tests_new_f64 (s.in * s.out, 1, 0.3), *expected = tests_new_f64 (s.n * s.in, 2, 1);
    void *stored = s_store (w, s.in * s.out, dtype);
    float *dy = tests_new_f32 (s.n * s.out, 3, 1), *dx = tests_new_f32 (s.n * s.in, 2, 1);
    if (beta == 0)
        for (size_t i = 0; i < s.n * s.in; i++)
            dx[i] = NAN;
    for (size_t i = 0; i < s.n * s.in; i++)
        expected[i] *= beta;
    for (size_t row = 0; row < s.n; row++)
        for (size_t o = 0; o < s.out; o++)
            for (size_t i = 0; i < s.in; i++)
                expected[row * s.in + i] += alpha * dy[row * s.out + o] * w[o * s.in + i];
    k->linear_backward_input (dx, dy, stored, dtype, s.n, s.in, s.out, alpha, beta);
    tests_close_f32 ("linear_backward_input", dx, expected, s.n * s.in, 3e-6);
    free (w), free (expected), free (stored), free (dy), free (dx);
}

static void
s_one_backward_weight (const tl_kernels_t *k, s_shape_t s, double alpha, bool with_bias)
{
    float *x = tests_new_f32 (s.n * s.in, 3, 1), *dy = tests_new_f32 (s.n * s.out, 4, 1);
    float *dw = tests_new_f32 (s.in * s.out, 5, 1), *db = tests_new_f32 (s.out, 6, 1);
    double *expected = tests_new_f64 (s.in * s.out, 5, 1), *sums = tests_new_f64 (s.out, 6, 1);
    for (size_t o = 0; o < s.out; o++)
        for (size_t row = 0; row < s.n; row++) {
            double up = dy[row * s.out + o];
            for (size_t i = 0; i < s.in; i++)
                expected[o * s.in + i] += alpha * up * x[row * s.in + i];
            sums[o] += with_bias ? up : 0;
        }
    k->linear_backward_weight (dw, with_bias ? db : NULL, dy, x, s.n, s.in, s.out, alpha);
    tests_close_f32 ("dw", dw, expected, s.in * s.out, 3e-6);
    tests_close_f32 ("db", db, sums, s.out, 3e-6);
    free (x), free (dy), free (dw), free (db), free (expected), free (sums);
}

static void
test_backward (void **state)
{
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        for (size_t i = 0; k && i < SHAPES; i++) {
            for (tl_dtype_t dtype = TL_F32; dtype <= TL_BF16; dtype++) {
                s_one_backward_input (k, s_shapes[i], dtype, 1, 0);
                s_one_backward_input (k, s_shapes[i], dtype, 0.5, 1);
            }
            s_one_backward_weight (k, s_shapes[i], 1, true);
            s_one_backward_weight (k, s_shapes[i], 0.125, false);
        }
    }
}

//  All three products of one shape, with every set of loops and by one thread and two.
static void
s_long_sums (s_shape_t s)
{
    double *forward = tests_new_f64 (s.n * s.out, 1, 0), *input = tests_new_f64 (s.n * s.in, 1, 0);
    double *weight = tests_new_f64 (s.in * s.out, 1, 0);
    float *x = tests_new_f32 (s.n * s.in, 2, 1), *w = tests_new_f32 (s.in * s.out, 3, 0.3);
    float *dy = tests_new_f32 (s.n * s.out, 4, 1), *y = tests_new_f32 (s.n * s.out, 5, 1);
    float *dx = tests_new_f32 (s.n * s.in, 5, 1), *dw = tests_new_f32 (s.in * s.out, 5, 0);
    for (size_t row = 0; row < s.n; row++)
        for (size_t o = 0; o < s.out; o++) {
            const double up = dy[row * s.out + o];
            double sum = 0;
            for (size_t i = 0; i < s.in; i++) {
                sum += (double)x[row * s.in + i] * w[o * s.in + i];
                input[row * s.in + i] += up * w[o * s.in + i];
                weight[o * s.in + i] += up * x[row * s.in + i];
            }
            forward[row * s.out + o] = sum;
        }
    for (int run = 0; run < 6; run++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[run / 2]);
        if (!k)
            continue;
        tl_kernels_use (1 + run % 2);
        k->linear_forward (y, x, w, TL_F32, NULL, s.n, s.in, s.out, 1, 0);
        k->linear_backward_input (dx, dy, w, TL_F32, s.n, s.in, s.out, 1, 0);
        memset (dw, 0, s.in * s.out * sizeof *dw);
        k->linear_backward_weight (dw, NULL, dy, x, s.n, s.in, s.out, 1);
        tests_close_f32 ("linear_forward", y, forward, s.n * s.out, 3e-6);
        tests_close_f32 ("linear_backward_input", dx, input, s.n * s.in, 3e-6);
        tests_close_f32 ("linear_backward_weight", dw, weight, s.in * s.out, 3e-6);
    }
    tl_kernels_use (1);
    free (forward), free (input), free (weight), free (x), free (w), free (dy), free (y);
    free (dx), free (dw);
}

static void
test_long_sums (void **state)
{
    //  Sums of several runs and of several packed steps, in more columns than a piece packs: of each product in turn, as
    //  its sum runs over in, out or rows. With 260 rows the right side is packed, with 7 the rows are.
    s_long_sums ((s_shape_t){7, 4096, 300});
    s_long_sums ((s_shape_t){7, 300, 4096});
    s_long_sums ((s_shape_t){260, 768, 290});
    s_long_sums ((s_shape_t){768, 290, 96});
}

//  Rows 8 .. 28 of a call are what a call of these rows alone gives, with any number of threads.
static void
s_rows_and_threads (tl_dtype_t dtype)
{
    enum { N = 300, IN = 224, OUT = 310, FIRST = 8, SOME = 20 };
    const tl_kernels_t *k = tl_kernels ();
    float *x = tests_new_f32 (N * IN, 1, 1), *wide = tests_new_f32 (IN * OUT, 2, 1);
    float *dy = tests_new_f32 (N * OUT, 3, 1);
    float *all = tests_new_f32 (N * OUT, 4, 1), *some = tests_new_f32 (N * OUT, 5, 1);
    void *w = tl_alloc_aligned (tl_dtype_bytes (dtype, IN * OUT));
    tl_narrow (w, wide, dtype, IN * OUT);
    for (int threads = 1; threads <= 3; threads++) {
        tl_kernels_use (threads);
        k->linear_forward (all, x, w, dtype, NULL, N, IN, OUT, 1, 0);
        tl_kernels_use (1);
        k->linear_forward (some, x + FIRST * IN, w, dtype, NULL, SOME, IN, OUT, 1, 0);
        assert_memory_equal (some, all + FIRST * OUT, SOME * OUT * sizeof *some);
        tl_kernels_use (threads);
        k->linear_backward_input (all, dy, w, dtype, N, IN, OUT, 1, 0);
        tl_kernels_use (1);
        k->linear_backward_input (some, dy + FIRST * OUT, w, dtype, SOME, IN, OUT, 1, 0);
        assert_memory_equal (some, all + FIRST * IN, SOME * IN * sizeof *some);
    }
    free (x), free (w), free (wide), free (dy), free (all), free (some);
}

static void
test_rows_and_threads_dont_matter (void **state)
{
    const tl_dtype_t dtypes[] = {TL_F32, TL_F16, TL_BF16, TL_Q8_0};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        s_rows_and_threads (dtypes[i]);
}

static void
test_the_same_call_gives_the_same_bits (void **state)
{
    const tl_kernels_t *k = tl_kernels ();
    enum { N = 33, IN = 130, OUT = 70 };
    float *x = tests_new_f32 (N * IN + 8, 1, 1), *w = tests_new_f32 (IN * OUT, 2, 1);
    float first[N * OUT], second[N * OUT];
    k->linear_forward (first, x, w, TL_F32, NULL, N, IN, OUT, 1, 0);
    k->linear_forward (second, x, w, TL_F32, NULL, N, IN, OUT, 1, 0);
    assert_memory_equal (first, second, sizeof first);
    //  Nor does it matter where the rows start in memory.
    memmove (x + 3, x, N * IN * sizeof *x);
    k->linear_forward (second, x + 3, w, TL_F32, NULL, N, IN, OUT, 1, 0);
    assert_memory_equal (first, second, sizeof first);
    free (x), free (w);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_forward),
        cmocka_unit_test (test_backward),
        cmocka_unit_test (test_long_sums),
        cmocka_unit_test (test_rows_and_threads_dont_matter),
        cmocka_unit_test (test_the_same_call_gives_the_same_bits),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
