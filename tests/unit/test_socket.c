//  Sockets between honest peers: identity, payloads, broken connections, limits, addresses.

#include "unit/socket_fixture.h"

#include <stdatomic.h>

enum { CHUNK = 1 << 20 };

static atomic_int s_freed_count;

//  Called by libzmq in whichever thread is the last to need a payload.
static void
s_free (void *data, void *hint)
{
    free (data);
    atomic_fetch_add (&s_freed_count, 1);
}

//  Payloads given back since this was asked for the last time.
static int
s_freed (void)
{
    return atomic_exchange (&s_freed_count, 0);
}

//  1 MiB that repeats only every 251 bytes.
static void
s_payload (zmq_msg_t *payload)
{
    uint8_t *data = malloc (CHUNK);
    for (size_t i = 0; i < CHUNK; i++)
        data[i] = (uint8_t)(i % 251);
    assert_int_equal (zmq_msg_init_data (payload, data, CHUNK, s_free, NULL), 0);
}

static void
s_expect_payload (tl_packet_t *packet)
{
    assert_true (packet->has_payload);
    assert_int_equal (zmq_msg_size (&packet->payload), CHUNK);
    const uint8_t *data = zmq_msg_data (&packet->payload);
    for (size_t i = 0; i < CHUNK; i++)
        if (data[i] != i % 251)
            fail_msg ("byte %zu is %d, expected %d", i, data[i], (int)(i % 251));
}

static void
test_identity_comes_from_the_key (void **state)
{
    net_t *net = *state;
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "control");
    const tl_pair_t *pairs[] = {&net->north, &net->trunk, &net->root};
    const char *users[] = {"client/north", "worker/trunk", "admin/root"};
    for (int i = 0; i < 3; i++) {
        tl_packet_t hello, answer;
        peer_t *dealer = loop_greet (loop, router, pairs[i], &hello);
        assert_string_equal (hello.user, users[i]);
        assert_true (hello.fd >= 0);
        assert_false (hello.has_payload);
        loop_say (router, &hello.routing, "welcome");
        answer = loop_packet (loop, dealer);
        loop_expect_text (&answer.envelope, "welcome");
        assert_string_equal (answer.user, "");
        assert_int_equal (answer.fd, -1);
        tl_packet_close (&hello);
        tl_packet_close (&answer);
    }
    loop_destroy (loop);
}

static void
test_a_chunk_goes_there_and_back_without_a_copy_here (void **state)
{
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t hello, there, back;
    zmq_msg_t payload;
    peer_t *dealer = loop_greet (loop, router, &loop->net->north, &hello);
    s_freed ();
    s_payload (&payload);
    assert_int_equal (tl_socket_send (dealer->socket, NULL, "chunk", 5, &payload), 0);
    there = loop_packet (loop, router);
    loop_expect_text (&there.envelope, "chunk");
    s_expect_payload (&there);
    //  The broker passes on the very frame that came
    assert_int_equal (tl_socket_send (router->socket, &hello.routing, "chunk", 5, &there.payload),
                      0);
    back = loop_packet (loop, dealer);
    s_expect_payload (&back);
    assert_int_equal (s_freed (), 1);
    tl_packet_close (&hello);
    tl_packet_close (&there);
    tl_packet_close (&back);
    loop_destroy (loop);
}

static void
test_bytes_are_counted_on_the_wire (void **state)
{
    enum { CHUNKS = 8 };
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t hello, packet;
    peer_t *dealer = loop_greet (loop, router, &loop->net->north, &hello);
    uint64_t before = tl_socket_bytes (dealer->socket);
    assert_in_range (before, 500, 2000); //  handshake and hello
    for (int i = 0; i < CHUNKS; i++) {
        zmq_msg_t payload;
        s_payload (&payload);
        assert_int_equal (tl_socket_send (dealer->socket, NULL, "chunk", 5, &payload), 0);
        packet = loop_packet (loop, router);
        assert_int_equal (
            tl_socket_send (router->socket, &hello.routing, "chunk", 5, &packet.payload), 0);
        tl_packet_close (&packet);
        packet = loop_packet (loop, dealer);
        tl_packet_close (&packet);
    }
    uint64_t bytes = tl_socket_bytes (dealer->socket) - before;
    assert_in_range (bytes, 2 * CHUNKS * CHUNK, 2 * CHUNKS * CHUNK * 1.001);
    assert_in_range (tl_socket_bytes (router->socket), bytes, bytes + 2000);
    //  What a closed connection carried still counts
    uint64_t total = tl_socket_bytes (router->socket);
    loop_drop (loop, dealer);
    loop_event (loop, router, TL_EVENT_DISCONNECTED);
    assert_in_range (tl_socket_bytes (router->socket), total, total + 2000);
    tl_packet_close (&hello);
    loop_destroy (loop);
}

//  --- connections that end

