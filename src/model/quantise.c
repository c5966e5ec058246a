//  quantise: goes through the layout, a few rows at a time.

#include "quantise.h"

#include "config.h"
#include "gguf_config.h"
#include "order.h"

#include "assert.h"
#include "memory.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PIECE = 1 << 20 }; //  values at a time, about

typedef struct {
    const tl_model_t *model;
    const tl_config_t *config;
    tl_gguf_writer_t *writer;
    tl_dtype_t type;
    tl_quantise_report_t *report;
    tl_error_t *err;
} s_job_t;

//  ---------------------------------------------------------------------------------------------
//  Metadata

//  llama.cpp's number of a file whose matrices are mostly of this type.
static double
s_file_type (tl_dtype_t type)
{
    static const int numbers[TL_DTYPES] = {
        [TL_F32] = 0, [TL_F16] = 1, [TL_Q4_0] = 2, [TL_Q4_1] = 3, [TL_Q8_0] = 7, [TL_BF16] = 32};
    return numbers[type];
}

static void
s_put_size (const s_job_t *self, const char *key, size_t value)
{
    char full[96];
    snprintf (full, sizeof full, "%s.%s", tl_gguf_architecture (self->config), key);
    tl_gguf_put_number (self->writer, full, TL_GGUF_U32, (double)value);
}

static void
s_put_real (const s_job_t *self, const char *key, double value)
{
    char full[96];
    snprintf (full, sizeof full, "%s.%s", tl_gguf_architecture (self->config), key);
    tl_gguf_put_number (self->writer, full, TL_GGUF_F32, value);
}

static void
s_put_id (const s_job_t *self, const char *key, int32_t id)
{
    if (id >= 0 && !tl_gguf_has_key (self->writer, key))
        tl_gguf_put_number (self->writer, key, TL_GGUF_U32, id);
}

static void
s_put_config (const s_job_t *self)
{
    const tl_config_t *config = self->config;
    const char *name = strrchr (tl_model_path (self->model), '/');
    tl_gguf_put_text (self->writer, "general.architecture", tl_gguf_architecture (config));
    tl_gguf_put_text (self->writer, "general.type", "model");
    tl_gguf_put_text (self->writer, "general.name",
                      name && name[1] ? name + 1 : tl_model_path (self->model));
    s_put_size (self, "vocab_size", config->vocab);
    s_put_size (self, "context_length", config->max_positions);
    s_put_size (self, "embedding_length", config->hidden);
    s_put_size (self, "block_count", config->blocks);
    s_put_size (self, "feed_forward_length", config->inner);
    s_put_size (self, "attention.head_count", config->heads);
    s_put_size (self, "attention.head_count_kv", config->kv_heads);
    s_put_size (self, "attention.key_length", config->head_dim);
    s_put_size (self, "attention.value_length", config->head_dim);
    s_put_size (self, "rope.dimension_count", config->turned);
    s_put_real (self, "rope.freq_base", config->rope_base);
    s_put_real (self, "attention.layer_norm_rms_epsilon", config->norm_eps);
    s_put_id (self, "tokenizer.ggml.bos_token_id", config->bos);
    s_put_id (self, "tokenizer.ggml.eos_token_id", config->eos);
    s_put_id (self, "tokenizer.ggml.padding_token_id", config->pad);
}

//  What a GGUF source says, but for what changes.
static void
s_put_source (const s_job_t *self, const tl_gguf_t *source)
{
    static const char *const ours[] = {"general.file_type", "general.quantization_version",
                                       "general.alignment"};
    for (size_t i = 0; i < tl_gguf_keys (source); i++) {
        const tl_gguf_value_t *value = tl_gguf_key (source, i);
        bool taken = tl_gguf_has_key (self->writer, value->key);
        for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
            taken = taken || strcmp (value->key, ours[k]) == 0;
        if (!taken)
            tl_gguf_put_value (self->writer, value);
    }
}

//  ---------------------------------------------------------------------------------------------
//  Tensors

typedef struct {
    tl_slot_t slot;
    tl_weight_t from;
    tl_dtype_t to;
} s_tensor_t;

