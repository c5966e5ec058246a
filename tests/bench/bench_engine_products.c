//  bench_engine_products: what linears and attention take, against bare sgemm calls and against a whole step.

#include "bench/bench_engine_run.h"

#include "kernels/kernels.h"
#include "memory.h"
#include "model/segment.h"
#include "tiny_model.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

//  --- against bare sgemm -----------------------------------------------------------------------

typedef void (sgemm_t) (int order, int ta, int tb, int m, int n, int k, float alpha, const float *a,
                        int lda, const float *b, int ldb, float beta, float *c, int ldc);

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112 };

//  The library's own function, with as many threads. It takes a processor younger than itself for one of 2004 unless it is
//  told, and idle threads of it would wait by spinning.
static sgemm_t *
s_sgemm (void)
{
    char threads[16];
    snprintf (threads, sizeof threads, "%d", tl_kernels_threads ());
    setenv ("OPENBLAS_NUM_THREADS", threads, 1);
    setenv ("OPENBLAS_THREAD_TIMEOUT", "4", 1);
    setenv ("OPENBLAS_CORETYPE", __builtin_cpu_supports ("avx512f") ? "SkylakeX" : "Haswell", 0);
    void *library = dlopen ("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    sgemm_t *sgemm = NULL;
    if (library)
        *(void **)&sgemm = dlsym (library, "cblas_sgemm");
    if (!sgemm)
        run_fail ("OpenBLAS can't be loaded; install the package libopenblas0-pthread");
    return sgemm;
}

static void
s_bare (sgemm_t *sgemm, const float *w, size_t n, size_t in, size_t out, float *x, float *y)
{
    sgemm (ROW_MAJOR, PLAIN, TRANSPOSED, (int)n, (int)out, (int)in, 1, x, (int)in, w, (int)in, 0, y,
           (int)out);
}

static void
s_bare_back (sgemm_t *sgemm, const float *w, size_t n, size_t in, size_t out, float *x, float *y)
{
    sgemm (ROW_MAJOR, PLAIN, PLAIN, (int)n, (int)in, (int)out, 1, y, (int)out, w, (int)in, 0, x,
           (int)in);
}

static void
s_set_ratio (run_t *self, double *ratios, size_t count)
{
    run_times (self, "over_sgemm", ratios, count);
}

void
run_block (run_t *self)
{
    bool half = self->word_count && strcmp (self->words[0], "fp16") == 0;
    size_t n = run_count (self, 1), h = 4096, f = 16384;
    tiny_model_t spec = {.family = TL_FAMILY_CHATGLM,
                         .vocab = 64,
                         .hidden = h,
                         .inner = f,
                         .blocks = 1,
                         .heads = 32,
                         .kv_heads = 32,
                         .head_dim = 128,
                         .tied = true,
                         .dtype = half ? TL_F16 : TL_F32,
                         .seed = 1};
    tl_error_t err;
    tl_model_t *model = tiny_model_open (&spec);
    tl_range_t range = {false, 0, 1, false};
    tl_tune_t tune = run_lora ();
    tl_part_t *part = tl_part_new (model, &range, 1, &tune, &err);
    if (!part)
        run_fail (err.text);
    micro_t micro;
    micro_make (&micro, tl_model_config (model), 1, n);
    tl_segment_t *segment = tl_part_segment (part, 0);
    const size_t shapes[4][2] = {{h, 3 * h}, {h, h}, {h, f}, {f, h}};
    float *w = run_floats (h * f), *x = run_floats (n * f), *y = run_floats (n * f),
          *d = run_floats (n * h);
    sgemm_t *sgemm = s_sgemm ();
    double block[MOST_REPEATS], bare[MOST_REPEATS], ratio[MOST_REPEATS];
    for (size_t i = 0; i <= self->repeats; i++) {
        double start = run_now ();
        tl_tape_t *tape = tl_segment_forward (segment, &micro.batch, i, x, true);
        tl_segment_backward (segment, tape, d, d);
        tl_tape_destroy (&tape);
        tl_part_zero_gradient (part);
        double middle = run_now ();
        for (size_t k = 0; k < 4; k++)
            s_bare (sgemm, w, n, shapes[k][0], shapes[k][1], x, y);
        for (size_t k = 0; k < 4; k++)
            s_bare_back (sgemm, w, n, shapes[k][0], shapes[k][1], y, x);
        double end = run_now ();
        size_t at = i ? i - 1 : 0;
        block[at] = middle - start;
        bare[at] = end - middle;
        ratio[at] = bare[at] / block[at];
        for (size_t k = 0; k < n * h; k++) //  numbers of an ordinary size, whatever came out
            d[k] = x[k] = (float)(k & 255) / 256 - 0.5f;
        for (size_t k = n * h; k < n * f; k++)
            x[k] = 0.25f;
    }
    run_times (self, "seconds", block, self->repeats);
    run_times (self, "sgemm_seconds", bare, self->repeats);
    s_set_ratio (self, ratio, self->repeats);
    free (w);
    free (x);
    free (y);
    free (d);
    micro_clear (&micro);
    tl_part_destroy (&part);
    tl_model_destroy (&model);
}

void
run_linears (run_t *self)
{
    tl_error_t err;
    tl_model_t *model = run_model (self);
    const tl_config_t *config = tl_model_config (model);
    size_t n = run_count (self, 1),
           widest = config->inner > config->hidden ? config->inner : config->hidden;
    float *x = run_floats (n * widest), *y = run_floats (n * widest),
          *w = run_floats (widest * widest);
    double ours[MOST_REPEATS], bare[MOST_REPEATS], ratio[MOST_REPEATS];
    sgemm_t *sgemm = s_sgemm ();
    const tl_kernels_t *k = tl_kernels ();
    for (size_t i = 0; i <= self->repeats; i++) {
        double spent[2] = {0, 0};
        for (size_t s = 0; s < tl_layout_count (config); s++) {
            tl_slot_t slot;
            tl_weight_t weight;
            tl_layout_at (config, s, &slot);
            if (!slot.linear)
                continue;
            size_t in = slot.columns, out = slot.rows;
            if (tl_model_weight (model, slot.name, out, in, &weight, &err) != 0)
                run_fail (err.text);
            const float *plain = weight.dtype == TL_F32 ? weight.data : w;
            for (size_t turn = 0; turn < 2; turn++) {
                double start = run_now ();
                if ((turn + i) % 2 == 0) {
                    k->linear_forward (y, x, weight.data, weight.dtype, NULL, n, in, out, 1, 0);
                    k->linear_backward_input (x, y, weight.data, weight.dtype, n, in, out, 1e-3, 0);
                } else {
                    s_bare (sgemm, plain, n, in, out, x, y);
                    s_bare_back (sgemm, plain, n, in, out, x, y);
                }
                spent[(turn + i) % 2] += run_now () - start;
            }
            for (size_t at = 0; at < n * in; at++)
                x[at] = (float)(at & 255) / 256 - 0.5f;
        }
        size_t at = i ? i - 1 : 0;
        ours[at] = spent[0];
        bare[at] = spent[1];
        ratio[at] = spent[1] / spent[0];
    }
    run_times (self, "seconds", ours, self->repeats);
    run_times (self, "sgemm_seconds", bare, self->repeats);
    s_set_ratio (self, ratio, self->repeats);
    free (x);
    free (y);
    free (w);
    tl_model_destroy (&model);
}

//  --- share ------------------------------------------------------------------------------------

//  This program is linked so that tl_kernels () is the one below: a step's calls are timed where they are made.
static struct {
    const tl_kernels_t *real;
    double linears, attention; //  seconds since they were zeroed
} s_timed;

#define S_TIMED(seconds, call)                                                                     \
    do {                                                                                           \
        double start = run_now ();                                                                 \
        s_timed.real->call;                                                                        \
        s_timed.seconds += run_now () - start;                                                     \
    } while (0)

static void
s_linear_forward (float *y, const float *x, const void *w, tl_dtype_t dtype, const float *bias,
                  size_t n, size_t in, size_t out, double alpha, double beta_y)
{
    S_TIMED (linears, linear_forward (y, x, w, dtype, bias, n, in, out, alpha, beta_y));
}

static void
s_linear_backward_input (float *dx, const float *dy, const void *w, tl_dtype_t dtype, size_t n,
                         size_t in, size_t out, double alpha, double beta_x)
{
    S_TIMED (linears, linear_backward_input (dx, dy, w, dtype, n, in, out, alpha, beta_x));
}

static void
s_linear_backward_weight (float *dw, float *db, const float *dy, const float *x, size_t n,
                          size_t in, size_t out, double alpha)
{
    S_TIMED (linears, linear_backward_weight (dw, db, dy, x, n, in, out, alpha));
}

static void
s_attention_forward (float *o, float *lse, const float *q, const float *k, const float *v,
                     const tl_attention_t *shape, float *scratch)
{
    S_TIMED (attention, attention_forward (o, lse, q, k, v, shape, scratch));
}

static void
s_attention_backward (float *dq, float *dk, float *dv, const float *d_o, const float *q,
                      const float *k, const float *v, const float *o, const float *lse,
                      const tl_attention_t *shape, float *scratch)
{
    S_TIMED (attention, attention_backward (dq, dk, dv, d_o, q, k, v, o, lse, shape, scratch));
}

const tl_kernels_t *__real_tl_kernels (void);
const tl_kernels_t *__wrap_tl_kernels (void);

const tl_kernels_t *
__wrap_tl_kernels (void)
{
    static tl_kernels_t timed;
    if (!s_timed.real) {
        s_timed.real = __real_tl_kernels ();
        timed = *s_timed.real;
        timed.linear_forward = s_linear_forward;
        timed.linear_backward_input = s_linear_backward_input;
        timed.linear_backward_weight = s_linear_backward_weight;
        timed.attention_forward = s_attention_forward;
        timed.attention_backward = s_attention_backward;
    }
    return &timed;
}

//  Seconds of a step's softmax, which attention's calls contain: half of the scores are seen, and exponentials of them
//  are made once forward and once backward.
static double
s_softmax_seconds (const tl_config_t *config, size_t sequences, size_t length)
{
    size_t columns = length / 2 + 1, count = config->heads * length;
    int32_t *targets = tl_alloc (count * sizeof *targets);
    float *scores = run_floats (count * columns), *nll = run_floats (count);
    double start = run_now ();
    for (size_t i = 0; i < 2 * config->blocks * sequences; i++)
        tl_kernels ()->cross_entropy (scores, nll, targets, count, columns, true);
    double seconds = run_now () - start;
    free (targets);
    free (scores);
    free (nll);
    return seconds;
}

void
run_share (run_t *self)
{
    tl_error_t err;
    tl_model_t *model = run_model (self);
    const tl_config_t *config = tl_model_config (model);
    tl_range_t range = {true, 0, config->blocks, true};
    tl_tune_t tune = run_lora ();
    tl_part_t *part = tl_part_new (model, &range, 1, &tune, &err);
    if (!part)
        run_fail (err.text);
    micro_t micro;
    size_t sequences = run_count (self, 1), length = run_count (self, 2);
    micro_make (&micro, config, sequences, length);
    tl_segment_t *segment = tl_part_segment (part, 0);
    double step[MOST_REPEATS], linears[MOST_REPEATS], attention[MOST_REPEATS];
    double softmax[MOST_REPEATS], other[MOST_REPEATS];
    for (size_t i = 0; i <= self->repeats; i++) {
        uint64_t labels;
        double nll, start = run_now ();
        size_t at = i ? i - 1 : 0; //  the first one warms up
        s_timed.linears = s_timed.attention = 0;
        tl_tape_t *tape = tl_segment_forward (segment, &micro.batch, i, NULL, true);
        tl_segment_loss (segment, tape, &nll, &labels);
        tl_segment_backward (segment, tape, NULL, NULL);
        tl_tape_destroy (&tape);
        double *squares = tl_alloc ((tl_part_tensors (part) + 1) * sizeof *squares);
        tl_part_finish_gradient (part, squares);
        if (tl_part_update (part, 1 / (double)labels, 1e-4, &err) != 0)
            run_fail (err.text);
        free (squares);
        step[at] = run_now () - start;
        linears[at] = s_timed.linears;
        attention[at] = s_timed.attention;
        softmax[at] = s_softmax_seconds (config, sequences, length);
        other[at] = 1 - (linears[at] + attention[at] - softmax[at]) / step[at];
        tl_part_zero_gradient (part);
    }
    run_times (self, "seconds", step, self->repeats);
    run_times (self, "linear_seconds", linears, self->repeats);
    run_times (self, "attention_seconds", attention, self->repeats);
    run_times (self, "softmax_seconds", softmax, self->repeats);
    run_times (self, "other", other, self->repeats);
    micro_clear (&micro);
    tl_part_destroy (&part);
    tl_model_destroy (&model);
}
