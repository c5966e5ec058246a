//  Topologies: what a good one gives, and the exact sentence for every way to get one wrong.

#include "unit/cmocka_all.h"

#include "memory.h"
#include "nearest.h"
#include "topology/schema.h"
#include "topology/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PEERS                                                                                      \
    "workers: [{name: trunk-1}]\n"                                                                 \
    "clients: [{name: north, data: n.jsonl}]\n"
#define GOOD "version: 1\nname: t\nmodel: {path: m}\n" PEERS

static char s_path[64];

static tl_topology_t *
s_read (const char *text, const char *const *overrides, size_t count, tl_error_t *err)
{
    FILE *file = fopen (s_path, "w");
    assert_non_null (file);
    fputs (text, file);
    fclose (file);
    memset (err, 0, sizeof *err);
    return tl_topology_read (s_path, overrides, count, err);
}

//  Expects the complaint "FILE" + expected (or expected alone when it begins with -).
static void
s_refused (const char *text, const char *override, const char *expected)
{
    tl_error_t err;
    tl_topology_t *self = s_read (text, &override, override ? 1 : 0, &err);
    if (self) {
        tl_topology_destroy (&self);
        fail_msg ("expected a refusal: %s", expected);
    }
    char *whole = tl_format ("%s%s", expected[0] == '-' ? "" : s_path, expected);
    assert_string_equal (err.text, whole);
    assert_int_equal (err.code, TL_BAD_INPUT);
    free (whole);
}

static tl_topology_t *
s_good (const char *text, const char *const *overrides, size_t count)
{
    tl_error_t err;
    tl_topology_t *self = s_read (text, overrides, count, &err);
    if (!self)
        fail_msg ("%s", err.text);
    return self;
}

static void
test_defaults (void **state)
{
    tl_topology_t *self = s_good (GOOD, NULL, 0);
    assert_string_equal (self->name, "t");
    assert_string_equal (self->model.path, "m");
    assert_int_equal (self->split.front, 1);
    assert_int_equal (self->split.tail, 1);
    assert_int_equal (self->tune.method, TL_METHOD_LORA);
    assert_int_equal (self->tune.rank, 8);
    assert_int_equal (self->tune.prefix, 128);
    assert_true (self->tune.alpha == 16 && self->tune.dropout == 0.05);
    assert_int_equal (self->tune.target_count, 0);
    assert_int_equal (self->tune.parts, TL_PART_ALL);
    assert_int_equal (self->train.max_length, 256);
    assert_true (self->train.lr == 2e-4 && self->train.clip == 1.0 && self->train.eps == 1e-8);
    assert_true (self->train.beta1 == 0.9 && self->train.beta2 == 0.999);
    assert_int_equal (self->train.schedule, TL_RATE_LINEAR);
    assert_int_equal (self->train.seed, 1);
    assert_int_equal (self->schedule.mode, TL_MODE_BATCH);
    assert_int_equal (self->wire.dtype, TL_WIRE_BF16);
    assert_int_equal (self->wire.max_message, (size_t)256 << 20);
    assert_int_equal (self->checkpoint.every, 50);
    assert_int_equal (self->liveness.expire_ms, 10000);
    assert_string_equal (self->broker.control, "tcp://127.0.0.1:5569");
    assert_int_equal (self->worker_count, 1);
    assert_int_equal (self->clients[0].threads, 1);
    assert_null (self->clients[0].eval);
    assert_int_equal (tl_topology_client (self, "north"), 0);
    assert_int_equal (tl_topology_client (self, "south"), -1);
    assert_int_equal (tl_topology_worker (self, "trunk-1"), 0);
    tl_topology_destroy (&self);
    tl_topology_destroy (&self);
}

