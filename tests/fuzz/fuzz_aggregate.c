/*  Any bytes as one of three states that are averaged, and as one of three gradients: refused with a sentence, or part
    of a result that is made of finite numbers. The others are never refused for it.                */

#include "fed/aggregate.h"

#include "assert.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

//  What an honest owner of one tensor brings.
static void *
s_honest (bool gradient, size_t *size)
{
    static const float values[] = {1, 2};
    const char *kinds[] = {"value:x", "m:x", "v:x"};
    tl_st_tensor_t entries[3];
    for (size_t i = 0; i < 3; i++)
        entries[i] = (tl_st_tensor_t){.name = gradient ? "gradient:x" : kinds[i],
                                      .dtype = TL_ST_F32,
                                      .dimensions = 2,
                                      .shape = {1, 2},
                                      .bytes = sizeof values,
                                      .data = values};
    const char *metadata[] = {gradient ? "trunkline.gradient" : "trunkline.state",
                              "1",
                              "trunkline.manifest",
                              "abc",
                              "trunkline.tune",
                              "{}",
                              "trunkline.updates",
                              "3",
                              NULL};
    return tl_safetensors_serialise (entries, gradient ? 1 : 3, metadata, size);
}

static void
s_check (void *blob, size_t size)
{
    tl_error_t err;
    tl_safetensors_t *file = tl_safetensors_parse ("result", blob, size, &err);
    tl_assert (file);
    for (size_t i = 0; i < tl_safetensors_count (file); i++) {
        const tl_st_tensor_t *tensor = tl_safetensors_at (file, i);
        for (size_t k = 0; k < tensor->bytes / sizeof (float); k++)
            tl_assert (isfinite (((const float *)tensor->data)[k]));
    }
    tl_safetensors_destroy (&file);
    free (blob);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    const tl_server_spec_t server = {
        .optimizer = TL_SERVER_ADAM, .lr = 0.1, .momentum = 0.9, .beta2 = 0.99, .eps = 1e-3};
    tl_aggregate_t *self = tl_aggregate_new (&server);
    tl_error_t err = {TL_OK, ""};
    for (int gradient = 0; gradient < 2; gradient++) {
        size_t honest_size, result_size;
        void *honest = s_honest (gradient, &honest_size);
        tl_contribution_t parts[3] = {
            {.name = "any", .blob = data, .size = size, .labels = UINT64_MAX},
            {.name = "one", .blob = honest, .size = honest_size, .labels = 1},
            {.name = "two", .blob = honest, .size = honest_size, .labels = 2}};
        void *result = gradient ? tl_aggregate_sum (parts, 3, &result_size, &err)
                                : tl_aggregate_mean (self, parts, 3, 1, &result_size, &err);
        tl_assert (parts[0].used != (strlen (parts[0].refusal) > 10));
        tl_assert (parts[1].used && parts[2].used);
        if (result)
            s_check (result, result_size);
        else
            tl_assert (err.code == TL_FAILED && strlen (err.text) > 20);
        free (honest);
    }
    if (tl_server_state_set (tl_aggregate_server (self), data, size, &err) != 0)
        tl_assert (err.code == TL_BAD_INPUT && strlen (err.text) > 20);
    size_t kept_size;
    void *kept = tl_server_state_get (tl_aggregate_server (self), &kept_size);
    tl_assert (tl_server_state_set (tl_aggregate_server (self), kept, kept_size, &err) == 0);
    free (kept);
    tl_aggregate_destroy (&self);
    return 0;
}
