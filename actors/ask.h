/*  ask: a site's rows through the worker's trunk and back, forward only. Held-out text becomes its loss, a
    text so far becomes the logits of its next token. The client uses it at the end of a run, a reader always.

    One task at a time: tl_ask_score or tl_ask_next, until its callback or tl_ask_void. The arithmetic runs on
    the actor's compute thread, FORWARD goes out through its peer, and the actor hands in what comes back.
    Knows nothing of sessions and never asks twice: when a session is lost or the trunk went back, the actor
    voids the task and begins it anew.                                                              */

#ifndef TL_ASK_H
#define TL_ASK_H

#include "actors/compute.h"
#include "actors/peer.h"
#include "fed/site.h"

enum {
    TL_ASK_AT_ONCE = 4
}; //  slices of a task under way, so that both sides have something to compute

typedef struct tl_ask tl_ask_t;

//  All on the loop thread. What is lent here must outlive it, but the compute thread, which must end first.
typedef struct {
    const tl_topology_t *topology;
    tl_site_t *site; //  the compute thread's while jobs are pending
    tl_compute_t *compute;
    tl_peer_t *peer;
    //  The whole held-out text is scored: summed negative log likelihood of each example, nll [examples], and
    //  over how many label tokens they are; 0 and 0 without such text. nll is valid during the call.
    void (*on_scored) (void *arg, const double *nll, size_t examples, uint64_t labels);
    //  How far that is; may be NULL.
    void (*on_progress) (void *arg, size_t done, size_t examples);
    void (*on_logits) (void *arg, const float *logits); //  [vocab], valid during the call
    //  What came back can't be used, or memory of it: the task is over.
    void (*on_failed) (void *arg, int code, const char *text);
    void *arg;
} tl_ask_config_t;

tl_ask_t *tl_ask_new (const tl_ask_config_t *config);
void tl_ask_destroy (tl_ask_t **self_p); //  after tl_compute_destroy

void tl_ask_score (tl_ask_t *self); //  the site's held-out text, from its first example
//  Logits after the last of count ids, which are copied; context and mask as in tl_batch_t.
void tl_ask_next (tl_ask_t *self, const int32_t *ids, size_t count, uint32_t context,
                  uint32_t mask);
void
tl_ask_void (tl_ask_t *self); //  drops the task, if there is one; no callback comes of it any more
//  A FORWARDED, in order. Answers to what was voided are ignored.
void tl_ask_on_forwarded (tl_ask_t *self, const tl_message_t *message, const void *payload,
                          size_t size);

#endif
