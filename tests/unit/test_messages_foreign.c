//  Messages: frames that another program might write, built with msgpack alone, are refused by the field's name.

#include <math.h>
#include <stdlib.h>

#include "unit/cmocka_all.h"
#include "unit/messages_fixture.h"
#include <msgpack.h>

typedef struct {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
} tl_raw_t;

//  An envelope of that type up to its body.
static msgpack_packer *
s_raw (tl_raw_t *self, uint64_t version, uint64_t type)
{
    msgpack_sbuffer_init (&self->buffer);
    msgpack_packer_init (&self->packer, &self->buffer, msgpack_sbuffer_write);
    msgpack_pack_array (&self->packer, 11);
    msgpack_pack_uint64 (&self->packer, version);
    msgpack_pack_uint64 (&self->packer, type);
    for (int i = 0; i < 6; i++)
        msgpack_pack_uint64 (&self->packer, 0);
    msgpack_pack_str (&self->packer, 1);
    msgpack_pack_str_body (&self->packer, "a", 1);
    msgpack_pack_int64 (&self->packer, 0);
    return &self->packer;
}

//  Refused with a sentence that has word in it; frees the buffer.
static void
s_refused (tl_raw_t *self, const char *word)
{
    tl_error_t err;
    if (frame_decodes ((const uint8_t *)self->buffer.data, self->buffer.size, &err))
        fail_msg ("expected a refusal naming '%s', but the frame decoded", word);
    if (!strstr (err.text, word))
        fail_msg ("expected a refusal naming '%s', got: %s", word, err.text);
    msgpack_sbuffer_destroy (&self->buffer);
}

static void
s_text_body (tl_raw_t *raw, const char *text, size_t size)
{
    msgpack_packer *packer = s_raw (raw, TL_PROTOCOL_VERSION, TL_STOP);
    msgpack_pack_array (packer, 1);
    msgpack_pack_str (packer, size);
    msgpack_pack_str_body (packer, text, size);
}

static void
test_bad_envelopes_are_named (void **state)
{
    tl_raw_t raw;
    tl_error_t err;
    msgpack_pack_array (s_raw (&raw, 1, TL_STATUS), 0);
    s_refused (&raw, "version 1");
    msgpack_pack_array (s_raw (&raw, TL_PROTOCOL_VERSION, 13), 0);
    s_refused (&raw, "'type'");
    msgpack_pack_array (s_raw (&raw, TL_PROTOCOL_VERSION, UINT64_MAX), 0);
    s_refused (&raw, "'type'");
    msgpack_pack_array (s_raw (&raw, TL_PROTOCOL_VERSION, TL_STATUS), 1);
    s_refused (&raw, "another number of fields");
    msgpack_pack_map (s_raw (&raw, TL_PROTOCOL_VERSION, TL_STATUS), 0);
    s_refused (&raw, "'body'");
    s_raw (&raw, TL_PROTOCOL_VERSION, TL_STATUS);
    msgpack_pack_array (&raw.packer, 0);
    msgpack_pack_nil (&raw.packer);
    s_refused (&raw, "bytes after its end");
    //  Ten thousand arrays in one another: no recursion, so no stack to run out of.
    uint8_t nested[10000];
    memset (nested, 0x91, sizeof nested);
    assert_false (frame_decodes (nested, sizeof nested, &err));
    assert_false (frame_decodes ((const uint8_t *)"GET / HTTP/1.1\r\n\r\n", 18, &err));
    assert_non_null (strstr (err.text, "no trunkline message"));
}

static void
test_bad_texts_are_refused (void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {{"a\0b", 3},
               {"\x80", 1},
               {"\xc0\xaf", 2},
               {"\xc3", 1},
               {"\xed\xa0\x80", 3},
               {"\xe0\x80\x80", 3},
               {"\xf4\x90\x80\x80", 4},
               {"\xff", 1},
               {"\xf0\x82\x82\xac", 4}};
    tl_raw_t raw;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        s_text_body (&raw, bad[i].bytes, bad[i].size);
        s_refused (&raw, "UTF-8");
    }
    char *longest = tl_alloc (1025);
    memset (longest, 'x', 1025);
    s_text_body (&raw, longest, 1025);
    s_refused (&raw, "more bytes than it may have");
    free (longest);
}

static void
test_claimed_counts_allocate_nothing (void **state)
{
    tl_raw_t raw;
    msgpack_packer *packer = s_raw (&raw, TL_PROTOCOL_VERSION, TL_COMMIT);
    msgpack_pack_array (packer, 2);
    msgpack_pack_uint64 (packer, 1);
    msgpack_pack_array (packer, UINT32_MAX);
    s_refused (&raw, "'squares'");
    packer = s_raw (&raw, TL_PROTOCOL_VERSION, TL_COMMIT);
    msgpack_pack_array (packer, 2);
    msgpack_pack_uint64 (packer, 1);
    msgpack_pack_array (packer, 65536); //  within the limit, but nothing follows
    s_refused (&raw, "'square'");
    packer = s_raw (&raw, TL_PROTOCOL_VERSION, TL_STOP);
    msgpack_pack_array (packer, 1);
    msgpack_pack_str (packer, UINT32_MAX);
    s_refused (&raw, "'text'");
}

