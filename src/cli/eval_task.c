//  eval_task: see eval_task.h.

#include "cli/eval_task.h"

#include "file.h"
#include "log.h"
#include "memory.h"
#include "ui/json.h"
#include "ui/progress.h"
#include "ui/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  Of written texts, added up.
typedef struct {
    uint64_t texts;
    double rouge1, rouge2, rouge_l, exact, f1, sentence_bleu; //  sums over the texts
    tl_bleu_t bleu;
} s_written_t;

//  Of a file, or of all.
typedef struct {
    char *name;
    double nll;      //  of text
    uint64_t labels; //  tokens that is over
    tl_choice_count_t choices;
    s_written_t written;
} s_result_t;

struct tl_evaluation {
    const tl_eval_how_t *how;
    tl_task_kind_t kind; //  of all files
    s_result_t *results; //  [count]
    size_t count;
    s_result_t all;
    char *examples; //  JSON lines
    size_t examples_size;
    FILE *lines; //  into examples; NULL: nobody wants them
    tl_progress_t progress;
    const char *name; //  of the file under way
};

tl_evaluation_t *
tl_evaluation_new (const tl_eval_how_t *how)
{
    tl_evaluation_t *self = tl_alloc (sizeof *self);
    self->how = how;
    self->all.name = tl_strdup ("all");
    if (how->examples)
        self->lines = open_memstream (&self->examples, &self->examples_size);
    tl_progress_init (&self->progress);
    return self;
}

void
tl_evaluation_destroy (tl_evaluation_t **self_p)
{
    tl_evaluation_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->count; i++)
        free (self->results[i].name);
    free (self->results);
    free (self->all.name);
    if (self->lines)
        fclose (self->lines);
    free (self->examples);
    free (self);
    *self_p = NULL;
}

static void
s_on_done (void *arg, size_t done, size_t count)
{
    tl_evaluation_t *self = arg;
    if (self->progress.terminal)
        tl_progress_line (&self->progress, done == count, "%s: %zu of %zu", self->name, done,
                          count);
}

//  Takes example.
static void
s_add_example (tl_evaluation_t *self, json_t *example)
{
    json_object_set_new (example, "site", json_string (self->name));
    char *text = tl_json_text (example, false);
    if (self->lines)
        fprintf (self->lines, "%s\n", text);
    free (text);
    json_decref (example);
}

static int
s_check_finite (const char *path, double nll, tl_error_t *err)
{
    if (isfinite (nll))
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s: the loss is %f; the adapter or the model is broken, train it "
                    "again with a lower train.lr",
                    path, nll);
}

//  ---------------------------------------------------------------------------------------------
//  Text

static int
s_measure (tl_evaluation_t *self, tl_engine_t *engine, const char *path, s_result_t *result,
           tl_error_t *err)
{
    tl_data_options_t options = {
        .max_length = self->how->max_length, .limit = self->how->limit, .cloze = self->how->cloze};
    tl_dataset_t *data = tl_dataset_open (path, engine->tokenizer, &options, err);
    if (!data)
        return -1;
    size_t count = tl_dataset_count (data);
    double *nll = tl_alloc (count * sizeof *nll);
    int rc = tl_engine_score (engine, data, nll, s_on_done, self, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        size_t labels = tl_dataset_labels_of (data, i);
        result->nll += nll[i];
        if (self->lines)
            s_add_example (self, json_pack ("{sI sf sI}", "example", (json_int_t)i, "nll", nll[i],
                                            "labels", (json_int_t)labels));
    }
    result->labels = tl_dataset_labels (data);
    free (nll);
    tl_dataset_destroy (&data);
    return rc ? rc : s_check_finite (path, result->nll, err);
}

//  ---------------------------------------------------------------------------------------------
//  Multiple choice

static void
s_add_choices (tl_evaluation_t *self, const tl_task_t *task, const tl_dataset_t *data,
               const double *nll, const size_t *picked)
{
    for (size_t i = 0, at = 0; i < task->count; i++) {
        const tl_item_t *item = &task->items[i];
        json_t *losses = json_array (), *tokens = json_array ();
        for (size_t c = 0; c < item->count; c++, at++) {
            json_array_append_new (losses, json_real (nll[at]));
            json_array_append_new (tokens,
                                   json_integer ((json_int_t)tl_dataset_labels_of (data, at)));
        }
        json_t *example =
            json_pack ("{sI sI sI sb so so}", "line", (json_int_t)item->line, "picked",
                       (json_int_t)picked[i], "answer", (json_int_t)item->answer, "correct",
                       picked[i] == item->answer, "nll", losses, "tokens", tokens);
        if (task->grouped)
            json_object_set_new (example, "question", json_integer ((json_int_t)item->group));
        s_add_example (self, example);
    }
}

