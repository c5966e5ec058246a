/*  metrics: how near a text is to what it should have been.

    ROUGE-1, -2, -L as the package rouge_score counts them (lower case, runs of a-z and 0-9 are the words, no stemming);
    BLEU-4 as sacrebleu counts it (13a's words, case kept, exponential smoothing, which is what ChatGLM-6B's own
    evaluation takes from NLTK as method 3); exact match and F1 as SQuAD's script does (lower case, no punctuation,
    no articles). Han characters and kana are a word each in all of them, so Chinese is counted by characters.

    Of several references the best counts; BLEU takes all at once, as it was defined. No model, no files. */

#ifndef TL_METRICS_H
#define TL_METRICS_H

#include <stddef.h>
#include <stdint.h>

//  UTF-8; broken bytes count as U+FFFD.
typedef struct {
    const char *text; //  [size]
    size_t size;      //  bytes
} tl_text_t;

enum { TL_BLEU_ORDER = 4 };

//  What BLEU counts; those of several texts are added up field by field.
typedef struct {
    uint64_t match[TL_BLEU_ORDER], total[TL_BLEU_ORDER]; //  n-grams of 1 .. 4 words
    uint64_t length, reference;                          //  words; of the nearest reference
} tl_bleu_t;

typedef struct {
    double rouge1, rouge2, rouge_l; //  F-measures, 0 .. 1
    double exact;                   //  1: equal after normalisation, else 0
    double f1;                      //  of the words, 0 .. 1
    tl_bleu_t bleu;
} tl_closeness_t;

//  count >= 1 references.
void tl_closeness (tl_closeness_t *self, tl_text_t text, const tl_text_t *references, size_t count);

//  0 .. 100. For a single sentence orders that are longer than it are left out.
double tl_bleu (const tl_bleu_t *self);
double tl_bleu_sentence (const tl_bleu_t *self);
void tl_bleu_add (tl_bleu_t *self, const tl_bleu_t *other);

#endif
