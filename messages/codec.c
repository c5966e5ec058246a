/*  codec: a message to one msgpack frame and back, generated from messages.def.

    Takes and gives tl_message_t and flat frames; never sees a payload, a socket or a session, and
    doesn't judge whether a message is legal now: that is the link's and the actors' work.

    Encoding is msgpack-c's packer. Decoding is a cursor of our own, for three reasons. msgpack-c's
    unpacker makes a tree and allocates by the counts a frame claims, before it has seen the elements;
    here the table is the grammar, so nesting can't go deeper than messages.def does and there is no
    recursion. The frame is walked twice: the first walk checks everything and adds up what lists and
    texts need, and only when it has come to the end of a valid frame is that much allocated, at once,
    and filled by the second. And the cursor takes the shortest form of every number and length only,
    so that a message has exactly one encoding and what decodes re-encodes to the same bytes.        */

#include "messages/messages.h"

#include "assert.h"
#include "memory.h"
#include "messages/tensor_wire.h"

#include <msgpack.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ENVELOPE_FIELDS = 11, TENSOR_FIELDS = 7 };

//  --- the table as facts about types

enum { CONTROL = 1, DATA = 2, BOTH = CONTROL | DATA };
enum { CLIENT = 1, WORKER = 2, PEER = CLIENT | WORKER, BROKER = 4, ADMIN = 8, ANY = 15 };

//  Arities, and whether a tensor is among the fields.
#define U64(name) +1
#define I64(name) +1
#define F64(name) +1
#define BOOLEAN(name) +1
#define TEXT(name, limit) +1
#define BYTES(name, limit) +1
#define LIST(type, name, limit) +1
#define TENSOR(name) +1
#define RECORD(name, fields) ARITY_##name = 0 fields,
#define MESSAGE(id, NAME, name, socket, from, fields) ARITY_##name = 0 fields,
enum {
#include "messages_expand.h"
};

#define TENSOR(name) | 1
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    [id] = {#NAME, ARITY_##name, socket, from, 0 fields},
static const struct {
    const char *name; //  "HELLO"; NULL where no message has the id
    uint32_t arity;   //  fields of the body
    uint8_t socket;   //  CONTROL, DATA or both
    uint8_t from;     //  set of authors
    bool tensor;      //  has a payload frame
} s_types[] = {
#include "messages_expand.h"
};

static bool
s_known (uint64_t type)
{
    return type < sizeof s_types / sizeof s_types[0] && s_types[type].name;
}

const char *
tl_type_name (tl_type_t type)
{
    return s_known (type) ? s_types[type].name : "?";
}

bool
tl_type_sequenced (tl_type_t type)
{
    return s_known (type) && s_types[type].socket == DATA && type != TL_CREDIT;
}

bool
tl_type_tensor (tl_type_t type)
{
    return s_known (type) && s_types[type].tensor;
}

bool
tl_type_from (tl_type_t type, const char *role)
{
    static const struct {
        const char *name; //  as keys and topology write it
        uint8_t bit;      //  in s_types.from
    } roles[] = {{"client", CLIENT}, {"worker", WORKER}, {"broker", BROKER}, {"admin", ADMIN}};
    for (size_t i = 0; s_known (type) && i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp (role, roles[i].name) == 0)
            return s_types[type].from & roles[i].bit;
    return false;
}

//  The only field that is a tensor, whatever the message.
const tl_tensor_wire_t *
tl_message_tensor (const tl_message_t *self)
{
#define TENSOR(name) return &body->name;
#define MESSAGE(id, NAME, lower, socket, from, fields)                                             \
    case TL_##NAME: {                                                                              \
        const struct tl_body_##lower *body = &self->body.lower;                                    \
        (void)body;                                                                                \
        fields                                                                                     \
    } break;
    switch (self->type) {
#include "messages_expand.h"
    }
    return NULL;
}