static void
test_overrides (void **state)
{
    const char *const overrides[] = {"train.lr=1e-4",          "tune.targets=q_proj,v_proj",
                                     "tune.parts=[trunk]",     "clients.0.data=other.jsonl",
                                     "clients.1.name=south",   "clients.1.data=s.jsonl",
                                     "checkpoint={every: 7}",  "schedule.mode=serial",
                                     "clients.0.eval=e.jsonl", "clients.0.eval="};
    tl_topology_t *self = s_good (GOOD, overrides, 10);
    assert_true (self->train.lr == 1e-4);
    assert_int_equal (self->tune.target_count, 2);
    assert_string_equal (self->tune.targets[1], "v_proj");
    assert_int_equal (self->tune.parts, TL_PART_TRUNK);
    assert_string_equal (self->clients[0].data, "other.jsonl");
    assert_null (self->clients[0].eval);
    assert_int_equal (self->client_count, 2);
    assert_string_equal (self->clients[1].name, "south");
    assert_int_equal (self->checkpoint.every, 7);
    assert_int_equal (self->checkpoint.keep, 3);
    assert_int_equal (self->schedule.mode, TL_MODE_SERIAL);
    tl_topology_destroy (&self);
}

static void
test_bad_overrides (void **state)
{
    s_refused (GOOD, "train.lr",
               "--set train.lr: expected key=value; write for example --set "
               "train.lr=1e-4");
    s_refused (GOOD, "train..lr=1",
               "--set train..lr: a part of the path is empty; write it like "
               "train.lr");
    s_refused (GOOD, "name.x=1",
               "--set name.x: 'name' holds the value 't' and no keys; name a shorter "
               "path");
    s_refused (GOOD, "clients.7.name=x",
               "--set clients.7.name: a list of 1 entries has no '7'; count "
               "from 0 (1 appends)");
    s_refused (GOOD, "train.lr=fast",
               "--set train.lr: expected a number from 0 to 1000, found 'fast'; "
               "write for example 'lr: 2e-4'");
    s_refused (GOOD, "train.stpes=3",
               "--set train.stpes: 'stpes' is not a key of train; write 'steps' if that was meant");
}

static void
test_not_yaml (void **state)
{
    s_refused ("", NULL, ":1:1: the file is empty; write a mapping of keys");
    //  Also where nothing is read: a comment.
    s_refused (
        "version: 1\nname: caf\xff\n", NULL,
        ":2:10: the byte 0xff is not UTF-8 text; save the file as UTF-8, or write the letter "
        "anew");
    s_refused ("version: 1\n# caf\xc3\xa9 \xe9t\n", NULL,
               ":2:8: the byte 0xe9 is not UTF-8 text; save the file as UTF-8, or write the letter "
               "anew");
    s_refused ("- a\n", NULL,
               ":1:1: expected a mapping of keys like 'model: {path: ...}'; see "
               "topology/one-site.yaml");
    tl_error_t err;
    assert_null (s_read ("version: 1\nmodel: {path: x\nname: y\n", NULL, 0, &err));
    assert_non_null (strstr (err.text, ": not YAML: "));
    assert_int_equal (strncmp (err.text, s_path, strlen (s_path)), 0);
    assert_null (s_read ("version: 1\nversion: 1\n", NULL, 0, &err));
    assert_non_null (strstr (err.text, "duplicate key"));
    s_refused ("version: 1\nname: *a\n", NULL,
               ":2:7: an alias (*name) is not read here; write the value itself");
    s_refused ("version: &a 1\n", NULL,
               ":1:1: a tag (!name) or an anchor (&name) is not read here; write the value alone");
    s_refused ("version: 1\ntrain: !!map {steps: 1}\n", NULL,
               ":2:1: a tag (!name) or an anchor (&name) is not read here; write the value alone");
    s_refused (GOOD "---\nname: other\n", NULL,
               ":6:1: a second document begins here, and would not be read; keep one in a file");
    s_refused ("# nothing but this\n", NULL,
               ":1:1: there is nothing in it that can be read; write a mapping of keys");
    assert_null (tl_topology_read ("topology/absent.yaml", NULL, 0, &err));
    assert_int_equal (err.code, TL_BAD_INPUT);
}

