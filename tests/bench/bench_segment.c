/*  bench_segment make llama|chatglm: writes a random model of the shape of SmolLM2-135M (hidden 576 x 30
    blocks, vocabulary 49152 tied) or of models/tiny-glm and prints its directory.
    bench_segment THREADS MODEL_DIR [lora|full] [DROPOUT]: time and memory of steps of the whole model in one
    process, one micro of 256 rows. Prints one JSON object.                                          */

#include "clock.h"
#include "memory.h"
#include "rig.h"
#include "tiny_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 8, ROWS = 128, SEQUENCES = 2 };

static double
s_ms (int64_t from)
{
    return (double)(tl_clock_us () - from) / 1000;
}

static void
s_measure (tl_model_t *model, const tl_tune_t *tune, size_t before)
{
    rig_t *rig = rig_new (model, 0, 0, tune);
    double forward = 1e9, backward = 1e9, update = 1e9, first = 0;
    size_t labels_most = 0, rows = 0;
    for (uint64_t step = 0; step < STEPS; step++) {
        tl_batch_t *batch = tiny_batch (rig->config, step, SEQUENCES, ROWS, ROWS, 2 * step);
        tl_tape_t *tapes[3];
        uint64_t labels;
        int64_t start = tl_clock_us (), begin = start;
        rig_forward (rig, batch, step, true, tapes);
        double ms = s_ms (start);
        forward = ms < forward ? ms : forward;
        start = tl_clock_us ();
        rig_finish (rig, batch, true, tapes, NULL, &labels);
        ms = s_ms (start);
        backward = ms < backward ? ms : backward;
        start = tl_clock_us ();
        double *squares = tl_alloc ((tl_part_tensors (rig->parts[0]) + 1) * sizeof *squares);
        tl_error_t err;
        tl_part_finish_gradient (rig->parts[0], squares);
        tl_part_update (rig->parts[0], 1e-3, 1e-3, &err);
        free (squares);
        ms = s_ms (start);
        update = ms < update ? ms : update;
        if (step == 0)
            first = s_ms (begin);
        labels_most = labels > labels_most ? labels : labels_most;
        rows = batch->rows;
        tiny_batch_destroy (&batch);
    }
    tl_plan_t plan;
    tl_part_plan (rig->parts[0], rows, ROWS, SEQUENCES, labels_most, 1, &plan);
    size_t total = tl_plan_total (&plan) - plan.state; //  nothing is saved here
    double peak = (double)(tl_memory_peak () - before);
    printf ("{\"rows\": %zu, \"forward_ms\": %.1f, \"loss_and_backward_ms\": %.1f, "
            "\"update_ms\": %.1f, \"first_step_ms\": %.1f, \"peak_mb\": %.1f, \"plan_mb\": %.1f, "
            "\"weights_mb\": %.1f, \"trained_mb\": %.1f, \"activations_mb\": %.1f, "
            "\"workspace_mb\": %.1f, \"memory_over_plan\": %.3f}\n",
            rows, forward, backward, update, first, peak / 1e6, (double)total / 1e6,
            (double)plan.weights / 1e6, (double)plan.trained / 1e6, (double)plan.activations / 1e6,
            (double)plan.workspace / 1e6, peak / (double)total);
    rig_destroy (&rig);
}

//  A random model of that family's shape, in a fresh directory.
static int
s_make (const char *family)
{
    tiny_model_t llama = {.family = TL_FAMILY_LLAMA,
                          .vocab = 49152,
                          .hidden = 576,
                          .inner = 1536,
                          .blocks = 30,
                          .heads = 9,
                          .kv_heads = 3,
                          .head_dim = 64,
                          .tied = true,
                          .dtype = TL_BF16,
                          .seed = 1};
    tiny_model_t chatglm = {.family = TL_FAMILY_CHATGLM,
                            .vocab = 4096,
                            .hidden = 256,
                            .inner = 1024,
                            .blocks = 5,
                            .heads = 4,
                            .kv_heads = 4,
                            .head_dim = 64,
                            .tied = true,
                            .dtype = TL_BF16,
                            .seed = 1};
    tl_error_t err;
    char *directory = tiny_directory ();
    int rc = tiny_model_write (strcmp (family, "llama") == 0 ? &llama : &chatglm, directory, &err);
    printf ("%s\n", rc ? err.text : directory);
    free (directory);
    return rc ? err.code : 0;
}

int
main (int argc, char **argv)
{
    if (argc == 3 && strcmp (argv[1], "make") == 0)
        return s_make (argv[2]);
    if (argc < 3) {
        fprintf (stderr, "usage: bench_segment make llama|chatglm\n"
                         "       bench_segment THREADS MODEL_DIR [lora|full] [DROPOUT]\n");
        return TL_BAD_INPUT;
    }
    tl_error_t err;
    size_t before = tl_memory_now ();
    tl_model_t *model = NULL;
    tl_kernels_use (atoi (argv[1]));
    model = tl_model_open (argv[2], &err);
    if (!model) {
        fprintf (stderr, "%s\n", err.text);
        return err.code;
    }
    bool full = argc > 3 && strcmp (argv[3], "full") == 0;
    tl_tune_t tune = {.method = full ? TL_TUNE_FULL : TL_TUNE_LORA,
                      .rank = 8,
                      .alpha = 16,
                      .dropout = argc > 4 ? atof (argv[4]) : 0,
                      .seed = 1,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8,
                      .decay = 0.01};
    s_measure (model, &tune, before);
    tl_model_destroy (&model);
    return 0;
}
