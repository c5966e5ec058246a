//  Averaging of states and sums of gradients: the numbers against plain arithmetic, what is refused and by which
//  sentence, the server's optimizers against their closed forms, and that real parts take what comes out.

#include "unit/cmocka_all.h"

#include "fed/aggregate.h"
#include "memory.h"
#include "model/safetensors.h"
#include "rig.h"
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tl_server_spec_t s_plain = {.optimizer = TL_SERVER_NONE};

//  A state of one tensor [1, 2], as a peer would send it; what is to be wrong with it is changed first.
typedef struct {
    float value[2], m[2], v[2];
    const char *updates, *tune, *manifest, *version, *name;
    size_t shape[2];
} sketch_t;

static const sketch_t s_good = {.value = {1, -2},
                                .m = {0.5f, 0.25f},
                                .v = {4, 8},
                                .updates = "3",
                                .tune = "{\"rank\":8}",
                                .manifest = "abc",
                                .version = "1",
                                .name = "x",
                                .shape = {1, 2}};

typedef struct {
    void *data;
    size_t size;
} blob_t;

static blob_t
s_draw (const sketch_t *sketch)
{
    const float *values[] = {sketch->value, sketch->m, sketch->v};
    static const char *const kinds[] = {"value", "m", "v"};
    tl_st_tensor_t entries[3];
    char names[3][64];
    for (size_t i = 0; i < 3; i++) {
        snprintf (names[i], sizeof names[i], "%s:%s", kinds[i], sketch->name);
        entries[i] = (tl_st_tensor_t){.name = names[i],
                                      .dtype = TL_ST_F32,
                                      .dimensions = 2,
                                      .shape = {sketch->shape[0], sketch->shape[1]},
                                      .bytes = 2 * sizeof (float),
                                      .data = values[i]};
    }
    const char *metadata[] = {"trunkline.state",   sketch->version,  "trunkline.manifest",
                              sketch->manifest,    "trunkline.tune", sketch->tune,
                              "trunkline.updates", sketch->updates,  NULL};
    blob_t blob;
    blob.data = tl_safetensors_serialise (entries, 3, metadata, &blob.size);
    return blob;
}

enum { MOST = 4 };

//  Contributions a, b, c ... of these sketches.
typedef struct {
    tl_contribution_t parts[MOST];
    blob_t blobs[MOST];
    size_t count;
} cast_t;

static void
s_bring (cast_t *self, const sketch_t *sketch, uint64_t labels)
{
    static const char *const names[MOST] = {"a", "b", "c", "d"};
    size_t i = self->count++;
    self->blobs[i] = s_draw (sketch);
    self->parts[i] = (tl_contribution_t){.name = names[i],
                                         .blob = self->blobs[i].data,
                                         .size = self->blobs[i].size,
                                         .labels = labels};
}

static void
s_clear (cast_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free (self->blobs[i].data);
    self->count = 0;
}

//  The mean as a sketch again.
static sketch_t
s_mean (tl_aggregate_t *self, cast_t *cast)
{
    tl_error_t err = {.text = ""};
    sketch_t result = s_good;
    size_t size;
    void *blob = tl_aggregate_mean (self, cast->parts, cast->count, 1, &size, &err);
    if (!blob)
        fail_msg ("%s", err.text);
    tl_safetensors_t *file = tl_safetensors_parse ("mean", blob, size, &err);
    assert_non_null (file);
    assert_int_equal (tl_safetensors_count (file), 3);
    memcpy (result.value, tl_safetensors_find (file, "value:x")->data, sizeof result.value);
    memcpy (result.m, tl_safetensors_find (file, "m:x")->data, sizeof result.m);
    memcpy (result.v, tl_safetensors_find (file, "v:x")->data, sizeof result.v);
    static char updates[24];
    snprintf (updates, sizeof updates, "%s", tl_safetensors_metadata (file, "trunkline.updates"));
    result.updates = updates;
    tl_safetensors_destroy (&file);
    free (blob);
    return result;
}

