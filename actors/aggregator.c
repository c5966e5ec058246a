//  aggregator: see aggregator.h. One merge a kind is open at a time; arithmetic and disk are the compute thread's.

#include "aggregator.h"

#include "actors/agreement.h"
#include "actors/compute.h"
#include "actors/credentials.h"
#include "actors/events.h"
#include "actors/merge_job.h"
#include "actors/peer.h"
#include "actors/save.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

static const char *const s_states[] = {"joining", "serving", "over"};
enum { JOINING, SERVING, OVER };

enum {
    WINDOW = 16 << 20,      //  bytes of parts under way
    WINDOW_MESSAGES = 4096, //  and messages
    PART_SHIFT = 33         //  1 << that: bytes of a worker's part, at most (PROTOCOL.md)
};

//  A member of a merge.
typedef struct {
    char name[TL_NAME_LIMIT];
    uint64_t index;       //  in the topology, as MERGE says
    tl_assembly_t *in;    //  its part, coming in
    tl_assembly_t *whole; //  its part
    uint64_t labels;      //  of it
    bool gone;            //  nothing more will come from it
    char why[512];        //  gone: why its part can't be used; "": it left
} tl_member_part_t;

//  What is being gathered of one kind.
typedef struct {
    bool open;                //  MERGE came, OUTCOME is not said
    bool computing;           //  its job is under way
    uint64_t step, round;     //  of MERGE
    tl_member_part_t *places; //  in the order of MERGE
    size_t count, quorum;
    int timer; //  the deadline; 0: none
    bool late; //  it is over
} tl_gathering_t;

typedef struct {
    const tl_topology_t *topology;
    tl_actor_t *actor;
    tl_compute_t *compute;
    tl_peer_t *peer;
    tl_mergers_t mergers; //  the compute thread's while jobs are pending
    tl_gathering_t gatherings[TL_MERGE_KINDS];
    char *directory;
    uint64_t run;
    bool settled;   //  directory is that run's
    uint64_t epoch; //  work of an older epoch is void
    tl_error_t *err;
} tl_aggregator_t;

static void s_check (tl_aggregator_t *self, tl_merge_kind_t kind);

static void
s_end (tl_aggregator_t *self, int code, const char *text)
{
    if (tl_actor_state (self->actor) == OVER)
        return;
    tl_actor_go (self->actor, OVER, "end");
    if (code)
        tl_fail (self->err, code, "%s", text);
    if (code && self->peer)
        tl_peer_bye (self->peer, code, text);
    else if (*text)
        tl_info ("%s", text);
    tl_actor_end (self->actor, code);
}

//  --- jobs -------------------------------------------------------------------------------------

static void
s_collected (void *arg)
{
    tl_merge_job_t *job = arg;
    tl_aggregator_t *self = job->owner;
    if (job->done && (job->lasting || job->epoch == self->epoch))
        job->done (job);
    tl_merge_job_free (job);
}

static tl_merge_job_t *
s_job (tl_aggregator_t *self, tl_merge_job_fn *done)
{
    tl_merge_job_t *job = tl_alloc (sizeof *job);
    job->mergers = &self->mergers;
    job->epoch = self->epoch;
    job->done = done;
    job->owner = self;
    return job;
}

static void
s_submit (tl_aggregator_t *self, tl_job_fn *run, tl_merge_job_t *job)
{
    tl_compute_submit (self->compute, run, s_collected, tl_merge_job_free, job);
}

//  --- gathering --------------------------------------------------------------------------------

static void
s_clear_places (tl_member_part_t *places, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        tl_assembly_destroy (&places[i].in);
        tl_assembly_destroy (&places[i].whole);
    }
    free (places);
}

static void
s_forget (tl_aggregator_t *self, tl_gathering_t *gathering)
{
    tl_actor_cancel (self->actor, gathering->timer);
    s_clear_places (gathering->places, gathering->count);
    *gathering = (tl_gathering_t){.open = false};
}

