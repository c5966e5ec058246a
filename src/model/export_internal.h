/*  export_internal: what export.c, which opens and joins adapters, hands to the files that write a form each. */

#ifndef TL_EXPORT_INTERNAL_H
#define TL_EXPORT_INTERNAL_H

#include "adapter.h"
#include "export.h"

//  What was trained of a slot; in Hugging Face's order.
typedef struct {
    const tl_st_tensor_t *a, *b; //  LoRA's pair [rank, columns], [rows, rank], or both NULL
    const tl_st_tensor_t *full;  //  in place of the base's weight, or NULL
    const char *file;            //  where it comes from
} tl_export_slot_t;

struct tl_export {
    tl_model_t *model;
    char **paths; //  [count] of the files
    tl_safetensors_t **files;
    size_t count;
    tl_adapter_info_t info;  //  of all; its layers are unused
    tl_export_slot_t *slots; //  [tl_layout_count]
    float *prefix;           //  P-tuning: [info.prefix, blocks * 2 * kv], else NULL
    const char **owners;     //  P-tuning: [blocks] the file each block's columns came from
    size_t tensors;          //  found in the files
};

//  export_prefix.c: a file's columns into their places; the whole as PEFT's prefix tuning.
int tl_export_take_prefix (tl_export_t *self, const tl_safetensors_t *source,
                           const tl_adapter_info_t *info, const char *path, tl_error_t *err);
int tl_export_write_prefix (const tl_export_t *self, const char *where, tl_error_t *err);

#endif
