//  Key files: made once, private, and refused with a sentence when something is wrong with them.

#include "unit/net_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int
s_setup (void **state)
{
    char *directory = tl_alloc (256);
    net_directory (directory);
    *state = directory;
    return 0;
}

static int
s_teardown (void **state)
{
    int rc = tl_remove_tree (*state);
    free (*state);
    return rc;
}

static int
s_mode (const char *directory, const char *file)
{
    char *path = tl_format ("%s/%s", directory, file);
    struct stat status;
    assert_int_equal (stat (path, &status), 0);
    free (path);
    return status.st_mode & 07777;
}

//  Puts text in the place of a part of a file, or the whole file when part is NULL.
static void
s_edit (const char *directory, const char *file, const char *part, const char *text)
{
    tl_error_t err = {0};
    char *path = tl_format ("%s/%s", directory, file), *whole;
    struct stat status;
    assert_int_equal (stat (path, &status), 0);
    char *old = tl_file_read (path, 4096, NULL, &err);
    assert_non_null (old);
    char *at = part ? strstr (old, part) : NULL;
    if (part) {
        assert_non_null (at);
        *at = 0;
        whole = tl_format ("%s%s%s", old, text, at + strlen (part));
    } else
        whole = tl_strdup (text);
    net_check (tl_file_write (path, whole, strlen (whole), status.st_mode & 0777, &err), &err);
    free (whole);
    free (old);
    free (path);
}

static void
s_copy (const char *directory, const char *from, const char *to)
{
    tl_error_t err = {0};
    char *source = tl_format ("%s/%s", directory, from);
    char *target = tl_format ("%s/%s", directory, to);
    char *text = tl_file_read (source, 4096, NULL, &err);
    assert_non_null (text);
    net_check (tl_file_write (target, text, strlen (text), 0644, &err), &err);
    free (text);
    free (source);
    free (target);
}

static void
s_remove (const char *directory, const char *file)
{
    char *path = tl_format ("%s/%s", directory, file);
    assert_int_equal (unlink (path), 0);
    free (path);
}

static void
s_expect (const tl_error_t *err, const char *words)
{
    if (strstr (err->text, words) == NULL)
        fail_msg ("expected a sentence with \"%s\", got \"%s\"", words, err->text);
    assert_int_equal (err->code, TL_BAD_INPUT);
}

static void
test_a_pair_is_made_once_and_read_back (void **state)
{
    tl_error_t err = {0};
    char *directory = tl_format ("%s/deep/keys", (char *)*state);
    tl_pair_t first, again;
    char broker[41];
    assert_int_equal (tl_keys_make (directory, "broker", "broker", &err), 0);
    net_check (tl_keys_pair (directory, "broker", "broker", &first, &err), &err);
    assert_int_equal (tl_keys_make (directory, "broker", "broker", &err), 1);
    net_check (tl_keys_pair (directory, "broker", "broker", &again, &err), &err);
    assert_memory_equal (&first, &again, sizeof first);
    net_check (tl_keys_broker (directory, broker, &err), &err);
    assert_string_equal (broker, first.public_text);
    assert_string_not_equal (first.secret_text, first.public_text);
    assert_int_equal (s_mode (directory, "."), 0700);
    assert_int_equal (s_mode (directory, "broker.broker.key"), 0644);
    assert_int_equal (s_mode (directory, "broker.broker.secret"), 0600);
    free (directory);
}

static void
test_secrets_are_only_in_secret_files (void **state)
{
    tl_error_t err = {0};
    tl_pair_t pair;
    net_make (*state, "client", "north", &pair);
    char *path = tl_format ("%s/client.north.key", (char *)*state);
    char *text = tl_file_read (path, 4096, NULL, &err);
    assert_non_null (text);
    assert_null (strstr (text, pair.secret_text));
    assert_non_null (strstr (text, pair.public_text));
    free (text);
    free (path);
}