static void
s_warn_shortened (const char *path, size_t shortened, size_t count)
{
    if (shortened)
        tl_warn ("%s: %zu of %zu prompts are too long and lost their beginning (--max-length)",
                 path, shortened, count);
}

static int
s_choose (tl_evaluation_t *self, tl_engine_t *engine, const tl_task_t *task, s_result_t *result,
          tl_error_t *err)
{
    const tl_eval_how_t *how = self->how;
    size_t shortened;
    tl_dataset_t *data = tl_choice_dataset (task, engine->tokenizer, engine->config,
                                            how->max_length, how->cloze, &shortened, err);
    if (!data)
        return -1;
    s_warn_shortened (task->path, shortened, task->count);
    size_t count = tl_dataset_count (data);
    double *nll = tl_alloc (count * sizeof *nll), sum = 0;
    size_t *picked = tl_alloc (task->count * sizeof *picked);
    int rc = tl_engine_score (engine, data, nll, s_on_done, self, err);
    for (size_t i = 0; rc == 0 && i < count; i++)
        sum += nll[i];
    if (rc == 0)
        rc = s_check_finite (task->path, sum, err);
    if (rc == 0) {
        tl_choice_pick (task, data, nll, how->per, picked);
        tl_choice_count (&result->choices, task, picked, how->positive);
        if (self->lines)
            s_add_choices (self, task, data, nll, picked);
    }
    free (picked);
    free (nll);
    tl_dataset_destroy (&data);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Written texts

static void
s_compare (tl_evaluation_t *self, const tl_item_t *item, tl_writing_t *writing, s_written_t *sum)
{
    tl_written_t written;
    tl_closeness_t close;
    tl_writing_end (writing, &written);
    tl_closeness (&close, (tl_text_t){written.text, written.size}, item->texts, item->count);
    double sentence = tl_bleu_sentence (&close.bleu);
    sum->texts++;
    sum->rouge1 += close.rouge1;
    sum->rouge2 += close.rouge2;
    sum->rouge_l += close.rouge_l;
    sum->exact += close.exact;
    sum->f1 += close.f1;
    sum->sentence_bleu += sentence;
    tl_bleu_add (&sum->bleu, &close.bleu);
    if (self->lines)
        s_add_example (self, json_pack ("{sI ss% sI ss sf sf sf sf sf sf}", "line",
                                        (json_int_t)item->line, "text", written.text, written.size,
                                        "tokens", (json_int_t)written.count, "ended",
                                        written.reason, "rouge1", close.rouge1, "rouge2",
                                        close.rouge2, "rougeL", close.rouge_l, "sentence_bleu",
                                        sentence, "exact_match", close.exact, "f1", close.f1));
    tl_written_clear (&written);
}

//  Progress over written texts.
typedef struct {
    tl_evaluation_t *evaluation;
    size_t done, count;
} s_over_t;

static void
s_on_over (void *arg, size_t index)
{
    s_over_t *self = arg;
    s_on_done (self->evaluation, ++self->done, self->count);
}

static tl_writing_t *
s_writing (const tl_eval_how_t *how, const tl_engine_t *engine, const tl_task_t *task,
           const tl_item_t *item, tl_error_t *err)
{
    tl_writing_options_t options = {.prompt = item->said->text,
                                    .prompt_size = item->said->size,
                                    .cloze = how->cloze,
                                    .said = item->chat ? item->said : NULL,
                                    .said_count = item->said_count,
                                    .shorten = true,
                                    .max_length = how->max_length,
                                    .max_new = how->max_new,
                                    .stops = how->stops->items,
                                    .stop_count = how->stops->count};
    tl_writing_t *writing = tl_writing_new (engine->tokenizer, engine->config, &options, err);
    if (!writing)
        tl_fail_in (err, "%s:%zu", task->path, item->line);
    return writing;
}

static int
s_write (tl_evaluation_t *self, tl_engine_t *engine, const tl_task_t *task, s_result_t *result,
         tl_error_t *err)
{
    tl_writing_t **writings = tl_alloc (task->count * sizeof *writings);
    size_t shortened = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < task->count; i++) {
        writings[i] = s_writing (self->how, engine, task, &task->items[i], err);
        rc = writings[i] ? 0 : -1;
        shortened += rc == 0 && tl_writing_shortened (writings[i]);
    }
    s_over_t over = {self, 0, task->count};
    if (rc == 0) {
        s_warn_shortened (task->path, shortened, task->count);
        rc = tl_engine_write (engine, writings, task->count, self->how->at_once, NULL, s_on_over,
                              &over, err);
    }
    for (size_t i = 0; rc == 0 && i < task->count; i++)
        s_compare (self, &task->items[i], writings[i], &result->written);
    for (size_t i = 0; i < task->count; i++)
        tl_writing_destroy (&writings[i]);
    free (writings);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Files

static void
s_add_up (s_result_t *all, const s_result_t *one)
{
    all->nll += one->nll;
    all->labels += one->labels;
    tl_choice_add (&all->choices, &one->choices);
    all->written.texts += one->written.texts;
    all->written.rouge1 += one->written.rouge1;
    all->written.rouge2 += one->written.rouge2;
    all->written.rouge_l += one->written.rouge_l;
    all->written.exact += one->written.exact;
    all->written.f1 += one->written.f1;
    all->written.sentence_bleu += one->written.sentence_bleu;
    tl_bleu_add (&all->written.bleu, &one->written.bleu);
}

static int
s_run (tl_evaluation_t *self, tl_engine_t *engine, const tl_task_t *task, s_result_t *result,
       tl_error_t *err)
{
    if (self->count && task->kind != self->kind)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s is another kind of task than the files before it; evaluate it alone, "
                        "with --site or --data",
                        task->path);
    self->kind = task->kind;
    return task->kind == TL_TASK_TEXT     ? s_measure (self, engine, task->path, result, err)
           : task->kind == TL_TASK_CHOICE ? s_choose (self, engine, task, result, err)
                                          : s_write (self, engine, task, result, err);
}

