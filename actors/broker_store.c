//  broker_store: what the broker keeps on its disk: run.db, from which a run goes on, and the trunk's saved states as files,
//  opaque here. All disk work but the opening is done by the broker's disk thread, in order; the loop never waits for it.

#include "actors/broker_internal.h"
#include "actors/events.h"
#include "actors/save.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include "topology/schema.h"

#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  One piece of disk work.
typedef struct {
    tl_broker_t *broker;
    tl_place_t place;
    char *directory; //  of the broker's saves
    void *state;     //  to write, or as read
    size_t size;
    size_t keep;    //  how many saves stay
    tl_error_t err; //  code TL_OK: it worked
    //  fetch:
    tl_packed_t *packed;
    uint64_t *workers; //  [worker_count] serials of the sessions that are to have it: the loop's
    size_t worker_count;
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
    free (work->workers);
    tl_packed_destroy (&work->packed);
    free (work);
}

//  --- opening ----------------------------------------------------------------------------------

//  The one row that a question gives, or NULL where it gives none.
static json_t *
s_row (tl_rundb_t *db, const char *sql, tl_error_t *err)
{
    json_t *rows = tl_rundb_ask (db, sql, err), *row = json_array_get (rows, 0);
    json_incref (row);
    json_decref (rows);
    return row;
}

//  What a file says of a place is checked before anybody goes there. learnt: by the chooser.
static int
s_read_place (const tl_topology_t *topology, json_t *save, tl_place_t *place, char **learnt,
              tl_error_t *err)
{
    *place = (tl_place_t){0};
    if (!save)
        return 0;
    const char *text = json_string_value (json_object_get (save, "place"));
    json_error_t error;
    json_t *is = text ? json_loads (text, 0, &error) : NULL;
    json_int_t step, round, turn;
    json_int_t begin, inside;
    const char *chooser = NULL;
    int rc = json_unpack (is, "{sI sI sI sI sI s?s}", "step", &step, "round", &round, "turn", &turn,
                          "begin", &begin, "inside", &inside, "chooser", &chooser);
    bool bad = rc || step < 0 || round < 0 || turn < 0 || (size_t)turn >= topology->client_count ||
               begin < 0 || begin > round || inside < 0 || inside > TL_INSIDE_ALTERNATE;
    *learnt = !bad && chooser ? tl_strdup (chooser) : NULL;
    json_decref (is);
    if (bad)
        return tl_fail (err, TL_BAD_INPUT,
                        "run.db of %s/%s names a save at no place that a run can have: it is "
                        "damaged; begin the run anew with --replace",
                        topology->checkpoint.dir, topology->name);
    *place = (tl_place_t){(uint64_t)step, (uint64_t)round, (uint64_t)turn, (uint64_t)begin,
                          (tl_inside_t)inside};
    return 0;
}

//  Why the run that lies there may not be replaced: it isn't over, and it has a save to go on from.
static int
s_check_over (const tl_topology_t *topology, tl_rundb_t *db, tl_error_t *err)
{
    const char *directory = topology->checkpoint.dir, *name = topology->name;
    json_t *row =
        s_row (db, "SELECT complete, (SELECT max (step) FROM saves) AS step FROM run", err);
    if (!row)
        return -1;
    bool over = json_integer_value (json_object_get (row, "complete")) != 0;
    json_t *step = json_object_get (row, "step");
    json_int_t saved = json_is_integer (step) ? json_integer_value (step) : -1;
    json_decref (row);
    if (over || saved < 0)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s/%s holds a run that is not over, its last common save is of step %lld: "
                    "continue it with --resume, begin it anew with --replace, or give the new one "
                    "another name with --set name=%s-2 at all parts",
                    directory, name, (long long)saved, name);
}

//  Where run.db isn't there, no saves may be, which nobody could go on from.
static int
s_check_unused (const tl_topology_t *topology, const char *path, const char *directory,
                tl_error_t *err)
{
    if (tl_save_newest (directory, UINT64_MAX) < 0)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "%s holds saves of a run and %s isn't there, without which it can't be "
                    "continued: put a copy of it back, begin the run anew with --replace, or give "
                    "the new one another name with --set name=%s-2 at all parts",
                    directory, path, topology->name);
}

