/*  restarts: whether a process that died is started again, and when: at most five times, each time later; who
    lived well for a while has all its tries again. No clock and no processes: the caller says what happened and when. */

#ifndef TL_RESTARTS_H
#define TL_RESTARTS_H

#include "topology/topology.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TL_RESTARTS = 5 };

//  Zeroed: it never died.
typedef struct {
    int count;     //  deaths that count against it
    int64_t born;  //  when it was started last, monotonic ms
    int64_t place; //  what it was at when it died last: steps done + 1; 0: it never died
    int signal;    //  that it died of then, 0: none
} tl_restarts_t;

void tl_restarts_born (tl_restarts_t *self, int64_t now);
//  It died with that status (of waitpid) while step was open. Returns the ms to wait before it is started again, or -1:
//  not any more. The count begins anew for who lived a minute, unless it died of the same signal at the same step as the last
//  time: it would for ever.
int tl_restarts_died (tl_restarts_t *self, int status, int64_t step, int64_t now);
//  Something of ours crashed or was killed: worth another try. Everything else it said for itself.
bool tl_restarts_worth (int status);
//  "was killed by signal 9 (Killed)", "ended with code 4".
void tl_restarts_how (int status, char *text, size_t size);
//  What is said of a part of that run that isn't started any more: why, and of one that died too often where to look.
void tl_restarts_last_word (const tl_restarts_t *self, int status, const char *why,
                            const tl_topology_t *topology, char *text, size_t size);

#endif
