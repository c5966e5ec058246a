/*  rundb: runs/NAME/run.db, what a broker knows of its run, as an SQLite file in WAL mode: settings, peers,
    steps, periods, decisions, events, metrics, saves. docs/run-db.md says what is in which table.

    It is written from events (actors/events.h), many in one transaction; which event goes to which table is
    one list in rundb.c. It is read with SQL, by the program as by anybody. Losses of training steps and text are
    never in it: the broker doesn't know them. Blocks on the disk; not thread-safe, one thread at a time. */

#ifndef TL_RUNDB_H
#define TL_RUNDB_H

#include "error.h"

#include <jansson.h>
#include <stdbool.h>

typedef struct tl_rundb tl_rundb_t;

//  Makes an empty one that is going to be at path. Until tl_rundb_settle it has another name, and tl_rundb_destroy removes
//  it. What lies at path and isn't a run.db is never replaced: NULL and a sentence. settings: {name: text}.
tl_rundb_t *tl_rundb_create (const char *path, const char *name, const char *run,
                             const json_t *settings, tl_error_t *err);
//  It takes its place, with all that was noted; one that lies there is gone. -1 and a sentence: write to it no more.
int tl_rundb_settle (tl_rundb_t *self, tl_error_t *err);
//  The one that is there. NULL and a sentence if there is none, if it is damaged, no run.db, or of another version.
tl_rundb_t *tl_rundb_open (const char *path, tl_error_t *err);
void tl_rundb_destroy (tl_rundb_t **self_p);

//  Writes events, an array of objects, in one transaction that is on the disk when it returns: all of them or, with -1 and
//  a sentence, none. Names that no table is for are noted in the table events.
int tl_rundb_note (tl_rundb_t *self, const json_t *events, tl_error_t *err);
//  Rows of a question, each an object by the names of its columns. The caller decrefs. NULL and a sentence.
json_t *tl_rundb_ask (tl_rundb_t *self, const char *sql, tl_error_t *err);

#endif
