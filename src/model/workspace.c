//  workspace: see segment.h. Pieces are only added while something is taken from the last one; when all
//  has been given back they are replaced by one piece of the whole size.

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

float *
tl_workspace_take (tl_workspace_t *self, size_t count)
{
    size_t last = self->count, need = tl_padded (count);
    if (self->used == 0 && (self->count > 1 || (last && self->size[0] < need))) {
        s_drop (self);
        last = 0;
    }
    //  The top may be in an earlier piece after a release: go on there while it has room.
    size_t at = 0;
    while (at < last && self->used >= self->start[at] + self->size[at])
        at++;
    while (at < last && self->used + need > self->start[at] + self->size[at]) {
        at++;
        if (at < last)
            self->used = self->start[at];
    }
    if (at == last) {
        tl_assert (last < S_PIECES);
        size_t end = last ? self->start[last - 1] + self->size[last - 1] : 0;
        size_t size = last ? need : (need > self->peak ? need : self->peak);
        self->piece[last] = tl_alloc_aligned ((size ? size : 16) * sizeof (float));
        self->start[last] = end;
        self->size[last] = size ? size : 16;
        self->count++;
        self->used = end;
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
