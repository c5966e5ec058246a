//  choose_state: the chooser as JSON text and back. What is read was in a file: it is checked.

#include "assert.h"
#include "choose_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const s_stages[] = {"new", "wide", "single", "chosen"};
static const char *const s_insides[] = {"serial", "batched", "alternate"};

static json_t *
s_list (const size_t *list, size_t count)
{
    json_t *out = json_array ();
    for (size_t i = 0; i < count; i++)
        json_array_append_new (
            out, json_integer (list[i] == TL_CHOOSE_NOBODY ? -1 : (json_int_t)list[i]));
    return out;
}

//  A list of at most `most` indices below limit (-1: nobody, if allowed). -1 if it is none.
static int
s_unlist (const json_t *list, size_t *into, size_t most, size_t limit, bool nobody, size_t *count)
{
    if (!json_is_array (list) || json_array_size (list) > most)
        return -1;
    *count = json_array_size (list);
    for (size_t i = 0; i < *count; i++) {
        const json_t *one = json_array_get (list, i);
        json_int_t value = json_integer_value (one);
        if (!json_is_integer (one) || value < (nobody ? -1 : 0) ||
            (value >= 0 && (size_t)value >= limit))
            return -1;
        into[i] = value < 0 ? TL_CHOOSE_NOBODY : (size_t)value;
    }
    return 0;
}

static json_t *
s_corrections (const double *list, size_t count)
{
    json_t *out = json_array ();
    for (size_t i = 0; i < count; i++)
        if (list[i] > 0)
            json_array_append_new (out, json_pack ("[I f]", (json_int_t)i, list[i]));
    return out;
}

static int
s_uncorrections (const json_t *list, double *into, size_t count)
{
    if (!json_is_array (list))
        return -1;
    for (size_t i = 0; i < json_array_size (list); i++) {
        json_int_t at;
        double factor;
        if (json_unpack (json_array_get (list, i), "[I F]", &at, &factor) != 0 || at < 1 ||
            (size_t)at >= count || !isfinite (factor) || factor <= 0)
            return -1;
        into[at] = factor;
    }
    return 0;
}

char *
tl_choose_state (const tl_choose_t *self)
{
    json_t *state =
        json_pack ("{s:i, s:s, s:i, s:s, s:o, s:o, s:o, s:o, s:I, s:I, s:f, s:o, s:o, s:o}",
                   "version", 1, "stage", s_stages[self->stage], "wins", self->wins, "inside",
                   s_insides[self->inside], "worker", s_list (self->worker, self->groups), "group",
                   s_list (self->group, self->groups ? self->config.clients : 0), "clients",
                   s_list (self->clients, self->client_count), "workers",
                   s_list (self->workers, self->worker_count), "holder",
                   self->holder == TL_CHOOSE_NOBODY ? (json_int_t)-1 : (json_int_t)self->holder,
                   "rounds", (json_int_t)self->rounds, "begun_us", self->begun_us, "serial",
                   s_corrections (self->corrections[0], self->most_groups + 1), "batched",
                   s_corrections (self->corrections[1], self->most_groups + 1), "costs",
                   tl_costs_state (self->costs));
    tl_assert (state);
    char *text = json_dumps (state, JSON_COMPACT | JSON_REAL_PRECISION (17));
    tl_assert (text);
    json_decref (state);
    return text;
}

static int
s_word (const json_t *word, const char *const *words, int count)
{
    for (int i = 0; i < count; i++)
        if (json_is_string (word) && strcmp (json_string_value (word), words[i]) == 0)
            return i;
    return -1;
}

static int
s_restore (tl_choose_t *self, const json_t *state)
{
    int stage = s_word (json_object_get (state, "stage"), s_stages, 4);
    int inside = s_word (json_object_get (state, "inside"), s_insides, 3);
    size_t clients = self->config.clients, workers = self->config.workers, grouped = 0;
    json_int_t version, wins, holder, rounds;
    if (stage < 0 || inside < 0 ||
        json_unpack ((json_t *)state, "{s:I, s:I, s:I, s:I, s:F}", "version", &version, "wins",
                     &wins, "holder", &holder, "rounds", &rounds, "begun_us",
                     &self->begun_us) != 0 ||
        version != 1 || wins < 0 || wins > RUNNING || holder < -1 ||
        holder >= (json_int_t)workers || rounds < 1 || !isfinite (self->begun_us) ||
        s_unlist (json_object_get (state, "worker"), self->worker, self->most_groups, workers,
                  false, &self->groups) != 0 ||
        s_unlist (json_object_get (state, "group"), self->group, clients, self->groups, true,
                  &grouped) != 0 ||
        grouped != (self->groups ? clients : 0) ||
        s_unlist (json_object_get (state, "clients"), self->clients, clients, clients, false,
                  &self->client_count) != 0 ||
        s_unlist (json_object_get (state, "workers"), self->workers, workers, workers, false,
                  &self->worker_count) != 0 ||
        s_uncorrections (json_object_get (state, "serial"), self->corrections[0],
                         self->most_groups + 1) != 0 ||
        s_uncorrections (json_object_get (state, "batched"), self->corrections[1],
                         self->most_groups + 1) != 0)
        return -1;
    self->stage = (tl_stage_t)stage;
    self->inside = (tl_inside_t)inside;
    self->wins = (int)wins;
    self->holder = holder < 0 ? TL_CHOOSE_NOBODY : (size_t)holder;
    self->rounds = (uint64_t)rounds;
    for (size_t g = 0; g < self->groups; g++) {
        if (self->used[self->worker[g]])
            return -1;
        self->used[self->worker[g]] = true;
    }
    return 0;
}

int
tl_choose_restore (tl_choose_t *self, const char *text, tl_error_t *err)
{
    json_error_t where;
    json_t *state = json_loads (text, JSON_REJECT_DUPLICATES, &where);
    tl_choose_t *fresh = tl_choose_new (&self->config);
    int rc = 0;
    if (!json_is_object (state) || s_restore (fresh, state) != 0)
        rc = tl_fail (err, TL_BAD_INPUT,
                      "the choice of arrangement: what was saved does not fit %zu workers and %zu "
                      "clients; the save is damaged or of another topology, take the one before",
                      self->config.workers, self->config.clients);
    else
        rc = tl_costs_restore (fresh->costs, json_object_get (state, "costs"), err);
    json_decref (state);
    if (rc == 0) {
        tl_choose_t old = *self;
        *self = *fresh;
        *fresh = old;
    }
    tl_choose_destroy (&fresh);
    return rc;
}