static void
test_keys_are_listed_in_order (void **state)
{
    tl_error_t err = {0};
    tl_pair_t pair;
    const char *order[][2] = {{"admin", "root"},
                              {"broker", "broker"},
                              {"client", "a"},
                              {"client", "b"},
                              {"worker", "t-1"}};
    for (size_t i = 5; i-- > 0;)
        net_make (*state, order[i][0], order[i][1], &pair);
    tl_key_t *keys;
    size_t count;
    net_check (tl_keys_list (*state, &keys, &count, &err), &err);
    assert_int_equal (count, 5);
    for (size_t i = 0; i < count; i++) {
        char fingerprint[17];
        assert_string_equal (keys[i].role, order[i][0]);
        assert_string_equal (keys[i].name, order[i][1]);
        tl_keys_fingerprint (keys[i].public_text, fingerprint);
        assert_string_equal (keys[i].fingerprint, fingerprint);
        assert_int_equal (strspn (fingerprint, "0123456789abcdef"), 16);
        assert_in_range (keys[i].made, tl_clock_wall_ms () / 1000 - 60, tl_clock_wall_ms () / 1000);
    }
    free (keys);
}

static void
test_fingerprints_are_of_the_key_itself (void **state)
{
    //  BLAKE2b-256 of the 32 bytes 0, as any other program computes it
    char zero[41], fingerprint[17];
    zmq_z85_encode (zero, (const uint8_t[32]){0}, 32);
    tl_keys_fingerprint (zero, fingerprint);
    assert_string_equal (fingerprint, "89eb0d6a8a691dae");
}

static void
test_an_interrupted_make_is_completed (void **state)
{
    tl_error_t err = {0};
    tl_pair_t before, after;
    net_make (*state, "client", "north", &before);
    s_remove (*state, "client.north.key");
    assert_int_equal (tl_keys_make (*state, "client", "north", &err), 1);
    net_make (*state, "client", "north", &after);
    assert_memory_equal (&before, &after, sizeof before);
    //  The broker's machine has only the public file: that is somebody's, and stays
    s_remove (*state, "client.north.secret");
    assert_int_equal (tl_keys_make (*state, "client", "north", &err), 1);
    assert_int_equal (tl_keys_pair (*state, "client", "north", &after, &err), -1);
    s_expect (&err, "client.north.secret can't be read");
}

static void
test_names_and_roles_are_checked (void **state)
{
    tl_error_t err = {0};
    tl_pair_t pair;
    const char *bad[] = {"",
                         "../x",
                         "a.b",
                         "a b",
                         "a/b",
                         "\xc3\xa4",
                         "a123456789012345678901234567890123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal (tl_keys_make (*state, "client", bad[i], &err), -1);
        s_expect (&err, "can't be the name of a key");
        assert_int_equal (tl_keys_pair (*state, "client", bad[i], &pair, &err), -1);
    }
    assert_int_equal (tl_keys_make (*state, "boss", "north", &err), -1);
    s_expect (&err, "there is no role boss");
}

static void
test_a_secret_that_others_can_read_is_refused (void **state)
{
    tl_error_t err = {0};
    tl_pair_t pair;
    net_make (*state, "worker", "trunk", &pair);
    char *path = tl_format ("%s/worker.trunk.secret", (char *)*state);
    char *advice = tl_format ("run: chmod 600 %s", path);
    const int modes[] = {0644, 0640, 0604, 0620, 0601};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        assert_int_equal (chmod (path, (mode_t)modes[i]), 0);
        assert_int_equal (tl_keys_pair (*state, "worker", "trunk", &pair, &err), -1);
        s_expect (&err, advice);
        assert_string_equal (pair.secret_text, "");
    }
    assert_int_equal (chmod (path, 0400), 0);
    net_check (tl_keys_pair (*state, "worker", "trunk", &pair, &err), &err);
    free (advice);
    free (path);
}

static void
test_halves_of_two_pairs_are_refused (void **state)
{
    tl_error_t err = {0};
    tl_pair_t north, south, pair;
    net_make (*state, "client", "north", &north);
    net_make (*state, "client", "south", &south);
    s_edit (*state, "client.north.secret", north.secret_text, south.secret_text);
    assert_int_equal (tl_keys_pair (*state, "client", "north", &pair, &err), -1);
    s_expect (&err, "the secret does not belong to the public key");
}

