/*  bench_segment [THREADS [MODEL_DIR]]: time and memory of LoRA steps of the whole model in one process, for
    the shape of SmolLM2-135M (llama, hidden 576 x 30 blocks, vocabulary 49152 tied, random weights) or a
    given model. One micro of 256 rows. Prints one JSON object.                                      */

#include "clock.h"
#include "file.h"
#include "memory.h"
#include "rig.h"
#include "tiny_model.h"

#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 8, ROWS = 128, SEQUENCES = 2 };

static double
s_ms (int64_t from)
{
    return (double)(tl_clock_us () - from) / 1000;
}

static void
s_measure (tl_model_t *model, size_t before)
{
    const char *targets[] = {"q_proj", "v_proj"};
    tl_tune_t tune = {.method = TL_TUNE_LORA,
                      .rank = 8,
                      .alpha = 16,
                      .seed = 1,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8,
                      .decay = 0.01};
    bool llama = tl_model_config (model)->family == TL_FAMILY_LLAMA;
    for (size_t i = 0; llama && i < 2; i++)
        tune.targets[tune.target_count++] = targets[i];
    tune.dropout = getenv ("DROPOUT") ? atof (getenv ("DROPOUT")) : 0;
    rig_t *rig = rig_new (model, 0, 0, &tune);
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
    size_t total = plan.weights + plan.trained + plan.activations + plan.workspace;
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

int
main (int argc, char **argv)
{
    tl_error_t err;
    char *directory = argc > 2 ? tl_strdup (argv[2]) : tiny_directory ();
    tiny_model_t spec = {.family = TL_FAMILY_LLAMA,
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
    if (argc > 3 || (argc <= 2 && getenv ("MAKE") && tiny_model_write (&spec, directory, &err)))
        return 1;
    if (argc <= 2 && getenv ("MAKE")) {
        printf ("%s\n", directory);
        return 0;
    }
    size_t before = tl_memory_now ();
    if (tl_blas_open (argc > 1 ? atoi (argv[1]) : 1, &err)) {
        fprintf (stderr, "%s\n", err.text);
        return err.code;
    }
    size_t with_blas = tl_memory_now ();
    fprintf (stderr, "BLAS %.1f MB\n", (double)(with_blas - before) / 1e6);
    tl_model_t *model = tl_model_open (directory, &err);
    if (!model) {
        fprintf (stderr, "%s\n", err.text);
        return err.code;
    }
    s_measure (model, before);
    tl_model_destroy (&model);
    free (directory);
    return 0;
}
