//  Links on one connection: order, windows, credit, and what a far end may do wrong.

#include "unit/link_fixture.h"

//  --- one connection

static void
test_messages_arrive_in_order_with_their_payloads (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, 4 * CHUNK, 100);
    for (int i = 0; i < 10; i++) {
        s_say (a, i % 2 ? 1000 : 0);
        s_say (b, CHUNK / 16);
    }
    s_settle (a, b);
    s_destroy (a);
    s_destroy (b);
}

static void
test_nothing_leaves_before_attach_and_window (void **state)
{
    end_t *a = s_end (CHUNK, 10);
    a->connected = true;
    s_say (a, 0);
    assert_int_equal (a->frames, 0);
    assert_int_equal (tl_link_attach (a->link, 0), 0);
    assert_int_equal (a->frames, 0);
    assert_int_equal (tl_link_window (a->link, CHUNK - 1, 10), -1); //  no room for a chunk
    assert_int_equal (tl_link_window (a->link, CHUNK, 0), -1);
    assert_int_equal (a->frames, 0);
    assert_int_equal (tl_link_window (a->link, CHUNK, 10), 0);
    assert_int_equal (a->frames, 1);
    s_destroy (a);
}

static void
test_sending_is_bounded_by_bytes (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, 2 * CHUNK + 100, 100);
    for (int i = 0; i < 5; i++)
        s_say (a, CHUNK);
    assert_int_equal (a->frames, 2);
    s_say (a, 1); //  would fit, but order is kept
    assert_int_equal (a->frames, 2);
    assert_int_equal (tl_link_window (a->link, 2 * CHUNK - 1, 100),
                      -1); //  two chunks are in flight
    s_deliver_all (a);
    s_let_go (b, 0);
    tl_link_tick (b->link, false);
    s_deliver_all (b);
    assert_int_equal (a->frames, 3);
    assert_int_equal (tl_link_pending (a->link), 5);
    assert_int_equal (tl_link_bytes_held (a->link), 4 * CHUNK + 1);
    s_settle (a, b);
    s_destroy (a);
    s_destroy (b);
}

static void
test_sending_is_bounded_by_messages (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, CHUNK, 3);
    for (int i = 0; i < 10; i++)
        s_say (a, 0);
    assert_int_equal (a->frames, 3);
    s_deliver_all (a);
    s_let_all_go (b);
    tl_link_tick (b->link, false);
    s_deliver_all (b);
    assert_int_equal (a->frames, 6);
    s_settle (a, b);
    s_destroy (a);
    s_destroy (b);
}

static void
test_releases_in_any_order_become_one_cumulative_ack (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, CHUNK, 100);
    for (int i = 0; i < 4; i++)
        s_say (a, 0);
    s_deliver_all (a);
    s_let_sequence_go (b, 3);
    s_let_sequence_go (b, 2);
    tl_link_tick (b->link, true);
    assert_null (b->first); //  1 is still held, so there is nothing to tell
    s_let_sequence_go (b, 1);
    tl_link_tick (b->link, true);
    s_deliver_all (b);
    assert_int_equal (a->tokens, 3);
    s_let_sequence_go (b, 4);
    tl_link_tick (b->link, true);
    s_deliver_all (b);
    assert_int_equal (a->tokens, 4);
    tl_link_release (b->link, 0); //  what a CREDIT has as its sequence
    s_destroy (a);
    s_destroy (b);
}

static void
test_acks_ride_on_messages (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, CHUNK, 4);
    for (int i = 0; i < 4; i++)
        s_say (a, 0);
    s_deliver_all (a);
    s_let_all_go (b);
    s_say (b, 0);
    tl_link_tick (b->link, true); //  nothing is left to tell
    assert_int_equal (b->frames, 1);
    s_deliver_all (b);
    assert_int_equal (a->tokens, 4);
    s_destroy (a);
    s_destroy (b);
}