//  What must be as it was. The number of rounds may grow.
static int
s_check_agreed (tl_broker_t *self, tl_rundb_t *db, uint64_t round, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    json_t *rows = tl_rundb_ask (db, "SELECT field, value FROM agreements", err), *row;
    int rc = rows ? 0 : -1;
    size_t i;
    json_array_foreach (rows, i, row)
    {
        const char *field = json_string_value (json_object_get (row, "field"));
        const char *value = json_string_value (json_object_get (row, "value"));
        const char *ours = field ? tl_agreements_find (&self->agreements, field) : NULL;
        if (rc || !field || !value || strcmp (field, "train.steps") == 0)
            continue;
        if (tl_agreement_of_files (field) && !ours)
            tl_agreements_bind (&self->agreements, field, value);
        else if (!ours || strcmp (ours, value) != 0)
            rc =
                tl_fail (err, TL_BAD_INPUT,
                         "%s/%s was begun with %s %.200s, and now it is %.200s: go on with what it "
                         "was, or begin it anew with --replace",
                         t->checkpoint.dir, t->name, field, value, ours ? ours : "nothing");
    }
    json_decref (rows);
    if (rc == 0 && round > t->train.steps)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s/%s has come to round %llu, and train.steps is %llu: raise it to go on",
                      t->checkpoint.dir, t->name, (unsigned long long)round,
                      (unsigned long long)t->train.steps);
    return rc;
}

//  Whom the first step waits for: the clients that were here when it was last heard of. NULL: all.
static bool *
s_expected (const tl_topology_t *topology, tl_rundb_t *db)
{
    tl_error_t none;
    json_t *rows = tl_rundb_ask (
        db, "SELECT name FROM peers WHERE role = 'client' AND state <> 'left'", &none);
    bool *expected = tl_alloc (topology->client_count * sizeof *expected), any = false;
    size_t i;
    json_t *row;
    json_array_foreach (rows, i, row)
    {
        const char *name = json_string_value (json_object_get (row, "name"));
        int client = name ? tl_topology_client (topology, name) : -1;
        if (client >= 0)
            any = expected[client] = true;
    }
    json_decref (rows);
    if (!any) {
        free (expected);
        expected = NULL;
    }
    return expected;
}

static bool *
s_joined (const tl_topology_t *topology, tl_rundb_t *db)
{
    tl_error_t none;
    bool *joined = tl_alloc (topology->client_count * sizeof *joined);
    json_t *rows = tl_rundb_ask (db, "SELECT name FROM peers WHERE role = 'client'", &none), *row;
    size_t i;
    json_array_foreach (rows, i, row)
    {
        const char *name = json_string_value (json_object_get (row, "name"));
        int client = name ? tl_topology_client (topology, name) : -1;
        if (client >= 0)
            joined[client] = true;
    }
    json_decref (rows);
    return joined;
}

//  Who saved there: all that ever were in the run, but those that the place names.
static void
s_read_had (tl_broker_t *self, json_t *save)
{
    const tl_topology_t *t = self->topology;
    json_error_t error;
    const char *text = json_string_value (json_object_get (save, "place"));
    json_t *is = text ? json_loads (text, 0, &error) : NULL, *without;
    self->aggregator_had = json_is_true (json_object_get (is, "aggregator"));
    for (size_t i = 0; i < t->client_count; i++)
        self->had[i] = is && self->joined[i];
    size_t i;
    json_array_foreach (json_object_get (is, "without"), i, without)
    {
        const char *name = json_string_value (without);
        int client = name ? tl_topology_client (t, name) : -1;
        if (client >= 0)
            self->had[client] = false;
    }
    json_decref (is);
}

