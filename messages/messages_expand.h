/*  messages_expand: expands messages.def by the macros that are defined where it is included. Those
    that aren't defined expand to nothing, and all are undefined afterwards. Has no include guard.   */

#ifndef RECORD
#define RECORD(name, fields)
#endif
#ifndef MESSAGE
#define MESSAGE(id, NAME, name, socket, from, fields)
#endif
#ifndef U64
#define U64(name)
#endif
#ifndef F64
#define F64(name)
#endif
#ifndef BOOLEAN
#define BOOLEAN(name)
#endif
#ifndef TEXT
#define TEXT(name, limit)
#endif
#ifndef BYTES
#define BYTES(name, limit)
#endif
#ifndef LIST
#define LIST(type, name, limit)
#endif
#ifndef TENSOR
#define TENSOR(name)
#endif

#include "messages.def"

#undef RECORD
#undef MESSAGE
#undef U64
#undef F64
#undef BOOLEAN
#undef TEXT
#undef BYTES
#undef LIST
#undef TENSOR
