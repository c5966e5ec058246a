/*  link: sequences, credit and resending, see link.h.

    Out, sequences from 1:    released | in flight | waiting
                              ........a]..........c]........n]
    a: highest released by the far end (acked); c: sent in this attachment (cursor - 1); n: queued. The
    messages of (a, n] are in a ring, the payloads of (a, c] count against the far end's window.

    In: ring of the sequences (cleared, received]; cleared is the highest of which everything up to it is
    released here, and is what goes out as ack. Releases beyond a gap wait in the ring.

    An envelope is encoded once, with ack 0, and the real ack spliced in whenever it is sent. Payloads
    are reference-counted by libzmq: what is sent is a second reference, so sending again costs nothing. */

#include "link.h"

#include "assert.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

enum { RING_START = 16, ACK_BYTES = 9 };

//  One message on its way out.
typedef struct {
    uint8_t *envelope; //  encoded, with one byte 0 as ack; owned
    size_t size;       //  bytes of it
    size_t ack_at;     //  where that byte is
    zmq_msg_t payload; //  ours until released
    uint64_t bytes;    //  payload's size
    uint64_t token;    //  the actor's name for it, 0 if it has none
    bool has_payload;
} out_t;

//  One message that came and is not yet under `cleared`.
typedef struct {
    uint64_t bytes; //  payload's size
    bool released;
} in_t;

struct tl_link {
    tl_link_send_fn *send;
    tl_link_released_fn *released; //  may be NULL
    void *arg;                     //  of both
    bool attached;                 //  may send

    out_t *out;        //  ring of the sequences (acked, last], by sequence & (out_room - 1)
    uint64_t out_room; //  power of two
    uint64_t acked;    //  highest sequence the far end has released
    uint64_t cursor;   //  next sequence to send
    uint64_t last;     //  highest sequence queued
    uint64_t held;     //  payload bytes of (acked, last]
    uint64_t flying;   //  payload bytes of (acked, cursor)
    uint64_t window_bytes, window_messages; //  what the far end takes; 0 until it said

    in_t *in;                             //  ring of the sequences (cleared, received]
    uint64_t in_room;                     //  power of two
    uint64_t cleared;                     //  everything up to here is released by the actor
    uint64_t received;                    //  highest in-order sequence that came
    uint64_t taken;                       //  payload bytes of (cleared, received]
    uint64_t limit_bytes, limit_messages; //  what we granted
    uint64_t told;                        //  highest ack that went out
    uint64_t told_bytes;                  //  payload bytes of (told, cleared]
    bool owed; //  the far end may not know our ack: attached anew, or it repeated itself

    uint8_t *scratch;    //  envelope with its real ack
    size_t scratch_room; //  bytes of it
};

tl_link_t *
tl_link_new (uint64_t window_bytes_in, uint64_t window_messages_in, tl_link_send_fn *send,
             tl_link_released_fn *released, void *arg)
{
    tl_assert (send && window_messages_in > 0 && window_bytes_in > 0);
    tl_link_t *self = tl_alloc (sizeof *self);
    self->send = send;
    self->released = released;
    self->arg = arg;
    self->cursor = 1;
    self->out_room = self->in_room = RING_START;
    self->out = tl_alloc (self->out_room * sizeof *self->out);
    self->in = tl_alloc (self->in_room * sizeof *self->in);
    self->limit_bytes = window_bytes_in;
    self->limit_messages = window_messages_in;
    return self;
}

static out_t *
s_out (tl_link_t *self, uint64_t sequence)
{
    return &self->out[sequence & (self->out_room - 1)];
}

static in_t *
s_in (tl_link_t *self, uint64_t sequence)
{
    return &self->in[sequence & (self->in_room - 1)];
}

static void
s_drop (out_t *out)
{
    free (out->envelope);
    if (out->has_payload)
        zmq_msg_close (&out->payload);
    memset (out, 0, sizeof *out);
}

void
tl_link_destroy (tl_link_t **self_p)
{
    tl_assert (self_p);
    tl_link_t *self = *self_p;
    if (self == NULL)
        return;
    for (uint64_t at = self->acked + 1; at <= self->last; at++) {
        //  Nobody will release these any more: whoever waits for it must hear so.
        if (self->released && s_out (self, at)->token)
            self->released (self->arg, s_out (self, at)->token);
        s_drop (s_out (self, at));
    }
    free (self->out);
    free (self->in);
    free (self->scratch);
    free (self);
    *self_p = NULL;
}

//  --- envelopes

