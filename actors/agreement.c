#include "agreement.h"

#include "base/assert.h"
#include "memory.h"
#include "number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  A list of names as one value. A long one would not fit a field; its order matters, its text doesn't.
static char *
s_list (const char *const *items, size_t count)
{
    enum { LONGEST = 2000 };
    char *joined = tl_strdup (count ? "" : "nothing");
    for (size_t i = 0; i < count && strlen (joined) < LONGEST; i++) {
        char *longer = tl_format ("%s%s%s", joined, i ? "," : "", items[i]);
        free (joined);
        joined = longer;
    }
    if (strlen (joined) > LONGEST)
        joined[LONGEST] = 0;
    return joined;
}

static char *
s_clients (const tl_topology_t *topology)
{
    const char **names = tl_alloc (topology->client_count * sizeof *names);
    for (size_t i = 0; i < topology->client_count; i++)
        names[i] = topology->clients[i].name;
    char *joined = s_list (names, topology->client_count);
    free (names);
    return joined;
}

//  What rows depend on, between the model's ends.
static const char *const s_reading[] = {
    "split.none", "split.front",      "split.tail",  "tune.method",  "tune.prefix",
    "tune.rank",  "tune.alpha",       "tune.rslora", "tune.targets", "tune.freeze",
    "tune.parts", "train.max_length", "wire.dtype",
};

//  Known to those who hold files only.
static const char *const s_of_files[] = {"model", "tokenizer", "model.weights", "model.ends",
                                         "model.trunk"};

#define IS_ONE_OF(field, list) s_is_one_of (field, list, sizeof list / sizeof *list)

static bool
s_is_one_of (const char *field, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp (field, list[i]) == 0)
            return true;
    return false;
}

bool
tl_agreement_of_files (const char *field)
{
    return IS_ONE_OF (field, s_of_files);
}

//  The least scope that asks for it.
static tl_agree_t
s_scope (const char *field)
{
    if (strcmp (field, "name") == 0)
        return TL_AGREE_NAME;
    return IS_ONE_OF (field, s_reading) || IS_ONE_OF (field, s_of_files) ? TL_AGREE_READING
                                                                         : TL_AGREE_ALL;
}

//  The shortest text that reads back as the same number: one number has one text, so texts can be compared.
static char *
s_number (double number)
{
    char text[32];
    tl_number_text (text, number);
    return tl_strdup (text);
}

//  Takes value.
static void
s_add (tl_agreements_t *self, const char *field, char *value)
{
    tl_assert (self->count < TL_AGREEMENTS);
    self->items[self->count++] = (tl_agreement_t){tl_strdup (field), value};
}

void
tl_agreements_bind (tl_agreements_t *self, const char *field, const char *value)
{
    s_add (self, field, tl_strdup (value));
}

//  Removes what is beyond scope.
static void
s_narrow (tl_agreements_t *self, tl_agree_t scope)
{
    size_t kept = 0;
    for (size_t i = 0; i < self->count; i++) {
        if (s_scope (self->items[i].field) <= scope) {
            self->items[kept++] = self->items[i];
            continue;
        }
        free ((char *)self->items[i].field);
        free ((char *)self->items[i].value);
    }
    self->count = kept;
}

static char *
s_server (const tl_server_spec_t *server)
{
    static const char *const s_optimizers[] = {
        [TL_SERVER_NONE] = "none", [TL_SERVER_AVGM] = "avgm", [TL_SERVER_ADAM] = "adam"};
    return tl_format ("%s, lr %.17g, momentum %.17g, beta2 %.17g, eps %.17g",
                      s_optimizers[server->optimizer], server->lr, server->momentum, server->beta2,
                      server->eps);
}

