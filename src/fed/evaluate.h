/*  evaluate: held-out loss of a dataset, example by example.

    A site that scores through a worker takes the same slices of at most TL_EVALUATE_ROWS rows, so that its
    sums are over the same GEMM calls (but for examples that differ in their last token only, which are read once
    here). Few rows: they take turns with the rows of steps.                                      */

#ifndef TL_EVALUATE_H
#define TL_EVALUATE_H

#include "data/data.h"
#include "fed/parts.h"

enum { TL_EVALUATE_ROWS = 512 };

//  How far a long computation is.
typedef void (tl_done_fn) (void *arg, size_t done, size_t count);

//  Summed negative log likelihood of each example: nll [tl_dataset_count]. done (may be NULL) is called now and then.
void tl_chain_evaluate (tl_chain_t *chain, const tl_dataset_t *data, double *nll, tl_done_fn *done,
                        void *arg);

#endif
