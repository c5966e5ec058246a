//  table: this variant's kernels, in the order of the table.

#include "kernels/loops.h"

#define TL_ENTRY(name) .name = TL_KERNEL (name),
const tl_loops_t TL_KERNEL (table) = {TL_EACH_KERNEL (TL_ENTRY)};
