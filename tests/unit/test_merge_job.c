//  The aggregator's work: who is left out of a merge and what is said of it, what one member can claim to have learnt,
//  and a state that goes on.

#include "unit/cmocka_all.h"

#include "actors/merge_job.h"
#include "file.h"
#include "memory.h"
#include "model/safetensors.h"
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tl_server_spec_t s_adam = {
    .optimizer = TL_SERVER_ADAM, .lr = 0.1, .momentum = 0.9, .beta2 = 0.99, .eps = 1e-3};
static const tl_server_spec_t s_plain = {.optimizer = TL_SERVER_NONE};

//  A state (or gradient) of one number, as it comes out of the chunks that brought it.
static tl_assembly_t *
s_part (bool gradient, float value)
{
    static const float zero = 0;
    const float *values[] = {&value, &zero, &zero};
    static const char *const kinds[] = {"value:x", "m:x", "v:x"};
    tl_st_tensor_t entries[3];
    for (size_t i = 0; i < 3; i++)
        entries[i] = (tl_st_tensor_t){.name = gradient ? "gradient:x" : kinds[i],
                                      .dtype = TL_ST_F32,
                                      .dimensions = 2,
                                      .shape = {1, 1},
                                      .bytes = sizeof (float),
                                      .data = values[i]};
    const char *metadata[] = {gradient ? "trunkline.gradient" : "trunkline.state",
                              "1",
                              "trunkline.manifest",
                              "abc",
                              "trunkline.tune",
                              "{}",
                              "trunkline.updates",
                              "1",
                              NULL};
    size_t size;
    void *blob = tl_safetensors_serialise (entries, gradient ? 1 : 3, metadata, &size);
    tl_packed_t *packed = tl_pack_own (blob, size);
    tl_tensor_wire_t descriptor;
    tl_error_t err;
    const void *data = tl_packed_chunk (packed, 0, &descriptor);
    tl_assembly_t *part = tl_assembly_new (&descriptor, 1, 1 << 20, &err);
    assert_non_null (part);
    assert_int_equal (tl_assembly_add (part, &descriptor, data, descriptor.size, &err), 1);
    tl_packed_release (NULL, packed);
    tl_packed_destroy (&packed);
    return part;
}

static tl_merge_job_t *
s_job (tl_mergers_t *mergers, tl_merge_kind_t kind, uint64_t step)
{
    tl_merge_job_t *job = tl_alloc (sizeof *job);
    job->mergers = mergers;
    job->kind = kind;
    job->step = step;
    job->quorum = 1;
    job->most_labels = 100;
    job->brought = tl_alloc (4 * sizeof *job->brought);
    return job;
}

//  part NULL: why it did not come.
static void
s_bring (tl_merge_job_t *job, const char *name, tl_assembly_t *part, uint64_t labels,
         const char *why)
{
    tl_brought_t *brought = &job->brought[job->count++];
    snprintf (brought->name, sizeof brought->name, "%s", name);
    snprintf (brought->why, sizeof brought->why, "%s", why);
    brought->part = part;
    brought->labels = labels;
}

//  The one number that came of it.
static double
s_result (tl_merge_job_t *job, const char *name)
{
    assert_non_null (job->result);
    tl_tensor_wire_t descriptor;
    tl_error_t err;
    const void *data = tl_packed_chunk (job->result, 0, &descriptor);
    tl_safetensors_t *file = tl_safetensors_parse ("result", data, descriptor.size, &err);
    assert_non_null (file);
    double value = *(const float *)tl_safetensors_find (file, name)->data;
    tl_safetensors_destroy (&file);
    tl_packed_release (NULL, job->result);
    return value;
}

static void
s_says (const tl_merge_job_t *job, const char *text)
{
    if (!strstr (job->text, text))
        fail_msg ("expected '%s' in: %s", text, job->text);
}

static void
test_who_is_left_out (void **state)
{
    tl_mergers_t mergers;
    tl_mergers_open (&mergers, &s_plain);
    tl_merge_job_t *job = s_job (&mergers, TL_MERGE_KIND_CLIENTS, 10);
    s_bring (job, "north", s_part (false, 1), 30, "");
    s_bring (job, "south", NULL, 0, "its part did not come in time");
    s_bring (job, "east", s_part (false, NAN), 30, "");
    s_bring (job, "west", s_part (false, 5), 10, "");
    tl_merge_job_run (job);
    assert_int_equal (job->err.code, TL_OK);
    assert_int_equal (job->used, 2);
    assert_true (s_result (job, "value:x") == (30.0 * 1 + 10.0 * 5) / 40);
    s_says (job, "south is left out: its part did not come in time");
    s_says (job, "; east is left out: tensor value:x holds values that are not finite");
    tl_merge_job_free (job);
    tl_mergers_close (&mergers);
}

