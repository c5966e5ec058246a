/*  block: one transformer block, forward and backward, for every family: norm, attention, residual,
    norm, MLP, residual, parameterised by tl_shape_t. Linears, norms and the MLP run over all rows of
    a micro at once, attention sequence by sequence.

    Backward computes norm outputs and activations again where a trained weight needs them: they cost
    little beside the matrix products and would be a third of a tape. What a budget of memory leaves out of
    the tape besides (tl_drop_t) is made again by the very calls of forward, so its bits are the same.  */

#include "model/segment.h"

#include <math.h>
#include <string.h>

//  Where q, k and v of the first row lie, and how to walk over them.
static tl_attention_t
s_views (const tl_context_t *context, float *const qkv[3], float *views[3])
{
    const tl_config_t *config = context->config;
    size_t d = config->head_dim, q = config->heads * d, kv = config->kv_heads * d;
    tl_attention_t shape = {
        .heads = config->heads, .kv_heads = config->kv_heads, .d = d, .o_stride = q, .scale = 0};
    bool by_head = context->shape.qkv == TL_QKV_BY_HEAD, apart = context->shape.qkv == TL_QKV_APART;
    views[0] = qkv[0];
    views[1] = apart ? qkv[1] : qkv[0] + (by_head ? d : q);
    views[2] = apart ? qkv[2] : qkv[0] + (by_head ? 2 * d : q + kv);
    shape.q_stride = apart ? q : q + 2 * kv;
    shape.k_stride = shape.v_stride = apart ? kv : q + 2 * kv;
    shape.q_head = shape.k_head = shape.v_head = by_head ? 3 * d : d;
    return shape;
}

//  Turns q and k of all rows in place, forward (+1) or back (-1).
static void
s_rotate (const tl_context_t *context, const tl_rows_t *rows, float *const views[3],
          const tl_attention_t *shape, int direction)
{
    const tl_kernels_t *k = tl_kernels ();
    size_t parts = context->shape.rope_2d ? 2 : 1, turned = context->config->turned / parts;
    for (size_t part = 0; part < parts; part++) {
        k->rope (views[0], rows->cosine[part], rows->sine[part], rows->rows, shape->q_stride,
                 shape->heads, shape->q_head, part * turned, turned, context->shape.rope_style,
                 direction);
        k->rope (views[1], rows->cosine[part], rows->sine[part], rows->rows, shape->k_stride,
                 shape->kv_heads, shape->k_head, part * turned, turned, context->shape.rope_style,
                 direction);
    }
}

static double
s_scale (size_t d)
{
    return 1.0 / sqrt ((double)d);
}

//  One sequence's part of an attention call.
static void
s_sequence (tl_attention_t *shape, const tl_rows_t *rows, size_t index)
{
    shape->rows = shape->columns = rows->length[index];
    shape->context = rows->context[index] < shape->columns ? rows->context[index] : shape->columns;
    shape->scale = s_scale (shape->d);
}

static void
s_copy_rows (float *to, size_t to_stride, size_t to_head, const float *from, size_t from_stride,
             size_t from_head, const tl_attention_t *shape, size_t count)
{
    for (size_t row = 0; row < count; row++)
        for (size_t head = 0; head < shape->kv_heads; head++)
            memcpy (to + row * to_stride + head * to_head,
                    from + row * from_stride + head * from_head, shape->d * sizeof (float));
}

void
tl_block_join (const tl_block_t *self, float *k, float *v, const float *from_k, const float *from_v,
               const tl_attention_t *shape, size_t count)
{
    size_t d = shape->d, width = shape->kv_heads * d, prefix = self->prefix.rows;
    const float *values = self->prefix.values;
    s_copy_rows (k, width, d, values, 2 * width, d, shape, prefix);
    s_copy_rows (v, width, d, values + width, 2 * width, d, shape, prefix);
    s_copy_rows (k + prefix * width, width, d, from_k, shape->k_stride, shape->k_head, shape,
                 count);
    s_copy_rows (v + prefix * width, width, d, from_v, shape->v_stride, shape->v_head, shape,
                 count);
}

