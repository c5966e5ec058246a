/*  fault: linked into trunkline_faults, the program under test, and into nothing else. It reads from TL_FAULTS which faults
    this run has and does each once, at the n-th message of a type that an actor receives:

        TL_FAULTS="worker/trunk GRADIENT 7 kill 0;broker COMMITTED 3 stop 800"   TL_FAULTS_DONE=DIRECTORY

    An actor that ends in a slash is any of that role, whoever gets there first. kill: SIGKILL, before the message is looked
    at. stop: SIGSTOP, and SIGCONT after so many ms. delay: everything that comes to this actor waits so long. full: from then
    on no file of this process grows beyond so many bytes. twice: the message is received twice. hold: it and all that comes
    behind it on its connection is received after so many messages from elsewhere, or when these don't come, soon. nan, shape,
    cut, labels: its author sent a PART that is well-formed on the wire and wrong inside. A file in the directory marks a fault
    as done, as the process that did it may be gone and its successor counts anew.                   */

#include "actors/actor.h"
#include "hash.h"
#include "log.h"
#include "messages/messages.h"
#include "net/socket.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 8, SOCKETS = 3, HELD = 4096, HOLD_MS = 400 };

typedef struct {
    char actor[64], type[32], action[16];
    unsigned long number, ms; //  the n-th, from 1
    unsigned long seen;
} fault_t;

static fault_t s_faults[MOST];
static size_t s_count;
static struct {
    tl_socket_t *socket; //  NULL: none
    tl_packet_t packet;
} s_again; //  what is received a second time

//  What the actor watches, each once, to be woken for what was held back.
static struct {
    tl_actor_t *actor;
    tl_socket_t *socket;
    tl_actor_fn *fn;
    void *arg;
} s_watched[SOCKETS];

static struct {
    tl_socket_t *socket; //  NULL: nothing is held back
    char user[80];
    unsigned long others; //  so many are still to be received before
    tl_packet_t packets[HELD];
    size_t count, next;
} s_held;

//  "role" or "role/name" of this process: trunkline run ROLE TOPOLOGY [NAME].
static void
s_actor (char *text, size_t size)
{
    char line[4096];
    int fd = open ("/proc/self/cmdline", O_RDONLY);
    ssize_t got = fd < 0 ? 0 : read (fd, line, sizeof line - 1);
    if (fd >= 0)
        close (fd);
    const char *words[5] = {"", "", "", "", ""};
    size_t count = 0;
    for (ssize_t at = 0; at < got && count < 5; at += (ssize_t)strlen (line + at) + 1) {
        line[got] = 0;
        words[count++] = line + at;
    }
    bool named = *words[4] && words[4][0] != '-';
    snprintf (text, size, "%s%s%s", strcmp (words[1], "run") == 0 ? words[2] : "", named ? "/" : "",
              named ? words[4] : "");
}

static void
s_wait (unsigned long ms)
{
    struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep (&time, NULL);
}

//  True for the one process that may do it.
static bool
s_claim (size_t fault)
{
    const char *directory = getenv ("TL_FAULTS_DONE");
    char path[4096];
    snprintf (path, sizeof path, "%s/fault-%zu", directory ? directory : ".", fault);
    int fd = open (path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0)
        close (fd);
    return fd >= 0;
}

static void
s_stop (unsigned long ms)
{
    pid_t self = getpid (), waker = fork ();
    if (waker == 0) {
        prctl (PR_SET_PDEATHSIG, SIGKILL); //  who was woken by another hand needs none
        s_wait (ms);
        kill (self, SIGCONT);
        _exit (0);
    }
    kill (self, SIGSTOP);
}

static void
s_twice (tl_socket_t *socket, const tl_packet_t *packet)
{
    if (s_again.socket)
        return;
    s_again.socket = socket;
    s_again.packet = *packet; //  all but the frames
    zmq_msg_init (&s_again.packet.routing);
    zmq_msg_init (&s_again.packet.envelope);
    zmq_msg_init (&s_again.packet.payload);
    zmq_msg_copy (&s_again.packet.routing, (zmq_msg_t *)&packet->routing);
    zmq_msg_copy (&s_again.packet.envelope, (zmq_msg_t *)&packet->envelope);
    zmq_msg_copy (&s_again.packet.payload, (zmq_msg_t *)&packet->payload);
}

