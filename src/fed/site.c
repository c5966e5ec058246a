#include "site.h"

#include "base/assert.h"
#include "fed/evaluate.h"
#include "fed/origin.h"
#include "fed/parts.h"
#include "memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

//  One micro of the open step.
typedef struct {
    tl_micro_t *data;
    tl_tape_t *front; //  until back
    bool tail;        //  its tail is done
} tl_open_t;

struct tl_site {
    const tl_topology_t *topology;
    tl_model_t *model;
    tl_part_t *part;
    tl_segment_t *front, *tail; //  of the part; front NULL: tail is the whole model
    tl_tokenizer_t *tokenizer;
    tl_dataset_t *data;           //  NULL for a reader
    uint64_t text;                //  hash of its file's bytes
    const tl_dataset_t *held_out; //  NULL if there is none
    tl_dataset_t *own;            //  held_out, unless it is lent
    uint64_t client;              //  index: the site number of its sequences
    tl_open_t *open;              //  [micros] of the open step
    size_t micros;
    uint64_t round;
    uint64_t cursor;        //  own steps committed
    uint64_t learnt;        //  label tokens since the last average
    tl_tape_t *slice_front; //  of the last slice, for its rows
    uint64_t labels;        //  of the open step
    double nll;
    double own_norm; //  of the open step's own gradient
    double rate;
};

static int
s_part (tl_site_t *self, tl_error_t *err)
{
    tl_part_t *part = tl_part_of_client (self->topology, self->model, err);
    if (!part)
        return -1;
    tl_tape_destroy (&self->slice_front);
    tl_part_destroy (&self->part);
    self->part = part;
    self->front = self->topology->split.none ? NULL : tl_part_segment (part, 0);
    self->tail = tl_part_segment (part, self->topology->split.none ? 0 : 1);
    return 0;
}

tl_dataset_t *
tl_site_text (const tl_topology_t *topology, size_t client, bool held_out,
              const tl_tokenizer_t *tokenizer, tl_error_t *err)
{
    const tl_client_spec_t *spec = &topology->clients[client];
    tl_data_options_t options = {.max_length = topology->train.max_length};
    tl_dataset_t *text =
        tl_dataset_open (held_out ? spec->eval : spec->data, tokenizer, &options, err);
    if (!text)
        tl_fail_in (err, "%s: client.%s.%s", topology->source, spec->name,
                    held_out ? "eval" : "data");
    return text;
}

static int
s_hold_out (tl_site_t *self, tl_dataset_t *text)
{
    if (!text)
        return -1;
    tl_dataset_destroy (&self->own);
    self->held_out = self->own = text;
    return 0;
}

int
tl_site_held_out (tl_site_t *self, const char *path, tl_error_t *err)
{
    tl_data_options_t options = {.max_length = self->topology->train.max_length};
    return s_hold_out (self, tl_dataset_open (path, self->tokenizer, &options, err));
}

void
tl_site_lend (tl_site_t *self, const tl_dataset_t *held_out)
{
    tl_dataset_destroy (&self->own);
    self->held_out = held_out;
}

static int
s_open (tl_site_t *self, size_t client, bool data, tl_error_t *err)
{
    const tl_client_spec_t *spec = &self->topology->clients[client];
    tl_kernels_use (spec->threads);
    if (!(self->model = tl_model_of (self->topology, err)) || s_part (self, err) ||
        !(self->tokenizer =
              tl_tokenizer_open (self->topology->model.path, tl_model_config (self->model), err)))
        return -1;
    if (data &&
        (!(self->data = tl_site_text (self->topology, client, false, self->tokenizer, err)) ||
         tl_origin_hash (spec->data, &self->text, err)))
        return -1;
    if (!data || !spec->eval)
        return 0;
    return s_hold_out (self, tl_site_text (self->topology, client, true, self->tokenizer, err));
}

