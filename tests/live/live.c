/*  live WHAT FAMILY: eval and generate of a site through the running worker, with real processes and sockets.

    serving    after a run: the bits of the run's own scoring and of all saved parts joined in one process, the text
               that these write; untrained and named adapters; many readers at once; a reader that is interrupted;
               a worker that is killed
    training   beside a run: after a save, before any, and a run that ends under the reader
    untrained  a run of no steps is the model itself
    nobody     without a broker, and without a worker
    FAMILY: chatglm, llama, llama-tied (that one in full tuning).                                    */

#include "live/program.h"

#include "memory.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SITES = 2, AT_ONCE = 4, STEPS = 5 };

//  Every verb of a test gets the same topology.
static char *
s_words (const case_t *self, const char *verb, const char *more)
{
    const char *d = self->directory;
    return tl_format ("%s %s --set clients.0.eval=%s/0.jsonl --set clients.1.eval=%s/1.jsonl %s",
                      verb, self->yaml, d, d, more);
}

static program_t *
s_start (const case_t *self, const char *verb, const char *more)
{
    char *words = s_words (self, verb, more);
    program_t *program = program_start (self, words);
    free (words);
    return program;
}

static char *
s_run (const case_t *self, int code, const char *pattern, const char *verb, const char *more)
{
    program_t *program = s_start (self, verb, more);
    return program_end (&program, code, pattern);
}

//  Expects the command to print that; frees nothing of the caller's.
static void
s_same (const case_t *self, const char *expected, const char *verb, const char *more)
{
    char *got = s_run (self, 0, NULL, verb, more);
    if (strcmp (got, expected) != 0)
        case_fail (self, "%s %s: expected\n%sgot\n%s", verb, more, expected, got);
    free (got);
}

static void
s_down (const case_t *self, program_t **up)
{
    free (s_run (self, 0, NULL, "down", ""));
    free (program_end (up, 0, NULL));
}

static case_t *
s_case (const char *family, case_spec_t *spec)
{
    bool tied = strcmp (family, "llama-tied") == 0;
    *spec = (case_spec_t){.model =
                              strcmp (family, "chatglm") == 0 ? tiny_chatglm () : tiny_llama (tied),
                          .sites = SITES,
                          .examples = 40,
                          .letters = {30, 20},
                          .steps = STEPS,
                          .save_every = 2,
                          .settings = tied ? "split: {front: 1, tail: 2}\ntune: {method: full}\n"
                                             "train: {steps: 5, batch_size: 4, max_length: 48, lr: "
                                             "1e-3}\nwire: {dtype: fp32}\n"
                                           : "split: {front: 2, tail: 1}\ntune: {rank: 4}\n"
                                             "train: {steps: 5, batch_size: 4, max_length: 48, lr: "
                                             "1e-2}\nwire: {dtype: fp32}\n"};
    return case_new (spec);
}

//  --- serving

//  Rows of `eval --format jsonl` are what the run's own scoring at its end came to.
static void
s_check_rows (const case_t *self, const char *rows, const double *nll, const uint64_t *labels)
{
    char *copy = tl_strdup (rows), *rest = copy;
    for (size_t i = 0; i <= SITES; i++) {
        char *line = strsep (&rest, "\n");
        json_error_t error;
        json_t *row = line ? json_loads (line, 0, &error) : NULL;
        double loss = json_number_value (json_object_get (row, "loss"));
        double expected = nll[i] / (double)labels[i];
        uint64_t count = (uint64_t)json_integer_value (json_object_get (row, "labels"));
        if (loss != expected || count != labels[i])
            case_fail (self, "row %zu: expected %.17g over %llu label tokens, got %.17g over %llu",
                       i, expected, (unsigned long long)labels[i], loss, (unsigned long long)count);
        json_decref (row);
    }
    free (copy);
}

