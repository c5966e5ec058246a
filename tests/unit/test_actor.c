//  The reactor: timers, descriptors, and sockets whose news libzmq took in elsewhere.

#include "actors/actor.h"
#include "unit/socket_fixture.h"

#include <poll.h>
#include <sys/eventfd.h>

enum { MOST = 32 };

typedef struct {
    tl_actor_t *actor;
    loop_t *loop;
    peer_t *router, *dealer;
    tl_packet_t hello; //  the dealer's
    int fds[2];        //  eventfds
    int timer;
    int calls[MOST]; //  who was called, in order
    size_t count;
    bool late;
} s_test_t;

static const char *const s_states[] = {"up"};

static void
s_stop (void *arg)
{
}

static void
s_too_late (void *arg)
{
    s_test_t *test = arg;
    test->late = true;
    tl_actor_end (test->actor, 1);
}

static void
s_begin (s_test_t *test)
{
    test->actor = tl_actor_new ("test", s_states, s_stop, test);
    tl_actor_timer (test->actor, DEADLINE_MS, 1, s_too_late, test);
}

static void
s_run (s_test_t *test)
{
    tl_error_t err = {0};
    int code = tl_actor_run (test->actor, &err);
    if (test->late)
        fail_msg ("waited %d ms; %zu calls came", DEADLINE_MS, test->count);
    assert_int_equal (code, 0);
}

static void
s_note (s_test_t *test, int who)
{
    assert_true (test->count < MOST);
    test->calls[test->count++] = who;
}

//  --- timers

static void
s_on_third (void *arg)
{
    s_test_t *test = arg;
    s_note (test, 3);
    tl_actor_end (test->actor, 0);
}

static void
s_on_second (void *arg)
{
    s_test_t *test = arg;
    s_note (test, 2);
    tl_actor_cancel (test->actor, test->timer);
    tl_actor_timer (test->actor, 5, 1, s_on_third, test);
}

static void
s_on_first (void *arg)
{
    s_test_t *test = arg;
    s_note (test, 1);
}

static void
s_on_cancelled (void *arg)
{
    s_note (arg, 4);
}

static void
test_timers_come_in_order_and_as_often_as_asked (void **state)
{
    s_test_t test = {0};
    s_begin (&test);
    tl_actor_timer (test.actor, 200, 1, s_on_second, &test);
    tl_actor_timer (test.actor, 1, 2, s_on_first, &test);
    test.timer = tl_actor_timer (test.actor, 201, 0, s_on_cancelled, &test);
    s_run (&test);
    tl_actor_destroy (&test.actor);
    static const int expected[] = {1, 1, 2, 3};
    assert_int_equal (test.count, 4);
    assert_memory_equal (test.calls, expected, sizeof expected);
}

//  --- descriptors

//  Each forgets the other, which can be read in the same turn.
static void
s_on_one (s_test_t *test, int own)
{
    s_note (test, own);
    tl_actor_forget_fd (test->actor, test->fds[1 - own]);
    tl_actor_end (test->actor, 0);
}

static void
s_on_fd_0 (void *arg)
{
    s_on_one (arg, 0);
}

static void
s_on_fd_1 (void *arg)
{
    s_on_one (arg, 1);
}

static void
test_who_is_forgotten_is_not_called_any_more (void **state)
{
    s_test_t test = {.fds = {eventfd (1, EFD_CLOEXEC), eventfd (1, EFD_CLOEXEC)}};
    s_begin (&test);
    tl_actor_watch_fd (test.actor, test.fds[0], s_on_fd_0, &test);
    tl_actor_watch_fd (test.actor, test.fds[1], s_on_fd_1, &test);
    s_run (&test);
    assert_int_equal (test.count, 1);
    tl_actor_destroy (&test.actor);
    close (test.fds[0]);
    close (test.fds[1]);
}

//  --- sockets

