/*  server: the optimizer over what a period changed, FedAvgM or FedAdam (Reddi et al. 2021): what it remembers of
    each tensor, its step, and that memory as a blob. It knows tensors by name and size, and nobody's parts.

    What a mean taught it counts when it is told to keep it. Until then another mean is made as if that one had not
    been: a merge may have to be made again, of the same parts or of others. One thread uses it.        */

#ifndef TL_SERVER_H
#define TL_SERVER_H

#include "error.h"
#include "topology/topology.h"

typedef struct tl_server tl_server_t;

tl_server_t *tl_server_new (const tl_server_spec_t *spec);
void tl_server_destroy (tl_server_t **self_p);

//  A mean begins; what the last one taught is dropped unless it was kept. tensors: at most so many will come.
void tl_server_begin (tl_server_t *self, size_t tensors);
//  mean [size] of that tensor becomes what the optimizer makes of it. The first mean there was stays as it is; so does
//  every one without an optimizer.
void tl_server_step (tl_server_t *self, const char *name, double *mean, size_t size);
//  The mean came to nothing.
void tl_server_drop (tl_server_t *self);
void tl_server_keep (tl_server_t *self);
void tl_server_fresh (tl_server_t *self); //  as if there had been none

//  What it has to know to go on bit for bit, of the last mean too: a fresh blob, the caller frees.
void *tl_server_state_get (const tl_server_t *self, size_t *size);
//  -1 and a sentence, and nothing changed, if it is not such a blob: it comes from a file.
int tl_server_state_set (tl_server_t *self, const void *blob, size_t size, tl_error_t *err);

#endif
