#include "save.h"

#include "file.h"
#include "log.h"
#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_SAVES = 10000 }; //  states looked at in one directory

static char *
s_path (const char *directory, uint64_t step)
{
    return tl_format ("%s/save-%08llu.state", directory, (unsigned long long)step);
}

char *
tl_save_directory (const tl_topology_t *topology, const char *part)
{
    return tl_format ("%s/%s/%s", topology->checkpoint.dir, topology->name, part);
}

int
tl_save_lock (const tl_topology_t *topology, const char *part, int *lock, tl_error_t *err)
{
    const tl_topology_t *t = topology;
    char *directory = tl_format ("%s/%s%s%s", t->checkpoint.dir, t->name, *part ? "/" : "", part);
    char *advice = tl_format ("stop that run with `trunkline down %s`, or give this one another "
                              "name with --set name=%s-2 at all parts",
                              t->source, t->name);
    int rc = tl_dir_lock (directory, advice, lock, err);
    free (advice);
    free (directory);
    return rc;
}

char *
tl_save_run_db (const tl_topology_t *topology)
{
    return tl_format ("%s/%s/run.db", topology->checkpoint.dir, topology->name);
}

//  Steps saved in directory, at most MOST_SAVES, in no order.
static size_t
s_list (const char *directory, uint64_t *steps)
{
    size_t count = 0;
    DIR *stream = opendir (directory);
    struct dirent *entry;
    while (stream && count < MOST_SAVES && (entry = readdir (stream))) {
        unsigned long long step;
        int end = 0;
        if (sscanf (entry->d_name, "save-%llu.state%n", &step, &end) == 1 && end &&
            !entry->d_name[end])
            steps[count++] = step;
    }
    if (stream)
        closedir (stream);
    return count;
}

//  Removes the states of steps from first to last.
static void
s_remove (const char *directory, uint64_t first, uint64_t last)
{
    uint64_t *steps = tl_alloc (MOST_SAVES * sizeof *steps);
    size_t count = s_list (directory, steps);
    for (size_t i = 0; i < count; i++)
        if (steps[i] >= first && steps[i] <= last) {
            char *path = s_path (directory, steps[i]);
            unlink (path);
            free (path);
        }
    free (steps);
}

//  Of which step the adapter in directory is.
static char *
s_adapter_step (const char *directory)
{
    return tl_format ("%s/adapter.step", directory);
}

//  rc of what is written while the run goes on: it can go on from the save before.
static int
s_advise (int rc, tl_error_t *err)
{
    return rc ? tl_fail_on (err, "then go on with --resume") : 0;
}

//  What lies there is of no known step from now on.
static void
s_forget_adapter (const char *directory)
{
    char *path = s_adapter_step (directory);
    unlink (path);
    free (path);
}

int
tl_save_adapter (const tl_part_t *part, const char *directory, uint64_t step, tl_error_t *err)
{
    if (!tl_part_tensors (part))
        return 0;
    //  In this order: a note that is there is true, whenever we are killed.
    s_forget_adapter (directory);
    char *adapter = tl_format ("%s/adapter", directory), *path = s_adapter_step (directory);
    char *text = tl_format ("%llu\n", (unsigned long long)step);
    int rc = tl_part_save_adapter (part, adapter, err);
    if (rc == 0)
        rc = tl_file_write (path, text, strlen (text), 0644, err);
    free (text);
    free (path);
    free (adapter);
    return s_advise (rc, err);
}

bool
tl_save_has_adapter (const tl_topology_t *topology)
{
    const tl_topology_t *t = topology;
    bool has = false;
    for (size_t i = 0; i < t->worker_count + t->client_count && !has; i++) {
        char *directory = tl_save_directory (
            t, i < t->worker_count ? t->workers[i].name : t->clients[i - t->worker_count].name);
        char *adapter = tl_format ("%s/adapter", directory);
        has = tl_exists (adapter);
        free (adapter);
        free (directory);
    }
    return has;
}

//  -1: not known.
static int64_t
s_read_step (const char *directory)
{
    char *path = s_adapter_step (directory);
    tl_error_t none;
    char *text = tl_exists (path) ? tl_file_read (path, 64, NULL, &none) : NULL;
    unsigned long long step;
    bool good = text && sscanf (text, "%18llu", &step) == 1;
    free (text);
    free (path);
    return good ? (int64_t)step : -1;
}

static char *
s_read_run (const char *directory)
{
    char *path = tl_format ("%s/run", directory);
    tl_error_t none;
    char *run = tl_exists (path) ? tl_file_read (path, 64, NULL, &none) : NULL;
    free (path);
    return run;
}

bool
tl_save_agree (const char *directory, const char *other, int64_t *steps)
{
    steps[0] = s_read_step (directory);
    steps[1] = s_read_step (other);
    if (steps[0] < 0 || steps[1] < 0)
        return true;
    char *run = s_read_run (directory), *other_run = s_read_run (other);
    bool agree = steps[0] == steps[1] && (!run || !other_run || strcmp (run, other_run) == 0);
    free (run);
    free (other_run);
    return agree;
}

int
tl_save_writable (const char *directory, tl_error_t *err)
{
    if (tl_mkdirs (directory, err))
        return -1;
    char *probe = tl_format ("%s/writable", directory);
    int rc = tl_file_write (probe, "", 0, 0644, err);
    unlink (probe);
    free (probe);
    return rc;
}

