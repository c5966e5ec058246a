#include "session.h"

#include "base/assert.h"
#include "clock.h"
#include "memory.h"

#include <czmq.h>
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

//  --- tables -----------------------------------------------------------------------------------

enum { SEED = 5381, ID_BYTES = sizeof ((tl_session_t *)NULL)->id };

static size_t
s_hash (size_t seed, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        seed = seed * 33 ^ bytes[i];
    return seed;
}

//  An id is random: any of its bytes will do.
static size_t
s_hash_id (const void *id)
{
    size_t hash;
    memcpy (&hash, id, sizeof hash);
    return hash;
}

static int
s_compare_ids (const void *left, const void *right)
{
    return sodium_memcmp (left, right, ID_BYTES);
}

static size_t
s_hash_number (const void *number)
{
    return s_hash (SEED, number, sizeof (uint64_t));
}

static int
s_compare_numbers (const void *left, const void *right)
{
    return memcmp (left, right, sizeof (uint64_t));
}

static size_t
s_hash_road (const void *key)
{
    const tl_road_t *road = key;
    zmq_msg_t *routing = (zmq_msg_t *)&road->routing;
    return s_hash (s_hash (SEED, road->user, strlen (road->user)), zmq_msg_data (routing),
                   zmq_msg_size (routing));
}

static int
s_compare_roads (const void *left, const void *right)
{
    const tl_road_t *one = left, *two = right;
    zmq_msg_t *ours = (zmq_msg_t *)&one->routing, *theirs = (zmq_msg_t *)&two->routing;
    return strcmp (one->user, two->user) != 0 || zmq_msg_size (ours) != zmq_msg_size (theirs) ||
           memcmp (zmq_msg_data (ours), zmq_msg_data (theirs), zmq_msg_size (ours)) != 0;
}

//  Keys are in the sessions themselves.
static zhashx_t *
s_table (zhashx_hash_fn *hash, zhashx_comparator_fn *compare)
{
    zhashx_t *table = zhashx_new ();
    tl_assert (table);
    zhashx_set_key_duplicator (table, NULL);
    zhashx_set_key_destructor (table, NULL);
    if (hash) {
        zhashx_set_key_hasher (table, hash);
        zhashx_set_key_comparator (table, compare);
    }
    return table;
}

static void
s_open (tl_sessions_t *self)
{
    if (self->ids)
        return;
    self->ids = s_table (s_hash_id, s_compare_ids);
    self->numbers = s_table (s_hash_number, s_compare_numbers);
    self->labels = s_table (NULL, NULL);
    self->controls = s_table (s_hash_road, s_compare_roads);
    self->datas = s_table (s_hash_road, s_compare_roads);
}

static void
s_insert (zhashx_t *table, const void *key, tl_session_t *session)
{
    int rc = zhashx_insert (table, key, session);
    tl_assert (rc == 0);
}

static bool
s_has_label (const tl_session_t *session)
{
    return session->role == TL_ROLE_CLIENT || session->role == TL_ROLE_READER;
}

//  The place of a client or worker in its array, which grows to hold it; NULL for others.
static tl_session_t **
s_place (tl_sessions_t *self, const tl_session_t *session)
{
    bool client = session->role == TL_ROLE_CLIENT;
    if (session->role == TL_ROLE_AGGREGATOR)
        return &self->aggregator;
    if (session->index < 0 || (!client && session->role != TL_ROLE_WORKER))
        return NULL;
    tl_session_t ***array = client ? &self->trainers : &self->workers;
    size_t *room = client ? &self->trainer_room : &self->worker_room;
    size_t index = (size_t)session->index;
    if (index >= *room) {
        size_t wanted = 2 * index + 16;
        tl_session_t **grown = tl_alloc (wanted * sizeof *grown);
        if (*room)
            memcpy (grown, *array, *room * sizeof *grown);
        free (*array);
        *array = grown;
        *room = wanted;
    }
    return &(*array)[index];
}

//  --- coming and going -------------------------------------------------------------------------

