/*  parts: how a topology cuts a model into parts, and a model's segments joined again in one process.

    Client and worker make their parts here, `trunkline train` its chain, so that everybody's settings come
    from one place. A chain of a whole model, of front + trunk + tail, or of any other cut computes the
    same; it is what training in one place, evaluation and generation run on.                        */

#ifndef TL_PARTS_H
#define TL_PARTS_H

#include "error.h"
#include "model/model.h"
#include "fed/update.h"
#include "topology/topology.h"

//  Opens model.path; with model.dtype fp32 its frozen weights are expanded when parts are made. NULL and a sentence.
tl_model_t *tl_model_of (const tl_topology_t *topology, tl_error_t *err);

//  Refuses a split that leaves no block for the trunk. Names split.front and split.tail.
int tl_split_check (const tl_topology_t *topology, const tl_model_t *model, tl_error_t *err);

//  True if the clients' norms enter the trunk's clipping: one client, clients that train nothing, or clients that all
//  have one gradient (sync: then those of any one of them). Else everybody divides by its own label tokens and clips
//  by its own norm.
bool tl_norm_is_joint (const tl_topology_t *topology);

//  The clients' fronts train something: the gradient of what they send is needed.
bool tl_front_trains (const tl_topology_t *topology, const tl_model_t *model);
//  The client's part, or the worker's, trains something and so saves an adapter. The split fits the model.
bool tl_client_trains (const tl_topology_t *topology, const tl_model_t *model);
bool tl_worker_trains (const tl_topology_t *topology, const tl_model_t *model);

//  The learning rate's course over a run of so many steps.
tl_schedule_t tl_schedule_of (const tl_topology_t *topology, uint64_t steps);

//  The client's part {front, tail}, or everything with split: none, and the worker's {trunk}, frozen where tune.parts leaves them out.
//  The model must outlive the part. NULL and a sentence on failure.
tl_part_t *tl_part_of_client (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err);
tl_part_t *tl_part_of_worker (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err);

enum { TL_CHAIN_PARTS = 2, TL_CHAIN_SEGMENTS = 3 };

typedef struct {
    size_t hidden;                    //  columns of the rows between segments
    size_t vocab;                     //  columns of logits
    tl_part_t *parts[TL_CHAIN_PARTS]; //  owned
    size_t part_count;
    tl_segment_t *segments[TL_CHAIN_SEGMENTS]; //  in the model's order, of the parts
    size_t segment_count;
} tl_chain_t;

//  The whole model as one part, or as client's and worker's when only some parts train.
tl_chain_t *tl_chain_of (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err);
//  The whole model as client's part and worker's, whatever trains: what a run of several processes saves apart.
tl_chain_t *tl_chain_split (const tl_topology_t *topology, tl_model_t *model, tl_error_t *err);
//  The whole model as one frozen part; with adapter (a directory, or NULL) that adapter is in it.
tl_chain_t *tl_chain_plain (tl_model_t *model, const char *adapter, tl_error_t *err);
void tl_chain_destroy (tl_chain_t **self_p);

//  Forward and backward of one micro: adds to the gradients, sets the summed loss and its label tokens.
void tl_chain_learn (tl_chain_t *self, const tl_batch_t *batch, uint64_t step, double *nll,
                     uint64_t *labels);
//  Forward only: the summed loss of each sequence, nll [sequences].
void tl_chain_score (tl_chain_t *self, const tl_batch_t *batch, double *nll);
//  Forward only: logits [sequences, vocab] after the last row of each sequence.
void tl_chain_logits (tl_chain_t *self, const tl_batch_t *batch, float *logits);

//  The step's end over all parts: the norm of the mean-loss gradient, and with it one update of every
//  trained part with learning rate lr. -1 and the tensor's name when a gradient is not finite: nothing
//  is changed then.
int tl_chain_update (tl_chain_t *self, uint64_t labels, double clip, double lr, double *norm,
                     tl_error_t *err);

//  The part that trains, or NULL when none or several do.
tl_part_t *tl_chain_trained (const tl_chain_t *self);
int tl_chain_load_adapter (tl_chain_t *self, const char *directory, tl_error_t *err);

//  Sum of the parts' plans in one process.
void tl_chain_plan (const tl_chain_t *self, size_t rows, size_t longest, size_t sequences,
                    size_t labels, tl_plan_t *plan);

//  A part's squared norms appended to squares [*count ...], which has room for tl_part_tensors more.
//  Ends the part's accumulation.
void tl_part_squares (tl_part_t *self, tl_norm_term_t *squares, size_t *count);

#endif
