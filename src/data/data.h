/*  data: text in, token ids out.

    tokenizer  text <-> ids, by whatever tokenizer lies beside a checkpoint or inside a GGUF file.
    decoder    ids one by one -> text as soon as its bytes are certain.
    prompt     what generation goes on from: a text, a cloze, a conversation in the model's own layout.
    dataset    a JSONL file as examples: ids, and which of them are to be learnt.
    micro      some examples as the ragged rows that a segment takes (tl_batch_t), for one step of
               training or one slice of an evaluation.

    Text, ids and labels never leave the process that reads them. Which examples a step holds is a pure
    function of (seed, site, step): a run that goes on needs to know nothing but its step. Reads files,
    writes none. A tokenizer is shared freely; a dataset and its micros belong to one thread.      */

#ifndef TL_DATA_H
#define TL_DATA_H

#include "error.h"
#include "model/model.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//  ---------------------------------------------------------------------------------------------
//  Tokenizer

typedef struct tl_tokenizer tl_tokenizer_t;

//  path: a model directory, or one of the files it may hold:
//      ice_text.model, tokenizer.model   SentencePiece (ChatGLM-6B, 2, 3, Llama 2), or GLM-4's tiktoken file
//      tokenizer.json                    byte-level BPE as Hugging Face writes it
//      vocab.json, merges.txt            byte-level BPE as GPT-2 has it; both lie in one directory
//      *.gguf                            tokenizer.ggml.* of its metadata
//  tokenizer_config.json beside it, if any, tells the chat layout. config tells the family's rules and special
//  ids, and is copied. A tokenizer with more pieces than config->vocab, or whose special pieces have other
//  ids, doesn't fit and is refused; so is one with anything in it that isn't known here, by name. vocab 0: the
//  fit isn't checked. NULL on failure.
tl_tokenizer_t *tl_tokenizer_open (const char *path, const tl_config_t *config, tl_error_t *err);
void tl_tokenizer_destroy (tl_tokenizer_t **self_p);

//  Ids of length bytes of text (NULs and broken UTF-8 included), no special ones added; names of special
//  tokens in the text are text. Sets count; a fresh array, never NULL, that the caller frees.
int32_t *tl_tokenizer_encode (const tl_tokenizer_t *self, const char *text, size_t length,
                              size_t *count);
//  Text of ids; special ids and ids without a piece give nothing. A fresh buffer with a NUL after the last
//  byte, that the caller frees; length (may be NULL) counts bytes, for the text may hold NULs itself.
char *tl_tokenizer_decode (const tl_tokenizer_t *self, const int32_t *ids, size_t count,
                           size_t *length);
size_t tl_tokenizer_pieces (const tl_tokenizer_t *self);    //  how many ids it knows
const char *tl_tokenizer_path (const tl_tokenizer_t *self); //  the file
const char *tl_tokenizer_hash (const tl_tokenizer_t *self); //  of the file's bytes, 64 hex digits

//  The same, but names of special tokens in the text become those tokens, as far as the original does that when asked
//  to. For texts of one's own making only: never for a user's.
int32_t *tl_tokenizer_encode_parsed (const tl_tokenizer_t *self, const char *text, size_t length,
                                     size_t *count);
//  The id of a special token by its name ("[gMASK]", "<|im_end|>"); -1 when there is none.
int32_t tl_tokenizer_special (const tl_tokenizer_t *self, const char *name);
//  All ids that end an answer (generation stops before them): static inside the tokenizer, never none unless the
//  model has no end at all.
const int32_t *tl_tokenizer_stops (const tl_tokenizer_t *self, size_t *count);

//  ---------------------------------------------------------------------------------------------
//  Decoder

//  Ids one by one to text. All that put and finish give, one after another, is tl_tokenizer_decode of all the ids. The
//  tokenizer must outlive it.
typedef struct tl_decoder tl_decoder_t;

tl_decoder_t *tl_decoder_new (const tl_tokenizer_t *tokenizer);
void tl_decoder_destroy (tl_decoder_t **self_p);
//  Takes the next id; gives the bytes that are certain by now and weren't given before: whole UTF-8 characters,
//  perhaps none. They may hold NULs, and live until the next call.
const char *tl_decoder_put (tl_decoder_t *self, int32_t id, size_t *size);
//  No more ids come: the rest (U+FFFD for a character that stays unfinished). The decoder then begins anew.
const char *tl_decoder_finish (tl_decoder_t *self, size_t *size);

//  ---------------------------------------------------------------------------------------------
//  Prompts

typedef enum { TL_SAID_SYSTEM, TL_SAID_USER, TL_SAID_ASSISTANT } tl_speaker_t;

typedef struct {
    tl_speaker_t speaker;
    char *text;  //  UTF-8, may hold NULs; whose it is, the holder says
    size_t size; //  bytes
} tl_said_t;

//  A text to go on from: chatglm [ids, gMASK, sop], glm [gMASK, sop, ids], others [bos if the tokenizer puts one, ids]. For
//  tl_batch_t and tl_segment_extend.
typedef struct {
    int32_t *ids; //  [count], freed by tl_prompt_clear
    size_t count;
    uint32_t context, mask; //  as in tl_batch_t
} tl_prompt_t;

void tl_prompt_make (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, const char *text,
                     size_t length);
//  chatglm: "[MASK]" in the text is the blank to be filled, as in the paper's tasks: [ids with MASK among them, sop], the
//  first one's place is the mask position. Texts without it, and other families, as tl_prompt_make.
void tl_prompt_cloze (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, const char *text,
                      size_t length);
