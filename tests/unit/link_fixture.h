/*  link_fixture: two links and a wire that breaks. The wire is a queue a direction in this process; a
    break loses what they hold. Whatever arrives is checked: numbered 1, 2 ... without gap or repetition,
    within the window that was granted. Included by the tests of links only.                      */

#ifndef TL_TESTS_LINK_FIXTURE_H
#define TL_TESTS_LINK_FIXTURE_H

#include "unit/cmocka_all.h"

#include "link.h"
#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { KIB = 1 << 10, CHUNK = TL_CHUNK_MOST, OPEN = 1024 };

typedef struct frame {
    struct frame *next; //  behind this one
    void *envelope;     //  copy of what was sent
    size_t size;        //  bytes of it
    zmq_msg_t payload;
    bool has_payload;
} frame_t;

typedef struct end {
    tl_link_t *link;
    struct end *other;
    frame_t *first, **tail; //  on the way to the other end
    bool connected;         //  the wire takes frames
    uint64_t frames;        //  put on the wire so far
    uint64_t credits;       //  of them CREDIT
    uint64_t sent;          //  messages queued here, numbered 1 ..
    uint64_t got;           //  messages that came, in order
    uint64_t bytes_open;    //  payload bytes that came and aren't released
    uint64_t open[OPEN];    //  their sequences, unordered
    size_t bytes_of[OPEN];  //  and sizes
    size_t open_count;
    uint64_t limit_bytes, limit_messages; //  what this end grants
    uint64_t tokens;                      //  highest token the other end let go of
    const void *last_payload;             //  address of the payload that was sent last
} end_t;

static inline int
s_send (void *arg, const void *envelope, size_t size, zmq_msg_t *payload)
{
    end_t *end = arg;
    if (!end->connected) {
        errno = EHOSTUNREACH;
        return -1;
    }
    frame_t *frame = tl_alloc (sizeof *frame);
    frame->envelope = tl_alloc (size);
    memcpy (frame->envelope, envelope, size);
    frame->size = size;
    if (payload) {
        end->last_payload = zmq_msg_data (payload);
        frame->has_payload = true;
        zmq_msg_init (&frame->payload);
        zmq_msg_move (&frame->payload, payload);
        zmq_msg_close (payload);
    }
    *end->tail = frame;
    end->tail = &frame->next;
    end->frames++;
    return 0;
}

static inline void
s_released (void *arg, uint64_t token)
{
    end_t *end = arg;
    assert_int_equal (token, end->tokens + 1);
    end->tokens = token;
}

static inline void
s_free_frame (frame_t *frame)
{
    if (frame->has_payload)
        zmq_msg_close (&frame->payload);
    free (frame->envelope);
    free (frame);
}

static inline frame_t *
s_pop (end_t *from)
{
    frame_t *frame = from->first;
    if (frame) {
        from->first = frame->next;
        if (from->first == NULL)
            from->tail = &from->first;
    }
    return frame;
}

static inline void
s_lose (end_t *from)
{
    for (frame_t *frame; (frame = s_pop (from)) != NULL;)
        s_free_frame (frame);
}

static inline end_t *
s_end (uint64_t limit_bytes, uint64_t limit_messages)
{
    end_t *end = tl_alloc (sizeof *end);
    end->tail = &end->first;
    end->limit_bytes = limit_bytes;
    end->limit_messages = limit_messages;
    end->link = tl_link_new (limit_bytes, limit_messages, s_send, s_released, end);
    return end;
}

static inline void
s_destroy (end_t *end)
{
    s_lose (end);
    tl_link_destroy (&end->link);
    tl_link_destroy (&end->link);
    free (end);
}

static inline void
s_attach (end_t *a, end_t *b)
{
    a->connected = b->connected = true;
    //  Both numbers are exchanged before either sends again, as ATTACH and ATTACHED do
    uint64_t had_a = tl_link_received (a->link), had_b = tl_link_received (b->link);
    assert_int_equal (tl_link_attach (a->link, had_b), 0);
    assert_int_equal (tl_link_attach (b->link, had_a), 0);
}

//  Two ends that grant each other the same, attached.
static inline void
s_pair (end_t **a, end_t **b, uint64_t bytes, uint64_t messages)
{
    *a = s_end (bytes, messages);
    *b = s_end (bytes, messages);
    (*a)->other = *b;
    (*b)->other = *a;
    assert_int_equal (tl_link_window ((*a)->link, bytes, messages), 0);
    assert_int_equal (tl_link_window ((*b)->link, bytes, messages), 0);
    s_attach (*a, *b);
}

