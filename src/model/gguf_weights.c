//  gguf_weights: the layout's tensors in a GGUF file.

#include "gguf_config.h"

#include "log.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
s_show_shape (const tl_gguf_tensor_t *tensor, char *text, size_t size)
{
    size_t used = (size_t)snprintf (text, size, "[");
    for (size_t i = 0; i < tensor->dimensions; i++)
        used +=
            (size_t)snprintf (text + used, size - used, "%s%zu", i ? ", " : "", tensor->shape[i]);
    snprintf (text + used, size - used, "]");
}

int
tl_gguf_weight (const tl_gguf_t *gguf, const char *name, size_t rows, size_t columns,
                tl_weight_t *out, tl_error_t *err)
{
    char own[128];
    const tl_gguf_tensor_t *tensor =
        tl_gguf_name (name, own, sizeof own) ? tl_gguf_find_tensor (gguf, own) : NULL;
    if (!tensor)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s has no tensor %.200s, which its metadata asks for; fetch the file "
                        "again or convert the model again",
                        tl_gguf_path (gguf), own);
    bool vector = tensor->dimensions == 1 && columns == 1;
    bool matrix = tensor->dimensions == 2 && tensor->shape[1] == columns;
    if (!(vector || matrix) || tensor->shape[0] != rows) {
        char shown[128], wanted[64];
        s_show_shape (tensor, shown, sizeof shown);
        snprintf (wanted, sizeof wanted, columns == 1 ? "[%zu]" : "[%zu, %zu]", rows, columns);
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: tensor %s has shape %s, the metadata asks for %s; the file is damaged "
                        "or badly converted, take it from another place",
                        tl_gguf_path (gguf), own, shown, wanted);
    }
    *out = (tl_weight_t){tensor->data, tensor->dtype, {rows, columns}, tensor->name};
    return 0;
}

//  Names of the layout, for looking up.
typedef struct {
    char (*names)[128]; //  [count], sorted
    size_t count;
} s_names_t;

static int
s_by_text (const void *a, const void *b)
{
    return strcmp (a, b);
}

static s_names_t
s_names (const tl_config_t *config)
{
    s_names_t self = {.count = tl_layout_count (config)};
    self.names = tl_alloc ((self.count + 1) * sizeof *self.names);
    for (size_t i = 0; i < self.count; i++) {
        tl_slot_t slot;
        tl_layout_at (config, i, &slot);
        if (!tl_gguf_name (slot.name, self.names[i], sizeof self.names[i]))
            self.names[i][0] = 0;
    }
    qsort (self.names, self.count, sizeof *self.names, s_by_text);
    return self;
}

//  Rotary tables that old converters left in the file; they are made anew.
static bool
s_is_buffer (const char *name)
{
    const char *end = strrchr (name, '.');
    end = end && end - name > 13 ? end - 13 : name;
    return strcmp (name, "rope_freqs.weight") == 0 ||
           strncmp (end, "attn_rot_embd", strlen ("attn_rot_embd")) == 0;
}

int
tl_gguf_check_strays (const tl_gguf_t *gguf, const tl_config_t *config, tl_error_t *err)
{
    s_names_t known = s_names (config);
    const char *first = NULL;
    size_t count = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < tl_gguf_tensors (gguf); i++) {
        const char *name = tl_gguf_tensor (gguf, i)->name;
        char key[128] = "";
        snprintf (key, sizeof key, "%s", name);
        if (bsearch (key, known.names, known.count, sizeof *known.names, s_by_text) ||
            s_is_buffer (name))
            continue;
        static const char *const own[] = {"blk.", "output", "token_", "rope_", "position_"};
        for (size_t k = 0; rc == 0 && k < sizeof own / sizeof *own; k++)
            if (strncmp (name, own[k], strlen (own[k])) == 0)
                rc = tl_fail (err, TL_BAD_INPUT,
                              "%s: tensor %s has no place in the %zu blocks of the model that the "
                              "metadata describes, so this version would compute something else; "
                              "choose another model",
                              tl_gguf_path (gguf), name, config->blocks);
        first = count++ == 0 ? name : first;
    }
    free (known.names);
    if (rc == 0 && count)
        tl_warn ("%s: left alone what is not part of the model: %zu tensors, the first %s",
                 tl_gguf_path (gguf), count, first);
    return rc;
}