//  The shape of a call on keys and values that have prefix rows in front and lie in rows of their own.
static tl_attention_t
s_joined (const tl_attention_t *shape, size_t prefix)
{
    tl_attention_t joined = *shape;
    joined.columns += prefix;
    joined.context += prefix;
    joined.k_stride = joined.v_stride = shape->kv_heads * shape->d;
    joined.k_head = joined.v_head = shape->d;
    return joined;
}

//  One sequence behind a prefix: keys and values are copied behind it.
static void
s_attend_prefixed (const tl_block_t *self, tl_workspace_t *workspace, float *attended, float *lse,
                   const float *const qkv[3], const tl_attention_t *shape)
{
    tl_attention_t joined = s_joined (shape, self->prefix.rows);
    size_t size = joined.columns * joined.k_stride, mark = tl_workspace_mark (workspace);
    float *k = tl_workspace_take (workspace, size), *v = tl_workspace_take (workspace, size);
    tl_block_join (self, k, v, qkv[1], qkv[2], shape, shape->rows);
    float *scratch = tl_workspace_take (workspace, tl_attention_scratch (&joined, false));
    tl_kernels ()->attention_forward (attended, lse, qkv[0], k, v, &joined, scratch);
    tl_workspace_release (workspace, mark);
}

static void
s_attend (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
          const tl_kept_t *kept, float *const views[3], tl_attention_t shape)
{
    size_t offset = 0;
    for (size_t i = 0; i < rows->sequences; i++) {
        s_sequence (&shape, rows, i);
        const float *const qkv[3] = {views[0] + offset * shape.q_stride,
                                     views[1] + offset * shape.k_stride,
                                     views[2] + offset * shape.v_stride};
        float *attended = kept->attended + offset * shape.o_stride;
        float *lse = kept->lse + offset * shape.heads;
        size_t mark = tl_workspace_mark (context->workspace);
        if (self->prefix.rows)
            s_attend_prefixed (self, context->workspace, attended, lse, qkv, &shape);
        else {
            float *scratch =
                tl_workspace_take (context->workspace, tl_attention_scratch (&shape, false));
            tl_kernels ()->attention_forward (attended, lse, qkv[0], qkv[1], qkv[2], &shape,
                                              scratch);
        }
        tl_workspace_release (context->workspace, mark);
        offset += shape.rows;
    }
}

//  Appends each sequence's new keys and values to its cache and attends to all of that.
static void
s_attend_cached (const tl_context_t *context, const tl_rows_t *rows, const tl_kept_t *kept,
                 float *const views[3], tl_attention_t shape, const tl_kv_t *kv)
{
    size_t width = shape.kv_heads * shape.d, offset = 0;
    for (size_t i = 0; i < rows->sequences; i++, kv++) {
        const float *k = views[1] + offset * shape.k_stride;
        const float *v = views[2] + offset * shape.v_stride;
        size_t at = (kv->prefix + kv->cached) * width, count = rows->length[i];
        s_copy_rows (kv->k + at, width, shape.d, k, shape.k_stride, shape.k_head, &shape, count);
        s_copy_rows (kv->v + at, width, shape.d, v, shape.v_stride, shape.v_head, &shape, count);
        s_sequence (&shape, rows, i);
        shape.columns = kv->cached + count;
        shape.context = rows->context[i] < shape.columns ? rows->context[i] : shape.columns;
        tl_attention_t cached = s_joined (&shape, kv->prefix);
        size_t mark = tl_workspace_mark (context->workspace);
        float *scratch =
            tl_workspace_take (context->workspace, tl_attention_scratch (&cached, false));
        tl_kernels ()->attention_forward (
            kept->attended + offset * shape.o_stride, kept->lse + offset * shape.heads,
            views[0] + offset * shape.q_stride, kv->k, kv->v, &cached, scratch);
        tl_workspace_release (context->workspace, mark);
        offset += rows->length[i];
    }
}

