//  Who may connect where: every role on every socket, strangers, malformed requests.

#include "unit/socket_fixture.h"

//  Connects with a key to a socket of that domain; true if it got in.
static bool
s_gets_in (net_t *net, const char *domain, const tl_pair_t *own, const char *user)
{
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, domain), *dealer = loop_connect (loop, router, own);
    int64_t until = tl_clock_ms () + DEADLINE_MS;
    while (dealer->event_count == 0)
        loop_turn (loop, until, "an answer to a key");
    bool in = dealer->events[0].event == TL_EVENT_CONNECTED;
    if (in) {
        loop_say (dealer, NULL, "hello");
        tl_packet_t packet = loop_packet (loop, router);
        assert_string_equal (packet.user, user);
        tl_packet_close (&packet);
    } else {
        assert_int_equal (dealer->events[0].event, TL_EVENT_REFUSED);
        loop_event (loop, router, TL_EVENT_DENIED);
        assert_int_equal (tl_zap_refused_role (loop->zap), 1);
        assert_int_equal (tl_socket_send (dealer->socket, NULL, "hello", 5, NULL), -1);
        assert_int_equal (errno, EAGAIN);
        assert_int_equal (router->packet_count, 0);
    }
    loop_destroy (loop);
    return in;
}

static void
test_roles_get_into_their_own_domains_only (void **state)
{
    net_t *net = *state;
    const struct {
        const char *domain;
        bool client, worker, admin;
    } cases[] = {
        {"control", true, true, true},     {"clients", true, false, false},
        {"workers", false, true, false},   {"nowhere", false, false, false},
        {"control2", false, false, false}, {"contro", false, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *domain = cases[i].domain;
        assert_int_equal (s_gets_in (net, domain, &net->north, "client/north"), cases[i].client);
        assert_int_equal (s_gets_in (net, domain, &net->trunk, "worker/trunk"), cases[i].worker);
        assert_int_equal (s_gets_in (net, domain, &net->root, "admin/root"), cases[i].admin);
        assert_false (s_gets_in (net, domain, &net->broker, ""));
    }
}

static void
test_an_unknown_key_is_refused_and_counted (void **state)
{
    net_t *net = *state;
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "control");
    for (uint64_t i = 1; i <= 3; i++) {
        peer_t *dealer = loop_connect (loop, router, &net->stranger);
        loop_event (loop, dealer, TL_EVENT_REFUSED);
        loop_event (loop, router, TL_EVENT_DENIED);
        assert_int_equal (tl_zap_refused_unknown (loop->zap), i);
        loop_drop (loop, dealer);
    }
    assert_int_equal (tl_zap_refused_role (loop->zap), 0);
    assert_int_equal (router->packet_count, 0);
    loop_destroy (loop);
}

static void
test_many_peers_at_once (void **state)
{
    enum { MANY = 60 };
    net_t *net = *state;
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "clients"), *dealers[MANY];
    for (int i = 0; i < MANY; i++)
        dealers[i] = loop_connect (loop, router, i % 3 ? &net->north : &net->stranger);
    for (int i = 0; i < MANY; i++)
        loop_event (loop, dealers[i], i % 3 ? TL_EVENT_CONNECTED : TL_EVENT_REFUSED);
    assert_int_equal (tl_zap_refused_unknown (loop->zap), MANY / 3);
    loop_destroy (loop);
}

static void
test_a_key_that_is_added_gets_in_when_the_peer_dials_again (void **state)
{
    net_t *net = *state;
    tl_error_t err = {0};
    tl_pair_t late;
    char elsewhere[256];
    net_directory (elsewhere);
    net_make (elsewhere, "client", "late", &late);
    loop_t *loop = loop_new (net, true);
    peer_t *router = loop_bind (loop, "clients"), *dealer = loop_connect (loop, router, &late);
    loop_event (loop, dealer, TL_EVENT_REFUSED);
    loop_event (loop, router, TL_EVENT_DISCONNECTED);
    char *from = tl_format ("%s/client.late.key", elsewhere);
    char *to = tl_format ("%s/client.late.key", net->directory);
    assert_int_equal (rename (from, to), 0);
    tl_zap_destroy (&loop->zap);
    loop->zap = tl_zap_new (net->context, net->directory, NULL, &err);
    net_check (loop->zap == NULL, &err);
    int64_t until = tl_clock_ms () + DEADLINE_MS;
    while (tl_socket_redial (dealer->socket) == 0) //  1 once libzmq's own end of it was seen
        loop_turn (loop, until, "the end of the refused connection");
    assert_int_equal (tl_socket_redial (dealer->socket), 0);
    loop_event (loop, dealer, TL_EVENT_CONNECTED);
    assert_int_equal (tl_socket_redial (dealer->socket), 0);
    loop_say (dealer, NULL, "hello");
    tl_packet_t packet = loop_packet (loop, router);
    assert_string_equal (packet.user, "client/late");
    tl_packet_close (&packet);
    loop_destroy (loop);
    free (from);
    free (to);
    assert_int_equal (tl_remove_tree (elsewhere), 0);
}

