//  Addressed randomness: the generator's published vectors, and what a stream promises.

#include "unit/cmocka_all.h"

#include "random.h"

#include <math.h>
#include <string.h>

//  Random123's kat_vectors for philox4x32 with 10 rounds.
static const struct {
    uint32_t counter[4], key[2], out[4];
} s_known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static tl_stream_t
s_stream (void)
{
    return (tl_stream_t){.seed = 1,
                         .purpose = TL_DRAW_INIT,
                         .step = 2,
                         .sequence = 3,
                         .name = tl_random_name ("layers.0.lora_A")};
}

static void
test_philox_known_answers (void **state)
{
    for (size_t i = 0; i < sizeof s_known / sizeof s_known[0]; i++) {
        uint32_t out[4];
        tl_philox (s_known[i].counter, s_known[i].key, out);
        for (size_t word = 0; word < 4; word++)
            assert_int_equal (out[word], s_known[i].out[word]);
    }
}

static void
test_streams_never_change (void **state)
{
    //  Saved runs repeat only while these stay what they are.
    tl_stream_t stream = s_stream ();
    assert_int_equal (tl_random_u32 (&stream, 0), 0x8629bc34);
    assert_int_equal (tl_random_u32 (&stream, 5), 0x3671004e);
    assert_int_equal (tl_random_below (&stream, 7, 1000), 181);
    assert_true (tl_random_uniform (&stream, 3) == 0.031283027141348896);
    assert_true (fabs (tl_random_normal (&stream, 4) - 0.12537622402697998) < 1e-15);
}

static void
test_any_difference_is_another_stream (void **state)
{
    tl_stream_t base = s_stream (), other[5];
    for (size_t i = 0; i < 5; i++)
        other[i] = base;
    other[0].seed++;
    other[1].purpose = TL_DRAW_NOISE;
    other[2].step++;
    other[3].sequence++;
    other[4].name = tl_random_name ("layers.1.lora_A");
    for (size_t i = 0; i < 5; i++) {
        size_t same = 0;
        for (uint64_t element = 0; element < 64; element++)
            same += tl_random_u32 (&base, element) == tl_random_u32 (&other[i], element);
        assert_true (same < 2);
    }
    assert_true (tl_random_u32 (&base, 9) == tl_random_u32 (&base, 9));
}

static void
test_uniform_and_normal_moments (void **state)
{
    enum { COUNT = 200000 };
    tl_stream_t stream = s_stream ();
    double sum = 0, squares = 0, normal = 0, power2 = 0, power4 = 0;
    size_t bins[16] = {0};
    for (uint64_t i = 0; i < COUNT; i++) {
        double u = tl_random_uniform (&stream, i), z = tl_random_normal (&stream, i);
        assert_true (u >= 0 && u < 1);
        bins[(size_t)(u * 16)]++;
        sum += u;
        squares += u * u;
        normal += z;
        power2 += z * z;
        power4 += z * z * z * z;
    }
    assert_true (fabs (sum / COUNT - 0.5) < 0.003);
    assert_true (fabs (squares / COUNT - 1.0 / 3) < 0.003);
    assert_true (fabs (normal / COUNT) < 0.01);
    assert_true (fabs (power2 / COUNT - 1) < 0.02);
    assert_true (fabs (power4 / COUNT - 3) < 0.15);
    //  Chi-squared of 15 degrees of freedom: 37.7 is its 99.9 % point.
    double chi = 0, expected = COUNT / 16.0;
    for (size_t i = 0; i < 16; i++)
        chi += ((double)bins[i] - expected) * ((double)bins[i] - expected) / expected;
    assert_true (chi < 37.7);
}

static void
test_below_stays_below (void **state)
{
    tl_stream_t stream = s_stream ();
    size_t seen[7] = {0};
    for (uint64_t i = 0; i < 7000; i++)
        seen[tl_random_below (&stream, i, 7)]++;
    for (size_t i = 0; i < 7; i++)
        assert_in_range (seen[i], 850, 1150);
    assert_int_equal (tl_random_below (&stream, 0, 1), 0);
    assert_int_equal (tl_random_below (&stream, 0, 0), 0);
    assert_true (tl_random_below (&stream, 0, UINT64_MAX) > UINT32_MAX);
}

static void
test_keep_is_the_same_however_it_is_cut (void **state)
{
    enum { COUNT = 1003 };
    tl_stream_t stream = s_stream ();
    float whole[COUNT], parts[COUNT];
    tl_random_keep (&stream, 11, COUNT, 0.25f, whole);
    size_t cuts[] = {0, 1, 2, 7, 8, 300, 301, COUNT};
    for (size_t i = 0; i + 1 < sizeof cuts / sizeof cuts[0]; i++)
        tl_random_keep (&stream, 11 + cuts[i], cuts[i + 1] - cuts[i], 0.25f, parts + cuts[i]);
    assert_memory_equal (whole, parts, sizeof whole);
    //  The mask is made of the stream's integers: below p * 2^32 is dropped.
    for (size_t i = 0; i < COUNT; i++)
        assert_true ((whole[i] == 0) == (tl_random_u32 (&stream, 11 + i) < 0x40000000u));
    float far[64];
    uint64_t start = (UINT64_C (1) << 34) - 30; //  where block numbers outgrow 32 bits
    tl_random_keep (&stream, start, 64, 0.25f, far);
    for (size_t i = 0; i < 64; i++)
        assert_true ((far[i] == 0) == (tl_random_u32 (&stream, start + i) < 0x40000000u));
    size_t kept = 0;
    for (size_t i = 0; i < COUNT; i++) {
        assert_true (whole[i] == 0 || whole[i] == 1 / 0.75f);
        kept += whole[i] != 0;
    }
    assert_in_range (kept, 700, 805);
    tl_random_keep (&stream, 0, COUNT, 0, whole);
    for (size_t i = 0; i < COUNT; i++)
        assert_true (whole[i] == 1);
    tl_random_keep (&stream, 0, COUNT, 1, whole);
    for (size_t i = 0; i < COUNT; i++)
        assert_true (whole[i] == 0);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_philox_known_answers),
        cmocka_unit_test (test_streams_never_change),
        cmocka_unit_test (test_any_difference_is_another_stream),
        cmocka_unit_test (test_uniform_and_normal_moments),
        cmocka_unit_test (test_below_stays_below),
        cmocka_unit_test (test_keep_is_the_same_however_it_is_cut),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
