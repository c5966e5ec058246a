#include "worker.h"

#include "actors/actor.h"
#include "actors/agreement.h"
#include "actors/events.h"
#include "actors/footprint.h"
#include "actors/peer.h"
#include "actors/save.h"
#include "actors/trunk_job.h"
#include "actors/window.h"
#include "actors/compute.h"
#include "base/assert.h"
#include "clock.h"
#include "fed/parts.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_ASKED = 4096,        //  forward-only requests that may be half here
    STATE_SHIFT = 33          //  1 << that: bytes of a trunk's state, at most
};

static const char *const s_states [] = {"joining", "idle", "step", "updating", "over"};
enum { JOINING, IDLE, STEP, UPDATING, OVER };

//  One member's part in one micro.
typedef struct {
    tl_assembly_t *rows_in, *gradient_in;   //  coming in
    tl_assembly_t *rows, *gradient;         //  whole, until their job takes them
    tl_sequence_t *sequences;
    size_t sequence_count, row_count;       //  of ACTIVATION
    uint64_t labels;                        //  of GRADIENT
    bool computed;                          //  its rows went through forward
    bool used;                              //  its gradient went through backward
} tl_slot_t;

typedef struct {
    char name [TL_NAME_LIMIT];
    bool left;                //  no longer here
    bool committed;           //  its COMMIT came
    uint64_t labels;          //  of its gradients that were used
    tl_norm_term_t *terms;    //  of its COMMIT
    size_t term_count;
    tl_slot_t *slots;         //  [micros]
} tl_seat_t;

//  A forward-only request that is coming in.
typedef struct tl_request {
    struct tl_request *next;
    char name [TL_NAME_LIMIT];
    uint64_t number;
    tl_sequence_t *sequences;
    size_t sequence_count;
    tl_assembly_t *in;
} tl_request_t;

typedef struct {
    const tl_topology_t *topology;
    size_t index;
    const char *name;
    tl_actor_t *actor;
    tl_compute_t *compute;
    tl_peer_t *peer;
    tl_trunk_t *trunk;        //  the compute thread's while jobs are pending
    size_t hidden, longest;   //  columns of rows; rows of the longest sequence
    bool wanted;              //  clients want d(ACTIVATION)
    char *directory;
    uint64_t run;
    uint64_t epoch;           //  work of an older epoch is void
    uint64_t step, round;
    tl_seat_t *seats;         //  members of the open step, in plan order
    size_t seat_count, micros;
    size_t forwards, backwards;   //  micros whose job was submitted
    size_t computed;          //  micros whose backward is done
    bool open;
    struct {                  //  the last COMMITTED, for repeats
        bool is;
        uint64_t step, round, labels;
        double norm;
    } last;
    tl_request_t *requests;
    tl_assembly_t *state_in, *state;   //  STATE coming in; whole, until RESTORE
    tl_footprint_t footprint;
    tl_error_t *err;
} tl_worker_t;

static void s_advance (tl_worker_t *self);

static void
s_end (tl_worker_t *self, int code, const char *text)
{
    if (tl_actor_state (self->actor) == OVER)
        return;
    tl_actor_go (self->actor, OVER, "end");
    if (code)
        tl_fail (self->err, code, "%s", text);
    else if (*text)
        tl_info ("%s", text);
    tl_actor_end (self->actor, code);
}

//  --- jobs -------------------------------------------------------------------------------------

static void
s_collected (void *arg)
{
    tl_trunk_job_t *job = arg;
    tl_worker_t *self = job->owner;
    if (job->done && job->epoch == self->epoch) {
        if (job->err.code != TL_OK && !*job->text)
            s_end (self, job->err.code, job->err.text);
        else
            job->done (job);
    }
    tl_trunk_job_free (job);
}

