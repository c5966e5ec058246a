/*  layout: an example as the ids that its family is trained on.

      chatglm   prompt [gMASK] <sop> answer <eop>      learnt: <sop>, answer, <eop>
      llama     <s> prompt answer </s>                 learnt: answer, </s>

    Prompt and answer are tokenized apart, each with SentencePiece's own leading space. Conversations take
    the layouts of ChatGLM-6B ([Round 0] ...) and Llama 2 ([INST] ...). Templates of other
    models aren't known here: give such text as {prompt, completion}.                               */

#include "internal.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  A growing text.
typedef struct {
    char *data;
    size_t size;
} text_t;

//  A growing list of ids.
typedef struct {
    int32_t *data;
    size_t count;
} ids_t;

static void
s_add (text_t *text, const char *data, size_t size)
{
    char *grown = realloc (text->data, text->size + size + 1);
    if (!grown)
        abort ();
    if (size)
        memcpy (grown + text->size, data, size);
    text->data = grown;
    text->size += size;
}

static void
s_add_words (text_t *text, const char *words)
{
    s_add (text, words, strlen (words));
}

//  Special ids that a family doesn't have are -1 and add nothing.
static void
s_add_id (ids_t *ids, int32_t id)
{
    if (id < 0)
        return;
    ids->data = realloc (ids->data, (ids->count + 1) * sizeof *ids->data);
    if (!ids->data)
        abort ();
    ids->data[ids->count++] = id;
}

static void
s_add_text (ids_t *ids, const tl_tokenizer_t *tokenizer, const char *text, size_t size)
{
    size_t count = 0;
    int32_t *more = tl_tokenizer_encode (tokenizer, text, size, &count);
    ids->data = realloc (ids->data, (ids->count + count + 1) * sizeof *ids->data);
    if (!ids->data)
        abort ();
    if (count)
        memcpy (ids->data + ids->count, more, count * sizeof *more);
    ids->count += count;
    free (more);
}

//  ---------------------------------------------------------------------------------------------
//  Prompts

//  ChatGLM-6B's own chat prompt; a system message has no place in it. One turn is just the question.
static void
s_chatglm_chat (ids_t *prompt, const tl_tokenizer_t *tokenizer, const tl_example_t *example)
{
    text_t text = {0};
    char round[64];
    size_t first = example->said[0].speaker == TL_SAID_SYSTEM ? 1 : 0;
    bool single = example->count - first == 2;
    s_add (&text, "", 0);
    for (size_t i = first; i + 1 < example->count; i += 2) {
        const tl_said_t *question = &example->said[i], *answer = &example->said[i + 1];
        if (!single) {
            snprintf (round, sizeof round, "[Round %zu]\n问：", (i - first) / 2);
            s_add_words (&text, round);
        }
        s_add (&text, question->text, question->size);
        if (!single)
            s_add_words (&text, "\n答：");
        if (i + 2 < example->count) {
            s_add (&text, answer->text, answer->size);
            s_add_words (&text, "\n");
        }
    }
    s_add_text (prompt, tokenizer, text.data, text.size);
    free (text.data);
}

//  Llama 2's: each turn begins with <s> and, once answered, ends with </s>.
static void
s_llama_chat (ids_t *prompt, const tl_tokenizer_t *tokenizer, const tl_example_t *example)
{
    const tl_config_t *config = tl_tokenizer_config (tokenizer);
    size_t first = example->said[0].speaker == TL_SAID_SYSTEM ? 1 : 0;
    for (size_t i = first; i + 1 < example->count; i += 2) {
        text_t text = {0};
        s_add_words (&text, "[INST] ");
        if (i == first && first == 1) {
            s_add_words (&text, "<<SYS>>\n");
            s_add (&text, example->said[0].text, example->said[0].size);
            s_add_words (&text, "\n<</SYS>>\n\n");
        }
        s_add (&text, example->said[i].text, example->said[i].size);
        s_add_words (&text, " [/INST]");
        bool answered = i + 2 < example->count;
        if (answered) {
            s_add_words (&text, " ");
            s_add (&text, example->said[i + 1].text, example->said[i + 1].size);
            s_add_words (&text, " ");
        }
        s_add_id (prompt, config->bos);
        s_add_text (prompt, tokenizer, text.data, text.size);
        if (answered)
            s_add_id (prompt, config->eos);
        free (text.data);
    }
}

