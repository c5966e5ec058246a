/*  zeroshot_check GOLDEN DATA [all]: SmolLM2-135M-Instruct out of its GGUF file (environment: TL_SMOLLM2) on SuperGLUE without
    training, by the prompts of the golden README, against PyTorch's likelihoods and choices. Of every task the first
    examples, or all. Skips loudly, code 77, without the file or the directories.                  */

#include "file.h"
#include "fed/choice.h"
#include "fed/evaluate.h"
#include "memory.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTH = 512 };

//  Of a sum of likelihoods: PyTorch's are rounded to 5 digits, and both are fp32 sums.
static const double s_limit = 2e-4;

typedef struct {
    tl_model_t *model;
    tl_tokenizer_t *tokenizer;
    tl_chain_t *chain;
    json_t *expected;
    const char *data;
    char *directory; //  for files of our own
    bool all;
    size_t failures;
} s_check_t;

//  The text under key without white space around it, and without a last character that is end. The caller frees.
static char *
s_text (const json_t *row, const char *key, char end)
{
    const char *text = json_string_value (json_object_get (row, key));
    if (!text) {
        printf ("  ! '%s' is no text\n", key);
        exit (1);
    }
    text += strspn (text, " \t\r\n");
    size_t size = strlen (text);
    while (size && strchr (" \t\r\n", text[size - 1]))
        size--;
    size -= end && size && text[size - 1] == end;
    return tl_format ("%.*s", (int)size, text);
}

//  A choice of COPA continues the sentence.
static json_t *
s_choice (const json_t *row, const char *key)
{
    char *text = s_text (row, key, 0), *choice = tl_format (" %s", text);
    choice[1] = (char)tolower ((unsigned char)choice[1]);
    json_t *value = json_string (choice);
    free (text);
    free (choice);
    return value;
}

static json_t *
s_copa (const json_t *row)
{
    char *premise = s_text (row, "premise", '.');
    bool cause = strcmp (json_string_value (json_object_get (row, "question")), "cause") == 0;
    char *prompt = tl_format ("%s %s", premise, cause ? "because" : "so");
    json_t *line =
        json_pack ("{ss s[oo] sO}", "prompt", prompt, "choices", s_choice (row, "choice1"),
                   s_choice (row, "choice2"), "answer", json_object_get (row, "label"));
    free (premise);
    free (prompt);
    return line;
}

static json_t *
s_cb (const json_t *row)
{
    char *premise = s_text (row, "premise", 0), *hypothesis = s_text (row, "hypothesis", '.');
    const char *label = json_string_value (json_object_get (row, "label"));
    char *prompt =
        tl_format ("%s\nQuestion: %s. True, False, or Neither?\nAnswer:", premise, hypothesis);
    json_t *line = json_pack ("{ss s[sss] si}", "prompt", prompt, "choices", " True", " False",
                              " Neither", "answer",
                              *label == 'e'   ? 0
                              : *label == 'c' ? 1
                                              : 2);
    free (premise);
    free (hypothesis);
    free (prompt);
    return line;
}

static json_t *
s_rte (const json_t *row)
{
    char *premise = s_text (row, "premise", 0), *hypothesis = s_text (row, "hypothesis", 0);
    const char *label = json_string_value (json_object_get (row, "label"));
    char *prompt = tl_format ("%s\nQuestion: %s True or False?\nAnswer:", premise, hypothesis);
    json_t *line = json_pack ("{ss s[ss] si}", "prompt", prompt, "choices", " True", " False",
                              "answer", *label == 'e' ? 0 : 1);
    free (premise);
    free (hypothesis);
    free (prompt);
    return line;
}

static json_t *
s_boolq (const json_t *row)
{
    char *passage = s_text (row, "passage", 0), *question = s_text (row, "question", '?');
    char *prompt = tl_format ("%s\nQuestion: %s?\nAnswer:", passage, question);
    json_t *line = json_pack ("{ss s[ss] si}", "prompt", prompt, "choices", " no", " yes", "answer",
                              json_is_true (json_object_get (row, "label")) ? 1 : 0);
    free (passage);
    free (question);
    free (prompt);
    return line;
}

static const struct {
    const char *name;
    json_t *(*line) (const json_t *row);
    tl_per_t per;
    size_t few; //  examples of the short check
} s_tasks[] = {{"COPA", s_copa, TL_PER_TOKEN, 60},
               {"CB", s_cb, TL_PER_CHOICE, 20},
               {"RTE", s_rte, TL_PER_CHOICE, 20},
               {"BoolQ", s_boolq, TL_PER_CHOICE, 6}};
enum { TASKS = sizeof s_tasks / sizeof *s_tasks };

//  A task's file, made from the first count rows of its data.
static tl_task_t *
s_make (const s_check_t *self, size_t task, size_t count)
{
    char *from = tl_format ("%s/%s/val.jsonl", self->data, s_tasks[task].name);
    char *to = tl_format ("%s/task.jsonl", self->directory);
    FILE *in = fopen (from, "r"), *out = fopen (to, "w");
    json_t *row;
    tl_error_t err = {.text = "the data can't be read"};
    for (size_t i = 0;
         in && out && i < count && (row = json_loadf (in, JSON_DISABLE_EOF_CHECK, NULL)); i++) {
        json_t *line = s_tasks[task].line (row);
        json_dumpf (line, out, JSON_COMPACT);
        fputc ('\n', out);
        json_decref (line);
        json_decref (row);
    }
    if (in)
        fclose (in);
    if (out)
        fclose (out);
    tl_task_t *made = tl_task_open (to, TL_TASK_BY_KEYS, 0, &err);
    if (!made)
        printf ("  ! %s: %s\n", from, err.text);
    free (from);
    free (to);
    return made;
}