static tl_trunk_job_t *
s_job (tl_worker_t *self, tl_trunk_job_fn *done)
{
    tl_trunk_job_t *job = tl_alloc (sizeof *job);
    job->trunk = self->trunk;
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
s_submit (tl_worker_t *self, tl_job_fn *run, tl_trunk_job_t *job)
{
    tl_compute_submit (self->compute, run, s_collected, tl_trunk_job_free, job);
}

//  --- the open step ----------------------------------------------------------------------------

static void
s_forget_step (tl_worker_t *self)
{
    for (size_t i = 0; i < self->seat_count; i++) {
        tl_seat_t *seat = &self->seats [i];
        for (size_t k = 0; k < self->micros; k++) {
            tl_assembly_destroy (&seat->slots [k].rows_in);
            tl_assembly_destroy (&seat->slots [k].gradient_in);
            tl_assembly_destroy (&seat->slots [k].rows);
            tl_assembly_destroy (&seat->slots [k].gradient);
            free (seat->slots [k].sequences);
        }
        free (seat->slots);
        free (seat->terms);
    }
    free (self->seats);
    self->seats = NULL;
    self->seat_count = self->micros = 0;
    self->open = false;
}

static void
s_void (tl_worker_t *self)
{
    s_forget_step (self);
    self->epoch++;
    s_submit (self, tl_trunk_job_drop, s_job (self, NULL));
}

static tl_seat_t *
s_seat (tl_worker_t *self, const char *name)
{
    for (size_t i = 0; i < self->seat_count; i++)
        if (strcmp (self->seats [i].name, name) == 0)
            return &self->seats [i];
    return NULL;
}

static void
s_on_plan (tl_worker_t *self, const tl_message_t *message)
{
    if (self->open)
        s_void (self);
    self->step = message->step;
    self->round = message->round;
    self->micros = message->body.plan.micros;
    self->seat_count = message->body.plan.members_count;
    if (self->micros != self->topology->train.micros ||
        self->seat_count > self->topology->client_count) {
        self->micros = self->seat_count = 0;
        s_end (self, TL_INTERNAL, "the plan doesn't fit the topology");
        return;
    }
    self->seats = tl_alloc ((self->seat_count + 1) * sizeof *self->seats);
    for (size_t i = 0; i < self->seat_count; i++) {
        snprintf (self->seats [i].name, sizeof self->seats [i].name, "%s",
                  message->body.plan.members [i].name);
        self->seats [i].slots = tl_alloc (self->micros * sizeof *self->seats [i].slots);
    }
    self->forwards = self->backwards = self->computed = 0;
    self->open = true;
    tl_actor_go (self->actor, STEP, "PLAN");
    s_submit (self, tl_trunk_job_begin, s_job (self, NULL));
}

//  --- forward ----------------------------------------------------------------------------------

static void
s_send_rows (tl_worker_t *self, tl_type_t type, const tl_trunk_job_t *job, const char *name,
             tl_packed_t **rows)
{
    tl_message_t message;
    tl_message_init (&message, type);
    message.step = job->step;
    message.round = job->round;
    message.micro = job->micro;
    snprintf (message.sender, sizeof message.sender, "%s", name);
    tl_peer_send_tensor (self->peer, &message, *rows);
    *rows = NULL;
}

static void
s_send_shares (tl_trunk_job_t *job, tl_type_t type)
{
    tl_worker_t *self = job->owner;
    for (size_t i = 0; i < job->share_count; i++) {
        tl_seat_t *seat = &self->seats [job->shares [i].member];
        if (!seat->left && job->shares [i].out)
            s_send_rows (self, type, job, seat->name, &job->shares [i].out);
    }
}

static void
s_on_forward (tl_trunk_job_t *job)
{
    s_send_shares (job, TL_HIDDEN);
}

//  True if every member that is still here has delivered its rows of that micro.
static bool
s_rows_ready (const tl_worker_t *self, size_t micro)
{
    for (size_t i = 0; i < self->seat_count; i++)
        if (!self->seats [i].left && !self->seats [i].slots [micro].rows)
            return false;
    return true;
}

static void
s_forward (tl_worker_t *self, size_t micro)
{
    tl_trunk_job_t *job = s_job (self, s_on_forward);
    job->micro = micro;
    job->shares = tl_alloc ((self->seat_count + 1) * sizeof *job->shares);
    for (size_t i = 0; i < self->seat_count; i++) {
        tl_slot_t *slot = &self->seats [i].slots [micro];
        if (self->seats [i].left || !slot->rows)
            continue;
        job->shares [job->share_count++] = (tl_share_t){.member = i,
                                                        .rows = slot->row_count,
                                                        .in = slot->rows,
                                                        .sequences = slot->sequences,
                                                        .sequence_count = slot->sequence_count};
        slot->rows = NULL;
        slot->sequences = NULL;
        slot->computed = true;
    }
    if (job->share_count)
        s_submit (self, tl_trunk_job_forward, job);
    else
        tl_trunk_job_free (job);
}

//  --- backward ---------------------------------------------------------------------------------

static void
s_on_backward (tl_trunk_job_t *job)
{
    tl_worker_t *self = job->owner;
    s_send_shares (job, TL_GRAD_IN);
    self->computed++;
    s_advance (self);
}

static bool
s_gradient_ready (const tl_worker_t *self, size_t micro)
{
    for (size_t i = 0; i < self->seat_count; i++) {
        const tl_slot_t *slot = &self->seats [i].slots [micro];
        if (slot->computed && !self->seats [i].left && !slot->gradient)
            return false;
    }
    return true;
}

//  Whoever is gone before its gradient came has zero gradient and no tokens; whoever came stays in.
static void
s_backward (tl_worker_t *self, size_t micro)
{
    tl_trunk_job_t *job = s_job (self, s_on_backward);
    job->micro = micro;
    job->wanted = self->wanted;
    job->shares = tl_alloc ((self->seat_count + 1) * sizeof *job->shares);
    for (size_t i = 0; i < self->seat_count; i++) {
        tl_slot_t *slot = &self->seats [i].slots [micro];
        if (!slot->computed)
            continue;
        job->shares [job->share_count++] =
            (tl_share_t){.member = i, .rows = slot->row_count, .in = slot->gradient};
        if (slot->gradient) {
            self->seats [i].labels += slot->labels;
            slot->used = true;
        }
        slot->gradient = NULL;
    }
    if (job->share_count)
        s_submit (self, tl_trunk_job_backward, job);
    else {
        self->computed++;
        tl_trunk_job_free (job);
    }
}

//  --- commit -----------------------------------------------------------------------------------

static void
s_send_committed (tl_worker_t *self, const char *name)
{
    tl_message_t message;
    tl_message_init (&message, TL_COMMITTED);
    message.step = self->last.step;
    message.round = self->last.round;
    message.body.committed.labels = self->last.labels;
    message.body.committed.norm = self->last.norm;
    snprintf (message.sender, sizeof message.sender, "%s", name);
    tl_peer_send (self->peer, &message);
}

//  Everybody hears it, the broker last: its word closes the step.
static void
s_close (tl_worker_t *self, uint64_t labels, double norm)
{
    self->last.is = true;
    self->last.step = self->step;
    self->last.round = self->round;
    self->last.labels = labels;
    self->last.norm = norm;
    for (size_t i = 0; i < self->seat_count && labels; i++)
        if (!self->seats [i].left)
            s_send_committed (self, self->seats [i].name);
    s_send_committed (self, "broker");
    s_forget_step (self);
    tl_actor_go (self->actor, IDLE, labels ? "committed" : "nothing to commit");
}

static void
s_on_update (tl_trunk_job_t *job)
{
    s_close (job->owner, job->labels, job->norm);
}

static void
s_update (tl_worker_t *self)
{
    uint64_t labels = 0;
    size_t terms = 0;
    for (size_t i = 0; i < self->seat_count; i++) {
        labels += self->seats [i].labels;
        terms += self->seats [i].left ? 0 : self->seats [i].term_count;
    }
    if (!labels) {
        s_submit (self, tl_trunk_job_drop, s_job (self, NULL));
        s_close (self, 0, 0);
        return;
    }
    tl_trunk_job_t *job = s_job (self, s_on_update);
    job->labels = labels;
    job->terms = tl_alloc ((terms + 1) * sizeof *job->terms);
    for (size_t i = 0; i < self->seat_count; i++) {
        const tl_seat_t *seat = &self->seats [i];
        if (seat->left || !seat->term_count)
            continue;
        memcpy (job->terms + job->term_count, seat->terms, seat->term_count * sizeof *seat->terms);
        job->term_count += seat->term_count;
    }
    tl_actor_go (self->actor, UPDATING, "all committed");
    s_submit (self, tl_trunk_job_update, job);
}

//  Whatever can go on now goes on: forwards and backwards in micro order, then the update.
static void
s_advance (tl_worker_t *self)
{
    if (!self->open || tl_actor_state (self->actor) != STEP)
        return;
    while (self->forwards < self->micros && s_rows_ready (self, self->forwards))
        s_forward (self, self->forwards++);
    while (self->backwards < self->forwards && s_gradient_ready (self, self->backwards))
        s_backward (self, self->backwards++);
    if (self->computed < self->micros)
        return;
    for (size_t i = 0; i < self->seat_count; i++)
        if (!self->seats [i].left && !self->seats [i].committed)
            return;
    s_update (self);
}

//  --- rows that come in ------------------------------------------------------------------------

//  Lengths and positions are a client's claim: they index our tables, so they are checked here.
static int
s_check_sequences (const tl_worker_t *self, const tl_sequence_t *sequences, size_t count,
                   uint64_t rows, tl_error_t *err)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const tl_sequence_t *it = &sequences [i];
        if (it->length < 1 || it->length > self->longest || it->context > it->length ||
            it->mask > it->length)
            return tl_fail (err, TL_CONNECTION,
                            "sequence %zu has length %llu, context %llu and mask position %llu: "
                            "expected 1 <= length <= %zu and the others within it",
                            i, (unsigned long long) it->length, (unsigned long long) it->context,
                            (unsigned long long) it->mask, self->longest);
        sum += it->length;
    }
    if (!count || sum != rows)
        return tl_fail (err, TL_CONNECTION, "%zu sequences of %llu rows came with %llu rows", count,
                        (unsigned long long) sum, (unsigned long long) rows);
    return 0;
}

