#include "reader.h"

#include "actors/actor.h"
#include "actors/agreement.h"
#include "actors/ask.h"
#include "actors/credentials.h"
#include "actors/save.h"
#include "actors/site_job.h"
#include "actors/weights.h"
#include "actors/window.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 100,
    GREETING_MS = 10000 //  a broker that is there says WELCOME at once
};

static const char *const s_states[] = {"joining", "loading", "asking", "over"};
enum { JOINING, LOADING, ASKING, OVER };

typedef struct {
    const tl_topology_t *topology;
    const tl_client_spec_t *spec;
    tl_reader_options_t options;
    tl_actor_t *actor;
    tl_compute_t *compute;
    tl_peer_t *peer;
    tl_site_t *site; //  the compute thread's while jobs are pending
    tl_ask_t *ask;
    size_t rows;                //  of the longest request
    char *directory;            //  of the site's saves
    tl_weights_t weights;       //  what its files hold
    tl_writing_t *const *texts; //  [text_count] to be written; NULL: the task is to score
    size_t text_count, text;    //  the one that is written now
    const tl_dataset_t *data;   //  to score
    uint64_t epoch;             //  of what is loaded: a load of an older one is void
    int64_t heard;              //  last sign that it goes on, monotonic ms
    double *nll;                //  the result of scoring
    tl_error_t *err;
} tl_reader_t;

static void
s_end (tl_reader_t *self, int code, const char *text)
{
    if (tl_actor_state (self->actor) == OVER)
        return;
    tl_actor_go (self->actor, OVER, "end");
    if (code)
        tl_fail (self->err, code, "%s", text);
    tl_actor_end (self->actor, code);
}

static void
s_on_failed (void *arg, int code, const char *text)
{
    s_end (arg, code, text);
}

//  --- the task ---------------------------------------------------------------------------------

static void
s_ask (tl_reader_t *self)
{
    tl_actor_go (self->actor, ASKING, "loaded");
    self->heard = tl_clock_ms ();
    if (!self->texts) {
        tl_ask_score (self->ask);
        return;
    }
    const tl_prompt_t *text = tl_writing_text (self->texts[self->text]);
    tl_ask_next (self->ask, text->ids, text->count, text->context, text->mask);
}

static void
s_on_scored (void *arg, const double *nll, size_t examples, uint64_t labels)
{
    tl_reader_t *self = arg;
    memcpy (self->nll, nll, examples * sizeof *nll);
    s_end (self, 0, "");
}

static void
s_on_progress (void *arg, size_t done, size_t count)
{
    tl_reader_t *self = arg;
    if (self->options.on_progress)
        self->options.on_progress (self->options.arg, done, count);
}

static void
s_on_logits (void *arg, const float *logits)
{
    tl_reader_t *self = arg;
    tl_error_t err;
    int more = tl_writing_take (self->texts[self->text], logits, &err);
    if (more < 0) {
        s_end (self, (int)err.code, err.text);
        return;
    }
    if (!more)
        s_on_progress (self, ++self->text, self->text_count);
    if (self->text < self->text_count)
        s_ask (self);
    else
        s_end (self, 0, "");
}

//  --- the site's front and tail ----------------------------------------------------------------

static void
s_on_loaded (void *arg)
{
    tl_site_job_t *job = arg;
    tl_reader_t *self = job->owner;
    if (job->epoch == self->epoch && tl_actor_state (self->actor) == LOADING) {
        if (job->err.code)
            s_end (self, (int)job->err.code, job->err.text);
        else
            s_ask (self);
    }
    tl_site_job_free (job);
}

//  The directory to load; NULL for the untrained adapter, or with err filled.
static char *
s_directory (tl_reader_t *self, tl_error_t *err)
{
    const char *given = self->options.adapter;
    if (given || self->options.base || !tl_part_tensors (tl_site_part (self->site)))
        return given ? tl_strdup (given) : NULL;
    char *saves = tl_save_directory (self->topology, self->spec->name);
    char *directory = NULL;
    if (tl_save_has (saves, tl_peer_run (self->peer)))
        directory = tl_format ("%s/adapter", saves);
    else if (tl_peer_step (self->peer) > 0)
        tl_fail (err, TL_BAD_INPUT,
                 "%s holds nothing that %s saved in the run at %s, which has trained %llu steps: "
                 "wait for its first save (checkpoint.every), or name its front and tail with "
                 "--adapter DIR, or ask with --base",
                 saves, self->spec->name, self->topology->broker.control,
                 (unsigned long long)tl_peer_step (self->peer));
    free (saves);
    return directory;
}

