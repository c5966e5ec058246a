//  peer_session: how a peer comes to a session with the broker and keeps it: it greets, attaches its connections, is refused,
//  loses it and begins again; and what its timer and its connections' events have to do with that. Messages of a session
//  that stands are peer.c's.

#include "actors/peer_internal.h"
#include "clock.h"
#include "log.h"

#include <sodium.h>
#include <string.h>

enum {
    MOST_PATIENCE_MS = 4000, //  HELLO after more than TL_PEER_RETRY_MS, the oftener it was said
    OTHER_KEYS = 3,          //  times in a row that the broker hung up on our first word
    TAKEN_PERIODS = 2,       //  whoever still has our name after so many expiry times is alive
    GIVE_UP_PERIODS = 6 //  a broker that was there and is silent for so many expiry times is gone
};

//  --- session ----------------------------------------------------------------------------------

//  A broker that a thousand peers greet at once answers late; to say it again soon, or all at once, would make it later still.
static void
s_hello (tl_peer_t *self)
{
    self->again =
        tl_clock_ms () + self->patience + randombytes_uniform ((uint32_t)self->patience / 2 + 1);
    self->patience = self->patience < MOST_PATIENCE_MS ? 2 * self->patience : self->patience;
    tl_message_t hello;
    tl_message_init (&hello, TL_HELLO);
    hello.body.hello.role = self->config.role;
    hello.body.hello.process = self->process;
    hello.body.hello.agreements = self->agreements;
    hello.body.hello.agreements_count = self->config.agreement_count;
    hello.body.hello.window_bytes = self->config.window_bytes;
    hello.body.hello.window_messages = self->config.window_messages;
    hello.body.hello.rows = self->config.rows;
    hello.body.hello.longest = self->config.longest;
    tl_peer_control (self, &hello);
}

void
tl_peer_attach (tl_peer_t *self, tl_socket_t *socket)
{
    tl_message_t attach;
    tl_message_init (&attach, TL_ATTACH);
    attach.body.attach.session = self->session;
    attach.body.attach.session_size = sizeof self->session;
    attach.body.attach.received = self->link ? tl_link_received (self->link) : 0;
    tl_peer_put (self, socket, &attach);
}

static int
s_link_send (void *arg, const void *envelope, size_t size, zmq_msg_t *payload)
{
    tl_peer_t *self = arg;
    self->spoke = tl_clock_ms ();
    return tl_socket_send (self->data, NULL, envelope, size, payload);
}

//  The session is gone, and with it whatever was under way.
static void
s_forget (tl_peer_t *self, const char *why)
{
    tl_warn ("session lost: %s", why);
    tl_peer_phase (self, TL_PEER_GREETING, "lost");
    self->patience = TL_PEER_RETRY_MS;
    self->again = 0;
    tl_link_destroy (&self->link);
    self->broke = false;
    self->began = tl_clock_ms ();
    self->config.on_lost (self->config.arg);
}

//  The broker doesn't know our session (any more): begin again.
void
tl_peer_lost (tl_peer_t *self, const char *why)
{
    if (self->phase == TL_PEER_GREETING || self->phase == TL_PEER_OVER)
        return;
    s_forget (self, why);
    s_hello (self);
}

void
tl_peer_on_welcome (tl_peer_t *self, const tl_message_t *message)
{
    if (self->phase == TL_PEER_OVER || message->body.welcome.session_size != sizeof self->session)
        return;
    bool same = memcmp (self->session, message->body.welcome.session, sizeof self->session) == 0;
    if (self->phase != TL_PEER_GREETING && same)
        return;
    //  It came to a HELLO that we repeated too early: the broker has made a new session of it, and ended the one before.
    if (self->phase != TL_PEER_GREETING)
        s_forget (self, "a repeated HELLO made a new one");
    memcpy (self->session, message->body.welcome.session, sizeof self->session);
    if (self->run && self->run != message->run)
        tl_warn ("the broker at %s began a new run, %s: what was trained in the run before is not "
                 "part of it",
                 tl_socket_endpoint (self->control), self->topology->name);
    self->run = message->run;
    self->step = message->step;
    self->ping_ms = (int64_t)message->body.welcome.ping_ms;
    self->expire_ms = (int64_t)message->body.welcome.expire_ms;
    self->met = true;
    self->taken = 0;
    tl_link_destroy (&self->link);
    if (!self->data) {
        tl_peer_phase (self, TL_PEER_LIVE, "WELCOME");
        self->config.on_ready (self->config.arg);
        return;
    }
    self->link = tl_link_new (self->config.window_bytes, self->config.window_messages, s_link_send,
                              NULL, self);
    tl_link_window (self->link, message->body.welcome.window_bytes,
                    message->body.welcome.window_messages);
    tl_peer_phase (self, TL_PEER_ATTACHING, "WELCOME");
    tl_peer_attach (self, self->data);
}

