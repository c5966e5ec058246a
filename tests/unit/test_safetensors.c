//  The .safetensors container: what is written is read back; what is damaged is refused with a sentence.

#include "unit/cmocka_all.h"

#include "model/safetensors.h"

#include "file.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const float s_matrix[6] = {1, 2, 3, 4, 5, 6};
static const uint16_t s_half[3] = {0x3c00, 0x4000, 0x4200};
static const uint8_t s_bytes[3] = {7, 8, 9};

static const tl_st_tensor_t s_tensors[] = {
    {.name = "bytes",
     .dtype = TL_ST_U8,
     .dimensions = 1,
     .shape = {3},
     .bytes = 3,
     .data = s_bytes},
    {.name = "half", .dtype = TL_ST_F16, .dimensions = 1, .shape = {3}, .bytes = 6, .data = s_half},
    {.name = "matrix",
     .dtype = TL_ST_F32,
     .dimensions = 2,
     .shape = {2, 3},
     .bytes = 24,
     .data = s_matrix},
};
static const char *const s_metadata[] = {"format", "pt", NULL};

static void
test_round_trip (void **state)
{
    tl_error_t err = {0};
    char path[] = "/tmp/tl-safetensors-XXXXXX";
    int fd = mkstemp (path);
    assert_true (fd >= 0);
    close (fd);
    assert_int_equal (tl_safetensors_write (path, 0644, s_tensors, 3, s_metadata, &err), 0);

    tl_safetensors_t *file = tl_safetensors_open (path, &err);
    assert_non_null (file);
    assert_int_equal (tl_safetensors_count (file), 3);
    assert_string_equal (tl_safetensors_at (file, 0)->name, "bytes"); //  by name, not by place
    assert_string_equal (tl_safetensors_metadata (file, "format"), "pt");
    assert_null (tl_safetensors_metadata (file, "nothing"));
    assert_null (tl_safetensors_find (file, "nothing"));
    const tl_st_tensor_t *matrix = tl_safetensors_find (file, "matrix");
    assert_int_equal (matrix->dimensions, 2);
    assert_int_equal (matrix->shape[0], 2);
    assert_int_equal (matrix->shape[1], 3);
    assert_memory_equal (matrix->data, s_matrix, sizeof s_matrix);
    assert_memory_equal (tl_safetensors_find (file, "half")->data, s_half, sizeof s_half);
    tl_safetensors_destroy (&file);
    tl_safetensors_destroy (&file); //  idempotent
    unlink (path);
}

static void
test_writing_is_deterministic_and_aligned (void **state)
{
    size_t one_size = 0, two_size = 0;
    void *one = tl_safetensors_serialise (s_tensors, 3, s_metadata, &one_size);
    void *two = tl_safetensors_serialise (s_tensors, 3, s_metadata, &two_size);
    assert_int_equal (one_size, two_size);
    assert_memory_equal (one, two, one_size);
    tl_error_t err = {0};
    tl_safetensors_t *file = tl_safetensors_parse ("one", one, one_size, &err);
    const unsigned char *first = tl_safetensors_find (file, "matrix")->data;
    //  The widest dtype lies first, on a multiple of 8 in the file, and is not copied.
    assert_true (first > (unsigned char *)one && first < (unsigned char *)one + one_size);
    assert_int_equal ((first - (unsigned char *)one) % 8, 0);
    tl_safetensors_destroy (&file);
    free (one);
    free (two);
}

//  A file of this header and so many bytes of data (0, 1, 2 ...).
static unsigned char *
s_file (const char *header, size_t data, size_t *size)
{
    size_t length = strlen (header);
    *size = 8 + length + data;
    unsigned char *file = tl_alloc (*size);
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)(length >> 8 * i);
    memcpy (file + 8, header, length);
    for (size_t i = 0; i < data; i++)
        file[8 + length + i] = (unsigned char)i;
    return file;
}

static void
test_data_at_odd_places_is_handed_out_aligned (void **state)
{
    tl_error_t err = {0};
    size_t size = 0;
    unsigned char *bytes =
        s_file ("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]},"
                "\"c\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[7,15]}}",
                15, &size);
    tl_safetensors_t *file = tl_safetensors_parse ("odd", bytes, size, &err);
    assert_non_null (file);
    const unsigned char expected[4] = {3, 4, 5, 6};
    assert_memory_equal (tl_safetensors_find (file, "b")->data, expected, 4);
    assert_int_equal ((uintptr_t)tl_safetensors_find (file, "b")->data % 4, 0);
    assert_int_equal ((uintptr_t)tl_safetensors_at (file, 2)->data % 8, 0);
    tl_safetensors_destroy (&file);
    free (bytes);
}

static void
test_damage_is_refused_with_a_sentence (void **state)
{
    static const struct {
        const char *header;
        size_t data;
        const char *told; //  what the sentence must contain
    } cases[] = {
        {"[]", 0, "not a JSON object"},
        {"{", 0, "not valid JSON"},
        {"{\"a\":1}", 0, "dtype (missing)"},
        {"{\"a\":{\"dtype\":\"F8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype F8"},
        {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "shape must be a list"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "at most 4"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "negative"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,1]}}", 1, "whole number"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
         "too large"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, "make 2 bytes"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "begin <= end"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "[begin, end]"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]}}", 7, "truncated"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "before tensor a"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2, "after the last"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, "duplicate"},
        {"{\"__metadata__\":{\"format\":1}}", 0, "__metadata__"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tl_error_t err = {0};
        size_t size = 0;
        unsigned char *bytes = s_file (cases[i].header, cases[i].data, &size);
        assert_null (tl_safetensors_parse ("damaged.safetensors", bytes, size, &err));
        assert_int_equal (err.code, TL_BAD_INPUT);
        if (!strstr (err.text, cases[i].told) || !strstr (err.text, "damaged.safetensors"))
            fail_msg ("expected '%s' in: %s", cases[i].told, err.text);
        free (bytes);
    }
}

static void
test_headers_longer_than_the_file (void **state)
{
    tl_error_t err = {0};
    static const unsigned char shorter[] = {1, 2, 3};
    static const unsigned char longer[] = {0xff, 0xff, 0xff, 0xff, 0xff,
                                           0xff, 0xff, 0xff, '{',  '}'};
    assert_null (tl_safetensors_parse ("x", shorter, sizeof shorter, &err));
    assert_non_null (strstr (err.text, "too few"));
    assert_null (tl_safetensors_parse ("x", longer, sizeof longer, &err));
    assert_non_null (strstr (err.text, "header should have"));
    assert_null (tl_safetensors_open ("/nonexistent/model.safetensors", &err));
    assert_non_null (strstr (err.text, "/nonexistent/model.safetensors"));
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_round_trip),
        cmocka_unit_test (test_writing_is_deterministic_and_aligned),
        cmocka_unit_test (test_data_at_odd_places_is_handed_out_aligned),
        cmocka_unit_test (test_damage_is_refused_with_a_sentence),
        cmocka_unit_test (test_headers_longer_than_the_file),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
