//  worker_step: the open step, from PLAN to COMMITTED. Forwards and backwards run in micro order, each as soon as every member
//  that is still here has delivered; the update when all have committed.

#include "actors/ask.h"
#include "actors/events.h"
#include "actors/window.h"
#include "actors/worker_internal.h"
#include "clock.h"
#include "fed/parts.h"
#include "log.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void s_advance (tl_worker_t *self);
static void s_expel (tl_worker_t *self, tl_seat_t *seat, const tl_error_t *err);

static void
s_drop (tl_worker_t *self)
{
    tl_worker_submit (self, self->work->drop, tl_worker_job (self, NULL));
}

//  --- the open step ----------------------------------------------------------------------------

void
tl_worker_forget_step (tl_worker_t *self)
{
    for (size_t i = 0; i < self->seat_count; i++) {
        tl_seat_t *seat = &self->seats[i];
        for (size_t k = 0; k < self->micros; k++) {
            tl_assembly_destroy (&seat->slots[k].rows_in);
            tl_assembly_destroy (&seat->slots[k].gradient_in);
            tl_assembly_destroy (&seat->slots[k].rows);
            tl_assembly_destroy (&seat->slots[k].gradient);
            free (seat->slots[k].sequences);
        }
        free (seat->slots);
        free (seat->terms);
    }
    free (self->seats);
    self->seats = NULL;
    self->seat_count = self->micros = 0;
    self->rows_from = self->gradients_from = 0;
    self->open = false;
}

void
tl_worker_void (tl_worker_t *self)
{
    tl_worker_forget_step (self);
    self->epoch++;
    self->voids++;
    s_drop (self);
}

//  Members stand in the plan as they stand in the topology.
static int
s_compare_seat (const void *key, const void *seat)
{
    int index = *(const int *)key, other = (int)((const tl_seat_t *)seat)->index;
    return index < other ? -1 : index > other;
}

static tl_seat_t *
s_seat (tl_worker_t *self, const char *name)
{
    int index = tl_topology_client (self->topology, name);
    return index < 0 ? NULL
                     : bsearch (&index, self->seats, self->seat_count, sizeof *self->seats,
                                s_compare_seat);
}

//  The trunk sees no text: how large a micro may become is known when the clients have said so, with the first PLAN. A
//  later one that says more (a client that came late) makes a new plan.
static void
s_plan_memory (tl_worker_t *self, uint64_t rows, uint64_t longest, tl_trunk_job_t *begin)
{
    const tl_topology_t *t = self->topology;
    //  Claims: nobody who keeps to the settings has more.
    uint64_t sharers = t->schedule.mode == TL_MODE_SERIAL ? 1 : t->client_count;
    uint64_t most = sharers * ((t->train.batch_size + t->train.micros - 1) / t->train.micros) *
                    t->train.max_length;
    rows = rows < most ? rows : most;
    longest = longest < t->train.max_length ? longest : t->train.max_length;
    if (rows <= self->planned_rows)
        return;
    self->planned_rows = begin->rows = rows;
    begin->longest = longest;
}

//  The step has begun; with it, perhaps, the memory for larger micros was planned.
static void
s_on_begun (tl_trunk_job_t *job)
{
    tl_worker_t *self = job->owner;
    if (job->rows)
        tl_footprint_plan (&self->footprint, &job->plan,
                           tl_footprint_worker (self->topology, job->rows, self->hidden));
}

