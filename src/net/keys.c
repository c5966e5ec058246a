/*  keys: CURVE key files, see keys.h.

    A key file is lines of "name: value"; lines that start with # are for people. The public file:

        role: client
        name: north
        made: 2026-01-31T12:00:00Z
        public: <40 characters of Z85>

    The secret file has "secret:" after that, and repeats the rest, so that one file can be checked
    against itself and a lost public file made again. Nothing here encrypts a secret at rest: the
    file's mode is its protection.                                                                */

#include "keys.h"

#include "assert.h"
#include "file.h"
#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { KEY_SIZE = 32, TEXT_SIZE = 40, FILE_LIMIT = 4096 };

static const char *const s_roles[] = {"admin", "aggregator", "broker", "client", "worker"};

//  What one file says.
typedef struct {
    tl_key_t key;         //  public part
    char secret_text[41]; //  Z85, "" in a public file
} file_t;

//  --- text and keys

static bool
s_role_good (const char *role)
{
    for (size_t i = 0; i < sizeof s_roles / sizeof s_roles[0]; i++)
        if (strcmp (role, s_roles[i]) == 0)
            return true;
    return false;
}

//  Names become parts of paths and of "role/name": no dots, no slashes.
static bool
s_name_good (const char *name)
{
    size_t size = strlen (name);
    return size > 0 && size < sizeof ((tl_key_t *)0)->name &&
           strspn (name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
               size;
}

//  Decodes 40 characters of Z85. Only the one text that encodes a key is taken: libzmq's decoder
//  also accepts groups that overflow 32 bits, so that two texts could mean one key.
static bool
s_key_bytes (const char *text, uint8_t bytes[KEY_SIZE])
{
    char again[TEXT_SIZE + 1];
    if (strlen (text) != TEXT_SIZE || zmq_z85_decode (bytes, text) == NULL)
        return false;
    return zmq_z85_encode (again, bytes, KEY_SIZE) && strcmp (again, text) == 0;
}

void
tl_keys_fingerprint (const char *public_text, char fingerprint[17])
{
    uint8_t bytes[KEY_SIZE], hash[32];
    tl_assert (s_key_bytes (public_text, bytes));
    crypto_generichash (hash, sizeof hash, bytes, sizeof bytes, NULL, 0);
    sodium_bin2hex (fingerprint, 17, hash, 8);
}

//  --- one file

static char *
s_path (const char *directory, const char *role, const char *name, const char *ending)
{
    return tl_format ("%s/%s.%s.%s", directory, role, name, ending);
}

//  How much of a key file's path is its directory.
static int
s_directory (const char *path)
{
    return (int)(strrchr (path, '/') - path);
}

//  Takes one "name: value" line into self. NULL if it is one, else what is wrong with it.
static const char *
s_take_line (file_t *self, char *line)
{
    char *value = strstr (line, ": ");
    if (value == NULL)
        return "a line is not of the form name: value";
    *value = 0;
    value += 2;
    char *target = NULL;
    size_t room = 0;
    if (strcmp (line, "role") == 0)
        target = self->key.role, room = sizeof self->key.role;
    else if (strcmp (line, "name") == 0)
        target = self->key.name, room = sizeof self->key.name;
    else if (strcmp (line, "public") == 0)
        target = self->key.public_text, room = sizeof self->key.public_text;
    else if (strcmp (line, "secret") == 0)
        target = self->secret_text, room = sizeof self->secret_text;
    else if (strcmp (line, "made") == 0) {
        struct tm when = {0};
        const char *end = strptime (value, "%Y-%m-%dT%H:%M:%SZ", &when);
        if (end == NULL || *end)
            return "made: is not a time like 2026-01-31T12:00:00Z";
        self->key.made = (int64_t)timegm (&when);
        return NULL;
    } else
        return "it has a line that no key file has";
    if (strlen (value) >= room)
        return "a value is too long";
    strcpy (target, value);
    return NULL;
}

//  What is wrong with a key file's text, or NULL. text is taken apart.
static const char *
s_parse (file_t *self, char *text, size_t size, bool secret)
{
    memset (self, 0, sizeof *self);
    if (memchr (text, 0, size))
        return "it is not a text file";
    char *rest = text;
    for (char *line; (line = strsep (&rest, "\n")) != NULL;) {
        const char *wrong = *line == 0 || *line == '#' ? NULL : s_take_line (self, line);
        if (wrong)
            return wrong;
    }
    uint8_t bytes[KEY_SIZE];
    if (!s_role_good (self->key.role))
        return "role: is not one of broker, aggregator, worker, client, admin";
    if (!s_name_good (self->key.name))
        return "name: is not 1 to 63 letters, digits, - and _";
    if (!s_key_bytes (self->key.public_text, bytes))
        return "public: is not 40 characters of Z85";
    if (!secret && *self->secret_text)
        return "it holds a secret, and is the file that is given away";
    if (secret) {
        bool good = s_key_bytes (self->secret_text, bytes);
        sodium_memzero (bytes, sizeof bytes);
        if (!good)
            return "secret: is not 40 characters of Z85";
    }
    tl_keys_fingerprint (self->key.public_text, self->key.fingerprint);
    return NULL;
}

//  Reads one file, which must say it is of that role and name.
static int
s_read (file_t *self, const char *path, const char *role, const char *name, bool secret,
        tl_error_t *err)
{
    size_t size;
    char *text = tl_file_read (path, FILE_LIMIT, &size, err);
    if (text == NULL)
        return -1;
    const char *wrong = s_parse (self, text, size, secret);
    sodium_memzero (text, size);
    free (text);
    if (wrong == NULL && (strcmp (self->key.role, role) || strcmp (self->key.name, name)))
        wrong = "role and name inside are not those of the file's name";
    if (wrong) {
        sodium_memzero (self, sizeof *self);
        return tl_fail (err, TL_BAD_INPUT,
                        "%s is not a good key file: %s; copy it again from where it was made, or "
                        "remove both files of the pair and run: trunkline keys make --dir %.*s "
                        "%s.%s",
                        path, wrong, s_directory (path), path, role, name);
    }
    return 0;
}

static int
s_write (const file_t *self, const char *path, bool secret, tl_error_t *err)
{
    time_t made = (time_t)self->key.made;
    struct tm when;
    char stamp[32], text[1024];
    gmtime_r (&made, &when);
    strftime (stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &when);
    int size = snprintf (
        text, sizeof text,
        "#  Trunkline, %s of %s %s, fingerprint %s. %s\n"
        "role: %s\nname: %s\nmade: %s\npublic: %s\n%s%s%s",
        secret ? "SECRET key" : "public key", self->key.role, self->key.name, self->key.fingerprint,
        secret ? "It never leaves this machine." : "Give it to the other side.", self->key.role,
        self->key.name, stamp, self->key.public_text, secret ? "secret: " : "",
        secret ? self->secret_text : "", secret ? "\n" : "");
    tl_assert (size > 0 && (size_t)size < sizeof text);
    int rc = tl_file_write (path, text, (size_t)size, secret ? 0600 : 0644, err);
    sodium_memzero (text, sizeof text);
    return rc;
}

//  Reads a pair's secret file and checks who else could have read it, and that its halves belong
//  together.
static int
s_read_secret (file_t *self, const char *path, const char *role, const char *name, tl_error_t *err)
{
    struct stat status;
    if (stat (path, &status) != 0)
        return tl_fail (
            err, TL_BAD_INPUT,
            "the secret key file %s can't be read (%s); copy it from where it was made, "
            "or run: trunkline keys make --dir %.*s %s.%s",
            path, strerror (errno), s_directory (path), path, role, name);
    if (status.st_mode & 077)
        return tl_fail (err, TL_BAD_INPUT,
                        "the secret key file %s can be read or written by others (mode %04o, "
                        "expected 0600); run: chmod 600 %s",
                        path, (unsigned)(status.st_mode & 07777), path);
    if (s_read (self, path, role, name, true, err))
        return -1;
    char derived[TEXT_SIZE + 1];
    if (zmq_curve_public (derived, self->secret_text) == 0 &&
        strcmp (derived, self->key.public_text) == 0)
        return 0;
    sodium_memzero (self, sizeof *self);
    return tl_fail (err, TL_BAD_INPUT,
                    "in %s the secret does not belong to the public key beside it; copy the file "
                    "again from where it was made, or remove both files of the pair and run: "
                    "trunkline keys make --dir %.*s %s.%s",
                    path, s_directory (path), path, role, name);
}

//  --- making

//  Makes what is missing of one pair in a directory that this process has locked.
static int
s_make (const char *directory, const char *role, const char *name, tl_error_t *err)
{
    char *public_path = s_path (directory, role, name, "key");
    char *secret_path = s_path (directory, role, name, "secret");
    file_t file = {0};
    int rc = 1;
    if (tl_exists (secret_path)) {
        //  A public file may be missing when making was interrupted, or lost: the secret has all
        if (!tl_exists (public_path) && (s_read_secret (&file, secret_path, role, name, err) ||
                                         s_write (&file, public_path, false, err)))
            rc = -1;
    } else if (!tl_exists (public_path)) {
        snprintf (file.key.role, sizeof file.key.role, "%s", role);
        snprintf (file.key.name, sizeof file.key.name, "%s", name);
        file.key.made = (int64_t)time (NULL);
        if (zmq_curve_keypair (file.key.public_text, file.secret_text))
            rc = tl_fail (err, TL_FAILED,
                          "libzmq can't make CURVE keys (%s); install a libzmq built with "
                          "libsodium, as Debian's is",
                          zmq_strerror (errno));
        else {
            tl_keys_fingerprint (file.key.public_text, file.key.fingerprint);
            rc = s_write (&file, secret_path, true, err) || s_write (&file, public_path, false, err)
                     ? -1
                     : 0;
        }
    }
    //  A public file alone is somebody's whose secret is elsewhere: it exists
    sodium_memzero (&file, sizeof file);
    free (public_path);
    free (secret_path);
    return rc;
}

int
tl_keys_make (const char *directory, const char *role, const char *name, tl_error_t *err)
{
    if (!s_role_good (role))
        return tl_fail (err, TL_BAD_INPUT,
                        "there is no role %s; give broker, aggregator, worker, client or admin",
                        role);
    if (!s_name_good (name))
        return tl_fail (err, TL_BAD_INPUT,
                        "\"%s\" can't be the name of a key; take 1 to 63 letters, digits, - and _",
                        name);
    if (!tl_exists (directory)) {
        if (tl_mkdirs (directory, err))
            return -1;
        if (chmod (directory, 0700) != 0)
            return tl_fail (err, TL_FAILED, "%s can't be made private (%s); check whose it is",
                            directory, strerror (errno));
    }
    //  Two makers at once would leave halves of two pairs
    int lock = open (directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0 || flock (lock, LOCK_EX) != 0) {
        int reason = errno;
        if (lock >= 0)
            close (lock);
        return tl_fail (err, TL_BAD_INPUT,
                        "the keys directory %s can't be opened (%s); check keys: in the topology "
                        "file and the permissions",
                        directory, strerror (reason));
    }
    int rc = s_make (directory, role, name, err);
    close (lock);
    return rc;
}

//  --- reading

static int
s_order (const void *left, const void *right)
{
    const tl_key_t *a = left, *b = right;
    int order = strcmp (a->role, b->role);
    return order ? order : strcmp (a->name, b->name);
}

//  Refuses two files with one key: whoever has it could be either.
static int
s_check_distinct (const tl_key_t *keys, size_t count, const char *directory, tl_error_t *err)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = i + 1; j < count; j++)
            if (strcmp (keys[i].public_text, keys[j].public_text) == 0)
                return tl_fail (err, TL_BAD_INPUT,
                                "in %s, %s.%s.key and %s.%s.key hold one and the same key (%s); "
                                "every peer needs its own: remove the copy, and where that peer "
                                "runs make its pair with: trunkline keys make --dir %s %s.%s",
                                directory, keys[i].role, keys[i].name, keys[j].role, keys[j].name,
                                keys[i].fingerprint, directory, keys[j].role, keys[j].name);
    return 0;
}

