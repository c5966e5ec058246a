#include "trunk_job.h"

#include "actors/save.h"
#include "base/assert.h"
#include "clock.h"
#include "kernels/kernels.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
tl_trunk_job_free (void *arg)
{
    tl_trunk_job_t *job = arg;
    for (size_t i = 0; i < job->share_count; i++) {
        tl_assembly_destroy (&job->shares[i].in);
        tl_packed_destroy (&job->shares[i].out);
        free (job->shares[i].sequences);
    }
    free (job->shares);
    free (job->terms);
    free (job->directory);
    tl_packed_destroy (&job->state);
    tl_assembly_destroy (&job->blob);
    free (job);
}

//  The shares' sequences as one batch; arrays of a fresh block in which everything lies.
static void *
s_batch (const tl_trunk_job_t *job, tl_batch_t *batch)
{
    memset (batch, 0, sizeof *batch);
    for (size_t i = 0; i < job->share_count; i++) {
        batch->sequences += job->shares[i].sequence_count;
        batch->rows += job->shares[i].rows;
    }
    size_t n = batch->sequences, at = 0;
    uint64_t *number = tl_alloc (n * (sizeof (uint64_t) + 3 * sizeof (uint32_t)));
    uint32_t *length = (uint32_t *)(number + n), *context = length + n, *mask = context + n;
    for (size_t i = 0; i < job->share_count; i++)
        for (size_t k = 0; k < job->shares[i].sequence_count; k++, at++) {
            const tl_sequence_t *sequence = &job->shares[i].sequences[k];
            number[at] = sequence->number;
            length[at] = (uint32_t)sequence->length;
            context[at] = (uint32_t)sequence->context;
            mask[at] = (uint32_t)sequence->mask;
        }
    batch->number = number;
    batch->length = length;
    batch->context = context;
    batch->mask = mask;
    return number;
}

//  A share's rows as they came. One member's NaN would be in everybody's trunk after the update: it counts as zeros.
static float *
s_take (tl_share_t *share, size_t hidden)
{
    float *rows = tl_assembly_take (share->in, NULL);
    share->bad = !tl_kernels ()->all_finite (rows, share->rows * hidden);
    if (share->bad)
        memset (rows, 0, share->rows * hidden * sizeof (float));
    return rows;
}

//  The shares' rows one after another; zeros for whoever is gone. A single share is passed on as it came.
static float *
s_join (tl_trunk_job_t *job, size_t rows)
{
    size_t hidden = tl_trunk_hidden (job->trunk);
    if (job->share_count == 1 && job->shares[0].in)
        return s_take (&job->shares[0], hidden);
    float *joined = tl_alloc_aligned (rows * hidden * sizeof (float));
    float *at = joined;
    for (size_t i = 0; i < job->share_count; i++) {
        size_t bytes = job->shares[i].rows * hidden * sizeof (float);
        if (job->shares[i].in) {
            float *part = s_take (&job->shares[i], hidden);
            memcpy (at, part, bytes);
            free (part);
        } else
            memset (at, 0, bytes);
        at += job->shares[i].rows * hidden;
    }
    return joined;
}

static void
s_deal (tl_trunk_job_t *job, const float *rows)
{
    size_t hidden = tl_trunk_hidden (job->trunk);
    for (size_t i = 0; i < job->share_count; i++) {
        job->shares[i].out = tl_pack (rows, job->shares[i].rows, hidden, job->dtype);
        rows += job->shares[i].rows * hidden;
    }
}

static void
s_begin (void *arg)
{
    tl_trunk_job_t *job = arg;
    tl_trunk_begin (job->trunk, job->round, job->micros);
    if (job->rows)
        tl_trunk_plan (job->trunk, job->rows, job->longest, &job->plan, &job->err);
}

static void
s_forward (void *arg)
{
    tl_trunk_job_t *job = arg;
    int64_t began = tl_clock_us ();
    tl_batch_t batch;
    void *block = s_batch (job, &batch);
    float *input = s_join (job, batch.rows);
    s_deal (job, tl_trunk_forward (job->trunk, job->micro, &batch, input));
    free (input);
    free (block);
    job->us = tl_clock_us () - began;
}