void
tl_agreements_make (tl_agreements_t *self, const tl_topology_t *topology, tl_agree_t scope)
{
    static const char *const s_dtypes[] = {"fp32", "bf16", "fp16"};
    static const char *const s_methods[] = {
        [TL_METHOD_LORA] = "lora", [TL_METHOD_FULL] = "full", [TL_METHOD_PTUNING] = "ptuning"};
    static const char *const s_schedules[] = {
        [TL_RATE_LINEAR] = "linear", [TL_RATE_CONSTANT] = "constant", [TL_RATE_COSINE] = "cosine"};
    const tl_topology_t *t = topology;
    memset (self, 0, sizeof *self);
    s_add (self, "name", tl_strdup (t->name));
    s_add (self, "split.none", tl_strdup (t->split.none ? "true" : "false"));
    s_add (self, "split.front", tl_format ("%zu", t->split.front));
    s_add (self, "split.tail", tl_format ("%zu", t->split.tail));
    s_add (self, "tune.method", tl_strdup (s_methods[t->tune.method]));
    s_add (self, "tune.prefix", tl_format ("%zu", t->tune.prefix));
    s_add (self, "tune.rank", tl_format ("%zu", t->tune.rank));
    s_add (self, "tune.alpha", s_number (t->tune.alpha));
    s_add (self, "tune.dropout", s_number (t->tune.dropout));
    s_add (self, "tune.rslora", tl_strdup (t->tune.rslora ? "true" : "false"));
    s_add (self, "tune.targets",
           s_list ((const char *const *)t->tune.targets, t->tune.target_count));
    s_add (self, "tune.freeze", s_list ((const char *const *)t->tune.freeze, t->tune.freeze_count));
    s_add (self, "tune.parts",
           tl_format ("%s%s%s", t->tune.parts & TL_PART_FRONT ? "front " : "",
                      t->tune.parts & TL_PART_TRUNK ? "trunk " : "",
                      t->tune.parts & TL_PART_TAIL ? "tail" : ""));
    s_add (self, "train.steps", tl_format ("%llu", (unsigned long long)t->train.steps));
    s_add (self, "train.batch_size", tl_format ("%zu", t->train.batch_size));
    s_add (self, "train.micros", tl_format ("%zu", t->train.micros));
    s_add (self, "train.max_length", tl_format ("%zu", t->train.max_length));
    s_add (self, "train.lr", s_number (t->train.lr));
    s_add (self, "train.warmup", tl_format ("%llu", (unsigned long long)t->train.warmup));
    s_add (self, "train.schedule", tl_strdup (s_schedules[t->train.schedule]));
    s_add (self, "train.lr_min", s_number (t->train.lr_min));
    s_add (self, "train.clip", s_number (t->train.clip));
    s_add (self, "train.weight_decay", s_number (t->train.weight_decay));
    s_add (self, "train.beta1", s_number (t->train.beta1));
    s_add (self, "train.beta2", s_number (t->train.beta2));
    s_add (self, "train.eps", s_number (t->train.eps));
    s_add (self, "train.seed", tl_format ("%llu", (unsigned long long)t->train.seed));
    s_add (self, "wire.dtype", tl_strdup (s_dtypes[t->wire.dtype]));
    s_add (self, "schedule.mode", tl_strdup (tl_mode_name (t->schedule.mode)));
    s_add (self, "schedule.join", tl_strdup (t->schedule.window ? "window" : "all"));
    static const char *const s_federations[] = {[TL_CLIENTS_PERSONAL] = "personal",
                                                [TL_CLIENTS_AVERAGE] = "average",
                                                [TL_CLIENTS_SYNC] = "sync"};
    s_add (self, "federate.clients", tl_strdup (s_federations[t->federate.clients]));
    s_add (self, "federate.every", tl_format ("%llu", (unsigned long long)t->federate.every));
    s_add (self, "federate.proximal", tl_format ("%.17g", t->federate.proximal));
    s_add (self, "federate.server", s_server (&t->federate.server));
    s_add (self, "clients", s_clients (t));
    s_narrow (self, scope);
}

void
tl_agreements_clear (tl_agreements_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        free ((char *)self->items[i].field);
        free ((char *)self->items[i].value);
    }
    self->count = 0;
}

static const char *
s_find (const tl_agreement_t *items, size_t count, const char *field)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp (items[i].field, field) == 0)
            return items[i].value;
    return NULL;
}

const char *
tl_agreements_find (const tl_agreements_t *self, const char *field)
{
    return s_find (self->items, self->count, field);
}

bool
tl_agreements_differ (const tl_agreements_t *self, tl_agree_t scope, const tl_agreement_t *theirs,
                      size_t count, const char **field, const char **our_value,
                      const char **their_value)
{
    for (size_t i = 0; i < count; i++) {
        const char *ours = tl_agreements_find (self, theirs[i].field);
        *field = theirs[i].field;
        *our_value = ours ? ours : "nothing";
        *their_value = theirs[i].value;
        if (ours ? strcmp (ours, theirs[i].value) != 0 : !IS_ONE_OF (theirs[i].field, s_of_files))
            return true;
    }
    for (size_t i = 0; i < self->count; i++) {
        *field = self->items[i].field;
        *our_value = self->items[i].value;
        *their_value = "nothing";
        if (s_scope (*field) <= scope && !s_find (theirs, count, *field) &&
            !IS_ONE_OF (*field, s_of_files))
            return true;
    }
    return false;
}
