//  topology: reads the file, lays the overrides over it, and checks what keys mean for one another.

#include "topology.h"

#include "assert.h"
#include "file.h"
#include "memory.h"
#include "schema.h"
#include "yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_FILE = 16 << 20 };

//  Peers by name, sorted: a large topology has thousands, and messages name them.
typedef struct {
    const char *name;
    int index; //  in clients or workers
} s_name_t;

struct tl_topology_names {
    s_name_t *clients, *workers; //  [client_count], [worker_count]
};

//  Equal names in the order of the file.
static int
s_compare_names (const void *left, const void *right)
{
    const s_name_t *one = left, *two = right;
    int order = strcmp (one->name, two->name);
    return order ? order : one->index - two->index;
}

static void
s_sort_names (tl_topology_t *self)
{
    self->names = tl_alloc (sizeof *self->names);
    self->names->clients = tl_alloc ((self->client_count + 1) * sizeof (s_name_t));
    self->names->workers = tl_alloc ((self->worker_count + 1) * sizeof (s_name_t));
    for (size_t i = 0; i < self->client_count; i++)
        self->names->clients[i] = (s_name_t){self->clients[i].name, (int)i};
    for (size_t i = 0; i < self->worker_count; i++)
        self->names->workers[i] = (s_name_t){self->workers[i].name, (int)i};
    qsort (self->names->clients, self->client_count, sizeof (s_name_t), s_compare_names);
    qsort (self->names->workers, self->worker_count, sizeof (s_name_t), s_compare_names);
}

//  The first of that name, or -1.
static int
s_find_name (const s_name_t *names, size_t count, const char *name)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp (names[middle].name, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && strcmp (names[low].name, name) == 0 ? names[low].index : -1;
}

int
tl_topology_client (const tl_topology_t *self, const char *name)
{
    return s_find_name (self->names->clients, self->client_count, name);
}

int
tl_topology_worker (const tl_topology_t *self, const char *name)
{
    return s_find_name (self->names->workers, self->worker_count, name);
}

bool
tl_topology_fans_out (const tl_topology_t *self)
{
    return self->worker_count > 1 && self->client_count > 1 &&
           self->schedule.mode != TL_MODE_SERIAL && self->schedule.mode != TL_MODE_BATCH;
}

bool
tl_topology_aggregates (const tl_topology_t *self)
{
    return tl_topology_fans_out (self) || self->federate.clients != TL_CLIENTS_PERSONAL;
}

uint64_t
tl_topology_rounds (const tl_topology_t *self)
{
    uint64_t most = 0, all = self->train.steps;
    for (size_t i = 0; i < self->client_count; i++) {
        uint64_t its = self->clients[i].steps ? self->clients[i].steps : all;
        most = its > most ? its : most;
    }
    return most < all ? most : all;
}

const char *
tl_mode_name (tl_mode_t mode)
{
    static const char *const s_names[] = {[TL_MODE_SERIAL] = "serial",
                                          [TL_MODE_BATCH] = "batch",
                                          [TL_MODE_FANOUT] = "fanout",
                                          [TL_MODE_AUTO] = "auto"};
    return s_names[mode];
}

//  A complaint at the value under path, or at the nearest thing above it that was written.
#define s_complain(self, root, path, err, ...)                                                     \
    tl_schema_complain ((self)->source, s_place (root, path), false, path, err, __VA_ARGS__)

static const tl_yaml_t *
s_place (const tl_yaml_t *root, const char *path)
{
    char *copy = tl_strdup (path), *dot;
    const tl_yaml_t *node = tl_yaml_find (root, copy);
    while (!node && (dot = strrchr (copy, '.'))) {
        *dot = 0;
        node = tl_yaml_find (root, copy);
    }
    free (copy);
    return node;
}

