#include "file.h"
#include "assert.h"
#include "hash.h"
#include "log.h"
#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

//  Opens for reading and stats; refuses what isn't a plain file. -1 on failure.
static int
s_open_plain (const char *path, struct stat *status, tl_error_t *err)
{
    if (!*path)
        return tl_fail (err, TL_BAD_INPUT, "the path of a file is empty; give one");
    //  Not waiting: a pipe without a writer would keep us forever.
    int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s can't be opened (%s); check the path and permissions", path,
                        strerror (errno));
    if (fstat (fd, status) != 0 || !S_ISREG (status->st_mode)) {
        close (fd);
        return tl_fail (err, TL_BAD_INPUT, "%s is not a plain file; give the path of a file", path);
    }
    return fd;
}

int
tl_map_open (tl_map_t *self, const char *path, tl_error_t *err)
{
    struct stat status;
    self->data = NULL;
    self->size = 0;
    int fd = s_open_plain (path, &status, err);
    if (fd < 0)
        return -1;
    void *data = NULL;
    if (status.st_size > 0)
        data = mmap (NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int reason = errno;
    close (fd);
    if (data == MAP_FAILED)
        return tl_fail (err, TL_FAILED,
                        "%s can't be mapped (%s); free memory or raise the limit of "
                        "address space (ulimit -v)",
                        path, strerror (reason));
    self->data = data;
    self->size = (size_t)status.st_size;
    return 0;
}

void
tl_map_close (tl_map_t *self)
{
    if (self->data)
        munmap ((void *)self->data, self->size);
    self->data = NULL;
    self->size = 0;
}

void
tl_map_forget (const void *data, size_t size)
{
    //  Whole pages only: others share the first and the last one.
    const uintptr_t page = (uintptr_t)sysconf (_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t last = ((uintptr_t)data + size) / page * page;
    if (last > first)
        madvise ((void *)first, last - first, MADV_DONTNEED);
}

//  Reads until size bytes are there or the file ends. Returns the bytes read, -1 on error.
static ssize_t
s_read_all (int fd, char *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t got = read (fd, data + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

char *
tl_file_read (const char *path, size_t limit, size_t *size, tl_error_t *err)
{
    struct stat status;
    int fd = s_open_plain (path, &status, err);
    if (fd < 0)
        return NULL;
    char *data = NULL;
    size_t wanted = (size_t)status.st_size;
    if (wanted > limit) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s has %zu bytes, at most %zu are accepted here; check that "
                 "it's the right file",
                 path, wanted, limit);
        goto done;
    }
    data = tl_alloc (wanted + 1);
    ssize_t got = s_read_all (fd, data, wanted);
    if (got < 0 || (size_t)got != wanted) {
        tl_fail (err, TL_FAILED,
                 "%s can't be read (%s); check the disk and that nothing else "
                 "writes to it",
                 path, got < 0 ? strerror (errno) : "it ended early");
        free (data);
        data = NULL;
    }
    if (size)
        *size = data ? wanted : 0;
done:
    close (fd);
    return data;
}

//  path + suffix into where. -1 when it doesn't fit.
static int
s_join (char *where, size_t where_size, const char *path, const char *suffix, tl_error_t *err)
{
    size_t length = strlen (path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    int wanted = snprintf (where, where_size, "%.*s%s", (int)length, path, suffix);
    if (wanted < 0 || (size_t)wanted >= where_size)
        return tl_fail (err, TL_BAD_INPUT, "the path %.200s... is too long; choose a shorter one",
                        path);
    return 0;
}

//  The directory that path is in, "." if it has no slash.
static void
s_parent (char parent[PATH_MAX], const char *path)
{
    size_t length = strlen (path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    while (length > 1 && path[length - 1] == '/')
        length--;
    snprintf (parent, PATH_MAX, "%.*s", length ? (int)length : 1, length ? path : ".");
}

static int
s_sync_path (const char *path)
{
    int fd = open (path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync (fd);
    //  Some file systems have no fsync for directories; there is nothing to do about that.
    if (rc != 0 && errno == EINVAL)
        rc = 0;
    close (fd);
    return rc;
}

static int
s_sync_parent (const char *path)
{
    char parent[PATH_MAX];
    s_parent (parent, path);
    return s_sync_path (parent);
}

static int
s_write_all (int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t put = write (fd, data, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        data += put;
        size -= (size_t)put;
    }
    return 0;
}

static int
s_open_through (tl_writer_t *self, const char *path, tl_error_t *err)
{
    int fd = open (path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return tl_fail (err, TL_FAILED, "%s can't be opened (%s); check the path and permissions",
                        path, strerror (errno));
    *self = (tl_writer_t){.fd = fd, .path = tl_strdup (path)};
    return 0;
}

int
tl_writer_open (tl_writer_t *self, const char *path, int mode, tl_error_t *err)
{
    char final[PATH_MAX], where[PATH_MAX];
    struct stat status;
    *self = (tl_writer_t){.fd = -1};
    if (stat (path, &status) == 0 && !S_ISREG (status.st_mode) && !S_ISDIR (status.st_mode))
        return s_open_through (self, path, err);
    //  A link stays one: what it leads to is replaced.
    snprintf (final, sizeof final, "%s", path);
    if (lstat (path, &status) == 0 && S_ISLNK (status.st_mode) && !realpath (path, final))
        return tl_fail (err, TL_FAILED,
                        "%s is a link to what can't be reached (%s); remove it or choose another "
                        "path",
                        path, strerror (errno));
    if (s_join (where, sizeof where, final, ".tmp", err) != 0)
        return -1;
    //  A stale file may have a wider mode than what is wanted, and a link may point elsewhere.
    unlink (where);
    int fd = open (where, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
    if (fd < 0 || fchmod (fd, (mode_t)mode) != 0) {
        int reason = errno;
        if (fd >= 0)
            close (fd);
        return tl_fail (err, TL_FAILED,
                        "%s can't be created (%s); check the directory and its "
                        "permissions",
                        where, strerror (reason));
    }
    *self = (tl_writer_t){.fd = fd, .path = tl_strdup (final), .where = tl_strdup (where)};
    return 0;
}

static int
s_writer_failed (tl_writer_t *self, tl_error_t *err)
{
    int reason = errno;
    tl_fail (err, TL_FAILED, "%s can't be written (%s); check free space and permissions",
             self->path, strerror (reason));
    tl_writer_drop (self);
    return -1;
}

int
tl_writer_add (tl_writer_t *self, const void *data, size_t size, tl_error_t *err)
{
    tl_assert (self->fd >= 0);
    return s_write_all (self->fd, data, size) == 0 ? 0 : s_writer_failed (self, err);
}

int
tl_writer_commit (tl_writer_t *self, tl_error_t *err)
{
    tl_assert (self->fd >= 0);
    bool through = !self->where;
    int rc = through ? 0 : fsync (self->fd), fd = self->fd;
    self->fd = -1;
    if ((close (fd) != 0) | (rc != 0) || (!through && rename (self->where, self->path) != 0))
        return s_writer_failed (self, err);
    rc = through ? 0 : s_sync_parent (self->path);
    if (rc != 0)
        tl_fail (err, TL_FAILED, "the directory of %s can't be synced (%s); check the disk",
                 self->path, strerror (errno));
    free (self->path);
    free (self->where);
    *self = (tl_writer_t){.fd = -1};
    return rc;
}

void
tl_writer_drop (tl_writer_t *self)
{
    if (self->fd >= 0)
        close (self->fd);
    if (self->where)
        unlink (self->where);
    free (self->path);
    free (self->where);
    *self = (tl_writer_t){.fd = -1};
}

int
tl_file_write (const char *path, const void *data, size_t size, int mode, tl_error_t *err)
{
    tl_writer_t writer;
    if (tl_writer_open (&writer, path, mode, err) != 0 ||
        tl_writer_add (&writer, data, size, err) != 0)
        return -1;
    return tl_writer_commit (&writer, err);
}

enum { SEAL = 8 }; //  bytes

static void
s_seal (unsigned char seal[SEAL], const void *data, size_t size)
{
    uint64_t hash = tl_hash64 (data, size);
    for (int i = 0; i < SEAL; i++)
        seal[i] = (unsigned char)(hash >> 8 * i);
}

int
tl_sealed_write (const char *path, const void *data, size_t size, int mode, tl_error_t *err)
{
    unsigned char seal[SEAL];
    tl_writer_t writer;
    s_seal (seal, data, size);
    if (tl_writer_open (&writer, path, mode, err) != 0 ||
        tl_writer_add (&writer, data, size, err) != 0 ||
        tl_writer_add (&writer, seal, sizeof seal, err) != 0)
        return -1;
    return tl_writer_commit (&writer, err);
}

char *
tl_sealed_read (const char *path, size_t limit, size_t *size, tl_error_t *err)
{
    size_t all;
    unsigned char seal[SEAL];
    char *data = tl_file_read (path, limit, &all, err);
    if (!data)
        return NULL;
    *size = all < SEAL ? 0 : all - SEAL;
    s_seal (seal, data, *size);
    if (all >= SEAL && memcmp (data + *size, seal, SEAL) == 0)
        return data;
    tl_fail (err, TL_BAD_INPUT,
             "%s is damaged, for its checksum does not hold; use an earlier save", path);
    free (data);
    return NULL;
}

int
tl_dir_begin (const char *path, char *where, size_t where_size, tl_error_t *err)
{
    char parent[PATH_MAX];
    if (s_join (where, where_size, path, ".tmp", err) != 0)
        return -1;
    s_parent (parent, path);
    if (tl_mkdirs (parent, err) != 0)
        return -1;
    if (tl_remove_tree (where) != 0 || mkdir (where, 0755) != 0)
        return tl_fail (err, TL_FAILED,
                        "%s can't be made anew (%s); remove it and check the "
                        "permissions of its directory",
                        where, strerror (errno));
    return 0;
}

static int
s_sync_entry (const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    return type == FTW_F || type == FTW_DP ? s_sync_path (path) : 0;
}

int
tl_dir_commit (const char *path, tl_error_t *err)
{
    char where[PATH_MAX], final[PATH_MAX];
    if (s_join (where, sizeof where, path, ".tmp", err) != 0 ||
        s_join (final, sizeof final, path, "", err) != 0)
        return -1;
    if (nftw (where, s_sync_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return tl_fail (err, TL_FAILED, "%s can't be synced (%s); check the disk", where,
                        strerror (errno));
    int rc = rename (where, final);
    if (rc != 0 && (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)) {
        //  Old and new change places at once; where the file system can't, the old one steps aside.
        rc = renameat2 (AT_FDCWD, where, AT_FDCWD, final, RENAME_EXCHANGE);
        if (rc != 0) {
            char old[PATH_MAX];
            if (s_join (old, sizeof old, path, ".old", err) != 0)
                return -1;
            tl_remove_tree (old);
            rc = rename (final, old);
            if (rc == 0)
                rc = rename (where, final);
            if (rc == 0)
                tl_remove_tree (old);
        }
    }
    if (rc != 0)
        return tl_fail (err, TL_FAILED,
                        "%s can't take the place of %s (%s); check permissions of "
                        "the directory",
                        where, final, strerror (errno));
    tl_remove_tree (where);
    if (s_sync_parent (final) != 0)
        return tl_fail (err, TL_FAILED, "the directory of %s can't be synced (%s); check the disk",
                        final, strerror (errno));
    return 0;
}

int
tl_mkdirs (const char *path, tl_error_t *err)
{
    char part[PATH_MAX];
    if (!*path)
        return tl_fail (err, TL_BAD_INPUT, "the path of a directory is empty; give one");
    if (s_join (part, sizeof part, path, "", err) != 0)
        return -1;
    for (char *at = part + 1;; at++) {
        if (*at && *at != '/')
            continue;
        char end = *at;
        *at = 0;
        if (mkdir (part, 0755) != 0 && errno != EEXIST)
            return tl_fail (err, TL_BAD_INPUT,
                            "the directory %s can't be made (%s); check the path "
                            "and permissions",
                            part, strerror (errno));
        if (!end)
            break;
        *at = end;
    }
    struct stat status;
    if (stat (part, &status) != 0 || !S_ISDIR (status.st_mode))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s exists and is not a directory; remove it or choose "
                        "another path",
                        part);
    return 0;
}

int
tl_dir_check (const char *path, tl_error_t *err)
{
    char part[PATH_MAX], parent[PATH_MAX];
    struct stat status = {0};
    if (!*path)
        return tl_fail (err, TL_BAD_INPUT, "the path of a directory is empty; give one");
    if (s_join (part, sizeof part, path, "", err) != 0)
        return -1;
    //  The nearest thing above it that is there; "." and "/" are.
    while (stat (part, &status) != 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            return tl_fail (err, TL_BAD_INPUT, "%s can't be reached (%s); choose another directory",
                            part, strerror (errno));
        s_parent (parent, part);
        if (strcmp (parent, part) == 0)
            break;
        strcpy (part, parent);
    }
    if (!S_ISDIR (status.st_mode))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s is not a directory, so nothing can be saved in %s; remove it or choose "
                        "another directory",
                        part, path);
    //  Permissions alone promise too much, of /proc or a full disk for example.
    char *probe = tl_format ("%s/.trunkline-XXXXXX", part);
    int rc = 0;
    if (!mkdtemp (probe))
        rc = tl_fail (err, TL_BAD_INPUT,
                      "nothing can be saved in %s: %s can't be written (%s); see to its "
                      "permissions or choose another directory",
                      path, part, strerror (errno));
    else
        rmdir (probe);
    free (probe);
    return rc;
}

static int
s_remove_entry (const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    return remove (path);
}

int
tl_remove_tree (const char *path)
{
    struct stat status;
    if (lstat (path, &status) != 0)
        return errno == ENOENT ? 0 : -1;
    return nftw (path, s_remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 ? 0 : -1;
}

//  Whose it is, as it wrote itself; 0: it hasn't yet.
static long
s_holder (int fd)
{
    char text[32] = "";
    return pread (fd, text, sizeof text - 1, 0) > 0 ? strtol (text, NULL, 10) : 0;
}

int
tl_dir_lock (const char *path, const char *advice, int *lock, tl_error_t *err)
{
    char name[PATH_MAX], who[64] = "";
    *lock = -1;
    if (tl_mkdirs (path, err) || s_join (name, sizeof name, path, "/lock", err))
        return -1;
    int fd = open (name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd < 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s can't be opened (%s); see to its permissions or choose another "
                        "directory",
                        name, strerror (errno));
    if (flock (fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        long pid = s_holder (fd);
        if (pid > 0)
            snprintf (who, sizeof who, " (pid %ld)", pid);
        close (fd);
        return tl_fail (err, TL_BAD_INPUT, "%s is in use by another process%s: %s", path, who,
                        advice);
    }
    //  For the sentence above only.
    int size = snprintf (who, sizeof who, "%ld\n", (long)getpid ());
    if (ftruncate (fd, 0) || pwrite (fd, who, (size_t)size, 0) != size)
        tl_debug ("%s can't be written: %s", name, strerror (errno));
    *lock = fd;
    return 0;
}

void
tl_dir_unlock (int *lock)
{
    if (*lock >= 0)
        close (*lock);
    *lock = -1;
}

bool
tl_exists (const char *path)
{
    struct stat status;
    return stat (path, &status) == 0;
}
