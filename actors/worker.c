#include "worker.h"

#include "actors/agreement.h"
#include "actors/credentials.h"
#include "actors/events.h"
#include "actors/save.h"
#include "actors/worker_internal.h"
#include "actors/window.h"
#include "base/assert.h"
#include "clock.h"
#include "fed/parts.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_ASKED = 4096 //  forward-only requests that may be half here
};

static const char *const s_states[] = {"joining", "idle", "step", "updating", "stopping", "over"};

void
tl_worker_end (tl_worker_t *self, int code, const char *text)
{
    if (tl_actor_state (self->actor) == TL_WORKER_OVER)
        return;
    tl_actor_go (self->actor, TL_WORKER_OVER, "end");
    tl_waiting_tell (&self->waiting, self->name);
    if (code)
        tl_fail (self->err, code, "%s", text);
    if (code && self->peer)
        tl_peer_bye (self->peer, code, text);
    else if (*text)
        tl_info ("%s", text);
    tl_actor_end (self->actor, code);
}

//  --- time ------------------------------------------------------------------------------------

//  Asked whenever something has come or is done, and now and then: what is it at from now on?
static void
s_mark_time (void *arg)
{
    tl_worker_t *self = arg;
    if (!self->waiting.since && !self->open)
        return;
    tl_waiting_kind_t kind = tl_compute_pending (self->compute) > 0        ? TL_COMPUTING
                             : self->peer && tl_peer_stalled (self->peer)  ? TL_WAITING_CREDIT
                             : self->open && self->computed < self->micros ? TL_WAITING_INPUT
                                                                           : TL_WAITING_COMMIT;
    tl_waiting_mark (&self->waiting, kind, tl_clock_us ());
}

//  --- jobs -------------------------------------------------------------------------------------

static void
s_collected (void *arg)
{
    tl_trunk_job_t *job = arg;
    tl_worker_t *self = job->owner;
    bool valid = job->lasting ? job->voids == self->voids : job->epoch == self->epoch;
    if (job->done && valid) {
        if (job->err.code != TL_OK && !*job->text)
            tl_worker_end (self, job->err.code, job->err.text);
        else
            job->done (job);
    }
    tl_trunk_job_free (job);
    s_mark_time (self);
}

tl_trunk_job_t *
tl_worker_job (tl_worker_t *self, tl_trunk_job_fn *done)
{
    tl_trunk_job_t *job = tl_alloc (sizeof *job);
    job->trunk = self->trunk;
    job->synthetic = self->synthetic;
    job->dtype = tl_wire_dtype (self->topology);
    job->epoch = self->epoch;
    job->voids = self->voids;
    job->step = self->step;
    job->round = self->round;
    job->micros = self->micros;
    job->done = done;
    job->owner = self;
    return job;
}

void
tl_worker_submit (tl_worker_t *self, tl_job_fn *run, tl_trunk_job_t *job)
{
    tl_compute_submit (self->compute, run, s_collected, tl_trunk_job_free, job);
}

//  --- rows -------------------------------------------------------------------------------------

void
tl_worker_send_rows (tl_worker_t *self, tl_type_t type, const tl_trunk_job_t *job, const char *name,
                     tl_packed_t **rows)
{
    tl_message_t message;
    tl_message_init (&message, type);
    message.step = job->step;
    message.round = job->round;
    message.micro = job->micro;
    if (type == TL_HIDDEN)
        message.body.hidden.compute_us = (uint64_t)job->us;
    else if (type == TL_GRAD_IN)
        message.body.grad_in.compute_us = (uint64_t)job->us;
    snprintf (message.sender, sizeof message.sender, "%s", name);
    tl_peer_send_tensor (self->peer, &message, *rows);
    *rows = NULL;
}

//  Lengths and positions are a client's claim: they index our tables, so they are checked here.
int
tl_worker_check_sequences (const tl_worker_t *self, const tl_sequence_t *sequences, size_t count,
                           uint64_t rows, tl_error_t *err)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const tl_sequence_t *it = &sequences[i];
        if (it->length < 1 || it->length > self->longest || it->context > it->length ||
            it->mask > it->length)
            return tl_fail (err, TL_CONNECTION,
                            "sequence %zu has length %llu, context %llu and mask position %llu: "
                            "expected 1 <= length <= %zu and the others within it",
                            i, (unsigned long long)it->length, (unsigned long long)it->context,
                            (unsigned long long)it->mask, self->longest);
        sum += it->length;
    }
    if (!count || sum != rows)
        return tl_fail (err, TL_CONNECTION, "%zu sequences of %llu rows came with %llu rows", count,
                        (unsigned long long)sum, (unsigned long long)rows);
    return 0;
}

