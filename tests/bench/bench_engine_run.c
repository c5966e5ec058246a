/*  bench_engine_run: one measurement of the engine in one process; bench_engine starts it beside its opponents.

        train MODEL BATCH LENGTH [MEMORY_MB [bf16]]   LoRA r = 8 on the family's usual linears, a label on every row but each last
        eval MODEL BATCH LENGTH                forward and loss
        generate MODEL PROMPT TOKENS           batch 1, against a plain read of as many bytes
        block fp32|fp16 ROWS                   a ChatGLM-6B-shaped block with LoRA, against its bare sgemm calls
        linears MODEL ROWS                     all linears, against bare sgemm calls on the same weights
        share MODEL BATCH LENGTH               of a training step that is neither a linear nor an attention product
        open MODEL                             until every tensor has been found
        part MODEL client|trunk FIRST LAST ROWS   one step of front FIRST + tail LAST blocks, or of blocks [FIRST, LAST)

    Before them: --threads N (2), --repeats N (5). Prints one JSON object: median, least and most seconds, and what
    else belongs to the case.                                                                        */

#include "bench/bench_engine_run.h"
#include "bench/bench_run.h"

#include "clock.h"
#include "fed/parts.h"
#include "fed/reading.h"
#include "file.h"
#include "hash.h"
#include "kernels/bf16.h"
#include "kernels/kernels.h"
#include "memory.h"
#include "model/segment.h"
#include "random.h"
#include "tiny_model.h"

#include <dlfcn.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void
run_fail (const char *text)
{
    fprintf (stderr, "bench_engine_run: %s\n", text);
    exit (TL_FAILED);
}

double
run_now (void)
{
    return (double)tl_clock_us () / 1e6;
}

size_t
run_count (const run_t *self, int index)
{
    return index < self->word_count ? strtoul (self->words[index], NULL, 10) : 0;
}

void
run_set (run_t *self, const char *key, double number)
{
    json_object_set_new (self->result, key, json_real (number));
}

//  Seconds of some repeats, whose median is the result's.
double
run_times (run_t *self, const char *key, double *seconds, size_t count)
{
    double median = bench_quantile (seconds, count, 0.5);
    json_object_set_new (self->result, key,
                         json_pack ("{s:f, s:f, s:f, s:I}", "median", median, "least", seconds[0],
                                    "most", seconds[count - 1], "n", (json_int_t)count));
    return median;
}

tl_model_t *
run_model (const run_t *self)
{
    tl_error_t err;
    tl_model_t *model = self->word_count ? tl_model_open (self->words[0], &err) : NULL;
    if (!model)
        run_fail (self->word_count ? err.text : "which model?");
    if (strcmp (self->words[self->word_count - 1], "bf16") == 0) {
        if (!tl_bf16_name ())
            run_fail ("this processor has no instructions for bf16");
        tl_model_hold (model, TL_BF16);
    }
    return model;
}

tl_tune_t
run_lora (void)
{
    return (tl_tune_t){.method = TL_TUNE_LORA,
                       .rank = 8,
                       .alpha = 16,
                       .seed = 1,
                       .beta1 = 0.9,
                       .beta2 = 0.999,
                       .eps = 1e-8,
                       .decay = 0.01};
}

//  --- micros -----------------------------------------------------------------------------------

void
micro_make (micro_t *self, const tl_config_t *config, size_t sequences, size_t length)
{
    size_t rows = sequences * length;
    tl_stream_t stream = {.seed = 1, .purpose = TL_DRAW_SAMPLE};
    *self = (micro_t){.length = tl_alloc (sequences * 4),
                      .context = tl_alloc (sequences * 4),
                      .mask = tl_alloc (sequences * 4),
                      .number = tl_alloc (sequences * 8),
                      .ids = tl_alloc (rows * 4),
                      .labels = tl_alloc (rows * 4)};
    for (size_t i = 0; i < sequences; i++) {
        self->length[i] = (uint32_t)length;
        self->number[i] = i;
        self->context[i] = (uint32_t)(length / 2);
        self->mask[i] = self->context[i] - 1;
    }
    for (size_t row = 0; row < rows; row++)
        self->ids[row] = (int32_t)tl_random_below (&stream, row, config->vocab);
    for (size_t row = 0; row < rows; row++)
        self->labels[row] = (row + 1) % length ? self->ids[row + 1] : -1;
    self->batch = (tl_batch_t){sequences,  rows,         self->length, self->context,
                               self->mask, self->number, self->ids,    self->labels};
}

