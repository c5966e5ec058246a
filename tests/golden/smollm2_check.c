/*  smollm2_check DIRECTORY: SmolLM2-135M-Instruct out of its GGUF file (environment: TL_SMOLLM2) against what
    PyTorch computes from the same weights dequantised: hidden rows, NLL and best logits of 24 prompts, perplexity of
    4096 tokens, greedy continuations, five steps of LoRA, the adapter after them. Ids are given; no tokenizer.

    Prints the largest difference per kind against its limit (the golden README's table). Skips loudly, code 77,
    without the file or the directory.                                                             */

#include "fed/update.h"
#include "file.h"
#include "memory.h"
#include "model/model.h"
#include "model/safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    tl_model_t *model;
    const tl_config_t *config;
    tl_part_t *part; //  whole, nothing trained
    json_t *expected;
    const char *directory;
    size_t failures;
} s_check_t;

//  The worst of a kind.
typedef struct {
    const char *title;
    size_t compared;
    double difference, limit; //  of the worst by difference / limit
} s_worst_t;

static void
s_note (s_worst_t *self, double got, double expected, double limit)
{
    double difference = fabs (got - expected);
    if (!(difference <= limit))
        printf ("  ! %s: expected %.9g, got %.9g\n", self->title, expected, got);
    if (self->compared++ == 0 || !(difference / limit <= self->difference / self->limit)) {
        self->difference = difference;
        self->limit = limit;
    }
}

static void
s_report (s_check_t *self, const s_worst_t *worst)
{
    bool good = worst->compared > 0 && worst->difference <= worst->limit;
    printf ("  %-28s %5zu compared  largest difference %8.2e  limit %8.2e%s\n", worst->title,
            worst->compared, worst->difference, worst->limit, good ? "" : "  FAILED");
    self->failures += !good;
}

static double
s_number (const json_t *object, const char *key)
{
    const json_t *value = json_object_get (object, key);
    if (!json_is_number (value)) {
        fprintf (stderr, "expected.json: %s is missing\n", key);
        exit (TL_BAD_INPUT);
    }
    return json_number_value (value);
}

//  A JSON list of ids; exits when one isn't below the vocabulary.
static int32_t *
s_ids (const s_check_t *self, const json_t *list, size_t *count)
{
    *count = json_array_size (list);
    int32_t *ids = tl_alloc ((*count + 1) * sizeof *ids);
    for (size_t i = 0; i < *count; i++) {
        json_int_t id = json_integer_value (json_array_get (list, i));
        if (id < 0 || (size_t)id >= self->config->vocab) {
            fprintf (stderr, "expected.json: id %lld is no token\n", (long long)id);
            exit (TL_BAD_INPUT);
        }
        ids[i] = (int32_t)id;
    }
    return ids;
}

//  One sequence; row r predicts id r + 1 where r + 1 >= first. The arrays are the batch's own.
static tl_batch_t
s_batch (const int32_t *ids, size_t count, size_t first)
{
    uint32_t *length = tl_alloc (sizeof *length);
    int32_t *own = tl_alloc (count * sizeof *own), *labels = tl_alloc (count * sizeof *labels);
    *length = (uint32_t)count;
    memcpy (own, ids, count * sizeof *own);
    for (size_t row = 0; row < count; row++)
        labels[row] = row + 1 < count && row + 1 >= first ? ids[row + 1] : -1;
    return (tl_batch_t){.sequences = 1,
                        .rows = count,
                        .length = length,
                        .context = tl_alloc (sizeof (uint32_t)),
                        .number = tl_alloc (sizeof (uint64_t)),
                        .ids = own,
                        .labels = labels};
}

static void
s_batch_clear (tl_batch_t *self)
{
    free ((void *)self->length);
    free ((void *)self->context);
    free ((void *)self->number);
    free ((void *)self->ids);
    free ((void *)self->labels);
}