//  --- holding back ------------------------------------------------------------------------------

void __real_tl_actor_watch_socket (tl_actor_t *self, tl_socket_t *socket, tl_actor_fn *on_message,
                                   tl_actor_fn *on_event, void *arg);
void __wrap_tl_actor_watch_socket (tl_actor_t *self, tl_socket_t *socket, tl_actor_fn *on_message,
                                   tl_actor_fn *on_event, void *arg);

//  The linker puts it in the place of the actor's own.
void
__wrap_tl_actor_watch_socket (tl_actor_t *self, tl_socket_t *socket, tl_actor_fn *on_message,
                              tl_actor_fn *on_event, void *arg)
{
    for (size_t i = 0; i < SOCKETS; i++)
        if (!s_watched[i].socket || s_watched[i].socket == socket) {
            s_watched[i].actor = self;
            s_watched[i].socket = socket;
            s_watched[i].fn = on_message;
            s_watched[i].arg = arg;
            break;
        }
    __real_tl_actor_watch_socket (self, socket, on_message, on_event, arg);
}

static void s_wake (size_t ms);

//  Nobody else is waited for: the actor asks that socket, whether or not anything comes there.
static void
s_on_due (void *arg)
{
    size_t i = (size_t)arg;
    if (s_watched[i].socket != s_held.socket)
        return;
    s_held.others = 0;
    s_watched[i].fn (s_watched[i].arg);
    if (s_held.socket)
        s_wake (0); //  more than it takes in a turn
}

static void
s_wake (size_t ms)
{
    for (size_t i = 0; i < SOCKETS; i++)
        if (s_watched[i].socket == s_held.socket)
            tl_actor_timer (s_watched[i].actor, ms, 1, s_on_due, (void *)i);
}

static void
s_hold (tl_socket_t *socket, const tl_packet_t *packet, unsigned long others)
{
    if (s_held.socket)
        return;
    s_held.socket = socket;
    snprintf (s_held.user, sizeof s_held.user, "%s", packet->user);
    s_held.others = others;
    s_wake (HOLD_MS);
}

//  True if it took the packet.
static bool
s_hold_back (tl_socket_t *socket, const tl_packet_t *packet)
{
    if (!s_held.socket)
        return false;
    if (socket == s_held.socket && strcmp (packet->user, s_held.user) == 0) {
        if (s_held.count == HELD)
            abort ();
        s_held.packets[s_held.count++] = *packet;
        return true;
    }
    if (s_held.others && --s_held.others == 0)
        s_wake (0);
    return false;
}

static bool
s_let_go (tl_socket_t *socket, tl_packet_t *packet)
{
    if (socket != s_held.socket || s_held.others)
        return false;
    if (s_held.next == s_held.count) {
        s_held.socket = NULL;
        s_held.count = s_held.next = 0;
        return false;
    }
    *packet = s_held.packets[s_held.next++];
    return true;
}

//  --- the rest ----------------------------------------------------------------------------------

//  The first shape of two numbers in the blob's table of tensors, the other way round.
static void
s_transpose (char *blob)
{
    char *shape = strstr (blob + 8, "\"shape\":["), text[32];
    int rows, columns, size = 0;
    while (shape &&
           (sscanf (shape, "\"shape\":[%d,%d%n", &rows, &columns, &size) != 2 || rows == columns))
        shape = strstr (shape + 1, "\"shape\":[");
    if (!shape)
        abort ();
    snprintf (text, sizeof text, "\"shape\":[%d,%d", columns, rows);
    memcpy (shape, text, (size_t)size); //  as many digits
}

