/*  spm_file: SentencePiece's file format, as far as it must be known from outside: models are checked before the library
    reads them (it trusts tables and numbers in them that a hostile file can aim anywhere), and made from a list of
    pieces. Private to src/data.                                                                    */

#ifndef TL_DATA_SPM_FILE_H
#define TL_DATA_SPM_FILE_H

#include "error.h"
#include "lists.h"

#include <stdbool.h>
#include <stddef.h>

//  The format's own numbers.
typedef enum {
    TL_SPM_NORMAL = 1,
    TL_SPM_UNKNOWN,
    TL_SPM_CONTROL,
    TL_SPM_USER,
    TL_SPM_UNUSED,
    TL_SPM_BYTE
} tl_spm_kind_t;

typedef struct {
    bool dummy_prefix; //  a space is put before every text
    bool strips;       //  spaces at both ends, and all but one in a row, are dropped
} tl_spm_rules_t;

//  One piece of a model that was checked. It lies in the model.
typedef struct {
    const char *text; //  [size], no NULs; well-formed UTF-8
    size_t size;
    float score;
    tl_spm_kind_t kind;
} tl_spm_piece_t;

//  Checks a serialised model and gives its rules and pieces [*count], which the caller frees. NULL and a sentence that names
//  the file and the piece otherwise.
tl_spm_piece_t *tl_spm_check (const char *name, const void *data, size_t size,
                              tl_spm_rules_t *rules, size_t *count, tl_error_t *err);

//  A serialised BPE model of these pieces with the identity normaliser; the caller frees out's data.
void tl_spm_make (tl_text_t *out, const tl_spm_piece_t *pieces, size_t count,
                  const tl_spm_rules_t *rules);

#endif