void
tl_worker_on_plan (tl_worker_t *self, const tl_message_t *message)
{
    if (self->open)
        tl_worker_void (self);
    self->step = message->step;
    self->round = message->round;
    self->micros = message->body.plan.micros;
    self->seat_count = message->body.plan.members_count;
    if (self->micros != self->topology->train.micros ||
        self->seat_count > self->topology->client_count) {
        self->micros = self->seat_count = 0;
        tl_worker_end (self, TL_INTERNAL, "the plan doesn't fit the topology");
        return;
    }
    self->seats = tl_alloc ((self->seat_count + 1) * sizeof *self->seats);
    for (size_t i = 0; i < self->seat_count; i++) {
        snprintf (self->seats[i].name, sizeof self->seats[i].name, "%s",
                  message->body.plan.members[i].name);
        self->seats[i].index = message->body.plan.members[i].index;
        self->seats[i].round = message->round;
        self->seats[i].slots = tl_alloc (self->micros * sizeof *self->seats[i].slots);
    }
    //  split: none: there is nothing to compute here, and the step is over when all have committed.
    self->forwards = self->backwards = self->computed =
        self->topology->split.none ? self->micros : 0;
    self->untold_us = 0;
    self->open = true;
    tl_actor_go (self->actor, TL_WORKER_STEP, "PLAN");
    tl_trunk_job_t *begin = tl_worker_job (self, s_on_begun);
    begin->lasting = true;
    s_plan_memory (self, message->body.plan.rows, message->body.plan.longest, begin);
    tl_worker_submit (self, self->work->begin, begin);
}

//  --- forward ----------------------------------------------------------------------------------

//  Rows that are not numbers were taken for zeros; whoever sent them is out.
static void
s_send_shares (tl_trunk_job_t *job, tl_type_t type)
{
    tl_worker_t *self = job->owner;
    for (size_t i = 0; i < job->share_count; i++) {
        tl_seat_t *seat = &self->seats[job->shares[i].member];
        if (job->shares[i].bad && !seat->left) {
            tl_error_t err;
            tl_fail (
                &err, TL_CONNECTION,
                "what it sent for micro %llu of step %llu is not made of finite numbers; lower "
                "train.lr, look at its data, or set wire.dtype: fp32",
                (unsigned long long)job->micro + 1, (unsigned long long)job->step + 1);
            s_expel (self, seat, &err);
        }
        if (!seat->left && job->shares[i].out)
            tl_worker_send_rows (self, type, job, seat->name, &job->shares[i].out);
    }
}

static void
s_on_forward (tl_trunk_job_t *job)
{
    s_send_shares (job, TL_HIDDEN);
    s_advance (job->owner);
}

//  True if every member that is still here has delivered its rows of that micro, the next to go forward. Who has stays so:
//  the next look begins at the first who had not, for this is asked at every message.
static bool
s_rows_ready (tl_worker_t *self, size_t micro)
{
    for (size_t *i = &self->rows_from; *i < self->seat_count; ++*i)
        if (!self->seats[*i].left && !self->seats[*i].slots[micro].rows)
            return false;
    self->rows_from = 0;
    return true;
}

static void
s_forward (tl_worker_t *self, size_t micro)
{
    tl_trunk_job_t *job = tl_worker_job (self, s_on_forward);
    job->micro = micro;
    job->shares = tl_alloc ((self->seat_count + 1) * sizeof *job->shares);
    for (size_t i = 0; i < self->seat_count; i++) {
        tl_slot_t *slot = &self->seats[i].slots[micro];
        if (self->seats[i].left || !slot->rows)
            continue;
        job->shares[job->share_count++] = (tl_share_t){.member = i,
                                                       .rows = slot->row_count,
                                                       .in = slot->rows,
                                                       .sequences = slot->sequences,
                                                       .sequence_count = slot->sequence_count};
        slot->rows = NULL;
        slot->sequences = NULL;
        slot->computed = true;
    }
    if (job->share_count)
        tl_worker_submit (self, self->work->forward, job);
    else
        tl_trunk_job_free (job);
}

//  --- backward ---------------------------------------------------------------------------------

static void
s_on_backward (tl_trunk_job_t *job)
{
    tl_worker_t *self = job->owner;
    for (size_t i = 0; i < job->share_count; i++) {
        tl_seat_t *seat = &self->seats[job->shares[i].member];
        if (job->shares[i].bad)
            seat->labels -= seat->slots[job->micro].labels;
    }
    s_send_shares (job, TL_GRAD_IN);
    self->untold_us += self->wanted ? 0 : (uint64_t)job->us;
    self->computed++;
    s_advance (self);
}

