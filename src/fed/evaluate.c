#include "fed/evaluate.h"

void
tl_chain_evaluate (tl_chain_t *chain, const tl_dataset_t *data, double *nll, tl_done_fn *done,
                   void *arg)
{
    size_t first = 0, count;
    while ((count = tl_dataset_fit (data, first, TL_EVALUATE_ROWS)) > 0) {
        tl_micro_t *micro = tl_dataset_slice (data, first, count);
        tl_chain_score (chain, &micro->batch, nll + first);
        tl_micro_destroy (&micro);
        first += count;
        if (done)
            done (arg, first, tl_dataset_count (data));
    }
}