void
tl_peer_on_invalid (tl_peer_t *self, const tl_message_t *message, tl_socket_t *socket)
{
    //  Said of an earlier session: both of its connections asked, and one answer was enough.
    size_t size = message->body.invalid.session_size;
    if (size && (size != sizeof self->session ||
                 memcmp (message->body.invalid.session, self->session, size) != 0))
        return;
    if (message->body.invalid.expired)
        tl_peer_lost (self, message->body.invalid.text);
    else if (self->phase == TL_PEER_ATTACHING || self->phase == TL_PEER_LIVE) {
        tl_debug ("%s: attaching again", message->body.invalid.text);
        if (socket == self->data)
            tl_link_detach (self->link);
        tl_peer_attach (self, socket);
    }
}

void
tl_peer_on_attached (tl_peer_t *self, const tl_message_t *message, tl_socket_t *socket)
{
    if (socket != self->data || (self->phase != TL_PEER_ATTACHING && self->phase != TL_PEER_LIVE))
        return;
    if (tl_link_attach (self->link, message->body.attached.received)) {
        tl_peer_lost (self, "the broker has seen messages that were never sent");
        return;
    }
    if (self->phase == TL_PEER_ATTACHING) {
        tl_peer_phase (self, TL_PEER_LIVE, "ATTACHED");
        tl_log (strcmp (self->config.role, "reader") == 0 ? TL_LOG_DEBUG : TL_LOG_INFO,
                "admitted by the broker at %s as %s %s: %s, after %llu steps",
                tl_socket_endpoint (self->control), self->config.role, self->config.name,
                self->topology->name, (unsigned long long)self->step);
        self->config.on_ready (self->config.arg);
    } else if (self->broke) {
        self->broke = false;
        tl_info ("connected again: the session goes on where it was");
    }
}

//  Our name is connected already: by a process that is gone, which the broker will see, or by one that lives.
static void
s_on_taken (tl_peer_t *self, const char *why)
{
    int64_t now = tl_clock_ms ();
    self->met = true;
    self->taken = self->taken ? self->taken : now;
    if (now - self->taken > TAKEN_PERIODS * self->expire_ms) {
        char text[512];
        snprintf (text, sizeof text,
                  "another process is connected to the broker at %s as %s %s, and alive for all of "
                  "the %lld s that this one has waited: leave it at that, or stop the other first",
                  tl_socket_endpoint (self->control), self->config.role, self->config.name,
                  (long long)(now - self->taken) / 1000);
        tl_peer_over (self, TL_CONNECTION, text);
    } else if (now - self->said > TL_PEER_SAY_WAITING_MS) {
        tl_info ("the broker says: %s (trying again)", why);
        self->said = now;
    }
}

void
tl_peer_on_refused (tl_peer_t *self, const tl_message_t *message)
{
    if (self->phase != TL_PEER_GREETING)
        return;
    if (message->body.refused.retry) {
        s_on_taken (self, message->body.refused.text);
        return;
    }
    char text[6144];
    snprintf (text, sizeof text, "the broker at %s refused %s %s: %s",
              tl_socket_endpoint (self->control), self->config.role, self->config.name,
              message->body.refused.text);
    tl_peer_over (self, TL_CONNECTION, text);
}

//  --- connections and time ---------------------------------------------------------------------

