/*  unison: a client's side of being made one with the others: its adapter for the average of a period, its
    gradient for the sum of a step, and what comes back in their place.

    GATHER is answered with PART; the average that MERGED brings is taken over and RESTORED is said. With
    federate.clients sync a step's gradient goes out before the step is committed (tl_unison_sum), and the
    sum that comes back is what the client commits. The arithmetic runs on the actor's compute thread. Knows
    nothing of sessions: when one is lost, the actor voids what was under way.                        */

#ifndef TL_UNISON_H
#define TL_UNISON_H

#include "actors/compute.h"
#include "actors/peer.h"
#include "fed/site.h"

typedef struct tl_unison tl_unison_t;

//  A step as it is to be committed: its own label tokens and loss, and the terms of the summed gradient.
typedef struct {
    uint64_t step, round, labels;
    double nll;
    const tl_norm_term_t *terms; //  [term_count], valid during the call
    size_t term_count;
} tl_summed_t;

//  All on the loop thread. What is lent here must outlive it, but the compute thread, which must end first.
typedef struct {
    tl_site_t *site; //  the compute thread's while jobs are pending
    tl_compute_t *compute;
    tl_peer_t *peer;
    void (*on_summed) (void *arg, const tl_summed_t *summed); //  of tl_unison_sum
    void (*on_taken) (void *arg, uint64_t step); //  the average of that step is the adapter now
    //  What came can't be used, or the step's own loss is no number.
    void (*on_failed) (void *arg, int code, const char *text);
    void *arg;
} tl_unison_config_t;

tl_unison_t *tl_unison_new (const tl_unison_config_t *config);
void tl_unison_destroy (tl_unison_t **self_p); //  after tl_compute_destroy

//  The step's last backward is submitted: its gradient goes to be summed. on_summed, or tl_unison_void, ends it.
void tl_unison_sum (tl_unison_t *self, uint64_t step, uint64_t round);
void tl_unison_on_gather (tl_unison_t *self, const tl_message_t *message);
//  A chunk of MERGED. Sums that nobody waits for are ignored.
void tl_unison_on_merged (tl_unison_t *self, const tl_message_t *message, const void *payload,
                          size_t size);
void tl_unison_void (tl_unison_t *self); //  no callback and no message comes of what is under way

#endif
