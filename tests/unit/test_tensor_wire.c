/*  Tensor chunks: packed, handed out by reference, assembled from odd addresses, and every way in
    which a chunk can be wrong.                                                                    */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit/cmocka_all.h"
#include <zmq.h>

#include "kernels/kernels.h"
#include "memory.h"
#include "messages/tensor_wire.h"

enum { CHUNK = TL_CHUNK_LEAST, LIMIT = 64 << 20 };

static float *
s_rows (size_t count)
{
    float *rows = tl_alloc (count * sizeof *rows);
    for (size_t i = 0; i < count; i++)
        rows[i] = (float)((double)(i * 2654435761u % 100003) / 50000.0 - 1.0);
    return rows;
}

//  What the receiver must see: the rows through the dtype and back.
static float *
s_through (const float *rows, size_t count, tl_w_dtype_t dtype)
{
    float *seen = tl_alloc (count * sizeof *seen);
    memcpy (seen, rows, count * sizeof *seen);
    if (dtype != TL_W_F32) {
        tl_dtype_t storage = dtype == TL_W_BF16 ? TL_BF16 : TL_F16;
        void *narrow = tl_alloc (count * 2);
        tl_narrow (narrow, rows, storage, count);
        tl_widen (seen, narrow, storage, count);
        free (narrow);
    }
    return seen;
}

//  Sends every chunk through an odd address, the way frames arrive; gives the assembled tensor.
static void *
s_carry (tl_packed_t *packed, size_t columns, size_t *bytes)
{
    tl_error_t err;
    tl_assembly_t *assembly = NULL;
    size_t chunks = tl_packed_chunks (packed);
    uint8_t *frame = malloc (TL_CHUNK_MOST + 1);
    for (size_t i = 0; i < chunks; i++) {
        tl_tensor_wire_t descriptor;
        const void *chunk = tl_packed_chunk (packed, i, &descriptor);
        memcpy (frame + 1, chunk, descriptor.size);
        if (!assembly)
            assembly = tl_assembly_new (&descriptor, columns, LIMIT, &err);
        assert_non_null (assembly);
        int rc = tl_assembly_add (assembly, &descriptor, frame + 1, descriptor.size, &err);
        assert_int_equal (rc, i + 1 == chunks);
        tl_packed_release ((void *)chunk, packed);
    }
    free (frame);
    assert_int_equal (tl_assembly_columns (assembly), columns);
    void *taken = tl_assembly_take (assembly, bytes);
    assert_int_equal ((uintptr_t)taken % 64, 0);
    tl_assembly_destroy (&assembly);
    tl_assembly_destroy (&assembly);
    return taken;
}

static void
test_rows_come_back_through_every_dtype (void **state)
{
    static const size_t shapes[][2] = {
        {1, 1}, {3, 7}, {1, CHUNK / 4}, {256, 576}, {1, CHUNK / 2 + 1}, {701, 1031}, {4099, 129}};
    static const tl_w_dtype_t dtypes[] = {TL_W_F32, TL_W_BF16, TL_W_F16};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t d = 0; d < 3; d++) {
            size_t rows = shapes[s][0], columns = shapes[s][1], count = rows * columns, bytes;
            float *sent = s_rows (count), *expected = s_through (sent, count, dtypes[d]);
            tl_packed_t *packed = tl_pack (sent, rows, columns, dtypes[d]);
            memset (sent, 0, count * sizeof *sent); //  packed: the rows are free to change
            size_t width = tl_w_dtype_size (dtypes[d]);
            size_t chunk = count * width < (512 << 10) ? 64 << 10 : 128 << 10;
            assert_int_equal (tl_packed_chunks (packed), (count * width + chunk - 1) / chunk);
            float *got = s_carry (packed, columns, &bytes);
            assert_int_equal (bytes, count * sizeof *got);
            assert_memory_equal (got, expected, bytes);
            tl_packed_destroy (&packed);
            free (sent);
            free (expected);
            free (got);
        }
}

