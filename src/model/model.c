/*  model: a Hugging Face directory or a GGUF file. Finds config.json and the safetensors files, one or sharded,
    or reads the metadata; maps them, and holds every tensor that the config asks for against what is there. Copies
    nothing unless told to expand: a page of a weight is read from disk when somebody computes with it. Fetches
    nothing and converts nothing.                                                                  */

#include "config.h"
#include "gguf_config.h"
#include "internal.h"
#include "safetensors.h"

#include "assert.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <limits.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

//  An index of a 6 B model has 40 KB, a config.json 2 KB.
#define MAX_JSON ((size_t)64 << 20)
enum { MAX_SHARDS = 1024 };

typedef struct {
    char *name; //  file name inside the directory
    tl_safetensors_t *file;
} shard_t;

//  A weight in another type than it is stored in, by its name in the checkpoint.
typedef struct {
    const char *name;
    void *values;
} s_held_t;

struct tl_model {
    char *path; //  the directory
    tl_config_t config;
    shard_t *shards; //  [shard_count]
    size_t shard_count;
    tl_gguf_t *gguf;           //  a GGUF file; then there are no shards
    const float *rope_factors; //  in a GGUF file, or NULL
    tl_dtype_t holds;          //  what frozen matrices are given in; TL_DTYPES: as stored
    s_held_t *held;            //  [held_count] those that were asked for and are not stored so
    size_t held_count;
    json_t *index;                               //  weight_map of a sharded checkpoint, else NULL
    char *manifest;                              //  canonical JSON
    char hash[2 * crypto_generichash_BYTES + 1]; //  of the manifest, hex
};

static int
s_join (char path[PATH_MAX], const char *directory, const char *name, tl_error_t *err)
{
    int length = snprintf (path, PATH_MAX, "%s/%s", directory, name);
    if (length < 0 || length >= PATH_MAX)
        return tl_fail (err, TL_BAD_INPUT, "the path %.200s... is too long; use a shorter one",
                        directory);
    return 0;
}

static int
s_read_config (tl_model_t *self, tl_error_t *err)
{
    char path[PATH_MAX];
    if (s_join (path, self->path, "config.json", err) != 0)
        return -1;
    if (!tl_exists (path))
        return tl_fail (err, TL_BAD_INPUT,
                        "%s has no config.json; give the directory of a Hugging Face model "
                        "(config.json, *.safetensors, tokenizer.model) or a GGUF file",
                        self->path);
    size_t size = 0;
    char *text = tl_file_read (path, MAX_JSON, &size, err);
    if (!text)
        return -1;
    int rc = tl_config_parse (path, text, size, &self->config, err);
    free (text);
    return rc;
}

//  ---------------------------------------------------------------------------------------------
//  Shards

static shard_t *
s_shard (const tl_model_t *self, const char *name)
{
    for (size_t i = 0; i < self->shard_count; i++)
        if (strcmp (self->shards[i].name, name) == 0)
            return &self->shards[i];
    return NULL;
}

static int
s_add_shard (tl_model_t *self, const char *name, tl_error_t *err)
{
    char path[PATH_MAX];
    if (s_join (path, self->path, name, err) != 0)
        return -1;
    tl_safetensors_t *file = tl_safetensors_open (path, err);
    if (!file)
        return -1;
    self->shards[self->shard_count++] = (shard_t){tl_strdup (name), file};
    return 0;
}

//  An index comes from whoever made the checkpoint: it may not reach outside the directory.
static bool
s_plain_name (const char *name)
{
    size_t length = strlen (name);
    return length > 0 && length <= NAME_MAX && name[0] != '.' && !strchr (name, '/');
}

