/*  golden_check CASE_DIR...: compares everything a directory of golden vectors holds with what this
    program computes, prints the largest difference per kind of tensor against its limit and a verdict
    per case. Exit code 0 only if every case passed.

    Knows the files a case may hold: an unknown one fails, as does a missing one. ptuning.safetensors is there
    if case.json speaks of it; variants are never compared (they show mistakes).                     */

#include "golden_case.h"

#include "file.h"
#include "memory.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { FILE_NEEDED, FILE_COMPARED_IF_THERE, FILE_IGNORED } role_t;

static const struct {
    const char *name;
    role_t role;
} s_files[] = {
    {"case.json", FILE_NEEDED},
    {"model", FILE_NEEDED},
    {"forward.safetensors", FILE_NEEDED},
    {"backward.safetensors", FILE_NEEDED},
    {"full.safetensors", FILE_NEEDED},
    {"lora.safetensors", FILE_NEEDED},
    {"lora", FILE_NEEDED},
    {"ptuning.safetensors", FILE_COMPARED_IF_THERE},
    {"variants.safetensors", FILE_IGNORED},
};
enum { FILES = sizeof s_files / sizeof s_files[0] };

static const char *const s_lora_files[] = {"init", "final"};

static void
s_check_entry (golden_case_t *self, const char *name)
{
    for (size_t i = 0; i < FILES; i++)
        if (strcmp (name, s_files[i].name) == 0) {
            self->prefix = self->prefix || s_files[i].role == FILE_COMPARED_IF_THERE;
            return;
        }
    case_fail (self, "%s: unknown file %s", self->path, name);
}

//  Names in the directory are known, and none that is needed is absent.
static void
s_check_files (golden_case_t *self)
{
    DIR *directory = opendir (self->path);
    if (!directory) {
        case_fail (self, "%s: no such directory", self->path);
        return;
    }
    for (struct dirent *entry = readdir (directory); entry; entry = readdir (directory))
        if (strcmp (entry->d_name, ".") != 0 && strcmp (entry->d_name, "..") != 0)
            s_check_entry (self, entry->d_name);
    closedir (directory);
    for (size_t i = 0; i < FILES; i++) {
        char *path = tl_format ("%s/%s", self->path, s_files[i].name);
        if (s_files[i].role == FILE_NEEDED && !tl_exists (path))
            case_fail (self, "%s is missing", path);
        free (path);
    }
    for (size_t i = 0; i < 2; i++) {
        char *path = tl_format ("%s/lora/%s", self->path, s_lora_files[i]);
        if (!tl_exists (path))
            case_fail (self, "%s is missing", path);
        free (path);
    }
    char *path = tl_format ("%s/lora", self->path);
    directory = opendir (path);
    for (struct dirent *entry = directory ? readdir (directory) : NULL; entry;
         entry = readdir (directory))
        if (strcmp (entry->d_name, ".") != 0 && strcmp (entry->d_name, "..") != 0 &&
            strcmp (entry->d_name, "init") != 0 && strcmp (entry->d_name, "final") != 0)
            case_fail (self, "%s: unknown file %s", path, entry->d_name);
    if (directory)
        closedir (directory);
    free (path);
}

static bool
s_check_case (const char *path)
{
    golden_case_t self = {.path = path};
    printf ("%s\n", path);
    char *json = tl_format ("%s/case.json", path), *gguf = tl_format ("%s/gguf", path);
    self.gguf = tl_exists (gguf);
    free (gguf);
    if (!tl_exists (json)) {
        case_fail (&self,
                   "%s is no case of golden vectors: it holds no case.json; name a directory that "
                   "does, each on its own",
                   path);
        free (json);
        return case_report (&self);
    }
    if (!self.gguf)
        s_check_files (&self);
    json_error_t error;
    self.json = json_load_file (json, 0, &error);
    if (!self.json)
        case_fail (&self, "%s: line %d: %s", json, error.line, error.text);
    free (json);
    if (self.prefix != (json_object_get (self.json, "ptuning") != NULL))
        case_fail (&self, "%s: %s", path,
                   self.prefix ? "case.json says nothing of its ptuning.safetensors"
                               : "ptuning.safetensors is missing");
    if (self.failures == 0 && self.gguf)
        case_run_ggufs (&self);
    else if (self.failures == 0)
        case_run (&self);
    json_decref (self.json);
    return case_report (&self);
}

int
main (int argc, char **argv)
{
    if (argc < 2) {
        fprintf (stderr, "usage: golden_check CASE_DIR...\n");
        return TL_BAD_INPUT;
    }
    bool present = false;
    for (int i = 1; i < argc; i++)
        present = present || strncmp (argv[i], "../shared/", 10) != 0 || tl_exists (argv[i]);
    if (!present) {
        printf ("skipped: no golden vectors at %s\n", argv[1]);
        return 77;
    }
    tl_kernels_use (1);
    int bad = 0;
    for (int i = 1; i < argc; i++)
        bad += !s_check_case (argv[i]);
    printf ("%d of %d cases passed\n", argc - 1 - bad, argc - 1);
    return bad ? TL_FAILED : TL_OK;
}
