#include "synthetic.h"

#include "actors/window.h"
#include "base/assert.h"
#include "memory.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_ROWS = 64 }; //  of a trunk's state

struct tl_synthetic_part {
    const tl_synthetic_t *spec;
    tl_compute_t *compute;
    size_t hidden;
    tl_w_dtype_t dtype;
    tl_packed_t *rows; //  the last that were asked for, NULL: none yet
    size_t row_count;  //  of them
};

tl_synthetic_part_t *
tl_synthetic_part_new (const tl_topology_t *topology, const tl_synthetic_t *spec,
                       tl_compute_t *compute)
{
    tl_synthetic_part_t *self = tl_alloc (sizeof *self);
    self->spec = spec;
    self->compute = compute;
    self->hidden = topology->model.hidden;
    self->dtype = tl_wire_dtype (topology);
    return self;
}

void
tl_synthetic_part_destroy (tl_synthetic_part_t **self_p)
{
    tl_synthetic_part_t *self = *self_p;
    if (!self)
        return;
    tl_packed_destroy (&self->rows);
    free (self);
    *self_p = NULL;
}

//  The job that runs takes as long as so many rows do in that round. Returns it in us.
static int64_t
s_take (tl_synthetic_part_t *self, size_t rows, uint64_t round)
{
    const tl_synthetic_t *spec = self->spec;
    double us = 1000 * spec->base_ms + spec->us_per_row * (double)rows;
    if (spec->changes_at && round >= spec->changes_at)
        us *= spec->changes_by;
    us = us < 1e15 ? us : 1e15;
    tl_compute_takes (self->compute, (int64_t)us);
    return (int64_t)us;
}

static tl_packed_t *
s_rows (tl_synthetic_part_t *self, size_t rows)
{
    if (!self->rows || self->row_count != rows) {
        tl_packed_destroy (&self->rows);
        float *zeros = tl_alloc (rows * self->hidden * sizeof *zeros);
        self->rows = tl_pack (zeros, rows, self->hidden, self->dtype);
        self->row_count = rows;
        free (zeros);
    }
    return tl_packed_share (self->rows);
}

//  --- for a trunk ------------------------------------------------------------------------------

static void
s_nothing (void *arg)
{
}

static void
s_trunk_begin (void *arg)
{
    tl_trunk_job_t *job = arg;
    job->rows = 0; //  there is no memory to plan
}

//  Rows that came make room at once.
static void
s_trunk_rows (tl_trunk_job_t *job, bool answers)
{
    size_t rows = 0;
    for (size_t i = 0; i < job->share_count; i++) {
        tl_share_t *share = &job->shares[i];
        tl_assembly_destroy (&share->in);
        rows += share->rows;
        if (answers)
            share->out = s_rows (job->synthetic, share->rows);
    }
    job->us = s_take (job->synthetic, rows, job->round);
}

static void
s_trunk_forward (void *arg)
{
    s_trunk_rows (arg, true);
}

static void
s_trunk_backward (void *arg)
{
    tl_trunk_job_t *job = arg;
    s_trunk_rows (job, job->wanted);
}

static void
s_trunk_update (void *arg)
{
    tl_trunk_job_t *job = arg;
    job->norm = 1;
}

//  A state like a trunk's, of one tensor of zeros: an aggregator averages it, a store keeps it.
static void
s_trunk_save (void *arg)
{
    tl_trunk_job_t *job = arg;
    size_t hidden = job->synthetic->hidden, bytes = STATE_ROWS * hidden * sizeof (float), size;
    float *zeros = tl_alloc (bytes);
    static const char *const names[] = {"value:synthetic", "m:synthetic", "v:synthetic"};
    tl_st_tensor_t tensors[3];
    for (size_t i = 0; i < 3; i++)
        tensors[i] = (tl_st_tensor_t){.name = names[i],
                                      .dtype = TL_ST_F32,
                                      .shape = {STATE_ROWS, hidden},
                                      .dimensions = 2,
                                      .data = zeros,
                                      .bytes = bytes};
    char updates[24];
    snprintf (updates, sizeof updates, "%llu", (unsigned long long)job->step);
    const char *const metadata[] = {"format",
                                    "pt",
                                    "trunkline.state",
                                    "1",
                                    "trunkline.manifest",
                                    "synthetic",
                                    "trunkline.tune",
                                    "synthetic",
                                    "trunkline.updates",
                                    updates,
                                    NULL};
    void *state = tl_safetensors_serialise (tensors, 3, metadata, &size);
    job->state = tl_pack_own (state, size);
    free (zeros);
    snprintf (job->text, sizeof job->text, "nothing, being synthetic");
}

static void
s_trunk_leave (void *arg)
{
    tl_trunk_job_t *job = arg;
    snprintf (job->text, sizeof job->text, "nothing, being synthetic");
}

static void
s_trunk_restore (void *arg)
{
    tl_trunk_job_t *job = arg;
    snprintf (job->text, sizeof job->text, "%s", job->blob ? "the common save" : "the start");
}

const tl_trunk_work_t tl_synthetic_trunk_work = {
    .begin = s_trunk_begin,
    .forward = s_trunk_forward,
    .backward = s_trunk_backward,
    .update = s_trunk_update,
    .drop = s_nothing,
    .serve = s_trunk_forward,
    .save = s_trunk_save,
    .gather = s_trunk_save,
    .leave = s_trunk_leave,
    .restore = s_trunk_restore,
};

//  --- for a site -------------------------------------------------------------------------------

//  One micro is one sequence.
static void
s_site_front (void *arg)
{
    tl_site_job_t *job = arg;
    size_t rows = job->synthetic->spec->rows;
    job->out = s_rows (job->synthetic, rows);
    job->sequence_count = 1;
    job->sequences = tl_alloc (sizeof *job->sequences);
    *job->sequences =
        (tl_sequence_t){.length = rows, .number = job->round * job->micros + job->micro};
    s_take (job->synthetic, rows, job->round);
}

//  Every row has a label.
static void
s_site_tail (void *arg)
{
    tl_site_job_t *job = arg;
    size_t rows = job->synthetic->spec->rows;
    if (tl_assembly_rows (job->in) != rows) {
        tl_fail (&job->err, TL_CONNECTION,
                 "%zu rows came for micro %llu of step %llu where %zu were due; run the same "
                 "trunkline at the worker",
                 tl_assembly_rows (job->in), (unsigned long long)job->micro + 1,
                 (unsigned long long)job->step + 1, rows);
        return;
    }
    tl_assembly_destroy (&job->in);
    job->labels = rows;
    job->out = s_rows (job->synthetic, rows);
    s_take (job->synthetic, rows, job->round);
}

static void
s_site_back (void *arg)
{
    tl_site_job_t *job = arg;
    s_take (job->synthetic, job->synthetic->spec->rows, job->round);
}

static void
s_site_commit (void *arg)
{
    tl_site_job_t *job = arg;
    job->labels = job->micros * job->synthetic->spec->rows;
}

static void
s_site_save (void *arg)
{
    tl_site_job_t *job = arg;
    snprintf (job->text, sizeof job->text, "nothing, being synthetic");
}

const tl_site_work_t tl_synthetic_site_work = {
    .begin = s_nothing,
    .front = s_site_front,
    .tail = s_site_tail,
    .back = s_site_back,
    .commit = s_site_commit,
    .update = s_nothing,
    .drop = s_nothing,
    .save = s_site_save,
    .restore = s_site_save,
};