//  The same of gradients.
static bool
s_gradient_ready (tl_worker_t *self, size_t micro)
{
    for (size_t *i = &self->gradients_from; *i < self->seat_count; ++*i) {
        const tl_slot_t *slot = &self->seats[*i].slots[micro];
        if (slot->computed && !self->seats[*i].left && !slot->gradient)
            return false;
    }
    self->gradients_from = 0;
    return true;
}

//  Whoever is gone before its gradient came has zero gradient and no tokens; whoever came stays in.
static void
s_backward (tl_worker_t *self, size_t micro)
{
    tl_trunk_job_t *job = tl_worker_job (self, s_on_backward);
    job->micro = micro;
    job->wanted = self->wanted;
    job->shares = tl_alloc ((self->seat_count + 1) * sizeof *job->shares);
    for (size_t i = 0; i < self->seat_count; i++) {
        tl_slot_t *slot = &self->seats[i].slots[micro];
        if (!slot->computed)
            continue;
        job->shares[job->share_count++] =
            (tl_share_t){.member = i, .rows = slot->row_count, .in = slot->gradient};
        if (slot->gradient) {
            self->seats[i].labels += slot->labels;
            slot->used = true;
        }
        slot->gradient = NULL;
    }
    if (job->share_count)
        tl_worker_submit (self, self->work->backward, job);
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
    message.body.committed.compute_us = self->last.us;
    if (strcmp (name, "broker") == 0) {
        tl_waiting_mark (&self->waiting, self->waiting.now, tl_clock_us ());
        message.body.committed.waited_input_us = (uint64_t)self->waiting.us[TL_WAITING_INPUT];
        message.body.committed.waited_commit_us = (uint64_t)self->waiting.us[TL_WAITING_COMMIT];
        message.body.committed.waited_credit_us = (uint64_t)self->waiting.us[TL_WAITING_CREDIT];
    }
    snprintf (message.sender, sizeof message.sender, "%s", name);
    tl_peer_send (self->peer, &message);
}

//  What the trunk learnt from: all of each member's micros, but for who left before it had delivered them; with split: none
//  what is counted, all of whoever committed.
static void
s_tell_learnt (const tl_worker_t *self)
{
    if (!tl_events_heard ())
        return;
    json_t *members = json_array (), *rounds = json_array (), *left = json_array ();
    for (size_t i = 0; i < self->seat_count; i++) {
        const tl_seat_t *seat = &self->seats[i];
        json_int_t rows = 0, gradients = 0;
        bool whole = self->topology->split.none && seat->committed;
        for (size_t k = 0; k < self->micros; k++) {
            rows += whole || seat->slots[k].computed;
            gradients += whole || seat->slots[k].used;
        }
        json_array_append_new (members, json_string (seat->name));
        json_array_append_new (rounds, json_integer ((json_int_t)seat->round));
        if (seat->left)
            json_array_append_new (left, json_pack ("{sssIsI}", "name", seat->name, "rows", rows,
                                                    "gradients", gradients));
    }
    tl_event ("learnt", "{sIsIsIsfsososo}", "step", (json_int_t)self->step, "round",
              (json_int_t)self->round, "labels", (json_int_t)self->last.labels, "norm",
              self->last.norm, "members", members, "rounds", rounds, "left", left);
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
    self->last.us = self->untold_us;
    self->held = self->step + (labels ? 1 : 0);
    if (labels)
        s_tell_learnt (self);
    for (size_t i = 0; i < self->seat_count && labels; i++)
        if (!self->seats[i].left)
            s_send_committed (self, self->seats[i].name);
    s_send_committed (self, "broker");
    tl_worker_forget_step (self);
    tl_actor_go (self->actor, TL_WORKER_IDLE, labels ? "committed" : "nothing to commit");
    if (self->told)
        tl_worker_leave (self);
}