static void
test_a_broken_connection_comes_back_as_another_one (void **state)
{
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t first, second;
    peer_t *dealer = loop_greet (loop, router, &loop->net->north, &first);
    for (int side = 0; side < 2; side++) {
        int fd = first.fd;
        if (side == 1) {
            //  From the dealer's side its own descriptor is known from the event
            tl_socket_shutdown (first.fd);
            fd = loop_event (loop, dealer, TL_EVENT_DISCONNECTED).fd;
            assert_true (fd >= 0);
            fd = loop_event (loop, dealer, TL_EVENT_CONNECTED).fd;
            tl_socket_event_t lost = loop_event (loop, router, TL_EVENT_DISCONNECTED);
            assert_int_equal (lost.fd, first.fd);
            assert_int_equal (strncmp (lost.address, "127.0.0.1:", 10), 0);
        }
        tl_socket_shutdown (fd);
        loop_event (loop, dealer, TL_EVENT_DISCONNECTED);
        tl_socket_event_t again = loop_event (loop, dealer, TL_EVENT_CONNECTED);
        assert_string_equal (again.address, strrchr (tl_socket_endpoint (router->socket), '/') + 1);
        loop_say (dealer, NULL, "again");
        second = loop_packet (loop, router);
        assert_string_equal (second.user, "client/north");
        assert_int_not_equal (zmq_msg_size (&first.routing), 0);
        assert_memory_not_equal (zmq_msg_data (&first.routing), zmq_msg_data (&second.routing),
                                 zmq_msg_size (&first.routing));
        assert_int_equal (tl_socket_send (router->socket, &first.routing, "old", 3, NULL), -1);
        assert_int_equal (errno, EHOSTUNREACH);
        tl_packet_close (&first);
        first = second;
    }
    tl_packet_close (&first);
    loop_destroy (loop);
}

static void
test_what_cant_be_sent_stays_with_the_caller (void **state)
{
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t hello;
    zmq_msg_t payload;
    peer_t *dealer = loop_greet (loop, router, &loop->net->north, &hello);
    s_payload (&payload);
    loop_drop (loop, dealer);
    loop_event (loop, router, TL_EVENT_DISCONNECTED);
    //  The event comes a little before the ROUTER itself knows; what it still takes is lost, and is why
    //  links keep everything until it is released
    for (int64_t until = tl_clock_ms () + DEADLINE_MS;
         tl_socket_send (router->socket, &hello.routing, "late", 4, &payload) == 0;) {
        assert_true (tl_clock_ms () < until);
        s_payload (&payload);
    }
    assert_int_equal (errno, EHOSTUNREACH);
    assert_int_equal (zmq_msg_size (&payload), CHUNK);
    //  A dealer that nobody has answered yet
    dealer = loop_connect (loop, router, &loop->net->north);
    assert_int_equal (tl_socket_send (dealer->socket, NULL, "early", 5, &payload), -1);
    assert_int_equal (errno, EAGAIN);
    assert_int_equal (zmq_msg_size (&payload), CHUNK);
    zmq_msg_close (&payload);
    tl_packet_close (&hello);
    loop_destroy (loop);
}

static void
test_peers_may_start_before_the_broker (void **state)
{
    loop_t *loop = loop_new (*state, true);
    tl_error_t err = {0};
    peer_t *first = loop_bind (loop, "clients");
    char endpoint[256];
    snprintf (endpoint, sizeof endpoint, "%s", tl_socket_endpoint (first->socket));
    peer_t *dealer = loop_connect (loop, first, &loop->net->north);
    loop_event (loop, dealer, TL_EVENT_CONNECTED);
    loop_drop (loop, first);
    loop_event (loop, dealer, TL_EVENT_DISCONNECTED);
    loop_event (loop, dealer, TL_EVENT_RETRIED);
    //  libzmq closes a listener a little after zmq_close, so the port may need another try
    tl_socket_t *second = NULL;
    for (int64_t until = tl_clock_ms () + DEADLINE_MS; second == NULL;) {
        second = tl_socket_bind (loop->net->context, "clients", endpoint, "broker.clients",
                                 &loop->net->broker, WINDOW, &err);
        if (second == NULL)
            loop_turn (loop, until, "the port of the socket that was closed");
    }
    loop_add (loop, second, &err);
    loop_event (loop, dealer, TL_EVENT_CONNECTED);
    loop_destroy (loop);
}

//  --- limits

static void
test_a_peer_that_reads_nothing_is_noticed (void **state)
{
    enum { SIZE = 256 << 10, MOST = 4096 };
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t hello;
    peer_t *dealer = loop_greet (loop, router, &loop->net->north, &hello);
    zmq_msg_t payload, copy;
    int sent = 0, rc = 0;
    assert_int_equal (zmq_msg_init_size (&payload, SIZE), 0);
    memset (zmq_msg_data (&payload), 1, SIZE);
    dealer->deaf = true;
    zmq_msg_init (&copy);
    while (rc == 0 && sent < MOST) {
        assert_int_equal (zmq_msg_copy (&copy, &payload), 0);
        rc = tl_socket_send (router->socket, &hello.routing, "x", 1, &copy);
        sent += rc == 0;
    }
    assert_int_equal (rc, -1);
    assert_int_equal (errno, EAGAIN);
    assert_int_equal (zmq_msg_size (&copy), SIZE);
    assert_in_range (sent, WINDOW, MOST - 1);
    zmq_msg_close (&copy);
    zmq_msg_close (&payload);
    tl_packet_close (&hello);
    loop_destroy (loop);
}