//  The lowest two of count numbers are at least this far apart.
static double
s_gap (const double *nll, const tl_dataset_t *data, size_t first, size_t count, tl_per_t per)
{
    double least = INFINITY, second = INFINITY;
    for (size_t i = 0; i < count; i++) {
        double value =
            per == TL_PER_TOKEN ? nll[i] / (double)tl_dataset_labels_of (data, first + i) : nll[i];
        if (value < least) {
            second = least;
            least = value;
        } else if (value < second)
            second = value;
    }
    return second - least;
}

static void
s_compare (s_check_t *self, size_t which, const tl_task_t *task, const tl_dataset_t *data,
           const double *nll)
{
    const json_t *expected = json_object_get (self->expected, s_tasks[which].name);
    size_t *picked = tl_alloc (task->count * sizeof *picked), at = 0, other = 0, wrong = 0;
    double most = 0;
    tl_choice_pick (task, data, nll, s_tasks[which].per, picked);
    for (size_t i = 0; i < task->count; i++) {
        const json_t *sums = json_array_get (json_object_get (expected, "nll_sums"), i);
        double gap = s_gap (nll + at, data, at, task->items[i].count, s_tasks[which].per);
        for (size_t c = 0; c < task->items[i].count; c++, at++) {
            double value = json_number_value (json_array_get (sums, c));
            double difference = fabs (nll[at] - value);
            most = difference <= most ? most : difference;
            if (!(difference <= s_limit))
                printf ("  ! %s %zu, choice %zu: %.6f, expected %.6f\n", s_tasks[which].name, i, c,
                        nll[at], value);
        }
        json_int_t choice =
            json_integer_value (json_array_get (json_object_get (expected, "predictions"), i));
        json_int_t gold =
            json_integer_value (json_array_get (json_object_get (expected, "gold"), i));
        wrong += (json_int_t)task->items[i].answer != gold;
        if ((json_int_t)picked[i] != choice && gap > 2 * s_limit) {
            printf ("  ! %s %zu: picked %zu, expected %d\n", s_tasks[which].name, i, picked[i],
                    (int)choice);
            other++;
        }
    }
    bool good = most <= s_limit && !other && !wrong;
    printf ("  %-6s %3zu examples  largest difference %8.2e  limit %8.2e  other choices %zu%s\n",
            s_tasks[which].name, task->count, most, s_limit, other, good ? "" : "  FAILED");
    self->failures += !good;
    free (picked);
}

static void
s_check (s_check_t *self, size_t which)
{
    const json_t *expected = json_object_get (self->expected, s_tasks[which].name);
    size_t all = json_array_size (json_object_get (expected, "predictions")), shortened;
    size_t count = self->all || all < s_tasks[which].few ? all : s_tasks[which].few;
    tl_error_t err = {.text = ""};
    tl_task_t *task = s_make (self, which, count);
    if (!task || task->count != count) {
        printf ("  %s: expected %zu examples, got %zu  FAILED\n", s_tasks[which].name, count,
                task ? task->count : 0);
        self->failures++;
        tl_task_destroy (&task);
        return;
    }
    tl_dataset_t *data = tl_choice_dataset (task, self->tokenizer, tl_model_config (self->model),
                                            MAX_LENGTH, false, &shortened, &err);
    if (data) {
        double *nll = tl_alloc (tl_dataset_count (data) * sizeof *nll);
        tl_chain_evaluate (self->chain, data, nll, NULL, NULL);
        s_compare (self, which, task, data, nll);
        free (nll);
    } else {
        printf ("  %s: %s  FAILED\n", s_tasks[which].name, err.text);
        self->failures++;
    }
    tl_dataset_destroy (&data);
    tl_task_destroy (&task);
}

static int
s_open (s_check_t *self, const char *file, const char *golden, tl_error_t *err)
{
    char *path = tl_format ("%s/zeroshot.json", golden), where[] = "/tmp/tl-zeroshot-XXXXXX";
    self->expected = json_load_file (path, 0, NULL);
    free (path);
    if (!self->expected)
        return tl_fail (err, TL_BAD_INPUT, "zeroshot.json can't be read; look at %s", golden);
    if (!mkdtemp (where))
        return tl_fail (err, TL_FAILED, "no directory can be made; look at /tmp");
    self->directory = tl_strdup (where);
    tl_kernels_use (2);
    return !(self->model = tl_model_open (file, err)) ||
                   !(self->tokenizer =
                         tl_tokenizer_open (file, tl_model_config (self->model), err)) ||
                   !(self->chain = tl_chain_plain (self->model, NULL, err))
               ? -1
               : 0;
}

int
main (int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fprintf (stderr, "usage: zeroshot_check GOLDEN DATA [all]\n");
        return 2;
    }
    const char *file = getenv ("TL_SMOLLM2");
    if (!file || !*file || !tl_exists (argv[1]) || !tl_exists (argv[2])) {
        printf ("skipped: TL_SMOLLM2 names no file, or %s or %s is absent\n", argv[1], argv[2]);
        return 77;
    }
    s_check_t self = {.data = argv[2], .all = argc == 4};
    tl_error_t err = {.text = ""};
    int rc = s_open (&self, file, argv[1], &err);
    for (size_t i = 0; rc == 0 && i < TASKS; i++)
        s_check (&self, i);
    if (rc)
        printf ("  %s  FAILED\n", err.text);
    tl_chain_destroy (&self.chain);
    tl_tokenizer_destroy (&self.tokenizer);
    tl_model_destroy (&self.model);
    json_decref (self.expected);
    if (self.directory)
        tl_remove_tree (self.directory);
    free (self.directory);
    return rc || self.failures ? 1 : 0;
}
