#include "stats/rundb.h"

#include "base/assert.h"
#include "file.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    APPLICATION = 0x544c5244, //  "TLRD": in the file's header, so that `file` and we know it
    VERSION = 1,              //  of the schema: a change of a table is a new one
    BUSY_MS = 10000,          //  somebody else's question may hold us up for so long
    LONGEST_TEXT = 1 << 24    //  of one value, read or written
};

static const char s_schema[] =
    "CREATE TABLE run (name TEXT NOT NULL, id TEXT NOT NULL, began REAL NOT NULL, ended REAL,"
    " complete INTEGER NOT NULL DEFAULT 0, code INTEGER, why TEXT);"
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE agreements (field TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE peers (role TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,"
    " first REAL NOT NULL, last REAL NOT NULL, joined INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " why TEXT, PRIMARY KEY (role, name)) WITHOUT ROWID;"
    "CREATE TABLE steps (step INTEGER NOT NULL, grp INTEGER NOT NULL, period INTEGER NOT NULL,"
    " round INTEGER NOT NULL, time REAL NOT NULL, seconds REAL, members INTEGER, rows INTEGER,"
    " labels INTEGER NOT NULL, norm REAL, bytes INTEGER, PRIMARY KEY (step, grp)) WITHOUT ROWID;"
    "CREATE TABLE periods (period INTEGER PRIMARY KEY, step INTEGER, round INTEGER, time REAL NOT "
    "NULL,"
    " seconds REAL, groups INTEGER, batched INTEGER, steps INTEGER, rows INTEGER, labels INTEGER);"
    "CREATE TABLE decisions (id INTEGER PRIMARY KEY, time REAL NOT NULL, period INTEGER,"
    " groups INTEGER, batched INTEGER, predicted REAL, text TEXT, detail TEXT NOT NULL);"
    "CREATE TABLE saves (step INTEGER PRIMARY KEY, round INTEGER NOT NULL, time REAL NOT NULL,"
    " place TEXT NOT NULL);"
    "CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, event TEXT NOT NULL,"
    " detail TEXT NOT NULL);"
    "CREATE TABLE metrics (time REAL NOT NULL, name TEXT NOT NULL, value REAL NOT NULL,"
    " PRIMARY KEY (name, time)) WITHOUT ROWID;";

//  Which event goes to which table. A :word is the event's member of that name, :detail all of it as JSON. A row is
//  what stands in the run: what it goes back behind leaves steps, periods and saves; the event `restore` or `resumed` stays.
static const struct {
    const char *event; //  NULL: every one that is not `quiet` above it
    bool quiet;        //  it is not in the table events: its own table has all of it
    const char *sql;
} s_rules[] = {
    {"closed", true,
     "INSERT OR REPLACE INTO steps VALUES (:step, coalesce (:group, 0), coalesce (:period, 0), "
     ":round, :time, :seconds, :members, :rows, :labels, :norm, :bytes)"},
    {"period", true,
     "INSERT OR REPLACE INTO periods SELECT :period, min (step), min (round), :time, "
     ":time - min (time - coalesce (seconds, 0)), :groups, :batched, count (*), sum (rows), "
     "sum (labels) FROM steps WHERE period = :period HAVING count (*) > 0"},
    {"decision", true,
     "INSERT INTO decisions VALUES (NULL, :time, :period, :groups, :batched, :predicted, :text, "
     ":detail)"},
    {"metrics", true,
     "INSERT OR REPLACE INTO metrics SELECT :time, key, value FROM json_each (:detail) WHERE key "
     "<> "
     "'time' AND type IN ('integer', 'real')"},
    {"agreed", true, "INSERT OR REPLACE INTO agreements VALUES (:field, :value)"},
    {"save", true, "INSERT OR REPLACE INTO saves VALUES (:step, :round, :time, :place)"},
    {"restore", false,
     "DELETE FROM steps WHERE step >= :step AND coalesce (:group, -1) IN (-1, grp)"},
    {"restore", false, "DELETE FROM periods WHERE step >= :step"},
    {"restore", false, "DELETE FROM saves WHERE step > :step"},
    {"resumed", false, "DELETE FROM steps WHERE step >= :step"},
    {"resumed", false, "DELETE FROM periods WHERE step >= :step"},
    {"resumed", false, "DELETE FROM saves WHERE step > :step"},
    {"peer", false,
     "INSERT INTO peers SELECT :role, :name, :state, :time, :time, :state = 'here', coalesce "
     "(:bytes, 0), :why WHERE :role <> 'admin' ON CONFLICT DO UPDATE SET state = :state, "
     "last = :time, joined = joined + (:state = 'here'), bytes = bytes + coalesce (:bytes, 0), "
     "why = :why"},
    {"traffic", true,
     "UPDATE peers SET bytes = bytes + :bytes, last = :time WHERE role = :role AND name = :name"},
    {"resumed", false,
     "UPDATE run SET ended = NULL, complete = 0, code = NULL, why = NULL WHERE NOT "
     "coalesce (:over, 0)"},
    {"done", false,
     "UPDATE run SET ended = :time, complete = coalesce (:complete, 0), code = :code, why = :text"},
    {NULL, false, "INSERT INTO events VALUES (NULL, :time, :event, :detail)"},
};
enum { RULES = sizeof s_rules / sizeof *s_rules };

struct tl_rundb {
    sqlite3 *file;
    sqlite3_stmt *rules[RULES]; //  prepared; NULL until used
    char *path;
    char *fresh; //  where it is until it takes the place of what lies at path; NULL: it has
};

//  --- failing ----------------------------------------------------------------------------------

//  why: SQLite's words, of which the first line that says something is taken.
static int
s_damaged (const char *path, const char *why, tl_error_t *err)
{
    why = strchr (why, '\n') ? strchr (why, '\n') + 1 : why;
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s is damaged (%.*s), and without it the run can't be continued: put a copy of "
        "it back, or begin the run anew with --replace",
        path, (int)strcspn (why, "\n"), why);
}