static double
s_nll (s_check_t *self, const int32_t *ids, size_t count)
{
    tl_batch_t batch = s_batch (ids, count, 1);
    tl_segment_t *segment = tl_part_segment (self->part, 0);
    tl_tape_t *tape = tl_segment_forward (segment, &batch, 0, NULL, false);
    double nll;
    uint64_t labels;
    tl_segment_loss (segment, tape, &nll, &labels);
    tl_tape_destroy (&tape);
    s_batch_clear (&batch);
    return nll;
}

//  ---------------------------------------------------------------------------------------------

//  Summed NLL, and the five best logits after the last id.
static void
s_check_prompts (s_check_t *self)
{
    s_worst_t nll = {"prompts: summed NLL", 0, 0, 1}, logit = {"prompts: best logits", 0, 0, 1};
    s_worst_t order = {"prompts: best ids", 0, 0, 0.5};
    const json_t *prompt;
    size_t index;
    json_array_foreach (json_object_get (self->expected, "prompts"), index, prompt)
    {
        size_t count;
        int32_t *ids = s_ids (self, json_object_get (prompt, "ids"), &count);
        double sum = s_number (prompt, "nll_sum");
        s_note (&nll, s_nll (self, ids, count), sum, fmax (5e-5, 3e-6 * sum));
        tl_batch_t batch = s_batch (ids, count, 1);
        tl_segment_t *segment = tl_part_segment (self->part, 0);
        tl_tape_t *tape = tl_segment_forward (segment, &batch, 0, NULL, false);
        float *logits = tl_alloc (self->config->vocab * sizeof *logits);
        uint32_t last = (uint32_t)count - 1;
        tl_segment_logits (segment, tape, &last, 1, logits);
        double most = 0;
        for (size_t i = 0; i < self->config->vocab; i++)
            most = fmax (most, fabs ((double)logits[i]));
        for (size_t k = 0; k < 5; k++) {
            size_t best = 0;
            for (size_t i = 1; i < self->config->vocab; i++)
                if (logits[i] > logits[best])
                    best = i;
            s_note (&order, (double)best,
                    (double)json_integer_value (
                        json_array_get (json_object_get (prompt, "top5_ids"), k)),
                    0.5);
            s_note (&logit, logits[best],
                    json_number_value (json_array_get (json_object_get (prompt, "top5_logits"), k)),
                    5e-6 * most);
            logits[best] = -INFINITY;
        }
        free (logits);
        free (ids);
        tl_tape_destroy (&tape);
        s_batch_clear (&batch);
    }
    s_report (self, &nll);
    s_report (self, &order);
    s_report (self, &logit);
}

static void
s_compare (s_check_t *self, s_worst_t *worst, tl_safetensors_t *file, const char *name,
           const float *values, size_t count)
{
    const tl_st_tensor_t *tensor = tl_safetensors_find (file, name);
    if (!tensor || tensor->dtype != TL_ST_F32 || tensor->bytes != count * sizeof (float)) {
        printf ("  ! %s: no tensor of %zu fp32 values\n", name, count);
        self->failures++;
        return;
    }
    const float *expected = tensor->data;
    double most = 0, difference = 0;
    for (size_t i = 0; i < count; i++) {
        most = fmax (most, fabs ((double)expected[i]));
        double d = fabs ((double)values[i] - expected[i]);
        difference = d <= difference ? difference : d;
    }
    s_note (worst, difference, 0, 5e-6 * most);
}

