#include "ask.h"

#include "actors/site_job.h"
#include "actors/window.h"
#include "base/assert.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  Rows that are at the worker.
typedef struct {
    uint64_t request;  //  step field of its FORWARD; 0: free
    tl_slice_t *slice; //  what they are rows of
    tl_assembly_t *in; //  the answer, coming in
} s_asked_t;

struct tl_ask {
    tl_ask_config_t config;
    size_t hidden;    //  columns of rows
    uint64_t epoch;   //  of the task: results of older ones are void
    size_t under_way; //  slices of the task between their front and their tail
    s_asked_t asked[TL_ASK_AT_ONCE];
    uint64_t requests; //  given out so far
    bool scoring;      //  the task is to score, else to find logits
    bool over;         //  scoring: the text has no further slice
    size_t next;       //  scoring: first example of the next slice; the compute thread's
    double *nll;       //  scoring: [examples] of each
    size_t examples;   //  scoring: of the held-out text
    size_t scored;     //  scoring: of them so far
    uint64_t labels;   //  scoring: so far
};

//  --- jobs -------------------------------------------------------------------------------------

static void
s_collected (void *arg)
{
    tl_site_job_t *job = arg;
    tl_ask_t *self = job->owner;
    if (job->done && job->epoch == self->epoch) {
        if (job->err.code != TL_OK)
            self->config.on_failed (self->config.arg, (int)job->err.code, job->err.text);
        else
            job->done (job);
    }
    tl_site_job_free (job);
}

static tl_site_job_t *
s_job (tl_ask_t *self, tl_site_job_fn *done)
{
    tl_site_job_t *job = tl_alloc (sizeof *job);
    job->site = self->config.site;
    job->dtype = tl_wire_dtype (self->config.topology);
    job->epoch = self->epoch;
    job->done = done;
    job->owner = self;
    return job;
}

static void
s_submit (tl_ask_t *self, tl_job_fn *run, tl_site_job_t *job)
{
    tl_compute_submit (self->config.compute, run, s_collected, tl_site_job_free, job);
}

//  --- out --------------------------------------------------------------------------------------

static void s_more (tl_ask_t *self);

static void
s_check_scored (tl_ask_t *self)
{
    if (self->over && !self->under_way)
        self->config.on_scored (self->config.arg, self->nll, self->examples, self->labels);
}

//  The front of a slice is computed, or there was none left.
static void
s_on_front (tl_site_job_t *job)
{
    tl_ask_t *self = job->owner;
    if (!job->slice) {
        self->over = true;
        self->under_way--;
        s_check_scored (self);
        return;
    }
    s_asked_t *asked = self->asked;
    while (asked->request)
        asked++;
    tl_assert (asked < self->asked + TL_ASK_AT_ONCE);
    asked->request = ++self->requests;
    asked->slice = job->slice;
    job->slice = NULL;
    tl_message_t message;
    tl_message_init (&message, TL_FORWARD);
    message.step = asked->request;
    message.body.forward.sequences = job->sequences;
    message.body.forward.sequences_count = job->sequence_count;
    tl_peer_send_tensor (self->config.peer, &message, job->out);
    job->out = NULL;
}

static void
s_slice (tl_ask_t *self, bool first)
{
    tl_site_job_t *job = s_job (self, s_on_front);
    job->first = &self->next;
    job->rewind = first;
    self->under_way++;
    s_submit (self, tl_site_job_slice, job);
}

static void
s_more (tl_ask_t *self)
{
    while (!self->over && self->under_way < TL_ASK_AT_ONCE)
        s_slice (self, false);
}

//  --- back -------------------------------------------------------------------------------------

static void
s_on_scored (tl_site_job_t *job)
{
    tl_ask_t *self = job->owner;
    self->under_way--;
    memcpy (self->nll + job->example, job->losses, job->example_count * sizeof *job->losses);
    self->scored += job->example_count;
    self->labels += job->labels;
    if (self->config.on_progress)
        self->config.on_progress (self->config.arg, self->scored, self->examples);
    s_more (self);
    s_check_scored (self);
}

static void
s_on_next (tl_site_job_t *job)
{
    tl_ask_t *self = job->owner;
    self->under_way--;
    self->config.on_logits (self->config.arg, job->logits);
}

static s_asked_t *
s_find (tl_ask_t *self, uint64_t request)
{
    for (size_t i = 0; i < TL_ASK_AT_ONCE; i++)
        if (request && self->asked[i].request == request)
            return &self->asked[i];
    return NULL;
}

void
tl_ask_on_forwarded (tl_ask_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    s_asked_t *asked = s_find (self, message->step);
    if (!asked)
        return;
    const tl_tensor_wire_t *descriptor = &message->body.forwarded.tensor;
    tl_error_t err = {0};
    if (!asked->in)
        asked->in = tl_assembly_new (descriptor, self->hidden,
                                     self->config.topology->wire.max_message, &err);
    int rc = asked->in ? tl_assembly_add (asked->in, descriptor, payload, size, &err) : -1;
    if (rc < 0) {
        tl_fail_in (&err, "FORWARDED %llu", (unsigned long long)message->step);
        self->config.on_failed (self->config.arg, TL_CONNECTION, err.text);
    } else if (rc == 1) {
        tl_site_job_t *job = s_job (self, self->scoring ? s_on_scored : s_on_next);
        job->in = asked->in;
        job->slice = asked->slice;
        *asked = (s_asked_t){0};
        s_submit (self, self->scoring ? tl_site_job_score : tl_site_job_next, job);
    }
}

//  --- tasks ------------------------------------------------------------------------------------

void
tl_ask_void (tl_ask_t *self)
{
    self->epoch++;
    self->under_way = 0;
    for (size_t i = 0; i < TL_ASK_AT_ONCE; i++) {
        s_asked_t *asked = &self->asked[i];
        tl_assembly_destroy (&asked->in);
        tl_slice_destroy (&asked->slice);
        *asked = (s_asked_t){0};
    }
}

void
tl_ask_score (tl_ask_t *self)
{
    tl_ask_void (self);
    self->scoring = true;
    self->over = false;
    self->labels = 0;
    self->scored = 0;
    self->examples = tl_site_examples (self->config.site);
    free (self->nll);
    self->nll = tl_alloc ((self->examples + 1) * sizeof *self->nll);
    s_slice (self, true);
    s_more (self);
}

void
tl_ask_next (tl_ask_t *self, const int32_t *ids, size_t count, uint32_t context, uint32_t mask)
{
    tl_ask_void (self);
    self->scoring = false;
    tl_site_job_t *job = s_job (self, s_on_front);
    job->ids = tl_alloc (count * sizeof *job->ids);
    memcpy (job->ids, ids, count * sizeof *job->ids);
    job->id_count = count;
    job->context = context;
    job->mask = mask;
    self->under_way++;
    s_submit (self, tl_site_job_prompt, job);
}

//  --- life -------------------------------------------------------------------------------------

tl_ask_t *
tl_ask_new (const tl_ask_config_t *config)
{
    tl_ask_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    self->hidden = tl_site_hidden (config->site);
    return self;
}

void
tl_ask_destroy (tl_ask_t **self_p)
{
    tl_ask_t *self = *self_p;
    if (!self)
        return;
    tl_ask_void (self);
    free (self->nll);
    free (self);
    *self_p = NULL;
}
