/*  ledger: writes what this process tells (events.h) into the run's run.db, on the disk thread, many events in one
    transaction. The loop hands them over and never waits.                                          */

#ifndef TL_LEDGER_H
#define TL_LEDGER_H

#include "actors/compute.h"
#include "stats/rundb.h"

typedef struct tl_ledger tl_ledger_t;

//  Every event from now on, until it is destroyed. Takes db over. on_failed (arg, sentence) is called once, on the loop
//  thread, when something could not be written; nothing is written after that.
tl_ledger_t *tl_ledger_new (tl_rundb_t *db, tl_compute_t *disk,
                            void (*on_failed) (void *arg, const char *text), void *arg);
//  After tl_compute_finish of the disk thread.
void tl_ledger_destroy (tl_ledger_t **self_p);
//  One more record that is no event for anybody else. Takes it over.
void tl_ledger_add (tl_ledger_t *self, const char *name, json_t *record);
//  What has come since the last time goes to the disk thread. NULL is good: nothing is done.
void tl_ledger_flush (tl_ledger_t *self);
//  On the disk thread: the db takes its place (tl_rundb_settle). -1 and a sentence.
int tl_ledger_settle (tl_ledger_t *self, tl_error_t *err);
//  On the disk thread, or after tl_compute_finish: NULL if everything that was flushed before is in the file, else why not.
const char *tl_ledger_why_not (const tl_ledger_t *self);

#endif