static int
s_check_names (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    char path[64];
    for (size_t i = 0; i < self->client_count; i++) {
        const char *name = self->clients[i].name;
        snprintf (path, sizeof path, "clients.%zu.name", self->clients[i].entry);
        if (tl_topology_client (self, name) != (int)i || tl_topology_worker (self, name) >= 0)
            return s_complain (self, root, path, err,
                               "the name '%s' is taken by another peer; choose a name of its own",
                               name);
    }
    for (size_t i = 0; i < self->worker_count + self->client_count; i++) {
        bool worker = i < self->worker_count;
        size_t at = worker ? i : i - self->worker_count;
        const char *name = worker ? self->workers[at].name : self->clients[at].name;
        snprintf (path, sizeof path, "%s.%zu.name", worker ? "workers" : "clients",
                  worker ? self->workers[at].entry : self->clients[at].entry);
        if (strcmp (name, "broker") == 0 || strcmp (name, "aggregator") == 0)
            return s_complain (self, root, path, err,
                               "the name '%s' is the %s's own; choose another", name, name);
    }
    return 0;
}

//  One part of a topology, as far as computing goes.
typedef struct {
    const char *list; //  "workers"
    size_t entry, count;
    const tl_synthetic_t *synthetic;
    const char *data; //  a client's
} s_part_t;

static int
s_check_part (const tl_topology_t *self, const tl_yaml_t *root, const s_part_t *part,
              tl_error_t *err)
{
    char path[80];
    bool client = *part->list == 'c';
    snprintf (path, sizeof path, "%s.%zu.%s", part->list, part->entry,
              !part->synthetic->is && part->count > 1 ? "count" : "compute.synthetic");
    if (!part->synthetic->is && part->count > 1)
        return s_complain (self, root, path, err,
                           "%zu alike can only be synthetic; give each its own entry, or "
                           "'compute: {synthetic: {}}'",
                           part->count);
    if (part->synthetic->is && !self->model.synthetic)
        return s_complain (self, root, path, err,
                           "a part that computes nothing does not go with a model; write model: "
                           "{synthetic: {hidden: 256}} and make all parts synthetic, or remove it");
    if (!part->synthetic->is && self->model.synthetic)
        return s_complain (self, root, path, err,
                           "model.synthetic leaves nothing to compute; write compute: {synthetic: "
                           "{base_ms: 20}} here too, or give a model.path");
    snprintf (path, sizeof path, "%s.%zu.%s", part->list, part->entry,
              client && !part->synthetic->is ? "data" : "compute.synthetic.rows");
    if (client && !part->synthetic->is && !part->data)
        return s_complain (self, root, path, err,
                           "the key is missing: expected a JSONL file; write for example 'data: "
                           "data/north.jsonl'");
    if (client && part->synthetic->is && part->synthetic->rows > self->train.max_length)
        return s_complain (self, root, path, err,
                           "%zu rows are one sequence, and train.max_length is %zu; raise that or "
                           "use fewer",
                           part->synthetic->rows, self->train.max_length);
    return 0;
}

//  There is a model that all compute, or none.
static int
s_check_compute (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    if (!self->model.path && !self->model.synthetic)
        return s_complain (self, root, "model.path", err,
                           "the key is missing: expected a directory or a file; write for example "
                           "'path: models/tiny-glm'");
    if (self->model.path && self->model.synthetic)
        return s_complain (self, root, "model.synthetic", err,
                           "a topology has a model or a synthetic one; remove it or model.path");
    if (self->model.synthetic && self->federate.clients != TL_CLIENTS_PERSONAL)
        return s_complain (self, root, "federate.clients", err,
                           "synthetic clients hold nothing to average or sum; use personal");
    for (size_t i = 0; i < self->worker_count + self->client_count; i++) {
        const tl_worker_spec_t *worker = i < self->worker_count ? &self->workers[i] : NULL;
        const tl_client_spec_t *client = worker ? NULL : &self->clients[i - self->worker_count];
        s_part_t part =
            worker ? (s_part_t){"workers", worker->entry, worker->count, &worker->synthetic, NULL}
                   : (s_part_t){"clients", client->entry, client->count, &client->synthetic,
                                client->data};
        if (s_check_part (self, root, &part, err) != 0)
            return -1;
    }
    return 0;
}

