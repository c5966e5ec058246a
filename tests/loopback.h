//  loopback: TCP sockets of this machine alone, for what stands between a peer and the broker in a test.

#ifndef TESTS_LOOPBACK_H
#define TESTS_LOOPBACK_H

#include "base/assert.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

//  Listens at port (0: any) and tells at bound which it got; with bound NULL connects to port, -1 if nobody listens there.
static inline int
tests_loopback (int port, int *bound)
{
    int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons ((uint16_t)port),
                                  .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    tl_assert (fd >= 0);
    if (bound) {
        tl_assert (bind (fd, (struct sockaddr *)&address, size) == 0 && listen (fd, 64) == 0);
        tl_assert (getsockname (fd, (struct sockaddr *)&address, &size) == 0);
        *bound = ntohs (address.sin_port);
    } else if (connect (fd, (struct sockaddr *)&address, size)) {
        close (fd);
        return -1;
    }
    setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

#endif
