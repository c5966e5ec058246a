#include "unison.h"

#include "log.h"
#include "memory.h"
#include "messages/tensor_wire.h"

#include <stdlib.h>
#include <string.h>

enum { MERGED_SHIFT = 33 }; //  1 << that: bytes of MERGED, at most (PROTOCOL.md)

struct tl_unison {
    tl_unison_config_t config;
    uint64_t epoch;            //  results of an older one are void
    bool summing;              //  a step's sum is waited for
    uint64_t step, round;      //  of it
    uint64_t labels;           //  of its own share
    double nll;                //  likewise
    tl_assembly_t *average_in; //  MERGED of an average, coming in
    tl_assembly_t *sum_in;     //  of a sum
};

//  A piece of work for the compute thread, and what comes of it.
typedef struct s_job {
    tl_unison_t *unison;
    tl_site_t *site; //  for the compute thread only
    uint64_t epoch, step, round;
    tl_assembly_t *in;     //  what came; owned
    tl_packed_t *out;      //  what goes; owned
    tl_norm_term_t *terms; //  owned
    size_t term_count;
    uint64_t labels;
    double nll;
    tl_error_t err;
    void (*done) (struct s_job *job);
} s_job_t;

//  --- work -------------------------------------------------------------------------------------

static void
s_free (void *arg)
{
    s_job_t *job = arg;
    tl_assembly_destroy (&job->in);
    tl_packed_destroy (&job->out);
    free (job->terms);
    free (job);
}

static void
s_run_share (void *arg)
{
    s_job_t *job = arg;
    size_t size;
    void *share = tl_site_share (job->site, &size);
    job->out = tl_pack_own (share, size);
    job->labels = tl_site_learnt (job->site);
}

static void
s_run_take (void *arg)
{
    s_job_t *job = arg;
    size_t size;
    void *share = tl_assembly_take (job->in, &size);
    tl_site_take (job->site, share, size, &job->err);
    free (share);
}

static void
s_make_terms (s_job_t *job)
{
    job->term_count = tl_part_tensors (tl_site_part (job->site));
    job->terms = tl_alloc ((job->term_count + 1) * sizeof *job->terms);
}

static void
s_run_gradient (void *arg)
{
    s_job_t *job = arg;
    s_make_terms (job);
    if (tl_site_commit (job->site, job->terms, &job->labels, &job->nll, &job->err) != 0)
        return;
    size_t size;
    void *gradient = tl_site_gradient (job->site, &size);
    job->out = tl_pack_own (gradient, size);
}

static void
s_run_sum (void *arg)
{
    s_job_t *job = arg;
    size_t size;
    void *sum = tl_assembly_take (job->in, &size);
    s_make_terms (job);
    tl_site_sum_up (job->site, sum, size, job->terms, &job->err);
    free (sum);
}

//  --- results ----------------------------------------------------------------------------------

static void
s_collected (void *arg)
{
    s_job_t *job = arg;
    if (job->epoch == job->unison->epoch)
        job->done (job);
    s_free (job);
}

static void
s_submit (tl_unison_t *self, tl_job_fn *run, const s_job_t *with)
{
    s_job_t *job = tl_alloc (sizeof *job);
    *job = *with;
    job->unison = self;
    job->site = self->config.site;
    job->epoch = self->epoch;
    tl_compute_submit (self->config.compute, run, s_collected, s_free, job);
}

static void
s_fail (tl_unison_t *self, int code, const char *text)
{
    self->config.on_failed (self->config.arg, code, text);
}

static void
s_send_part (s_job_t *job, const char *kind)
{
    tl_message_t message;
    tl_message_init (&message, TL_PART);
    message.step = job->step;
    message.round = job->round;
    message.body.part.kind = kind;
    message.body.part.labels = job->labels;
    tl_peer_send_tensor (job->unison->config.peer, &message, job->out);
    job->out = NULL;
}

static void
s_on_shared (s_job_t *job)
{
    s_send_part (job, "clients");
}

