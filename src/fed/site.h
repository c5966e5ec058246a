/*  site: the client's share of the arithmetic. Its text, the front, the tail, the labels and the loss;
    rows of hidden go out and come in as fp32. One thread uses it. No messages, no sockets.

    A step, per micro: front -> (rows out) ... (rows in) -> tail -> (gradient out) ... (gradient in) ->
    back; then commit, then update. Micros may overlap; each operation is called in micro order.     */

#ifndef TL_SITE_H
#define TL_SITE_H

#include "data/data.h"
#include "fed/update.h"
#include "topology/topology.h"

typedef struct tl_site tl_site_t;

//  What a client (index in the topology) learns from, or its held-out text. A sentence about it names the client and the key.
tl_dataset_t *tl_site_text (const tl_topology_t *topology, size_t client, bool held_out,
                            const tl_tokenizer_t *tokenizer, tl_error_t *err);
//  client: index in the topology. data: whether training text is needed (a reader needs none).
tl_site_t *tl_site_new (const tl_topology_t *topology, size_t client, bool data, tl_error_t *err);
void tl_site_destroy (tl_site_t **self_p);
size_t tl_site_hidden (const tl_site_t *self);
const char *tl_site_manifest (const tl_site_t *self);  //  hash of the model's manifest
const char *tl_site_tokenizer (const tl_site_t *self); //  hash of the tokenizer
size_t tl_site_rows (const tl_site_t *self);         //  most rows of one step or one scoring slice
bool tl_site_wants_gradient (const tl_site_t *self); //  the front trains: d(ACTIVATION) is needed
//  Memory for its own text, and the rows of its largest micro and longest sequence. Sets the memory of tapes aside.
//  -1 when train.memory_mb is too little.
int tl_site_plan (tl_site_t *self, tl_plan_t *plan, size_t *rows, size_t *longest, tl_error_t *err);
bool tl_site_scores (const tl_site_t *self); //  it has held-out text
tl_part_t *tl_site_part (tl_site_t *self);

//  --- a step. round addresses dropout; the data are those of the site's own cursor.
void tl_site_begin (tl_site_t *self, uint64_t round, size_t micros); //  drops whatever was open
//  Front of one micro: rows [batch->rows, hidden], valid until back or drop.
const float *tl_site_front (tl_site_t *self, size_t micro, const tl_batch_t **batch);
//  Tail and loss of one micro: hidden [rows, hidden] in, gradient [rows, hidden] out. Returns the label tokens.
uint64_t tl_site_tail (tl_site_t *self, size_t micro, const float *hidden, float *gradient);
void tl_site_back (tl_site_t *self, size_t micro, const float *gradient); //  front backward
//  In place of these three where the site has the whole model (split: none). Returns the label tokens.
uint64_t tl_site_learn (tl_site_t *self, size_t micro);
//  Rows that must come in for that micro's tail (back: for its back), 0 if that isn't due now.
size_t tl_site_due (const tl_site_t *self, size_t micro, bool back);
//  Fills err with what of the open step is no finite number, which counts from 1 as progress does, and what to do. Returns -1.
int tl_site_not_finite (const tl_site_t *self, const char *what, tl_error_t *err);
//  Ends accumulation. terms [tl_part_tensors] of the client's part; labels of all micros, and the summed loss.
//  -1 if the loss or a gradient is not a finite number.
int tl_site_commit (tl_site_t *self, tl_norm_term_t *terms, uint64_t *labels, double *nll,
                    tl_error_t *err);
//  labels and norm as the worker gave them; used when the norm is joint, else the site's own. Moves the cursor on.
int tl_site_update (tl_site_t *self, uint64_t labels, double norm, tl_error_t *err);
void tl_site_drop (tl_site_t *self); //  abandons the open step: no trace stays
//  After commit, where the gradient is to be that of all sites (federate.clients: sync): its own as a blob, the caller
//  frees; and the sum in its place, with the sum's terms [tl_part_tensors] for the joint norm. -1 if it doesn't fit.
void *tl_site_gradient (const tl_site_t *self, size_t *size);
int tl_site_sum_up (tl_site_t *self, const void *sum, size_t size, tl_norm_term_t *terms,
                    tl_error_t *err);
uint64_t tl_site_cursor (const tl_site_t *self); //  steps of its own data that are committed
double tl_site_rate (const tl_site_t *self);     //  learning rate of the last update

//  --- state: everything to go on bit for bit, cursor included. get: the caller frees.
void *tl_site_state_get (const tl_site_t *self, size_t *size);
int tl_site_state_set (tl_site_t *self, const void *state, size_t size, tl_error_t *err);
//  What is averaged over sites: the adapter and AdamW's state without the cursor, and the label tokens it learnt from since
//  the last take. take puts the average in its place; no step is open. get: the caller frees.
void *tl_site_share (const tl_site_t *self, size_t *size);
uint64_t tl_site_learnt (const tl_site_t *self);
int tl_site_take (tl_site_t *self, const void *share, size_t size, tl_error_t *err);
int tl_site_fresh (tl_site_t *self, tl_error_t *err); //  back to the start, from the seed

//  --- scoring held-out text, forward only. A slice is at most tl_site_rows rows.
typedef struct tl_slice tl_slice_t;
//  Next slice from example *first on (moved on); NULL at the end, or without held-out text. rows [batch->rows, hidden]
//  are valid until the next slice or prompt.
tl_slice_t *tl_site_slice (tl_site_t *self, size_t *first, const float **rows,
                           const tl_batch_t **batch);
//  The summed loss of each of the slice's examples: nll [tl_slice_examples]. Frees the slice.
void tl_site_score (tl_site_t *self, tl_slice_t *slice, const float *hidden, double *nll);
size_t tl_slice_rows (const tl_slice_t *self);                    //  that must come in
size_t tl_slice_examples (const tl_slice_t *self, size_t *first); //  how many, from which on
uint64_t tl_slice_labels (const tl_slice_t *self);                //  tokens they are measured on
void tl_slice_destroy (tl_slice_t **self_p);                      //  on any thread
//  The whole held-out text where the site has the whole model: summed loss and label tokens, 0 and 0 without such text.
void tl_site_evaluate (tl_site_t *self, double *nll, uint64_t *labels);
//  Replaces the held-out text; lend: by what the caller owns, and which outlives the site.
int tl_site_held_out (tl_site_t *self, const char *path, tl_error_t *err);
void tl_site_lend (tl_site_t *self, const tl_dataset_t *held_out);
size_t tl_site_examples (const tl_site_t *self); //  of the held-out text; 0 without

//  --- generation: the whole text so far goes through each time (the trunk keeps no cache of ours).
tl_slice_t *tl_site_prompt (tl_site_t *self, const int32_t *ids, size_t count, uint32_t context,
                            uint32_t mask, const float **rows, const tl_batch_t **batch);
//  Logits [vocab] of the last row; frees the slice.
void tl_site_next (tl_site_t *self, tl_slice_t *slice, const float *hidden, float *logits);
size_t tl_site_vocab (const tl_site_t *self);

#endif
