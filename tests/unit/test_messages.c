/*  Messages: every type there and back, every prefix and bit flip of it refused or another message, and the facts
    of PROTOCOL.md's table held against messages.def. What other programs might send is test_messages_foreign.
    With a directory as argument: writes the fuzz target's seeds there instead.                     */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit/cmocka_all.h"
#include "unit/messages_fixture.h"

#include "file.h"
#include "memory.h"
#include "messages/messages.h"

//  --- every type, filled from the table at three sizes

enum { LEAST, SOME, MOST };

//  Texts for a test live until it ends; MOST is as long as the field allows.
static char *s_texts[4096];
static size_t s_text_count;

static const char *
s_text (int level, size_t limit)
{
    size_t size = level == LEAST ? 0 : level == SOME ? 3 : limit;
    for (size_t i = 0; i < s_text_count; i++)
        if (strlen (s_texts[i]) == size)
            return s_texts[i];
    char *text = tl_alloc (size + 1);
    memset (text, 'x', size);
    if (size >= 2)
        memcpy (text, "\xc3\xa4", 2); //  ä: a character of two bytes
    assert_true (s_text_count < sizeof s_texts / sizeof s_texts[0]);
    return s_texts[s_text_count++] = text;
}

static void
s_free_texts (void)
{
    while (s_text_count)
        free (s_texts[--s_text_count]);
}

static tl_tensor_wire_t
s_tensor (int level)
{
    uint64_t chunk = level == SOME ? TL_CHUNK_LEAST : TL_CHUNK_MOST;
    if (level == LEAST)
        return (tl_tensor_wire_t){TL_W_U8, 1, 1, 1, 0, 0, 1};
    if (level == SOME)
        return (tl_tensor_wire_t){TL_W_BF16,        37, 1024, 37 * 2048, 0x1234567890abcdef, chunk,
                                  37 * 2048 - chunk};
    //  As many fp32 as 64 bits can count the bytes of, all but the last chunk sent.
    uint64_t rows = UINT64_MAX / chunk;
    return (tl_tensor_wire_t){TL_W_F32,           rows, chunk / 4, rows * chunk, UINT64_MAX,
                              (rows - 1) * chunk, chunk};
}

#define U64(name) self->name = level == LEAST ? 0 : level == SOME ? 300 : UINT64_MAX;
#define F64(name) self->name = level == LEAST ? 0.0 : level == SOME ? 1.5 : 1.7976931348623157e308;
#define BOOLEAN(name) self->name = level != LEAST;
#define TEXT(name, limit) self->name = s_text (level, limit);
#define BYTES(name, limit)                                                                         \
    self->name = (const uint8_t *)s_text (level, limit);                                           \
    self->name##_size = strlen ((const char *)self->name);