static void
s_on_update (tl_trunk_job_t *job)
{
    ((tl_worker_t *)job->owner)->untold_us += (uint64_t)job->us;
    if (job->err.code) {
        tl_warn ("step %llu changes nothing: %s", (unsigned long long)job->step + 1, job->err.text);
        s_drop (job->owner);
        s_close (job->owner, 0, 0);
    } else
        s_close (job->owner, job->labels, job->norm);
}

static void
s_update (tl_worker_t *self)
{
    uint64_t labels = 0;
    size_t terms = 0;
    for (size_t i = 0; i < self->seat_count; i++) {
        labels += self->seats[i].labels;
        terms += self->seats[i].left ? 0 : self->seats[i].term_count;
    }
    if (!labels) {
        s_drop (self);
        s_close (self, 0, 0);
        return;
    }
    tl_trunk_job_t *job = tl_worker_job (self, s_on_update);
    job->labels = labels;
    job->terms = tl_alloc ((terms + 1) * sizeof *job->terms);
    for (size_t i = 0; i < self->seat_count; i++) {
        const tl_seat_t *seat = &self->seats[i];
        if (seat->left || !seat->term_count)
            continue;
        //  Of clients that all have the same gradient any one tells of it.
        if (job->term_count && self->topology->federate.clients == TL_CLIENTS_SYNC)
            break;
        memcpy (job->terms + job->term_count, seat->terms, seat->term_count * sizeof *seat->terms);
        job->term_count += seat->term_count;
    }
    tl_actor_go (self->actor, TL_WORKER_UPDATING, "all committed");
    self->held = self->step + 1; //  also if the session is lost before we hear of it
    tl_worker_submit (self, self->work->update, job);
}

//  Whatever can go on now goes on: forwards and backwards in micro order, then the update.
static void
s_advance (tl_worker_t *self)
{
    if (!self->open || tl_actor_state (self->actor) != TL_WORKER_STEP)
        return;
    while (self->forwards < self->micros && s_rows_ready (self, self->forwards))
        s_forward (self, self->forwards++);
    while (self->backwards < self->forwards && s_gradient_ready (self, self->backwards))
        s_backward (self, self->backwards++);
    if (self->computed < self->micros)
        return;
    for (size_t i = 0; i < self->seat_count; i++)
        if (!self->seats[i].left && !self->seats[i].committed)
            return;
    s_update (self);
}

//  --- rows that come in ------------------------------------------------------------------------

//  A member that breaks the rules is out of the step, as if it had left, and its session ends; the others go on.
static void
s_expel (tl_worker_t *self, tl_seat_t *seat, const tl_error_t *err)
{
    tl_warn ("%s is out of step %llu: %s", seat->name, (unsigned long long)self->step + 1,
             err->text);
    seat->left = true;
    tl_message_t message;
    tl_message_init (&message, TL_LEAVE);
    message.step = self->step;
    message.body.leave.name = seat->name;
    message.body.leave.text = err->text;
    snprintf (message.sender, sizeof message.sender, "broker");
    tl_peer_send (self->peer, &message);
}

//  A member's micro is never more than its whole batch: memory is planned for that.
static int
s_check_size (const tl_worker_t *self, const tl_sequence_t *sequences, size_t count,
              tl_error_t *err)
{
    size_t batch = self->topology->train.batch_size, most = self->topology->train.max_length;
    uint64_t longest = 0;
    for (size_t i = 0; i < count; i++)
        longest = sequences[i].length > longest ? sequences[i].length : longest;
    if (count <= batch && longest <= most)
        return 0;
    return tl_fail (
        err, TL_CONNECTION,
        "%zu sequences of up to %llu rows came in one ACTIVATION: expected at most %zu of "
        "up to %zu, as train.batch_size and train.max_length say",
        count, (unsigned long long)longest, batch, most);
}