//  Nothing that was under way counts any more.
static void
s_void (tl_aggregator_t *self)
{
    for (size_t kind = 0; kind < TL_MERGE_KINDS; kind++)
        s_forget (self, &self->gatherings[kind]);
    self->epoch++;
}

//  -1: none of that name.
static int
s_kind (const char *word)
{
    for (int kind = 0; kind < TL_MERGE_KINDS; kind++)
        if (strcmp (word, tl_merge_kind_names[kind]) == 0)
            return kind;
    return -1;
}

static tl_member_part_t *
s_place (tl_gathering_t *gathering, const char *name)
{
    for (size_t i = 0; i < gathering->count; i++)
        if (strcmp (gathering->places[i].name, name) == 0)
            return &gathering->places[i];
    return NULL;
}

//  The place that the broker says a part is for; it names who must be there.
static tl_member_part_t *
s_seat (tl_gathering_t *gathering, const char *name, uint64_t place)
{
    bool its = place < gathering->count && strcmp (gathering->places[place].name, name) == 0;
    return its ? &gathering->places[place] : NULL;
}

static void
s_on_late (tl_aggregator_t *self, tl_merge_kind_t kind)
{
    tl_gathering_t *gathering = &self->gatherings[kind];
    gathering->timer = 0;
    gathering->late = true;
    s_check (self, kind);
}

static void
s_on_late_trunk (void *arg)
{
    s_on_late (arg, TL_MERGE_KIND_TRUNK);
}

static void
s_on_late_clients (void *arg)
{
    s_on_late (arg, TL_MERGE_KIND_CLIENTS);
}

static void
s_on_late_sum (void *arg)
{
    s_on_late (arg, TL_MERGE_KIND_SUM);
}

//  Parts that came for the same step stay in their places, whoever is named there now: a worker may have another's group
//  beside its own.
static void
s_take_over (tl_gathering_t *gathering, tl_member_part_t *places, size_t count)
{
    for (size_t i = 0; i < count && i < gathering->count; i++) {
        tl_member_part_t *old = &gathering->places[i];
        places[i].in = old->in;
        places[i].whole = old->whole;
        places[i].labels = old->labels;
        old->in = old->whole = NULL;
    }
}

static void
s_on_merge (tl_aggregator_t *self, const tl_message_t *message)
{
    static tl_actor_fn *const s_late[TL_MERGE_KINDS] = {s_on_late_trunk, s_on_late_clients,
                                                        s_on_late_sum};
    const struct tl_body_merge *merge = &message->body.merge;
    int kind = s_kind (merge->kind);
    if (kind < 0) {
        tl_warn ("MERGE of kind '%s' means nothing here: ignored", merge->kind);
        return;
    }
    tl_gathering_t *gathering = &self->gatherings[kind];
    bool again = gathering->open && gathering->step == message->step;
    if (again && gathering->computing)
        return; //  its OUTCOME is on its way
    tl_member_part_t *places = tl_alloc ((merge->members_count + 1) * sizeof *places);
    for (size_t i = 0; i < merge->members_count; i++) {
        snprintf (places[i].name, sizeof places[i].name, "%s", merge->members[i].name);
        places[i].index = merge->members[i].index;
    }
    if (again)
        s_take_over (gathering, places, merge->members_count);
    s_forget (self, gathering);
    *gathering = (tl_gathering_t){.open = true,
                                  .step = message->step,
                                  .round = message->round,
                                  .places = places,
                                  .count = merge->members_count,
                                  .quorum = merge->quorum ? merge->quorum : 1};
    if (merge->deadline_ms)
        gathering->timer = tl_actor_timer (self->actor, merge->deadline_ms, 1, s_late[kind], self);
    s_check (self, (tl_merge_kind_t)kind);
}

static size_t
s_limit (const tl_aggregator_t *self, tl_merge_kind_t kind)
{
    return kind == TL_MERGE_KIND_TRUNK ? (size_t)1 << PART_SHIFT : self->topology->wire.max_message;
}

