/*  plan: how much memory each actor of a topology will take, before anything runs: what `plan` and `check` print is
    computed here, the way the actors do it when they start.                                        */

#ifndef TL_CLI_PLAN_H
#define TL_CLI_PLAN_H

#include "model/model.h"
#include "topology/topology.h"

//  One actor; role is "client" or "worker", messages bytes in buffers of messages.
typedef void (tl_plan_fn) (void *arg, const char *role, const char *name, const tl_plan_t *plan,
                           size_t messages);

//  Calls fn for each client and worker of that host (NULL: this machine), clients first. Opens their text and maps the
//  model, computes nothing; of clients elsewhere the largest micro that the settings allow is taken. -1 and a sentence
//  when something can't be opened, or when train.memory_mb is too little.
int tl_plan_parts (const tl_topology_t *topology, const char *host, tl_plan_fn *fn, void *arg,
                   tl_error_t *err);

#endif
