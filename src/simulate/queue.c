#include "queue.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { WIDE = 4 }; //  children of a node: fewer cache lines than two

static bool
s_before (const tl_sim_event_t *a, const tl_sim_event_t *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void
tl_sim_queue_put (tl_sim_queue_t *self, tl_sim_event_t event)
{
    if (self->count == self->room) {
        size_t room = 2 * self->room + 1024;
        tl_sim_event_t *grown = tl_alloc (room * sizeof *grown);
        if (self->count)
            memcpy (grown, self->heap, self->count * sizeof *grown);
        free (self->heap);
        self->heap = grown;
        self->room = room;
    }
    event.order = self->order++;
    size_t at = self->count++;
    while (at > 0 && s_before (&event, &self->heap[(at - 1) / WIDE])) {
        self->heap[at] = self->heap[(at - 1) / WIDE];
        at = (at - 1) / WIDE;
    }
    self->heap[at] = event;
}

bool
tl_sim_queue_take (tl_sim_queue_t *self, tl_sim_event_t *event)
{
    if (!self->count)
        return false;
    *event = self->heap[0];
    const tl_sim_event_t last = self->heap[--self->count];
    size_t at = 0;
    for (;;) {
        size_t first = at * WIDE + 1, best = first;
        if (first >= self->count)
            break;
        for (size_t i = first + 1; i < first + WIDE && i < self->count; i++)
            if (s_before (&self->heap[i], &self->heap[best]))
                best = i;
        if (!s_before (&self->heap[best], &last))
            break;
        self->heap[at] = self->heap[best];
        at = best;
    }
    if (self->count)
        self->heap[at] = last;
    return true;
}

void
tl_sim_queue_release (tl_sim_queue_t *self)
{
    free (self->heap);
    memset (self, 0, sizeof *self);
}