static bool
s_is_4_bit (tl_dtype_t type)
{
    return type == TL_Q4_0 || type == TL_Q4_1;
}

static tl_dtype_t
s_target (const s_job_t *self, const tl_slot_t *slot)
{
    if (slot->vector)
        return TL_F32;
    tl_dtype_t type = self->type;
    if (s_is_4_bit (type) && (slot->role == TL_SLOT_EMBED || slot->role == TL_SLOT_HEAD))
        type = TL_Q8_0;
    if (slot->columns % tl_dtype_block (type) == 0)
        return type;
    self->report->short_rows++;
    return TL_F16;
}

static int
s_plan (const s_job_t *self, s_tensor_t *tensor, size_t index)
{
    char name[128];
    tl_slot_t *slot = &tensor->slot;
    tl_layout_at (self->config, index, slot);
    if (tl_model_weight (self->model, slot->name, slot->rows, slot->columns, &tensor->from,
                         self->err) != 0)
        return -1;
    tensor->to = s_target (self, slot);
    bool named = tl_gguf_name (slot->name, name, sizeof name);
    tl_assert (named);
    size_t shape[] = {slot->rows, slot->columns};
    tl_gguf_announce (self->writer, name, tensor->to, shape, slot->vector ? 1 : 2);
    self->report->tensors++;
    self->report->of[tensor->to]++;
    self->report->copied += tensor->to == tensor->from.dtype;
    self->report->requantised += tensor->to != tensor->from.dtype && tensor->to != TL_F32 &&
                                 tl_dtype_block (tensor->from.dtype) > 1;
    self->report->bytes += tl_dtype_bytes (tensor->to, slot->rows * slot->columns);
    return 0;
}

//  Where the first value is that is not finite; count if all are.
static size_t
s_infinite (const float *values, size_t count)
{
    size_t i = 0;
    while (i < count && isfinite (values[i]))
        i++;
    return i;
}

//  Rows in the source's order become rows of the target type; again [rows x columns] is scratch.
static int
s_convert (const s_job_t *self, const s_tensor_t *tensor, const void *from, size_t rows,
           float *values, float *again, void *stored)
{
    const size_t count = rows * tensor->slot.columns;
    tl_widen (values, from, tensor->from.dtype, count);
    size_t bad = s_infinite (values, count);
    if (bad < count)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: tensor %s holds a value that is not finite; take the model from "
                        "another place",
                        tl_model_path (self->model), tensor->slot.name);
    tl_narrow (stored, values, tensor->to, count);
    tl_widen (again, stored, tensor->to, count);
    bad = s_infinite (again, count);
    if (bad < count)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: tensor %s holds %g, which is beyond %s; choose --type bf16 or f32",
                        tl_model_path (self->model), tensor->slot.name, (double)values[bad],
                        tl_dtype_name (tensor->to));
    return 0;
}

//  Directories of a llama have their rows in another order than its GGUF files.
static bool
s_reorders (const s_job_t *self, const tl_slot_t *slot)
{
    return !tl_model_gguf (self->model) && self->config->family == TL_FAMILY_LLAMA &&
           (slot->role == TL_SLOT_Q || slot->role == TL_SLOT_K);
}

static int
s_write (const s_job_t *self, const s_tensor_t *tensor)
{
    const tl_slot_t *slot = &tensor->slot;
    const bool reorders = s_reorders (self, slot), copies = tensor->to == tensor->from.dtype;
    //  Rows of a head move among themselves.
    size_t step = reorders ? self->config->head_dim : PIECE / slot->columns + 1;
    step = step < slot->rows ? step : slot->rows;
    const size_t most = step * slot->columns;
    const size_t row = tl_dtype_bytes (tensor->from.dtype, slot->columns);
    float *values = tl_alloc_aligned (most * sizeof *values);
    float *again = tl_alloc_aligned (most * sizeof *again);
    char *ordered = tl_alloc_aligned (step * row);
    char *stored = tl_alloc_aligned (tl_dtype_bytes (tensor->to, most));
    int rc = 0;
    for (size_t first = 0; rc == 0 && first < slot->rows; first += step) {
        size_t rows = slot->rows - first < step ? slot->rows - first : step;
        const char *from = (const char *)tensor->from.data + first * row;
        if (reorders) {
            tl_reorder_heads (self->config->head_dim, TL_ORDER_TO_FILE, ordered, from, rows, row);
            from = ordered;
        }
        if (!copies)
            rc = s_convert (self, tensor, from, rows, values, again, stored);
        if (rc == 0)
            rc = tl_gguf_writer_add (self->writer, copies ? from : stored,
                                     tl_dtype_bytes (tensor->to, rows * slot->columns), self->err);
    }
    free (values);
    free (again);
    free (ordered);
    free (stored);
    return rc;
}