//  The residual stream enters a sum: y = x or alpha * normed, to which the layer's output is added by
//  the linear's beta.
static double
s_residual (const tl_context_t *context, float *y, const float *x, const float *normed,
            size_t count)
{
    memcpy (y, context->shape.residual_normed ? normed : x, count * sizeof (float));
    return context->shape.alpha;
}

//  q, k and v of the normalised rows, turned.
static void
s_project (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
           const tl_kept_t *kept, const float *normed)
{
    for (size_t i = TL_Q; i <= TL_V; i++)
        if (self->linear[i].out)
            tl_linear_forward (&self->linear[i], rows, kept->qkv[i], normed, 0, kept->low[i],
                               context->workspace);
    float *views[3];
    tl_attention_t shape = s_views (context, kept->qkv, views);
    s_rotate (context, rows, views, &shape, +1);
}

//  What the rows see, from q, k and v.
static void
s_look (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
        const tl_kept_t *kept, const tl_kv_t *kv)
{
    float *views[3];
    tl_attention_t shape = s_views (context, kept->qkv, views);
    if (kv)
        s_attend_cached (context, rows, kept, views, shape, kv);
    else
        s_attend (self, context, rows, kept, views, shape);
}

//  The rows between attention and MLP.
static void
s_combine (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
           const tl_kept_t *kept, const float *x, const float *normed)
{
    double beta =
        s_residual (context, kept->middle, x, normed, rows->rows * context->config->hidden);
    tl_linear_forward (&self->linear[TL_OUT], rows, kept->middle, kept->attended, beta,
                       kept->low[TL_OUT], context->workspace);
}

static float *
s_normed (const tl_context_t *context, const tl_norm_t *norm, float *mean, float *rstd,
          const float *x, size_t n)
{
    size_t h = context->config->hidden;
    float *normed = tl_workspace_take (context->workspace, n * h);
    tl_norm_forward (norm, normed, mean, rstd, x, n, h, context->config->norm_eps);
    return normed;
}

static void
s_attention_forward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                     tl_kept_t *kept, const float *x, const tl_kv_t *kv)
{
    size_t mark = tl_workspace_mark (context->workspace);
    float *normed = s_normed (context, &self->norm1, kept->mean1, kept->rstd1, x, rows->rows);
    s_project (self, context, rows, kept, normed);
    s_look (self, context, rows, kept, kv);
    s_combine (self, context, rows, kept, x, normed);
    tl_workspace_release (context->workspace, mark);
}

static void
s_activate (const tl_context_t *context, float *y, const tl_kept_t *kept, size_t n)
{
    size_t f = context->config->inner;
    if (context->shape.gate_up)
        tl_kernels ()->swiglu_forward (y, kept->up, kept->up + f, n, f, 2 * f);
    else if (context->shape.gated)
        tl_kernels ()->swiglu_forward (y, kept->gate, kept->up, n, f, f);
    else
        tl_kernels ()->gelu_forward (y, kept->up, n * f);
}

//  The MLP's rows before the activation.
static void
s_expand (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
          const tl_kept_t *kept, const float *normed)
{
    if (self->linear[TL_GATE].out)
        tl_linear_forward (&self->linear[TL_GATE], rows, kept->gate, normed, 0, kept->low[TL_GATE],
                           context->workspace);
    tl_linear_forward (&self->linear[TL_UP], rows, kept->up, normed, 0, kept->low[TL_UP],
                       context->workspace);
}

