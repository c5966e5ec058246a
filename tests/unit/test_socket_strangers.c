//  Sockets and those who should not be there: no key, no CURVE, no ZMTP, no handler to ask.

#include "unit/socket_fixture.h"

//  First 64 bytes of a ZMTP 3.0 peer of some mechanism.
static void
s_greeting (uint8_t bytes[64], const char *mechanism)
{
    memset (bytes, 0, 64);
    bytes[0] = 0xff;
    bytes[8] = 1;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    memcpy (bytes + 12, mechanism, strlen (mechanism));
}

//  Expects that whoever sends these bytes is reported once, with its address, and put out.
static void
s_expect_plain (loop_t *loop, peer_t *router, const void *bytes, size_t size)
{
    char address[64], byte;
    int fd = loop_tcp (router, address);
    assert_int_equal (write (fd, bytes, size), size);
    tl_socket_event_t event = loop_event (loop, router, TL_EVENT_PLAIN);
    assert_string_equal (event.address, address);
    while (read (fd, &byte, 1) > 0) //  until it is put out
        continue;
    close (fd);
    assert_int_equal (loop_count (router, TL_EVENT_PLAIN), 0);
    assert_int_equal (router->packet_count, 0);
}

static void
test_what_is_not_curve_is_reported_with_its_address (void **state)
{
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "control");
    const char *http = "GET / HTTP/1.1\r\nHost: broker\r\n\r\n";
    uint8_t greeting[64];
    const char *mechanisms[] = {"NULL", "PLAIN", "GSSAPI", "CURVED", ""};
    for (int round = 0; round < 2; round++) {
        s_expect_plain (loop, router, http, strlen (http));
        s_expect_plain (loop, router, "x", 1);
        for (size_t i = 0; i < sizeof mechanisms / sizeof mechanisms[0]; i++) {
            s_greeting (greeting, mechanisms[i]);
            s_expect_plain (loop, router, greeting, sizeof greeting);
        }
        //  ZMTP 1 and 2 have no mechanisms at all
        uint8_t old[12] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1, 5};
        s_expect_plain (loop, router, old, sizeof old);
        old[10] = 0;
        s_expect_plain (loop, router, old, sizeof old);
        //  CURVE by name, and then no HELLO of it
        uint8_t fake[64 + 10] = {0};
        s_greeting (fake, "CURVE");
        memcpy (fake + 64, "\x04\x08\x05HELLO??", 10);
        s_expect_plain (loop, router, fake, sizeof fake);
    }
    loop_destroy (loop);
}

static void
test_a_plain_zeromq_peer_gets_nothing_through (void **state)
{
    net_t *net = *state;
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "clients");
    void *plain = zmq_socket (net->context, ZMQ_DEALER);
    int linger = 0;
    assert_int_equal (zmq_setsockopt (plain, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal (zmq_connect (plain, tl_socket_endpoint (router->socket)), 0);
    assert_int_equal (zmq_send (plain, "hello", 5, 0), 5);
    tl_socket_event_t event = loop_event (loop, router, TL_EVENT_PLAIN);
    assert_int_equal (strncmp (event.address, "127.0.0.1:", 10), 0);
    assert_int_equal (router->packet_count, 0);
    //  Others go on as before
    tl_packet_t hello;
    loop_greet (loop, router, &net->north, &hello);
    assert_string_equal (hello.user, "client/north");
    tl_packet_close (&hello);
    zmq_close (plain);
    loop_destroy (loop);
}

static void
test_those_who_leave_without_a_word_are_reported_too (void **state)
{
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "control");
    for (int i = 0; i < 6; i++) {
        char address[64];
        int fd = loop_tcp (router, address);
        if (i % 2)
            assert_int_equal (write (fd, "\xff", 1), 1); //  as ZMTP begins, and no more
        close (fd);
        assert_string_equal (loop_event (loop, router, TL_EVENT_PLAIN).address, address);
    }
    assert_int_equal (router->event_count, 0);
    loop_destroy (loop);
}

static void
test_many_strangers_at_once_are_each_named (void **state)
{
    enum { MANY = 40 };
    loop_t *loop = loop_new (*state, true);
    peer_t *router = loop_bind (loop, "control");
    char addresses[MANY][64];
    int fds[MANY];
    for (int i = 0; i < MANY; i++) {
        fds[i] = loop_tcp (router, addresses[i]);
        assert_int_equal (write (fds[i], "GET /\r\n\r\n", 9), 9);
        close (fds[i]);
    }
    for (int i = 0; i < MANY; i++) {
        tl_socket_event_t event = loop_event (loop, router, TL_EVENT_PLAIN);
        int at = 0;
        while (at < MANY && strcmp (addresses[at], event.address))
            at++;
        if (at == MANY)
            fail_msg ("\"%s\" isn't one of those who came, or was told twice", event.address);
        else
            addresses[at][0] = 0;
    }
    assert_int_equal (router->event_count, 0);
    loop_destroy (loop);
}

