/*  tensor_wire: tensors to chunks and back. fp32 rows are narrowed to the wire dtype on the way out and
    widened on the way in; a chunk is a message, so that nobody has to hold a whole tensor to pass it on. */

#ifndef TL_TENSOR_WIRE_H
#define TL_TENSOR_WIRE_H

#include "messages.h"

size_t tl_w_dtype_size (tl_w_dtype_t dtype); //  0 if unknown
const char *tl_w_dtype_name (tl_w_dtype_t dtype);

//  --- out: a reference-counted packed tensor whose chunks are handed out without a copy.
typedef struct tl_packed tl_packed_t;
//  Narrows rows [rows, columns] (fp32) to dtype; TL_W_U8: raw bytes, rows = count, columns = 1.
tl_packed_t *tl_pack (const void *data, size_t rows, size_t columns, tl_w_dtype_t dtype);
//  Raw bytes without a copy: takes over data, which was malloc'd.
tl_packed_t *tl_pack_own (void *data, size_t size);
//  The same tensor once more, for another maker's reference.
tl_packed_t *tl_packed_share (tl_packed_t *self);
size_t tl_packed_chunks (const tl_packed_t *self);
//  Fills the descriptor of chunk index and gives its bytes; takes a reference that tl_packed_release (void *data,
//  void *packed) (a zmq_free_fn) gives back.
const void *tl_packed_chunk (tl_packed_t *self, size_t index, tl_tensor_wire_t *descriptor);
void tl_packed_release (void *data, void *packed);
void tl_packed_destroy (tl_packed_t **self_p); //  gives back the maker's reference

//  --- in: assembles one tensor from chunks that come in order.
typedef struct tl_assembly tl_assembly_t;
//  first is the first chunk's descriptor; refused (NULL, sentence) if bytes > limit or the shape isn't the expected
//  columns (0: any).
tl_assembly_t *tl_assembly_new (const tl_tensor_wire_t *first, size_t columns, size_t limit,
                                tl_error_t *err);
void tl_assembly_destroy (tl_assembly_t **self_p);
//  1 complete, 0 more to come, -1 refused (other tensor, gap, overlap, checksum).
int tl_assembly_add (tl_assembly_t *self, const tl_tensor_wire_t *descriptor, const void *data,
                     size_t size, tl_error_t *err);
size_t tl_assembly_rows (const tl_assembly_t *self);
size_t tl_assembly_columns (const tl_assembly_t *self);
//  Widened fp32 rows in a fresh buffer (the caller frees); TL_W_U8: the raw bytes. Only when complete. bytes may be
//  NULL.
void *tl_assembly_take (tl_assembly_t *self, size_t *bytes);

#endif
