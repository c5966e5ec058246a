//  shorten: a prompt that is too long loses its beginning, for what stands next to the answer matters most.

#include "internal.h"

#include <string.h>

//  Ids that begin every prompt of the family: what an empty one consists of, unless that stands at the end.
static size_t
s_lead (const tl_prompt_t *prompt, const tl_tokenizer_t *tokenizer)
{
    tl_prompt_t empty;
    if (prompt->context)
        return 0;
    tl_prompt_make (&empty, tokenizer, "", 0);
    size_t lead = 0;
    while (lead < empty.count && lead < prompt->count && empty.ids[lead] == prompt->ids[lead])
        lead++;
    tl_prompt_clear (&empty);
    return lead;
}

bool
tl_prompt_shorten (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, size_t room)
{
    if (self->count <= room)
        return false;
    size_t lead = s_lead (self, tokenizer), excess = self->count - room;
    size_t most = self->context ? self->mask : self->count - lead;
    excess = excess < most ? excess : most;
    memmove (self->ids + lead, self->ids + lead + excess,
             (self->count - lead - excess) * sizeof *self->ids);
    self->count -= excess;
    if (self->context) {
        self->context -= (uint32_t)excess;
        self->mask -= (uint32_t)excess;
    }
    return excess > 0;
}
