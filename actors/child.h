/*  child: a process that another one starts: its stdout and stderr come as lines, its end as a status. It leads a
    process group of its own, so that Ctrl-C at the terminal reaches who started it and nobody else.

    Why it is started, or started again, is the caller's business.                                  */

#ifndef TL_CHILD_H
#define TL_CHILD_H

#include "actors/actor.h"

#include <stdbool.h>
#include <sys/types.h>

typedef struct tl_child tl_child_t;

typedef struct {
    tl_actor_t *actor; //  whose loop it is watched on
    void (*on_out) (void *arg, const char *line);
    void (*on_err) (void *arg, const char *line);
    void (*on_end) (void *arg,
                    int status); //  of waitpid; what was in its pipes then has been given
    tl_actor_fn *on_closed;      //  one of its pipes has come to its end
    void *arg;
} tl_child_config_t;

//  Starts nothing yet.
tl_child_t *tl_child_new (const tl_child_config_t *config);
//  Kills it if it lives, and waits for that.
void tl_child_destroy (tl_child_t **self_p);
//  argv ends with NULL. It must not be alive. -1 and a sentence that calls it title.
int tl_child_start (tl_child_t *self, const char *program, const char *const *argv,
                    const char *title, tl_error_t *err);
bool tl_child_alive (const tl_child_t *self);
bool tl_child_busy (const tl_child_t *self); //  alive, or what it said is still to be read
//  What it has said by now is given, before its turn comes.
void tl_child_hear (tl_child_t *self);
void tl_child_signal (const tl_child_t *self, int signal_number);

#endif