//  What SQLite says of the last call, with what to do about it.
static int
s_fail (const tl_rundb_t *self, const char *doing, tl_error_t *err)
{
    int code = self->file ? sqlite3_errcode (self->file) : SQLITE_NOMEM;
    int system = self->file ? sqlite3_system_errno (self->file) : 0;
    const char *text = self->file ? sqlite3_errmsg (self->file) : "no memory";
    if (code == SQLITE_NOTADB)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s is no run.db of trunkline: move it away, or choose another name: or "
                        "checkpoint.dir",
                        self->path);
    if (code == SQLITE_CORRUPT)
        return s_damaged (self->path, text, err);
    if (code == SQLITE_BUSY)
        return tl_fail (err, TL_FAILED,
                        "%s can't be %s: another program holds it locked; end that program",
                        self->path, doing);
    return tl_fail (err, TL_FAILED,
                    "%s can't be %s: %s%s%s; free space there, or see that its directory can be "
                    "written, and go on with --resume",
                    self->path, doing, text, system ? ": " : "", system ? strerror (system) : "");
}

//  --- opening ----------------------------------------------------------------------------------

static int
s_execute (tl_rundb_t *self, const char *sql, const char *doing, tl_error_t *err)
{
    if (sqlite3_exec (self->file, sql, NULL, NULL, NULL) == SQLITE_OK)
        return 0;
    return s_fail (self, doing, err);
}