static int
s_check_split (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    if (self->split.none && self->federate.clients != TL_CLIENTS_AVERAGE)
        return s_complain (self, root, "split", err,
                           "with none each client trains a whole model, and only "
                           "federate.clients: average makes them one; set that");
    if (self->split.none && self->schedule.mode != TL_MODE_BATCH)
        return s_complain (self, root, "split", err,
                           "with none there is no trunk to share out; set schedule.mode: batch, "
                           "where every client does each step by itself");
    if (self->split.none && (self->tune.parts != TL_PART_ALL || self->worker_count > 1))
        return s_complain (self, root, "split", err,
                           "with none a client's part is the whole model and one worker keeps the "
                           "time; leave tune.parts out and name one worker");
    const char *path = self->split.front == 0 ? "split.front" : "split.tail";
    if ((self->split.front > 0 && self->split.tail > 0) || self->privacy.allow_unsafe_split)
        return 0;
    return s_complain (
        self, root, path, err,
        "0 is unsafe: with the embedding or head alone at the client, its text can be "
        "read from what crosses the wire; use at least 1, or privacy.allow_unsafe_split: true "
        "for a baseline on public text");
}

static int
s_check_train (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    if (self->train.batch_size < self->train.micros)
        return s_complain (self, root, "train.micros", err,
                           "%zu portions of a batch of %zu would leave some empty; use at most %zu",
                           self->train.micros, self->train.batch_size, self->train.batch_size);
    //  One ACTIVATION describes all sequences of a portion (messages.def).
    size_t most = 4096 * self->train.micros;
    if (self->train.batch_size > most)
        return s_complain (self, root, "train.batch_size", err,
                           "a portion holds at most 4096 sequences; use at most %zu, or more than "
                           "%zu train.micros",
                           most, self->train.micros);
    if (self->train.lr_min > self->train.lr)
        return s_complain (self, root, "train.lr_min", err,
                           "%g is above train.lr %g, from which the rate falls; use at most that",
                           self->train.lr_min, self->train.lr);
    if (self->liveness.expire_ms <= self->liveness.ping_ms)
        return s_complain (
            self, root, "liveness.expire_ms", err,
            "%lld ms is not after the PING at %lld ms (liveness.ping_ms); set it to at "
            "least twice that",
            (long long)self->liveness.expire_ms, (long long)self->liveness.ping_ms);
    return 0;
}

//  A step that begins with who is ready.
static int
s_check_window (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    enum { USUAL_MS = 1000 }; //  also in a file that has every setting
    if (!self->schedule.window && self->schedule.window_ms != USUAL_MS)
        return s_complain (self, root, "schedule.window_ms", err,
                           "a step waits for all its clients unless schedule.join is window; "
                           "remove it, or set that");
    if (!self->schedule.window)
        return 0;
    if (self->schedule.mode == TL_MODE_SERIAL)
        return s_complain (self, root, "schedule.join", err,
                           "window begins a step with the clients that are ready, and with "
                           "schedule.mode serial a step is one client's; use all, or another mode");
    if (self->federate.clients == TL_CLIENTS_SYNC)
        return s_complain (self, root, "schedule.join", err,
                           "federate.clients sync sums the gradients of all clients in every step, "
                           "which window would begin without some of them; use all");
    if (self->split.none)
        return s_complain (self, root, "schedule.join", err,
                           "with split none no client waits for another inside a period; use all");
    return 0;
}

