/*  link: one direction-pair of sequenced, credit-controlled messages between two ends, that survives
    reconnects. It owns no socket: the actor hands it what arrives and gives it a function that sends.

    Out: messages get sequence 1, 2 ...; they are kept until the far end has released them, and sent only
    while bytes and messages in flight fit the window that the far end granted; the rest waits here, in
    order. In: the expected sequence is handed to the actor, a lower one is a duplicate (dropped), a higher
    one a gap (the caller answers INVALID or re-attaches). The actor releases what it got once it holds no
    memory for it any more; the released sequence travels as `ack` in every envelope, and in a CREDIT of
    its own when half a window is released and nothing else goes out (tl_link_tick).
    Detached links (no ATTACH yet, or connection lost) keep everything and send nothing.            */

#ifndef TL_LINK_H
#define TL_LINK_H

#include "messages/messages.h"

#include <zmq.h>

typedef struct tl_link tl_link_t;

//  Puts one message on the wire. Takes payload over when it returns 0 (payload may be NULL); -1 if the peer can't be
//  reached now (the link becomes detached and keeps the message).
typedef int (tl_link_send_fn) (void *arg, const void *envelope, size_t size, zmq_msg_t *payload);
//  Called when the far end has released a message that was sent with a non-zero token, or the link is destroyed before.
typedef void (tl_link_released_fn) (void *arg, uint64_t token);

tl_link_t *tl_link_new (uint64_t window_bytes_in, uint64_t window_messages_in,
                        tl_link_send_fn *send, tl_link_released_fn *released, void *arg);
//  Messages that are still here are dropped; nobody hears of their tokens.
void tl_link_destroy (tl_link_t **self_p);
//  What the far end granted us. -1, and nothing changed, if that is less than one chunk (TL_CHUNK_MOST) or one
//  message, or than what is in flight: such a peer is to be refused. Before it is called nothing is sent.
int tl_link_window (tl_link_t *self, uint64_t bytes, uint64_t messages);

//  Attached: far end has received everything up to received; the rest is sent again, in order.
//  -1 if received is beyond what was ever sent, or below what the far end has released already.
int tl_link_attach (tl_link_t *self, uint64_t received);
void tl_link_detach (tl_link_t *self);
bool tl_link_attached (const tl_link_t *self);
uint64_t tl_link_received (
    const tl_link_t *self); //  highest in-order sequence that came, for ATTACH / ATTACHED

//  Queues a message (sequence and ack are filled in at sending; message is encoded now, so it may be cleared after) with its
//  payload (may be NULL; taken over always). token 0: nobody wants to know. Sends at once what the window allows.
void tl_link_send (tl_link_t *self, const tl_message_t *message, zmq_msg_t *payload,
                   uint64_t token);

typedef enum { TL_LINK_NEW, TL_LINK_DUPLICATE, TL_LINK_GAP, TL_LINK_VIOLATION } tl_link_verdict_t;
//  Says what an arrived sequenced or CREDIT message is, and takes its ack. bytes: payload size. VIOLATION: beyond the
//  window we granted, or an ack of something never sent. Only NEW messages are to be acted on; a CREDIT is NEW too,
//  and has nothing more to act on. Calls released, and sends what an ack made room for.
tl_link_verdict_t tl_link_receive (tl_link_t *self, const tl_message_t *message, size_t bytes);
//  The actor holds no memory for this received sequence any more (any order, each NEW message once; 0 is ignored).
void tl_link_release (tl_link_t *self, uint64_t sequence);
//  Sends CREDIT if one is due (call from a timer, and after a burst of input): half a window is released and not yet
//  told, or less and the far end has no room left for a chunk. now: if anything is not yet told. The CREDIT has run 0
//  and no sender.
void tl_link_tick (tl_link_t *self, bool now);

//  Sends CREDIT if half a window is released and not yet told: for whoever releases when others do, and not at the end of a
//  burst of input.
void tl_link_halfway (tl_link_t *self);

uint64_t
tl_link_released (const tl_link_t *self); //  highest sequence out that the far end has released
uint64_t tl_link_pending (const tl_link_t *self); //  messages out, not yet released by the far end
bool tl_link_stalled (const tl_link_t *self);     //  something waits for the far end's credit
uint64_t tl_link_bytes_held (const tl_link_t *self); //  payload bytes held for sending or resending

#endif