static void
test_raw_bytes_come_back (void **state)
{
    static const size_t sizes[] = {1,
                                   5,
                                   CHUNK - 1,
                                   CHUNK,
                                   CHUNK + 1,
                                   3 * CHUNK + 17,
                                   8 * CHUNK - 1,
                                   8 * CHUNK,
                                   21 * CHUNK + 5};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint8_t *sent = malloc (sizes[s]);
        for (size_t i = 0; i < sizes[s]; i++)
            sent[i] = (uint8_t)(i * 31 + i / 256);
        size_t bytes;
        tl_packed_t *packed = tl_pack (sent, sizes[s], 1, TL_W_U8);
        uint8_t *got = s_carry (packed, 1, &bytes);
        assert_int_equal (bytes, sizes[s]);
        assert_memory_equal (got, sent, bytes);
        tl_packed_destroy (&packed);
        free (sent);
        free (got);
    }
}

//  The descriptor that a chunk gets is one that the codec lets through.
static void
test_descriptors_pass_the_codec (void **state)
{
    float *rows = s_rows (300 * 1000);
    tl_packed_t *packed = tl_pack (rows, 300, 1000, TL_W_F32);
    for (size_t i = 0; i < tl_packed_chunks (packed); i++) {
        tl_message_t message, got;
        tl_error_t err;
        size_t size;
        tl_message_init (&message, TL_GRADIENT);
        const void *chunk = tl_packed_chunk (packed, i, &message.body.gradient.tensor);
        void *frame = tl_message_encode (&message, &size);
        assert_int_equal (tl_message_decode (&got, frame, size, &err), 0);
        assert_memory_equal (&got.body.gradient.tensor, &message.body.gradient.tensor,
                             sizeof (tl_tensor_wire_t));
        assert_true (size < 100); //  what a chunk costs on top of its bytes
        tl_message_clear (&got);
        free (frame);
        tl_packed_release ((void *)chunk, packed);
    }
    tl_packed_destroy (&packed);
    free (rows);
}

//  A chunk in flight keeps the bytes alive; libzmq gives the reference back when it has sent them.
static void
test_chunks_outlive_their_maker (void **state)
{
    float *rows = s_rows (CHUNK);
    tl_packed_t *packed = tl_pack (rows, 1024, CHUNK / 1024, TL_W_F32);
    enum { CHUNKS = 4 };
    zmq_msg_t frames[CHUNKS];
    tl_tensor_wire_t descriptor;
    for (size_t i = 0; i < CHUNKS; i++) {
        const void *chunk = tl_packed_chunk (packed, i, &descriptor);
        assert_int_equal (zmq_msg_init_data (&frames[i], (void *)chunk, descriptor.size,
                                             tl_packed_release, packed),
                          0);
    }
    tl_packed_destroy (&packed);
    assert_null (packed);
    tl_packed_destroy (&packed);
    for (size_t i = 0; i < CHUNKS; i++) {
        assert_memory_equal (zmq_msg_data (&frames[i]), (uint8_t *)rows + i * CHUNK, CHUNK);
        zmq_msg_close (&frames[i]);
    }
    free (rows);
}

//  --- refusals

typedef struct {
    tl_packed_t *packed;       //  [3, CHUNK / 4] fp32: three whole chunks
    const uint8_t *chunks[3];  //  by reference
    tl_tensor_wire_t parts[3]; //  their descriptors
    tl_assembly_t *assembly;   //  fresh
    tl_error_t err;            //  the last refusal
} tl_bench_t;

static int
s_setup (void **state)
{
    tl_bench_t *self = tl_alloc (sizeof *self);
    float *rows = s_rows (3 * CHUNK / 4);
    self->packed = tl_pack (rows, 3, CHUNK / 4, TL_W_F32);
    for (size_t i = 0; i < 3; i++)
        self->chunks[i] = tl_packed_chunk (self->packed, i, &self->parts[i]);
    self->assembly = tl_assembly_new (&self->parts[0], CHUNK / 4, LIMIT, &self->err);
    free (rows);
    *state = self;
    return self->assembly ? 0 : -1;
}

static int
s_teardown (void **state)
{
    tl_bench_t *self = *state;
    for (size_t i = 0; i < 3; i++)
        tl_packed_release (NULL, self->packed);
    tl_packed_destroy (&self->packed);
    tl_assembly_destroy (&self->assembly);
    free (self);
    return 0;
}

static int
s_add (tl_bench_t *self, size_t index)
{
    return tl_assembly_add (self->assembly, &self->parts[index], self->chunks[index],
                            self->parts[index].size, &self->err);
}