//  The newest common save up to limit whose trunk is there, and whole; NULL: none.
static json_t *
s_newest (const tl_broker_t *self, uint64_t limit)
{
    char *directory = tl_save_directory (self->topology, "broker");
    json_t *row, *newest = NULL;
    size_t i, size;
    json_array_foreach (self->saves, i, row)
    {
        json_int_t step = json_integer_value (json_object_get (row, "step"));
        tl_error_t err;
        if (step > 0 && (uint64_t)step > limit)
            continue;
        void *state = step > 0 ? tl_save_read (directory, (uint64_t)step, &size, &err) : NULL;
        if (step <= 0 || state) {
            free (state);
            newest = row;
            break;
        }
        tl_warn ("%s: the run can't go on from step %lld", err.text, (long long)step);
    }
    free (directory);
    return newest;
}

//  Where the run goes on: begin, had, and what the chooser had learnt there. Before the first save that is the start.
static int
s_read_begin (tl_broker_t *self, tl_rundb_t *db, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    self->saves = tl_rundb_ask (db, "SELECT step, place FROM saves ORDER BY step DESC", err);
    if (!self->saves)
        return -1;
    json_t *save = s_newest (self, UINT64_MAX);
    if (!save && json_array_size (self->saves))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s/%s/broker holds none of the saves that run.db tells of, or none that "
                        "is whole: bring them back, or begin the run anew with --replace",
                        t->checkpoint.dir, t->name);
    self->joined = s_joined (t, db);
    self->had = tl_alloc (t->client_count * sizeof *self->had);
    s_read_had (self, save);
    return s_read_place (t, save, &self->begin, &self->chooser, err);
}

bool
tl_store_earlier (tl_broker_t *self, const char *who, uint64_t step)
{
    tl_place_t place;
    tl_error_t none;
    char *learnt = NULL;
    bool early = step && tl_scheduler_resuming (self->scheduler);
    json_t *save = early ? s_newest (self, step) : NULL;
    bool is = save && s_read_place (self->topology, save, &place, &learnt, &none) == 0;
    free (learnt);
    if (!is)
        return false;
    tl_warn ("%s saved step %llu and has no whole save of it any more: all parts go on from step "
             "%llu",
             who, (unsigned long long)self->begin.step, (unsigned long long)place.step);
    self->begin = place;
    s_read_had (self, save);
    tl_event ("resumed", "{sIsIsb}", "step", (json_int_t)place.step, "round",
              (json_int_t)place.round, "over", false);
    tl_scheduler_resume_earlier (self->scheduler, &place);
    return true;
}

static int
s_resume (tl_broker_t *self, const char *path, const char *directory, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    if (!tl_exists (path))
        return s_check_unused (t, path, directory, err)
                   ? -1
                   : tl_fail (
                         err, TL_BAD_INPUT,
                         "%s/%s holds no run that could be continued: leave --resume out to begin "
                         "one",
                         t->checkpoint.dir, t->name);
    tl_rundb_t *db = tl_rundb_open (path, err);
    json_t *run = db ? s_row (db, "SELECT id, complete FROM run", err) : NULL;
    const char *id = json_string_value (json_object_get (run, "id"));
    unsigned long long number = 0;
    int end = 0, rc = run ? s_read_begin (self, db, err) : -1;
    if (rc == 0 && !(id && sscanf (id, "%16llx%n", &number, &end) == 1 && !id[end] && number))
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s says nothing of a run: it is damaged; begin the run anew with --replace",
                      path);
    if (rc == 0)
        rc = s_check_agreed (self, db, self->begin.round, err);
    uint64_t all = tl_topology_rounds (t);
    bool ended =
        json_integer_value (json_object_get (run, "complete")) != 0 && self->begin.round >= all;
    if (rc == 0 && ended && !self->options.stay)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s/%s is over, all of its %llu rounds are done: raise %s to "
                      "lengthen it, serve it with --stay, or begin it anew without --resume",
                      t->checkpoint.dir, t->name, (unsigned long long)all,
                      all < t->train.steps ? "clients[].steps" : "train.steps");
    if (rc == 0)
        rc = tl_save_writable (directory, err);
    if (rc == 0) {
        self->run = number;
        self->ended = ended;
        self->expected = s_expected (t, db);
        self->db = db;
        db = NULL;
    }
    tl_rundb_destroy (&db);
    json_decref (run);
    return rc;
}

