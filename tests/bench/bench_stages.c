/*  bench_stages MODEL_DIR FRONT TAIL: how long the stages of a split micro of 256 rows take on one thread, one after
    another: front, trunk and tail forward, loss and tail backward, trunk backward, front backward, update of
    both parts. Labels on all rows. Prints one JSON object of medians in ms.                        */

#include "bench/bench_run.h"
#include "clock.h"
#include "memory.h"
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 14, WARM = 4, ROWS = 128, SEQUENCES = 2, STAGES = 6 };
static const char *const s_names[STAGES] = {"front",      "trunk",      "tail",
                                            "trunk_back", "front_back", "update"};

//  Every row has a label and sees those before it.
static tl_batch_t *
s_batch (const tl_config_t *config, uint64_t seed)
{
    tl_batch_t *batch = tl_alloc (sizeof *batch);
    uint64_t *number = tl_alloc (SEQUENCES * sizeof *number);
    uint32_t *length = tl_alloc (3 * SEQUENCES * sizeof *length);
    int32_t *ids = tl_alloc (2 * ROWS * SEQUENCES * sizeof *ids);
    for (size_t i = 0; i < SEQUENCES; i++) {
        number[i] = SEQUENCES * seed + i;
        length[i] = ROWS;
    }
    for (size_t i = 0; i < 2 * ROWS * SEQUENCES; i++)
        ids[i] = (int32_t)((seed * 7919 + i * 104729) % config->vocab);
    batch->sequences = SEQUENCES;
    batch->rows = ROWS * SEQUENCES;
    batch->number = number;
    batch->length = length;
    batch->context = length + SEQUENCES;
    batch->mask = length + 2 * SEQUENCES;
    batch->ids = ids;
    batch->labels = ids + ROWS * SEQUENCES;
    return batch;
}

static void
s_update (rig_t *rig)
{
    for (size_t p = 0; p < rig->part_count; p++) {
        tl_error_t err;
        double *squares = tl_alloc ((tl_part_tensors (rig->parts[p]) + 1) * sizeof *squares);
        tl_part_finish_gradient (rig->parts[p], squares);
        tl_part_update (rig->parts[p], 1e-3, 1e-4, &err);
        free (squares);
    }
}

//  One micro and an update; times [STAGES] in ms.
static void
s_step (rig_t *rig, uint64_t step, double *times)
{
    tl_batch_t *batch = s_batch (rig->config, step);
    size_t values = batch->rows * rig->config->hidden;
    float *d = tl_alloc (values * sizeof *d), *below = tl_alloc (values * sizeof *below);
    tl_tape_t *tapes[3];
    double nll;
    uint64_t labels;
    int64_t at[STAGES + 1];
    at[0] = tl_clock_us ();
    tapes[0] = tl_segment_forward (rig->chain[0], batch, step, NULL, true);
    at[1] = tl_clock_us ();
    tapes[1] = tl_segment_forward (rig->chain[1], batch, step, tl_tape_output (tapes[0]), true);
    at[2] = tl_clock_us ();
    tapes[2] = tl_segment_forward (rig->chain[2], batch, step, tl_tape_output (tapes[1]), true);
    tl_segment_loss (rig->chain[2], tapes[2], &nll, &labels);
    tl_segment_backward (rig->chain[2], tapes[2], NULL, d);
    at[3] = tl_clock_us ();
    tl_segment_backward (rig->chain[1], tapes[1], d, below);
    at[4] = tl_clock_us ();
    tl_segment_backward (rig->chain[0], tapes[0], below, NULL);
    at[5] = tl_clock_us ();
    s_update (rig);
    at[6] = tl_clock_us ();
    for (size_t i = 0; i < STAGES; i++)
        times[i] = (double)(at[i + 1] - at[i]) / 1000;
    for (size_t i = 0; i < 3; i++)
        tl_tape_destroy (&tapes[i]);
    free (d);
    free (below);
    free ((void *)batch->number);
    free ((void *)batch->length);
    free ((void *)batch->ids);
    free (batch);
}

int
main (int argc, char **argv)
{
    tl_error_t err;
    tl_model_t *model = NULL;
    tl_kernels_use (1);
    if (argc == 4)
        model = tl_model_open (argv[1], &err);
    if (!model) {
        fprintf (stderr, "%s\n", argc == 4 ? err.text : "usage: bench_stages MODEL_DIR FRONT TAIL");
        return TL_BAD_INPUT;
    }
    tl_tune_t tune = {.method = TL_TUNE_LORA,
                      .rank = 8,
                      .alpha = 16,
                      .seed = 1,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8,
                      .decay = 0.01};
    rig_t *rig = rig_new (model, strtoul (argv[2], NULL, 10), strtoul (argv[3], NULL, 10), &tune);
    double times[STAGES][STEPS], one[STAGES];
    for (size_t step = 0; step < STEPS; step++) {
        s_step (rig, step, one);
        for (size_t i = 0; i < STAGES; i++)
            times[i][step] = one[i];
    }
    printf ("{");
    for (size_t i = 0; i < STAGES; i++)
        printf ("%s\"%s\": %.4f", i ? ", " : "", s_names[i],
                bench_quantile (times[i] + WARM, STEPS - WARM, 0.5));
    printf ("}\n");
    rig_destroy (&rig);
    tl_model_destroy (&model);
    return 0;
}
