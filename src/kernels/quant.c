//  quant: GGUF's blocks to reals, with the same bits on every instruction set; unpack.h says why. Writes no blocks;
//  quantise.c does.

#include "kernels/loops.h"

#ifndef TL_IN_DOUBLE

//  Where the next sixteen values go.
typedef struct {
    float *out;
} s_sink_t;

#include "kernels/unpack.h"

static TL_INLINE void
s_take (s_sink_t *sink, size_t place, tl_sixteen_t values)
{
    for (size_t i = 0; i < TL_PARTS; i++)
        *(tl_loose_t *)(sink->out + i * TL_PART) = values.part[i];
    sink->out += 16;
}

void
TL_KERNEL (widen_blocks) (real_t *out, const void *in, tl_dtype_t dtype, size_t count)
{
    s_sink_t sink = {out};
    tl_unpack (&sink, in, dtype, count / tl_dtype_block (dtype));
}

#endif
