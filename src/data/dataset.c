/*  dataset: a JSONL file held in memory as ids. Takes a path and a tokenizer, reads everything at once (a
    broken last line shall not end a run after an hour), and answers how much there is. The text itself
    isn't kept. Order and cutting into micros are micro.c's.                                        */

#include "internal.h"

#include "assert.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { MIN_LENGTH = 4 };

//  Room for one more; doubling keeps the copying linear.
static void *
s_grown (void *data, size_t needed, size_t *size, size_t width)
{
    if (needed <= *size)
        return data;
    *size = needed * 2 < 1024 ? 1024 : needed * 2;
    void *grown = realloc (data, *size * width);
    if (!grown)
        abort ();
    return grown;
}

//  Adds an example of place->count ids.
static void
s_append (tl_dataset_t *self, const tl_place_t *place, const int32_t *ids)
{
    self->pool =
        s_grown (self->pool, self->pool_used + place->count, &self->pool_size, sizeof *self->pool);
    self->places =
        s_grown (self->places, self->count + 1, &self->places_size, sizeof *self->places);
    memcpy (self->pool + self->pool_used, ids, place->count * sizeof *ids);
    self->places[self->count] = *place;
    self->places[self->count++].offset = self->pool_used;
    self->pool_used += place->count;
    self->labels += place->count - 1 - place->first;
}

static int
s_take (void *arg, const tl_example_t *example, tl_error_t *err)
{
    tl_dataset_t *self = arg;
    tl_sequence_t sequence;
    if (tl_layout_example (&sequence, self->tokenizer, example, self->max_length, self->cloze,
                           err) != 0)
        return -1;
    if (sequence.count < 2 || self->count == UINT32_MAX) {
        free (sequence.ids);
        return tl_fail (err, TL_BAD_INPUT,
                        "the example gives %zu ids, there is nothing to learn; remove the line",
                        sequence.count);
    }
    tl_place_t place = {.count = (uint32_t)sequence.count,
                        .context = (uint32_t)sequence.context,
                        .first = (uint32_t)sequence.first,
                        .mask = (uint32_t)sequence.mask};
    s_append (self, &place, sequence.ids);
    self->shortened += sequence.shortened ? 1 : 0;
    free (sequence.ids);
    return 0;
}

static int
s_set_length (tl_dataset_t *self, size_t wanted, tl_error_t *err)
{
    size_t most = tl_tokenizer_config (self->tokenizer)->max_positions;
    self->max_length = wanted ? wanted : most;
    if (self->max_length >= MIN_LENGTH && self->max_length <= most)
        return 0;
    return tl_fail (
        err, TL_BAD_INPUT,
        "max_length is %zu, expected %d to %zu (the longest sequence the model was made "
        "for); set train.max_length within that",
        self->max_length, MIN_LENGTH, most);
}

static int
s_read (tl_dataset_t *self, const tl_data_options_t *options, tl_error_t *err)
{
    tl_map_t map;
    if (tl_map_open (&map, self->path, err) != 0)
        return -1;
    int rc = tl_examples_read (self->path, (const char *)map.data, map.size, &options->columns,
                               options->limit, s_take, self, err);
    tl_map_close (&map);
    if (rc != 0)
        return rc;
    if (self->count == 0)
        return tl_fail (
            err, TL_BAD_INPUT,
            "%s holds no example; write one {\"prompt\": ..., \"completion\": ...} a line",
            self->path);
    if (self->shortened)
        tl_warn ("%s: %zu of %zu examples are longer than max_length %zu and were shortened",
                 self->path, self->shortened, self->count, self->max_length);
    return 0;
}

tl_dataset_t *
tl_dataset_open (const char *path, const tl_tokenizer_t *tokenizer,
                 const tl_data_options_t *options, tl_error_t *err)
{
    static const tl_data_options_t usual;
    options = options ? options : &usual;
    tl_dataset_t *self = tl_alloc (sizeof *self);
    self->path = tl_strdup (path);
    self->tokenizer = tokenizer;
    self->cloze = options->cloze;
    if (s_set_length (self, options->max_length, err) != 0 || s_read (self, options, err) != 0)
        tl_dataset_destroy (&self);
    return self;
}

tl_dataset_t *
tl_dataset_of_answers (const tl_tokenizer_t *tokenizer, const tl_answer_t *answers, size_t count)
{
    tl_assert (count >= 1);
    tl_dataset_t *self = tl_alloc (sizeof *self);
    self->tokenizer = tokenizer;
    self->max_length = tl_tokenizer_config (tokenizer)->max_positions;
    for (size_t i = 0; i < count; i++) {
        const tl_prompt_t *prompt = answers[i].prompt;
        tl_assert (prompt->count >= 1 && answers[i].count >= 1);
        tl_place_t place = {.count = (uint32_t)(prompt->count + answers[i].count),
                            .context = prompt->context,
                            .first = (uint32_t)prompt->count - 1,
                            .mask = prompt->mask};
        int32_t *ids = tl_alloc (place.count * sizeof *ids);
        memcpy (ids, prompt->ids, prompt->count * sizeof *ids);
        memcpy (ids + prompt->count, answers[i].ids, answers[i].count * sizeof *ids);
        s_append (self, &place, ids);
        free (ids);
    }
    return self;
}

void
tl_dataset_destroy (tl_dataset_t **self_p)
{
    tl_dataset_t *self = *self_p;
    if (!self)
        return;
    free (self->order);
    free (self->places);
    free (self->pool);
    free (self->path);
    free (self);
    *self_p = NULL;
}

size_t
tl_dataset_count (const tl_dataset_t *self)
{
    return self->count;
}

size_t
tl_dataset_shortened (const tl_dataset_t *self)
{
    return self->shortened;
}

uint64_t
tl_dataset_labels (const tl_dataset_t *self)
{
    return self->labels;
}

size_t
tl_dataset_labels_of (const tl_dataset_t *self, size_t example)
{
    return self->places[example].count - 1 - self->places[example].first;
}

static int
s_descending (const void *a, const void *b)
{
    size_t one = *(const size_t *)a, two = *(const size_t *)b;
    return one < two ? 1 : one > two ? -1 : 0;
}

//  The largest sum of so many of sizes when each may come up to times times.
static size_t
s_largest (size_t *sizes, size_t count, size_t wanted, size_t times)
{
    size_t sum = 0;
    qsort (sizes, count, sizeof *sizes, s_descending);
    for (size_t i = 0; i < wanted; i++)
        sum += sizes[i / times < count ? i / times : count - 1];
    return sum;
}

tl_extent_t
tl_dataset_extent (const tl_dataset_t *self, size_t sequences)
{
    //  A batch that runs from one pass into the next may hold the longest example twice.
    size_t times = sequences > 1 ? (sequences - 2) / self->count + 2 : 1;
    size_t *sizes = tl_alloc (self->count * sizeof *sizes);
    tl_extent_t extent = {0};
    for (size_t i = 0; i < self->count; i++)
        sizes[i] = self->places[i].count - 1;
    extent.rows = s_largest (sizes, self->count, sequences, times);
    extent.longest = sizes[0];
    for (size_t i = 0; i < self->count; i++)
        sizes[i] = self->places[i].count - 1 - self->places[i].first;
    extent.labels = s_largest (sizes, self->count, sequences, times);
    free (sizes);
    return extent;
}