//  All settings as they would be written in the file.
static json_t *
s_settings (const tl_topology_t *topology)
{
    json_t *settings = json_object ();
    size_t count;
    const tl_setting_t *rows = tl_schema (&count);
    for (size_t i = 0; i < count; i++) {
        char *value = tl_schema_value (topology, &rows[i]);
        json_t *text = value ? json_string (value) : NULL;
        if (text)
            json_object_set_new (settings, rows[i].path, text);
        free (value);
    }
    return settings;
}

static int
s_begin (tl_broker_t *self, const char *path, const char *directory, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    int rc = 0;
    if (tl_exists (path) && !self->options.replace) {
        tl_rundb_t *db = tl_rundb_open (path, err);
        rc = db ? s_check_over (t, db, err) : -1;
        tl_rundb_destroy (&db);
    } else if (!self->options.replace)
        rc = s_check_unused (t, path, directory, err);
    if (rc == 0)
        rc = tl_save_writable (directory, err);
    if (rc)
        return -1;
    char id[32];
    randombytes_buf (&self->run, sizeof self->run);
    self->run |= !self->run; //  0 means: none
    snprintf (id, sizeof id, "%016llx", (unsigned long long)self->run);
    json_t *settings = s_settings (t);
    self->db = tl_rundb_create (path, t->name, id, settings, err);
    json_decref (settings);
    return self->db ? 0 : -1;
}

static void
s_on_ledger_failed (void *arg, const char *text)
{
    tl_broker_unwritable (arg, text);
}

int
tl_store_open (tl_broker_t *self, tl_error_t *err)
{
    char *directory = tl_save_directory (self->topology, "broker");
    char *path = tl_save_run_db (self->topology);
    int rc = tl_mkdirs (directory, err);
    if (rc == 0)
        rc = self->options.resume ? s_resume (self, path, directory, err)
                                  : s_begin (self, path, directory, err);
    free (directory);
    free (path);
    if (rc)
        return -1;
    self->ledger = tl_ledger_new (self->db, self->disk, s_on_ledger_failed, self);
    self->db = NULL;
    if (self->options.resume)
        tl_event ("resumed", "{sIsIsb}", "step", (json_int_t)self->begin.step, "round",
                  (json_int_t)self->begin.round, "over", self->ended);
    else
        for (size_t i = 0; i < self->agreements.count; i++)
            tl_store_agreed (self, &self->agreements.items[i]);
    self->begun = self->options.resume;
    tl_ledger_flush (self->ledger);
    return 0;
}

//  The new run.db first: where it is, saves of the run before mean nothing.
static void
s_run_begin (void *arg)
{
    tl_work_t *work = arg;
    if (tl_ledger_settle (work->broker->ledger, &work->err) == 0)
        tl_save_open (work->directory, &work->err);
}

static void
s_done_begin (void *arg)
{
    tl_work_t *work = arg;
    if (work->err.code)
        tl_broker_unwritable (work->broker, work->err.text);
    else
        tl_event ("begun", "{}");
    s_free (work);
}

void
tl_store_begin (tl_broker_t *self)
{
    if (self->begun)
        return;
    self->begun = true;
    tl_ledger_flush (self->ledger);
    tl_compute_submit (self->disk, s_run_begin, s_done_begin, s_free,
                       s_work (self, &(tl_place_t){0}));
}

void
tl_store_agreed (tl_broker_t *self, const tl_agreement_t *agreed)
{
    tl_ledger_add (self->ledger, "agreed",
                   json_pack ("{ssss}", "field", agreed->field, "value", agreed->value));
}

//  --- states -----------------------------------------------------------------------------------

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
    self->fetching = NULL; //  who wants it from now on wants what is there then
    tl_compute_submit (self->disk, s_run_put, s_done_put, s_free, work);
}