static void
s_prompt (ids_t *prompt, const tl_tokenizer_t *tokenizer, const tl_example_t *example)
{
    const tl_config_t *config = tl_tokenizer_config (tokenizer);
    bool llama = config->family == TL_FAMILY_LLAMA;
    if (example->chat && llama)
        s_llama_chat (prompt, tokenizer, example);
    else if (example->chat)
        s_chatglm_chat (prompt, tokenizer, example);
    else {
        if (llama)
            s_add_id (prompt, config->bos);
        if (!example->whole)
            s_add_text (prompt, tokenizer, example->said[0].text, example->said[0].size);
    }
}

//  ---------------------------------------------------------------------------------------------
//  Whole examples

//  Cuts prompt and answer to room ids. The prompt loses its beginning (but for begin, the id that opens every
//  sequence), for what stands next to the answer matters most; it gives way down to half of the room, then
//  the answer loses its end.
static bool
s_shorten (ids_t *prompt, ids_t *answer, size_t room, int32_t begin)
{
    if (prompt->count + answer->count <= room)
        return false;
    size_t left = room > prompt->count ? room - prompt->count : 0;
    size_t keep = left > room / 2 ? left : room / 2;
    if (answer->count > keep)
        answer->count = keep;
    keep = room - answer->count;
    if (prompt->count > keep) {
        bool opened = keep > 0 && prompt->data[0] == begin;
        memmove (prompt->data, prompt->data + (prompt->count - keep), keep * sizeof *prompt->data);
        prompt->count = keep;
        if (opened)
            prompt->data[0] = begin;
    }
    return true;
}

void
tl_layout_example (tl_sequence_t *self, const tl_tokenizer_t *tokenizer,
                   const tl_example_t *example, size_t max_length)
{
    const tl_config_t *config = tl_tokenizer_config (tokenizer);
    const tl_said_t *learnt = &example->said[example->count - 1];
    const bool glm = config->family == TL_FAMILY_CHATGLM;
    ids_t prompt = {0}, answer = {0};
    s_prompt (&prompt, tokenizer, example);
    s_add_text (&answer, tokenizer, learnt->text, learnt->size);
    s_add_id (&answer, config->eos);

    memset (self, 0, sizeof *self);
    self->shortened =
        s_shorten (&prompt, &answer, max_length - (glm ? 2 : 0), glm ? -1 : config->bos);
    if (glm) {
        s_add_id (&prompt, config->gmask);
        s_add_id (&prompt, config->sop);
        self->context = prompt.count - 1;
    }
    //  The row of [gMASK] is trained to emit <sop>; Llama's last prompt row the answer's first id.
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
}

void
tl_prompt_make (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, const char *text, size_t length)
{
    const tl_config_t *config = tl_tokenizer_config (tokenizer);
    const bool glm = config->family == TL_FAMILY_CHATGLM;
    ids_t ids = {0};
    if (!glm)
        s_add_id (&ids, config->bos);
    s_add_text (&ids, tokenizer, text, length);
    if (glm) {
        s_add_id (&ids, config->gmask);
        s_add_id (&ids, config->sop);
    }
    *self = (tl_prompt_t){.ids = ids.data, .count = ids.count};
    if (glm) {
        self->context = (uint32_t)ids.count - 1;
        self->mask = (uint32_t)ids.count - 2;
    }
}

void
tl_prompt_clear (tl_prompt_t *self)
{
    free (self->ids);
    memset (self, 0, sizeof *self);
}