//  A member whose part can't be used: the others go on.
static void
s_leave_out (tl_member_part_t *place, const tl_error_t *err)
{
    tl_assembly_destroy (&place->in);
    place->gone = true;
    snprintf (place->why, sizeof place->why, "%.500s", err->text);
}

static void
s_on_part (tl_aggregator_t *self, const tl_message_t *message, const void *payload, size_t size)
{
    const struct tl_body_part *part = &message->body.part;
    int kind = s_kind (part->kind);
    tl_gathering_t *gathering = kind < 0 ? NULL : &self->gatherings[kind];
    tl_member_part_t *place =
        gathering && gathering->open && !gathering->computing && gathering->step == message->step
            ? s_seat (gathering, message->sender, message->micro)
            : NULL;
    if (!place || place->whole || place->gone)
        return; //  too late, twice, or nobody asked
    tl_error_t err = {0};
    if (part->tensor.dtype != TL_W_U8)
        tl_fail (&err, TL_CONNECTION, "its part is no blob; run the same trunkline everywhere");
    else if (part->tensor.offset == 0) {
        //  A process that began again sends anew what another one had begun.
        tl_assembly_destroy (&place->in);
        place->in = tl_assembly_new (&part->tensor, 1, s_limit (self, (tl_merge_kind_t)kind), &err);
        place->labels = part->labels;
    } else if (!place->in)
        tl_fail (&err, TL_CONNECTION, "its part's beginning didn't come");
    int rc = !*err.text ? tl_assembly_add (place->in, &part->tensor, payload, size, &err) : -1;
    if (rc < 0)
        s_leave_out (place, &err);
    else if (rc == 1) {
        place->whole = place->in;
        place->in = NULL;
    }
    if (rc)
        s_check (self, (tl_merge_kind_t)kind);
}

static void
s_on_leave (tl_aggregator_t *self, const tl_message_t *message)
{
    for (int kind = 0; kind < TL_MERGE_KINDS; kind++) {
        tl_gathering_t *gathering = &self->gatherings[kind];
        if (!gathering->open || gathering->computing || gathering->step != message->step)
            continue;
        tl_member_part_t *place = s_place (gathering, message->body.leave.name);
        if (!place || place->whole || place->gone)
            continue;
        tl_assembly_destroy (&place->in);
        place->gone = true;
        s_check (self, (tl_merge_kind_t)kind);
    }
}

//  --- the result -------------------------------------------------------------------------------

static void
s_on_merged (tl_merge_job_t *job)
{
    tl_aggregator_t *self = job->owner;
    tl_gathering_t *gathering = &self->gatherings[job->kind];
    if (!gathering->open || gathering->step != job->step || !gathering->computing)
        return; //  another MERGE took its place
    bool good = job->err.code == TL_OK;
    if (good)
        tl_merge_job_tell (job);
    if (*job->text)
        tl_warn ("%s of step %llu: %s", tl_merge_kind_names[job->kind],
                 (unsigned long long)job->step + (job->kind == TL_MERGE_KIND_SUM), job->text);
    tl_debug ("%s of step %llu: %zu parts in %llu us", tl_merge_kind_names[job->kind],
              (unsigned long long)job->step, job->used, (unsigned long long)job->us);
    tl_message_t message;
    tl_message_init (&message, TL_OUTCOME);
    message.step = job->step;
    message.round = gathering->round;
    snprintf (message.sender, sizeof message.sender, "broker");
    message.body.outcome.kind = tl_merge_kind_names[job->kind];
    message.body.outcome.good = good;
    message.body.outcome.text = job->text;
    message.body.outcome.compute_us = job->us;
    tl_peer_send (self->peer, &message);
    if (good) {
        tl_message_init (&message, TL_MERGED);
        message.step = job->step;
        message.round = gathering->round;
        snprintf (message.sender, sizeof message.sender, "broker");
        message.body.merged.kind = tl_merge_kind_names[job->kind];
        tl_peer_send_tensor (self->peer, &message, job->result);
        job->result = NULL;
    }
    s_forget (self, gathering);
}