static void
s_backward (void *arg)
{
    tl_trunk_job_t *job = arg;
    int64_t began = tl_clock_us ();
    size_t rows = 0;
    for (size_t i = 0; i < job->share_count; i++)
        rows += job->shares[i].rows;
    float *gradient = s_join (job, rows);
    float *input = job->wanted
                       ? tl_alloc_aligned (rows * tl_trunk_hidden (job->trunk) * sizeof (float))
                       : NULL;
    tl_trunk_backward (job->trunk, job->micro, gradient, input);
    if (input)
        s_deal (job, input);
    free (input);
    free (gradient);
    job->us = tl_clock_us () - began;
}

static void
s_update (void *arg)
{
    tl_trunk_job_t *job = arg;
    int64_t began = tl_clock_us ();
    job->norm = tl_trunk_norm (job->trunk, job->terms, job->term_count, job->labels);
    if (tl_trunk_update (job->trunk, job->labels, job->norm, &job->err))
        snprintf (job->text, sizeof job->text, "%.500s", job->err.text);
    job->us = tl_clock_us () - began;
}

static void
s_drop (void *arg)
{
    tl_trunk_job_t *job = arg;
    tl_trunk_drop (job->trunk);
}

static void
s_serve (void *arg)
{
    tl_trunk_job_t *job = arg;
    tl_batch_t batch;
    void *block = s_batch (job, &batch);
    float *input = s_join (job, batch.rows);
    float *rows = tl_trunk_serve (job->trunk, &batch, input);
    s_deal (job, rows);
    free (rows);
    free (input);
    free (block);
}

static int
s_save_adapter (tl_trunk_job_t *job)
{
    return tl_save_adapter (tl_trunk_part (job->trunk), job->directory, job->step, &job->err);
}

static void
s_save (void *arg)
{
    tl_trunk_job_t *job = arg;
    size_t size;
    void *state = tl_part_state_get (tl_trunk_part (job->trunk), &size);
    job->state = tl_pack_own (state, size);
    s_save_adapter (job);
    snprintf (job->text, sizeof job->text, "%.500s",
              job->err.code ? job->err.text : job->directory);
}

static void
s_gather (void *arg)
{
    tl_trunk_job_t *job = arg;
    size_t size;
    void *state = tl_part_state_get (tl_trunk_part (job->trunk), &size);
    job->state = tl_pack_own (state, size);
    job->labels = tl_trunk_learnt (job->trunk);
}

//  Its own state of an earlier leave, or of a step the run went back behind, is no longer true.
static void
s_leave (void *arg)
{
    tl_trunk_job_t *job = arg;
    size_t size;
    void *state = tl_part_state_get (tl_trunk_part (job->trunk), &size);
    if (tl_save_settle (job->directory, job->run, &job->err) == 0 && s_save_adapter (job) == 0 &&
        tl_save_write (job->directory, job->step, state, size, &job->err) == 0) {
        tl_save_forget_after (job->directory, job->step);
        tl_save_prune (job->directory, job->step, 1);
    }
    free (state);
    snprintf (job->text, sizeof job->text, "%.500s",
              job->err.code ? job->err.text : job->directory);
}

static void
s_restore (void *arg)
{
    tl_trunk_job_t *job = arg;
    tl_trunk_drop (job->trunk);
    if (job->blob) {
        size_t size;
        void *state = tl_assembly_take (job->blob, &size);
        //  What several workers made together is saved by none of them, so each that gets it has its adapter.
        if (tl_trunk_take (job->trunk, state, size, &job->err) == 0 && job->directory)
            s_save_adapter (job);
        free (state);
    } else
        tl_trunk_fresh (job->trunk, &job->err);
    snprintf (job->text, sizeof job->text, "%.500s",
              job->err.code ? job->err.text
              : job->blob   ? "the common save"
                            : "the start");
}

const tl_trunk_work_t tl_trunk_work = {
    .begin = s_begin,
    .forward = s_forward,
    .backward = s_backward,
    .update = s_update,
    .drop = s_drop,
    .serve = s_serve,
    .save = s_save,
    .gather = s_gather,
    .leave = s_leave,
    .restore = s_restore,
};
