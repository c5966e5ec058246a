//  workspace: see segment.h. A piece is added when the ones there have no room; the next reserve with
//  nothing taken makes one piece of all.

#include "model/segment.h"

#include "assert.h"
#include "memory.h"

#include <stdlib.h>

enum { S_PIECES = 32 };

struct tl_workspace {
    float *piece[S_PIECES]; //  what was allocated
    size_t start[S_PIECES]; //  place of a piece's first float in the stack
    size_t size[S_PIECES];  //  its floats
    size_t count;           //  pieces
    size_t used;            //  top of the stack
    size_t peak;
};

tl_workspace_t *
tl_workspace_new (void)
{
    return tl_alloc (sizeof (tl_workspace_t));
}

static void
s_drop (tl_workspace_t *self)
{
    for (size_t i = 0; i < self->count; i++)
        free (self->piece[i]);
    self->count = 0;
}

void
tl_workspace_destroy (tl_workspace_t **self_p)
{
    if (!*self_p)
        return;
    s_drop (*self_p);
    free (*self_p);
    *self_p = NULL;
}

static void
s_add_piece (tl_workspace_t *self, size_t size)
{
    size_t last = self->count;
    tl_assert (last < S_PIECES);
    self->piece[last] = tl_alloc_aligned (size * sizeof (float));
    self->start[last] = last ? self->start[last - 1] + self->size[last - 1] : 0;
    self->size[last] = size;
    self->count++;
}

void
tl_workspace_reserve (tl_workspace_t *self, size_t count)
{
    size_t have = self->count ? self->start[self->count - 1] + self->size[self->count - 1] : 0;
    if (self->used > 0 || (self->count <= 1 && have >= count))
        return;
    s_drop (self);
    s_add_piece (self, tl_padded (count > have ? count : have) + 16);
}

float *
tl_workspace_take (tl_workspace_t *self, size_t count)
{
    size_t need = tl_padded (count), at = 0;
    //  The piece that holds the top, or the first after it with room enough.
    while (at < self->count && self->used + need > self->start[at] + self->size[at]) {
        at++;
        if (at < self->count && self->used < self->start[at])
            self->used = self->start[at];
    }
    if (at == self->count) {
        s_add_piece (self, need + 16);
        self->used = self->start[at];
    }
    float *result = self->piece[at] + (self->used - self->start[at]);
    self->used += need;
    if (self->used > self->peak)
        self->peak = self->used;
    return result;
}

size_t
tl_workspace_mark (const tl_workspace_t *self)
{
    return self->used;
}

void
tl_workspace_release (tl_workspace_t *self, size_t mark)
{
    tl_assert (mark <= self->used);
    self->used = mark;
}

size_t
tl_workspace_peak (const tl_workspace_t *self)
{
    return self->peak;
}