static void
s_merge (tl_aggregator_t *self, tl_merge_kind_t kind)
{
    tl_gathering_t *gathering = &self->gatherings[kind];
    tl_merge_job_t *job = s_job (self, s_on_merged);
    const tl_topology_t *t = self->topology;
    job->kind = kind;
    job->step = gathering->step;
    job->quorum = gathering->quorum;
    job->most_labels = t->train.batch_size * t->train.max_length * t->federate.every *
                       (kind == TL_MERGE_KIND_TRUNK ? t->client_count : 1);
    job->brought = tl_alloc ((gathering->count + 1) * sizeof *job->brought);
    for (size_t i = 0; i < gathering->count; i++) {
        tl_member_part_t *place = &gathering->places[i];
        tl_brought_t *brought = &job->brought[job->count++];
        snprintf (brought->name, sizeof brought->name, "%s", place->name);
        snprintf (brought->why, sizeof brought->why, "%s",
                  *place->why   ? place->why
                  : place->gone ? "it left"
                                : "its part did not come in time");
        brought->part = place->whole;
        brought->labels = place->labels;
        place->whole = NULL;
    }
    tl_actor_cancel (self->actor, gathering->timer);
    gathering->timer = 0;
    gathering->computing = true;
    s_submit (self, tl_merge_job_run, job);
}

//  All are there who will come; or the deadline is over and enough are.
static void
s_check (tl_aggregator_t *self, tl_merge_kind_t kind)
{
    const tl_gathering_t *gathering = &self->gatherings[kind];
    if (!gathering->open || gathering->computing)
        return;
    size_t here = 0, missing = 0;
    for (size_t i = 0; i < gathering->count; i++) {
        here += gathering->places[i].whole != NULL;
        missing += !gathering->places[i].whole && !gathering->places[i].gone;
    }
    if (!missing || (gathering->late && here >= gathering->quorum))
        s_merge (self, kind);
}

//  --- saves ------------------------------------------------------------------------------------

static void
s_answer (tl_merge_job_t *job, tl_type_t type)
{
    tl_aggregator_t *self = job->owner;
    tl_save_answer (self->peer, type, job->step, 0, &job->err, job->text);
}

static void
s_on_saved (tl_merge_job_t *job)
{
    tl_aggregator_t *self = job->owner;
    if (job->err.code == TL_OK)
        //  The common save may be two behind: one more is under way.
        tl_save_prune (self->directory, job->step, self->topology->checkpoint.keep + 2);
    s_answer (job, TL_SAVED);
}

static void
s_on_save (tl_aggregator_t *self, const tl_message_t *message)
{
    tl_merge_job_t *job = s_job (self, s_on_saved);
    job->step = message->step;
    job->directory = tl_strdup (self->directory);
    s_submit (self, tl_merge_job_save, job);
}

static void
s_on_restored (tl_merge_job_t *job)
{
    s_answer (job, TL_RESTORED);
}

static void
s_on_restore (tl_aggregator_t *self, const tl_message_t *message)
{
    s_void (self);
    tl_merge_job_t *job = s_job (self, s_on_restored);
    job->step = message->step;
    job->directory = self->settled ? tl_strdup (self->directory) : NULL;
    s_submit (self, tl_merge_job_restore, job);
}

//  --- the conversation -------------------------------------------------------------------------

static void
s_on_message (void *arg, const tl_message_t *message, const void *payload, size_t size)
{
    tl_aggregator_t *self = arg;
    tl_error_t err;
    if (tl_actor_state (self->actor) != SERVING)
        return;
    if (tl_save_settle_at (self->directory, self->run, message, &self->settled, &err)) {
        s_end (self, TL_FAILED, err.text);
        return;
    }
    switch (message->type) {
    case TL_MERGE:
        s_on_merge (self, message);
        break;
    case TL_PART:
        s_on_part (self, message, payload, size);
        break;
    case TL_LEAVE:
        s_on_leave (self, message);
        break;
    case TL_SAVE:
        s_on_save (self, message);
        break;
    case TL_RESTORE:
        s_on_restore (self, message);
        break;
    default:
        tl_warn ("%s means nothing to the aggregator: ignored", tl_type_name (message->type));
    }
}