//  Rotary's factors: the source's own, or what llama3's four numbers come to. NULL: none.
static float *
s_factors (const s_job_t *self, size_t *count)
{
    const float *own = tl_model_rope_factors (self->model);
    const tl_config_t *config = self->config;
    *count = config->turned / 2;
    if (!own && !config->rope_llama3)
        return NULL;
    float *factors = tl_alloc (*count * sizeof *factors);
    for (size_t i = 0; i < *count; i++) {
        if (own) {
            factors[i] = own[i];
            continue;
        }
        double exponent = 2.0 * (double)i / (double)config->turned;
        double wavelength = 2 * acos (-1) * pow (config->rope_base, exponent);
        double turns = config->rope_original / wavelength;
        double smooth = (turns - config->rope_low) / (config->rope_high - config->rope_low);
        smooth = smooth < 0 ? 0 : smooth > 1 ? 1 : smooth;
        factors[i] = (float)(1 / ((1 - smooth) / config->rope_factor + smooth));
    }
    return factors;
}

//  A model that others may not read, such as one joined with a private adapter, doesn't become readable here.
static int
s_mode (const s_job_t *self)
{
    char path[PATH_MAX];
    struct stat status;
    bool open = tl_model_file (self->model, 0, path, sizeof path) && stat (path, &status) == 0 &&
                (status.st_mode & S_IROTH);
    return open ? 0644 : 0600;
}

static int
s_write_all (const s_job_t *self, const s_tensor_t *tensors, size_t count, const float *factors,
             size_t pairs, const char *out)
{
    if (tl_gguf_writer_begin (self->writer, out, s_mode (self), self->err) != 0 ||
        (factors &&
         tl_gguf_writer_add (self->writer, factors, pairs * sizeof *factors, self->err) != 0))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (s_write (self, &tensors[i]) != 0)
            return -1;
    return tl_gguf_writer_finish (self->writer, self->err);
}

int
tl_model_quantise (const tl_model_t *model, tl_gguf_writer_t *writer, const char *out,
                   tl_dtype_t type, tl_quantise_report_t *report, tl_error_t *err)
{
    const s_job_t self = {model, tl_model_config (model), writer, type, report, err};
    tl_assert (type == TL_F32 || type == TL_F16 || type == TL_BF16 || type == TL_Q8_0 ||
               s_is_4_bit (type));
    memset (report, 0, sizeof *report);
    if (!tl_gguf_architecture (self.config))
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s: GGUF has no architecture for a %s model; quantize llama, qwen2 and glm "
            "models",
            tl_model_path (model), tl_family_name (self.config->family));
    if (tl_model_gguf (model))
        s_put_source (&self, tl_model_gguf (model));
    else
        s_put_config (&self);
    tl_gguf_put_number (writer, "general.file_type", TL_GGUF_U32, s_file_type (type));
    tl_gguf_put_number (writer, "general.quantization_version", TL_GGUF_U32, 2);
    size_t pairs, count = tl_layout_count (self.config);
    float *factors = s_factors (&self, &pairs);
    if (factors)
        tl_gguf_announce (writer, "rope_freqs.weight", TL_F32, &pairs, 1);
    s_tensor_t *tensors = tl_alloc (count * sizeof *tensors);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = s_plan (&self, &tensors[i], i);
    if (rc == 0)
        rc = s_write_all (&self, tensors, count, factors, pairs, out);
    free (tensors);
    free (factors);
    return rc;
}
