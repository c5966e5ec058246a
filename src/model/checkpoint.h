/*  checkpoint: a model's tensors written one after another into safetensors files of a bounded size, with an
    index when there are several. Never holds more than it is handed; nothing has its final name before
    everything is there. Knows names, types and shapes, not what they mean.                         */

#ifndef TL_CHECKPOINT_H
#define TL_CHECKPOINT_H

#include "safetensors.h"

typedef struct tl_checkpoint tl_checkpoint_t;

//  Into an existing directory. tensors [count] in the order in which their bytes will come; data is not looked at, the
//  array and names must outlive it. A file holds shard_bytes of data at most, or one tensor; 0: everything in one.
//  mode is that of the files of weights: 0644, or 0600 for what was trained on private text.
tl_checkpoint_t *tl_checkpoint_new (const char *directory, const tl_st_tensor_t *tensors,
                                    size_t count, size_t shard_bytes, int mode, tl_error_t *err);
//  The next size bytes, in pieces as the caller likes; they may not run past the tensors told.
int tl_checkpoint_add (tl_checkpoint_t *self, const void *data, size_t size, tl_error_t *err);
//  After the last byte: the files get their names, the index last. -1 and a sentence when the disk refuses.
int tl_checkpoint_finish (tl_checkpoint_t *self, tl_error_t *err);
//  What wasn't finished is removed.
void tl_checkpoint_destroy (tl_checkpoint_t **self_p);

#endif
