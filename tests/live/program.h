/*  program: for tests, the program started as a user would, several at a time: its lines as they come, signals,
    its end. Whatever goes wrong ends the test with a sentence and its last words (case_fail). Everything that
    is started ends with the test. TRUNKLINE names the program.                                     */

#ifndef PROGRAM_H
#define PROGRAM_H

#include "equivalence/case.h"

#include <jansson.h>
#include <sys/types.h>

typedef struct program program_t;

//  trunkline WORDS..., where words is one string, cut at blanks. Standard output comes line by line.
program_t *program_start (const case_t *of, const char *words);
//  The next event of that name (and part, or NULL) that it tells in JSON lines; skipped ones are gone. The caller
//  gives it back to json_decref.
json_t *program_event (program_t *self, const char *event, const char *part);
void program_signal (program_t *self, int signal);
//  Kills its child process whose command line holds all of text.
void program_kill_child (program_t *self, const char *text, int signal);
//  Reads to the end. Its exit code must be that one and its output or errors must hold pattern (NULL: anything).
//  Returns what was left of standard output; the caller frees.
char *program_end (program_t **self_p, int code, const char *pattern);
//  All at once.
char *program_run (const case_t *of, int code, const char *pattern, const char *words);

#endif