static void
test_numbers_must_be_short_and_finite (void **state)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY, -1.0};
    tl_raw_t raw;
    for (size_t i = 0; i < 4; i++) {
        msgpack_packer *packer = s_raw (&raw, TL_PROTOCOL_VERSION, TL_FINISHED);
        msgpack_pack_array (packer, 2);
        msgpack_pack_double (packer, bad[i]);
        msgpack_pack_uint64 (packer, 1);
        s_refused (&raw, "'nll' has a double that is not finite");
    }
    //  PING with nonce 1 in two bytes, in four, as a double; SAVED with a boolean that is 1.
    static const uint8_t longer[] = {0x91, 0xcc, 0x01}, longest[] = {0x91, 0xce, 0, 0, 0xff, 0xff};
    s_raw (&raw, TL_PROTOCOL_VERSION, TL_PING);
    msgpack_sbuffer_write (&raw.buffer, (const char *)longer, sizeof longer);
    s_refused (&raw, "'nonce'");
    s_raw (&raw, TL_PROTOCOL_VERSION, TL_PING);
    msgpack_sbuffer_write (&raw.buffer, (const char *)longest, sizeof longest);
    s_refused (&raw, "'nonce'");
    msgpack_packer *packer = s_raw (&raw, TL_PROTOCOL_VERSION, TL_PING);
    msgpack_pack_array (packer, 1);
    msgpack_pack_double (packer, 1);
    s_refused (&raw, "'nonce'");
    packer = s_raw (&raw, TL_PROTOCOL_VERSION, TL_SAVE);
    msgpack_pack_array (packer, 1);
    msgpack_pack_uint64 (packer, 1);
    s_refused (&raw, "'last'");
}

static void
test_tensor_arithmetic_is_checked (void **state)
{
    enum { CHUNK = TL_CHUNK_LEAST };
    static const tl_tensor_wire_t bad[] = {
        {0, 2, 2, 4, 0, 0, 4},                                       //  dtype
        {5, 2, 2, 4, 0, 0, 4},                                       //
        {UINT64_MAX, 2, 2, 4, 0, 0, 4},                              //
        {((uint64_t)1 << 32) + 1, 2, 2, 16, 0, 0, 16},               //  fp32 once cut to 32 bits
        {TL_W_F32, 0, 2, 0, 0, 0, 1},                                //  rows
        {TL_W_F32, 2, 0, 0, 0, 0, 1},                                //  columns
        {TL_W_F32, 2, 2, 15, 0, 0, 15},                              //  bytes
        {TL_W_F32, (uint64_t)1 << 62, 1, 0, 0, 0, 1},                //  2^64 bytes wrap to 0
        {TL_W_U8, (uint64_t)1 << 33, (uint64_t)1 << 31, 0, 0, 0, 1}, //
        {TL_W_F32, ((uint64_t)1 << 62) + 1, 1, 4, 0, 0, 4},          //  and to 4
        {TL_W_U8, 3, 1, 3, 0, 0, 0},                                 //  an empty chunk
        {TL_W_U8, 3, 1, 3, 0, 0, 2},                                 //  a short one
        {TL_W_U8, 3, 1, 3, 0, 0, 4},                                 //  one past the end
        {TL_W_U8, 3, 1, 3, 0, 1, 2},                                 //  offset inside a chunk
        {TL_W_U8, CHUNK, 1, CHUNK, 0, CHUNK, 1},                     //  offset at the end
        {TL_W_U8, 3 * CHUNK, 1, 3 * CHUNK, 0, 0, 2 * CHUNK},         //  more than a chunk
        {TL_W_U8, 8 * CHUNK - 1, 1, 8 * CHUNK - 1, 0, 0,
         2 * CHUNK},                                     //  a large tensor's chunk of a small one
        {TL_W_U8, 8 * CHUNK, 1, 8 * CHUNK, 0, 0, CHUNK}, //  and the other way round
        {TL_W_U8, 8 * CHUNK, 1, 8 * CHUNK, 0, CHUNK, 2 * CHUNK}, //  offset inside a large chunk
        {TL_W_U8, 3, 2, 6, 0, 0, 6},                             //  raw bytes as rows
        {TL_W_U8, 3, 1, 3, 0, (uint64_t)-1 << 20, 3},            //  offset + size wraps
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        tl_raw_t raw;
        msgpack_packer *packer = s_raw (&raw, TL_PROTOCOL_VERSION, TL_FORWARDED);
        const uint64_t *numbers = (const uint64_t *)&bad[i];
        msgpack_pack_array (packer, 1);
        msgpack_pack_array (packer, 7);
        for (size_t j = 0; j < 7; j++)
            msgpack_pack_uint64 (packer, numbers[j]);
        s_refused (&raw, "FORWARDED was refused: field 'tensor' has");
    }
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_bad_envelopes_are_named),
        cmocka_unit_test (test_bad_texts_are_refused),
        cmocka_unit_test (test_claimed_counts_allocate_nothing),
        cmocka_unit_test (test_numbers_must_be_short_and_finite),
        cmocka_unit_test (test_tensor_arithmetic_is_checked),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
