/*  Numbers that are none: in a model that one site's text meets, and in a state on disk. Who has them is out
    with a sentence; the others go on.                                                               */

#include "chaos/stage.h"

#include "data/data.h"
#include "file.h"
#include "memory.h"
#include "tiny_tokenizer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static case_spec_t
s_case (size_t sites, uint64_t steps)
{
    static char settings[512];
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3}\n"
              "wire: {dtype: fp32}\nliveness: {ping_ms: 300, expire_ms: 3000}\n",
              (int)steps);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 5,
                         .settings = settings};
}

static char *
s_path (const stage_t *stage, const char *name)
{
    return tl_format ("%s/%s", stage_case (stage)->directory, name);
}

//  Makes the embedding of the letters of word infinite, in the file of a case's llama. Only who reads such a letter meets it.
static void
s_poison (const stage_t *stage, const char *word)
{
    char *path = s_path (stage, "model.safetensors"), *pieces = s_path (stage, "tokenizer.model");
    tl_error_t err;
    tl_config_t config = tiny_tokenizer_config (TL_FAMILY_LLAMA);
    tl_tokenizer_t *tokenizer = tl_tokenizer_open (pieces, &config, &err);
    stage_check (stage, tokenizer != NULL, err.text);
    size_t count, size;
    int32_t *ids = tl_tokenizer_encode (tokenizer, word, strlen (word), &count);
    stage_check (stage, count > 0, "ids of the letters");
    char *bytes = tl_file_read (path, 1 << 26, &size, &err);
    uint64_t head;
    memcpy (&head, bytes, sizeof head);
    json_error_t error;
    json_t *header = json_loadb (bytes + 8, head, 0, &error);
    json_t *table = json_object_get (header, "model.embed_tokens.weight");
    stage_check (stage, table && strcmp (part_text (table, "dtype"), "BF16") == 0, "bf16 rows");
    size_t first =
        (size_t)json_integer_value (json_array_get (json_object_get (table, "data_offsets"), 0));
    size_t hidden =
        (size_t)json_integer_value (json_array_get (json_object_get (table, "shape"), 1));
    static const unsigned char infinity[2] = {0x80, 0x7f};
    memcpy (bytes + 8 + head + first + 2 * hidden * (size_t)ids[count - 1], infinity, 2);
    stage_check (stage, tl_file_write (path, bytes, size, 0644, &err) == 0, "a poisoned model");
    json_decref (header);
    free (bytes);
    free (ids);
    tl_tokenizer_destroy (&tokenizer);
    free (path);
    free (pieces);
}

//  An example with such a letter behind all others, which no step before the second meets.
static void
s_poison_text (const stage_t *stage, size_t site)
{
    char *command =
        tl_format ("echo '{\"prompt\": \"word\", \"completion\": \"aZ\"}' >> %s/%zu.jsonl",
                   stage_case (stage)->directory, site);
    stage_check (stage, system (command) == 0, command);
    free (command);
}

//  The sentence names the step after those that were done, of as many as the run has.
static void
s_check_step (const stage_t *stage, const part_t *up, size_t steps)
{
    char *step = tl_format ("is not finite at step %zu of %zu of site-0",
                            part_count (up, "closed") + 1, steps);
    stage_check (stage, strstr (part_err (up), step), step);
    free (step);
}

static void
s_nan (void)
{
    case_spec_t spec = s_case (1, 100);
    spec.examples = 80;
    stage_t *stage = stage_new (&spec);
    s_poison (stage, "aZ");
    s_poison_text (stage, 0);
    part_t *up = stage_up (stage, "--set", "checkpoint.every=1", NULL);
    stage_check (stage, part_wait (up) == 4, "code 4");
    s_check_step (stage, up, 100);
    stage_check (stage, strstr (part_err (up), "lower train.lr or look at the data"), "what to do");
    stage_check (stage, part_count (up, "closed") >= 1, "steps before it");
    char *adapter = s_path (stage, "runs/case/site-0/adapter/adapter_model.safetensors");
    stage_check (stage, access (adapter, R_OK) == 0, "the last good adapter");
    free (adapter);
    stage_end (&stage);
}

//  Its adapter and its state of so many steps.
static void
s_check_kept (const stage_t *stage, const char *site, size_t steps)
{
    char *adapter = tl_format ("runs/case/%s/adapter/adapter_model.safetensors", site);
    char *state = tl_format ("runs/case/%s/save-%08zu.state", site, steps);
    char *paths[] = {s_path (stage, adapter), s_path (stage, state)};
    stage_check (stage, access (paths[0], R_OK) == 0, adapter);
    stage_check (stage, access (paths[1], R_OK) == 0, state);
    free (paths[0]);
    free (paths[1]);
    free (adapter);
    free (state);
}

