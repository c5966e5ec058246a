/*  run.db: what is told goes to its table, all of a transaction or none, and what isn't ours is refused.  */

#include "clock.h"
#include "file.h"
#include "memory.h"
#include "stats/rundb.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct {
    char directory[64];
    char *path;
    tl_rundb_t *db;
    tl_error_t err;
} fixture_t;

static int
s_setup (void **state)
{
    fixture_t *self = tl_alloc (sizeof *self);
    strcpy (self->directory, "/tmp/trunkline-test-XXXXXX");
    assert_non_null (mkdtemp (self->directory));
    self->path = tl_format ("%s/run.db", self->directory);
    json_t *settings = json_pack ("{ssss}", "train.steps", "6", "train.lr", "0.01");
    self->db = tl_rundb_create (self->path, "mine", "00000000deadbeef", settings, &self->err);
    json_decref (settings);
    assert_non_null (self->db);
    assert_int_equal (tl_rundb_settle (self->db, &self->err), 0);
    *state = self;
    return 0;
}

static int
s_teardown (void **state)
{
    fixture_t *self = *state;
    tl_rundb_destroy (&self->db);
    tl_remove_tree (self->directory);
    free (self->path);
    free (self);
    return 0;
}

//  Notes events, written as a JSON array.
static int
s_note (fixture_t *self, const char *text)
{
    json_error_t error;
    json_t *events = json_loads (text, 0, &error);
    if (!events)
        fail_msg ("%s: %s", text, error.text);
    int rc = tl_rundb_note (self->db, events, &self->err);
    json_decref (events);
    return rc;
}

//  The answer as JSON text is expected.
static void
s_expect (fixture_t *self, const char *sql, const char *expected)
{
    json_t *rows = tl_rundb_ask (self->db, sql, &self->err);
    if (!rows)
        fail_msg ("%s: %s", sql, self->err.text);
    char *text = json_dumps (rows, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION (6));
    assert_string_equal (text, expected);
    free (text);
    json_decref (rows);
}

static void
s_begin (void **state)
{
    fixture_t *self = *state;
    s_expect (self, "SELECT name, id, ended, complete FROM run",
              "[{\"name\":\"mine\",\"id\":\"00000000deadbeef\",\"ended\":null,\"complete\":0}]");
    s_expect (self, "SELECT value FROM settings WHERE name = 'train.lr'", "[{\"value\":\"0.01\"}]");
    //  Began now, by this machine's clock
    json_t *rows = tl_rundb_ask (self->db, "SELECT began FROM run", &self->err);
    double began = json_number_value (json_object_get (json_array_get (rows, 0), "began"));
    json_decref (rows);
    double now = (double)tl_clock_wall_ms () / 1000;
    assert_true (began > now - 60 && began < now + 60);
}

static void
s_tables (void **state)
{
    fixture_t *self = *state;
    assert_int_equal (
        s_note (
            self,
            "[{\"event\":\"closed\",\"time\":1.5,\"step\":0,\"round\":0,\"labels\":12,\"norm\":0.5}"
            ","
            " {\"event\":\"closed\",\"time\":2.5,\"step\":1,\"round\":1,\"labels\":13,\"norm\":0."
            "25,"
            "\"group\":3,\"period\":7,\"rows\":40,\"seconds\":0.5,\"members\":2,\"bytes\":99},"
            " {\"event\":\"peer\",\"time\":1,\"role\":\"client\",\"name\":\"a\",\"state\":\"here\"}"
            ","
            " {\"event\":\"peer\",\"time\":2,\"role\":\"client\",\"name\":\"a\",\"state\":\"left\","
            "\"why\":\"silent\",\"bytes\":10},"
            " {\"event\":\"peer\",\"time\":3,\"role\":\"client\",\"name\":\"a\",\"state\":\"here\"}"
            ","
            " {\"event\":\"peer\",\"time\":3,\"role\":\"admin\",\"name\":\"x\",\"state\":\"left\"},"
            " {\"event\":\"decision\",\"time\":4,\"period\":1,\"groups\":2,\"batched\":true,"
            "\"predicted\":412.5,\"text\":\"fanout\",\"more\":[1]},"
            " {\"event\":\"period\",\"time\":5,\"period\":7,\"groups\":2,\"batched\":true},"
            " {\"event\":\"period\",\"time\":5,\"period\":9,\"groups\":2},"
            " {\"event\":\"metrics\",\"time\":6,\"peers\":4,\"load\":0.5,\"word\":\"x\"},"
            " {\"event\":\"agreed\",\"time\":7,\"field\":\"wire.dtype\",\"value\":\"bf16\"},"
            " {\"event\":\"anything\",\"time\":8,\"x\":1}]"),
        0);
    s_expect (self, "SELECT step, grp, period, labels, norm, rows, bytes FROM steps",
              "[{\"step\":0,\"grp\":0,\"period\":0,\"labels\":12,\"norm\":0.5,\"rows\":null,"
              "\"bytes\":null},{\"step\":1,\"grp\":3,\"period\":7,\"labels\":13,\"norm\":0.25,"
              "\"rows\":40,\"bytes\":99}]");
    s_expect (self, "SELECT role, name, state, first, last, joined, bytes FROM peers",
              "[{\"role\":\"client\",\"name\":\"a\",\"state\":\"here\",\"first\":1.0,\"last\":3.0,"
              "\"joined\":2,\"bytes\":10}]");
    s_expect (
        self, "SELECT period, groups, batched, predicted, text FROM decisions",
        "[{\"period\":1,\"groups\":2,\"batched\":1,\"predicted\":412.5,\"text\":\"fanout\"}]");
    //  What a period came to is what its steps say
    s_expect (self, "SELECT * FROM periods",
              "[{\"period\":7,\"step\":1,\"round\":1,\"time\":5.0,\"seconds\":3.0,\"groups\":2,"
              "\"batched\":1,\"steps\":1,\"rows\":40,\"labels\":13}]");
    s_expect (self, "SELECT name, value FROM metrics",
              "[{\"name\":\"load\",\"value\":0.5},{\"name\":\"peers\",\"value\":4.0}]");
    s_expect (self, "SELECT field, value FROM agreements",
              "[{\"field\":\"wire.dtype\",\"value\":\"bf16\"}]");
    //  What has a table of its own isn't said twice
    s_expect (self, "SELECT event, count (*) AS n FROM events GROUP BY event",
              "[{\"event\":\"anything\",\"n\":1},{\"event\":\"peer\",\"n\":4}]");
}

