#include "site_job.h"

#include "actors/save.h"
#include "file.h"
#include "kernels/kernels.h"
#include "log.h"
#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  What the wire says of a batch.
static tl_sequence_t *
s_sequences (const tl_batch_t *batch)
{
    tl_sequence_t *sequences = tl_alloc (batch->sequences * sizeof *sequences);
    for (size_t i = 0; i < batch->sequences; i++)
        sequences[i] =
            (tl_sequence_t){batch->length[i], batch->context[i], batch->mask[i], batch->number[i]};
    return sequences;
}

void
tl_site_job_free (void *arg)
{
    tl_site_job_t *job = arg;
    tl_assembly_destroy (&job->in);
    tl_packed_destroy (&job->out);
    tl_slice_destroy (&job->slice);
    free (job->sequences);
    free (job->terms);
    free (job->ids);
    free (job->logits);
    free (job->losses);
    free (job->directory);
    free (job);
}

static void
s_pack (tl_site_job_t *job, const float *rows, const tl_batch_t *batch)
{
    job->out = tl_pack (rows, batch->rows, tl_site_hidden (job->site), job->dtype);
    job->sequences = s_sequences (batch);
    job->sequence_count = batch->sequences;
}

//  Nothing that is no number may leave: it would end up in the trunk of all.
static int
s_check_finite (tl_site_job_t *job, const float *values, size_t count, const char *what)
{
    if (tl_kernels ()->all_finite (values, count))
        return 0;
    return tl_site_not_finite (job->site, what, &job->err);
}

static void
s_begin (void *arg)
{
    tl_site_job_t *job = arg;
    tl_site_begin (job->site, job->round, job->micros);
}

static void
s_front (void *arg)
{
    tl_site_job_t *job = arg;
    const tl_batch_t *batch;
    const float *rows = tl_site_front (job->site, job->micro, &batch);
    if (s_check_finite (job, rows, batch->rows * tl_site_hidden (job->site),
                        "the front's output") == 0)
        s_pack (job, rows, batch);
}

//  What came from outside must be the rows that are due: the arithmetic reads as many as it expects.
static int
s_check_due (tl_site_job_t *job, size_t due)
{
    if (due && tl_assembly_rows (job->in) == due)
        return 0;
    return tl_fail (&job->err, TL_CONNECTION,
                    "%zu rows came for micro %llu of step %llu where %zu were due; run the same "
                    "trunkline at the worker",
                    tl_assembly_rows (job->in), (unsigned long long)job->micro + 1,
                    (unsigned long long)job->step + 1, due);
}

static void
s_tail (void *arg)
{
    tl_site_job_t *job = arg;
    if (s_check_due (job, tl_site_due (job->site, job->micro, false)))
        return;
    size_t rows = tl_assembly_rows (job->in), hidden = tl_site_hidden (job->site);
    float *input = tl_assembly_take (job->in, NULL);
    float *gradient = tl_alloc_aligned (rows * hidden * sizeof (float));
    job->labels = tl_site_tail (job->site, job->micro, input, gradient);
    if (s_check_finite (job, gradient, rows * hidden, "the loss's gradient") == 0)
        job->out = tl_pack (gradient, rows, hidden, job->dtype);
    free (gradient);
    free (input);
}

static void
s_back (void *arg)
{
    tl_site_job_t *job = arg;
    if (s_check_due (job, tl_site_due (job->site, job->micro, true)))
        return;
    float *gradient = tl_assembly_take (job->in, NULL);
    tl_site_back (job->site, job->micro, gradient);
    free (gradient);
}

static void
s_commit (void *arg)
{
    tl_site_job_t *job = arg;
    job->term_count = tl_part_tensors (tl_site_part (job->site));
    job->terms = tl_alloc ((job->term_count + 1) * sizeof *job->terms);
    tl_site_commit (job->site, job->terms, &job->labels, &job->nll, &job->err);
}

static void
s_update (void *arg)
{
    tl_site_job_t *job = arg;
    if (tl_site_update (job->site, job->labels, job->norm, &job->err) == 0) {
        job->rate = tl_site_rate (job->site);
        job->own_steps = tl_site_cursor (job->site);
    }
}

static void
s_drop (void *arg)
{
    tl_site_job_t *job = arg;
    tl_site_drop (job->site);
}

//  An update may have blown up the adapter itself: then what was saved before is the last good one.
static int
s_check_adapter (tl_site_job_t *job)
{
    const tl_part_t *part = tl_site_part (job->site);
    for (size_t i = 0; i < tl_part_tensors (part); i++) {
        const tl_tensor_t *tensor = tl_part_tensor (part, i);
        if (!tl_kernels ()->all_finite (tensor->value, tensor->shape[0] * tensor->shape[1]))
            return tl_fail (&job->err, TL_BAD_INPUT,
                            "%s of the adapter is not finite after step %llu, so the save before "
                            "stays the newest; lower train.lr or set train.clip",
                            tensor->name, (unsigned long long)job->step);
    }
    return 0;
}

