//  A checkpoint written piece by piece: one file or several with an index, and nothing when it isn't finished.

#include "unit/cmocka_all.h"

#include "file.h"
#include "model/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TENSORS = 3 };
static const float s_values[6] = {1, -2, 3.5f, 4, 0.25f, -6};
static const tl_st_tensor_t s_tensors[TENSORS] = {
    {.name = "a", .dtype = TL_ST_F32, .dimensions = 2, .shape = {1, 2}, .bytes = 8},
    {.name = "b", .dtype = TL_ST_F32, .dimensions = 1, .shape = {3}, .bytes = 12},
    {.name = "c", .dtype = TL_ST_F32, .dimensions = 1, .shape = {1}, .bytes = 4},
};

static int
s_setup (void **state)
{
    char *directory = strdup ("/tmp/tl-checkpoint-XXXXXX");
    *state = directory;
    return mkdtemp (directory) ? 0 : -1;
}

static int
s_teardown (void **state)
{
    int rc = tl_remove_tree (*state);
    free (*state);
    return rc;
}

static bool
s_there (const char *directory, const char *name)
{
    char path[256];
    snprintf (path, sizeof path, "%s/%s", directory, name);
    return tl_exists (path);
}

//  The tensor of that name in that file has count of s_values from first on.
static void
s_expect (const char *directory, const char *file, const char *name, size_t first, size_t count)
{
    char path[256];
    tl_error_t err;
    snprintf (path, sizeof path, "%s/%s", directory, file);
    tl_safetensors_t *reader = tl_safetensors_open (path, &err);
    assert_non_null (reader);
    const tl_st_tensor_t *tensor = tl_safetensors_find (reader, name);
    assert_non_null (tensor);
    assert_int_equal (tensor->bytes, count * sizeof (float));
    assert_memory_equal (tensor->data, s_values + first, tensor->bytes);
    tl_safetensors_destroy (&reader);
}

static void
test_one_file_from_odd_pieces (void **state)
{
    tl_error_t err;
    tl_checkpoint_t *checkpoint = tl_checkpoint_new (*state, s_tensors, TENSORS, 0, 0644, &err);
    assert_non_null (checkpoint);
    for (size_t at = 0; at < sizeof s_values; at += 5) {
        size_t piece = sizeof s_values - at < 5 ? sizeof s_values - at : 5;
        assert_int_equal (tl_checkpoint_add (checkpoint, (const char *)s_values + at, piece, &err),
                          0);
    }
    assert_false (s_there (*state, "model.safetensors"));
    assert_int_equal (tl_checkpoint_finish (checkpoint, &err), 0);
    tl_checkpoint_destroy (&checkpoint);
    s_expect (*state, "model.safetensors", "b", 2, 3);
    s_expect (*state, "model.safetensors", "c", 5, 1);
    assert_false (s_there (*state, "model.safetensors.index.json"));
    assert_false (s_there (*state, "model.safetensors.tmp"));
}

static void
test_several_files_and_an_index (void **state)
{
    tl_error_t err;
    tl_checkpoint_t *checkpoint = tl_checkpoint_new (*state, s_tensors, TENSORS, 16, 0644, &err);
    assert_non_null (checkpoint);
    assert_int_equal (tl_checkpoint_add (checkpoint, s_values, sizeof s_values, &err), 0);
    assert_false (s_there (*state, "model.safetensors.index.json"));
    assert_int_equal (tl_checkpoint_finish (checkpoint, &err), 0);
    tl_checkpoint_destroy (&checkpoint);
    s_expect (*state, "model-00001-of-00002.safetensors", "a", 0, 2);
    s_expect (*state, "model-00002-of-00002.safetensors", "b", 2, 3);
    s_expect (*state, "model-00002-of-00002.safetensors", "c", 5, 1);
    assert_true (s_there (*state, "model.safetensors.index.json"));
}

static void
test_what_is_not_finished_is_not_there (void **state)
{
    tl_error_t err;
    tl_checkpoint_t *checkpoint = tl_checkpoint_new (*state, s_tensors, TENSORS, 16, 0644, &err);
    assert_non_null (checkpoint);
    assert_int_equal (tl_checkpoint_add (checkpoint, s_values, 20, &err), 0);
    tl_checkpoint_destroy (&checkpoint);
    assert_int_equal (rmdir (*state), 0);
    assert_int_equal (tl_mkdirs (*state, &err), 0);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown (test_one_file_from_odd_pieces, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_several_files_and_an_index, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_what_is_not_finished_is_not_there, s_setup,
                                         s_teardown),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