static void
s_says (tl_bench_t *self, const char *word)
{
    if (!strstr (self->err.text, word))
        fail_msg ("expected a sentence with '%s', got: %s", word, self->err.text);
}

static void
test_order_is_kept (void **state)
{
    tl_bench_t *self = *state;
    assert_int_equal (s_add (self, 1), -1); //  the first is missing
    s_says (self, "where 65536 bytes at 0 were due");
    assert_int_equal (s_add (self, 0), 0);
    assert_int_equal (s_add (self, 0), -1); //  once more
    s_says (self, "at 65536 were due");
    assert_int_equal (s_add (self, 2), -1); //  a gap
    assert_int_equal (s_add (self, 1), 0);
    assert_int_equal (s_add (self, 2), 1);
    assert_int_equal (s_add (self, 2), -1); //  after the end
}

static void
test_frame_must_have_the_stated_size (void **state)
{
    tl_bench_t *self = *state;
    assert_int_equal (
        tl_assembly_add (self->assembly, &self->parts[0], self->chunks[0], CHUNK - 1, &self->err),
        -1);
    s_says (self, "a chunk of 65535 bytes (65536 stated)");
    tl_tensor_wire_t short_part = self->parts[0];
    short_part.size = CHUNK - 1;
    assert_int_equal (
        tl_assembly_add (self->assembly, &short_part, self->chunks[0], CHUNK - 1, &self->err), -1);
    assert_int_equal (tl_assembly_add (self->assembly, &self->parts[0], self->chunks[0], 0, NULL),
                      -1);
}

static void
test_another_tensors_chunk_is_refused (void **state)
{
    tl_bench_t *self = *state;
    assert_int_equal (s_add (self, 0), 0);
    for (size_t field = 0; field < 5; field++) {
        tl_tensor_wire_t saved = self->parts[1];
        ((uint64_t *)&self->parts[1])[field]++; //  dtype, rows, columns, bytes, checksum
        assert_int_equal (s_add (self, 1), -1);
        s_says (self, "another tensor");
        self->parts[1] = saved;
    }
    assert_int_equal (s_add (self, 1), 0);
}

static void
test_checksum_is_held (void **state)
{
    tl_bench_t *self = *state;
    assert_int_equal (s_add (self, 0), 0);
    assert_int_equal (s_add (self, 1), 0);
    ((uint8_t *)self->chunks[2])[77] ^= 1;
    assert_int_equal (s_add (self, 2), -1);
    s_says (self, "checksum");
}

static void
test_shape_and_limit_before_memory (void **state)
{
    tl_bench_t *self = *state;
    tl_tensor_wire_t huge = {TL_W_U8, (uint64_t)1 << 40, 1, (uint64_t)1 << 40, 0, 0, TL_CHUNK_MOST};
    assert_null (tl_assembly_new (&huge, 1, LIMIT, &self->err));
    s_says (self, "max_message_mb");
    assert_null (tl_assembly_new (&self->parts[0], 576, LIMIT, &self->err));
    s_says (self, "columns where 576 were expected");
    tl_tensor_wire_t wrong = self->parts[0];
    wrong.rows = UINT64_MAX;
    assert_null (tl_assembly_new (&wrong, 0, SIZE_MAX, &self->err));
    wrong = self->parts[0];
    wrong.dtype = 9;
    assert_null (tl_assembly_new (&wrong, 0, SIZE_MAX, &self->err));
    tl_assembly_t *any = tl_assembly_new (&self->parts[0], 0, 3 * CHUNK, &self->err);
    assert_non_null (any);
    assert_int_equal (tl_assembly_rows (any), 3);
    tl_assembly_destroy (&any);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_rows_come_back_through_every_dtype),
        cmocka_unit_test (test_raw_bytes_come_back),
        cmocka_unit_test (test_descriptors_pass_the_codec),
        cmocka_unit_test (test_chunks_outlive_their_maker),
        cmocka_unit_test_setup_teardown (test_order_is_kept, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_frame_must_have_the_stated_size, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_another_tensors_chunk_is_refused, s_setup,
                                         s_teardown),
        cmocka_unit_test_setup_teardown (test_checksum_is_held, s_setup, s_teardown),
        cmocka_unit_test_setup_teardown (test_shape_and_limit_before_memory, s_setup, s_teardown),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
