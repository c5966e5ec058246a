//  golden_case: see golden_case.h.

#include "golden_case.h"

#include "memory.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  Limits of the table of the golden vectors: relative to the tensor's largest value plus an absolute
//  part. measured names the case's own fp32 error in case.json, four times of which is granted.
typedef struct {
    const char *title;
    double relative, absolute;
    const char *measured;
    bool loss; //  3e-6 x max (1, loss) is granted as well
} limit_t;

static const limit_t s_limits[KINDS] = {
    [KIND_HIDDEN] = {"hidden rows", 5e-6, 0, "hidden", false},
    [KIND_LOGITS] = {"logits", 5e-6, 0, "logits", false},
    [KIND_LOSS] = {"loss", 0, 1e-5, NULL, true},
    [KIND_NLL] = {"nll_sum", 0, 5e-5, "loss", false},
    [KIND_EXACT] = {"counts, positions", 0, 0, NULL, false},
    [KIND_CHAIN] = {"whole = chained (bits)", 0, 0, NULL, false},
    [KIND_GRAD_HIDDEN] = {"grad_hidden", 1e-5, 1e-7, "grad_hidden", false},
    [KIND_FULL_GRAD] = {"full gradients", 1e-5, 1e-7, "full_grad", false},
    [KIND_FULL_LOSS] = {"full: loss", 0, 1e-5, NULL, true},
    [KIND_FULL_NORM] = {"full: grad_norm", 1e-5, 0, "full_traj.grad_norm", false},
    [KIND_FULL_LR] = {"full: lr", 1e-12, 0, NULL, false},
    [KIND_LORA_GRAD] = {"lora gradients", 1e-5, 1e-7, "lora_grad", false},
    [KIND_LORA_LOGITS] = {"lora: logits", 5e-6, 0, "lora_logits", false},
    [KIND_LORA_LOSS] = {"lora: loss", 0, 1e-5, NULL, true},
    [KIND_LORA_NORM] = {"lora: grad_norm", 1e-5, 0, "lora_traj.grad_norm", false},
    [KIND_LORA_LR] = {"lora: lr", 1e-12, 0, NULL, false},
    [KIND_LORA_FINAL] = {"lora: final A, B", 0, 2e-5, "lora_final", false},
    [KIND_PREFIX_GRAD] = {"prefix gradients", 1e-5, 1e-7, "ptuning_grad", false},
    [KIND_PREFIX_LOGITS] = {"prefix: logits", 5e-6, 0, "ptuning_logits", false},
    [KIND_PREFIX_LOSS] = {"prefix: loss", 0, 1e-5, NULL, true},
    [KIND_PREFIX_NORM] = {"prefix: grad_norm", 1e-5, 0, "ptuning_traj.grad_norm", false},
    [KIND_PREFIX_LR] = {"prefix: lr", 1e-12, 0, NULL, false},
    [KIND_PREFIX_FINAL] = {"final prefix", 0, 2e-4, "ptuning_final", false},
    [KIND_DEQUANT] = {"dequantised (bits)", 0, 0, NULL, false},
};

void
case_fail (golden_case_t *self, const char *format, ...)
{
    va_list list;
    va_start (list, format);
    printf ("  ! ");
    vprintf (format, list);
    printf ("\n");
    va_end (list);
    self->failures++;
}

double
case_number (const golden_case_t *self, const char *group, const char *key, double otherwise)
{
    json_t *value = json_object_get (json_object_get (self->json, group), key);
    return json_is_number (value) ? json_number_value (value) : otherwise;
}

//  ---------------------------------------------------------------------------------------------
//  Files

int
file_open (golden_file_t *self, golden_case_t *owner, const char *name)
{
    tl_error_t err;
    memset (self, 0, sizeof *self);
    snprintf (self->name, sizeof self->name, "%s", name);
    char *path = tl_format ("%s/%s", owner->path, name);
    self->file = tl_safetensors_open (path, &err);
    free (path);
    if (!self->file) {
        case_fail (owner, "%s", err.text);
        return -1;
    }
    self->seen = tl_alloc (tl_safetensors_count (self->file) + 1);
    return 0;
}

