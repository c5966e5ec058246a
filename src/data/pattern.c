/*  pattern: see pattern.h. A white list: what Oniguruma (Hugging Face), Rust's regex (tiktoken) and PCRE2 read alike passes,
    \s and \d are written out, everything else is refused. That leaves no recursion, no callouts, no verbs.

    \s is Unicode's White_Space here; PCRE2's has U+180E besides, which lost that property long ago.   */

#include "pattern.h"

#include "utf8.h"

#include <stdio.h>
#include <string.h>

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

//  Letters and digits that came into Unicode after version 14, which is PCRE2's (10.42) and Oniguruma's. tiktoken's engine
//  has 16; Hugging Face's step for digits, which isn't an expression there, 15.
static const struct {
    char category;
    unsigned since; //  version of Unicode
    const char *ranges;
} s_newer[] = {
    {'L', 15,
     "\\x{1123f}-\\x{11240}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}"
     "-\\x{13446}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{"
     "1e4eb}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {'L', 16,
     "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{"
     "10d65}\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{"
     "11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{13460}-\\x{143fa}\\x{"
     "16100}-\\x{1611d}\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}"},
    {'N', 15, "\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"},
    {'N', 16,
     "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{16130}-\\x{16139}\\x{"
     "16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e5f1}-\\x{1e5fa}"},
};

typedef struct {
    const char *name;    //  of the file, for messages
    const char *pattern; //  [length]
    size_t length, at;   //  at: the next byte to be read
    unsigned unicode;    //  version that letters and digits are of
    bool in_class;       //  between [ and ]
    tl_text_t *out;
    tl_error_t *err;
} reader_t;

//  The construct of size bytes at the current place isn't supported.
static int
s_refuse (const reader_t *self, size_t size)
{
    size_t rest = self->length - self->at;
    return tl_fail (self->err, TL_BAD_INPUT,
                    "%s: '%.*s' in the expression '%.*s' isn't supported; use a model of a "
                    "supported family, or its SentencePiece file",
                    self->name, (int)(size < rest ? size : rest), self->pattern + self->at,
                    (int)(self->length < 200 ? self->length : 200), self->pattern);
}

//  The byte that lies ahead bytes on; 0 behind the end.
static char
s_peek (const reader_t *self, size_t ahead)
{
    return self->at + ahead < self->length ? self->pattern[self->at + ahead] : 0;
}

static bool
s_begins (const reader_t *self, const char *words)
{
    size_t size = strlen (words);
    return self->length - self->at >= size && memcmp (self->pattern + self->at, words, size) == 0;
}

static int
s_pass (reader_t *self, size_t size)
{
    tl_text_add (self->out, self->pattern + self->at, size);
    self->at += size;
    return 0;
}

//  \p{L} with what PCRE2 doesn't know of it yet.
static int
s_newer_property (reader_t *self, size_t size)
{
    const char category = s_peek (self, 3);
    if (!self->in_class)
        tl_text_words (self->out, "[");
    s_pass (self, size);
    for (size_t i = 0; i < sizeof s_newer / sizeof *s_newer; i++)
        if (s_newer[i].category == category && s_newer[i].since <= self->unicode)
            tl_text_words (self->out, s_newer[i].ranges);
    if (!self->in_class)
        tl_text_words (self->out, "]");
    return 0;
}

//  \p{L}, \P{Lu}: general categories only. Scripts mean different things to different engines.
static int
s_property (reader_t *self)
{
    static const char letters[] = "LMNPSZC";
    static const char seconds[] = "ultmocpendksif";
    size_t size = 0;
    if (s_peek (self, 2) == '{' && s_peek (self, 3) && strchr (letters, s_peek (self, 3))) {
        if (s_peek (self, 4) == '}')
            size = 5;
        else if (s_peek (self, 4) && strchr (seconds, s_peek (self, 4)) && s_peek (self, 5) == '}')
            size = 6;
    }
    if (size == 5 && s_peek (self, 1) == 'p' && self->unicode > 14)
        return s_newer_property (self, size);
    return size ? s_pass (self, size) : s_refuse (self, 8);
}

static bool
s_is_hex (char letter)
{
    return letter && strchr ("0123456789abcdefABCDEF", letter);
}

