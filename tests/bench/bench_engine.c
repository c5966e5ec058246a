/*  bench_engine RUNNER TRUNKLINE DIR [--pairs N] [--only TEXT] [--threads N] [--foreign CORES]: the engine beside its
    opponents on this machine.

    RUNNER is bench_engine_run. A figure is a ratio of two processes, or inside one, run in turns; the result is the
    median of the pairs. A pair in which others took more than a tenth of a core is repeated and counted as
    disturbed. What it needs it finds in the environment, and what it lacks it leaves out and says so:

        TL_PYTHON       a Python with torch, transformers and peft, for the peers' scripts
        TL_PEERS        the folder with those scripts, torch_lora_step.py and torch_block.py (../shared/peers)
        TL_SMOLLM2_HF   SmolLM2-135M as a Hugging Face directory in fp32
        TL_SMOLLM2      the same as a GGUF file, Q4_1
        TL_CHATGLM_6B   what scripts/make-random-model chatglm-6b made

    Prints one JSON object, a key a figure and the spreads under detail.                               */

#include "bench/bench_run.h"

#include "error.h"
#include "file.h"
#include "memory.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PAIRS = 64, TRIES = 4, WORDS = 24 };

typedef struct {
    const char *runner, *trunkline, *dir, *only;
    const char *python, *peers, *hf, *gguf, *large; //  NULL: not here
    char *log, threads[8];
    size_t pairs;
    double foreign; //  cores that others may take in a pair that counts
    json_t *result, *detail, *skipped;
} bench_t;

static void
s_fail (const char *format, const char *what)
{
    fprintf (stderr, "bench engine: ");
    fprintf (stderr, format, what);
    fprintf (stderr, "\n");
    exit (TL_FAILED);
}

//  --- one process ------------------------------------------------------------------------------

//  Keeps the last line that is a JSON object.
static void
s_on_line (void *arg, const char *line, double at)
{
    json_t **last = arg, *object = json_loads (line, 0, NULL);
    if (!json_is_object (object)) {
        json_decref (object);
        return;
    }
    json_decref (*last);
    *last = object;
}

static json_t *
s_run (const bench_t *self, const char *const *argv, double *foreign)
{
    bench_usage_t usage;
    json_t *last = NULL;
    if (bench_run (argv, self->log, s_on_line, &last, &usage) != 0 || !last)
        s_fail ("a measurement failed; look into %s", self->log);
    *foreign = usage.foreign > *foreign ? usage.foreign : *foreign;
    return last;
}

//  A number at "a.b" of an object.
static double
s_number (const json_t *object, const char *path)
{
    char head[64];
    const char *dot = strchr (path, '.');
    if (!dot)
        return json_number_value (json_object_get (object, path));
    snprintf (head, sizeof head, "%.*s", (int)(dot - path), path);
    return s_number (json_object_get (object, head), dot + 1);
}

//  --- figures ----------------------------------------------------------------------------------

//  A figure: the number at ours of the runner's object, over that at theirs of the peer's (or of the runner's own).
typedef struct {
    const char *key;
    const char *run;    //  the runner's words
    const char *ours;   //  path of a number
    const char *peer;   //  the peer's script and words, or NULL: theirs is in the same object
    const char *theirs; //  NULL: the number itself is the figure
    bool over;          //  ours / theirs; else theirs / ours
} figure_t;