//  Rows of prompt 12 on their way through the model.
static void
s_check_hidden (s_check_t *self)
{
    tl_error_t err;
    s_worst_t worst = {"hidden rows, all logits", 0, 0, 1};
    char *path = tl_format ("%s/hidden.safetensors", self->directory);
    tl_safetensors_t *file = tl_safetensors_open (path, &err);
    free (path);
    if (!file) {
        printf ("  ! %s\n", err.text);
        self->failures++;
        return;
    }
    size_t count, h = self->config->hidden;
    const json_t *prompt = json_array_get (json_object_get (self->expected, "prompts"), 12);
    int32_t *ids = s_ids (self, json_object_get (prompt, "ids"), &count);
    tl_batch_t batch = s_batch (ids, count, 1);
    tl_segment_t *segment = tl_part_segment (self->part, 0);
    tl_tape_t *tape = tl_segment_forward (segment, &batch, 0, NULL, true);
    static const size_t blocks[] = {0, 1, 14, 28};
    s_compare (self, &worst, file, "embed", tl_tape_block (tape, (size_t)-1), count * h);
    for (size_t i = 0; i < 4; i++) {
        char name[32];
        snprintf (name, sizeof name, "block.%zu", blocks[i]);
        s_compare (self, &worst, file, name, tl_tape_block (tape, blocks[i]), count * h);
    }
    uint32_t *rows = tl_alloc (count * sizeof *rows);
    for (size_t i = 0; i < count; i++)
        rows[i] = (uint32_t)i;
    float *normed = tl_alloc (count * h * sizeof *normed);
    float *logits = tl_alloc (self->config->vocab * sizeof *logits);
    tl_segment_final (segment, tape, rows, count, normed);
    s_compare (self, &worst, file, "norm", normed, count * h);
    tl_segment_logits (segment, tape, &rows[count - 1], 1, logits);
    s_compare (self, &worst, file, "logits.last", logits, self->config->vocab);
    free (rows);
    free (normed);
    free (logits);
    free (ids);
    tl_tape_destroy (&tape);
    s_batch_clear (&batch);
    tl_safetensors_destroy (&file);
    s_report (self, &worst);
}

static void
s_check_perplexity (s_check_t *self)
{
    s_worst_t windows = {"perplexity: NLL of windows", 0, 0, 1}, all = {"perplexity", 0, 0, 1};
    const json_t *given = json_object_get (self->expected, "perplexity");
    size_t count, window = (size_t)s_number (given, "window");
    int32_t *ids = s_ids (self, json_object_get (given, "ids"), &count);
    double sum = 0;
    for (size_t i = 0; (i + 1) * window <= count; i++) {
        double nll = s_nll (self, ids + i * window, window);
        double expected =
            json_number_value (json_array_get (json_object_get (given, "window_nll_sums"), i));
        s_note (&windows, nll, expected, fmax (5e-5, 3e-6 * expected));
        sum += nll;
    }
    double perplexity = exp (sum / s_number (given, "scored_tokens"));
    s_note (&all, perplexity, s_number (given, "perplexity"), 1e-4);
    printf ("  perplexity %.6f, expected %.6f\n", perplexity, s_number (given, "perplexity"));
    free (ids);
    s_report (self, &windows);
    s_report (self, &all);
}

//  Forty tokens, one after another, through the cache. The smallest gap between best and second logit is 0.006.
static void
s_check_greedy (s_check_t *self)
{
    s_worst_t worst = {"greedy ids", 0, 0, 0.5};
    const json_t *given;
    size_t index;
    json_array_foreach (json_object_get (self->expected, "greedy"), index, given)
    {
        size_t number = (size_t)s_number (given, "prompt"), count, wanted;
        const json_t *prompt = json_array_get (json_object_get (self->expected, "prompts"), number);
        int32_t *ids = s_ids (self, json_object_get (prompt, "ids"), &count);
        int32_t *answer = s_ids (self, json_object_get (given, "ids"), &wanted);
        tl_segment_t *segment = tl_part_segment (self->part, 0);
        tl_cache_t *cache = tl_cache_new (segment, count + wanted);
        float *output = tl_alloc (count * self->config->hidden * sizeof *output);
        float *logits = tl_alloc (self->config->vocab * sizeof *logits);
        size_t read = 0, fresh = count;
        const int32_t *next = ids;
        int32_t best = 0;
        for (size_t i = 0; i < wanted; i++) {
            uint32_t length = (uint32_t)(read + fresh), zero = 0;
            tl_batch_t batch = {.sequences = 1,
                                .rows = fresh,
                                .length = &length,
                                .context = &zero,
                                .mask = &zero,
                                .ids = next};
            tl_error_t err;
            if (tl_segment_extend (segment, &cache, &batch, fresh, NULL, output, &err) != 0) {
                printf ("  ! %s\n", err.text);
                self->failures++;
                break;
            }
            tl_segment_head (segment, output + (fresh - 1) * self->config->hidden, 1, logits);
            best = 0;
            for (size_t k = 1; k < self->config->vocab; k++)
                if (logits[k] > logits[best])
                    best = (int32_t)k;
            s_note (&worst, best, answer[i], 0.5);
            read += fresh;
            fresh = 1;
            next = &best;
        }
        free (output);
        free (logits);
        free (ids);
        free (answer);
        tl_cache_destroy (&cache);
    }
    s_report (self, &worst);
}

