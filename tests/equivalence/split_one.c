/*  split_one FAMILY SPLIT METHOD CLIP MICROS MODE PARTS: one client over real processes and CURVE
    sockets, wire fp32, is `trunkline train`: the loss and the norm of every step have the same bits, and
    so has every trained tensor of front, tail and trunk.

    FAMILY: chatglm, glm, glm-hf (Hugging Face's layout), llama (own head), llama-tied or qwen2; SPLIT: blocks
    of front and tail, as 12; METHOD: lora (with dropout), full or ptuning, or one of these with more settings: rslora,
    whose front has no adapter, and partial, which leaves some of everything frozen, both under a cosine; MODE: serial
    or batch; PARTS: what trains, as front,tail. */

#include "equivalence/case.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 7, ARGUMENTS = 8 };

static tiny_model_t
s_model (const char *family)
{
    if (strcmp (family, "chatglm") == 0)
        return tiny_chatglm ();
    if (strncmp (family, "glm", 3) == 0)
        return tiny_glm (strcmp (family, "glm-hf") == 0);
    if (strcmp (family, "qwen2") == 0)
        return tiny_qwen2 (true);
    return tiny_llama (strcmp (family, "llama-tied") == 0);
}

//  What METHOD says of tune and of the learning rate.
static const struct {
    const char *word, *tune, *rate;
} s_methods[] = {
    {"lora", "method: lora, rank: 4, dropout: 0.05", ""},
    {"full", "method: full", ""},
    {"ptuning", "method: ptuning, prefix: 3", ""},
    {"rslora", "method: lora, rank: 4, dropout: 0.05, rslora: true, freeze: [blocks.0]",
     "schedule: cosine, lr_min: 1e-4, "},
    {"partial", "method: full, freeze: [embedding, blocks.2, '*.4.*norm*', '*.0.*dense*']",
     "schedule: cosine, "},
};

static char *
s_settings (char **argv)
{
    const char *split = argv[2], *clip = argv[4], *micros = argv[5];
    size_t count = sizeof s_methods / sizeof *s_methods, at = 0;
    while (at < count && strcmp (s_methods[at].word, argv[3]) != 0)
        at++;
    if (at == count) {
        fprintf (stderr, "split_one: there is no METHOD %s\n", argv[3]);
        exit (2);
    }
    return tl_format (
        "split: {front: %c, tail: %c}\ntune: {%s, parts: [%s]}\n"
        "train: {steps: %d, batch_size: 5, micros: %s, max_length: 48, lr: 3e-3, warmup: 2, %s"
        "clip: %s}\n"
        "schedule: {mode: %s}\nwire: {dtype: fp32}\n",
        split[0], split[1], s_methods[at].tune, argv[7], STEPS, micros, s_methods[at].rate, clip,
        argv[6]);
}

//  A case that doesn't exercise what it is there for is worth nothing.
static void
s_check_clip (const case_t *self, double clip, const case_step_t *steps)
{
    for (int i = 0; i < STEPS; i++)
        if (clip == 0.1 ? steps[i].norm <= clip : clip > 0 && steps[i].norm >= clip)
            case_fail (self, "step %d: the norm %g makes no use of clip %g", i + 1, steps[i].norm,
                       clip);
    if (steps[0].loss == steps[STEPS - 1].loss)
        case_fail (self, "nothing was learnt: the loss stays %.17g", steps[0].loss);
}

static void
s_check_steps (const case_t *self, const case_step_t *train, const case_step_t *up)
{
    for (int i = 0; i < STEPS; i++)
        if (!up[i].seen || memcmp (&train[i].loss, &up[i].loss, sizeof (double)) ||
            memcmp (&train[i].norm, &up[i].norm, sizeof (double)) ||
            memcmp (&train[i].lr, &up[i].lr, sizeof (double)) || train[i].labels != up[i].labels)
            case_fail (self,
                       "step %d: in one place loss %.17g, norm %.17g, lr %.17g, %llu label tokens; "
                       "split %s%.17g, %.17g, %.17g, %llu",
                       i + 1, train[i].loss, train[i].norm, train[i].lr,
                       (unsigned long long)train[i].labels,
                       up[i].seen ? "" : "nothing: ", up[i].loss, up[i].norm, up[i].lr,
                       (unsigned long long)up[i].labels);
}

int
main (int argc, char **argv)
{
    if (argc != ARGUMENTS || strlen (argv[2]) != 2) {
        fprintf (stderr, "usage: split_one FAMILY SPLIT METHOD CLIP MICROS MODE PARTS\n");
        return 2;
    }
    char *settings = s_settings (argv);
    case_spec_t spec = {.model = s_model (argv[1]),
                        .sites = 1,
                        .examples = 18,
                        .letters = {40},
                        .steps = STEPS,
                        .save_every = 4,
                        .settings = settings};
    case_t *self = case_new (&spec);
    case_step_t train[STEPS], up[STEPS];
    case_train (self, NULL, train);
    s_check_clip (self, atof (argv[4]), train);
    case_up (self, NULL, up);
    s_check_steps (self, train, up);

    case_difference_t difference = {0};
    if (strstr (argv[7], "front") || strstr (argv[7], "tail"))
        case_compare (self, "site-0", &difference);
    if (strstr (argv[7], "trunk"))
        case_compare (self, "trunk", &difference);
    if (difference.tensors != case_train_tensors (self))
        case_fail (self, "client and worker saved %zu tensors, training in one place %zu",
                   difference.tensors, case_train_tensors (self));
    if (difference.different)
        case_fail (self, "%zu of %zu tensors differ, by %g of their largest value at worst",
                   difference.different, difference.tensors, difference.worst_max);
    printf ("%d steps, loss %.9g to %.9g, %zu tensors: the same bits\n", STEPS, train[0].loss,
            train[STEPS - 1].loss, difference.tensors);
    case_destroy (&self);
    free (settings);
    return 0;
}
