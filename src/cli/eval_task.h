/*  eval_task: `eval` over files of any kind: text that is measured, multiple choice, texts that are written and compared.
    A row for each file, one for all, and a line for each example where that is asked for.         */

#ifndef TL_CLI_EVAL_TASK_H
#define TL_CLI_EVAL_TASK_H

#include "cli/engine.h"
#include "fed/choice.h"

enum { TL_SAY_ROUGE = 1, TL_SAY_BLEU = 2, TL_SAY_EXACT = 4, TL_SAY_F1 = 8, TL_SAY_ALL = 15 };

typedef struct {
    unsigned metrics;        //  TL_SAY_... of written texts
    bool write;              //  what has a completion is to be written as well
    tl_per_t per;            //  of choices
    size_t positive;         //  index of the choice that f1 is about
    size_t max_length;       //  ids of an example; 0: the model's
    size_t limit;            //  examples of a file; 0: all
    size_t max_new;          //  tokens of a text
    size_t at_once;          //  texts at the same time
    bool cloze;              //  prompts as tl_prompt_cloze reads them
    const tl_texts_t *stops; //  end a text
    const char *examples;    //  a file to write, or NULL
} tl_eval_how_t;

typedef struct tl_evaluation tl_evaluation_t;

tl_evaluation_t *tl_evaluation_new (const tl_eval_how_t *how); //  how must outlive it
void tl_evaluation_destroy (tl_evaluation_t **self_p);
//  Evaluates a file by the engine, which stands for its site.
int tl_evaluation_file (tl_evaluation_t *self, tl_engine_t *engine, const char *name,
                        const char *path, tl_error_t *err);
//  The table to stdout, the examples to their file.
int tl_evaluation_end (tl_evaluation_t *self, tl_format_t format, tl_error_t *err);

#endif
