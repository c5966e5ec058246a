#include "fed/metrics.h"

#include "data/utf8.h"
#include "memory.h"

#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>

//  ---------------------------------------------------------------------------------------------
//  Text

//  A growing text.
typedef struct {
    char *data;
    size_t size, room;
} s_buffer_t;

static void
s_add (s_buffer_t *self, const char *data, size_t size)
{
    if (self->size + size + 1 > self->room) {
        self->room = 2 * (self->size + size + 32);
        self->data = realloc (self->data, self->room);
        if (!self->data)
            abort ();
    }
    if (size)
        memcpy (self->data + self->size, data, size);
    self->size += size;
    self->data[self->size] = 0;
}

static void
s_add_point (s_buffer_t *self, uint32_t point)
{
    char bytes[4];
    s_add (self, bytes, tl_utf8_write (point, bytes));
}

//  The code point at text, and how many bytes it takes; what begins none is U+FFFD.
static size_t
s_point (const char *text, size_t size, uint32_t *point)
{
    size_t bad, length;
    bool open;
    if ((unsigned char)*text < 0x80) {
        *point = (unsigned char)*text;
        return 1;
    }
    length = tl_utf8_length (text, size, &bad, &open);
    *point = length ? tl_utf8_read (text, length) : 0xfffd;
    return length ? length : bad;
}

//  Character classes beyond ASCII come from the C library's Unicode tables, whatever the user's locale is.
static locale_t
s_unicode (void)
{
    static locale_t locale;
    if (!locale)
        locale = newlocale (LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    return locale;
}

static uint32_t
s_lower (uint32_t point)
{
    if (point < 0x80)
        return point >= 'A' && point <= 'Z' ? point + 32 : point;
    return s_unicode () ? (uint32_t)towlower_l ((wint_t)point, s_unicode ()) : point;
}

static bool
s_is_space (uint32_t point)
{
    return (point >= 0x09 && point <= 0x0d) || (point >= 0x1c && point <= 0x20) || point == 0x85 ||
           point == 0xa0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200a) ||
           point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f ||
           point == 0x3000;
}

//  Letters, digits and the underscore of any script.
static bool
s_is_word (uint32_t point)
{
    if (point < 0x80)
        return point == '_' || (point >= '0' && point <= '9') ||
               (s_lower (point) >= 'a' && s_lower (point) <= 'z');
    return s_unicode () && iswalnum_l ((wint_t)point, s_unicode ());
}

//  Characters that are written without spaces between words.
static bool
s_is_ideograph (uint32_t point)
{
    return (point >= 0x2e80 && point <= 0x2fdf) || (point >= 0x3005 && point <= 0x3007) ||
           (point >= 0x3040 && point <= 0x30ff) || (point >= 0x3100 && point <= 0x312f) ||
           (point >= 0x31a0 && point <= 0x31ff) || (point >= 0x3400 && point <= 0x4dbf) ||
           (point >= 0x4e00 && point <= 0x9fff) || (point >= 0xf900 && point <= 0xfaff) ||
           (point >= 0xff66 && point <= 0xff9f) || (point >= 0x20000 && point <= 0x323af);
}

//  Their punctuation.
static bool
s_is_wide_mark (uint32_t point)
{
    return (point >= 0x3001 && point <= 0x303f) || (point >= 0xfe10 && point <= 0xfe1f) ||
           (point >= 0xfe30 && point <= 0xfe4f) || (point >= 0xff01 && point <= 0xff65);
}

//  ---------------------------------------------------------------------------------------------
//  Texts with single spaces between words

//  rouge_score's tokenizer.
static void
s_rouge_words (tl_text_t text, s_buffer_t *to)
{
    uint32_t point;
    for (size_t at = 0; at < text.size;) {
        at += s_point (text.text + at, text.size - at, &point);
        uint32_t low = s_lower (point);
        if (point == 0x130) //  a dotted capital I is i and a dot above in lower case
            s_add (to, "i ", 2);
        else if ((low >= 'a' && low <= 'z') || (low >= '0' && low <= '9'))
            s_add_point (to, low);
        else if (s_is_ideograph (point)) {
            s_add (to, " ", 1);
            s_add_point (to, point);
            s_add (to, " ", 1);
        } else
            s_add (to, " ", 1);
    }
}