static void
test_keys (void **state)
{
    s_refused (GOOD "trian: {steps: 3}\n", NULL,
               ":6:1: 'trian' is not a key of a topology; write 'train' if that was meant");
    s_refused (GOOD "train: {steps: 3, batchsize: 2}\n", NULL,
               ":6:19: 'batchsize' is not a key of train; write 'batch_size' if that was meant");
    s_refused (
        GOOD "wire: {zzzzzzzz: 2}\n", NULL,
        ":6:8: 'zzzzzzzz' is not a key of wire; use one of dtype, max_message_mb, credit_mb");
    s_refused ("version: 1\nname: t\nmodel: {path: m}\nworkers: [{name: w}]\n"
               "clients:\n  - {name: n, dta: x}\n",
               NULL, ":6:15: 'dta' is not a key of clients.0; write 'data' if that was meant");
    s_refused ("version: 1\nname: t\n" PEERS, NULL,
               ":1:1: model: the key is missing: expected a mapping with the key path; write for "
               "example 'model: {path: models/tiny-glm}'");
    s_refused ("version: 1\nname: t\nmodel: {path: m}\nworkers: [{name: w}]\n"
               "clients:\n  - name: n\n",
               NULL,
               ":6:5: clients.0.data: the key is missing: expected a JSONL file; write for "
               "example 'data: data/north.jsonl'");
}

static void
test_values (void **state)
{
    s_refused (
        GOOD "train:\n  lr: fast\n", NULL,
        ":7:7: train.lr: expected a number from 0 to 1000, found 'fast'; write for example 'lr: "
        "2e-4'");
    s_refused (
        GOOD "train: {lr: nan}\n", NULL,
        ":6:13: train.lr: expected a number from 0 to 1000, found 'nan'; write for example 'lr: "
        "2e-4'");
    s_refused (GOOD "train: {steps: -3}\n", NULL,
               ":6:16: train.steps: expected a whole number of at least 0, found '-3'; write for "
               "example 'steps: 100'");
    s_refused (GOOD "train: {steps: 1.5}\n", NULL,
               ":6:16: train.steps: expected a whole number of at least 0, found '1.5'; write for "
               "example 'steps: 100'");
    s_refused (GOOD "train: {steps: [1]}\n", NULL,
               ":6:9: train.steps: expected a whole number of at least 0, found a list; write for "
               "example 'steps: 100'");
    s_refused ("version: 1\nname: t\nmodel: {path: m}\nworkers: [{name: w}]\nclients: []\n", NULL,
               ":5:1: clients: expected a list of clients, found an empty list; write for example "
               "'clients: [{name: north, data: data/north.jsonl}]'");
    s_refused (GOOD, "train.lr=1e6",
               "--set train.lr: expected a number from 0 to 1000, found '1e6'; write for example "
               "'lr: 2e-4'");
    s_refused (GOOD "train: {steps: }\n", NULL,
               ":6:9: train.steps: expected a whole number of at least 0, found nothing; write for "
               "example 'steps: 100'");
    s_refused (GOOD "train: 3\n", NULL,
               ":6:8: train: expected a mapping with keys like steps and lr, found '3'; write for "
               "example 'train: {steps: 200, lr: 2e-4}'");
    s_refused (GOOD "tune: {dropout: 1}\n", NULL,
               ":6:17: tune.dropout: expected a number from 0 to below 1, found '1'; write for "
               "example 'dropout: 0.05'");
    s_refused (GOOD "tune: {prefix: 0}\n", NULL,
               ":6:16: tune.prefix: expected a whole number from 1 to 4096, found '0'; write for "
               "example 'prefix: 128'");
    s_refused (GOOD "tune: {parts: [front, middle]}\n", NULL,
               ":6:23: tune.parts: expected a list of front, trunk and tail, found 'middle'; write "
               "for example 'parts: front,trunk,tail'");
    s_refused (GOOD "tune: {targets: [q_proj, q_proj]}\n", NULL,
               ":6:26: tune.targets: 'q_proj' is listed twice; remove one");
    s_refused (
        GOOD "broker: {control: 'tcp://*:5569'}\n", NULL,
        ":6:19: broker.control: expected an address like tcp://127.0.0.1:5570 with a port from "
        "1 to 65535, found 'tcp://*:5569'; write for example 'control: tcp://127.0.0.1:5569'");
    s_refused (
        GOOD "broker: {control: 'tcp://127.0.0.1:0'}\n", NULL,
        ":6:19: broker.control: expected an address like tcp://127.0.0.1:5570 with a port from "
        "1 to 65535, found 'tcp://127.0.0.1:0'; write for example 'control: "
        "tcp://127.0.0.1:5569'");
}

