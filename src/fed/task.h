/*  task: a file to evaluate, read: what is asked, and what the answer should be. One JSON object a line, told apart by its
    keys, all lines of a file alike:

      {prompt, choices, answer}       multiple choice; answer is the right one's index from 0, or its text
      {prompt, references}            a text is written and compared; {prompt, completion}, too, where that is asked for
      anything else                   text whose likelihood is measured, read by tl_dataset_open

    {messages} may stand for the prompt, ending with the user's. "group" joins choices into one question (MultiRC).
    Doesn't tokenize; the file is kept in memory.                                                  */

#ifndef TL_TASK_H
#define TL_TASK_H

#include "data/data.h"
#include "fed/metrics.h"

typedef enum { TL_TASK_TEXT, TL_TASK_CHOICE, TL_TASK_WRITING } tl_task_kind_t;

//  What its pointers point to is the task's.
typedef struct {
    size_t line;       //  in the file, from 1
    bool chat;         //  said is a conversation; else its only turn is the prompt
    tl_said_t *said;   //  [said_count]
    size_t said_count; //  >= 1
    tl_text_t *texts;  //  [count] choices or references
    size_t count;      //  >= 2 choices, >= 1 references
    size_t answer;     //  the right choice
    size_t group;      //  the question it belongs to, from 0; without "group" its own
} tl_item_t;

typedef struct {
    tl_task_kind_t kind;
    char *path;
    tl_item_t *items; //  [count], none of TL_TASK_TEXT
    size_t count;
    size_t groups; //  how many questions
    bool grouped;  //  the file says which lines are one question
    bool classes;  //  every line has the same choices: they are classes
    void *lines;   //  the JSON they lie in
} tl_task_t;

//  BY_KEYS as above; WRITING: what has a completion or ends with the assistant's message is to be written anew; PROMPTS: only
//  prompt or messages count, and nothing says what should come of them.
typedef enum { TL_TASK_BY_KEYS, TL_TASK_OF_WRITING, TL_TASK_OF_PROMPTS } tl_task_wanted_t;

//  limit: lines at most, 0: all. NULL and "FILE:LINE: ..." when a line is broken or unlike the first.
tl_task_t *tl_task_open (const char *path, tl_task_wanted_t wanted, size_t limit, tl_error_t *err);
void tl_task_destroy (tl_task_t **self_p);

//  The prompt in the layout of the tokenizer's model. cloze as in tl_prompt_cloze. -1 when a conversation can't be laid out.
int tl_item_prompt (const tl_item_t *self, const tl_tokenizer_t *tokenizer, bool cloze,
                    tl_prompt_t *prompt, tl_error_t *err);

#endif
