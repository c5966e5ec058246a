//  side: see side.h.

#include "side.h"

#include "file.h"
#include "log.h"
#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_SIDE_FILE ((size_t)256 << 20)

static bool
s_ends_with (const char *name, const char *end)
{
    size_t length = strlen (name), size = strlen (end);
    return length >= size && strcmp (name + length - size, end) == 0;
}

static bool
s_is_side (const char *name)
{
    static const char *const weights[] = {".safetensors", ".bin",        ".pt",      ".pth",
                                          ".gguf",        ".h5",         ".msgpack", ".onnx",
                                          ".ot",          ".index.json", ".tmp"};
    if (*name == '.' || strcmp (name, "config.json") == 0)
        return false;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        if (s_ends_with (name, weights[i]))
            return false;
    return true;
}

static int
s_copy (const char *from, const char *to, tl_error_t *err)
{
    struct stat status;
    if (stat (from, &status) != 0 || !S_ISREG (status.st_mode))
        return 0;
    if ((size_t)status.st_size > MAX_SIDE_FILE) {
        tl_warn ("%s is not copied: it is larger than a tokenizer or a text would be", from);
        return 0;
    }
    size_t size = 0;
    char *data = tl_file_read (from, MAX_SIDE_FILE, &size, err);
    int rc = data ? tl_file_write (to, data, size, 0644, err) : -1;
    free (data);
    return rc;
}

int
tl_side_copy (const char *from, const char *to, tl_error_t *err)
{
    DIR *stream = opendir (from);
    if (!stream)
        return tl_fail (err, TL_BAD_INPUT, "%s can't be listed (%s); check its permissions", from,
                        strerror (errno));
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir (stream))) {
        if (!s_is_side (entry->d_name))
            continue;
        char *source = tl_format ("%s/%s", from, entry->d_name);
        char *target = tl_format ("%s/%s", to, entry->d_name);
        rc = s_copy (source, target, err);
        free (source);
        free (target);
    }
    closedir (stream);
    return rc;
}