static int
s_open_index (tl_model_t *self, const char *path, tl_error_t *err)
{
    json_error_t reason;
    size_t size = 0;
    char *text = tl_file_read (path, MAX_JSON, &size, err);
    if (!text)
        return -1;
    json_t *whole = json_loadb (text, size, JSON_REJECT_DUPLICATES, &reason);
    free (text);
    if (!whole)
        return tl_fail (err, TL_BAD_INPUT, "%s:%d:%d: not valid JSON (%s); fetch the file again",
                        path, reason.line, reason.column, reason.text);
    self->index = json_incref (json_object_get (whole, "weight_map"));
    json_decref (whole);
    if (!json_is_object (self->index))
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s has no weight_map from tensor names to file names; fetch the file again", path);
    const char *tensor;
    json_t *value;
    json_object_foreach (self->index, tensor, value)
    {
        const char *name = json_string_value (value);
        if (!name || !s_plain_name (name))
            return tl_fail (err, TL_BAD_INPUT,
                            "%s: tensor %.200s is said to lie in '%.200s', expected the plain name "
                            "of a file in the same directory; correct weight_map",
                            path, tensor, name ? name : "(not a text)");
        if (s_shard (self, name))
            continue;
        if (self->shard_count == MAX_SHARDS)
            return tl_fail (err, TL_BAD_INPUT,
                            "%s names more than %d files; join the shards into fewer", path,
                            MAX_SHARDS);
        if (s_add_shard (self, name, err) != 0)
            return tl_fail_in (err, "tensor %.200s, by %s", tensor, path);
    }
    return 0;
}

//  As transformers: model.safetensors if there is one, else the shards of the index.
static int
s_open_files (tl_model_t *self, tl_error_t *err)
{
    char path[PATH_MAX];
    self->shards = tl_alloc (MAX_SHARDS * sizeof *self->shards);
    if (s_join (path, self->path, "model.safetensors", err) != 0)
        return -1;
    if (tl_exists (path))
        return s_add_shard (self, "model.safetensors", err);
    if (s_join (path, self->path, "model.safetensors.index.json", err) != 0)
        return -1;
    if (tl_exists (path))
        return s_open_index (self, path, err);
    return tl_fail (err, TL_BAD_INPUT,
                    "%s has neither model.safetensors nor model.safetensors.index.json; fetch the "
                    "weights, or convert a pytorch_model.bin with save_pretrained "
                    "(safe_serialization=True)",
                    self->path);
}

//  The shard that holds a tensor, NULL when there is none.
static const shard_t *
s_shard_of (const tl_model_t *self, const char *name)
{
    if (!self->index)
        return &self->shards[0];
    const char *file = json_string_value (json_object_get (self->index, name));
    return file ? s_shard (self, file) : NULL;
}

//  ---------------------------------------------------------------------------------------------
//  Tensors against the config

static bool
s_float_dtype (tl_st_dtype_t stored, tl_dtype_t *dtype)
{
    if (stored == TL_ST_F32)
        *dtype = TL_F32;
    else if (stored == TL_ST_F16)
        *dtype = TL_F16;
    else if (stored == TL_ST_BF16)
        *dtype = TL_BF16;
    else
        return false;
    return true;
}

static void
s_show_shape (const tl_st_tensor_t *tensor, char *text, size_t size)
{
    size_t used = (size_t)snprintf (text, size, "[");
    for (size_t i = 0; i < tensor->dimensions; i++)
        used +=
            (size_t)snprintf (text + used, size - used, "%s%zu", i ? ", " : "", tensor->shape[i]);
    snprintf (text + used, size - used, "]");
}