static bool
s_is_digit (char byte)
{
    return byte >= '0' && byte <= '9';
}

//  Replaces what is in the text, from left to right.
static void
s_replace (s_buffer_t *self, const char *what, const char *with)
{
    s_buffer_t made = {0};
    s_add (&made, "", 0);
    size_t length = strlen (what);
    for (size_t at = 0; at < self->size;) {
        bool found = self->size - at >= length && memcmp (self->data + at, what, length) == 0;
        s_add (&made, found ? with : self->data + at, found ? strlen (with) : 1);
        at += found ? length : 1;
    }
    free (self->data);
    *self = made;
}

//  mteval's rules one after another, as 13a applies them: each may split what the last one left.
enum { S_SYMBOLS, S_AFTER_OTHER, S_BEFORE_OTHER, S_DASH, S_RULES };

static size_t
s_matches (int rule, const char *at, size_t left)
{
    bool two = left >= 2, mark = *at == '.' || *at == ',';
    switch (rule) {
    case S_SYMBOLS:
        return *at && strchr ("{|}~[\\]^_` !\"#$%&()*+:;<=>?@/", *at) ? 1 : 0;
    case S_AFTER_OTHER:
        return two && !s_is_digit (at[0]) && (at[1] == '.' || at[1] == ',') ? 2 : 0;
    case S_BEFORE_OTHER:
        return two && mark && !s_is_digit (at[1]) ? 2 : 0;
    default:
        return two && s_is_digit (at[0]) && at[1] == '-' ? 2 : 0;
    }
}

static void
s_apply (s_buffer_t *self, int rule)
{
    s_buffer_t made = {0};
    s_add (&made, "", 0);
    for (size_t at = 0; at < self->size;) {
        const char *here = self->data + at;
        size_t size = s_matches (rule, here, self->size - at);
        if (rule == S_SYMBOLS && size)
            s_add (&made, " ", 1);
        if (rule == S_BEFORE_OTHER && size)
            s_add (&made, " ", 1);
        s_add (&made, here, 1);
        if (size == 2) {
            s_add (&made, " ", 1);
            s_add (&made, here + 1, 1);
        }
        if (size && rule != S_BEFORE_OTHER)
            s_add (&made, " ", 1);
        at += size ? size : 1;
    }
    free (self->data);
    *self = made;
}

//  sacrebleu's 13a; its own set of marks is ASCII.
static void
s_bleu_words (tl_text_t text, s_buffer_t *to)
{
    while (text.size && strchr (" \n\r\t\v\f", text.text[text.size - 1]))
        text.size--;
    s_add (to, " ", 1);
    uint32_t point;
    for (size_t at = 0, size; at < text.size; at += size) {
        size = s_point (text.text + at, text.size - at, &point);
        bool apart = s_is_ideograph (point) || s_is_wide_mark (point);
        s_add (to, " ", apart);
        s_add_point (to, point);
        s_add (to, " ", apart);
    }
    s_replace (to, "<skipped>", "");
    s_replace (to, "-\n", "");
    s_replace (to, "\n", " ");
    s_replace (to, "&quot;", "\"");
    s_replace (to, "&amp;", "&");
    s_replace (to, "&lt;", "<");
    s_replace (to, "&gt;", ">");
    s_add (to, " ", 1);
    for (int rule = 0; rule < S_RULES; rule++)
        s_apply (to, rule);
}

