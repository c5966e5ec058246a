#include "agreement.h"

#include "base/assert.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static char *
s_list (char *const *items, size_t count)
{
    char *joined = tl_strdup ("");
    for (size_t i = 0; i < count; i++) {
        char *longer = tl_format ("%s%s%s", joined, i ? "," : "", items[i]);
        free (joined);
        joined = longer;
    }
    return joined;
}

static char *
s_clients (const tl_topology_t *topology)
{
    char *joined = tl_strdup ("");
    for (size_t i = 0; i < topology->client_count; i++) {
        char *longer = tl_format ("%s%s%s", joined, i ? "," : "", topology->clients[i].name);
        free (joined);
        joined = longer;
    }
    //  A long list would not fit a field; its order matters, its text doesn't.
    if (strlen (joined) > 2000)
        joined[2000] = 0;
    return joined;
}

void
tl_agreements_make (tl_agreements_t *self, const tl_topology_t *topology, const char *model,
                    const char *tokenizer)
{
    static const char *const s_dtypes[] = {"fp32", "bf16", "fp16"};
    static const char *const s_schedules[] = {
        [TL_RATE_LINEAR] = "linear", [TL_RATE_CONSTANT] = "constant", [TL_RATE_COSINE] = "cosine"};
    const tl_topology_t *t = topology;
    memset (self, 0, sizeof *self);
    s_add (self, "name", tl_strdup (t->name));
    s_add (self, "split.front", tl_format ("%zu", t->split.front));
    s_add (self, "split.tail", tl_format ("%zu", t->split.tail));
    s_add (self, "tune.method", tl_strdup (t->tune.method == TL_METHOD_FULL ? "full" : "lora"));
    s_add (self, "tune.rank", tl_format ("%zu", t->tune.rank));
    s_add (self, "tune.alpha", tl_format ("%.17g", t->tune.alpha));
    s_add (self, "tune.dropout", tl_format ("%.17g", t->tune.dropout));
    s_add (self, "tune.rslora", tl_strdup (t->tune.rslora ? "true" : "false"));
    s_add (self, "tune.targets", s_list (t->tune.targets, t->tune.target_count));
    s_add (self, "tune.freeze", s_list (t->tune.freeze, t->tune.freeze_count));
    s_add (self, "tune.parts",
           tl_format ("%s%s%s", t->tune.parts & TL_PART_FRONT ? "front " : "",
                      t->tune.parts & TL_PART_TRUNK ? "trunk " : "",
                      t->tune.parts & TL_PART_TAIL ? "tail" : ""));
    s_add (self, "train.steps", tl_format ("%llu", (unsigned long long)t->train.steps));
    s_add (self, "train.batch_size", tl_format ("%zu", t->train.batch_size));
    s_add (self, "train.micros", tl_format ("%zu", t->train.micros));
    s_add (self, "train.max_length", tl_format ("%zu", t->train.max_length));
    s_add (self, "train.lr", tl_format ("%.17g", t->train.lr));
    s_add (self, "train.warmup", tl_format ("%llu", (unsigned long long)t->train.warmup));
    s_add (self, "train.schedule", tl_strdup (s_schedules[t->train.schedule]));
    s_add (self, "train.lr_min", tl_format ("%.17g", t->train.lr_min));
    s_add (self, "train.clip", tl_format ("%.17g", t->train.clip));
    s_add (self, "train.weight_decay", tl_format ("%.17g", t->train.weight_decay));
    s_add (self, "train.beta1", tl_format ("%.17g", t->train.beta1));
    s_add (self, "train.beta2", tl_format ("%.17g", t->train.beta2));
    s_add (self, "train.eps", tl_format ("%.17g", t->train.eps));
    s_add (self, "train.seed", tl_format ("%llu", (unsigned long long)t->train.seed));
    s_add (self, "wire.dtype", tl_strdup (s_dtypes[t->wire.dtype]));
    s_add (self, "schedule.mode",
           tl_strdup (t->schedule.mode == TL_MODE_SERIAL ? "serial" : "batch"));
    s_add (self, "clients", s_clients (t));
    if (model)
        s_add (self, "model", tl_strdup (model));
    if (tokenizer)
        s_add (self, "tokenizer", tl_strdup (tokenizer));
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

//  Known to those who hold files only.
static bool
s_optional (const char *field)
{
    return strcmp (field, "model") == 0 || strcmp (field, "tokenizer") == 0;
}

bool
tl_agreements_differ (const tl_agreements_t *self, const tl_agreement_t *theirs, size_t count,
                      const char **field, const char **our_value, const char **their_value)
{
    for (size_t i = 0; i < count; i++) {
        const char *ours = tl_agreements_find (self, theirs[i].field);
        *field = theirs[i].field;
        *our_value = ours ? ours : "nothing";
        *their_value = theirs[i].value;
        if (ours ? strcmp (ours, theirs[i].value) != 0 : !s_optional (theirs[i].field))
            return true;
    }
    for (size_t i = 0; i < self->count; i++) {
        *field = self->items[i].field;
        *our_value = self->items[i].value;
        *their_value = "nothing";
        if (!s_find (theirs, count, *field) && !s_optional (*field))
            return true;
    }
    return false;
}