static void
test_broken_files_get_a_sentence (void **state)
{
    static const struct {
        const char *part, *text, *words;
    } cases[] = {
        {"role: client", "role: worker", "role and name inside"},
        {"role: client", "role: king", "role: is not one of"},
        {"role: client", "role: kingandqueenandjack", "too long"},
        {"name: north", "name: no/rth", "name: is not"},
        {"name: north", "name: south", "role and name inside"},
        {"public: ", "public: \"", "too long"},
        {"public: ", "public:", "not of the form"},
        {"public: ", "public: abc\n# ", "public: is not 40"},
        {"made: ", "made: yesterday ", "made: is not a time"},
        {"made: ", "maid: ", "no key file has"},
        {NULL, "", "role: is not one of"},
        {NULL, "role: client\nname: north\n", "public: is not 40"},
        //  Beyond 32 bits: libzmq would take it, and it would be another text for some other key
        {NULL, "role: client\nname: north\npublic: ########################################\n",
         "public: is not 40"},
        {NULL,
         "role: client\nname: north\npublic: 0000000000000000000000000000000000000000\n"
         "secret: 0000000000000000000000000000000000000000\n",
         "it holds a secret"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tl_error_t err = {0};
        tl_key_t *keys;
        size_t count;
        tl_keys_make (*state, "client", "north", &err);
        s_edit (*state, "client.north.key", cases[i].part, cases[i].text);
        assert_int_equal (tl_keys_list (*state, &keys, &count, &err), -1);
        s_expect (&err, cases[i].words);
        s_expect (&err, "client.north.key");
        assert_null (keys);
        s_remove (*state, "client.north.key");
    }
}

static void
test_one_key_under_two_names_is_refused (void **state)
{
    tl_error_t err = {0};
    tl_pair_t pair;
    tl_key_t *keys;
    size_t count;
    net_make (*state, "client", "north", &pair);
    s_copy (*state, "client.north.key", "worker.spy.key");
    s_edit (*state, "worker.spy.key", "role: client", "role: worker");
    s_edit (*state, "worker.spy.key", "name: north", "name: spy");
    assert_int_equal (tl_keys_list (*state, &keys, &count, &err), -1);
    s_expect (&err, "one and the same key");
}

static void
test_missing_directories_and_keys_get_a_sentence (void **state)
{
    tl_error_t err = {0};
    tl_key_t *keys;
    size_t count;
    char broker[41];
    char *nowhere = tl_format ("%s/nowhere", (char *)*state);
    assert_int_equal (tl_keys_list (nowhere, &keys, &count, &err), -1);
    s_expect (&err, "make keys with `trunkline keys make FILE`");
    assert_int_equal (tl_keys_broker (*state, broker, &err), -1);
    s_expect (&err, "broker.broker.key");
    net_check (tl_keys_list (*state, &keys, &count, &err), &err);
    assert_int_equal (count, 0);
    free (keys);
    free (nowhere);
}

static void
test_other_files_of_the_directory_are_left_alone (void **state)
{
    tl_error_t err = {0};
    tl_pair_t pair;
    tl_key_t *keys;
    size_t count;
    net_make (*state, "client", "north", &pair);
    const char *others[] = {"README",
                            ".key",
                            "a.key",
                            "client..key",
                            "king.north.key",
                            "client.a.b.key",
                            "client.north.key.tmp",
                            "client.north.key~"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        s_copy (*state, "client.north.key", others[i]);
    net_check (tl_keys_list (*state, &keys, &count, &err), &err);
    assert_int_equal (count, 1);
    free (keys);
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, s_setup, s_teardown)

int
main (void)
{
    const struct CMUnitTest tests[] = {
        TEST (test_a_pair_is_made_once_and_read_back),
        TEST (test_secrets_are_only_in_secret_files),
        TEST (test_keys_are_listed_in_order),
        TEST (test_fingerprints_are_of_the_key_itself),
        TEST (test_an_interrupted_make_is_completed),
        TEST (test_names_and_roles_are_checked),
        TEST (test_a_secret_that_others_can_read_is_refused),
        TEST (test_halves_of_two_pairs_are_refused),
        TEST (test_broken_files_get_a_sentence),
        TEST (test_one_key_under_two_names_is_refused),
        TEST (test_missing_directories_and_keys_get_a_sentence),
        TEST (test_other_files_of_the_directory_are_left_alone),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
