/*  slow_link: for tests and benchmarks, a network link on this machine: a TCP relay on 127.0.0.1 with a delay and a
    rate, which all of its connections share, each way for itself. A thread of its own; it knows nothing of what
    passes and loses nothing.                                                                       */

#ifndef SLOW_LINK_H
#define SLOW_LINK_H

#include <stddef.h>

enum { SLOW_LINK_PORTS = 4 };

typedef struct slow_link slow_link_t;

//  Relays a port of its own to each of 127.0.0.1:targets [count]. rtt_ms: there and back; mbit_s: each way. Aborts on
//  failure.
slow_link_t *slow_link_new (const int *targets, size_t count, double rtt_ms, double mbit_s);
void slow_link_destroy (slow_link_t **self_p);
int slow_link_port (const slow_link_t *self, size_t target);

#endif