static void
s_run_fetch (void *arg)
{
    tl_work_t *work = arg;
    tl_save_forget_after (work->directory, work->place.step);
    work->state = tl_save_read (work->directory, work->place.step, &work->size, &work->err);
    if (work->state)
        work->packed = tl_pack_own (work->state, work->size);
    else
        tl_fail_on (&work->err, "go on from the one before with --resume");
    work->state = NULL;
}

static void
s_done_fetch (void *arg)
{
    tl_work_t *work = arg;
    tl_broker_t *self = work->broker;
    if (self->fetching == work)
        self->fetching = NULL;
    for (size_t i = 0; i < work->worker_count; i++) {
        tl_session_t *worker = tl_sessions_by_serial (&self->sessions, work->workers[i]);
        if (!worker || !worker->ready)
            continue; //  it is gone; another one has a fetch of its own
        if (work->packed)
            tl_broker_send_state (self, worker, &work->place, work->packed);
        else
            tl_scheduler_restored (self->scheduler, (size_t)worker->index, work->err.code,
                                   work->err.text);
    }
    s_free (work);
}

//  Those that are equipped together, as after a merge, get the same bytes: one state is held here, not one each.
void
tl_store_fetch (tl_broker_t *self, const tl_place_t *place, const tl_session_t *worker)
{
    tl_work_t *work = self->fetching;
    if (!work || work->place.step != place->step) {
        work = self->fetching = s_work (self, place);
        work->workers = tl_alloc (self->topology->worker_count * sizeof *work->workers);
        tl_compute_submit (self->disk, s_run_fetch, s_done_fetch, s_free, work);
    }
    if (work->worker_count < self->topology->worker_count)
        work->workers[work->worker_count++] = worker->serial;
}

//  Older states go when the file says that this one counts, not before.
static void
s_run_prune (void *arg)
{
    tl_work_t *work = arg;
    const char *why_not = tl_ledger_why_not (work->broker->ledger);
    if (why_not)
        tl_fail (&work->err, TL_FAILED, "%s", why_not);
    else
        tl_save_prune (work->directory, work->place.step, work->keep);
}

static void
s_done_common (void *arg)
{
    tl_work_t *work = arg;
    if (work->err.code == TL_OK)
        tl_event ("saved", "{sIsI}", "step", (json_int_t)work->place.step, "round",
                  (json_int_t)work->place.round);
    s_free (work);
}

void
tl_store_common (tl_broker_t *self, const tl_place_t *place)
{
    char *learnt = tl_choose_state (self->choose);
    json_t *without = json_array ();
    for (size_t i = 0; i < self->topology->client_count; i++)
        if (!tl_scheduler_in_common (self->scheduler, i))
            json_array_append_new (without, json_string (self->topology->clients[i].name));
    tl_ledger_add (self->ledger, "save",
                   json_pack ("{sIsIs{sIsIsIsIsIsssosb}}", "step", (json_int_t)place->step, "round",
                              (json_int_t)place->round, "place", "step", (json_int_t)place->step,
                              "round", (json_int_t)place->round, "turn", (json_int_t)place->turn,
                              "begin", (json_int_t)place->begin, "inside",
                              (json_int_t)place->inside, "chooser", learnt, "without", without,
                              "aggregator", tl_scheduler_aggregator_in_common (self->scheduler)));
    free (learnt);
    tl_ledger_flush (self->ledger);
    tl_compute_submit (self->disk, s_run_prune, s_done_common, s_free, s_work (self, place));
}

static void
s_run_nothing (void *arg)
{
}

static void
s_done_over (void *arg)
{
    tl_work_t *work = arg;
    tl_broker_t *self = work->broker;
    s_free (work);
    if (self->complete && self->options.stay)
        tl_broker_serve (self);
    else
        tl_broker_end (self);
}

//  Nobody hears that the run is over before the file says so: a broker that died in between would wait for parts that left.
void
tl_store_over (tl_broker_t *self)
{
    if (self->complete)
        tl_store_begin (self); //  a run without steps
    tl_ledger_flush (self->ledger);
    tl_compute_submit (self->disk, s_run_nothing, s_done_over, s_free,
                       s_work (self, &(tl_place_t){0}));
}
