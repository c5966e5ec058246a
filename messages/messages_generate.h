/*  messages_generate: turns messages.def into C types. Only messages.h includes it.

    Gives a struct a record (tl_member_t ...), the ids (tl_type_t: TL_HELLO ...) and tl_body_t, a union
    with one struct a message (body.hello.role, body.plan.members ...). A message without fields has an
    empty struct, which gcc and clang allow.                                                         */

#define U64(name) uint64_t name;
#define F64(name) double name;
#define BOOLEAN(name) bool name;
#define TEXT(name, limit) const char *name;
#define BYTES(name, limit)                                                                         \
    const uint8_t *name;                                                                           \
    size_t name##_size;
#define LIST(type, name, limit)                                                                    \
    tl_##type##_t *name;                                                                           \
    size_t name##_count;
#define TENSOR(name) tl_tensor_wire_t name;
#define RECORD(name, fields)                                                                       \
    typedef struct {                                                                               \
        fields                                                                                     \
    } tl_##name##_t;
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    struct tl_body_##name {                                                                        \
        fields                                                                                     \
    };
#include "messages_expand.h"

#define MESSAGE(id, NAME, name, socket, from, fields) TL_##NAME = id,
typedef enum {
#include "messages_expand.h"
} tl_type_t;

#define MESSAGE(id, NAME, name, socket, from, fields) struct tl_body_##name name;
typedef union {
#include "messages_expand.h"
} tl_body_t;
