#include "client.h"

#include "actors/agreement.h"
#include "actors/ask.h"
#include "actors/credentials.h"
#include "actors/events.h"
#include "actors/peer.h"
#include "actors/footprint.h"
#include "actors/save.h"
#include "actors/site_job.h"
#include "actors/synthetic.h"
#include "actors/unison.h"
#include "actors/weights.h"
#include "actors/window.h"
#include "fed/parts.h"
#include "file.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

static const char *const s_states[] = {"joining", "idle",     "forward", "committing",
                                       "scoring", "stopping", "over"};
enum { JOINING, IDLE, FORWARD, COMMITTING, SCORING, STOPPING, OVER };

struct tl_client {
    tl_client_config_t config;
    const tl_topology_t *topology;
    const char *name;
    int state;
    bool came; //  had a session once
    tl_actor_t *actor;
    tl_compute_t *compute;
    tl_peer_t *peer;
    const tl_site_work_t *work;     //  what a job does
    tl_site_t *site;                //  the compute thread's while jobs are pending; NULL: synthetic
    tl_synthetic_part_t *synthetic; //  in its place, or NULL
    size_t hidden;
    size_t rows, longest; //  of the largest micro, of the longest sequence
    tl_weights_t weights; //  what its files hold
    uint64_t window;
    bool wants_gradient;
    char *directory; //  of our saves
    uint64_t run;    //  that the saves belong to; 0 before the first session
    uint64_t epoch;  //  work of an older epoch is void
    uint64_t step,
        round; //  of the open step; else step is how many were committed, as far as we know
    size_t micros, tails, backs;              //  of it: all, tails done, backwards done
    bool open;                                //  a step is open
    tl_assembly_t **hidden_in, **gradient_in; //  [micros] coming in
    int64_t step_began;
    uint64_t bytes_before; //  on the wire when the step began
    double nll;            //  of the open step
    uint64_t labels;
    tl_ask_t *ask;       //  scores held-out text; NULL: synthetic
    tl_unison_t *unison; //  averages and sums with the other clients; NULL: synthetic
    tl_footprint_t footprint;
    tl_client_totals_t totals;
};

static void s_end (tl_client_t *self, int code, const char *text);

static void
s_go (tl_client_t *self, int state, const char *event)
{
    if (state != self->state)
        tl_debug ("%s: %s: %s -> %s", self->name, event, s_states[self->state], s_states[state]);
    self->state = state;
}

//  --- jobs -------------------------------------------------------------------------------------

static void
s_collected (void *arg)
{
    tl_site_job_t *job = arg;
    tl_client_t *self = job->owner;
    if (job->done && (job->lasting || job->epoch == self->epoch)) {
        if (job->err.code != TL_OK && !*job->text)
            s_end (self, job->err.code, job->err.text);
        else
            job->done (job);
    }
    tl_site_job_free (job);
}

static tl_site_job_t *
s_job (tl_client_t *self, tl_site_job_fn *done)
{
    tl_site_job_t *job = tl_alloc (sizeof *job);
    job->site = self->site;
    job->synthetic = self->synthetic;
    job->dtype = tl_wire_dtype (self->topology);
    job->epoch = self->epoch;
    job->step = self->step;
    job->round = self->round;
    job->micros = self->micros;
    job->done = done;
    job->owner = self;
    return job;
}

static void
s_submit (tl_client_t *self, tl_job_fn *run, tl_site_job_t *job)
{
    tl_compute_submit (self->compute, run, s_collected, tl_site_job_free, job);
}

//  --- a step -----------------------------------------------------------------------------------

