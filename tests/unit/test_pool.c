//  Work shared by threads: every piece once, whatever the threads do.

#include "unit/cmocka_all.h"

#include "kernels/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { PIECES = 100, RUNS = 2000 };

static void
s_mark (void *arg, size_t index)
{
    ((unsigned char *)arg)[index]++;
}

static void
test_every_piece_once (void **state)
{
    unsigned char marks[PIECES];
    for (size_t count = 0; count <= PIECES; count++) {
        memset (marks, 0, sizeof marks);
        tl_pool_run (count, s_mark, marks);
        for (size_t i = 0; i < PIECES; i++)
            assert_int_equal (marks[i], i < count);
    }
}

static void
test_many_short_runs (void **state)
{
    unsigned char marks[8];
    for (size_t run = 0; run < RUNS; run++) {
        memset (marks, 0, sizeof marks);
        tl_pool_run (sizeof marks, s_mark, marks);
        for (size_t i = 0; i < sizeof marks; i++)
            assert_int_equal (marks[i], 1);
    }
}

//  Runs of unequal counts, each in a hurry after the other: a helper that still looks at the last one must not take a
//  piece of the next one from it. Where that goes wrong the caller waits for ever.
static void
test_runs_of_unequal_counts (void **state)
{
    static const size_t counts[] = {2, 7, 3, 8, 2, 5};
    unsigned char marks[8];
    for (size_t run = 0; run < 100 * RUNS; run++) {
        size_t count = counts[run % (sizeof counts / sizeof *counts)];
        memset (marks, 0, sizeof marks);
        tl_pool_run (count, s_mark, marks);
        for (size_t i = 0; i < sizeof marks; i++)
            assert_int_equal (marks[i], i < count);
    }
}

static void
s_nest (void *arg, size_t index)
{
    tl_pool_run (PIECES, s_mark, (unsigned char *)arg + index * PIECES);
}

static void
test_runs_inside_a_piece (void **state)
{
    static unsigned char marks[4 * PIECES];
    memset (marks, 0, sizeof marks);
    tl_pool_run (4, s_nest, marks);
    for (size_t i = 0; i < sizeof marks; i++)
        assert_int_equal (marks[i], 1);
}

static void *
s_caller (void *arg)
{
    for (size_t run = 0; run < RUNS / 10; run++)
        tl_pool_run (PIECES, s_mark, arg);
    return NULL;
}

static void
test_two_callers_at_once (void **state)
{
    unsigned char marks[2][PIECES];
    pthread_t other;
    memset (marks, 0, sizeof marks);
    assert_int_equal (pthread_create (&other, NULL, s_caller, marks[1]), 0);
    s_caller (marks[0]);
    pthread_join (other, NULL);
    for (size_t i = 0; i < PIECES; i++) {
        assert_int_equal (marks[0][i], RUNS / 10);
        assert_int_equal (marks[1][i], RUNS / 10);
    }
}

int
main (void)
{
    tl_pool_open (3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_every_piece_once),
        cmocka_unit_test (test_many_short_runs),
        cmocka_unit_test (test_runs_of_unequal_counts),
        cmocka_unit_test (test_runs_inside_a_piece),
        cmocka_unit_test (test_two_callers_at_once),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
