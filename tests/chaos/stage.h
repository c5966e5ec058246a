/*  stage: for tests, the program's processes under faults. Starts them on a case's files, reads what they
    say while it waits for something (an event, a line of log, an end), and sends signals.

    Nothing sleeps: whatever a test wants to happen it waits for, with a deadline. Whatever goes wrong ends
    the test with what was waited for and each process's last words. At the end nothing may be left running
    and no sanitizer may have complained.                                                          */

#ifndef STAGE_H
#define STAGE_H

#include "equivalence/case.h"

#include <jansson.h>
#include <sys/types.h>

typedef struct stage stage_t;
typedef struct part part_t; //  one process

stage_t *stage_new (const case_spec_t *spec);
void stage_end (stage_t **self_p);
const case_t *stage_case (const stage_t *self);
void stage_fail (const stage_t *self, const char *format, ...)
    __attribute__ ((noreturn, format (printf, 2, 3)));
//  Ends the test unless good; what says what was expected.
void stage_check (const stage_t *self, bool good, const char *what);

//  Starts of the program; further arguments up to a NULL are appended. `up` and each role's `run` tell events.
part_t *stage_up (stage_t *self, ...);
part_t *stage_run (stage_t *self, const char *role, const char *name, ...); //  name NULL: none
part_t *stage_verb (stage_t *self, const char *verb, ...);                  //  verb TOPOLOGY ...
//  The undisturbed run of the same case: its steps (of site i at i * spec->steps), and its adapters saved aside
//  for stage_same. Runs `up`.
void stage_undisturbed (stage_t *self, case_step_t *steps);
//  True if part's adapter file is bit for bit that of the undisturbed run.
bool stage_same (const stage_t *self, const char *part);

//  What is started from now on has these faults, as tests/chaos/fault.c reads them, each once; "": none any more.
void stage_faults (stage_t *self, const char *faults);

//  --- waiting

//  The next event of that name that has key with at least that value (key NULL: any). Stays the part's.
const json_t *part_event (part_t *self, const char *event, const char *key, int64_t least);
//  The next event of that name whose key is that text.
const json_t *part_event_of (part_t *self, const char *event, const char *key, const char *text);
//  Waits for a further line on stderr that has these words, and returns it.
const char *part_log (part_t *self, const char *words);
//  Waits until it has ended; returns its exit code, or 128 + the signal that killed it.
int part_wait (part_t *self);

//  Reads what the parts have said, without waiting: for tests that wait for something of their own, as a process whose
//  pipe is full stops. Call it every few dozen milliseconds.
void stage_listen (stage_t *self);

//  --- looking

const char *part_err (const part_t *self);                 //  all of stderr so far
const char *part_out (const part_t *self);                 //  all of stdout so far
size_t part_count (const part_t *self, const char *event); //  events of that name so far
//  The n-th event (from 0) so far, NULL behind the last.
const json_t *part_at (const part_t *self, size_t n);
bool part_is (const json_t *event, const char *name);
int64_t part_int (const json_t *event, const char *key);
const char *part_text (const json_t *event, const char *key);
bool part_alive (const part_t *self);
//  Monotonic ms of the last part_wait's end, for "within seconds".
int64_t stage_ms (void);

//  --- doing

pid_t part_pid (const part_t *self);
void part_kill (const part_t *self, int signal);
//  Kill -9 of `up` and all of its children at one moment: it can't see them go. When it returns their ports are free.
void part_kill_all (part_t *self);
//  Until that process has ended, whoever's child it is.
void stage_wait_gone (pid_t pid);
//  Pid of `up`'s child of that role and name ("" for the broker); ends the test if there is none.
pid_t part_child (const part_t *self, const char *role, const char *name);

//  A program of such tests: main (argc, argv) runs those named, or all.
typedef struct {
    const char *name;
    void (*run) (void);
} stage_test_t;
int stage_main (int argc, char **argv, const stage_test_t *tests);

#endif
