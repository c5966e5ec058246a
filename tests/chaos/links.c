/*  Connections that break, peers that sleep, parts that start in any order: the run goes on where it was.  */

#include "chaos/proxy.h"
#include "chaos/stage.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS = 30 };

static char s_settings[512];

static case_spec_t
s_case_of (size_t sites, uint64_t steps, int expire_ms, const char *mode)
{
    snprintf (s_settings, sizeof s_settings,
              "split: {front: 1, tail: 1}\ntune: {rank: 4, dropout: 0.05}\n"
              "train: {steps: %d, batch_size: 8, micros: 2, max_length: 64, lr: 2e-3, warmup: 3, "
              "clip: 1.0}\nwire: {dtype: fp32}\nschedule: {mode: %s}\nfederate: {every: 10}\n"
              "liveness: {ping_ms: %d, expire_ms: %d}\n",
              (int)steps, mode, expire_ms / 6, expire_ms);
    return (case_spec_t){.model = tiny_llama (false),
                         .sites = sites,
                         .examples = 16,
                         .letters = {40, 24, 12},
                         .steps = steps,
                         .save_every = 5,
                         .settings = s_settings};
}

static case_spec_t
s_case (size_t sites, uint64_t steps, int expire_ms)
{
    return s_case_of (sites, steps, expire_ms, "batch");
}

static int
s_port (const char *endpoint)
{
    return atoi (strrchr (endpoint, ':') + 1);
}

//  Two relays before a peer's two sockets, and the settings that lead it there.
typedef struct {
    proxy_t *control, *data;
    char set_control[128], set_data[128];
} detour_t;

static detour_t
s_detour (const stage_t *stage, bool worker, uint64_t seed, uint64_t least, uint64_t most,
          size_t cuts)
{
    const tl_topology_t *t = stage_case (stage)->topology;
    detour_t self;
    self.control = proxy_new (s_port (t->broker.control), seed, 400, 4000, cuts / 4);
    self.data = proxy_new (s_port (worker ? t->broker.workers : t->broker.clients), seed + 1, least,
                           most, cuts);
    snprintf (self.set_control, sizeof self.set_control, "broker.control=tcp://127.0.0.1:%d",
              proxy_port (self.control));
    snprintf (self.set_data, sizeof self.set_data, "broker.%s=tcp://127.0.0.1:%d",
              worker ? "workers" : "clients", proxy_port (self.data));
    return self;
}

//  One client, fp32: with connections that break after so many bytes, of the client or of the worker, every step and the
//  adapters have the bits of the undisturbed run. No session ends.
static void
s_cuts (bool worker_breaks, uint64_t seed, uint64_t least, uint64_t most, size_t cuts)
{
    case_spec_t spec = s_case (1, STEPS, 10000);
    case_step_t steps[STEPS];
    stage_t *stage = stage_new (&spec);
    stage_undisturbed (stage, steps);
    detour_t detour = s_detour (stage, worker_breaks, seed, least, most, cuts);
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_event (broker, "up", NULL, 0);
    const char *set = worker_breaks ? "--set" : NULL, *other = worker_breaks ? NULL : "--set";
    part_t *worker = stage_run (stage, "worker", "trunk", set, detour.set_control, "--set",
                                detour.set_data, NULL);
    part_t *client = stage_run (stage, "client", "site-0", other, detour.set_control, "--set",
                                detour.set_data, NULL);
    const json_t *done = part_event (broker, "done", NULL, 0);
    stage_check (stage, part_int (done, "steps") == STEPS && part_int (done, "code") == 0,
                 "all steps");
    stage_check (stage,
                 part_wait (client) == 0 && part_wait (worker) == 0 && part_wait (broker) == 0,
                 "code 0 of all");
    size_t seen = 0;
    for (size_t i = 0; part_at (client, i); i++) {
        const json_t *it = part_at (client, i);
        if (!part_is (it, "step"))
            continue;
        const case_step_t *step = &steps[part_int (it, "step")];
        seen++;
        stage_check (stage,
                     json_number_value (json_object_get (it, "loss")) == step->loss &&
                         json_number_value (json_object_get (it, "norm")) == step->norm,
                     "the loss and norm of the undisturbed run");
    }
    stage_check (stage, seen == STEPS, "each step once");
    stage_check (stage, stage_same (stage, "trunk") && stage_same (stage, "site-0"),
                 "the adapters of the undisturbed run");
    stage_check (stage,
                 !strstr (part_err (client), "session lost") &&
                     !strstr (part_err (worker), "session lost"),
                 "sessions that outlive their connections");
    if (proxy_cuts (detour.data) < cuts / 2)
        stage_fail (stage, "only %zu of %zu connections were broken", proxy_cuts (detour.data),
                    cuts);
    proxy_destroy (&detour.control);
    proxy_destroy (&detour.data);
    stage_end (&stage);
}