//  SQuAD's normalisation but for the articles, which go word by word.
static void
s_squad_words (tl_text_t text, s_buffer_t *to)
{
    uint32_t point;
    for (size_t at = 0; at < text.size;) {
        at += s_point (text.text + at, text.size - at, &point);
        if (point < 0x80 && point && strchr ("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", (int)point))
            continue;
        s_add (to, " ", s_is_ideograph (point));
        s_add_point (to, s_lower (point));
        s_add (to, " ", s_is_ideograph (point));
    }
    //  An article is replaced by a space where no letter or digit touches it.
    s_buffer_t made = {0};
    s_add (&made, "", 0);
    bool inside = false;
    for (size_t at = 0, size; at < to->size; at += size) {
        size_t article = 0;
        uint32_t next = ' ';
        for (size_t i = 0; !inside && i < 3 && !article; i++) {
            const char *word = &"the\0an\0\0a"[4 * i];
            size_t length = strlen (word);
            if (to->size - at < length || memcmp (to->data + at, word, length) != 0)
                continue;
            next = ' ';
            if (to->size - at > length)
                s_point (to->data + at + length, to->size - at - length, &next);
            article = s_is_word (next) ? 0 : length;
        }
        size = article ? article : s_point (to->data + at, to->size - at, &next);
        inside = article || s_is_word (next);
        s_add (&made, article ? " " : to->data + at, article ? 1 : size);
    }
    free (to->data);
    *to = made;
}

//  ---------------------------------------------------------------------------------------------
//  Words as numbers

//  Every different word has a number: its place.
typedef struct {
    const char **word; //  [count] into the buffers
    size_t *size;      //  [count]
    size_t count, room;
    size_t *slot; //  [slots] a word's number + 1; 0: free
    size_t slots;
} s_lexicon_t;

typedef struct {
    size_t *word; //  [count] numbers
    size_t count;
    s_buffer_t buffer; //  where the words lie
} s_words_t;

static size_t
s_place (const s_lexicon_t *self, const char *word, size_t size)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)word[i]) * 1099511628211u;
    size_t at = (size_t)(hash ^ hash >> 32) & (self->slots - 1);
    while (self->slot[at]) {
        size_t number = self->slot[at] - 1;
        if (self->size[number] == size && memcmp (self->word[number], word, size) == 0)
            break;
        at = (at + 1) & (self->slots - 1);
    }
    return at;
}

static size_t
s_number (s_lexicon_t *self, const char *word, size_t size)
{
    if (self->count == self->room) {
        self->room = self->room ? 2 * self->room : 64;
        self->slots = 4 * self->room;
        self->word = realloc (self->word, self->room * sizeof *self->word);
        self->size = realloc (self->size, self->room * sizeof *self->size);
        free (self->slot);
        self->slot = tl_alloc (self->slots * sizeof *self->slot);
        if (!self->word || !self->size)
            abort ();
        for (size_t i = 0; i < self->count; i++)
            self->slot[s_place (self, self->word[i], self->size[i])] = i + 1;
    }
    size_t at = s_place (self, word, size);
    if (!self->slot[at]) {
        self->word[self->count] = word;
        self->size[self->count] = size;
        self->slot[at] = ++self->count;
    }
    return self->slot[at] - 1;
}

//  Splits the buffer at white space.
static void
s_split (s_words_t *self, s_lexicon_t *lexicon)
{
    const s_buffer_t *buffer = &self->buffer;
    uint32_t point = 0;
    self->word = tl_alloc ((buffer->size + 1) * sizeof *self->word);
    self->count = 0;
    for (size_t at = 0, begin = 0, size; at <= buffer->size; at += size) {
        size = at < buffer->size ? s_point (buffer->data + at, buffer->size - at, &point) : 1;
        bool space = at == buffer->size || s_is_space (point);
        if (space && at > begin)
            self->word[self->count++] = s_number (lexicon, buffer->data + begin, at - begin);
        if (space)
            begin = at + size;
    }
}

typedef void (s_normalise_t) (tl_text_t text, s_buffer_t *to);

//  A text and its references by one lexicon.
typedef struct {
    s_lexicon_t lexicon;
    s_words_t *words; //  [count]; the first is the text
    size_t count;
} s_compared_t;

