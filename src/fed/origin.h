/*  origin: what a save was made under: every setting that decides what training computes, and hashes of
    model, tokenizer and text. A run goes on from a save only under the same.

    train.steps is left out: a run may become longer. train.memory_mb and threads are, too: they are the
    machine's.                                                                                      */

#ifndef TL_ORIGIN_H
#define TL_ORIGIN_H

#include "data/data.h"
#include "error.h"
#include "model/model.h"
#include "topology/topology.h"

#include <stdint.h>

typedef struct tl_origin tl_origin_t;

//  From the settings; model and tokenizer are read now.
tl_origin_t *tl_origin_new (const tl_topology_t *topology, const tl_model_t *model,
                            const tl_tokenizer_t *tokenizer);
void tl_origin_destroy (tl_origin_t **self_p);
//  Of a text: the hash of its file's bytes. -1 if it can't be read.
int tl_origin_hash (const char *path, uint64_t *hash, tl_error_t *err);
//  Adds a site's text by the hash of its bytes. -1 if the file can't be read.
int tl_origin_text (tl_origin_t *self, const char *site, const char *path, tl_error_t *err);

//  Writes it to path, mode 0600.
int tl_origin_save (const tl_origin_t *self, const char *path, tl_error_t *err);
//  0 if the file at path says the same, else -1 and the first field that differs, with both values.
int tl_origin_check (const tl_origin_t *self, const char *path, tl_error_t *err);

#endif