void
micro_clear (micro_t *self)
{
    free (self->length);
    free (self->context);
    free (self->mask);
    free (self->number);
    free (self->ids);
    free (self->labels);
}

//  --- whole model ------------------------------------------------------------------------------

static void
s_update (tl_part_t *part, uint64_t labels)
{
    tl_error_t err;
    double *squares = tl_alloc ((tl_part_tensors (part) + 1) * sizeof *squares);
    tl_part_finish_gradient (part, squares);
    if (tl_part_update (part, 1 / (double)labels, 1e-4, &err) != 0)
        run_fail (err.text);
    free (squares);
}

//  The trained bits, so that two ways of computing them can be held against each other.
static void
s_set_hash (run_t *self, const tl_part_t *part)
{
    uint64_t sum = 0;
    char text[24];
    for (size_t i = 0; i < tl_part_tensors (part); i++) {
        const tl_tensor_t *tensor = tl_part_tensor (part, i);
        sum = tl_hash64_from (sum, tensor->value, tensor->shape[0] * tensor->shape[1] * 4);
    }
    snprintf (text, sizeof text, "%016llx", (unsigned long long)sum);
    json_object_set_new (self->result, "bits", json_string (text));
}

static void
s_set_memory (run_t *self, const tl_plan_t *plan)
{
    double total = (double)(tl_plan_total (plan) - plan->state); //  nothing is saved here
    double peak = (double)(tl_memory_peak () - self->before);
    run_set (self, "peak_mb", peak / 1e6);
    run_set (self, "plan_mb", total / 1e6);
    run_set (self, "activations_mb", (double)plan->activations / 1e6);
    run_set (self, "workspace_mb", (double)plan->workspace / 1e6);
    run_set (self, "memory_over_plan", peak / total);
}

static void
s_run_train (run_t *self)
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
    size_t batch = run_count (self, 1), length = run_count (self, 2), rows = batch * length;
    micro_make (&micro, config, batch, length);
    if (tl_parts_fit (&part, 1, rows, length, rows, 1, run_count (self, 3) << 20, &err) != 0)
        run_fail (err.text);
    tl_plan_t plan;
    tl_part_plan (part, rows, length, batch, rows, 1, &plan);
    tl_segment_t *segment = tl_part_segment (part, 0);
    double seconds[MOST_REPEATS], nll = 0;
    for (size_t step = 0; step <= self->repeats; step++) {
        uint64_t labels;
        double start = run_now ();
        tl_tape_t *tape = tl_segment_forward (segment, &micro.batch, step, NULL, true);
        tl_segment_loss (segment, tape, &nll, &labels);
        tl_segment_backward (segment, tape, NULL, NULL);
        tl_tape_destroy (&tape);
        s_update (part, labels);
        if (step > 0)
            seconds[step - 1] = run_now () - start;
        nll /= (double)labels;
    }
    run_set (self, "tokens_per_s",
             (double)rows / run_times (self, "seconds", seconds, self->repeats));
    run_set (self, "loss", nll);
    s_set_memory (self, &plan);
    s_set_hash (self, part);
    micro_clear (&micro);
    tl_part_destroy (&part);
    tl_model_destroy (&model);
}

static tl_chain_t *
s_chain (tl_model_t *model)
{
    tl_error_t err;
    tl_chain_t *chain = tl_chain_plain (model, NULL, &err);
    if (!chain)
        run_fail (err.text);
    return chain;
}

