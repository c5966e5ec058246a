//  ports: see ports.h.

#include "ports.h"

#include "assert.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FIRST = 10000,
    LAST = 32000,
    STRIDE = 8
}; //  8: so many a test may want without meeting its neighbour

static bool
s_free (int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons ((uint16_t)port)};
    address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
    int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    tl_assert (fd >= 0);
    //  As libzmq binds: what lingers of a closed connection is no obstacle.
    int on = 1;
    setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool free = bind (fd, (struct sockaddr *)&address, sizeof address) == 0;
    close (fd);
    return free;
}

void
tests_ports (int *ports, size_t count)
{
    static int s_next;
    if (s_next == 0)
        s_next = FIRST + (int)((unsigned)getpid () * STRIDE % (LAST - FIRST));
    int tried = 0;
    for (size_t found = 0; found < count; tried++) {
        tl_assert (tried < LAST - FIRST);
        int port = s_next++;
        if (s_next >= LAST)
            s_next = FIRST;
        if (s_free (port))
            ports[found++] = port;
    }
}