//  The adapter for people and the state to go on from, each whole or not at all. In this order: where a state of the run is,
//  the adapter is of that run too.
static void
s_save (void *arg)
{
    tl_site_job_t *job = arg;
    int rc = s_check_adapter (job);
    if (rc == 0)
        rc = tl_save_adapter (tl_site_part (job->site), job->directory, job->step, &job->err);
    size_t size;
    void *state = tl_site_state_get (job->site, &size);
    if (rc == 0)
        rc = tl_save_write (job->directory, job->step, state, size, &job->err);
    free (state);
    snprintf (job->text, sizeof job->text, "%.500s", rc ? job->err.text : job->directory);
}

//  The save of that step, or the newest whole one before it, or the start: step is then of what it was, and text says it.
static void
s_restore (void *arg)
{
    tl_site_job_t *job = arg;
    uint64_t told = job->step;
    size_t size;
    void *state = told ? tl_save_read_newest (job->directory, &job->step, &size, &job->err) : NULL;
    if (job->directory)
        tl_save_forget_after (job->directory, told);
    if (job->err.code == TL_OK && !state) {
        tl_site_fresh (job->site, &job->err);
        snprintf (job->text, sizeof job->text, "a fresh adapter%s",
                  told ? ", for it has no save of its own" : ", as at the start");
        return;
    }
    int rc = state ? tl_site_state_set (job->site, state, size, &job->err) : -1;
    job->own_steps = tl_site_cursor (job->site);
    if (rc == 0)
        snprintf (job->text, sizeof job->text, "its own save of step %llu%s",
                  (unsigned long long)job->step, job->step == told ? "" : ", the newest it has");
    else
        snprintf (job->text, sizeof job->text, "%s", job->err.text);
    free (state);
}

void
tl_site_job_learn (void *arg)
{
    tl_site_job_t *job = arg;
    tl_site_learn (job->site, job->micro);
}

static void
s_check_scored (tl_site_job_t *job, double nll)
{
    if (!isfinite (nll))
        tl_fail (&job->err, TL_BAD_INPUT,
                 "the loss of the text that was scored is not finite, so it can't be told; lower "
                 "train.lr or look at that text");
}

void
tl_site_job_evaluate (void *arg)
{
    tl_site_job_t *job = arg;
    tl_site_evaluate (job->site, &job->nll, &job->labels);
    s_check_scored (job, job->nll);
}

void
tl_site_job_slice (void *arg)
{
    tl_site_job_t *job = arg;
    const tl_batch_t *batch;
    const float *rows;
    if (job->rewind)
        *job->first = 0;
    job->slice = tl_site_slice (job->site, job->first, &rows, &batch);
    if (job->slice)
        s_pack (job, rows, batch);
}

void
tl_site_job_score (void *arg)
{
    tl_site_job_t *job = arg;
    if (s_check_due (job, tl_slice_rows (job->slice)))
        return;
    float *hidden = tl_assembly_take (job->in, NULL);
    job->example_count = tl_slice_examples (job->slice, &job->example);
    job->labels = tl_slice_labels (job->slice);
    job->losses = tl_alloc (job->example_count * sizeof *job->losses);
    tl_site_score (job->site, job->slice, hidden, job->losses);
    job->slice = NULL;
    free (hidden);
    double nll = 0;
    for (size_t i = 0; i < job->example_count; i++)
        nll += job->losses[i];
    s_check_scored (job, nll);
}

void
tl_site_job_prompt (void *arg)
{
    tl_site_job_t *job = arg;
    const tl_batch_t *batch;
    const float *rows;
    job->slice =
        tl_site_prompt (job->site, job->ids, job->id_count, job->context, job->mask, &rows, &batch);
    s_pack (job, rows, batch);
}

void
tl_site_job_next (void *arg)
{
    tl_site_job_t *job = arg;
    if (s_check_due (job, tl_slice_rows (job->slice)))
        return;
    float *hidden = tl_assembly_take (job->in, NULL);
    job->logits = tl_alloc_aligned (tl_site_vocab (job->site) * sizeof (float));
    tl_site_next (job->site, job->slice, hidden, job->logits);
    job->slice = NULL;
    free (hidden);
}

void
tl_site_job_load (void *arg)
{
    tl_site_job_t *job = arg;
    if (job->directory)
        tl_part_load_adapter (tl_site_part (job->site), job->directory, &job->err);
    else
        tl_site_fresh (job->site, &job->err);
}

const tl_site_work_t tl_site_work = {
    .begin = s_begin,
    .front = s_front,
    .tail = s_tail,
    .back = s_back,
    .commit = s_commit,
    .update = s_update,
    .drop = s_drop,
    .save = s_save,
    .restore = s_restore,
};
