//  internal: what the codec's two halves share. Nobody else includes it.

#ifndef TL_MESSAGES_INTERNAL_H
#define TL_MESSAGES_INTERNAL_H

#include "messages/messages.h"

enum { ENVELOPE_FIELDS = 11, TENSOR_FIELDS = 7 };

//  Fields of every record and body: ARITY_agreement, ARITY_hello ...
#define U64(name) +1
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

bool tl_type_known (uint64_t type);

//  Bytes of the well-formed UTF-8 character at text (RFC 3629: no surrogates, no overlong forms), 0 if there is
//  none. NUL counts as ill-formed: our texts are C strings. size is at least 1.
size_t tl_utf8_character (const uint8_t *text, size_t size);

//  What is wrong with a descriptor, NULL if nothing is.
const char *tl_tensor_fault (const tl_tensor_wire_t *tensor);

#endif