//  Starts a run that stays, and gives what its clients scored at its end, with the sum over all behind.
static program_t *
s_up (const case_t *self, const char *more, double *nll, uint64_t *labels)
{
    char *words = tl_format ("--stay --format jsonl %s", more);
    program_t *up = s_start (self, "up", words);
    free (words);
    nll[SITES] = 0;
    labels[SITES] = 0;
    for (size_t seen = 0; seen < SITES;) {
        json_t *event = program_event (up, "finished", "broker");
        const char *name = json_string_value (json_object_get (event, "name"));
        size_t site = (size_t)(name[strlen (name) - 1] - '0');
        nll[site] = json_number_value (json_object_get (event, "nll"));
        labels[site] = (uint64_t)json_integer_value (json_object_get (event, "labels"));
        labels[SITES] += labels[site];
        seen++;
        json_decref (event);
    }
    for (size_t i = 0; i < SITES; i++)
        nll[SITES] += nll[i];
    json_decref (program_event (up, "serving", "broker"));
    return up;
}

static void
s_check_adapters (const case_t *self, const char *rows)
{
    char *first = strndup (rows, strcspn (rows, "\n") + 1);
    char *other = s_run (self, 0, NULL, "eval", "--live --site site-0 --base --format jsonl");
    if (strcmp (first, other) == 0)
        case_fail (self, "front and tail untrained give the same loss as trained: %s", other);
    free (other);
    char *adapter = case_adapter (self, "site-0");
    char *more = tl_format ("--live --site site-0 --format jsonl --adapter %s", adapter);
    s_same (self, first, "eval", more);
    free (more);
    more = tl_format ("--live --site site-0 --format jsonl --data %s/0.jsonl", self->directory);
    other = s_run (self, 0, NULL, "eval", more);
    if (strcmp (strchr (first, ','), strchr (other, ',')) != 0)
        case_fail (self, "the site's own file named with --data: expected %sgot %s", first, other);
    free (other);
    free (more);
    free (adapter);
    free (first);
}

#define PROMPT "--site site-0 --prompt a-word-7 --max-tokens 24"

//  Greedy and drawn, by the worker with whole texts and here with cached keys and values.
static char *
s_check_text (const case_t *self)
{
    char *text = s_run (self, 0, NULL, "generate", "--live " PROMPT);
    s_same (self, text, "generate", "--saved " PROMPT);
    char *drawn = s_run (self, 0, NULL, "generate", "--live --temperature 1 --seed 4 " PROMPT);
    s_same (self, drawn, "generate", "--saved --temperature 1 --seed 4 " PROMPT);
    if (strcmp (text, drawn) == 0)
        case_fail (self, "drawn text is the greedy one: %s", text);
    free (drawn);
    return text;
}

//  A file of the test's own; the path is freed by the caller.
static char *
s_file (const case_t *self, const char *name, const char *text)
{
    char *path = tl_format ("%s/%s", self->directory, name);
    FILE *file = fopen (path, "w");
    if (!file || fputs (text, file) < 0 || fclose (file))
        case_fail (self, "%s can't be written", path);
    return path;
}

//  Multiple choice, texts that are compared, several prompts: through the worker what is computed here.
static void
s_check_tasks (const case_t *self)
{
    char *choices =
        s_file (self, "choices.jsonl",
                "{\"prompt\": \"one\", \"choices\": [\" a\", \" bc\"], \"answer\": 1}\n"
                "{\"prompt\": \"two\", \"choices\": [\" d\", \" e\"], \"answer\": 0}\n");
    char *texts = s_file (self, "texts.jsonl",
                          "{\"prompt\": \"one\", \"references\": \"a\"}\n"
                          "{\"prompt\": \"two\", \"references\": [\"b\", \"c d\"]}\n");
    const char *const words[][2] = {
        {"eval", tl_format ("--site site-0 --format jsonl --data %s", choices)},
        {"eval", tl_format ("--site site-0 --format jsonl --max-tokens 9 --data %s", texts)},
        {"generate", tl_format ("--site site-0 --max-tokens 9 --prompts %s --prompt x", texts)},
        {"generate", tl_strdup ("--site site-0 --stop a --repetition-penalty 2 --prompt y")}};
    for (size_t i = 0; i < 4; i++) {
        char *live = tl_format ("--live %s", words[i][1]);
        char *saved = tl_format ("--saved %s", words[i][1]);
        char *got = s_run (self, 0, NULL, words[i][0], live);
        s_same (self, got, words[i][0], saved);
        free (got);
        free (live);
        free (saved);
        free ((char *)words[i][1]);
    }
    free (choices);
    free (texts);
}

