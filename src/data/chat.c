/*  chat: how conversations are laid out, vendor by vendor. No template engine: a model's chat_template is only looked at
    to see which of the known layouts it is.

      chatglm    one question as it is, several as [Round 0] / 问： / 答：         (ChatGLM-6B)
      chatglm2   [gMASK] sop, always in rounds, from 1, with empty lines
      chatglm3   [gMASK] sop, per message <|role|>, a line end, the text; each part tokenized apart; also GLM-4's
      llama2     per turn <s>[INST] question [/INST] answer </s>; the system message in <<SYS>>
      mistral    <s>, per turn [INST] question [/INST] answer</s>; the system message before the first question (the last
                 one where [INST] is a token of its own)
      llama3     <|begin_of_text|>, per message <|start_header_id|>role<|end_header_id|>, two line ends, the text, <|eot_id|>
      chatml     per message <|im_start|>role, a line end, the text, <|im_end|>, a line end  (Qwen2, SmolLM2)

    What people say is text: names of special tokens in it stay letters.                            */

#include "tokenizer_internal.h"

#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//  Default system messages of ChatML models, and what gives the model away: words of its template, or, where there is none,
//  a special token that the others lack.
static const struct {
    const char *words, *token, *system;
} s_systems[] = {
    {"named SmolLM", "<repo_name>",
     "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"You are Qwen, created by Alibaba Cloud", "<tool_call>",
     "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"You are a helpful assistant", NULL, "You are a helpful assistant."},
};

//  ---------------------------------------------------------------------------------------------
//  Which one

static bool
s_has (const tl_tokenizer_t *self, const char *name)
{
    return tl_tokenizer_special (self, name) >= 0;
}

static tl_chat_t
s_layout (const tl_tokenizer_t *self, const char *template)
{
    if (self->config.family == TL_FAMILY_CHATGLM)
        return TL_CHAT_CHATGLM;
    if (self->config.family == TL_FAMILY_GLM)
        return !self->spm                      ? TL_CHAT_GLM4
               : s_has (self, "<|assistant|>") ? TL_CHAT_CHATGLM3
                                               : TL_CHAT_CHATGLM2;
    if (s_has (self, "<|im_start|>") && s_has (self, "<|im_end|>") &&
        (!template || strstr (template, "<|im_start|>")))
        return TL_CHAT_CHATML;
    if (s_has (self, "<|start_header_id|>") && s_has (self, "<|end_header_id|>") &&
        s_has (self, "<|eot_id|>"))
        return TL_CHAT_LLAMA3;
    if (template && strstr (template, "[INST]"))
        return strstr (template, "<<SYS>>") ? TL_CHAT_LLAMA2 : TL_CHAT_MISTRAL;
    if (template)
        return TL_CHAT_NONE;
    return s_has (self, "[INST]") ? TL_CHAT_MISTRAL : self->spm ? TL_CHAT_LLAMA2 : TL_CHAT_NONE;
}

static const char *
s_system (const tl_tokenizer_t *self, const char *template)
{
    for (size_t i = 0; i < sizeof s_systems / sizeof *s_systems; i++)
        if (template ? strstr (template, s_systems[i].words) != NULL
                     : (s_systems[i].token ? s_has (self, s_systems[i].token)
                                           : self->config.family == TL_FAMILY_QWEN2))
            return s_systems[i].system;
    return NULL;
}

static void
s_add_stop (tl_tokenizer_t *self, int32_t id)
{
    for (size_t i = 0; i < self->stop_count; i++)
        if (self->stops[i] == id)
            return;
    if (id >= 0 && self->stop_count < TL_MAX_STOPS)
        self->stops[self->stop_count++] = id;
}

//  Everything that ends an answer in one layout or another; ChatGLM-6B has one such id and more words like it.
static void
s_find_stops (tl_tokenizer_t *self)
{
    static const char *const names[] = {"</s>",       "<|endoftext|>", "<|end_of_text|>",
                                        "<|im_end|>", "<|eot_id|>",    "<|eom_id|>"};
    static const char *const roles[] = {"<|user|>", "<|observation|>"};
    s_add_stop (self, self->config.eos);
    if (self->config.family == TL_FAMILY_CHATGLM)
        return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        s_add_stop (self, tl_tokenizer_special (self, names[i]));
    for (size_t i = 0; i < 2 && self->config.family == TL_FAMILY_GLM; i++)
        s_add_stop (self, tl_tokenizer_special (self, roles[i]));
}

void
tl_chat_find (tl_tokenizer_t *self, const tl_hints_t *hints)
{
    const char *template = hints->chat_template;
    self->chat = s_layout (self, template);
    if (self->chat == TL_CHAT_CHATML)
        self->system = s_system (self, template);
    self->dated =
        self->chat == TL_CHAT_LLAMA3 && template && strstr (template, "Cutting Knowledge");
    s_find_stops (self);
}

//  ---------------------------------------------------------------------------------------------
//  Writing

//  Words collect until a special token or the end: what is tokenized as one.
typedef struct {
    const tl_tokenizer_t *by;
    tl_text_t text;
    tl_ids_t *ids;
} writer_t;

static void
s_flush (writer_t *self)
{
    size_t count = 0;
    int32_t *ids = tl_tokenizer_encode (self->by, self->text.data, self->text.size, &count);
    tl_ids_join (self->ids, ids, count);
    free (ids);
    self->text.size = 0;
}

static void
s_words (writer_t *self, const char *words)
{
    tl_text_words (&self->text, words);
}

static void
s_say (writer_t *self, const tl_said_t *said)
{
    tl_text_add (&self->text, said->text, said->size);
}

static void
s_id (writer_t *self, int32_t id)
{
    if (self->text.size)
        s_flush (self);
    if (id >= 0)
        tl_ids_add (self->ids, id);
}

static void
s_special (writer_t *self, const char *name)
{
    s_id (self, tl_tokenizer_special (self->by, name));
}

//  Without the blanks around it, as Python's strip and Jinja's trim leave it (ASCII's are what people type).
static tl_said_t
s_trimmed (const tl_said_t *said)
{
    static const char blanks[] = " \t\n\r\f\v";
    tl_said_t trimmed = *said;
    while (trimmed.size && trimmed.text[0] && strchr (blanks, trimmed.text[0])) {
        trimmed.text++;
        trimmed.size--;
    }
    while (trimmed.size && trimmed.text[trimmed.size - 1] &&
           strchr (blanks, trimmed.text[trimmed.size - 1]))
        trimmed.size--;
    return trimmed;
}

static const char *
s_role (tl_speaker_t speaker)
{
    return speaker == TL_SAID_SYSTEM ? "system" : speaker == TL_SAID_USER ? "user" : "assistant";
}

//  ---------------------------------------------------------------------------------------------
//  Layouts. said [count] is checked: perhaps a system message, then questions and answers in turn, a question last.

static void
s_rounds (writer_t *self, const tl_said_t *said, size_t count)
{
    const bool old = self->by->chat == TL_CHAT_CHATGLM;
    size_t first = said[0].speaker == TL_SAID_SYSTEM;
    const char *gap = old ? "\n" : "\n\n";
    char round[64];
    if (!old) {
        s_special (self, "[gMASK]");
        s_special (self, "sop");
    }
    if (old && count - first == 1) {
        s_say (self, &said[first]);
        return;
    }
    for (size_t i = first; i < count; i += 2) {
        snprintf (round, sizeof round, "[Round %zu]%s问：", (i - first) / 2 + !old, gap);
        s_words (self, round);
        s_say (self, &said[i]);
        s_words (self, gap);
        s_words (self, "答：");
        if (i + 1 < count) {
            s_say (self, &said[i + 1]);
            s_words (self, gap);
        }
    }
}

//  ChatGLM3's and GLM-4's. The line end and the text are tokenized apart, so they never become one.
static void
s_glm (writer_t *self, const tl_said_t *said, size_t count)
{
    s_special (self, "[gMASK]");
    s_special (self, self->by->chat == TL_CHAT_GLM4 ? "<sop>" : "sop");
    for (size_t i = 0; i < count; i++) {
        char *role = tl_format ("<|%s|>", s_role (said[i].speaker));
        s_special (self, role);
        free (role);
        s_words (self, "\n");
        s_flush (self);
        s_say (self, &said[i]);
        s_flush (self);
    }
    s_special (self, "<|assistant|>");
}

static void
s_llama2 (writer_t *self, const tl_said_t *said, size_t count)
{
    const tl_config_t *config = &self->by->config;
    size_t first = said[0].speaker == TL_SAID_SYSTEM;
    for (size_t i = first; i < count; i += 2) {
        tl_said_t question = s_trimmed (&said[i]);
        s_id (self, config->bos);
        s_words (self, "[INST] ");
        if (i == 1 && first == 1) {
            s_words (self, "<<SYS>>\n");
            s_say (self, &said[0]);
            s_words (self, "\n<</SYS>>\n\n");
            //  Only the whole is stripped.
            size_t end = (size_t)(question.text - said[i].text) + question.size;
            question = (tl_said_t){TL_SAID_USER, said[i].text, end};
        }
        s_say (self, &question);
        s_words (self, " [/INST]");
        if (i + 1 < count) {
            tl_said_t answer = s_trimmed (&said[i + 1]);
            s_words (self, " ");
            s_say (self, &answer);
            s_words (self, " ");
            s_id (self, config->eos);
        }
    }
}

static void
s_mistral (writer_t *self, const tl_said_t *said, size_t count)
{
    const bool tokens = s_has (self->by, "[INST]");
    size_t first = said[0].speaker == TL_SAID_SYSTEM, spoken = tokens ? count - 1 : first;
    s_id (self, self->by->config.bos);
    for (size_t i = first; i < count; i += 2) {
        if (tokens)
            s_special (self, "[INST]");
        else
            s_words (self, "[INST] ");
        if (first == 1 && i == spoken) {
            s_say (self, &said[0]);
            s_words (self, "\n\n");
        }
        s_say (self, &said[i]);
        if (tokens)
            s_special (self, "[/INST]");
        else
            s_words (self, " [/INST]");
        if (i + 1 < count) {
            s_flush (self);
            s_say (self, &said[i + 1]);
            s_id (self, self->by->config.eos);
        }
    }
}

static void
s_header (writer_t *self, tl_speaker_t speaker)
{
    s_special (self, "<|start_header_id|>");
    s_words (self, s_role (speaker));
    s_special (self, "<|end_header_id|>");
    s_words (self, "\n\n");
}

static void
s_llama3 (writer_t *self, const tl_said_t *said, size_t count)
{
    size_t first = said[0].speaker == TL_SAID_SYSTEM;
    s_special (self, "<|begin_of_text|>");
    if (self->by->dated || first) {
        s_header (self, TL_SAID_SYSTEM);
        //  The day is the template's own where it can't ask: what is written doesn't change from day to day.
        if (self->by->dated)
            s_words (self, "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
        if (first) {
            tl_said_t system = s_trimmed (&said[0]);
            s_say (self, &system);
        }
        s_special (self, "<|eot_id|>");
    }
    for (size_t i = first; i < count; i++) {
        tl_said_t one = s_trimmed (&said[i]);
        s_header (self, one.speaker);
        s_say (self, &one);
        s_special (self, "<|eot_id|>");
    }
    s_header (self, TL_SAID_ASSISTANT);
}

static void
s_chatml_open (writer_t *self, tl_speaker_t speaker)
{
    s_special (self, "<|im_start|>");
    s_words (self, s_role (speaker));
    s_words (self, "\n");
}

static void
s_chatml (writer_t *self, const tl_said_t *said, size_t count)
{
    if (said[0].speaker != TL_SAID_SYSTEM && self->by->system) {
        s_chatml_open (self, TL_SAID_SYSTEM);
        s_words (self, self->by->system);
        s_special (self, "<|im_end|>");
        s_words (self, "\n");
    }
    for (size_t i = 0; i < count; i++) {
        s_chatml_open (self, said[i].speaker);
        s_say (self, &said[i]);
        s_special (self, "<|im_end|>");
        s_words (self, "\n");
    }
    s_chatml_open (self, TL_SAID_ASSISTANT);
}

//  ---------------------------------------------------------------------------------------------

static int
s_check_turns (const tl_said_t *said, size_t count, tl_error_t *err)
{
    size_t first = count > 0 && said[0].speaker == TL_SAID_SYSTEM;
    bool right = count > first && said[count - 1].speaker == TL_SAID_USER;
    for (size_t i = first; right && i < count; i++)
        right = said[i].speaker == ((i - first) % 2 ? TL_SAID_ASSISTANT : TL_SAID_USER);
    if (right)
        return 0;
    return tl_fail (err, TL_BAD_INPUT,
                    "a conversation of %zu messages that isn't: perhaps a system message, then "
                    "user and assistant in turn, a user's at the end; put the messages in that "
                    "order",
                    count);
}

int
tl_chat_prompt (const tl_tokenizer_t *self, const tl_said_t *said, size_t count, tl_ids_t *out,
                tl_error_t *err)
{
    writer_t writer = {.by = self, .ids = out};
    if (s_check_turns (said, count, err) != 0)
        return -1;
    switch (self->chat) {
    case TL_CHAT_NONE:
        return tl_fail (err, TL_BAD_INPUT,
                        "%s belongs to a model whose layout of conversations isn't known (it may "
                        "have none); give prompt and completion in place of messages",
                        self->path);
    case TL_CHAT_CHATGLM:
    case TL_CHAT_CHATGLM2:
        s_rounds (&writer, said, count);
        break;
    case TL_CHAT_CHATGLM3:
    case TL_CHAT_GLM4:
        s_glm (&writer, said, count);
        break;
    case TL_CHAT_LLAMA2:
        s_llama2 (&writer, said, count);
        break;
    case TL_CHAT_MISTRAL:
        s_mistral (&writer, said, count);
        break;
    case TL_CHAT_LLAMA3:
        s_llama3 (&writer, said, count);
        break;
    case TL_CHAT_CHATML:
        s_chatml (&writer, said, count);
        break;
    }
    if (writer.text.size)
        s_flush (&writer);
    free (writer.text.data);
    return 0;
}

void
tl_chat_answer (const tl_tokenizer_t *self, tl_ids_t *before, int32_t *end)
{
    writer_t writer = {.by = self, .ids = before};
    *end = self->chat == TL_CHAT_CHATML   ? tl_tokenizer_special (self, "<|im_end|>")
           : self->chat == TL_CHAT_LLAMA3 ? tl_tokenizer_special (self, "<|eot_id|>")
                                          : self->config.eos;
    if (self->chat == TL_CHAT_CHATGLM3 || self->chat == TL_CHAT_GLM4) {
        s_words (&writer, "\n");
        s_flush (&writer);
    }
    free (writer.text.data);
}
