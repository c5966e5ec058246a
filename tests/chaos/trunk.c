//  trunk: see trunk.h.

#include "chaos/trunk.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

//  --- a run whose worker we are

trunk_run_t
trunk_begin (size_t sites, uint64_t steps, const char *more)
{
    static char settings[640];
    static case_spec_t spec;
    snprintf (settings, sizeof settings,
              "split: {front: 1, tail: 1}\n"
              "train: {steps: %d, batch_size: 4, micros: 1, max_length: 64, lr: 1e-4}\n"
              "wire: {dtype: fp32, max_message_mb: 1}\n%s"
              "liveness: {ping_ms: 3000, expire_ms: 20000}\n",
              (int)steps, more);
    spec = (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .workers = strstr (more, "fanout") ? 2 : 1,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 100000,
                         .settings = settings};
    return (trunk_run_t){.stage = stage_new (&spec)};
}

void
trunk_start (trunk_run_t *self, const char *set)
{
    peer_keys (self->stage);
    self->broker = stage_run (self->stage, "broker", NULL, set ? "--set" : NULL, set, NULL);
    self->site = stage_run (self->stage, "client", "site-0", set ? "--set" : NULL, set, NULL);
    part_event (self->site, "ready", NULL, 0); //  the first peer: it says which model it is
    self->worker = peer_join (self->stage, "trunk", "worker");
}

//  --- what the worker says

void
trunk_to (tl_message_t *message, tl_type_t type, uint64_t step, const char *to)
{
    tl_message_init (message, type);
    message->step = step;
    snprintf (message->sender, sizeof message->sender, "%s", to);
}

void
trunk_send_rows (peer_t *worker, tl_type_t type, uint64_t step, uint64_t micro,
                 const peer_piece_t *piece, const char *to)
{
    tl_message_t message;
    trunk_to (&message, type, step, to);
    message.micro = micro;
    peer_send_piece (worker, &message, piece);
}

void
trunk_send_good (peer_t *worker, tl_type_t type, uint64_t step, uint64_t rows, const char *to)
{
    trunk_send_rows (worker, type, step, 0,
                     &(peer_piece_t){TL_W_F32, rows, TRUNK_HIDDEN, 0, NULL, false}, to);
}

void
trunk_send_committed (peer_t *worker, uint64_t step, uint64_t labels, const char *to)
{
    tl_message_t message;
    trunk_to (&message, TL_COMMITTED, step, to);
    message.body.committed.labels = labels;
    message.body.committed.norm = 1;
    peer_send (worker, &message, NULL, 0);
}

void
trunk_send_answer (peer_t *worker, tl_type_t type, uint64_t step, bool good)
{
    tl_message_t message;
    trunk_to (&message, type, step, "broker");
    if (type == TL_SAVED) {
        message.body.saved.good = good;
        message.body.saved.text = (char *)"I can't";
    } else {
        message.body.restored.code = good ? 0 : TL_FAILED;
        message.body.restored.text = (char *)"me neither";
    }
    peer_send (worker, &message, NULL, 0);
}

void
trunk_send_state (peer_t *worker, uint64_t step, uint64_t size, uint64_t offset, bool damaged)
{
    trunk_send_rows (worker, TL_STATE, step, 0,
                     &(peer_piece_t){TL_W_U8, size, 1, offset, NULL, damaged}, "broker");
}

uint64_t
trunk_wait_rows (peer_t *worker, tl_type_t type)
{
    peer_wait (worker, type);
    return worker->tensor.rows;
}

void
trunk_go_on (peer_t *worker, uint64_t step, uint64_t rows, const char *name)
{
    trunk_send_good (worker, TL_HIDDEN, step, rows, name);
    peer_wait (worker, TL_GRADIENT);
    trunk_send_good (worker, TL_GRAD_IN, step, rows, name);
    peer_wait (worker, TL_COMMIT);
    trunk_send_committed (worker, step, 10, name);
    trunk_send_committed (worker, step, 10, "broker");
}

void
trunk_whole_step (peer_t *worker, const char *name)
{
    uint64_t rows = trunk_wait_rows (worker, TL_ACTIVATION);
    trunk_go_on (worker, worker->of_step, rows, name);
}

void
trunk_end (trunk_run_t *self)
{
    uint64_t rows = trunk_wait_rows (self->worker, TL_ACTIVATION), step = self->worker->of_step;
    char name[64];
    snprintf (name, sizeof name, "%s", self->worker->sender);
    part_kill (self->broker, SIGTERM);
    //  What is answered twice was asked after the signal was seen
    peer_expect_alive (self->worker);
    peer_expect_alive (self->worker);
    trunk_go_on (self->worker, step, rows, name);
    peer_wait (self->worker, TL_SAVE);
    trunk_send_state (self->worker, step + 1, 100, 0, false);
    trunk_send_answer (self->worker, TL_SAVED, step + 1, true);
    peer_wait (self->worker, TL_BYE);
    peer_drop (&self->worker);
    stage_check (self->stage, part_wait (self->broker) == 0 && part_wait (self->site) == 0,
                 "code 0 of broker and client");
    stage_end (&self->stage);
}

void
trunk_expect_step (trunk_run_t *self, uint64_t step)
{
    int64_t is = part_int (part_event (self->site, "step", NULL, 0), "step");
    if (is != (int64_t)step)
        stage_fail (self->stage, "expected step %llu of the client, got %lld",
                    (unsigned long long)step, (long long)is);
}
