//  verbs: one line a verb; each lives in the file of its name.

#ifndef TL_VERBS_H
#define TL_VERBS_H

#include "cli/verb.h"

extern const tl_verb_t tl_verb_check;
extern const tl_verb_t tl_verb_keys;
extern const tl_verb_t tl_verb_plan;
extern const tl_verb_t tl_verb_up;
extern const tl_verb_t tl_verb_down;
extern const tl_verb_t tl_verb_run;
extern const tl_verb_t tl_verb_simulate;
extern const tl_verb_t tl_verb_status;
extern const tl_verb_t tl_verb_train;
extern const tl_verb_t tl_verb_eval;
extern const tl_verb_t tl_verb_generate;
extern const tl_verb_t tl_verb_export;
extern const tl_verb_t tl_verb_make_model;
extern const tl_verb_t tl_verb_quantize;

#endif
