/*  weights: what a part of a run says of the contents of its model: a sample of the whole checkpoint, on which
    all agree, and every byte of its own segments, on which all clients agree, or all workers. Hashing takes a
    while for a large model, so it is work for the compute thread; what it came to is kept beside the part's
    saves and stands as long as the model's files are the same ones.                                */

#ifndef TL_WEIGHTS_H
#define TL_WEIGHTS_H

#include "actors/agreement.h"
#include "model/model.h"

typedef struct {
    const tl_part_t *part; //  lent
    const char
        *directory; //  of the part's saves, lent; nothing is written there if it doesn't exist
    char sample[TL_MODEL_DIGEST], contents[TL_MODEL_DIGEST];
    double seconds; //  it took
    void *owner;    //  the actor, lent
    tl_error_t err; //  code TL_OK: it worked
} tl_weights_t;

//  A job for the compute thread: run, and drop. Nobody else uses the part meanwhile.
void tl_weights_read (void *weights);
void tl_weights_drop (void *weights);
//  Adds both to what is to be agreed on; worker: of the trunk, else of front and tail.
void tl_weights_bind (const tl_weights_t *self, tl_agreements_t *agreements, bool worker);

#endif