static void
s_cut_client (void)
{
    s_cuts (false, 1, 900, 120000, 16);
}

static void
s_cut_worker (void)
{
    s_cuts (true, 2, 900, 120000, 16);
}

//  So short that some end in the handshake, before anything of ours is said.
static void
s_cut_short (void)
{
    s_cuts (false, 3, 1, 3000, 16);
}

static void
s_make_keys (stage_t *stage)
{
    part_t *make = stage_up (stage, "--set", "train.steps=1", NULL);
    stage_check (stage, part_wait (make) == 0, "code 0");
}

//  A link that stalls and doesn't close: whoever is behind it is expelled, and both ends are awake. A client's others go
//  on without it; for the worker all wait, and go back. When the link moves again it takes part again.
static void
s_stall (bool worker_stalls)
{
    case_spec_t spec = s_case (2, 100000, 1500);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    detour_t detour = s_detour (stage, worker_stalls, 1, UINT64_MAX, UINT64_MAX, 0);
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_event (broker, "up", NULL, 0);
    const char *set = worker_stalls ? "--set" : NULL, *other = worker_stalls ? NULL : "--set";
    part_t *worker = stage_run (stage, "worker", "trunk", set, detour.set_control, "--set",
                                detour.set_data, NULL);
    part_t *site_0 = stage_run (stage, "client", "site-0", NULL);
    part_t *site_1 = stage_run (stage, "client", "site-1", other, detour.set_control, "--set",
                                detour.set_data, NULL);
    part_event (broker, "saved", "step", 5);
    proxy_stall (detour.control, true);
    proxy_stall (detour.data, true);
    const char *name = worker_stalls ? "trunk" : "site-1";
    stage_check (
        stage,
        strcmp (part_text (part_event_of (broker, "peer", "state", "left"), "name"), name) == 0,
        "who is behind the link is expelled");
    if (!worker_stalls) {
        int64_t now = part_int (part_event (broker, "closed", NULL, 0), "step");
        part_event (broker, "closed", "step", now + 10);
    }
    proxy_stall (detour.control, false);
    proxy_stall (detour.data, false);
    part_event_of (broker, "peer", "name", name);
    if (worker_stalls)
        part_event (broker, "restore", "step", 5);
    int64_t now = part_int (part_event (broker, "closed", NULL, 0), "step");
    part_event (site_1, "step", "step", now + 5);
    part_kill (broker, SIGTERM);
    stage_check (stage, part_wait (broker) == 0 && part_wait (worker) == 0, "code 0");
    stage_check (stage, part_wait (site_0) == 0 && part_wait (site_1) == 0, "code 0");
    proxy_destroy (&detour.control);
    proxy_destroy (&detour.data);
    stage_end (&stage);
}

static void
s_stall_client (void)
{
    s_stall (false);
}

static void
s_stall_worker (void)
{
    s_stall (true);
}

//  --- a data connection that stalls while the control connection lives

enum {
    EXPIRE_MS = 1500,
    SLACK_MS = 6000 //  below what ZeroMQ's own heartbeat takes to see it
};

//  All parts of a run; one of them reaches the broker's data socket by a relay.
typedef struct {
    stage_t *stage;
    detour_t detour;
    part_t *broker, *worker, *sites[2];
    part_t *second, *aggregator; //  with two workers
} behind_t;

