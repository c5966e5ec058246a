//  chat: a conversation in the terminal, or from lines on stdin: a line is a turn, the answer comes as it is written.

#ifndef TL_CLI_CHAT_H
#define TL_CLI_CHAT_H

#include "cli/engine.h"

#include <jansson.h>

//  Set by Ctrl-C once tl_interruptible was called; whoever acts on it clears it.
extern volatile sig_atomic_t tl_interrupted;
void tl_interruptible (void);

//  writing: everything but the prompt. system: a system message, or NULL. Until the end of stdin or /exit.
int tl_chat (tl_engine_t *engine, const tl_writing_options_t *writing, const char *system,
             tl_format_t format, tl_error_t *err);

//  Refuses text [size] that isn't UTF-8: neither JSON nor a tokenizer can say it. what: of the sentence.
int tl_chat_check (const char *what, const char *text, size_t size, tl_error_t *err);

//  What came of a text, as `generate` tells it; prompt is the last thing that was said.
json_t *tl_written_json (const tl_said_t *prompt, const tl_written_t *written, double seconds);

#endif
