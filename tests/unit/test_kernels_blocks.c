//  GGUF's quantised types against the Python package gguf (tests/golden/make_blocks.py), to the bit: read on every
//  instruction set of this CPU, and written.

#include "unit/cmocka_all.h"

#include "kernels/kernels.h"
#include "memory.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void (widen_t) (float *out, const void *in, tl_dtype_t dtype, size_t count);
widen_t tl_widen_base, tl_widen_v3, tl_widen_v4;

static const char s_path[] = "tests/golden/data/blocks.safetensors";

static tl_safetensors_t *
s_open (void)
{
    tl_error_t err;
    tl_safetensors_t *file = tl_safetensors_open (s_path, &err);
    if (!file)
        fail_msg ("%s", err.text);
    return file;
}

static const tl_st_tensor_t *
s_tensor (tl_safetensors_t *file, tl_dtype_t dtype, const char *what)
{
    char *name = tl_format ("%s.%s", tl_dtype_name (dtype), what);
    const tl_st_tensor_t *tensor = tl_safetensors_find (file, name);
    if (!tensor)
        fail_msg ("%s has no %s", s_path, name);
    free (name);
    return tensor;
}

static void
test_blocks_widen_to_the_bit (void **state)
{
    static const struct {
        const char *name;
        widen_t *widen;
    } isas[] = {{"base", tl_widen_base}, {"v3", tl_widen_v3}, {"v4", tl_widen_v4}};
    tl_safetensors_t *file = s_open ();
    for (tl_dtype_t dtype = TL_Q8_0; dtype < TL_DTYPES; dtype++) {
        const tl_st_tensor_t *blocks = s_tensor (file, dtype, "blocks");
        const tl_st_tensor_t *values = s_tensor (file, dtype, "values");
        size_t count = values->bytes / sizeof (float);
        assert_int_equal (tl_dtype_bytes (dtype, count), blocks->bytes);
        for (size_t isa = 0; isa < 3; isa++) {
            if (!tl_kernels_of (isas[isa].name))
                continue;
            //  Nothing is read or written past the ends: both lie in blocks of exactly their size.
            float *out = malloc (values->bytes);
            void *in = malloc (blocks->bytes);
            memcpy (in, blocks->data, blocks->bytes);
            isas[isa].widen (out, in, dtype, count);
            for (size_t i = 0; i < count; i++)
                if (memcmp (&out[i], (const float *)values->data + i, sizeof (float)) != 0)
                    fail_msg ("%s %s value %zu: got %.9g, expected %.9g", isas[isa].name,
                              tl_dtype_name (dtype), i, (double)out[i],
                              (double)((const float *)values->data)[i]);
            free (out);
            free (in);
        }
    }
    tl_safetensors_destroy (&file);
}

//  The rows of decoding are multiplied with blocks as they lie, without widening them first.
static void
test_few_rows_of_every_type (void **state)
{
    enum { IN = 256 };
    static const char *const isas[] = {"base", "v3", "v4"};
    tl_safetensors_t *file = s_open ();
    for (tl_dtype_t dtype = TL_Q8_0; dtype < TL_DTYPES; dtype++) {
        const tl_st_tensor_t *blocks = s_tensor (file, dtype, "blocks");
        const tl_st_tensor_t *values = s_tensor (file, dtype, "values");
        const float *w = (const float *)values->data;
        size_t out = values->bytes / sizeof (float) / IN;
        assert_true (out > 0);
        float *y = calloc (4 * out, sizeof *y), x[4 * IN];
        for (size_t i = 0; i < 4 * IN; i++)
            x[i] = (float)((i * 37) % 101) / 50 - 1;
        for (size_t isa = 0; isa < 3; isa++)
            for (size_t n = 1; tl_kernels_of (isas[isa]) && n <= 4; n++) {
                tl_kernels_of (isas[isa])->linear_forward (y, x, blocks->data, dtype, NULL, n, IN,
                                                           out, 1, 0);
                for (size_t i = 0; i < n * out; i++) {
                    double sum = 0, size = 0;
                    for (size_t k = 0; k < IN; k++) {
                        double term = (double)x[i / out * IN + k] * w[i % out * IN + k];
                        sum += term;
                        size += term < 0 ? -term : term;
                    }
                    if (!(fabs (y[i] - sum) <= 1e-6 * size))
                        fail_msg ("%s %s %zu rows, value %zu: got %.9g, expected %.9g", isas[isa],
                                  tl_dtype_name (dtype), n, i, (double)y[i], sum);
                }
            }
        free (y);
    }
    tl_safetensors_destroy (&file);
}

static void
test_blocks_are_written_to_the_bit (void **state)
{
    tl_safetensors_t *file = s_open ();
    const tl_st_tensor_t *rows = tl_safetensors_find (file, "rows");
    assert_non_null (rows);
    size_t count = rows->bytes / sizeof (float);
    for (tl_dtype_t dtype = TL_Q8_0; dtype <= TL_Q4_1; dtype++) {
        const tl_st_tensor_t *written = s_tensor (file, dtype, "written");
        unsigned char *out = malloc (written->bytes);
        assert_int_equal (tl_dtype_bytes (dtype, count), written->bytes);
        tl_narrow (out, rows->data, dtype, count);
        for (size_t i = 0; i < written->bytes; i++)
            if (out[i] != ((const unsigned char *)written->data)[i])
                fail_msg ("%s byte %zu: got %02x, expected %02x", tl_dtype_name (dtype), i, out[i],
                          ((const unsigned char *)written->data)[i]);
        free (out);
    }
    tl_safetensors_destroy (&file);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_blocks_widen_to_the_bit),
        cmocka_unit_test (test_few_rows_of_every_type),
        cmocka_unit_test (test_blocks_are_written_to_the_bit),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