static void
test_peers_that_come_and_go_are_not_taken_for_plain_ones (void **state)
{
    net_t *net = *state;
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "clients");
    tl_packet_t hello;
    for (int i = 0; i < 4; i++) {
        //  With and without a word, and one whose key is refused
        peer_t *talker = loop_greet (loop, router, &net->north, &hello);
        peer_t *silent = loop_connect (loop, router, &net->north);
        loop_event (loop, silent, TL_EVENT_CONNECTED);
        peer_t *refused = loop_connect (loop, router, &net->stranger);
        loop_event (loop, refused, TL_EVENT_REFUSED);
        loop_drop (loop, talker);
        loop_event (loop, router, TL_EVENT_DISCONNECTED);
        loop_drop (loop, silent);
        loop_event (loop, router, TL_EVENT_DISCONNECTED);
        loop_drop (loop, refused);
        tl_packet_close (&hello);
        assert_int_equal (loop_count (router, TL_EVENT_PLAIN), 0);
    }
    s_expect_plain (loop, router, "GET /\r\n\r\n", 9);
    loop_destroy (loop);
}

static void
test_without_a_handler_nothing_gets_through (void **state)
{
    net_t *net = *state;
    loop_t *loop = loop_new (net, false);
    peer_t *router = loop_bind (loop, "clients");
    const tl_pair_t *pairs[] = {&net->north, &net->trunk, &net->stranger};
    peer_t *dealers[3];
    for (int i = 0; i < 3; i++)
        dealers[i] = loop_connect (loop, router, pairs[i]);
    //  libzmq closes some of these connections only when their time for a handshake is over: 10 seconds
    for (int i = 0; i < 3; i++) {
        loop_event (loop, dealers[i], TL_EVENT_FAILED);
        assert_int_equal (loop_count (dealers[i], TL_EVENT_CONNECTED), 0);
        assert_int_equal (loop_count (dealers[i], TL_EVENT_OTHER_KEY), 0);
        assert_int_equal (tl_socket_send (dealers[i]->socket, NULL, "hello", 5, NULL), -1);
        assert_int_equal (errno, EAGAIN);
    }
    assert_int_equal (router->packet_count, 0);
    loop_destroy (loop);
}

static void
test_a_peer_with_another_brokers_key_is_told_so (void **state)
{
    net_t *net = *state;
    tl_error_t err = {0};
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "clients");
    peer_t *dealer =
        loop_add (loop,
                  tl_socket_connect (net->context, tl_socket_endpoint (router->socket), &net->north,
                                     net->stranger.public_text, WINDOW, &err),
                  &err);
    //  Every time it dials, on both sides, and a plain stranger between them is one
    for (int i = 0; i < 3; i++) {
        loop_event (loop, dealer, TL_EVENT_OTHER_KEY);
        tl_socket_event_t event = loop_event (loop, router, TL_EVENT_OTHER_KEY);
        assert_int_equal (strncmp (event.address, "127.0.0.1:", 10), 0);
    }
    assert_int_equal (loop_count (router, TL_EVENT_PLAIN), 0);
    loop_drop (loop, dealer);
    s_expect_plain (loop, router, "GET /\r\n\r\n", 9);
    assert_int_equal (router->packet_count, 0);
    loop_destroy (loop);
}

static void
test_a_peer_that_finds_no_broker_dials_again_when_told (void **state)
{
    net_t *net = *state;
    tl_error_t err = {0};
    loop_t *loop = loop_new (net, true);
    //  Somebody else has the port: a plain ZeroMQ socket, which ends libzmq's own attempts
    char endpoint[256];
    size_t size = sizeof endpoint;
    void *other = zmq_socket (net->context, ZMQ_ROUTER);
    assert_int_equal (zmq_bind (other, "tcp://127.0.0.1:*"), 0);
    assert_int_equal (zmq_getsockopt (other, ZMQ_LAST_ENDPOINT, endpoint, &size), 0);
    peer_t *dealer = loop_add (loop,
                               tl_socket_connect (net->context, endpoint, &net->north,
                                                  net->broker.public_text, WINDOW, &err),
                               &err);
    for (int attempt = 0; attempt < 3; attempt++) {
        loop_event (loop, dealer, TL_EVENT_FAILED);
        int64_t until = tl_clock_ms () + DEADLINE_MS;
        while (tl_socket_redial (dealer->socket) == 0)
            loop_turn (loop, until, "the end of the failed connection");
    }
    zmq_close (other);
    loop_destroy (loop);
}

#define TEST(name)                                                                                 \
    cmocka_unit_test_setup_teardown (name, net_setup, net_teardown),                               \
        cmocka_unit_test_setup_teardown (name, net_setup_many, net_teardown)

int
main (void)
{
    const struct CMUnitTest tests[] = {
        TEST (test_what_is_not_curve_is_reported_with_its_address),
        TEST (test_a_plain_zeromq_peer_gets_nothing_through),
        TEST (test_those_who_leave_without_a_word_are_reported_too),
        TEST (test_many_strangers_at_once_are_each_named),
        TEST (test_peers_that_come_and_go_are_not_taken_for_plain_ones),
        TEST (test_without_a_handler_nothing_gets_through),
        TEST (test_a_peer_with_another_brokers_key_is_told_so),
        TEST (test_a_peer_that_finds_no_broker_dials_again_when_told),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
