//  Whole files and whole directories: nothing half-written has its final name.

#include "unit/cmocka_all.h"

#include "file.h"
#include "memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char s_root[256];

static const char *
s_path (const char *name)
{
    static char paths[4][512];
    static size_t next;
    char *path = paths[next++ % 4];
    snprintf (path, sizeof paths[0], "%s/%s", s_root, name);
    return path;
}

static int
s_setup (void **state)
{
    const char *base = getenv ("TMPDIR");
    snprintf (s_root, sizeof s_root, "%s/tl-base-XXXXXX", base ? base : "/tmp");
    return mkdtemp (s_root) ? 0 : -1;
}

static int
s_teardown (void **state)
{
    return tl_remove_tree (s_root);
}

static void
test_write_then_read (void **state)
{
    tl_error_t err = {0};
    size_t size = 0;
    assert_int_equal (tl_file_write (s_path ("secret"), "old", 3, 0644, &err), 0);
    assert_int_equal (tl_file_write (s_path ("secret"), "ab\0cd", 5, 0600, &err), 0);
    assert_false (tl_exists (s_path ("secret.tmp")));
    struct stat status;
    assert_int_equal (stat (s_path ("secret"), &status), 0);
    assert_int_equal (status.st_mode & 0777, 0600);
    char *data = tl_file_read (s_path ("secret"), 100, &size, &err);
    assert_non_null (data);
    assert_int_equal (size, 5);
    assert_memory_equal (data, "ab\0cd", 6);
    free (data);
}

//  Whichever byte is another one, or missing, that is found.
static void
test_what_is_sealed_comes_back_as_it_was (void **state)
{
    tl_error_t err = {0};
    size_t size = 0, all = 0;
    const char *path = s_path ("sealed");
    assert_int_equal (tl_sealed_write (path, "0123456789", 10, 0600, &err), 0);
    char *data = tl_sealed_read (path, 100, &size, &err);
    assert_non_null (data);
    assert_int_equal (size, 10);
    assert_memory_equal (data, "0123456789", 10);
    free (data);
    char *bytes = tl_file_read (path, 100, &all, &err);
    assert_non_null (bytes);
    for (size_t i = 0; i < all; i++)
        for (int cut = 0; cut < 2; cut++) {
            bytes[i] ^= 0x10;
            assert_int_equal (tl_file_write (path, bytes, cut ? i : all, 0600, &err), 0);
            bytes[i] ^= 0x10;
            assert_null (tl_sealed_read (path, 100, &size, &err));
            assert_non_null (strstr (err.text, "sealed is damaged"));
        }
    free (bytes);
}

static void
test_read_refuses_with_a_sentence (void **state)
{
    tl_error_t err = {0};
    assert_null (tl_file_read (s_path ("absent"), 100, NULL, &err));
    assert_int_equal (err.code, TL_BAD_INPUT);
    assert_non_null (strstr (err.text, "absent can't be opened"));
    assert_int_equal (tl_file_write (s_path ("big"), "0123456789", 10, 0644, &err), 0);
    assert_null (tl_file_read (s_path ("big"), 9, NULL, &err));
    assert_non_null (strstr (err.text, "10 bytes, at most 9"));
    assert_null (tl_file_read (s_root, 100, NULL, &err));
    assert_non_null (strstr (err.text, "not a plain file"));
    assert_int_equal (tl_file_write (s_path ("no/such/dir"), "x", 1, 0644, &err), -1);
    assert_int_equal (err.code, TL_FAILED);
}

static void
test_a_failed_write_keeps_the_old_file (void **state)
{
    tl_error_t err = {0};
    //  The final name is a directory, so the last rename fails.
    assert_int_equal (tl_mkdirs (s_path ("taken/inner"), &err), 0);
    assert_int_equal (tl_file_write (s_path ("taken"), "x", 1, 0644, &err), -1);
    assert_true (tl_exists (s_path ("taken/inner")));
    assert_false (tl_exists (s_path ("taken.tmp")));
}

static void
test_what_is_no_file_stays_what_it_is (void **state)
{
    tl_error_t err = {0};
    struct stat status;
    char got[8] = "";
    assert_int_equal (symlink ("target", s_path ("leads")), 0);
    assert_int_equal (tl_file_write (s_path ("leads"), "x", 1, 0644, &err), -1);
    assert_non_null (strstr (err.text, "leads is a link to what can't be reached"));
    assert_int_equal (tl_file_write (s_path ("target"), "old", 3, 0644, &err), 0);
    assert_int_equal (tl_file_write (s_path ("leads"), "new", 3, 0644, &err), 0);
    assert_int_equal (lstat (s_path ("leads"), &status), 0);
    assert_true (S_ISLNK (status.st_mode));
    char *data = tl_file_read (s_path ("target"), 100, NULL, &err);
    assert_string_equal (data, "new");
    free (data);
    assert_int_equal (mkfifo (s_path ("pipe"), 0600), 0);
    int fd = open (s_path ("pipe"), O_RDONLY | O_NONBLOCK);
    assert_int_equal (tl_file_write (s_path ("pipe"), "hello", 5, 0644, &err), 0);
    assert_int_equal (read (fd, got, sizeof got - 1), 5);
    assert_string_equal (got, "hello");
    close (fd);
    assert_int_equal (stat (s_path ("pipe"), &status), 0);
    assert_true (S_ISFIFO (status.st_mode));
}