int
tl_message_check_payload (const tl_message_t *self, bool has, size_t size, tl_error_t *err)
{
    const tl_tensor_wire_t *tensor = tl_message_tensor (self);
    if (!tensor != !has)
        return tl_fail (err, TL_BAD_INPUT,
                        "message %s came %s a payload frame; run the same trunkline on both sides",
                        tl_type_name (self->type), has ? "with" : "without");
    if (tensor && tensor->size != size)
        return tl_fail (err, TL_BAD_INPUT,
                        "message %s announces a chunk of %llu bytes and brings %zu; run the same "
                        "trunkline on both sides",
                        tl_type_name (self->type), (unsigned long long)tensor->size, size);
    return 0;
}

void
tl_message_init (tl_message_t *self, tl_type_t type)
{
    memset (self, 0, sizeof *self);
    self->type = type;
}

void
tl_message_clear (tl_message_t *self)
{
    free (self->memory);
    memset (self, 0, sizeof *self);
}

//  --- what both directions check

//  Bytes of the well-formed UTF-8 character at text (RFC 3629: no surrogates, no overlong forms), 0 if there is
//  none. NUL counts as ill-formed: our texts are C strings.
static size_t
s_utf8 (const uint8_t *text, size_t size)
{
    uint8_t lead = text[0];
    if (lead < 0x80)
        return lead ? 1 : 0;
    size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || size < length)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    if ((lead == 0xe0 && text[1] < 0xa0) || (lead == 0xed && text[1] > 0x9f) ||
        (lead == 0xf0 && text[1] < 0x90) || (lead == 0xf4 && text[1] > 0x8f))
        return 0;
    return length;
}

//  What is wrong with a descriptor, NULL if nothing is.
static const char *
s_tensor_fault (const tl_tensor_wire_t *tensor)
{
    uint64_t width = tensor->dtype <= TL_W_U8 ? tl_w_dtype_size ((tl_w_dtype_t)tensor->dtype) : 0;
    if (width == 0)
        return "an unknown dtype";
    if (tensor->rows == 0 || tensor->columns == 0)
        return "no rows or no columns";
    if (tensor->columns > UINT64_MAX / width / tensor->rows ||
        tensor->rows * tensor->columns * width != tensor->bytes)
        return "bytes that aren't rows x columns x size of its dtype";
    if (tensor->offset % TL_CHUNK_BYTES || tensor->offset >= tensor->bytes)
        return "a chunk that doesn't start at a multiple of 1 MiB inside it";
    uint64_t rest = tensor->bytes - tensor->offset;
    if (tensor->size != (rest < TL_CHUNK_BYTES ? rest : TL_CHUNK_BYTES))
        return "a chunk that is neither 1 MiB nor what is left";
    return NULL;
}

//  --- out

//  A sentence may quote a file name or be cut inside a character; the receiver would refuse the whole message.
static void
s_write_text (msgpack_packer *packer, const char *text, size_t limit)
{
    size_t size = text ? strlen (text) : 0;
    tl_assert (size <= limit);
    msgpack_pack_str (packer, size);
    for (size_t at = 0; at < size;) {
        size_t length = s_utf8 ((const uint8_t *)text + at, size - at);
        msgpack_pack_str_body (packer, length ? text + at : "?", length ? length : 1);
        at += length ? length : 1;
    }
}

static void
s_write_bytes (msgpack_packer *packer, const uint8_t *bytes, size_t size, size_t limit)
{
    tl_assert (size <= limit);
    msgpack_pack_bin (packer, size);
    if (size)
        msgpack_pack_bin_body (packer, bytes, size);
}

static void
s_write_tensor (msgpack_packer *packer, const tl_tensor_wire_t *tensor)
{
    tl_assert (s_tensor_fault (tensor) == NULL);
    msgpack_pack_array (packer, TENSOR_FIELDS);
    msgpack_pack_uint64 (packer, tensor->dtype);
    msgpack_pack_uint64 (packer, tensor->rows);
    msgpack_pack_uint64 (packer, tensor->columns);
    msgpack_pack_uint64 (packer, tensor->bytes);
    msgpack_pack_uint64 (packer, tensor->checksum);
    msgpack_pack_uint64 (packer, tensor->offset);
    msgpack_pack_uint64 (packer, tensor->size);
}