static tl_sequence_t *
s_copy (const tl_sequence_t *sequences, size_t count)
{
    tl_sequence_t *copy = tl_alloc (count * sizeof *copy);
    memcpy (copy, sequences, count * sizeof *copy);
    return copy;
}

//  Adds a chunk to *in. 1: whole, and moved to *whole; 0: more to come; -1: err says why not.
static int
s_add (tl_worker_t *self, tl_assembly_t **in, tl_assembly_t **whole, const tl_message_t *message,
       const void *payload, size_t size, tl_error_t *err)
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

//  A member that breaks the rules is out of the step, as if it had left; the others go on.
static void
s_expel (tl_worker_t *self, tl_seat_t *seat, const tl_error_t *err)
{
    tl_warn ("%s is out of step %llu: %s", seat->name, (unsigned long long) self->step, err->text);
    seat->left = true;
}

static void
s_on_activation (tl_worker_t *self, tl_seat_t *seat, const tl_message_t *message,
                 const void *payload, size_t size)
{
    tl_slot_t *slot = &seat->slots [message->micro];
    tl_error_t err = {0};
    if (slot->rows || slot->computed)
        return;   //  repeated: known already
    const tl_tensor_wire_t *descriptor = &message->body.activation.tensor;
    if (descriptor->offset == 0) {
        size_t count = message->body.activation.sequences_count;
        if (s_check_sequences (self, message->body.activation.sequences, count, descriptor->rows,
                               &err)) {
            s_expel (self, seat, &err);
            return;
        }
        free (slot->sequences);
        tl_assembly_destroy (&slot->rows_in);
        slot->sequences = s_copy (message->body.activation.sequences, count);
        slot->sequence_count = count;
        slot->row_count = descriptor->rows;
    }
    if (s_add (self, &slot->rows_in, &slot->rows, message, payload, size, &err) < 0)
        s_expel (self, seat, &err);
}