static void
s_on_resumed (tl_merge_job_t *job)
{
    if (job->err.code != TL_OK)
        s_end (job->owner, job->err.code, job->err.text);
    else
        tl_info ("this process begins %s", job->text);
}

//  Every merge is followed by a save, so a process that comes back has all of it on its disk.
static void
s_new_run (tl_aggregator_t *self)
{
    self->run = tl_peer_run (self->peer);
    tl_error_t err;
    self->settled = tl_save_is_of (self->directory, self->run);
    if (!self->settled && tl_save_writable (self->directory, &err)) {
        s_end (self, TL_FAILED, err.text);
        return;
    }
    tl_merge_job_t *job = s_job (self, s_on_resumed);
    job->lasting = true;
    job->step = self->settled ? INT64_MAX : 0;
    job->directory = self->settled ? tl_strdup (self->directory) : NULL;
    s_submit (self, tl_merge_job_restore, job);
}

static void
s_on_ready (void *arg)
{
    tl_aggregator_t *self = arg;
    if (tl_actor_state (self->actor) == OVER)
        return;
    if (self->run != tl_peer_run (self->peer))
        s_new_run (self);
    if (tl_actor_state (self->actor) == OVER)
        return;
    tl_actor_go (self->actor, SERVING, "session");
    tl_event ("ready", "{ss}", "name", "aggregator");
}

static void
s_on_lost (void *arg)
{
    tl_aggregator_t *self = arg;
    s_void (self);
    if (tl_actor_state (self->actor) != OVER)
        tl_actor_go (self->actor, JOINING, "session lost");
}

static void
s_on_end (void *arg, int code, const char *text)
{
    s_end (arg, code, text);
}

//  A signal. What has to last is saved after every merge already.
static void
s_on_stop (void *arg)
{
    s_end (arg, 0, "told to leave");
}

static void
s_on_computed (void *arg)
{
    tl_aggregator_t *self = arg;
    tl_compute_collect (self->compute);
}

//  --- life -------------------------------------------------------------------------------------

static int
s_open (tl_aggregator_t *self, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    if (tl_credentials_check (t, "aggregator", "aggregator", err) ||
        tl_mkdirs (self->directory, err))
        return -1;
    tl_mergers_open (&self->mergers, &t->federate.server);
    uint64_t window = t->wire.credit && t->wire.credit < WINDOW ? t->wire.credit : WINDOW;
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, t, TL_AGREE_ALL);
    tl_peer_config_t config = {
        .role = "aggregator",
        .name = "aggregator",
        .agreements = agreements.items,
        .agreement_count = agreements.count,
        .window_bytes = window < TL_CHUNK_MOST ? TL_CHUNK_MOST : window,
        .window_messages = WINDOW_MESSAGES,
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
tl_aggregator_run (const tl_topology_t *topology, tl_error_t *err)
{
    tl_aggregator_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->err = err;
    self->directory = tl_save_directory (topology, "aggregator");
    self->actor = tl_actor_new ("aggregator", s_states, s_on_stop, self);
    self->compute = tl_compute_new ();
    tl_actor_watch_fd (self->actor, tl_compute_fd (self->compute), s_on_computed, self);
    int code = s_open (self, err) == 0 ? tl_actor_run (self->actor, err) : (int)err->code;
    tl_compute_destroy (&self->compute);
    if (!self->peer || !tl_peer_run (self->peer))
        tl_save_unmake (self->directory);
    tl_peer_destroy (&self->peer);
    for (size_t kind = 0; kind < TL_MERGE_KINDS; kind++)
        s_forget (self, &self->gatherings[kind]);
    tl_mergers_close (&self->mergers);
    tl_actor_destroy (&self->actor);
    free (self->directory);
    free (self);
    return code;
}
