/*  attention: softmax (q k^T) v of one sequence, a tile of query rows and one head at a time. Scores
    exist for one tile only; backward makes them again from lse. Columns that no row of a tile may see
    are never computed. Threads are the BLAS's business.                                           */

#include "kernels/exp.h"
#include "kernels/product.h"
#include "kernels/sizes.h"

//  One tile of one head: where its parts are and how far it looks.
typedef struct {
    size_t first, rows;     //  query rows first .. first + rows - 1
    size_t columns;         //  visible to the tile's last row
    size_t q, k, v, o, lse; //  offsets of the tile in each tensor
} s_tile_t;

static s_tile_t
s_tile (const tl_attention_t *shape, size_t head, size_t first)
{
    size_t tile = tl_tile_rows (shape), kv = head / (shape->heads / shape->kv_heads);
    size_t rows = shape->rows - first < tile ? shape->rows - first : tile;
    return (s_tile_t){
        .first = first,
        .rows = rows,
        .columns = tl_visible (shape, first + rows - 1),
        .q = first * shape->q_stride + head * shape->q_head,
        .k = kv * shape->k_head,
        .v = kv * shape->v_head,
        .o = first * shape->o_stride + head * shape->d,
        .lse = head * shape->rows + first,
    };
}

static void
s_gemm (bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, double alpha,
        const real_t *a, size_t lda, const real_t *b, size_t ldb, double beta, real_t *c,
        size_t ldc)
{
    tl_side_t left = {a, TL_F32, lda, transpose_a}, right = {b, TL_F32, ldb, transpose_b};
    TL_KERNEL (product) (m, n, k, alpha, &left, &right, beta, c, ldc, NULL);
}

static void
s_check (const tl_attention_t *shape)
{
    tl_assert (shape->columns >= shape->rows && shape->kv_heads > 0 && shape->d > 0);
    tl_assert (shape->heads % shape->kv_heads == 0);
}

double
TL_KERNEL (softmax_row) (real_t *x, size_t count, real_t *maximum)
{
    real_t most = tl_maximum (x, count);
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) {
        real_t e = tl_exp (x[i] - most);
        x[i] = e;
        sum += e;
    }
    *maximum = most;
    return sum;
}

void
TL_KERNEL (attention_forward) (real_t *o, real_t *lse, const real_t *q, const real_t *k,
                               const real_t *v, const tl_attention_t *shape, real_t *scratch)
{
    s_check (shape);
    if (shape->rows <= TL_FEW_ROWS) {
        TL_KERNEL (attention_few_rows) (o, lse, q, k, v, shape, scratch);
        return;
    }
    size_t d = shape->d, tile = tl_tile_rows (shape);
    real_t *scores = scratch, *inverse = scratch + 2 * tile * shape->columns;
    for (size_t head = 0; head < shape->heads; head++)
        for (size_t first = 0; first < shape->rows; first += tile) {
            s_tile_t at = s_tile (shape, head, first);
            s_gemm (false, true, at.rows, at.columns, d, shape->scale, q + at.q, shape->q_stride,
                    k + at.k, shape->k_stride, 0, scores, at.columns);
            for (size_t row = 0; row < at.rows; row++) {
                real_t *line = scores + row * at.columns, most;
                size_t seen = tl_visible (shape, first + row);
                double sum = TL_KERNEL (softmax_row) (line, seen, &most);
                memset (line + seen, 0, (at.columns - seen) * sizeof *line);
                lse[at.lse + row] = (real_t)((double)most + log (sum));
                inverse[row] = (real_t)(1 / sum);
            }
            s_gemm (false, false, at.rows, d, at.columns, 1, scores, at.columns, v + at.v,
                    shape->v_stride, 0, o + at.o, shape->o_stride);
            //  Dividing d outputs is less work than dividing the row's probabilities.
            for (size_t row = 0; row < at.rows; row++) {
                real_t *restrict out = o + at.o + row * shape->o_stride;
#pragma omp simd
                for (size_t i = 0; i < d; i++)
                    out[i] *= inverse[row];
            }
        }
}

//  p = exp (scores - lse) and, from dp, the scores' gradients ds = p * (dp - sum (do * o)).
static void
s_rows_backward (real_t *p, real_t *dp, const real_t *lse, const real_t *inner,
                 const tl_attention_t *shape, const s_tile_t *at)
{
    for (size_t row = 0; row < at->rows; row++) {
        real_t *restrict line = p + row * at->columns, *restrict grad = dp + row * at->columns;
        size_t seen = tl_visible (shape, at->first + row);
        real_t base = lse[row], centre = inner[row];
#pragma omp simd
        for (size_t i = 0; i < seen; i++) {
            real_t e = tl_exp (line[i] - base);
            line[i] = e;
            grad[i] = e * (grad[i] - centre);
        }
        memset (line + seen, 0, (at->columns - seen) * sizeof *line);
        memset (grad + seen, 0, (at->columns - seen) * sizeof *grad);
    }
}

//  inner [row] = sum of do * o over the row of this head.
static void
s_inner (real_t *inner, const real_t *d_o, const real_t *o, const tl_attention_t *shape,
         const s_tile_t *at)
{
    for (size_t row = 0; row < at->rows; row++) {
        const real_t *up = d_o + at->o + row * shape->o_stride;
        const real_t *out = o + at->o + row * shape->o_stride;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < shape->d; i++)
            sum += up[i] * out[i];
        inner[row] = (real_t)sum;
    }
}

void
TL_KERNEL (attention_backward) (real_t *dq, real_t *dk, real_t *dv, const real_t *d_o,
                                const real_t *q, const real_t *k, const real_t *v, const real_t *o,
                                const real_t *lse, const tl_attention_t *shape, real_t *scratch)
{
    s_check (shape);
    size_t d = shape->d, tile = tl_tile_rows (shape);
    real_t *p = scratch, *dp = p + tile * shape->columns, *inner = dp + tile * shape->columns;
    for (size_t head = 0; head < shape->heads; head++)
        for (size_t first = 0; first < shape->rows; first += tile) {
            s_tile_t at = s_tile (shape, head, first);
            s_gemm (false, true, at.rows, at.columns, d, shape->scale, q + at.q, shape->q_stride,
                    k + at.k, shape->k_stride, 0, p, at.columns);
            s_gemm (false, true, at.rows, at.columns, d, 1, d_o + at.o, shape->o_stride, v + at.v,
                    shape->v_stride, 0, dp, at.columns);
            s_inner (inner, d_o, o, shape, &at);
            s_rows_backward (p, dp, lse + at.lse, inner, shape, &at);
            s_gemm (true, false, at.columns, d, at.rows, 1, p, at.columns, d_o + at.o,
                    shape->o_stride, 1, dv + at.v, shape->v_stride);
            s_gemm (false, false, at.rows, d, at.columns, shape->scale, dp, at.columns, k + at.k,
                    shape->k_stride, 1, dq + at.q, shape->q_stride);
            s_gemm (true, false, at.columns, d, at.rows, shape->scale, dp, at.columns, q + at.q,
                    shape->q_stride, 1, dk + at.k, shape->k_stride);
        }
}
