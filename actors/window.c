#include "window.h"

#include "fed/evaluate.h"

tl_w_dtype_t
tl_wire_dtype (const tl_topology_t *topology)
{
    static const tl_w_dtype_t s_dtypes[] = {TL_W_F32, TL_W_BF16, TL_W_F16};
    return s_dtypes[topology->wire.dtype];
}

uint64_t
tl_window_bytes (const tl_topology_t *topology, size_t rows, size_t hidden)
{
    uint64_t tensor = (uint64_t)rows * hidden * tl_w_dtype_size (tl_wire_dtype (topology));
    return 3 * tensor + TL_CHUNK_MOST;
}

uint64_t
tl_window_held (const tl_topology_t *topology, size_t rows, size_t slices, size_t hidden)
{
    enum { FRAMES = 8 }; //  chunks between the link and the sockets
    uint64_t width = tl_w_dtype_size (tl_wire_dtype (topology));
    //  In fp32 what is computed from and what is computed; in the wire's dtype one tensor for each micro.
    uint64_t step = rows * hidden * (2 * sizeof (float) + topology->train.micros * width);
    uint64_t score = TL_EVALUATE_ROWS * hidden * (2 * sizeof (float) + slices * width);
    return (slices && score > step ? score : step) +
           FRAMES * tl_chunk_bytes (rows * hidden * width);
}

uint64_t
tl_window_messages (const tl_topology_t *topology, uint64_t bytes)
{
    //  Each tensor of each micro ends in a chunk of its own; plans, saves and the like are few.
    return bytes / TL_CHUNK_LEAST + 4 * topology->train.micros + 64;
}
