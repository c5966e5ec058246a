/*  fuzz_messages: any bytes as a message. What decodes must re-encode to the same bytes, and a tensor's
    descriptor that decodes must be one that an assembly can take without reading past a chunk.      */

#include "assert.h"
#include "messages/messages.h"
#include "messages/tensor_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

enum { LIMIT = 4 << 20 };

//  The chunk's bytes are whatever stands in the frame, repeated; as many as the descriptor says.
static void
s_assemble (const tl_tensor_wire_t *tensor, const uint8_t *data, size_t size)
{
    tl_error_t err;
    tl_assembly_t *assembly = tl_assembly_new (tensor, 0, LIMIT, &err);
    if (!assembly)
        return;
    uint8_t *chunk = malloc (tensor->size);
    for (uint64_t i = 0; i < tensor->size; i++)
        chunk[i] = data[i % size];
    int rc = tl_assembly_add (assembly, tensor, chunk, tensor->size, &err);
    tl_assert (rc == -1 || rc == 0 || (tensor->offset == 0 && tensor->size == tensor->bytes));
    if (rc == 1) {
        size_t bytes;
        free (tl_assembly_take (assembly, &bytes));
    }
    free (chunk);
    tl_assembly_destroy (&assembly);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_message_t message;
    tl_error_t err;
    if (tl_message_decode (&message, data, size, &err) != 0)
        return 0;
    size_t again_size;
    void *again = tl_message_encode (&message, &again_size);
    tl_assert (again_size == size && memcmp (again, data, size) == 0);
    free (again);
    const tl_tensor_wire_t *tensor = tl_message_tensor (&message);
    if (tensor)
        s_assemble (tensor, data, size);
    tl_message_clear (&message);
    return 0;
}
