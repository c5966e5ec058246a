/*  layout: an example as the ids that its family is trained on.

      chatglm   prompt [gMASK] <sop> answer <eop>      learnt: <sop>, answer, <eop>
      glm       [gMASK] <sop> prompt answer </s>       learnt: answer, </s>     (GLM-4: <|endoftext|>)
      others    <s> prompt answer </s>                 learnt: answer, </s>     (<s> where the tokenizer puts one)

    Prompt and answer are tokenized apart, as in generation, where one is given and the other is made. Conversations are
    chat.c's.                                                                                       */

#include "tokenizer_internal.h"

#include "memory.h"

#include <stdlib.h>
#include <string.h>

static void
s_add_text (tl_ids_t *ids, const tl_tokenizer_t *tokenizer, const char *text, size_t size)
{
    size_t count = 0;
    int32_t *more = tl_tokenizer_encode (tokenizer, text, size, &count);
    tl_ids_join (ids, more, count);
    free (more);
}

//  Special ids that a family doesn't have are -1 and add nothing.
static void
s_add_id (tl_ids_t *ids, int32_t id)
{
    if (id >= 0)
        tl_ids_add (ids, id);
}

//  ---------------------------------------------------------------------------------------------
//  Prompts

//  What every sequence begins with; returns how many ids that is.
static size_t
s_begin (tl_ids_t *ids, const tl_tokenizer_t *tokenizer)
{
    if (tokenizer->config.family == TL_FAMILY_GLM) {
        s_add_id (ids, tl_tokenizer_special (tokenizer, "[gMASK]"));
        s_add_id (ids, tl_tokenizer_special (tokenizer, tokenizer->spm ? "sop" : "<sop>"));
    } else
        s_add_id (ids, tokenizer->bos);
    return ids->count;
}

//  Text with the blanks "[MASK]" in it as ids; the others' names stay letters. *mask is the first one's index, or -1.
static void
s_add_cloze (tl_ids_t *ids, const tl_tokenizer_t *tokenizer, const char *text, size_t size,
             int64_t *mask)
{
    static const char name[] = "[MASK]";
    const size_t length = sizeof name - 1;
    *mask = -1;
    for (;;) {
        const char *found = size ? memmem (text, size, name, length) : NULL;
        size_t before = found ? (size_t)(found - text) : size;
        if (before)
            s_add_text (ids, tokenizer, text, before);
        if (!found)
            return;
        if (*mask < 0)
            *mask = (int64_t)ids->count;
        s_add_id (ids, tokenizer->config.mask);
        text += before + length;
        size -= before + length;
    }
}

//  What is given of an example. *mask as above. Returns how many ids at its beginning must stay, or -1.
static int
s_prompt (tl_ids_t *prompt, const tl_tokenizer_t *tokenizer, const tl_example_t *example,
          bool cloze, int64_t *mask, tl_error_t *err)
{
    *mask = -1;
    if (example->chat) {
        tl_ids_t begin = {0};
        size_t kept = s_begin (&begin, tokenizer);
        free (begin.data);
        return tl_chat_prompt (tokenizer, example->said, example->count - 1, prompt, err) == 0
                   ? (int)kept
                   : -1;
    }
    size_t kept = s_begin (prompt, tokenizer);
    if (example->whole)
        return (int)kept;
    const tl_said_t *said = &example->said[0];
    if (cloze && tokenizer->config.family == TL_FAMILY_CHATGLM)
        s_add_cloze (prompt, tokenizer, said->text, said->size, mask);
    else
        s_add_text (prompt, tokenizer, said->text, said->size);
    return (int)kept;
}

//  ---------------------------------------------------------------------------------------------
//  Whole examples

//  Cuts prompt and answer to room ids. The prompt loses its beginning (but for the begin ids that open every
//  sequence), for what stands next to the answer matters most; it gives way down to half of the room, then
//  the answer loses its end. A blank moves along, and may go (then *mask is -1).
static bool
s_shorten (tl_ids_t *prompt, tl_ids_t *answer, size_t room, size_t begin, int64_t *mask)
{
    if (prompt->count + answer->count <= room)
        return false;
    size_t left = room > prompt->count ? room - prompt->count : 0;
    size_t keep = left > room / 2 ? left : room / 2;
    if (answer->count > keep)
        answer->count = keep;
    keep = room - answer->count;
    if (prompt->count > keep) {
        size_t cut = prompt->count - keep;
        begin = begin < keep ? begin : keep;
        memmove (prompt->data + begin, prompt->data + begin + cut,
                 (keep - begin) * sizeof *prompt->data);
        prompt->count = keep;
        *mask = *mask >= (int64_t)cut ? *mask - (int64_t)cut : -1;
    }
    return true;
}