//  ---------------------------------------------------------------------------------------------
//  LoRA

//  The four ragged sequences as one micro.
static tl_batch_t
s_lora_batch (const s_check_t *self, const json_t *lora, uint64_t *label_count)
{
    const json_t *given, *list = json_object_get (lora, "sequences");
    size_t index, count = json_array_size (list), rows = 0;
    int32_t *ids = NULL, *labels = NULL;
    uint32_t *length = tl_alloc (count * sizeof *length);
    uint64_t *number = tl_alloc (count * sizeof *number);
    *label_count = 0;
    json_array_foreach (list, index, given)
    {
        size_t size, first = (size_t)s_number (given, "first_label");
        int32_t *own = s_ids (self, json_object_get (given, "ids"), &size);
        tl_batch_t one = s_batch (own, size, first);
        ids = realloc (ids, (rows + size) * sizeof *ids);
        labels = realloc (labels, (rows + size) * sizeof *labels);
        memcpy (ids + rows, one.ids, size * sizeof *ids);
        memcpy (labels + rows, one.labels, size * sizeof *labels);
        for (size_t i = 0; i < size; i++)
            *label_count += one.labels[i] >= 0;
        length[index] = (uint32_t)size;
        number[index] = index;
        rows += size;
        s_batch_clear (&one);
        free (own);
    }
    return (tl_batch_t){.sequences = count,
                        .rows = rows,
                        .length = length,
                        .context = tl_alloc (count * sizeof (uint32_t)),
                        .number = number,
                        .ids = ids,
                        .labels = labels};
}

static double
s_step (tl_part_t *part, const tl_batch_t *batch, bool train, double *norm)
{
    tl_segment_t *segment = tl_part_segment (part, 0);
    tl_tape_t *tape = tl_segment_forward (segment, batch, 0, NULL, train);
    double nll;
    uint64_t labels;
    tl_segment_loss (segment, tape, &nll, &labels);
    if (train) {
        tl_segment_backward (segment, tape, NULL, NULL);
        size_t count = tl_part_tensors (part);
        double *squares = tl_alloc (count * sizeof *squares);
        tl_norm_term_t *terms = tl_alloc (count * sizeof *terms);
        tl_part_finish_gradient (part, squares);
        for (size_t i = 0; i < count; i++)
            terms[i] = (tl_norm_term_t){tl_part_tensor (part, i)->order, squares[i]};
        *norm = tl_gradient_norm (terms, count, labels);
        free (squares);
        free (terms);
    }
    tl_tape_destroy (&tape);
    return nll / (double)labels;
}

