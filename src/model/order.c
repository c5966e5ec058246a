//  order: rows of q and k between a llama GGUF's order and Hugging Face's.

#include "order.h"

#include "assert.h"

#include <string.h>

bool
tl_is_reordered (const tl_config_t *config, const char *name)
{
    //  No directory of this family turns neighbours.
    if (config->family != TL_FAMILY_LLAMA || config->rope_style != TL_ROPE_INTERLEAVED)
        return false;
    static const char *const modules[] = {".q_proj.", ".k_proj."};
    for (size_t i = 0; i < 2; i++) {
        const char *found = strstr (name, modules[i]);
        if (!found)
            continue;
        const char *rest = found + strlen (modules[i]);
        return strcmp (rest, "weight") == 0 || strcmp (rest, "lora_B.weight") == 0;
    }
    return false;
}

void
tl_reorder_heads (size_t head_dim, tl_order_t direction, void *to, const void *from, size_t rows,
                  size_t row_size)
{
    tl_assert (head_dim > 0 && head_dim % 2 == 0 && rows % head_dim == 0);
    const size_t half = head_dim / 2;
    for (size_t row = 0; row < rows; row++) {
        //  row counts in Hugging Face's order.
        size_t head = row / head_dim * head_dim, s = row % head_dim / half, j = row % half;
        size_t file = head + 2 * j + s;
        size_t target = direction == TL_ORDER_TO_FILE ? file : row;
        size_t source = direction == TL_ORDER_TO_FILE ? row : file;
        memcpy ((char *)to + target * row_size, (const char *)from + source * row_size, row_size);
    }
}

void
tl_reorder (const tl_config_t *config, const char *name, tl_order_t direction, void *to,
            const void *from, size_t rows, size_t row_size)
{
    if (tl_is_reordered (config, name))
        tl_reorder_heads (config->head_dim, direction, to, from, rows, row_size);
    else
        memcpy (to, from, rows * row_size);
}
