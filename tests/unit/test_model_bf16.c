//  A model whose frozen matrices are multiplied in bf16 learns what it learns in fp32, cut or whole.

#include "unit/cmocka_all.h"

#include "kernels/bf16.h"
#include "model/internal.h"
#include "rig.h"
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>

enum { STEPS = 12 };

static const tl_tune_t s_lora = {.method = TL_TUNE_LORA,
                                 .rank = 4,
                                 .alpha = 8,
                                 .dropout = 0.05,
                                 .seed = 1,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8};

//  Losses of some steps; the rig is the caller's.
static rig_t *
s_learn (tl_model_t *model, size_t front, size_t tail, double losses[STEPS])
{
    rig_t *rig = rig_new (model, front, tail, &s_lora);
    for (uint64_t step = 0; step < STEPS; step++) {
        tl_batch_t *batch = tiny_batch (rig->config, step % 3, 3, 9, 14, 3 * step);
        losses[step] = rig_step (rig, &batch, 1, step, 1e-2, 1, false);
        tiny_batch_destroy (&batch);
    }
    return rig;
}

static void
s_compare (tiny_model_t spec)
{
    double exact[STEPS], reduced[STEPS], cut[STEPS];
    tl_model_t *plain = tiny_model_open (&spec), *model = tiny_model_open (&spec);
    tl_model_hold (model, TL_BF16);
    rig_t *one = s_learn (plain, 0, 0, exact);
    rig_t *two = s_learn (model, 0, 0, reduced), *three = s_learn (model, 1, 1, cut);
    for (size_t i = 0; i < STEPS; i++) {
        assert_true (cut[i] == reduced[i]);
        if (!(fabs (reduced[i] - exact[i]) <= 0.01 * exact[i]))
            fail_msg ("step %zu: loss %g, expected %g within 1 %%", i, reduced[i], exact[i]);
    }
    assert_true (reduced[0] != exact[0]);
    assert_true (reduced[9] < reduced[0]); //  the same micro again
    assert_true (rig_same (two, three));
    rig_destroy (&one);
    rig_destroy (&two);
    rig_destroy (&three);
    tl_model_destroy (&plain);
    tl_model_destroy (&model);
}

static void
test_losses_follow_fp32 (void **state)
{
    s_compare (tiny_chatglm ());
    s_compare (tiny_llama (true));
    s_compare (tiny_qwen2 (false));
}

static void
test_plan_counts_the_copies (void **state)
{
    tiny_model_t spec = tiny_llama (false);
    spec.dtype = TL_F32;
    tl_model_t *stored = tiny_model_open (&spec), *held = tiny_model_open (&spec);
    tl_model_hold (held, TL_BF16);
    rig_t *one = rig_new (stored, 0, 0, &s_lora), *two = rig_new (held, 0, 0, &s_lora);
    tl_plan_t plain, copied;
    tl_part_plan (one->parts[0], 8, 8, 1, 4, 1, &plain);
    tl_part_plan (two->parts[0], 8, 8, 1, 4, 1, &copied);
    assert_true (copied.weights > 1.4 * (double)plain.weights);
    assert_true (copied.weights < 1.5 * (double)plain.weights);
    rig_destroy (&one);
    rig_destroy (&two);
    tl_model_destroy (&stored);
    tl_model_destroy (&held);
}

int
main (void)
{
    if (!tl_bf16_name ()) {
        fprintf (stderr, "skipped: this processor has no instructions for bf16\n");
        return 77;
    }
    tl_kernels_use (2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_losses_follow_fp32),
        cmocka_unit_test (test_plan_counts_the_copies),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