//  Where the ack is: envelope is a msgpack array of 11, and before the ack come 7 unsigned integers.
static size_t
s_find_ack (const uint8_t *envelope, size_t size)
{
    enum { ARRAY_OF_11 = 0x9b, BEFORE_ACK = 7, UINT8 = 0xcc, UINT64 = 0xcf };
    size_t at = 1;
    tl_assert (size > 0 && envelope[0] == ARRAY_OF_11);
    for (int i = 0; i < BEFORE_ACK; i++) {
        tl_assert (at < size);
        uint8_t first = envelope[at];
        tl_assert (first < 0x80 || (first >= UINT8 && first <= UINT64));
        at += 1 + (first < 0x80 ? 0 : (size_t)1 << (first - UINT8));
    }
    tl_assert (at < size && envelope[at] == 0);
    return at;
}

//  Writes value in msgpack's shortest form, at most ACK_BYTES; returns the bytes written.
static size_t
s_write_ack (uint8_t *target, uint64_t value)
{
    if (value < 0x80) {
        target[0] = (uint8_t)value;
        return 1;
    }
    int power = value <= UINT8_MAX ? 0 : value <= UINT16_MAX ? 1 : value <= UINT32_MAX ? 2 : 3;
    size_t bytes = (size_t)1 << power;
    target[0] = (uint8_t)(0xcc + power);
    for (size_t i = 0; i < bytes; i++)
        target[1 + i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    return 1 + bytes;
}

//  Puts the current ack into an envelope and hands it to the actor's function; payload may be NULL.
static int
s_put (tl_link_t *self, const uint8_t *envelope, size_t size, size_t ack_at, zmq_msg_t *payload)
{
    if (self->scratch_room < size + ACK_BYTES) {
        free (self->scratch);
        self->scratch_room = 2 * size + ACK_BYTES;
        self->scratch = tl_alloc (self->scratch_room);
    }
    memcpy (self->scratch, envelope, ack_at);
    size_t at = ack_at + s_write_ack (self->scratch + ack_at, self->cleared);
    memcpy (self->scratch + at, envelope + ack_at + 1, size - ack_at - 1);
    if (self->send (self->arg, self->scratch, at + size - ack_at - 1, payload)) {
        self->attached = false;
        return -1;
    }
    self->told = self->cleared;
    self->told_bytes = 0;
    self->owed = false;
    return 0;
}

//  --- out

//  Sends what waits and fits the window.
static void
s_pump (tl_link_t *self)
{
    while (self->attached && self->cursor <= self->last) {
        out_t *out = s_out (self, self->cursor);
        if (self->cursor - 1 - self->acked >= self->window_messages ||
            out->bytes > self->window_bytes - self->flying)
            return;
        zmq_msg_t again;
        if (out->has_payload) {
            zmq_msg_init (&again);
            tl_assert (zmq_msg_copy (&again, &out->payload) == 0);
        }
        if (s_put (self, out->envelope, out->size, out->ack_at, out->has_payload ? &again : NULL)) {
            if (out->has_payload)
                zmq_msg_close (&again);
            return;
        }
        self->flying += out->bytes;
        self->cursor++;
    }
}

int
tl_link_window (tl_link_t *self, uint64_t bytes, uint64_t messages)
{
    if (bytes < TL_CHUNK_MOST || messages < 1 || bytes < self->flying)
        return -1;
    self->window_bytes = bytes;
    self->window_messages = messages;
    s_pump (self);
    return 0;
}

int
tl_link_attach (tl_link_t *self, uint64_t received)
{
    if (received < self->acked || received >= self->cursor)
        return -1;
    self->flying = 0;
    for (uint64_t at = self->acked + 1; at <= received; at++)
        self->flying += s_out (self, at)->bytes;
    self->cursor = received + 1;
    self->attached = true;
    self->owed = self->cleared > 0;
    s_pump (self);
    return 0;
}

void
tl_link_detach (tl_link_t *self)
{
    self->attached = false;
}

bool
tl_link_attached (const tl_link_t *self)
{
    return self->attached;
}

static void
s_grow_out (tl_link_t *self)
{
    uint64_t room = 2 * self->out_room;
    out_t *ring = tl_alloc (room * sizeof *ring);
    for (uint64_t at = self->acked + 1; at <= self->last; at++)
        ring[at & (room - 1)] = *s_out (self, at);
    free (self->out);
    self->out = ring;
    self->out_room = room;
}

void
tl_link_send (tl_link_t *self, const tl_message_t *message, zmq_msg_t *payload, uint64_t token)
{
    tl_assert (tl_type_sequenced (message->type));
    if (self->last - self->acked == self->out_room)
        s_grow_out (self);
    tl_message_t numbered = *message; //  shares lists and texts; only read
    numbered.sequence = ++self->last;
    numbered.ack = 0;
    out_t *out = s_out (self, self->last);
    memset (out, 0, sizeof *out);
    out->envelope = tl_message_encode (&numbered, &out->size);
    out->ack_at = s_find_ack (out->envelope, out->size);
    out->token = token;
    if (payload) {
        out->has_payload = true;
        out->bytes = zmq_msg_size (payload);
        tl_assert (out->bytes <= TL_CHUNK_MOST);
        zmq_msg_init (&out->payload);
        zmq_msg_move (&out->payload, payload);
    }
    self->held += out->bytes;
    s_pump (self);
}

//  Lets go of everything up to ack. The actor may send from inside released.
static void
s_take_ack (tl_link_t *self, uint64_t ack)
{
    while (self->acked < ack) {
        out_t *out = s_out (self, self->acked + 1);
        uint64_t token = out->token;
        self->held -= out->bytes;
        self->flying -= out->bytes;
        s_drop (out);
        self->acked++;
        if (token && self->released)
            self->released (self->arg, token);
    }
    s_pump (self);
}

uint64_t
tl_link_released (const tl_link_t *self)
{
    return self->acked;
}

uint64_t
tl_link_pending (const tl_link_t *self)
{
    return self->last - self->acked;
}

bool
tl_link_stalled (const tl_link_t *self)
{
    return self->attached && self->cursor <= self->last;
}

uint64_t
tl_link_bytes_held (const tl_link_t *self)
{
    return self->held;
}

//  --- in

static void
s_grow_in (tl_link_t *self)
{
    uint64_t room = 2 * self->in_room;
    in_t *ring = tl_alloc (room * sizeof *ring);
    for (uint64_t at = self->cleared + 1; at <= self->received; at++)
        ring[at & (room - 1)] = *s_in (self, at);
    free (self->in);
    self->in = ring;
    self->in_room = room;
}

//  Takes the next sequence in, if it fits what we granted.
static tl_link_verdict_t
s_admit (tl_link_t *self, uint64_t bytes)
{
    uint64_t messages = self->received - self->cleared;
    if (messages >= self->limit_messages || bytes > self->limit_bytes - self->taken)
        return TL_LINK_VIOLATION;
    if (messages == self->in_room)
        s_grow_in (self);
    self->received++;
    *s_in (self, self->received) = (in_t){.bytes = bytes};
    self->taken += bytes;
    return TL_LINK_NEW;
}

tl_link_verdict_t
tl_link_receive (tl_link_t *self, const tl_message_t *message, size_t bytes)
{
    bool credit = message->type == TL_CREDIT;
    if (message->ack >= self->cursor || credit != (message->sequence == 0) ||
        (!credit && !tl_type_sequenced (message->type)))
        return TL_LINK_VIOLATION;
    tl_link_verdict_t verdict = TL_LINK_NEW;
    if (message->sequence > self->received + 1)
        verdict = TL_LINK_GAP;
    else if (!credit && message->sequence <= self->received) {
        verdict = TL_LINK_DUPLICATE;
        self->owed = true;
    } else if (!credit)
        verdict = s_admit (self, bytes);
    if (verdict != TL_LINK_VIOLATION)
        s_take_ack (self, message->ack);
    return verdict;
}

uint64_t
tl_link_received (const tl_link_t *self)
{
    return self->received;
}

void
tl_link_release (tl_link_t *self, uint64_t sequence)
{
    if (sequence == 0)
        return;
    tl_assert (sequence > self->cleared && sequence <= self->received);
    tl_assert (!s_in (self, sequence)->released);
    s_in (self, sequence)->released = true;
    while (self->cleared < self->received && s_in (self, self->cleared + 1)->released) {
        self->cleared++;
        self->taken -= s_in (self, self->cleared)->bytes;
        self->told_bytes += s_in (self, self->cleared)->bytes;
    }
}

static bool
s_halfway (const tl_link_t *self)
{
    return self->cleared - self->told >= (self->limit_messages + 1) / 2 ||
           self->told_bytes >= (self->limit_bytes + 1) / 2;
}

//  Is it time to tell the far end of releases it doesn't know of?
static bool
s_credit_due (const tl_link_t *self, bool now)
{
    uint64_t messages = self->cleared - self->told;
    if (self->owed || messages == 0 || now)
        return self->owed || messages > 0;
    //  What the far end believes it has in flight, at least
    uint64_t seen_bytes = self->taken + self->told_bytes;
    uint64_t seen_messages = self->received - self->told;
    return s_halfway (self) || seen_messages >= self->limit_messages ||
           seen_bytes + TL_CHUNK_MOST > self->limit_bytes;
}

static void
s_put_credit (tl_link_t *self)
{
    tl_message_t credit;
    tl_message_init (&credit, TL_CREDIT);
    size_t size;
    uint8_t *envelope = tl_message_encode (&credit, &size);
    s_put (self, envelope, size, s_find_ack (envelope, size), NULL);
    free (envelope);
}

void
tl_link_tick (tl_link_t *self, bool now)
{
    if (self->attached && s_credit_due (self, now))
        s_put_credit (self);
}

void
tl_link_halfway (tl_link_t *self)
{
    if (self->attached && s_halfway (self))
        s_put_credit (self);
}
