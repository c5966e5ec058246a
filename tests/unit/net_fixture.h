/*  net_fixture: a keys directory and a ZeroMQ context for one test, and waiting for events with a
    deadline. Included by the tests of src/net only.                                              */

#ifndef TL_TESTS_NET_FIXTURE_H
#define TL_TESTS_NET_FIXTURE_H

#include "unit/cmocka_all.h"

#include "clock.h"
#include "file.h"
#include "keys.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { DEADLINE_MS = 20000 };

typedef struct {
    char directory[256];                  //  of keys, removed afterwards
    void *context;                        //  ZeroMQ's
    tl_pair_t broker, north, trunk, root; //  broker, client north, worker trunk, admin root
    tl_pair_t stranger;                   //  whose public file is not in the directory
    void *loop;                           //  of a test that failed before it closed its sockets
    void (*loop_destroy) (void *loop);
} net_t;

static inline void
net_check (int rc, const tl_error_t *err)
{
    if (rc)
        fail_msg ("%s", err->text);
}

//  A fresh directory under $TMPDIR or /tmp.
static inline void
net_directory (char path[256])
{
    const char *base = getenv ("TMPDIR");
    snprintf (path, 256, "%s/trunkline-net-XXXXXX", base ? base : "/tmp");
    assert_non_null (mkdtemp (path));
}

static inline void
net_make (const char *directory, const char *role, const char *name, tl_pair_t *pair)
{
    tl_error_t err = {0};
    net_check (tl_keys_make (directory, role, name, &err) < 0, &err);
    net_check (tl_keys_pair (directory, role, name, pair, &err), &err);
}

static inline int
net_setup_threads (void **state, int io_threads)
{
    net_t *self = tl_alloc (sizeof *self);
    char elsewhere[256];
    net_directory (self->directory);
    net_make (self->directory, "broker", "broker", &self->broker);
    net_make (self->directory, "client", "north", &self->north);
    net_make (self->directory, "worker", "trunk", &self->trunk);
    net_make (self->directory, "admin", "root", &self->root);
    net_directory (elsewhere);
    net_make (elsewhere, "client", "north", &self->stranger);
    assert_int_equal (tl_remove_tree (elsewhere), 0);
    self->context = zmq_ctx_new ();
    assert_non_null (self->context);
    assert_int_equal (zmq_ctx_set (self->context, ZMQ_IO_THREADS, io_threads), 0);
    *state = self;
    return 0;
}

static inline int
net_setup (void **state)
{
    return net_setup_threads (state, 1);
}

//  As a busy broker has it: what happens to two connections is then told in any order.
static inline int
net_setup_many (void **state)
{
    return net_setup_threads (state, 4);
}

//  Also shows that every socket was closed: ending the context would wait for it for ever.
static inline int
net_teardown (void **state)
{
    net_t *self = *state;
    if (self->loop)
        self->loop_destroy (self->loop);
    zmq_ctx_term (self->context);
    int rc = tl_remove_tree (self->directory);
    free (self);
    return rc;
}

#endif