tl_site_t *
tl_site_new (const tl_topology_t *topology, size_t client, bool data, tl_error_t *err)
{
    tl_site_t *self = tl_alloc (sizeof *self);
    self->topology = topology;
    self->client = client;
    if (s_open (self, client, data, err))
        tl_site_destroy (&self);
    return self;
}

static void
s_close_open (tl_site_t *self)
{
    for (size_t i = 0; i < self->micros; i++) {
        tl_tape_destroy (&self->open[i].front);
        tl_micro_destroy (&self->open[i].data);
    }
    free (self->open);
    self->open = NULL;
    self->micros = 0;
}

void
tl_site_destroy (tl_site_t **self_p)
{
    tl_site_t *self = *self_p;
    if (!self)
        return;
    s_close_open (self);
    tl_tape_destroy (&self->slice_front);
    tl_dataset_destroy (&self->data);
    tl_dataset_destroy (&self->own);
    tl_part_destroy (&self->part);
    tl_tokenizer_destroy (&self->tokenizer);
    tl_model_destroy (&self->model);
    free (self);
    *self_p = NULL;
}

size_t
tl_site_hidden (const tl_site_t *self)
{
    return tl_model_config (self->model)->hidden;
}

size_t
tl_site_vocab (const tl_site_t *self)
{
    return tl_model_config (self->model)->vocab;
}

const char *
tl_site_manifest (const tl_site_t *self)
{
    return tl_model_manifest_hash (self->model);
}

const char *
tl_site_tokenizer (const tl_site_t *self)
{
    return tl_tokenizer_hash (self->tokenizer);
}

tl_part_t *
tl_site_part (tl_site_t *self)
{
    return self->part;
}

bool
tl_site_wants_gradient (const tl_site_t *self)
{
    return self->front && tl_segment_trains (self->front);
}

size_t
tl_site_rows (const tl_site_t *self)
{
    size_t length = self->topology->train.max_length;
    size_t score = TL_EVALUATE_ROWS > length ? TL_EVALUATE_ROWS : length;
    size_t rows =
        self->data ? tl_dataset_extent (self->data, self->topology->train.batch_size).rows : 0;
    return rows > score ? rows : score;
}

size_t
tl_site_examples (const tl_site_t *self)
{
    return self->held_out ? tl_dataset_count (self->held_out) : 0;
}

bool
tl_site_scores (const tl_site_t *self)
{
    return self->held_out != NULL;
}

int
tl_site_plan (tl_site_t *self, tl_plan_t *plan, size_t *rows, size_t *longest, tl_error_t *err)
{
    const tl_topology_t *t = self->topology;
    size_t sequences = (t->train.batch_size + t->train.micros - 1) / t->train.micros;
    tl_extent_t extent =
        tl_dataset_run_extent (self->data, t->train.seed, self->client, t->train.steps,
                               t->train.batch_size, t->train.micros);
    if (tl_parts_fit (&self->part, 1, extent.rows, extent.longest, extent.labels, t->train.micros,
                      t->train.memory, err) != 0)
        return -1;
    tl_part_plan (self->part, extent.rows, extent.longest, sequences, extent.labels,
                  t->train.micros, plan);
    //  Beside a save: its own share on the way out, and what was made of all on the way in.
    plan->state *= t->federate.clients == TL_CLIENTS_PERSONAL ? 1 : 3;
    tl_part_reserve (self->part, extent.rows, extent.longest, extent.labels, t->train.micros);
    *rows = extent.rows;
    *longest = extent.longest;
    if (self->held_out) {
        tl_plan_t score;
        size_t all = tl_dataset_extent (self->held_out, tl_dataset_count (self->held_out)).rows;
        size_t slice = all < TL_EVALUATE_ROWS ? all : TL_EVALUATE_ROWS;
        tl_part_plan_reading (self->part, slice, extent.longest, slice, &score);
        tl_plan_widen (plan, &score);
    }
    return 0;
}

//  --- a step -----------------------------------------------------------------------------------

