//  side: the files that lie beside a model's weights: tokenizer, settings of generation, licence, modelling code.

#ifndef TL_SIDE_H
#define TL_SIDE_H

#include "error.h"

//  Copies them from one directory to another that exists: every plain file of at most 256 MB that is neither hidden,
//  nor weights or their index, nor config.json.
int tl_side_copy (const char *from, const char *to, tl_error_t *err);

#endif