static void
test_not_in_this_version (void **state)
{
    s_refused (
        GOOD "privacy: {noise: 0.5}\n", NULL,
        ":6:18: privacy.noise: expected 0: noise on hidden rows is not in this version, found "
        "'0.5'; write for example 'noise: 0'");
    s_refused (GOOD "wire: {dtype: int8}\n", NULL,
               ":6:15: wire.dtype: 'int8': not in this version; use bf16");
    s_refused ("version: 2\nname: t\nmodel: {path: m}\n" PEERS, NULL,
               ":1:10: version: expected 1, found '2'; write for example 'version: 1'");
    tl_topology_t *self =
        s_good (GOOD "schedule: {mode: serial, join: all}\nfederate: {clients: personal}\n"
                     "privacy: {noise: 0.0, clip: 0}\n",
                NULL, 0);
    tl_topology_destroy (&self);
}

static void
test_federation (void **state)
{
    tl_topology_t *self = s_good (GOOD, NULL, 0);
    assert_int_equal (self->federate.clients, TL_CLIENTS_PERSONAL);
    assert_int_equal (self->federate.every, 20);
    assert_false (tl_topology_aggregates (self));
    tl_topology_destroy (&self);
    self = s_good (GOOD "federate: {clients: average, every: 5, deadline_s: 1.5, proximal: 0.1, "
                        "server: {optimizer: adam}}\naggregator: {host: localhost}\n",
                   NULL, 0);
    assert_int_equal (self->federate.clients, TL_CLIENTS_AVERAGE);
    assert_true (self->federate.deadline == 1.5 && self->federate.server.lr == 0.01);
    assert_true (tl_topology_aggregates (self));
    tl_topology_destroy (&self);
    s_refused (GOOD "schedule: {mode: serial}\nfederate: {clients: sync}\n", NULL,
               ":7:21: federate.clients: sync makes one gradient of all clients of a step, which "
               "only schedule.mode batch has; set that, or federate.clients: average");
    s_refused (GOOD "schedule: {mode: batch}\nfederate: {proximal: 0.1}\n", NULL,
               ":7:22: federate.proximal: nothing is averaged with these settings; remove it, or "
               "set federate.clients: average");
    s_refused (GOOD "federate: {server: {optimizer: avgm}}\nschedule: {mode: batch}\n", NULL,
               ":6:32: federate.server.optimizer: nothing is averaged with these settings; remove "
               "it, or set federate.clients: average");
    self = s_good (GOOD "federate: {clients: average, server: {optimizer: avgm, momentum: 0.75}}\n",
                   NULL, 0);
    assert_true (self->federate.server.lr == 0.25); //  a steady change counts once
    tl_topology_destroy (&self);
    s_refused (GOOD "federate: {deadline_s: 5}\nschedule: {mode: batch}\n", NULL,
               ":6:24: federate.deadline_s: nothing is averaged with these settings; remove it, or "
               "set federate.clients: average");
    s_refused (GOOD "federate: {clients: sync, quorum: 2}\nschedule: {mode: batch}\n", NULL,
               ":6:35: federate.quorum: nothing is averaged with these settings; remove it, or set "
               "federate.clients: average");
    s_refused (GOOD "federate: {clients: average, server: {lr: 0.1}}\n", NULL,
               ":6:43: federate.server.lr: the mean itself takes no learning rate; remove it, or "
               "set federate.server.optimizer to avgm or adam");
    s_refused (GOOD "federate: {clients: sync, proximal: 1}\nschedule: {mode: batch}\n", NULL,
               ":6:37: federate.proximal: with federate.clients sync nobody drifts apart, so there "
               "is nothing to hold; remove it");
    s_refused (GOOD "federate: {clients: average, quorum: 9}\n", NULL,
               ":6:38: federate.quorum: 9 parts can't come from 1 client; use at most that");
    s_refused (GOOD "schedule: {start: 2}\n", NULL,
               ":6:19: schedule.start: 2 clients can't come where there is 1; use at most that");
    self = s_good (GOOD "split: none\nfederate: {clients: average}\nschedule: {mode: batch}\n",
                   NULL, 0);
    assert_true (self->split.none && self->split.front == 1);
    tl_topology_destroy (&self);
    self =
        s_good (GOOD "split: {front: 0, tail: 2}\nprivacy: {allow_unsafe_split: true}\n", NULL, 0);
    assert_true (!self->split.none && self->split.front == 0 && self->split.tail == 2);
    tl_topology_destroy (&self);
    s_refused (GOOD "split: none\n", NULL,
               ":6:8: split: with none each client trains a whole model, and only "
               "federate.clients: average makes them one; set that");
    s_refused (GOOD "split: all\n", NULL,
               ":6:8: split: expected a mapping with the keys front and tail, or none, found "
               "'all'; write for example 'split: {front: 1, tail: 1}'");
    s_refused (GOOD, "clients.0.name=aggregator",
               "--set clients.0.name: the name 'aggregator' is the aggregator's own; choose "
               "another");
}