static void
test_credit_of_its_own_at_half_a_window_or_when_the_sender_is_stuck (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, 8 * CHUNK, 100);
    for (int i = 0; i < 8; i++)
        s_say (a, i < 5 ? CHUNK : 10);
    s_deliver_all (a);
    for (uint64_t sequence = 1; sequence <= 3; sequence++)
        s_let_sequence_go (b, sequence);
    tl_link_tick (b->link, false);
    assert_int_equal (b->frames, 0);
    s_let_sequence_go (b, 4);
    tl_link_tick (b->link, false);
    assert_int_equal (b->frames, 1);
    s_deliver_all (b);
    //  a chunk and 30 bytes are held here; 6 more leave the sender without room for a chunk
    for (int i = 0; i < 7; i++)
        s_say (a, CHUNK);
    s_deliver_all (a);
    s_let_sequence_go (b, 5);
    tl_link_tick (b->link, false);
    assert_int_equal (b->frames, 2);
    s_deliver_all (b);
    assert_int_equal (a->tokens, 5);
    s_destroy (a);
    s_destroy (b);
}

//  What goes one way only and is larger than the window never waits for a timer.
static void
test_a_stream_goes_on_at_half_a_window (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, 4 * CHUNK, 100);
    for (int i = 0; i < 40; i++)
        s_say (a, CHUNK);
    for (uint64_t sequence = 1; sequence <= 40; sequence++) {
        s_deliver_all (a);
        s_let_sequence_go (b, sequence);
        tl_link_halfway (b->link);
        s_deliver_all (b);
    }
    assert_int_equal (a->frames, 40);
    assert_int_equal (b->frames, 20);
    assert_int_equal (a->tokens, 40);
    s_destroy (a);
    s_destroy (b);
}

static void
test_payloads_are_shared_not_copied (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, 4 * CHUNK, 10);
    tl_message_t message;
    zmq_msg_t payload;
    tl_message_init (&message, TL_STATE);
    message.body.state.tensor = s_piece (CHUNK);
    zmq_msg_init_size (&payload, CHUNK);
    const void *data = zmq_msg_data (&payload);
    tl_link_send (a->link, &message, &payload, 0);
    assert_ptr_equal (a->last_payload, data);
    s_break (a, b);
    a->last_payload = NULL;
    s_attach (a, b);
    assert_ptr_equal (a->last_payload, data);
    s_destroy (a);
    s_destroy (b);
}

//  --- what a far end may do wrong

static tl_link_verdict_t
s_forge (tl_link_t *link, tl_type_t type, uint64_t sequence, uint64_t ack, size_t bytes)
{
    tl_message_t message;
    tl_message_init (&message, type);
    message.sequence = sequence;
    message.ack = ack;
    return tl_link_receive (link, &message, bytes);
}

static void
test_gaps_and_duplicates_are_told_apart (void **state)
{
    end_t *a = s_end (CHUNK, 10);
    assert_int_equal (s_forge (a->link, TL_LATE, 2, 0, 0), TL_LINK_GAP);
    assert_int_equal (s_forge (a->link, TL_LATE, 1, 0, 0), TL_LINK_NEW);
    assert_int_equal (s_forge (a->link, TL_LATE, 1, 0, 0), TL_LINK_DUPLICATE);
    assert_int_equal (s_forge (a->link, TL_LATE, 3, 0, 0), TL_LINK_GAP);
    assert_int_equal (s_forge (a->link, TL_LATE, UINT64_MAX, 0, 0), TL_LINK_GAP);
    assert_int_equal (s_forge (a->link, TL_LATE, 2, 0, 0), TL_LINK_NEW);
    assert_int_equal (tl_link_received (a->link), 2);
    s_destroy (a);
}

static void
test_duplicates_are_acked_again (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, CHUNK, 10);
    s_say (a, 0);
    s_deliver_all (a);
    s_let_all_go (b);
    tl_link_tick (b->link, true);
    s_lose (b); //  the CREDIT is lost, and a sends again
    assert_int_equal (s_forge (b->link, TL_LATE, 1, 0, 0), TL_LINK_DUPLICATE);
    tl_link_tick (b->link, false);
    s_deliver_all (b);
    assert_int_equal (a->tokens, 1);
    s_destroy (a);
    s_destroy (b);
}