static void
s_near (double got, double expected)
{
    if (!(fabs (got - expected) <= 1e-6 * fmax (1, fabs (expected))))
        fail_msg ("expected %.9g, got %.9g", expected, got);
}

static void
test_mean_is_by_label_tokens (void **state)
{
    tl_aggregate_t *self = tl_aggregate_new (&s_plain);
    sketch_t other = s_good;
    memcpy (other.value, (float[]){5, 6}, sizeof other.value);
    memcpy (other.m, (float[]){-1, 1}, sizeof other.m);
    memcpy (other.v, (float[]){0, 2}, sizeof other.v);
    other.updates = "11";
    cast_t cast = {0};
    s_bring (&cast, &s_good, 30);
    s_bring (&cast, &other, 10);
    sketch_t mean = s_mean (self, &cast);
    s_near (mean.value[0], (30 * 1 + 10 * 5) / 40.0);
    s_near (mean.value[1], (30 * -2 + 10 * 6) / 40.0);
    s_near (mean.m[0], (30 * 0.5 + 10 * -1) / 40.0);
    s_near (mean.v[1], (30 * 8 + 10 * 2) / 40.0);
    assert_string_equal (mean.updates, "11");
    assert_true (cast.parts[0].used && cast.parts[1].used);
    //  Nobody has learnt anything: all count alike.
    cast.parts[0].labels = cast.parts[1].labels = 0;
    s_near (s_mean (self, &cast).value[0], 3);
    s_clear (&cast);
    tl_aggregate_destroy (&self);
}

static void
test_mean_of_equals_is_exact (void **state)
{
    tl_aggregate_t *self = tl_aggregate_new (&s_plain);
    sketch_t odd = s_good;
    odd.value[0] = 0.1f;
    odd.value[1] = 1e-38f;
    odd.v[0] = 3e38f;
    cast_t cast = {0};
    for (uint64_t labels = 1; labels < 4; labels++)
        s_bring (&cast, &odd, 7 * labels);
    sketch_t mean = s_mean (self, &cast);
    assert_memory_equal (mean.value, odd.value, sizeof odd.value);
    assert_memory_equal (mean.v, odd.v, sizeof odd.v);
    s_clear (&cast);
    tl_aggregate_destroy (&self);
}

//  Of a, b, bad: bad is refused with this text, and the mean is that of a and b alone.
static void
s_refuses (const sketch_t *bad, const char *one, const char *two)
{
    tl_aggregate_t *self = tl_aggregate_new (&s_plain);
    sketch_t other = s_good;
    other.value[0] = 3;
    cast_t cast = {0};
    s_bring (&cast, bad, 1000);
    s_bring (&cast, &s_good, 1);
    s_bring (&cast, &other, 1);
    sketch_t mean = s_mean (self, &cast);
    s_near (mean.value[0], 2);
    assert_false (cast.parts[0].used);
    assert_true (cast.parts[1].used && cast.parts[2].used);
    if (!strstr (cast.parts[0].refusal, one) || !strstr (cast.parts[0].refusal, two))
        fail_msg ("expected '%s' and '%s' in: %s", one, two, cast.parts[0].refusal);
    s_clear (&cast);
    tl_aggregate_destroy (&self);
}

static void
test_refused_by_name (void **state)
{
    sketch_t bad = s_good;
    bad.value[1] = NAN;
    s_refuses (&bad, "tensor value:x holds values that are not finite", "train.lr");
    bad = s_good;
    bad.m[0] = INFINITY;
    s_refuses (&bad, "tensor m:x", "not finite");
    bad = s_good;
    bad.v[1] = -1;
    s_refuses (&bad, "tensor v:x holds -1", "below 0");
    bad = s_good;
    bad.shape[0] = 2;
    bad.shape[1] = 1;
    s_refuses (&bad, "has shape [2, 1], that of b has [1, 2]", "tune.rank");
    bad = s_good;
    bad.name = "y";
    s_refuses (&bad, "it has tensor m:y where b has m:x", "train the same parts");
    bad = s_good;
    bad.tune = "{\"rank\":4}";
    s_refuses (&bad, "{\"rank\":4}", "{\"rank\":8}");
    bad = s_good;
    bad.manifest = "abd";
    s_refuses (&bad, "abd", "abc");
    bad = s_good;
    bad.updates = "-1";
    s_refuses (&bad, "number of updates is '-1'", "whole number");
    bad = s_good;
    bad.version = "2";
    s_refuses (&bad, "version 2", "expected 1");
}

