#include "fed/choice.h"

#include "memory.h"

#include <math.h>
#include <stdlib.h>

//  An item's ids.
typedef struct {
    tl_prompt_t prompt;
    int32_t **ids;  //  [choices]
    size_t *counts; //  [choices]
    size_t longest; //  of them
} s_ids_t;

static void
s_clear (s_ids_t *self, size_t choices)
{
    for (size_t i = 0; self->ids && i < choices; i++)
        free (self->ids[i]);
    free (self->ids);
    free (self->counts);
    tl_prompt_clear (&self->prompt);
}

static int
s_encode (s_ids_t *self, const tl_task_t *task, const tl_item_t *item,
          const tl_tokenizer_t *tokenizer, bool cloze, tl_error_t *err)
{
    if (tl_item_prompt (item, tokenizer, cloze, &self->prompt, err))
        return tl_fail_in (err, "%s:%zu", task->path, item->line);
    self->ids = tl_alloc (item->count * sizeof *self->ids);
    self->counts = tl_alloc (item->count * sizeof *self->counts);
    for (size_t i = 0; i < item->count; i++) {
        self->ids[i] = tl_tokenizer_encode (tokenizer, item->texts[i].text, item->texts[i].size,
                                            &self->counts[i]);
        if (self->counts[i] == 0)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s:%zu: choice %zu gives no tokens; write something else", task->path,
                            item->line, i);
        self->longest = self->counts[i] > self->longest ? self->counts[i] : self->longest;
    }
    if (self->prompt.count == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s:%zu: the prompt is empty, and the model has no token that begins a "
                        "text; write one",
                        task->path, item->line);
    return 0;
}

tl_dataset_t *
tl_choice_dataset (const tl_task_t *task, const tl_tokenizer_t *tokenizer,
                   const tl_config_t *config, size_t max_length, bool cloze, size_t *shortened,
                   tl_error_t *err)
{
    size_t choices = 0, at = 0, most = config->max_positions;
    if (max_length && max_length < most)
        most = max_length;
    *shortened = 0;
    for (size_t i = 0; i < task->count; i++)
        choices += task->items[i].count;
    s_ids_t *ids = tl_alloc ((task->count + 1) * sizeof *ids);
    tl_answer_t *answers = tl_alloc ((choices + 1) * sizeof *answers);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < task->count; i++) {
        const tl_item_t *item = &task->items[i];
        rc = s_encode (&ids[i], task, item, tokenizer, cloze, err);
        if (rc)
            break;
        size_t room = most > ids[i].longest ? most - ids[i].longest : 0;
        *shortened += tl_prompt_shorten (&ids[i].prompt, tokenizer, room);
        if (ids[i].prompt.count > room)
            rc = tl_fail (err, TL_BAD_INPUT,
                          "%s:%zu: the longest choice has %zu tokens, which leaves a prompt %zu of "
                          "the %zu that are read: shorten the choice, or raise --max-length",
                          task->path, item->line, ids[i].longest, room, most);
        for (size_t c = 0; rc == 0 && c < item->count; c++)
            answers[at++] = (tl_answer_t){&ids[i].prompt, ids[i].ids[c], ids[i].counts[c]};
    }
    tl_dataset_t *data = rc ? NULL : tl_dataset_of_answers (tokenizer, answers, choices);
    for (size_t i = 0; i < task->count; i++)
        s_clear (&ids[i], task->items[i].count);
    free (ids);
    free (answers);
    return data;
}

void
tl_choice_pick (const tl_task_t *task, const tl_dataset_t *data, const double *nll, tl_per_t per,
                size_t *picked)
{
    for (size_t i = 0, at = 0; i < task->count; i++) {
        const tl_item_t *item = &task->items[i];
        double least = INFINITY;
        picked[i] = 0;
        for (size_t c = 0; c < item->count; c++, at++) {
            double over = per == TL_PER_TOKEN  ? (double)tl_dataset_labels_of (data, at)
                          : per == TL_PER_BYTE ? (double)item->texts[c].size
                                               : 1;
            if (nll[at] / over < least) {
                least = nll[at] / over;
                picked[i] = c;
            }
        }
    }
}

//  ---------------------------------------------------------------------------------------------
//  Counting

static double
s_f1 (uint64_t right, uint64_t picked, uint64_t expected)
{
    return right ? 2 * (double)right / (double)(picked + expected) : 0;
}

typedef struct {
    uint64_t items, correct, right, picked, expected; //  the last three of the positive class
} s_question_t;

void
tl_choice_count (tl_choice_count_t *self, const tl_task_t *task, const size_t *picked,
                 size_t positive)
{
    s_question_t *questions = tl_alloc ((task->groups + 1) * sizeof *questions);
    tl_choice_count_t count = {.items = task->count,
                               .no_classes = !task->classes || task->items[0].count > TL_CLASSES,
                               .groups = task->groups,
                               .grouped = task->grouped};
    for (size_t i = 0; i < task->count; i++) {
        const tl_item_t *item = &task->items[i];
        s_question_t *question = &questions[item->group];
        bool correct = picked[i] == item->answer;
        count.correct += correct;
        question->items++;
        question->correct += correct;
        question->right += correct && item->answer == positive;
        question->picked += picked[i] == positive;
        question->expected += item->answer == positive;
        if (count.no_classes)
            continue;
        count.right[item->answer] += correct;
        count.picked[picked[i]]++;
        count.expected[item->answer]++;
    }
    for (size_t i = 0; i < task->groups; i++) {
        const s_question_t *question = &questions[i];
        count.whole += question->correct == question->items;
        count.group_f1 += s_f1 (question->right, question->picked, question->expected);
    }
    free (questions);
    tl_choice_add (self, &count);
}

void
tl_choice_add (tl_choice_count_t *self, const tl_choice_count_t *other)
{
    self->items += other->items;
    self->correct += other->correct;
    self->no_classes = self->no_classes || other->no_classes;
    for (size_t i = 0; i < TL_CLASSES; i++) {
        self->right[i] += other->right[i];
        self->picked[i] += other->picked[i];
        self->expected[i] += other->expected[i];
    }
    self->groups += other->groups;
    self->whole += other->whole;
    self->group_f1 += other->group_f1;
    self->grouped = self->grouped || other->grouped;
}

double
tl_choice_f1 (const tl_choice_count_t *self, size_t class)
{
    if (self->no_classes || class >= TL_CLASSES)
        return NAN;
    return s_f1 (self->right[class], self->picked[class], self->expected[class]);
}

double
tl_choice_macro_f1 (const tl_choice_count_t *self)
{
    double sum = 0;
    size_t classes = 0;
    for (size_t i = 0; i < TL_CLASSES; i++)
        if (self->picked[i] || self->expected[i]) {
            sum += tl_choice_f1 (self, i);
            classes++;
        }
    return self->no_classes || !classes ? NAN : sum / (double)classes;
}