//  Splits "role.name.key"; false if the file's name isn't of that form.
static bool
s_split (const char *file, char role[16], char name[64])
{
    size_t size = strlen (file), first = strcspn (file, ".");
    if (size < 5 || strcmp (file + size - 4, ".key") || first >= 16 || first + 1 >= size - 4 ||
        size - 5 - first >= 64)
        return false;
    snprintf (role, 16, "%.*s", (int)first, file);
    snprintf (name, 64, "%.*s", (int)(size - 5 - first), file + first + 1);
    return s_role_good (role) && s_name_good (name);
}

static int
s_is_key (const struct dirent *entry)
{
    char role[16], name[64];
    return s_split (entry->d_name, role, name);
}

//  What is wrong: the end, or told and left out where somebody listens.
static int
s_wrong (const tl_error_t *found, tl_keys_wrong_fn *on_wrong, void *arg, tl_error_t *err)
{
    if (!on_wrong)
        return tl_fail (err, found->code, "%s", found->text);
    on_wrong (arg, found);
    return 0;
}

int
tl_keys_look (const char *directory, tl_key_t **keys, size_t *count, tl_keys_wrong_fn *on_wrong,
              void *arg, tl_error_t *err)
{
    *keys = NULL;
    *count = 0;
    struct dirent **entries = NULL;
    int found = scandir (directory, &entries, s_is_key, alphasort);
    if (found < 0)
        return tl_fail (
            err, TL_BAD_INPUT,
            "the keys directory %s can't be opened (%s); %s or correct keys: in the topology FILE",
            directory, strerror (errno),
            errno == ENOENT
                ? "make keys with `trunkline keys make FILE` and the same --set keys=, if "
                  "one was given,"
                : "see to its permissions,");
    *keys = tl_alloc (((size_t)found + 1) * sizeof **keys);
    int rc = 0;
    tl_error_t wrong;
    for (int i = 0; i < found; i++) {
        char role[16], name[64];
        s_split (entries[i]->d_name, role, name);
        char *path = s_path (directory, role, name, "key");
        file_t file;
        if (rc == 0 && s_read (&file, path, role, name, false, &wrong) == 0)
            (*keys)[(*count)++] = file.key;
        else if (rc == 0)
            rc = s_wrong (&wrong, on_wrong, arg, err);
        free (path);
        free (entries[i]);
    }
    free (entries);
    if (rc == 0 && *count) {
        qsort (*keys, *count, sizeof **keys, s_order);
        if (s_check_distinct (*keys, *count, directory, &wrong) != 0)
            rc = s_wrong (&wrong, on_wrong, arg, err);
    }
    if (rc) {
        free (*keys);
        *keys = NULL;
        *count = 0;
    }
    return rc;
}