//  faults: the one that keeps that part busy before it acts on a message, so that it is stalled before it has answered it.
static behind_t
s_behind (const case_spec_t *spec, bool worker, const char *faults)
{
    behind_t self = {.stage = stage_new (spec)};
    static case_step_t steps[2 * STEPS];
    if (worker)
        stage_undisturbed (self.stage, steps);
    else
        s_make_keys (self.stage);
    stage_faults (self.stage, faults);
    self.detour = s_detour (self.stage, worker, 1, UINT64_MAX, UINT64_MAX, 0);
    self.broker = stage_run (self.stage, "broker", NULL, NULL);
    part_event (self.broker, "up", NULL, 0);
    if (spec->workers > 1) {
        self.aggregator = stage_run (self.stage, "aggregator", NULL, NULL);
        self.second = stage_run (self.stage, "worker", "trunk-2", NULL);
    }
    const char *set = worker ? "--set" : NULL, *other = worker ? NULL : "--set";
    self.worker = stage_run (self.stage, "worker", "trunk", set, self.detour.set_data, NULL);
    self.sites[0] = stage_run (self.stage, "client", "site-0", NULL);
    self.sites[1] = stage_run (self.stage, "client", "site-1", other, self.detour.set_data, NULL);
    return self;
}

//  Stalls the relay while the part is at its fault, until the broker has ended its session: for that reason, and in that time.
static void
s_stall_data (behind_t *self, part_t *part, const char *name)
{
    part_log (part, "fault: delay");
    proxy_stall (self->detour.data, true);
    int64_t began = stage_ms ();
    const json_t *left = part_event_of (self->broker, "peer", "state", "left");
    int64_t took = stage_ms () - began;
    if (strcmp (part_text (left, "name"), name) != 0 ||
        strcmp (part_text (left, "why"), "it takes nothing of what it is sent") != 0)
        stage_fail (self->stage, "%s left: %s; expected %s, which takes nothing of what it is sent",
                    part_text (left, "name"), part_text (left, "why"), name);
    if (took < EXPIRE_MS || took > 2 * EXPIRE_MS + SLACK_MS)
        stage_fail (self->stage, "%s left after %lld ms, expected 2 x %d", name, (long long)took,
                    EXPIRE_MS);
}

static void
s_wait_behind (const behind_t *self)
{
    part_t *const parts[] = {self->broker, self->sites[0], self->sites[1],
                             self->second ? self->second : self->worker, self->aggregator};
    for (size_t i = 0; i < 5; i++)
        stage_check (self->stage, !parts[i] || part_wait (parts[i]) == 0, "code 0 of all");
    //  Whoever has no session when the run ends isn't told, and waits for the broker
    if (self->second)
        part_kill (self->worker, SIGKILL);
}

static void
s_end_behind (behind_t *self)
{
    proxy_destroy (&self->detour.control);
    proxy_destroy (&self->detour.data);
    stage_end (&self->stage);
}

//  A member of the open step: its rows can't come. Its weight leaves that step, the other goes on alone, and it takes part
//  again when its link moves.
static void
s_data_client (void)
{
    case_spec_t spec = s_case (2, 100000, EXPIRE_MS);
    behind_t self = s_behind (&spec, false, "client/site-1 PLAN 13 delay 900");
    part_event (self.sites[0], "step", "step", 11);
    s_stall_data (&self, self.sites[1], "site-1");
    part_log (self.broker, "site-1 left step 13: its weight leaves the batch");
    int64_t labels = part_int (part_event (self.broker, "closed", "step", 12), "labels");
    int64_t own = part_int (part_event (self.sites[0], "step", "step", 12), "labels");
    if (labels != own)
        stage_fail (self.stage, "step 13 has %lld label tokens, expected site-0's %lld",
                    (long long)labels, (long long)own);
    const json_t *later = part_event (self.broker, "closed", "step", 22);
    stage_check (self.stage, part_int (later, "members") == 1, "steps of one member");
    stage_check (self.stage, part_count (self.sites[1], "step") == 12, "no step 13 of site-1");
    proxy_stall (self.detour.data, false);
    part_event (self.broker, "closed", "members", 2);
    part_event (self.sites[1], "step", "step", 23);
    part_kill (self.broker, SIGTERM);
    s_wait_behind (&self);
    s_end_behind (&self);
}

