//  linear, layer norm and RMS norm against what PyTorch computed (../shared/golden/chatglm-tiny).

#include "unit/kernels_support.h"
#include "file.h"

#define GOLDEN "../shared/golden/chatglm-tiny"

//  A raw file of floats. The caller frees.
static float *
s_read (const char *name, size_t count)
{
    char path[256];
    tl_error_t err = {0};
    size_t size = 0;
    snprintf (path, sizeof path, GOLDEN "/%s", name);
    float *data = (float *)tl_file_read (path, 1 << 20, &size, &err);
    if (!data)
        fail_msg ("%s", err.text);
    assert_int_equal (size, count * sizeof *data);
    return data;
}

static void
s_close (const char *what, const float *got, const float *expected, size_t count, double limit)
{
    double wide[256];
    for (size_t i = 0; i < count; i++)
        wide[i] = expected[i];
    tests_close_f32 (what, got, wide, count, limit);
}

static void
test_linear (void **state)
{
    //  W [32, 64], b [32], x [2, 64], y [2, 32], x [64], y [32]
    float *data = s_read ("linear.data", 2048 + 32 + 128 + 64 + 64 + 32), y[64];
    const float *w = data, *b = w + 2048, *x = b + 32, *y2 = x + 128, *x1 = y2 + 64, *y1 = x1 + 64;
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        if (!k)
            continue;
        k->linear_forward (y, x, w, TL_F32, b, 2, 64, 32, 1, 0);
        s_close ("linear, two rows", y, y2, 64, 2e-6);
        k->linear_forward (y, x1, w, TL_F32, b, 1, 64, 32, 1, 0);
        s_close ("linear, one row", y, y1, 32, 2e-6);
    }
    free (data);
}

static void
test_layernorm (void **state)
{
    //  w, b [64], x [3, 64], y [3, 64]
    float *data = s_read ("layer_norm.data", 128 + 384), y[192], mean[3], rstd[3];
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        if (!k)
            continue;
        k->layernorm_forward (y, mean, rstd, data + 128, data, data + 64, 3, 64, 1e-5);
        s_close ("layer norm", y, data + 320, 192, 1e-6);
    }
    free (data);
}

static void
test_rmsnorm (void **state)
{
    //  w [64], x [3, 64], y [3, 64]
    float *data = s_read ("rms_norm.data", 64 + 384), y[192], rstd[3];
    for (size_t isa = 0; isa < 3; isa++) {
        const tl_kernels_t *k = tl_kernels_of (tests_isas[isa]);
        if (!k)
            continue;
        k->rmsnorm_forward (y, rstd, data + 64, data, 3, 64, 1e-5);
        s_close ("rms norm", y, data + 256, 192, 1e-6);
    }
    free (data);
}

int
main (void)
{
    if (!tl_exists (GOLDEN)) {
        fprintf (stderr, "skipped: %s is absent, so nothing was compared with PyTorch\n", GOLDEN);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_linear),
        cmocka_unit_test (test_layernorm),
        cmocka_unit_test (test_rmsnorm),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
