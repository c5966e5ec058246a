/*  messages: what travels between peers and broker, as structs; and the codec that turns them into one
    msgpack frame and back. A payload chunk is a second frame, which the codec never sees.

    Envelope on the wire: array of 11: version, type, run, round, step, micro, sequence, ack, sender,
    sent, body (array of the type's fields in the order of messages.def).                          */

#ifndef TL_MESSAGES_H
#define TL_MESSAGES_H

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

//  A tensor travels in chunks, small enough that a step's is several: both encryptions and the broker's forwarding
//  then work on different chunks at the same time; no smaller, since each costs (docs/performance.md).
enum {
    TL_PROTOCOL_VERSION = 3,
    TL_CHUNK_LEAST = 1 << 16, //  of tensors below 512 KiB
    TL_CHUNK_MOST = 1 << 17,  //  of the others
    TL_NAME_LIMIT = 64
};

typedef enum { TL_W_F32 = 1, TL_W_BF16 = 2, TL_W_F16 = 3, TL_W_U8 = 4 } tl_w_dtype_t;

//  Descriptor of one tensor and of the chunk of it that the message's second frame holds.
typedef struct {
    uint64_t dtype;         //  tl_w_dtype_t
    uint64_t rows, columns; //  shape
    uint64_t bytes;         //  of the whole tensor: rows x columns x dtype's size
    uint64_t checksum;      //  XXH3-64 of the whole tensor's bytes
    uint64_t offset;        //  of this chunk
    uint64_t size;          //  of this chunk, 1 .. TL_CHUNK_MOST; must equal the frame's size
} tl_tensor_wire_t;

#include "messages_generate.h" //  records, bodies, tl_type_t (TL_HELLO ...), from messages.def

typedef struct {
    tl_type_t type;
    uint64_t run; //  run id from the broker; 0 before WELCOME
    uint64_t round, step, micro;
    uint64_t sequence; //  link sequence, 1 ..; 0 for unsequenced messages
    uint64_t ack;      //  everything up to here is released at the sender of this message
    char sender
        [TL_NAME_LIMIT]; //  what the sender claims; the broker overwrites it with the proven name
    int64_t sent;        //  wall-clock microseconds
    tl_body_t body;      //  union: body.hello, body.plan ...
    void *memory;        //  decode's one allocation for lists and texts; NULL when built by hand
} tl_message_t;

//  Zeroed message of that type.
void tl_message_init (tl_message_t *self, tl_type_t type);
//  Frees what decode allocated (lists, texts); messages built by hand own nothing and need no clear.
void tl_message_clear (tl_message_t *self);

//  Fresh buffer with the encoded frame; the caller frees. Asserts that limits are kept (a NULL text is an empty
//  one, bytes of a text that aren't UTF-8 become '?'; doubles are written as they are: the receiver refuses NaN).
void *tl_message_encode (const tl_message_t *self, size_t *size);
//  Returns 0, or -1 with a sentence and nothing to clear. Starts from failure: version, type, arity, kinds, limits,
//  UTF-8, tensor arithmetic and trailing bytes are checked before anything is allocated.
int tl_message_decode (tl_message_t *self, const void *data, size_t size, tl_error_t *err);

//  Is the payload frame of size (has false: none came) the one that this message announces? 0, or -1 with a sentence.
//  To be asked before a payload is used or passed on.
int tl_message_check_payload (const tl_message_t *self, bool has, size_t size, tl_error_t *err);

const char *tl_type_name (tl_type_t type); //  "HELLO"; "?" if unknown
bool tl_type_sequenced (tl_type_t type);   //  travels on a link with a sequence (DATA but CREDIT)
bool tl_type_tensor (tl_type_t type);      //  has a payload frame
//  Of all chunks of a tensor of so many bytes but its last, which is what is left.
uint64_t tl_chunk_bytes (uint64_t tensor_bytes);
const tl_tensor_wire_t *
tl_message_tensor (const tl_message_t *self); //  its descriptor, NULL if none
//  May role "client", "worker", "aggregator", "broker" or "admin" be the author of it. What a peer wrote stays its own
//  when the broker passes it on.
bool tl_type_from (tl_type_t type, const char *role);

#endif
