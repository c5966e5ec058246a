//  make: goes through the layout and puts a tensor into every slot.

#include "model/make.h"

#include "checkpoint.h"
#include "config.h"
#include "file.h"
#include "internal.h"
#include "memory.h"
#include "random.h"
#include "safetensors.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 1 << 20, MAX_TOKENIZER = 64 << 20 };
enum { PIECE = 1 << 20 }; //  values drawn at a time
#define SHARD_BYTES ((size_t)4 << 30)

typedef struct {
    const tl_make_t *options;
    tl_config_t config;
    tl_safetensors_t *trained; //  NULL: random
    const char *trained_path;  //  for messages
    tl_st_tensor_t *tensors;   //  [count]
    tl_slot_t *slots;          //  [count], names of the tensors
    size_t count;
} s_maker_t;

static tl_st_dtype_t
s_stored (tl_dtype_t dtype)
{
    return dtype == TL_F32 ? TL_ST_F32 : dtype == TL_F16 ? TL_ST_F16 : TL_ST_BF16;
}

//  Values first .. first + count - 1 of a slot's tensor.
static void
s_draw (const s_maker_t *self, const tl_slot_t *slot, size_t first, size_t count, float *values)
{
    if (slot->vector) {
        bool weight = slot->role == TL_SLOT_NORM1 || slot->role == TL_SLOT_NORM2 ||
                      slot->role == TL_SLOT_FINAL;
        for (size_t i = 0; i < count; i++)
            values[i] = weight ? 1 : 0;
        return;
    }
    double deviation = slot->linear ? 1 / sqrt ((double)slot->columns) : 0.02;
    bool writes = slot->role == TL_SLOT_OUT || slot->role == TL_SLOT_DOWN;
    if (writes && self->config.family != TL_FAMILY_CHATGLM)
        deviation /= sqrt (2.0 * (double)self->config.blocks);
    tl_stream_t stream = {self->options->seed, TL_DRAW_INIT, 0, 0, tl_random_name (slot->name)};
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(deviation * tl_random_normal (&stream, first + i));
}

static int
s_check_trained (const s_maker_t *self, const tl_slot_t *slot, const tl_st_tensor_t **found,
                 tl_error_t *err)
{
    const tl_st_tensor_t *tensor = *found = tl_safetensors_find (self->trained, slot->name);
    size_t count = slot->rows * slot->columns;
    if (!tensor || tensor->dtype != TL_ST_F32 || tensor->bytes != count * sizeof (float))
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: expected the fp32 tensor %s of %zu x %zu, found %s; give the adapter of a "
            "full tuning (tune.method full) of this very config",
            self->trained_path, slot->name, slot->rows, slot->columns,
            tensor ? "another type or shape" : "none");
    const float *values = tensor->data;
    for (size_t i = 0; i < count; i++)
        if (!isfinite (values[i]))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: %s holds a value that is not finite; train again with "
                            "a lower train.lr",
                            self->trained_path, slot->name);
    return 0;
}

//  One tensor, a piece at a time.
static int
s_put (const s_maker_t *self, tl_checkpoint_t *checkpoint, const tl_slot_t *slot, tl_error_t *err)
{
    const tl_st_tensor_t *trained = NULL;
    if (self->trained && s_check_trained (self, slot, &trained, err) != 0)
        return -1;
    float *values = tl_alloc_aligned (PIECE * sizeof *values);
    void *stored = tl_alloc_aligned (PIECE * sizeof *values);
    size_t all = slot->rows * slot->columns;
    int rc = 0;
    for (size_t first = 0; rc == 0 && first < all; first += PIECE) {
        size_t count = all - first < PIECE ? all - first : PIECE;
        const float *from = trained ? (const float *)trained->data + first : values;
        if (!trained)
            s_draw (self, slot, first, count, values);
        tl_narrow (stored, from, self->options->dtype, count);
        rc = tl_checkpoint_add (checkpoint, stored, tl_dtype_bytes (self->options->dtype, count),
                                err);
    }
    free (values);
    free (stored);
    return rc;
}

//  Copies what lies beside a model's weights. Only config.json must be there.
static int
s_copy_files (const char *from, const char *to, tl_error_t *err)
{
    static const char *const names[] = {
        "config.json",           "tokenizer.model",        "ice_text.model",
        "tokenizer.json",        "vocab.json",             "merges.txt",
        "tokenizer_config.json", "generation_config.json", "special_tokens_map.json"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char source[PATH_MAX], target[PATH_MAX];
        snprintf (source, sizeof source, "%s/%s", from, names[i]);
        snprintf (target, sizeof target, "%s/%s", to, names[i]);
        if (strcmp (from, to) == 0 || !tl_exists (source))
            continue;
        size_t size = 0;
        char *data = tl_file_read (source, MAX_TOKENIZER, &size, err);
        int rc = data ? tl_file_write (target, data, size, 0644, err) : -1;
        free (data);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int
s_read_config (s_maker_t *self, const char *directory, tl_error_t *err)
{
    char path[PATH_MAX];
    snprintf (path, sizeof path, "%s/config.json", directory);
    size_t size = 0;
    char *text = tl_file_read (path, MAX_CONFIG, &size, err);
    int rc = text ? tl_config_parse (path, text, size, &self->config, err) : -1;
    free (text);
    return rc;
}

static void
s_list (s_maker_t *self)
{
    self->count = tl_layout_count (&self->config);
    self->tensors = tl_alloc (self->count * sizeof *self->tensors);
    self->slots = tl_alloc (self->count * sizeof *self->slots);
    for (size_t i = 0; i < self->count; i++) {
        tl_slot_t *slot = &self->slots[i];
        tl_layout_at (&self->config, i, slot);
        size_t count = slot->rows * slot->columns;
        self->tensors[i] = (tl_st_tensor_t){.name = slot->name,
                                            .dtype = s_stored (self->options->dtype),
                                            .dimensions = slot->vector ? 1 : 2,
                                            .shape = {slot->rows, slot->columns},
                                            .bytes = tl_dtype_bytes (self->options->dtype, count)};
    }
}

static int
s_write (s_maker_t *self, const char *config, const char *out, tl_error_t *err)
{
    s_list (self);
    if (tl_mkdirs (out, err) != 0 || s_copy_files (config, out, err) != 0)
        return -1;
    tl_checkpoint_t *checkpoint =
        tl_checkpoint_new (out, self->tensors, self->count, SHARD_BYTES, 0644, err);
    int rc = checkpoint ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < self->count; i++)
        rc = s_put (self, checkpoint, &self->slots[i], err);
    if (rc == 0)
        rc = tl_checkpoint_finish (checkpoint, err);
    tl_checkpoint_destroy (&checkpoint);
    return rc;
}

int
tl_model_make (const char *config, const char *out, const tl_make_t *options, tl_error_t *err)
{
    s_maker_t self = {.options = options};
    char trained[PATH_MAX];
    int rc = s_read_config (&self, config, err);
    if (rc == 0 && options->trained) {
        snprintf (trained, sizeof trained, "%s/model.safetensors", options->trained);
        self.trained_path = trained;
        self.trained = tl_safetensors_open (trained, err);
        rc = self.trained ? 0 : -1;
    }
    if (rc == 0)
        rc = s_write (&self, config, out, err);
    free (self.tensors);
    free (self.slots);
    tl_safetensors_destroy (&self.trained);
    return rc;
}