void
tl_site_drop (tl_site_t *self)
{
    s_close_open (self);
    self->labels = 0;
    self->nll = 0;
    tl_part_zero_gradient (self->part);
}

//  FedProx: what is averaged is held to where the period began.
static bool
s_is_held (const tl_site_t *self)
{
    return self->topology->federate.proximal > 0 &&
           self->topology->federate.clients == TL_CLIENTS_AVERAGE;
}

void
tl_site_begin (tl_site_t *self, uint64_t round, size_t micros)
{
    tl_site_drop (self);
    self->round = round;
    self->micros = micros;
    if (s_is_held (self))
        tl_part_anchor (self->part, round / self->topology->federate.every);
    self->open = tl_alloc (micros * sizeof *self->open);
}

static void
s_read (tl_site_t *self, size_t micro)
{
    tl_assert (micro < self->micros && !self->open[micro].data);
    self->open[micro].data =
        tl_dataset_micro (self->data, self->topology->train.seed, self->client, self->cursor,
                          self->topology->train.batch_size, micro, self->micros);
}

const float *
tl_site_front (tl_site_t *self, size_t micro, const tl_batch_t **batch)
{
    tl_open_t *open = &self->open[micro];
    s_read (self, micro);
    open->front = tl_segment_forward (self->front, &open->data->batch, self->round, NULL, true);
    *batch = &open->data->batch;
    return tl_tape_output (open->front);
}

uint64_t
tl_site_tail (tl_site_t *self, size_t micro, const float *hidden, float *gradient)
{
    tl_open_t *open = &self->open[micro];
    double nll;
    uint64_t labels;
    tl_tape_t *tape =
        tl_segment_forward (self->tail, &open->data->batch, self->round, hidden, true);
    tl_segment_loss (self->tail, tape, &nll, &labels);
    tl_segment_backward (self->tail, tape, NULL, gradient);
    tl_tape_destroy (&tape);
    self->nll += nll;
    self->labels += labels;
    open->tail = true;
    return labels;
}

uint64_t
tl_site_learn (tl_site_t *self, size_t micro)
{
    tl_assert (!self->front);
    s_read (self, micro);
    return tl_site_tail (self, micro, NULL, NULL);
}

size_t
tl_site_due (const tl_site_t *self, size_t micro, bool back)
{
    const tl_open_t *open = micro < self->micros ? &self->open[micro] : NULL;
    if (!open || !open->data || open->tail != back || (back && !open->front))
        return 0;
    return open->data->batch.rows;
}

void
tl_site_back (tl_site_t *self, size_t micro, const float *gradient)
{
    tl_open_t *open = &self->open[micro];
    tl_segment_backward (self->front, open->front, gradient, NULL);
    tl_tape_destroy (&open->front);
}

int
tl_site_not_finite (const tl_site_t *self, const char *what, tl_error_t *err)
{
    const tl_client_spec_t *client = &self->topology->clients[self->client];
    return tl_fail (
        err, TL_BAD_INPUT,
        "%s is not finite at step %llu of %llu of %s: the last good adapter is kept; "
        "lower train.lr or look at the data",
        what, (unsigned long long)self->cursor + 1,
        (unsigned long long)(client->steps ? client->steps : self->topology->train.steps),
        client->name);
}

int
tl_site_commit (tl_site_t *self, tl_norm_term_t *terms, uint64_t *labels, double *nll,
                tl_error_t *err)
{
    size_t count = 0;
    if (s_is_held (self))
        tl_part_pull (self->part, self->topology->federate.proximal * (double)self->labels);
    tl_part_squares (self->part, terms, &count);
    *labels = self->labels;
    *nll = self->nll;
    bool finite = isfinite (self->nll);
    for (size_t i = 0; i < count; i++)
        finite = finite && isfinite (terms[i].square);
    if (!finite)
        return tl_site_not_finite (self, isfinite (self->nll) ? "the gradient" : "the loss", err);
    self->own_norm = tl_gradient_norm (terms, count, self->labels);
    return 0;
}

