//  sizes: how much is worked on at a time, for the loops and for who sets their scratch aside.

#ifndef TL_KERNELS_SIZES_H
#define TL_KERNELS_SIZES_H

#include "kernels/kernels.h"
#include "kernels/pool.h"

enum {
    TL_FEW_ROWS = 4,        //  rows of decoding, which have loops of their own
    TL_ATTENTION_ROWS = 48, //  query rows whose scores exist at a time
    TL_ATTENTION_PAD =
        32, //  columns, and values of a head, are padded to at most a multiple of this
    TL_ATTENTION_HEADS = 16 //  key heads at work at once, at most
};

//  Key heads at work at once: each makes two pieces.
static inline size_t
tl_attention_heads_at_once (const tl_attention_t *shape)
{
    size_t threads = (size_t)tl_pool_threads ();
    size_t most = threads < TL_ATTENTION_HEADS ? threads : TL_ATTENTION_HEADS;
    return shape->kv_heads < most ? shape->kv_heads : most;
}

#endif