tl_session_t *
tl_sessions_add (tl_sessions_t *self, tl_role_t role, const char *name, const char *user, int index)
{
    s_open (self);
    tl_session_t *session = tl_alloc (sizeof *session);
    session->serial = ++self->serials;
    session->role = role;
    session->index = index;
    snprintf (session->name, sizeof session->name, "%s", name);
    snprintf (session->user, sizeof session->user, "%s", user);
    if (role == TL_ROLE_READER)
        snprintf (session->label, sizeof session->label, "%.40s/%llu", name,
                  (unsigned long long)session->serial);
    else
        snprintf (session->label, sizeof session->label, "%s", name);
    randombytes_buf (session->id, sizeof session->id);
    session->control.fd = session->data.fd = -1;
    session->control.user = session->data.user = session->user;
    session->heard = tl_clock_ms ();
    session->since = tl_clock_wall_ms ();
    session->before = self->last;
    *(self->last ? &self->last->next : &self->first) = session;
    self->last = session;
    s_insert (self->ids, session->id, session);
    s_insert (self->numbers, &session->serial, session);
    if (s_has_label (session))
        s_insert (self->labels, session->label, session);
    tl_session_t **place = s_place (self, session);
    if (place) {
        tl_assert (!*place);
        *place = session;
    }
    return session;
}

static void
s_forget (zhashx_t *table, tl_road_t *road)
{
    tl_road_close (road);
    if (!road->known)
        return;
    zhashx_delete (table, road);
    zmq_msg_close (&road->routing);
    road->known = false;
}

void
tl_sessions_remove (tl_sessions_t *self, tl_session_t *session)
{
    s_forget (self->controls, &session->control);
    s_forget (self->datas, &session->data);
    zhashx_delete (self->ids, session->id);
    zhashx_delete (self->numbers, &session->serial);
    if (s_has_label (session))
        zhashx_delete (self->labels, session->label);
    tl_session_t **place = s_place (self, session);
    if (place)
        *place = NULL;
    *(session->before ? &session->before->next : &self->first) = session->next;
    *(session->next ? &session->next->before : &self->last) = session->before;
    tl_link_destroy (&session->link);
    free (session->asked);
    sodium_memzero (session->id, sizeof session->id);
    free (session);
}

void
tl_sessions_clear (tl_sessions_t *self)
{
    while (self->first)
        tl_sessions_remove (self, self->first);
    zhashx_destroy (&self->ids);
    zhashx_destroy (&self->numbers);
    zhashx_destroy (&self->labels);
    zhashx_destroy (&self->controls);
    zhashx_destroy (&self->datas);
    free (self->trainers);
    free (self->workers);
    memset (self, 0, sizeof *self);
}

//  --- finding ----------------------------------------------------------------------------------

static tl_session_t *
s_find (zhashx_t *table, const void *key)
{
    return table ? zhashx_lookup (table, key) : NULL;
}

tl_session_t *
tl_sessions_by_id (tl_sessions_t *self, const uint8_t *id, size_t size)
{
    return size == ID_BYTES ? s_find (self->ids, id) : NULL;
}

tl_session_t *
tl_sessions_by_serial (tl_sessions_t *self, uint64_t serial)
{
    return s_find (self->numbers, &serial);
}

tl_session_t *
tl_sessions_by_label (tl_sessions_t *self, const char *label)
{
    return s_find (self->labels, label);
}

tl_session_t *
tl_sessions_by_client (tl_sessions_t *self, int index)
{
    return index >= 0 && (size_t)index < self->trainer_room ? self->trainers[index] : NULL;
}

tl_session_t *
tl_sessions_by_worker (tl_sessions_t *self, int index)
{
    return index >= 0 && (size_t)index < self->worker_room ? self->workers[index] : NULL;
}

tl_session_t *
tl_sessions_aggregator (tl_sessions_t *self)
{
    return self->aggregator;
}

static tl_session_t *
s_by_road (zhashx_t *table, const char *user, const zmq_msg_t *routing)
{
    tl_road_t key = {.user = user, .routing = *routing}; //  borrowed, and only looked at
    return s_find (table, &key);
}

tl_session_t *
tl_sessions_by_route (tl_sessions_t *self, bool control, const char *user, const zmq_msg_t *routing)
{
    tl_session_t *it = s_by_road (control ? self->controls : self->datas, user, routing);
    return it && (control ? &it->control : &it->data)->attached ? it : NULL;
}

tl_session_t *
tl_sessions_by_last_route (tl_sessions_t *self, const char *user, const zmq_msg_t *routing)
{
    return s_by_road (self->controls, user, routing);
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

void
tl_sessions_attach (tl_sessions_t *self, tl_session_t *session, bool control,
                    const zmq_msg_t *routing, int fd)
{
    zhashx_t *table = control ? self->controls : self->datas;
    tl_road_t *road = control ? &session->control : &session->data;
    s_forget (table, road);
    tl_session_t *other = s_by_road (table, session->user, routing);
    if (other)
        s_forget (table, control ? &other->control : &other->data);
    zmq_msg_init (&road->routing);
    zmq_msg_copy (&road->routing, (zmq_msg_t *)routing);
    road->known = road->attached = true;
    road->fd = fd;
    s_insert (table, road, session);
}
