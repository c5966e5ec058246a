/*  split_bytes: what a client's data connection carries, both ways, envelopes, ZMTP and CURVE included,
    is within 2 % of the rows themselves: 4 x rows x hidden x bytes of an element a step. At the size
    where that is hardest: 256 rows of 256.                                                        */

#include "equivalence/case.h"

#include "memory.h"

#include <math.h>
#include <stdio.h>

enum { STEPS = 6, ROWS = 256, HIDDEN = 256, WAYS = 4 };

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

int
main (void)
{
    static const struct {
        const char *override;
        double size; //  bytes of an element
    } dtypes[] = {{"wire.dtype=fp32", 4}, {"wire.dtype=bf16", 2}};
    case_spec_t spec = {.model = s_model (),
                        .sites = 1,
                        .examples = 16,
                        .letters = {80},
                        .even = true,
                        .steps = STEPS,
                        .save_every = STEPS + 1, //  saves are not counted
                        .settings =
                            "train: {steps: 6, batch_size: 4, micros: 1, max_length: 65}\n"};
    case_t *self = case_new (&spec);
    case_step_t train[STEPS], up[STEPS];
    case_train (self, NULL, train);
    for (size_t d = 0; d < 2; d++) {
        case_up (self, dtypes[d].override, up);
        double bytes = 0, ideal = WAYS * ROWS * HIDDEN * dtypes[d].size;
        for (int i = 0; i < STEPS; i++) {
            if (train[i].rows != ROWS || !up[i].seen)
                case_fail (self, "step %d has %llu rows, expected %d", i + 1,
                           (unsigned long long)train[i].rows, ROWS);
            bytes += (double)up[i].bytes / STEPS;
            printf ("%s step %d: %llu bytes\n", dtypes[d].override, i + 1,
                    (unsigned long long)up[i].bytes);
        }
        printf ("%s: %.0f bytes a step over %.0f of rows: %.4f\n", dtypes[d].override, bytes, ideal,
                bytes / ideal);
        if (!(fabs (bytes / ideal - 1) <= 0.02))
            case_fail (self, "more than 2 %% from the rows themselves");
    }
    case_destroy (&self);
    return 0;
}
