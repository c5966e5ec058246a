/*  broker_merge: replicas, adapters and gradients on their way to the aggregator and back. Payloads pass as they
    come; only the trunk's result is collected here, for it is what the common save keeps.                 */

#include "actors/broker_internal.h"
#include "actors/events.h"
#include "base/assert.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

//  As PROTOCOL.md has them; the first two are tl_merge_t's.
static const char *const s_kinds[] = {"trunk", "clients", "sum"};
enum { SUM = 2 };

//  -1: none of that name.
static int
s_kind (const char *word)
{
    for (int i = 0; i < 3; i++)
        if (strcmp (word, s_kinds[i]) == 0)
            return i;
    return -1;
}

static tl_session_t *
s_aggregator (tl_broker_t *self)
{
    tl_session_t *session = tl_sessions_aggregator (&self->sessions);
    return session && session->ready ? session : NULL;
}

//  --- orders -----------------------------------------------------------------------------------

static void
s_say (tl_broker_t *self, int kind, uint64_t step, uint64_t round, tl_member_t *list, size_t count,
       bool urgent)
{
    size_t quorum = self->topology->federate.quorum;
    if (kind != TL_MERGE_TRUNK) {
        if (self->passed < self->shared.bytes)
            self->stale = self->shared.checksum; //  its other chunks may be on their way
        self->shared.bytes = self->passed = 0;
    }
    tl_message_t merge;
    tl_message_init (&merge, TL_MERGE);
    merge.step = step;
    merge.round = round;
    merge.body.merge.kind = s_kinds[kind];
    merge.body.merge.members = list;
    merge.body.merge.members_count = count;
    merge.body.merge.quorum = kind == SUM ? 1 : quorum < count ? quorum : count;
    merge.body.merge.deadline_ms =
        urgent ? (uint64_t)(self->topology->federate.deadline * 1000) : 0;
    tl_broker_send (self, s_aggregator (self), &merge);
}

void
tl_broker_merge (void *arg, tl_merge_t kind, const tl_place_t *place, const size_t *members,
                 size_t count, bool urgent)
{
    tl_broker_t *self = arg;
    const tl_topology_t *t = self->topology;
    tl_member_t *list = tl_alloc (count * sizeof *list);
    for (size_t i = 0; i < count; i++)
        list[i] = (tl_member_t){kind == TL_MERGE_TRUNK ? t->workers[members[i]].name
                                                       : t->clients[members[i]].name,
                                members[i]};
    s_say (self, kind, place->step, place->round, list, count, urgent);
    free (list);
    tl_costs_unsettle (tl_choose_costs (self->choose));
    //  What it costs is told apart by groups, not by clients.
    if (urgent)
        tl_meter_merge (self->meter, kind == TL_MERGE_TRUNK ? count : 1);
}

void
tl_broker_gather (void *arg, tl_merge_t kind, const tl_place_t *place, size_t who, size_t member)
{
    tl_broker_t *self = arg;
    tl_session_t *session =
        kind == TL_MERGE_TRUNK ? tl_broker_worker (self, who) : tl_broker_client (self, who);
    if (!session)
        return;
    session->merging = place->step + 1;
    session->member = member;
    tl_message_t gather;
    tl_message_init (&gather, TL_GATHER);
    gather.step = place->step;
    gather.round = place->round;
    gather.body.gather.kind = s_kinds[kind];
    tl_broker_send (self, session, &gather);
}

void
tl_broker_merge_sum (tl_broker_t *self, const tl_step_t *step, const size_t *members, size_t count,
                     tl_member_t *list)
{
    free (self->summing);
    self->summing = tl_alloc (count * sizeof *self->summing);
    self->summing_count = count;
    memcpy (self->summing, members, count * sizeof *members);
    s_say (self, SUM, step->step, step->round, list, count, false);
    for (size_t i = 0; i < count; i++)
        tl_broker_client (self, members[i])->summand = i;
}

void
tl_broker_merge_left (tl_broker_t *self, const tl_session_t *client, uint64_t step)
{
    tl_message_t leave;
    tl_message_init (&leave, TL_LEAVE);
    leave.body.leave.name = client->name;
    leave.body.leave.text = "it is gone";
    if (client->merging) {
        leave.step = client->merging - 1;
        tl_broker_send (self, s_aggregator (self), &leave);
    }
    if (self->topology->federate.clients != TL_CLIENTS_SYNC || leave.step == step + 1)
        return;
    leave.step = step;
    tl_broker_send (self, s_aggregator (self), &leave);
}

void
tl_broker_remind (tl_broker_t *self, tl_session_t *aggregator)
{
    tl_message_t restore;
    tl_message_init (&restore, TL_RESTORE);
    restore.step = tl_scheduler_saved_step (self->scheduler);
    restore.body.restore.text = "the last common save";
    aggregator->reminded++;
    tl_broker_send (self, aggregator, &restore);
}

//  --- parts ------------------------------------------------------------------------------------

