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

int
tl_topology_client (const tl_topology_t *self, const char *name)
{
    for (size_t i = 0; i < self->client_count; i++)
        if (strcmp (self->clients[i].name, name) == 0)
            return (int)i;
    return -1;
}

int
tl_topology_worker (const tl_topology_t *self, const char *name)
{
    for (size_t i = 0; i < self->worker_count; i++)
        if (strcmp (self->workers[i].name, name) == 0)
            return (int)i;
    return -1;
}

bool
tl_topology_aggregates (const tl_topology_t *self)
{
    bool several = self->worker_count > 1 && self->client_count > 1 &&
                   self->schedule.mode != TL_MODE_SERIAL && self->schedule.mode != TL_MODE_BATCH;
    return several || self->federate.clients != TL_CLIENTS_PERSONAL;
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
        snprintf (path, sizeof path, "clients.%zu.name", i);
        if (tl_topology_client (self, name) != (int)i || tl_topology_worker (self, name) >= 0)
            return s_complain (self, root, path, err,
                               "the name '%s' is taken by another peer; choose a name of its own",
                               name);
    }
    for (size_t i = 0; i < self->worker_count + self->client_count; i++) {
        bool worker = i < self->worker_count;
        size_t at = worker ? i : i - self->worker_count;
        const char *name = worker ? self->workers[at].name : self->clients[at].name;
        snprintf (path, sizeof path, "%s.%zu.name", worker ? "workers" : "clients", at);
        if (strcmp (name, "broker") == 0 || strcmp (name, "aggregator") == 0)
            return s_complain (self, root, path, err,
                               "the name '%s' is the %s's own; choose another", name, name);
    }
    return 0;
}

static int
s_check_workers (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    if (self->worker_count == 1)
        return 0;
    return s_complain (
        self, root, "workers.1", err,
        "expected one worker, found %zu; several need schedule.mode fanout, which is "
        "not in this version: keep the first and remove the others",
        self->worker_count);
}

static int
s_check_split (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    const char *path = self->split.front == 0 ? "split.front" : "split.tail";
    if (self->split.front > 0 && self->split.tail > 0)
        return 0;
    return s_complain (
        self, root, path, err,
        "0 is unsafe: with the embedding or head alone at the client, its text can be "
        "read from what crosses the wire; use at least 1");
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
        return s_complain (self, root, "liveness.expire_ms", err,
                           "%lld ms is not after the PING at %lld ms; use at least twice as much",
                           (long long)self->liveness.expire_ms, (long long)self->liveness.ping_ms);
    return 0;
}

//  How clients come together, and with what that goes together.
static int
s_check_federation (const tl_topology_t *self, const tl_yaml_t *root, tl_error_t *err)
{
    bool sync = self->federate.clients == TL_CLIENTS_SYNC;
    if (sync && self->schedule.mode != TL_MODE_BATCH)
        return s_complain (self, root, "federate.clients", err,
                           "sync makes one gradient of all clients of a step, which only "
                           "schedule.mode batch has; set that, or federate.clients: average");
    if (sync && self->federate.proximal > 0)
        return s_complain (self, root, "federate.proximal", err,
                           "with federate.clients sync nobody drifts apart, so there is nothing to "
                           "hold; remove it");
    bool averages = tl_topology_aggregates (self) && !sync;
    const char *idle = self->federate.proximal > 0                         ? "proximal"
                       : self->federate.server.optimizer != TL_SERVER_NONE ? "server.optimizer"
                                                                           : NULL;
    if (idle && !averages) {
        char path[48];
        snprintf (path, sizeof path, "federate.%s", idle);
        return s_complain (self, root, path, err,
                           "nothing is averaged with these settings; remove it, or set "
                           "federate.clients: average");
    }
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
    if (server->lr == 0)
        server->lr = server->optimizer == TL_SERVER_ADAM ? 0.01 : 1;
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
    if (s_check_names (self, root, err) != 0 || s_check_workers (self, root, err) != 0 ||
        s_check_split (self, root, err) != 0 || s_check_parts (self, root, err) != 0 ||
        s_check_train (self, root, err) != 0 || s_check_federation (self, root, err) != 0)
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
    if (rc == 0)
        s_settle (self);
    if (rc == 0)
        rc = s_check (self, root, err);
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
    tl_schema_release (self);
    free (self->source);
    free (self);
    *self_p = NULL;
}