static const figure_t s_figures[] = {
    {"train_1x128_over_torch", "train $hf 1 128", "tokens_per_s",
     "torch_lora_step.py --model $hf --batch 1 --seq 128", "tokens_per_s", true},
    {"train_4x256_over_torch", "train $hf 4 256", "tokens_per_s",
     "torch_lora_step.py --model $hf --batch 4 --seq 256", "tokens_per_s", true},
    {"train_8x256_over_torch", "train $hf 8 256", "tokens_per_s",
     "torch_lora_step.py --model $hf --batch 8 --seq 256", "tokens_per_s", true},
    {"train_4x256_memory_over_torch", "train $hf 4 256", "peak_mb",
     "torch_lora_step.py --model $hf --batch 4 --seq 256", "peak_rss_mb", true},
    {"train_4x256_bf16_over_torch_bf16", "train $hf 4 256 0 bf16", "tokens_per_s",
     "torch_lora_step.py --model $hf --dtype bf16 --batch 4 --seq 256", "tokens_per_s", true},
    {"train_1x128_bf16_over_torch_bf16", "train $hf 1 128 0 bf16", "tokens_per_s",
     "torch_lora_step.py --model $hf --dtype bf16 --batch 1 --seq 128", "tokens_per_s", true},
    {"eval_4x256_over_torch", "eval $hf 4 256", "tokens_per_s",
     "torch_lora_step.py --model $hf --mode eval --batch 4 --seq 256", "tokens_per_s", true},
    {"generate_over_torch_bf16", "generate $gguf 32 64", "tokens_per_s",
     "torch_lora_step.py --model $hf --mode generate --dtype bf16 --batch 1 --seq 32",
     "tokens_per_s", true},
    {"generate_over_bandwidth", "generate $gguf 32 64", "over_bandwidth", NULL, NULL, true},
    {"linears_128_over_sgemm", "linears $hf 128", "over_sgemm.median", NULL, NULL, true},
    {"linears_1024_over_sgemm", "linears $hf 1024", "over_sgemm.median", NULL, NULL, true},
    {"other_share_4x256", "share $hf 4 256", "other.median", NULL, NULL, true},
    {"block_fp32_over_sgemm", "block fp32 512", "over_sgemm.median", NULL, NULL, true},
    {"block_fp16_over_sgemm", "block fp16 512", "over_sgemm.median", NULL, NULL, true},
    {"block_fp32_over_torch", "block fp32 512", "seconds.median", "torch_block.py --rows 512",
     "forward_backward_ms", false},
    {"map_6b_s", "open $large", "open_s", NULL, NULL, true},
    {"client_6b_memory_over_plan", "part $large client 1 1 512", "memory_over_plan", NULL, NULL,
     true},
    {"trunk_6b_memory_over_plan", "part $large trunk 1 5 512", "memory_over_plan", NULL, NULL,
     true},
};

//  A word with what it stands for; NULL when that isn't here.
static const char *
s_word (const bench_t *self, const char *word)
{
    return strcmp (word, "$hf") == 0      ? self->hf
           : strcmp (word, "$gguf") == 0  ? self->gguf
           : strcmp (word, "$large") == 0 ? self->large
                                          : word;
}

//  Appends text's words to argv; the name of one that isn't here, or NULL. The text's copy is the caller's to free.
static const char *
s_words (const bench_t *self, const char *text, const char **argv, char **copy)
{
    size_t count = 0;
    while (argv[count])
        count++;
    *copy = tl_strdup (text);
    for (char *rest = *copy, *word; (word = strsep (&rest, " ")) && count + 1 < WORDS;) {
        argv[count] = s_word (self, word);
        if (!argv[count++])
            return word;
        argv[count] = NULL;
    }
    return NULL;
}

typedef struct {
    const char *ours[WORDS], *theirs[WORDS]; //  argv's; theirs [0] NULL: one process
    char *copies[3];
} command_t;

static void
s_command_clear (command_t *self)
{
    for (size_t i = 0; i < 3; i++)
        free (self->copies[i]);
}

//  What is missing for the figure, or NULL.
static const char *
s_command (const bench_t *self, const figure_t *figure, command_t *command)
{
    *command = (command_t){.ours = {self->runner, "--threads", self->threads}};
    const char *missing = s_words (self, figure->run, command->ours, &command->copies[0]);
    if (missing || !figure->peer)
        return missing;
    if (!self->python || !self->peers)
        return "TL_PYTHON and TL_PEERS";
    command->theirs[0] = self->python;
    char *words = tl_format ("%s --threads %s --repeats 3", figure->peer, self->threads);
    missing = s_words (self, words, command->theirs, &command->copies[1]);
    free (words);
    if (missing)
        return missing;
    command->copies[2] = tl_format ("%s/%s", self->peers, command->theirs[1]);
    command->theirs[1] = command->copies[2];
    return NULL;
}

typedef struct {
    double ratio[MOST_PAIRS], ours[MOST_PAIRS], theirs[MOST_PAIRS];
    size_t count, runs, disturbed;
} pairs_t;

static json_t *
s_spread (double *values, size_t count)
{
    return json_pack ("{s:f, s:f, s:f, s:f, s:f}", "median", bench_quantile (values, count, 0.5),
                      "least", bench_quantile (values, count, 0), "quarter",
                      bench_quantile (values, count, 0.25), "three_quarters",
                      bench_quantile (values, count, 0.75), "most",
                      bench_quantile (values, count, 1));
}

