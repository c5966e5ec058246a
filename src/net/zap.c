/*  zap: our own ZAP handler, see zap.h; the protocol is RFC 27.

    A request is 7 frames: version, request id, domain, address, routing id, mechanism and, for CURVE,
    the client's public key. libzmq makes them, in this process, but domain and key come from outside,
    so everything is checked. Every request gets an answer: without one the REP socket and the peer's
    handshake would wait.                                                                          */

#include "zap.h"

#include "assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define ENDPOINT "inproc://zeromq.zap.01" //  libzmq's name for it
enum { REQUEST_FRAMES = 7, FRAME_LIMIT = 255, KEY_SIZE = 32 };

struct tl_zap {
    void *socket;              //  REP, bound to inproc://zeromq.zap.01
    tl_key_t *keys;            //  everybody we know
    size_t count;              //  of keys
    uint64_t refused_unknown;  //  keys nobody knows, since the start
    uint64_t refused_role;     //  known keys in the wrong place, since the start
    tl_outsiders_t *outsiders; //  for the log, or NULL; not ours
};

//  One frame of a request; longer ones than libzmq's are cut, and then match nothing.
typedef struct {
    char data[FRAME_LIMIT + 1]; //  with a NUL after it
    size_t size;                //  bytes
} frame_t;

//  Which role may connect to sockets of which ZAP domain.
static const struct {
    const char *domain, *role;
} s_allowed[] = {
    {"control", "client"}, {"control", "worker"}, {"control", "aggregator"}, {"control", "admin"},
    {"clients", "client"}, {"workers", "worker"}, {"workers", "aggregator"},
};

tl_zap_t *
tl_zap_new (void *context, const char *keys_directory, tl_outsiders_t *outsiders, tl_error_t *err)
{
    tl_zap_t *self = tl_alloc (sizeof *self);
    self->outsiders = outsiders;
    if (tl_keys_list (keys_directory, &self->keys, &self->count, err)) {
        tl_zap_destroy (&self);
        return NULL;
    }
    int linger = 0;
    self->socket = zmq_socket (context, ZMQ_REP);
    if (self->socket == NULL || zmq_setsockopt (self->socket, ZMQ_LINGER, &linger, sizeof linger) ||
        zmq_bind (self->socket, ENDPOINT)) {
        tl_fail (err, TL_INTERNAL,
                 "the handler that checks keys can't start (%s); this is a bug, unless this "
                 "process has run out of sockets (ulimit -n)",
                 zmq_strerror (errno));
        tl_zap_destroy (&self);
    }
    return self;
}

void
tl_zap_destroy (tl_zap_t **self_p)
{
    tl_assert (self_p);
    tl_zap_t *self = *self_p;
    if (self == NULL)
        return;
    if (self->socket) {
        //  Closing happens later, in the background; the name is to be free at once
        zmq_unbind (self->socket, ENDPOINT);
        zmq_close (self->socket);
    }
    free (self->keys);
    free (self);
    *self_p = NULL;
}

void *
tl_zap_socket (tl_zap_t *self)
{
    return self->socket;
}

//  Reads a request if one waits. Returns its number of frames (all are read, the first 7 kept), 0 if
//  none waits.
static int
s_receive (tl_zap_t *self, frame_t frames[REQUEST_FRAMES])
{
    int count = 0, more = 1;
    while (more) {
        zmq_msg_t message;
        zmq_msg_init (&message);
        int rc = zmq_msg_recv (&message, self->socket, ZMQ_DONTWAIT);
        if (rc == -1 && errno == EINTR)
            continue;
        if (rc == -1) {
            zmq_msg_close (&message);
            return 0;
        }
        more = zmq_msg_more (&message);
        if (count < REQUEST_FRAMES) {
            frame_t *frame = &frames[count];
            frame->size = zmq_msg_size (&message);
            if (frame->size > FRAME_LIMIT)
                frame->size = FRAME_LIMIT;
            memcpy (frame->data, zmq_msg_data (&message), frame->size);
            frame->data[frame->size] = 0;
        }
        count++;
        zmq_msg_close (&message);
    }
    return count;
}