//  Also begins the task anew: what was asked so far is void.
static void
s_load (tl_reader_t *self)
{
    tl_error_t err = {0};
    tl_ask_void (self->ask);
    self->epoch++;
    char *directory = s_directory (self, &err);
    if (err.code) {
        s_end (self, (int)err.code, err.text);
        return;
    }
    tl_actor_go (self->actor, LOADING, "session");
    tl_debug ("front and tail: %s", directory ? directory : "untrained");
    tl_site_job_t *job = tl_alloc (sizeof *job);
    job->site = self->site;
    job->epoch = self->epoch;
    job->directory = directory;
    job->owner = self;
    tl_compute_submit (self->compute, tl_site_job_load, s_on_loaded, tl_site_job_free, job);
}

//  --- the conversation -------------------------------------------------------------------------

static void
s_on_ready (void *arg)
{
    tl_reader_t *self = arg;
    self->heard = tl_clock_ms ();
    s_load (self);
}

static void
s_on_lost (void *arg)
{
    tl_reader_t *self = arg;
    tl_ask_void (self->ask);
    tl_actor_go (self->actor, JOINING, "session lost");
}

static void
s_on_message (void *arg, const tl_message_t *message, const void *payload, size_t size)
{
    tl_reader_t *self = arg;
    if (tl_actor_state (self->actor) == OVER)
        return;
    if (message->type == TL_FORWARDED) {
        self->heard = tl_clock_ms ();
        tl_ask_on_forwarded (self->ask, message, payload, size);
    } else if (message->type == TL_RESTORE)
        s_load (self);
    else
        tl_warn ("%s means nothing to a reader: ignored", tl_type_name (message->type));
}

static void
s_on_end (void *arg, int code, const char *text)
{
    tl_reader_t *self = arg;
    if (code) {
        s_end (self, code, text);
        return;
    }
    char sentence[1400];
    snprintf (sentence, sizeof sentence,
              "the run ended before the answer was there (%.1000s): keep it with `trunkline up "
              "--stay`, and ask again",
              *text ? text : "it is over");
    s_end (self, TL_CONNECTION, sentence);
}

static void
s_on_tick (void *arg)
{
    tl_reader_t *self = arg;
    int64_t now = tl_clock_ms (), limit = self->options.timeout_ms;
    bool joining = tl_actor_state (self->actor) == JOINING;
    if (joining && limit > GREETING_MS)
        limit = GREETING_MS;
    if (tl_compute_pending (self->compute))
        self->heard = now; //  we are what takes long
    if (now - self->heard <= limit)
        return;
    char text[512];
    double seconds = (double)limit / 1000;
    if (joining)
        snprintf (text, sizeof text,
                  "nobody answered at %s within %g s: start the run with `trunkline up --stay`, or "
                  "look whether broker.control names the right machine",
                  self->topology->broker.control, seconds);
    else
        snprintf (text, sizeof text,
                  "the broker at %s is there, but no worker answered within %g s: look with "
                  "`trunkline status` whether one is, or give a slow one a longer --timeout",
                  self->topology->broker.control, seconds);
    s_end (self, TL_TIMEOUT, text);
}

static void
s_on_stop (void *arg)
{
    tl_reader_t *self = arg;
    //  A text says itself how far it came.
    s_end (self, self->texts ? 0 : TL_FAILED,
           "interrupted: the run goes on; ask again when you want the answer");
}

static void
s_on_computed (void *arg)
{
    tl_reader_t *self = arg;
    tl_compute_collect (self->compute);
}

//  --- life -------------------------------------------------------------------------------------

//  Rows of the longest request.
static int
s_rows (tl_reader_t *self, size_t *rows, tl_error_t *err)
{
    *rows = self->texts ? 1 : tl_site_rows (self->site);
    for (size_t i = 0; i < self->text_count; i++) {
        size_t most = tl_writing_most (self->texts[i]);
        *rows = most > *rows ? most : *rows;
    }
    size_t bytes =
        *rows * tl_site_hidden (self->site) * tl_w_dtype_size (tl_wire_dtype (self->topology));
    if (bytes <= self->topology->wire.max_message)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%zu rows are %.1f MB and wire.max_message_mb allows %.1f: raise it, or make "
                    "the text shorter",
                    *rows, (double)bytes / 1e6, (double)self->topology->wire.max_message / 1e6);
}