//  What the run goes back behind is no part of it.
static void
s_restore (void **state)
{
    fixture_t *self = *state;
    for (int step = 0; step < 4; step++) {
        char *text = tl_format (
            "[{\"event\":\"closed\",\"time\":1,\"step\":%d,\"round\":%d,\"labels\":1},"
            " {\"event\":\"save\",\"time\":1,\"step\":%d,\"round\":%d,\"place\":{\"step\":%d}}]",
            step, step, step + 1, step + 1, step + 1);
        assert_int_equal (s_note (self, text), 0);
        free (text);
    }
    assert_int_equal (
        s_note (self, "[{\"event\":\"restore\",\"time\":2,\"step\":2,\"why\":\"w\"}]"), 0);
    s_expect (self, "SELECT max (step) AS s FROM steps", "[{\"s\":1}]");
    s_expect (self, "SELECT step, place FROM saves ORDER BY step DESC LIMIT 1",
              "[{\"step\":2,\"place\":\"{\\\"step\\\":2}\"}]");
    assert_int_equal (
        s_note (self,
                "[{\"event\":\"done\",\"time\":3,\"code\":0,\"text\":\"\",\"complete\":true}]"),
        0);
    s_expect (self, "SELECT ended, complete FROM run", "[{\"ended\":3.0,\"complete\":1}]");
    assert_int_equal (s_note (self, "[{\"event\":\"resumed\",\"time\":4,\"step\":2}]"), 0);
    s_expect (self, "SELECT ended, complete FROM run", "[{\"ended\":null,\"complete\":0}]");
    //  Where a run goes on, what came after is gone; a run that is only served stays over
    assert_int_equal (s_note (self, "[{\"event\":\"resumed\",\"time\":4,\"step\":1}]"), 0);
    s_expect (self, "SELECT max (step) AS s FROM steps", "[{\"s\":0}]");
    s_note (self, "[{\"event\":\"done\",\"time\":5,\"code\":0,\"complete\":true},"
                  "{\"event\":\"resumed\",\"time\":6,\"step\":1,\"over\":true}]");
    s_expect (self, "SELECT ended, complete FROM run", "[{\"ended\":5.0,\"complete\":1}]");
}

//  Groups have steps of the same numbers; what one of them goes back behind is its own.
static void
s_groups (void **state)
{
    fixture_t *self = *state;
    for (int i = 0; i < 6; i++) {
        char *text = tl_format ("[{\"event\":\"closed\",\"time\":%d,\"step\":%d,\"group\":%d,"
                                "\"round\":0,\"period\":0,\"labels\":1}]",
                                i, i / 2, i % 2);
        assert_int_equal (s_note (self, text), 0);
        free (text);
    }
    assert_int_equal (s_note (self, "[{\"event\":\"restore\",\"time\":9,\"step\":1,\"group\":1}]"),
                      0);
    s_expect (self, "SELECT grp, count (*) AS n FROM steps GROUP BY grp",
              "[{\"grp\":0,\"n\":3},{\"grp\":1,\"n\":1}]");
    assert_int_equal (s_note (self, "[{\"event\":\"restore\",\"time\":9,\"step\":1,\"group\":-1}]"),
                      0);
    s_expect (self, "SELECT count (*) AS n FROM steps", "[{\"n\":2}]");
}