static void
test_more_than_a_period_can_hold (void **state)
{
    tl_mergers_t mergers;
    tl_mergers_open (&mergers, &s_plain);
    tl_merge_job_t *job = s_job (&mergers, TL_MERGE_KIND_CLIENTS, 10);
    s_bring (job, "north", s_part (false, 1), 100, "");
    s_bring (job, "south", s_part (false, 9), UINT64_MAX, "");
    tl_merge_job_run (job);
    assert_true (s_result (job, "value:x") == 1);
    s_says (job,
            "south is left out: it says that it learnt from 18446744073709551615 label tokens, "
            "more than a period can hold");
    tl_merge_job_free (job);
    //  A copy for who was away has no weight.
    job = s_job (&mergers, TL_MERGE_KIND_CLIENTS, 12);
    s_bring (job, "south", s_part (false, 9), UINT64_MAX, "");
    tl_merge_job_run (job);
    assert_true (s_result (job, "value:x") == 9);
    tl_merge_job_free (job);
    //  Gradients are summed as they are.
    job = s_job (&mergers, TL_MERGE_KIND_SUM, 12);
    s_bring (job, "north", s_part (true, 1), 200, "");
    s_bring (job, "south", s_part (true, 9), 100, "");
    tl_merge_job_run (job);
    assert_true (s_result (job, "gradient:x") == 10);
    tl_merge_job_free (job);
    tl_mergers_close (&mergers);
}

static void
test_nobody (void **state)
{
    tl_mergers_t mergers;
    tl_mergers_open (&mergers, &s_plain);
    tl_merge_job_t *job = s_job (&mergers, TL_MERGE_KIND_TRUNK, 10);
    s_bring (job, "trunk-1", NULL, 0, "it left");
    tl_merge_job_run (job);
    assert_int_equal (job->err.code, TL_FAILED);
    assert_null (job->result);
    s_says (job, "0 good parts came, expected at least 1");
    tl_merge_job_free (job);
    tl_mergers_close (&mergers);
}

static double
s_period (tl_mergers_t *mergers, uint64_t step, float value)
{
    tl_merge_job_t *job = s_job (mergers, TL_MERGE_KIND_CLIENTS, step);
    s_bring (job, "north", s_part (false, value), 10, "");
    tl_merge_job_run (job);
    double result = s_result (job, "value:x");
    tl_merge_job_free (job);
    return result;
}

static void
s_disk (tl_mergers_t *mergers, const char *directory, uint64_t step, void (*run) (void *))
{
    tl_merge_job_t *job = s_job (mergers, TL_MERGE_KIND_CLIENTS, step);
    job->directory = tl_strdup (directory);
    run (job);
    if (job->err.code != TL_OK)
        fail_msg ("%s", job->err.text);
    tl_merge_job_free (job);
}

static void
test_state_goes_on (void **state)
{
    char *directory = tiny_directory ();
    tl_mergers_t one, two;
    tl_mergers_open (&one, &s_adam);
    tl_mergers_open (&two, &s_adam);
    s_period (&one, 10, 1);
    s_period (&one, 20, 2);
    s_disk (&one, directory, 20, tl_merge_job_save);
    double next = s_period (&one, 30, 3);
    assert_true (next != 3); //  the optimizer has a say
    //  A process that came back, and one that went back.
    s_disk (&two, directory, INT64_MAX, tl_merge_job_restore);
    assert_true (s_period (&two, 30, 3) == next);
    s_disk (&one, directory, 20, tl_merge_job_restore);
    assert_true (s_period (&one, 30, 3) == next);
    //  Before the first save it is the start.
    s_disk (&one, directory, 5, tl_merge_job_restore);
    assert_true (s_period (&one, 10, 3) == 3);
    tl_mergers_close (&one);
    tl_mergers_close (&two);
    tl_remove_tree (directory);
    free (directory);
}

static void
test_broken_state (void **state)
{
    char *directory = tiny_directory (), *path = tl_format ("%s/save-00000020.state", directory);
    tl_mergers_t one;
    tl_error_t err;
    size_t size;
    tl_mergers_open (&one, &s_adam);
    s_period (&one, 10, 1);
    s_disk (&one, directory, 20, tl_merge_job_save);
    char *bytes = tl_file_read (path, 1 << 20, &size, &err);
    if (!bytes)
        fail_msg ("%s", err.text);
    for (size_t cut = 0; cut < size; cut += 7) {
        assert_int_equal (tl_file_write (path, bytes, cut, 0600, &err), 0);
        tl_merge_job_t *job = s_job (&one, TL_MERGE_KIND_CLIENTS, 20);
        job->directory = tl_strdup (directory);
        tl_merge_job_restore (job);
        assert_int_equal (job->err.code, TL_BAD_INPUT);
        assert_true (strlen (job->text) > 20);
        tl_merge_job_free (job);
    }
    free (bytes);
    tl_mergers_close (&one);
    tl_remove_tree (directory);
    free (directory);
    free (path);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_who_is_left_out),
        cmocka_unit_test (test_more_than_a_period_can_hold),
        cmocka_unit_test (test_nobody),
        cmocka_unit_test (test_state_goes_on),
        cmocka_unit_test (test_broken_state),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
