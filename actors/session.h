/*  session: the broker's table of who is here. One session is one process of one peer; it survives TCP
    reconnects (its routing ids change, its link stays) and dies by BYE, expiry, violation or a newer
    process of the same peer.                                                                       */

#ifndef TL_SESSION_H
#define TL_SESSION_H

#include "net/link.h"
#include "net/socket.h"

typedef struct _zhashx_t zhashx_t; //  czmq.h's

typedef enum {
    TL_ROLE_CLIENT,
    TL_ROLE_WORKER,
    TL_ROLE_READER,
    TL_ROLE_AGGREGATOR,
    TL_ROLE_ADMIN
} tl_role_t;

//  One of a session's two connections. It is looked up by routing id and the User-Id that came with it: the ids of two
//  sockets may be equal.
typedef struct {
    zmq_msg_t routing; //  routing id of the attached connection, or of the last one
    const char *user;  //  the session's
    bool known;        //  routing is set
    bool attached;     //  the connection is up
    int fd;            //  TCP socket it came from, -1 if unknown
} tl_road_t;

typedef struct tl_session {
    struct tl_session *next, *before;
    uint64_t serial; //  1, 2, ...: never used twice
    uint8_t id[16];  //  secret of this session
    tl_role_t role;
    char name[64];    //  as proven by the key
    char label[64];   //  how messages name it: name, or name/serial for a reader
    char user[80];    //  User-Id of all its messages
    uint64_t process; //  of its HELLO
    int index;        //  in the topology's clients (or workers), -1 for readers and admins
    tl_road_t control, data;
    tl_link_t *link;                          //  NULL for admins
    bool ready;                               //  attached on data once: takes part
    bool told;                                //  BYE as all ended
    bool dismissed;                           //  was told that the run is over: it hangs up
    int64_t heard;                            //  last traffic, monotonic ms
    int64_t pinged;                           //  last PING of ours
    int64_t broken;                           //  since when a connection is down, 0: both are up
    int64_t since;                            //  wall ms of the HELLO
    uint64_t granted_bytes, granted_messages; //  window, both ways
    uint64_t rows, longest; //  of a client's largest micro and longest sequence, as it says
    uint64_t late;          //  step that it was last told is over, +1; 0: none
    uint64_t bytes;         //  payload bytes that came from it
    uint64_t released;      //  of our messages, when its link was last seen moving on
    int64_t moved;          //  monotonic ms of that, 0: never looked
    uint64_t *asked; //  [asked_room] ring of its FORWARDs' sequences that are not answered yet
    size_t asked_room, asked_first, asked_count;
    size_t server;     //  worker that those went to
    uint64_t merging;  //  step of the merge that it was asked to send its part for, +1; 0: none
    size_t member;     //  place of that part among the merge's members
    size_t summand;    //  place of its gradient in the open step's sum
    uint64_t reminded; //  the aggregator's: RESTOREs that it may still answer
    void *owner;       //  the broker: for the link's callbacks
} tl_session_t;

//  Every message needs a session or two, so each way to one is a table: nothing here looks through all of them.
typedef struct {
    tl_session_t *first, *last; //  in the order of their HELLOs
    uint64_t serials;           //  last one given
    zhashx_t *ids, *numbers;    //  by secret id; by serial
    zhashx_t *labels;           //  clients and readers by label
    zhashx_t *controls, *datas; //  by road, also of closed ones
    tl_session_t **trainers;    //  [trainer_room] clients by index
    tl_session_t **workers;     //  [worker_room] by index
    size_t trainer_room, worker_room;
    tl_session_t *aggregator;
} tl_sessions_t;

//  New session with a random id, or the ends of the table's life. index: in the topology's clients or workers, -1 for
//  readers and admins. Nobody else of that role and index is in the table.
tl_session_t *tl_sessions_add (tl_sessions_t *self, tl_role_t role, const char *name,
                               const char *user, int index);
void tl_sessions_remove (tl_sessions_t *self, tl_session_t *session);
void tl_sessions_clear (tl_sessions_t *self);

tl_session_t *tl_sessions_by_id (tl_sessions_t *self, const uint8_t *id, size_t size);
tl_session_t *tl_sessions_by_serial (tl_sessions_t *self, uint64_t serial);
tl_session_t *tl_sessions_by_label (tl_sessions_t *self, const char *label); //  clients, readers
tl_session_t *tl_sessions_by_client (tl_sessions_t *self, int index);        //  trainers only
tl_session_t *tl_sessions_by_worker (tl_sessions_t *self, int index);
tl_session_t *tl_sessions_aggregator (tl_sessions_t *self); //  ready or not
//  By the User-Id and routing id of a packet on the control or a data socket.
tl_session_t *tl_sessions_by_route (tl_sessions_t *self, bool control, const char *user,
                                    const zmq_msg_t *routing);

//  A FORWARD was passed on; its memory is the worker's until it is answered, so it isn't released yet.
void tl_session_asked (tl_session_t *self, uint64_t sequence);
uint64_t tl_session_answered (tl_session_t *self); //  takes the oldest one out; 0 if there is none

//  The same of the last control connection, also if that is closed: its last words may be read after its end.
tl_session_t *tl_sessions_by_last_route (tl_sessions_t *self, const char *user,
                                         const zmq_msg_t *routing);

//  The connection of that routing id is the session's from now on, and nobody else's.
void tl_sessions_attach (tl_sessions_t *self, tl_session_t *session, bool control,
                         const zmq_msg_t *routing, int fd);
void tl_road_close (tl_road_t *self);
const char *tl_role_name (tl_role_t role);
//  Its data connection is to broker.workers.
static inline bool
tl_role_behind (tl_role_t role)
{
    return role == TL_ROLE_WORKER || role == TL_ROLE_AGGREGATOR;
}

#endif