static void
test_broken_blobs (void **state)
{
    tl_aggregate_t *self = tl_aggregate_new (&s_plain);
    cast_t cast = {0};
    s_bring (&cast, &s_good, 1);
    s_bring (&cast, &s_good, 1);
    size_t whole = cast.parts[0].size;
    for (size_t size = 0; size < whole; size++) {
        cast.parts[0].size = size;
        sketch_t mean = s_mean (self, &cast);
        s_near (mean.value[0], 1);
        assert_false (cast.parts[0].used);
        assert_true (strlen (cast.parts[0].refusal) > 10);
    }
    s_clear (&cast);
    tl_aggregate_destroy (&self);
}

static void
test_quorum (void **state)
{
    tl_aggregate_t *self = tl_aggregate_new (&s_plain);
    tl_error_t err;
    sketch_t bad = s_good;
    bad.value[0] = NAN;
    cast_t cast = {0};
    s_bring (&cast, &s_good, 1);
    s_bring (&cast, &bad, 1);
    size_t size;
    assert_null (tl_aggregate_mean (self, cast.parts, 2, 2, &size, &err));
    assert_non_null (strstr (err.text, "1 good part came, expected at least 2"));
    assert_non_null (strstr (err.text, "that of b is refused: tensor value:x"));
    assert_null (tl_aggregate_mean (self, cast.parts, 0, 0, &size, &err));
    assert_non_null (strstr (err.text, "0 good parts came, expected at least 1"));
    s_clear (&cast);
    tl_aggregate_destroy (&self);
}

//  --- the server's optimizer -------------------------------------------------------------------

//  A period after which the mean lies change above what was given out last.
static double
s_period (tl_aggregate_t *self, double last, double change)
{
    sketch_t moved = s_good;
    moved.value[0] = (float)(last + change);
    cast_t cast = {0};
    s_bring (&cast, &moved, 5);
    sketch_t mean = s_mean (self, &cast);
    s_near (mean.m[0], moved.m[0]); //  AdamW's own state is the mean
    //  Until it is kept, another try is the same, and of other parts as if the first had not been
    moved.value[0] += 1;
    cast_t other = {0};
    s_bring (&other, &moved, 5);
    s_mean (self, &other);
    assert_true (s_mean (self, &cast).value[0] == mean.value[0]);
    tl_server_keep (tl_aggregate_server (self));
    s_clear (&other);
    s_clear (&cast);
    return mean.value[0];
}

static void
test_avgm (void **state)
{
    const tl_server_spec_t server = {.optimizer = TL_SERVER_AVGM, .lr = 0.5, .momentum = 0.75};
    tl_aggregate_t *self = tl_aggregate_new (&server);
    double x = s_period (self, 0, 1); //  the first is the mean
    s_near (x, 1);
    //  A constant change d: x(n) = x0 + lr d sum over k <= n of (1 - b^k) / (1 - b).
    double expected = x;
    for (int n = 1; n <= 6; n++) {
        x = s_period (self, x, 0.25);
        expected += 0.5 * 0.25 * (1 - pow (0.75, n)) / (1 - 0.75);
        s_near (x, expected);
    }
    //  A copy for who came back, after which nobody learnt anything: it moves nothing, now or later
    sketch_t still = s_good;
    still.value[0] = (float)x;
    cast_t cast = {0};
    s_bring (&cast, &still, 0);
    assert_true (s_mean (self, &cast).value[0] == still.value[0]);
    tl_server_keep (tl_aggregate_server (self));
    s_clear (&cast);
    expected += 0.5 * 0.25 * (1 - pow (0.75, 7)) / (1 - 0.75);
    s_near (s_period (self, x, 0.25), expected);
    tl_server_fresh (tl_aggregate_server (self));
    s_near (s_period (self, 7, 1), 8);
    tl_aggregate_destroy (&self);
}

