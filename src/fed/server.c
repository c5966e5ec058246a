//  server: see server.h. The blob is safetensors: three tensors for each that it knows, "last:", "first:" and "second:" NAME.

#include "fed/server.h"

#include "assert.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

//  What is remembered of one tensor.
typedef struct {
    char *name;
    size_t size;    //  values
    float *last;    //  [size] as it was last given out
    double *first;  //  [size] momentum of what periods changed
    double *second; //  [size] FedAdam: average of its square
} tl_kept_tensor_t;

typedef struct {
    tl_kept_tensor_t *tensors; //  NULL: nothing
    size_t count;
} tl_memory_t;

struct tl_server {
    tl_server_spec_t spec;
    tl_memory_t memory; //  empty before the first mean, and without an optimizer
    tl_memory_t learnt; //  the same after the last mean, which is not kept yet
    size_t room;        //  tensors that fit into learnt
};

//  --- memory -----------------------------------------------------------------------------------

static const tl_kept_tensor_t *
s_kept (const tl_memory_t *memory, const char *name, size_t size)
{
    for (size_t i = 0; i < memory->count; i++)
        if (strcmp (memory->tensors[i].name, name) == 0)
            return memory->tensors[i].size == size ? &memory->tensors[i] : NULL;
    return NULL;
}

static void
s_forget (tl_memory_t *memory)
{
    for (size_t i = 0; i < memory->count; i++) {
        free (memory->tensors[i].name);
        free (memory->tensors[i].last);
        free (memory->tensors[i].first);
        free (memory->tensors[i].second);
    }
    free (memory->tensors);
    *memory = (tl_memory_t){NULL, 0};
}

static tl_kept_tensor_t *
s_keep (tl_memory_t *memory, const char *name, size_t size)
{
    tl_kept_tensor_t *kept = &memory->tensors[memory->count++];
    *kept = (tl_kept_tensor_t){.name = tl_strdup (name),
                               .size = size,
                               .last = tl_alloc ((size + 1) * sizeof (float)),
                               .first = tl_alloc ((size + 1) * sizeof (double)),
                               .second = tl_alloc ((size + 1) * sizeof (double))};
    return kept;
}

//  --- life -------------------------------------------------------------------------------------

tl_server_t *
tl_server_new (const tl_server_spec_t *spec)
{
    tl_server_t *self = tl_alloc (sizeof *self);
    self->spec = *spec;
    return self;
}

void
tl_server_destroy (tl_server_t **self_p)
{
    if (!*self_p)
        return;
    tl_server_fresh (*self_p);
    free (*self_p);
    *self_p = NULL;
}

void
tl_server_fresh (tl_server_t *self)
{
    s_forget (&self->memory);
    s_forget (&self->learnt);
}

//  --- a mean -----------------------------------------------------------------------------------

void
tl_server_begin (tl_server_t *self, size_t tensors)
{
    s_forget (&self->learnt);
    if (self->spec.optimizer == TL_SERVER_NONE)
        return;
    self->learnt.tensors = tl_alloc ((tensors + 1) * sizeof *self->learnt.tensors);
    self->room = tensors;
}

void
tl_server_drop (tl_server_t *self)
{
    s_forget (&self->learnt);
}

void
tl_server_keep (tl_server_t *self)
{
    if (!self->learnt.tensors)
        return;
    s_forget (&self->memory);
    self->memory = self->learnt;
    self->learnt = (tl_memory_t){NULL, 0};
}

void
tl_server_step (tl_server_t *self, const char *name, double *mean, size_t size)
{
    const tl_server_spec_t *spec = &self->spec;
    if (spec->optimizer == TL_SERVER_NONE)
        return;
    tl_assert (self->learnt.count < self->room);
    const tl_kept_tensor_t *old = s_kept (&self->memory, name, size);
    tl_kept_tensor_t *kept = s_keep (&self->learnt, name, size);
    for (size_t i = 0; old && i < size; i++) {
        double change = mean[i] - (double)old->last[i];
        if (spec->optimizer == TL_SERVER_AVGM) {
            kept->first[i] = spec->momentum * old->first[i] + change;
            mean[i] = (double)old->last[i] + spec->lr * kept->first[i];
        } else {
            kept->first[i] = spec->momentum * old->first[i] + (1 - spec->momentum) * change;
            kept->second[i] = spec->beta2 * old->second[i] + (1 - spec->beta2) * change * change;
            mean[i] = (double)old->last[i] +
                      spec->lr * kept->first[i] / (sqrt (kept->second[i]) + spec->eps);
        }
    }
    for (size_t i = 0; i < size; i++)
        kept->last[i] = (float)mean[i];
}