static void
s_run_eval (run_t *self)
{
    tl_model_t *model = run_model (self);
    tl_chain_t *chain = s_chain (model);
    micro_t micro;
    micro_make (&micro, tl_model_config (model), run_count (self, 1), run_count (self, 2));
    double seconds[MOST_REPEATS], nll = 0;
    double *each = tl_alloc (micro.batch.sequences * sizeof *each);
    uint64_t labels = 0;
    for (size_t i = 0; i <= self->repeats; i++) {
        double start = run_now ();
        tl_chain_score (chain, &micro.batch, each);
        if (i > 0)
            seconds[i - 1] = run_now () - start;
    }
    run_set (self, "tokens_per_s",
             (double)micro.batch.rows / run_times (self, "seconds", seconds, self->repeats));
    for (size_t i = 0; i < micro.batch.sequences; i++)
        nll += each[i];
    for (size_t row = 0; row < micro.batch.rows; row++)
        labels += micro.batch.labels[row] >= 0;
    run_set (self, "loss", nll / (double)labels);
    free (each);
    micro_clear (&micro);
    tl_chain_destroy (&chain);
    tl_model_destroy (&model);
}

//  --- generation -------------------------------------------------------------------------------

typedef struct {
    const uint64_t *words;
    size_t count;
    uint64_t sum;
} reader_t;

static void *
s_read (void *arg)
{
    reader_t *self = arg;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i + 8 <= self->count; i += 8)
        for (size_t k = 0; k < 8; k++)
            sum[k] += self->words[i + k];
    for (size_t k = 0; k < 8; k++)
        self->sum += sum[k];
    return NULL;
}

//  Bytes a second of a plain loop over so many bytes, by so many threads.
static double
s_bandwidth (const run_t *self, size_t bytes)
{
    size_t words = bytes / 8, each = words / (size_t)self->threads;
    uint64_t *buffer = tl_alloc_aligned (words * 8);
    for (size_t i = 0; i < words; i++)
        buffer[i] = i;
    double best[5];
    for (size_t repeat = 0; repeat < 5; repeat++) {
        pthread_t threads[64];
        reader_t readers[64];
        double start = run_now ();
        for (int i = 0; i < self->threads; i++) {
            readers[i] = (reader_t){buffer + (size_t)i * each, each, 0};
            pthread_create (&threads[i], NULL, s_read, &readers[i]);
        }
        for (int i = 0; i < self->threads; i++)
            pthread_join (threads[i], NULL);
        best[repeat] = (double)bytes / (run_now () - start);
    }
    free (buffer);
    return bench_quantile (best, 5, 0.5);
}

static void
s_run_generate (run_t *self)
{
    tl_model_t *model = run_model (self);
    const tl_config_t *config = tl_model_config (model);
    tl_chain_t *chain = s_chain (model);
    size_t prompt = run_count (self, 1), tokens = run_count (self, 2), all = prompt + tokens;
    micro_t micro;
    micro_make (&micro, config, 1, all);
    tl_reading_t *reading = tl_reading_new (chain, all);
    float *logits = tl_alloc_aligned (config->vocab * 4);
    double seconds[1 << 12], start = 0;
    tl_error_t err;
    for (size_t done = 0; done < tokens && done < sizeof seconds / sizeof *seconds; done++) {
        tl_prompt_t text = {.ids = micro.ids, .count = prompt + done};
        const tl_prompt_t *so_far = &text;
        start = run_now ();
        if (tl_read (&reading, &so_far, 1, logits, &err) != 0)
            run_fail (err.text);
        size_t best = 0;
        for (size_t i = 1; i < config->vocab; i++)
            best = logits[i] > logits[best] ? i : best;
        micro.ids[prompt + done] = (int32_t)best;
        seconds[done] = run_now () - start;
    }
    tl_plan_t plan;
    tl_part_plan (chain->parts[0], 1, 1, 1, 1, 1, &plan);
    double token = run_times (self, "seconds", seconds + 1, tokens - 1);
    double read = s_bandwidth (self, plan.weights);
    run_set (self, "tokens_per_s", 1 / token);
    run_set (self, "weights_mb", (double)plan.weights / 1e6);
    run_set (self, "read_gb_per_s", read / 1e9);
    run_set (self, "over_bandwidth", (double)plan.weights / token / read);
    tl_reading_destroy (&reading);
    free (logits);
    micro_clear (&micro);
    tl_chain_destroy (&chain);
    tl_model_destroy (&model);
}