//  A dealer on the actor, a router by hand that has its hello.
static void
s_connect (s_test_t *test, net_t *net, tl_actor_fn *on_message, tl_actor_fn *on_event)
{
    test->loop = loop_new (net, true);
    test->router = loop_bind (test->loop, "clients");
    test->dealer = loop_greet (test->loop, test->router, &net->north, &test->hello);
    s_begin (test);
    tl_actor_watch_socket (test->actor, test->dealer->socket, on_message, on_event, test);
}

static void
s_disconnect (s_test_t *test)
{
    tl_actor_forget_socket (test->actor, test->dealer->socket);
    tl_actor_destroy (&test->actor);
    tl_packet_close (&test->hello);
    loop_destroy (test->loop);
}

static void
s_no_event (void *arg)
{
}

//  Takes one message a call, so that it has to be called again for the next.
static void
s_on_message (void *arg)
{
    s_test_t *test = arg;
    tl_packet_t packet;
    if (tl_socket_receive (test->dealer->socket, &packet) != 1)
        return;
    s_note (test, *(const char *)zmq_msg_data (&packet.envelope));
    tl_packet_close (&packet);
    if (test->calls[test->count - 1] == '!')
        tl_actor_end (test->actor, 0);
}

//  Can libzmq's descriptor be read within ms?
static bool
s_fires (const s_test_t *test, int ms)
{
    struct pollfd item = {.events = POLLIN};
    size_t size = sizeof item.fd;
    assert_int_equal (
        zmq_getsockopt (tl_socket_zmq (test->dealer->socket), ZMQ_FD, &item.fd, &size), 0);
    return poll (&item, 1, ms) == 1;
}

//  A message comes, and the dealer's own sending takes its arrival in before the reactor looks.
static void
s_take_in_elsewhere (void *arg)
{
    s_test_t *test = arg;
    loop_say (test->router, &test->hello.routing, "!");
    assert_true (s_fires (test, DEADLINE_MS));
    for (int i = 0; i < 100000 && s_fires (test, 0); i++)
        tl_socket_send (test->dealer->socket, NULL, "x", 1, NULL);
    assert_false (s_fires (test, 0));
}

static void
test_a_message_that_a_send_took_in_is_read (void **state)
{
    s_test_t test = {0};
    s_connect (&test, *state, s_on_message, s_no_event);
    tl_actor_timer (test.actor, 20, 1, s_take_in_elsewhere, &test);
    s_run (&test);
    assert_int_equal (test.count, 1);
    s_disconnect (&test);
}

static void
test_a_socket_is_read_until_it_has_nothing (void **state)
{
    s_test_t test = {0};
    s_connect (&test, *state, s_on_message, s_no_event);
    for (const char *it = "abc!"; *it; it++)
        loop_say (test.router, &test.hello.routing, (char[]){*it, 0});
    s_run (&test);
    static const int expected[] = {'a', 'b', 'c', '!'};
    assert_int_equal (test.count, 4);
    assert_memory_equal (test.calls, expected, sizeof expected);
    s_disconnect (&test);
}

static void
s_on_broken (void *arg)
{
    s_test_t *test = arg;
    tl_socket_event_t event;
    while (tl_socket_event (test->dealer->socket, &event) == 1)
        if (event.event == TL_EVENT_DISCONNECTED)
            tl_actor_end (test->actor, 0);
}

static void
s_break (void *arg)
{
    s_test_t *test = arg;
    tl_socket_shutdown (test->hello.fd);
}

static void
test_a_connection_that_breaks_is_told (void **state)
{
    s_test_t test = {0};
    s_connect (&test, *state, s_on_message, s_on_broken);
    tl_actor_timer (test.actor, 1, 1, s_break, &test);
    s_run (&test);
    s_disconnect (&test);
}

#define TEST(name) cmocka_unit_test_setup_teardown (name, net_setup, net_teardown)

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_timers_come_in_order_and_as_often_as_asked),
        cmocka_unit_test (test_who_is_forgotten_is_not_called_any_more),
        TEST (test_a_message_that_a_send_took_in_is_read),
        TEST (test_a_socket_is_read_until_it_has_nothing),
        TEST (test_a_connection_that_breaks_is_told),
    };
    return cmocka_run_group_tests (tests, NULL, NULL);
}
