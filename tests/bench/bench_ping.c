/*  bench_ping TOPOLOGY: asks a running broker with the administrator's key, every 10 ms, on its control socket: PING, and
    how long until PONG. Ends when the broker says BYE, and prints one JSON object.                  */

#include "actors/agreement.h"
#include "actors/credentials.h"
#include "bench/bench_run.h"
#include "clock.h"
#include "memory.h"
#include "messages/messages.h"
#include "net/socket.h"
#include "topology/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVERY_MS = 10, MOST = 1 << 18, PATIENCE_MS = 60000 };

typedef struct {
    tl_socket_t *control;
    uint64_t run;
    bool welcome, over;
    uint64_t nonce, answered; //  of the last PING, of the last PONG
} s_ping_t;

static void
s_say (s_ping_t *self, tl_message_t *message)
{
    size_t size;
    message->run = self->run;
    snprintf (message->sender, sizeof message->sender, "admin");
    void *frame = tl_message_encode (message, &size);
    tl_socket_send (self->control, NULL, frame, size, NULL);
    free (frame);
}

static void
s_hello (s_ping_t *self, const tl_topology_t *topology)
{
    tl_agreements_t agreements;
    tl_agreements_make (&agreements, topology, TL_AGREE_NAME);
    tl_message_t hello;
    tl_message_init (&hello, TL_HELLO);
    hello.body.hello.role = "admin";
    hello.body.hello.process = (uint64_t)tl_clock_us ();
    hello.body.hello.agreements = agreements.items;
    hello.body.hello.agreements_count = agreements.count;
    hello.body.hello.window_bytes = TL_CHUNK_MOST;
    hello.body.hello.window_messages = 1;
    s_say (self, &hello);
    tl_agreements_clear (&agreements);
}

//  Nothing may be sent before the connection stands.
static void
s_connect (s_ping_t *self)
{
    tl_socket_event_t event;
    zmq_pollitem_t monitor = {.socket = tl_socket_monitor (self->control), .events = ZMQ_POLLIN};
    int64_t deadline = tl_clock_ms () + PATIENCE_MS;
    while (tl_clock_ms () < deadline) {
        zmq_poll (&monitor, 1, PATIENCE_MS);
        while (tl_socket_event (self->control, &event) == 1)
            if (event.event == TL_EVENT_CONNECTED)
                return;
    }
}

//  One message, if there is one within ms.
static void
s_listen (s_ping_t *self, int64_t ms)
{
    zmq_pollitem_t item = {.socket = tl_socket_zmq (self->control), .events = ZMQ_POLLIN};
    tl_packet_t packet;
    tl_message_t message;
    tl_error_t err;
    if (zmq_poll (&item, 1, ms > 0 ? ms : 0) < 1 || tl_socket_receive (self->control, &packet) != 1)
        return;
    if (tl_message_decode (&message, zmq_msg_data (&packet.envelope),
                           zmq_msg_size (&packet.envelope), &err) == 0) {
        if (message.type == TL_WELCOME) {
            self->welcome = true;
            self->run = message.run;
        } else if (message.type == TL_PONG)
            self->answered = message.body.pong.nonce;
        else if (message.type == TL_BYE || message.type == TL_REFUSED)
            self->over = true;
        else if (message.type == TL_PING) {
            tl_message_t pong;
            tl_message_init (&pong, TL_PONG);
            pong.body.pong.nonce = message.body.ping.nonce;
            s_say (self, &pong);
        }
        tl_message_clear (&message);
    }
    tl_packet_close (&packet);
}

//  Asks until the end; returns how many were answered.
static size_t
s_ask (s_ping_t *self, double *times)
{
    size_t count = 0;
    while (!self->over && count < MOST) {
        int64_t sent = tl_clock_us (), deadline = sent / 1000 + PATIENCE_MS;
        tl_message_t ping;
        tl_message_init (&ping, TL_PING);
        ping.body.ping.nonce = ++self->nonce;
        s_say (self, &ping);
        while (!self->over && self->answered != self->nonce && tl_clock_ms () < deadline)
            s_listen (self, deadline - tl_clock_ms ());
        if (self->answered == self->nonce)
            times[count++] = (double)(tl_clock_us () - sent) / 1000;
        else if (!self->over)
            break;
        while (!self->over && tl_clock_us () < sent + EVERY_MS * 1000)
            s_listen (self, EVERY_MS - (tl_clock_us () - sent) / 1000);
    }
    return count;
}

int
main (int argc, char **argv)
{
    tl_error_t err;
    tl_topology_t *topology = argc == 2 ? tl_topology_read (argv[1], NULL, 0, &err) : NULL;
    tl_pair_t pair;
    char broker[41];
    if (!topology || tl_credentials_read (topology, "admin", "admin", &pair, broker, &err)) {
        fprintf (stderr, "%s\n", topology ? err.text : "usage: bench_ping TOPOLOGY");
        return TL_BAD_INPUT;
    }
    void *context = zmq_ctx_new ();
    s_ping_t self = {0};
    self.control = tl_socket_connect (context, topology->broker.control, &pair, broker, 64, &err);
    s_connect (&self);
    s_hello (&self, topology);
    int64_t deadline = tl_clock_ms () + PATIENCE_MS;
    while (!self.welcome && !self.over && tl_clock_ms () < deadline)
        s_listen (&self, deadline - tl_clock_ms ());
    double *times = tl_alloc (MOST * sizeof *times);
    size_t count = self.welcome ? s_ask (&self, times) : 0;
    if (count)
        printf ("{\"event\": \"ping\", \"count\": %zu, \"p50_ms\": %.4f, \"p99_ms\": %.4f, "
                "\"most_ms\": %.4f}\n",
                count, bench_quantile (times, count, 0.5), bench_quantile (times, count, 0.99),
                bench_quantile (times, count, 1));
    free (times);
    tl_socket_destroy (&self.control);
    zmq_ctx_term (context);
    tl_topology_destroy (&topology);
    return count ? 0 : TL_FAILED;
}