static void
test_adam (void **state)
{
    const tl_server_spec_t server = {
        .optimizer = TL_SERVER_ADAM, .lr = 0.1, .momentum = 0.9, .beta2 = 0.99, .eps = 1e-3};
    tl_aggregate_t *self = tl_aggregate_new (&server);
    double x = s_period (self, 0, 1), expected = x;
    //  A constant change d: m = (1 - b1^n) d and v = (1 - b2^n) d^2.
    for (int n = 1; n <= 6; n++) {
        x = s_period (self, x, 0.25);
        double m = (1 - pow (0.9, n)) * 0.25, v = (1 - pow (0.99, n)) * 0.25 * 0.25;
        expected += 0.1 * m / (sqrt (v) + 1e-3);
        s_near (x, expected);
    }
    tl_aggregate_destroy (&self);
}

static void
test_state_goes_on (void **state)
{
    const tl_server_spec_t server = {
        .optimizer = TL_SERVER_ADAM, .lr = 0.1, .momentum = 0.9, .beta2 = 0.99, .eps = 1e-3};
    tl_aggregate_t *one = tl_aggregate_new (&server), *two = tl_aggregate_new (&server);
    tl_error_t err;
    double x = s_period (one, 0, 1);
    x = s_period (one, x, -0.3);
    size_t size;
    char *blob = tl_server_state_get (tl_aggregate_server (one), &size);
    assert_int_equal (tl_server_state_set (tl_aggregate_server (two), blob, size, &err), 0);
    assert_true (s_period (one, x, 0.7) == s_period (two, x, 0.7));
    //  Whatever else it holds is refused, and nothing changes.
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal (tl_server_state_set (tl_aggregate_server (two), blob, cut, &err), -1);
    blob[size - 1] = blob[size - 2] = (char)0xff; //  the last value is not a number any more
    assert_int_equal (tl_server_state_set (tl_aggregate_server (two), blob, size, &err), -1);
    assert_non_null (strstr (err.text, "remove it and train anew"));
    tl_server_fresh (tl_aggregate_server (one));
    free (blob);
    blob = tl_server_state_get (tl_aggregate_server (one), &size); //  nothing yet
    assert_int_equal (tl_server_state_set (tl_aggregate_server (two), blob, size, &err), 0);
    s_near (s_period (two, 3, 0.5), 3.5);
    free (blob);
    tl_aggregate_destroy (&one);
    tl_aggregate_destroy (&two);
}

//  --- real parts -------------------------------------------------------------------------------

static const tl_tune_t s_lora = {.method = TL_TUNE_LORA,
                                 .rank = 4,
                                 .alpha = 8,
                                 .seed = 5,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8,
                                 .decay = 0.01};

static rig_t *
s_rig (tl_model_t *model, const tl_tune_t *tune, uint64_t steps, uint64_t first)
{
    rig_t *rig = rig_new (model, 0, 0, tune);
    for (uint64_t step = 0; step < steps; step++) {
        tl_batch_t *batch = tiny_batch (rig->config, first + step, 2, 4, 12, 2 * step);
        rig_step (rig, &batch, 1, step, 1e-2, 1, false);
        tiny_batch_destroy (&batch);
    }
    return rig;
}

static tl_contribution_t
s_state (const rig_t *rig, const char *name, uint64_t labels)
{
    tl_contribution_t part = {.name = name, .labels = labels};
    part.blob = tl_part_state_get (rig->parts[0], &part.size);
    return part;
}