static void
test_more_than_the_window_is_a_violation (void **state)
{
    end_t *a = s_end (2 * CHUNK, 3);
    assert_int_equal (s_forge (a->link, TL_STATE, 1, 0, CHUNK), TL_LINK_NEW);
    assert_int_equal (s_forge (a->link, TL_STATE, 2, 0, CHUNK + 1), TL_LINK_VIOLATION);
    assert_int_equal (s_forge (a->link, TL_STATE, 2, 0, SIZE_MAX), TL_LINK_VIOLATION);
    assert_int_equal (s_forge (a->link, TL_STATE, 2, 0, CHUNK), TL_LINK_NEW);
    assert_int_equal (s_forge (a->link, TL_LATE, 3, 0, 0), TL_LINK_NEW);
    assert_int_equal (s_forge (a->link, TL_LATE, 4, 0, 0), TL_LINK_VIOLATION);
    tl_link_release (a->link, 1);
    assert_int_equal (s_forge (a->link, TL_LATE, 4, 0, 0), TL_LINK_NEW);
    s_destroy (a);
}

static void
test_acks_of_what_was_never_sent_are_violations (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, CHUNK, 2);
    for (int i = 0; i < 3; i++)
        s_say (a, 0);
    assert_int_equal (a->frames, 2); //  the third waits for credit
    assert_int_equal (s_forge (a->link, TL_CREDIT, 0, 3, 0), TL_LINK_VIOLATION);
    assert_int_equal (s_forge (a->link, TL_CREDIT, 0, UINT64_MAX, 0), TL_LINK_VIOLATION);
    assert_int_equal (tl_link_pending (a->link), 3);
    assert_int_equal (s_forge (a->link, TL_CREDIT, 0, 2, 0), TL_LINK_NEW);
    assert_int_equal (s_forge (a->link, TL_CREDIT, 0, 1, 0), TL_LINK_NEW); //  late, and harmless
    assert_int_equal (tl_link_pending (a->link), 1);
    assert_int_equal (a->tokens, 2);
    s_destroy (a);
    s_destroy (b);
}

static void
test_types_and_sequences_must_agree (void **state)
{
    end_t *a = s_end (CHUNK, 10);
    assert_int_equal (s_forge (a->link, TL_CREDIT, 1, 0, 0), TL_LINK_VIOLATION);
    assert_int_equal (s_forge (a->link, TL_LATE, 0, 0, 0), TL_LINK_VIOLATION);
    assert_int_equal (s_forge (a->link, TL_PING, 1, 0, 0), TL_LINK_VIOLATION);
    assert_int_equal (tl_link_received (a->link), 0);
    s_destroy (a);
}

static void
test_attach_takes_only_what_can_be (void **state)
{
    end_t *a, *b;
    s_pair (&a, &b, CHUNK, 10);
    for (int i = 0; i < 4; i++)
        s_say (a, 0);
    s_deliver_all (a);
    tl_link_release (b->link, 1);
    tl_link_release (b->link, 2);
    tl_link_tick (b->link, true);
    s_deliver_all (b);
    assert_int_equal (tl_link_attach (a->link, 5), -1); //  never sent
    assert_int_equal (tl_link_attach (a->link, 1), -1); //  released, so it can't be sent again
    assert_int_equal (tl_link_attach (a->link, 2), 0);
    assert_int_equal (a->frames, 6);
    s_destroy (a);
    s_destroy (b);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_messages_arrive_in_order_with_their_payloads),
        cmocka_unit_test (test_nothing_leaves_before_attach_and_window),
        cmocka_unit_test (test_sending_is_bounded_by_bytes),
        cmocka_unit_test (test_sending_is_bounded_by_messages),
        cmocka_unit_test (test_releases_in_any_order_become_one_cumulative_ack),
        cmocka_unit_test (test_acks_ride_on_messages),
        cmocka_unit_test (test_credit_of_its_own_at_half_a_window_or_when_the_sender_is_stuck),
        cmocka_unit_test (test_a_stream_goes_on_at_half_a_window),
        cmocka_unit_test (test_payloads_are_shared_not_copied),
        cmocka_unit_test (test_gaps_and_duplicates_are_told_apart),
        cmocka_unit_test (test_duplicates_are_acked_again),
        cmocka_unit_test (test_more_than_the_window_is_a_violation),
        cmocka_unit_test (test_acks_of_what_was_never_sent_are_violations),
        cmocka_unit_test (test_types_and_sequences_must_agree),
        cmocka_unit_test (test_attach_takes_only_what_can_be),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
