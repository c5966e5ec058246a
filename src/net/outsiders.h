/*  outsiders: what the log says of those who were turned away. The first of a kind from a host is told at
    once; what follows from there is counted and told by number now and then, so that nobody can fill the
    log, or hide in it. Counts for `status` are kept where refusals are made: this is for people.

    Knows no sockets and has no timer of its own. One thread uses it.                              */

#ifndef TL_OUTSIDERS_H
#define TL_OUTSIDERS_H

#include <stdint.h>

enum { TL_OUTSIDERS_PERIOD_MS = 10000 };

typedef struct tl_outsiders tl_outsiders_t;

tl_outsiders_t *tl_outsiders_new (void);
void tl_outsiders_destroy (tl_outsiders_t **self_p); //  tells what was counted and not yet told
//  Somebody at address ("1.2.3.4:567", or without a port, or "" if unknown) was turned away at now (monotonic ms); why
//  is what the line says after "refused ADDRESS: ". The same host with the same why is one kind.
void tl_outsiders_tell (tl_outsiders_t *self, const char *address, const char *why, int64_t now);
//  Tells the numbers of kinds whose period is over; call it a few times a second.
void tl_outsiders_tick (tl_outsiders_t *self, int64_t now);

#endif
