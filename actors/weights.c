//  weights: see weights.h. The note is a line of two hashes: of the files it is about, and of the contents.

#include "weights.h"

#include "actors/save.h"
#include "clock.h"
#include "file.h"
#include "log.h"
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  A note about the same files: its contents stand.
static bool
s_noted (const char *path, const char *stamp, char contents[TL_MODEL_DIGEST])
{
    enum { HEX = TL_MODEL_DIGEST - 1, SIZE = 2 * HEX + 2 };
    tl_error_t err;
    size_t size = 0;
    char *note = tl_exists (path) ? tl_file_read (path, SIZE, &size, &err) : NULL;
    bool good = note && size == SIZE && memcmp (note, stamp, HEX) == 0 && note[HEX] == ' ' &&
                strspn (note + HEX + 1, "0123456789abcdef") == HEX;
    if (good)
        snprintf (contents, TL_MODEL_DIGEST, "%.32s", note + HEX + 1);
    free (note);
    return good;
}

void
tl_weights_read (void *weights)
{
    tl_weights_t *self = weights;
    const tl_model_t *model = tl_part_model (self->part);
    int64_t began = tl_clock_us ();
    char stamp[TL_MODEL_DIGEST];
    if (tl_part_stamp (self->part, stamp, &self->err))
        return;
    tl_model_sample (model, self->sample);
    char *path = tl_format ("%s/%s", self->directory, TL_SAVE_WEIGHTS);
    bool noted = s_noted (path, stamp, self->contents);
    if (!noted) {
        tl_part_contents (self->part, self->contents);
        char *note = tl_format ("%s %s\n", stamp, self->contents);
        tl_error_t err;
        //  Without the note it is done again
        if (tl_exists (self->directory) && tl_file_write (path, note, strlen (note), 0644, &err))
            tl_debug ("%s", err.text);
        free (note);
    }
    free (path);
    self->seconds = (double)(tl_clock_us () - began) * 1e-6;
    tl_debug ("the weights' hash is %s, %s in %.3f s", self->contents, noted ? "as noted," : "read",
              self->seconds);
}

void
tl_weights_drop (void *weights)
{
    //  It is its owner's
}

void
tl_weights_bind (const tl_weights_t *self, tl_agreements_t *agreements, bool worker)
{
    tl_agreements_bind (agreements, "model.weights", self->sample);
    tl_agreements_bind (agreements, worker ? "model.trunk" : "model.ends", self->contents);
}