//  What is to be agreed on is known: the conversation can begin.
static void
s_on_weights (void *arg)
{
    tl_weights_t *weights = arg;
    tl_reader_t *self = weights->owner;
    const tl_topology_t *t = self->topology;
    if (tl_actor_state (self->actor) == OVER)
        return;
    if (weights->err.code) {
        s_end (self, (int)weights->err.code, weights->err.text);
        return;
    }
    uint64_t window = tl_window_bytes (t, self->rows, tl_site_hidden (self->site));
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, t, TL_AGREE_READING);
    tl_agreements_bind (&agreements, "model", tl_site_manifest (self->site));
    tl_agreements_bind (&agreements, "tokenizer", tl_site_tokenizer (self->site));
    tl_weights_bind (weights, &agreements, false);
    tl_peer_config_t config = {
        .role = "reader",
        .name = self->spec->name,
        .agreements = agreements.items,
        .agreement_count = agreements.count,
        .window_bytes = window,
        .window_messages = tl_window_messages (t, window),
        .on_ready = s_on_ready,
        .on_lost = s_on_lost,
        .on_message = s_on_message,
        .on_end = s_on_end,
        .arg = self,
    };
    tl_error_t err;
    self->peer = tl_peer_new (self->actor, t, &config, &err);
    tl_agreements_clear (&agreements);
    if (!self->peer) {
        s_end (self, (int)err.code, err.text);
        return;
    }
    self->ask = tl_ask_new (&(tl_ask_config_t){.topology = t,
                                               .site = self->site,
                                               .compute = self->compute,
                                               .peer = self->peer,
                                               .on_scored = s_on_scored,
                                               .on_progress = s_on_progress,
                                               .on_logits = s_on_logits,
                                               .on_failed = s_on_failed,
                                               .arg = self});
}

static int
s_open (tl_reader_t *self, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    size_t rows;
    if (tl_credentials_check (t, "reader", self->spec->name, err))
        return -1;
    self->site = tl_site_new (t, (size_t)(self->spec - t->clients), false, err);
    if (!self->site || s_rows (self, &rows, err))
        return -1;
    if (self->data)
        tl_site_lend (self->site, self->data);
    self->rows = rows;
    self->directory = tl_save_directory (t, self->spec->name);
    self->weights = (tl_weights_t){
        .part = tl_site_part (self->site), .directory = self->directory, .owner = self};
    tl_compute_submit (self->compute, tl_weights_read, s_on_weights, tl_weights_drop,
                       &self->weights);
    self->heard = tl_clock_ms ();
    tl_actor_timer (self->actor, TICK_MS, 0, s_on_tick, self);
    return 0;
}

static int
s_run (tl_reader_t *self, size_t client)
{
    self->spec = &self->topology->clients[client];
    char *title = tl_format ("reader/%s", self->spec->name);
    self->actor = tl_actor_new (title, s_states, s_on_stop, self);
    free (title);
    self->compute = tl_compute_new ();
    tl_actor_watch_fd (self->actor, tl_compute_fd (self->compute), s_on_computed, self);
    int code = s_open (self, self->err) == 0 ? tl_actor_run (self->actor, self->err)
                                             : (int)self->err->code;
    tl_compute_destroy (&self->compute);
    tl_peer_destroy (&self->peer);
    tl_ask_destroy (&self->ask);
    tl_site_destroy (&self->site);
    tl_actor_destroy (&self->actor);
    free (self->directory);
    return code;
}

int
tl_reader_score (const tl_topology_t *topology, size_t client, const tl_reader_options_t *options,
                 const tl_dataset_t *data, double *nll, tl_error_t *err)
{
    tl_reader_t self = {
        .topology = topology, .options = *options, .data = data, .nll = nll, .err = err};
    return s_run (&self, client);
}

int
tl_reader_write (const tl_topology_t *topology, size_t client, const tl_reader_options_t *options,
                 tl_writing_t *const *texts, size_t count, tl_error_t *err)
{
    tl_reader_t self = {
        .topology = topology, .options = *options, .texts = texts, .text_count = count, .err = err};
    return s_run (&self, client);
}
