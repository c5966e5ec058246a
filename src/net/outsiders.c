//  outsiders: see outsiders.h. A small table; what doesn't fit is counted together, as "elsewhere".

#include "outsiders.h"

#include "assert.h"
#include "log.h"
#include "memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 64 };

//  One kind: a host and why it was refused.
typedef struct {
    char host[64]; //  "" if unknown
    char why[512];
    int64_t since; //  monotonic ms: begin of the period
    uint64_t more; //  came in it and were not told
} kind_t;

struct tl_outsiders {
    kind_t kinds[KINDS];
    size_t count;     //  of kinds
    kind_t elsewhere; //  kinds that found no room; since is 0 while there are none
};

tl_outsiders_t *
tl_outsiders_new (void)
{
    return tl_alloc (sizeof (tl_outsiders_t));
}

//  True if there was something to tell.
static bool
s_sum_up (kind_t *kind, int64_t now)
{
    if (!kind->more)
        return false;
    tl_warn ("refused %s: %llu more in the last %lld s: %s", *kind->host ? kind->host : "somebody",
             (unsigned long long)kind->more, (long long)(now - kind->since + 999) / 1000,
             kind->why);
    kind->more = 0;
    kind->since = now;
    return true;
}

void
tl_outsiders_destroy (tl_outsiders_t **self_p)
{
    tl_assert (self_p);
    tl_outsiders_t *self = *self_p;
    if (self == NULL)
        return;
    for (size_t i = 0; i < self->count; i++)
        s_sum_up (&self->kinds[i], self->kinds[i].since + TL_OUTSIDERS_PERIOD_MS);
    s_sum_up (&self->elsewhere, self->elsewhere.since + TL_OUTSIDERS_PERIOD_MS);
    free (self);
    *self_p = NULL;
}

static kind_t *
s_find (tl_outsiders_t *self, const char *host, const char *why)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp (self->kinds[i].host, host) == 0 && strcmp (self->kinds[i].why, why) == 0)
            return &self->kinds[i];
    return NULL;
}

void
tl_outsiders_tell (tl_outsiders_t *self, const char *address, const char *why, int64_t now)
{
    kind_t kind = {.since = now};
    snprintf (kind.host, sizeof kind.host, "%.*s", (int)strcspn (address, ":"), address);
    snprintf (kind.why, sizeof kind.why, "%s", why);
    kind_t *known = s_find (self, kind.host, kind.why);
    if (known)
        known->more++;
    else if (self->count < KINDS) {
        self->kinds[self->count++] = kind;
        tl_warn ("refused %s: %s", *address ? address : "somebody", why);
    } else {
        if (!self->elsewhere.more++)
            self->elsewhere.since = now;
        snprintf (self->elsewhere.host, sizeof self->elsewhere.host, "others");
        snprintf (self->elsewhere.why, sizeof self->elsewhere.why,
                  "from too many hosts, or for too many reasons, to tell each; `trunkline status` "
                  "counts them");
    }
}

void
tl_outsiders_tick (tl_outsiders_t *self, int64_t now)
{
    for (size_t i = 0; i < self->count;) {
        kind_t *kind = &self->kinds[i];
        //  Who was quiet for a whole period is new when it comes again
        if (now - kind->since >= TL_OUTSIDERS_PERIOD_MS && !s_sum_up (kind, now))
            *kind = self->kinds[--self->count];
        else
            i++;
    }
    if (now - self->elsewhere.since >= TL_OUTSIDERS_PERIOD_MS)
        s_sum_up (&self->elsewhere, now);
}
