/*  synthetic: what stands for a trunk or a site that computes nothing: work functions whose jobs take a
    time and give answers of the right shape. The actors' protocol, queue and states are the real ones.

    Rows that go out are the same zeros each time, packed once; what comes in is dropped unread.     */

#ifndef TL_SYNTHETIC_H
#define TL_SYNTHETIC_H

#include "actors/compute.h"
#include "actors/site_job.h"
#include "actors/trunk_job.h"
#include "topology/topology.h"

typedef struct tl_synthetic_part tl_synthetic_part_t;

//  spec and compute, a timed one, must outlive it; it must outlive the jobs.
tl_synthetic_part_t *tl_synthetic_part_new (const tl_topology_t *topology,
                                            const tl_synthetic_t *spec, tl_compute_t *compute);
void tl_synthetic_part_destroy (tl_synthetic_part_t **self_p);

extern const tl_trunk_work_t tl_synthetic_trunk_work;
extern const tl_site_work_t tl_synthetic_site_work;

#endif