static void
s_mlp_forward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
               tl_kept_t *kept, float *y)
{
    tl_workspace_t *workspace = context->workspace;
    size_t n = rows->rows, mark = tl_workspace_mark (workspace);
    float *normed = s_normed (context, &self->norm2, kept->mean2, kept->rstd2, kept->middle, n);
    s_expand (self, context, rows, kept, normed);
    double beta = s_residual (context, y, kept->middle, normed, n * context->config->hidden);
    float *active = tl_workspace_take (workspace, n * context->config->inner);
    s_activate (context, active, kept, n);
    tl_linear_forward (&self->linear[TL_DOWN], rows, y, active, beta, kept->low[TL_DOWN],
                       workspace);
    tl_workspace_release (workspace, mark);
}

void
tl_block_forward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                  tl_kept_t *kept, float *y, const float *x, const tl_kv_t *kv)
{
    s_attention_forward (self, context, rows, kept, x, kv);
    s_mlp_forward (self, context, rows, kept, y);
}

void
tl_block_again (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                const tl_kept_t *kept, const float *x)
{
    tl_workspace_t *workspace = context->workspace;
    size_t n = rows->rows, mark = tl_workspace_mark (workspace);
    bool combine = self->dropped & TL_DROP_MIDDLE;
    const float *normed = NULL;
    if (self->dropped & TL_DROP_QKV || (combine && context->shape.residual_normed))
        normed = s_normed (context, &self->norm1, kept->mean1, kept->rstd1, x, n);
    if (self->dropped & TL_DROP_QKV)
        s_project (self, context, rows, kept, normed);
    if (self->dropped & TL_DROP_ATTENDED)
        s_look (self, context, rows, kept, NULL);
    if (combine)
        s_combine (self, context, rows, kept, x, normed);
    tl_workspace_release (workspace, mark);
    if (self->dropped & TL_DROP_MLP)
        s_expand (self, context, rows, kept,
                  s_normed (context, &self->norm2, kept->mean2, kept->rstd2, kept->middle, n));
    tl_workspace_release (workspace, mark);
}

//  Gradient of a residual sum's other branch comes back as dnormed; d becomes the gradient of x.
//  With residual_normed dnormed already holds alpha * d as well.
static void
s_norm_back (const tl_context_t *context, const tl_norm_t *norm, float *d, const float *dnormed,
             const float *x, const float *mean, const float *rstd, size_t n)
{
    tl_workspace_t *workspace = context->workspace;
    size_t h = context->config->hidden, mark = tl_workspace_mark (workspace);
    if (context->shape.residual_normed) {
        tl_norm_backward (norm, d, dnormed, x, mean, rstd, n, h);
        return;
    }
    float *dx = tl_workspace_take (workspace, n * h);
    tl_norm_backward (norm, dx, dnormed, x, mean, rstd, n, h);
    tl_kernels ()->add (d, dx, 1, n * h);
    tl_workspace_release (workspace, mark);
}

//  Starts the gradient of a norm's output: what the residual sends there (its factor is returned as the
//  beta of the first linear that adds to it).
static double
s_dnormed (const tl_context_t *context, float *dnormed, const float *d, size_t count)
{
    if (!context->shape.residual_normed)
        return 0;
    memcpy (dnormed, d, count * sizeof (float));
    return context->shape.alpha;
}

//  The norm's output again, for weights that are trained; NULL when none of these is.
static const float *
s_normed_again (const tl_block_t *self, const tl_context_t *context, const tl_norm_t *norm,
                size_t first, size_t last, const float *x, size_t n)
{
    bool trains = false;
    for (size_t i = first; i <= last; i++)
        trains = trains || tl_linear_trains (&self->linear[i]);
    if (!trains)
        return NULL;
    tl_workspace_t *workspace = context->workspace;
    size_t h = context->config->hidden;
    float *normed = tl_workspace_take (workspace, n * h);
    float *mean = tl_workspace_take (workspace, n), *rstd = tl_workspace_take (workspace, n);
    tl_norm_forward (norm, normed, mean, rstd, x, n, h, context->config->norm_eps);
    return normed;
}