int
tl_site_update (tl_site_t *self, uint64_t labels, double norm, tl_error_t *err)
{
    bool joint = tl_norm_is_joint (self->topology);
    double coefficient = tl_coefficient (joint ? norm : self->own_norm, self->topology->train.clip,
                                         joint ? labels : self->labels);
    const tl_schedule_t schedule = tl_schedule_of (self->topology, self->topology->train.steps);
    self->rate = tl_learning_rate (&schedule, self->round);
    if (tl_part_update (self->part, coefficient, self->rate, err))
        return -1;
    s_close_open (self);
    self->learnt += self->labels;
    self->labels = 0;
    self->nll = 0;
    self->cursor++;
    return 0;
}

void *
tl_site_gradient (const tl_site_t *self, size_t *size)
{
    return tl_part_gradient_get (self->part, size);
}

int
tl_site_sum_up (tl_site_t *self, const void *sum, size_t size, tl_norm_term_t *terms,
                tl_error_t *err)
{
    size_t count = 0;
    if (tl_part_gradient_set (self->part, sum, size, err) != 0)
        return -1;
    tl_part_squares (self->part, terms, &count);
    return 0;
}

uint64_t
tl_site_cursor (const tl_site_t *self)
{
    return self->cursor;
}

double
tl_site_rate (const tl_site_t *self)
{
    return self->rate;
}

//  --- state ------------------------------------------------------------------------------------

static const char s_magic[8] = "TLSITE3";

//  In front of the part's state.
typedef struct {
    char magic[sizeof s_magic];
    uint64_t cursor, learnt, text;
} tl_head_t;

void *
tl_site_state_get (const tl_site_t *self, size_t *size)
{
    size_t part_size;
    void *part = tl_part_state_get (self->part, &part_size);
    tl_head_t head = {.cursor = self->cursor, .learnt = self->learnt, .text = self->text};
    memcpy (head.magic, s_magic, sizeof s_magic);
    *size = sizeof head + part_size;
    char *state = tl_alloc (*size);
    memcpy (state, &head, sizeof head);
    memcpy (state + sizeof head, part, part_size);
    free (part);
    return state;
}

int
tl_site_state_set (tl_site_t *self, const void *state, size_t size, tl_error_t *err)
{
    tl_head_t head;
    if (size < sizeof head || memcmp (state, s_magic, sizeof s_magic) != 0)
        return tl_fail (
            err, TL_BAD_INPUT,
            "the saved state of %s is not one of this version; go on with the trunkline that began "
            "the run, or begin it anew with --replace",
            self->topology->clients[self->client].name);
    memcpy (&head, state, sizeof head);
    if (head.text != self->text)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s was another text when %s saved (hash %016llx, and now %016llx): put "
                        "that text back to go on, or begin the run anew with --replace",
                        self->topology->clients[self->client].data,
                        self->topology->clients[self->client].name, (unsigned long long)head.text,
                        (unsigned long long)self->text);
    //  The part's state is read in place, which wants it aligned.
    void *part = tl_alloc_aligned (size - sizeof head);
    memcpy (part, (const char *)state + sizeof head, size - sizeof head);
    tl_site_drop (self);
    int rc = tl_part_state_set (self->part, part, size - sizeof head, err);
    if (rc == 0) {
        self->cursor = head.cursor;
        self->learnt = head.learnt;
    }
    free (part);
    return rc;
}

void *
tl_site_share (const tl_site_t *self, size_t *size)
{
    return tl_part_state_get (self->part, size);
}

uint64_t
tl_site_learnt (const tl_site_t *self)
{
    return self->learnt;
}

int
tl_site_take (tl_site_t *self, const void *share, size_t size, tl_error_t *err)
{
    tl_site_drop (self);
    if (tl_part_state_set (self->part, share, size, err) != 0)
        return -1;
    self->learnt = 0;
    return 0;
}