//  Name, shape and dtype; data may still have to be settled. NULL and a sentence otherwise.
static const tl_st_tensor_t *
s_check (const tl_model_t *self, const shard_t *shard, const char *name, size_t rows,
         size_t columns, tl_dtype_t *dtype, tl_error_t *err)
{
    const tl_st_tensor_t *tensor = shard ? tl_safetensors_peek (shard->file, name) : NULL;
    if (!tensor) {
        tl_fail (
            err, TL_BAD_INPUT,
            "%s/%s has no tensor %.200s, which a %s model of this config.json needs; fetch the "
            "checkpoint again or correct config.json",
            self->path, shard ? shard->name : "model.safetensors.index.json", name,
            tl_family_name (self->config.family));
        return NULL;
    }
    bool vector = tensor->dimensions == 1 && columns == 1;
    bool matrix = tensor->dimensions == 2 && tensor->shape[1] == columns;
    if (!(vector || matrix) || tensor->shape[0] != rows) {
        char shown[128], wanted[64];
        s_show_shape (tensor, shown, sizeof shown);
        snprintf (wanted, sizeof wanted, columns == 1 ? "[%zu]" : "[%zu, %zu]", rows, columns);
        tl_fail (err, TL_BAD_INPUT,
                 "%s/%s: tensor %.200s has shape %s, config.json asks for %s; the two don't belong "
                 "together, fetch both from the same place",
                 self->path, shard->name, name, shown, wanted);
        return NULL;
    }
    if (!s_float_dtype (tensor->dtype, dtype)) {
        tl_fail (err, TL_BAD_INPUT,
                 "%s/%s: tensor %.200s has dtype %s, weights must be F32, F16 or BF16; convert the "
                 "checkpoint to one of those",
                 self->path, shard->name, name, tl_st_dtype_name (tensor->dtype));
        return NULL;
    }
    return tensor;
}

int
tl_model_weight (const tl_model_t *self, const char *name, size_t rows, size_t columns,
                 tl_weight_t *out, tl_error_t *err)
{
    if (self->gguf)
        return tl_gguf_weight (self->gguf, name, rows, columns, out, err);
    const shard_t *shard = s_shard_of (self, name);
    tl_dtype_t dtype = TL_F32;
    if (!s_check (self, shard, name, rows, columns, &dtype, err))
        return -1;
    const tl_st_tensor_t *tensor = tl_safetensors_find (shard->file, name);
    *out = (tl_weight_t){tensor->data, dtype, {rows, columns}, tensor->name};
    return 0;
}

const void *
tl_model_bytes (const tl_model_t *self, const char *name, size_t *size)
{
    char own[128];
    const shard_t *shard = self->gguf ? NULL : s_shard_of (self, name);
    if (shard)
        return tl_safetensors_bytes (shard->file, name, size);
    const tl_gguf_tensor_t *tensor = self->gguf && tl_gguf_name (name, own, sizeof own)
                                         ? tl_gguf_find_tensor (self->gguf, own)
                                         : NULL;
    *size = tensor ? tensor->bytes : 0;
    return tensor ? tensor->data : NULL;
}

bool
tl_model_file (const tl_model_t *self, size_t index, char *path, size_t room)
{
    if (self->gguf && index == 0)
        return snprintf (path, room, "%s", tl_gguf_path (self->gguf)) < (int)room;
    return index < self->shard_count &&
           snprintf (path, room, "%s/%s", self->path, self->shards[index].name) < (int)room;
}

void
tl_model_hold (tl_model_t *self, tl_dtype_t dtype)
{
    tl_assert (dtype == TL_F32 || dtype == TL_BF16);
    self->holds = dtype;
}

tl_dtype_t
tl_model_holds (const tl_model_t *self)
{
    return self->holds;
}

//  count values of a weight in the type that the model holds.
static void *
s_convert (const tl_model_t *self, const tl_weight_t *weight, size_t count)
{
    void *values = tl_alloc_aligned (tl_dtype_bytes (self->holds, count));
    if (self->holds == TL_F32) {
        tl_widen (values, weight->data, weight->dtype, count);
        return values;
    }
    enum { PIECE = 4096 }; //  whole blocks of every type
    float piece[PIECE];
    for (size_t at = 0; at < count; at += PIECE) {
        size_t now = count - at < PIECE ? count - at : PIECE;
        tl_widen (piece, (const char *)weight->data + tl_dtype_bytes (weight->dtype, at),
                  weight->dtype, now);
        tl_narrow ((char *)values + tl_dtype_bytes (self->holds, at), piece, self->holds, now);
    }
    return values;
}

