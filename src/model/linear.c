/*  linear: a linear layer with its bias, its LoRA pair and its gradients, and a norm. Decides which
    kernels run for frozen, LoRA-tuned and fully tuned weights; computes nothing itself.

    LoRA: low = drop (x) A^T, y += scaling * low B^T. The mask of a sequence is drawn at (seed, step,
    sequence number, name of A) over its own rows, so that it doesn't depend on the micro around it;
    backward draws it again.                                                                          */

#include "model/segment.h"

#include "kernels/bf16.h"
#include "random.h"

#include <string.h>

//  keep [n, in] for all sequences of a micro: 0 or 1 / (1 - dropout).
static void
s_draw (const tl_linear_t *self, const tl_rows_t *rows, float *keep)
{
    for (size_t i = 0; i < rows->sequences; i++) {
        tl_stream_t stream = {self->seed, TL_DRAW_DROPOUT, rows->step, rows->number[i], self->name};
        size_t count = rows->length[i] * self->in;
        tl_random_keep (&stream, 0, count, (float)self->dropout, keep);
        keep += count;
    }
}

static bool
s_drops (const tl_linear_t *self, const tl_rows_t *rows)
{
    return rows->train && self->dropout > 0;
}

//  What LoRA's A reads: x itself, or x * keep in fresh workspace.
static const float *
s_dropped (const tl_linear_t *self, const tl_rows_t *rows, const float *x, const float *keep,
           tl_workspace_t *workspace)
{
    if (!keep)
        return x;
    size_t count = rows->rows * self->in;
    float *dropped = tl_workspace_take (workspace, count);
    tl_kernels ()->multiply (dropped, x, keep, count);
    return dropped;
}

//  Few rows only read the weights, which is no faster in bf16's own instructions.
static bool
s_reduced (const tl_linear_t *self, size_t n)
{
    enum { FEW = 8 };
    return self->reduced && n > FEW;
}

size_t
tl_linear_room (const tl_linear_t *self, size_t n)
{
    return s_reduced (self, n) ? tl_bf16_scratch (n, self->in, self->out) : 0;
}

void
tl_linear_forward (const tl_linear_t *self, const tl_rows_t *rows, float *y, const float *x,
                   double beta, float *low, tl_workspace_t *workspace)
{
    const tl_kernels_t *k = tl_kernels ();
    size_t n = rows->rows, mark = tl_workspace_mark (workspace);
    float *scratch = tl_workspace_take (workspace, tl_linear_room (self, n));
    if (s_reduced (self, n))
        tl_bf16_forward (y, x, self->weight, self->bias, n, self->in, self->out, 1, beta, scratch);
    else
        k->linear_forward (y, x, self->weight, self->dtype, self->bias, n, self->in, self->out, 1,
                           beta);
    tl_workspace_release (workspace, mark);
    if (self->rank == 0)
        return;
    float *keep = NULL;
    if (s_drops (self, rows)) {
        keep = tl_workspace_take (workspace, n * self->in);
        s_draw (self, rows, keep);
    }
    const float *dropped = s_dropped (self, rows, x, keep, workspace);
    k->linear_forward (low, dropped, self->a, TL_F32, NULL, n, self->in, self->rank, 1, 0);
    k->linear_forward (y, low, self->b, TL_F32, NULL, n, self->rank, self->out, self->scaling, 1);
    tl_workspace_release (workspace, mark);
}

static void
s_lora_backward (const tl_linear_t *self, const tl_rows_t *rows, float *dx, const float *dy,
                 const float *x, const float *low, tl_workspace_t *workspace)
{
    const tl_kernels_t *k = tl_kernels ();
    size_t n = rows->rows, mark = tl_workspace_mark (workspace);
    float *keep = NULL;
    if (s_drops (self, rows)) {
        keep = tl_workspace_take (workspace, n * self->in);
        s_draw (self, rows, keep);
    }
    const float *dropped = s_dropped (self, rows, x, keep, workspace);
    float *dlow = tl_workspace_take (workspace, n * self->rank);
    k->linear_backward_weight (self->b_gradient, NULL, dy, low, n, self->rank, self->out,
                               self->scaling);
    k->linear_backward_input (dlow, dy, self->b, TL_F32, n, self->rank, self->out, self->scaling,
                              0);
    k->linear_backward_weight (self->a_gradient, NULL, dlow, dropped, n, self->in, self->rank, 1);
    if (dx && !keep)
        k->linear_backward_input (dx, dlow, self->a, TL_F32, n, self->in, self->rank, 1, 1);
    else if (dx) {
        float *through = (float *)dropped; //  not needed any more, and ours when keep is
        k->linear_backward_input (through, dlow, self->a, TL_F32, n, self->in, self->rank, 1, 0);
        k->multiply (through, through, keep, n * self->in);
        k->add (dx, through, 1, n * self->in);
    }
    tl_workspace_release (workspace, mark);
}

void
tl_linear_backward (const tl_linear_t *self, const tl_rows_t *rows, float *dx, const float *dy,
                    const float *x, double beta, const float *low, tl_workspace_t *workspace)
{
    const tl_kernels_t *k = tl_kernels ();
    size_t n = rows->rows;
    if (self->weight_gradient || self->bias_gradient)
        k->linear_backward_weight (self->weight_gradient, self->bias_gradient, dy, x, n, self->in,
                                   self->out, 1);
    if (dx) {
        size_t mark = tl_workspace_mark (workspace);
        float *scratch = tl_workspace_take (workspace, tl_linear_room (self, n));
        if (s_reduced (self, n))
            tl_bf16_backward_input (dx, dy, self->weight, n, self->in, self->out, 1, beta, scratch);
        else
            k->linear_backward_input (dx, dy, self->weight, self->dtype, n, self->in, self->out, 1,
                                      beta);
        tl_workspace_release (workspace, mark);
    }
    if (self->rank > 0)
        s_lora_backward (self, rows, dx, dy, x, low, workspace);
}

void
tl_norm_forward (const tl_norm_t *self, float *y, float *mean, float *rstd, const float *x,
                 size_t n, size_t h, double eps)
{
    if (self->bias)
        tl_kernels ()->layernorm_forward (y, mean, rstd, x, self->weight, self->bias, n, h, eps);
    else
        tl_kernels ()->rmsnorm_forward (y, rstd, x, self->weight, n, h, eps);
}

void
tl_norm_backward (const tl_norm_t *self, float *dx, const float *dy, const float *x,
                  const float *mean, const float *rstd, size_t n, size_t h)
{
    if (self->bias)
        tl_kernels ()->layernorm_backward (dx, self->weight_gradient, self->bias_gradient, dy, x,
                                           self->weight, mean, rstd, n, h);
    else
        tl_kernels ()->rmsnorm_backward (dx, self->weight_gradient, dy, x, self->weight, rstd, n,
                                         h);
}