static void
s_check_crowd (const case_t *self, const char *rows, const char *text)
{
    program_t *readers[2 * AT_ONCE];
    for (size_t i = 0; i < 2 * AT_ONCE; i++)
        readers[i] = i % 2 ? s_start (self, "generate", "--live " PROMPT)
                           : s_start (self, "eval", "--live --format jsonl");
    for (size_t i = 0; i < 2 * AT_ONCE; i++) {
        char *got = program_end (&readers[i], 0, NULL);
        if (strcmp (got, i % 2 ? text : rows) != 0)
            case_fail (self, "reader %zu of many: expected\n%sgot\n%s", i, i % 2 ? text : rows,
                       got);
        free (got);
    }
}

static bool
s_has (const json_t *event, const char *key, const char *prefix)
{
    const char *value = json_string_value (json_object_get (event, key));
    return value && strncmp (value, prefix, strlen (prefix)) == 0;
}

//  A reader that has work for seconds, when the broker has let it in.
static program_t *
s_busy (const case_t *self, program_t *up)
{
    char *path = tl_format ("%s/long.jsonl", self->directory);
    FILE *file = fopen (path, "w");
    for (int i = 0; file && i < 20000; i++)
        fprintf (file, "{\"prompt\": \"%d\", \"completion\": \"a long, long, long text\"}\n", i);
    if (!file || fclose (file))
        case_fail (self, "%s can't be written", path);
    char *words = tl_format ("--live --site site-1 --data %s", path);
    program_t *reader = s_start (self, "eval", words);
    for (bool here = false; !here;) {
        json_t *event = program_event (up, "peer", "broker");
        here = s_has (event, "role", "reader") && s_has (event, "name", "site-1") &&
               s_has (event, "state", "here");
        json_decref (event);
    }
    free (words);
    free (path);
    return reader;
}

//  One that is told to stop says so and leaves no trace; one that is killed neither.
static void
s_check_interrupted (const case_t *self, program_t *up)
{
    program_t *reader = s_busy (self, up);
    program_signal (reader, SIGINT);
    free (program_end (&reader, 1, "interrupted"));
    reader = s_busy (self, up);
    program_signal (reader, SIGKILL);
    free (program_end (&reader, -SIGKILL, NULL));
}

static void
s_serving (const case_t *self)
{
    double nll[SITES + 1];
    uint64_t labels[SITES + 1];
    program_t *up = s_up (self, "", nll, labels);
    s_check_interrupted (self, up); //  first: nobody else has come from that site yet
    char *rows = s_run (self, 0, NULL, "eval", "--live --format jsonl");
    s_check_rows (self, rows, nll, labels);
    s_same (self, rows, "eval", "--saved --format jsonl");
    s_check_adapters (self, rows);
    char *text = s_check_text (self);
    s_check_tasks (self);
    s_check_crowd (self, rows, text);
    program_kill_child (up, "run worker", SIGKILL);
    s_same (self, rows, "eval", "--live --format jsonl");
    s_same (self, text, "generate", "--live " PROMPT);
    s_down (self, &up);
    //  What it was is still there without it.
    s_same (self, rows, "eval", "--saved --format jsonl");
    free (text);
    free (rows);
}

//  --- beside a run

