/*  contents: hashes that tell weights apart, see model.h. Of a sample of the whole checkpoint, and of every byte
    of a part.

    Read from the mappings in pieces that leave the process at once: what is mapped later, when it is computed
    with, is what the memory plan counts.                                                            */

#include "internal.h"

#include "base/assert.h"
#include "file.h"
#include "hash.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum {
    PIECE = 4 << 20, //  bytes of a tensor that are in memory at once
    SAMPLE = 512     //  bytes from each end of a tensor
};

_Static_assert((int)TL_MODEL_DIGEST == (int)TL_DIGEST_TEXT, "one size of text");

static const unsigned char *
s_begin (const tl_model_t *model, const tl_slot_t *slot, tl_digest_t *digest, size_t *size)
{
    const unsigned char *data = tl_model_bytes (model, slot->name, size);
    tl_assert (data); //  the model was checked when it was opened
    tl_digest_add (digest, slot->name, strlen (slot->name) + 1);
    tl_digest_add_number (digest, *size);
    return data;
}

void
tl_model_sample (const tl_model_t *self, char text[TL_MODEL_DIGEST])
{
    const tl_config_t *config = tl_model_config (self);
    tl_digest_t *digest = tl_digest_new ();
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        size_t size;
        tl_layout_at (config, i, &slot);
        const unsigned char *data = s_begin (self, &slot, digest, &size);
        size_t part = size < SAMPLE ? size : SAMPLE;
        tl_digest_add (digest, data, part);
        tl_digest_add (digest, data + size - part, part);
        tl_map_forget (data, size);
    }
    tl_digest_end (&digest, text);
}

int
tl_part_stamp (const tl_part_t *self, char text[TL_MODEL_DIGEST], tl_error_t *err)
{
    tl_digest_t *digest = tl_digest_new ();
    const char *manifest = tl_model_manifest_hash (self->model);
    char path[PATH_MAX];
    int rc = 0;
    tl_digest_add (digest, manifest, strlen (manifest));
    for (size_t i = 0; i < self->range_count; i++) {
        tl_digest_add_number (digest, self->ranges[i].embed);
        tl_digest_add_number (digest, self->ranges[i].first);
        tl_digest_add_number (digest, self->ranges[i].last);
        tl_digest_add_number (digest, self->ranges[i].head);
    }
    for (size_t i = 0; tl_model_file (self->model, i, path, sizeof path); i++) {
        struct stat status;
        if (stat (path, &status)) {
            rc = tl_fail (err, TL_BAD_INPUT, "%s can't be looked at: %s; put it back", path,
                          strerror (errno));
            break;
        }
        tl_digest_add (digest, path, strlen (path) + 1);
        tl_digest_add_number (digest, (uint64_t)status.st_size);
        tl_digest_add_number (digest, (uint64_t)status.st_ino);
        tl_digest_add_number (digest, (uint64_t)status.st_mtim.tv_sec);
        tl_digest_add_number (digest, (uint64_t)status.st_mtim.tv_nsec);
    }
    tl_digest_end (&digest, text);
    return rc;
}

//  A tied head computes with the embedding's table.
static bool
s_uses (const tl_part_t *part, const tl_config_t *config, const tl_slot_t *slot)
{
    for (size_t i = 0; i < part->range_count; i++) {
        const tl_range_t *range = &part->ranges[i];
        switch (slot->role) {
        case TL_SLOT_EMBED:
            if (range->embed || (range->head && config->tied))
                return true;
            break;
        case TL_SLOT_FINAL:
        case TL_SLOT_FINAL_BIAS:
        case TL_SLOT_HEAD:
            if (range->head)
                return true;
            break;
        default:
            if (slot->block >= range->first && slot->block < range->last)
                return true;
        }
    }
    return false;
}

const tl_model_t *
tl_part_model (const tl_part_t *self)
{
    return self->model;
}

void
tl_part_contents (const tl_part_t *self, char text[TL_MODEL_DIGEST])
{
    const tl_config_t *config = tl_model_config (self->model);
    tl_digest_t *digest = tl_digest_new ();
    for (size_t i = 0; i < tl_layout_count (config); i++) {
        tl_slot_t slot;
        size_t size;
        tl_layout_at (config, i, &slot);
        if (!s_uses (self, config, &slot))
            continue;
        const unsigned char *data = s_begin (self->model, &slot, digest, &size);
        for (size_t at = 0; at < size; at += PIECE) {
            size_t piece = size - at < PIECE ? size - at : PIECE;
            tl_digest_add (digest, data + at, piece);
            tl_map_forget (data + at, piece);
        }
    }
    tl_digest_end (&digest, text);
}