float *
run_floats (size_t count)
{
    float *values = tl_alloc_aligned (count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((i * 2654435761u >> 16) & 1023) / 1024 - 0.5f;
    return values;
}

//  --- large models -----------------------------------------------------------------------------

static void
s_run_open (run_t *self)
{
    double start = run_now ();
    tl_model_t *model = run_model (self);
    run_set (self, "open_s", run_now () - start);
    tl_model_destroy (&model);
}

//  One step of a client's part (the trunk between is left out: its rows go straight through) or of a worker's.
static void
s_run_part (run_t *self)
{
    tl_error_t err;
    tl_model_t *model = run_model (self);
    const tl_config_t *config = tl_model_config (model);
    bool client = self->word_count > 1 && strcmp (self->words[1], "client") == 0;
    size_t first = run_count (self, 2), last = run_count (self, 3), rows = run_count (self, 4);
    tl_range_t ranges[2] = {{false, first, last, false}};
    if (client) {
        ranges[0] = (tl_range_t){true, 0, first, false};
        ranges[1] = (tl_range_t){false, config->blocks - last, config->blocks, true};
    }
    tl_tune_t tune = run_lora ();
    tl_part_t *part = tl_part_new (model, ranges, client ? 2 : 1, &tune, &err);
    if (!part)
        run_fail (err.text);
    micro_t micro;
    micro_make (&micro, config, 4, rows / 4);
    tl_plan_t plan;
    rows = micro.batch.rows;
    tl_part_plan (part, rows, rows / 4, 4, client ? rows : 0, 1, &plan);
    float *d = run_floats (rows * config->hidden),
          *x = client ? NULL : run_floats (rows * config->hidden);
    double seconds[MOST_REPEATS], nll;
    for (size_t i = 0; i <= self->repeats; i++) {
        uint64_t labels = 1;
        double start = run_now ();
        tl_segment_t *front = tl_part_segment (part, 0);
        tl_tape_t *tape = tl_segment_forward (front, &micro.batch, i, x, true);
        if (client) {
            tl_segment_t *tail = tl_part_segment (part, 1);
            tl_tape_t *end =
                tl_segment_forward (tail, &micro.batch, i, tl_tape_output (tape), true);
            tl_segment_loss (tail, end, &nll, &labels);
            tl_segment_backward (tail, end, NULL, d);
            tl_tape_destroy (&end);
        }
        tl_segment_backward (front, tape, d, client ? NULL : d);
        tl_tape_destroy (&tape);
        s_update (part, labels);
        seconds[i ? i - 1 : 0] = run_now () - start;
        for (size_t k = 0; k < rows * config->hidden; k++)
            d[k] = (float)(k & 255) / 256 - 0.5f;
    }
    run_times (self, "seconds", seconds, self->repeats);
    s_set_memory (self, &plan);
    free (d);
    free (x);
    micro_clear (&micro);
    tl_part_destroy (&part);
    tl_model_destroy (&model);
}

//  ----------------------------------------------------------------------------------------------

static const struct {
    const char *name;
    void (*run) (run_t *self);
} s_cases[] = {{"train", s_run_train}, {"eval", s_run_eval},     {"generate", s_run_generate},
               {"block", run_block},   {"linears", run_linears}, {"share", run_share},
               {"open", s_run_open},   {"part", s_run_part}};

int
main (int argc, char **argv)
{
    run_t self = {.threads = 2, .repeats = 5, .before = tl_memory_now ()};
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2)
        if (strcmp (argv[at], "--threads") == 0)
            self.threads = atoi (argv[at + 1]);
        else
            self.repeats = strtoul (argv[at + 1], NULL, 10);
    if (at >= argc || self.threads < 1 || self.threads > 64 || self.repeats < 1 ||
        self.repeats > MOST_REPEATS)
        run_fail ("which case? train, eval, generate, block, linears, open or part");
    tl_kernels_use (self.threads);
    self.words = argv + at + 1;
    self.word_count = argc - at - 1;
    self.result = json_pack ("{s:s}", "case", argv[at]);
    for (size_t i = 0; i < sizeof s_cases / sizeof *s_cases; i++)
        if (strcmp (s_cases[i].name, argv[at]) == 0) {
            s_cases[i].run (&self);
            json_dumpf (self.result, stdout, JSON_REAL_PRECISION (6));
            printf ("\n");
            json_decref (self.result);
            return 0;
        }
    run_fail ("no such case");
}