//  What is in a transaction is there after another process has died; half of one is not.
static void
s_whole (void **state)
{
    fixture_t *self = *state;
    assert_int_equal (s_note (self, "[{\"event\":\"a\",\"time\":1}]"), 0);
    //  The second has no time, which its table wants
    assert_int_equal (s_note (self, "[{\"event\":\"b\",\"time\":2},{\"event\":\"c\"}]"), -1);
    assert_non_null (strstr (self->err.text, "can't be written"));
    s_expect (self, "SELECT event FROM events", "[{\"event\":\"a\"}]");
    //  As after kill -9: nobody closes it
    tl_error_t err;
    tl_rundb_t *other = tl_rundb_open (self->path, &err);
    assert_non_null (other);
    json_t *rows = tl_rundb_ask (other, "SELECT count (*) AS n FROM events", &err);
    assert_int_equal (json_integer_value (json_object_get (json_array_get (rows, 0), "n")), 1);
    json_decref (rows);
    tl_rundb_destroy (&other);
}

static void
s_full (void **state)
{
    fixture_t *self = *state;
    struct rlimit before, small = {200000, 200000};
    getrlimit (RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    signal (SIGXFSZ, SIG_IGN);
    assert_int_equal (setrlimit (RLIMIT_FSIZE, &small), 0);
    char *long_text = tl_alloc (20001);
    memset (long_text, 'x', 20000);
    char *event = tl_format ("[{\"event\":\"a\",\"time\":1,\"text\":\"%s\"}]", long_text);
    int rc = 0, noted = 0;
    while (rc == 0 && noted < 100)
        noted += (rc = s_note (self, event)) == 0;
    setrlimit (RLIMIT_FSIZE, &before);
    assert_int_equal (rc, -1);
    assert_non_null (strstr (self->err.text, "can't be written"));
    assert_non_null (strstr (self->err.text, "--resume"));
    //  What was noted before is there, and when there is room it goes on
    char *expected = tl_format ("[{\"n\":%d}]", noted);
    s_expect (self, "SELECT count (*) AS n FROM events", expected);
    assert_int_equal (s_note (self, "[{\"event\":\"b\",\"time\":2}]"), 0);
    free (expected);
    free (event);
    free (long_text);
}

static void
s_refused (void **state)
{
    fixture_t *self = *state;
    tl_rundb_destroy (&self->db);
    //  Another version
    tl_error_t err = {0};
    FILE *file = fopen (self->path, "r+b");
    assert_non_null (file);
    fseek (file, 60, SEEK_SET); //  user_version, big-endian
    fwrite ("\0\0\0\11", 1, 4, file);
    fclose (file);
    assert_null (tl_rundb_open (self->path, &err));
    assert_non_null (strstr (err.text, "is of version 9"));
    assert_non_null (strstr (err.text, "use the trunkline that began the run"));
    //  Some other program's: neither opened nor replaced
    unlink (self->path);
    char *command =
        tl_format ("printf 'some text that is long enough to be looked at' > %s", self->path);
    assert_int_equal (system (command), 0);
    free (command);
    assert_null (tl_rundb_open (self->path, &err));
    assert_non_null (strstr (err.text, "is no run.db of trunkline"));
    assert_null (tl_rundb_create (self->path, "mine", "1", NULL, &err));
    assert_non_null (strstr (err.text, "move it away"));
    unlink (self->path);
    assert_null (tl_rundb_open (self->path, &err));
    assert_non_null (strstr (err.text, "isn't there"));
}

//  Whatever a byte is changed to: it opens or it is refused, and nothing worse.
static void
s_damaged (void **state)
{
    fixture_t *self = *state;
    s_note (self,
            "[{\"event\":\"save\",\"time\":1,\"step\":1,\"round\":1,\"place\":{\"step\":1}}]");
    tl_rundb_destroy (&self->db);
    tl_error_t err;
    size_t size, refused = 0;
    char *good = tl_file_read (self->path, 1 << 24, &size, &err);
    assert_non_null (good);
    for (size_t at = 0; at < size; at += 256) { //  each page's head, too
        char *bad = tl_alloc (size);
        memcpy (bad, good, size);
        bad[at] = (char)~bad[at];
        unlink (self->path);
        assert_int_equal (tl_file_write (self->path, bad, size, 0644, &err), 0);
        tl_rundb_t *db = tl_rundb_open (self->path, &err);
        json_t *rows = db ? tl_rundb_ask (db, "SELECT place FROM saves", &err) : NULL;
        refused += !rows;
        //  One line, which is what is passed on, with what to do.
        if (!rows && (strchr (err.text, '\n') ||
                      !(strstr (err.text, "--replace") || strstr (err.text, "move it away"))))
            fail_msg ("byte %zu: %s", at, err.text);
        json_decref (rows);
        tl_rundb_destroy (&db);
        free (bad);
    }
    free (good);
    assert_true (refused > 0);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown (s_begin, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (s_tables, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (s_groups, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (s_restore, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (s_whole, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (s_full, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (s_refused, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (s_damaged, s_setup, s_teardown),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
