/*  head: final norm, LM head and loss. Logits exist for a chunk of labelled rows at a time, never for
    all rows; the chunks depend on the number of labelled rows and the vocabulary alone, so every run
    makes the same calls.

    Loss and its gradient with respect to the normed rows come in one pass over the chunks; the final
    norm's backward waits for tl_segment_backward.                                                   */

#include "model/segment.h"

#include "assert.h"

#include <string.h>

enum {
    S_CHUNK_BYTES = 32 << 20, //  of logits
    S_CHUNK_LEAST = 16,       //  rows: below that the matrix product is slow
    S_CHUNK_MOST = 256
};

size_t
tl_head_chunk_most (const tl_config_t *config)
{
    size_t most = S_CHUNK_BYTES / sizeof (float) / config->vocab;
    return most < S_CHUNK_LEAST ? S_CHUNK_LEAST : most > S_CHUNK_MOST ? S_CHUNK_MOST : most;
}

size_t
tl_head_chunk (const tl_config_t *config, size_t count)
{
    size_t most = tl_head_chunk_most (config);
    size_t chunks = (count + most - 1) / most;
    return chunks ? (count + chunks - 1) / chunks : 0;
}

static void
s_gather (float *to, const float *from, const uint32_t *rows, size_t count, size_t h)
{
    for (size_t i = 0; i < count; i++)
        memcpy (to + i * h, from + (size_t)rows[i] * h, h * sizeof (float));
}

//  normed [count, h] of the given rows of the last block's output; stats [count].
static void
s_normed (tl_segment_t *self, const float *hidden, const uint32_t *rows, size_t count,
          float *normed, float *mean, float *rstd)
{
    size_t h = self->context.config->hidden, mark = tl_workspace_mark (self->context.workspace);
    float *gathered = tl_workspace_take (self->context.workspace, count * h);
    s_gather (gathered, hidden, rows, count, h);
    tl_norm_forward (&self->final, normed, mean, rstd, gathered, count, h,
                     self->context.config->norm_eps);
    tl_workspace_release (self->context.workspace, mark);
}

static void
s_head (tl_segment_t *self, const float *normed, size_t count, float *logits)
{
    tl_rows_t rows = {.rows = count};
    tl_linear_forward (&self->head, &rows, logits, normed, 0, NULL, self->context.workspace);
}

//  One chunk of labelled rows [first, first + count): their NLL; with train leaves the gradient of
//  the normed rows in the tape and adds to the head's own.
static void
s_chunk (tl_segment_t *self, tl_tape_t *tape, size_t first, size_t count, const float *normed,
         float *nll)
{
    const tl_config_t *config = self->context.config;
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace), h = config->hidden;
    float *logits = tl_workspace_take (workspace, count * config->vocab);
    int32_t *targets = (int32_t *)tl_workspace_take (workspace, count);
    for (size_t i = 0; i < count; i++)
        targets[i] = tape->labels[tape->labelled[first + i]];
    s_head (self, normed, count, logits);
    tl_kernels ()->cross_entropy (logits, nll, targets, count, config->vocab, tape->train);
    if (tape->train) {
        tl_rows_t rows = {.rows = count};
        tl_linear_backward (&self->head, &rows, tape->final_gradient + first * h, logits, normed, 0,
                            NULL, workspace);
    }
    tl_workspace_release (workspace, mark);
}

//  each [labelled rows] may be NULL.
static void
s_loss (tl_segment_t *self, tl_tape_t *tape, double *nll, float *each)
{
    tl_assert (self->range.head && tape->segment == self && tape->slab.data);
    const tl_config_t *config = self->context.config;
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace), h = config->hidden;
    size_t step = tl_head_chunk (config, tape->label_count);
    *nll = 0;
    for (size_t first = 0; first < tape->label_count; first += step) {
        size_t rest = tape->label_count - first, count = rest < step ? rest : step;
        float *normed = tl_workspace_take (workspace, count * h);
        float *mean = tape->train ? tape->final_mean + first : tl_workspace_take (workspace, count);
        float *rstd = tape->train ? tape->final_rstd + first : tl_workspace_take (workspace, count);
        s_normed (self, tape->hidden[tape->blocks], tape->labelled + first, count, normed, mean,
                  rstd);
        float *losses = each ? each + first : tl_workspace_take (workspace, count);
        s_chunk (self, tape, first, count, normed, losses);
        double sum = 0;
        for (size_t i = 0; i < count; i++)
            sum += losses[i];
        *nll += sum;
        tl_workspace_release (workspace, mark);
    }
    tape->has_loss = true;
}

