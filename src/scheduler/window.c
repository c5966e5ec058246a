#include "scheduler/window.h"

#include "memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    double us; //  until its rows are expected
    size_t client;
} s_expected_t;

static int
s_by_time (const void *a, const void *b)
{
    const s_expected_t *x = a, *y = b;
    return x->us != y->us ? (x->us > y->us) - (x->us < y->us)
                          : (x->client > y->client) - (x->client < y->client);
}

//  One that is later than usual is believed to come after as long again as it is late, and as its times scatter: a little
//  late is soon here, and what should have come long ago is worth no wait.
static double
s_expected (const tl_costs_t *costs, const tl_window_late_t *late)
{
    double rows = tl_costs_rows (costs, late->client);
    tl_expect_t front = tl_costs_expect (costs, TL_COST_FRONT, late->client, rows);
    double left = front.us - (double)late->waited_us;
    if (left >= 0)
        return left;
    return fmax (-left, front.spread);
}

//  What a step costs whoever is in it.
static double
s_saved (const tl_costs_t *costs, size_t worker, size_t micros)
{
    double forward, backward, update, per_row;
    tl_costs_line (costs, TL_COST_FORWARD, worker, &forward, &per_row);
    tl_costs_line (costs, TL_COST_BACKWARD, worker, &backward, &per_row);
    tl_costs_line (costs, TL_COST_UPDATE, worker, &update, &per_row);
    return (double)micros * (forward + backward) + update;
}

tl_window_t
tl_window_judge (const tl_costs_t *costs, const tl_window_scene_t *scene)
{
    double saved = s_saved (costs, scene->worker, scene->micros);
    tl_window_t window = {.saves_us = (int64_t)saved, .soonest = SIZE_MAX};
    if (scene->count == 0)
        return window;
    s_expected_t *left = tl_alloc (scene->count * sizeof *left);
    for (size_t i = 0; i < scene->count; i++)
        left[i] = (s_expected_t){s_expected (costs, &scene->late[i]), scene->late[i].client};
    qsort (left, scene->count, sizeof *left, s_by_time);
    window.soonest = left[0].client;
    window.soonest_us = (int64_t)left[0].us;
    double most =
        fmin ((double)scene->limit_us, (double)scene->late_then * saved) - (double)scene->since_us;
    //  Waiting for the k soonest costs the last one's time and saves k steps of their own.
    double gain = 0, wait = 0;
    for (size_t k = 0; k < scene->count && left[k].us <= most; k++) {
        double now = (double)(k + 1) * saved - left[k].us;
        if (now > gain) {
            gain = now;
            wait = left[k].us;
            window.wait_for = k + 1;
        }
    }
    free (left);
    //  Rounded down, or the last microsecond would be one too many; who is due now is given one.
    window.wait_us = gain > 0 ? (int64_t)fmax (floor (wait), fmin (1, floor (most))) : 0;
    return window;
}

void
tl_window_text (const tl_window_step_t *step, const char *soonest, char text[TL_WINDOW_TEXT])
{
    const tl_window_t *judged = &step->judged;
    int used = snprintf (text, TL_WINDOW_TEXT, "began with %zu of %zu clients", step->members,
                         step->members + step->late);
    if (step->waited_us > 0)
        used += snprintf (text + used, TL_WINDOW_TEXT - (size_t)used, " after %.1f ms",
                          (double)step->waited_us / 1e3);
    if (step->late)
        snprintf (text + used, TL_WINDOW_TEXT - (size_t)used,
                  ": %s is expected in %.1f ms, and its joining saves %.1f ms", soonest,
                  (double)judged->soonest_us / 1e3, (double)judged->saves_us / 1e3);
}