//  One pair, in turns which goes first. False when it was disturbed.
static bool
s_pair (const bench_t *self, const figure_t *figure, const command_t *command, pairs_t *pairs)
{
    double foreign = 0, numbers[2] = {0, 1};
    for (size_t turn = 0; turn < (command->theirs[0] ? 2 : 1); turn++) {
        bool theirs = command->theirs[0] && (turn + pairs->runs) % 2;
        json_t *object = s_run (self, theirs ? command->theirs : command->ours, &foreign);
        numbers[theirs] = s_number (object, theirs ? figure->theirs : figure->ours);
        json_decref (object);
    }
    pairs->runs++;
    if (foreign > self->foreign) {
        pairs->disturbed++;
        fprintf (stderr, "%s: others took %.2f cores, once more\n", figure->key, foreign);
        return false;
    }
    if (strstr (figure->theirs ? figure->theirs : "", "_ms"))
        numbers[1] /= 1e3;
    size_t at = pairs->count++;
    pairs->ours[at] = numbers[0];
    pairs->theirs[at] = numbers[1];
    pairs->ratio[at] = figure->over ? numbers[0] / numbers[1] : numbers[1] / numbers[0];
    fprintf (stderr, "%s: %.4g\n", figure->key, pairs->ratio[at]);
    return true;
}

static void
s_figure (bench_t *self, const figure_t *figure)
{
    command_t command;
    const char *missing = s_command (self, figure, &command);
    pairs_t pairs = {.count = 0};
    if (missing) {
        json_object_set_new (self->result, figure->key, json_null ());
        json_object_set_new (self->skipped, figure->key, json_sprintf ("%s isn't here", missing));
        fprintf (stderr, "%s: skipped, %s isn't here\n", figure->key, missing);
        s_command_clear (&command);
        return;
    }
    while (pairs.count < self->pairs && pairs.runs < TRIES * self->pairs)
        s_pair (self, figure, &command, &pairs);
    s_command_clear (&command);
    json_t *detail = json_pack ("{s:I, s:I}", "pairs", (json_int_t)pairs.count, "disturbed",
                                (json_int_t)pairs.disturbed);
    json_object_set_new (self->detail, figure->key, detail);
    json_object_set_new (self->result, figure->key,
                         pairs.count ? json_real (bench_quantile (pairs.ratio, pairs.count, 0.5))
                                     : json_null ());
    if (!pairs.count)
        return;
    json_object_set_new (detail, "ratio", s_spread (pairs.ratio, pairs.count));
    json_object_set_new (detail, "ours", s_spread (pairs.ours, pairs.count));
    if (figure->theirs)
        json_object_set_new (detail, "theirs", s_spread (pairs.theirs, pairs.count));
}

//  --- figures that are no pairs of one kind ----------------------------------------------------

static bool
s_wanted (const bench_t *self, const char *key)
{
    return !self->only || strstr (key, self->only);
}

//  Tapes that keep everything against tapes of at most two fifths: time, memory, and the same bits.
static void
s_recompute (bench_t *self)
{
    if (!s_wanted (self, "recompute") || !self->hf)
        return;
    double time[MOST_PAIRS], saved = 0, foreign;
    size_t count = 0;
    bool same = true;
    char budget[16] = "0";
    const char *plain[] = {self->runner, "--threads", self->threads, "train",
                           self->hf,     "4",         "256",         NULL};
    const char *less[] = {self->runner, "--threads", self->threads, "train", self->hf,
                          "4",          "256",       budget,        NULL};
    for (size_t runs = 0; count < self->pairs && runs < TRIES * self->pairs; runs++) {
        foreign = 0;
        json_t *all = s_run (self, plain, &foreign);
        double keep = s_number (all, "plan_mb") - 0.62 * s_number (all, "activations_mb");
        snprintf (budget, sizeof budget, "%.0f", floor (keep * 1e6 / (1 << 20)));
        json_t *some = s_run (self, less, &foreign);
        same = same && json_equal (json_object_get (all, "bits"), json_object_get (some, "bits"));
        saved = 1 - s_number (some, "activations_mb") / s_number (all, "activations_mb");
        if (foreign <= self->foreign) {
            time[count++] =
                s_number (some, "seconds.median") / s_number (all, "seconds.median") - 1;
            fprintf (stderr, "recompute: %.3f less, %.3f more time\n", saved, time[count - 1]);
        }
        json_decref (all);
        json_decref (some);
    }
    json_object_set_new (self->result, "recompute_memory_saved", json_real (saved));
    json_object_set_new (self->result, "recompute_time_added",
                         count ? json_real (bench_quantile (time, count, 0.5)) : json_null ());
    json_object_set_new (self->result, "recompute_same_bits", json_boolean (same));
    if (count)
        json_object_set_new (self->detail, "recompute_time_added", s_spread (time, count));
}

