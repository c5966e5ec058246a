//  client_step: the open step of a client, from PLAN to COMMITTED: front, tail and front backward as rows come in, then its
//  commit, or with summed gradients the sum before it, and the update.

#include "actors/client_internal.h"
#include "actors/events.h"
#include "actors/window.h"
#include "clock.h"
#include "fed/parts.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>

//  --- a step -----------------------------------------------------------------------------------

void
tl_client_forget_step (tl_client_t *self)
{
    for (size_t i = 0; i < self->micros; i++) {
        tl_assembly_destroy (&self->hidden_in[i]);
        tl_assembly_destroy (&self->gradient_in[i]);
    }
    free (self->hidden_in);
    free (self->gradient_in);
    self->hidden_in = self->gradient_in = NULL;
    self->micros = 0;
    self->open = false;
}

//  Whatever was under way is void: results of older jobs are dropped, the site forgets the open step.
void
tl_client_void (tl_client_t *self, const char *why)
{
    if (self->open)
        tl_info ("step %llu is dropped: %s", (unsigned long long)self->step + 1, why);
    tl_client_forget_step (self);
    self->epoch++;
    if (self->ask)
        tl_ask_void (self->ask);
    tl_unison_void (self->unison);
    tl_client_submit (self, self->work->drop, tl_client_job (self, NULL));
}

static void
s_on_front (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    tl_message_t message;
    tl_message_init (&message, TL_ACTIVATION);
    message.step = job->step;
    message.round = job->round;
    message.micro = job->micro;
    message.body.activation.sequences = job->sequences;
    message.body.activation.sequences_count = job->sequence_count;
    tl_peer_send_tensor (self->peer, &message, job->out);
    job->out = NULL;
}

static void s_commit_when_done (tl_client_t *self);

//  split: none: a micro of the whole model, from text to gradients.
static void
s_on_learnt (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    self->tails++;
    s_commit_when_done (self);
}

void
tl_client_on_plan (tl_client_t *self, const tl_message_t *message)
{
    if (self->open)
        tl_client_void (self, "a new plan came");
    tl_client_forget_step (self);
    if (message->body.plan.micros != self->topology->train.micros) {
        tl_client_end (
            self, TL_CONNECTION,
            "PLAN has other micros than train.micros; run the same trunkline at the broker");
        return;
    }
    self->step = message->step;
    self->round = message->round;
    self->micros = self->topology->train.micros;
    self->tails = self->backs = 0;
    self->open = true;
    self->hidden_in = tl_alloc (self->micros * sizeof *self->hidden_in);
    self->gradient_in = tl_alloc (self->micros * sizeof *self->gradient_in);
    self->step_began = tl_clock_us ();
    if (!self->bytes_before)
        self->bytes_before = tl_peer_bytes (self->peer);
    tl_client_go (self, TL_CLIENT_FORWARD, "PLAN");
    tl_client_submit (self, self->work->begin, tl_client_job (self, NULL));
    for (size_t i = 0; i < self->micros; i++) {
        bool whole = self->topology->split.none;
        tl_site_job_t *job = tl_client_job (self, whole ? s_on_learnt : s_on_front);
        job->micro = i;
        tl_client_submit (self, whole ? tl_site_job_learn : self->work->front, job);
    }
}

//  The gradient that the step will be updated with: its own, or that of all clients.
void
tl_client_on_summed (void *arg, const tl_summed_t *summed)
{
    tl_client_t *self = arg;
    tl_square_t *squares = tl_alloc ((summed->term_count + 1) * sizeof *squares);
    for (size_t i = 0; i < summed->term_count; i++)
        squares[i] = (tl_square_t){summed->terms[i].order, summed->terms[i].square};
    self->nll = summed->nll;
    self->labels = summed->labels;
    tl_message_t message;
    tl_message_init (&message, TL_COMMIT);
    message.step = summed->step;
    message.round = summed->round;
    message.body.commit.labels = summed->labels;
    message.body.commit.squares = squares;
    //  Squares of a personal adapter are nobody's business: they enter only a joint norm.
    message.body.commit.squares_count = tl_norm_is_joint (self->topology) ? summed->term_count : 0;
    tl_peer_send (self->peer, &message);
    free (squares);
    tl_client_go (self, TL_CLIENT_COMMITTING, "last backward");
}

