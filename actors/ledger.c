#include "ledger.h"

#include "actors/events.h"
#include "base/assert.h"
#include "clock.h"
#include "memory.h"

#include <stdlib.h>

enum { MOST = 1000 }; //  events that are kept for one flush; then it goes without being asked

struct tl_ledger {
    tl_rundb_t *db; //  the disk thread's
    tl_compute_t *disk;
    json_t *waiting; //  the loop's: events since the last flush
    tl_error_t err;  //  the disk thread's: why a flush could not be written
    bool told;       //  the loop's: on_failed was called
    void (*on_failed) (void *arg, const char *text);
    void *arg;
};

typedef struct {
    tl_ledger_t *ledger;
    json_t *events;
    tl_error_t err; //  code TL_OK: it is written
} tl_flush_t;

static void
s_free (void *arg)
{
    tl_flush_t *flush = arg;
    json_decref (flush->events);
    free (flush);
}

static void
s_run (void *arg)
{
    tl_flush_t *flush = arg;
    tl_ledger_t *self = flush->ledger;
    if (!self->err.code && tl_rundb_note (self->db, flush->events, &flush->err))
        self->err = flush->err;
}

static void
s_done (void *arg)
{
    tl_flush_t *flush = arg;
    tl_ledger_t *self = flush->ledger;
    if (flush->err.code && !self->told) {
        self->told = true;
        self->on_failed (self->arg, flush->err.text);
    }
    s_free (flush);
}

void
tl_ledger_flush (tl_ledger_t *self)
{
    if (!self || json_array_size (self->waiting) == 0)
        return;
    tl_flush_t *flush = tl_alloc (sizeof *flush);
    flush->ledger = self;
    flush->events = self->waiting;
    self->waiting = json_array ();
    tl_compute_submit (self->disk, s_run, s_done, s_free, flush);
}

static void
s_take (tl_ledger_t *self, json_t *event)
{
    if (self->told)
        return;
    json_array_append (self->waiting, event);
    if (json_array_size (self->waiting) >= MOST)
        tl_ledger_flush (self);
}

static void
s_on_event (void *arg, const json_t *event)
{
    s_take (arg, (json_t *)event);
}

void
tl_ledger_add (tl_ledger_t *self, const char *name, json_t *record)
{
    tl_assert (record);
    json_object_set_new (record, "event", json_string (name));
    json_object_set_new (record, "time", json_real ((double)tl_clock_wall_ms () / 1000));
    s_take (self, record);
    json_decref (record);
}

int
tl_ledger_settle (tl_ledger_t *self, tl_error_t *err)
{
    if (!self->err.code && tl_rundb_settle (self->db, &self->err) == 0)
        return 0;
    *err = self->err;
    return -1;
}

const char *
tl_ledger_why_not (const tl_ledger_t *self)
{
    return self->err.code ? self->err.text : NULL;
}

tl_ledger_t *
tl_ledger_new (tl_rundb_t *db, tl_compute_t *disk, void (*on_failed) (void *arg, const char *text),
               void *arg)
{
    tl_ledger_t *self = tl_alloc (sizeof *self);
    self->db = db;
    self->disk = disk;
    self->waiting = json_array ();
    self->on_failed = on_failed;
    self->arg = arg;
    tl_events_also (s_on_event, self);
    return self;
}

void
tl_ledger_destroy (tl_ledger_t **self_p)
{
    tl_ledger_t *self = *self_p;
    if (!self)
        return;
    tl_events_also (NULL, NULL);
    tl_rundb_destroy (&self->db);
    json_decref (self->waiting);
    free (self);
    *self_p = NULL;
}