void
file_close (golden_file_t *self, golden_case_t *owner)
{
    if (!self->file)
        return;
    for (size_t i = 0; i < tl_safetensors_count (self->file); i++)
        if (!self->seen[i])
            case_fail (owner, "%s: nothing here knows what to compare %s with", self->name,
                       tl_safetensors_at (self->file, i)->name);
    free (self->seen);
    tl_safetensors_destroy (&self->file);
}

static double
s_value (const tl_st_tensor_t *tensor, size_t index)
{
    const char *data = tensor->data;
    float narrow;
    double wide;
    int32_t i32;
    int64_t i64;
    switch (tensor->dtype) {
    case TL_ST_F32:
        memcpy (&narrow, data + index * 4, 4);
        return narrow;
    case TL_ST_F16:
        tl_widen (&narrow, data + index * 2, TL_F16, 1);
        return narrow;
    case TL_ST_BF16:
        tl_widen (&narrow, data + index * 2, TL_BF16, 1);
        return narrow;
    case TL_ST_F64:
        memcpy (&wide, data + index * 8, 8);
        return wide;
    case TL_ST_I32:
        memcpy (&i32, data + index * 4, 4);
        return i32;
    case TL_ST_I64:
        memcpy (&i64, data + index * 8, 8);
        return (double)i64;
    case TL_ST_U8:
        return (unsigned char)data[index];
    }
    return NAN;
}

static size_t
s_count (const tl_st_tensor_t *tensor)
{
    size_t count = 1;
    for (size_t i = 0; i < tensor->dimensions; i++)
        count *= tensor->shape[i];
    return count;
}

bool
file_has (const golden_file_t *self, const char *name)
{
    return tl_safetensors_find (self->file, name) != NULL;
}

double *
file_values (golden_file_t *self, golden_case_t *owner, const char *name, size_t want,
             size_t *count)
{
    for (size_t i = 0; i < tl_safetensors_count (self->file); i++) {
        const tl_st_tensor_t *tensor = tl_safetensors_at (self->file, i);
        if (strcmp (tensor->name, name) != 0)
            continue;
        self->seen[i] = true;
        size_t found = s_count (tensor);
        if (want && want != found) {
            case_fail (owner, "%s: %s has %zu values, expected %zu", self->name, name, found, want);
            return NULL;
        }
        double *values = tl_alloc ((found + 1) * sizeof *values);
        for (size_t j = 0; j < found; j++)
            values[j] = s_value (tensor, j);
        if (count)
            *count = found;
        return values;
    }
    case_fail (owner, "%s: %s is missing", self->name, name);
    return NULL;
}

//  ---------------------------------------------------------------------------------------------
//  Comparing

static double
s_measured (const golden_case_t *self, const char *kind, const char *key)
{
    json_t *all = json_object_get (self->json, "float64_difference");
    json_t *value = kind ? json_object_get (json_object_get (all, kind), key) : NULL;
    return json_is_number (value) ? json_number_value (value) : 0;
}

static double
s_limit (const golden_case_t *self, kind_t kind, double largest)
{
    const limit_t *limit = &s_limits[kind];
    if (limit->relative > 0) {
        double own = 4 * s_measured (self, limit->measured, "max_rel_to_tensor_max");
        return fmax (limit->relative, own) * largest + limit->absolute;
    }
    if (limit->absolute == 0)
        return 0; //  exact
    double granted = fmax (limit->absolute, 4 * s_measured (self, limit->measured, "max_abs"));
    granted = fmax (granted, largest / (1 << 23)); //  no stored fp32 is closer than that
    return limit->loss ? fmax (granted, 3e-6 * fmax (1, largest)) : granted;
}