static void
s_send (tl_zap_t *self, const void *data, size_t size, int more)
{
    while (zmq_send (self->socket, data, size, ZMQ_DONTWAIT | more) == -1 && errno == EINTR)
        continue;
}

static void
s_reply (tl_zap_t *self, const frame_t *id, const char *code, const char *text, const char *user)
{
    s_send (self, "1.0", 3, ZMQ_SNDMORE);
    s_send (self, id->data, id->size, ZMQ_SNDMORE);
    s_send (self, code, 3, ZMQ_SNDMORE);
    s_send (self, text, strlen (text), ZMQ_SNDMORE);
    s_send (self, user, strlen (user), ZMQ_SNDMORE);
    s_send (self, "", 0, 0);
}

static bool
s_is (const frame_t *frame, const char *text)
{
    return frame->size == strlen (text) && memcmp (frame->data, text, frame->size) == 0;
}

static const tl_key_t *
s_find (const tl_zap_t *self, const char *public_text)
{
    for (size_t i = 0; i < self->count; i++)
        if (strcmp (self->keys[i].public_text, public_text) == 0)
            return &self->keys[i];
    return NULL;
}

static bool
s_may (const char *role, const frame_t *domain)
{
    for (size_t i = 0; i < sizeof s_allowed / sizeof s_allowed[0]; i++)
        if (strcmp (s_allowed[i].role, role) == 0 && s_is (domain, s_allowed[i].domain))
            return true;
    return false;
}

static void
s_tell (tl_zap_t *self, const frame_t *address, const char *why)
{
    if (self->outsiders)
        tl_outsiders_tell (self->outsiders, address->data, why, tl_clock_ms ());
}

//  Judges a whole request. The status text goes to a peer who isn't trusted yet: it says nothing of
//  whom we know.
static void
s_answer (tl_zap_t *self, const frame_t frames[REQUEST_FRAMES])
{
    const frame_t *id = &frames[1], *domain = &frames[2], *address = &frames[3];
    char text[41], fingerprint[17], why[512];
    if (!s_is (&frames[5], "CURVE") || frames[6].size != KEY_SIZE ||
        zmq_z85_encode (text, (const uint8_t *)frames[6].data, KEY_SIZE) == NULL) {
        self->refused_unknown++;
        s_tell (self, address, "it showed no CURVE key");
        s_reply (self, id, "400", "no CURVE key", "");
        return;
    }
    tl_keys_fingerprint (text, fingerprint);
    const tl_key_t *key = s_find (self, text);
    if (key == NULL) {
        self->refused_unknown++;
        snprintf (why, sizeof why,
                  "its key %s on the %s socket is nobody's we know; if it belongs here, put its "
                  "public file into the keys directory and start the broker again",
                  fingerprint, domain->data);
        s_tell (self, address, why);
        s_reply (self, id, "400", "key not accepted", "");
    } else if (!s_may (key->role, domain)) {
        self->refused_role++;
        snprintf (why, sizeof why,
                  "its key %s is that of %s %s, who has no business on the %s socket", fingerprint,
                  key->role, key->name, domain->data);
        s_tell (self, address, why);
        s_reply (self, id, "400", "key not accepted", "");
    } else {
        char user[sizeof key->role + sizeof key->name];
        snprintf (user, sizeof user, "%s/%s", key->role, key->name);
        tl_debug ("accepted key %s at %s as %s (%s socket)", fingerprint, address->data, user,
                  domain->data);
        s_reply (self, id, "200", "OK", user);
    }
}

void
tl_zap_serve (tl_zap_t *self)
{
    frame_t frames[REQUEST_FRAMES];
    for (int count; (count = s_receive (self, frames)) > 0;) {
        //  libzmq reads nothing but well-formed replies with the request's own id
        if (count < 2)
            s_reply (self, &(frame_t){"", 0}, "500", "malformed request", "");
        else if (count != REQUEST_FRAMES || !s_is (&frames[0], "1.0"))
            s_reply (self, &frames[1], "500", "malformed request", "");
        else
            s_answer (self, frames);
    }
}

uint64_t
tl_zap_refused_unknown (const tl_zap_t *self)
{
    return self->refused_unknown;
}

uint64_t
tl_zap_refused_role (const tl_zap_t *self)
{
    return self->refused_role;
}