//  Losses and norms of one trajectory from lora-init on. Leaves the part as it is after it.
static tl_part_t *
s_train (s_check_t *self, const json_t *lora, const json_t *steps, double after, double lr,
         double clip, s_worst_t *loss, s_worst_t *norms)
{
    tl_error_t err;
    tl_range_t whole = {.embed = true, .last = self->config->blocks, .head = true};
    tl_tune_t tune = {.method = TL_TUNE_LORA,
                      .rank = (size_t)s_number (lora, "rank"),
                      .alpha = s_number (lora, "alpha"),
                      .targets = {"q_proj", "v_proj"},
                      .target_count = 2,
                      .beta1 = 0.9,
                      .beta2 = 0.999,
                      .eps = 1e-8};
    char *init = tl_format ("%s/lora-init", self->directory);
    tl_part_t *part = tl_part_new (self->model, &whole, 1, &tune, &err);
    if (!part || tl_part_load_adapter (part, init, &err) != 0) {
        printf ("  ! %s\n", err.text);
        exit (TL_FAILED);
    }
    free (init);
    uint64_t labels;
    tl_batch_t batch = s_lora_batch (self, lora, &labels);
    const json_t *step;
    size_t index;
    json_array_foreach (steps, index, step)
    {
        double norm = 0, got = s_step (part, &batch, true, &norm);
        double expected = s_number (step, "loss"), wanted = s_number (step, "grad_norm");
        s_note (loss, got, expected, fmax (1e-5, 3e-6 * expected));
        s_note (norms, norm, wanted, 1e-5 * wanted);
        if (tl_part_update (part, tl_coefficient (norm, clip, labels), lr, &err) != 0) {
            printf ("  ! %s\n", err.text);
            exit (TL_FAILED);
        }
    }
    s_note (loss, s_step (part, &batch, false, NULL), after, fmax (1e-5, 3e-6 * after));
    s_batch_clear (&batch);
    return part;
}

static double
s_square (const tl_safetensors_t *left, const tl_safetensors_t *right, const char *name)
{
    const tl_st_tensor_t *one = tl_safetensors_find (left, name);
    const tl_st_tensor_t *two = tl_safetensors_find (right, name);
    if (!one || !two || one->dtype != TL_ST_F32 || two->dtype != TL_ST_F32 ||
        one->bytes != two->bytes)
        return NAN;
    double sum = 0;
    for (size_t i = 0; i < one->bytes / sizeof (float); i++) {
        double d = (double)((const float *)one->data)[i] - ((const float *)two->data)[i];
        sum += d * d;
    }
    return sum;
}

static tl_safetensors_t *
s_open_adapter (s_check_t *self, const char *directory)
{
    tl_error_t err;
    char *path = tl_format ("%s/adapter_model.safetensors", directory);
    tl_safetensors_t *file = tl_safetensors_open (path, &err);
    free (path);
    if (!file) {
        printf ("  ! %s\n", err.text);
        self->failures++;
    }
    return file;
}

//  The saved adapter, under Hugging Face's names and in its order of rows, against PyTorch's: how far apart they are
//  by how far training went. Entry by entry that can't be: Adam moves an entry whose gradient is only
//  rounding noise by a whole learning rate. PyTorch's own fp32 run is 0.40 % from its fp64 run.
static void
s_check_adapter (s_check_t *self, tl_part_t *part)
{
    tl_error_t err;
    s_worst_t worst = {"lora: A, B after 5 steps", 0, 0, 1};
    char where[] = "/tmp/smollm2-check-XXXXXX";
    if (!mkdtemp (where)) {
        perror (where);
        exit (TL_FAILED);
    }
    char *saved = tl_format ("%s/adapter", where);
    char *init = tl_format ("%s/lora-init", self->directory);
    char *after = tl_format ("%s/lora-after-5", self->directory);
    if (tl_part_save_adapter (part, saved, &err) != 0) {
        printf ("  ! %s\n", err.text);
        self->failures++;
    }
    tl_safetensors_t *ours = s_open_adapter (self, saved), *first = s_open_adapter (self, init);
    tl_safetensors_t *theirs = s_open_adapter (self, after);
    double apart = 0, moved = 0;
    for (size_t i = 0; ours && first && theirs && i < tl_safetensors_count (theirs); i++) {
        const char *name = tl_safetensors_name (theirs, i);
        apart += s_square (ours, theirs, name);
        moved += s_square (first, theirs, name);
    }
    s_note (&worst, sqrt (apart / moved), 0, 0.01);
    tl_safetensors_destroy (&ours);
    tl_safetensors_destroy (&first);
    tl_safetensors_destroy (&theirs);
    tl_remove_tree (where);
    free (saved);
    free (init);
    free (after);
    s_report (self, &worst);
}

