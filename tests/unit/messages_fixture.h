//  What tests of messages share.
#ifndef TL_TESTS_MESSAGES_FIXTURE_H
#define TL_TESTS_MESSAGES_FIXTURE_H

#include "unit/cmocka_all.h"

#include "memory.h"
#include "messages/messages.h"

#include <stdlib.h>
#include <string.h>

//  Decodes a copy that ends where its allocation ends, so that ASan sees an over-read by one byte. A frame that
//  decodes must re-encode to itself: a message has one encoding. Returns whether it decoded.
static inline bool
frame_decodes (const uint8_t *frame, size_t size, tl_error_t *err)
{
    uint8_t *copy = malloc (size ? size : 1);
    memcpy (copy, frame, size);
    tl_message_t message;
    err->text[0] = 0;
    int rc = tl_message_decode (&message, size ? copy : copy + 1, size, err);
    if (rc == 0) {
        size_t again_size;
        void *again = tl_message_encode (&message, &again_size);
        assert_int_equal (again_size, size);
        assert_memory_equal (again, copy, size);
        free (again);
        tl_message_clear (&message);
    } else {
        assert_null (message.memory);
        assert_int_equal (err->code, TL_BAD_INPUT);
        assert_non_null (strstr (err->text, "; run the same trunkline on both sides"));
    }
    free (copy);
    return rc == 0;
}

#endif