//  A learning rate that blows the adapter up: the gradient overflows while the loss is still a number.
static void
s_exploding (void)
{
    case_spec_t spec = s_case (1, 100);
    spec.model = tiny_chatglm ();
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, "--set", "train.lr=1000", "--set", "train.warmup=0", "--set",
                           "train.clip=0", NULL);
    stage_check (stage, part_wait (up) == 4, "code 4");
    stage_check (stage, strstr (part_err (up), "the gradient is not finite at step"), "what");
    s_check_step (stage, up, 100);
    stage_check (stage, strstr (part_err (up), "lower train.lr or look at the data"), "what to do");
    s_check_kept (stage, "site-0", part_count (up, "closed"));
    stage_end (&stage);
}

//  Both blow up, and no save was ever due: what each committed is kept all the same, and the run goes on from there.
static void
s_exploding_both (void)
{
    case_spec_t spec = s_case (2, 100);
    spec.model = tiny_chatglm ();
    spec.save_every = 1000;
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, "--set", "train.lr=1000", "--set", "train.warmup=0", "--set",
                           "train.clip=0", NULL);
    stage_check (stage, part_wait (up) == 4, "code 4");
    const json_t *done = part_event (up, "done", NULL, 0);
    int64_t steps = part_int (done, "steps");
    stage_check (stage, steps > 0 && steps < 100, "some steps, not all");
    s_check_kept (stage, "site-0", (size_t)steps);
    s_check_kept (stage, "site-1", (size_t)steps);
    //  Of this step all have a save: nobody begins anew. It blows up again.
    up = stage_up (stage, "--resume", "--set", "train.lr=1000", "--set", "train.warmup=0", "--set",
                   "train.clip=0", NULL);
    stage_check (stage, part_int (part_event (up, "resumed", NULL, 0), "step") == steps,
                 "from that step");
    stage_check (stage,
                 part_int (part_event (up, "restored", "step", steps), "step") == steps &&
                     part_int (part_event (up, "restored", "step", steps), "step") == steps,
                 "each from its own save of it");
    stage_check (stage, part_wait (up) == 4, "code 4");
    stage_check (stage, !strstr (part_err (up), "fresh adapter"), "nobody begins anew");
    stage_end (&stage);
}

//  One client of two meets it: it is out, with a sentence; the other goes on to the end and the trunk has seen nothing of it.
//  The run's code says that not all is well.
static void
s_nan_of_one (void)
{
    case_spec_t spec = s_case (2, 40);
    spec.examples = 80;
    stage_t *stage = stage_new (&spec);
    s_poison (stage, "aZ");
    s_poison_text (stage, 1);
    part_t *up = stage_up (stage, NULL);
    part_log (up, "is not finite at step");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == 40 && part_int (done, "code") == 0,
                 "the other's 40 steps");
    stage_check (stage, part_wait (up) == 4, "code 4");
    stage_check (stage, part_count (up, "abandoned") == 0, "no step lost for the other");
    stage_end (&stage);
}

//  A client whose state on disk was damaged can't come back; the other goes on.
static void
s_damaged (void)
{
    case_spec_t spec = s_case (2, 400);
    spec.save_every = 20;
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "saved", "step", 20);
    kill (part_child (up, "client", "site-1"), SIGKILL);
    char *command =
        tl_format ("for f in %s/runs/case/site-1/save-*.state; do "
                   "s=$(stat -c %%s $f); printf '\\377\\377\\377\\177' | "
                   "dd of=$f bs=1 seek=$((s / 3 / 4 * 4)) conv=notrunc 2>/dev/null; done",
                   stage_case (stage)->directory);
    stage_check (stage, system (command) == 0, command);
    part_log (up, "is damaged, for its checksum does not hold");
    const json_t *done = part_event (up, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == 400 && part_int (done, "code") == 0,
                 "the other's 400 steps");
    stage_check (stage, part_wait (up) == 4, "code 4");
    free (command);
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {{"nan", s_nan},
                                         {"exploding", s_exploding},
                                         {"exploding_both", s_exploding_both},
                                         {"nan_of_one", s_nan_of_one},
                                         {"damaged", s_damaged},
                                         {NULL, NULL}};
    return stage_main (argc, argv, tests);
}
