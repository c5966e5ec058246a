#include "session.h"

#include "base/assert.h"
#include "clock.h"
#include "memory.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const s_roles[] = {"client", "worker", "reader", "aggregator", "admin"};

const char *
tl_role_name (tl_role_t role)
{
    return s_roles[role];
}

tl_session_t *
tl_sessions_add (tl_sessions_t *self, tl_role_t role, const char *name, const char *user)
{
    tl_session_t *session = tl_alloc (sizeof *session);
    session->serial = ++self->serials;
    session->role = role;
    snprintf (session->name, sizeof session->name, "%s", name);
    snprintf (session->user, sizeof session->user, "%s", user);
    if (role == TL_ROLE_READER)
        snprintf (session->label, sizeof session->label, "%.40s/%llu", name,
                  (unsigned long long)session->serial);
    else
        snprintf (session->label, sizeof session->label, "%s", name);
    randombytes_buf (session->id, sizeof session->id);
    session->control.fd = session->data.fd = -1;
    session->index = -1;
    session->heard = tl_clock_ms ();
    session->since = tl_clock_wall_ms ();
    tl_session_t **link = &self->first;
    while (*link)
        link = &(*link)->next;
    *link = session;
    return session;
}

static void s_forget (tl_road_t *self);

void
tl_sessions_remove (tl_sessions_t *self, tl_session_t *session)
{
    for (tl_session_t **link = &self->first; *link; link = &(*link)->next)
        if (*link == session) {
            *link = session->next;
            tl_link_destroy (&session->link);
            free (session->asked);
            s_forget (&session->control);
            s_forget (&session->data);
            sodium_memzero (session->id, sizeof session->id);
            free (session);
            return;
        }
    tl_assert (!"session is in the table");
}

void
tl_sessions_clear (tl_sessions_t *self)
{
    while (self->first)
        tl_sessions_remove (self, self->first);
}

#define FIND(condition)                                                                            \
    for (tl_session_t *it = self->first; it; it = it->next)                                        \
        if (condition)                                                                             \
            return it;                                                                             \
    return NULL

tl_session_t *
tl_sessions_by_id (tl_sessions_t *self, const uint8_t *id, size_t size)
{
    if (size != sizeof self->first->id)
        return NULL;
    FIND (sodium_memcmp (it->id, id, size) == 0);
}

tl_session_t *
tl_sessions_by_serial (tl_sessions_t *self, uint64_t serial)
{
    FIND (it->serial == serial);
}

tl_session_t *
tl_sessions_by_label (tl_sessions_t *self, const char *label)
{
    FIND (it->role != TL_ROLE_ADMIN && it->role != TL_ROLE_WORKER &&
          strcmp (it->label, label) == 0);
}

tl_session_t *
tl_sessions_by_role (tl_sessions_t *self, tl_role_t role, const char *name)
{
    FIND (it->role == role && strcmp (it->name, name) == 0);
}

tl_session_t *
tl_sessions_by_client (tl_sessions_t *self, int index)
{
    FIND (it->role == TL_ROLE_CLIENT && it->index == index);
}

tl_session_t *
tl_sessions_worker (tl_sessions_t *self)
{
    FIND (it->role == TL_ROLE_WORKER && it->ready);
}

static bool
s_same (const tl_road_t *road, const zmq_msg_t *routing)
{
    zmq_msg_t *theirs = (zmq_msg_t *)routing, *ours = (zmq_msg_t *)&road->routing;
    return road->known && zmq_msg_size (ours) == zmq_msg_size (theirs) &&
           memcmp (zmq_msg_data (ours), zmq_msg_data (theirs), zmq_msg_size (ours)) == 0;
}

tl_session_t *
tl_sessions_by_route (tl_sessions_t *self, bool control, const zmq_msg_t *routing)
{
    FIND ((control ? &it->control : &it->data)->attached &&
          s_same (control ? &it->control : &it->data, routing));
}

tl_session_t *
tl_sessions_by_last_route (tl_sessions_t *self, const zmq_msg_t *routing)
{
    FIND (s_same (&it->control, routing));
}

void
tl_session_asked (tl_session_t *self, uint64_t sequence)
{
    if (self->asked_count == self->asked_room) {
        size_t room = self->asked_room ? 2 * self->asked_room : 16;
        uint64_t *ring = tl_alloc (room * sizeof *ring);
        for (size_t i = 0; i < self->asked_count; i++)
            ring[i] = self->asked[(self->asked_first + i) % self->asked_room];
        free (self->asked);
        self->asked = ring;
        self->asked_room = room;
        self->asked_first = 0;
    }
    self->asked[(self->asked_first + self->asked_count++) % self->asked_room] = sequence;
}

uint64_t
tl_session_answered (tl_session_t *self)
{
    if (!self->asked_count)
        return 0;
    uint64_t sequence = self->asked[self->asked_first];
    self->asked_first = (self->asked_first + 1) % self->asked_room;
    self->asked_count--;
    return sequence;
}

void
tl_road_close (tl_road_t *self)
{
    self->attached = false;
    self->fd = -1;
}

static void
s_forget (tl_road_t *self)
{
    tl_road_close (self);
    if (self->known)
        zmq_msg_close (&self->routing);
    self->known = false;
}

void
tl_road_attach (tl_road_t *self, const zmq_msg_t *routing, int fd)
{
    s_forget (self);
    zmq_msg_init (&self->routing);
    zmq_msg_copy (&self->routing, (zmq_msg_t *)routing);
    self->known = self->attached = true;
    self->fd = fd;
}
