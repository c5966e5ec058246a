//  AdamW against PyTorch's order of operations, the guards, and the choice of a table.

#include "unit/kernels_support.h"

//  torch.optim.AdamW, one element, as its documentation writes it.
static void
s_adamw (double *w, double *m, double *v, double g, double lr, double decay, uint64_t step)
{
    *w -= lr * decay * *w;
    *m = 0.9 * *m + 0.1 * g;
    *v = 0.999 * *v + 0.001 * g * g;
    double m_hat = *m / (1 - pow (0.9, (double)step)), v_hat = *v / (1 - pow (0.999, (double)step));
    *w -= lr * m_hat / (sqrt (v_hat) + 1e-8);
}

static void
test_adamw_ten_steps (void **state)
{
    enum { COUNT = 67 };
    double w[COUNT], m[COUNT] = {0}, v[COUNT] = {0}, g[COUNT];
    double w2[COUNT], m2[COUNT] = {0}, v2[COUNT] = {0};
    float wf[COUNT], mf[COUNT] = {0}, vf[COUNT] = {0}, gf[COUNT];
    tests_fill_f64 (w, COUNT, 1, 1);
    tests_fill_f64 (w2, COUNT, 1, 1);
    tests_fill_f32 (wf, COUNT, 1, 1);
    for (uint64_t step = 1; step <= 10; step++) {
        tests_fill_f64 (g, COUNT, 10 + step, 3);
        tests_fill_f32 (gf, COUNT, 10 + step, 3);
        //  The first step of a warm-up has lr 0: it moves nothing but the moments.
        double lr = step == 1 ? 0 : 1e-2;
        for (size_t i = 0; i < COUNT; i++)
            s_adamw (&w2[i], &m2[i], &v2[i], g[i] * 0.25, lr, 0.1, step);
        tl_kernels_f64 ()->adamw (w, m, v, g, COUNT, 0.25, lr, 0.9, 0.999, 1e-8, 0.1, step);
        tl_kernels ()->adamw (wf, mf, vf, gf, COUNT, 0.25, lr, 0.9, 0.999, 1e-8, 0.1, step);
    }
    tests_close_f64 ("w", w, w2, COUNT, 1e-13);
    tests_close_f64 ("m", m, m2, COUNT, 1e-13);
    tests_close_f64 ("v", v, v2, COUNT, 1e-13);
    tests_close_f32 ("float w", wf, w2, COUNT, 1e-6);
}

static void
test_adamw_with_zero_gradient_only_decays (void **state)
{
    float w[3] = {1, -2, 0}, m[3] = {0}, v[3] = {0}, g[3] = {0};
    tl_kernels ()->adamw (w, m, v, g, 3, 1, 0.5, 0.9, 0.999, 1e-8, 0.5, 1);
    assert_true (w[0] == 0.75f && w[1] == -1.5f && w[2] == 0);
}

static void
test_all_finite_sees_one_bad_value (void **state)
{
    enum { COUNT = 20011 };
    static float x[COUNT];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        if (!k)
            continue;
        tests_fill_f32 (x, COUNT, 1, 1e30);
        assert_true (k->all_finite (x, COUNT));
        assert_true (k->all_finite (x, 0));
        x[3] = 0x1.fffffep127f;
        x[4] = 0x1p-149f;
        assert_true (k->all_finite (x, COUNT));
        for (size_t at = 0; at < COUNT; at += 97)
            for (size_t i = 0; i < 3; i++) {
                float kept = x[at];
                x[at] = bad[i];
                assert_false (k->all_finite (x, COUNT));
                x[at] = kept;
            }
        x[COUNT - 1] = NAN;
        assert_false (k->all_finite (x, COUNT));
    }
}

static void
test_sum_of_squares_does_not_overflow (void **state)
{
    float x[100];
    for (size_t i = 0; i < 100; i++)
        x[i] = 1e30f;
    double expected = 100 * (double)1e30f * (double)1e30f;
    assert_true (fabs (tl_kernels ()->sum_of_squares (x, 100) / expected - 1) < 1e-14);
    assert_true (tl_kernels ()->sum_of_squares (x, 0) == 0);
}

static void
test_cross_entropy_of_extremes (void **state)
{
    //  A certain right answer costs nothing, a certain wrong one the gap.
    float logits[6] = {500, 0, -500, 500, 0, -500}, nll[2];
    int32_t targets[2] = {0, 2};
    tl_kernels ()->cross_entropy (logits, nll, targets, 2, 3, true);
    assert_true (nll[0] == 0 && nll[1] == 1000);
    assert_true (logits[0] == 0 && logits[3] == 1 && logits[5] == -1);
    float uniform[50] = {0};
    targets[0] = 49;
    tl_kernels ()->cross_entropy (uniform, nll, targets, 1, 50, false);
    assert_true (fabs (nll[0] - log (50)) < 1e-6);
}

static void
test_rmsnorm_with_a_massive_activation (void **state)
{
    //  One value of 22,000 among values of 1, as in SmolLM2's first token.
    enum { H = 576 };
    float x[H], w[H], y[H], rstd;
    for (size_t i = 0; i < H; i++)
        x[i] = w[i] = 1;
    x[100] = 22000;
    tl_kernels ()->rmsnorm_forward (y, &rstd, x, w, 1, H, 1e-5);
    double expected = 1 / sqrt ((22000.0 * 22000.0 + H - 1) / H + 1e-5);
    assert_true (fabs (rstd / expected - 1) < 1e-7);
    assert_true (fabs (y[0] / expected - 1) < 2e-7);
}

static void
test_the_table_is_the_pinned_one (void **state)
{
    const char *pinned = getenv ("TL_ISA");
    if (pinned && tl_kernels_of (pinned))
        assert_string_equal (tl_kernels_name (), pinned);
    assert_ptr_equal (tl_kernels_of (tl_kernels_name ()), tl_kernels ());
    assert_non_null (tl_kernels_of ("base"));
    assert_null (tl_kernels_of ("v9"));
}

static void
test_threads_are_at_least_one (void **state)
{
    tl_kernels_use (2);
    assert_int_equal (tl_kernels_threads (), 2);
    tl_kernels_use (0);
    assert_int_equal (tl_kernels_threads (), 1);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_adamw_ten_steps),
        cmocka_unit_test (test_adamw_with_zero_gradient_only_decays),
        cmocka_unit_test (test_all_finite_sees_one_bad_value),
        cmocka_unit_test (test_sum_of_squares_does_not_overflow),
        cmocka_unit_test (test_cross_entropy_of_extremes),
        cmocka_unit_test (test_rmsnorm_with_a_massive_activation),
        cmocka_unit_test (test_the_table_is_the_pinned_one),
        cmocka_unit_test (test_threads_are_at_least_one),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
