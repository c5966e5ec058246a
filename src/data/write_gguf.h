/*  write_gguf: a model directory's tokenizer as a GGUF file's metadata, in llama.cpp's terms.      */

#ifndef TL_WRITE_GGUF_H
#define TL_WRITE_GGUF_H

#include "model/gguf_write.h"
#include "model/model.h"

//  Puts tokenizer.ggml.* and the chat template of a directory's tokenizer.model (as "llama") or tokenizer.json
//  (byte-level BPE, as "gpt2"), padded to config->vocab with unused tokens. Nothing is put, and err says why, when the
//  result is -1: there is no such file, or GGUF has no words for what it does.
int tl_tokenizer_write_gguf (const char *directory, const tl_config_t *config,
                             tl_gguf_writer_t *writer, tl_error_t *err);

#endif
