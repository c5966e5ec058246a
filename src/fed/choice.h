/*  choice: multiple choice by likelihood. Every choice is scored as what follows its prompt, and the likeliest one is the
    model's; as SuperGLUE counts them. */

#ifndef TL_CHOICE_H
#define TL_CHOICE_H

#include "fed/task.h"

//  What a choice's negative log likelihood is divided by before the lowest is taken.
typedef enum { TL_PER_CHOICE, TL_PER_TOKEN, TL_PER_BYTE } tl_per_t;

//  All choices of all items, in order, as one dataset to score. Where a prompt and its longest choice together exceed
//  max_length ids (0: what the model reads), the prompt loses its beginning: shortened counts these. NULL and
//  "FILE:LINE: ..." when a choice has no ids or fits nowhere.
tl_dataset_t *tl_choice_dataset (const tl_task_t *task, const tl_tokenizer_t *tokenizer,
                                 const tl_config_t *config, size_t max_length, bool cloze,
                                 size_t *shortened, tl_error_t *err);
//  The likeliest choice of each item: picked [task->count]; nll [tl_dataset_count] of that dataset. Of equals the first.
void tl_choice_pick (const tl_task_t *task, const tl_dataset_t *data, const double *nll,
                     tl_per_t per, size_t *picked);

enum { TL_CLASSES = 64 }; //  F1 is told of at most so many classes

//  Results of some files, added up.
typedef struct {
    uint64_t items, correct;
    bool no_classes; //  choices differ from line to line, or are too many: F1 has no meaning
    uint64_t right[TL_CLASSES];    //  picked, and it was so
    uint64_t picked[TL_CLASSES];   //  picked
    uint64_t expected[TL_CLASSES]; //  it was so
    uint64_t groups, whole;        //  questions; with all lines correct
    double group_f1;               //  sum over questions of their own F1 of the positive class
    bool grouped;
} tl_choice_count_t;

//  positive: the class of group_f1.
void tl_choice_count (tl_choice_count_t *self, const tl_task_t *task, const size_t *picked,
                      size_t positive);
void tl_choice_add (tl_choice_count_t *self, const tl_choice_count_t *other);
//  F1 of one class; 0 when it is neither picked nor expected. NAN without classes.
double tl_choice_f1 (const tl_choice_count_t *self, size_t class);
//  Mean over the classes that are picked or expected.
double tl_choice_macro_f1 (const tl_choice_count_t *self);

#endif