static void
s_other_key (tl_peer_t *self, const tl_socket_t *socket)
{
    char text[1024];
    snprintf (
        text, sizeof text,
        "the broker at %s holds another key than %s/broker.broker.key says: fetch the file of "
        "that name from the broker's keys directory, put it there and start again",
        tl_socket_endpoint (socket), self->topology->keys);
    tl_peer_over (self, TL_CONNECTION, text);
}

void
tl_peer_on_event (tl_peer_t *self, tl_socket_t *socket)
{
    tl_socket_event_t event;
    while (self->phase != TL_PEER_OVER && tl_socket_event (socket, &event) == 1)
        switch (event.event) {
        case TL_EVENT_CONNECTED:
            self->other_keys = 0;
            if (socket == self->control && self->phase == TL_PEER_GREETING) {
                self->patience = TL_PEER_RETRY_MS;
                s_hello (self);
            } else if (self->phase == TL_PEER_ATTACHING || self->phase == TL_PEER_LIVE) {
                if (socket == self->data)
                    tl_link_detach (self->link);
                tl_peer_attach (self, socket);
            }
            break;
        case TL_EVENT_DISCONNECTED:
            tl_debug ("connection to %s broke", tl_socket_endpoint (socket));
            if (socket == self->data && self->link) {
                self->broke = true;
                tl_link_detach (self->link);
            }
            break;
        case TL_EVENT_REFUSED: {
            char text[512];
            snprintf (text, sizeof text,
                      "the broker at %s refused the key of %s %s: put its public file into the "
                      "broker's keys directory and start again",
                      tl_socket_endpoint (socket), self->config.role, self->config.name);
            tl_peer_over (self, TL_CONNECTION, text);
            break;
        }
        case TL_EVENT_RETRIED:
            if (socket == self->control && self->config.on_nobody)
                self->config.on_nobody (self->config.arg);
            break;
        case TL_EVENT_OTHER_KEY:
            //  Once may be chance: a broker that was just ending
            if (++self->other_keys == OTHER_KEYS)
                s_other_key (self, socket);
            break;
        default:
            break;
        }
}

static void
s_say_waiting (tl_peer_t *self, int64_t now)
{
    if (now - self->said > TL_PEER_SAY_WAITING_MS && now - self->began > TL_PEER_RETRY_MS * 4) {
        tl_info ("waiting for the broker at %s", tl_socket_endpoint (self->control));
        self->said = now;
    }
}

void
tl_peer_on_timer (void *arg)
{
    tl_peer_t *self = arg;
    int64_t now = tl_clock_ms ();
    if (self->phase == TL_PEER_OVER)
        return;
    //  If it was us who slept, what the broker said in the meantime is still to be read.
    if (now - self->ticked > TL_PEER_RETRY_MS + self->expire_ms / 2)
        self->heard = now;
    self->ticked = now;
    if (self->met && now - self->heard > GIVE_UP_PERIODS * self->expire_ms) {
        char text[256];
        snprintf (text, sizeof text,
                  "the broker at %s has been silent for %lld s: look at its log, then start again",
                  tl_socket_endpoint (self->control), (long long)(now - self->heard) / 1000);
        tl_peer_over (self, TL_TIMEOUT, text);
        return;
    }
    if (self->phase == TL_PEER_GREETING) {
        s_say_waiting (self, now);
        tl_socket_redial (self->control);
        if (now >= self->again)
            s_hello (self);
        return;
    }
    //  A connection that broke off in its handshake is not tried again by itself.
    tl_socket_redial (self->control);
    if (self->data)
        tl_socket_redial (self->data);
    //  TL_PEER_LIVE and detached: the connection broke, and attaches when it is back; or it holds and something was refused or
    //  lost on it once, which nobody else would ever tell.
    if (self->phase == TL_PEER_ATTACHING || (self->link && !tl_link_attached (self->link)))
        tl_peer_attach (self, self->data);
    else if (self->link)
        tl_link_tick (self->link, true);
    if (now - self->spoke >= self->ping_ms || now - self->heard >= self->ping_ms) {
        tl_message_t ping;
        tl_message_init (&ping, TL_PING);
        ping.body.ping.nonce = (uint64_t)now;
        tl_peer_control (self, &ping);
    }
}
