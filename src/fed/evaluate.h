/*  evaluate: held-out loss of a dataset.

    A site that scores through a worker takes the same slices of at most TL_EVALUATE_ROWS rows, so that its
    sums are over the same GEMM calls. Few rows: they take turns with the rows of steps.           */

#ifndef TL_EVALUATE_H
#define TL_EVALUATE_H

#include "data/data.h"
#include "fed/parts.h"

enum { TL_EVALUATE_ROWS = 512 };

//  Sum of the negative log likelihood over all examples, and how many label tokens it is over.
void tl_chain_evaluate (tl_chain_t *chain, const tl_dataset_t *data, double *nll, uint64_t *labels);

#endif