//  How clients come together, and with what that goes together.
static int
s_check_federation (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    bool sync = self->federate.clients == TL_CLIENTS_SYNC;
    //  One PLAN names all members of a step, one MERGE all whose parts are averaged (messages.def).
    enum { MOST_MEMBERS = 4096 };
    bool alone =
        self->schedule.mode == TL_MODE_SERIAL && self->federate.clients == TL_CLIENTS_PERSONAL;
    if (self->client_count > MOST_MEMBERS && !alone)
        return s_complain (self, root, "clients", err,
                           "%zu clients are more than the %d that a step or an average can have; "
                           "use fewer, or schedule.mode serial with federate.clients personal; "
                           "`trunkline simulate` knows no such limit",
                           self->client_count, MOST_MEMBERS);
    if (sync && self->schedule.mode != TL_MODE_BATCH)
        return s_complain (self, root, "federate.clients", err,
                           "sync makes one gradient of all clients of a step, which only "
                           "schedule.mode batch has; set that, or federate.clients: average");
    if (sync && self->federate.proximal > 0)
        return s_complain (self, root, "federate.proximal", err,
                           "with federate.clients sync nobody drifts apart, so there is nothing to "
                           "hold; remove it");
    if (self->federate.clients != TL_CLIENTS_PERSONAL && self->model.synthetic)
        return s_complain (self, root, "federate.clients", err,
                           "synthetic clients have no adapters to share; remove it");
    if (self->federate.clients != TL_CLIENTS_PERSONAL &&
        !(self->tune.parts & (TL_PART_FRONT | TL_PART_TAIL)))
        return s_complain (
            self, root, "federate.clients", err,
            "tune.parts leaves front and tail out, so clients have nothing to share; "
            "remove it, or train all parts");
    bool averages = tl_topology_aggregates (self) && !sync;
    const char *idle = self->federate.proximal > 0                         ? "proximal"
                       : self->federate.server.optimizer != TL_SERVER_NONE ? "server.optimizer"
                       : self->federate.quorum > 1                         ? "quorum"
                       : self->federate.deadline > 0                       ? "deadline_s"
                                                                           : NULL;
    if (idle && !averages) {
        char path[48];
        snprintf (path, sizeof path, "federate.%s", idle);
        return s_complain (self, root, path, err,
                           "nothing is averaged with these settings; remove it, or set "
                           "federate.clients: average");
    }
    if (self->federate.server.lr > 0 && self->federate.server.optimizer == TL_SERVER_NONE)
        return s_complain (self, root, "federate.server.lr", err,
                           "the mean itself takes no learning rate; remove it, or set "
                           "federate.server.optimizer to avgm or adam");
    if (self->schedule.start > self->client_count)
        return s_complain (self, root, "schedule.start", err,
                           "%zu clients can't come where there %s %zu; use at most that",
                           self->schedule.start, self->client_count == 1 ? "is" : "are",
                           self->client_count);
    if (self->federate.quorum > self->client_count)
        return s_complain (self, root, "federate.quorum", err,
                           "%zu parts can't come from %zu client%s; use at most that",
                           self->federate.quorum, self->client_count,
                           self->client_count == 1 ? "" : "s");
    return 0;
}

//  0 stands for what is usual with the optimizer.
static void
s_settle (tl_topology_t *self)
{
    tl_server_spec_t *server = &self->federate.server;
    //  A change that stays the same is then made once, not 1 / (1 - momentum) times
    if (server->lr == 0 && server->optimizer != TL_SERVER_NONE)
        server->lr = server->optimizer == TL_SERVER_ADAM ? 0.01 : 1 - server->momentum;
}

static int
s_check_parts (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    bool front = self->tune.parts & TL_PART_FRONT, tail = self->tune.parts & TL_PART_TAIL;
    if (front == tail)
        return 0;
    return s_complain (self, root, "tune.parts", err,
                       "front and tail are the client's together; name both or neither");
}

static const char *
s_port (const char *address)
{
    return strrchr (address, ':') + 1;
}

