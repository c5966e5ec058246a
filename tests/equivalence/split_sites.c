/*  split_sites FAMILY MICROS: three clients of one trunk in mode batch, with front and tail frozen and
    wire fp32, against `trunkline train` over the same sites. Their label tokens differ by more than 3;
    losses are held to 2e-6, trained tensors to 1e-4 of the largest value and 1e-5 in norm.         */

#include "equivalence/case.h"

#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 8, SITES = 3 };

#define WORST_LOSS 2e-6
#define WORST_MAX 1e-4
#define WORST_NORM 1e-5

//  Token-weighted mean over the clients; checks that their tokens are as unequal as they should be.
static double
s_mean_loss (const case_t *self, const case_step_t *up, int step, uint64_t expected)
{
    double nll = 0;
    uint64_t labels = 0, least = UINT64_MAX, most = 0;
    for (int site = 0; site < SITES; site++) {
        const case_step_t *at = &up[site * STEPS + step];
        if (!at->seen)
            case_fail (self, "site-%d said nothing of step %d", site, step + 1);
        nll += at->loss * (double)at->labels;
        labels += at->labels;
        least = at->labels < least ? at->labels : least;
        most = at->labels > most ? at->labels : most;
    }
    if (labels != expected || most < 3 * least)
        case_fail (self, "step %d: %llu label tokens (in one place %llu), from %llu to %llu a site",
                   step + 1, (unsigned long long)labels, (unsigned long long)expected,
                   (unsigned long long)least, (unsigned long long)most);
    return nll / (double)labels;
}

int
main (int argc, char **argv)
{
    if (argc != 3) {
        fprintf (stderr, "usage: split_sites FAMILY MICROS\n");
        return 2;
    }
    char *settings = tl_format (
        "tune: {method: lora, rank: 4, dropout: 0.05, parts: [trunk]}\n"
        "train: {steps: %d, batch_size: 4, micros: %s, max_length: 64, lr: 1e-2, clip: 0.1}\n"
        "schedule: {mode: batch}\nwire: {dtype: fp32}\n",
        STEPS, argv[2]);
    case_spec_t spec = {.model = strcmp (argv[1], "chatglm") ? tiny_llama (true) : tiny_chatglm (),
                        .sites = SITES,
                        .examples = 16,
                        .letters = {3, 14, 50},
                        .steps = STEPS,
                        .save_every = 4,
                        .settings = settings};
    case_t *self = case_new (&spec);
    case_step_t train[STEPS], up[SITES * STEPS];
    case_train (self, NULL, train);
    case_up (self, NULL, up);

    double worst = 0;
    for (int i = 0; i < STEPS; i++) {
        double loss = s_mean_loss (self, up, i, train[i].labels);
        double relative = fabs (loss - train[i].loss) / fabs (train[i].loss);
        printf ("step %d: loss in one place %.9g, split %.9g, relative difference %.2g\n", i + 1,
                train[i].loss, loss, relative);
        worst = fmax (worst, relative);
    }
    case_difference_t difference = {0};
    case_compare (self, "trunk", &difference);
    printf ("loss: %.2g (allowed %.0e); %zu tensors: max %.2g (%.0e), norm %.2g (%.0e)\n", worst,
            WORST_LOSS, difference.tensors, difference.worst_max, WORST_MAX, difference.worst_norm,
            WORST_NORM);
    if (difference.tensors != case_train_tensors (self))
        case_fail (self, "the worker saved %zu tensors, training in one place %zu",
                   difference.tensors, case_train_tensors (self));
    if (!(worst <= WORST_LOSS) || !(difference.worst_max <= WORST_MAX) ||
        !(difference.worst_norm <= WORST_NORM))
        case_fail (self, "the figures above are not all within what is allowed");
    case_destroy (&self);
    free (settings);
    return 0;
}