bool
tl_broker_on_part (tl_broker_t *self, tl_session_t *session, tl_message_t *message,
                   zmq_msg_t *payload)
{
    int kind = s_kind (message->body.part.kind);
    tl_session_t *aggregator = s_aggregator (self);
    size_t who = (size_t)session->index;
    bool client = session->role == TL_ROLE_CLIENT;
    bool due = kind == SUM ? client && tl_scheduler_member (self->scheduler, who, message->step) &&
                                 self->topology->federate.clients == TL_CLIENTS_SYNC
                           : kind == (client ? TL_MERGE_CLIENTS : TL_MERGE_TRUNK) &&
                                 session->merging && session->merging == message->step + 1;
    if (!aggregator || !due)
        return false;
    const tl_tensor_wire_t tensor = message->body.part.tensor;
    uint64_t step = message->step;
    message->micro = kind == SUM ? session->summand : session->member;
    tl_broker_relay (self, session, aggregator, message, payload);
    if (kind != SUM && tensor.offset + tensor.size == tensor.bytes) {
        session->merging = 0;
        tl_scheduler_gathered (self->scheduler, (tl_merge_t)kind, who, step);
    }
    return true;
}

//  --- results ----------------------------------------------------------------------------------

static void
s_on_trunk (tl_broker_t *self, const tl_message_t *message, zmq_msg_t *payload)
{
    tl_error_t err = {0};
    const tl_tensor_wire_t *tensor = &message->body.merged.tensor;
    if (tensor->offset == 0) {
        tl_assembly_destroy (&self->merging);
        self->merging = tl_assembly_new (tensor, 1, TL_STORE_LIMIT, &err);
    }
    int rc = self->merging ? tl_assembly_add (self->merging, tensor, zmq_msg_data (payload),
                                              zmq_msg_size (payload), &err)
                           : -1;
    if (rc == 0)
        return;
    free (self->merged);
    self->merged = NULL;
    if (rc == 1)
        self->merged = tl_assembly_take (self->merging, &self->merged_size);
    tl_assembly_destroy (&self->merging);
    tl_scheduler_merged (self->scheduler, TL_MERGE_TRUNK, message->step, rc == 1,
                         *err.text ? err.text : "the result came in pieces that don't fit");
}

//  The aggregator's message has one holder more, the first of them its maker's until it went to all.
static tl_share_t *
s_share (tl_shares_t *self, uint64_t sequence)
{
    if (self->count == self->room) {
        self->room = self->room ? 2 * self->room : 16;
        self->items = realloc (self->items, self->room * sizeof *self->items);
        tl_assert (self->items);
    }
    self->items[self->count] = (tl_share_t){sequence, 1};
    return &self->items[self->count++];
}

bool
tl_broker_shared (tl_broker_t *self, const tl_session_t *aggregator, uint64_t sequence)
{
    tl_shares_t *shares = &self->shares;
    for (size_t i = 0; i < shares->count && aggregator->role == TL_ROLE_AGGREGATOR; i++) {
        tl_share_t *it = &shares->items[i];
        if (it->sequence != sequence)
            continue;
        if (--it->holders)
            return true;
        memmove (it, it + 1, (--shares->count - i) * sizeof *it);
        break;
    }
    return false;
}

static void
s_copy_to (tl_broker_t *self, tl_session_t *to, const tl_message_t *message, zmq_msg_t *payload,
           tl_share_t *share)
{
    if (!to)
        return;
    zmq_msg_t copy;
    zmq_msg_init (&copy);
    zmq_msg_copy (&copy, payload);
    tl_message_t out = *message;
    out.memory = NULL;
    tl_broker_stamp (self, &out);
    snprintf (out.sender, sizeof out.sender, "aggregator");
    share->holders++;
    tl_link_send (to->link, &out, &copy,
                  tl_broker_token (tl_sessions_aggregator (&self->sessions), share->sequence));
}

//  Nobody here looks inside, and still no client may wait for what will never be whole.
static bool
s_follows (tl_broker_t *self, const tl_tensor_wire_t *tensor)
{
    if (tensor->offset == 0) {
        self->shared = *tensor;
        self->passed = 0;
    }
    if (tensor->offset != self->passed || tensor->bytes != self->shared.bytes ||
        tensor->checksum != self->shared.checksum)
        return false;
    self->passed += tensor->size;
    return true;
}