static void
test_window (void **state)
{
    tl_topology_t *self = s_good (GOOD, NULL, 0);
    assert_false (self->schedule.window);
    tl_topology_destroy (&self);
    self = s_good (GOOD "schedule: {mode: auto, join: window, window_ms: 250}\n", NULL, 0);
    assert_true (self->schedule.window && self->schedule.window_ms == 250);
    tl_topology_destroy (&self);
    self = s_good (GOOD "schedule: {join: window}\nfederate: {clients: average}\n", NULL, 0);
    assert_int_equal (self->schedule.window_ms, 1000);
    tl_topology_destroy (&self);
    s_refused (GOOD "schedule: {join: some}\n", NULL,
               ":6:18: schedule.join: expected all or window, found 'some'; write for example "
               "'join: all'");
    s_refused (
        GOOD "schedule: {window_ms: 250}\n", NULL,
        ":6:23: schedule.window_ms: a step waits for all its clients unless schedule.join is "
        "window; remove it, or set that");
    s_refused (GOOD "schedule: {join: window}\nfederate: {clients: sync}\n", NULL,
               ":6:18: schedule.join: federate.clients sync sums the gradients of all clients in "
               "every step, which window would begin without some of them; use all");
    s_refused (GOOD "schedule: {mode: serial, join: window}\n", NULL,
               ":6:32: schedule.join: window begins a step with the clients that are ready, and "
               "with schedule.mode serial a step is one client's; use all, or another mode");
    s_refused (GOOD "split: none\nfederate: {clients: average}\nschedule: {join: window}\n", NULL,
               ":8:18: schedule.join: with split none no client waits for another inside a period; "
               "use all");
}

static void
test_contradictions (void **state)
{
    s_refused (
        GOOD, "clients.0.name=trunk-1",
        "--set clients.0.name: the name 'trunk-1' is taken by another peer; choose a name of "
        "its own");
    s_refused (GOOD, "workers.0.name=broker",
               "--set workers.0.name: the name 'broker' is the broker's own; choose another");
    s_refused (
        GOOD "split: {front: 0}\n", NULL,
        ":6:16: split.front: 0 is unsafe: with the embedding or head alone at the client, its "
        "text can be read from what crosses the wire; use at least 1, or "
        "privacy.allow_unsafe_split: true for a baseline on public text");
    s_refused (
        GOOD "train: {batch_size: 2, micros: 3}\n", NULL,
        ":6:32: train.micros: 3 portions of a batch of 2 would leave some empty; use at most 2");
    s_refused (GOOD "train: {batch_size: 8193, micros: 2}\n", NULL,
               ":6:21: train.batch_size: a portion holds at most 4096 sequences; use at most 8192, "
               "or more than 2 train.micros");
    s_refused (
        GOOD "broker: {workers: 'tcp://127.0.0.1:5570'}\n", NULL,
        ":6:19: broker.workers: port 5570 is also that of broker.clients by default; give each "
        "its own");
    //  The default is not at fault, whichever comes first.
    s_refused (
        GOOD "broker: {control: 'tcp://127.0.0.1:5570'}\n", NULL,
        ":6:19: broker.control: port 5570 is also that of broker.clients by default; give each "
        "its own");
    s_refused (GOOD, "broker.control=tcp://127.0.0.1:5571",
               "--set broker.control: port 5571 is also that of broker.workers by default; give "
               "each its own");
    s_refused (
        GOOD "broker: {control: 'tcp://127.0.0.1:7000', workers: 'tcp://127.0.0.1:7000'}\n", NULL,
        ":6:52: broker.workers: port 7000 is also that of broker.control; give each its own");
    //  An override of more than the key itself: both are named.
    s_refused (GOOD, "broker={clients: 'tcp://127.0.0.1:5569'}",
               "--set broker: broker.clients: port 5569 is also that of broker.control by default; "
               "give each its own");
    s_refused (
        GOOD "liveness: {ping_ms: 50, expire_ms: 40}\n", NULL,
        ":6:36: liveness.expire_ms: 40 ms is not after the PING at 50 ms (liveness.ping_ms); "
        "set it to at least twice that");
    s_refused (
        GOOD, "clients.0.host=elsewhere",
        ":1:1: broker.control: tcp://127.0.0.1:5569 can't be reached from another host, yet a "
        "peer's host differs from broker.host 'localhost'; write the broker's address on the "
        "network");
}

