//  kernels: picks the set of kernels for this CPU, and what needs no set.

#include "kernels/kernels.h"
#include "kernels/blocks.h"
#include "kernels/pool.h"
#include "kernels/sizes.h"
#include "assert.h"
#include "log.h"

#include <cpuid.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef void (s_widen_t) (float *out, const void *in, tl_dtype_t dtype, size_t count);
typedef void (s_narrow_t) (void *out, const float *in, tl_dtype_t dtype, size_t count);

extern const tl_kernels_t tl_table_base, tl_table_v3, tl_table_v4;
extern const tl_kernels_f64_t tl_table_f64;
extern s_widen_t tl_widen_base, tl_widen_v3, tl_widen_v4;
extern s_narrow_t tl_narrow_base, tl_narrow_v3, tl_narrow_v4;

//  One float set: what TL_ISA calls it and what it has.
typedef struct {
    const char *name;
    const tl_kernels_t *table;
    s_widen_t *widen;
    s_narrow_t *narrow;
} s_set_t;

//  From slowest to fastest.
static const s_set_t s_sets[] = {
    {"base", &tl_table_base, tl_widen_base, tl_narrow_base},
    {"v3", &tl_table_v3, tl_widen_v3, tl_narrow_v3},
    {"v4", &tl_table_v4, tl_widen_v4, tl_narrow_v4},
};
enum { S_BASE, S_V3, S_V4, S_SETS };

static _Atomic (const s_set_t *) s_chosen;

//  Everything -march=x86-64-v3 may emit; __builtin_cpu_supports knows whether the system saves AVX
//  registers, and has no names for the three bits asked by hand.
static bool
s_has_v3 (void)
{
    unsigned a, b, c = 0, d, extended = 0;
    if (!__get_cpuid (1, &a, &b, &c, &d) || !__get_cpuid (0x80000001, &a, &b, &extended, &d))
        return false;
    return __builtin_cpu_supports ("avx2") && __builtin_cpu_supports ("fma") &&
           __builtin_cpu_supports ("bmi") && __builtin_cpu_supports ("bmi2") && (c & bit_F16C) &&
           (c & bit_MOVBE) && (extended & bit_LZCNT);
}

static bool
s_has_v4 (void)
{
    return s_has_v3 () && __builtin_cpu_supports ("avx512f") &&
           __builtin_cpu_supports ("avx512bw") && __builtin_cpu_supports ("avx512cd") &&
           __builtin_cpu_supports ("avx512dq") && __builtin_cpu_supports ("avx512vl");
}

static const s_set_t *
s_choose (void)
{
    __builtin_cpu_init ();
    size_t best = s_has_v4 () ? S_V4 : s_has_v3 () ? S_V3 : S_BASE;
    const char *wanted = getenv ("TL_ISA");
    if (!wanted || !*wanted)
        return &s_sets[best];
    for (size_t set = 0; set < S_SETS; set++)
        if (strcmp (wanted, s_sets[set].name) == 0) {
            if (set <= best)
                return &s_sets[set];
            tl_warn ("TL_ISA=%s is more than this CPU has; using %s", wanted, s_sets[best].name);
            return &s_sets[best];
        }
    tl_warn ("TL_ISA=%s is unknown, expected base, v3 or v4; using %s", wanted, s_sets[best].name);
    return &s_sets[best];
}

//  Two threads may both choose at first: they choose the same.
static const s_set_t *
s_set (void)
{
    const s_set_t *set = atomic_load_explicit (&s_chosen, memory_order_acquire);
    if (!set) {
        set = s_choose ();
        atomic_store_explicit (&s_chosen, set, memory_order_release);
    }
    return set;
}

const tl_kernels_t *
tl_kernels (void)
{
    return s_set ()->table;
}

const char *
tl_kernels_name (void)
{
    return s_set ()->name;
}

const tl_kernels_f64_t *
tl_kernels_f64 (void)
{
    return &tl_table_f64;
}

const tl_kernels_t *
tl_kernels_of (const char *name)
{
    __builtin_cpu_init ();
    size_t best = s_has_v4 () ? S_V4 : s_has_v3 () ? S_V3 : S_BASE;
    for (size_t set = 0; set <= best; set++)
        if (strcmp (name, s_sets[set].name) == 0)
            return s_sets[set].table;
    return NULL;
}

void
tl_widen (float *out, const void *in, tl_dtype_t dtype, size_t count)
{
    s_set ()->widen (out, in, dtype, count);
}

void
tl_narrow (void *out, const float *in, tl_dtype_t dtype, size_t count)
{
    if (tl_dtype_block (dtype) > 1)
        tl_quantise (out, in, dtype, count);
    else
        s_set ()->narrow (out, in, dtype, count);
}

//  Values and bytes of one block of each type.
static const struct {
    const char *name;
    size_t values, bytes;
} s_dtypes[TL_DTYPES] = {
    [TL_F32] = {"fp32", 1, 4},      [TL_F16] = {"fp16", 1, 2},      [TL_BF16] = {"bf16", 1, 2},
    [TL_Q8_0] = {"q8_0", 32, 34},   [TL_Q4_0] = {"q4_0", 32, 18},   [TL_Q4_1] = {"q4_1", 32, 20},
    [TL_Q4_K] = {"q4_k", 256, 144}, [TL_Q5_K] = {"q5_k", 256, 176}, [TL_Q6_K] = {"q6_k", 256, 210},
};

size_t
tl_dtype_block (tl_dtype_t dtype)
{
    tl_assert (dtype < TL_DTYPES);
    return s_dtypes[dtype].values;
}

size_t
tl_dtype_bytes (tl_dtype_t dtype, size_t count)
{
    tl_assert (dtype < TL_DTYPES && count % s_dtypes[dtype].values == 0);
    return count / s_dtypes[dtype].values * s_dtypes[dtype].bytes;
}

const char *
tl_dtype_name (tl_dtype_t dtype)
{
    tl_assert (dtype < TL_DTYPES);
    return s_dtypes[dtype].name;
}

size_t
tl_attention_scratch (const tl_attention_t *shape, bool backward)
{
    if (!backward && shape->rows <= TL_FEW_ROWS)
        return shape->columns;
    size_t pad = TL_ATTENTION_PAD, rows = TL_ATTENTION_ROWS;
    size_t columns = (shape->columns + pad - 1) / pad * pad, d = (shape->d + pad - 1) / pad * pad;
    size_t packed = 2 * d * columns, half = rows * columns + rows * d;
    if (backward) {
        packed += d * columns;
        half += rows * columns + rows * (d + pad) + 2 * d * columns;
    }
    return tl_attention_heads_at_once (shape) * (packed + 2 * half);
}

void
tl_kernels_use (int threads)
{
    tl_pool_open (threads);
}

int
tl_kernels_threads (void)
{
    return tl_pool_threads ();
}
