/*  codec: the facts of messages.def about types, and a message to one msgpack frame; decode.c is the way
    back. All of it is generated from the table.

    Takes tl_message_t and gives flat frames; never sees a payload, a socket or a session, and doesn't
    judge whether a message is legal now: that is the link's and the actors' work.                  */

#include "messages/internal.h"

#include "assert.h"
#include "messages/tensor_wire.h"

#include <msgpack.h>

#include <stdlib.h>
#include <string.h>

//  --- the table as facts about types

enum { CONTROL = 1, DATA = 2, BOTH = CONTROL | DATA };
enum {
    CLIENT = 1,
    WORKER = 2,
    AGGREGATOR = 4,
    PEER = CLIENT | WORKER | AGGREGATOR,
    BROKER = 8,
    ADMIN = 16,
    ANY = 31
};

//  Whether a tensor is among the fields is found by or-ing them.
#define TENSOR(name) | 1
#define MESSAGE(id, NAME, name, socket, from, fields) [id] = {#NAME, socket, from, 0 fields},
static const struct {
    const char *name; //  "HELLO"; NULL where no message has the id
    uint8_t socket;   //  CONTROL, DATA or both
    uint8_t from;     //  set of authors
    bool tensor;      //  has a payload frame
} s_types[] = {
#include "messages_expand.h"
};

bool
tl_type_known (uint64_t type)
{
    return type < sizeof s_types / sizeof s_types[0] && s_types[type].name;
}

const char *
tl_type_name (tl_type_t type)
{
    return tl_type_known (type) ? s_types[type].name : "?";
}

bool
tl_type_sequenced (tl_type_t type)
{
    return tl_type_known (type) && s_types[type].socket == DATA && type != TL_CREDIT;
}

bool
tl_type_tensor (tl_type_t type)
{
    return tl_type_known (type) && s_types[type].tensor;
}

bool
tl_type_from (tl_type_t type, const char *role)
{
    static const struct {
        const char *name; //  as keys and topology write it
        uint8_t bit;      //  in s_types.from
    } roles[] = {{"client", CLIENT},
                 {"worker", WORKER},
                 {"aggregator", AGGREGATOR},
                 {"broker", BROKER},
                 {"admin", ADMIN}};
    for (size_t i = 0; tl_type_known (type) && i < sizeof roles / sizeof roles[0]; i++)
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

//  From eight chunks on a tensor overlaps itself well enough with half as many.
uint64_t
tl_chunk_bytes (uint64_t tensor_bytes)
{
    return tensor_bytes < 8 * (uint64_t)TL_CHUNK_LEAST ? TL_CHUNK_LEAST : TL_CHUNK_MOST;
}

size_t
tl_utf8_character (const uint8_t *text, size_t size)
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

const char *
tl_tensor_fault (const tl_tensor_wire_t *tensor)
{
    uint64_t width = tensor->dtype <= TL_W_U8 ? tl_w_dtype_size ((tl_w_dtype_t)tensor->dtype) : 0;
    if (width == 0)
        return "an unknown dtype";
    if (tensor->rows == 0 || tensor->columns == 0)
        return "no rows or no columns";
    //  Bytes are never rows: whoever expects columns of numbers can't be given fewer bytes than those need.
    if (tensor->dtype == TL_W_U8 && tensor->columns != 1)
        return "raw bytes in more than one column";
    if (tensor->columns > UINT64_MAX / width / tensor->rows ||
        tensor->rows * tensor->columns * width != tensor->bytes)
        return "bytes that aren't rows x columns x size of its dtype";
    uint64_t chunk = tl_chunk_bytes (tensor->bytes);
    if (tensor->offset % chunk || tensor->offset >= tensor->bytes)
        return "a chunk that doesn't start at a multiple of its tensor's chunks inside it";
    uint64_t rest = tensor->bytes - tensor->offset;
    if (tensor->size != (rest < chunk ? rest : chunk))
        return "a chunk that is neither of its tensor's size of chunks nor what is left";
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
        size_t length = tl_utf8_character ((const uint8_t *)text + at, size - at);
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
    tl_assert (tl_tensor_fault (tensor) == NULL);
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
    tl_assert (tl_type_known (self->type));
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
