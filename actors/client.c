#include "client.h"

#include "actors/agreement.h"
#include "actors/client_internal.h"
#include "actors/credentials.h"
#include "actors/events.h"
#include "actors/save.h"
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

void
tl_client_go (tl_client_t *self, int state, const char *event)
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
            tl_client_fail (self, job->step, (int)job->err.code, job->err.text);
        else
            job->done (job);
    }
    tl_site_job_free (job);
}

tl_site_job_t *
tl_client_job (tl_client_t *self, tl_site_job_fn *done)
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

void
tl_client_submit (tl_client_t *self, tl_job_fn *run, tl_site_job_t *job)
{
    tl_compute_submit (self->compute, run, s_collected, tl_site_job_free, job);
}

//  --- saves ------------------------------------------------------------------------------------

static void
s_answer (tl_site_job_t *job, tl_type_t type)
{
    tl_client_t *self = job->owner;
    if (self->state == TL_CLIENT_OVER)
        return; //  it has said why
    tl_save_answer (self->peer, type, job->step, job->round, &job->err, job->text);
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
s_note_lost (tl_client_t *self, uint64_t has, uint64_t step)
{
    self->has = has;
    self->lacks = has < step ? step : 0;
}

//  It goes on, and what its adapter learnt until the run's step is not in what it goes on with: nobody may miss that. A shared
//  adapter it gets from the others.
static void
s_say_lost (tl_client_t *self)
{
    uint64_t has = self->has, step = self->lacks;
    if (!step || self->lost == step || !tl_part_tensors (tl_site_part (self->site)) ||
        self->topology->federate.clients != TL_CLIENTS_PERSONAL)
        return;
    self->lost = step;
    if (has)
        tl_warn ("%s goes on at step %llu with the adapter that it saved at step %llu: what it "
                 "learnt in between is lost; set checkpoint.every lower to lose less",
                 self->name, (unsigned long long)step, (unsigned long long)has);
    else
        tl_warn ("%s goes on at step %llu with a fresh adapter, for no save of this run is in %s: "
                 "what it learnt before that step, if it took part, is lost; to have it back stop "
                 "the run, put that directory back and --resume, and set checkpoint.every lower "
                 "to lose less",
                 self->name, (unsigned long long)step, self->directory);
}

//  What is told of later steps is no longer in what it goes on with.
static void
s_tell_restored (const tl_site_job_t *job)
{
    tl_event ("restored", "{sIsI}", "step", (json_int_t)job->step, "own",
              (json_int_t)job->own_steps);
}

static void
s_on_restored (tl_site_job_t *job)
{
    tl_client_t *self = job->owner;
    if (job->err.code == TL_OK && self->site)
        s_note_lost (self, job->step, job->asked);
    s_tell_restored (job);
    s_answer (job, TL_RESTORED);
}

static void
s_on_save (tl_client_t *self, const tl_message_t *message)
{
    tl_site_job_t *job = tl_client_job (self, s_on_saved);
    job->lasting = true;
    job->step = message->step;
    job->directory = tl_strdup (self->directory);
    tl_client_submit (self, self->work->save, job);
}

static void
s_on_restore (tl_client_t *self, const tl_message_t *message)
{
    tl_client_void (self, message->body.restore.text);
    tl_client_go (self, TL_CLIENT_IDLE, "RESTORE");
    self->step = message->step;
    tl_site_job_t *job = tl_client_job (self, s_on_restored);
    job->step = job->asked = message->step;
    job->directory = self->settled ? tl_strdup (self->directory) : NULL;
    tl_client_submit (self, self->work->restore, job);
}

//  The average of the clients is its adapter now. step is where their period began, which who made its steps is beyond.
static void
s_on_taken (void *arg, uint64_t step)
{
    tl_client_t *self = arg;
    self->step = step > self->step ? step : self->step;
    tl_event ("taken", "{sI}", "step", (json_int_t)step);
}

static void
s_on_merged (tl_client_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    if (self->open && strcmp (message->body.merged.kind, "sum") != 0)
        tl_client_void (self, "the clients' average came");
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
    tl_client_go (self, TL_CLIENT_IDLE, "scored");
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
    tl_client_go (self, TL_CLIENT_SCORING, "FINISH");
    if (self->topology->split.none)
        tl_client_submit (self, tl_site_job_evaluate, tl_client_job (self, s_on_evaluated));
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
    tl_error_t err;
    if (self->state >= TL_CLIENT_STOPPING)
        return;
    if (self->site &&
        tl_save_settle_at (self->directory, self->run, message, &self->settled, &err)) {
        tl_client_end (self, TL_FAILED, err.text);
        return;
    }
    if (message->type == TL_PLAN || message->type == TL_FINISH)
        s_say_lost (self);
    switch (message->type) {
    case TL_PLAN:
        tl_client_on_plan (self, message);
        break;
    case TL_HIDDEN:
    case TL_GRAD_IN:
        tl_client_on_rows (self, message, payload, size);
        break;
    case TL_COMMITTED:
        tl_client_on_committed (self, message);
        break;
    case TL_ABANDON:
    case TL_LATE:
        if (self->open && message->step == self->step) {
            tl_client_void (self, message->type == TL_LATE ? "it was closed without us"
                                                           : message->body.abandon.text);
            tl_client_go (self, TL_CLIENT_IDLE, tl_type_name (message->type));
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
    tl_client_t *self = job->owner;
    if (job->err.code != TL_OK) {
        tl_client_end (self, (int)job->err.code, job->text);
        return;
    }
    tl_info ("this process begins with %s", job->text);
    s_tell_restored (job);
    s_note_lost (self, job->step, job->asked);
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
    self->settled = tl_save_is_of (self->directory, self->run);
    if (!self->settled && tl_save_writable (self->directory, &err)) {
        tl_client_end (self, TL_FAILED, err.text);
        return;
    }
    uint64_t step = tl_peer_step (self->peer); //  of the run
    if (first && !self->settled) {
        s_note_lost (self, 0, step);
        return; //  fresh already
    }
    tl_site_job_t *job = tl_client_job (self, s_on_resumed);
    job->lasting = true; //  RESTORE may be here before it is done
    job->step = self->settled ? INT64_MAX : 0;
    job->asked = step;
    job->directory = self->settled ? tl_strdup (self->directory) : NULL;
    tl_client_submit (self, self->work->restore, job);
}

static void
s_on_ready (void *arg)
{
    tl_client_t *self = arg;
    if (self->state >= TL_CLIENT_STOPPING)
        return;
    if (self->run != tl_peer_run (self->peer))
        s_new_run (self);
    tl_client_go (self, TL_CLIENT_IDLE, "session");
    tl_event ("ready", "{ss}", "name", self->name);
    if (!self->came && self->config.on_ready)
        self->config.on_ready (self->config.arg);
    self->came = true;
}

static void
s_on_lost (void *arg)
{
    tl_client_t *self = arg;
    tl_client_void (self, "the session was lost");
    if (self->state < TL_CLIENT_STOPPING)
        tl_client_go (self, TL_CLIENT_JOINING, "session lost");
}

void
tl_client_end (tl_client_t *self, int code, const char *text)
{
    if (self->state == TL_CLIENT_OVER)
        return;
    tl_client_go (self, TL_CLIENT_OVER, "end");
    if (code && self->peer)
        tl_peer_bye (self->peer, code, text);
    else if (*text)
        tl_info ("%s", text);
    self->config.on_over (self->config.arg, code, text);
}

//  --- ends ---------------------------------------------------------------------------------------

//  What asking or averaging came to.
static void
s_on_failed (void *arg, int code, const char *text)
{
    tl_client_t *self = arg;
    tl_client_fail (self, self->step, code, text);
}

//  From the peer. Who is saving because it can't go on has its own reason to tell.
static void
s_on_end (void *arg, int code, const char *text)
{
    tl_client_t *self = arg;
    if (!self->failed.code)
        tl_client_end (self, code, text);
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
    if (self->state == TL_CLIENT_OVER)
        return;
    if (err.code || s_join (self, &err)) {
        tl_client_end (self, (int)err.code, err.text);
        return;
    }
    self->ask = tl_ask_new (&(tl_ask_config_t){.topology = self->topology,
                                               .site = self->site,
                                               .compute = self->compute,
                                               .peer = self->peer,
                                               .on_scored = s_on_scored,
                                               .on_failed = s_on_failed,
                                               .arg = self});
    self->unison = tl_unison_new (&(tl_unison_config_t){.site = self->site,
                                                        .compute = self->compute,
                                                        .peer = self->peer,
                                                        .on_summed = tl_client_on_summed,
                                                        .on_taken = s_on_taken,
                                                        .on_failed = s_on_failed,
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
                       tl_footprint_client (self->topology, tl_site_scores (self->site), self->rows,
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
    if (!self->peer || !tl_peer_run (self->peer))
        tl_save_unmake (self->directory);
    tl_peer_destroy (&self->peer);
    tl_ask_destroy (&self->ask);
    tl_unison_destroy (&self->unison);
    tl_client_forget_step (self);
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