tl_sequence_t *
tl_worker_copy (const tl_sequence_t *sequences, size_t count)
{
    tl_sequence_t *copy = tl_alloc (count * sizeof *copy);
    memcpy (copy, sequences, count * sizeof *copy);
    return copy;
}

//  Adds a chunk to *in. 1: whole, and moved to *whole; 0: more to come; -1: err says why not.
int
tl_worker_add (tl_worker_t *self, tl_assembly_t **in, tl_assembly_t **whole,
               const tl_message_t *message, const void *payload, size_t size, tl_error_t *err)
{
    const tl_tensor_wire_t *descriptor = tl_message_tensor (message);
    if (!*in)
        *in = tl_assembly_new (descriptor, self->hidden, self->topology->wire.max_message, err);
    int rc = *in ? tl_assembly_add (*in, descriptor, payload, size, err) : -1;
    if (rc == 1) {
        *whole = *in;
        *in = NULL;
    }
    return rc;
}

//  --- forward only -----------------------------------------------------------------------------

static void
s_drop_request (tl_worker_t *self, tl_request_t *gone)
{
    for (tl_request_t **link = &self->requests; *link; link = &(*link)->next)
        if (*link == gone) {
            *link = gone->next;
            tl_assembly_destroy (&gone->in);
            free (gone->sequences);
            free (gone);
            return;
        }
}

static void
s_on_served (tl_trunk_job_t *job)
{
    tl_worker_send_rows (job->owner, TL_FORWARDED, job, job->name, &job->shares[0].out);
}

static tl_request_t *
s_request (tl_worker_t *self, const tl_message_t *message)
{
    size_t count = 0;
    for (tl_request_t *it = self->requests; it; it = it->next, count++)
        if (it->number == message->step && strcmp (it->name, message->sender) == 0)
            return it;
    if (message->body.forward.tensor.offset != 0)
        return NULL;
    if (count >= MOST_ASKED)
        s_drop_request (self, self->requests);
    tl_error_t err;
    if (tl_worker_check_sequences (self, message->body.forward.sequences,
                                   message->body.forward.sequences_count,
                                   message->body.forward.tensor.rows, &err)) {
        tl_warn ("a FORWARD of %s is refused: %s", message->sender, err.text);
        return NULL;
    }
    tl_request_t *request = tl_alloc (sizeof *request);
    snprintf (request->name, sizeof request->name, "%s", message->sender);
    request->number = message->step;
    request->sequence_count = message->body.forward.sequences_count;
    request->sequences = tl_worker_copy (message->body.forward.sequences, request->sequence_count);
    tl_request_t **link = &self->requests;
    while (*link)
        link = &(*link)->next;
    *link = request;
    return request;
}

static void
s_on_forward_only (tl_worker_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    tl_request_t *request = s_request (self, message);
    if (!request)
        return;
    tl_error_t err = {0};
    tl_assembly_t *whole = NULL;
    int rc = tl_worker_add (self, &request->in, &whole, message, payload, size, &err);
    if (rc == 1) {
        tl_trunk_job_t *job = tl_worker_job (self, s_on_served);
        job->lasting = true;
        job->step = request->number;
        snprintf (job->name, sizeof job->name, "%s", request->name);
        job->shares = tl_alloc (sizeof *job->shares);
        job->share_count = 1;
        job->shares[0] = (tl_share_t){.rows = tl_assembly_rows (whole),
                                      .in = whole,
                                      .sequences = request->sequences,
                                      .sequence_count = request->sequence_count};
        request->sequences = NULL;
        //  Steps go first; between two of them there is always room for a request.
        tl_compute_submit_later (self->compute, self->work->serve, s_collected, tl_trunk_job_free,
                                 job);
    } else if (rc < 0)
        tl_warn ("a FORWARD of %s is refused: %s", message->sender, err.text);
    if (rc)
        s_drop_request (self, request);
}

//  --- the conversation -------------------------------------------------------------------------

