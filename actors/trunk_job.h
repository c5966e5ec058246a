/*  trunk_job: one piece of work for a worker's compute thread. The loop thread makes it and acts on its
    result; only the compute thread touches the trunk in between. What the work is, is a table: a trunk's,
    or that of what stands for one (synthetic.h).                                                   */

#ifndef TL_TRUNK_JOB_H
#define TL_TRUNK_JOB_H

#include "actors/compute.h"
#include "fed/trunk.h"
#include "messages/tensor_wire.h"

//  One member's rows in a micro: what came in, what goes out.
typedef struct {
    size_t member; //  place in the plan
    size_t rows;
    tl_assembly_t *in;        //  rows or gradient; NULL: zeros (its member is gone); owned
    tl_sequence_t *sequences; //  forward; owned
    size_t sequence_count;
    tl_packed_t *out; //  owned
    bool bad;         //  in held something that is no finite number; zeros were taken instead
} tl_share_t;

typedef struct tl_trunk_job tl_trunk_job_t;
typedef void (tl_trunk_job_fn) (tl_trunk_job_t *job);

struct tl_trunk_job {
    tl_trunk_t *trunk;                   //  for the compute thread only
    struct tl_synthetic_part *synthetic; //  in its place, or NULL
    tl_w_dtype_t dtype;                  //  of rows that go out
    uint64_t epoch, voids; //  of the worker when it was made; an old one's result is void
    bool lasting;          //  not of a step: its result stands when only the epoch is over
    uint64_t step, round, micro, micros;
    tl_share_t *shares; //  in plan order; owned
    size_t share_count;
    size_t rows,
        longest; //  begin: of the largest micro to come, if memory for it is to be set aside; else 0
    tl_plan_t plan;        //  begin: of that memory
    bool wanted;           //  backward: d(input) is wanted
    int64_t us;            //  forward, backward, update: what it took
    tl_norm_term_t *terms; //  update: of the clients; owned
    size_t term_count;
    uint64_t labels; //  update: of the step; gather: that the state learnt from
    double norm;
    char name[64];       //  serve: who asked
    char *directory;     //  save, leave, restore: of the part; owned
    uint64_t run;        //  leave: that the state belongs to
    tl_packed_t *state;  //  save, gather: owned
    tl_assembly_t *blob; //  restore: owned, NULL: the start
    char text[512];
    tl_error_t err;        //  code TL_OK: it worked
    tl_trunk_job_fn *done; //  on the loop thread; NULL: nothing to do
    void *owner;
};

//  Work functions, for the compute thread.
typedef struct {
    tl_job_fn *begin, *forward, *backward, *update, *drop, *serve, *save;
    tl_job_fn *gather; //  the state, and what it learnt from
    tl_job_fn *leave;  //  adapter and state, both in directory
    tl_job_fn *restore;
} tl_trunk_work_t;

extern const tl_trunk_work_t tl_trunk_work;
void tl_trunk_job_free (void *job);

#endif
