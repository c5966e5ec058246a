#include "window.h"

#include "memory.h"

#include <math.h>
#include <stdlib.h>

static int
s_by_value (const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

//  Until this client's rows are expected. One that is later than usual is believed to come after as long again as its
//  times usually scatter; one that is far too late isn't waited for.
static double
s_expected (const tl_costs_t *costs, const tl_window_late_t *late)
{
    double rows = tl_costs_rows (costs, late->client);
    tl_expect_t front = tl_costs_expect (costs, TL_COST_FRONT, late->client, rows);
    double left = front.us - (double)late->waited_us;
    if (left >= 0)
        return left;
    return -left <= 3 * front.spread ? front.spread : INFINITY;
}

int64_t
tl_window_wait (const tl_costs_t *costs, size_t worker, const tl_window_late_t *late, size_t count,
                int64_t since_us, int64_t limit_us)
{
    double most = (double)(limit_us - since_us);
    if (count == 0 || most <= 0)
        return 0;
    double saved = 0, base, per_row;
    for (tl_cost_t what = TL_COST_FORWARD; what <= TL_COST_UPDATE; what++) {
        tl_costs_line (costs, what, worker, &base, &per_row);
        saved += base;
    }
    double *left = tl_alloc (count * sizeof *left);
    for (size_t i = 0; i < count; i++)
        left[i] = s_expected (costs, &late[i]);
    qsort (left, count, sizeof *left, s_by_value);
    //  Waiting for the k soonest costs the last one's time and saves k steps of their own.
    double gain = 0, wait = 0;
    for (size_t k = 0; k < count && left[k] <= most; k++) {
        double now = (double)(k + 1) * saved - left[k];
        if (now > gain) {
            gain = now;
            wait = left[k];
        }
    }
    free (left);
    return (int64_t)ceil (wait);
}
