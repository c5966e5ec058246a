//  The own exponential: its stated error over the whole range, on every instruction set of this CPU.

#define TL_VARIANT base
#include "unit/kernels_support.h"
#include "kernels/exp.h"

typedef double (softmax_t) (float *x, size_t count, float *maximum);
softmax_t tl_softmax_row_v3, tl_softmax_row_v4;
static softmax_t *const s_softmax[] = {tl_softmax_row_base, tl_softmax_row_v3, tl_softmax_row_v4};

//  Units in the last place of the float nearest to exact, normal or not.
static double
s_ulps (float got, double exact)
{
    int exponent;
    frexp (exact, &exponent);
    exponent = exponent < -125 ? -125 : exponent;
    return fabs ((double)got - exact) / ldexp (1, exponent - 24);
}

static void
test_scalar_error_is_within_two_ulp (void **state)
{
    double worst = 0;
    float at = 0;
    for (float x = -103.9f; x < 88.72f; x += 0x1.3p-14f) {
        double ulps = s_ulps (tl_exp (x), exp ((double)x));
        if (ulps > worst) {
            worst = ulps;
            at = x;
        }
    }
    print_message ("worst error of exp: %.3f ulp at %a\n", worst, (double)at);
    assert_true (worst <= 2);
}

static void
test_vector_error_is_within_two_ulp (void **state)
{
    enum { COUNT = 1031 };
    static float in[COUNT], out[COUNT];
    for (size_t isa = 0; isa < 3; isa++) {
        if (!tl_kernels_of (tests_isas[isa]))
            continue;
        double worst = 0;
        for (float start = 0; start < 103; start += 0.0437f) {
            //  The maximum is 0, so the row's own values go into exp as they are.
            for (size_t i = 0; i < COUNT; i++)
                in[i] = -start - (float)i * 0x1.1p-15f;
            in[0] = 0;
            float most;
            memcpy (out, in, sizeof out);
            double sum = s_softmax[isa](out, COUNT, &most), again = 0;
            assert_true (most == 0);
            for (size_t i = 0; i < COUNT; i++) {
                worst = fmax (worst, s_ulps (out[i], exp ((double)in[i])));
                again += out[i];
            }
            assert_true (fabs (sum - again) <= 1e-12 * sum);
        }
        print_message ("%s: worst error of exp: %.3f ulp\n", tests_isas[isa], worst);
        assert_true (worst <= 2);
    }
}

static void
test_ends_of_the_range (void **state)
{
    assert_true (tl_exp (0) == 1);
    assert_true (tl_exp (-0.0f) == 1);
    assert_true (tl_exp (-INFINITY) == 0);
    assert_true (tl_exp (-1e30f) == 0);
    assert_true (tl_exp (-104.1f) == 0);
    assert_true (tl_exp (-103) > 0);
    assert_true (isinf (tl_exp (INFINITY)));
    assert_true (isinf (tl_exp (89)));
    assert_true (isinf (tl_exp (1e30f)));
    assert_true (isfinite (tl_exp (88.72f)));
    assert_true (isnan (tl_exp (NAN)));
}

static void
test_nan_is_not_lost_in_softmax (void **state)
{
    for (size_t isa = 0; isa < 3; isa++) {
        if (!tl_kernels_of (tests_isas[isa]))
            continue;
        for (size_t bad = 0; bad < 40; bad++) {
            float row[40] = {0}, most;
            row[bad] = NAN;
            assert_true (isnan (s_softmax[isa](row, 40, &most)));
        }
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_scalar_error_is_within_two_ulp),
        cmocka_unit_test (test_vector_error_is_within_two_ulp),
        cmocka_unit_test (test_ends_of_the_range),
        cmocka_unit_test (test_nan_is_not_lost_in_softmax),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