int
tl_model_frozen (tl_model_t *self, const char *name, size_t rows, size_t columns, tl_weight_t *out,
                 tl_error_t *err)
{
    if (tl_model_weight (self, name, rows, columns, out, err) != 0)
        return -1;
    if (self->holds == TL_DTYPES || out->dtype == self->holds || columns == 1)
        return 0;
    size_t at = 0;
    while (at < self->held_count && strcmp (self->held[at].name, out->name) != 0)
        at++;
    if (at == self->held_count) {
        if (!self->held)
            self->held = tl_alloc (tl_layout_count (&self->config) * sizeof *self->held);
        tl_assert (at < tl_layout_count (&self->config));
        void *values = s_convert (self, out, rows * columns);
        //  Always in the mapping, unlike safetensors' tensors that lie at odd places.
        if (self->gguf)
            tl_map_forget (out->data, tl_dtype_bytes (out->dtype, rows * columns));
        self->held[self->held_count++] = (s_held_t){out->name, values};
    }
    out->data = self->held[at].values;
    out->dtype = self->holds;
    return 0;
}

static bool
s_ends_with (const char *text, const char *end)
{
    size_t length = strlen (text), wanted = strlen (end);
    return length >= wanted && strcmp (text + length - wanted, end) == 0;
}

//  Tensors that checkpoints carry beside their weights and that nobody computes with.
static bool
s_is_buffer (const tl_config_t *config, const char *name)
{
    return s_ends_with (name, "inv_freq") ||
           (config->tied && strcmp (name, tl_layout_head (config)) == 0);
}

typedef struct {
    json_t *expected;  //  names that the config asks for
    const char *first; //  first name found that nobody knows
    size_t count;      //  how many of them
} stray_t;

//  A tensor among the model's own modules that the engine wouldn't use means that the checkpoint
//  computes something else. Others (a second head, a reward model's score) do no harm.
static int
s_meet (const tl_model_t *self, stray_t *stray, const char *name, const char *file, tl_error_t *err)
{
    if (json_object_get (stray->expected, name) || s_is_buffer (&self->config, name))
        return 0;
    const char *inside = tl_layout_root (&self->config);
    if (strncmp (name, inside, strlen (inside)) == 0 || strncmp (name, "lm_head.", 8) == 0)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s/%s: tensor %.200s has no place in a %s model of this config.json (%zu "
                        "blocks): the two don't belong together; fetch both from the same place",
                        self->path, file, name, tl_family_name (self->config.family),
                        self->config.blocks);
    if (stray->count++ == 0)
        stray->first = name;
    return 0;
}

static int
s_check_strays (const tl_model_t *self, stray_t *stray, tl_error_t *err)
{
    if (self->index) {
        const char *name;
        json_t *file;
        json_object_foreach (self->index, name,
                             file) if (s_meet (self, stray, name, json_string_value (file), err) !=
                                       0) return -1;
    } else {
        const shard_t *shard = &self->shards[0];
        for (size_t i = 0; i < tl_safetensors_count (shard->file); i++)
            if (s_meet (self, stray, tl_safetensors_name (shard->file, i), shard->name, err) != 0)
                return -1;
    }
    if (stray->count)
        tl_warn ("%s: left alone what is not part of the model: %zu tensors, the first %s",
                 self->path, stray->count, stray->first);
    return 0;
}

static int
s_check_slot (const tl_model_t *self, const tl_slot_t *slot, tl_dtype_t *dtype, tl_error_t *err)
{
    tl_weight_t weight;
    if (!self->gguf)
        return s_check (self, s_shard_of (self, slot->name), slot->name, slot->rows, slot->columns,
                        dtype, err)
                   ? 0
                   : -1;
    if (tl_gguf_weight (self->gguf, slot->name, slot->rows, slot->columns, &weight, err) != 0)
        return -1;
    *dtype = weight.dtype;
    return 0;
}

//  Every tensor of the layout is there as the config says; gives the manifest's list of them.
static int
s_check_tensors (const tl_model_t *self, json_t *tensors, tl_error_t *err)
{
    size_t count = tl_layout_count (&self->config);
    for (size_t i = 0; i < count; i++) {
        tl_slot_t slot;
        tl_dtype_t dtype = TL_F32;
        tl_layout_at (&self->config, i, &slot);
        if (s_check_slot (self, &slot, &dtype, err) != 0)
            return -1;
        json_t *shape = slot.vector
                            ? json_pack ("[I]", (json_int_t)slot.rows)
                            : json_pack ("[I, I]", (json_int_t)slot.rows, (json_int_t)slot.columns);
        json_object_set_new (
            tensors, slot.name,
            json_pack ("{s:s, s:o}", "dtype", tl_dtype_name (dtype), "shape", shape));
    }
    if (self->gguf)
        return tl_gguf_check_strays (self->gguf, &self->config, err);
    stray_t stray = {.expected = tensors};
    return s_check_strays (self, &stray, err);
}