static void
s_on_message (void *arg, const tl_message_t *message, const void *payload, size_t size)
{
    tl_worker_t *self = arg;
    tl_error_t err;
    if (tl_actor_state (self->actor) >= TL_WORKER_STOPPING)
        return;
    if (tl_save_settle_at (self->directory, self->run, message, &self->settled, &err)) {
        tl_worker_end (self, TL_FAILED, err.text);
        return;
    }
    switch (message->type) {
    case TL_PLAN:
        tl_worker_on_plan (self, message);
        break;
    case TL_ACTIVATION:
    case TL_GRADIENT:
    case TL_COMMIT:
        tl_worker_on_member (self, message, payload, size);
        break;
    case TL_LEAVE:
        tl_worker_on_leave (self, message);
        break;
    case TL_ABANDON:
        tl_worker_on_abandon (self, message);
        break;
    case TL_FORWARD:
        s_on_forward_only (self, message, payload, size);
        break;
    case TL_SAVE:
        tl_worker_on_save (self, message);
        break;
    case TL_STATE:
        tl_worker_on_state (self, message, payload, size);
        break;
    case TL_GATHER:
        tl_worker_on_gather (self, message);
        break;
    case TL_RESTORE:
        tl_worker_on_restore (self, message);
        break;
    default:
        tl_warn ("%s means nothing to a worker: ignored", tl_type_name (message->type));
    }
    s_mark_time (self);
}

static void
s_on_flowing (void *arg)
{
    s_mark_time (arg);
}

static void
s_on_ready (void *arg)
{
    tl_worker_t *self = arg;
    if (tl_actor_state (self->actor) >= TL_WORKER_STOPPING)
        return;
    //  Whatever trunk we held belongs to a session that is gone: the broker restores it, and a run that never had a
    //  worker begins at the start.
    if (self->run) {
        tl_worker_void (self);
        tl_worker_submit (self, self->work->restore, tl_worker_job (self, NULL));
    }
    self->held = 0;
    tl_error_t err;
    self->run = tl_peer_run (self->peer);
    self->settled = !self->trunk || tl_save_is_of (self->directory, self->run);
    if (!self->settled && tl_save_writable (self->directory, &err)) {
        tl_worker_end (self, TL_FAILED, err.text);
        return;
    }
    tl_actor_go (self->actor, TL_WORKER_IDLE, "session");
    tl_event ("ready", "{ss}", "name", self->name);
}

static void
s_on_lost (void *arg)
{
    tl_worker_t *self = arg;
    if (tl_actor_state (self->actor) >= TL_WORKER_STOPPING)
        return;
    if (self->told) {
        tl_worker_leave (self); //  behind the update, which nobody will hear of
        return;
    }
    tl_worker_void (self);
    self->last.is = false;
    while (self->requests)
        s_drop_request (self, self->requests);
    tl_actor_go (self->actor, TL_WORKER_JOINING, "session lost");
}

static void
s_on_end (void *arg, int code, const char *text)
{
    tl_worker_end (arg, code, text);
}

//  --- life -------------------------------------------------------------------------------------

//  A signal: the open step is left, what is committed is saved, then BYE. An update that is under way is a committed step as
//  soon as it is done, and everybody is to hear of it first.
static void
s_on_stop (void *arg)
{
    tl_worker_t *self = arg;
    if (tl_actor_state (self->actor) >= TL_WORKER_STOPPING)
        return;
    if (!self->run)
        tl_worker_end (self, 0, "");
    else if (tl_actor_state (self->actor) == TL_WORKER_UPDATING)
        self->told = true;
    else
        tl_worker_leave (self);
}

static void
s_on_computed (void *arg)
{
    tl_worker_t *self = arg;
    tl_compute_collect (self->compute);
}