//  Each has the same, so one copy came and its frames are shared. True: somebody holds it.
static bool
s_on_shared (tl_broker_t *self, int kind, const tl_message_t *message, zmq_msg_t *payload)
{
    const tl_tensor_wire_t *tensor = &message->body.merged.tensor;
    if (!s_follows (self, tensor)) {
        if (tensor->checksum == self->stale)
            return false;
        static const char why[] = "the aggregator's result came in pieces that don't fit";
        if (kind == SUM)
            tl_scheduler_stop (self->scheduler, true, TL_FAILED, why);
        else
            tl_scheduler_merged (self->scheduler, (tl_merge_t)kind, message->step, false, why);
        return false;
    }
    tl_share_t *share = s_share (&self->shares, message->sequence);
    for (size_t i = 0; kind == SUM && i < self->summing_count; i++)
        if (tl_scheduler_member (self->scheduler, self->summing[i], message->step))
            s_copy_to (self, tl_broker_client (self, self->summing[i]), message, payload, share);
    for (size_t i = 0; kind != SUM && i < self->topology->client_count; i++)
        if (tl_scheduler_takes (self->scheduler, i))
            s_copy_to (self, tl_broker_client (self, i), message, payload, share);
    bool held =
        tl_broker_shared (self, tl_sessions_aggregator (&self->sessions), message->sequence);
    if (kind != SUM && tensor->offset + tensor->size == tensor->bytes)
        tl_scheduler_merged (self->scheduler, TL_MERGE_CLIENTS, message->step, true, "");
    return held;
}

//  Nobody's gradient could be summed: the step comes to nothing.
static void
s_no_sum (tl_broker_t *self, const tl_message_t *message)
{
    tl_message_t abandon;
    tl_message_init (&abandon, TL_ABANDON);
    abandon.step = message->step;
    abandon.body.abandon.text = message->body.outcome.text;
    size_t worker = self->summing_count ? tl_scheduler_worker_of (self->scheduler, self->summing[0])
                                        : TL_NOBODY;
    tl_broker_send (self, tl_broker_worker (self, worker), &abandon);
}

static void
s_on_outcome (tl_broker_t *self, int kind, const tl_message_t *message)
{
    const struct tl_body_outcome *outcome = &message->body.outcome;
    if (kind != SUM)
        tl_event ("merged", "{sssIsbsssf}", "kind", s_kinds[kind], "step",
                  (json_int_t)message->step, "good", outcome->good, "text", outcome->text, "ms",
                  (double)outcome->compute_us / 1000);
    //  A sum is made inside its step, the others after theirs.
    if (*outcome->text)
        tl_warn ("%s of step %llu: %s", s_kinds[kind],
                 (unsigned long long)message->step + (kind == SUM), outcome->text);
    if (!outcome->good && kind == SUM)
        s_no_sum (self, message);
    else if (!outcome->good)
        tl_scheduler_merged (self->scheduler, (tl_merge_t)kind, message->step, false,
                             outcome->text);
}

static bool
s_awaited (const tl_broker_t *self, int kind, uint64_t step)
{
    if (kind != SUM)
        return tl_scheduler_merging (self->scheduler, (tl_merge_t)kind, step);
    for (size_t i = 0; i < self->summing_count; i++)
        if (tl_scheduler_member (self->scheduler, self->summing[i], step))
            return true;
    return false;
}

//  A run that goes on, and what the server's optimizer had learnt there is gone: nothing else has it.
static void
s_on_restored (tl_broker_t *self, const tl_message_t *message)
{
    const tl_topology_t *t = self->topology;
    uint64_t code = message->body.restored.code;
    bool lacks = !code && self->aggregator_had && message->step < self->begin.step &&
                 tl_scheduler_saved_step (self->scheduler) == self->begin.step &&
                 t->federate.server.optimizer != TL_SERVER_NONE;
    bool lost = lacks && !tl_store_earlier (self, "the aggregator", message->step);
    char *text = tl_format ("what the aggregator saved there is not in %s/%s/aggregator any more: "
                            "put it back and --resume, or begin the run anew with --replace",
                            t->checkpoint.dir, t->name);
    tl_scheduler_aggregator_restored (self->scheduler, lost ? TL_BAD_INPUT : code,
                                      lost ? text : message->body.restored.text);
    free (text);
}

bool
tl_broker_from_aggregator (tl_broker_t *self, tl_session_t *session, tl_message_t *message,
                           zmq_msg_t *payload)
{
    int kind = message->type == TL_MERGED    ? s_kind (message->body.merged.kind)
               : message->type == TL_OUTCOME ? s_kind (message->body.outcome.kind)
                                             : -1;
    bool awaited = kind >= 0 && s_awaited (self, kind, message->step);
    switch (message->type) {
    case TL_OUTCOME:
        if (awaited)
            s_on_outcome (self, kind, message);
        break;
    case TL_MERGED:
        if (awaited && kind == TL_MERGE_TRUNK)
            s_on_trunk (self, message, payload);
        else if (awaited)
            return s_on_shared (self, kind, message, payload);
        else
            self->stale = message->body.merged.tensor.checksum;
        break;
    case TL_SAVED:
        tl_scheduler_aggregator_saved (self->scheduler, message->step, message->body.saved.good,
                                       message->body.saved.text);
        break;
    case TL_RESTORED:
        if (!session->reminded)
            break;
        session->reminded--;
        s_on_restored (self, message);
        break;
    default:
        tl_warn ("%s from %s means nothing here: ignored", tl_type_name (message->type),
                 session->label);
    }
    return false;
}