static void
test_parts (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    tl_model_t *model = tiny_model_open (&spec);
    tl_error_t err = {.text = ""};
    rig_t *one = s_rig (model, &s_lora, 2, 0), *two = s_rig (model, &s_lora, 3, 10);
    rig_t *mean = s_rig (model, &s_lora, 0, 0);
    tl_aggregate_t *self = tl_aggregate_new (&s_plain);
    tl_contribution_t parts[] = {s_state (one, "one", 3), s_state (two, "two", 1)};
    size_t size;
    //  One alone comes back as it is, bit for bit.
    void *blob = tl_aggregate_mean (self, parts, 1, 1, &size, &err);
    assert_int_equal (tl_part_state_set (mean->parts[0], blob, size, &err), 0);
    assert_true (rig_same (one, mean));
    free (blob);
    blob = tl_aggregate_mean (self, parts, 2, 2, &size, &err);
    assert_non_null (blob);
    if (tl_part_state_set (mean->parts[0], blob, size, &err) != 0)
        fail_msg ("%s", err.text);
    assert_int_equal (tl_part_updates (mean->parts[0]), 3);
    for (size_t t = 0; t < tl_part_tensors (mean->parts[0]); t++) {
        const tl_tensor_t *a = tl_part_tensor (one->parts[0], t);
        const tl_tensor_t *b = tl_part_tensor (two->parts[0], t);
        const tl_tensor_t *c = tl_part_tensor (mean->parts[0], t);
        for (size_t i = 0; i < a->shape[0] * a->shape[1]; i++)
            s_near (c->value[i], 0.75 * (double)a->value[i] + 0.25 * (double)b->value[i]);
    }
    free (blob);
    //  An adapter of another rank is refused with both shapes.
    tl_tune_t wide = s_lora;
    wide.rank = 6;
    rig_t *other = s_rig (model, &wide, 0, 0);
    tl_contribution_t mixed[] = {parts[0], s_state (other, "other", 1)};
    blob = tl_aggregate_mean (self, mixed, 2, 1, &size, &err);
    assert_true (blob && mixed[0].used && !mixed[1].used);
    if (!strstr (mixed[1].refusal, "has shape [6, ") ||
        !strstr (mixed[1].refusal, "that of one has [4, "))
        fail_msg ("both ranks are to be named: %s", mixed[1].refusal);
    free (blob);
    for (size_t i = 0; i < 2; i++)
        free ((void *)parts[i].blob);
    free ((void *)mixed[1].blob);
    rig_destroy (&one);
    rig_destroy (&two);
    rig_destroy (&mean);
    rig_destroy (&other);
    tl_aggregate_destroy (&self);
    tl_model_destroy (&model);
}

//  Gradients of a step, without its update.
static tl_contribution_t
s_gradient (rig_t *rig, uint64_t seed, const char *name)
{
    tl_tape_t *tapes[3];
    uint64_t labels;
    double squares[256];
    tl_batch_t *batch = tiny_batch (rig->config, seed, 2, 4, 12, 0);
    rig_forward (rig, batch, 0, true, tapes);
    rig_finish (rig, batch, true, tapes, NULL, &labels);
    assert_true (tl_part_tensors (rig->parts[0]) <= 256);
    tl_part_finish_gradient (rig->parts[0], squares);
    tiny_batch_destroy (&batch);
    tl_contribution_t part = {.name = name};
    part.blob = tl_part_gradient_get (rig->parts[0], &part.size);
    return part;
}