//  What is to be agreed on is known: the conversation can begin.
static void
s_join (tl_worker_t *self)
{
    const tl_topology_t *t = self->topology;
    //  The credit of all clients' steps at once, as far as a link goes.
    uint64_t rows = t->train.batch_size * t->train.max_length, most = 0;
    for (size_t i = 0; i < t->client_count; i++)
        most = t->clients[i].synthetic.rows > most ? t->clients[i].synthetic.rows : most;
    uint64_t each = tl_window_bytes (t, self->trunk ? rows : t->train.micros * most, self->hidden);
    uint64_t messages = t->client_count * tl_window_messages (t, each);
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, t, TL_AGREE_ALL);
    if (self->trunk) {
        tl_agreements_bind (&agreements, "model", tl_trunk_manifest (self->trunk));
        tl_weights_bind (&self->weights, &agreements, true);
    } else
        tl_agreements_bind (&agreements, "model", "synthetic");
    tl_peer_config_t config = {
        .role = "worker",
        .name = self->name,
        .agreements = agreements.items,
        .agreement_count = agreements.count,
        .window_bytes = t->client_count * each,
        .window_messages = messages < TL_WINDOW_MESSAGES ? messages : TL_WINDOW_MESSAGES,
        .on_ready = s_on_ready,
        .on_lost = s_on_lost,
        .on_flowing = s_on_flowing,
        .on_message = s_on_message,
        .on_end = s_on_end,
        .arg = self,
    };
    tl_error_t err;
    self->peer = tl_peer_new (self->actor, t, &config, &err);
    tl_agreements_clear (&agreements);
    if (!self->peer)
        tl_worker_end (self, (int)err.code, err.text);
}

static void
s_on_weights (void *arg)
{
    tl_weights_t *weights = arg;
    tl_worker_t *self = weights->owner;
    if (tl_actor_state (self->actor) == TL_WORKER_OVER)
        return;
    if (weights->err.code)
        tl_worker_end (self, (int)weights->err.code, weights->err.text);
    else
        s_join (self);
}

static int
s_open_trunk (tl_worker_t *self, tl_error_t *err)
{
    if (tl_mkdirs (self->directory, err) ||
        !(self->trunk = tl_trunk_new (self->topology, self->index, err)))
        return -1;
    self->work = &tl_trunk_work;
    self->compute = tl_compute_new ();
    tl_actor_watch_fd (self->actor, tl_compute_fd (self->compute), s_on_computed, self);
    self->hidden = tl_trunk_hidden (self->trunk);
    self->longest = tl_trunk_longest (self->trunk);
    self->wanted = tl_trunk_owes_gradient (self->trunk);
    self->weights = (tl_weights_t){
        .part = tl_trunk_part (self->trunk), .directory = self->directory, .owner = self};
    tl_compute_submit (self->compute, tl_weights_read, s_on_weights, tl_weights_drop,
                       &self->weights);
    return 0;
}

static void
s_open_synthetic (tl_worker_t *self)
{
    const tl_topology_t *t = self->topology;
    self->work = &tl_synthetic_trunk_work;
    self->alarms = tl_alarms_new (self->actor);
    self->compute = tl_compute_new_timed (self->alarms);
    self->synthetic = tl_synthetic_part_new (t, &t->workers[self->index].synthetic, self->compute);
    self->hidden = t->model.hidden;
    self->longest = t->train.max_length;
    self->wanted = t->tune.parts & TL_PART_FRONT;
    s_join (self);
}

static int
s_open (tl_worker_t *self, tl_error_t *err)
{
    tl_footprint_begin (&self->footprint);
    if (tl_credentials_check (self->topology, "worker", self->name, err))
        return -1;
    if (!self->topology->model.synthetic)
        return s_open_trunk (self, err);
    s_open_synthetic (self);
    return 0;
}

int
tl_worker_run (const tl_topology_t *topology, size_t index, tl_error_t *err)
{
    tl_worker_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->index = index;
    self->name = topology->workers[index].name;
    self->err = err;
    self->directory = tl_save_directory (topology, self->name);
    char *title = tl_format ("worker/%s", self->name);
    self->actor = tl_actor_new (title, s_states, s_on_stop, self);
    free (title);
    tl_actor_timer (self->actor, TL_WAITING_TICK_MS, 0, s_mark_time, self);
    int code = s_open (self, err) == 0 ? tl_actor_run (self->actor, err) : (int)err->code;
    tl_compute_destroy (&self->compute);
    if (!self->peer || !tl_peer_run (self->peer))
        tl_save_unmake (self->directory);
    tl_peer_destroy (&self->peer);
    tl_worker_forget_step (self);
    while (self->requests)
        s_drop_request (self, self->requests);
    tl_assembly_destroy (&self->state_in);
    tl_assembly_destroy (&self->state);
    tl_footprint_end (&self->footprint);
    tl_trunk_destroy (&self->trunk);
    tl_synthetic_part_destroy (&self->synthetic);
    tl_alarms_destroy (&self->alarms);
    tl_actor_destroy (&self->actor);
    free (self->directory);
    free (self);
    return code;
}
