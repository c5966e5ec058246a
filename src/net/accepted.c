//  accepted: see accepted.h. IPv4 only, as our sockets are.

#include "accepted.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LISTENERS = 16, KEPT = 1024 };

//  One listener's connections whose events haven't been read yet. When more than KEPT wait, the oldest
//  are forgotten.
typedef struct {
    int listener;         //  descriptor + 1; 0: free
    uint32_t first, next; //  entries [first, next), by index % KEPT
    int fds[KEPT];        //  accepted as
    uint32_t hosts[KEPT]; //  network byte order
    uint16_t ports[KEPT]; //  network byte order
} watch_t;

static pthread_mutex_t s_mutex = PTHREAD_MUTEX_INITIALIZER;
static watch_t s_watches[LISTENERS];

//  With s_mutex held. NULL if the listener isn't watched.
static watch_t *
s_find (int listener)
{
    for (int i = 0; i < LISTENERS; i++)
        if (s_watches[i].listener == listener + 1)
            return &s_watches[i];
    return NULL;
}

void
tl_accepted_watch (int listener)
{
    pthread_mutex_lock (&s_mutex);
    watch_t *watch = s_find (listener);
    if (watch == NULL)
        watch = s_find (-1);
    if (watch) {
        watch->listener = listener + 1;
        watch->first = watch->next = 0;
    }
    pthread_mutex_unlock (&s_mutex);
}

void
tl_accepted_forget (int listener)
{
    pthread_mutex_lock (&s_mutex);
    watch_t *watch = s_find (listener);
    if (watch)
        watch->listener = 0;
    pthread_mutex_unlock (&s_mutex);
}

bool
tl_accepted_take (int listener, int fd, char address[64])
{
    bool found = false;
    pthread_mutex_lock (&s_mutex);
    watch_t *watch = s_find (listener);
    while (watch && !found && watch->first != watch->next) {
        uint32_t at = watch->first++ % KEPT;
        char host[INET_ADDRSTRLEN];
        found = watch->fds[at] == fd;
        if (found && inet_ntop (AF_INET, &watch->hosts[at], host, sizeof host))
            snprintf (address, 64, "%s:%u", host, ntohs (watch->ports[at]));
    }
    pthread_mutex_unlock (&s_mutex);
    return found;
}

static void
s_note (int listener, int fd, const struct sockaddr_in *peer)
{
    pthread_mutex_lock (&s_mutex);
    watch_t *watch = s_find (listener);
    if (watch) {
        if (watch->next - watch->first == KEPT)
            watch->first++;
        uint32_t at = watch->next++ % KEPT;
        watch->fds[at] = fd;
        watch->hosts[at] = peer->sin_addr.s_addr;
        watch->ports[at] = peer->sin_port;
    }
    pthread_mutex_unlock (&s_mutex);
}

//  The C library declares accept4 with a type of its own for the address; the name is given to the
//  assembler only, so that the two don't meet.
int tl_accept4 (int listener, struct sockaddr *address, socklen_t *size,
                int flags) __asm__("accept4");

int
tl_accept4 (int listener, struct sockaddr *address, socklen_t *size, int flags)
{
    int fd = (int)syscall (SYS_accept4, listener, address, size, flags);
    if (fd >= 0 && address && size && *size >= sizeof (struct sockaddr_in) &&
        address->sa_family == AF_INET)
        s_note (listener, fd, (const struct sockaddr_in *)address);
    return fd;
}
