/*  golden_gguf: a case of GGUF files: gguf/NAME-TYPE.gguf with dequant-TYPE.safetensors (f32: model/ itself) and
    forward-TYPE.safetensors each. Every weight is held against its expectation bit for bit, under Hugging
    Face's names and in its order of rows.                                                          */

#include "golden_case.h"

#include "file.h"
#include "memory.h"
#include "model/internal.h"
#include "model/order.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
case_compare_weights (golden_case_t *self, tl_model_t *model, const char *type)
{
    golden_file_t file;
    tl_error_t err;
    const tl_config_t *config = tl_model_config (model);
    char *name = strcmp (type, "f32") == 0 ? tl_strdup ("model/model.safetensors")
                                           : tl_format ("dequant-%s.safetensors", type);
    int rc = file_open (&file, self, name);
    free (name);
    for (size_t i = 0; rc == 0 && i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        tl_weight_t weight;
        tl_layout_at (config, i, &slot);
        if (tl_model_weight (model, slot.name, slot.rows, slot.columns, &weight, &err)) {
            case_fail (self, "%s", err.text);
            continue;
        }
        size_t count = slot.rows * slot.columns;
        float *values = tl_alloc_aligned (count * sizeof *values);
        float *ordered = tl_alloc_aligned (count * sizeof *ordered);
        tl_widen (values, weight.data, weight.dtype, count);
        tl_reorder (config, slot.name, TL_ORDER_TO_HF, ordered, values, slot.rows,
                    slot.columns * sizeof *values);
        case_compare_exact (self, &file, slot.name, KIND_DEQUANT, ordered, count);
        free (values);
        free (ordered);
    }
    if (rc == 0)
        file_close (&file, self);
}

//  The type in NAME-TYPE.gguf, "" if the name isn't of that form.
static void
s_type (const char *file, char type[16])
{
    const char *dash = strrchr (file, '-'), *dot = strrchr (file, '.');
    type[0] = 0;
    if (dash && dot && dot > dash + 1 && dot - dash < 16 && strcmp (dot, ".gguf") == 0)
        snprintf (type, 16, "%.*s", (int)(dot - dash - 1), dash + 1);
}

//  The case's directory holds what its GGUF files need and nothing else.
static void
s_check_files (golden_case_t *self, char types[][16], size_t count)
{
    DIR *directory = opendir (self->path);
    for (struct dirent *entry = directory ? readdir (directory) : NULL; entry;
         entry = readdir (directory)) {
        const char *name = entry->d_name;
        bool known = name[0] == '.' || strcmp (name, "gguf") == 0 || strcmp (name, "model") == 0 ||
                     strcmp (name, "case.json") == 0;
        for (size_t i = 0; i < count && !known; i++) {
            char *forward = tl_format ("forward-%s.safetensors", types[i]);
            char *dequant = tl_format ("dequant-%s.safetensors", types[i]);
            known = strcmp (name, forward) == 0 || strcmp (name, dequant) == 0;
            free (forward);
            free (dequant);
        }
        if (!known)
            case_fail (self, "%s: unknown file %s", self->path, name);
    }
    if (directory)
        closedir (directory);
}

void
case_run_ggufs (golden_case_t *self)
{
    enum { MOST = 16 };
    char types[MOST][16], files[MOST][NAME_MAX + 1];
    size_t count = 0;
    char *path = tl_format ("%s/gguf", self->path);
    DIR *directory = opendir (path);
    for (struct dirent *entry = directory ? readdir (directory) : NULL; entry;
         entry = readdir (directory)) {
        if (entry->d_name[0] == '.')
            continue;
        if (count == MOST) {
            case_fail (self, "%s: more than %d files", path, MOST);
            break;
        }
        s_type (entry->d_name, types[count]);
        snprintf (files[count], sizeof files[count], "%s", entry->d_name);
        if (types[count][0])
            count++;
        else
            case_fail (self, "%s: unknown file %s", path, entry->d_name);
    }
    if (directory)
        closedir (directory);
    free (path);
    if (count == 0)
        case_fail (self, "%s/gguf holds no GGUF file", self->path);
    s_check_files (self, types, count);
    for (size_t i = 0; i < count; i++)
        case_run_gguf (self, files[i], types[i]);
}
