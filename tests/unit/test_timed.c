//  Parts that only wait: alarms come in order and not early; a timed queue is a queue; a slow link is slow and loses nothing.

#include "actors/alarm.h"
#include "actors/compute.h"
#include "actors/synthetic.h"
#include "clock.h"
#include "fed/aggregate.h"
#include "memory.h"
#include "slow_link.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const s_states[] = {"up"};

typedef struct {
    tl_actor_t *actor;
    tl_compute_t *compute;
    int order[64];
    int64_t at[64];
    size_t count, wanted, dropped;
} s_log_t;

typedef struct {
    s_log_t *log;
    int number;
    int64_t takes;
    tl_alarm_t alarm;
} s_item_t;

static void
s_note (s_item_t *item)
{
    s_log_t *log = item->log;
    log->order[log->count] = item->number;
    log->at[log->count++] = tl_clock_us ();
    if (log->count == log->wanted)
        tl_actor_end (log->actor, 0);
}

static void
s_on_alarm (void *arg)
{
    s_note (arg);
}

static void
s_stop (void *arg)
{
}

static void
test_alarms_come_in_order (void **state)
{
    enum { COUNT = 40 };
    s_log_t log = {.wanted = COUNT - 1};
    s_item_t items[COUNT];
    tl_error_t err;
    log.actor = tl_actor_new ("test", s_states, s_stop, NULL);
    tl_alarms_t *alarms = tl_alarms_new (log.actor);
    int64_t now = tl_clock_us ();
    for (int i = 0; i < COUNT; i++) {
        int place = i * 17 % COUNT;
        items[place] = (s_item_t){.log = &log, .number = place};
        items[place].alarm = (tl_alarm_t){.fn = s_on_alarm, .arg = &items[place]};
        tl_alarms_set (alarms, &items[place].alarm, now + 500 * place);
    }
    //  Moved to the end, and taken out.
    tl_alarms_set (alarms, &items[3].alarm, now + 500 * COUNT);
    tl_alarms_cancel (alarms, &items[5].alarm);
    assert_int_equal (tl_actor_run (log.actor, &err), 0);
    for (size_t i = 0; i < log.count; i++) {
        int number = log.order[i];
        assert_true (log.at[i] >= now + 500 * (number == 3 ? COUNT : number));
        assert_int_not_equal (number, 5);
        if (i > 0 && number != 3)
            assert_true (log.order[i - 1] < number);
    }
    assert_int_equal (log.order[log.count - 1], 3);
    tl_alarms_destroy (&alarms);
    tl_actor_destroy (&log.actor);
}

static void
s_work (void *arg)
{
    s_item_t *item = arg;
    tl_compute_takes (item->log->compute, item->takes);
}

static void
s_done (void *arg)
{
    s_note (arg);
}

static void
s_drop (void *arg)
{
    ((s_item_t *)arg)->log->dropped++;
}

static void
test_a_timed_queue_takes_its_time (void **state)
{
    static const int64_t takes[] = {3000, 0, 2000, 0, 0, 5000};
    enum { COUNT = 6 };
    s_log_t log = {.wanted = COUNT};
    s_item_t items[COUNT + 2];
    tl_error_t err;
    log.actor = tl_actor_new ("test", s_states, s_stop, NULL);
    tl_alarms_t *alarms = tl_alarms_new (log.actor);
    log.compute = tl_compute_new_timed (alarms);
    int64_t now = tl_clock_us (), due = now;
    for (int i = 0; i < COUNT; i++) {
        items[i] = (s_item_t){.log = &log, .number = i, .takes = takes[i]};
        tl_compute_submit (log.compute, s_work, s_done, s_drop, &items[i]);
    }
    assert_int_equal (log.count, 0); //  nothing is done inside submit
    assert_int_equal (tl_compute_pending (log.compute), COUNT);
    assert_int_equal (tl_actor_run (log.actor, &err), 0);
    for (size_t i = 0; i < COUNT; i++) {
        due += takes[i];
        assert_int_equal (log.order[i], i);
        assert_true (log.at[i] >= due);
    }
    //  What runs and what waits at the end is dropped.
    for (int i = COUNT; i < COUNT + 2; i++) {
        items[i] = (s_item_t){.log = &log, .number = i, .takes = 1000000};
        tl_compute_submit (log.compute, s_work, s_done, s_drop, &items[i]);
    }
    tl_compute_destroy (&log.compute);
    assert_int_equal (log.dropped, 2);
    tl_alarms_destroy (&alarms);
    tl_actor_destroy (&log.actor);
}

