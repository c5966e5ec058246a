/*  actor: the skeleton that every actor shares: one event loop (sockets, descriptors, timers), signals as
    events, a name, a state with a log line for every transition, and an end with an exit code.

    An actor is one process with one loop thread. The loop never computes and never blocks: computing
    actors hand jobs to a tl_compute_t. Not thread-safe; everything here runs on the loop thread.
    A callback logs in the name of whom its watch or timer was made for (tl_log_of).               */

#ifndef TL_ACTOR_H
#define TL_ACTOR_H

#include "error.h"
#include "net/socket.h"

#include <stddef.h>
#include <stdint.h>

typedef struct tl_actor tl_actor_t;
typedef void (tl_actor_fn) (void *arg);

//  state_names [state] are for the log. SIGTERM, SIGINT and (not under nohup) SIGHUP call on_stop (once; a second one ends
//  the actor with code 1). Blocks these signals for the whole process: call before any thread is started.
tl_actor_t *tl_actor_new (const char *name, const char *const *state_names, tl_actor_fn *on_stop,
                          void *arg);
void tl_actor_destroy (tl_actor_t **self_p);

//  Calls on_message whenever the socket can be read, on_event whenever it has a connection event.
void tl_actor_watch_socket (tl_actor_t *self, tl_socket_t *socket, tl_actor_fn *on_message,
                            tl_actor_fn *on_event, void *arg);
//  Calls fn whenever the ZeroMQ socket, which nobody but fn uses, or the descriptor, can be read.
void tl_actor_watch_zmq (tl_actor_t *self, void *zmq, tl_actor_fn *fn, void *arg);
void tl_actor_watch_fd (tl_actor_t *self, int fd, tl_actor_fn *fn, void *arg);
//  What is watched is forgotten before it is closed, unless the actor never runs again.
void tl_actor_forget_socket (tl_actor_t *self, tl_socket_t *socket);
void tl_actor_forget_fd (tl_actor_t *self, int fd);
//  Calls fn after ms, times times (0: for ever). Returns an id for tl_actor_cancel, never 0.
int tl_actor_timer (tl_actor_t *self, size_t ms, size_t times, tl_actor_fn *fn, void *arg);
void tl_actor_cancel (tl_actor_t *self, int timer);

void tl_actor_go (tl_actor_t *self, int state, const char *event); //  transition, one debug line
int tl_actor_state (const tl_actor_t *self);
const char *tl_actor_state_name (const tl_actor_t *self);

//  Runs until tl_actor_end; returns its code. err gets a sentence if a second signal was the end; else it is not touched.
int tl_actor_run (tl_actor_t *self, tl_error_t *err);
void tl_actor_end (tl_actor_t *self, int code);

#endif
