#include "fed/evaluate.h"

void
tl_chain_evaluate (tl_chain_t *chain, const tl_dataset_t *data, double *nll, uint64_t *labels)
{
    size_t first = 0, count;
    *nll = 0;
    *labels = 0;
    while ((count = tl_dataset_fit (data, first, TL_EVALUATE_ROWS)) > 0) {
        tl_micro_t *micro = tl_dataset_slice (data, first, count);
        double slice = 0;
        uint64_t tokens = 0;
        tl_chain_score (chain, &micro->batch, &slice, &tokens);
        *nll += slice;
        *labels += tokens;
        first += count;
        tl_micro_destroy (&micro);
    }
}
