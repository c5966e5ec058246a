/*  split_sync FAMILY METHOD: three clients with fronts and tails of their own and one gradient of all (federate.clients:
    sync), wire fp32, as real processes, against `trunkline train` over the same sites: 50 steps with clipping. Losses are
    held to 1e-5, norms to 1e-4 (relative). Every client ends with the same bits. */

#include "equivalence/case.h"

#include "file.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 50, SITES = 3, MOST_FILE = 1 << 26 };

#define WORST_LOSS 1e-5
#define WORST_NORM 1e-4

static double
s_mean_loss (const case_t *self, const case_step_t *up, int step, uint64_t expected)
{
    double nll = 0;
    uint64_t labels = 0;
    for (int site = 0; site < SITES; site++) {
        const case_step_t *at = &up[site * STEPS + step];
        if (!at->seen)
            case_fail (self, "site-%d said nothing of step %d", site, step + 1);
        if (at->norm != up[step].norm)
            case_fail (self, "step %d: the norm is %.17g at site-%d and %.17g at site-0", step + 1,
                       at->norm, site, up[step].norm);
        nll += at->loss * (double)at->labels;
        labels += at->labels;
    }
    if (labels != expected)
        case_fail (self, "step %d: %llu label tokens, in one place %llu", step + 1,
                   (unsigned long long)labels, (unsigned long long)expected);
    return nll / (double)labels;
}

//  The bytes of a site's adapter; the caller frees.
static char *
s_adapter (const case_t *self, int site, size_t *size)
{
    tl_error_t err;
    char *name = tl_format ("site-%d", site), *directory = case_adapter (self, name);
    char *path =
        tl_format ("%s/%s", directory,
                   self->topology->tune.method == TL_METHOD_FULL ? "model.safetensors"
                                                                 : "adapter_model.safetensors");
    char *bytes = tl_file_read (path, MOST_FILE, size, &err);
    if (!bytes)
        case_fail (self, "%s", err.text);
    free (path);
    free (directory);
    free (name);
    return bytes;
}

static void
s_check_same (const case_t *self)
{
    size_t size, other_size;
    char *bytes = s_adapter (self, 0, &size);
    for (int site = 1; site < SITES; site++) {
        char *other = s_adapter (self, site, &other_size);
        if (size != other_size || memcmp (bytes, other, size) != 0)
            case_fail (self, "the adapters of site-0 and site-%d are not the same bits", site);
        free (other);
    }
    free (bytes);
}

int
main (int argc, char **argv)
{
    if (argc != 3) {
        fprintf (stderr, "usage: split_sync FAMILY METHOD\n");
        return 2;
    }
    char *settings = tl_format (
        "tune: {method: %s}\n"
        "train: {steps: %d, batch_size: 4, micros: 2, max_length: 64, lr: %s, clip: 0.5}\n"
        "schedule: {mode: batch}\nfederate: {clients: sync}\nwire: {dtype: fp32}\n",
        argv[2], STEPS, strcmp (argv[2], "full") ? "5e-3" : "1e-3");
    case_spec_t spec = {.model = strcmp (argv[1], "chatglm") ? tiny_llama (true) : tiny_chatglm (),
                        .sites = SITES,
                        .examples = 16,
                        .letters = {3, 14, 50},
                        .steps = STEPS,
                        .save_every = 20,
                        .settings = settings};
    case_t *self = case_new (&spec);
    case_step_t train[STEPS], up[SITES * STEPS];
    case_train (self, NULL, train);
    case_up (self, NULL, up);
    double worst = 0, worst_norm = 0;
    int clipped = 0;
    for (int i = 0; i < STEPS; i++) {
        double loss = s_mean_loss (self, up, i, train[i].labels);
        double relative = fabs (loss - train[i].loss) / fabs (train[i].loss);
        double norm = fabs (up[i].norm - train[i].norm) / train[i].norm;
        printf ("step %d: loss in one place %.9g, of all sites %.9g (%.1e), norm %.6g (%.1e)\n",
                i + 1, train[i].loss, loss, relative, train[i].norm, norm);
        worst = fmax (worst, relative);
        worst_norm = fmax (worst_norm, norm);
        clipped += train[i].norm > 0.5;
    }
    printf ("loss: %.2g (allowed %.0e), norm: %.2g (%.0e), %d of %d steps clipped, loss fell from "
            "%.3f to %.3f\n",
            worst, WORST_LOSS, worst_norm, WORST_NORM, clipped, STEPS, train[0].loss,
            train[STEPS - 1].loss);
    if (!clipped || !(train[STEPS - 1].loss < train[0].loss))
        case_fail (self, "the run doesn't show what it is to show: nothing was clipped or learnt");
    if (!(worst <= WORST_LOSS) || !(worst_norm <= WORST_NORM))
        case_fail (self, "the figures above are not all within what is allowed");
    s_check_same (self);
    case_destroy (&self);
    free (settings);
    return 0;
}
