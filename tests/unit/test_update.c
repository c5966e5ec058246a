//  The arithmetic of a step: schedule, norm, coefficient.

#include "unit/cmocka_all.h"

#include "fed/update.h"

#include <math.h>
#include <string.h>

static double
s_rate (double most, uint64_t step, uint64_t warmup, uint64_t steps, tl_decay_t decay)
{
    const tl_schedule_t schedule = {.most = most, .warmup = warmup, .steps = steps, .decay = decay};
    return tl_learning_rate (&schedule, step);
}

static void
test_rate_warms_up_then_falls_to_zero (void **state)
{
    //  As get_linear_schedule_with_warmup: 2 of 10 steps of warm-up, step 0 runs with 0.
    const double expected[] = {0,      0.5,    1,      7. / 8, 6. / 8, 5. / 8,
                               4. / 8, 3. / 8, 2. / 8, 1. / 8, 0};
    for (uint64_t step = 0; step <= 10; step++)
        assert_true (fabs (s_rate (1e-3, step, 2, 10, TL_DECAY_LINEAR) - 1e-3 * expected[step]) <
                     1e-18);
}

static void
test_rate_at_the_edges (void **state)
{
    assert_true (s_rate (1, 0, 0, 4, TL_DECAY_LINEAR) == 1);
    assert_true (s_rate (1, 9, 2, 4, TL_DECAY_LINEAR) == 0);
    assert_true (s_rate (1, 1, 2, 2, TL_DECAY_LINEAR) == 0.5);
    assert_true (s_rate (1, 2, 2, 2, TL_DECAY_LINEAR) == 0);
    assert_true (s_rate (1, 900, 2, 4, TL_DECAY_CONSTANT) == 1);
    assert_true (s_rate (1, 1, 4, 4, TL_DECAY_CONSTANT) == 0.25);
}

static void
test_rate_falls_in_a_half_wave (void **state)
{
    //  What get_cosine_schedule_with_warmup gives for 2 steps of warm-up in 10.
    const double expected[] = {0,
                               0.5,
                               1,
                               0.9619397662556434,
                               0.8535533905932737,
                               0.6913417161825449,
                               0.5,
                               0.3086582838174552,
                               0.14644660940672627,
                               0.03806023374435663,
                               0};
    for (uint64_t step = 0; step <= 10; step++)
        assert_true (fabs (s_rate (1e-3, step, 2, 10, TL_DECAY_COSINE) - 1e-3 * expected[step]) <
                     1e-18);
}

static void
test_rate_falls_to_its_least (void **state)
{
    const tl_schedule_t wave = {.most = 1, .least = 0.2, .steps = 4, .decay = TL_DECAY_COSINE};
    tl_schedule_t line = wave;
    line.decay = TL_DECAY_LINEAR;
    const double expected[] = {1, 0.8, 0.6, 0.4, 0.2, 0.2};
    for (uint64_t step = 0; step < 6; step++)
        assert_true (fabs (tl_learning_rate (&line, step) - expected[step]) < 1e-15);
    assert_true (tl_learning_rate (&wave, 0) == 1 && tl_learning_rate (&wave, 4) == 0.2);
    assert_true (fabs (tl_learning_rate (&wave, 2) - 0.6) < 1e-15);
    //  The way up starts at 0 whatever the least is.
    tl_schedule_t warm = wave;
    warm.warmup = 2;
    assert_true (tl_learning_rate (&warm, 0) == 0 && tl_learning_rate (&warm, 1) == 0.5);
}

static void
test_norm_is_of_the_mean_and_orders_itself (void **state)
{
    //  1e16 + 1 - loses the 1 if added late: whatever order the parts report in, one sum comes out.
    tl_norm_term_t one[] = {{0, 1}, {1, 1}, {2, 1e16}, {3, 3}}, two[4];
    for (size_t i = 0; i < 4; i++)
        two[i] = one[3 - i];
    double first = tl_gradient_norm (one, 4, 7), second = tl_gradient_norm (two, 4, 7);
    assert_memory_equal (&first, &second, sizeof first);
    tl_norm_term_t simple[] = {{5, 9}, {2, 16}};
    assert_true (tl_gradient_norm (simple, 2, 10) == 0.5);
    assert_true (tl_gradient_norm (simple, 0, 10) == 0);
    assert_true (tl_gradient_norm (simple, 2, 0) == 0);
}

static void
test_coefficient_clips_and_divides (void **state)
{
    assert_true (tl_coefficient (0.5, 1, 4) == 0.25);
    assert_true (fabs (tl_coefficient (2, 1, 4) - 0.25 / 2.000001) < 1e-15);
    assert_true (tl_coefficient (1e9, 0, 4) == 0.25);
    assert_true (tl_coefficient (1, 1, 0) == 0);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_rate_warms_up_then_falls_to_zero),
        cmocka_unit_test (test_rate_at_the_edges),
        cmocka_unit_test (test_rate_falls_in_a_half_wave),
        cmocka_unit_test (test_rate_falls_to_its_least),
        cmocka_unit_test (test_norm_is_of_the_mean_and_orders_itself),
        cmocka_unit_test (test_coefficient_clips_and_divides),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