//  Every prefix of a good file is either refused with a place or a smaller good file; never a crash.
static void
test_prefixes (void **state)
{
    const char *whole = GOOD "train: {steps: 5, lr: 1e-3}\ntune: {targets: [a, b]}\n";
    for (size_t size = 0; size < strlen (whole); size++) {
        char *part = tl_format ("%.*s", (int)size, whole);
        tl_error_t err;
        tl_topology_t *self = s_read (part, NULL, 0, &err);
        if (!self)
            assert_int_equal (strncmp (err.text, s_path, strlen (s_path)), 0);
        tl_topology_destroy (&self);
        free (part);
    }
}

//  The same for every bit of it turned around.
static void
test_bit_flips (void **state)
{
    char text[] = GOOD "tune: {targets: [a, b]}\n";
    for (size_t bit = 0; bit < 8 * strlen (text); bit++) {
        tl_error_t err;
        text[bit / 8] ^= (char)(1 << bit % 8);
        tl_topology_t *self = s_read (text, NULL, 0, &err);
        if (!self)
            assert_int_equal (strncmp (err.text, s_path, strlen (s_path)), 0);
        tl_topology_destroy (&self);
        text[bit / 8] ^= (char)(1 << bit % 8);
    }
}

static void
test_nearest (void **state)
{
    const char *const words[] = {"train", "eval", "generate"};
    assert_string_equal (tl_nearest ("trian", words, 3), "train");
    assert_string_equal (tl_nearest ("Evla", words, 3), "eval");
    assert_string_equal (tl_nearest ("genrate", words, 3), "generate");
    assert_null (tl_nearest ("frobnicate", words, 3));
    assert_null (tl_nearest ("", words, 3));
}

#define SYNTHETIC                                                                                  \
    "version: 1\nname: t\n"                                                                        \
    "model: {synthetic: {hidden: 64}}\n"                                                           \
    "workers: [{name: w, compute: {synthetic: {base_ms: 20, us_per_row: 10}}}]\n"                  \
    "clients: [{name: s, count: 20, compute: {synthetic: {rows: 8}}},\n"                           \
    "          {name: slow, compute: {synthetic: {base_ms: 5, changes_at: 9, changes_by: 4}}}]\n"