//  --- its state --------------------------------------------------------------------------------

enum { MEMORY_KINDS = 3 };
static const char *const s_memory_kinds[MEMORY_KINDS] = {"last:", "first:", "second:"};

void *
tl_server_state_get (const tl_server_t *self, size_t *size)
{
    static const char *const metadata[] = {"trunkline.aggregate", "1", NULL};
    const tl_memory_t *memory = self->learnt.tensors ? &self->learnt : &self->memory;
    size_t count = memory->count * MEMORY_KINDS;
    tl_st_tensor_t *entries = tl_alloc ((count + 1) * sizeof *entries);
    for (size_t i = 0; i < count; i++) {
        const tl_kept_tensor_t *kept = &memory->tensors[i / MEMORY_KINDS];
        size_t kind = i % MEMORY_KINDS;
        const void *data[MEMORY_KINDS] = {kept->last, kept->first, kept->second};
        entries[i] =
            (tl_st_tensor_t){.name = tl_format ("%s%s", s_memory_kinds[kind], kept->name),
                             .dtype = kind == 0 ? TL_ST_F32 : TL_ST_F64,
                             .dimensions = 1,
                             .shape = {kept->size},
                             .bytes = kept->size * (kind == 0 ? sizeof (float) : sizeof (double)),
                             .data = data[kind]};
    }
    void *blob = tl_safetensors_serialise (entries, count, metadata, size);
    for (size_t i = 0; i < count; i++)
        free ((char *)entries[i].name);
    free (entries);
    return blob;
}

//  One tensor of the three, of the expected type and size and made of finite numbers.
static const tl_st_tensor_t *
s_find_kept (const tl_safetensors_t *file, size_t kind, const char *name, size_t size)
{
    char *whole = tl_format ("%s%s", s_memory_kinds[kind], name);
    const tl_st_tensor_t *found = tl_safetensors_find (file, whole);
    free (whole);
    if (!found || found->dtype != TL_ST_F64 || found->dimensions != 1 || found->shape[0] != size)
        return NULL;
    const double *values = found->data;
    for (size_t i = 0; i < size; i++)
        if (!isfinite (values[i]) || (kind == 2 && values[i] < 0))
            return NULL;
    return found;
}

static int
s_read_memory (tl_memory_t *memory, const tl_safetensors_t *file, tl_error_t *err)
{
    size_t count = tl_safetensors_count (file);
    const char *version = tl_safetensors_metadata (file, "trunkline.aggregate");
    bool good = version && strcmp (version, "1") == 0 && count % MEMORY_KINDS == 0;
    memory->tensors = tl_alloc ((count / MEMORY_KINDS + 1) * sizeof *memory->tensors);
    for (size_t i = 0; good && i < count; i++) {
        const tl_st_tensor_t *last = tl_safetensors_at (file, i);
        if (strncmp (last->name, s_memory_kinds[0], strlen (s_memory_kinds[0])) != 0)
            continue;
        const char *name = last->name + strlen (s_memory_kinds[0]);
        size_t size = last->dimensions == 1 ? last->shape[0] : 0;
        const tl_st_tensor_t *first = s_find_kept (file, 1, name, size);
        const tl_st_tensor_t *second = s_find_kept (file, 2, name, size);
        good = last->dtype == TL_ST_F32 && first && second &&
               memory->count < count / MEMORY_KINDS && tl_kernels ()->all_finite (last->data, size);
        if (!good)
            break;
        tl_kept_tensor_t *kept = s_keep (memory, name, size);
        memcpy (kept->last, last->data, last->bytes);
        memcpy (kept->first, first->data, first->bytes);
        memcpy (kept->second, second->data, second->bytes);
    }
    if (good && memory->count == count / MEMORY_KINDS)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "the saved state of the aggregator is not one of this version: remove it and "
                    "train anew");
}

int
tl_server_state_set (tl_server_t *self, const void *blob, size_t size, tl_error_t *err)
{
    tl_memory_t memory = {NULL, 0};
    tl_safetensors_t *file =
        tl_safetensors_parse ("the saved state of the aggregator", blob, size, err);
    int rc = file ? s_read_memory (&memory, file, err) : -1;
    tl_safetensors_destroy (&file);
    if (rc != 0) {
        s_forget (&memory);
        return -1;
    }
    tl_server_fresh (self);
    self->memory = memory;
    return 0;
}
