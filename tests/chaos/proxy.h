/*  proxy: for tests, a TCP relay on 127.0.0.1 whose connections break: after so many bytes, or on command. It
    runs on a thread of its own and knows nothing of what passes.                                  */

#ifndef PROXY_H
#define PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct proxy proxy_t;

//  Relays to 127.0.0.1:target. Each connection breaks after a number of bytes (both ways together) drawn from
//  [least, most] by seed, until cuts connections were broken; the later ones stay. Aborts on failure.
proxy_t *proxy_new (int target, uint64_t seed, uint64_t least, uint64_t most, size_t cuts);
void proxy_destroy (proxy_t **self_p);
int proxy_port (const proxy_t *self);
size_t proxy_cuts (const proxy_t *self); //  broken so far
void proxy_cut (proxy_t *self);          //  breaks all that are there, soon

//  From now on nothing passes and nothing closes, as where a cable was pulled; or all goes on where it was.
void proxy_stall (proxy_t *self, bool stalled);

#endif