static void
s_on_gradient (tl_worker_t *self, tl_seat_t *seat, const tl_message_t *message,
               const void *payload, size_t size)
{
    tl_slot_t *slot = &seat->slots [message->micro];
    tl_error_t err = {0};
    if (!slot->computed || slot->gradient || slot->used)
        return;   //  early or repeated
    if (message->body.gradient.tensor.rows != slot->row_count) {
        tl_fail (&err, TL_CONNECTION, "its GRADIENT has %llu rows, its ACTIVATION had %zu",
                 (unsigned long long) message->body.gradient.tensor.rows, slot->row_count);
        s_expel (self, seat, &err);
        return;
    }
    slot->labels = message->body.gradient.labels;
    if (s_add (self, &slot->gradient_in, &slot->gradient, message, payload, size, &err) < 0)
        s_expel (self, seat, &err);
}

static void
s_on_commit (tl_worker_t *self, tl_seat_t *seat, const tl_message_t *message)
{
    if (seat->committed)
        return;
    seat->committed = true;
    seat->term_count = message->body.commit.squares_count;
    seat->terms = tl_alloc ((seat->term_count + 1) * sizeof *seat->terms);
    for (size_t i = 0; i < seat->term_count; i++)
        seat->terms [i] = (tl_norm_term_t){message->body.commit.squares [i].order,
                                           message->body.commit.squares [i].square};
}