static void
s_open (s_compared_t *self, tl_text_t text, const tl_text_t *references, size_t count,
        s_normalise_t *normalise)
{
    memset (self, 0, sizeof *self);
    self->count = count + 1;
    self->words = tl_alloc (self->count * sizeof *self->words);
    for (size_t i = 0; i < self->count; i++) {
        s_add (&self->words[i].buffer, "", 0);
        normalise (i ? references[i - 1] : text, &self->words[i].buffer);
        s_split (&self->words[i], &self->lexicon);
    }
}

static void
s_close (s_compared_t *self)
{
    for (size_t i = 0; i < self->count; i++) {
        free (self->words[i].word);
        free (self->words[i].buffer.data);
    }
    free (self->words);
    free (self->lexicon.word);
    free (self->lexicon.size);
    free (self->lexicon.slot);
}

//  ---------------------------------------------------------------------------------------------
//  Counting

typedef struct {
    size_t word[TL_BLEU_ORDER]; //  unused ones are 0
} s_gram_t;

static int
s_by_words (const void *left, const void *right)
{
    const s_gram_t *a = left, *b = right;
    for (size_t i = 0; i < TL_BLEU_ORDER; i++)
        if (a->word[i] != b->word[i])
            return a->word[i] < b->word[i] ? -1 : 1;
    return 0;
}

//  All runs of n words, sorted.
static s_gram_t *
s_grams (const s_words_t *words, size_t n, size_t *count)
{
    *count = words->count >= n ? words->count - n + 1 : 0;
    s_gram_t *grams = tl_alloc ((*count + 1) * sizeof *grams);
    for (size_t i = 0; i < *count; i++)
        memcpy (grams[i].word, words->word + i, n * sizeof *grams[i].word);
    qsort (grams, *count, sizeof *grams, s_by_words);
    return grams;
}

//  How many equal to gram stand in grams from *at on, which is moved behind them.
static size_t
s_run (const s_gram_t *grams, size_t count, size_t *at, const s_gram_t *gram)
{
    size_t found = 0;
    while (*at < count && s_by_words (&grams[*at], gram) < 0)
        (*at)++;
    for (; *at < count && s_by_words (&grams[*at], gram) == 0; (*at)++)
        found++;
    return found;
}

//  n-grams of the first of these texts that the others have: of each as many as the one that has most of it.
static size_t
s_overlap (const s_words_t *words, size_t count, size_t n)
{
    size_t total, overlap = 0, *counts = tl_alloc (count * sizeof *counts);
    size_t *at = tl_alloc (count * sizeof *at);
    s_gram_t *grams = s_grams (words, n, &total), **others = tl_alloc (count * sizeof *others);
    for (size_t i = 1; i < count; i++)
        others[i] = s_grams (&words[i], n, &counts[i]);
    for (size_t i = 0; i < total;) {
        s_gram_t gram = grams[i];
        size_t here = s_run (grams, total, &i, &gram), most = 0;
        for (size_t k = 1; k < count; k++) {
            size_t there = s_run (others[k], counts[k], &at[k], &gram);
            most = there > most ? there : most;
        }
        overlap += here < most ? here : most;
    }
    for (size_t i = 1; i < count; i++)
        free (others[i]);
    free (others);
    free (grams);
    free (counts);
    free (at);
    return overlap;
}

//  Longest common subsequence.
static size_t
s_common (const s_words_t *one, const s_words_t *two)
{
    size_t *row = tl_alloc ((two->count + 1) * sizeof *row);
    for (size_t i = 0; i < one->count; i++)
        for (size_t j = 0, diagonal = 0; j < two->count; j++) {
            size_t above = row[j + 1];
            if (one->word[i] == two->word[j])
                row[j + 1] = diagonal + 1;
            else if (row[j] > above)
                row[j + 1] = row[j];
            diagonal = above;
        }
    size_t length = row[two->count];
    free (row);
    return length;
}

static double
s_f (size_t common, size_t one, size_t two)
{
    return common ? 2.0 * (double)common / (double)(one + two) : 0;
}

static size_t
s_runs (const s_words_t *words, size_t n)
{
    return words->count >= n ? words->count - n + 1 : 0;
}

static double
s_most (double one, double two)
{
    return one > two ? one : two;
}