//  --- requests that libzmq would not make

//  Sends frames as a ZAP request and returns the status of the answer, whose id must be the request's.
static int
s_ask (net_t *net, tl_zap_t *zap, size_t count, const char *const frames[], const size_t sizes[])
{
    void *request = zmq_socket (net->context, ZMQ_REQ);
    int timeout = DEADLINE_MS, linger = 0;
    assert_int_equal (zmq_setsockopt (request, ZMQ_LINGER, &linger, sizeof linger), 0);
    assert_int_equal (zmq_setsockopt (request, ZMQ_RCVTIMEO, &timeout, sizeof timeout), 0);
    assert_int_equal (zmq_connect (request, "inproc://zeromq.zap.01"), 0);
    for (size_t i = 0; i < count; i++)
        assert_int_equal (zmq_send (request, frames[i], sizes[i], i + 1 < count ? ZMQ_SNDMORE : 0),
                          sizes[i]);
    zmq_pollitem_t item = {tl_zap_socket (zap), 0, ZMQ_POLLIN, 0};
    assert_int_equal (zmq_poll (&item, 1, DEADLINE_MS), 1);
    tl_zap_serve (zap);
    char answer[6][300];
    for (int i = 0; i < 6; i++) {
        int size = zmq_recv (request, answer[i], sizeof answer[i] - 1, 0);
        assert_true (size >= 0 && size < (int)sizeof answer[i]);
        answer[i][size] = 0;
    }
    int more = 1;
    size_t room = sizeof more;
    assert_int_equal (zmq_getsockopt (request, ZMQ_RCVMORE, &more, &room), 0);
    assert_int_equal (more, 0);
    assert_string_equal (answer[0], "1.0");
    assert_string_equal (answer[1], count > 1 ? frames[1] : "");
    assert_string_equal (answer[5], "");
    int code = atoi (answer[2]);
    assert_int_equal (code == 200, *answer[4] != 0);
    zmq_close (request);
    return code;
}

static void
test_malformed_requests_are_answered_and_refused (void **state)
{
    net_t *net = *state;
    tl_error_t err = {0};
    tl_zap_t *zap = tl_zap_new (net->context, net->directory, NULL, &err);
    net_check (zap == NULL, &err);
    char key[33] = {0}, large[600];
    zmq_z85_decode ((uint8_t *)key, net->north.public_text);
    memset (large, 'c', sizeof large);
    const char *frames[] = {"1.0", "7", "clients", "1.2.3.4", "", "CURVE", key, "more"};
    size_t sizes[] = {3, 1, 7, 7, 0, 5, 32, 4};
    assert_int_equal (s_ask (net, zap, 7, frames, sizes), 200);
    for (size_t count = 1; count <= 6; count++)
        assert_int_equal (s_ask (net, zap, count, frames, sizes), 500);
    assert_int_equal (s_ask (net, zap, 8, frames, sizes), 500);
    const struct {
        size_t at, size;
        const char *text;
        int code;
    } cases[] = {
        {0, 3, "2.0", 500},    {0, 600, large, 500}, {2, 0, "", 400},     {2, 8, "clients\0", 400},
        {2, 600, large, 400},  {3, 600, large, 200}, {5, 4, "NULL", 400}, {5, 5, "PLAIN", 400},
        {5, 6, "CURVE2", 400}, {6, 31, key, 400},    {6, 33, key, 400},   {6, 0, "", 400},
        {6, 600, large, 400},  {6, 32, large, 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *changed[7];
        size_t changed_sizes[7];
        memcpy (changed, frames, sizeof changed);
        memcpy (changed_sizes, sizes, sizeof changed_sizes);
        changed[cases[i].at] = cases[i].text;
        changed_sizes[cases[i].at] = cases[i].size;
        assert_int_equal (s_ask (net, zap, 7, changed, changed_sizes), cases[i].code);
    }
    assert_int_equal (s_ask (net, zap, 7, frames, sizes), 200);
    tl_zap_destroy (&zap);
}

static void
test_a_broken_key_file_keeps_the_handler_from_starting (void **state)
{
    net_t *net = *state;
    tl_error_t err = {0};
    char *path = tl_format ("%s/client.broken.key", net->directory);
    net_check (tl_file_write (path, "what\n", 5, 0644, &err), &err);
    assert_null (tl_zap_new (net->context, net->directory, NULL, &err));
    assert_non_null (strstr (err.text, "client.broken.key"));
    assert_null (tl_zap_new (net->context, "nowhere/at/all", NULL, &err));
    assert_non_null (strstr (err.text, "nowhere/at/all"));
    free (path);
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, net_setup, net_teardown)

int
main (void)
{
    const struct CMUnitTest tests[] = {
        TEST (test_roles_get_into_their_own_domains_only),
        TEST (test_an_unknown_key_is_refused_and_counted),
        TEST (test_many_peers_at_once),
        TEST (test_a_key_that_is_added_gets_in_when_the_peer_dials_again),
        TEST (test_malformed_requests_are_answered_and_refused),
        TEST (test_a_broken_key_file_keeps_the_handler_from_starting),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
