/*  bench_kernels: time of each operation of one llama block (hidden 576, inner 1536, 9 heads, 3 key
    heads, 256 rows) forward and backward, and the share that isn't gemm. Prints to stdout, as it's a
    program for a person.                                                                          */

#include "kernels/kernels.h"
#include "memory.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 256, HIDDEN = 576, INNER = 1536, HEADS = 9, KV = 3, HEAD = 64, REPEATS = 30 };
enum { QKV = (HEADS + 2 * KV) * HEAD, BIG = INNER * HIDDEN, BUFFERS = 8 };

static float *s_buffers[BUFFERS];
static double s_total, s_own;

static void
s_report (const char *name, int64_t ns, bool own, double values)
{
    double us = (double)ns / 1000;
    s_total += us;
    s_own += own ? us : 0;
    printf ("%-34s %8.1f us  %6.2f ns a value\n", name, us, 1000 * us / values);
}

static int64_t
s_now_ns (void)
{
    struct timespec now;
    clock_gettime (CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

//  The best of REPEATS: other programs only ever make it slower.
#define TIME(name, own, values, call)                                                              \
    do {                                                                                           \
        int64_t best = INT64_MAX;                                                                  \
        for (int repeat = 0; repeat < REPEATS; repeat++) {                                         \
            int64_t started = s_now_ns ();                                                         \
            call;                                                                                  \
            int64_t took = s_now_ns () - started;                                                  \
            best = took < best ? took : best;                                                      \
        }                                                                                          \
        s_report (name, best, own, (double)(values));                                              \
    } while (0)

static void
s_linears (const tl_kernels_t *k, float **b, tl_dtype_t dtype)
{
    static const size_t shapes[][2] = {
        {HIDDEN, QKV}, {HIDDEN, HIDDEN}, {HIDDEN, 2 * INNER}, {INNER, HIDDEN}};
    for (size_t i = 0; i < 4; i++) {
        size_t in = shapes[i][0], out = shapes[i][1];
        char name[64];
        snprintf (name, sizeof name, "linear %zu -> %zu %s", in, out, tl_dtype_name (dtype));
        TIME (name, false, in * out,
              k->linear_forward (b[0], b[1], b[7], dtype, NULL, ROWS, in, out, 1, 0));
        snprintf (name, sizeof name, "  its dx");
        TIME (name, false, in * out,
              k->linear_backward_input (b[0], b[1], b[7], dtype, ROWS, in, out, 1, 0));
    }
}

static void
s_own_loops (const tl_kernels_t *k, float **b)
{
    size_t h = ROWS * HIDDEN, f = ROWS * INNER;
    TIME ("2 rmsnorm forward", true, 2 * h,
          (k->rmsnorm_forward (b[0], b[1], b[2], b[3], ROWS, HIDDEN, 1e-5),
           k->rmsnorm_forward (b[0], b[1], b[2], b[3], ROWS, HIDDEN, 1e-5)));
    TIME ("2 rmsnorm backward, frozen", true, 2 * h,
          (k->rmsnorm_backward (b[0], NULL, b[4], b[2], b[3], b[1], ROWS, HIDDEN),
           k->rmsnorm_backward (b[0], NULL, b[4], b[2], b[3], b[1], ROWS, HIDDEN)));
    TIME ("rope q and k", true, ROWS * (HEADS + KV) * HEAD,
          k->rope (b[0], b[1], b[2], ROWS, QKV, HEADS + KV, HEAD, 0, HEAD, TL_ROPE_HALF, 1));
    TIME ("rope interleaved", true, ROWS * (HEADS + KV) * HEAD,
          k->rope (b[0], b[1], b[2], ROWS, QKV, HEADS + KV, HEAD, 0, HEAD, TL_ROPE_INTERLEAVED, 1));
    TIME ("swiglu forward", true, f, k->swiglu_forward (b[0], b[1], b[2], ROWS, INNER, INNER));
    TIME ("swiglu backward", true, f,
          k->swiglu_backward (b[0], b[3], b[4], b[1], b[2], ROWS, INNER, INNER));
    TIME ("2 residual adds", true, 2 * h, (k->add (b[0], b[1], 1, h), k->add (b[0], b[1], 1, h)));
}

static void
s_beside (const tl_kernels_t *k, float **b)
{
    printf ("-- not part of that block\n");
    size_t f = ROWS * INNER, vocabulary = 49152;
    static int32_t targets[16];
    TIME ("layernorm forward", true, ROWS * HIDDEN,
          k->layernorm_forward (b[0], b[1], b[1], b[2], b[3], b[4], ROWS, HIDDEN, 1e-5));
    TIME ("layernorm backward", true, ROWS * HIDDEN,
          k->layernorm_backward (b[0], b[5], b[6], b[2], b[3], b[4], b[1], b[1], ROWS, HIDDEN));
    TIME ("gelu forward", true, f, k->gelu_forward (b[0], b[1], f));
    TIME ("gelu backward", true, f, k->gelu_backward (b[0], b[1], b[2], f));
    TIME ("cross entropy, 16 x 49152", true, 16 * vocabulary,
          k->cross_entropy (b[2], b[1], targets, 16, vocabulary, true));
    memset (b[3], 0, BIG * sizeof (float));
    TIME ("adamw", true, BIG,
          k->adamw (b[0], b[1], b[3], b[4], BIG, 1, 1e-4, 0.9, 0.999, 1e-8, 0.01, 5));
    TIME ("sum of squares", true, BIG, k->sum_of_squares (b[1], BIG));
    TIME ("all finite", true, BIG, k->all_finite (b[4], BIG));
    TIME ("widen bf16", true, BIG, tl_widen (b[0], b[7], TL_BF16, BIG));
    TIME ("widen fp16", true, BIG, tl_widen (b[0], b[7], TL_F16, BIG));
    TIME ("narrow bf16", true, BIG, tl_narrow (b[0], b[4], TL_BF16, BIG));
    TIME ("narrow fp16", true, BIG, tl_narrow (b[0], b[4], TL_F16, BIG));
    TIME ("linear 576 -> 1536, one row, bf16", true, BIG,
          k->linear_forward (b[0], b[1], b[7], TL_BF16, NULL, 1, HIDDEN, INNER, 1, 0));
    TIME ("linear 576 -> 1536, one row, fp32", true, BIG,
          k->linear_forward (b[0], b[1], b[4], TL_F32, NULL, 1, HIDDEN, INNER, 1, 0));
    static float keep[ROWS * HIDDEN];
    tl_stream_t stream = {.seed = 1, .purpose = TL_DRAW_DROPOUT};
    TIME ("dropout mask", true, ROWS * HIDDEN,
          tl_random_keep (&stream, 0, ROWS * HIDDEN, 0.1f, keep));
}

int
main (int argc, char **argv)
{
    tl_kernels_use (argc > 1 ? atoi (argv[1]) : 1);
    tl_stream_t stream = {.seed = 1, .purpose = TL_DRAW_INIT};
    for (size_t i = 0; i < BUFFERS; i++) {
        s_buffers[i] = tl_alloc_aligned (2 * BIG * sizeof (float));
        for (size_t j = 0; j < 2 * BIG; j++)
            s_buffers[i][j] = (float)(tl_random_uniform (&stream, i * 2 * BIG + j) - 0.5);
    }
    float **b = s_buffers;
    tl_narrow (b[7], b[6], TL_BF16, 2 * BIG);
    const tl_kernels_t *k = tl_kernels ();
    printf ("kernels %s\n", tl_kernels_name ());
    s_linears (k, b, TL_BF16);
    tl_attention_t shape = {ROWS, ROWS,   HEADS, KV,   HEAD, QKV, QKV,
                            QKV,  HIDDEN, HEAD,  HEAD, HEAD, 0,   1 / sqrt (HEAD)};
    float *scratch = tl_alloc_aligned (tl_attention_scratch (&shape, true) * sizeof (float));
    float *q = b[1], *keys = q + HEADS * HEAD, *v = keys + KV * HEAD, *grad = b[2];
    TIME ("attention forward", false, ROWS * ROWS / 2 * HEADS,
          k->attention_forward (b[0], b[3], q, keys, v, &shape, scratch));
    TIME ("attention backward", false, ROWS * ROWS / 2 * HEADS,
          k->attention_backward (grad, grad + HEADS * HEAD, grad + (HEADS + KV) * HEAD, b[4], q,
                                 keys, v, b[0], b[3], &shape, scratch));
    s_own_loops (k, b);
    printf ("own loops without attention's: %.0f of %.0f us, %.1f %%\n", s_own, s_total,
            100 * s_own / s_total);
    s_beside (k, b);
    for (size_t i = 0; i < BUFFERS; i++)
        free (b[i]);
    free (scratch);
    return 0;
}