void
tl_segment_loss (tl_segment_t *self, tl_tape_t *tape, double *nll, uint64_t *labels)
{
    s_loss (self, tape, nll, NULL);
    *labels = tape->label_count;
}

void
tl_segment_losses (tl_segment_t *self, tl_tape_t *tape, double *nll)
{
    size_t mark = tl_workspace_mark (self->context.workspace), at = 0, end = 0;
    float *each = tl_workspace_take (self->context.workspace, tape->label_count);
    double sum;
    s_loss (self, tape, &sum, each);
    for (size_t i = 0; i < tape->rows.sequences; i++) {
        end += tape->rows.length[i];
        nll[i] = 0;
        for (; at < tape->label_count && tape->labelled[at] < end; at++)
            nll[i] += each[at];
    }
    tl_workspace_release (self->context.workspace, mark);
}

void
tl_head_backward (tl_segment_t *self, tl_tape_t *tape, float *d)
{
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace), h = self->context.config->hidden;
    size_t step = tl_head_chunk (self->context.config, tape->label_count);
    memset (d, 0, tape->rows.rows * h * sizeof (float));
    for (size_t first = 0; first < tape->label_count; first += step) {
        size_t rest = tape->label_count - first, count = rest < step ? rest : step;
        float *x = tl_workspace_take (workspace, count * h);
        float *dx = tl_workspace_take (workspace, count * h);
        s_gather (x, tape->hidden[tape->blocks], tape->labelled + first, count, h);
        tl_norm_backward (&self->final, dx, tape->final_gradient + first * h, x,
                          tape->final_mean + first, tape->final_rstd + first, count, h);
        for (size_t i = 0; i < count; i++)
            memcpy (d + tape->labelled[first + i] * h, dx + i * h, h * sizeof (float));
        tl_workspace_release (workspace, mark);
    }
}

void
tl_segment_final (tl_segment_t *self, const tl_tape_t *tape, const uint32_t *rows, size_t count,
                  float *normed)
{
    tl_assert (self->range.head && tape->segment == self && tape->slab.data);
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace);
    float *mean = tl_workspace_take (workspace, count),
          *rstd = tl_workspace_take (workspace, count);
    s_normed (self, tape->hidden[tape->blocks], rows, count, normed, mean, rstd);
    tl_workspace_release (workspace, mark);
}

void
tl_tape_final_gradient (const tl_tape_t *self, float *gradient)
{
    tl_assert (self->train && self->has_loss && self->slab.data);
    size_t h = self->segment->context.config->hidden;
    memset (gradient, 0, self->rows.rows * h * sizeof (float));
    for (size_t i = 0; i < self->label_count; i++)
        memcpy (gradient + self->labelled[i] * h, self->final_gradient + i * h, h * sizeof (float));
}

void
tl_segment_logits (tl_segment_t *self, tl_tape_t *tape, const uint32_t *rows, size_t count,
                   float *logits)
{
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace);
    float *normed = tl_workspace_take (workspace, count * self->context.config->hidden);
    tl_segment_final (self, tape, rows, count, normed);
    s_head (self, normed, count, logits);
    tl_workspace_release (workspace, mark);
}

void
tl_segment_head (tl_segment_t *self, const float *rows, size_t count, float *logits)
{
    tl_assert (self->range.head);
    tl_workspace_t *workspace = self->context.workspace;
    size_t mark = tl_workspace_mark (workspace), h = self->context.config->hidden;
    float *normed = tl_workspace_take (workspace, count * h);
    float *mean = tl_workspace_take (workspace, count),
          *rstd = tl_workspace_take (workspace, count);
    tl_norm_forward (&self->final, normed, mean, rstd, rows, count, h,
                     self->context.config->norm_eps);
    s_head (self, normed, count, logits);
    tl_workspace_release (workspace, mark);
}
