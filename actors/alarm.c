//  alarm: see alarm.h. A binary heap; each alarm knows its place, so that it can be taken out.

#include "alarm.h"

#include "base/assert.h"
#include "clock.h"
#include "log.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { BURST = 4096 }; //  calls in one turn of the loop

struct tl_alarms {
    tl_actor_t *actor;
    int fd;            //  timerfd
    tl_alarm_t **heap; //  [1 .. count], the earliest at 1
    size_t count, room;
    int64_t armed; //  when fd fires, 0: not at all
};

static void s_on_time (void *arg);

tl_alarms_t *
tl_alarms_new (tl_actor_t *actor)
{
    tl_alarms_t *self = tl_alloc (sizeof *self);
    self->actor = actor;
    self->fd = timerfd_create (CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    tl_assert (self->fd >= 0);
    tl_actor_watch_fd (actor, self->fd, s_on_time, self);
    return self;
}

void
tl_alarms_destroy (tl_alarms_t **self_p)
{
    tl_alarms_t *self = *self_p;
    if (!self)
        return;
    tl_assert (self->count == 0);
    tl_actor_forget_fd (self->actor, self->fd);
    close (self->fd);
    free (self->heap);
    free (self);
    *self_p = NULL;
}

static void
s_put (tl_alarms_t *self, size_t place, tl_alarm_t *alarm)
{
    self->heap[place] = alarm;
    alarm->place = place;
}

//  Moves the alarm at place to where it belongs.
static void
s_settle (tl_alarms_t *self, size_t place)
{
    tl_alarm_t *alarm = self->heap[place];
    for (; place > 1 && self->heap[place / 2]->at > alarm->at; place /= 2)
        s_put (self, place, self->heap[place / 2]);
    for (size_t child; (child = 2 * place) <= self->count; place = child) {
        if (child < self->count && self->heap[child + 1]->at < self->heap[child]->at)
            child++;
        if (self->heap[child]->at >= alarm->at)
            break;
        s_put (self, place, self->heap[child]);
    }
    s_put (self, place, alarm);
}

static void
s_take_out (tl_alarms_t *self, tl_alarm_t *alarm)
{
    size_t place = alarm->place;
    tl_alarm_t *last = self->heap[self->count--];
    alarm->place = 0;
    if (last != alarm) {
        s_put (self, place, last);
        s_settle (self, place);
    }
}

//  The descriptor fires at the earliest.
static void
s_arm (tl_alarms_t *self)
{
    int64_t at = self->count ? self->heap[1]->at : 0;
    if (at == self->armed)
        return;
    self->armed = at;
    struct itimerspec when = {.it_value = {.tv_sec = at / 1000000, .tv_nsec = at % 1000000 * 1000}};
    int rc = timerfd_settime (self->fd, TFD_TIMER_ABSTIME, &when, NULL);
    tl_assert (rc == 0);
}

void
tl_alarms_set (tl_alarms_t *self, tl_alarm_t *alarm, int64_t at)
{
    if (!alarm->place) {
        if (self->count + 1 >= self->room) {
            self->room = 2 * self->room + 16;
            self->heap = realloc (self->heap, self->room * sizeof *self->heap);
            tl_assert (self->heap);
        }
        s_put (self, ++self->count, alarm);
    }
    alarm->at = at > 0 ? at : 1; //  0 would disarm
    alarm->who = tl_log_who ();
    s_settle (self, alarm->place);
    s_arm (self);
}

void
tl_alarms_cancel (tl_alarms_t *self, tl_alarm_t *alarm)
{
    if (!alarm->place)
        return;
    s_take_out (self, alarm);
    s_arm (self);
}

static void
s_on_time (void *arg)
{
    tl_alarms_t *self = arg;
    uint64_t times;
    ssize_t got = read (self->fd, &times, sizeof times);
    (void)got; //  EAGAIN: it was armed anew since
    self->armed = -1;
    for (int i = 0; i < BURST && self->count && self->heap[1]->at <= tl_clock_us (); i++) {
        tl_alarm_t *alarm = self->heap[1];
        s_take_out (self, alarm);
        tl_log_of (alarm->who);
        alarm->fn (alarm->arg);
    }
    self->armed = -1;
    s_arm (self);
}