//  All parts or one group go back to the last common save, and the run comes to its end and the sites to the same bits.
static void
s_check_repeats (const behind_t *self, bool all)
{
    const json_t *restore = part_event (self->broker, "restore", NULL, 0);
    if (part_int (restore, "step") != 10 || json_is_true (json_object_get (restore, "all")) != all)
        stage_fail (self->stage, "%s back to step %lld, expected %s to step 10",
                    json_is_true (json_object_get (restore, "all")) ? "all" : "a group",
                    (long long)part_int (restore, "step"), all ? "all" : "a group");
    const json_t *done = part_event (self->broker, "done", NULL, 0);
    int64_t steps = (int64_t)stage_case (self->stage)->spec->steps;
    if (part_int (done, "steps") != steps || part_int (done, "code") != 0)
        stage_fail (self->stage, "%lld steps and code %lld, expected %lld and 0",
                    (long long)part_int (done, "steps"), (long long)part_int (done, "code"),
                    (long long)steps);
    s_wait_behind (self);
    stage_check (self->stage,
                 stage_same (self->stage, "site-0") && stage_same (self->stage, "site-1"),
                 "the sites' adapters of the undisturbed run");
}

//  The worker: all go back to the common save when its link moves, and come to the same bits.
static void
s_data_worker (void)
{
    case_spec_t spec = s_case (2, STEPS, EXPIRE_MS);
    behind_t self = s_behind (&spec, true, "worker/trunk PLAN 13 delay 900");
    s_stall_data (&self, self.worker, "trunk");
    part_log (self.broker, "step 13 is abandoned: the worker that held the trunk was lost");
    proxy_stall (self.detour.data, false);
    s_check_repeats (&self, true);
    stage_check (self.stage, stage_same (self.stage, "trunk"), "the trunk of the undisturbed run");
    s_end_behind (&self);
}

//  One of two workers: its group goes back to where the period began, with the other one, and its link need never move again.
//  The run ends with that period: the next one would be arranged otherwise.
static void
s_data_group (void)
{
    case_spec_t spec = s_case_of (2, 20, EXPIRE_MS, "fanout");
    spec.workers = 2;
    behind_t self = s_behind (&spec, true, "worker/trunk PLAN 13 delay 900");
    s_stall_data (&self, self.worker, "trunk");
    part_log (self.broker, "its group goes back to step 10, where the period began");
    s_check_repeats (&self, false);
    stage_check (self.stage, stage_same (self.stage, "trunk-2"),
                 "the trunk of the undisturbed run");
    s_end_behind (&self);
}

//  --- sleep and order

//  Stopped for longer than expire_ms, and than a broker may be silent: expelled, and the others go on. When it wakes it comes
//  back.
static void
s_asleep (void)
{
    enum { ASLEEP_MS = 6500 }; //  more than six times expire_ms
    case_spec_t spec = s_case (2, 100000, 1000);
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 6);
    pid_t sleeper = part_child (up, "client", "site-1");
    kill (sleeper, SIGSTOP);
    int64_t since = stage_ms ();
    const json_t *peer = part_event_of (up, "peer", "state", "left");
    stage_check (stage, strcmp (part_text (peer, "name"), "site-1") == 0,
                 "the sleeper is expelled");
    int64_t before = part_int (part_event_of (up, "step", "name", "site-0"), "step");
    part_event (up, "closed", "step", before + 10);
    while (stage_ms () < since + ASLEEP_MS)
        before = part_int (part_event (up, "closed", NULL, 0), "step");
    kill (sleeper, SIGCONT);
    part_event_of (up, "ready", "part", "client/site-1");
    //  What was committed before it was expelled may still be on its way to it; then it takes part again
    while (part_int (part_event_of (up, "step", "name", "site-1"), "step") <= before)
        ;
    stage_check (stage, part_child (up, "client", "site-1") == sleeper, "the same process");
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

