//  Every kernel in float, on every instruction set of this CPU, against the same source in double; and
//  the same call twice, and on buffers that start elsewhere: the same bits.

#include "unit/kernels_support.h"

enum { RECORDS = 64 };

//  What one run gave: name and values, in order.
typedef struct {
    size_t count;
    struct {
        const char *name;
        size_t count;
        double *values;
    } items[RECORDS];
} s_record_t;

static void
s_keep (s_record_t *record, const char *name, const void *values, size_t size, size_t count)
{
    assert_true (record->count < RECORDS);
    double *copy = tl_alloc_aligned (count * sizeof *copy);
    for (size_t i = 0; i < count; i++)
        copy[i] = size == sizeof (float) ? ((const float *)values)[i] : ((const double *)values)[i];
    record->items[record->count].name = name;
    record->items[record->count].count = count;
    record->items[record->count++].values = copy;
}

static void
s_clear (s_record_t *record)
{
    while (record->count > 0)
        free (record->items[--record->count].values);
}

//  Sizes of the calls, odd on purpose, and of the buffers.
enum { N = 19, H = 101, IN = 37, OUT = 53, VOCAB = 211, T = 23, D = 12, F = 67 };
enum { MOST = VOCAB * H, BUFFERS = 10 };
static const int32_t s_ids[N] = {1, 5, 210, 0, 7, 7, 9, 31, 100, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

#define REAL float
#define TABLE tl_kernels_t
#define FILL tests_fill_f32
#define PART(name) s_##name##_f32
#include "unit/kernels_run.h"
#undef REAL
#undef TABLE
#undef FILL
#undef PART
#define REAL double
#define TABLE tl_kernels_f64_t
#define FILL tests_fill_f64
#define PART(name) s_##name##_f64
#include "unit/kernels_run.h"

static void
test_float_follows_double (void **state)
{
    s_record_t truth = {0};
    s_run_f64 (tl_kernels_f64 (), &truth, 0);
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        if (!k) {
            print_message ("this CPU has no %s\n", tests_isas[isa]);
            continue;
        }
        s_record_t got = {0};
        s_run_f32 (k, &got, 0);
        assert_int_equal (got.count, truth.count);
        for (size_t i = 0; i < got.count; i++)
            tests_close_f64 (got.items[i].name, got.items[i].values, truth.items[i].values,
                             got.items[i].count, 2e-6);
        s_clear (&got);
    }
    s_clear (&truth);
}

static void
test_same_call_same_bits (void **state)
{
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        s_record_t first = {0}, second = {0};
        for (size_t shift = 0; k && shift < 4; shift++) {
            s_run_f32 (k, &first, 0);
            s_run_f32 (k, &second, shift);
            for (size_t i = 0; i < first.count; i++)
                if (memcmp (first.items[i].values, second.items[i].values,
                            first.items[i].count * sizeof (double)) != 0)
                    fail_msg ("%s: %s differs when buffers start %zu floats later", tests_isas[isa],
                              first.items[i].name, shift);
            s_clear (&first);
            s_clear (&second);
        }
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_float_follows_double),
        cmocka_unit_test (test_same_call_same_bits),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
