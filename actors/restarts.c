#include "restarts.h"

#include "error.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

enum {
    BACK_OFF_MS = 250, //  before the first restart, at most; doubled each time
    HEALTHY_MS = 60000 //  who lived so long has all its restarts again
};

void
tl_restarts_born (tl_restarts_t *self, int64_t now)
{
    self->born = now;
}

bool
tl_restarts_worth (int status)
{
    return WIFSIGNALED (status) || WEXITSTATUS (status) == TL_INTERNAL ||
           WEXITSTATUS (status) == TL_TIMEOUT;
}

int
tl_restarts_died (tl_restarts_t *self, int status, int64_t step, int64_t now)
{
    int by = WIFSIGNALED (status) ? WTERMSIG (status) : 0;
    bool same = self->place == step + 1 && self->signal == by;
    if (!same && now - self->born > HEALTHY_MS)
        self->count = 0;
    self->place = step + 1;
    self->signal = by;
    if (!tl_restarts_worth (status) || self->count >= TL_RESTARTS)
        return -1;
    //  Half of it is drawn: parts that died together don't come back together.
    uint32_t most = (uint32_t)BACK_OFF_MS << self->count++;
    return (int)(most / 2 + randombytes_uniform (most / 2 + 1));
}

void
tl_restarts_how (int status, char *text, size_t size)
{
    if (WIFSIGNALED (status))
        snprintf (text, size, "was killed by signal %d (%s)", WTERMSIG (status),
                  strsignal (WTERMSIG (status)));
    else
        snprintf (text, size, "ended with code %d", WEXITSTATUS (status));
}

void
tl_restarts_last_word (const tl_restarts_t *self, int status, const char *why,
                       const tl_topology_t *topology, char *text, size_t size)
{
    if (tl_restarts_worth (status) && self->count >= TL_RESTARTS)
        snprintf (text, size,
                  "%.700s; it died %d times, the last at step %lld: if it is the same each time, "
                  "%.280s/%.100s/trunkline.log says what it did",
                  why, self->count + 1, (long long)self->place, topology->checkpoint.dir,
                  topology->name);
    else
        snprintf (text, size, "%.1200s", why);
}
