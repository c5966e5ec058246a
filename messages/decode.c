/*  decode: one msgpack frame to a message, generated from messages.def.

    A cursor of our own, for three reasons. msgpack-c's unpacker makes a tree and allocates by the counts
    a frame claims, before it has seen the elements; here the table is the grammar, so nesting can't go
    deeper than messages.def does and there is no recursion. The frame is walked twice: the first walk
    checks everything and adds up what lists and texts need, and only when it has come to the end of a
    valid frame is that much allocated, at once, and filled by the second. And the cursor takes the
    shortest form of every number and length only, so that a message has exactly one encoding and what
    decodes re-encodes to the same bytes.                                                           */

#include "messages/internal.h"

#include "assert.h"
#include "memory.h"

#include <math.h>
#include <string.h>

typedef struct {
    const uint8_t *at, *end; //  what is left of the frame
    uint8_t *memory;         //  second walk: room for lists and texts; NULL on the first
    size_t needed;           //  bytes of it that were handed out (first walk: would be)
    const char *message;     //  name of the type once known, for sentences
    tl_error_t *err;
} tl_cursor_t;

static bool
s_refuse (tl_cursor_t *self, const char *field, const char *fault)
{
    tl_fail (self->err, TL_BAD_INPUT,
             "message %s was refused: field '%s' has %s; run the same trunkline on both sides",
             self->message, field, fault);
    return false;
}

//  Big-endian number of width bytes after the lead byte; false if the frame ends first.
static bool
s_number (tl_cursor_t *self, size_t width, uint64_t *value)
{
    if ((size_t)(self->end - self->at) < width + 1)
        return false;
    *value = 0;
    for (size_t i = 1; i <= width; i++)
        *value = *value << 8 | self->at[i];
    self->at += width + 1;
    return true;
}

//  Room for size bytes, NULL on the first walk.
static void *
s_take (tl_cursor_t *self, size_t size)
{
    uint8_t *room = self->memory ? self->memory + self->needed : NULL;
    self->needed += (size + 7) & ~(size_t)7;
    return room;
}

//  A count or length: base + n for n below span, else a lead byte (0: no such form) and 1, 2 or 4 bytes. Shortest
//  form only.
static bool
s_length (tl_cursor_t *self, uint8_t base, uint64_t span, const uint8_t lead[3], uint64_t *length)
{
    if (self->at == self->end)
        return false;
    uint8_t byte = self->at[0];
    if (byte >= base && byte < base + span) {
        *length = byte - base;
        self->at++;
        return true;
    }
    uint64_t least = span;
    for (size_t i = 0; i < 3; i++) {
        if (lead[i] && byte == lead[i])
            return s_number (self, (size_t)1 << i, length) && *length >= least;
        if (lead[i])
            least = (uint64_t)1 << (8 << i);
    }
    return false;
}

static bool
s_array (tl_cursor_t *self, uint64_t *count)
{
    static const uint8_t lead[3] = {0, 0xdc, 0xdd};
    return s_length (self, 0x90, 16, lead, count);
}

static bool
s_record (tl_cursor_t *self, const char *field, uint64_t arity)
{
    uint64_t count;
    return (s_array (self, &count) && count == arity) ||
           s_refuse (self, field, "another number of fields");
}

static bool
s_read_u64 (tl_cursor_t *self, const char *field, uint64_t *value)
{
    static const uint64_t least[4] = {0x80, 0x100, 0x10000, 0x100000000};
    uint8_t byte = self->at < self->end ? self->at[0] : 0xc1;
    if (byte < 0x80) {
        *value = byte;
        self->at++;
        return true;
    }
    if (byte >= 0xcc && byte <= 0xcf && s_number (self, (size_t)1 << (byte - 0xcc), value) &&
        *value >= least[byte - 0xcc])
        return true;
    return s_refuse (self, field, "no whole number of 64 bits in its shortest form");
}

//  Numbers from 0 up are written like U64, as msgpack asks; below, the shortest form again.
static bool
s_read_i64 (tl_cursor_t *self, const char *field, int64_t *value)
{
    static const int64_t most[4] = {-33, INT8_MIN - 1, INT16_MIN - 1, (int64_t)INT32_MIN - 1};
    uint8_t byte = self->at < self->end ? self->at[0] : 0xc1;
    uint64_t raw;
    if (byte >= 0xe0) {
        *value = (int8_t)byte;
        self->at++;
        return true;
    }
    if (byte >= 0xd0 && byte <= 0xd3) {
        size_t width = (size_t)1 << (byte - 0xd0);
        if (!s_number (self, width, &raw))
            return s_refuse (self, field, "no whole number");
        uint64_t sign = (uint64_t)1 << (width * 8 - 1);
        *value = (int64_t)((raw ^ sign) - sign);
        return *value <= most[byte - 0xd0] ||
               s_refuse (self, field, "a number that isn't in its shortest form");
    }
    if (!s_read_u64 (self, field, &raw))
        return false;
    *value = (int64_t)raw;
    return raw <= INT64_MAX || s_refuse (self, field, "a number past 63 bits");
}