static void
test_map (void **state)
{
    tl_error_t err = {0};
    tl_map_t map;
    assert_int_equal (tl_file_write (s_path ("mapped"), "hello", 5, 0644, &err), 0);
    assert_int_equal (tl_map_open (&map, s_path ("mapped"), &err), 0);
    assert_int_equal (map.size, 5);
    assert_memory_equal (map.data, "hello", 5);
    tl_map_close (&map);
    assert_null (map.data);
    tl_map_close (&map);
    assert_int_equal (tl_file_write (s_path ("empty"), "", 0, 0644, &err), 0);
    assert_int_equal (tl_map_open (&map, s_path ("empty"), &err), 0);
    assert_null (map.data);
    assert_int_equal (map.size, 0);
    assert_int_equal (tl_map_open (&map, s_path ("absent"), &err), -1);
    assert_int_equal (tl_map_open (&map, s_root, &err), -1);
}

static void
s_save (const char *name, const char *text)
{
    tl_error_t err = {0};
    char where[512], file[600];
    assert_int_equal (tl_dir_begin (s_path (name), where, sizeof where, &err), 0);
    snprintf (file, sizeof file, "%s/%s", where, text);
    assert_int_equal (tl_file_write (file, text, strlen (text), 0644, &err), 0);
    assert_int_equal (tl_dir_commit (s_path (name), &err), 0);
}

static void
test_directories_come_whole (void **state)
{
    tl_error_t err = {0};
    char where[512], tiny[8];
    s_save ("runs/deep/adapter/", "first");
    assert_true (tl_exists (s_path ("runs/deep/adapter/first")));
    //  Something begun and left behind is forgotten, an older directory replaced.
    assert_int_equal (tl_dir_begin (s_path ("runs/deep/adapter"), where, sizeof where, &err), 0);
    assert_true (tl_exists (s_path ("runs/deep/adapter/first")));
    s_save ("runs/deep/adapter", "second");
    assert_true (tl_exists (s_path ("runs/deep/adapter/second")));
    assert_false (tl_exists (s_path ("runs/deep/adapter/first")));
    assert_false (tl_exists (s_path ("runs/deep/adapter.tmp")));
    assert_int_equal (tl_dir_begin (s_path ("x"), tiny, sizeof tiny, &err), -1);
    assert_non_null (strstr (err.text, "too long"));
    assert_int_equal (tl_dir_commit (s_path ("never-begun"), &err), -1);
}

static void
test_mkdirs_and_remove (void **state)
{
    tl_error_t err = {0};
    assert_int_equal (tl_mkdirs (s_path ("a/b//c/"), &err), 0);
    assert_int_equal (tl_mkdirs (s_path ("a/b/c"), &err), 0);
    assert_int_equal (tl_mkdirs ("", &err), -1);
    assert_int_equal (tl_file_write (s_path ("a/file"), "x", 1, 0644, &err), 0);
    assert_int_equal (tl_mkdirs (s_path ("a/file/d"), &err), -1);
    assert_int_equal (tl_mkdirs (s_path ("a/file"), &err), -1);
    //  A link is removed, what it points to is not.
    assert_int_equal (symlink (s_path ("a"), s_path ("link")), 0);
    assert_int_equal (tl_remove_tree (s_path ("link")), 0);
    assert_true (tl_exists (s_path ("a/b/c")));
    assert_int_equal (tl_remove_tree (s_path ("a")), 0);
    assert_false (tl_exists (s_path ("a")));
    assert_int_equal (tl_remove_tree (s_path ("a")), 0);
}

static void
test_where_something_could_be_saved (void **state)
{
    tl_error_t err = {0};
    assert_int_equal (tl_dir_check (s_root, &err), 0);
    assert_int_equal (tl_dir_check ("runs/not/there/yet", &err), 0);
    assert_int_equal (tl_dir_check (s_path ("to/be/made/"), &err), 0);
    assert_false (tl_exists (s_path ("to")));
    assert_int_equal (tl_dir_check ("", &err), -1);
    assert_int_equal (tl_file_write (s_path ("plain"), "x", 1, 0644, &err), 0);
    //  Permissions say that it can be written; it can't.
    assert_int_equal (tl_dir_check ("/proc/nosuch/run", &err), -1);
    assert_non_null (strstr (err.text, "/proc can't be written"));
    assert_int_equal (tl_dir_check (s_path ("plain/below"), &err), -1);
    assert_int_equal (err.code, TL_BAD_INPUT);
    assert_non_null (strstr (err.text, "plain is not a directory, so nothing can be saved in"));
    if (geteuid () != 0) { //  root may write everywhere
        assert_int_equal (mkdir (s_path ("locked"), 0555), 0);
        assert_int_equal (tl_dir_check (s_path ("locked/run"), &err), -1);
        assert_non_null (strstr (err.text, "can't be written"));
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_write_then_read),
        cmocka_unit_test (test_what_is_sealed_comes_back_as_it_was),
        cmocka_unit_test (test_read_refuses_with_a_sentence),
        cmocka_unit_test (test_a_failed_write_keeps_the_old_file),
        cmocka_unit_test (test_what_is_no_file_stays_what_it_is),
        cmocka_unit_test (test_map),
        cmocka_unit_test (test_where_something_could_be_saved),
        cmocka_unit_test (test_directories_come_whole),
        cmocka_unit_test (test_mkdirs_and_remove),
    };
    return cmocka_run_group_tests (tests, s_setup, s_teardown);
}