static void
s_on_member (tl_worker_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    if (!self->open || message->step != self->step) {
        //  The answer to a COMMIT may have been lost with a session: the last one is still known.
        if (message->type == TL_COMMIT && self->last.is && self->last.labels &&
            message->step == self->last.step)
            s_send_committed (self, message->sender);
        return;
    }
    tl_seat_t *seat = s_seat (self, message->sender);
    if (!seat || seat->left || message->micro >= self->micros)
        return;
    if (message->type == TL_ACTIVATION)
        s_on_activation (self, seat, message, payload, size);
    else if (message->type == TL_GRADIENT)
        s_on_gradient (self, seat, message, payload, size);
    else
        s_on_commit (self, seat, message);
    s_advance (self);
}

static void
s_on_leave (tl_worker_t *self, const tl_message_t *message)
{
    tl_seat_t *seat = self->open && message->step == self->step
                          ? s_seat (self, message->body.leave.name)
                          : NULL;
    if (seat) {
        seat->left = true;
        s_advance (self);
    }
}

static void
s_on_abandon (tl_worker_t *self, const tl_message_t *message)
{
    //  While the update runs it is too late: the step commits.
    if (!self->open || message->step != self->step || tl_actor_state (self->actor) != STEP)
        return;
    self->epoch++;
    s_submit (self, tl_trunk_job_drop, s_job (self, NULL));
    s_close (self, 0, 0);
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
    s_send_rows (job->owner, TL_FORWARDED, job, job->name, &job->shares [0].out);
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
    if (s_check_sequences (self, message->body.forward.sequences,
                           message->body.forward.sequences_count,
                           message->body.forward.tensor.rows, &err)) {
        tl_warn ("a FORWARD of %s is refused: %s", message->sender, err.text);
        return NULL;
    }
    tl_request_t *request = tl_alloc (sizeof *request);
    snprintf (request->name, sizeof request->name, "%s", message->sender);
    request->number = message->step;
    request->sequence_count = message->body.forward.sequences_count;
    request->sequences = s_copy (message->body.forward.sequences, request->sequence_count);
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
    int rc = s_add (self, &request->in, &whole, message, payload, size, &err);
    if (rc == 1) {
        tl_trunk_job_t *job = s_job (self, s_on_served);
        job->step = request->number;
        snprintf (job->name, sizeof job->name, "%s", request->name);
        job->shares = tl_alloc (sizeof *job->shares);
        job->share_count = 1;
        job->shares [0] = (tl_share_t){.rows = tl_assembly_rows (whole),
                                       .in = whole,
                                       .sequences = request->sequences,
                                       .sequence_count = request->sequence_count};
        request->sequences = NULL;
        s_submit (self, tl_trunk_job_serve, job);
    } else if (rc < 0)
        tl_warn ("a FORWARD of %s is refused: %s", message->sender, err.text);
    if (rc)
        s_drop_request (self, request);
}