static void
s_training (const case_t *self)
{
    //  Its end is far away.
    const char *endless = "--set train.steps=1000000 --set train.schedule=constant";
    char *more = tl_format ("--format jsonl %s", endless);
    program_t *up = s_start (self, "up", more);
    free (more);
    json_decref (program_event (up, "saved", "broker"));
    //  Its end under a reader that would go on.
    program_t *reader = s_busy (self, up);
    char *rows = s_run (self, 0, "\"all\"", "eval", "--live --format jsonl");
    if (!strstr (rows, "perplexity"))
        case_fail (self, "no perplexity beside a run: %s", rows);
    free (rows);
    //  Who reads need not say how the run trains, but what rows go through; a difference is told by name.
    free (s_run (self, 0, "perplexity", "eval", "--live --set train.lr=0.5 --set train.seed=9"));
    free (s_run (self, 2, "tune.rank is 4 at the broker and 8 at site-0", "eval",
                 "--live --set tune.rank=8"));
    program_signal (up, SIGTERM);
    free (program_end (&reader, 2, "the run ended before the answer was there"));
    free (program_end (&up, 0, "refused reader"));
    //  Before its first save.
    const char *saveless = "--set train.steps=1000000 --set train.schedule=constant --set "
                           "checkpoint.every=1000000 --replace --format jsonl";
    up = s_start (self, "up", saveless);
    json_decref (program_event (up, "step", "client/site-0"));
    free (s_run (self, 4, "wait for its first save", "eval", "--live --site site-0"));
    free (s_run (self, 0, "perplexity", "eval", "--live --base --site site-0"));
    program_signal (up, SIGTERM);
    free (program_end (&up, 0, NULL));
}

//  --- a run of no steps

static void
s_untrained (const case_t *self)
{
    double nll[SITES + 1];
    uint64_t labels[SITES + 1];
    program_t *up = s_up (self, "--set train.steps=0", nll, labels);
    char *rows = s_run (self, 0, NULL, "eval", "--live --format jsonl");
    s_check_rows (self, rows, nll, labels);
    s_same (self, rows, "eval", "--format jsonl");
    program_kill_child (up, "run worker", SIGKILL);
    s_same (self, rows, "eval", "--live --format jsonl");
    s_down (self, &up);
    free (rows);
}

//  --- nobody there

static void
s_nobody (const case_t *self)
{
    double nll[SITES + 1];
    uint64_t labels[SITES + 1];
    program_t *up = s_up (self, "", nll, labels); //  makes the keys
    s_down (self, &up);
    free (s_run (self, 3, "nobody answered at", "eval", "--live --timeout 1"));
    free (s_run (self, 3, "nobody answered at", "generate", "--live --timeout 1 " PROMPT));
    program_t *broker = s_start (self, "run broker", "--format jsonl");
    json_decref (program_event (broker, "up", NULL));
    free (s_run (self, 3, "no worker answered", "eval", "--live --timeout 1"));
    program_t *reader = s_start (self, "eval", "--live --base --format jsonl");
    program_t *worker = s_start (self, "run worker", "trunk --format jsonl");
    char *rows = program_end (&reader, 0, NULL);
    s_same (self, rows, "eval", "--format jsonl");
    free (rows);
    program_signal (worker, SIGTERM);
    free (program_end (&worker, 0, NULL));
    program_signal (broker, SIGTERM);
    free (program_end (&broker, 0, NULL));
}

int
main (int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run) (const case_t *self);
    } s_tests[] = {{"serving", s_serving},
                   {"training", s_training},
                   {"untrained", s_untrained},
                   {"nobody", s_nobody}};
    for (size_t i = 0; argc == 3 && i < sizeof s_tests / sizeof *s_tests; i++)
        if (strcmp (argv[1], s_tests[i].name) == 0) {
            case_spec_t spec;
            case_t *self = s_case (argv[2], &spec);
            s_tests[i].run (self);
            case_destroy (&self);
            return 0;
        }
    fprintf (stderr, "usage: live serving|training|untrained|nobody chatglm|llama|llama-tied\n");
    return 2;
}