//  The packet becomes one that a hostile author might send: its descriptor and checksum are right.
static void
s_spoil (const char *how, tl_packet_t *packet)
{
    static const unsigned char nan[4] = {0, 0, 0xc0, 0x7f};
    tl_message_t message;
    tl_error_t err;
    size_t size = zmq_msg_size (&packet->payload);
    char *blob = malloc (size + 1);
    memcpy (blob, zmq_msg_data (&packet->payload), size);
    blob[size] = 0;
    if (tl_message_decode (&message, zmq_msg_data (&packet->envelope),
                           zmq_msg_size (&packet->envelope), &err) ||
        message.type != TL_PART || message.body.part.tensor.bytes != size)
        abort ();
    tl_tensor_wire_t *tensor = &message.body.part.tensor;
    if (strcmp (how, "nan") == 0)
        memcpy (blob + size - sizeof nan, nan, sizeof nan);
    else if (strcmp (how, "shape") == 0)
        s_transpose (blob);
    else if (strcmp (how, "cut") == 0)
        size -= 4;
    else
        message.body.part.labels = (uint64_t)1 << 40;
    tensor->bytes = tensor->rows = tensor->size = size;
    tensor->checksum = tl_hash64 (blob, size);
    zmq_msg_close (&packet->payload);
    zmq_msg_init_size (&packet->payload, size);
    memcpy (zmq_msg_data (&packet->payload), blob, size);
    void *envelope = tl_message_encode (&message, &size);
    zmq_msg_close (&packet->envelope);
    zmq_msg_init_size (&packet->envelope, size);
    memcpy (zmq_msg_data (&packet->envelope), envelope, size);
    free (envelope);
    tl_message_clear (&message);
    free (blob);
}

static void
s_do (const fault_t *fault, tl_socket_t *socket, tl_packet_t *packet)
{
    tl_warn ("fault: %s at %s %lu, %lu", fault->action, fault->type, fault->number, fault->ms);
    if (strcmp (fault->action, "kill") == 0)
        kill (getpid (), SIGKILL);
    else if (strcmp (fault->action, "stop") == 0)
        s_stop (fault->ms);
    else if (strcmp (fault->action, "delay") == 0)
        s_wait (fault->ms);
    else if (strcmp (fault->action, "full") == 0)
        setrlimit (RLIMIT_FSIZE, &(struct rlimit){fault->ms, RLIM_INFINITY});
    else if (strcmp (fault->action, "twice") == 0)
        s_twice (socket, packet);
    else if (strcmp (fault->action, "hold") == 0)
        s_hold (socket, packet, fault->ms);
    else
        s_spoil (fault->action, packet);
}

static int
s_next (tl_socket_t *socket, tl_packet_t *packet, int (*receive) (tl_socket_t *, tl_packet_t *))
{
    if (s_again.socket == socket) {
        *packet = s_again.packet;
        s_again.socket = NULL;
        return 1;
    }
    int rc = receive (socket, packet);
    tl_message_t message;
    tl_error_t err;
    if (rc != 1 || tl_message_decode (&message, zmq_msg_data (&packet->envelope),
                                      zmq_msg_size (&packet->envelope), &err))
        return rc;
    const char *type = tl_type_name (message.type);
    for (size_t i = 0; i < s_count; i++)
        if (*s_faults[i].actor && strcmp (s_faults[i].type, type) == 0 &&
            ++s_faults[i].seen == s_faults[i].number && s_claim (i))
            s_do (&s_faults[i], socket, packet);
    tl_message_clear (&message);
    return rc;
}

static int
s_hook (tl_socket_t *socket, tl_packet_t *packet, int (*receive) (tl_socket_t *, tl_packet_t *))
{
    int rc = 1;
    do
        if (s_let_go (socket, packet))
            return 1;
    while ((rc = s_next (socket, packet, receive)) == 1 && s_hold_back (socket, packet));
    return rc;
}

//  wanted ends in a slash: any of that role.
static bool
s_meant (const char *wanted, const char *actor)
{
    size_t size = strlen (wanted);
    bool any = size && wanted[size - 1] == '/';
    return any ? strncmp (wanted, actor, size) == 0 : strcmp (wanted, actor) == 0;
}

__attribute__ ((constructor)) static void
s_begin (void)
{
    const char *text = getenv ("TL_FAULTS");
    char actor[128];
    s_actor (actor, sizeof actor);
    while (text && *text && s_count < MOST) {
        fault_t *fault = &s_faults[s_count];
        if (sscanf (text, "%63s %31s %lu %15s %lu", fault->actor, fault->type, &fault->number,
                    fault->action, &fault->ms) == 5) {
            if (!s_meant (fault->actor, actor))
                *fault->actor = 0; //  another's; its number stays
            s_count++;
        }
        text = strchr (text, ';');
        text = text ? text + 1 : NULL;
    }
    if (s_count && *actor)
        tl_socket_hook = s_hook;
}