static void
s_on_first (void *arg, const char *line, double at)
{
    double *first = arg;
    if (*first == 0)
        *first = at;
}

//  From the program's start to its first token, the file being in the cache.
static void
s_first_token (bench_t *self)
{
    if (!s_wanted (self, "first_token_s") || !self->gguf)
        return;
    double seconds[MOST_PAIRS];
    const char *argv[] = {self->trunkline,    "generate",     "--model", self->gguf, "--prompt",
                          "Once upon a time", "--max-tokens", "1",       NULL};
    for (size_t i = 0; i <= self->pairs; i++) {
        bench_usage_t usage;
        double first = 0;
        if (bench_run (argv, self->log, s_on_first, &first, &usage) != 0)
            s_fail ("trunkline generate failed; look into %s", self->log);
        seconds[i ? i - 1 : 0] = usage.wall;
    }
    json_object_set_new (self->result, "first_token_s",
                         json_real (bench_quantile (seconds, self->pairs, 0.5)));
    json_object_set_new (self->detail, "first_token_s", s_spread (seconds, self->pairs));
}

//  ----------------------------------------------------------------------------------------------

static const char *
s_path (const char *variable, const char *otherwise)
{
    const char *path = getenv (variable);
    path = path && *path ? path : otherwise;
    return path && tl_exists (path) ? path : NULL;
}

static void
s_options (bench_t *self, int argc, char **argv)
{
    for (int i = 4; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp (name, "--pairs") == 0)
            self->pairs = strtoul (value, NULL, 10);
        else if (strcmp (name, "--only") == 0)
            self->only = value;
        else if (strcmp (name, "--threads") == 0)
            snprintf (self->threads, sizeof self->threads, "%s", value);
        else if (strcmp (name, "--foreign") == 0)
            self->foreign = strtod (value, NULL);
        else if (strcmp (name, "--format") != 0)
            s_fail ("knows no option %s; --pairs, --only, --threads and --foreign there are", name);
    }
    if (self->pairs < 1 || self->pairs > MOST_PAIRS)
        s_fail ("--pairs: expected 1 to 64%s", "");
}

int
main (int argc, char **argv)
{
    bench_t self = {.pairs = 7, .foreign = 0.1, .threads = "2"};
    tl_error_t err;
    if (argc < 4)
        s_fail ("expected RUNNER TRUNKLINE DIR; scripts/bench engine gives them%s", "");
    self.runner = argv[1];
    self.trunkline = argv[2];
    self.dir = argv[3];
    s_options (&self, argc, argv);
    self.python = s_path ("TL_PYTHON", NULL);
    self.peers = s_path ("TL_PEERS", "../shared/peers");
    self.hf = s_path ("TL_SMOLLM2_HF", NULL);
    self.gguf = s_path ("TL_SMOLLM2", NULL);
    self.large = s_path ("TL_CHATGLM_6B", NULL);
    if (tl_mkdirs (self.dir, &err) != 0)
        s_fail ("%s", err.text);
    self.log = tl_format ("%s/engine.log", self.dir);
    bench_pin (atoi (self.threads));
    self.result = json_pack ("{s:s, s:s}", "bench", "engine", "threads", self.threads);
    self.detail = json_object ();
    self.skipped = json_object ();
    for (size_t i = 0; i < sizeof s_figures / sizeof *s_figures; i++)
        if (s_wanted (&self, s_figures[i].key))
            s_figure (&self, &s_figures[i]);
    s_recompute (&self);
    s_first_token (&self);
    json_object_set_new (self.result, "skipped", self.skipped);
    json_object_set_new (self.result, "detail", self.detail);
    json_dumpf (self.result, stdout, JSON_INDENT (2) | JSON_REAL_PRECISION (5));
    printf ("\n");
    json_decref (self.result);
    free (self.log);
    return 0;
}