int
tl_layout_example (tl_sequence_t *self, const tl_tokenizer_t *tokenizer,
                   const tl_example_t *example, size_t max_length, bool cloze, tl_error_t *err)
{
    const tl_config_t *config = &tokenizer->config;
    const tl_said_t *learnt = &example->said[example->count - 1];
    const bool glm = config->family == TL_FAMILY_CHATGLM;
    tl_ids_t prompt = {0}, answer = {0};
    int32_t end = config->eos;
    int64_t mask;
    memset (self, 0, sizeof *self);
    int begin = s_prompt (&prompt, tokenizer, example, cloze, &mask, err);
    if (begin < 0) {
        free (prompt.data);
        return -1;
    }
    if (example->chat)
        tl_chat_answer (tokenizer, &answer, &end);
    s_add_text (&answer, tokenizer, learnt->text, learnt->size);
    s_add_id (&answer, end);

    //  gMASK and sop are put behind whatever is left of the prompt; a blank stands for gMASK.
    size_t added = glm ? (mask < 0 ? 2 : 1) : 0;
    self->shortened =
        s_shorten (&prompt, &answer, max_length - (glm ? 2 : 0), (size_t)begin, &mask);
    if (glm) {
        if (added == 2 || mask < 0)
            s_add_id (&prompt, config->gmask);
        s_add_id (&prompt, config->sop);
        self->context = prompt.count - 1;
        self->mask = mask < 0 ? self->context - 1 : (size_t)mask;
    }
    //  The row before <sop> is trained to emit it; others' last prompt row the answer's first id.
    size_t given = glm ? prompt.count - 1 : prompt.count;
    self->first = given > 0 ? given - 1 : 0;
    self->count = prompt.count + answer.count;
    self->ids = tl_alloc ((self->count + 1) * sizeof *self->ids);
    if (prompt.count)
        memcpy (self->ids, prompt.data, prompt.count * sizeof *self->ids);
    if (answer.count)
        memcpy (self->ids + prompt.count, answer.data, answer.count * sizeof *self->ids);
    free (prompt.data);
    free (answer.data);
    return 0;
}

//  ---------------------------------------------------------------------------------------------
//  Prompts for generation

//  Ends the ids of a prompt and hands them over. mask: the index of a blank in them, or -1.
static void
s_finish (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, tl_ids_t *ids, int64_t mask)
{
    memset (self, 0, sizeof *self);
    if (tokenizer->config.family == TL_FAMILY_CHATGLM) {
        if (mask < 0) {
            mask = (int64_t)ids->count;
            s_add_id (ids, tokenizer->config.gmask);
        }
        s_add_id (ids, tokenizer->config.sop);
        self->context = (uint32_t)ids->count - 1;
        self->mask = (uint32_t)mask;
    }
    self->ids = ids->data;
    self->count = ids->count;
}

void
tl_prompt_make (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, const char *text, size_t length)
{
    tl_ids_t ids = {0};
    s_begin (&ids, tokenizer);
    s_add_text (&ids, tokenizer, text, length);
    s_finish (self, tokenizer, &ids, -1);
}

void
tl_prompt_cloze (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, const char *text,
                 size_t length)
{
    tl_ids_t ids = {0};
    int64_t mask = -1;
    if (tokenizer->config.family != TL_FAMILY_CHATGLM) {
        tl_prompt_make (self, tokenizer, text, length);
        return;
    }
    s_add_cloze (&ids, tokenizer, text, length, &mask);
    s_finish (self, tokenizer, &ids, mask);
}

int
tl_prompt_chat (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, const tl_said_t *said,
                size_t count, tl_error_t *err)
{
    tl_ids_t ids = {0};
    memset (self, 0, sizeof *self);
    if (tl_chat_prompt (tokenizer, said, count, &ids, err) != 0) {
        free (ids.data);
        return -1;
    }
    s_finish (self, tokenizer, &ids, -1);
    return 0;
}

void
tl_prompt_clear (tl_prompt_t *self)
{
    free (self->ids);
    memset (self, 0, sizeof *self);
}