int
tl_keys_list (const char *directory, tl_key_t **keys, size_t *count, tl_error_t *err)
{
    return tl_keys_look (directory, keys, count, NULL, NULL, err);
}

int
tl_keys_pair (const char *directory, const char *role, const char *name, tl_pair_t *pair,
              tl_error_t *err)
{
    memset (pair, 0, sizeof *pair);
    if (!s_role_good (role) || !s_name_good (name))
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s/%s is no role and name of a key; take broker, aggregator, worker, client "
            "or admin, and letters, digits, - and _",
            role, name);
    char *path = s_path (directory, role, name, "secret");
    file_t file;
    int rc = s_read_secret (&file, path, role, name, err);
    if (rc == 0) {
        strcpy (pair->public_text, file.key.public_text);
        strcpy (pair->secret_text, file.secret_text);
        sodium_memzero (&file, sizeof file);
    }
    free (path);
    return rc;
}

int
tl_keys_broker (const char *directory, char public_text[41], tl_error_t *err)
{
    char *path = s_path (directory, "broker", "broker", "key");
    file_t file;
    int rc = !tl_exists (path)
                 ? tl_fail (err, TL_BAD_INPUT,
                            "the broker's public key %s isn't there; copy it from where the broker "
                            "runs, or if that is here run: trunkline keys make --dir %s broker",
                            path, directory)
                 : s_read (&file, path, "broker", "broker", false, err);
    if (rc == 0)
        strcpy (public_text, file.key.public_text);
    free (path);
    return rc;
}