static bool
s_is_loopback (const char *address)
{
    return strncmp (address, "tcp://127.", 10) == 0 || strncmp (address, "tcp://[::1]", 11) == 0 ||
           strncmp (address, "tcp://localhost:", 16) == 0;
}

//  Non-loopback addresses need nothing said: every tcp socket here speaks CURVE.
static int
s_check_addresses (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    static const char *const paths[] = {"broker.control", "broker.clients", "broker.workers"};
    const char *const addresses[] = {self->broker.control, self->broker.clients,
                                     self->broker.workers};
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j < i; j++)
            if (atoi (s_port (addresses[i])) == atoi (s_port (addresses[j]))) {
                //  The one that was written is at fault, not the other's default.
                bool swap = !tl_yaml_find (root, paths[i]);
                const char *other = paths[swap ? i : j];
                return s_complain (self, root, paths[swap ? j : i], err,
                                   "port %s is also that of %s%s; give each its own",
                                   s_port (addresses[i]), other,
                                   tl_yaml_find (root, other) ? "" : " by default");
            }
        if (strncmp (addresses[i], "tcp://0.0.0.0:", 14) == 0 ||
            strncmp (addresses[i], "tcp://[::]:", 11) == 0)
            return s_complain (
                self, root, paths[i], err,
                "peers connect to this address, so it can't be 'all interfaces'; write "
                "the broker's own address like tcp://192.0.2.10:5570");
    }
    for (size_t i = 0; i < 3; i++) {
        bool elsewhere = false;
        for (size_t w = 0; i != 1 && w < self->worker_count; w++)
            elsewhere |= strcmp (self->workers[w].host, self->broker.host) != 0;
        if (i != 1 && tl_topology_aggregates (self))
            elsewhere |= strcmp (self->aggregator.host, self->broker.host) != 0;
        for (size_t c = 0; i != 2 && c < self->client_count; c++)
            elsewhere |= strcmp (self->clients[c].host, self->broker.host) != 0;
        if (elsewhere && s_is_loopback (addresses[i]))
            return s_complain (
                self, root, paths[i], err,
                "%s can't be reached from another host, yet a peer's host differs from "
                "broker.host '%s'; write the broker's address on the network",
                addresses[i], self->broker.host);
    }
    return 0;
}

static int
s_check (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    if (s_check_compute (self, root, err) != 0 || s_check_names (self, root, err) != 0 ||
        s_check_split (self, root, err) != 0 || s_check_parts (self, root, err) != 0 ||
        s_check_train (self, root, err) != 0 || s_check_federation (self, root, err) != 0 ||
        s_check_window (self, root, err) != 0)
        return -1;
    return s_check_addresses (self, root, err);
}

tl_topology_t *
tl_topology_read (const char *path, const char *const *overrides, size_t count, tl_error_t *err)
{
    size_t size = 0;
    char *text = tl_file_read (path, LARGEST_FILE, &size, err);
    if (!text) {
        if (err)
            err->code = TL_BAD_INPUT;
        return NULL;
    }
    tl_topology_t *self = NULL;
    tl_yaml_t *root = tl_yaml_parse (path, text, size, err);
    free (text);
    int rc = root ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = tl_yaml_set (root, overrides[i], err);
    if (rc == 0) {
        self = tl_alloc (sizeof *self);
        self->source = tl_strdup (path);
        rc = tl_schema_read (self, root, err);
    }
    if (rc == 0) {
        s_sort_names (self);
        s_settle (self);
        rc = s_check (self, root, err);
    }
    if (rc != 0)
        tl_topology_destroy (&self);
    tl_yaml_destroy (&root);
    return self;
}

void
tl_topology_destroy (tl_topology_t **self_p)
{
    tl_assert (self_p);
    tl_topology_t *self = *self_p;
    if (!self)
        return;
    if (self->names) {
        free (self->names->clients);
        free (self->names->workers);
        free (self->names);
    }
    tl_schema_release (self);
    free (self->source);
    free (self);
    *self_p = NULL;
}
