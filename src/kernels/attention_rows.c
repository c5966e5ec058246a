//  attention_rows: attention forward for the few rows of decoding, where a product of one row would pack
//  all of k and v for a single use.

#include "kernels/loops.h"

void
TL_KERNEL (attention_few_rows) (real_t *o, real_t *lse, const real_t *q, const real_t *k,
                                const real_t *v, const tl_attention_t *shape, real_t *scratch)
{
    size_t d = shape->d;
    for (size_t head = 0; head < shape->heads; head++) {
        size_t kv = head / (shape->heads / shape->kv_heads);
        const real_t *keys = k + kv * shape->k_head, *values = v + kv * shape->v_head;
        for (size_t row = 0; row < shape->rows; row++) {
            const real_t *restrict query = q + row * shape->q_stride + head * shape->q_head;
            real_t *restrict out = o + row * shape->o_stride + head * d;
            size_t seen = tl_visible (shape, row);
            for (size_t column = 0; column < seen; column++) {
                const real_t *restrict key = keys + column * shape->k_stride;
                real_t sum = 0;
#pragma omp simd reduction(+ : sum)
                for (size_t i = 0; i < d; i++)
                    sum += query[i] * key[i];
                scratch[column] = sum * (real_t)shape->scale;
            }
            real_t most;
            double sum = TL_KERNEL (softmax_row) (scratch, seen, &most);
            memset (out, 0, d * sizeof *out);
            for (size_t column = 0; column < seen; column++) {
                const real_t *restrict value = values + column * shape->v_stride;
                real_t p = scratch[column];
#pragma omp simd
                for (size_t i = 0; i < d; i++)
                    out[i] += p * value[i];
            }
            real_t inverse = (real_t)(1 / sum);
#pragma omp simd
            for (size_t i = 0; i < d; i++)
                out[i] *= inverse;
            lse[head * shape->rows + row] = (real_t)((double)most + log (sum));
        }
    }
}