//  --- saves ------------------------------------------------------------------------------------

static void
s_answer (tl_trunk_job_t *job, tl_type_t type)
{
    tl_worker_t *self = job->owner;
    tl_message_t message;
    tl_message_init (&message, type);
    message.step = job->step;
    message.round = job->round;
    snprintf (message.sender, sizeof message.sender, "broker");
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
s_on_saved (tl_trunk_job_t *job)
{
    tl_worker_t *self = job->owner;
    if (job->err.code == TL_OK) {
        tl_message_t message;
        tl_message_init (&message, TL_STATE);
        message.step = job->step;
        snprintf (message.sender, sizeof message.sender, "broker");
        tl_peer_send_tensor (self->peer, &message, job->state);
        job->state = NULL;
    }
    s_answer (job, TL_SAVED);
}

static void
s_on_restored (tl_trunk_job_t *job)
{
    s_answer (job, TL_RESTORED);
}

static void
s_on_save (tl_worker_t *self, const tl_message_t *message)
{
    tl_trunk_job_t *job = s_job (self, s_on_saved);
    job->step = message->step;
    job->directory = tl_strdup (self->directory);
    s_submit (self, tl_trunk_job_save, job);
}

static void
s_on_state (tl_worker_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    const tl_tensor_wire_t *descriptor = &message->body.state.tensor;
    tl_error_t err = {0};
    if (descriptor->offset == 0) {
        tl_assembly_destroy (&self->state_in);
        tl_assembly_destroy (&self->state);
        self->state_in = tl_assembly_new (descriptor, 1, (size_t) 1 << STATE_SHIFT, &err);
    }
    int rc = self->state_in ? tl_assembly_add (self->state_in, descriptor, payload, size, &err) : -1;
    if (rc == 1) {
        self->state = self->state_in;
        self->state_in = NULL;
    } else if (rc < 0)
        s_end (self, TL_CONNECTION, *err.text ? err.text : "STATE came in pieces that don't fit");
}

static void
s_on_restore (tl_worker_t *self, const tl_message_t *message)
{
    s_void (self);
    tl_trunk_job_t *job = s_job (self, s_on_restored);
    job->step = message->step;
    job->blob = self->state;
    self->state = NULL;
    self->last.is = false;
    tl_actor_go (self->actor, IDLE, "RESTORE");
    s_submit (self, tl_trunk_job_restore, job);
}

//  --- the conversation -------------------------------------------------------------------------

static void
s_on_message (void *arg, const tl_message_t *message, const void *payload, size_t size)
{
    tl_worker_t *self = arg;
    switch (message->type) {
    case TL_PLAN:
        s_on_plan (self, message);
        break;
    case TL_ACTIVATION:
    case TL_GRADIENT:
    case TL_COMMIT:
        s_on_member (self, message, payload, size);
        break;
    case TL_LEAVE:
        s_on_leave (self, message);
        break;
    case TL_ABANDON:
        s_on_abandon (self, message);
        break;
    case TL_FORWARD:
        s_on_forward_only (self, message, payload, size);
        break;
    case TL_SAVE:
        s_on_save (self, message);
        break;
    case TL_STATE:
        s_on_state (self, message, payload, size);
        break;
    case TL_RESTORE:
        s_on_restore (self, message);
        break;
    default:
        tl_warn ("%s means nothing to a worker: ignored", tl_type_name (message->type));
    }
}

static void
s_on_ready (void *arg)
{
    tl_worker_t *self = arg;
    //  Whatever trunk we held belongs to a session that is gone: the broker restores it, and a run that never had a
    //  worker begins at the start.
    if (self->run) {
        s_void (self);
        s_submit (self, tl_trunk_job_restore, s_job (self, NULL));
    }
    self->run = tl_peer_run (self->peer);
    tl_actor_go (self->actor, IDLE, "session");
    tl_event ("ready", "{ss}", "name", self->name);
}

static void
s_on_lost (void *arg)
{
    tl_worker_t *self = arg;
    s_void (self);
    self->last.is = false;
    while (self->requests)
        s_drop_request (self, self->requests);
    tl_actor_go (self->actor, JOINING, "session lost");
}

static void
s_on_end (void *arg, int code, const char *text)
{
    s_end (arg, code, text);
}

static void
s_on_stop (void *arg)
{
    //  The trunk's common saves are at the broker: nothing of ours is lost by leaving.
    s_end (arg, 0, "left by signal");
}

static void
s_on_computed (void *arg)
{
    tl_worker_t *self = arg;
    tl_compute_collect (self->compute);
}

static int
s_open (tl_worker_t *self, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    tl_footprint_begin (&self->footprint);
    if (tl_mkdirs (self->directory, err) || !(self->trunk = tl_trunk_new (t, self->index, err)))
        return -1;
    self->hidden = tl_trunk_hidden (self->trunk);
    self->longest = tl_trunk_longest (self->trunk);
    self->wanted = t->tune.parts & (TL_PART_FRONT | TL_PART_TAIL);
    //  The credit of all clients' steps at once.
    uint64_t window =
        t->client_count * tl_window_bytes (t, t->train.batch_size * t->train.max_length, self->hidden);
    tl_plan_t plan;
    tl_trunk_plan (self->trunk, &plan);
    tl_footprint_plan (&self->footprint, &plan, 2 * window);
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, t, tl_trunk_manifest (self->trunk), NULL);
    tl_peer_config_t config = {
        .role = "worker",
        .name = self->name,
        .agreements = agreements.items,
        .agreement_count = agreements.count,
        .window_bytes = window,
        .window_messages = t->client_count * tl_window_messages (t, window / t->client_count),
        .on_ready = s_on_ready,
        .on_lost = s_on_lost,
        .on_message = s_on_message,
        .on_end = s_on_end,
        .arg = self,
    };
    self->peer = tl_peer_new (self->actor, t, &config, err);
    tl_agreements_clear (&agreements);
    return self->peer ? 0 : -1;
}

int
tl_worker_run (const tl_topology_t *topology, size_t index, tl_error_t *err)
{
    tl_worker_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->index = index;
    self->name = topology->workers [index].name;
    self->err = err;
    self->directory = tl_save_directory (topology, self->name);
    char *title = tl_format ("worker/%s", self->name);
    self->actor = tl_actor_new (title, s_states, s_on_stop, self);
    free (title);
    self->compute = tl_compute_new ();
    tl_actor_watch_fd (self->actor, tl_compute_fd (self->compute), s_on_computed, self);
    int code = s_open (self, err) == 0 ? tl_actor_run (self->actor) : (int) err->code;
    tl_compute_destroy (&self->compute);
    tl_peer_destroy (&self->peer);
    s_forget_step (self);
    while (self->requests)
        s_drop_request (self, self->requests);
    tl_assembly_destroy (&self->state_in);
    tl_assembly_destroy (&self->state);
    tl_footprint_end (&self->footprint);
    tl_trunk_destroy (&self->trunk);
    tl_actor_destroy (&self->actor);
    free (self->directory);
    free (self);
    return code;
}