int
tl_site_fresh (tl_site_t *self, tl_error_t *err)
{
    s_close_open (self);
    self->cursor = self->learnt = 0;
    return s_part (self, err);
}

//  --- forward only -----------------------------------------------------------------------------

struct tl_slice {
    tl_micro_t *micro; //  its own batch
};

size_t
tl_slice_rows (const tl_slice_t *self)
{
    return self->micro->batch.rows;
}

size_t
tl_slice_examples (const tl_slice_t *self, size_t *first)
{
    *first = (size_t)self->micro->batch.number[0];
    return self->micro->batch.sequences;
}

uint64_t
tl_slice_labels (const tl_slice_t *self)
{
    return self->micro->labels;
}

void
tl_slice_destroy (tl_slice_t **self_p)
{
    if (*self_p) {
        tl_micro_destroy (&(*self_p)->micro);
        free (*self_p);
        *self_p = NULL;
    }
}

static tl_slice_t *
s_slice (tl_site_t *self, tl_micro_t *micro, const float **rows, const tl_batch_t **batch)
{
    tl_slice_t *slice = tl_alloc (sizeof *slice);
    slice->micro = micro;
    tl_tape_destroy (&self->slice_front);
    self->slice_front = tl_segment_forward (self->front, &micro->batch, 0, NULL, false);
    *rows = tl_tape_output (self->slice_front);
    *batch = &micro->batch;
    return slice;
}

tl_slice_t *
tl_site_slice (tl_site_t *self, size_t *first, const float **rows, const tl_batch_t **batch)
{
    size_t count = self->held_out ? tl_dataset_fit (self->held_out, *first, TL_EVALUATE_ROWS) : 0;
    if (!count)
        return NULL;
    tl_micro_t *micro = tl_dataset_slice (self->held_out, *first, count);
    *first += count;
    return s_slice (self, micro, rows, batch);
}

void
tl_site_evaluate (tl_site_t *self, double *nll, uint64_t *labels)
{
    tl_assert (!self->front);
    *nll = 0;
    *labels = 0;
    for (size_t first = 0, count;
         self->held_out && (count = tl_dataset_fit (self->held_out, first, TL_EVALUATE_ROWS));
         first += count) {
        tl_micro_t *micro = tl_dataset_slice (self->held_out, first, count);
        double *losses = tl_alloc (count * sizeof *losses);
        tl_tape_t *tape = tl_segment_forward (self->tail, &micro->batch, 0, NULL, false);
        tl_segment_losses (self->tail, tape, losses);
        for (size_t i = 0; i < count; i++)
            *nll += losses[i];
        *labels += micro->labels;
        tl_tape_destroy (&tape);
        tl_micro_destroy (&micro);
        free (losses);
    }
}

void
tl_site_score (tl_site_t *self, tl_slice_t *slice, const float *hidden, double *nll)
{
    tl_tape_t *tape = tl_segment_forward (self->tail, &slice->micro->batch, 0, hidden, false);
    tl_segment_losses (self->tail, tape, nll);
    tl_tape_destroy (&tape);
    tl_slice_destroy (&slice);
}

tl_slice_t *
tl_site_prompt (tl_site_t *self, const int32_t *ids, size_t count, uint32_t context, uint32_t mask,
                const float **rows, const tl_batch_t **batch)
{
    return s_slice (self, tl_micro_of_ids (ids, count, context, mask), rows, batch);
}

void
tl_site_next (tl_site_t *self, tl_slice_t *slice, const float *hidden, float *logits)
{
    const tl_batch_t *batch = &slice->micro->batch;
    size_t width = tl_site_hidden (self);
    tl_tape_t *tape = tl_segment_forward (self->tail, batch, 0, hidden, false);
    const float *last = tl_tape_output (tape) + (batch->rows - 1) * width;
    tl_segment_head (self->tail, last, 1, logits);
    tl_tape_destroy (&tape);
    tl_slice_destroy (&slice);
}