static inline void
s_break (end_t *a, end_t *b)
{
    a->connected = b->connected = false;
    s_lose (a);
    s_lose (b);
}

//  Of a payload of 1 .. CHUNK bytes: the last chunk of a large tensor.
static inline tl_tensor_wire_t
s_piece (size_t bytes)
{
    size_t whole = 4 * CHUNK + bytes;
    return (tl_tensor_wire_t){.dtype = TL_W_U8,
                              .rows = whole,
                              .columns = 1,
                              .bytes = whole,
                              .offset = 4 * CHUNK,
                              .size = bytes};
}

//  Queues the next message; its number is in `step` and its payload is of so many bytes (0: none).
static inline void
s_say (end_t *end, size_t bytes)
{
    tl_message_t message;
    zmq_msg_t payload;
    end->sent++;
    if (bytes == 0) {
        tl_message_init (&message, TL_LATE);
        message.step = end->sent;
        tl_link_send (end->link, &message, NULL, end->sent);
        return;
    }
    tl_message_init (&message, TL_STATE);
    message.step = end->sent;
    message.body.state.tensor = s_piece (bytes);
    zmq_msg_init_size (&payload, bytes);
    *(uint8_t *)zmq_msg_data (&payload) = (uint8_t)end->sent;
    tl_link_send (end->link, &message, &payload, end->sent);
}

//  Takes the oldest frame off the wire and gives it to the other end's link.
static inline tl_link_verdict_t
s_deliver (end_t *from)
{
    end_t *to = from->other;
    frame_t *frame = s_pop (from);
    tl_message_t message;
    tl_error_t err = {0};
    if (tl_message_decode (&message, frame->envelope, frame->size, &err))
        fail_msg ("the link sent what doesn't decode: %s", err.text);
    size_t bytes = frame->has_payload ? zmq_msg_size (&frame->payload) : 0;
    tl_link_verdict_t verdict = tl_link_receive (to->link, &message, bytes);
    if (message.type == TL_CREDIT)
        from->credits++;
    else if (verdict == TL_LINK_NEW) {
        assert_int_equal (message.step, ++to->got);
        assert_int_equal (message.sequence, message.step);
        if (bytes)
            assert_int_equal (*(uint8_t *)zmq_msg_data (&frame->payload), message.step & 0xff);
        to->open[to->open_count] = message.sequence;
        to->bytes_of[to->open_count++] = bytes;
        to->bytes_open += bytes;
        assert_true (to->bytes_open <= to->limit_bytes);
        assert_true (to->open_count <= to->limit_messages);
    }
    tl_message_clear (&message);
    s_free_frame (frame);
    return verdict;
}

static inline size_t
s_deliver_all (end_t *from)
{
    size_t count = 0;
    for (; from->first; count++)
        assert_int_not_equal (s_deliver (from), TL_LINK_VIOLATION);
    return count;
}

//  The actor at this end is done with one of the messages it holds.
static inline void
s_let_go (end_t *end, size_t index)
{
    tl_link_release (end->link, end->open[index]);
    end->bytes_open -= end->bytes_of[index];
    end->open_count--;
    end->open[index] = end->open[end->open_count];
    end->bytes_of[index] = end->bytes_of[end->open_count];
}

static inline void
s_let_sequence_go (end_t *end, uint64_t sequence)
{
    size_t at = 0;
    while (at < end->open_count && end->open[at] != sequence)
        at++;
    assert_true (at < end->open_count);
    s_let_go (end, at);
}

static inline void
s_let_all_go (end_t *end)
{
    while (end->open_count)
        s_let_go (end, end->open_count - 1);
}

//  Runs both ways until nothing moves; everything must have arrived and been released then.
static inline void
s_settle (end_t *a, end_t *b)
{
    for (int quiet = 0; quiet < 2;) {
        size_t moved = s_deliver_all (a) + s_deliver_all (b);
        s_let_all_go (a);
        s_let_all_go (b);
        tl_link_tick (a->link, true);
        tl_link_tick (b->link, true);
        quiet = moved ? 0 : quiet + 1;
    }
    assert_int_equal (b->got, a->sent);
    assert_int_equal (a->got, b->sent);
    assert_int_equal (a->tokens, a->sent);
    assert_int_equal (b->tokens, b->sent);
    assert_int_equal (tl_link_pending (a->link) + tl_link_pending (b->link), 0);
    assert_int_equal (tl_link_bytes_held (a->link) + tl_link_bytes_held (b->link), 0);
}

#endif