static void
s_mlp_backward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                const tl_kept_t *kept, float *d)
{
    tl_workspace_t *workspace = context->workspace;
    const tl_linear_t *down = &self->linear[TL_DOWN];
    size_t n = rows->rows, h = context->config->hidden, f = context->config->inner;
    size_t mark = tl_workspace_mark (workspace);
    float *dnormed = tl_workspace_take (workspace, n * h);
    float *dup = tl_workspace_take (workspace, n * self->linear[TL_UP].out);
    bool apart = self->linear[TL_GATE].out > 0;
    float *dgate = apart ? tl_workspace_take (workspace, n * f) : NULL;
    size_t inner = tl_workspace_mark (workspace);
    float *dactive = tl_workspace_take (workspace, n * f);
    float *active = NULL;
    if (tl_linear_trains (down)) {
        active = tl_workspace_take (workspace, n * f);
        s_activate (context, active, kept, n);
    }
    tl_linear_backward (down, rows, dactive, d, active, 0, kept->low[TL_DOWN], workspace);
    if (context->shape.gate_up)
        tl_kernels ()->swiglu_backward (dup, dup + f, dactive, kept->up, kept->up + f, n, f, 2 * f);
    else if (context->shape.gated)
        tl_kernels ()->swiglu_backward (dgate, dup, dactive, kept->gate, kept->up, n, f, f);
    else
        tl_kernels ()->gelu_backward (dup, dactive, kept->up, n * f);
    tl_workspace_release (workspace, inner);

    const float *normed =
        s_normed_again (self, context, &self->norm2, TL_GATE, TL_UP, kept->middle, n);
    double beta = s_dnormed (context, dnormed, d, n * h);
    if (apart) {
        tl_linear_backward (&self->linear[TL_GATE], rows, dnormed, dgate, normed, beta,
                            kept->low[TL_GATE], workspace);
        beta = 1;
    }
    tl_linear_backward (&self->linear[TL_UP], rows, dnormed, dup, normed, beta, kept->low[TL_UP],
                        workspace);
    s_norm_back (context, &self->norm2, d, dnormed, kept->middle, kept->mean2, kept->rstd2, n);
    tl_workspace_release (workspace, mark);
}

//  The gradients of joined keys or values go to the prefix and to the rows.
static void
s_part (float *gradient, size_t prefix, float *rows, size_t stride, size_t head_stride,
        const float *joined, const tl_attention_t *shape)
{
    size_t width = shape->kv_heads * shape->d;
    for (size_t row = 0; row < prefix; row++)
        tl_kernels ()->add (gradient + row * 2 * width, joined + row * width, 1, width);
    s_copy_rows (rows, stride, head_stride, joined + prefix * width, width, shape->d, shape,
                 shape->rows);
}

static void
s_attend_prefixed_backward (const tl_block_t *self, tl_workspace_t *workspace, float *const dqkv[3],
                            const float *dattended, const float *const qkv[3],
                            const float *attended, const float *lse, const tl_attention_t *shape)
{
    size_t prefix = self->prefix.rows, mark = tl_workspace_mark (workspace);
    tl_attention_t joined = s_joined (shape, prefix);
    size_t width = joined.k_stride, size = joined.columns * width;
    float *k = tl_workspace_take (workspace, size), *v = tl_workspace_take (workspace, size);
    float *dk = tl_workspace_take (workspace, size), *dv = tl_workspace_take (workspace, size);
    memset (dk, 0, size * sizeof *dk);
    memset (dv, 0, size * sizeof *dv);
    tl_block_join (self, k, v, qkv[1], qkv[2], shape, shape->rows);
    float *scratch = tl_workspace_take (workspace, tl_attention_scratch (&joined, true));
    tl_kernels ()->attention_backward (dqkv[0], dk, dv, dattended, qkv[0], k, v, attended, lse,
                                       &joined, scratch);
    s_part (self->prefix.gradient, prefix, dqkv[1], shape->k_stride, shape->k_head, dk, shape);
    s_part (self->prefix.gradient + width, prefix, dqkv[2], shape->v_stride, shape->v_head, dv,
            shape);
    tl_workspace_release (workspace, mark);
}

