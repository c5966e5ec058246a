/*  broker: admits peers, keeps their sessions, routes the run's messages between clients, workers and the
    aggregator, keeps run.db and the trunk's saved states. Never opens a payload, never computes on tensors.

    Its files are listed in broker_internal.h.                                                        */

#ifndef TL_BROKER_H
#define TL_BROKER_H

#include "error.h"
#include "topology/topology.h"

#include <stdbool.h>

typedef struct {
    bool stay;    //  after the last step go on serving eval and generate until told to stop
    bool replace; //  a run that lies there may be replaced though it isn't over
    bool resume;  //  the run that lies there goes on from its newest common save
    bool fresh;   //  and a client whose save of it is gone begins with a fresh adapter
    bool no_zap;  //  tests only: no ZAP handler, to show that nothing gets through then
} tl_broker_options_t;

//  Runs until the run is over (and, with stay, somebody stops it). Returns the exit code; err has the sentence.
int tl_broker_run (const tl_topology_t *topology, const tl_broker_options_t *options,
                   tl_error_t *err);

#endif
