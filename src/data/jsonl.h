//  jsonl: a file of JSON objects, one a line. Text must be UTF-8: guessing an encoding would compute with nonsense.

#ifndef TL_JSONL_H
#define TL_JSONL_H

#include "error.h"

#include <jansson.h>
#include <stddef.h>

//  Called for each object in the file's order; number counts lines from 1. A failure ends the reading, and
//  its sentence should begin with "name:number: ".
typedef int tl_jsonl_fn (void *arg, const json_t *object, const char *name, size_t number,
                         tl_error_t *err);

//  Reads size bytes; empty lines are nothing. name is for messages. limit: objects at most, 0: all. -1 when a line is
//  broken, or take fails.
int tl_jsonl_read (const char *name, const char *data, size_t size, size_t limit, tl_jsonl_fn *take,
                   void *arg, tl_error_t *err);

#endif