//  \uXXXX, \xXX, \x{...}: a character by its number.
static int
s_number (reader_t *self)
{
    bool braces = s_peek (self, 1) == 'x' && s_peek (self, 2) == '{';
    size_t start = braces ? 3 : 2, most = braces ? 6 : s_peek (self, 1) == 'u' ? 4 : 2, digits = 0;
    unsigned value = 0;
    char words[16];
    for (; digits < most && s_is_hex (s_peek (self, start + digits)); digits++) {
        char one[2] = {s_peek (self, start + digits), 0};
        unsigned digit = 0;
        sscanf (one, "%x", &digit);
        value = value << 4 | digit;
    }
    size_t size = start + digits + braces;
    if (digits == 0 || (!braces && digits != most) || (braces && s_peek (self, size - 1) != '}') ||
        value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
        return s_refuse (self, 10);
    snprintf (words, sizeof words, "\\x{%x}", value);
    tl_text_words (self->out, words);
    self->at += size;
    return 0;
}

static int
s_escape (reader_t *self)
{
    const char letter = s_peek (self, 1);
    const char *words = NULL;
    switch (letter) {
    case 'p':
    case 'P':
        return s_property (self);
    case 'u':
    case 'x':
        return s_number (self);
    case 's':
        words = self->in_class ? SPACES : "[" SPACES "]";
        break;
    case 'S':
        words = self->in_class ? NULL : "[^" SPACES "]";
        break;
    case 'd':
        words = "\\p{Nd}";
        break;
    case 'D':
        words = "\\P{Nd}";
        break;
    case 'r':
    case 'n':
    case 't':
    case 'f':
        return s_pass (self, 2);
    case 'v':
        words = "\\x{b}";
        break;
    default:
        if (letter && strchr ("\\.^$|()[]{}*+?-/'\"!#%&,:;<=>@_`~ ", letter))
            return s_pass (self, 2);
    }
    if (!words)
        return s_refuse (self, 2);
    tl_text_words (self->out, words);
    self->at += 2;
    return 0;
}

//  A group: plain, or with one of the beginnings that all engines share.
static int
s_group (reader_t *self)
{
    static const char *const known[] = {"(?:", "(?i:", "(?!", "(?=", "(?<!", "(?<=", "(?>"};
    if (s_peek (self, 1) == '*')
        return s_refuse (self, 8);
    if (s_peek (self, 1) != '?')
        return s_pass (self, 1);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (s_begins (self, known[i]))
            return s_pass (self, strlen (known[i]));
    return s_refuse (self, 4);
}

//  {n}, {n,}, {n,m}. What follows it means different things to different engines, but for a lookahead's end or a new item.
static int
s_repeat (reader_t *self)
{
    size_t size = 1;
    while (s_peek (self, size) >= '0' && s_peek (self, size) <= '9' && size < 5)
        size++;
    bool number = size > 1;
    if (s_peek (self, size) == ',') {
        size++;
        for (size_t first = size;
             s_peek (self, size) >= '0' && s_peek (self, size) <= '9' && size < first + 4;)
            size++;
    }
    if (!number || s_peek (self, size) != '}')
        return s_refuse (self, 8);
    const char after = s_peek (self, size + 1);
    if (after == '+' || after == '?' || after == '*' || after == '{')
        return s_refuse (self, size + 2);
    return s_pass (self, size + 1);
}

static int
s_in_class (reader_t *self)
{
    const char letter = s_peek (self, 0);
    if (letter == '[' || s_begins (self, "&&"))
        return s_refuse (self, 4);
    if (letter == ']')
        self->in_class = false;
    return s_pass (self, 1);
}

static int
s_open_class (reader_t *self)
{
    size_t size = s_peek (self, 1) == '^' ? 2 : 1;
    if (s_peek (self, size) == ']')
        return s_refuse (self, size + 1);
    self->in_class = true;
    return s_pass (self, size);
}

static int
s_step (reader_t *self)
{
    const char letter = s_peek (self, 0);
    size_t bad;
    bool open;
    size_t length = tl_utf8_length (self->pattern + self->at, self->length - self->at, &bad, &open);
    if (length == 0 || letter == 0)
        return s_refuse (self, 1);
    if (length > 1)
        return s_pass (self, length);
    if (letter == '\\')
        return s_escape (self);
    if (self->in_class)
        return s_in_class (self);
    switch (letter) {
    case '[':
        return s_open_class (self);
    case '(':
        return s_group (self);
    case '{':
        return s_repeat (self);
    case '^':
    case '$':
    case '}':
    case ']':
        return s_refuse (self, 2);
    default:
        return s_pass (self, 1);
    }
}

int
tl_pattern_translate (const char *name, const char *pattern, size_t length, unsigned unicode,
                      tl_text_t *out, tl_error_t *err)
{
    if (length > TL_PATTERN_MOST)
        return tl_fail (err, TL_BAD_INPUT,
                        "%s: an expression of %zu bytes, more than %d aren't supported; use a "
                        "model of a supported family",
                        name, length, TL_PATTERN_MOST);
    reader_t reader = {.name = name,
                       .pattern = pattern,
                       .length = length,
                       .unicode = unicode,
                       .out = out,
                       .err = err};
    while (reader.at < length)
        if (s_step (&reader) != 0)
            return -1;
    return 0;
}