#define U64(name) msgpack_pack_uint64 (packer, self->name);
#define I64(name) msgpack_pack_int64 (packer, self->name);
#define F64(name) msgpack_pack_double (packer, self->name);
#define BOOLEAN(name) self->name ? msgpack_pack_true (packer) : msgpack_pack_false (packer);
#define TEXT(name, limit) s_write_text (packer, self->name, limit);
#define BYTES(name, limit) s_write_bytes (packer, self->name, self->name##_size, limit);
#define LIST(type, name, limit)                                                                    \
    tl_assert (self->name##_count <= limit);                                                       \
    msgpack_pack_array (packer, self->name##_count);                                               \
    for (size_t i = 0; i < self->name##_count; i++)                                                \
        s_write_##type (packer, &self->name[i]);
#define TENSOR(name) s_write_tensor (packer, &self->name);

#define RECORD(name, fields)                                                                       \
    static void s_write_##name (msgpack_packer *packer, const tl_##name##_t *self)                 \
    {                                                                                              \
        msgpack_pack_array (packer, ARITY_##name);                                                 \
        fields                                                                                     \
    }
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    static void s_write_##name (msgpack_packer *packer, const struct tl_body_##name *self)         \
    {                                                                                              \
        msgpack_pack_array (packer, ARITY_##name);                                                 \
        fields                                                                                     \
    }
#include "messages_expand.h"

static void
s_write_body (msgpack_packer *packer, const tl_message_t *self)
{
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    case TL_##NAME:                                                                                \
        s_write_##name (packer, &self->body.name);                                                 \
        break;
    switch (self->type) {
#include "messages_expand.h"
    }
}

//  Running out of memory is fatal, as everywhere; a frame cut short would be sent in silence.
static int
s_append (void *buffer, const char *bytes, size_t size)
{
    int rc = msgpack_sbuffer_write (buffer, bytes, size);
    tl_assert (rc == 0);
    return rc;
}

void *
tl_message_encode (const tl_message_t *self, size_t *size)
{
    tl_assert (s_known (self->type));
    msgpack_sbuffer buffer;
    msgpack_sbuffer_init (&buffer);
    msgpack_packer packer;
    msgpack_packer_init (&packer, &buffer, s_append);

    msgpack_pack_array (&packer, ENVELOPE_FIELDS);
    msgpack_pack_uint64 (&packer, TL_PROTOCOL_VERSION);
    msgpack_pack_uint64 (&packer, self->type);
    msgpack_pack_uint64 (&packer, self->run);
    msgpack_pack_uint64 (&packer, self->round);
    msgpack_pack_uint64 (&packer, self->step);
    msgpack_pack_uint64 (&packer, self->micro);
    msgpack_pack_uint64 (&packer, self->sequence);
    msgpack_pack_uint64 (&packer, self->ack);
    s_write_text (&packer, self->sender, TL_NAME_LIMIT - 1);
    msgpack_pack_int64 (&packer, self->sent);
    s_write_body (&packer, self);

    *size = buffer.size;
    return msgpack_sbuffer_release (&buffer);
}

//  --- in

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
        length = s_utf8 (text + at, *size - at);
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
    const char *fault = s_tensor_fault (tensor);
    return !fault || s_refuse (self, field, fault);
}

#define U64(name) &&s_read_u64 (cursor, #name, &self->name)
#define I64(name) &&s_read_i64 (cursor, #name, &self->name)
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
    if (!s_known (type))
        return s_refuse (cursor, "type", "a number that no message has");
    self->type = (tl_type_t)type;
    cursor->message = s_types[type].name;
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