int
tl_save_open (const char *directory, tl_error_t *err)
{
    int rc = tl_save_writable (directory, err);
    int64_t newest = rc == 0 ? tl_save_newest (directory, UINT64_MAX) : -1;
    if (newest >= 0)
        tl_info ("replaces the run saved in %s, step %lld", directory, (long long)newest);
    if (rc == 0) {
        s_remove (directory, 0, UINT64_MAX);
        s_forget_adapter (directory);
    }
    return rc;
}

void
tl_save_unmake (const char *directory)
{
    DIR *stream = opendir (directory);
    struct dirent *entry;
    bool bare = stream != NULL;
    while (bare && (entry = readdir (stream)))
        bare = strcmp (entry->d_name, ".") == 0 || strcmp (entry->d_name, "..") == 0 ||
               strcmp (entry->d_name, TL_SAVE_WEIGHTS) == 0;
    if (stream)
        closedir (stream);
    if (!bare)
        return;
    char *path = tl_format ("%s/%s", directory, TL_SAVE_WEIGHTS);
    unlink (path);
    //  Its own, the run's, and where runs are: each only if it is empty then
    snprintf (path, strlen (directory) + 1, "%s", directory);
    for (int i = 0; i < 3 && rmdir (path) == 0 && strrchr (path, '/'); i++)
        *strrchr (path, '/') = 0;
    free (path);
}

static bool
s_is_of (const char *path, const char *run)
{
    tl_error_t none;
    char *known = tl_exists (path) ? tl_file_read (path, 64, NULL, &none) : NULL;
    bool same = known && strcmp (known, run) == 0;
    free (known);
    return same;
}

bool
tl_save_is_of (const char *directory, uint64_t run)
{
    char *path = tl_format ("%s/run", directory);
    char *text = tl_format ("%016llx", (unsigned long long)run);
    bool is = s_is_of (path, text);
    free (text);
    free (path);
    return is;
}

int
tl_save_settle (const char *directory, uint64_t run, tl_error_t *err)
{
    if (tl_save_is_of (directory, run))
        return 0;
    char *path = tl_format ("%s/run", directory);
    char *text = tl_format ("%016llx", (unsigned long long)run);
    int rc = tl_save_open (directory, err);
    if (rc == 0)
        rc = tl_file_write (path, text, strlen (text), 0644, err);
    free (text);
    free (path);
    return rc;
}

int
tl_save_settle_at (const char *directory, uint64_t run, const tl_message_t *message, bool *settled,
                   tl_error_t *err)
{
    bool asks = message->type == TL_FORWARD || message->type == TL_FORWARDED;
    if (*settled || asks || (message->type == TL_RESTORE && !message->step))
        return 0;
    *settled = true;
    return tl_save_settle (directory, run, err);
}

bool
tl_save_has (const char *directory, uint64_t run)
{
    return tl_save_is_of (directory, run) && tl_save_newest (directory, UINT64_MAX) >= 0;
}

int
tl_save_write (const char *directory, uint64_t step, const void *state, size_t size,
               tl_error_t *err)
{
    char *path = s_path (directory, step);
    int rc = tl_sealed_write (path, state, size, 0600, err);
    free (path);
    return s_advise (rc, err);
}

void *
tl_save_read (const char *directory, uint64_t step, size_t *size, tl_error_t *err)
{
    char *path = s_path (directory, step);
    void *state = tl_sealed_read (path, (size_t)16 << 30, size, err);
    free (path);
    return state;
}

void *
tl_save_read_newest (const char *directory, uint64_t *step, size_t *size, tl_error_t *err)
{
    tl_error_t why = {0};
    int64_t newest = *step ? tl_save_newest (directory, *step) : -1;
    while (newest > 0) {
        *step = (uint64_t)newest;
        void *state = tl_save_read (directory, *step, size, &why);
        if (state)
            return state;
        newest = tl_save_newest (directory, *step - 1);
        if (newest > 0)
            tl_warn ("%s: that of step %lld is taken", why.text, (long long)newest);
    }
    *step = 0;
    if (why.code) {
        *err = why;
        tl_fail_on (err, "there is none; put a copy of this file back, or begin the run anew with "
                         "--replace");
    }
    return NULL;
}

int64_t
tl_save_newest (const char *directory, uint64_t limit)
{
    uint64_t *steps = tl_alloc (MOST_SAVES * sizeof *steps);
    size_t count = s_list (directory, steps);
    int64_t newest = -1;
    for (size_t i = 0; i < count; i++)
        if (steps[i] <= limit && (int64_t)steps[i] > newest)
            newest = (int64_t)steps[i];
    free (steps);
    return newest;
}

void
tl_save_forget_after (const char *directory, uint64_t step)
{
    if (step < UINT64_MAX)
        s_remove (directory, step + 1, UINT64_MAX);
}

void
tl_save_prune (const char *directory, uint64_t step, size_t keep)
{
    int64_t kept = (int64_t)step;
    for (size_t i = 1; i < keep && kept > 0; i++) {
        int64_t older = tl_save_newest (directory, (uint64_t)kept - 1);
        if (older < 0)
            break;
        kept = older;
    }
    if (kept > 0)
        s_remove (directory, 0, (uint64_t)kept - 1);
}

void
tl_save_answer (tl_peer_t *peer, tl_type_t type, uint64_t step, uint64_t round,
                const tl_error_t *err, const char *text)
{
    tl_message_t message;
    tl_message_init (&message, type);
    message.step = step;
    message.round = round;
    snprintf (message.sender, sizeof message.sender, "broker");
    if (type == TL_SAVED) {
        message.body.saved.good = err->code == TL_OK;
        message.body.saved.text = text;
    } else {
        message.body.restored.code = err->code;
        message.body.restored.text = text;
    }
    tl_peer_send (peer, &message);
}
