//  For tests that need text and a model that reads it: a tiny random model with a tiny tokenizer of its own.

#ifndef TEXT_FIXTURE_H
#define TEXT_FIXTURE_H

#include "data/data.h"
#include "fed/parts.h"
#include "file.h"
#include "memory.h"
#include "tiny_model.h"
#include "tiny_tokenizer.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    char *directory; //  its own, removed at the end
    tl_config_t config;
    tl_model_t *model;
    tl_tokenizer_t *tokenizer;
    tl_chain_t *chain;
} text_fixture_t;

static inline text_fixture_t
text_fixture (tl_family_t family)
{
    tl_error_t err = {.text = ""};
    text_fixture_t self = {.directory = tiny_directory (),
                           .config = tiny_tokenizer_config (family)};
    tiny_model_t spec = family == TL_FAMILY_CHATGLM ? tiny_chatglm () : tiny_llama (true);
    spec.vocab = self.config.vocab;
    self.model = tiny_model_open (&spec);
    if (tiny_tokenizer_write (family, self.directory, &err) ||
        !(self.tokenizer = tl_tokenizer_open (self.directory, &self.config, &err)) ||
        !(self.chain = tl_chain_plain (self.model, NULL, &err)))
        fail_msg ("%s", err.text);
    return self;
}

static inline void
text_fixture_end (text_fixture_t *self)
{
    tl_chain_destroy (&self->chain);
    tl_tokenizer_destroy (&self->tokenizer);
    tl_model_destroy (&self->model);
    tl_remove_tree (self->directory);
    free (self->directory);
}

//  Writes a file into the directory; the path is freed by the caller.
static inline char *
text_fixture_file (const text_fixture_t *self, const char *name, const char *text)
{
    tl_error_t err = {.text = ""};
    char *path = tl_format ("%s/%s", self->directory, name);
    if (tl_file_write (path, text, strlen (text), 0644, &err))
        fail_msg ("%s", err.text);
    return path;
}

#endif