//  PyTorch's tuned adapter on our base.
static void
s_check_tuned (s_check_t *self, tl_part_t *part, const json_t *lora)
{
    tl_error_t err;
    s_worst_t worst = {"lora-after-5: loss", 0, 0, 1};
    char *after = tl_format ("%s/lora-after-5", self->directory);
    uint64_t labels;
    tl_batch_t batch = s_lora_batch (self, lora, &labels);
    double expected = s_number (lora, "loss_after");
    if (tl_part_load_adapter (part, after, &err) == 0)
        s_note (&worst, s_step (part, &batch, false, NULL), expected, fmax (1e-5, 3e-6 * expected));
    else
        printf ("  ! %s\n", err.text);
    free (after);
    s_batch_clear (&batch);
    s_report (self, &worst);
}

static void
s_check_lora (s_check_t *self)
{
    s_worst_t loss = {"lora: loss", 0, 0, 1}, norm = {"lora: gradient norm", 0, 0, 1};
    s_worst_t loss2 = {"lora, clipped: loss", 0, 0, 1};
    s_worst_t norm2 = {"lora, clipped: gradient norm", 0, 0, 1};
    const json_t *lora = json_object_get (self->expected, "lora");
    tl_part_t *part =
        s_train (self, lora, json_object_get (lora, "steps_float64"),
                 s_number (lora, "loss_after_float64"), s_number (lora, "lr"), 1.0, &loss, &norm);
    s_report (self, &loss);
    s_report (self, &norm);
    s_check_adapter (self, part);
    s_check_tuned (self, part, lora);
    tl_part_destroy (&part);
    const json_t *clipped = json_object_get (lora, "clipped_float64");
    part =
        s_train (self, lora, json_object_get (clipped, "steps"), s_number (clipped, "loss_after"),
                 s_number (clipped, "lr"), s_number (clipped, "clip"), &loss2, &norm2);
    s_report (self, &loss2);
    s_report (self, &norm2);
    tl_part_destroy (&part);
}

int
main (int argc, char **argv)
{
    const char *file = getenv ("TL_SMOLLM2");
    tl_error_t err;
    json_error_t reason;
    if (argc < 2 || !file || !*file || !tl_exists (argv[1])) {
        printf (
            "skipped: needs the environment variable TL_SMOLLM2 (the path of "
            "SmolLM2-135M-Instruct.Q4_1.gguf) and the directory of its reference numbers (%s)\n",
            argc < 2 ? "the argument" : argv[1]);
        return 77;
    }
    s_check_t self = {.directory = argv[1]};
    char *path = tl_format ("%s/expected.json", argv[1]);
    self.expected = json_load_file (path, 0, &reason);
    tl_range_t whole = {.embed = true, .head = true};
    tl_tune_t frozen = {.method = TL_TUNE_LORA, .rank = 1, .alpha = 1, .frozen = true};
    if (!self.expected)
        fprintf (stderr, "%s:%d: %s\n", path, reason.line, reason.text);
    free (path);
    tl_kernels_use (2);
    bool ready = self.expected && (self.model = tl_model_open (file, &err));
    if (ready) {
        self.config = tl_model_config (self.model);
        whole.last = self.config->blocks;
        self.part = tl_part_new (self.model, &whole, 1, &frozen, &err);
    }
    if (!self.part) {
        fprintf (stderr, "%s\n", self.expected ? err.text : "no expectations");
        return TL_FAILED;
    }
    s_check_hidden (&self);
    s_check_prompts (&self);
    s_check_perplexity (&self);
    s_check_greedy (&self);
    s_check_lora (&self);
    tl_part_destroy (&self.part);
    tl_model_destroy (&self.model);
    json_decref (self.expected);
    printf ("%s: %s\n", argv[1], self.failures ? "FAILED" : "passed");
    return self.failures ? TL_FAILED : TL_OK;
}
