/*  accepted: remote addresses of connections that a listening socket accepted, however short they live.

    libzmq's monitor tells the descriptor of a connection and not who is at its other end. By the time
    the event is read the descriptor may be closed or be somebody else's: a peer that sends one wrong
    byte is gone within microseconds. So the address is kept when the connection is accepted.

    How: this file defines accept4, which libzmq then calls instead of the C library's (symbols of the
    program come before those of shared libraries). Ours does the same system call and, for listeners
    that are watched, notes who came. In a program where that doesn't take effect nothing is ever noted,
    and callers ask the kernel while they can.                                                    */

#ifndef TL_ACCEPTED_H
#define TL_ACCEPTED_H

#include <stdbool.h>

//  Starts and ends keeping addresses for a listening descriptor. At most 16 are watched at once; the
//  others go without. Thread-safe, as all of this file.
void tl_accepted_watch (int listener);
void tl_accepted_forget (int listener);

//  The remote "1.2.3.4:567" of the oldest connection not yet asked for that the listener accepted as fd.
//  Older ones of other descriptors are let go: events come in the order of accepting. False if unknown.
bool tl_accepted_take (int listener, int fd, char address[64]);

#endif
