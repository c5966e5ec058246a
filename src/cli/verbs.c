//  verbs: the table of all verbs, in the order of the help.

#include "cli/verbs.h"

static const tl_verb_t *const s_verbs[] = {
    &tl_verb_check,    &tl_verb_plan,   &tl_verb_keys,       &tl_verb_up,       &tl_verb_status,
    &tl_verb_down,     &tl_verb_run,    &tl_verb_train,      &tl_verb_eval,     &tl_verb_generate,
    &tl_verb_simulate, &tl_verb_export, &tl_verb_make_model, &tl_verb_quantize,
};

const tl_verb_t *const *
tl_verbs (size_t *count)
{
    *count = sizeof s_verbs / sizeof s_verbs[0];
    return s_verbs;
}
