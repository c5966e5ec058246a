/*  split_wire: rows that cross the wire in 16 bits. The run learns as with 32, every loss within a stated
    distance of training in one place: bf16 keeps 8 bits of a row's value, fp16 11.                 */

#include "equivalence/case.h"

#include <math.h>
#include <stdio.h>

enum { STEPS = 8, DTYPES = 3 };

int
main (void)
{
    static const struct {
        const char *name, *override;
        double allowed; //  relative difference of a step's loss
    } dtypes[DTYPES] = {{"fp32", "wire.dtype=fp32", 0},
                        {"bf16", "wire.dtype=bf16", 2e-3},
                        {"fp16", "wire.dtype=fp16", 2e-4}};
    case_spec_t spec = {.model = tiny_chatglm (),
                        .sites = 1,
                        .examples = 16,
                        .letters = {40},
                        .steps = STEPS,
                        .save_every = 4,
                        .settings = "tune: {method: lora, rank: 4, dropout: 0.05}\n"
                                    "train: {steps: 8, batch_size: 4, max_length: 48, lr: 3e-2}\n"};
    case_t *self = case_new (&spec);
    case_step_t train[STEPS], up[STEPS];
    case_train (self, NULL, train);
    for (int d = 0; d < DTYPES; d++) {
        case_up (self, dtypes[d].override, up);
        double worst = 0;
        for (int i = 0; i < STEPS; i++) {
            if (!up[i].seen)
                case_fail (self, "%s: nothing was said of step %d", dtypes[d].name, i + 1);
            worst = fmax (worst, fabs (up[i].loss - train[i].loss) / train[i].loss);
        }
        printf ("%s: loss %.6f to %.6f, relative difference at most %.2g (allowed %g)\n",
                dtypes[d].name, up[0].loss, up[STEPS - 1].loss, worst, dtypes[d].allowed);
        if (!(worst <= dtypes[d].allowed) || !(up[STEPS - 1].loss < up[0].loss))
            case_fail (self, "%s strays too far, or nothing was learnt", dtypes[d].name);
    }
    case_destroy (&self);
    return 0;
}
