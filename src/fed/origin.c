#include "fed/origin.h"

#include "assert.h"
#include "file.h"
#include "hash.h"
#include "memory.h"
#include "topology/schema.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 4 << 20 };

struct tl_origin {
    json_t *fields; //  {name: value as text}, in the file's order
};

//  A run may become longer; memory changes what is computed twice, not what comes out.
static bool
s_matters (const char *path)
{
    return strcmp (path, "train.steps") != 0 && strcmp (path, "train.memory_mb") != 0 &&
           (strcmp (path, "model.dtype") == 0 || strncmp (path, "split.", 6) == 0 ||
            strncmp (path, "tune.", 5) == 0 || strncmp (path, "train.", 6) == 0);
}

static void
s_put (tl_origin_t *self, const char *name, const char *value)
{
    //  A path of the file system need not be UTF-8; what is put here is ours, and is.
    tl_assert (json_object_set_new (self->fields, name, json_string (value)) == 0);
}

tl_origin_t *
tl_origin_new (const tl_topology_t *topology, const tl_model_t *model,
               const tl_tokenizer_t *tokenizer)
{
    tl_origin_t *self = tl_alloc (sizeof *self);
    self->fields = json_object ();
    size_t count;
    const tl_setting_t *rows = tl_schema (&count);
    for (size_t i = 0; i < count; i++) {
        char *value = s_matters (rows[i].path) ? tl_schema_value (topology, &rows[i]) : NULL;
        if (value)
            s_put (self, rows[i].path, value);
        free (value);
    }
    s_put (self, "model", tl_model_manifest_hash (model));
    s_put (self, "tokenizer", tl_tokenizer_hash (tokenizer));
    return self;
}

void
tl_origin_destroy (tl_origin_t **self_p)
{
    tl_assert (self_p);
    if (!*self_p)
        return;
    json_decref ((*self_p)->fields);
    free (*self_p);
    *self_p = NULL;
}

int
tl_origin_hash (const char *path, uint64_t *hash, tl_error_t *err)
{
    tl_map_t map;
    if (tl_map_open (&map, path, err) != 0)
        return -1;
    *hash = tl_hash64 (map.data, map.size);
    tl_map_close (&map);
    return 0;
}

int
tl_origin_text (tl_origin_t *self, const char *site, const char *path, tl_error_t *err)
{
    uint64_t number;
    if (tl_origin_hash (path, &number, err) != 0)
        return -1;
    char *name = tl_format ("text of %s", site);
    char *hash = tl_format ("%016llx", (unsigned long long)number);
    s_put (self, name, hash);
    free (hash);
    free (name);
    return 0;
}

int
tl_origin_save (const tl_origin_t *self, const char *path, tl_error_t *err)
{
    char *text = json_dumps (self->fields, JSON_INDENT (2));
    tl_assert (text);
    int rc = tl_file_write (path, text, strlen (text), 0600, err);
    free (text);
    return rc;
}

static int
s_differ (const char *path, const char *name, const json_t *theirs, const json_t *ours,
          tl_error_t *err)
{
    const char *before = json_string_value (theirs), *now = json_string_value (ours);
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s: the save was made with %s %s, and now it is %s; go on with what it was, or "
        "leave --resume out to begin anew",
        path, name, before && *before ? before : "left out", now && *now ? now : "left out");
}

int
tl_origin_check (const tl_origin_t *self, const char *path, tl_error_t *err)
{
    if (!tl_exists (path))
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s isn't there, so what the save was made with is not known; leave --resume "
            "out to begin anew",
            path);
    size_t size = 0;
    char *text = tl_file_read (path, LARGEST, &size, err);
    if (!text)
        return -1;
    json_error_t error;
    json_t *theirs = json_loadb (text, size, JSON_REJECT_DUPLICATES, &error);
    free (text);
    int rc = 0;
    if (!json_is_object (theirs))
        rc = tl_fail (err, TL_BAD_INPUT,
                      "%s:%d: expected an object of settings (%s); remove this save to go on from "
                      "the one before",
                      path, error.line > 0 ? error.line : 1,
                      theirs ? "found something else" : error.text);
    const char *name;
    json_t *value;
    json_object_foreach (self->fields, name, value)
    {
        json_t *other = rc == 0 ? json_object_get (theirs, name) : NULL;
        if (rc == 0 && !(other && json_equal (other, value)))
            rc = s_differ (path, name, other, value, err);
    }
    json_object_foreach (theirs, name, value)
    {
        if (rc == 0 && !json_object_get (self->fields, name))
            rc = s_differ (path, name, value, NULL, err);
    }
    json_decref (theirs);
    return rc;
}