static void
test_gradients_are_summed (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    tl_model_t *model = tiny_model_open (&spec);
    tl_error_t err = {.text = ""};
    rig_t *one = s_rig (model, &s_lora, 1, 0), *two = s_rig (model, &s_lora, 1, 0);
    rig_t *sum = s_rig (model, &s_lora, 1, 0);
    tl_contribution_t parts[] = {s_gradient (one, 1, "one"), s_gradient (two, 2, "two")};
    size_t size;
    void *blob = tl_aggregate_sum (parts, 2, &size, &err);
    assert_non_null (blob);
    if (tl_part_gradient_set (sum->parts[0], blob, size, &err) != 0)
        fail_msg ("%s", err.text);
    bool moved = false;
    for (size_t t = 0; t < tl_part_tensors (sum->parts[0]); t++) {
        const tl_tensor_t *a = tl_part_tensor (one->parts[0], t);
        const tl_tensor_t *b = tl_part_tensor (two->parts[0], t);
        const tl_tensor_t *c = tl_part_tensor (sum->parts[0], t);
        for (size_t i = 0; i < a->shape[0] * a->shape[1]; i++) {
            assert_true (c->gradient[i] ==
                         (float)((double)a->gradient[i] + (double)b->gradient[i]));
            moved |= c->gradient[i] != 0;
        }
    }
    assert_true (moved);
    //  A state is no gradient.
    void *state_blob = tl_part_state_get (one->parts[0], &size);
    assert_int_equal (tl_part_gradient_set (sum->parts[0], state_blob, size, &err), -1);
    free (state_blob);
    free (blob);
    for (size_t i = 0; i < 2; i++)
        free ((void *)parts[i].blob);
    rig_destroy (&one);
    rig_destroy (&two);
    rig_destroy (&sum);
    tl_model_destroy (&model);
}

static void
test_anchor (void **state)
{
    tiny_model_t spec = tiny_chatglm ();
    tl_model_t *model = tiny_model_open (&spec);
    tl_error_t err = {.text = ""};
    rig_t *rig = s_rig (model, &s_lora, 1, 0), *again = s_rig (model, &s_lora, 0, 0);
    tl_part_t *part = rig->parts[0];
    const tl_tensor_t *tensor = tl_part_tensor (part, 0);
    tl_part_pull (part, 10); //  no anchor, no pull
    assert_true (tensor->gradient[0] == 0);
    tl_part_anchor (part, 4);
    tl_part_pull (part, 10);
    assert_true (tensor->gradient[0] == 0); //  nothing has moved
    tensor->value[0] += 0.5f;
    tl_part_anchor (part, 4); //  the same period
    size_t size;
    void *blob = tl_part_state_get (part, &size);
    assert_int_equal (tl_part_state_set (again->parts[0], blob, size, &err), 0);
    tl_part_pull (part, 10);
    s_near (tensor->gradient[0], 5);
    tl_part_pull (again->parts[0], 10); //  goes with the state
    assert_true (tl_part_tensor (again->parts[0], 0)->gradient[0] == tensor->gradient[0]);
    //  What is averaged has none.
    tl_aggregate_t *self = tl_aggregate_new (&s_plain);
    tl_contribution_t one = {.name = "one", .blob = blob, .size = size, .labels = 1};
    size_t mean_size;
    void *mean = tl_aggregate_mean (self, &one, 1, 1, &mean_size, &err);
    assert_int_equal (tl_part_state_set (part, mean, mean_size, &err), 0);
    tl_part_pull (part, 10);
    assert_true (tensor->gradient[0] == 0);
    free (mean);
    free (blob);
    tl_aggregate_destroy (&self);
    rig_destroy (&rig);
    rig_destroy (&again);
    tl_model_destroy (&model);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_mean_is_by_label_tokens),
        cmocka_unit_test (test_mean_of_equals_is_exact),
        cmocka_unit_test (test_refused_by_name),
        cmocka_unit_test (test_broken_blobs),
        cmocka_unit_test (test_quorum),
        cmocka_unit_test (test_avgm),
        cmocka_unit_test (test_adam),
        cmocka_unit_test (test_state_goes_on),
        cmocka_unit_test (test_parts),
        cmocka_unit_test (test_gradients_are_summed),
        cmocka_unit_test (test_anchor),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
