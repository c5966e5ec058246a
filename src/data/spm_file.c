/*  spm_file: see spm_file.h. A model is a protobuf message: pieces (field 1), trainer_spec (2), normalizer_spec (3),
    denormalizer_spec (5). The wire format is a tag, then a varint, four or eight bytes, or a length and so many bytes.
    Numbers of fields are those of sentencepiece_model.proto.                                       */

#include "spm_file.h"

#include "utf8.h"
#include "vocab.h"

#include "memory.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    LONGEST_PIECE = 4096,
    MOST_NESTED_USER = 60, //  the library has room for 64 of them
    MOST_NESTED_RULES = 32 //  prefixes of one another in the normaliser's table: its room
};

//  ---------------------------------------------------------------------------------------------
//  Reading messages

typedef struct {
    const unsigned char *at, *end;
} message_t;

typedef struct {
    uint64_t number;  //  of the field
    unsigned type;    //  0 varint, 1 eight bytes, 2 a length and bytes, 5 four bytes
    uint64_t value;   //  type 0
    message_t inside; //  type 2: the bytes; types 1 and 5: those
} field_t;

static bool
s_varint (message_t *self, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && self->at < self->end; shift += 7) {
        unsigned char byte = *self->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool
s_field (message_t *self, field_t *field)
{
    uint64_t tag, size;
    memset (field, 0, sizeof *field);
    if (!s_varint (self, &tag))
        return false;
    field->number = tag >> 3;
    field->type = (unsigned)(tag & 7);
    if (field->type == 0)
        return s_varint (self, &field->value);
    if (field->type == 2) {
        if (!s_varint (self, &size))
            return false;
    } else if (field->type == 1)
        size = 8;
    else if (field->type == 5)
        size = 4;
    else
        return false;
    if (size > (uint64_t)(self->end - self->at))
        return false;
    field->inside = (message_t){self->at, self->at + size};
    self->at += size;
    return true;
}

//  ---------------------------------------------------------------------------------------------
//  The normaliser's table

static uint32_t
s_word (const unsigned char *from, size_t index)
{
    const unsigned char *byte = from + 4 * index;
    return (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 |
           (uint32_t)byte[3] << 24;
}

//  Walks a Darts double array (count units, from 0) along every label that exists, as the library would for some text:
//  each step must stay inside, each rule must lead to a text inside texts, and no text may meet more rules than there
//  is room for. Ways may meet again, so a unit is visited anew when more rules lead to it than before.
static bool
s_table_is_sound (const unsigned char *units, size_t count, size_t texts)
{
    enum { WAITS = 128 }; //  in most: the unit lies on the stack
    unsigned char *most = tl_alloc (count + 1);
    uint32_t *stack = tl_alloc ((count + 1) * sizeof *stack);
    size_t depth = 0;
    bool sound = count > 0 && count <= UINT32_MAX;
    if (sound) {
        stack[depth++] = 0;
        most[0] = 1 | WAITS;
    }
    while (sound && depth > 0) {
        uint32_t at = stack[--depth], unit = s_word (units, at);
        unsigned char rules = most[at] &= (unsigned char)~WAITS;
        //  Its children lie at this number with their labels' bits turned over; under no label, its rule.
        size_t base = at ^ (size_t)((unit >> 10) << ((unit & (1u << 9)) >> 6));
        if (base >= count || (base | 0xff) >= count) {
            sound = false;
            break;
        }
        if (unit >> 8 & 1) {
            rules++;
            sound = (s_word (units, base) & 0x7fffffff) < texts && rules <= MOST_NESTED_RULES + 1;
        }
        for (uint32_t label = 0; sound && label < 256; label++) {
            size_t child = base ^ label;
            bool exists = (s_word (units, child) & ((1u << 31) | 0xff)) == label;
            if (!exists || (most[child] & ~WAITS) >= rules)
                continue;
            if (!(most[child] & WAITS))
                stack[depth++] = (uint32_t)child;
            most[child] = rules | WAITS;
        }
    }
    free (most);
    free (stack);
    return sound;
}

//  A charsmap: the table's bytes, the table, then texts that each end with a NUL.
static bool
s_charsmap_is_sound (message_t map)
{
    size_t size = (size_t)(map.end - map.at);
    if (size == 0)
        return true;
    if (size < 8)
        return false;
    size_t table = s_word (map.at, 0);
    if (table % 4 != 0 || table >= size - 4)
        return false;
    size_t texts = size - 4 - table;
    return map.end[-1] == 0 && s_table_is_sound (map.at + 4, table / 4, texts);
}

//  ---------------------------------------------------------------------------------------------
//  Checking

typedef struct {
    const char *name; //  of the file
    tl_spm_piece_t *pieces;
    size_t count, size;
    uint64_t model_type;
    bool suffix, escapes, denormalises, charsmap_sound;
    tl_spm_rules_t rules;
    tl_error_t *err;
} check_t;

static int
s_broken (const check_t *self, const char *what)
{
    return tl_fail (self->err, TL_BAD_INPUT,
                    "%s is not a SentencePiece model (%s); fetch the file again", self->name, what);
}

static int
s_read_piece (check_t *self, message_t message)
{
    field_t field;
    tl_spm_piece_t piece = {.text = "", .kind = TL_SPM_NORMAL};
    while (message.at < message.end) {
        if (!s_field (&message, &field))
            return s_broken (self, "a piece is cut off");
        if (field.number == 1 && field.type == 2) {
            piece.text = (const char *)field.inside.at;
            piece.size = (size_t)(field.inside.end - field.inside.at);
        } else if (field.number == 2 && field.type == 5)
            memcpy (&piece.score, field.inside.at, sizeof piece.score);
        else if (field.number == 3 && field.type == 0)
            piece.kind = field.value >= 1 && field.value <= 6 ? (tl_spm_kind_t)field.value : 0;
    }
    if (piece.size == 0 || piece.size > LONGEST_PIECE || memchr (piece.text, 0, piece.size) ||
        tl_utf8_valid (piece.text, piece.size) != piece.size || piece.kind == 0 ||
        !isfinite (piece.score))
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s: piece %zu ('%.*s') is not a text of 1 to %d bytes with a finite score "
                        "and a known type; fetch the file again",
                        self->name, self->count, (int)(piece.size < 40 ? piece.size : 40),
                        piece.text, LONGEST_PIECE);
    if (self->count == TL_VOCAB_MOST)
        return s_broken (self, "it has millions of pieces");
    if (self->count == self->size) {
        self->size = self->size * 2 + 1024;
        self->pieces = realloc (self->pieces, self->size * sizeof *self->pieces);
        if (!self->pieces)
            abort ();
    }
    self->pieces[self->count++] = piece;
    return 0;
}

static int
s_read_trainer (check_t *self, message_t message)
{
    field_t field;
    while (message.at < message.end) {
        if (!s_field (&message, &field))
            return s_broken (self, "its trainer_spec is cut off");
        if (field.number == 3 && field.type == 0)
            self->model_type = field.value;
        else if (field.number == 24 && field.type == 0)
            self->suffix = field.value != 0;
    }
    return 0;
}

static int
s_read_normalizer (check_t *self, message_t message, bool back)
{
    field_t field;
    while (message.at < message.end) {
        if (!s_field (&message, &field))
            return s_broken (self, "its normalizer_spec is cut off");
        if (field.number == 2 && field.type == 2) {
            if (back)
                self->denormalises |= field.inside.at < field.inside.end;
            else
                self->charsmap_sound = s_charsmap_is_sound (field.inside);
        } else if (!back && field.type == 0 && field.number == 3)
            self->rules.dummy_prefix = field.value != 0;
        else if (!back && field.type == 0 && field.number == 4)
            self->rules.strips = field.value != 0;
        else if (!back && field.type == 0 && field.number == 5)
            self->escapes = field.value != 0;
    }
    return 0;
}

static int
s_read_model (check_t *self, message_t message)
{
    field_t field;
    int rc = 0;
    while (rc == 0 && message.at < message.end) {
        if (!s_field (&message, &field))
            return s_broken (self, "it is cut off, or no protobuf message");
        if (field.type != 2)
            continue;
        if (field.number == 1)
            rc = s_read_piece (self, field.inside);
        else if (field.number == 2)
            rc = s_read_trainer (self, field.inside);
        else if (field.number == 3 || field.number == 5)
            rc = s_read_normalizer (self, field.inside, field.number == 5);
    }
    return rc;
}

static int
s_by_text (const void *one, const void *two)
{
    const tl_spm_piece_t *a = one, *b = two;
    size_t size = a->size < b->size ? a->size : b->size;
    int order = memcmp (a->text, b->text, size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

//  The library looks for user-defined pieces into a list of fixed length: how many begin one another?
static bool
s_users_fit (const check_t *self)
{
    tl_spm_piece_t *users = tl_alloc ((self->count + 1) * sizeof *users);
    size_t nested[MOST_NESTED_USER + 1], depth = 0, count = 0;
    bool fit = true;
    for (size_t i = 0; i < self->count; i++)
        if (self->pieces[i].kind == TL_SPM_USER)
            users[count++] = self->pieces[i];
    qsort (users, count, sizeof *users, s_by_text);
    for (size_t i = 0; fit && i < count; i++) {
        while (depth > 0 && (users[nested[depth - 1]].size > users[i].size ||
                             memcmp (users[nested[depth - 1]].text, users[i].text,
                                     users[nested[depth - 1]].size) != 0))
            depth--;
        fit = depth < MOST_NESTED_USER;
        nested[depth++] = i;
    }
    free (users);
    return fit;
}

static int
s_judge (const check_t *self)
{
    if (self->count == 0)
        return s_broken (self, "it has no pieces");
    if (!self->charsmap_sound)
        return s_broken (self, "its normaliser's table leads out of the file");
    if (!s_users_fit (self))
        return s_broken (self, "too many user-defined pieces begin one another");
    const char *what = self->model_type != 1 && self->model_type != 2 ? "model_type word or char"
                       : self->suffix                                 ? "treat_whitespace_as_suffix"
                       : !self->escapes                               ? "escape_whitespaces false"
                       : self->denormalises                           ? "a denormalizer"
                                                                      : NULL;
    if (what)
        return tl_fail (self->err, TL_BAD_INPUT,
                        "%s has %s, which isn't supported; use a model of a supported family",
                        self->name, what);
    return 0;
}

tl_spm_piece_t *
tl_spm_check (const char *name, const void *data, size_t size, tl_spm_rules_t *rules, size_t *count,
              tl_error_t *err)
{
    //  The proto's defaults.
    check_t check = {.name = name,
                     .model_type = 1,
                     .escapes = true,
                     .charsmap_sound = true,
                     .rules = {.dummy_prefix = true, .strips = true},
                     .err = err};
    message_t message = {data, (const unsigned char *)data + size};
    if (s_read_model (&check, message) != 0 || s_judge (&check) != 0) {
        free (check.pieces);
        return NULL;
    }
    *rules = check.rules;
    *count = check.count;
    return check.pieces;
}

//  ---------------------------------------------------------------------------------------------
//  Making

static void
s_put_varint (tl_text_t *out, uint64_t value)
{
    char byte;
    for (; value >= 128; value >>= 7) {
        byte = (char)(value | 128);
        tl_text_add (out, &byte, 1);
    }
    byte = (char)value;
    tl_text_add (out, &byte, 1);
}

static void
s_put_number (tl_text_t *out, unsigned field, uint64_t value)
{
    s_put_varint (out, field << 3);
    s_put_varint (out, value);
}

static void
s_put_bytes (tl_text_t *out, unsigned field, const char *data, size_t size)
{
    s_put_varint (out, field << 3 | 2);
    s_put_varint (out, size);
    tl_text_add (out, data, size);
}

void
tl_spm_make (tl_text_t *out, const tl_spm_piece_t *pieces, size_t count,
             const tl_spm_rules_t *rules)
{
    bool bytes = false;
    tl_text_t inside = {0};
    for (size_t i = 0; i < count; i++) {
        inside.size = 0;
        s_put_bytes (&inside, 1, pieces[i].text, pieces[i].size);
        s_put_varint (&inside, 2 << 3 | 5);
        tl_text_add (&inside, (const char *)&pieces[i].score, sizeof pieces[i].score);
        s_put_number (&inside, 3, pieces[i].kind);
        s_put_bytes (out, 1, inside.data, inside.size);
        bytes |= pieces[i].kind == TL_SPM_BYTE;
    }
    inside.size = 0;
    s_put_number (&inside, 3, 2); //  BPE
    s_put_number (&inside, 35, bytes);
    s_put_bytes (out, 2, inside.data, inside.size);
    inside.size = 0;
    s_put_bytes (&inside, 1, "identity", 8);
    s_put_number (&inside, 3, rules->dummy_prefix);
    s_put_number (&inside, 4, rules->strips);
    s_put_bytes (out, 3, inside.data, inside.size);
    free (inside.data);
}