//  ---------------------------------------------------------------------------------------------
//  Metrics

static void
s_rouge (tl_closeness_t *self, const s_compared_t *by)
{
    const s_words_t *text = by->words;
    for (size_t i = 1; i < by->count; i++) {
        const s_words_t pair[2] = {*text, by->words[i]};
        self->rouge1 =
            s_most (self->rouge1, s_f (s_overlap (pair, 2, 1), text->count, by->words[i].count));
        self->rouge2 = s_most (self->rouge2, s_f (s_overlap (pair, 2, 2), s_runs (text, 2),
                                                  s_runs (&by->words[i], 2)));
        self->rouge_l = s_most (
            self->rouge_l, s_f (s_common (text, &by->words[i]), text->count, by->words[i].count));
    }
}

static void
s_squad (tl_closeness_t *self, const s_compared_t *by)
{
    const s_words_t *text = by->words;
    for (size_t i = 1; i < by->count; i++) {
        const s_words_t *reference = &by->words[i], pair[2] = {*text, *reference};
        bool equal = text->count == reference->count &&
                     memcmp (text->word, reference->word, text->count * sizeof *text->word) == 0;
        double f1 = s_f (s_overlap (pair, 2, 1), text->count, reference->count);
        self->exact = s_most (self->exact, equal);
        //  Two empty answers agree.
        self->f1 = s_most (self->f1, text->count + reference->count ? f1 : 1);
    }
}

static void
s_bleu_count (tl_bleu_t *self, const s_compared_t *by)
{
    size_t length = by->words[0].count, nearest = by->words[1].count;
    for (size_t i = 2; i < by->count; i++) {
        size_t other = by->words[i].count;
        size_t far = other > length ? other - length : length - other;
        size_t near = nearest > length ? nearest - length : length - nearest;
        if (far < near || (far == near && other < nearest))
            nearest = other;
    }
    self->length = length;
    self->reference = nearest;
    for (size_t n = 1; n <= TL_BLEU_ORDER; n++) {
        self->total[n - 1] = s_runs (&by->words[0], n);
        self->match[n - 1] = s_overlap (by->words, by->count, n);
    }
}

void
tl_closeness (tl_closeness_t *self, tl_text_t text, const tl_text_t *references, size_t count)
{
    s_compared_t by;
    memset (self, 0, sizeof *self);
    s_open (&by, text, references, count, s_rouge_words);
    s_rouge (self, &by);
    s_close (&by);
    s_open (&by, text, references, count, s_squad_words);
    s_squad (self, &by);
    s_close (&by);
    s_open (&by, text, references, count, s_bleu_words);
    s_bleu_count (&self->bleu, &by);
    s_close (&by);
}

static double
s_bleu (const tl_bleu_t *self, bool sentence)
{
    double sum = 0, smooth = 1;
    size_t orders = 0;
    for (; orders < TL_BLEU_ORDER && self->total[orders]; orders++) {
        double match = (double)self->match[orders], total = (double)self->total[orders];
        if (match == 0)
            smooth *= 2;
        sum += log (match > 0 ? match / total : 1 / (smooth * total));
    }
    bool any = false;
    for (size_t n = 0; n < TL_BLEU_ORDER; n++)
        any = any || self->match[n];
    if (!any || (orders < TL_BLEU_ORDER && !sentence))
        return 0;
    double ratio = (double)self->reference / (double)self->length;
    return 100 * exp (sum / (double)orders + (ratio > 1 ? 1 - ratio : 0));
}

double
tl_bleu (const tl_bleu_t *self)
{
    return s_bleu (self, false);
}

double
tl_bleu_sentence (const tl_bleu_t *self)
{
    return s_bleu (self, true);
}

void
tl_bleu_add (tl_bleu_t *self, const tl_bleu_t *other)
{
    for (size_t n = 0; n < TL_BLEU_ORDER; n++) {
        self->match[n] += other->match[n];
        self->total[n] += other->total[n];
    }
    self->length += other->length;
    self->reference += other->reference;
}