//  Every double of the protocol is a norm, a sum of squares or a negative log likelihood: none is below 0.
static bool
s_read_f64 (tl_cursor_t *self, const char *field, double *value)
{
    uint64_t raw;
    if (self->at == self->end || self->at[0] != 0xcb || !s_number (self, 8, &raw))
        return s_refuse (self, field, "no double");
    memcpy (value, &raw, sizeof *value);
    return (isfinite (*value) && *value >= 0) ||
           s_refuse (self, field, "a double that is not finite or below 0");
}

static bool
s_read_boolean (tl_cursor_t *self, const char *field, bool *value)
{
    if (self->at == self->end || (self->at[0] & 0xfe) != 0xc2)
        return s_refuse (self, field, "neither true nor false");
    *value = *self->at++ == 0xc3;
    return true;
}

//  Steps over size bytes that the frame must still have, at most limit.
static const uint8_t *
s_span (tl_cursor_t *self, const char *field, uint64_t size, uint64_t limit)
{
    if (size > limit || size > (uint64_t)(self->end - self->at)) {
        s_refuse (self, field, "more bytes than it may have or than the frame holds");
        return NULL;
    }
    const uint8_t *bytes = self->at;
    self->at += size;
    return bytes;
}

static const uint8_t *
s_text (tl_cursor_t *self, const char *field, uint64_t limit, uint64_t *size)
{
    static const uint8_t lead[3] = {0xd9, 0xda, 0xdb};
    if (!s_length (self, 0xa0, 32, lead, size)) {
        s_refuse (self, field, "no text");
        return NULL;
    }
    const uint8_t *text = s_span (self, field, *size, limit);
    for (uint64_t at = 0, length; text && at < *size; at += length) {
        length = tl_utf8_character (text + at, *size - at);
        if (length == 0) {
            s_refuse (self, field, "bytes that aren't UTF-8, or NUL");
            return NULL;
        }
    }
    return text;
}

static bool
s_read_text (tl_cursor_t *self, const char *field, uint64_t limit, const char **value)
{
    uint64_t size;
    const uint8_t *text = s_text (self, field, limit, &size);
    if (!text)
        return false;
    char *copy = s_take (self, size + 1); //  its last byte is zero already
    if (copy)
        memcpy (copy, text, size);
    *value = copy;
    return true;
}

static bool
s_read_bytes (tl_cursor_t *self, const char *field, uint64_t limit, const uint8_t **value,
              size_t *value_size)
{
    static const uint8_t lead[3] = {0xc4, 0xc5, 0xc6};
    uint64_t size;
    if (!s_length (self, 0, 0, lead, &size))
        return s_refuse (self, field, "no bytes");
    const uint8_t *bytes = s_span (self, field, size, limit);
    if (!bytes)
        return false;
    uint8_t *copy = s_take (self, size);
    if (copy)
        memcpy (copy, bytes, size);
    *value = copy;
    *value_size = size;
    return true;
}

static bool
s_read_tensor (tl_cursor_t *self, const char *field, tl_tensor_wire_t *tensor)
{
    if (!s_record (self, field, TENSOR_FIELDS) || !s_read_u64 (self, "dtype", &tensor->dtype) ||
        !s_read_u64 (self, "rows", &tensor->rows) ||
        !s_read_u64 (self, "columns", &tensor->columns) ||
        !s_read_u64 (self, "bytes", &tensor->bytes) ||
        !s_read_u64 (self, "checksum", &tensor->checksum) ||
        !s_read_u64 (self, "offset", &tensor->offset) || !s_read_u64 (self, "size", &tensor->size))
        return false;
    const char *fault = tl_tensor_fault (tensor);
    return !fault || s_refuse (self, field, fault);
}

#define U64(name) &&s_read_u64 (cursor, #name, &self->name)
#define F64(name) &&s_read_f64 (cursor, #name, &self->name)
#define BOOLEAN(name) &&s_read_boolean (cursor, #name, &self->name)
#define TEXT(name, limit) &&s_read_text (cursor, #name, limit, &self->name)
#define BYTES(name, limit) &&s_read_bytes (cursor, #name, limit, &self->name, &self->name##_size)
#define LIST(type, name, limit)                                                                    \
    &&s_read_##type##_list (cursor, #name, limit, &self->name, &self->name##_count)