//  A synthetic worker's state goes where a real one's goes: several are averaged.
static void
test_a_synthetic_state_can_be_averaged (void **state)
{
    static const tl_server_spec_t none = {.optimizer = TL_SERVER_NONE};
    tl_topology_t topology = {.model = {.synthetic = true, .hidden = 32}};
    tl_synthetic_t spec = {.is = true};
    tl_error_t err;
    tl_synthetic_part_t *part = tl_synthetic_part_new (&topology, &spec, NULL);
    tl_trunk_job_t *job = tl_alloc (sizeof *job);
    job->synthetic = part;
    job->step = 7;
    tl_synthetic_trunk_work.save (job);
    tl_tensor_wire_t whole;
    const void *blob = tl_packed_chunk (job->state, 0, &whole);
    tl_contribution_t parts[2] = {{.name = "a", .blob = blob, .size = whole.bytes, .labels = 1},
                                  {.name = "b", .blob = blob, .size = whole.bytes, .labels = 3}};
    tl_aggregate_t *aggregate = tl_aggregate_new (&none);
    size_t size;
    void *mean = tl_aggregate_mean (aggregate, parts, 2, 2, &size, &err);
    if (!mean)
        fail_msg ("%s %s", err.text, parts[0].refusal);
    assert_int_equal (size, whole.bytes);
    free (mean);
    tl_aggregate_destroy (&aggregate);
    tl_packed_release (NULL, job->state);
    tl_trunk_job_free (job);
    tl_synthetic_part_destroy (&part);
}

static int
s_listen (int *port)
{
    int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    assert_int_equal (bind (fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal (listen (fd, 4), 0);
    assert_int_equal (getsockname (fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs (address.sin_port);
    return fd;
}

static void
s_read_all (int fd, char *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = read (fd, data + at, size - at);
        assert_true (got > 0);
        at += (size_t)got;
    }
}

static void
test_a_slow_link_is_slow_and_loses_nothing (void **state)
{
    enum { SIZE = 250000 }; //  20 ms at 100 Mbit/s
    int port;
    int listener = s_listen (&port);
    slow_link_t *link = slow_link_new (&port, 1, 20, 100);
    int near = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons ((uint16_t)slow_link_port (link, 0)),
                                  .sin_addr.s_addr = htonl (INADDR_LOOPBACK)};
    assert_int_equal (connect (near, (struct sockaddr *)&address, sizeof address), 0);
    int far = accept (listener, NULL, NULL);
    char *data = tl_alloc (SIZE), *back = tl_alloc (SIZE);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 31 >> 3);
    int64_t began = tl_clock_us ();
    assert_int_equal (write (near, data, SIZE), SIZE);
    s_read_all (far, back, SIZE);
    assert_memory_equal (data, back, SIZE);
    assert_true (tl_clock_us () - began >=
                 29000); //  10 ms on the way, 20 to leave; a clock's tick less
    began = tl_clock_us ();
    assert_int_equal (write (far, data, 1), 1);
    s_read_all (near, back, 1);
    assert_true (tl_clock_us () - began >= 10000);
    //  Its end comes through as well.
    shutdown (near, SHUT_WR);
    assert_int_equal (read (far, back, 1), 0);
    close (near);
    close (far);
    close (listener);
    slow_link_destroy (&link);
    free (data);
    free (back);
}

int
main (void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test (test_alarms_come_in_order),
        cmocka_unit_test (test_a_timed_queue_takes_its_time),
        cmocka_unit_test (test_a_synthetic_state_can_be_averaged),
        cmocka_unit_test (test_a_slow_link_is_slow_and_loses_nothing),
    };
    return cmocka_run_group_tests_name ("timed", tests, NULL, NULL);
}