static int
s_number (tl_rundb_t *self, const char *sql, sqlite3_int64 *value, tl_error_t *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = -1;
    if (sqlite3_prepare_v2 (self->file, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step (statement) == SQLITE_ROW) {
        *value = sqlite3_column_int64 (statement, 0);
        rc = 0;
    } else
        s_fail (self, "read", err);
    sqlite3_finalize (statement);
    return rc;
}

//  Opened, and ours; version gets the schema's.
static tl_rundb_t *
s_open (const char *path, bool make, sqlite3_int64 *version, tl_error_t *err)
{
    tl_rundb_t *self = tl_alloc (sizeof *self);
    self->path = tl_strdup (path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (make ? SQLITE_OPEN_CREATE : 0);
    sqlite3_int64 application = 0, pages = 0;
    int rc = sqlite3_open_v2 (path, &self->file, flags, NULL) == SQLITE_OK
                 ? 0
                 : s_fail (self, "opened", err);
    if (rc == 0) {
        sqlite3_busy_timeout (self->file, BUSY_MS);
        sqlite3_limit (self->file, SQLITE_LIMIT_LENGTH, LONGEST_TEXT);
        //  A file from elsewhere may bring views and triggers: they may do nothing.
        sqlite3_db_config (self->file, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config (self->file, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_db_config (self->file, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
        sqlite3_db_config (self->file, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    }
    if (rc == 0 && !make)
        rc = s_number (self, "PRAGMA application_id", &application, err);
    if (rc == 0 && !make)
        rc = s_number (self, "PRAGMA user_version", version, err);
    if (rc == 0 && !make)
        rc = s_number (self, "PRAGMA page_count", &pages, err);
    if (rc == 0 && !make && !pages)
        rc = s_damaged (path, "it is empty", err);
    if (rc == 0 && !make && application != APPLICATION)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s is no run.db of trunkline: move it away, or choose another name: or "
                      "checkpoint.dir",
                      path);
    //  A transaction is on the disk when it ends: older states are removed because of what it says.
    if (rc == 0)
        rc =
            s_execute (self, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL", "opened", err);
    if (rc)
        tl_rundb_destroy (&self);
    return self;
}

tl_rundb_t *
tl_rundb_open (const char *path, tl_error_t *err)
{
    if (!tl_exists (path)) {
        tl_fail (err, TL_BAD_INPUT, "%s isn't there: no run was begun in its directory", path);
        return NULL;
    }
    sqlite3_int64 version = 0;
    tl_rundb_t *self = s_open (path, false, &version, err);
    if (self && version != VERSION) {
        tl_fail (
            err, TL_BAD_INPUT,
            "%s is of version %lld and this trunkline knows version %d: use the trunkline that "
            "began the run, or begin it anew with --replace",
            path, (long long)version, VERSION);
        tl_rundb_destroy (&self);
    }
    json_t *check = self ? tl_rundb_ask (self, "PRAGMA quick_check (1)", err) : NULL;
    const char *word =
        json_string_value (json_object_get (json_array_get (check, 0), "quick_check"));
    if (self && (!word || strcmp (word, "ok") != 0)) {
        if (check)
            s_damaged (path, word ? word : "no answer", err);
        tl_rundb_destroy (&self);
    }
    json_decref (check);
    return self;
}

static void
s_unlink (const char *path, const char *suffix)
{
    char *name = tl_format ("%s%s", path, suffix);
    unlink (name);
    free (name);
}

static void
s_unlink_all (const char *path)
{
    s_unlink (path, "");
    s_unlink (path, "-wal");
    s_unlink (path, "-shm");
}

//  Schema, identity and settings, in one transaction.
static int
s_fill (tl_rundb_t *self, const char *name, const char *run, const json_t *settings,
        tl_error_t *err)
{
    char *pragmas = tl_format ("BEGIN; PRAGMA application_id = %d; PRAGMA user_version = %d; %s",
                               APPLICATION, VERSION, s_schema);
    int rc = s_execute (self, pragmas, "written", err);
    free (pragmas);
    sqlite3_stmt *statement = NULL;
    if (rc == 0 && sqlite3_prepare_v2 (self->file,
                                       "INSERT INTO run (name, id, began) VALUES (?1, ?2, "
                                       "(julianday ('now') - 2440587.5) * 86400.0)",
                                       -1, &statement, NULL) == SQLITE_OK) {
        sqlite3_bind_text (statement, 1, name, -1, SQLITE_STATIC);
        sqlite3_bind_text (statement, 2, run, -1, SQLITE_STATIC);
    }
    if (rc == 0 && sqlite3_step (statement) != SQLITE_DONE)
        rc = s_fail (self, "written", err);
    sqlite3_finalize (statement);
    statement = NULL;
    if (rc == 0 && sqlite3_prepare_v2 (self->file, "INSERT INTO settings VALUES (?1, ?2)", -1,
                                       &statement, NULL) != SQLITE_OK)
        rc = s_fail (self, "written", err);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)settings, key, value)
    {
        if (rc)
            break;
        sqlite3_bind_text (statement, 1, key, -1, SQLITE_STATIC);
        sqlite3_bind_text (statement, 2, json_string_value (value), -1, SQLITE_STATIC);
        if (sqlite3_step (statement) != SQLITE_DONE)
            rc = s_fail (self, "written", err);
        sqlite3_reset (statement);
    }
    sqlite3_finalize (statement);
    return rc == 0 ? s_execute (self, "COMMIT", "written", err) : -1;
}

tl_rundb_t *
tl_rundb_create (const char *path, const char *name, const char *run, const json_t *settings,
                 tl_error_t *err)
{
    sqlite3_int64 version;
    if (tl_exists (path)) {
        //  It may be of any version, and damaged even; but ours.
        tl_error_t why = {0};
        tl_rundb_t *old = s_open (path, false, &version, &why);
        bool ours = old || strstr (why.text, "is damaged");
        tl_rundb_destroy (&old);
        if (!ours) {
            *err = why;
            return NULL;
        }
    }
    //  Made beside it and renamed when whole: what bears the name has tables.
    char *fresh = tl_format ("%s.new", path);
    s_unlink_all (fresh);
    tl_rundb_t *self = s_open (fresh, true, &version, err);
    if (!self) {
        s_unlink_all (fresh);
        free (fresh);
        return NULL;
    }
    free (self->path);
    self->path = tl_strdup (path);
    self->fresh = fresh;
    if (s_fill (self, name, run, settings, err))
        tl_rundb_destroy (&self);
    return self;
}

static void
s_close (tl_rundb_t *self)
{
    for (size_t i = 0; i < RULES; i++) {
        sqlite3_finalize (self->rules[i]);
        self->rules[i] = NULL;
    }
    sqlite3_close (self->file);
    self->file = NULL;
}

int
tl_rundb_settle (tl_rundb_t *self, tl_error_t *err)
{
    if (!self->fresh)
        return 0;
    s_close (self); //  the last connection: -wal goes into the file
    s_unlink_all (self->path);
    if (rename (self->fresh, self->path))
        return tl_fail (err, TL_FAILED, "%s can't be written: %s; see that its directory can be",
                        self->path, strerror (errno));
    free (self->fresh);
    self->fresh = NULL;
    sqlite3_int64 version;
    tl_rundb_t *settled = s_open (self->path, false, &version, err);
    if (!settled)
        return -1;
    self->file = settled->file;
    settled->file = NULL;
    tl_rundb_destroy (&settled);
    return 0;
}

void
tl_rundb_destroy (tl_rundb_t **self_p)
{
    tl_assert (self_p);
    tl_rundb_t *self = *self_p;
    if (!self)
        return;
    s_close (self);
    if (self->fresh)
        s_unlink_all (self->fresh);
    free (self->fresh);
    free (self->path);
    free (self);
    *self_p = NULL;
}

//  --- writing ----------------------------------------------------------------------------------

static void
s_bind (sqlite3_stmt *statement, int place, const json_t *value)
{
    if (json_is_integer (value))
        sqlite3_bind_int64 (statement, place, json_integer_value (value));
    else if (json_is_real (value))
        sqlite3_bind_double (statement, place, json_real_value (value));
    else if (json_is_string (value))
        sqlite3_bind_text (statement, place, json_string_value (value),
                           (int)json_string_length (value), SQLITE_STATIC);
    else if (json_is_object (value) || json_is_array (value))
        sqlite3_bind_text (statement, place, json_dumps (value, JSON_COMPACT | JSON_PRESERVE_ORDER),
                           -1, free);
    else if (json_is_boolean (value))
        sqlite3_bind_int (statement, place, json_is_true (value));
    else
        sqlite3_bind_null (statement, place);
}

//  detail: the event as text.
static int
s_apply (tl_rundb_t *self, size_t rule, const json_t *event, const char *detail, tl_error_t *err)
{
    sqlite3_stmt **statement = &self->rules[rule];
    if (!*statement && sqlite3_prepare_v3 (self->file, s_rules[rule].sql, -1,
                                           SQLITE_PREPARE_PERSISTENT, statement, NULL) != SQLITE_OK)
        return s_fail (self, "written", err);
    int count = sqlite3_bind_parameter_count (*statement);
    for (int i = 1; i <= count; i++) {
        const char *name = sqlite3_bind_parameter_name (*statement, i) + 1;
        if (strcmp (name, "detail") == 0)
            sqlite3_bind_text (*statement, i, detail, -1, SQLITE_STATIC);
        else
            s_bind (*statement, i, json_object_get (event, name));
    }
    int rc = sqlite3_step (*statement) == SQLITE_DONE ? 0 : s_fail (self, "written", err);
    sqlite3_reset (*statement);
    sqlite3_clear_bindings (*statement);
    return rc;
}

static int
s_note (tl_rundb_t *self, const json_t *event, tl_error_t *err)
{
    const char *name = json_string_value (json_object_get (event, "event"));
    char *detail = json_dumps (event, JSON_COMPACT | JSON_PRESERVE_ORDER);
    tl_assert (name && detail);
    bool quiet = false;
    int rc = 0;
    for (size_t i = 0; i < RULES && rc == 0; i++) {
        bool is = s_rules[i].event ? strcmp (s_rules[i].event, name) == 0 : !quiet;
        quiet |= is && s_rules[i].quiet;
        if (is)
            rc = s_apply (self, i, event, detail, err);
    }
    free (detail);
    return rc;
}

int
tl_rundb_note (tl_rundb_t *self, const json_t *events, tl_error_t *err)
{
    if (json_array_size (events) == 0)
        return 0;
    int rc = s_execute (self, "BEGIN IMMEDIATE", "written", err);
    size_t i;
    json_t *event;
    json_array_foreach (events, i, event)
    {
        if (rc == 0)
            rc = s_note (self, event, err);
    }
    if (rc == 0)
        rc = s_execute (self, "COMMIT", "written", err);
    if (rc && !sqlite3_get_autocommit (self->file))
        sqlite3_exec (self->file, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

//  --- asking -----------------------------------------------------------------------------------

static json_t *
s_value (sqlite3_stmt *statement, int column)
{
    switch (sqlite3_column_type (statement, column)) {
    case SQLITE_INTEGER:
        return json_integer (sqlite3_column_int64 (statement, column));
    case SQLITE_FLOAT:
        return json_real (sqlite3_column_double (statement, column));
    case SQLITE_TEXT: {
        //  NULL where it isn't UTF-8: not ours
        json_t *text = json_string ((const char *)sqlite3_column_text (statement, column));
        return text ? text : json_null ();
    }
    default:
        return json_null ();
    }
}

json_t *
tl_rundb_ask (tl_rundb_t *self, const char *sql, tl_error_t *err)
{
    sqlite3_stmt *statement = NULL;
    json_t *rows = NULL;
    int rc = sqlite3_prepare_v2 (self->file, sql, -1, &statement, NULL);
    if (rc == SQLITE_OK) {
        rows = json_array ();
        while ((rc = sqlite3_step (statement)) == SQLITE_ROW) {
            json_t *row = json_object ();
            for (int i = 0; i < sqlite3_column_count (statement); i++)
                json_object_set_new (row, sqlite3_column_name (statement, i),
                                     s_value (statement, i));
            json_array_append_new (rows, row);
        }
    }
    if (rc != SQLITE_DONE) {
        s_fail (self, "read", err);
        json_decref (rows);
        rows = NULL;
    }
    sqlite3_finalize (statement);
    return rows;
}