#define TENSOR(name) &&s_read_tensor (cursor, #name, &self->name)

#define RECORD(name, fields)                                                                       \
    static bool s_read_##name (tl_cursor_t *cursor, tl_##name##_t *self)                           \
    {                                                                                              \
        return s_record (cursor, #name, ARITY_##name) fields;                                      \
    }                                                                                              \
    static bool s_read_##name##_list (tl_cursor_t *cursor, const char *field, uint64_t limit,      \
                                      tl_##name##_t **list, size_t *list_count)                    \
    {                                                                                              \
        uint64_t count;                                                                            \
        if (!s_array (cursor, &count) || count > limit)                                            \
            return s_refuse (cursor, field, "no list or one past its limit");                      \
        *list = s_take (cursor, count * sizeof **list);                                            \
        *list_count = count;                                                                       \
        bool good = true;                                                                          \
        for (uint64_t i = 0; good && i < count; i++) {                                             \
            tl_##name##_t only_checked;                                                            \
            good = s_read_##name (cursor, *list ? &(*list)[i] : &only_checked);                    \
        }                                                                                          \
        return good;                                                                               \
    }
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    static bool s_read_##name (tl_cursor_t *cursor, struct tl_body_##name *self)                   \
    {                                                                                              \
        return s_record (cursor, "body", ARITY_##name) fields;                                     \
    }
#include "messages_expand.h"

static bool
s_read_body (tl_cursor_t *cursor, tl_message_t *self)
{
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    case TL_##NAME:                                                                                \
        return s_read_##name (cursor, &self->body.name);
    switch (self->type) {
#include "messages_expand.h"
    }
    return false;
}

//  The sender stays in the message itself, so it takes no room.
static bool
s_read_sender (tl_cursor_t *cursor, tl_message_t *self)
{
    uint64_t size;
    const uint8_t *text = s_text (cursor, "sender", TL_NAME_LIMIT - 1, &size);
    if (!text)
        return false;
    memcpy (self->sender, text, size);
    return true;
}

//  One walk over the whole frame. The version comes first and alone, so that another protocol is called that.
static bool
s_walk (tl_cursor_t *cursor, tl_message_t *self)
{
    uint64_t fields, version, type;
    if (!s_array (cursor, &fields) || fields == 0)
        return s_refuse (cursor, "envelope", "no array, so this is no trunkline message");
    if (!s_read_u64 (cursor, "version", &version))
        return false;
    if (version != TL_PROTOCOL_VERSION) {
        tl_fail (cursor->err, TL_BAD_INPUT,
                 "message was refused: it speaks protocol version %llu, this side speaks %d; run "
                 "the same trunkline on both sides",
                 (unsigned long long)version, TL_PROTOCOL_VERSION);
        return false;
    }
    if (fields != ENVELOPE_FIELDS)
        return s_refuse (cursor, "envelope", "another number of fields");
    if (!s_read_u64 (cursor, "type", &type))
        return false;
    if (!tl_type_known (type))
        return s_refuse (cursor, "type", "a number that no message has");
    self->type = (tl_type_t)type;
    cursor->message = tl_type_name ((tl_type_t)type);
    if (!s_read_u64 (cursor, "run", &self->run) || !s_read_u64 (cursor, "round", &self->round) ||
        !s_read_u64 (cursor, "step", &self->step) || !s_read_u64 (cursor, "micro", &self->micro) ||
        !s_read_u64 (cursor, "sequence", &self->sequence) ||
        !s_read_u64 (cursor, "ack", &self->ack) || !s_read_sender (cursor, self) ||
        !s_read_i64 (cursor, "sent", &self->sent) || !s_read_body (cursor, self))
        return false;
    return cursor->at == cursor->end || s_refuse (cursor, "body", "bytes after its end");
}

int
tl_message_decode (tl_message_t *self, const void *data, size_t size, tl_error_t *err)
{
    int rc = -1;
    memset (self, 0, sizeof *self);
    tl_cursor_t check = {.at = data, .end = (const uint8_t *)data + size, .message = "?"};
    check.err = err;
    tl_message_t checked = {0};
    if (size && s_walk (&check, &checked)) {
        tl_cursor_t fill = {.at = data, .end = check.end, .message = "?", .err = err};
        fill.memory = check.needed ? tl_alloc (check.needed) : NULL;
        bool same = s_walk (&fill, self);
        tl_assert (same && fill.needed == check.needed);
        self->memory = fill.memory;
        rc = 0;
    } else if (size == 0)
        tl_fail (err, TL_BAD_INPUT,
                 "message was refused: the frame is empty; run the same trunkline on both sides");
    return rc;
}
