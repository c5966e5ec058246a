//  checkpoint: Hugging Face's file names for one or several safetensors files, filled in turn.

#include "model/checkpoint.h"

#include "assert.h"
#include "file.h"
#include "memory.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    size_t first, count; //  tensors of this file
    size_t bytes;        //  of their data
    tl_writer_t writer;
} s_shard_t;

struct tl_checkpoint {
    char *directory;
    const tl_st_tensor_t *tensors; //  [count], the caller's
    s_shard_t *shards;             //  [shard_count]
    size_t shard_count;
    size_t shard; //  being filled
    size_t left;  //  bytes that it lacks
    int mode;     //  of the files of weights
};

static void
s_name (const tl_checkpoint_t *self, size_t shard, char name[64])
{
    if (self->shard_count == 1)
        snprintf (name, 64, "model.safetensors");
    else
        snprintf (name, 64, "model-%05zu-of-%05zu.safetensors", shard + 1, self->shard_count);
}

//  Tensors go into a file in order for as long as there is room.
static void
s_divide (tl_checkpoint_t *self, size_t count, size_t shard_bytes)
{
    self->shards = tl_alloc ((count + 1) * sizeof *self->shards);
    self->shards[0].writer.fd = -1;
    self->shard_count = 1;
    for (size_t i = 0; i < count; i++) {
        s_shard_t *shard = &self->shards[self->shard_count - 1];
        size_t bytes = self->tensors[i].bytes;
        if (shard_bytes && shard->count > 0 && shard->bytes + bytes > shard_bytes) {
            shard = &self->shards[self->shard_count++];
            *shard = (s_shard_t){.first = i, .writer = {.fd = -1}};
        }
        shard->count++;
        shard->bytes += bytes;
    }
}

static int
s_open (tl_checkpoint_t *self, tl_error_t *err)
{
    static const char *const metadata[] = {"format", "pt", NULL}; //  transformers asks for it
    s_shard_t *shard = &self->shards[self->shard];
    char name[64], path[PATH_MAX];
    s_name (self, self->shard, name);
    if (snprintf (path, sizeof path, "%s/%s", self->directory, name) >= PATH_MAX)
        return tl_fail (err, TL_BAD_INPUT, "the path %.200s... is too long; use a shorter one",
                        self->directory);
    if (tl_writer_open (&shard->writer, path, self->mode, err) != 0)
        return -1;
    const tl_st_tensor_t **tensors = tl_alloc ((shard->count + 1) * sizeof *tensors);
    for (size_t i = 0; i < shard->count; i++)
        tensors[i] = &self->tensors[shard->first + i];
    size_t size = 0;
    void *header = tl_safetensors_header (tensors, shard->count, metadata, &size);
    int rc = tl_writer_add (&shard->writer, header, size, err);
    free (header);
    free (tensors);
    self->left = shard->bytes;
    return rc;
}

tl_checkpoint_t *
tl_checkpoint_new (const char *directory, const tl_st_tensor_t *tensors, size_t count,
                   size_t shard_bytes, int mode, tl_error_t *err)
{
    tl_checkpoint_t *self = tl_alloc (sizeof *self);
    self->directory = tl_strdup (directory);
    self->tensors = tensors;
    self->mode = mode;
    s_divide (self, count, shard_bytes);
    if (s_open (self, err) != 0)
        tl_checkpoint_destroy (&self);
    return self;
}

int
tl_checkpoint_add (tl_checkpoint_t *self, const void *data, size_t size, tl_error_t *err)
{
    const char *from = data;
    while (size > 0) {
        if (self->left == 0) {
            tl_assert (self->shard + 1 < self->shard_count);
            self->shard++;
            if (s_open (self, err) != 0)
                return -1;
        }
        size_t piece = size < self->left ? size : self->left;
        if (tl_writer_add (&self->shards[self->shard].writer, from, piece, err) != 0)
            return -1;
        self->left -= piece;
        from += piece;
        size -= piece;
    }
    return 0;
}

static int
s_write_index (const tl_checkpoint_t *self, tl_error_t *err)
{
    json_t *map = json_object ();
    json_int_t total = 0;
    for (size_t s = 0; s < self->shard_count; s++) {
        char name[64];
        s_name (self, s, name);
        total += (json_int_t)self->shards[s].bytes;
        for (size_t i = 0; i < self->shards[s].count; i++)
            json_object_set_new (map, self->tensors[self->shards[s].first + i].name,
                                 json_string (name));
    }
    json_t *index =
        json_pack ("{s:{s:I}, s:o}", "metadata", "total_size", total, "weight_map", map);
    char *text = json_dumps (index, JSON_INDENT (2)), path[PATH_MAX];
    json_decref (index);
    snprintf (path, sizeof path, "%s/model.safetensors.index.json", self->directory);
    int rc = tl_file_write (path, text, strlen (text), 0644, err);
    free (text);
    return rc;
}

int
tl_checkpoint_finish (tl_checkpoint_t *self, tl_error_t *err)
{
    tl_assert (self->left == 0 && self->shard + 1 == self->shard_count);
    for (size_t i = 0; i < self->shard_count; i++)
        if (tl_writer_commit (&self->shards[i].writer, err) != 0)
            return -1;
    return self->shard_count > 1 ? s_write_index (self, err) : 0;
}

void
tl_checkpoint_destroy (tl_checkpoint_t **self_p)
{
    tl_checkpoint_t *self = *self_p;
    if (!self)
        return;
    for (size_t i = 0; i < self->shard_count; i++)
        tl_writer_drop (&self->shards[i].writer);
    free (self->shards);
    free (self->directory);
    free (self);
    *self_p = NULL;
}