#define LIST(type, name, limit)                                                                    \
    self->name##_count = level == LEAST ? 0 : level == SOME ? 2 : limit;                           \
    self->name = tl_alloc (self->name##_count * sizeof *self->name);                               \
    for (size_t i = 0; i < self->name##_count; i++)                                                \
        s_fill_##type (&self->name[i], level);                                                     \
    *list = self->name;
#define TENSOR(name) self->name = s_tensor (level);
#define RECORD(name, fields)                                                                       \
    static void s_fill_##name (tl_##name##_t *self, int level)                                     \
    {                                                                                              \
        fields                                                                                     \
    }
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    static void s_fill_##name (struct tl_body_##name *self, int level, void **list)                \
    {                                                                                              \
        fields                                                                                     \
    }
#include "messages/messages_expand.h"

//  Fills a whole message; *list is what the caller frees.
static void
s_fill (tl_message_t *self, tl_type_t type, int level, void **list)
{
    tl_message_init (self, type);
    *list = NULL;
    uint64_t number = level == LEAST ? 0 : level == SOME ? 70000 : UINT64_MAX;
    self->run = self->round = self->step = self->micro = self->sequence = self->ack = number;
    snprintf (self->sender, sizeof self->sender, "%s", s_text (level, TL_NAME_LIMIT - 1));
    self->sent = level == LEAST ? INT64_MIN : level == SOME ? -1 : INT64_MAX;
#define MESSAGE(id, NAME, name, socket, from, fields)                                              \
    case TL_##NAME:                                                                                \
        s_fill_##name (&self->body.name, level, list);                                             \
        break;
    switch (type) {
#include "messages/messages_expand.h"
    }
}

static const tl_type_t s_all[] = {
#define MESSAGE(id, NAME, name, socket, from, fields) TL_##NAME,
#include "messages/messages_expand.h"
};
enum { TYPES = sizeof s_all / sizeof s_all[0] };

static uint8_t *
s_encoded (tl_type_t type, int level, size_t *size)
{
    tl_message_t message;
    void *list;
    s_fill (&message, type, level, &list);
    uint8_t *frame = tl_message_encode (&message, size);
    free (list);
    return frame;
}

static void
test_every_type_comes_back (void **state)
{
    tl_error_t err;
    for (size_t i = 0; i < TYPES; i++)
        for (int level = LEAST; level <= MOST; level++) {
            size_t size;
            uint8_t *frame = s_encoded (s_all[i], level, &size);
            if (!frame_decodes (frame, size, &err))
                fail_msg ("%s at level %d: %s", tl_type_name (s_all[i]), level, err.text);
            free (frame);
        }
    s_free_texts ();
}

static void
test_fields_arrive_as_sent (void **state)
{
    tl_agreement_t agreements[] = {{"split", "front 1, tail 1"}, {"wire.dtype", ""}};
    tl_message_t hello, got;
    tl_message_init (&hello, TL_HELLO);
    snprintf (hello.sender, sizeof hello.sender, "north");
    hello.sent = 1700000000000000;
    hello.body.hello.role = "client";
    hello.body.hello.process = UINT64_MAX;
    hello.body.hello.agreements = agreements;
    hello.body.hello.agreements_count = 2;
    hello.body.hello.window_bytes = 64 << 20;
    hello.body.hello.window_messages = 128;
    size_t size;
    void *frame = tl_message_encode (&hello, &size);
    tl_error_t err;
    assert_int_equal (tl_message_decode (&got, frame, size, &err), 0);
    memset (frame, 0xff, size); //  the message owns what it points to
    assert_int_equal (got.type, TL_HELLO);
    assert_string_equal (got.sender, "north");
    assert_true (got.sent == 1700000000000000);
    assert_string_equal (got.body.hello.role, "client");
    assert_true (got.body.hello.process == UINT64_MAX);
    assert_int_equal (got.body.hello.agreements_count, 2);
    assert_string_equal (got.body.hello.agreements[0].field, "split");
    assert_string_equal (got.body.hello.agreements[0].value, "front 1, tail 1");
    assert_string_equal (got.body.hello.agreements[1].value, "");
    assert_int_equal (got.body.hello.window_bytes, 64 << 20);
    assert_int_equal (got.body.hello.window_messages, 128);
    tl_message_clear (&got);
    tl_message_clear (&got); //  twice does no harm
    free (frame);
}

//  The bytes of one message, written down once: whoever changes them changes the protocol's version.
static void
test_known_bytes (void **state)
{
    static const uint8_t golden[] = {
        0x9b,                                    //  envelope: 11 fields
        0x03, 0x14,                              //  version 3, PLAN is 20
        0xcd, 0x01, 0x00,                        //  run 256
        0x02, 0xcc, 0x80, 0x00, 0x07, 0x06,      //  round, step 128, micro, sequence, ack
        0xa6, 'b',  'r',  'o',  'k',  'e',  'r', //  sender
        0xcf, 0x00, 0x06, 0x0a, 0x24, 0x18, 0x1e, 0x40, 0x00, //  sent
        0x94,                                                 //  body: members and numbers
        0x92, 0x92, 0xa5, 'n',  'o',  'r',  't',  'h',  0x00, //  two members, (north, 0)
        0x92, 0xa5, 's',  'o',  'u',  't',  'h',  0xce, 0x00, 0x01, 0, 0, //  (south, 65536)
        0x03, 0xcd, 0x01, 0x2c, 0x40}; //  3 micros, 300 rows, longest 64
    tl_member_t members[] = {{"north", 0}, {"south", 65536}};
    tl_message_t plan;
    tl_message_init (&plan, TL_PLAN);
    plan.run = 256, plan.round = 2, plan.step = 128, plan.sequence = 7, plan.ack = 6;
    snprintf (plan.sender, sizeof plan.sender, "broker");
    plan.sent = 1700000000000000;
    plan.body.plan.members = members;
    plan.body.plan.members_count = 2;
    plan.body.plan.micros = 3;
    plan.body.plan.rows = 300;
    plan.body.plan.longest = 64;
    size_t size;
    uint8_t *frame = tl_message_encode (&plan, &size);
    assert_int_equal (size, sizeof golden);
    assert_memory_equal (frame, golden, size);
    free (frame);
}

static void
test_every_prefix_is_refused (void **state)
{
    tl_error_t err;
    for (size_t i = 0; i < TYPES; i++)
        for (int level = LEAST; level <= MOST; level++) {
            size_t size;
            uint8_t *frame = s_encoded (s_all[i], level, &size);
            //  All of them where that is quick, else every so many and the last ones.
            size_t stride = size < 4096 ? 1 : size / 150;
            for (size_t cut = 0; cut<size; cut += size - cut> stride ? stride : 1)
                if (frame_decodes (frame, cut, &err))
                    fail_msg ("%s: %zu of %zu bytes decoded", tl_type_name (s_all[i]), cut, size);
            free (frame);
        }
    s_free_texts ();
}

static void
test_every_bit_flip_is_refused_or_another_message (void **state)
{
    tl_error_t err;
    size_t flips = 0, decoded = 0;
    for (size_t i = 0; i < TYPES; i++)
        for (int level = LEAST; level <= SOME; level++) {
            size_t size;
            uint8_t *frame = s_encoded (s_all[i], level, &size);
            for (size_t bit = 0; bit < size * 8; bit++, flips++) {
                frame[bit / 8] ^= 1 << bit % 8;
                decoded += frame_decodes (frame, size, &err);
                frame[bit / 8] ^= 1 << bit % 8;
            }
            free (frame);
        }
    print_message ("%zu flips, %zu of them another valid message\n", flips, decoded);
    assert_true (decoded > 0 && decoded < flips);
    s_free_texts ();
}

//  A sentence that was cut inside a character, or quotes a file name in Latin-1, still goes out.
static void
test_ill_formed_text_is_mended_on_the_way_out (void **state)
{
    tl_message_t message, got;
    tl_error_t err;
    tl_message_init (&message, TL_INVALID);
    message.body.invalid.text = "caf\xe9 \xe2\x82";
    size_t size;
    void *frame = tl_message_encode (&message, &size);
    assert_int_equal (tl_message_decode (&got, frame, size, &err), 0);
    assert_string_equal (got.body.invalid.text, "caf? ??");
    tl_message_clear (&got);
    free (frame);
}

//  The table of PROTOCOL.md, word for word: read there.
static void
test_who_may_send_what (void **state)
{
    static const struct {
        const char *name, *authors;
        tl_type_t type;
        int id;
        bool sequenced, tensor;
        const char *socket;
    } table[] = {
        {"HELLO", "client worker aggregator admin", TL_HELLO, 1, false, false, "control"},
        {"WELCOME", "broker", TL_WELCOME, 2, false, false, "control"},
        {"REFUSED", "broker", TL_REFUSED, 3, false, false, "control"},
        {"ATTACH", "client worker aggregator admin", TL_ATTACH, 4, false, false, "both"},
        {"ATTACHED", "broker", TL_ATTACHED, 5, false, false, "both"},
        {"INVALID", "broker", TL_INVALID, 6, false, false, "both"},
        {"PING", "client worker aggregator broker admin", TL_PING, 7, false, false, "control"},
        {"PONG", "client worker aggregator broker admin", TL_PONG, 8, false, false, "control"},
        {"BYE", "client worker aggregator broker admin", TL_BYE, 9, false, false, "control"},
        {"STATUS", "admin", TL_STATUS, 10, false, false, "control"},
        {"REPORT", "broker", TL_REPORT, 11, false, false, "control"},
        {"STOP", "admin", TL_STOP, 12, false, false, "control"},
        {"PLAN", "broker", TL_PLAN, 20, true, false, "data"},
        {"ACTIVATION", "client", TL_ACTIVATION, 21, true, true, "data"},
        {"HIDDEN", "worker", TL_HIDDEN, 22, true, true, "data"},
        {"GRADIENT", "client", TL_GRADIENT, 23, true, true, "data"},
        {"GRAD_IN", "worker", TL_GRAD_IN, 24, true, true, "data"},
        {"COMMIT", "client", TL_COMMIT, 25, true, false, "data"},
        {"COMMITTED", "worker", TL_COMMITTED, 26, true, false, "data"},
        {"LEAVE", "worker broker", TL_LEAVE, 27, true, false, "data"},
        {"ABANDON", "broker", TL_ABANDON, 28, true, false, "data"},
        {"LATE", "broker", TL_LATE, 29, true, false, "data"},
        {"SAVE", "broker", TL_SAVE, 30, true, false, "data"},
        {"SAVED", "client worker aggregator", TL_SAVED, 31, true, false, "data"},
        {"RESTORE", "broker", TL_RESTORE, 32, true, false, "data"},
        {"RESTORED", "client worker aggregator", TL_RESTORED, 33, true, false, "data"},
        {"STATE", "worker broker", TL_STATE, 34, true, true, "data"},
        {"FORWARD", "client", TL_FORWARD, 35, true, true, "data"},
        {"FORWARDED", "worker", TL_FORWARDED, 36, true, true, "data"},
        {"FINISH", "broker", TL_FINISH, 37, true, false, "data"},
        {"FINISHED", "client", TL_FINISHED, 38, true, false, "data"},
        {"CREDIT", "client worker aggregator broker", TL_CREDIT, 39, false, false, "data"},
        {"MERGE", "broker", TL_MERGE, 40, true, false, "data"},
        {"GATHER", "broker", TL_GATHER, 41, true, false, "data"},
        {"PART", "client worker", TL_PART, 42, true, true, "data"},
        {"MERGED", "aggregator", TL_MERGED, 43, true, true, "data"},
        {"OUTCOME", "aggregator", TL_OUTCOME, 44, true, false, "data"},
    };
    static const char *roles[] = {"client", "worker", "aggregator", "broker", "admin"};
    assert_int_equal (sizeof table / sizeof table[0], TYPES);
    tl_error_t err;
    char *page = tl_file_read ("messages/PROTOCOL.md", 1 << 20, NULL, &err);
    assert_non_null (page);
    for (size_t i = 0; i < TYPES; i++) {
        tl_type_t type = table[i].type;
        assert_int_equal (type, table[i].id);
        assert_string_equal (tl_type_name (type), table[i].name);
        assert_int_equal (tl_type_sequenced (type), table[i].sequenced);
        assert_int_equal (tl_type_tensor (type), table[i].tensor);
        for (size_t j = 0; j < sizeof roles / sizeof *roles; j++)
            if (tl_type_from (type, roles[j]) != !!strstr (table[i].authors, roles[j]))
                fail_msg ("%s from %s: expected authors %s", table[i].name, roles[j],
                          table[i].authors);
        assert_false (tl_type_from (type, "nobody"));
        char *row = tl_format ("\n| %d | %s | %s | %s | %s|", table[i].id, table[i].name,
                               table[i].authors, table[i].socket, table[i].tensor ? "yes " : "");
        if (!strstr (page, row))
            fail_msg ("PROTOCOL.md has no row '%s'", row + 1);
        free (row);
        tl_message_t message;
        tl_message_init (&message, type);
        assert_int_equal (tl_message_tensor (&message) != NULL, table[i].tensor);
    }
    assert_string_equal (tl_type_name ((tl_type_t)13), "?");
    assert_string_equal (tl_type_name ((tl_type_t)4000), "?");
    assert_false (tl_type_from ((tl_type_t)13, "broker"));
    free (page);
}

static void
test_payload_must_be_the_announced_one (void **state)
{
    tl_message_t message;
    tl_error_t err;
    tl_message_init (&message, TL_HIDDEN);
    message.body.hidden.tensor = s_tensor (SOME);
    size_t size = message.body.hidden.tensor.size;
    assert_int_equal (tl_message_check_payload (&message, true, size, &err), 0);
    assert_int_equal (tl_message_check_payload (&message, true, size + 1, &err), -1);
    assert_non_null (strstr (err.text, "announces a chunk of 10240 bytes and brings 10241"));
    assert_int_equal (tl_message_check_payload (&message, true, 0, &err), -1);
    assert_int_equal (tl_message_check_payload (&message, false, 0, &err), -1);
    assert_non_null (strstr (err.text, "HIDDEN came without a payload"));
    tl_message_init (&message, TL_COMMIT);
    assert_int_equal (tl_message_check_payload (&message, false, 0, &err), 0);
    assert_int_equal (tl_message_check_payload (&message, true, 0, &err), -1);
}

//  PROTOCOL.md states how large a frame of each message can be; printed so that it can be kept true.
static void
test_largest_frames (void **state)
{
    size_t largest = 0;
    for (size_t i = 0; i < TYPES; i++) {
        size_t size;
        free (s_encoded (s_all[i], MOST, &size));
        print_message ("%-10s %7zu\n", tl_type_name (s_all[i]), size);
        largest = size > largest ? size : largest;
    }
    assert_in_range (largest, 1, 1245330);
    s_free_texts ();
}

//  One frame a type as a file: the seeds of tests/fuzz/corpus/messages.
static int
s_write_seeds (const char *where)
{
    tl_error_t err;
    int rc = 0;
    for (size_t i = 0; i < TYPES && rc == 0; i++) {
        size_t size;
        uint8_t *frame = s_encoded (s_all[i], SOME, &size);
        char *path = tl_format ("%s/%s", where, tl_type_name (s_all[i]));
        rc = tl_file_write (path, frame, size, 0644, &err);
        free (path);
        free (frame);
    }
    s_free_texts ();
    if (rc)
        print_error ("%s\n", err.text);
    return rc ? 1 : 0;
}

int
main (int argc, char **argv)
{
    if (argc == 2)
        return s_write_seeds (argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_every_type_comes_back),
        cmocka_unit_test (test_fields_arrive_as_sent),
        cmocka_unit_test (test_known_bytes),
        cmocka_unit_test (test_every_prefix_is_refused),
        cmocka_unit_test (test_every_bit_flip_is_refused_or_another_message),
        cmocka_unit_test (test_ill_formed_text_is_mended_on_the_way_out),
        cmocka_unit_test (test_who_may_send_what),
        cmocka_unit_test (test_payload_must_be_the_announced_one),
        cmocka_unit_test (test_largest_frames),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