static void
s_note (golden_case_t *self, kind_t kind, const char *name, double difference, double limit)
{
    worst_t *worst = &self->worst[kind];
    bool within = difference <= limit; //  false for NaN
    double ratio = within ? (limit > 0 ? difference / limit : 0) : HUGE_VAL;
    if (!within)
        case_fail (self, "%s: %s differs by %.3g, limit %.3g", s_limits[kind].title, name,
                   difference, limit);
    if (worst->compared == 0 || ratio > worst->ratio) {
        worst->difference = difference;
        worst->limit = limit;
        worst->ratio = ratio;
        snprintf (worst->tensor, sizeof worst->tensor, "%s", name);
    }
    worst->compared++;
}

void
case_compare_doubles (golden_case_t *self, golden_file_t *file, const char *name, kind_t kind,
                      const double *values, size_t count)
{
    double *expected = file_values (file, self, name, count, NULL);
    if (!expected)
        return;
    double largest = 0, difference = 0;
    for (size_t i = 0; i < count; i++) {
        double d = fabs (values[i] - expected[i]);
        if (!(d <= difference))
            difference = d;
        if (isnan (d))
            break;
        largest = fmax (largest, fabs (expected[i]));
    }
    s_note (self, kind, name, difference, s_limit (self, kind, largest));
    free (expected);
}

void
case_compare (golden_case_t *self, golden_file_t *file, const char *name, kind_t kind,
              const float *values, size_t count)
{
    double *wide = tl_alloc ((count + 1) * sizeof *wide);
    for (size_t i = 0; i < count; i++)
        wide[i] = values[i];
    case_compare_doubles (self, file, name, kind, wide, count);
    free (wide);
}

void
case_compare_bits (golden_case_t *self, const char *name, const float *left, const float *right,
                   size_t count)
{
    double difference = 0;
    for (size_t i = 0; i < count; i++)
        if (memcmp (&left[i], &right[i], sizeof (float)) != 0)
            difference = fmax (difference, fmax (fabs ((double)left[i] - right[i]), 1e-45));
    s_note (self, KIND_CHAIN, name, difference, 0);
}

void
case_compare_exact (golden_case_t *self, golden_file_t *file, const char *name, kind_t kind,
                    const float *values, size_t count)
{
    double *expected = file_values (file, self, name, count, NULL);
    if (!expected)
        return;
    double difference = 0;
    for (size_t i = 0; i < count; i++) {
        float wanted = (float)expected[i];
        if (memcmp (&values[i], &wanted, sizeof wanted) != 0)
            difference = fmax (difference, fmax (fabs ((double)values[i] - wanted), 1e-45));
    }
    s_note (self, kind, name, difference, 0);
    free (expected);
}

//  A case of GGUF files has no gradients, the others have no blocks to widen; some have prefixes.
static bool
s_belongs (const golden_case_t *self, size_t kind)
{
    static const bool gguf[KINDS] = {
        [KIND_HIDDEN] = true, [KIND_LOGITS] = true, [KIND_LOSS] = true,
        [KIND_NLL] = true,    [KIND_EXACT] = true,  [KIND_CHAIN] = true};
    if (kind >= KIND_PREFIX_GRAD && kind <= KIND_PREFIX_FINAL)
        return self->prefix;
    return kind == KIND_DEQUANT ? self->gguf : !self->gguf || gguf[kind];
}

bool
case_report (const golden_case_t *self)
{
    for (size_t kind = 0; kind < KINDS; kind++) {
        const worst_t *worst = &self->worst[kind];
        if (!s_belongs (self, kind))
            continue;
        if (worst->compared == 0)
            printf ("  %-24s nothing compared\n", s_limits[kind].title);
        else
            printf ("  %-24s %4zu compared  largest difference %8.2e  limit %8.2e  (%s)%s\n",
                    s_limits[kind].title, worst->compared, worst->difference, worst->limit,
                    worst->tensor, worst->ratio <= 1 ? "" : "  TOO LARGE");
    }
    bool good = self->failures == 0;
    for (size_t kind = 0; kind < KINDS; kind++)
        good = good && (self->worst[kind].compared > 0 || !s_belongs (self, kind));
    printf ("%s: %s\n", self->path, good ? "passed" : "FAILED");
    return good;
}