//  A conversation in the layout that the model was trained with, ready for the assistant's answer: perhaps a system message,
//  then user and assistant in turn, a user's at the end. Where the layout has no place for a system message it is left
//  out. Answers of ChatGLM3 and GLM-4 begin with a line end that belongs to the layout. -1 when the turns are in another
//  order or the model has no layout for conversations; self is empty then. texts stay the caller's.
int tl_prompt_chat (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, const tl_said_t *said,
                    size_t count, tl_error_t *err);
//  Cuts a prompt to room ids: its beginning goes, but not the tokens that begin every prompt of the family, nor a blank
//  and what stands after it. True if something went; it may stay longer than room when nothing more can go.
bool tl_prompt_shorten (tl_prompt_t *self, const tl_tokenizer_t *tokenizer, size_t room);
void tl_prompt_clear (tl_prompt_t *self);

//  ---------------------------------------------------------------------------------------------
//  Dataset

//  Names of the keys in the file where they differ from the usual ones; NULL is the usual name.
typedef struct {
    const char *prompt, *completion;
    const char *instruction, *input, *output;
    const char *messages;
    const char *text;
} tl_columns_t;

typedef struct {
    size_t max_length; //  ids of the longest example, special ones included; 0: the model's longest
    size_t limit;      //  examples to read at most; 0: all
    bool cloze;        //  chatglm: prompts as tl_prompt_cloze reads them
    tl_columns_t columns;
} tl_data_options_t;

typedef struct tl_dataset tl_dataset_t;

//  Reads a whole JSONL file: one object a line, {prompt, completion}, {messages: [{role, content} ...]},
//  {instruction, input, output} or {text}, told apart by their keys. The answer is learnt, or all of {text}; of
//  a conversation the last answer. Longer examples are shortened (first the prompt's beginning goes, down to
//  half of max_length, then the answer's end), which is logged once with a count. NULL and "FILE:LINE: ..."
//  when a line is broken or the file holds no example. The tokenizer must outlive the dataset.
tl_dataset_t *tl_dataset_open (const char *path, const tl_tokenizer_t *tokenizer,
                               const tl_data_options_t *options, tl_error_t *err);
//  A dataset of answers to prompts, to see how likely they are: each is learnt, without an end. What they point to is
//  copied; a prompt has at least one id, an answer, too. The lengths are within what the model reads.
typedef struct {
    const tl_prompt_t *prompt;
    const int32_t *ids; //  [count]
    size_t count;
} tl_answer_t;

tl_dataset_t *tl_dataset_of_answers (const tl_tokenizer_t *tokenizer, const tl_answer_t *answers,
                                     size_t count);
void tl_dataset_destroy (tl_dataset_t **self_p);

size_t tl_dataset_count (const tl_dataset_t *self);     //  examples, >= 1
size_t tl_dataset_shortened (const tl_dataset_t *self); //  of them shortened to max_length
uint64_t tl_dataset_labels (const tl_dataset_t *self);  //  label tokens of one pass
size_t tl_dataset_labels_of (const tl_dataset_t *self, size_t example); //  label tokens of one

//  Upper bounds for any micro of so many sequences, for tl_part_plan: rows, rows of the longest, labels.
typedef struct {
    size_t rows, longest, labels;
} tl_extent_t;

tl_extent_t tl_dataset_extent (const tl_dataset_t *self, size_t sequences);
//  The same for the micros that a site's steps 0 .. steps - 1 will have: what is drawn is known beforehand. Runs of more than
//  a million draws get the upper bounds.
tl_extent_t tl_dataset_run_extent (tl_dataset_t *self, uint64_t seed, uint64_t site, uint64_t steps,
                                   size_t batch_size, size_t micros);

//  ---------------------------------------------------------------------------------------------
//  Micros

//  An example of n ids gives n - 1 rows: row r holds id r and predicts id r + 1, where that is to be learnt.
typedef struct {
    tl_batch_t batch; //  its arrays belong to the micro
    uint64_t labels;  //  rows that have a label
} tl_micro_t;

//  Micro number micro of micros (1 <= micros <= batch_size) of one site's batch at one step. Sequence i of the
//  batch has the global number (site << 40) + step * batch_size + i; every pass over the file has an order
//  of its own. Micros split the batch in order, as evenly as can be. Never fails; the caller destroys.
tl_micro_t *tl_dataset_micro (tl_dataset_t *self, uint64_t seed, uint64_t site, uint64_t step,
                              size_t batch_size, size_t micro, size_t micros);
//  Examples first .. first + count - 1 in the file's order, for evaluation; numbers are the examples' own.
tl_micro_t *tl_dataset_slice (const tl_dataset_t *self, size_t first, size_t count);
//  One sequence of count ids without labels, for generation; context and mask as in tl_batch_t.
tl_micro_t *tl_micro_of_ids (const int32_t *ids, size_t count, uint32_t context, uint32_t mask);
//  How many examples from first on fit into so many rows: at least 1 if there is one, 0 at the end.
size_t tl_dataset_fit (const tl_dataset_t *self, size_t first, size_t rows);

//  Several sites' micros as one, in the order given: what training in one place computes.
tl_micro_t *tl_micro_join (tl_micro_t *const *micros, size_t count);
//  Masks labels from the end until at most allowed are left, so that runs can end on the same number of
//  label tokens. Rows stay. Returns the labels left.
uint64_t tl_micro_trim (tl_micro_t *self, uint64_t allowed);
void tl_micro_destroy (tl_micro_t **self_p);

#endif
