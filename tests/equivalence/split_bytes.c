/*  split_bytes SEQUENCES MICROS THREADS: what a client's data connection carries, both ways, envelopes,
    ZMTP and CURVE included, is within 2 % of the rows themselves: 4 x rows x hidden x bytes of an element
    a step, in a hidden of 256. Four sequences make 256 rows, where that is hardest; with twenty a tensor
    has more than one chunk. With fp32 losses and norms have the bits of training in one place, here too,
    where the products are large enough for several threads.                                       */

#include "equivalence/case.h"

#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 5, LENGTH = 64, HIDDEN = 256, WAYS = 4 };

static tiny_model_t
s_model (void)
{
    tiny_model_t model = tiny_llama (true);
    model.hidden = HIDDEN;
    model.inner = 256;
    model.blocks = 3;
    model.heads = 4;
    model.kv_heads = 2;
    model.head_dim = 64;
    return model;
}

static void
s_check_bytes (const case_t *self, const char *dtype, double size, uint64_t rows,
               const case_step_t *train, const case_step_t *up)
{
    double bytes = 0, ideal = (double)(WAYS * rows * HIDDEN) * size;
    for (int i = 0; i < STEPS; i++) {
        if (train[i].rows != rows || !up[i].seen)
            case_fail (self, "step %d has %llu rows, expected %llu", i + 1,
                       (unsigned long long)train[i].rows, (unsigned long long)rows);
        bytes += (double)up[i].bytes / STEPS;
    }
    printf ("%s: %.0f bytes a step over %.0f of rows: %.4f\n", dtype, bytes, ideal, bytes / ideal);
    if (!(fabs (bytes / ideal - 1) <= 0.02))
        case_fail (self, "that is more than 2 %% away from the rows themselves");
}

int
main (int argc, char **argv)
{
    if (argc != 4) {
        fprintf (stderr, "usage: split_bytes SEQUENCES MICROS THREADS\n");
        return 2;
    }
    char *settings = tl_format ("train: {steps: %d, batch_size: %s, micros: %s, max_length: %d}\n",
                                STEPS, argv[1], argv[2], LENGTH + 1);
    case_spec_t spec = {.model = s_model (),
                        .sites = 1,
                        .examples = 24,
                        .letters = {80},
                        .even = true,
                        .threads = atoi (argv[3]),
                        .steps = STEPS,
                        .save_every = STEPS + 1, //  saves are not counted
                        .settings = settings};
    uint64_t rows = strtoull (argv[1], NULL, 10) * LENGTH;
    case_t *self = case_new (&spec);
    case_step_t train[STEPS], up[STEPS];
    case_train (self, NULL, train);
    case_up (self, "wire.dtype=bf16", up);
    s_check_bytes (self, "bf16", 2, rows, train, up);
    case_up (self, "wire.dtype=fp32", up);
    s_check_bytes (self, "fp32", 4, rows, train, up);
    for (int i = 0; i < STEPS; i++)
        if (memcmp (&train[i].loss, &up[i].loss, sizeof (double)) ||
            memcmp (&train[i].norm, &up[i].norm, sizeof (double)))
            case_fail (self, "step %d: in one place loss %.17g, norm %.17g; split %.17g, %.17g",
                       i + 1, train[i].loss, train[i].norm, up[i].loss, up[i].norm);
    case_destroy (&self);
    free (settings);
    return 0;
}
