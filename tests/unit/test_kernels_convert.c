//  fp16 and bf16: every half value widened, the rounding of every boundary between two of them, on
//  every instruction set of this CPU, against arithmetic written out in double.

#include "unit/kernels_support.h"

typedef void (widen_t) (float *out, const void *in, tl_dtype_t dtype, size_t count);
typedef void (narrow_t) (void *out, const float *in, tl_dtype_t dtype, size_t count);
widen_t tl_widen_base, tl_widen_v3, tl_widen_v4;
narrow_t tl_narrow_base, tl_narrow_v3, tl_narrow_v4;

static widen_t *const s_widen[] = {tl_widen_base, tl_widen_v3, tl_widen_v4};
static narrow_t *const s_narrow[] = {tl_narrow_base, tl_narrow_v3, tl_narrow_v4};

enum { HALVES = 65536, ODD = 77 }; //  odd: a tail shorter than any vector

static uint16_t s_halves[HALVES];
static float s_wide[HALVES];

static uint32_t
s_bits (float value)
{
    uint32_t bits;
    memcpy (&bits, &value, sizeof bits);
    return bits;
}

//  What a half means, by its definition.
static double
s_meaning (uint16_t half, tl_dtype_t dtype)
{
    int mantissa_bits = dtype == TL_F16 ? 10 : 7, bias = dtype == TL_F16 ? 15 : 127;
    int exponent = (half & 0x7fff) >> mantissa_bits, top = 2 * bias + 1;
    int mantissa = half & ((1 << mantissa_bits) - 1);
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == top)
        return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0)
        return sign * ldexp (mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp (mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static void
test_every_half_widens_exactly (void **state)
{
    for (size_t i = 0; i < HALVES; i++)
        s_halves[i] = (uint16_t)i;
    for (size_t isa = 0; isa < 3; isa++) {
        if (!tl_kernels_of (tests_isas[isa]))
            continue;
        for (tl_dtype_t dtype = TL_F16; dtype <= TL_BF16; dtype++)
            for (size_t count = HALVES; count >= HALVES - ODD; count -= ODD) {
                s_widen[isa](s_wide, s_halves, dtype, count);
                for (size_t i = 0; i < count; i++) {
                    double meaning = s_meaning ((uint16_t)i, dtype);
                    if (isnan (meaning)
                            ? !isnan (s_wide[i])
                            : s_wide[i] != meaning || !signbit (s_wide[i]) != !signbit (meaning))
                        fail_msg ("%s %s %04zx: got %g, expected %g", tests_isas[isa],
                                  tl_dtype_name (dtype), i, (double)s_wide[i], meaning);
                }
            }
    }
}

static void
test_every_half_survives_the_round_trip (void **state)
{
    static uint16_t back[HALVES];
    for (size_t i = 0; i < HALVES; i++)
        s_halves[i] = (uint16_t)i;
    for (size_t isa = 0; isa < 3; isa++) {
        if (!tl_kernels_of (tests_isas[isa]))
            continue;
        for (tl_dtype_t dtype = TL_F16; dtype <= TL_BF16; dtype++) {
            s_widen[isa](s_wide, s_halves, dtype, HALVES);
            s_narrow[isa](back, s_wide, dtype, HALVES);
            for (size_t i = 0; i < HALVES; i++) {
                uint16_t quiet = dtype == TL_F16 ? 0x200 : 0x40;
                bool nan = isnan (s_meaning ((uint16_t)i, dtype));
                assert_int_equal (back[i], nan ? (i | quiet) : i);
            }
        }
    }
}

static void
s_check_narrow (float value, uint16_t expected, tl_dtype_t dtype)
{
    for (size_t isa = 0; isa < 3; isa++) {
        if (!tl_kernels_of (tests_isas[isa]))
            continue;
        float in[17];
        uint16_t out[17];
        for (size_t i = 0; i < 17; i++)
            in[i] = value;
        s_narrow[isa](out, in, dtype, 17);
        //  The first goes through vectors, the last through the tail.
        if (out[0] != expected || out[16] != expected)
            fail_msg ("%s %s of %a: got %04x and %04x, expected %04x", tests_isas[isa],
                      tl_dtype_name (dtype), (double)value, out[0], out[16], expected);
    }
}

static void
test_rounding_is_to_nearest_even (void **state)
{
    for (tl_dtype_t dtype = TL_F16; dtype <= TL_BF16; dtype++) {
        uint16_t infinity = dtype == TL_F16 ? 0x7c00 : 0x7f80;
        for (uint32_t half = 0; half + 1 < infinity; half++) {
            //  Between two neighbours: the middle goes to the even one, its own neighbours don't.
            double low = s_meaning ((uint16_t)half, dtype);
            double high = s_meaning ((uint16_t)(half + 1), dtype);
            float middle = (float)((low + high) / 2);
            uint16_t even = (uint16_t)(half & 1 ? half + 1 : half);
            if (half % 7 && half > 64 && half < infinity - 64u)
                continue; //  every seventh is enough away from both ends
            s_check_narrow (middle, even, dtype);
            s_check_narrow (-middle, even | 0x8000, dtype);
            s_check_narrow (nextafterf (middle, 0), (uint16_t)half, dtype);
            s_check_narrow (nextafterf (middle, INFINITY), (uint16_t)(half + 1), dtype);
        }
    }
}

static void
test_overflow_tiny_and_nan (void **state)
{
    s_check_narrow (65519.996f, 0x7bff, TL_F16);
    s_check_narrow (65520, 0x7c00, TL_F16);
    s_check_narrow (-1e30f, 0xfc00, TL_F16);
    s_check_narrow (INFINITY, 0x7c00, TL_F16);
    s_check_narrow (0x1p-25f, 0, TL_F16);
    s_check_narrow (0x1.000002p-25f, 1, TL_F16);
    s_check_narrow (-0x1p-149f, 0x8000, TL_F16);
    s_check_narrow (0x1.fffffep127f, 0x7f80, TL_BF16);
    s_check_narrow (-INFINITY, 0xff80, TL_BF16);
    s_check_narrow (-0.0f, 0x8000, TL_BF16);
    //  A NaN whose payload is in the low bits only must not become infinity.
    uint32_t bits = 0x7f800001u;
    float nan, wide;
    memcpy (&nan, &bits, sizeof nan);
    for (tl_dtype_t dtype = TL_F32; dtype <= TL_BF16; dtype++) {
        uint32_t stored = 0;
        tl_narrow (&stored, &nan, dtype, 1);
        tl_widen (&wide, &stored, dtype, 1);
        assert_true (isnan (wide));
    }
}

static void
test_fp32_is_a_copy (void **state)
{
    float in[5] = {1, -0.0f, 0x1p-149f, INFINITY, 3.14f}, out[5], back[5];
    tl_widen (out, in, TL_F32, 5);
    tl_narrow (back, out, TL_F32, 5);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal (s_bits (in[i]), s_bits (back[i]));
    assert_int_equal (tl_dtype_bytes (TL_F32, 1), 4);
    assert_int_equal (tl_dtype_bytes (TL_BF16, 1), 2);
    assert_string_equal (tl_dtype_name (TL_F16), "fp16");
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_every_half_widens_exactly),
        cmocka_unit_test (test_every_half_survives_the_round_trip),
        cmocka_unit_test (test_rounding_is_to_nearest_even),
        cmocka_unit_test (test_overflow_tiny_and_nan),
        cmocka_unit_test (test_fp32_is_a_copy),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
