/*  Any bytes as a .safetensors file: refused with a sentence, or every tensor can be read to its last byte
    and written again.                                                                             */

#include "model/safetensors.h"

#include "assert.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

static volatile unsigned s_sink;

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
    tl_error_t err = {TL_OK, ""};
    tl_safetensors_t *file = tl_safetensors_parse ("input", data, size, &err);
    if (!file) {
        tl_assert (err.code == TL_BAD_INPUT && strlen (err.text) > 20);
        return 0;
    }
    unsigned sum = 0;
    size_t count = tl_safetensors_count (file);
    tl_st_tensor_t *copies = calloc (count + 1, sizeof *copies);
    for (size_t i = 0; i < count; i++) {
        const tl_st_tensor_t *tensor = tl_safetensors_at (file, i);
        tl_assert ((uintptr_t)tensor->data % tl_st_dtype_size (tensor->dtype) == 0);
        tl_assert (tl_safetensors_find (file, tensor->name) == tensor);
        for (size_t byte = 0; byte < tensor->bytes; byte++)
            sum += ((const unsigned char *)tensor->data)[byte];
        copies[i] = *tensor;
    }
    size_t again = 0;
    void *written = tl_safetensors_serialise (copies, count, NULL, &again);
    tl_safetensors_t *reread = tl_safetensors_parse ("written", written, again, &err);
    tl_assert (reread && tl_safetensors_count (reread) == count);
    tl_safetensors_destroy (&reread);
    tl_safetensors_destroy (&file);
    free (written);
    free (copies);
    s_sink = sum;
    return 0;
}