//  The broker itself sleeps (a laptop that was closed): nobody is expelled for it.
static void
s_broker_asleep (void)
{
    case_spec_t spec = s_case (2, 100000, 1500);
    stage_t *stage = stage_new (&spec);
    part_t *up = stage_up (stage, NULL);
    part_event (up, "closed", "step", 6);
    pid_t broker = part_child (up, "broker", "");
    kill (broker, SIGSTOP);
    //  Another process's life is a clock: this one takes longer than expire_ms
    part_t *status = stage_verb (stage, "status", NULL);
    stage_check (stage, part_wait (status) == 3, "code 3: nobody answers");
    kill (broker, SIGCONT);
    int64_t now = part_int (part_event (up, "closed", NULL, 0), "step");
    part_event (up, "closed", "step", now + 20);
    for (size_t i = 0; part_at (up, i); i++)
        stage_check (stage, strcmp (part_text (part_at (up, i), "state"), "left") != 0,
                     "that nobody leaves");
    part_kill (up, SIGTERM);
    stage_check (stage, part_wait (up) == 0, "code 0");
    stage_end (&stage);
}

//  Client first, worker next, broker last; and a second client much later, for whom the first step waits.
static void
s_order (void)
{
    case_spec_t spec = s_case (2, 10, 3000);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    part_t *site_0 = stage_run (stage, "client", "site-0", NULL);
    part_log (site_0, "waiting for the broker");
    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_log (worker, "waiting for the broker");
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_event_of (broker, "peer", "name", "trunk");
    part_event_of (site_0, "ready", "name", "site-0");
    part_t *site_1 = stage_run (stage, "client", "site-1", NULL);
    int64_t labels = part_int (part_event (broker, "closed", "step", 0), "labels");
    int64_t own_0 = part_int (part_event (site_0, "step", NULL, 0), "labels");
    int64_t own_1 = part_int (part_event (site_1, "step", NULL, 0), "labels");
    stage_check (stage, own_0 + own_1 == labels, "a first step of both");
    stage_check (stage, part_int (part_event (broker, "done", NULL, 0), "steps") == 10, "10 steps");
    stage_check (stage,
                 part_wait (site_0) == 0 && part_wait (site_1) == 0 && part_wait (worker) == 0 &&
                     part_wait (broker) == 0,
                 "code 0 of all");
    stage_end (&stage);
}

//  A second process of a name that is alive waits, and takes its place when it is gone; and ends when it isn't in all the time
//  in which a broken connection would be seen, or when the run is over.
static void
s_name_taken (void)
{
    case_spec_t spec = s_case (1, 100000, 3000);
    stage_t *stage = stage_new (&spec);
    s_make_keys (stage);
    part_t *broker = stage_run (stage, "broker", NULL, NULL);
    part_t *worker = stage_run (stage, "worker", "trunk", NULL);
    part_t *first = stage_run (stage, "client", "site-0", NULL);
    part_event (first, "step", "step", 3);
    part_t *second = stage_run (stage, "client", "site-0", NULL);
    part_log (second, "is connected already");
    part_event (first, "step", "step", 6);
    part_kill (first, SIGKILL);
    part_wait (first);
    part_event (second, "step", "step", 6);
    const char *ping = "liveness.ping_ms=100", *expire = "liveness.expire_ms=500";
    part_t *third = stage_run (stage, "client", "site-0", "--set", ping, "--set", expire, NULL);
    stage_check (stage, part_wait (third) == 2, "code 2 of a process too many");
    stage_check (stage, strstr (part_err (third), "leave it at that, or stop the other first"),
                 "what to do");
    part_event (second, "step", NULL, 0);
    part_t *fourth = stage_run (stage, "client", "site-0", "--set", ping, "--set", expire, NULL);
    part_log (fourth, "is connected already");
    part_kill (broker, SIGTERM);
    part_wait (fourth); //  with whatever it saw last
    stage_check (stage,
                 part_wait (broker) == 0 && part_wait (worker) == 0 && part_wait (second) == 0,
                 "code 0 of all");
    stage_end (&stage);
}

int
main (int argc, char **argv)
{
    static const stage_test_t tests[] = {
        {"cut_client", s_cut_client},
        {"cut_worker", s_cut_worker},
        {"cut_short", s_cut_short},
        {"stall_client", s_stall_client},
        {"stall_worker", s_stall_worker},
        {"data_client", s_data_client},
        {"data_worker", s_data_worker},
        {"data_group", s_data_group},
        {"asleep", s_asleep},
        {"broker_asleep", s_broker_asleep},
        {"order", s_order},
        {"name_taken", s_name_taken},
        {NULL, NULL},
    };
    return stage_main (argc, argv, tests);
}