static void
s_on_activation (tl_worker_t *self, tl_seat_t *seat, const tl_message_t *message,
                 const void *payload, size_t size)
{
    tl_slot_t *slot = &seat->slots[message->micro];
    tl_error_t err = {0};
    if (slot->rows || slot->computed)
        return; //  repeated: known already
    const tl_tensor_wire_t *descriptor = &message->body.activation.tensor;
    if (descriptor->offset == 0) {
        size_t count = message->body.activation.sequences_count;
        if (tl_worker_check_sequences (self, message->body.activation.sequences, count,
                                       descriptor->rows, &err) ||
            s_check_size (self, message->body.activation.sequences, count, &err)) {
            s_expel (self, seat, &err);
            return;
        }
        seat->round = message->round;
        free (slot->sequences);
        tl_assembly_destroy (&slot->rows_in);
        slot->sequences = tl_worker_copy (message->body.activation.sequences, count);
        slot->sequence_count = count;
        slot->row_count = descriptor->rows;
    }
    if (tl_worker_add (self, &slot->rows_in, &slot->rows, message, payload, size, &err) < 0)
        s_expel (self, seat, &err);
}

static void
s_on_gradient (tl_worker_t *self, tl_seat_t *seat, const tl_message_t *message, const void *payload,
               size_t size)
{
    tl_slot_t *slot = &seat->slots[message->micro];
    tl_error_t err = {0};
    if (!slot->computed || slot->gradient || slot->used)
        return; //  early or repeated
    if (message->body.gradient.tensor.rows != slot->row_count) {
        tl_fail (&err, TL_CONNECTION, "its GRADIENT has %llu rows, its ACTIVATION had %zu",
                 (unsigned long long)message->body.gradient.tensor.rows, slot->row_count);
        s_expel (self, seat, &err);
        return;
    }
    if (message->body.gradient.labels > slot->row_count) {
        tl_fail (&err, TL_CONNECTION, "its GRADIENT counts %llu label tokens in %zu rows",
                 (unsigned long long)message->body.gradient.labels, slot->row_count);
        s_expel (self, seat, &err);
        return;
    }
    slot->labels = message->body.gradient.labels;
    if (tl_worker_add (self, &slot->gradient_in, &slot->gradient, message, payload, size, &err) < 0)
        s_expel (self, seat, &err);
}

static void
s_on_commit (tl_worker_t *self, tl_seat_t *seat, const tl_message_t *message)
{
    const tl_topology_t *t = self->topology;
    uint64_t labels = message->body.commit.labels, most = t->train.batch_size * t->train.max_length;
    if (seat->committed)
        return;
    if (t->split.none && labels > most) {
        tl_error_t err = {0};
        tl_fail (&err, TL_CONNECTION,
                 "its COMMIT counts %llu label tokens, a step has at most %llu",
                 (unsigned long long)labels, (unsigned long long)most);
        s_expel (self, seat, &err);
        return;
    }
    seat->committed = true;
    if (t->split.none)
        seat->labels = labels;
    //  Where each clips by its own norm a member's squares are not the others' business.
    seat->term_count = tl_norm_is_joint (t) ? message->body.commit.squares_count : 0;
    seat->terms = tl_alloc ((seat->term_count + 1) * sizeof *seat->terms);
    for (size_t i = 0; i < seat->term_count; i++)
        seat->terms[i] = (tl_norm_term_t){message->body.commit.squares[i].order,
                                          message->body.commit.squares[i].square};
}

void
tl_worker_on_member (tl_worker_t *self, const tl_message_t *message, const void *payload,
                     size_t size)
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

void
tl_worker_on_leave (tl_worker_t *self, const tl_message_t *message)
{
    tl_seat_t *seat =
        self->open && message->step == self->step ? s_seat (self, message->body.leave.name) : NULL;
    if (seat) {
        seat->left = true;
        s_advance (self);
    }
}

void
tl_worker_on_abandon (tl_worker_t *self, const tl_message_t *message)
{
    //  While the update runs it is too late: the step commits.
    if (!self->open || message->step != self->step ||
        tl_actor_state (self->actor) != TL_WORKER_STEP)
        return;
    self->epoch++;
    s_drop (self);
    s_close (self, 0, 0);
}