//  What else decides the arithmetic of a GGUF file: the order of q's and k's rows, and rotary's factors.
static json_t *
s_gguf_manifest (const tl_model_t *self)
{
    json_t *factors = json_array ();
    for (size_t i = 0; self->rope_factors && i < self->config.turned / 2; i++)
        json_array_append_new (factors, json_real (self->rope_factors[i]));
    return json_pack ("{s:b, s:o}", "neighbours", self->config.rope_style == TL_ROPE_INTERLEAVED,
                      "rope_factors", factors);
}

static int
s_make_manifest (tl_model_t *self, tl_error_t *err)
{
    json_t *tensors = json_object ();
    if (s_check_tensors (self, tensors, err) != 0) {
        json_decref (tensors);
        return -1;
    }
    json_t *manifest =
        json_pack ("{s:o, s:o}", "config", tl_config_canonical (&self->config), "tensors", tensors);
    if (self->gguf)
        json_object_set_new (manifest, "gguf", s_gguf_manifest (self));
    self->manifest =
        json_dumps (manifest, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION (17));
    json_decref (manifest);
    tl_assert (self->manifest);
    unsigned char hash[crypto_generichash_BYTES];
    crypto_generichash (hash, sizeof hash, (const unsigned char *)self->manifest,
                        strlen (self->manifest), NULL, 0);
    sodium_bin2hex (self->hash, sizeof self->hash, hash, sizeof hash);
    return 0;
}

//  ---------------------------------------------------------------------------------------------

static bool
s_is_file (const char *path)
{
    struct stat status;
    return stat (path, &status) == 0 && !S_ISDIR (status.st_mode);
}

static int
s_open_gguf (tl_model_t *self, tl_error_t *err)
{
    self->gguf = tl_gguf_open (self->path, err);
    if (!self->gguf || tl_gguf_config (self->gguf, &self->config, err) != 0)
        return -1;
    return tl_gguf_rope_factors (self->gguf, &self->config, &self->rope_factors, err);
}

tl_model_t *
tl_model_open (const char *path, tl_error_t *err)
{
    tl_model_t *self = tl_alloc (sizeof *self);
    self->holds = TL_DTYPES;
    self->path = tl_strdup (path);
    int rc = s_is_file (path) ? s_open_gguf (self, err) : s_read_config (self, err);
    if (rc == 0 && !self->gguf)
        rc = s_open_files (self, err);
    if (rc != 0 || s_make_manifest (self, err) != 0)
        tl_model_destroy (&self);
    return self;
}

void
tl_model_destroy (tl_model_t **self_p)
{
    tl_model_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->shard_count; i++) {
        tl_safetensors_destroy (&self->shards[i].file);
        free (self->shards[i].name);
    }
    for (size_t i = 0; i < self->held_count; i++)
        free (self->held[i].values);
    free (self->held);
    free (self->shards);
    tl_gguf_destroy (&self->gguf);
    json_decref (self->index);
    free (self->manifest);
    free (self->path);
    free (self);
    *self_p = NULL;
}

const tl_config_t *
tl_model_config (const tl_model_t *self)
{
    return &self->config;
}

const char *
tl_model_path (const tl_model_t *self)
{
    return self->path;
}

const float *
tl_model_rope_factors (const tl_model_t *self)
{
    return self->rope_factors;
}

const tl_gguf_t *
tl_model_gguf (const tl_model_t *self)
{
    return self->gguf;
}

const char *
tl_model_manifest (const tl_model_t *self)
{
    return self->manifest;
}

const char *
tl_model_manifest_hash (const tl_model_t *self)
{
    return self->hash;
}