static void
s_on_committed_own (tl_site_job_t *job)
{
    tl_client_on_summed (job->owner, &(tl_summed_t){.step = job->step,
                                                    .round = job->round,
                                                    .labels = job->labels,
                                                    .nll = job->nll,
                                                    .terms = job->terms,
                                                    .term_count = job->term_count});
}

static void
s_commit_when_done (tl_client_t *self)
{
    size_t done = self->wants_gradient ? self->backs : self->tails;
    if (done != self->micros)
        return;
    if (self->topology->federate.clients == TL_CLIENTS_SYNC)
        tl_unison_sum (self->unison, self->step, self->round);
    else
        tl_client_submit (self, self->work->commit, tl_client_job (self, s_on_committed_own));
}

static void
s_on_tail (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    tl_message_t message;
    tl_message_init (&message, TL_GRADIENT);
    message.step = job->step;
    message.round = job->round;
    message.micro = job->micro;
    message.body.gradient.labels = job->labels;
    tl_peer_send_tensor (self->peer, &message, job->out);
    job->out = NULL;
    self->tails++;
    s_commit_when_done (self);
}

static void
s_on_back (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    self->backs++;
    s_commit_when_done (self);
}

//  A chunk of HIDDEN or GRAD_IN: when the tensor is whole, its job. The worker answers micros in order.
void
tl_client_on_rows (tl_client_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    bool hidden = message->type == TL_HIDDEN;
    if (!self->open || message->step != self->step || message->micro >= self->micros ||
        (!hidden && !self->wants_gradient))
        return;
    tl_assembly_t **slot =
        hidden ? &self->hidden_in[message->micro] : &self->gradient_in[message->micro];
    const tl_tensor_wire_t *descriptor = tl_message_tensor (message);
    tl_error_t err = {0};
    if (!*slot)
        *slot = tl_assembly_new (descriptor, self->hidden, self->topology->wire.max_message, &err);
    int rc = *slot ? tl_assembly_add (*slot, descriptor, payload, size, &err) : -1;
    if (rc < 0) {
        tl_fail_in (&err, "%s of step %llu", tl_type_name (message->type),
                    (unsigned long long)message->step + 1);
        tl_client_end (self, TL_CONNECTION, err.text);
    } else if (rc == 1) {
        tl_site_job_t *job = tl_client_job (self, hidden ? s_on_tail : s_on_back);
        job->micro = message->micro;
        job->in = *slot;
        *slot = NULL;
        tl_client_submit (self, hidden ? self->work->tail : self->work->back, job);
    }
}

static void
s_on_update (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    double seconds = (double)(tl_clock_us () - job->began) * 1e-6;
    self->totals.steps++;
    self->totals.labels += job->own_labels;
    self->totals.bytes += job->bytes;
    tl_event ("step", "{sssIsIsIsfsIsfsfsfsI}", "name", self->name, "step", (json_int_t)job->step,
              "round", (json_int_t)job->round, "own", (json_int_t)job->own_steps, "loss",
              job->nll / (double)job->own_labels, "labels", (json_int_t)job->own_labels, "norm",
              job->norm, "lr", job->rate, "seconds", seconds, "bytes", (json_int_t)job->bytes);
}

void
tl_client_on_committed (tl_client_t *self, const tl_message_t *message)
{
    if (!self->open || message->step != self->step || self->state != TL_CLIENT_COMMITTING)
        return;
    tl_site_job_t *job = tl_client_job (self, s_on_update);
    job->lasting = true;
    job->labels = message->body.committed.labels;
    job->norm = message->body.committed.norm;
    //  The next PLAN may be here before the update is done: what this step came to travels with the job. Bytes count from
    //  COMMITTED to COMMITTED, so that none is left out.
    job->own_labels = self->labels;
    job->nll = self->nll;
    job->began = self->step_began;
    uint64_t bytes = tl_peer_bytes (self->peer);
    job->bytes = bytes - self->bytes_before;
    self->bytes_before = bytes;
    tl_client_submit (self, self->work->update, job);
    tl_client_forget_step (self);
    self->step++;
    tl_client_go (self, TL_CLIENT_IDLE, "COMMITTED");
}
