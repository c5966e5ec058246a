/*  socket_internal: what socket.c (making, sending, receiving) and socket_monitor.c (connections and their
    events) share.                                                                                */

#ifndef TL_SOCKET_INTERNAL_H
#define TL_SOCKET_INTERNAL_H

#include "socket.h"

//  A ROUTER's peer: has shown no key yet; a key that was refused; a good one.
typedef enum { STRANGER, DENIED, ADMITTED } standing_t;

//  What one TCP connection was when last looked at.
typedef struct {
    bool used;           //  the descriptor is one of this socket's connections
    int fd;              //  it
    standing_t standing; //  what is known of who is at the other end
    bool ended;      //  its DISCONNECTED came before its ACCEPTED: with several I/O threads it can
    uint64_t cookie; //  kernel's name of the TCP socket; tells when a descriptor was reused
    uint64_t bytes;  //  both ways, last reading
    uint64_t received; //  of them from the peer
    char address[64];  //  remote, "" if unknown
} connection_t;

struct tl_socket {
    void *zmq;                 //  ROUTER (router is true) or DEALER
    void *monitor;             //  PAIR of the monitor's events
    bool router;               //  bound, with many peers
    char endpoint[256];        //  as bound or connected
    connection_t *connections; //  ROUTER: by file descriptor; DEALER: its only one
    size_t room;               //  length of connections
    uint64_t bytes_gone;       //  of connections that are closed
    int listener;              //  ROUTER: the listening descriptor, -1 if not known yet
    uint64_t unclaimed;        //  ROUTER: handshakes with a key not yet matched to a descriptor
    uint64_t
        other_keys; //  ROUTER: first words that didn't open, not yet matched to a stranger's end
    int fd;         //  DEALER: its connection, -1 if none
    int watched;    //  DEALER: a second descriptor of it during the handshake, -1 if none
    bool up;        //  DEALER: handshake done
    bool lost;      //  DEALER: the connection ended and libzmq hasn't begun another one
    void (*on_use) (void *arg); //  NULL: nobody wants to know
    void *on_use_arg;
};

//  After anything that may take in what ZMQ_FD has told of, but for messages and events, which are read until there are no more.
void tl_socket_used (tl_socket_t *self);

//  Takes in the LISTENING event, which waits since zmq_bind, so that peers' addresses are kept from now on.
void tl_socket_watch (tl_socket_t *self);
void tl_socket_unwatch (tl_socket_t *self); //  DEALER: closes watched, if it is open
//  A message came over fd, so that connection has shown a key.
void tl_socket_heard (tl_socket_t *self, int fd);

#endif
