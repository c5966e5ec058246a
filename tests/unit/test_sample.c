//  From logits to a token: greedy, hot, and with the tail cut off.

#include "unit/cmocka_all.h"

#include "fed/sample.h"

#include "random.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static const float s_logits[] = {0.0f, 2.0f, 1.0f, 2.0f, -1e30f};

static void
test_greedy_takes_the_lowest_of_equals (void **state)
{
    tl_sampling_t settings = {.temperature = 0, .top_p = 1};
    assert_int_equal (tl_sample (s_logits, 5, &settings, NULL, 0, 0), 1);
}

static void
test_top_k_and_top_p_cut (void **state)
{
    tl_sampling_t one = {.temperature = 50, .top_p = 1, .top_k = 1};
    tl_sampling_t two = {.temperature = 50, .top_p = 1, .top_k = 2};
    tl_sampling_t narrow = {.temperature = 1, .top_p = 1e-9};
    for (uint64_t position = 0; position < 100; position++) {
        assert_int_equal (tl_sample (s_logits, 5, &one, NULL, 0, position), 1);
        assert_int_equal (tl_sample (s_logits, 5, &narrow, NULL, 0, position), 1);
        int32_t drawn = tl_sample (s_logits, 5, &two, NULL, 0, position);
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
        int32_t drawn = tl_sample (s_logits, 5, &settings, NULL, 0, position);
        assert_int_equal (drawn, tl_sample (s_logits, 5, &settings, NULL, 0, position));
        counts[drawn]++;
    }
    for (int i = 0; i < 5; i++) {
        double p = exp (s_logits[i]) / total, allowed = 5 * sqrt (DRAWS * p * (1 - p)) + 1e-9;
        if (!(fabs (counts[i] - DRAWS * p) <= allowed))
            fail_msg ("token %d: drawn %g times, expected %g +- %g", i, counts[i], DRAWS * p,
                      allowed);
    }
}

//  What may be drawn, found the plain way: sort all, cut after top_k, then after the share top_p.
static void
s_allowed (const float *logits, size_t vocab, const tl_sampling_t *settings, bool *allowed)
{
    bool taken[64] = {false};
    double weights[64], total = 0, mass = 0;
    size_t order[64], most = settings->top_k && settings->top_k < vocab ? settings->top_k : vocab;
    for (size_t i = 0; i < most; i++) {
        size_t best = vocab;
        for (size_t j = 0; j < vocab; j++)
            if (!taken[j] && (best == vocab || logits[j] > logits[best]))
                best = j;
        taken[order[i] = best] = true;
        weights[i] = exp ((double)logits[best] / settings->temperature);
        total += weights[i];
    }
    memset (allowed, 0, vocab * sizeof *allowed);
    for (size_t i = 0; i < most && (i == 0 || mass < settings->top_p * total); i++) {
        mass += weights[i];
        allowed[order[i]] = true;
    }
}

static void
test_only_the_allowed_are_drawn_and_all_of_them (void **state)
{
    enum { VOCAB = 40, DRAWS = 3000 };
    const double top_p[] = {1, 0.9, 0.5, 0.05};
    const size_t top_k[] = {0, 1, 3, 17, 40, 1000};
    for (size_t c = 0; c < 24; c++) {
        float logits[VOCAB];
        bool allowed[VOCAB], drawn[VOCAB] = {false};
        tl_stream_t stream = {c, TL_DRAW_NOISE, 0, 0, 0};
        for (size_t i = 0; i < VOCAB; i++)
            logits[i] = (float)(int)(3 * tl_random_normal (&stream, i)); //  many are equal
        tl_sampling_t settings = {
            .temperature = 4, .top_p = top_p[c % 4], .top_k = top_k[c / 4], .seed = c};
        s_allowed (logits, VOCAB, &settings, allowed);
        for (uint64_t position = 0; position < DRAWS; position++)
            drawn[tl_sample (logits, VOCAB, &settings, NULL, 0, position)] = true;
        for (size_t i = 0; i < VOCAB; i++) {
            if (drawn[i] && !allowed[i])
                fail_msg ("case %zu: token %zu was drawn, but is cut off", c, i);
            //  At this temperature even the rarest has some 1 in 700.
            if (!drawn[i] && allowed[i] && logits[i] >= 0)
                fail_msg ("case %zu: token %zu was never drawn", c, i);
        }
    }
}

static void
test_the_penalty_is_hugging_faces (void **state)
{
    const float logits[] = {3.0f, 2.9f, -1.0f, -1.1f};
    const int32_t past[] = {0, 0, 0, 2}; //  twice the same counts once
    tl_sampling_t greedy = {.top_p = 1, .penalty = 1.03};
    assert_int_equal (tl_sample (logits, 4, &greedy, past, 4, 0), 0);
    greedy.penalty = 1.05; //  3 / 1.05 = 2.86 < 2.9, 3 / 1.03 = 2.91
    assert_int_equal (tl_sample (logits, 4, &greedy, past, 4, 0), 1);
    const float negative[] = {-1.0f, -1.1f};
    const int32_t first[] = {0};
    greedy.penalty = 1.2;
    assert_int_equal (tl_sample (negative, 2, &greedy, first, 1, 0), 1);
    greedy.penalty = 1;
    assert_int_equal (tl_sample (negative, 2, &greedy, first, 1, 0), 0);
    //  Ids that the head doesn't have are no concern of it.
    const int32_t strange[] = {-1, 2, 1 << 30};
    greedy.penalty = 2;
    assert_int_equal (tl_sample (negative, 2, &greedy, strange, 3, 0), 0);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_greedy_takes_the_lowest_of_equals),
        cmocka_unit_test (test_top_k_and_top_p_cut),
        cmocka_unit_test (test_draws_follow_the_probabilities),
        cmocka_unit_test (test_only_the_allowed_are_drawn_and_all_of_them),
        cmocka_unit_test (test_the_penalty_is_hugging_faces),
    };
    return cmocka_run_group_tests_name ("sample", tests, NULL, NULL);
}