//  From the gradient of the attended rows to that of q, k and v before rotary.
static void
s_attend_backward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                   const tl_kept_t *kept, float *const d_qkv[3], const float *dattended)
{
    float *views[3], *dviews[3];
    tl_attention_t shape = s_views (context, kept->qkv, views);
    s_views (context, d_qkv, dviews);
    size_t offset = 0;
    for (size_t i = 0; i < rows->sequences; i++) {
        s_sequence (&shape, rows, i);
        size_t q = offset * shape.q_stride, k = offset * shape.k_stride;
        size_t v = offset * shape.v_stride, o = offset * shape.o_stride;
        const float *const qkv[3] = {views[0] + q, views[1] + k, views[2] + v};
        float *const dqkv[3] = {dviews[0] + q, dviews[1] + k, dviews[2] + v};
        const float *attended = kept->attended + o, *lse = kept->lse + offset * shape.heads;
        size_t mark = tl_workspace_mark (context->workspace);
        if (self->prefix.rows)
            s_attend_prefixed_backward (self, context->workspace, dqkv, dattended + o, qkv,
                                        attended, lse, &shape);
        else {
            float *scratch =
                tl_workspace_take (context->workspace, tl_attention_scratch (&shape, true));
            tl_kernels ()->attention_backward (dqkv[0], dqkv[1], dqkv[2], dattended + o, qkv[0],
                                               qkv[1], qkv[2], attended, lse, &shape, scratch);
        }
        tl_workspace_release (context->workspace, mark);
        offset += shape.rows;
    }
    s_rotate (context, rows, dviews, &shape, -1);
}

static void
s_attention_backward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                      const tl_kept_t *kept, float *d, const float *x, bool need_input)
{
    tl_workspace_t *workspace = context->workspace;
    size_t n = rows->rows, h = context->config->hidden, mark = tl_workspace_mark (workspace);
    bool need_normed = need_input || self->norm1.weight_gradient || self->norm1.bias_gradient;
    float *dnormed = need_normed ? tl_workspace_take (workspace, n * h) : NULL;
    float *dqkv[3] = {NULL, NULL, NULL};
    for (size_t i = TL_Q; i <= TL_V; i++)
        if (self->linear[i].out) {
            dqkv[i] = tl_workspace_take (workspace, n * self->linear[i].out);
            memset (dqkv[i], 0, n * self->linear[i].out * sizeof (float));
        }
    size_t inner = tl_workspace_mark (workspace);
    float *dattended = tl_workspace_take (workspace, n * self->linear[TL_OUT].in);
    tl_linear_backward (&self->linear[TL_OUT], rows, dattended, d, kept->attended, 0,
                        kept->low[TL_OUT], workspace);
    s_attend_backward (self, context, rows, kept, dqkv, dattended);
    tl_workspace_release (workspace, inner);

    const float *normed = s_normed_again (self, context, &self->norm1, TL_Q, TL_V, x, n);
    double beta = need_normed ? s_dnormed (context, dnormed, d, n * h) : 0;
    for (size_t i = TL_Q; i <= TL_V; i++)
        if (self->linear[i].out) {
            tl_linear_backward (&self->linear[i], rows, dnormed, dqkv[i], normed, beta,
                                kept->low[i], workspace);
            beta = 1;
        }
    if (need_normed)
        s_norm_back (context, &self->norm1, d, dnormed, x, kept->mean1, kept->rstd1, n);
    tl_workspace_release (workspace, mark);
}

void
tl_block_backward (const tl_block_t *self, const tl_context_t *context, const tl_rows_t *rows,
                   const tl_kept_t *kept, float *d, const float *x, bool need_input)
{
    s_mlp_backward (self, context, rows, kept, d);
    s_attention_backward (self, context, rows, kept, d, x, need_input);
}