int
tl_evaluation_file (tl_evaluation_t *self, tl_engine_t *engine, const char *name, const char *path,
                    tl_error_t *err)
{
    tl_task_t *task = tl_task_open (path, self->how->write ? TL_TASK_OF_WRITING : TL_TASK_BY_KEYS,
                                    self->how->limit, err);
    if (!task)
        return -1;
    s_result_t result = {.name = tl_strdup (name)};
    self->name = result.name;
    int rc = s_run (self, engine, task, &result, err);
    tl_progress_end (&self->progress);
    tl_task_destroy (&task);
    if (rc) {
        free (result.name);
        return rc;
    }
    self->results = realloc (self->results, (self->count + 1) * sizeof *self->results);
    if (!self->results)
        abort ();
    self->results[self->count++] = result;
    s_add_up (&self->all, &result);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  The table

enum { S_COLUMNS = 12 };

//  A column and what stands in it.
typedef struct {
    tl_column_t column;
    double (*value) (const s_result_t *result, const tl_eval_how_t *how); //  NULL: the count
    uint64_t (*count) (const s_result_t *result);
} s_column_t;

static double
s_loss (const s_result_t *r, const tl_eval_how_t *how)
{
    return r->labels ? r->nll / (double)r->labels : NAN;
}

static double
s_perplexity (const s_result_t *r, const tl_eval_how_t *how)
{
    return exp (s_loss (r, how));
}

static uint64_t
s_labels (const s_result_t *r)
{
    return r->labels;
}

static double
s_accuracy (const s_result_t *r, const tl_eval_how_t *how)
{
    return (double)r->choices.correct / (double)r->choices.items;
}

static double
s_macro_f1 (const s_result_t *r, const tl_eval_how_t *how)
{
    return tl_choice_macro_f1 (&r->choices);
}

static double
s_positive_f1 (const s_result_t *r, const tl_eval_how_t *how)
{
    return tl_choice_f1 (&r->choices, how->positive);
}

static double
s_question_f1 (const s_result_t *r, const tl_eval_how_t *how)
{
    return r->choices.group_f1 / (double)r->choices.groups;
}

static double
s_question_exact (const s_result_t *r, const tl_eval_how_t *how)
{
    return (double)r->choices.whole / (double)r->choices.groups;
}

static uint64_t
s_items (const s_result_t *r)
{
    return r->choices.items;
}

#define S_MEAN(name, field)                                                                        \
    static double name (const s_result_t *r, const tl_eval_how_t *how)                             \
    {                                                                                              \
        return r->written.field / (double)r->written.texts;                                        \
    }
S_MEAN (s_rouge1, rouge1)
S_MEAN (s_rouge2, rouge2)
S_MEAN (s_rouge_l, rouge_l)
S_MEAN (s_exact, exact)
S_MEAN (s_f1, f1)
S_MEAN (s_sentence_bleu, sentence_bleu)

static double
s_bleu (const s_result_t *r, const tl_eval_how_t *how)
{
    return tl_bleu (&r->written.bleu);
}

static uint64_t
s_texts (const s_result_t *r)
{
    return r->written.texts;
}

//  What a kind of task tells; which of a written text's metrics, and which of choices, needs a closer look.
static const struct {
    tl_task_kind_t kind;
    unsigned metric;         //  0: always
    bool classes, questions; //  only where choices are classes, or lines are joined to questions
    s_column_t column;
} s_all_columns[] = {
    {TL_TASK_TEXT, 0, false, false, {{"perplexity", "perplexity", 3}, s_perplexity, NULL}},
    {TL_TASK_TEXT, 0, false, false, {{"loss", "loss", 6}, s_loss, NULL}},
    {TL_TASK_TEXT, 0, false, false, {{"labels", "label tokens", 0}, NULL, s_labels}},
    {TL_TASK_CHOICE, 0, false, false, {{"accuracy", "accuracy", 4}, s_accuracy, NULL}},
    {TL_TASK_CHOICE, 0, true, false, {{"macro_f1", "macro F1", 4}, s_macro_f1, NULL}},
    {TL_TASK_CHOICE, 0, true, false, {{"f1", "F1", 4}, s_positive_f1, NULL}},
    {TL_TASK_CHOICE, 0, false, true, {{"question_f1", "question F1", 4}, s_question_f1, NULL}},
    {TL_TASK_CHOICE, 0, false, true, {{"exact_match", "exact match", 4}, s_question_exact, NULL}},
    {TL_TASK_CHOICE, 0, false, false, {{"examples", "examples", 0}, NULL, s_items}},
    {TL_TASK_WRITING, TL_SAY_ROUGE, false, false, {{"rouge1", "ROUGE-1", 4}, s_rouge1, NULL}},
    {TL_TASK_WRITING, TL_SAY_ROUGE, false, false, {{"rouge2", "ROUGE-2", 4}, s_rouge2, NULL}},
    {TL_TASK_WRITING, TL_SAY_ROUGE, false, false, {{"rougeL", "ROUGE-L", 4}, s_rouge_l, NULL}},
    {TL_TASK_WRITING, TL_SAY_BLEU, false, false, {{"bleu", "BLEU", 2}, s_bleu, NULL}},
    {TL_TASK_WRITING,
     TL_SAY_BLEU,
     false,
     false,
     {{"sentence_bleu", "sentence BLEU", 2}, s_sentence_bleu, NULL}},
    {TL_TASK_WRITING,
     TL_SAY_EXACT,
     false,
     false,
     {{"exact_match", "exact match", 4}, s_exact, NULL}},
    {TL_TASK_WRITING, TL_SAY_F1, false, false, {{"f1", "F1", 4}, s_f1, NULL}},
    {TL_TASK_WRITING, 0, false, false, {{"examples", "examples", 0}, NULL, s_texts}},
};

static size_t
s_choose_columns (const tl_evaluation_t *self, s_column_t *columns)
{
    size_t count = 0;
    for (size_t i = 0; i < sizeof s_all_columns / sizeof *s_all_columns; i++)
        if (s_all_columns[i].kind == self->kind &&
            (!s_all_columns[i].metric || (s_all_columns[i].metric & self->how->metrics)) &&
            !(s_all_columns[i].classes && self->all.choices.no_classes) &&
            !(s_all_columns[i].questions && !self->all.choices.grouped))
            columns[count++] = s_all_columns[i].column;
    return count;
}

static void
s_add_row (const tl_evaluation_t *self, tl_table_t *table, const s_column_t *columns, size_t count,
           const s_result_t *result)
{
    tl_table_text (table, result->name);
    for (size_t i = 0; i < count; i++)
        if (columns[i].value)
            tl_table_real (table, columns[i].value (result, self->how));
        else
            tl_table_count (table, columns[i].count (result));
}

int
tl_evaluation_end (tl_evaluation_t *self, tl_format_t format, tl_error_t *err)
{
    s_column_t columns[S_COLUMNS];
    tl_column_t heads[S_COLUMNS + 1] = {{"site", "site", 0}};
    size_t count = s_choose_columns (self, columns);
    for (size_t i = 0; i < count; i++)
        heads[i + 1] = columns[i].column;
    if (self->lines) {
        fflush (self->lines);
        if (tl_file_write (self->how->examples, self->examples, self->examples_size, 0600, err))
            return -1;
    }
    tl_table_t *table = tl_table_new ("sites", heads, count + 1);
    for (size_t i = 0; i < self->count; i++)
        s_add_row (self, table, columns, count, &self->results[i]);
    if (self->count > 1)
        s_add_row (self, table, columns, count, &self->all);
    tl_table_print (table, format);
    tl_table_destroy (&table);
    return 0;
}