static void
test_wrong_numbers_of_frames_are_dropped (void **state)
{
    net_t *net = *state;
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t hello, packet;
    peer_t *dealer = loop_greet (loop, router, &net->north, &hello);
    void *raw = tl_socket_zmq (dealer->socket);
    router->deaf = true;
    for (int frames = 3; frames < 6; frames++) {
        for (int i = 1; i <= frames; i++)
            assert_int_equal (zmq_send (raw, "frame", 5, i < frames ? ZMQ_SNDMORE : 0), 5);
        zmq_pollitem_t item = {tl_socket_zmq (router->socket), 0, ZMQ_POLLIN, 0};
        assert_int_equal (zmq_poll (&item, 1, DEADLINE_MS), 1);
        assert_int_equal (tl_socket_receive (router->socket, &packet), -1);
        assert_int_equal (errno, EPROTO);
    }
    router->deaf = false;
    loop_say (dealer, NULL, "good");
    packet = loop_packet (loop, router);
    loop_expect_text (&packet.envelope, "good");
    tl_packet_close (&packet);
    tl_packet_close (&hello);
    loop_destroy (loop);
}

static void
test_a_frame_that_is_too_large_ends_the_connection (void **state)
{
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t hello, packet;
    zmq_msg_t payload;
    peer_t *dealer = loop_greet (loop, router, &loop->net->north, &hello);
    assert_int_equal (zmq_msg_init_size (&payload, 3 * CHUNK), 0);
    memset (zmq_msg_data (&payload), 1, 3 * CHUNK);
    assert_int_equal (tl_socket_send (dealer->socket, NULL, "big", 3, &payload), 0);
    assert_int_equal (loop_event (loop, router, TL_EVENT_DISCONNECTED).fd, hello.fd);
    loop_event (loop, dealer, TL_EVENT_DISCONNECTED);
    loop_event (loop, dealer, TL_EVENT_CONNECTED);
    loop_say (dealer, NULL, "small");
    packet = loop_packet (loop, router);
    loop_expect_text (&packet.envelope, "small");
    tl_packet_close (&packet);
    tl_packet_close (&hello);
    loop_destroy (loop);
}

//  --- addresses

static void
s_expect_bind_failure (net_t *net, const char *endpoint, const char *words)
{
    tl_error_t err = {0};
    assert_null (tl_socket_bind (net->context, "control", endpoint, "broker.control", &net->broker,
                                 WINDOW, &err));
    assert_int_equal (err.code, TL_BAD_INPUT);
    if (strstr (err.text, words) == NULL || strstr (err.text, "broker.control") == NULL ||
        strstr (err.text, endpoint) == NULL)
        fail_msg ("expected a sentence of broker.control, %s and \"%s\", got \"%s\"", endpoint,
                  words, err.text);
}

static void
test_addresses_that_cant_be_had_get_a_sentence (void **state)
{
    net_t *net = *state;
    tl_error_t err = {0};
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "control");
    s_expect_bind_failure (net, tl_socket_endpoint (router->socket), "already in use");
    s_expect_bind_failure (net, "tcp://192.0.2.1:5570", "no network interface");
    s_expect_bind_failure (net, "tcp://127.0.0.1", "no endpoint to bind");
    s_expect_bind_failure (net, "tcp://127.0.0.1:123456", "no endpoint to bind");
    s_expect_bind_failure (net, "nonsense", "no endpoint to bind");
    s_expect_bind_failure (net, "inproc://control", "no endpoint to bind");
    s_expect_bind_failure (net, "tcp://127.0.0.1:65536", "no endpoint to bind");
    s_expect_bind_failure (net, "tcp://127.0.0.1:0", "no endpoint to bind");
    s_expect_bind_failure (net, "tcp://no such host:5570", "can't be bound");
    assert_null (tl_socket_connect (net->context, "tcp:/127.0.0.1:5570", &net->north,
                                    net->broker.public_text, WINDOW, &err));
    assert_non_null (strstr (err.text, "no endpoint to connect to"));
    assert_null (tl_socket_connect (net->context, "tcp://127.0.0.1:5570", &net->north, "short",
                                    WINDOW, &err));
    assert_non_null (strstr (err.text, "keys made by trunkline keys"));
    loop_destroy (loop);
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, net_setup, net_teardown)

int
main (void)
{
    const struct CMUnitTest tests[] = {
        TEST (test_identity_comes_from_the_key),
        TEST (test_a_chunk_goes_there_and_back_without_a_copy_here),
        TEST (test_bytes_are_counted_on_the_wire),
        TEST (test_a_broken_connection_comes_back_as_another_one),
        TEST (test_what_cant_be_sent_stays_with_the_caller),
        TEST (test_peers_may_start_before_the_broker),
        TEST (test_a_peer_that_reads_nothing_is_noticed),
        TEST (test_wrong_numbers_of_frames_are_dropped),
        TEST (test_a_frame_that_is_too_large_ends_the_connection),
        TEST (test_addresses_that_cant_be_had_get_a_sentence),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