static void
s_forget_step (tl_client_t *self)
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
static void
s_void (tl_client_t *self, const char *why)
{
    if (self->open)
        tl_info ("step %llu is dropped: %s", (unsigned long long)self->step, why);
    s_forget_step (self);
    self->epoch++;
    if (self->ask)
        tl_ask_void (self->ask);
    tl_unison_void (self->unison);
    s_submit (self, self->work->drop, s_job (self, NULL));
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

static void
s_on_plan (tl_client_t *self, const tl_message_t *message)
{
    if (self->open)
        s_void (self, "a new plan came");
    s_forget_step (self);
    if (message->body.plan.micros != self->topology->train.micros) {
        s_end (self, TL_CONNECTION,
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
    s_go (self, FORWARD, "PLAN");
    s_submit (self, self->work->begin, s_job (self, NULL));
    for (size_t i = 0; i < self->micros; i++) {
        bool whole = self->topology->split.none;
        tl_site_job_t *job = s_job (self, whole ? s_on_learnt : s_on_front);
        job->micro = i;
        s_submit (self, whole ? tl_site_job_learn : self->work->front, job);
    }
}

//  The gradient that the step will be updated with: its own, or that of all clients.
static void
s_on_summed (void *arg, const tl_summed_t *summed)
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
    s_go (self, COMMITTING, "last backward");
}

static void
s_on_committed_own (tl_site_job_t *job)
{
    s_on_summed (job->owner, &(tl_summed_t){.step = job->step,
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
        s_submit (self, self->work->commit, s_job (self, s_on_committed_own));
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
static void
s_on_rows (tl_client_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    bool hidden = message->type == TL_HIDDEN;
    if (!self->open || message->step != self->step || message->micro >= self->micros)
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
                    (unsigned long long)message->step);
        s_end (self, TL_CONNECTION, err.text);
    } else if (rc == 1) {
        tl_site_job_t *job = s_job (self, hidden ? s_on_tail : s_on_back);
        job->micro = message->micro;
        job->in = *slot;
        *slot = NULL;
        s_submit (self, hidden ? self->work->tail : self->work->back, job);
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
    tl_event ("step", "{sssIsIsfsIsfsfsfsI}", "name", self->name, "step", (json_int_t)job->step,
              "round", (json_int_t)job->round, "loss", job->nll / (double)job->own_labels, "labels",
              (json_int_t)job->own_labels, "norm", job->norm, "lr", job->rate, "seconds", seconds,
              "bytes", (json_int_t)job->bytes);
}

static void
s_on_committed (tl_client_t *self, const tl_message_t *message)
{
    if (!self->open || message->step != self->step || self->state != COMMITTING)
        return;
    tl_site_job_t *job = s_job (self, s_on_update);
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
    s_submit (self, self->work->update, job);
    s_forget_step (self);
    self->step++;
    s_go (self, IDLE, "COMMITTED");
}

//  --- saves ------------------------------------------------------------------------------------

static void
s_answer (tl_site_job_t *job, tl_type_t type)
{
    tl_client_t *self = job->owner;
    tl_message_t message;
    tl_message_init (&message, type);
    message.step = job->step;
    message.round = job->round;
    if (type == TL_SAVED) {
        message.body.saved.good = job->err.code == TL_OK;
        message.body.saved.text = job->text;
    } else {
        message.body.restored.good = job->err.code == TL_OK;
        message.body.restored.text = job->text;
    }
    tl_peer_send (self->peer, &message);
}

static void
s_on_saved (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    if (job->err.code == TL_OK && self->site)
        //  The common save may be two behind: one more is under way, and another was made when we left.
        tl_save_prune (self->directory, job->step, self->topology->checkpoint.keep + 2);
    s_answer (job, TL_SAVED);
}

static void
s_on_restored (tl_site_job_t *job)
{
    tl_event ("restored", "{sI}", "step", (json_int_t)job->step);
    s_answer (job, TL_RESTORED);
}

static void
s_on_save (tl_client_t *self, const tl_message_t *message)
{
    tl_site_job_t *job = s_job (self, s_on_saved);
    job->lasting = true;
    job->step = message->step;
    job->directory = tl_strdup (self->directory);
    s_submit (self, self->work->save, job);
}

static void
s_on_restore (tl_client_t *self, const tl_message_t *message)
{
    s_void (self, message->body.restore.text);
    s_go (self, IDLE, "RESTORE");
    self->step = message->step;
    tl_site_job_t *job = s_job (self, s_on_restored);
    job->step = message->step;
    job->directory = tl_strdup (self->directory);
    s_submit (self, self->work->restore, job);
}

//  The average of the clients is its adapter now, at the step that all parts stand at.
static void
s_on_taken (void *arg, uint64_t step)
{
    tl_client_t *self = arg;
    self->step = step;
}

static void
s_on_merged (tl_client_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    if (self->open && strcmp (message->body.merged.kind, "sum") != 0)
        s_void (self, "the clients' average came");
    tl_unison_on_merged (self->unison, message, payload, size);
}

//  --- scoring ----------------------------------------------------------------------------------

static void
s_finished (tl_client_t *self, double nll, uint64_t labels)
{
    tl_event ("scored", "{sssfsI}", "name", self->name, "nll", nll, "labels", (json_int_t)labels);
    tl_message_t message;
    tl_message_init (&message, TL_FINISHED);
    message.body.finished.nll = nll;
    message.body.finished.labels = labels;
    tl_peer_send (self->peer, &message);
    s_go (self, IDLE, "scored");
}

static void
s_on_scored (void *arg, const double *losses, size_t examples, uint64_t labels)
{
    double nll = 0;
    for (size_t i = 0; i < examples; i++)
        nll += losses[i];
    s_finished (arg, nll, labels);
}

static void
s_on_evaluated (tl_site_job_t *job)
{
    s_finished (job->owner, job->nll, job->labels);
}

static void
s_on_finish (tl_client_t *self)
{
    s_go (self, SCORING, "FINISH");
    if (self->topology->split.none)
        s_submit (self, tl_site_job_evaluate, s_job (self, s_on_evaluated));
    else if (self->ask)
        tl_ask_score (self->ask);
    else
        s_finished (self, 0, 0);
}

//  --- the conversation -------------------------------------------------------------------------

static void
s_on_message (void *arg, const tl_message_t *message, const void *payload, size_t size)
{
    tl_client_t *self = arg;
    if (self->state >= STOPPING)
        return;
    switch (message->type) {
    case TL_PLAN:
        s_on_plan (self, message);
        break;
    case TL_HIDDEN:
    case TL_GRAD_IN:
        s_on_rows (self, message, payload, size);
        break;
    case TL_COMMITTED:
        s_on_committed (self, message);
        break;
    case TL_ABANDON:
    case TL_LATE:
        if (self->open && message->step == self->step) {
            s_void (self, message->type == TL_LATE ? "it was closed without us"
                                                   : message->body.abandon.text);
            s_go (self, IDLE, tl_type_name (message->type));
        }
        break;
    case TL_SAVE:
        s_on_save (self, message);
        break;
    case TL_RESTORE:
        s_on_restore (self, message);
        break;
    case TL_GATHER:
        if (self->unison)
            tl_unison_on_gather (self->unison, message);
        break;
    case TL_MERGED:
        if (self->unison)
            s_on_merged (self, message, payload, size);
        break;
    case TL_FINISH:
        s_on_finish (self);
        break;
    case TL_FORWARDED:
        if (self->ask)
            tl_ask_on_forwarded (self->ask, message, payload, size);
        break;
    default:
        tl_warn ("%s means nothing to a client: ignored", tl_type_name (message->type));
    }
}

static void
s_on_resumed (tl_site_job_t *job)
{
    if (job->err.code != TL_OK)
        s_end (job->owner, job->err.code, job->text);
    else
        tl_info ("this process begins with %s", job->text);
}

//  A session of a run we were not in yet in this process: our own saves of that run, if there are any.
static void
s_new_run (tl_client_t *self)
{
    bool first = self->run == 0;
    self->run = tl_peer_run (self->peer);
    if (!self->site)
        return;
    tl_error_t err;
    int same = tl_save_same_run (self->directory, self->run, &err);
    if (same < 0) {
        s_end (self, TL_FAILED, err.text);
        return;
    }
    if (first && !same)
        return; //  fresh already
    tl_site_job_t *job = s_job (self, s_on_resumed);
    job->step = same ? INT64_MAX : 0;
    job->directory = tl_strdup (self->directory);
    s_submit (self, self->work->restore, job);
}

static void
s_on_ready (void *arg)
{
    tl_client_t *self = arg;
    if (self->state >= STOPPING)
        return;
    if (self->run != tl_peer_run (self->peer))
        s_new_run (self);
    s_go (self, IDLE, "session");
    tl_event ("ready", "{ss}", "name", self->name);
    if (!self->came && self->config.on_ready)
        self->config.on_ready (self->config.arg);
    self->came = true;
}

static void
s_on_lost (void *arg)
{
    tl_client_t *self = arg;
    s_void (self, "the session was lost");
    if (self->state < STOPPING)
        s_go (self, JOINING, "session lost");
}

static void
s_end (tl_client_t *self, int code, const char *text)
{
    if (self->state == OVER)
        return;
    s_go (self, OVER, "end");
    if (code && self->peer)
        tl_peer_bye (self->peer, code, text);
    else if (*text)
        tl_info ("%s", text);
    self->config.on_over (self->config.arg, code, text);
}

static void
s_on_end (void *arg, int code, const char *text)
{
    s_end (arg, code, text);
}

//  A signal: the open step is left to the others, what is committed is saved, then BYE.
static void
s_on_stopped (tl_site_job_t *job)
{
    s_end (job->owner, job->err.code, job->err.code ? job->err.text : "saved and left");
}

void
tl_client_stop (tl_client_t *self)
{
    if (self->state >= STOPPING)
        return;
    if (!self->run) {
        s_end (self, 0, "");
        return;
    }
    s_void (self, "we are stopping");
    s_go (self, STOPPING, "signal");
    tl_site_job_t *job = s_job (self, s_on_stopped);
    job->lasting = true;
    job->step = self->step;
    job->directory = tl_strdup (self->directory);
    s_submit (self, self->work->save, job);
}

static void
s_on_computed (void *arg)
{
    tl_client_t *self = arg;
    tl_compute_collect (self->compute);
}

//  --- life -------------------------------------------------------------------------------------

//  What is to be agreed on is known: the conversation can begin.
static int
s_join (tl_client_t *self, tl_error_t *err)
{
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, self->topology, TL_AGREE_ALL);
    if (self->site) {
        tl_agreements_bind (&agreements, "model", tl_site_manifest (self->site));
        tl_agreements_bind (&agreements, "tokenizer", tl_site_tokenizer (self->site));
        tl_weights_bind (&self->weights, &agreements, false);
    } else
        tl_agreements_bind (&agreements, "model", "synthetic");
    tl_peer_config_t config = {
        .role = "client",
        .name = self->name,
        .context = self->config.context,
        .agreements = agreements.items,
        .agreement_count = agreements.count,
        .window_bytes = self->window,
        .window_messages = tl_window_messages (self->topology, self->window),
        .rows = self->rows,
        .longest = self->longest,
        .on_ready = s_on_ready,
        .on_lost = s_on_lost,
        .on_message = s_on_message,
        .on_end = s_on_end,
        .arg = self,
    };
    self->peer = tl_peer_new (self->actor, self->topology, &config, err);
    tl_agreements_clear (&agreements);
    return self->peer ? 0 : -1;
}

static void
s_on_weights (void *arg)
{
    tl_weights_t *weights = arg;
    tl_client_t *self = weights->owner;
    tl_error_t err = weights->err;
    if (self->state == OVER)
        return;
    if (err.code || s_join (self, &err)) {
        s_end (self, (int)err.code, err.text);
        return;
    }
    self->ask = tl_ask_new (&(tl_ask_config_t){.topology = self->topology,
                                               .site = self->site,
                                               .compute = self->compute,
                                               .peer = self->peer,
                                               .on_scored = s_on_scored,
                                               .on_failed = s_on_end,
                                               .arg = self});
    self->unison = tl_unison_new (&(tl_unison_config_t){.site = self->site,
                                                        .compute = self->compute,
                                                        .peer = self->peer,
                                                        .on_summed = s_on_summed,
                                                        .on_taken = s_on_taken,
                                                        .on_failed = s_on_end,
                                                        .arg = self});
}

static int
s_open_site (tl_client_t *self, tl_error_t *err)
{
    if (tl_mkdirs (self->directory, err) ||
        !(self->site = tl_site_new (self->topology, self->config.index, true, err)))
        return -1;
    self->work = &tl_site_work;
    self->compute = tl_compute_new ();
    tl_actor_watch_fd (self->actor, tl_compute_fd (self->compute), s_on_computed, self);
    self->hidden = tl_site_hidden (self->site);
    self->wants_gradient = tl_site_wants_gradient (self->site);
    self->window = tl_window_bytes (self->topology, tl_site_rows (self->site), self->hidden);
    tl_plan_t plan;
    if (tl_site_plan (self->site, &plan, &self->rows, &self->longest, err) != 0)
        return -1;
    tl_footprint_plan (&self->footprint, &plan,
                       tl_window_held (self->topology, self->rows,
                                       tl_site_scores (self->site) ? TL_ASK_AT_ONCE : 0,
                                       self->hidden));
    self->weights = (tl_weights_t){
        .part = tl_site_part (self->site), .directory = self->directory, .owner = self};
    tl_compute_submit (self->compute, tl_weights_read, s_on_weights, tl_weights_drop,
                       &self->weights);
    return 0;
}

static int
s_open_synthetic (tl_client_t *self, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    const tl_synthetic_t *spec = &t->clients[self->config.index].synthetic;
    self->work = &tl_synthetic_site_work;
    self->compute = tl_compute_new_timed (self->config.alarms);
    self->synthetic = tl_synthetic_part_new (t, spec, self->compute);
    self->hidden = t->model.hidden;
    self->wants_gradient = t->tune.parts & TL_PART_FRONT;
    self->rows = self->longest = spec->rows;
    self->window = tl_window_bytes (t, t->train.micros * spec->rows, self->hidden);
    return s_join (self, err);
}

static int
s_open (tl_client_t *self, tl_error_t *err)
{
    tl_footprint_begin (&self->footprint);
    if (tl_credentials_check (self->topology, "client", self->name, err))
        return -1;
    return self->topology->model.synthetic ? s_open_synthetic (self, err) : s_open_site (self, err);
}

tl_client_t *
tl_client_new (const tl_client_config_t *config, tl_error_t *err)
{
    tl_client_t *self = tl_alloc (sizeof *self);
    self->config = *config;
    self->topology = config->topology;
    self->actor = config->actor;
    self->name = config->topology->clients[config->index].name;
    self->directory = tl_save_directory (config->topology, self->name);
    if (s_open (self, err))
        tl_client_destroy (&self);
    return self;
}

void
tl_client_destroy (tl_client_t **self_p)
{
    tl_client_t *self = *self_p;
    if (!self)
        return;
    tl_compute_destroy (&self->compute);
    tl_peer_destroy (&self->peer);
    tl_ask_destroy (&self->ask);
    tl_unison_destroy (&self->unison);
    s_forget_step (self);
    if (self->site)
        tl_footprint_end (&self->footprint);
    tl_site_destroy (&self->site);
    tl_synthetic_part_destroy (&self->synthetic);
    free (self->directory);
    free (self);
    *self_p = NULL;
}

tl_client_totals_t
tl_client_totals (const tl_client_t *self)
{
    return self->totals;
}

//  --- one in a process of its own --------------------------------------------------------------

typedef struct {
    tl_client_t *client;
    tl_actor_t *actor;
    tl_error_t *err;
} s_alone_t;

static void
s_on_alone_over (void *arg, int code, const char *text)
{
    s_alone_t *self = arg;
    if (code)
        tl_fail (self->err, code, "%s", text);
    tl_actor_end (self->actor, code);
}

static void
s_on_alone_stop (void *arg)
{
    s_alone_t *self = arg;
    tl_client_stop (self->client);
}

int
tl_client_run (const tl_topology_t *topology, size_t index, tl_error_t *err)
{
    s_alone_t self = {.err = err};
    char *title = tl_format ("client/%s", topology->clients[index].name);
    self.actor = tl_actor_new (title, s_states, s_on_alone_stop, &self);
    free (title);
    tl_alarms_t *alarms = tl_alarms_new (self.actor);
    tl_client_config_t config = {.topology = topology,
                                 .index = index,
                                 .actor = self.actor,
                                 .alarms = alarms,
                                 .on_over = s_on_alone_over,
                                 .arg = &self};
    self.client = tl_client_new (&config, err);
    int code = self.client ? tl_actor_run (self.actor, err) : (int)err->code;
    tl_client_destroy (&self.client);
    tl_alarms_destroy (&alarms);
    tl_actor_destroy (&self.actor);
    return code;
}
