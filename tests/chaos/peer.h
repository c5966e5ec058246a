/*  peer: for tests, one side of the protocol without any of its manners, a client's, a worker's or the aggregator's: it
    sends what it is told to, in any state, and notes what comes back. It answers the broker's PING and acks what it
    gets, unless it is deaf.

    Whatever it waits for in vain ends the test.                                                   */

#ifndef PEER_H
#define PEER_H

#include "chaos/stage.h"
#include "messages/messages.h"
#include "net/socket.h"

enum { PEER_ROWS = 4 }; //  of its largest micro, as its HELLO says

//  A chunk of a tensor, as it is to be claimed.
typedef struct {
    tl_w_dtype_t dtype;
    uint64_t rows, columns, offset;
    const void *bytes; //  of the whole tensor; NULL: zeros
    bool damaged;      //  its checksum is another's
} peer_piece_t;

typedef struct {
    stage_t *stage;
    void *context;
    tl_socket_t *control, *data;
    char name[32];
    uint8_t session[16];
    uint64_t run, window;
    uint64_t sequence; //  last one sent
    uint64_t received; //  last one that came, which is what we ack
    bool deaf;         //  acks nothing
    uint64_t step;     //  of the last PLAN
    bool discreet;     //  no PLAN told it of anybody else
    char member[64];   //  the first of the last PLAN
    //  Of the last message that was waited for
    tl_type_t type;
    uint64_t of_step, micro, code, current, labels, rows;
    bool expired;
    char text[1100];
    char sender[64];              //  who the broker says wrote it
    tl_tensor_wire_t tensor;      //  of a chunk, and its bytes
    uint8_t chunk[TL_CHUNK_MOST]; //
} peer_t;

//  With the key of that name and role (a reader's is a client's): connected, and nothing said.
peer_t *peer_connect (stage_t *stage, const char *name, const char *role);
//  The same with a session: HELLO as that role, and attached.
peer_t *peer_join (stage_t *stage, const char *name, const char *role);
void peer_drop (peer_t **self_p);  //  without a word
void peer_leave (peer_t **self_p); //  with BYE

//  Bytes as they are; payload may be NULL.
void peer_put (peer_t *self, tl_socket_t *socket, const void *frame, size_t size,
               const void *payload, size_t payload_size);
//  A message whose sequence and ack are what the caller wrote.
void peer_send_as (peer_t *self, tl_socket_t *socket, tl_message_t *message, const void *payload,
                   size_t size);
//  The next one on the link. What it writes as its sender stays, as a worker names a member by it.
void peer_send (peer_t *self, tl_message_t *message, const void *payload, size_t size);
//  The same with that chunk, the first of its tensor or not.
void peer_send_piece (peer_t *self, tl_message_t *message, const peer_piece_t *piece);
void peer_hello (peer_t *self, const char *role, uint64_t process);
void peer_attach (peer_t *self, const uint8_t *session); //  session [16]; on the data socket
void peer_attach_control (peer_t *self, const uint8_t *session);
void peer_ping (peer_t *self);

//  Makes the keys of all parts, for runs whose parts are started one by one.
void peer_keys (stage_t *stage);

//  Until a message of that type has come, on either socket; the fields above say what it was. Others are taken and let go.
void peer_wait (peer_t *self, tl_type_t type);
void peer_expect_bye (peer_t *self, const char *words); //  with code 2
void peer_expect_alive (peer_t *self);                  //  a PING is answered

#endif
