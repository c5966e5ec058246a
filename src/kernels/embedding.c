//  embedding: rows of a table by id, and their gradients added back.

#include "kernels/loops.h"

void
TL_KERNEL (embedding_forward) (real_t *out, const void *table, tl_dtype_t dtype, const int32_t *ids,
                               size_t n, size_t h)
{
    for (size_t row = 0; row < n; row++) {
        const void *from = tl_weight_at (table, dtype, (size_t)ids[row] * h);
        TL_KERNEL (widen) (out + row * h, from, dtype, h);
    }
}

void
TL_KERNEL (embedding_backward) (real_t *dtable, const real_t *dout, const int32_t *ids, size_t n,
                                size_t h)
{
    for (size_t row = 0; row < n; row++)
        TL_KERNEL (add) (dtable + (size_t)ids[row] * h, dout + row * h, 1, h);
}
