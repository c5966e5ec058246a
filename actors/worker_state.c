//  worker_state: the trunk's state as it goes and comes: saved with all others, handed in to be made one with other replicas,
//  taken back, and kept for itself when the worker is told to leave.

#include "actors/events.h"
#include "actors/save.h"
#include "actors/worker_internal.h"
#include "log.h"
#include "memory.h"

#include <stdio.h>
#include <string.h>

enum { STATE_SHIFT = 33 }; //  1 << that: bytes of a trunk's state, at most

//  --- saves ------------------------------------------------------------------------------------

static void
s_answer (tl_trunk_job_t *job, tl_type_t type)
{
    tl_worker_t *self = job->owner;
    tl_save_answer (self->peer, type, job->step, job->round, &job->err, job->text);
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

//  The state is good, and what it came to can't be kept here: that is this worker's end, not the run's, as another may be spare.
//  Behind the last round it is the run's: whoever else has the finished trunk would end it as if all had kept it.
static void
s_on_restored (tl_trunk_job_t *job)
{
    tl_worker_t *self = job->owner;
    if (job->err.code == TL_FAILED && job->round < tl_topology_rounds (self->topology)) {
        tl_worker_end (self, TL_FAILED, job->err.text);
        return;
    }
    tl_event ("restored", "{sI}", "step", (json_int_t)job->step);
    s_answer (job, TL_RESTORED);
}

void
tl_worker_on_save (tl_worker_t *self, const tl_message_t *message)
{
    tl_trunk_job_t *job = tl_worker_job (self, s_on_saved);
    job->lasting = true;
    job->step = message->step;
    job->directory = tl_strdup (self->directory);
    tl_worker_submit (self, self->work->save, job);
}

static void
s_on_gathered (tl_trunk_job_t *job)
{
    tl_worker_t *self = job->owner;
    tl_message_t message;
    tl_message_init (&message, TL_PART);
    message.step = job->step;
    message.round = job->round;
    message.body.part.kind = "trunk";
    message.body.part.labels = job->labels;
    tl_peer_send_tensor (self->peer, &message, job->state);
    job->state = NULL;
}

//  Its replica is going to be made one with the others'.
void
tl_worker_on_gather (tl_worker_t *self, const tl_message_t *message)
{
    if (strcmp (message->body.gather.kind, "trunk") != 0) {
        tl_warn ("GATHER of '%s' means nothing to a worker: ignored", message->body.gather.kind);
        return;
    }
    tl_trunk_job_t *job = tl_worker_job (self, s_on_gathered);
    job->lasting = true;
    job->step = message->step;
    job->round = message->round;
    tl_worker_submit (self, self->work->gather, job);
}

void
tl_worker_on_state (tl_worker_t *self, const tl_message_t *message, const void *payload,
                    size_t size)
{
    const tl_tensor_wire_t *descriptor = &message->body.state.tensor;
    tl_error_t err = {0};
    if (descriptor->offset == 0) {
        tl_assembly_destroy (&self->state_in);
        tl_assembly_destroy (&self->state);
        self->state_in = tl_assembly_new (descriptor, 1, (size_t)1 << STATE_SHIFT, &err);
    }
    int rc =
        self->state_in ? tl_assembly_add (self->state_in, descriptor, payload, size, &err) : -1;
    if (rc == 1) {
        self->state = self->state_in;
        self->state_in = NULL;
    } else if (rc < 0)
        tl_worker_end (self, TL_CONNECTION,
                       *err.text ? err.text : "STATE came in pieces that don't fit");
}

void
tl_worker_on_restore (tl_worker_t *self, const tl_message_t *message)
{
    tl_worker_void (self);
    tl_trunk_job_t *job = tl_worker_job (self, s_on_restored);
    job->step = message->step;
    job->round = message->round;
    job->directory = tl_strdup (self->directory);
    job->blob = self->state;
    self->state = NULL;
    self->last.is = false;
    self->held = message->step;
    tl_actor_go (self->actor, TL_WORKER_IDLE, "RESTORE");
    tl_worker_submit (self, self->work->restore, job);
}

//  --- leaving ----------------------------------------------------------------------------------

static void
s_on_left (tl_trunk_job_t *job)
{
    char text[600];
    snprintf (text, sizeof text, "saved step %llu in %.480s and left",
              (unsigned long long)job->step, job->text);
    tl_worker_end (job->owner, job->err.code, job->err.code ? job->err.text : text);
}

//  A trunk that never had a step of this run has nothing to save, and may not cover what lies there from one that had.
void
tl_worker_leave (tl_worker_t *self)
{
    tl_worker_void (self);
    tl_actor_go (self->actor, TL_WORKER_STOPPING, "signal");
    if (!self->held) {
        tl_worker_end (self, 0, "left before a step was committed here: there is nothing to save");
        return;
    }
    tl_trunk_job_t *job = tl_worker_job (self, s_on_left);
    job->lasting = true;
    job->step = self->held;
    job->run = self->run;
    job->directory = tl_strdup (self->directory);
    tl_worker_submit (self, self->work->leave, job);
}
