//  broker_store: the trunk's saved states, as files beside the broker. The blobs are opaque here. All disk work is done by
//  the broker's disk thread, in order; the loop never waits for it.

#include "actors/broker_internal.h"
#include "actors/save.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

//  One piece of disk work.
typedef struct {
    tl_broker_t *broker;
    tl_place_t place;
    char *directory; //  of the broker's saves
    void *state;     //  to write, or as read
    size_t size;
    size_t keep;     //  how many saves stay
    uint64_t worker; //  fetch: serial of the session that is to have it
    tl_error_t err;  //  code TL_OK: it worked
} tl_work_t;

static tl_work_t *
s_work (tl_broker_t *broker, const tl_place_t *place)
{
    tl_work_t *work = tl_alloc (sizeof *work);
    work->broker = broker;
    work->place = *place;
    work->directory = tl_save_directory (broker->topology, "broker");
    work->keep = broker->topology->checkpoint.keep;
    return work;
}

static void
s_free (void *arg)
{
    tl_work_t *work = arg;
    free (work->directory);
    free (work->state);
    free (work);
}

//  Why the run that lies there may not be replaced: its broker died before it ended.
static int
s_refuse (const tl_topology_t *topology, const char *common, tl_error_t *err)
{
    json_error_t error;
    json_t *place = json_load_file (common, 0, &error);
    json_int_t step = json_integer_value (json_object_get (place, "step"));
    json_decref (place);
    const char *directory = topology->checkpoint.dir, *name = topology->name;
    if (step <= 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s/%s holds a run that did not end, and had no common save yet; move it "
                        "away to keep it, begin a new one with --set name=%s-2 at all parts, or "
                        "replace it with --replace",
                        directory, name, name);
    return tl_fail (err, TL_BAD_INPUT,
                    "%s/%s holds a run that did not end: its last common save is of step %lld, and "
                    "it can't be continued by another broker; move it away to keep it, begin a "
                    "new one with --set name=%s-2 at all parts, or replace it with --replace",
                    directory, name, (long long)step, name);
}

int
tl_store_open (const tl_topology_t *topology, bool replace, tl_error_t *err)
{
    char *directory = tl_save_directory (topology, "broker");
    char *common = tl_format ("%s/common.json", directory);
    char *ended = tl_format ("%s/ended", directory);
    int rc = 0;
    if (!replace && !tl_exists (ended) && tl_save_newest (directory, UINT64_MAX) >= 0)
        rc = s_refuse (topology, common, err);
    if (rc == 0)
        rc = tl_save_open (directory, err);
    if (rc == 0) {
        unlink (common);
        unlink (ended);
    }
    free (ended);
    free (common);
    free (directory);
    return rc;
}

static void
s_run_end (void *arg)
{
    tl_work_t *work = arg;
    char *path = tl_format ("%s/ended", work->directory);
    tl_file_write (path, "", 0, 0644, &work->err);
    free (path);
}

static void
s_run_put (void *arg)
{
    tl_work_t *work = arg;
    tl_save_write (work->directory, work->place.step, work->state, work->size, &work->err);
}

static void
s_done_put (void *arg)
{
    tl_work_t *work = arg;
    tl_scheduler_saved (work->broker->scheduler, work->place.step, work->err.code == TL_OK,
                        work->err.text);
    s_free (work);
}

void
tl_store_put (tl_broker_t *self, uint64_t step, void *state, size_t size)
{
    tl_work_t *work = s_work (self, &(tl_place_t){.step = step});
    work->state = state;
    work->size = size;
    tl_compute_submit (self->disk, s_run_put, s_done_put, s_free, work);
}

static void
s_run_fetch (void *arg)
{
    tl_work_t *work = arg;
    tl_save_forget_after (work->directory, work->place.step);
    work->state = tl_save_read (work->directory, work->place.step, &work->size, &work->err);
}

static void
s_done_fetch (void *arg)
{
    tl_work_t *work = arg;
    tl_session_t *worker = tl_sessions_by_serial (&work->broker->sessions, work->worker);
    if (!worker || !worker->ready)
        ; //  it is gone; another one has a fetch of its own
    else if (work->state)
        tl_broker_send_state (work->broker, worker, &work->place, work->state, work->size);
    else
        tl_scheduler_restored (work->broker->scheduler, (size_t)worker->index, false,
                               work->err.text);
    s_free (work);
}

void
tl_store_fetch (tl_broker_t *self, const tl_place_t *place, const tl_session_t *worker)
{
    tl_work_t *work = s_work (self, place);
    work->worker = worker->serial;
    tl_compute_submit (self->disk, s_run_fetch, s_done_fetch, s_free, work);
}

static void
s_run_common (void *arg)
{
    tl_work_t *work = arg;
    char *path = tl_format ("%s/common.json", work->directory);
    char *text = tl_format (
        "{\"step\": %llu, \"round\": %llu, \"turn\": %llu}\n", (unsigned long long)work->place.step,
        (unsigned long long)work->place.round, (unsigned long long)work->place.turn);
    tl_file_write (path, text, strlen (text), 0644, &work->err);
    free (text);
    free (path);
    tl_save_prune (work->directory, work->place.step, work->keep);
}

static void
s_done_note (void *arg)
{
    tl_work_t *work = arg;
    if (work->err.code != TL_OK)
        tl_warn ("%s", work->err.text);
    s_free (work);
}

void
tl_store_common (tl_broker_t *self, const tl_place_t *place)
{
    tl_compute_submit (self->disk, s_run_common, s_done_note, s_free, s_work (self, place));
}

void
tl_store_end (tl_broker_t *self)
{
    tl_place_t place = tl_scheduler_place (self->scheduler);
    tl_compute_submit (self->disk, s_run_end, s_done_note, s_free, s_work (self, &place));
}