static void
s_on_taken (s_job_t *job)
{
    tl_unison_t *self = job->unison;
    bool good = job->err.code == TL_OK;
    tl_message_t message;
    tl_message_init (&message, TL_RESTORED);
    message.step = job->step;
    message.round = job->round;
    message.body.restored.code = job->err.code;
    message.body.restored.text = good ? "the average" : job->err.text;
    tl_peer_send (self->config.peer, &message);
    if (good)
        self->config.on_taken (self->config.arg, job->step);
}

static void
s_on_gradient (s_job_t *job)
{
    tl_unison_t *self = job->unison;
    if (job->err.code != TL_OK) {
        s_fail (self, (int)job->err.code, job->err.text);
        return;
    }
    self->labels = job->labels;
    self->nll = job->nll;
    s_send_part (job, "sum");
}

static void
s_on_sum (s_job_t *job)
{
    tl_unison_t *self = job->unison;
    if (job->err.code != TL_OK) {
        s_fail (self, (int)job->err.code, job->err.text);
        return;
    }
    self->config.on_summed (self->config.arg, &(tl_summed_t){.step = job->step,
                                                             .round = job->round,
                                                             .labels = self->labels,
                                                             .nll = self->nll,
                                                             .terms = job->terms,
                                                             .term_count = job->term_count});
}

//  --- the conversation -------------------------------------------------------------------------

void
tl_unison_sum (tl_unison_t *self, uint64_t step, uint64_t round)
{
    self->summing = true;
    self->step = step;
    self->round = round;
    tl_assembly_destroy (&self->sum_in);
    s_submit (self, s_run_gradient,
              &(s_job_t){.step = step, .round = round, .done = s_on_gradient});
}

void
tl_unison_on_gather (tl_unison_t *self, const tl_message_t *message)
{
    if (strcmp (message->body.gather.kind, "clients") != 0) {
        tl_warn ("GATHER of '%s' means nothing to a client: ignored", message->body.gather.kind);
        return;
    }
    s_submit (self, s_run_share,
              &(s_job_t){.step = message->step, .round = message->round, .done = s_on_shared});
}

void
tl_unison_on_merged (tl_unison_t *self, const tl_message_t *message, const void *payload,
                     size_t size)
{
    const struct tl_body_merged *merged = &message->body.merged;
    bool sum = strcmp (merged->kind, "sum") == 0;
    if (sum ? !self->summing || message->step != self->step : strcmp (merged->kind, "clients") != 0)
        return;
    tl_assembly_t **in = sum ? &self->sum_in : &self->average_in;
    tl_error_t err = {0};
    if (merged->tensor.offset == 0) {
        tl_assembly_destroy (in);
        *in = tl_assembly_new (&merged->tensor, 1, (size_t)1 << MERGED_SHIFT, &err);
    }
    int rc = *in ? tl_assembly_add (*in, &merged->tensor, payload, size, &err) : -1;
    if (rc == 1) {
        self->summing &= !sum;
        s_submit (self, sum ? s_run_sum : s_run_take,
                  &(s_job_t){.step = message->step,
                             .round = message->round,
                             .in = *in,
                             .done = sum ? s_on_sum : s_on_taken});
        *in = NULL;
    } else if (rc < 0) {
        if (!*err.text)
            tl_fail (&err, TL_CONNECTION, "it came in pieces that don't fit");
        tl_fail_in (&err, "MERGED of step %llu", (unsigned long long)message->step);
        s_fail (self, TL_CONNECTION, err.text);
    }
}

void
tl_unison_void (tl_unison_t *self)
{
    if (!self)
        return;
    self->epoch++;
    self->summing = false;
    tl_assembly_destroy (&self->average_in);
    tl_assembly_destroy (&self->sum_in);
}

//  --- life -------------------------------------------------------------------------------------

tl_unison_t *
tl_unison_new (const tl_unison_config_t *config)
{
    tl_unison_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    return self;
}

void
tl_unison_destroy (tl_unison_t **self_p)
{
    tl_unison_t *self = *self_p;
    if (!self)
        return;
    tl_assembly_destroy (&self->average_in);
    tl_assembly_destroy (&self->sum_in);
    free (self);
    *self_p = NULL;
}
