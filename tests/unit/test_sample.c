//  From logits to a token: greedy, hot, and with the tail cut off.

#include "unit/cmocka_all.h"

#include "fed/sample.h"

#include <math.h>

static const float s_logits[] = {0.0f, 2.0f, 1.0f, 2.0f, -1e30f};

static void
test_greedy_takes_the_lowest_of_equals (void **state)
{
    tl_sampling_t settings = {.temperature = 0, .top_p = 1};
    assert_int_equal (tl_sample (s_logits, 5, &settings, 0), 1);
}

static void
test_top_k_and_top_p_cut (void **state)
{
    tl_sampling_t one = {.temperature = 50, .top_p = 1, .top_k = 1};
    tl_sampling_t two = {.temperature = 50, .top_p = 1, .top_k = 2};
    tl_sampling_t narrow = {.temperature = 1, .top_p = 1e-9};
    for (uint64_t position = 0; position < 100; position++) {
        assert_int_equal (tl_sample (s_logits, 5, &one, position), 1);
        assert_int_equal (tl_sample (s_logits, 5, &narrow, position), 1);
        int32_t drawn = tl_sample (s_logits, 5, &two, position);
        assert_true (drawn == 1 || drawn == 3);
    }
}

//  20,000 draws lie within 5 standard deviations of the probabilities; the same address draws the same.
static void
test_draws_follow_the_probabilities (void **state)
{
    enum { DRAWS = 20000 };
    tl_sampling_t settings = {.temperature = 1, .top_p = 1, .seed = 7};
    double total = 0, counts[5] = {0};
    for (int i = 0; i < 5; i++)
        total += exp (s_logits[i]);
    for (uint64_t position = 0; position < DRAWS; position++) {
        int32_t drawn = tl_sample (s_logits, 5, &settings, position);
        assert_int_equal (drawn, tl_sample (s_logits, 5, &settings, position));
        counts[drawn]++;
    }
    for (int i = 0; i < 5; i++) {
        double p = exp (s_logits[i]) / total, allowed = 5 * sqrt (DRAWS * p * (1 - p)) + 1e-9;
        if (!(fabs (counts[i] - DRAWS * p) <= allowed))
            fail_msg ("token %d: drawn %g times, expected %g +- %g", i, counts[i], DRAWS * p,
                      allowed);
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_greedy_takes_the_lowest_of_equals),
        cmocka_unit_test (test_top_k_and_top_p_cut),
        cmocka_unit_test (test_draws_follow_the_probabilities),
    };
    return cmocka_run_group_tests_name ("sample", tests, NULL, NULL);
}
