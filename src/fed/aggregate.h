/*  aggregate: the states of several owners of one part made one (their mean by label tokens), or their gradients
    (their sum), in double and in the order in which the owners are given, so that the result's bits don't depend
    on when whose came. Then, if asked for, an optimizer of its own over what a period changed: FedAvgM or FedAdam
    (Reddi et al. 2021) in place of plain FedAvg.

    Blobs are those of tl_part_state_get and tl_part_gradient_get; they come from peers, and nothing in them is
    trusted: who brings what is not made of finite numbers, or is not shaped like the others', is left out by name.
    It knows no model and no messages. One thread uses it.                                             */

#ifndef TL_AGGREGATE_H
#define TL_AGGREGATE_H

#include "error.h"
#include "fed/server.h"

//  What one owner brings.
typedef struct {
    const char *name;  //  of the owner
    const void *blob;  //  [size] its state or gradient, aligned like malloc's
    size_t size;       //  bytes
    uint64_t labels;   //  its weight in a mean. If all have 0 they count alike
    bool used;         //  out: it is in the result
    char refusal[512]; //  out: why it is not, a sentence that names the tensor; else ""
} tl_contribution_t;

typedef struct tl_aggregate tl_aggregate_t;

//  Of one kind of part, the trunk's or the clients'. The settings are federate.server's.
tl_aggregate_t *tl_aggregate_new (const tl_server_spec_t *server);
void tl_aggregate_destroy (tl_aggregate_t **self_p);

//  Weighted mean of adapters and of AdamW's m and v, with the largest count of updates: a fresh blob for
//  tl_part_state_set, the caller frees. How the parts are shaped is what most of them say, of equals the first. With
//  one contribution it is a copy. The optimizer has no part in it if nobody has label tokens: then it only gives out
//  again what all have. NULL and a sentence, and nothing changed, if fewer than quorum (at least 1) are good.
void *tl_aggregate_mean (tl_aggregate_t *self, tl_contribution_t *parts, size_t count,
                         size_t quorum, size_t *size, tl_error_t *err);
//  Sum of gradients: a fresh blob for tl_part_gradient_set. NULL and a sentence if none is good.
void *tl_aggregate_sum (tl_contribution_t *parts, size_t count, size_t *size, tl_error_t *err);

//  The optimizer over its means: what it learns from one counts once it is told to keep it, and that is what there is to
//  save of an aggregate.
tl_server_t *tl_aggregate_server (tl_aggregate_t *self);

#endif