//  Without a model nothing computes, and one entry may stand for many clients.
static void
test_synthetic (void **state)
{
    tl_topology_t *self = s_good (SYNTHETIC, NULL, 0);
    assert_true (self->model.synthetic && !self->model.path);
    assert_int_equal (self->model.hidden, 64);
    assert_true (self->workers[0].synthetic.is && self->workers[0].synthetic.base_ms == 20);
    assert_true (self->workers[0].synthetic.us_per_row == 10);
    assert_int_equal (self->client_count, 21);
    assert_string_equal (self->clients[0].name, "s-01");
    assert_string_equal (self->clients[19].name, "s-20");
    assert_int_equal (self->clients[19].synthetic.rows, 8);
    assert_int_equal (tl_topology_client (self, "s-07"), 6);
    assert_int_equal (tl_topology_client (self, "s"), -1);
    assert_int_equal (self->clients[20].synthetic.rows, 256);
    assert_int_equal (self->clients[20].synthetic.changes_at, 9);
    assert_true (self->clients[20].synthetic.changes_by == 4);
    tl_topology_destroy (&self);
    s_refused (SYNTHETIC, "clients.2={name: real, data: d.jsonl}",
               "--set clients.2: clients.2.compute.synthetic: model.synthetic leaves nothing to "
               "compute; write compute: {synthetic: {base_ms: 20}} here too, or give a model.path");
    s_refused (SYNTHETIC, "clients.1.compute.synthetic.rows=512",
               "--set clients.1.compute.synthetic.rows: 512 rows are one sequence, and "
               "train.max_length is 256; raise that or use fewer");
    s_refused (SYNTHETIC, "federate.clients=average",
               "--set federate.clients: synthetic clients hold nothing to average or sum; use "
               "personal");
    //  No step can name more; taking turns none needs to
    s_refused (SYNTHETIC, "clients.0.count=4096",
               ":5:1: clients: 4097 clients are more than the 4096 that a step or an average can "
               "have; use fewer, or schedule.mode serial with federate.clients personal; "
               "`trunkline simulate` knows no such limit");
    const char *turns[] = {"clients.0.count=10000", "schedule.mode=serial"};
    self = s_good (SYNTHETIC, turns, 2);
    assert_int_equal (self->client_count, 10001);
    tl_topology_destroy (&self);
    s_refused (SYNTHETIC, "clients.1.name=s-07",
               "--set clients.1.name: the name 's-07' is taken by another peer; choose a name of "
               "its own");
    s_refused (SYNTHETIC, "model.path=m",
               ":3:9: model.synthetic: a topology has a model or a synthetic one; "
               "remove it or model.path");
    s_refused (GOOD, "clients.0.count=2",
               "--set clients.0.count: 2 alike can only be synthetic; give each its own entry, or "
               "'compute: {synthetic: {}}'");
    s_refused (GOOD, "workers.0.compute={synthetic: {}}",
               "--set workers.0.compute: workers.0.compute.synthetic: a part that computes nothing "
               "does not go with a model; write model: {synthetic: {hidden: 256}} and make all "
               "parts synthetic, or remove it");
}

//  What the settings hold, written out and read again, is what they held.
static void
test_values_can_be_written (void **state)
{
    static const char *const changed[] = {
        "tune.targets=a,b", "tune.parts=trunk", "tune.dropout=0.1",       "train.lr=3e-7",
        "wire.dtype=fp16",  "wire.credit_mb=7", "train.schedule=constant"};
    tl_topology_t *first = s_good (GOOD, changed, sizeof changed / sizeof *changed);
    const char *overrides[128];
    size_t count, used = 0;
    const tl_setting_t *rows = tl_schema (&count);
    for (size_t i = 0; i < count; i++) {
        char *value = tl_schema_value (first, &rows[i]);
        if (value)
            overrides[used++] = tl_format ("%s=%s", rows[i].path, value);
        free (value);
    }
    assert_in_range (used, 30, 128);
    tl_topology_t *second = s_good (GOOD, overrides, used);
    for (size_t i = 0, at = 0; i < count; i++) {
        char *value = tl_schema_value (second, &rows[i]);
        char *line = value ? tl_format ("%s=%s", rows[i].path, value) : NULL;
        if (line)
            assert_string_equal (line, overrides[at++]);
        free (line);
        free (value);
    }
    for (size_t i = 0; i < used; i++)
        free ((char *)overrides[i]);
    tl_topology_destroy (&first);
    tl_topology_destroy (&second);
}

static int
s_set_up (void **state)
{
    snprintf (s_path, sizeof s_path, "/tmp/tl-topology-%ld.yaml", (long)getpid ());
    return 0;
}

static int
s_tear_down (void **state)
{
    return unlink (s_path);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_defaults),
        cmocka_unit_test (test_overrides),
        cmocka_unit_test (test_bad_overrides),
        cmocka_unit_test (test_not_yaml),
        cmocka_unit_test (test_keys),
        cmocka_unit_test (test_values),
        cmocka_unit_test (test_federation),
        cmocka_unit_test (test_window),
        cmocka_unit_test (test_contradictions),
        cmocka_unit_test (test_not_in_this_version),
        cmocka_unit_test (test_prefixes),
        cmocka_unit_test (test_bit_flips),
        cmocka_unit_test (test_nearest),
        cmocka_unit_test (test_synthetic),
        cmocka_unit_test (test_values_can_be_written),
    };
    return cmocka_run_group_tests_name ("topology", tests, s_set_up, s_tear_down);
}
