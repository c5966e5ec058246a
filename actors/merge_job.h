/*  merge_job: one piece of work for the aggregator's compute thread. The loop thread makes it and acts on its
    result; only the compute thread touches the mergers in between.                                   */

#ifndef TL_MERGE_JOB_H
#define TL_MERGE_JOB_H

#include "fed/aggregate.h"
#include "messages/tensor_wire.h"

typedef enum {
    TL_MERGE_KIND_TRUNK,   //  mean of the workers' replicas
    TL_MERGE_KIND_CLIENTS, //  mean of the clients' adapters
    TL_MERGE_KIND_SUM,     //  sum of the clients' gradients of a step
    TL_MERGE_KINDS,
    TL_MERGE_MEANS = TL_MERGE_KIND_SUM //  so many have something to remember
} tl_merge_kind_t;

extern const char *const tl_merge_kind_names[TL_MERGE_KINDS]; //  as in MERGE

//  What lasts from merge to merge.
typedef struct {
    tl_aggregate_t *aggregates[TL_MERGE_MEANS];
    uint64_t merged[TL_MERGE_MEANS]; //  step of the last one
} tl_mergers_t;

void tl_mergers_open (tl_mergers_t *self, const tl_server_spec_t *server);
void tl_mergers_close (tl_mergers_t *self);

//  What a member of a merge brought.
typedef struct {
    char name[TL_NAME_LIMIT];
    tl_assembly_t *part; //  whole, owned; NULL: nothing
    uint64_t labels;
    char why[512]; //  part is NULL: why
    bool used;     //  out: it is in the result
} tl_brought_t;

typedef struct tl_merge_job tl_merge_job_t;
typedef void (tl_merge_job_fn) (tl_merge_job_t *job);

struct tl_merge_job {
    tl_mergers_t *mergers; //  for the compute thread only
    uint64_t epoch;        //  of the aggregator when it was made; an old one's result is void
    bool lasting;          //  its result stands all the same
    tl_merge_kind_t kind;  //  run
    uint64_t step;
    tl_brought_t *brought; //  run: in order; owned
    size_t count, quorum;
    uint64_t most_labels;  //  run: that a member can have learnt from in a period
    size_t used;           //  run: parts that are in the result
    tl_packed_t *result;   //  run: owned
    uint64_t us;           //  run: it took
    char *directory;       //  save, restore: owned
    char text[1024];       //  run: who was left out and why; else what there is to say
    tl_error_t err;        //  code TL_OK: it worked
    tl_merge_job_fn *done; //  on the loop thread
    void *owner;
};

//  Work functions, for the compute thread.
void tl_merge_job_run (void *job);
void tl_merge_job_save (void *job);
void tl_merge_job_restore (void *job); //  the save of step or the newest before it, or the start
void tl_merge_job_free (void *job);

//  Whose parts are in the result, as an event.
void tl_merge_job_tell (const tl_merge_job_t *job);

#endif
